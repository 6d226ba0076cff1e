//! A batch in heal mode: events only say which rows to look at.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::batch::{Batch, Operation, TableBatch, TableName};
use super::family::Families;
use super::heal::{Healed, Healer, Kind};
use super::retry::{RETRY_MAX, Retry, RowKey};
use super::tables::{Followed, Meaning, Tables};
use super::writer::WriteError;
use super::{Status, join_all};
use crate::binlog::Value;
use crate::copy::select::Bound;
use crate::telemetry::Seldom;

/// The healers of a follower, and the rows they have yet to heal.
pub(super) struct Healing {
    healers: Vec<Healer>,
    pub(super) retry: Retry,
    /// Parents in the batch whose children are to be looked at.
    pub(super) families: Families,
    /// Most rows of the last batch were wrong on the mirror: it has been away.
    /// To look first would be to look in vain.
    behind: bool,
    /// Of the batch: rows looked at, and rows that were wrong.
    counted: (u64, u64),
    status: Arc<Status>,
}

/// Rows in a batch from which on it says something about the mirror.
const TELLING: u64 = 32;

/// Rows of one table that are to be healed.
struct Wanted {
    name: Arc<TableName>,
    table: Arc<Followed>,
    keys: Vec<Bound>,
}

const UNKNOWN: &str = "its definition is not known";

fn followed(tables: &dyn Tables, name: &TableName) -> Result<Arc<Followed>, WriteError> {
    match tables.meaning(name) {
        Meaning::Follow(table) => Ok(table),
        _ => Err(WriteError::Refused {
            table: name.to_string(),
            error: UNKNOWN.to_owned(),
        }),
    }
}

/// The keys of a batch's rows.
fn keys_of(
    name: &TableName,
    table: &Followed,
    batch: &TableBatch,
) -> Result<Vec<Bound>, WriteError> {
    let key = |operation: &Operation| {
        let (Operation::Put(image) | Operation::Delete(image)) = operation;
        Bound::of(image, &table.key, &table.shape)
    };
    let keys: Result<Vec<Bound>, _> = batch.rows.values().map(key).collect();
    keys.map_err(|error| WriteError::Unwritable {
        table: name.to_string(),
        error,
    })
}

/// All rows of a part, without a look at them.
fn all(tables: &dyn Tables, part: Vec<TableBatch>) -> Result<Vec<Wanted>, WriteError> {
    let wanted = part.into_iter().map(|batch| {
        let table = followed(tables, &batch.name)?;
        let keys = keys_of(&batch.name, &table, &batch)?;
        Ok(Wanted {
            name: Arc::new(batch.name),
            table,
            keys,
        })
    });
    wanted.collect()
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
        let keys = keys_of(&batch.name, &table, &batch)?;
        let name = Arc::new(batch.name);
        let rows = batch.rows.values().map(|operation| match operation {
            Operation::Put(image) => Some(image.as_slice()),
            Operation::Delete(_) => None,
        });
        let expected: Vec<Option<&[Value]>> = rows.collect();
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

/// `locked`: at once, without a look before.
async fn heal(
    healer: &mut Healer,
    wanted: Vec<Wanted>,
    locked: bool,
) -> Result<Vec<(RowKey, Healed)>, WriteError> {
    let mut all = Vec::new();
    for Wanted { name, table, keys } in wanted {
        let healed = if locked {
            let keys: Vec<&Bound> = keys.iter().collect();
            healer.repair(&name, &table, &keys).await?
        } else {
            healer.heal(&name, &table, &keys).await?
        };
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
            behind: false,
            counted: (0, 0),
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
        let locked = self.behind;
        self.counted = (0, 0);
        let left = if locked {
            let wanted = parts.into_iter().map(|part| all(tables, part));
            wanted.collect::<Result<Vec<_>, _>>()?
        } else {
            self.look(tables, parts).await?
        };
        if left.iter().any(|w| !w.is_empty()) || !self.families.is_empty() {
            // Their events may not be readable yet.
            if let Some(first) = self.healers.first_mut() {
                first.watermark().await?;
                self.status.heal.watermarks.fetch_add(1, Ordering::Relaxed);
            }
            self.heal(left, number, locked).await?;
        }
        let (rows, wrong) = self.counted;
        if rows >= TELLING || wrong == 0 {
            self.behind = wrong * 2 > rows;
        }
        self.children(tables, number).await?;
        self.drain(tables).await?;
        self.tell();
        Ok(())
    }

    /// Makes room among the rows that wait.
    async fn drain(&mut self, tables: &dyn Tables) -> Result<(), WriteError> {
        while self.retry.len() > RETRY_MAX {
            if let Some(due) = self.retry.next_due() {
                tokio::time::sleep_until(due.into()).await;
            }
            self.again(tables).await?;
        }
        Ok(())
    }

    /// What of the parts is not proven equal.
    async fn look(
        &mut self,
        tables: &dyn Tables,
        parts: Vec<Vec<TableBatch>>,
    ) -> Result<Vec<Vec<Wanted>>, WriteError> {
        let pairs = self.healers.iter_mut().zip(parts);
        let looks = pairs.map(|(healer, part)| look(healer, tables, part));
        let mut left = Vec::new();
        for looked in join_all(looks.collect()).await {
            let (wanted, equal) = looked?;
            let count = equal.len() as u64;
            self.counted.0 += count;
            self.status.heal.equal.fetch_add(count, Ordering::Relaxed);
            equal.iter().for_each(|key| self.retry.healed(key));
            left.push(wanted);
        }
        Ok(left)
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
            self.heal(wanted, number, false).await?;
            self.drain(tables).await?;
        }
        Ok(())
    }

    /// Tries again what is due. Its events have been readable since its first
    /// try, but for what an earlier process left.
    pub(super) async fn again(&mut self, tables: &dyn Tables) -> Result<(), WriteError> {
        let began = Instant::now();
        let ways = self.healers.len().max(1);
        let (due, mut locked) = self.retry.due(ways);
        let oldest = self.retry.oldest().unwrap_or_default();
        let mut parts: Vec<HashMap<Arc<TableName>, Vec<Bound>>> = vec![HashMap::new(); ways];
        for (i, key) in due.into_iter().enumerate() {
            if self.is_known(tables, &key, oldest)
                && let Some(part) = parts.get_mut(i % ways)
            {
                part.entry(key.0).or_default().push(key.1);
            }
        }
        locked.retain(|key| self.is_known(tables, key, oldest));
        let mut wanted = Vec::with_capacity(ways);
        for part in parts {
            let tables_of = part.into_iter().map(|(name, keys)| {
                let table = followed(tables, &name)?;
                Ok(Wanted { name, table, keys })
            });
            wanted.push(tables_of.collect::<Result<Vec<_>, WriteError>>()?);
        }
        if oldest == 0
            && let Some(first) = self.healers.first_mut()
        {
            first.watermark().await?;
        }
        self.heal(wanted, oldest, false).await?;
        self.wait(tables, locked, oldest).await?;
        self.retry.tried(began.elapsed());
        self.tell();
        Ok(())
    }

    /// Whether the table of a row that waits can be healed. One that is gone
    /// takes its rows along; rows of one that cannot be followed now are kept.
    fn is_known(&mut self, tables: &dyn Tables, key: &RowKey, batch: u64) -> bool {
        match tables.meaning(&key.0) {
            Meaning::Follow(_) => return true,
            Meaning::Stop(_) if tables.is_gone(&key.0) => {
                static SAID: Seldom = Seldom::new();
                if SAID.now() {
                    let table = key.0.to_string();
                    tracing::warn!(
                        table,
                        "rows that were to be healed are gone with their table"
                    );
                }
                self.retry.healed(key);
            }
            _ => self.note(key.clone(), Healed::Refused(UNKNOWN.into()), batch),
        }
        false
    }

    /// Waits for rows that are always locked, each healer for one.
    async fn wait(
        &mut self,
        tables: &dyn Tables,
        locked: Vec<RowKey>,
        oldest: u64,
    ) -> Result<(), WriteError> {
        if locked.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let mut waits = Vec::with_capacity(locked.len());
        for (healer, key) in self.healers.iter_mut().zip(locked) {
            let table = followed(tables, &key.0)?;
            waits.push(async move {
                let healed = healer.wait(&key.0, &table, &key.1).await?;
                Ok::<_, WriteError>((key, healed))
            });
        }
        for healed in join_all(waits).await {
            let (key, healed) = healed?;
            self.note(key, healed, oldest);
        }
        self.retry.waited(began.elapsed());
        Ok(())
    }

    async fn heal(
        &mut self,
        wanted: Vec<Vec<Wanted>>,
        number: u64,
        locked: bool,
    ) -> Result<(), WriteError> {
        let pairs = self.healers.iter_mut().zip(wanted);
        let heals = pairs.map(|(healer, wanted)| heal(healer, wanted, locked));
        for healed in join_all(heals.collect()).await {
            for (key, healed) in healed? {
                self.note(key, healed, number);
            }
        }
        Ok(())
    }

    /// Counts what became of a row that was asked for with this batch.
    fn note(&mut self, key: RowKey, healed: Healed, number: u64) {
        let status = &self.status.heal;
        let counter = match &healed {
            Healed::Equal => &status.equal,
            Healed::Repaired(Kind::Changed) => &status.changed,
            Healed::Repaired(Kind::Missing) => &status.missing,
            Healed::Repaired(Kind::Extra) => &status.extra,
            Healed::Busy => &status.busy,
            Healed::Refused(_) => &status.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.counted.0 += 1;
        self.counted.1 += u64::from(matches!(healed, Healed::Repaired(_)));
        if let Healed::Refused(why) = &healed {
            *status.refusal.lock() = Some(format!("{}: {why}", key.0));
        }
        match healed {
            Healed::Equal | Healed::Repaired(_) => self.retry.healed(&key),
            Healed::Busy => self.retry.add(key, number, true),
            Healed::Refused(_) => self.retry.add(key, number, false),
        }
    }

    fn tell(&self) {
        let pending = self.retry.len() as u64;
        self.status.heal.pending.store(pending, Ordering::Relaxed);
    }
}
