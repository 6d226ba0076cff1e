//! A client that keeps every packet it is sent, so that two servers' answers
//! can be compared byte by byte.
//!
//! It finds the end of a response by itself: were that done by the product's
//! cursor, a fault of the cursor would be missed on both sides alike.

use lockstep::auth::{NATIVE, NONCE_LEN, native};
use lockstep::wire::capability::Capabilities;
use lockstep::wire::command::*;
use lockstep::wire::greeting::{AuthReply, ChangeUser, Greeting, HandshakeResponse};
use lockstep::wire::{Status, frame, ok::OkPacket};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than the lock wait of a case, much shorter than the test's patience.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// A file's bytes in one packet; libraries send less, never more than fit.
const FILE_PART: usize = 1 << 20;
/// utf8mb4_general_ci, which both families know.
const CHARSET: u8 = 45;

/// What nearly every client asks for.
pub const ORDINARY: Capabilities = Capabilities::NONE
    .with(Capabilities::LONG_FLAG)
    .with(Capabilities::PROTOCOL_41)
    .with(Capabilities::TRANSACTIONS)
    .with(Capabilities::SECURE_CONNECTION)
    .with(Capabilities::MULTI_STATEMENTS)
    .with(Capabilities::MULTI_RESULTS)
    .with(Capabilities::PS_MULTI_RESULTS)
    .with(Capabilities::LOCAL_FILES)
    .with(Capabilities::PLUGIN_AUTH);
/// The modern form of results, and session tracking.
pub const MODERN: Capabilities = ORDINARY
    .with(Capabilities::DEPRECATE_EOF)
    .with(Capabilities::SESSION_TRACK);

/// One packet: sequence id of its last physical packet, and its payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    pub seq: u8,
    pub payload: Vec<u8>,
}

/// Who logs in, and how.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub database: Option<String>,
    pub capabilities: Capabilities,
}

impl Login {
    /// root without a password, which both families let in at once.
    pub fn root(database: &str, capabilities: Capabilities) -> Login {
        Login {
            user: "root".to_string(),
            password: String::new(),
            database: Some(database.to_string()),
            capabilities,
        }
    }
}

/// A connection; see [`Raw::connect`].
pub struct Raw {
    stream: TcpStream,
    pub greeting: Greeting,
    /// What the server sent after our answer to the greeting.
    pub login: Vec<Packet>,
    pub capabilities: Capabilities,
    /// Text sent when the server asks for a local file.
    pub infile: Vec<u8>,
}

impl Raw {
    /// Connects and logs in; a refused login is in `login` and not an error.
    /// Only empty passwords and the native plugin are known here.
    pub fn connect(port: u16, login: &Login) -> io::Result<Raw> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let first = read_packet(&mut &stream)?;
        let greeting = Greeting::parse(&first.payload).map_err(io::Error::other)?;
        let mut raw = Raw {
            stream,
            capabilities: login.capabilities & greeting.capabilities,
            greeting,
            login: Vec::new(),
            infile: Vec::new(),
        };
        raw.log_in(login)?;
        Ok(raw)
    }

    fn log_in(&mut self, login: &Login) -> io::Result<()> {
        let capabilities = match login.database {
            Some(_) => self.capabilities.with(Capabilities::CONNECT_WITH_DB),
            None => self.capabilities,
        };
        let response = HandshakeResponse {
            // A client of MySQL's kind says so, whatever the server is; without
            // the flag it is one of MariaDB's, with extended flags.
            capabilities: if capabilities.extended() == 0 {
                capabilities.with(Capabilities::LONG_PASSWORD)
            } else {
                capabilities
            },
            max_packet: 1 << 30,
            charset: CHARSET,
            user: login.user.clone().into_bytes(),
            auth_response: answer(&login.password, &self.greeting.nonce),
            database: login.database.clone().map(String::into_bytes),
            auth_plugin: Some(NATIVE.to_vec()),
            connect_attrs: None,
            zstd_level: None,
        };
        self.send(1, &response.build())?;
        self.login = self.authentication(&login.password)?;
        Ok(())
    }

    /// The packets up to the server's verdict; a switch is answered.
    fn authentication(&mut self, password: &str) -> io::Result<Vec<Packet>> {
        let mut packets = Vec::new();
        loop {
            let packet = read_packet(&mut &self.stream)?;
            packets.push(packet.clone());
            match AuthReply::parse(&packet.payload) {
                Ok(AuthReply::Ok(_) | AuthReply::Err(_)) => return Ok(packets),
                Ok(AuthReply::Switch { data, .. }) => {
                    let mut nonce = [0; NONCE_LEN];
                    nonce.copy_from_slice(&data[..NONCE_LEN]);
                    self.send(packet.seq.wrapping_add(1), &answer(password, &nonce))?;
                }
                // Fast authentication succeeded: OK follows.
                Ok(AuthReply::More([3])) => {}
                _ => return Err(io::Error::other("unexpected packet at login")),
            }
        }
    }

    /// COM_CHANGE_USER with an empty password.
    pub fn change_user(&mut self, user: &str, database: &str) -> io::Result<Vec<Packet>> {
        let request = ChangeUser {
            user: user.as_bytes().to_vec(),
            auth_response: Vec::new(),
            database: database.as_bytes().to_vec(),
            charset: Some(u16::from(CHARSET)),
            auth_plugin: Some(NATIVE.to_vec()),
            connect_attrs: None,
        };
        self.send(0, &request.build(self.capabilities))?;
        self.authentication("")
    }

    /// Sends a command, larger than one packet if need be.
    pub fn command(&mut self, com: u8, body: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(body.len() + 16);
        frame::put_command(&mut out, com, body);
        self.stream.write_all(&out)
    }

    /// A packet without a command byte, and its answer.
    pub fn empty_command(&mut self) -> io::Result<Vec<Packet>> {
        self.send(0, &[])?;
        self.answer(COM_SLEEP)
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet, whatever it is.
    pub fn packet(&mut self) -> io::Result<Packet> {
        read_packet(&mut &self.stream)
    }

    /// Events up to the end of a binlog dump.
    pub fn dumped(&mut self) -> io::Result<Vec<Packet>> {
        let mut packets = Vec::new();
        loop {
            let packet = self.next(&mut packets)?;
            if matches!(packet.first(), Some(0xFE | 0xFF)) {
                return Ok(packets);
            }
        }
    }

    /// Closes the connection without a word.
    pub fn vanish(self) {
        drop(self.stream);
    }

    fn send(&mut self, mut seq: u8, payload: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(payload.len() + 16);
        frame::put_packet(&mut out, &mut seq, payload);
        self.stream.write_all(&out)
    }

    /// A command and its whole answer.
    pub fn ask(&mut self, com: u8, body: &[u8]) -> io::Result<Vec<Packet>> {
        self.command(com, body)?;
        self.answer(com)
    }

    pub fn query(&mut self, sql: &str) -> io::Result<Vec<Packet>> {
        let mut body = Vec::with_capacity(sql.len() + 2);
        if self.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            body.extend_from_slice(&[0, 1]); // no attributes, in one set
        }
        body.extend_from_slice(sql.as_bytes());
        self.ask(COM_QUERY, &body)
    }

    /// Every packet up to the end of the answer to `com`.
    pub fn answer(&mut self, com: u8) -> io::Result<Vec<Packet>> {
        let mut packets = Vec::new();
        match com {
            COM_STMT_CLOSE | COM_STMT_SEND_LONG_DATA | COM_QUIT => {}
            COM_STMT_PREPARE => self.prepared(&mut packets)?,
            COM_FIELD_LIST | COM_STMT_FETCH => self.until_eof(&mut packets)?,
            COM_STATISTICS | COM_PING | COM_INIT_DB | COM_STMT_RESET | COM_SET_OPTION
            | COM_RESET_CONNECTION | COM_PROCESS_KILL | COM_DEBUG => {
                packets.push(read_packet(&mut &self.stream)?);
            }
            _ => while self.result(&mut packets)? {},
        }
        Ok(packets)
    }

    /// One result; true when another follows.
    fn result(&mut self, packets: &mut Vec<Packet>) -> io::Result<bool> {
        let head = self.next(packets)?;
        match head.first() {
            Some(0x00) => return Ok(self.more(&head)),
            Some(0xFF) => return Ok(false),
            Some(0xFB) => {
                let mut seq = packets.last().map_or(0, |p| p.seq).wrapping_add(1);
                let file = std::mem::take(&mut self.infile);
                for part in file.chunks(FILE_PART) {
                    self.send(seq, part)?;
                    seq = seq.wrapping_add(1);
                }
                self.send(seq, &[])?;
                let end = self.next(packets)?;
                return Ok(end.first() == Some(&0) && self.more(&end));
            }
            _ => {}
        }
        let columns = usize::from(head.first().copied().unwrap_or_default());
        for _ in 0..columns {
            self.next(packets)?;
        }
        if !self.capabilities.has(Capabilities::DEPRECATE_EOF) {
            let eof = self.next(packets)?;
            let status = OkPacket::parse(&eof, self.capabilities).map_err(io::Error::other)?;
            if status.status.has(Status::CURSOR_EXISTS) {
                return Ok(false);
            }
        }
        self.rows(packets)
    }

    /// After an EXECUTE that asked for a cursor: its packets up to the one that
    /// says so, without rows.
    pub fn cursor_opened(&mut self) -> io::Result<()> {
        let mut packets = Vec::new();
        let head = self.next(&mut packets)?;
        let columns = usize::from(head.first().copied().unwrap_or_default());
        for _ in 0..=columns {
            let packet = self.next(&mut packets)?;
            let end = OkPacket::parse(&packet, self.capabilities);
            let ends = packet.first() == Some(&0xFE);
            if ends && end.is_ok_and(|e| e.status.has(Status::CURSOR_EXISTS)) {
                return Ok(());
            }
        }
        Err(io::Error::other("no cursor"))
    }

    fn rows(&mut self, packets: &mut Vec<Packet>) -> io::Result<bool> {
        loop {
            let packet = self.next(packets)?;
            let short = packet.len() < frame::PAYLOAD_MAX;
            match packet.first() {
                Some(0xFE) if short && (self.deprecated() || packet.len() < 9) => {
                    return Ok(self.more(&packet));
                }
                Some(0xFF) => return Ok(false),
                _ => {}
            }
        }
    }

    fn deprecated(&self) -> bool {
        self.capabilities.has(Capabilities::DEPRECATE_EOF)
    }

    fn more(&self, payload: &[u8]) -> bool {
        let ok = OkPacket::parse(payload, self.capabilities);
        ok.is_ok_and(|ok| ok.status.has(Status::MORE_RESULTS))
    }

    fn until_eof(&mut self, packets: &mut Vec<Packet>) -> io::Result<()> {
        self.rows(packets).map(drop)
    }

    fn prepared(&mut self, packets: &mut Vec<Packet>) -> io::Result<()> {
        let head = self.next(packets)?;
        if head.first() == Some(&0xFF) || head.len() < 12 {
            return Ok(());
        }
        let number = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        for count in [number(7), number(5)] {
            let eof = usize::from(count > 0 && !self.deprecated());
            for _ in 0..count + eof {
                self.next(packets)?;
            }
        }
        Ok(())
    }

    fn next(&mut self, packets: &mut Vec<Packet>) -> io::Result<Vec<u8>> {
        let packet = read_packet(&mut &self.stream)?;
        packets.push(packet.clone());
        Ok(packet.payload)
    }

    /// True once the server has closed the connection without another byte.
    pub fn closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}

/// The native answer; the empty password's is empty for every plugin.
fn answer(password: &str, nonce: &[u8; NONCE_LEN]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    native::scramble(&native::stage1(password.as_bytes()), nonce).to_vec()
}

/// A logical packet: physical ones of the full size are joined.
fn read_packet(stream: &mut impl Read) -> io::Result<Packet> {
    let mut payload = Vec::new();
    loop {
        let mut head = [0; frame::HEADER_LEN];
        stream.read_exact(&mut head)?;
        let header = frame::header(&head).ok_or_else(|| io::Error::other("header"))?;
        let start = payload.len();
        payload.resize(start + header.len, 0);
        stream.read_exact(&mut payload[start..])?;
        if header.len < frame::PAYLOAD_MAX {
            return Ok(Packet {
                seq: header.seq,
                payload,
            });
        }
    }
}
