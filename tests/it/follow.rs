//! The follower on real servers: whatever happens on the source, its log
//! written to the target makes both equal.

use crate::binlog::{UTC, leg, legs, now, request, types};
use crate::or_skip;
use crate::support::proc::{block_on, runtime};
use crate::support::servers::{SERVICE, ServerOptions};
use crate::support::{Family, Server, compare};
use lockstep::Side;
use lockstep::binlog::Position;
use lockstep::binlog::stream::BinlogStream;
use lockstep::config::{Password, TlsMode};
use lockstep::copy::{self, Copier};
use lockstep::follow::batch::TableName;
use lockstep::follow::tables::CatalogTables;
use lockstep::follow::writer::Worker;
use lockstep::follow::{FollowError, Follower, Mode, Status};
use lockstep::rows::catalog::{CatalogLoader, Wanted};
use lockstep::rows::service::ServiceAccount;
use lockstep::rows::shape::Catalog;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub const PAIRS: [(Family, Family); 4] = [
    (Family::MariaDb, Family::MariaDb),
    (Family::MySql, Family::MySql),
    (Family::MariaDb, Family::MySql),
    (Family::MySql, Family::MariaDb),
];

pub struct Schema(&'static str);

impl Wanted for Schema {
    fn fold(&self) -> bool {
        false
    }
    fn schema(&self, database: &[u8]) -> bool {
        database == self.0.as_bytes()
    }
    fn table(&self, database: &[u8], _: &[u8]) -> bool {
        self.schema(database)
    }
}

pub fn account(server: &Server, side: Side) -> ServiceAccount {
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
}

pub async fn catalog(source: &Server, target: &Server, schema: &'static str) -> Arc<Catalog> {
    let published = Arc::new(arc_swap::ArcSwap::from_pointee(Catalog::empty()));
    let loader = CatalogLoader::new(
        published.clone(),
        Arc::new(Schema(schema)),
        Arc::default(),
        Duration::from_secs(60),
        [account(source, Side::Source), account(target, Side::Target)],
    );
    for result in loader.refresh().await {
        result.expect("the catalog");
    }
    published.load_full()
}

/// Follows `schema` from the checkpoint, or from `start`.
async fn follow(
    source: &Server,
    target: &Server,
    schema: &'static str,
    start: Position,
    until_end: bool,
    status: Arc<Status>,
) -> Result<(), FollowError> {
    let catalog = catalog(source, target, schema).await;
    let covers = move |db: &[u8], _: &[u8]| db == schema.as_bytes();
    let tables = CatalogTables::new(catalog, Side::Source, covers);
    let workers = (0..4)
        .map(|n| Worker::new(account(target, Side::Target), "s2t", n))
        .collect();
    let mut follower = Follower::new(
        workers,
        Arc::new(tables),
        start,
        status,
        Mode::Apply(Vec::new()),
    )
    .await?;
    let mut wanted = request(follower.position().clone());
    wanted.until_end = until_end;
    let stream = BinlogStream::start(leg(source).await, &wanted).await?;
    let (_, no_chunks) = mpsc::channel(1);
    follower.run(stream, no_chunks).await
}

/// Copies `tables` of a schema beside a follower, until all is copied.
pub async fn copy(
    source: &Server,
    target: &Server,
    schema: &'static str,
    tables: &[&str],
    start: Position,
    copied: Arc<copy::Status>,
) -> Result<(), String> {
    let catalog = catalog(source, target, schema).await;
    let known = Arc::new(CatalogTables::new(
        catalog,
        Side::Source,
        move |db: &[u8], _: &[u8]| db == schema.as_bytes(),
    ));
    let workers = (0..4)
        .map(|n| Worker::new(account(target, Side::Target), "s2t", n))
        .collect();
    let mut follower = Follower::new(
        workers,
        known.clone(),
        start,
        Arc::default(),
        Mode::Apply(Vec::new()),
    )
    .await
    .map_err(|e| e.to_string())?;
    let mut wanted = request(follower.position().clone());
    wanted.until_end = false;
    let stream = BinlogStream::start(leg(source).await, &wanted)
        .await
        .map_err(|e| e.to_string())?;
    let (chunks, received) = mpsc::channel(4);
    let accounts = [account(source, Side::Source), account(target, Side::Target)];
    let (legs, windows) = (legs(source), follower.windows());
    let copier = Copier::new(accounts, legs, "s2t", known, windows, chunks, copied);
    let names: Vec<TableName> = tables
        .iter()
        .map(|t| TableName {
            schema: schema.as_bytes().to_vec(),
            table: t.as_bytes().to_vec(),
        })
        .collect();
    tokio::select! {
        ended = follower.run(stream, received) => Err(format!("the follower ended: {ended:?}")),
        done = copier.run(&names, 4) => done.map_err(|e| e.to_string()),
    }
}

/// Tables that hold rows are copied while clients write to them; the copy is
/// cut off again and again and goes on.
fn copied_under_load(from: Family, to: Family) {
    let source = or_skip!(Server::start(from, ServerOptions::default()));
    let target = or_skip!(Server::start(to, ServerOptions::default()));
    for server in [&source, &target] {
        server.exec("CREATE DATABASE fl");
        for create in LOAD_TABLES.split(';').filter(|s| !s.trim().is_empty()) {
            server.exec(create);
        }
    }
    source.exec("INSERT INTO fl.counter VALUES (0,0),(1,0),(2,0),(3,0),(4,0)");
    let many = "INSERT INTO fl.big (n, t) WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT s.n, REPEAT('x', r.n) FROM s, s r WHERE r.n <= 60";
    for fill in [
        many,
        many,
        "INSERT INTO fl.swap WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT n, n, n FROM s",
        "INSERT INTO fl.pairs WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT s.n, r.n, 7 FROM s, s r WHERE r.n <= 20",
        "INSERT INTO fl.words WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT CONCAT('w', n), n FROM s",
        "ANALYZE TABLE fl.big",
    ] {
        source.exec(fill);
    }
    let start = now(&source, false);
    let stop = AtomicBool::new(false);
    let status: Arc<copy::Status> = Arc::default();
    let mut lives = 0;
    let began = Instant::now();
    let names = ["swap", "words", "pairs", "big", "counter"];
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let (source, stop) = (&source, &stop);
            scope.spawn(move || runtime().block_on(client(source, seed, stop)));
        }
        loop {
            lives += 1;
            let life = copy(
                &source,
                &target,
                "fl",
                &names,
                start.clone(),
                status.clone(),
            );
            // Each life is cut off somewhere inside, the later ones later.
            let cut = Duration::from_millis(300 + 170 * lives);
            match runtime().block_on(async { tokio::time::timeout(cut, life).await }) {
                Ok(Ok(())) => break,
                Ok(Err(e)) => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{from} → {to}: {e}");
                }
                Err(_) => assert!(lives < 100, "{from} → {to}: it does not get on"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let copied = began.elapsed();
    let caught_up = follow(&source, &target, "fl", start, true, Arc::default());
    block_on(caught_up).unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
    let tables = names.map(|t| format!("fl.{t}"));
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let rows = compare::assert_equal(&source, &target, &tables);
    eprintln!(
        "{from} → {to}: {} rows copied in {copied:?} and {lives} lives, {rows} rows equal",
        status.rows_done.load(Ordering::Relaxed),
    );
    assert!(rows > 100_000 && lives > 1);
}

#[test]
fn mariadb_to_mariadb_copied() {
    copied_under_load(Family::MariaDb, Family::MariaDb);
}

#[test]
fn mysql_to_mysql_copied() {
    copied_under_load(Family::MySql, Family::MySql);
}

#[test]
fn mariadb_to_mysql_copied() {
    copied_under_load(Family::MariaDb, Family::MySql);
}

#[test]
fn mysql_to_mariadb_copied() {
    copied_under_load(Family::MySql, Family::MariaDb);
}

/// Every type, every operation, on every pair of families.
#[test]
fn every_type_reaches_the_target() {
    for (from, to) in PAIRS {
        let source = or_skip!(Server::start(from, ServerOptions::args([UTC])));
        let target = or_skip!(Server::start(to, ServerOptions::args([UTC])));
        let only_one = ["INET6", "UUID", "VECTOR", "JSON", "GEOMETRY"];
        let tables: Vec<_> = types::tables(from)
            .into_iter()
            .filter(|t| from == to || !only_one.iter().any(|d| t.definition.starts_with(d)))
            .collect();
        let mut create = types::SESSION.to_string();
        create.extend(tables.iter().map(|t| t.create.as_str()));
        for server in [&source, &target] {
            server.exec("CREATE DATABASE bt");
            server.exec(&create);
        }
        let start = now(&source, false);
        let mut rows = types::SESSION.to_string();
        rows.extend(tables.iter().map(|t| t.rows.as_str()));
        source.exec(&rows);
        let followed = follow(&source, &target, "bt", start, true, Arc::default());
        block_on(followed).unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let names: Vec<String> = tables.iter().map(|t| format!("bt.{}", t.name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let compared = compare::assert_equal(&source, &target, &names);
        assert!(compared > 500, "{from} → {to}: {compared} rows");
    }
}

/// Every type on every pair of families, copied instead of followed.
#[test]
fn every_type_is_copied() {
    for (from, to) in PAIRS {
        let source = or_skip!(Server::start(from, ServerOptions::args([UTC])));
        let target = or_skip!(Server::start(to, ServerOptions::args([UTC])));
        let only_one = ["INET6", "UUID", "VECTOR", "JSON", "GEOMETRY"];
        let tables: Vec<_> = types::tables(from)
            .into_iter()
            .filter(|t| from == to || !only_one.iter().any(|d| t.definition.starts_with(d)))
            .collect();
        for server in [&source, &target] {
            server.exec("CREATE DATABASE bt");
            let mut script = types::SESSION.to_string();
            script.extend(tables.iter().map(|t| t.create.as_str()));
            server.exec(&script);
        }
        let mut script = types::SESSION.to_string();
        script.extend(tables.iter().map(|t| t.rows.as_str()));
        source.exec(&script);
        let start = now(&source, false);
        let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
        let copied = copy(&source, &target, "bt", &names, start, Arc::default());
        block_on(copied).unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let names: Vec<String> = names.iter().map(|n| format!("bt.{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let compared = compare::assert_equal(&source, &target, &names);
        assert!(compared > 500, "{from} → {to}: {compared} rows");
    }
}

const LOAD_TABLES: &str = "
CREATE TABLE fl.swap (id INT PRIMARY KEY, u INT NOT NULL UNIQUE, v INT NOT NULL, INDEX (v));
CREATE TABLE fl.words (w VARCHAR(30) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT NOT NULL) DEFAULT CHARSET utf8mb4;
CREATE TABLE fl.pairs (a INT NOT NULL, b VARCHAR(10) NOT NULL, v BIGINT NOT NULL, PRIMARY KEY (a, b)) DEFAULT CHARSET utf8mb4;
CREATE TABLE fl.big (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, n INT NOT NULL, t TEXT);
CREATE TABLE fl.counter (id INT PRIMARY KEY, v INT NOT NULL);
";

/// One client's statements, chosen by a small generator.
async fn client(server: &Server, seed: u64, stop: &AtomicBool) -> u64 {
    let mut conn = server.conn().await;
    let mut state = seed;
    let mut next = move |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let letters = ["a", "A", "ä", "b", "B", "c", "é", "e", "E "];
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let (x, y) = (next(60), next(60));
        let word = format!("{}{}", letters[next(9) as usize], next(12));
        let other = format!("{}{}", letters[next(9) as usize], next(12));
        let sql = match next(12) {
            0 => format!("INSERT INTO fl.swap VALUES ({x}, {y}, 1)"),
            // Two rows exchange their unique values.
            1 => format!(
                "BEGIN; UPDATE fl.swap SET u = -1 - {seed} WHERE id = {x}; UPDATE fl.swap SET u = {x} WHERE id = {y}; UPDATE fl.swap SET u = {y} WHERE id = {x}; COMMIT"
            ),
            2 => format!("UPDATE fl.swap SET id = {y}, v = v + 1 WHERE id = {x}"),
            3 => format!("DELETE FROM fl.swap WHERE id = {x}"),
            4 => format!("INSERT INTO fl.words VALUES ('{word}', {x})"),
            5 => format!("UPDATE fl.words SET w = '{other}' WHERE w = '{word}'"),
            6 => format!("DELETE FROM fl.words WHERE w = '{word}'"),
            7 => format!("REPLACE INTO fl.pairs VALUES ({x}, '{word}', {y})"),
            8 => format!("UPDATE fl.pairs SET a = {y} WHERE a = {x} AND v > {y}"),
            9 => format!(
                "INSERT INTO fl.big (n, t) VALUES ({x}, REPEAT('{word}', {y})), ({y}, NULL)"
            ),
            10 => format!("DELETE FROM fl.big WHERE n = {x} LIMIT 2"),
            _ => format!("UPDATE fl.counter SET v = v + 1 WHERE id = {}", x % 5),
        };
        // Refused ones (duplicates, deadlocks) are part of the load.
        if conn.query_drop(sql).await.is_ok() {
            done += 1;
        } else {
            let _ = conn.query_drop("ROLLBACK").await;
        }
    }
    done
}

/// Writers on the source while the follower runs, dies and goes on.
fn under_load(from: Family, to: Family) {
    let source = or_skip!(Server::start(from, ServerOptions::default()));
    let target = or_skip!(Server::start(to, ServerOptions::default()));
    for server in [&source, &target] {
        server.exec("CREATE DATABASE fl");
        for create in LOAD_TABLES.split(';').filter(|s| !s.trim().is_empty()) {
            server.exec(create);
        }
    }
    let start = now(&source, false);
    source.exec("INSERT INTO fl.counter VALUES (0,0),(1,0),(2,0),(3,0),(4,0)");
    let seconds = 6;
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let status: Arc<Status> = Arc::default();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let (source, stop, done) = (&source, &stop, &done);
            scope.spawn(move || {
                let n = runtime().block_on(client(source, seed, stop));
                done.fetch_add(n, Ordering::Relaxed);
            });
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut lives = 0;
        while Instant::now() < until {
            // Each life is cut off somewhere inside a batch.
            let life = follow(&source, &target, "fl", start.clone(), false, status.clone());
            let cut = Duration::from_millis(400 + 137 * lives);
            let ended = runtime().block_on(async { tokio::time::timeout(cut, life).await });
            assert!(ended.is_err(), "{from} → {to}: {ended:?}");
            lives += 1;
            if lives == 3 {
                // A transaction larger than a batch.
                source.exec(
                    "INSERT INTO fl.big (n, t) WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT s.n, r.n FROM s, s r WHERE r.n <= 20",
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let caught_up = follow(&source, &target, "fl", start, true, status.clone());
    let began = Instant::now();
    block_on(caught_up).unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
    let tables = ["swap", "words", "pairs", "big", "counter"].map(|t| format!("fl.{t}"));
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let rows = compare::assert_equal(&source, &target, &tables);
    eprintln!(
        "{from} → {to}: {} statements, {} row events, caught up in {:?}, {rows} rows equal",
        done.load(Ordering::Relaxed),
        status.events.load(Ordering::Relaxed),
        began.elapsed()
    );
    assert!(rows > 1000);
}

#[test]
fn mariadb_to_mariadb_under_load() {
    under_load(Family::MariaDb, Family::MariaDb);
}

#[test]
fn mysql_to_mysql_under_load() {
    under_load(Family::MySql, Family::MySql);
}

#[test]
fn mariadb_to_mysql_under_load() {
    under_load(Family::MariaDb, Family::MySql);
}

#[test]
fn mysql_to_mariadb_under_load() {
    under_load(Family::MySql, Family::MariaDb);
}

/// What the follower must not go past.
#[test]
fn it_stops_and_says_why() {
    for family in Family::BOTH {
        let source = or_skip!(Server::start(family, ServerOptions::default()));
        let target = or_skip!(Server::start(family, ServerOptions::default()));
        for server in [&source, &target] {
            server.exec("CREATE DATABASE st; CREATE TABLE st.a (id INT PRIMARY KEY, v INT)");
            server.exec("CREATE TABLE st.nokey (id INT)");
        }
        let cases = [
            ("ALTER TABLE st.a ADD COLUMN x INT", "definition"),
            (
                "SET binlog_format=STATEMENT; UPDATE st.a SET v = v + 1",
                "binlog_format",
            ),
            (
                "SET binlog_row_image=MINIMAL; UPDATE st.a SET v = 9",
                "FULL",
            ),
            ("DROP TABLE st.nokey", "definition"),
            ("DROP DATABASE st", "schema st"),
        ];
        for (sql, why) in cases {
            source.exec("REPLACE INTO st.a (id, v) VALUES (1, 1)");
            let start = now(&source, false);
            source.exec(sql);
            target.exec("DROP DATABASE IF EXISTS lockstep");
            let known = Arc::default();
            let ended = block_on(follow(&source, &target, "st", start, true, known));
            let error = ended.expect_err(sql).to_string();
            assert!(error.contains(why), "{family}: {sql}: {error}");
        }
    }
}
