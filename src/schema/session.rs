//! A connection of the service account that reads and writes definitions, and
//! what is known of its server.

use std::collections::BTreeSet;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::SchemaError;
use crate::Side;
use crate::rows::service::{ServiceAccount, ServiceError, bytes, text};

/// For one question to information_schema, or one definition.
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// For one CREATE or ALTER that moves no rows.
pub const DDL_LIMIT: Duration = Duration::from_secs(60);

/// Most characters of a server's message that are kept.
const MESSAGE_MAX: usize = 400;

/// What every session says first: names in UTF-8, a definition's text without
/// surprises, zero dates as defaults, tables before their parents.
const SETUP: [&str; 2] = [
    "SET NAMES utf8mb4",
    "SET sql_mode='NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES', foreign_key_checks=0, \
     time_zone='+00:00', lock_wait_timeout=10",
];

/// Settings that may be missing on a server, or need a privilege that most
/// definitions can do without.
const WISHES: [&str; 6] = [
    "SET sql_quote_show_create=1",
    "SET information_schema_stats_expiry=0",
    "SET explicit_defaults_for_timestamp=1",
    "SET sql_require_primary_key=0",
    "SET sql_generate_invisible_primary_key=0",
    "SET restrict_fk_on_non_standard_key=0",
];

/// What is known of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// MariaDB, not MySQL.
    pub mariadb: bool,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// `VERSION()`.
    pub full: String,
    /// Names of its collations, with their character set in front.
    pub collations: BTreeSet<String>,
    /// Engines that can be used, in lower case.
    pub engines: BTreeSet<String>,
}

impl Server {
    /// Whether both are of one family.
    pub fn same_family(&self, other: &Server) -> bool {
        self.mariadb == other.mariadb
    }

    /// The family's name.
    pub fn family(&self) -> &'static str {
        if self.mariadb { "MariaDB" } else { "MySQL" }
    }
}

/// A connection. Given up after a deadline: what it would still send is not
/// the next question's answer.
pub struct Session {
    /// Whose.
    pub side: Side,
    conn: Option<Conn>,
    /// The server.
    pub server: Server,
}

/// A server's refusal, or the end of the connection.
#[derive(Debug)]
pub enum Refused {
    /// The server said no: its number and words.
    Server(u16, String),
    /// No more of this connection.
    Lost(SchemaError),
}

impl From<Refused> for SchemaError {
    fn from(refused: Refused) -> SchemaError {
        match refused {
            Refused::Server(code, said) => SchemaError::Refused(format!("{said} ({code})")),
            Refused::Lost(e) => e,
        }
    }
}

impl Session {
    /// Connects and prepares the session.
    ///
    /// # Errors
    /// The connection's.
    pub async fn open(account: &ServiceAccount) -> Result<Session, SchemaError> {
        let conn = account.connect().await?;
        let mut session = Session {
            side: account.side,
            conn: Some(conn),
            server: Server::default(),
        };
        session.setup().await?;
        for sql in WISHES {
            match session.run(sql).await {
                Ok(()) | Err(Refused::Server(..)) => {}
                Err(Refused::Lost(e)) => return Err(e),
            }
        }
        session.server = session.look().await?;
        Ok(session)
    }

    /// Says again what a definition's own context has changed.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn setup(&mut self) -> Result<(), SchemaError> {
        for sql in SETUP {
            self.run(sql).await?;
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<Server, SchemaError> {
        let version = self.one("SELECT VERSION()").await?.unwrap_or_default();
        let mariadb = version.to_ascii_lowercase().contains("mariadb");
        let mut numbers = version
            .split(|c: char| !c.is_ascii_digit())
            .map(|n| n.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let numbers = (next(), next(), next());
        // MariaDB names UCA 1400 collations without their character set.
        let names = if mariadb && numbers >= (10, 10, 0) {
            "SELECT FULL_COLLATION_NAME FROM \
             information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
        } else {
            "SELECT COLLATION_NAME FROM information_schema.COLLATIONS"
        };
        let engines = "SELECT LOWER(ENGINE) FROM information_schema.ENGINES \
                       WHERE SUPPORT IN ('YES', 'DEFAULT')";
        Ok(Server {
            mariadb,
            version: numbers,
            full: version,
            collations: self.column(names).await?.into_iter().collect(),
            engines: self.column(engines).await?.into_iter().collect(),
        })
    }

    fn lost(&self, kind: &'static str, message: String) -> Refused {
        Refused::Lost(SchemaError::Service(ServiceError {
            side: self.side,
            kind,
            message,
        }))
    }

    /// The rows of a statement.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn rows_within(&mut self, sql: &str, limit: Duration) -> Result<Vec<Row>, Refused> {
        let Some(mut conn) = self.conn.take() else {
            return Err(self.lost("connect", "the connection was given up".to_owned()));
        };
        match tokio::time::timeout(limit, conn.query::<Row, _>(sql)).await {
            Err(_) => Err(self.lost("timeout", format!("no answer within {} s", limit.as_secs()))),
            Ok(Ok(rows)) => {
                self.conn = Some(conn);
                Ok(rows)
            }
            Ok(Err(Error::Server(e))) => {
                self.conn = Some(conn);
                let said: String = e.message.chars().take(MESSAGE_MAX).collect();
                Err(Refused::Server(e.code, said))
            }
            Ok(Err(e)) => {
                let said: String = e.to_string().chars().take(MESSAGE_MAX).collect();
                Err(self.lost("connect", said))
            }
        }
    }

    /// The rows of a question.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refused> {
        self.rows_within(sql, QUERY_LIMIT).await
    }

    /// Runs a statement without a result.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn run(&mut self, sql: &str) -> Result<(), Refused> {
        self.rows_within(sql, DDL_LIMIT).await.map(|_| ())
    }

    /// The first column of all rows, as text.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn column(&mut self, sql: &str) -> Result<Vec<String>, Refused> {
        let rows = self.rows(sql).await?;
        Ok(rows.iter().filter_map(|r| text(r, 0)).collect())
    }

    /// The first column of the first row, as text.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn one(&mut self, sql: &str) -> Result<Option<String>, Refused> {
        let rows = self.rows(sql).await?;
        Ok(rows.first().and_then(|r| text(r, 0)))
    }

    /// Ends the connection in an orderly way.
    pub async fn close(mut self) {
        if let Some(conn) = self.conn.take() {
            let _ = tokio::time::timeout(QUERY_LIMIT, conn.disconnect()).await;
        }
    }
}

/// A column as UTF-8, or None where it is NULL or not text.
pub fn exact(row: &Row, index: usize) -> Option<String> {
    match row.as_ref(index) {
        Some(mysql_async::Value::NULL) | None => None,
        Some(_) => String::from_utf8(bytes(row, index)).ok(),
    }
}
