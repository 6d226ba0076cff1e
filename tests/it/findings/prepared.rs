//! What a prepared statement was prepared under, and ids sent as long data.

use super::{Pair, on_both};
use crate::transparency::raw::{Login, MODERN, Packet, Raw};
use lockstep::wire::command::*;

const LONGLONG: [u8; 2] = [8, 0];
const BLOB: [u8; 2] = [252, 0];

fn connect(pair: &Pair) -> Raw {
    Raw::connect(pair.proxy.port(), &Login::root("t", MODERN)).expect("login")
}

fn error(packets: &[Packet]) -> Option<u16> {
    let payload = &packets.first()?.payload;
    (payload.first() == Some(&0xFF)).then(|| u16::from_le_bytes([payload[1], payload[2]]))
}

fn ok(raw: &mut Raw, sql: &str) {
    let packets = raw.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(error(&packets), None, "{sql}");
}

fn prepare(raw: &mut Raw, sql: &str) -> [u8; 4] {
    let packets = raw.ask(COM_STMT_PREPARE, sql.as_bytes()).expect("prepare");
    assert_eq!(error(&packets), None, "{sql}");
    let head = &packets[0].payload;
    [head[1], head[2], head[3], head[4]]
}

/// Executes with parameters of these types; the error's number.
fn execute(raw: &mut Raw, id: [u8; 4], types: &[[u8; 2]], values: &[u8]) -> Option<u16> {
    let mut body = id.to_vec();
    body.extend([0, 1, 0, 0, 0]);
    if !types.is_empty() {
        body.extend([0, 1]);
        body.extend(types.concat());
        body.extend_from_slice(values);
    }
    let packets = raw.ask(COM_STMT_EXECUTE, &body).expect("execute");
    error(&packets)
}

/// 1. `UPDATE f_ps_a …` is prepared in `t`; 2. `USE f_ps_other`, which has a
///    table of this name; 3. its EXECUTE is planned for the other table, and the
///    mirror prepares it there.
#[test]
fn names_mean_the_schema_of_prepare() {
    on_both(|pair| {
        let before = pair.counts("ps");
        let other = || pair.both("SELECT GROUP_CONCAT(v ORDER BY id) FROM f_ps_other.f_ps_a");
        let as_it_was = other();
        let mut raw = connect(pair);
        let update = prepare(&mut raw, "UPDATE f_ps_a SET v = v + 100 WHERE id = ?");
        ok(&mut raw, "USE f_ps_other");
        let one = 1u64.to_le_bytes();
        assert_eq!(execute(&mut raw, update, &[LONGLONG], &one), None);
        // COM_INIT_DB, too.
        raw.ask(COM_INIT_DB, b"t").expect("init db");
        let second = prepare(&mut raw, "UPDATE f_ps_a SET v = v + 200 WHERE id = ?");
        raw.ask(COM_INIT_DB, b"f_ps_other").expect("init db");
        let two = 2u64.to_le_bytes();
        assert_eq!(execute(&mut raw, second, &[LONGLONG], &two), None);
        let rows = "SELECT GROUP_CONCAT(v ORDER BY id) FROM t.f_ps_a WHERE id < 3";
        let expected = || Some("101,202".to_string());
        assert_eq!(pair.both(rows), [expected(), expected()], "{}", pair.family);
        assert_eq!(other(), as_it_was, "{}", pair.family);
        // The session is where it was, on both legs.
        ok(&mut raw, "UPDATE t.f_ps_a SET v = 7 WHERE id = 3");
        let rows = raw.query("SELECT DATABASE()").expect("answer");
        let shown = rows.iter().any(|p| p.payload.ends_with(b"f_ps_other"));
        assert!(shown, "{}", pair.family);
        pair.equal("t.f_ps_a");
        pair.assert_unmirrored("ps", before, 0, 0);
    });
}

/// 1. Prepared under ANSI_QUOTES; 2. `SET sql_mode=''`; 3. the mirror is given
///    the text, to which `"v"` is a string by now.
#[test]
fn texts_are_read_in_the_mode_of_prepare() {
    on_both(|pair| {
        let before = pair.counts("ps");
        let mut raw = connect(pair);
        ok(&mut raw, "SET sql_mode = 'ANSI_QUOTES'");
        let update = prepare(
            &mut raw,
            r#"UPDATE "f_ps_b" SET "v" = "v" + ? WHERE "id" = 1"#,
        );
        ok(&mut raw, "SET sql_mode = ''");
        let five = 5u64.to_le_bytes();
        assert_eq!(execute(&mut raw, update, &[LONGLONG], &five), None);
        // And the mode of now is in force again, on both legs.
        ok(&mut raw, r#"UPDATE f_ps_b SET v = "20" WHERE id = 2"#);
        let rows = "SELECT GROUP_CONCAT(v ORDER BY id) FROM t.f_ps_b WHERE id < 3";
        let expected = || Some("6,20".to_string());
        assert_eq!(pair.both(rows), [expected(), expected()], "{}", pair.family);
        pair.assert_unmirrored("ps", before, 0, 0);
    });
}

/// An id of 0 generates one, however it was sent: taken for a given one, each
/// side would generate its own.
#[test]
fn an_id_of_zero_sent_as_long_data_is_generated_once() {
    on_both(|pair| {
        let before = pair.counts("ps");
        let mut raw = connect(pair);
        ok(&mut raw, "INSERT INTO f_ps_g (v) VALUES (1)");
        // Burns an id on the active side alone.
        let twice = raw.query("INSERT INTO f_ps_g (v) VALUES (1)");
        assert_eq!(error(&twice.expect("answer")), Some(1062));
        let insert = prepare(&mut raw, "INSERT INTO f_ps_g (id, v) VALUES (?, ?)");
        for (v, id) in [(2u64, &b"0"[..]), (3, b""), (4, b"900")] {
            let body = [&insert[..], &[0, 0], id].concat();
            raw.ask(COM_STMT_SEND_LONG_DATA, &body).expect("long data");
            let said = execute(&mut raw, insert, &[BLOB, LONGLONG], &v.to_le_bytes());
            // An empty text is no number in a strict mode.
            assert!(said.is_none() || v == 3, "{}: {said:?}", pair.family);
        }
        pair.equal("t.f_ps_g");
        pair.assert_unmirrored("ps", before, 0, 0);
    });
}
