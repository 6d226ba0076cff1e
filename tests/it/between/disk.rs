//! A full disk under `state`: the proxy serves, phases stay, and what the
//! journal could not write is written when there is room again.

use super::connect;
use crate::order::USERS;
use crate::support::proc::{block_on, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, servers};
use mysql_async::prelude::Queryable;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Runs the proxy with a small file system of its own under its state.
const SMALL_DISK: &str = "mkdir -p \"$TEST_FOLDER/state\" \
    && mount -t tmpfs -o size=3m tmpfs \"$TEST_FOLDER/state\" && exec \"$0\" \"$@\"";

/// Mount namespaces need privileges that not every machine gives.
pub fn may_mount() -> bool {
    let tried = std::process::Command::new("unshare")
        .args(["-m", "true"])
        .output();
    let may = tried.is_ok_and(|o| o.status.success());
    if !may {
        eprintln!("SKIPPED: no right to mount file systems");
    }
    may
}

/// The proxy's state folder as the proxy sees it.
fn state(proxy: &Proxy) -> PathBuf {
    let inside = proxy.state_dir();
    let inside = inside.strip_prefix("/").expect("absolute").to_path_buf();
    PathBuf::from(format!("/proc/{}/root", proxy.pid())).join(inside)
}

fn fill(proxy: &Proxy) -> PathBuf {
    let path = state(proxy).join("filler");
    let mut file = std::fs::File::create(&path).expect("filler");
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    path
}

fn unwritten(proxy: &Proxy) -> bool {
    proxy.status()["journal"]["unwritten"] == true
}

#[test]
fn a_full_disk_stops_phases_and_nothing_else() {
    if !may_mount() {
        return;
    }
    for family in Family::BOTH {
        let source = crate::or_skip!(servers::shared(family, 0));
        let target = crate::or_skip!(servers::shared(family, 1));
        for server in [source, target] {
            server.exec(
                "DROP TABLE IF EXISTS t.disk_a;\nCREATE TABLE t.disk_a (id INT PRIMARY KEY, v INT)",
            );
        }
        let mut options = ProxyOptions::route("r", &["t.disk_a"]).and_route("s", &["t.disk_b"]);
        options.extra_yaml = USERS.to_string();
        options.wrapper = ["unshare", "-m", "sh", "-c", SMALL_DISK]
            .map(str::to_string)
            .to_vec();
        let proxy = Proxy::start(source, target, options);
        proxy.must_advance("r", "source_first");
        // Before the first sample of positions, lines have none.
        wait_for("positions to be sampled", LIMIT, || {
            state(&proxy).join("positions.json").exists()
        });
        // What is healed is struck off: not before it was looked at.
        assert!(proxy.cli(&["pause", "r"]).status.success());
        let mut conn = connect(&proxy).expect("login");
        let mut deferred = |from: u32| {
            // Not row-local, so the active side alone gets it.
            for id in from..from + 10 {
                let sql = format!("INSERT INTO disk_a SELECT {id}, 1");
                block_on(conn.query_drop(sql)).expect("served with a full disk");
                std::thread::sleep(Duration::from_millis(120));
            }
        };
        let filler = fill(&proxy);
        deferred(0);
        let _ = fill(&proxy);
        deferred(100);
        wait_for("the journal to be behind", LIMIT, || {
            deferred_once(&proxy);
            unwritten(&proxy)
        });
        let refused = proxy.advance("r", Some("target_first"), true);
        assert!(!refused.ok(), "{family}: {refused:?}");
        assert!(
            refused.body.contains("No space left on device"),
            "{family}: {refused:?}"
        );
        assert_eq!(proxy.phase("r"), "source_first");
        let again = connect(&proxy);
        let _ = block_on(again.expect("a login with a full disk").disconnect());

        std::fs::remove_file(filler).expect("room again");
        wait_for("the journal to catch up", LIMIT, || !unwritten(&proxy));
        let lines = std::fs::read_to_string(state(&proxy).join("journal.log")).expect("journal");
        let entry = lines
            .lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
            .find(|e| e["route"] == "r");
        let entry = entry.unwrap_or_else(|| panic!("{family}: {lines}"));
        assert_eq!(entry["kind"], "overflow", "{family}: {lines}");
        assert!(entry["since"].is_string(), "{family}: {lines}");
        assert!(proxy.cli(&["resume", "r"]).status.success());
        wait_for("the journal to be drained", LIMIT, || {
            proxy.route("r")["journal"]["lines"] == 0
        });
        proxy.must_advance("r", "target_first");
        proxy.must_rollback("r", "source_first");
    }
}

/// One more write that only the active side gets.
fn deferred_once(proxy: &Proxy) {
    let mut conn = connect(proxy).expect("login");
    let sql = "UPDATE disk_a SET v=v+1 WHERE id IN (SELECT 1)";
    block_on(conn.query_drop(sql)).expect("served with a full disk");
    let _ = block_on(conn.disconnect());
}
