//! Changes that must be written one after the other, in the log's order and
//! exactly once: those of tables without a key, and those that reach other
//! tables through foreign keys. As SQL; pure.
//!
//! A row without a key is found by all of its values, compared byte by byte,
//! whatever the collation says: `LIMIT 1` of several equal ones is as good as
//! any. None found is a conflict.
//!
//! A parent whose children follow it on the side that is read without a row
//! event of their own (MariaDB, MySQL before 9.6) is deleted, or gets another
//! key, with foreign keys checked, so that the children follow it here too.
//! Merging by key cannot do that:
//! 1. A child is inserted, its parent is deleted, and the child with it.
//! 2. Merged, the batch has Put(child) and Delete(parent).
//! 3. Deletes go first: the child is put back and stays.

use std::sync::Arc;

use crate::binlog::{Change, Images, Value};
use crate::rows::literal::{Unwritable, put_name, put_quoted, put_table, put_value};
use crate::rows::shape::ColumnShape;

use super::batch::{Operation, TableBatch, TableName};
use super::statements::statements;
use super::tables::Followed;

/// One change with its place among the others.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// The table's name.
    pub name: TableName,
    /// How it is followed.
    pub table: Arc<Followed>,
    /// What happened.
    pub change: Change,
    /// The row before and after.
    pub images: Images,
    /// The side that is read checked no foreign keys, so nothing followed.
    pub unchecked: bool,
}

/// A statement of an ordered change, and what its answer must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The text.
    pub sql: Vec<u8>,
    /// Foreign keys are checked, and followed.
    pub checked: bool,
    /// What to do about its answer.
    pub expect: Expect,
}

/// What a [`Step`] must answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Anything but an error.
    Done,
    /// That it changed exactly one row; else the sides differ.
    OneRow,
    /// The same, else these statements are to be run, unchecked: the copy has
    /// not brought the row yet, or has brought others that are ahead of it.
    Or(Vec<Vec<u8>>),
}

const ABSENT: Unwritable = Unwritable("an image is missing (binlog_row_image must be FULL)");

impl Ordered {
    /// Whether a change of this table reaches its children unseen.
    pub fn needed(table: &Followed, change: Change, images: &Images) -> bool {
        if !table.cascades {
            return false;
        }
        match (change, &images.before, &images.after) {
            (Change::Delete, ..) => true,
            (Change::Update, Some(before), Some(after)) => {
                let referred = table.shape.children.iter().flat_map(|c| &c.parent_columns);
                let mut columns = referred.filter_map(|name| table.shape.column(name));
                columns.any(|c| before.get(c) != after.get(c))
            }
            _ => false,
        }
    }

    /// Appends the statements.
    ///
    /// # Errors
    /// A value cannot be written.
    pub fn steps(&self, out: &mut Vec<Step>) -> Result<(), Unwritable> {
        if self.table.key.columns.is_empty() {
            return self.whole_rows(out);
        }
        let before = self.images.before.as_ref().ok_or(ABSENT)?;
        let checked = !self.unchecked;
        match &self.images.after {
            None => {
                let delete = self.by_key(Operation::Delete(before.clone()))?;
                for sql in delete {
                    out.push(Step {
                        expect: Expect::Or(vec![sql.clone()]),
                        sql,
                        checked,
                    });
                }
            }
            Some(after) => {
                let mut or = self.by_key(Operation::Delete(before.clone()))?;
                or.extend(self.by_key(Operation::Put(after.clone()))?);
                out.push(Step {
                    sql: self.update(before, after)?,
                    checked,
                    expect: Expect::Or(or),
                });
            }
        }
        Ok(())
    }

    /// Unchecked statements that make the row what it is to be.
    fn by_key(&self, operation: Operation) -> Result<Vec<Vec<u8>>, Unwritable> {
        statements(&TableBatch {
            name: self.name.clone(),
            shape: self.table.shape.clone(),
            key: self.table.key.clone(),
            rows: [(Vec::new(), operation)].into(),
        })
    }

    fn columns(&self) -> impl Iterator<Item = (usize, &ColumnShape)> {
        let columns = self.table.shape.columns.iter().enumerate();
        columns.filter(|(_, c)| !c.generated)
    }

    fn update(&self, before: &[Value], after: &[Value]) -> Result<Vec<u8>, Unwritable> {
        let mut sql = b"UPDATE ".to_vec();
        put_table(&mut sql, &self.name.schema, &self.name.table);
        for (i, (at, column)) in self.columns().enumerate() {
            sql.extend_from_slice(if i == 0 { b" SET " } else { b"," });
            put_name(&mut sql, &column.name);
            sql.push(b'=');
            put_value(&mut sql, after.get(at).ok_or(ABSENT)?, column)?;
        }
        let key = self.table.key.columns.iter();
        for (i, at) in key.enumerate() {
            sql.extend_from_slice(if i == 0 { b" WHERE " } else { b" AND " });
            let column = self.table.shape.columns.get(*at).ok_or(ABSENT)?;
            put_name(&mut sql, &column.name);
            sql.push(b'=');
            put_value(&mut sql, before.get(*at).ok_or(ABSENT)?, column)?;
        }
        Ok(sql)
    }

    /// An update is a delete and an insert: without a key nobody can tell.
    fn whole_rows(&self, out: &mut Vec<Step>) -> Result<(), Unwritable> {
        if let Some(before) = &self.images.before {
            let mut sql = b"DELETE FROM ".to_vec();
            put_table(&mut sql, &self.name.schema, &self.name.table);
            for (i, (at, column)) in self.columns().enumerate() {
                sql.extend_from_slice(if i == 0 { b" WHERE " } else { b" AND " });
                let other = self.table.other.as_ref();
                let other = other.and_then(|s| s.columns.get(s.column(&column.name)?));
                put_equal(&mut sql, before.get(at).ok_or(ABSENT)?, column, other)?;
            }
            sql.extend_from_slice(b" LIMIT 1");
            out.push(Step {
                sql,
                checked: false,
                expect: Expect::OneRow,
            });
        }
        if let Some(after) = &self.images.after {
            let mut sql = b"INSERT INTO ".to_vec();
            put_table(&mut sql, &self.name.schema, &self.name.table);
            for (i, (_, column)) in self.columns().enumerate() {
                sql.extend_from_slice(if i == 0 { b" (" } else { b"," });
                put_name(&mut sql, &column.name);
            }
            for (i, (at, column)) in self.columns().enumerate() {
                sql.extend_from_slice(if i == 0 { b") VALUES (" } else { b"," });
                put_value(&mut sql, after.get(at).ok_or(ABSENT)?, column)?;
            }
            sql.push(b')');
            out.push(Step {
                sql,
                checked: false,
                expect: Expect::Done,
            });
        }
        Ok(())
    }
}

/// A condition that holds for exactly this value. `other` is the column as the
/// side that is asked has it.
fn put_equal(
    out: &mut Vec<u8>,
    value: &Value,
    column: &ColumnShape,
    other: Option<&ColumnShape>,
) -> Result<(), Unwritable> {
    let there = other.unwrap_or(column);
    let wrapped = |out: &mut Vec<u8>, after: &[u8]| {
        put_name(out, &column.name);
        out.extend_from_slice(after);
    };
    let json = there.type_name() == "json" && there.charset.is_none();
    match (value, column.charset.as_deref()) {
        (Value::Null, _) => {
            wrapped(out, b" IS NULL");
            Ok(())
        }
        (Value::Json(_) | Value::Bytes(_), _) if json => {
            wrapped(out, b"=CAST(");
            put_value(out, value, column)?;
            out.extend_from_slice(b" AS JSON)");
            Ok(())
        }
        (Value::Json(_), _) => text_equal(out, value, column, "utf8mb4"),
        (Value::Bytes(_), Some(charset)) => text_equal(out, value, column, charset),
        (Value::Bytes(bytes), None) => bytes_equal(out, bytes, value, column),
        (Value::Enum(_) | Value::Set(_), _) => {
            // As a sum it would be a DOUBLE, or signed.
            out.extend_from_slice(b"CAST(");
            wrapped(out, b" AS UNSIGNED)=");
            put_value(out, value, column)
        }
        // A YEAR of 0 compared with 0 would be 2000.
        _ if column.type_name() == "year" => {
            wrapped(out, b"+0=");
            put_value(out, value, column)
        }
        _ => {
            wrapped(out, b"=");
            put_value(out, value, column)
        }
    }
}

/// Text is equal as bytes, in the character set it was logged in.
fn text_equal(
    out: &mut Vec<u8>,
    value: &Value,
    column: &ColumnShape,
    charset: &str,
) -> Result<(), Unwritable> {
    out.extend_from_slice(b"CAST(CONVERT(");
    put_name(out, &column.name);
    if !charset.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Unwritable("a character set's name"));
    }
    out.extend_from_slice(format!(" USING {charset}) AS BINARY)=CAST(").as_bytes());
    put_value(out, value, column)?;
    out.extend_from_slice(b" AS BINARY)");
    Ok(())
}

fn bytes_equal(
    out: &mut Vec<u8>,
    bytes: &[u8],
    value: &Value,
    column: &ColumnShape,
) -> Result<(), Unwritable> {
    let width = || {
        let digits = column.column_type.split(['(', ')']).nth(1);
        digits.and_then(|d| d.parse::<usize>().ok()).unwrap_or(1)
    };
    match column.type_name() {
        "uuid" | "inet6" | "inet4" => {
            put_name(out, &column.name);
            out.push(b'=');
            put_value(out, value, column)
        }
        // Images lack trailing zeros.
        "binary" => {
            put_name(out, &column.name);
            out.extend_from_slice(b"=_binary");
            let mut whole = bytes.to_vec();
            whole.resize(width().max(bytes.len()), 0);
            put_quoted(out, &whole);
            Ok(())
        }
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            put_name(out, &column.name);
            out.push(b'=');
            put_value(out, value, column)
        }
        // GEOMETRY and VECTOR have no equality of bytes.
        _ => {
            out.extend_from_slice(b"HEX(");
            put_name(out, &column.name);
            out.extend_from_slice(b")=HEX(");
            put_value(out, value, column)?;
            out.push(b')');
            Ok(())
        }
    }
}
