//! Writes parts of a batch to the other side, each in a transaction of its own
//! on a connection of its own, and the checkpoint behind them.
//!
//! The private schema there:
//!
//! | table | row | for |
//! | --- | --- | --- |
//! | `lockstep.checkpoint` | one a stream | where to go on |
//! | `lockstep.copied` | one a part of a table | how far its copy is |
//! | `lockstep.copied_over` | one a stream | tables that had rows when the stream began |
//! | `lockstep.copied_by` | one a table | by which definition it was split into parts |
//! | `lockstep.retry` | one a row | what is to be healed again, once it is not locked |
//! | `lockstep.mark` | one a stream and worker | written first in each of our transactions, so that a follower of *this* side knows them as ours and skips them. One row a worker: a shared one would make the workers wait for each other |
//!
//! On a crash between the workers' commits and the checkpoint, the batch is
//! written again from the older checkpoint. Images are absolute, so that
//! changes nothing:
//! 1. Parts 1 and 2 commit.
//! 2. The process dies.
//! 3. The next one reads from the checkpoint before the batch and writes all of
//!    its rows again. Rows whose later transactions were merged in go back to
//!    older images for a moment and come forward again before the lag is
//!    reported as caught up.

use std::time::Duration;

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, InfileData};

use crate::binlog::Position;
use crate::rows::literal::{SESSION, Unwritable, put_quoted};
use crate::rows::service::{ServiceAccount, ServiceError};

use super::batch::{Stage, TableBatch};
use super::history::Witness;
use super::load::{self, Load};
use super::mark;
use super::ordered::{Expect, Ordered};
use super::retry;
use super::statements::statements;

/// Bytes sent in one go: several statements, well below the smallest usual
/// `max_allowed_packet` (16 MiB) unless one row is larger.
const SEND_MAX: usize = 4 << 20;

/// Times a part is tried again after a deadlock, a lock wait or a lost
/// connection, and the first pause; it doubles up to [`PAUSE_MAX`].
const ATTEMPTS_MAX: u32 = 30;
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The same of a chunk as a file; then it is written by statements.
const LOADS_MAX: u32 = 3;

/// Why rows cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No connection, for longer than all attempts took.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The server refused, and would again.
    #[error("{table}: {error}")]
    Refused {
        /// The part's tables.
        table: String,
        /// The server's words.
        error: String,
    },
    /// A row of a table without a key is not there as it was on the side that
    /// is read.
    #[error(
        "{table} has no key, and a row that changed is not on the side that is written as it was: \
         the sides differ, copy the table again"
    )]
    Conflict {
        /// The table.
        table: String,
    },
    /// A value has no literal.
    #[error("{table}: {error}")]
    Unwritable {
        /// The table.
        table: String,
        /// Which value.
        error: Unwritable,
    },
}

/// One connection that writes.
pub struct Worker {
    account: ServiceAccount,
    stream: String,
    number: usize,
    conn: Option<Conn>,
    token: u64,
    /// A transaction of [`Worker::write_in_order`] is open.
    open: bool,
    /// Whether the server's log gets what is loaded, see [`Worker::load`].
    loads_logged: bool,
    /// What stands beside the position in the checkpoint.
    resume: Option<String>,
    witness: Option<Witness>,
}

/// Whether trying again may help, on the same or a new connection.
fn is_transient(error: &Error) -> bool {
    const LOCK_WAIT: u16 = 1205;
    const DEADLOCK: u16 = 1213;
    const SHUTDOWN: u16 = 1053;
    const KILLED: u16 = 1927;
    const INTERRUPTED: u16 = 1317;
    const READ_ONLY: u16 = 1290;
    match error {
        Error::Server(e) => matches!(
            e.code,
            LOCK_WAIT | DEADLOCK | SHUTDOWN | KILLED | INTERRUPTED | READ_ONLY
        ),
        Error::Io(_) | Error::Driver(_) => true,
        _ => false,
    }
}

impl Worker {
    /// A worker of `stream` that connects when first needed.
    pub fn new(account: ServiceAccount, stream: &str, number: usize) -> Worker {
        Worker {
            account,
            stream: stream.to_owned(),
            number,
            conn: None,
            token: mark::first_token(),
            open: false,
            loads_logged: true,
            resume: None,
            witness: None,
        }
    }

    /// Whether the server's binlog gets the chunks that are loaded out of
    /// files; otherwise what replicates from it lacks their rows.
    pub fn with_loads_logged(mut self, logged: bool) -> Worker {
        self.loads_logged = logged;
        self
    }

    /// Closes the connection until it is needed again.
    pub(super) fn rest(&mut self) {
        if !self.open {
            self.conn = None;
        }
    }

    /// The stream's name.
    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// Rows of a query.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<Vec<mysql_async::Row>, WriteError> {
        let side = self.account.side;
        let conn = self.conn().await?;
        let rows = conn.query(sql).await.map_err(|e| ServiceError {
            side,
            kind: "server",
            message: e.to_string(),
        })?;
        Ok(rows)
    }

    async fn conn(&mut self) -> Result<&mut Conn, ServiceError> {
        if self.conn.is_none() {
            let mut conn = self.account.connect().await?;
            let prepared = conn.query_drop(SESSION).await;
            prepared.map_err(|e| ServiceError {
                side: self.account.side,
                kind: "server",
                message: e.to_string(),
            })?;
            self.conn = Some(conn);
        }
        // Just filled.
        self.conn.as_mut().ok_or_else(|| ServiceError {
            side: self.account.side,
            kind: "connect",
            message: "no connection".to_owned(),
        })
    }

    /// Creates the private schema where it is missing.
    ///
    /// # Errors
    /// The connection's, or a missing privilege.
    pub async fn prepare(&mut self) -> Result<(), WriteError> {
        for sql in [
            "CREATE DATABASE IF NOT EXISTS lockstep",
            "CREATE TABLE IF NOT EXISTS lockstep.checkpoint (\
             stream VARCHAR(64) CHARACTER SET ascii NOT NULL PRIMARY KEY, \
             position LONGTEXT CHARACTER SET ascii NOT NULL, \
             written_us BIGINT UNSIGNED NOT NULL, \
             resume_from LONGTEXT CHARACTER SET ascii NULL, \
             last_event TEXT CHARACTER SET ascii NULL) ENGINE=InnoDB",
            mark::TABLE,
            retry::CREATE,
            "CREATE TABLE IF NOT EXISTS lockstep.copied (\
             stream VARCHAR(64) CHARACTER SET ascii NOT NULL, \
             part INT UNSIGNED NOT NULL, \
             schema_name VARBINARY(256) NOT NULL, table_name VARBINARY(256) NOT NULL, \
             after_key LONGBLOB, until_key LONGBLOB, \
             finished TINYINT NOT NULL, row_count BIGINT UNSIGNED NOT NULL, \
             PRIMARY KEY (stream, part)) ENGINE=InnoDB",
            "CREATE TABLE IF NOT EXISTS lockstep.copied_over (\
             stream VARCHAR(64) CHARACTER SET ascii NOT NULL PRIMARY KEY, \
             table_names LONGBLOB NOT NULL) ENGINE=InnoDB",
            "CREATE TABLE IF NOT EXISTS lockstep.copied_by (\
             stream VARCHAR(64) CHARACTER SET ascii NOT NULL, \
             schema_name VARBINARY(256) NOT NULL, table_name VARBINARY(256) NOT NULL, \
             definition LONGBLOB NOT NULL, \
             PRIMARY KEY (stream, schema_name, table_name)) ENGINE=InnoDB",
        ] {
            self.run(&[sql.as_bytes().to_vec()], "lockstep").await?;
        }
        Ok(())
    }

    /// Waits until a transaction of this worker of an earlier run, which may be
    /// on its way still, has ended: it has the mark's row locked until then.
    /// 1. Worker 2 sends row r as v1, and its process dies; the server waits for
    ///    a lock.
    /// 2. The next process reads on and writes r as v2, by worker 1.
    /// 3. The server writes v1.
    ///
    /// # Errors
    /// The connection's.
    pub async fn outlive(&mut self) -> Result<(), WriteError> {
        let mut begin = self.begin();
        begin.push(b"COMMIT".to_vec());
        self.run(&begin, "lockstep").await
    }

    /// The position the stream goes on from; None on a fresh target.
    ///
    /// # Errors
    /// The connection's; a checkpoint that is not a position.
    pub async fn checkpoint(&mut self) -> Result<Option<Position>, WriteError> {
        let side = self.account.side;
        let sql = format!(
            "SELECT position, resume_from, last_event FROM lockstep.checkpoint WHERE stream='{}'",
            self.stream
        );
        let failed = |message: String| ServiceError {
            side,
            kind: "checkpoint",
            message,
        };
        self.outlive().await?;
        let conn = self.conn().await?;
        let row: Option<(String, Option<String>, Option<String>)> = conn
            .query_first(sql)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let Some((text, resume, witness)) = row else {
            return Ok(None);
        };
        self.resume = resume;
        let witness = witness.map(|w| w.parse()).transpose();
        self.witness = witness.map_err(|_| failed("unreadable".to_owned()))?;
        let position = text.parse().map_err(|_| failed("unreadable".to_owned()))?;
        Ok(Some(position))
    }

    /// Where to read from, if that is before the checkpoint.
    ///
    /// # Errors
    /// What was written there is not a position.
    pub fn resume(&self) -> Result<Option<Position>, WriteError> {
        let position = self.resume.as_ref().map(|text| text.parse()).transpose();
        let unreadable = |_| ServiceError {
            side: self.account.side,
            kind: "checkpoint",
            message: "unreadable".to_owned(),
        };
        Ok(position.map_err(unreadable)?)
    }

    /// The last event behind the checkpoint.
    pub fn witness(&self) -> Option<&Witness> {
        self.witness.as_ref()
    }

    /// What the next checkpoint says beside its position.
    pub(super) fn remember(&mut self, resume: Option<&Position>, witness: Option<Witness>) {
        self.resume = resume.map(ToString::to_string);
        self.witness = witness;
    }

    /// Writes a part of a batch in one transaction; the position and the
    /// further statements are in the same.
    ///
    /// # Errors
    /// After all attempts, or what trying again would not help.
    pub async fn write(
        &mut self,
        part: &[TableBatch],
        checkpoint: Option<&Position>,
        further: &[Vec<u8>],
    ) -> Result<(), WriteError> {
        let mut all = self.begin();
        for table in part {
            let made = statements(table).map_err(|error| WriteError::Unwritable {
                table: name_of(table),
                error,
            })?;
            all.extend(made);
        }
        if let Some(position) = checkpoint {
            all.push(self.moved(position));
        }
        all.extend_from_slice(further);
        all.push(b"COMMIT".to_vec());
        let names: Vec<String> = part.iter().map(name_of).collect();
        self.run(&all, &names.join(", ")).await
    }

    /// Writes a chunk out of a file, in one transaction. False: the server does
    /// not take it as it is, and nothing is written.
    ///
    /// # Errors
    /// As [`Worker::write`].
    pub(super) async fn load(&mut self, load: &Load) -> Result<bool, WriteError> {
        let file = load::file(&load.rows);
        let sql = load::statement(&load.name, &load.table.shape);
        let mut patience = Patience::default();
        for attempt in 1.. {
            match self.load_once(&sql, &file, load.rows.len()).await {
                Ok(true) => return Ok(true),
                Err(Tried::Server(e)) if !is_transient(&e) => break,
                // The connection may have a transaction, or the file, still.
                Ok(false) => break,
                // Perhaps it is the file that something between does not like.
                Err(Tried::Server(_)) if attempt >= LOADS_MAX => break,
                Err(e) => {
                    self.once_more(e, || load.name.to_string(), &mut patience)
                        .await?
                }
            }
        }
        self.conn = None;
        Ok(false)
    }

    async fn load_once(&mut self, sql: &[u8], file: &Bytes, rows: usize) -> Result<bool, Tried> {
        let mut begin = self.begin();
        let logged = self.loads_logged;
        if !logged {
            begin.insert(0, b"SET SESSION sql_log_bin=0".to_vec());
        }
        self.attempt(&begin).await?;
        let conn = self.conn().await.map_err(Tried::Connect)?;
        let packets = load::Packets(file.clone());
        conn.set_infile_handler(async move { Ok(Box::pin(packets) as InfileData) });
        let done = conn.query_iter(sql).await.map_err(Tried::Server)?;
        let stands = done.warnings() == 0 && load::is_whole(&done.info(), rows);
        done.drop_result().await.map_err(Tried::Server)?;
        if stands {
            conn.query_drop("COMMIT").await.map_err(Tried::Server)?;
            // Where it did not stand, or failed, the connection is not used
            // again: what the follower writes next would not be logged.
            let on = "SET SESSION sql_log_bin=1";
            if !logged && conn.query_drop(on).await.is_err() {
                self.conn = None;
            }
        }
        Ok(stands)
    }

    /// The start of each of our transactions.
    fn begin(&mut self) -> Vec<Vec<u8>> {
        self.token += 1;
        let mark = mark::sql(&self.stream, self.number, self.token);
        vec![b"BEGIN".to_vec(), mark]
    }

    /// The statement that moves the checkpoint.
    fn moved(&self, position: &Position) -> Vec<u8> {
        let stream = &self.stream;
        let literal = |text: Option<String>| {
            let mut out = b"NULL".to_vec();
            if let Some(text) = text {
                out.clear();
                put_quoted(&mut out, text.as_bytes());
            }
            String::from_utf8_lossy(&out).into_owned()
        };
        let resume = literal(self.resume.clone());
        let witness = literal(self.witness.as_ref().map(ToString::to_string));
        format!(
            "REPLACE INTO lockstep.checkpoint VALUES \
             ('{stream}', '{position}', CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), \
             {resume}, {witness})"
        )
        .into_bytes()
    }

    /// Writes stages in their order, in one transaction that stays open until
    /// a call brings its end: the checkpoint, and further statements.
    ///
    /// # Errors
    /// What trying again would not help, and every error once a call has
    /// returned with the transaction open: what it wrote is not here any more.
    /// The log has it, from the checkpoint on.
    pub async fn write_in_order(
        &mut self,
        stages: &[Stage],
        end: Option<(&Position, &[Vec<u8>])>,
    ) -> Result<(), WriteError> {
        let names = || stages.iter().flat_map(names_of).collect::<Vec<_>>();
        let mut patience = Patience::default();
        loop {
            match self.in_order(stages, end, patience.attempts > 0).await {
                Ok(()) => {
                    self.open = end.is_none();
                    return Ok(());
                }
                Err(tried) => {
                    if std::mem::take(&mut self.open) {
                        patience.attempts = ATTEMPTS_MAX;
                    }
                    let names = || names().join(", ");
                    self.once_more(tried, names, &mut patience).await?;
                }
            }
        }
    }

    /// Waits before what failed is tried again, on a new connection: the old
    /// one's transaction may be open still.
    async fn once_more(
        &mut self,
        tried: Tried,
        names: impl FnOnce() -> String,
        patience: &mut Patience,
    ) -> Result<(), WriteError> {
        self.conn = None;
        let error = match tried {
            Tried::Lasting(e) => return Err(e),
            Tried::Server(e) if !is_transient(&e) => {
                return Err(WriteError::Refused {
                    table: names(),
                    error: e.to_string(),
                });
            }
            Tried::Server(e) => self.service_error(&e),
            Tried::Connect(e) => e,
        };
        patience.attempts += 1;
        if patience.attempts >= ATTEMPTS_MAX {
            return Err(error.into());
        }
        tokio::time::sleep(patience.pause).await;
        patience.pause = (patience.pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    async fn in_order(
        &mut self,
        stages: &[Stage],
        end: Option<(&Position, &[Vec<u8>])>,
        again: bool,
    ) -> Result<(), Tried> {
        if !self.open {
            let begin = self.begin();
            self.attempt(&begin).await?;
            // Only the answer to the last attempt's COMMIT was lost, perhaps.
            // The mark's row, locked now, says that it has ended.
            if let (true, Some((position, _))) = (again, end) {
                let sql = format!(
                    "SELECT position FROM lockstep.checkpoint WHERE stream='{}'",
                    self.stream
                );
                let conn = self.conn().await.map_err(Tried::Connect)?;
                let at: Option<String> = conn.query_first(sql).await.map_err(Tried::Server)?;
                if at == Some(position.to_string()) {
                    return conn.query_drop("ROLLBACK").await.map_err(Tried::Server);
                }
            }
        }
        for stage in stages {
            match stage {
                Stage::Merged(tables) => {
                    for table in tables {
                        let made = statements(table).map_err(|e| unwritable(table, e))?;
                        self.attempt(&made).await?;
                    }
                }
                Stage::Ordered(changes) => self.ordered(changes).await?,
            }
        }
        if let Some((position, further)) = end {
            let mut all = vec![self.moved(position)];
            all.extend_from_slice(further);
            all.push(b"COMMIT".to_vec());
            self.attempt(&all).await?;
        }
        Ok(())
    }

    async fn ordered(&mut self, changes: &[Ordered]) -> Result<(), Tried> {
        let mut steps = Vec::new();
        let conn = self.conn().await.map_err(Tried::Connect)?;
        let mut checking = false;
        for change in changes {
            change.steps(&mut steps).map_err(|error| {
                Tried::Lasting(WriteError::Unwritable {
                    table: change.name.to_string(),
                    error,
                })
            })?;
            for step in steps.drain(..) {
                if checking != step.checked {
                    checking = step.checked;
                    let set = format!("SET foreign_key_checks={}", u8::from(checking));
                    conn.query_drop(set).await.map_err(Tried::Server)?;
                }
                let answer = conn.query_iter(step.sql).await;
                let changed = match answer {
                    Ok(answer) => {
                        let changed = answer.affected_rows();
                        answer.drop_result().await.map_err(Tried::Server)?;
                        changed
                    }
                    // Other rows are ahead of their place: copied lately.
                    Err(Error::Server(e)) if step.checked && is_referenced(e.code) => 0,
                    Err(e) => return Err(Tried::Server(e)),
                };
                match step.expect {
                    Expect::Done => {}
                    _ if changed == 1 => {}
                    Expect::OneRow => {
                        let table = change.name.to_string();
                        return Err(Tried::Lasting(WriteError::Conflict { table }));
                    }
                    // The copy has not brought the row yet, and its children
                    // neither.
                    Expect::Or(instead) => {
                        conn.query_drop("SET foreign_key_checks=0")
                            .await
                            .map_err(Tried::Server)?;
                        checking = false;
                        for sql in instead {
                            conn.query_drop(sql).await.map_err(Tried::Server)?;
                        }
                    }
                }
            }
        }
        if checking {
            conn.query_drop("SET foreign_key_checks=0")
                .await
                .map_err(Tried::Server)?;
        }
        Ok(())
    }

    fn service_error(&self, e: &Error) -> ServiceError {
        ServiceError {
            side: self.account.side,
            kind: "server",
            message: e.to_string(),
        }
    }

    /// Runs statements, all again after an error that may pass. They must be
    /// one transaction, or such that may be repeated.
    async fn run(&mut self, all: &[Vec<u8>], names: &str) -> Result<(), WriteError> {
        let mut patience = Patience::default();
        while let Err(tried) = self.attempt(all).await {
            let names = || names.to_owned();
            self.once_more(tried, names, &mut patience).await?;
        }
        Ok(())
    }

    async fn attempt(&mut self, all: &[Vec<u8>]) -> Result<(), Tried> {
        let conn = self.conn().await.map_err(Tried::Connect)?;
        let mut send: Vec<u8> = Vec::new();
        for (i, statement) in all.iter().enumerate() {
            if !send.is_empty() {
                send.push(b';');
            }
            send.extend_from_slice(statement);
            let next = all.get(i + 1).map_or(usize::MAX, |s| send.len() + s.len());
            if next > SEND_MAX {
                let sql = std::mem::take(&mut send);
                conn.query_drop(sql).await.map_err(Tried::Server)?;
            }
        }
        Ok(())
    }
}

/// How often something was tried, and how long to wait before the next time.
struct Patience {
    attempts: u32,
    pause: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            attempts: 0,
            pause: PAUSE,
        }
    }
}

enum Tried {
    Connect(ServiceError),
    Server(Error),
    Lasting(WriteError),
}

fn unwritable(table: &TableBatch, error: Unwritable) -> Tried {
    Tried::Lasting(WriteError::Unwritable {
        table: name_of(table),
        error,
    })
}

/// A foreign key, or a duplicate, stands against a checked statement.
fn is_referenced(code: u16) -> bool {
    const DUPLICATE: u16 = 1062;
    const NO_PARENT: u16 = 1452;
    const HAS_CHILDREN: u16 = 1451;
    const CASCADE_DUPLICATE: u16 = 1761;
    matches!(
        code,
        DUPLICATE | NO_PARENT | HAS_CHILDREN | CASCADE_DUPLICATE
    )
}

fn names_of(stage: &Stage) -> Vec<String> {
    let mut names: Vec<String> = match stage {
        Stage::Merged(tables) => tables.iter().map(name_of).collect(),
        Stage::Ordered(changes) => changes.iter().map(|c| c.name.to_string()).collect(),
    };
    names.dedup();
    names
}

fn name_of(table: &TableBatch) -> String {
    table.name.to_string()
}
