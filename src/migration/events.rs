//! What happened, for whoever watches: the last events in memory, and a live
//! stream. Also the one place that writes times as people read them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::broadcast;

/// Events kept for those who come later; also how far a slow watcher may lag
/// before it is told that it missed some.
const KEPT: usize = 256;

/// One event.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// Counts up from 1 in this process.
    pub id: u64,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// `phase`, `reads`, `route_added`, `route_changed`, `route_removed`,
    /// `suspended`, `resumed`, `backend_up`, `backend_down`, `refused`.
    pub kind: &'static str,
    /// The route it is about.
    pub route: Option<String>,
    /// For people.
    pub detail: String,
}

struct Ring {
    next: u64,
    kept: VecDeque<Arc<Event>>,
}

/// The events of this process.
pub struct Events {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Events {
            ring: Mutex::new(Ring {
                next: 1,
                kept: VecDeque::with_capacity(KEPT),
            }),
            live: broadcast::channel(KEPT).0,
        }
    }
}

impl Events {
    /// Records an event, and logs it.
    pub fn say(&self, kind: &'static str, route: Option<&str>, detail: String) {
        tracing::info!(kind, route = route.unwrap_or("-"), "{detail}");
        let mut ring = self.ring.lock();
        let event = Arc::new(Event {
            id: ring.next,
            at: rfc3339(SystemTime::now()),
            kind,
            route: route.map(str::to_owned),
            detail,
        });
        ring.next += 1;
        if ring.kept.len() >= KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event.clone());
        // Nobody listening is no error. Sent under the lock: a watcher gets
        // each event once, from the ring or from the stream.
        let _ = self.live.send(event);
    }

    /// The events kept after `after`, and those to come.
    pub fn watch(&self, after: u64) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let ring = self.ring.lock();
        let kept = ring.kept.iter().filter(|e| e.id > after).cloned().collect();
        (kept, self.live.subscribe())
    }
}

/// A time as `2026-11-21T01:02:03Z`. Times before 1970 become 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days since 1970-01-01, in years that begin in March and
    // eras of 400 years (146,097 days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_222_861), "2026-11-21T01:01:01Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn the_ring_is_bounded_and_nothing_comes_twice() {
        let events = Events::default();
        for i in 0..300 {
            events.say("reads", Some("shop"), i.to_string());
        }
        let (kept, mut live) = events.watch(290);
        assert_eq!(kept.len(), 10);
        assert_eq!(events.watch(0).0.len(), KEPT);
        events.say("phase", None, "x".to_owned());
        assert_eq!(live.try_recv().unwrap().id, 301);
    }
}
