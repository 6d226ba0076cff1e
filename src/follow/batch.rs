//! Row images of many transactions, merged by key: the last image of a row
//! wins. Pure.
//!
//! Why merging is right: images are absolute. After all of a batch's rows have
//! been written in any order, each row is what its last image says, provided
//! that for one row there is one operation and that deletes go first.
//!
//! Why deletes go first, and why a key's *bytes* may tell rows apart: with a
//! collation, 'a' and 'A' can be one key to the server and are two here.
//! 1. A row's key changes from 'a' to 'A'.
//! 2. The batch has Delete('a') and Put('A').
//! 3. Put first and Delete second would remove the row: the server finds it by
//!    either. Deleted first, the row that is put stays.
//!
//! Two Puts of one key in different bytes cannot be: every image before names
//! the bytes that were there, so the earlier one has become a Delete.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::binlog::{Change, Images, TableMap, Value};
use crate::rows::shape::{ColumnShape, TableShape};

use super::ordered::Ordered;

/// Which table, as the log names it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TableName {
    /// Schema.
    pub schema: Vec<u8>,
    /// Table.
    pub table: Vec<u8>,
}

impl TableName {
    /// The table of a row event.
    pub fn of(map: &TableMap) -> TableName {
        TableName {
            schema: map.schema.clone(),
            table: map.table.clone(),
        }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (schema, table) = (&self.schema, &self.table);
        let [schema, table] = [schema, table].map(|n| String::from_utf8_lossy(n));
        write!(f, "{schema}.{table}")
    }
}

/// A table's identity columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Indexes into the table's columns.
    pub columns: Vec<usize>,
    /// Two keys that differ in bytes are two keys to the server too: no
    /// collated column.
    pub bytewise: bool,
}

impl Key {
    /// The primary key, else the first unique key without NULL. None with a
    /// generated column in it: nobody writes those, so a row that is copied has
    /// no value there, and no place among the others. None with a large SET in
    /// it, either, whose values servers compare as DOUBLEs.
    pub fn of(shape: &TableShape) -> Option<Key> {
        let good = |c: &usize| {
            let column = shape.columns.get(*c);
            column.is_some_and(|c| !c.generated && !is_large_set(c))
        };
        let usable = |k: &&crate::rows::shape::KeyShape| {
            k.all_not_null && !k.columns.is_empty() && k.columns.iter().all(good)
        };
        let keys = &shape.unique_keys;
        let key = keys
            .iter()
            .find(|k| k.primary)
            .or_else(|| keys.iter().find(usable))
            .filter(usable)?;
        let bytewise = key.columns.iter().all(|c| {
            shape
                .columns
                .get(*c)
                .is_some_and(|c| !c.is_text() && !c.column_type.starts_with("float"))
        });
        Some(Key {
            columns: key.columns.clone(),
            bytewise,
        })
    }

    /// The key's values in an image, as bytes that sort numbers by value. None
    /// if the image lacks one.
    pub(crate) fn bytes(&self, image: &[Value]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.columns.len() * 9);
        for column in &self.columns {
            put_key(&mut out, image.get(*column)?)?;
        }
        Some(out)
    }
}

/// A SET of more members than a DOUBLE has bits; commas in names count as well.
fn is_large_set(column: &ColumnShape) -> bool {
    let members = || column.column_type.split("','").count();
    column.type_name() == "set" && members() > f64::MANTISSA_DIGITS as usize
}

fn put_key(out: &mut Vec<u8>, value: &Value) -> Option<()> {
    let mut put = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        // A length, so that no two lists of values look alike.
        out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
        out.extend_from_slice(bytes);
        Some(())
    };
    match value {
        Value::Absent | Value::Null => None,
        Value::Int(n) => put(1, &(n.cast_unsigned() ^ 1 << 63).to_be_bytes()),
        Value::UInt(n) | Value::Set(n) => put(2, &n.to_be_bytes()),
        Value::Enum(n) => put(3, &n.to_be_bytes()),
        Value::Float(f) => put(4, &(f + 0.0).to_bits().to_be_bytes()),
        Value::Double(f) => put(5, &(f + 0.0).to_bits().to_be_bytes()),
        Value::Decimal(text) | Value::Time(text) => put(6, text.as_bytes()),
        Value::Bytes(bytes) => put(7, bytes),
        Value::Json(json) => put(8, json.text.as_bytes()),
    }
}

/// What is to be done about one row.
#[derive(Clone, PartialEq, Debug)]
pub enum Operation {
    /// The row is as this image says.
    Put(Vec<Value>),
    /// There is no row with this image's key.
    Delete(Vec<Value>),
}

/// One table's part of a batch.
#[derive(Clone, Debug)]
pub struct TableBatch {
    /// Its name.
    pub name: TableName,
    /// The shape its images have.
    pub shape: Arc<TableShape>,
    /// Its key.
    pub key: Key,
    /// By key.
    pub rows: BTreeMap<Vec<u8>, Operation>,
}

/// Rows that one writer takes: for fewer a transaction more is not worth it.
const PART_MIN: usize = 32;

/// A part of a batch that is written before the next one.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Rows by key.
    Merged(Vec<TableBatch>),
    /// Changes that keep their places.
    Ordered(Vec<Ordered>),
}

/// Merged images, and what they weigh.
#[derive(Default, Debug)]
pub struct Batch {
    /// What must be written before `tables`; empty unless a change had to keep
    /// its place.
    earlier: Vec<Stage>,
    tables: HashMap<TableName, TableBatch>,
    /// Row events merged in.
    pub events: usize,
    /// Bytes of all images merged in.
    pub bytes: usize,
}

/// An image that cannot be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an image lacks a column of the key (binlog_row_image must be FULL)")]
pub struct NoKey;

impl Batch {
    /// Nothing to do?
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.earlier.is_empty()
    }

    /// Its tables, what keeps its place apart.
    pub(super) fn tables(&self) -> impl Iterator<Item = &TableBatch> {
        self.tables.values()
    }

    /// Some change in it keeps its place, so [`Batch::stages`] is to be written
    /// instead of parts.
    pub fn is_ordered(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// Adds a change that keeps its place: everything added before is written
    /// before it, everything after behind it.
    pub fn add_ordered(&mut self, change: Ordered) {
        self.events += 1;
        if !self.tables.is_empty() {
            let tables = std::mem::take(&mut self.tables);
            self.earlier.push(Stage::Merged(sorted(tables)));
        }
        match self.earlier.last_mut() {
            Some(Stage::Ordered(changes)) => changes.push(change),
            _ => self.earlier.push(Stage::Ordered(vec![change])),
        }
    }

    /// All of it, to be written stage after stage.
    pub fn stages(mut self) -> Vec<Stage> {
        if !self.tables.is_empty() {
            self.earlier.push(Stage::Merged(sorted(self.tables)));
        }
        self.earlier
    }

    /// Merges one changed row in.
    ///
    /// # Errors
    /// The image lacks its key.
    pub fn add(
        &mut self,
        name: &TableName,
        shape: &Arc<TableShape>,
        key: &Key,
        change: Change,
        images: Images,
    ) -> Result<(), NoKey> {
        self.events += 1;
        let table = match self.tables.get_mut(name) {
            Some(table) => table,
            None => self.tables.entry(name.clone()).or_insert(TableBatch {
                name: name.clone(),
                shape: shape.clone(),
                key: key.clone(),
                rows: BTreeMap::new(),
            }),
        };
        if let (Change::Update | Change::Delete, Some(before)) = (change, images.before) {
            let bytes = key.bytes(&before).ok_or(NoKey)?;
            table.rows.insert(bytes, Operation::Delete(before));
        }
        if let Some(after) = images.after {
            let bytes = key.bytes(&after).ok_or(NoKey)?;
            table.rows.insert(bytes, Operation::Put(after));
        }
        Ok(())
    }

    /// Splits the batch into at most `ways` parts that can be written at the
    /// same time: a row is in one part, and so are all rows that the server
    /// might take for the same. Each has a run of keys, so that writers do not
    /// meet on the same pages of an index; a small batch is not split.
    ///
    /// Unique keys besides the primary need no care here: a row written with
    /// REPLACE removes another that still holds its value, and that other row's
    /// own last image is in the batch, in whichever part:
    /// 1. Rows r and s swap values X and Y.
    /// 2. Part 1 replaces r with Y, which removes s.
    /// 3. Part 2 replaces s with X.
    ///
    /// In the other order part 2 removes r first and part 1 brings it back.
    pub fn split(self, ways: usize) -> Vec<Vec<TableBatch>> {
        let rows: usize = self.tables.values().map(|t| t.rows.len()).sum();
        let each = rows.div_ceil(ways.max(1)).max(PART_MIN);
        let mut parts: Vec<Vec<TableBatch>> = Vec::new();
        // Rows that the last part may still take.
        let mut room = 0;
        for mut table in sorted(self.tables) {
            while !table.rows.is_empty() {
                if room == 0 {
                    parts.push(Vec::new());
                    room = each;
                }
                let rest = match table.rows.keys().nth(room).cloned() {
                    Some(next) if table.key.bytewise => table.rows.split_off(&next),
                    _ => BTreeMap::new(),
                };
                room = room.saturating_sub(table.rows.len());
                if let Some(part) = parts.last_mut() {
                    part.push(TableBatch {
                        name: table.name.clone(),
                        shape: table.shape.clone(),
                        key: table.key.clone(),
                        rows: std::mem::replace(&mut table.rows, rest),
                    });
                }
            }
        }
        parts
    }
}

/// One order for all: fewer deadlocks among the parts.
fn sorted(tables: HashMap<TableName, TableBatch>) -> Vec<TableBatch> {
    let mut tables: Vec<TableBatch> = tables.into_values().collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::shape::{ColumnShape, KeyShape};
    use proptest::prelude::*;

    fn shape(column_type: &str) -> Arc<TableShape> {
        let column = |t: &str| ColumnShape {
            column_type: t.into(),
            ..ColumnShape::default()
        };
        Arc::new(TableShape {
            columns: vec![column(column_type), column("int(11)")],
            unique_keys: vec![KeyShape {
                columns: vec![0],
                primary: true,
                all_not_null: true,
                ..KeyShape::default()
            }],
            ..TableShape::default()
        })
    }

    #[test]
    fn keys_with_text_are_not_bytewise() {
        assert!(Key::of(&shape("bigint(20)")).unwrap().bytewise);
        assert!(!Key::of(&shape("varchar(20)")).unwrap().bytewise);
        assert_eq!(Key::of(&TableShape::default()), None);
        let mut made = TableShape::clone(&shape("bigint(20)"));
        made.columns[0].generated = true;
        assert_eq!(Key::of(&made), None, "nobody writes such a key");
        let set = |members: usize| {
            let names: Vec<String> = (0..members).map(|n| format!("'m{n}'")).collect();
            Key::of(&shape(&format!("set({})", names.join(","))))
        };
        assert!(set(53).is_some());
        assert_eq!(set(54), None, "compared as DOUBLEs");
    }

    proptest! {
        /// Any sequence of changes, merged and split, makes the same table as
        /// the changes one by one.
        #[test]
        fn merging_keeps_the_last_image(
            steps in proptest::collection::vec((0u64..6, 0u64..6, 0i64..100, 0u8..3), 0..60),
            ways in 1usize..5,
        ) {
            let shape = shape("bigint(20) unsigned");
            let key = Key::of(&shape).unwrap();
            let name = TableName { schema: b"s".to_vec(), table: b"t".to_vec() };
            let mut model: BTreeMap<u64, i64> = BTreeMap::new();
            let mut batch = Batch::default();
            let image = |k: u64, v: i64| vec![Value::UInt(k), Value::Int(v)];
            for (from, to, v, what) in steps {
                let before = model.get(&from).map(|v| image(from, *v));
                let (change, images) = match (what, before) {
                    (0, None) => {
                        model.insert(from, v);
                        (Change::Insert, Images { before: None, after: Some(image(from, v)) })
                    }
                    (1, Some(before)) if from == to || !model.contains_key(&to) => {
                        model.remove(&from);
                        model.insert(to, v);
                        (Change::Update, Images { before: Some(before), after: Some(image(to, v)) })
                    }
                    (2, Some(before)) => {
                        model.remove(&from);
                        (Change::Delete, Images { before: Some(before), after: None })
                    }
                    _ => continue,
                };
                batch.add(&name, &shape, &key, change, images).unwrap();
            }
            let mut made = BTreeMap::new();
            for part in batch.split(ways) {
                for table in part {
                    for operation in table.rows.into_values() {
                        if let Operation::Put(image) = operation
                            && let [Value::UInt(k), Value::Int(v)] = image[..]
                        {
                            prop_assert!(made.insert(k, v).is_none());
                        }
                    }
                }
            }
            prop_assert_eq!(made, model);
        }
    }
}
