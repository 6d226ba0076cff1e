//! Healing while the mirror's rows are locked.

use std::collections::HashSet;
use std::time::Instant;

use super::link::Fault;
use super::rows::{self, ByKey};
use super::sql::{self, How, Lock, ROUNDS_MAX};
use super::{
    ATTEMPTS_MAX, HOLD_MAX, Healed, Healer, Kind, LOCKED_KEYS, LOCKED_KEYS_MAX, LOOK_MAX, PAUSE,
    WAIT_MAX, images, refused, unreadable, unwritable,
};
use crate::binlog::Value;
use crate::copy::select::Bound;
use crate::follow::batch::TableName;
use crate::follow::mark;
use crate::follow::tables::Followed;
use crate::follow::writer::WriteError;
use crate::rows::literal::Unwritable;

/// What took too long is tried in as many parts, after one row of it.
const SLOW_PARTS: usize = 4;

/// How an attempt under lock ended.
enum Ended {
    Done(Vec<Healed>),
    /// Somebody has a lock on one of the rows.
    Locked,
    /// The whole takes too long.
    Slow,
    /// These hold unique values of the rows.
    Holders(Vec<Bound>),
    Refused(String),
}

/// What an attempt under lock met.
struct Failed {
    fault: Fault,
    /// Rows that were to be written.
    rows: Vec<Vec<Value>>,
    /// Keys whose rows were equal.
    equal: Vec<Bound>,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed {
            fault,
            rows: Vec::new(),
            equal: Vec::new(),
        }
    }
}

/// What brings some rows of the mirror to the active side's.
struct Changes {
    /// What becomes of each key.
    healed: Vec<Healed>,
    /// Updates and deletes.
    statements: Vec<Vec<u8>>,
    /// Rows to be inserted behind them.
    rows: Vec<Vec<Value>>,
    /// Rows that the updates write.
    updated: Vec<Vec<Value>>,
}

impl Changes {
    fn of(
        name: &TableName,
        table: &Followed,
        (keys, ours, theirs): (&[&Bound], &ByKey, &ByKey),
        (how, cross): (How, bool),
    ) -> Result<Changes, Unwritable> {
        let mut changes = Changes {
            healed: Vec::with_capacity(keys.len()),
            statements: Vec::new(),
            rows: Vec::new(),
            updated: Vec::new(),
        };
        // Two keys can be one row to the server.
        let mut written: HashSet<Bound> = HashSet::new();
        for ((key, ours), theirs) in keys.iter().zip(ours).zip(theirs) {
            let mut pairs = ours.iter().zip(theirs);
            if ours.len() == theirs.len() && pairs.all(|(a, b)| sql::same(table, a, b, cross)) {
                changes.healed.push(Healed::Equal);
                continue;
            }
            let kind = match (ours.is_empty(), theirs.is_empty()) {
                (true, _) => Kind::Extra,
                (_, true) => Kind::Missing,
                _ => Kind::Changed,
            };
            changes.healed.push(Healed::Repaired(kind));
            if let (How::InPlace, [ours], [theirs]) = (how, &ours[..], &theirs[..])
                && sql::keeps_keys(table, ours, theirs)
            {
                changes
                    .statements
                    .push(sql::update(name, table, key, ours)?);
                changes.updated.push(ours.clone());
                continue;
            }
            if !theirs.is_empty() {
                changes.statements.push(sql::delete(name, table, key));
            }
            for row in ours {
                if written.insert(Bound::of(row, &table.key, &table.shape)?) {
                    changes.rows.push(row.clone());
                }
            }
        }
        Ok(changes)
    }

    fn failed(&mut self, fault: Fault, keys: &[&Bound]) -> Failed {
        let equal = keys.iter().zip(&self.healed);
        let equal = equal.filter(|(_, healed)| **healed == Healed::Equal);
        let mut rows = std::mem::take(&mut self.rows);
        rows.append(&mut self.updated);
        Failed {
            fault,
            rows,
            equal: equal.map(|(key, _)| (*key).clone()).collect(),
        }
    }
}

impl Healer {
    /// Heals a row that is mostly locked by others: waits for its lock, up to a
    /// second each for one that is shared and, where the row differs, for one
    /// that is not.
    ///
    /// # Errors
    /// As [`Healer::heal`].
    pub async fn wait(
        &mut self,
        name: &TableName,
        table: &Followed,
        key: &Bound,
    ) -> Result<Healed, WriteError> {
        match self.try_shared(name, table, key).await {
            Ok(true) => return Ok(Healed::Equal),
            Ok(false) => {}
            Err(fault) => {
                // Its lock, and how long it waits for one, end with it.
                self.mirror.drop_conn();
                match fault {
                    Fault::Locked | Fault::Slow => return Ok(Healed::Busy),
                    Fault::Lost(_) => {}
                    fault => return Err(refused(name, fault)),
                }
            }
        }
        self.patient = true;
        let healed = self.lock_and_heal(name, table, &[key]).await;
        self.patient = false;
        Ok(healed?.pop().unwrap_or(Healed::Busy))
    }

    /// Whether the row is equal, M's locked so that others may lock it too.
    async fn try_shared(
        &mut self,
        name: &TableName,
        table: &Followed,
        key: &Bound,
    ) -> Result<bool, Fault> {
        self.ready().await?;
        let (active, mirror) = self.reads(name, table);
        let (shared, plain) = ((Lock::SharedWait, WAIT_MAX), (Lock::None, self.hold));
        let mut lock = vec![self.mirror.lock_wait(true).into()];
        lock.push(b"START TRANSACTION".to_vec());
        let theirs = rows::by_key(&mut self.mirror, mirror, lock, &[key], shared).await?;
        let ours = rows::by_key(&mut self.active, active, Vec::new(), &[key], plain).await?;
        let ended = [b"ROLLBACK".to_vec(), self.mirror.lock_wait(false).into()];
        self.mirror.run(&ended, self.hold).await?;
        let cross = self.is_cross();
        let mut pairs = ours.iter().flatten().zip(theirs.iter().flatten());
        Ok(ours.iter().map(Vec::len).eq(theirs.iter().map(Vec::len))
            && pairs.all(|(a, b)| sql::same(table, a, b, cross)))
    }

    /// Begins one on M, with our mark as its first write: a follower of M knows it
    /// as ours by that. An earlier one of this healer that was given up, or was
    /// another process's, and has yet to end there, has the mark's row locked:
    /// 1. it reads A's row, and sends its write; the answer is lost;
    /// 2. the row changes on A, and is healed by the next;
    /// 3. M executes what was sent in 1.
    fn transaction(&mut self, patient: bool) -> Vec<Vec<u8>> {
        let mut begin = vec![b"START TRANSACTION".to_vec(), self.mark()];
        if patient {
            begin.insert(0, self.mirror.lock_wait(true).into());
        }
        begin
    }

    /// Heals a few keys under lock; where one of them is locked by another, or
    /// refused, each half by itself.
    pub(super) async fn lock_and_heal(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
    ) -> Result<Vec<Healed>, WriteError> {
        self.untold.clear();
        let mut healed = Vec::with_capacity(keys.len());
        let mut whole = true;
        // The next on top.
        let mut left = vec![keys];
        while let Some(part) = left.pop() {
            match self.together(name, table, part).await? {
                Ended::Done(done) => healed.extend(done),
                Ended::Refused(error) if part.len() < 2 => {
                    whole = false;
                    healed.push(Healed::Refused(error.into()));
                }
                Ended::Slow if part.len() < 2 => {
                    // Not each of them has to find out: ending a statement is
                    // slow, too, where the server is.
                    whole = false;
                    healed.resize(keys.len(), Healed::Busy);
                    left.clear();
                }
                _ if part.len() < 2 => {
                    whole = false;
                    healed.push(Healed::Busy);
                }
                Ended::Slow => {
                    whole = false;
                    let (one, rest) = part.split_at(1);
                    left.extend(rest.chunks(part.len().div_ceil(SLOW_PARTS)).rev());
                    left.push(one);
                }
                _ => {
                    whole = false;
                    let (first, second) = part.split_at(part.len() / 2);
                    left.extend([second, first]);
                }
            }
        }
        self.locked = match whole && self.hold == self.first_hold {
            true => (self.locked * 2).min(LOCKED_KEYS_MAX),
            false => LOCKED_KEYS,
        };
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
            let began = Instant::now();
            let fault = match self.try_heal(name, table, &all, how).await {
                Ok(Ended::Holders(found)) => {
                    round += 1;
                    let known: HashSet<&Bound> = all.iter().copied().collect();
                    let new: Vec<Bound> =
                        found.into_iter().filter(|b| !known.contains(b)).collect();
                    // Once more: the row itself may have come to be just now.
                    if (new.is_empty() && round > 1) || beside.len() > LOCKED_KEYS_MAX {
                        // A unique key of a kind that cannot be asked for.
                        round = ROUNDS_MAX;
                    }
                    beside.extend(new);
                    continue;
                }
                Ok(Ended::Done(mut done)) => {
                    if !self.patient {
                        // Of three steps, so that each has room.
                        self.hold = began.elapsed().clamp(self.first_hold, HOLD_MAX);
                    }
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
                    return Ok(Ended::Slow);
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
        let Failed { fault, rows, equal } = match self.under_lock(name, table, keys, how).await {
            Ok(healed) => return Ok(Ended::Done(healed)),
            Err(failed) => failed,
        };
        // A patient one may be left so.
        if self.patient || self.mirror.rollback(self.hold).await.is_err() {
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
        let holders: Result<Vec<Bound>, Unwritable> = images
            .iter()
            .map(|row| Bound::of(row, &table.key, &table.shape))
            .collect();
        let holders = holders.map_err(unwritable)?;
        if holders.iter().any(|holder| equal.contains(holder)) {
            // To take it away from that row would make that one differ.
            let why = "a unique value that the mirror has in another row, which is right";
            return Ok(Ended::Refused(why.to_owned()));
        }
        Ok(Ended::Holders(holders))
    }

    /// Locks, reads, writes, commits.
    async fn under_lock(
        &mut self,
        name: &TableName,
        table: &Followed,
        keys: &[&Bound],
        how: How,
    ) -> Result<Vec<Healed>, Failed> {
        // Waiting for one it would hold the others.
        let patient = self.patient && keys.len() == 1;
        let lock = self.transaction(patient);
        let (active, mirror) = self.reads(name, table);
        let (locked, plain) = if patient {
            ((Lock::ExclusiveWait, WAIT_MAX), (Lock::None, self.hold))
        } else {
            ((Lock::Exclusive, self.hold), (Lock::None, self.hold))
        };
        let theirs = rows::by_key(&mut self.mirror, mirror, lock, keys, locked).await?;
        if patient {
            // From here on a lock is held.
            let no_more = [self.mirror.lock_wait(false).into()];
            self.mirror.run(&no_more, self.hold).await?;
        }
        let ours = rows::by_key(&mut self.active, active, Vec::new(), keys, plain).await?;
        let found = (keys, &ours, &theirs);
        let changes = Changes::of(name, table, found, (how, self.is_cross()));
        let mut changes = changes.map_err(unwritable)?;
        let mut write = std::mem::take(&mut changes.statements);
        let inserts = sql::inserts(name, table, &changes.rows, how == How::Replacing);
        write.append(&mut inserts.map_err(unwritable)?);
        if write.is_empty() {
            self.mirror.rollback(self.hold).await?;
            return Ok(changes.healed);
        }
        if !changes.rows.is_empty() {
            let written = self.mirror.run(&write, self.hold).await;
            written.map_err(|fault| changes.failed(fault, keys))?;
            write.clear();
            // Nothing kept others from the row before it was there.
            let (active, _) = self.reads(name, table);
            let now = rows::by_key(&mut self.active, active, Vec::new(), keys, plain).await?;
            if now != ours {
                return Err(Fault::Locked.into());
            }
        }
        write.push(b"COMMIT".to_vec());
        match self.mirror.run(&write, self.hold).await {
            Ok(_) => Ok(changes.healed),
            Err(fault) => {
                if matches!(fault, Fault::Slow | Fault::Lost(_)) {
                    let repaired = |(key, healed): (&&Bound, &Healed)| match healed {
                        Healed::Repaired(kind) => Some(((*key).clone(), *kind)),
                        _ => None,
                    };
                    let repaired = keys.iter().zip(&changes.healed).filter_map(repaired);
                    self.untold.extend(repaired);
                }
                Err(changes.failed(fault, keys))
            }
        }
    }

    fn mark(&mut self) -> Vec<u8> {
        self.token += 1;
        mark::sql(&self.stream, self.number, self.token)
    }
}
