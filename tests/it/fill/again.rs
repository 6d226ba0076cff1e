//! A route that is filled a second time.

use super::COPIED;
use crate::or_skip;
use crate::support::proc::wait_for;
use crate::support::{Family, Proxy, ProxyOptions, servers};
use serde_json::json;

fn fill(proxy: &Proxy) {
    let answer = proxy.advance("ag", Some("syncing"), false);
    assert!(answer.ok(), "{answer:?}\n{}", proxy.log());
    wait_for("the copy", COPIED, || {
        proxy.route("ag")["copy"]["state"] == "done"
    });
    proxy.wait_followed("ag", COPIED);
}

fn compare(proxy: &Proxy, repair: bool) {
    let body = json!({ "repair": repair, "wait": true });
    let answer = proxy.post("/v1/routes/ag/compare", &body);
    assert!(answer.ok(), "{answer:?}");
}

/// Between two fills nothing is followed, and a copy removes nothing: the target
/// does not become active without a comparison. Where it was filled from nothing,
/// or was active before, none is asked for.
#[test]
fn rows_of_an_earlier_fill_do_not_become_active_uncompared() {
    for family in Family::BOTH {
        let source = or_skip!(servers::shared(family, 0));
        let target = or_skip!(servers::shared(family, 1));
        for server in [source, target] {
            server.exec("DROP TABLE IF EXISTS t.ag_rows");
        }
        source.exec(
            "CREATE TABLE t.ag_rows (id INT PRIMARY KEY, v INT); \
             INSERT INTO t.ag_rows VALUES (1,1),(2,2),(3,3),(4,4)",
        );
        let proxy = Proxy::start(source, target, ProxyOptions::route("ag", &["t.ag_*"]));
        fill(&proxy);
        let step = |verb: &str, to: &str| {
            let answer = match verb {
                "advance" => proxy.advance("ag", Some(to), false),
                _ => proxy.rollback("ag", Some(to), false),
            };
            assert!(answer.ok(), "{verb} {to}: {answer:?}\n{}", proxy.log());
        };
        step("rollback", "source_only");
        source.exec("DELETE FROM t.ag_rows WHERE id = 3");
        fill(&proxy);
        let refused = proxy.advance("ag", Some("target_only"), false);
        assert_eq!(refused.status, 409, "{refused:?}");
        let conditions = refused.json()["conditions"].to_string();
        assert!(
            conditions.contains("compare_clean") && conditions.contains("t.ag_rows"),
            "{conditions}"
        );
        // It is kept over a restart, whose copy has nothing to do.
        proxy.restart();
        wait_for("the copy", COPIED, || {
            proxy.route("ag")["copy"]["state"] == "done"
        });
        proxy.wait_followed("ag", COPIED);
        assert_eq!(
            proxy.advance("ag", Some("target_only"), false).status,
            409,
            "after a restart"
        );
        compare(&proxy, true);
        compare(&proxy, false);
        let count = "SELECT COUNT(*) FROM t.ag_rows";
        assert_eq!(
            (source.one(count), target.one(count)),
            ("3".into(), "3".into())
        );
        step("advance", "target_only");
        proxy.wait_followed("ag", COPIED);
        step("rollback", "syncing");
        wait_for("the copy", COPIED, || {
            proxy.route("ag")["copy"]["state"] == "done"
        });
        proxy.wait_followed("ag", COPIED);
        // Nothing was unfollowed meanwhile.
        step("advance", "target_only");
        proxy.wait_followed("ag", COPIED);
        step("rollback", "syncing");
        step("rollback", "source_only");
        target.exec("DROP TABLE t.ag_rows");
        // And from nothing.
        fill(&proxy);
        step("advance", "target_only");
    }
}
