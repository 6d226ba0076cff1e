//! Compressed events: MySQL's TRANSACTION_PAYLOAD, which holds a whole
//! transaction's events in zstd, and the zlib bodies of MariaDB's compressed
//! query and row events.

use std::io::{Cursor, Read};

use bytes::Bytes;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::event::{HEADER_LEN, Header};
use super::{DecodeError, need};
use crate::wire::Reader;

/// Largest event accepted, in bytes: `max_allowed_packet`'s own limit (1 GiB)
/// and room for headers.
pub const EVENT_MAX: usize = (1 << 30) + (1 << 20);

/// Largest zstd window accepted, in bytes: what the highest compression level
/// that MySQL allows (22) uses.
const WINDOW_MAX: u64 = 128 << 20;

/// The events in a transaction payload, decompressed one after the other, so
/// that a large transaction is never held whole.
pub struct Payload {
    source: Source,
    /// Bytes that the server said the events have in all.
    left: u64,
}

enum Source {
    Plain(Cursor<Bytes>),
    Zstd(Box<StreamingDecoder<Cursor<Bytes>, FrameDecoder>>),
}

const BROKEN: DecodeError = DecodeError::new("transaction payload that cannot be decompressed", 0);

fn zstd(source: Cursor<Bytes>) -> Result<Source, DecodeError> {
    StreamingDecoder::new_with_max_window_size(source, WINDOW_MAX)
        .map(|d| Source::Zstd(Box::new(d)))
        .map_err(|_| BROKEN)
}

impl Payload {
    /// Reads the event's body: type, length, value until type 0, then the
    /// compressed events.
    pub(crate) fn read(body: &Bytes) -> Result<Payload, DecodeError> {
        const SIZE: u64 = 1;
        const COMPRESSION: u64 = 2;
        const UNCOMPRESSED_SIZE: u64 = 3;
        let r = &mut Reader::new(body);
        let (mut size, mut compression, mut uncompressed) = (None, None, None);
        loop {
            let kind = need(r.lenenc_int(), "payload header", r)?;
            if kind == 0 {
                break;
            }
            let value = need(r.lenenc_bytes(), "payload header", r)?;
            let number = Reader::new(value).lenenc_int();
            match kind {
                SIZE => size = number,
                COMPRESSION => compression = number,
                UNCOMPRESSED_SIZE => uncompressed = number,
                _ => {}
            }
        }
        let size = size.and_then(|s| usize::try_from(s).ok());
        let size = size.filter(|s| *s <= r.remaining());
        let size = need(size, "size of the transaction payload", r)?;
        let data = Cursor::new(body.slice(r.pos()..r.pos() + size));
        let length = u64::try_from(size).unwrap_or(u64::MAX);
        let (source, left) = match compression {
            Some(0) => (zstd(data)?, uncompressed),
            Some(255) => (Source::Plain(data), Some(length)),
            _ => return Err(DecodeError::new("unknown payload compression", r.pos())),
        };
        let left = need(left, "size of the transaction's events", r)?;
        Ok(Payload { source, left })
    }

    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), DecodeError> {
        while !out.is_empty() {
            let n = match &mut self.source {
                Source::Plain(s) => s.read(out),
                Source::Zstd(s) => s.read(out),
            };
            match n {
                Ok(0) => self.next_frame()?,
                Ok(n) => out = out.get_mut(n..).unwrap_or_default(),
                Err(_) => return Err(BROKEN),
            }
        }
        Ok(())
    }

    /// Goes on with the zstd frame behind the one that ended.
    fn next_frame(&mut self) -> Result<(), DecodeError> {
        let Source::Zstd(decoder) = &mut self.source else {
            return Err(BROKEN);
        };
        let source = decoder.get_mut();
        let data = source.get_ref().clone();
        let at = usize::try_from(source.position()).unwrap_or(usize::MAX);
        if at >= data.len() {
            return Err(BROKEN);
        }
        self.source = zstd(Cursor::new(data.slice(at..)))?;
        Ok(())
    }

    /// The next event's bytes, without a checksum; None after the last.
    ///
    /// # Errors
    /// The payload is damaged.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut event = vec![0; HEADER_LEN];
        self.fill(&mut event)?;
        let length = Header::read(&event).map_or(0, |h| h.length);
        self.left = (self.left.checked_sub(u64::from(length))).ok_or(BROKEN)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(HEADER_LEN..=EVENT_MAX).contains(&length) {
            return Err(BROKEN);
        }
        // Grown as bytes come, so that a length nobody sent costs nothing.
        while event.len() < length {
            let from = event.len();
            event.resize(length.min(from + (1 << 20)), 0);
            let space = event.get_mut(from..).unwrap_or_default();
            self.fill(space)?;
        }
        Ok(Some(event.into()))
    }
}

/// The plain form of a MariaDB compressed block: a byte `1aaa0lll` (algorithm,
/// bytes of the length), the length, big endian, and the zlib stream.
pub(crate) fn inflate(block: &[u8]) -> Result<Bytes, DecodeError> {
    const BAD: DecodeError = DecodeError::new("compressed block", 0);
    let r = &mut Reader::new(block);
    let head = need(r.u8(), "compressed block", r)?;
    if head & 0xF0 != 0x80 {
        return Err(DecodeError::new("block of an unknown compression", 0));
    }
    let width = usize::from(head & 7);
    if !(1..=4).contains(&width) {
        return Err(BAD);
    }
    let digits = need(r.bytes(width), "compressed block", r)?;
    let length = digits.iter().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let length = usize::try_from(length).map_err(|_| BAD)?;
    if length > EVENT_MAX {
        return Err(BAD);
    }
    let mut out = Vec::new();
    let limit = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::ZlibDecoder::new(r.rest())
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|_| BAD)?;
    if out.len() == length {
        Ok(out.into())
    } else {
        Err(BAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inflate(&bytes);
            if let Ok(mut payload) = Payload::read(&bytes.into()) {
                while let Ok(Some(_)) = payload.next_event() {}
            }
        }
    }
}
