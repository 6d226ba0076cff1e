//! One connection that reads, and the answers of [`super::table::Table`]'s
//! queries as values.

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, Value};
use sha2::{Digest, Sha256};

use crate::copy::raw::image;
use crate::copy::select::{Bound, READ_SESSION};
use crate::rows::digest::{self, Strength};
use crate::rows::service::{ServiceAccount, ServiceError};

use super::json;
use super::table::Table;

/// For one query: a whole table at a time, where its key has no common order.
const QUERY_MAX: Duration = Duration::from_secs(6 * 3600);

/// Longest error text kept, in characters: it is shown to people.
const MESSAGE_MAX: usize = 300;

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Trying again may help.
    #[error(transparent)]
    Lost(#[from] ServiceError),
    /// The server refused, and would again.
    #[error("{0}")]
    Refused(String),
}

/// Half of a SHA2: tells rows apart.
pub type Id = [u8; 16];

/// A row on one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Of its key.
    pub id: Id,
    /// Of all its columns.
    pub digest: Id,
}

/// A row, with its key.
#[derive(Debug)]
pub struct Listed {
    /// Key and digest.
    pub seen: Seen,
    /// Its key's literals.
    pub key: Bound,
    /// Behind the end of the window.
    pub later: bool,
}

/// Rows and their digest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// How many.
    pub rows: u64,
    /// The sum of their digests, as the server prints it.
    pub sum: Vec<u8>,
}

/// A connection that comes back by itself.
pub struct Reader {
    account: ServiceAccount,
    conn: Option<Conn>,
    is_mariadb: bool,
}

fn bytes(value: Option<&Value>) -> Option<&[u8]> {
    match value {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

fn number<T: std::str::FromStr>(value: Option<&Value>) -> Option<T> {
    std::str::from_utf8(bytes(value)?).ok()?.parse().ok()
}

fn id(value: Option<&Value>) -> Option<Id> {
    let hex = bytes(value)?;
    let mut out = Id::default();
    if hex.len() != out.len() * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// Identity and digest, the columns that the servers did not digest taken in.
fn seen(columns: &[Value], fetched: usize) -> Option<Seen> {
    let (identity, mut digest) = (id(columns.first())?, id(columns.get(1))?);
    if fetched > 0 {
        let mut hash = Sha256::new();
        hash.update(digest);
        for column in columns.get(2..2 + fetched)? {
            match column {
                Value::Bytes(text) => json::update(&mut hash, text),
                _ => hash.update([0]),
            }
        }
        let hash = hash.finalize();
        digest
            .iter_mut()
            .zip(hash)
            .for_each(|(to, from)| *to = from);
    }
    Some(Seen {
        id: identity,
        digest,
    })
}

const STRANGE: &str = "the server gave no digest for a row: its values are too long";

fn strange<T>(option: Option<T>) -> Result<T, ReadError> {
    option.ok_or_else(|| ReadError::Refused(STRANGE.to_owned()))
}

fn sum(rows: Option<&Value>, sum: Option<&Value>, strength: Strength) -> Result<Sum, ReadError> {
    let rows = strange(number(rows))?;
    let sum = bytes(sum).unwrap_or_default();
    if digest::unread(rows, sum, strength) {
        return Err(ReadError::Refused(STRANGE.to_owned()));
    }
    Ok(Sum {
        rows,
        sum: sum.to_vec(),
    })
}

impl Reader {
    /// Connects when first needed.
    pub fn new(account: ServiceAccount) -> Reader {
        Reader {
            account,
            conn: None,
            is_mariadb: false,
        }
    }

    fn lost(&self, kind: &'static str, message: impl std::fmt::Display) -> ServiceError {
        let message = message.to_string();
        ServiceError {
            side: self.account.side,
            kind,
            message: message.chars().take(MESSAGE_MAX).collect(),
        }
    }

    /// Connects, and says whether it is a MariaDB.
    pub async fn is_mariadb(&mut self) -> Result<bool, ReadError> {
        if self.conn.is_none() {
            let conn = self.connect().await?;
            self.conn = Some(conn);
        }
        Ok(self.is_mariadb)
    }

    async fn connect(&mut self) -> Result<Conn, ReadError> {
        let mut conn = self.account.connect().await?;
        let version: Result<Option<String>, Error> = conn.query_first("SELECT VERSION()").await;
        let version = version.map_err(|e| self.lost("server", e))?;
        self.is_mariadb = version.is_some_and(|v| v.contains("MariaDB"));
        let limit = if self.is_mariadb {
            "SET SESSION max_statement_time=0"
        } else {
            "SET SESSION max_execution_time=0"
        };
        for sql in [READ_SESSION, limit] {
            let prepared = conn.query_drop(sql).await;
            prepared.map_err(|e| self.lost("server", e))?;
        }
        Ok(conn)
    }

    /// The rows of a query, as texts.
    pub async fn query(&mut self, sql: Vec<u8>) -> Result<Vec<Vec<Value>>, ReadError> {
        /// Shutdown, killed, interrupted, deadlock, lock wait, read only.
        const PASSING: [u16; 7] = [1053, 1927, 1317, 1213, 1205, 1290, 1836];
        // Taken out: dropped at the await, the connection is given up.
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        match tokio::time::timeout(QUERY_MAX, conn.query::<Row, _>(sql)).await {
            Err(_) => Err(self.lost("timeout", "a query took too long").into()),
            Ok(Ok(rows)) => {
                self.conn = Some(conn);
                let values = |row: Row| row.unwrap_raw().into_iter().flatten().collect();
                Ok(rows.into_iter().map(values).collect())
            }
            Ok(Err(Error::Server(e))) if !PASSING.contains(&e.code) => {
                self.conn = Some(conn);
                let text = format!("{} ({})", e.message, e.code);
                Err(ReadError::Refused(text.chars().take(MESSAGE_MAX).collect()))
            }
            Ok(Err(e)) => Err(self.lost("server", e).into()),
        }
    }

    /// One text; None if there is no row or it is NULL.
    pub async fn text(&mut self, sql: Vec<u8>) -> Result<Option<String>, ReadError> {
        let rows = self.query(sql).await?;
        let value = rows.first().and_then(|row| bytes(row.first()));
        Ok(value.map(|b| String::from_utf8_lossy(b).into_owned()))
    }

    /// The answer to [`Table::digest`].
    pub async fn sum(&mut self, sql: Vec<u8>, strength: Strength) -> Result<Sum, ReadError> {
        let rows = self.query(sql).await?;
        let row = strange(rows.first())?;
        sum(row.first(), row.get(1), strength)
    }

    /// The answer to [`Table::buckets`].
    pub async fn sums(
        &mut self,
        sql: Vec<u8>,
        strength: Strength,
    ) -> Result<HashMap<u32, Sum>, ReadError> {
        let rows = self.query(sql).await?;
        let buckets = rows.iter().map(|row| {
            let bucket = strange(number(row.first()))?;
            Ok((bucket, sum(row.get(1), row.get(2), strength)?))
        });
        buckets.collect()
    }

    /// The answer to [`Table::rows`].
    pub async fn listed(
        &mut self,
        table: &Table,
        side: usize,
        sql: Vec<u8>,
    ) -> Result<Vec<Listed>, ReadError> {
        let fetched = table.fetched_columns();
        let (shape, key) = table.projection(side);
        let rows = self.query(sql).await?.into_iter().map(|mut row| {
            let seen = strange(seen(&row, fetched))?;
            let later = number(row.get(2 + fetched)) == Some(1_u8);
            let values = row.split_off((3 + fetched).min(row.len()));
            let row = strange(image(values, &shape))?;
            Ok(Listed {
                seen,
                key: strange(Bound::of(&row, &key, &shape).ok())?,
                later,
            })
        });
        rows.collect()
    }

    /// The answer to [`Table::by_keys`]: for each key the row, if there is one.
    pub async fn by_keys(
        &mut self,
        table: &Table,
        side: usize,
        keys: &[&Bound],
    ) -> Result<Vec<Option<Seen>>, ReadError> {
        let fetched = table.fetched_columns();
        let mut out = vec![None; keys.len()];
        for row in self.query(table.by_keys(side, keys)).await? {
            let at: usize = strange(number(row.first()))?;
            let columns = row.get(1..).unwrap_or_default();
            let seen = strange(seen(columns, fetched))?;
            if let Some(place) = out.get_mut(at) {
                *place = Some(seen);
            }
        }
        Ok(out)
    }

    /// The answer to [`Table::lookup`].
    pub async fn lookup(
        &mut self,
        table: &Table,
        sql: Vec<u8>,
    ) -> Result<Option<Bound>, ReadError> {
        let (shape, key) = table.projection(0);
        let Some(values) = self.query(sql).await?.into_iter().next() else {
            return Ok(None);
        };
        let row = strange(image(values, &shape))?;
        Ok(Some(strange(Bound::of(&row, &key, &shape).ok())?))
    }
}
