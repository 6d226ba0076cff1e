//! What a proxy holds: open files, memory, tasks, sessions, connections on its
//! servers. Nothing may be left over when its clients are gone.

use super::proc::wait_for;
use super::proxy::Proxy;
use super::servers::{APP, Server};
use std::time::Duration;

/// A session that was cut off waits this long for its server, and a kill after
/// it; its socket is then closed.
const GONE_LIMIT: Duration = Duration::from_secs(75);
/// The gauges are a second old.
const SETTLED_LIMIT: Duration = Duration::from_secs(10);

/// Connections the service account opens when first needed and keeps: one per
/// side to end legs with, and one per side to probe a suspended mirror with;
/// and one in the making per side.
const SERVICE_FILES: usize = 6;

/// Numbers of one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Census {
    pub files: usize,
    pub tasks: u64,
    pub connections: u64,
    pub legs: u64,
}

/// Open files of a process.
pub fn files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Resident memory of a process, in KiB.
pub fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

pub fn census(proxy: &Proxy) -> Census {
    let metric = |name: &str| proxy.metric(name).unwrap_or_default() as u64;
    Census {
        files: files(proxy.pid()),
        tasks: metric("lockstep_tasks{runtime=\"workers\"}"),
        connections: metric("lockstep_connections"),
        legs: metric("lockstep_legs{backend=\"source\"}")
            + metric("lockstep_legs{backend=\"target\"}"),
    }
}

/// The numbers of a proxy without a client; waits until they stand still.
pub fn at_rest(proxy: &Proxy) -> Census {
    let mut last = census(proxy);
    wait_for("the proxy at rest", SETTLED_LIMIT, || {
        std::thread::sleep(Duration::from_millis(1200));
        let now = census(proxy);
        std::mem::replace(&mut last, now) == now
    });
    last
}

/// Waits until nothing of any client is left.
pub fn assert_nothing_left(proxy: &Proxy, before: Census, servers: &[&Server]) {
    let sessions = || {
        proxy
            .get("/v1/sessions")
            .json()
            .as_array()
            .map_or(0, Vec::len)
    };
    let mut now = census(proxy);
    let until = std::time::Instant::now() + GONE_LIMIT;
    loop {
        let files = now.files <= before.files + SERVICE_FILES;
        let same = now.tasks == before.tasks && now.connections == 0 && now.legs == 0;
        if files && same && sessions() == 0 && servers.iter().all(|s| clients_on(s) == 0) {
            return;
        }
        assert!(
            std::time::Instant::now() < until,
            "left over: {now:?}, at first {before:?}; sessions {}; on the servers {:?}",
            proxy.get("/v1/sessions").body,
            servers.iter().map(|s| clients_on(s)).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(300));
        now = census(proxy);
    }
}

/// Connections of the application's account on a server.
pub fn clients_on(server: &Server) -> usize {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user='{}'",
        APP.0
    );
    server.one(&sql).parse().unwrap_or_default()
}

/// Ends the connections of the application's account on a server.
pub fn end_clients_on(server: &Server) {
    let sql = format!(
        "SELECT ID FROM information_schema.processlist WHERE user='{}'",
        APP.0
    );
    for row in server.query(&sql) {
        if let Some(Some(id)) = row.first() {
            server.exec(&format!("KILL CONNECTION {id}"));
        }
    }
}
