//! Why a leg could not be opened.

use std::io;

use crate::Side;
use crate::wire::ok::ErrPacket;

/// Why a leg could not be opened. The backend is at fault unless the kind says
/// otherwise.
#[derive(Debug, thiserror::Error)]
pub enum LegError {
    /// TCP could not be connected.
    #[error("{side}: cannot connect: {source}")]
    Connect {
        /// Which backend.
        side: Side,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{side}: timed out {what}")]
    Timeout {
        /// Which backend.
        side: Side,
        /// What we were waiting for.
        what: &'static str,
    },
    /// The server said no.
    #[error("{side}: refused with error {code}")]
    Refused {
        /// Which backend.
        side: Side,
        /// The server's error number.
        code: u16,
        /// The ERR packet's payload as it came.
        packet: Vec<u8>,
        /// True if it came instead of the greeting.
        at_greeting: bool,
    },
    /// The server's bytes are not the protocol.
    #[error("{side}: {what}")]
    Protocol {
        /// Which backend.
        side: Side,
        /// What was wrong.
        what: &'static str,
    },
    /// TLS is required and not offered, or its handshake failed.
    #[error("{side}: TLS: {reason}")]
    Tls {
        /// Which backend.
        side: Side,
        /// Why.
        reason: String,
    },
    /// The connection broke.
    #[error("{side}: connection lost during login: {source}")]
    Io {
        /// Which backend.
        side: Side,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy does not hold what this server's plugin asks for.
    #[error("{side}: cannot log in: {why}")]
    Credentials {
        /// Which backend.
        side: Side,
        /// What is missing.
        why: &'static str,
    },
}

impl LegError {
    /// Which backend it was.
    pub fn side(&self) -> Side {
        match self {
            LegError::Connect { side, .. }
            | LegError::Timeout { side, .. }
            | LegError::Refused { side, .. }
            | LegError::Protocol { side, .. }
            | LegError::Tls { side, .. }
            | LegError::Io { side, .. }
            | LegError::Credentials { side, .. } => *side,
        }
    }

    /// A metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            LegError::Connect { .. } => "connect",
            LegError::Timeout { .. } => "timeout",
            LegError::Refused { .. } => "refused",
            LegError::Protocol { .. } => "protocol",
            LegError::Tls { .. } => "tls",
            LegError::Io { .. } => "io",
            LegError::Credentials { .. } => "credentials",
        }
    }

    /// The refusal in an ERR payload that came after the greeting.
    pub(crate) fn refused(side: Side, packet: Vec<u8>) -> LegError {
        let code = err_code(&packet);
        LegError::Refused {
            side,
            code,
            packet,
            at_greeting: false,
        }
    }
}

/// The error number of an ERR payload; 0 if it is cut short.
pub(crate) fn err_code(packet: &[u8]) -> u16 {
    match packet {
        [0xff, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    }
}

/// Maps a broken connection to this side's error.
pub(crate) fn lost(side: Side) -> impl Fn(io::Error) -> LegError {
    move |source| LegError::Io { side, source }
}

/// The parsed ERR of a refusal, for logs and status pages.
pub fn err_message(packet: &[u8]) -> Option<String> {
    let parsed = ErrPacket::parse(packet).ok()?;
    Some(String::from_utf8_lossy(parsed.message).into_owned())
}
