//! Tables in which nothing identifies a row.

use super::{Pipe, Stops};
use crate::follow::PAIRS;
use crate::or_skip;
use crate::support::proc::runtime;
use crate::support::servers::shared;
use crate::support::{Family, Server, compare};
use mysql_async::prelude::Queryable;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn pair(from: Family, to: Family) -> Result<(&'static Server, &'static Server), String> {
    let index = usize::from(from == to);
    let source = shared(from, 0).map_err(|m| m.to_string())?;
    let target = shared(to, index).map_err(|m| m.to_string())?;
    Ok((source, target))
}

/// One schema for all tests here.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

const TABLES: &str = "
CREATE TABLE pk.plain (a INT, b VARCHAR(20) COLLATE utf8mb4_general_ci, c CHAR(5), f FLOAT, d DOUBLE, n DECIMAL(38,10), y YEAR, t TIMESTAMP(3) NULL, bin BINARY(6), vb VARBINARY(9), bl BLOB, bits BIT(9), e ENUM('x','y','z'), s SET('p','q'), tx LONGTEXT) DEFAULT CHARSET utf8mb4;
CREATE TABLE pk.nullable (a INT NULL, b INT, UNIQUE (a)) DEFAULT CHARSET utf8mb4;
CREATE TABLE pk.latin (a VARCHAR(9)) DEFAULT CHARSET latin1;
CREATE TABLE pk.keyed (id INT PRIMARY KEY, v INT NOT NULL);
";

const ALL: [&str; 4] = ["plain", "nullable", "latin", "keyed"];

fn prepare(pipe: &Pipe) {
    pipe.exec_both("DROP DATABASE IF EXISTS pk; CREATE DATABASE pk");
    for create in TABLES.split(";\n").filter(|s| !s.trim().is_empty()) {
        pipe.exec_both(create);
    }
}

/// Every kind of value finds its row again; rows that are equal, that a
/// collation calls equal, and that are half NULL.
#[test]
fn rows_are_found_by_all_their_values() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "pk");
        prepare(&pipe);
        let start = pipe.now();
        source.exec(
            "INSERT INTO pk.plain VALUES
             (1,'a','x',0.1,0.1,1.5,2024,'2024-01-01 00:00:00.123',x'0100',x'0100','b',b'101','x','p,q','t'),
             (1,'A','x',0.1,0.1,1.5,2024,'2024-01-01 00:00:00.123',x'0100',x'0100','b',b'101','x','p,q','t'),
             (1,'a ','x',0.1,0.1,1.5,0,NULL,x'0100',x'01','b',b'101','y','','T'),
             (1,'ä','x',1e30,1e-300,-9999999999999999999999999999.9999999999,1901,'1970-01-02 00:00:00',x'',x'','',b'0','z','q',''),
             (NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL),
             (NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
             INSERT INTO pk.plain SELECT * FROM pk.plain;
             UPDATE pk.plain SET a = 2 WHERE BINARY b = 'A' LIMIT 1;
             UPDATE pk.plain SET b = 'b' WHERE BINARY b = 'a ' LIMIT 1;
             DELETE FROM pk.plain WHERE BINARY b = 'a' LIMIT 1;
             UPDATE pk.plain SET f = f + 1, bits = b'111', e = 'z', s = 'p', y = 2000, tx = 'x';
             DELETE FROM pk.plain WHERE a IS NULL LIMIT 1;
             INSERT INTO pk.nullable VALUES (1, 1), (NULL, 1), (NULL, 1), (2, 2);
             BEGIN;
             UPDATE pk.nullable SET a = 3 WHERE a = 1;
             UPDATE pk.nullable SET a = 1 WHERE a = 2;
             UPDATE pk.nullable SET a = 2 WHERE a = 3;
             COMMIT;
             DELETE FROM pk.nullable WHERE a IS NULL LIMIT 1;
             INSERT INTO pk.latin VALUES ('\u{e4}'), ('\u{e4}'), ('z');
             UPDATE pk.latin SET a = '\u{f6}' LIMIT 1;
             INSERT INTO pk.keyed VALUES (1, 1), (2, 2);
             UPDATE pk.keyed SET id = id + 10",
        );
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let names = ALL.map(|t| format!("pk.{t}"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let rows = compare::assert_equal(source, target, &names);
        assert!(rows >= 15, "{rows}");
        // What is not there as it was is named, not written over.
        target.exec("DELETE FROM pk.latin");
        source.exec("UPDATE pk.latin SET a = 'q'");
        let error = pipe.catch_up(&start).expect_err("a conflict").to_string();
        assert!(
            error.contains("pk.latin") && error.contains("differ"),
            "{error}"
        );
    }
}

/// Changes rows of tables with and without keys until told to stop.
async fn client(server: &Server, seed: u64, stop: &AtomicBool) {
    let mut conn = server.conn().await;
    let mut n = seed;
    while !stop.load(Ordering::Relaxed) {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        let (x, y) = ((n >> 33) % 40, (n >> 45) % 40);
        let sql = match (n >> 55) % 7 {
            0 | 1 => format!("INSERT INTO pk.plain (a, b) VALUES ({x}, 'w{y}'), ({x}, 'w{y}')"),
            2 => format!("UPDATE pk.plain SET a = a + 1 WHERE a = {x} LIMIT 3"),
            3 => format!("DELETE FROM pk.plain WHERE b = 'w{y}' LIMIT 3"),
            4 => format!("INSERT INTO pk.nullable VALUES ({x}, {y})"),
            5 => format!("UPDATE pk.nullable SET a = NULL, b = b + 1 WHERE a = {x}"),
            _ => format!(
                "BEGIN; INSERT INTO pk.keyed VALUES ({x}, 0) ON DUPLICATE KEY UPDATE v = v + 1; INSERT INTO pk.latin VALUES ('v'); COMMIT"
            ),
        };
        if conn.query_drop(sql).await.is_err() {
            let _ = conn.query_drop("ROLLBACK").await;
        }
        // Each change of such a table is a scan of it on the other side.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Copied out of a snapshot beside the follower, cut off again and again, while
/// clients write: no row twice, none missing.
#[test]
fn they_are_copied_under_load() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "pk");
        prepare(&pipe);
        source.exec("INSERT INTO pk.plain (a, b) WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 300) SELECT s.n, r.n FROM s, s r WHERE r.n <= 10");
        let start = pipe.now();
        let stop = AtomicBool::new(false);
        let lives = std::thread::scope(|scope| {
            for seed in 0..3 {
                let stop = &stop;
                scope.spawn(move || runtime().block_on(client(source, seed, stop)));
            }
            let _stops = Stops(&stop);
            let lives = pipe.copy_in_lives(&ALL, &start, 50);
            // A transaction larger than a batch, with every kind of table.
            source.exec("BEGIN; UPDATE pk.plain SET a = a + 1 LIMIT 2500; UPDATE pk.keyed SET v = v + 1; UPDATE pk.plain SET b = 'big' LIMIT 2000; COMMIT");
            lives
        });
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let names = ALL.map(|t| format!("pk.{t}"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let rows = compare::assert_equal(source, target, &names);
        eprintln!("{from} → {to}: {rows} rows in {lives} lives");
        assert!(rows > 2500);
    }
}
