//! A write of one row is executed on both sides at once (`mirror/ahead.rs`):
//! what it must give back on the mirror, and when.

use super::{Client, MEANWHILE, Pair, on_both, root};
use crate::support::proc::wait_for;
use crate::support::{Server, binlog_order};
use std::time::{Duration, Instant};

/// Its route's rows are fought for.
const FOUGHT: &str = "t.f_ah_a";
/// Its route's are not, so that its copies run ahead all the time.
const QUIET: &str = "t.f_ahq_a";

/// A row's update, by its key.
fn update(table: &str, id: u32) -> String {
    format!("UPDATE {table} SET v=v*3+1 WHERE id={id}")
}

/// Root has the row locked on the server.
fn locked(server: &Server, table: &str, id: u32) -> Client {
    let mut lock = root(server);
    lock.run("BEGIN");
    lock.run(&format!("SELECT * FROM {table} WHERE id={id} FOR UPDATE"));
    lock
}

/// The mirror's row can be locked by another at this moment.
fn is_free(pair: &Pair, table: &str, id: u32) -> bool {
    let sql = format!("SELECT * FROM {table} WHERE id={id} FOR UPDATE NOWAIT");
    let mut other = root(pair.target);
    other.run("BEGIN");
    let free = other.try_run(&sql).is_ok();
    other.run("ROLLBACK");
    free
}

/// How often the route's copies were given back for the reason.
fn taken_back(pair: &Pair, route: &str, reason: &str) -> f64 {
    let series =
        format!("lockstep_mirror_taken_back_total{{route=\"{route}\",reason=\"{reason}\"}}");
    pair.proxy.metric(&series).unwrap_or_default()
}

/// Waits until nobody has the row of the mirror.
fn until_free(pair: &Pair, table: &str, id: u32) {
    let began = Instant::now();
    while !is_free(pair, table, id) {
        assert!(began.elapsed() < Duration::from_secs(5), "{}", pair.family);
    }
}

/// 1. The active side's row is held by another; 2. the copy has the mirror's.
///
/// It must be given back while the statement still waits, or whoever holds the
/// active side's row would wait for it on the mirror: a circle nobody sees.
#[test]
fn a_row_is_not_held_on_the_mirror_alone() {
    on_both(|pair| {
        let before = pair.counts("ah");
        let mut lock = locked(pair.source, FOUGHT, 1);
        let waiting = pair.client().start(&update(FOUGHT, 1));
        assert!(waiting.waits(), "{}: answered without A", pair.family);
        assert!(is_free(pair, FOUGHT, 1), "{}", pair.family);
        lock.run("ROLLBACK");
        waiting.ok();
        assert!(taken_back(pair, "ah", "collided") > 0.0);
        let value = pair.both(&format!("SELECT v FROM {FOUGHT} WHERE id=1"));
        assert_eq!(value, [Some("4".into()), Some("4".into())]);
        pair.assert_unmirrored("ah", before, 0, 0);
    });
}

/// 1. T0 has the row on both sides, in a transaction; 2. others wait for it
///    there; 3. T0 goes on with the row, and commits.
#[test]
fn a_transaction_goes_on_with_a_row_that_others_wait_for() {
    on_both(|pair| {
        let before = pair.counts("ah");
        let mut t0 = pair.client();
        t0.run("BEGIN");
        t0.run(&update(FOUGHT, 2));
        let waiting: Vec<_> = (0..4)
            .map(|_| pair.client().start(&update(FOUGHT, 2)))
            .collect();
        std::thread::sleep(MEANWHILE);
        t0.run(&update(FOUGHT, 2));
        t0.run("COMMIT");
        for statement in waiting {
            statement.ok();
        }
        let value = pair.both(&format!("SELECT v FROM {FOUGHT} WHERE id=2"));
        assert_eq!(value[0], value[1]);
        pair.assert_unmirrored("ah", before, 0, 0);
    });
}

/// What the active side refuses, or what changes nothing there, is not on the
/// mirror, which would have taken it.
#[test]
fn what_the_active_side_does_not_do_is_given_back() {
    on_both(|pair| {
        let before = pair.counts("ahq");
        let mut client = pair.client();
        let plant = |sql: &str| pair.target.exec(&sql.replace("{t}", QUIET));
        let mirrors = |id: u32| {
            pair.target
                .one(&format!("SELECT v FROM {QUIET} WHERE id={id}"))
        };
        // No row is changed: it has the value already.
        plant("UPDATE {t} SET v=77 WHERE id=4");
        let same = format!("UPDATE {QUIET} SET v=4 WHERE id=4");
        // Refused by the active side, which has another row.
        plant("UPDATE {t} SET v=1 WHERE id=5");
        let beyond = format!("UPDATE {QUIET} SET v=v*9223372036854775807 WHERE id=5");
        let unwanted = || taken_back(pair, "ahq", "unwanted");
        let first = unwanted();
        // A copy that is behind the active side's answer is not begun.
        wait_for(
            "two copies to be given back",
            Duration::from_secs(30),
            || {
                assert_eq!(client.run(&same), 0);
                assert_eq!(mirrors(4), "77", "{}", pair.family);
                until_free(pair, QUIET, 4);
                assert_eq!(client.error(&beyond), 1690);
                assert_eq!(mirrors(5), "1", "{}", pair.family);
                assert_eq!(mirrors(4), "77", "{}", pair.family);
                until_free(pair, QUIET, 4);
                assert_eq!(client.run(&update(QUIET, 6)), 1);
                unwanted() - first >= 2.0
            },
        );
        // The session goes on, its writes too.
        assert_eq!(client.run(&update(QUIET, 6)), 1);
        plant("UPDATE {t} SET v=4 WHERE id=4");
        plant("UPDATE {t} SET v=5 WHERE id=5");
        let rows = format!("SELECT GROUP_CONCAT(v ORDER BY id) FROM {QUIET} WHERE id>3");
        let rows = pair.both(&rows);
        assert_eq!(rows[0], rows[1], "{}", pair.family);
        pair.assert_unmirrored("ahq", before, 0, 0);
    });
}

/// The mirror's row is held by somebody: the copy waits for it as ever, behind
/// A's answer, and what nobody wants is not waited for.
#[test]
fn the_mirrors_row_is_waited_for_where_it_is_wanted() {
    on_both(|pair| {
        let before = pair.counts("ahq");
        let mut lock = locked(pair.target, QUIET, 3);
        let mut other = pair.client();
        let waiting = pair.client().start(&update(QUIET, 3));
        let began = Instant::now();
        assert_eq!(other.run(&format!("DELETE FROM {QUIET} WHERE id=99")), 0);
        assert!(began.elapsed() < Duration::from_secs(1));
        assert!(waiting.waits(), "{}: answered without M", pair.family);
        lock.run("ROLLBACK");
        waiting.ok();
        let value = pair.both(&format!("SELECT v FROM {QUIET} WHERE id=3"));
        assert_eq!(value[0], value[1]);
        pair.assert_unmirrored("ahq", before, 0, 0);
    });
}

/// Below REPEATABLE READ a copy that comes before the row holds nothing on the
/// mirror, and must not pass for one that has executed the update.
#[test]
fn a_row_that_is_not_there_yet_is_updated_after_it() {
    on_both(|pair| {
        let before = pair.counts("ah");
        let (mut one, mut two) = (pair.client(), pair.client());
        two.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
        for id in 1000..1300 {
            let inserting = one.start(&format!("INSERT INTO {FOUGHT} VALUES ({id}, 1)"));
            let began = Instant::now();
            while two.run(&format!("UPDATE {FOUGHT} SET v=v+1 WHERE id={id}")) == 0 {
                assert!(began.elapsed() < Duration::from_secs(5));
            }
            one = inserting.ok();
        }
        let sums = format!("SELECT CONCAT(COUNT(*), ' ', SUM(v)) FROM {FOUGHT} WHERE id>=1000");
        assert_eq!(
            pair.both(&sums),
            [Some("300 600".into()), Some("300 600".into())],
            "{}",
            pair.family
        );
        pair.assert_unmirrored("ah", before, 0, 0);
    });
}

/// Eight sessions on two rows: every write is on both sides, in one order.
#[test]
fn rows_that_are_fought_for_keep_their_order() {
    on_both(|pair| {
        let table = "t.f_ah_b";
        let before = pair.counts("ah");
        let marks = [pair.source, pair.target].map(binlog_order::mark);
        let fighters: Vec<_> = (0..8u32)
            .map(|n| {
                let mut client = pair.client();
                std::thread::spawn(move || {
                    for i in 0..120 {
                        let id = (n + i) % 2 + 1;
                        client.run(&format!(
                            "UPDATE {table} SET v=(v*2+{n}) % 1000003 WHERE id={id}"
                        ));
                    }
                })
            })
            .collect();
        for fighter in fighters {
            fighter.join().expect("a writer");
        }
        pair.equal(table);
        pair.assert_unmirrored("ah", before, 0, 0);
        let [source, target] = &marks;
        binlog_order::check((pair.source, source), (pair.target, target), &[table])
            .assert_same(900);
    });
}

/// A row whose indexed column changes: its copy waits for the row alone, as long
/// as nobody has searched on the mirror.
/// 1. T1 has searched there, by the index on k; 2. T2's copy would lock its row
///    and wait for an entry of that index; 3. T1 would wait for the row.
#[test]
fn an_indexed_row_runs_ahead_of_all_but_searches() {
    on_both(|pair| {
        let table = "t.f_ahi_a";
        let before = pair.counts("ahi");
        let collided = || taken_back(pair, "ahi", "collided");
        let update = format!("UPDATE {table} SET k=k+1 WHERE id=5");
        let mut searcher = pair.client();
        for end in ["COMMIT", "ROLLBACK"] {
            searcher.run("BEGIN");
            let found = searcher.run(&format!("UPDATE {table} SET v=v+1 WHERE k=20"));
            assert_eq!(found, 1);
            // Of another route: the first search is not over by that.
            searcher.run("UPDATE t.f_ahs_a SET v=v+1 WHERE k=7000");
            let mut lock = locked(pair.source, table, 5);
            let waiting = pair.client().start(&update);
            assert!(waiting.waits(), "{}: answered without A", pair.family);
            assert_eq!(collided(), 0.0, "{}: ahead of a search", pair.family);
            searcher.run(end);
            lock.run("ROLLBACK");
            waiting.ok();
        }
        // Where a foreign key searches, even if it is by another column.
        let mut lock = locked(pair.source, "t.f_ahi_c", 1);
        let waiting = pair
            .client()
            .start("UPDATE t.f_ahi_c SET pos=pos+1 WHERE id=1");
        assert!(waiting.waits(), "{}: answered without A", pair.family);
        assert_eq!(collided(), 0.0, "{}: in a foreign key's index", pair.family);
        lock.run("ROLLBACK");
        waiting.ok();
        let mut lock = locked(pair.source, table, 5);
        let waiting = pair.client().start(&update);
        assert!(waiting.waits(), "{}: answered without A", pair.family);
        assert_eq!(collided(), 1.0, "{}: not ahead", pair.family);
        assert!(is_free(pair, table, 5), "{}", pair.family);
        lock.run("ROLLBACK");
        waiting.ok();
        let rows = pair.both(&format!(
            "SELECT GROUP_CONCAT(id, ' ', k, ' ', v ORDER BY id) FROM {table}"
        ));
        let expected = "1 10 1,2 20 3,3 30 3,4 40 4,5 53 5,6 60 6";
        assert_eq!(rows, [Some(expected.into()), Some(expected.into())]);
        pair.assert_unmirrored("ahi", before, 0, 0);
    });
}

/// Six sessions move rows in an index by their keys, two search by it. (There are
/// so many rows that no server finds them without the index: one that does has
/// deadlocks of its own among those who search.)
#[test]
fn rows_of_an_index_keep_their_order() {
    on_both(|pair| {
        let table = "t.f_ahs_a";
        let before = pair.counts("ahs");
        let marks = [pair.source, pair.target].map(binlog_order::mark);
        let run = |n: u32, each: fn(&mut Client, u32, u32)| {
            let mut client = pair.client();
            std::thread::spawn(move || (0..150).for_each(|i| each(&mut client, n, i)))
        };
        let moves = |client: &mut Client, n: u32, i: u32| {
            let id = (n + i) % 12 + 1;
            let sql =
                format!("UPDATE t.f_ahs_a SET k=(k*3+{n}) % 70, v=v*2%1000003+{i} WHERE id={id}");
            deadlocked(client.try_run(&sql));
        };
        let searches = |client: &mut Client, n: u32, i: u32| {
            let k = (n * 31 + i * 7) % 70;
            let sql = format!("UPDATE t.f_ahs_a SET v=v+1 WHERE k={k}");
            client.run("BEGIN");
            if !deadlocked(client.try_run(&sql)) {
                client.run(if i.is_multiple_of(3) {
                    "ROLLBACK"
                } else {
                    "COMMIT"
                });
            }
            // Then copies have their time, too.
            std::thread::sleep(Duration::from_millis(u64::from(i % 4)));
        };
        let mut fighters: Vec<_> = (0..6).map(|n| run(n, moves)).collect();
        fighters.extend((0..2).map(|n| run(n, searches)));
        for fighter in fighters {
            fighter.join().expect("a writer");
        }
        pair.equal(table);
        pair.assert_unmirrored("ahs", before, 0, 0);
        let [source, target] = &marks;
        binlog_order::check((pair.source, source), (pair.target, target), &[table])
            .assert_same(700);
    });
}

/// The active side may say so, and nothing else.
fn deadlocked(done: Result<(), mysql_async::Error>) -> bool {
    match done {
        Ok(()) => false,
        Err(mysql_async::Error::Server(e)) if [1205, 1213].contains(&e.code) => true,
        Err(e) => panic!("{e}"),
    }
}
