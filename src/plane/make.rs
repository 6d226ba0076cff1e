//! The target's tables, made before a copy begins and finished after it.

use mysql_async::prelude::Queryable;

use crate::Side;
use crate::binlog::Position;
use crate::follow::batch::TableName;
use crate::follow::writer::{Worker, WriteError};
use crate::rows::literal::put_table;
use crate::rows::service::ServiceConn;
use crate::schema;

use super::few::few;
use super::route::{Ended, Spec, covers};
use super::{Inner, over, position, shapes};

/// Notes on a schema that are logged; all are in `check`.
const NOTES_MAX: usize = 50;

/// Times the tables are made anew because the source's changed meanwhile: a
/// migration of many steps may be under way.
const ATTEMPTS_MAX: u32 = 40;

/// Makes what the target lacks of the route's tables and what belongs to them,
/// unless that is done: from the first checkpoint on, new tables are made where
/// the log has them.
///
/// Where all of them are made by this, the log is to be read from the position
/// that is returned. The race this prevents:
/// 1. the stored beginning is taken; 2. a column is added and rows are written;
///    3. the table is made, with the column; 4. the follower meets rows of
///    before 2., which fit neither side any more.
///
/// So the position is taken after the making, and what both sides have is looked
/// at after that: alike, nothing was changed in between. Else the tables, which
/// are empty, are made once more. A table that was there before has rows that
/// the log from the stored beginning is for, so nothing is moved then.
pub(super) async fn make(inner: &Inner, spec: &Spec) -> Result<Option<Position>, Ended> {
    let [source, target] = &inner.accounts;
    let mut worker = Worker::new(target.clone(), &spec.start.stream, 0);
    let failed = |e: WriteError| Ended::Passing(e.to_string());
    worker.prepare().await.map_err(failed)?;
    if worker.checkpoint().await.map_err(failed)?.is_some() {
        return Ok(None);
    }
    let covered = covers(inner, &spec.tables);
    let mut ours: Vec<String> = Vec::new();
    let mut before = None;
    for _ in 0..ATTEMPTS_MAX {
        let (options, progress) = (schema::Options::default(), schema::Progress::default());
        let made = schema::create(source, target, &covered, options, &progress).await;
        let report = made.map_err(|e| Ended::Passing(format!("the target's tables: {e}")))?;
        say(&spec.name, "making on the target", &report);
        ours.extend(report.created);
        let mut conn = ServiceConn::new(source.clone());
        let end = position::end(&mut conn).await?;
        for loaded in inner.catalog.refresh().await {
            loaded?;
        }
        let catalog = inner.catalog.snapshot();
        let there = shapes::tables(&covered, Side::Target, &catalog);
        let own = |t: &&TableName| ours.contains(&format!("table {t}"));
        if spec.start.fresh {
            let before: Vec<TableName> = there.iter().filter(|t| !own(t)).cloned().collect();
            over::note(inner, spec, &before).await?;
        }
        if !there.iter().all(|t| own(&t)) {
            return Ok(None);
        }
        let (_, differing) = shapes::compare(&covered, Side::Source, &catalog);
        // What differs for good is of the families.
        if differing.is_empty() || before.as_ref() == Some(&differing) {
            return Ok(Some(end));
        }
        before = Some(differing);
        drop_tables(inner, &there).await?;
    }
    Err(Ended::Passing(
        "the source's definitions change while the target's tables are made".to_owned(),
    ))
}

/// Drops tables that this process has made and nobody has written to.
async fn drop_tables(inner: &Inner, tables: &[TableName]) -> Result<(), Ended> {
    let [_, target] = &inner.accounts;
    let mut conn = target.connect().await?;
    let failed = |e: mysql_async::Error| Ended::Passing(format!("the target's tables: {e}"));
    let unchecked = conn.query_drop("SET foreign_key_checks=0").await;
    unchecked.map_err(failed)?;
    for name in tables {
        let mut table = Vec::new();
        put_table(&mut table, &name.schema, &name.table);
        let row = [&b"SELECT 1 FROM "[..], &table, b" LIMIT 1"].concat();
        let row: Option<u8> = conn.query_first(row).await.map_err(failed)?;
        if row.is_some() {
            let why = format!("{name} on the target has been written to by another");
            return Err(Ended::Stuck(why));
        }
        let sql = [&b"DROP TABLE "[..], &table].concat();
        conn.query_drop(sql).await.map_err(failed)?;
    }
    let _ = conn.disconnect().await;
    Ok(())
}

/// Makes the keys that were left out while rows were copied. What could not be
/// made, for people.
pub(super) async fn finish(inner: &Inner, spec: &Spec) -> Result<Option<String>, Ended> {
    let [source, target] = &inner.accounts;
    let covered = covers(inner, &spec.tables);
    let (options, progress) = (schema::Options::default(), schema::Progress::default());
    let made = schema::finish(source, target, &covered, options, &progress).await;
    let report = made.map_err(|e| Ended::Passing(format!("the target's keys: {e}")))?;
    say(&spec.name, "finishing on the target", &report);
    let named = few(report.unbuilt());
    Ok((!named.is_empty()).then(|| format!("the target lacks {}", named.join("; "))))
}

/// Logs what was made, and what could not be.
pub(super) fn say(route: &str, doing: &str, report: &schema::Report) {
    if let Some(first) = report.created.first() {
        let count = report.created.len();
        tracing::info!(route, "{doing}: {count} objects, {first} first");
    }
    for note in report.notes.iter().take(NOTES_MAX) {
        let (object, schema, name) = (note.object.as_str(), &note.schema, &note.name);
        let (part, why) = (&note.part, &note.why);
        tracing::warn!(route, "{doing}: {object} {schema}.{name} {part}: {why}");
    }
}
