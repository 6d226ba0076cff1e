//! Compares chunks, and narrows one that differs down to rows.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use crate::rows::digest::Strength;

use super::reader::{Id, Listed, ReadError};
use super::settle::Item;
use super::table::{Buckets, Extent, Order, Table};
use super::walk::{Chunk, Walk};
use super::{CompareError, Comparer, Pair, Verdict, pause};

/// Rows that are listed at once, without buckets before.
const LIST_ROWS: u64 = 1_000;

/// Rows in a bucket, about: small enough that a chunk in which few rows differ
/// has few rows listed.
const BUCKET_ROWS: u64 = 250;

/// Buckets of one chunk: a query's answer of a few megabytes.
const BUCKETS_MAX: u32 = 1 << 17;

/// Rows listed in one pass, of each side: about 100 bytes each here.
const PASS_ROWS: u64 = 100_000;

/// Rows in a pass over a table that is read as a whole because of its key and
/// row by row because of its JSON.
const FETCHED_PASS_ROWS: u64 = 20_000;

/// What a chunk's first look showed.
pub(super) struct Looked {
    pub(super) rows: u64,
    pub(super) took: Duration,
}

/// Both answers, or the first error.
fn both<T>(answers: (Result<T, ReadError>, Result<T, ReadError>)) -> Result<[T; 2], ReadError> {
    Ok([answers.0?, answers.1?])
}

impl Pair {
    /// Both sides' rows and digest, asked at the same time.
    pub(super) async fn sums(
        &mut self,
        table: &Table,
        extent: &Extent,
        strength: Strength,
    ) -> Result<[super::reader::Sum; 2], ReadError> {
        let sql = |side| table.digest(side, extent, strength);
        both(tokio::join!(
            self.active.sum(sql(0), strength),
            self.mirror.sum(sql(1), strength)
        ))
    }

    /// The buckets that differ, each with the rows of the larger side.
    async fn differing(
        &mut self,
        table: &Table,
        extent: &Extent,
        strength: Strength,
        of: u32,
    ) -> Result<Vec<(u32, u64)>, ReadError> {
        let sql = |side| table.buckets(side, extent, strength, of);
        let [active, mut mirror] = both(tokio::join!(
            self.active.sums(sql(0), strength),
            self.mirror.sums(sql(1), strength)
        ))?;
        let mut differing = Vec::new();
        for (bucket, sum) in active {
            let theirs = mirror.remove(&bucket).unwrap_or_default();
            if sum != theirs {
                differing.push((bucket, sum.rows.max(theirs.rows)));
            }
        }
        differing.extend(mirror.into_iter().map(|(bucket, sum)| (bucket, sum.rows)));
        differing.sort_unstable();
        Ok(differing)
    }

    /// Lists both sides' rows: how many the active has, and those that differ.
    async fn list(
        &mut self,
        table: &Table,
        extent: &Extent,
        buckets: Option<Buckets<'_>>,
    ) -> Result<(u64, Vec<Listed>), ReadError> {
        let sql = |side| table.rows(side, extent, buckets);
        let [active, mirror] = both(tokio::join!(
            self.active.listed(table, 0, sql(0)),
            self.mirror.listed(table, 1, sql(1))
        ))?;
        let rows = active.len() as u64;
        let mut left: HashMap<Id, Listed> = active.into_iter().map(|r| (r.seen.id, r)).collect();
        let mut differing = Vec::new();
        let mut extra = Vec::new();
        for theirs in mirror {
            match left.remove(&theirs.seen.id) {
                // Behind the window's end on the mirror: the next window's.
                _ if theirs.later => {}
                Some(ours) if ours.seen.digest == theirs.seen.digest => {}
                Some(ours) => differing.push(ours),
                None => extra.push(theirs),
            }
        }
        // Where a row's key has other bytes on each side, the active side's
        // come first.
        differing.extend(left.into_values());
        differing.extend(extra);
        Ok((rows, differing))
    }
}

/// Splits buckets into groups that are listed in one pass each.
fn passes(differing: &[(u32, u64)]) -> Vec<Vec<u32>> {
    let mut passes = Vec::new();
    let (mut group, mut rows) = (Vec::new(), 0);
    for (bucket, count) in differing {
        if rows + count > PASS_ROWS && !group.is_empty() {
            passes.push(std::mem::take(&mut group));
            rows = 0;
        }
        group.push(*bucket);
        rows += count;
    }
    if !group.is_empty() {
        passes.push(group);
    }
    passes
}

fn buckets_for(rows: u64, each: u64) -> u32 {
    let wanted = u32::try_from(rows / each.max(1)).unwrap_or(u32::MAX);
    wanted.clamp(2, BUCKETS_MAX).next_power_of_two()
}

impl Comparer {
    /// Takes chunks of whatever table has some left, until none has.
    pub(super) async fn slot(
        &self,
        walks: &[Walk],
        strength: Strength,
        suspects: &Sender<Item>,
    ) -> Result<(), CompareError> {
        let mut pair = Pair::new(&self.walked());
        for walk in walks {
            if walk.table.order == Order::NoKey {
                self.unkeyed(walk).await?;
                continue;
            }
            while let Some(chunk) = self.next_chunk(walk, &mut pair).await? {
                let looked = self.chunk_in(walk, &chunk, strength, suspects, &mut pair);
                if let Some(looked) = looked.await? {
                    walk.measured(&chunk, looked.rows, looked.took).await;
                    self.counted(looked.rows);
                }
            }
        }
        Ok(())
    }

    pub(super) fn counted(&self, rows: u64) {
        let status = &self.parts.status;
        status.chunks.fetch_add(1, Ordering::Relaxed);
        status.rows_compared.fetch_add(rows, Ordering::Relaxed);
    }

    async fn next_chunk(
        &self,
        walk: &Walk,
        pair: &mut Pair,
    ) -> Result<Option<Chunk>, CompareError> {
        for attempt in 0.. {
            self.parts.status.resumed().await;
            match walk.next(&mut pair.active).await {
                Ok(chunk) => return Ok(chunk),
                Err(e) => self.failed(walk, e, attempt).await?,
            }
        }
        Ok(None)
    }

    /// After a pause it may be tried again, or, if the table cannot be read,
    /// there are no more chunks of it.
    pub(super) async fn failed(
        &self,
        walk: &Walk,
        error: ReadError,
        attempt: u32,
    ) -> Result<(), CompareError> {
        match (error, pause(attempt)) {
            (ReadError::Refused(why), _) => walk.end(Verdict::NotCompared(why)).await,
            (ReadError::Lost(_), Some(pause)) => tokio::time::sleep(pause).await,
            (ReadError::Lost(e), None) => return Err(e.into()),
        }
        Ok(())
    }

    /// One chunk to its end, whatever connections are lost. None: the table
    /// cannot be read.
    async fn chunk_in(
        &self,
        walk: &Walk,
        chunk: &Chunk,
        strength: Strength,
        suspects: &Sender<Item>,
        pair: &mut Pair,
    ) -> Result<Option<Looked>, CompareError> {
        for attempt in 0.. {
            match self
                .chunk(walk, &chunk.extent, strength, suspects, pair)
                .await
            {
                Ok(looked) => return Ok(Some(looked)),
                Err(e) => {
                    let refused = matches!(e, ReadError::Refused(_));
                    self.failed(walk, e, attempt).await?;
                    if refused {
                        break;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Compares a part of a table; suspects go to the queue.
    pub(super) async fn chunk(
        &self,
        walk: &Walk,
        extent: &Extent,
        strength: Strength,
        suspects: &Sender<Item>,
        pair: &mut Pair,
    ) -> Result<Looked, ReadError> {
        let table = &walk.table;
        let began = Instant::now();
        if table.is_fetched() {
            let rows = self.fetched(walk, extent, suspects, pair).await?;
            let took = began.elapsed();
            return Ok(Looked { rows, took });
        }
        let [active, mirror] = pair.sums(table, extent, strength).await?;
        let looked = Looked {
            rows: active.rows,
            took: began.elapsed(),
        };
        if active == mirror {
            return Ok(looked);
        }
        let rows = active.rows.max(mirror.rows);
        if rows <= LIST_ROWS {
            self.listed(walk, extent, None, suspects, pair).await?;
            return Ok(looked);
        }
        let of = buckets_for(rows, BUCKET_ROWS);
        let differing = pair.differing(table, extent, strength, of).await?;
        for only in passes(&differing) {
            let buckets = Buckets { of, only: &only };
            self.listed(walk, extent, Some(buckets), suspects, pair)
                .await?;
        }
        Ok(looked)
    }

    async fn fetched(
        &self,
        walk: &Walk,
        extent: &Extent,
        suspects: &Sender<Item>,
        pair: &mut Pair,
    ) -> Result<u64, ReadError> {
        let range = matches!(extent, Extent::Range { .. });
        if range && walk.table.order == Order::Ranges {
            return self.listed(walk, extent, None, suspects, pair).await;
        }
        let [active, mirror] = pair.sums(&walk.table, extent, Strength::Fast).await?;
        let rows = active.rows.max(mirror.rows);
        if rows <= FETCHED_PASS_ROWS {
            return self.listed(walk, extent, None, suspects, pair).await;
        }
        let of = buckets_for(rows, FETCHED_PASS_ROWS);
        let mut rows = 0;
        for bucket in 0..of {
            let only = &[bucket];
            let buckets = Buckets { of, only };
            rows += self
                .listed(walk, extent, Some(buckets), suspects, pair)
                .await?;
        }
        Ok(rows)
    }

    async fn listed(
        &self,
        walk: &Walk,
        extent: &Extent,
        buckets: Option<Buckets<'_>>,
        suspects: &Sender<Item>,
        pair: &mut Pair,
    ) -> Result<u64, ReadError> {
        let (rows, differing) = pair.list(&walk.table, extent, buckets).await?;
        let found = differing.len() as u64;
        self.parts
            .status
            .suspects
            .fetch_add(found, Ordering::Relaxed);
        for row in differing {
            let (table, key) = (walk.table.clone(), row.key);
            // Closed: the other half has failed, and says why.
            let _ = suspects.send(Item::new(table, key)).await;
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_bounded() {
        let differing: Vec<(u32, u64)> = (0..10).map(|n| (n, PASS_ROWS / 3)).collect();
        let made = passes(&differing);
        assert_eq!(made.len(), 4);
        assert_eq!(made.concat(), (0..10).collect::<Vec<u32>>());
        assert_eq!(passes(&[(7, PASS_ROWS * 2)]), [[7]]);
        assert!(passes(&[]).is_empty());
        assert_eq!(buckets_for(0, 250), 2);
        assert_eq!(buckets_for(u64::MAX, 250), BUCKETS_MAX);
    }
}
