//! Nobody but the proxy writes to the mirror (issue 4 §5): whoever does is named
//! within seconds and what he wrote is repaired; our own writes, of every kind
//! and across flips, are named for nothing.

use crate::or_skip;
use crate::support::proc::{block_on, runtime, wait_for};
use crate::support::servers::ServerOptions;
use crate::support::{Family, Proxy, ProxyOptions, Server, compare, servers};
use crate::workload::{Isolation, Load, Mix, Tables};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod load;
mod voided;

/// "Within seconds", on a machine that is busy with other tests.
const SECONDS: Duration = Duration::from_secs(30);
const COPIED: Duration = Duration::from_secs(300);

fn watch(proxy: &Proxy, route: &str) -> Value {
    proxy.route(route)["compare"]["watch"].clone()
}

fn divergences(proxy: &Proxy, route: &str) -> Vec<Value> {
    let list = proxy.get(&format!("/v1/routes/{route}/divergences")).json();
    list["divergences"].as_array().cloned().unwrap_or_default()
}

/// Keys of a route's divergences that are repaired, by table.
fn repaired(proxy: &Proxy, route: &str) -> Vec<String> {
    let all = divergences(proxy, route);
    let mut keys: Vec<String> = all
        .iter()
        .filter(|d| d["state"] == "repaired")
        .map(|d| {
            let of = |name: &str| d[name].as_str().unwrap_or_default().to_string();
            format!("{} {}", of("table"), of("key"))
        })
        .collect();
    keys.sort();
    keys
}

/// From `source_only` to `source_first`, until the mirror is watched.
fn dual(proxy: &Proxy, route: &str) {
    let answer = proxy.advance(route, Some("syncing"), false);
    assert!(answer.ok(), "{answer:?}\n{}", proxy.log());
    wait_for("the copy", COPIED, || {
        proxy.route(route)["copy"]["state"] == "done"
    });
    let answer = proxy.advance(route, Some("source_first"), false);
    assert!(answer.ok(), "{answer:?}\n{}", proxy.log());
    wait_for("a watcher", SECONDS, || {
        watch(proxy, route)["running"] == true
    });
}

fn tables(server: &Server, prefix: &str) {
    server.exec(&format!(
        "DROP TABLE IF EXISTS t.{prefix}row;\nDROP TABLE IF EXISTS t.{prefix}word"
    ));
}

fn create(server: &Server, prefix: &str) {
    tables(server, prefix);
    server.exec(&format!(
        "CREATE TABLE t.{prefix}row (id INT PRIMARY KEY, v INT NOT NULL);\n\
         CREATE TABLE t.{prefix}word (w VARCHAR(20) PRIMARY KEY, v INT) DEFAULT CHARSET utf8mb4;\n\
         INSERT INTO t.{prefix}row VALUES (1, 1), (2, 2), (3, 3), (4, 4);\n\
         INSERT INTO t.{prefix}word VALUES ('a', 1), ('b', 2)"
    ));
}

fn bypassed(from: (Family, usize), to: (Family, usize), prefix: &str) {
    let source = or_skip!(servers::shared(from.0, from.1));
    let target = or_skip!(servers::shared(to.0, to.1));
    let pair = format!("{} to {}", from.0, to.0);
    create(source, prefix);
    tables(target, prefix);
    let glob = format!("t.{prefix}*");
    let proxy = Proxy::start(source, target, ProxyOptions::route("w", &[&glob]));
    dual(&proxy, "w");

    // On the source: the follower brings it over.
    source.exec(&format!(
        "UPDATE t.{prefix}row SET v = 20 WHERE id = 2; INSERT INTO t.{prefix}row VALUES (5, 5)"
    ));
    let sum = format!("SELECT SUM(v) FROM t.{prefix}row");
    wait_for("the source's write on the target", SECONDS, || {
        target.one(&sum) == "33"
    });

    // On the target: named and repaired.
    let began = Instant::now();
    let id = block_on(foreign(target, prefix));
    let wanted = [
        format!("t.{prefix}row 3"),
        format!("t.{prefix}row 4"),
        format!("t.{prefix}row 9"),
        format!("t.{prefix}word 'b'"),
        format!("t.{prefix}word 'c'"),
    ];
    wait_for("the foreign writes' repair", SECONDS, || {
        repaired(&proxy, "w") == wanted
    });
    let took = began.elapsed();
    let names = [format!("t.{prefix}row"), format!("t.{prefix}word")];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    compare::assert_equal(source, target, &names);
    let seen = watch(&proxy, "w");
    let writers = seen["writers"].as_array().cloned().unwrap_or_default();
    for name in &names {
        let writer = writers.iter().find(|w| w["table"] == *name);
        let writer = writer.unwrap_or_else(|| panic!("{pair}: {name} is not in {seen}"));
        if to.0 == Family::MySql {
            assert_eq!(writer["thread_id"], id, "{pair}: {seen}");
        }
    }
    assert_eq!(seen["unverified_rows"], 0, "{pair}: {seen}");
    assert!(
        proxy.log().contains("somebody else writes to the mirror"),
        "{}",
        proxy.log()
    );
    println!("{pair}: foreign writes named and repaired in {took:?}: {seen}");
    over_a_restart(&proxy, [source, target], prefix, &wanted);
    let answer = proxy.rollback("w", Some("source_only"), true);
    assert!(answer.ok(), "{answer:?}");
}

/// What was found stands there after `kill -9`, and what is written while the
/// proxy is away is found afterwards.
fn over_a_restart(proxy: &Proxy, [source, target]: [&Server; 2], prefix: &str, wanted: &[String]) {
    // Everything found is kept within a second.
    std::thread::sleep(Duration::from_secs(2));
    proxy.kill9();
    target.exec(&format!("UPDATE t.{prefix}row SET v = -1 WHERE id = 1"));
    proxy.restart();
    let known = divergences(proxy, "w");
    assert!(known.len() >= wanted.len(), "{known:?}");
    let mut wanted = wanted.to_vec();
    wanted.insert(0, format!("t.{prefix}row 1"));
    wait_for("what was written meanwhile", SECONDS, || {
        repaired(proxy, "w") == wanted
    });
    let table = format!("t.{prefix}row");
    compare::assert_equal(source, target, &[&table]);
}

/// Changed, deleted, new, and a key that moves; the connection's id.
async fn foreign(target: &Server, prefix: &str) -> u32 {
    let mut conn = target.conn().await;
    for sql in [
        format!("UPDATE t.{prefix}row SET v = -3 WHERE id = 3"),
        format!("DELETE FROM t.{prefix}row WHERE id = 4"),
        format!("INSERT INTO t.{prefix}row VALUES (9, 9)"),
        format!("UPDATE t.{prefix}word SET w = 'c' WHERE w = 'b'"),
    ] {
        conn.query_drop(sql).await.expect("a foreign write");
    }
    let id = conn.id();
    let _ = conn.disconnect().await;
    id
}

#[test]
fn mariadb_foreign_writes_are_named_and_repaired() {
    bypassed((Family::MariaDb, 0), (Family::MariaDb, 1), "wtm_");
}

#[test]
fn mysql_foreign_writes_are_named_and_repaired() {
    bypassed((Family::MySql, 0), (Family::MySql, 1), "wty_");
}

#[test]
fn mariadb_to_mysql_foreign_writes_are_named_and_repaired() {
    bypassed((Family::MariaDb, 0), (Family::MySql, 1), "wtx_");
}

/// Every kind of write through the proxy, in two routes, with flips: none is
/// anybody else's, and no row ever differs for good.
fn own(family: Family, prefix: &str) {
    let source = or_skip!(servers::shared(family, 0));
    let target = or_skip!(servers::shared(family, 1));
    let strict = Tables::new(prefix, Isolation::RepeatableRead);
    strict.create(source);
    let more = load::More::new(prefix);
    more.create(source);
    for table in strict.all().into_iter().chain(more.all()) {
        target.exec(&format!("DROP TABLE IF EXISTS {table}"));
    }
    source.exec("SET GLOBAL local_infile = 1");
    target.exec("SET GLOBAL local_infile = 1");
    let mut options =
        ProxyOptions::route("a", &[&format!("t.{prefix}s*"), &format!("t.{prefix}l*")]);
    options = options.and_route("b", &[&format!("t.{prefix}m*")]);
    // Without, no write of a MySQL client is mirrored: its password is not known.
    options.extra_yaml = crate::order::USERS.to_owned();
    let proxy = Proxy::start(source, target, options);
    dual(&proxy, "a");
    dual(&proxy, "b");
    let mix = Mix {
        hot: 2,
        others: true,
        ..Mix::NONE
    };
    let load = Load::start(&proxy.opts(Some("t")), &strict, mix);
    let others = more.start(&proxy);
    let pause = || std::thread::sleep(Duration::from_millis(1500));
    pause();
    for route in ["a", "b"] {
        flip(&proxy, route, "advance", "target_first");
    }
    pause();
    for route in ["a", "b"] {
        flip(&proxy, route, "rollback", "source_first");
    }
    pause();
    let report = load.stop();
    let more_done = others.stop();
    report.assert_no_errors();
    // A lag below a second, seen a second later, is one behind the last write.
    std::thread::sleep(Duration::from_secs(1));
    for route in ["a", "b"] {
        proxy.wait_followed(route, COPIED);
    }
    // For the watcher to get to the end.
    std::thread::sleep(Duration::from_secs(2));
    for route in ["a", "b"] {
        let seen = watch(&proxy, route);
        assert_eq!(seen["foreign_rows"], 0, "{family} {route}: {seen}");
        assert_eq!(seen["writers"], serde_json::json!([]), "{route}: {seen}");
        let listed = divergences(&proxy, route);
        assert!(listed.is_empty(), "{family} {route}: {listed:?}");
        println!("{family} {route}: {seen}");
    }
    let all: Vec<&str> = strict.all().into_iter().chain(more.all()).collect();
    compare::assert_equal(source, target, &all);
    println!(
        "{family}: {} statements and {more_done} others",
        report.statements
    );
    for route in ["a", "b"] {
        let answer = proxy.rollback(route, Some("source_only"), true);
        assert!(answer.ok(), "{answer:?}");
    }
}

/// An edge as operators take it: a clean comparison, then the step, nothing
/// forced; again when somebody's transaction was in the way.
fn flip(proxy: &Proxy, route: &str, verb: &str, to: &str) {
    let until = Instant::now() + COPIED;
    loop {
        let path = format!("/v1/routes/{route}/compare");
        let compared = proxy.post(&path, &serde_json::json!({}));
        wait_for("a comparison", COPIED, || {
            proxy.route(route)["compare"]["running"] == false
        });
        let answer = match verb {
            "advance" => proxy.advance(route, Some(to), false),
            _ => proxy.rollback(route, Some(to), false),
        };
        if answer.ok() {
            break;
        }
        assert!(
            Instant::now() < until,
            "{compared:?}\n{answer:?}\n{}",
            proxy.log()
        );
    }
    wait_for("a watcher", SECONDS, || {
        watch(proxy, route)["running"] == true
    });
}

#[test]
fn mariadb_own_writes_are_not_named() {
    own(Family::MariaDb, "wom");
}

#[test]
fn mysql_own_writes_are_not_named() {
    own(Family::MySql, "woy");
}

/// Rows are compared on a replica that lags for ever: what it lacks is looked
/// at on the backend itself, and only what differs there is a difference.
#[test]
fn a_lagging_replica_is_compared_on_first() {
    let source = or_skip!(Server::start(Family::MariaDb, ServerOptions::default()));
    let replica = or_skip!(Server::start(Family::MariaDb, ServerOptions::default()));
    let target = or_skip!(servers::shared(Family::MariaDb, 1));
    replicate(&source, &replica);
    create(&source, "wre_");
    tables(target, "wre_");
    source.exec(
        "INSERT INTO t.wre_row WITH RECURSIVE s AS (SELECT 10 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT n, n FROM s",
    );
    wait_for("the replica", SECONDS, || {
        let count = replica.query("SELECT 1 FROM t.wre_row").len();
        count == 895
    });
    let mut options = ProxyOptions::route("w", &["t.wre_*"]);
    let name = "LOCKSTEP_BACKENDS__SOURCE__REPLICA".to_string();
    options.env.push((name, replica.address()));
    let proxy = Proxy::start(&source, target, options);
    dual(&proxy, "w");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = runtime().spawn(writer(proxy.opts(Some("t")), Arc::clone(&stop)));
    // Behind by two seconds from now on.
    replica.exec("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 2; START SLAVE");
    std::thread::sleep(Duration::from_secs(1));
    let compared = || {
        let body = serde_json::json!({ "wait": true });
        let answer = proxy.post("/v1/routes/w/compare", &body);
        assert!(answer.ok(), "{answer:?}\n{}", proxy.log());
        answer.json()
    };
    let report = compared();
    assert_eq!(report["clean"], true, "{report}");
    assert_eq!(proxy.route("w")["compare"]["divergent_open"], 0);
    // Asked there: its own numbers show it.
    let selects = || -> u64 {
        let status = &replica.query("SHOW GLOBAL STATUS LIKE 'Com_select'")[0];
        let number = status[1].as_deref().and_then(|n| n.parse().ok());
        number.expect("a number")
    };
    let before = selects();
    compared();
    let after = selects();
    assert!(after > before + 2, "{before} selects, then {after}");
    stop.store(true, Ordering::Relaxed);
    let written = block_on(writer).expect("a writer");
    let report = compared();
    assert_eq!(report["clean"], true, "{report}");
    println!("{written} updates, replica 2 s behind: {report}");
}

fn replicate(source: &Server, replica: &Server) {
    let place = &source.query("SHOW MASTER STATUS")[0];
    let [file, offset] = [0, 1].map(|n| place[n].clone().expect("a place"));
    let (user, password) = servers::SERVICE;
    let address = source.address();
    let (host, port) = address.rsplit_once(':').expect("an address");
    replica.exec(&format!(
        "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, MASTER_USER = '{user}', \
         MASTER_PASSWORD = '{password}', MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = {offset}; START SLAVE"
    ));
}

async fn writer(opts: OptsBuilder, stop: Arc<AtomicBool>) -> u64 {
    let mut conn = Conn::new(opts).await.expect("a connection");
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = 10 + done % 890;
        let sql = format!("UPDATE t.wre_row SET v = v + 1 WHERE id = {id}");
        conn.query_drop(sql).await.expect("an update");
        done += 1;
    }
    done
}
