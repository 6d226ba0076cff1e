//! Statements prepared by SQL PREPARE, on the other server.

use super::{Pair, values};
use crate::transparency::raw::{MODERN, Raw};

fn ask(raw: &mut Raw, sql: &str) -> Vec<String> {
    let packets = raw.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    values(&packets, MODERN)
}

fn ok(raw: &mut Raw, sql: &str) {
    let said = ask(raw, sql);
    assert!(!said.concat().starts_with("ERR"), "{sql}: {said:?}");
}

/// As a row of one short text.
fn row(text: &str) -> Vec<String> {
    let length = u8::try_from(text.len()).expect("a short text");
    vec![
        [&[length], text.as_bytes()]
            .concat()
            .escape_ascii()
            .to_string(),
    ]
}

/// 1. Prepared in `st`, under ANSI_QUOTES; 2. `USE st_other`, another mode, and
/// a flip; 3. prepared on the target in `st_other`, its table is another one.
#[test]
fn named_statements_keep_their_schema_and_mode() {
    for index in 0..4 {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        pair.reset();
        let mut raw = pair.session(pair.proxy.port());
        ok(&mut raw, "SET sql_mode = 'ANSI_QUOTES'");
        ok(
            &mut raw,
            r#"PREPARE s FROM 'SELECT "v" FROM "r" WHERE id = 3'"#,
        );
        ok(&mut raw, "SET sql_mode = ''");
        ok(&mut raw, "USE st_other");
        pair.to("target_first");
        assert_eq!(ask(&mut raw, "EXECUTE s"), row("3"), "{}", pair.name());
        assert_eq!(ask(&mut raw, "SELECT DATABASE()"), row("st_other"));
        assert_eq!(ask(&mut raw, r#"SELECT "v""#), row("v"));
        pair.to("source_first");
        assert_eq!(ask(&mut raw, "EXECUTE s"), row("3"), "{}", pair.name());
    }
}
