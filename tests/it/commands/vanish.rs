//! A client that is suddenly gone: its running read is ended on the server, its
//! running write finishes on both sides (DESIGN §4).

use super::counted::{connect, ok, proxy};
use super::pair;
use crate::support::proc::wait_for;
use crate::support::{Family, Server};
use crate::transparency::raw::Raw;
use lockstep::wire::command::*;
use std::time::Duration;

/// A loaded machine's servers look at what was killed seconds later.
const SOON: Duration = Duration::from_secs(30);

/// A second of the server's, and what the proxy offers the rest for.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// Statements that run on the server and hold this text.
fn running(server: &Server, text: &str) -> usize {
    let sql = format!(
        "SELECT id FROM information_schema.processlist \
         WHERE info LIKE '%{text}%' AND info NOT LIKE '%processlist%'"
    );
    server.query(&sql).len()
}

/// Starts a statement and waits until `server` executes it.
fn begun(raw: &mut Raw, sql: &str, server: &Server, text: &str) {
    raw.command(COM_QUERY, sql.as_bytes()).expect("send");
    wait_for("the statement runs", SOON, || running(server, text) == 1);
}

#[test]
fn its_read_is_ended() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "gone_read");
        // A sum, because MySQL may multiply the counts of tables for a COUNT(*).
        let crossed: String = (0..26).map(|i| format!(", gone_read x{i}")).collect();
        let endless =
            format!("SELECT /* gone_read_mark */ SUM(a.id + x25.id) FROM gone_read a{crossed}");
        let sleeping = "SELECT SLEEP(600) /* gone_read_mark */".to_string();
        for (phase, server) in [
            ("source_only", pair.source),
            ("source_first", pair.source),
            ("reads", pair.target),
        ] {
            match phase {
                "source_first" => proxy.must_advance("r", phase),
                "reads" => assert!(proxy.reads("r", 100).ok()),
                _ => {}
            }
            for sql in [&endless, &sleeping] {
                let on = if sql == &sleeping {
                    pair.source
                } else {
                    server
                };
                // The client says nothing more; it has said farewell behind its
                // query; it is in a transaction.
                for (farewell, transaction) in [(false, false), (true, false), (false, true)] {
                    let mut raw = connect(proxy.port());
                    if transaction {
                        ok(&mut raw, "BEGIN");
                    }
                    let on = if transaction { pair.source } else { on };
                    begun(&mut raw, sql, on, "gone_read_mark");
                    if farewell {
                        raw.command(COM_QUIT, &[]).expect("farewell");
                    }
                    raw.vanish();
                    wait_for("the read has ended", SOON, || {
                        running(on, "gone_read_mark") == 0
                    });
                }
            }
        }
        // A prepared one.
        let mut raw = connect(proxy.port());
        let prepared = raw
            .ask(COM_STMT_PREPARE, sleeping.as_bytes())
            .expect("prepare");
        let body = [&prepared[0].payload[1..5], &[0, 1, 0, 0, 0]].concat();
        raw.command(COM_STMT_EXECUTE, &body).expect("execute");
        wait_for("it runs", SOON, || running(pair.source, "SLEEP(600)") == 1);
        raw.vanish();
        wait_for("it has ended", SOON, || {
            running(pair.source, "SLEEP(600)") == 0
        });
        // Nothing of the sessions is left.
        wait_for("the sessions end", SOON, || {
            proxy.status()["sessions"]["clients"] == 0
        });
    }
}

/// One that never reads its answer is given up by its server, after
/// net_write_timeout, and that is seen behind bytes that nobody takes. MySQL
/// leaves the end of its connection behind those bytes, where nobody, client
/// or proxy, sees it before they are taken.
#[test]
fn its_answer_is_not_read() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "gone_unread");
        for port in [pair.source.port(), proxy.port()] {
            let mut raw = connect(port);
            ok(&mut raw, "SET net_write_timeout = 1");
            let sql = "SELECT /* unread_mark */ REPEAT('x', 1000000) FROM \
                       information_schema.collations a, information_schema.collations b";
            begun(&mut raw, sql, pair.source, "unread_mark");
            let began = std::time::Instant::now();
            wait_for("the server gives up", GIVEN_UP, || {
                running(pair.source, "unread_mark") == 0
            });
            println!("{family} at {port}: {:?}", began.elapsed());
            if port == proxy.port() && family == Family::MariaDb {
                let gone = || proxy.status()["sessions"]["clients"] == 0;
                wait_for("the proxy gives up", GIVEN_UP, gone);
            }
        }
    }
}

#[test]
fn its_write_finishes_on_both_sides() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "gone_write");
        let value = |server: &Server, id: u8| {
            server.one(&format!("SELECT v FROM t.gone_write WHERE id = {id}"))
        };
        for (phase, id) in [("source_only", 1), ("source_first", 2)] {
            if phase != "source_only" {
                proxy.must_advance("r", phase);
            }
            // The row is locked until the client is gone.
            let mut locked = connect(pair.source.port());
            ok(&mut locked, "BEGIN");
            ok(
                &mut locked,
                &format!("SELECT * FROM gone_write WHERE id = {id} FOR UPDATE"),
            );
            let mut raw = connect(proxy.port());
            let update = format!("UPDATE gone_write SET v = 77 WHERE id = {id}");
            begun(&mut raw, &update, pair.source, "SET v = 77");
            raw.vanish();
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(running(pair.source, "SET v = 77"), 1, "{family}: ended");
            ok(&mut locked, "COMMIT");
            wait_for("the write is there", SOON, || {
                value(pair.source, id) == "77"
            });
            if phase == "source_first" {
                wait_for("and on the mirror", SOON, || value(pair.target, id) == "77");
            }
        }
    }
}

/// Half a command has asked for nothing, half a file has loaded nothing.
#[test]
fn what_it_had_not_sent_to_the_end_is_not_done() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "gone_half");
        for phase in ["source_only", "source_first"] {
            if phase != "source_only" {
                proxy.must_advance("r", phase);
            }
            let mut raw = connect(proxy.port());
            let half = "UPDATE gone_half SET v = 0 -- ".to_string();
            raw.bytes(&[255, 255, 255, 0, COM_QUERY]).expect("head");
            raw.bytes(half.as_bytes()).expect("half");
            raw.vanish();

            let mut raw = connect(proxy.port());
            let load = "LOAD DATA LOCAL INFILE 'x' INTO TABLE gone_half (v)";
            raw.command(COM_QUERY, load.as_bytes()).expect("load");
            raw.bytes(&[4, 0, 0, 2]).expect("head");
            raw.bytes(b"55\n6").expect("rows");
            std::thread::sleep(Duration::from_millis(200));
            raw.vanish();
            wait_for("the sessions end", SOON, || {
                proxy.status()["sessions"]["clients"] == 0
            });
            for server in [pair.source, pair.target] {
                let rows = "SELECT GROUP_CONCAT(v ORDER BY id) FROM t.gone_half";
                assert_eq!(server.one(rows), "1,2,3", "{family} {phase}");
                wait_for("nothing runs", SOON, || running(server, "gone_half") == 0);
            }
        }
    }
}
