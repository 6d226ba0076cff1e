//! Reads what `SHOW CREATE TABLE` prints into a [`Table`].
//!
//! Both families print one shape: items in parentheses, options, partitions.
//! What is not known is kept verbatim where it stands, never dropped.

use super::model::{Check, Column, Foreign, Generated, Key, KeyKind, Part, Table};
use super::tokens::{Kind, Token, closing, join, split, tokens};

/// Parses a definition.
///
/// # Errors
/// What was not understood, for people.
pub fn table(text: &str) -> Result<Table, String> {
    let all = tokens(text);
    let open = all.iter().position(|t| t.punct('('));
    let open = open.ok_or("no list of columns")?;
    let close = closing(&all, open).ok_or("the list of columns does not end")?;
    let mut table = Table::default();
    for item in split(&all[open + 1..close]) {
        put_item(&mut table, item).ok_or_else(|| format!("not understood: {}", join(item)))?;
    }
    tail(&mut table, &all[close + 1..])?;
    Ok(table)
}

fn put_item(table: &mut Table, item: &[Token<'_>]) -> Option<()> {
    let first = item.first()?;
    if first.kind == Kind::Name {
        table.columns.push(column(item)?);
    } else if first.is("PRIMARY") {
        table.keys.push(key(KeyKind::Primary, item.get(2..)?)?);
    } else if first.is("UNIQUE") {
        table.keys.push(key(KeyKind::Unique, item.get(2..)?)?);
    } else if first.is("FULLTEXT") {
        table.keys.push(key(KeyKind::Fulltext, item.get(2..)?)?);
    } else if first.is("SPATIAL") {
        table.keys.push(key(KeyKind::Spatial, item.get(2..)?)?);
    } else if first.is("KEY") || first.is("INDEX") {
        table.keys.push(key(KeyKind::Plain, item.get(1..)?)?);
    } else if first.is("CONSTRAINT") && item.get(2)?.is("FOREIGN") {
        table.foreign.push(foreign(item)?);
    } else if first.is("CONSTRAINT") && item.get(2)?.is("CHECK") {
        let name = item.get(1)?.name();
        table.checks.push(check(name, item.get(2..)?)?);
    } else if first.is("CHECK") {
        table.checks.push(check(None, item)?);
    } else if first.is("PERIOD") {
        table.periods.push(join(item));
    } else {
        return None;
    }
    Some(())
}

/// What stands between the parentheses at `at`, and the index behind them.
fn group<'t, 'a>(item: &'t [Token<'a>], at: usize) -> Option<(&'t [Token<'a>], usize)> {
    item.get(at).filter(|t| t.punct('('))?;
    let end = closing(item, at)?;
    Some((item.get(at + 1..end)?, end + 1))
}

fn name_list(inside: &[Token<'_>]) -> Option<Vec<String>> {
    let parts = split(inside);
    let name = |p: &&[Token<'_>]| p.first().and_then(Token::name);
    parts.iter().map(name).collect()
}

fn check(name: Option<String>, item: &[Token<'_>]) -> Option<Check> {
    let (_, end) = group(item, 1)?;
    Some(Check {
        name,
        expression: join(item.get(1..end)?),
        enforced: !item.get(end..)?.iter().any(|t| t.is("NOT")),
    })
}

fn foreign(item: &[Token<'_>]) -> Option<Foreign> {
    let (columns, mut at) = group(item, 4)?;
    item.get(at).filter(|t| t.is("REFERENCES"))?;
    let mut table = item.get(at + 1)?.name()?;
    let mut schema = None;
    at += 2;
    if item.get(at)?.punct('.') {
        schema = Some(std::mem::replace(&mut table, item.get(at + 1)?.name()?));
        at += 2;
    }
    let (parents, end) = group(item, at)?;
    Some(Foreign {
        name: item.get(1)?.name()?,
        columns: name_list(columns)?,
        schema,
        table,
        parents: name_list(parents)?,
        rules: join(item.get(end..)?),
    })
}

fn key(kind: KeyKind, item: &[Token<'_>]) -> Option<Key> {
    let named = !item.first()?.punct('(');
    let name = if named {
        item.first()?.name()?
    } else {
        String::new()
    };
    let mut at = usize::from(named);
    let mut options = Vec::new();
    // `PRIMARY KEY USING BTREE (…)` of old servers.
    if item.get(at)?.is("USING") {
        options.push(join(item.get(at..at + 2)?));
        at += 2;
    }
    let (inside, end) = group(item, at)?;
    let parts: Option<Vec<Part>> = split(inside).into_iter().map(part).collect();
    let mut key = Key {
        kind,
        name,
        parts: parts?,
        options,
        ignored: false,
    };
    let mut rest = item.get(end..)?;
    while let Some(first) = rest.first() {
        let used = match () {
            () if first.is("USING") || first.is("COMMENT") => 2,
            () if first.is("WITH") => 3,
            () if first.is("INVISIBLE") || first.is("IGNORED") => {
                key.ignored = true;
                rest = rest.get(1..)?;
                continue;
            }
            () if rest.get(1).is_some_and(|t| t.punct('=')) => 3,
            () => 1,
        };
        key.options.push(join(rest.get(..used)?));
        rest = rest.get(used..)?;
    }
    Some(key)
}

fn part(tokens: &[Token<'_>]) -> Option<Part> {
    let mut part = Part::default();
    let mut at = 1;
    if tokens.first()?.punct('(') {
        let (_, end) = group(tokens, 0)?;
        part.expression = Some(join(tokens.get(..end)?));
        at = end;
    } else {
        part.column = tokens.first()?.name()?;
        if let Some((inside, end)) = group(tokens, 1) {
            part.prefix = Some(join(inside));
            at = end;
        }
    }
    let mut rest = tokens.get(at..)?;
    if rest.first().is_some_and(|t| t.is("DESC") || t.is("ASC")) {
        part.descending = rest.first()?.is("DESC");
        rest = rest.get(1..)?;
    }
    part.extra = (!rest.is_empty()).then(|| join(rest));
    Some(part)
}

fn column(item: &[Token<'_>]) -> Option<Column> {
    let mut column = Column {
        name: item.first()?.name()?,
        ..Column::default()
    };
    // The type: a word or two, its parentheses, then what numbers may have.
    let mut at = 2;
    if item.get(1)?.is("double") && item.get(2).is_some_and(|t| t.is("precision")) {
        at = 3;
    }
    if let Some((_, end)) = group(item, at) {
        at = end;
    }
    while item
        .get(at)
        .is_some_and(|t| t.is("unsigned") || t.is("zerofill"))
    {
        at += 1;
    }
    column.kind = join(item.get(1..at)?);
    while at < item.len() {
        at += attribute(&mut column, item.get(at..)?)?;
    }
    Some(column)
}

/// Takes one attribute from the front; how many tokens it had.
fn attribute(column: &mut Column, rest: &[Token<'_>]) -> Option<usize> {
    let first = rest.first()?;
    let second = |word: &str| rest.get(1).is_some_and(|t| t.is(word));
    if first.is("CHARACTER") && second("SET") {
        column.charset = rest.get(2)?.name();
        return Some(3);
    }
    if first.is("CHARSET") {
        column.charset = rest.get(1)?.name();
        return Some(2);
    }
    if first.is("COLLATE") {
        column.collation = rest.get(1)?.name();
        return Some(2);
    }
    if first.is("NOT") && second("NULL") {
        column.null = Some(false);
        return Some(2);
    }
    if first.is("NULL") {
        column.null = Some(true);
        return Some(1);
    }
    if first.is("GENERATED") || (first.is("AS") && rest.get(1)?.punct('(')) {
        return generated(column, rest);
    }
    if first.is("DEFAULT") {
        let used = value(rest.get(1..)?)?;
        column.default = Some(join(rest.get(1..=used)?));
        return Some(used + 1);
    }
    if first.is("ON") && second("UPDATE") {
        let used = value(rest.get(2..)?)?;
        column.on_update = Some(join(rest.get(2..used + 2)?));
        return Some(used + 2);
    }
    if first.is("COMMENT") {
        column.comment = Some(rest.get(1)?.text.to_owned());
        return Some(2);
    }
    if first.is("CHECK") {
        let (_, end) = group(rest, 1)?;
        column.check = Some(join(rest.get(1..end)?));
        return Some(end);
    }
    if first.is("SRID") {
        column.srid = Some(rest.get(1)?.text.to_owned());
        return Some(2);
    }
    Some(flag(column, rest))
}

fn generated(column: &mut Column, rest: &[Token<'_>]) -> Option<usize> {
    let at = rest.iter().position(|t| t.is("AS"))?;
    if rest.get(at + 1)?.is("ROW") {
        column.row = Some(rest.get(at + 2)?.text.to_ascii_uppercase());
        return Some(at + 3);
    }
    let (_, end) = group(rest, at + 1)?;
    let kept = rest.get(end);
    let said = kept.filter(|t| t.is("STORED") || t.is("PERSISTENT") || t.is("VIRTUAL"));
    column.generated = Some(Generated {
        expression: join(rest.get(at + 1..end)?),
        stored: said.is_some_and(|t| !t.is("VIRTUAL")),
    });
    Some(end + usize::from(said.is_some()))
}

/// A word alone, or what is not known, verbatim.
fn flag(column: &mut Column, rest: &[Token<'_>]) -> usize {
    match rest.first() {
        Some(t) if t.is("AUTO_INCREMENT") => column.auto_increment = true,
        Some(t) if t.is("INVISIBLE") => column.invisible = true,
        Some(t) if t.is("COMPRESSED") => column.compressed = true,
        Some(t) => {
            // `WITHOUT SYSTEM VERSIONING`, `COLUMN_FORMAT FIXED`, `X = 'y'`:
            // up to the next word that is known.
            const KNOWN: [&str; 7] = [
                "DEFAULT",
                "COMMENT",
                "CHECK",
                "NOT",
                "AUTO_INCREMENT",
                "ON",
                "INVISIBLE",
            ];
            let known = |t: &Token<'_>| KNOWN.iter().any(|k| t.is(k));
            let more = rest.iter().skip(1).position(known);
            let used = more.map_or(rest.len(), |m| m + 1);
            column.extra.push(join(rest.get(..used).unwrap_or(&[*t])));
            return used;
        }
        None => {}
    }
    1
}

/// How many tokens a default or ON UPDATE value has: an expression in
/// parentheses, a literal with its sign or introducer, a call, and what
/// operators put behind it (MariaDB prints expressions without parentheses).
fn value(rest: &[Token<'_>]) -> Option<usize> {
    const NEXT: [&str; 14] = [
        "ON",
        "COMMENT",
        "CHECK",
        "AUTO_INCREMENT",
        "INVISIBLE",
        "COLUMN_FORMAT",
        "STORAGE",
        "ENGINE_ATTRIBUTE",
        "SECONDARY_ENGINE_ATTRIBUTE",
        "NOT",
        "WITH",
        "WITHOUT",
        "SRID",
        "VISIBLE",
    ];
    rest.first()?;
    let mut depth = 0_i64;
    for (at, token) in rest.iter().enumerate() {
        if token.punct('(') {
            depth += 1;
        } else if token.punct(')') {
            depth -= 1;
        } else if at > 0 && depth == 0 && token.gap && NEXT.iter().any(|n| token.is(n)) {
            return Some(at);
        }
    }
    Some(rest.len())
}

/// Options and partitions.
fn tail(table: &mut Table, mut rest: &[Token<'_>]) -> Result<(), String> {
    while let Some(first) = rest.first() {
        if first.is("PARTITION") {
            table.partition = Some(join(rest));
            return Ok(());
        }
        if first.is("WITH") && rest.get(1).is_some_and(|t| t.is("SYSTEM")) {
            table.versioned = true;
            rest = rest.get(3..).unwrap_or_default();
            continue;
        }
        let words = |list: &[&str]| list.iter().zip(rest).all(|(w, t)| t.is(w));
        let name_end = match () {
            () if words(&["DEFAULT", "CHARACTER", "SET"]) => 3,
            () if words(&["DEFAULT"])
                || words(&["CHARACTER", "SET"])
                || words(&["DATA", "DIRECTORY"])
                || words(&["INDEX", "DIRECTORY"]) =>
            {
                2
            }
            () => 1,
        };
        // `TABLESPACE x` has no `=`.
        let equals = rest.get(name_end).is_some_and(|t| t.punct('='));
        let value_at = name_end + usize::from(equals);
        let name: Vec<&str> = rest[..name_end]
            .iter()
            .filter(|t| !t.is("DEFAULT"))
            .map(|t| t.text)
            .collect();
        let name = name.join(" ");
        let value_end = match rest.get(value_at) {
            Some(t) if t.punct('(') => closing(rest, value_at).map(|e| e + 1),
            Some(_) => Some(value_at + 1),
            None => None,
        };
        let Some(value_end) = value_end else {
            return Err(format!("not understood: {}", join(rest)));
        };
        let plain = name.starts_with('`');
        let name = if plain { name } else { name.to_uppercase() };
        let value = join(rest.get(value_at..value_end).unwrap_or_default());
        let name = if name == "CHARACTER SET" {
            "CHARSET".to_owned()
        } else {
            name
        };
        table.options.push((name, value));
        rest = rest.get(value_end..).unwrap_or_default();
    }
    Ok(())
}
