//! The row plane: the background work of each route, by its phase.
//!
//! | phase | log read | how | beside it |
//! | --- | --- | --- | --- |
//! | `syncing` | source | apply | copy |
//! | `source_first` | source | heal | |
//! | `target_first` | target | heal | |
//! | `target_only` | target | apply | |
//!
//! [`Plane::reconcile`] starts and ends one task a route ([`route::work`]) so
//! that it does what the route's phase and its [`FollowStart`] say; it runs
//! after each edge and each second. An edge takes a route out of its hands
//! first ([`Plane::handover`]).
//!
//! Never changes a phase, and never sees a session.

pub mod compare;
pub mod shapes;
pub mod view;

mod definitions;
mod fence;
mod few;
mod handover;
mod journal;
mod kept;
mod make;
mod objects;
mod over;
mod position;
mod replay;
mod route;
pub mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;

use crate::Side;
use crate::auth::Account;
use crate::config::CopySettings;
use crate::follow::beat::Pulse;
use crate::leg::Leg;
use crate::leg::connect::BackendConfig;
use crate::leg::ours::Threads;
use crate::leg::service::ServiceLegs;
use crate::mirror::journal::Journal;
use crate::route::gate::Routes;
use crate::route::table::{Phase, Route};
use crate::rows::catalog::CatalogLoader;
use crate::rows::service::ServiceAccount;
use crate::store::Store;

use compare::Compared;
pub use definitions::{Book, UnderWay, What};
pub use handover::Handover;
pub use journal::JournalView;
use route::Spec;
use view::{CopyView, Copying, FollowView, State, View, Work};

/// How often the tasks are looked at without a reason.
const RECONCILE: Duration = Duration::from_secs(1);

/// How often a follower that begins is looked at.
const BEGINS: Duration = Duration::from_millis(20);

/// Numbers of the row plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections that write, a route.
    pub workers: usize,
    /// How the copy is to hold back.
    pub copy: CopySettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            workers: 4,
            copy: CopySettings::default(),
        }
    }
}

/// What the row plane is made of.
pub struct Inner {
    /// The routing table.
    pub routes: Arc<Routes>,
    /// Table shapes.
    pub catalog: Arc<CatalogLoader>,
    /// The service accounts.
    pub accounts: [ServiceAccount; 2],
    /// Where logs are read, and as whom.
    pub backends: [(BackendConfig, Account); 2],
    /// What the mirror missed.
    pub journal: Arc<Journal>,
    /// Names this installation in what is kept in the databases.
    pub instance: String,
    /// Replicas to compare on first, where there are some.
    pub replicas: [Option<String>; 2],
    /// Thread ids of the sessions' legs.
    pub threads: Arc<[Threads; 2]>,
    /// Keeps what was found over a restart.
    pub store: Arc<dyn Store>,
    /// Numbers.
    pub settings: Settings,
    /// The heartbeats, one a side for all routes.
    pub pulses: [Arc<Pulse>; 2],
    /// DDL that the proxy runs on both sides.
    pub ddl: Arc<Book>,
}

/// The heartbeats of an installation, one a side.
pub fn pulses(accounts: &[ServiceAccount; 2], instance: &str) -> [Arc<Pulse>; 2] {
    accounts.each_ref().map(|account| {
        let name = format!("{instance}.{}", account.side);
        Pulse::new(account.clone(), &name)
    })
}

impl Inner {
    fn account(&self, side: Side) -> &ServiceAccount {
        let [source, target] = &self.accounts;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }

    fn pulse(&self, side: Side) -> &Arc<Pulse> {
        let [source, target] = &self.pulses;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }

    /// Bare connections to a side.
    fn legs(&self, side: Side) -> ServiceLegs {
        let [source, target] = &self.backends;
        let (backend, account) = match side {
            Side::Source => source,
            Side::Target => target,
        };
        ServiceLegs::new(backend.clone(), account.clone())
    }

    /// A logged-in connection that can become a stream of events.
    async fn leg(&self, side: Side) -> Result<Leg, String> {
        self.legs(side).open().await.map_err(|e| e.to_string())
    }
}

/// How a route's follower does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Following {
    /// It is at work.
    pub running: bool,
    /// How far behind, in milliseconds.
    pub lag_ms: Option<u64>,
    /// Why it is not at work.
    pub detail: String,
}

struct Running {
    spec: Spec,
    view: Arc<View>,
    stop: Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends the task and waits until it is gone.
    async fn end(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
        self.view.count(&self.spec.name);
    }
}

#[derive(Default)]
struct Tasks {
    running: HashMap<String, Running>,
    /// Routes in the middle of an edge: left alone.
    held: HashSet<String>,
    paused: HashSet<String>,
}

/// See the module.
pub struct Plane {
    inner: Arc<Inner>,
    tasks: Mutex<Tasks>,
    /// One reconciliation at a time.
    one: tokio::sync::Mutex<()>,
    compared: Mutex<HashMap<String, Arc<Compared>>>,
}

/// What a phase has to be done in the background.
pub fn work(phase: Phase) -> Option<Work> {
    let work = |from, heal, copy| Some(Work { from, heal, copy });
    match phase {
        Phase::SourceOnly | Phase::Done => None,
        Phase::Syncing => work(Side::Source, false, true),
        Phase::SourceFirst => work(Side::Source, true, false),
        Phase::TargetFirst => work(Side::Target, true, false),
        Phase::TargetOnly => work(Side::Target, false, false),
    }
}

fn spec(route: &Route) -> Option<Spec> {
    Some(Spec {
        name: route.name.clone(),
        tables: route.tables.clone(),
        work: work(route.phase)?,
        start: route.follow.clone()?,
    })
}

impl Plane {
    /// Nothing runs yet.
    pub fn new(inner: Inner) -> Arc<Plane> {
        Arc::new(Plane {
            inner: Arc::new(inner),
            tasks: Mutex::default(),
            one: tokio::sync::Mutex::new(()),
            compared: Mutex::default(),
        })
    }

    /// Keeps the tasks as the routes want them.
    pub async fn run(self: Arc<Plane>) {
        for route in &self.inner.routes.load().routes {
            self.compared(&route.name);
        }
        tokio::spawn(self.clone().keep_journal());
        tokio::join!(self.reconciling(), self.keeping());
    }

    async fn reconciling(&self) {
        loop {
            self.reconcile().await;
            self.measure();
            tokio::time::sleep(RECONCILE).await;
        }
    }

    /// Writes down what comparisons found.
    async fn keeping(&self) {
        loop {
            tokio::time::sleep(kept::KEEP).await;
            let table = self.inner.routes.load();
            let all = {
                let mut all = self.compared.lock();
                // A route that was removed has no notes any more.
                all.retain(|name, _| table.index_of(name).is_some());
                all.clone().into_iter().collect()
            };
            kept::keep(&self.inner.store, all).await;
        }
    }

    fn measure(&self) {
        let table = self.inner.routes.load();
        for route in &table.routes {
            let Some(view) = self.view(&route.name) else {
                let wanted = work(route.phase).is_some();
                let lag = (!wanted).then_some(Duration::ZERO);
                crate::telemetry::follow(&route.name, wanted, lag);
                continue;
            };
            let lag = view.lag_ms().map(Duration::from_millis);
            let stopped = view.state().0 != State::Running;
            crate::telemetry::follow(&route.name, stopped, lag);
            view.count(&route.name);
            if let Some(copy) = view.copy() {
                crate::telemetry::copy(&route.name, copy.rows_done, copy.rows_estimated);
            }
        }
        for (name, compared) in self.compared.lock().iter() {
            let seen = compared.watching.view();
            crate::telemetry::watch(name, "foreign", seen.foreign_rows);
            crate::telemetry::watch(name, "unknown", seen.unknown_rows);
            crate::telemetry::watch(name, "unverified", seen.unverified_rows);
            crate::telemetry::watch(name, "differing", compared.divergences.open());
        }
    }

    /// Ends what should not run, starts what should.
    pub async fn reconcile(&self) {
        let _one = self.one.lock().await;
        let table = self.inner.routes.load();
        let mut wanted: HashMap<String, Spec> = table
            .routes
            .iter()
            .filter_map(|r| Some((r.name.clone(), spec(r)?)))
            .collect();
        let ending: Vec<Running> = {
            let mut tasks = self.tasks.lock();
            let Tasks {
                running,
                held,
                paused,
            } = &mut *tasks;
            wanted.retain(|name, _| !held.contains(name) && !paused.contains(name));
            let gone: Vec<String> = running
                .iter()
                .filter(|(name, r)| {
                    !held.contains(*name)
                        && (wanted.get(*name) != Some(&r.spec) || r.task.is_finished())
                })
                .map(|(name, _)| name.clone())
                .collect();
            gone.iter().filter_map(|n| running.remove(n)).collect()
        };
        for task in ending {
            task.end().await;
        }
        let mut tasks = self.tasks.lock();
        for (name, spec) in wanted {
            if tasks.held.contains(&name) || tasks.running.contains_key(&name) {
                continue;
            }
            tasks.running.insert(name, self.start(spec));
        }
    }

    fn start(&self, spec: Spec) -> Running {
        let view = Arc::new(View::new(spec.work));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let compared = self.compared(&spec.name);
        let inner = self.inner.clone();
        let task = route::work(inner, spec.clone(), view.clone(), compared, stopped);
        Running {
            spec,
            view,
            stop,
            task: tokio::spawn(task),
        }
    }

    fn view(&self, route: &str) -> Option<Arc<View>> {
        let tasks = self.tasks.lock();
        tasks.running.get(route).map(|r| r.view.clone())
    }

    /// Stops a route's background work until [`Plane::resume`]. Not kept over a
    /// restart: a paused follower loses the logs it has not read.
    pub async fn pause(&self, route: &str) {
        self.tasks.lock().paused.insert(route.to_owned());
        self.reconcile().await;
    }

    /// A route was removed: one of the same name knows nothing of its rows.
    pub fn forget(&self, route: &str) {
        self.compared.lock().remove(route);
    }

    /// Lets it go on.
    pub async fn resume(&self, route: &str) {
        self.tasks.lock().paused.remove(route);
        // One that waits, or is stuck, tries again at once.
        let ended = self.take(route);
        if let Some(task) = ended {
            task.end().await;
        }
        self.reconcile().await;
        if let Some(view) = self.view(route) {
            view.resume();
        }
    }

    fn take(&self, route: &str) -> Option<Running> {
        let mut tasks = self.tasks.lock();
        if tasks.held.contains(route) {
            return None;
        }
        tasks.running.remove(route)
    }

    /// Waits until everything written on the side that is read, before now, is
    /// on the other. One that begins is waited for. False: nothing is followed
    /// at the moment.
    ///
    /// # Errors
    /// Not there within `limit`.
    pub async fn caught_up(&self, route: &str, limit: Duration) -> Result<bool, String> {
        let until = Instant::now() + limit;
        loop {
            let Some(view) = self.view(route) else {
                return Ok(false);
            };
            let left = until.saturating_duration_since(Instant::now());
            match view.state().0 {
                State::Running => return view.barrier(left).await.map(|()| true),
                State::Starting if !left.is_zero() => tokio::time::sleep(BEGINS).await,
                _ => return Ok(false),
            }
        }
    }

    /// Before DDL that the proxy is to run on both sides: waits until the other
    /// side has all rows written before it. False: not within `limit`.
    pub async fn before_ddl(&self, route: &str, limit: Duration) -> bool {
        let reached = matches!(self.caught_up(route, limit).await, Ok(true));
        if reached {
            self.inner.ddl.clear(route);
        }
        reached
    }

    /// Statements that the proxy is about to run on both sides of these routes.
    pub fn ddl(&self, routes: &[String], all: &[What]) -> UnderWay {
        let altered = all.iter().any(What::fills_rows);
        let compared = routes.iter().filter(|_| altered);
        let voids = compared.map(|route| self.compared(route)).collect();
        UnderWay::new(&self.inner.ddl, &self.inner.catalog, routes, all, voids)
    }

    /// Whether a route's copy is done, and how far it is for people; None where
    /// nothing is copied.
    pub fn copy_fact(&self, route: &Route) -> Option<(bool, String)> {
        let copy = self.view(&route.name)?.copy()?;
        let (done, of) = (copy.rows_done, copy.rows_estimated);
        let detail = match (copy.state, copy.eta_s) {
            _ if copy.detail.is_some() => copy.detail.unwrap_or_default(),
            (Copying::Done, _) => format!("{done} rows"),
            (Copying::Waiting, _) => "not begun".to_owned(),
            (Copying::Running, Some(eta)) => format!(
                "{done} of about {of} rows, {} rows/s, {eta} s left",
                copy.rows_per_s
            ),
            (Copying::Running, None) => format!("{done} of about {of} rows"),
        };
        Some((copy.state == Copying::Done, detail))
    }

    /// Tables of the target that held rows before the copy of this phase, for
    /// people; None: none did.
    pub fn over_fact(&self, route: &Route) -> Option<String> {
        self.view(&route.name)?.over.lock().clone()
    }

    /// How a route's follower does; None where nothing is followed.
    pub fn follow_fact(&self, route: &Route) -> Option<Following> {
        work(route.phase)?;
        let Some(view) = self.view(&route.name) else {
            return Some(Following {
                running: false,
                lag_ms: None,
                detail: match self.tasks.lock().paused.contains(&route.name) {
                    true => "paused by an operator".to_owned(),
                    false => "not started yet".to_owned(),
                },
            });
        };
        let (state, detail) = view.state();
        let words = match state {
            State::Starting => "starting",
            State::Waiting => "waits",
            State::Stopped => "stopped",
            State::Running | State::Paused => "",
        };
        Some(Following {
            running: state == State::Running,
            lag_ms: view.lag_ms(),
            detail: match detail {
                Some(why) => format!("{words}: {why}"),
                None => words.to_owned(),
            },
        })
    }

    /// `copy` and `follow` of a route in status.
    pub fn show(&self, route: &Route) -> (Option<CopyView>, Option<FollowView>) {
        match self.view(&route.name) {
            Some(view) => (view.copy(), Some(view.follow())),
            None => {
                let paused = self.tasks.lock().paused.contains(&route.name);
                let follow = work(route.phase).filter(|_| paused).map(|work| {
                    let view = View::new(work);
                    view.set(State::Paused, Some("by an operator".to_owned()));
                    view.follow()
                });
                (None, follow)
            }
        }
    }
}
