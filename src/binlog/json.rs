//! MySQL's binary JSON, read into text that the server parses back to an equal
//! value.
//!
//! Layout (server source, `json_binary.h`): a type byte, then for objects and
//! arrays a count, a size, a table of keys and a table of values, whose
//! offsets count from the container's start; small containers use 16-bit
//! numbers, large ones 32-bit.
//!
//! What text cannot say: a DECIMAL, a date, a time or a binary string inside
//! JSON becomes the number or string that `CAST(json AS CHAR)` prints. The
//! reader reports it ([`Text::exact`] false), because a server makes DOUBLE or
//! STRING of it.

use std::fmt::Write;

use super::{DecodeError, decimal};
use crate::wire::Reader;

/// The server's own limit on nesting, in levels.
const DEPTH_MAX: usize = 100;

/// How much longer than its bytes a document's text may be, and what every
/// document may have: the largest honest growth is a byte of a string that
/// becomes `\\u0001`, a key of one letter with its quotes and separators, a
/// literal of two bytes. Values at offsets that overlap would grow without
/// bound: each of a hundred levels may name the next one a thousand times.
const GROWTH_MAX: usize = 16;
const TEXT_MIN: usize = 4096;

/// A document as text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Text {
    /// UTF-8 JSON.
    pub text: String,
    /// Parsing the text gives the same value, types included.
    pub exact: bool,
}

/// Reads a column's value. No bytes at all are JSON null, as the server reads
/// them.
///
/// # Errors
/// The bytes are not a binary JSON document.
pub fn text(bytes: &[u8]) -> Result<Text, DecodeError> {
    let mut out = Text {
        text: String::with_capacity(bytes.len() * 2),
        exact: true,
    };
    match bytes.split_first() {
        None => out.text.push_str("null"),
        Some((kind, rest)) => {
            let limit = bytes.len().saturating_mul(GROWTH_MAX).max(TEXT_MIN);
            value(*kind, rest, &mut out, Bounds { depth: 0, limit })?;
        }
    }
    Ok(out)
}

/// What a value may take.
#[derive(Clone, Copy)]
struct Bounds {
    /// Levels above it.
    depth: usize,
    /// Bytes of text in all.
    limit: usize,
}

const BAD: DecodeError = DecodeError::new("JSON", 0);

fn value(kind: u8, bytes: &[u8], out: &mut Text, bounds: Bounds) -> Result<(), DecodeError> {
    if bounds.depth > DEPTH_MAX {
        return Err(DecodeError::new("JSON nested too deeply", 0));
    }
    // Values are as long as their bytes allow, so one more is bounded too.
    if out.text.len() > bounds.limit {
        return Err(DecodeError::new("JSON whose values overlap", 0));
    }
    let mut r = Reader::new(bytes);
    match kind {
        0x00 => container(bytes, false, true, out, bounds),
        0x01 => container(bytes, true, true, out, bounds),
        0x02 => container(bytes, false, false, out, bounds),
        0x03 => container(bytes, true, false, out, bounds),
        0x04 => literal(r.u8().ok_or(BAD)?, out),
        0x05 => number(out, r.u16().ok_or(BAD)?.cast_signed()),
        0x06 => number(out, r.u16().ok_or(BAD)?),
        0x07 => number(out, r.u32().ok_or(BAD)?.cast_signed()),
        0x08 => number(out, r.u32().ok_or(BAD)?),
        0x09 => number(out, r.u64().ok_or(BAD)?.cast_signed()),
        0x0A => number(out, r.u64().ok_or(BAD)?),
        0x0B => double(f64::from_bits(r.u64().ok_or(BAD)?), out),
        0x0C => {
            let length = variable_length(&mut r)?;
            let raw = r.bytes(length).ok_or(BAD)?;
            string(std::str::from_utf8(raw).map_err(|_| BAD)?, out);
            Ok(())
        }
        0x0F => opaque(&mut r, out),
        _ => Err(DecodeError::new("JSON value of an unknown type", 0)),
    }
}

fn literal(code: u8, out: &mut Text) -> Result<(), DecodeError> {
    out.text.push_str(match code {
        0 => "null",
        1 => "true",
        2 => "false",
        _ => return Err(BAD),
    });
    Ok(())
}

fn number(out: &mut Text, n: impl std::fmt::Display) -> Result<(), DecodeError> {
    let _ = write!(out.text, "{n}");
    Ok(())
}

/// The shortest digits that read back as the same double, with a point or an
/// exponent, so that the server does not make an integer of it.
fn double(value: f64, out: &mut Text) -> Result<(), DecodeError> {
    if !value.is_finite() {
        return Err(DecodeError::new("JSON number that is not finite", 0));
    }
    let _ = write!(out.text, "{value:?}");
    Ok(())
}

fn string(s: &str, out: &mut Text) {
    out.text.push('"');
    for c in s.chars() {
        match c {
            '"' => out.text.push_str("\\\""),
            '\\' => out.text.push_str("\\\\"),
            '\u{8}' => out.text.push_str("\\b"),
            '\u{c}' => out.text.push_str("\\f"),
            '\n' => out.text.push_str("\\n"),
            '\r' => out.text.push_str("\\r"),
            '\t' => out.text.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out.text, "\\u{:04x}", u32::from(c));
            }
            c => out.text.push(c),
        }
    }
    out.text.push('"');
}

/// Seven bits a byte, low bits first, the high bit says that more follow.
fn variable_length(r: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let mut length = 0u64;
    for shift in 0..5 {
        let b = r.u8().ok_or(BAD)?;
        length |= u64::from(b & 0x7F) << (7 * shift);
        if b & 0x80 == 0 {
            let length = u32::try_from(length).map_err(|_| BAD)?;
            return usize::try_from(length).map_err(|_| BAD);
        }
    }
    Err(BAD)
}

/// A number of a container's own width.
fn sized(r: &mut Reader<'_>, large: bool) -> Result<usize, DecodeError> {
    let n = if large {
        r.u32()
    } else {
        r.u16().map(u32::from)
    };
    usize::try_from(n.ok_or(BAD)?).map_err(|_| BAD)
}

/// Scalars that stand in the table itself instead of behind an offset.
fn is_inlined(kind: u8, large: bool) -> bool {
    matches!(kind, 0x04..=0x06) || large && matches!(kind, 0x07 | 0x08)
}

fn container(
    bytes: &[u8],
    large: bool,
    object: bool,
    out: &mut Text,
    bounds: Bounds,
) -> Result<(), DecodeError> {
    let inner = Bounds {
        depth: bounds.depth + 1,
        ..bounds
    };
    let mut r = Reader::new(bytes);
    let count = sized(&mut r, large)?;
    let size = sized(&mut r, large)?;
    let whole = bytes.get(..size).ok_or(BAD)?;
    let width = if large { 4 } else { 2 };
    // Keys: offset and two bytes of length; values: type and offset.
    let keys = if object { width + 2 } else { 0 };
    let tables = count.checked_mul(keys + 1 + width).ok_or(BAD)?;
    if tables > whole.len() {
        return Err(BAD);
    }
    let mut keys_at = Reader::at(whole, 2 * width);
    let mut values_at = Reader::at(whole, 2 * width + count * keys);
    out.text.push(if object { '{' } else { '[' });
    for i in 0..count {
        if i > 0 {
            out.text.push_str(", ");
        }
        if object {
            let offset = sized(&mut keys_at, large)?;
            let length = usize::from(keys_at.u16().ok_or(BAD)?);
            let key = whole.get(offset..).and_then(|k| k.get(..length));
            let key = std::str::from_utf8(key.ok_or(BAD)?).map_err(|_| BAD)?;
            if out.text.len() > bounds.limit {
                return Err(DecodeError::new("JSON whose values overlap", 0));
            }
            string(key, out);
            out.text.push_str(": ");
        }
        let kind = values_at.u8().ok_or(BAD)?;
        if is_inlined(kind, large) {
            let mut scalar = [0u8; 4];
            let raw = values_at.bytes(width).ok_or(BAD)?;
            for (to, from) in scalar.iter_mut().zip(raw) {
                *to = *from;
            }
            value(kind, &scalar, out, inner)?;
        } else {
            let offset = sized(&mut values_at, large)?;
            // An offset into the tables could make a document contain itself.
            if offset < 2 * width + tables {
                return Err(BAD);
            }
            value(kind, whole.get(offset..).ok_or(BAD)?, out, inner)?;
        }
    }
    out.text.push(if object { '}' } else { ']' });
    Ok(())
}

/// A value of a MySQL type that JSON has not.
fn opaque(r: &mut Reader<'_>, out: &mut Text) -> Result<(), DecodeError> {
    const NEWDECIMAL: u8 = 246;
    const DATE: u8 = 10;
    const TIME: u8 = 11;
    const DATETIME: u8 = 12;
    const TIMESTAMP: u8 = 7;
    out.exact = false;
    let kind = r.u8().ok_or(BAD)?;
    let length = variable_length(r)?;
    let raw = r.bytes(length).ok_or(BAD)?;
    let mut inner = Reader::new(raw);
    match kind {
        NEWDECIMAL => {
            let precision = inner.u8().ok_or(BAD)?;
            let scale = inner.u8().ok_or(BAD)?;
            out.text
                .push_str(&decimal::read(&mut inner, precision, scale)?);
        }
        DATE | DATETIME | TIMESTAMP | TIME => {
            let packed = inner.u64().ok_or(BAD)?.cast_signed();
            out.text.push('"');
            temporal(kind == DATE, kind == TIME, packed, &mut out.text);
            out.text.push('"');
        }
        _ => {
            let _ = write!(out.text, "\"base64:type{kind}:");
            base64(raw, &mut out.text);
            out.text.push('"');
        }
    }
    Ok(())
}

/// The 64-bit form: 24 bits of microseconds below, date and time above.
fn temporal(date_only: bool, time_only: bool, packed: i64, out: &mut String) {
    let negative = packed < 0;
    let magnitude = packed.unsigned_abs();
    let (whole, micros) = (magnitude >> 24, magnitude & 0xFF_FFFF);
    if time_only {
        let _ = write!(
            out,
            "{}{:02}:{:02}:{:02}.{micros:06}",
            if negative { "-" } else { "" },
            whole >> 12 & 0x3FF,
            whole >> 6 & 63,
            whole & 63
        );
        return;
    }
    let (date, time) = (whole >> 17, whole & 0x1_FFFF);
    let (month, day) = (date >> 5, date & 31);
    let _ = write!(out, "{:04}-{:02}-{:02}", month / 13, month % 13, day);
    if !date_only {
        let (hour, minute, second) = (time >> 12, time >> 6 & 63, time & 63);
        let _ = write!(out, " {hour:02}:{minute:02}:{second:02}.{micros:06}");
    }
}

fn base64(raw: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for part in raw.chunks(3) {
        let bits = part
            .iter()
            .enumerate()
            .fold(0u32, |v, (i, b)| v | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * i) & 63).unwrap_or_default();
            match DIGITS.get(digit) {
                Some(d) if i <= part.len() => out.push(char::from(*d)),
                _ => out.push('='),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scalars() {
        let json = |b: &[u8]| text(b).map(|t| t.text).ok();
        assert_eq!(json(&[]).as_deref(), Some("null"));
        assert_eq!(json(&[4, 1]).as_deref(), Some("true"));
        assert_eq!(json(&[5, 0xFF, 0xFF]).as_deref(), Some("-1"));
        assert_eq!(
            json(&[0x0C, 3, b'a', b'"', b'\n']).as_deref(),
            Some("\"a\\\"\\n\"")
        );
        let one = [&[0x0B][..], &1f64.to_le_bytes()].concat();
        assert_eq!(json(&one).as_deref(), Some("1.0"), "stays a double");
        assert_eq!(json(&[0x0F, 246, 3, 1, 0, 0x85]).as_deref(), Some("5"));
        assert!(!text(&[0x0F, 246, 3, 1, 0, 0x85]).unwrap().exact);
    }

    #[test]
    fn a_small_object() {
        // {"a": 1, "b": [true]}
        let bytes = [
            0, 2, 0, 29, 0, 18, 0, 1, 0, 19, 0, 1, 0, 5, 1, 0, 2, 20, 0, b'a', b'b', 1, 0, 9, 0, 4,
            1, 0, 0, 0,
        ];
        assert_eq!(text(&bytes).unwrap().text, "{\"a\": 1, \"b\": [true]}");
    }

    #[test]
    fn a_document_cannot_contain_itself() {
        // An array whose only value is the array at offset 0.
        let bytes = [2, 1, 0, 7, 0, 2, 0, 0];
        assert!(text(&bytes).is_err());
    }

    /// Small arrays in a chain, each naming the next `wide` times.
    fn bomb(levels: usize, wide: usize) -> Vec<u8> {
        let mut inner = vec![0x0C, 1, b'x'];
        for _ in 0..levels {
            let kind = inner[0];
            let offset = 4 + wide * 3;
            let mut array = vec![0x02];
            array.extend_from_slice(&u16::try_from(wide).unwrap().to_le_bytes());
            let size = offset + inner.len() - 1;
            array.extend_from_slice(&u16::try_from(size).unwrap().to_le_bytes());
            for _ in 0..wide {
                array.push(kind);
                array.extend_from_slice(&u16::try_from(offset).unwrap().to_le_bytes());
            }
            array.extend_from_slice(&inner[1..]);
            inner = array;
        }
        inner
    }

    #[test]
    fn values_that_overlap_do_not_grow_without_bound() {
        assert!(text(&bomb(2, 8)).is_ok(), "as written by nobody, but small");
        let error = text(&bomb(40, 100)).unwrap_err();
        assert_eq!(error.what, "JSON whose values overlap");
    }

    #[test]
    fn honest_documents_stay_below_the_bound() {
        // The most text for the bytes: an object of one-letter keys and
        // literals, an array of them, a string of control characters.
        let mut object = vec![0x00, 100, 0];
        let size = 4 + 100 * (4 + 3) + 100;
        object.extend_from_slice(&u16::try_from(size).unwrap().to_le_bytes());
        for i in 0..100u16 {
            object.extend_from_slice(&(4 + 700 + i).to_le_bytes());
            object.extend_from_slice(&[1, 0]);
        }
        (0..100).for_each(|_| object.extend_from_slice(&[4, 2, 0]));
        object.extend_from_slice(&[b'k'; 100]);
        assert!(text(&object).is_ok());
        let mut string = vec![
            0x0C,
            0x80 | (20_000 & 0x7F) as u8,
            0x80 | (20_000 >> 7 & 0x7F) as u8,
            1,
        ];
        string.extend_from_slice(&[1; 20_000]);
        assert!(text(&string).is_ok());
    }

    #[test]
    fn base64_pads() {
        let encoded = |raw: &[u8]| {
            let mut out = String::new();
            base64(raw, &mut out);
            out
        };
        assert_eq!(encoded(b"f"), "Zg==");
        assert_eq!(encoded(b"fo"), "Zm8=");
        assert_eq!(encoded(b"foo"), "Zm9v");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = text(&bytes);
        }
    }
}
