//! The scanner: total, and what it says of a text holds in every SQL mode,
//! character set and server.
//!
//! Input: two bytes of mode, the text.

use lockstep::sql::{
    CharsetClass, Class, Facts, Flags, ScanMode, ServerKind, Span, WriteShape, cross_check, digest,
    scan, user_variables,
};

use crate::Input;

/// Longest text joined with itself, in bytes: more is only slower.
const JOIN_MAX: usize = 4096;

pub(super) fn mode(bits: u8, server: u8) -> ScanMode {
    ScanMode {
        ansi_quotes: bits & 1 != 0,
        no_backslash_escapes: bits & 2 != 0,
        charset: match bits >> 2 & 3 {
            0 => CharsetClass::Safe,
            1 => CharsetClass::Gbk,
            2 => CharsetClass::Sjis,
            _ => CharsetClass::Big5,
        },
        server: match server % 4 {
            0 => ServerKind {
                mariadb: false,
                version: 90_704,
            },
            1 => ServerKind {
                mariadb: true,
                version: 101_119,
            },
            2 => ServerKind {
                mariadb: false,
                version: 80_045,
            },
            _ => ServerKind {
                mariadb: true,
                version: 50_568,
            },
        },
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = mode(input.byte(), input.byte());
    let sql = input.0;
    let facts = scan(sql, mode);
    spans(&facts, sql);
    write(&facts, sql, mode);
    for variable in user_variables(sql, mode) {
        assert_eq!(variable.first(), Some(&b'@'));
    }
    assert_eq!(digest(sql, mode), digest(sql, mode));
    if let Ok(text) = std::str::from_utf8(sql) {
        let _ = cross_check(text, &facts, mode);
    }
    if !facts.flags.any(Flags::UNTERMINATED) {
        let mut longer = sql.to_vec();
        longer.push(b'\n');
        assert_eq!(
            digest(sql, mode),
            digest(&longer, mode),
            "a blank changes the digest"
        );
        if sql.len() <= JOIN_MAX && facts.class < Class::Ddl {
            joined(&facts, sql, mode);
        }
    }
}

fn spans(facts: &Facts, sql: &[u8]) {
    let within = |s: Span| assert!(s.start <= s.end && s.end as usize <= sql.len(), "{s:?}");
    for table in facts.tables.as_slice() {
        within(table.name);
        assert!(!table.name.is_empty(), "a table without a name");
        if let Some(db) = table.db {
            within(db);
        }
    }
    for s in [facts.savepoint, facts.prepared_name, facts.database] {
        s.into_iter().for_each(within);
    }
    for variable in &facts.set_variables {
        within(variable.name);
        within(variable.value);
    }
    if facts.flags.any(Flags::OVERFLOW) {
        assert!(facts.tables.overflow);
    }
    assert_eq!(facts.parameters > 0, facts.flags.any(Flags::PARAMETERS));
}

fn write(facts: &Facts, sql: &[u8], mode: ScanMode) {
    let Some(shape) = facts.write.as_deref() else {
        return;
    };
    assert_eq!((facts.class, facts.statements), (Class::Write, 1));
    assert_eq!(facts.tables.len(), 1);
    if let WriteShape::Insert(insert) = shape {
        for column in 0..3 {
            let mut seen = 0;
            insert.values_of(sql, mode, column, &mut |_| {
                seen += 1;
                true
            });
            assert!(seen <= insert.rows.max(1));
        }
    }
}

/// A statement behind another is seen, whatever the first one is.
fn joined(facts: &Facts, sql: &[u8], mode: ScanMode) {
    let mut text = sql.to_vec();
    text.extend_from_slice(b"\n;");
    // A comment at its end is no statement any more with something behind it.
    let alone = scan(&text, mode).statements;
    text.extend_from_slice(b"\nDELETE FROM zz");
    let both = scan(&text, mode);
    assert_eq!(both.statements, alone + 1, "a statement was hidden");
    assert!(both.class >= Class::Write);
    // Found only where the statement stands alone.
    let single = Flags::COMPLETION;
    assert!(both.flags.with(single).has(facts.flags), "flags were lost");
    let found = both.tables.overflow || both.tables.iter(&text).any(|(_, name)| &*name == b"zz");
    assert!(found, "its table is missing");
}
