//! Keys, primary and other.

use super::super::model::{Key, KeyKind, Table};
use super::Way;

/// All keys; those the other server cannot have are left out and noted.
pub fn all(way: &mut Way<'_>, table: &mut Table) {
    if !way.crosses() {
        return;
    }
    let mut kept = Vec::new();
    for mut key in std::mem::take(&mut table.keys) {
        let fine = if way.to.mariadb {
            to_mariadb(way, &mut key)
        } else {
            to_mysql(way, &mut key, table)
        };
        if fine {
            kept.push(key);
        }
    }
    table.keys = kept;
}

fn consequence(key: &Key) -> &'static str {
    match key.kind {
        KeyKind::Unique => "; what it forbids is not forbidden there",
        _ => "",
    }
}

fn to_mariadb(way: &mut Way<'_>, key: &mut Key) -> bool {
    let name = key.name.clone();
    if key.parts.iter().any(|p| p.expression.is_some()) {
        let why = format!(
            "MariaDB has no keys on expressions: left out{}",
            consequence(key)
        );
        way.missing(format!("key {name}"), why);
        return false;
    }
    if way.to.version < (10, 8, 0) && key.parts.iter().any(|p| p.descending) {
        for part in &mut key.parts {
            part.descending = false;
        }
        way.adapted(
            format!("key {name}"),
            "this MariaDB has no descending keys: ascending",
        );
    }
    let before = key.options.len();
    key.options
        .retain(|o| o.starts_with("USING") || o.starts_with("COMMENT"));
    if key.options.len() != before {
        let why = "a parser or attribute of MySQL's own: left out";
        way.adapted(format!("key {name}"), why);
    }
    true
}

fn to_mysql(way: &mut Way<'_>, key: &mut Key, table: &Table) -> bool {
    let part = format!("key {}", key.name);
    if key.parts.iter().any(|p| p.extra.is_some()) {
        let why = format!("MySQL has no WITHOUT OVERLAPS{}", consequence(key));
        way.missing(part, why);
        return false;
    }
    // MariaDB keeps a hash where the columns are too long for a key.
    let hashed = key
        .options
        .iter()
        .any(|o| o.eq_ignore_ascii_case("USING HASH"));
    let memory = table
        .option("ENGINE")
        .is_some_and(|e| e.eq_ignore_ascii_case("MEMORY"));
    if hashed && !memory {
        let why = format!(
            "MySQL has no unique keys on columns too long for an index{}",
            consequence(key)
        );
        way.missing(part, why);
        return false;
    }
    let json = |name: &str| table.column(name).is_some_and(|c| c.base() == "json");
    if key.parts.iter().any(|p| json(&p.column)) {
        way.missing(part, "MySQL has no keys on JSON columns");
        return false;
    }
    let before = key.options.len();
    key.options.retain(|o| {
        o.starts_with("USING") || o.starts_with("COMMENT") || o.starts_with("KEY_BLOCK_SIZE")
    });
    if key.options.len() != before {
        way.adapted(part, "an option of MariaDB's own: left out");
    }
    true
}
