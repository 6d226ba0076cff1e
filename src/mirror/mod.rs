//! Mirrored writes: the protocol of DESIGN §5.
//!
//! [`write`](write::write) executes one statement on the active leg and,
//! while its row locks are held, on the mirror's; [`transaction`] ends an
//! explicit transaction on both. Both are given two legs and answer with the
//! bytes the client is to get; neither knows the client.
//!
//! The mirror never hurts the application: whatever it does wrong ends in
//! [`Env::fail`], which counts, journals, and discards the leg.

mod ahead;
mod answer;
pub mod circuit;
mod context;
pub mod debts;
pub mod journal;
pub mod positions;
pub mod reaper;
pub mod timer;
pub mod transaction;
pub mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Side;
use crate::leg::Leg;
use crate::route::table::{Route, RouteTable};
use crate::telemetry;
use debts::Debts;
use journal::{Journal, Kind, Of};
use positions::Positions;
use reaper::Reaper;
use timer::Timer;

/// What all mirrored writes of a process share.
pub struct Shared {
    /// Where unmirrored writes are noted.
    pub journal: Arc<Journal>,
    /// The sampled binlog positions.
    pub positions: Arc<Positions>,
    /// Ends discarded legs.
    pub reaper: Reaper,
    /// How long after the active's answer the mirror's may take.
    pub deadline: Duration,
    /// Single mirror errors a minute beyond which the route is suspended.
    pub errors_per_minute: u32,
    /// Test only: mirror after the active's commit, to show that the order
    /// test would see it.
    pub mirror_after_commit: bool,
}

/// The surroundings of one mirrored statement or transaction.
pub struct Env<'a> {
    /// What is shared.
    pub shared: &'a Shared,
    /// The snapshot the plan was made from.
    pub table: &'a RouteTable,
    /// The index of the route.
    pub route: usize,
    /// The side whose answer counts.
    pub active: Side,
    /// The active side's position, sampled before the transaction began.
    pub since: Option<Arc<String>>,
    /// What the session waits for before it reads on the mirror.
    pub debts: &'a Debts,
}

/// What the mirror's leg has of the client's transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Part {
    /// No transaction that matters.
    #[default]
    None,
    /// A transaction with copies of the active side's writes in it.
    Open,
    /// A transaction with statements in it that this leg alone has executed
    /// ([`crate::session`], second parts): never to be given up alone.
    Own,
}

/// The mirror leg's slot in a session, with its part of the transaction.
pub struct MirrorLeg<'a> {
    /// The leg; taken when it is discarded.
    pub leg: &'a mut Option<Leg>,
    /// Its part of the transaction.
    pub part: &'a mut Part,
    /// The session's timer.
    pub timer: &'a mut Timer,
}

/// Why the mirror did not get a write.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// No answer within the deadline.
    Deadline,
    /// Another statement of the route suspended it.
    Suspended,
    /// The connection was lost.
    Lost,
    /// The mirror answered with an error.
    Refused,
    /// It answered something that breaks the protocol of §5.
    Unexpected,
}

impl Failure {
    /// The journal's reason and the metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Failure::Deadline => "deadline",
            Failure::Suspended => "suspended",
            Failure::Lost => "lost",
            Failure::Refused => "refused",
            Failure::Unexpected => "unexpected",
        }
    }
}

/// A write whose fate on the mirror is open. Dropped before it is
/// [`settled`](InFlight::settled), its session was ended in the middle of it:
/// 1. A commits; 2. an operator kills the session, and all its futures are
///    dropped; 3. M's part goes with its leg: only this knows of the difference.
pub struct InFlight<'a> {
    env: &'a Env<'a>,
    settled: bool,
}

impl InFlight<'_> {
    /// Whatever became of it is counted.
    pub fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.env.failed("cut_off");
        }
    }
}

impl Env<'_> {
    /// To be held while a write may be on A and not on M.
    pub fn in_flight(&self) -> InFlight<'_> {
        InFlight {
            env: self,
            settled: false,
        }
    }

    /// The route.
    pub fn route(&self) -> Option<&Route> {
        self.table.routes.get(self.route)
    }

    /// The name of the route, for the journal and metrics.
    pub fn route_name(&self) -> &str {
        self.route().map_or("", |r| r.name.as_str())
    }

    /// Counts and journals a write that the mirror will not get by plan.
    pub fn deferred(&self, reason: &'static str) {
        if let Some(route) = self.route() {
            route.live.writes_deferred.fetch_add(1, Ordering::Relaxed);
        }
        self.note(Kind::Deferred, reason);
    }

    /// Appends to the journal, with a position of the active side from before
    /// the transaction began. A sample of now would not do: 1. A commits at
    /// P1; 2. the sampler sees P2; 3. M's COMMIT expires: the write is before
    /// P2.
    pub fn note(&self, kind: Kind, reason: &'static str) {
        let since = self.since.as_deref().map(String::as_str);
        let of = Of {
            route: self.route_name(),
            side: self.active,
            stream: self
                .route()
                .and_then(|r| Some(&r.follow.as_ref()?.stream[..])),
        };
        self.shared.journal.note(of, kind, reason, since);
        if let Some(route) = self.route() {
            self.debts.owe(route);
        }
        telemetry::journal_entry(self.route_name(), kind.as_str());
    }

    /// Counts and journals a write, or a transaction's, that the mirror may
    /// lack although it was to have it: the active side was lost or refused a
    /// COMMIT, and only its log knows what became of it; or M's part is gone.
    pub fn failed(&self, reason: &'static str) {
        if let Some(route) = self.route() {
            route.live.writes_failed.fetch_add(1, Ordering::Relaxed);
            telemetry::mirror_write(&route.name, reason);
        }
        self.note(Kind::Failed, reason);
    }

    /// The mirror failed: the write is counted and journalled, its part is
    /// gone, the leg is discarded where it cannot be trusted any more, and
    /// the route suspended where waiting on would hurt.
    pub fn fail(&self, mirror: &mut MirrorLeg<'_>, failure: Failure, what: &str) {
        *mirror.part = Part::None;
        if let Some(route) = self.route() {
            route.live.writes_failed.fetch_add(1, Ordering::Relaxed);
            telemetry::mirror_write(&route.name, failure.as_str());
            match failure {
                Failure::Deadline | Failure::Lost => {
                    circuit::suspend(route, &format!("{}: {what}", failure.as_str()));
                }
                Failure::Refused | Failure::Unexpected => {
                    circuit::count_error(route, self.shared.errors_per_minute, what);
                }
                Failure::Suspended => {}
            }
        }
        // The server's text may hold values of rows, so it is not for every
        // log; its number is the first word of it.
        let number = what.split(' ').next().unwrap_or_default();
        tracing::info!(
            route = self.route_name(),
            failure = failure.as_str(),
            number,
            "mirror failed"
        );
        tracing::debug!(route = self.route_name(), what, "mirror failed");
        self.note(Kind::Failed, failure.as_str());
        self.discard(mirror);
    }

    /// Ends the mirror's leg. It is never used again: its answer, or its
    /// transaction, may still come (protocol-review C3).
    pub fn discard(&self, mirror: &mut MirrorLeg<'_>) {
        *mirror.part = Part::None;
        if let Some(leg) = mirror.leg.take() {
            self.shared.reaper.kill(leg.side, leg.info.thread_id);
        }
    }
}
