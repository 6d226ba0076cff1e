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
//! `heal` mode (phases that write both sides): an event only says which row to
//! look at; [`heal`] says how. A row that is busy is tried again, and is kept
//! beside the checkpoint meanwhile ([`retry`]).
//!
//! `apply` mode (phases `syncing` and `target_only`): what the log says is
//! written, over whatever is there. Batches end at a transaction's end, or
//! inside of a large one: its rows are committed on the side that is read, so
//! writing them early is only early; the checkpoint stays before it until all
//! of it is written.
//!
//! A row that changes at fixed times on the side that is read tells how far the
//! follower is ([`beat`]).
//!
//! Invariants: nothing is skipped. A definition that changed, a write logged as
//! text, an event that cannot be read, a table without a key: the follower
//! stops and says which and where. Never takes a lock on the side it reads.

pub mod batch;
pub mod beat;
pub mod cascade;
pub mod heal;
pub mod history;
pub mod ordered;
pub mod snapshots;
pub mod statements;
pub mod tables;
pub mod windows;
pub mod writer;

mod family;
mod healing;
mod held;
mod in_order;
mod join;
mod keyed;
mod load;
mod mark;
mod reader;
mod retry;
mod sample;
mod status;
mod xa;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::binlog::progress::{Place, Progress};
use crate::binlog::stream::{BinlogStream, StreamError};
use crate::binlog::{Body, DecodeError, Event, Position, Rows, Value};
use crate::copy::select::Bound;

use batch::{Batch, TableBatch, TableName};
use beat::Passed;
use heal::Healer;
use healing::Healing;
pub(crate) use join::join_all;
use reader::Reader;
use retry::Retry;
pub use status::{HealStatus, Status};
use tables::{Meaning, Said, Tables};
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

/// The same where it is healed: a look at both servers for each mirrored write
/// by itself would cost more than the write. The mirror's commit has mostly come
/// by then, too. A heartbeat ends the waiting, so barriers are not later by it.
const HEAL_WAIT: Duration = Duration::from_millis(20);

/// How long a batch may take events while they come one by one; where the one
/// before took longer to be written, as long as that, up to the last: the slower
/// the servers, the more is done in one go.
const BATCH_AGE: Duration = Duration::from_millis(20);
const BATCH_AGE_MAX: Duration = Duration::from_millis(250);

/// Heartbeats kept that are not passed yet: with more, the oldest are forgotten
/// and the lag is known less exactly.
const BEATS_MAX: usize = 4096;

/// How often the checkpoint moves while no routed rows come: a commit on the
/// side that is written, for each route.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(5);

/// How often it moves while batches are healed. To look at rows again after a
/// crash changes nothing, so a commit on the mirror for each batch, beside the
/// application's, would be for nothing.
const HEAL_CHECKPOINT: Duration = Duration::from_secs(1);

/// Connections that have not been needed for as long are closed, all but that
/// which writes the checkpoint.
const IDLE_CLOSE: Duration = Duration::from_secs(10);

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

/// What a follower does with events.
pub enum Mode {
    /// Writes the images. Rows that a predecessor in the other mode left are
    /// healed by these; without any, no heartbeat is passed while there are
    /// such rows.
    Apply(Vec<Healer>),
    /// Compares the rows and repairs the mirror's; at least one healer.
    Heal(Vec<Healer>),
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
    /// Rows of a transaction that has not ended were read. Its first event alone
    /// is not inside: it can be a statement's that nothing before may wait for.
    inside: bool,
    /// Shared with the copier.
    windows: Arc<Windows>,
    /// Chunks to be loaded ahead of the batch.
    loads: load::Loads,
    /// Chunks of both: what is to be recorded, and who waits.
    copied: Vec<(Vec<u8>, tokio::sync::oneshot::Sender<bool>)>,
    /// The running transaction is our own writing (the other direction's).
    ours: bool,
    at_s: u64,
    /// Batches are healed, not applied.
    heals: bool,
    /// Rows that are left to be healed keep every heartbeat from being passed.
    healing: Healing,
    /// Batches written; the one being collected has the next number.
    batches: u64,
    /// When the batch got its first event, and how old it may get.
    since: Option<Instant>,
    age: Duration,
    /// A heartbeat was read, which is passed once the batch is written.
    hasten: bool,
    /// Heartbeats read: the batch that is before each, its token, and when it
    /// was sent.
    beats: VecDeque<(u64, u64, u64)>,
    in_order: in_order::State,
    held: held::Held,
    xa: xa::State,
    sample: sample::Sample,
    /// Who is read; None: no witnesses are kept.
    server: Option<String>,
    /// The heartbeat row it listens to.
    pulse: String,
    /// When the checkpoint was written last, and whether it stands before a
    /// batch that is healed.
    recorded: Instant,
    owed: bool,
    /// When rows were written or healed last; None: all that is not needed
    /// while idle has been given back since.
    busy: Option<Instant>,
}

impl Follower {
    /// Goes on from the checkpoint, or from `start` where there is none.
    ///
    /// `workers` write to the other side; at least one. In heal mode the first
    /// writes the checkpoint.
    ///
    /// # Errors
    /// The other side cannot be written.
    pub async fn new(
        mut workers: Vec<Worker>,
        tables: Arc<dyn Tables>,
        start: Position,
        status: Arc<Status>,
        mode: Mode,
    ) -> Result<Follower, FollowError> {
        let (mut from, mut written) = (start, None);
        let pulse = workers.first().map(|w| w.stream().to_owned());
        let mut retry = Retry::default();
        if let Some(first) = workers.first_mut() {
            first.prepare().await?;
            match first.checkpoint().await? {
                Some(position) => {
                    let resume = first.resume()?;
                    written = resume.is_some().then(|| position.clone());
                    from = resume.unwrap_or(position);
                }
                None => first.write(&[], Some(&from), &[]).await?,
            }
            retry = Retry::load(first).await?;
        }
        let (heals, healers) = match mode {
            Mode::Apply(healers) => (false, healers),
            Mode::Heal(healers) => (true, healers),
        };
        for worker in workers.iter_mut().skip(1).filter(|_| !heals) {
            worker.outlive().await?;
        }
        status.heals.store(heals, Ordering::Relaxed);
        let healing = Healing::new(healers, retry, status.clone());
        *status.position.lock() = Some(written.clone().unwrap_or_else(|| from.clone()));
        Ok(Follower {
            tables,
            workers,
            status,
            progress: Progress::new(from),
            batch: Batch::default(),
            whole: None,
            inside: false,
            windows: Arc::default(),
            loads: load::Loads::default(),
            copied: Vec::new(),
            ours: false,
            at_s: 0,
            heals,
            healing,
            batches: 1,
            since: None,
            age: BATCH_AGE,
            hasten: false,
            beats: VecDeque::new(),
            in_order: in_order::State::default(),
            held: held::Held::default(),
            xa: xa::State::since(written),
            sample: sample::Sample::default(),
            server: None,
            pulse: pulse.unwrap_or_default(),
            recorded: Instant::now(),
            owed: false,
            busy: Some(Instant::now()),
        })
    }

    /// Listens to this heartbeat ([`beat::Pulse::name`]), not to one called as
    /// its stream.
    #[must_use]
    pub fn with_pulse(mut self, name: &str) -> Follower {
        name.clone_into(&mut self.pulse);
        self
    }

    /// Hands some of the rows that it has written on, to be verified.
    pub fn with_sample(mut self, to: mpsc::Sender<(TableName, Bound)>) -> Follower {
        self.sample = sample::Sample::to(to);
        self
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
        loop {
            tokio::select! {
                event = reader.next() => match event {
                    Ok(Some(event)) => {
                        self.wait_for_copy(&event).await?;
                        self.wait_for_definition(&event).await?;
                        let taken = match self.release(&event).await {
                            Ok(()) => self.take(&event),
                            stop => stop,
                        };
                        if let Err(stop) = taken {
                            // So that the next run meets it first of all.
                            self.flush().await?;
                            self.checkpoint().await?;
                            return Err(stop);
                        }
                        if self.in_order.is_awaited() {
                            self.flush().await?;
                            self.checkpoint().await?;
                        }
                    }
                    Ok(None) => {
                        self.flush().await?;
                        while self.healing.is_waiting() {
                            tokio::time::sleep(self.wait()).await;
                            self.again().await?;
                        }
                        self.checkpoint().await?;
                        return Ok(());
                    }
                    Err(e) => {
                        self.flush().await?;
                        return Err(e.into());
                    }
                },
                Some(chunk) = chunks.recv() => self.arrived(chunk).await?,
                () = tokio::time::sleep(self.wait()) => self.flush().await?,
            }
            let full = self.is_full();
            let hasten = std::mem::take(&mut self.hasten);
            if full || hasten || self.since.is_some_and(|s| s.elapsed() > self.age) {
                self.flush().await?;
            }
            self.again().await?;
            self.pass();
            if self.is_idle() && self.recorded.elapsed() > self.checkpoint_pause() {
                self.checkpoint().await?;
                self.recorded = Instant::now();
                self.rest();
            }
        }
    }

    /// All that was taken is written.
    fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.copied.is_empty() && !self.in_order.held
    }

    fn is_full(&self) -> bool {
        let Batch { events, bytes, .. } = self.batch;
        events >= BATCH_EVENTS || bytes >= BATCH_BYTES || self.loads.are(self.workers.len())
    }

    fn checkpoint_pause(&self) -> Duration {
        match self.owed {
            true => HEAL_CHECKPOINT,
            false => IDLE_CHECKPOINT,
        }
    }

    /// Gives back what an idle follower does not need.
    fn rest(&mut self) {
        if self.busy.is_some_and(|at| at.elapsed() > IDLE_CLOSE) && !self.healing.is_waiting() {
            self.busy = None;
            self.workers.iter_mut().skip(1).for_each(Worker::rest);
            self.healing.rest();
        }
    }

    /// How long there is nothing to do unless something comes.
    fn wait(&self) -> Duration {
        let wait = if self.is_idle() {
            self.checkpoint_pause()
        } else if self.heals {
            HEAL_WAIT
        } else {
            BATCH_WAIT
        };
        let due = self.healing.retry.next_due();
        let due = due.map(|at| at.saturating_duration_since(Instant::now()));
        match due.filter(|_| self.healing.heals()) {
            // Not at once: what is due is tried between events, too.
            Some(due) => wait.min(due.max(BATCH_WAIT)),
            None => wait,
        }
    }

    /// Heals what was busy and is due.
    async fn again(&mut self) -> Result<(), FollowError> {
        let due = self.healing.retry.next_due();
        if self.healing.heals() && due.is_some_and(|at| at <= Instant::now()) {
            self.busy = Some(Instant::now());
            self.healing.again(self.tables.as_ref()).await?;
        }
        Ok(())
    }

    /// Tells that heartbeats are passed: all that was read is written, and the
    /// rows that were read before them are healed.
    fn pass(&mut self) {
        if !self.is_idle() {
            return;
        }
        let owed = self.healing.retry.oldest().unwrap_or(u64::MAX);
        let mut last = None;
        while let Some((batch, token, sent_us)) = self.beats.front().copied()
            && batch < owed
        {
            last = Some((token, sent_us));
            self.beats.pop_front();
        }
        if let Some((token, sent_us)) = last {
            let lag = Duration::from_micros(mark::now_us().saturating_sub(sent_us));
            self.status.passed.send_replace(Passed { token, lag });
        }
    }

    /// Notes a heartbeat: of those behind the same batch only the last matters.
    fn beat(&mut self, rows: &Rows) -> Result<(), FollowError> {
        for images in rows.images(Some(&beat::UNSIGNED)) {
            let images = images.map_err(|e| self.unreadable(rows, &e))?;
            let Some([Value::Bytes(stream), Value::UInt(token), Value::UInt(sent)]) =
                images.after.as_deref()
            else {
                continue;
            };
            if self.pulse.as_bytes() != &stream[..] {
                continue;
            }
            if self.beats.back().is_some_and(|b| b.0 == self.batches) {
                self.beats.pop_back();
            } else if self.beats.len() >= BEATS_MAX {
                self.beats.pop_front();
            }
            self.beats.push_back((self.batches, *token, *sent));
            self.hasten = true;
        }
        Ok(())
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
        let taken = self.xa(event, place)?;
        match &event.body {
            _ if taken => {}
            Body::Rows(rows) => self.hold(rows, place)?,
            Body::Query(query) if self.savepoint(query, place)? => {}
            Body::Query(query) => match self.tables.statement(query) {
                Said::Nothing => {}
                // Chunks that are being read have the shapes of before.
                Said::Changed => self.windows.spoil_all(),
                Said::Stop(what) => {
                    return Err(self.stopped(format!("ending at {}: {what}", event.header.end)));
                }
            },
            Body::Incident(text) => {
                return Err(self.stopped(format!("the server reports an incident: {text}")));
            }
            _ => {}
        }
        self.settle_held(place)?;
        if matches!(
            place,
            Place::Commits | Place::RollsBack | Place::Prepares | Place::Alone
        ) {
            self.ours = false;
            self.inside = false;
            self.in_order.transaction_ended();
            if !self.xa.is_known() {
                self.whole = Some(self.progress.position().clone());
                self.remember(event);
            }
            self.status.transactions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn rows(&mut self, rows: &Rows) -> Result<(), FollowError> {
        let table = &rows.table;
        let name = TableName::of(table);
        if self.ours {
            return Ok(());
        }
        let followed = match self.tables.meaning(&name) {
            Meaning::Skip => return Ok(()),
            Meaning::Beat => return self.beat(rows),
            Meaning::Watermark => return self.watermark(rows),
            Meaning::Keyless(followed) => return self.keyless(&name, &followed, rows),
            Meaning::Mark => {
                // Written first in each transaction of the other direction.
                let own = self.workers.first().map_or("", |w| w.stream());
                self.ours = !mark::is_foreign(rows, own);
                return Ok(());
            }
            Meaning::Stop(why) => {
                return Err(self.stopped(format!("{name}: {why}")));
            }
            Meaning::Follow(followed) => followed,
        };
        self.keyed(&name, &followed, rows)
    }

    /// Writes or heals the batch.
    async fn flush(&mut self) -> Result<(), FollowError> {
        let began = Instant::now();
        self.write_loads().await?;
        if self.in_order.held || self.batch.is_ordered() {
            return self.flush_in_order().await;
        }
        if self.batch.is_empty() && self.copied.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let number = self.batches;
        self.batches += 1;
        self.since = None;
        let events = batch.events as u64;
        let whole = self.whole.take();
        let sample = self.sample.of(&batch, number);
        let recorded = if self.heals {
            self.heal(batch, number, whole.as_ref()).await?
        } else {
            self.apply(batch, whole.as_ref()).await?;
            true
        };
        self.busy = Some(Instant::now());
        self.age = began.elapsed().clamp(BATCH_AGE, BATCH_AGE_MAX);
        self.sample.written(sample);
        self.status.events.fetch_add(events, Ordering::Relaxed);
        match whole {
            Some(position) if recorded => self.checkpointed(position),
            // For the next one to be written.
            later => self.whole = later,
        }
        Ok(())
    }

    /// Writes a batch, its parts at the same time, and the checkpoint behind.
    async fn apply(&mut self, batch: Batch, whole: Option<&Position>) -> Result<(), FollowError> {
        let copied = std::mem::take(&mut self.copied);
        let parts = batch.split(self.workers.len());
        if let ([part], true, Some(worker)) =
            (&parts[..], copied.is_empty(), self.workers.first_mut())
        {
            worker.write(part, whole, &[]).await?;
            return Ok(());
        }
        self.write_parts(parts).await?;
        self.record(copied, whole).await
    }

    /// Writes parts, at most as many as there are workers, at the same time.
    async fn write_parts(&mut self, parts: Vec<Vec<TableBatch>>) -> Result<(), FollowError> {
        let written = self
            .workers
            .iter_mut()
            .zip(parts)
            .map(|(worker, part)| async move { worker.write(&part, None, &[]).await });
        for result in join_all(written.collect()).await {
            result?;
        }
        Ok(())
    }

    /// Heals a batch's rows, and writes the checkpoint with what is left of
    /// them behind, where it is time to. Whether it has.
    async fn heal(
        &mut self,
        batch: Batch,
        number: u64,
        whole: Option<&Position>,
    ) -> Result<bool, FollowError> {
        let copied = std::mem::take(&mut self.copied);
        let tables = self.tables.clone();
        // Applied again, a parent's delete takes children that came since.
        let families = !self.healing.families.is_empty();
        self.healing.batch(tables.as_ref(), batch, number).await?;
        if copied.is_empty() && !families && self.recorded.elapsed() < HEAL_CHECKPOINT {
            self.owed = true;
            return Ok(false);
        }
        self.record(copied, whole).await?;
        Ok(true)
    }

    /// Writes the checkpoint, rows that are still to be healed, and how far the
    /// copier is, and tells it.
    async fn record(
        &mut self,
        copied: Vec<(Vec<u8>, tokio::sync::oneshot::Sender<bool>)>,
        whole: Option<&Position>,
    ) -> Result<(), FollowError> {
        let (mut further, waiting): (Vec<_>, Vec<_>) = copied.into_iter().unzip();
        let retry = &mut self.healing.retry;
        if let Some(worker) = self.workers.first_mut() {
            if whole.is_some() && retry.is_dirty() {
                further.extend(retry.statements(worker.stream()));
            }
            if whole.is_some() || !further.is_empty() {
                worker.write(&[], whole, &further).await?;
            }
            if whole.is_some() {
                retry.stored();
            }
        }
        self.recorded = Instant::now();
        self.owed = false;
        for copier in waiting {
            let _ = copier.send(true);
        }
        Ok(())
    }

    /// The checkpoint stands behind `position`.
    fn checkpointed(&mut self, position: Position) {
        *self.status.position.lock() = Some(position);
        self.status.written_s.store(self.at_s, Ordering::Relaxed);
        self.in_order.checkpointed();
    }

    /// Moves the checkpoint over transactions without routed rows.
    async fn checkpoint(&mut self) -> Result<(), FollowError> {
        let Some(position) = self.whole.take() else {
            return Ok(());
        };
        self.record(Vec::new(), Some(&position)).await?;
        self.checkpointed(position);
        Ok(())
    }
}
