//! One table on both sides, and the SQL that compares it. Pure.
//!
//! Bounds and keys are literals out of rows of either side; each server
//! compares them by its own columns' rules. Side 0 is the active one, side 1
//! the mirror.

use std::sync::Arc;

use crate::copy::select::{Bound, put_beyond, put_expression};
use crate::follow::batch::{Key, TableName};
use crate::follow::tables::Followed;
use crate::rows::digest::{self, Strength};
use crate::rows::literal::{put_name, put_quoted, put_table};
use crate::rows::shape::{ColumnShape, TableShape};

/// Longest printed key, in characters: a line of a list.
const KEY_SHOWN_MAX: usize = 200;

/// How a table can be walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Range by range of the key: both sides order it alike.
    Ranges,
    /// As a whole, its rows told apart by buckets of their keys' digests: the
    /// sides order the key differently, so a range of one is not a range of
    /// the other.
    Whole,
    /// No key: one verdict for the whole table.
    NoKey,
}

/// A part of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Behind one key, up to and with another.
    Range {
        /// Behind this one; None: from the first.
        after: Option<Bound>,
        /// Up to this one; None: to the last.
        until: Option<Bound>,
    },
    /// By a column of times, as literals: behind `from`, up to `until`.
    Window {
        /// Name of the column.
        column: Vec<u8>,
        /// Literal.
        from: String,
        /// Literal.
        until: String,
    },
}

impl Extent {
    /// The whole table.
    pub const ALL: Extent = Extent::Range {
        after: None,
        until: None,
    };
}

/// Which of `of` buckets, by the digest of the key.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    /// Number of buckets.
    pub of: u32,
    /// Only these.
    pub only: &'a [u32],
}

/// A table that is compared.
#[derive(Debug)]
pub struct Table {
    /// Its name, the same on both sides.
    pub name: TableName,
    /// As the active side has it, for the healer.
    pub followed: Arc<Followed>,
    /// How it is walked.
    pub order: Order,
    /// Both servers are of one family.
    pub same_family: bool,
    shapes: [Arc<TableShape>; 2],
    keys: [Key; 2],
    /// Names of the keys' indexes, where there are any.
    indexes: [Option<Vec<u8>>; 2],
    /// Columns compared here and not by the servers.
    fetched: [Vec<usize>; 2],
}

/// Collations that both families have under one name and with one order.
fn is_common(collation: &str) -> bool {
    collation.ends_with("_bin")
        || matches!(
            collation,
            "ascii_general_ci"
                | "latin1_swedish_ci"
                | "latin1_general_ci"
                | "utf8mb3_general_ci"
                | "utf8mb3_unicode_ci"
                | "utf8mb4_general_ci"
                | "utf8mb4_unicode_ci"
        )
}

/// Whether both sides put values of a key column in the same order.
fn same_order(mine: &ColumnShape, theirs: &ColumnShape, same_family: bool) -> bool {
    let list = |c: &ColumnShape| {
        c.column_type.starts_with("enum(")
            || c.column_type.starts_with("set(")
            || c.column_type.starts_with("uuid")
    };
    if list(mine) || list(theirs) {
        return mine.column_type == theirs.column_type;
    }
    match (&mine.collation, &theirs.collation) {
        (None, None) => mine.is_text() == theirs.is_text(),
        (Some(mine), Some(theirs)) => {
            let new = |name: &str| name.replacen("utf8_", "utf8mb3_", 1);
            let (mine, theirs) = (new(mine), new(theirs));
            mine == theirs && (same_family || is_common(&mine))
        }
        _ => false,
    }
}

/// The name of the unique key over these columns, in whatever order.
fn index_of(shape: &TableShape, columns: &[usize]) -> Option<Vec<u8>> {
    let same =
        |key: &[usize]| key.len() == columns.len() && key.iter().all(|c| columns.contains(c));
    let mut keys = shape.unique_keys.iter();
    keys.find(|k| same(&k.columns)).map(|k| k.name.clone())
}

impl Table {
    /// # Errors
    /// Why the table cannot be compared.
    pub fn new(
        name: TableName,
        active: &TableShape,
        mirror: &TableShape,
        same_family: bool,
    ) -> Result<Table, String> {
        let alone = digest::alone(active, mirror);
        if !alone.is_empty() {
            return Err(format!("on one side only: {}", alone.join(", ")));
        }
        let generated = |c: &usize| active.columns.get(*c).is_some_and(|c| c.generated);
        let key = Key::of(active).filter(|k| !k.columns.iter().any(generated));
        let theirs = key.as_ref().and_then(|k| partner(k, active, mirror));
        let no_key = || Key {
            columns: Vec::new(),
            bytewise: false,
        };
        let (keys, order) = match (key, theirs) {
            (Some(mine), Some(theirs)) => {
                let mut pairs = mine.columns.iter().zip(&theirs.columns);
                let ordered =
                    pairs.all(
                        |(a, b)| match (active.columns.get(*a), mirror.columns.get(*b)) {
                            (Some(a), Some(b)) => same_order(a, b, same_family),
                            _ => false,
                        },
                    );
                // Without an index on the mirror each range would read it all.
                let ordered = ordered && index_of(mirror, &theirs.columns).is_some();
                let order = if ordered { Order::Ranges } else { Order::Whole };
                ([mine, theirs], order)
            }
            _ => ([no_key(), no_key()], Order::NoKey),
        };
        let [mine, theirs] = &keys;
        Ok(Table {
            indexes: [
                index_of(active, &mine.columns),
                index_of(mirror, &theirs.columns),
            ],
            fetched: [
                digest::fetched(active, mirror, same_family),
                digest::fetched(mirror, active, same_family),
            ],
            followed: Arc::new(Followed::new(
                Arc::new(active.clone()),
                Some(Arc::new(mirror.clone())),
                mine.clone(),
            )),
            shapes: [Arc::new(active.clone()), Arc::new(mirror.clone())],
            name,
            order,
            same_family,
            keys,
        })
    }

    /// `schema.table`, for people.
    pub fn shown(&self) -> String {
        shown(&self.name)
    }

    /// Whether rows must be read to be compared.
    pub fn is_fetched(&self) -> bool {
        self.fetched.iter().any(|f| !f.is_empty())
    }

    /// The key's only column, if it is an integer.
    pub fn integer_key(&self) -> Option<&ColumnShape> {
        let [key, _] = &self.keys;
        let [column] = key.columns[..] else {
            return None;
        };
        let column = self.shape(0).columns.get(column)?;
        let integer = ["tinyint", "smallint", "mediumint", "int", "bigint"];
        let head = column.column_type.split(['(', ' ']).next()?;
        integer.contains(&head).then_some(column)
    }

    fn shape(&self, side: usize) -> &TableShape {
        let [active, mirror] = &self.shapes;
        if side == 0 { active } else { mirror }
    }

    fn key(&self, side: usize) -> &Key {
        let [active, mirror] = &self.keys;
        if side == 0 { active } else { mirror }
    }

    fn fetched(&self, side: usize) -> &[usize] {
        let [active, mirror] = &self.fetched;
        if side == 0 { active } else { mirror }
    }

    /// The key's columns as a table of their own, to read keys with.
    pub fn projection(&self, side: usize) -> (TableShape, Key) {
        let (shape, key) = (self.shape(side), self.key(side));
        let columns = key.columns.iter().filter_map(|c| shape.columns.get(*c));
        let columns: Vec<ColumnShape> = columns.cloned().collect();
        let key = Key {
            columns: (0..columns.len()).collect(),
            bytewise: key.bytewise,
        };
        let shape = TableShape {
            columns,
            ..TableShape::default()
        };
        (shape, key)
    }

    /// How many further columns [`Table::rows`] reads.
    pub fn fetched_columns(&self) -> usize {
        self.fetched(0).len()
    }

    fn put_from(&self, out: &mut Vec<u8>, side: usize, by_key: bool) {
        out.extend_from_slice(b" FROM ");
        put_table(out, &self.name.schema, &self.name.table);
        let [active, mirror] = &self.indexes;
        let index = if side == 0 { active } else { mirror };
        if let Some(index) = index.as_ref().filter(|_| by_key) {
            // Else a shorter index may be read, and each row looked up.
            out.extend_from_slice(b" FORCE INDEX (");
            put_name(out, index);
            out.push(b')');
        }
    }

    fn put_key_digest(&self, out: &mut Vec<u8>, side: usize, strength: Strength) {
        let (mine, theirs) = (self.shape(side), self.shape(1 - side));
        let columns = &self.key(side).columns;
        digest::columns_digest(out, mine, columns, theirs, self.same_family, strength);
    }

    /// `open`: the upper bound of a window is left out.
    fn put_extent(
        &self,
        out: &mut Vec<u8>,
        side: usize,
        extent: &Extent,
        buckets: Option<Buckets<'_>>,
        open: bool,
    ) {
        let mut word: &[u8] = b" WHERE ";
        let mut next = |out: &mut Vec<u8>| {
            out.extend_from_slice(std::mem::replace(&mut word, b" AND "));
        };
        match extent {
            Extent::Range { after, until } => {
                for (bound, last) in [(after, &b">"[..]), (until, &b"<="[..])] {
                    if let Some(bound) = bound {
                        next(out);
                        put_beyond(out, self.key(side), self.shape(side), bound, last);
                    }
                }
            }
            Extent::Window {
                column,
                from,
                until,
            } => {
                next(out);
                put_name(out, column);
                out.extend_from_slice(format!(">{from}").as_bytes());
                if !open {
                    next(out);
                    put_name(out, column);
                    out.extend_from_slice(format!("<={until}").as_bytes());
                }
            }
        }
        if let Some(buckets) = buckets {
            next(out);
            self.put_key_digest(out, side, Strength::Fast);
            let only: Vec<String> = buckets.only.iter().map(u32::to_string).collect();
            out.extend_from_slice(format!("%{} IN ({})", buckets.of, only.join(",")).as_bytes());
        }
    }

    fn by_index(extent: &Extent) -> bool {
        matches!(extent, Extent::Range { .. })
    }

    /// One row: number of rows and their digest.
    pub fn digest(&self, side: usize, extent: &Extent, strength: Strength) -> Vec<u8> {
        let mut out = b"SELECT ".to_vec();
        let (mine, theirs) = (self.shape(side), self.shape(1 - side));
        digest::chunk_digest(&mut out, mine, theirs, self.same_family, strength);
        self.put_from(&mut out, side, Self::by_index(extent));
        self.put_extent(&mut out, side, extent, None, false);
        out
    }

    /// A row for each of `of` buckets: its number, its rows, their digest.
    pub fn buckets(&self, side: usize, extent: &Extent, strength: Strength, of: u32) -> Vec<u8> {
        let mut out = b"SELECT ".to_vec();
        self.put_key_digest(&mut out, side, Strength::Fast);
        out.extend_from_slice(format!("%{of} bucket,").as_bytes());
        let (mine, theirs) = (self.shape(side), self.shape(1 - side));
        digest::chunk_digest(&mut out, mine, theirs, self.same_family, strength);
        self.put_from(&mut out, side, Self::by_index(extent));
        self.put_extent(&mut out, side, extent, None, false);
        out.extend_from_slice(b" GROUP BY bucket");
        out
    }

    /// The row's identity and digest, 32 hexadecimal digits each, and the
    /// columns that are compared here.
    fn put_identity(&self, out: &mut Vec<u8>, side: usize) {
        out.extend_from_slice(b"LEFT(");
        self.put_key_digest(out, side, Strength::Strong);
        out.extend_from_slice(b",32),LEFT(");
        let (mine, theirs) = (self.shape(side), self.shape(1 - side));
        digest::row_digest(out, mine, theirs, self.same_family, Strength::Strong);
        out.extend_from_slice(b",32)");
        for column in self.fetched(side) {
            if let Some(column) = mine.columns.get(*column) {
                out.push(b',');
                digest::put_fetched(out, column);
            }
        }
    }

    /// Each row's identity, digest, fetched columns, whether it is behind the
    /// window's end, and its key.
    pub fn rows(&self, side: usize, extent: &Extent, buckets: Option<Buckets<'_>>) -> Vec<u8> {
        let mut out = b"SELECT ".to_vec();
        self.put_identity(&mut out, side);
        let open = match extent {
            Extent::Window { column, until, .. } if side == 1 => {
                out.push(b',');
                put_name(&mut out, column);
                out.extend_from_slice(format!(">{until}").as_bytes());
                true
            }
            _ => {
                out.extend_from_slice(b",0");
                false
            }
        };
        let shape = self.shape(side);
        for column in &self.key(side).columns {
            if let Some(column) = shape.columns.get(*column) {
                out.push(b',');
                put_expression(&mut out, column);
            }
        }
        self.put_from(&mut out, side, Self::by_index(extent));
        self.put_extent(&mut out, side, extent, buckets, open);
        out
    }

    /// For each key that is there a row: its number in `keys`, identity,
    /// digest, fetched columns.
    pub fn by_keys(&self, side: usize, keys: &[&Bound]) -> Vec<u8> {
        let mut out = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            out.extend_from_slice(if n == 0 { b"" } else { b" UNION ALL " });
            out.extend_from_slice(format!("SELECT {n},").as_bytes());
            self.put_identity(&mut out, side);
            self.put_from(&mut out, side, true);
            let shape = self.shape(side);
            let columns = self.key(side).columns.iter();
            let columns = columns.filter_map(|c| shape.columns.get(*c));
            for (i, (column, literal)) in columns.zip(&key.0).enumerate() {
                out.extend_from_slice(if i == 0 { b" WHERE " } else { b" AND " });
                put_name(&mut out, &column.name);
                out.push(b'=');
                out.extend_from_slice(literal);
            }
        }
        out
    }

    /// The key of the `rows`th row behind `after`.
    pub fn lookup(&self, after: Option<&Bound>, rows: u64) -> Vec<u8> {
        let mut out = b"SELECT ".to_vec();
        let columns: Vec<&ColumnShape> = {
            let shape = self.shape(0);
            let columns = self.key(0).columns.iter();
            columns.filter_map(|c| shape.columns.get(*c)).collect()
        };
        for (n, column) in columns.iter().enumerate() {
            out.extend_from_slice(if n == 0 { b"" } else { b"," });
            put_expression(&mut out, column);
        }
        self.put_from(&mut out, 0, true);
        let extent = Extent::Range {
            after: after.cloned(),
            until: None,
        };
        self.put_extent(&mut out, 0, &extent, None, false);
        for (n, column) in columns.iter().enumerate() {
            out.extend_from_slice(if n == 0 { b" ORDER BY " } else { b"," });
            put_name(&mut out, &column.name);
        }
        out.extend_from_slice(format!(" LIMIT 1 OFFSET {}", rows.saturating_sub(1)).as_bytes());
        out
    }

    /// The least (or greatest) integer key behind `after`, as text.
    pub fn integer_edge(&self, greatest: bool, after: Option<i128>) -> Option<Vec<u8>> {
        let name = &self.integer_key()?.name;
        let mut out = b"SELECT CAST(".to_vec();
        out.extend_from_slice(if greatest { b"MAX(" } else { b"MIN(" });
        put_name(&mut out, name);
        out.extend_from_slice(b") AS CHAR)");
        self.put_from(&mut out, 0, true);
        if let Some(after) = after {
            out.extend_from_slice(b" WHERE ");
            put_name(&mut out, name);
            out.extend_from_slice(format!(">{after}").as_bytes());
        }
        Some(out)
    }

    /// The server's estimate of the table's rows, and of bytes in each, with a
    /// blank between: [`Estimate::parse`].
    pub fn estimate(&self) -> Vec<u8> {
        let mut out = b"SELECT CONCAT(TABLE_ROWS,' ',AVG_ROW_LENGTH) \
            FROM information_schema.TABLES WHERE TABLE_SCHEMA=_utf8mb4"
            .to_vec();
        put_quoted(&mut out, &self.name.schema);
        out.extend_from_slice(b" AND TABLE_NAME=_utf8mb4");
        put_quoted(&mut out, &self.name.table);
        out
    }

    /// The active side's columns.
    pub fn columns(&self) -> &[ColumnShape] {
        &self.shape(0).columns
    }
}

/// What a server thinks of a table's size. It may be days old.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Estimate {
    /// Rows.
    pub rows: u64,
    /// Bytes in a row on average; 0 where that is not known.
    pub row_bytes: u64,
}

impl Estimate {
    /// Out of the answer to [`Table::estimate`].
    pub fn parse(text: &str) -> Option<Estimate> {
        let (rows, row_bytes) = text.split_once(' ')?;
        Some(Estimate {
            rows: rows.parse().ok()?,
            row_bytes: row_bytes.parse().ok()?,
        })
    }
}

/// `schema.table`, for people.
pub fn shown(name: &TableName) -> String {
    format!(
        "{}.{}",
        String::from_utf8_lossy(&name.schema),
        String::from_utf8_lossy(&name.table)
    )
}

/// The key on the other side, in the same order.
fn partner(key: &Key, active: &TableShape, mirror: &TableShape) -> Option<Key> {
    let columns = key.columns.iter().map(|c| {
        let name = &active.columns.get(*c)?.name;
        mirror.column(name)
    });
    Some(Key {
        columns: columns.collect::<Option<_>>()?,
        bytewise: key.bytewise,
    })
}

/// A key for people: the literals without their character sets.
pub fn shown_key(key: &Bound) -> String {
    let parts = key.0.iter().map(|literal| {
        let text = String::from_utf8_lossy(literal);
        match text.find('\'') {
            Some(at) if text.starts_with('_') => text.get(at..).unwrap_or_default().to_owned(),
            _ => text.into_owned(),
        }
    });
    let shown = parts.collect::<Vec<_>>().join(",");
    let plain = shown
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c });
    plain.take(KEY_SHOWN_MAX).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rows::shape::KeyShape;

    fn shape(columns: &[(&str, &str, Option<&str>)], key: &[usize]) -> TableShape {
        let columns = columns.iter().map(|(name, kind, collation)| ColumnShape {
            name: (*name).into(),
            column_type: (*kind).into(),
            charset: collation.map(|_| "utf8mb4".to_owned()),
            collation: collation.map(str::to_owned),
            ..ColumnShape::default()
        });
        TableShape {
            columns: columns.collect(),
            unique_keys: vec![KeyShape {
                name: b"PRIMARY".to_vec(),
                columns: key.to_vec(),
                primary: true,
                all_not_null: true,
            }],
            ..TableShape::default()
        }
    }

    fn name() -> TableName {
        TableName {
            schema: b"s".to_vec(),
            table: b"t".to_vec(),
        }
    }

    /// A table with an integer key and a number.
    pub fn plain() -> Table {
        let shape = shape(&[("id", "int(11)", None), ("v", "int(11)", None)], &[0]);
        Table::new(name(), &shape, &shape, true).unwrap()
    }

    fn order(mine: &[(&str, &str, Option<&str>)], theirs: &[(&str, &str, Option<&str>)]) -> Order {
        let (mine, theirs) = (shape(mine, &[0]), shape(theirs, &[0]));
        Table::new(name(), &mine, &theirs, false).unwrap().order
    }

    #[test]
    fn ranges_need_one_order() {
        let text = |collation| [("k", "varchar(9)", Some(collation))];
        let number = |kind| [("k", kind, None)];
        let ranges = [
            (number("int(11)"), number("bigint")),
            (text("utf8mb4_bin"), text("utf8mb4_bin")),
            (text("utf8mb4_general_ci"), text("utf8mb4_general_ci")),
            (number("varbinary(9)"), number("varbinary(9)")),
        ];
        for (mine, theirs) in ranges {
            assert_eq!(order(&mine, &theirs), Order::Ranges, "{mine:?}");
        }
        let whole = [
            (text("utf8mb4_0900_ai_ci"), text("utf8mb4_uca1400_ai_ci")),
            (text("utf8mb4_czech_ci"), text("utf8mb4_czech_ci")),
            (number("enum('a','b')"), number("enum('b','a')")),
            (number("int(11)"), text("utf8mb4_bin")),
        ];
        for (mine, theirs) in whole {
            assert_eq!(order(&mine, &theirs), Order::Whole, "{mine:?}");
        }
        // The mirror's unique key is another one.
        let columns = [("a", "int", None), ("b", "int", None)];
        let (mine, theirs) = (shape(&columns, &[0]), shape(&columns, &[1]));
        let table = Table::new(name(), &mine, &theirs, true).unwrap();
        assert_eq!(table.order, Order::Whole);
        let none = shape(&columns, &[]);
        let table = Table::new(name(), &none, &none, true).unwrap();
        assert_eq!(table.order, Order::NoKey);
    }

    #[test]
    fn queries_of_a_range() {
        let table = plain();
        let bound = |n: &str| Some(Bound(vec![n.as_bytes().to_vec()]));
        let extent = Extent::Range {
            after: bound("7"),
            until: bound("9"),
        };
        let text = |sql: Vec<u8>| String::from_utf8(sql).unwrap();
        let from = "FROM `s`.`t` FORCE INDEX (`PRIMARY`) WHERE ((`id`>7)) AND ((`id`<=9))";
        assert_eq!(
            text(table.digest(1, &extent, Strength::Fast)),
            format!("SELECT COUNT(*),SUM(CRC32(CONCAT_WS('#',`id`,`v`))) {from}")
        );
        let only = Buckets {
            of: 8,
            only: &[1, 5],
        };
        let rows = text(table.rows(0, &extent, Some(only)));
        let buckets = " AND CRC32(CONCAT_WS('#',`id`))%8 IN (1,5)";
        assert!(
            rows.ends_with(&format!(",0,`id` {from}{buckets}")),
            "{rows}"
        );
        assert_eq!(
            text(table.lookup(bound("7").as_ref(), 100)),
            "SELECT `id` FROM `s`.`t` FORCE INDEX (`PRIMARY`) WHERE ((`id`>7)) \
             ORDER BY `id` LIMIT 1 OFFSET 99"
        );
    }

    #[test]
    fn keys_for_people() {
        let key = Bound(vec![b"-5".to_vec(), b"_utf8mb4'a\\'b\n'".to_vec()]);
        assert_eq!(shown_key(&key), "-5,'a\\'b\u{FFFD}'");
    }
}
