//! The list of client sessions, for operators, KILL and the gate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use crate::Side;
use crate::leg::ours::Threads;
use crate::route::gate::Slot;

/// What one session shows of itself. Written by the session, read by others.
pub struct Entry {
    /// Its slot at the gate; the id of both is the same.
    pub slot: Arc<Slot>,
    /// The client's account name.
    pub user: String,
    /// Where the client connects from.
    pub address: SocketAddr,
    /// The thread id the client was greeted with.
    pub greeted_id: u32,
    /// The side that greeted.
    pub greeted_by: Side,
    /// Thread ids of the legs, 0 for none (source, target).
    legs: [AtomicU32; 2],
    /// All sessions' legs, for those who read the backends' logs.
    threads: Arc<[Threads; 2]>,
    now: Now,
    /// The other leg was wanted and could not be opened.
    pub without_other_leg: AtomicBool,
    /// The default schema.
    pub database: Mutex<String>,
    /// When the session began.
    pub began: Instant,
}

/// What each statement writes: in one piece of a cache line, since with many
/// sessions none of theirs is warm.
#[repr(align(32))]
struct Now {
    /// Statements so far.
    statements: AtomicU64,
    /// When the open transaction began, in milliseconds since the session's
    /// start plus one; 0 for none.
    transaction_since: AtomicU64,
    /// The leg that ran a statement last, or runs one now: what KILL QUERY
    /// means.
    running: AtomicU8,
    /// The leg whose end is the session's, in a transaction.
    lead: AtomicU8,
}

/// One line of `lockstep sessions`.
#[derive(Clone, Debug, Serialize)]
pub struct SessionInfo {
    /// The session's id.
    pub id: u64,
    /// The client's account name.
    pub user: String,
    /// Where it connects from.
    pub address: String,
    /// The default schema.
    pub database: String,
    /// The thread id the client knows.
    pub greeted_id: u32,
    /// Backend thread ids.
    pub legs: Legs,
    /// Whether a transaction is open.
    pub in_transaction: bool,
    /// For how long, in milliseconds.
    pub transaction_ms: u64,
    /// Statements so far.
    pub statements: u64,
    /// False when the other leg was wanted and could not be opened.
    pub other_leg: bool,
}

/// Thread ids on the two backends.
#[derive(Clone, Debug, Serialize)]
pub struct Legs {
    /// On the source.
    pub source: Option<u32>,
    /// On the target.
    pub target: Option<u32>,
}

/// All sessions of the process.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<u64, Arc<Entry>>>,
    /// Sessions by the side that greeted them.
    greeted: [AtomicUsize; 2],
    /// Thread ids of all legs (source, target).
    pub threads: Arc<[Threads; 2]>,
}

/// A side, or none, in a byte.
const fn code(side: Option<Side>) -> u8 {
    match side {
        None => 0,
        Some(Side::Source) => 1,
        Some(Side::Target) => 2,
    }
}

const fn side_of(code: u8) -> Option<Side> {
    match code {
        1 => Some(Side::Source),
        2 => Some(Side::Target),
        _ => None,
    }
}

impl Registry {
    /// Adds a session.
    pub fn add(&self, entry: Arc<Entry>) {
        self.greeted[entry.greeted_by.index()].fetch_add(1, Ordering::Relaxed);
        self.sessions.lock().insert(entry.slot.id, entry);
    }

    /// Removes a session.
    pub fn remove(&self, id: u64) {
        if let Some(entry) = self.sessions.lock().remove(&id) {
            self.greeted[entry.greeted_by.index()].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// How many want their other leg and have none.
    pub fn without_other_leg(&self) -> usize {
        self.sessions
            .lock()
            .values()
            .filter(|e| e.without_other_leg.load(Ordering::Relaxed))
            .count()
    }

    /// How many legs there are (source, target).
    pub fn legs(&self) -> [usize; 2] {
        let sessions = self.sessions.lock();
        [Side::Source, Side::Target].map(|side| {
            let open = |e: &&Arc<Entry>| e.legs[side.index()].load(Ordering::Relaxed) != 0;
            sessions.values().filter(open).count()
        })
    }

    /// Asks a session to end. False when there is none of that id.
    pub fn kill(&self, id: u64) -> bool {
        match self.sessions.lock().get(&id) {
            Some(entry) => {
                entry.slot.kill();
                true
            }
            None => false,
        }
    }

    /// The session a client means by a thread id it has seen: the one that was
    /// greeted with it by this side.
    pub fn by_greeted_id(&self, id: u32, side: Side) -> Option<Arc<Entry>> {
        self.sessions
            .lock()
            .values()
            .find(|e| e.greeted_id == id && e.greeted_by == side)
            .cloned()
    }

    /// Whether a session is known to its client by this id though `side` did
    /// not give it: a KILL could then mean either. Only around a flip are
    /// there sessions of both sides, so asking costs nothing else.
    pub fn is_ambiguous(&self, id: u32, side: Side) -> bool {
        let other = side.other();
        self.greeted[other.index()].load(Ordering::Relaxed) > 0
            && self.by_greeted_id(id, other).is_some()
    }

    /// The session a client means by a thread id: whoever was greeted with it,
    /// by the given side first.
    pub fn by_client_id(&self, id: u32, prefer: Side) -> Option<Arc<Entry>> {
        self.by_greeted_id(id, prefer)
            .or_else(|| self.by_greeted_id(id, prefer.other()))
    }

    /// All sessions, by id.
    pub fn list(&self) -> Vec<SessionInfo> {
        let mut list: Vec<SessionInfo> = self
            .sessions
            .lock()
            .values()
            .map(|entry| entry.info())
            .collect();
        list.sort_by_key(|s| s.id);
        list
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        for side in [Side::Source, Side::Target] {
            self.set_leg(side, None);
        }
    }
}

impl Entry {
    /// An entry of a session that begins on `side`, greeted with `greeted_id`.
    pub fn new(
        slot: Arc<Slot>,
        user: String,
        address: SocketAddr,
        greeted_id: u32,
        side: Side,
        database: &[u8],
        threads: Arc<[Threads; 2]>,
    ) -> Entry {
        let entry = Entry {
            slot,
            user,
            address,
            greeted_id,
            greeted_by: side,
            legs: [AtomicU32::new(0), AtomicU32::new(0)],
            threads,
            now: Now {
                statements: AtomicU64::new(0),
                transaction_since: AtomicU64::new(0),
                running: AtomicU8::new(code(Some(side))),
                lead: AtomicU8::new(code(None)),
            },
            without_other_leg: AtomicBool::new(false),
            database: Mutex::new(String::from_utf8_lossy(database).into_owned()),
            began: Instant::now(),
        };
        entry.set_leg(side, Some(greeted_id));
        entry
    }

    /// Notes a leg's thread id, before it writes, or that it is gone.
    pub fn set_leg(&self, side: Side, id: Option<u32>) {
        let threads = &self.threads[side.index()];
        if let Some(id) = id {
            threads.opened(id);
        }
        match self.legs[side.index()].swap(id.unwrap_or(0), Ordering::Relaxed) {
            0 => {}
            gone => threads.closed(gone),
        }
    }

    /// Notes how many statements there have been.
    #[inline]
    pub fn set_statements(&self, count: u64) {
        self.now.statements.store(count, Ordering::Relaxed);
    }

    /// A statement begins on a leg.
    #[inline]
    pub fn set_running(&self, side: Side) {
        self.now.running.store(code(Some(side)), Ordering::Relaxed);
    }

    /// The leg that ran a statement last.
    pub fn running(&self) -> Option<Side> {
        side_of(self.now.running.load(Ordering::Relaxed))
    }

    /// The leg a transaction of the session has its flags from.
    pub fn lead(&self) -> Option<Side> {
        side_of(self.now.lead.load(Ordering::Relaxed))
    }

    /// The thread id of a leg.
    pub fn leg(&self, side: Side) -> Option<u32> {
        match self.legs[side.index()].load(Ordering::Relaxed) {
            0 => None,
            id => Some(id),
        }
    }

    /// Notes whether a transaction is open, and on which leg.
    pub fn set_transaction(&self, lead: Option<Side>) {
        let open = lead.is_some();
        self.now.lead.store(code(lead), Ordering::Relaxed);
        let since = self.now.transaction_since.load(Ordering::Relaxed);
        if !open {
            if since != 0 {
                self.now.transaction_since.store(0, Ordering::Relaxed);
            }
        } else if since == 0 {
            let now = self.began.elapsed().as_millis() as u64 + 1;
            self.now.transaction_since.store(now, Ordering::Relaxed);
        }
    }

    fn info(&self) -> SessionInfo {
        let since = self.now.transaction_since.load(Ordering::Relaxed);
        let now = self.began.elapsed().as_millis() as u64 + 1;
        SessionInfo {
            id: self.slot.id,
            user: self.user.clone(),
            address: self.address.to_string(),
            database: self.database.lock().clone(),
            greeted_id: self.greeted_id,
            legs: Legs {
                source: self.leg(Side::Source),
                target: self.leg(Side::Target),
            },
            in_transaction: since != 0,
            transaction_ms: if since == 0 {
                0
            } else {
                now.saturating_sub(since)
            },
            statements: self.now.statements.load(Ordering::Relaxed),
            other_leg: !self.without_other_leg.load(Ordering::Relaxed),
        }
    }
}
