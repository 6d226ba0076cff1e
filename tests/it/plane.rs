//! The row plane as operators drive it: a route goes from `source_only` to
//! `target_only` and back under load, without `--force` where its conditions
//! hold, and no row is different at the end.

use crate::or_skip;
use crate::support::proc::wait_for;
use crate::support::{Family, Proxy, ProxyOptions, Server, compare, servers};
use crate::workload::{Isolation, Load, Mix, Tables};
use serde_json::Value;
use std::time::Duration;

const COPIED: Duration = Duration::from_secs(120);

/// The follower is at work and close behind.
fn wait_current(proxy: &Proxy, route: &str) {
    proxy.wait_followed(route, COPIED);
}

fn copy_state(proxy: &Proxy, route: &str) -> Value {
    proxy.route(route)["copy"]["state"].clone()
}

fn step(proxy: &Proxy, verb: &str, to: &str, force: bool) {
    let answer = match verb {
        "advance" => proxy.advance("r", Some(to), force),
        _ => proxy.rollback("r", Some(to), force),
    };
    assert!(answer.ok(), "{verb} to {to}: {answer:?}\n{}", proxy.log());
    assert_eq!(proxy.phase("r"), to);
}

struct Walk<'a> {
    source: &'a Server,
    target: &'a Server,
    tables: Tables,
    big: String,
}

impl Walk<'_> {
    fn prepare(&self) {
        self.tables.create(self.source);
        let (big, swap) = (&self.big, 30_000);
        self.source.exec(&format!(
            "DROP TABLE IF EXISTS {big}; CREATE TABLE {big} (id INT AUTO_INCREMENT PRIMARY KEY, n INT, t VARCHAR(200), KEY (n))"
        ));
        self.source.exec(&format!(
            "INSERT INTO {big} (n, t) WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) \
             SELECT s.n, REPEAT('x', r.n) FROM s, s r WHERE r.n <= {}",
            swap / 900
        ));
    }

    fn all(&self) -> Vec<&str> {
        let mut all = self.tables.all();
        all.push(&self.big);
        all
    }
}

/// Every edge there and back while clients write.
fn walk(from: (Family, usize), to: (Family, usize), prefix: &str) {
    let source = or_skip!(servers::shared(from.0, from.1));
    let target = or_skip!(servers::shared(to.0, to.1));
    let walk = Walk {
        source,
        target,
        tables: Tables::new(prefix, Isolation::RepeatableRead),
        big: format!("t.{prefix}s_big"),
    };
    walk.prepare();
    for table in walk.all() {
        target.exec(&format!("DROP TABLE IF EXISTS {table}"));
    }
    let mut options = ProxyOptions::route("r", &[&format!("t.{prefix}*")]);
    // Where the families ask for passwords in ways that do not fit.
    options.extra_yaml = crate::order::USERS.to_string();
    let proxy = Proxy::start(source, target, options);
    let mix = Mix {
        hot: 4,
        others: true,
        ..Mix::NONE
    };
    let load = Load::start(&proxy.opts(Some("t")), &walk.tables, mix);
    step(&proxy, "advance", "syncing", false);
    wait_for("the copy", COPIED, || copy_state(&proxy, "r") == "done");
    let pause = || std::thread::sleep(Duration::from_millis(700));
    step(&proxy, "advance", "source_first", false);
    pause();
    wait_current(&proxy, "r");
    step(&proxy, "advance", "target_first", true);
    pause();
    wait_current(&proxy, "r");
    step(&proxy, "advance", "target_only", false);
    pause();
    wait_current(&proxy, "r");
    step(&proxy, "rollback", "target_first", false);
    pause();
    step(&proxy, "rollback", "source_first", true);
    pause();
    step(&proxy, "rollback", "syncing", false);
    pause();
    wait_current(&proxy, "r");
    step(&proxy, "advance", "target_only", false);
    pause();
    wait_current(&proxy, "r");
    step(&proxy, "rollback", "syncing", false);
    let report = load.stop();
    println!(
        "{} to {}: {} statements, longest {:?}, own errors {:?}",
        from.0, to.0, report.statements, report.longest, report.expected
    );
    report.assert_no_errors();
    step(&proxy, "advance", "source_first", false);
    compare::assert_equal(walk.source, walk.target, &walk.all());
    step(&proxy, "rollback", "source_only", false);
    assert!(proxy.route("r")["follow"].is_null());
}

#[test]
fn mariadb_walks_there_and_back() {
    walk((Family::MariaDb, 0), (Family::MariaDb, 1), "plm");
}

#[test]
fn mysql_walks_there_and_back() {
    walk((Family::MySql, 0), (Family::MySql, 1), "ply");
}

#[test]
fn mariadb_to_mysql_walks_there_and_back() {
    walk((Family::MariaDb, 0), (Family::MySql, 1), "plx");
}
