//! The events that name a transaction: MySQL's GTID, anonymous and tagged,
//! MariaDB's GTID and GTID list.

use super::event::{Transaction, TransactionId};
use super::gtid::{Gtid, MariaGtid, MariaPosition, Origin, tag};
use super::{DecodeError, need};
use crate::wire::Reader;

/// MySQL's GTID (33) and anonymous GTID (34).
pub(super) fn mysql(body: &[u8], anonymous: bool) -> Result<Transaction, DecodeError> {
    const LOGICAL_CLOCK: u8 = 2;
    let r = &mut Reader::new(body);
    need(r.u8(), "GTID flags", r)?;
    let uuid = need(r.bytes(16), "GTID server", r)?;
    let number = need(r.u64(), "GTID number", r)?;
    let mut transaction = Transaction::default();
    if !anonymous {
        let mut origin = Origin::default();
        origin.uuid.copy_from_slice(uuid);
        transaction.id = TransactionId::Mysql(Gtid { origin, number });
    }
    // What follows came with 5.7 and 8.0; its absence is no error.
    if r.u8() == Some(LOGICAL_CLOCK) && r.bytes(16).is_some() {
        transaction.committed_us = seven_bytes(r).map(|t| t & !(1 << 55));
    }
    Ok(transaction)
}

fn seven_bytes(r: &mut Reader<'_>) -> Option<u64> {
    let bytes = r.bytes(7)?;
    Some(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
}

/// A number of MySQL's serialization library: the low 1-bits of the first byte
/// count the bytes that follow it.
fn variable(r: &mut Reader<'_>) -> Option<u64> {
    let first = r.u8()?;
    let more = first.trailing_ones();
    if more == 8 {
        return r.u64();
    }
    let rest = r.bytes(usize::try_from(more).ok()?)?;
    let high = rest.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    // A byte of k ones has 7 - k bits of its own.
    let own = u64::from(first).checked_shr(more + 1).unwrap_or(0);
    Some(high.checked_shl(7 - more).unwrap_or(0) | own)
}

/// A signed one: the sign in the lowest bit, the rest complemented if set.
fn variable_signed(r: &mut Reader<'_>) -> Option<i64> {
    let raw = variable(r)?;
    let magnitude = (raw >> 1).cast_signed();
    Some(if raw & 1 == 1 { !magnitude } else { magnitude })
}

/// MySQL's tagged GTID (42): fields with ids, in any number.
pub(super) fn tagged(body: &[u8]) -> Result<Transaction, DecodeError> {
    const FLAGS: u64 = 0;
    const UUID: u64 = 1;
    const NUMBER: u64 = 2;
    const TAG: u64 = 3;
    const IMMEDIATE_COMMIT: u64 = 6;
    const VERSION: u64 = 1;
    let r = &mut Reader::new(body);
    if variable(r) != Some(VERSION) {
        return Err(DecodeError::new("version of a tagged GTID", r.pos()));
    }
    let size = need(variable(r), "tagged GTID", r)?;
    need(variable(r), "tagged GTID", r)?;
    let end = usize::try_from(size).ok().filter(|n| *n <= body.len());
    let end = need(end, "size of a tagged GTID", r)?;
    let (mut origin, mut number, mut committed_us) = (Origin::default(), None, None);
    while r.pos() < end {
        match need(variable(r), "tagged GTID", r)? {
            FLAGS => {
                need(variable(r), "tagged GTID flags", r)?;
            }
            UUID => {
                for byte in &mut origin.uuid {
                    let b = variable(r).and_then(|v| u8::try_from(v).ok());
                    *byte = need(b, "tagged GTID server", r)?;
                }
            }
            NUMBER => number = variable_signed(r).and_then(|n| u64::try_from(n).ok()),
            TAG => {
                let length = variable(r).and_then(|n| usize::try_from(n).ok());
                let text = length.and_then(|n| r.bytes(n));
                let text = text.and_then(|t| std::str::from_utf8(t).ok());
                let text = need(text, "tag of a GTID", r)?;
                if !text.is_empty() {
                    origin.tag =
                        tag(text).map_err(|_| DecodeError::new("tag of a GTID", r.pos()))?;
                }
            }
            IMMEDIATE_COMMIT => {
                committed_us = Some(need(variable(r), "tagged GTID", r)?);
            }
            // The fields come in order; nothing behind these is needed.
            other if other > IMMEDIATE_COMMIT => break,
            _ => {
                need(variable(r), "tagged GTID", r)?;
            }
        }
    }
    let number = need(number, "number of a tagged GTID", r)?;
    Ok(Transaction {
        id: TransactionId::Mysql(Gtid { origin, number }),
        committed_us,
        ..Transaction::default()
    })
}

/// MariaDB's GTID (162). The server id stands in the header.
pub(super) fn maria(body: &[u8], server: u32) -> Result<Transaction, DecodeError> {
    const STANDALONE: u8 = 1;
    const PREPARED_XA: u8 = 64;
    const COMPLETED_XA: u8 = 128;
    let r = &mut Reader::new(body);
    let sequence = need(r.u64(), "GTID sequence", r)?;
    let domain = need(r.u32(), "GTID domain", r)?;
    let flags = need(r.u8(), "GTID flags", r)?;
    Ok(Transaction {
        id: TransactionId::Maria(MariaGtid {
            domain,
            server,
            sequence,
        }),
        committed_us: None,
        standalone: flags & STANDALONE != 0,
        xa: flags & (PREPARED_XA | COMPLETED_XA) != 0,
    })
}

/// MariaDB's GTID list (163), which starts a log file.
pub(super) fn maria_list(body: &[u8]) -> Result<MariaPosition, DecodeError> {
    let r = &mut Reader::new(body);
    let count = need(r.u32(), "GTID list", r)? & 0x0FFF_FFFF;
    let mut position = MariaPosition::default();
    for _ in 0..count {
        position.add(MariaGtid {
            domain: need(r.u32(), "GTID list", r)?,
            server: need(r.u32(), "GTID list", r)?,
            sequence: need(r.u64(), "GTID list", r)?,
        });
    }
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_numbers() {
        let read = |bytes: &[u8]| variable(&mut Reader::new(bytes));
        assert_eq!(read(&[0x02]), Some(1));
        assert_eq!(read(&[0xFE]), Some(127));
        // Two bytes: 01 in the low bits, 6 bits here, 8 above.
        assert_eq!(read(&[0x01, 0x02]), Some(128));
        assert_eq!(read(&[0xFF, 1, 0, 0, 0, 0, 0, 0, 0]), Some(1));
        assert_eq!(read(&[0xFF, 1]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn short_events_are_refused() {
        let list = [&2u32.to_le_bytes()[..], &[0; 16]].concat();
        assert!(maria_list(&list).is_err());
        assert!(maria(&[0; 12], 1).is_err());
        assert!(mysql(&[0; 24], false).is_err());
        assert!(mysql(&[0; 25], false).is_ok(), "5.6 has no more");
        assert!(tagged(&[2, 0x7F]).is_err());
    }
}
