//! A session reads its own deferred writes, wherever its reads go.

use crate::or_skip;
use crate::order::USERS;
use crate::support::servers::shared;
use crate::support::{Family, Proxy, ProxyOptions, Server};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 60;
const LIMIT: Duration = Duration::from_secs(60);

fn created(family: Family, table: &str) -> Option<[&'static Server; 2]> {
    let servers = [shared(family, 0).ok()?, shared(family, 1).ok()?];
    for server in servers {
        server.exec(&format!("DROP TABLE IF EXISTS {table}"));
        server.exec(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT)"));
        server.exec(&format!("INSERT INTO {table} VALUES (1, 0), (2, 0)"));
    }
    Some(servers)
}

fn started(servers: [&Server; 2], table: &str, more: &str) -> Proxy {
    let mut options = ProxyOptions::route("own", &[table]);
    options.route_yaml = more.to_owned();
    // A busy machine is not to send reads to the active side.
    options.extra_yaml = format!("limits: {{ mirror_deadline_ms: 10000 }}\n{USERS}");
    let proxy = Proxy::start(servers[0], servers[1], options);
    proxy.must_advance("own", "source_first");
    assert!(proxy.reads("own", 100).ok());
    crate::support::proc::wait_for("the follower", LIMIT, || {
        proxy.route("own")["follow"]["state"] == "running"
    });
    proxy
}

fn read_at(proxy: &Proxy, counter: &str) -> f64 {
    let series = format!("lockstep_statements_total{{route=\"own\",decision=\"{counter}\"}}");
    proxy.metric(&series).unwrap_or_default()
}

async fn value(conn: &mut Conn, table: &str, id: u32) -> u32 {
    let sql = format!("SELECT v FROM {table} WHERE id = {id}");
    let v: Option<u32> = conn.query_first(sql).await.expect("read");
    v.expect("a row")
}

/// Not row-local, so only the active side gets it.
fn deferred(table: &str, v: u32) -> String {
    format!("UPDATE {table} SET v = (SELECT {v}) WHERE id = 1")
}

async fn reads_its_own(conn: &mut Conn, table: &str) {
    for n in 1..=ROUNDS {
        if n % 3 == 0 {
            conn.query_drop("BEGIN").await.expect("begun");
            conn.query_drop(deferred(table, n)).await.expect("written");
            assert_eq!(value(conn, table, 1).await, n, "in the transaction");
            conn.query_drop("COMMIT").await.expect("committed");
        } else {
            conn.query_drop(deferred(table, n)).await.expect("written");
        }
        assert_eq!(value(conn, table, 1).await, n, "round {n}");
        // Prepared, and with an inline write between.
        let inline = format!("UPDATE {table} SET v = {n} WHERE id = 2");
        conn.query_drop(inline).await.expect("written");
        let sql = format!("SELECT v FROM {table} WHERE id = ?");
        let v: Option<u32> = conn.exec_first(&sql, (1,)).await.expect("read");
        assert_eq!(v, Some(n), "round {n}, prepared");
        assert_eq!(value(conn, table, 2).await, n, "round {n}, inline");
    }
}

fn own(family: Family) {
    let table = "t.own_wait";
    let servers = or_skip!(created(family, table).ok_or("no servers"));
    let proxy = started(servers, table, "");
    // A follower is at work for some moments before reads wait for it.
    crate::support::proc::wait_for("reads that wait", LIMIT, || {
        crate::support::proc::block_on(async {
            let mut conn = proxy.conn(Some("t")).await;
            conn.query_drop(deferred(table, 0)).await.expect("written");
            assert_eq!(value(&mut conn, table, 1).await, 0);
            let _ = conn.disconnect().await;
        });
        counts(&proxy).0 > 0
    });
    crate::support::proc::block_on(async {
        let mut conn = proxy.conn(Some("t")).await;
        reads_its_own(&mut conn, table).await;
        let (waited, kept) = counts(&proxy);
        let mirrored = read_at(&proxy, "mirror_read");
        println!(
            "{family}: {ROUNDS} rounds, {mirrored} reads on the mirror, {waited} waited for the \
             follower, {kept} went to the active side"
        );
        assert!(
            waited > 0 && mirrored > f64::from(ROUNDS),
            "{waited} {mirrored}"
        );

        crate::support::proc::wait_for("the last to be healed", LIMIT, || {
            proxy.route("own")["journal"]["lines"] == 0
        });
        // Nothing follows: no read waits, and none is of the past.
        assert!(proxy.cli(&["pause", "own"]).status.success());
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let before = counts(&proxy).1;
        conn.query_drop(deferred(table, 1000))
            .await
            .expect("written");
        let began = Instant::now();
        for _ in 0..50 {
            assert_eq!(value(&mut conn, table, 1).await, 1000);
        }
        println!(
            "{family}: 50 reads beside a paused follower in {:?}",
            began.elapsed()
        );
        assert!(!crate::support::proc::is_over(
            began,
            Duration::from_secs(5)
        ));
        assert!(counts(&proxy).1 >= before + 50);
        // Others' reads are not held back by it.
        let mut other = proxy.conn(Some("t")).await;
        assert_eq!(value(&mut other, table, 1).await, ROUNDS);
        assert!(proxy.cli(&["resume", "own"]).status.success());
    });
}

fn counts(proxy: &Proxy) -> (u64, u64) {
    let mirror = proxy.route("own")["mirror"].clone();
    let number = |name: &str| mirror[name].as_u64().expect("a number");
    (number("reads_waited"), number("reads_kept"))
}

#[test]
fn mariadb_reads_its_own_deferred_writes() {
    own(Family::MariaDb);
}

#[test]
fn mysql_reads_its_own_deferred_writes() {
    own(Family::MySql);
}

/// What `deferred: continue` promises: reads go where they went.
#[test]
fn who_continues_may_read_its_past() {
    let table = "t.own_continue";
    let servers = or_skip!(created(Family::MariaDb, table).ok_or("no servers"));
    let proxy = started(servers, table, "deferred: continue");
    assert!(proxy.cli(&["pause", "own"]).status.success());
    crate::support::proc::block_on(async {
        let mut conn = proxy.conn(Some("t")).await;
        conn.query_drop(deferred(table, 7)).await.expect("written");
        assert_eq!(value(&mut conn, table, 1).await, 0);
    });
    assert_eq!(counts(&proxy), (0, 0));
}
