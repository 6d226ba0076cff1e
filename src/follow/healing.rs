//! A batch in heal mode: events only say which rows to look at.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch::{Batch, Operation, TableBatch, TableName};
use super::family::Families;
use super::heal::{Healed, Healer, Kind};
use super::retry::{Retry, RowKey};
use super::tables::{Followed, Meaning, Tables};
use super::writer::WriteError;
use super::{Status, join_all};
use crate::binlog::Value;
use crate::copy::select::Bound;

/// The healers of a follower, and the rows they have yet to heal.
pub(super) struct Healing {
    healers: Vec<Healer>,
    pub(super) retry: Retry,
    /// Parents in the batch whose children are to be looked at.
    pub(super) families: Families,
    status: Arc<Status>,
}

/// Rows of one table that are to be healed.
struct Wanted {
    name: Arc<TableName>,
    table: Arc<Followed>,
    keys: Vec<Bound>,
}

fn followed(tables: &dyn Tables, name: &TableName) -> Result<Arc<Followed>, WriteError> {
    match tables.meaning(name) {
        Meaning::Follow(table) => Ok(table),
        _ => Err(WriteError::Refused {
            table: name.to_string(),
            error: "its definition is not known".to_owned(),
        }),
    }
}

/// Looks at the rows of a part without holding locks; what is not proven equal
/// is returned.
async fn look(
    healer: &mut Healer,
    tables: &dyn Tables,
    part: Vec<TableBatch>,
) -> Result<(Vec<Wanted>, Vec<RowKey>), WriteError> {
    let (mut wanted, mut equal) = (Vec::new(), Vec::new());
    for batch in part {
        let table = followed(tables, &batch.name)?;
        let name = Arc::new(batch.name);
        let mut keys = Vec::with_capacity(batch.rows.len());
        let mut expected: Vec<Option<&[Value]>> = Vec::with_capacity(batch.rows.len());
        for operation in batch.rows.values() {
            let (image, row) = match operation {
                Operation::Put(image) => (image, Some(image.as_slice())),
                Operation::Delete(image) => (image, None),
            };
            let bound = Bound::of(image, &table.key, &table.shape);
            keys.push(bound.map_err(|error| WriteError::Unwritable {
                table: name.to_string(),
                error,
            })?);
            expected.push(row);
        }
        let asked: Vec<&Bound> = keys.iter().collect();
        let proven = healer.look(&name, &table, &asked, &expected).await?;
        let mut left = Vec::new();
        for (key, proven) in keys.into_iter().zip(proven) {
            if proven {
                equal.push((name.clone(), key));
            } else {
                left.push(key);
            }
        }
        if !left.is_empty() {
            wanted.push(Wanted {
                name,
                table,
                keys: left,
            });
        }
    }
    Ok((wanted, equal))
}

async fn heal(
    healer: &mut Healer,
    wanted: Vec<Wanted>,
) -> Result<Vec<(RowKey, Healed)>, WriteError> {
    let mut all = Vec::new();
    for Wanted { name, table, keys } in wanted {
        let healed = healer.heal(&name, &table, &keys).await?;
        let keys = keys.into_iter().map(|key| (name.clone(), key));
        all.extend(keys.zip(healed));
    }
    Ok(all)
}

impl Healing {
    pub(super) fn new(healers: Vec<Healer>, retry: Retry, status: Arc<Status>) -> Healing {
        let healing = Healing {
            healers,
            retry,
            families: Families::default(),
            status,
        };
        healing.tell();
        healing
    }

    /// Closes the connections until they are needed again.
    pub(super) fn rest(&mut self) {
        self.healers.iter_mut().for_each(Healer::rest);
    }

    /// Whether there are healers.
    pub(super) fn heals(&self) -> bool {
        !self.healers.is_empty()
    }

    /// Whether rows wait for a healer of this.
    pub(super) fn is_waiting(&self) -> bool {
        self.heals() && self.retry.len() > 0
    }

    /// Heals the rows of a batch, its parts at the same time. What is busy or
    /// refused is in the retry set then.
    pub(super) async fn batch(
        &mut self,
        tables: &dyn Tables,
        batch: Batch,
        number: u64,
    ) -> Result<(), WriteError> {
        let parts = batch.split(self.healers.len());
        let pairs = self.healers.iter_mut().zip(parts);
        let looks = pairs.map(|(healer, part)| look(healer, tables, part));
        let mut left = Vec::new();
        for looked in join_all(looks.collect()).await {
            let (wanted, equal) = looked?;
            let count = equal.len() as u64;
            self.status.heal.equal.fetch_add(count, Ordering::Relaxed);
            equal.iter().for_each(|key| self.retry.healed(key));
            left.push(wanted);
        }
        if left.iter().any(|w| !w.is_empty()) || !self.families.is_empty() {
            // Their events may not be readable yet.
            if let Some(first) = self.healers.first_mut() {
                first.watermark().await?;
                self.status.heal.watermarks.fetch_add(1, Ordering::Relaxed);
            }
            self.heal(left, number).await?;
        }
        self.children(tables, number).await?;
        self.tell();
        Ok(())
    }

    /// Heals the children of parents in the batch.
    async fn children(&mut self, tables: &dyn Tables, number: u64) -> Result<(), WriteError> {
        while let Some(first) = self.healers.first_mut()
            && let Some((name, table, keys)) = self.families.next(first, tables).await?
        {
            let each = keys.len().div_ceil(self.healers.len()).max(1);
            let part = |keys: &[Bound]| {
                vec![Wanted {
                    name: name.clone(),
                    table: table.clone(),
                    keys: keys.to_vec(),
                }]
            };
            let wanted = keys.chunks(each).map(part).collect();
            self.heal(wanted, number).await?;
        }
        Ok(())
    }

    /// Tries again what is due. Its events have been readable since its first
    /// try, but for what an earlier process left.
    pub(super) async fn again(&mut self, tables: &dyn Tables) -> Result<(), WriteError> {
        let due = self.retry.due();
        let ways = self.healers.len().max(1);
        let mut parts: Vec<HashMap<Arc<TableName>, Vec<Bound>>> = vec![HashMap::new(); ways];
        for (i, (name, key)) in due.into_iter().enumerate() {
            if let Some(part) = parts.get_mut(i % ways) {
                part.entry(name).or_default().push(key);
            }
        }
        let mut wanted = Vec::with_capacity(ways);
        for part in parts {
            let tables_of = part.into_iter().map(|(name, keys)| {
                let table = followed(tables, &name)?;
                Ok(Wanted { name, table, keys })
            });
            wanted.push(tables_of.collect::<Result<Vec<_>, WriteError>>()?);
        }
        let oldest = self.retry.oldest().unwrap_or_default();
        if oldest == 0
            && let Some(first) = self.healers.first_mut()
        {
            first.watermark().await?;
        }
        self.heal(wanted, oldest).await?;
        self.tell();
        Ok(())
    }

    async fn heal(&mut self, wanted: Vec<Vec<Wanted>>, number: u64) -> Result<(), WriteError> {
        let pairs = self.healers.iter_mut().zip(wanted);
        let heals = pairs.map(|(healer, wanted)| heal(healer, wanted));
        let status = &self.status.heal;
        for healed in join_all(heals.collect()).await {
            for (key, healed) in healed? {
                let counter = match &healed {
                    Healed::Equal => &status.equal,
                    Healed::Repaired(Kind::Changed) => &status.changed,
                    Healed::Repaired(Kind::Missing) => &status.missing,
                    Healed::Repaired(Kind::Extra) => &status.extra,
                    Healed::Busy => &status.busy,
                    Healed::Refused(_) => &status.refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Healed::Refused(why) = &healed {
                    *status.refusal.lock() = Some(format!("{}: {why}", key.0));
                }
                match healed {
                    Healed::Equal | Healed::Repaired(_) => self.retry.healed(&key),
                    Healed::Busy | Healed::Refused(_) => self.retry.add(key, number),
                }
            }
        }
        Ok(())
    }

    fn tell(&self) {
        let pending = self.retry.len() as u64;
        self.status.heal.pending.store(pending, Ordering::Relaxed);
    }
}
