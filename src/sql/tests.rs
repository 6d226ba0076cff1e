//! The corpus, the readings parsers get wrong, and bytes at random.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn mysql() -> ScanMode {
    ScanMode {
        server: ServerKind {
            mariadb: false,
            version: 90_704,
        },
        ..ScanMode::default()
    }
}

fn mariadb() -> ScanMode {
    ScanMode {
        server: ServerKind {
            mariadb: true,
            version: 101_119,
        },
        ..ScanMode::default()
    }
}

fn facts(sql: &str) -> Facts {
    scan(sql.as_bytes(), mysql())
}

fn tables(sql: &str) -> Vec<String> {
    tables_in(sql, mysql())
}

fn tables_in(sql: &str, mode: ScanMode) -> Vec<String> {
    let f = scan(sql.as_bytes(), mode);
    f.tables
        .iter(sql.as_bytes())
        .map(|(db, name)| {
            let name = String::from_utf8_lossy(&name).into_owned();
            match db {
                Some(db) => format!("{}.{name}", String::from_utf8_lossy(&db)),
                None => name,
            }
        })
        .collect()
}

fn corpus() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    ["stmts.txt", "stmts2.txt"]
        .iter()
        .flat_map(|name| {
            let text = std::fs::read_to_string(format!("{root}/{name}")).unwrap();
            text.split("\n;;\n")
                .map(|s| s.trim_end_matches('\n').to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// One line per statement; `LOCKSTEP_UPDATE_CORPUS=1` writes the table anew.
#[test]
fn corpus_table() {
    let mut table = String::new();
    for sql in corpus() {
        let f = facts(&sql);
        let shape = match f.write.as_deref() {
            Some(WriteShape::Insert(i)) => format!(" insert:{}", i.rows),
            Some(WriteShape::Update(_) | WriteShape::Delete(_)) => " keyed".to_owned(),
            None => String::new(),
        };
        let names = tables(&sql).join(",");
        let short: String = sql.replace('\n', " ").chars().take(60).collect();
        writeln!(
            table,
            "{} {} {} [{names}]{shape} {:?} | {short}",
            f.verb.as_str(),
            f.class.as_str(),
            f.statements,
            f.flags
        )
        .unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/facts.txt");
    if std::env::var_os("LOCKSTEP_UPDATE_CORPUS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    for (now, then) in table.lines().zip(kept.lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(table.lines().count(), kept.lines().count());
}

#[test]
fn a_write_behind_with_is_a_write() {
    let f = facts("WITH c AS (SELECT 1 AS id) UPDATE t JOIN c USING(id) SET t.a=1");
    assert_eq!((f.verb, f.class), (Verb::Update, Class::Write));
    assert!(f.write.is_none());
    let sql = "WITH c AS (SELECT id FROM s) DELETE FROM t WHERE id IN (SELECT id FROM c)";
    assert_eq!(facts(sql).class, Class::Write);
    assert_eq!(tables(sql), ["t", "s"]);
    let f = facts("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT * FROM c");
    assert_eq!((f.verb, f.class), (Verb::Select, Class::Read));
    assert!(f.tables.is_empty());
    // Without RECURSIVE the name inside the body is the real table's.
    assert_eq!(tables("WITH t AS (SELECT * FROM t) SELECT * FROM t"), ["t"]);
    // Out of scope it is a table again.
    let sql = "SELECT * FROM (WITH c AS (SELECT 1) SELECT * FROM c) x, c";
    assert_eq!(tables(sql), ["c"]);
}

#[test]
fn executable_comments_by_version() {
    let drop = b"/*!99999 DROP TABLE t */";
    assert_eq!(scan(drop, mysql()).verb, Verb::Empty);
    assert!(scan(drop, mysql()).flags.has(Flags::EXECUTABLE_COMMENT));
    assert_eq!(
        scan(b"/*!40101 SET NAMES utf8 */", mysql()).verb,
        Verb::SetNames
    );
    let maria = b"/*M!100100 SET @x=1 */";
    assert_eq!(scan(maria, mariadb()).verb, Verb::Set);
    assert_eq!(scan(maria, mysql()).verb, Verb::Empty);
    // MariaDB leaves alone what MySQL 5.7 and later wrap.
    assert_eq!(
        scan(b"/*!80000 DROP TABLE t */", mariadb()).verb,
        Verb::Empty
    );
    assert_eq!(
        scan(b"/*!80000 DROP TABLE t */", mysql()).verb,
        Verb::DropTable
    );
    assert_eq!(
        scan(b"/*!999999 /* x */ DROP TABLE t */ SELECT 1", mysql()).verb,
        Verb::Select
    );
    // To MySQL `/*M!` is a plain comment, which holds no other.
    let sql = b"SELECT 1 /*M!100100 /* */ ; DELETE FROM t -- */";
    assert_eq!(scan(sql, mysql()).class, Class::Write);
    assert_eq!(scan(sql, mariadb()).statements, 2);
    // The first `*/` ends live comments however deep.
    let sql = "SELECT 1 /*!50000 , 2 /*!40000 */ ; DELETE FROM t -- */";
    assert_eq!(facts(sql).class, Class::Write);
    assert_eq!(
        facts("SELECT 1 /*!50000 , 2 /*!40000 ; DELETE FROM t */").class,
        Class::Write
    );
    // `/*/` in a dead one opens a comment.
    let sql = "SELECT 1 /*!999999 /*/ ; DELETE FROM t */ x */";
    assert_eq!(facts(sql).statements, 1);
    assert_eq!(
        facts("SELECT /*+ '*/ 1 -- ' */ INTO OUTFILE 'x'").class,
        Class::Unknown
    );
    let two = facts("INSERT INTO t VALUES (1) /*!50000 , (2) */");
    assert!(matches!(two.write.as_deref(), Some(WriteShape::Insert(i)) if i.rows == 2));
    assert!(facts("/*! SELECT 1").flags.has(Flags::UNTERMINATED));
}

#[test]
fn quotes_by_mode() {
    let plain = mysql();
    let no_escapes = ScanMode {
        no_backslash_escapes: true,
        ..plain
    };
    let sql = br"SELECT 'a\'; DROP TABLE t -- '";
    assert_eq!(scan(sql, plain).statements, 1);
    assert_eq!(scan(sql, no_escapes).statements, 2);
    assert_eq!(scan(sql, no_escapes).class, Class::Ddl);
    let ansi = ScanMode {
        ansi_quotes: true,
        ..plain
    };
    assert_eq!(tables_in(r#"UPDATE "t" SET "a"=1"#, ansi), ["t"]);
    assert!(tables_in(r#"UPDATE "t" SET "a"=1"#, plain).is_empty());
    // 0x95 0x5C is one character of sjis: its second byte escapes nothing.
    let sjis = ScanMode {
        charset: CharsetClass::of_name(b"sjis_japanese_ci"),
        ..plain
    };
    let sql = b"SELECT '\x95\x5C'; DELETE FROM t -- '";
    assert_eq!(scan(sql, sjis).statements, 2);
    assert_eq!(scan(sql, plain).statements, 1);
    let gbk = ScanMode {
        charset: CharsetClass::Gbk,
        ..plain
    };
    // 0xBF 0x27 is no character: the quote ends the string.
    assert_eq!(
        scan(b"SELECT '\xBF'; DELETE FROM t -- '", gbk).statements,
        2
    );
    // A latin1 client's no-break space ends the name; in UTF-8 it is a letter.
    let sql = b"SELECT * FROM t\xA0FOR UPDATE";
    assert_eq!(scan(sql, plain).class, Class::Unknown);
    assert_eq!(tables("SELECT * FROM à"), ["à"]);
    assert_eq!(facts("SELECT * FROM à").class, Class::Read);
    assert_eq!(facts("SELECT 1 --1").statements, 1);
    assert_eq!(facts("SELECT 1; ;\n").statements, 1);
    assert_eq!(facts("SELECT 1 -- c\n;").statements, 1);
    // The servers answer the comment behind a `;` with an OK of its own.
    assert_eq!(facts("SELECT 1; -- c\n").statements, 2);
    assert_eq!(facts("SELECT 1;/* c */ \n;").statements, 2);
    assert_eq!(facts("SELECT 1; ;").statements, 1);
    assert_eq!(facts("/* only */").statements, 0);
}

#[test]
fn tables_where_the_grammar_puts_them() {
    for (sql, expect) in [
        (
            "SELECT a FROM t1 x, (t2 CROSS JOIN d.t3) LEFT JOIN t4 ON x.a=t4.b, t5",
            "t1 t2 d.t3 t4 t5",
        ),
        (
            "SELECT * FROM t FORCE INDEX FOR ORDER BY (i1, i2), u",
            "t u",
        ),
        (
            "SELECT EXTRACT(DAY FROM d), TRIM(a FROM b), SUBSTRING(a FROM 2) FROM t",
            "t",
        ),
        (
            "SELECT * FROM t WHERE a IN (SELECT b FROM u WHERE EXISTS (SELECT 1 FROM v))",
            "t u v",
        ),
        (
            "SELECT * FROM { OJ a LEFT OUTER JOIN b ON a.id=b.id }",
            "a b",
        ),
        ("SELECT * FROM t FOR UPDATE OF t, u", "t"),
        ("DELETE a FROM t AS a JOIN u AS b ON a.id=b.id", "t u"),
        ("DELETE FROM t1, t2 USING x t1 INNER JOIN y t2", "x y"),
        (
            "UPDATE t1 AS x LEFT JOIN (SELECT id FROM t2) y ON 1 SET x.a=1",
            "t1 t2",
        ),
        ("INSERT INTO a.t (SELECT * FROM s)", "a.t s"),
        ("INSERT INTO t TABLE s", "t s"),
        ("SELECT * FROM `my db`.`t``1`", "my db.t`1"),
        (
            "SELECT * FROM JSON_TABLE('[1]', '$' COLUMNS(a INT PATH '$')) j, t",
            "t",
        ),
        ("SELECT 1 FROM DUAL", ""),
        ("SELECT a FROM t GROUP BY a, b ORDER BY c, d", "t"),
        ("SELECT 1 UNION SELECT a FROM u", "u"),
        ("SHOW COLUMNS FROM t FROM d", "d.t"),
        ("CREATE TABLE a LIKE b", "a b"),
        ("RENAME TABLE a TO b, c TO d", "a b c d"),
        (
            "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW INSERT INTO l VALUES (1)",
            "t",
        ),
        ("ALTER TABLE t RENAME TO u", "t u"),
        ("LOCK TABLES t READ, u AS x WRITE", "t u"),
        ("LOAD DATA INFILE 'x' INTO TABLE d.t (a, b)", "d.t"),
        (
            "SELECT (SELECT a FROM t1), b FROM t2, t3 WHERE c, d",
            "t1 t2 t3",
        ),
        ("SELECT * FROM t PARTITION (p0, p1), u", "t u"),
        ("SELECT `select`.`from` FROM t1t", "t1t"),
        ("SELECT t.from FROM x", "x"),
    ] {
        assert_eq!(tables(sql).join(" "), expect, "{sql}");
    }
}

#[test]
fn effects_inside_reads() {
    for (sql, flag) in [
        ("SELECT * FROM t LOCK IN SHARE MODE", Flags::LOCKING_READ),
        ("SELECT * FROM t FOR SHARE NOWAIT", Flags::LOCKING_READ),
        ("SELECT f(1)", Flags::UNKNOWN_FUNCTION),
        ("SELECT d.concat(1)", Flags::UNKNOWN_FUNCTION),
        ("SELECT `f` (1)", Flags::UNKNOWN_FUNCTION),
        ("SELECT f/**/(1)", Flags::UNKNOWN_FUNCTION),
        (
            "WITH c AS (SELECT f(1) AS x) SELECT * FROM c",
            Flags::UNKNOWN_FUNCTION,
        ),
        ("SELECT NEXT VALUE FOR s", Flags::SEQUENCE),
        ("SELECT nextval(s)", Flags::SEQUENCE),
        ("SELECT GET_LOCK('a',1)", Flags::GET_LOCK),
        ("SELECT LAST_INSERT_ID()", Flags::LAST_INSERT_ID),
        ("SELECT LAST_INSERT_ID(5)", Flags::LAST_INSERT_ID_SET),
        ("SELECT @a := 1", Flags::USER_VARIABLE_WRITE),
        ("SELECT a INTO @x FROM t", Flags::SELECT_INTO),
        ("SELECT @@session.error_count", Flags::DIAGNOSTICS),
        ("SELECT sleep(1)", Flags::UNSAFE_FUNCTION),
        ("SELECT CURRENT_USER", Flags::UNSAFE_FUNCTION),
        ("SELECT CURRENT_TIMESTAMP", Flags::TIME_FUNCTION),
        (
            "SELECT * FROM t FOR SYSTEM_TIME AS OF '2020-01-01'",
            Flags::SYSTEM_TIME,
        ),
        ("SELECT SQL_CACHE a FROM t USE INDEX (i)", Flags::INDEX_HINT),
    ] {
        assert!(facts(sql).flags.has(flag), "{sql}: {:?}", facts(sql).flags);
        assert_eq!(facts(sql).class, Class::Read, "{sql}");
    }
    for sql in [
        "SELECT COUNT(*), SUM(a), CONCAT_WS(',', a, b), IF(a,b,c), COALESCE(a,1), DATE_ADD(d, INTERVAL 1 DAY), JSON_EXTRACT(j,'$.a'), LOWER(x), CAST(a AS CHAR(10)), ROW_NUMBER() OVER (PARTITION BY b) FROM t WHERE a IN (1,2) AND (b OR NOT (c)) AND EXISTS (SELECT 1 FROM u)",
        "SELECT user, version, status, date, value FROM t AS x JOIN y USING (id)",
        "SELECT CASE WHEN (a) THEN (b) ELSE (c) END, t.`count` FROM t",
    ] {
        let odd = Flags::UNKNOWN_FUNCTION
            .with(Flags::UNSAFE_FUNCTION)
            .with(Flags::ODD);
        assert!(!facts(sql).flags.any(odd), "{sql}: {:?}", facts(sql).flags);
    }
}

#[test]
fn session_statements() {
    let f = facts("COMMIT AND NO CHAIN RELEASE");
    assert_eq!(
        (f.verb, f.chain, f.release),
        (Verb::Commit, Some(false), Some(true))
    );
    let f = facts("ROLLBACK WORK TO SAVEPOINT `s 1`;");
    assert_eq!(f.verb, Verb::RollbackTo);
    let sql = b"ROLLBACK WORK TO SAVEPOINT `s 1`;";
    assert_eq!(f.savepoint.unwrap().of(sql), b"`s 1`");
    let f = facts("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
    assert!(f.begin.consistent_snapshot && f.begin.read_only && !f.begin.plain);
    assert!(facts("BEGIN WORK").begin.plain);
    assert_eq!(
        facts("BEGIN NOT ATOMIC SELECT 1; END").class,
        Class::Unknown
    );
    let f = facts("KILL QUERY 5");
    assert!(matches!(
        f.kill,
        Some(Kill {
            query_only: true,
            id: 5,
            ..
        })
    ));
    assert!(facts("KILL CONNECTION_ID()").kill.is_none());
    for (sql, expect) in [
        (
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            (Scope::NextOnly, Isolation::ReadCommitted),
        ),
        (
            "SET SESSION TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
            (Scope::Session, Isolation::Serializable),
        ),
        (
            "SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE",
            (Scope::Global, Isolation::RepeatableRead),
        ),
        (
            "SET tx_isolation='READ-COMMITTED'",
            (Scope::Session, Isolation::ReadCommitted),
        ),
        (
            "SET @@transaction_isolation = 'read-uncommitted', @x = 1",
            (Scope::NextOnly, Isolation::ReadUncommitted),
        ),
        (
            "SET @@session.transaction_isolation = 'SERIALIZABLE'",
            (Scope::Session, Isolation::Serializable),
        ),
    ] {
        assert_eq!(facts(sql).transaction_isolation, Some(expect), "{sql}");
    }
    let sql = "SET autocommit=0, @@GLOBAL.max_connections = 1+2, @u = 5";
    let f = facts(sql);
    assert!(f.flags.has(Flags::USER_VARIABLE_WRITE));
    let seen: Vec<_> = f
        .set_variables
        .iter()
        .map(|v| {
            (
                v.name.of(sql.as_bytes()),
                v.scope,
                v.value.of(sql.as_bytes()),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (&b"autocommit"[..], Scope::Session, &b"0"[..]),
            (b"max_connections", Scope::Global, b"1+2"),
        ]
    );
    let f = facts("SET STATEMENT max_statement_time=1 FOR UPDATE t SET a=1");
    assert_eq!((f.verb, f.class), (Verb::Update, Class::Write));
    assert!(f.write.is_none());
    assert_eq!(
        facts("EXPLAIN ANALYZE UPDATE t SET a=1").class,
        Class::Write
    );
    assert_eq!(facts("EXPLAIN UPDATE t SET a=1").class, Class::Read);
    assert_eq!(facts("ANALYZE UPDATE t SET a=1").class, Class::Write);
    assert_eq!(facts("ANALYZE TABLE t").class, Class::Admin);
    assert!(
        facts("FLUSH TABLES WITH READ LOCK")
            .flags
            .has(Flags::FLUSH_READ_LOCK)
    );
}

#[test]
fn diagnostics_whole_statements() {
    let form = |sql| facts(sql).diagnostics;
    assert_eq!(
        form("SHOW WARNINGS"),
        Some(DiagnosticsForm::ShowWarnings {
            offset: 0,
            count: u64::MAX
        })
    );
    assert_eq!(
        form("show errors limit 2, 3;"),
        Some(DiagnosticsForm::ShowErrors {
            offset: 2,
            count: 3
        })
    );
    assert_eq!(
        form("SHOW COUNT(*) WARNINGS"),
        Some(DiagnosticsForm::CountWarnings)
    );
    assert!(matches!(
        form("SELECT @@warning_count"),
        Some(DiagnosticsForm::WarningCount { .. })
    ));
    assert!(matches!(
        form("SELECT ROW_COUNT() AS n"),
        Some(DiagnosticsForm::RowCount { .. })
    ));
    assert!(matches!(
        form("SELECT LAST_INSERT_ID( )"),
        Some(DiagnosticsForm::LastInsertId { .. })
    ));
    for no in [
        "SELECT ROW_COUNT(), 1",
        "SELECT ROW_COUNT() FROM t",
        "SELECT 1 + ROW_COUNT()",
        "SELECT LAST_INSERT_ID(1)",
        "SELECT @@warning_count LIMIT 1",
        "SHOW WARNINGS LIMIT x",
    ] {
        assert_eq!(form(no), None, "{no}");
    }
}

/// Where sqlparser reads single-table writes of the corpus otherwise, the
/// verdict is Disagree, which defers them, or NotParsed, which leaves the
/// scanner's reading; it never makes one look safer.
#[test]
fn misreads_of_sqlparser_defer() {
    let mut agreed = 0;
    for sql in corpus() {
        let f = facts(&sql);
        if f.write.is_some() {
            agreed += u32::from(cross_check(&sql, &f, mysql()) == Agreement::Agree);
        }
    }
    assert!(agreed > 10, "{agreed}");
    // Whatever the parser makes of them, these have no form to mirror.
    for sql in [
        "UPDATE t, u SET t.a = 1",
        "DELETE t FROM t JOIN u USING (id)",
        "WITH c AS (SELECT 1) DELETE FROM t",
        "UPDATE t SET a = 1; DELETE FROM t",
    ] {
        assert!(facts(sql).write.is_none(), "{sql}");
        assert_ne!(
            cross_check(sql, &facts(sql), mysql()),
            Agreement::Agree,
            "{sql}"
        );
    }
    // A scanner that took another verb than the parser would defer.
    let other = facts("UPDATE t SET a = 1");
    let text = "DELETE FROM t WHERE zz_other_verb = 1";
    assert_eq!(cross_check(text, &other, mysql()), Agreement::Disagree);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_give_facts(bytes in proptest::collection::vec(any::<u8>(), 0..300), bits in 0u8..32) {
        let mode = ScanMode {
            ansi_quotes: bits & 1 != 0,
            no_backslash_escapes: bits & 2 != 0,
            charset: if bits & 4 != 0 { CharsetClass::Gbk } else { CharsetClass::Safe },
            server: if bits & 8 != 0 { mariadb().server } else { mysql().server },
        };
        all_of(&bytes, mode);
    }

    #[test]
    fn any_tokens_give_facts(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..60)) {
        all_of(words.join(" ").as_bytes(), mysql());
        all_of(words.concat().as_bytes(), mariadb());
    }
}

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "t",
    "(",
    ")",
    ",",
    ";",
    ".",
    "'",
    "\"",
    "`",
    "@",
    "@@",
    ":=",
    "=",
    "?",
    "1",
    "INSERT",
    "INTO",
    "VALUES",
    "UPDATE",
    "SET",
    "DELETE",
    "WHERE",
    "AND",
    "IN",
    "WITH",
    "AS",
    "ON",
    "DUPLICATE",
    "KEY",
    "/*!",
    "/*",
    "*/",
    "--",
    "#",
    "\n",
    "\\",
    "x'",
    "NULL",
    "USING",
    "JOIN",
    "SHOW",
    "CREATE",
    "TABLE",
    "COMMIT",
    "CHAIN",
    "KILL",
    "LIMIT",
    "RETURNING",
    "f",
    "REPLACE",
];

/// Everything that reads a text, over one text.
fn all_of(sql: &[u8], mode: ScanMode) {
    let f = scan(sql, mode);
    for (db, name) in f.tables.iter(sql) {
        assert!(db.is_none_or(|d| d.len() <= sql.len()) && name.len() <= sql.len());
    }
    if let Some(WriteShape::Insert(i)) = f.write.as_deref() {
        let mut seen = 0;
        i.values_of(sql, mode, 1, &mut |_| {
            seen += 1;
            true
        });
        assert!(seen <= i.rows.max(1));
    }
    let _ = digest(sql, mode);
    if let Ok(text) = std::str::from_utf8(sql) {
        let _ = cross_check(text, &f, mode);
    }
}

#[test]
fn time_is_linear() {
    /// Bytes of each text.
    const SIZE: usize = 16 << 20;
    for unit in [
        "(",
        ")",
        "'",
        "''",
        "\\'",
        "`",
        "/*",
        "/*!",
        "/*!99999 ",
        "/*/*",
        "*/",
        "a ",
        "a.",
        "1,",
        "@",
        "@@a.",
        "SELECT ",
        "FROM a,",
        "WITH a AS (",
        ";",
        "IN (1),",
        "x'",
        "1e",
        "a=1 AND ",
        "VALUES (1),",
        "--",
        "\n",
        "\0",
        "\u{e9}",
    ] {
        for head in [
            "",
            "INSERT INTO t VALUES ",
            "UPDATE t SET a=1 WHERE ",
            "SET ",
        ] {
            let text = format!("{head}{}", unit.repeat(SIZE / 16 / unit.len()));
            let start = Instant::now();
            let _ = scan(text.as_bytes(), mysql());
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(2) / 4,
                "{head}{unit:?}: {took:?}"
            );
        }
    }
    let literal = format!("INSERT INTO t VALUES ('{}')", "x".repeat(SIZE));
    let start = Instant::now();
    assert!(scan(literal.as_bytes(), mysql()).write.is_some());
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn plain_reads_neither_read_nor_change_their_session() {
    let plain = |sql: &str| scan(sql.as_bytes(), ScanMode::default()).is_plain_read();
    for sql in [
        "SELECT c FROM t WHERE id=5",
        "select count(*), now(), rand() from a join b using (id) order by 1 limit 3",
        "WITH x AS (SELECT 1) SELECT * FROM x, t WHERE t.v IN (SELECT v FROM u)",
        "SELECT * FROM t FORCE INDEX (k) WHERE a = ?",
    ] {
        assert!(plain(sql), "{sql}");
    }
    for sql in [
        "SELECT 1",
        "SELECT @x FROM t",
        "SELECT @x := a FROM t",
        "SELECT @@warning_count FROM t",
        "SELECT LAST_INSERT_ID() FROM t",
        "SELECT LAST_INSERT_ID(a) FROM t",
        "SELECT FOUND_ROWS() FROM t",
        "SELECT ROW_COUNT() FROM t",
        "SELECT SQL_CALC_FOUND_ROWS a FROM t",
        "SELECT GET_LOCK('x', 1) FROM t",
        "SELECT a FROM t FOR UPDATE",
        "SELECT a FROM t LOCK IN SHARE MODE",
        "SELECT a INTO @x FROM t",
        "SELECT a INTO OUTFILE '/x' FROM t",
        "SELECT stored(a) FROM t",
        "SELECT NEXTVAL(s) FROM t",
        "SELECT UUID() FROM t",
        "SELECT a FROM t; SELECT b FROM t",
        "SELECT a FROM t /*!50000 FOR UPDATE */",
        "SET STATEMENT sql_mode='' FOR SELECT a FROM t",
        "EXPLAIN SELECT a FROM t",
        "TABLE t",
        "SELECT 'a FROM t",
        "UPDATE t SET a=1",
    ] {
        assert!(!plain(sql), "{sql}");
    }
}
