//! Reads one side's table shapes from its information_schema.
//!
//! Six queries per schema whatever the number of its tables, each with the
//! schema's name as a constant, which is what MariaDB needs to open only that
//! schema's tables. The rows of all queries land in one map by table name;
//! what cannot be placed (a table made between two queries) is left out, and
//! a table left out is deferred: the next refresh sees it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::service::{ServiceConn, ServiceError, bytes, text};
use super::shape::{ChildKey, ColumnShape, KeyShape, TableShape};

/// Most tables kept per side. Beyond it shapes are missing and writes deferred.
pub const TABLES_MAX: usize = 20_000;

/// For one information_schema query of one schema.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// Schemas of the server itself: never routed.
const SYSTEM: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// Which tables the routes cover.
pub trait Wanted: Send + Sync {
    /// Whether names compare without case.
    fn fold(&self) -> bool;
    /// Whether some route may cover a table of this schema.
    fn schema(&self, database: &[u8]) -> bool;
    /// Whether a route covers this table.
    fn table(&self, database: &[u8], table: &[u8]) -> bool;
}

/// One side's tables: schema, name, shape.
pub type Tables = Vec<(Vec<u8>, Vec<u8>, TableShape)>;

/// Reads all tables the routes cover.
///
/// # Errors
/// The backend gave no answer; nothing of it is to be used then.
pub async fn side(conn: &mut ServiceConn, wanted: &dyn Wanted) -> Result<Tables, ServiceError> {
    let sql = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA";
    let mut out = Tables::new();
    for row in conn.rows(sql, QUERY_LIMIT).await? {
        let schema = bytes(&row, 0);
        let system = SYSTEM
            .iter()
            .any(|s| schema.eq_ignore_ascii_case(s.as_bytes()));
        if system || !wanted.schema(&schema) {
            continue;
        }
        for (name, shape) in one_schema(conn, &schema, wanted).await? {
            if out.len() >= TABLES_MAX {
                tracing::warn!("more than {TABLES_MAX} routed tables: the rest is deferred");
                return Ok(out);
            }
            out.push((schema.clone(), name, shape));
        }
    }
    Ok(out)
}

type ByName = HashMap<Vec<u8>, TableShape>;

async fn one_schema(
    conn: &mut ServiceConn,
    schema: &[u8],
    wanted: &dyn Wanted,
) -> Result<ByName, ServiceError> {
    let literal = quote(schema);
    let mut tables = ByName::new();
    let sql = format!(
        "SELECT TABLE_NAME, ENGINE, TABLE_TYPE FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = {literal}"
    );
    for row in conn.rows(&sql, QUERY_LIMIT).await? {
        let name = bytes(&row, 0);
        if wanted.table(schema, &name) {
            let kind = text(&row, 2).unwrap_or_default();
            tables.insert(name, table_shape(text(&row, 1).unwrap_or_default(), &kind));
        }
    }
    if tables.is_empty() {
        return Ok(tables);
    }
    columns(conn, &literal, &mut tables).await?;
    let indexes = indexes(conn, &literal, &mut tables).await?;
    references(conn, &literal, schema, &mut tables, &indexes).await?;
    triggers(conn, &literal, &mut tables).await?;
    cascades(conn, &literal, schema, &mut tables).await?;
    Ok(tables)
}

/// A schema's name as a string literal. Quotes are doubled and backslashes
/// too, unless the service account's sql_mode said otherwise, which it never
/// sets; a schema name can hold neither NUL nor more than 64 characters.
fn quote(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    format!("'{}'", name.replace('\\', "\\\\").replace('\'', "''"))
}

/// `kind` is TABLE_TYPE: only `BASE TABLE` has plain row semantics. A sequence
/// changes when read, a system-versioned table records when it was written.
fn table_shape(engine: String, kind: &str) -> TableShape {
    TableShape {
        transactional: engine.eq_ignore_ascii_case("InnoDB") && kind == "BASE TABLE",
        is_view: kind.ends_with("VIEW"),
        engine,
        ..TableShape::default()
    }
}

async fn columns(
    conn: &mut ServiceConn,
    schema: &str,
    tables: &mut ByName,
) -> Result<(), ServiceError> {
    let sql = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, \
         IS_NULLABLE, COLUMN_DEFAULT, EXTRA, GENERATION_EXPRESSION \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} \
         ORDER BY TABLE_NAME, ORDINAL_POSITION"
    );
    for row in conn.rows(&sql, QUERY_LIMIT).await? {
        let Some(table) = tables.get_mut(&bytes(&row, 0)) else {
            continue;
        };
        let extra = text(&row, 7).unwrap_or_default().to_ascii_lowercase();
        let default = text(&row, 6);
        let generated = text(&row, 8).is_some_and(|e| !e.is_empty());
        let nature = default_nature(default.as_deref(), &extra);
        table.time_defaults |= nature.time;
        table.volatile_defaults |= nature.volatile;
        table.generated_columns |= generated;
        if extra.contains("auto_increment") {
            table.auto_increment = Some(table.columns.len());
        }
        table.columns.push(ColumnShape {
            name: bytes(&row, 1),
            column_type: text(&row, 2).unwrap_or_default(),
            charset: text(&row, 3),
            collation: text(&row, 4),
            nullable: text(&row, 5).is_some_and(|n| n.eq_ignore_ascii_case("YES")),
            generated,
            invisible: extra.contains("invisible"),
            auto_updated: extra.contains("on update current_timestamp"),
            default,
        });
    }
    Ok(())
}

/// Adds a column to a list that is kept in order.
fn add(list: &mut Vec<usize>, column: usize) {
    if let Err(place) = list.binary_search(&column) {
        list.insert(place, column);
    }
}

/// Each table's indexes: their names and columns.
type Indexes = HashMap<Vec<u8>, Vec<(Vec<u8>, Vec<usize>)>>;

/// The columns of foreign keys, on both ends, and those that share an index with
/// one: a foreign key is a search by an index. A child in another schema is not
/// looked for (as in [`cascades`]): what it refers to is a unique key but for odd
/// ones.
async fn references(
    conn: &mut ServiceConn,
    schema: &str,
    name: &[u8],
    tables: &mut ByName,
    indexes: &Indexes,
) -> Result<(), ServiceError> {
    let sql = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, \
         REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE \
         WHERE TABLE_SCHEMA = {schema} AND REFERENCED_TABLE_NAME IS NOT NULL"
    );
    for row in conn.rows(&sql, QUERY_LIMIT).await? {
        let mut constrain = |table: usize, column: usize| {
            let name = bytes(&row, table);
            let Some(table) = tables.get_mut(&name) else {
                return;
            };
            let Some(column) = table.column(&bytes(&row, column)) else {
                return;
            };
            add(&mut table.constrained, column);
            for (_, columns) in indexes.get(&name).into_iter().flatten() {
                if columns.contains(&column) {
                    columns.iter().for_each(|c| add(&mut table.constrained, *c));
                }
            }
        };
        constrain(0, 1);
        if bytes(&row, 2).eq_ignore_ascii_case(name) {
            constrain(3, 4);
        }
    }
    Ok(())
}

async fn indexes(
    conn: &mut ServiceConn,
    schema: &str,
    tables: &mut ByName,
) -> Result<Indexes, ServiceError> {
    let sql = format!(
        "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NON_UNIQUE, INDEX_TYPE \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {schema} \
         ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    // A key with an expression or a prefix among its parts ends without
    // columns: equality on columns does not pin its rows.
    let mut partial: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut indexes = Indexes::new();
    for row in conn.rows(&sql, QUERY_LIMIT).await? {
        let (name, index) = (bytes(&row, 0), bytes(&row, 1));
        let Some(table) = tables.get_mut(&name) else {
            continue;
        };
        let column = table.column(&bytes(&row, 2));
        let is_unique = text(&row, 4).as_deref() == Some("0");
        let is_tree = text(&row, 5).is_some_and(|kind| kind.eq_ignore_ascii_case("BTREE"));
        match column {
            Some(column) => {
                let own = indexes.entry(name.clone()).or_default();
                match own.last_mut() {
                    Some((last, columns)) if *last == index => columns.push(column),
                    _ => own.push((index.clone(), vec![column])),
                }
                add(&mut table.indexed, column);
                if is_unique || !is_tree {
                    add(&mut table.constrained, column);
                }
            }
            None => table.expression_index = true,
        }
        if !is_unique {
            continue;
        }
        let column = column.filter(|_| text(&row, 3).is_none());
        let nullable = column
            .and_then(|c| table.columns.get(c))
            .is_none_or(|c| c.nullable);
        if table.unique_keys.last().is_none_or(|k| k.name != index) {
            table.unique_keys.push(KeyShape {
                primary: index == b"PRIMARY",
                name: index.clone(),
                columns: Vec::new(),
                all_not_null: true,
            });
        }
        let Some(key) = table.unique_keys.last_mut() else {
            continue;
        };
        key.all_not_null &= !nullable;
        match column {
            Some(column) => key.columns.push(column),
            None => partial.push((name, index)),
        }
    }
    for (table, index) in partial {
        let keys = tables.get_mut(&table).map(|t| &mut t.unique_keys);
        for key in keys.into_iter().flatten().filter(|k| k.name == index) {
            key.columns.clear();
            key.all_not_null = false;
        }
    }
    Ok(indexes)
}

async fn triggers(
    conn: &mut ServiceConn,
    schema: &str,
    tables: &mut ByName,
) -> Result<(), ServiceError> {
    let sql = format!(
        "SELECT EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS \
         WHERE EVENT_OBJECT_SCHEMA = {schema}"
    );
    for row in conn.rows(&sql, QUERY_LIMIT).await? {
        if let Some(table) = tables.get_mut(&bytes(&row, 0)) {
            table.triggers = table.triggers.saturating_add(1);
        }
    }
    Ok(())
}

/// Children in other schemas are not looked for: that would open every table
/// of the server, and a cascade happens on both sides all the same.
async fn cascades(
    conn: &mut ServiceConn,
    literal: &str,
    schema: &[u8],
    tables: &mut ByName,
) -> Result<(), ServiceError> {
    let sql = format!(
        "SELECT CONSTRAINT_NAME, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME \
         FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = {literal} \
         AND (UPDATE_RULE IN ('CASCADE', 'SET NULL') OR DELETE_RULE IN ('CASCADE', 'SET NULL'))"
    );
    // By constraint and referring table: MariaDB's constraint names are unique
    // within a table only, from version 12 on.
    type Constraint = (Vec<u8>, Vec<u8>);
    let mut keys: BTreeMap<Constraint, (Vec<u8>, ChildKey)> = BTreeMap::new();
    for row in conn.rows(&sql, QUERY_LIMIT).await? {
        let (constraint, table) = (bytes(&row, 0), bytes(&row, 1));
        if bytes(&row, 2).eq_ignore_ascii_case(schema) {
            let key = ChildKey {
                schema: schema.to_vec(),
                table: table.clone(),
                ..ChildKey::default()
            };
            keys.insert((constraint, table), (bytes(&row, 3), key));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT CONSTRAINT_NAME, TABLE_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME \
         FROM information_schema.KEY_COLUMN_USAGE WHERE CONSTRAINT_SCHEMA = {literal} \
         AND TABLE_SCHEMA = {literal} AND REFERENCED_TABLE_NAME IS NOT NULL \
         ORDER BY CONSTRAINT_NAME, TABLE_NAME, ORDINAL_POSITION"
    );
    for row in conn.rows(&sql, QUERY_LIMIT).await? {
        if let Some((_, key)) = keys.get_mut(&(bytes(&row, 0), bytes(&row, 1))) {
            key.columns.push(bytes(&row, 2));
            key.parent_columns.push(bytes(&row, 3));
        }
    }
    for (parent, key) in keys.into_values() {
        if let Some(table) = tables.get_mut(&parent) {
            table.fk_parent_cascades = true;
            table.children.push(key);
        }
    }
    for table in tables.values_mut() {
        table.children.sort();
    }
    Ok(())
}

#[derive(Default, PartialEq, Eq, Debug)]
struct DefaultNature {
    time: bool,
    volatile: bool,
}

/// Functions whose value the statement's timestamp decides.
const TIME_FUNCTIONS: [&str; 12] = [
    "current_timestamp",
    "now",
    "localtime",
    "localtimestamp",
    "curdate",
    "current_date",
    "curtime",
    "current_time",
    "utc_timestamp",
    "utc_date",
    "utc_time",
    "unix_timestamp",
];

/// Words of an expression that are not functions though a parenthesis may
/// follow them.
const OPERATORS: [&str; 9] = [
    "and", "or", "not", "in", "interval", "case", "when", "div", "xor",
];

/// Looks for function calls in a default. MySQL marks expressions with
/// `default_generated` in EXTRA; MariaDB prints literals in quotes. `extra` is
/// in lower case.
fn default_nature(default: Option<&str>, extra: &str) -> DefaultNature {
    let mut nature = DefaultNature {
        time: extra.contains("on update current_timestamp"),
        volatile: false,
    };
    let Some(default) = default else {
        return nature;
    };
    let words = words_outside_quotes(&default.to_ascii_lowercase());
    for (word, called) in &words {
        if TIME_FUNCTIONS.contains(&word.as_str()) {
            nature.time = true;
        } else if (*called && !OPERATORS.contains(&word.as_str()))
            || matches!(
                word.as_str(),
                "current_user" | "nextval" | "lastval" | "value"
            )
        {
            // On MySQL a plain text may look like anything: only what it marks
            // as an expression can call something. MariaDB never marks and
            // always quotes; taking its side when unsure only defers writes.
            nature.volatile = true;
        }
    }
    nature
}

/// The words of an expression outside of quotes, with whether `(` follows.
fn words_outside_quotes(text: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if matches!(c, '\'' | '"' | '`') {
            let mut escaped = false;
            for q in rest.by_ref() {
                if q == c && !escaped {
                    break;
                }
                escaped = q == '\\' && !escaped;
            }
        } else if c.is_ascii_alphabetic() || c == '_' {
            let mut word = String::from(c);
            while let Some(&n) = rest.peek() {
                if !(n.is_ascii_alphanumeric() || matches!(n, '_' | '$')) {
                    break;
                }
                word.push(n);
                rest.next();
            }
            while rest.peek().is_some_and(|n| n.is_whitespace()) {
                rest.next();
            }
            words.push((word, rest.peek() == Some(&'(')));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nature(default: &str, extra: &str) -> (bool, bool) {
        let n = default_nature(Some(default), extra);
        (n.time, n.volatile)
    }

    #[test]
    fn defaults() {
        assert_eq!(nature("current_timestamp()", ""), (true, false));
        assert_eq!(
            nature("CURRENT_TIMESTAMP(6)", "default_generated"),
            (true, false)
        );
        assert_eq!(
            nature("(now() + interval 1 day)", "default_generated"),
            (true, false)
        );
        assert_eq!(nature("uuid()", ""), (false, true));
        assert_eq!(nature("(uuid())", "default_generated"), (false, true));
        assert_eq!(nature("nextval(`a`.`s`)", ""), (false, true));
        assert_eq!(nature("next value for s", ""), (false, true));
        assert_eq!(nature("'uuid() now()'", ""), (false, false));
        assert_eq!(nature("0.00", ""), (false, false));
        assert_eq!(nature("NULL", ""), (false, false));
        assert_eq!(nature("(1 + 2)", "default_generated"), (false, false));
        assert!(default_nature(None, "on update current_timestamp(6)").time);
        assert_eq!(nature("unfinished 'quote", ""), (false, false));
    }

    #[test]
    fn quoting() {
        assert_eq!(quote(b"a'b\\c"), "'a''b\\\\c'");
    }
}
