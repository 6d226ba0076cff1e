//! Tables and other objects with every attribute a definition can have.

use crate::support::Family;
use lockstep::schema::{Note, Object};
use std::collections::BTreeSet;

/// Name and CREATE TABLE.
pub fn tables(family: Family) -> Vec<(String, String)> {
    let mut all: Vec<(&str, &str)> = vec![
        ("a_plain", "(id INT PRIMARY KEY)"),
        (
            "a_auto",
            "(id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT=1000",
        ),
        (
            "a_auto_second",
            "(a INT NOT NULL, id BIGINT NOT NULL AUTO_INCREMENT, PRIMARY KEY (a, id), KEY by_id (id), KEY other (a))",
        ),
        ("a_none", "(a INT, b VARCHAR(10))"),
        (
            "a_unique",
            "(a INT NOT NULL, b INT, UNIQUE KEY ab (a, b), UNIQUE KEY (b), KEY ba (b, a))",
        ),
        (
            "a_desc",
            "(a INT NOT NULL PRIMARY KEY, b INT, c INT, KEY d (b DESC, c))",
        ),
        (
            "a_prefix",
            "(a VARCHAR(500) NOT NULL, b TEXT, c BLOB, PRIMARY KEY (a(100)), KEY k (b(50), c(20)), UNIQUE KEY u (b(30)))",
        ),
        (
            "a_comment",
            "(a INT PRIMARY KEY COMMENT 'it''s; a `comment` \\\\ with \"all\"', b INT, KEY k (b) COMMENT 'of a, key)') COMMENT='tab''le, (x) PARTITION BY'",
        ),
        (
            "a_default",
            "(id INT PRIMARY KEY, a INT DEFAULT 5, b VARCHAR(20) DEFAULT 'it''s, ok', c DECIMAL(10,2) DEFAULT 1.50, d CHAR(3) DEFAULT '', e BIT(3) DEFAULT b'101', f DOUBLE DEFAULT -1.5, g VARCHAR(9) DEFAULT 'NULL', h INT NOT NULL DEFAULT 0, i VARCHAR(30) DEFAULT 'CURRENT_TIMESTAMP', j VARBINARY(9) DEFAULT 'ab')",
        ),
        (
            "a_times",
            "(id INT PRIMARY KEY, a TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, b DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), c TIMESTAMP NULL, d TIMESTAMP(6) NULL DEFAULT NULL, e DATETIME DEFAULT '2020-01-02 03:04:05', f TIME(2) DEFAULT '01:02:03.45', g DATE DEFAULT '2020-02-29', h YEAR DEFAULT 2020)",
        ),
        (
            "a_zero_dates",
            "(id INT PRIMARY KEY, a DATE NOT NULL DEFAULT '0000-00-00', b DATETIME DEFAULT '0000-00-00 00:00:00', c TIMESTAMP NOT NULL DEFAULT '0000-00-00 00:00:00')",
        ),
        (
            "a_expression",
            "(id INT PRIMARY KEY, a INT DEFAULT (1 + 2), b VARCHAR(40) DEFAULT (UUID()), c TEXT DEFAULT ('a''b'), d DATE DEFAULT (CURRENT_DATE), e DATETIME DEFAULT (NOW() + INTERVAL 1 DAY), f VARCHAR(40) DEFAULT (CONCAT('x', 'y')))",
        ),
        (
            "a_generated",
            "(id INT PRIMARY KEY, a INT, b INT GENERATED ALWAYS AS (a * 2) STORED, c INT AS (a + 1) VIRTUAL, d VARCHAR(20) GENERATED ALWAYS AS (CONCAT('n', a)) STORED COMMENT 'made', KEY kb (b), KEY kc (c), UNIQUE KEY kd (d))",
        ),
        (
            "a_generated_text",
            "(id INT PRIMARY KEY, a VARCHAR(20) CHARACTER SET latin1, b VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin GENERATED ALWAYS AS (UPPER(a)) STORED)",
        ),
        (
            "a_invisible",
            "(id INT PRIMARY KEY, a INT DEFAULT 7 INVISIBLE, b INT)",
        ),
        (
            "a_check",
            "(id INT PRIMARY KEY, a INT CHECK (a > 0), b INT, CONSTRAINT more CHECK (a < b OR b IS NULL), CHECK (b <> 13))",
        ),
        (
            "a_check_again",
            "(id INT PRIMARY KEY, a INT CHECK (a > 1), CHECK (a <> 14))",
        ),
        (
            "a_charsets",
            "(id INT PRIMARY KEY, a VARCHAR(10) CHARACTER SET latin1, b VARCHAR(10) CHARACTER SET utf8mb3, c CHAR(10) CHARACTER SET ascii COLLATE ascii_bin, d TEXT CHARACTER SET utf16, e VARCHAR(10) COLLATE utf8mb4_bin, f VARCHAR(10) CHARACTER SET cp1251, g VARCHAR(5) CHARACTER SET binary, h VARCHAR(10) COLLATE utf8mb4_unicode_ci)",
        ),
        (
            "a_latin",
            "(id INT PRIMARY KEY, a VARCHAR(10), b VARCHAR(10) CHARACTER SET utf8mb4) DEFAULT CHARSET=latin1 COLLATE=latin1_german2_ci",
        ),
        (
            "a_binary",
            "(id INT PRIMARY KEY, a VARCHAR(10), b TEXT) DEFAULT CHARSET=binary",
        ),
        (
            "a_enums",
            "(id INT PRIMARY KEY, a ENUM('x','it''s','a,b',')','ü') DEFAULT 'x', b SET('p','q(','r') NOT NULL DEFAULT 'p,r', c ENUM('1','2') CHARACTER SET latin1)",
        ),
        (
            "a_numbers",
            "(id INT PRIMARY KEY, a INT(5) ZEROFILL, b FLOAT(7,3), c DOUBLE(9,2) UNSIGNED, d TINYINT(1), e BOOL DEFAULT TRUE, f DECIMAL(5,0), g NUMERIC(6,2) UNSIGNED, h REAL, i SERIAL)",
        ),
        (
            "a_row_format",
            "(id INT PRIMARY KEY, a TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
        ),
        (
            "a_compact",
            "(id INT PRIMARY KEY, a TEXT) ROW_FORMAT=COMPACT STATS_PERSISTENT=1 STATS_SAMPLE_PAGES=30 MAX_ROWS=1000000",
        ),
        (
            "a_myisam",
            "(id INT PRIMARY KEY, a VARCHAR(10), FULLTEXT KEY f (a)) ENGINE=MyISAM",
        ),
        (
            "a_memory",
            "(id INT PRIMARY KEY, a VARCHAR(10), KEY h (a) USING HASH) ENGINE=MEMORY",
        ),
        (
            "a_fulltext",
            "(id INT PRIMARY KEY, a TEXT, b VARCHAR(100), FULLTEXT KEY one (a), FULLTEXT KEY two (a, b), KEY plain (b))",
        ),
        (
            "a_spatial",
            "(id INT PRIMARY KEY, p POINT NOT NULL, g GEOMETRY NOT NULL, l LINESTRING, m MULTIPOLYGON, c GEOMETRYCOLLECTION, SPATIAL KEY sp (p), SPATIAL KEY sg (g))",
        ),
        (
            "a_range",
            "(id INT NOT NULL, d DATE NOT NULL, PRIMARY KEY (id, d)) PARTITION BY RANGE (YEAR(d)) (PARTITION p0 VALUES LESS THAN (2000) COMMENT='old', PARTITION `p 1` VALUES LESS THAN (2020), PARTITION p2 VALUES LESS THAN MAXVALUE)",
        ),
        (
            "a_list",
            "(id INT NOT NULL, r VARCHAR(10) NOT NULL, PRIMARY KEY (id, r)) PARTITION BY LIST COLUMNS (r) (PARTITION a VALUES IN ('x', 'y'), PARTITION b VALUES IN ('z'))",
        ),
        (
            "a_hash",
            "(id INT NOT NULL PRIMARY KEY, a INT, KEY ka (a)) PARTITION BY HASH (id) PARTITIONS 4",
        ),
        (
            "a_linear_key",
            "(id INT NOT NULL PRIMARY KEY) PARTITION BY LINEAR KEY (id) PARTITIONS 3",
        ),
        (
            "a_sub",
            "(id INT NOT NULL, d DATE NOT NULL, PRIMARY KEY (id, d)) PARTITION BY RANGE (TO_DAYS(d)) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (737000), PARTITION p1 VALUES LESS THAN MAXVALUE)",
        ),
        (
            "b_parent",
            "(id INT PRIMARY KEY, code VARCHAR(10) NOT NULL, other INT, KEY by_code (code), KEY by_other (other))",
        ),
        (
            "b_child",
            "(id INT PRIMARY KEY, parent INT, code VARCHAR(10), KEY plain (code), CONSTRAINT b_child_parent FOREIGN KEY (parent) REFERENCES b_parent (id) ON DELETE CASCADE ON UPDATE SET NULL)",
        ),
        (
            "b_self",
            "(id INT PRIMARY KEY, up INT, CONSTRAINT b_self_up FOREIGN KEY (up) REFERENCES b_self (id) ON DELETE SET NULL)",
        ),
        (
            "b_x",
            "(id INT PRIMARY KEY, y INT, CONSTRAINT b_x_y FOREIGN KEY (y) REFERENCES b_y (id))",
        ),
        (
            "b_y",
            "(id INT PRIMARY KEY, x INT, CONSTRAINT b_y_x FOREIGN KEY (x) REFERENCES b_x (id) ON UPDATE CASCADE)",
        ),
        (
            "b_composite",
            "(a INT NOT NULL, b INT NOT NULL, c INT, PRIMARY KEY (a, b))",
        ),
        (
            "b_composite_child",
            "(id INT PRIMARY KEY, a INT, b INT, CONSTRAINT b_cc FOREIGN KEY (a, b) REFERENCES b_composite (a, b) ON DELETE RESTRICT ON UPDATE NO ACTION)",
        ),
        (
            "select",
            "(`order` INT PRIMARY KEY, `group` INT, `key` VARCHAR(10), `from` DATE, KEY `index` (`group`), UNIQUE KEY `primary key` (`key`))",
        ),
        (
            "c.dots.`ticks`",
            "(`a.b` INT PRIMARY KEY, `c``d` INT, `e f` INT, `1` INT, KEY `k.``1` (`c``d`))",
        ),
        (
            "c_tabelle_äöü",
            "(`größe` INT PRIMARY KEY, `名前` VARCHAR(10) DEFAULT '値', e ENUM('é', '日本') COMMENT '列', KEY `ключ` (`名前`)) COMMENT='テーブル'",
        ),
        ("C_MixedCase", "(Id INT PRIMARY KEY, ColumnName INT)"),
        (
            "a_wide_key",
            "(a VARCHAR(700) NOT NULL, b INT, PRIMARY KEY (a), KEY k (b, a(200)))",
        ),
        (
            "a_many_keys",
            "(id INT PRIMARY KEY, a INT, b INT, c INT, KEY k1 (a), KEY k2 (b), KEY k3 (c), KEY k4 (a, b), KEY k5 (b, c), KEY k6 (a, b, c))",
        ),
        (
            "a_json_default",
            "(id INT PRIMARY KEY, a JSON, b JSON NOT NULL, c JSON DEFAULT ('{\"x\": 1}'))",
        ),
    ];
    all.extend(match family {
        Family::MariaDb => maria(),
        Family::MySql => mysql(),
    });
    all.into_iter()
        .map(|(name, rest)| {
            let quoted = name.replace('`', "``");
            (name.to_string(), format!("CREATE TABLE `{quoted}` {rest}"))
        })
        .collect()
}

fn maria() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "m_uuid",
            "(id UUID PRIMARY KEY DEFAULT UUID(), a INET6 DEFAULT '::1', b INET4, KEY kb (b))",
        ),
        (
            "m_plain_defaults",
            "(id INT PRIMARY KEY, a TEXT DEFAULT 'long', b DATE DEFAULT CURDATE(), c BLOB DEFAULT 'x', d VARCHAR(40) DEFAULT CONCAT('a', 'b'), e INT DEFAULT (1 + 1), f DATETIME DEFAULT (CURRENT_TIMESTAMP + INTERVAL 1 DAY), g TIME DEFAULT CURTIME())",
        ),
        (
            "m_uca",
            "(id INT PRIMARY KEY, a VARCHAR(10) COLLATE utf8mb4_uca1400_ai_ci, b VARCHAR(10) COLLATE utf8mb4_uca1400_nopad_as_cs, c VARCHAR(10) COLLATE utf8mb4_nopad_bin, d VARCHAR(10) AS (CONCAT(a, 'x' COLLATE utf8mb4_uca1400_ai_ci)) STORED) COLLATE utf8mb4_uca1400_as_ci",
        ),
        (
            "m_compressed",
            "(id INT PRIMARY KEY, a TEXT COMPRESSED, b VARCHAR(2000) COMPRESSED DEFAULT 'x') PAGE_COMPRESSED=1",
        ),
        (
            "m_aria",
            "(id INT PRIMARY KEY, a VARCHAR(10), KEY ka (a)) ENGINE=Aria PAGE_CHECKSUM=1 TRANSACTIONAL=1",
        ),
        (
            "m_aria_parts",
            "(id INT NOT NULL PRIMARY KEY) ENGINE=Aria PARTITION BY HASH (id) PARTITIONS 2",
        ),
        (
            "m_versioned",
            "(id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING",
        ),
        (
            "m_versioned_columns",
            "(id INT PRIMARY KEY, a INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME(s, e)) WITH SYSTEM VERSIONING",
        ),
        (
            "m_period",
            "(id INT NOT NULL PRIMARY KEY, a INT NOT NULL, s DATE NOT NULL, e DATE NOT NULL, PERIOD FOR p(s, e), UNIQUE KEY ap (a, p WITHOUT OVERLAPS))",
        ),
        (
            "m_default_partition",
            "(id INT NOT NULL, a INT NOT NULL, PRIMARY KEY (id, a)) PARTITION BY LIST (a) (PARTITION p1 VALUES IN (1), PARTITION px DEFAULT)",
        ),
        (
            "m_ignored",
            "(id INT PRIMARY KEY, a INT, KEY ka (a) IGNORED)",
        ),
        (
            "m_long_unique",
            "(id INT PRIMARY KEY, a TEXT, UNIQUE KEY ua (a))",
        ),
        (
            "m_sequenced",
            "(id INT PRIMARY KEY DEFAULT NEXTVAL(numbers), a INT)",
        ),
        (
            "m_check_names",
            "(id INT PRIMARY KEY, a INT, CONSTRAINT more CHECK (a > 5), CONSTRAINT CONSTRAINT_1 CHECK (a < 100))",
        ),
        (
            "m_quoted_default",
            "(id INT PRIMARY KEY, a TEXT DEFAULT 'a''b\\\\c\\nd')",
        ),
        (
            "m_json_indexed",
            "(id INT PRIMARY KEY, j JSON, n INT AS (JSON_VALUE(j, '$.n')) STORED, KEY kn (n), KEY kj (j(100)))",
        ),
        (
            "m_latin_nopad",
            "(id INT PRIMARY KEY, a VARCHAR(10) COLLATE latin1_swedish_nopad_ci) DEFAULT CHARSET=latin1",
        ),
    ]
}

fn mysql() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "y_0900",
            "(id INT PRIMARY KEY, a VARCHAR(10) COLLATE utf8mb4_0900_ai_ci, b VARCHAR(10) COLLATE utf8mb4_0900_as_cs, c VARCHAR(10) COLLATE utf8mb4_0900_bin, d VARCHAR(10) COLLATE utf8mb4_de_pb_0900_ai_ci, e VARCHAR(10) COLLATE utf8mb4_ja_0900_as_cs, f VARCHAR(10) GENERATED ALWAYS AS (a COLLATE utf8mb4_0900_as_ci) STORED)",
        ),
        (
            "y_functional",
            "(id INT PRIMARY KEY, a VARCHAR(20), b INT, KEY lower_a ((LOWER(a))), KEY mixed (b, (b + 1) DESC), UNIQUE KEY u ((b * 2)))",
        ),
        (
            "y_multi",
            "(id INT PRIMARY KEY, j JSON, KEY mv ((CAST(j->'$.a' AS UNSIGNED ARRAY))))",
        ),
        (
            "y_not_enforced",
            "(id INT PRIMARY KEY, a INT, CONSTRAINT lax CHECK (a > 0) NOT ENFORCED, CONSTRAINT strict CHECK (a < 9))",
        ),
        (
            "y_invisible_key",
            "(id INT PRIMARY KEY, a INT, KEY ka (a) INVISIBLE)",
        ),
        (
            "y_srid",
            "(id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, q GEOMETRY SRID 0, SPATIAL KEY sp (p))",
        ),
        (
            "y_generated_not_null",
            "(id INT PRIMARY KEY, a INT NOT NULL, b INT GENERATED ALWAYS AS (a + 1) STORED NOT NULL, c INT GENERATED ALWAYS AS (a + 2) VIRTUAL NOT NULL)",
        ),
        (
            "y_ngram",
            "(id INT PRIMARY KEY, a TEXT, FULLTEXT KEY f (a) WITH PARSER ngram)",
        ),
        (
            "y_json_defaults",
            "(id INT PRIMARY KEY, a JSON DEFAULT (JSON_ARRAY()), b JSON DEFAULT (JSON_OBJECT('a', 1)), c BLOB DEFAULT (X'0102'))",
        ),
        (
            "y_uuid",
            "(id BINARY(16) PRIMARY KEY DEFAULT (UUID_TO_BIN(UUID())), a INT)",
        ),
        ("y_vector", "(id INT PRIMARY KEY, v VECTOR(3))"),
        (
            "y_storage",
            "(id INT PRIMARY KEY, a INT COLUMN_FORMAT FIXED, b INT COLUMN_FORMAT DYNAMIC COMMENT 'x')",
        ),
        (
            "y_range_columns",
            "(a INT NOT NULL, b VARCHAR(10) NOT NULL, PRIMARY KEY (a, b)) PARTITION BY RANGE COLUMNS (a, b) (PARTITION p0 VALUES LESS THAN (5, 'm'), PARTITION p1 VALUES LESS THAN (MAXVALUE, MAXVALUE))",
        ),
        (
            "y_binary_default",
            "(id INT PRIMARY KEY, a BINARY(3) DEFAULT 'ab', b VARBINARY(5) DEFAULT x'00ff', c BIT(8) DEFAULT b'11')",
        ),
    ]
}

/// What tables need.
pub fn before(family: Family) -> &'static str {
    match family {
        Family::MariaDb => "CREATE SEQUENCE numbers;\n",
        Family::MySql => "",
    }
}

/// Everything that is no table, as a script. Statements end with `;` at a
/// line's end.
pub fn objects(family: Family) -> String {
    let mut all = String::from(
        "CREATE VIEW v_b AS SELECT id, v FROM v_a WHERE v > 1;
",
    );
    // Named so that a view comes before the one it stands on.
    all = "CREATE VIEW v_z AS SELECT id, v FROM a_auto;
CREATE VIEW v_a AS SELECT id, v FROM v_z;
CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW `v.``1` (`a b`, c) AS SELECT id, CONCAT(a, 'x') FROM a_generated_text WHERE id > 0 WITH CASCADED CHECK OPTION;
"
    .to_string()
        + &all;
    all += "CREATE FUNCTION f_twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
CREATE PROCEDURE p_fill(IN n INT, OUT `m n` VARCHAR(10)) COMMENT 'it''s' BEGIN /* it's */ -- don't
 INSERT INTO a_plain VALUES (n); SET `m n` = 'ä'; END;
CREATE VIEW v_func AS SELECT f_twice(id) AS d FROM a_auto;
CREATE TRIGGER t_second BEFORE INSERT ON a_many_keys FOR EACH ROW SET NEW.b = COALESCE(NEW.a, 0) + 1;
CREATE TRIGGER t_after BEFORE INSERT ON a_many_keys FOR EACH ROW FOLLOWS t_second SET NEW.c = NEW.b * 2;
CREATE TRIGGER `t.``x` AFTER DELETE ON a_auto FOR EACH ROW BEGIN INSERT INTO a_none VALUES (OLD.id, 'gone'); END;
CREATE EVENT e_on ON SCHEDULE EVERY 1 HOUR STARTS '2020-01-01 00:00:00' DO INSERT INTO a_none VALUES (1, 'event');
CREATE EVENT e_off ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DISABLE COMMENT 'it''s' DO SELECT 1;
";
    if family == Family::MariaDb {
        all = "CREATE SEQUENCE s_plain START WITH 10 INCREMENT BY 5 CACHE 20;
SELECT NEXTVAL(s_plain);
"
        .to_string()
            + &all;
    }
    all
}

/// Tables that cannot be on the target at all.
pub fn absent(source: Family, target: Family) -> BTreeSet<String> {
    let names: &[&str] = match (source, target) {
        (Family::MariaDb, Family::MySql) => &["m_versioned_columns"],
        (Family::MySql, Family::MariaDb) => &["y_uuid"],
        _ => &[],
    };
    names.iter().map(|n| n.to_string()).collect()
}

/// Keys that cannot be there, by the head of their line.
pub fn keys_missing(source: Family, target: Family) -> Vec<(&'static str, &'static str)> {
    match (source, target) {
        (Family::MariaDb, Family::MySql) => vec![
            ("m_long_unique", "key ua"),
            ("m_period", "key ap"),
            ("m_sequenced", "column id"),
        ],
        (Family::MySql, Family::MariaDb) => vec![
            ("y_functional", "key lower_a"),
            ("y_functional", "key mixed"),
            ("y_functional", "key u"),
            ("y_multi", "key mv"),
        ],
        _ => vec![],
    }
}

/// What may be said to be missing, and must not be more.
pub fn known_missing(source: Family, target: Family, note: &Note) -> bool {
    let cross: &[(Object, &str, &str)] = match (source, target) {
        (Family::MariaDb, Family::MySql) => &[
            (Object::Table, "m_versioned", "system versioning"),
            (Object::Table, "m_versioned_columns", ""),
            (Object::Table, "m_period", ""),
            (Object::Table, "m_default_partition", "partitions"),
            (Object::Table, "m_long_unique", "key ua"),
            (Object::Table, "m_sequenced", "id"),
            (Object::Sequence, "s_plain", ""),
            (Object::Sequence, "numbers", ""),
        ],
        (Family::MySql, Family::MariaDb) => &[
            (Object::Table, "y_functional", "key "),
            (Object::Table, "y_multi", "key mv"),
            (Object::Table, "y_uuid", ""),
        ],
        _ => &[],
    };
    cross
        .iter()
        .any(|(o, n, p)| note.object == *o && note.name == *n && note.part.starts_with(p))
}
