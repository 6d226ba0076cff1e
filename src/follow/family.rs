//! Children that foreign keys changed on the active side without an event of
//! their own ([`super::cascade`]), in heal mode.
//!
//! A parent was deleted, or its key changed. Its children are found by the
//! parent's old key on the mirror, where they may stand as before, and by the
//! new one on the active side, and are healed like rows that have events. So
//! are the children's children.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::batch::TableName;
use super::heal::{FAMILY_ROWS, Healer, Literals};
use super::tables::{Followed, Meaning, Tables};
use super::writer::WriteError;
use crate::binlog::Value;
use crate::copy::select::Bound;
use crate::rows::literal::put_value;

/// Parents asked for in one statement.
const PARENTS: usize = 100;

/// Where a parent's key is to be looked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Wanted {
    child: Arc<TableName>,
    columns: Vec<usize>,
    on_mirror: bool,
}

/// Parents whose children are to be looked at.
#[derive(Default)]
pub(super) struct Families {
    open: HashMap<Wanted, HashSet<Literals>>,
    page: Option<Page>,
    /// Foreign keys may go in circles.
    seen: HashSet<(Wanted, Literals)>,
}

/// Rows of one table to be healed.
pub(super) type Found = (Arc<TableName>, Arc<Followed>, Vec<Bound>);

/// Children of some parents, read as far as `after`.
struct Page {
    wanted: Wanted,
    values: Vec<Literals>,
    after: Option<Bound>,
}

/// A row's values in columns that children refer to. None where one is NULL,
/// which refers to nothing, or there is no such column.
fn literals(table: &Followed, row: &[Value], columns: &[Vec<u8>]) -> Option<Literals> {
    let one = |name: &Vec<u8>| {
        let at = table.shape.column(name)?;
        let (value, column) = (row.get(at)?, table.shape.columns.get(at)?);
        let mut out = Vec::new();
        let known = !matches!(value, Value::Null | Value::Absent);
        (known && put_value(&mut out, value, column).is_ok()).then_some(out)
    };
    columns.iter().map(one).collect()
}

impl Families {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.page.is_none()
    }

    /// A parent was `before` and is `after`, or is gone.
    pub(super) fn parent(
        &mut self,
        tables: &dyn Tables,
        parent: &Followed,
        before: Option<&[Value]>,
        after: Option<&[Value]>,
    ) {
        for child in &parent.shape.children {
            let name = TableName {
                schema: child.schema.clone(),
                table: child.table.clone(),
            };
            let Meaning::Follow(table) = tables.meaning(&name) else {
                continue;
            };
            let columns = child.columns.iter().map(|c| table.shape.column(c));
            let Some(columns) = columns.collect::<Option<Vec<usize>>>() else {
                continue;
            };
            let child_name = Arc::new(name);
            for (row, on_mirror) in [(before, true), (after, false)] {
                let values = row.and_then(|row| literals(parent, row, &child.parent_columns));
                let wanted = Wanted {
                    child: child_name.clone(),
                    columns: columns.clone(),
                    on_mirror,
                };
                if let Some(values) = values
                    && self.seen.insert((wanted.clone(), values.clone()))
                {
                    self.open.entry(wanted).or_default().insert(values);
                }
            }
        }
    }

    /// The next page of children; None when all have been found. What is found
    /// is a parent in turn.
    pub(super) async fn next(
        &mut self,
        healer: &mut Healer,
        tables: &dyn Tables,
    ) -> Result<Option<Found>, WriteError> {
        let page = match self.page.take() {
            Some(page) => page,
            None => match self.first_page() {
                Some(page) => page,
                None => {
                    self.seen.clear();
                    return Ok(None);
                }
            },
        };
        let name = page.wanted.child.clone();
        let Meaning::Follow(table) = tables.meaning(&name) else {
            return Err(WriteError::Refused {
                table: name.to_string(),
                error: "its definition is not known".to_owned(),
            });
        };
        let on_mirror = page.wanted.on_mirror;
        let values: Vec<&Literals> = page.values.iter().collect();
        let by = (page.wanted.columns.as_slice(), values.as_slice());
        let rows = healer
            .family(&name, &table, on_mirror, by, page.after.as_ref())
            .await?;
        let is_last = rows.len() < FAMILY_ROWS;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let bound = Bound::of(&row, &table.key, &table.shape);
            keys.push(bound.map_err(|error| WriteError::Unwritable {
                table: name.to_string(),
                error,
            })?);
            let row = Some(row.as_slice());
            let (before, after) = if on_mirror { (row, None) } else { (None, row) };
            self.parent(tables, &table, before, after);
        }
        if !is_last {
            let after = keys.last().cloned();
            self.page = Some(Page { after, ..page });
        }
        Ok(Some((name, table, keys)))
    }

    /// Some of the parents of one of the tables that are left.
    fn first_page(&mut self) -> Option<Page> {
        let wanted = self.open.keys().next().cloned()?;
        let values = self.open.get_mut(&wanted)?;
        let some: Vec<Literals> = values.iter().take(PARENTS).cloned().collect();
        some.iter().for_each(|v| _ = values.remove(v));
        if values.is_empty() {
            self.open.remove(&wanted);
        }
        Some(Page {
            wanted,
            values: some,
            after: None,
        })
    }
}
