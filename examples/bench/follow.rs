//! How fast the log is followed, and how far behind the follower is while
//! sysbench writes through the proxy.

use super::Plan;
use super::plane::{Failed, Stage, TABLES, installed, number};
use super::support::proc::block_on;
use super::support::servers::APP;
use super::support::{Proxy, ProxyOptions, proc};
use lockstep::follow::Status;
use mysql_async::prelude::Queryable;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const ROUTE: &str = "live";

/// A backlog of row events, written as fast as it can be.
pub fn backlogged(stage: &Stage) -> Result<(), Failed> {
    stage.empty();
    block_on(stage.copy(true))?;
    let status: Arc<Status> = Arc::default();
    block_on(async {
        let tables = stage.tables().await?;
        // The checkpoint of the copy's follower is before the backlog.
        let events = backlog(stage).await?;
        let mut follower = stage.follower(tables, status.clone(), true).await?;
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
    })
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

/// What one run of sysbench showed.
struct Run {
    /// Transactions a second, of four written rows each.
    rate: f64,
    /// The follower's lag, every 100 ms, in milliseconds.
    lags: Vec<f64>,
}

impl Run {
    fn quantile(&self, q: f64) -> f64 {
        let mut lags = self.lags.clone();
        lags.sort_by(f64::total_cmp);
        let at = (lags.len().saturating_sub(1) as f64 * q) as usize;
        lags.get(at).copied().unwrap_or(f64::NAN)
    }

    /// The median lag of the first and of the last third.
    fn ends(&self) -> (f64, f64) {
        let third = self.lags.len() / 3;
        let median = |lags: &[f64]| {
            let mut lags = lags.to_vec();
            lags.sort_by(f64::total_cmp);
            lags.get(lags.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let last = self.lags.len() - third;
        (
            median(self.lags.get(..third).unwrap_or_default()),
            median(self.lags.get(last..).unwrap_or_default()),
        )
    }

    /// A lag above half a second that is twice what it was.
    fn grows(&self) -> bool {
        let (first, last) = self.ends();
        last > 500.0 && last > 2.0 * first
    }

    fn print(&self, what: &str) {
        let (first, last) = self.ends();
        println!(
            "  {what}: {:.0} transactions/s, {:.0} rows/s written; lag p50 {:.0} ms, p99 {:.0} ms; \
             median of the first third {first:.0} ms, of the last {last:.0} ms: {}",
            self.rate,
            self.rate * 4.0,
            self.quantile(0.5),
            self.quantile(0.99),
            if self.grows() {
                "it grows"
            } else {
                "it does not grow"
            }
        );
    }
}

/// Lag while sysbench writes through the proxy: at full rate, and at 70 % of
/// the rate at which the lag starts to grow.
pub fn live(plan: &Plan, stage: &Stage) -> Result<(), Failed> {
    if !installed("sysbench") {
        println!("  sysbench is not installed: left out");
        return Ok(());
    }
    let sides = [&stage.source, &stage.target];
    for server in sides {
        server.exec("DROP DATABASE IF EXISTS sb; CREATE DATABASE sb");
        server.exec(&format!("GRANT ALL ON sb.* TO '{}'@'%'", APP.0));
    }
    let proxy = Proxy::start(
        &stage.source,
        &stage.target,
        ProxyOptions::route(ROUTE, &["sb.*"]),
    );
    let rows = format!("--table-size={}", stage.rows / TABLES);
    sysbench(&stage.source.port(), &rows, &["prepare"])?;
    let answer = proxy.advance(ROUTE, Some("syncing"), false);
    if !answer.ok() {
        return Err(format!("{answer:?}").into());
    }
    proc::wait_for("the copy", Duration::from_secs(600), || {
        proxy.route(ROUTE)["copy"]["state"] == "done"
    });
    let seconds = number("BENCH_LIVE_SECONDS", plan.seconds.as_secs().max(20));
    let phases = [
        ("applying (syncing)", None),
        ("healing (source_first)", Some("source_first")),
    ];
    for (what, phase) in phases {
        if let Some(phase) = phase {
            proxy.wait_followed(ROUTE, Duration::from_secs(120));
            proxy.must_advance(ROUTE, phase);
        }
        println!("  {what}:");
        let full = run(&proxy, &rows, seconds, None)?;
        full.print("  full rate");
        let mut limit = full.rate;
        let mut last = full;
        while last.grows() && limit > 20.0 {
            proxy.wait_followed(ROUTE, Duration::from_secs(600));
            limit *= 0.8;
            last = run(&proxy, &rows, seconds, Some(limit))?;
            last.print(&format!("  at {limit:.0} transactions/s"));
        }
        proxy.wait_followed(ROUTE, Duration::from_secs(600));
        let seventy = run(&proxy, &rows, seconds, Some(limit * 0.7))?;
        seventy.print("  at 70 % of the last rate without growth");
        proxy.wait_followed(ROUTE, Duration::from_secs(600));
    }
    Ok(())
}

fn run(proxy: &Proxy, rows: &str, seconds: u64, rate: Option<f64>) -> Result<Run, Failed> {
    let time = format!("--time={seconds}");
    let paced = rate.map(|rate| format!("--rate={}", rate.max(1.0) as u64));
    let mut args = vec![time.as_str(), "--threads=8"];
    args.extend(paced.as_deref());
    args.push("run");
    let port = proxy.port();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| sysbench(&port, rows, &args));
        let mut lags = Vec::new();
        while !load.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            lags.extend(proxy.route(ROUTE)["follow"]["lag_ms"].as_f64());
        }
        let said = load.join().map_err(|_| "sysbench's thread")??;
        let rate = said
            .lines()
            .find_map(|l| l.trim().strip_prefix("transactions:"))
            .and_then(|l| l.split('(').nth(1))
            .and_then(|l| l.split(' ').next())
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| format!("sysbench said: {said}"))?;
        Ok(Run { rate, lags })
    })
}

fn sysbench(port: &u16, rows: &str, args: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new("sysbench");
    command.arg("oltp_write_only").args([
        "--mysql-host=127.0.0.1",
        &format!("--mysql-port={port}"),
        &format!("--mysql-user={}", APP.0),
        &format!("--mysql-password={}", APP.1),
        "--mysql-db=sb",
        &format!("--tables={TABLES}"),
        rows,
    ]);
    let done = command.args(args).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        Ok(said)
    } else {
        Err(said.into())
    }
}
