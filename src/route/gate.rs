//! The gate: changing a route's phase under load (DESIGN §7, in-process part).
//!
//! Every session owns a [`Slot`]. Before a statement that may write it stores
//! the mask of the routes it touches there, then looks whether one of them is
//! closed; it clears the mask when the statement, or the transaction it
//! belongs to, has ended on both legs. An edge closes the route, waits until
//! no slot holds its bit, swaps the table and opens again.
//!
//! The race this prevents, both sides being sequentially consistent:
//! 1. session S loads the table: epoch 3, active = source;
//! 2. the edge closes the gate, sees no slot held, swaps to epoch 4;
//! 3. S sends its write to the source by the plan of epoch 3: lost on the new
//!    active side.
//!
//! Here S stores its mask *before* it looks at `closed`, and the edge sets
//! `closed` *before* it looks at the masks: one of them sees the other. And S
//! plans again when the generation it planned from is not the current one
//! after it entered.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::pins::Pins;
use super::table::{
    ALL_ROUTES, FollowStart, Phase, ROUTES_MAX, Route, RouteMask, RouteTable, route_bit,
};
use crate::Side;

mod exclusive;

pub use exclusive::{Deferring, Exclusive};

/// How often the drain looks at the slots again, beside being notified.
const DRAIN_POLL: Duration = Duration::from_millis(2);

/// The longest list of holding sessions a refusal names.
const HELD_BY_MAX: usize = 20;

/// The longest a statement waits at a closed gate before it looks again; the
/// gate itself is bounded by [`GateLimits::total`].
const HOLD_RECHECK: Duration = Duration::from_millis(500);

/// A session's mark of the routes it holds.
pub struct Slot {
    /// The session's id.
    pub id: u64,
    holding: AtomicU64,
    pins: AtomicU8,
    since_ms: AtomicU64,
    killed: AtomicBool,
    kill: Notify,
    label: Mutex<String>,
}

impl Slot {
    /// Names the session for refusals (`user@address`).
    pub fn set_label(&self, label: String) {
        *self.label.lock() = label;
    }

    /// The name given by [`Slot::set_label`].
    pub fn label(&self) -> String {
        self.label.lock().clone()
    }

    /// The routes held now.
    pub fn holding(&self) -> RouteMask {
        self.holding.load(Ordering::Relaxed)
    }

    /// What the session has that keeps the active side where it is. To be set
    /// while every route is held, so that no drain misses it.
    pub fn pin(&self, pins: Pins) {
        if self.pins.load(Ordering::Relaxed) != pins.0 {
            self.pins.store(pins.0, Ordering::SeqCst);
        }
    }

    /// As set by [`Slot::pin`].
    pub fn pins(&self) -> Pins {
        Pins(self.pins.load(Ordering::SeqCst))
    }

    /// Whether a drain of `bit` has to wait for it. The pins are read first:
    /// 1. a drain reads `holding`: nothing; 2. the session, pinned, passes the
    ///    closed gate, writes, drops its temporary table and is not pinned any
    ///    more; 3. the drain reads `pins`: nothing, while the write goes on.
    fn holds_up(&self, bit: RouteMask, flip: bool) -> bool {
        let pinned = self.pins() != Pins::default();
        // Pairs with the SeqCst store of try_enter.
        (flip && pinned) || self.holding.load(Ordering::SeqCst) & bit != 0
    }

    /// Asks the session to end.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.kill.notify_waiters();
        self.kill.notify_one();
    }

    /// Whether the session was asked to end.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Resolves once the session was asked to end.
    ///
    /// Its task is woken by all that the session waits for: whether it is asked
    /// is looked at each time, and being told of it is asked for once.
    pub async fn killed(&self) {
        let mut told = pin!(self.kill.notified());
        let mut asked: Option<Waker> = None;
        std::future::poll_fn(|cx| {
            if self.is_killed() {
                return Poll::Ready(());
            }
            if asked.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            asked = Some(cx.waker().clone());
            while told.as_mut().poll(cx).is_ready() {
                if self.is_killed() {
                    return Poll::Ready(());
                }
                told.set(self.kill.notified());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Bounds of one edge.
#[derive(Clone, Copy, Debug)]
pub struct GateLimits {
    /// For transactions of the old epoch to end.
    pub drain: Duration,
    /// For the whole edge while the gate is closed.
    pub total: Duration,
}

/// What an edge changes.
#[derive(Clone, Copy, Debug)]
pub struct RouteChange {
    /// The new phase.
    pub phase: Phase,
    /// The target's share of reads after the edge.
    pub reads_percent: u8,
}

/// What an edge's preparation, under the closed and drained gate, found out.
pub struct Prepared<T> {
    /// What is followed in the new phase.
    pub follow: Option<FollowStart>,
    /// Kept until the swap: locks, say.
    pub held: T,
}

/// How an edge went.
#[derive(Clone, Copy, Debug)]
pub struct GateReport {
    /// How long the gate was closed.
    pub pause: Duration,
    /// Sessions that were ended to drain.
    pub killed: u32,
    /// The epoch after the edge.
    pub epoch: u64,
}

/// A session that kept an edge from draining.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HeldBy {
    /// The session's id, as `lockstep sessions` shows it.
    pub session_id: u64,
    /// `user@address`.
    pub user: String,
    /// For how long it has held the route, in milliseconds.
    pub since_ms: u64,
    /// What it has: `transaction`, `temporary table`, …
    pub has: Vec<&'static str>,
}

/// Why an edge was not taken; the old phase is in force.
#[derive(Debug, thiserror::Error)]
pub enum GateRefusal {
    /// No route of that name.
    #[error("no route named {0}")]
    NoSuchRoute(String),
    /// Another edge, or DDL on both sides, is under way.
    #[error("another phase change, or DDL on both sides, is under way")]
    Busy,
    /// Transactions did not end in time.
    #[error("{} session(s) kept what cannot be moved beyond the drain limit: {}", .0.len(),
        .0.iter().map(|h| format!("{} ({}, {}, {} ms)", h.session_id, h.user, h.has.join(" and "), h.since_ms))
            .collect::<Vec<_>>().join(", "))]
    Undrained(Vec<HeldBy>),
    /// What has to be true at the swap could not be reached in time.
    #[error("{0}")]
    Unprepared(String),
    /// The new phase could not be stored.
    #[error("the new phase could not be stored: {0}")]
    Persist(String),
}

/// Owner of the routing table and its gate.
pub struct Routes {
    table: ArcSwap<RouteTable>,
    closed: AtomicU64,
    /// Routes closed for a change of their active side.
    flipping: AtomicU64,
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    next_slot: AtomicU64,
    opened: Notify,
    left: Notify,
    /// Per route: who changes its phase or its tables' definitions.
    changing: [tokio::sync::Mutex<()>; ROUTES_MAX],
    edit: Mutex<()>,
    started: Instant,
}

/// A closed gate: opens again however the edge ends.
pub struct Closed<'a>(&'a Routes, RouteMask);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.closed.fetch_and(!self.1, Ordering::SeqCst);
        self.0.flipping.fetch_and(!self.1, Ordering::SeqCst);
        self.0.opened.notify_waiters();
    }
}

impl Routes {
    /// Starts with a table; `passive` is worked out here.
    pub fn new(mut table: RouteTable) -> Arc<Routes> {
        table.passive = is_passive(&table);
        Arc::new(Routes {
            table: ArcSwap::from_pointee(table),
            closed: AtomicU64::new(0),
            flipping: AtomicU64::new(0),
            slots: Mutex::new(HashMap::new()),
            next_slot: AtomicU64::new(1),
            opened: Notify::new(),
            left: Notify::new(),
            changing: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            edit: Mutex::new(()),
            started: Instant::now(),
        })
    }

    /// The current snapshot.
    pub fn load(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// The current snapshot, borrowed for one plan: no reference count is
    /// touched. Not to be held across an await.
    pub fn peek(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        self.table.load()
    }

    /// Registers a session.
    pub fn register(&self) -> Arc<Slot> {
        let id = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot {
            id,
            holding: AtomicU64::new(0),
            pins: AtomicU8::new(0),
            since_ms: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            kill: Notify::new(),
            label: Mutex::new(String::new()),
        });
        self.slots.lock().insert(id, slot.clone());
        slot
    }

    /// Forgets a session whose legs have ended.
    pub fn unregister(&self, slot: &Slot) {
        self.leave(slot);
        self.slots.lock().remove(&slot.id);
    }

    /// A registered session's slot.
    pub fn slot(&self, id: u64) -> Option<Arc<Slot>> {
        self.slots.lock().get(&id).cloned()
    }

    /// Enters without waiting. False: a route of `mask` that this session does
    /// not hold yet is closed, and nothing new is held.
    pub fn try_enter(&self, slot: &Slot, mask: RouteMask) -> bool {
        let held = slot.holding.load(Ordering::Relaxed);
        if held & mask == mask {
            return true;
        }
        slot.holding.store(held | mask, Ordering::SeqCst);
        let closed = self.closed.load(Ordering::SeqCst) & mask & !held;
        if closed != 0 && !self.awaited(slot, closed) {
            slot.holding.store(held, Ordering::SeqCst);
            self.left.notify_one();
            return false;
        }
        if held == 0 && mask != ALL_ROUTES {
            let now = self.started.elapsed().as_millis() as u64;
            slot.since_ms.store(now, Ordering::Relaxed);
        }
        true
    }

    /// Whether the closed gate waits for this session, which therefore passes:
    /// held up there it could never drop what it is waited for.
    fn awaited(&self, slot: &Slot, closed: RouteMask) -> bool {
        let other = closed & !self.flipping.load(Ordering::SeqCst);
        other == 0 && slot.pins() != Pins::default()
    }

    /// Enters, waiting at a closed gate. The wait is bounded by the limit of
    /// the edge or the DDL, after which the gate opens whatever happened.
    pub async fn enter(&self, slot: &Slot, mask: RouteMask) {
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if self.try_enter(slot, mask) {
                return;
            }
            let _ = tokio::time::timeout(HOLD_RECHECK, opened).await;
        }
    }

    /// Gives up every route: the statement or transaction has ended on both
    /// legs.
    pub fn leave(&self, slot: &Slot) {
        // Only its session changes it. Plain reads hold nothing, and the store
        // would make the processor wait for all stores before.
        if slot.holding.load(Ordering::Relaxed) == 0 {
            return;
        }
        slot.holding.store(0, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) != 0 {
            self.left.notify_one();
        }
    }

    /// Gives up all but `mask`, which must be held.
    pub fn keep(&self, slot: &Slot, mask: RouteMask) {
        let held = slot.holding.load(Ordering::Relaxed);
        slot.holding.store(held & mask, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) != 0 {
            self.left.notify_one();
        }
    }

    /// Swaps the table without a gate: for what no write depends on (the
    /// reads split, adding and removing `source_only` routes).
    pub fn edit(&self, f: impl FnOnce(&mut RouteTable)) {
        let _one_at_a_time = self.edit.lock();
        let mut table = RouteTable::clone(&self.table.load());
        f(&mut table);
        table.generation += 1;
        table.passive = table.passive_after_edit();
        self.table.store(Arc::new(table));
    }

    /// Takes one edge: close, drain, prepare, persist, swap, open. `prepare` is
    /// told until when it may take and runs while the gate is closed and
    /// drained; `persist` is given the route as it will be. DDL under way on
    /// the route is waited for, within the edge's own limit.
    ///
    /// # Errors
    /// Any refusal leaves the old phase in force and the gate open.
    pub async fn change<T>(
        &self,
        name: &str,
        limits: GateLimits,
        kill: bool,
        change: RouteChange,
        prepare: impl AsyncFnOnce(Instant) -> Result<Prepared<T>, String>,
        persist: impl FnOnce(&Route) -> Result<(), String>,
    ) -> Result<GateReport, GateRefusal> {
        let missing = || GateRefusal::NoSuchRoute(name.to_string());
        let index = self.load().index_of(name).ok_or_else(missing)?;
        let bit = route_bit(index);
        let Ok(_alone) = tokio::time::timeout(limits.total, self.exclusive(bit)).await else {
            return Err(GateRefusal::Busy);
        };
        if self.load().index_of(name) != Some(index) {
            return Err(missing());
        }
        self.arm(bit, limits).await;
        let result = self
            .change_closed(index, bit, limits, kill, change, prepare, persist)
            .await;
        if result.is_err() {
            // Back to passive where the refused edge had armed the table.
            self.edit(|_| {});
        }
        result
    }

    /// Leaves the passive mode with the gate open: statements that began
    /// unclassified hold every route, so give them time to end before anybody
    /// is made to wait.
    async fn arm(&self, bit: RouteMask, limits: GateLimits) {
        if !self.load().passive {
            return;
        }
        {
            let _one_at_a_time = self.edit.lock();
            let mut table = RouteTable::clone(&self.table.load());
            table.generation += 1;
            table.passive = false;
            self.table.store(Arc::new(table));
        }
        let deadline = Instant::now() + limits.total;
        // New writes of the route come and go; only what has been there since
        // before the swap is waited for: those hold ALL_ROUTES.
        while Instant::now() < deadline {
            let unclassified = self
                .slots
                .lock()
                .values()
                .any(|s| s.holding() == ALL_ROUTES && s.holding() & bit != 0);
            if !unclassified {
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    #[expect(clippy::too_many_arguments)]
    async fn change_closed<T>(
        &self,
        index: usize,
        bit: RouteMask,
        limits: GateLimits,
        kill: bool,
        change: RouteChange,
        prepare: impl AsyncFnOnce(Instant) -> Result<Prepared<T>, String>,
        persist: impl FnOnce(&Route) -> Result<(), String>,
    ) -> Result<GateReport, GateRefusal> {
        let begun = Instant::now();
        let before = self.load().routes.get(index).map(|r| r.phase.active());
        let flip = before != Some(change.phase.active());
        if flip {
            self.flipping.fetch_or(bit, Ordering::SeqCst);
        }
        let closed = self.close(bit);
        let mut killed = 0;
        let drain_until = begun + limits.drain.min(limits.total);
        if !self.drained(bit, flip, drain_until).await {
            if !kill {
                return Err(GateRefusal::Undrained(self.held_by(bit, flip)));
            }
            killed = self.kill_holders(bit, flip);
            if !self.drained(bit, flip, begun + limits.total).await {
                return Err(GateRefusal::Undrained(self.held_by(bit, flip)));
            }
        }
        let prepared = prepare(begun + limits.total)
            .await
            .map_err(GateRefusal::Unprepared)?;
        let _one_at_a_time = self.edit.lock();
        let mut table = RouteTable::clone(&self.table.load());
        let Some(route) = table.routes.get_mut(index) else {
            return Err(GateRefusal::Busy);
        };
        route.phase = change.phase;
        route.reads_percent = change.reads_percent;
        route.follow = prepared.follow;
        route.epoch += 1;
        let epoch = route.epoch;
        persist(route).map_err(GateRefusal::Persist)?;
        table.generation += 1;
        table.passive = is_passive(&table);
        self.table.store(Arc::new(table));
        drop(prepared.held);
        drop(closed);
        Ok(GateReport {
            pause: begun.elapsed(),
            killed,
            epoch,
        })
    }

    async fn drained(&self, bit: RouteMask, flip: bool, until: Instant) -> bool {
        loop {
            let held = self.slots.lock().values().any(|s| s.holds_up(bit, flip));
            if !held {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            let _ = tokio::time::timeout(DRAIN_POLL, self.left.notified()).await;
        }
    }

    fn held_by(&self, bit: RouteMask, flip: bool) -> Vec<HeldBy> {
        let now = self.started.elapsed().as_millis() as u64;
        let slots = self.slots.lock();
        slots
            .values()
            .filter(|s| s.holds_up(bit, flip))
            .take(HELD_BY_MAX)
            .map(|s| HeldBy {
                session_id: s.id,
                user: s.label(),
                since_ms: now.saturating_sub(s.since_ms.load(Ordering::Relaxed)),
                has: match s.pins().names() {
                    pins if pins.is_empty() => vec!["transaction"],
                    pins => pins,
                },
            })
            .collect()
    }

    fn kill_holders(&self, bit: RouteMask, flip: bool) -> u32 {
        let slots = self.slots.lock();
        let mut killed = 0;
        for slot in slots.values().filter(|s| s.holds_up(bit, flip)) {
            slot.kill();
            killed += 1;
        }
        killed
    }
}

fn is_passive(table: &RouteTable) -> bool {
    table.routes.iter().all(|r| r.phase == Phase::SourceOnly)
}

impl RouteTable {
    /// An edit may make the table passive again, and never leaves a mirrored
    /// route unclassified.
    fn passive_after_edit(&self) -> bool {
        is_passive(self) && self.home() == Side::Source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::{Ack, DdlPolicy, DeferredPolicy, ReadsBy, RouteLive, TableGlob};

    fn routes(phase: Phase) -> Arc<Routes> {
        Routes::new(RouteTable {
            routes: vec![Route {
                name: "shop".into(),
                tables: vec![TableGlob::parse("shop.*").unwrap()],
                phase,
                epoch: 7,
                reads_percent: 0,
                reads_by: ReadsBy::Session,
                ack: Ack::Both,
                deferred: DeferredPolicy::Wait,
                ddl: DdlPolicy::Both,
                follow: None,
                live: Arc::new(RouteLive::default()),
            }],
            ..RouteTable::default()
        })
    }

    const LIMITS: GateLimits = GateLimits {
        drain: Duration::from_millis(50),
        total: Duration::from_millis(200),
    };
    const TO_TARGET: RouteChange = RouteChange {
        phase: Phase::TargetFirst,
        reads_percent: 100,
    };

    /// Nothing to prepare.
    async fn plain(_: Instant) -> Result<Prepared<()>, String> {
        Ok(Prepared {
            follow: None,
            held: (),
        })
    }

    #[tokio::test]
    async fn an_edge_waits_for_holders_and_names_them() {
        let r = routes(Phase::SourceFirst);
        let slot = r.register();
        slot.set_label("app@here".into());
        assert!(r.try_enter(&slot, 1));
        let refused = r
            .change("shop", LIMITS, false, TO_TARGET, plain, |_| Ok(()))
            .await;
        match refused {
            Err(GateRefusal::Undrained(held)) => assert_eq!(held[0].user, "app@here"),
            other => panic!("{other:?}"),
        }
        assert_eq!(r.load().routes[0].phase, Phase::SourceFirst);
        assert!(r.try_enter(&slot, 1), "the gate is open again");
        r.leave(&slot);
        let report = r
            .change("shop", LIMITS, false, TO_TARGET, plain, |_| Ok(()))
            .await
            .unwrap();
        assert_eq!(report.epoch, 8);
        assert_eq!(r.load().home(), Side::Target);
    }

    #[tokio::test]
    async fn a_holder_may_go_on_while_others_wait() {
        let r = routes(Phase::SourceFirst);
        let (inside, outside) = (r.register(), r.register());
        assert!(r.try_enter(&inside, 1));
        let edge = tokio::spawn({
            let r = r.clone();
            async move {
                r.change("shop", LIMITS, false, TO_TARGET, plain, |_| Ok(()))
                    .await
            }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!r.try_enter(&outside, 1), "a newcomer waits");
        assert!(r.try_enter(&inside, 1), "a holder goes on");
        r.leave(&inside);
        edge.await.unwrap().unwrap();
        r.enter(&outside, 1).await;
        assert_eq!(r.load().routes[0].epoch, 8);
    }

    #[tokio::test]
    async fn a_failed_persist_changes_nothing() {
        let r = routes(Phase::SourceOnly);
        assert!(r.load().passive);
        let refused = r
            .change("shop", LIMITS, false, TO_TARGET, plain, |_| {
                Err("disk full".into())
            })
            .await;
        assert!(matches!(refused, Err(GateRefusal::Persist(_))));
        assert_eq!(r.load().routes[0].epoch, 7);
        assert!(r.load().passive);
    }

    /// A temporary table keeps the active side where it is, and its session
    /// passes the closed gate to drop it; edges that do not flip ignore it.
    #[tokio::test]
    async fn a_flip_waits_for_the_pinned_and_lets_them_through() {
        let r = routes(Phase::SourceFirst);
        let slot = r.register();
        slot.pin(Pins::TEMPORARY_TABLE.with(Pins::CURSOR, true));
        let refused = r
            .change("shop", LIMITS, false, TO_TARGET, plain, |_| Ok(()))
            .await;
        let said = refused.map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("temporary table and open cursor"), "{said}");
        let back = RouteChange {
            phase: Phase::SourceOnly,
            reads_percent: 0,
        };
        assert!(
            r.change("shop", LIMITS, false, back, plain, |_| Ok(()))
                .await
                .is_ok()
        );
        let patient = GateLimits {
            drain: Duration::from_secs(5),
            total: Duration::from_secs(6),
        };
        let other = r.clone();
        let flip = tokio::spawn(async move {
            let done = other.change("shop", patient, false, TO_TARGET, plain, |_| Ok(()));
            done.await.is_ok()
        });
        while r.closed.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let free = r.register();
        assert!(!r.try_enter(&free, 1));
        assert!(r.try_enter(&slot, 1));
        slot.pin(Pins::default());
        assert!(!flip.is_finished());
        r.leave(&slot);
        assert!(flip.await.unwrap());
    }
}
