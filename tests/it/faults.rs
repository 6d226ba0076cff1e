//! The mirror never hurts the application (DESIGN §2, promise 2): killed,
//! frozen, slow, refusing, read-only or without the table.
//!
//! For each fault: no client error; no statement waits longer than the deadline
//! and a little, on a row that every client wants too (protocol-review H3: with
//! a deadline for each waiter the waits add up); every write that the mirror
//! lacks is counted and journalled; and mirroring resumes without help.

use crate::order::{Counts, USERS, counts};
use crate::support::proc::{block_on, wait_for};
use crate::support::relay::{Mode, Relay};
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions, compare, servers};
use crate::workload::{self, Isolation, Load, Mix, Report, Tables};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::time::{Duration, Instant};

/// The default deadline of a mirror, and what a client may wait beyond it.
const DEADLINE: Duration = Duration::from_millis(200);
const BEYOND: Duration = Duration::from_millis(50);
/// Noise is not believed beyond this: the bound would mean nothing.
const NOISE_MAX: Duration = Duration::from_millis(800);
/// A probe a second, a new leg, a busy machine.
const RESUME_LIMIT: Duration = Duration::from_secs(20);

const MIX: Mix = Mix {
    hot: 2,
    one_row: 12,
    inserts: 3,
    ..Mix::NONE
};

/// Runs beside it, to see what the machine does to statements meanwhile.
const UNROUTED: Mix = Mix {
    one_row: 6,
    inserts: 2,
    ..Mix::NONE
};

struct Scene {
    source: &'static Server,
    target: Server,
    relay: Relay,
    proxy: Proxy,
    tables: Tables,
    /// Tables of no route.
    unrouted: Tables,
    /// What a statement waits here at most when nothing is wrong.
    noise: Duration,
}

impl Scene {
    fn start(family: Family) -> Option<Scene> {
        // Written at each commit, though not synced: killed, the server loses
        // nothing that it has told us.
        let written = ServerOptions::args(["--innodb-flush-log-at-trx-commit=2"]);
        let started = servers::shared(family, 0)
            .and_then(|source| Ok((source, Server::start(family, written)?)));
        let (source, target) = match started {
            Ok(pair) => pair,
            Err(missing) => {
                crate::support::skip(&missing);
                return None;
            }
        };
        let prefix = format!("fault{}", family.name());
        let tables = Tables::new(&prefix, Isolation::RepeatableRead);
        tables.create(source);
        tables.create(&target);
        let unrouted = Tables::new(&format!("calm{}", family.name()), Isolation::RepeatableRead);
        unrouted.create(source);
        let relay = Relay::start(&target.address());
        let mut options = ProxyOptions::route("r", &[&format!("t.{prefix}*")]);
        options.target_address = Some(relay.address());
        options.extra_yaml = USERS.to_string();
        let proxy = Proxy::start(source, &target, options);
        proxy.must_advance("r", "source_first");
        let mut scene = Scene {
            source,
            target,
            relay,
            proxy,
            tables,
            unrouted,
            noise: Duration::ZERO,
        };
        let quiet = workload::run(
            &scene.proxy.opts(Some("t")),
            &scene.tables,
            MIX,
            Duration::from_millis(1500),
        );
        quiet.assert_no_errors();
        scene.noise = quiet.longest;
        println!(
            "{family}: without a fault the longest statement takes {:?}",
            quiet.longest
        );
        // On a busy machine the deadline may pass without a fault.
        let counted = counts(&scene.proxy, "r");
        if counted.failed + counted.deferred == 0 {
            compare::assert_equal(scene.source, &scene.target, &scene.tables.all());
        }
        Some(scene)
    }

    fn suspended(&self) -> bool {
        self.proxy.route("r")["mirror"]["suspended"] == true
    }

    /// Both sides from scratch; the proxy's counters stay.
    fn reset(&self) {
        for server in [self.source, &self.target] {
            let (hot, ins) = (&self.tables.hot, &self.tables.ins);
            server.exec(&format!("DELETE FROM {ins};\nUPDATE {hot} SET v=id"));
        }
    }

    /// Load before, during and after the fault.
    fn fault(&self, name: &str, time: Duration, begin: impl Fn(), end: impl Fn()) {
        wait_for("mirroring before the fault", RESUME_LIMIT, || {
            !self.suspended()
        });
        self.reset();
        let before = counts(&self.proxy, "r");
        let load = Load::start(&self.proxy.opts(Some("t")), &self.tables, MIX);
        // The same on tables of no route: what it waits is not the mirror's doing.
        let unrouted = Load::start(&self.proxy.opts(Some("t")), &self.unrouted, UNROUTED);
        let mut old = block_on(self.proxy.conn(Some("t")));
        self.insert(&mut old);
        std::thread::sleep(Duration::from_millis(400));
        begin();
        let began = Instant::now();
        let new = self.new_session();
        while began.elapsed() < time {
            std::thread::sleep(Duration::from_millis(50));
        }
        let suspended = self.suspended();
        // The healer empties it afterwards.
        let journal = self.journal();
        end();
        wait_for("mirroring to resume", RESUME_LIMIT, || !self.suspended());
        let resumed = began.elapsed();
        let alive = self.target.one("SELECT 1");
        assert_eq!(alive, "1");
        self.arrives_again(&mut old, "a session that saw the fault");
        self.arrives_again(&mut block_on(self.proxy.conn(Some("t"))), "a new session");
        let report = load.stop();
        let noise = unrouted.stop().longest.max(self.noise).min(NOISE_MAX);
        let after = counts(&self.proxy, "r");
        println!(
            "{}, {name}: longest statement {:?} (noise {noise:?}), {} episodes, first write of a new session {new:?}, \
             suspended {suspended}, resumed after {resumed:?}; {} statements, {before:?} to {after:?}",
            self.source.family(),
            report.longest,
            report.episodes(),
            report.statements
        );
        self.judge(name, &report, noise, new, [before, after]);
        assert!(
            names_writes(&journal),
            "{name}: nothing in the journal:\n{journal}"
        );
    }

    fn journal(&self) -> String {
        let journal = std::fs::read_to_string(self.proxy.state_dir().join("journal.log"));
        journal.expect("journal.log")
    }

    fn judge(
        &self,
        name: &str,
        report: &Report,
        noise: Duration,
        new: Duration,
        [before, after]: [Counts; 2],
    ) {
        report.assert_no_errors();
        let bound = DEADLINE + BEYOND + noise;
        assert!(
            report.longest <= bound,
            "{name}: a statement waited {:?}, more than {bound:?}\n{}",
            report.longest,
            self.proxy.log()
        );
        assert!(new <= bound, "{name}: a new session's write waited {new:?}");
        let unmirrored = after.failed + after.deferred - before.failed - before.deferred;
        let missing = missing_on(self.source, &self.target, &self.tables.ins);
        assert!(unmirrored > 0, "{name}: the fault was not felt");
        assert!(
            missing as u64 <= unmirrored,
            "{name}: the mirror lacks {missing} rows, {unmirrored} writes were counted"
        );
        let extra = missing_on(&self.target, self.source, &self.tables.ins);
        assert_eq!(extra, 0, "{name}: rows that only the mirror has");
    }

    /// Logs in during the fault and writes; how long the write took.
    fn new_session(&self) -> Duration {
        let mut conn = block_on(self.proxy.conn(Some("t")));
        let began = Instant::now();
        self.insert(&mut conn);
        began.elapsed()
    }

    /// Inserts a row; its id.
    fn insert(&self, conn: &mut Conn) -> u64 {
        let sql = format!(
            "INSERT INTO {} (client, s) VALUES (-1, 'probe')",
            self.tables.ins
        );
        block_on(conn.query_drop(sql)).expect("insert");
        conn.last_insert_id().expect("insert id")
    }

    fn arrives_again(&self, conn: &mut Conn, who: &str) {
        wait_for(
            &format!("a write of {who} on the mirror"),
            RESUME_LIMIT,
            || {
                let id = self.insert(conn);
                let sql = format!("SELECT COUNT(*) FROM {} WHERE id={id}", self.tables.ins);
                self.source.one(&sql) == "1" && self.target.one(&sql) == "1"
            },
        );
    }

    fn all(&self) {
        let second = Duration::from_secs(1);
        let (target, relay) = (&self.target, &self.relay);
        self.fault("killed", second, || target.kill9(), || target.restart());
        self.fault("frozen", 2 * second, || target.freeze(), || target.thaw());
        // Long enough to see a probe that is fooled by a slow mirror.
        let slow = Mode::Slow(Duration::from_millis(500));
        self.fault(
            "slow",
            4 * second,
            || relay.set(slow),
            || relay.set(Mode::Pass),
        );
        self.fault(
            "refusing",
            second,
            || relay.set(Mode::Refuse),
            || relay.set(Mode::Pass),
        );
        self.fault(
            "silent",
            2 * second,
            || relay.set(Mode::Silent),
            || relay.set(Mode::Pass),
        );
        let read_only = |on: u8| move || target.exec(&format!("SET GLOBAL read_only={on}"));
        self.fault("read-only", 2 * second, read_only(1), read_only(0));
        let ins = &self.tables.ins;
        self.fault(
            "without a table",
            2 * second,
            || target.exec(&format!("RENAME TABLE {ins} TO {ins}_away")),
            || target.exec(&format!("RENAME TABLE {ins}_away TO {ins}")),
        );
    }
}

/// How many ids of `table` one server has and the other lacks.
fn missing_on(of: &Server, on: &Server, table: &str) -> usize {
    let ids = |server: &Server| -> std::collections::HashSet<String> {
        let rows = server.query(&format!("SELECT id FROM {table}"));
        rows.into_iter().flatten().flatten().collect()
    };
    let there = ids(on);
    ids(of).iter().filter(|id| !there.contains(*id)).count()
}

#[test]
fn faults_of_a_mariadb_mirror_do_not_reach_the_application() {
    if let Some(scene) = Scene::start(Family::MariaDb) {
        scene.all();
    }
}

#[test]
fn faults_of_a_mysql_mirror_do_not_reach_the_application() {
    if let Some(scene) = Scene::start(Family::MySql) {
        scene.all();
    }
}

/// Reads that were sent to the mirror come back to the active side, with and
/// without writes that notice the fault first.
#[test]
fn reads_return_from_a_mirror_that_froze() {
    for family in Family::BOTH {
        let source = crate::or_skip!(servers::shared(family, 0));
        let target = crate::or_skip!(Server::start(family, ServerOptions::default()));
        for server in [source, &target] {
            server.exec(
                "DROP TABLE IF EXISTS t.frozen_a;\nCREATE TABLE t.frozen_a (id INT PRIMARY KEY, v INT);\n\
                 INSERT INTO t.frozen_a VALUES (1, 1)",
            );
        }
        let mut options = ProxyOptions::route("r", &["t.frozen_a"]);
        options.extra_yaml = USERS.to_string();
        let proxy = Proxy::start(source, &target, options);
        proxy.must_advance("r", "source_first");
        assert!(proxy.reads("r", 100).ok());
        let mut reader = block_on(proxy.conn(Some("t")));
        let mut writer = block_on(proxy.conn(Some("t")));
        let read = |conn: &mut Conn| -> Duration {
            let began = Instant::now();
            let read = conn.query_first("SELECT v FROM frozen_a WHERE id=1");
            let read = block_on(async { tokio::time::timeout(RESUME_LIMIT, read).await });
            let read = read.expect("the read came back");
            let read: Option<u32> = read.unwrap_or_else(|e| panic!("{family}: {e}"));
            assert!(read.is_some());
            began.elapsed()
        };
        let write = |conn: &mut Conn| {
            let done = block_on(conn.query_drop("UPDATE frozen_a SET v=v+1 WHERE id=1"));
            done.unwrap_or_else(|e| panic!("{family}: {e}"));
        };
        for writes in [true, false] {
            read(&mut reader);
            write(&mut writer);
            wait_for("mirroring", RESUME_LIMIT, || {
                proxy.route("r")["mirror"]["suspended"] == false
            });
            let before = read(&mut reader);
            target.freeze();
            let longest = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| read(&mut reader));
                if writes {
                    write(&mut writer);
                }
                waiting.join().expect("reader")
            });
            let after = read(&mut reader);
            target.thaw();
            println!(
                "{family}, writes {writes}: a read took {before:?}, {longest:?}, then {after:?}"
            );
            let bound = if writes {
                DEADLINE + BEYOND + NOISE_MAX
            } else {
                // The monitor looks each second, and waits two for an answer.
                Duration::from_secs(6)
            };
            assert!(longest < bound, "{family}: a read waited {longest:?}");
            assert!(
                after < NOISE_MAX,
                "{family}: the next read waited {after:?}"
            );
        }
    }
}

/// Whether a journal has a write of the route that the mirror lacks.
fn names_writes(journal: &str) -> bool {
    let mut lines = journal
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    lines.any(|l| l["route"] == "r" && (l["kind"] == "failed" || l["kind"] == "deferred"))
}
