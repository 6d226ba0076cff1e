//! Definitions that change while a follower runs: it meets each in the log
//! between rows of the old shape and of the new, and goes on.

use super::run;
use crate::or_skip;
use crate::support::proc::{block_on, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const ROUTE: &str = "fol";
const CLIENTS: u32 = 3;

/// For a follower to come close behind on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Answers that a writer meets where a table is renamed or altered under it, or
/// that writers give each other.
const EXPECTED: [u16; 6] = [1146, 1412, 1205, 1213, 1062, 1050];

/// What an application's migrations do, one after the other.
const CHANGES: [&str; 24] = [
    "ALTER TABLE rows1 ADD COLUMN a INT NOT NULL DEFAULT 7 AFTER id",
    "ALTER TABLE rows1 ADD COLUMN b VARCHAR(20) DEFAULT 'x'",
    "UPDATE rows1 SET b = CONCAT('b', id) WHERE id % 2 = 0 ORDER BY id LIMIT 50",
    "ALTER TABLE rows1 DROP COLUMN a",
    "ALTER TABLE rows1 ADD COLUMN made DATETIME NOT NULL DEFAULT '2020-01-01 00:00:00' FIRST",
    "ALTER TABLE rows1 MODIFY v BIGINT",
    "CREATE INDEX by_v ON rows1 (v)",
    "CREATE TABLE like1 LIKE rows1",
    "INSERT INTO like1 (id, v, note) VALUES (1, 1, 'one'), (2, 2, 'two')",
    "ALTER TABLE like1 ADD COLUMN c INT",
    "INSERT INTO like1 (id, v, note, c) VALUES (3, 3, 'three', 3)",
    "RENAME TABLE like1 TO like2",
    "UPDATE like2 SET c = 9 WHERE id < 3",
    "INSERT INTO gone VALUES (5, 5), (6, 6)",
    "TRUNCATE TABLE gone",
    "INSERT INTO gone VALUES (7, 7)",
    "DROP TABLE gone",
    "CREATE TABLE gone (id INT PRIMARY KEY, t VARCHAR(10), n INT)",
    "INSERT INTO gone VALUES (1, 'again', 2)",
    "ALTER TABLE keyed DROP PRIMARY KEY, ADD PRIMARY KEY (other)",
    "UPDATE keyed SET v = v + 1 WHERE id > 1 ORDER BY id LIMIT 5",
    "RENAME TABLE keyed TO keyed_old, gone TO keyed, keyed_old TO gone",
    "ALTER TABLE rows2 CHANGE note remark VARCHAR(90)",
    "CREATE TABLE by_select (PRIMARY KEY (id)) AS SELECT id, v FROM like2",
];

struct Stage {
    source: &'static Server,
    target: &'static Server,
    proxy: Proxy,
    database: String,
}

impl Stage {
    fn start(families: [Family; 2], name: &str) -> Result<Stage, crate::support::Missing> {
        let second = usize::from(families[0] == families[1]);
        let source = servers::shared(families[0], 0)?;
        let target = servers::shared(families[1], second)?;
        let database = format!("ddl_{name}_{}{}", families[0].name(), families[1].name());
        for server in [source, target] {
            server.exec(&format!(
                "DROP DATABASE IF EXISTS {database}; \
                 GRANT ALL PRIVILEGES ON `{database}`.* TO '{}'@'%'",
                servers::APP.0
            ));
        }
        let rows = "(id INT AUTO_INCREMENT PRIMARY KEY, v INT, note VARCHAR(60))";
        let fill = "SELECT n, CONCAT('n', n) FROM s";
        let series = "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 300)";
        source.exec(&format!(
            "CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci; \
             USE {database}; CREATE TABLE rows1 {rows}; CREATE TABLE rows2 {rows}; \
             INSERT INTO rows1 (v, note) {series} {fill}; \
             INSERT INTO rows2 (v, note) {series} {fill}; \
             CREATE TABLE gone (id INT PRIMARY KEY, n INT); \
             CREATE TABLE keyed (id INT NOT NULL PRIMARY KEY, other INT NOT NULL, v INT, \
             UNIQUE KEY (other)); \
             INSERT INTO keyed VALUES (1, 11, 0), (2, 12, 0), (3, 13, 0)"
        ));
        let mut options = ProxyOptions::route(ROUTE, &[&format!("{database}.*")]);
        options.extra_yaml = crate::order::patient();
        let proxy = Proxy::start(source, target, options);
        super::known(&proxy, &database);
        Ok(Stage {
            source,
            target,
            proxy,
            database,
        })
    }

    fn follow(&self) -> serde_json::Value {
        self.proxy.route(ROUTE)["follow"].clone()
    }

    fn wait_current(&self) {
        self.proxy.wait_followed(ROUTE, LIMIT);
    }

    fn wait_copied(&self) {
        wait_for("the copy", LIMIT, || {
            self.proxy.route(ROUTE)["copy"]["state"] == "done"
        });
    }

    /// Tables, columns and rows, as each side has them.
    fn assert_equal(&self) {
        let database = &self.database;
        let columns = format!(
            "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = '{database}' ORDER BY TABLE_NAME, ORDINAL_POSITION"
        );
        let [source, target] = [self.source, self.target].map(|s| s.query(&columns));
        assert_eq!(source, target, "{}", self.proxy.log());
        let mut tables: Vec<String> = source.iter().filter_map(|r| r[0].clone()).collect();
        tables.dedup();
        for table in tables {
            let sql = format!("SELECT * FROM {database}.{table} ORDER BY id");
            let [source, target] = [self.source, self.target].map(|s| s.query(&sql));
            let mut pairs = source.iter().zip(&target);
            let differing = pairs.find(|(s, t)| s != t);
            assert!(
                source.len() == target.len() && differing.is_none(),
                "{table}: {} and {} rows, {differing:?}\n{}",
                source.len(),
                target.len(),
                self.proxy.log()
            );
        }
    }
}

/// Writes rows of all kinds: mirrored inline, deferred, whole transactions.
async fn writer(conn: &mut Conn, number: u32, stop: &AtomicBool, written: &AtomicU64) {
    let mut n = number;
    while !stop.load(Ordering::Relaxed) {
        n += CLIENTS;
        let id = n % 300 + 1;
        let statements = [
            format!("UPDATE rows1 SET v = v + 1 WHERE id = {id}"),
            format!("UPDATE rows1 SET v = v + 1 WHERE id > {id} ORDER BY id LIMIT 2"),
            "INSERT INTO rows1 (v) VALUES (1), (2)".to_string(),
            "BEGIN".to_string(),
            format!("UPDATE rows2 SET v = v + 1 WHERE id = {id}"),
            format!("DELETE FROM rows1 WHERE id > 300 AND id % 7 = {}", n % 7),
            "COMMIT".to_string(),
            format!("UPDATE keyed SET v = v + 1 WHERE id = {}", n % 3 + 1),
        ];
        for sql in statements {
            match conn.query_drop(&sql).await {
                Ok(()) => drop(written.fetch_add(1, Ordering::Relaxed)),
                Err(mysql_async::Error::Server(e)) if EXPECTED.contains(&e.code) => {}
                // After the tables were exchanged.
                Err(mysql_async::Error::Server(e)) if e.code == 1054 && sql.contains("keyed") => {}
                Err(e) => panic!("{sql}: {e}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Runs `work` beside writers. The follower must not be seen stopped meanwhile.
fn beside_writers(stage: &Stage, work: impl FnOnce()) {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                block_on(async {
                    let mut conn = stage.proxy.conn(Some(&stage.database)).await;
                    writer(&mut conn, number, stop, written).await;
                });
            });
        }
        let watch = scope.spawn(|| {
            let mut seen = None;
            while !stop.load(Ordering::Relaxed) {
                let follow = stage.follow();
                if follow["state"] == "stopped" {
                    seen.get_or_insert(follow);
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            seen
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let stopped = watch.join().unwrap();
        if let Err(panic) = done {
            println!("{}", stage.proxy.log());
            std::panic::resume_unwind(panic);
        }
        assert_eq!(stopped, None, "{}", stage.proxy.log());
    });
    assert!(written.load(Ordering::Relaxed) > 50);
}

fn change(stage: &Stage, pause: Duration) {
    block_on(async {
        let mut conn = stage.proxy.conn(Some(&stage.database)).await;
        for sql in CHANGES {
            run(&mut conn, sql).await;
            tokio::time::sleep(pause).await;
        }
    });
}

fn undo(stage: &Stage) {
    block_on(async {
        let mut conn = stage.proxy.conn(Some(&stage.database)).await;
        for sql in [
            "DROP TABLE by_select, like2",
            "RENAME TABLE keyed TO x, gone TO keyed, x TO gone",
            "DROP TABLE gone",
            "CREATE TABLE gone (id INT PRIMARY KEY, n INT)",
            "ALTER TABLE keyed DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
            "ALTER TABLE rows1 DROP COLUMN made, DROP COLUMN b, DROP INDEX by_v, MODIFY v INT",
            "ALTER TABLE rows2 CHANGE remark note VARCHAR(60)",
        ] {
            run(&mut conn, sql).await;
        }
    });
}

/// One side active, the other following: the application's migrations reach it
/// in both directions, and the route goes on without `--force`.
fn applied(families: [Family; 2]) {
    let stage = or_skip!(Stage::start(families, "app"));
    beside_writers(&stage, || {
        stage.proxy.must_advance(ROUTE, "syncing");
        // Beside the copy, and with no time between them.
        change(&stage, Duration::ZERO);
        stage.wait_copied();
        stage.wait_current();
    });
    stage.wait_current();
    // The last tables that were made are copied, too.
    stage.wait_copied();
    stage.assert_equal();
    let answer = stage.proxy.advance(ROUTE, Some("target_only"), false);
    assert!(answer.ok(), "{answer:?}\n{}", stage.proxy.log());
    stage.wait_current();
    undo(&stage);
    stage.wait_current();
    beside_writers(&stage, || {
        change(&stage, Duration::ZERO);
        stage.wait_current();
    });
    stage.wait_current();
    let answer = stage.proxy.rollback(ROUTE, Some("syncing"), false);
    assert!(answer.ok(), "{answer:?}\n{}", stage.proxy.log());
    stage.assert_equal();
}

#[test]
fn migrations_reach_the_side_that_follows_on_mariadb() {
    applied([Family::MariaDb, Family::MariaDb]);
}

#[test]
fn migrations_reach_the_side_that_follows_on_mysql() {
    applied([Family::MySql, Family::MySql]);
}

/// Both sides written: the proxy runs each on both, and the follower passes it
/// without stopping.
fn mirrored(family: Family) {
    let stage = or_skip!(Stage::start([family, family], "mir"));
    stage.proxy.must_advance(ROUTE, "syncing");
    stage.wait_copied();
    stage.wait_current();
    stage.proxy.must_advance(ROUTE, "source_first");
    stage.wait_current();
    beside_writers(&stage, || {
        change(&stage, Duration::from_millis(10));
        undo(&stage);
        change(&stage, Duration::ZERO);
        stage.wait_current();
    });
    stage.wait_current();
    let route = stage.proxy.route(ROUTE);
    assert_eq!(route["mirror"]["suspended"], false, "{route}");
    stage.assert_equal();
}

#[test]
fn a_follower_passes_ddl_on_both_sides() {
    mirrored(Family::MariaDb);
    mirrored(Family::MySql);
}

/// DDL past the proxy while both sides are written: the follower stops and says
/// what it met. It goes on by itself where definitions show that the other side
/// has had it, else on the operator's word.
#[test]
fn ddl_past_the_proxy_stops_and_says() {
    for family in Family::BOTH {
        let stage = or_skip!(Stage::start([family, family], "past"));
        let database = &stage.database;
        stage.proxy.must_advance(ROUTE, "syncing");
        stage.wait_copied();
        stage.wait_current();
        stage.proxy.must_advance(ROUTE, "source_first");
        stage.wait_current();
        let stopped = |sql: &str, verb: &str| {
            stage.source.exec(sql);
            let mut detail = String::new();
            wait_for("the follower to stop", LIMIT, || {
                let follow = stage.follow();
                detail = follow["detail"].to_string();
                follow["state"] == "stopped"
            });
            for word in [verb, database, "lockstep resume fol"] {
                assert!(detail.contains(word), "{word}: {detail}");
            }
            let refused = stage.proxy.advance(ROUTE, None, false);
            assert_eq!(refused.status, 409, "{refused:?}");
        };
        let alter = format!("ALTER TABLE {database}.rows2 ADD COLUMN past INT");
        stopped(&alter, "alter_table");
        stage.target.exec(&alter);
        stage.wait_current();
        let truncate = format!("TRUNCATE TABLE {database}.keyed");
        stopped(&truncate, "truncate");
        stage.target.exec(&truncate);
        // Nothing shows it.
        std::thread::sleep(Duration::from_secs(3));
        // It may just be looking again.
        wait_for("the follower to be stopped", LIMIT, || {
            stage.follow()["state"] == "stopped"
        });
        let resumed = stage.proxy.post(
            &format!("/v1/routes/{ROUTE}/resume"),
            &serde_json::json!({}),
        );
        assert!(resumed.ok(), "{resumed:?}");
        stage.wait_current();
        stage.assert_equal();
    }
}
