//! Table shapes: what the catalog knows of a table's definition on each side.
//! Types only; the loader fills them from the servers' information_schema.

use std::collections::HashMap;

use crate::Side;

/// A column.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ColumnShape {
    /// Name in UTF-8.
    pub name: Vec<u8>,
    /// `COLUMN_TYPE` as the server prints it: `varchar(20)`, `bigint unsigned`.
    pub column_type: String,
    /// Character set, for text columns.
    pub charset: Option<String>,
    /// Collation, for text columns.
    pub collation: Option<String>,
    /// NULL allowed.
    pub nullable: bool,
    /// Generated (virtual or stored).
    pub generated: bool,
    /// INVISIBLE: not part of `INSERT` without a column list.
    pub invisible: bool,
    /// Default as the server prints it.
    pub default: Option<String>,
    /// ON UPDATE CURRENT_TIMESTAMP.
    pub auto_updated: bool,
}

impl ColumnShape {
    /// The type without its length and attributes, as the server writes it.
    pub fn type_name(&self) -> &str {
        let end = self.column_type.find(['(', ' ']);
        let end = end.unwrap_or(self.column_type.len());
        self.column_type.get(..end).unwrap_or_default()
    }

    /// Whether values are compared as strings (text, binary, ENUM, SET), so
    /// that comparing with a number would convert every row's value.
    pub fn is_text(&self) -> bool {
        const TEXT: [&str; 6] = ["char", "text", "binary", "blob", "enum", "set"];
        let name = self.type_name().to_ascii_lowercase();
        TEXT.iter().any(|t| name.ends_with(t))
            || matches!(name.as_str(), "json" | "inet4" | "inet6" | "uuid")
    }
}

/// A unique key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyShape {
    /// Its name.
    pub name: Vec<u8>,
    /// Indexes into [`TableShape::columns`]; empty if it has an expression part.
    pub columns: Vec<usize>,
    /// PRIMARY.
    pub primary: bool,
    /// No column of it may be NULL.
    pub all_not_null: bool,
}

/// A table on one side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableShape {
    /// Engine name.
    pub engine: String,
    /// The engine has transactions and row locks (InnoDB).
    pub transactional: bool,
    /// Columns in order.
    pub columns: Vec<ColumnShape>,
    /// Index of the AUTO_INCREMENT column.
    pub auto_increment: Option<usize>,
    /// All unique keys.
    pub unique_keys: Vec<KeyShape>,
    /// The columns of all indexes, the primary key's too, in order.
    pub indexed: Vec<usize>,
    /// Of these, the columns of unique keys, of indexes that are no B-trees, and of
    /// indexes with a column of a foreign key, on either end of it, in order: to
    /// change one, a server looks at other rows, or looks for it from there.
    pub constrained: Vec<usize>,
    /// An index has an expression: what it is made of is not known.
    pub expression_index: bool,
    /// Number of triggers.
    pub triggers: u32,
    /// A view, not a table.
    pub is_view: bool,
    /// A default expression calls UUID(), RAND(), NEXTVAL or anything but the
    /// CURRENT_TIMESTAMP family.
    pub volatile_defaults: bool,
    /// DEFAULT CURRENT_TIMESTAMP or ON UPDATE CURRENT_TIMESTAMP.
    pub time_defaults: bool,
    /// Another table references it ON DELETE/UPDATE CASCADE or SET NULL.
    pub fk_parent_cascades: bool,
    /// Those foreign keys, as far as they stand in the same schema.
    pub children: Vec<ChildKey>,
    /// Any generated column.
    pub generated_columns: bool,
}

impl TableShape {
    /// Index of a column; names compare without ASCII case.
    pub fn column(&self, name: &[u8]) -> Option<usize> {
        self.columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(name))
    }
}

/// A foreign key of another table, or of the table itself, that changes its
/// own rows when the table's do: CASCADE or SET NULL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ChildKey {
    /// The referring table's schema.
    pub schema: Vec<u8>,
    /// The referring table.
    pub table: Vec<u8>,
    /// Its columns.
    pub columns: Vec<Vec<u8>>,
    /// The columns they refer to, in the same order.
    pub parent_columns: Vec<Vec<u8>>,
}

/// One table on both sides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TablePair {
    /// As the source has it.
    pub source: Option<TableShape>,
    /// As the target has it.
    pub target: Option<TableShape>,
}

impl TablePair {
    /// The shape on a side.
    pub fn on(&self, side: Side) -> Option<&TableShape> {
        match side {
            Side::Source => self.source.as_ref(),
            Side::Target => self.target.as_ref(),
        }
    }
}

/// Immutable snapshot of all shapes.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// schema → table → shapes; both names folded if `case_insensitive`.
    schemas: HashMap<Vec<u8>, HashMap<Vec<u8>, TablePair>>,
    case_insensitive: bool,
    /// Counter of snapshots read from both sides, changed or not.
    pub generation: u64,
}

impl Catalog {
    /// Knows nothing.
    pub fn empty() -> Catalog {
        Catalog::default()
    }

    /// Knows nothing yet. `case_insensitive`: names compare without case, as
    /// with `lower_case_table_names` above 0.
    pub fn new(case_insensitive: bool) -> Catalog {
        Catalog {
            case_insensitive,
            ..Catalog::default()
        }
    }

    fn fold<'a>(&self, name: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        if self.case_insensitive && name.iter().any(u8::is_ascii_uppercase) {
            name.to_ascii_lowercase().into()
        } else {
            name.into()
        }
    }

    /// Adds or replaces one side's shape of a table.
    pub fn insert(&mut self, db: &[u8], name: &[u8], side: Side, shape: TableShape) {
        let db = self.fold(db).into_owned();
        let name = self.fold(name).into_owned();
        let pair = self.schemas.entry(db).or_default().entry(name).or_default();
        match side {
            Side::Source => pair.source = Some(shape),
            Side::Target => pair.target = Some(shape),
        }
    }

    /// The shapes of a table. Does not allocate unless names must be folded.
    pub fn get(&self, db: &[u8], name: &[u8]) -> Option<&TablePair> {
        self.schemas
            .get(self.fold(db).as_ref())?
            .get(self.fold(name).as_ref())
    }

    /// All tables, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], &TablePair)> {
        self.schemas.iter().flat_map(|(db, tables)| {
            tables
                .iter()
                .map(move |(name, pair)| (db.as_slice(), name.as_slice(), pair))
        })
    }
}
