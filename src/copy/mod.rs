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

pub mod select;

mod family;
mod part;
mod status;
mod throttle;
mod whole;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::follow::batch::TableName;
use crate::follow::tables::{Followed, Meaning, Tables};
use crate::follow::windows::{Chunk, Windows};
use crate::rows::literal::put_quoted;
use crate::rows::service::{ServiceAccount, ServiceError};

use family::Family;
use select::{Bound, READ_SESSION, image};
pub use status::{Status, TableProgress};
pub use throttle::{Lag, Throttle};

/// Bytes of rows in a chunk: what a statement's parsing and a transaction's
/// commit are small against.
const CHUNK_BYTES: usize = 2 << 20;

/// Rows in the first chunk of a part, and at most in any.
const FIRST_ROWS: usize = 1000;
const ROWS_MAX: usize = 20_000;

/// Rows that a chunk is not made smaller than when it has to be read again:
/// reading them takes less than the round trips around it.
const LEAST_ROWS: usize = 50;

/// Rows in a part of a table with an integer key, about, and parts of one
/// table.
const PART_ROWS: u64 = 100_000;
const PARTS_MAX: u64 = 256;

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

/// Copies tables from one side to the other.
pub struct Copier {
    source: ServiceAccount,
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

impl Copier {
    /// A copier beside the follower that `windows` and `chunks` belong to.
    pub fn new(
        accounts: [ServiceAccount; 2],
        stream: &str,
        tables: Arc<dyn Tables>,
        windows: Arc<Windows>,
        chunks: mpsc::Sender<Chunk>,
        status: Arc<Status>,
    ) -> Copier {
        let [source, target] = accounts;
        Copier {
            source,
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
        let parts = self.parts(tables).await?;
        let family = Family::of(tables, self.tables.as_ref());
        let levels = family.levels(parts);
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
            let queue = Mutex::new(VecDeque::from(level.clone()));
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

    /// The parts that are not finished: as kept, or a new plan.
    async fn parts(&self, tables: &[TableName]) -> Result<Vec<Part>, CopyError> {
        let mut target = connect(&self.target).await?;
        let kept = self.kept(&mut target).await?;
        let mut parts = match kept {
            Some(kept) => kept,
            None => self.plan(tables, &mut target).await?,
        };
        self.status.clear();
        let mut source = connect(&self.source).await?;
        for name in tables {
            let estimated = self.estimated(&mut source, name).await?;
            self.status.planned(name, estimated);
        }
        for (part, finished) in &mut parts {
            // A table without a key starts over.
            if !*finished && part.after.is_none() {
                part.rows = 0;
            }
            self.status.part(&part.name, part.rows, *finished);
        }
        let done: u64 = parts.iter().map(|(p, _)| p.rows).sum();
        self.status.rows_done.store(done, Ordering::Relaxed);
        let estimated = self
            .status
            .tables()
            .values()
            .map(|t| t.rows_estimated)
            .sum();
        self.status
            .rows_estimated
            .store(estimated, Ordering::Relaxed);
        parts.retain(|(_, finished)| !finished);
        Ok(parts.into_iter().map(|(part, _)| part).collect())
    }

    async fn kept(&self, target: &mut Conn) -> Result<Option<Vec<(Part, bool)>>, CopyError> {
        let sql = format!(
            "SELECT part, schema_name, table_name, after_key, until_key, finished, row_count \
             FROM lockstep.copied WHERE stream='{}' ORDER BY part",
            self.stream
        );
        type Kept = (
            u32,
            Vec<u8>,
            Vec<u8>,
            Option<Vec<u8>>,
            Option<Vec<u8>>,
            u8,
            u64,
        );
        let rows: Vec<Kept> = target
            .query(sql)
            .await
            .map_err(|e| failed(&self.target, &e))?;
        if rows.is_empty() {
            return Ok(None);
        }
        let bound = |bytes: Option<Vec<u8>>| bytes.and_then(|b| Bound::decode(&b));
        let parts = rows.into_iter().map(|row| {
            let (number, schema, table, after, until, finished, rows) = row;
            let part = Part {
                number,
                name: TableName { schema, table },
                after: bound(after),
                until: bound(until),
                rows,
            };
            (part, finished != 0)
        });
        Ok(Some(parts.collect()))
    }

    /// Splits the tables and keeps the plan.
    async fn plan(
        &self,
        tables: &[TableName],
        target: &mut Conn,
    ) -> Result<Vec<(Part, bool)>, CopyError> {
        let mut source = connect(&self.source).await?;
        let mut parts = Vec::new();
        for name in tables {
            let followed = self.followed(name)?;
            let bounds = self.bounds(&mut source, name, &followed).await?;
            let mut after = None;
            for until in bounds.into_iter().map(Some).chain([None]) {
                let number = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                let part = Part {
                    number,
                    name: name.clone(),
                    after: after.take(),
                    until: until.clone(),
                    rows: 0,
                };
                after = until;
                parts.push((part, false));
            }
        }
        let mut sql = Vec::new();
        for (part, _) in &parts {
            sql.extend_from_slice(if sql.is_empty() {
                b"INSERT INTO lockstep.copied VALUES "
            } else {
                b","
            });
            sql.extend_from_slice(&self.progress_values(part, false));
        }
        if !sql.is_empty() {
            let kept = target.query_drop(sql).await;
            kept.map_err(|e| failed(&self.target, &e))?;
        }
        Ok(parts)
    }

    /// A table's rows, as the side that is read estimates.
    async fn estimated(&self, conn: &mut Conn, name: &TableName) -> Result<u64, CopyError> {
        let quoted = |bytes: &[u8]| {
            let mut out = b"_utf8mb4".to_vec();
            put_quoted(&mut out, bytes);
            out
        };
        let mut sql =
            b"SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA=".to_vec();
        sql.extend_from_slice(&quoted(&name.schema));
        sql.extend_from_slice(b" AND TABLE_NAME=");
        sql.extend_from_slice(&quoted(&name.table));
        let rows: Option<Option<u64>> = conn
            .query_first(sql)
            .await
            .map_err(|e| failed(&self.source, &e))?;
        Ok(rows.flatten().unwrap_or(0))
    }

    /// Where a table with a single integer key is split.
    async fn bounds(
        &self,
        source: &mut Conn,
        name: &TableName,
        followed: &Followed,
    ) -> Result<Vec<Bound>, CopyError> {
        let rows = self.estimated(source, name).await?;
        let column = match followed.key.columns[..] {
            [column] => followed.shape.columns.get(column),
            _ => None,
        };
        let Some(column) = column.filter(|c| c.column_type.contains("int")) else {
            return Ok(Vec::new());
        };
        let mut sql = b"SELECT CAST(MIN(".to_vec();
        crate::rows::literal::put_name(&mut sql, &column.name);
        sql.extend_from_slice(b") AS CHAR), CAST(MAX(");
        crate::rows::literal::put_name(&mut sql, &column.name);
        sql.extend_from_slice(b") AS CHAR) FROM ");
        crate::rows::literal::put_table(&mut sql, &name.schema, &name.table);
        let range: Option<(Option<String>, Option<String>)> = source
            .query_first(sql)
            .await
            .map_err(|e| failed(&self.source, &e))?;
        Ok(split(range, rows))
    }

    /// The row of `lockstep.copied`.
    fn progress_values(&self, part: &Part, finished: bool) -> Vec<u8> {
        let mut sql = format!("('{}',{},", self.stream, part.number).into_bytes();
        put_quoted(&mut sql, &part.name.schema);
        sql.push(b',');
        put_quoted(&mut sql, &part.name.table);
        for bound in [&part.after, &part.until] {
            sql.push(b',');
            match bound {
                Some(bound) => put_quoted(&mut sql, &bound.encode()),
                None => sql.extend_from_slice(b"NULL"),
            }
        }
        sql.extend_from_slice(format!(",{},{})", u8::from(finished), part.rows).as_bytes());
        sql
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

    /// Waits until nothing holds the copy back.
    async fn admitted(&self, conn: &mut Option<Conn>) -> Result<(), CopyError> {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(connect(&self.source).await?),
        };
        let admitted = self.throttle.admit(&self.status, conn).await;
        admitted.map_err(|e| failed(&self.source, &e).into())
    }

    /// The watermark, then the chunk.
    async fn read(
        &self,
        slot: usize,
        part: &Part,
        followed: &Followed,
        limit: usize,
        conn: &mut Option<Conn>,
    ) -> Result<(Vec<Vec<crate::binlog::Value>>, usize), CopyError> {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(connect(&self.source).await?),
        };
        let error = |e: mysql_async::Error| failed(&self.source, &e);
        self.mark(slot, conn).await?;
        let (after, until) = (part.after.as_ref(), part.until.as_ref());
        let (shape, key) = (&followed.shape, &followed.key);
        let sql = select::chunk(&part.name, shape, key, after, until, limit);
        let raw: Vec<Row> = conn.query(sql).await.map_err(error)?;
        let mut rows = Vec::with_capacity(raw.len());
        let mut bytes = 0;
        for row in raw {
            // No column has been taken out yet.
            let values: Vec<_> = row.unwrap_raw().into_iter().flatten().collect();
            bytes += values.iter().map(size).sum::<usize>();
            rows.push(image(values, shape).ok_or_else(|| self.strange(&part.name))?);
        }
        Ok((rows, bytes))
    }

    fn strange(&self, name: &TableName) -> CopyError {
        CopyError::Table {
            table: shown(name),
            what: "a row that does not have the columns it was asked for".to_owned(),
        }
    }

    /// Commits a watermark.
    async fn mark(&self, slot: usize, conn: &mut Conn) -> Result<u64, CopyError> {
        let token = self.next_window.fetch_add(1, Ordering::Relaxed);
        let marked = conn.query_drop(self.watermark(slot, token)).await;
        marked.map_err(|e| failed(&self.source, &e))?;
        Ok(token)
    }

    fn watermark(&self, slot: usize, token: u64) -> String {
        format!(
            "REPLACE INTO lockstep.watermark VALUES ('{}', {slot}, {token})",
            self.stream
        )
    }
}

/// Tokens that no earlier process has used: microseconds since 1970.
fn first_token() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok()
        .and_then(|d| u64::try_from(d.as_micros()).ok())
        .unwrap_or(1)
}

fn size(value: &mysql_async::Value) -> usize {
    match value {
        mysql_async::Value::Bytes(bytes) => bytes.len() + 2,
        _ => 1,
    }
}

/// Equal ranges between the least and the greatest key.
fn split(range: Option<(Option<String>, Option<String>)>, rows: u64) -> Vec<Bound> {
    let number = |text: Option<String>| text.and_then(|t| t.parse::<i128>().ok());
    let Some((Some(low), Some(high))) = range.map(|(l, h)| (number(l), number(h))) else {
        return Vec::new();
    };
    let parts = i128::from((rows / PART_ROWS).clamp(1, PARTS_MAX));
    let step = (high - low) / parts;
    if step <= 0 {
        return Vec::new();
    }
    (1..parts)
        .map(|n| Bound(vec![(low + n * step).to_string().into_bytes()]))
        .collect()
}
