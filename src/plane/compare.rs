//! Comparing a route's rows: one pass at a time, its report, and what it found.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::Side;
use crate::compare::divergences::{Divergence, Divergences};
use crate::compare::{self, Boxed, Comparer, Kind, Parts, Repair, Report};
use crate::follow::batch::TableName;
use crate::follow::heal::Healer;
use crate::route::table::Route;

use super::{Inner, Plane, shapes};

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
    /// Why the last pass did not end.
    pub error: Option<String>,
}

/// What is known of a route's rows.
#[derive(Default)]
struct Known {
    running: bool,
    /// The epoch that the rest is about.
    epoch: u64,
    clean_at: Option<SystemTime>,
    error: Option<String>,
    report: Option<Report>,
}

/// Comparisons of one route.
#[derive(Default)]
pub(super) struct Compared {
    known: Mutex<Known>,
    status: Arc<compare::Status>,
    divergences: Arc<Divergences>,
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
    fn compared(&self, route: &str) -> Arc<Compared> {
        let mut all = self.compared.lock();
        all.entry(route.to_owned()).or_default().clone()
    }

    /// Compares a route's rows; returns when the pass is over.
    ///
    /// # Errors
    /// Not now, or the pass did not get to its end.
    pub async fn compare(
        &self,
        route: &Route,
        strong: bool,
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
        let done = self.pass(route, &compared, strong, repair).await;
        if matches!(&done, Ok(report) if report.is_clean()) {
            self.found_equal(mark).await;
        }
        let mut known = compared.known.lock();
        known.epoch = route.epoch;
        known.clean_at = None;
        match &done {
            Ok(report) => {
                known.error = None;
                known.clean_at = report.is_clean().then(SystemTime::now);
                known.report = Some(report.clone());
            }
            Err(why) => known.error = Some(why.clone()),
        }
        drop(known);
        drop(running);
        Ok(done)
    }

    async fn pass(
        &self,
        route: &Route,
        compared: &Compared,
        strong: bool,
        repair: bool,
    ) -> Result<Report, String> {
        let inner = &self.inner;
        for loaded in inner.catalog.refresh().await {
            loaded.map_err(|e| e.to_string())?;
        }
        let active = route.phase.active();
        let tables = tables(inner, route, active);
        let accounts = [active, active.other()].map(|side| inner.account(side).clone());
        let [from, to] = accounts.clone();
        let stream = route
            .follow
            .as_ref()
            .map_or("", |f| f.stream.as_str())
            .to_owned();
        let healer = move || -> Box<dyn Repair> {
            Box::new(Healer::new(from.clone(), to.clone(), &stream, HEALER))
        };
        let view = self.view(&route.name);
        let barrier: Option<compare::Barrier> = view.map(|view| {
            let barrier = move || -> Boxed<'static, Result<(), String>> {
                let view = view.clone();
                Box::pin(async move { view.barrier(BARRIER_LIMIT).await })
            };
            Arc::new(barrier) as compare::Barrier
        });
        let comparer = Comparer::new(Parts {
            accounts,
            replicas: [None, None],
            catalog: inner.catalog.published(),
            barrier,
            healers: repair.then(|| Arc::new(healer) as compare::Healers),
            divergences: compared.divergences.clone(),
            status: compared.status.clone(),
            slots: SLOTS,
        });
        let kind = if strong { Kind::Strong } else { Kind::Full };
        let report = comparer.run(&tables, kind, repair).await;
        report.map_err(|e| e.to_string())
    }

    /// `compare` of a route in status; None before the first pass.
    pub fn compare_view(&self, route: &Route) -> Option<CompareView> {
        let compared = self.compared.lock().get(&route.name).cloned()?;
        let known = compared.known.lock();
        let current = known.epoch == route.epoch;
        let status = &compared.status;
        Some(CompareView {
            running: known.running,
            last_clean_at: known.clean_at.filter(|_| current),
            rows_compared: status.rows_compared.load(Ordering::Relaxed),
            rows_estimated: status.rows_estimated.load(Ordering::Relaxed),
            divergent_open: compared.divergences.open() + compared.divergences.more(),
            repaired: status.repaired.load(Ordering::Relaxed),
            error: known.error.clone(),
        })
    }

    /// Whether the last pass of this phase was complete and clean and not older
    /// than `age_max`, with words for people. None: there was none.
    pub fn compare_fact(&self, route: &Route, age_max: Duration) -> Option<(bool, String)> {
        let compared = self.compared.lock().get(&route.name).cloned()?;
        let known = compared.known.lock();
        if known.epoch != route.epoch {
            return None;
        }
        let open = compared.divergences.open() + compared.divergences.more();
        if open > 0 {
            return Some((false, format!("{open} row(s) differ: lockstep divergences")));
        }
        if let Some(why) = &known.error {
            return Some((false, format!("the last comparison did not end: {why}")));
        }
        let Some(at) = known.clean_at else {
            let said = known.report.as_ref().map(unclean).unwrap_or_default();
            return Some((false, said));
        };
        let age = at.elapsed().unwrap_or_default();
        let detail = format!(
            "clean {} s ago, {} s allowed",
            age.as_secs(),
            age_max.as_secs()
        );
        Some((age <= age_max, detail))
    }

    /// Rows proven different, and how many more there are than are listed.
    pub fn divergences(&self, route: &str) -> (Vec<Divergence>, u64) {
        match self.compared.lock().get(route) {
            Some(compared) => (compared.divergences.list(), compared.divergences.more()),
            None => (Vec::new(), 0),
        }
    }
}

/// Number of the healer among those of its stream: beyond the follower's.
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
