//! Where transactions begin and end in a stream of events, and the position
//! behind the last whole one.
//!
//! ```text
//! MySQL    GTID  BEGIN  …rows…  Xid | COMMIT | ROLLBACK | XA_PREPARE
//!          GTID  DDL
//! MariaDB  GTID         …rows…  Xid | COMMIT | ROLLBACK | XA_PREPARE
//!          GTID(standalone)  DDL
//! no GTID        BEGIN  …rows…  Xid | COMMIT | ROLLBACK
//!                DDL
//! ```

use super::event::{Body, Event, Transaction, TransactionId};
use super::gtid::Position;

/// What an event means for the transaction it stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Outside of transactions: rotation, format, heartbeat.
    Outside,
    /// A transaction's first event.
    Begins,
    /// Inside.
    Inside,
    /// Its last event; its changes are committed.
    Commits,
    /// Its last event; its changes are undone (non-transactional tables
    /// excepted).
    RollsBack,
    /// Its last event for now: XA PREPARE. Its changes stand before, and
    /// whether they hold is told later.
    Prepares,
    /// A statement that is a transaction by itself: DDL, XA COMMIT.
    Alone,
}

/// Follows a stream.
#[derive(Debug)]
pub struct Progress {
    position: Position,
    /// The running transaction's id and whether a BEGIN was seen.
    running: Option<(TransactionId, bool)>,
    standalone: bool,
    /// The file being read; MySQL and MariaDB name it in every dump.
    file: String,
}

impl Progress {
    /// Everything before `position` has been read.
    pub fn new(position: Position) -> Progress {
        let file = match &position {
            Position::File { file, .. } => file.clone(),
            _ => String::new(),
        };
        Progress {
            position,
            running: None,
            standalone: false,
            file,
        }
    }

    /// Behind the last whole transaction.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The file being read; empty before its name came.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The id of the transaction being read.
    pub fn running(&self) -> Option<&TransactionId> {
        self.running.as_ref().map(|(id, _)| id)
    }

    /// Takes the next event of the stream.
    pub fn take(&mut self, event: &Event) -> Place {
        let place = self.place(event);
        if matches!(
            place,
            Place::Commits | Place::RollsBack | Place::Prepares | Place::Alone
        ) {
            let id = self.running.take().map(|(id, _)| id).unwrap_or_default();
            self.ended(&id, event.header.end);
        } else if place == Place::Outside && self.running.is_none() && event.header.end > 0 {
            // So that an idle log's file position moves too.
            self.ended(&TransactionId::Anonymous, event.header.end);
        }
        place
    }

    fn place(&mut self, event: &Event) -> Place {
        match &event.body {
            Body::Rotate { file, offset } => {
                self.file.clone_from(file);
                if let Position::File {
                    file: at,
                    offset: o,
                } = &mut self.position
                {
                    at.clone_from(file);
                    *o = *offset;
                }
                Place::Outside
            }
            Body::Transaction(transaction) => self.begins(transaction),
            _ if event.commits() => Place::Commits,
            Body::XaPrepare { .. } => Place::Prepares,
            Body::Query(query) if query.is(b"ROLLBACK") => Place::RollsBack,
            Body::Query(query) if self.begins_by_query(&query.sql) => {
                let first = self.running.is_none();
                let id = self.running.take().map(|(id, _)| id).unwrap_or_default();
                self.running = Some((id, true));
                if first { Place::Begins } else { Place::Inside }
            }
            Body::Query(_) => match &self.running {
                Some((_, true)) if !self.standalone => Place::Inside,
                _ => Place::Alone,
            },
            _ if self.running.is_some() => Place::Inside,
            _ => Place::Outside,
        }
    }

    /// MySQL begins with BEGIN, or XA START for a transaction of XA.
    fn begins_by_query(&self, sql: &[u8]) -> bool {
        let words = sql.trim_ascii_start();
        let starts = |with: &[u8]| {
            words
                .get(..with.len())
                .is_some_and(|w| w.eq_ignore_ascii_case(with))
        };
        words.trim_ascii_end().eq_ignore_ascii_case(b"BEGIN") || starts(b"XA START")
    }

    fn begins(&mut self, transaction: &Transaction) -> Place {
        // MariaDB's GTID is the BEGIN, unless it stands alone.
        let maria = matches!(transaction.id, TransactionId::Maria(_));
        self.standalone = transaction.standalone;
        self.running = Some((transaction.id.clone(), maria && !transaction.standalone));
        Place::Begins
    }

    fn ended(&mut self, id: &TransactionId, end: u32) {
        match (&mut self.position, id) {
            (Position::Mysql(set), TransactionId::Mysql(gtid)) => set.add(gtid),
            (Position::Maria(position), TransactionId::Maria(gtid)) => position.add(*gtid),
            // 0: artificial, stands in no file.
            (Position::File { file, offset }, _) if end > 0 => {
                file.clone_from(&self.file);
                *offset = u64::from(end);
            }
            _ => {}
        }
        self.standalone = false;
    }
}
