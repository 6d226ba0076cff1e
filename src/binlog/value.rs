//! One column's value in a row image.

use bytes::Bytes;

use super::table_map::{Column, ColumnType};
use super::{DecodeError, decimal, json, need, temporal};
use crate::wire::Reader;

/// A value, as exact as the log has it.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Not in this image (`binlog_row_image` is not FULL, or a JSON column
    /// logged as a difference): the row must be read to know it.
    Absent,
    /// SQL NULL.
    Null,
    /// A signed integer; also YEAR.
    Int(i64),
    /// An unsigned integer; also BIT.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL, as text with all digits of its scale.
    Decimal(String),
    /// DATE, DATETIME, TIME as text; TIMESTAMP as text in UTC.
    Time(String),
    /// Text in the column's own character set, or bytes. CHAR comes without
    /// its padding, BINARY(n) without trailing zeros.
    Bytes(Bytes),
    /// ENUM: the member's number, from 1; 0 is the error value ''.
    Enum(u16),
    /// SET: one bit a member.
    Set(u64),
    /// JSON of MySQL, as text. MariaDB's JSON is [`Value::Bytes`].
    Json(json::Text),
}

/// Reads `n` bytes (1 to 8), little endian.
fn little(r: &mut Reader<'_>, n: usize) -> Result<u64, DecodeError> {
    let bytes = need(r.bytes(n), "integer", r)?;
    Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
}

fn integer(r: &mut Reader<'_>, n: usize, unsigned: bool) -> Result<Value, DecodeError> {
    let raw = little(r, n)?;
    if unsigned {
        return Ok(Value::UInt(raw));
    }
    let unused = 64 - 8 * u32::try_from(n.clamp(1, 8)).unwrap_or(8);
    Ok(Value::Int((raw << unused).cast_signed() >> unused))
}

/// A value behind a length of `width` bytes.
fn counted(r: &mut Reader<'_>, data: &Bytes, width: usize) -> Result<Bytes, DecodeError> {
    let length = little(r, width)?;
    let length = need(usize::try_from(length).ok(), "length of a value", r)?;
    let range = need(r.range(length), "value shorter than its length", r)?;
    Ok(data.slice(range))
}

/// Reads a value of `column` at `r`, which reads `data`. `unsigned` counts for
/// integers only.
pub(crate) fn read(
    r: &mut Reader<'_>,
    data: &Bytes,
    column: &Column,
    unsigned: bool,
) -> Result<Value, DecodeError> {
    Ok(match column.kind {
        ColumnType::Integer { bytes } => integer(r, usize::from(bytes), unsigned)?,
        ColumnType::Float => Value::Float(f32::from_bits(need(r.u32(), "FLOAT", r)?)),
        ColumnType::Double => Value::Double(f64::from_bits(need(r.u64(), "DOUBLE", r)?)),
        ColumnType::Decimal { precision, scale } => {
            Value::Decimal(decimal::read(r, precision, scale)?)
        }
        ColumnType::Year => match need(r.u8(), "YEAR", r)? {
            0 => Value::Int(0),
            y => Value::Int(1900 + i64::from(y)),
        },
        ColumnType::Date => Value::Time(temporal::date(r)?),
        ColumnType::Time { digits } => Value::Time(temporal::time2(r, digits)?),
        ColumnType::DateTime { digits } => Value::Time(temporal::datetime2(r, digits)?),
        ColumnType::Timestamp { digits } => Value::Time(temporal::timestamp2(r, digits)?),
        ColumnType::OldTime => Value::Time(temporal::old_time(r)?),
        ColumnType::OldDateTime => Value::Time(temporal::old_datetime(r)?),
        ColumnType::OldTimestamp => Value::Time(temporal::old_timestamp(r)?),
        ColumnType::Bit { bytes } => {
            let raw = need(r.bytes(usize::from(bytes)), "BIT", r)?;
            Value::UInt(raw.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
        }
        ColumnType::Enum { bytes } => {
            let n = little(r, usize::from(bytes))?;
            Value::Enum(need(u16::try_from(n).ok(), "ENUM", r)?)
        }
        ColumnType::Set { bytes } => Value::Set(little(r, usize::from(bytes))?),
        ColumnType::Text { length_bytes } => {
            Value::Bytes(counted(r, data, usize::from(length_bytes))?)
        }
        ColumnType::Json { length_bytes } => {
            let at = r.pos();
            let raw = counted(r, data, usize::from(length_bytes))?;
            let text = json::text(&raw).map_err(|e| DecodeError::new(e.what, at))?;
            Value::Json(text)
        }
        ColumnType::Unreadable { code: _, why } => {
            return Err(DecodeError::new(why, r.pos()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(kind: ColumnType, unsigned: bool, bytes: &'static [u8]) -> Option<Value> {
        let column = Column {
            kind,
            nullable: true,
        };
        let data = Bytes::from_static(bytes);
        read(&mut Reader::new(bytes), &data, &column, unsigned).ok()
    }

    #[test]
    fn integers_keep_their_sign() {
        let medium = ColumnType::Integer { bytes: 3 };
        assert_eq!(decode(medium, false, &[0xFF; 3]), Some(Value::Int(-1)));
        assert_eq!(
            decode(medium, true, &[0xFF; 3]),
            Some(Value::UInt(0xFF_FFFF))
        );
        let big = ColumnType::Integer { bytes: 8 };
        assert_eq!(decode(big, true, &[0xFF; 8]), Some(Value::UInt(u64::MAX)));
        assert_eq!(decode(big, false, &[0xFF; 8]), Some(Value::Int(-1)));
        assert_eq!(decode(big, false, &[0xFF; 7]), None);
    }

    #[test]
    fn text_is_not_longer_than_the_event() {
        let text = ColumnType::Text { length_bytes: 2 };
        assert_eq!(
            decode(text, false, &[2, 0, b'a', b'b']),
            Some(Value::Bytes(Bytes::from_static(b"ab")))
        );
        assert_eq!(decode(text, false, &[3, 0, b'a', b'b']), None);
    }
}
