//! Which parts a copy has, and how far each is: kept on the target in
//! `lockstep.copied`, and beside it in `lockstep.copied_by` what the order of
//! each table's rows rested on when it was split.
//!
//! A table is planned, or planned anew and copied from its beginning, where what
//! is kept does not say of all its rows whether they are copied:
//!
//! | table | why |
//! | --- | --- |
//! | without parts | it was not there on both sides when the others were planned |
//! | with another definition of its key | bounds are places in an order. 1. Rows up to 'm' are copied. 2. The key's collation changes, and with it which rows are behind 'm'. 3. Those that were behind it and are before it now would never be read |
//! | begun, and now to wait for its parents or to be copied as a whole | its events are skipped until its turn ([`crate::follow::snapshots`]), those of rows that are copied already included |
//!
//! The definition is the target's: it changes where the follower meets the
//! change, and each such place begins a new run, which asks here. The side that
//! is read may be ahead of the follower. Chunks that it gave in its new order are
//! counted from bounds of the old one, but only until the follower is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::follow::batch::TableName;
use crate::follow::tables::Followed;
use crate::rows::literal::{put_name, put_quoted, put_table};
use crate::wire::lenenc::put_bytes;

use super::family::Family;
use super::select::Bound;
use super::{Copier, CopyError, Part, connect, failed};

/// Rows in a part of a table with an integer key, about, and parts of one
/// table.
const PART_ROWS: u64 = 100_000;
const PARTS_MAX: u64 = 256;

/// A plan: parts, and whether each is finished.
type Parts = Vec<(Part, bool)>;

/// What each table's plan was made by.
type Definitions = BTreeMap<TableName, Vec<u8>>;

/// What the order of a table's rows rests on, and what its bounds mean: name,
/// type, character set and collation of each column of its key.
fn definition(followed: &Followed) -> Vec<u8> {
    let mut out = Vec::new();
    for column in &followed.key.columns {
        let Some(read) = followed.shape.columns.get(*column) else {
            continue;
        };
        let other = followed.other.as_deref();
        let written = other.and_then(|o| o.columns.get(o.column(&read.name)?));
        let column = written.unwrap_or(read);
        put_bytes(&mut out, &read.name.to_ascii_lowercase());
        put_bytes(&mut out, column.column_type.as_bytes());
        for name in [&column.charset, &column.collation] {
            put_bytes(&mut out, name.as_deref().unwrap_or_default().as_bytes());
        }
    }
    out
}

/// Tables that wait for their turn although some of their rows are copied.
fn begun(parts: &Parts, family: &Family) -> BTreeSet<TableName> {
    let left = parts.iter().filter(|(_, finished)| !finished);
    let levels = family.levels(left.map(|(part, _)| part.clone()).collect());
    let mut waiting = BTreeSet::new();
    for (n, level) in levels.iter().enumerate() {
        let waits = level.iter().filter(|p| n > 0 || family.whole(&p.name));
        waiting.extend(waits.map(|p| p.name.clone()));
    }
    // 1. A parent that was finished waits again; 2. its rows are removed as they
    // change, and children with them; 3. the children are finished: only a copy
    // of their own brings those back.
    for name in waiting.clone() {
        waiting.extend(family.below(&name));
    }
    let copied = |(part, finished): &&(Part, bool)| *finished || part.rows > 0;
    let begun: BTreeSet<_> = parts.iter().filter(copied).map(|(p, _)| &p.name).collect();
    waiting.retain(|name| begun.contains(name));
    waiting
}

impl Copier {
    /// The parts that are not finished: as kept, or of a new plan.
    pub(super) async fn parts(
        &self,
        tables: &[TableName],
        family: &Family,
    ) -> Result<Vec<Part>, CopyError> {
        let mut target = connect(&self.target).await?;
        let mut parts = self.kept(&mut target).await?;
        let mut made_by = self.made_by(&mut target).await?;
        let mut source = None;
        // A new plan of one may be what its children have to wait for.
        loop {
            let anew = self.unplanned(tables, family, &parts, &made_by)?;
            if anew.is_empty() {
                break;
            }
            for (name, followed) in anew {
                let conns = (&mut source, &mut target);
                let table = (&name, &*followed);
                self.plan_table(table, family, &mut parts, conns).await?;
                made_by.insert(name, definition(&followed));
            }
        }
        self.show(tables, &mut parts).await?;
        parts.retain(|(_, finished)| !finished);
        Ok(parts.into_iter().map(|(part, _)| part).collect())
    }

    /// Tables of which a plan is to be made. After it none of these reasons
    /// holds of the table, so this comes to an end.
    fn unplanned(
        &self,
        tables: &[TableName],
        family: &Family,
        parts: &Parts,
        made_by: &Definitions,
    ) -> Result<Vec<(TableName, Arc<Followed>)>, CopyError> {
        let mut count: BTreeMap<&TableName, usize> = BTreeMap::new();
        for (part, _) in parts {
            *count.entry(&part.name).or_default() += 1;
        }
        let begun = begun(parts, family);
        let mut anew = Vec::new();
        for name in tables {
            let count = count.get(name).copied().unwrap_or_default();
            let followed = match self.followed(name) {
                Ok(followed) => followed,
                Err(e) if count == 0 => return Err(e),
                // Said when its turn comes, or the follower meets its rows.
                Err(_) => continue,
            };
            let same = made_by.get(name) == Some(&definition(&followed));
            let torn = family.whole(name) && count > 1;
            if count == 0 || !same || torn || begun.contains(name) {
                anew.push((name.clone(), followed));
            }
        }
        Ok(anew)
    }

    /// Puts what is kept into the status.
    async fn show(&self, tables: &[TableName], parts: &mut Parts) -> Result<(), CopyError> {
        self.status.clear();
        let mut source = connect(&self.source).await?;
        for name in tables {
            let estimated = self.estimated(&mut source, name).await?;
            self.status.planned(name, estimated);
        }
        for (part, finished) in &mut *parts {
            // A table without a key starts over.
            if !*finished && part.after.is_none() {
                part.rows = 0;
            }
            self.status.part(&part.name, part.rows, *finished);
        }
        let done: u64 = parts.iter().map(|(p, _)| p.rows).sum();
        self.status.rows_done.store(done, Ordering::Relaxed);
        let shown = self.status.tables();
        let estimated = shown.values().map(|t| t.rows_estimated).sum();
        self.status
            .rows_estimated
            .store(estimated, Ordering::Relaxed);
        Ok(())
    }

    async fn kept(&self, target: &mut Conn) -> Result<Parts, CopyError> {
        let sql = format!(
            "SELECT part, schema_name, table_name, after_key, until_key, finished, row_count \
             FROM lockstep.copied WHERE stream='{}' ORDER BY part",
            self.stream
        );
        type Kept = (
            u32,
            Vec<u8>,
            Vec<u8>,
            Option<Vec<u8>>,
            Option<Vec<u8>>,
            u8,
            u64,
        );
        let rows: Vec<Kept> = target
            .query(sql)
            .await
            .map_err(|e| failed(&self.target, &e))?;
        let bound = |bytes: Option<Vec<u8>>| bytes.and_then(|b| Bound::decode(&b));
        let parts = rows.into_iter().map(|row| {
            let (number, schema, table, after, until, finished, rows) = row;
            let part = Part {
                number,
                name: TableName { schema, table },
                after: bound(after),
                until: bound(until),
                rows,
            };
            (part, finished != 0)
        });
        Ok(parts.collect())
    }

    async fn made_by(&self, target: &mut Conn) -> Result<Definitions, CopyError> {
        let sql = format!(
            "SELECT schema_name, table_name, definition FROM lockstep.copied_by \
             WHERE stream='{}'",
            self.stream
        );
        let rows: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> = target
            .query(sql)
            .await
            .map_err(|e| failed(&self.target, &e))?;
        let rows = rows.into_iter();
        let rows = rows.map(|(schema, table, by)| (TableName { schema, table }, by));
        Ok(rows.collect())
    }

    /// Splits a table and keeps that, in place of an earlier plan of it.
    ///
    /// Cut off between the statements, the table has no parts, and is planned
    /// again; the parts come in one.
    async fn plan_table(
        &self,
        (name, followed): (&TableName, &Followed),
        family: &Family,
        parts: &mut Parts,
        (source, target): (&mut Option<Conn>, &mut Conn),
    ) -> Result<(), CopyError> {
        // One snapshot, so one part.
        let bounds = match family.whole(name) {
            true => Vec::new(),
            false => {
                let source = match source {
                    Some(conn) => conn,
                    None => source.insert(connect(&self.source).await?),
                };
                self.bounds(source, name, followed).await?
            }
        };
        // No number of before again: what an earlier run has on its way may still
        // be written under it.
        let last = parts.iter().map(|(part, _)| part.number).max();
        let mut number = last.map_or(0, |last| last.saturating_add(1));
        parts.retain(|(part, _)| part.name != *name);
        let (mut after, first) = (None, parts.len());
        for until in bounds.into_iter().map(Some).chain([None]) {
            let part = Part {
                number,
                name: name.clone(),
                after: after.take(),
                until: until.clone(),
                rows: 0,
            };
            number = number.saturating_add(1);
            after = until;
            parts.push((part, false));
        }
        let mut names = Vec::new();
        put_quoted(&mut names, &name.schema);
        names.push(b',');
        put_quoted(&mut names, &name.table);
        let stream = &self.stream;
        let mut forget = format!(
            "DELETE FROM lockstep.copied WHERE stream='{stream}' AND (schema_name, table_name)=("
        )
        .into_bytes();
        forget.extend_from_slice(&names);
        forget.push(b')');
        let mut by = format!("REPLACE INTO lockstep.copied_by VALUES ('{stream}',").into_bytes();
        by.extend_from_slice(&names);
        by.push(b',');
        put_quoted(&mut by, &definition(followed));
        by.push(b')');
        let mut all = b"INSERT INTO lockstep.copied VALUES ".to_vec();
        let values = parts.iter().skip(first);
        let values: Vec<_> = values.map(|p| self.progress_values(&p.0, false)).collect();
        all.extend_from_slice(&values.join(&b","[..]));
        for sql in [forget, by, all] {
            let kept = target.query_drop(sql).await;
            kept.map_err(|e| failed(&self.target, &e))?;
        }
        Ok(())
    }

    /// A table's rows, as the side that is read estimates.
    async fn estimated(&self, conn: &mut Conn, name: &TableName) -> Result<u64, CopyError> {
        let quoted = |bytes: &[u8]| {
            let mut out = b"_utf8mb4".to_vec();
            put_quoted(&mut out, bytes);
            out
        };
        let mut sql =
            b"SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA=".to_vec();
        sql.extend_from_slice(&quoted(&name.schema));
        sql.extend_from_slice(b" AND TABLE_NAME=");
        sql.extend_from_slice(&quoted(&name.table));
        let rows: Option<Option<u64>> = conn
            .query_first(sql)
            .await
            .map_err(|e| failed(&self.source, &e))?;
        Ok(rows.flatten().unwrap_or(0))
    }

    /// Where a table with a single integer key is split.
    async fn bounds(
        &self,
        source: &mut Conn,
        name: &TableName,
        followed: &Followed,
    ) -> Result<Vec<Bound>, CopyError> {
        let rows = self.estimated(source, name).await?;
        let column = match followed.key.columns[..] {
            [column] => followed.shape.columns.get(column),
            _ => None,
        };
        let Some(column) = column.filter(|c| c.column_type.contains("int")) else {
            return Ok(Vec::new());
        };
        let mut sql = b"SELECT CAST(MIN(".to_vec();
        put_name(&mut sql, &column.name);
        sql.extend_from_slice(b") AS CHAR), CAST(MAX(");
        put_name(&mut sql, &column.name);
        sql.extend_from_slice(b") AS CHAR) FROM ");
        put_table(&mut sql, &name.schema, &name.table);
        let range: Option<(Option<String>, Option<String>)> = source
            .query_first(sql)
            .await
            .map_err(|e| failed(&self.source, &e))?;
        Ok(split(range, rows))
    }

    /// The row of `lockstep.copied`.
    pub(super) fn progress_values(&self, part: &Part, finished: bool) -> Vec<u8> {
        let mut sql = format!("('{}',{},", self.stream, part.number).into_bytes();
        put_quoted(&mut sql, &part.name.schema);
        sql.push(b',');
        put_quoted(&mut sql, &part.name.table);
        for bound in [&part.after, &part.until] {
            sql.push(b',');
            match bound {
                Some(bound) => put_quoted(&mut sql, &bound.encode()),
                None => sql.extend_from_slice(b"NULL"),
            }
        }
        sql.extend_from_slice(format!(",{},{})", u8::from(finished), part.rows).as_bytes());
        sql
    }
}

/// Equal ranges between the least and the greatest key.
fn split(range: Option<(Option<String>, Option<String>)>, rows: u64) -> Vec<Bound> {
    let number = |text: Option<String>| text.and_then(|t| t.parse::<i128>().ok());
    let Some((Some(low), Some(high))) = range.map(|(l, h)| (number(l), number(h))) else {
        return Vec::new();
    };
    let parts = i128::from((rows / PART_ROWS).clamp(1, PARTS_MAX));
    let step = (high - low) / parts;
    if step <= 0 {
        return Vec::new();
    }
    (1..parts)
        .map(|n| Bound(vec![(low + n * step).to_string().into_bytes()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::batch::Key;
    use crate::rows::shape::{ColumnShape, TableShape};

    #[test]
    fn a_definition_is_of_the_keys_columns_on_the_target() {
        let shape = |column_type: &str, collation: &str, rest: &str| {
            let column = |name: &str, column_type: &str| ColumnShape {
                name: name.into(),
                column_type: column_type.to_owned(),
                collation: Some(collation.to_owned()),
                ..ColumnShape::default()
            };
            Arc::new(TableShape {
                columns: vec![column("k", column_type), column("v", rest)],
                ..TableShape::default()
            })
        };
        let of = |read: &Arc<TableShape>, written: &Arc<TableShape>, columns: Vec<usize>| {
            let key = Key {
                columns,
                bytewise: false,
            };
            definition(&Followed::new(read.clone(), Some(written.clone()), key))
        };
        let one = shape("varchar(9)", "a_bin", "int");
        let was = of(&one, &one, vec![0]);
        let collated = shape("varchar(9)", "a_ci", "int");
        assert_ne!(was, of(&one, &collated, vec![0]), "another order");
        assert_eq!(was, of(&collated, &one, vec![0]), "the target has it not");
        assert_ne!(was, of(&one, &one, vec![1]), "another key");
        assert_ne!(was, of(&one, &one, vec![]), "none any more");
        let other = shape("varchar(9)", "a_bin", "bigint");
        assert_eq!(was, of(&other, &other, vec![0]), "a column beside the key");
    }
}
