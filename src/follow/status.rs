//! How far a follower is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::beat::Passed;
use crate::binlog::Position;

/// What a follower has done, for status and metrics.
#[derive(Debug, Default)]
pub struct Status {
    /// Row events written.
    pub events: AtomicU64,
    /// Transactions of the log read to their end.
    pub transactions: AtomicU64,
    /// When the last transaction written was committed on the side that is
    /// read, in seconds since 1970 as that server says.
    pub written_s: AtomicU64,
    /// Behind the last transaction written.
    pub position: Mutex<Option<Position>>,
    /// The last heartbeat passed: all before it is written or healed.
    pub passed: watch::Sender<Passed>,
    /// It heals, and does not apply.
    pub heals: AtomicBool,
    /// What healing did.
    pub heal: HealStatus,
}

impl Status {
    /// Rows that are to be healed again.
    pub fn pending(&self) -> u64 {
        self.heal.pending.load(Ordering::Relaxed)
    }
}

/// What a follower in heal mode has done: rows by what became of them.
#[derive(Debug, Default)]
pub struct HealStatus {
    /// Both sides had the same.
    pub equal: AtomicU64,
    /// The mirror had other values.
    pub changed: AtomicU64,
    /// The mirror did not have it.
    pub missing: AtomicU64,
    /// Only the mirror had it.
    pub extra: AtomicU64,
    /// Tries that met a lock on the mirror's row.
    pub busy: AtomicU64,
    /// Tries that the mirror refused.
    pub refused: AtomicU64,
    /// Why it did last, with the table. May hold a row's values: not for logs.
    pub refusal: Mutex<Option<String>>,
    /// Rows to be tried again.
    pub pending: AtomicU64,
    /// Rows committed on the active side to make sure that events are readable.
    pub watermarks: AtomicU64,
}
