//! What no statement can bring over keeps the active side where it is and is
//! named; user-level locks stay where all sessions see them; and values follow
//! while flips happen under load.

use super::{Pair, ROUTE, USER, values};
use crate::support::compare;
use crate::transparency::raw::{MODERN, Raw};
use lockstep::wire::Status;
use lockstep::wire::command::{COM_STMT_CLOSE, COM_STMT_EXECUTE, COM_STMT_PREPARE};
use lockstep::wire::ok::OkPacket;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The pairs of one family.
const SAME: [usize; 2] = [0, 1];

/// Long enough for a flip to have closed the gate.
const MEANWHILE: Duration = Duration::from_millis(200);

fn run(raw: &mut Raw, sql: &str) -> Vec<String> {
    let packets = raw.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let said = values(&packets, MODERN);
    assert!(!said.concat().starts_with("ERR"), "{sql}: {said:?}");
    said
}

/// The first column of the first row, of one digit or more.
fn value(raw: &mut Raw, sql: &str) -> String {
    let rows = run(raw, sql);
    let row = rows.first().unwrap_or_else(|| panic!("{sql}: no row"));
    // The length in front of it.
    row.trim_start_matches("\\x01")
        .trim_start_matches("\\x02")
        .trim_start_matches("\\x03")
        .trim_start_matches("\\x04")
        .trim_start_matches("\\x05")
        .to_string()
}

fn flip(pair: &Pair, kill: bool) -> crate::support::http::Answer {
    let body = json!({ "to": "target_first", "force": true, "wait": true, "kill": kill });
    pair.proxy
        .post(&format!("/v1/routes/{ROUTE}/advance"), &body)
}

fn refused(pair: &Pair, has: &str) {
    let answer = flip(pair, false);
    assert_eq!(answer.status, 409, "{has}: {answer:?}");
    for part in [has, USER] {
        assert!(
            answer.body.contains(part),
            "{part} is not in {}",
            answer.body
        );
    }
    assert_eq!(pair.proxy.phase(ROUTE), "source_first");
}

/// Statements that begin and end what keeps a session, and its name.
const PINS: [(&[&str], &[&str], &str); 8] = [
    (
        &[
            "CREATE TEMPORARY TABLE tmp1 (i INT)",
            "INSERT INTO tmp1 VALUES (1)",
        ],
        &["SELECT * FROM tmp1", "DROP TEMPORARY TABLE tmp1"],
        "temporary table",
    ),
    (
        &["CREATE TEMPORARY TABLE tmp2 SELECT * FROM r"],
        &["UPDATE r SET v = v + 1 WHERE id = 1", "DROP TABLE tmp2"],
        "temporary table",
    ),
    (
        &[
            "PREPARE s FROM 'CREATE TEMPORARY TABLE tmp3 (i INT)'",
            "EXECUTE s",
        ],
        &["DROP TABLE tmp3"],
        "temporary table",
    ),
    (
        &["SET @x = 1; CREATE TEMPORARY TABLE tmp4 (i INT); SET @x = 2"],
        &["ALTER TABLE tmp4 RENAME TO tmp5", "DROP TABLE tmp5"],
        "temporary table",
    ),
    (
        &["SET @n = 1; LOCK TABLES r READ"],
        &["UNLOCK TABLES"],
        "locked tables",
    ),
    (&["LOCK TABLES r READ"], &["UNLOCK TABLES"], "locked tables"),
    (
        &["HANDLER r OPEN AS h"],
        &["HANDLER h READ FIRST", "HANDLER h CLOSE"],
        "open HANDLER",
    ),
    (
        &["XA START 'one'"],
        &["XA END 'one'", "XA ROLLBACK 'one'"],
        "XA transaction",
    ),
];

#[test]
fn what_cannot_be_moved_holds_a_flip_up_and_is_named() {
    for index in SAME {
        let Some((pair, _turn)) = Pair::get_impatient(index) else {
            return;
        };
        pair.reset();
        for (begin, end, has) in PINS {
            let mut raw = pair.session(pair.proxy.port());
            begin.iter().for_each(|sql| drop(run(&mut raw, sql)));
            refused(pair, has);
            end.iter().for_each(|sql| drop(run(&mut raw, sql)));
            let answer = flip(pair, false);
            assert!(answer.ok(), "{has}: {answer:?}\n{}", pair.proxy.log());
            run(&mut raw, "SELECT v FROM r WHERE id = 1");
            pair.to("source_first");
        }
        compare::assert_equal(pair.source, pair.target, &["st.r"]);
    }
}

/// An edge that leaves the active side where it is does not wait for them, a
/// flip lets them through its closed gate, and `--kill` ends them.
#[test]
fn a_pinned_session_goes_on_until_it_is_killed() {
    for index in SAME {
        let Some((pair, _turn)) = Pair::get_impatient(index) else {
            return;
        };
        pair.reset();
        let mut raw = pair.session(pair.proxy.port());
        run(&mut raw, "CREATE TEMPORARY TABLE tmp1 (i INT)");
        pair.proxy.must_rollback(ROUTE, "source_only");
        pair.proxy.must_advance(ROUTE, "source_first");
        std::thread::scope(|scope| {
            let flipping = scope.spawn(|| flip(pair, false));
            std::thread::sleep(MEANWHILE);
            run(&mut raw, "UPDATE r SET v = v + 1 WHERE id = 1");
            run(&mut raw, "DROP TABLE tmp1");
            let answer = flipping.join().expect("flip");
            assert!(answer.ok(), "{answer:?}\n{}", pair.proxy.log());
        });
        pair.to("source_first");
        run(&mut raw, "CREATE TEMPORARY TABLE tmp1 (i INT)");
        let answer = flip(pair, true);
        assert!(answer.ok(), "{answer:?}");
        assert!(raw.query("SELECT 1").is_err(), "it was not ended");
        compare::assert_equal(pair.source, pair.target, &["st.r"]);
        pair.to("source_first");
    }
}

#[test]
fn an_open_cursor_holds_a_flip_up() {
    for index in SAME {
        let Some((pair, _turn)) = Pair::get_impatient(index) else {
            return;
        };
        pair.reset();
        let mut raw = pair.session(pair.proxy.port());
        let packets = raw
            .ask(COM_STMT_PREPARE, b"SELECT id FROM r ORDER BY id")
            .expect("prepare");
        let id = packets[0].payload[1..5].to_vec();
        let execute = [&id[..], &[1, 1, 0, 0, 0]].concat();
        raw.command(COM_STMT_EXECUTE, &execute).expect("execute");
        raw.cursor_opened().expect("cursor");
        refused(pair, "open cursor");
        raw.ask(COM_STMT_CLOSE, &id).expect("close");
        run(&mut raw, "SELECT 1");
        assert!(flip(pair, false).ok());
        pair.to("source_first");
    }
}

/// A prepared XA transaction belongs to no session; whoever ends it, in
/// whatever spelling, lets the flip pass.
#[test]
fn a_prepared_xa_transaction_holds_a_flip_up() {
    for index in SAME {
        let Some((pair, _turn)) = Pair::get_impatient(index) else {
            return;
        };
        pair.reset();
        let mut raw = pair.session(pair.proxy.port());
        for sql in [
            "XA START 'two'",
            "UPDATE st.r SET v = 9 WHERE id = 5",
            "XA END 'two'",
            "XA PREPARE 'two'",
        ] {
            run(&mut raw, sql);
        }
        drop(raw);
        std::thread::sleep(MEANWHILE);
        let answer = flip(pair, false);
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.body.contains("prepared XA"), "{}", answer.body);
        // The next process finds it.
        pair.proxy.restart();
        let answer = flip(pair, false);
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.body.contains("prepared XA"), "{}", answer.body);
        let mut other = pair.session(pair.proxy.port());
        run(&mut other, "XA ROLLBACK X'74776f','',1");
        assert!(flip(pair, false).ok());
        pair.to("source_first");
    }
}

/// Temporary tables made on the new active side work with the routed tables
/// there, and hide nothing from the mirror.
#[test]
fn temporary_tables_after_a_flip() {
    for index in SAME {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        pair.reset();
        for phase in ["source_first", "target_first"] {
            pair.to(phase);
            let mut raw = pair.session(pair.proxy.port());
            run(
                &mut raw,
                "CREATE TEMPORARY TABLE picked SELECT id, v FROM r WHERE id < 3",
            );
            run(
                &mut raw,
                "INSERT INTO picked SELECT id, v FROM r WHERE id = 5",
            );
            let sum = "SELECT SUM(p.id + r.id) FROM picked p JOIN r ON r.id = p.id";
            assert_eq!(value(&mut raw, sum), "16");
            // Named in the CREATE, and still the mirrored table.
            assert_eq!(
                run(&mut raw, "UPDATE r SET v = v + 1 WHERE id = 2"),
                ["OK 1 0"]
            );
            run(&mut raw, "TRUNCATE TABLE picked");
            run(&mut raw, "ALTER TABLE picked ADD COLUMN more INT");
            run(&mut raw, "DROP TABLE picked");
            compare::assert_equal(pair.source, pair.target, &["st.r"]);
        }
        pair.to("source_first");
    }
}

/// Sessions of both sides agree on who holds which lock, inside transactions
/// too.
#[test]
fn user_level_locks_live_on_the_source() {
    for index in SAME {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        pair.reset();
        let mut old = pair.session(pair.proxy.port());
        assert_eq!(value(&mut old, "SELECT GET_LOCK('st', 0)"), "1");
        pair.to("target_first");
        let mut new = pair.session(pair.proxy.port());
        assert_eq!(value(&mut new, "SELECT IS_FREE_LOCK('st')"), "0");
        assert_eq!(value(&mut new, "SELECT GET_LOCK('st', 0)"), "0");
        assert_eq!(
            value(&mut old, "SELECT IS_USED_LOCK('st') = CONNECTION_ID()"),
            "1"
        );
        assert_eq!(value(&mut old, "SELECT RELEASE_LOCK('st')"), "1");
        run(&mut new, "BEGIN");
        run(&mut new, "UPDATE r SET v = 77 WHERE id = 1");
        let packets = new.query("SELECT GET_LOCK('st', 0)").expect("lock");
        let end = packets
            .last()
            .map(|p| OkPacket::parse(&p.payload, MODERN).expect("end").status);
        assert!(end.is_some_and(|s| s.has(Status::IN_TRANS)), "{end:?}");
        run(&mut new, "SET @held = IS_USED_LOCK('st') IS NOT NULL");
        assert_eq!(value(&mut new, "SELECT @held"), "1");
        assert_eq!(value(&mut old, "SELECT GET_LOCK('st', 0)"), "0");
        run(&mut new, "DO RELEASE_LOCK('st')");
        run(&mut new, "ROLLBACK");
        assert_eq!(value(&mut new, "SELECT v FROM r WHERE id = 1"), "1");
        assert_eq!(value(&mut old, "SELECT GET_LOCK('st', 0)"), "1");
        pair.to("source_first");
        assert_eq!(value(&mut new, "SELECT IS_FREE_LOCK('st')"), "0");
    }
}

/// What a session was given by the server it began on, it keeps on the other.
#[test]
fn defaults_of_the_first_server_are_kept() {
    for index in 0..4 {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        let own = |server: &crate::support::Server| server.one("SELECT @@GLOBAL.max_sort_length");
        assert_ne!(own(pair.source), own(pair.target));
        let ask = "SELECT CAST(@@max_sort_length AS CHAR)";
        let mut old = pair.session(pair.proxy.port());
        assert_eq!(value(&mut old, ask), own(pair.source));
        pair.to("target_first");
        let mut new = pair.session(pair.proxy.port());
        assert_eq!(value(&mut old, ask), own(pair.source));
        assert_eq!(value(&mut new, ask), own(pair.target));
        pair.to("source_first");
        assert_eq!(value(&mut old, ask), own(pair.source));
        assert_eq!(value(&mut new, ask), own(pair.target));
    }
}

const SESSIONS: u64 = 8;
const FLIPS: u32 = 12;

/// Each session changes its own state and asks for it again while the active
/// side changes under it.
#[test]
fn state_follows_under_load() {
    for index in SAME {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        pair.reset();
        let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for n in 0..SESSIONS {
                let (done, rounds) = (&done, &rounds);
                scope.spawn(move || {
                    let mut raw = pair.session(pair.proxy.port());
                    let mut round = 0;
                    while !done.load(Ordering::Relaxed) {
                        round += 1;
                        one_round(&mut raw, n * 10_000 + 1024 + round);
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..FLIPS {
                std::thread::sleep(MEANWHILE / 4);
                pair.to("target_first");
                std::thread::sleep(MEANWHILE / 4);
                pair.to("source_first");
            }
            done.store(true, Ordering::Relaxed);
        });
        let rounds = rounds.load(Ordering::Relaxed);
        println!(
            "{}: {rounds} rounds during {} flips",
            pair.name(),
            2 * FLIPS
        );
        assert!(rounds > SESSIONS);
        compare::assert_equal(pair.source, pair.target, &["st.a"]);
    }
}

fn one_round(raw: &mut Raw, n: u64) {
    run(
        raw,
        &format!("SET @n = {n}, SESSION group_concat_max_len = {n}"),
    );
    let made = run(raw, &format!("INSERT INTO a (v) VALUES ({n})"));
    assert_eq!(run(raw, "SELECT LAST_INSERT_ID()").len(), 1);
    let id = value(raw, "SELECT CAST(LAST_INSERT_ID() AS CHAR)");
    assert_eq!(made, [format!("OK 1 {id}")]);
    assert_eq!(value(raw, &format!("SELECT @n = {n}")), "1");
    run(raw, "START TRANSACTION READ ONLY");
    let refused = raw
        .query("UPDATE r SET v = 0 WHERE id = 1")
        .expect("update");
    assert_eq!(values(&refused, MODERN), ["ERR Ok(1792)"]);
    run(raw, "COMMIT");
    run(raw, "BEGIN");
    run(raw, "SAVEPOINT s");
    run(raw, "UPDATE a SET s = @n WHERE id = LAST_INSERT_ID()");
    run(raw, "COMMIT");
    let kept = format!("SELECT @@group_concat_max_len = {n} AND @n = {n}");
    assert_eq!(value(raw, &kept), "1");
    assert_eq!(
        value(raw, &format!("SELECT s = '{n}' FROM a WHERE id = {id}")),
        "1"
    );
}
