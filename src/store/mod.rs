//! What must survive a `kill -9`: the routes' phases, epochs and read splits.
//!
//! One process owns the state directory at a time (the file is locked). Every
//! change is one transaction that is on disk when the call returns; a phase
//! change calls [`Store::save_route`] before sessions see the new phase, so
//! after a crash the store is never behind what sessions did.
//!
//! The store knows nothing about what the routes mean: it keeps and returns.

mod embedded;

use crate::config::RouteConfig;
use crate::route::table::{FollowStart, Phase, ReadsBy, Route};

pub use embedded::EmbeddedStore;

/// A route as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct StoredRoute {
    /// Its name.
    pub name: String,
    /// Its `db.table` globs, in the file's order.
    pub tables: Vec<String>,
    /// Where it stands.
    pub phase: Phase,
    /// Phase changes so far.
    pub epoch: u64,
    /// The target's share of reads, 0 to 100.
    pub reads_percent: u8,
    /// What the percentage is of.
    pub reads_by: ReadsBy,
    /// When clients are answered.
    pub ack: crate::route::table::Ack,
    /// What a session does after a deferred write.
    pub deferred: crate::route::table::DeferredPolicy,
    /// What happens to DDL.
    pub ddl: crate::route::table::DdlPolicy,
    /// What is followed. Files of earlier versions have none.
    #[serde(default)]
    pub follow: Option<FollowStart>,
}

impl StoredRoute {
    /// A new route, in `source_only`.
    pub fn new(config: &RouteConfig) -> StoredRoute {
        StoredRoute {
            name: config.name.clone(),
            tables: config.tables.clone(),
            phase: Phase::SourceOnly,
            epoch: 0,
            reads_percent: 0,
            reads_by: config.reads_by,
            ack: config.ack,
            deferred: config.deferred,
            ddl: config.ddl,
            follow: None,
        }
    }
}

impl From<&Route> for StoredRoute {
    fn from(route: &Route) -> StoredRoute {
        StoredRoute {
            name: route.name.clone(),
            tables: route.tables.iter().map(ToString::to_string).collect(),
            phase: route.phase,
            epoch: route.epoch,
            reads_percent: route.reads_percent,
            reads_by: route.reads_by,
            ack: route.ack,
            deferred: route.deferred,
            ddl: route.ddl,
            follow: route.follow.clone(),
        }
    }
}

/// A name, and the text that is to stand under it, if any.
pub type Note = (String, Option<String>);

/// Why the store cannot serve. All of it is the proxy's side.
#[derive(thiserror::Error, Debug)]
pub enum StoreError {
    /// The directory cannot be made or entered.
    #[error("state directory {dir}: {error}")]
    Directory {
        /// The directory.
        dir: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another process has it open.
    #[error("state directory {dir} is in use by another lockstep process")]
    InUse {
        /// The directory.
        dir: String,
    },
    /// The file exists and is not a store that can be read.
    #[error(
        "state file {file} is damaged or not ours ({detail}); restore it from a copy, \
         or move it away to start with every route in source_only"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What was found.
        detail: String,
    },
    /// A read or a commit failed.
    #[error("state: {0}")]
    Failed(String),
}

/// Durable state. Embedded today; the same calls fit a store shared by several
/// instances.
pub trait Store: Send + Sync {
    /// The name of this installation: made at the first start, kept since.
    fn instance_id(&self) -> &str;
    /// All routes, by name.
    ///
    /// # Errors
    /// The state cannot be read, or holds what this version cannot.
    fn load_routes(&self) -> Result<Vec<StoredRoute>, StoreError>;
    /// Whether there is room for what a change of phase may bring.
    ///
    /// # Errors
    /// There is not.
    fn room(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Adds or replaces a route; on disk when it returns.
    ///
    /// # Errors
    /// The commit failed: nothing was changed.
    fn save_route(&self, route: &StoredRoute) -> Result<(), StoreError>;
    /// What the row plane keeps about a route, by names of its own.
    ///
    /// # Errors
    /// The state cannot be read.
    fn load_notes(&self, route: &str) -> Result<Vec<(String, String)>, StoreError>;
    /// Puts notes under their names, and removes those without a text; all of
    /// them on disk when it returns.
    ///
    /// # Errors
    /// The commit failed: nothing was changed.
    fn save_notes(&self, route: &str, changes: &[Note]) -> Result<(), StoreError>;
    /// Removes a route and its notes; on disk when it returns. A missing one is
    /// no error.
    ///
    /// # Errors
    /// The commit failed: nothing was changed.
    fn remove_route(&self, name: &str) -> Result<(), StoreError>;
}
