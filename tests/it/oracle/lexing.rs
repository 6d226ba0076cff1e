//! How texts are cut: strings, names and comments of every kind at random,
//! and what the server makes of them. A list of numbers shows it: as many
//! columns as the scanner counts.

use super::generate::Rng;
use super::{answers, mode, number};
use crate::or_skip;
use crate::support::Family;
use crate::support::servers::shared;
use lockstep::sql::{CharsetClass, Class, Flags, ScanMode, scan};

/// Texts per family and sql_mode or character set.
const TEXTS: u64 = 700;

const PIECES: &[&str] = &[
    ", 2",
    ", 3",
    ", 'x'",
    ", 4 ",
    " ",
    "\n",
    "-- x\n",
    "--\n",
    "--x",
    "#\n",
    "# ' \n",
    "'",
    "\"",
    "`",
    "\\",
    "''",
    "\"\"",
    "/*",
    "*/",
    "/* x */",
    "/*!",
    "/*! ",
    "/*!50000 ",
    "/*!50000",
    "/*!50699 ",
    "/*!50700 ",
    "/*!80000 ",
    "/*!99999 ",
    "/*!100000 ",
    "/*!100100 ",
    "/*!101100 ",
    "/*!090700 ",
    "/*!999999 ",
    "/*M! ",
    "/*M!100100 ",
    "/*M!999999 ",
    "/*m! ",
    "/*!5000 ",
    "/*!500001 ",
    "/*/",
    "/*+ x */",
    "/**/",
    "/***/",
    "*/ ",
    ";",
    "; SELECT 5",
    ", @a",
    ", @'a'",
    ", @\"a\"",
    ", @`a`",
    ", N'x'",
    ", x'41'",
    ", b'1'",
    ", 1.5e3",
    ", .5",
    ", 0x41",
    ", 1 - -1",
    ", 1--1",
    ", 'it''s'",
    ", 'a\\'b'",
    ", \"q\"",
    ", _utf8mb4'x'",
];

/// Bytes that are halves of characters in some character sets.
const HALVES: &[&[u8]] = &[
    b", '\x95\\'",
    b", '\x95\\''",
    b", '\x81\\x'",
    b", '\x81\\'; SELECT 5 -- '",
    b", '\xE0\\'",
    b", '\xA1\\'",
    b", '\xB3\x5C'",
    b", '\xBF'",
    b", '\xBF\\''",
    b", '\x95'",
    b", '\x81\x40'",
    b", '\xA4\xA2'",
    b", '\xA4'",
    b", \"\x95\\\"",
    b", 1 AS `\x95``",
    b", 1 AS `\x95\\`",
    b", 1 AS \x95\x5C",
    b", 1 AS \x83\x60",
    b", 1 AS x\xA4\xA2",
    b"\xA0",
    b", '\x81\x30\x81\x30'",
    b", '\xC3\xA9'",
];

/// Character sets that clients may use, and that change how a text is cut.
const CHARSETS: &[&str] = &[
    "utf8mb4", "latin1", "gbk", "gb18030", "sjis", "cp932", "big5", "euckr", "ujis", "gb2312",
];

fn text(rng: &mut Rng, halves: bool) -> Vec<u8> {
    let mut out = b"SELECT 1".to_vec();
    for _ in 0..1 + rng.below(7) {
        if halves && rng.once_in(2) {
            out.extend_from_slice(HALVES[rng.below(HALVES.len())]);
        } else {
            out.extend_from_slice(rng.pick(PIECES).as_bytes());
        }
    }
    out
}

/// How a session is set up, and what the scanner is told of it.
fn sessions(family: Family, plain: ScanMode) -> Vec<(String, ScanMode)> {
    let mut all = Vec::new();
    for (sql_mode, ansi_quotes, no_backslash_escapes) in [
        ("", false, false),
        ("ANSI_QUOTES", true, false),
        ("NO_BACKSLASH_ESCAPES", false, true),
    ] {
        let mode = ScanMode {
            ansi_quotes,
            no_backslash_escapes,
            ..plain
        };
        all.push((format!("SET sql_mode = '{sql_mode}'"), mode));
    }
    for name in CHARSETS {
        if *name == "gb18030" && family == Family::MariaDb {
            continue; // not known there
        }
        let mode = ScanMode {
            charset: CharsetClass::of_name(name.as_bytes()),
            ..plain
        };
        all.push((format!("SET NAMES {name}"), mode));
    }
    all
}

fn cut(family: Family) {
    let server = or_skip!(shared(family, 0));
    let seed = number("LOCKSTEP_SEED", 7);
    let texts = number("LOCKSTEP_STATEMENTS", TEXTS);
    let mut wrong = Vec::new();
    let mut taken = 0u32;
    for (setup, mode) in sessions(family, mode(server)) {
        let mut raw = answers::connect(server, "test");
        assert_eq!(
            answers::ask(&mut raw, setup.as_bytes()).error,
            None,
            "{setup}"
        );
        let mut rng = Rng::new(seed);
        for _ in 0..texts {
            let sql = text(&mut rng, setup.contains("NAMES"));
            let answers::Answers {
                columns: theirs,
                error: None,
            } = answers::ask(&mut raw, &sql)
            else {
                continue;
            };
            taken += 1;
            let facts = scan(&sql, mode);
            // A comma is an operator to the scanner, and so are - and others.
            let commas = theirs.iter().map(|n| n.saturating_sub(1)).sum::<usize>();
            let right = facts.statements as usize == theirs.len()
                && !facts.flags.any(Flags::UNTERMINATED)
                && (commas..=commas + operators(&sql)).contains(&(facts.operators as usize));
            if !right && facts.class != Class::Unknown {
                wrong.push(format!(
                    "{setup}: {theirs:?} columns, {} statements, {} operators: {}",
                    facts.statements,
                    facts.operators,
                    sql.escape_ascii()
                ));
            }
        }
    }
    eprintln!("{family}: {taken} texts taken");
    assert!(taken > 1000, "{taken} texts taken");
    assert!(
        wrong.is_empty(),
        "{}: {}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

/// Operators that are no commas, at most.
fn operators(sql: &[u8]) -> usize {
    sql.iter()
        .filter(|b| matches!(b, b'-' | b'*' | b'/' | b'+'))
        .count()
}

#[test]
fn texts_as_mariadb_cuts_them() {
    cut(Family::MariaDb);
}

#[test]
fn texts_as_mysql_cuts_them() {
    cut(Family::MySql);
}
