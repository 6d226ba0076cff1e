//! What the follower is to do with a table's rows and with statements.

use std::sync::Arc;

use crate::Side;
use crate::rows::shape::{Catalog, TableShape};
use crate::sql::{Class, ScanMode, Verb, scan};

use super::batch::{Key, TableName};

/// A table that is followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// As the side that is read has it.
    pub shape: Arc<TableShape>,
    /// As the side that is written has it, where that is known.
    pub other: Option<Arc<TableShape>>,
    /// Its identity.
    pub key: Key,
    /// Which columns are unsigned.
    pub unsigned: Vec<bool>,
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
    /// Write them.
    Follow(Arc<Followed>),
    /// Cannot go on, with the reason.
    Stop(&'static str),
}

/// Knows the tables.
pub trait Tables: Send + Sync {
    /// What rows of a table mean.
    fn meaning(&self, table: &TableName) -> Meaning;
    /// None: the statement does not matter. Otherwise why the follower cannot
    /// go on.
    fn statement(&self, sql: &[u8], schema: Option<&[u8]>) -> Option<String>;
}

/// Tables by a catalog snapshot and a test of names.
pub struct CatalogTables<F> {
    catalog: Arc<Catalog>,
    /// The side that is read.
    side: Side,
    /// Whether a table (schema, name) is followed.
    covers: F,
    cache: parking_lot::RwLock<std::collections::HashMap<TableName, Meaning>>,
}

/// A name without its quotes. One with quotes inside is not matched; the
/// scanner's tables are.
fn unquoted(name: &[u8]) -> &[u8] {
    let inner = name.strip_prefix(b"`").and_then(|n| n.strip_suffix(b"`"));
    inner.unwrap_or(name)
}

/// Tables whose meaning is remembered; beyond it each is looked up anew.
const CACHE_MAX: usize = 20_000;

impl<F: Fn(&[u8], &[u8]) -> bool + Send + Sync> CatalogTables<F> {
    /// Tables of `catalog` as `side` has them.
    pub fn new(catalog: Arc<Catalog>, side: Side, covers: F) -> CatalogTables<F> {
        CatalogTables {
            catalog,
            side,
            covers,
            cache: parking_lot::RwLock::default(),
        }
    }

    fn has_tables_in(&self, schema: &[u8]) -> bool {
        let mut all = self.catalog.iter();
        all.any(|(db, table, _)| db == schema && (self.covers)(db, table))
    }

    fn look(&self, name: &TableName) -> Meaning {
        if name.schema == b"lockstep" {
            return match &name.table[..] {
                b"mark" => Meaning::Mark,
                b"beat" => Meaning::Beat,
                _ => Meaning::Skip,
            };
        }
        if !(self.covers)(&name.schema, &name.table) {
            return Meaning::Skip;
        }
        let pair = self.catalog.get(&name.schema, &name.table);
        let Some(shape) = pair.and_then(|p| p.on(self.side)) else {
            return Meaning::Stop("its definition is not known");
        };
        let Some(key) = Key::of(shape) else {
            return Meaning::Stop("it has no primary or unique key without NULL");
        };
        Meaning::Follow(Arc::new(Followed {
            unsigned: shape
                .columns
                .iter()
                .map(|c| c.column_type.contains("unsigned"))
                .collect(),
            shape: Arc::new(shape.clone()),
            other: pair
                .and_then(|p| p.on(self.side.other()))
                .map(|s| Arc::new(s.clone())),
            key,
        }))
    }
}

impl<F: Fn(&[u8], &[u8]) -> bool + Send + Sync> Tables for CatalogTables<F> {
    fn meaning(&self, table: &TableName) -> Meaning {
        if let Some(known) = self.cache.read().get(table) {
            return known.clone();
        }
        let meaning = self.look(table);
        let mut cache = self.cache.write();
        if cache.len() < CACHE_MAX {
            cache.insert(table.clone(), meaning.clone());
        }
        meaning
    }

    fn statement(&self, sql: &[u8], schema: Option<&[u8]>) -> Option<String> {
        let facts = scan(sql, ScanMode::default());
        let kind = match facts.class {
            Class::Write => "a write logged as text (binlog_format is not ROW)",
            Class::Ddl | Class::Unknown => "a change of a definition",
            Class::Admin if facts.verb == Verb::Truncate => "TRUNCATE",
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
            return Some(format!("{kind}: {table}"));
        }
        let database = facts.database.map(|d| unquoted(d.of(sql)));
        if facts.class == Class::Ddl
            && let Some(database) = database
            && self.has_tables_in(database)
        {
            let name = String::from_utf8_lossy(database);
            return Some(format!("{kind}: the schema {name}"));
        }
        // Names that could not be followed might be ours.
        let unclear = facts.tables.overflow || facts.class == Class::Unknown;
        unclear.then(|| format!("{kind} that cannot be read"))
    }
}
