//! The row plane against the tools it replaces: copying a database, comparing
//! it, following writes ([`compare`], [`follow`]). MariaDB to MariaDB.
//!
//! From the environment: `BENCH_ROWS` (1000000) in all of four tables,
//! `BENCH_SLOTS` (4): chunks copied at a time, and threads of mydumper and
//! myloader.

use super::support::proc::{TempDir, block_on};
use super::support::servers::SERVICE;
use super::support::{Family, Missing, Server, ServerOptions};
use super::{Plan, compare, follow, report};
use lockstep::Side;
use lockstep::auth::{Account, Secret};
use lockstep::binlog::Position;
use lockstep::binlog::stream::{BinlogStream, Request};
use lockstep::config::{Password, TlsMode};
use lockstep::copy::{self, Copier};
use lockstep::follow::batch::TableName;
use lockstep::follow::tables::{CatalogTables, Tables};
use lockstep::follow::writer::Worker;
use lockstep::follow::{Follower, Mode, Status};
use lockstep::leg::connect::{self, BackendConfig};
use lockstep::leg::service::ServiceLegs;
use lockstep::rows::catalog::{CatalogLoader, Wanted};
use lockstep::rows::service::ServiceAccount;
use lockstep::rows::shape::Catalog;
use lockstep::schema::{self, Options, Progress};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const COPY: &str = "rows: copy";
const FOLLOW: &str = "rows: follow";
pub const COMPARE: &str = "rows: compare";
pub const TABLES: u64 = 4;

pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Whether one of the headings here is wanted, and none of the others.
pub fn is_all(plan: &Plan) -> bool {
    !plan.only.is_empty() && plan.only.starts_with("rows")
}

pub fn all(plan: &Plan) -> Result<(), Failed> {
    if ![COPY, FOLLOW, COMPARE].iter().any(|h| plan.wants(h)) {
        return Ok(());
    }
    let stage = Stage::start().map_err(|e| e.to_string())?;
    if plan.wants(COPY) {
        copies(&stage)?;
    }
    if plan.wants(COMPARE) {
        compare::all(&stage)?;
    }
    if plan.wants(FOLLOW) {
        report::heading(&format!("{FOLLOW}, 4 workers"));
        follow::backlogged(&stage)?;
        follow::live(plan, &stage)?;
    }
    Ok(())
}

/// The tables.
pub fn names() -> Vec<TableName> {
    let name = |n| TableName {
        schema: b"bench_rows".to_vec(),
        table: format!("t{n}").into_bytes(),
    };
    (0..TABLES).map(name).collect()
}

pub fn number(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok().and_then(|v| v.parse().ok());
    set.filter(|n| *n > 0).unwrap_or(usual)
}

pub struct Stage {
    pub source: Server,
    pub target: Server,
    pub rows: u64,
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
        let rows = number("BENCH_ROWS", 1_000_000);
        source.exec("CREATE DATABASE bench_rows");
        for n in 0..TABLES {
            source.exec(&format!(
                "CREATE TABLE bench_rows.t{n} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                 k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '', \
                 pad CHAR(60) NOT NULL DEFAULT '', KEY k (k))"
            ));
            source.exec(&format!(
                "USE bench_rows;\nINSERT INTO t{n} SELECT seq, CRC32(seq) % {rows}, \
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

    /// The target without the tables.
    pub fn empty(&self) {
        self.target
            .exec("DROP DATABASE IF EXISTS bench_rows; DROP DATABASE IF EXISTS lockstep; CREATE DATABASE bench_rows");
    }

    pub fn accounts(&self) -> [ServiceAccount; 2] {
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

    pub async fn tables(&self) -> Result<Arc<dyn Tables>, Failed> {
        let covers = |db: &[u8], _: &[u8]| db == b"bench_rows";
        let catalog = self.catalog().await?;
        Ok(Arc::new(CatalogTables::new(catalog, Side::Source, covers)))
    }

    /// Both sides' tables.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, Failed> {
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
        Ok(published.load_full())
    }

    pub async fn follower(
        &self,
        tables: Arc<dyn Tables>,
        status: Arc<Status>,
        logged: bool,
    ) -> Result<Follower, Failed> {
        let [_, target] = self.accounts();
        let workers = (0..4).map(|n| Worker::new(target.clone(), "bench", n));
        let workers = workers.map(|worker| worker.with_loads_logged(logged));
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

    fn legs(&self) -> ServiceLegs {
        let backend = BackendConfig {
            announce: Default::default(),
            side: Side::Source,
            address: self.source.address(),
            tls: connect::TlsMode::Off,
            tls_config: None,
        };
        let account = Account::new(SERVICE.0.into(), Secret::new(SERVICE.1.into()));
        ServiceLegs::new(backend, account)
    }

    pub async fn stream(&self, from: &Position, until_end: bool) -> Result<BinlogStream, Failed> {
        let leg = self.legs().open().await?;
        let request = Request {
            from: from.clone(),
            server_id: 4_200_000_000,
            uuid: "5f0c1d7a-0000-4000-8000-00000000be9c".to_string(),
            until_end,
            texts: false,
            pause: Duration::ZERO,
        };
        Ok(BinlogStream::start(leg, &request).await?)
    }

    /// As a route in `syncing` does: makes the tables, without the keys that can
    /// wait, copies, makes those keys. Not `logged`: as with `copy.binlog: no`.
    pub async fn copy(&self, logged: bool) -> Result<(), Failed> {
        let [source, target] = self.accounts();
        let (covers, progress) = (
            |db: &[u8], _: &[u8]| db == b"bench_rows",
            Progress::default(),
        );
        let options = Options::default();
        schema::create(&source, &target, &covers, options, &progress).await?;
        self.copy_rows(logged).await?;
        let options = Options::default();
        schema::finish(&source, &target, &covers, options, &progress).await?;
        Ok(())
    }

    async fn copy_rows(&self, logged: bool) -> Result<(), Failed> {
        let tables = self.tables().await?;
        let followed = self.follower(tables.clone(), Arc::default(), logged);
        let mut follower = followed.await?;
        let from = follower.position().clone();
        let stream = self.stream(&from, false).await?;
        let (chunks, received) = mpsc::channel(8);
        let status: Arc<copy::Status> = Arc::default();
        let windows = follower.windows();
        let (accounts, legs) = (self.accounts(), self.legs());
        let copier = Copier::new(accounts, legs, "bench", tables, windows, chunks, status);
        let names = names();
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

pub fn installed(program: &str) -> bool {
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
fn timed(stage: &Stage, copy: impl FnOnce() -> Result<(), Failed>) -> Result<f64, Failed> {
    stage.empty();
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
        for (name, logged) in [(OURS, true), (OURS_UNLOGGED, false)] {
            add(name, timed(stage, || block_on(stage.copy(logged)))?);
        }
        if installed("mydumper") && installed("myloader") {
            let folder = TempDir::new("mydumper");
            let folder = folder.path().display();
            let rows = stage.rows / TABLES / slots.max(1);
            for (name, logged) in [(THEIRS, "-e"), (THEIRS_UNLOGGED, "")] {
                let script = format!(
                    "rm -rf {folder}; mydumper {source} -B bench_rows -t {slots} -r {rows} -o {folder}; \
                     myloader {target} -B bench_rows -t {slots} {logged} -o -d {folder}"
                );
                add(name, timed(stage, || shell(&script))?);
            }
        } else {
            println!("  mydumper is not installed: left out");
        }
        let script = format!(
            "mariadb-dump {source} --single-transaction bench_rows | mariadb {target} bench_rows"
        );
        add("mariadb-dump | mariadb", timed(stage, || shell(&script))?);
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
    let of = |name: &str| {
        rates
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, all)| best(all))
    };
    for [ours, theirs] in [[OURS, THEIRS], [OURS_UNLOGGED, THEIRS_UNLOGGED]] {
        if let (Some(our), Some(their)) = (of(ours), of(theirs)) {
            println!("  on the same terms: {ours} / {theirs}: {:.2}", our / their);
        }
    }
    Ok(())
}

/// Ways to copy: the target's log gets the rows, or it, and so its replicas,
/// lacks them.
const OURS: &str = "lockstep";
const THEIRS: &str = "mydumper + myloader -e";
const OURS_UNLOGGED: &str = "lockstep, binlog: no";
const THEIRS_UNLOGGED: &str = "mydumper + myloader";
