//! The binlog reader on real servers: every type's values, every operation,
//! plain and compressed, by GTID and by file, with and without row metadata.
//!
//! The rows that the events' images add up to must be the rows that the
//! server's own SELECT shows.

pub mod types;

use crate::or_skip;
use crate::support::proc::{block_on, wait_for};
use crate::support::servers::{SERVICE, ServerOptions};
use crate::support::{Family, Server};
use lockstep::Side;
use lockstep::auth::{Account, Secret};
use lockstep::binlog::event::TransactionId;
use lockstep::binlog::progress::{Place, Progress};
use lockstep::binlog::stream::{BinlogStream, Request, StreamError};
use lockstep::binlog::{Body, Event, Position, Value};
use lockstep::leg::Leg;
use lockstep::leg::connect::{BackendConfig, TlsMode};
use lockstep::leg::service::ServiceLegs;
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of the service account, to a server that is the source.
pub fn legs(server: &Server) -> ServiceLegs {
    let backend = BackendConfig {
        announce: Default::default(),
        side: Side::Source,
        address: server.address(),
        tls: TlsMode::Off,
        tls_config: None,
    };
    let (user, password) = SERVICE;
    let account = Account::new(user.into(), Secret::new(password.into()));
    ServiceLegs::new(backend, account)
}

pub async fn leg(server: &Server) -> Leg {
    legs(server).open().await.expect("a connection")
}

pub fn now(server: &Server, by_file: bool) -> Position {
    let text = match (server.family(), by_file) {
        (Family::MariaDb, false) => format!("mariadb:{}", server.one("SELECT @@gtid_binlog_pos")),
        (Family::MySql, false) => {
            let set = server
                .one("SELECT @@global.gtid_executed")
                .replace('\n', "");
            format!("mysql:{set}")
        }
        (family, true) => {
            let status = match family {
                Family::MariaDb => server.query("SHOW MASTER STATUS"),
                Family::MySql => server.query("SHOW BINARY LOG STATUS"),
            };
            let field = |i: usize| status[0][i].clone().expect("a value");
            format!("file:{}:{}", field(0), field(1))
        }
    };
    text.parse().expect("a position")
}

pub fn request(from: Position) -> Request {
    Request {
        from,
        server_id: 4_000_000_001,
        uuid: "5f0c1d7a-0000-4000-8000-000000000001".to_string(),
        until_end: true,
        texts: true,
        pause: std::time::Duration::ZERO,
    }
}

/// Everything from a position to the end of the log.
async fn read(server: &Server, from: &Position) -> Result<(Vec<Event>, Progress), StreamError> {
    let mut stream = BinlogStream::start(leg(server).await, &request(from.clone())).await?;
    let mut progress = Progress::new(from.clone());
    let mut events = Vec::new();
    while let Some(event) = stream.next().await? {
        progress.take(&event);
        events.push(event);
    }
    Ok((events, progress))
}

type Rows = BTreeMap<String, Vec<Value>>;

/// Applies the images of one table's events; rows are known by column 0.
fn apply(events: &[Event], table: &str, unsigned: &[bool]) -> (Rows, usize) {
    let mut rows = Rows::new();
    let mut images = 0;
    let key = |row: &[Value]| format!("{:?}", row[0]);
    for event in events {
        let Body::Rows(change) = &event.body else {
            continue;
        };
        if change.table.table != table.as_bytes() {
            continue;
        }
        assert!(change.is_full());
        for row in change.images(Some(unsigned)) {
            let row = row.expect("an image");
            images += 1;
            if let Some(before) = &row.before {
                let old = rows.remove(&key(before)).expect("a row that was there");
                for (i, (was, is)) in old.iter().zip(before).enumerate() {
                    assert_eq!(was, is, "column {i} of {table} before");
                }
            }
            if let Some(after) = row.after {
                rows.insert(key(&after), after);
            }
        }
    }
    (rows, images)
}

/// TIMESTAMP values are in UTC in the log.
pub const UTC: &str = "--default-time-zone=+00:00";

fn options(family: Family) -> [(&'static str, ServerOptions); 2] {
    match family {
        Family::MariaDb => [
            ("plain", ServerOptions::args([UTC])),
            (
                "compressed, with row metadata, no checksums",
                ServerOptions::args([
                    UTC,
                    "--log-bin-compress=ON",
                    "--log-bin-compress-min-len=10",
                    "--binlog-row-metadata=FULL",
                    "--binlog-checksum=NONE",
                ]),
            ),
        ],
        Family::MySql => [
            ("plain", ServerOptions::args([UTC])),
            (
                "compressed, with row metadata, no checksums, rows query events",
                ServerOptions::args([
                    UTC,
                    "--binlog-transaction-compression=ON",
                    "--binlog-row-metadata=FULL",
                    "--binlog-checksum=NONE",
                    "--binlog-rows-query-log-events=ON",
                ]),
            ),
        ],
    }
}

fn every_type(family: Family) {
    for (name, options) in options(family) {
        let server = or_skip!(Server::start(family, options));
        let by_gtid = now(&server, false);
        let by_file = now(&server, true);
        let tables = types::fill(&server);
        for from in [by_gtid, by_file] {
            let (events, progress) = block_on(read(&server, &from)).expect("the log");
            let by_file = matches!(from, Position::File { .. });
            let end = now(&server, by_file);
            assert_eq!(progress.position(), &end, "{family} {name}: the end");
            for table in &tables {
                let (rows, images) = apply(&events, &table.name, &table.unsigned);
                assert!(images > 0, "{family} {name}: no images of {}", table.name);
                types::assert_equal(&server, table, &rows, name);
            }
        }
    }
}

#[test]
fn mariadb_every_type() {
    every_type(Family::MariaDb);
}

#[test]
fn mysql_every_type() {
    every_type(Family::MySql);
}

/// What each kind of transaction looks like, and where it ends.
fn transactions(family: Family) {
    // Nobody else's are in its log.
    let own = or_skip!(Server::start(family, ServerOptions::default()));
    let server = &own;
    let from = now(server, false);
    server.exec("CREATE TABLE t.bt (id INT PRIMARY KEY, v INT)");
    server.exec("CREATE TABLE t.btm (id INT PRIMARY KEY) ENGINE=MyISAM");
    server.exec("INSERT INTO t.bt VALUES (1, 1)");
    server.exec("BEGIN; INSERT INTO t.bt VALUES (2, 2); SAVEPOINT a; UPDATE t.bt SET v = 9; ROLLBACK TO a; UPDATE t.bt SET v = 3 WHERE id = 2; COMMIT");
    server.exec("BEGIN; INSERT INTO t.bt VALUES (3, 3); ROLLBACK");
    server.exec("INSERT INTO t.btm VALUES (1)");
    server.exec("XA START 'bx'; INSERT INTO t.bt VALUES (4, 4); XA END 'bx'; XA PREPARE 'bx'; XA COMMIT 'bx'");
    server.exec(
        "XA START 'b1'; INSERT INTO t.bt VALUES (5, 5); XA END 'b1'; XA COMMIT 'b1' ONE PHASE",
    );
    server.exec("CREATE TABLE t.bt2 SELECT id FROM t.bt");
    let (events, progress) = block_on(read(server, &from)).expect("the log");
    let mut again = Progress::new(from);
    let mut ends = Vec::new();
    let (mut running, mut rows) = (false, 0);
    for event in &events {
        let place = again.take(event);
        if let Body::Rows(change) = &event.body
            && (change.table.table == b"bt" || change.table.table == b"btm")
        {
            rows += change
                .images(Some(&[false, false][..change.table.columns.len()]))
                .count();
            assert_eq!(place, Place::Inside, "rows stand in a transaction");
        }
        match place {
            Place::Begins => {
                assert!(!running, "{family}: a transaction in a transaction");
                running = true;
            }
            Place::Commits | Place::RollsBack | Place::Prepares | Place::Alone => {
                running = false;
                ends.push(place);
            }
            Place::Inside => assert!(running),
            Place::Outside => {}
        }
    }
    // Rows rolled back to the savepoint are not in the log.
    assert_eq!(rows, 6, "{family}: {ends:?}");
    assert_eq!(progress.position(), &now(server, false));
    assert_eq!(
        ends.iter().filter(|p| **p == Place::Prepares).count(),
        1,
        "{ends:?}"
    );
    assert!(
        ends.iter().filter(|p| **p == Place::Alone).count() >= 3,
        "{ends:?}"
    );
}

#[test]
fn mariadb_transactions() {
    transactions(Family::MariaDb);
}

#[test]
fn mysql_transactions() {
    transactions(Family::MySql);
}

/// A position that the server does not have is history lost, not an empty log.
#[test]
fn history_lost_is_said() {
    for family in Family::BOTH {
        let server = or_skip!(Server::start(family, ServerOptions::default()));
        server.exec("CREATE TABLE t.h (id INT PRIMARY KEY)");
        let early = now(&server, false);
        let early_file = now(&server, true);
        server.exec("INSERT INTO t.h VALUES (1)");
        server.exec("FLUSH BINARY LOGS");
        server.exec("INSERT INTO t.h VALUES (2)");
        let last = match now(&server, true) {
            Position::File { file, .. } => file,
            other => panic!("{other}"),
        };
        // MariaDB keeps a log until InnoDB has made its transactions durable.
        wait_for("the log is purged", Duration::from_secs(30), || {
            server.exec(&format!("PURGE BINARY LOGS TO '{last}'"));
            server.query("SHOW BINARY LOGS").len() == 1
        });
        for from in [early, early_file] {
            let error = block_on(read(&server, &from)).err();
            assert!(
                matches!(error, Some(StreamError::HistoryLost { .. })),
                "{family} {from}: {error:?}"
            );
        }
    }
}

/// MySQL's tagged GTIDs: read, and asked for.
#[test]
fn tagged_gtids() {
    // Nobody else's are in its log.
    let own = or_skip!(Server::start(Family::MySql, ServerOptions::default()));
    let server = &own;
    let from = now(server, false);
    server.exec("CREATE TABLE t.tagged (id INT PRIMARY KEY)");
    server.exec("SET gtid_next='AUTOMATIC:moving'; INSERT INTO t.tagged VALUES (1); SET gtid_next=AUTOMATIC");
    let (events, progress) = block_on(read(server, &from)).expect("the log");
    let tags = events.iter().filter_map(|e| match &e.body {
        Body::Transaction(t) => match &t.id {
            TransactionId::Mysql(gtid) => Some(gtid.origin.tag.clone()),
            _ => None,
        },
        _ => None,
    });
    assert!(tags.collect::<Vec<_>>().contains(&"moving".to_string()));
    assert_eq!(progress.position(), &now(server, false));
    let (rest, _) = block_on(read(server, progress.position())).expect("the log");
    assert!(
        !rest.iter().any(|e| matches!(e.body, Body::Rows(_))),
        "the tagged transaction was read already"
    );
}

/// An event of many packets, and a stream that waits for what comes.
#[test]
fn large_events_and_waiting() {
    for family in Family::BOTH {
        let server = or_skip!(Server::start(
            family,
            ServerOptions::args(["--max-allowed-packet=256M"])
        ));
        server.exec("CREATE TABLE t.big (id INT PRIMARY KEY, b LONGBLOB)");
        let from = now(&server, false);
        block_on(async {
            let mut waits = request(from);
            waits.until_end = false;
            let mut stream = BinlogStream::start(leg(&server).await, &waits)
                .await
                .expect("a stream");
            for megabytes in [40, 1] {
                let mut conn = server.conn().await;
                let insert = format!(
                    "INSERT INTO t.big VALUES ({megabytes}, REPEAT('x', {megabytes} << 20))"
                );
                conn.query_drop(insert).await.expect("insert");
                loop {
                    let event = stream.next().await.expect("an event").expect("no end");
                    if let Body::Rows(rows) = &event.body {
                        let row = rows.images(Some(&[false, false])).next().unwrap().unwrap();
                        match &row.after.unwrap()[1] {
                            Value::Bytes(b) => assert_eq!(b.len(), megabytes << 20),
                            other => panic!("{other:?}"),
                        }
                        break;
                    }
                }
            }
            // Longer than a heartbeat: the stream stays.
            let waiting = tokio::time::timeout(Duration::from_millis(2500), async {
                loop {
                    let event = stream.next().await.expect("an event").expect("no end");
                    assert!(!matches!(event.body, Body::Rows(_)));
                }
            });
            assert!(waiting.await.is_err());
        });
    }
}
