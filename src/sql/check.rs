//! A second opinion on writes, from sqlparser behind gates.
//!
//! sqlparser's tree can overflow the stack when it is dropped, which no one
//! can catch, so only small and shallow texts reach it: it aborted at 32,000
//! operators and gives up near 45 levels, far beyond the gates here. Only
//! verb and tables are compared; its printed SQL is never used.

use std::borrow::Cow;
use std::sync::LazyLock;

use sqlparser::ast::{self, Statement};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;

use super::facts::{Facts, Verb, unquote};
use super::mode::ScanMode;

/// Bytes of text above which nothing is parsed: keeps a parse below about 1 ms.
const TEXT_MAX: usize = 16 << 10;

/// Operators and commas above which nothing is parsed (the tree's depth).
const OPERATORS_MAX: u32 = 2000;

/// Nesting of parentheses above which nothing is parsed.
const NESTING_MAX: u32 = 40;

/// Verdicts kept, each some 20 bytes: one per statement shape an application
/// has; the cache evicts beyond.
const CACHE_ENTRIES: usize = 16_384;

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

static VERDICTS: LazyLock<quick_cache::sync::Cache<u64, Agreement>> =
    LazyLock::new(|| quick_cache::sync::Cache::new(CACHE_ENTRIES));

/// Parses `sql` if that is safe and compares verb and tables with `facts`.
/// Statements of the same digest are parsed once. For single-table writes.
pub fn cross_check(sql: &str, facts: &Facts, mode: ScanMode) -> Agreement {
    if sql.len() > TEXT_MAX
        || facts.operators >= OPERATORS_MAX
        || facts.nesting >= NESTING_MAX
        || facts.statements != 1
        || mode.no_backslash_escapes
    {
        return Agreement::NotParsed;
    }
    let key = super::digest(sql.as_bytes(), mode);
    if let Some(verdict) = VERDICTS.get(&key) {
        return verdict;
    }
    let verdict = compare(sql, facts);
    VERDICTS.insert(key, verdict);
    verdict
}

fn compare(sql: &str, facts: &Facts) -> Agreement {
    let Ok(statements) = Parser::parse_sql(&MySqlDialect {}, sql) else {
        return Agreement::NotParsed;
    };
    let [statement] = statements.as_slice() else {
        return Agreement::Disagree;
    };
    let Some((verb, table)) = written(statement) else {
        return Agreement::Disagree;
    };
    let mut mine = facts.tables.iter(sql.as_bytes());
    let (Some((db, name)), None) = (mine.next(), mine.next()) else {
        return Agreement::Disagree;
    };
    let theirs: Vec<Cow<'_, [u8]>> = table
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(|ident| Cow::Owned(ident.value.as_bytes().to_vec()))
        .collect();
    let same = match (theirs.as_slice(), db) {
        ([n], None) => same_name(n, &name),
        ([d, n], Some(db)) => same_name(d, &db) && same_name(n, &name),
        _ => false,
    };
    if verb == facts.verb && same {
        Agreement::Agree
    } else {
        Agreement::Disagree
    }
}

/// sqlparser keeps doubled quotes in names in some places: compare both ways.
fn same_name(theirs: &[u8], mine: &[u8]) -> bool {
    theirs == mine || unquote(theirs).as_ref() == mine
}

/// Verb and table of a write of one table.
fn written(statement: &Statement) -> Option<(Verb, &ast::ObjectName)> {
    match statement {
        Statement::Insert(insert) => {
            let verb = if insert.replace_into {
                Verb::Replace
            } else {
                Verb::Insert
            };
            match &insert.table {
                ast::TableObject::TableName(name) => Some((verb, name)),
                _ => None,
            }
        }
        Statement::Update(update) => {
            single(std::slice::from_ref(&update.table)).map(|n| (Verb::Update, n))
        }
        Statement::Delete(delete) => {
            let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) =
                &delete.from;
            if !delete.tables.is_empty() || delete.using.is_some() {
                return None;
            }
            single(from).map(|n| (Verb::Delete, n))
        }
        _ => None,
    }
}

fn single(tables: &[ast::TableWithJoins]) -> Option<&ast::ObjectName> {
    let [table] = tables else { return None };
    match &table.relation {
        ast::TableFactor::Table { name, .. } if table.joins.is_empty() => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::scan;

    fn check(sql: &str) -> Agreement {
        let mode = ScanMode::default();
        cross_check(sql, &scan(sql.as_bytes(), mode), mode)
    }

    #[test]
    fn agrees_on_plain_writes() {
        for sql in [
            "INSERT INTO `d`.`t` (a, b) VALUES (1, 'x'), (?, ?)",
            "REPLACE INTO t SET a = 1",
            "UPDATE t AS x SET x.a = 1 WHERE x.b = 2",
            "DELETE FROM t WHERE a IN (1, 2)",
        ] {
            assert_eq!(check(sql), Agreement::Agree, "{sql}");
        }
        assert_eq!(check("UPDATE t SET j=1, j->'$.b'=2"), Agreement::NotParsed);
        assert_eq!(check("UPDATE t JOIN u SET t.a=1"), Agreement::Disagree);
    }

    #[test]
    fn gates_hold() {
        let chain = format!("UPDATE t SET a=1 WHERE a=1{}", " OR a=1".repeat(40_000));
        assert_eq!(check(&chain), Agreement::NotParsed);
        let deep = format!("UPDATE t SET a={}1{}", "(".repeat(60), ")".repeat(60));
        assert_eq!(check(&deep), Agreement::NotParsed);
        let long = format!("UPDATE t SET a='{}'", "x".repeat(TEXT_MAX));
        assert_eq!(check(&long), Agreement::NotParsed);
    }
}
