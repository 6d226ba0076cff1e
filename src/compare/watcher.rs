//! Watches the mirror's log for writes to routed tables that are not ours:
//! nobody but the proxy and the row plane should write there.
//!
//! Whose a transaction is:
//!
//! | it has | it is |
//! | --- | --- |
//! | `lockstep.mark` first | the follower's or a healer's |
//! | MySQL: the thread id of one of the proxy's legs, in its BEGIN | a mirrored write |
//! | MariaDB: a statement whose annotation is known as ours | a mirrored write |
//! | MySQL: another thread id | foreign: named at once, its keys handed on |
//! | MariaDB: nothing of that | not known: its keys are handed on |
//!
//! MariaDB 10.11 writes no thread id into its row events. So there a write that
//! has no mark of ours is verified like a foreign one, once, in batches: what is
//! equal on both sides is forgotten, and what is not is named by being listed.
//! No mark row is shared by the mirrored writes: it would serialise them.
//!
//! After a crash the log is read again from [`WatchStatus::verified_to`]: behind
//! it no key is left that had been handed on and not been settled.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc::Sender;

use crate::binlog::progress::{Place, Progress};
use crate::binlog::stream::{BinlogStream, StreamError};
use crate::binlog::{Body, Event, Position, Rows};
use crate::copy::select::Bound;
use crate::follow::batch::TableName;
use crate::follow::tables::{Followed, Meaning, Said, Tables, is_of_triggers};

use super::table::shown;
use super::{Hold, Suspected};

/// Foreign writers kept for people to see.
const FOREIGN_MAX: usize = 100;

/// How often a place is noted that may be gone back to.
const PLACED: Duration = Duration::from_secs(1);

/// Such places whose keys are not all settled: with more, going back reads
/// further back than it had to.
const PLACES_MAX: usize = 600;

/// The same writer and table are logged once in this time.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Knows the mirrored sessions.
pub trait Ours: Send + Sync {
    /// Whether a connection of the mirror with this id is, or was lately, one
    /// of ours.
    fn thread(&self, id: u32) -> bool;

    /// Whether a statement's text, as MariaDB annotates it, is one of ours.
    fn text(&self, sql: &[u8]) -> bool {
        let _ = sql;
        false
    }
}

/// A writer of the mirror that is not us.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Foreign {
    /// `schema.table`; for a definition that changed, what did.
    pub table: String,
    /// `CONNECTION_ID()` of its session, where the log tells.
    pub thread_id: Option<u32>,
    /// The account of that session, if it was there still to be asked for.
    pub user: Option<String>,
    /// When it was last seen, in milliseconds since 1970.
    pub last_ms: u64,
    /// Rows it wrote.
    pub rows: u64,
}

/// What the watcher has seen.
#[derive(Debug, Default)]
pub struct WatchStatus {
    /// Transactions read to their end.
    pub transactions: AtomicU64,
    /// Rows of routed tables written by others.
    pub foreign_rows: AtomicU64,
    /// Rows whose writer is not known, handed on to be verified.
    pub unknown_rows: AtomicU64,
    /// Rows that are not known by a key, or could not be read: only a full
    /// compare finds them.
    pub dropped_rows: AtomicU64,
    /// Behind the last transaction read.
    pub position: Mutex<Option<Position>>,
    foreign: Mutex<VecDeque<Foreign>>,
    /// Places in the log, and what keeps the log from being done with before
    /// them: the keys that came since the place before.
    places: Mutex<VecDeque<(Position, Hold)>>,
    verified: Mutex<Option<Position>>,
    said: Mutex<HashMap<(String, Option<u32>), Instant>>,
}

impl WatchStatus {
    /// Who else writes, the latest last.
    pub fn foreign(&self) -> Vec<Foreign> {
        self.foreign.lock().iter().cloned().collect()
    }

    /// Notes who a thread is.
    pub fn set_user(&self, thread: u32, user: &str) {
        for one in self.foreign.lock().iter_mut() {
            if one.thread_id == Some(thread) {
                one.user = Some(user.to_owned());
            }
        }
    }

    /// The last place before which every key handed on has been settled; None
    /// before anything was read.
    pub fn verified_to(&self) -> Option<Position> {
        let mut places = self.places.lock();
        let mut verified = self.verified.lock();
        while let Some((_, hold)) = places.front()
            && Arc::strong_count(hold) == 1
            && let Some((place, _)) = places.pop_front()
        {
            *verified = Some(place);
        }
        verified.clone()
    }

    /// A row was proven different that somebody unknown had written.
    pub fn proven(&self, table: String) {
        self.name(table, None, 1);
    }

    fn name(&self, table: String, thread_id: Option<u32>, rows: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let last_ms = since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let mut foreign = self.foreign.lock();
        let known = foreign
            .iter()
            .position(|f| f.table == table && f.thread_id == thread_id);
        let before = known.and_then(|at| foreign.remove(at));
        let (before, user) = before.map_or((0, None), |f| (f.rows, f.user));
        if foreign.len() >= FOREIGN_MAX {
            foreign.pop_front();
        }
        foreign.push_back(Foreign {
            table: table.clone(),
            thread_id,
            user,
            last_ms,
            rows: before + rows,
        });
        drop(foreign);
        let mut said = self.said.lock();
        said.retain(|_, at| at.elapsed() < SAID_AGAIN);
        if said.len() < FOREIGN_MAX && !said.contains_key(&(table.clone(), thread_id)) {
            said.insert((table.clone(), thread_id), Instant::now());
            let thread = thread_id.map_or_else(String::new, |id| id.to_string());
            tracing::warn!(table, thread, "somebody else writes to the mirror");
        }
    }
}

/// Whose a transaction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    Ours,
    Foreign(u32),
    Unknown,
}

/// Reads the mirror's log.
pub struct Watcher {
    tables: Arc<dyn Tables>,
    ours: Arc<dyn Ours>,
    keys: Sender<Suspected>,
    /// Held by the keys handed on since the last place.
    hold: Hold,
    placed: Instant,
    status: Arc<WatchStatus>,
    progress: Progress,
    whose: Whose,
    /// The statement whose rows come is annotated as ours.
    annotated: bool,
    /// The transaction has rows that are to be verified.
    handed: bool,
    /// Threads of events up to this time are not to be judged by.
    unknown_until_s: u32,
}

impl Watcher {
    /// `tables` are those of the mirror; keys of rows to be verified go to
    /// `keys` ([`super::Comparer::verify`]).
    pub fn new(
        tables: Arc<dyn Tables>,
        ours: Arc<dyn Ours>,
        keys: Sender<Suspected>,
        start: Position,
        status: Arc<WatchStatus>,
    ) -> Watcher {
        *status.position.lock() = Some(start.clone());
        *status.verified.lock() = Some(start.clone());
        status.places.lock().clear();
        Watcher {
            tables,
            ours,
            keys,
            hold: Hold::default(),
            placed: Instant::now(),
            status,
            progress: Progress::new(start),
            whose: Whose::Unknown,
            annotated: false,
            handed: false,
            unknown_until_s: 0,
        }
    }

    /// Events up to this time, in seconds since 1970, may be of a predecessor's
    /// sessions, whose threads nobody knows any more: their rows are verified,
    /// and nobody is named for having written them.
    pub fn unknown_until(mut self, at_s: u32) -> Watcher {
        self.unknown_until_s = at_s;
        self
    }

    /// Where the stream must start.
    pub fn position(&self) -> &Position {
        self.progress.position()
    }

    /// Reads until the stream ends.
    ///
    /// # Errors
    /// The stream's; a new one may go on from [`Watcher::position`].
    pub async fn run(&mut self, mut stream: BinlogStream) -> Result<(), StreamError> {
        while let Some(event) = stream.next().await? {
            self.take(&event).await;
        }
        Ok(())
    }

    async fn take(&mut self, event: &Event) {
        let place = self.progress.take(event);
        if place == Place::Begins {
            self.whose = Whose::Unknown;
            self.annotated = false;
            self.handed = false;
        }
        if place == Place::Prepares && self.handed {
            // Its rows are read when they are committed, nobody knows when:
            // until then both sides show the old ones, which are equal.
            self.status.dropped_rows.fetch_add(1, Ordering::Relaxed);
        }
        match &event.body {
            Body::Query(query) => {
                // MySQL's BEGIN; a statement that is a transaction by itself.
                self.whose = if self.ours.thread(query.thread_id) {
                    Whose::Ours
                } else if event.header.timestamp <= self.unknown_until_s {
                    Whose::Unknown
                } else {
                    Whose::Foreign(query.thread_id)
                };
                self.statement(query);
            }
            Body::Text(sql) => self.annotated = self.ours.text(sql),
            Body::Rows(rows) => self.rows(rows).await,
            _ => {}
        }
        if matches!(
            place,
            Place::Commits | Place::RollsBack | Place::Prepares | Place::Alone
        ) {
            self.status.transactions.fetch_add(1, Ordering::Relaxed);
            *self.status.position.lock() = Some(self.progress.position().clone());
            self.place();
        }
    }

    fn place(&mut self) {
        let mut places = self.status.places.lock();
        if self.placed.elapsed() >= PLACED && places.len() < PLACES_MAX {
            self.placed = Instant::now();
            let hold = std::mem::take(&mut self.hold);
            places.push_back((self.progress.position().clone(), hold));
        }
    }

    /// A change of a definition, or a write logged as text, on the mirror.
    fn statement(&self, query: &crate::binlog::event::Query) {
        if self.is_ours() {
            return;
        }
        if let Said::Stop(what) = self.tables.statement(query) {
            // No row of it is in the log: TRUNCATE leaves nothing to verify.
            let unverified = u64::from(!is_of_triggers(query));
            let dropped = &self.status.dropped_rows;
            dropped.fetch_add(unverified, Ordering::Relaxed);
            if let Whose::Foreign(thread) = self.whose {
                self.status.name(what, Some(thread), 0);
            }
        }
    }

    async fn rows(&mut self, rows: &Rows) {
        // Nearly all are.
        if self.is_ours() {
            return;
        }
        let name = TableName::of(&rows.table);
        let followed = match self.tables.meaning(&name) {
            Meaning::Mark => {
                self.whose = Whose::Ours;
                return;
            }
            Meaning::Follow(followed) => followed,
            Meaning::Stop(_) | Meaning::Keyless(_) => {
                // Not known by its key: named, and left to a full compare.
                self.foreign(&name, 1, 1);
                return;
            }
            _ => return,
        };
        if followed.misfit(&rows.table).is_some() {
            // Its definition was another one then.
            self.foreign(&name, 1, 1);
            return;
        }
        let (mut written, mut dropped) = (0, 0);
        for images in rows.images(Some(&followed.unsigned)) {
            written += 1;
            // What cannot be read is not handed on, and is counted.
            let images = images.ok();
            let images = images.map_or([None, None], |i| [i.before, i.after]);
            let keys = images.iter().flatten().map(|i| bound(i, &followed));
            let keys: Vec<Option<Bound>> = keys.collect();
            let foreign = self.whose != Whose::Unknown;
            if keys.is_empty() || keys.contains(&None) {
                dropped += 1;
            }
            self.handed = true;
            for key in keys.into_iter().flatten() {
                let key = Suspected {
                    name: name.clone(),
                    key,
                    unknown: !foreign,
                    hold: Some(self.hold.clone()),
                };
                // The log waits. Closed: whoever verifies has ended, and so do we.
                let _ = self.keys.send(key).await;
            }
        }
        self.foreign(&name, written, dropped);
    }

    fn is_ours(&self) -> bool {
        match self.whose {
            Whose::Ours => true,
            Whose::Foreign(_) => false,
            Whose::Unknown => self.annotated,
        }
    }

    fn foreign(&self, name: &TableName, rows: u64, dropped: u64) {
        let status = &self.status;
        status.dropped_rows.fetch_add(dropped, Ordering::Relaxed);
        match self.whose {
            Whose::Foreign(thread) => {
                status.foreign_rows.fetch_add(rows, Ordering::Relaxed);
                status.name(shown(name), Some(thread), rows);
            }
            _ => _ = status.unknown_rows.fetch_add(rows, Ordering::Relaxed),
        }
    }
}

fn bound(image: &[crate::binlog::Value], table: &Followed) -> Option<Bound> {
    Bound::of(image, &table.key, &table.shape).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_named_once_each() {
        let status = WatchStatus::default();
        status.name("s.t".into(), Some(1), 2);
        status.name("s.t".into(), Some(2), 1);
        status.name("s.t".into(), Some(1), 3);
        let seen: Vec<_> = status
            .foreign()
            .iter()
            .map(|f| (f.thread_id, f.rows))
            .collect();
        assert_eq!(seen, [(Some(2), 1), (Some(1), 5)]);
        for n in 0..200 {
            status.name("s.u".into(), Some(n), 1);
        }
        assert_eq!(status.foreign().len(), FOREIGN_MAX);
    }
}
