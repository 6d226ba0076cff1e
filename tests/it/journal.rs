//! What the mirror missed is healed, and the journal of it is empty then.

mod own;

use crate::or_skip;
use crate::order::USERS;
use crate::support::proc::{block_on, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions, compare};
use crate::workload::{Isolation, Load, Mix, Tables};
use mysql_async::prelude::Queryable;
use std::io::Write;
use std::time::{Duration, Instant};

/// "Equal within a minute."
const HEALED: Duration = Duration::from_secs(60);
const SUSPENDED: Duration = Duration::from_secs(10);

/// Eight clients, on rows that they fight over and on rows of their own.
const MIX: Mix = Mix {
    hot: 5,
    inserts: 3,
    ..Mix::NONE
};

struct Scene {
    source: Server,
    target: Server,
    proxy: Proxy,
    tables: Tables,
}

impl Scene {
    fn start(family: Family) -> Option<Scene> {
        // Written at each commit, though not synced: killed, a server loses
        // nothing that it has told us.
        let written = || ServerOptions::args(["--innodb-flush-log-at-trx-commit=2"]);
        let started = Server::start(family, written())
            .and_then(|source| Ok((source, Server::start(family, written())?)));
        let (source, target) = match started {
            Ok(pair) => pair,
            Err(missing) => {
                crate::support::skip(&missing);
                return None;
            }
        };
        let tables = Tables::new("jr", Isolation::RepeatableRead);
        for server in [&source, &target] {
            tables.create(server);
            server.exec("CREATE TABLE t.jr_own (id INT AUTO_INCREMENT PRIMARY KEY, v INT)");
        }
        let mut options = ProxyOptions::route("r", &["t.jr*"]);
        options.extra_yaml = USERS.to_owned();
        let proxy = Proxy::start(&source, &target, options);
        proxy.must_advance("r", "source_first");
        assert!(proxy.reads("r", 50).ok());
        Some(Scene {
            source,
            target,
            proxy,
            tables,
        })
    }

    fn suspended(&self) -> bool {
        self.proxy.route("r")["mirror"]["suspended"] == true
    }

    fn lines(&self) -> u64 {
        let lines = self.proxy.route("r")["journal"]["lines"].as_u64();
        lines.expect("journal lines")
    }

    /// Lines that only the active side gets.
    fn deferred(&self, rows: u32) {
        let mut conn = block_on(self.proxy.conn(Some("t")));
        for v in 0..rows {
            let sql = format!("INSERT INTO jr_own (v) SELECT {v}");
            block_on(conn.query_drop(sql)).expect("a deferred write");
        }
    }

    fn assert_healed(&self) -> usize {
        wait_for("an empty journal", HEALED, || self.lines() == 0);
        wait_for("mirroring", HEALED, || !self.suspended());
        wait_for("a metric that says so", HEALED, || {
            let lines = "lockstep_journal_lines{route=\"r\"}";
            self.proxy.metric(lines) == Some(0.0)
        });
        let mut all = self.tables.all();
        all.push("t.jr_own");
        compare::assert_equal(&self.source, &self.target, &all)
    }

    /// The mirror is away for a while under load.
    fn mirror_away(&self, time: Duration) {
        let family = self.source.family();
        let load = Load::start(&self.proxy.opts(Some("t")), &self.tables, MIX);
        std::thread::sleep(Duration::from_millis(500));
        self.target.kill9();
        let killed = Instant::now();
        wait_for("the circuit to open", SUSPENDED, || self.suspended());
        self.deferred(10);
        std::thread::sleep(time.saturating_sub(killed.elapsed()));
        let lines = self.lines();
        assert!(lines > 0, "{family}: the journal says nothing");
        self.target.restart();
        let back = Instant::now();
        wait_for("the circuit to close", HEALED, || !self.suspended());
        let closed = back.elapsed();
        std::thread::sleep(Duration::from_millis(500));
        let report = load.stop();
        report.assert_no_errors();
        let rows = self.assert_healed();
        println!(
            "{family}: mirror away for {time:?}, {} statements, no error, longest {:?}; {lines} lines, circuit closed \
             {closed:?} after it was back, {rows} rows equal {:?} after",
            report.statements,
            report.longest,
            back.elapsed()
        );
    }

    /// The proxy dies with lines in its journal, the mirror being away.
    fn proxy_dies(&self) {
        self.target.kill9();
        self.deferred(10);
        wait_for("lines", SUSPENDED, || self.lines() > 0);
        self.proxy.kill9();
        self.target.restart();
        self.proxy.restart();
        let totals = self.proxy.status()["journal"]["totals"].to_string();
        assert!(totals.contains("unclean"), "{totals}");
        self.assert_healed();
    }

    /// A follower that stands still keeps the route suspended, and says so.
    fn stands_still(&self) {
        assert!(self.proxy.cli(&["pause", "r"]).status.success());
        self.target.kill9();
        wait_for("the circuit to open", SUSPENDED, || self.suspended());
        self.target.restart();
        let said = || self.proxy.route("r")["mirror"]["suspended_reason"].to_string();
        wait_for("a reason", HEALED, || {
            said().contains("paused by an operator")
        });
        std::thread::sleep(Duration::from_millis(1500));
        assert!(self.suspended());
        assert!(self.proxy.cli(&["resume", "r"]).status.success());
        self.assert_healed();
    }

    /// What no follower can have read is not struck off by one.
    fn those_of_before(&self) {
        self.proxy.stop();
        let log = self.proxy.state_dir().join("journal.log");
        let mut file = std::fs::OpenOptions::new().append(true).open(log);
        let file = file.as_mut().expect("journal");
        for line in [
            r#"{"at":1,"route":"r","kind":"failed","reason":"deadline","since":"x.000001:4","side":"source"}"#,
            r#"{"at":1,"route":"r","kind":"failed","reason":"deadline","since":null}"#,
            r#"{"mark":"closed"}"#,
        ] {
            writeln!(file, "{line}").expect("written");
        }
        self.proxy.restart();
        self.deferred(10);
        wait_for("what was deferred to be struck off", HEALED, || {
            self.lines() == 2
        });
        let detail = self.proxy.route("r")["journal"]["detail"].to_string();
        assert!(detail.contains("compare"), "{detail}");
        let refused = self.proxy.advance("r", Some("target_first"), false);
        assert!(
            !refused.ok() && refused.body.contains("journal_healed"),
            "{refused:?}"
        );
        let compared = self.proxy.cli(&["compare", "r", "--wait"]);
        assert!(compared.status.success(), "{compared:?}");
        wait_for("an empty journal", HEALED, || self.lines() == 0);
        assert!(self.proxy.route("r")["journal"]["detail"].is_null());
        let taken = self.proxy.advance("r", Some("target_first"), false);
        assert!(taken.ok(), "{taken:?}");
    }
}

#[test]
fn mariadb_heals_what_its_mirror_missed() {
    let scene = or_skip!(Scene::start(Family::MariaDb).ok_or("no servers"));
    scene.mirror_away(Duration::from_secs(5));
    scene.proxy_dies();
    scene.those_of_before();
}

#[test]
fn mysql_heals_what_its_mirror_missed() {
    let scene = or_skip!(Scene::start(Family::MySql).ok_or("no servers"));
    scene.mirror_away(Duration::from_secs(5));
    scene.proxy_dies();
    scene.stands_still();
}

#[test]
fn soak_mirror_away_for_a_minute() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    for family in Family::BOTH {
        let scene = or_skip!(Scene::start(family).ok_or("no servers"));
        scene.mirror_away(Duration::from_secs(60));
        scene.proxy_dies();
    }
}
