//! Reading the rows of keys, so that it is known which row is whose.

use std::collections::HashMap;
use std::time::Duration;

use super::link::{Fault, Link};
use super::sql::{Lock, Read};
use super::{images, unreadable};
use crate::binlog::Value;
use crate::copy::select::Bound;

/// The rows of each key, in the order of the keys.
pub(super) type ByKey = Vec<Vec<Vec<Value>>>;

/// Reads them behind the statements of `before`. Keys without a collation are
/// read in one statement: a row then has its key in the bytes it was asked for
/// by. Where one has not, each key is asked for by itself.
pub(super) async fn by_key(
    link: &mut Link,
    read: Read<'_>,
    before: Vec<Vec<u8>>,
    keys: &[&Bound],
    (lock, hold): (Lock, Duration),
) -> Result<ByKey, Fault> {
    let mut statements = before;
    if keys.len() > 1 && read.keys_are_plain() {
        statements.push(read.all(keys, lock));
        let sets = link.run(&statements, hold).await?;
        let rows = images(sets.into_iter().flatten(), read.table);
        let rows = rows.ok_or_else(|| unreadable(read.name))?;
        if let Some(found) = grouped(read, keys, rows) {
            return Ok(found);
        }
        statements.clear();
    }
    statements.extend(read.each(keys, lock));
    let sets = link.run(&statements, hold).await?;
    if sets.len() != keys.len() {
        return Err(unreadable(read.name));
    }
    let each = sets
        .into_iter()
        .map(|set| images(set.into_iter(), read.table));
    let found: Option<ByKey> = each.collect();
    found.ok_or_else(|| unreadable(read.name))
}

/// None: a row has a key that was not asked for.
fn grouped(read: Read<'_>, keys: &[&Bound], rows: Vec<Vec<Value>>) -> Option<ByKey> {
    let places: HashMap<&Bound, usize> = keys.iter().enumerate().map(|(i, k)| (*k, i)).collect();
    let mut found = vec![Vec::new(); keys.len()];
    for row in rows {
        let key = Bound::of(&row, &read.table.key, &read.table.shape).ok()?;
        let place = places.get(&key)?;
        found.get_mut(*place)?.push(row);
    }
    Some(found)
}
