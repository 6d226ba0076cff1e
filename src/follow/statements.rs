//! A table's part of a batch as SQL: deletes by key first, then multi-row
//! REPLACE. Pure.

use crate::binlog::Value;
use crate::rows::literal::{Unwritable, put_name, put_table, put_value};
use crate::rows::shape::ColumnShape;

use super::batch::{Operation, TableBatch};

/// Rows in one statement: beyond it parsing costs as much as round trips save.
const ROWS_MAX: usize = 500;

/// Bytes after which a statement ends, unless one row is larger: well below
/// the smallest usual `max_allowed_packet` (4 MiB on MySQL 5.7).
const BYTES_MAX: usize = 1 << 20;

/// The statements, in order.
///
/// # Errors
/// A value cannot be written.
pub fn statements(table: &TableBatch) -> Result<Vec<Vec<u8>>, Unwritable> {
    let mut out = Vec::new();
    deletes(table, &mut out)?;
    puts(table, &mut out)?;
    Ok(out)
}

/// Collects rows into statements of bounded size.
struct Collector<'a> {
    out: &'a mut Vec<Vec<u8>>,
    head: Vec<u8>,
    between: &'static [u8],
    tail: &'static [u8],
    statement: Vec<u8>,
    rows: usize,
}

impl Collector<'_> {
    fn row(&mut self) -> &mut Vec<u8> {
        if self.rows == ROWS_MAX || self.statement.len() > BYTES_MAX {
            self.flush();
        }
        let start = if self.rows == 0 {
            self.head.as_slice()
        } else {
            self.between
        };
        self.statement.extend_from_slice(start);
        self.rows += 1;
        &mut self.statement
    }

    fn flush(&mut self) {
        if self.rows > 0 {
            self.statement.extend_from_slice(self.tail);
            self.out.push(std::mem::take(&mut self.statement));
            self.rows = 0;
        }
    }
}

fn deletes(table: &TableBatch, out: &mut Vec<Vec<u8>>) -> Result<(), Unwritable> {
    let mut head = b"DELETE FROM ".to_vec();
    put_table(&mut head, &table.name.schema, &table.name.table);
    head.extend_from_slice(b" WHERE ");
    let single = match table.key.columns[..] {
        [column] => Some(column),
        _ => None,
    };
    if let Some(column) = single.and_then(|c| table.shape.columns.get(c)) {
        put_name(&mut head, &column.name);
        head.extend_from_slice(b" IN (");
    }
    let mut collector = Collector {
        out,
        head,
        // Both families make ranges of OR, and not all of row constructors.
        between: if single.is_some() { b"," } else { b" OR " },
        tail: if single.is_some() { b")" } else { b"" },
        statement: Vec::new(),
        rows: 0,
    };
    for operation in table.rows.values() {
        let Operation::Delete(image) = operation else {
            continue;
        };
        let row = collector.row();
        if let Some(column) = single {
            put_column(row, table, image, column)?;
            continue;
        }
        for (i, column) in table.key.columns.iter().enumerate() {
            row.extend_from_slice(if i == 0 { b"(" } else { b" AND " });
            let shape = table.shape.columns.get(*column);
            put_name(row, &shape.ok_or(MISSING)?.name);
            row.push(b'=');
            put_column(row, table, image, *column)?;
        }
        row.push(b')');
    }
    collector.flush();
    Ok(())
}

const MISSING: Unwritable = Unwritable("a column that the table has not");

fn put_column(
    out: &mut Vec<u8>,
    table: &TableBatch,
    image: &[Value],
    column: usize,
) -> Result<(), Unwritable> {
    let shape = table.shape.columns.get(column).ok_or(MISSING)?;
    put_value(out, image.get(column).ok_or(MISSING)?, shape)
}

fn puts(table: &TableBatch, out: &mut Vec<Vec<u8>>) -> Result<(), Unwritable> {
    let columns: Vec<(usize, &ColumnShape)> = table
        .shape
        .columns
        .iter()
        .enumerate()
        .filter(|(_, c)| !c.generated)
        .collect();
    let mut head = b"REPLACE INTO ".to_vec();
    put_table(&mut head, &table.name.schema, &table.name.table);
    for (i, (_, column)) in columns.iter().enumerate() {
        head.extend_from_slice(if i == 0 { b" (" } else { b"," });
        put_name(&mut head, &column.name);
    }
    head.extend_from_slice(b") VALUES ");
    let mut collector = Collector {
        out,
        head,
        between: b",",
        tail: b"",
        statement: Vec::new(),
        rows: 0,
    };
    for operation in table.rows.values() {
        let Operation::Put(image) = operation else {
            continue;
        };
        let row = collector.row();
        for (i, (column, _)) in columns.iter().enumerate() {
            row.push(if i == 0 { b'(' } else { b',' });
            put_column(row, table, image, *column)?;
        }
        row.push(b')');
    }
    collector.flush();
    Ok(())
}
