//! The kinds of statement, as lists of SQL. What needs more than a list (two
//! connections, the binary protocol, special commands) is in `special`.

mod sessions;

use std::sync::LazyLock;

use super::super::support::Family;

/// What a kind of statement needs of the run around it.
#[derive(Clone, Copy, PartialEq)]
pub enum Needs {
    /// Reads only: the tables are not made anew.
    Nothing,
    /// Fresh tables before each run.
    Tables,
}

pub struct Case {
    pub name: &'static str,
    /// One family only, where the other does not know the statement.
    pub only: Option<Family>,
    pub needs: Needs,
    pub sql: &'static [&'static str],
}

const fn reads(name: &'static str, sql: &'static [&'static str]) -> Case {
    Case {
        name,
        only: None,
        needs: Needs::Nothing,
        sql,
    }
}

const fn writes(name: &'static str, sql: &'static [&'static str]) -> Case {
    Case {
        name,
        only: None,
        needs: Needs::Tables,
        sql,
    }
}

const fn only(family: Family, case: Case) -> Case {
    Case {
        only: Some(family),
        ..case
    }
}

/// All of them.
pub static CASES: LazyLock<Vec<&'static Case>> =
    LazyLock::new(|| STATEMENTS.iter().chain(sessions::CASES).collect());

const STATEMENTS: &[Case] = &[
    // --- reads ---------------------------------------------------------------
    reads(
        "constants",
        &[
            "SELECT 1",
            "SELECT 'a', NULL, 1.5, 1e10, X'00ff', -1 AS `ä`",
        ],
    ),
    reads("every type", &["SELECT * FROM types ORDER BY id"]),
    reads(
        "NULLs",
        &["SELECT NULL, id, t, vc, j FROM types WHERE id = 1"],
    ),
    reads(
        "no rows",
        &[
            "SELECT * FROM types WHERE id = 99",
            "SELECT * FROM types LIMIT 0",
        ],
    ),
    reads(
        "many rows",
        &[
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
         SELECT i, REPEAT('x', i) AS r FROM n",
        ],
    ),
    reads(
        "aggregates",
        &[
            "SELECT COUNT(*), SUM(v), AVG(n), MIN(s), MAX(at), GROUP_CONCAT(s ORDER BY id) FROM b",
            "SELECT v % 2 AS odd, COUNT(*) FROM b GROUP BY odd WITH ROLLUP",
            "SELECT id, ROW_NUMBER() OVER (ORDER BY v DESC) AS r FROM b ORDER BY id",
        ],
    ),
    reads(
        "joins and subqueries",
        &[
            "SELECT p.id, c.id FROM parent p LEFT JOIN child c ON c.p = p.id ORDER BY 1",
            "SELECT * FROM a WHERE id IN (SELECT id FROM b WHERE v > 1) ORDER BY id",
            "SELECT x.* FROM (SELECT id FROM a UNION ALL SELECT id FROM b) x ORDER BY 1",
            "SELECT EXISTS (SELECT 1 FROM a WHERE k = 10) AS e",
        ],
    ),
    reads("a view", &["SELECT * FROM view_b ORDER BY id"]),
    reads("a stored function", &["SELECT twice(v) FROM b ORDER BY id"]),
    reads(
        "aliases and comments",
        &[
            "/* first */ SELECT /*! id */ FROM b AS `t x` -- end\nORDER BY id",
            "SELECT # what\n id FROM tr.b t1 ORDER BY t1.id",
            "  \n\t SELECT 1 ;",
            "(SELECT id FROM b) UNION (SELECT 9) ORDER BY 1",
            "TABLE_DOES_NOT_START_A_STATEMENT",
        ],
    ),
    reads(
        "own text",
        &["/* kept */ SELECT INFO FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()"],
    ),
    reads(
        "who and where",
        &["SELECT USER(), CURRENT_USER(), DATABASE(), VERSION()"],
    ),
    reads(
        "locking reads",
        &[
            "START TRANSACTION",
            "SELECT * FROM b WHERE id = 1 FOR UPDATE",
            "SELECT * FROM b WHERE id = 2 LOCK IN SHARE MODE",
            "COMMIT",
            "SELECT id FROM b WHERE id = 1 FOR UPDATE NOWAIT",
        ],
    ),
    reads(
        "FOUND_ROWS",
        &[
            "SELECT SQL_CALC_FOUND_ROWS id FROM b LIMIT 1",
            "SELECT FOUND_ROWS()",
        ],
    ),
    reads(
        "user variables",
        &[
            "SET @x = 5, @y := 'ä'",
            "SELECT @x, @y, @nothing",
            "SELECT @x := @x + 1",
            "SELECT @x",
            "SELECT v INTO @v FROM b WHERE id = 2",
            "SELECT @v",
            "SELECT v INTO @v FROM b WHERE id = 99",
            "SHOW WARNINGS",
        ],
    ),
    reads(
        "EXPLAIN and DESCRIBE",
        &[
            "EXPLAIN SELECT * FROM a WHERE k = 10",
            "EXPLAIN UPDATE b SET v = 1 WHERE id = 1",
            "DESCRIBE a",
            "SHOW COLUMNS FROM types",
            "EXPLAIN FORMAT=JSON SELECT 1",
        ],
    ),
    reads(
        "SHOW",
        &[
            "SHOW TABLES FROM tr_other",
            "SHOW DATABASES LIKE 'tr%'",
            "SHOW CREATE VIEW view_b",
            "SHOW CREATE PROCEDURE add_b",
            "SHOW VARIABLES LIKE 'sql_mode'",
            "SHOW GRANTS",
            "SHOW SESSION VARIABLES LIKE 'session_track%'",
            "SHOW COLLATION LIKE 'utf8mb4_bin'",
        ],
    ),
    reads(
        "session variables as they are",
        &[
            "SELECT @@session.autocommit, @@session.sql_mode, @@session.time_zone",
            "SELECT @@character_set_client, @@character_set_connection, @@character_set_results",
            "SELECT @@collation_connection, @@collation_database, @@session.foreign_key_checks",
            "SELECT @@session.session_track_schema, @@session.session_track_system_variables",
            "SELECT @@session.session_track_state_change, @@session.session_track_transaction_info",
            "SELECT @@session.wait_timeout, @@session.max_allowed_packet, @@session.sql_log_bin",
            "SELECT @@session.timestamp > 1, @@session.insert_id, @@session.pseudo_thread_id = CONNECTION_ID()",
        ],
    ),
    only(
        Family::MySql,
        reads(
            "MySQL's own reads",
            &[
                "TABLE b",
                "VALUES ROW(1, 'x'), ROW(2, NULL)",
                "SELECT JSON_TABLE.* FROM \
         JSON_TABLE('[1,2]', '$[*]' COLUMNS (x INT PATH '$')) JSON_TABLE",
                "SELECT @@session.session_track_gtids, @@session.gtid_next",
                "EXPLAIN FORMAT=TREE SELECT 1",
                "SELECT id FROM b FOR SHARE SKIP LOCKED",
            ],
        ),
    ),
    only(
        Family::MariaDb,
        reads(
            "MariaDB's own reads",
            &[
                "VALUES (1, 'x'), (2, NULL)",
                "SELECT 1 FROM DUAL ORDER BY 1 OFFSET 0 ROWS FETCH FIRST 1 ROWS ONLY",
                "ANALYZE FORMAT=JSON SELECT 1 WHERE 0 UNION ALL SELECT nothing",
                "SET STATEMENT max_statement_time=5 FOR SELECT 1",
                "SELECT id FROM b WHERE id = 1 LOCK IN SHARE MODE NOWAIT",
                "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END",
            ],
        ),
    ),
    // --- inserts -------------------------------------------------------------
    writes(
        "INSERT one row",
        &[
            "INSERT INTO b (v, s) VALUES (5, 'five')",
            "SELECT LAST_INSERT_ID()",
            "INSERT INTO b SET v = 6",
            "INSERT INTO b () VALUES ()",
            "INSERT b VALUES (NULL, 1, '', 0, NULL)",
        ],
    ),
    writes(
        "INSERT many rows",
        &[
            "INSERT INTO b (v) VALUES (1), (2), (3), (4)",
            "SELECT LAST_INSERT_ID()",
            "SELECT ROW_COUNT()",
        ],
    ),
    writes(
        "INSERT with ids given",
        &[
            "INSERT INTO b (id, v) VALUES (50, 1)",
            "SELECT LAST_INSERT_ID()",
            "INSERT INTO b (v) VALUES (2)",
            "INSERT INTO b (id, v) VALUES (60, 1), (55, 2)",
            "INSERT INTO b (id, v) VALUES (70, 1), (NULL, 2)",
            "INSERT INTO b (id, v) VALUES (0, 1)",
            "SELECT LAST_INSERT_ID()",
        ],
    ),
    writes(
        "INSERT IGNORE",
        &[
            "INSERT IGNORE INTO a (k) VALUES (10), (40), (20)",
            "SHOW WARNINGS",
            "SELECT LAST_INSERT_ID()",
            "INSERT IGNORE INTO b (s) VALUES ('far too long for ten')",
            "SHOW WARNINGS",
        ],
    ),
    writes(
        "ON DUPLICATE KEY UPDATE",
        &[
            "INSERT INTO b (id, v) VALUES (1, 9) ON DUPLICATE KEY UPDATE v = v + 1",
            "INSERT INTO b (id, v) VALUES (1, 9) ON DUPLICATE KEY UPDATE v = v",
            "INSERT INTO b (id, v) VALUES (90, 9) ON DUPLICATE KEY UPDATE v = v + 1",
            "INSERT INTO a (k, s) VALUES (10, 'x'), (77, 'y') ON DUPLICATE KEY UPDATE s = VALUES(s)",
            "INSERT INTO a (k) VALUES (10) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)",
            "SELECT LAST_INSERT_ID()",
        ],
    ),
    writes(
        "REPLACE",
        &[
            "REPLACE INTO b (id, v) VALUES (1, 100)",
            "REPLACE INTO b (v) VALUES (100)",
            "REPLACE INTO a (k, s) VALUES (10, 'r')",
            "SELECT LAST_INSERT_ID()",
        ],
    ),
    writes(
        "INSERT ... SELECT",
        &[
            "INSERT INTO b (v) SELECT v + 10 FROM b",
            "SELECT LAST_INSERT_ID()",
            "SELECT ROW_COUNT()",
            "INSERT INTO a (k) SELECT 10",
        ],
    ),
    only(
        Family::MariaDb,
        writes(
            "RETURNING",
            &[
                "INSERT INTO b (v) VALUES (5), (6) RETURNING id, v * 2",
                "SELECT LAST_INSERT_ID()",
                "DELETE FROM b WHERE v = 5 RETURNING id",
                "REPLACE INTO b (id, v) VALUES (1, 3) RETURNING *",
            ],
        ),
    ),
    // --- updates and deletes -------------------------------------------------
    writes(
        "UPDATE",
        &[
            "UPDATE b SET v = 50 WHERE id = 1",
            "UPDATE b SET v = v + 1",
            "UPDATE b SET v = 0 WHERE id = 99",
            "UPDATE b SET v = v",
            "SELECT ROW_COUNT()",
            "UPDATE b SET v = 51 WHERE id = 1 LIMIT 1",
            "UPDATE b SET s = 'x' WHERE id BETWEEN 1 AND 2 ORDER BY id DESC",
            "UPDATE LOW_PRIORITY b SET s = NULL WHERE s = 'x'",
            "UPDATE a SET id = LAST_INSERT_ID(id + 100) WHERE k = 10",
            "SELECT LAST_INSERT_ID()",
        ],
    ),
    writes(
        "UPDATE of several tables",
        &[
            "UPDATE a, b SET a.s = 'j', b.s = 'j' WHERE a.id = b.id",
            "UPDATE a JOIN b USING (id) SET a.s = b.v",
            "UPDATE b SET v = (SELECT MAX(k) FROM a)",
        ],
    ),
    writes(
        "DELETE",
        &[
            "DELETE FROM b WHERE id = 1",
            "SELECT ROW_COUNT()",
            "DELETE FROM b WHERE id = 99",
            "DELETE FROM b ORDER BY id DESC LIMIT 1",
            "DELETE a FROM a JOIN b ON a.id = b.id",
            "DELETE FROM b",
            "DELETE QUICK FROM a WHERE id = 3",
        ],
    ),
    writes(
        "TRUNCATE",
        &[
            "TRUNCATE TABLE b",
            "INSERT INTO b (v) VALUES (1)",
            "SELECT * FROM b",
        ],
    ),
    writes(
        "ROW_COUNT and friends",
        &[
            "UPDATE b SET v = v + 1 WHERE id < 3",
            "SELECT ROW_COUNT()",
            "SELECT ROW_COUNT()",
            "INSERT INTO b (v) VALUES (1), (2)",
            "SELECT LAST_INSERT_ID()",
            "SELECT ROW_COUNT()",
            "SELECT @@warning_count",
            "SELECT @@error_count",
            "DELETE FROM b WHERE id = 1",
            "SELECT @@warning_count",
            "SELECT ROW_COUNT()",
        ],
    ),
    writes(
        "ROW_COUNT and friends after errors",
        &[
            "CALL fails()",
            "SELECT ROW_COUNT()",
            "SELECT ROW_COUNT()",
            "CALL fails()",
            "SHOW WARNINGS",
            "SELECT ROW_COUNT()",
            "CALL fails()",
            "SELECT @@error_count",
            "BEGIN",
            "UPDATE b SET v = v + 1 WHERE id = 1",
            "INSERT INTO b (id, v) VALUES (1, 1)",
            "SELECT ROW_COUNT()",
            "SHOW ERRORS",
            "INSERT INTO b (id, v) VALUES (1, 1)",
            "SHOW COUNT(*) ERRORS",
            "SELECT ROW_COUNT()",
            "SELECT nothing FROM b",
            "SELECT ROW_COUNT()",
            "ROLLBACK",
            "SELECT v FROM b WHERE id = 1",
        ],
    ),
    // --- warnings and errors -------------------------------------------------
    writes(
        "warnings",
        &[
            "SET sql_mode = ''",
            "INSERT INTO b (s, n) VALUES ('far too long for ten', 1.239)",
            "SHOW WARNINGS",
            "SHOW COUNT(*) WARNINGS",
            "SELECT @@warning_count",
            "SELECT 1",
            "SHOW WARNINGS",
            "UPDATE b SET s = 'far too long for ten' WHERE id IN (1, 2)",
            "SELECT @@warning_count",
            "SHOW WARNINGS LIMIT 1",
            "SELECT CAST('12x' AS SIGNED)",
            "SHOW WARNINGS",
            "DROP TABLE IF EXISTS nowhere",
            "SHOW WARNINGS",
            "SELECT 1 / 0",
            "SHOW ERRORS",
            "SHOW COUNT(*) ERRORS",
        ],
    ),
    writes(
        "errors: duplicate key",
        &[
            "INSERT INTO b (id) VALUES (1)",
            "SHOW ERRORS",
            "SELECT @@error_count",
            "INSERT INTO a (k) VALUES (50), (10)",
            "SHOW WARNINGS",
            "SELECT ROW_COUNT()",
            "UPDATE a SET k = 20 WHERE k = 10",
            "INSERT INTO a (k) VALUES (51)",
            "SELECT LAST_INSERT_ID()",
        ],
    ),
    writes(
        "errors: syntax and names",
        &[
            "SELEC 1",
            "INSERT INTO b VALUE",
            "SELECT * FROM nowhere",
            "INSERT INTO nowhere VALUES (1)",
            "UPDATE b SET nothing = 1",
            "SELECT nothing FROM b",
            "USE nowhere",
            "SELECT * FROM nodb.b",
            "CALL nowhere()",
            "SELECT nowhere()",
            "INSERT INTO b (v) VALUES (1, 2)",
            "",
            ";",
            "/* only a comment */",
            "SHOW WARNINGS",
        ],
    ),
    writes(
        "errors: data",
        &[
            "INSERT INTO b (s) VALUES ('far too long for ten')",
            "INSERT INTO b (v) VALUES (NULL)",
            "INSERT INTO b (v) VALUES ('x')",
            "UPDATE b SET v = 99999999999 WHERE id = 1",
            "INSERT INTO b (at) VALUES ('2024-02-30')",
            "UPDATE b SET v = 1 / 0 WHERE id = 1",
            "SELECT POW(9e99, 9e99)",
            "SELECT (SELECT id FROM b)",
            "SHOW WARNINGS",
        ],
    ),
    writes(
        "errors: foreign keys",
        &[
            "INSERT INTO child VALUES (2, 99)",
            "DELETE FROM parent WHERE id = 1",
            "UPDATE parent SET id = 9 WHERE id = 1",
            "SHOW WARNINGS",
            "INSERT INTO child VALUES (2, 2)",
            "TRUNCATE TABLE parent",
        ],
    ),
    writes(
        "errors within a transaction",
        &[
            "BEGIN",
            "INSERT INTO b (v) VALUES (1)",
            "INSERT INTO b (id) VALUES (1)",
            "UPDATE b SET v = 3 WHERE id = 2",
            "SELEC",
            "SELECT * FROM b ORDER BY id",
            "COMMIT",
            "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'x'",
            "GET DIAGNOSTICS @n = NUMBER",
            "SELECT @n",
            "RESIGNAL",
            "DO 1",
        ],
    ),
];
