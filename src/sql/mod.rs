//! Reading SQL: what a statement is, names and needs. Total: any bytes give
//! [`Facts`], nothing fails, nothing panics, time is linear in the text.
//!
//! ```text
//! bytes ─ lex (tokens) ─ scan (verb, class, flags, tables) ─┬─ session (SET, COMMIT, SHOW … in detail)
//!                                                           └─ write (INSERT/UPDATE/DELETE forms)
//! ```
//! Unknown words mean the dangerous reading: [`Class::Unknown`] may write
//! anything. [`cross_check`] asks sqlparser for a second opinion on writes;
//! its printed SQL is never sent anywhere.

mod check;
mod digest;
mod facts;
mod head;
mod lex;
mod mode;
mod scan;
mod session;
mod words;
mod write;

pub use check::{Agreement, cross_check};
pub use digest::digest;
pub use facts::{
    BeginKind, Class, DiagnosticsForm, Facts, Flags, Kill, Scope, SetVariable, Span, TABLES_MAX,
    TableName, Tables, Verb, unquote,
};
pub use lex::{statements, user_variables};
pub use mode::{CharsetClass, Isolation, ScanMode, ServerKind};
pub use write::{EqValue, Equality, InsertShape, KeyedShape, ValueKind, WriteShape};

/// Reads a statement (or several).
#[inline]
pub fn scan(sql: &[u8], mode: ScanMode) -> Facts {
    // Inlined, so that the facts are made where the caller keeps them: moving
    // them costs as much as a keyword.
    let mut facts = Facts::unknown();
    scan_into(&mut facts, sql, mode);
    facts
}

fn scan_into(facts: &mut Facts, sql: &[u8], mode: ScanMode) {
    if u32::try_from(sql.len()).is_err() {
        // Beyond any server's max_allowed_packet; spans are 32 bits.
        return;
    }
    let values = scan::run(sql, mode, facts);
    if facts.statements == 1 {
        if facts.class == Class::Write {
            facts.write = write::shape(facts, &values, sql, mode).map(Box::new);
        } else {
            session::detail(facts, sql, mode);
        }
    }
}

#[cfg(test)]
mod tests;
