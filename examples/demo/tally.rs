//! What the application saw: counts and times per stage of the walk.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time a histogram can tell apart, in microseconds.
const LONGEST_US: u64 = 120_000_000;
/// Errors kept in full; the others are only counted.
const EXAMPLES: usize = 5;

/// Times of statements, in microseconds.
type Times = Histogram<u64>;

fn times() -> Times {
    Times::new_with_bounds(1, LONGEST_US, 3).expect("bounds of a histogram")
}

/// One stage: a phase at a read split.
pub struct Stage {
    pub name: String,
    pub seconds: f64,
    pub reads: Times,
    pub writes: Times,
    /// Statements answered by the source and the target, as they count them.
    pub selects: [u64; 2],
    pub errors: u64,
    pub retried: u64,
    began: Instant,
}

impl Stage {
    fn new(name: &str) -> Stage {
        Stage {
            name: name.to_string(),
            seconds: 0.0,
            reads: times(),
            writes: times(),
            selects: [0; 2],
            errors: 0,
            retried: 0,
            began: Instant::now(),
        }
    }

    pub fn statements(&self) -> u64 {
        self.reads.len() + self.writes.len()
    }

    /// The target's share of the reads, in percent.
    pub fn on_target(&self) -> f64 {
        let [source, target] = self.selects.map(|n| n as f64);
        100.0 * target / (source + target).max(1.0)
    }
}

/// Whether a statement reads or writes; transaction control counts as writing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

/// Shared by all clients of the application.
pub struct Tally {
    stages: Mutex<Vec<Stage>>,
    examples: Mutex<Vec<String>>,
    flipping: AtomicBool,
    longest_us: AtomicU64,
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            stages: Mutex::new(vec![Stage::new("start")]),
            examples: Mutex::new(Vec::new()),
            flipping: AtomicBool::new(false),
            longest_us: AtomicU64::new(0),
        }
    }

    /// Ends the present stage and begins another; what is under way counts for
    /// the one in which it ends.
    pub fn stage(&self, name: &str) {
        let mut stages = self.stages.lock();
        if let Some(last) = stages.last_mut() {
            last.seconds = last.began.elapsed().as_secs_f64();
        }
        stages.push(Stage::new(name));
    }

    /// Adds what the servers answered meanwhile to the present stage.
    pub fn selects(&self, [source, target]: [u64; 2]) {
        if let Some(stage) = self.stages.lock().last_mut() {
            stage.selects[0] += source;
            stage.selects[1] += target;
        }
    }

    /// A statement was answered, well or with an error, after `took`.
    pub fn answered(&self, kind: Kind, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        if kind == Kind::Write && self.flipping.load(Ordering::Relaxed) {
            self.longest_us.fetch_max(us, Ordering::Relaxed);
        }
        if let Some(stage) = self.stages.lock().last_mut() {
            let times = match kind {
                Kind::Read => &mut stage.reads,
                Kind::Write => &mut stage.writes,
            };
            times.saturating_record(us.max(1));
        }
    }

    /// The application could not do what it wanted.
    pub fn failed(&self, what: String) {
        if let Some(stage) = self.stages.lock().last_mut() {
            stage.errors += 1;
        }
        let mut examples = self.examples.lock();
        if examples.len() < EXAMPLES {
            examples.push(what);
        }
    }

    /// A deadlock or lock timeout; the application tries again.
    pub fn retried(&self) {
        if let Some(stage) = self.stages.lock().last_mut() {
            stage.retried += 1;
        }
    }

    /// Statements, errors and retries so far.
    pub fn totals(&self) -> (u64, u64, u64) {
        let stages = self.stages.lock();
        let sum = |of: fn(&Stage) -> u64| stages.iter().map(of).sum();
        (
            sum(Stage::statements),
            sum(|s| s.errors),
            sum(|s| s.retried),
        )
    }

    /// From here on the longest write is watched.
    pub fn flip_begins(&self) {
        self.longest_us.store(0, Ordering::Relaxed);
        self.flipping.store(true, Ordering::Relaxed);
    }

    /// The longest write that ended since [`Tally::flip_begins`].
    pub fn flip_ended(&self) -> Duration {
        self.flipping.store(false, Ordering::Relaxed);
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }

    /// All stages, the present one ended now, and the errors kept in full.
    pub fn report(&self) -> (Vec<Stage>, Vec<String>) {
        self.stage("end");
        let mut stages = std::mem::take(&mut *self.stages.lock());
        stages.retain(|stage| stage.statements() > 0 || stage.errors > 0);
        (stages, self.examples.lock().clone())
    }
}
