//! Repair by the follower's healer.

use crate::copy::select::Bound;
use crate::follow::batch::TableName;
use crate::follow::heal::{Healed, Healer};
use crate::follow::tables::Followed;

use super::Boxed;

/// What a repair did to a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repaired {
    /// Nothing: to the healer the sides were equal.
    Equal,
    /// The mirror's row was written.
    Written,
    /// Somebody holds the mirror's row; try again later.
    Busy,
    /// The mirror does not take the row; in its words.
    Refused(String),
}

/// Brings rows of the mirror to what the active side has (DESIGN §6, Heal).
pub trait Repair: Send {
    /// One answer for each key, in order.
    fn repair<'a>(
        &'a mut self,
        name: &'a TableName,
        table: &'a Followed,
        keys: &'a [Bound],
    ) -> Boxed<'a, Result<Vec<Repaired>, String>>;
}

impl Repair for Healer {
    fn repair<'a>(
        &'a mut self,
        name: &'a TableName,
        table: &'a Followed,
        keys: &'a [Bound],
    ) -> Boxed<'a, Result<Vec<Repaired>, String>> {
        Box::pin(async move {
            let healed = self.heal(name, table, keys).await;
            let healed = healed.map_err(|e| e.to_string())?.into_iter();
            let repaired = healed.map(|healed| match healed {
                Healed::Equal => Repaired::Equal,
                Healed::Repaired(_) => Repaired::Written,
                Healed::Busy => Repaired::Busy,
                Healed::Refused(why) => Repaired::Refused(why.to_string()),
            });
            Ok(repaired.collect())
        })
    }
}
