//! Comparing a route's rows: one pass at a time, its report, and what it found.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::Side;
use crate::binlog::Position;
use crate::compare::divergences::{Divergence, Divergences};
use crate::compare::{self, Boxed, Comparer, Kind, Parts, Repair, Repaired, Report};
use crate::copy::select::Bound;
use crate::follow::batch::TableName;
use crate::follow::heal::Healer;
use crate::follow::tables::Followed;
use crate::route::gate::Routes;
use crate::route::table::Route;

use super::view::View;
use super::watch::{WatchView, Watching};
use super::{Inner, Plane, kept, shapes};

/// Chunks compared at the same time, a route.
const SLOTS: usize = 2;

/// For the follower to get to a barrier of the comparison.
const BARRIER_LIMIT: Duration = Duration::from_secs(30);

/// `compare` of a route in `status`.
#[derive(Clone, PartialEq, Debug)]
pub struct CompareView {
    /// A pass is under way.
    pub running: bool,
    /// When the last complete pass without a difference ended, in this phase.
    pub last_clean_at: Option<SystemTime>,
    /// Rows compared by the pass under way, or by the last one.
    pub rows_compared: u64,
    /// Rows in all, as the server estimates.
    pub rows_estimated: u64,
    /// Rows proven different and not repaired.
    pub divergent_open: u64,
    /// Rows repaired by the last pass.
    pub repaired: u64,
    /// Why the last pass did not end, or says nothing any more.
    pub error: Option<String>,
    /// What was seen in the mirror's log; None where it is not read.
    pub watch: Option<WatchView>,
}

/// What is known of a route's rows.
#[derive(Default)]
pub(super) struct Known {
    pub(super) running: bool,
    /// The epoch that the rest is about; None before the first pass.
    pub(super) epoch: Option<u64>,
    pub(super) clean_at: Option<SystemTime>,
    pub(super) error: Option<String>,
    /// Why the last pass was not clean.
    pub(super) said: Option<String>,
    /// Why a pass says nothing any more, however clean it was.
    pub(super) voided: Option<String>,
    /// Where each table's next window begins.
    pub(super) windows: Vec<(TableName, String)>,
    /// The stream beside which the mirror is watched, and the place in the
    /// mirror's log before which all is verified.
    pub(super) watched: Option<(String, Position)>,
}

/// Comparisons of one route.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) known: Mutex<Known>,
    status: Arc<compare::Status>,
    pub(super) divergences: Arc<Divergences>,
    /// The watcher's part.
    pub(super) watching: Watching,
    /// As the store has it, the divergences apart.
    pub(super) written: Mutex<String>,
    /// Read while rows are repaired.
    repairs: Arc<RwLock<()>>,
}

impl Compared {
    pub(super) fn restored(known: Known, list: Divergences, written: String) -> Compared {
        Compared {
            known: Mutex::new(known),
            divergences: Arc::new(list),
            written: Mutex::new(written),
            ..Compared::default()
        }
    }

    /// Waits until no row is being repaired, and lets none be until what is
    /// returned is dropped.
    ///
    /// # Errors
    /// Not by then.
    pub(super) async fn hold_repairs(
        &self,
        until: Instant,
    ) -> Result<OwnedRwLockWriteGuard<()>, String> {
        let held = tokio::time::timeout_at(until.into(), self.repairs.clone().write_owned());
        let held = held.await;
        held.map_err(|_| "a comparison is repairing rows, and does not come to an end".to_owned())
    }

    /// Whatever was found equal may not be any more: only a complete pass that
    /// begins later tells.
    pub(super) fn void(&self, why: &str) {
        let mut known = self.known.lock();
        known.clean_at = None;
        if known.voided.as_deref() != Some(why) {
            known.voided = Some(why.to_owned());
        }
    }

    /// A table was altered on both sides: voids a pass that has ended, and one
    /// that is under way.
    pub(super) fn altered(&self) {
        let known = self.known.lock();
        let any = known.running || known.clean_at.is_some();
        drop(known);
        if any {
            self.void("a table was altered on both sides");
        }
    }

    /// See [`Plane::compare_fact`].
    fn fact(&self, epoch: u64, age_max: Duration) -> Option<(bool, String)> {
        let known = self.known.lock();
        if let Some(why) = &known.voided {
            return Some((false, format!("{why}: compare again")));
        }
        if known.epoch != Some(epoch) {
            return None;
        }
        let open = self.divergences.open();
        if open > 0 {
            return Some((false, format!("{open} row(s) differ: lockstep divergences")));
        }
        if let Some(why) = &known.error {
            return Some((false, format!("the last comparison did not end: {why}")));
        }
        let Some(at) = known.clean_at else {
            return Some((false, known.said.clone().unwrap_or_default()));
        };
        let age = at.elapsed().unwrap_or_default();
        let detail = format!(
            "clean {} s ago, {} s allowed",
            age.as_secs(),
            age_max.as_secs()
        );
        Some((age <= age_max, detail))
    }

    /// A pass is over. `voided` is what voided the one before it.
    fn passed(
        &self,
        epoch: u64,
        kind: Kind,
        done: &Result<Report, String>,
        voided: Option<String>,
    ) {
        let mut known = self.known.lock();
        match done {
            // No proof of anything.
            Ok(_) if kind == Kind::Window => known.voided = known.voided.take().or(voided),
            Ok(report) => {
                let clean = report.is_clean() && known.voided.is_none();
                known.epoch = Some(epoch);
                known.error = None;
                known.clean_at = clean.then(SystemTime::now);
                known.said = (!report.is_clean()).then(|| unclean(report));
            }
            Err(why) => {
                known.voided = known.voided.take().or(voided);
                known.epoch = Some(epoch);
                known.clean_at = None;
                known.error = Some(why.clone());
            }
        }
    }

    /// A comparer of this route's rows.
    pub(super) fn comparer(
        &self,
        inner: &Inner,
        spec: &Sides<'_>,
        status: Arc<compare::Status>,
        proven: Option<compare::Proven>,
    ) -> Comparer {
        let accounts = [spec.active, spec.active.other()].map(|side| inner.account(side).clone());
        let [from, to] = accounts.clone();
        let (stream, number) = (spec.stream.to_owned(), spec.healer);
        let allowed = Allowed {
            repairs: self.repairs.clone(),
            routes: inner.routes.clone(),
            route: spec.route.to_owned(),
            active: spec.active,
        };
        let healer = move || -> Box<dyn Repair> {
            let healer = Healer::new(from.clone(), to.clone(), &stream, number);
            Box::new(Guarded {
                healer,
                allowed: allowed.clone(),
            })
        };
        let barrier = spec.view.clone().map(|view| {
            let barrier = move || -> Boxed<'static, Result<(), String>> {
                let view = view.clone();
                Box::pin(async move { view.barrier(BARRIER_LIMIT).await })
            };
            Arc::new(barrier) as compare::Barrier
        });
        let replica = |side: Side| inner.replicas.get(side.index()).cloned().flatten();
        Comparer::new(Parts {
            accounts,
            replicas: [spec.active, spec.active.other()].map(replica),
            catalog: inner.catalog.published(),
            barrier,
            healers: spec.repair.then(|| Arc::new(healer) as compare::Healers),
            divergences: self.divergences.clone(),
            status,
            slots: SLOTS,
            proven,
        })
    }
}

/// Whether rows may be repaired from one side to the other.
#[derive(Clone)]
struct Allowed {
    repairs: Arc<RwLock<()>>,
    routes: Arc<Routes>,
    route: String,
    active: Side,
}

impl Allowed {
    fn is(&self) -> bool {
        let table = self.routes.load();
        let at = table.index_of(&self.route);
        let route = at.and_then(|at| table.routes.get(at));
        route.is_some_and(|r| r.phase.active() == self.active)
    }
}

/// A healer that an edge can hold up ([`Compared::hold_repairs`]). A pass goes on
/// beside edges:
/// 1. It has proven rows of the mirror different, and begins to repair them.
/// 2. The route flips: the mirror is the active side now.
/// 3. A row is written there; on the other side that write is deferred.
/// 4. The pass writes the other side's older row over it.
struct Guarded {
    healer: Healer,
    allowed: Allowed,
}

impl Repair for Guarded {
    fn repair<'a>(
        &'a mut self,
        name: &'a TableName,
        table: &'a Followed,
        keys: &'a [Bound],
    ) -> Boxed<'a, Result<Vec<Repaired>, String>> {
        Box::pin(async move {
            let _repairs = self.allowed.repairs.read().await;
            if !self.allowed.is() {
                return Err("the route has another active side now".to_owned());
            }
            Repair::repair(&mut self.healer, name, table, keys).await
        })
    }
}

/// What a comparer of a route is made for.
pub(super) struct Sides<'a> {
    pub(super) route: &'a str,
    pub(super) active: Side,
    pub(super) stream: &'a str,
    /// Number of its healers among those of the stream: beyond the follower's.
    pub(super) healer: usize,
    pub(super) view: Option<Arc<View>>,
    pub(super) repair: bool,
}

/// Why no comparison was started.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum NotNow {
    /// One is under way.
    #[error("a comparison of {0} is under way")]
    Running(String),
    /// There is nothing to compare with.
    #[error("{0} is in {1}: both sides hold its rows from syncing on, when they are copied")]
    Phase(String, &'static str),
}

impl Plane {
    pub(super) fn compared(&self, route: &str) -> Arc<Compared> {
        let mut all = self.compared.lock();
        if let Some(known) = all.get(route) {
            return known.clone();
        }
        let loaded = Arc::new(kept::load(self.inner.store.as_ref(), route));
        all.insert(route.to_owned(), loaded.clone());
        loaded
    }

    /// Compares a route's rows; returns when the pass is over.
    ///
    /// # Errors
    /// Not now, or the pass did not get to its end.
    pub async fn compare(
        &self,
        route: &Route,
        kind: Kind,
        repair: bool,
    ) -> Result<Result<Report, String>, NotNow> {
        if super::work(route.phase).is_none() {
            return Err(NotNow::Phase(route.name.clone(), route.phase.as_str()));
        }
        let compared = self.compared(&route.name);
        let running = {
            let mut known = compared.known.lock();
            if known.running {
                return Err(NotNow::Running(route.name.clone()));
            }
            known.running = true;
            Running(compared.clone())
        };
        let mark = self.to_be_compared(route);
        // What voids an earlier pass while this one runs voids this one too.
        let voided = compared.known.lock().voided.take();
        let done = self.pass(route, &compared, kind, repair).await;
        let whole = matches!(kind, Kind::Full | Kind::Strong);
        if whole && matches!(&done, Ok(report) if report.is_clean()) {
            self.found_equal(mark).await;
        }
        compared.passed(route.epoch, kind, &done, voided);
        drop(running);
        kept::keep(&self.inner.store, vec![(route.name.clone(), compared)]).await;
        Ok(done)
    }

    async fn pass(
        &self,
        route: &Route,
        compared: &Compared,
        kind: Kind,
        repair: bool,
    ) -> Result<Report, String> {
        let inner = &self.inner;
        for loaded in inner.catalog.refresh().await {
            loaded.map_err(|e| e.to_string())?;
        }
        let active = route.phase.active();
        let tables = tables(inner, route, active);
        let follow = route.follow.as_ref();
        let sides = Sides {
            route: &route.name,
            active,
            stream: follow.map_or("", |f| f.stream.as_str()),
            healer: HEALER,
            view: self.view(&route.name),
            repair,
        };
        let comparer = compared.comparer(inner, &sides, compared.status.clone(), None);
        comparer.restore_windows(compared.known.lock().windows.clone());
        let report = comparer.run(&tables, kind, repair).await;
        if kind == Kind::Window {
            compared.known.lock().windows = comparer.window_ends();
        }
        report.map_err(|e| e.to_string())
    }

    /// `compare` of a route in status; None before the first pass.
    pub fn compare_view(&self, route: &Route) -> Option<CompareView> {
        let compared = self.compared(&route.name);
        let known = compared.known.lock();
        let open = compared.divergences.open();
        let watch = route.phase.mirrored().then(|| compared.watching.view());
        let nothing = known.epoch.is_none() && !known.running && known.voided.is_none();
        if nothing && watch.is_none() && open == 0 {
            return None;
        }
        let current = known.epoch == Some(route.epoch);
        let status = &compared.status;
        Some(CompareView {
            running: known.running,
            last_clean_at: known.clean_at.filter(|_| current),
            rows_compared: status.rows_compared.load(Ordering::Relaxed),
            rows_estimated: status.rows_estimated.load(Ordering::Relaxed),
            divergent_open: open,
            repaired: status.repaired.load(Ordering::Relaxed),
            error: known.voided.clone().or_else(|| known.error.clone()),
            watch,
        })
    }

    /// Whether the last pass of this phase was complete and clean and not older
    /// than `age_max`, with words for people. None: there was none.
    pub fn compare_fact(&self, route: &Route, age_max: Duration) -> Option<(bool, String)> {
        let compared = self.compared(&route.name);
        let (clean, detail) = compared.fact(route.epoch, age_max)?;
        let watched = super::work(route.phase).is_some_and(|w| w.heal);
        if clean && watched && compared.watching.is_blind() {
            let why = "what others write on the mirror is not seen now";
            return Some((false, format!("{detail}, but {why}: see `watch` in status")));
        }
        Some((clean, detail))
    }

    /// Rows of a route that are known to differ.
    pub fn open(&self, route: &Route) -> u64 {
        self.compared(&route.name).divergences.open()
    }

    /// Rows proven different, and how many more there are than are listed.
    pub fn divergences(&self, route: &str) -> (Vec<Divergence>, u64) {
        let compared = self.compared(route);
        (compared.divergences.list(), compared.divergences.more())
    }
}

/// Number of a pass's healer.
const HEALER: usize = 1000;

/// Ends the mark of a pass however it ends.
struct Running(Arc<Compared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.known.lock().running = false;
    }
}

/// Why a pass without an open divergence is not clean.
fn unclean(report: &Report) -> String {
    let mut tables = report.tables.iter();
    let first = tables.find(|t| t.verdict != compare::Verdict::Compared);
    match first {
        Some(table) => format!("{}: {:?}", table.table, table.verdict),
        None => "rows differed".to_owned(),
    }
}

/// The route's tables on its active side.
fn tables(inner: &Inner, route: &Route, active: Side) -> Vec<TableName> {
    let fold = inner.routes.load().fold_names;
    shapes::tables(
        |db, t| route.covers(db, t, fold),
        active,
        &inner.catalog.snapshot(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(open: u64) -> Result<Report, String> {
        Ok(Report {
            tables: Vec::new(),
            rows: 3,
            divergent: open,
            repaired: 0,
            open,
            hot: 0,
            weak: None,
        })
    }

    fn is_clean(compared: &Compared) -> Option<bool> {
        let fact = compared.fact(7, Duration::from_secs(60));
        fact.map(|(clean, _)| clean)
    }

    #[test]
    fn lost_history_voids_until_a_pass_that_began_later() {
        let compared = Compared::default();
        assert_eq!(is_clean(&compared), None);
        compared.passed(7, Kind::Full, &report(0), None);
        assert_eq!(is_clean(&compared), Some(true));
        assert_eq!(compared.fact(8, Duration::from_secs(60)), None);
        compared.void("history lost");
        let (clean, why) = compared.fact(7, Duration::from_secs(60)).unwrap();
        assert!(!clean && why == "history lost: compare again", "{why}");
        // While a pass ran.
        compared.passed(7, Kind::Full, &report(0), None);
        assert_eq!(is_clean(&compared), Some(false));
        // A window, and a pass that did not end, prove nothing.
        let voided = compared.known.lock().voided.take();
        compared.passed(7, Kind::Window, &report(0), voided);
        assert_eq!(is_clean(&compared), Some(false));
        let voided = compared.known.lock().voided.take();
        compared.passed(7, Kind::Full, &Err("no".to_owned()), voided);
        assert_eq!(is_clean(&compared), Some(false));
        let voided = compared.known.lock().voided.take();
        compared.passed(7, Kind::Full, &report(0), voided);
        assert_eq!(is_clean(&compared), Some(true));
        compared.passed(7, Kind::Full, &report(1), None);
        assert_eq!(is_clean(&compared), Some(false));
    }

    #[test]
    fn what_is_void_is_void_after_a_restart() {
        let store = Notes::default();
        let compared = kept::load(&store, "r");
        compared.passed(7, Kind::Full, &report(0), None);
        compared.keep(&store, "r").unwrap();
        assert_eq!(is_clean(&kept::load(&store, "r")), Some(true));
        compared.void("history lost");
        compared.keep(&store, "r").unwrap();
        assert_eq!(is_clean(&kept::load(&store, "r")), Some(false));
        let writes = store.0.lock().1;
        compared.keep(&store, "r").unwrap();
        assert_eq!(store.0.lock().1, writes, "nothing was new");
    }

    /// Notes, and how often some were written.
    #[derive(Default)]
    struct Notes(Mutex<(std::collections::BTreeMap<String, String>, u32)>);

    impl crate::store::Store for Notes {
        fn instance_id(&self) -> &str {
            "test"
        }
        fn load_routes(&self) -> Result<Vec<crate::store::StoredRoute>, crate::store::StoreError> {
            Ok(Vec::new())
        }
        fn save_route(
            &self,
            _: &crate::store::StoredRoute,
        ) -> Result<(), crate::store::StoreError> {
            Ok(())
        }
        fn load_notes(&self, _: &str) -> Result<Vec<(String, String)>, crate::store::StoreError> {
            Ok(self.0.lock().0.clone().into_iter().collect())
        }
        fn save_notes(
            &self,
            _: &str,
            changes: &[crate::store::Note],
        ) -> Result<(), crate::store::StoreError> {
            let mut all = self.0.lock();
            all.1 += 1;
            for (name, text) in changes {
                match text {
                    Some(text) => all.0.insert(name.clone(), text.clone()),
                    None => all.0.remove(name),
                };
            }
            Ok(())
        }
        fn remove_route(&self, _: &str) -> Result<(), crate::store::StoreError> {
            Ok(())
        }
    }
}
