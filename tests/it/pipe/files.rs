//! Chunks that are handed to the server as files.

use super::Pipe;
use super::keyless::pair;
use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::{Family, Server, compare};
use std::sync::Arc;

/// One schema for all tests here.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// The second server of each family takes files, and MariaDB's first.
const PAIRS: [(Family, Family); 3] = [
    (Family::MariaDb, Family::MariaDb),
    (Family::MySql, Family::MySql),
    (Family::MySql, Family::MariaDb),
];

/// Statements on the table that `run` brings a server: files, and others.
fn written(server: &Server, run: impl FnOnce()) -> [u64; 2] {
    server.exec("SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = ON");
    run();
    server.exec("SET GLOBAL general_log = OFF");
    let count = |what: &str| {
        let sql = format!(
            "SELECT COUNT(*) FROM mysql.general_log WHERE INSTR(argument, '{what} `fl`.`t`') > 0"
        );
        server.one(&sql).parse().expect("a number")
    };
    let counted = ["REPLACE INTO TABLE", "REPLACE INTO"].map(count);
    server.exec("TRUNCATE TABLE mysql.general_log");
    counted
}

/// All bytes, what ends a field or a line, and what stands for NULL.
#[test]
fn values_that_end_a_field_are_copied() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "fl");
        pipe.exec_both(
            "DROP DATABASE IF EXISTS fl; CREATE DATABASE fl; \
             CREATE TABLE fl.t (id BIGINT UNSIGNED PRIMARY KEY, v VARCHAR(40), c CHAR(9), l VARCHAR(9) CHARACTER SET latin1, \
             b BLOB, vb VARBINARY(300), bi BINARY(4), n DECIMAL(30,10), f FLOAT, d DOUBLE, t DATETIME(6), ts TIMESTAMP(3) NULL, \
             y YEAR, tm TIME(2), g BIGINT UNSIGNED GENERATED ALWAYS AS (id DIV 2) STORED, e MEDIUMTEXT) \
             DEFAULT CHARSET utf8mb4",
        );
        source.exec(
            "INSERT INTO fl.t (id, v, b) VALUES (1, 'a\\tb', 'a\\tb'), (2, 'a\\nb', '\\n'), (3, '\\\\', '\\\\'), \
             (4, '\\\\N', '\\\\N'), (5, 'NULL', 'NULL'), (6, '', ''), (7, NULL, NULL), (8, 'x\\\\\\t', x'00'), \
             (9, '\\r\\n', x'0d0a00'), (10, '''\"`', x'5c5c30'), (11, '🦀ß', x'f09fa6'), (12, '\\\\n\\\\t\\\\0', x'ff00fe'); \
             INSERT INTO fl.t (id, c, l, bi, n, f, d, t, ts, y, tm, e) VALUES \
             (18446744073709551615, 'e ', 'é', x'01000000', -12345678901234567890.0123456789, 0.1, -1.7976931348623157e308, \
             '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999', 2155, '-838:59:59.00', REPEAT('\\t\\\\', 70000)), \
             (0, '', '', x'00000020', 0.0000000001, -3.4e38, 5e-324, '1000-01-01 00:00:00', '1970-01-01 00:00:01', 1901, '838:59:59', '')",
        );
        source.exec(
            "INSERT INTO fl.t (id, vb, v) WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 255) \
             SELECT n + 1000, CONCAT(UNHEX(LPAD(HEX(n), 2, '0')), 'x', UNHEX(LPAD(HEX(n), 2, '0'))), CHAR(n % 128 USING utf8mb4) FROM s",
        );
        let start = pipe.now();
        let [files, others] = written(target, || {
            block_on(pipe.copy(&["t"], &start, Arc::default()))
                .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        });
        assert!(files > 0 && others == 0, "{from} → {to}: {files}, {others}");
        assert_eq!(compare::assert_equal(source, target, &["fl.t"]), 270);
        let hashed = "SELECT SUM(CRC32(CONCAT_WS('|', id, HEX(v), HEX(b), HEX(vb), HEX(bi), HEX(l), SHA2(e, 256)))) FROM fl.t";
        assert_eq!(source.one(hashed), target.one(hashed), "{from} → {to}");
    }
}

/// A file's errors may be warnings only: nothing of it stays then, and
/// statements say what is wrong.
#[test]
fn what_a_file_would_change_is_refused() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        for (theirs, said) in [
            ("v VARCHAR(3), n INT", "too long"),
            ("v VARCHAR(9), n TINYINT", "out of range"),
            ("v VARCHAR(9) NOT NULL, n INT", "cannot be null"),
            ("v VARCHAR(9), n TINYINT UNSIGNED", "out of range"),
            ("v VARCHAR(9), n INT, CHECK (n < 500)", "constraint"),
        ] {
            let pipe = Pipe::new(source, target, "fl");
            pipe.exec_both("DROP DATABASE IF EXISTS fl; CREATE DATABASE fl");
            source.exec(
                "CREATE TABLE fl.t (id INT PRIMARY KEY, v VARCHAR(9), n INT); \
                 INSERT INTO fl.t VALUES (1, 'a', 1), (2, 'abcdef', 1000), (3, NULL, 3)",
            );
            target.exec(&format!("CREATE TABLE fl.t (id INT PRIMARY KEY, {theirs})"));
            let start = pipe.now();
            let error = block_on(pipe.copy(&["t"], &start, Arc::default()))
                .expect_err("rows that do not fit");
            let lower = error.to_lowercase();
            assert!(lower.contains(said), "{from} → {to}, {theirs}: {error}");
            assert_eq!(target.one("SELECT COUNT(*) FROM fl.t"), "0", "{theirs}");
            // Nothing says that they were copied.
            target.exec(
                "DROP TABLE fl.t; CREATE TABLE fl.t (id INT PRIMARY KEY, v VARCHAR(9), n INT)",
            );
            block_on(pipe.copy(&["t"], &start, Arc::default()))
                .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
            assert_eq!(compare::assert_equal(source, target, &["fl.t"]), 3);
        }
    }
}

/// What the target stores in other bytes is not handed over as a file.
#[test]
fn other_character_sets_are_converted() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "fl");
        pipe.exec_both("DROP DATABASE IF EXISTS fl; CREATE DATABASE fl");
        // 'Ã©' in latin1 has the bytes of 'é' in utf8mb4.
        source.exec(
            "CREATE TABLE fl.t (id INT PRIMARY KEY, v VARCHAR(9)) DEFAULT CHARSET latin1; \
             INSERT INTO fl.t VALUES (1, 'é'), (2, 'Ã©')",
        );
        target.exec("CREATE TABLE fl.t (id INT PRIMARY KEY, v VARCHAR(9)) DEFAULT CHARSET utf8mb4");
        let start = pipe.now();
        let [files, others] = written(target, || {
            block_on(pipe.copy(&["t"], &start, Arc::default()))
                .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        });
        assert!(files == 0 && others > 0, "{from} → {to}: {files}, {others}");
        let sql = "SELECT GROUP_CONCAT(HEX(CONVERT(v USING utf8mb4)) ORDER BY id) FROM fl.t";
        assert_eq!(target.one(sql), source.one(sql), "{from} → {to}");
    }
}
