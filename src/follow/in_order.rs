//! The follower's part about changes that keep their places: tables without a
//! key, and parents whose children follow them unseen.
//!
//! Such changes are written exactly once: in one transaction with the
//! checkpoint behind them. Inside of a transaction that is larger than a batch
//! the one on the side that is written stays open from batch to batch.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::binlog::{Body, Change, Event, Images, Rows, Value};

use super::batch::TableName;
use super::cascade::{Children, Parent};
use super::ordered::Ordered;
use super::snapshots::Due;
use super::tables::{Followed, Meaning};
use super::windows::Chunk;
use super::writer::Worker;
use super::{FollowError, Follower};

/// Watermarks remembered: each of a copier's slots waits for one at a time.
const PASSED_MAX: usize = 1024;

/// Tables below a parent that are looked for: foreign keys may go in circles.
const DESCENDANTS_MAX: usize = 1000;

#[derive(Default)]
pub(super) struct State {
    /// A transaction on the side that is written is open.
    pub(super) held: bool,
    /// Copiers to be told when the checkpoint stands behind the running
    /// transaction, and behind the last whole one.
    met: Vec<oneshot::Sender<bool>>,
    ended: Vec<oneshot::Sender<bool>>,
    children: Option<Arc<dyn Children>>,
    /// Chunks whose watermark has not come yet, and watermarks that came.
    chunks: Vec<Chunk>,
    passed: VecDeque<u64>,
}

impl State {
    pub(super) fn transaction_ended(&mut self) {
        self.ended.append(&mut self.met);
    }

    /// The chunk, unless its watermark is still to come.
    pub(super) fn due(&mut self, chunk: Chunk) -> Option<Chunk> {
        match chunk.behind {
            Some(token) if !self.passed.contains(&token) => {
                self.chunks.push(chunk);
                None
            }
            _ => Some(chunk),
        }
    }

    /// A watermark came; the chunk that has waited for it.
    fn pass(&mut self, token: u64) -> Option<Chunk> {
        if self.passed.len() >= PASSED_MAX {
            self.passed.pop_front();
        }
        self.passed.push_back(token);
        let at = self.chunks.iter().position(|c| c.behind == Some(token))?;
        Some(self.chunks.swap_remove(at))
    }

    /// Somebody waits for a checkpoint here. It is moved at once: later the
    /// copier could be waiting for the follower, and the follower for it.
    pub(super) fn is_awaited(&self) -> bool {
        !self.ended.is_empty()
    }

    pub(super) fn checkpointed(&mut self) {
        for told in self.ended.drain(..) {
            let _ = told.send(true);
        }
    }
}

impl Follower {
    /// Who is told of parents whose children change without row events.
    pub fn tell_children(&mut self, children: Arc<dyn Children>) {
        self.in_order.children = Some(children);
    }

    /// Before a definition changes: all that was read is written, in the old
    /// shapes, and the checkpoint stands right before it.
    pub(super) async fn wait_for_definition(&mut self, event: &Event) -> Result<(), FollowError> {
        if let Body::Query(query) = &event.body
            && let Some(mut over) = self.tables.under_way(query)
        {
            self.flush().await?;
            self.checkpoint().await?;
            // Over as well if whoever was about it is gone.
            let _ = over.wait_for(|over| *over).await;
        }
        Ok(())
    }

    /// A table that is being copied as a whole: its events wait until it is.
    pub(super) async fn wait_for_copy(&mut self, event: &Event) -> Result<(), FollowError> {
        let Body::Rows(rows) = &event.body else {
            return Ok(());
        };
        if !self.windows.snapshots.any() {
            return Ok(());
        }
        let name = TableName::of(&rows.table);
        let windows = self.windows.clone();
        loop {
            let Due::Wait(ended) = windows.snapshots.due(&name) else {
                return Ok(());
            };
            let ended = ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if matches!(windows.snapshots.due(&name), Due::Wait(_)) {
                self.flush().await?;
                ended.await;
            }
        }
    }

    /// A copier's watermark: stream, slot, token.
    pub(super) fn watermark(&mut self, rows: &Rows) -> Result<(), FollowError> {
        const UNSIGNED: [bool; 3] = [false, true, true];
        for images in rows.images(Some(&UNSIGNED)) {
            let images = images.map_err(|e| self.unreadable(rows, &e))?;
            let after = images.after.unwrap_or_default();
            let [Value::Bytes(stream), _, Value::UInt(token)] = &after[..] else {
                continue;
            };
            let own = self.workers.first().map(Worker::stream);
            if own.is_none_or(|own| own.as_bytes() != stream) {
                continue;
            }
            if let Some(told) = self.windows.snapshots.meet(*token) {
                self.in_order.met.push(told);
            }
            if let Some(chunk) = self.in_order.pass(*token) {
                self.chunk(chunk)?;
            }
        }
        Ok(())
    }

    /// Rows of a table without a key.
    pub(super) fn keyless(
        &mut self,
        name: &TableName,
        followed: &Arc<Followed>,
        rows: &Rows,
    ) -> Result<(), FollowError> {
        if let Some(why) = followed.misfit(&rows.table) {
            return Err(self.stopped(format!("{name}: {why}")));
        }
        if !self.windows.snapshots.is_due(name) {
            return Ok(());
        }
        if self.heals {
            return Err(self.stopped(format!(
                "{name}: it has no primary or unique key without NULL, so its rows cannot be \
                 compared one by one while both sides are written"
            )));
        }
        if !rows.is_full() {
            return Err(self.stopped(format!(
                "{name}: an image lacks columns (binlog_row_image must be FULL)"
            )));
        }
        self.inside = true;
        self.batch.bytes += rows.size();
        self.since.get_or_insert_with(Instant::now);
        for images in rows.images(Some(&followed.unsigned)) {
            let images = images.map_err(|e| self.unreadable(rows, &e))?;
            self.batch.add_ordered(Ordered {
                name: name.clone(),
                table: followed.clone(),
                change: rows.change,
                images,
                unchecked: true,
            });
        }
        Ok(())
    }

    /// A parent's row whose children follow it unseen. Gives the images back
    /// if they are to be merged like any other's: a healer looks at the row
    /// itself, and at its children when it is told of them.
    pub(super) fn cascades(
        &mut self,
        name: &TableName,
        followed: &Arc<Followed>,
        rows: &Rows,
        images: Images,
    ) -> Option<Images> {
        if !rows.no_foreign_key_checks {
            // 1. A chunk with a child is read.
            // 2. The parent is deleted, and the child with it; the log has no
            //    event of the child, so its key is not noted.
            // 3. The chunk is written: the child is back.
            for child in self.descendants(followed) {
                self.windows.spoil(&child);
            }
            if let (Some(children), Some(before)) = (&self.in_order.children, &images.before) {
                children.changed(Parent {
                    name,
                    shape: &followed.shape,
                    before,
                    after: images.after.as_deref(),
                });
            }
        }
        if self.heals {
            let (before, after) = (images.before.as_deref(), images.after.as_deref());
            if !rows.no_foreign_key_checks {
                let tables = self.tables.as_ref();
                let families = &mut self.healing.families;
                families.parent(tables, followed, before, after);
            }
            return Some(images);
        }
        self.batch.add_ordered(Ordered {
            name: name.clone(),
            table: followed.clone(),
            // Of an update only the removal may be left.
            change: match images.after {
                None => Change::Delete,
                Some(_) => rows.change,
            },
            images,
            unchecked: rows.no_foreign_key_checks,
        });
        None
    }

    fn descendants(&self, followed: &Followed) -> HashSet<TableName> {
        let mut found = HashSet::new();
        let mut next = vec![followed.shape.clone()];
        while let Some(shape) = next.pop() {
            for child in &shape.children {
                let name = TableName {
                    schema: child.schema.clone(),
                    table: child.table.clone(),
                };
                if found.len() < DESCENDANTS_MAX && found.insert(name.clone()) {
                    match self.tables.meaning(&name) {
                        Meaning::Follow(f) | Meaning::Keyless(f) => next.push(f.shape.clone()),
                        _ => {}
                    }
                }
            }
        }
        found
    }

    /// Writes the batch stage by stage, on one connection, in one transaction
    /// that ends where the last one on the side that is read has ended.
    pub(super) async fn flush_in_order(&mut self) -> Result<(), FollowError> {
        let batch = std::mem::take(&mut self.batch);
        self.batches += 1;
        self.since = None;
        let events = batch.events as u64;
        let stages = batch.stages();
        let Some(worker) = self.workers.first_mut() else {
            return Ok(());
        };
        let whole = self.whole.take();
        match whole.filter(|_| !self.inside) {
            Some(position) => {
                let copied = std::mem::take(&mut self.copied);
                let (progress, waiting): (Vec<_>, Vec<_>) = copied.into_iter().unzip();
                worker
                    .write_in_order(&stages, Some((&position, &progress)))
                    .await?;
                for copier in waiting {
                    let _ = copier.send(true);
                }
                self.in_order.held = false;
                self.checkpointed(position);
            }
            // A later end has a later position.
            None => {
                worker.write_in_order(&stages, None).await?;
                self.in_order.held = true;
            }
        }
        self.status.events.fetch_add(events, Ordering::Relaxed);
        Ok(())
    }
}
