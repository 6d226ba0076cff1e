//! What comparisons found, kept over a restart: the last pass, divergences, the
//! windows' ends, and where the watcher is.
//!
//! All of it goes to the store within [`KEEP`], and in this order:
//!
//! 1. divergences;
//! 2. the rest.
//!
//! So that a place of the watcher, or a clean pass, never stands there without
//! the divergences found before it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::binlog::Position;
use crate::compare::divergences::Divergences;
use crate::follow::batch::TableName;
use crate::store::{Note, Store, StoreError};

use super::compare::{Compared, Known};

/// How often what is new is written down.
pub(super) const KEEP: Duration = Duration::from_secs(1);

/// Divergences in one commit: some 400 bytes each.
const CHANGES_MAX: usize = 5_000;

/// Names of the notes.
const PASS: &str = "compare";
const ROW: &str = "row/";

/// What is kept besides divergences.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Pass {
    epoch: Option<u64>,
    clean_at_ms: Option<u64>,
    error: Option<String>,
    said: Option<String>,
    voided: Option<String>,
    more: u64,
    /// Schema, table, end.
    windows: Vec<(Vec<u8>, Vec<u8>, String)>,
    watched: Option<(String, String)>,
}

fn ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Pass {
    fn of(known: &Known, list: &Divergences) -> Pass {
        let windows = known.windows.iter();
        Pass {
            epoch: known.epoch,
            clean_at_ms: known.clean_at.map(ms),
            error: known.error.clone(),
            said: known.said.clone(),
            voided: known.voided.clone(),
            more: list.more(),
            windows: windows
                .map(|(n, end)| (n.schema.clone(), n.table.clone(), end.clone()))
                .collect(),
            watched: known
                .watched
                .as_ref()
                .map(|(stream, at)| (stream.clone(), at.to_string())),
        }
    }

    fn known(self) -> Known {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let windows = self.windows.into_iter();
        let name = |schema, table| TableName { schema, table };
        let watched = self.watched.and_then(|(stream, at)| {
            let at: Position = at.parse().ok()?;
            Some((stream, at))
        });
        Known {
            running: false,
            epoch: self.epoch,
            clean_at: self.clean_at_ms.map(at),
            error: self.error,
            said: self.said,
            voided: self.voided,
            windows: windows.map(|(s, t, end)| (name(s, t), end)).collect(),
            watched,
        }
    }
}

/// What the store has of a route. What cannot be read is said, and is as if it
/// had never been: a comparison finds it again.
pub(super) fn load(store: &dyn Store, route: &str) -> Compared {
    let notes = store.load_notes(route).unwrap_or_else(|e| {
        tracing::error!(route, "what comparisons found cannot be read: {e}");
        Vec::new()
    });
    let mut pass = Pass::default();
    let mut rows = Vec::new();
    for (name, text) in notes {
        if name == PASS {
            match serde_json::from_str(&text) {
                Ok(read) => pass = read,
                Err(e) => tracing::error!(route, "the last comparison cannot be read: {e}"),
            }
        } else if name.starts_with(ROW) {
            match serde_json::from_str(&text) {
                Ok(row) => rows.push(row),
                // Counted: it is open still.
                Err(_) => pass.more += 1,
            }
        }
    }
    let list = Divergences::restore(rows, pass.more);
    let written = serde_json::to_string(&pass).unwrap_or_default();
    Compared::restored(pass.known(), list, written)
}

impl Compared {
    /// Writes down what is new. Blocks.
    pub(super) fn keep(&self, store: &dyn Store, route: &str) -> Result<(), StoreError> {
        let mut written = self.written.lock();
        // Before the divergences: what is known now is about those listed now.
        let pass = Pass::of(&self.known.lock(), &self.divergences);
        loop {
            let changes = self.divergences.to_keep(CHANGES_MAX);
            if changes.is_empty() {
                break;
            }
            let notes: Vec<Note> = changes
                .iter()
                .map(|change| {
                    let text = change.now.as_ref();
                    let text = text.and_then(|d| serde_json::to_string(d).ok());
                    (format!("{ROW}{}", change.name()), text)
                })
                .collect();
            if let Err(e) = store.save_notes(route, &notes) {
                self.divergences.not_kept(changes);
                return Err(e);
            }
        }
        let text = serde_json::to_string(&pass).map_err(|e| StoreError::Failed(e.to_string()))?;
        if *written != text {
            store.save_notes(route, &[(PASS.to_owned(), Some(text.clone()))])?;
            *written = text;
        }
        Ok(())
    }
}

/// Writes down what is new of these, off the runtime's threads.
pub(super) async fn keep(store: &Arc<dyn Store>, all: Vec<(String, Arc<Compared>)>) {
    let store = store.clone();
    let kept = tokio::task::spawn_blocking(move || {
        for (route, compared) in all {
            if let Err(e) = compared.keep(store.as_ref(), &route) {
                crate::telemetry::error("proxy", "state");
                tracing::warn!(route, "what comparisons found cannot be kept: {e}");
            }
        }
    });
    // It does not panic, and nobody aborts it.
    let _ = kept.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_survives_text() {
        let name = TableName {
            schema: b"s".to_vec(),
            table: vec![0xff, b't'],
        };
        let known = Known {
            epoch: Some(3),
            clean_at: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
            voided: Some("why".to_owned()),
            windows: vec![(name, "2026-01-01 00:00:00".to_owned())],
            watched: "file:binlog.000001:4"
                .parse()
                .ok()
                .map(|p| ("r.1".to_owned(), p)),
            ..Known::default()
        };
        let pass = Pass::of(&known, &Divergences::default());
        let text = serde_json::to_string(&pass).unwrap();
        let read: Pass = serde_json::from_str(&text).unwrap();
        assert_eq!(read, pass);
        let back = read.known();
        assert_eq!(Pass::of(&back, &Divergences::default()), pass);
        assert!(back.watched.is_some());
    }
}
