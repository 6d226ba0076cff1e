//! Every row is written in the same order on both servers (DESIGN §5).
//!
//! The clients of [`crate::workload`] fight over rows through the proxy; then
//! the rows must be equal and, what end states cannot show, each row's changes
//! in the two binlogs must be the same list. The negative control runs the
//! same with the protocol's steps swapped, and must fail.

use crate::support::{Family, Proxy, ProxyOptions, Server, binlog_order, compare, servers};
use crate::workload::{self, Isolation, Mix, Report, Tables};
use std::time::Duration;

/// No deadline of a mirror on a busy test machine may end in a deferred write:
/// these tests are about order, `faults.rs` is about deadlines.
pub const PATIENT: &str = "limits: { mirror_deadline_ms: 20000, drain_ms: 5000, gate_ms: 10000, mirror_errors_per_min: 1000000 }";

/// On plain TCP a MySQL account's password cannot always be learned
/// (protocol-review H10, tested in `findings.rs`); here every session is to have
/// both legs.
pub const USERS: &str = "users: [{ name: app, source: { user: app, password: app-pw }, \
                         target: { user: app, password: app-pw } }]";

/// Settings for tests about order.
pub fn patient() -> String {
    format!("{PATIENT}\n{USERS}\n")
}

const STRICT: &str = "strict";
const LOOSE: &str = "loose";

const MIX: Mix = Mix {
    hot: 16,
    others: true,
    kills: true,
    ..Mix::NONE
};

const PHASES: [&str; 2] = ["source_first", "target_first"];

/// One pair of servers with a proxy and tables for each combination.
struct Pair {
    source: &'static Server,
    target: &'static Server,
    proxy: Proxy,
    prefix: String,
}

impl Pair {
    fn start(source: (Family, usize), target: (Family, usize), name: &str) -> Option<Pair> {
        let get = |(family, index)| match servers::shared(family, index) {
            Ok(server) => Some(server),
            Err(missing) => {
                crate::support::skip(&missing);
                None
            }
        };
        let (source, target) = (get(source)?, get(target)?);
        let prefix = format!("ord{name}");
        for (phase, isolation) in combinations() {
            let tables = tables(&prefix, phase, isolation);
            tables.create(source);
            tables.create(target);
        }
        let proxy = Proxy::start(source, target, options(&prefix));
        for route in [STRICT, LOOSE] {
            proxy.must_advance(route, "source_first");
        }
        Some(Pair {
            source,
            target,
            proxy,
            prefix,
        })
    }

    /// One combination; the route is in its phase already.
    fn check(&self, phase: &str, isolation: Isolation, time: Duration) {
        let tables = tables(&self.prefix, phase, isolation);
        let name = format!(
            "{} to {}, {phase}, {isolation:?}",
            self.source.family(),
            self.target.family()
        );
        let before = [STRICT, LOOSE].map(|r| counts(&self.proxy, r));
        let marks = [self.source, self.target].map(binlog_order::mark);
        let report = workload::run(&self.proxy.opts(Some("t")), &tables, MIX, time);
        let after = [STRICT, LOOSE].map(|r| counts(&self.proxy, r));
        let journalled: Vec<Counts> = after
            .iter()
            .zip(before)
            .map(|(a, b)| Counts {
                ok: a.ok - b.ok,
                failed: a.failed - b.failed,
                deferred: a.deferred - b.deferred,
            })
            .collect();
        let order = binlog_order::check(
            (self.source, &marks[0]),
            (self.target, &marks[1]),
            &tables.strict(),
        );
        describe(&name, &report, &journalled, &order);
        report.assert_no_errors();
        let (strict, loose) = (&journalled[0], &journalled[1]);
        assert_eq!(
            (strict.failed, strict.deferred),
            (0, 0),
            "{name}: writes were not mirrored\n{}\n{}",
            journal(&self.proxy),
            self.proxy.log()
        );
        compare::assert_equal(self.source, self.target, &tables.strict());
        order.assert_same(200);
        let healed = self.proxy.healed(STRICT);
        assert_eq!(healed, 0, "{name}: rows differed and were healed");
        self.check_loose(&tables, loose, &marks, &name);
    }

    /// What was deferred by design may differ, and no more than was counted.
    fn check_loose(
        &self,
        tables: &Tables,
        counted: &Counts,
        marks: &[binlog_order::Mark; 2],
        name: &str,
    ) {
        let unmirrored = counted.failed + counted.deferred;
        if unmirrored > 0 {
            let differing: usize = compare::compare(self.source, self.target, &tables.loose())
                .iter()
                .map(|d| d.different)
                .sum();
            // A transaction of these clients writes two rows at most.
            assert!(
                differing as u64 <= unmirrored * 2,
                "{name}: {differing} rows differ, {unmirrored} writes are in the journal"
            );
            return;
        }
        compare::assert_equal(self.source, self.target, &tables.loose());
        binlog_order::check(
            (self.source, &marks[0]),
            (self.target, &marks[1]),
            &tables.loose(),
        )
        .assert_same(1);
    }

    fn run(&self, time: Duration) {
        for phase in PHASES {
            for route in [STRICT, LOOSE] {
                if self.proxy.phase(route) != phase {
                    self.proxy.must_advance(route, phase);
                }
            }
            for isolation in Isolation::BOTH {
                self.check(phase, isolation, time);
            }
        }
    }
}

fn combinations() -> impl Iterator<Item = (&'static str, Isolation)> {
    PHASES
        .into_iter()
        .flat_map(|p| Isolation::BOTH.into_iter().map(move |i| (p, i)))
}

fn tables(prefix: &str, phase: &str, isolation: Isolation) -> Tables {
    let phase = &phase[..1];
    let level = match isolation {
        Isolation::RepeatableRead => "rr",
        Isolation::ReadCommitted => "rc",
    };
    Tables::new(&format!("{prefix}_{phase}{level}"), isolation)
}

fn options(prefix: &str) -> ProxyOptions {
    let globs = |group: &str| PHASES.map(|p| format!("t.{prefix}_{}r?{group}_*", &p[..1]));
    let (strict, loose) = (globs("s"), globs("l"));
    let strict: Vec<&str> = strict.iter().map(String::as_str).collect();
    let loose: Vec<&str> = loose.iter().map(String::as_str).collect();
    let mut options = ProxyOptions::route(STRICT, &strict).and_route(LOOSE, &loose);
    options.extra_yaml = patient();
    options
}

/// The mirror's counters of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub ok: u64,
    pub failed: u64,
    pub deferred: u64,
}

pub fn counts(proxy: &Proxy, route: &str) -> Counts {
    let mirror = &proxy.route(route)["mirror"];
    let number = |name: &str| mirror[name].as_u64().unwrap_or_default();
    Counts {
        ok: number("writes_ok"),
        failed: number("writes_failed"),
        deferred: number("writes_deferred"),
    }
}

/// The journal of unmirrored writes: what was noted since the proxy started
/// (healed lines are struck off), and its last lines.
pub fn journal(proxy: &Proxy) -> String {
    let noted = proxy.status()["journal"]["totals"].to_string();
    let lines = crate::support::proc::tail(&proxy.state_dir().join("journal.log"), 20);
    format!("{noted}\n{lines}")
}

fn describe(name: &str, report: &Report, journalled: &[Counts], order: &binlog_order::Order) {
    println!(
        "{name}: {} statements, longest {:?}, the active's own errors {:?}; \
         {:?} row changes, {} rows, {} in another order; mirrored {:?}",
        report.statements,
        report.longest,
        report.expected,
        order.changes,
        order.rows,
        order.differing,
        journalled
    );
}

/// How long each combination writes: 20 s in all, ten minutes in a soak.
fn time() -> Duration {
    match std::env::var_os("LOCKSTEP_SOAK") {
        Some(_) => Duration::from_secs(50),
        None => Duration::from_millis(1_600),
    }
}

fn pair(source: (Family, usize), target: (Family, usize), name: &str) {
    if let Some(pair) = Pair::start(source, target, name) {
        pair.run(time());
    }
}

#[test]
fn soak_order_mariadb_to_mariadb() {
    pair((Family::MariaDb, 0), (Family::MariaDb, 1), "mm");
}

#[test]
fn soak_order_mysql_to_mysql() {
    pair((Family::MySql, 0), (Family::MySql, 1), "yy");
}

#[test]
fn soak_order_mariadb_to_mysql() {
    pair((Family::MariaDb, 0), (Family::MySql, 0), "my");
}

/// The negative control: with the mirror's execution moved behind the active
/// side's commit (as every write-up of dual writing shows it) the same check
/// fails, so it would have seen a broken order.
#[test]
fn mirroring_after_the_commit_is_seen_by_the_same_check() {
    for family in Family::BOTH {
        let source = crate::or_skip!(servers::shared(family, 0));
        let target = crate::or_skip!(servers::shared(family, 1));
        let prefix = format!("neg{}", &family.name()[..2]);
        let tables = Tables::new(&format!("{prefix}_srr"), Isolation::RepeatableRead);
        tables.create(source);
        tables.create(target);
        let mut options = options(&prefix);
        options.env = vec![("LOCKSTEP_TEST_MIRROR_AFTER_COMMIT".into(), "1".into())];
        let proxy = Proxy::start(source, target, options);
        proxy.must_advance(STRICT, "source_first");
        let marks = [source, target].map(binlog_order::mark);
        let mix = Mix {
            hot: 16,
            ..Mix::NONE
        };
        let opts = proxy.opts(Some("t"));
        let mut differing = 0;
        for _ in 0..5 {
            let report = workload::run(&opts, &tables, mix, Duration::from_secs(1));
            report.assert_no_errors();
            let order =
                binlog_order::check((source, &marks[0]), (target, &marks[1]), &tables.strict());
            assert!(order.changes[1] > 0, "{family}: nothing was mirrored");
            differing = order.differing;
            if differing > 0 {
                break;
            }
        }
        println!("{family}, mirrored after the commit: {differing} rows in another order");
        assert!(
            differing > 0,
            "{family}: the check saw no wrong order where there must be one"
        );
    }
}

/// The load itself: a server alone gives its clients no error but those each
/// of them is built to provoke.
#[test]
fn the_load_provokes_only_what_it_means_to() {
    for family in Family::BOTH {
        let server = crate::or_skip!(servers::shared(family, 0));
        for isolation in Isolation::BOTH {
            let tables = Tables::new("alone", isolation);
            tables.create(server);
            let (user, password) = servers::APP;
            let opts = server.opts(user, password, Some("t"));
            let report = workload::run(&opts, &tables, MIX, Duration::from_millis(700));
            println!(
                "{family} alone, {isolation:?}: {} statements, {:?}",
                report.statements, report.expected
            );
            report.assert_no_errors();
        }
    }
}
