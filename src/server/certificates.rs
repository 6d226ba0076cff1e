//! Certificates that change while the process runs.
//!
//! Their files are looked at every few seconds, and at SIGHUP. New connections
//! use what was read last; those that are there go on as they are. Files that
//! do not fit together (a new certificate whose key is not there yet) are
//! said so once, and the old ones stay in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::tls::{self, ClientAuth, LegTls, Pair, TlsError};

/// Between two looks. A renewed certificate is valid for days before the old
/// one ends; an operator who replaces one by hand wants to see it at once.
const INTERVAL: Duration = Duration::from_secs(2);

/// What tells one state of a file from another: a renewal by rename may keep
/// the size, and a copy may keep the time.
type Stamp = Option<(SystemTime, u64, u64)>;

/// One set of files and what to do when they change.
struct Item {
    /// For the log: whose certificate it is.
    name: String,
    files: Vec<(PathBuf, Stamp)>,
    reload: Box<dyn Fn() -> Result<(), TlsError> + Send>,
}

impl Item {
    /// Loads the files again if one of them changed, or if `forced`.
    fn look(&mut self, forced: bool) {
        let mut changed = forced;
        for (path, seen) in &mut self.files {
            let now = stamp(path);
            changed |= *seen != now;
            *seen = now;
        }
        if !changed {
            return;
        }
        match (self.reload)() {
            Ok(()) => tracing::info!(certificate = self.name, "certificate loaded anew"),
            Err(error) => tracing::error!(
                certificate = self.name,
                %error,
                "the changed certificate cannot be used; the old one stays in use"
            ),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    let inode = std::os::unix::fs::MetadataExt::ino(&meta);
    Some((meta.modified().ok()?, meta.len(), inode))
}

/// All certificates in use.
#[derive(Default)]
pub struct Certificates {
    items: Vec<Item>,
}

impl Certificates {
    /// Loads the certificate for clients.
    ///
    /// # Errors
    /// Its files cannot be used.
    pub fn for_clients(
        &mut self,
        pair: Pair,
        clients: Option<ClientAuth>,
    ) -> Result<Arc<ArcSwap<ServerConfig>>, TlsError> {
        let mut files = vec![pair.cert.clone(), pair.key.clone()];
        files.extend(clients.iter().map(|c| c.ca.clone()));
        let files = stamped(files);
        let config = tls::server_config(&pair, clients.as_ref())?;
        let current = Arc::new(ArcSwap::new(config));
        let shared = current.clone();
        let reload = move || {
            shared.store(tls::server_config(&pair, clients.as_ref())?);
            Ok(())
        };
        self.items.push(Item {
            name: "tls".to_owned(),
            files,
            reload: Box::new(reload),
        });
        Ok(current)
    }

    /// Watches what legs use.
    pub fn for_legs(&mut self, name: String, tls: &Arc<LegTls>) {
        let files = stamped(tls.files());
        if files.is_empty() {
            return;
        }
        let tls = tls.clone();
        self.items.push(Item {
            name,
            files,
            reload: Box::new(move || tls.reload()),
        });
    }

    /// Watches for ever.
    pub async fn watch(mut self) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let forced = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                () = asked(&mut hangup) => true,
            };
            // Reads files: off the runtime's threads.
            let looked = tokio::task::spawn_blocking(move || {
                for item in &mut self.items {
                    item.look(forced);
                }
                self
            });
            match looked.await {
                Ok(back) => self = back,
                Err(_) => return,
            }
        }
    }
}

fn stamped(files: Vec<PathBuf>) -> Vec<(PathBuf, Stamp)> {
    let with = |path: PathBuf| {
        let seen = stamp(&path);
        (path, seen)
    };
    files.into_iter().map(with).collect()
}

async fn asked(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}
