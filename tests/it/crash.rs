//! `kill -9` of the proxy under load, twenty times (DESIGN §2, promise 3).
//!
//! Afterwards: the same phases, epochs and reads; every write that a client was
//! told of is on the active side; nothing is on the mirror that the active side
//! has not (its commit comes first); and the journal says from where to heal.

use crate::support::proc::{block_on, connect, runtime, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Kills in each of the two phases with mirrored writes.
const KILLS: usize = 10;
const CLIENTS: u32 = 8;
/// Load before a kill: differs, so that kills fall into different moments.
const LOAD_MS: [u64; 4] = [120, 210, 75, 160];

type Row = (u32, u32);

/// Inserts rows `(client, n)` through every death of the proxy; the rows whose
/// insert, or whose COMMIT, was answered with OK.
async fn client(opts: OptsBuilder, table: String, number: u32, stop: Arc<AtomicBool>) -> Vec<Row> {
    let mut told = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(mut conn) = connect(opts.clone()).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            n += 2;
            let rows = [(number, n), (number, n + 1)];
            if insert(&mut conn, &table, rows).await.is_err() {
                break;
            }
            told.extend(rows);
        }
    }
    told
}

/// Both rows at once, or in a transaction.
async fn insert(conn: &mut Conn, table: &str, rows: [Row; 2]) -> Result<(), mysql_async::Error> {
    let [a, b] = rows.map(|(client, n)| format!("({client}, {n})"));
    if rows[0].1.is_multiple_of(4) {
        return conn
            .query_drop(format!("INSERT INTO {table} VALUES {a}, {b}"))
            .await;
    }
    conn.query_drop("BEGIN").await?;
    for row in [a, b] {
        conn.query_drop(format!("INSERT INTO {table} VALUES {row}"))
            .await?;
    }
    conn.query_drop("COMMIT").await
}

fn rows(server: &Server, table: &str) -> HashSet<Row> {
    let number = |v: Option<String>| v.and_then(|v| v.parse().ok()).expect("a number");
    server
        .query(&format!("SELECT client, n FROM {table}"))
        .into_iter()
        .map(|row| {
            let mut row = row.into_iter().map(number);
            (row.next().expect("client"), row.next().expect("n"))
        })
        .collect()
}

/// What must be the same after a restart.
fn standing(proxy: &Proxy) -> Value {
    let route = proxy.route("crash");
    serde_json::json!([
        route["phase"],
        route["epoch"],
        route["active"],
        route["reads_target_percent"]
    ])
}

fn crashes(active: &Server, mirror: &Server, proxy: &Proxy, table: &str) {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let opts = proxy.opts(Some("t"));
            runtime().spawn(client(opts, table.to_string(), n, Arc::clone(&stop)))
        })
        .collect();
    let before = standing(proxy);
    let mut unclean = 0;
    for n in 0..KILLS {
        let count = active.one(&format!("SELECT COUNT(*) FROM {table}"));
        wait_for("writes before the kill", Duration::from_secs(20), || {
            active.one(&format!("SELECT COUNT(*) FROM {table}")) != count
        });
        std::thread::sleep(Duration::from_millis(LOAD_MS[n % LOAD_MS.len()]));
        proxy.kill9();
        proxy.restart();
        assert_eq!(standing(proxy), before, "after kill {n}\n{}", proxy.log());
        let noted = proxy.status()["journal"]["totals"].to_string();
        unclean += usize::from(noted.contains("\"unclean\""));
    }
    std::thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Relaxed);
    let told: Vec<Row> = clients
        .into_iter()
        .flat_map(|c| block_on(c).expect("a client panicked"))
        .collect();
    let (on_active, on_mirror) = (rows(active, table), rows(mirror, table));
    let lost: Vec<&Row> = told.iter().filter(|r| !on_active.contains(r)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged rows are lost: {:?}",
        lost.len(),
        told.len(),
        lost.first()
    );
    let extra = on_mirror.difference(&on_active).count();
    assert_eq!(extra, 0, "rows that only the mirror has");
    let behind = on_active.difference(&on_mirror).count();
    println!(
        "{} to {}: {KILLS} kills, {} rows acknowledged, {} on the active side, {behind} not on \
         the mirror, {unclean} unclean ends noted",
        active.family(),
        mirror.family(),
        told.len(),
        on_active.len()
    );
    assert_eq!(unclean, KILLS, "the journal does not know of the kills");
    assert!(told.len() > KILLS, "hardly anything was written");
}

fn killed_twenty_times(family: Family) {
    let source = crate::or_skip!(servers::shared(family, 0));
    let target = crate::or_skip!(servers::shared(family, 1));
    let tables = ["t.crash_source", "t.crash_target"];
    for server in [source, target] {
        for table in tables {
            server.exec(&format!("DROP TABLE IF EXISTS {table}"));
            server.exec(&format!(
                "CREATE TABLE {table} (client INT, n INT, PRIMARY KEY (client, n))"
            ));
        }
    }
    let mut options = ProxyOptions::route("crash", &["t.crash_*"]).and_route("other", &["test.*"]);
    options.extra_yaml = crate::order::USERS.to_string();
    let proxy = Proxy::start(source, target, options);
    proxy.must_advance("crash", "source_first");
    assert!(proxy.reads("crash", 30).ok());
    crashes(source, target, &proxy, tables[0]);
    proxy.must_advance("crash", "target_first");
    crashes(target, source, &proxy, tables[1]);
    assert_eq!(proxy.phase("other"), "source_only");
}

#[test]
fn mariadb_pair_survives_twenty_deaths_of_the_proxy() {
    killed_twenty_times(Family::MariaDb);
}

#[test]
fn mysql_pair_survives_twenty_deaths_of_the_proxy() {
    killed_twenty_times(Family::MySql);
}
