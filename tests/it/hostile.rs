//! Hostile input and limits: what a server does with the same abuse, the proxy
//! does too, byte by byte; and no client costs the others anything.

mod crowd;
mod limits;
mod raw;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Longer than the login timeouts of these tests.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// LONG_PASSWORD, LONG_FLAG, PROTOCOL_41, TRANSACTIONS, MULTI_STATEMENTS,
/// MULTI_RESULTS, SECURE_CONNECTION and PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x000B_A205;
const SSL: u32 = 0x800;

/// A packet.
fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    out.push(seq);
    out.extend_from_slice(payload);
    out
}

/// The fixed part of an answer to a greeting.
fn fixed(capabilities: u32) -> Vec<u8> {
    let mut out = capabilities.to_le_bytes().to_vec();
    out.extend_from_slice(&(1_u32 << 30).to_le_bytes());
    out.push(45);
    out.extend_from_slice(&[0; 23]);
    out
}

/// root's answer to a greeting, without a password.
fn login() -> Vec<u8> {
    [&fixed(CAPABILITIES)[..], b"root\0\0mysql_native_password\0"].concat()
}

/// What came back, in packets, and how it ended.
#[derive(PartialEq, Eq)]
struct Outcome {
    packets: Vec<(u8, String)>,
    closed: bool,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.closed { "closed" } else { "open" };
        write!(f, "{:?} {how}", self.packets)
    }
}

/// A connection whose bytes are the test's own.
struct Rough(TcpStream);

impl Rough {
    fn connect(port: u16) -> Rough {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("timeout");
        stream.set_write_timeout(limit).expect("timeout");
        Rough(stream)
    }

    fn greeted(port: u16) -> Rough {
        let mut rough = Rough::connect(port);
        rough.read_packet().expect("greeting");
        rough
    }

    /// Logged in as root.
    fn logged_in(port: u16) -> Rough {
        let mut rough = Rough::greeted(port);
        rough.send(&packet(1, &login()));
        loop {
            let (seq, payload) = rough.read_packet().expect("verdict");
            match payload.first() {
                Some(0) => return rough,
                Some(0xFE) => rough.send(&packet(seq + 1, &[])),
                _ => panic!("refused: {}", payload.escape_ascii()),
            }
        }
    }

    /// What was refused while it was written shows in what is read.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    fn read_packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok((head[3], payload))
    }

    /// Everything until it is closed, or until nothing came for a while.
    fn rest(mut self) -> Outcome {
        let mut bytes = Vec::new();
        let mut buffer = [0; 64 * 1024];
        let _ = self.0.set_read_timeout(Some(ANSWER_LIMIT));
        let closed = loop {
            match self.0.read(&mut buffer) {
                Ok(0) => break true,
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        let _ = self.0.shutdown(Shutdown::Both);
        Outcome {
            packets: packets(&bytes),
            closed,
        }
    }
}

fn packets(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut found = Vec::new();
    while let Some(head) = bytes.get(..4) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let end = (4 + length).min(bytes.len());
        let mut payload = &bytes[4..end];
        if payload.first() == Some(&0xFE) && length > 8 {
            // The nonce after the plugin's name is another each time.
            let name = payload.iter().position(|b| *b == 0).unwrap_or(end - 4);
            payload = &payload[..name];
        }
        found.push((
            head[3],
            payload[..payload.len().min(120)].escape_ascii().to_string(),
        ));
        bytes = &bytes[end..];
    }
    if !bytes.is_empty() {
        found.push((0, format!("rest {}", bytes.escape_ascii())));
    }
    found
}

/// How long something took.
fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = what();
    (done, began.elapsed())
}
