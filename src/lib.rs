//! Lockstep changes the MySQL database under a running application.
//!
//! The map of the crate, the way a statement takes and each module's
//! invariants stand in ARCHITECTURE.md; the promises in README.md.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod auth;
pub mod binlog;
pub mod check;
pub mod compare;
pub mod config;
pub mod control;
pub mod copy;
pub mod follow;
pub mod leg;
pub mod migration;
pub mod mirror;
pub mod plane;
pub mod route;
pub mod rows;
pub mod schema;
pub mod server;
pub mod session;
pub mod sql;
pub mod store;
pub mod telemetry;
pub mod wire;

/// The two databases of a migration; fixed for its life (DESIGN §1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The old database.
    Source,
    /// The new database.
    Target,
}

impl Side {
    /// The opposite side.
    pub const fn other(self) -> Side {
        match self {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        }
    }

    /// 0 for the source, 1 for the target: an index into per-side pairs.
    pub const fn index(self) -> usize {
        match self {
            Side::Source => 0,
            Side::Target => 1,
        }
    }

    /// The word operators see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
