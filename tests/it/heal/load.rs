//! Writers on both sides, as the proxy writes, with failures planted.

use super::{Pair, told};
use crate::binlog::now;
use crate::follow::PAIRS;
use crate::or_skip;
use crate::support::proc::runtime;
use crate::support::servers::{APP, SERVICE, ServerOptions};
use crate::support::{Family, Server, compare};
use lockstep::follow::Status;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TABLES: [&str; 5] = ["hl.counter", "hl.swap", "hl.words", "hl.pairs", "hl.notes"];

const CREATE: &str = "
CREATE TABLE hl.counter (id INT PRIMARY KEY, v INT NOT NULL);
CREATE TABLE hl.swap (id INT PRIMARY KEY, u INT NOT NULL UNIQUE, v INT NOT NULL, INDEX (v));
CREATE TABLE hl.words (w VARCHAR(30) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT NOT NULL) DEFAULT CHARSET utf8mb4;
CREATE TABLE hl.pairs (a INT NOT NULL, b VARCHAR(10) NOT NULL, v BIGINT NOT NULL, PRIMARY KEY (a, b)) DEFAULT CHARSET utf8mb4;
CREATE TABLE hl.notes (id BIGINT UNSIGNED PRIMARY KEY, n INT NOT NULL, t TEXT);
";

/// A small generator of numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What a writer has done.
#[derive(Default)]
struct Done {
    mirrored: AtomicU64,
    dropped: AtomicU64,
    counted: [AtomicU64; 5],
}

/// The statements of one transaction; each row-local and by a full key.
fn statements(dice: &mut Dice, seed: u64) -> Vec<String> {
    let letters = ["a", "A", "ä", "b", "B", "c", "é", "e"];
    let (x, y) = (dice.roll(12), dice.roll(12));
    let word = format!("{}{}", letters[dice.roll(8) as usize], dice.roll(4));
    let other = format!("{}{}", letters[dice.roll(8) as usize], dice.roll(4));
    match dice.roll(13) {
        0 => vec![format!("INSERT INTO hl.swap VALUES ({x}, {y}, 1)")],
        // Two rows exchange their unique values.
        1 => vec![
            format!("UPDATE hl.swap SET u = -1 - {seed} WHERE id = {x}"),
            format!("UPDATE hl.swap SET u = {x} WHERE id = {y}"),
            format!("UPDATE hl.swap SET u = {y} WHERE id = {x}"),
        ],
        2 => vec![format!(
            "UPDATE hl.swap SET id = {y}, v = v + 1 WHERE id = {x}"
        )],
        3 => vec![format!("DELETE FROM hl.swap WHERE id = {x}")],
        4 => vec![format!("INSERT INTO hl.words VALUES ('{word}', {x})")],
        5 => vec![format!(
            "UPDATE hl.words SET w = '{other}' WHERE w = '{word}'"
        )],
        6 => vec![format!("DELETE FROM hl.words WHERE w = '{word}'")],
        7 => vec![format!("REPLACE INTO hl.pairs VALUES ({x}, '{word}', {y})")],
        8 => vec![format!(
            "UPDATE hl.pairs SET a = {y}, v = v + 1 WHERE a = {x} AND b = '{word}'"
        )],
        9 => vec![format!(
            "INSERT INTO hl.notes VALUES ({x}, 1, '{word}') ON DUPLICATE KEY UPDATE n = n + 1, t = '{word}'"
        )],
        10 => vec![
            format!("DELETE FROM hl.notes WHERE id = {x}"),
            format!("INSERT INTO hl.notes VALUES ({x}, 1000, REPEAT('{word}', {y}))"),
        ],
        11 => vec![format!(
            "UPDATE hl.counter SET v = v - 1 WHERE id = {}",
            x % 5
        )],
        _ => vec![format!(
            "UPDATE hl.counter SET v = v + 1 WHERE id = {}",
            x % 5
        )],
    }
}

async fn app(server: &Server) -> Conn {
    let opts = server.opts(APP.0, APP.1, None);
    let mut conn = Conn::new(opts).await.expect("the application's login");
    conn.query_drop("SET SESSION innodb_lock_wait_timeout = 1")
        .await
        .expect("lock wait");
    conn
}

/// One client whose statements are mirrored as DESIGN §5 says: A executes, M
/// executes, A commits, M commits. A part of M's is lost at one of the steps.
async fn writer(active: &Server, mirror: &Server, seed: u64, stop: &AtomicBool, done: &Done) {
    let (mut a, mut m) = (app(active).await, app(mirror).await);
    let mut dice = Dice(seed);
    while !stop.load(Ordering::Relaxed) {
        let texts = statements(&mut dice, seed);
        // 0: not sent, 1: rolled back before A commits, 2: after.
        let lost = if dice.roll(100) < 15 { dice.roll(3) } else { 9 };
        let slow = dice.roll(20) == 0;
        a.query_drop("BEGIN").await.expect("BEGIN");
        m.query_drop("BEGIN").await.expect("BEGIN");
        let (mut failed, mut mirrored) = (false, lost != 0);
        for text in &texts {
            if a.query_drop(text).await.is_err() {
                failed = true;
                break;
            }
            if a.affected_rows() == 0 {
                continue;
            }
            if mirrored && m.query_drop(text).await.is_err() {
                m.query_drop("ROLLBACK").await.expect("ROLLBACK");
                mirrored = false;
            }
        }
        if failed {
            a.query_drop("ROLLBACK").await.expect("ROLLBACK");
            m.query_drop("ROLLBACK").await.expect("ROLLBACK");
            continue;
        }
        if lost == 1 {
            m.query_drop("ROLLBACK").await.expect("ROLLBACK");
        }
        a.query_drop("COMMIT").await.expect("COMMIT");
        if slow {
            tokio::time::sleep(Duration::from_millis(dice.roll(60))).await;
        }
        let end = if lost == 2 { "ROLLBACK" } else { "COMMIT" };
        m.query_drop(end).await.expect(end);
        for text in &texts {
            if let Some(id) = text.strip_prefix("UPDATE hl.counter SET v = v + 1 WHERE id = ") {
                let id: usize = id.parse().expect("a number");
                done.counted[id].fetch_add(1, Ordering::Relaxed);
            } else if let Some(id) =
                text.strip_prefix("UPDATE hl.counter SET v = v - 1 WHERE id = ")
            {
                let id: usize = id.parse().expect("a number");
                done.counted[id].fetch_sub(1, Ordering::Relaxed);
            }
        }
        let counter = if mirrored && lost > 2 {
            &done.mirrored
        } else {
            &done.dropped
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Spoils rows of the mirror that the writers touch.
async fn vandal(mirror: &Server, stop: &AtomicBool) {
    let mut conn = app(mirror).await;
    let mut dice = Dice(99);
    while !stop.load(Ordering::Relaxed) {
        let x = dice.roll(12);
        let sql = match dice.roll(5) {
            0 => format!("DELETE FROM hl.swap WHERE id = {x}"),
            1 => format!("UPDATE hl.swap SET u = u + 100, v = 77 WHERE id = {x}"),
            2 => format!("INSERT INTO hl.notes VALUES ({x}, 5, 'extra')"),
            3 => format!("UPDATE hl.counter SET v = 0 WHERE id = {}", x % 5),
            _ => format!("DELETE FROM hl.words WHERE v = {x}"),
        };
        let _ = conn.query_drop(sql).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An event for each row that is or was.
const TOUCH: &str = "
UPDATE hl.counter SET v = v + 1; UPDATE hl.counter SET v = v - 1;
DELETE FROM hl.swap WHERE id > 100;
UPDATE hl.swap SET v = v + 1;
UPDATE hl.pairs SET v = v + 1;
UPDATE hl.words SET v = v + 1;
UPDATE hl.notes SET n = n + 1;
";

/// How many statements of the active side wait for a lock of the healer.
async fn waiting_for_us(conn: &mut Conn, family: Family) -> u64 {
    let sql = match family {
        Family::MariaDb => format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_LOCK_WAITS w \
             JOIN information_schema.INNODB_TRX t ON t.trx_id = w.blocking_trx_id \
             JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
             WHERE p.USER = '{}'",
            SERVICE.0
        ),
        Family::MySql => format!(
            "SELECT COUNT(*) FROM performance_schema.data_lock_waits w \
             JOIN performance_schema.threads t ON t.THREAD_ID = w.BLOCKING_THREAD_ID \
             WHERE t.PROCESSLIST_USER = '{}'",
            SERVICE.0
        ),
    };
    let count: Result<Option<u64>, _> = conn.query_first(sql).await;
    count.expect("lock waits").unwrap_or_default()
}

/// The load, with a follower that is cut off at times; afterwards all is equal.
fn healed_under_load(from: Family, to: Family, seconds: u64, crashes: bool) {
    let active = or_skip!(Server::start(from, ServerOptions::default()));
    let mirror = or_skip!(Server::start(to, ServerOptions::default()));
    for server in [&active, &mirror] {
        server.exec("CREATE DATABASE hl");
        for create in CREATE.split(';').filter(|s| !s.trim().is_empty()) {
            server.exec(create);
        }
        server.exec(&format!("GRANT ALL ON hl.* TO '{}'@'%'", APP.0));
        server.exec("INSERT INTO hl.counter VALUES (0,0),(1,0),(2,0),(3,0),(4,0)");
    }
    let pair = Pair {
        active: &active,
        mirror: &mirror,
        schema: "hl",
        stream: "load/forward",
        start: now(&active, false),
    };
    let (stop, done) = (AtomicBool::new(false), Done::default());
    let status: Arc<Status> = Arc::default();
    let waits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (active, mirror, stop, done) = (&active, &mirror, &stop, &done);
            scope.spawn(move || runtime().block_on(writer(active, mirror, seed, stop, done)));
        }
        scope.spawn(|| runtime().block_on(vandal(&mirror, &stop)));
        scope.spawn(|| {
            runtime().block_on(async {
                let mut conn = active.conn().await;
                while !stop.load(Ordering::Relaxed) {
                    let found = waiting_for_us(&mut conn, from).await;
                    waits.fetch_add(found, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut lives = 0;
        while Instant::now() < until {
            lives += 1;
            let cut = if crashes {
                Duration::from_millis(300 + 211 * lives % 900)
            } else {
                until.saturating_duration_since(Instant::now())
            };
            let life = pair.heal(false, status.clone());
            let ended = runtime().block_on(async { tokio::time::timeout(cut, life).await });
            if ended.is_ok() {
                stop.store(true, Ordering::Relaxed);
                panic!("{from} → {to}: {ended:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let counts = |server: &Server| -> Vec<i64> {
        let rows = server.query("SELECT v FROM hl.counter ORDER BY id");
        let values = rows.into_iter().flatten().flatten();
        values.map(|v| v.parse().expect("a number")).collect()
    };
    let counted: Vec<i64> = done
        .counted
        .iter()
        .map(|n| n.load(Ordering::Relaxed).cast_signed())
        .collect();
    assert_eq!(
        counts(&active),
        counted,
        "{from} → {to}: lost on the active"
    );
    active.exec(
        "INSERT INTO hl.notes WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 12) SELECT n, 1, 't' FROM s ON DUPLICATE KEY UPDATE n = hl.notes.n + 1",
    );
    for touch in TOUCH.split(';').filter(|s| !s.trim().is_empty()) {
        active.exec(touch);
    }
    // The barrier returns, and at that instant all is equal.
    let beat = runtime().block_on(async { pair.beat(&status) });
    let began = Instant::now();
    runtime().block_on(async {
        tokio::select! {
            ended = pair.heal(false, status.clone()) => panic!("{from} → {to}: {ended:?}"),
            reached = beat.barrier(Duration::from_secs(60)) => {
                reached.unwrap_or_else(|e| panic!("{from} → {to}: {e}: {}", told(&status)));
            }
        }
    });
    let rows = compare::assert_equal(&active, &mirror, &TABLES);
    eprintln!(
        "{from} → {to}: {} mirrored, {} dropped; {}; caught up in {:?}, lag {:?}; {rows} rows equal",
        done.mirrored.load(Ordering::Relaxed),
        done.dropped.load(Ordering::Relaxed),
        told(&status),
        began.elapsed(),
        beat.lag(),
    );
    assert_eq!(
        waits.load(Ordering::Relaxed),
        0,
        "lock waits on the active side"
    );
    assert!(done.dropped.load(Ordering::Relaxed) > 20);
    assert!(status.heal.changed.load(Ordering::Relaxed) > 0);
}

#[test]
fn equal_under_load() {
    for (from, to) in PAIRS {
        healed_under_load(from, to, 4, false);
    }
}

#[test]
fn equal_after_crashes() {
    for (from, to) in PAIRS {
        healed_under_load(from, to, 5, true);
    }
}

#[test]
fn soak_heal() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    for (from, to) in PAIRS {
        healed_under_load(from, to, 120, false);
        healed_under_load(from, to, 120, true);
    }
}

/// How fast rows are healed that the mirror has missed for long, and seen to be
/// equal where it has not.
#[test]
fn soak_heal_rate() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    const ROWS: u64 = 100_000;
    for (from, to) in PAIRS {
        let active = or_skip!(Server::start(from, ServerOptions::default()));
        let mirror = or_skip!(Server::start(to, ServerOptions::default()));
        for server in [&active, &mirror] {
            server.exec("CREATE DATABASE hq");
            server.exec("CREATE TABLE hq.t (id INT PRIMARY KEY, k INT, c CHAR(120), pad CHAR(60), INDEX (k))");
        }
        let pair = Pair {
            active: &active,
            mirror: &mirror,
            schema: "hq",
            stream: "rate/forward",
            start: now(&active, false),
        };
        active.exec("CREATE TABLE test.n (n INT PRIMARY KEY)");
        active.exec("INSERT INTO test.n WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 999) SELECT n FROM s");
        active.exec("INSERT INTO hq.t SELECT a.n * 1000 + b.n, b.n, REPEAT('c', 110), REPEAT('p', 50) FROM test.n a, test.n b WHERE a.n < 100");
        let mut told_of = Vec::new();
        for _ in ["missing", "equal"] {
            let status: Arc<Status> = Arc::default();
            mirror.exec("DROP DATABASE IF EXISTS lockstep");
            let began = Instant::now();
            runtime()
                .block_on(pair.heal(true, status.clone()))
                .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
            let rate = ROWS as f64 / began.elapsed().as_secs_f64();
            told_of.push(format!("{rate:.0}/s ({})", told(&status)));
        }
        compare::assert_equal(&active, &mirror, &["hq.t"]);
        eprintln!("{from} → {to}: {}", told_of.join("; "));
    }
}
