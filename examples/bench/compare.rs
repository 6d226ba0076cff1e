//! Comparing, against pt-table-checksum and against the bare sum of checksums,
//! which is as fast as servers can be.

use super::plane::{COMPARE, Failed, Stage, TABLES, installed, names, number};
use super::report;
use super::support::Server;
use super::support::proc::block_on;
use arc_swap::ArcSwap;
use lockstep::compare::{Comparer, Kind, Parts};
use lockstep::rows::shape::Catalog;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// As the proxy compares.
const SLOTS: usize = 2;

pub fn all(stage: &Stage) -> Result<(), Failed> {
    report::heading(&format!(
        "{COMPARE}, {} rows of 200 bytes in {TABLES} tables, rows/s",
        stage.rows
    ));
    stage.empty();
    block_on(stage.copy(true))?;
    for server in [&stage.source, &stage.target] {
        for n in 0..TABLES {
            server.exec(&format!("ANALYZE TABLE bench_rows.t{n}"));
        }
    }
    // The proxy knows it before it compares.
    let catalog = block_on(stage.catalog())?;
    let mut best: Vec<(&str, f64)> = Vec::new();
    let mut time = |what: &'static str, run: &dyn Fn() -> Result<(), Failed>| {
        let began = Instant::now();
        run()?;
        let rate = stage.rows as f64 / began.elapsed().as_secs_f64();
        match best.iter_mut().find(|(w, _)| *w == what) {
            Some((_, best)) => *best = best.max(rate),
            None => best.push((what, rate)),
        }
        Ok::<(), Failed>(())
    };
    for _ in 0..number("BENCH_COMPARES", 5) {
        time("lockstep, full", &|| compared(stage, &catalog, Kind::Full))?;
        time("lockstep, strong", &|| {
            compared(stage, &catalog, Kind::Strong)
        })?;
        time("bare sums, both servers", &|| {
            std::thread::scope(|scope| {
                for server in [&stage.source, &stage.target] {
                    scope.spawn(move || sums(server));
                }
            });
            Ok(())
        })?;
        if installed("pt-table-checksum") {
            time("pt-table-checksum", &|| checksum(stage))?;
        }
    }
    let ours = best.first().map_or(f64::NAN, |(_, rate)| *rate);
    for (what, rate) in &best {
        println!("  {what:<24} {rate:>9.0}   {:.2} x", ours / rate);
    }
    if !installed("pt-table-checksum") {
        println!("  pt-table-checksum is not installed: left out");
    }
    println!("  (best of each; the last column is the full compare's rate by its)");
    Ok(())
}

fn sums(server: &Server) {
    for n in 0..TABLES {
        server.query(&format!(
            "SELECT SUM(CRC32(CONCAT_WS('#', id, k, c, pad))) FROM bench_rows.t{n} FORCE INDEX (PRIMARY)"
        ));
    }
}

fn compared(stage: &Stage, catalog: &Arc<Catalog>, kind: Kind) -> Result<(), Failed> {
    block_on(async {
        let parts = Parts {
            accounts: stage.accounts(),
            replicas: [None, None],
            catalog: Arc::new(ArcSwap::new(catalog.clone())),
            barrier: Some(Arc::new(|| Box::pin(async { Ok(()) }))),
            healers: None,
            divergences: Arc::default(),
            status: Arc::default(),
            slots: SLOTS,
            proven: None,
        };
        let report = Comparer::new(parts).run(&names(), kind, false).await?;
        match report.is_clean() && report.rows == stage.rows {
            true => Ok(()),
            false => Err(format!("{} rows compared, not all equal", report.rows).into()),
        }
    })
}

/// One server's checksums, written to a table as replicas would get them.
fn checksum(stage: &Stage) -> Result<(), Failed> {
    let mut command = Command::new("pt-table-checksum");
    command.args([
        "--host=127.0.0.1",
        &format!("--port={}", stage.source.port()),
        "--user=root",
        "--databases=bench_rows",
        "--recursion-method=none",
        "--no-check-binlog-format",
        "--no-version-check",
        "--quiet",
    ]);
    let done = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("pt-table-checksum: {said}").into()),
    }
}
