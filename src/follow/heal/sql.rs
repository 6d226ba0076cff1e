//! The statements of a healer. Pure.

use crate::binlog::Value;
use crate::copy::select::{self, Bound};
use crate::rows::literal::{Unwritable, put_name, put_table, put_value};
use crate::rows::shape::{ColumnShape, TableShape};

use crate::follow::batch::TableName;
use crate::follow::tables::Followed;

const MISSING: Unwritable = Unwritable("a column that the table has not");

/// A row's values in some columns, as literals.
pub(in crate::follow) type Literals = Vec<Vec<u8>>;

/// How a read treats the rows it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lock {
    /// Reads the last committed version.
    None,
    /// Fails where somebody has changed a row and not committed yet.
    Shared,
    /// Leaves such rows out.
    SharedSkip,
    /// Waits until nobody has changed the row without committing, and keeps it
    /// from being changed until the transaction ends.
    SharedWait,
    /// Locks until the transaction ends, or fails where another has it.
    Exclusive,
    /// Waits for it.
    ExclusiveWait,
}

impl Lock {
    fn clause(self, mariadb: bool) -> &'static [u8] {
        match (self, mariadb) {
            (Lock::None, _) => b"",
            (Lock::Shared, true) => b" LOCK IN SHARE MODE NOWAIT",
            (Lock::Shared, false) => b" FOR SHARE NOWAIT",
            (Lock::SharedSkip, true) => b" LOCK IN SHARE MODE SKIP LOCKED",
            (Lock::SharedSkip, false) => b" FOR SHARE SKIP LOCKED",
            (Lock::SharedWait, true) => b" LOCK IN SHARE MODE",
            (Lock::SharedWait, false) => b" FOR SHARE",
            (Lock::Exclusive, _) => b" FOR UPDATE NOWAIT",
            (Lock::ExclusiveWait, _) => b" FOR UPDATE",
        }
    }
}

/// A table as one of the two sides has it, in the form of the active side.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    /// Its name.
    pub name: &'a TableName,
    /// How it is followed.
    pub table: &'a Followed,
    /// It is the mirror's that is read.
    pub mirror: bool,
    /// The server is MariaDB.
    pub mariadb: bool,
}

/// The mirror's column of the same name, where its shape is known.
fn other<'a>(table: &'a Followed, column: &ColumnShape) -> Option<&'a ColumnShape> {
    let other = table.other.as_deref()?;
    other.columns.get(other.column(&column.name)?)
}

impl Read<'_> {
    /// Text that the mirror keeps in another character set is read in the
    /// active side's.
    fn put_expression(&self, out: &mut Vec<u8>, column: &ColumnShape) {
        let theirs = other(self.table, column).and_then(|c| c.charset.as_deref());
        match (self.mirror, column.charset.as_deref(), theirs) {
            (true, Some(ours), Some(theirs))
                if ours != theirs
                    && ours.bytes().all(|b| b.is_ascii_alphanumeric())
                    && !matches!(column.type_name(), "enum" | "set") =>
            {
                out.extend_from_slice(b"CONVERT(");
                put_name(out, &column.name);
                out.extend_from_slice(b" USING ");
                out.extend_from_slice(ours.as_bytes());
                out.push(b')');
            }
            _ => select::put_expression(out, column),
        }
    }

    fn put_columns(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"SELECT ");
        let mut first = true;
        for column in self.table.shape.columns.iter().filter(|c| !c.generated) {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            self.put_expression(out, column);
        }
        out.extend_from_slice(b" FROM ");
        put_table(out, &self.name.schema, &self.name.table);
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        self.put_columns(out);
        let keys = &self.table.shape.unique_keys;
        let primary = keys.iter().find(|k| k.primary);
        if primary.is_some_and(|k| k.columns == self.table.key.columns) {
            // A scan of a small table would meet the locks of other rows.
            out.extend_from_slice(b" FORCE INDEX (PRIMARY)");
        }
        out.extend_from_slice(b" WHERE ");
    }

    /// No column of the key has a collation on either side: equal keys are
    /// equal bytes.
    pub(super) fn keys_are_plain(&self) -> bool {
        let columns = self.table.key.columns.iter();
        let mut columns = columns.filter_map(|c| self.table.shape.columns.get(*c));
        columns.all(|c| {
            let theirs = other(self.table, c).and_then(|c| c.charset.as_deref());
            c.charset.is_none() && theirs.is_none()
        })
    }

    /// One statement a key, so that the answers' places tell which row is
    /// whose, whatever the key's collation.
    pub(super) fn each(&self, keys: &[&Bound], lock: Lock) -> Vec<Vec<u8>> {
        let one = |key: &&Bound| {
            let mut out = Vec::new();
            self.put_head(&mut out);
            put_key(&mut out, self.table, key);
            out.extend_from_slice(lock.clause(self.mariadb));
            out
        };
        keys.iter().map(one).collect()
    }

    /// All keys in one statement.
    pub(super) fn all(&self, keys: &[&Bound], lock: Lock) -> Vec<u8> {
        let mut out = Vec::new();
        self.put_head(&mut out);
        if let [column] = self.table.key.columns[..]
            && let Some(column) = self.table.shape.columns.get(column)
        {
            put_name(&mut out, &column.name);
            for (i, key) in keys.iter().enumerate() {
                out.extend_from_slice(if i == 0 { b" IN (" } else { b"," });
                key.0.iter().for_each(|l| out.extend_from_slice(l));
            }
            out.push(b')');
        } else {
            // Both families make ranges of OR, and not all of row constructors.
            for (i, key) in keys.iter().enumerate() {
                out.extend_from_slice(if i == 0 { b"(" } else { b" OR (" });
                put_key(&mut out, self.table, key);
                out.push(b')');
            }
        }
        out.extend_from_slice(lock.clause(self.mariadb));
        out
    }

    /// Rows whose `columns` have one of the values, behind a key, in the key's
    /// order.
    pub(super) fn family(
        &self,
        columns: &[usize],
        values: &[&Literals],
        after: Option<&Bound>,
        limit: usize,
    ) -> Vec<u8> {
        let (shape, key) = (&self.table.shape, &self.table.key);
        let mut out = Vec::new();
        self.put_columns(&mut out);
        for (i, values) in values.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b" WHERE ((" } else { b" OR (" });
            let columns = columns.iter().filter_map(|c| shape.columns.get(*c));
            for (n, (column, value)) in columns.zip(*values).enumerate() {
                if n > 0 {
                    out.extend_from_slice(b" AND ");
                }
                put_name(&mut out, &column.name);
                out.push(b'=');
                out.extend_from_slice(value);
            }
            out.push(b')');
        }
        out.push(b')');
        if let Some(after) = after {
            out.extend_from_slice(b" AND ");
            select::put_beyond(&mut out, key, shape, after, b">");
        }
        let columns = key.columns.iter().filter_map(|c| shape.columns.get(*c));
        for (i, column) in columns.enumerate() {
            out.extend_from_slice(if i == 0 { b" ORDER BY " } else { b"," });
            put_name(&mut out, &column.name);
        }
        out.extend_from_slice(format!(" LIMIT {limit}").as_bytes());
        out
    }

    /// The mirror's rows that hold a value of a unique key besides the identity
    /// which `rows` are to have. None: no such key can be asked for.
    pub(super) fn holders(&self, rows: &[&[Value]]) -> Result<Option<Vec<u8>>, Unwritable> {
        let table = self.table;
        let keys = table.other.as_deref().unwrap_or(&table.shape);
        let mut out = Vec::new();
        // By whichever index each of the keys has.
        self.put_columns(&mut out);
        out.extend_from_slice(b" WHERE ");
        let start = out.len();
        for key in &keys.unique_keys {
            let columns: Option<Vec<usize>> = key
                .columns
                .iter()
                .map(|c| table.shape.column(&keys.columns.get(*c)?.name))
                .collect();
            let Some(columns) = columns.filter(|c| !c.is_empty()) else {
                continue;
            };
            if columns == table.key.columns {
                continue;
            }
            for row in rows {
                let is_null = |c: &usize| matches!(row.get(*c), None | Some(Value::Null));
                let generated = |c: &usize| table.shape.columns.get(*c).is_none_or(|c| c.generated);
                if columns.iter().any(|c| is_null(c) || generated(c)) {
                    continue;
                }
                out.extend_from_slice(if out.len() == start { b"(" } else { b" OR (" });
                for (i, column) in columns.iter().enumerate() {
                    if i > 0 {
                        out.extend_from_slice(b" AND ");
                    }
                    put_equal(&mut out, table, row, *column)?;
                }
                out.push(b')');
            }
        }
        let any = out.len() > start;
        Ok(any.then_some(out))
    }
}

fn put_equal(
    out: &mut Vec<u8>,
    table: &Followed,
    row: &[Value],
    column: usize,
) -> Result<(), Unwritable> {
    let shape = table.shape.columns.get(column).ok_or(MISSING)?;
    put_name(out, &shape.name);
    out.push(b'=');
    put_value(out, row.get(column).ok_or(MISSING)?, shape)
}

/// `a=1 AND b=2`.
fn put_key(out: &mut Vec<u8>, table: &Followed, key: &Bound) {
    let columns = table.key.columns.iter();
    let columns = columns.filter_map(|c| table.shape.columns.get(*c));
    for (i, (column, literal)) in columns.zip(&key.0).enumerate() {
        if i > 0 {
            out.extend_from_slice(b" AND ");
        }
        put_name(out, &column.name);
        out.push(b'=');
        out.extend_from_slice(literal);
    }
}

/// Times the rows under lock are extended by rows that hold their unique
/// values; then REPLACE takes the values away.
pub(super) const ROUNDS_MAX: usize = 8;

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// One that keeps its unique values is updated: a delete and an insert
    /// need locks beside the row's own, and with an upsert of the application
    /// that waits for that row they end in a deadlock.
    InPlace,
    /// Deleted first and inserted then, so that values can move among rows.
    Anew,
    /// Over whatever holds a unique value.
    Replacing,
}

impl How {
    pub(super) fn of(round: usize) -> How {
        match round {
            0 => How::InPlace,
            n if n < ROUNDS_MAX => How::Anew,
            _ => How::Replacing,
        }
    }
}

/// Removes the row of a key.
pub(super) fn delete(name: &TableName, table: &Followed, key: &Bound) -> Vec<u8> {
    let mut out = b"DELETE FROM ".to_vec();
    put_table(&mut out, &name.schema, &name.table);
    out.extend_from_slice(b" WHERE ");
    put_key(&mut out, table, key);
    out
}

/// Writes a row over the one of its key.
pub(super) fn update(
    name: &TableName,
    table: &Followed,
    key: &Bound,
    row: &[Value],
) -> Result<Vec<u8>, Unwritable> {
    let mut out = b"UPDATE ".to_vec();
    put_table(&mut out, &name.schema, &name.table);
    for (i, (at, _)) in columns(table).enumerate() {
        out.extend_from_slice(if i == 0 { b" SET " } else { b"," });
        put_equal(&mut out, table, row, at)?;
    }
    out.extend_from_slice(b" WHERE ");
    put_key(&mut out, table, key);
    Ok(out)
}

/// Whether a row can be written over another with no value of a unique key
/// changing.
pub(super) fn keeps_keys(table: &Followed, a: &[Value], b: &[Value]) -> bool {
    let mut columns = table.shape.unique_keys.iter().flat_map(|key| &key.columns);
    columns.all(|c| {
        let generated = table.shape.columns.get(*c).is_none_or(|c| c.generated);
        !generated && a.get(*c).is_some_and(|a| Some(a) == b.get(*c))
    })
}

/// Bytes of one statement that writes rows, unless one row is larger: far below
/// the smallest usual `max_allowed_packet` (16 MiB).
const INSERT_BYTES: usize = 1 << 20;

/// Writes whole rows. `replace`: over whatever holds a unique value of one.
pub(super) fn inserts(
    name: &TableName,
    table: &Followed,
    rows: &[Vec<Value>],
    replace: bool,
) -> Result<Vec<Vec<u8>>, Unwritable> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for row in rows {
        match all.last_mut().filter(|sql| sql.len() < INSERT_BYTES) {
            Some(sql) => {
                sql.push(b',');
                put_row(sql, table, row)?;
            }
            None => {
                let mut sql = insert_head(name, table, replace);
                put_row(&mut sql, table, row)?;
                all.push(sql);
            }
        }
    }
    Ok(all)
}

fn columns(table: &Followed) -> impl Iterator<Item = (usize, &ColumnShape)> {
    let columns = table.shape.columns.iter().enumerate();
    columns.filter(|(_, c)| !c.generated)
}

fn insert_head(name: &TableName, table: &Followed, replace: bool) -> Vec<u8> {
    let verb: &[u8] = if replace { b"REPLACE" } else { b"INSERT" };
    let mut out = [verb, b" INTO "].concat();
    put_table(&mut out, &name.schema, &name.table);
    for (i, (_, column)) in columns(table).enumerate() {
        out.extend_from_slice(if i == 0 { b" (" } else { b"," });
        put_name(&mut out, &column.name);
    }
    out.extend_from_slice(b") VALUES ");
    out
}

fn put_row(out: &mut Vec<u8>, table: &Followed, row: &[Value]) -> Result<(), Unwritable> {
    for (i, (at, column)) in columns(table).enumerate() {
        out.push(if i == 0 { b'(' } else { b',' });
        put_value(out, row.get(at).ok_or(MISSING)?, column)?;
    }
    out.push(b')');
    Ok(())
}

/// Whether two rows are equal in every column that is written: bit by bit for
/// floating point, and by content for JSON that one of the sides keeps as text
/// or prints in its own way. `cross`: the servers are of different families,
/// of which only MySQL keeps a -0.
pub(super) fn same(table: &Followed, a: &[Value], b: &[Value], cross: bool) -> bool {
    let shape: &TableShape = &table.shape;
    let mut columns = shape.columns.iter().zip(a.iter().zip(b));
    a.len() == b.len()
        && columns.all(|(column, (a, b))| {
            if column.generated {
                return true;
            }
            match (a, b) {
                (Value::Float(a), Value::Float(b)) => {
                    a.to_bits() == b.to_bits() || cross && *a == 0.0 && *b == 0.0
                }
                (Value::Double(a), Value::Double(b)) => {
                    a.to_bits() == b.to_bits() || cross && *a == 0.0 && *b == 0.0
                }
                (Value::Json(a), Value::Json(b)) => {
                    a.text == b.text || same_json(a.text.as_bytes(), b.text.as_bytes())
                }
                (Value::Bytes(a), Value::Bytes(b)) if a != b => {
                    let json = |c: &ColumnShape| c.type_name() == "json";
                    other(table, column).is_some_and(json) && same_json(a, b)
                }
                // The sides may have different numbers of digits.
                (Value::Decimal(a), Value::Decimal(b)) | (Value::Time(a), Value::Time(b)) => {
                    a == b || digits(a) == digits(b)
                }
                _ => a == b,
            }
        })
}

/// A decimal's text without the zeros at its end.
fn digits(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

fn same_json(a: &[u8], b: &[u8]) -> bool {
    let parse = |text| serde_json::from_slice::<serde_json::Value>(text).ok();
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::json;
    use crate::follow::batch::Key;
    use crate::rows::shape::KeyShape;
    use std::sync::Arc;

    fn table(types: &[&str], keys: &[&[usize]]) -> Followed {
        let columns = types.iter().enumerate().map(|(i, t)| ColumnShape {
            name: format!("c{i}").into_bytes(),
            column_type: (*t).into(),
            ..ColumnShape::default()
        });
        let keys = keys.iter().enumerate().map(|(i, columns)| KeyShape {
            columns: columns.to_vec(),
            primary: i == 0,
            all_not_null: true,
            ..KeyShape::default()
        });
        let shape = Arc::new(TableShape {
            columns: columns.collect(),
            unique_keys: keys.collect(),
            ..TableShape::default()
        });
        let key = Key::of(&shape).unwrap();
        Followed::new(shape.clone(), Some(shape), key)
    }

    fn name() -> TableName {
        TableName {
            schema: b"s".to_vec(),
            table: b"t".to_vec(),
        }
    }

    fn text(sql: Vec<u8>) -> String {
        String::from_utf8(sql).unwrap()
    }

    #[test]
    fn reads_by_key() {
        let name = name();
        let table = table(
            &["int(11)", "int(11)", "int(11)"],
            &[&[0, 1], &[2], &[1, 2]],
        );
        let read = Read {
            name: &name,
            table: &table,
            mirror: true,
            mariadb: false,
        };
        let key = Bound(vec![b"1".to_vec(), b"2".to_vec()]);
        assert_eq!(
            text(read.all(&[&key, &key], Lock::Shared)),
            "SELECT `c0`,`c1`,`c2` FROM `s`.`t` FORCE INDEX (PRIMARY) \
             WHERE (`c0`=1 AND `c1`=2) OR (`c0`=1 AND `c1`=2) FOR SHARE NOWAIT"
        );
        let row = [Value::Int(1), Value::Int(2), Value::Int(3)];
        let holders = read.holders(&[&row]).unwrap().unwrap();
        assert!(text(holders).ends_with("WHERE (`c2`=3) OR (`c1`=2 AND `c2`=3)"));
        let row = [Value::Int(1), Value::Int(2), Value::Null];
        assert_eq!(read.holders(&[&row]).unwrap(), None);
    }

    #[test]
    fn equal_is_exact() {
        let table = table(&["double", "json"], &[&[0]]);
        let row = |d: f64, j: &str| {
            let text = j.to_owned();
            vec![
                Value::Double(d),
                Value::Json(json::Text { text, exact: true }),
            ]
        };
        let one = row(0.0, r#"{"a": 1, "b": 2}"#);
        assert!(same(&table, &one, &row(0.0, r#"{"b":2,"a":1}"#), false));
        assert!(!same(&table, &one, &row(-0.0, r#"{"b":2,"a":1}"#), false));
        assert!(same(&table, &one, &row(-0.0, r#"{"b":2,"a":1}"#), true));
        assert!(!same(&table, &one, &row(0.0, r#"{"b":2,"a":"1"}"#), true));
        assert_eq!(digits("1.500"), digits("1.5"));
        assert_eq!(digits("-10.00"), digits("-10"));
        assert_ne!(digits("100"), digits("1"));
    }
}
