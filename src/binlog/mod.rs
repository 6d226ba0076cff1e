//! Binlog events of MySQL and MariaDB as one event model.
//!
//! ```text
//! stream (one replication connection) ─ bytes of an event ─► Decoder
//!        checksum ─ header ─ body ─┬─ Event                     │
//!                                  └─ Payload: many events      │
//!                       Rows ─ rows::Images ─ value::Value ◄────┘
//! ```
//!
//! [`stream`] asks a server for its log from a [`gtid::Position`] on and hands
//! every event's bytes to [`decoder::Decoder`]. Compressed events of both
//! families come out like any other: a MySQL transaction payload as the events
//! in it, a MariaDB compressed event as its plain form.
//!
//! Invariants: only [`stream`] does I/O; every other function is total (any
//! bytes give a value or a [`DecodeError`], never a panic). Nothing is skipped:
//! an event that is truncated, fails its checksum, or is of a kind that is
//! neither known nor marked ignorable by the server is an error with its
//! place. Knows no routes and no sessions.

pub mod decoder;
pub mod event;
pub mod gtid;
pub mod json;
pub mod payload;
pub mod progress;
pub mod rows;
pub mod stream;
pub mod table_map;
pub mod temporal;
pub mod value;

mod decimal;
mod gtid_event;

pub use decoder::{Decoded, Decoder};
pub use event::{Body, Event, Header};
pub use gtid::Position;
pub use rows::{Change, Images, Rows};
pub use table_map::TableMap;
pub use value::Value;

/// Bytes that are not a binlog event as we know it. The follower stops here:
/// what cannot be read may be a change that would be lost.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("binlog event of type {kind} ending at {end}: {what} (byte {at})")]
pub struct DecodeError {
    /// What was being read, and why it cannot be.
    pub what: &'static str,
    /// Offset in the event's body, in bytes.
    pub at: usize,
    /// The event's type code; 0 when not even the header was readable.
    pub kind: u8,
    /// The header's end position in its log file.
    pub end: u32,
}

impl DecodeError {
    /// An error in reading `what` at offset `at`; the decoder adds the event.
    pub const fn new(what: &'static str, at: usize) -> DecodeError {
        DecodeError {
            what,
            at,
            kind: 0,
            end: 0,
        }
    }
}

/// `option`, or an error about `what` at the reader's place.
pub(crate) fn need<T>(
    option: Option<T>,
    what: &'static str,
    reader: &crate::wire::Reader<'_>,
) -> Result<T, DecodeError> {
    option.ok_or(DecodeError::new(what, reader.pos()))
}
