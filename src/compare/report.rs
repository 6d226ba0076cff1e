//! What a compare says: while it runs, and when it is done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::sync::watch;

use crate::follow::batch::TableName;

use super::Comparer;

/// How far a compare is; also its switch.
#[derive(Debug)]
pub struct Status {
    /// Rows of the active side compared.
    pub rows_compared: AtomicU64,
    /// Rows in all, as the server estimates.
    pub rows_estimated: AtomicU64,
    /// Chunks compared.
    pub chunks: AtomicU64,
    /// Rows that differed when they were first read.
    pub suspects: AtomicU64,
    /// Rows that changed too often to be compared: the follower sees each
    /// change.
    pub hot: AtomicU64,
    /// Rows proven different.
    pub divergent: AtomicU64,
    /// Rows repaired.
    pub repaired: AtomicU64,
    /// Keys handed on whose table could not be read as it stands.
    pub unverified: AtomicU64,
    /// Why the last repair failed, for people.
    pub repair_error: parking_lot::Mutex<Option<String>>,
    paused: watch::Sender<bool>,
}

impl Default for Status {
    fn default() -> Status {
        Status {
            rows_compared: AtomicU64::new(0),
            rows_estimated: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            suspects: AtomicU64::new(0),
            hot: AtomicU64::new(0),
            divergent: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            unverified: AtomicU64::new(0),
            repair_error: parking_lot::Mutex::default(),
            paused: watch::Sender::new(false),
        }
    }
}

impl Status {
    /// Stops the walk after the chunks it is at; it goes on from there.
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Returns when it is not.
    pub(super) async fn resumed(&self) {
        let mut paused = self.paused.subscribe();
        // The sender lives as long as we do.
        let _ = paused.wait_for(|paused| !paused).await;
    }

    pub(super) fn begin(&self) {
        for number in [
            &self.rows_compared,
            &self.rows_estimated,
            &self.chunks,
            &self.suspects,
            &self.hot,
            &self.divergent,
            &self.repaired,
        ] {
            number.store(0, Ordering::Relaxed);
        }
        *self.repair_error.lock() = None;
    }
}

/// What a compare says of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every row was compared; those that differ are in the list.
    Compared,
    /// Rows changed lately were compared, which is no proof.
    NotProof,
    /// No key: the table as a whole differs.
    Different,
    /// No key, and it changed each time it was read.
    Unsettled,
    /// Why it was not, or not wholly, compared.
    NotCompared(String),
}

/// One table's part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableReport {
    /// `schema.table`.
    pub table: String,
    /// Rows of the active side compared.
    pub rows: u64,
    /// What can be said.
    pub verdict: Verdict,
}

/// What a compare found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// All tables that were asked for.
    pub tables: Vec<TableReport>,
    /// Rows of the active side compared.
    pub rows: u64,
    /// Rows proven different in this pass.
    pub divergent: u64,
    /// Of them repaired.
    pub repaired: u64,
    /// Open in these tables at the end.
    pub open: u64,
    /// Rows that changed in every round.
    pub hot: u64,
    /// Why this says less than it could, if it does.
    pub weak: Option<&'static str>,
}

impl Report {
    /// Every table was compared and nothing is open.
    pub fn is_clean(&self) -> bool {
        self.open == 0 && self.tables.iter().all(|t| t.verdict == Verdict::Compared)
    }
}

impl Comparer {
    pub(super) fn report(&self, reports: Vec<TableReport>, names: &[TableName]) -> Report {
        let (status, list) = (&self.parts.status, &self.parts.divergences);
        let open: usize = names.iter().map(|n| list.open_of(n).len()).sum();
        let weak = "nothing follows: rows that differed were read again after a delay only";
        Report {
            rows: reports.iter().map(|t| t.rows).sum(),
            tables: reports,
            divergent: status.divergent.load(Ordering::Relaxed),
            repaired: status.repaired.load(Ordering::Relaxed),
            open: open as u64 + list.more(),
            hot: status.hot.load(Ordering::Relaxed),
            weak: self.parts.barrier.is_none().then_some(weak),
        }
    }
}
