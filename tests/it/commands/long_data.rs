//! Long data of an EXECUTE that does not come, and what else an EXECUTE that
//! is refused leaves behind; ids that nobody has, and DDL with parameters.

use super::counted::{connect, error, numbered, ok};
use super::pair;
use crate::order::patient;
use crate::support::{Family, Proxy, ProxyOptions};
use crate::transparency::raw::Raw;
use lockstep::wire::command::*;

const LONGLONG: [u8; 2] = [8, 0];
const BLOB: [u8; 2] = [252, 0];

fn prepare(raw: &mut Raw, sql: &str) -> Vec<u8> {
    let packets = raw.ask(COM_STMT_PREPARE, sql.as_bytes()).expect("prepare");
    assert_eq!(error(&packets), None, "{sql}");
    packets[0].payload[1..5].to_vec()
}

fn long(raw: &mut Raw, id: &[u8], data: &[u8]) {
    let body = [id, &[0, 0], data].concat();
    raw.ask(COM_STMT_SEND_LONG_DATA, &body).expect("long data");
}

/// The first parameter is a text, sent ahead unless given, the second a number.
fn execute(raw: &mut Raw, id: &[u8], text: Option<&[u8]>, number: u64) -> Option<u16> {
    let mut body = [id, &[0, 1, 0, 0, 0], &[0, 1]].concat();
    body.extend([BLOB, LONGLONG].concat());
    if let Some(text) = text {
        body.push(u8::try_from(text.len()).expect("a short text"));
        body.extend_from_slice(text);
    }
    body.extend(number.to_le_bytes());
    error(&raw.ask(COM_STMT_EXECUTE, &body).expect("execute"))
}

/// 1. A value is sent; 2. the EXECUTE is refused by the proxy, because its
///    tables' active sides differ; 3. the next one has both values in one.
#[test]
fn a_refused_execute_leaves_no_long_data_behind() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        numbered(&pair, "t.ld_a");
        numbered(&pair, "t.ld_b");
        let mut options = ProxyOptions::route("a", &["t.ld_a"]).and_route("b", &["t.ld_b"]);
        options.extra_yaml = patient();
        let proxy = Proxy::start(pair.source, pair.target, options);
        proxy.must_advance("a", "source_first");
        proxy.must_advance("b", "source_first");
        proxy.pause("a");
        let mut raw = connect(proxy.port());
        let sql = "UPDATE ld_a, ld_b SET ld_a.s = ? WHERE ld_a.id = ? AND ld_b.id = 1";
        let update = prepare(&mut raw, sql);
        long(&mut raw, &update, b"stale");
        proxy.must_advance("a", "target_first");
        assert_eq!(execute(&mut raw, &update, None, 1), Some(1235), "{family}");
        proxy.must_rollback("a", "source_first");
        long(&mut raw, &update, b"go");
        long(&mut raw, &update, b"od");
        assert_eq!(execute(&mut raw, &update, None, 1), None, "{family}");
        assert_eq!(execute(&mut raw, &update, Some(b"plain"), 2), None);
        let rows = "SELECT GROUP_CONCAT(s ORDER BY id) FROM t.ld_a WHERE id < 3";
        assert_eq!(pair.source.one(rows), "good,plain", "{family}");
    }
}

/// Long data that another leg cannot have ends with the EXECUTE that is refused
/// for its lack: the next one has its own values.
#[test]
fn lost_long_data_is_refused_once() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = super::counted::proxy(&pair, "ld_lost");
        proxy.must_advance("r", "source_first");
        let mut raw = connect(proxy.port());
        let update = prepare(&mut raw, "UPDATE ld_lost SET s = ? WHERE id = ?");
        long(&mut raw, &update, &vec![b'x'; 17_000_000]);
        proxy.must_advance("r", "target_first");
        assert_eq!(execute(&mut raw, &update, None, 1), Some(1243), "{family}");
        assert_eq!(execute(&mut raw, &update, Some(b"one"), 1), None);
        long(&mut raw, &update, b"two");
        assert_eq!(execute(&mut raw, &update, None, 2), None, "{family}");
        let rows = "SELECT GROUP_CONCAT(s ORDER BY id) FROM t.ld_lost WHERE id < 3";
        assert_eq!(pair.target.one(rows), "one,two", "{family}");
        // The source's statement has forgotten its own.
        proxy.must_rollback("r", "source_first");
        long(&mut raw, &update, b"three");
        assert_eq!(execute(&mut raw, &update, None, 3), None, "{family}");
        let row = "SELECT s FROM t.ld_lost WHERE id = 3";
        assert_eq!(
            [pair.source, pair.target].map(|s| s.one(row)),
            ["three", "three"]
        );
    }
}

/// 1. A cursor is open, and its statement closed; 2. another EXECUTE is refused,
///    in an answer without flags; 3. a flip waits for a cursor that is not there.
#[test]
fn a_refused_execute_opens_no_cursor() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = super::counted::proxy(&pair, "ld_curs");
        proxy.must_advance("r", "source_first");
        let mut raw = connect(proxy.port());
        let cursor = prepare(&mut raw, "SELECT id FROM ld_curs ORDER BY id");
        let body = [&cursor[..], &[1, 1, 0, 0, 0]].concat();
        assert_eq!(
            error(&raw.ask(COM_STMT_EXECUTE, &body).expect("execute")),
            None
        );
        let fetch = [&cursor[..], &[1, 0, 0, 0]].concat();
        assert_eq!(
            error(&raw.ask(COM_STMT_FETCH, &fetch).expect("fetch")),
            None
        );
        raw.ask(COM_STMT_CLOSE, &cursor).expect("close");
        let sql = "SELECT id FROM ld_curs WHERE id = (SELECT id FROM ld_curs)";
        let fails = prepare(&mut raw, sql);
        let body = [&fails[..], &[0, 1, 0, 0, 0]].concat();
        let said = raw.ask(COM_STMT_EXECUTE, &body).expect("execute");
        assert_eq!(error(&said), Some(1242), "{family}");
        proxy.must_advance("r", "target_first");
        ok(&mut raw, "SELECT 1");
    }
}

/// 1. A client's statements 1 and 2 are prepared on the source; 2. after a flip
///    the second is the first on the target; 3. the client executes 1, which it
///    has closed, and another statement runs.
#[test]
fn an_unknown_id_is_nobodys() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = super::counted::proxy(&pair, "ld_ids");
        proxy.must_advance("r", "source_first");
        let mut raw = connect(proxy.port());
        let ids: Vec<Vec<u8>> = (0..3)
            .map(|n| prepare(&mut raw, &format!("INSERT INTO ld_ids (v) VALUES ({n})")))
            .collect();
        proxy.must_advance("r", "target_first");
        let run = |raw: &mut Raw, com: u8, id: &[u8]| {
            let rest: &[u8] = match com {
                COM_STMT_EXECUTE => &[0, 1, 0, 0, 0],
                COM_STMT_FETCH => &[1, 0, 0, 0],
                _ => &[],
            };
            let packets = raw.ask(com, &[id, rest].concat()).expect("answer");
            error(&packets)
        };
        assert_eq!(run(&mut raw, COM_STMT_EXECUTE, &ids[2]), None, "{family}");
        assert_eq!(run(&mut raw, COM_STMT_EXECUTE, &ids[1]), None, "{family}");
        for id in &ids[..2] {
            raw.ask(COM_STMT_CLOSE, id).expect("close");
            for com in [COM_STMT_EXECUTE, COM_STMT_FETCH, COM_STMT_RESET] {
                assert_eq!(run(&mut raw, com, id), Some(1243), "{family}");
            }
        }
        assert_eq!(run(&mut raw, COM_STMT_EXECUTE, &ids[2]), None, "{family}");
        let count = "SELECT COUNT(*) FROM t.ld_ids WHERE id > 3";
        assert_eq!(pair.target.one(count), "3", "{family}");
    }
}

/// A session whose writes are not logged goes on so on the other server, and
/// is logged again when it says so.
#[test]
fn what_is_not_logged_is_not_after_a_flip() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = super::counted::proxy(&pair, "ld_log");
        proxy.must_advance("r", "source_first");
        let mut raw = connect(proxy.port());
        let is = |raw: &mut Raw| {
            let rows = raw.query("SELECT @@session.sql_log_bin").expect("answer");
            let row = rows.iter().find(|p| p.payload.len() == 2);
            row.map(|p| p.payload[1])
        };
        ok(&mut raw, "SET SESSION sql_log_bin = 0");
        proxy.must_advance("r", "target_first");
        assert_eq!(is(&mut raw), Some(b'0'), "{family}");
        ok(&mut raw, "SET @@session.sql_log_bin = 1");
        proxy.must_rollback("r", "source_first");
        assert_eq!(is(&mut raw), Some(b'1'), "{family}");
    }
}

/// 1. `CREATE TABLE … SELECT ?` is executed with 5; 2. the mirror is sent the
///    text, in which there is no value.
#[test]
fn prepared_ddl_takes_its_values_along() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = super::counted::proxy(&pair, "ld_ddl");
        proxy.must_advance("r", "source_first");
        let mut raw = connect(proxy.port());
        ok(&mut raw, "DROP TABLE ld_ddl");
        let sql = "CREATE TABLE ld_ddl (id INT PRIMARY KEY, s VARCHAR(9)) SELECT ? AS s, ? AS id";
        let create = prepare(&mut raw, sql);
        // The schema of PREPARE, on both sides.
        ok(&mut raw, "USE mysql");
        assert_eq!(
            execute(&mut raw, &create, Some(b"five"), 5),
            None,
            "{family}"
        );
        let row = "SELECT CONCAT(id, s) FROM t.ld_ddl";
        assert_eq!(
            [pair.source, pair.target].map(|s| s.one(row)),
            ["5five", "5five"]
        );
        assert_eq!(
            proxy.route("r")["mirror"]["suspended"].as_bool(),
            Some(false)
        );
    }
}
