//! One backend connection of one client session.
//!
//! A [`Leg`] sends raw commands and reads answers, either buffered whole
//! (our own commands, mirrored writes) or fed through its response cursor by
//! the session's relay. It knows nothing of clients and routes.
//!
//! Commands may be pipelined: send several in one write, then read their
//! answers in order. A leg whose answer was not read to its end is unusable
//! and must be dropped.

pub mod buffer;
pub mod connect;
pub mod grants;
pub mod ours;
pub mod service;
pub mod stream;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWriteExt;

use crate::Side;
use crate::wire::command::ResponseKind;
use crate::wire::frame::HEADER_LEN;
use crate::wire::ok::{ErrPacket, OkPacket};
use crate::wire::response::{Event, ResponseCursor, Summary};
use crate::wire::text_rows::{QueryAnswer, parse_text_result};
use crate::wire::{Capabilities, Status, frame};
use buffer::Buffer;
use connect::{Authenticated, ServerInfo};
use stream::Stream;

/// The largest answer of a command of our own that is kept whole, in bytes.
pub const ANSWER_MAX: usize = 1 << 20;

/// The largest answer to SHOW WARNINGS, in bytes: max_error_count may be
/// 65,535, and a message has 512 bytes at most.
pub const WARNINGS_MAX: usize = 64 << 20;

/// An established leg that cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[error("{side}: {what}")]
pub struct Lost {
    /// Whose connection it was.
    pub side: Side,
    /// What happened, without any data of the session.
    pub what: String,
}

/// One connection to one backend.
pub struct Leg {
    /// The backend.
    pub side: Side,
    /// What the server said of itself at login.
    pub info: ServerInfo,
    /// Negotiated on this leg.
    pub capabilities: Capabilities,
    /// The stream; the relay reads it directly.
    pub stream: Stream,
    /// Bytes read and not consumed.
    pub input: Buffer,
    water: Water,
    /// Where in a response the stream stands.
    pub cursor: ResponseCursor,
    /// The status flags of the last answer that carried any.
    pub status: Status,
    /// The default schema this leg is known to have.
    pub database: Option<Vec<u8>>,
    /// The version of the session's state this leg has been brought to.
    pub applied: u64,
    /// The session isolation last set or read on this leg.
    pub isolation: Option<crate::sql::Isolation>,
    /// The session is READ ONLY on this leg.
    pub read_only: bool,
    /// The client's own `timestamp`, as set on this leg.
    pub own_timestamp: Option<Vec<u8>>,
    nonce: [u8; crate::auth::NONCE_LEN],
    max_packet: u32,
    /// Whether `timestamp` was set by us and not reset (mirrors only).
    pub timestamp_set: bool,
    /// Counted by whoever counts legs whose transaction has searched, one of each,
    /// until it has ended, or the leg (mirrors only).
    pub searched: Vec<Arc<()>>,
}

/// How the kernel wakes a leg's reader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Water {
    /// At the first byte.
    Usual,
    /// Later, until a read has brought something.
    Raised,
    /// Later, and the next read sets it back.
    Used,
}

/// The smallest answer of a command with one, in bytes: an OK packet.
const ANSWER_MIN: usize = HEADER_LEN + 7;

/// One answer, kept whole.
#[derive(Default)]
pub struct Answer {
    /// The raw packets.
    pub bytes: Vec<u8>,
    /// What the cursor saw.
    pub summary: Summary,
}

impl Answer {
    /// The payload of the first packet; empty if there is none.
    pub fn payload(&self) -> &[u8] {
        frame::packet(&self.bytes).map_or(&[], |(payload, _, _)| payload)
    }

    /// The OK packet, when the answer is a single one.
    pub fn ok(&self, capabilities: Capabilities) -> Option<OkPacket<'_>> {
        if self.summary.is_error || self.summary.result_sets > 0 {
            return None;
        }
        OkPacket::parse(self.payload(), capabilities).ok()
    }

    /// `code (message)` of an ERR, for logs: servers put no secrets there,
    /// but they may put values, so it is cut short.
    pub fn error_text(&self) -> String {
        match ErrPacket::parse(self.payload()) {
            Ok(e) => {
                let text = String::from_utf8_lossy(e.message);
                format!("{} {}", e.code, text.chars().take(120).collect::<String>())
            }
            Err(_) => "unreadable error".to_string(),
        }
    }
}

impl Leg {
    /// Takes over a connection that has just logged in.
    pub fn new(side: Side, login: Authenticated, database: Option<Vec<u8>>) -> Leg {
        Leg {
            side,
            info: login.info,
            capabilities: login.capabilities,
            stream: login.stream,
            input: Buffer::default(),
            water: Water::Usual,
            cursor: ResponseCursor::new(login.capabilities),
            status: login.status,
            database,
            applied: 0,
            isolation: None,
            read_only: false,
            own_timestamp: None,
            timestamp_set: false,
            searched: Vec::new(),
            nonce: login.nonce,
            max_packet: login.max_packet,
        }
    }

    /// Back to what a login exchange works on. None when bytes of an answer
    /// are still unread.
    pub fn into_login(self) -> Option<Authenticated> {
        if !self.input.pending().is_empty() {
            return None;
        }
        Some(Authenticated {
            side: self.side,
            stream: self.stream,
            info: self.info,
            nonce: self.nonce,
            capabilities: self.capabilities,
            max_packet: self.max_packet,
            status: self.status,
            ok: Vec::new(),
        })
    }

    /// Takes the status flags of an answer.
    pub fn answered(&mut self, status: Status) {
        self.status = status;
        if !self.searched.is_empty() && !status.has(Status::IN_TRANS) {
            self.searched.clear();
        }
    }

    /// The error of this leg.
    pub fn lost(&self, what: impl Into<String>) -> Lost {
        Lost {
            side: self.side,
            what: what.into(),
        }
    }

    /// Sends raw bytes: one or several whole commands, or a part of one.
    ///
    /// # Errors
    /// The connection is lost. Not cancel safe: a cancelled send leaves half a
    /// packet behind, so the leg must be dropped.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        match self.stream.write_all(bytes).await {
            Ok(()) => {
                if self.stream.is_tls() {
                    let flushed = self.stream.flush().await;
                    return flushed.map_err(|e| self.lost(format!("write: {e}")));
                }
                Ok(())
            }
            Err(e) => Err(self.lost(format!("write: {e}"))),
        }
    }

    /// `answers` answers are awaited, and nothing can be done with the first
    /// of them alone: the session is not to be woken for it. Lasts for one
    /// read.
    pub fn wake_for(&mut self, answers: usize) {
        let bytes = u16::try_from(answers * ANSWER_MIN).unwrap_or(u16::MAX);
        if answers > 1 && self.stream.low_water(bytes) {
            self.water = Water::Raised;
        }
    }

    /// Reads more bytes into `input`: their number, 0 at the end of the stream.
    ///
    /// Every read of a leg comes through here: one that found the water still
    /// raised could wait for ever for a short answer.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.water == Water::Used {
            self.stream.low_water(1);
            self.water = Water::Usual;
        }
        let filled = ready!(self.input.poll_fill(&mut self.stream, cx));
        if self.water == Water::Raised {
            // Set back at the next read: this one's bytes are more urgent.
            self.water = Water::Used;
        }
        Poll::Ready(filled)
    }

    /// Reads more bytes into `input`.
    ///
    /// # Errors
    /// The connection is lost; the end of the stream is one way of it.
    pub async fn fill(&mut self) -> Result<(), Lost> {
        match std::future::poll_fn(|cx| self.poll_fill(cx)).await {
            Ok(0) => Err(self.lost("closed by the server")),
            Ok(_) => Ok(()),
            Err(e) => Err(self.lost(format!("read: {e}"))),
        }
    }

    /// Reads one whole answer of a command of `kind`, of at most `max` bytes.
    ///
    /// # Errors
    /// The connection is lost, the server broke the protocol, or the answer is
    /// larger than `max`. Not cancel safe: drop the leg.
    pub async fn answer(&mut self, kind: ResponseKind, max: usize) -> Result<Answer, Lost> {
        let mut answer = Answer::default();
        self.cursor.report_state(false);
        self.cursor.begin(kind);
        loop {
            while !self.input.pending().is_empty() {
                let pending = self.input.pending();
                let fed = match self.cursor.feed(pending) {
                    Ok(fed) => fed,
                    Err(e) => return Err(self.lost(e.to_string())),
                };
                if answer.bytes.len() + fed.consumed > max {
                    return Err(self.lost(format!("answer over {max} bytes")));
                }
                answer.bytes.extend_from_slice(&pending[..fed.consumed]);
                self.input.consume(fed.consumed);
                match fed.event {
                    Event::Done => {
                        answer.summary = *self.cursor.summary();
                        // A prepare answer may have no status flags at all.
                        if !answer.summary.is_error && answer.summary.prepare.is_none() {
                            self.answered(answer.summary.status);
                        }
                        return Ok(answer);
                    }
                    Event::More => {}
                    _ => return Err(self.lost("unexpected packet in an answer")),
                }
            }
            self.fill().await?;
        }
    }

    /// Sends one statement of ours and reads its answer.
    ///
    /// # Errors
    /// As [`Leg::answer`].
    pub async fn query(&mut self, sql: &[u8]) -> Result<Answer, Lost> {
        let mut out = Vec::with_capacity(sql.len() + 8);
        put_query(&mut out, self.capabilities, sql);
        self.send(&out).await?;
        self.answer(ResponseKind::Generic, ANSWER_MAX).await
    }

    /// SHOW WARNINGS.
    ///
    /// # Errors
    /// As [`Leg::answer`].
    pub async fn warnings(&mut self) -> Result<Answer, Lost> {
        let mut out = Vec::with_capacity(32);
        put_query(&mut out, self.capabilities, b"SHOW WARNINGS");
        self.send(&out).await?;
        self.answer(ResponseKind::Generic, WARNINGS_MAX).await
    }

    /// [`Leg::query`], with the text rows read.
    ///
    /// # Errors
    /// As [`Leg::answer`], or rows that cannot be read.
    pub async fn rows(&mut self, sql: &[u8]) -> Result<QueryAnswer, Lost> {
        let answer = self.query(sql).await?;
        parse_text_result(&answer.bytes, self.capabilities).map_err(|e| self.lost(e.to_string()))
    }

    /// Whether the server still has a transaction open, after an error packet
    /// (which carries no status flags).
    ///
    /// # Errors
    /// As [`Leg::answer`].
    pub async fn ping_in_transaction(&mut self) -> Result<bool, Lost> {
        let answer = self.ping().await?;
        Ok(answer.summary.status.has(Status::IN_TRANS))
    }

    /// COM_PING. Its answer has the flags, and what has changed in the session
    /// since the last one that could say so.
    ///
    /// # Errors
    /// As [`Leg::answer`].
    pub async fn ping(&mut self) -> Result<Answer, Lost> {
        let mut out = Vec::with_capacity(8);
        frame::put_command(&mut out, crate::wire::command::COM_PING, &[]);
        self.send(&out).await?;
        self.answer(ResponseKind::Generic, ANSWER_MAX).await
    }
}

/// Appends a COM_QUERY, with the empty attribute block where the leg has
/// negotiated CLIENT_QUERY_ATTRIBUTES.
pub fn put_query(out: &mut Vec<u8>, capabilities: Capabilities, sql: &[u8]) {
    if capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
        let mut body = Vec::with_capacity(sql.len() + 2);
        body.extend_from_slice(&[0, 1]);
        body.extend_from_slice(sql);
        frame::put_command(out, crate::wire::command::COM_QUERY, &body);
    } else {
        frame::put_command(out, crate::wire::command::COM_QUERY, sql);
    }
}
