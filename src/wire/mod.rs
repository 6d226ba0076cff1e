//! The MySQL client/server protocol as pure functions over bytes.
//!
//! Bytes come in as slices and go out as `Vec<u8>` or ranges of what came
//! in; nothing here knows sockets, SQL or settings. The way of a statement:
//! [`frame`] cuts packets, [`command`] reads the client's command,
//! [`response`] follows the server's answer header by header without
//! decoding rows, [`ok`] and [`session_track`] read what the answer says
//! about the session. [`greeting`] holds the login packets, [`text_rows`]
//! the few results that the proxy asks for or answers itself.
//!
//! Invariants: every function is total (any bytes give a value or a
//! [`WireError`], never a panic); what is parsed is parsed to observe, the
//! original bytes are what is forwarded; nothing here keeps more than
//! [`response::STASH_MAX`] bytes between calls.

pub mod capability;
pub mod command;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod frame;
pub mod greeting;
pub mod lenenc;
pub mod ok;
pub mod proxy_header;
pub mod response;
pub mod session_track;
pub mod status;
pub mod text_rows;

pub use capability::Capabilities;
pub use command::ResponseKind;
pub use frame::{HEADER_LEN, Header, PAYLOAD_MAX, header, packet, put_command, put_packet};
pub use greeting::{AuthReply, ChangeUser, Greeting, HandshakeResponse};
pub use lenenc::Reader;
pub use ok::{ErrPacket, OkPacket, eof_packet};
pub use response::{Event, Fed, ResponseCursor, Summary};
pub use session_track::{Change, changes, put_change};
pub use status::Status;
pub use text_rows::{QueryAnswer, TextResult, build_text_result, parse_text_result};

/// Bytes that do not follow the protocol.
///
/// It says nothing about the side: whoever fed the bytes knows whether they
/// came from the client, the source or the target. No content is kept, only
/// where the reading stopped, so that it can be logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed packet: {what} (byte {at})")]
pub struct WireError {
    /// What was being read.
    pub what: &'static str,
    /// Offset in the payload (or in the slice fed), in bytes.
    pub at: usize,
}

impl WireError {
    /// An error in reading `what` at offset `at`.
    pub const fn new(what: &'static str, at: usize) -> Self {
        Self { what, at }
    }
}
