//! KILL with the ids that clients know, and Ctrl-C in both families' `mysql`.

use super::counted::{connect, error, ok, proxy, refused};
use super::pair;
use crate::support::proc::{Guarded, TempDir, wait_for};
use crate::support::{Family, Proxy, Server};
use crate::transparency::raw::{Packet, Raw};
use lockstep::wire::command::*;
use std::io;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A read that takes for ever and may go to the mirror.
fn endless(table: &str) -> String {
    let crossed: String = (0..26).map(|i| format!(", {table} x{i}")).collect();
    format!("SELECT SUM({table}.id + x25.id) AS endless_read FROM {table}{crossed}")
}

fn running(servers: [&Server; 2]) -> usize {
    let sql = "SELECT id FROM information_schema.processlist \
               WHERE info LIKE '%endless_read%' AND info NOT LIKE '%processlist%'";
    servers.iter().map(|s| s.query(sql).len()).sum()
}

/// Runs the endless read on a thread.
fn start(mut raw: Raw, table: &str) -> JoinHandle<(Raw, io::Result<Vec<Packet>>)> {
    let sql = endless(table);
    std::thread::spawn(move || {
        let answer = raw.query(&sql);
        (raw, answer)
    })
}

/// Moves the route of `proxy` on.
fn enter(proxy: &Proxy, place: &str) {
    match place {
        "source_only" => {}
        "reads" => assert!(proxy.reads("r", 100).ok()),
        phase => proxy.must_advance("r", phase),
    }
}

const PLACES: [&str; 5] = [
    "source_only",
    "source_first",
    "reads",
    "target_first",
    "target_only",
];

/// KILL QUERY, KILL and COM_PROCESS_KILL by a second connection, in every
/// phase; the killed session was greeted before or after the flip.
#[test]
fn ids_that_were_greeted_are_the_ids_to_kill() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let servers = [pair.source, pair.target];
        let proxy = proxy(&pair, "kill_ids");
        // Greeted by the source, alive through all phases.
        let mut old = Some(connect(proxy.port()));
        for place in PLACES {
            enter(&proxy, place);
            for victim in [old.take(), Some(connect(proxy.port()))]
                .into_iter()
                .flatten()
            {
                let id = victim.greeting.thread_id;
                let mut killer = connect(proxy.port());
                let read = start(victim, "kill_ids");
                wait_for("it runs", SOON, || running(servers) == 1);
                ok(&mut killer, &format!("KILL QUERY {id}"));
                let (mut victim, answer) = read.join().expect("read");
                let said = error(&answer.expect("an answer"));
                assert!(
                    matches!(said, Some(1317 | 1969)),
                    "{family} {place}: {said:?}"
                );
                ok(&mut victim, "SELECT 1");
                if old.is_none() {
                    old = Some(victim);
                }
            }
            let victim = connect(proxy.port());
            let id = victim.greeting.thread_id;
            let mut killer = connect(proxy.port());
            let read = start(victim, "kill_ids");
            wait_for("it runs", SOON, || running(servers) == 1);
            match family {
                Family::MariaDb => {
                    let body = id.to_le_bytes();
                    let packets = killer.ask(COM_PROCESS_KILL, &body).expect("kill");
                    assert_eq!(error(&packets), None);
                }
                Family::MySql => ok(&mut killer, &format!("KILL {id}")),
            }
            let (mut victim, _) = read.join().expect("read");
            assert!(victim.query("SELECT 1").is_err(), "{family} {place}: alive");
            wait_for("it has ended on both sides", SOON, || running(servers) == 0);
            // It is gone for others too.
            wait_for("unknown", SOON, || {
                let packets = killer.query(&format!("KILL QUERY {id}")).expect("answer");
                error(&packets) == Some(1094)
            });
            assert_eq!(refused(&mut killer, "KILL 4294967290"), 1094);
        }
    }
}

/// A session of before the flip and one of after it may not be known by the
/// same id: the newer one is given another.
#[test]
fn ids_stay_unambiguous() {
    let Some(pair) = pair(Family::MariaDb, Family::MariaDb) else {
        return;
    };
    // Greeted ids of both servers, side by side.
    let next = |server: &Server| connect(server.port()).greeting.thread_id;
    let (behind, ahead) = (next(pair.target), next(pair.source));
    for _ in behind..ahead.max(behind) {
        next(pair.target);
    }
    for _ in ahead..behind.max(ahead) {
        next(pair.source);
    }
    let proxy = proxy(&pair, "kill_same");
    proxy.must_advance("r", "source_first");
    let old: Vec<Raw> = (0..40).map(|_| connect(proxy.port())).collect();
    proxy.must_advance("r", "target_first");
    let new: Vec<Raw> = (0..40).map(|_| connect(proxy.port())).collect();
    let mut ids: Vec<u32> = old
        .iter()
        .chain(&new)
        .map(|r| r.greeting.thread_id)
        .collect();
    let overlap = new.iter().any(|n| {
        let id = n.greeting.thread_id;
        id <= old[39].greeting.thread_id + 40 && id + 40 >= old[0].greeting.thread_id
    });
    assert!(overlap, "the ids are far apart: {ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 80, "{ids:?}");
}

/// An idle session is killed on both sides.
#[test]
fn an_idle_session_is_killed_with_both_legs() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "kill_idle");
        proxy.must_advance("r", "source_first");
        let mut victim = connect(proxy.port());
        ok(&mut victim, "UPDATE kill_idle SET v = 7 WHERE id = 1");
        ok(&mut victim, "BEGIN");
        ok(&mut victim, "UPDATE kill_idle SET v = 8 WHERE id = 1");
        let mut killer = connect(proxy.port());
        ok(&mut killer, &format!("KILL {}", victim.greeting.thread_id));
        assert!(victim.query("SELECT 1").is_err());
        for server in [pair.source, pair.target] {
            // Its locks are gone.
            server.exec("SET SESSION innodb_lock_wait_timeout = 5;\nUPDATE t.kill_idle SET v = 9 WHERE id = 1");
        }
    }
}

/// Ctrl-C in a stock client: it kills its query by the id it was greeted with,
/// over a second connection.
#[test]
fn control_c_ends_the_query() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let servers = [pair.source, pair.target];
        let proxy = proxy(&pair, "kill_ctrl");
        let folder = TempDir::new("ctrl-c");
        // The other family's client where it can log in at all.
        let clients = Family::BOTH.map(|cli| cli.cli().expect("client"));
        let able = clients.into_iter().filter(|cli| {
            let direct = command(cli, pair.source.port(), "SELECT 1").output();
            direct.is_ok_and(|out| out.status.success())
        });
        let able: Vec<_> = able.collect();
        assert!(!able.is_empty());
        for place in PLACES {
            enter(&proxy, place);
            for cli in &able {
                let log = folder.path().join("said");
                let said = std::fs::File::create(&log).expect("log");
                let mut command = command(cli, proxy.port(), &endless("kill_ctrl"));
                command.stderr(said.try_clone().expect("log")).stdout(said);
                let mut client = Guarded::spawn(&mut command, folder.path()).expect("client");
                wait_for("it runs", SOON, || {
                    if let Some(status) = client.ended() {
                        let said = std::fs::read_to_string(&log).unwrap_or_default();
                        panic!("{family} {place} {}: {status}: {said}", cli.display());
                    }
                    running(servers) == 1
                });
                client.signal("INT");
                wait_for("the client ends", SOON, || client.ended().is_some());
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let place = format!("{family} {place} {}: {said}", cli.display());
                assert!(
                    said.contains("1317") || said.contains("interrupted"),
                    "{place}"
                );
                wait_for(&format!("the query has ended, {place}"), SOON, || {
                    running(servers) == 0
                });
            }
        }
    }
}

fn command(cli: &std::path::Path, port: u16, sql: &str) -> Command {
    let mut command = Command::new(cli);
    command.args([
        "--no-defaults",
        "--host=127.0.0.1",
        "--user=root",
        "--database=t",
    ]);
    command.arg(format!("--port={port}")).args(["-e", sql]);
    command
}
