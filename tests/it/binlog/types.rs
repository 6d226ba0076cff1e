//! Tables of every type with values at their borders, and the comparison of
//! images with what the server shows.

use super::Rows;
use crate::support::{Family, Server};
use lockstep::binlog::Value;

pub struct Table {
    pub name: String,
    /// CREATE TABLE.
    pub create: String,
    /// The statements that write its rows.
    pub rows: String,
    /// What the column is.
    pub definition: &'static str,
    /// Which columns are unsigned, the key included.
    pub unsigned: Vec<bool>,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    definition: &'static str,
}

/// As many members as there can be: numbers that no DOUBLE holds.
const SET_64: &str = "SET('m0','m1','m2','m3','m4','m5','m6','m7','m8','m9','m10','m11','m12','m13','m14','m15','m16','m17','m18','m19','m20','m21','m22','m23','m24','m25','m26','m27','m28','m29','m30','m31','m32','m33','m34','m35','m36','m37','m38','m39','m40','m41','m42','m43','m44','m45','m46','m47','m48','m49','m50','m51','m52','m53','m54','m55','m56','m57','m58','m59','m60','m61','m62','m63')";

/// Type and values; each table has a key, the column, and a second one that is
/// NULL at times.
fn cases(family: Family) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all = vec![
        ("TINYINT", vec!["-128", "127", "0", "NULL"]),
        ("TINYINT UNSIGNED", vec!["0", "128", "255"]),
        ("SMALLINT", vec!["-32768", "32767"]),
        ("SMALLINT UNSIGNED", vec!["65535", "32768"]),
        ("MEDIUMINT", vec!["-8388608", "8388607", "-1"]),
        ("MEDIUMINT UNSIGNED", vec!["16777215", "8388608"]),
        ("INT", vec!["-2147483648", "2147483647"]),
        ("INT UNSIGNED", vec!["4294967295", "2147483648"]),
        (
            "BIGINT",
            vec!["-9223372036854775808", "9223372036854775807", "-1"],
        ),
        (
            "BIGINT UNSIGNED",
            vec!["18446744073709551615", "9223372036854775808"],
        ),
        ("BOOLEAN", vec!["TRUE", "FALSE"]),
        (
            "FLOAT",
            vec!["0", "1.5", "-3.4028234e38", "1.17549435e-38", "0.1"],
        ),
        (
            "DOUBLE",
            vec![
                "0",
                "0.1",
                "-1.7976931348623157e308",
                "2.2250738585072014e-308",
                "1e15",
            ],
        ),
        (
            "DECIMAL(65,30)",
            vec![
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "-99999999999999999999999999999999999.999999999999999999999999999999",
                "0",
                "0.000000000000000000000000000001",
                "-0.5",
            ],
        ),
        ("DECIMAL(10,0)", vec!["1234567890", "-1", "0"]),
        ("DECIMAL(5,5)", vec!["0.12345", "-0.00001"]),
        (
            "DECIMAL(18,9)",
            vec!["123456789.123456789", "-100000000.000000001"],
        ),
        ("BIT(1)", vec!["b'0'", "b'1'"]),
        ("BIT(9)", vec!["b'101010101'", "b'0'"]),
        ("BIT(64)", vec!["18446744073709551615", "1"]),
        ("YEAR", vec!["1901", "2155", "0", "2026"]),
        (
            "DATE",
            vec![
                "'1000-01-01'",
                "'9999-12-31'",
                "'0000-00-00'",
                "'2024-02-29'",
                "'2020-00-00'",
            ],
        ),
        (
            "TIME",
            vec!["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"],
        ),
        (
            "TIME(1)",
            vec!["'-00:00:00.5'", "'12:34:56.7'", "'-838:59:58.9'"],
        ),
        ("TIME(3)", vec!["'-01:02:03.004'", "'01:02:03.999'"]),
        (
            "TIME(6)",
            vec![
                "'-00:00:00.000001'",
                "'838:59:58.999999'",
                "'-12:00:00.123456'",
            ],
        ),
        (
            "DATETIME",
            vec![
                "'1000-01-01 00:00:00'",
                "'9999-12-31 23:59:59'",
                "'0000-00-00 00:00:00'",
            ],
        ),
        ("DATETIME(2)", vec!["'2026-11-21 05:06:07.89'"]),
        ("DATETIME(5)", vec!["'2026-11-21 05:06:07.00001'"]),
        (
            "DATETIME(6)",
            vec![
                "'9999-12-31 23:59:59.999999'",
                "'2026-01-01 00:00:00.000001'",
            ],
        ),
        (
            "TIMESTAMP NULL",
            vec![
                "'1970-01-01 00:00:01'",
                "'2038-01-19 03:14:07'",
                "'0000-00-00 00:00:00'",
                "NULL",
            ],
        ),
        ("TIMESTAMP(3) NULL", vec!["'2026-11-21 05:06:07.089'"]),
        (
            "TIMESTAMP(6) NULL",
            vec![
                "'2038-01-19 03:14:07.999999'",
                "'2000-02-29 12:00:00.000001'",
            ],
        ),
        ("CHAR(10)", vec!["''", "'a'", "'Äß€😀'", "'tail  '"]),
        ("CHAR(255)", vec!["REPEAT('😀', 255)", "'x'"]),
        ("CHAR(10) CHARACTER SET latin1", vec!["'äöü'", "''"]),
        (
            "BINARY(5)",
            vec!["x'0102'", "x'0000000000'", "x'FF00FF0000'", "''"],
        ),
        ("VARCHAR(10)", vec!["''", "'a '", "'ÄÖÜ'"]),
        ("VARCHAR(300)", vec!["REPEAT('é', 300)", "'x'"]),
        ("VARCHAR(20) CHARACTER SET utf16", vec!["'a😀'"]),
        (
            "VARBINARY(300)",
            vec!["x'00FF00'", "REPEAT('x', 300)", "''"],
        ),
        ("TINYBLOB", vec!["x'00'", "''"]),
        ("BLOB", vec!["REPEAT(x'FE', 65535)", "''"]),
        ("MEDIUMBLOB", vec!["REPEAT('m', 70000)"]),
        ("LONGBLOB", vec!["REPEAT('l', 100000)", "x'00'"]),
        ("TINYTEXT", vec!["'ü'"]),
        ("TEXT", vec!["REPEAT('t', 1000)", "'quote'' \\\\ \\n'"]),
        ("LONGTEXT", vec!["'ß'"]),
        ("ENUM('a','b','ü')", vec!["'a'", "'ü'", "NULL"]),
        (
            "SET('a','b','c','d','e','f','g','h','i')",
            vec!["'a,i'", "''", "'b'"],
        ),
        (
            SET_64,
            vec![
                "18446744073709551615",
                "9223372036854775808",
                "9007199254740993",
                "1",
            ],
        ),
        (
            "GEOMETRY",
            vec![
                "ST_GeomFromText('POINT(1 2)', 4326)",
                "ST_GeomFromText('LINESTRING(0 0,1 1)')",
            ],
        ),
        (
            "JSON",
            vec![
                "'{\"a\": [1, -1, 1.5, true, null, \"x\\\\\"\\\\\\\\ü\"], \"b\": {\"c\": 18446744073709551615}}'",
                "'[]'",
                "'{}'",
                "'\"s\"'",
                "'1e100'",
                "'1.0'",
                "'-9223372036854775808'",
                "'null'",
                "CONCAT('[', REPEAT('\"0123456789\",', 9000), '1]')",
                "CONCAT('{\"k\": \"', REPEAT('v', 70000), '\"}')",
            ],
        ),
    ];
    match family {
        Family::MariaDb => {
            all.push(("INET6", vec!["'::1'", "'2001:db8::ff00:42:8329'"]));
            all.push((
                "UUID",
                vec![
                    "'123e4567-e89b-12d3-a456-426655440000'",
                    "'01890000-e89b-7003-9456-000000000000'",
                    "'00000000-0000-0000-0000-000000000000'",
                ],
            ));
        }
        Family::MySql => {
            all.push(("VECTOR(3)", vec!["STRING_TO_VECTOR('[1,2.5,-3]')"]));
        }
    }
    all
}

/// The tables, not made yet. Their rows are inserted, updated to each other's
/// values and to NULL, some deleted and inserted again.
pub fn tables(family: Family) -> Vec<Table> {
    let mut tables = Vec::new();
    for (n, (definition, values)) in cases(family).into_iter().enumerate() {
        let name = format!("t{n}");
        let nullable = if definition.ends_with("NULL") {
            ""
        } else {
            " NULL"
        };
        // A generated column is in the images too; a second one of the type.
        let create = format!(
            "CREATE TABLE {name} (id BIGINT UNSIGNED PRIMARY KEY, v {definition}{nullable}, g INT GENERATED ALWAYS AS (id % 7) STORED, w {definition}{nullable}) DEFAULT CHARSET utf8mb4;"
        );
        let mut rows = String::new();
        for (i, value) in values.iter().enumerate() {
            let id = i * 3 + 1;
            rows += &format!(
                "INSERT INTO {name} (id, v, w) VALUES ({id}, {value}, NULL), ({}, NULL, {value});",
                id + 1
            );
            rows += &format!("INSERT INTO {name} (id, v) VALUES ({}, {value});", id + 2);
            rows += &format!("UPDATE {name} SET w = v WHERE id = {};", id + 2);
        }
        rows += &format!("UPDATE {name} SET id = id + 18446744073709551000 WHERE id = 1;");
        rows += &format!("DELETE FROM {name} WHERE id = 2;");
        rows += &format!(
            "BEGIN; UPDATE {name} SET v = NULL WHERE id = 3; INSERT INTO {name} (id, v, w) SELECT id % 100000 + 1000, v, w FROM {name}; COMMIT;"
        );
        let unsigned = definition.contains("UNSIGNED");
        tables.push(Table {
            name,
            create,
            rows,
            definition,
            unsigned: vec![true, unsigned, false, unsigned],
            columns: ["v", "w"]
                .map(|name| Column {
                    name: name.to_string(),
                    definition,
                })
                .into(),
        });
    }
    tables
}

/// What a session that makes or fills the tables says first.
pub const SESSION: &str =
    "SET NAMES utf8mb4; SET sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00'; USE bt;";

/// Makes the tables and writes their rows.
pub fn fill(server: &Server) -> Vec<Table> {
    let tables = tables(server.family());
    server.exec("CREATE DATABASE bt");
    let mut script = SESSION.to_string();
    for table in &tables {
        script += &table.create;
        script += &table.rows;
    }
    server.exec(&script);
    tables
}

/// How the server shows a value in the form that [`shown`] gives ours.
fn expression(column: &Column, family: Family) -> String {
    let name = &column.name;
    let d = column.definition;
    let starts = |t: &str| d.starts_with(t);
    if starts("FLOAT") || starts("DOUBLE") {
        format!("{name} * 1e0")
    } else if starts("BIT") {
        format!("{name} + 0")
    } else if starts("ENUM") || starts("SET") {
        format!("CAST({name} AS UNSIGNED)")
    } else if starts("JSON") && family == Family::MySql {
        name.clone()
    } else if ["CHAR", "VARCHAR", "TEXT", "TINYTEXT", "LONGTEXT", "JSON"]
        .iter()
        .any(|t| starts(t))
        || [
            "BINARY",
            "VARBINARY",
            "TINYBLOB",
            "BLOB",
            "MEDIUMBLOB",
            "LONGBLOB",
        ]
        .iter()
        .any(|t| starts(t))
        || starts("GEOMETRY")
        || starts("VECTOR")
    {
        format!("HEX({name})")
    } else if starts("INET6") || starts("UUID") {
        format!("HEX(CAST({name} AS BINARY(16)))")
    } else {
        name.clone()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

fn shown(value: &Value, definition: &str) -> Option<String> {
    Some(match value {
        Value::Absent => panic!("a full image"),
        Value::Null => return None,
        Value::Int(n) if definition == "YEAR" => format!("{n:04}"),
        Value::Int(n) => n.to_string(),
        Value::UInt(n) => n.to_string(),
        Value::Float(f) => f64::from(*f).to_string(),
        Value::Double(f) => f.to_string(),
        Value::Decimal(text) | Value::Time(text) => text.clone(),
        Value::Enum(n) => n.to_string(),
        Value::Set(n) => n.to_string(),
        Value::Bytes(bytes) if definition.starts_with("BINARY(5)") => {
            let mut padded = bytes.to_vec();
            padded.resize(5, 0);
            hex(&padded)
        }
        Value::Bytes(bytes) if definition.starts_with("INET6") || definition == "UUID" => {
            let mut padded = bytes.to_vec();
            padded.resize(16, 0);
            hex(&padded)
        }
        Value::Bytes(bytes) => hex(bytes),
        Value::Json(json) => json.text.clone(),
    })
}

pub fn assert_equal(server: &Server, table: &Table, rows: &Rows, name: &str) {
    let family = server.family();
    let expressions: Vec<String> = table
        .columns
        .iter()
        .map(|c| expression(c, family))
        .collect();
    let there = server.query(&format!(
        "SELECT id, {} FROM bt.{} ORDER BY id",
        expressions.join(", "),
        table.name
    ));
    assert_eq!(
        there.len(),
        rows.len(),
        "{family} {name}: rows of {}",
        table.name
    );
    for row in there {
        let id = row[0].clone().expect("an id");
        let image = rows
            .get(&format!("UInt({id})"))
            .unwrap_or_else(|| panic!("{family} {name}: {} has no row {id}", table.name));
        for (i, column) in table.columns.iter().enumerate() {
            let place = if column.name == "v" { 1 } else { 3 };
            let ours = shown(&image[place], column.definition);
            let theirs = row[i + 1].clone();
            let equal = match (&ours, &theirs) {
                (Some(a), Some(b))
                    if matches!(image[place], Value::Float(_) | Value::Double(_)) =>
                {
                    a.parse::<f64>().ok() == b.parse::<f64>().ok()
                }
                (Some(a), Some(b)) if matches!(image[place], Value::Json(_)) => {
                    a == b || json_equal(server, a, b)
                }
                (a, b) => a == b,
            };
            let short =
                |t: &Option<String>| t.as_ref().map(|t| t.chars().take(120).collect::<String>());
            assert!(
                equal,
                "{family} {name}: {} ({}) row {id}: the image says {:?}, the server {:?}",
                table.name,
                column.definition,
                short(&ours),
                short(&theirs)
            );
        }
    }
}

fn json_equal(server: &Server, a: &str, b: &str) -> bool {
    let quoted = |t: &str| t.replace('\\', "\\\\").replace('\'', "''");
    server.one(&format!(
        "SELECT CAST('{}' AS JSON) = CAST('{}' AS JSON)",
        quoted(a),
        quoted(b)
    )) == "1"
}
