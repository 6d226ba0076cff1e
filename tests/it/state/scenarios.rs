//! What is said, and where the active side may change.

use crate::support::Family;

/// The active side changes here, in the ways that flip.
pub const FLIP: &str = "FLIP";

pub struct Scenario {
    pub name: &'static str,
    /// For one family only; then for pairs of that family.
    pub only: Option<Family>,
    /// Statements; `bin: ` ones by PREPARE and EXECUTE.
    pub sql: &'static [&'static str],
}

impl Scenario {
    /// Whether rows have to be made anew before and after it.
    pub fn writes(&self) -> bool {
        let words = ["INSERT", "UPDATE", "DELETE", "CALL"];
        let writes = |sql: &str| words.iter().any(|w| sql.contains(w));
        self.sql.iter().any(|sql| writes(sql))
    }
}

const fn both(name: &'static str, sql: &'static [&'static str]) -> Scenario {
    Scenario {
        name,
        only: None,
        sql,
    }
}

const fn only(family: Family, name: &'static str, sql: &'static [&'static str]) -> Scenario {
    Scenario {
        name,
        only: Some(family),
        sql,
    }
}

pub const SCENARIOS: &[Scenario] = &[
    both(
        "variables: numbers",
        &[
            "SET @i=-5, @u=CAST(7 AS UNSIGNED), @big=18446744073709551615, @d=1.50",
            "SET @n=CAST(3 AS DECIMAL(10,0)), @f=1.5e0, @whole=2e0, @tiny=-2.5e-10, @huge=1.7e308",
            FLIP,
            "SELECT @i, @u, @big, @d, @n, @f, @whole, @tiny, @huge",
            "SELECT @i - 1, @big - 1, ROUND(@d * 2, 2), ROUND(@n / 2, 2), @f / 3, @whole / 3",
            "INSERT INTO a (v, s) VALUES (@i, @d)",
            "SELECT * FROM a WHERE v = @i",
        ],
    ),
    both(
        "variables: strings",
        &[
            "SET @s='text', @e='', @q='it''s \\\\ \"quoted\" `so` \\n', @u=_utf8mb4 X'F09F98802D'",
            "SET @l=_latin1 X'E9' COLLATE latin1_general_cs, @g=_gbk X'D5E3', @b=_binary X'00FF5C27'",
            "SET @null=NULL, @`odd ``name`='odd', @Upper='case'",
            FLIP,
            "SELECT HEX(@s), CHARSET(@s), COLLATION(@s), COERCIBILITY(@s), LENGTH(@e), @e, @q, HEX(@u)",
            "SELECT HEX(@l), CHARSET(@l), COLLATION(@l), HEX(@g), COLLATION(@g), HEX(@b), CHARSET(@b)",
            "SELECT @null, @`odd ``name`, @upper, @never",
            "SELECT @s = 'TEXT', @l = _latin1 X'C9', @u LIKE '%-'",
            "INSERT INTO a (s) VALUES (@s)",
            "SELECT s FROM a",
        ],
    ),
    both(
        "variables: typed nulls",
        &[
            "SET @i=CAST(NULL AS SIGNED), @u=CAST(NULL AS UNSIGNED), @d=CAST(NULL AS DECIMAL), @s=NULL",
            "SELECT @j := v + 1 FROM r WHERE id = 3",
            "SELECT MAX(v), MIN(id) INTO @m, @n FROM r",
            FLIP,
            "SELECT @i IS NULL, @u IS NULL, @d IS NULL, @s IS NULL, @j, @m, @n",
            "SELECT @i + 1, @u + 1, @d + 1, CONCAT(@s, 'x'), @m + @n",
        ],
    ),
    both(
        "variables: routines and triggers",
        &[
            "CALL p_set(17)",
            "SELECT f_set(4)",
            "INSERT INTO w (v) VALUES (23)",
            FLIP,
            "SELECT @by_procedure, @by_function, @by_trigger, @@sort_buffer_size",
            "SET @by_procedure = @by_procedure + 1",
            FLIP,
            "SELECT @by_procedure, @by_function",
        ],
    ),
    both(
        "variables: prepared",
        &[
            "bin: SET @x = 5, @y = 'why'",
            "bin: SELECT id INTO @z FROM r WHERE v = 2",
            FLIP,
            "SELECT @x, @y, @z",
            "SET @x = @x + 1",
            "SELECT v FROM r WHERE id = @x - 1",
            "UPDATE r SET v = v + 100 WHERE id = @z",
            "SELECT v FROM r WHERE id = 2",
        ],
    ),
    both(
        "last insert id",
        &[
            "INSERT INTO a (v) VALUES (1)",
            "INSERT INTO a (v) VALUES (2), (3)",
            FLIP,
            "SELECT LAST_INSERT_ID()",
            "INSERT INTO a (v) VALUES (LAST_INSERT_ID())",
            "SELECT LAST_INSERT_ID(), LAST_INSERT_ID() + 0",
            "SELECT id, v FROM a ORDER BY id",
            "SELECT LAST_INSERT_ID(77)",
            "SELECT LAST_INSERT_ID()",
            "SELECT @@last_insert_id, @@identity",
        ],
    ),
    both(
        "last insert id, given",
        &[
            "SELECT LAST_INSERT_ID(77)",
            FLIP,
            "SELECT LAST_INSERT_ID()",
            "SELECT @@last_insert_id",
            "SET insert_id = 500",
            "INSERT INTO a (v) VALUES (9)",
            "SELECT id FROM a",
        ],
    ),
    both(
        "insert id",
        &[
            "SET insert_id = 500",
            FLIP,
            "INSERT INTO a (v) VALUES (9)",
            "SELECT id FROM a",
        ],
    ),
    both(
        "found rows",
        &[
            "SELECT id FROM r WHERE id < 4",
            FLIP,
            "SELECT FOUND_ROWS()",
            "SELECT SQL_CALC_FOUND_ROWS id FROM r LIMIT 2",
            FLIP,
            "SELECT FOUND_ROWS()",
            "SELECT id FROM r LIMIT 3",
            "bin: SELECT FOUND_ROWS()",
        ],
    ),
    both(
        "row count",
        &[
            "UPDATE r SET v = v + 1 WHERE id < 4",
            FLIP,
            "SELECT ROW_COUNT()",
            "SELECT ROW_COUNT()",
            "DELETE FROM r WHERE id > 100",
            "SELECT ROW_COUNT()",
        ],
    ),
    both(
        "warnings",
        &[
            "SELECT CAST('1x' AS SIGNED) FROM r WHERE id = 1",
            FLIP,
            "SHOW WARNINGS",
            "SELECT @@warning_count, @@error_count",
            "SELECT * FROM missing",
            FLIP,
            "SHOW COUNT(*) ERRORS",
            "SELECT CAST('2x' AS SIGNED) FROM r WHERE id = 1",
            "GET DIAGNOSTICS @n = NUMBER",
            "SELECT @n",
        ],
    ),
    both(
        "settings",
        &[
            "SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES', @@session.max_join_size = 1000",
            "SET LOCAL group_concat_max_len = 12, @@local.div_precision_increment = 2",
            "SET @@sort_buffer_size = 65536, sql_select_limit = 3, lc_time_names = 'de_DE'",
            "SET time_zone = '+05:30', foreign_key_checks = OFF, sql_safe_updates = 1",
            "SET SESSION tmp_table_size = DEFAULT, net_write_timeout = 77, net_write_timeout = DEFAULT",
            FLIP,
            "SELECT @@sql_mode LIKE 'ANSI_QUOTES,STRICT_ALL_TABLES%', @@max_join_size, @@group_concat_max_len, @@div_precision_increment",
            "SELECT @@sort_buffer_size, @@sql_select_limit, @@lc_time_names, @@time_zone",
            "SELECT @@foreign_key_checks, @@sql_safe_updates, @@net_write_timeout",
            "SELECT 1/3, GROUP_CONCAT(\"id\" ORDER BY id) FROM \"r\"",
            "SELECT id FROM r",
            "UPDATE r SET v = 0",
            "SET sql_safe_updates = DEFAULT, sql_select_limit = DEFAULT",
            FLIP,
            "SELECT @@sql_safe_updates, @@sql_select_limit",
            "SELECT id FROM r ORDER BY id",
        ],
    ),
    both(
        "settings: prepared and in routines",
        &[
            "PREPARE s FROM 'SET SESSION group_concat_max_len = 33'",
            "EXECUTE s",
            "bin: SET SESSION max_sort_length = 64",
            "CALL p_set(1)",
            FLIP,
            "SELECT @@group_concat_max_len, @@max_sort_length, @@sort_buffer_size",
        ],
    ),
    only(
        Family::MariaDb,
        "SET STATEMENT",
        &[
            "SET SESSION group_concat_max_len = 44",
            "SET STATEMENT group_concat_max_len = 5 FOR SELECT @@group_concat_max_len",
            FLIP,
            "SELECT @@group_concat_max_len",
            "SET STATEMENT sql_mode = 'ANSI_QUOTES' FOR SELECT \"id\" FROM r WHERE id = 1",
            "SELECT \"id\" FROM r WHERE id = 1",
        ],
    ),
    both(
        "character sets",
        &[
            "SET NAMES latin1",
            "SET character_set_results = NULL",
            FLIP,
            "SELECT @@character_set_client, @@character_set_connection, @@character_set_results, @@collation_connection",
            "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
            FLIP,
            "SELECT @@character_set_client, @@collation_connection, 'a' = 'A'",
            "SET CHARACTER SET latin1",
            FLIP,
            "SELECT @@character_set_client, @@character_set_results, @@collation_connection",
            "SET NAMES gbk",
            FLIP,
            "SELECT @@character_set_client, @@collation_connection, HEX('x')",
        ],
    ),
    both(
        "one-shot transaction characteristics",
        &[
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET TRANSACTION READ ONLY",
            FLIP,
            "SELECT 1",
            "BEGIN",
            "UPDATE r SET v = 50 WHERE id = 1",
            "ROLLBACK",
            "UPDATE r SET v = 51 WHERE id = 1",
            "SELECT v FROM r WHERE id = 1",
            "SET TRANSACTION READ ONLY",
            "UPDATE r SET v = 52 WHERE id = 1",
            FLIP,
            "UPDATE r SET v = 53 WHERE id = 1",
            "SELECT v FROM r WHERE id = 1 FOR UPDATE",
        ],
    ),
    both(
        "one-shot read only is used up where it is",
        &[
            "SET TRANSACTION READ ONLY",
            FLIP,
            "SELECT v FROM r WHERE id = 1",
            "UPDATE r SET v = 61 WHERE id = 1",
            FLIP,
            "UPDATE r SET v = 62 WHERE id = 1",
            "SELECT v FROM r WHERE id = 1",
        ],
    ),
    both(
        "session read only",
        &[
            "SET SESSION TRANSACTION READ ONLY, ISOLATION LEVEL READ COMMITTED",
            FLIP,
            "UPDATE r SET v = 70 WHERE id = 1",
            "SET SESSION TRANSACTION READ WRITE",
            FLIP,
            "UPDATE r SET v = 71 WHERE id = 1",
            "SELECT v FROM r WHERE id = 1",
        ],
    ),
    both(
        "transaction characteristics",
        &[
            "START TRANSACTION READ ONLY",
            FLIP,
            "UPDATE r SET v = 80 WHERE id = 1",
            "SELECT v FROM r WHERE id = 1",
            "COMMIT",
            "START TRANSACTION READ WRITE",
            FLIP,
            "SAVEPOINT one",
            "UPDATE r SET v = 81 WHERE id = 1",
            "ROLLBACK TO one",
            "COMMIT",
            "SELECT v FROM r WHERE id = 1",
            "SET autocommit = 0",
            FLIP,
            "UPDATE r SET v = 82 WHERE id = 1",
            "COMMIT",
            FLIP,
            "SELECT @@autocommit",
            "ROLLBACK",
            "SET autocommit = 1",
            FLIP,
            "SELECT @@autocommit",
        ],
    ),
    both(
        "chained transactions",
        &[
            "BEGIN",
            "UPDATE r SET v = 90 WHERE id = 1",
            "COMMIT AND CHAIN",
            FLIP,
            "UPDATE r SET v = 91 WHERE id = 2",
            "ROLLBACK AND CHAIN",
            FLIP,
            "UPDATE r SET v = 92 WHERE id = 3",
            "COMMIT",
            "SELECT * FROM r ORDER BY id",
        ],
    ),
    both(
        "savepoints of an untouched transaction",
        &[
            "BEGIN",
            "SAVEPOINT one",
            "SAVEPOINT two",
            FLIP,
            "UPDATE r SET v = 10 WHERE id = 1",
            "ROLLBACK TO two",
            "RELEASE SAVEPOINT one",
            "ROLLBACK TO one",
            "COMMIT",
            "SELECT v FROM r WHERE id = 1",
        ],
    ),
    both(
        "roles",
        &[
            "SELECT * FROM only_role",
            "SET ROLE st_reader",
            FLIP,
            "SELECT * FROM only_role",
            "SELECT CURRENT_ROLE() LIKE '%st_reader%'",
            "SET ROLE NONE",
            FLIP,
            "SELECT * FROM only_role",
        ],
    ),
    both(
        "roles: prepared",
        &[
            "bin: SET ROLE st_reader",
            FLIP,
            "SELECT * FROM only_role",
            "SET ROLE NONE",
            FLIP,
            "SELECT * FROM only_role",
        ],
    ),
    both(
        "default schema",
        &[
            "USE st_other",
            FLIP,
            "SELECT DATABASE()",
            "SELECT v FROM st.r WHERE id = 1",
            "UPDATE st.r SET v = 5 WHERE id = 1",
            "USE st",
            FLIP,
            "SELECT DATABASE()",
            "SELECT v FROM r WHERE id = 1",
        ],
    ),
    both(
        "statements prepared in SQL",
        &[
            "PREPARE s FROM 'SELECT v + ? FROM r WHERE id = 2'",
            "SET @n = 10, @text = 'SELECT ''it''''s'', ?'",
            "PREPARE t FROM @text",
            "SET @text = 'SELECT 0'",
            FLIP,
            "EXECUTE s USING @n",
            "EXECUTE t USING @n",
            "DEALLOCATE PREPARE s",
            FLIP,
            "EXECUTE s USING @n",
            "EXECUTE t USING @n",
        ],
    ),
    both(
        "the client's own timestamp",
        &[
            "SET timestamp = 1000000000",
            FLIP,
            "SELECT NOW(6), UNIX_TIMESTAMP()",
            "SELECT NOW(), v FROM r WHERE id = 1",
            "INSERT INTO at (id, t) VALUES (1, NOW(6))",
            "SELECT * FROM at",
            "SET timestamp = DEFAULT",
            FLIP,
            "SELECT NOW() > '2020-01-01', v FROM r WHERE id = 1",
        ],
    ),
    both(
        "several statements in one text",
        &[
            "SET @a = 1; SET TRANSACTION READ ONLY",
            FLIP,
            "UPDATE r SET v = 0 WHERE id = 1",
            "COMMIT",
            "SET @x = 1; SET @y = 2; SELECT @x + @y",
            FLIP,
            "SELECT @x, @y",
            "SET @x = 7; SELECT v FROM r WHERE id = 1",
            FLIP,
            "SELECT @x",
        ],
    ),
    both(
        "a client that reconnects its session",
        &[
            "SET @x = 1, SESSION group_concat_max_len = 9",
            FLIP,
            "SELECT @x, @@group_concat_max_len",
            FLIP,
            "SELECT @x, @@group_concat_max_len",
        ],
    ),
];
