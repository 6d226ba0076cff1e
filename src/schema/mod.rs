//! The target's schema, made from the source's (DESIGN §6, copy).
//!
//! Definitions come from `SHOW CREATE`, taken apart by [`parse`] and printed
//! again for the other server by [`model`], with [`adapt`] between. Built from
//! information_schema alone they would lack what it does not show: partitions,
//! options of keys and engines, periods. What it shows better, the collation
//! each text column really has, is taken from there.
//!
//! Everything is safe to be run again: each object is made by one statement,
//! what is there is left, and differences are reported, never altered. What
//! would act by itself (triggers, events) is kept in `lockstep.held` on the
//! side that is not active ([`held`]).

pub mod accounts;
pub mod adapt;
pub mod collations;
mod create;
pub mod diff;
mod finish;
pub mod held;
pub mod model;
pub mod notes;
mod objects;
pub mod parse;
mod session;
pub mod source;
pub mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::rows::service::{ServiceAccount, ServiceError};

pub use adapt::Options;
pub use create::{carry, compare, create};
pub use finish::{finish, raise_ids};
pub use held::{HELD_WAIT, activate, deactivate, holds, stop_events};
pub use notes::{Note, Object, Outcome, Report};
pub use session::{Refused, Server, Session};

/// Why an object is missing that nobody has made yet.
pub const NOT_THERE: &str = "not on the target";

/// Whether a table, or another object of that name, is the routes'.
pub type Covers<'a> = dyn Fn(&[u8], &[u8]) -> bool + Send + Sync + 'a;

/// Why it could not be gone on.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The connection.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The server refused what everything rests on.
    #[error("{0}")]
    Refused(String),
    /// More objects than are looked at.
    #[error("more than {0} objects of the routes' schemas")]
    TooMany(usize),
}

/// How far a run is, for `status`.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    now: parking_lot::Mutex<String>,
}

impl Progress {
    /// Objects done and in all; 0 in all before they are counted.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }

    /// What is being made.
    pub fn now(&self) -> String {
        self.now.lock().clone()
    }

    fn start(&self, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
    }

    fn at(&self, title: String) {
        *self.now.lock() = title;
    }

    fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Both sides of a run.
pub(crate) struct Pair {
    pub source: Session,
    pub target: Session,
}

impl Pair {
    pub(crate) async fn open(
        source: &ServiceAccount,
        target: &ServiceAccount,
    ) -> Result<Pair, SchemaError> {
        let (source, target) = tokio::try_join!(Session::open(source), Session::open(target))?;
        Ok(Pair { source, target })
    }

    pub(crate) async fn close(self) {
        tokio::join!(self.source.close(), self.target.close());
    }
}
