//! Compares the two sides' shapes of tables.

use crate::Side;
use crate::follow::batch::TableName;
use crate::rows::shape::{Catalog, ColumnShape, TablePair, TableShape};
use crate::schema::collations::may_stand_for;

use super::few::few;

/// The tables among those covered that `active` has, and what differs between
/// the sides.
pub fn compare(
    covers: impl Fn(&[u8], &[u8]) -> bool,
    active: Side,
    catalog: &Catalog,
) -> (usize, Vec<String>) {
    let mut tables = 0;
    let mut differing = Vec::new();
    for (database, name, pair) in catalog.iter() {
        if !covers(database, name) {
            continue;
        }
        if pair.on(active).is_some() {
            tables += 1;
        }
        let what = match (&pair.source, &pair.target) {
            (Some(_), None) => Some("only the source has it".to_owned()),
            (None, Some(_)) => Some("only the target has it".to_owned()),
            (Some(source), Some(target)) => difference(source, target),
            (None, None) => None,
        };
        if let Some(what) = what {
            differing.push(format!("{}: {what}", full_name(database, name)));
        }
    }
    differing.sort();
    (tables, few(differing))
}

/// The covered tables that a side has, without views.
pub fn tables(
    covers: impl Fn(&[u8], &[u8]) -> bool,
    side: Side,
    catalog: &Catalog,
) -> Vec<TableName> {
    let has_rows = |pair: &TablePair| pair.on(side).is_some_and(|s| !s.is_view);
    let covered = catalog
        .iter()
        .filter(|(db, t, pair)| covers(db, t) && has_rows(pair));
    let named = covered.map(|(db, table, _)| TableName {
        schema: db.to_vec(),
        table: table.to_vec(),
    });
    named.collect()
}

/// Covered tables that the other side has and `side` has not.
pub fn missing_on(
    covers: impl Fn(&[u8], &[u8]) -> bool,
    side: Side,
    catalog: &Catalog,
) -> Vec<String> {
    let mut missing: Vec<String> = catalog
        .iter()
        .filter(|(database, name, pair)| {
            covers(database, name) && pair.on(side).is_none() && pair.on(side.other()).is_some()
        })
        .map(|(database, name, _)| full_name(database, name))
        .collect();
    missing.sort();
    few(missing)
}

fn full_name(database: &[u8], name: &[u8]) -> String {
    format!(
        "{}.{}",
        String::from_utf8_lossy(database),
        String::from_utf8_lossy(name)
    )
}

fn difference(source: &TableShape, target: &TableShape) -> Option<String> {
    if source.is_view != target.is_view {
        return Some("a view on one side only".to_owned());
    }
    if source.transactional != target.transactional {
        return Some(format!("engine {} / {}", source.engine, target.engine));
    }
    if source.columns.len() != target.columns.len() {
        let (s, t) = (source.columns.len(), target.columns.len());
        return Some(format!("{s} columns on the source, {t} on the target"));
    }
    for (s, t) in source.columns.iter().zip(&target.columns) {
        if let Some(what) = column_difference(s, t) {
            return Some(format!(
                "column {}: {what}",
                String::from_utf8_lossy(&s.name)
            ));
        }
    }
    if source.auto_increment != target.auto_increment {
        return Some("AUTO_INCREMENT differs".to_owned());
    }
    let keys = |shape: &TableShape| {
        let mut keys: Vec<(Vec<usize>, bool)> = shape
            .unique_keys
            .iter()
            .map(|k| (k.columns.clone(), k.primary))
            .collect();
        keys.sort();
        keys
    };
    (keys(source) != keys(target)).then(|| "unique keys differ".to_owned())
}

fn column_difference(s: &ColumnShape, t: &ColumnShape) -> Option<String> {
    if !s.name.eq_ignore_ascii_case(&t.name) {
        return Some("another name or place".to_owned());
    }
    let (a, b) = (canonical(&s.column_type), canonical(&t.column_type));
    if a != b {
        return Some(format!("{} / {}", s.column_type, t.column_type));
    }
    if s.nullable != t.nullable {
        return Some("NULL allowed on one side only".to_owned());
    }
    if s.generated != t.generated {
        return Some("generated on one side only".to_owned());
    }
    // JSON has a fixed charset on one family and none on the other.
    if a == JSON {
        return None;
    }
    if charset(s.charset.as_deref()) != charset(t.charset.as_deref()) {
        return Some("character sets differ".to_owned());
    }
    match (
        charset(s.collation.as_deref()),
        charset(t.collation.as_deref()),
    ) {
        (s, t) if s == t => None,
        (Some(s), Some(t)) if may_stand_for(&s, &t) => None,
        _ => Some("collations differ".to_owned()),
    }
}

/// What both families' JSON becomes: MariaDB's is a LONGTEXT.
const JSON: &str = "longtext";

/// A type as both families would print it: no display width (MySQL 8 dropped
/// it), JSON as what MariaDB stores.
fn canonical(column_type: &str) -> String {
    let lower = column_type.to_ascii_lowercase();
    const WIDTHS: [&str; 6] = ["tinyint", "smallint", "mediumint", "int", "bigint", "year"];
    if lower == "json" {
        return JSON.to_owned();
    }
    let Some((head, rest)) = lower.split_once('(') else {
        return lower;
    };
    match rest.split_once(')') {
        Some((_, tail)) if WIDTHS.contains(&head) => format!("{head}{tail}"),
        _ => lower,
    }
}

/// `utf8` is `utf8mb3` by its older name, in collations too.
fn charset(name: Option<&str>) -> Option<String> {
    name.map(|n| match n.strip_prefix("utf8") {
        Some(rest) if rest.is_empty() || rest.starts_with('_') => format!("utf8mb3{rest}"),
        _ => n.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_print_types_differently() {
        assert_eq!(canonical("int(11) unsigned"), canonical("int unsigned"));
        assert_eq!(canonical("tinyint(1)"), "tinyint");
        assert_eq!(canonical("json"), canonical("longtext"));
        assert_ne!(canonical("varchar(10)"), canonical("varchar(20)"));
        assert_eq!(canonical("enum('(a)')"), "enum('(a)')");
        assert_eq!(charset(Some("utf8")), charset(Some("utf8mb3")));
        assert_eq!(charset(Some("utf8_bin")), charset(Some("utf8mb3_bin")));
        assert_ne!(charset(Some("utf8mb4_bin")), charset(Some("utf8mb3_bin")));
    }

    #[test]
    fn differences() {
        let column = |t: &str| ColumnShape {
            name: b"id".to_vec(),
            column_type: t.to_owned(),
            ..ColumnShape::default()
        };
        let shape = |t: &str| TableShape {
            transactional: true,
            columns: vec![column(t)],
            ..TableShape::default()
        };
        assert_eq!(difference(&shape("int(11)"), &shape("int")), None);
        assert!(difference(&shape("int"), &shape("bigint")).is_some());
        let mut more = shape("int");
        more.columns.push(column("int"));
        assert!(difference(&shape("int"), &more).is_some());
    }
}
