//! How texts are cut: strings, names and comments of every kind at random,
//! and what the server makes of them. A list of numbers shows it: as many
//! columns as the scanner counts.

use super::generate::Rng;
use super::{answers, mode, number};
use crate::or_skip;
use crate::support::Family;
use crate::support::servers::shared;
use lockstep::sql::{Flags, ScanMode, scan};

/// Texts per family and sql_mode.
const TEXTS: u64 = 1500;

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

fn text(rng: &mut Rng) -> String {
    let mut out = "SELECT 1".to_owned();
    for _ in 0..1 + rng.below(7) {
        out.push_str(rng.pick(PIECES));
    }
    out
}

fn cut(family: Family) {
    let server = or_skip!(shared(family, 0));
    let seed = number("LOCKSTEP_SEED", 7);
    let texts = number("LOCKSTEP_STATEMENTS", TEXTS);
    let mut wrong = Vec::new();
    let mut taken = 0u32;
    for (sql_mode, ansi_quotes, no_backslash_escapes) in [
        ("SET sql_mode = ''", false, false),
        ("SET sql_mode = 'ANSI_QUOTES'", true, false),
        ("SET sql_mode = 'NO_BACKSLASH_ESCAPES'", false, true),
    ] {
        let mode = ScanMode {
            ansi_quotes,
            no_backslash_escapes,
            ..mode(server)
        };
        let mut raw = answers::connect(server, "test");
        assert_eq!(answers::ask(&mut raw, sql_mode).error, None);
        let mut rng = Rng::new(seed);
        for _ in 0..texts {
            let sql = text(&mut rng);
            let answers::Answers {
                columns: theirs,
                error: None,
            } = answers::ask(&mut raw, &sql)
            else {
                continue;
            };
            taken += 1;
            let facts = scan(sql.as_bytes(), mode);
            // A comma is an operator to the scanner, and so are - and others.
            let commas = theirs.iter().map(|n| n.saturating_sub(1)).sum::<usize>();
            let minus = sql_minus(&sql);
            let right = facts.statements as usize == theirs.len()
                && !facts.flags.any(Flags::UNTERMINATED)
                && (commas..=commas + minus).contains(&(facts.operators as usize));
            if !right {
                wrong.push(format!(
                    "{sql_mode}: {theirs:?} columns, {} statements, {} operators: {}",
                    facts.statements,
                    facts.operators,
                    sql.escape_debug()
                ));
            }
        }
    }
    eprintln!("{family}: {taken} texts taken");
    assert!(taken > 100, "{taken} texts taken");
    assert!(
        wrong.is_empty(),
        "{}: {}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

/// Minus signs, stars, slashes: operators that are no commas.
fn sql_minus(sql: &str) -> usize {
    sql.bytes()
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
