//! The tables the oracle's statements use, and accounts that may use all of
//! them but one.

use crate::support::proc::block_on;
use crate::support::{Family, Server};
use mysql_async::prelude::Queryable;

/// The database of all of it.
pub const DATABASE: &str = "orc";
/// Another database, for qualified names.
pub const OTHER: &str = "orc2";

/// Every table and view, in [`DATABASE`] but for the last.
pub const TABLES: &[&str] = &[
    "pk", "auto", "two", "nokey", "trig", "log", "isam", "gen", "def", "late", "part", "parent",
    "child", "v", "pk2",
];

/// The password of [`denied`]'s accounts.
pub const PASSWORD: &str = "orc-Pw1";

/// The account that may use everything but this table.
pub fn denied(table: &str) -> String {
    format!("no_{table}")
}

const MAKE: &[&str] = &[
    "CREATE DATABASE orc CHARACTER SET utf8mb4",
    "CREATE DATABASE orc2 CHARACTER SET utf8mb4",
    "CREATE TABLE orc.pk (id INT PRIMARY KEY, a INT, b VARCHAR(60))",
    "CREATE TABLE orc.auto (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(60))",
    "CREATE TABLE orc.two (id INT PRIMARY KEY, a INT UNIQUE, b VARCHAR(60))",
    "CREATE TABLE orc.nokey (id INT, a INT, b VARCHAR(60))",
    "CREATE TABLE orc.trig (id INT PRIMARY KEY, a INT, b VARCHAR(60))",
    "CREATE TABLE orc.log (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(60))",
    "CREATE TABLE orc.isam (id INT PRIMARY KEY, a INT, b VARCHAR(60)) ENGINE=MyISAM",
    "CREATE TABLE orc.gen (id INT PRIMARY KEY, a INT, b VARCHAR(60), g INT AS (a + 1) STORED)",
    "CREATE TABLE orc.def (id INT PRIMARY KEY, a INT DEFAULT 5, b VARCHAR(60) DEFAULT (UUID()), \
     ts TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
    "CREATE TABLE orc.late (a INT, id INT AUTO_INCREMENT, b VARCHAR(60), PRIMARY KEY (a, id), KEY (id))",
    "CREATE TABLE orc.part (id INT PRIMARY KEY, a INT, b VARCHAR(60)) PARTITION BY HASH (id) PARTITIONS 2",
    "CREATE TABLE orc.parent (id INT PRIMARY KEY, a INT, b VARCHAR(60))",
    "CREATE TABLE orc.child (id INT PRIMARY KEY, a INT, b VARCHAR(60), \
     FOREIGN KEY (a) REFERENCES orc.parent (id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE VIEW orc.v AS SELECT id, a, b FROM orc.pk",
    "CREATE TABLE orc2.pk2 (id INT PRIMARY KEY, a INT, b VARCHAR(60))",
    "CREATE TRIGGER orc.trig_log BEFORE INSERT ON orc.trig FOR EACH ROW \
     INSERT INTO orc.log (a, b) VALUES (NEW.id, 'trigger')",
    "CREATE FUNCTION orc.f_pure (x INT) RETURNS INT DETERMINISTIC NO SQL RETURN x + 1",
    "CREATE FUNCTION orc.f_write (x INT) RETURNS INT MODIFIES SQL DATA BEGIN \
     INSERT INTO orc.log (a, b) VALUES (x, 'function'); RETURN x; END",
    "CREATE PROCEDURE orc.p (x INT) SELECT x",
];

/// Makes databases, tables, routines, rows and accounts.
pub fn make(server: &Server) {
    block_on(async {
        let mut conn = server.conn().await;
        // The functions are what the scanner must take for unsafe.
        let trust = "SET GLOBAL log_bin_trust_function_creators = 1".to_owned();
        let mut run = MAKE.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        run.insert(0, trust);
        if server.family() == Family::MariaDb {
            run.push("CREATE SEQUENCE orc.seq".to_owned());
        }
        for table in TABLES {
            if !["v", "log", "child"].contains(table) {
                let db = database_of(table);
                run.push(format!(
                    "INSERT INTO {db}.{table} (id, a, b) VALUES (1, 10, 'x'), (2, 20, 'y'), (3, 30, 'z')"
                ));
            }
        }
        for table in TABLES {
            let user = denied(table);
            run.push(format!("CREATE USER {user} IDENTIFIED BY '{PASSWORD}'"));
            run.push(format!("GRANT EXECUTE ON orc.* TO {user}"));
            for other in TABLES.iter().filter(|t| *t != table) {
                let db = database_of(other);
                run.push(format!(
                    "GRANT SELECT, INSERT, UPDATE, DELETE ON {db}.{other} TO {user}"
                ));
            }
            if server.family() == Family::MariaDb {
                run.push(format!("GRANT SELECT, INSERT ON orc.seq TO {user}"));
            }
        }
        for statement in run {
            let done = conn.query_drop(&statement).await;
            done.unwrap_or_else(|e| panic!("{}: {e}\n{statement}", server.family()));
        }
    });
}

/// Where a table lives.
pub fn database_of(table: &str) -> &'static str {
    if table == "pk2" { OTHER } else { DATABASE }
}
