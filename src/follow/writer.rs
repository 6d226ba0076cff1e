//! Writes parts of a batch to the other side, each in a transaction of its own
//! on a connection of its own, and the checkpoint behind them.
//!
//! The private schema there:
//!
//! | table | row | for |
//! | --- | --- | --- |
//! | `lockstep.checkpoint` | one a stream | where to go on |
//! | `lockstep.copied` | one a part of a table | how far its copy is |
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

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::binlog::Position;
use crate::rows::literal::{SESSION, Unwritable};
use crate::rows::service::{ServiceAccount, ServiceError};

use super::batch::TableBatch;
use super::mark;
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
             written_us BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB",
            mark::TABLE,
            retry::CREATE,
            "CREATE TABLE IF NOT EXISTS lockstep.copied (\
             stream VARCHAR(64) CHARACTER SET ascii NOT NULL, \
             part INT UNSIGNED NOT NULL, \
             schema_name VARBINARY(256) NOT NULL, table_name VARBINARY(256) NOT NULL, \
             after_key LONGBLOB, until_key LONGBLOB, \
             finished TINYINT NOT NULL, row_count BIGINT UNSIGNED NOT NULL, \
             PRIMARY KEY (stream, part)) ENGINE=InnoDB",
        ] {
            self.run(&[sql.as_bytes().to_vec()], "lockstep").await?;
        }
        Ok(())
    }

    /// The position the stream goes on from; None on a fresh target.
    ///
    /// # Errors
    /// The connection's; a checkpoint that is not a position.
    pub async fn checkpoint(&mut self) -> Result<Option<Position>, WriteError> {
        let side = self.account.side;
        let sql = format!(
            "SELECT position FROM lockstep.checkpoint WHERE stream='{}'",
            self.stream
        );
        let failed = |message: String| ServiceError {
            side,
            kind: "checkpoint",
            message,
        };
        let conn = self.conn().await?;
        let text: Option<Vec<u8>> = conn
            .query_first(sql)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let Some(text) = text else { return Ok(None) };
        let text = String::from_utf8_lossy(&text).into_owned();
        let position = text.parse().map_err(|_| failed("unreadable".to_owned()))?;
        Ok(Some(position))
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
        self.token += 1;
        let (stream, number, token) = (&self.stream, self.number, self.token);
        let mut all = vec![b"BEGIN".to_vec(), mark::sql(stream, number, token)];
        for table in part {
            let made = statements(table).map_err(|error| WriteError::Unwritable {
                table: name_of(table),
                error,
            })?;
            all.extend(made);
        }
        if let Some(position) = checkpoint {
            all.push(
                format!(
                    "REPLACE INTO lockstep.checkpoint VALUES \
                     ('{stream}', '{position}', CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED))"
                )
                .into_bytes(),
            );
        }
        all.extend_from_slice(further);
        all.push(b"COMMIT".to_vec());
        let names: Vec<String> = part.iter().map(name_of).collect();
        self.run(&all, &names.join(", ")).await
    }

    /// Runs statements, all again after an error that may pass. They must be
    /// one transaction, or such that may be repeated.
    async fn run(&mut self, all: &[Vec<u8>], names: &str) -> Result<(), WriteError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let error = match self.attempt(all).await {
                Ok(()) => return Ok(()),
                Err(Tried::Server(e)) if !is_transient(&e) => {
                    self.conn = None;
                    return Err(WriteError::Refused {
                        table: names.to_owned(),
                        error: e.to_string(),
                    });
                }
                Err(Tried::Server(e)) => ServiceError {
                    side: self.account.side,
                    kind: "server",
                    message: e.to_string(),
                },
                Err(Tried::Connect(e)) => e,
            };
            // The transaction may be open still: a new connection is clean.
            self.conn = None;
            if attempt >= ATTEMPTS_MAX {
                return Err(error.into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
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

enum Tried {
    Connect(ServiceError),
    Server(Error),
}

fn name_of(table: &TableBatch) -> String {
    format!(
        "{}.{}",
        String::from_utf8_lossy(&table.name.schema),
        String::from_utf8_lossy(&table.name.table)
    )
}
