//! What a session owes itself: writes of its own that the mirror did not get.
//!
//! With `deferred: wait` it must not read its own past. So before a read on the
//! mirror it waits until the follower has brought its writes over, no longer
//! than a mirrored write would wait; else it reads on the active side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::route::table::{DeferredPolicy, ROUTES_MAX, Route, RouteLive};
use crate::telemetry;

/// A session that waited in vain reads on the active side for so long before it
/// waits again: a follower that is behind must not cost each read the limit.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Nothing is owed: read on the mirror.
    Yes,
    /// Its own writes are not there yet: read on the active side.
    Not,
}

struct Debt {
    route: String,
    live: Arc<RouteLive>,
    /// None while the transaction may still be open.
    ticket: Option<u64>,
}

#[derive(Default)]
struct List {
    debts: Vec<Debt>,
    /// Not waited for before then.
    again: Option<Instant>,
}

/// One session's.
#[derive(Default)]
pub struct Debts {
    /// Whether there are any: looked at once per statement.
    any: AtomicBool,
    list: Mutex<List>,
}

impl Debts {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The mirror did not get a write of this session.
    pub fn owe(&self, route: &Route) {
        if route.deferred != DeferredPolicy::Wait || !route.phase.mirrored() {
            return;
        }
        let mut list = self.list.lock();
        let known = list
            .debts
            .iter_mut()
            .find(|d| Arc::ptr_eq(&d.live, &route.live));
        match known {
            Some(debt) => debt.ticket = None,
            None => {
                if list.debts.len() >= ROUTES_MAX {
                    // Of a route that is gone: there are no more than so many.
                    list.debts.remove(0);
                }
                list.debts.push(Debt {
                    route: route.name.clone(),
                    live: route.live.clone(),
                    ticket: None,
                });
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// No transaction is open: what was written is committed.
    pub fn committed(&self) {
        if self.any() {
            for debt in &mut self.list.lock().debts {
                debt.ticket.get_or_insert_with(|| debt.live.healed.take());
            }
        }
    }

    /// Waits until nothing is owed. To be called outside of transactions.
    pub async fn settle(&self, limit: Duration) -> Settled {
        if !self.any() {
            return Settled::Yes;
        }
        self.committed();
        if self.is_paid() {
            return Settled::Yes;
        }
        let (owed, vain) = {
            let list = self.list.lock();
            let debts = list.debts.iter();
            let owed: Vec<_> = debts
                .map(|d| {
                    (
                        d.route.clone(),
                        d.live.clone(),
                        d.ticket.unwrap_or(u64::MAX),
                    )
                })
                .collect();
            let vain = list.again.is_some_and(|at| Instant::now() < at)
                || owed.iter().any(|(_, live, _)| !live.healed.is_served());
            (owed, vain)
        };
        let waits = async {
            for (_, live, ticket) in &owed {
                live.healed.wait(*ticket).await;
            }
        };
        let healed = !vain && tokio::time::timeout(limit, waits).await.is_ok();
        for (route, live, _) in &owed {
            let (count, outcome) = match healed {
                true => (&live.reads_waited, "healed"),
                false => (&live.reads_kept, "active"),
            };
            count.fetch_add(1, Ordering::Relaxed);
            telemetry::own_writes(route, outcome);
        }
        if !healed {
            if !vain {
                self.list.lock().again = Some(Instant::now() + PATIENCE);
            }
            return Settled::Not;
        }
        self.is_paid();
        Settled::Yes
    }

    /// Forgets what is healed. True: that was all.
    fn is_paid(&self) -> bool {
        let mut list = self.list.lock();
        list.debts
            .retain(|d| d.ticket.is_none_or(|t| !d.live.healed.is_called(t)));
        let paid = list.debts.is_empty();
        if paid {
            list.again = None;
            self.any.store(false, Ordering::Release);
        }
        paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::{Ack, DdlPolicy, Phase, ReadsBy};

    fn route(deferred: DeferredPolicy) -> Route {
        Route {
            name: "r".into(),
            tables: Vec::new(),
            phase: Phase::SourceFirst,
            epoch: 1,
            reads_percent: 100,
            reads_by: ReadsBy::Session,
            ack: Ack::Both,
            deferred,
            ddl: DdlPolicy::Both,
            follow: None,
            live: Arc::default(),
        }
    }

    const LIMIT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn own_writes_are_waited_for() {
        let (debts, route) = (Debts::default(), route(DeferredPolicy::Wait));
        assert_eq!(debts.settle(LIMIT).await, Settled::Yes);
        debts.owe(&route);
        // Nobody follows: no use to wait.
        assert_eq!(debts.settle(LIMIT).await, Settled::Not);
        let healed = &route.live.healed;
        healed.serve(true);
        let serving = async {
            healed.wanted().await;
            healed.call(healed.taken());
        };
        let (settled, ()) = tokio::join!(debts.settle(60 * LIMIT), serving);
        assert_eq!(settled, Settled::Yes);
        // A later write is waited for anew, and in vain only once.
        debts.owe(&route);
        assert_eq!(debts.settle(LIMIT).await, Settled::Not);
        let began = Instant::now();
        assert_eq!(debts.settle(3600 * LIMIT).await, Settled::Not);
        assert!(began.elapsed() < PATIENCE);
        healed.call(healed.taken());
        assert_eq!(debts.settle(LIMIT).await, Settled::Yes);
        assert_eq!(route.live.reads_kept.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_open_transaction_has_no_ticket() {
        let (debts, route) = (Debts::default(), route(DeferredPolicy::Wait));
        route.live.healed.serve(true);
        debts.owe(&route);
        debts.committed();
        // Another write in a new transaction: what is called now is too early.
        debts.owe(&route);
        let early = route.live.healed.taken();
        route.live.healed.call(early);
        assert_eq!(debts.settle(LIMIT).await, Settled::Not);
    }

    #[tokio::test]
    async fn continue_does_not_wait() {
        let debts = Debts::default();
        debts.owe(&route(DeferredPolicy::Continue));
        assert_eq!(debts.settle(LIMIT).await, Settled::Yes);
    }
}
