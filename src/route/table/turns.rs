//! Whether a route's writes of one row may be executed on both sides at once,
//! or take their turns: the active side first, like all others.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The first pause after writes were in each other's way, in seconds: where
/// rows are fought for that is all it costs, one attempt a second.
const PAUSE: Duration = Duration::from_secs(1);

/// Doubled each time with none that went well in between, up to so many
/// seconds: a side may be too far away for it to go well at all.
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// Since when turns are taken, and for how long.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Option<(Instant, Duration)>>);

impl Turns {
    /// Every write is to be executed on the active side first, at this moment.
    pub fn are_taken(&self) -> bool {
        self.are_taken_at(Instant::now)
    }

    fn are_taken_at(&self, now: impl FnOnce() -> Instant) -> bool {
        let turns = *self.0.lock();
        turns.is_some_and(|(since, pause)| now().duration_since(since) < pause)
    }

    /// Writes were in each other's way, or a side took too long.
    pub fn begin(&self) {
        self.begin_at(Instant::now());
    }

    fn begin_at(&self, now: Instant) {
        let mut turns = self.0.lock();
        let pause = match *turns {
            // This one was under way when the pause began.
            Some((since, pause)) if now.duration_since(since) < pause => return,
            Some((_, pause)) => (pause * 2).min(PAUSE_MAX),
            None => PAUSE,
        };
        *turns = Some((now, pause));
    }

    /// A write that took no turn went well.
    pub fn went_well(&self) {
        let mut turns = self.0.lock();
        if turns.is_some_and(|(since, pause)| since.elapsed() >= pause) {
            *turns = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_it_goes_well() {
        let turns = Turns::default();
        let now = Instant::now();
        let taken = |at: Instant| turns.are_taken_at(|| at);
        assert!(!taken(now));
        turns.begin_at(now);
        turns.begin_at(now + PAUSE / 2);
        assert!(taken(now + PAUSE / 2) && !taken(now + PAUSE));
        let again = now + PAUSE;
        turns.begin_at(again);
        assert!(taken(again + PAUSE) && !taken(again + 2 * PAUSE));
        turns.went_well();
        assert!(taken(again + PAUSE), "not while turns are taken");
        let mut at = again;
        for _ in 0..10 {
            at += PAUSE_MAX;
            turns.begin_at(at);
        }
        assert!(!taken(at + PAUSE_MAX));
        *turns.0.lock() = now.checked_sub(PAUSE).map(|since| (since, PAUSE));
        turns.went_well();
        assert!(turns.0.lock().is_none());
    }
}
