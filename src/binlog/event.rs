//! The event model: a header, and the body of every kind that matters.

use std::sync::Arc;

use bytes::Bytes;

use super::gtid::{Gtid, MariaGtid, MariaPosition};
use super::rows::Rows;
use super::table_map::TableMap;
use super::{DecodeError, need};
use crate::wire::Reader;

/// Length of an event's header, in bytes (binlog version 4, MySQL 5.0 on).
pub const HEADER_LEN: usize = 19;

/// The header of every event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// When its statement started, in seconds since 1970; 0 in artificial ones.
    pub timestamp: u32,
    /// Type code.
    pub kind: u8,
    /// Server that wrote it.
    pub server_id: u32,
    /// Bytes in all, header and checksum included.
    pub length: u32,
    /// Where it ends in its log file; 0 in artificial events and in events out
    /// of a payload.
    pub end: u32,
    /// Bits, see the constants.
    pub flags: u16,
}

impl Header {
    /// Made by the dump thread; stands in no file.
    pub const ARTIFICIAL: u16 = 0x20;
    /// A reader that does not know the type may go on.
    pub const IGNORABLE: u16 = 0x80;

    /// Reads it; None if there are not enough bytes.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let r = &mut Reader::new(bytes);
        Some(Header {
            timestamp: r.u32()?,
            kind: r.u8()?,
            server_id: r.u32()?,
            length: r.u32()?,
            end: r.u32()?,
            flags: r.u16()?,
        })
    }
}

/// An event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its header.
    pub header: Header,
    /// Its bytes in the log, or those of the payload it came in.
    pub origin: Origin,
    /// What it says.
    pub body: Body,
}

impl Event {
    /// A transaction ends here, and its changes stand.
    pub fn commits(&self) -> bool {
        match &self.body {
            Body::Commit { .. } => true,
            Body::XaPrepare { one_phase, .. } => *one_phase,
            Body::Query(query) => query.is(b"COMMIT"),
            _ => false,
        }
    }
}

/// Where an event's bytes stand in the log's file, and what they add up to: to
/// know it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// Offset of its first byte; 0 if it stands in no file.
    pub start: u32,
    /// Offset behind its last byte.
    pub end: u32,
    /// CRC-32 of its bytes without their checksum.
    pub sum: u32,
}

/// Who a transaction is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum TransactionId {
    /// No id (`gtid_mode=OFF`).
    #[default]
    Anonymous,
    /// MySQL's.
    Mysql(Gtid),
    /// MariaDB's.
    Maria(MariaGtid),
}

/// The start of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// Its id.
    pub id: TransactionId,
    /// When this server committed it, in microseconds since 1970 (MySQL 8).
    pub committed_us: Option<u64>,
    /// One event without an end of its own follows (MariaDB: DDL).
    pub standalone: bool,
    /// Prepared, or completed, by XA (MariaDB).
    pub xa: bool,
}

/// A statement in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// `CONNECTION_ID()` of its session.
    pub thread_id: u32,
    /// Default schema; empty without one.
    pub schema: Bytes,
    /// The text, in the session's `character_set_client`.
    pub sql: Bytes,
    /// The error it ended with on the server, 0 for none.
    pub error: u16,
    /// LOAD DATA under statement logging.
    pub load: bool,
    /// When it was executed, in seconds since 1970.
    pub at_s: u32,
    /// What its session was set to.
    pub context: Context,
}

/// The session a statement was executed in, as far as the log tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// `sql_mode`, in the bits of the server's family.
    pub mode: Option<u64>,
    /// Collations by number: `character_set_client`, `collation_connection`,
    /// `collation_server`.
    pub collations: Option<[u16; 3]>,
}

/// `sql_mode` bits that both families have in the same place.
const ANSI_QUOTES: u64 = 4;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

impl Context {
    /// Whether `"` quotes names.
    pub fn ansi_quotes(&self) -> bool {
        self.mode.is_some_and(|m| m & ANSI_QUOTES != 0)
    }

    /// Whether a backslash in a string is a plain character.
    pub fn no_backslash_escapes(&self) -> bool {
        self.mode.is_some_and(|m| m & NO_BACKSLASH_ESCAPES != 0)
    }

    /// Reads the status variables of a Query event. They come in a fixed order;
    /// behind the first that is not known nothing can be told.
    fn read(bytes: &[u8]) -> Context {
        const FLAGS: u8 = 0;
        const SQL_MODE: u8 = 1;
        const AUTO_INCREMENT: u8 = 3;
        const CHARSET: u8 = 4;
        const CATALOG: u8 = 6;
        let mut context = Context::default();
        let r = &mut Reader::new(bytes);
        while let Some(kind) = r.u8() {
            let known = match kind {
                FLAGS | AUTO_INCREMENT => r.u32().map(drop),
                SQL_MODE => {
                    context.mode = r.u64();
                    context.mode.map(drop)
                }
                CATALOG => {
                    let length = r.u8().map(usize::from);
                    length.and_then(|n| r.bytes(n)).map(drop)
                }
                CHARSET => {
                    let mut next = || r.u16();
                    context.collations = (|| Some([next()?, next()?, next()?]))();
                    context.collations.map(drop)
                }
                _ => None,
            };
            if known.is_none() {
                break;
            }
        }
        context
    }
}

impl Query {
    /// The text is this one word or pair of words, whatever the case.
    pub fn is(&self, words: &[u8]) -> bool {
        self.sql.trim_ascii().eq_ignore_ascii_case(words)
    }
}

/// What an event says.
#[derive(Clone, Debug)]
pub enum Body {
    /// The log's format: the server's version.
    Format(String),
    /// The reader goes on in this file.
    Rotate {
        /// Its name.
        file: String,
        /// Offset of its next event.
        offset: u64,
    },
    /// A transaction begins.
    Transaction(Transaction),
    /// MariaDB: the position at the start of the file.
    Positions(MariaPosition),
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, DDL, or a write logged as text.
    Query(Query),
    /// A transaction of InnoDB ends, committed.
    Commit {
        /// Its number.
        xid: u64,
    },
    /// XA PREPARE: the transaction's changes stand here, its fate later.
    XaPrepare {
        /// XA COMMIT … ONE PHASE: committed here.
        one_phase: bool,
        /// Its id: format, lengths of its two parts, the parts.
        xid: Bytes,
    },
    /// The text of the statement whose rows follow (annotations, rows query).
    Text(Bytes),
    /// Columns of a table.
    TableMap(Arc<TableMap>),
    /// Changed rows.
    Rows(Rows),
    /// A value for the statement after it: only before writes logged as text.
    StatementContext,
    /// The server is there and has nothing new.
    Heartbeat,
    /// The server stopped; its log goes on in the next file.
    Stop,
    /// The server says that its log lacks something.
    Incident(String),
    /// Has no meaning for us.
    Ignored,
}

/// Reads a Query event's body (2, and the inside of 165 and 18).
pub(super) fn query(body: &Bytes, kind: u8, at_s: u32) -> Result<Query, DecodeError> {
    const COMPRESSED: u8 = 165;
    const EXECUTE_LOAD_QUERY: u8 = 18;
    const LOAD_QUERY_EXTRA: usize = 13;
    let r = &mut Reader::new(body);
    let thread_id = need(r.u32(), "query", r)?;
    need(r.u32(), "query", r)?;
    let schema_length = usize::from(need(r.u8(), "query", r)?);
    let error = need(r.u16(), "query", r)?;
    let variables = usize::from(need(r.u16(), "query", r)?);
    if kind == EXECUTE_LOAD_QUERY {
        need(r.bytes(LOAD_QUERY_EXTRA), "LOAD DATA query", r)?;
    }
    let variables = need(r.bytes(variables), "status variables of a query", r)?;
    let context = Context::read(variables);
    let schema = need(r.range(schema_length), "schema of a query", r)?;
    need(r.u8(), "schema of a query", r)?;
    let sql = if kind == COMPRESSED {
        super::payload::inflate(r.rest())?
    } else {
        body.slice(r.pos()..)
    };
    Ok(Query {
        thread_id,
        schema: body.slice(schema),
        sql,
        error,
        load: kind == EXECUTE_LOAD_QUERY,
        at_s,
        context,
    })
}

/// ROTATE (4).
pub(super) fn rotate(body: &[u8]) -> Result<Body, DecodeError> {
    let r = &mut Reader::new(body);
    let offset = need(r.u64(), "rotation", r)?;
    let file = String::from_utf8(r.rest().to_vec());
    let file = file.map_err(|_| DecodeError::new("name of a log file", 8))?;
    Ok(Body::Rotate { file, offset })
}

/// XA_PREPARE (38).
pub(super) fn xa_prepare(body: &Bytes) -> Result<Body, DecodeError> {
    let r = &mut Reader::new(body);
    let one_phase = need(r.u8(), "XA PREPARE", r)? != 0;
    need(r.u32(), "XA PREPARE", r)?;
    let parts = [
        need(r.u32(), "XA PREPARE", r)?,
        need(r.u32(), "XA PREPARE", r)?,
    ];
    for part in parts {
        let length = need(usize::try_from(part).ok(), "XA PREPARE", r)?;
        need(r.bytes(length), "id of XA PREPARE", r)?;
    }
    let xid = body.slice(1..r.pos());
    Ok(Body::XaPrepare { one_phase, xid })
}

/// INCIDENT (26): a number and a message.
pub(super) fn incident(body: &[u8]) -> Result<Body, DecodeError> {
    let r = &mut Reader::new(body);
    need(r.u16(), "incident", r)?;
    let length = usize::from(r.u8().unwrap_or(0));
    let text = r.bytes(length).unwrap_or_default();
    Ok(Body::Incident(String::from_utf8_lossy(text).into_owned()))
}
