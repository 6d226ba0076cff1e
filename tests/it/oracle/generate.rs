//! Statements from a grammar: writes and reads of every form, with whatever
//! makes servers say that a statement is unsafe.

use super::schema::{TABLES, database_of};
use crate::support::Family;

/// A small generator of numbers (xorshift); the seed is printed by the test.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n.max(1)
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const LITERALS: &[&str] = &[
    "1", "2", "7", "-1", "0", "NULL", "1.5", "1e1", "0x41", "b'1'", "TRUE",
];

/// Calls that give the same on every server, and that differ, and that a
/// mirrored statement carries the context of.
const CALLS: &[&str] = &[
    "ABS(-2)",
    "CONCAT('p', 'q')",
    "IF(1, 2, 3)",
    "COALESCE(NULL, 4)",
    "LENGTH('abc')",
    "CAST('5' AS SIGNED)",
    "UPPER('a')",
    "MD5('a')",
    "DATABASE()",
    "NOW()",
    "CURRENT_TIMESTAMP",
    "CURDATE()",
    "UNIX_TIMESTAMP()",
    "UTC_TIMESTAMP()",
    "SYSDATE()",
    "RAND()",
    "RAND(3)",
    "UUID()",
    "UUID_SHORT()",
    "USER()",
    "CURRENT_USER()",
    "CURRENT_USER",
    "SESSION_USER()",
    "VERSION()",
    "CONNECTION_ID()",
    "LAST_INSERT_ID()",
    "LAST_INSERT_ID(5)",
    "FOUND_ROWS()",
    "ROW_COUNT()",
    "SLEEP(0)",
    "BENCHMARK(1, 1)",
    "GET_LOCK('orc', 0)",
    "IS_FREE_LOCK('orc')",
    "IS_USED_LOCK('orc')",
    "RELEASE_LOCK('orc')",
    "LOAD_FILE('/nowhere')",
    "@u",
    "@u := 3",
    "@@autocommit",
    "@@session.sql_mode",
    "@@server_id",
    "@@timestamp",
    "@@insert_id",
    "f_pure(1)",
    "orc.f_pure(2)",
    "f_write(1)",
    "RANDOM_BYTES(2)",
    "(SELECT MAX(id) FROM pk)",
    "(SELECT COUNT(*) FROM orc2.pk2)",
    "EXISTS (SELECT 1 FROM two WHERE a = 1)",
    "CASE WHEN 1 THEN 2 ELSE 3 END",
    "(SELECT MAX(x) FROM (SELECT id AS x FROM auto) q)",
];

/// Reads and session statements of all sorts; some hide a write.
const OTHERS: &[&str] = &[
    "SHOW TABLES",
    "SHOW CREATE TABLE pk",
    "SHOW TABLE STATUS LIKE 'pk'",
    "SHOW INDEX FROM two",
    "SHOW VARIABLES LIKE 'auto%'",
    "SHOW WARNINGS",
    "SHOW COUNT(*) ERRORS",
    "SHOW GRANTS",
    "SHOW PROCESSLIST",
    "DESCRIBE pk",
    "EXPLAIN SELECT * FROM pk JOIN two USING (id)",
    "EXPLAIN UPDATE pk SET a = 1",
    "EXPLAIN DELETE FROM pk",
    "EXPLAIN INSERT INTO pk VALUES (99, 1, 'x')",
    "EXPLAIN FORMAT=JSON DELETE FROM pk",
    "EXPLAIN EXTENDED UPDATE pk SET a = 2",
    "EXPLAIN ANALYZE SELECT * FROM pk",
    "EXPLAIN ANALYZE UPDATE pk SET a = 3",
    "EXPLAIN ANALYZE DELETE FROM two",
    "ANALYZE UPDATE pk SET a = a + 1",
    "ANALYZE FORMAT=JSON UPDATE pk SET a = a + 2",
    "ANALYZE INSERT INTO log (a) VALUES (1)",
    "ANALYZE SELECT * FROM pk",
    "HELP 'SELECT'",
    "DO 1",
    "DO f_pure(1), SLEEP(0)",
    "DO f_write(1)",
    "DO (SELECT f_write(2))",
    "TABLE pk",
    "VALUES ROW(1, 2), ROW(3, 4)",
    "VALUES (1, 2), (3, 4)",
    "SET @u = 5, @w = 'x'",
    "SET @u = f_write(1)",
    "SET @u = (SELECT MAX(id) FROM pk)",
    "SET @u := (SELECT f_write(3))",
    "SET SESSION sort_buffer_size = f_write(262144)",
    "SET STATEMENT max_statement_time = 5 FOR UPDATE pk SET a = a + 3",
    "SET STATEMENT max_statement_time = 5 FOR SELECT * FROM pk",
    "BEGIN NOT ATOMIC UPDATE pk SET a = a + 4; END",
    "BEGIN NOT ATOMIC SELECT 1; END",
    "EXECUTE IMMEDIATE 'UPDATE pk SET a = a + 5'",
    "PREPARE st FROM 'UPDATE pk SET a = a + 6'",
    "EXECUTE st",
    "DEALLOCATE PREPARE st",
    "CALL p(1)",
    "CALL p(f_write(1))",
    "HANDLER pk OPEN",
    "HANDLER pk READ FIRST",
    "HANDLER pk CLOSE",
    "START TRANSACTION READ ONLY",
    "SAVEPOINT s1",
    "RELEASE SAVEPOINT s1",
    "GET DIAGNOSTICS @u = ROW_COUNT",
    "USE orc",
    "SELECT * FROM pk INTO OUTFILE '/nowhere/x'",
    "SELECT 1 INTO @u",
    "SELECT id INTO @u FROM pk LIMIT 1",
    "/*!50001 UPDATE pk SET a = a + 7 */",
    "/*!999999 SELECT */ UPDATE pk SET a = a + 8",
    "/*M!100100 UPDATE pk SET a = a + 9 */ ",
    "/*! SELECT */ /*!50700 1, */ 2",
    "(SELECT 1)",
    "((SELECT id FROM pk))",
    "(UPDATE pk SET a = 1)",
    "WITH c AS (SELECT f_write(1) AS x) SELECT * FROM c",
    "SELECT * FROM pk WHERE id = f_write(id)",
    "SELECT `f_write`(1)",
    "SELECT orc . f_write (1)",
    "SELECT f_write/**/(1)",
    "SELECT NEXTVAL(seq)",
    "SELECT NEXT VALUE FOR seq",
    "SELECT SETVAL(seq, 500)",
    "SELECT * FROM seq",
    "SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (x INT PATH '$')) j, pk",
    "SELECT LAST_INSERT_ID(f_write(1))",
    "CHECKSUM TABLE pk",
    "CHECK TABLE pk",
    "RETURN 1",
    "SIGNAL SQLSTATE '01000'",
    "XA RECOVER",
    "KILL 999999999",
];

/// A generator of statements.
pub struct Generator {
    pub rng: Rng,
    family: Family,
}

impl Generator {
    pub fn new(seed: u64, family: Family) -> Generator {
        Generator {
            rng: Rng::new(seed),
            family,
        }
    }

    /// A statement, perhaps with comments and capitals where they mean nothing.
    pub fn statement(&mut self) -> String {
        let plain = match self.rng.below(16) {
            0..=3 => self.insert(),
            4..=6 => self.update(),
            7 | 8 => self.delete(),
            9 => self.cte(),
            10 => self.multi_table(),
            11 | 12 => self.rng.pick(OTHERS).to_owned(),
            _ => self.select(),
        };
        self.dress(&plain)
    }

    fn table(&mut self) -> String {
        let table = self.rng.pick(TABLES);
        self.named(table)
    }

    /// A table as one may write it.
    fn named(&mut self, table: &str) -> String {
        let db = database_of(table);
        match self.rng.below(5) {
            0 => format!("`{table}`"),
            1 => format!("{db}.{table}"),
            2 => format!("`{db}` . `{table}`"),
            _ if db == "orc2" => format!("{db}.{table}"),
            _ => table.to_owned(),
        }
    }

    fn column(&mut self) -> &'static str {
        self.rng.pick(&["id", "a", "b", "`a`"])
    }

    fn literal(&mut self) -> String {
        match self.rng.below(4) {
            0 => format!(
                "'{}'",
                self.rng
                    .pick(&["x", "it''s", "a\\'b", "-- c", "/* d", "?", ";"])
            ),
            1 => format!("{}", self.rng.below(1000)),
            _ => self.rng.pick(LITERALS).to_owned(),
        }
    }

    fn expression(&mut self, columns: bool) -> String {
        match self.rng.below(10) {
            0..=4 => self.literal(),
            5 | 6 if columns => self.column().to_owned(),
            7 if columns => format!("{} + 1", self.column()),
            8 => self.literal(),
            _ if self.family == Family::MariaDb && self.rng.once_in(20) => self
                .rng
                .pick(&["NEXTVAL(seq)", "NEXT VALUE FOR seq", "LASTVAL(seq)"])
                .to_owned(),
            _ => self.rng.pick(CALLS).to_owned(),
        }
    }

    fn condition(&mut self) -> String {
        match self.rng.below(8) {
            0 | 1 => format!("id = {}", self.literal()),
            2 => format!("id IN (1, {})", self.literal()),
            3 => format!("a > {}", self.expression(false)),
            4 => format!("id = 1 AND b = {}", self.expression(false)),
            5 => format!("b LIKE {} OR a IS NULL", self.literal()),
            6 => format!("id BETWEEN 1 AND {}", self.literal()),
            _ => format!("id = {}", self.expression(true)),
        }
    }

    fn insert(&mut self) -> String {
        let verb = self.rng.pick(&["INSERT", "INSERT", "INSERT", "REPLACE"]);
        let modifier = if verb == "INSERT" {
            self.rng
                .pick(&["", "", "", "", " IGNORE", " LOW_PRIORITY", " HIGH_PRIORITY"])
        } else {
            self.rng.pick(&["", "", " LOW_PRIORITY"])
        };
        let table = self.table();
        let into = self.rng.pick(&[" INTO", ""]);
        let (id, a, b) = (self.id(), self.expression(false), self.expression(false));
        let body = match self.rng.below(8) {
            0 => format!("SET id = {id}, a = {a}, b = {b}"),
            1 => format!("(a, b) VALUES ({a}, {b})"),
            2 => format!("(id, a, b) VALUES ({id}, {a}, {b}), (41, 2, 'z')"),
            3 => format!("(a) VALUES ({a}), ({b})"),
            4 => {
                let from = self.table();
                format!(
                    "(id, a, b) SELECT id + 50, a, {b} FROM {from} WHERE {}",
                    self.condition()
                )
            }
            5 => "() VALUES ()".to_owned(),
            _ => format!("(id, a, b) VALUES ({id}, {a}, {b})"),
        };
        let tail = match self.rng.below(6) {
            0 if verb == "INSERT" => {
                let value = self.expression(true);
                let column = self.rng.pick(&["a", "b"]);
                format!(" ON DUPLICATE KEY UPDATE {column} = {value}")
            }
            1 if verb == "INSERT" => " ON DUPLICATE KEY UPDATE a = VALUES(a)".to_owned(),
            2 if self.family == Family::MariaDb && self.rng.once_in(3) => {
                " RETURNING id".to_owned()
            }
            _ => String::new(),
        };
        format!("{verb}{modifier}{into} {table} {body}{tail}")
    }

    fn id(&mut self) -> String {
        match self.rng.below(6) {
            0 => "NULL".to_owned(),
            1 => "0".to_owned(),
            2 => "DEFAULT".to_owned(),
            3 => self.expression(false),
            _ => format!("{}", self.rng.below(60)),
        }
    }

    fn tail(&mut self) -> String {
        let order = if self.rng.once_in(4) {
            " ORDER BY id"
        } else {
            ""
        };
        let limit = if self.rng.once_in(5) { " LIMIT 1" } else { "" };
        format!("{order}{limit}")
    }

    fn update(&mut self) -> String {
        let modifier = self.rng.pick(&["", "", "", " IGNORE", " LOW_PRIORITY"]);
        let table = self.table();
        let alias = self.rng.pick(&["", "", " AS q", " q"]);
        let (column, value) = (self.rng.pick(&["a", "b", "id"]), self.expression(true));
        let more = if self.rng.once_in(3) {
            format!(", b = {}", self.expression(true))
        } else {
            String::new()
        };
        let condition = match self.rng.below(6) {
            0 => String::new(),
            _ => format!(" WHERE {}", self.condition()),
        };
        format!(
            "UPDATE{modifier} {table}{alias} SET {column} = {value}{more}{condition}{}",
            self.tail()
        )
    }

    fn delete(&mut self) -> String {
        let modifier = self
            .rng
            .pick(&["", "", " QUICK", " IGNORE", " LOW_PRIORITY"]);
        let table = self.table();
        let returning = match self.family {
            Family::MariaDb if self.rng.once_in(6) => " RETURNING id",
            _ => "",
        };
        format!(
            "DELETE{modifier} FROM {table} WHERE {}{}{returning}",
            self.condition(),
            self.tail()
        )
    }

    fn multi_table(&mut self) -> String {
        let (one, two) = (self.table(), self.table());
        let value = self.expression(false);
        match self.rng.below(6) {
            0 => format!("UPDATE {one} x, {two} y SET x.a = y.a WHERE x.id = y.id"),
            1 => format!("UPDATE {one} x JOIN {two} y USING (id) SET x.b = {value}, y.b = 'm'"),
            2 => format!("DELETE x FROM {one} x JOIN {two} y ON x.id = y.id WHERE y.a = {value}"),
            3 => format!(
                "DELETE FROM x, y USING {one} x LEFT JOIN {two} y ON x.id = y.id WHERE x.id = 99"
            ),
            4 => format!(
                "UPDATE {one} x SET x.a = 1 WHERE x.id IN (SELECT id FROM {two} y WHERE y.a > 5)"
            ),
            _ => {
                format!("DELETE FROM {one} WHERE id IN (SELECT z.id FROM (SELECT id FROM {two}) z)")
            }
        }
    }

    fn cte(&mut self) -> String {
        let (one, two) = (self.table(), self.table());
        match (self.rng.below(4), self.family) {
            // MariaDB 10.11 has WITH before SELECT only.
            (0, Family::MySql) => format!(
                "WITH c AS (SELECT id FROM {one}) UPDATE {two} x JOIN c USING (id) SET x.a = 1"
            ),
            (1, Family::MySql) => {
                format!(
                    "WITH c AS (SELECT id FROM {one}) DELETE FROM {two} WHERE id IN (SELECT id FROM c)"
                )
            }
            (2, _) => format!(
                "INSERT INTO {two} (id, a, b) WITH c AS (SELECT id + 70 AS i FROM {one}) SELECT i, 1, 'c' FROM c"
            ),
            _ => format!(
                "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3), \
                 pk AS (SELECT id FROM {one}) SELECT * FROM c, pk, {two} y"
            ),
        }
    }

    fn select(&mut self) -> String {
        let (one, two) = (self.table(), self.table());
        let (value, condition) = (self.expression(true), self.condition());
        let lock = self
            .rng
            .pick(&["", "", "", " FOR UPDATE", " LOCK IN SHARE MODE"]);
        match self.rng.below(9) {
            0 => format!("SELECT {} AS e", self.expression(false)),
            1 => format!("SELECT x.id FROM {one} x LEFT JOIN {two} y ON x.id = y.id{lock}"),
            2 => format!("SELECT id FROM {one} UNION SELECT id FROM {two}"),
            3 => format!(
                "SELECT * FROM (SELECT id, a FROM {one}) q WHERE q.id IN (SELECT id FROM {two})"
            ),
            4 => format!(
                "(SELECT id FROM {one} WHERE {condition}) UNION ALL (SELECT a FROM {two} LIMIT 1)"
            ),
            5 => {
                format!("SELECT x.id FROM {one} x, ({two} y CROSS JOIN parent z) WHERE x.id = y.id")
            }
            6 => format!("SELECT id INTO @u FROM {one} WHERE {condition} LIMIT 1"),
            7 => format!(
                "SELECT SUBSTRING(b FROM 1), EXTRACT(DAY FROM '2024-01-02') FROM {one} WHERE {condition}{lock}"
            ),
            _ => format!(
                "SELECT {value}, b FROM {one} WHERE {condition} ORDER BY a, b LIMIT 2{lock}"
            ),
        }
    }

    /// Comments between words, executable ones around some, other capitals.
    fn dress(&mut self, plain: &str) -> String {
        if self.rng.once_in(2) {
            return plain.to_owned();
        }
        let mut out = String::new();
        let mut quote = None;
        for c in plain.chars() {
            match quote {
                None if matches!(c, '\'' | '`') => quote = Some(c),
                Some(q) if q == c => quote = None,
                _ => {}
            }
            if quote.is_none() && c == ' ' && self.rng.once_in(8) {
                out.push_str(self.rng.pick(&[
                    " /* x ' */ ",
                    "\n",
                    "\t",
                    " # c '\n",
                    " -- ' c\n",
                    " /*!999999 nothing ' */ ",
                    " /*M!999999 nothing */ ",
                    " /*!50001 */ ",
                ]));
            } else if quote.is_none() && c.is_ascii_uppercase() && self.rng.once_in(6) {
                // Of names, which do not fold here, none has capitals.
                out.push(c.to_ascii_lowercase());
            } else {
                out.push(c);
            }
        }
        if self.rng.once_in(4) {
            out.push_str(
                self.rng
                    .pick(&[";", " ;", ";\n", " -- end", " /* end */", "#"]),
            );
        }
        out
    }
}
