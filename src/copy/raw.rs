//! Rows as a text result has them, one behind the other: what is only handed
//! on is never taken apart. Pure.
//!
//! They are those of [`super::select`]'s statements: all columns but generated
//! ones, in the table's order.

use std::borrow::Cow;

use crate::binlog::{Value, json};
use crate::follow::batch::Key;
use crate::rows::shape::{ColumnShape, TableShape};
use crate::wire::Reader;
use crate::wire::lenenc::{NULL, put_bytes};

/// Rows of one table.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RawRows {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
}

/// One of them.
#[derive(Clone, Copy)]
pub struct RawRow<'a>(&'a [u8]);

impl RawRows {
    /// Adds a row of a text result; false: it is something else.
    pub fn push(
        &mut self,
        values: impl Iterator<Item = mysql_async::Value>,
        shape: &TableShape,
    ) -> bool {
        let mut columns = 0;
        for value in values {
            match value {
                mysql_async::Value::NULL => self.bytes.push(NULL),
                mysql_async::Value::Bytes(bytes) => put_bytes(&mut self.bytes, &bytes),
                _ => return false,
            }
            columns += 1;
        }
        self.ends.push(self.bytes.len());
        columns == written(shape).count()
    }

    /// Adds a row as the server's packet has it.
    pub(super) fn push_packet(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Their bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = RawRow<'_>> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let row = self.bytes.get(from..*end).unwrap_or_default();
            from = *end;
            RawRow(row)
        })
    }

    /// The last one.
    pub fn last(&self) -> Option<RawRow<'_>> {
        let before = self.ends.len().checked_sub(2);
        let from = before.and_then(|n| self.ends.get(n)).copied();
        let row = self.bytes.get(from.unwrap_or(0)..*self.ends.last()?);
        row.map(RawRow)
    }

    /// Those that are to be kept.
    #[must_use]
    pub fn retained(self, keep: impl Fn(RawRow<'_>) -> bool) -> RawRows {
        let mut kept = RawRows::default();
        for row in self.iter().filter(|row| keep(*row)) {
            kept.bytes.extend_from_slice(row.0);
            kept.ends.push(kept.bytes.len());
        }
        kept
    }
}

/// The columns that have values in a row.
pub fn written(shape: &TableShape) -> impl Iterator<Item = (usize, &ColumnShape)> {
    let all = shape.columns.iter().enumerate();
    all.filter(|(_, c)| !c.generated)
}

impl<'a> RawRow<'a> {
    /// Its values as texts; None is NULL. Ends early where the row does.
    pub fn texts(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || reader.nullable_bytes())
    }

    /// As an image of the whole table, as the log has them; generated columns
    /// are NULL, which nobody writes. None: a value that its column cannot have.
    pub fn image(self, shape: &TableShape) -> Option<Vec<Value>> {
        self.decoded(shape, Value::Null, |_| true)
    }

    /// Its key, and no more of it; None likewise.
    pub fn key(self, key: &Key, shape: &TableShape) -> Option<Vec<u8>> {
        let image = self.decoded(shape, Value::Absent, |n| key.columns.contains(&n));
        key.bytes(&image?)
    }

    fn decoded(
        self,
        shape: &TableShape,
        other: Value,
        wanted: impl Fn(usize) -> bool,
    ) -> Option<Vec<Value>> {
        let mut image = vec![other; shape.columns.len()];
        let mut texts = self.texts();
        for (n, column) in written(shape) {
            let text = texts.next()?;
            if wanted(n) {
                *image.get_mut(n)? = value(text.map(Cow::Borrowed), column)?;
            }
        }
        Some(image)
    }
}

/// As [`RawRow::image`], of a row that is apart already.
pub fn image(row: Vec<mysql_async::Value>, shape: &TableShape) -> Option<Vec<Value>> {
    let mut columns = row.into_iter();
    let mut image = Vec::with_capacity(shape.columns.len());
    for column in &shape.columns {
        image.push(if column.generated {
            Value::Null
        } else {
            let text = match columns.next()? {
                mysql_async::Value::NULL => None,
                mysql_async::Value::Bytes(bytes) => Some(Cow::Owned(bytes)),
                _ => return None,
            };
            value(text, column)?
        });
    }
    columns.next().is_none().then_some(image)
}

fn value(text: Option<Cow<'_, [u8]>>, column: &ColumnShape) -> Option<Value> {
    let Some(mut bytes) = text else {
        return Some(Value::Null);
    };
    let kind = column.type_name();
    if matches!(kind, "binary" | "uuid" | "inet6" | "inet4") {
        // As the log has them.
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        match &mut bytes {
            Cow::Borrowed(bytes) => *bytes = bytes.get(..end)?,
            Cow::Owned(bytes) => bytes.truncate(end),
        }
    }
    let is_number = matches!(
        kind,
        "tinyint"
            | "smallint"
            | "mediumint"
            | "int"
            | "bigint"
            | "year"
            | "bit"
            | "enum"
            | "set"
            | "float"
            | "double"
    );
    let is_text = matches!(
        kind,
        "decimal" | "date" | "datetime" | "time" | "timestamp" | "json"
    );
    if !is_number && !is_text {
        return Some(Value::Bytes(bytes.into_owned().into()));
    }
    let text = std::str::from_utf8(&bytes).ok()?;
    Some(match kind {
        "float" => Value::Float(text.parse::<f64>().ok()? as f32),
        "double" => Value::Double(text.parse().ok()?),
        "bit" => Value::UInt(text.parse().ok()?),
        "set" => Value::Set(text.parse().ok()?),
        "enum" => Value::Enum(text.parse().ok()?),
        "decimal" => Value::Decimal(text.to_owned()),
        "json" => Value::Json(json::Text {
            text: text.to_owned(),
            exact: true,
        }),
        "date" | "datetime" | "time" | "timestamp" => Value::Time(text.to_owned()),
        _ if column.column_type.contains("unsigned") => Value::UInt(text.parse().ok()?),
        _ => Value::Int(text.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::shape::KeyShape;

    fn shape() -> TableShape {
        let column = |t: &str, generated| ColumnShape {
            column_type: t.into(),
            generated,
            ..ColumnShape::default()
        };
        TableShape {
            columns: vec![
                column("varchar(9)", false),
                column("int(11)", true),
                column("int(11)", false),
                column("binary(4)", false),
            ],
            unique_keys: vec![KeyShape {
                columns: vec![2],
                primary: true,
                all_not_null: true,
                ..KeyShape::default()
            }],
            ..TableShape::default()
        }
    }

    fn rows(shape: &TableShape) -> RawRows {
        let mut rows = RawRows::default();
        for id in ["7", "-8", "9"] {
            let texts = [Some("a"), Some(id), None];
            let values = texts.map(|t| match t {
                Some(text) => mysql_async::Value::Bytes(text.into()),
                None => mysql_async::Value::NULL,
            });
            assert!(rows.push(values.into_iter(), shape));
        }
        rows
    }

    #[test]
    fn rows_are_read_where_they_lie() {
        let shape = shape();
        let rows = rows(&shape);
        assert_eq!((rows.len(), rows.is_empty()), (3, false));
        let image = rows.last().and_then(|row| row.image(&shape)).unwrap();
        assert_eq!(
            image,
            [
                Value::Bytes("a".into()),
                Value::Null,
                Value::Int(9),
                Value::Null
            ]
        );
        let key = Key::of(&shape).unwrap();
        let keys: Vec<_> = rows.iter().map(|row| row.key(&key, &shape)).collect();
        assert_eq!(keys.last().unwrap(), &key.bytes(&image));
        let kept = rows
            .clone()
            .retained(|row| row.key(&key, &shape) != keys[1]);
        assert_eq!(kept.len(), 2);
        let texts: Vec<_> = kept.last().unwrap().texts().collect();
        assert_eq!(texts, [Some(&b"a"[..]), Some(b"9"), None]);
        assert_eq!(RawRows::default().last().map(|row| row.0), None);
    }

    #[test]
    fn a_row_that_does_not_fit_is_none() {
        let shape = shape();
        let text = |t: &str| mysql_async::Value::Bytes(t.into());
        let mut rows = RawRows::default();
        assert!(!rows.push([text("a"), text("1")].into_iter(), &shape));
        assert!(!rows.push([mysql_async::Value::Int(1)].into_iter(), &shape));
        let mut rows = RawRows::default();
        assert!(rows.push([text("a"), text("x"), text("b")].into_iter(), &shape));
        let row = rows.last().unwrap();
        assert_eq!(row.image(&shape), None);
        assert_eq!(row.key(&Key::of(&shape).unwrap(), &shape), None);
    }
}
