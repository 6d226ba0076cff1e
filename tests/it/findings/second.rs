//! Second parts: a transaction over routes that are active on different sides
//! has work on both legs, none of which is a copy that may be given up.

use super::{Client, first, numbered, root, shared};
use crate::order::patient;
use crate::support::proc::{block_on, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server};
use mysql_async::prelude::Queryable;
use std::time::Duration;

/// Two routes, `sx` active on the source and `sy` on the target, and a table
/// without a route, `su`.
pub(super) struct Two {
    pub source: &'static Server,
    pub target: &'static Server,
    pub proxy: Proxy,
    pub family: Family,
}

impl Two {
    fn start(family: Family, name: &str) -> Option<Two> {
        let (source, target) = shared(family)?;
        let [x, y, u] = ["x", "y", "u"].map(|t| format!("t.f_{name}{t}"));
        for server in [source, target] {
            for table in [&x, &y, &u] {
                server.exec(&numbered(table));
            }
            server.exec(&format!("CREATE PROCEDURE t.f_{name}_nothing() DO 1"));
        }
        let mut options = ProxyOptions::route("sx", &[&x]).and_route("sy", &[&y]);
        options.extra_yaml = patient();
        let proxy = Proxy::start(source, target, options);
        proxy.must_advance("sx", "source_first");
        proxy.must_advance("sy", "source_first");
        proxy.must_advance("sy", "target_first");
        Some(Two {
            source,
            target,
            proxy,
            family,
        })
    }

    pub fn client(&self) -> Client {
        Client(block_on(self.proxy.conn(Some("t"))))
    }

    /// `v` of a row on one side.
    pub fn v(&self, server: &Server, table: &str, id: u32) -> String {
        let sql = format!("SELECT v FROM t.{table} WHERE id={id}");
        first(server, &sql).unwrap_or_else(|| panic!("{}: {sql}", self.family))
    }
}

pub(super) fn on_both(name: &str, test: impl Fn(&Two)) {
    for family in Family::BOTH {
        if let Some(two) = Two::start(family, name) {
            test(&two);
        }
    }
}

/// The race: 1. The mirror's leg has copies, with autocommit off; 2. a statement that only
/// that leg can answer brings it to the session's state; 3. told autocommit=1,
/// it would commit what the active side rolls back.
#[test]
fn a_leg_with_copies_is_not_told_autocommit() {
    on_both("sa", |two| {
        let mut client = two.client();
        client.run("UPDATE f_say SET v=v+1 WHERE id=6"); // both legs are open
        let before = [
            "SELECT GET_LOCK('f_sa',1)",
            "PREPARE p FROM 'SELECT v FROM f_sau WHERE id=1'",
            "SELECT COUNT(*) FROM f_sau",
            "SELECT COUNT(*) FROM f_sax",
            "UPDATE f_sau SET v=10 WHERE id=1",
            "UPDATE f_sax SET v=10 WHERE id=1",
        ];
        for statement in before {
            client.run("BEGIN");
            client.run("UPDATE f_say SET v=100 WHERE id=1");
            client.run(statement);
            let copied = two.v(two.source, "f_say", 1);
            assert_eq!(copied, "1", "{} {statement}: committed early", two.family);
            client.run("ROLLBACK");
            for server in [two.source, two.target] {
                assert_eq!(two.v(server, "f_say", 1), "1", "{statement}");
                assert_eq!(two.v(server, "f_sau", 1), "1", "{statement}");
                assert_eq!(two.v(server, "f_sax", 1), "1", "{statement}");
            }
        }
        client.run("BEGIN");
        client.run("UPDATE f_say SET v=100 WHERE id=1");
        client.run("UPDATE f_sax SET v=100 WHERE id=1");
        client.run("COMMIT");
        assert_eq!(two.v(two.target, "f_say", 1), "100");
        assert_eq!(two.v(two.source, "f_sax", 1), "100");
        // Healed there, or copied before the second part began.
        wait_for("both sides", Duration::from_secs(20), || {
            two.v(two.source, "f_say", 1) == "100" && two.v(two.target, "f_sax", 1) == "100"
        });
        assert_eq!(client.value::<i64>("SELECT @@autocommit"), 1);
        assert_eq!(client.run("UPDATE f_say SET v=101 WHERE id=1"), 1);
        assert_eq!(two.v(two.target, "f_say", 1), "101");
    });
}

/// Savepoints from before and after its beginning, and a routine, which may do
/// anything to a transaction, leave a second part what the client made of it.
#[test]
fn a_second_part_is_committed_and_rolled_back_as_the_first() {
    on_both("sb", |two| {
        let mut client = two.client();
        for (script, x, y) in [
            (
                "UPDATE f_sbx SET v=20 WHERE id=1; UPDATE f_sby SET v=20 WHERE id=1; COMMIT",
                "20",
                "20",
            ),
            (
                "UPDATE f_sbx SET v=30 WHERE id=1; UPDATE f_sby SET v=30 WHERE id=1; ROLLBACK",
                "20",
                "20",
            ),
            (
                "UPDATE f_sbx SET v=40 WHERE id=1; SAVEPOINT a; UPDATE f_sby SET v=40 WHERE id=1; \
                 ROLLBACK TO a; COMMIT",
                "40",
                "20",
            ),
            (
                "UPDATE f_sbx SET v=50 WHERE id=1; UPDATE f_sby SET v=50 WHERE id=1; SAVEPOINT b; \
                 UPDATE f_sby SET v=51 WHERE id=1; UPDATE f_sbx SET v=51 WHERE id=1; ROLLBACK TO b; \
                 COMMIT",
                "50",
                "50",
            ),
            (
                "UPDATE f_sbx SET v=60 WHERE id=1; UPDATE f_sby SET v=60 WHERE id=1; \
                 CALL f_sb_nothing(); COMMIT",
                "60",
                "60",
            ),
            // The other way round, and ended by the next one's beginning.
            (
                "UPDATE f_sby SET v=70 WHERE id=1; UPDATE f_sbx SET v=70 WHERE id=1; BEGIN; ROLLBACK",
                "70",
                "70",
            ),
            (
                "UPDATE f_sbx SET v=80 WHERE id=1; UPDATE f_sby SET v=80 WHERE id=1; \
                 COMMIT AND CHAIN; UPDATE f_sby SET v=81 WHERE id=1; ROLLBACK",
                "80",
                "80",
            ),
        ] {
            client.run("BEGIN");
            for statement in script.split("; ") {
                client.run(statement);
            }
            assert_eq!(two.v(two.source, "f_sbx", 1), x, "{} {script}", two.family);
            assert_eq!(two.v(two.target, "f_sby", 1), y, "{} {script}", two.family);
        }
        // What it was begun as, it is on both.
        client.run("START TRANSACTION READ ONLY");
        assert_eq!(client.value::<i64>("SELECT v FROM f_sbx WHERE id=1"), 80);
        assert_eq!(client.error("UPDATE f_sby SET v=90 WHERE id=1"), 1792);
        client.run("ROLLBACK");
    });
}

/// The race: 1. A deadlock's victim on the second leg: the client is told that its
/// transaction was rolled back; 2. it begins again, which would commit what the
/// lead still has.
#[test]
fn a_deadlock_of_the_second_part_rolls_the_first_back() {
    on_both("sc", |two| {
        let mut client = two.client();
        client.run("BEGIN");
        client.run("UPDATE f_scx SET v=99 WHERE id=4");
        client.run("UPDATE f_scy SET v=99 WHERE id=3");
        let mut other = root(two.target);
        other.run("BEGIN");
        // Whoever has changed less is the victim.
        other.run("UPDATE t.f_scu SET v=v+1");
        other.run("UPDATE t.f_scy SET v=44 WHERE id=4");
        let waiting = client.start("UPDATE f_scy SET v=99 WHERE id=4");
        assert!(waiting.waits());
        other.run("UPDATE t.f_scy SET v=33 WHERE id=3");
        let (mut client, done) = waiting.end();
        let error = done.expect_err("a deadlock").to_string();
        assert!(error.contains("1213"), "{}: {error}", two.family);
        other.run("ROLLBACK");
        client.run("BEGIN");
        client.run("COMMIT");
        assert_eq!(two.v(two.source, "f_scx", 4), "4", "{}", two.family);
        assert_eq!(two.v(two.target, "f_scy", 3), "3", "{}", two.family);
    });
}

/// The leg of a second part is lost: what it had was no copy, so the session
/// ends and the first part with it.
#[test]
fn a_lost_second_part_ends_the_session() {
    on_both("sd", |two| {
        let mut client = two.client();
        client.run("BEGIN");
        client.run("UPDATE f_sdx SET v=99 WHERE id=1");
        client.run("UPDATE f_sdy SET v=99 WHERE id=1");
        let id: u64 = client.value("SELECT CONNECTION_ID() FROM f_sdy WHERE id=1");
        two.target.exec(&format!("KILL {id}"));
        let there = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id={id}");
        wait_for("the leg's end", Duration::from_secs(10), || {
            two.target.one(&there) == "0"
        });
        assert!(
            client.try_run("COMMIT").is_err(),
            "{}: told of a success",
            two.family
        );
        assert_eq!(two.v(two.target, "f_sdy", 1), "1", "{}", two.family);
        wait_for("the first part's end", Duration::from_secs(10), || {
            two.v(two.source, "f_sdx", 1) == "1"
        });
        let free = "SET SESSION innodb_lock_wait_timeout=5;\nUPDATE t.f_sdx SET v=1 WHERE id=1";
        two.source.exec(free);
    });
}

/// The race: 1. A routine begins a transaction, writes, and fails: the error says
/// nothing of a transaction; 2. a read's answer is the first to show it; 3. a write
/// on the other side finds nothing done in it, moves it there, and what the
/// routine wrote is rolled back.
#[test]
fn what_a_failed_routine_began_is_not_lost() {
    on_both("se", |two| {
        for server in [two.source, two.target] {
            server.exec(
                "CREATE PROCEDURE t.f_se_begun() BEGIN START TRANSACTION; \
                 UPDATE t.f_seu SET v=v+10 WHERE id=1; SIGNAL SQLSTATE '45000'; END",
            );
        }
        let mut client = two.client();
        for (n, prepared) in [(1, false), (2, true)] {
            assert_eq!(client.error("CALL f_se_begun()"), 1644, "{}", two.family);
            if prepared {
                let read = client.0.exec_drop("SELECT v FROM f_seu WHERE id=?", (2,));
                block_on(read).expect("a prepared read");
            } else {
                client.run("SELECT v FROM f_seu WHERE id=2");
            }
            client.run(&format!("UPDATE f_sey SET v={n}00 WHERE id=1"));
            client.run("COMMIT");
            let kept = format!("{n}1");
            assert_eq!(two.v(two.source, "f_seu", 1), kept, "{}", two.family);
            assert_eq!(two.v(two.target, "f_sey", 1), format!("{n}00"));
        }
        // Nor committed by the BEGIN of a mirrored write.
        assert_eq!(client.error("CALL f_se_begun()"), 1644);
        client.run("UPDATE f_sex SET v=99 WHERE id=1");
        client.run("ROLLBACK");
        assert_eq!(two.v(two.source, "f_seu", 1), "21", "{}", two.family);
        for server in [two.source, two.target] {
            assert_eq!(two.v(server, "f_sex", 1), "1", "{}", two.family);
        }
    });
}

/// A text of which a piece ends or marks the transaction is refused before it
/// runs: no answer to it could say what became of both parts.
#[test]
fn what_ends_a_transaction_among_others_is_refused_beside_a_second_part() {
    on_both("sh", |two| {
        let mut client = two.client();
        client.run("BEGIN");
        client.run("UPDATE f_shx SET v=10 WHERE id=1");
        client.run("SAVEPOINT a");
        client.run("UPDATE f_shy SET v=10 WHERE id=1");
        for text in [
            "COMMIT; SELECT nope",
            "ROLLBACK; BEGIN",
            "ROLLBACK TO a; UPDATE f_shy SET v=11 WHERE id=1",
            "SELECT 1; SAVEPOINT a",
            "SET autocommit=1; SELECT 1",
            "SELECT 1; CREATE TABLE f_sh_none (i INT)",
            "ALTER TABLE f_shx ADD COLUMN w INT; SELECT 1",
            "SET `autocommit`=1; SELECT 1",
            "SET PASSWORD=''; SELECT 1",
        ] {
            assert_eq!(client.error(text), 1235, "{} {text}", two.family);
        }
        client.run("SET NAMES utf8mb4; SET @x=2; SELECT 3");
        client.run("COMMIT");
        assert_eq!(two.v(two.source, "f_shx", 1), "10", "{}", two.family);
        assert_eq!(two.v(two.target, "f_shy", 1), "10", "{}", two.family);
    });
}

/// The race: 1. A routine rolls the transaction back and begins another one, or
/// commits it and fails; 2. a transaction is open, or an error was answered, as if
/// it had not; 3. the second part is committed, or rolled back, alone.
#[test]
fn a_routine_that_ends_the_transaction_ends_the_session_beside_a_second_part() {
    on_both("si", |two| {
        for server in [two.source, two.target] {
            server.exec(
                "CREATE PROCEDURE t.f_si_again() BEGIN ROLLBACK; START TRANSACTION; END;\n\
                 CREATE PROCEDURE t.f_si_back() BEGIN ROLLBACK TO a; END;\n\
                 CREATE PROCEDURE t.f_si_fails() BEGIN SIGNAL SQLSTATE '45000'; END",
            );
        }
        for routine in ["again", "back"] {
            for (first, then) in [("x", "y"), ("y", "x")] {
                let mut client = two.client();
                client.run("BEGIN");
                client.run("SAVEPOINT a");
                client.run(&format!("UPDATE f_si{first} SET v=99 WHERE id=1"));
                client.run(&format!("UPDATE f_si{then} SET v=99 WHERE id=1"));
                let said = client.try_run(&format!("CALL f_si_{routine}()"));
                assert!(client.try_run("COMMIT").is_err(), "{routine}: {said:?}");
                for (server, table) in [(two.source, "f_six"), (two.target, "f_siy")] {
                    wait_for("a rollback", Duration::from_secs(10), || {
                        two.v(server, table, 1) == "1"
                    });
                }
            }
        }
        let mut client = two.client();
        client.run("BEGIN");
        client.run("UPDATE f_six SET v=20 WHERE id=1");
        client.run("UPDATE f_siy SET v=20 WHERE id=1");
        assert_eq!(client.error("CALL f_si_fails()"), 1644);
        assert_eq!(client.value::<i64>("SELECT ROW_COUNT()"), -1);
        client.run("CALL f_si_nothing()");
        assert_eq!(client.value::<i64>("SELECT ROW_COUNT()"), 0);
        client.run("COMMIT");
        assert_eq!(two.v(two.source, "f_six", 1), "20", "{}", two.family);
        assert_eq!(two.v(two.target, "f_siy", 1), "20", "{}", two.family);
    });
}
