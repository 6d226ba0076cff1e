//! Rows of the transaction that is being read, until it is known that they stay.
//!
//! Servers log what was rolled back where something in the transaction cannot
//! be: MariaDB after CREATE TEMPORARY TABLE, both where one statement wrote a
//! table without transactions, too. The log then ends in ROLLBACK, or has
//! `ROLLBACK TO` in it:
//! 1. BEGIN; row 6 is written; a temporary table is made; ROLLBACK. All of that
//!    stands in the log.
//! 2. Row 6 is applied as it is read.
//! 3. The target has a row that never was.
//!
//! A transaction of more rows than are kept is applied while it is read; one of
//! these that rolls back stops the follower.

use crate::binlog::event::Query;
use crate::binlog::progress::Place;
use crate::binlog::{Event, Rows};

use super::batch::TableName;
use super::tables::Meaning;
use super::{FollowError, Follower};

/// Bytes of rows kept of one transaction: few have as many, and what rolls back
/// with a temporary table in it seldom has more.
const BYTES_MAX: usize = 32 << 20;

/// Savepoints known in one transaction; behind the last of them a ROLLBACK TO
/// stops the follower.
const SAVEPOINTS_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Held {
    rows: Vec<Rows>,
    bytes: usize,
    /// Names, and how many of `rows` are before each.
    savepoints: Vec<(Vec<u8>, usize)>,
    /// Rows of this transaction were applied already.
    passed: bool,
}

/// What a statement inside a transaction does with the rows before it.
#[derive(PartialEq, Debug)]
enum Said<'a> {
    Savepoint(&'a [u8]),
    BackTo(&'a [u8]),
}

/// The statement, as servers write it into their logs.
fn read(sql: &[u8]) -> Option<Said<'_>> {
    let behind = |words: &[u8]| {
        let (head, rest) = sql.trim_ascii().split_at_checked(words.len())?;
        let name = rest.trim_ascii();
        (head.eq_ignore_ascii_case(words) && !name.is_empty()).then_some(name)
    };
    if let Some(name) = behind(b"ROLLBACK TO SAVEPOINT ").or_else(|| behind(b"ROLLBACK TO ")) {
        return Some(Said::BackTo(name));
    }
    behind(b"SAVEPOINT ").map(Said::Savepoint)
}

impl Held {
    /// A name used again is the later place.
    fn savepoint(&mut self, name: &[u8]) {
        self.savepoints
            .retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        if self.savepoints.len() < SAVEPOINTS_MAX {
            self.savepoints.push((name.to_vec(), self.rows.len()));
        }
    }

    /// Takes what was written since the savepoint; None: it is not known.
    fn back_to(&mut self, name: &[u8]) -> Option<Vec<Rows>> {
        let found = |(n, _): &(Vec<u8>, usize)| n.eq_ignore_ascii_case(name);
        let at = self.savepoints.iter().position(found)?;
        self.savepoints.truncate(at + 1);
        let undone = self.rows.split_off(self.savepoints[at].1);
        self.bytes = self.rows.iter().map(Rows::size).sum();
        Some(undone)
    }
}

impl Follower {
    /// Keeps the rows until their transaction ends.
    pub(super) fn hold(&mut self, rows: &Rows, place: Place) -> Result<(), FollowError> {
        // What is healed is read from the active side, whatever its log says.
        if self.heals || place != Place::Inside || self.held.passed {
            return self.rows(rows);
        }
        if matches!(
            self.tables.meaning(&TableName::of(&rows.table)),
            Meaning::Skip
        ) {
            return Ok(());
        }
        self.held.bytes += rows.size();
        self.held.rows.push(rows.clone());
        self.held.passed = self.held.bytes > BYTES_MAX;
        Ok(())
    }

    /// To be called ahead of each event: takes the rows that stay, batch by
    /// batch, once it is known that they do or there are too many of them.
    pub(super) async fn release(&mut self, event: &Event) -> Result<(), FollowError> {
        if self.held.rows.is_empty() || !(event.commits() || self.held.passed) {
            return Ok(());
        }
        self.held.bytes = 0;
        for rows in std::mem::take(&mut self.held.rows) {
            self.rows(&rows)?;
            if self.is_full() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn let_pass(&mut self) -> Result<(), FollowError> {
        self.held.bytes = 0;
        let rows = std::mem::take(&mut self.held.rows);
        rows.iter().try_for_each(|rows| self.rows(rows))
    }

    /// Whether it is a savepoint, or the way back to one.
    pub(super) fn savepoint(&mut self, query: &Query, place: Place) -> Result<bool, FollowError> {
        let Some(said) = read(&query.sql).filter(|_| place == Place::Inside) else {
            return Ok(false);
        };
        match said {
            _ if self.heals => {}
            Said::BackTo(_) if self.xa.is_running() => {
                return Err(self.stopped("ROLLBACK TO inside a transaction of XA"));
            }
            Said::Savepoint(name) => self.held.savepoint(name),
            Said::BackTo(_) if self.held.passed => return Err(self.too_late()),
            Said::BackTo(name) => match self.held.back_to(name) {
                Some(undone) => self.held.rows.extend(self.standing(undone)),
                None => return Err(self.stopped("ROLLBACK TO a savepoint that is not known")),
            },
        }
        Ok(true)
    }

    /// Takes the rows of the transaction that `place` begins or ends.
    pub(super) fn settle_held(&mut self, place: Place) -> Result<(), FollowError> {
        match place {
            // Of one that the log, or the connection, broke off.
            Place::Begins => {
                self.held = Held::default();
                (self.ours, self.inside) = (false, false);
            }
            Place::RollsBack if self.held.passed => return Err(self.too_late()),
            Place::RollsBack => {
                let undone = std::mem::take(&mut self.held.rows);
                self.held.rows = self.standing(undone);
                self.let_pass()?;
            }
            Place::Commits | Place::Prepares | Place::Alone => {
                self.let_pass()?;
                self.held = Held::default();
            }
            Place::Inside | Place::Outside => {}
        }
        Ok(())
    }

    /// Of rows rolled back, those that no server takes back.
    fn standing(&self, mut rows: Vec<Rows>) -> Vec<Rows> {
        rows.retain(
            |rows| match self.tables.meaning(&TableName::of(&rows.table)) {
                Meaning::Follow(table) | Meaning::Keyless(table) => !table.shape.transactional,
                // Ours, or not known: whoever takes it says so.
                Meaning::Mark | Meaning::Stop(_) => true,
                _ => false,
            },
        );
        rows
    }

    fn too_late(&self) -> FollowError {
        self.stopped(format!(
            "a transaction of more than {} MiB of rows was rolled back, and some of them are \
             written: copy again, or compare and repair",
            BYTES_MAX >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savepoints_are_read_as_servers_log_them() {
        assert_eq!(read(b"SAVEPOINT `b`"), Some(Said::Savepoint(b"`b`")));
        assert_eq!(read(b"savepoint x "), Some(Said::Savepoint(b"x")));
        assert_eq!(read(b"ROLLBACK TO `b`"), Some(Said::BackTo(b"`b`")));
        let long = b"rollback to savepoint `b c`";
        assert_eq!(read(long), Some(Said::BackTo(b"`b c`")));
        for other in [
            &b"ROLLBACK"[..],
            b"SAVEPOINT ",
            b"RELEASE SAVEPOINT `b`",
            b"",
        ] {
            assert_eq!(read(other), None);
        }
    }

    #[test]
    fn the_way_back_forgets_later_savepoints() {
        let mut held = Held::default();
        held.savepoint(b"`a`");
        held.savepoint(b"`b`");
        held.savepoint(b"`A`");
        assert_eq!(held.savepoints.len(), 2);
        assert!(held.back_to(b"`b`").is_some());
        assert!(held.back_to(b"`a`").is_none(), "set behind b");
        assert!(held.back_to(b"`b`").is_some());
    }
}
