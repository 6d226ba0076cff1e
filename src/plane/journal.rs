//! The journal and the follower: what the mirror missed is struck off once the
//! follower has brought it over, and sessions that wait for their own writes
//! are told.
//!
//! A task a route does both by barriers: one each second while the journal has
//! lines of the route, and at once when a session waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::mirror::journal::{Covers, Journal, Mark};
use crate::route::table::{FollowStart, Route, RouteLive};

use super::view::{State, View, Work};
use super::{Plane, work};

/// How often the journal is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between two barriers that sessions wait for: those that come meanwhile share
/// the next one. A tenth of what a commit takes on a durable server.
const PAUSE: Duration = Duration::from_millis(1);

/// How often a follower that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// For the follower to pass a barrier; later the next one is tried.
const BARRIER_LIMIT: Duration = Duration::from_secs(30);

/// `journal` of a route in `status`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct JournalView {
    /// Its lines: 0 when nothing is to be healed.
    pub lines: u64,
    /// Why following alone will not settle them.
    pub detail: Option<String>,
}

/// What a follower covers; None: its beginning cannot be read.
fn covers(work: Work, start: &FollowStart) -> Option<Covers> {
    Some(Covers {
        side: work.from,
        stream: start.stream.clone(),
        from: start.from.parse().ok()?,
    })
}

/// Strikes lines off, on a thread that may wait for the disk.
async fn drain(journal: &Arc<Journal>, mark: Mark, covers: Option<Covers>) {
    let journal = journal.clone();
    let drained = tokio::task::spawn_blocking(move || journal.drained(mark, covers.as_ref())).await;
    if let Ok(Err(e)) = drained {
        crate::telemetry::error("proxy", "journal");
        tracing::warn!("the journal cannot be drained: {e}");
    }
}

/// What a route's follower covers; None where nothing follows.
fn covers_of(route: &Route) -> Option<Covers> {
    covers(work(route.phase)?, route.follow.as_ref()?)
}

/// What an edge's barrier heals of the journal.
pub(super) struct Drained {
    mark: Mark,
    covers: Covers,
}

impl Plane {
    fn journal(&self) -> &Arc<Journal> {
        &self.inner.journal
    }

    /// Keeps a task for each route that is followed.
    pub async fn keep_journal(self: Arc<Plane>) {
        let mut tasks: HashMap<String, (Arc<RouteLive>, JoinHandle<()>)> = HashMap::new();
        loop {
            let table = self.inner.routes.load();
            tasks.retain(|_, (live, task)| {
                let kept = table.routes.iter().any(|r| Arc::ptr_eq(&r.live, live));
                if !kept {
                    task.abort();
                }
                kept && !task.is_finished()
            });
            for route in &table.routes {
                crate::telemetry::journal_lines(&route.name, self.journal().lines(&route.name));
                if !tasks.contains_key(&route.name) {
                    let task = self.clone().tend(route.name.clone(), route.live.clone());
                    let task = (route.live.clone(), tokio::spawn(task));
                    tasks.insert(route.name.clone(), task);
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// One route's task, for as long as it is the route's.
    async fn tend(self: Arc<Plane>, name: String, live: Arc<RouteLive>) {
        let mut drained = Instant::now();
        loop {
            // A follower that has just begun is noticed soon.
            let pause = if live.healed.is_served() {
                INTERVAL
            } else {
                LOOK
            };
            tokio::select! {
                () = live.healed.wanted() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let followed = self.followed(&name);
            let followed = followed.filter(|(view, _)| view.state().0 == State::Running);
            live.healed.serve(followed.is_some());
            let Some((view, covers)) = followed else {
                continue;
            };
            let due = drained.elapsed() >= INTERVAL && self.journal().is_covered(&name, &covers);
            // Read before the barrier: see `Healed`.
            let taken = live.healed.taken();
            if !due && taken == live.healed.called() {
                continue;
            }
            let mark = due.then(|| self.journal().mark(&name));
            let passed = tokio::select! {
                passed = view.barrier(BARRIER_LIMIT) => passed,
                () = self.ends(&name, &view) => Err("the follower ended".to_owned()),
            };
            if let Err(late) = passed {
                tracing::debug!(route = name, "the journal is not drained: {late}");
                continue;
            }
            live.healed.call(taken);
            if let Some(mark) = mark {
                drain(self.journal(), mark, Some(covers)).await;
                drained = Instant::now();
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// The follower that runs for a route, and what it covers: of one moment, so
    /// that a barrier of the one speaks for the other.
    fn followed(&self, route: &str) -> Option<(Arc<View>, Covers)> {
        let tasks = self.tasks.lock();
        let running = tasks.running.get(route)?;
        let covers = covers(running.spec.work, &running.spec.start)?;
        Some((running.view.clone(), covers))
    }

    /// Until this is not what a route's follower shows any more.
    async fn ends(&self, route: &str, view: &Arc<View>) {
        let current = || self.view(route).is_some_and(|v| Arc::ptr_eq(&v, view));
        while current() && view.state().0 == State::Running {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Before an edge's barrier, with the route's writes held.
    pub(super) fn to_be_drained(&self, route: &Route) -> Option<Drained> {
        let covers = covers_of(route)?;
        let mark = self.journal().mark(&route.name);
        Some(Drained { mark, covers })
    }

    /// The barrier was passed, and the phase is another; `ends`: its stream too.
    /// The lines go later: writes are held, and the disk may be slow.
    pub(super) fn passed(&self, drained: Option<Drained>, ends: bool) {
        if let Some(Drained { mark, covers }) = drained {
            if ends {
                self.journal().ended(&covers.stream);
            }
            let journal = self.journal().clone();
            tokio::spawn(async move { drain(&journal, mark, Some(covers)).await });
        }
    }

    /// A phase was forced on without its barrier, or without a place in the log
    /// from which on it is followed.
    pub fn not_passed(&self, route: &Route) {
        let reason = "a phase was forced without waiting for the follower";
        let side = route.phase.active();
        self.journal().forced(&route.name, side, reason);
    }

    /// Before a comparison of all rows of a route.
    pub(super) fn to_be_compared(&self, route: &Route) -> Mark {
        self.journal().mark(&route.name)
    }

    /// All rows are equal: whatever the journal said before.
    pub(super) async fn found_equal(&self, mark: Mark) {
        drain(self.journal(), mark, None).await;
    }

    /// Why following alone does not heal what the journal says of a route; None
    /// where it does.
    pub fn unhealed(&self, route: &Route) -> Option<String> {
        let covers = covers_of(route);
        if !self.journal().is_uncovered(&route.name, covers.as_ref()) {
            return None;
        }
        Some(match covers {
            Some(_) => "the mirror missed writes from before its follower began: compare the \
                        route, and repair what differs"
                .to_owned(),
            None => "the mirror missed writes, and nothing follows".to_owned(),
        })
    }

    /// `journal` of a route in status.
    pub fn journal_view(&self, route: &Route) -> JournalView {
        let lines = self.journal().lines(&route.name);
        JournalView {
            lines,
            detail: self.unhealed(route).filter(|_| lines > 0),
        }
    }
}
