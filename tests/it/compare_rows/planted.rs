//! Differences planted on the mirror while 16 clients write both sides as the
//! proxy does and a follower heals: all are found, nothing else is, and all are
//! repaired under that load.

use super::load::{BUSY, Load, numbers};
use super::{Rig, STREAM};
use crate::binlog::{leg, now, request};
use crate::follow::{PAIRS, account, catalog};
use crate::or_skip;
use crate::support::proc::runtime;
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server, compare};
use lockstep::Side;
use lockstep::binlog::Position;
use lockstep::binlog::stream::BinlogStream;
use lockstep::compare::{Barrier, Kind};
use lockstep::follow::beat::Beat;
use lockstep::follow::heal::Healer;
use lockstep::follow::tables::CatalogTables;
use lockstep::follow::writer::Worker;
use lockstep::follow::{Follower, Mode, Status};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const CREATE: &str = "
CREATE TABLE cp.orders (id BIGINT UNSIGNED PRIMARY KEY, c VARCHAR(60) NOT NULL, note VARCHAR(60), price DECIMAL(12,2) NOT NULL, d DOUBLE, f FLOAT, dt DATETIME(3) NOT NULL, j JSON, t TEXT, n BIGINT NOT NULL DEFAULT 0) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_general_ci;
CREATE TABLE cp.words (w VARCHAR(30) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT NOT NULL) DEFAULT CHARSET utf8mb4;
CREATE TABLE cp.pairs (a INT NOT NULL, b VARCHAR(10) NOT NULL, v BIGINT NOT NULL, PRIMARY KEY (a, b)) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_general_ci;
CREATE TABLE cp.wide (k DECIMAL(40,0) PRIMARY KEY, v INT NOT NULL);
CREATE TABLE cp.bytes (k VARBINARY(20) PRIMARY KEY, v INT NOT NULL);
CREATE TABLE cp.big (id INT PRIMARY KEY, v LONGBLOB NOT NULL);
CREATE TABLE cp.hot (id INT PRIMARY KEY, v BIGINT NOT NULL);
";

const TABLES: [&str; 7] = [
    "cp.orders",
    "cp.words",
    "cp.pairs",
    "cp.wide",
    "cp.bytes",
    "cp.big",
    "cp.hot",
];

/// A kind of difference: its name, what its rows of `orders` have before, and
/// what is done to the mirror's.
type Difference = (&'static str, &'static str, &'static str);

fn kinds(from: Family, to: Family) -> Vec<Difference> {
    let mut kinds = vec![
        ("changed", "n = n", "c = CONCAT(c, 'x')"),
        ("shifted", "n = n", "dt = dt + INTERVAL 10 MINUTE"),
        ("null", "note = NULL", "note = 'NULL'"),
        (
            "separator",
            "c = 'a#b', note = 'c'",
            "c = 'a', note = 'b#c'",
        ),
        ("digit", "d = 0.1e0 + 0.2e0", "d = 0.3"),
        ("case", "n = n", "c = UPPER(c)"),
        ("space", "n = n", "t = CONCAT(t, ' ')"),
        ("swapped", "c = 'v', note = 'n'", "note = c, c = 'n'"),
        ("cent", "n = n", "price = price + 0.01"),
    ];
    match (from, to) {
        // Text there: the order of keys shows.
        (Family::MariaDb, Family::MariaDb) => kinds.push((
            "json",
            "j = '{\"a\": 1, \"b\": 2}'",
            "j = '{\"b\": 2, \"a\": 1}'",
        )),
        // Keeps a zero's sign; MariaDB does not.
        (Family::MySql, Family::MySql) => kinds.push(("zero", "d = 0", "d = -0e0")),
        _ => {}
    }
    kinds
}

/// Makes the tables' rows on both sides, alike.
fn fill(active: &Server, mirror: &Server, each: u64) {
    let kinds = kinds(active.family(), mirror.family());
    let all = numbers(BUSY + each * (kinds.len() as u64 + 1));
    let few = numbers(BUSY + each);
    let mut script = vec![
        format!(
            "INSERT INTO cp.orders (id, c, note, price, d, f, dt, j, t) SELECT n * 3, CONCAT('text ', n), CONCAT('note ', n), n / 100, n / 7e0, n / 3e0, '2026-01-01 00:00:00' + INTERVAL n SECOND, CONCAT('{{\"n\": ', n, '}}'), REPEAT('t', n % 50) FROM {all}"
        ),
        format!("INSERT INTO cp.words SELECT CONCAT('w', n), n FROM {few}"),
        format!("INSERT INTO cp.pairs SELECT n % 700, CONCAT('k', n), n FROM {few}"),
        format!(
            "INSERT INTO cp.wide SELECT 100000000000000000000000000000000000000 + n * 7, n FROM {few}"
        ),
        format!("INSERT INTO cp.bytes SELECT CONCAT('key', LPAD(n, 8, '0')), n FROM {few}"),
        "INSERT INTO cp.hot VALUES (1, 0), (2, 0), (3, 0)".to_string(),
        format!(
            "INSERT INTO cp.big SELECT n, REPEAT(CHAR(64 + n), 1572864) FROM {}",
            numbers(10)
        ),
    ];
    let mut from = BUSY;
    for (_, before, _) in &kinds {
        script.push(format!(
            "UPDATE cp.orders SET {before} WHERE {}",
            ids(from, each)
        ));
        from += each;
    }
    for server in [active, mirror] {
        server.exec("CREATE DATABASE cp");
        server.exec(CREATE);
        script.iter().for_each(|sql| server.exec(sql));
    }
}

/// The `each` rows of `orders` behind the `from`th.
fn ids(from: u64, each: u64) -> String {
    format!("id > {} AND id <= {}", from * 3, (from + each) * 3)
}

/// What is done to the mirror, and what must be found: table, key, kind.
struct Planted {
    expected: BTreeSet<(String, String, String)>,
    statements: Vec<String>,
}

impl Planted {
    fn expect(&mut self, table: &str, key: String, kind: &str) {
        let entry = (format!("cp.{table}"), key, kind.to_string());
        assert!(self.expected.insert(entry));
    }

    fn orders(&mut self, kinds: &[Difference], each: u64) {
        let mut from = BUSY;
        for (_, _, change) in kinds {
            let rows = ids(from, each);
            self.statements
                .push(format!("UPDATE cp.orders SET {change} WHERE {rows}"));
            for n in from + 1..=from + each {
                self.expect("orders", (n * 3).to_string(), "Changed");
            }
            from += each;
        }
        self.statements
            .push(format!("DELETE FROM cp.orders WHERE {}", ids(from, each)));
        for n in from + 1..=from + each {
            self.expect("orders", (n * 3).to_string(), "Missing");
        }
        // Between the others, and behind the last.
        let columns = "cp.orders (id, c, price, dt)";
        self.statements.push(format!(
            "INSERT INTO {columns} SELECT n * 3 + 1, 'x', 1, '2026-01-01' FROM {}",
            numbers(each)
        ));
        for n in 1..=each {
            self.expect("orders", (n * 3 + 1).to_string(), "Extra");
        }
        self.statements.push(format!(
            "INSERT INTO {columns} VALUES (18446744073709551615, 'x', 1, '2026-01-01')"
        ));
        self.expect("orders", u64::MAX.to_string(), "Extra");
    }

    /// Composite, collated, binary keys and keys over 64 bits.
    fn keys(&mut self, each: u64) {
        let wide = 100_000_000_000_000_000_000_000_000_000_000_000_000_u128;
        let key = |table: &str, n: u64| match table {
            "words" => format!("'w{n}'"),
            "pairs" => format!("{},'k{n}'", n % 700),
            "wide" => (wide + u128::from(n) * 7).to_string(),
            _ => format!("'key{n:08}'"),
        };
        let (a, b, c) = (BUSY, BUSY + each / 3, BUSY + each / 3 * 2);
        for table in ["words", "pairs", "wide", "bytes"] {
            self.statements.push(format!(
                "UPDATE cp.{table} SET v = v + 1000000 WHERE v > {a} AND v <= {b}"
            ));
            self.statements
                .push(format!("DELETE FROM cp.{table} WHERE v > {b} AND v <= {c}"));
            (a + 1..=b).for_each(|n| self.expect(table, key(table, n), "Changed"));
            (b + 1..=c).for_each(|n| self.expect(table, key(table, n), "Missing"));
        }
        // The key itself in other bytes, which are one key to the server.
        let last = BUSY + each;
        self.statements.push(format!(
            "UPDATE cp.words SET w = UPPER(w) WHERE v > {} AND v <= {last}",
            last - 5
        ));
        for n in last - 4..=last {
            self.expect("words", key("words", n), "Changed");
        }
        let nines = "9".repeat(40);
        self.statements
            .push(format!("INSERT INTO cp.wide VALUES (-5, 1), ({nines}, 1)"));
        self.expect("wide", "-5".into(), "Extra");
        self.expect("wide", nines, "Extra");
    }
}

fn plant(from: Family, to: Family, each: u64) -> Planted {
    let mut planted = Planted {
        expected: BTreeSet::new(),
        statements: Vec::new(),
    };
    planted.orders(&kinds(from, to), each);
    planted.keys(each);
    planted
        .statements
        .push("UPDATE cp.big SET v = CONCAT(LEFT(v, 1572863), 'z')".into());
    (1..=10).for_each(|n: u32| planted.expect("big", n.to_string(), "Changed"));
    planted
}

/// A follower that heals until it is dropped.
async fn heal(active: &Server, mirror: &Server, start: Position, status: Arc<Status>) {
    let catalog = catalog(active, mirror, "cp").await;
    let covers = |db: &[u8], _: &[u8]| db == b"cp";
    let tables = Arc::new(CatalogTables::new(catalog, Side::Source, covers));
    let accounts = || (account(active, Side::Source), account(mirror, Side::Target));
    let worker = Worker::new(accounts().1, STREAM, 0);
    let healers = (0..4).map(|n| {
        let (active, mirror) = accounts();
        Healer::new(active, mirror, STREAM, n)
    });
    let mode = Mode::Heal(healers.collect());
    let follower = Follower::new(vec![worker], tables, start, status, mode).await;
    let mut follower = follower.expect("a follower");
    let mut wanted = request(follower.position().clone());
    wanted.until_end = false;
    let stream = BinlogStream::start(leg(active).await, &wanted).await;
    let (_, no_chunks) = mpsc::channel(1);
    let ended = follower.run(stream.expect("a stream"), no_chunks).await;
    panic!("the follower ended: {ended:?}");
}

fn barrier_of(beat: &Arc<Beat>) -> Barrier {
    let beat = beat.clone();
    Arc::new(move || {
        let beat = beat.clone();
        Box::pin(async move {
            let passed = beat.barrier(Duration::from_secs(30)).await;
            passed.map_err(|e| e.to_string())
        })
    })
}

/// A pair of families with `each` rows of each kind.
fn found(from: Family, to: Family, each: u64) {
    let active = or_skip!(Server::start(from, ServerOptions::default()));
    let mirror = or_skip!(Server::start(to, ServerOptions::default()));
    fill(&active, &mirror, each);
    let start = now(&active, false);
    let planted = plant(from, to, each);
    planted.statements.iter().for_each(|sql| mirror.exec(sql));
    let status: Arc<Status> = Arc::default();
    let beat = {
        let _inside = runtime().enter();
        let read = account(&active, Side::Source);
        Arc::new(Beat::start(read, STREAM, status.clone()))
    };
    let rig = Rig::new(&active, &mirror, "cp", Some(barrier_of(&beat)));
    let load = Load::default();
    std::thread::scope(|scope| {
        load.start(scope, &active, &mirror);
        let _stop = load.stop_on_drop();
        runtime().block_on(async {
            tokio::select! {
                () = heal(&active, &mirror, start, status) => {}
                () = async {
                    compared(&rig, &planted, &active, &mirror).await;
                    load.stopped().await;
                    let caught_up = beat.barrier(Duration::from_secs(60)).await;
                    caught_up.expect("a barrier");
                } => {}
            }
        });
    });
    let rows = compare::assert_equal(&active, &mirror, &TABLES);
    assert!(rig.run(Kind::Strong, false).is_clean());
    eprintln!(
        "{from} → {to}: {} planted, found and repaired while {} transactions were mirrored, {rows} rows equal",
        planted.expected.len(),
        load.done.load(Ordering::Relaxed)
    );
}

async fn compared(rig: &Rig, planted: &Planted, active: &Server, mirror: &Server) {
    let pair = format!("{} → {}", active.family(), mirror.family());
    let packets = |bytes: u64| {
        for server in [active, mirror] {
            server.exec(&format!("SET GLOBAL max_allowed_packet = {bytes}"));
        }
    };
    let status = rig.comparer.status();
    packets(1 << 20);
    for kind in [Kind::Full, Kind::Strong] {
        let began = Instant::now();
        let report = rig.comparer.run(&rig.tables, kind, false).await;
        let report = report.unwrap_or_else(|e| panic!("{pair}: {e}"));
        // A row is named as either side spells its key.
        let named = |(table, key, kind): (String, String, String)| match &table[..] {
            "cp.words" => (table, key.to_lowercase(), kind),
            _ => (table, key, kind),
        };
        let open: BTreeSet<_> = rig.open().into_iter().map(named).collect();
        let missed: Vec<_> = planted.expected.difference(&open).take(5).collect();
        let wrong: Vec<_> = open.difference(&planted.expected).take(5).collect();
        assert!(
            missed.is_empty() && wrong.is_empty(),
            "{pair} {kind:?}: missed {missed:?}, wrongly {wrong:?}, {report:?}"
        );
        eprintln!(
            "{pair} {kind:?}: {} rows, {} suspects, {} divergent, {} hot in {:?}",
            report.rows,
            status.suspects.load(Ordering::Relaxed),
            report.divergent,
            report.hot,
            began.elapsed()
        );
    }
    // A server does not take what is larger than its packets.
    packets(64 << 20);
    let report = rig.comparer.run(&rig.tables, Kind::Full, true).await;
    let report = report.unwrap_or_else(|e| panic!("{pair}: {e}"));
    let why = status.repair_error.lock().clone();
    assert_eq!(
        (rig.open(), why),
        (BTreeSet::new(), None),
        "{pair}: {report:?}"
    );
    // Where a healer's COMMIT is too slow to be told, nobody counts it.
    let planted = planted.expected.len() as u64;
    assert!(
        report.repaired <= planted && report.repaired * 10 > planted * 9,
        "{pair}: {planted} planted, {report:?}"
    );
}

#[test]
fn mariadb_to_mariadb_planted() {
    found(Family::MariaDb, Family::MariaDb, 100);
}

#[test]
fn mysql_to_mysql_planted() {
    found(Family::MySql, Family::MySql, 100);
}

#[test]
fn soak_planted() {
    if std::env::var("LOCKSTEP_SOAK").is_err() {
        return;
    }
    for (from, to) in PAIRS {
        found(from, to, 1000);
    }
}
