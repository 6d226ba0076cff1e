//! Sorted dumps of two servers, read beside each other row by row: whatever is
//! not the same is shown. Shares no code with the product, and keeps no table in
//! memory.

use crate::support::Server;
use crate::support::proc::block_on;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use std::collections::BTreeSet;

/// A table and the columns of its key.
pub type Table<'a> = (&'a str, &'a str);

/// Panics with the first rows that differ; the number of rows if none do.
pub fn assert_equal(one: &Server, other: &Server, tables: &[Table<'_>]) -> u64 {
    block_on(async {
        let (mut a, mut b) = (connect(one).await, connect(other).await);
        let mut rows = 0;
        for (table, key) in tables {
            rows += equal(&mut a, &mut b, table, key).await;
        }
        rows
    })
}

async fn connect(server: &Server) -> Conn {
    let mut conn = server.conn().await;
    let utc = conn.query_drop("SET time_zone = '+00:00', NAMES utf8mb4");
    utc.await.expect("a session");
    conn
}

async fn equal(a: &mut Conn, b: &mut Conn, table: &str, key: &str) -> u64 {
    let sql = format!("SELECT * FROM {table} ORDER BY {key}");
    let mut left = a.query_iter(sql.as_str()).await.expect("a dump");
    let mut right = b.query_iter(sql.as_str()).await.expect("a dump");
    let mut rows = 0;
    loop {
        let next = (left.next().await, right.next().await);
        match next {
            (Ok(None), Ok(None)) => return rows,
            (Ok(one), Ok(other)) => {
                let (one, other) = (shown(one), shown(other));
                if one != other {
                    drop((left, right));
                    return different(a, b, table, &sql).await;
                }
                rows += 1;
            }
            failed => panic!("{table}: {failed:?}"),
        }
    }
}

/// Panics with how many rows are on one side only, and the first of them.
async fn different(a: &mut Conn, b: &mut Conn, table: &str, sql: &str) -> u64 {
    let mut sides = Vec::new();
    for conn in [a, b] {
        let rows: Vec<Row> = conn.query(sql).await.expect("a dump");
        let rows = rows.into_iter().filter_map(|row| shown(Some(row)));
        sides.push(rows.collect::<BTreeSet<_>>());
    }
    let only = |one: usize, other: usize| -> (usize, Vec<&Vec<String>>) {
        let all: Vec<_> = sides[one].difference(&sides[other]).collect();
        (all.len(), all.into_iter().take(10).collect())
    };
    panic!(
        "{table}: on the source only {:?}\non the target only {:?}",
        only(0, 1),
        only(1, 0)
    );
}

/// Text as the server prints it, JSON by its value: the families print it with
/// other blanks.
fn shown(row: Option<Row>) -> Option<Vec<String>> {
    let value = |value: Value| match value {
        Value::Bytes(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            match text.starts_with(['{', '[']) {
                true => serde_json::from_str::<serde_json::Value>(&text)
                    .map_or(text, |json| json.to_string()),
                false => text,
            }
        }
        other => other.as_sql(true),
    };
    Some(row?.unwrap().into_iter().map(value).collect())
}
