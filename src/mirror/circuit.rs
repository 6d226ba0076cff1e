//! The circuit of a route's inline mirroring.
//!
//! The first expired deadline or lost mirror opens it and wakes every waiter:
//! each holds row locks on the active side that others queue on, so letting
//! each wait for its own deadline adds them up on a hot row (protocol-review
//! H3: 16 clients, 200 ms each, 3.1 s). Closing it again is the prober's part.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::route::table::{Route, RouteLive};
use crate::telemetry;

/// The window errors are counted in.
const WINDOW: Duration = Duration::from_secs(60);

/// Opens the circuit. The first caller's reason stands.
pub fn suspend(route: &Route, reason: &str) {
    let live = &route.live;
    {
        let mut stored = live.suspended_reason.lock();
        if live.suspended.swap(true, Ordering::AcqRel) {
            return;
        }
        *stored = reason.to_string();
    }
    telemetry::mirror_suspended(&route.name, true);
    tracing::warn!(route = %route.name, reason, "mirroring suspended: writes are deferred");
    live.suspension.notify_waiters();
}

/// Opens the circuit because the sides' tables differ from now on: that the
/// mirror answers is no reason to close it.
pub fn suspend_for_tables(route: &Route, reason: &str) {
    route.live.tables_differ.store(true, Ordering::Release);
    suspend(route, reason);
}

/// Why the circuit is open, and what its closing waits for.
pub fn why(live: &RouteLive) -> String {
    let reason = live.suspended_reason.lock().clone();
    let waits = live.resumes_after.lock();
    match waits.is_empty() {
        true => reason,
        false => format!("{reason}; not resumed: {waits}"),
    }
}

/// Says what the closing waits for.
pub fn wait_for(route: &Route, what: String) {
    *route.live.resumes_after.lock() = what;
}

/// Closes the circuit: the mirror answers again.
pub fn resume(route: &Route) {
    let live = &route.live;
    {
        let mut stored = live.suspended_reason.lock();
        if !live.suspended.swap(false, Ordering::AcqRel) {
            return;
        }
        stored.clear();
        live.resumes_after.lock().clear();
        live.tables_differ.store(false, Ordering::Release);
        *live.errors.lock() = (None, 0);
    }
    telemetry::mirror_suspended(&route.name, false);
    tracing::info!(route = %route.name, "mirroring resumed");
}

/// Counts a single error (deadlock, duplicate key, read-only server); beyond
/// `per_minute` of them the circuit opens.
pub fn count_error(route: &Route, per_minute: u32, what: &str) {
    let over = {
        let mut errors = route.live.errors.lock();
        let now = Instant::now();
        match errors.0 {
            Some(began) if now.duration_since(began) < WINDOW => errors.1 += 1,
            _ => *errors = (Some(now), 1),
        }
        errors.1 > per_minute
    };
    if over {
        suspend(
            route,
            &format!("more than {per_minute} errors a minute: {what}"),
        );
    }
}
