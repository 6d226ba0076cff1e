//! The tables the cases read and write. Both families understand all of it.

/// The database of the route. `OTHER` is on both servers and in no route.
pub const DATABASE: &str = "tr";
pub const OTHER: &str = "tr_other";

/// Made once per server.
pub const ONCE: &[&str] = &[
    "CREATE OR REPLACE VIEW tr.view_b AS SELECT id, v FROM tr.b",
    "DROP PROCEDURE IF EXISTS tr.two_results",
    "CREATE PROCEDURE tr.two_results() BEGIN SELECT id FROM tr.b ORDER BY id; \
     SELECT 'x' AS t, NULL AS n; END",
    "DROP PROCEDURE IF EXISTS tr.add_b",
    "CREATE PROCEDURE tr.add_b(IN x INT, OUT y INT) BEGIN INSERT INTO tr.b (v) VALUES (x); \
     SET y = x + 1; END",
    "DROP PROCEDURE IF EXISTS tr.fails",
    "CREATE PROCEDURE tr.fails() BEGIN SELECT 1; SIGNAL SQLSTATE '45000' \
     SET MESSAGE_TEXT = 'told so', MYSQL_ERRNO = 5001; END",
    "DROP FUNCTION IF EXISTS tr.twice",
    "CREATE FUNCTION tr.twice(x INT) RETURNS INT DETERMINISTIC RETURN 2 * x",
    "DROP TABLE IF EXISTS tr.types",
    "CREATE TABLE tr.types (id INT PRIMARY KEY, t TINYINT, tu TINYINT UNSIGNED, sm SMALLINT, \
     me MEDIUMINT, i INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, f FLOAT, d DOUBLE, \
     n DECIMAL(30,10), bits BIT(20), c CHAR(5), vc VARCHAR(50), bin BINARY(4), vb VARBINARY(20), \
     tt TINYTEXT, mt MEDIUMTEXT, bl BLOB, lb LONGBLOB, e ENUM('a','b','ü'), s SET('x','y','z'), \
     j JSON, da DATE, ti TIME(3), dt DATETIME(6), ts TIMESTAMP(2) NULL, y YEAR, g GEOMETRY, \
     lat VARCHAR(10) CHARACTER SET latin1, gen INT AS (id * 2) STORED) DEFAULT CHARSET utf8mb4",
    "INSERT INTO tr.types (id) VALUES (1)",
    "INSERT INTO tr.types VALUES (2, -128, 255, -32768, -8388608, 4294967295, \
     -9223372036854775808, 18446744073709551615, 1.5, -1e300, -12345678901234567890.0123456789, \
     b'10101', 'ab', 'größe 🦀', 'ab', X'00FF0A0D', 'tt', REPEAT('m', 300), X'000102', \
     REPEAT(X'AB', 70000), 'ü', 'x,z', '{\"a\": [1, null, \"ü\"]}', '2024-02-29', \
     '-838:59:59.000', '9999-12-31 23:59:59.999999', '2030-01-02 03:04:05.67', 2155, \
     ST_GeomFromText('POINT(1 2)'), 'é', DEFAULT)",
    "INSERT INTO tr.types VALUES (3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'0', '', '', '', '', '', '', \
     '', '', 'a', '', '{}', '1000-01-01', '00:00:00', '1000-01-01 00:00:00', \
     '1970-01-02 00:00:01', 1901, ST_GeomFromText('POINT(0 0)'), '', DEFAULT)",
];

/// Tables that belong together, made anew before each run of a case that names
/// one of the words. Making all of them each time takes a server minutes.
pub struct Tables {
    pub words: &'static [&'static str],
    pub make: &'static [&'static str],
    /// `db.table` names, each with the key `id`, to look at after a run.
    pub rows: &'static [&'static str],
}

pub const EACH: &[Tables] = &[
    Tables {
        words: &["a"],
        rows: &["tr.a"],
        make: &[
            "DROP TABLE IF EXISTS tr.a",
            "CREATE TABLE tr.a (id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, \
             s VARCHAR(10) NOT NULL DEFAULT 'dflt', UNIQUE KEY uk (k))",
            "INSERT INTO tr.a (k, s) VALUES (10, 'ten'), (20, 'twenty'), (30, 'thirty')",
        ],
    },
    Tables {
        words: &["b", "add_b", "view_b"],
        rows: &["tr.b"],
        make: &[
            "DROP TABLE IF EXISTS tr.b",
            "CREATE TABLE tr.b (id INT AUTO_INCREMENT PRIMARY KEY, v INT NOT NULL DEFAULT 7, \
             s VARCHAR(10), n DECIMAL(10,2), at DATETIME(6) NULL)",
            "INSERT INTO tr.b (v, s, n) VALUES (1, 'one', 1.10), (2, 'two', 2.20), (3, NULL, NULL)",
        ],
    },
    Tables {
        words: &["parent", "child"],
        rows: &["tr.parent", "tr.child"],
        make: &[
            "DROP TABLE IF EXISTS tr.child, tr.parent",
            "CREATE TABLE tr.parent (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE tr.child (id INT PRIMARY KEY, p INT, \
             CONSTRAINT ours FOREIGN KEY (p) REFERENCES tr.parent (id))",
            "INSERT INTO tr.parent VALUES (1, 1), (2, 2)",
            "INSERT INTO tr.child VALUES (1, 1)",
        ],
    },
    Tables {
        words: &["plain", "noted"],
        rows: &["tr.plain", "tr.noted", "tr.notes"],
        make: &[
            "DROP TABLE IF EXISTS tr.plain, tr.noted, tr.notes",
            "CREATE TABLE tr.plain (id INT PRIMARY KEY, v INT) ENGINE = MyISAM",
            "CREATE TABLE tr.notes (id INT AUTO_INCREMENT PRIMARY KEY, what INT)",
            "CREATE TABLE tr.noted (id INT PRIMARY KEY, v INT)",
            "CREATE TRIGGER tr.note AFTER INSERT ON tr.noted FOR EACH ROW \
             INSERT INTO tr.notes (what) VALUES (NEW.id)",
            "INSERT INTO tr.plain VALUES (1, 1), (2, 2)",
        ],
    },
    Tables {
        words: &["made", "made2", "made3"],
        rows: &[],
        make: &["DROP TABLE IF EXISTS tr.made, tr.made2, tr.made3"],
    },
    Tables {
        words: &["o"],
        rows: &["tr_other.o"],
        make: &[
            "DROP TABLE IF EXISTS tr_other.o",
            "CREATE TABLE tr_other.o (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
            "INSERT INTO tr_other.o (v) VALUES (1), (2)",
        ],
    },
];

/// The tables that any of these statements names.
pub fn named_in<'a>(
    sql: impl Iterator<Item = &'a str> + Clone,
) -> impl Iterator<Item = &'static Tables> {
    EACH.iter().filter(move |tables| {
        sql.clone().any(|sql| {
            let mut words = sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.any(|word| tables.words.contains(&word))
        })
    })
}
