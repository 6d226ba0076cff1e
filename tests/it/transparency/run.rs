//! One run of a case: a fresh connection, what was said on it, and what is left
//! in the tables.

use super::raw::{Login, Packet, Raw};
use lockstep::wire::command::*;
use lockstep::wire::lenenc;
use lockstep::wire::ok::OkPacket;
use lockstep::wire::session_track::{self, Change};
use lockstep::wire::{Capabilities, Status};
use std::io;

/// How a case's statements are sent.
#[derive(Clone, Copy, PartialEq)]
pub struct Mode {
    pub name: &'static str,
    pub capabilities: Capabilities,
    /// By COM_STMT_PREPARE and EXECUTE instead of COM_QUERY.
    pub prepared: bool,
    /// After each statement its warnings and what the session says about it.
    pub diagnostics: bool,
}

/// A command and its answer.
pub struct Exchange {
    pub what: String,
    pub packets: Vec<Packet>,
}

/// A bound parameter.
#[derive(Clone, Copy)]
pub enum Param<'a> {
    Null,
    Int(i64),
    Unsigned(u64),
    Tiny(i8),
    Float(f32),
    Double(f64),
    Text(&'a str),
    Blob(&'a [u8]),
    /// Year, month, day, hour, minute, second, microseconds.
    Time(u16, u8, u8, u8, u8, u8, u32),
}

/// Types of the protocol, with the flag for unsigned in the high byte.
const TINY: u16 = 1;
const FLOAT: u16 = 4;
const DOUBLE: u16 = 5;
const NULL: u16 = 6;
const LONGLONG: u16 = 8;
const DATETIME: u16 = 12;
const BLOB: u16 = 252;
const VAR_STRING: u16 = 253;
const UNSIGNED: u16 = 0x8000;

impl Param<'_> {
    pub fn kind(self) -> u16 {
        match self {
            Param::Null => NULL,
            Param::Int(_) => LONGLONG,
            Param::Unsigned(_) => LONGLONG | UNSIGNED,
            Param::Tiny(_) => TINY,
            Param::Float(_) => FLOAT,
            Param::Double(_) => DOUBLE,
            Param::Text(_) => VAR_STRING,
            Param::Blob(_) => BLOB,
            Param::Time(..) => DATETIME,
        }
    }

    pub fn put(self, out: &mut Vec<u8>) {
        match self {
            Param::Null => {}
            Param::Int(n) => out.extend_from_slice(&n.to_le_bytes()),
            Param::Unsigned(n) => out.extend_from_slice(&n.to_le_bytes()),
            Param::Tiny(n) => out.extend_from_slice(&n.to_le_bytes()),
            Param::Float(n) => out.extend_from_slice(&n.to_le_bytes()),
            Param::Double(n) => out.extend_from_slice(&n.to_le_bytes()),
            Param::Text(s) => lenenc::put_bytes(out, s.as_bytes()),
            Param::Blob(b) => lenenc::put_bytes(out, b),
            Param::Time(y, mo, d, h, mi, s, us) => {
                out.push(11);
                out.extend_from_slice(&y.to_le_bytes());
                out.extend_from_slice(&[mo, d, h, mi, s]);
                out.extend_from_slice(&us.to_le_bytes());
            }
        }
    }
}

pub struct Run {
    pub raw: Raw,
    pub port: u16,
    pub login: Login,
    pub mode: Mode,
    pub record: Vec<Exchange>,
    /// The ids of statements prepared so far. MariaDB numbers them over all
    /// sessions, so the record holds their places in this list instead.
    statements: Vec<u32>,
}

impl Run {
    pub fn start(port: u16, database: &str, mode: Mode) -> io::Result<Run> {
        let login = Login::root(database, mode.capabilities);
        let raw = Raw::connect(port, &login)?;
        let mut run = Run {
            raw,
            port,
            login,
            mode,
            record: Vec::new(),
            statements: Vec::new(),
        };
        let packets = run.raw.login.clone();
        run.note("login", packets.into_iter().map(without_nonce).collect());
        Ok(run)
    }

    /// A second connection of the same kind.
    pub fn other(&self) -> io::Result<Raw> {
        Raw::connect(self.port, &self.login)
    }

    pub fn note(&mut self, what: impl Into<String>, packets: Vec<Packet>) {
        let what = what.into();
        self.record.push(Exchange { what, packets });
    }

    /// A plain fact instead of packets.
    pub fn fact(&mut self, what: &str, fact: impl std::fmt::Debug) {
        self.note(format!("{what}: {fact:?}"), Vec::new());
    }

    /// A statement, as the mode sends it.
    pub fn q(&mut self, sql: &str) -> io::Result<()> {
        if self.mode.prepared {
            if let Some(id) = self.prepare(sql)? {
                self.execute(id, 0, &[], true)?;
                self.raw.ask(COM_STMT_CLOSE, &id.to_le_bytes())?;
            }
        } else {
            self.text(sql)?;
        }
        if self.mode.diagnostics {
            for sql in [
                "SHOW WARNINGS",
                "SELECT @@warning_count",
                "SELECT LAST_INSERT_ID()",
            ] {
                self.text(sql)?;
            }
        }
        Ok(())
    }

    /// A statement by COM_QUERY, whatever the mode.
    pub fn text(&mut self, sql: &str) -> io::Result<()> {
        let packets = self.raw.query(sql)?;
        self.note(shortened(sql), packets);
        Ok(())
    }

    pub fn com(&mut self, com: u8, body: &[u8]) -> io::Result<()> {
        let packets = self.raw.ask(com, body)?;
        let shown = shortened(&body.escape_ascii().to_string());
        self.note(format!("{} {com:#x} {shown}", name(com)), packets);
        Ok(())
    }

    /// A command about a prepared statement: its id, then `body`.
    pub fn statement(&mut self, com: u8, id: u32, body: &[u8]) -> io::Result<()> {
        let packets = self.raw.ask(com, &[&id.to_le_bytes(), body].concat())?;
        let (packets, place) = (self.without_id(packets, id), self.place(id));
        let shown = shortened(&body.escape_ascii().to_string());
        self.note(format!("{} of {place}: {shown}", name(com)), packets);
        Ok(())
    }

    fn place(&self, id: u32) -> String {
        let place = self.statements.iter().position(|s| *s == id);
        place.map_or(format!("unknown {id}"), |n| format!("statement {n}"))
    }

    /// Error messages name the statement by its id.
    fn without_id(&self, mut packets: Vec<Packet>, id: u32) -> Vec<Packet> {
        for packet in &mut packets {
            if packet.payload.first() == Some(&0xFF) {
                let text = packet.payload.escape_ascii().to_string();
                let (id, place) = (format!("({id})"), format!("({})", self.place(id)));
                packet.payload = text.replace(&id, &place).into_bytes();
            }
        }
        packets
    }

    /// The statement's id, unless the server refused it.
    pub fn prepare(&mut self, sql: &str) -> io::Result<Option<u32>> {
        let (prepared, packets) = self.prepare_only(sql)?;
        self.note(format!("prepare {}", shortened(sql)), packets);
        Ok(prepared)
    }

    /// The same without a record of the answer, which has no id in it.
    pub fn prepare_only(&mut self, sql: &str) -> io::Result<(Option<u32>, Vec<Packet>)> {
        self.raw.command(COM_STMT_PREPARE, sql.as_bytes())?;
        self.read_prepared()
    }

    /// The answer to a PREPARE that was sent earlier.
    pub fn prepared_answer(&mut self, what: &str) -> io::Result<Option<u32>> {
        let (prepared, packets) = self.read_prepared()?;
        self.note(format!("prepare {what}"), packets);
        Ok(prepared)
    }

    fn read_prepared(&mut self) -> io::Result<(Option<u32>, Vec<Packet>)> {
        let mut packets = self.raw.answer(COM_STMT_PREPARE)?;
        let mut prepared = None;
        if let Some([0, id @ .., _, _, _, _, _, _, _]) =
            packets.first_mut().map(|p| &mut p.payload[..])
            && let Ok(bytes) = <[u8; 4]>::try_from(&*id)
        {
            prepared = Some(u32::from_le_bytes(bytes));
            id.fill(0);
            self.statements.extend(prepared);
        }
        Ok((prepared, packets))
    }

    /// Executes a statement whose one parameter was sent as long data.
    pub fn execute_long(&mut self, id: u32) -> io::Result<()> {
        let body: &[u8] = if self.raw.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            &[8, 1, 0, 0, 0, 1, 0, 1, 252, 0, 0]
        } else {
            &[0, 1, 0, 0, 0, 0, 1, 252, 0]
        };
        self.statement(COM_STMT_EXECUTE, id, body)
    }

    /// Executes with `params`; their types are sent when `bound`.
    pub fn execute(&mut self, id: u32, flags: u8, params: &[Param], bound: bool) -> io::Result<()> {
        let attributes = self.raw.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
        let mut body = id.to_le_bytes().to_vec();
        // 8: the number of parameters is in the packet.
        body.push(if attributes { flags | 8 } else { flags });
        body.extend_from_slice(&1u32.to_le_bytes());
        if attributes {
            lenenc::put_int(&mut body, params.len() as u64);
        }
        if !params.is_empty() {
            let mut nulls = vec![0u8; params.len().div_ceil(8)];
            for (i, param) in params.iter().enumerate() {
                nulls[i / 8] |= u8::from(matches!(param, Param::Null)) << (i % 8);
            }
            body.extend_from_slice(&nulls);
            body.push(u8::from(bound));
            for param in params.iter().filter(|_| bound) {
                body.extend_from_slice(&param.kind().to_le_bytes());
                if attributes {
                    body.push(0); // no name
                }
            }
            params.iter().for_each(|p| p.put(&mut body));
        }
        let packets = self.raw.ask(COM_STMT_EXECUTE, &body)?;
        let (packets, place) = (self.without_id(packets, id), self.place(id));
        let what = format!("execute {place}, {} parameters", params.len());
        self.note(what, packets);
        Ok(())
    }

    /// The end of every case: anything the server sent too much is seen here.
    pub fn finish(&mut self) -> io::Result<()> {
        self.com(COM_PING, &[])?;
        self.raw.command(COM_QUIT, &[])?;
        let closed = self.raw.closed();
        self.fact("closed after QUIT", closed);
        Ok(())
    }
}

/// The ways a connection ends that the kernel chooses between by timing.
pub fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "closed".to_string(),
        other => other.to_string(),
    }
}

/// What may differ between two runs of the same case, as text that does not.
/// GTIDs and statement ids name the server's own past, tracked changes have no
/// order of their own, and an empty list of them says nothing; nothing else is
/// made equal here.
pub fn comparable(payload: &[u8], capabilities: Capabilities) -> Vec<u8> {
    let ok = matches!(payload.first(), Some(0 | 0xFE)) && payload.len() < 4096;
    let parsed = ok
        .then(|| OkPacket::parse(payload, capabilities).ok())
        .flatten();
    let Some((packet, block)) = parsed.and_then(|p| Some((p, p.session_state?))) else {
        return payload.to_vec();
    };
    let mut out = OkPacket {
        session_state: None,
        has_info: !packet.info.is_empty(),
        status: packet.status.without(Status::SESSION_STATE_CHANGED),
        ..packet
    }
    .build(capabilities);
    let mut tracked: Vec<String> = session_track::changes(block)
        .map(|change| match change {
            Ok((Change::Gtids { .. }, _)) => "GTID".to_string(),
            Ok((Change::SystemVariable { name, .. }, _)) if name == b"last_gtid" => {
                "last_gtid".to_string()
            }
            // MySQL counts the statements of the whole server.
            Ok((Change::SystemVariable { name, .. }, _)) if name == b"statement_id" => {
                "statement_id".to_string()
            }
            // Set to the time of day by SET timestamp=DEFAULT.
            Ok((Change::SystemVariable { name, .. }, _)) if name == b"timestamp" => {
                "timestamp".to_string()
            }
            Ok((change, _)) => shown(&change),
            Err(_) => "MALFORMED".to_string(),
        })
        .collect();
    // MySQL says "changed" after BEGIN and lists nothing: there is nothing in it.
    if tracked.is_empty() {
        return out;
    }
    // Servers list variables in the order of a hash table of the session's own.
    tracked.sort();
    out.extend_from_slice(format!(" tracked: {}", tracked.join(", ")).as_bytes());
    out
}

fn shown(change: &Change) -> String {
    let text = |b: &[u8]| b.escape_ascii().to_string();
    match change {
        Change::SystemVariable { name, value } => format!("{}={}", text(name), text(value)),
        Change::Schema(name) => format!("schema {}", text(name)),
        Change::TransactionCharacteristics(sql) => format!("characteristics '{}'", text(sql)),
        Change::TransactionState(letters) => format!("state {}", text(letters)),
        other => format!("{other:?}"),
    }
}

/// A plugin switch carries a nonce of its own: 20 bytes and a NUL at its end.
pub fn without_nonce(mut packet: Packet) -> Packet {
    if packet.payload.first() == Some(&0xFE) {
        let kept = packet.payload.len().saturating_sub(21);
        packet.payload.truncate(kept);
    }
    packet
}

/// Runs of digits as one `N`: for texts full of counters.
pub fn without_digits(payload: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(payload.len());
    for &byte in payload {
        let byte = if byte.is_ascii_digit() { b'N' } else { byte };
        if byte != b'N' || out.last() != Some(&b'N') {
            out.push(byte);
        }
    }
    out
}

pub fn shortened(text: &str) -> String {
    text.chars().take(90).collect()
}
