//! Are two servers' tables equal, row by row? Asked with plain `SELECT`s and
//! answered here; nothing of the product takes part.

use super::proc::block_on;
use super::servers::Server;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};
use std::collections::BTreeMap;
use std::fmt;

/// How many differing rows a report describes.
const EXAMPLES: usize = 5;

/// One table's comparison.
#[derive(Debug)]
pub struct TableDiff {
    pub table: String,
    /// Rows on the source.
    pub rows: usize,
    /// Rows that are on one side only or differ in a column.
    pub different: usize,
    /// The first few of them, described.
    pub examples: Vec<String>,
}

impl fmt::Display for TableDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableDiff {
            table,
            rows,
            different,
            examples,
        } = self;
        write!(f, "{table}: {rows} rows, {different} different")?;
        examples.iter().try_for_each(|e| write!(f, "\n  {e}"))
    }
}

/// Compares `db.table` names. Nobody may be writing meanwhile.
pub fn compare(source: &Server, target: &Server, tables: &[&str]) -> Vec<TableDiff> {
    tables
        .iter()
        .map(|table| compare_table(source, target, table))
        .collect()
}

/// Panics with the first differing rows unless every table is equal; returns
/// the number of rows compared.
pub fn assert_equal(source: &Server, target: &Server, tables: &[&str]) -> usize {
    let diffs = compare(source, target, tables);
    let wrong: Vec<String> = diffs
        .iter()
        .filter(|d| d.different > 0)
        .map(ToString::to_string)
        .collect();
    assert!(
        wrong.is_empty(),
        "source and target differ:\n{}",
        wrong.join("\n")
    );
    diffs.iter().map(|d| d.rows).sum()
}

/// The base tables of a database, as `db.table`.
pub fn tables_of(server: &Server, database: &str) -> Vec<String> {
    let sql = format!(
        "SELECT TABLE_NAME FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = '{database}' AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1"
    );
    server
        .query(&sql)
        .into_iter()
        .flatten()
        .flatten()
        .map(|t| format!("{database}.{t}"))
        .collect()
}

/// The positions, from 0, of the primary key's columns in the table.
pub fn primary_key(server: &Server, table: &str) -> Vec<usize> {
    let (database, name) = split(table);
    let sql = format!(
        "SELECT c.ORDINAL_POSITION FROM information_schema.STATISTICS s \
         JOIN information_schema.COLUMNS c USING (TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME) \
         WHERE s.TABLE_SCHEMA = '{database}' AND s.TABLE_NAME = '{name}' \
         AND s.INDEX_NAME = 'PRIMARY' ORDER BY s.SEQ_IN_INDEX"
    );
    let rows = server.query(&sql);
    let numbers = rows
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|n| n.parse::<usize>().ok());
    numbers.map(|n| n - 1).collect()
}

/// Database and table of a `db.table` name.
pub fn split(table: &str) -> (&str, &str) {
    table
        .split_once('.')
        .unwrap_or_else(|| panic!("{table} is not db.table"))
}

/// Column names in order, each with whether it holds JSON.
fn columns(server: &Server, table: &str) -> Vec<(String, bool)> {
    let (database, name) = split(table);
    let sql = format!(
        "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = '{name}' ORDER BY ORDINAL_POSITION"
    );
    let rows = server.query(&sql).into_iter();
    rows.map(|mut row| {
        let kind = row.pop().flatten().unwrap_or_default();
        (row.pop().flatten().unwrap_or_default(), kind == "json")
    })
    .collect()
}

/// A row as comparable bytes per column; by primary key, or, without one, by
/// the whole row and how often it has occurred.
type Rows = BTreeMap<Vec<Vec<u8>>, Vec<Vec<u8>>>;

fn compare_table(source: &Server, target: &Server, table: &str) -> TableDiff {
    let (ours, theirs) = (columns(source, table), columns(target, table));
    assert!(!ours.is_empty(), "the source has no table {table}");
    // MariaDB keeps JSON as text, so the other side's word counts too.
    let names: Vec<(String, bool)> = ours
        .into_iter()
        .map(|(name, json)| {
            let other = theirs.iter().any(|(n, json)| *n == name && *json);
            (name, json || other)
        })
        .collect();
    let key = primary_key(source, table);
    let left = read(source, table, &names, &key);
    let right = if theirs.is_empty() {
        Rows::new()
    } else {
        read(target, table, &names, &key)
    };

    let mut diff = TableDiff {
        table: table.to_string(),
        rows: left.len(),
        different: 0,
        examples: Vec::new(),
    };
    let only_right = right.keys().filter(|k| !left.contains_key(*k));
    for key in left.keys().chain(only_right) {
        let (l, r) = (left.get(key), right.get(key));
        if l != r {
            diff.different += 1;
            if diff.examples.len() < EXAMPLES {
                diff.examples
                    .push(format!("source {} | target {}", shown(l), shown(r)));
            }
        }
    }
    diff
}

fn read(server: &Server, table: &str, columns: &[(String, bool)], key: &[usize]) -> Rows {
    let (database, name) = split(table);
    let list: Vec<String> = columns.iter().map(|(c, _)| format!("`{c}`")).collect();
    let sql = format!("SELECT {} FROM `{database}`.`{name}`", list.join(", "));
    let rows = block_on(async {
        let mut conn: Conn = server.conn().await;
        conn.query_drop("SET time_zone = '+00:00'")
            .await
            .expect("time zone");
        // Prepared: the binary protocol gives floating point numbers exactly.
        let rows: Result<Vec<Row>, _> = conn.exec(sql.as_str(), Params::Empty).await;
        let _ = conn.disconnect().await;
        rows
    });
    let mut found = Rows::new();
    for row in rows.unwrap_or_else(|e| panic!("{}: {e} at {sql}", server.family())) {
        let values: Vec<Vec<u8>> = row
            .unwrap()
            .iter()
            .zip(columns)
            .map(|(v, (_, json))| canonical(v, *json))
            .collect();
        let mut id: Vec<Vec<u8>> = match key {
            [] => values.clone(),
            key => key.iter().filter_map(|i| values.get(*i).cloned()).collect(),
        };
        if key.is_empty() {
            id.push(Vec::new());
            for n in 0_u64.. {
                *id.last_mut().expect("just pushed") = n.to_be_bytes().to_vec();
                if !found.contains_key(&id) {
                    break;
                }
            }
        }
        let twice = found.insert(id, values);
        assert!(twice.is_none(), "{table}: the key is not unique as read");
    }
    found
}

/// Equal bytes for equal values, whichever family they were read from.
fn canonical(value: &Value, json: bool) -> Vec<u8> {
    match value {
        Value::NULL => b"NULL".to_vec(),
        Value::Bytes(bytes) if json => match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(parsed) => format!("j{parsed}").into_bytes(),
            Err(_) => [b"'", bytes.as_slice()].concat(),
        },
        Value::Bytes(bytes) => [b"'", bytes.as_slice()].concat(),
        Value::Int(n) => n.to_string().into_bytes(),
        Value::UInt(n) => n.to_string().into_bytes(),
        Value::Float(n) => format!("{n:e}").into_bytes(),
        Value::Double(n) => format!("{n:e}").into_bytes(),
        temporal => temporal.as_sql(true).into_bytes(),
    }
}

fn shown(row: Option<&Vec<Vec<u8>>>) -> String {
    let Some(row) = row else {
        return "(absent)".to_string();
    };
    let values: Vec<String> = row
        .iter()
        .map(|v| v.escape_ascii().to_string().chars().take(60).collect())
        .collect();
    format!("({})", values.join(", "))
}
