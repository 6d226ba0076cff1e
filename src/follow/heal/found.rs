//! What lock-free reads of both sides prove.

use std::collections::{HashMap, HashSet};

use super::link::Rows;
use super::sql;
use crate::binlog::Value;
use crate::copy::raw;
use crate::copy::select::Bound;
use crate::follow::tables::Followed;

/// What a look found on one side.
pub(super) struct Found {
    /// By key.
    rows: HashMap<Bound, Vec<Value>>,
    /// A row has a key in other bytes than any that was asked for.
    strange: bool,
    /// A key without a row has none.
    whole: bool,
    pub(super) bytes: usize,
}

impl Found {
    pub(super) fn new(rows: Rows, table: &Followed, keys: &[&Bound], whole: bool) -> Option<Found> {
        let wanted: HashSet<&Bound> = keys.iter().copied().collect();
        let mut found = Found {
            rows: HashMap::with_capacity(rows.len()),
            strange: false,
            whole,
            bytes: 0,
        };
        for row in rows {
            found.bytes += row.iter().map(weight).sum::<usize>();
            let image = raw::image(row, &table.shape)?;
            let bound = Bound::of(&image, &table.key, &table.shape).ok()?;
            found.strange |= !wanted.contains(&bound);
            found.rows.insert(bound, image);
        }
        Some(found)
    }

    /// Key by key. With a collation a row may be under a key in other bytes;
    /// where one is, a key without a row is not proven to have none.
    pub(super) fn equal(
        table: &Followed,
        keys: &[&Bound],
        expected: &[Option<&[Value]>],
        (active, mirror): (&Found, &Found),
        cross: bool,
    ) -> Vec<bool> {
        let absent = mirror.whole && !active.strange && !mirror.strange;
        let one = |(i, key): (usize, &&Bound)| {
            let ours = active.rows.get(*key);
            let same = match (ours, mirror.rows.get(*key)) {
                (Some(ours), Some(theirs)) => sql::same(table, ours, theirs, cross),
                (None, None) => absent,
                _ => false,
            };
            same && match (expected.get(i), ours) {
                (None, _) | (Some(None), None) => true,
                (Some(Some(row)), Some(ours)) => sql::same(table, row, ours, false),
                _ => false,
            }
        };
        keys.iter().enumerate().map(one).collect()
    }
}

fn weight(value: &mysql_async::Value) -> usize {
    match value {
        mysql_async::Value::Bytes(bytes) => bytes.len() + 16,
        _ => 16,
    }
}
