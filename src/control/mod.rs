//! The control port: HTTP for operators and scripts, and the command line's
//! client of it (DESIGN §9).
//!
//! A request passes the token, then a bound on requests at once, then its
//! handler; every answer but the metrics and the page is JSON. Handlers read
//! snapshots; whatever changes a route goes through [`Migration`], on a task of
//! its own, so that a client that hangs up does not leave an edge half taken.

pub mod cli;
mod client;
mod explain;
mod http;
mod page;
mod preflight;
mod print;
mod status;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::config::Password;
use crate::migration::Migration;

pub use http::{router, serve};
pub use preflight::Preflight;

/// The version operators see.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the control port shows of parts it does not own.
pub trait Views: Send + Sync {
    /// The clients, as a JSON list.
    fn sessions(&self) -> serde_json::Value;
    /// Writes the mirror has not got, as JSON.
    fn journal(&self) -> serde_json::Value;
}

/// What the handlers work with.
pub struct Control {
    /// Routes and what is known of the backends.
    pub migration: Arc<Migration>,
    /// Parts owned elsewhere.
    pub views: Arc<dyn Views>,
    /// The source's and the target's address.
    pub addresses: [String; 2],
    /// The bearer token; empty: none is asked for.
    pub token: Password,
    /// Whether the data port listens.
    pub listening: AtomicBool,
    /// `lockstep check` on the running proxy.
    pub preflight: Preflight,
    /// Requests being answered now.
    pub(crate) requests: AtomicUsize,
}

impl Control {
    /// Ready to serve.
    pub fn new(
        migration: Arc<Migration>,
        views: Arc<dyn Views>,
        addresses: [String; 2],
        token: Password,
    ) -> Arc<Control> {
        Arc::new(Control {
            migration,
            views,
            addresses,
            token,
            listening: AtomicBool::new(false),
            preflight: Preflight::default(),
            requests: AtomicUsize::new(0),
        })
    }
}
