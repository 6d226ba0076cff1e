//! A copy that goes on finds other tables, or other definitions, than those it
//! was planned by.

use super::Pipe;
use super::keyless::pair;
use crate::follow::PAIRS;
use crate::or_skip;
use crate::support::compare;
use crate::support::proc::block_on;
use lockstep::binlog::Position;
use lockstep::config::CopySettings;
use lockstep::copy::{self, Throttle};
use std::sync::Arc;
use std::time::Duration;

/// One schema for all tests here.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

const SERIES: &str =
    "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 400) SELECT";

/// Rows a second, of all tables: slow enough to be cut off in the middle.
const SLOW: u64 = 150;

fn prepare(pipe: &Pipe, tables: &str) {
    pipe.exec_both("DROP DATABASE IF EXISTS pl; CREATE DATABASE pl CHARACTER SET utf8mb4");
    pipe.exec_both(tables);
}

/// Copies until some rows of each table are over, and not all of any.
fn begin(pipe: &Pipe, tables: &[&str], start: &Position) {
    let status: Arc<copy::Status> = Arc::default();
    let settings = CopySettings {
        rows_per_s: SLOW,
        max_threads_running: 0,
        ..CopySettings::default()
    };
    let throttle = Throttle::new(settings, Arc::new(|| None));
    let begun = async {
        let all = |status: &copy::Status| {
            let tables_now = status.tables();
            tables_now.len() == tables.len() && tables_now.values().all(|t| t.rows_done >= 20)
        };
        while !all(&status) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    block_on(async {
        tokio::select! {
            ended = pipe.copy_throttled(tables, start, status.clone(), throttle) => {
                panic!("it was not cut off: {ended:?}")
            }
            () = begun => {}
        }
    });
    assert!(status.tables().values().all(|t| t.parts_left > 0));
}

fn finish(pipe: &Pipe, tables: &[&str], start: &Position) -> usize {
    block_on(pipe.copy(tables, start, Arc::default())).expect("a copy");
    pipe.catch_up(start).expect("the rest");
    let names: Vec<String> = tables.iter().map(|t| format!("pl.{t}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    compare::assert_equal(pipe.source, pipe.target, &names)
}

/// A table that one side had not when the others were planned.
#[test]
fn a_table_that_came_later_is_copied() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "pl");
        prepare(&pipe, "CREATE TABLE pl.first (id INT PRIMARY KEY, v INT)");
        let late = "CREATE TABLE pl.late (id INT PRIMARY KEY, v INT)";
        source.exec(&format!(
            "{late}; INSERT INTO pl.first VALUES (1,1),(2,2); INSERT INTO pl.late VALUES (1,1),(2,2),(3,3)"
        ));
        let start = pipe.now();
        assert_eq!(finish(&pipe, &["first"], &start), 2);
        target.exec(late);
        assert_eq!(finish(&pipe, &["first", "late"], &start), 5);
    }
}

/// The order of a table's rows changes while it is copied: what was behind the
/// place where it was cut off is before it now.
#[test]
fn a_key_with_another_order_is_copied_from_its_beginning() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "pl");
        prepare(
            &pipe,
            "CREATE TABLE pl.words (k VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, v INT);
             CREATE TABLE pl.kinds (e ENUM('b','a') NOT NULL, n INT NOT NULL, PRIMARY KEY (e, n));
             CREATE TABLE pl.pairs (a INT NOT NULL, b INT NOT NULL, PRIMARY KEY (a))",
        );
        for insert in [
            format!("INSERT INTO pl.words {SERIES} CONCAT(IF(n % 2, 'B', 'a'), n), n FROM s"),
            format!("INSERT INTO pl.kinds {SERIES} IF(n % 2, 'a', 'b'), n FROM s"),
            format!("INSERT INTO pl.pairs {SERIES} n, 1000 - n FROM s"),
        ] {
            source.exec(&insert);
        }
        let tables = ["words", "kinds", "pairs"];
        let start = pipe.now();
        begin(&pipe, &tables, &start);
        // Both sides get it, and the log has it not: who brings it over is
        // tested elsewhere.
        pipe.exec_both(
            "SET sql_log_bin=0;
             ALTER TABLE pl.words MODIFY k VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL;
             ALTER TABLE pl.kinds MODIFY e ENUM('x','a','b') NOT NULL;
             ALTER TABLE pl.pairs DROP PRIMARY KEY, ADD PRIMARY KEY (b)",
        );
        assert_eq!(finish(&pipe, &tables, &start), 1200, "{from} → {to}");
        // Once more, nothing has changed: nothing is copied.
        let status: Arc<copy::Status> = Arc::default();
        block_on(pipe.copy(&tables, &start, status.clone())).expect("a copy");
        assert!(status.tables().values().all(|t| t.parts_left == 0));
    }
}

/// A table that is half copied becomes another's child: until its turn comes
/// its events are skipped, so what was copied of it does not count.
#[test]
fn a_half_copied_table_that_becomes_a_child_begins_anew() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "pl");
        prepare(
            &pipe,
            "CREATE TABLE pl.parent (id INT PRIMARY KEY, v INT);
             CREATE TABLE pl.child (id INT PRIMARY KEY, p INT, v INT, KEY (p))",
        );
        source.exec(&format!("INSERT INTO pl.parent {SERIES} n, 0 FROM s"));
        source.exec(&format!("INSERT INTO pl.child {SERIES} n, n, 0 FROM s"));
        let tables = ["parent", "child"];
        let start = pipe.now();
        begin(&pipe, &tables, &start);
        pipe.exec_both(
            "SET sql_log_bin=0; SET foreign_key_checks=0;
             ALTER TABLE pl.child ADD FOREIGN KEY (p) REFERENCES pl.parent (id) ON DELETE CASCADE",
        );
        source.exec(
            "UPDATE pl.child SET v = 1 WHERE id < 10; DELETE FROM pl.child WHERE id = 10;
             INSERT INTO pl.child VALUES (-1, 1, 1); DELETE FROM pl.parent WHERE id = 11",
        );
        assert_eq!(finish(&pipe, &tables, &start), 798, "{from} → {to}");
    }
}
