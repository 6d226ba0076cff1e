//! Keys of every kind, values that are exchanged, transactions that are large,
//! and both directions at once.

use super::keyless::pair;
use super::{Pipe, Stops};
use crate::follow::PAIRS;
use crate::or_skip;
use crate::support::proc::{block_on, runtime};
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server, compare};
use lockstep::Side;
use lockstep::binlog::{Body, Position};
use lockstep::config::CopySettings;
use lockstep::copy;
use lockstep::follow::Status;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TABLES: &str = "
CREATE TABLE py.words (w VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, v INT NOT NULL);
CREATE TABLE py.latin (w CHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci PRIMARY KEY, v INT NOT NULL);
CREATE TABLE py.dflt (w VARCHAR(40) PRIMARY KEY, v INT NOT NULL) DEFAULT CHARSET utf8mb4;
CREATE TABLE py.wide (n DECIMAL(38,0) PRIMARY KEY, v INT NOT NULL);
CREATE TABLE py.bin (b BINARY(16) PRIMARY KEY, v INT NOT NULL);
CREATE TABLE py.huge (n BIGINT UNSIGNED PRIMARY KEY, v INT NOT NULL);
CREATE TABLE py.pairs (a VARCHAR(9) COLLATE utf8mb4_general_ci NOT NULL, b DATETIME(6) NOT NULL, c DECIMAL(20,4) NOT NULL, v INT NOT NULL, PRIMARY KEY (a, b, c)) DEFAULT CHARSET utf8mb4;
CREATE TABLE py.uniq (id INT NULL, u INT NOT NULL, x INT NOT NULL, UNIQUE (u), UNIQUE (x));
CREATE TABLE py.swap (id INT PRIMARY KEY, u INT NOT NULL UNIQUE, w VARCHAR(9) COLLATE utf8mb4_general_ci NOT NULL UNIQUE) DEFAULT CHARSET utf8mb4;
CREATE TABLE py.big (id INT PRIMARY KEY, v INT NOT NULL);
";

const ALL: [&str; 10] = [
    "words", "latin", "dflt", "wide", "bin", "huge", "pairs", "uniq", "swap", "big",
];

const FILL: &str = "
INSERT INTO py.words SELECT CONCAT('w', n), n FROM py.n WHERE n > 60;
INSERT INTO py.words VALUES ('ä', 1), ('b', 2), ('E', 3), ('trail', 4);
INSERT INTO py.latin SELECT CONCAT('w', n), n FROM py.n;
INSERT INTO py.dflt SELECT CONCAT('w', n), n FROM py.n;
INSERT INTO py.wide SELECT 99999999999999999999999999999999999999 - n, n FROM py.n;
INSERT INTO py.wide SELECT n - 99999999999999999999999999999999999999, n FROM py.n;
INSERT INTO py.bin SELECT UNHEX(LEFT(SHA2(n, 256), 32)), n FROM py.n;
INSERT INTO py.bin VALUES (x'00', 0), (x'0100', 1);
INSERT INTO py.huge SELECT 18446744073709551615 - n, n FROM py.n;
INSERT INTO py.huge SELECT n * 9007199254740993, n FROM py.n;
INSERT INTO py.pairs SELECT CHAR(97 + n % 9), '2024-01-01 00:00:00.000001' + INTERVAL n SECOND, n / 7, n FROM py.n;
INSERT INTO py.uniq SELECT NULL, n, -n FROM py.n;
INSERT INTO py.swap SELECT n, n, CONCAT('s', n) FROM py.n;
";

const CHANGE: &str = "
UPDATE py.words SET w = 'A' WHERE w = 'ä';
UPDATE py.words SET w = 'a' WHERE w = 'a';
UPDATE py.words SET w = 'B' WHERE w = 'b';
UPDATE py.words SET w = 'é', v = v + 1 WHERE w = 'e';
UPDATE py.words SET w = 'trail ' WHERE w = 'trail';
DELETE FROM py.words WHERE w = 'W70';
UPDATE py.latin SET w = 'Ä' WHERE w = 'w1';
UPDATE py.latin SET w = 'ä', v = -1 WHERE w = 'Ä';
DELETE FROM py.latin WHERE w = 'W2';
UPDATE py.dflt SET w = 'W3' WHERE w = 'w3';
UPDATE py.dflt SET w = CONCAT(w, 'x') WHERE v BETWEEN 50 AND 300;
UPDATE py.wide SET n = n - 1000000 WHERE v < 50 AND n > 0;
UPDATE py.wide SET v = v + 1;
DELETE FROM py.wide WHERE v = 70;
UPDATE py.bin SET v = v + 1;
UPDATE py.bin SET b = x'0000ff' WHERE b = x'00000000000000000000000000000000';
DELETE FROM py.bin WHERE v = 77;
UPDATE py.huge SET v = v + 1;
DELETE FROM py.huge WHERE n = 18446744073709551613;
UPDATE py.huge SET n = n - 500000 WHERE n > 18446744073709551000;
UPDATE py.pairs SET c = c + 0.0001, a = UPPER(a) WHERE v % 3 = 0;
DELETE FROM py.pairs WHERE v % 11 = 0;
UPDATE py.uniq SET u = u + 100000, x = x - 5 ORDER BY x LIMIT 40;
BEGIN; UPDATE py.swap SET u = -1 WHERE id = 1; UPDATE py.swap SET u = 1 WHERE id = 2; UPDATE py.swap SET u = 2 WHERE id = 1; COMMIT;
BEGIN; UPDATE py.swap SET w = 'tmp' WHERE id = 3; UPDATE py.swap SET w = 'S3' WHERE id = 4; UPDATE py.swap SET w = 'S4', id = 100003 WHERE id = 3; COMMIT;
BEGIN; DELETE FROM py.swap WHERE id = 5; INSERT INTO py.swap VALUES (100005, 5, 'S5'); UPDATE py.swap SET id = 5 WHERE id = 6; COMMIT;
";

fn prepare(pipe: &Pipe, collation: &str) {
    pipe.exec_both("DROP DATABASE IF EXISTS py");
    pipe.source.exec("CREATE DATABASE py");
    // Another default collation there, which orders otherwise.
    pipe.target.exec(&format!(
        "CREATE DATABASE py DEFAULT CHARACTER SET utf8mb4 {collation}"
    ));
    for create in TABLES.split(";\n").filter(|s| !s.trim().is_empty()) {
        pipe.exec_both(create);
    }
    pipe.source.exec("CREATE TABLE py.n (n INT PRIMARY KEY) SELECT n FROM (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 800) SELECT n FROM s) q");
}

fn exec_lines(server: &Server, sql: &str) {
    sql.lines()
        .filter(|l| !l.is_empty())
        .for_each(|l| server.exec(l));
}

static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Followed, and copied, with every kind of key; one transaction of 100,000
/// rows among them.
#[test]
fn every_kind_of_key() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "py");
        prepare(&pipe, "COLLATE utf8mb4_bin");
        let start = pipe.now();
        exec_lines(source, FILL);
        exec_lines(source, CHANGE);
        source.exec(
            "INSERT INTO py.big SELECT a.n * 1000 + b.n, 0 FROM py.n a, py.n b WHERE a.n <= 125",
        );
        source.exec("UPDATE py.big SET id = id + 1000000, v = v + 1 WHERE id % 2 = 0");
        source.exec("DELETE FROM py.big WHERE id % 5 = 0");
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let names = ALL.map(|t| format!("py.{t}"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let followed = compare::assert_equal(source, target, &names);
        // The same rows copied into empty tables.
        names
            .iter()
            .for_each(|t| target.exec(&format!("DELETE FROM {t}")));
        let pipe = Pipe::new(source, target, "py");
        let start = pipe.now();
        let status: Arc<copy::Status> = Arc::default();
        block_on(pipe.copy(&ALL, &start, status.clone()))
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let copied = compare::assert_equal(source, target, &names);
        assert_eq!(followed, copied);
        assert_eq!(status.rows_done.load(Ordering::Relaxed), copied as u64);
        let tables = status.tables();
        assert!(tables.values().all(|t| t.parts_left == 0), "{tables:?}");
        assert!(copied > 85_000, "{copied}");
    }
}

/// Changed rows of `pl` in a server's log from a position on.
fn rows_in_log(pipe: &Pipe, from: &Position) -> u64 {
    block_on(async {
        let mut stream = pipe.stream(from, true).await;
        let mut rows = 0;
        while let Some(event) = stream.next().await.expect("the log") {
            if let Body::Rows(change) = &event.body
                && change.table.schema == b"pl"
            {
                rows += change.images(Some(&[false, false])).count() as u64;
            }
        }
        rows
    })
}

/// Both directions at once: each takes the other's transactions for what they
/// are, so nothing goes round, and when the clients stop it is still.
#[test]
fn no_event_travels_twice() {
    for family in Family::BOTH {
        let source = or_skip!(Server::start(family, ServerOptions::default()));
        let target = or_skip!(Server::start(family, ServerOptions::default()));
        let forward = Pipe::new(&source, &target, "pl");
        let back = Pipe {
            source: &target,
            target: &source,
            side: Side::Target,
            ..Pipe::new(&source, &target, "pl")
        };
        forward.exec_both(
            "CREATE DATABASE pl; CREATE TABLE pl.a (id INT PRIMARY KEY, v INT NOT NULL)",
        );
        forward.exec_both("CREATE TABLE pl.b (id INT PRIMARY KEY, v INT NOT NULL)");
        let starts = [forward.now(), back.now()];
        let statuses: [Arc<Status>; 2] = Default::default();
        let stop = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            // Each side's clients write rows of their own.
            let writers: Vec<_> = [(&source, "a"), (&target, "b")]
                .into_iter()
                .map(|(server, table)| {
                    let stop = &stop;
                    scope.spawn(move || {
                        runtime().block_on(async {
                            let mut conn = server.conn().await;
                            let mut n = 0_u64;
                            while !stop.load(Ordering::Relaxed) {
                                let sql = format!("INSERT INTO pl.{table} VALUES ({}, 1) ON DUPLICATE KEY UPDATE v = v + 1", n % 50);
                                conn.query_drop(sql).await.expect("a write");
                                n += 1;
                            }
                            n
                        })
                    })
                })
                .collect();
            let _stops = Stops(&stop);
            runtime().block_on(async {
                let seconds = if std::env::var_os("LOCKSTEP_SOAK").is_some() {
                    60
                } else {
                    4
                };
                let (starts, statuses) = (&starts, &statuses);
                let until = Duration::from_secs(seconds);
                let both = async {
                    tokio::join!(
                        forward.follow(&starts[0], false, statuses[0].clone()),
                        back.follow(&starts[1], false, statuses[1].clone()),
                    )
                };
                tokio::select! {
                    ended = both => panic!("{family}: {ended:?}"),
                    () = tokio::time::sleep(until) => {}
                }
            });
            stop.store(true, Ordering::Relaxed);
            let counts = writers.into_iter().map(|w| w.join().expect("a client"));
            counts.collect::<Vec<u64>>()
        });
        // Each direction brings exactly the other's own changes.
        forward.catch_up(&starts[0]).expect("forward");
        back.catch_up(&starts[1]).expect("back");
        assert!(compare::assert_equal(&source, &target, &["pl.a", "pl.b"]) > 50);
        let sums = ["a", "b"].map(|t| source.one(&format!("SELECT SUM(v) FROM pl.{t}")));
        assert_eq!(sums, [sent[0].to_string(), sent[1].to_string()], "{family}");
        for (status, sent) in statuses.iter().zip(&sent) {
            let read = status.events.load(Ordering::Relaxed);
            assert!(read <= *sent, "{family}: {read} events of {sent} changes");
        }
        // A row that goes round would be in each log once more.
        let most = sent[0] + sent[1];
        for (pipe, start) in [(&forward, &starts[0]), (&back, &starts[1])] {
            let rows = rows_in_log(pipe, start);
            assert!(
                rows <= most,
                "{family}: {rows} rows logged of {most} changes"
            );
            let still = rows_in_log(pipe, &pipe.now());
            assert_eq!(still, 0, "{family}: all is still");
        }
    }
}

/// Servers die in the middle; counters show that nothing was applied twice or
/// not at all.
#[test]
fn servers_die_in_the_middle() {
    for family in Family::BOTH {
        let options = ServerOptions {
            durable: true,
            ..Default::default()
        };
        let source = or_skip!(Server::start(family, options.clone()));
        let target = or_skip!(Server::start(family, options));
        let pipe = Pipe::new(&source, &target, "pd");
        pipe.exec_both(
            "CREATE DATABASE pd; CREATE TABLE pd.c (id INT PRIMARY KEY, v INT NOT NULL)",
        );
        pipe.exec_both("CREATE TABLE pd.nokey (v INT, w INT)");
        source.exec("INSERT INTO pd.c WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 99) SELECT n, 0 FROM s");
        target.exec("INSERT INTO pd.c WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 99) SELECT n, 0 FROM s");
        let start = pipe.now();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..3_u64 {
                let (source, stop) = (&source, &stop);
                scope.spawn(move || {
                    runtime().block_on(async {
                        let mut n = seed;
                        while !stop.load(Ordering::Relaxed) {
                            let opts = source.opts("root", "", None);
                            let Ok(mut conn) = mysql_async::Conn::new(opts).await else {
                                tokio::time::sleep(Duration::from_millis(50)).await;
                                continue;
                            };
                            loop {
                                n += 1;
                                let sql = format!("BEGIN; UPDATE pd.c SET v = v + 1 WHERE id = {}; INSERT INTO pd.nokey VALUES ({}, 0); UPDATE pd.nokey SET w = w + 1 WHERE v = {} LIMIT 1; COMMIT", n * 7 % 100, n % 10, n % 10);
                                if stop.load(Ordering::Relaxed) || conn.query_drop(sql).await.is_err() {
                                    break;
                                }
                            }
                        }
                    });
                });
            }
            let _stops = Stops(&stop);
            for round in 0..4 {
                let victim = if round % 2 == 0 { &source } else { &target };
                std::thread::scope(|inner| {
                    inner.spawn(|| {
                        std::thread::sleep(Duration::from_millis(400 + 150 * round));
                        victim.kill9();
                        victim.restart();
                    });
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(900 + 150 * round) {
                        // Ends with the server; a new one goes on.
                        // Connecting to a dead server panics in the harness.
                        let life = inner.spawn(|| {
                            let life = pipe.follow(&start, false, Arc::default());
                            let left = Duration::from_millis(700);
                            block_on(async { tokio::time::timeout(left, life).await })
                        });
                        let _ = life.join();
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
        });
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{family}: {e}"));
        let rows = compare::assert_equal(&source, &target, &["pd.c", "pd.nokey"]);
        eprintln!("{family}: {rows} rows");
        assert!(rows > 150, "{family}: {rows}");
    }
}

/// A rate is kept, and what holds the copy back is said.
#[test]
fn the_copy_can_be_slowed() {
    let _turn = TURN.lock();
    let (source, target) = or_skip!(pair(Family::MariaDb, Family::MariaDb));
    let pipe = Pipe::new(source, target, "py");
    prepare(&pipe, "");
    source
        .exec("INSERT INTO py.big SELECT a.n * 1000 + b.n, 0 FROM py.n a, py.n b WHERE a.n <= 25");
    let start = pipe.now();
    let settings = CopySettings {
        rows_per_s: 4000,
        max_threads_running: 0,
        ..CopySettings::default()
    };
    let throttle = copy::Throttle::new(settings, Arc::new(|| None));
    let status: Arc<copy::Status> = Arc::default();
    let began = Instant::now();
    block_on(pipe.copy_throttled(&["big"], &start, status.clone(), throttle)).expect("a copy");
    let took = began.elapsed();
    assert_eq!(compare::assert_equal(source, target, &["py.big"]), 20_000);
    // A second of it may come in a burst, and the last chunk is not waited for.
    assert!(
        took > Duration::from_secs(2),
        "{took:?} for 20,000 rows at 4,000 a second"
    );
    assert!(status.finished.load(Ordering::Relaxed));
}
