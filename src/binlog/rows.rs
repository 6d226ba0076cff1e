//! Row events: the images of the rows that a statement inserted, updated or
//! deleted.

use std::sync::Arc;

use bytes::Bytes;

use super::table_map::{TableMap, bit, table_id};
use super::value::{self, Value};
use super::{DecodeError, need};
use crate::wire::Reader;

/// What happened to the rows of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Images after.
    Insert,
    /// Images before and after.
    Update,
    /// Images before.
    Delete,
}

/// A row event.
#[derive(Clone, Debug)]
pub struct Rows {
    /// What happened.
    pub change: Change,
    /// The table, as the map before said.
    pub table: Arc<TableMap>,
    /// The last row event of its statement.
    pub ends_statement: bool,
    /// Foreign keys were not checked (`foreign_key_checks=0`).
    pub no_foreign_key_checks: bool,
    /// Which columns the images have.
    before: Vec<bool>,
    after: Vec<bool>,
    /// PARTIAL_UPDATE_ROWS: JSON columns may be logged as differences.
    partial: bool,
    /// Where the images start in `data`.
    start: usize,
    data: Bytes,
}

/// One changed row: an image has one value a column of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Images {
    /// As it was; None for an insert.
    pub before: Option<Vec<Value>>,
    /// As it is; None for a delete.
    pub after: Option<Vec<Value>>,
}

const END_OF_STATEMENT: u16 = 1;
const NO_FOREIGN_KEY_CHECKS: u16 = 2;

/// What the event's type code says.
pub(crate) struct Form {
    pub change: Change,
    /// Version 2: extra data stands before the columns.
    pub extra: bool,
    pub partial: bool,
    /// MariaDB: the images are compressed.
    pub compressed: bool,
}

impl Form {
    /// None: not a row event.
    pub(crate) fn of(kind: u8) -> Option<Form> {
        let (change, extra, partial, compressed) = match kind {
            23 => (Change::Insert, false, false, false),
            24 => (Change::Update, false, false, false),
            25 => (Change::Delete, false, false, false),
            30 => (Change::Insert, true, false, false),
            31 => (Change::Update, true, false, false),
            32 => (Change::Delete, true, false, false),
            39 => (Change::Update, true, true, false),
            166 => (Change::Insert, false, false, true),
            167 => (Change::Update, false, false, true),
            168 => (Change::Delete, false, false, true),
            169 => (Change::Insert, true, false, true),
            170 => (Change::Update, true, false, true),
            171 => (Change::Delete, true, false, true),
            _ => return None,
        };
        Some(Form {
            change,
            extra,
            partial,
            compressed,
        })
    }
}

impl Rows {
    /// Reads the event's body; `table_of` finds the table map by its id.
    pub(crate) fn read(
        body: &Bytes,
        form: &Form,
        short_id: bool,
        table_of: impl FnOnce(u64) -> Option<Arc<TableMap>>,
    ) -> Result<Rows, DecodeError> {
        let r = &mut Reader::new(body);
        let id = table_id(r, short_id)?;
        let flags = need(r.u16(), "row event flags", r)?;
        if form.extra {
            let length = usize::from(need(r.u16(), "extra data", r)?);
            let rest = length.checked_sub(2);
            let rest = rest.ok_or(DecodeError::new("length of extra data", r.pos()))?;
            need(r.bytes(rest), "extra data", r)?;
        }
        let table = table_of(id).ok_or(DecodeError::new(
            "rows of a table that no table map named",
            r.pos(),
        ))?;
        let count = need(r.lenenc_int(), "column count", r)?;
        if usize::try_from(count) != Ok(table.columns.len()) {
            return Err(DecodeError::new(
                "another number of columns than the table map has",
                r.pos(),
            ));
        }
        let columns = table.columns.len();
        let mut present = || -> Result<Vec<bool>, DecodeError> {
            let bits = need(r.bytes(columns.div_ceil(8)), "columns present", r)?;
            Ok((0..columns).map(|i| bit(bits, i)).collect())
        };
        let first = present()?;
        let (before, after) = match form.change {
            Change::Insert => (Vec::new(), first),
            Change::Delete => (first, Vec::new()),
            Change::Update => (first, present()?),
        };
        let (data, start) = if form.compressed {
            (super::payload::inflate(r.rest())?, 0)
        } else {
            (body.clone(), r.pos())
        };
        Ok(Rows {
            change: form.change,
            table,
            ends_statement: flags & END_OF_STATEMENT != 0,
            no_foreign_key_checks: flags & NO_FOREIGN_KEY_CHECKS != 0,
            before,
            after,
            partial: form.partial,
            start,
            data,
        })
    }

    /// Whether the images have every column (`binlog_row_image=FULL`); JSON
    /// differences are seen only in the values.
    pub fn is_full(&self) -> bool {
        self.before
            .iter()
            .chain(&self.after)
            .all(|present| *present)
    }

    /// Bytes of all images.
    pub fn size(&self) -> usize {
        self.data.len().saturating_sub(self.start)
    }

    /// The rows in order. `unsigned`, one flag a column, is needed where the
    /// table map does not tell (MariaDB without row metadata).
    pub fn images<'a>(&'a self, unsigned: Option<&'a [bool]>) -> Iter<'a> {
        Iter {
            rows: self,
            unsigned: self.table.unsigned.as_deref().or(unsigned),
            reader: Reader::at(&self.data, self.start),
            failed: false,
        }
    }
}

/// Reads the rows of an event one by one; ends after the first error.
pub struct Iter<'a> {
    rows: &'a Rows,
    unsigned: Option<&'a [bool]>,
    reader: Reader<'a>,
    failed: bool,
}

impl Iter<'_> {
    fn image(&mut self, present: &[bool], partial: bool) -> Result<Vec<Value>, DecodeError> {
        let r = &mut self.reader;
        let columns = &self.rows.table.columns;
        let Some(unsigned) = self.unsigned.filter(|u| u.len() == columns.len()) else {
            return Err(DecodeError::new(
                "columns whose signedness is not known",
                r.pos(),
            ));
        };
        let differences = if partial {
            json_differences(r, self.rows)?
        } else {
            Vec::new()
        };
        let count = present.iter().filter(|p| **p).count();
        let nulls = need(r.bytes(count.div_ceil(8)), "NULL bitmap", r)?;
        let mut values = Vec::with_capacity(columns.len());
        let (mut at, mut json) = (0, 0);
        for ((column, present), unsigned) in columns.iter().zip(present).zip(unsigned) {
            let is_json = matches!(column.kind, super::table_map::ColumnType::Json { .. });
            let difference = is_json && differences.get(json).copied().unwrap_or(false);
            json += usize::from(is_json);
            if !present {
                values.push(Value::Absent);
                continue;
            }
            let null = bit(nulls, at);
            at += 1;
            values.push(if null {
                Value::Null
            } else if difference {
                let length = need(r.u32(), "JSON difference", r)?;
                let length = need(usize::try_from(length).ok(), "JSON difference", r)?;
                need(r.bytes(length), "JSON difference", r)?;
                Value::Absent
            } else {
                value::read(r, &self.rows.data, column, *unsigned)?
            });
        }
        Ok(values)
    }

    fn next_row(&mut self) -> Result<Images, DecodeError> {
        let rows = self.rows;
        let before = match rows.change {
            Change::Insert => None,
            Change::Update | Change::Delete => Some(self.image(&rows.before, false)?),
        };
        let after = match rows.change {
            Change::Delete => None,
            Change::Update | Change::Insert => Some(self.image(&rows.after, rows.partial)?),
        };
        Ok(Images { before, after })
    }
}

/// Which JSON columns of an after image are differences: one flag a JSON
/// column of the table.
fn json_differences(r: &mut Reader<'_>, rows: &Rows) -> Result<Vec<bool>, DecodeError> {
    const PARTIAL_JSON: u64 = 1;
    let options = need(r.lenenc_int(), "row value options", r)?;
    if options & !PARTIAL_JSON != 0 {
        return Err(DecodeError::new("unknown row value options", r.pos()));
    }
    if options == 0 {
        return Ok(Vec::new());
    }
    let columns = rows.table.columns.iter();
    let count = columns
        .filter(|c| matches!(c.kind, super::table_map::ColumnType::Json { .. }))
        .count();
    let bits = need(r.bytes(count.div_ceil(8)), "JSON differences", r)?;
    Ok((0..count).map(|i| bit(bits, i)).collect())
}

impl Iterator for Iter<'_> {
    type Item = Result<Images, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.is_empty() {
            return None;
        }
        // A table without columns would be read for ever.
        let at = self.reader.pos();
        let row = self.next_row();
        self.failed = row.is_err() || self.reader.pos() == at;
        Some(row)
    }
}
