//! A replication connection: asks a server for its log and yields its events.
//!
//! ```text
//! session variables ─ COM_REGISTER_SLAVE ─ COM_BINLOG_DUMP(_GTID) ─► packets
//! ```
//!
//! The server thinks a replica reads it: the service account needs REPLICATION
//! SLAVE. A reader that does not send `slave_uuid` would live on beside its
//! own successor after a reconnect; with it the server ends the older one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::decoder::{Decoded, Decoder};
use super::event::Event;
use super::gtid::Position;
use super::payload::{EVENT_MAX, Payload};
use super::{DecodeError, Header};
use crate::Side;
use crate::leg::{ANSWER_MAX, Leg, Lost, put_query};
use crate::wire::frame::{HEADER_LEN, PAYLOAD_MAX, header, put_command};
use crate::wire::{ErrPacket, ResponseKind};

/// How often an idle server says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Silence after which the connection counts as lost: a few heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Bytes that a COM_BINLOG_DUMP's events start after in a file: the magic.
const FIRST_OFFSET: u32 = 4;

/// ER_MASTER_FATAL_ERROR_READING_BINLOG: among others, the position asked for
/// is not in the server's logs.
const ER_READING_BINLOG: u16 = 1236;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1E;

/// End at the log's end instead of waiting for more.
const NON_BLOCK: u16 = 1;
/// MariaDB: send the texts of statements too.
const SEND_ANNOTATIONS: u16 = 2;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection broke; a new one may go on from the last position.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The server's log does not hold the position: purged, or its tail was
    /// lost. Going on is not possible.
    #[error("{side}: the log does not hold the position asked for: {message}")]
    HistoryLost {
        /// Which backend.
        side: Side,
        /// The server's words.
        message: String,
    },
    /// The server said no.
    #[error("{side}: error {code}: {message}")]
    Refused {
        /// Which backend.
        side: Side,
        /// The server's error number.
        code: u16,
        /// Its words.
        message: String,
    },
    /// An event cannot be read; going on would lose what it says.
    #[error("{side}: {error}")]
    Event {
        /// Which backend.
        side: Side,
        /// What and where.
        error: DecodeError,
    },
}

/// What to ask a server for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Everything after this.
    pub from: Position,
    /// Our number among the server's replicas; must differ from theirs.
    pub server_id: u32,
    /// Our identity: a second stream with the same one ends the first.
    pub uuid: String,
    /// End at the log's end instead of waiting for more.
    pub until_end: bool,
    /// MariaDB's statements before the rows they changed, too.
    pub texts: bool,
    /// At the log's end: between two looks for more. A server sends each event
    /// by itself, and to wake for each costs more than what they say.
    pub pause: Duration,
}

/// A read of fewer bytes than these has left none behind.
const AT_END_BYTES: usize = 4096;

/// An open stream of events.
pub struct BinlogStream {
    leg: Leg,
    decoder: Decoder,
    payload: Option<(Header, Payload)>,
    ended: bool,
    pause: Duration,
    /// The last read had little: all that is there was read.
    at_end: bool,
}

/// Takes the answer to one of our own commands, of which only an error matters.
async fn accepted(leg: &mut Leg) -> Result<(), StreamError> {
    let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
    if !answer.summary.is_error {
        return Ok(());
    }
    let error = ErrPacket::parse(answer.payload()).map_err(|e| leg.lost(e.to_string()))?;
    Err(StreamError::Refused {
        side: leg.side,
        code: error.code,
        message: String::from_utf8_lossy(error.message).into_owned(),
    })
}

/// Text as a quoted literal; only for texts of ours, which have no quotes.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !matches!(c, '\'' | '\\')).collect();
    format!("'{plain}'")
}

/// The session variables a dump thread looks at.
fn preparation(request: &Request, mariadb: bool) -> Vec<String> {
    let period = HEARTBEAT.as_nanos();
    let mut all = vec![
        // What is sent is checked by the reader; without this the server
        // refuses to send logs with checksums.
        "SET @master_binlog_checksum=@@global.binlog_checksum".to_owned(),
        format!("SET @master_heartbeat_period={period}"),
        format!("SET @slave_uuid={}", quoted(&request.uuid)),
    ];
    if mariadb {
        // 4: understands GTID events, which come only to those that do.
        all.push("SET @mariadb_slave_capability=4".to_owned());
        if let Position::Maria(position) = &request.from {
            all.push(format!(
                "SET @slave_connect_state={}",
                quoted(&position.to_string())
            ));
            // Absent positions are errors, not guesses.
            all.push("SET @slave_gtid_strict_mode=1".to_owned());
        }
    } else {
        all.push("SET @source_binlog_checksum=@@global.binlog_checksum".to_owned());
        all.push(format!("SET @source_heartbeat_period={period}"));
        all.push(format!("SET @replica_uuid={}", quoted(&request.uuid)));
    }
    all
}

fn register(request: &Request) -> Vec<u8> {
    let mut body = request.server_id.to_le_bytes().to_vec();
    // Host, user and password as SHOW REPLICAS would list them, port, rank and
    // the source's id: all empty.
    body.extend_from_slice(&[0; 3 + 2 + 4 + 4]);
    let mut out = Vec::new();
    put_command(&mut out, COM_REGISTER_SLAVE, &body);
    out
}

fn dump(request: &Request, mariadb: bool) -> Vec<u8> {
    let mut flags = if request.until_end { NON_BLOCK } else { 0 };
    if mariadb && request.texts {
        flags |= SEND_ANNOTATIONS;
    }
    let mut body = Vec::new();
    let command = if let Position::Mysql(set) = &request.from {
        body.extend_from_slice(&flags.to_le_bytes());
        body.extend_from_slice(&request.server_id.to_le_bytes());
        body.extend_from_slice(&0u32.to_le_bytes());
        body.extend_from_slice(&u64::from(FIRST_OFFSET).to_le_bytes());
        let set = set.encode();
        let length = u32::try_from(set.len()).unwrap_or(u32::MAX);
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&set);
        COM_BINLOG_DUMP_GTID
    } else {
        let (file, offset) = match &request.from {
            Position::File { file, offset } => (file.as_str(), *offset),
            _ => ("", u64::from(FIRST_OFFSET)),
        };
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        body.extend_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(&flags.to_le_bytes());
        body.extend_from_slice(&request.server_id.to_le_bytes());
        body.extend_from_slice(file.as_bytes());
        COM_BINLOG_DUMP
    };
    let mut out = Vec::new();
    put_command(&mut out, command, &body);
    out
}

impl BinlogStream {
    /// Turns a logged-in connection of the service account into a stream.
    ///
    /// # Errors
    /// The connection is lost, or the server refuses (privilege, GTID mode). A
    /// position that its logs lack shows with the first event.
    pub async fn start(mut leg: Leg, request: &Request) -> Result<BinlogStream, StreamError> {
        let mariadb = leg.info.mariadb;
        let mut out = Vec::new();
        let statements = preparation(request, mariadb);
        for sql in &statements {
            put_query(&mut out, leg.capabilities, sql.as_bytes());
        }
        leg.send(&out).await?;
        for _ in &statements {
            accepted(&mut leg).await?;
        }
        leg.send(&register(request)).await?;
        accepted(&mut leg).await?;
        leg.send(&dump(request, mariadb)).await?;
        Ok(BinlogStream {
            leg,
            decoder: Decoder::new(),
            payload: None,
            ended: false,
            pause: request.pause,
            at_end: false,
        })
    }

    /// The backend.
    pub fn side(&self) -> Side {
        self.leg.side
    }

    /// The connection's id on its server.
    pub fn thread_id(&self) -> u32 {
        self.leg.info.thread_id
    }

    /// Whether it reads a MariaDB server.
    pub fn is_mariadb(&self) -> bool {
        self.leg.info.mariadb
    }

    /// The next event; None at the log's end, with `until_end` only.
    ///
    /// # Errors
    /// The stream cannot go on. Not cancel safe: a dropped wait may lose half
    /// an event, so the stream must be dropped too.
    pub async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        let side = self.leg.side;
        let failed = |error| StreamError::Event { side, error };
        loop {
            if let Some((header, payload)) = &mut self.payload {
                let place = |e: DecodeError| DecodeError {
                    kind: header.kind,
                    end: header.end,
                    ..e
                };
                match payload.next_event().map_err(|e| failed(place(e)))? {
                    Some(bytes) => {
                        let event = self.decoder.decode_inner(&bytes);
                        let mut event = event.map_err(|e| failed(place(e)))?;
                        // They stand in no file; the payload does.
                        event.header.end = header.end;
                        return Ok(Some(event));
                    }
                    None => self.payload = None,
                }
            }
            let Some(bytes) = self.packet().await? else {
                return Ok(None);
            };
            match self.decoder.decode(&bytes).map_err(failed)? {
                Decoded::Event(event) => return Ok(Some(event)),
                Decoded::Payload(header, payload) => self.payload = Some((header, payload)),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Lost> {
        if self.at_end && !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        let before = self.leg.input.pending().len();
        match tokio::time::timeout(SILENCE_MAX, self.leg.fill()).await {
            Ok(filled) => {
                self.at_end = self.leg.input.pending().len() < before + AT_END_BYTES;
                filled
            }
            Err(_) => {
                let seconds = SILENCE_MAX.as_secs();
                Err(self.leg.lost(format!("no heartbeat for {seconds} s")))
            }
        }
    }

    /// The bytes of the next event, put together from its packets.
    async fn packet(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.ended {
            return Ok(None);
        }
        let mut event = BytesMut::new();
        loop {
            let head = loop {
                if let Some(head) = header(self.leg.input.pending()) {
                    break head;
                }
                self.fill().await?;
            };
            self.leg.input.consume(HEADER_LEN);
            if event.len() + head.len > EVENT_MAX {
                return Err(self
                    .leg
                    .lost(format!("event over {EVENT_MAX} bytes"))
                    .into());
            }
            let mut left = head.len;
            while left > 0 {
                if self.leg.input.pending().is_empty() {
                    self.fill().await?;
                }
                let part = self.leg.input.pending();
                let n = part.len().min(left);
                event.extend_from_slice(part.get(..n).unwrap_or_default());
                self.leg.input.consume(n);
                left -= n;
            }
            if head.len < PAYLOAD_MAX {
                break;
            }
        }
        match event.first() {
            Some(0) => Ok(Some(event.freeze().slice(1..))),
            Some(0xFF) => Err(self.refused(&event)),
            Some(0xFE) if event.len() < 9 => {
                self.ended = true;
                Ok(None)
            }
            _ => Err(self
                .leg
                .lost("neither an event, an error nor the end")
                .into()),
        }
    }

    fn refused(&self, packet: &[u8]) -> StreamError {
        let side = self.leg.side;
        match ErrPacket::parse(packet) {
            Ok(error) => {
                let message = String::from_utf8_lossy(error.message).into_owned();
                // It also says so to a reader whose ids another one has taken.
                let taken = message.contains("server_uuid");
                if error.code == ER_READING_BINLOG && !taken {
                    StreamError::HistoryLost { side, message }
                } else {
                    StreamError::Refused {
                        side,
                        code: error.code,
                        message,
                    }
                }
            }
            Err(e) => self.leg.lost(e.to_string()).into(),
        }
    }
}
