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
///    a flip; 3. prepared on the target in `st_other`, its table is another one.
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

/// 1. @q is set on the source; 2. a flip; 3. `PREPARE s FROM @q` on the target,
///    where it is brought first; 4. back on the source, it is the same statement.
#[test]
fn a_statement_from_a_variable_crosses_a_flip() {
    for index in 0..4 {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        let mut raw = pair.session(pair.proxy.port());
        ok(&mut raw, "SET @q = 'SELECT ''its'''");
        pair.to("target_first");
        ok(&mut raw, "PREPARE s FROM @q");
        pair.to("source_first");
        assert_eq!(ask(&mut raw, "EXECUTE s"), row("its"), "{}", pair.name());
    }
}

/// 1. The text is asked for, and is larger than what is read of an answer; 2. its
///    rest would be the answer to what the client says next.
#[test]
fn a_statement_from_a_long_variable_leaves_no_answer_behind() {
    for index in 0..4 {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        let mut raw = pair.session(pair.proxy.port());
        ok(&mut raw, "PREPARE s FROM 'SELECT 6'");
        let long = "SET @q = CONCAT('SELECT 7 /*', REPEAT('c', 2 << 20), '*/')";
        ok(&mut raw, long);
        ok(&mut raw, "PREPARE s FROM @q");
        assert_eq!(ask(&mut raw, "SELECT 8"), row("8"), "{}", pair.name());
        assert_eq!(ask(&mut raw, "EXECUTE s"), row("7"), "{}", pair.name());
        pair.to("target_first");
        // Not carried, and the older one must not run.
        let said = ask(&mut raw, "EXECUTE s").concat();
        assert!(said.contains("1243"), "{}: {said}", pair.name());
        assert_eq!(ask(&mut raw, "SELECT 9"), row("9"), "{}", pair.name());
    }
}

/// A PREPARE that is refused has deallocated the older statement of its name.
#[test]
fn a_refused_prepare_forgets_the_older_statement() {
    for index in 0..4 {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        for port in [pair.source.port(), pair.proxy.port()] {
            let mut raw = pair.session(port);
            ok(&mut raw, "PREPARE s FROM 'SELECT 1'");
            let said = ask(&mut raw, "PREPARE s FROM 'SELEC'").concat();
            assert!(said.contains("1064"), "{}: {said}", pair.name());
            pair.to("target_first");
            let said = ask(&mut raw, "EXECUTE s").concat();
            assert!(said.contains("1243"), "{} {port}: {said}", pair.name());
            pair.to("source_first");
        }
    }
}
