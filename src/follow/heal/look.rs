//! Reads of both sides that hold nothing.

use super::found::Found;
use super::link::{Fault, Rows};
use super::sql::{Literals, Lock};
use super::{
    ATTEMPTS_MAX, FAMILY_ROWS, Healer, LOOK_BYTES, LOOK_KEYS, LOOK_MAX, PAUSE, images, refused,
    unreadable,
};
use crate::binlog::Value;
use crate::copy::select::Bound;
use crate::follow::batch::TableName;
use crate::follow::tables::Followed;
use crate::follow::writer::WriteError;

impl Healer {
    /// Rows of one side whose `columns` have one of the values, a page behind
    /// `after`, in the key's order. Takes no lock.
    pub(in crate::follow) async fn family(
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
    pub(in crate::follow) async fn look(
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
}

/// Keys in the next look, by what this one weighed.
fn next_size(keys: usize, bytes: usize, size: usize) -> usize {
    let each = (bytes / keys.max(1)).max(1);
    // At most doubled: the next rows may be longer.
    (LOOK_BYTES / each).min(size * 2).clamp(1, LOOK_KEYS)
}
