//! Follows one side's binlog and brings the other side up to it.
//!
//! ```text
//! BinlogStream ─► reader task ─► bounded queue ─► Follower
//!                                                   │ batch: images merged by key
//!                                                   ▼
//!                                        Worker × n: a transaction each
//!                                                   ▼
//!                                              checkpoint
//! ```
//!
//! `apply` mode (phases `syncing` and `target_only`): what the log says is
//! written, over whatever is there. Batches end at a transaction's end, or
//! inside of a large one: its rows are committed on the side that is read, so
//! writing them early is only early; the checkpoint stays before it until all
//! of it is written.
//!
//! Invariants: nothing is skipped. A definition that changed, a write logged as
//! text, an event that cannot be read, a table without a key: the follower
//! stops and says which and where. Never takes a lock on the side it reads.

pub mod batch;
pub mod statements;
pub mod tables;
pub mod windows;
pub mod writer;

mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::binlog::progress::{Place, Progress};
use crate::binlog::stream::{BinlogStream, StreamError};
use crate::binlog::{Body, Change, DecodeError, Event, Images, Position, Rows};

use batch::{Batch, TableName};
use reader::Reader;
use tables::{Meaning, Tables};
use tokio::sync::mpsc;
use windows::{Chunk, Windows};
use writer::{Worker, WriteError};

/// Row events merged before a batch is written: large enough that multi-row
/// statements pay, small enough that the lag stays below half a second.
const BATCH_EVENTS: usize = 4000;

/// Bytes of images likewise.
const BATCH_BYTES: usize = 8 << 20;

/// How long a batch waits for more events before it is written.
const BATCH_WAIT: Duration = Duration::from_millis(2);

/// How often the checkpoint moves while no routed rows come.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(1);

/// Why a follower ended. None of these heals by waiting, save a lost
/// connection: then a new stream goes on from the checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The stream of events ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The other side does not take the rows.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Something in the log needs an operator.
    #[error("stopped after {position}: {what}")]
    Stopped {
        /// Behind the last transaction that was written.
        position: String,
        /// What it met, and where.
        what: String,
    },
}

/// What a follower has done, for status and metrics.
#[derive(Debug, Default)]
pub struct Status {
    /// Row events written.
    pub events: AtomicU64,
    /// Transactions of the log read to their end.
    pub transactions: AtomicU64,
    /// When the last transaction written was committed on the side that is
    /// read, in seconds since 1970 as that server says.
    pub written_s: AtomicU64,
    /// Behind the last transaction written.
    pub position: Mutex<Option<Position>>,
}

/// Reads one side and writes the other.
pub struct Follower {
    tables: Arc<dyn Tables>,
    workers: Vec<Worker>,
    status: Arc<Status>,
    progress: Progress,
    batch: Batch,
    /// Behind the last whole transaction in the batch; None inside the first.
    whole: Option<Position>,
    /// Shared with the copier.
    windows: Arc<Windows>,
    /// Chunks that are in the batch: what is to be recorded, and who waits.
    copied: Vec<(Vec<u8>, tokio::sync::oneshot::Sender<bool>)>,
    /// The running transaction is our own writing (the other direction's).
    ours: bool,
    at_s: u64,
}

impl Follower {
    /// Goes on from the checkpoint, or from `start` where there is none.
    ///
    /// `workers` write to the other side; at least one.
    ///
    /// # Errors
    /// The other side cannot be written.
    pub async fn new(
        mut workers: Vec<Worker>,
        tables: Arc<dyn Tables>,
        start: Position,
        status: Arc<Status>,
    ) -> Result<Follower, FollowError> {
        let mut from = start;
        if let Some(first) = workers.first_mut() {
            first.prepare().await?;
            match first.checkpoint().await? {
                Some(position) => from = position,
                None => first.write(&[], Some(&from), &[]).await?,
            }
        }
        *status.position.lock() = Some(from.clone());
        Ok(Follower {
            tables,
            workers,
            status,
            progress: Progress::new(from),
            batch: Batch::default(),
            whole: None,
            windows: Arc::default(),
            copied: Vec::new(),
            ours: false,
            at_s: 0,
        })
    }

    /// Where the stream must start.
    pub fn position(&self) -> &Position {
        self.progress.position()
    }

    /// What a copier that runs beside needs.
    pub fn windows(&self) -> Arc<Windows> {
        self.windows.clone()
    }

    /// Reads and writes until the stream ends (with `until_end`) or fails.
    /// Chunks that a copier hands over are written between the events.
    ///
    /// # Errors
    /// See [`FollowError`]. What was written stays; the checkpoint says how
    /// far.
    pub async fn run(
        &mut self,
        stream: BinlogStream,
        mut chunks: mpsc::Receiver<Chunk>,
    ) -> Result<(), FollowError> {
        let mut reader = Reader::start(stream);
        let mut checkpointed = Instant::now();
        loop {
            let wait = if self.batch.is_empty() {
                IDLE_CHECKPOINT
            } else {
                BATCH_WAIT
            };
            tokio::select! {
                event = reader.next() => match event {
                    Ok(Some(event)) => self.take(&event)?,
                    Ok(None) => {
                        self.flush().await?;
                        self.checkpoint().await?;
                        return Ok(());
                    }
                    Err(e) => {
                        self.flush().await?;
                        return Err(e.into());
                    }
                },
                Some(chunk) = chunks.recv() => self.chunk(chunk)?,
                () = tokio::time::sleep(wait) => self.flush().await?,
            }
            if self.batch.events >= BATCH_EVENTS || self.batch.bytes >= BATCH_BYTES {
                self.flush().await?;
            }
            if self.batch.is_empty() && checkpointed.elapsed() > IDLE_CHECKPOINT {
                self.checkpoint().await?;
                checkpointed = Instant::now();
            }
        }
    }

    fn stopped(&self, what: impl Into<String>) -> FollowError {
        let position = self.status.position.lock();
        FollowError::Stopped {
            position: position
                .as_ref()
                .map_or_else(String::new, |p| p.to_string()),
            what: what.into(),
        }
    }

    fn unreadable(&self, rows: &Rows, e: &DecodeError) -> FollowError {
        let table = &rows.table;
        self.stopped(format!(
            "rows of {}.{}: {e}",
            String::from_utf8_lossy(&table.schema),
            String::from_utf8_lossy(&table.table)
        ))
    }

    /// Takes one event into the batch.
    fn take(&mut self, event: &Event) -> Result<(), FollowError> {
        let place = self.progress.take(event);
        if event.header.timestamp > 0 {
            self.at_s = u64::from(event.header.timestamp);
        }
        match &event.body {
            Body::Rows(rows) => self.rows(rows)?,
            Body::Query(query) => {
                let schema = (!query.schema.is_empty()).then_some(&query.schema[..]);
                if let Some(what) = self.tables.statement(&query.sql, schema) {
                    return Err(self.stopped(format!("ending at {}: {what}", event.header.end)));
                }
            }
            Body::Incident(text) => {
                return Err(self.stopped(format!("the server reports an incident: {text}")));
            }
            Body::XaPrepare { one_phase: false } if !self.batch.is_empty() => {
                return Err(self.stopped("XA PREPARE of routed tables"));
            }
            _ => {}
        }
        if matches!(
            place,
            Place::Commits | Place::RollsBack | Place::Prepares | Place::Alone
        ) {
            self.ours = false;
            self.whole = Some(self.progress.position().clone());
            self.status.transactions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn rows(&mut self, rows: &Rows) -> Result<(), FollowError> {
        let table = &rows.table;
        let name = TableName {
            schema: table.schema.clone(),
            table: table.table.clone(),
        };
        if self.ours {
            return Ok(());
        }
        let followed = match self.tables.meaning(&name) {
            Meaning::Skip => return Ok(()),
            Meaning::Mark => {
                // Written first in each transaction of the other direction.
                self.ours = true;
                return Ok(());
            }
            Meaning::Stop(why) => {
                return Err(self.stopped(format!(
                    "{}.{}: {why}",
                    String::from_utf8_lossy(&name.schema),
                    String::from_utf8_lossy(&name.table)
                )));
            }
            Meaning::Follow(followed) => followed,
        };
        if followed.shape.columns.len() != table.columns.len() {
            return Err(self.stopped(format!(
                "{}.{} has {} columns in the log and {} now: its definition changed",
                String::from_utf8_lossy(&name.schema),
                String::from_utf8_lossy(&name.table),
                table.columns.len(),
                followed.shape.columns.len()
            )));
        }
        let watched = self.windows.is_open(&name);
        self.batch.bytes += rows.size();
        for images in rows.images(Some(&followed.unsigned)) {
            let images = images.map_err(|e| self.unreadable(rows, &e))?;
            if watched {
                self.windows.note(&name, &followed.key, &images);
            }
            let added = self
                .batch
                .add(&name, &followed.shape, &followed.key, rows.change, images);
            added.map_err(|e| self.stopped(e.to_string()))?;
        }
        Ok(())
    }

    /// Takes a chunk into the batch: of its rows those that no event changed
    /// since its window was opened.
    fn chunk(&mut self, mut chunk: Chunk) -> Result<(), FollowError> {
        let Some(rows) = self.windows.settle(&mut chunk) else {
            let _ = chunk.done.send(false);
            return Ok(());
        };
        self.batch.bytes += chunk.bytes;
        for row in rows {
            let images = Images {
                before: None,
                after: Some(row),
            };
            let (shape, key) = (&chunk.table.shape, &chunk.table.key);
            let added = self
                .batch
                .add(&chunk.name, shape, key, Change::Insert, images);
            added.map_err(|e| self.stopped(e.to_string()))?;
        }
        self.copied.push((chunk.progress, chunk.done));
        Ok(())
    }

    /// Writes the batch, its parts at the same time, and the checkpoint behind.
    async fn flush(&mut self) -> Result<(), FollowError> {
        if self.batch.is_empty() && self.copied.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let copied = std::mem::take(&mut self.copied);
        let events = batch.events as u64;
        let mut parts = batch.split(self.workers.len());
        let whole = self.whole.take();
        match (&parts[..], self.workers.first_mut()) {
            ([part], Some(worker)) if copied.is_empty() => {
                worker.write(part, whole.as_ref(), &[]).await?;
            }
            _ => {
                let written = self
                    .workers
                    .iter_mut()
                    .zip(parts.drain(..))
                    .map(|(worker, part)| async move { worker.write(&part, None, &[]).await });
                for result in join_all(written.collect()).await {
                    result?;
                }
                let (progress, waiting): (Vec<_>, Vec<_>) = copied.into_iter().unzip();
                if let Some(worker) = self.workers.first_mut()
                    && (whole.is_some() || !progress.is_empty())
                {
                    worker.write(&[], whole.as_ref(), &progress).await?;
                }
                for copier in waiting {
                    let _ = copier.send(true);
                }
            }
        }
        self.status.events.fetch_add(events, Ordering::Relaxed);
        if let Some(position) = whole {
            *self.status.position.lock() = Some(position);
            self.status.written_s.store(self.at_s, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Moves the checkpoint over transactions without routed rows.
    async fn checkpoint(&mut self) -> Result<(), FollowError> {
        let Some(position) = self.whole.take() else {
            return Ok(());
        };
        if let Some(worker) = self.workers.first_mut() {
            worker.write(&[], Some(&position), &[]).await?;
        }
        *self.status.position.lock() = Some(position);
        self.status.written_s.store(self.at_s, Ordering::Relaxed);
        Ok(())
    }
}

/// Runs all at the same time and waits for all.
pub(crate) async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures
        .into_iter()
        .map(|f| (Box::pin(f), None))
        .collect::<Vec<(std::pin::Pin<Box<F>>, Option<F::Output>)>>();
    std::future::poll_fn(move |cx| {
        let mut all = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(done) => *output = Some(done),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all {
            let outputs = running.iter_mut().filter_map(|(_, o)| o.take());
            std::task::Poll::Ready(outputs.collect())
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}
