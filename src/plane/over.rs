//! Rows that the target held before a copy over it began.
//!
//! A copy writes what the source has and removes nothing:
//! 1. A route is filled, and taken back to `source_only`: nothing is followed.
//! 2. Row 7 is deleted on the source.
//! 3. The route is filled again. No event names row 7, no chunk has it; the
//!    target keeps it, and shows it to everybody once it is active.
//!
//! Whether such rows are rubbish, nobody but the operator knows: with source and
//! target mixed up in the settings they are what is to be kept, so nothing is
//! emptied unasked. It is noted that there were rows, and the one edge that makes
//! the target active without a comparison asks for a clean one.
//!
//! Looked at before the stream's first checkpoint, so before its follower wrote
//! any row: a process that dies in between looks again and finds the same. A
//! stream that takes over from another begins with sides that were brought up to
//! each other, and is not looked at.

use mysql_async::prelude::Queryable;

use crate::follow::batch::TableName;
use crate::rows::literal::{put_quoted, put_table};

use super::Inner;
use super::few::few;
use super::route::{Ended, Spec};

fn failed(e: mysql_async::Error) -> Ended {
    Ended::Passing(format!("rows that the target held: {e}"))
}

/// Notes which of these tables of the target, which were there before, hold
/// rows.
pub(super) async fn note(inner: &Inner, spec: &Spec, tables: &[TableName]) -> Result<(), Ended> {
    let [_, target] = &inner.accounts;
    let mut conn = target.connect().await?;
    let mut named = Vec::new();
    for name in tables {
        let mut sql = b"SELECT 1 FROM ".to_vec();
        put_table(&mut sql, &name.schema, &name.table);
        sql.extend_from_slice(b" LIMIT 1");
        let row: Option<u8> = conn.query_first(sql).await.map_err(failed)?;
        if row.is_some() {
            named.push(name.to_string());
        }
    }
    let stream = &spec.start.stream;
    let mut sql = format!("REPLACE INTO lockstep.copied_over VALUES ('{stream}',").into_bytes();
    put_quoted(&mut sql, few(named).join(", ").as_bytes());
    sql.extend_from_slice(b"); COMMIT");
    let noted = conn.query_drop(sql).await;
    noted.map_err(failed)?;
    let _ = conn.disconnect().await;
    Ok(())
}

/// The tables that held rows, for people; None: there were none, or the stream
/// took over from another. Of one that was forced past the making of tables
/// nobody knows.
pub(super) async fn load(inner: &Inner, spec: &Spec) -> Result<Option<String>, Ended> {
    let [_, target] = &inner.accounts;
    let mut conn = target.connect().await?;
    let stream = &spec.start.stream;
    let sql = format!("SELECT table_names FROM lockstep.copied_over WHERE stream='{stream}'");
    let names: Option<Vec<u8>> = conn.query_first(sql).await.map_err(failed)?;
    let _ = conn.disconnect().await;
    Ok(match names {
        Some(names) if names.is_empty() => None,
        Some(names) => Some(String::from_utf8_lossy(&names).into_owned()),
        None => spec.start.fresh.then(|| "any table".to_owned()),
    })
}
