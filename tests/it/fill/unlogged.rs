//! `copy.binlog: no`: rows are loaded past the target's log, and nothing else
//! is.

use super::COPIED;
use crate::or_skip;
use crate::support::binlog_order::{self, Change, Kind};
use crate::support::proc::wait_for;
use crate::support::{Family, Proxy, ProxyOptions, compare, servers};

const ROWS: usize = 3_000;

/// The copy's rows are there and not in the log, unless the setting is left
/// alone; what the follower writes on the same connections later is.
#[test]
fn a_copy_past_the_log_and_what_follows_in_it() {
    for family in Family::BOTH {
        for binlog in ["yes", "no"] {
            let source = or_skip!(servers::shared(family, 0));
            let target = or_skip!(servers::shared(family, 1));
            for server in [source, target] {
                server.exec("DROP TABLE IF EXISTS t.ul_a");
            }
            source.exec(&format!(
                "CREATE TABLE t.ul_a (id INT PRIMARY KEY, v INT, s VARCHAR(40)); \
                 SET @n = 0; INSERT INTO t.ul_a SELECT @n := @n + 1, @n * 7, CONCAT('row ', @n) \
                 FROM information_schema.COLUMNS a, information_schema.COLUMNS b LIMIT {ROWS}"
            ));
            let mark = binlog_order::mark(target);
            let logged = || -> Vec<Change> { binlog_order::changes(target, &mark, &["t.ul_a"]) };
            let mut options = ProxyOptions::route("ul", &["t.ul_a"]);
            options.extra_yaml = format!("copy: {{ binlog: {binlog} }}");
            let proxy = Proxy::start(source, target, options);
            proxy.must_advance("ul", "syncing");
            wait_for("the copy", COPIED, || {
                proxy.route("ul")["copy"]["state"] == "done"
            });
            let copied = logged().len();
            assert_eq!(copied, if binlog == "yes" { ROWS } else { 0 }, "{family}");
            // Each of the follower's connections has loaded chunks.
            for id in 1..=40 {
                source.exec(&format!("UPDATE t.ul_a SET v = -v WHERE id = {id}"));
            }
            proxy.wait_followed("ul", COPIED);
            assert_eq!(compare::assert_equal(source, target, &["t.ul_a"]), ROWS);
            let followed = logged().split_off(copied);
            assert_eq!(followed.len(), 40, "{family} {binlog}");
            assert!(followed.iter().all(|c| c.kind != Kind::Delete));
            // Both sides are active in turn, as after any copy.
            for phase in ["source_first", "target_first"] {
                proxy.must_advance("ul", phase);
            }
            proxy.wait_followed("ul", COPIED);
            target.exec("UPDATE t.ul_a SET v = 5 WHERE id = 2000");
            proxy.wait_followed("ul", COPIED);
            compare::assert_equal(source, target, &["t.ul_a"]);
        }
    }
}
