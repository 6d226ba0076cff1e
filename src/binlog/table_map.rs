//! TABLE_MAP events: the columns that the row events after it are made of.

use super::{DecodeError, decimal, need, temporal};
use crate::wire::Reader;

/// The servers' limit on columns of a table.
const COLUMNS_MAX: u64 = 4096;

/// How a column's values are stored in row images.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// TINYINT to BIGINT, of 1, 2, 3, 4 or 8 bytes.
    Integer {
        /// Width.
        bytes: u8,
    },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// DECIMAL.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// YEAR.
    Year,
    /// DATE.
    Date,
    /// TIME with this many digits of a fraction.
    Time {
        /// 0 to 6.
        digits: u8,
    },
    /// DATETIME likewise.
    DateTime {
        /// 0 to 6.
        digits: u8,
    },
    /// TIMESTAMP likewise.
    Timestamp {
        /// 0 to 6.
        digits: u8,
    },
    /// TIME of before MySQL 5.6, without a fraction.
    OldTime,
    /// DATETIME of before MySQL 5.6, without a fraction.
    OldDateTime,
    /// TIMESTAMP of before MySQL 5.6, without a fraction.
    OldTimestamp,
    /// BIT.
    Bit {
        /// Width, 1 to 8.
        bytes: u8,
    },
    /// ENUM.
    Enum {
        /// Width, 1 or 2.
        bytes: u8,
    },
    /// SET.
    Set {
        /// Width, 1 to 8.
        bytes: u8,
    },
    /// CHAR, VARCHAR, BINARY, VARBINARY, TEXT, BLOB, GEOMETRY, VECTOR,
    /// MariaDB's JSON, INET6 and UUID.
    Text {
        /// Width of the length before the value, 1 to 4.
        length_bytes: u8,
    },
    /// MySQL's JSON.
    Json {
        /// Width of the length before the value.
        length_bytes: u8,
    },
    /// Its values cannot be read; rows of the table are an error, the table
    /// map itself is not.
    Unreadable {
        /// The server's type code.
        code: u8,
        /// What the error says.
        why: &'static str,
    },
}

/// One column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// How it is stored.
    pub kind: ColumnType,
    /// NULL is allowed.
    pub nullable: bool,
}

/// A TABLE_MAP event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableMap {
    /// The number that row events use; valid until the statement's end.
    pub id: u64,
    /// Schema name, UTF-8.
    pub schema: Vec<u8>,
    /// Table name, UTF-8.
    pub table: Vec<u8>,
    /// The columns, in the table's order. MySQL leaves out hidden ones.
    pub columns: Vec<Column>,
    /// Which columns are unsigned, where the server says so: MySQL 8 and
    /// later always, MariaDB with `binlog_row_metadata` MINIMAL or FULL.
    pub unsigned: Option<Vec<bool>>,
    /// Column names, with `binlog_row_metadata=FULL`.
    pub names: Option<Vec<Vec<u8>>>,
}

impl TableMap {
    /// Reads the event's body. `short_id`: the table id has 4 bytes.
    pub(crate) fn read(body: &[u8], short_id: bool) -> Result<TableMap, DecodeError> {
        let r = &mut Reader::new(body);
        let id = table_id(r, short_id)?;
        need(r.u16(), "table map flags", r)?;
        let schema = name(r)?;
        let table = name(r)?;
        let count = need(r.lenenc_int(), "column count", r)?;
        let count = usize::try_from(count)
            .ok()
            .filter(|_| count <= COLUMNS_MAX)
            .ok_or(DecodeError::new("column count over 4096", r.pos()))?;
        let codes = need(r.bytes(count), "column types", r)?;
        let metadata = need(r.lenenc_bytes(), "column metadata", r)?;
        let nullable = need(r.bytes(count.div_ceil(8)), "nullable columns", r)?;
        let mut columns = Vec::with_capacity(count);
        let meta = &mut Reader::new(metadata);
        for (i, code) in codes.iter().enumerate() {
            columns.push(Column {
                kind: column_type(*code, meta)?,
                nullable: bit(nullable, i),
            });
        }
        if !meta.is_empty() {
            return Err(DecodeError::new(
                "more column metadata than columns",
                r.pos(),
            ));
        }
        let mut map = TableMap {
            id,
            schema,
            table,
            columns,
            unsigned: None,
            names: None,
        };
        map.optional(r, codes)?;
        Ok(map)
    }

    /// Type, length, value until the end.
    fn optional(&mut self, r: &mut Reader<'_>, codes: &[u8]) -> Result<(), DecodeError> {
        const SIGNEDNESS: u8 = 1;
        const COLUMN_NAME: u8 = 4;
        while !r.is_empty() {
            let kind = need(r.u8(), "optional metadata", r)?;
            let value = need(r.lenenc_bytes(), "optional metadata", r)?;
            match kind {
                SIGNEDNESS => self.unsigned = Some(signedness(codes, value, r)?),
                COLUMN_NAME => {
                    let names = &mut Reader::new(value);
                    let mut all = Vec::with_capacity(codes.len());
                    for _ in codes {
                        all.push(need(names.lenenc_bytes(), "column name", names)?.to_vec());
                    }
                    self.names = Some(all);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// One bit a numeric column, the first in the high bit.
fn signedness(codes: &[u8], bits: &[u8], r: &Reader<'_>) -> Result<Vec<bool>, DecodeError> {
    let mut numeric = 0;
    let mut unsigned = Vec::with_capacity(codes.len());
    for code in codes {
        unsigned.push(if is_numeric(*code) {
            let byte = bits.get(numeric / 8).copied();
            let byte = need(byte, "signedness of the columns", r)?;
            let set = byte & (0x80 >> (numeric % 8)) != 0;
            numeric += 1;
            set
        } else {
            false
        });
    }
    Ok(unsigned)
}

/// Types that have a bit in the signedness: TINY, SHORT, LONG, FLOAT, DOUBLE,
/// LONGLONG, INT24, the old DECIMAL and NEWDECIMAL. Not YEAR.
fn is_numeric(code: u8) -> bool {
    matches!(code, 0..=5 | 8 | 9 | 246)
}

/// Bit `i` of a bitmap, low bits first.
pub(crate) fn bit(bitmap: &[u8], i: usize) -> bool {
    bitmap.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1)
}

/// The table id that starts table maps and row events.
pub(crate) fn table_id(r: &mut Reader<'_>, short: bool) -> Result<u64, DecodeError> {
    if short {
        return Ok(u64::from(need(r.u32(), "table id", r)?));
    }
    let low = u64::from(need(r.u32(), "table id", r)?);
    let high = u64::from(need(r.u16(), "table id", r)?);
    Ok(high << 32 | low)
}

/// A name behind one byte of length, ended by NUL.
fn name(r: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let length = usize::from(need(r.u8(), "name", r)?);
    let name = need(r.bytes(length), "name", r)?.to_vec();
    match need(r.u8(), "name", r)? {
        0 => Ok(name),
        _ => Err(DecodeError::new("name without its end", r.pos())),
    }
}

/// The type of a column, from its code and its metadata (server source,
/// `Table_map_event`).
fn column_type(code: u8, meta: &mut Reader<'_>) -> Result<ColumnType, DecodeError> {
    use ColumnType as T;
    let mut byte = |what| need(meta.u8(), what, meta);
    Ok(match code {
        1 => T::Integer { bytes: 1 },
        2 => T::Integer { bytes: 2 },
        9 => T::Integer { bytes: 3 },
        3 => T::Integer { bytes: 4 },
        8 => T::Integer { bytes: 8 },
        4 => match byte("FLOAT")? {
            4 => T::Float,
            _ => return Err(DecodeError::new("width of FLOAT", meta.pos())),
        },
        5 => match byte("DOUBLE")? {
            8 => T::Double,
            _ => return Err(DecodeError::new("width of DOUBLE", meta.pos())),
        },
        246 => {
            let (precision, scale) = (byte("DECIMAL")?, byte("DECIMAL")?);
            if decimal::length(precision, scale).is_none() {
                return Err(DecodeError::new("digits of DECIMAL", meta.pos()));
            }
            T::Decimal { precision, scale }
        }
        7 => T::OldTimestamp,
        10 | 14 => T::Date,
        11 => T::OldTime,
        12 => T::OldDateTime,
        13 => T::Year,
        17..=19 => {
            let digits = byte("fraction of a second")?;
            if temporal::fraction_length(digits).is_none() {
                return Err(DecodeError::new("fraction of a second", meta.pos()));
            }
            match code {
                17 => T::Timestamp { digits },
                18 => T::DateTime { digits },
                _ => T::Time { digits },
            }
        }
        16 => {
            let (bits, bytes) = (byte("BIT")?, byte("BIT")?);
            match bytes.saturating_add(u8::from(bits > 0)) {
                bytes @ 1..=8 if bits < 8 => T::Bit { bytes },
                _ => return Err(DecodeError::new("width of BIT", meta.pos())),
            }
        }
        15 | 253 => {
            let longest = need(meta.u16(), "VARCHAR", meta)?;
            T::Text {
                length_bytes: if longest > 255 { 2 } else { 1 },
            }
        }
        254 | 247 | 248 => {
            let (high, low) = (byte("CHAR")?, byte("CHAR")?);
            string_type(high, low).ok_or(DecodeError::new("width of CHAR", meta.pos()))?
        }
        242 | 245 | 249..=252 | 255 => match byte("length of a BLOB")? {
            length_bytes @ 1..=4 if code == 245 => T::Json { length_bytes },
            length_bytes @ 1..=4 => T::Text { length_bytes },
            _ => return Err(DecodeError::new("length of a BLOB", meta.pos())),
        },
        // Array of a multi-valued index: hidden, but be sure.
        20 => {
            byte("ARRAY")?;
            return Err(DecodeError::new("column of type ARRAY", meta.pos()));
        }
        140 => {
            byte("length of a compressed BLOB")?;
            T::Unreadable {
                code,
                why: "value of a COMPRESSED column",
            }
        }
        141 => {
            need(meta.u16(), "compressed VARCHAR", meta)?;
            T::Unreadable {
                code,
                why: "value of a COMPRESSED column",
            }
        }
        6 => T::Unreadable {
            code,
            why: "value of type NULL",
        },
        _ => return Err(DecodeError::new("column of an unknown type", meta.pos())),
    })
}

/// CHAR, ENUM and SET share a code; the real one is in the metadata. A CHAR of
/// more than 255 bytes keeps two bits of its length in the type's byte.
fn string_type(high: u8, low: u8) -> Option<ColumnType> {
    if high & 0x30 != 0x30 {
        let length = u16::from(low) | u16::from((high & 0x30) ^ 0x30) << 4;
        return (high | 0x30 == 254).then_some(ColumnType::Text {
            length_bytes: if length > 255 { 2 } else { 1 },
        });
    }
    match high {
        247 if (1..=2).contains(&low) => Some(ColumnType::Enum { bytes: low }),
        248 if (1..=8).contains(&low) => Some(ColumnType::Set { bytes: low }),
        254 | 253 => Some(ColumnType::Text { length_bytes: 1 }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wide_chars_keep_their_length() {
        // CHAR(255) of utf8mb4: 1020 bytes = 0x3FC.
        let (high, low) = (254 ^ ((0x3FCu16 >> 4 & 0x30) as u8), 0xFC);
        assert_eq!(
            string_type(high, low),
            Some(ColumnType::Text { length_bytes: 2 })
        );
        assert_eq!(
            string_type(254, 20),
            Some(ColumnType::Text { length_bytes: 1 })
        );
        assert_eq!(string_type(247, 3), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = TableMap::read(&bytes, false);
            let _ = TableMap::read(&bytes, true);
        }
    }
}
