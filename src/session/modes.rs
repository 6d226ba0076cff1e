//! SQL modes of the two families.

use super::state::contains_word;

/// Modes that only one family knows.
const MARIADB_MODES: &[&[u8]] = &[
    b"NO_AUTO_CREATE_USER",
    b"IGNORE_BAD_TABLE_OPTIONS",
    b"SIMULTANEOUS_ASSIGNMENT",
    b"TIME_ROUND_FRACTIONAL",
    b"EMPTY_STRING_IS_NULL",
];
const MYSQL_MODES: &[&[u8]] = &[b"TIME_TRUNCATE_FRACTIONAL"];

/// An sql_mode with the same meaning on the other family. Fractional seconds
/// beyond a column's precision are cut by MariaDB and rounded by MySQL, each
/// unless its own mode says otherwise.
pub(super) fn translate_sql_mode(value: &[u8], to_mariadb: bool) -> Vec<u8> {
    let (foreign, cuts) = if to_mariadb {
        (
            MYSQL_MODES,
            contains_word(value, b"TIME_TRUNCATE_FRACTIONAL"),
        )
    } else {
        (
            MARIADB_MODES,
            !contains_word(value, b"TIME_ROUND_FRACTIONAL"),
        )
    };
    let mut modes: Vec<&[u8]> = value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|m| !m.is_empty() && !foreign.contains(m))
        .collect();
    match (to_mariadb, cuts) {
        (true, false) => modes.push(b"TIME_ROUND_FRACTIONAL"),
        (false, true) => modes.push(b"TIME_TRUNCATE_FRACTIONAL"),
        _ => {}
    }
    modes.join(&b","[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_keep_their_meaning_across_families() {
        let to_mysql = translate_sql_mode(b"STRICT_TRANS_TABLES,NO_AUTO_CREATE_USER", false);
        assert_eq!(to_mysql, b"STRICT_TRANS_TABLES,TIME_TRUNCATE_FRACTIONAL");
        let to_mariadb = translate_sql_mode(b"STRICT_TRANS_TABLES", true);
        assert_eq!(to_mariadb, b"STRICT_TRANS_TABLES,TIME_ROUND_FRACTIONAL");
        assert_eq!(translate_sql_mode(&to_mysql, true), b"STRICT_TRANS_TABLES");
    }
}
