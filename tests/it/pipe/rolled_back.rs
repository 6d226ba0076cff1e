//! What was rolled back and stands in the log nevertheless.

use super::Pipe;
use crate::follow::PAIRS;
use crate::or_skip;
use crate::support::servers::shared;
use crate::support::{Family, compare};

/// Each is one session's; what is not committed at its end is rolled back.
const SCRIPTS: [&str; 8] = [
    // MariaDB logs all of it, and ROLLBACK.
    "BEGIN; INSERT INTO pr.a VALUES (10, 1); CREATE TEMPORARY TABLE pr.tmp (n INT); \
     UPDATE pr.a SET v = 99 WHERE id = 1; DELETE FROM pr.a WHERE id = 2; ROLLBACK",
    "BEGIN; INSERT INTO pr.a VALUES (20, 1); CREATE TEMPORARY TABLE pr.tmp (n INT); \
     SAVEPOINT b; INSERT INTO pr.a VALUES (21, 1); UPDATE pr.a SET v = 98 WHERE id = 20; \
     ROLLBACK TO b; INSERT INTO pr.a VALUES (22, 1); COMMIT",
    "BEGIN; SAVEPOINT `x y`; INSERT INTO pr.a VALUES (30, 1); SAVEPOINT b; \
     CREATE TEMPORARY TABLE pr.tmp (n INT); INSERT INTO pr.a VALUES (31, 1); SAVEPOINT B; \
     INSERT INTO pr.a VALUES (32, 1); ROLLBACK TO SAVEPOINT b; INSERT INTO pr.a VALUES (33, 1); \
     ROLLBACK TO `x y`; INSERT INTO pr.a VALUES (34, 1); COMMIT",
    "BEGIN; INSERT INTO pr.a VALUES (40, 1); CREATE TEMPORARY TABLE pr.tmp (n INT); \
     SAVEPOINT b; INSERT INTO pr.a VALUES (41, 1); RELEASE SAVEPOINT b; \
     INSERT INTO pr.a VALUES (42, 1); COMMIT",
    // One statement writes a table with transactions and, by its trigger, one
    // without.
    "BEGIN; INSERT INTO pr.a VALUES (50, 1); INSERT INTO pr.told VALUES (51, 1); ROLLBACK",
    "BEGIN; INSERT INTO pr.a VALUES (60, 1); SAVEPOINT s; INSERT INTO pr.told VALUES (61, 1); \
     ROLLBACK TO s; INSERT INTO pr.a VALUES (62, 1); COMMIT",
    "BEGIN; INSERT INTO pr.told VALUES (70, 1); COMMIT",
    // Its client leaves.
    "BEGIN; INSERT INTO pr.a VALUES (80, 1); CREATE TEMPORARY TABLE pr.tmp (n INT); \
     INSERT INTO pr.told VALUES (81, 1)",
];

#[test]
fn what_was_rolled_back_is_not_applied() {
    for (n, (from, to)) in PAIRS.into_iter().enumerate() {
        let source = or_skip!(shared(from, 0));
        let target = or_skip!(shared(to, usize::from(from == to)));
        let schema = ["pr", "pr1", "pr2", "pr3"][n];
        let pipe = Pipe::new(source, target, schema);
        let named = |sql: &str| sql.replace("pr.", &format!("{schema}."));
        pipe.exec_both(&format!(
            "DROP DATABASE IF EXISTS {schema}; CREATE DATABASE {schema}"
        ));
        pipe.exec_both(&named(
            "CREATE TABLE pr.a (id INT PRIMARY KEY, v INT); INSERT INTO pr.a VALUES (1, 1), (2, 2); \
             CREATE TABLE pr.told (id INT PRIMARY KEY, v INT); \
             CREATE TABLE pr.stays (id INT PRIMARY KEY)",
        ));
        source.exec(&named("ALTER TABLE pr.stays ENGINE=MyISAM"));
        // Triggers are the active side's.
        source.exec(&named(
            "CREATE TRIGGER pr.tells BEFORE INSERT ON pr.told FOR EACH ROW \
             INSERT INTO pr.stays VALUES (NEW.id)",
        ));
        let start = pipe.now();
        // MySQL with GTIDs refuses one statement on tables of both kinds.
        let mixes = from == Family::MariaDb;
        for script in SCRIPTS.iter().filter(|s| mixes || !s.contains("told")) {
            source.exec(&named(script));
        }
        let followed = pipe.catch_up(&start);
        assert!(followed.is_ok(), "{from} to {to}: {followed:?}");
        let stays = "SELECT COALESCE(GROUP_CONCAT(id ORDER BY id), '') FROM pr.stays";
        let expected = if mixes { "51,61,70,81" } else { "" };
        assert_eq!(source.one(&named(stays)), expected);
        let tables = ["a", "told", "stays"].map(|t| format!("{schema}.{t}"));
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        compare::assert_equal(source, target, &tables);
    }
}
