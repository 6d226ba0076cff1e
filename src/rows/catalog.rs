//! Keeps the catalog of table shapes current: at start, on every poke (a DDL
//! seen here, a route added), and every few seconds for DDL that came past the
//! proxy.
//!
//! Both sides are read at the same time. A side that cannot be read keeps the
//! shapes it had and counts as stale; sessions go on with them, for a backend
//! that is down changes no tables. A new snapshot is published only when
//! something differs, so plans made from the old one stay cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify};

use super::load::{self, Tables};
use super::service::{ServiceAccount, ServiceConn, ServiceError};
use super::shape::Catalog;
use crate::Side;

pub use super::load::{TABLES_MAX, Wanted};

/// Shortest time between two refreshes: a migration script with hundreds of
/// DDL statements shall not keep information_schema busy.
const SPACING: Duration = Duration::from_millis(100);

/// For all queries of one side: thousands of tables on a slow server.
const SIDE_LIMIT: Duration = Duration::from_secs(60);

/// The loader; one per process.
pub struct CatalogLoader {
    catalog: Arc<ArcSwap<Catalog>>,
    wanted: Arc<dyn Wanted>,
    poke: Arc<Notify>,
    interval: Duration,
    conns: Mutex<[ServiceConn; 2]>,
    loaded: [AtomicBool; 2],
    stale: [AtomicBool; 2],
}

impl CatalogLoader {
    /// Publishes into `catalog`. `poke` is woken by sessions after DDL.
    pub fn new(
        catalog: Arc<ArcSwap<Catalog>>,
        wanted: Arc<dyn Wanted>,
        poke: Arc<Notify>,
        interval: Duration,
        accounts: [ServiceAccount; 2],
    ) -> CatalogLoader {
        CatalogLoader {
            catalog,
            wanted,
            poke,
            interval,
            conns: Mutex::new(accounts.map(ServiceConn::new)),
            loaded: [AtomicBool::new(false), AtomicBool::new(false)],
            stale: [AtomicBool::new(true), AtomicBool::new(true)],
        }
    }

    /// Whether a side was read at least once.
    pub fn loaded(&self, side: Side) -> bool {
        flag(&self.loaded, side).load(Ordering::Acquire)
    }

    /// Whether a side's last read failed.
    pub fn stale(&self, side: Side) -> bool {
        flag(&self.stale, side).load(Ordering::Acquire)
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Where snapshots are published.
    pub fn published(&self) -> Arc<ArcSwap<Catalog>> {
        self.catalog.clone()
    }

    /// Asks for a refresh soon, without waiting for it.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// Reads both sides now and publishes what changed.
    pub async fn refresh(&self) -> [Result<(), ServiceError>; 2] {
        let mut conns = self.conns.lock().await;
        let [source, target] = &mut *conns;
        let (source, target) = tokio::join!(
            read(source, Side::Source, self.wanted.as_ref()),
            read(target, Side::Target, self.wanted.as_ref()),
        );
        let old = self.catalog.load_full();
        let mut new = Catalog::new(self.wanted.fold());
        let source = self.take(&old, &mut new, Side::Source, source);
        let target = self.take(&old, &mut new, Side::Target, target);
        let both = source.is_ok() && target.is_ok();
        if both || !same(&old, &new) {
            new.generation = old.generation + u64::from(both);
            self.catalog.store(Arc::new(new));
        }
        [source, target]
    }

    /// Puts one side into the new snapshot: what was read, or what was known.
    fn take(
        &self,
        old: &Catalog,
        new: &mut Catalog,
        side: Side,
        read: Result<Tables, ServiceError>,
    ) -> Result<(), ServiceError> {
        flag(&self.stale, side).store(read.is_err(), Ordering::Release);
        match read {
            Ok(tables) => {
                for (schema, name, shape) in tables {
                    new.insert(&schema, &name, side, shape);
                }
                flag(&self.loaded, side).store(true, Ordering::Release);
                Ok(())
            }
            Err(e) => {
                for (schema, name, pair) in old.iter() {
                    if let Some(shape) = pair.on(side) {
                        new.insert(schema, name, side, shape.clone());
                    }
                }
                Err(e)
            }
        }
    }

    /// Refreshes for ever.
    pub async fn run(self: Arc<Self>) {
        let mut failing = [false, false];
        loop {
            let _ = tokio::time::timeout(self.interval, self.poke.notified()).await;
            for (failed, result) in failing.iter_mut().zip(self.refresh().await) {
                match result {
                    Ok(()) => *failed = false,
                    Err(e) => {
                        crate::telemetry::error(e.side.as_str(), "catalog");
                        // Said once per outage.
                        if !std::mem::replace(failed, true) {
                            tracing::warn!("table shapes are not refreshed: {e}");
                        }
                    }
                }
            }
            tokio::time::sleep(SPACING).await;
        }
    }
}

fn flag(pair: &[AtomicBool; 2], side: Side) -> &AtomicBool {
    let [source, target] = pair;
    match side {
        Side::Source => source,
        Side::Target => target,
    }
}

async fn read(
    conn: &mut ServiceConn,
    side: Side,
    wanted: &dyn Wanted,
) -> Result<Tables, ServiceError> {
    match tokio::time::timeout(SIDE_LIMIT, load::side(conn, wanted)).await {
        Ok(result) => result,
        Err(_) => Err(ServiceError {
            side,
            kind: "timeout",
            message: "information_schema took too long".to_owned(),
        }),
    }
}

fn same(a: &Catalog, b: &Catalog) -> bool {
    a.iter().count() == b.iter().count()
        && a.iter()
            .all(|(schema, name, pair)| b.get(schema, name) == Some(pair))
}
