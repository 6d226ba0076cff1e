//! C7 and H3: the gate, and the circuit.

use super::{Client, MEANWHILE, numbered, root, shared};
use crate::order::{USERS, counts, journal, patient};
use crate::support::proc::{block_on, is_over, runtime, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, compare};
use mysql_async::prelude::Queryable;
use std::time::{Duration, Instant};

/// A proxy of its own for one table `t.{name}`, created by `sql`.
fn own(
    family: Family,
    name: &str,
    sql: &str,
    settings: &str,
) -> Option<(&'static Server, &'static Server, Proxy)> {
    let (source, target) = shared(family)?;
    for server in [source, target] {
        server.exec(sql);
    }
    let mut options = ProxyOptions::route("r", &[&format!("t.{name}")]);
    options.extra_yaml = settings.to_string();
    let proxy = Proxy::start(source, target, options);
    proxy.must_advance("r", "source_first");
    // What the mirror does is looked at, and not healed meanwhile.
    proxy.pause("r");
    Some((source, target, proxy))
}

fn client(proxy: &Proxy) -> Client {
    Client(block_on(proxy.conn(Some("t"))))
}

/// C7: S1 still writes under the old phase when S2 comes in under the new one;
/// without a gate both get the same id, each from its own active side.
///
/// The gate holds S2 until S1's transaction is over, and then sends it to the
/// new active side. A transaction that does not end makes the flip give up.
#[test]
fn c7_no_statement_of_the_new_phase_runs_beside_one_of_the_old() {
    for family in Family::BOTH {
        let sql = "CREATE TABLE t.f7_i (id BIGINT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(9))";
        let Some((source, target, proxy)) = own(family, "f7_i", sql, &patient()) else {
            return;
        };
        for (step, to) in [
            ("advance", "target_first"),
            ("rollback", "source_first"),
            ("advance", "target_first"),
        ] {
            let mut s1 = client(&proxy);
            s1.run("BEGIN");
            s1.run("INSERT INTO f7_i (who) VALUES ('S1')");
            std::thread::scope(|scope| {
                let flip = scope.spawn(|| match step {
                    "advance" => proxy.advance("r", Some(to), true),
                    _ => proxy.rollback("r", Some(to), true),
                });
                std::thread::sleep(MEANWHILE);
                let s2 = client(&proxy).start("INSERT INTO f7_i (who) VALUES ('S2')");
                assert!(s2.waits(), "{family}: S2 wrote while the gate was closed");
                // Plain reads go on.
                let _: u64 = client(&proxy).value("SELECT COUNT(*) FROM f7_i");
                s1.run("INSERT INTO f7_i (who) VALUES ('S1')");
                s1.run("COMMIT");
                let answer = flip.join().expect("flip");
                assert!(answer.ok(), "{family} {to}: {answer:?}\n{}", proxy.log());
                s2.ok();
            });
            assert_eq!(proxy.phase("r"), to);
        }
        let now = counts(&proxy, "r");
        assert_eq!((now.failed, now.deferred), (0, 0), "{}", journal(&proxy));
        assert_eq!(compare::assert_equal(source, target, &["t.f7_i"]), 9);
    }
}

#[test]
fn c7_a_transaction_that_does_not_end_stops_the_flip() {
    for family in Family::BOTH {
        let sql = "CREATE TABLE t.f7_s (id BIGINT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(9))";
        let settings = format!(
            "limits: {{ mirror_deadline_ms: 20000, drain_ms: 700, gate_ms: 3000 }}\n{USERS}\n"
        );
        let Some((source, target, proxy)) = own(family, "f7_s", sql, &settings) else {
            return;
        };
        let mut s1 = client(&proxy);
        s1.run("BEGIN");
        s1.run("INSERT INTO f7_s (who) VALUES ('S1')");
        let began = Instant::now();
        let answer = proxy.advance("r", Some("target_first"), true);
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(
            answer.body.contains("app@127.0.0.1"),
            "the session that held it is not named: {}",
            answer.body
        );
        assert!(!is_over(began, Duration::from_secs(5)));
        assert_eq!(proxy.phase("r"), "source_first");
        client(&proxy).run("INSERT INTO f7_s (who) VALUES ('S2')");
        s1.run("INSERT INTO f7_s (who) VALUES ('S1')");
        s1.run("COMMIT");
        assert!(proxy.advance("r", Some("target_first"), true).ok());
        client(&proxy).run("INSERT INTO f7_s (who) VALUES ('S2')");
        assert_eq!(compare::assert_equal(source, target, &["t.f7_s"]), 4);
    }
}

/// H3: 16 clients on one row, each with 200 ms for the mirror, wait one after
/// the other: over 3 s. The first expiry wakes all, once.
#[test]
fn h3_waits_on_a_hot_row_do_not_add_up() {
    for family in Family::BOTH {
        let Some((_, target, proxy)) = own(family, "f3_a", &numbered("t.f3_a"), USERS) else {
            return;
        };
        // Each session's first write opens its legs; that is not measured.
        let mut clients: Vec<Client> = (0..16).map(|_| client(&proxy)).collect();
        for c in &mut clients {
            c.run("UPDATE f3_a SET v=v+1 WHERE id=2");
        }
        let round = |clients: Vec<Client>| -> (Vec<Client>, Duration) {
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|mut c| {
                    runtime().spawn(async move {
                        let began = Instant::now();
                        let done = c.0.query_drop("UPDATE f3_a SET v=v+1 WHERE id=1").await;
                        done.expect("update");
                        (c, began.elapsed())
                    })
                })
                .collect();
            let done: Vec<(Client, Duration)> = tasks
                .into_iter()
                .map(|t| block_on(t).expect("client"))
                .collect();
            let longest = done.iter().map(|d| d.1).max().unwrap_or_default();
            (done.into_iter().map(|d| d.0).collect(), longest)
        };
        let (clients, quiet) = round(clients);
        // A busy machine may have kept a write so far past its deadline.
        let resumed = || {
            proxy.resume("r");
            wait_for("mirroring to go on", Duration::from_secs(10), || {
                proxy.route("r")["mirror"]["suspended"] == false
            });
        };
        resumed();
        let before = counts(&proxy, "r");
        let mut lock = root(target);
        lock.run("BEGIN");
        lock.run("SELECT * FROM t.f3_a WHERE id=1 FOR UPDATE");
        let (clients, longest) = round(clients);
        println!("{family}: 16 clients on a row: {quiet:?}; the mirror's row locked: {longest:?}");
        assert!(
            longest < Duration::from_millis(250) + quiet.max(MEANWHILE),
            "{family}: the longest waited {longest:?}"
        );
        lock.run("ROLLBACK");
        // Once what it missed is healed.
        resumed();
        drop(clients);
        let now = counts(&proxy, "r");
        let missed = now.failed + now.deferred - before.failed - before.deferred;
        assert_eq!(missed, 16, "{}", journal(&proxy));
    }
}

/// C3: the leg whose answer was late is ended and never used again. Were it
/// reused, the late statement would run in, or commit with, what comes next.
#[test]
fn c3_a_leg_with_a_late_answer_is_not_used_again() {
    for family in Family::BOTH {
        let Some((_, target, proxy)) = own(family, "f3l_a", &numbered("t.f3l_a"), USERS) else {
            return;
        };
        let mut lock = root(target);
        lock.run("BEGIN");
        lock.run("SELECT * FROM t.f3l_a WHERE id=1 FOR UPDATE");
        let mut session = client(&proxy);
        session.run("BEGIN");
        session.run("UPDATE f3l_a SET v=100 WHERE id=2");
        let began = Instant::now();
        session.run("UPDATE f3l_a SET v=100 WHERE id=1");
        let waited = began.elapsed();
        assert!(waited > Duration::from_millis(150), "{waited:?}");
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        session.run("UPDATE f3l_a SET v=100 WHERE id=3");
        session.run("COMMIT");
        // Autocommit, while the mirror is suspended and after its row is free.
        session.run("UPDATE f3l_a SET v=v+1 WHERE id=4");
        lock.run("ROLLBACK");
        std::thread::sleep(MEANWHILE);
        let rows = "SELECT GROUP_CONCAT(v ORDER BY id) FROM t.f3l_a";
        assert_eq!(
            target.one(rows),
            "1,2,3,4,5,6",
            "{family}: the mirror committed a part of what was given up"
        );
        let now = counts(&proxy, "r");
        assert!(now.failed >= 1 && now.failed + now.deferred >= 3, "{now:?}");
        // Once what it missed is healed.
        proxy.resume("r");
        wait_for("mirroring to resume", Duration::from_secs(10), || {
            proxy.route("r")["mirror"]["suspended"] == false
        });
        wait_for("a write on the mirror", Duration::from_secs(10), || {
            session.run("UPDATE f3l_a SET v=v+1 WHERE id=6");
            target.one("SELECT v FROM t.f3l_a WHERE id=6") != "6"
        });
    }
}
