//! Small text results: those of the proxy's own queries, read whole, and
//! those it answers itself.

use super::frame::{logical, put_packet};
use super::lenenc::{NULL, Reader, put_bytes, put_int};
use super::{Capabilities, ErrPacket, OkPacket, Status, WireError, eof_packet};

/// One column of a result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its name or alias.
    pub name: Vec<u8>,
    /// MYSQL_TYPE_* byte.
    pub column_type: u8,
    /// Collation id; 63 is binary.
    pub charset: u16,
    /// Column flags.
    pub flags: u16,
}

/// A result read into memory. It takes up to 24 times the bytes it was read
/// from (a NULL is one byte there), so bound those.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextResult {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows; `None` is NULL.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
}

impl TextResult {
    /// The value in row `row`, column `column`: the outer `None` says that
    /// there is no such place, the inner one NULL.
    pub fn value(&self, row: usize, column: usize) -> Option<Option<&[u8]>> {
        Some(self.rows.get(row)?.get(column)?.as_deref())
    }
}

/// An OK packet, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OkOwned {
    /// Rows changed.
    pub affected_rows: u64,
    /// The first generated id, or 0.
    pub insert_id: u64,
    /// Session status.
    pub status: Status,
    /// Warnings.
    pub warnings: u16,
    /// Text for people.
    pub info: Vec<u8>,
    /// The session state block.
    pub session_state: Option<Vec<u8>>,
}

/// The answer to one of the proxy's own queries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueryAnswer {
    /// No rows.
    Ok(OkOwned),
    /// Refused: number and message.
    Err(u16, Vec<u8>),
    /// Rows.
    Rows(TextResult),
}

/// Reads one complete response to a COM_QUERY. Of several results the first
/// is given. The caller bounds `raw`; what is built is linear in it.
///
/// # Errors
/// Bytes that are no such response, or an incomplete one.
pub fn parse_text_result(raw: &[u8], caps: Capabilities) -> Result<QueryAnswer, WireError> {
    let mut packets = Packets { raw, at: 0 };
    let head = packets.next()?;
    match head.first() {
        Some(0x00) => {
            let ok = OkPacket::parse(&head, caps)?;
            Ok(QueryAnswer::Ok(OkOwned {
                affected_rows: ok.affected_rows,
                insert_id: ok.insert_id,
                status: ok.status,
                warnings: ok.warnings,
                info: ok.info.to_vec(),
                session_state: ok.session_state.map(<[u8]>::to_vec),
            }))
        }
        Some(0xFF) => error(&head),
        Some(0xFB | 0xFE) | None => Err(WireError::new("a result's head", 0)),
        Some(_) => rows(&head, &mut packets, caps),
    }
}

fn error(payload: &[u8]) -> Result<QueryAnswer, WireError> {
    let err = ErrPacket::parse(payload)?;
    Ok(QueryAnswer::Err(err.code, err.message.to_vec()))
}

fn rows(
    head: &[u8],
    packets: &mut Packets<'_>,
    caps: Capabilities,
) -> Result<QueryAnswer, WireError> {
    let mut result = TextResult::default();
    let count = Reader::new(head)
        .lenenc_int()
        .filter(|n| *n > 0)
        .ok_or(WireError::new("a column count", 0))?;
    for _ in 0..count {
        let payload = packets.next()?;
        let at = packets.at;
        result
            .columns
            .push(column(&payload, caps).ok_or(WireError::new("a column definition", at))?);
    }
    let deprecate_eof = caps.has(Capabilities::DEPRECATE_EOF);
    if !deprecate_eof && packets.next()?.first() != Some(&0xFE) {
        return Err(WireError::new("no EOF after the definitions", packets.at));
    }
    loop {
        let payload = packets.next()?;
        let end = if deprecate_eof { 0xFF_FFFF } else { 9 };
        match payload.first() {
            Some(0xFF) => return error(&payload),
            Some(0xFE) if payload.len() < end => return Ok(QueryAnswer::Rows(result)),
            _ => {}
        }
        let at = packets.at;
        let row = row(&payload, result.columns.len()).ok_or(WireError::new("a text row", at))?;
        result.rows.push(row);
    }
}

fn column(payload: &[u8], caps: Capabilities) -> Option<Column> {
    let mut r = Reader::new(payload);
    for _ in 0..4 {
        r.lenenc_bytes()?; // catalog, schema, table, original table
    }
    let name = r.lenenc_bytes()?.to_vec();
    r.lenenc_bytes()?; // original name
    if caps.has(Capabilities::MARIADB_EXTENDED_METADATA) {
        r.lenenc_bytes()?;
    }
    r.lenenc_int()?; // length of what follows: 12
    let charset = r.u16()?;
    r.u32()?; // display length
    Some(Column {
        name,
        charset,
        column_type: r.u8()?,
        flags: r.u16()?,
    })
}

fn row(payload: &[u8], columns: usize) -> Option<Vec<Option<Vec<u8>>>> {
    let mut r = Reader::new(payload);
    let mut row = Vec::with_capacity(columns.min(payload.len()));
    for _ in 0..columns {
        row.push(r.nullable_bytes()?.map(<[u8]>::to_vec));
    }
    r.is_empty().then_some(row)
}

/// The logical packets of a response, one after another.
struct Packets<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Packets<'a> {
    fn next(&mut self) -> Result<std::borrow::Cow<'a, [u8]>, WireError> {
        let cut = WireError::new("a response cut short", self.at);
        let rest = self.raw.get(self.at..).ok_or(cut)?;
        let (payload, used, _) = logical(rest).ok_or(cut)?;
        self.at += used;
        Ok(payload)
    }
}

/// Collation of numbers and raw bytes.
const BINARY: u16 = 63;
/// utf8mb4_general_ci: known to every server and client since 5.5.
const UTF8MB4: u16 = 45;
/// NUM column flag (also set by servers on numeric results).
const NUM_FLAG: u16 = 0x8000;

/// Appends a text result, numbered from 1: a column is a name and its
/// MYSQL_TYPE_* byte (numbers are marked binary, all else utf8mb4). A row
/// shorter than the columns is filled with NULL, a longer one cut.
pub fn build_text_result(
    cols: &[(&str, u8)],
    rows: &[Vec<Option<Vec<u8>>>],
    caps: Capabilities,
    status: Status,
    out: &mut Vec<u8>,
) {
    let mut seq = 1;
    let mut payload = Vec::new();
    put_int(&mut payload, cols.len() as u64);
    put_packet(out, &mut seq, &payload);
    for (name, column_type) in cols {
        payload.clear();
        put_column(&mut payload, name, *column_type, caps);
        put_packet(out, &mut seq, &payload);
    }
    if !caps.has(Capabilities::DEPRECATE_EOF) {
        put_packet(out, &mut seq, &eof_packet(status, 0));
    }
    for row in rows {
        payload.clear();
        for i in 0..cols.len() {
            match row.get(i).and_then(Option::as_ref) {
                Some(value) => put_bytes(&mut payload, value),
                None => payload.push(NULL),
            }
        }
        put_packet(out, &mut seq, &payload);
    }
    let end = OkPacket {
        header: 0xFE,
        ..OkPacket::new(status)
    };
    put_packet(out, &mut seq, &end.build(caps));
}

fn put_column(out: &mut Vec<u8>, name: &str, column_type: u8, caps: Capabilities) {
    let number = matches!(column_type, 0..=5 | 8 | 9 | 13 | 246);
    let (charset, flags) = if number {
        (BINARY, NUM_FLAG)
    } else {
        (UTF8MB4, 0)
    };
    put_bytes(out, b"def");
    for text in ["", "", "", name, ""] {
        put_bytes(out, text.as_bytes());
    }
    if caps.has(Capabilities::MARIADB_EXTENDED_METADATA) {
        put_bytes(out, b"");
    }
    out.push(0x0C);
    out.extend_from_slice(&charset.to_le_bytes());
    out.extend_from_slice(&u32::from(u16::MAX).to_le_bytes());
    out.push(column_type);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&[0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Event, ResponseCursor, ResponseKind};
    use proptest::prelude::*;

    const MODES: [Capabilities; 3] = [
        Capabilities::NONE,
        Capabilities::DEPRECATE_EOF,
        Capabilities(Capabilities::DEPRECATE_EOF.0 | Capabilities::MARIADB_EXTENDED_METADATA.0),
    ];

    #[test]
    fn built_results_read_back_and_end_where_the_cursor_says() {
        let rows = vec![
            vec![Some(b"1".to_vec()), None],
            vec![Some(b"".to_vec()), Some(vec![0xFE; 300])],
        ];
        for caps in MODES {
            let mut raw = Vec::new();
            let status = Status::AUTOCOMMIT;
            build_text_result(&[("id", 8), ("name", 253)], &rows, caps, status, &mut raw);
            let Ok(QueryAnswer::Rows(read)) = parse_text_result(&raw, caps) else {
                panic!("no rows");
            };
            assert_eq!(read.rows, rows);
            assert_eq!(read.columns[1].name, b"name");
            assert_eq!(read.columns[0].charset, BINARY);
            let mut cursor = ResponseCursor::new(caps);
            cursor.begin(ResponseKind::Generic);
            let fed = cursor.feed(&raw).expect("follows");
            assert_eq!((fed.consumed, fed.event), (raw.len(), Event::Done));
            assert_eq!(cursor.summary().status, status);
        }
    }

    /// A fuzzer's finding: zero written in three bytes.
    #[test]
    fn a_result_has_columns() {
        let mut raw = Vec::new();
        put_packet(&mut raw, &mut 1, &[0xFC, 0, 0]);
        put_packet(&mut raw, &mut 2, &eof_packet(Status(0), 0));
        put_packet(&mut raw, &mut 3, &eof_packet(Status(0), 0));
        assert!(parse_text_result(&raw, Capabilities::NONE).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(b in proptest::collection::vec(any::<u8>(), 0..200), caps: u64) {
            let _ = parse_text_result(&b, Capabilities(caps));
        }

        #[test]
        fn a_damaged_result_never_panics(at in 0usize..100, byte: u8, mode in 0usize..3) {
            let mut raw = Vec::new();
            let rows = vec![vec![Some(b"abc".to_vec())]];
            build_text_result(&[("a", 253)], &rows, MODES[mode], Status(2), &mut raw);
            let at = at % raw.len();
            raw[at] = byte;
            let _ = parse_text_result(&raw, MODES[mode]);
        }
    }
}
