//! What the background work of a route shows of itself, in the shape of
//! `status` (DESIGN §9).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::Side;
use crate::binlog::Position;
use crate::binlog::event::Query;
use crate::follow::beat::Beat;
use crate::{copy, follow};

/// Which log is read, and how what it says is brought over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// The side whose log is read.
    pub from: Side,
    /// `heal` while writes are mirrored, else `apply`.
    pub heal: bool,
    /// Whether rows from before are copied too.
    pub copy: bool,
}

/// Where the work stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Connecting, reading shapes, making tables.
    #[default]
    Starting,
    /// At work.
    Running,
    /// A backend is away, or refused something that may pass: tried again.
    Waiting,
    /// Cannot go on by itself; `detail` says why.
    Stopped,
    /// By the operator.
    Paused,
}

/// Where the copy stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Copying {
    /// Not begun: the follower comes first.
    #[default]
    Waiting,
    /// Rows are read and written.
    Running,
    /// All rows that were there are on the other side.
    Done,
}

/// `copy` of a route in `status`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CopyView {
    /// Where it stands.
    pub state: Copying,
    /// Rows written, those of earlier runs included.
    pub rows_done: u64,
    /// Rows in all, as the server estimates.
    pub rows_estimated: u64,
    /// Rows a second, of late.
    pub rows_per_s: u64,
    /// Seconds left at that rate; None when it is not known.
    pub eta_s: Option<u64>,
    /// What keeps it from being done although its rows are over.
    pub detail: Option<String>,
}

/// `follow` of a route in `status`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FollowView {
    /// `source_to_target` or `target_to_source`.
    pub direction: &'static str,
    /// `apply` or `heal`.
    pub mode: &'static str,
    /// Where it stands.
    pub state: State,
    /// Why it waits or stopped.
    pub detail: Option<String>,
    /// How far behind the other side is, in milliseconds; None when unknown.
    pub lag_ms: Option<u64>,
    /// Behind the last transaction that is written.
    pub position: Option<String>,
    /// Row events read so far in this phase.
    pub events: u64,
    /// Rows of the mirror that were repaired in this phase.
    pub healed: HealedView,
    /// Rows that wait to be healed: locked by somebody, or refused.
    pub pending: u64,
    /// Why the mirror refused a row last.
    pub refused: Option<String>,
}

/// Repaired rows by what was wrong with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct HealedView {
    /// Other values.
    pub changed: u64,
    /// Not there.
    pub missing: u64,
    /// Only there.
    pub extra: u64,
}

#[derive(Default)]
struct Now {
    state: State,
    detail: Option<String>,
    copying: Copying,
    unbuilt: Option<String>,
}

/// Shared by a route's task and those who ask.
pub struct View {
    /// What the task does.
    pub work: Work,
    /// The follower's counters.
    pub followed: Arc<follow::Status>,
    /// The copier's.
    pub copied: Arc<copy::Status>,
    now: Mutex<Now>,
    beat: Mutex<Option<Arc<Beat>>>,
    /// Where the follower stopped last.
    stopped_at: Mutex<Option<Position>>,
    /// Tables of the target that held rows before the copy.
    pub(super) over: Mutex<Option<String>>,
    /// What the metrics have of the counters.
    counted: Mutex<(u64, HealedView)>,
    /// Where this run of the follower began.
    began_at: Mutex<Option<Position>>,
    /// The change of a definition that it stopped at.
    met: Mutex<Option<Query>>,
    /// The change of a definition behind this position is on both sides.
    passes: Mutex<Option<Position>>,
    /// An operator has said so of the one that the follower stopped at.
    resumed: AtomicBool,
    /// The same, in the run that came of it.
    told: AtomicBool,
}

/// Shows a beat while it lives.
pub(super) struct Beating<'a>(&'a View);

impl Drop for Beating<'_> {
    fn drop(&mut self) {
        self.0.beat.lock().take();
    }
}

impl View {
    /// Of a task about to start.
    pub fn new(work: Work) -> View {
        View {
            work,
            followed: Arc::default(),
            copied: Arc::default(),
            now: Mutex::default(),
            beat: Mutex::default(),
            stopped_at: Mutex::default(),
            over: Mutex::default(),
            counted: Mutex::default(),
            began_at: Mutex::default(),
            met: Mutex::default(),
            passes: Mutex::default(),
            resumed: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }

    /// Behind the last transaction written.
    pub(super) fn position(&self) -> Option<Position> {
        self.followed.position.lock().clone()
    }

    /// A run begins where its follower is now.
    pub(super) fn begins(&self) {
        *self.began_at.lock() = self.position();
        let told = self.resumed.swap(false, Ordering::Relaxed);
        self.told.store(told, Ordering::Relaxed);
    }

    /// An operator has seen to what the follower stopped at.
    pub(super) fn resume(&self) {
        self.resumed.store(true, Ordering::Relaxed);
    }

    /// Whether an operator's word is for what the follower meets now: only for
    /// the first thing that the run after it meets.
    pub(super) fn is_resumed(&self) -> bool {
        let began = self.began_at.lock().clone();
        self.told.load(Ordering::Relaxed) && began.is_some() && began == self.position()
    }

    /// Notes the change of a definition that the follower is to stop at.
    pub(super) fn meets(&self, query: Option<Query>) {
        *self.met.lock() = query;
    }

    /// What it stopped at.
    pub(super) fn met(&self) -> Option<Query> {
        self.met.lock().take()
    }

    /// Both sides have the change of a definition behind this position.
    pub(super) fn let_pass(&self, position: Option<Position>) {
        *self.passes.lock() = position;
    }

    /// Whether that is the one that the follower meets now.
    pub(super) fn is_to_pass(&self) -> bool {
        let passes = self.passes.lock().clone();
        passes.is_some() && passes == self.position()
    }

    /// Notes where the follower is, now that it has stopped.
    pub(super) fn stopped(&self) {
        *self.stopped_at.lock() = self.followed.position.lock().clone();
    }

    /// Whether the follower has not moved since it stopped.
    pub(super) fn is_where_it_stopped(&self) -> bool {
        let now = self.followed.position.lock();
        now.is_some() && *now == *self.stopped_at.lock()
    }

    /// Takes the lag and barriers from this beat, as long as the guard lives.
    pub(super) fn beating(&self, beat: Beat) -> Beating<'_> {
        *self.beat.lock() = Some(Arc::new(beat));
        Beating(self)
    }

    /// Waits until the other side has all that is in the log now.
    pub(super) async fn barrier(&self, limit: Duration) -> Result<(), String> {
        let beat = self.beat.lock().clone();
        let beat = beat.ok_or("the follower is starting")?;
        beat.barrier(limit).await.map_err(|e| e.to_string())
    }

    /// Says where the work stands.
    pub fn set(&self, state: State, detail: Option<String>) {
        let mut now = self.now.lock();
        now.state = state;
        now.detail = detail;
    }

    /// Says where the copy stands.
    pub fn set_copying(&self, copying: Copying) {
        let mut now = self.now.lock();
        now.copying = copying;
        now.unbuilt = None;
    }

    /// Says what the target refused once the rows were over.
    pub(super) fn set_unbuilt(&self, unbuilt: Option<String>) {
        self.now.lock().unbuilt = unbuilt;
    }

    /// Where the work stands, and why.
    pub fn state(&self) -> (State, Option<String>) {
        let now = self.now.lock();
        (now.state, now.detail.clone())
    }

    /// `copy` for status; None where nothing is copied.
    pub fn copy(&self) -> Option<CopyView> {
        if !self.work.copy {
            return None;
        }
        let now = self.now.lock();
        let done = self.copied.rows_done.load(Ordering::Relaxed);
        let estimated = self.copied.rows_estimated.load(Ordering::Relaxed).max(done);
        let running = now.copying == Copying::Running;
        let rate = if running {
            self.copied.rows_per_s()
        } else {
            0.0
        };
        let left = self.copied.eta().filter(|_| running);
        Some(CopyView {
            state: now.copying,
            rows_done: done,
            rows_estimated: estimated,
            rows_per_s: rate as u64,
            eta_s: left.map(|l| l.as_secs()),
            detail: now.unbuilt.clone(),
        })
    }

    /// How far the other side is behind, in milliseconds; None: not known.
    pub fn lag_ms(&self) -> Option<u64> {
        let beat = self.beat.lock().clone()?;
        let lag = beat.lag()?;
        Some(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX))
    }

    fn healed(&self) -> HealedView {
        let heal = &self.followed.heal;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HealedView {
            changed: of(&heal.changed),
            missing: of(&heal.missing),
            extra: of(&heal.extra),
        }
    }

    /// Brings the metrics up to the counters.
    pub(super) fn count(&self, route: &str) {
        let now = (self.followed.events.load(Ordering::Relaxed), self.healed());
        let (events, healed) = std::mem::replace(&mut *self.counted.lock(), now);
        crate::telemetry::followed(route, now.0.saturating_sub(events));
        for (kind, now, before) in [
            ("changed", now.1.changed, healed.changed),
            ("missing", now.1.missing, healed.missing),
            ("extra", now.1.extra, healed.extra),
        ] {
            crate::telemetry::healed(route, kind, now.saturating_sub(before));
        }
    }

    /// `follow` for status.
    pub fn follow(&self) -> FollowView {
        let (state, detail) = self.state();
        FollowView {
            direction: match self.work.from {
                Side::Source => "source_to_target",
                Side::Target => "target_to_source",
            },
            mode: if self.work.heal { "heal" } else { "apply" },
            state,
            detail,
            lag_ms: self.lag_ms(),
            position: self
                .followed
                .position
                .lock()
                .as_ref()
                .map(ToString::to_string),
            events: self.followed.events.load(Ordering::Relaxed),
            healed: self.healed(),
            pending: self.followed.pending(),
            refused: self.followed.heal.refusal.lock().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_shows_only_where_there_is_one() {
        let work = Work {
            from: Side::Source,
            heal: false,
            copy: true,
        };
        let view = View::new(work);
        view.copied.rows_done.store(5, Ordering::Relaxed);
        let shown = view.copy().unwrap();
        assert_eq!((shown.rows_done, shown.rows_estimated), (5, 5));
        assert_eq!(shown.eta_s, None);
        assert!(
            View::new(Work {
                copy: false,
                ..work
            })
            .copy()
            .is_none()
        );
        assert_eq!(view.follow().direction, "source_to_target");
    }
}
