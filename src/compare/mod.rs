//! Finds rows that differ between the sides, proves it, and has them repaired.
//!
//! ```text
//! walk: chunk ─► digest on both sides at the same time ─ equal ─► next
//!                      │ differs
//!                      ▼
//!        buckets ─► rows' digests ─► suspects ─► bounded queue
//!                                                    │
//!   settle: read both ─ barrier ─ read both again ◄──┘   (also keys of the log,
//!              │                                          of the watcher, and
//!              │ stable and still different               what was open before)
//!              ▼
//!        Divergences ─► Repair ─► settle again
//! ```
//!
//! A difference between two reads proves nothing while clients write: a row may
//! be on its way. A **divergence** is a row of which, in each of several
//! rounds, the active side shows one and the same state before and after a
//! barrier (everything that was committed before it has reached the mirror),
//! and the mirror another and always the same. A row that changes in every
//! round is *hot*: its events are still to come, and each of them is applied or
//! healed, so it is counted and let go.
//!
//! Invariants: takes no lock; writes nothing (repair is the healer's); every
//! queue is bounded; what could not be compared is named in the [`Report`],
//! never left out of it.

pub mod divergences;
pub mod json;
pub mod reader;
pub mod table;
pub mod watcher;

mod find;
mod repair;
mod report;
mod settle;
mod unkeyed;
mod walk;
mod window;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::Side;
use crate::copy::select::Bound;
use crate::follow::batch::TableName;
use crate::rows::digest::Strength;
use crate::rows::service::{ServiceAccount, ServiceError};
use crate::rows::shape::Catalog;

use divergences::Divergences;
use reader::{ReadError, Reader};
use table::{Estimate, Order, Table};
use walk::Walk;

pub use repair::{Repair, Repaired};
pub use report::{Report, Status, TableReport, Verdict};
pub use settle::Item;

/// Something whose keys are not all settled: it has as many owners.
pub type Hold = Arc<()>;

/// A row that is to be verified.
#[derive(Clone, Debug)]
pub struct Suspected {
    /// Its table.
    pub name: TableName,
    /// Its key, as either side has it.
    pub key: Bound,
    /// Nobody knows who wrote it: if it is proven different, it was not us.
    pub unknown: bool,
    /// Given back when the row is settled.
    pub hold: Option<Hold>,
}

/// Told of a row of this table that is proven different ([`Suspected::unknown`]).
pub type Proven = Arc<dyn Fn(String) + Send + Sync>;

/// A boxed future.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Returns when everything committed on the active side before the call has
/// reached the mirror: the follower's barrier.
pub type Barrier = Arc<dyn Fn() -> Boxed<'static, Result<(), String>> + Send + Sync>;

/// Makes a healer with a connection of its own.
pub type Healers = Arc<dyn Fn() -> Box<dyn Repair> + Send + Sync>;

/// Suspects that wait to be settled; when it is full, the walk waits.
const SUSPECTS_MAX: usize = 20_000;

/// How long keys to be verified are gathered, and how many at most: a second is
/// soon enough, and by then most mirrored writes have committed on both sides.
const GATHER: Duration = Duration::from_millis(500);
const GATHERED_MAX: usize = 20_000;

/// Attempts at a query after lost connections, and the pauses between them.
const ATTEMPTS_MAX: u32 = 60;
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Every row, by CRC32.
    Full,
    /// Every row, by SHA2.
    Strong,
    /// Rows that a column of update times shows to have changed lately. Cheap,
    /// and no proof: it misses rows whose time did not change, and deleted
    /// ones.
    Window,
}

/// Why a compare ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A backend does not answer.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The follower does not get to its barriers.
    #[error("the follower does not get on: {0}")]
    Barrier(String),
    /// A table can no longer be read.
    #[error("{table}: {what}")]
    Table {
        /// Its name.
        table: String,
        /// Why.
        what: String,
    },
}

/// What a comparer works with.
#[derive(Clone)]
pub struct Parts {
    /// The active side's account and the mirror's.
    pub accounts: [ServiceAccount; 2],
    /// Addresses of replicas to walk on first, in the same order; suspects are
    /// always settled on the backends themselves.
    pub replicas: [Option<String>; 2],
    /// The tables' shapes on both sides, kept current by its loader.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// The follower's barrier. None while nothing follows: suspects are read
    /// again after a delay, which is weaker, and the report says so.
    pub barrier: Option<Barrier>,
    /// Makes healers; None where nothing may be repaired.
    pub healers: Option<Healers>,
    /// Where divergences are listed.
    pub divergences: Arc<Divergences>,
    /// Progress.
    pub status: Arc<Status>,
    /// Chunks at the same time.
    pub slots: usize,
    /// Told of rows that somebody unknown made different.
    pub proven: Option<Proven>,
}

/// Compares the active side's tables with the mirror's.
pub struct Comparer {
    parts: Parts,
    /// Where each table's next window begins.
    windows: Mutex<HashMap<TableName, String>>,
}

/// A connection to each side.
struct Pair {
    active: Reader,
    mirror: Reader,
}

impl Pair {
    fn new(accounts: &[ServiceAccount; 2]) -> Pair {
        let [active, mirror] = accounts.clone();
        Pair {
            active: Reader::new(active),
            mirror: Reader::new(mirror),
        }
    }
}

/// What is known of a suspect besides its key.
#[derive(Clone, Debug, Default)]
struct Mark {
    unknown: bool,
    /// Of all that named it: it may have been handed on several times.
    holds: Vec<Hold>,
}

impl Mark {
    /// Takes another's in; each hold once.
    fn add(&mut self, unknown: bool, holds: impl IntoIterator<Item = Hold>) {
        self.unknown |= unknown;
        for hold in holds {
            if !self.holds.iter().any(|h| Arc::ptr_eq(h, &hold)) {
                self.holds.push(hold);
            }
        }
    }
}

type Gathered = HashMap<(TableName, Vec<u8>), Mark>;

/// Keys that came within [`GATHER`], each once: a row that is written often is
/// verified once in that time. None: no more will come.
async fn gathered(keys: &mut mpsc::Receiver<Suspected>) -> Option<Gathered> {
    let mut batch = Gathered::new();
    let mut take = |one: Suspected| {
        let mark = batch.entry((one.name, one.key.encode())).or_default();
        mark.add(one.unknown, one.hold);
        batch.len() < GATHERED_MAX
    };
    let mut more = take(keys.recv().await?);
    let until = tokio::time::Instant::now() + GATHER;
    while more && let Ok(Some(one)) = tokio::time::timeout_at(until, keys.recv()).await {
        more = take(one);
    }
    Some(batch)
}

/// The pause before the next attempt; None after the last.
fn pause(attempt: u32) -> Option<Duration> {
    let doubled = PAUSE.saturating_mul(1 << attempt.min(10));
    (attempt < ATTEMPTS_MAX).then(|| doubled.min(PAUSE_MAX))
}

impl Comparer {
    /// Connects when it runs.
    pub fn new(parts: Parts) -> Comparer {
        Comparer {
            parts,
            windows: Mutex::default(),
        }
    }

    /// The divergences.
    pub fn divergences(&self) -> &Arc<Divergences> {
        &self.parts.divergences
    }

    /// How far it is; also pauses and resumes it.
    pub fn status(&self) -> &Arc<Status> {
        &self.parts.status
    }

    /// Where to walk: replicas where there are some.
    fn walked(&self) -> [ServiceAccount; 2] {
        let mut accounts = self.parts.accounts.clone();
        for (account, replica) in accounts.iter_mut().zip(&self.parts.replicas) {
            if let Some(address) = replica {
                account.address.clone_from(address);
            }
        }
        accounts
    }

    fn sides(&self) -> [Side; 2] {
        let [active, mirror] = &self.parts.accounts;
        [active.side, mirror.side]
    }

    async fn same_family(&self, pair: &mut Pair) -> Result<bool, CompareError> {
        for attempt in 0.. {
            let asked = tokio::join!(pair.active.is_mariadb(), pair.mirror.is_mariadb());
            let error = match asked {
                (Ok(active), Ok(mirror)) => return Ok(active == mirror),
                (Err(e), _) | (_, Err(e)) => e,
            };
            match (error, pause(attempt)) {
                (ReadError::Lost(_), Some(pause)) => tokio::time::sleep(pause).await,
                (ReadError::Lost(e), None) => return Err(e.into()),
                (ReadError::Refused(what), _) => {
                    let table = "VERSION()".to_owned();
                    return Err(CompareError::Table { table, what });
                }
            }
        }
        Ok(false)
    }

    /// A table as both sides have it now.
    fn table(&self, name: &TableName, same_family: bool) -> Result<Arc<Table>, String> {
        let catalog = self.parts.catalog.load();
        let [active, mirror] = self.sides();
        let pair = catalog.get(&name.schema, &name.table);
        let pair = pair.ok_or("its definition is not known")?;
        let on = |side| pair.on(side).ok_or(format!("{side:?} has no such table"));
        let (active, mirror) = (on(active)?, on(mirror)?);
        if active.is_view || mirror.is_view {
            return Err("a view has no rows of its own".to_owned());
        }
        let table = Table::new(name.clone(), active, mirror, same_family)?;
        Ok(Arc::new(table))
    }

    /// Whether a side has the table, as far as is known.
    fn is_there(&self, name: &TableName) -> bool {
        let catalog = self.parts.catalog.load();
        let pair = catalog.get(&name.schema, &name.table);
        pair.is_some_and(|p| p.source.is_some() || p.target.is_some())
    }

    /// Compares the tables, and returns when every suspect is settled.
    ///
    /// # Errors
    /// A backend or the follower is gone for too long. What was found stays in
    /// the list.
    pub async fn run(
        &self,
        tables: &[TableName],
        kind: Kind,
        repair: bool,
    ) -> Result<Report, CompareError> {
        let mut pair = Pair::new(&self.parts.accounts);
        let same_family = self.same_family(&mut pair).await?;
        let status = &self.parts.status;
        status.begin();
        if kind != Kind::Window {
            self.parts.divergences.begin();
        }
        let mut walks = Vec::new();
        let mut refused = Vec::new();
        for name in tables {
            match self.table(name, same_family) {
                Ok(table) => {
                    // If there is none, progress shows less.
                    let told = pair.active.text(table.estimate()).await.ok().flatten();
                    let size = told.and_then(|t| Estimate::parse(&t)).unwrap_or_default();
                    status
                        .rows_estimated
                        .fetch_add(size.rows, Ordering::Relaxed);
                    walks.push(Walk::new(table, size));
                }
                Err(why) => refused.push(TableReport {
                    table: table::shown(name),
                    rows: 0,
                    verdict: Verdict::NotCompared(why),
                }),
            }
        }
        let (suspects, received) = mpsc::channel(SUSPECTS_MAX);
        let walking = self.walk(&walks, kind, suspects);
        let (walked, settled) = tokio::join!(walking, self.settle(received, repair));
        settled?;
        walked?;
        let mut reports: Vec<TableReport> = walks.iter().map(|w| w.report(kind)).collect();
        reports.extend(refused);
        Ok(self.report(reports, tables))
    }

    /// Verifies keys as they come, until their senders are gone: the keys of
    /// rows that the log says have changed (continuous compare), or that the
    /// watcher found written by somebody else.
    ///
    /// # Errors
    /// See [`Comparer::run`].
    pub async fn verify(
        &self,
        mut keys: mpsc::Receiver<Suspected>,
        repair: bool,
    ) -> Result<(), CompareError> {
        let same_family = self
            .same_family(&mut Pair::new(&self.parts.accounts))
            .await?;
        let (suspects, received) = mpsc::channel(SUSPECTS_MAX);
        let handing_over = async {
            let suspects = suspects;
            let mut known: HashMap<TableName, Option<Arc<Table>>> = HashMap::new();
            let mut generation = None;
            while let Some(batch) = gathered(&mut keys).await {
                let now = self.parts.catalog.load().generation;
                if generation.replace(now) != Some(now) {
                    known.clear();
                }
                for ((name, key), mark) in batch {
                    if !known.contains_key(&name) {
                        known.insert(name.clone(), self.table(&name, same_family).ok());
                    }
                    let table = known.get(&name).cloned().flatten();
                    let Some(table) = table.filter(|t| t.order != Order::NoKey) else {
                        // Perhaps a definition is halfway changed, unless the
                        // table is gone. Counted before its mark goes.
                        let there = u64::from(self.is_there(&name));
                        let unverified = &self.parts.status.unverified;
                        unverified.fetch_add(there, Ordering::AcqRel);
                        continue;
                    };
                    let key = Bound::decode(&key).unwrap_or(Bound(Vec::new()));
                    let item = Item::marked(table, key, mark);
                    if suspects.send(item).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        // At once when the other half fails: keys must not be given up while
        // their holds are looked at.
        tokio::try_join!(handing_over, self.settle(received, repair)).map(|_| ())
    }

    async fn walk(
        &self,
        walks: &[Walk],
        kind: Kind,
        suspects: mpsc::Sender<Item>,
    ) -> Result<(), CompareError> {
        for walk in walks.iter().filter(|w| w.table.order != Order::NoKey) {
            // What was open is looked at again, whatever is found now.
            for one in self.parts.divergences.open_of(&walk.table.name) {
                if let Some(key) = one.bound() {
                    let table = walk.table.clone();
                    // Closed: the other half has failed, and says why.
                    let _ = suspects.send(Item::new(table, key)).await;
                }
            }
        }
        let slots = (0..self.parts.slots.max(1)).map(|_| async {
            match kind {
                Kind::Full => self.slot(walks, Strength::Fast, &suspects).await,
                Kind::Strong => self.slot(walks, Strength::Strong, &suspects).await,
                Kind::Window => self.windows(walks, &suspects).await,
            }
        });
        for result in crate::follow::join_all(slots.collect()).await {
            result?;
        }
        Ok(())
    }
}
