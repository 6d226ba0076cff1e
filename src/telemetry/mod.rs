//! Metrics and logs: what the proxy says about itself.
//!
//! [`METRICS`] is the one list of metric names: the scrape endpoint describes
//! exactly these, and tests check dashboards against it. The recorder is
//! installed at the first use, so that a handle kept by a thread can never be
//! an empty one made too early.
//!
//! The data path calls [`statements`], [`mirror_write`] and [`mirror_waited`]
//! once per statement:
//! each thread keeps its handles (a short list searched by name), so a call
//! costs a comparison and one atomic addition. No label ever holds text from a
//! client: route names come from the operator, everything else is a constant.

mod log;

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use log::init as init_log;

/// What a metric counts up, shows, or distributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// The present value.
    Gauge,
    /// A distribution, in buckets.
    Histogram,
}

/// One metric as operators see it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name at the scrape endpoint.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Its unit: empty for plain counts.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        help,
        labels,
    }
}

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    metric(
        "lockstep_sessions",
        Kind::Gauge,
        "",
        &[],
        "Client sessions connected now",
    ),
    metric(
        "lockstep_sessions_without_other_leg",
        Kind::Gauge,
        "",
        &[],
        "Sessions whose leg to the other backend cannot be opened: their writes are deferred",
    ),
    metric(
        "lockstep_connections",
        Kind::Gauge,
        "",
        &[],
        "Client connections now, those still logging in or ending included",
    ),
    metric(
        "lockstep_legs",
        Kind::Gauge,
        "",
        &["backend"],
        "Backend connections that sessions hold now",
    ),
    metric(
        "lockstep_tasks",
        Kind::Gauge,
        "",
        &["runtime"],
        "Tasks alive, by runtime: control, workers (one for each client connection)",
    ),
    metric(
        "lockstep_connections_total",
        Kind::Counter,
        "",
        &["outcome"],
        "Client connections by outcome: accepted, refused (at login), refused_limit",
    ),
    metric(
        "lockstep_statements_total",
        Kind::Counter,
        "",
        &["route", "decision"],
        "Statements by route (none: unrouted) and decision: active, mirror_read, inline, deferred, refused",
    ),
    metric(
        "lockstep_mirror_writes_total",
        Kind::Counter,
        "",
        &["route", "outcome"],
        "Writes of a mirrored route by outcome on the mirror: ok, suspect (it changed another number of rows), or why it was not had there",
    ),
    metric(
        "lockstep_mirror_taken_back_total",
        Kind::Counter,
        "",
        &["route", "reason"],
        "Writes the mirror executed ahead and gave back: the row was fought for (collided), the active side's answer says it is not to be (unwanted), or the mirror refused it (refused) or changed other rows (differs)",
    ),
    metric(
        "lockstep_mirror_suspended",
        Kind::Gauge,
        "",
        &["route"],
        "1 while inline mirroring of the route is suspended",
    ),
    metric(
        "lockstep_mirror_seconds",
        Kind::Histogram,
        "seconds",
        &["route"],
        "Time a mirrored write waited for the mirror after the active side had answered",
    ),
    metric(
        "lockstep_errors_total",
        Kind::Counter,
        "",
        &["side", "kind"],
        "Errors by whose side they are on (client, source, target, proxy) and kind",
    ),
    metric(
        "lockstep_backend_up",
        Kind::Gauge,
        "",
        &["backend"],
        "1 while the backend answers the service account",
    ),
    metric(
        "lockstep_route_phase",
        Kind::Gauge,
        "",
        &["route"],
        "Phase: 0 source_only, 1 syncing, 2 source_first, 3 target_first, 4 target_only, 5 done",
    ),
    metric(
        "lockstep_follow_stopped",
        Kind::Gauge,
        "",
        &["route"],
        "1 while the active side's log should be followed and is not",
    ),
    metric(
        "lockstep_follow_lag_seconds",
        Kind::Gauge,
        "seconds",
        &["route"],
        "How far the other side is behind the active one's log",
    ),
    metric(
        "lockstep_followed_rows_total",
        Kind::Counter,
        "",
        &["route"],
        "Row events followed",
    ),
    metric(
        "lockstep_healed_rows_total",
        Kind::Counter,
        "",
        &["route", "kind"],
        "Rows of the mirror that were repaired, by what was wrong: changed, missing, extra",
    ),
    metric(
        "lockstep_copy_rows",
        Kind::Gauge,
        "",
        &["route", "of"],
        "Rows of a copy: done, and estimated in all",
    ),
    metric(
        "lockstep_mirror_rows",
        Kind::Gauge,
        "",
        &["route", "of"],
        "Rows on the mirror: written by others since the start (foreign), by nobody known \
         (unknown; each is verified), not verified by key (unverified), proven different (differing)",
    ),
    metric(
        "lockstep_route_epoch",
        Kind::Gauge,
        "",
        &["route"],
        "Phase changes of the route so far",
    ),
    metric(
        "lockstep_reads_target_percent",
        Kind::Gauge,
        "",
        &["route"],
        "The target's share of the route's reads, 0 to 100",
    ),
    metric(
        "lockstep_gate_seconds",
        Kind::Histogram,
        "seconds",
        &["route"],
        "How long the gate held the route's writes at a phase change",
    ),
    metric(
        "lockstep_journal_entries_total",
        Kind::Counter,
        "",
        &["route", "kind"],
        "Journal entries of writes the mirror has not got, by kind: failed, deferred, overflow",
    ),
    metric(
        "lockstep_journal_lines",
        Kind::Gauge,
        "",
        &["route"],
        "Lines of the journal: 0 when all that the mirror missed is healed",
    ),
    metric(
        "lockstep_own_write_reads_total",
        Kind::Counter,
        "",
        &["route", "outcome"],
        "Mirror reads of sessions whose own write was deferred: healed (waited for), active",
    ),
    metric(
        "lockstep_parse_disagreements_total",
        Kind::Counter,
        "",
        &[],
        "Writes that scanner and parser read differently: deferred",
    ),
    metric(
        "lockstep_bytes_total",
        Kind::Counter,
        "bytes",
        &["direction"],
        "Bytes relayed: from_client, to_client",
    ),
];

/// Upper bounds in seconds, from the 0.1 ms of a local mirror to the 3 s of
/// the gate's own limit.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0,
];

/// Routes a thread keeps handles for: the 64 of a route table, the label of
/// unrouted statements, and as many again for routes that came and went.
/// Beyond it a call still counts, only slower.
const CACHED_ROUTES: usize = 130;

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder once. None when another one of this process was
/// first: then nothing is rendered, and nothing else breaks.
fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER.get_or_init(install).as_ref()
}

fn install() -> Option<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for m in METRICS.iter().filter(|m| m.kind == Kind::Histogram) {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(m.name.to_owned()), SECONDS)
            .ok()?;
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    for m in METRICS {
        let unit = match m.unit {
            "seconds" => Unit::Seconds,
            "bytes" => Unit::Bytes,
            _ => Unit::Count,
        };
        match m.kind {
            Kind::Counter => metrics::describe_counter!(m.name, unit, m.help),
            Kind::Gauge => metrics::describe_gauge!(m.name, unit, m.help),
            Kind::Histogram => metrics::describe_histogram!(m.name, unit, m.help),
        }
    }
    Some(handle)
}

/// The text of a scrape.
pub fn render() -> String {
    recorder().map(PrometheusHandle::render).unwrap_or_default()
}

/// Moves histogram samples into their buckets: call every few seconds, or
/// unscraped samples pile up.
pub fn upkeep() {
    if let Some(handle) = recorder() {
        handle.run_upkeep();
    }
}

/// The label of statements that touch no routed table.
pub const UNROUTED: &str = "none";

type Handles = Vec<(String, Vec<(&'static str, Counter)>)>;

thread_local! {
    static STATEMENTS: RefCell<Handles> = const { RefCell::new(Vec::new()) };
    static WRITES: RefCell<Handles> = const { RefCell::new(Vec::new()) };
    static WAITS: RefCell<Vec<(String, Histogram)>> = const { RefCell::new(Vec::new()) };
}

/// Counts one on a per-route counter through the thread's kept handles.
fn count(
    cache: &RefCell<Handles>,
    route: &str,
    value: &'static str,
    make: fn(&str, &'static str) -> Counter,
) {
    // A second borrow cannot happen (nothing below calls back); if it ever
    // does, counting through a fresh handle is still right.
    let Ok(mut routes) = cache.try_borrow_mut() else {
        make(route, value).increment(1);
        return;
    };
    let at = match routes.iter().position(|(name, _)| name == route) {
        Some(at) => at,
        None if routes.len() < CACHED_ROUTES => {
            routes.push((route.to_owned(), Vec::new()));
            routes.len() - 1
        }
        None => {
            make(route, value).increment(1);
            return;
        }
    };
    let Some((_, values)) = routes.get_mut(at) else {
        return;
    };
    if let Some((_, counter)) = values.iter().find(|(v, _)| *v == value) {
        counter.increment(1);
        return;
    }
    let counter = make(route, value);
    counter.increment(1);
    values.push((value, counter));
}

fn statement_counter(route: &str, decision: &'static str) -> Counter {
    let _ = recorder();
    metrics::counter!("lockstep_statements_total", "route" => route.to_owned(), "decision" => decision)
}

fn write_counter(route: &str, outcome: &'static str) -> Counter {
    let _ = recorder();
    metrics::counter!("lockstep_mirror_writes_total", "route" => route.to_owned(), "outcome" => outcome)
}

/// Counts a statement. `route` is [`UNROUTED`] where no route is touched;
/// `decision` is one of those named in [`METRICS`]. Cheap: once per statement.
pub fn statements(route: &str, decision: &'static str) {
    STATEMENTS.with(|cache| count(cache, route, decision, statement_counter));
}

/// Counts a write of a mirrored route: `ok`, `failed` or `deferred`. Cheap.
pub fn mirror_write(route: &str, outcome: &'static str) {
    WRITES.with(|cache| count(cache, route, outcome, write_counter));
}

/// How long a mirrored write waited for the mirror beyond the active side.
/// Cheap.
pub fn mirror_waited(route: &str, waited: Duration) {
    WAITS.with_borrow_mut(|routes| {
        if let Some((_, waits)) = routes.iter().find(|(name, _)| name == route) {
            return waits.record(waited.as_secs_f64());
        }
        let _ = recorder();
        let waits = metrics::histogram!("lockstep_mirror_seconds", "route" => route.to_owned());
        waits.record(waited.as_secs_f64());
        if routes.len() < CACHED_ROUTES {
            routes.push((route.to_owned(), waits));
        }
    });
}

/// Counts a write that was executed on the mirror ahead and given back.
pub fn mirror_taken_back(route: &str, reason: &'static str) {
    let _ = recorder();
    metrics::counter!("lockstep_mirror_taken_back_total", "route" => route.to_owned(), "reason" => reason)
        .increment(1);
}

/// Shows whether a route's inline mirroring is suspended.
pub fn mirror_suspended(route: &str, suspended: bool) {
    let _ = recorder();
    metrics::gauge!("lockstep_mirror_suspended", "route" => route.to_owned())
        .set(f64::from(u8::from(suspended)));
}

/// Lets something be said once a minute, however often it happens.
#[derive(Debug)]
pub struct Seldom(parking_lot::Mutex<Option<std::time::Instant>>);

impl Seldom {
    const PAUSE: std::time::Duration = std::time::Duration::from_secs(60);

    /// Nothing has been said yet.
    #[must_use]
    pub const fn new() -> Seldom {
        Seldom(parking_lot::Mutex::new(None))
    }

    /// Whether it is time to say it; then it has been said.
    pub fn now(&self) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|at| at.elapsed() > Seldom::PAUSE);
        if due {
            *last = Some(std::time::Instant::now());
        }
        due
    }
}

impl Default for Seldom {
    fn default() -> Seldom {
        Seldom::new()
    }
}

/// Counts an error: `side` is client, source, target or proxy; `kind` a short
/// constant such as the `kind()` of an error type.
pub fn error(side: &'static str, kind: &'static str) {
    let _ = recorder();
    metrics::counter!("lockstep_errors_total", "side" => side, "kind" => kind).increment(1);
}

/// Counts a client connection: `accepted`, `refused` or `refused_limit`.
pub fn connection(outcome: &'static str) {
    let _ = recorder();
    metrics::counter!("lockstep_connections_total", "outcome" => outcome).increment(1);
}

/// Shows the sessions connected now and those without their other leg.
pub fn sessions(connected: usize, without_other_leg: usize) {
    let _ = recorder();
    metrics::gauge!("lockstep_sessions").set(connected as f64);
    metrics::gauge!("lockstep_sessions_without_other_leg").set(without_other_leg as f64);
}

/// Shows what is held for clients now: their connections, their legs (source,
/// target), and the tasks of the control runtime and of the workers.
pub fn held(connections: usize, legs: [usize; 2], control_tasks: usize, worker_tasks: usize) {
    let _ = recorder();
    metrics::gauge!("lockstep_connections").set(connections as f64);
    for (side, legs) in [crate::Side::Source, crate::Side::Target].iter().zip(legs) {
        metrics::gauge!("lockstep_legs", "backend" => side.as_str()).set(legs as f64);
    }
    metrics::gauge!("lockstep_tasks", "runtime" => "control").set(control_tasks as f64);
    metrics::gauge!("lockstep_tasks", "runtime" => "workers").set(worker_tasks as f64);
}

/// Shows whether a backend answers.
pub fn backend_up(side: crate::Side, up: bool) {
    let _ = recorder();
    metrics::gauge!("lockstep_backend_up", "backend" => side.as_str()).set(f64::from(u8::from(up)));
}

/// Shows where a route stands.
pub fn route(name: &str, phase: crate::route::table::Phase, epoch: u64, reads_percent: u8) {
    let _ = recorder();
    metrics::gauge!("lockstep_route_phase", "route" => name.to_owned()).set(f64::from(phase as u8));
    metrics::gauge!("lockstep_route_epoch", "route" => name.to_owned()).set(epoch as f64);
    metrics::gauge!("lockstep_reads_target_percent", "route" => name.to_owned())
        .set(f64::from(reads_percent));
}

/// Shows how a route's follower does; a lag that is not known stays as it was.
pub fn follow(route: &str, stopped: bool, lag: Option<Duration>) {
    let _ = recorder();
    let name = || route.to_owned();
    metrics::gauge!("lockstep_follow_stopped", "route" => name()).set(f64::from(u8::from(stopped)));
    if let Some(lag) = lag {
        metrics::gauge!("lockstep_follow_lag_seconds", "route" => name()).set(lag.as_secs_f64());
    }
}

/// Counts row events that were followed.
pub fn followed(route: &str, events: u64) {
    let _ = recorder();
    metrics::counter!("lockstep_followed_rows_total", "route" => route.to_owned())
        .increment(events);
}

/// Counts rows that were repaired.
pub fn healed(route: &str, kind: &'static str, rows: u64) {
    let _ = recorder();
    metrics::counter!("lockstep_healed_rows_total", "route" => route.to_owned(), "kind" => kind)
        .increment(rows);
}

/// Shows what was seen of a route's rows on the mirror.
pub fn watch(route: &str, of: &'static str, rows: u64) {
    let _ = recorder();
    metrics::gauge!("lockstep_mirror_rows", "route" => route.to_owned(), "of" => of)
        .set(rows as f64);
}

/// Shows how far a route's copy is.
pub fn copy(route: &str, done: u64, estimated: u64) {
    let _ = recorder();
    for (of, rows) in [("done", done), ("estimated", estimated)] {
        metrics::gauge!("lockstep_copy_rows", "route" => route.to_owned(), "of" => of)
            .set(rows as f64);
    }
}

/// Records how long the gate held a route's writes.
pub fn gate(route: &str, pause: Duration) {
    let _ = recorder();
    metrics::histogram!("lockstep_gate_seconds", "route" => route.to_owned())
        .record(pause.as_secs_f64());
}

/// Counts a journal entry: `failed`, `deferred` or `overflow`.
pub fn journal_entry(route: &str, kind: &'static str) {
    let _ = recorder();
    metrics::counter!("lockstep_journal_entries_total", "route" => route.to_owned(), "kind" => kind)
        .increment(1);
}

/// Shows how many lines of the journal a route has.
pub fn journal_lines(route: &str, lines: u64) {
    let _ = recorder();
    metrics::gauge!("lockstep_journal_lines", "route" => route.to_owned()).set(lines as f64);
}

/// Counts a read on the mirror that had to wait for its session's own writes:
/// `healed`, or `active` where it was served there instead.
pub fn own_writes(route: &str, outcome: &'static str) {
    let _ = recorder();
    metrics::counter!("lockstep_own_write_reads_total", "route" => route.to_owned(), "outcome" => outcome)
        .increment(1);
}

/// Counts a write that scanner and parser read differently.
pub fn parse_disagreement() {
    let _ = recorder();
    metrics::counter!("lockstep_parse_disagreements_total").increment(1);
}

/// Counts relayed bytes. Callers add up and report now and then (at the end of
/// a command or a session), not once per read.
pub fn bytes(from_client: u64, to_client: u64) {
    thread_local! {
        static BYTES: [Counter; 2] = {
            let _ = recorder();
            [
                metrics::counter!("lockstep_bytes_total", "direction" => "from_client"),
                metrics::counter!("lockstep_bytes_total", "direction" => "to_client"),
            ]
        };
    }
    BYTES.with(|[from, to]| {
        from.increment(from_client);
        to.increment(to_client);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::Phase;

    #[test]
    fn everything_rendered_is_listed() {
        statements("shop", "inline");
        statements("shop", "inline");
        statements(UNROUTED, "active");
        mirror_write("shop", "ok");
        mirror_waited("shop", Duration::from_millis(3));
        mirror_taken_back("shop", "collided");
        mirror_suspended("shop", true);
        error("target", "timeout");
        connection("accepted");
        sessions(3, 1);
        held(3, [3, 2], 9, 5);
        backend_up(crate::Side::Source, true);
        route("shop", Phase::TargetFirst, 7, 30);
        gate("shop", Duration::from_millis(12));
        follow("shop", true, Some(Duration::from_millis(5)));
        followed("shop", 9);
        healed("shop", "missing", 1);
        watch("shop", "foreign", 1);
        copy("shop", 1, 2);
        journal_entry("shop", "failed");
        journal_lines("shop", 3);
        own_writes("shop", "healed");
        parse_disagreement();
        bytes(10, 20);
        upkeep();
        let text = render();
        for m in METRICS {
            assert!(text.contains(&format!("# TYPE {} ", m.name)), "{}", m.name);
            for label in m.labels {
                assert!(text.contains(&format!("{label}=\"")), "{} {label}", m.name);
            }
        }
        for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(
                METRICS.iter().any(|m| m.name == name),
                "{name} is not listed"
            );
        }
        assert!(text.contains("lockstep_statements_total{route=\"shop\",decision=\"inline\"}"));
        assert!(text.contains("lockstep_route_phase{route=\"shop\"} 3"));
    }
}
