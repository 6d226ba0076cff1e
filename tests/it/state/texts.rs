//! Texts are read as the session's server reads them: under every SQL mode that
//! changes quoting, however it was set, and in character sets whose second
//! bytes look like quotes and backslashes. What the scanner understood is
//! mirrored inline, so nothing of this may be deferred.

use super::{Pair, values};
use crate::order::counts;
use crate::support::compare;
use crate::transparency::raw::{MODERN, Raw};
use lockstep::wire::command::COM_QUERY;

fn ask(raw: &mut Raw, sql: &[u8]) -> Vec<String> {
    let packets = raw.ask(COM_QUERY, sql).expect("answer");
    let said = values(&packets, MODERN);
    let text = sql.escape_ascii();
    assert!(!said.concat().starts_with("ERR"), "{text}: {said:?}");
    said
}

/// Says the texts through the proxy, then compares both sides' rows; so many
/// writes are deferred.
fn mirrored(pair: &Pair, texts: &[&[u8]], deferred: u64) {
    pair.reset();
    let before = counts(&pair.proxy, super::ROUTE);
    let mut raw = pair.session(pair.proxy.port());
    texts.iter().for_each(|sql| drop(ask(&mut raw, sql)));
    let after = counts(&pair.proxy, super::ROUTE);
    let shown: Vec<String> = texts.iter().map(|t| t.escape_ascii().to_string()).collect();
    assert_eq!(
        (
            after.deferred - before.deferred,
            after.failed - before.failed
        ),
        (deferred, 0),
        "{}: {shown:?}\n{}",
        pair.name(),
        crate::order::journal(&pair.proxy)
    );
    if deferred == 0 {
        assert!(compare::assert_equal(pair.source, pair.target, &["st.a"]) > 0);
    }
}

#[test]
fn trail_bytes_that_look_like_quotes() {
    for index in 0..4 {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        let mut charsets: Vec<(&str, [u8; 2])> = vec![
            ("gbk", [0xD5, 0x5C]),
            ("big5", [0xA5, 0x5C]),
            ("sjis", [0x95, 0x5C]),
            ("cp932", [0x95, 0x5C]),
        ];
        // MariaDB 10.11 has no gb18030.
        if pair.source.family() == crate::support::Family::MySql && pair.same_family() {
            charsets.push(("gb18030", [0xD5, 0x5C]));
        }
        for (name, wide) in charsets {
            let set = format!("SET NAMES {name}");
            // Were 0x5C an escape, the string would end elsewhere.
            let one = [b"INSERT INTO a (v, s) VALUES (1, '", &wide[..], b"')"].concat();
            let two = [
                b"INSERT INTO a (v, s) VALUES (2, '",
                &wide[..],
                b"'), (3, '\\'",
                &wide[..],
                b"')",
            ]
            .concat();
            let named = [b"INSERT INTO a (`v`, `s`) VALUES (4, \"", &wide[..], b"\")"].concat();
            mirrored(pair, &[set.as_bytes(), &one, &two, &named], 0);
            let seen = pair
                .source
                .query("SELECT id, CHAR_LENGTH(s) FROM st.a ORDER BY id");
            let lengths: Vec<String> = seen.into_iter().filter_map(|mut r| r.pop()?).collect();
            assert_eq!(lengths, ["1", "1", "2", "1"], "{name}");
        }
    }
}

/// Every way to set an SQL mode.
const WAYS: [&str; 5] = [
    "SET sql_mode = '{}'",
    "SET @@sql_mode = '{}'",
    "SET @@session.sql_mode = '{}', @x = 1",
    "SET SESSION sql_mode = CONCAT('{}', '')",
    "PREPARE s FROM 'SET SESSION sql_mode = ''{}'''",
];

#[test]
fn modes_that_change_quoting() {
    for index in 0..4 {
        let Some((pair, _turn)) = Pair::get(index) else {
            return;
        };
        for way in WAYS {
            for (mode, insert) in [
                (
                    "ANSI_QUOTES",
                    r#"INSERT INTO "a" ("v", "s") VALUES (1, 'it"s')"#,
                ),
                (
                    "NO_BACKSLASH_ESCAPES",
                    r"INSERT INTO a (v, s) VALUES (2, '\'), (3, 'x\')",
                ),
                (
                    "PIPES_AS_CONCAT",
                    "INSERT INTO a (v, s) VALUES (4, 'x' || 'y')",
                ),
                (
                    "",
                    r#"INSERT INTO a (v, s) VALUES (5, "it\"s"), (6, 'x\'')"#,
                ),
            ] {
                let set = way.replace("{}", mode);
                let mut texts: Vec<&[u8]> = vec![b"SET sql_mode = DEFAULT", set.as_bytes()];
                // Nobody knows what an EXECUTE wrote.
                let prepared = u64::from(way.starts_with("PREPARE"));
                if prepared == 1 {
                    texts.push(b"EXECUTE s");
                }
                texts.push(insert.as_bytes());
                pair.reset();
                let before = counts(&pair.proxy, super::ROUTE);
                let mut raw = pair.session(pair.proxy.port());
                texts.iter().for_each(|sql| drop(ask(&mut raw, sql)));
                let after = counts(&pair.proxy, super::ROUTE);
                assert_eq!(
                    after.deferred - before.deferred,
                    prepared,
                    "{}: {set}: {insert}\n{}",
                    pair.name(),
                    crate::order::journal(&pair.proxy)
                );
                compare::assert_equal(pair.source, pair.target, &["st.a"]);
            }
        }
    }
}

/// MariaDB's ORACLE mode has a grammar of its own: nothing in it is mirrored.
#[test]
fn oracle_mode_is_left_to_the_server() {
    let Some((pair, _turn)) = Pair::get(0) else {
        return;
    };
    let texts: [&[u8]; 3] = [
        b"SET sql_mode = ORACLE",
        b"INSERT INTO a (v) VALUES (1)",
        b"BEGIN INSERT INTO a (v) VALUES (2); INSERT INTO a (v) VALUES (3); END;",
    ];
    // SET is one of those that may be anything, until the mode is known.
    mirrored(pair, &texts, 2);
    assert_eq!(pair.source.one("SELECT SUM(v) FROM st.a"), "6");
}
