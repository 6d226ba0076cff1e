//! When the copy holds back: a rate that may depend on the time of day, the
//! follower's lag, and how busy the side that is read is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::config::CopySettings;
use crate::leg::{Leg, Lost};
use crate::wire::text_rows::QueryAnswer;

use super::Status;

/// How often a copy that holds back looks again.
const LOOK: Duration = Duration::from_millis(200);

/// How old the number of running threads may be: asking is cheap, and a
/// server gets busy within a second.
const THREADS_FRESH: Duration = Duration::from_secs(1);

/// Chunks that a rate is kept by.
const CHUNKS_A_SECOND: u64 = 4;

/// Work that a copy which was held back may catch up on at once.
const BURST: Duration = Duration::from_millis(500);

/// Tells the follower's lag, where it is known.
pub type Lag = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

#[derive(Default)]
struct Seen {
    /// When the rows copied so far are paid for.
    paid: Option<Instant>,
    /// When threads were counted, and how many ran.
    threads: Option<(Instant, u64)>,
}

/// Decides when the next chunk may be read.
pub struct Throttle {
    settings: CopySettings,
    lag: Lag,
    seen: Mutex<Seen>,
}

impl Throttle {
    /// By the settings, and what `lag` says.
    pub fn new(settings: CopySettings, lag: Lag) -> Throttle {
        Throttle {
            settings,
            lag,
            seen: Mutex::default(),
        }
    }

    /// Never holds back.
    pub fn none() -> Throttle {
        let settings = CopySettings {
            max_lag_ms: 0,
            max_threads_running: 0,
            ..CopySettings::default()
        };
        Throttle::new(settings, Arc::new(|| None))
    }

    /// The rate at a minute of the day; None: pause.
    fn rate(&self, minute: u16) -> Option<u64> {
        let mut hours = self.settings.schedule.iter();
        match hours.find(|h| h.contains(minute)) {
            Some(hours) if hours.pause => None,
            Some(hours) => Some(hours.rows_per_s),
            None => Some(self.settings.rows_per_s),
        }
    }

    /// Rows of one chunk, `most` where no rate is kept: with a rate few enough
    /// that it is kept within a second, too.
    pub(super) fn chunk_max(&self, most: usize) -> usize {
        match self.rate(minute()).filter(|rate| *rate > 0) {
            Some(rate) => {
                let part = usize::try_from(rate / CHUNKS_A_SECOND).unwrap_or(most);
                part.clamp(1, most)
            }
            None => most,
        }
    }

    /// Rows were read.
    pub(super) fn spent(&self, rows: u64) {
        self.spend(rows, minute(), Instant::now());
    }

    fn spend(&self, rows: u64, minute: u16, now: Instant) {
        let Some(rate) = self.rate(minute).filter(|r| *r > 0) else {
            return;
        };
        let mut seen = self.seen.lock();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let paid = seen.paid.map_or(earliest, |p| p.max(earliest));
        let cost = Duration::from_secs_f64(rows as f64 / rate as f64);
        seen.paid = Some(paid + cost);
    }

    /// What stands against the next chunk; the threads must have been counted.
    fn against(&self, minute: u16, now: Instant) -> Option<&'static str> {
        let Some(rate) = self.rate(minute) else {
            return Some("paused by the schedule");
        };
        let most = Duration::from_millis(self.settings.max_lag_ms);
        if !most.is_zero() && (self.lag)().is_some_and(|lag| lag > most) {
            return Some("the follower's lag is above copy.max_lag_ms");
        }
        let seen = self.seen.lock();
        let most = self.settings.max_threads_running;
        if most > 0 && seen.threads.is_some_and(|(_, running)| running > most) {
            return Some("more threads run than copy.max_threads_running");
        }
        let behind = rate > 0 && seen.paid.is_some_and(|paid| paid > now);
        behind.then_some("copy.rows_per_s")
    }

    /// Waits until the next chunk may be read.
    ///
    /// # Errors
    /// The side that is read does not say how many threads run.
    pub(super) async fn admit(&self, status: &Status, source: &mut Leg) -> Result<(), Lost> {
        loop {
            self.count_threads(source).await?;
            let now = Instant::now();
            let against = self.against(minute(), now);
            *status.throttled.lock() = against;
            if against.is_none() {
                return Ok(());
            }
            let paid = self.seen.lock().paid;
            let left = paid.map_or(LOOK, |paid| paid.saturating_duration_since(now));
            // Not paid for: exactly as long; anything else: looks again.
            let wait = if left.is_zero() { LOOK } else { left.min(LOOK) };
            tokio::time::sleep(wait).await;
        }
    }

    async fn count_threads(&self, source: &mut Leg) -> Result<(), Lost> {
        if self.settings.max_threads_running == 0 {
            return Ok(());
        }
        let fresh = |(at, _): &(Instant, u64)| at.elapsed() < THREADS_FRESH;
        if self.seen.lock().threads.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        let sql = "SHOW GLOBAL STATUS LIKE 'Threads_running'";
        let running = match source.rows(sql.as_bytes()).await? {
            QueryAnswer::Rows(rows) => {
                let text = rows.value(0, 1).flatten().unwrap_or_default();
                String::from_utf8_lossy(text).parse().unwrap_or(0)
            }
            _ => return Err(source.lost("it does not say how many threads run")),
        };
        self.seen.lock().threads = Some((Instant::now(), running));
        Ok(())
    }
}

/// Minutes of this day, in UTC.
fn minute() -> u16 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let minutes = now.map_or(0, |d| d.as_secs() / 60 % 1440);
    u16::try_from(minutes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Hours;

    #[test]
    fn a_rate_is_kept() {
        let settings = CopySettings {
            rows_per_s: 1000,
            schedule: vec![
                Hours {
                    from: 60,
                    to: 120,
                    rows_per_s: 0,
                    pause: false,
                },
                Hours {
                    from: 180,
                    to: 240,
                    rows_per_s: 0,
                    pause: true,
                },
            ],
            ..CopySettings::default()
        };
        let throttle = Throttle::new(settings, Arc::new(|| None));
        let now = Instant::now() + BURST;
        assert_eq!(throttle.against(0, now), None);
        throttle.spend(400, 0, now);
        assert_eq!(throttle.against(0, now), None, "within the burst");
        throttle.spend(1100, 0, now);
        assert_eq!(throttle.against(0, now), Some("copy.rows_per_s"));
        assert_eq!(throttle.against(90, now), None, "no limit at this hour");
        assert_eq!(throttle.against(200, now), Some("paused by the schedule"));
        let later = now + Duration::from_millis(1001);
        assert_eq!(throttle.against(0, later), None);
    }

    #[test]
    fn lag_and_threads_hold_it_back() {
        let lag = Arc::new(Mutex::new(Some(Duration::from_secs(2))));
        let told = lag.clone();
        let throttle = Throttle::new(CopySettings::default(), Arc::new(move || *told.lock()));
        let now = Instant::now();
        assert!(throttle.against(0, now).is_some_and(|w| w.contains("lag")));
        *lag.lock() = None;
        assert_eq!(throttle.against(0, now), None, "not known");
        throttle.seen.lock().threads = Some((now, 65));
        assert!(
            throttle
                .against(0, now)
                .is_some_and(|w| w.contains("threads"))
        );
    }
}
