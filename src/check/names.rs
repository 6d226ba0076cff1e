//! Which tables a check is about.

use crate::Side;
use crate::route::table::TableGlob;
use crate::rows::load::Wanted;

/// A route, as far as a check needs it.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// Its tables.
    pub globs: Vec<TableGlob>,
    /// Whether names compare without case.
    pub fold: bool,
    /// The side that is active.
    pub active: Side,
}

impl Scope {
    /// Whether the route covers a table.
    pub fn covers(&self, schema: &[u8], table: &[u8]) -> bool {
        self.globs
            .iter()
            .any(|g| g.matches(schema, table, self.fold))
    }
}

impl Wanted for Scope {
    fn fold(&self) -> bool {
        self.fold
    }

    fn schema(&self, _: &[u8]) -> bool {
        // Whether it has tables of the route is seen when they are listed.
        true
    }

    fn table(&self, schema: &[u8], table: &[u8]) -> bool {
        self.covers(schema, table)
    }
}
