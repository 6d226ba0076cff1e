//! The harness itself: servers start, live, die and come back.

use crate::support::proc::{Guarded, TempDir, block_on, wait_for};
use crate::support::servers::{self, APP, SERVICE, tls_opts};
use crate::support::{Family, Server, ServerOptions};
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
