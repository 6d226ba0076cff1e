//! C1, C2, C3: what the mirror must not execute, and must not keep.

use super::{Client, MEANWHILE, on_both, root};
use crate::support::binlog_order;
use crate::support::proc::{block_on, runtime};
use crate::workload::Isolation;
use mysql_async::Error;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// C1: optimistic locking that matches no row leaves no lock below REPEATABLE
/// READ, so on the mirror it could match what a later writer has made of it.
///
/// 1. T2 `… WHERE id=5 AND status='old'`: no row on the active side.
/// 2. T3 `SET status='old' WHERE id=5`, on both.
/// 3. T2's statement on the mirror would match now. It must never get there:
///    the test holds the mirror's row, and T2 is answered all the same.
#[test]
fn c1_what_changed_nothing_is_not_mirrored() {
    on_both(|pair| {
        for isolation in Isolation::BOTH {
            let route = match isolation {
                Isolation::RepeatableRead => "c1rr",
                Isolation::ReadCommitted => "c1rc",
            };
            let table = format!("t.f_{route}_a");
            let level = format!(
                "SET SESSION TRANSACTION ISOLATION LEVEL {}",
                isolation.sql()
            );
            let before = pair.counts(route);
            let mut lock = root(pair.target);
            lock.run("BEGIN");
            lock.run(&format!("SELECT * FROM {table} FOR UPDATE"));
            let mut t2 = pair.client();
            t2.run(&level);
            for sql in [
                format!("UPDATE {table} SET n=n+1 WHERE id=5 AND status='old'"),
                format!("UPDATE {table} SET n=n+1 WHERE id=99"),
                format!("DELETE FROM {table} WHERE id=99"),
            ] {
                assert_eq!(t2.run(&sql), 0, "{sql}");
            }
            let mut t3 = pair.client();
            t3.run(&level);
            let t3 = t3.start(&format!("UPDATE {table} SET status='old' WHERE id=5"));
            assert!(t3.waits(), "T3 was answered without the mirror");
            lock.run("ROLLBACK");
            t3.ok();

            // The same inside a transaction that has a part on the mirror.
            t2.run("BEGIN");
            t2.run(&format!("UPDATE {table} SET n=n+10 WHERE id=1"));
            let none = format!("UPDATE {table} SET n=n+1 WHERE id=5 AND status='never'");
            assert_eq!(t2.run(&none), 0);
            let mut t3 = pair.client();
            t3.run(&level);
            let t3 = t3.start(&format!("UPDATE {table} SET status='never' WHERE id=5"));
            std::thread::sleep(MEANWHILE);
            t2.run("COMMIT");
            t3.ok();
            assert_eq!(
                pair.both(&format!("SELECT n FROM {table} WHERE id=5")),
                [Some("0".into()), Some("0".into())]
            );
            pair.equal(&table);
            match isolation {
                Isolation::RepeatableRead => pair.assert_unmirrored(route, before, 0, 0),
                // Its predicate beside the key is deferred by plan.
                Isolation::ReadCommitted => assert_eq!(pair.counts(route).failed, before.failed),
            }
        }
    });
}

/// C1: below REPEATABLE READ a key list that matched only in part, and a key
/// with another predicate beside it, are deferred; above they are inline.
#[test]
fn c1_a_partial_match_is_deferred_below_repeatable_read() {
    on_both(|pair| {
        for (route, level, deferred) in [
            ("c1rr", "REPEATABLE READ", 0),
            ("c1rc", "READ COMMITTED", 2),
        ] {
            let table = format!("t.f_{route}_a");
            // Other rows than the test above, which may run at the same time.
            let mut client = pair.client();
            client.run(&format!(
                "INSERT INTO {table} VALUES (201,'p',0),(205,'q',0)"
            ));
            client.run(&format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}"));
            let reasons = |pair: &super::Pair| pair.counts(route).deferred;
            let before = reasons(pair);
            let sql = format!("UPDATE {table} SET n=n+1 WHERE id IN (201,205) AND status='p'");
            assert_eq!(client.run(&sql), 1);
            let sql = format!("UPDATE {table} SET n=n+1 WHERE id IN (201,299)");
            assert_eq!(client.run(&sql), 1);
            assert!(reasons(pair) - before >= deferred);
            let n = pair.both(&format!("SELECT n FROM {table} WHERE id=201"));
            let mirrored = if deferred == 0 { "2" } else { "0" };
            assert_eq!(n, [Some("2".into()), Some(mirrored.into())], "{level}");
            // Equal again for the test above.
            pair.target
                .exec(&format!("UPDATE {table} SET n=2 WHERE id=201"));
        }
    });
}

/// C2: the active side's deadlock has rolled back everything; the client goes
/// on without a ROLLBACK and commits. Nothing of the lost half may be on the
/// mirror.
#[test]
fn c2_a_deadlock_takes_the_mirrors_half_with_it() {
    on_both(|pair| {
        let before = pair.counts("c2");
        let marks = [pair.source, pair.target].map(binlog_order::mark);
        let (mut one, mut two) = (pair.client(), pair.client());
        one.run("BEGIN");
        one.run("UPDATE t.f_c2_a SET v=v+100 WHERE id=1");
        two.run("BEGIN");
        // Heavier, so that the other is the victim.
        two.run("UPDATE t.f_c2_a SET v=v+1000 WHERE id IN (2,4,5)");
        let one = one.start("UPDATE t.f_c2_a SET v=v+100 WHERE id=2");
        assert!(one.waits());
        let second = two.try_run("UPDATE t.f_c2_a SET v=v+1000 WHERE id=1");
        // Whoever the victim is goes on first: the other's row locks are its own.
        let (mut victim, mut winner) = match second {
            Ok(()) => {
                let (one, done) = one.end();
                assert!(done.is_err(), "nobody was the victim");
                (one, two)
            }
            Err(_) => (two, one.ok()),
        };
        victim.run("UPDATE t.f_c2_a SET v=v+7 WHERE id=3");
        victim.run("COMMIT");
        winner.run("COMMIT");
        pair.equal("t.f_c2_a");
        pair.assert_unmirrored("c2", before, 0, 0);
        binlog_order::check(
            (pair.source, &marks[0]),
            (pair.target, &marks[1]),
            &["t.f_c2_a"],
        )
        .assert_same(3);

        // 1205 rolls back the statement alone: the transaction goes on.
        let mut lock = root(pair.source);
        lock.run("BEGIN");
        lock.run("SELECT * FROM t.f_c2_a WHERE id=6 FOR UPDATE");
        let mut client = pair.client();
        client.run("SET innodb_lock_wait_timeout=1");
        client.run("BEGIN");
        client.run("UPDATE t.f_c2_a SET v=v+5 WHERE id=1");
        assert_eq!(client.error("UPDATE t.f_c2_a SET v=0 WHERE id=6"), 1205);
        client.run("UPDATE t.f_c2_a SET v=v+5 WHERE id=3");
        client.run("COMMIT");
        lock.run("ROLLBACK");
        pair.equal("t.f_c2_a");
        pair.assert_unmirrored("c2", before, 0, 0);

        // A statement that fails after it has committed: on the mirror too, or
        // in the journal.
        let mut client = pair.client();
        client.run("BEGIN");
        client.run("UPDATE t.f_c2_a SET v=4711 WHERE id=1");
        assert_eq!(client.error("CREATE TABLE t.f_c2_a (id INT)"), 1050);
        client.run("ROLLBACK");
        let [on_source, on_target] = pair.both("SELECT v FROM t.f_c2_a WHERE id=1");
        assert_eq!(on_source.as_deref(), Some("4711"), "it has committed");
        let now = pair.counts("c2");
        let counted = now.failed + now.deferred - before.failed - before.deferred;
        assert!(
            on_target == on_source || counted > 0,
            "{}: an implicit commit is on one side only, and not counted",
            pair.family
        );
        pair.target.exec("UPDATE t.f_c2_a SET v=4711 WHERE id=1");
    });
}

const UPDATE: &str = "UPDATE t.f_c3_a SET v=(v*2)%1000003 WHERE id=1";

/// Ends the client's own transaction; true while a KILL prevents it.
fn outcome_open(victim: &mut Client, explicit: bool) -> bool {
    explicit && victim.try_run("ROLLBACK").is_err()
}

/// C3: a KILL QUERY that hits the BEGIN lets the statement commit by itself:
/// it must not be mirrored after that, and it must be counted. One that hits
/// our COMMIT leaves our transaction open: the next BEGIN would commit it, and
/// the mirror would never see it.
#[test]
fn c3_a_killed_begin_is_not_mirrored_out_of_order() {
    on_both(|pair| {
        let before = pair.counts("c3");
        let marks = [pair.source, pair.target].map(binlog_order::mark);
        let mut victim = pair.client();
        let id = victim.0.id();
        let stop = Arc::new(AtomicBool::new(false));
        let killers = [(); 3].map(|()| {
            let (mut killer, stop) = (pair.client(), Arc::clone(&stop));
            runtime().spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let done = killer.0.query_drop(format!("KILL QUERY {id}")).await;
                    done.expect("KILL QUERY");
                }
            })
        });
        let (mut killed, mut done, began) = (0, 0, Instant::now());
        while began.elapsed() < Duration::from_secs(2) {
            // Every fourth has a COMMIT of the client's own.
            let explicit = (killed + done) % 4 == 0;
            let script: &[&str] = if explicit {
                &["BEGIN", UPDATE, "COMMIT"]
            } else {
                &[UPDATE]
            };
            let outcome = script.iter().try_for_each(|sql| victim.try_run(sql));
            match outcome {
                Ok(()) => done += 1,
                Err(Error::Server(e)) if e.code == 1317 => killed += 1,
                Err(e) => panic!("{}: {e}", pair.family),
            }
            while outcome_open(&mut victim, explicit) {}
        }
        stop.store(true, Ordering::Relaxed);
        for killer in killers {
            block_on(killer).expect("killer");
        }
        // A late KILL must not hit what follows.
        while victim.try_run("SELECT 1").is_err() {}
        let now = pair.counts("c3");
        let counted = now.failed + now.deferred - before.failed - before.deferred;
        println!(
            "{}: {done} done, {killed} killed, {counted} not mirrored",
            pair.family
        );

        let logged = [(pair.source, &marks[0]), (pair.target, &marks[1])]
            .map(|(server, mark)| binlog_order::changes(server, mark, &["t.f_c3_a"]).len() as u64);
        let [on_source, on_target] = logged;
        assert!(
            on_source >= on_target && on_source - on_target <= counted,
            "{}: {on_source} changes on the source, {on_target} on the target, {counted} counted",
            pair.family
        );
        if counted == 0 {
            pair.equal("t.f_c3_a");
        }
        // And nothing stays open on either side.
        for server in [pair.source, pair.target] {
            server.exec(
                "SET SESSION innodb_lock_wait_timeout=2;\nUPDATE t.f_c3_a SET v=1 WHERE id=1",
            );
        }
    });
}
