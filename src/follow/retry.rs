//! Rows that could not be healed yet: the mirror's row was locked by somebody,
//! or the mirror refused it.
//!
//! They are kept in `lockstep.retry` on the side that is written, changed in
//! the transaction that moves the checkpoint:
//! 1. A row's event is read, and the row is busy.
//! 2. The checkpoint moves beyond the event.
//! 3. The process dies. The next one starts behind the event, and only this
//!    table knows of the row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::TableName;
use super::heal::PATIENCE;
use super::writer::{Worker, WriteError};
use crate::copy::select::Bound;
use crate::rows::literal::put_quoted;
use crate::rows::service::bytes;

/// Rows waiting, with which no more events are read and the checkpoint stands
/// still: a mirror on which this many rows stay locked takes no writes.
pub(super) const RETRY_MAX: usize = 10_000;

/// Pause before a row is tried again, doubled each time up to the last.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A follower waits for rows one part of its time, and works this many.
const WAIT_SHARE: u32 = 3;

/// Rows tried again in one go.
const DUE_MAX: usize = 500;

/// The private schema's table.
pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS lockstep.retry (\
     stream VARCHAR(64) CHARACTER SET ascii NOT NULL, id BINARY(32) NOT NULL, \
     schema_name VARBINARY(256) NOT NULL, table_name VARBINARY(256) NOT NULL, \
     row_key LONGBLOB NOT NULL, PRIMARY KEY (stream, id)) ENGINE=InnoDB";

/// Which row.
pub(super) type RowKey = (Arc<TableName>, Bound);

struct Waiting {
    /// The batch it came with.
    since: u64,
    tries: u32,
    /// Those that met it locked since one did not.
    busy: u32,
    next: Instant,
}

impl Waiting {
    /// It is to be waited for.
    fn is_locked(&self) -> bool {
        self.busy >= PATIENCE
    }
}

/// The rows, and what of them is not stored yet.
#[derive(Default)]
pub(super) struct Retry {
    rows: HashMap<RowKey, Waiting>,
    /// In the table, as of the last checkpoint.
    stored: HashSet<RowKey>,
    no_wait_before: Option<Instant>,
    /// Rows are tried again from then on; not later than the first is due.
    next: Option<Instant>,
}

fn pause(tries: u32) -> Duration {
    PAUSE.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX)
}

impl Retry {
    /// The rows left by the follower before.
    pub(super) async fn load(worker: &mut Worker) -> Result<Retry, WriteError> {
        let sql = format!(
            "SELECT schema_name, table_name, row_key FROM lockstep.retry WHERE stream='{}'",
            worker.stream()
        );
        let mut retry = Retry::default();
        for row in worker.rows(&sql).await? {
            let name = TableName {
                schema: bytes(&row, 0),
                table: bytes(&row, 1),
            };
            let Some(bound) = Bound::decode(&bytes(&row, 2)) else {
                return Err(WriteError::Refused {
                    table: "lockstep.retry".to_owned(),
                    error: "a key in it is not readable".to_owned(),
                });
            };
            let key = (Arc::new(name), bound);
            retry.stored.insert(key.clone());
            retry.add(key, 0, false);
        }
        Ok(retry)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// A row is to be tried again: it was locked, or is refused.
    pub(super) fn add(&mut self, key: RowKey, batch: u64, locked: bool) {
        let now = Instant::now();
        let waiting = self.rows.entry(key).or_insert(Waiting {
            since: batch,
            tries: 0,
            busy: 0,
            next: now,
        });
        waiting.busy = if locked { waiting.busy + 1 } else { 0 };
        waiting.next = now + pause(waiting.tries);
        waiting.tries = waiting.tries.saturating_add(1);
        self.next = Some(self.next.map_or(waiting.next, |at| at.min(waiting.next)));
    }

    /// A row is healed, whichever of its events asked for it.
    pub(super) fn healed(&mut self, key: &RowKey) {
        self.rows.remove(key);
    }

    /// The oldest batch that has a row waiting.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.rows.values().map(|w| w.since).min()
    }

    /// When rows are to be tried again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next
    }

    /// Rows were tried again during this time. As long is left to the log then,
    /// however many are due.
    pub(super) fn tried(&mut self, took: Duration) {
        let first = self.rows.values().map(|w| w.next).min();
        self.next = first.map(|at| at.max(Instant::now() + took));
    }

    /// Rows were waited for during this time. Nothing is read from the log
    /// meanwhile, so there is a pause before the next are.
    pub(super) fn waited(&mut self, took: Duration) {
        self.no_wait_before = Some(Instant::now() + took * WAIT_SHARE);
    }

    /// Rows that are due, and those of them that were met locked too often: of
    /// these as many as may be waited for at a time, the longest owed first.
    pub(super) fn due(&self, waits: usize) -> (Vec<RowKey>, Vec<RowKey>) {
        let now = Instant::now();
        let due = self.rows.iter().filter(|(_, w)| w.next <= now);
        let (mut locked, mut others): (Vec<_>, Vec<_>) = due.partition(|(_, w)| w.is_locked());
        locked.sort_by_key(|(_, w)| w.since);
        let may = self.no_wait_before.is_none_or(|at| at <= now);
        // All but those few are tried as ever: a mirror that was slow for a
        // while leaves thousands that only seemed to be locked.
        others.extend(locked.split_off(locked.len().min(if may { waits } else { 0 })));
        others.truncate(DUE_MAX);
        let keys = |some: Vec<(&RowKey, &Waiting)>| {
            let keys = some.into_iter().map(|(key, _)| key.clone());
            keys.collect()
        };
        (keys(others), keys(locked))
    }

    /// Whether the table has to be changed.
    pub(super) fn is_dirty(&self) -> bool {
        self.stored.len() != self.rows.len() || !self.rows.keys().all(|k| self.stored.contains(k))
    }

    /// The statements that bring the table to what waits now, to be run with
    /// the checkpoint; then [`Retry::stored`] is called.
    pub(super) fn statements(&self, stream: &str) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for key in self.stored.iter().filter(|k| !self.rows.contains_key(*k)) {
            let mut sql = b"DELETE FROM lockstep.retry WHERE stream='".to_vec();
            sql.extend_from_slice(stream.as_bytes());
            sql.extend_from_slice(b"' AND id=");
            put_id(&mut sql, key);
            out.push(sql);
        }
        for key in self.rows.keys().filter(|k| !self.stored.contains(*k)) {
            let mut sql = b"REPLACE INTO lockstep.retry VALUES ('".to_vec();
            sql.extend_from_slice(stream.as_bytes());
            sql.extend_from_slice(b"',");
            put_id(&mut sql, key);
            for part in [&key.0.schema, &key.0.table, &key.1.encode()] {
                sql.extend_from_slice(b",_binary");
                put_quoted(&mut sql, part);
            }
            sql.push(b')');
            out.push(sql);
        }
        out
    }

    /// The statements are committed.
    pub(super) fn stored(&mut self) {
        self.stored = self.rows.keys().cloned().collect();
    }
}

/// A digest of table and key: a key may be longer than an index takes. MySQL
/// 9.6 has no MD5() any more.
fn put_id(out: &mut Vec<u8>, key: &RowKey) {
    let mut whole = Vec::new();
    for part in [&key.0.schema, &key.0.table, &key.1.encode()] {
        whole.extend_from_slice(&(part.len() as u64).to_be_bytes());
        whole.extend_from_slice(part);
    }
    out.extend_from_slice(b"UNHEX(SHA2(");
    put_quoted(out, &whole);
    out.extend_from_slice(b",256))");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> RowKey {
        let name = TableName {
            schema: b"s".to_vec(),
            table: b"t".to_vec(),
        };
        (Arc::new(name), Bound(vec![vec![n]]))
    }

    #[test]
    fn the_table_follows_the_set() {
        let mut retry = Retry::default();
        assert!(!retry.is_dirty());
        retry.add(key(b'1'), 4, true);
        retry.add(key(b'2'), 7, false);
        // Busy again: since when it is owed does not change.
        retry.add(key(b'1'), 9, true);
        assert_eq!(retry.oldest(), Some(4));
        assert!(retry.is_dirty() && retry.statements("s").len() == 2);
        retry.stored();
        assert!(!retry.is_dirty() && retry.statements("s").is_empty());
        retry.healed(&key(b'1'));
        assert_eq!(retry.oldest(), Some(7));
        let statements = retry.statements("s");
        assert!(retry.is_dirty() && statements[0].starts_with(b"DELETE"));
    }
}
