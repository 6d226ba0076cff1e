//! Values of row images as SQL literals.
//!
//! The texts are made for a session that [`SESSION`] has prepared: bytes are
//! bytes (`character_set_client=binary`), so a text column's value is written
//! in its own character set behind an introducer and nothing converts it but
//! the column it is stored in.

use std::fmt::Write;

use crate::binlog::Value;

use super::shape::ColumnShape;

/// What a session must say before it executes our literals.
///
/// - `binary`: literals are taken byte by byte.
/// - UTC: TIMESTAMP values are in UTC in images.
/// - Strict, so that a value that does not fit is an error and never cut; zero
///   and invalid dates and ids of 0 stand in tables, so they are allowed.
/// - No foreign keys: rows come in the log's order, but table by table, and
///   the children of a cascade come by themselves.
pub const SESSION: &str = "SET NAMES binary, time_zone='+00:00', \
     sql_mode='STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', \
     foreign_key_checks=0, autocommit=1; \
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// A value that cannot be written as a literal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unwritable(pub &'static str);

/// Appends a name in backticks.
pub fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(b'`');
    for b in name {
        out.push(*b);
        if *b == b'`' {
            out.push(b'`');
        }
    }
    out.push(b'`');
}

/// Appends `database.table`.
pub fn put_table(out: &mut Vec<u8>, database: &[u8], table: &[u8]) {
    put_name(out, database);
    out.push(b'.');
    put_name(out, table);
}

/// Appends bytes in quotes, for `character_set_client=binary`.
pub fn put_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'\'');
    let mut rest = bytes;
    while let Some(at) = memchr::memchr3(b'\'', b'\\', 0, rest) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        out.push(b'\\');
        out.push(match special.first() {
            Some(0) | None => b'0',
            Some(b) => *b,
        });
        rest = special.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

/// Appends a value of `column`, which is the column as the side that logged
/// the value has it.
///
/// # Errors
/// The value is not known, or its character set is not.
pub fn put_value(out: &mut Vec<u8>, value: &Value, column: &ColumnShape) -> Result<(), Unwritable> {
    let mut number = String::new();
    match value {
        Value::Absent => return Err(Unwritable("a column is not in the image")),
        Value::Null => number.push_str("NULL"),
        Value::Int(n) => _ = write!(number, "{n}"),
        Value::UInt(n) | Value::Set(n) => _ = write!(number, "{n}"),
        Value::Enum(n) => _ = write!(number, "{n}"),
        // A FLOAT's exact value has more digits than the server would print.
        Value::Float(f) => _ = write!(number, "{:e}", f64::from(*f)),
        Value::Double(f) => _ = write!(number, "{f:e}"),
        Value::Decimal(text) => number.push_str(text),
        Value::Time(text) => put_quoted(out, text.as_bytes()),
        Value::Json(json) => {
            out.extend_from_slice(b"_utf8mb4");
            put_quoted(out, json.text.as_bytes());
        }
        Value::Bytes(bytes) => put_bytes(out, bytes, column)?,
    }
    out.extend_from_slice(number.as_bytes());
    Ok(())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8], column: &ColumnShape) -> Result<(), Unwritable> {
    match column.type_name() {
        // The image lacks trailing zeros, and a BINARY column is compared with
        // all of them: without, no row whose key ends in a zero would be found.
        "binary" => {
            let digits = column.column_type.split(['(', ')']).nth(1);
            let width = digits.and_then(|d| d.parse().ok()).unwrap_or(1);
            let mut whole = bytes.to_vec();
            whole.resize(bytes.len().max(width), 0);
            out.extend_from_slice(b"_binary");
            put_quoted(out, &whole);
        }
        "uuid" => put_address(out, &uuid(whole(bytes))),
        "inet6" => put_address(out, &inet6(whole(bytes))),
        "inet4" => {
            let address = std::net::Ipv4Addr::from(whole::<4>(bytes));
            put_address(out, &address.to_string());
        }
        _ => {
            out.push(b'_');
            let charset = column.charset.as_deref().unwrap_or("binary");
            if !charset.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(Unwritable("a character set's name"));
            }
            out.extend_from_slice(charset.as_bytes());
            put_quoted(out, bytes);
        }
    }
    Ok(())
}

/// As text, which the column itself takes as well as the text column that stands
/// for it on the other family. Said to be text: the session's strings are
/// bytes, which the column would take for the value itself.
fn put_address(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"_latin1");
    put_quoted(out, text.as_bytes());
}

/// All bytes of a value of fixed width: the image lacks trailing zeros.
fn whole<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    whole
}

/// As MariaDB prints it.
fn uuid(bytes: [u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (n, b) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// As MariaDB prints it: the last four bytes dotted where twelve zeros stand
/// before them, which is not everybody's rule.
fn inet6(bytes: [u8; 16]) -> String {
    let address = std::net::Ipv6Addr::from(bytes);
    let [0, 0, 0, 0, 0, 0, high, _] = address.segments() else {
        return address.to_string();
    };
    if high == 0 {
        return address.to_string();
    }
    let [.., a, b, c, d] = bytes;
    format!("::{a}.{b}.{c}.{d}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(value: &Value, column_type: &str, charset: Option<&str>) -> String {
        let column = ColumnShape {
            column_type: column_type.into(),
            charset: charset.map(str::to_owned),
            ..ColumnShape::default()
        };
        let mut out = Vec::new();
        put_value(&mut out, value, &column).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_ends_a_literal_early() {
        let bytes = |b: &'static [u8]| Value::Bytes(bytes::Bytes::from_static(b));
        assert_eq!(
            literal(&bytes(b"a'b\\c\0"), "varchar(9)", Some("latin1")),
            "_latin1'a\\'b\\\\c\\0'"
        );
        assert_eq!(literal(&bytes(b""), "blob", None), "_binary''");
        assert_eq!(
            literal(&bytes(b"a"), "binary(3)", None),
            "_binary'a\\0\\0'",
            "as wide as the column"
        );
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(literal(&Value::Double(0.1), "double", None), "1e-1");
        assert_eq!(literal(&Value::Double(-0.0), "double", None), "-0e0");
        assert_eq!(
            literal(&Value::Float(0.1), "float", None),
            "1.0000000149011612e-1"
        );
        assert_eq!(
            literal(&Value::UInt(u64::MAX), "bigint(20) unsigned", None),
            "18446744073709551615"
        );
    }

    #[test]
    fn addresses_are_written_as_mariadb_prints_them() {
        let bytes = |b: &[u8]| Value::Bytes(bytes::Bytes::copy_from_slice(b));
        let uuid: Vec<u8> = (0x10..0x20).collect();
        assert_eq!(
            literal(&bytes(&uuid), "uuid", None),
            "_latin1'10111213-1415-1617-1819-1a1b1c1d1e1f'"
        );
        let mut one = [0; 16];
        one[15] = 1;
        assert_eq!(literal(&bytes(&one), "inet6", None), "_latin1'::1'");
        one[13] = 7;
        assert_eq!(literal(&bytes(&one), "inet6", None), "_latin1'::0.7.0.1'");
        assert_eq!(
            literal(&bytes(&[10, 1]), "inet4", None),
            "_latin1'10.1.0.0'"
        );
        let documentation = [0x20, 1, 0xd, 0xb8];
        assert_eq!(
            literal(&bytes(&documentation), "inet6", None),
            "_latin1'2001:db8::'"
        );
    }

    #[test]
    fn names_are_quoted() {
        let mut out = Vec::new();
        put_table(&mut out, b"a`b", b"c.d");
        assert_eq!(out, b"`a``b`.`c.d`");
    }
}
