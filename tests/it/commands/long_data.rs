//! Long data of an EXECUTE that does not come, and what else an EXECUTE that
//! is refused leaves behind.

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
/// tables' active sides differ; 3. the next one has both values in one.
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
/// in an answer without flags; 3. a flip waits for a cursor that is not there.
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
