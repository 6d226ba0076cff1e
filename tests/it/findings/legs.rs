//! H10, M1, M2, M5, M9: the mirror's leg: how it logs in, what it has of the
//! transaction and of prepared statements, and what becomes of it.

use super::{Client, numbered, on_both, root, shared};
use crate::order::{counts, journal, patient};
use crate::support::proc::block_on;
use crate::support::relay::{Mode, Relay};
use crate::support::servers::tls_opts;
use crate::support::{Family, Proxy, ProxyOptions, compare, servers};
use crate::transparency::raw::{Login, ORDINARY, Raw};
use lockstep::wire::command::{COM_STMT_EXECUTE, COM_STMT_PREPARE, COM_STMT_SEND_LONG_DATA};
use mysql_async::Conn;
use std::time::Duration;

/// H10: home knows the account's password hash and asks for no clear password,
/// so on plain TCP the other leg cannot be opened. That is legal: writes are
/// deferred and counted. Over TLS the clear password is asked for.
#[test]
fn h10_a_session_without_its_other_leg_works() {
    let Some((source, target)) = shared(Family::MySql) else {
        return;
    };
    for server in [source, target] {
        server.exec(&numbered("t.f10_a"));
        server.exec(
            "CREATE USER 'h10'@'%' IDENTIFIED WITH caching_sha2_password BY 'h10-pw';\n\
             GRANT ALL PRIVILEGES ON t.* TO 'h10'@'%'",
        );
    }
    // Home caches it; the proxy has never seen it.
    let direct = source.opts("h10", "h10-pw", Some("t"));
    block_on(Conn::new(direct)).expect("direct login");
    let mut options = ProxyOptions::route("r", &["t.f10_a"]);
    options.extra_yaml = crate::order::PATIENT.to_string();
    let proxy = Proxy::start(source, target, options);
    proxy.must_advance("r", "source_first");
    // The follower would bring the deferred write over.
    proxy.pause("r");
    let plain = || {
        let opts = servers::opts(proxy.port(), "h10", "h10-pw", Some("t"));
        Client(block_on(Conn::new(opts)).expect("plain login"))
    };
    let mut client = plain();
    assert_eq!(client.run("UPDATE f10_a SET v=10 WHERE id=1"), 1);
    let now = counts(&proxy, "r");
    assert_eq!((now.failed, now.deferred), (0, 1), "{}", journal(&proxy));
    assert_eq!(proxy.status()["sessions"]["without_other_leg"], 1);
    assert_eq!(target.one("SELECT v FROM t.f10_a WHERE id=1"), "1");

    let over_tls = tls_opts(proxy.port(), "h10", "h10-pw", Some("t"));
    let mut tls = Client(block_on(Conn::new(over_tls)).expect("TLS login"));
    assert_eq!(tls.run("UPDATE f10_a SET v=10 WHERE id=2"), 1);
    assert_eq!(target.one("SELECT v FROM t.f10_a WHERE id=2"), "10");
    // Learned: it serves plain sessions too.
    assert_eq!(plain().run("UPDATE f10_a SET v=10 WHERE id=3"), 1);
    assert_eq!(target.one("SELECT v FROM t.f10_a WHERE id=3"), "10");
    // A wrong password is refused with the server's own error.
    let wrong = servers::opts(proxy.port(), "h10", "wrong", Some("t"));
    match block_on(Conn::new(wrong)) {
        Err(mysql_async::Error::Server(e)) => assert_eq!(e.code, 1045),
        other => panic!("{:?}", other.map(|_| "logged in")),
    }
}

/// M1: a savepoint set before the mirror's BEGIN is not there for
/// `ROLLBACK TO`, unless it is set again.
#[test]
fn m1_savepoints_reach_a_part_that_begins_later() {
    on_both(|pair| {
        let before = pair.counts("m1");
        let mut client = pair.client();
        for script in [
            // Back to before the mirror's part.
            "BEGIN; SAVEPOINT a; UPDATE t.f_m1_a SET v=v+100 WHERE id=1; ROLLBACK TO a; COMMIT",
            // The same, and on.
            "BEGIN; SAVEPOINT a; UPDATE t.f_m1_a SET v=v+100 WHERE id=1; ROLLBACK TO SAVEPOINT a; \
             UPDATE t.f_m1_a SET v=v+1 WHERE id=2; COMMIT",
            "START TRANSACTION; SAVEPOINT `A b`; SAVEPOINT c; UPDATE t.f_m1_a SET v=v+3 WHERE id=3; \
             SAVEPOINT d; UPDATE t.f_m1_a SET v=v+100 WHERE id=4; ROLLBACK TO d; RELEASE SAVEPOINT c; \
             UPDATE t.f_m1_a SET v=v+5 WHERE id=5; COMMIT",
            // A name used twice is the later place.
            "BEGIN; SAVEPOINT a; UPDATE t.f_m1_a SET v=v+1 WHERE id=1; SAVEPOINT A; \
             UPDATE t.f_m1_a SET v=v+100 WHERE id=2; ROLLBACK TO a; COMMIT",
            "SET autocommit=0; SAVEPOINT a; UPDATE t.f_m1_a SET v=v+6 WHERE id=6; ROLLBACK TO a; \
             UPDATE t.f_m1_a SET v=v+7 WHERE id=6; COMMIT; SET autocommit=1",
        ] {
            for sql in script.split("; ") {
                client.run(sql);
            }
            pair.assert_unmirrored("m1", before, 0, 0);
            pair.equal("t.f_m1_a");
        }
        client.run("BEGIN");
        assert_eq!(client.error("ROLLBACK TO SAVEPOINT nowhere"), 1305);
        client.run("UPDATE t.f_m1_a SET v=v+1 WHERE id=1");
        client.run("COMMIT");
        pair.equal("t.f_m1_a");
        pair.assert_unmirrored("m1", before, 0, 0);
    });
}

/// M2: after a deferred write, or one that failed on the mirror, the rest of
/// the transaction is deferred: it may work on rows that are not there.
#[test]
fn m2_the_rest_of_a_transaction_follows_what_was_deferred() {
    on_both(|pair| {
        let before = pair.counts("m2");
        let mut client = pair.client();
        let table = "t.f_m2_a";
        client.run("BEGIN");
        client.run(&format!("INSERT INTO {table} VALUES (20, 1)"));
        client.run(&format!(
            "INSERT INTO {table} SELECT 21, v FROM t.f_m2_b WHERE id=1"
        ));
        client.run(&format!("UPDATE {table} SET v=99 WHERE id=21"));
        client.run(&format!("UPDATE {table} SET v=99 WHERE id=20"));
        client.run("COMMIT");
        let now = pair.counts("m2");
        assert_eq!(now.failed, before.failed);
        // Its first write may be given up with the others.
        assert!(now.deferred - before.deferred >= 3, "{now:?}");
        let rows = format!("SELECT GROUP_CONCAT(v ORDER BY id) FROM {table} WHERE id IN (20,21)");
        assert_eq!(pair.source.one(&rows), "99,99");
        let on_mirror = super::first(pair.target, &rows);
        assert!(
            on_mirror.is_none() || on_mirror.as_deref() == Some("1"),
            "{on_mirror:?}"
        );
        // The next one is inline again.
        client.run(&format!("UPDATE {table} SET v=50 WHERE id=1"));
        assert_eq!(
            pair.target
                .one(&format!("SELECT v FROM {table} WHERE id=1")),
            "50"
        );

        // A write that only the mirror refuses.
        let before = pair.counts("m2");
        let mut planted = root(pair.target);
        planted.run(&format!("INSERT INTO {table} VALUES (30, 1)"));
        client.run("BEGIN");
        client.run(&format!("INSERT INTO {table} VALUES (30, 2)"));
        client.run(&format!("UPDATE {table} SET v=v+10 WHERE id=30"));
        client.run(&format!("UPDATE {table} SET v=51 WHERE id=2"));
        client.run("COMMIT");
        let rows = format!("SELECT GROUP_CONCAT(v ORDER BY id) FROM {table} WHERE id IN (2,30)");
        assert_eq!(pair.both(&rows), [Some("51,12".into()), Some("2,1".into())]);
        pair.assert_unmirrored("m2", before, 1, 2);
        client.run(&format!("UPDATE {table} SET v=52 WHERE id=3"));
        assert_eq!(
            pair.target
                .one(&format!("SELECT v FROM {table} WHERE id=3")),
            "52"
        );
    });
}

/// M5: clients bind parameter types with the first execution only, and send
/// long data ahead of it: a leg that did not get them must be given them.
#[test]
fn m5_types_and_long_data_reach_both_legs() {
    on_both(|pair| {
        let before = pair.counts("m5");
        let login = Login::root("t", ORDINARY);
        let mut raw = Raw::connect(pair.proxy.port(), &login).expect("login");
        let prepare = |raw: &mut Raw, sql: &str| -> [u8; 4] {
            let answer = raw.ask(COM_STMT_PREPARE, sql.as_bytes()).expect("prepare");
            let head = &answer[0].payload;
            assert_eq!(
                head.first(),
                Some(&0),
                "{:?}",
                head.escape_ascii().to_string()
            );
            [head[1], head[2], head[3], head[4]]
        };
        let execute = |raw: &mut Raw, id: [u8; 4], body: &[u8]| {
            let mut bytes = id.to_vec();
            bytes.extend([0, 1, 0, 0, 0]); // no cursor, one iteration
            bytes.extend_from_slice(body);
            let answer = raw.ask(COM_STMT_EXECUTE, &bytes).expect("execute");
            let head = &answer[0].payload;
            assert_eq!(
                head.first(),
                Some(&0),
                "{:?}",
                head.escape_ascii().to_string()
            );
        };
        const LONGLONG: [u8; 2] = [8, 0];
        const UNSIGNED: [u8; 2] = [8, 0x80];
        const BLOB: [u8; 2] = [252, 0];
        let number = |n: u64| n.to_le_bytes().to_vec();
        let insert = prepare(&mut raw, "INSERT INTO f_m5_l (id, s, n) VALUES (?, ?, ?)");
        let types = [LONGLONG, BLOB, UNSIGNED].concat();
        let long = |raw: &mut Raw, text: &[u8]| {
            let body = [&insert[..], &[1, 0], text].concat();
            raw.ask(COM_STMT_SEND_LONG_DATA, &body).expect("long data");
        };
        // Types bound, long data in two parts; no NULL.
        long(&mut raw, b"first ");
        long(&mut raw, &[b'x'; 70_000]);
        let first = [&[0, 1], &types[..], &number(1), &number(u64::MAX)].concat();
        execute(&mut raw, insert, &first);
        // No types: those of the first time, which only one leg may have had.
        long(&mut raw, b"second");
        let again = |n: u64| [&[0, 0][..], &number(n), &number(u64::MAX - n)].concat();
        execute(&mut raw, insert, &again(2));
        // New types, with one that the active side refuses, so that the mirror
        // does not get it; then one that relies on them.
        let texts = [BLOB, BLOB, UNSIGNED].concat();
        let text = |id: u8| [&[1, id, 1, b'z'][..], &number(9)].concat();
        let taken = [&insert[..], &[0, 1, 0, 0, 0, 0, 1], &texts, &text(b'1')].concat();
        let answer = raw.ask(COM_STMT_EXECUTE, &taken).expect("execute");
        assert_eq!(
            answer[0].payload.first(),
            Some(&0xFF),
            "a key that is taken"
        );
        execute(&mut raw, insert, &[&[0, 0][..], &text(b'5')].concat());
        // The first types again, for the rest.
        let first = [&[0, 1], &types[..], &number(4), &[1, b'y'], &number(4)].concat();
        execute(&mut raw, insert, &first);
        // The mirror's leg is ended: a new one knows nothing of the statement.
        let legs = "SELECT id FROM information_schema.processlist WHERE user='root' AND db='t'";
        for row in pair.target.query(legs) {
            let id = row.into_iter().flatten().next().expect("id");
            let _ = root(pair.target).try_run(&format!("KILL {id}"));
        }
        let update = prepare(&mut raw, "UPDATE f_m5_a SET v=? WHERE id=?");
        let bound = [&[0, 1], &LONGLONG[..], &LONGLONG, &number(70), &number(1)].concat();
        execute(&mut raw, update, &bound);
        let unmirrored = pair.counts("m5");
        let lost = unmirrored.failed + unmirrored.deferred - before.failed - before.deferred;
        assert!(lost <= 1, "one write may notice the lost leg, not {lost}");
        std::thread::sleep(Duration::from_millis(1_200)); // a leg is tried again after a second
        long(&mut raw, b"third");
        execute(&mut raw, insert, &again(3));
        let again = [&[0, 0][..], &number(71), &number(2)].concat();
        execute(&mut raw, update, &again);
        pair.equal("t.f_m5_l");
        assert_eq!(
            pair.both("SELECT v FROM t.f_m5_a WHERE id=2"),
            [Some("71".into()), Some("71".into())]
        );
        assert_eq!(
            pair.both("SELECT CONCAT(n, ' ', s) FROM t.f_m5_l WHERE id=3"),
            [
                Some("18446744073709551612 third".into()),
                Some("18446744073709551612 third".into())
            ]
        );
    });
}

/// What ends or marks a transaction can be prepared, too (all of it on MariaDB):
/// the mirror's part is not to be committed where the active side's was not.
#[test]
fn a_prepared_rollback_is_one_on_both_sides() {
    const SCRIPTS: [&[&str]; 3] = [
        &["UPDATE", "ROLLBACK"],
        &["SAVEPOINT a", "UPDATE", "ROLLBACK TO a", "COMMIT"],
        &[
            "UPDATE",
            "SAVEPOINT a",
            "ROLLBACK AND CHAIN",
            "UPDATE",
            "ROLLBACK",
        ],
    ];
    on_both(|pair| {
        let login = Login::root("t", ORDINARY);
        let mut raw = Raw::connect(pair.proxy.port(), &login).expect("login");
        let execute = |raw: &mut Raw, sql: &str| {
            let answer = raw.ask(COM_STMT_PREPARE, sql.as_bytes()).expect("prepare");
            let head = &answer[0].payload;
            if head.first() == Some(&0xFF) {
                // This server does not prepare it.
                raw.query(sql).expect("the text");
                return;
            }
            let body = [&head[1..5], &[0, 1, 0, 0, 0]].concat();
            let answer = raw.ask(COM_STMT_EXECUTE, &body).expect("execute");
            assert_eq!(answer[0].payload.first(), Some(&0), "{sql}");
        };
        for (id, steps) in (1..).zip(SCRIPTS) {
            raw.query("BEGIN").expect("BEGIN");
            for step in steps {
                if *step == "UPDATE" {
                    let sql = format!("UPDATE f_pt_a SET v=v+1000 WHERE id={id}");
                    raw.query(&sql).expect("an update");
                } else {
                    execute(&mut raw, step);
                }
            }
            let v = pair.both(&format!("SELECT v FROM t.f_pt_a WHERE id={id}"));
            let was = Some(id.to_string());
            assert_eq!(v, [was.clone(), was], "{}: {steps:?}", pair.family);
        }
    });
}

/// The race: 1. The mirror answers a prepared read, with its types; 2. in a transaction the
/// active side is to execute it, without them: it must have had them.
#[test]
fn types_that_a_mirrored_read_had_reach_the_active_side() {
    on_both(|pair| {
        let answer = pair.proxy.reads("pt", 100);
        assert!(answer.ok(), "{answer:?}");
        let login = Login::root("t", ORDINARY);
        let mut raw = Raw::connect(pair.proxy.port(), &login).expect("login");
        let prepare = b"SELECT v FROM f_pt_a WHERE id=?";
        let answer = raw.ask(COM_STMT_PREPARE, prepare).expect("prepare");
        let id = answer[0].payload[1..5].to_vec();
        let value = |raw: &mut Raw, body: &[u8]| -> i64 {
            let bytes = [&id[..], &[0, 1, 0, 0, 0], body].concat();
            let answer = raw.ask(COM_STMT_EXECUTE, &bytes).expect("execute");
            let mut rows = answer.iter().map(|p| &p.payload);
            let row = rows.rfind(|p| p.len() == 10 && p[0] == 0);
            let row = row.unwrap_or_else(|| panic!("{}: no row", pair.family));
            i64::from_le_bytes(row[2..].try_into().expect("a BIGINT"))
        };
        let typed = [&[0, 1, 8, 0][..], &5u64.to_le_bytes()].concat();
        assert_eq!(value(&mut raw, &typed), 5);
        raw.query("BEGIN").expect("BEGIN");
        let untyped = [&[0, 0][..], &6u64.to_le_bytes()].concat();
        assert_eq!(value(&mut raw, &untyped), 6);
        raw.query("ROLLBACK").expect("ROLLBACK");
        assert!(pair.proxy.reads("pt", 0).ok());
    });
}

/// M9: the active side is lost while its COMMIT runs: whether it took is known
/// to its log alone, so the mirror is rolled back, and the journal says where
/// to look.
#[test]
fn m9_the_mirror_is_rolled_back_when_the_active_is_lost_during_commit() {
    for family in Family::BOTH {
        let Some((source, target)) = shared(family) else {
            return;
        };
        for server in [source, target] {
            server.exec(&numbered("t.f9_a"));
        }
        let relay = Relay::start(&source.address());
        let mut options = ProxyOptions::route("r", &["t.f9_a"]);
        options.extra_yaml = patient();
        options.source_address = Some(relay.address());
        let proxy = Proxy::start(source, target, options);
        proxy.must_advance("r", "source_first");
        let wait = Duration::from_millis(1_500);
        for (row, explicit) in [(1, true), (2, false)] {
            let before = counts(&proxy, "r");
            let mut client = Client(block_on(proxy.conn(Some("t"))));
            client.run("UPDATE f9_a SET v=v+1 WHERE id=6"); // both legs are open
            let sql = format!("UPDATE f9_a SET v=100 WHERE id={row}");
            let last = if explicit {
                client.run("BEGIN");
                client.run(&sql);
                relay.set(Mode::Slow(wait));
                client.start("COMMIT")
            } else {
                // The statement's answer comes late, then that of our COMMIT.
                relay.set(Mode::Slow(wait));
                client.start(&sql)
            };
            crate::support::proc::wait_for("the active's commit", 4 * wait, || {
                source.one(&format!("SELECT v FROM t.f9_a WHERE id={row}")) == "100"
            });
            relay.set(Mode::Refuse);
            let (_, done) = last.end();
            assert!(done.is_err(), "{family}: the client was told of a success");
            let unchanged = format!("SELECT v FROM t.f9_a WHERE id={row}");
            assert_eq!(target.one(&unchanged), row.to_string(), "{family}");
            let now = counts(&proxy, "r");
            let noted = journal(&proxy);
            assert!(
                noted.contains("active_lost"),
                "{family}: nothing in the journal: {before:?} {now:?} {noted}"
            );
            // The mirror's locks are gone too.
            target.exec(&format!(
                "SET SESSION innodb_lock_wait_timeout=3;\nUPDATE t.f9_a SET v=100 WHERE id={row}"
            ));
            relay.set(Mode::Pass);
        }
        compare::assert_equal(source, target, &["t.f9_a"]);
    }
}

/// H1: what a session has on the leg of another active side outlives that leg as
/// a mirror's: 1. @x is set on the target, where its table is active; 2. the leg
/// is the mirror of another table's write, which fails there, and is discarded;
/// 3. @x is NULL, and LAST_INSERT_ID() another one. What cannot be had any more
/// ends the session instead.
#[test]
fn h1_values_outlive_the_mirrors_leg() {
    for family in Family::BOTH {
        let Some((source, target)) = shared(family) else {
            return;
        };
        for server in [source, target] {
            server.exec(
                "CREATE TABLE t.f1v_a (id INT AUTO_INCREMENT PRIMARY KEY, v INT);\n\
                 INSERT INTO t.f1v_a VALUES (6, 42);\n\
                 CREATE TABLE t.f1v_b (id INT PRIMARY KEY, u INT UNIQUE);\n\
                 INSERT INTO t.f1v_b VALUES (1,1),(2,2)",
            );
        }
        let mut options = ProxyOptions::route("a", &["t.f1v_a"]).and_route("b", &["t.f1v_b"]);
        options.extra_yaml = patient();
        let proxy = Proxy::start(source, target, options);
        proxy.must_advance("a", "target_first");
        proxy.must_advance("b", "source_first");
        proxy.pause("b");
        // Only the mirror refuses what takes these.
        target.exec("INSERT INTO t.f1v_b VALUES (100,50),(101,51)");
        let mut client = Client(block_on(proxy.conn(Some("t"))));
        client.run("SELECT @x := v FROM f1v_a WHERE id = 6");
        client.run("UPDATE f1v_b SET u = 50 WHERE id = 1");
        assert_eq!(
            counts(&proxy, "b").failed,
            1,
            "{family}\n{}",
            journal(&proxy)
        );
        assert_eq!(client.value::<i64>("SELECT @x"), 42, "{family}");
        // The lead is the source, and has not inserted anything.
        client.run("INSERT INTO f1v_a (v) VALUES (1)");
        assert_eq!(
            client.value::<u64>("SELECT LAST_INSERT_ID()"),
            7,
            "{family}"
        );
        client.run("INSERT INTO f1v_a (v) VALUES (2)");
        client.run("UPDATE f1v_b SET u = 51 WHERE id = 2");
        assert_eq!(
            counts(&proxy, "b").failed,
            2,
            "{family}\n{}",
            journal(&proxy)
        );
        client.run("SELECT 1");
        let asked = client.try_run("SELECT LAST_INSERT_ID()");
        assert!(
            matches!(&asked, Err(e) if !matches!(e, mysql_async::Error::Server(_))),
            "{family}: {asked:?}"
        );
    }
}
