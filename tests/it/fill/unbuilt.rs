//! Keys that the target refuses once the rows are over.

use super::COPIED;
use crate::or_skip;
use crate::support::proc::wait_for;
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use serde_json::json;

/// No table has more, its primary key included.
const KEYS_MAX: usize = 64;

fn drop_both(servers: [&Server; 2]) {
    for server in servers {
        server.exec("DROP TABLE IF EXISTS t.ub_child, t.ub_parent");
    }
}

fn names(server: &Server, sql: &str) -> String {
    server.one(&format!(
        "SELECT COUNT(*) FROM information_schema.{sql} AND TABLE_NAME = 'ub_child'"
    ))
}

/// The copy is not complete without the keys, says which are not there, and is
/// once they can be made.
#[test]
fn a_copy_without_its_keys_is_not_complete() {
    for family in Family::BOTH {
        let source = or_skip!(servers::shared(family, 0));
        let target = or_skip!(servers::shared(family, 1));
        drop_both([source, target]);
        let parent = "CREATE TABLE t.ub_parent (id INT PRIMARY KEY)";
        source.exec(&format!(
            "{parent}; CREATE TABLE t.ub_child (id INT PRIMARY KEY, p INT, v INT, KEY by_v (v), \
             CONSTRAINT ub_p FOREIGN KEY (p) REFERENCES t.ub_parent (id)); \
             INSERT INTO t.ub_parent VALUES (1); INSERT INTO t.ub_child VALUES (1, 1, 1)"
        ));
        // An operator's own table: full of keys, and its column fits no parent.
        let own: Vec<String> = (1..KEYS_MAX).map(|n| format!("KEY own{n} (id)")).collect();
        target.exec(&format!(
            "{parent}; CREATE TABLE t.ub_child (id INT PRIMARY KEY, p BIGINT, v INT, {})",
            own.join(", ")
        ));
        let proxy = Proxy::start(source, target, ProxyOptions::route("ub", &["t.ub_*"]));
        proxy.must_advance("ub", "syncing");
        let mut detail = String::new();
        wait_for("the refused keys", COPIED, || {
            let copy = proxy.route("ub")["copy"].clone();
            assert_ne!(copy["state"], "done", "{copy}");
            detail = copy["detail"].as_str().unwrap_or_default().to_string();
            !detail.is_empty()
        });
        for part in ["key by_v", "foreign key ub_p", "t.ub_child"] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        let at_once = json!({ "to": "source_first", "force": false, "wait": false });
        let refused = proxy.post("/v1/routes/ub/advance", &at_once);
        assert_eq!(refused.status, 409, "{refused:?}");
        let conditions = refused.json()["conditions"].clone();
        let conditions = conditions.as_array().expect("conditions").clone();
        let copied = conditions.iter().find(|c| c["name"] == "copy_complete");
        let copied = copied.expect("copy_complete");
        assert_eq!(copied["ok"], false, "{copied}");
        assert!(copied["detail"].to_string().contains("by_v"), "{copied}");
        target.exec(
            "ALTER TABLE t.ub_child DROP KEY own1, DROP KEY own2, DROP KEY own3, MODIFY p INT",
        );
        proxy.resume("ub");
        wait_for("the keys", COPIED, || {
            proxy.route("ub")["copy"]["state"] == "done"
        });
        assert!(proxy.route("ub")["copy"]["detail"].is_null());
        let key = "STATISTICS WHERE INDEX_NAME = 'by_v'";
        let foreign = "REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_NAME = 'ub_p'";
        assert_eq!(names(target, key), "1");
        assert_eq!(names(target, foreign), "1");
        proxy.wait_followed("ub", COPIED);
        let answer = proxy.advance("ub", Some("source_first"), false);
        assert!(answer.ok(), "{answer:?}");
        proxy.must_rollback("ub", "source_only");
        drop_both([source, target]);
    }
}
