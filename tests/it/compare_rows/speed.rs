//! A compare's speed, against that of the bare sum of checksums.

use super::{Rig, quiet};
use crate::or_skip;
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server};
use lockstep::compare::Kind;
use std::time::{Duration, Instant};

const CREATE: &str = "CREATE DATABASE sp;\nCREATE TABLE sp.sbtest1 (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '', KEY k_1 (k)) DEFAULT CHARSET utf8mb4";

/// 2,000 rows for each `b.n`, as sysbench makes them.
const FILL: &str = "INSERT INTO sp.sbtest1 (k, c, pad) WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 1000) SELECT (a.n * 7919 + b.n * 104729) % 2000000, CONCAT(CRC32(a.n) * 77777777777777777777, '-', CRC32(b.n) * 77777777777777777777, '-', CRC32(a.n + b.n) * 77777777777777777777, '-12345678901234567890'), CONCAT(CRC32(a.n * 7) * 77777777777777777777, '-', LEFT(CRC32(b.n * 7) * 77777777777777777777, 28)) FROM s a, s b, (SELECT 1 UNION ALL SELECT 2) d WHERE b.n <= ";

const BARE: &str =
    "SELECT SUM(CRC32(CONCAT_WS('#', id, k, c, pad))) FROM sp.sbtest1 FORCE INDEX (PRIMARY)";

/// Both servers at the same time.
fn bare(servers: [&Server; 2]) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for server in servers {
            scope.spawn(|| server.query(BARE));
        }
    });
    began.elapsed()
}

fn measured(family: Family, thousands: u32) -> f64 {
    let options = ServerOptions::args(["--innodb-buffer-pool-size=1G"]);
    let started = Server::start(family, options.clone());
    let (Ok(active), Ok(mirror)) = (started, Server::start(family, options)) else {
        return 1.0;
    };
    for server in [&active, &mirror] {
        server.exec(CREATE);
        server.exec(&format!("{FILL}{thousands}"));
        server.exec("ANALYZE TABLE sp.sbtest1");
    }
    let rig = Rig::new(&active, &mirror, "sp", quiet());
    let mut best = [Duration::MAX; 3];
    let mut rows = 0;
    for _ in 0..5 {
        best[0] = best[0].min(bare([&active, &mirror]));
        for (best, kind) in best[1..].iter_mut().zip([Kind::Full, Kind::Strong]) {
            let began = Instant::now();
            let report = rig.run(kind, false);
            *best = (*best).min(began.elapsed());
            assert!(report.is_clean());
            rows = report.rows;
        }
    }
    let rate = |took: Duration| rows as f64 / took.as_secs_f64() / 1e3;
    let ratio = best[0].as_secs_f64() / best[1].as_secs_f64();
    eprintln!(
        "{family}: {rows} rows: bare {:.0} k rows/s, full {:.0}, strong {:.0}; full / bare {ratio:.2}",
        rate(best[0]),
        rate(best[1]),
        rate(best[2])
    );
    ratio
}

#[test]
fn soak_speed() {
    if std::env::var("LOCKSTEP_SOAK").is_err() {
        return;
    }
    let _installed = or_skip!(Family::MySql.cli());
    for family in Family::BOTH {
        let ratio = measured(family, 1000);
        assert!(ratio >= 0.8, "{family}: {ratio}");
    }
}
