//! The harness itself: servers start, live, die and come back.

use crate::support::proc::{Guarded, TempDir, block_on, wait_for};
use crate::support::relay::{Mode, Relay};
use crate::support::servers::{self, APP, SERVICE, tls_opts};
use crate::support::{Family, ProxyOptions, Server, ServerOptions, proxy};
use crate::support::{binlog_order, compare};
use mysql_async::prelude::Queryable;
use std::process::Command;
use std::time::Duration;

#[test]
fn both_families_start_with_their_accounts() {
    for family in Family::BOTH {
        let server = crate::or_skip!(servers::shared(family, 0));
        let expected = if family == Family::MariaDb {
            "10.11"
        } else {
            "9."
        };
        assert!(server.version().contains(expected), "{}", server.version());
        assert_eq!(server.one("SELECT @@binlog_format"), "ROW");
        assert_eq!(server.one("SELECT @@log_bin"), "1");
        for (user, password) in [SERVICE, APP] {
            block_on(async {
                let opts = server.opts(user, password, Some("shop"));
                let mut conn = mysql_async::Conn::new(opts).await.expect("login");
                let who: Option<String> = conn
                    .query_first("SELECT CURRENT_USER()")
                    .await
                    .expect("query");
                assert_eq!(who, Some(format!("{user}@%")));
            });
        }
    }
}

#[test]
fn data_survives_death_and_a_frozen_server_answers_after_its_thaw() {
    for family in Family::BOTH {
        let options = ServerOptions {
            durable: true,
            ..Default::default()
        };
        let server = crate::or_skip!(Server::start(family, options));
        server.exec("CREATE TABLE t.a (id INT PRIMARY KEY);\nINSERT INTO t.a VALUES (1), (2)");
        let before = (server.one("SELECT @@server_id"), server.port());
        server.kill9();
        server.restart();
        assert_eq!(server.one("SELECT COUNT(*) FROM t.a"), "2");
        assert_eq!((server.one("SELECT @@server_id"), server.port()), before);
        server.freeze();
        let slow = block_on(async {
            let login = mysql_async::Conn::new(server.opts("root", "", None));
            tokio::time::timeout(Duration::from_millis(300), login)
                .await
                .is_err()
        });
        assert!(slow, "a frozen server answered");
        server.thaw();
        assert_eq!(server.one("SELECT 1"), "1");
        server.stop();
    }
}

#[test]
fn servers_differ_in_identity() {
    for (family, identity) in [
        (Family::MariaDb, "SELECT @@server_id"),
        (Family::MySql, "SELECT @@server_uuid"),
    ] {
        let one = crate::or_skip!(servers::shared(family, 0));
        let two = crate::or_skip!(servers::shared(family, 1));
        assert_ne!(one.one(identity), two.one(identity));
    }
}

#[test]
fn tls_is_there_on_both_families() {
    for family in Family::BOTH {
        let options = ServerOptions {
            tls: true,
            ..Default::default()
        };
        let server = crate::or_skip!(Server::start(family, options));
        block_on(async {
            let opts = tls_opts(server.port(), APP.0, APP.1, None);
            let mut conn = mysql_async::Conn::new(opts).await.expect("TLS login");
            let cipher: Option<(String, String)> = conn
                .query_first("SHOW STATUS LIKE 'Ssl_cipher'")
                .await
                .expect("query");
            assert!(cipher.is_some_and(|(_, cipher)| !cipher.is_empty()));
        });
        assert!(server.ca_path().is_file());
    }
}

/// The watchdog's own pipe is what a dead test process closes.
#[test]
fn a_child_is_killed_when_its_watchdog_loses_the_pipe() {
    let folder = TempDir::new("watchdog");
    let mut child = Guarded::spawn(Command::new("sleep").arg("600"), folder.path()).expect("spawn");
    assert!(child.ended().is_none());
    child.abandon();
    wait_for("death of the child", Duration::from_secs(5), || {
        child.ended().is_some()
    });
    wait_for("removal of the folder", Duration::from_secs(5), || {
        !folder.path().exists()
    });
}

/// The SQL both tests below run on each server; `swapped` exchanges the order
/// of two updates that commute, so that the end state is the same.
fn write_rows(server: &Server, table: &str, swapped: bool) {
    // What the tools print differently: quotes, backslashes, bytes, JSON, time.
    let json = r#"{"k": [1, 2], "s": "it''s ü"}"#;
    server.exec(&format!(
        "CREATE TABLE {table} (id INT PRIMARY KEY, v BIGINT, s VARCHAR(80), j JSON, d DATETIME(6), \
         f DOUBLE, b VARBINARY(9), n DECIMAL(9,2), ts TIMESTAMP(6) NULL)"
    ));
    let values = format!(
        "5, 'a''b \\\\ \\n ü', '{json}', '2026-01-02 03:04:05.678901', 1e-3, X'00FF27', -1.50, \
         '2026-01-02 03:04:05.1'"
    );
    server.exec(&format!(
        "INSERT INTO {table} VALUES (1, {values}), (2, {values})"
    ));
    let mut updates = [1, 10].map(|by| format!("UPDATE {table} SET v = v + {by} WHERE id = 1"));
    if swapped {
        updates.reverse();
    }
    for update in updates {
        server.exec(&update);
    }
    server.exec(&format!("UPDATE {table} SET v = v WHERE id = 2")); // changes nothing, logs nothing
    server.exec(&format!("UPDATE {table} SET id = 3 WHERE id = 2"));
    server.exec(&format!("DELETE FROM {table} WHERE id = 3"));
}

#[test]
fn equal_order_is_seen_as_equal_across_families() {
    let a = crate::or_skip!(servers::shared(Family::MariaDb, 0));
    let b = crate::or_skip!(servers::shared(Family::MySql, 0));
    let marks = [binlog_order::mark(a), binlog_order::mark(b)];
    write_rows(a, "t.order_same", false);
    write_rows(b, "t.order_same", false);
    let order = binlog_order::check((a, &marks[0]), (b, &marks[1]), &["t.order_same"]);
    order.assert_same(6);
    assert_eq!((order.changes, order.rows), ([7, 7], 3), "{order:?}");
    assert_eq!(compare::assert_equal(a, b, &["t.order_same"]), 1);
}

#[test]
fn swapped_writes_are_seen_though_the_end_state_is_equal() {
    for family in Family::BOTH {
        let a = crate::or_skip!(servers::shared(family, 0));
        let b = crate::or_skip!(servers::shared(family, 1));
        let marks = [binlog_order::mark(a), binlog_order::mark(b)];
        write_rows(a, "t.order_swapped", false);
        write_rows(b, "t.order_swapped", true);
        assert_eq!(compare::assert_equal(a, b, &["t.order_swapped"]), 1);
        let order = binlog_order::check((a, &marks[0]), (b, &marks[1]), &["t.order_swapped"]);
        assert_eq!(order.differing, 1, "{order:?}");
    }
}

#[test]
fn differing_rows_are_counted() {
    let a = crate::or_skip!(servers::shared(Family::MariaDb, 0));
    let b = crate::or_skip!(servers::shared(Family::MySql, 0));
    for (server, rows) in [
        (a, "(1, 'x'), (2, 'y'), (3, NULL)"),
        (b, "(1, 'x'), (2, 'Y'), (4, NULL)"),
    ] {
        server.exec("CREATE TABLE t.differing (id INT PRIMARY KEY, s VARCHAR(9))");
        server.exec(&format!("INSERT INTO t.differing VALUES {rows}"));
        server.exec("CREATE TABLE t.keyless (s VARCHAR(9))");
        server.exec("INSERT INTO t.keyless SELECT s FROM t.differing WHERE id < 4");
        server.exec("INSERT INTO t.keyless VALUES ('x')");
    }
    let diffs = compare::compare(a, b, &["t.differing", "t.keyless"]);
    // 2 changed, 3 and 4 on one side each; keyless: y, Y and one NULL.
    assert_eq!(
        [diffs[0].different, diffs[1].different],
        [3, 3],
        "{diffs:?}"
    );
    assert!(compare::tables_of(a, "t").contains(&"t.differing".to_string()));
}

#[test]
fn a_relay_can_be_slow_silent_and_absent() {
    let server = crate::or_skip!(servers::shared(Family::MariaDb, 0));
    let relay = Relay::start(&server.address());
    let port = relay
        .address()
        .rsplit(':')
        .next()
        .and_then(|p| p.parse().ok())
        .expect("port");
    let login = || {
        block_on(async {
            let login = mysql_async::Conn::new(servers::opts(port, APP.0, APP.1, None));
            tokio::time::timeout(Duration::from_secs(5), login)
                .await
                .map(|r| r.is_ok())
        })
    };
    assert_eq!(login().ok(), Some(true));
    relay.set(Mode::Slow(Duration::from_millis(50)));
    let start = std::time::Instant::now();
    assert_eq!(login().ok(), Some(true));
    assert!(start.elapsed() > Duration::from_millis(100));
    relay.set(Mode::Silent);
    assert!(login().is_err());
    relay.set(Mode::Refuse);
    assert_eq!(login().ok(), Some(false));
    relay.set(Mode::Pass);
    assert_eq!(login().ok(), Some(true));
}

#[test]
fn the_proxy_is_started_with_settings_it_accepts() {
    let mut options = ProxyOptions::route("shop", &["shop.*"]).and_route("t", &["t.a", "t.b"]);
    options.route_yaml = "ack: active\nddl: refuse".to_string();
    options.extra_yaml = "limits: { mirror_deadline_ms: 300 }".to_string();
    for options in [ProxyOptions::default(), options] {
        let addresses = ["127.0.0.1:3306", "127.0.0.1:3307"];
        let yaml = proxy::yaml(&options, [6033, 6080, 6032], addresses, "state".as_ref());
        let parsed = lockstep::config::parse(&yaml, std::iter::empty());
        assert!(parsed.is_ok(), "{:?}\n{yaml}", parsed.err());
    }
}
