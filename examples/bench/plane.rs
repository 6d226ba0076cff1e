//! The row plane against the tools it replaces: copying a database, following
//! writes, and how far behind it is meanwhile. MariaDB to MariaDB.
//!
//! From the environment: `BENCH_ROWS` (300000) in all of four tables,
//! `BENCH_SLOTS` (4): chunks copied at a time, and threads of mydumper and
//! myloader.

use super::Plan;
use super::report;
use super::support::proc::{TempDir, block_on, runtime};
use super::support::servers::SERVICE;
use super::support::{Family, Missing, Server, ServerOptions};
use lockstep::Side;
use lockstep::auth::{Account, Secret};
use lockstep::binlog::Position;
use lockstep::binlog::stream::{BinlogStream, Request};
use lockstep::config::{Password, TlsMode};
use lockstep::copy::{self, Copier};
use lockstep::follow::batch::TableName;
use lockstep::follow::beat::Beat;
use lockstep::follow::tables::{CatalogTables, Tables};
use lockstep::follow::writer::Worker;
use lockstep::follow::{Follower, Mode, Status};
use lockstep::leg::Leg;
use lockstep::leg::connect::{self, BackendConfig, LoginParams};
use lockstep::rows::catalog::{CatalogLoader, Wanted};
use lockstep::rows::service::ServiceAccount;
use lockstep::rows::shape::Catalog;
use lockstep::wire::Capabilities;
use mysql_async::prelude::Queryable;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const COPY: &str = "rows: copy";
const FOLLOW: &str = "rows: follow";
const TABLES: u64 = 4;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Whether one of the headings here is wanted, and none of the others.
pub fn is_all(plan: &Plan) -> bool {
    !plan.only.is_empty() && plan.only.starts_with("rows")
}

pub fn all(plan: &Plan) -> Result<(), Failed> {
    if !plan.wants(COPY) && !plan.wants(FOLLOW) {
        return Ok(());
    }
    let stage = Stage::start().map_err(|e| e.to_string())?;
    if plan.wants(COPY) {
        copies(&stage)?;
    }
    if plan.wants(FOLLOW) {
        follows(plan, &stage)?;
    }
    Ok(())
}

fn number(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok().and_then(|v| v.parse().ok());
    set.filter(|n| *n > 0).unwrap_or(usual)
}

struct Stage {
    source: Server,
    target: Server,
    rows: u64,
    slots: u64,
}

struct Bench;

impl Wanted for Bench {
    fn fold(&self) -> bool {
        false
    }
    fn schema(&self, database: &[u8]) -> bool {
        database == b"bench_rows"
    }
    fn table(&self, database: &[u8], _: &[u8]) -> bool {
        self.schema(database)
    }
}

impl Stage {
    fn start() -> Result<Stage, Missing> {
        let options = ServerOptions::args(["--innodb-buffer-pool-size=512M"]);
        let source = Server::start(Family::MariaDb, options.clone())?;
        let target = Server::start(Family::MariaDb, options)?;
        let rows = number("BENCH_ROWS", 300_000);
        source.exec("CREATE DATABASE bench_rows");
        for n in 0..TABLES {
            source.exec(&format!(
                "CREATE TABLE bench_rows.t{n} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                 k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '', \
                 pad CHAR(60) NOT NULL DEFAULT '', KEY k (k))"
            ));
            source.exec(&format!(
                "INSERT INTO bench_rows.t{n} SELECT seq, CRC32(seq) % {rows}, \
                 CONCAT(SHA2(seq, 256), '-', MD5(seq)), SHA1(seq) FROM seq_1_to_{}",
                rows / TABLES
            ));
            source.exec(&format!("ANALYZE TABLE bench_rows.t{n}"));
        }
        let slots = number("BENCH_SLOTS", 4);
        Ok(Stage {
            source,
            target,
            rows,
            slots,
        })
    }

    /// The target without the tables, or with empty ones.
    fn empty(&self, tables: bool) {
        self.target
            .exec("DROP DATABASE IF EXISTS bench_rows; DROP DATABASE IF EXISTS lockstep; CREATE DATABASE bench_rows");
        for n in (0..TABLES).filter(|_| tables) {
            let create = self
                .source
                .query(&format!("SHOW CREATE TABLE bench_rows.t{n}"));
            let create = create[0][1].clone().unwrap_or_default();
            self.target
                .exec(&create.replacen("CREATE TABLE ", "CREATE TABLE bench_rows.", 1));
        }
    }

    fn accounts(&self) -> [ServiceAccount; 2] {
        [(&self.source, Side::Source), (&self.target, Side::Target)].map(|(server, side)| {
            ServiceAccount {
                certificate: None,
                side,
                address: server.address(),
                user: SERVICE.0.to_string(),
                password: Password::new(SERVICE.1.to_string()),
                tls: TlsMode::Off,
                ca: String::new(),
                connect_timeout: Duration::from_secs(5),
            }
        })
    }

    async fn tables(&self) -> Result<Arc<dyn Tables>, Failed> {
        let published = Arc::new(arc_swap::ArcSwap::from_pointee(Catalog::empty()));
        let loader = CatalogLoader::new(
            published.clone(),
            Arc::new(Bench),
            Arc::default(),
            Duration::from_secs(60),
            self.accounts(),
        );
        for read in loader.refresh().await {
            read?;
        }
        let covers = |db: &[u8], _: &[u8]| db == b"bench_rows";
        let catalog = published.load_full();
        Ok(Arc::new(CatalogTables::new(catalog, Side::Source, covers)))
    }

    async fn follower(
        &self,
        tables: Arc<dyn Tables>,
        status: Arc<Status>,
    ) -> Result<Follower, Failed> {
        let [_, target] = self.accounts();
        let workers = (0..4).map(|n| Worker::new(target.clone(), "bench", n));
        let start = format!("mariadb:{}", self.source.one("SELECT @@gtid_binlog_pos"));
        let start: Position = start.parse()?;
        Ok(Follower::new(
            workers.collect(),
            tables,
            start,
            status,
            Mode::Apply(Vec::new()),
        )
        .await?)
    }

    async fn stream(&self, from: &Position, until_end: bool) -> Result<BinlogStream, Failed> {
        let backend = BackendConfig {
            announce: Default::default(),
            side: Side::Source,
            address: self.source.address(),
            tls: connect::TlsMode::Off,
            tls_config: None,
        };
        let opened = connect::open(&backend, Duration::from_secs(5), None).await?;
        let account = Account::new(SERVICE.0.into(), Secret::new(SERVICE.1.into()));
        let params = LoginParams {
            capabilities: Capabilities::LONG_PASSWORD | Capabilities::DEPRECATE_EOF,
            charset: 45,
            max_packet: 1 << 30,
            ..LoginParams::default()
        };
        let login = connect::login(opened, &account, &params).await?;
        let leg = Leg::new(Side::Source, login, None);
        let request = Request {
            from: from.clone(),
            server_id: 4_200_000_000,
            uuid: "5f0c1d7a-0000-4000-8000-00000000be9c".to_string(),
            until_end,
        };
        Ok(BinlogStream::start(leg, &request).await?)
    }

    async fn copy(&self) -> Result<(), Failed> {
        let tables = self.tables().await?;
        let mut follower = self.follower(tables.clone(), Arc::default()).await?;
        let from = follower.position().clone();
        let stream = self.stream(&from, false).await?;
        let (chunks, received) = mpsc::channel(8);
        let status: Arc<copy::Status> = Arc::default();
        let windows = follower.windows();
        let copier = Copier::new(self.accounts(), "bench", tables, windows, chunks, status);
        let names: Vec<TableName> = (0..TABLES)
            .map(|n| TableName {
                schema: b"bench_rows".to_vec(),
                table: format!("t{n}").into_bytes(),
            })
            .collect();
        tokio::select! {
            ended = follower.run(stream, received) => Err(format!("the follower ended: {ended:?}").into()),
            done = copier.run(&names, self.slots as usize) => Ok(done?),
        }
    }

    fn rows_there(&self) -> u64 {
        (0..TABLES)
            .map(|n| {
                let count = self
                    .target
                    .one(&format!("SELECT COUNT(*) FROM bench_rows.t{n}"));
                count.parse::<u64>().unwrap_or(0)
            })
            .sum()
    }
}

fn installed(program: &str) -> bool {
    let mut found = Command::new("sh");
    found.args(["-c", &format!("command -v {program}")]);
    found.stdout(Stdio::null()).stderr(Stdio::null());
    found.status().is_ok_and(|s| s.success())
}

fn shell(script: &str) -> Result<(), Failed> {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -euo pipefail; {script}")]);
    let done = command.stdout(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned().into())
}

/// Times one way of copying into an emptied target.
fn timed(
    stage: &Stage,
    tables: bool,
    copy: impl FnOnce() -> Result<(), Failed>,
) -> Result<f64, Failed> {
    stage.empty(tables);
    let began = Instant::now();
    copy()?;
    let rate = stage.rows as f64 / began.elapsed().as_secs_f64();
    let there = stage.rows_there();
    if there != stage.rows {
        return Err(format!("{there} of {} rows copied", stage.rows).into());
    }
    Ok(rate)
}

fn copies(stage: &Stage) -> Result<(), Failed> {
    report::heading(&format!(
        "{COPY}, {} rows of 200 bytes in {TABLES} tables, {} at a time, rows/s",
        stage.rows, stage.slots
    ));
    let (from, to) = (stage.source.port(), stage.target.port());
    let at = |port: u16| format!("-h 127.0.0.1 -P {port} -u root");
    let (source, target, slots) = (at(from), at(to), stage.slots);
    let mut rates: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut add = |name: &'static str, rate: f64| match rates.iter_mut().find(|(n, _)| *n == name) {
        Some((_, all)) => all.push(rate),
        None => rates.push((name, vec![rate])),
    };
    for _ in 0..number("BENCH_COPIES", 2) {
        add("lockstep", timed(stage, true, || block_on(stage.copy()))?);
        if installed("mydumper") && installed("myloader") {
            let folder = TempDir::new("mydumper");
            let folder = folder.path().display();
            let rows = stage.rows / TABLES / slots.max(1);
            let script = format!(
                "mydumper {source} -B bench_rows -t {slots} -r {rows} -o {folder}; \
                 myloader {target} -B bench_rows -t {slots} -o -d {folder}"
            );
            add(
                "mydumper + myloader",
                timed(stage, false, || shell(&script))?,
            );
        } else {
            println!("  mydumper is not installed: left out");
        }
        let script = format!(
            "mariadb-dump {source} --single-transaction bench_rows | mariadb {target} bench_rows"
        );
        add(
            "mariadb-dump | mariadb",
            timed(stage, false, || shell(&script))?,
        );
    }
    let best = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let ours = rates.first().map_or(0.0, |(_, all)| best(all));
    for (name, all) in &rates {
        println!(
            "  {name:<24} {:>9.0}   {:.2} x",
            best(all),
            ours / best(all)
        );
    }
    println!("  (best of each; the last column is lockstep's rate by its)");
    Ok(())
}

/// A backlog of row events written as fast as it can be, then writes followed
/// live.
fn follows(plan: &Plan, stage: &Stage) -> Result<(), Failed> {
    report::heading(&format!("{FOLLOW}, 4 workers"));
    stage.empty(true);
    block_on(stage.copy())?;
    let status: Arc<Status> = Arc::default();
    block_on(async {
        let tables = stage.tables().await?;
        // The checkpoint of the copy's follower is before the backlog.
        let events = backlog(stage).await?;
        let mut follower = stage.follower(tables, status.clone()).await?;
        let from = follower.position().clone();
        let stream = stage.stream(&from, true).await?;
        let (_, no_chunks) = mpsc::channel(1);
        let began = Instant::now();
        follower.run(stream, no_chunks).await?;
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "  backlog: {events} rows of single-row transactions and of large ones in {seconds:.1} s: {:.0} row events/s",
            events as f64 / seconds
        );
        Ok::<(), Failed>(())
    })?;
    live(plan, stage)
}

/// Half of the rows in transactions of 2, half in large ones.
async fn backlog(stage: &Stage) -> Result<u64, Failed> {
    let half = number("BENCH_EVENTS", 100_000) / 2;
    let clients = 8;
    let single = (0..clients).map(|seed| async move {
        let mut conn = stage.source.conn().await;
        for n in 0..half / clients / 2 {
            let id = (n * 7919 + seed * 104_729) % (stage.rows / TABLES) + 1;
            let table = seed % TABLES;
            let sql = format!(
                "BEGIN; UPDATE bench_rows.t{table} SET k = k + 1 WHERE id = {id}; \
                 UPDATE bench_rows.t{table} SET c = REVERSE(c) WHERE id = {id}; COMMIT"
            );
            // Deadlocks among them are part of it.
            let _ = conn.query_drop(sql).await;
        }
    });
    futures(single.collect()).await;
    let mut conn = stage.source.conn().await;
    let large = half.min(stage.rows / TABLES);
    conn.query_drop(format!(
        "UPDATE bench_rows.t0 SET k = k + 3 ORDER BY id LIMIT {large}"
    ))
    .await?;
    Ok(half / clients / 2 * clients * 2 + large)
}

async fn futures<F: Future<Output = ()>>(all: Vec<F>) {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|f| f.as_mut().poll(cx).is_pending());
        if all.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Lag under a load that the source takes without being stopped.
fn live(plan: &Plan, stage: &Stage) -> Result<(), Failed> {
    let seconds = plan.seconds.as_secs().max(8);
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let status: Arc<Status> = Arc::default();
    std::thread::scope(|scope| {
        for seed in 0..8_u64 {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                runtime().block_on(async {
                    let mut conn = stage.source.conn().await;
                    let mut n = seed;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        let id = n * 7919 % (stage.rows / TABLES) + 1;
                        let sql = format!(
                            "UPDATE bench_rows.t{} SET k = k + 1 WHERE id = {id}",
                            n % TABLES
                        );
                        if conn.query_drop(sql).await.is_ok() {
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            });
        }
        let followed = runtime().block_on(async {
            let tables = stage.tables().await?;
            let mut follower = stage.follower(tables, status.clone()).await?;
            let from = follower.position().clone();
            let stream = stage.stream(&from, false).await?;
            let (_, no_chunks) = mpsc::channel(1);
            let [source, _] = stage.accounts();
            let beat = Beat::start(source, "bench", status.clone());
            let mut lags: Vec<f64> = Vec::new();
            let sampling = async {
                for _ in 0..seconds * 10 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    lags.extend(beat.lag().map(|lag| lag.as_secs_f64() * 1e3));
                }
            };
            tokio::select! {
                ended = follower.run(stream, no_chunks) => return Err::<(), Failed>(format!("{ended:?}").into()),
                () = sampling => {}
            }
            lags.sort_by(f64::total_cmp);
            let at = |q: f64| {
                let at = (lags.len().saturating_sub(1) as f64 * q) as usize;
                lags.get(at).copied().unwrap_or(f64::NAN)
            };
            println!(
                "  live: {:.0} writes/s of 8 clients for {seconds} s; lag p50 {:.0} ms, p99 {:.0} ms",
                written.load(Ordering::Relaxed) as f64 / seconds as f64,
                at(0.5),
                at(0.99)
            );
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        followed
    })
}
