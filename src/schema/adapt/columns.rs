//! Columns: types, collations, defaults, attributes.

use super::super::model::{Check, Column, Table};
use super::super::tokens::{Kind, Token, tokens};
use super::Way;

/// All columns; None where one cannot be there at all.
pub fn all(way: &mut Way<'_>, table: &mut Table) -> Option<()> {
    let mut columns = std::mem::take(&mut table.columns);
    for column in &mut columns {
        if let Some(collation) = column.collation.clone() {
            let near = way.collation(&column.name, &collation)?;
            if near != collation {
                column.charset = near.split('_').next().map(str::to_owned);
                column.collation = Some(near);
            }
        }
        if let Some(generated) = &mut column.generated {
            generated.expression = way.expression(&column.name, &generated.expression);
        }
        if way.crosses() && way.to.mariadb {
            to_mariadb(way, column);
        } else if way.crosses() {
            to_mysql(way, column, table);
        }
    }
    table.columns = columns;
    Some(())
}

fn to_mariadb(way: &mut Way<'_>, column: &mut Column) {
    let name = column.name.clone();
    match column.base().as_str() {
        "geomcollection" => column.kind = "geometrycollection".to_owned(),
        "vector" if way.to.version < (11, 7, 0) => {
            let dimensions: u32 = number(&column.kind).unwrap_or(2048);
            column.kind = format!("varbinary({})", dimensions.saturating_mul(4));
            way.adapted(&name, "this MariaDB has no VECTOR: its bytes as VARBINARY");
        }
        _ => {}
    }
    if column.srid.take().is_some() {
        way.adapted(&name, "MariaDB does not enforce a column's SRID");
    }
    if column.generated.is_some() && column.null.take() == Some(false) {
        way.adapted(&name, "MariaDB has no NOT NULL on generated columns");
    }
    if let Some(default) = &column.default {
        column.default = Some(way.expression(&name, default));
    }
    for extra in std::mem::take(&mut column.extra) {
        way.adapted(&name, format!("{}: MySQL's own, left out", word(&extra)));
    }
}

fn to_mysql(way: &mut Way<'_>, column: &mut Column, table: &mut Table) {
    let name = column.name.clone();
    let text = |column: &mut Column, kind: &str| {
        column.kind = kind.to_owned();
        column.charset = Some("ascii".to_owned());
        column.collation = Some("ascii_general_ci".to_owned());
    };
    match column.base().as_str() {
        "uuid" => {
            text(column, "char(36)");
            way.adapted(&name, "MySQL has no UUID: CHAR(36), ordered as text");
        }
        "inet6" => {
            text(column, "varchar(39)");
            way.adapted(&name, "MySQL has no INET6: VARCHAR(39), ordered as text");
        }
        "inet4" => {
            text(column, "varchar(15)");
            way.adapted(&name, "MySQL has no INET4: VARCHAR(15), ordered as text");
        }
        "vector" if way.to.version < (9, 0, 0) => {
            let dimensions: u32 = number(&column.kind).unwrap_or(2048);
            column.kind = format!("varbinary({})", dimensions.saturating_mul(4));
            way.adapted(&name, "this MySQL has no VECTOR: its bytes as VARBINARY");
        }
        _ => {}
    }
    if std::mem::take(&mut column.compressed) {
        way.adapted(&name, "MySQL does not compress single columns");
    }
    column.extra.retain(|e| !e.contains("SYSTEM VERSIONING"));
    for extra in std::mem::take(&mut column.extra) {
        way.adapted(&name, format!("{}: MariaDB's own, left out", word(&extra)));
    }
    check_to_mysql(way, column, table);
    if let Some(default) = column.default.take() {
        column.default = default_to_mysql(way, column, default);
    }
}

/// A column's own CHECK becomes one of the table: on MySQL it could name no
/// other column. The one that makes text JSON may go with the type.
fn check_to_mysql(way: &mut Way<'_>, column: &mut Column, table: &mut Table) {
    let Some(check) = column.check.take() else {
        return;
    };
    if is_json(column, &check) {
        if way.options.native_json {
            column.kind = "json".to_owned();
            column.charset = None;
            column.collation = None;
            way.adapted(
                &column.name,
                "MariaDB's JSON is text: as MySQL's JSON it loses its spaces, the order and doubles of its keys, and digits of long numbers",
            );
            return;
        }
        let note = "MariaDB's JSON is text: LONGTEXT with the same CHECK, byte for byte";
        way.adapted(&column.name, note);
    }
    let expression = way.expression(&column.name, &check);
    table.checks.push(Check {
        name: None,
        expression,
        enforced: true,
    });
}

/// Whether this is how MariaDB spells JSON.
fn is_json(column: &Column, check: &str) -> bool {
    column.base() == "longtext"
        && check.starts_with("(json_valid(`")
        && check.matches("json_valid").count() == 1
        && !check.contains(" and ")
        && !check.contains(" or ")
}

/// MySQL takes literals and CURRENT_TIMESTAMP as they are, expressions in
/// parentheses, and for long text and the like nothing but expressions.
fn default_to_mysql(way: &mut Way<'_>, column: &Column, default: String) -> Option<String> {
    let default = way.expression(&column.name, &default);
    let all = tokens(&default);
    if all.iter().any(|t| t.is("nextval") || t.is("lastval")) {
        way.missing(
            &column.name,
            "its default takes numbers from a sequence, which MySQL has not",
        );
        return None;
    }
    let literal = is_literal(&all);
    let clock = all
        .first()
        .is_some_and(|t| t.is("current_timestamp") || t.is("now"));
    let timed = matches!(column.base().as_str(), "timestamp" | "datetime");
    let plain_clock = clock && timed && all.iter().all(|t| !t.punct('+') && !t.punct('-'));
    let long = matches!(
        column.base().as_str(),
        "tinytext"
            | "text"
            | "mediumtext"
            | "longtext"
            | "tinyblob"
            | "blob"
            | "mediumblob"
            | "longblob"
            | "json"
            | "geometry"
            | "point"
            | "linestring"
            | "polygon"
            | "multipoint"
            | "multilinestring"
            | "multipolygon"
            | "geometrycollection"
    );
    let null = default.eq_ignore_ascii_case("NULL");
    let enclosed = all.first().is_some_and(|t| t.punct('('))
        && super::super::tokens::closing(&all, 0) == Some(all.len() - 1);
    Some(if null || plain_clock || enclosed || (literal && !long) {
        default
    } else {
        format!("({default})")
    })
}

/// A number with its sign, a string with its introducer, NULL, TRUE, FALSE.
fn is_literal(all: &[Token<'_>]) -> bool {
    let number =
        |t: &Token<'_>| t.kind == Kind::Word && t.text.starts_with(|c: char| c.is_ascii_digit());
    let constant = |t: &Token<'_>| t.is("NULL") || t.is("TRUE") || t.is("FALSE");
    match all {
        [one] => one.kind == Kind::Text || number(one) || constant(one),
        [sign, one] if sign.punct('-') || sign.punct('+') => number(one),
        [intro, one] => intro.kind == Kind::Word && one.kind == Kind::Text && !one.gap,
        _ => false,
    }
}

fn number(kind: &str) -> Option<u32> {
    let (_, rest) = kind.split_once('(')?;
    rest.trim_end_matches(')').trim().parse().ok()
}

fn word(text: &str) -> &str {
    text.split([' ', '=']).next().unwrap_or(text)
}
