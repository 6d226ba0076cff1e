//! Writes on the mirror that are not the proxy's are named and repaired within
//! seconds; mirrored writes and the row plane's own are not.

use super::{Rig, STREAM, pairs, quiet, servers};
use crate::binlog::{leg, now, request};
use crate::follow::{account, catalog};
use crate::support::proc::runtime;
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server, compare};
use lockstep::Side;
use lockstep::binlog::stream::BinlogStream;
use lockstep::compare::divergences::State;
use lockstep::compare::watcher::{Ours, WatchStatus, Watcher};
use lockstep::copy::select::Bound;
use lockstep::follow::batch::TableName;
use lockstep::follow::heal::Healer;
use lockstep::follow::tables::{CatalogTables, Meaning, Tables};
use lockstep::leg::ours::Threads;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const CREATE: &str = "DROP DATABASE IF EXISTS wa;\nDROP DATABASE IF EXISTS lockstep;\nCREATE DATABASE wa;\nCREATE TABLE wa.t (id INT PRIMARY KEY, v INT NOT NULL);\nCREATE TABLE wa.w (w VARCHAR(20) PRIMARY KEY) DEFAULT CHARSET utf8mb4;\nINSERT INTO wa.t VALUES (1, 1), (2, 2), (3, 3), (4, 4);\nINSERT INTO wa.w VALUES ('a'), ('b')";

/// Knows threads, and MariaDB's annotated texts by a comment.
struct Proxy(Threads);

impl Ours for Proxy {
    fn thread(&self, id: u32) -> bool {
        self.0.knows(id)
    }
    fn text(&self, sql: &[u8]) -> bool {
        sql.starts_with(b"/* mirrored */")
    }
}

#[test]
fn foreign_writes_are_named_and_repaired() {
    let Some(servers) = servers(&ServerOptions::default()) else {
        return;
    };
    for (active, mirror) in pairs(&servers) {
        active.exec(CREATE);
        mirror.exec(CREATE);
        runtime().block_on(watched(active, mirror));
        compare::assert_equal(active, mirror, &["wa.t", "wa.w"]);
    }
}

async fn watched(active: &Server, mirror: &Server) {
    let pair = format!("{} → {}", active.family(), mirror.family());
    let rig = Rig::new(active, mirror, "wa", quiet());
    let status: Arc<WatchStatus> = Arc::default();
    let proxy = Arc::new(Proxy(Threads::default()));
    let known = catalog(active, mirror, "wa").await;
    let covers = |db: &[u8], _: &[u8]| db == b"wa";
    let tables = Arc::new(CatalogTables::new(known, Side::Target, covers));
    let start = now(mirror, false);
    let (keys, received) = mpsc::channel(1000);
    let mut watcher = Watcher::new(
        tables.clone(),
        proxy.clone(),
        keys,
        start.clone(),
        status.clone(),
    );
    let mut wanted = request(start);
    wanted.until_end = false;
    let stream = BinlogStream::start(leg(mirror).await, &wanted).await;
    let stream = stream.expect("a stream");
    tokio::select! {
        ended = watcher.run(stream) => panic!("{pair}: the watcher ended: {ended:?}"),
        ended = rig.comparer.verify(received, true) => panic!("{pair}: verifying ended: {ended:?}"),
        () = writes(active, mirror, &rig, &status, &proxy.0, tables.as_ref()) => {}
    }
}

async fn writes(
    active: &Server,
    mirror: &Server,
    rig: &Rig,
    status: &WatchStatus,
    threads: &Threads,
    tables: &dyn Tables,
) {
    let pair = format!("{} → {}", active.family(), mirror.family());
    let mysql = mirror.family() == Family::MySql;
    // Ours: a mirrored write, and a healer's.
    let (mut a, mut m) = (active.conn().await, mirror.conn().await);
    threads.opened(m.id());
    for conn in [&mut a, &mut m] {
        let sql = "/* mirrored */ UPDATE wa.t SET v = 10 WHERE id = 1";
        conn.query_drop(sql).await.expect("a mirrored write");
    }
    a.query_drop("UPDATE wa.t SET v = 20 WHERE id = 2")
        .await
        .expect("a write");
    let name = TableName {
        schema: b"wa".to_vec(),
        table: b"t".to_vec(),
    };
    let Meaning::Follow(followed) = tables.meaning(&name) else {
        panic!("{pair}: wa.t");
    };
    let accounts = (account(active, Side::Source), account(mirror, Side::Target));
    let mut healer = Healer::new(accounts.0, accounts.1, STREAM, 9);
    let healed = healer
        .heal(&name, &followed, &[Bound(vec![b"2".to_vec()])])
        .await;
    healed.expect("healed");
    threads.closed(m.id());
    // Foreign: changed, deleted, new, a key that moves.
    let mut other = mirror.conn().await;
    for sql in [
        "UPDATE wa.t SET v = -3 WHERE id = 3",
        "DELETE FROM wa.t WHERE id = 4",
        "INSERT INTO wa.t VALUES (9, 9)",
        "UPDATE wa.w SET w = 'c' WHERE w = 'b'",
    ] {
        other.query_drop(sql).await.expect("a foreign write");
    }
    let began = Instant::now();
    let repaired = || {
        let all = rig.list.list();
        let repaired = all.iter().filter(|d| d.state == State::Repaired);
        repaired.count()
    };
    while repaired() < 5 {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{pair}: {:?}",
            rig.list.list()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let keys: Vec<String> = rig.list.list().into_iter().map(|d| d.key).collect();
    assert_eq!(keys.len(), 5, "{pair}: {keys:?}");
    for key in ["3", "4", "9", "'b'", "'c'"] {
        assert!(keys.iter().any(|k| k == key), "{pair}: {keys:?}");
    }
    let foreign = status.foreign();
    if mysql {
        let named: Vec<_> = foreign
            .iter()
            .map(|f| (&f.table[..], f.thread_id, f.rows))
            .collect();
        let id = Some(other.id());
        assert_eq!(named, [("wa.t", id, 3), ("wa.w", id, 1)], "{pair}");
        assert_eq!(status.unknown_rows.load(Ordering::Relaxed), 0);
    } else {
        assert_eq!(status.unknown_rows.load(Ordering::Relaxed), 4, "{pair}");
    }
    assert_eq!(status.dropped_rows.load(Ordering::Relaxed), 0);
    eprintln!(
        "{pair}: foreign writes named and repaired in {:?}",
        began.elapsed()
    );
}
