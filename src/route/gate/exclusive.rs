//! Routes to oneself: what DDL on both sides needs of the gate.
//!
//! DDL of one route runs one after the other, in the same order on both sides,
//! and never beside a phase change of the route:
//! 1. a session plans DDL with the source active; 2. an edge flips the route;
//! 3. the DDL runs on the source, "active" no more, and then on the target.
//!
//! Whoever waits here must hold nothing at the gate, or the one it waits for
//! could wait for it in turn: 1. DDL holds its route and waits for the edge's
//! end; 2. the edge drains, and the DDL's session is never gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use super::{Closed, Routes};
use crate::route::table::{RouteLive, RouteMask, RouteTable, route_bit};

/// Some routes, whose phase nobody changes and on whose tables no other DDL
/// runs meanwhile.
pub struct Exclusive<'a> {
    routes: &'a Routes,
    mask: RouteMask,
    _changing: Vec<MutexGuard<'a, ()>>,
}

impl Routes {
    /// Waits for edges and DDL of these routes that are under way: an edge for
    /// its own limit at most, DDL as long as its servers take, as it would on
    /// one server. In the order of the routes, so that two that want the same
    /// ones cannot wait for each other.
    pub async fn exclusive(&self, mask: RouteMask) -> Exclusive<'_> {
        let mut changing = Vec::new();
        for (index, lock) in self.changing.iter().enumerate() {
            if mask & route_bit(index) != 0 {
                changing.push(lock.lock().await);
            }
        }
        Exclusive {
            routes: self,
            mask,
            _changing: changing,
        }
    }

    pub(super) fn close(&self, mask: RouteMask) -> Closed<'_> {
        self.closed.fetch_or(mask, Ordering::SeqCst);
        Closed(self, mask)
    }
}

impl<'a> Exclusive<'a> {
    /// Whether these are all of `mask`.
    pub fn covers(&self, mask: RouteMask) -> bool {
        mask & !self.mask == 0
    }

    /// Closes the gate: statements that begin now wait until it is dropped.
    pub fn close(&self) -> Closed<'a> {
        self.routes.close(self.mask)
    }

    /// Waits until nobody holds the routes. False: not within `limit`.
    pub async fn drained(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.routes.drained(self.mask, false, until).await
    }

    /// Has writes of the routes deferred until it is dropped.
    pub fn defer(&self, table: &RouteTable) -> Deferring {
        let routes = table.routes.iter().enumerate();
        let own = routes.filter(|(index, _)| self.mask & route_bit(*index) != 0);
        let lives: Vec<_> = own.map(|(_, route)| route.live.clone()).collect();
        for live in &lives {
            live.ddl_beside.fetch_add(1, Ordering::SeqCst);
        }
        Deferring(lives)
    }
}

/// DDL runs beside open transactions: writes of its routes are executed on the
/// active side only, because the tables differ for a while.
pub struct Deferring(Vec<Arc<RouteLive>>);

impl Drop for Deferring {
    fn drop(&mut self) {
        for live in &self.0 {
            live.ddl_beside.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
