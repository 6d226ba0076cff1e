//! Phases' edges, their conditions, and the only way to change a route.
//!
//! An operator's wish takes this way: [`edges::path`] names the phases to go
//! through; for each the facts are gathered anew and the [`edges::conditions`]
//! judged; then [`crate::route::gate::Routes::change`] closes the gate, drains,
//! and calls back to have the new phase on disk *before* any session sees it.
//! A crash between the two leaves the store ahead: the restarted process goes
//! on in the new phase, and no session had written under either meanwhile.
//!
//! One wish at a time: a second one is refused, not queued, for it was made
//! looking at a state that is about to change.

pub mod edges;
pub mod events;
pub mod monitor;
mod seed;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Side;
pub use crate::compare::Kind as Compare;
use crate::compare::Report;
use crate::config::{Limits, RouteConfig};
use crate::plane::{Plane, shapes};
use crate::route::gate::{GateLimits, GateRefusal, RouteChange, Routes};
use crate::route::table::{Phase, ReadsBy, Route, RouteTable};
use crate::rows::catalog::CatalogLoader;
use crate::store::{Store, StoredRoute};
use edges::{CompareFact, Condition, CopyFact, Direction, Facts, FollowFact};
use events::Events;
use monitor::Backends;

pub use seed::{SeedError, seed};

/// For the follower to come close before an edge holds writes; beyond it the
/// edge is refused without having held any.
const APPROACH_LIMIT: Duration = Duration::from_secs(10);

/// For the refresh of table shapes before conditions are judged; beyond it the
/// shapes known so far are judged.
const REFRESH_LIMIT: Duration = Duration::from_secs(10);

/// What migration needs to know of the sessions.
pub trait Sessions: Send + Sync {
    /// Sessions connected now.
    fn count(&self) -> usize;
    /// Those whose leg to the other backend cannot be opened.
    fn without_other_leg(&self) -> usize;
}

/// How an edge is to be taken.
#[derive(Clone, Copy, Default, Debug, serde::Deserialize)]
#[serde(default)]
pub struct Wish {
    /// The phase to reach; None: one step.
    pub to: Option<Phase>,
    /// Whether conditions that do not hold, or are not known, are overridden.
    pub force: bool,
    /// Whether sessions that hold up the drain are ended.
    pub kill: bool,
    /// Whether only to look.
    pub dry_run: bool,
}

/// One edge taken, or that would be taken.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Step {
    /// From this phase.
    pub from: Phase,
    /// To this one.
    pub to: Phase,
    /// The epoch after it; None: not taken.
    pub epoch: Option<u64>,
    /// How long writes of the route were held, in milliseconds.
    pub pause_ms: Option<f64>,
    /// Sessions ended to drain.
    pub killed: u32,
    /// All its conditions.
    pub conditions: Vec<Condition>,
    /// The names of those that did not hold and were overridden.
    pub overridden: Vec<String>,
}

/// What became of a wish.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// The route.
    pub route: String,
    /// Its phase now.
    pub phase: Phase,
    /// Its epoch now.
    pub epoch: u64,
    /// Nothing was changed, only looked at.
    pub dry_run: bool,
    /// The edges, in order. Empty: it was there already.
    pub steps: Vec<Step>,
}

/// Why a wish was not granted.
#[derive(thiserror::Error, Debug)]
pub enum Refusal {
    /// No such route.
    #[error("no route named {0}")]
    NoSuchRoute(String),
    /// The wish itself makes no sense.
    #[error("{0}")]
    Bad(String),
    /// Not now, or not safely.
    #[error("{error}")]
    Refused {
        /// Why.
        error: String,
        /// The conditions judged, those that hold as well.
        conditions: Vec<Condition>,
        /// Edges that were taken before the refused one.
        done: Vec<Step>,
    },
    /// The proxy failed.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    fn plain(error: impl Into<String>) -> Refusal {
        Refusal::Refused {
            error: error.into(),
            conditions: Vec::new(),
            done: Vec::new(),
        }
    }
}

/// What [`Migration`] is made of.
pub struct Parts {
    /// The routing table and its gate.
    pub routes: Arc<Routes>,
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// Table shapes.
    pub catalog: Arc<CatalogLoader>,
    /// Facts about sessions.
    pub sessions: Arc<dyn Sessions>,
    /// The background work.
    pub plane: Arc<Plane>,
    /// The gate's limits and the mirror's deadline.
    pub limits: Limits,
}

/// See the module.
pub struct Migration {
    parts: Parts,
    backends: Backends,
    events: Events,
    one: tokio::sync::Mutex<()>,
}

impl Migration {
    /// Nothing is asked of the backends yet.
    pub fn new(parts: Parts) -> Arc<Migration> {
        let migration = Arc::new(Migration {
            parts,
            backends: Backends::default(),
            events: Events::default(),
            one: tokio::sync::Mutex::new(()),
        });
        for route in &migration.routes().load().routes {
            show(route);
        }
        migration
    }

    /// The routing table.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.parts.routes
    }

    /// Table shapes.
    pub fn catalog(&self) -> &Arc<CatalogLoader> {
        &self.parts.catalog
    }

    /// What is known of the backends.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// What happened.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The configured limits.
    pub fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    /// The background work.
    pub fn plane(&self) -> &Arc<Plane> {
        &self.parts.plane
    }

    /// Facts about sessions.
    pub fn sessions(&self) -> &dyn Sessions {
        self.parts.sessions.as_ref()
    }

    /// Takes over how the servers compare table names. Without case if either
    /// does: a name covered too much is only planned too carefully.
    pub(crate) fn fold_names(&self) {
        let fold = [Side::Source, Side::Target]
            .into_iter()
            .any(|s| self.backends.get(s).folds_names == Some(true));
        if self.routes().load().fold_names != fold {
            self.routes().edit(|t| t.fold_names = fold);
        }
    }

    /// What a route's conditions are judged by, as known now.
    pub fn facts(&self, route: &Route, table: &RouteTable) -> Facts {
        let states = [Side::Source, Side::Target].map(|s| self.backends.get(s));
        let loaded = self.catalog().loaded(Side::Source) && self.catalog().loaded(Side::Target);
        let catalog = self.catalog().snapshot();
        let (tables, unequal) = shapes::compare(
            |db, t| route.covers(db, t, table.fold_names),
            route.phase.active(),
            &catalog,
        );
        let live = &route.live;
        Facts {
            up: [0, 1].map(|i| states.get(i).and_then(|s| s.up)),
            read_only: [0, 1].map(|i| states.get(i).and_then(|s| s.read_only)),
            same_server: self.backends.same_server(),
            unequal_tables: loaded.then_some(unequal),
            tables,
            suspended: route.suspended().then(|| crate::mirror::circuit::why(live)),
            unhealed: self.plane().unhealed(route),
            without_other_leg: self.sessions().without_other_leg(),
            copy: self
                .plane()
                .copy_fact(route)
                .map(|(done, detail)| CopyFact { done, detail }),
            over: self.plane().over_fact(route),
            follow: self.plane().follow_fact(route).map(|f| FollowFact {
                running: f.running,
                lag_ms: f.lag_ms,
                lag_max_ms: self.limits().follow_lag_ms,
                detail: f.detail,
            }),
            compare: self
                .plane()
                .compare_fact(route, self.limits().compare_age())
                .map(|(clean, detail)| CompareFact { clean, detail }),
            open: self.plane().open(route),
        }
    }

    /// The route's tables that the other side has and `side` has not.
    fn missing_on(&self, route: &Route, side: Side) -> Vec<String> {
        let fold = self.routes().load().fold_names;
        let covers = |db: &[u8], t: &[u8]| route.covers(db, t, fold);
        shapes::missing_on(covers, side, &self.catalog().snapshot())
    }

    fn find(&self, name: &str) -> Result<(Arc<RouteTable>, Route), Refusal> {
        let table = self.routes().load();
        let route = table
            .index_of(name)
            .and_then(|i| table.routes.get(i).cloned())
            .ok_or_else(|| Refusal::NoSuchRoute(name.to_owned()))?;
        Ok((table, route))
    }

    fn begin(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Refusal> {
        self.one.try_lock().map_err(|_| Refusal::Refused {
            error: "another change of a route is under way".to_owned(),
            conditions: vec![busy()],
            done: Vec::new(),
        })
    }

    /// Moves a route along its phases.
    ///
    /// # Errors
    /// What stands in the way; edges taken before it stay taken and are named.
    pub async fn go(
        &self,
        name: &str,
        direction: Direction,
        wish: Wish,
    ) -> Result<Outcome, Refusal> {
        let _one = self.begin()?;
        let (_, route) = self.find(name)?;
        let way = edges::path(route.phase, wish.to, direction, wish.force)
            .map_err(|e| Refusal::plain(format!("{name}: {e}")))?;
        if way.iter().any(|p| *p != Phase::SourceOnly) {
            let _ = tokio::time::timeout(REFRESH_LIMIT, self.catalog().refresh()).await;
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut from = route.phase;
        for to in way {
            match self.step(name, from, to, wish).await {
                Ok(step) => steps.push(step),
                Err(Refusal::Refused {
                    error, conditions, ..
                }) => {
                    self.events.say("refused", Some(name), error.clone());
                    return Err(Refusal::Refused {
                        error,
                        conditions,
                        done: steps,
                    });
                }
                Err(other) => return Err(other),
            }
            from = to;
        }
        let (_, route) = self.find(name)?;
        Ok(Outcome {
            route: route.name,
            phase: route.phase,
            epoch: route.epoch,
            dry_run: wish.dry_run,
            steps,
        })
    }

    async fn step(&self, name: &str, from: Phase, to: Phase, wish: Wish) -> Result<Step, Refusal> {
        let (table, route) = self.find(name)?;
        let conditions = edges::conditions(from, to, &self.facts(&route, &table));
        let failing: Vec<&Condition> = conditions.iter().filter(|c| c.ok != Some(true)).collect();
        let overridden: Vec<String> = failing.iter().map(|c| c.name.clone()).collect();
        if !failing.is_empty() && !wish.force {
            let reasons: Vec<String> = failing
                .iter()
                .map(|c| format!("{} ({})", c.name, c.detail))
                .collect();
            let error = format!(
                "{name}: {from} to {to} is refused: {}; --force overrides",
                reasons.join(", ")
            );
            return Err(Refusal::Refused {
                error,
                conditions,
                done: Vec::new(),
            });
        }
        let mut step = Step {
            from,
            to,
            epoch: None,
            pause_ms: None,
            killed: 0,
            conditions,
            overridden,
        };
        if !wish.dry_run {
            self.take(&route, wish, &mut step).await?;
        }
        Ok(step)
    }

    /// Goes through the gate.
    async fn take(&self, route: &Route, wish: Wish, step: &mut Step) -> Result<(), Refusal> {
        let limits = GateLimits {
            drain: self.limits().drain(),
            total: self.limits().gate(),
        };
        let change = RouteChange {
            phase: step.to,
            reads_percent: edges::reads_after(step.from, step.to, route.reads_percent),
        };
        let handover = self.plane().handover(route, step.to, wish.force);
        let persist = |new: &Route| {
            let stored = StoredRoute::from(new);
            if handover.leaves_behind(new.follow.is_some()) {
                // What the disk does not take is not noted either.
                let room = self.parts.store.room();
                room.map_err(|e| e.to_string())?;
                self.plane().not_passed(route);
            }
            let saved = self.parts.store.save_route(&stored);
            saved.map_err(|e| e.to_string())?;
            handover.persisted();
            Ok(())
        };
        if let Err(why) = handover.approach(APPROACH_LIMIT).await
            && !wish.force
        {
            drop(handover);
            return Err(refused(&route.name, step, &GateRefusal::Unprepared(why)));
        }
        let epoch = route.epoch + 1;
        let prepare = async |until| handover.prepare(epoch, until).await;
        let changed = self
            .routes()
            .change(&route.name, limits, wish.kill, change, prepare, persist)
            .await;
        if changed.is_err() {
            handover.refused().await;
        }
        drop(handover);
        self.plane().reconcile().await;
        let report = changed.map_err(|refusal| refused(&route.name, step, &refusal))?;
        // A suspension belongs to the mirroring that ended or begins here, unless
        // it is for tables that are not alike.
        let differed = match step.to.mirrored() {
            true => 0,
            false => route.live.tables_differ.load(Ordering::Acquire),
        };
        crate::mirror::circuit::resume(route, differed);
        crate::telemetry::gate(&route.name, report.pause);
        step.epoch = Some(report.epoch);
        step.pause_ms = Some(report.pause.as_secs_f64() * 1_000.0);
        step.killed = report.killed;
        if let Ok((_, now)) = self.find(&route.name) {
            show(&now);
        }
        let forced = if step.overridden.is_empty() {
            String::new()
        } else {
            format!(", overriding {}", step.overridden.join(", "))
        };
        let detail = format!(
            "{}: {} to {}, epoch {}, writes held for {:.1} ms{forced}",
            route.name,
            step.from,
            step.to,
            report.epoch,
            report.pause.as_secs_f64() * 1_000.0
        );
        self.events.say("phase", Some(&route.name), detail);
        Ok(())
    }

    /// Begins to follow for routes whose phase needs it and that have no
    /// position: an edge was forced while the side did not answer, or the store
    /// is of a version that did not follow.
    pub async fn adopt(&self) {
        let wanting = |r: &Route| r.follow.is_none() && crate::plane::work(r.phase).is_some();
        if !self.routes().load().routes.iter().any(wanting) {
            return;
        }
        let Ok(_one) = self.begin() else { return };
        for route in &self.routes().load().routes {
            let Some(work) = crate::plane::work(route.phase).filter(|_| route.follow.is_none())
            else {
                continue;
            };
            let began = self
                .plane()
                .begin(&route.name, work.from, route.epoch)
                .await;
            let Ok(start) = began else { continue };
            // Before the position: a crash between the two asks for it again.
            self.plane().not_passed(route);
            let mut route = route.clone();
            route.follow = Some(start);
            if self.put_in(&route).is_ok() {
                let detail = format!(
                    "{}: the {}'s log is followed from now on; only a comparison can tell what \
                     was written before",
                    route.name, work.from
                );
                self.events.say("row_plane", Some(&route.name), detail);
            }
        }
    }

    /// Compares a route's rows, and repairs the mirror's where asked to.
    ///
    /// # Errors
    /// No such route, or not now.
    pub async fn compare(
        &self,
        name: &str,
        kind: Compare,
        repair: bool,
    ) -> Result<Report, Refusal> {
        let (_, route) = self.find(name)?;
        let done = self.plane().compare(&route, kind, repair).await;
        let done = done.map_err(|e| Refusal::plain(e.to_string()))?;
        let detail = match &done {
            Ok(r) if r.is_clean() => format!("{name}: {} rows compared, no difference", r.rows),
            Ok(r) => format!("{name}: {} rows compared, {} rows differ", r.rows, r.open),
            Err(why) => format!("{name}: the comparison did not end: {why}"),
        };
        self.events.say("compare", Some(name), detail);
        done.map_err(Refusal::Failed)
    }

    /// Stops a route's background work, or lets it go on.
    pub async fn pause(&self, name: &str, paused: bool) {
        let what = if paused {
            self.plane().pause(name).await;
            "paused"
        } else {
            self.plane().resume(name).await;
            "resumed"
        };
        let detail = format!("{name}: background work {what}");
        self.events.say("row_plane", Some(name), detail);
    }

    /// Sets the target's share of a route's reads, and what it is a share of.
    ///
    /// # Errors
    /// The phase does not split reads, or the side they would go to lacks
    /// tables.
    pub async fn reads(
        &self,
        name: &str,
        percent: u64,
        by: Option<ReadsBy>,
    ) -> Result<Route, Refusal> {
        let percent = u8::try_from(percent)
            .ok()
            .filter(|p| *p <= 100)
            .ok_or_else(|| Refusal::Bad("percent: must be a whole number from 0 to 100".into()))?;
        let _one = self.begin()?;
        let (_, mut route) = self.find(name)?;
        if !route.phase.mirrored() {
            return Err(Refusal::plain(format!(
                "{name}: reads are split in source_first and target_first only; it is {}",
                route.phase
            )));
        }
        let mirror = route.phase.active().other();
        let to_mirror = match mirror {
            Side::Target => percent,
            Side::Source => 100 - percent,
        };
        if to_mirror > 0 {
            let missing = self.missing_on(&route, mirror);
            if !missing.is_empty() {
                return Err(Refusal::plain(format!(
                    "{name}: the {mirror} has no table {}",
                    missing.join(", ")
                )));
            }
        }
        route.reads_percent = percent;
        route.reads_by = by.unwrap_or(route.reads_by);
        self.put_in(&route)?;
        let detail = format!("{name}: {percent} % of reads go to the target");
        self.events.say("reads", Some(name), detail);
        Ok(route)
    }

    /// Persists a route whose phase stays, then publishes it.
    fn put_in(&self, route: &Route) -> Result<(), Refusal> {
        self.parts
            .store
            .save_route(&StoredRoute::from(route))
            .map_err(|e| Refusal::Failed(e.to_string()))?;
        self.routes().edit(|table| {
            let place = table.routes.iter_mut().find(|r| r.name == route.name);
            match place {
                Some(place) => *place = route.clone(),
                None => table.routes.push(route.clone()),
            }
        });
        show(route);
        Ok(())
    }

    /// Adds a route, or changes the policies of one; its tables change in
    /// `source_only` only.
    ///
    /// # Errors
    /// Bad settings, an overlap, or tables of a route that has moved.
    pub async fn put(&self, wanted: &RouteConfig) -> Result<Route, Refusal> {
        let _one = self.begin()?;
        let table = self.routes().load();
        let old = table
            .index_of(&wanted.name)
            .and_then(|i| table.routes.get(i));
        let mut all: Vec<RouteConfig> = table
            .routes
            .iter()
            .filter(|r| r.name != wanted.name)
            .map(seed::config_of)
            .collect();
        all.push(wanted.clone());
        seed::check(&all).map_err(Refusal::Bad)?;
        let mut stored = StoredRoute::new(wanted);
        let mut kind = "route_added";
        if let Some(old) = old {
            kind = "route_changed";
            let before = StoredRoute::from(old);
            if old.phase != Phase::SourceOnly && before.tables != stored.tables {
                return Err(Refusal::plain(format!(
                    "{}: its tables change in source_only only; it is {}",
                    old.name, old.phase
                )));
            }
            stored.phase = before.phase;
            stored.epoch = before.epoch;
            stored.reads_percent = before.reads_percent;
            stored.follow = before.follow;
        }
        let mut route = seed::route_of(&stored).map_err(Refusal::Bad)?;
        if let Some(old) = old {
            route.live = old.live.clone();
        }
        self.put_in(&route)?;
        self.catalog().poke();
        let detail = format!("{}: {}", route.name, stored.tables.join(", "));
        self.events.say(kind, Some(&route.name), detail);
        Ok(route)
    }

    /// Removes a route in `source_only`.
    ///
    /// # Errors
    /// It has moved; or it is not the last in the table while others have: a
    /// route's index is its bit in what sessions hold, so removing one from
    /// the middle would let an edge overlook a session.
    pub async fn delete(&self, name: &str) -> Result<(), Refusal> {
        let _one = self.begin()?;
        let (table, route) = self.find(name)?;
        if route.phase != Phase::SourceOnly {
            return Err(Refusal::plain(format!(
                "{name}: only a route in source_only can be removed; it is {}",
                route.phase
            )));
        }
        let last = table.routes.last().is_some_and(|r| r.name == name);
        if !last && !table.passive {
            return Err(Refusal::plain(format!(
                "{name}: cannot be removed while routes after it are beyond source_only"
            )));
        }
        self.parts
            .store
            .remove_route(name)
            .map_err(|e| Refusal::Failed(e.to_string()))?;
        self.routes().edit(|t| t.routes.retain(|r| r.name != name));
        self.plane().forget(name);
        let detail = format!("{name}: removed");
        self.events.say("route_removed", Some(name), detail);
        Ok(())
    }
}

/// The condition that fails while another change is made.
fn busy() -> Condition {
    Condition {
        name: "no_other_change".to_owned(),
        ok: Some(false),
        detail: "another phase change, or DDL on both sides, is under way".to_owned(),
    }
}

/// Shows a route in the metrics.
fn show(route: &Route) {
    crate::telemetry::route(&route.name, route.phase, route.epoch, route.reads_percent);
    crate::telemetry::mirror_suspended(&route.name, route.suspended());
}

fn refused(name: &str, step: &Step, refusal: &GateRefusal) -> Refusal {
    let mut conditions = step.conditions.clone();
    match refusal {
        GateRefusal::NoSuchRoute(name) => return Refusal::NoSuchRoute(name.clone()),
        GateRefusal::Persist(e) => return Refusal::Failed(e.clone()),
        GateRefusal::Busy => conditions.push(busy()),
        GateRefusal::Unprepared(_) => conditions.push(Condition {
            name: "caught_up".to_owned(),
            ok: Some(false),
            detail: refusal.to_string(),
        }),
        GateRefusal::Undrained(_) => conditions.push(Condition {
            name: "drained".to_owned(),
            ok: Some(false),
            detail: refusal.to_string(),
        }),
    }
    Refusal::Refused {
        error: format!("{name}: {} to {}: {refusal}", step.from, step.to),
        conditions,
        done: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
