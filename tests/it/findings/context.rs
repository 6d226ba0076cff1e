//! H2, M3, M4: what a statement depends on besides its text.

use super::{on_both, root};
use crate::support::Family;
use crate::support::proc::block_on;
use mysql_async::Value;
use mysql_async::prelude::Queryable;
use std::time::Duration;

/// H2: `SET INSERT_ID` is sticky: one that was not consumed leaks into the next
/// insert, and on MySQL taking it back forces the id 0.
#[test]
fn h2_an_insert_id_does_not_leak() {
    on_both(|pair| {
        let before = pair.counts("h2");
        let table = "t.f_h2_a";
        let mut client = pair.client();
        let id_of = |u: u32| pair.both(&format!("SELECT id FROM {table} WHERE u={u}"));
        let same = |u: u32| {
            let [a, b] = id_of(u);
            assert!(
                a.is_some() && a == b && a.as_deref() != Some("0"),
                "{u}: {a:?} {b:?}"
            );
        };
        client.run(&format!("INSERT INTO {table} (u) VALUES (1)"));
        same(1);
        // A duplicate burns an id on the active side alone.
        assert_eq!(
            client.error(&format!("INSERT INTO {table} (u) VALUES (1)")),
            1062
        );
        client.run(&format!("INSERT INTO {table} (u) VALUES (2)"));
        same(2);
        // An error before the write.
        assert_eq!(
            client.error(&format!("INSERT INTO {table} (nothing) VALUES (1)")),
            1054
        );
        client.run(&format!("INSERT INTO {table} (u) VALUES (3), (4), (5)"));
        (3..=5).for_each(same);
        let id: u64 = client.value("SELECT LAST_INSERT_ID()");
        assert_eq!(Some(id.to_string()), id_of(3)[0]);

        // Bound NULL and 0 generate; a value is given; each execution anew.
        let sql = format!("INSERT INTO {table} (id, u) VALUES (?, ?)");
        for (u, id) in [
            (10, Value::NULL),
            (11, Value::Int(0)),
            (12, Value::Int(5000)),
            (13, Value::NULL),
            (14, Value::Int(4000)),
            (15, Value::NULL),
        ] {
            let done = block_on(client.0.exec_drop(&sql, (id, u)));
            done.unwrap_or_else(|e| panic!("{u}: {e}"));
            same(u);
        }
        assert_eq!(id_of(15)[0].as_deref(), Some("5002"));
        // The client's own, and LAST_INSERT_ID() in the next statement.
        client.run("SET INSERT_ID=7000");
        client.run(&format!("INSERT INTO {table} (u) VALUES (20)"));
        same(20);
        assert_eq!(id_of(20)[0].as_deref(), Some("7000"));
        client.run("INSERT INTO t.f_h2_child (parent) VALUES (LAST_INSERT_ID())");
        pair.equal("t.f_h2_child");
        assert_eq!(
            pair.both("SELECT parent FROM t.f_h2_child")[1].as_deref(),
            Some("7000")
        );
        pair.equal(table);
        pair.assert_unmirrored("h2", before, 0, 0);

        // The mirror alone refuses: its INSERT_ID was set for nothing.
        let mut planted = root(pair.target);
        planted.run(&format!("INSERT INTO {table} (id, u) VALUES (9000, 30)"));
        client.run(&format!("INSERT INTO {table} (u) VALUES (30)"));
        pair.assert_unmirrored("h2", before, 1, 0);
        client.run(&format!("INSERT INTO {table} (u) VALUES (31)"));
        same(31);
        client.run("INSERT INTO t.f_h2_child (parent) VALUES (1)");
        pair.equal("t.f_h2_child");
        planted.run(&format!("DELETE FROM {table} WHERE id=9000"));

        // Some given, some generated: not the same on both sides by one id.
        client.run(&format!(
            "INSERT INTO {table} (id, u) VALUES (NULL, 40), (8000, 41)"
        ));
        pair.assert_unmirrored("h2", before, 1, 1);
        if pair.family == Family::MariaDb {
            let id: u64 =
                client.value(&format!("INSERT INTO {table} (u) VALUES (42) RETURNING id"));
            assert_eq!(Some(id.to_string()), id_of(42)[0]);
            pair.assert_unmirrored("h2", before, 1, 2);
        }
        client.run(&format!("INSERT INTO {table} (u) VALUES (43)"));
        same(43);
    });
}

/// M3: the mirror gets the active side's clock, to the microsecond; the
/// client's own timestamp stands; and time goes on afterwards.
#[test]
fn m3_both_sides_write_the_same_time() {
    on_both(|pair| {
        let before = pair.counts("m3");
        let mut client = pair.client();
        let table = "t.f_m3_a";
        client.run(&format!("INSERT INTO {table} (id, at) VALUES (1, NOW(6))"));
        client.run(&format!("INSERT INTO {table} (id, v) VALUES (2, 1)"));
        client.run(&format!("UPDATE {table} SET v=2 WHERE id=2"));
        let done = block_on(client.0.exec_drop(
            format!("INSERT INTO {table} (id, at) VALUES (?, SYSDATE(6) + INTERVAL 0 SECOND)"),
            (90,),
        ));
        done.expect("SYSDATE is deferred, not refused");
        client.run(&format!("DELETE FROM {table} WHERE id=90"));
        let now = || -> String {
            let mut one = pair.client();
            one.value("SELECT NOW(6)")
        };
        let first = now();
        client.run(&format!(
            "INSERT INTO {table} (id, at) VALUES (3, CURRENT_TIMESTAMP(6))"
        ));
        let seen: String = client.value(&format!("SELECT at FROM {table} WHERE id=3"));
        assert!(
            first <= seen && seen <= now(),
            "{seen} is not between the reads"
        );
        let one: String = client.value("SELECT NOW(6)");
        std::thread::sleep(Duration::from_millis(20));
        let two: String = client.value("SELECT NOW(6)");
        assert!(one < two, "the clock of the session stands at {one}");
        // Inside a transaction.
        client.run("BEGIN");
        client.run(&format!("INSERT INTO {table} (id, at) VALUES (4, NOW(6))"));
        std::thread::sleep(Duration::from_millis(20));
        client.run(&format!("INSERT INTO {table} (id, at) VALUES (5, NOW(6))"));
        client.run("COMMIT");
        let differ = format!("SELECT COUNT(DISTINCT at) FROM {table} WHERE id IN (4,5)");
        assert_eq!(pair.target.one(&differ), "2");
        // The client's own.
        client.run("SET timestamp=1000000000.123456");
        client.run(&format!("INSERT INTO {table} (id, at) VALUES (6, NOW(6))"));
        let own = "SELECT UNIX_TIMESTAMP(at) FROM t.f_m3_a WHERE id=6";
        assert_eq!(
            pair.both(own),
            [
                Some("1000000000.123456".into()),
                Some("1000000000.123456".into())
            ]
        );
        let stands: String = client.value("SELECT UNIX_TIMESTAMP(NOW(6))");
        assert_eq!(stands, "1000000000.123456");
        client.run("SET timestamp=DEFAULT");
        client.run(&format!("INSERT INTO {table} (id, at) VALUES (7, NOW(6))"));
        pair.equal(table);
        let now = pair.counts("m3");
        // The one with SYSDATE.
        assert_eq!((now.failed, now.deferred - before.deferred), (0, 1));
    });
}

/// M4: a default that is not the same on both sides makes the insert deferred,
/// whether or not the statement names a function.
#[test]
fn m4_defaults_that_differ_are_deferred() {
    on_both(|pair| {
        let mut client = pair.client();
        let mut tables = vec!["t.f_m4_uuid"];
        if pair.family == Family::MariaDb {
            tables.push("t.f_m4_seq");
        }
        for table in tables {
            let before = pair.counts("m4");
            client.run(&format!("INSERT INTO {table} (id) VALUES (1)"));
            pair.assert_unmirrored("m4", before, 0, 1);
            let count = format!("SELECT COUNT(*) FROM {table}");
            assert_eq!(pair.both(&count), [Some("1".into()), Some("0".into())]);
            // Given, the default does not matter; deferring it is allowed too.
            let column = if table.ends_with("uuid") { "u" } else { "n" };
            client.run(&format!(
                "INSERT INTO {table} (id, {column}) VALUES (2, '7')"
            ));
            let [on_source, on_target] =
                pair.both(&format!("SELECT {column} FROM {table} WHERE id=2"));
            let now = pair.counts("m4");
            assert!(on_source == on_target || now.deferred - before.deferred == 2);
        }
    });
}

/// 1. @x has 2 MiB; 2. the active side is asked for it, in one write with the
///    statement; 3. its answer is larger than what is read of one, and the session
///    would end with a write of which nobody knows whether it was committed.
#[test]
fn a_write_of_a_long_variable_is_deferred() {
    on_both(|pair| {
        let before = pair.counts("lv");
        let mut client = pair.client();
        client.run("SET @x = REPEAT('x', 2 << 20)");
        assert_eq!(client.run("UPDATE t.f_lv_a SET s = @x WHERE id = 1"), 1);
        assert_eq!(client.value::<u64>("SELECT LENGTH(@x)"), 2 << 20);
        pair.assert_unmirrored("lv", before, 0, 1);
        client.run("SET @x = REPEAT('y', 1000000)");
        assert_eq!(client.run("UPDATE t.f_lv_a SET s = @x WHERE id = 2"), 1);
        pair.assert_unmirrored("lv", before, 0, 1);
        let lengths = pair.both("SELECT LENGTH(s) FROM t.f_lv_a WHERE id = 2");
        assert_eq!(lengths, [Some("1000000".into()), Some("1000000".into())]);

        // More warnings than what is read of other answers. MySQL lets few keep
        // as many.
        if pair.family == Family::MySql {
            return;
        }
        client.run("SET max_error_count = 65535, sql_mode = ''");
        let text = "w".repeat(120);
        let rows: Vec<String> = (0..8000).map(|id| format!("({id},'{text}')")).collect();
        let sql = format!("INSERT INTO t.f_lv_w VALUES {}", rows.join(","));
        assert_eq!(client.run(&sql), 8000);
        let warnings: Vec<mysql_async::Row> =
            block_on(client.0.query("SHOW WARNINGS")).expect("warnings");
        assert_eq!(warnings.len(), 8000, "{}", pair.family);
    });
}
