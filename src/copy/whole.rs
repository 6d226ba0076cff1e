//! Copies a table as a whole, out of one snapshot whose place in
//! the log the follower knows ([`crate::follow::snapshots`] says how).

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::follow::batch::{Operation, TableBatch};
use crate::follow::statements::statements;
use crate::follow::tables::Followed;
use crate::rows::literal::put_table;

use super::raw::RawRows;
use super::{CHUNK_BYTES, Copier, CopyError, PAUSE, Part, connect, failed, select, shown, values};

/// Attempts at a snapshot between two watermarks without a change of the table
/// in between: some milliseconds each.
const QUIET_ATTEMPTS_MAX: u32 = 300;

/// Attempts after an error of a server; each starts with an emptied table.
const FAILURES_MAX: u32 = 20;

/// Rows of `lockstep.mark` that are copiers' start here: below are workers'.
const MARK: usize = 10_000;

impl Copier {
    pub(super) async fn whole(&self, slot: usize, part: &Part) -> Result<(), CopyError> {
        let followed = &self.followed(&part.name)?;
        let mut failures = 0;
        for _ in 0..QUIET_ATTEMPTS_MAX {
            let copied = match self.snapshot(slot, part).await {
                Ok(Some(snapshot)) => self.fill(slot, part, followed, snapshot).await,
                Ok(None) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(e) => Err(e),
            };
            match copied {
                Ok(()) => {
                    self.windows.snapshots.copied(&part.name);
                    return Ok(());
                }
                Err(CopyError::Follower) => return Err(CopyError::Follower),
                Err(e) => {
                    // A follower that waits for the rows skips to the next
                    // snapshot.
                    self.windows.snapshots.want(&part.name);
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(e);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        Err(CopyError::Table {
            table: shown(&part.name),
            what: format!(
                "it must be copied as a whole (no key without NULL, or foreign keys among its own \
                 rows), and changed during each of {QUIET_ATTEMPTS_MAX} snapshots: give it a key, \
                 or copy it when it is quieter"
            ),
        })
    }

    /// A connection with a snapshot open that the follower knows the place of;
    /// None if the table changed meanwhile.
    async fn snapshot(&self, slot: usize, part: &Part) -> Result<Option<Conn>, CopyError> {
        let error = |e: mysql_async::Error| failed(&self.source, &e);
        let mut marks = connect(&self.source).await?;
        let mut conn = connect(&self.source).await?;
        // The session reads what is committed; this one transaction does not.
        conn.query_drop("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            .await
            .map_err(error)?;
        let low = self.next_window.fetch_add(2, Ordering::Relaxed);
        let verdict = self.windows.snapshots.bracket(&part.name, low, low + 1);
        marks
            .query_drop(self.watermark(slot, low))
            .await
            .map_err(error)?;
        conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            .await
            .map_err(error)?;
        marks
            .query_drop(self.watermark(slot, low + 1))
            .await
            .map_err(error)?;
        let _ = marks.disconnect().await;
        let quiet = verdict.await.map_err(|_| CopyError::Follower)?;
        Ok(quiet.then_some(conn))
    }

    /// Empties the table, writes the snapshot's rows and records that.
    async fn fill(
        &self,
        slot: usize,
        part: &Part,
        followed: &Arc<Followed>,
        mut snapshot: Conn,
    ) -> Result<(), CopyError> {
        let mut target = connect(&self.target).await?;
        let mut delete = b"DELETE FROM ".to_vec();
        put_table(&mut delete, &part.name.schema, &part.name.table);
        self.write(&mut target, slot, vec![delete]).await?;
        let mut done = part.clone();
        done.rows = 0;
        let sql = select::whole(&part.name, &followed.shape);
        let error = |e: mysql_async::Error| failed(&self.source, &e);
        let mut rows = snapshot.query_iter(sql).await.map_err(error)?;
        let mut read = RawRows::default();
        loop {
            let row: Option<Row> = rows.next().await.map_err(error)?;
            let ended = row.is_none();
            if let Some(row) = row
                && !read.push(values(row), &followed.shape)
            {
                return Err(self.strange(&part.name));
            }
            if read.size() >= CHUNK_BYTES || ended {
                let count = read.len() as u64;
                let made = self.inserts(part, followed, &std::mem::take(&mut read))?;
                self.write(&mut target, slot, made).await?;
                done.rows += count;
                self.status.copied(&part.name, count);
            }
            if ended {
                break;
            }
        }
        let mut finished = b"REPLACE INTO lockstep.copied VALUES ".to_vec();
        finished.extend_from_slice(&self.progress_values(&done, true));
        self.write(&mut target, slot, vec![finished]).await?;
        let _ = target.disconnect().await;
        Ok(())
    }

    fn inserts(
        &self,
        part: &Part,
        followed: &Followed,
        read: &RawRows,
    ) -> Result<Vec<Vec<u8>>, CopyError> {
        // Numbered instead of keyed.
        let rows = read.iter().enumerate().map(|(n, row)| {
            let image = row.image(&followed.shape)?;
            Some((n.to_be_bytes().to_vec(), Operation::Put(image)))
        });
        let rows: Option<_> = rows.collect();
        let made = statements(&TableBatch {
            name: part.name.clone(),
            shape: followed.shape.clone(),
            key: followed.key.clone(),
            rows: rows.ok_or_else(|| self.strange(&part.name))?,
        });
        made.map_err(|e| CopyError::Table {
            table: shown(&part.name),
            what: e.to_string(),
        })
    }

    /// A transaction of ours, tried once: written twice, rows without a key
    /// would be there twice.
    async fn write(
        &self,
        target: &mut Conn,
        slot: usize,
        statements: Vec<Vec<u8>>,
    ) -> Result<(), CopyError> {
        let mark = format!(
            "REPLACE INTO lockstep.mark VALUES ('{}', {}, {})",
            self.stream,
            MARK + slot,
            self.next_window.fetch_add(1, Ordering::Relaxed)
        );
        let all = [b"BEGIN".to_vec(), mark.into_bytes()];
        let all = all
            .into_iter()
            .chain(statements)
            .chain([b"COMMIT".to_vec()]);
        for sql in all {
            let written = target.query_drop(sql).await;
            written.map_err(|e| failed(&self.target, &e))?;
        }
        Ok(())
    }
}
