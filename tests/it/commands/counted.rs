//! What is counted as unmirrored and what is not, and where commands go that
//! cannot be read to their end.

use super::{Pair, pair};
use crate::order::{Counts, counts, journal, patient};
use crate::support::{Family, Proxy, ProxyOptions};
use crate::transparency::raw::{Login, MODERN, Packet, Raw};
use crate::transparency::run::{Mode, Param, Run};
use lockstep::wire::Capabilities;
use lockstep::wire::command::*;

/// Three rows, `v` = `id`, in `table` on both sides.
pub fn numbered(pair: &Pair, table: &str) {
    for server in [pair.source, pair.target] {
        server.exec(&format!(
            "DROP TABLE IF EXISTS {table};\n\
             CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, v BIGINT, s LONGTEXT);\n\
             INSERT INTO {table} (v) VALUES (1), (2), (3)"
        ));
    }
}

/// A proxy with one route over `t.<name>`, with root's clients.
pub fn proxy(pair: &Pair, name: &str) -> Proxy {
    numbered(pair, &format!("t.{name}"));
    let mut options = ProxyOptions::route("r", &[&format!("t.{name}")]);
    options.extra_yaml = patient() + "mariadb_bulk: relay\n";
    Proxy::start(pair.source, pair.target, options)
}

pub fn connect(port: u16) -> Raw {
    Raw::connect(port, &Login::root("t", MODERN)).expect("login")
}

pub fn error(packets: &[Packet]) -> Option<u16> {
    let last = &packets.last()?.payload;
    (last.first() == Some(&0xFF)).then(|| u16::from_le_bytes([last[1], last[2]]))
}

pub fn ok(raw: &mut Raw, sql: &str) {
    let shown: String = sql.chars().take(80).collect();
    let packets = raw.query(sql).unwrap_or_else(|e| panic!("{shown}: {e}"));
    assert_eq!(error(&packets), None, "{shown}");
}

pub fn refused(raw: &mut Raw, sql: &str) -> u16 {
    let packets = raw.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    error(&packets).unwrap_or_else(|| panic!("{sql}: not refused"))
}

fn since(proxy: &Proxy, before: Counts) -> (u64, u64, u64) {
    let now = counts(proxy, "r");
    (
        now.ok - before.ok,
        now.failed - before.failed,
        now.deferred - before.deferred,
    )
}

/// A statement that the active side refuses has written nothing: it is not
/// counted, and its transaction goes on on both sides.
#[test]
fn what_is_refused_is_not_counted() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "refused");
        proxy.must_advance("r", "source_first");
        let mut raw = connect(proxy.port());
        ok(&mut raw, "UPDATE refused SET v = 5 WHERE id = 1");
        let before = counts(&proxy, "r");
        assert_eq!(refused(&mut raw, "SELEC 1"), 1064);
        assert_eq!(
            refused(&mut raw, "INSERT INTO refused (id) SELECT id FROM refused"),
            1062
        );
        assert_eq!(
            refused(
                &mut raw,
                "UPDATE refused SET nothing = 1 ORDER BY id LIMIT 1"
            ),
            1054
        );
        for com in [0x00, 0x0f, 0x2f, 0xee] {
            assert_eq!(error(&raw.ask(com, b"x").expect("answer")), Some(1047));
        }
        assert_eq!(
            since(&proxy, before),
            (0, 0, 0),
            "{family}\n{}",
            journal(&proxy)
        );

        for (n, refusal) in ["SELEC 1", "INSERT INTO refused (id) SELECT id FROM refused"]
            .into_iter()
            .enumerate()
        {
            let before = counts(&proxy, "r");
            ok(&mut raw, "BEGIN");
            ok(
                &mut raw,
                &format!("UPDATE refused SET v = {} WHERE id = 2", n + 20),
            );
            refused(&mut raw, refusal);
            ok(
                &mut raw,
                &format!("UPDATE refused SET v = {} WHERE id = 3", n + 30),
            );
            ok(&mut raw, "COMMIT");
            assert_eq!(
                since(&proxy, before),
                (1, 0, 0),
                "{family}\n{}",
                journal(&proxy)
            );
            let rows = "SELECT GROUP_CONCAT(v ORDER BY id) FROM t.refused";
            assert_eq!(pair.source.one(rows), pair.target.one(rows), "{family}");
        }
        // What a refusal does not undo is counted: the first of two statements.
        let before = counts(&proxy, "r");
        refused(&mut raw, "UPDATE refused SET v = 90 WHERE id = 1; SELEC 1");
        assert_eq!(since(&proxy, before), (0, 0, 1), "{family}");
    }
}

/// Commands over 16 MiB are not read to their end: they go to the side that is
/// active for the table they begin with, and are counted.
#[test]
fn long_commands_go_to_the_active_side() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "long_ones");
        let other = "CREATE TABLE IF NOT EXISTS t.long_unrouted (id INT PRIMARY KEY)";
        for server in [pair.source, pair.target] {
            server.exec(other);
        }
        // Home stays the source as long as this route has not moved.
        proxy.must_advance("r", "source_first");
        let mode = Mode {
            name: "text",
            capabilities: MODERN,
            prepared: false,
            diagnostics: false,
        };
        let mut run = Run::start(proxy.port(), "t", mode).expect("login");
        let update = "UPDATE long_ones SET v = LENGTH(?), s = NULL WHERE id = ?";
        let id = run.prepare(update).expect("prepare").expect("id");
        let blob = vec![b'x'; 17_000_000];
        for (phase, side) in [
            ("source_first", pair.source),
            ("target_first", pair.target),
            ("source_first", pair.source),
        ] {
            if proxy.phase("r") != phase {
                match phase {
                    "target_first" => proxy.must_advance("r", phase),
                    _ => proxy.must_rollback("r", phase),
                }
            }
            for server in [pair.source, pair.target] {
                server.exec("UPDATE t.long_ones SET v = 0");
            }
            let before = counts(&proxy, "r");
            let long = "y".repeat(17_000_000);
            ok(
                &mut run.raw,
                &format!("UPDATE long_ones SET v = LENGTH('{long}') WHERE id = 1"),
            );
            run.execute(id, 0, &[Param::Blob(&blob), Param::Int(2)], true)
                .expect("execute");
            let body = [&[0, 0][..], &blob].concat();
            run.statement(COM_STMT_SEND_LONG_DATA, id, &body)
                .expect("long data");
            let mut body = vec![0, 1, 0, 0, 0, 0, 1, 252, 0, 8, 0];
            body.extend_from_slice(&3u64.to_le_bytes());
            run.statement(COM_STMT_EXECUTE, id, &body).expect("execute");
            let values = "SELECT GROUP_CONCAT(v ORDER BY id) FROM t.long_ones";
            assert_eq!(
                side.one(values),
                "17000000,17000000,17000000",
                "{family} {phase}"
            );
            let (written, failed, deferred) = since(&proxy, before);
            assert_eq!((written, failed, deferred), (0, 0, 3), "{family} {phase}");
            // What was sent for the other leg is not found by the next one.
            run.execute(id, 0, &[Param::Blob(b"four"), Param::Int(3)], true)
                .expect("execute");
            let short = "SELECT v FROM t.long_ones WHERE id = 3";
            assert_eq!([pair.source, pair.target].map(|s| s.one(short)), ["4", "4"]);
        }
        drop(proxy);
    }
}

/// A text too long to be kept cannot be prepared on the other leg: after a flip
/// its statement is unknown, as after a reconnect, and nothing is written to
/// the wrong side.
#[test]
fn a_statement_whose_text_was_not_kept_does_not_cross_a_flip() {
    let Some(pair) = pair(Family::MariaDb, Family::MariaDb) else {
        return;
    };
    let proxy = proxy(&pair, "unkept");
    proxy.must_advance("r", "source_first");
    // What is deferred would be healed, sooner or later.
    proxy.pause("r");
    let mut raw = connect(proxy.port());
    let comment = "c".repeat(2 << 20);
    for (text, kept) in [
        (
            format!("UPDATE unkept /*{comment}*/ SET v = v + 100 WHERE id = 1"),
            true,
        ),
        (
            format!(
                "UPDATE unkept SET v = v + 100 /*{}*/ WHERE id = 1",
                comment.repeat(9)
            ),
            false,
        ),
    ] {
        let packets = raw.ask(COM_STMT_PREPARE, text.as_bytes()).expect("prepare");
        let id = packets[0].payload[1..5].to_vec();
        let execute = |raw: &mut Raw| {
            let body = [&id[..], &[0, 1, 0, 0, 0]].concat();
            error(&raw.ask(COM_STMT_EXECUTE, &body).expect("execute"))
        };
        let before = counts(&proxy, "r");
        assert_eq!(execute(&mut raw), None);
        let (inline, deferred) = (u64::from(kept), u64::from(!kept));
        assert_eq!(since(&proxy, before), (inline, 0, deferred));
        let value = "SELECT v FROM t.unkept WHERE id = 1";
        let written = [pair.source, pair.target].map(|s| s.one(value));
        proxy.must_advance("r", "target_first");
        let said = execute(&mut raw);
        let now = [pair.source, pair.target].map(|s| s.one(value));
        if kept {
            assert!(said.is_none() && now == ["201", "201"], "{said:?} {now:?}");
        } else {
            assert_eq!((said, now), (Some(1243), written));
        }
        proxy.must_rollback("r", "source_first");
        assert_eq!(execute(&mut raw), None);
    }
}

/// A cursor is fetched from the leg it was opened on, on the mirror's word or
/// not, and after the sides have changed.
#[test]
fn cursors_hold_a_flip_up_until_they_end() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "curs");
        proxy.must_advance("r", "source_first");
        assert!(proxy.reads("r", 100).ok());
        // The sides are told apart by a row that only one of them has.
        proxy.pause("r");
        pair.source.exec("INSERT INTO t.curs (id, v) VALUES (9, 9)");
        let mut raw = connect(proxy.port());
        let prepared = raw
            .ask(COM_STMT_PREPARE, b"SELECT id FROM curs ORDER BY id")
            .expect("prepare");
        let id = prepared[0].payload[1..5].to_vec();
        let fetch = |raw: &mut Raw, n: u8| -> Vec<u8> {
            let body = [&id[..], &[n, 0, 0, 0]].concat();
            let packets = raw.ask(COM_STMT_FETCH, &body).expect("fetch");
            assert_eq!(error(&packets), None, "{family}");
            let rows = packets.iter().filter(|p| p.payload.first() == Some(&0));
            rows.map(|p| p.payload[2]).collect()
        };
        let open = |raw: &mut Raw| {
            let body = [&id[..], &[1, 1, 0, 0, 0]].concat();
            let packets = raw.ask(COM_STMT_EXECUTE, &body).expect("execute");
            assert_eq!(error(&packets), None, "{family}");
        };
        open(&mut raw);
        assert_eq!(fetch(&mut raw, 2), [1, 2]);
        let refused = proxy.advance("r", Some("target_first"), true);
        assert_eq!(refused.status, 409, "{family}: {refused:?}");
        assert!(refused.body.contains("open cursor"), "{}", refused.body);
        ok(&mut raw, "BEGIN");
        ok(&mut raw, "UPDATE curs SET v = 70 WHERE id = 1");
        assert_eq!(fetch(&mut raw, 9), [3, 9], "{family}");
        ok(&mut raw, "COMMIT");
        proxy.must_advance("r", "target_first");
        let value = "SELECT v FROM t.curs WHERE id = 1";
        assert_eq!(
            [pair.source, pair.target].map(|s| s.one(value)),
            ["70", "70"]
        );
        open(&mut raw);
        assert_eq!(fetch(&mut raw, 9), [1, 2, 3], "{family}");
    }
}

/// Under MODERN no flag of the tests' own is in the way.
#[test]
fn a_client_may_ask_for_bulk_only_where_home_has_it() {
    for (source, target) in super::PAIRS {
        let Some(pair) = pair(source, target) else {
            return;
        };
        let proxy = proxy(&pair, "offers");
        let greeted = connect(proxy.port()).greeting.capabilities;
        let bulk = greeted.has(Capabilities::MARIADB_BULK);
        assert_eq!(bulk, source == Family::MariaDb, "{source} to {target}");
    }
}
