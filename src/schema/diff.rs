//! What differs between two definitions, and which keys can wait.

use std::collections::HashMap;

use super::SchemaError;
use super::model::{Column, Foreign, Key, KeyKind, Part, Table};
use super::notes::Object;
use super::session::{Refused, Session};
use super::source::{self, Collations, Inventory};
use super::tokens::{Kind, literal_value, tokens};

/// Why a key or a constraint that is not there differs.
pub const MISSING: &str = "missing";

/// Why a key differs that is there by its name.
pub const OTHER: &str = "of other columns or of another kind";

/// The differences of a table from what it should be, as (part, why).
/// `same_family`: both texts were printed alike, so expressions can be compared.
pub fn tables(wanted: &Table, has: &Table, same_family: bool) -> Vec<(String, String)> {
    let (wanted, has) = (&outspoken(wanted), &outspoken(has));
    let mut out = Vec::new();
    let order =
        |t: &Table| -> Vec<String> { t.columns.iter().map(|c| c.name.to_lowercase()).collect() };
    for column in &wanted.columns {
        match has.column(&column.name) {
            None => out.push((column.name.clone(), "the column is missing".to_owned())),
            Some(other) => {
                if let Some(why) = columns(column, other, same_family) {
                    out.push((column.name.clone(), why));
                }
            }
        }
    }
    for column in &has.columns {
        if wanted.column(&column.name).is_none() {
            out.push((
                column.name.clone(),
                "a column that the source has not".to_owned(),
            ));
        }
    }
    if out.is_empty() && order(wanted) != order(has) {
        out.push(("columns".to_owned(), "in another order".to_owned()));
    }
    for key in &wanted.keys {
        if let Some(why) = missing_key(key, has) {
            out.push((title(key), why));
        }
    }
    for key in &has.keys {
        let unique = matches!(key.kind, KeyKind::Unique | KeyKind::Primary);
        if unique && missing_key(key, wanted).is_some() {
            out.push((
                title(key),
                "a unique key that the source has not".to_owned(),
            ));
        }
    }
    for foreign in &wanted.foreign {
        if !has.foreign.iter().any(|f| same_foreign(f, foreign)) {
            out.push((format!("foreign key {}", foreign.name), MISSING.to_owned()));
        }
    }
    if wanted.partition.is_some() != has.partition.is_some() {
        let why = "partitioned on one side only".to_owned();
        out.push(("partitions".to_owned(), why));
    }
    out
}

/// The table with the collation of each text column, said or not.
fn outspoken(table: &Table) -> Table {
    const TEXT: [&str; 8] = [
        "char",
        "varchar",
        "tinytext",
        "text",
        "mediumtext",
        "longtext",
        "enum",
        "set",
    ];
    let mut table = table.clone();
    let default = table.option("COLLATE").map(str::to_owned);
    for column in &mut table.columns {
        if column.collation.is_none() && TEXT.contains(&column.base().as_str()) {
            column.collation.clone_from(&default);
        }
    }
    table
}

/// As operators read it.
pub fn title(key: &Key) -> String {
    match key.kind {
        KeyKind::Primary => "primary key".to_owned(),
        _ => format!("key {}", key.name),
    }
}

/// Why a key is not there as it should be.
pub fn missing_key(key: &Key, has: &Table) -> Option<String> {
    let other = has.keys.iter().find(|k| {
        k.name.eq_ignore_ascii_case(&key.name)
            && (k.kind == KeyKind::Primary) == (key.kind == KeyKind::Primary)
    });
    let Some(other) = other else {
        return Some(MISSING.to_owned());
    };
    let plain = |p: &Part| {
        (
            p.column.to_lowercase(),
            p.prefix.clone(),
            p.descending,
            p.expression.is_some(),
        )
    };
    let parts = |k: &Key| k.parts.iter().map(plain).collect::<Vec<_>>();
    (other.kind != key.kind || parts(other) != parts(key)).then(|| OTHER.to_owned())
}

/// Whether two are the same, whatever they are called.
pub(super) fn same_foreign(a: &Foreign, b: &Foreign) -> bool {
    let rules = |f: &Foreign| {
        let plain = f.rules.to_uppercase();
        // RESTRICT and NO ACTION are one, and what is meant where nothing is said.
        let kept = plain
            .replace("ON DELETE RESTRICT", "")
            .replace("ON UPDATE RESTRICT", "");
        let kept = kept
            .replace("ON DELETE NO ACTION", "")
            .replace("ON UPDATE NO ACTION", "");
        kept.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let fold = |l: &[String]| l.iter().map(|n| n.to_lowercase()).collect::<Vec<_>>();
    fold(&a.columns) == fold(&b.columns)
        && fold(&a.parents) == fold(&b.parents)
        && a.table.eq_ignore_ascii_case(&b.table)
        && rules(a) == rules(b)
}

fn columns(wanted: &Column, has: &Column, same_family: bool) -> Option<String> {
    let (a, b) = (plain_type(wanted), plain_type(has));
    if a != b {
        return Some(format!("its type is {b}, not {a}"));
    }
    let unalike = |a: &Option<String>, b: &Option<String>| {
        a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| a != b)
    };
    if unalike(&wanted.collation, &has.collation) {
        return Some(format!(
            "its collation is {}, not {}",
            has.collation.as_deref().unwrap_or_default(),
            wanted.collation.as_deref().unwrap_or_default()
        ));
    }
    let not_null = |c: &Column| c.null == Some(false) && c.generated.is_none();
    if not_null(wanted) != not_null(has) {
        return Some("NULL is allowed on one side only".to_owned());
    }
    let kept = |c: &Column| c.generated.as_ref().map(|g| g.stored);
    if kept(wanted) != kept(has) {
        return Some("generated in another way".to_owned());
    }
    if same_family && wanted.generated != has.generated {
        return Some("generated by another expression".to_owned());
    }
    if wanted.auto_increment != has.auto_increment {
        return Some("AUTO_INCREMENT on one side only".to_owned());
    }
    if wanted.invisible != has.invisible {
        return Some("INVISIBLE on one side only".to_owned());
    }
    let literals = (plain_default(wanted), plain_default(has));
    match literals {
        (Ok(a), Ok(b)) if a != b => Some("its default is another".to_owned()),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => Some("its default is another".to_owned()),
        (Err(a), Err(b)) if same_family && a != b => {
            Some("its default is another expression".to_owned())
        }
        _ => None,
    }
}

/// A type without what only shows: widths of integers, `year(4)`, names that
/// mean the same.
pub fn plain_type(column: &Column) -> String {
    const INTEGERS: [&str; 5] = ["tinyint", "smallint", "mediumint", "int", "bigint"];
    let base = column.base();
    // `json` of MariaDB is printed as text.
    let kind = column.kind.to_lowercase();
    if base == "json" {
        return "json or longtext".to_owned();
    }
    if base == "longtext" && column.collation.as_deref() == Some("utf8mb4_bin") {
        return "json or longtext".to_owned();
    }
    if base == "year" {
        return base;
    }
    if base == "geomcollection" {
        return "geometrycollection".to_owned();
    }
    if INTEGERS.contains(&base.as_str())
        && let Some((head, rest)) = kind.split_once('(')
    {
        let after = rest.split_once(')').map_or("", |(_, r)| r);
        // Zero-filled ones are as wide as they say.
        if !after.contains("zerofill") {
            return format!("{head}{after}");
        }
    }
    // ENUM and SET by their values, whatever case their word is in.
    if matches!(base.as_str(), "enum" | "set") {
        let rest = column.kind.get(base.len()..).unwrap_or_default();
        let values: Vec<String> = tokens(rest)
            .iter()
            .filter(|t| t.kind == Kind::Text)
            .map(|t| literal_value(t.text))
            .collect();
        return format!("{base}{values:?}");
    }
    kind.replace(", ", ",")
}

/// A default that is a literal, by its value; an expression as it is printed.
fn plain_default(column: &Column) -> Result<Option<String>, String> {
    let Some(default) = &column.default else {
        return Ok(None);
    };
    let all = tokens(default);
    let mut all = all.as_slice();
    while let [open, inner @ .., close] = all {
        if !(open.punct('(') && close.punct(')')) {
            break;
        }
        all = inner;
    }
    match all {
        [one] if one.is("NULL") => Ok(None),
        [one] if one.kind == Kind::Text => Ok(Some(number(&literal_value(one.text)))),
        [one] if one.text.starts_with("0x") => Ok(Some(format!(
            "x{}",
            one.text.get(2..).unwrap_or_default().to_lowercase()
        ))),
        [one] if one.text.starts_with(|c: char| c.is_ascii_digit()) => Ok(Some(number(one.text))),
        [sign, one] if sign.punct('-') => Ok(Some(number(&format!("-{}", one.text)))),
        [intro, one] if one.kind == Kind::Text && !one.gap => {
            let value = literal_value(one.text);
            match intro.text.to_lowercase().as_str() {
                "b" => Ok(Some(format!("b{value}"))),
                "x" => Ok(Some(format!("x{}", value.to_lowercase()))),
                _ => Ok(Some(number(&value))),
            }
        }
        [first, ..] if first.is("current_timestamp") || first.is("now") => {
            let digits: String = default.chars().filter(char::is_ascii_digit).collect();
            Ok(Some(format!("current_timestamp {digits}")))
        }
        _ => Err(default.to_lowercase()),
    }
}

/// `1.50` and `1.5` are one default; so are `'5'` and `5`.
fn number(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(value) if text.len() < 15 => value.to_string(),
        _ => text.to_owned(),
    }
}

/// Columns that foreign keys of other tables point at, by table.
pub(super) struct Referenced(HashMap<(String, String), Vec<Vec<String>>>);

impl Referenced {
    /// Column lists of one table that need a key.
    pub(super) fn of(&self, schema: &str, table: &str) -> Vec<Vec<String>> {
        let key = (schema.to_lowercase(), table.to_lowercase());
        self.0.get(&key).cloned().unwrap_or_default()
    }
}

/// Looks for foreign keys among the tables.
pub(super) async fn referenced(
    session: &mut Session,
    there: &Inventory,
) -> Result<Referenced, SchemaError> {
    let mut all: HashMap<(String, String), Vec<Vec<String>>> = HashMap::new();
    let empty = Collations::default();
    for item in there.of(Object::Table) {
        let table = match source::table(session, &item.schema, &item.name, &empty).await {
            Ok(Ok(table)) => table,
            Ok(Err(_)) | Err(Refused::Server(..)) => continue,
            Err(e) => return Err(e.into()),
        };
        for foreign in table.foreign {
            let schema = foreign.schema.unwrap_or_else(|| item.schema.clone());
            let key = (schema.to_lowercase(), foreign.table.to_lowercase());
            all.entry(key).or_default().push(foreign.parents);
        }
    }
    Ok(Referenced(all))
}

/// Takes away the keys that can be made after the rows are there. Kept are
/// those that foreign keys stand on, from either end, and the one that an
/// AUTO_INCREMENT column needs.
pub(super) fn defer(table: &mut Table, referenced: &[Vec<String>]) {
    let mut needed: Vec<Vec<String>> = referenced.to_vec();
    needed.extend(table.foreign.iter().map(|f| f.columns.clone()));
    let counted = table.columns.iter().find(|c| c.auto_increment);
    needed.extend(counted.map(|c| vec![c.name.clone()]));
    let leads = |key: &Key, columns: &[String]| {
        columns.len() <= key.parts.len()
            && columns.iter().all(|c| {
                let mut head = key.parts.iter().take(columns.len());
                head.any(|p| p.column.eq_ignore_ascii_case(c))
            })
    };
    table
        .keys
        .retain(|k| !k.deferrable() || needed.iter().any(|n| leads(k, n)));
}
