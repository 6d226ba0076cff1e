//! SQL modes of the two families, and how a setting is said to a server.

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

/// `SET ROLE` from what CURRENT_ROLE() said: a name or NULL on MariaDB, a list
/// of quoted accounts or NONE on MySQL. MariaDB's roles have no host.
pub(super) fn set_role(role: &[u8], to_mariadb: bool) -> Vec<u8> {
    if role.is_empty() || role.eq_ignore_ascii_case(b"NONE") {
        return b"SET ROLE NONE".to_vec();
    }
    let quoted = role.first() == Some(&b'`');
    let first = role.get(1..).and_then(|r| r.split(|b| *b == b'`').next());
    let mut sql = b"SET ROLE ".to_vec();
    match (quoted, to_mariadb) {
        (true, false) => sql.extend_from_slice(role),
        (true, true) => sql.extend_from_slice(&[b"`", first.unwrap_or(&[]), b"`"].concat()),
        (false, _) => sql.extend_from_slice(&[b"`", role, b"`"].concat()),
    }
    sql
}

/// `SET @@session.x = value`, numbers bare and the rest quoted: numeric
/// variables refuse strings, and no enum or string value is all digits that
/// would not be taken as a number as well.
pub(super) fn set_statement(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sql = b"SET @@session.`".to_vec();
    sql.extend(name.iter().filter(|&&b| b != b'`'));
    sql.extend_from_slice(b"`=");
    // As MariaDB reports its versioning variables when they have no value.
    if value == b"DEFAULT" || (value.is_empty() && name == b"character_set_results") {
        let value = if value.is_empty() { b"NULL" } else { value };
        sql.extend_from_slice(value);
        return sql;
    }
    if is_number(value) {
        sql.extend_from_slice(value);
        return sql;
    }
    // Hex avoids every question of quoting and escaping modes.
    sql.extend_from_slice(b"_utf8mb4 0x");
    if value.is_empty() {
        sql.truncate(sql.len() - b"_utf8mb4 0x".len());
        sql.extend_from_slice(b"''");
        return sql;
    }
    for byte in value {
        sql.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    sql
}

fn is_number(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let mut dots = 0;
    !digits.is_empty()
        && digits.iter().all(|b| {
            dots += usize::from(*b == b'.');
            b.is_ascii_digit() || *b == b'.'
        })
        && dots <= 1
        && digits.first().is_some_and(u8::is_ascii_digit)
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
