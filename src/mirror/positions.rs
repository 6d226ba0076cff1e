//! The binlog positions sampled on both sides.
//!
//! A transaction's events are written when it commits, so any position seen
//! before the commit is a lower bound of where they are. A sampler stores one
//! every 100 ms; a journal entry takes the last one, without asking a server
//! on the data path.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::Side;

/// The last position seen on each side, as text (GTID set or file:offset).
#[derive(Default)]
pub struct Positions {
    sides: [ArcSwapOption<String>; 2],
}

impl Positions {
    /// Stores a sample, taken from the server just now.
    pub fn set(&self, side: Side, position: String) {
        self.sides[side.index()].store(Some(Arc::new(position)));
    }

    /// The last sample; None before the first one.
    pub fn get(&self, side: Side) -> Option<Arc<String>> {
        self.sides[side.index()].load_full()
    }
}
