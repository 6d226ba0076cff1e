//! Copies the rows that are there, beside the running follower.
//!
//! ```text
//! plan: tables → parts (ranges of the key), kept in lockstep.copied
//! slot × n:  open window ─ watermark ─ SELECT a chunk ─ hand over ─ next
//!                                                        │
//!                                    follower writes it ◄┘ with the progress
//! ```
//!
//! Takes no lock on the side it reads: plain SELECTs, and one row of its own
//! that it commits before each (`follow::windows` says why). A copy that was
//! cut off goes on at the chunk it was at.

pub mod raw;
pub mod select;

mod family;
mod part;
mod plan;
mod read;
mod status;
mod throttle;
mod whole;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::follow::batch::TableName;
use crate::follow::tables::{Followed, Meaning, Tables};
use crate::follow::windows::{Chunk, Windows};
use crate::leg::service::ServiceLegs;
use crate::leg::{Leg, Lost};
use crate::rows::service::{ServiceAccount, ServiceError};

use family::Family;
use raw::RawRows;
use read::Selected;
use select::{Bound, READ_SESSION};
pub use status::{Status, TableProgress};
pub use throttle::{Lag, Throttle};

/// Bytes of rows in a chunk: what a statement's parsing and a transaction's
/// commit are small against.
const CHUNK_BYTES: usize = 2 << 20;

/// Bytes at which the reading of a chunk ends, however many rows were asked for:
/// those before say nothing of the width of the next ones. A row is read whole.
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// Rows in the first chunk of a part, and at most in any.
const FIRST_ROWS: usize = 1000;
const ROWS_MAX: usize = 20_000;

/// Rows that a chunk is not made smaller than when it has to be read again:
/// reading them takes less than the round trips around it.
const LEAST_ROWS: usize = 50;

/// Attempts at a chunk, and the pause between them.
const ATTEMPTS_MAX: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Why a copy ended before its end. It goes on where it was when started again.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A backend does not answer.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A table cannot be copied.
    #[error("{table}: {what}")]
    Table {
        /// Its name.
        table: String,
        /// Why.
        what: String,
    },
    /// The follower ended, which says why.
    #[error("the follower ended")]
    Follower,
}

/// A range of a table's key.
#[derive(Clone, Debug)]
struct Part {
    number: u32,
    name: TableName,
    after: Option<Bound>,
    until: Option<Bound>,
    rows: u64,
}

/// Rows of one chunk.
struct Read {
    rows: RawRows,
    /// Nothing of the part is behind them.
    last: bool,
}

/// Copies tables from one side to the other.
pub struct Copier {
    source: ServiceAccount,
    legs: ServiceLegs,
    target: ServiceAccount,
    stream: String,
    tables: Arc<dyn Tables>,
    windows: Arc<Windows>,
    chunks: mpsc::Sender<Chunk>,
    status: Arc<Status>,
    next_window: AtomicU64,
    stop: AtomicBool,
    throttle: Throttle,
    /// Made by [`Copier::prepare`].
    plan: Mutex<Option<Arc<Plan>>>,
}

/// What is to be copied, in which order.
struct Plan {
    family: Family,
    levels: Vec<Vec<Part>>,
}

fn shown(name: &TableName) -> String {
    name.to_string()
}

fn failed(account: &ServiceAccount, e: &mysql_async::Error) -> ServiceError {
    ServiceError {
        side: account.side,
        kind: "server",
        message: e.to_string(),
    }
}

async fn connect(account: &ServiceAccount) -> Result<Conn, ServiceError> {
    let mut conn = account.connect().await?;
    let prepared = conn.query_drop(READ_SESSION).await;
    prepared.map_err(|e| failed(account, &e))?;
    Ok(conn)
}

fn lost(e: Lost) -> CopyError {
    CopyError::Service(ServiceError {
        side: e.side,
        kind: "server",
        message: e.what,
    })
}

/// Executes a statement that has no rows.
async fn run(leg: &mut Leg, sql: &str) -> Result<(), Lost> {
    let answer = leg.query(sql.as_bytes()).await?;
    match answer.summary.is_error {
        true => Err(leg.lost(answer.error_text())),
        false => Ok(()),
    }
}

impl Copier {
    /// A copier beside the follower that `windows` and `chunks` belong to; `legs`
    /// are to the first account's side.
    pub fn new(
        accounts: [ServiceAccount; 2],
        legs: ServiceLegs,
        stream: &str,
        tables: Arc<dyn Tables>,
        windows: Arc<Windows>,
        chunks: mpsc::Sender<Chunk>,
        status: Arc<Status>,
    ) -> Copier {
        let [source, target] = accounts;
        Copier {
            source,
            legs,
            target,
            stream: stream.to_owned(),
            tables,
            windows,
            chunks,
            status,
            next_window: AtomicU64::new(first_token()),
            stop: AtomicBool::new(false),
            throttle: Throttle::none(),
            plan: Mutex::default(),
        }
    }

    /// What holds the copy back; without it nothing does.
    #[must_use]
    pub fn with_throttle(mut self, throttle: Throttle) -> Copier {
        self.throttle = throttle;
        self
    }

    /// Plans, or takes up the plan of an earlier run. Must be done before the
    /// follower runs where a table has no key: its events are in the copy then.
    ///
    /// # Errors
    /// A backend, or a table that cannot be copied.
    pub async fn prepare(&self, tables: &[TableName]) -> Result<(), CopyError> {
        self.prepare_source().await?;
        let family = Family::of(tables, self.tables.as_ref());
        let parts = self.parts(tables, &family).await?;
        let levels = family.levels(parts);
        // What is skipped or removed until its turn is all to be copied: of a
        // table that was begun there is a new plan.
        for (n, level) in levels.iter().enumerate() {
            for part in level.iter().filter(|p| n > 0 || family.whole(&p.name)) {
                self.windows.snapshots.want(&part.name);
            }
        }
        *self.plan.lock() = Some(Arc::new(Plan { family, levels }));
        Ok(())
    }

    /// Copies the tables, `slots` chunks at a time; returns when all rows are
    /// written.
    ///
    /// # Errors
    /// A backend, a table, or the follower. What is copied stays.
    pub async fn run(&self, tables: &[TableName], slots: usize) -> Result<(), CopyError> {
        if self.plan.lock().is_none() {
            self.prepare(tables).await?;
        }
        let Some(plan) = self.plan.lock().take() else {
            return Ok(());
        };
        let left: usize = plan.levels.iter().map(Vec::len).sum();
        self.status.parts_left.store(left as u64, Ordering::Relaxed);
        for level in &plan.levels {
            for part in level.iter().filter(|p| !plan.family.whole(&p.name)) {
                self.windows.snapshots.copied(&part.name);
            }
            let queue = Mutex::new(in_turn(level));
            let slots = (0..slots.max(1)).map(|n| self.slot(n, &queue, &plan.family));
            let slots = slots.collect();
            for result in crate::follow::join_all(slots).await {
                result?;
            }
        }
        self.status.finished.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn prepare_source(&self) -> Result<(), CopyError> {
        let mut conn = connect(&self.source).await?;
        for sql in [
            "CREATE DATABASE IF NOT EXISTS lockstep",
            "CREATE TABLE IF NOT EXISTS lockstep.watermark (\
             stream VARCHAR(64) CHARACTER SET ascii NOT NULL, slot INT UNSIGNED NOT NULL, \
             token BIGINT UNSIGNED NOT NULL, PRIMARY KEY (stream, slot)) ENGINE=InnoDB",
        ] {
            let made = conn.query_drop(sql).await;
            made.map_err(|e| failed(&self.source, &e))?;
        }
        Ok(())
    }

    fn followed(&self, name: &TableName) -> Result<Arc<Followed>, CopyError> {
        let what = match self.tables.meaning(name) {
            Meaning::Follow(followed) | Meaning::Keyless(followed) => return Ok(followed),
            Meaning::Stop(why) => why,
            Meaning::Skip | Meaning::Mark | Meaning::Beat | Meaning::Watermark => {
                "it is not routed"
            }
        };
        Err(CopyError::Table {
            table: shown(name),
            what: what.to_owned(),
        })
    }

    async fn slot(
        &self,
        slot: usize,
        queue: &Mutex<VecDeque<Part>>,
        family: &Family,
    ) -> Result<(), CopyError> {
        let mut conn = None;
        loop {
            let next = queue.lock().pop_front();
            let Some(part) = next else { return Ok(()) };
            let name = part.name.clone();
            let copied = if family.whole(&name) {
                self.whole(slot, &part).await
            } else {
                let exact = family.related(&name);
                self.part(slot, part, exact, &mut conn).await
            };
            if let Err(e) = copied {
                self.stop.store(true, Ordering::Relaxed);
                return Err(e);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.status.part_finished(&name);
        }
    }

    /// The slot's connection, opened where there is none.
    async fn opened<'a>(&self, slot: &'a mut Option<Leg>) -> Result<&'a mut Leg, CopyError> {
        Ok(match slot {
            Some(leg) => leg,
            None => {
                let mut leg = self.legs.open().await.map_err(lost)?;
                for sql in READ_SESSION.split(';') {
                    run(&mut leg, sql).await.map_err(lost)?;
                }
                slot.insert(leg)
            }
        })
    }

    /// Waits until nothing holds the copy back.
    async fn admitted(&self, leg: &mut Option<Leg>) -> Result<(), CopyError> {
        let leg = self.opened(leg).await?;
        self.throttle.admit(&self.status, leg).await.map_err(lost)
    }

    /// The watermark, then the chunk. The connection is gone afterwards if the
    /// server had more rows to send than a chunk may have bytes.
    async fn read(
        &self,
        slot: usize,
        part: &Part,
        followed: &Followed,
        limit: usize,
        leg: &mut Option<Leg>,
    ) -> Result<Read, CopyError> {
        self.mark(slot, leg).await?;
        let (after, until) = (part.after.as_ref(), part.until.as_ref());
        let (shape, key) = (&followed.shape, &followed.key);
        let sql = select::chunk(&part.name, shape, key, after, until, limit);
        let opened = self.opened(leg).await?;
        let read = read::select(opened, &sql, shape, CHUNK_BYTES_MAX).await;
        let Selected { rows, ended } = read.map_err(lost)?;
        if !ended {
            *leg = None;
        }
        Ok(Read {
            last: ended && rows.len() < limit,
            rows,
        })
    }

    fn strange(&self, name: &TableName) -> CopyError {
        CopyError::Table {
            table: shown(name),
            what: "a row that does not have the columns it was asked for".to_owned(),
        }
    }

    /// Commits a watermark.
    async fn mark(&self, slot: usize, leg: &mut Option<Leg>) -> Result<u64, CopyError> {
        let token = self.next_window.fetch_add(1, Ordering::Relaxed);
        let leg = self.opened(leg).await?;
        let marked = run(leg, &self.watermark(slot, token)).await;
        marked.map_err(lost)?;
        Ok(token)
    }

    fn watermark(&self, slot: usize, token: u64) -> String {
        format!(
            "REPLACE INTO lockstep.watermark VALUES ('{}', {slot}, {token})",
            self.stream
        )
    }
}

/// Parts of several tables by turns: chunks of one table can wait for each other
/// on the side that is written (AUTO_INCREMENT, the last page of an index).
fn in_turn(level: &[Part]) -> VecDeque<Part> {
    let mut seen: HashMap<&TableName, usize> = HashMap::new();
    let numbered = level.iter().map(|part| {
        let turn = seen.entry(&part.name).or_default();
        *turn += 1;
        (*turn, part.clone())
    });
    let mut parts: Vec<_> = numbered.collect();
    parts.sort_by_key(|(turn, _)| *turn);
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Tokens that no earlier process has used: microseconds since 1970.
fn first_token() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok()
        .and_then(|d| u64::try_from(d.as_micros()).ok())
        .unwrap_or(1)
}

/// No column has been taken out yet.
fn values(row: mysql_async::Row) -> impl Iterator<Item = mysql_async::Value> {
    row.unwrap_raw().into_iter().flatten()
}
