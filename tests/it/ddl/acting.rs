//! Triggers and events act on the active side, and on that side only, wherever
//! the route goes and however often.

use super::{known, run};
use crate::or_skip;
use crate::support::proc::{block_on, is_over, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use mysql_async::prelude::Queryable;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUTE: &str = "act";
const LIMIT: Duration = Duration::from_secs(60);

struct Stage {
    source: &'static Server,
    target: &'static Server,
    proxy: Proxy,
    database: String,
}

fn stage(families: [Family; 2]) -> Result<Stage, crate::support::Missing> {
    let second = usize::from(families[0] == families[1]);
    let source = servers::shared(families[0], 0)?;
    let target = servers::shared(families[1], second)?;
    let database = format!("ddl_act_{}{}", families[0].name(), families[1].name());
    for server in [source, target] {
        server.exec(&format!(
            "DROP DATABASE IF EXISTS {database}; SET GLOBAL event_scheduler = ON; \
             SET GLOBAL log_bin_trust_function_creators = ON; \
             GRANT ALL PRIVILEGES ON `{database}`.* TO '{}'@'%'",
            servers::APP.0
        ));
    }
    source.exec(&format!(
        "CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci; \
         USE {database}; \
         CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, v INT, sum INT); \
         CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, o INT, v INT); \
         CREATE TABLE ticks (id INT AUTO_INCREMENT PRIMARY KEY, server INT); \
         CREATE TRIGGER doubled BEFORE INSERT ON orders FOR EACH ROW SET NEW.sum = NEW.v * 2; \
         CREATE TRIGGER raised BEFORE UPDATE ON orders FOR EACH ROW SET NEW.sum = OLD.sum + 1; \
         CREATE TRIGGER logged AFTER UPDATE ON orders FOR EACH ROW \
         INSERT INTO log (o, v) VALUES (NEW.id, NEW.v); \
         CREATE EVENT tick ON SCHEDULE EVERY 1 SECOND DO \
         INSERT INTO ticks (server) VALUES (@@server_id); \
         INSERT INTO orders (v) VALUES (1), (2), (3), (4), (5)"
    ));
    let mut options = ProxyOptions::route(ROUTE, &[&format!("{database}.*")]);
    options.extra_yaml = crate::order::USERS.to_owned();
    let proxy = Proxy::start(source, target, options);
    known(&proxy, &database);
    Ok(Stage {
        source,
        target,
        proxy,
        database,
    })
}

impl Stage {
    fn acting(&self, server: &Server) -> Vec<String> {
        let database = &self.database;
        let sql = format!(
            "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS \
             WHERE TRIGGER_SCHEMA = '{database}' \
             UNION SELECT EVENT_NAME FROM information_schema.EVENTS \
             WHERE EVENT_SCHEMA = '{database}' AND STATUS = 'ENABLED' ORDER BY 1"
        );
        server.query(&sql).into_iter().flatten().flatten().collect()
    }

    fn wait_current(&self) {
        self.proxy.wait_followed(ROUTE, LIMIT);
    }

    /// Goes on and sees who acts.
    fn step(&self, verb: &str, to: &str, force: bool, all: &[&str]) {
        let answer = match verb {
            "advance" => self.proxy.advance(ROUTE, Some(to), force),
            _ => self.proxy.rollback(ROUTE, Some(to), force),
        };
        assert!(
            answer.ok(),
            "{verb} to {to}: {answer:?}\n{}",
            self.proxy.log()
        );
        if to != "done" && to != "source_only" {
            self.wait_current();
        }
        let (active, other) = match to {
            "target_first" | "target_only" | "done" => (self.target, self.source),
            _ => (self.source, self.target),
        };
        assert_eq!(self.acting(active), all, "{to}\n{}", self.proxy.log());
        assert_eq!(self.acting(other), [""; 0], "{to}\n{}", self.proxy.log());
        std::thread::sleep(Duration::from_millis(300));
    }

    fn assert_equal(&self) {
        for table in ["orders", "log", "ticks"] {
            let sql = format!("SELECT * FROM {}.{table} ORDER BY id", self.database);
            // An event writes every second, and is followed a moment later.
            let both = || [self.source, self.target].map(|s| s.query(&sql));
            let [mut source, mut target] = both();
            let began = Instant::now();
            while source != target && !is_over(began, LIMIT) {
                std::thread::sleep(Duration::from_millis(50));
                [source, target] = both();
            }
            assert_eq!(source, target, "{table}\n{}", self.proxy.log());
            assert!(!source.is_empty(), "{table}");
        }
    }
}

async fn write(stage: &Stage, stop: &AtomicBool) {
    let mut conn = stage.proxy.conn(Some(&stage.database)).await;
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let update = format!("UPDATE orders SET v = v + 1 WHERE id = {}", n % 5 + 1);
        for sql in [&update[..], "INSERT INTO orders (v) VALUES (7)"] {
            if let Err(e) = conn.query_drop(sql).await {
                panic!("{sql}: {e}\n{}", stage.proxy.log());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The effects that triggers have, once each.
fn assert_once(stage: &Stage) {
    let database = &stage.database;
    let sql = format!(
        "SELECT COUNT(*) FROM {database}.orders o WHERE o.id > 5 AND o.sum <> 14 OR o.id <= 5 \
         AND (o.sum <> o.id * 2 + o.v - o.id OR \
         o.v - o.id <> (SELECT COUNT(*) FROM {database}.log l WHERE l.o = o.id))"
    );
    assert_eq!(stage.source.one(&sql), "0", "{}", stage.proxy.log());
}

fn walk(families: [Family; 2]) {
    let stage = or_skip!(stage(families));
    let all = ["doubled", "logged", "raised", "tick"];
    let more = ["also", "doubled", "logged", "raised", "tick", "tock"];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(write(&stage, &stop)));
        let steps = || {
            stage.step("advance", "syncing", false, &all);
            wait_for("the copy", LIMIT, || {
                stage.proxy.route(ROUTE)["copy"]["state"] == "done"
            });
            stage.step("advance", "source_first", false, &all);
            stage.step("advance", "target_first", true, &all);
            // Made, and one dropped, on the side that is active now.
            block_on(async {
                let mut conn = stage.proxy.conn(Some(&stage.database)).await;
                run(
                    &mut conn,
                    "CREATE TRIGGER also AFTER DELETE ON orders FOR EACH ROW \
                     INSERT INTO log (o, v) VALUES (OLD.id, -1)",
                )
                .await;
                run(
                    &mut conn,
                    "CREATE TRIGGER brief AFTER DELETE ON log FOR EACH ROW SET @x = 1",
                )
                .await;
                run(&mut conn, "DROP TRIGGER brief").await;
            });
            stage.target.exec(&format!(
                "CREATE EVENT {}.tock ON SCHEDULE EVERY 1 YEAR DO SET @x = 1",
                stage.database
            ));
            stage.wait_current();
            stage.step("advance", "target_only", false, &more);
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(steps));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    stop.store(false, Ordering::Relaxed);
    // A process that dies in the middle of a flip: the side that is not active
    // has a trigger when the next one begins.
    stage.proxy.kill9();
    stage.source.exec(&format!(
        "CREATE TRIGGER {0}.raised BEFORE UPDATE ON {0}.orders FOR EACH ROW \
         SET NEW.sum = OLD.sum + 1",
        stage.database
    ));
    stage.proxy.restart();
    known(&stage.proxy, &stage.database);
    stage.wait_current();
    assert_eq!(stage.acting(stage.source), [""; 0]);
    assert_eq!(stage.acting(stage.target), more);
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(write(&stage, &stop)));
        let steps = || {
            stage.step("rollback", "target_first", false, &more);
            stage.step("rollback", "source_first", true, &more);
            stage.step("rollback", "syncing", false, &more);
            stage.step("advance", "target_only", false, &more);
            stage.step("rollback", "syncing", false, &more);
            stage.step("advance", "source_first", false, &more);
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(steps));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    // Nothing may tick while rows are compared.
    stage
        .source
        .exec(&format!("ALTER EVENT {}.tick DISABLE", stage.database));
    std::thread::sleep(Duration::from_millis(1200));
    stage.wait_current();
    stage.assert_equal();
    assert_once(&stage);
    let still = ["also", "doubled", "logged", "raised", "tock"];
    stage.step("advance", "target_first", true, &still);
    stage.step("advance", "target_only", false, &still);
    stage.step("advance", "done", false, &still);
}

#[test]
fn triggers_and_events_go_with_the_route_on_mariadb() {
    walk([Family::MariaDb, Family::MariaDb]);
}

#[test]
fn triggers_and_events_go_with_the_route_on_mysql() {
    walk([Family::MySql, Family::MySql]);
}

/// The edge has stopped the events of the active side when it meets a stranger's
/// transaction, and is refused: they go on.
#[test]
fn a_refused_flip_lets_events_go_on() {
    let stage = or_skip!(stage([Family::MariaDb, Family::MySql]));
    let all = ["doubled", "logged", "raised", "tick"];
    stage.step("advance", "syncing", false, &all);
    wait_for("the copy", LIMIT, || {
        stage.proxy.route(ROUTE)["copy"]["state"] == "done"
    });
    stage.step("advance", "source_first", false, &all);
    let path = format!("/v1/routes/{ROUTE}/compare");
    let done = stage
        .proxy
        .post(&path, &serde_json::json!({ "wait": true }));
    assert!(done.ok(), "{done:?}\n{}", stage.proxy.log());
    block_on(async {
        let mut stranger = stage.source.conn().await;
        let update = format!("UPDATE {}.orders SET v = v WHERE id = 1", stage.database);
        for sql in ["BEGIN", &update] {
            stranger.query_drop(sql).await.expect("a transaction");
        }
        let to = serde_json::json!({ "to": "target_first" });
        let refused = stage
            .proxy
            .post(&format!("/v1/routes/{ROUTE}/advance"), &to);
        assert!(!refused.ok(), "{refused:?}");
        assert!(
            stage.proxy.log().contains("holding back"),
            "nothing was stopped: {refused:?}\n{}",
            stage.proxy.log()
        );
        stranger.query_drop("ROLLBACK").await.expect("ROLLBACK");
        let _ = stranger.disconnect().await;
    });
    wait_for("events that go on", LIMIT, || {
        stage.acting(stage.source) == all && stage.acting(stage.target).is_empty()
    });
    stage.wait_current();
    let answer = stage.proxy.rollback(ROUTE, Some("source_only"), true);
    assert!(answer.ok(), "{answer:?}");
}
