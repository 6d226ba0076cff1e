//! Some of the rows that were written are handed on, for somebody else to see
//! whether they are equal now.

use tokio::sync::mpsc::Sender;

use crate::copy::select::Bound;

use super::batch::{Batch, Operation, TableName};

/// Rows of one batch: some are enough to notice that batches go wrong.
const OF_A_BATCH: usize = 4;

/// Hands rows on, or nothing where nobody wants any.
#[derive(Default)]
pub(super) struct Sample {
    to: Option<Sender<(TableName, Bound)>>,
}

impl Sample {
    pub(super) fn to(to: Sender<(TableName, Bound)>) -> Sample {
        Sample { to: Some(to) }
    }

    /// Takes some rows of a batch that is about to be written, each time from
    /// another place.
    pub(super) fn of(&self, batch: &Batch, number: u64) -> Vec<(TableName, Bound)> {
        if self.to.as_ref().is_none_or(|to| to.capacity() == 0) {
            return Vec::new();
        }
        let mut some = Vec::new();
        for table in batch.tables() {
            let rows = table.rows.len().max(1);
            let skip = usize::try_from(number % rows as u64).unwrap_or(0);
            for operation in table.rows.values().skip(skip).take(OF_A_BATCH) {
                let (Operation::Put(image) | Operation::Delete(image)) = operation;
                if let Ok(key) = Bound::of(image, &table.key, &table.shape) {
                    some.push((table.name.clone(), key));
                }
            }
            if some.len() >= OF_A_BATCH {
                break;
            }
        }
        some
    }

    /// They are written. What nobody has room for is left out.
    pub(super) fn written(&self, some: Vec<(TableName, Bound)>) {
        if let Some(to) = &self.to {
            for row in some {
                let _ = to.try_send(row);
            }
        }
    }
}
