//! The SELECTs that read a table chunk by chunk. Pure.
//!
//! Bounds are compared by the server, with the column's own rules; here they
//! are literals that came out of rows.

use crate::binlog::Value;
use crate::follow::batch::{Key, TableName};
use crate::rows::literal::{SESSION, Unwritable, put_name, put_table, put_value};
use crate::rows::shape::{ColumnShape, TableShape};

/// What a session says before it reads chunks: bytes as they are, UTC, and a
/// new snapshot for each statement.
pub const READ_SESSION: &str = SESSION;

/// A key's values as literals, one a column.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bound(pub Vec<Vec<u8>>);

impl Bound {
    /// The key of a row.
    ///
    /// # Errors
    /// The key's value has no literal.
    pub fn of(row: &[Value], key: &Key, shape: &TableShape) -> Result<Bound, Unwritable> {
        const MISSING: Unwritable = Unwritable("a key column that the row has not");
        let mut literals = Vec::with_capacity(key.columns.len());
        for column in &key.columns {
            let value = row.get(*column).ok_or(MISSING)?;
            let mut literal = Vec::new();
            put_value(
                &mut literal,
                value,
                shape.columns.get(*column).ok_or(MISSING)?,
            )?;
            literals.push(literal);
        }
        Ok(Bound(literals))
    }

    /// For storing: each literal behind its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for literal in &self.0 {
            crate::wire::lenenc::put_bytes(&mut out, literal);
        }
        out
    }

    /// What [`Bound::encode`] made; None if it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Bound> {
        let mut reader = crate::wire::Reader::new(bytes);
        let mut literals = Vec::new();
        while !reader.is_empty() {
            literals.push(reader.lenenc_bytes()?.to_vec());
        }
        Some(Bound(literals))
    }
}

/// The expression that shows a column's value exactly.
pub(crate) fn put_expression(out: &mut Vec<u8>, column: &ColumnShape) {
    let (before, after): (&[u8], &[u8]) = match column.type_name() {
        // As text a FLOAT has six digits.
        "float" => (b"", b"*1e0"),
        "bit" => (b"", b"+0"),
        // As a number to add to, a SET of many members is a DOUBLE (MySQL) or
        // has a sign (MariaDB).
        "enum" | "set" => (b"CAST(", b" AS UNSIGNED)"),
        "uuid" | "inet6" => (b"CAST(", b" AS BINARY(16))"),
        "inet4" => (b"CAST(", b" AS BINARY(4))"),
        _ => (b"", b""),
    };
    out.extend_from_slice(before);
    put_name(out, &column.name);
    out.extend_from_slice(after);
}

/// `(a > 1) OR (a = 1 AND b > 2)`, which both families turn into a range;
/// `last` is what the last column is compared with.
pub(crate) fn put_beyond(
    out: &mut Vec<u8>,
    key: &Key,
    shape: &TableShape,
    bound: &Bound,
    last: &[u8],
) {
    let columns: Vec<&ColumnShape> = key
        .columns
        .iter()
        .filter_map(|c| shape.columns.get(*c))
        .collect();
    let strict: &[u8] = if last.starts_with(b">") { b">" } else { b"<" };
    out.push(b'(');
    for n in 0..columns.len() {
        if n > 0 {
            out.extend_from_slice(b" OR ");
        }
        out.push(b'(');
        for (i, (column, literal)) in columns.iter().zip(&bound.0).enumerate().take(n + 1) {
            if i > 0 {
                out.extend_from_slice(b" AND ");
            }
            put_name(out, &column.name);
            out.extend_from_slice(if i < n {
                b"="
            } else if n + 1 == columns.len() {
                last
            } else {
                strict
            });
            out.extend_from_slice(literal);
        }
        out.push(b')');
    }
    out.push(b')');
}

/// Reads a whole table, in no order.
pub fn whole(name: &TableName, shape: &TableShape) -> Vec<u8> {
    let mut out = b"SELECT ".to_vec();
    put_columns(&mut out, shape);
    out.extend_from_slice(b" FROM ");
    put_table(&mut out, &name.schema, &name.table);
    out
}

fn put_columns(out: &mut Vec<u8>, shape: &TableShape) {
    let mut first = true;
    for column in shape.columns.iter().filter(|c| !c.generated) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        put_expression(out, column);
    }
}

/// Reads at most `limit` rows behind `after`, up to `until` inclusive, in the
/// key's order.
pub fn chunk(
    name: &TableName,
    shape: &TableShape,
    key: &Key,
    after: Option<&Bound>,
    until: Option<&Bound>,
    limit: usize,
) -> Vec<u8> {
    let mut out = whole(name, shape);
    let bounds = [(after, &b">"[..]), (until, &b"<="[..])];
    let mut word: &[u8] = b" WHERE ";
    for (bound, last) in bounds {
        if let Some(bound) = bound {
            out.extend_from_slice(word);
            put_beyond(&mut out, key, shape, bound, last);
            word = b" AND ";
        }
    }
    out.extend_from_slice(b" ORDER BY ");
    for (i, column) in key.columns.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if let Some(column) = shape.columns.get(*column) {
            put_name(&mut out, &column.name);
        }
    }
    out.extend_from_slice(format!(" LIMIT {limit}").as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::shape::KeyShape;

    fn table() -> (TableName, TableShape, Key) {
        let column = |name: &str, t: &str| ColumnShape {
            name: name.into(),
            column_type: t.into(),
            ..ColumnShape::default()
        };
        let shape = TableShape {
            columns: vec![
                column("a", "int(11)"),
                column("b", "int(11)"),
                column("f", "float"),
            ],
            unique_keys: vec![KeyShape {
                columns: vec![0, 1],
                primary: true,
                all_not_null: true,
                ..KeyShape::default()
            }],
            ..TableShape::default()
        };
        let name = TableName {
            schema: b"s".to_vec(),
            table: b"t".to_vec(),
        };
        let key = Key::of(&shape).unwrap();
        (name, shape, key)
    }

    #[test]
    fn composite_keys_are_ranges() {
        let (name, shape, key) = table();
        let after = Bound(vec![b"1".to_vec(), b"2".to_vec()]);
        let until = Bound(vec![b"8".to_vec(), b"9".to_vec()]);
        let sql = chunk(&name, &shape, &key, Some(&after), Some(&until), 10);
        assert_eq!(
            String::from_utf8(sql).unwrap(),
            "SELECT `a`,`b`,`f`*1e0 FROM `s`.`t` \
             WHERE ((`a`>1) OR (`a`=1 AND `b`>2)) AND ((`a`<8) OR (`a`=8 AND `b`<=9)) \
             ORDER BY `a`,`b` LIMIT 10"
        );
        assert_eq!(Bound::decode(&after.encode()), Some(after));
        assert_eq!(Bound::decode(&[9]), None);
    }
}
