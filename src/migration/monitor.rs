//! Watches both backends with the service account, off the data path.
//!
//! Per side two tasks: [`health`] asks each second who the server is and
//! whether it takes writes; [`positions`] samples the binlog position while a
//! route is mirrored, so that a journal entry can name a position from before
//! its transaction began. A third task, [`resume`], probes the mirror of every
//! suspended route and lets inline mirroring go on when it answers in time,
//! takes writes and has the tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Migration;
use crate::Side;
use crate::mirror::circuit;
use crate::route::table::Route;
use crate::rows::service::{ServiceAccount, ServiceConn, bytes, text};

/// Between two looks at a backend, and between two probes of a mirror.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// For the answer to a health query: longer than a busy server's hiccup,
/// shorter than what an operator waits for.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// Between two samples of the binlog position: bounds how much more than
/// needed a journal entry makes the healer read.
const POSITION_INTERVAL: Duration = Duration::from_millis(100);

/// The same while no transaction writes to a mirrored route, in intervals: the
/// first one that does has a position too.
const IDLE_POSITION_INTERVALS: u32 = 10;

/// For the follower to heal what a mirror missed while it was away, before the
/// probe looks at the other routes again.
const HEAL_LIMIT: Duration = Duration::from_secs(5);

/// For one sample. A missed one leaves an older position: still a lower bound.
const POSITION_LIMIT: Duration = Duration::from_secs(1);

/// What tells one server from another: host name, port, data directory,
/// server id, and on MySQL its UUID.
const HEALTH: &str = "SELECT VERSION(), @@global.read_only, @@global.lower_case_table_names, \
                      @@hostname, @@port, @@datadir, @@global.server_id";

/// What is known of a backend.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct BackendState {
    /// Whether it answered the last time; None: not asked yet.
    pub up: Option<bool>,
    /// Its version, as it says it itself; kept while it is down.
    pub version: Option<String>,
    /// Whether it refuses writes.
    pub read_only: Option<bool>,
    /// Whether its table names compare without case.
    pub folds_names: Option<bool>,
    /// Which server it is.
    pub identity: Option<Vec<String>>,
    /// Why it is down.
    pub error: Option<String>,
}

impl BackendState {
    /// MariaDB rather than MySQL.
    pub fn is_mariadb(&self) -> bool {
        self.version
            .as_deref()
            .is_some_and(|v| v.contains("MariaDB"))
    }

    /// Major × 10000 + minor × 100 + patch; 0 while unknown.
    pub fn version_number(&self) -> u32 {
        let numbers = self.version.as_deref().unwrap_or_default();
        let mut parts = numbers
            .split(|c: char| !c.is_ascii_digit())
            .map(|p| p.parse::<u32>().unwrap_or(0).min(9_999));
        let mut part = || parts.next().unwrap_or(0);
        part() * 10_000 + part() * 100 + part()
    }
}

/// What is known of both.
#[derive(Default)]
pub struct Backends {
    source: ArcSwap<BackendState>,
    target: ArcSwap<BackendState>,
}

impl Backends {
    fn slot(&self, side: Side) -> &ArcSwap<BackendState> {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// One backend's state.
    pub fn get(&self, side: Side) -> Arc<BackendState> {
        self.slot(side).load_full()
    }

    /// Whether both addresses lead to one server; None while one is unknown.
    pub fn same_server(&self) -> Option<bool> {
        let (source, target) = (self.get(Side::Source), self.get(Side::Target));
        Some(source.identity.as_ref()? == target.identity.as_ref()?)
    }
}

/// What the monitor tells the rest of the process.
pub trait Hooks: Send + Sync {
    /// A sample of a side's binlog position.
    fn position(&self, side: Side, position: String);
    /// Whether a transaction took a sample since this was asked last.
    fn were_taken(&self, side: Side) -> bool;
    /// A side answers again, or for the first time.
    fn came_up(&self, side: Side);
}

/// Asks a backend each second how it is.
pub async fn health(migration: Arc<Migration>, account: ServiceAccount, hooks: Arc<dyn Hooks>) {
    let side = account.side;
    let mut conn = ServiceConn::new(account);
    loop {
        look(&migration, &mut conn, side, hooks.as_ref()).await;
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// One look at a backend.
async fn look(migration: &Migration, conn: &mut ServiceConn, side: Side, hooks: &dyn Hooks) {
    let slot = migration.backends().slot(side);
    let old = slot.load_full();
    let new = match ask(conn).await {
        Ok(state) => state,
        Err(error) => BackendState {
            up: Some(false),
            error: Some(error),
            ..BackendState::clone(&old)
        },
    };
    let (was, is) = (old.up, new.up);
    let message = new.error.clone().unwrap_or_default();
    let version = new.version.clone().unwrap_or_default();
    slot.store(Arc::new(new));
    crate::telemetry::backend_up(side, is == Some(true));
    if is == Some(false) {
        suspend_mirrored_on(migration, side, &message);
    }
    if was == is {
        return;
    }
    if is == Some(true) {
        migration.fold_names();
        hooks.came_up(side);
        let detail = format!("the {side} answers: {version}");
        migration.events().say("backend_up", None, detail);
        migration.catalog().poke();
    } else {
        crate::telemetry::error(side.as_str(), "down");
        let detail = format!("the {side} does not answer the service account: {message}");
        migration.events().say("backend_down", None, detail);
    }
}

/// A mirror that does not answer is noticed by the first write that waits for
/// it; a read sent there has no deadline, so where only reads run the monitor
/// notices for them, and they return to the active side.
fn suspend_mirrored_on(migration: &Migration, side: Side, why: &str) {
    let table = migration.routes().load();
    let mirrored = |r: &&Route| r.phase.mirrored() && r.phase.active().other() == side;
    for route in table.routes.iter().filter(mirrored) {
        circuit::suspend(route, &format!("the {side} does not answer: {why}"));
    }
}

async fn ask(conn: &mut ServiceConn) -> Result<BackendState, String> {
    let rows = conn
        .rows(HEALTH, HEALTH_LIMIT)
        .await
        .map_err(|e| e.message)?;
    let row = rows.first().ok_or("an empty answer")?;
    let set = |i| text(row, i).map(|v| v != "0" && !v.eq_ignore_ascii_case("off"));
    let mut identity: Vec<String> = (3..7).map(|i| text(row, i).unwrap_or_default()).collect();
    let version = text(row, 0);
    if version.as_deref().is_some_and(|v| !v.contains("MariaDB"))
        && let Ok(rows) = conn.rows("SELECT @@global.server_uuid", HEALTH_LIMIT).await
    {
        identity.extend(rows.first().and_then(|r| text(r, 0)));
    }
    Ok(BackendState {
        up: Some(true),
        version,
        read_only: set(1),
        folds_names: set(2),
        identity: Some(identity),
        error: None,
    })
}

/// Samples a backend's binlog position, often while transactions that write
/// to a mirrored route take the samples.
pub async fn positions(migration: Arc<Migration>, account: ServiceAccount, hooks: Arc<dyn Hooks>) {
    let side = account.side;
    let mut conn = ServiceConn::new(account);
    let mut failing = false;
    // The first one at once.
    let mut skipped = IDLE_POSITION_INTERVALS;
    loop {
        tokio::time::sleep(POSITION_INTERVAL).await;
        let routes = migration.routes().load();
        let mirrored = routes.routes.iter().any(|r| r.phase.mirrored());
        let wanted = hooks.were_taken(side) && mirrored;
        skipped = (skipped + 1).min(IDLE_POSITION_INTERVALS);
        if !wanted && skipped < IDLE_POSITION_INTERVALS {
            continue;
        }
        let state = migration.backends().get(side);
        if state.up != Some(true) {
            continue;
        }
        skipped = 0;
        match sample(&mut conn, &state).await {
            Ok(position) => {
                failing = false;
                hooks.position(side, position);
            }
            Err(message) => {
                crate::telemetry::error(side.as_str(), "position");
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("the {side}'s binlog position cannot be read: {message}");
                }
            }
        }
    }
}

/// `file:offset`, and the GTID position after a space where there is one.
async fn sample(conn: &mut ServiceConn, state: &BackendState) -> Result<String, String> {
    let mariadb = state.is_mariadb();
    let sql = if !mariadb && state.version_number() >= 80_200 {
        "SHOW BINARY LOG STATUS"
    } else {
        "SHOW MASTER STATUS"
    };
    let rows = conn
        .rows(sql, POSITION_LIMIT)
        .await
        .map_err(|e| e.message)?;
    let row = rows.first().ok_or("the binlog is off")?;
    let mut position = format!(
        "{}:{}",
        text(row, 0).unwrap_or_default(),
        text(row, 1).unwrap_or_default()
    );
    let gtid = if mariadb {
        let sql = "SELECT @@global.gtid_binlog_pos";
        let rows = conn
            .rows(sql, POSITION_LIMIT)
            .await
            .map_err(|e| e.message)?;
        rows.first().and_then(|r| text(r, 0))
    } else {
        text(row, 4).map(|set| set.replace('\n', ""))
    };
    if let Some(gtid) = gtid.filter(|g| !g.is_empty()) {
        position.push(' ');
        position.push_str(&gtid);
    }
    Ok(position)
}

/// Finds routes that should be followed and are not.
pub async fn adopt(migration: Arc<Migration>) {
    loop {
        tokio::time::sleep(HEALTH_INTERVAL).await;
        migration.adopt().await;
    }
}

/// Lets suspended routes be mirrored again when their mirror is fit.
pub async fn resume(migration: Arc<Migration>, accounts: [ServiceAccount; 2]) {
    let [mut source, mut target] = accounts.map(ServiceConn::new);
    let mut told: Vec<String> = Vec::new();
    loop {
        tokio::time::sleep(HEALTH_INTERVAL).await;
        let table = migration.routes().load();
        let suspended: Vec<&Route> = table.routes.iter().filter(|r| r.suspended()).collect();
        tell(&migration, &suspended, &mut told);
        for side in [Side::Source, Side::Target] {
            let of_side: Vec<&Route> = suspended
                .iter()
                .copied()
                .filter(|r| r.phase.mirrored() && r.phase.active().other() == side)
                .collect();
            if of_side.is_empty() {
                continue;
            }
            let conn = match side {
                Side::Source => &mut source,
                Side::Target => &mut target,
            };
            if let Err(why) = fit(&migration, conn).await {
                for route in of_side {
                    circuit::wait_for(route, format!("the {side}: {why}"));
                }
                continue;
            }
            let of_side = of_side.into_iter();
            let of_side: Vec<(&Route, u64)> = of_side
                .map(|r| (r, r.live.tables_differ.load(Ordering::Acquire)))
                .collect();
            // DDL may have come past us while the mirror was away.
            let refreshed = migration.catalog().refresh().await;
            if let Some(why) = refreshed.iter().find_map(|r| r.as_ref().err()) {
                for (route, _) in of_side {
                    circuit::wait_for(route, format!("table shapes: {why}"));
                }
                continue;
            }
            heal_and_resume(&migration, of_side, side).await;
        }
    }
}

/// Resumes the routes whose followers have healed what is in the log now: it
/// would be missing in reads that go to the mirror again. Each says what it
/// waits for, and does not keep the others waiting. With each, how often its
/// tables were said to differ before they were read.
async fn heal_and_resume(migration: &Arc<Migration>, routes: Vec<(&Route, u64)>, side: Side) {
    let mut healing = tokio::task::JoinSet::new();
    for (route, differed) in routes {
        let (migration, route) = (migration.clone(), route.clone());
        healing.spawn(async move {
            match healed(&migration, &route).await {
                Ok(()) => resume_one(&migration, &route, side, differed),
                Err(why) => circuit::wait_for(&route, why),
            }
        });
    }
    while healing.join_next().await.is_some() {}
}

/// Waits until the follower has healed all that is in the log now.
async fn healed(migration: &Migration, route: &Route) -> Result<(), String> {
    let plane = migration.plane();
    if plane.caught_up(&route.name, HEAL_LIMIT).await? {
        return Ok(());
    }
    let fact = plane.follow_fact(route);
    let why = fact.map_or_else(String::new, |f| f.detail);
    Err(format!("nothing heals the mirror: {why}"))
}

/// Says once per suspension that a route is suspended: sessions open the
/// circuit, and they do not know the events.
fn tell(migration: &Migration, suspended: &[&Route], told: &mut Vec<String>) {
    told.retain(|name| suspended.iter().any(|r| r.name == *name));
    for route in suspended {
        if told.contains(&route.name) {
            continue;
        }
        told.push(route.name.clone());
        let reason = route.live.suspended_reason.lock().clone();
        let detail = format!("{}: mirroring is suspended: {reason}", route.name);
        migration
            .events()
            .say("suspended", Some(&route.name), detail);
    }
}

/// Whether the mirror answers within the deadline its writes have, and takes
/// writes.
async fn fit(migration: &Migration, conn: &mut ServiceConn) -> Result<(), String> {
    let deadline = migration.limits().mirror_deadline();
    if !conn.is_connected() {
        // Connecting has a bound of its own and says nothing of the latency.
        conn.rows("SELECT 1", HEALTH_LIMIT)
            .await
            .map_err(|e| e.message)?;
    }
    let sql = "SELECT @@global.read_only";
    let rows = conn.rows(sql, deadline).await.map_err(|e| e.message)?;
    match rows.first().map(|r| bytes(r, 0)).as_deref() {
        Some(b"0" | b"OFF") => Ok(()),
        _ => Err("read-only".to_owned()),
    }
}

fn resume_one(migration: &Migration, route: &Route, mirror: Side, differed: u64) {
    let missing = migration.missing_on(route, mirror);
    if let Some(table) = missing.first() {
        circuit::wait_for(route, format!("the {mirror} has no table {table}"));
        return;
    }
    if differed > 0 {
        let table = migration.routes().load();
        let catalog = migration.catalog().snapshot();
        let (_, unequal) = super::shapes::compare(
            |db, t| route.covers(db, t, table.fold_names),
            route.phase.active(),
            &catalog,
        );
        if let Some(table) = unequal.first() {
            circuit::wait_for(route, format!("tables differ: {table}"));
            return;
        }
    }
    if !circuit::resume(route, differed) {
        return;
    }
    let detail = format!(
        "{}: the {mirror} answers again, mirroring resumes",
        route.name
    );
    migration.events().say("resumed", Some(&route.name), detail);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let state = |v: &str| BackendState {
            version: Some(v.to_owned()),
            ..BackendState::default()
        };
        assert_eq!(state("10.11.19-MariaDB-log").version_number(), 101_119);
        assert!(state("10.11.19-MariaDB-log").is_mariadb());
        assert_eq!(state("9.7.4-2").version_number(), 90_704);
        assert_eq!(state("x").version_number(), 0);
        assert_eq!(BackendState::default().version_number(), 0);
    }
}
