//! Foreign keys that change other tables' rows by themselves.

use super::keyless::pair;
use super::{Pipe, Stops};
use crate::follow::PAIRS;
use crate::or_skip;
use crate::support::proc::{block_on, runtime};
use crate::support::{Server, compare};
use lockstep::follow::batch::TableName;
use lockstep::follow::cascade::{Children, Parent};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// One schema for all tests here.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

const TABLES: &str = "
CREATE TABLE fk.a_grand (id INT PRIMARY KEY, c INT, FOREIGN KEY (c) REFERENCES fk.child (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE fk.child (id INT PRIMARY KEY, p INT, v INT NOT NULL, FOREIGN KEY (p) REFERENCES fk.parent (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE fk.loose (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES fk.parent (id) ON DELETE SET NULL ON UPDATE SET NULL);
CREATE TABLE fk.bound (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES fk.parent (id));
CREATE TABLE fk.parent (id INT PRIMARY KEY, u INT UNIQUE, v INT NOT NULL);
CREATE TABLE fk.tree (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES fk.tree (id) ON DELETE CASCADE);
";

const ALL: [&str; 6] = ["a_grand", "bound", "child", "loose", "parent", "tree"];

fn prepare(pipe: &Pipe) {
    pipe.exec_both("DROP DATABASE IF EXISTS fk; CREATE DATABASE fk");
    let mut script = "SET foreign_key_checks=0;\n".to_string();
    script.push_str(TABLES);
    pipe.exec_both(&script);
}

fn assert_equal(pipe: &Pipe) -> usize {
    let names = ALL.map(|t| format!("fk.{t}"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    compare::assert_equal(pipe.source, pipe.target, &names)
}

#[derive(Default)]
struct Told(parking_lot::Mutex<Vec<TableName>>);

impl Children for Told {
    fn changed(&self, parent: Parent<'_>) {
        self.0.lock().push(parent.name.clone());
    }
}

/// Within one batch: children of a deleted parent do not come back, those of a
/// parent that came back under the same key are not taken for the old ones.
#[test]
fn children_follow_their_parents() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "fk");
        prepare(&pipe);
        let start = pipe.now();
        source.exec(
            "INSERT INTO fk.parent VALUES (1,1,0),(2,2,0),(3,3,0),(4,4,0),(5,5,0);
             INSERT INTO fk.child VALUES (10,1,0),(11,1,0),(20,2,0),(30,3,0),(40,4,0);
             INSERT INTO fk.a_grand VALUES (100,10),(110,11),(200,20),(300,30);
             INSERT INTO fk.loose VALUES (1,1),(2,2),(3,3),(4,4);
             INSERT INTO fk.bound VALUES (1,5);
             DELETE FROM fk.parent WHERE id = 1;
             INSERT INTO fk.parent VALUES (1,1,1);
             INSERT INTO fk.child VALUES (12,1,0);
             UPDATE fk.parent SET id = 7 WHERE id = 2;
             UPDATE fk.parent SET v = v + 1;
             BEGIN; DELETE FROM fk.bound; DELETE FROM fk.parent WHERE id = 5; COMMIT;
             BEGIN; UPDATE fk.parent SET id = 99 WHERE id = 3; UPDATE fk.parent SET id = 3 WHERE id = 4; UPDATE fk.parent SET id = 4 WHERE id = 99; COMMIT;
             UPDATE fk.child SET id = 13 WHERE id = 12;
             INSERT INTO fk.tree VALUES (9,NULL),(8,9),(7,8),(6,NULL);
             DELETE FROM fk.tree WHERE id = 9;
             SET foreign_key_checks=0;
             INSERT INTO fk.parent VALUES (50,50,0); INSERT INTO fk.child VALUES (500,50,0);
             DELETE FROM fk.parent WHERE id = 50",
        );
        let told = Arc::new(Told::default());
        block_on(async {
            let tables = pipe.tables().await;
            let followed = pipe.follower(tables, &start, Arc::default()).await;
            let mut follower = followed.expect("a follower");
            follower.tell_children(told.clone());
            let from = follower.position().clone();
            let stream = pipe.stream(&from, true).await;
            let (_, no_chunks) = mpsc::channel(1);
            follower.run(stream, no_chunks).await
        })
        .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        assert!(assert_equal(&pipe) > 10, "{from} → {to}");
        assert_eq!(
            target.one("SELECT COUNT(*) FROM fk.child WHERE id = 500"),
            "1"
        );
        // MySQL 9.6 and later log the children themselves.
        let unseen = from == crate::support::Family::MariaDb;
        assert_eq!(!told.0.lock().is_empty(), unseen, "{from}");
    }
}

/// A copy begun anew over a target that has the rows of an earlier one: what
/// goes while a table waits for its parents does not stay on the target.
#[test]
fn rows_that_go_before_their_tables_turn_do_not_stay() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "fk");
        prepare(&pipe);
        pipe.exec_both(
            "INSERT INTO fk.parent VALUES (1,1,0),(2,2,0),(3,3,0),(4,4,0);
             INSERT INTO fk.child VALUES (10,1,0),(11,1,0),(12,1,0),(20,3,0),(30,3,0),(40,4,0);
             INSERT INTO fk.a_grand VALUES (100,10),(110,11),(200,20),(300,30),(400,40);
             INSERT INTO fk.loose VALUES (1,1),(2,2),(3,3);
             INSERT INTO fk.bound VALUES (1,1);
             INSERT INTO fk.tree VALUES (1,NULL),(2,1),(3,2),(4,NULL)",
        );
        // The log has all of it before the copy's first watermark, so the
        // follower meets it before a child's turn comes.
        let start = pipe.now();
        source.exec(
            "DELETE FROM fk.child WHERE id = 10;
             UPDATE fk.child SET p = 2 WHERE id = 11;
             UPDATE fk.child SET id = 31 WHERE id = 30;
             UPDATE fk.child SET v = 5 WHERE id = 12;
             DELETE FROM fk.parent WHERE id = 2;
             DELETE FROM fk.loose WHERE id = 3;
             DELETE FROM fk.tree WHERE id = 1;
             DELETE FROM fk.parent WHERE id = 4",
        );
        block_on(pipe.copy(&ALL, &start, Arc::default()))
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        assert!(assert_equal(&pipe) > 8, "{from} → {to}");
        let gone = "SELECT COUNT(*) FROM fk.child WHERE id IN (10, 11, 30, 40)";
        assert_eq!(target.one(gone), "0", "{from} → {to}");
    }
}

async fn client(server: &Server, seed: u64, stop: &AtomicBool) {
    let mut conn = server.conn().await;
    let mut n = seed;
    while !stop.load(Ordering::Relaxed) {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
        let (x, y) = ((n >> 33) % 300, (n >> 45) % 2000);
        let sql = match (n >> 55) % 9 {
            0 | 1 => format!("INSERT INTO fk.parent VALUES ({x}, {x}, {y})"),
            2 => format!("DELETE FROM fk.parent WHERE id = {x}"),
            3 => format!(
                "UPDATE fk.parent SET id = {x}, u = {x} WHERE id = {}",
                y % 300
            ),
            4 => format!("INSERT INTO fk.child VALUES ({y}, {x}, 0)"),
            5 => format!("INSERT INTO fk.a_grand VALUES ({y}, {y})"),
            6 => format!("INSERT INTO fk.loose VALUES ({y}, {x})"),
            7 => format!("DELETE FROM fk.child WHERE id = {y}"),
            _ => format!("UPDATE fk.child SET v = v + 1, p = {x} WHERE id = {y}"),
        };
        let _ = conn.query_drop(sql).await;
        // Each changed parent has the chunks of its children read again.
        tokio::time::sleep(std::time::Duration::from_millis(15)).await;
    }
}

/// Copied in lives and followed while parents come, go and change their keys.
#[test]
fn cascades_under_load() {
    let _turn = TURN.lock();
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "fk");
        prepare(&pipe);
        source.exec(
            "INSERT INTO fk.parent WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 299) SELECT n, n, 0 FROM s;
             INSERT INTO fk.child SELECT id * 6 + r.n, id, 0 FROM fk.parent, (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4) r;
             INSERT INTO fk.a_grand SELECT id, id FROM fk.child",
        );
        let start = pipe.now();
        let stop = AtomicBool::new(false);
        let lives = std::thread::scope(|scope| {
            for seed in 0..4 {
                let stop = &stop;
                scope.spawn(move || runtime().block_on(client(source, seed, stop)));
            }
            let _stops = Stops(&stop);
            pipe.copy_in_lives(&ALL, &start, 20)
        });
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let rows = assert_equal(&pipe);
        eprintln!("{from} → {to}: {rows} rows in {lives} lives");
    }
}
