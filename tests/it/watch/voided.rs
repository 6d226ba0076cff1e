//! A clean comparison counts for what it has seen: not beside writes to the
//! mirror that leave no rows in its log, nor behind definitions that filled rows
//! on each side by itself; and what a stranger writes in the moment of a flip is
//! seen.

use super::{COPIED, SECONDS, create, dual, flip, tables, watch};
use crate::or_skip;
use crate::support::proc::{block_on, runtime, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, compare, servers};
use mysql_async::prelude::Queryable;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn pair(family: Family) -> Result<[&'static Server; 2], crate::support::Missing> {
    Ok([servers::shared(family, 0)?, servers::shared(family, 1)?])
}

fn start([source, target]: [&'static Server; 2], prefix: &str) -> Proxy {
    create(source, prefix);
    tables(target, prefix);
    let mut options = ProxyOptions::route("w", &[&format!("t.{prefix}*")]);
    options.extra_yaml = crate::order::USERS.to_owned();
    let proxy = Proxy::start(source, target, options);
    dual(&proxy, "w");
    proxy
}

/// A comparison to its end; whether it was clean.
fn compared(proxy: &Proxy, repair: bool) -> bool {
    let body = json!({ "wait": true, "repair": repair });
    let answer = proxy.post("/v1/routes/w/compare", &body);
    assert!(answer.ok(), "{answer:?}\n{}", proxy.log());
    answer.json()["clean"] == true
}

/// Whether the flip's comparison counts.
fn counts(proxy: &Proxy) -> bool {
    let answer = proxy.post(
        "/v1/routes/w/advance",
        &json!({ "to": "target_first", "dry_run": true }),
    );
    !answer.body.contains("compare again")
}

fn wait_voided(proxy: &Proxy, what: &str) {
    wait_for(what, SECONDS, || !counts(proxy));
    let refused = proxy.post("/v1/routes/w/advance", &json!({ "to": "target_first" }));
    assert!(!refused.ok(), "{what}: {refused:?}");
}

fn voided(family: Family, prefix: &str) {
    let [source, target] = or_skip!(pair(family));
    let proxy = start([source, target], prefix);
    let all = [format!("t.{prefix}row"), format!("t.{prefix}word")];
    let all = all.each_ref().map(String::as_str);
    assert!(compared(&proxy, false) && counts(&proxy), "{}", proxy.log());

    // Emptied behind the proxy's back: no row of it is in the log.
    target.exec(&format!("TRUNCATE TABLE t.{prefix}word"));
    wait_voided(&proxy, "a TRUNCATE on the mirror");
    assert!(watch(&proxy, "w")["unverified_rows"].as_u64() > Some(0));
    compared(&proxy, true);
    wait_for("a clean comparison", COPIED, || compared(&proxy, true));
    compare::assert_equal(source, target, &all);
    assert!(counts(&proxy));

    // Each side fills the column with its own time.
    block_on(async {
        let mut conn = proxy.conn(Some("t")).await;
        let sql = format!(
            "ALTER TABLE {prefix}row ADD COLUMN made TIMESTAMP(6) NOT NULL \
             DEFAULT CURRENT_TIMESTAMP(6)"
        );
        conn.query_drop(sql).await.expect("ALTER TABLE");
    });
    wait_voided(&proxy, "an ALTER TABLE on both sides");
    compared(&proxy, true);
    wait_for("a clean comparison", COPIED, || compared(&proxy, true));
    compare::assert_equal(source, target, &all);
    flip(&proxy, "w", "advance", "target_first");
    let answer = proxy.rollback("w", Some("source_only"), true);
    assert!(answer.ok(), "{answer:?}");
}

#[test]
fn mariadb_a_comparison_counts_for_what_it_has_seen() {
    voided(Family::MariaDb, "wvm_");
}

#[test]
fn mysql_a_comparison_counts_for_what_it_has_seen() {
    voided(Family::MySql, "wvy_");
}

/// Writes new rows to the source, past the proxy, until told to stop.
async fn stranger(server: &'static Server, prefix: String, stop: Arc<AtomicBool>) -> u32 {
    let mut conn = server.conn().await;
    let mut id = 100;
    while !stop.load(Ordering::Relaxed) {
        let sql = format!("INSERT INTO t.{prefix}row VALUES ({id}, 1)");
        conn.query_drop(sql).await.expect("a stranger's write");
        id += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let _ = conn.disconnect().await;
    id - 100
}

/// Rows that a stranger puts on the old active side before, in and after the
/// flip: each is either followed, or found on what is the mirror then.
fn at_the_flip(family: Family, prefix: &str) {
    let [source, target] = or_skip!(pair(family));
    let proxy = start([source, target], prefix);
    let stop = Arc::new(AtomicBool::new(false));
    let writing = stranger(source, prefix.to_owned(), Arc::clone(&stop));
    let writing = runtime().spawn(writing);
    std::thread::sleep(Duration::from_millis(500));
    let answer = proxy.advance("w", Some("target_first"), true);
    assert!(answer.ok(), "{answer:?}\n{}", proxy.log());
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let wrote = block_on(writing).expect("the stranger");
    let rows = |s: &Server| s.query(&format!("SELECT id, v FROM t.{prefix}row ORDER BY id"));
    wait_for("both sides to be equal", SECONDS, || {
        rows(source) == rows(target)
    });
    println!("{family}: {wrote} rows, {} left", rows(target).len());
    let answer = proxy.rollback("w", Some("source_only"), true);
    assert!(answer.ok(), "{answer:?}");
}

#[test]
fn mariadb_a_stranger_at_the_flip_is_seen() {
    at_the_flip(Family::MariaDb, "wfm_");
}

#[test]
fn mysql_a_stranger_at_the_flip_is_seen() {
    at_the_flip(Family::MySql, "wfy_");
}

/// A route that is removed and added again is another one: its rows are copied,
/// whatever was copied for the first.
#[test]
fn a_route_added_again_begins_anew() {
    let [source, target] = or_skip!(pair(Family::MariaDb));
    let prefix = "wag_";
    let proxy = start([source, target], prefix);
    let answer = proxy.rollback("w", Some("source_only"), false);
    assert!(answer.ok(), "{answer:?}");
    let removed = crate::support::http::delete(proxy.control(), "/v1/routes/w");
    assert!(removed.expect("DELETE").ok());
    target.exec(&format!(
        "TRUNCATE TABLE t.{prefix}row; TRUNCATE TABLE t.{prefix}word"
    ));
    let body = json!({ "tables": [format!("t.{prefix}*")] });
    let added = proxy.put("/v1/routes/w", &body);
    assert!(added.ok(), "{added:?}");
    dual(&proxy, "w");
    let all = [format!("t.{prefix}row"), format!("t.{prefix}word")];
    compare::assert_equal(source, target, &all.each_ref().map(String::as_str));
    assert_eq!(
        source.one(&format!("SELECT COUNT(*) FROM t.{prefix}row")),
        "4"
    );
    let answer = proxy.rollback("w", Some("source_only"), true);
    assert!(answer.ok(), "{answer:?}");
}
