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
    route.live.tables_differ.fetch_add(1, Ordering::AcqRel);
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

/// Closes the circuit, where it is open: the mirror answers again. False: it stays
/// open, for tables were said to differ more often than the `seen` times after
/// which they were found equal:
/// 1. The prober reads both sides' tables, which are equal.
/// 2. DDL fails on the mirror, and says that they differ.
/// 3. The prober resumes by what it read.
pub fn resume(route: &Route, seen: u64) -> bool {
    let live = &route.live;
    {
        let mut stored = live.suspended_reason.lock();
        let known =
            (live.tables_differ).compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire);
        if known.is_err() {
            return false;
        }
        if !live.suspended.swap(false, Ordering::AcqRel) {
            return true;
        }
        stored.clear();
        live.resumes_after.lock().clear();
        *live.errors.lock() = (None, 0);
    }
    telemetry::mirror_suspended(&route.name, false);
    tracing::info!(route = %route.name, "mirroring resumed");
    true
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
