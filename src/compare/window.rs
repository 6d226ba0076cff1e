//! Only what changed lately, by a column of update times: the cheap mode, and
//! no proof.
//!
//! A window ends a minute ago, so that transactions that set their time before
//! have most probably committed, and overlaps the one before, so that those
//! which took longer are seen the next time. A row that is newer on the mirror
//! belongs to the next window. What is suspect is settled like everything else.

use tokio::sync::mpsc::Sender;

use crate::rows::digest::Strength;
use crate::rows::shape::ColumnShape;

use super::reader::ReadError;
use super::settle::Item;
use super::table::{Extent, Order};
use super::walk::Walk;
use super::{CompareError, Comparer, Pair};

/// Seconds between a window's end and now.
const END_S: u32 = 60;

/// Seconds that a window overlaps the one before: longer than a transaction
/// should take.
const OVERLAP_S: u32 = 600;

/// Seconds that the first window reaches back.
const FIRST_S: u32 = 86_400;

/// Names that such columns go by where no ON UPDATE marks one.
const NAMES: [&str; 14] = [
    "update_time",
    "updated_at",
    "updated_on",
    "updated",
    "update_at",
    "updatetime",
    "last_update",
    "last_updated",
    "last_modified",
    "modified_at",
    "modify_time",
    "modified",
    "gmt_modified",
    "mtime",
];

/// The column of update times among these, if there is one.
pub fn update_time(columns: &[ColumnShape]) -> Option<&ColumnShape> {
    let is_time = |c: &&ColumnShape| {
        c.column_type.starts_with("timestamp") || c.column_type.starts_with("datetime")
    };
    let named = |c: &&ColumnShape| {
        NAMES
            .iter()
            .any(|n| c.name.eq_ignore_ascii_case(n.as_bytes()))
    };
    let mut times = columns.iter().filter(is_time);
    let marked = times.clone().find(|c| c.auto_updated);
    marked.or_else(|| times.find(named))
}

/// The window's edges: texts, or NULL if the server's time zone is not known.
fn edges(column: &ColumnShape, last: Option<&str>) -> Vec<u8> {
    let now = if column.column_type.starts_with("timestamp") {
        "UTC_TIMESTAMP()"
    } else {
        // A DATETIME holds the writer's local time; most use the server's.
        "CONVERT_TZ(UTC_TIMESTAMP(),'+00:00',@@global.time_zone)"
    };
    let from = match last {
        Some(last) => format!("'{last}' - INTERVAL {OVERLAP_S} SECOND"),
        None => format!("{now} - INTERVAL {FIRST_S} SECOND"),
    };
    format!("SELECT CONCAT(CAST({from} AS CHAR),'|',CAST({now} - INTERVAL {END_S} SECOND AS CHAR))")
        .into_bytes()
}

impl Comparer {
    /// Compares the tables' windows, one table at a time.
    pub(super) async fn windows(
        &self,
        walks: &[Walk],
        suspects: &Sender<Item>,
    ) -> Result<(), CompareError> {
        let mut pair = Pair::new(&self.walked());
        for walk in walks {
            if !walk.claim().await {
                continue;
            }
            for attempt in 0.. {
                self.parts.status.resumed().await;
                match self.window(walk, suspects, &mut pair).await {
                    Ok(()) => break,
                    Err(e) => {
                        let refused = matches!(e, ReadError::Refused(_));
                        self.failed(walk, e, attempt).await?;
                        if refused {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn window(
        &self,
        walk: &Walk,
        suspects: &Sender<Item>,
        pair: &mut Pair,
    ) -> Result<(), ReadError> {
        let refused = |why: &str| Err(ReadError::Refused(why.to_owned()));
        if walk.table.order == Order::NoKey {
            return refused("it has no key");
        }
        let Some(column) = update_time(walk.table.columns()) else {
            return refused("it has no column of update times");
        };
        let name = &walk.table.name;
        let last = self.windows.lock().get(name).cloned();
        let edges = pair.active.text(edges(column, last.as_deref())).await?;
        let edges = edges.as_deref().and_then(|e| e.split_once('|'));
        let Some((from, until)) = edges else {
            return refused("the server's time zone is not known to it");
        };
        let extent = Extent::Window {
            column: column.name.clone(),
            from: format!("'{from}'"),
            until: format!("'{until}'"),
        };
        let looked = self
            .chunk(walk, &extent, Strength::Fast, suspects, pair)
            .await?;
        walk.add(looked.rows);
        self.counted(looked.rows);
        let mut windows = self.windows.lock();
        windows.insert(name.clone(), until.to_owned());
        Ok(())
    }

    /// Where each table's next window begins, to be kept and restored.
    pub fn window_ends(&self) -> Vec<(crate::follow::batch::TableName, String)> {
        let windows = self.windows.lock();
        windows
            .iter()
            .map(|(n, e)| (n.clone(), e.clone()))
            .collect()
    }

    /// As kept. Ends that are not times as we print them are left out.
    pub fn restore_windows(&self, ends: Vec<(crate::follow::batch::TableName, String)>) {
        let is_time = |end: &str| {
            let allowed = |b: u8| b.is_ascii_digit() || b"-: .".contains(&b);
            !end.is_empty() && end.bytes().all(allowed)
        };
        let ends = ends.into_iter().filter(|(_, end)| is_time(end));
        self.windows.lock().extend(ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_is_found() {
        let column = |name: &str, column_type: &str, auto_updated| ColumnShape {
            name: name.into(),
            column_type: column_type.into(),
            auto_updated,
            ..ColumnShape::default()
        };
        let marked = [
            column("updated_at", "datetime", false),
            column("x", "timestamp(3)", true),
        ];
        let found = |columns: &[ColumnShape]| update_time(columns).map(|c| c.name.clone());
        assert_eq!(found(&marked), Some(b"x".to_vec()));
        assert_eq!(found(&marked[..1]), Some(b"updated_at".to_vec()));
        assert_eq!(found(&[column("mtime", "bigint", false)]), None);
        assert_eq!(found(&[column("created", "datetime", false)]), None);
    }
}
