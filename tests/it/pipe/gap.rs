//! Events that come before their rows can be read: a semi-sync primary waits
//! for its replica between the log and the engine.

use super::Pipe;
use crate::or_skip;
use crate::support::proc::{block_on, runtime};
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server, compare};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::time::Duration;

/// Semi-sync that waits behind the log and before the engine, for a replica
/// that does not come; by default it does not wait.
fn stalling(family: Family) -> Option<Server> {
    let options = match family {
        Family::MariaDb => ServerOptions::args([
            "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            "--rpl-semi-sync-master-timeout=3000",
        ]),
        Family::MySql => ServerOptions::default(),
    };
    let server = Server::start(family, options).ok()?;
    if family == Family::MySql {
        server.exec("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'");
        server.exec("SET GLOBAL rpl_semi_sync_source_wait_point=AFTER_SYNC");
        server.exec("SET GLOBAL rpl_semi_sync_source_timeout=3000");
    }
    Some(server)
}

fn stall(server: &Server, on: bool) {
    let word = match server.family() {
        Family::MariaDb => "master",
        Family::MySql => "source",
    };
    let on = u8::from(on);
    server.exec(&format!("SET GLOBAL rpl_semi_sync_{word}_enabled={on}"));
}

/// The follower writes a row whose commit stalls; a chunk read meanwhile does
/// not have it, and must not take it away.
#[test]
fn a_row_that_is_not_readable_yet_is_not_lost() {
    for family in Family::BOTH {
        let source = match stalling(family) {
            Some(source) => source,
            None => return,
        };
        let target = or_skip!(crate::support::servers::shared(family, 1));
        let pipe = Pipe::new(&source, target, "pg");
        pipe.exec_both("DROP DATABASE IF EXISTS pg; CREATE DATABASE pg");
        pipe.exec_both("CREATE TABLE pg.a (id INT PRIMARY KEY, v INT NOT NULL)");
        source.exec("INSERT INTO pg.a WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 500) SELECT n, 0 FROM s");
        let start = pipe.now();
        block_on(pipe.follow(&start, true, Arc::default())).expect("the private schema is there");
        stall(&source, true);
        std::thread::scope(|scope| {
            // Its event is in the log at once; its row is readable in 3 s.
            let stalled = scope.spawn(|| {
                runtime().block_on(async {
                    let mut conn = source.conn().await;
                    let began = std::time::Instant::now();
                    conn.query_drop("BEGIN; UPDATE pg.a SET v = 7 WHERE id = 250; DELETE FROM pg.a WHERE id = 251; INSERT INTO pg.a VALUES (1000, 1); COMMIT")
                        .await
                        .expect("a commit");
                    began.elapsed()
                })
            });
            std::thread::sleep(Duration::from_millis(300));
            let copied = block_on(pipe.copy(&["a"], &start, Arc::default()));
            copied.unwrap_or_else(|e| panic!("{family}: {e}"));
            let waited = stalled.join().expect("the client");
            assert!(
                waited > Duration::from_secs(1),
                "{family}: {waited:?}: no gap"
            );
        });
        stall(&source, false);
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{family}: {e}"));
        assert_eq!(
            compare::assert_equal(&source, target, &["pg.a"]),
            500,
            "{family}"
        );
        assert_eq!(target.one("SELECT v FROM pg.a WHERE id = 250"), "7");
    }
}
