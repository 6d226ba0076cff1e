//! Brings single rows of the mirror to what the active side has, while both
//! are written (DESIGN §6 Heal). Never takes a lock on the active side.
//!
//! A = active side, M = mirror; a mirrored write of the application is
//! *A executes, M executes, A commits, M commits* (DESIGN §5).
//!
//! # Equal without holding a lock
//!
//! Most keys are looked at once: A's row by a plain read, M's by a read that
//! fails, or leaves the row out, where a transaction has changed it and not
//! ended (`NOWAIT`, `SKIP LOCKED`). Both show the same: the key is done. Let E
//! be the last event of the row in A's log, readable on A before the look
//! began. Every transaction that has changed the row on A executed on M, if at
//! all, before its A committed, so before E was read. On M it has then
//! committed, been rolled back, or still holds the row; the last is what the
//! look would have met. So nothing is to come on M, and A's row is E's: equal
//! now is equal for good. For an event that is not the last, whatever is seen
//! does not matter: the last one is looked at too.
//!
//! Why M's read must see locks:
//! 1. T1 changes the row from x to y on A and M, commits on A; M's COMMIT is
//!    slow.
//! 2. T2 changes it back to x on A; its part on M fails (it waits for T1's
//!    lock beyond its deadline).
//! 3. T2's event comes; plain reads show x on both sides.
//! 4. T1's COMMIT ends: y on M, and no event is ahead.
//!
//! Why E must be readable on A first: a server hands an event out before its
//! transaction is readable (semi-sync waits in between). 1. E comes; 2. A and M
//! show what was before E; 3. E becomes readable, and M never gets it. The
//! follower takes E's own image as proof of that, or else commits a row on A
//! and waits for the OK ([`Healer::watermark`]).
//!
//! # Different
//!
//! What differs is looked at again shortly after: mostly it is a mirrored write
//! whose M has yet to commit. Then: lock M's row, read A's without a lock, write
//! M, commit.
//! - A transaction that commits on A after our read either executes on M after
//!   we release, on top of what we wrote, or fails there: its event is ahead.
//! - One that executed on M before us held the row until after its A committed:
//!   we read its result.
//! - One that is between the two holds the row: [`Healed::Busy`].
//!
//! M's transaction is READ COMMITTED: where M has no row, nothing is locked until
//! ours is inserted, and that insert is the lock. T's part on M may come between
//! our first look at M and the insert:
//! 1. It inserts the row: ours meets its lock, or a duplicate, and all is tried
//!    again.
//! 2. It updates or deletes, and finds nothing on M. If T commits on A before our
//!    read we insert its result, else its event is ahead.
//!
//! And what is inserted is read on A once more before it is committed:
//! 1. We read A's row; the insert is sent, and waits on the server.
//! 2. The row is deleted on A; on M there is nothing to delete.
//! 3. The event's look (another healer's) finds nothing on either side: equal.
//! 4. The insert is executed; no event is ahead.
//!
//! To lock the gap instead (REPEATABLE READ) would stop those who insert beside
//! the row: the application, and the other healers, two of which lock one gap
//! and then wait for each other to insert.
//!
//! Locks are held for three times [`HOLD`] at most, for most rows, and for five
//! times where one of those beside them is missing: writers of the application
//! may wait for them, and their deadline suspends the route. Where servers have
//! been slower, as long as that took.
//!
//! # Rows that are always locked
//!
//! A row that many change one after the other is met unlocked by chance only:
//! after [`PATIENCE`] tries in vain it is waited for ([`Healer::wait`]), in the
//! server's queue and holding nothing, first by a lock that others share: mostly
//! the row is equal. That lock, too, keeps M's row until A's is read. To write,
//! the shared lock is given back first: who waits for the row behind us would
//! deadlock with us otherwise.
//!
//! Unique values that stand in another row of M than on A: that row is not what
//! A has either, so it is healed in the same transaction ([`How`]).

mod found;
mod link;
mod locked;
mod look;
mod rows;
mod sql;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::binlog::Value;
use crate::copy::raw;
use crate::copy::select::Bound;
use crate::rows::literal::Unwritable;
use crate::rows::service::ServiceAccount;

use super::batch::TableName;
use super::mark;
use super::tables::Followed;
use super::writer::WriteError;
use link::{Fault, Link};
pub(super) use sql::Literals;
use sql::Read;

/// Keys in one look: enough that round trips do not count.
const LOOK_KEYS: usize = 200;

/// Bytes of rows in one look that the next one aims at.
const LOOK_BYTES: usize = 4 << 20;

/// Keys under lock at a time: few, so that locks are held shortly. While no
/// lock of another is met (the mirror was away, and all its rows are behind)
/// twice as many each time, up to the last.
const LOCKED_KEYS: usize = 16;
const LOCKED_KEYS_MAX: usize = 128;

/// Rows in a page of children of parents that were deleted or renamed.
pub(super) const FAMILY_ROWS: usize = 1000;

/// How long each of the steps under lock may take (locking, reading, writing; of
/// missing rows reading again and the commit besides): the first three together
/// less than the default deadline of a mirrored write. A row that
/// takes longer (it is large, or a server is slow) is given twice the time in
/// the next try, up to the last.
const HOLD: Duration = Duration::from_millis(60);
const HOLD_MAX: Duration = Duration::from_secs(8);

/// Tries of a row that met it locked, before it is waited for.
pub(super) const PATIENCE: u32 = 3;

/// For a lock that is waited for: the server gives up after a second.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// For a look, which holds nothing.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// Before the second look: as long as a COMMIT that is on its way takes.
const SECOND_LOOK: Duration = Duration::from_millis(15);

/// Times anything is tried again after a lost connection, and the first pause;
/// it doubles.
const ATTEMPTS_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_millis(10);

/// Workers of a stream have lower numbers in `lockstep.mark`.
const NUMBERS_FROM: usize = 1000;

/// What was wrong with a row of the mirror.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// It had other values.
    Changed,
    /// It was not there.
    Missing,
    /// The active side has no such row.
    Extra,
}

/// What became of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Healed {
    /// Both sides had the same.
    Equal,
    /// The mirror now has what the active side has.
    Repaired(Kind),
    /// The mirror's row is locked by somebody: try again later.
    Busy,
    /// The mirror does not take the row; in the server's words.
    Refused(Arc<str>),
}

/// One connection to each side.
pub struct Healer {
    active: Link,
    mirror: Link,
    stream: String,
    number: usize,
    token: u64,
    /// Keys in the next look.
    size: usize,
    /// Keys under lock at a time.
    locked: usize,
    /// For each step under lock: now, and where servers are quick.
    hold: Duration,
    first_hold: Duration,
    /// Locks of others are waited for.
    patient: bool,
    /// Rows whose last write was not told to be committed: found equal after
    /// that, they were repaired all the same.
    untold: HashMap<Bound, Kind>,
}

impl Healer {
    /// A healer that connects when first needed. Among all healers of a stream
    /// that run at the same time each has a `number` of its own.
    pub fn new(
        active: ServiceAccount,
        mirror: ServiceAccount,
        stream: &str,
        number: usize,
    ) -> Healer {
        Healer {
            active: Link::new(active, false),
            mirror: Link::new(mirror, true),
            stream: stream.to_owned(),
            number: NUMBERS_FROM + number,
            token: mark::first_token(),
            size: LOOK_KEYS / 4,
            locked: LOCKED_KEYS,
            hold: HOLD,
            first_hold: HOLD,
            patient: false,
            untold: HashMap::new(),
        }
    }

    /// Closes the connections until they are needed again.
    pub(super) fn rest(&mut self) {
        self.active.drop_conn();
        self.mirror.drop_conn();
    }

    /// Brings the mirror's rows with these keys to what the active side has.
    /// `keys` are distinct keys of this table. What the caller wants to be seen
    /// must be readable on the active side already.
    ///
    /// # Errors
    /// A side cannot be reached, or refuses to be read. Keys that the mirror
    /// refuses are [`Healed::Refused`] each.
    pub async fn heal(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[Bound],
    ) -> Result<Vec<Healed>, WriteError> {
        let mut healed = vec![Healed::Equal; keys.len()];
        let mut left: Vec<usize> = (0..keys.len()).collect();
        for second in [false, true] {
            if second {
                tokio::time::sleep(SECOND_LOOK).await;
            }
            let wanted: Vec<&Bound> = left.iter().filter_map(|i| keys.get(*i)).collect();
            let equal = self.look(name, table, &wanted, &[]).await?;
            let mut equal = equal.into_iter();
            left.retain(|_| !equal.next().unwrap_or(false));
            if left.is_empty() {
                return Ok(healed);
            }
        }
        let wanted: Vec<&Bound> = left.iter().filter_map(|i| keys.get(*i)).collect();
        let done = self.repair(name, table, &wanted).await?;
        for (i, done) in left.into_iter().zip(done) {
            if let Some(healed) = healed.get_mut(i) {
                *healed = done;
            }
        }
        Ok(healed)
    }

    /// As [`Healer::heal`], for keys that are known to differ: locks at once.
    ///
    /// # Errors
    /// As [`Healer::heal`].
    pub async fn repair(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
    ) -> Result<Vec<Healed>, WriteError> {
        let mut healed = Vec::with_capacity(keys.len());
        while healed.len() < keys.len() {
            let until = (healed.len() + self.locked).min(keys.len());
            let some = keys.get(healed.len()..until).unwrap_or_default();
            healed.extend(self.lock_and_heal(name, table, some).await?);
        }
        Ok(healed)
    }

    /// With another limit for each of the steps under lock.
    #[must_use]
    pub fn holding(mut self, limit: Duration) -> Healer {
        self.first_hold = limit;
        self.hold = limit;
        self
    }

    fn reads<'a>(&self, name: &'a TableName, table: &'a Followed) -> (Read<'a>, Read<'a>) {
        let read = |mirror| Read {
            name,
            table,
            mirror,
            mariadb: self.mirror.is_mariadb(),
        };
        (read(false), read(true))
    }

    async fn ready(&mut self) -> Result<(), Fault> {
        self.active.ready().await?;
        self.mirror.ready().await
    }

    /// The servers are of different families.
    fn is_cross(&self) -> bool {
        self.active.is_mariadb() != self.mirror.is_mariadb()
    }

    fn forget(&mut self) {
        self.active.drop_conn();
        self.mirror.drop_conn();
    }

    /// Commits a row on the active side. With its OK all that is in the log
    /// before it is readable there: servers commit in the order of their log.
    ///
    /// # Errors
    /// The active side cannot be written.
    pub(super) async fn watermark(&mut self) -> Result<(), WriteError> {
        self.token += 1;
        let sql = super::beat::sql(&format!("{}#heal", self.stream), self.token);
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.active.run(std::slice::from_ref(&sql), LOOK_MAX).await {
                Ok(_) => break,
                Err(Fault::Lost(e)) if attempt >= ATTEMPTS_MAX => return Err(e.into()),
                Err(Fault::Refused(error)) => return Err(refused_by("lockstep.beat", error)),
                Err(_) if attempt >= ATTEMPTS_MAX => {
                    return Err(refused_by("lockstep.beat", "it is locked".to_owned()));
                }
                Err(Fault::NoTable) => {
                    let create = super::beat::CREATE.map(|s| s.as_bytes().to_vec());
                    let _ = self.active.run(&create, LOOK_MAX).await;
                }
                Err(_) => self.active.drop_conn(),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(())
    }
}

fn images(
    rows: impl Iterator<Item = Vec<mysql_async::Value>>,
    table: &Followed,
) -> Option<Vec<Vec<Value>>> {
    rows.map(|row| raw::image(row, &table.shape)).collect()
}

fn refused_by(table: &str, error: String) -> WriteError {
    WriteError::Refused {
        table: table.to_owned(),
        error,
    }
}

fn refused(name: &TableName, fault: Fault) -> WriteError {
    let error = match fault {
        Fault::Lost(e) => return e.into(),
        Fault::Refused(error) => error,
        Fault::Locked | Fault::Slow => "locked".to_owned(),
        Fault::Duplicate => "duplicate".to_owned(),
        Fault::NoTable => "the private schema is missing".to_owned(),
    };
    refused_by(&name.to_string(), error)
}

fn unwritable(error: Unwritable) -> Fault {
    Fault::Refused(error.to_string())
}

fn unreadable(name: &TableName) -> Fault {
    Fault::Refused(format!("rows of {name} are not as its definition says"))
}
