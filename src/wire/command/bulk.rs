//! MariaDB's COM_STMT_BULK_EXECUTE: one command, many rows of parameters.
//!
//! ```text
//! 0xFA | statement id (4) | flags (2) | [type (2) per parameter] | row …
//! row: per parameter an indicator (1), and its value if that says so
//! ```

use core::ops::Range;

use super::super::WireError;
use super::super::lenenc::Reader;
use super::execute::skip_value;
use super::{COM_STMT_BULK_EXECUTE, COM_STMT_EXECUTE};

/// Flag: the parameters' types are in the packet.
const SEND_TYPES: u16 = 128;

/// Bytes before the types: command, statement id, flags.
const FIXED_LEN: usize = 7;

/// A bulk EXECUTE, its parts as ranges of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// The id of the leg (or client) that sent it.
    pub statement_id: u32,
    /// As sent.
    pub flags: u16,
    /// Two bytes for each parameter, or empty.
    pub types: Range<usize>,
    /// The rows.
    pub rows: Range<usize>,
}

/// Reads the head of a bulk EXECUTE of a statement with `params` parameters;
/// `payload` may end within the rows.
///
/// # Errors
/// A packet of another command, or a head cut short.
pub fn parse_bulk(payload: &[u8], params: u16) -> Result<Bulk, WireError> {
    let mut r = Reader::new(payload);
    let at = |r: &Reader<'_>| WireError::new("bulk EXECUTE", r.pos());
    if r.u8() != Some(COM_STMT_BULK_EXECUTE) {
        return Err(WireError::new("bulk EXECUTE's command byte", 0));
    }
    let statement_id = r.u32().ok_or(at(&r))?;
    let flags = r.u16().ok_or(at(&r))?;
    let bound = if flags & SEND_TYPES == 0 { 0 } else { params };
    let types = r.range(usize::from(bound) * 2).ok_or(at(&r))?;
    let rows = types.end..payload.len();
    Ok(Bulk {
        statement_id,
        flags,
        types,
        rows,
    })
}

/// The payload as another leg must see it: its own statement id, and the types
/// put in where this one relied on earlier ones.
///
/// # Errors
/// A `bulk` of another payload.
pub fn bulk_for_leg(
    payload: &[u8],
    bulk: &Bulk,
    leg_statement_id: u32,
    remembered_types: Option<&[u8]>,
) -> Result<Vec<u8>, WireError> {
    let at = WireError::new("bulk EXECUTE", bulk.rows.start);
    let rows = payload.get(bulk.rows.clone()).ok_or(at)?;
    let own = payload.get(bulk.types.clone()).ok_or(at)?;
    let (flags, types) = match remembered_types {
        Some(types) if own.is_empty() => (bulk.flags | SEND_TYPES, types),
        _ => (bulk.flags, own),
    };
    let mut out = Vec::with_capacity(FIXED_LEN + types.len() + rows.len());
    out.push(COM_STMT_BULK_EXECUTE);
    out.extend_from_slice(&leg_statement_id.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(types);
    out.extend_from_slice(rows);
    Ok(out)
}

/// The same rows as single EXECUTEs, for a server without the command: each
/// item is a payload. `types` are those in force, two bytes a parameter.
///
/// Ends after the first error: rows cut short, or a value that only a bulk
/// EXECUTE can give (DEFAULT, IGNORE).
pub fn single_executions<'a>(
    payload: &'a [u8],
    bulk: &Bulk,
    types: &'a [u8],
    leg_statement_id: u32,
) -> impl Iterator<Item = Result<Vec<u8>, WireError>> + use<'a> {
    let mut rows = Reader::at(payload, bulk.rows.start);
    let mut failed = types.is_empty();
    std::iter::from_fn(move || {
        if failed || rows.is_empty() {
            return None;
        }
        let single = single_execution(payload, &mut rows, types, leg_statement_id);
        failed = single.is_err();
        Some(single)
    })
}

fn single_execution(
    payload: &[u8],
    rows: &mut Reader<'_>,
    types: &[u8],
    leg_statement_id: u32,
) -> Result<Vec<u8>, WireError> {
    let count = types.len() / 2;
    let mut nulls = vec![0u8; count.div_ceil(8)];
    let mut values = Vec::new();
    for (i, ty) in types.chunks_exact(2).enumerate() {
        let at = WireError::new("a bulk row", rows.pos());
        match rows.u8().ok_or(at)? {
            0 => {
                let start = rows.pos();
                skip_value(rows, u16::from_le_bytes([ty[0], ty[1]]))?;
                values.extend_from_slice(payload.get(start..rows.pos()).ok_or(at)?);
            }
            1 => {
                if let Some(byte) = nulls.get_mut(i / 8) {
                    *byte |= 1 << (i % 8);
                }
            }
            _ => return Err(WireError::new("a bulk indicator", rows.pos())),
        }
    }
    let mut out = vec![COM_STMT_EXECUTE];
    out.extend_from_slice(&leg_statement_id.to_le_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0]); // no cursor, one iteration
    out.extend_from_slice(&nulls);
    out.push(1);
    out.extend_from_slice(types);
    out.extend_from_slice(&values);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of an INT and a string; the second string is NULL.
    fn packet(flags: u16) -> Vec<u8> {
        let mut p = vec![COM_STMT_BULK_EXECUTE, 9, 0, 0, 0];
        p.extend_from_slice(&flags.to_le_bytes());
        if flags & SEND_TYPES != 0 {
            p.extend_from_slice(&[3, 0, 253, 0]);
        }
        p.extend_from_slice(&[0, 5, 0, 0, 0, 0, 2, b'a', b'b']);
        p.extend_from_slice(&[0, 6, 0, 0, 0, 1]);
        p
    }

    #[test]
    fn single_executions_hold_each_row() {
        let p = packet(SEND_TYPES);
        let bulk = parse_bulk(&p, 2).expect("bulk");
        assert_eq!(bulk.types, 7..11);
        let singles: Vec<_> = single_executions(&p, &bulk, &p[7..11], 4)
            .map(|s| s.expect("row"))
            .collect();
        let head = |nulls| [23, 4, 0, 0, 0, 0, 1, 0, 0, 0, nulls, 1, 3, 0, 253, 0];
        assert_eq!(
            singles[0],
            [&head(0)[..], &[5, 0, 0, 0, 2, b'a', b'b']].concat()
        );
        assert_eq!(singles[1], [&head(2)[..], &[6, 0, 0, 0]].concat());
        assert_eq!(singles.len(), 2);
    }

    #[test]
    fn another_leg_gets_its_id_and_the_types() {
        let p = packet(0);
        let bulk = parse_bulk(&p, 2).expect("bulk");
        let same = bulk_for_leg(&p, &bulk, 9, None).expect("same");
        assert_eq!(same, p);
        let mut other = bulk_for_leg(&p, &bulk, 9, Some(&[3, 0, 253, 0])).expect("other");
        assert_eq!(other, packet(SEND_TYPES));
        other.truncate(9);
        assert!(parse_bulk(&other, 2).is_err());
    }

    #[test]
    fn broken_rows_end_the_list() {
        let mut p = packet(SEND_TYPES);
        p.truncate(p.len() - 3);
        let bulk = parse_bulk(&p, 2).expect("bulk");
        let rows: Vec<_> = single_executions(&p, &bulk, &[3, 0, 253, 0], 4).collect();
        assert!(rows.len() == 2 && rows[0].is_ok() && rows[1].is_err());
        // DEFAULT has no form in a single EXECUTE.
        let mut p = packet(SEND_TYPES);
        p[11] = 2;
        let bulk = parse_bulk(&p, 2).expect("bulk");
        let mut rows = single_executions(&p, &bulk, &[3, 0, 253, 0], 4);
        assert!(rows.next().is_some_and(|r| r.is_err()));
        assert!(rows.next().is_none());
    }
}
