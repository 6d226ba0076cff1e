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
//! M's transaction is REPEATABLE READ, so that a row which is not there is
//! locked as the gap it would stand in. Locks are held for three times
//! [`HOLD`] at most, for most rows: writers of the application may wait for them, and their deadline
//! suspends the route.
//!
//! Unique values that stand in another row of M than on A: that row is not what
//! A has either, so it is healed in the same transaction ([`How`]).

mod found;
mod link;
mod rows;
mod sql;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::binlog::Value;
use crate::copy::select::{self, Bound};
use crate::rows::literal::Unwritable;
use crate::rows::service::ServiceAccount;

use super::batch::TableName;
use super::mark;
use super::tables::Followed;
use super::writer::WriteError;
use found::Found;
use link::{Fault, Link, Rows};
pub(super) use sql::Literals;
use sql::{How, Lock, ROUNDS_MAX, Read};

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

/// How long each of the steps under lock may take (locking, reading, writing):
/// together less than the default deadline of a mirrored write. A row that
/// takes longer (it is large, or a server is slow) is given twice the time in
/// the next try, up to the last.
const HOLD: Duration = Duration::from_millis(60);
const HOLD_MAX: Duration = Duration::from_secs(8);

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
    /// For each step under lock: now, and after a success.
    hold: Duration,
    first_hold: Duration,
    /// Rows whose last write was not told to be committed: found equal after
    /// that, they were repaired all the same.
    untold: HashMap<Bound, Kind>,
}

/// How an attempt under lock ended.
enum Ended {
    Done(Vec<Healed>),
    /// Somebody has a lock on one of the rows, or the whole takes too long.
    Locked,
    /// These hold unique values of the rows.
    Holders(Vec<Bound>),
    Refused(String),
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

    /// Rows of one side whose `columns` have one of the values, a page behind
    /// `after`, in the key's order. Takes no lock.
    pub(super) async fn family(
        &mut self,
        name: &TableName,
        table: &Followed,
        on_mirror: bool,
        (columns, values): (&[usize], &[&Literals]),
        after: Option<&Bound>,
    ) -> Result<Vec<Vec<Value>>, WriteError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let (active, mirror) = self.reads(name, table);
            let (link, read) = if on_mirror {
                (&mut self.mirror, mirror)
            } else {
                (&mut self.active, active)
            };
            let sql = [read.family(columns, values, after, FAMILY_ROWS)];
            match link.run(&sql, LOOK_MAX).await {
                Ok(sets) => {
                    let rows = images(sets.into_iter().flatten(), table);
                    return rows.ok_or_else(|| refused(name, unreadable(name)));
                }
                Err(Fault::Lost(_) | Fault::Slow) if attempt < ATTEMPTS_MAX => link.drop_conn(),
                Err(fault) => return Err(refused(name, fault)),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(Vec::new())
    }

    /// Which keys are proven equal, with no lock held afterwards. `expected`,
    /// where not empty, are rows by key that the active side must show too
    /// (None: no row).
    pub(super) async fn look(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
        expected: &[Option<&[Value]>],
    ) -> Result<Vec<bool>, WriteError> {
        let mut equal = Vec::with_capacity(keys.len());
        // Where a row may be long, the first look finds out how long they are.
        let is_long = |c: &crate::rows::shape::ColumnShape| {
            let kind = c.type_name();
            kind.starts_with("long") || kind.starts_with("medium") || kind == "json"
        };
        if table.shape.columns.iter().any(is_long) {
            self.size = self.size.min(4);
        }
        let mut at = 0;
        while at < keys.len() {
            let until = (at + self.size).min(keys.len());
            let (keys, expected) = (
                keys.get(at..until).unwrap_or_default(),
                expected.get(at..until).unwrap_or_default(),
            );
            equal.extend(self.look_at(name, table, keys, expected).await?);
            at = until;
        }
        Ok(equal)
    }

    async fn look_at(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
        expected: &[Option<&[Value]>],
    ) -> Result<Vec<bool>, WriteError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.try_look(name, table, keys).await {
                Ok((active, mirror)) => {
                    let bytes = active.bytes + mirror.bytes;
                    self.size = next_size(keys.len(), bytes, self.size);
                    let sides = (&active, &mirror);
                    return Ok(Found::equal(table, keys, expected, sides, self.is_cross()));
                }
                Err(Fault::Lost(e)) if attempt >= ATTEMPTS_MAX => return Err(e.into()),
                Err(Fault::Lost(_)) => {}
                // Too slow, or metadata locked: not proven.
                Err(Fault::Locked | Fault::Slow) => return Ok(vec![false; keys.len()]),
                Err(fault) => return Err(refused(name, fault)),
            }
            self.forget();
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(Vec::new())
    }

    async fn try_look(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
    ) -> Result<(Found, Found), Fault> {
        self.ready().await?;
        let (active, mirror) = self.reads(name, table);
        let plain = [active.all(keys, Lock::None)];
        let shared = [mirror.all(keys, Lock::Shared)];
        let skipping = [mirror.all(keys, Lock::SharedSkip)];
        let (a, m) = tokio::join!(
            self.active.run(&plain, LOOK_MAX),
            self.mirror.run(&shared, LOOK_MAX)
        );
        let (m, whole) = match m {
            Err(Fault::Locked) => (self.mirror.run(&skipping, LOOK_MAX).await, false),
            m => (m, true),
        };
        let found = |sets: Vec<Rows>, whole| {
            let rows = sets.into_iter().flatten().collect();
            Found::new(rows, table, keys, whole).ok_or_else(|| unreadable(name))
        };
        Ok((found(a?, true)?, found(m?, whole)?))
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

    /// Heals a few keys under lock; where one of them is locked by another, or
    /// refused, each by itself.
    async fn lock_and_heal(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
    ) -> Result<Vec<Healed>, WriteError> {
        self.untold.clear();
        if let Ended::Done(done) = self.together(name, table, keys).await? {
            self.locked = (self.locked * 2).min(LOCKED_KEYS_MAX);
            return Ok(done);
        }
        self.locked = LOCKED_KEYS;
        let mut healed = Vec::with_capacity(keys.len());
        for key in keys {
            healed.push(match self.together(name, table, &[key]).await? {
                Ended::Done(mut done) => done.pop().unwrap_or(Healed::Busy),
                Ended::Refused(error) => Healed::Refused(error.into()),
                Ended::Locked | Ended::Holders(_) => Healed::Busy,
            });
        }
        Ok(healed)
    }

    /// Heals keys in one transaction, with the rows that hold their unique
    /// values.
    async fn together(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
    ) -> Result<Ended, WriteError> {
        let mut beside: Vec<Bound> = Vec::new();
        let (mut round, mut attempt, mut pause) = (0, 1, PAUSE);
        loop {
            let all: Vec<&Bound> = keys.iter().copied().chain(&beside).collect();
            let how = How::of(round);
            let fault = match self.try_heal(name, table, &all, how).await {
                Ok(Ended::Holders(found)) => {
                    round += 1;
                    let known: HashSet<&Bound> = all.iter().copied().collect();
                    let new: Vec<Bound> =
                        found.into_iter().filter(|b| !known.contains(b)).collect();
                    if new.is_empty() || beside.len() > LOCKED_KEYS_MAX {
                        // A unique key of a kind that cannot be asked for.
                        round = ROUNDS_MAX;
                    }
                    beside.extend(new);
                    continue;
                }
                Ok(Ended::Done(mut done)) => {
                    self.hold = self.first_hold;
                    done.truncate(keys.len());
                    for (key, healed) in keys.iter().zip(&mut done) {
                        if let (Healed::Equal, Some(kind)) = (&*healed, self.untold.get(*key)) {
                            *healed = Healed::Repaired(*kind);
                        }
                    }
                    return Ok(Ended::Done(done));
                }
                Ok(ended) => return Ok(ended),
                Err(fault) => fault,
            };
            match fault {
                Fault::Locked => return Ok(Ended::Locked),
                Fault::Slow => {
                    if keys.len() == 1 {
                        self.hold = (self.hold * 2).min(HOLD_MAX);
                    }
                    return Ok(Ended::Locked);
                }
                Fault::Duplicate => return Ok(Ended::Refused("a unique value".to_owned())),
                Fault::Refused(error) => return Ok(Ended::Refused(error)),
                Fault::Lost(e) if attempt >= ATTEMPTS_MAX => return Err(e.into()),
                Fault::Lost(_) => self.forget(),
                Fault::NoTable if attempt >= ATTEMPTS_MAX => return Err(refused(name, fault)),
                Fault::NoTable => self.prepare().await.map_err(|f| refused(name, f))?,
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn prepare(&mut self) -> Result<(), Fault> {
        let sql = ["CREATE DATABASE IF NOT EXISTS lockstep", mark::TABLE];
        let sql = sql.map(|s| s.as_bytes().to_vec());
        self.mirror.run(&sql, LOOK_MAX).await.map(|_| ())
    }

    /// One attempt under lock. On a fault M's transaction is rolled back.
    async fn try_heal(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
        how: How,
    ) -> Result<Ended, Fault> {
        self.ready().await?;
        let ended = self.under_lock(name, table, keys, how).await;
        let (rows, fault) = match ended {
            Ok(healed) => return Ok(Ended::Done(healed)),
            Err(failed) => failed,
        };
        let rolled_back = self.mirror.run(&[b"ROLLBACK".to_vec()], self.hold).await;
        if rolled_back.is_err() {
            self.mirror.drop_conn();
        }
        if !matches!(fault, Fault::Duplicate) || how == How::Replacing {
            return Err(fault);
        }
        let (_, mirror) = self.reads(name, table);
        let rows: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
        let Some(sql) = mirror.holders(&rows).map_err(unwritable)? else {
            return Ok(Ended::Holders(Vec::new()));
        };
        let sets = self.mirror.run(&[sql], LOOK_MAX).await?;
        let images = images(sets.into_iter().flatten(), table).ok_or_else(|| unreadable(name))?;
        let keys: Result<Vec<Bound>, Unwritable> = images
            .iter()
            .map(|row| Bound::of(row, &table.key, &table.shape))
            .collect();
        Ok(Ended::Holders(keys.map_err(unwritable)?))
    }

    /// Locks, reads, writes, commits. With a fault come the rows that were to
    /// be written.
    async fn under_lock(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
        how: How,
    ) -> Result<Vec<Healed>, (Vec<Vec<Value>>, Fault)> {
        let early = |fault| (Vec::new(), fault);
        let (active, mirror) = self.reads(name, table);
        let lock = vec![
            b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_vec(),
            b"START TRANSACTION".to_vec(),
        ];
        let (locked, plain) = ((Lock::Exclusive, self.hold), (Lock::None, self.hold));
        let theirs = rows::by_key(&mut self.mirror, mirror, lock, keys, locked).await;
        let theirs = theirs.map_err(early)?;
        let ours = rows::by_key(&mut self.active, active, Vec::new(), keys, plain).await;
        let ours = ours.map_err(early)?;
        let cross = self.is_cross();
        let mut healed = Vec::with_capacity(keys.len());
        let (mut changes, mut rows, mut updated) = (Vec::new(), Vec::new(), Vec::new());
        // Two keys can be one row to the server.
        let mut written: HashSet<Bound> = HashSet::new();
        for ((key, ours), theirs) in keys.iter().zip(ours).zip(theirs) {
            let mut pairs = ours.iter().zip(&theirs);
            if ours.len() == theirs.len() && pairs.all(|(a, b)| sql::same(table, a, b, cross)) {
                healed.push(Healed::Equal);
                continue;
            }
            healed.push(Healed::Repaired(
                match (ours.is_empty(), theirs.is_empty()) {
                    (true, _) => Kind::Extra,
                    (_, true) => Kind::Missing,
                    _ => Kind::Changed,
                },
            ));
            if let (How::InPlace, [ours], [theirs]) = (how, &ours[..], &theirs[..])
                && sql::keeps_keys(table, ours, theirs)
            {
                let update = sql::update(name, table, key, ours);
                changes.push(update.map_err(|e| early(unwritable(e)))?);
                updated.push(ours.clone());
                continue;
            }
            if !theirs.is_empty() {
                changes.push(sql::delete(name, table, key));
            }
            for row in ours {
                let bound = Bound::of(&row, &table.key, &table.shape);
                if written.insert(bound.map_err(|e| early(unwritable(e)))?) {
                    rows.push(row);
                }
            }
        }
        if changes.is_empty() && rows.is_empty() {
            let ended = self.mirror.run(&[b"ROLLBACK".to_vec()], self.hold).await;
            return ended.map(|_| healed).map_err(early);
        }
        let mut write = vec![self.mark()];
        write.append(&mut changes);
        let inserts = sql::inserts(name, table, &rows, how == How::Replacing);
        write.append(&mut inserts.map_err(|e| early(unwritable(e)))?);
        write.push(b"COMMIT".to_vec());
        match self.mirror.run(&write, self.hold).await {
            Ok(_) => Ok(healed),
            Err(fault) => {
                if matches!(fault, Fault::Slow | Fault::Lost(_)) {
                    let repaired = |(key, healed): (&&Bound, Healed)| match healed {
                        Healed::Repaired(kind) => Some(((*key).clone(), kind)),
                        _ => None,
                    };
                    self.untold
                        .extend(keys.iter().zip(healed).filter_map(repaired));
                }
                rows.append(&mut updated);
                Err((rows, fault))
            }
        }
    }

    /// The first write of a transaction: a follower of the mirror knows it as
    /// ours by it.
    fn mark(&mut self) -> Vec<u8> {
        self.token += 1;
        mark::sql(&self.stream, self.number, self.token)
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

/// Keys in the next look, by what this one weighed.
fn next_size(keys: usize, bytes: usize, size: usize) -> usize {
    let each = (bytes / keys.max(1)).max(1);
    // At most doubled: the next rows may be longer.
    (LOOK_BYTES / each).min(size * 2).clamp(1, LOOK_KEYS)
}

fn images(
    rows: impl Iterator<Item = Vec<mysql_async::Value>>,
    table: &Followed,
) -> Option<Vec<Vec<Value>>> {
    rows.map(|row| select::image(row, &table.shape)).collect()
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
