//! What waits for the rows: keys that were left out, foreign keys that could not
//! be made with their tables, and counters.

use std::collections::HashMap;
use std::time::Duration;

use super::adapt::{self, Options, Way};
use super::create::exists;
use super::create::refusal;
use super::diff;
use super::model::{Foreign, Key, KeyKind, Table};
use super::notes::{Object, Outcome, Report, Subject};
use super::session::{Refused, Session, exact};
use super::source::{self, Collations, Inventory, Item};
use super::tokens::{quote_name, quote_text};
use super::{Covers, Pair, Progress, SchemaError};
use crate::rows::service::{ServiceAccount, text};

/// For the keys of one table: hours for one of terabytes. Beyond it the server
/// is taken for hung.
const KEYS_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Times a table is tried whose lock somebody has. Each waits for the
/// session's `lock_wait_timeout`.
const ATTEMPTS_MAX: u32 = 6;

const LOCK_WAIT: u16 = 1205;
const NO_SUCH_TABLE: u16 = 1146;

/// Makes the keys that [`super::create`] left out, one statement a table, and
/// the foreign keys that were refused, looks whether every key of the source is
/// there then, and raises the counters.
/// Safe to be run again: what is there is left.
///
/// # Errors
/// A connection's.
pub async fn finish(
    source: &ServiceAccount,
    target: &ServiceAccount,
    covers: &Covers<'_>,
    options: Options,
    progress: &Progress,
) -> Result<Report, SchemaError> {
    let mut pair = Pair::open(source, target).await?;
    let there = source::inventory(&mut pair.source, covers).await?;
    progress.start(there.of(Object::Table).count());
    let mut report = Report::default();
    for item in there.of(Object::Table) {
        let subject = Subject::new(Object::Table, &item.schema, &item.name);
        progress.at(subject.title());
        table(&mut pair, item, &subject, options, &mut report).await?;
        progress.step();
    }
    ids(&mut pair, &there, &mut report).await?;
    pair.close().await;
    Ok(report)
}

async fn table(
    pair: &mut Pair,
    item: &Item,
    subject: &Subject,
    options: Options,
    report: &mut Report,
) -> Result<(), SchemaError> {
    let Some(wanted) = read(&mut pair.source, item).await? else {
        return Ok(());
    };
    let (from, to) = (pair.source.server.clone(), pair.target.server.clone());
    let mut way = Way::new(&from, &to, options, subject.clone());
    // What cannot be there was said when the table was made.
    let Some(wanted) = adapt::table(&mut way, wanted) else {
        return Ok(());
    };
    let Some(has) = read(&mut pair.target, item).await? else {
        let note = subject.note(Outcome::Missing, "", super::NOT_THERE);
        report.notes.push(note);
        return Ok(());
    };
    let late: Vec<&Key> = wanted
        .keys
        .iter()
        .filter(|k| k.deferrable() && diff::missing_key(k, &has).is_some())
        .filter(|k| {
            !has.keys
                .iter()
                .any(|h| h.name.eq_ignore_ascii_case(&k.name))
        })
        .collect();
    let mut refused: HashMap<String, String> = HashMap::new();
    for group in groups(&late) {
        add(pair, item, &group, &mut refused).await?;
    }
    let has = match late.is_empty() {
        true => has,
        false => read(&mut pair.target, item).await?.unwrap_or_default(),
    };
    for key in &wanted.keys {
        if let Some(why) = diff::missing_key(key, &has) {
            let why = refused.remove(&key.name).unwrap_or(why);
            let note = subject.note(Outcome::Missing, diff::title(key), why);
            report.notes.push(note);
        } else if late.iter().any(|k| k.name == key.name) {
            let title = format!("key {}.{}.{}", item.schema, item.name, key.name);
            report.created.push(title);
        }
    }
    foreign(pair, item, subject, (&wanted, &has), report).await
}

/// Makes the foreign keys that are not there. Those whose parents are not, which
/// no row could be written with, were named when the table was made.
async fn foreign(
    pair: &mut Pair,
    item: &Item,
    subject: &Subject,
    (wanted, has): (&Table, &Table),
    report: &mut Report,
) -> Result<(), SchemaError> {
    for foreign in &wanted.foreign {
        let there = |f: &Foreign| {
            f.name.eq_ignore_ascii_case(&foreign.name) || diff::same_foreign(f, foreign)
        };
        let parent = Item {
            schema: foreign.schema.as_ref().unwrap_or(&item.schema).clone(),
            name: foreign.table.clone(),
            ..item.clone()
        };
        if has.foreign.iter().any(there) || !exists(&mut pair.target, &parent).await? {
            continue;
        }
        let name = format!("{}.{}", quote_name(&item.schema), quote_name(&item.name));
        let sql = format!("ALTER TABLE {name} ADD {}", foreign.sql());
        let part = format!("foreign key {}", foreign.name);
        match alter(&mut pair.target, &sql).await? {
            Some(why) => report.notes.push(subject.note(Outcome::Missing, part, why)),
            None => {
                let title = format!("foreign key {}.{}.{}", item.schema, item.name, foreign.name);
                report.created.push(title);
            }
        }
    }
    Ok(())
}

/// All plain ones at once: the rows are read once. InnoDB builds one FULLTEXT
/// key at a time.
fn groups<'k>(late: &[&'k Key]) -> Vec<Vec<&'k Key>> {
    let (plain, slow): (Vec<&Key>, Vec<&Key>) = late.iter().partition(|k| k.kind == KeyKind::Plain);
    let mut out: Vec<Vec<&Key>> = slow.into_iter().map(|k| vec![k]).collect();
    if !plain.is_empty() {
        out.insert(0, plain);
    }
    out
}

async fn add(
    pair: &mut Pair,
    item: &Item,
    keys: &[&Key],
    refused: &mut HashMap<String, String>,
) -> Result<(), SchemaError> {
    let mariadb = pair.target.server.mariadb;
    let name = format!("{}.{}", quote_name(&item.schema), quote_name(&item.name));
    let statement = |keys: &[&Key]| {
        let parts: Vec<String> = keys
            .iter()
            .map(|k| format!("ADD {}", k.sql(mariadb)))
            .collect();
        format!("ALTER TABLE {name} {}", parts.join(", "))
    };
    if alter(&mut pair.target, &statement(keys)).await?.is_none() {
        return Ok(());
    }
    // One by one, so that one that is refused does not keep the others out.
    for key in keys {
        if let Some(why) = alter(&mut pair.target, &statement(&[key])).await? {
            refused.insert(key.name.clone(), why);
        }
    }
    Ok(())
}

/// None: done. Otherwise why not.
async fn alter(session: &mut Session, sql: &str) -> Result<Option<String>, SchemaError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match session.rows_within(sql, KEYS_LIMIT).await {
            Ok(_) => return Ok(None),
            Err(Refused::Server(LOCK_WAIT, _)) if attempt < ATTEMPTS_MAX => {}
            Err(Refused::Server(code, said)) => return Ok(Some(refusal(code, &said))),
            Err(Refused::Lost(e)) => return Err(e),
        }
    }
}

async fn read(session: &mut Session, item: &Item) -> Result<Option<Table>, SchemaError> {
    let collations = Collations::default();
    match source::table(session, &item.schema, &item.name, &collations).await {
        Ok(table) => Ok(table.ok()),
        Err(Refused::Server(NO_SUCH_TABLE | 1049, _)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Raises AUTO_INCREMENT counters and sequences of the target to the source's,
/// before the target gives out ids. Never lowers one.
///
/// # Errors
/// A connection's.
pub async fn raise_ids(
    source: &ServiceAccount,
    target: &ServiceAccount,
    covers: &Covers<'_>,
) -> Result<Report, SchemaError> {
    let mut pair = Pair::open(source, target).await?;
    let there = source::inventory(&mut pair.source, covers).await?;
    let mut report = Report::default();
    ids(&mut pair, &there, &mut report).await?;
    pair.close().await;
    Ok(report)
}

async fn ids(pair: &mut Pair, there: &Inventory, report: &mut Report) -> Result<(), SchemaError> {
    for database in &there.databases {
        let theirs = counters(&mut pair.source, &database.name).await?;
        let ours = counters(&mut pair.target, &database.name).await?;
        for item in there
            .of(Object::Table)
            .filter(|i| i.schema == database.name)
        {
            let (Some(wanted), Some(has)) = (theirs.get(&item.name), ours.get(&item.name)) else {
                continue;
            };
            if has >= wanted {
                continue;
            }
            let name = format!("{}.{}", quote_name(&item.schema), quote_name(&item.name));
            let sql = format!("ALTER TABLE {name} AUTO_INCREMENT = {wanted}");
            if let Some(why) = alter(&mut pair.target, &sql).await? {
                let subject = Subject::new(Object::Table, &item.schema, &item.name);
                let note = subject.note(Outcome::Missing, "AUTO_INCREMENT", why);
                report.notes.push(note);
            }
        }
    }
    if !(pair.source.server.mariadb && pair.target.server.mariadb) {
        return Ok(());
    }
    for item in there.of(Object::Sequence) {
        let name = format!("{}.{}", quote_name(&item.schema), quote_name(&item.name));
        let next = format!("SELECT next_not_cached_value FROM {name}");
        let Some(next) = pair.source.one(&next).await? else {
            continue;
        };
        let sql = format!("DO SETVAL({name}, {next}, 0)");
        if let Some(why) = alter(&mut pair.target, &sql).await? {
            let subject = Subject::new(Object::Sequence, &item.schema, &item.name);
            let note = subject.note(Outcome::Missing, "its next value", why);
            report.notes.push(note);
        }
    }
    Ok(())
}

async fn counters(
    session: &mut Session,
    schema: &str,
) -> Result<HashMap<String, u64>, SchemaError> {
    let sql = format!(
        "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = {} AND AUTO_INCREMENT IS NOT NULL",
        quote_text(schema)
    );
    let rows = session.rows(&sql).await?;
    let one = |row| Some((exact(row, 0)?, text(row, 1)?.parse().ok()?));
    Ok(rows.iter().filter_map(one).collect())
}
