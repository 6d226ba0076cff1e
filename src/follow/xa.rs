//! Transactions of XA: their rows stand in the log where they are prepared,
//! their fate where they are committed or rolled back, maybe days later.
//!
//! Rows of a prepared transaction are kept here until then. The checkpoint goes
//! on meanwhile; beside it stands where the oldest prepared transaction begins
//! (*resume*). A follower that starts reads from there, keeps what is prepared,
//! and passes over everything else up to the checkpoint: it is written already.

use crate::binlog::event::TransactionId;
use crate::binlog::progress::Place;
use crate::binlog::stream::Request;
use crate::binlog::{Body, Event, Position, Rows};
use crate::leg::Leg;
use crate::rows::service::ServiceAccount;

use super::batch::TableName;
use super::history::{self, Witness};
use super::tables::Meaning;
use super::writer::WriteError;
use super::{FollowError, Follower};

/// Bytes of rows kept for prepared transactions, all together.
const BYTES_MAX: usize = 64 << 20;

/// Prepared transactions kept: servers list them one by one (XA RECOVER).
const PREPARED_MAX: usize = 1000;

/// Rows of one transaction.
struct Stash {
    /// Where it begins.
    before: Position,
    rows: Vec<Rows>,
}

#[derive(Default)]
pub(super) struct State {
    /// Of the transaction being read, if it may end prepared.
    running: Option<Stash>,
    /// By id, in the log's order.
    prepared: Vec<(Vec<u8>, Stash)>,
    bytes: usize,
    /// The checkpoint, while what is read is before it.
    written: Option<Position>,
    /// The transaction being read is written already.
    known: bool,
}

impl State {
    /// Starts before the checkpoint.
    pub(super) fn since(written: Option<Position>) -> State {
        State {
            written,
            ..State::default()
        }
    }

    /// The transaction being read is written already.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// The transaction being read may end prepared.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where the oldest prepared transaction begins.
    pub(super) fn resume(&self) -> Option<&Position> {
        self.prepared.first().map(|(_, stash)| &stash.before)
    }

    fn take(&mut self, xid: &[u8]) -> Option<Vec<Rows>> {
        let at = self.prepared.iter().position(|(id, _)| id == xid)?;
        let (_, stash) = self.prepared.remove(at);
        self.bytes -= stash.rows.iter().map(Rows::size).sum::<usize>();
        Some(stash.rows)
    }
}

/// What a statement of XA does.
enum Said {
    Start,
    Commit(Vec<u8>),
    Rollback(Vec<u8>),
}

/// `XA COMMIT X'6162',X'',1`, as both families log it.
fn read(sql: &[u8]) -> Option<Said> {
    let text = std::str::from_utf8(sql).ok()?.trim();
    let head = text.get(..3)?;
    if !head.eq_ignore_ascii_case("XA ") {
        return None;
    }
    let mut words = text.splitn(3, ' ');
    let verb = words.nth(1)?.to_ascii_uppercase();
    match verb.as_str() {
        "START" | "BEGIN" => Some(Said::Start),
        "COMMIT" => Some(Said::Commit(xid(words.next()?)?)),
        "ROLLBACK" => Some(Said::Rollback(xid(words.next()?)?)),
        _ => None,
    }
}

/// An id as the events of XA PREPARE have it.
fn xid(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split(',').map(str::trim);
    let mut bytes = || {
        let hex = parts.next()?;
        let hex = hex.strip_prefix(['X', 'x'])?.strip_prefix('\'')?;
        let hex = hex.strip_suffix('\'')?.as_bytes();
        let digit = |b: u8| {
            char::from(b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let pairs = hex.chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        pairs.collect::<Option<Vec<u8>>>()
    };
    let (global, branch) = (bytes()?, bytes()?);
    let format: u32 = parts.next()?.trim_end_matches(';').parse().ok()?;
    let mut out = format.to_le_bytes().to_vec();
    for part in [&global, &branch] {
        out.extend_from_slice(&u32::try_from(part.len()).ok()?.to_le_bytes());
    }
    out.extend_from_slice(&global);
    out.extend_from_slice(&branch);
    Some(out)
}

/// Whether a place in a file is at or before another.
fn is_before(file: &str, end: u64, than: (&str, u64)) -> bool {
    let key = |file: &str| (file.len(), file.to_owned());
    (key(file), end) <= (key(than.0), than.1)
}

impl Follower {
    /// What the next checkpoint says beside the position.
    pub(super) fn remember(&mut self, event: &Event) {
        let server = self.server.as_deref();
        let witness = server.and_then(|s| Witness::of(s, self.progress.file(), event));
        if let Some(first) = self.workers.first_mut() {
            first.remember(self.xa.resume(), witness);
        }
    }

    /// To be called before [`Follower::run`]: makes sure that the log of
    /// `account`'s server is the one the checkpoint was made from, and has it
    /// remembered for the next time. `leg` is a connection of its own.
    ///
    /// # Errors
    /// [`StreamError::HistoryLost`](crate::binlog::stream::StreamError), or no
    /// answer.
    pub async fn verify(
        &mut self,
        account: &ServiceAccount,
        leg: Leg,
        request: &Request,
    ) -> Result<(), FollowError> {
        let server = history::identity(account).await;
        let server = server.map_err(WriteError::Service)?;
        let first = self.workers.first();
        if let Some(witness) = first.and_then(|w| w.witness()) {
            history::verify(leg, &server, request, witness).await?;
        }
        self.server = Some(server);
        Ok(())
    }

    /// Takes what is about XA, and what is written already; false: the event is
    /// an ordinary one.
    pub(super) fn xa(&mut self, event: &Event, place: Place) -> Result<bool, FollowError> {
        self.pass_over(event);
        match &event.body {
            // MariaDB's transaction that will end prepared; its completion is
            // a statement by itself.
            Body::Transaction(transaction) if transaction.xa && !transaction.standalone => {
                self.start_xa();
            }
            Body::Rows(rows) if self.xa.running.is_some() => {
                self.stash(rows)?;
                return Ok(true);
            }
            Body::XaPrepare { one_phase, xid } => {
                self.prepared(*one_phase, xid)?;
                return Ok(true);
            }
            Body::Query(query) => match read(&query.sql) {
                Some(Said::Start) => self.start_xa(),
                Some(Said::Commit(xid)) if place == Place::Alone => {
                    let Some(rows) = self.xa.take(&xid) else {
                        if self.xa.known {
                            return Ok(true);
                        }
                        return Err(self.stopped(
                            "XA COMMIT of a transaction that was prepared before the follower's \
                             start: its rows are not known (copy again while none is prepared)",
                        ));
                    };
                    self.settled(&rows)?;
                    return Ok(true);
                }
                Some(Said::Rollback(xid)) if place == Place::Alone => {
                    self.xa.take(&xid);
                    return Ok(true);
                }
                _ => {}
            },
            _ => {}
        }
        // A transaction that rolls back, or one of MariaDB that ends in one
        // phase, is no longer XA's.
        if matches!(place, Place::Commits | Place::RollsBack)
            && let Some(stash) = self.xa.running.take()
        {
            self.xa.bytes -= stash.rows.iter().map(Rows::size).sum::<usize>();
            if place == Place::Commits {
                self.settled(&stash.rows)?;
            }
        }
        Ok(self.xa.known)
    }

    /// Whether the event is before the checkpoint.
    fn pass_over(&mut self, event: &Event) {
        let Some(written) = &self.xa.written else {
            self.xa.known = false;
            return;
        };
        match (written, &event.body) {
            (Position::File { file, offset }, _) => {
                let end = u64::from(event.header.end);
                self.xa.known = end > 0 && is_before(self.progress.file(), end, (file, *offset));
                if end > 0 && !self.xa.known {
                    self.xa.written = None;
                }
            }
            (Position::Mysql(set), Body::Transaction(transaction)) => {
                self.xa.known = match &transaction.id {
                    TransactionId::Mysql(gtid) => set.contains(gtid),
                    _ => false,
                };
            }
            (Position::Maria(position), Body::Transaction(transaction)) => {
                self.xa.known = match &transaction.id {
                    TransactionId::Maria(gtid) => {
                        let last = position.last(gtid.domain);
                        last.is_some_and(|last| gtid.sequence <= last.sequence)
                    }
                    _ => false,
                };
            }
            _ => {}
        }
    }

    fn start_xa(&mut self) {
        if self.xa.running.is_none() {
            self.xa.running = Some(Stash {
                before: self.progress.position().clone(),
                rows: Vec::new(),
            });
        }
    }

    fn stash(&mut self, rows: &Rows) -> Result<(), FollowError> {
        let name = TableName::of(&rows.table);
        if matches!(self.tables.meaning(&name), Meaning::Skip) {
            return Ok(());
        }
        self.xa.bytes += rows.size();
        if self.xa.bytes > BYTES_MAX {
            return Err(self.stopped(format!(
                "transactions of XA that are not committed yet have more than {} MiB of rows",
                BYTES_MAX >> 20
            )));
        }
        if let Some(running) = &mut self.xa.running {
            running.rows.push(rows.clone());
        }
        Ok(())
    }

    /// Rows that are committed now.
    fn settled(&mut self, rows: &[Rows]) -> Result<(), FollowError> {
        if self.xa.known {
            return Ok(());
        }
        rows.iter().try_for_each(|rows| self.rows(rows))
    }

    fn prepared(&mut self, one_phase: bool, xid: &[u8]) -> Result<(), FollowError> {
        let Some(stash) = self.xa.running.take() else {
            return Ok(());
        };
        if one_phase {
            self.xa.bytes -= stash.rows.iter().map(Rows::size).sum::<usize>();
            return self.settled(&stash.rows);
        }
        if self.xa.prepared.len() >= PREPARED_MAX {
            return Err(self.stopped(format!(
                "more than {PREPARED_MAX} transactions of XA are prepared"
            )));
        }
        self.xa.prepared.push((xid.to_vec(), stash));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read() {
        let bytes = [&[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(xid("X'6162',X'63',1"), Some(bytes.clone()));
        assert!(
            matches!(read(b"XA COMMIT X'6162',X'63',1"), Some(Said::Commit(id)) if id == bytes)
        );
        assert!(matches!(
            read(b"xa rollback X'6162',X'63',1"),
            Some(Said::Rollback(_))
        ));
        assert!(matches!(read(b"XA START X'61',X'',1"), Some(Said::Start)));
        for none in [
            "XA END X'61',X'',1",
            "XA COMMIT x",
            "XA COMMIT X'6',X'',1",
            "X",
            "",
        ] {
            assert!(read(none.as_bytes()).is_none(), "{none}");
        }
    }

    #[test]
    fn files_are_ordered_by_number() {
        assert!(is_before("b.000009", 500, ("b.000010", 4)));
        assert!(is_before("b.999999", 500, ("b.1000000", 4)));
        assert!(!is_before("b.000010", 5, ("b.000010", 4)));
    }
}
