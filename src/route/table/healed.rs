//! How a session learns that the mirror has what it wrote.
//!
//! Whoever wrote something that the mirror did not get takes a ticket when its
//! transaction is over. Whoever runs the route's follower reads how many there
//! are, *then* commits a barrier, and calls them up once it is passed.
//!
//! The race this order prevents:
//! 1. a barrier is committed; 2. session S commits its write and takes ticket
//!    7; 3. the barrier is passed, and 7 tickets are called up: S reads rows of
//!    before its write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// The tickets of one route.
#[derive(Default)]
pub struct Healed {
    taken: AtomicU64,
    called: watch::Sender<u64>,
    wanted: Notify,
    /// Somebody calls tickets up.
    served: AtomicBool,
}

impl Healed {
    /// A ticket for all that was committed before.
    pub fn take(&self) -> u64 {
        self.taken.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Tickets taken so far. To be read before the barrier begins.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Whether a ticket's writes are on the mirror.
    pub fn is_called(&self, ticket: u64) -> bool {
        *self.called.borrow() >= ticket
    }

    /// The last ticket called up.
    pub fn called(&self) -> u64 {
        *self.called.borrow()
    }

    /// Calls up all tickets to this one.
    pub fn call(&self, ticket: u64) {
        self.called.send_if_modified(|called| {
            let later = ticket > *called;
            *called = ticket.max(*called);
            later
        });
    }

    /// Whether it is any use to wait: a follower is at work.
    pub fn is_served(&self) -> bool {
        self.served.load(Ordering::Acquire)
    }

    /// A follower is at work, or is not any more.
    pub fn serve(&self, served: bool) {
        self.served.store(served, Ordering::Release);
    }

    /// Waits until a ticket is called up; asks for it.
    pub async fn wait(&self, ticket: u64) {
        let mut called = self.called.subscribe();
        self.wanted.notify_one();
        // The sender lives as long as we.
        let _ = called.wait_for(|called| *called >= ticket).await;
    }

    /// Waits until somebody waits.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tickets_are_called_in_order() {
        let healed = Healed::default();
        let (one, two) = (healed.take(), healed.take());
        assert!(!healed.is_called(one));
        healed.call(one);
        assert!(healed.is_called(one) && !healed.is_called(two));
        healed.call(0);
        assert_eq!(healed.called(), one);
        let waiting = healed.wait(two);
        let calling = async {
            healed.wanted().await;
            healed.call(healed.taken());
        };
        tokio::join!(waiting, calling);
        assert!(healed.is_called(two));
    }
}
