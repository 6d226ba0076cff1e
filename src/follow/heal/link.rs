//! A healer's connection to one side.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Value as Column};

use crate::rows::literal::SESSION;
use crate::rows::service::{ServiceAccount, ServiceError};

/// Bytes sent in one go, unless one statement is larger: well below the
/// smallest usual `max_allowed_packet` (16 MiB).
const SEND_MAX: usize = 4 << 20;

/// For ending a statement of ours from a second connection.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// What a statement met.
#[derive(Debug)]
pub(super) enum Fault {
    /// Somebody else has a lock, or had it for too long, or deadlocked with us.
    /// The transaction is to be rolled back.
    Locked,
    /// It took too long, and was ended.
    Slow,
    /// A unique value stands in another row.
    Duplicate,
    /// A table of the private schema is missing.
    NoTable,
    /// The connection, or a server that is going down.
    Lost(ServiceError),
    /// The server refuses, and would again.
    Refused(String),
}

/// Rows of one statement.
pub(super) type Rows = Vec<Vec<Column>>;

/// One side, connected when first needed.
pub(super) struct Link {
    account: ServiceAccount,
    conn: Option<Conn>,
    mariadb: bool,
    /// Locks are taken here.
    locks: bool,
}

impl Link {
    pub(super) fn new(account: ServiceAccount, locks: bool) -> Link {
        Link {
            account,
            conn: None,
            mariadb: false,
            locks,
        }
    }

    /// Known once connected.
    pub(super) fn is_mariadb(&self) -> bool {
        self.mariadb
    }

    /// How long statements wait for the lock of a row. MariaDB can refuse to
    /// wait at all; MySQL waits a second at least, and is interrupted sooner by
    /// us. A healer that waits while it holds locks makes writers of the
    /// application queue on those.
    pub(super) fn lock_wait(&self, patient: bool) -> String {
        let seconds = u8::from(patient || !self.mariadb);
        format!("SET SESSION innodb_lock_wait_timeout={seconds}")
    }

    /// Forgets the connection: what it has open ends.
    pub(super) fn drop_conn(&mut self) {
        self.conn = None;
    }

    fn fault(&self, error: &Error) -> Fault {
        let lost = || {
            Fault::Lost(ServiceError {
                side: self.account.side,
                kind: "server",
                message: error.to_string(),
            })
        };
        match error {
            Error::Server(e) => match e.code {
                // Lock wait, deadlock, NOWAIT, changed since read, interrupted.
                1205 | 1213 | 3572 | 1020 | 1317 | 3024 | 1969 => Fault::Locked,
                1062 | 1586 => Fault::Duplicate,
                1146 | 1049 if e.message.contains("lockstep") => Fault::NoTable,
                // Going down, killed, read only, too many connections.
                1053 | 1927 | 1290 | 1836 | 1040 | 3169 | 4031 => lost(),
                _ => Fault::Refused(e.to_string()),
            },
            _ => lost(),
        }
    }

    /// Connects where it is not.
    pub(super) async fn ready(&mut self) -> Result<(), Fault> {
        if self.conn.is_some() {
            return Ok(());
        }
        let mut conn = self.account.connect().await.map_err(Fault::Lost)?;
        let version: Result<Option<String>, Error> = conn.query_first("SELECT VERSION()").await;
        let version = version.map_err(|e| self.fault(&e))?;
        self.mariadb = version.is_some_and(|v| v.contains("MariaDB"));
        let mut session = SESSION.to_owned();
        if self.locks {
            session.push_str("; ");
            session.push_str(&self.lock_wait(false));
            session.push_str(", SESSION lock_wait_timeout=1");
        }
        let prepared = conn.query_drop(session).await;
        prepared.map_err(|e| self.fault(&e))?;
        self.conn = Some(conn);
        Ok(())
    }

    /// Runs statements in order; the rows of each that has any. After a fault
    /// the connection is forgotten unless the server said it itself.
    pub(super) async fn run(
        &mut self,
        statements: &[Vec<u8>],
        limit: Duration,
    ) -> Result<Vec<Rows>, Fault> {
        self.ready().await?;
        let Some(mut conn) = self.conn.take() else {
            return Ok(Vec::new());
        };
        let id = conn.id();
        let run = tokio::time::timeout(limit, run(&mut conn, statements)).await;
        match run {
            Ok(Ok(rows)) => {
                self.conn = Some(conn);
                Ok(rows)
            }
            Ok(Err(e)) => {
                if matches!(e, Error::Server(_)) {
                    self.conn = Some(conn);
                }
                Err(self.fault(&e))
            }
            Err(_) => {
                drop(conn);
                let kill = kill(self.account.clone(), id);
                if self.locks {
                    kill.await;
                } else {
                    // The other side's locks do not wait for this.
                    tokio::spawn(kill);
                }
                Err(Fault::Slow)
            }
        }
    }

    /// Ends a transaction; none is open where there is no connection.
    pub(super) async fn rollback(&mut self, limit: Duration) -> Result<(), Fault> {
        if self.conn.is_none() {
            return Ok(());
        }
        self.run(&[b"ROLLBACK".to_vec()], limit).await.map(|_| ())
    }
}

/// Ends a connection of ours whose statement takes too long: the server does not
/// notice that a waiting client has gone.
async fn kill(account: ServiceAccount, id: u32) {
    let kill = async {
        let mut conn = account.connect().await.ok()?;
        conn.query_drop(format!("KILL CONNECTION {id}")).await.ok()
    };
    let _ = tokio::time::timeout(KILL_LIMIT, kill).await;
}

async fn run(conn: &mut Conn, statements: &[Vec<u8>]) -> Result<Vec<Rows>, Error> {
    let mut all = Vec::new();
    let mut send: Vec<u8> = Vec::new();
    for (i, statement) in statements.iter().enumerate() {
        if !send.is_empty() {
            send.push(b';');
        }
        send.extend_from_slice(statement);
        let next = statements.get(i + 1);
        let next = next.map_or(usize::MAX, |s| send.len() + s.len());
        if next <= SEND_MAX {
            continue;
        }
        let mut result = conn.query_iter(std::mem::take(&mut send)).await?;
        while !result.is_empty() {
            let has_rows = !result.columns_ref().is_empty();
            let rows: Vec<mysql_async::Row> = result.collect().await?;
            if has_rows {
                all.push(rows.into_iter().map(mysql_async::Row::unwrap).collect());
            }
        }
        // An error of the last statement is told here only.
        result.drop_result().await?;
    }
    Ok(all)
}
