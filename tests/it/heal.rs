//! The follower in heal mode on real servers: whatever the mirror did not get,
//! got wrong, or has too much, is healed from the active side's log, while both
//! sides are written.

use crate::binlog::{UTC, leg, now, request, types};
use crate::follow::{PAIRS, account, catalog};
use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::servers::ServerOptions;
use crate::support::{Server, compare};
use lockstep::Side;
use lockstep::binlog::Position;
use lockstep::binlog::stream::BinlogStream;
use lockstep::follow::beat::Beat;
use lockstep::follow::heal::Healer;
use lockstep::follow::tables::CatalogTables;
use lockstep::follow::writer::Worker;
use lockstep::follow::{FollowError, Follower, Mode, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

mod kept;
mod load;
mod steps;

/// A pair of servers, the schema that is healed, and where it begins.
pub struct Pair<'a> {
    pub active: &'a Server,
    pub mirror: &'a Server,
    pub schema: &'static str,
    /// One a test: tests share servers.
    pub stream: &'static str,
    pub start: Position,
}

impl Pair<'_> {
    pub fn healer(&self, number: usize) -> Healer {
        let (active, mirror) = (
            account(self.active, Side::Source),
            account(self.mirror, Side::Target),
        );
        Healer::new(active, mirror, self.stream, number)
    }

    pub fn beat(&self, status: &Arc<Status>) -> Beat {
        let read = account(self.active, Side::Source);
        Beat::start(read, self.stream, status.clone())
    }

    /// One life of a follower in heal mode.
    pub async fn heal(&self, until_end: bool, status: Arc<Status>) -> Result<(), FollowError> {
        let catalog = catalog(self.active, self.mirror, self.schema).await;
        let schema = self.schema;
        let covers = move |db: &[u8], _: &[u8]| db == schema.as_bytes();
        let tables = Arc::new(CatalogTables::new(catalog, Side::Source, covers));
        let worker = Worker::new(account(self.mirror, Side::Target), self.stream, 0);
        let healers = (0..4).map(|n| self.healer(n)).collect();
        let mode = Mode::Heal(healers);
        let start = self.start.clone();
        let mut follower = Follower::new(vec![worker], tables, start, status, mode).await?;
        let mut wanted = request(follower.position().clone());
        wanted.until_end = until_end;
        // Streams of one server need ids of their own.
        let hash = self
            .stream
            .bytes()
            .fold(7_u32, |h, b| h.wrapping_mul(31) ^ u32::from(b));
        wanted.server_id = 4_000_000_100 + hash % 10_000_000;
        wanted.uuid = format!("5f0c1d7a-0000-4000-8000-{:012}", wanted.server_id);
        let stream = BinlogStream::start(leg(self.active).await, &wanted).await?;
        let (_, no_chunks) = mpsc::channel(1);
        follower.run(stream, no_chunks).await
    }
}

/// What healing did, for the test's output.
pub fn told(status: &Status) -> String {
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let h = &status.heal;
    format!(
        "{} events: {} equal, {} changed, {} missing, {} extra; {} busy, {} refused, {} pending, {} watermarks",
        n(&status.events),
        n(&h.equal),
        n(&h.changed),
        n(&h.missing),
        n(&h.extra),
        n(&h.busy),
        n(&h.refused),
        n(&h.pending),
        n(&h.watermarks),
    )
}

/// Every type: rows that the mirror lacks, has wrong, and has too many of.
#[test]
fn every_type_is_healed() {
    for (from, to) in PAIRS {
        let active = or_skip!(Server::start(from, ServerOptions::args([UTC])));
        let mirror = or_skip!(Server::start(to, ServerOptions::args([UTC])));
        types_healed(&active, &mirror);
    }
}

fn types_healed(active: &Server, mirror: &Server) {
    let (from, to) = (active.family(), mirror.family());
    let only_one = ["INET6", "UUID", "VECTOR", "GEOMETRY"];
    let tables: Vec<_> = types::tables(from)
        .into_iter()
        .filter(|t| from == to || !only_one.iter().any(|d| t.definition.starts_with(d)))
        // The binlog's JSON in MariaDB is text, which MySQL prints anew.
        .filter(|t| from == to || t.definition != "JSON")
        .collect();
    let mut create = types::SESSION.to_string();
    create.extend(tables.iter().map(|t| t.create.as_str()));
    for server in [active, mirror] {
        server.exec("CREATE DATABASE bt");
        server.exec(&create);
    }
    let names: Vec<String> = tables.iter().map(|t| format!("bt.{}", t.name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pair = |start| Pair {
        active,
        mirror,
        schema: "bt",
        stream: "types/forward",
        start,
    };
    let heal = |start: Position| {
        let status: Arc<Status> = Arc::default();
        mirror.exec("DROP DATABASE IF EXISTS lockstep");
        block_on(pair(start).heal(true, status.clone()))
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let refused = status.heal.refusal.lock().clone();
        assert!(refused.is_none(), "{from} → {to}: {refused:?}");
        status
    };
    let start = now(active, false);
    let mut rows = types::SESSION.to_string();
    rows.extend(tables.iter().map(|t| t.rows.as_str()));
    active.exec(&rows);
    let status = heal(start.clone());
    let compared = compare::assert_equal(active, mirror, &names);
    eprintln!("{from} → {to}: {}", told(&status));
    assert!(compared > 500, "{from} → {to}: {compared} rows");
    // A repair whose COMMIT was too slow to be told counts as equal later.
    let most = |counter: &AtomicU64, all: usize| {
        let counted = counter.load(Ordering::Relaxed);
        assert!(
            counted <= all as u64 && counted * 10 > all as u64 * 8,
            "{counted} of {all}"
        );
    };
    most(&status.heal.missing, compared);

    // Once more: all is equal, and seen to be without a lock or a watermark.
    let status = heal(start.clone());
    eprintln!("{from} → {to}: {}", told(&status));
    assert_eq!(status.heal.changed.load(Ordering::Relaxed), 0);

    let mut wrong = types::SESSION.to_string();
    for table in &tables {
        let name = &table.name;
        wrong += &format!(
            "UPDATE {name} SET v = w, w = NULL WHERE id = 3; UPDATE {name} SET w = NULL WHERE id = 1003; DELETE FROM {name} WHERE id = 1001; INSERT INTO {name} (id, v) VALUES (2, NULL);"
        );
    }
    mirror.exec(&wrong);
    let status = heal(start);
    eprintln!("{from} → {to}: {}", told(&status));
    compare::assert_equal(active, mirror, &names);
    most(&status.heal.extra, tables.len());
    most(&status.heal.changed, 2 * tables.len());
}
