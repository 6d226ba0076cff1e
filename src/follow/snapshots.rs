//! Where a table is copied as a whole, out of one snapshot, whose place in the
//! log is known: a table without a key, and one whose rows delete each other
//! by a foreign key without an event.
//!
//! Events of a table without a key can be written only once and only in order,
//! so it must be known for each whether the copied rows have it already:
//!
//! 1. Until the copier has its snapshot, the follower skips the table's events.
//! 2. The copier commits a *low* watermark on the side that is read, opens a
//!    snapshot, and commits a *high* watermark, on another connection.
//! 3. The follower meets the low watermark, and looks for events of the table
//!    until it meets the high one. If there is one, nobody knows whether the
//!    snapshot has it: the copier starts again.
//! 4. If there is none, the snapshot is the table at this place: what was
//!    committed before the low watermark is in it (servers commit in the order
//!    of the log), what was committed after the high one is not. The follower
//!    moves its checkpoint here and tells the copier.
//! 5. The copier writes the rows and records the copy as finished; a follower
//!    that meets an event of the table meanwhile waits for that.
//!
//! A crash before 5 is over starts at 1, with an emptied table. After it the
//! checkpoint stands behind the high watermark, so that no event that the rows
//! have is met again.
//!
//! Tables whose rows follow those of others unseen use the first step too:
//! until their parents are copied their events are skipped, so that no child is
//! there without its parent. What is skipped was in the log before the first
//! watermark of their own copy, which therefore reads it. What their events say
//! was there is removed meanwhile ([`super::keyed`] says why), so a table that is
//! wanted must be copied from its beginning: whoever wants one sees to that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::batch::TableName;

/// A copy on its way.
enum State {
    /// No snapshot yet.
    Wanted,
    /// Between its watermarks, or before the low one.
    Bracketed {
        low: u64,
        high: u64,
        inside: bool,
        touched: bool,
        told: oneshot::Sender<bool>,
    },
    /// Rows are being written.
    Written,
}

/// What to do with an event of a table without a key.
pub(super) enum Due {
    /// Write it.
    Write,
    /// The snapshot will have it.
    Skip,
    /// Its copy is being written.
    Wait(Arc<Notify>),
}

/// The copies on their way.
#[derive(Default)]
pub struct Snapshots {
    copies: Mutex<HashMap<TableName, State>>,
    /// Whether there are any: most tables have a key.
    any: AtomicBool,
    ended: Arc<Notify>,
}

impl Snapshots {
    /// The table is to be copied: its events are skipped until it is.
    pub fn want(&self, name: &TableName) {
        self.copies.lock().insert(name.clone(), State::Wanted);
        self.any.store(true, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    /// The watermarks a snapshot is about to be opened between. Told true once
    /// the follower stands behind the high one, false if the table changed
    /// between them.
    pub fn bracket(&self, name: &TableName, low: u64, high: u64) -> oneshot::Receiver<bool> {
        let (told, verdict) = oneshot::channel();
        let state = State::Bracketed {
            low,
            high,
            inside: false,
            touched: false,
            told,
        };
        self.copies.lock().insert(name.clone(), state);
        self.any.store(true, Ordering::SeqCst);
        verdict
    }

    /// The rows are written and recorded: the table's events count.
    pub fn copied(&self, name: &TableName) {
        self.copies.lock().remove(name);
        self.ended.notify_waiters();
    }

    /// The follower meets a watermark; a snapshot that is settled by it.
    pub(super) fn meet(&self, token: u64) -> Option<oneshot::Sender<bool>> {
        let mut copies = self.copies.lock();
        for state in copies.values_mut() {
            let State::Bracketed {
                low, high, inside, ..
            } = state
            else {
                continue;
            };
            if *low == token {
                *inside = true;
                return None;
            }
            if *high != token {
                continue;
            }
            // A high one whose low one was before our start proves nothing.
            let quiet = matches!(
                state,
                State::Bracketed {
                    inside: true,
                    touched: false,
                    ..
                }
            );
            let next = if quiet { State::Written } else { State::Wanted };
            if let State::Bracketed { told, .. } = std::mem::replace(state, next) {
                if quiet {
                    return Some(told);
                }
                let _ = told.send(false);
            }
            return None;
        }
        None
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Whether an event is to be written. After [`Snapshots::due`] has said
    /// that it need not wait.
    pub(super) fn is_due(&self, name: &TableName) -> bool {
        !self.any.load(Ordering::SeqCst) || matches!(self.due(name), Due::Write)
    }

    /// The follower meets an event.
    pub(super) fn due(&self, name: &TableName) -> Due {
        if !self.any.load(Ordering::SeqCst) {
            return Due::Write;
        }
        match self.copies.lock().get_mut(name) {
            None => Due::Write,
            Some(State::Wanted) => Due::Skip,
            Some(State::Bracketed {
                inside, touched, ..
            }) => {
                *touched |= *inside;
                Due::Skip
            }
            Some(State::Written) => Due::Wait(self.ended.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quiet_bracket_is_a_place() {
        let name = TableName {
            schema: b"s".to_vec(),
            table: b"t".to_vec(),
        };
        let snapshots = Snapshots::default();
        assert!(matches!(snapshots.due(&name), Due::Write));
        snapshots.want(&name);
        assert!(matches!(snapshots.due(&name), Due::Skip));
        let mut verdict = snapshots.bracket(&name, 7, 8);
        assert!(snapshots.meet(7).is_none());
        assert!(matches!(snapshots.due(&name), Due::Skip));
        assert!(snapshots.meet(8).is_none());
        assert_eq!(verdict.try_recv(), Ok(false), "it changed in between");
        let mut verdict = snapshots.bracket(&name, 9, 10);
        assert!(snapshots.meet(10).is_none());
        assert_eq!(verdict.try_recv(), Ok(false), "the low one was not met");
        let _verdict = snapshots.bracket(&name, 11, 12);
        assert!(
            matches!(snapshots.due(&name), Due::Skip),
            "before the low one"
        );
        assert!(snapshots.meet(11).is_none() && snapshots.meet(12).is_some());
        assert!(matches!(snapshots.due(&name), Due::Wait(_)));
        snapshots.copied(&name);
        assert!(matches!(snapshots.due(&name), Due::Write));
    }
}
