//! H4, H5, H6, H7, H9: the client must not see that its statement ran inside a
//! transaction of ours, nor may that transaction break what the client did.

use super::{Pair, first, on_both, root};
use crate::support::Family;
use crate::support::proc::block_on;
use crate::support::servers::{APP, texts};
use crate::transparency::raw::{Login, MODERN, Raw};
use lockstep::wire::ok::OkPacket;
use lockstep::wire::session_track::{Change, changes};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

/// H4: diagnostics after a mirrored write are those of the active side alone,
/// for the listed whole statements, after success, warning and error.
#[test]
fn h4_diagnostics_are_those_without_us() {
    const SCRIPT: [&str; 17] = [
        "UPDATE {t} SET v=v+1 WHERE id IN (1,2)",
        "INSERT INTO {t} VALUES (10, 1), (11, 1)",
        "SET sql_mode=''",
        "INSERT INTO {t} VALUES (12, 'abc')",
        "UPDATE {t} SET v='7x' WHERE id IN (1,2)",
        "INSERT INTO {t} VALUES (1, 1)",
        "UPDATE {t} SET v=1 WHERE id=1 AND nothing=1",
        "DELETE FROM {t} WHERE id=10",
        "SET sql_mode=DEFAULT",
        "INSERT INTO {t} VALUES (13, 'abc')",
        "UPDATE {t} SET v=UNIX_TIMESTAMP(NOW()) WHERE id=3",
        "BEGIN",
        "UPDATE {t} SET v=v+1 WHERE id IN (4,5)",
        "SET sql_mode=''",
        "UPDATE {t} SET v='9y' WHERE id=4",
        "COMMIT",
        "DELETE FROM {t} WHERE id IN (11,12)",
    ];
    const QUESTIONS: [&str; 8] = [
        "SELECT ROW_COUNT()",
        "SHOW WARNINGS",
        "SHOW COUNT(*) WARNINGS",
        "SHOW ERRORS",
        "SHOW COUNT(*) ERRORS",
        "SELECT @@warning_count",
        "SELECT @@error_count",
        "SHOW WARNINGS LIMIT 1",
    ];
    on_both(|pair| {
        // The same on a server alone; the same name in another database, so
        // that messages are the same too.
        pair.source.exec("DROP TABLE IF EXISTS test.f_h4_a");
        pair.source
            .exec("CREATE TABLE test.f_h4_a LIKE t.f_h4_a;\nINSERT INTO test.f_h4_a SELECT * FROM t.f_h4_a");
        let ask = |conn: &mut Conn, sql: &str| -> String {
            let rows: Result<Vec<Row>, Error> = block_on(conn.query(sql));
            match rows {
                Ok(rows) => format!("{:?}", rows.into_iter().map(texts).collect::<Vec<_>>()),
                Err(Error::Server(e)) => format!("{} {}", e.code, e.message),
                Err(e) => panic!("{sql}: {e}"),
            }
            .replace("`test`.", "`t`.")
        };
        for question in QUESTIONS {
            let direct = pair.source.opts(APP.0, APP.1, Some("test"));
            let mut direct = block_on(Conn::new(direct)).expect("direct");
            let mut proxied = pair.client().0;
            for statement in SCRIPT {
                let sql = statement.replace("{t}", "f_h4_a");
                let mut answers = Vec::new();
                for conn in [&mut direct, &mut proxied] {
                    let done = ask(conn, &sql);
                    let warnings = (conn.affected_rows(), conn.get_warnings());
                    answers.push((done, warnings, ask(conn, question)));
                }
                assert_eq!(
                    answers[0], answers[1],
                    "{}: {sql}; {question}: alone, and through the proxy",
                    pair.family
                );
            }
            // From the start again, on both.
            let again =
                "DELETE FROM {t};\nINSERT INTO {t} VALUES (1,1),(2,2),(3,3),(4,4),(5,5),(6,6)";
            pair.source.exec(&again.replace("{t}", "test.f_h4_a"));
            pair.equal("t.f_h4_a");
            for server in [pair.source, pair.target] {
                server.exec(&again.replace("{t}", "t.f_h4_a"));
            }
        }
        row_count_as_a_value(pair);
    });
}

/// `INSERT … VALUES (ROW_COUNT())` reads what a preamble would wipe: it is not
/// wrapped, and deferred.
fn row_count_as_a_value(pair: &Pair) {
    let before = pair.counts("h4");
    let mut client = pair.client();
    client.run("BEGIN");
    client.run("UPDATE t.f_h4_a SET v=v+1 WHERE id IN (1,2)");
    client.run("INSERT INTO t.f_h4_l VALUES (ROW_COUNT())");
    client.run("COMMIT");
    assert_eq!(
        first(pair.source, "SELECT n FROM t.f_h4_l").as_deref(),
        Some("2")
    );
    let now = pair.counts("h4");
    assert!(now.deferred > before.deferred, "{now:?}");
    assert_eq!(now.failed, before.failed);
}

/// H5: our BEGIN would release the client's LOCK TABLES.
#[test]
fn h5_table_locks_stay() {
    on_both(|pair| {
        let before = pair.counts("h5");
        let mut client = pair.client();
        client.run("LOCK TABLES t.f_h5_a WRITE");
        client.run("UPDATE t.f_h5_a SET v=10 WHERE id=1");
        let other = root(pair.source).start("INSERT INTO t.f_h5_a VALUES (100, 1)");
        assert!(other.waits(), "{}: the table lock is gone", pair.family);
        client.run("UPDATE t.f_h5_a SET v=11 WHERE id=1");
        assert!(other.waits());
        client.run("UNLOCK TABLES");
        other.ok();
        pair.assert_unmirrored("h5", before, 0, 2);
        client.run("UPDATE t.f_h5_a SET v=12 WHERE id=2");
        assert_eq!(pair.target.one("SELECT v FROM t.f_h5_a WHERE id=2"), "12");
        pair.assert_unmirrored("h5", before, 0, 2);
    });
}

/// H6: `completion_type` chains or releases at the client's COMMIT, not at ours.
#[test]
fn h6_completion_type_is_the_clients() {
    on_both(|pair| {
        let before = pair.counts("h6");
        for kind in ["CHAIN", "RELEASE"] {
            let mut client = pair.client();
            client.run(&format!("SET completion_type='{kind}'"));
            for (id, v) in [(1, 10), (2, 20), (1, 30)] {
                client.run(&format!("UPDATE t.f_h6_a SET v=v+{v} WHERE id={id}"));
                // Committed, so others see it and may write.
                let mut other = root(pair.source);
                other.run("SET SESSION innodb_lock_wait_timeout=2");
                other.run(&format!("SELECT * FROM t.f_h6_a WHERE id={id} FOR UPDATE"));
            }
            pair.equal("t.f_h6_a");
        }
        // The client's own chain, by word and by setting, on both legs.
        let mut client = pair.client();
        for (set, commit) in [
            ("SET @a=1", "COMMIT AND CHAIN"),
            ("SET completion_type=1", "COMMIT"),
        ] {
            client.run(set);
            client.run("BEGIN");
            client.run("UPDATE t.f_h6_a SET v=v+1 WHERE id=3");
            client.run(commit);
            client.run("UPDATE t.f_h6_a SET v=v+100 WHERE id=4");
            let on_source = first(pair.source, "SELECT v FROM t.f_h6_a WHERE id=4");
            assert_eq!(on_source.as_deref(), Some("4"), "{commit}: not chained");
            client.run("ROLLBACK AND NO CHAIN");
            pair.equal("t.f_h6_a");
        }
        client.run("SET completion_type=0");
        // And the client's own release.
        client.run("BEGIN");
        client.run("UPDATE t.f_h6_a SET v=v+1 WHERE id=5");
        client.run("COMMIT RELEASE");
        assert!(client.try_run("SELECT 1").is_err(), "still connected");
        pair.equal("t.f_h6_a");
        pair.assert_unmirrored("h6", before, 0, 0);
    });
}

/// H7: a BEFORE trigger on either side changes what the other does not.
#[test]
fn h7_tables_with_a_trigger_on_either_side_are_deferred() {
    on_both(|pair| {
        let before = pair.counts("h7");
        let mut client = pair.client();
        for table in ["t.f_h7_t", "t.f_h7_s"] {
            client.run(&format!("INSERT INTO {table} VALUES (1, 1)"));
            let explained = pair
                .proxy
                .explain(&format!("INSERT INTO {table} VALUES (2, 1)"), Some("t"));
            assert_eq!(explained["decision"], "deferred", "{explained}");
            let count = format!("SELECT COUNT(*) FROM {table}");
            assert_eq!(pair.both(&count), [Some("1".into()), Some("0".into())]);
        }
        pair.assert_unmirrored("h7", before, 0, 2);
        assert_eq!(pair.source.one("SELECT v FROM t.f_h7_s"), "7");
    });
}

/// H9: trackers say what they say without us: the GTID with the statement's
/// own answer, and no transaction.
#[test]
fn h9_trackers_do_not_show_our_transaction() {
    const SCRIPT: [&str; 9] = [
        "UPDATE t.f_h9_a SET v=v+1 WHERE id=1",
        "INSERT INTO t.f_h9_a VALUES ({id}, 1)",
        "UPDATE t.f_h9_a SET v=1 WHERE id=999",
        "BEGIN",
        "UPDATE t.f_h9_a SET v=v+1 WHERE id={row}",
        "COMMIT",
        "DELETE FROM t.f_h9_a WHERE id={id}",
        "SET time_zone='+02:00'",
        "UPDATE t.f_h9_a SET v=v+1 WHERE id=1",
    ];
    on_both(|pair| {
        let mut asked = vec!["SET session_track_transaction_info='CHARACTERISTICS'"];
        if pair.family == Family::MySql {
            asked.push("SET session_track_gtids='OWN_GTID'");
        }
        let login = Login::root("t", MODERN);
        let mut sessions = [pair.source.port(), pair.proxy.port()]
            .map(|port| Raw::connect(port, &login).expect("login"));
        for (sql, ask) in asked
            .into_iter()
            .map(|sql| (sql, true))
            .chain(SCRIPT.map(|sql| (sql, false)))
        {
            let [alone, proxied] = [(0, "50", "2"), (1, "51", "3")].map(|(n, id, row)| {
                let sql = sql.replace("{id}", id).replace("{row}", row);
                trackers(&mut sessions[n], &sql)
            });
            // Both answered with something to compare.
            if sql == "BEGIN" {
                assert!(format!("{alone:?}").contains("Transaction"), "{alone:?}");
            } else if sql.starts_with("DELETE") && pair.family == Family::MySql {
                assert!(alone.contains(&"a GTID".to_string()), "{alone:?}");
            }
            assert!(
                ask || alone == proxied,
                "{}: {sql}: alone {alone:?}, through the proxy {proxied:?}",
                pair.family
            );
        }
        // What the direct session wrote is not on the mirror.
        for server in [pair.source, pair.target] {
            server.exec("DELETE FROM t.f_h9_a");
        }
    });
}

/// What the answer's trackers say, and its status flags; of a GTID only that it
/// is there.
fn trackers(session: &mut Raw, sql: &str) -> Vec<String> {
    let answer = session.query(sql).expect(sql);
    let last = answer.last().expect("an answer");
    let ok = OkPacket::parse(&last.payload, session.capabilities).expect(sql);
    assert_ne!(last.payload.first(), Some(&0xFF), "{sql} was refused");
    let mut seen = vec![format!("{:?}", ok.status)];
    for (change, _) in changes(ok.session_state.unwrap_or(&[])).flatten() {
        seen.push(match change {
            Change::Gtids { .. } => "a GTID".to_string(),
            other => format!("{other:?}"),
        });
    }
    seen
}
