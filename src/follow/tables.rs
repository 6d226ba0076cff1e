//! What the follower is to do with a table's rows and with statements.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Side;
use crate::binlog::TableMap;
use crate::binlog::event::Query;
use crate::binlog::table_map::ColumnType;
use crate::rows::shape::{Catalog, ColumnShape, TableShape};
use crate::sql::{Class, ScanMode, Verb, scan};

use tokio::sync::watch;

use super::batch::{Key, TableName};

/// A table that is followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// As the side that is read has it.
    pub shape: Arc<TableShape>,
    /// As the side that is written has it, where that is known.
    pub other: Option<Arc<TableShape>>,
    /// Its identity; without columns in [`Meaning::Keyless`].
    pub key: Key,
    /// Which columns are unsigned.
    pub unsigned: Vec<bool>,
    /// Deletes and changed keys reach further tables by foreign keys, and the
    /// log does not show their rows: the side that is written must do the
    /// same.
    pub cascades: bool,
    stored: Vec<Stored>,
}

/// How a column's values are stored in images, as far as the definition tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stored {
    Integer(u8),
    Float,
    Double,
    Decimal,
    Year,
    Date,
    Time,
    DateTime,
    Timestamp,
    Bit,
    Enum,
    Set,
    Json,
    Bytes,
}

impl Stored {
    fn of(column: &ColumnShape) -> Stored {
        match column.type_name() {
            "tinyint" => Stored::Integer(1),
            "smallint" => Stored::Integer(2),
            "mediumint" => Stored::Integer(3),
            "int" => Stored::Integer(4),
            "bigint" => Stored::Integer(8),
            "float" => Stored::Float,
            "double" => Stored::Double,
            "decimal" => Stored::Decimal,
            "year" => Stored::Year,
            "date" => Stored::Date,
            "time" => Stored::Time,
            "datetime" => Stored::DateTime,
            "timestamp" => Stored::Timestamp,
            "bit" => Stored::Bit,
            "enum" => Stored::Enum,
            "set" => Stored::Set,
            "json" => Stored::Json,
            _ => Stored::Bytes,
        }
    }

    /// None: its values cannot be read anyway.
    fn logged(kind: ColumnType) -> Option<Stored> {
        Some(match kind {
            ColumnType::Integer { bytes } => Stored::Integer(bytes),
            ColumnType::Float => Stored::Float,
            ColumnType::Double => Stored::Double,
            ColumnType::Decimal { .. } => Stored::Decimal,
            ColumnType::Year => Stored::Year,
            ColumnType::Date => Stored::Date,
            ColumnType::Time { .. } | ColumnType::OldTime => Stored::Time,
            ColumnType::DateTime { .. } | ColumnType::OldDateTime => Stored::DateTime,
            ColumnType::Timestamp { .. } | ColumnType::OldTimestamp => Stored::Timestamp,
            ColumnType::Bit { .. } => Stored::Bit,
            ColumnType::Enum { .. } => Stored::Enum,
            ColumnType::Set { .. } => Stored::Set,
            ColumnType::Json { .. } => Stored::Json,
            ColumnType::Text { .. } => Stored::Bytes,
            ColumnType::Unreadable { .. } => return None,
        })
    }
}

impl Followed {
    /// A table as the side that is read has it, and as the other has it. Its
    /// children do not follow it unseen ([`Followed::cascades`]).
    pub fn new(shape: Arc<TableShape>, other: Option<Arc<TableShape>>, key: Key) -> Followed {
        let columns = &shape.columns;
        let unsigned = columns.iter().map(|c| c.column_type.contains("unsigned"));
        Followed {
            unsigned: unsigned.collect(),
            stored: columns.iter().map(Stored::of).collect(),
            cascades: false,
            other,
            shape,
            key,
        }
    }

    /// What shows that the table's definition was another one when these rows
    /// were logged; None if they fit. The log says nothing of columns' names
    /// unless `binlog_row_metadata` is FULL.
    pub fn misfit(&self, map: &TableMap) -> Option<String> {
        if map.columns.len() != self.stored.len() {
            return Some(format!(
                "it has {} columns in the log and {} now: its definition changed",
                map.columns.len(),
                self.stored.len()
            ));
        }
        let mut pairs = map.columns.iter().zip(&self.stored);
        let typed = pairs.position(|(logged, stored)| {
            Stored::logged(logged.kind).is_some_and(|logged| logged != *stored)
        });
        let named = map.names.as_ref().and_then(|names| {
            let mut pairs = names.iter().zip(&self.shape.columns);
            pairs.position(|(logged, column)| !logged.eq_ignore_ascii_case(&column.name))
        });
        let at = typed.or(named)?;
        let name = self.shape.columns.get(at).map_or(&b""[..], |c| &c.name);
        Some(format!(
            "column {} ({}) is another one in the log than now: its definition changed",
            at + 1,
            String::from_utf8_lossy(name)
        ))
    }
}

/// A statement of the log that changes definitions of followed tables.
#[derive(Clone, Copy, Debug)]
pub struct Ddl<'a> {
    /// The text.
    pub query: &'a Query,
    /// What it is and which table it names, for people.
    pub what: &'a str,
}

/// What is to be done about a [`Ddl`].
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The follower stops before it and says so.
    Stop,
    /// The other side has it too: go on. Rows behind it in the log have the
    /// shapes of this catalog, where one is given.
    Pass(Option<Arc<Catalog>>),
}

/// Knows which changes of definitions both sides have been brought to. A
/// follower that stopped at one meets it again when it is started again.
///
/// A catalog must not be newer than the place in the log it is handed in at
/// where columns were exchanged for others of the same type in between: the
/// rows there would go to other columns. Rows that do not fit otherwise stop
/// the follower.
pub trait Definitions: Send + Sync {
    /// Decides, without waiting.
    fn changed(&self, ddl: Ddl<'_>) -> Verdict;

    /// Asked before [`Definitions::changed`], which comes once this is true:
    /// whoever brings both sides to the same shape may be about it.
    fn under_way(&self, _: Ddl<'_>) -> Option<watch::Receiver<bool>> {
        None
    }
}

/// Every change stops.
struct StopAtEach;

impl Definitions for StopAtEach {
    fn changed(&self, _: Ddl<'_>) -> Verdict {
        Verdict::Stop
    }
}

/// What a table's rows mean.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// Not ours.
    Skip,
    /// `lockstep.mark`: the transaction is our own writing.
    Mark,
    /// `lockstep.beat`: a heartbeat.
    Beat,
    /// A copier's watermark.
    Watermark,
    /// Write them.
    Follow(Arc<Followed>),
    /// No columns identify a row: write them one by one in the log's order,
    /// exactly once, each found by all of its values.
    Keyless(Arc<Followed>),
    /// Cannot go on, with the reason.
    Stop(&'static str),
}

/// What a statement of the log means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It does not matter.
    Nothing,
    /// It changed definitions on both sides.
    Changed,
    /// Cannot go on, with the reason.
    Stop(String),
}

/// Knows the tables.
pub trait Tables: Send + Sync {
    /// What rows of a table mean.
    fn meaning(&self, table: &TableName) -> Meaning;
    /// Whether a followed table is known not to be there any more.
    fn is_gone(&self, _: &TableName) -> bool {
        false
    }
    /// What a statement means.
    fn statement(&self, query: &Query) -> Said;
    /// Of a statement that changes definitions: true once its meaning can be
    /// asked for. All before it is to be written first, in the old shapes.
    fn under_way(&self, _: &Query) -> Option<watch::Receiver<bool>> {
        None
    }
}

#[derive(Default)]
struct Known {
    catalog: Arc<Catalog>,
    meanings: HashMap<TableName, Meaning>,
}

/// Tables by a catalog snapshot and a test of names.
pub struct CatalogTables<F> {
    /// The side that is read.
    side: Side,
    /// Whether a table (schema, name) is followed.
    covers: F,
    definitions: Arc<dyn Definitions>,
    cascades_logged: bool,
    /// Snapshot and what was made of it change together.
    known: parking_lot::RwLock<Known>,
}

/// A name without its quotes. One with quotes inside is not matched; the
/// scanner's tables are.
fn unquoted(name: &[u8]) -> &[u8] {
    let inner = name.strip_prefix(b"`").and_then(|n| n.strip_suffix(b"`"));
    inner.unwrap_or(name)
}

/// [`Verb::is_of_triggers`] of a statement in the log.
pub fn is_of_triggers(query: &Query) -> bool {
    scan(&query.sql, ScanMode::default()).verb.is_of_triggers()
}

/// No definition is changed in fewer bytes; BEGIN and COMMIT are not looked at
/// twice.
const DDL_MIN: usize = "DROP TABLE a".len();

/// Tables whose meaning is remembered; beyond it each is looked up anew.
const CACHE_MAX: usize = 20_000;

/// Why a followed table with triggers on the side that is written stops.
const TRIGGERS: &str = "it has triggers on the side that is written: they would run again for rows \
     that are their effect already (hold them back there until that side is active)";

/// Why a parent whose children follow it on one side only stops.
const CHILDREN: &str = "a foreign key that changes rows of another table by itself is not on both \
     sides, and the side that is read does not log such rows";

impl<F: Fn(&[u8], &[u8]) -> bool + Send + Sync> CatalogTables<F> {
    /// Tables of `catalog` as `side` has them.
    pub fn new(catalog: Arc<Catalog>, side: Side, covers: F) -> CatalogTables<F> {
        let known = Known {
            catalog,
            ..Known::default()
        };
        CatalogTables {
            side,
            covers,
            definitions: Arc::new(StopAtEach),
            cascades_logged: false,
            known: parking_lot::RwLock::new(known),
        }
    }

    /// Who decides about changed definitions; without it each one stops.
    #[must_use]
    pub fn with_definitions(mut self, definitions: Arc<dyn Definitions>) -> CatalogTables<F> {
        self.definitions = definitions;
        self
    }

    /// Whether the side that is read logs the rows that foreign keys change.
    /// Not known is not logged: right on both, and slower.
    #[must_use]
    pub fn with_cascades_logged(mut self, logged: bool) -> CatalogTables<F> {
        self.cascades_logged = logged;
        self
    }

    /// Goes on with another snapshot, the follower running or not.
    pub fn update(&self, catalog: Arc<Catalog>) {
        *self.known.write() = Known {
            catalog,
            ..Known::default()
        };
    }

    fn has_tables_in(&self, schema: &[u8]) -> bool {
        let known = self.known.read();
        let mut all = known.catalog.iter();
        all.any(|(db, table, _)| db == schema && (self.covers)(db, table))
    }

    fn look(&self, catalog: &Catalog, name: &TableName) -> Meaning {
        if name.schema == b"lockstep" {
            return match &name.table[..] {
                b"mark" => Meaning::Mark,
                b"beat" => Meaning::Beat,
                b"watermark" => Meaning::Watermark,
                _ => Meaning::Skip,
            };
        }
        if !(self.covers)(&name.schema, &name.table) {
            return Meaning::Skip;
        }
        let pair = catalog.get(&name.schema, &name.table);
        let Some((pair, shape)) = pair.and_then(|p| Some((p, p.on(self.side)?))) else {
            return Meaning::Stop("its definition is not known");
        };
        if pair.on(self.side.other()).is_some_and(|s| s.triggers > 0) {
            return Meaning::Stop(TRIGGERS);
        }
        let cascades = shape.fk_parent_cascades && !self.cascades_logged;
        let other = pair.on(self.side.other());
        let same = |o: &TableShape| shape.children.iter().all(|c| o.children.contains(c));
        if cascades && !other.is_some_and(same) {
            return Meaning::Stop(CHILDREN);
        }
        let key = Key::of(shape);
        let keyless = key.is_none();
        let key = key.unwrap_or(Key {
            columns: Vec::new(),
            bytewise: false,
        });
        let other = other.map(|s| Arc::new(s.clone()));
        let mut followed = Followed::new(Arc::new(shape.clone()), other, key);
        followed.cascades = cascades;
        if keyless {
            Meaning::Keyless(Arc::new(followed))
        } else {
            Meaning::Follow(Arc::new(followed))
        }
    }

    /// What a statement does to followed tables; None: nothing.
    fn affects(&self, query: &Query) -> Option<(Class, String)> {
        let sql = &query.sql;
        let schema = (!query.schema.is_empty()).then_some(&query.schema[..]);
        let mode = ScanMode {
            ansi_quotes: query.context.ansi_quotes(),
            no_backslash_escapes: query.context.no_backslash_escapes(),
            ..ScanMode::default()
        };
        let facts = scan(sql, mode);
        let (class, kind) = match facts.class {
            Class::Write => (
                Class::Write,
                "a write logged as text (binlog_format is not ROW)",
            ),
            Class::Ddl | Class::Unknown => (facts.class, "a change of a definition"),
            Class::Admin if facts.verb == Verb::Truncate => (Class::Ddl, "TRUNCATE"),
            _ => return None,
        };
        let named = facts.tables.iter(sql).find_map(|(db, name)| {
            let db = db.as_deref().or(schema)?;
            let shown = || {
                format!(
                    "{}.{}",
                    String::from_utf8_lossy(db),
                    String::from_utf8_lossy(&name)
                )
            };
            (self.covers)(db, &name).then(shown)
        });
        if let Some(table) = named {
            return Some((class, format!("{kind}: {table}")));
        }
        let mut database = facts.database.map(|d| unquoted(d.of(sql)));
        if facts.verb == Verb::DropTrigger {
            // It does not name its table.
            database = database.or(schema);
        }
        if facts.class == Class::Ddl
            && let Some(database) = database
            && self.has_tables_in(database)
        {
            let name = String::from_utf8_lossy(database);
            return Some((class, format!("{kind}: the schema {name}")));
        }
        // Names that could not be followed might be ours.
        let unclear = facts.tables.overflow || facts.class == Class::Unknown;
        unclear.then(|| (facts.class, format!("{kind} that cannot be read")))
    }
}

impl<F: Fn(&[u8], &[u8]) -> bool + Send + Sync> Tables for CatalogTables<F> {
    fn meaning(&self, table: &TableName) -> Meaning {
        if let Some(meaning) = self.known.read().meanings.get(table) {
            return meaning.clone();
        }
        let mut known = self.known.write();
        let meaning = self.look(&known.catalog, table);
        if known.meanings.len() < CACHE_MAX {
            known.meanings.insert(table.clone(), meaning.clone());
        }
        meaning
    }

    fn is_gone(&self, table: &TableName) -> bool {
        let known = self.known.read();
        let pair = known.catalog.get(&table.schema, &table.table);
        known.catalog.generation > 0 && pair.is_none_or(|p| p.on(self.side).is_none())
    }

    fn under_way(&self, query: &Query) -> Option<watch::Receiver<bool>> {
        if query.sql.len() < DDL_MIN {
            return None;
        }
        let (class, what) = self.affects(query)?;
        let ddl = Ddl { query, what: &what };
        (class == Class::Ddl).then(|| self.definitions.under_way(ddl))?
    }

    fn statement(&self, query: &Query) -> Said {
        let Some((class, what)) = self.affects(query) else {
            return Said::Nothing;
        };
        // Rows that were written as text are nowhere else.
        if class != Class::Ddl {
            return Said::Stop(what);
        }
        let ddl = Ddl { query, what: &what };
        match self.definitions.changed(ddl) {
            Verdict::Stop => Said::Stop(what),
            Verdict::Pass(catalog) => {
                if let Some(catalog) = catalog {
                    self.update(catalog);
                }
                Said::Changed
            }
        }
    }
}
