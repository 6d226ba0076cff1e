//! Writes that search for their rows on the mirror, and copies that run ahead
//! there of what changes an index: not at the same time.
//!
//! 1. A copy locks row r; 2. a search has locked r's entry in an index, and waits
//!    for r; 3. the copy waits for the entry: a deadlock, which without the copy
//!    there would not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Both of a route.
#[derive(Debug, Default)]
pub struct Searches {
    /// A copy for each leg to the mirror in whose transaction a write has searched.
    open: Arc<()>,
    /// Copies that the mirror has not answered: they may wait there for a lock
    /// more. What it has answered waits for nothing.
    copies: AtomicU32,
    /// When the last of them began.
    last: Mutex<Option<Instant>>,
    answered: Notify,
}

/// A copy that is executed. Dropped when the mirror has answered it.
pub struct Copying<'a>(&'a Searches);

impl Searches {
    /// No copy begins as long as this is kept.
    pub fn begin(&self) -> Arc<()> {
        let open = self.open.clone();
        // With the other: one of both sees the other's count.
        fence(Ordering::SeqCst);
        open
    }

    /// Returns when no copy waits for the mirror's answer. None will, if the caller
    /// keeps what [`begin`](Searches::begin) gave.
    pub async fn uncopied(&self) {
        loop {
            let mut answered = std::pin::pin!(self.answered.notified());
            // Registered before the count is looked at.
            answered.as_mut().enable();
            if self.copies.load(Ordering::SeqCst) == 0 {
                return;
            }
            answered.await;
        }
    }

    /// How long until the copy that began last did so `ago`.
    pub fn newest(&self, ago: Duration) -> Duration {
        let last = *self.last.lock();
        last.map_or(Duration::ZERO, |began| ago.saturating_sub(began.elapsed()))
    }

    /// Begins a copy, unless a transaction on the mirror has searched.
    pub fn copying(&self) -> Option<Copying<'_>> {
        self.copies.fetch_add(1, Ordering::SeqCst);
        let copying = Copying(self);
        fence(Ordering::SeqCst);
        if Arc::strong_count(&self.open) > 1 {
            return None;
        }
        *self.last.lock() = Some(Instant::now());
        Some(copying)
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        if self.0.copies.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.answered.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn searches_and_copies_exclude_each_other() {
        let searches = Searches::default();
        let second = Duration::from_secs(1);
        assert_eq!(searches.newest(second), Duration::ZERO);
        let copy = searches.copying().expect("nobody searches");
        let open = [searches.begin(), searches.begin()];
        assert!(searches.copying().is_none());
        let mut uncopied = std::pin::pin!(searches.uncopied());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(uncopied.as_mut().poll(&mut cx), Poll::Pending);
        assert!(searches.newest(second * 60) > second);
        assert_eq!(searches.newest(Duration::ZERO), Duration::ZERO);
        drop(copy);
        assert_eq!(uncopied.as_mut().poll(&mut cx), Poll::Ready(()));
        let [one, other] = open;
        drop(one);
        assert!(searches.copying().is_none());
        drop(other);
        assert!(searches.copying().is_some());
    }
}
