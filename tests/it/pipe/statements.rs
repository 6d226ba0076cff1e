//! Statements in the log: which of them stop the follower, which do not, and
//! how it goes on.

use super::{Pipe, name};
use crate::follow::catalog;
use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::servers::shared;
use crate::support::{Family, compare};
use lockstep::Side;
use lockstep::follow::tables::{CatalogTables, Ddl, Definitions, Meaning, Tables, Verdict};
use std::sync::Arc;
use tokio::sync::mpsc;

fn pipe(family: Family) -> Result<Pipe<'static>, String> {
    let source = shared(family, 0).map_err(|m| m.to_string())?;
    let target = shared(family, 1).map_err(|m| m.to_string())?;
    Ok(Pipe::new(source, target, "ps"))
}

fn fresh(pipe: &Pipe) {
    pipe.exec_both("DROP DATABASE IF EXISTS ps; CREATE DATABASE ps");
    pipe.exec_both("CREATE TABLE ps.a (id INT PRIMARY KEY, v INT, w INT, KEY (v))");
    pipe.exec_both("DROP DATABASE IF EXISTS ps_other; CREATE DATABASE ps_other");
    pipe.exec_both("CREATE TABLE ps_other.b (id INT PRIMARY KEY, v INT)");
}

static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

#[test]
fn what_stops_it_names_the_table() {
    let _turn = TURN.lock();
    for family in Family::BOTH {
        let first = or_skip!(pipe(family));
        let cases = [
            ("TRUNCATE ps.a", "ps.a"),
            ("USE ps; TRUNCATE TABLE a", "ps.a"),
            ("CREATE TABLE ps.made SELECT 1 AS id", "ps.made"),
            ("CREATE TABLE ps.made LIKE ps_other.b", "ps.made"),
            ("DROP TABLE IF EXISTS ps.a", "ps.a"),
            ("DROP TABLE IF EXISTS ps_other.none, ps.a", "ps."),
            ("DROP DATABASE ps", "ps"),
            ("RENAME TABLE ps.a TO ps_other.gone", "ps.a"),
            ("RENAME TABLE ps_other.b TO ps.came", "ps.came"),
            ("ALTER TABLE ps.a RENAME TO ps_other.gone", "ps.a"),
            (
                "ALTER TABLE ps.a PARTITION BY HASH (id) PARTITIONS 2",
                "ps.a",
            ),
            ("ALTER TABLE ps.a ADD INDEX (w)", "ps.a"),
            ("CREATE INDEX i ON ps.a (w)", "ps.a"),
            (
                "SET binlog_format=STATEMENT; INSERT INTO ps.a VALUES (1, 1, 1)",
                "ps.a",
            ),
            (
                "SET binlog_format=STATEMENT; UPDATE ps.a, ps_other.b SET ps.a.v = 1, ps_other.b.v = 1 WHERE ps.a.id = ps_other.b.id",
                "ps.a",
            ),
        ];
        for (sql, named) in cases {
            fresh(&first);
            first.exec_both(
                "INSERT INTO ps.a VALUES (5, 5, 5); INSERT INTO ps_other.b VALUES (5, 5)",
            );
            let pipe = Pipe::new(first.source, first.target, "ps");
            let start = pipe.now();
            pipe.source.exec(sql);
            let error = pipe.catch_up(&start).err().map(|e| e.to_string());
            let error = error.unwrap_or_else(|| panic!("{family}: {sql}: went on"));
            assert!(error.contains(named), "{family}: {sql}: {error}");
            assert!(error.contains("stopped after"), "{family}: {sql}: {error}");
        }
        for (image, sql) in [
            ("MINIMAL", "UPDATE ps.a SET v = 9"),
            ("MINIMAL", "DELETE FROM ps.a"),
            ("NOBLOB", "UPDATE ps.t SET v = 9"),
        ] {
            fresh(&first);
            first.exec_both("CREATE TABLE ps.t (id INT PRIMARY KEY, v INT, b BLOB)");
            first.exec_both(
                "INSERT INTO ps.a VALUES (5, 5, 5); INSERT INTO ps.t VALUES (5, 5, 'x')",
            );
            let pipe = Pipe::new(first.source, first.target, "ps");
            let start = pipe.now();
            pipe.source
                .exec(&format!("SET binlog_row_image={image}; {sql}"));
            let ended = pipe.catch_up(&start);
            match ended {
                // The key alone is enough to delete by.
                Ok(()) => assert_eq!(
                    compare::assert_equal(pipe.source, pipe.target, &["ps.a"]),
                    0
                ),
                Err(e) => {
                    let e = e.to_string();
                    assert!(
                        e.contains("FULL") || e.contains("image"),
                        "{family}: {sql}: {e}"
                    );
                    assert!(e.contains("ps."), "{family}: {sql}: {e}");
                }
            }
        }
    }
}

#[test]
fn what_concerns_others_is_passed_over() {
    let _turn = TURN.lock();
    for family in Family::BOTH {
        let pipe = or_skip!(pipe(family));
        fresh(&pipe);
        let start = pipe.now();
        for sql in [
            "CREATE TABLE ps_other.x (id INT PRIMARY KEY)",
            "ALTER TABLE ps_other.x ADD v INT",
            "RENAME TABLE ps_other.x TO ps_other.y",
            "TRUNCATE ps_other.y",
            "DROP TABLE IF EXISTS ps_other.y, ps_other.none",
            "CREATE TABLE ps_other.c SELECT 1 AS id",
            "DROP DATABASE ps_other",
            "ANALYZE TABLE ps.a",
            "OPTIMIZE TABLE ps.a",
            "FLUSH TABLES",
            "CREATE USER IF NOT EXISTS ps_u@localhost IDENTIFIED BY 'Secret-123'",
            "GRANT SELECT ON ps.* TO ps_u@localhost",
            "REVOKE SELECT ON ps.* FROM ps_u@localhost",
            "DROP USER ps_u@localhost",
            "CREATE TEMPORARY TABLE ps.tmp (id INT); INSERT INTO ps.tmp VALUES (1); DROP TEMPORARY TABLE ps.tmp",
            "BEGIN; INSERT INTO ps.a VALUES (1, 1, 1); SAVEPOINT s; INSERT INTO ps.a VALUES (2, 2, 2); ROLLBACK TO s; COMMIT",
        ] {
            pipe.source.exec(sql);
        }
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{family}: {e}"));
        assert_eq!(
            compare::assert_equal(pipe.source, pipe.target, &["ps.a"]),
            1
        );
    }
}

/// Passes over what both sides have, with the catalog of now.
struct Both(Arc<lockstep::rows::shape::Catalog>);

impl Definitions for Both {
    fn changed(&self, ddl: Ddl<'_>) -> Verdict {
        assert!(ddl.what.contains("ps.a"));
        Verdict::Pass(Some(self.0.clone()))
    }
}

/// Both sides got the same change: the follower goes on with the new shape.
#[test]
fn it_goes_on_when_both_sides_have_changed() {
    let _turn = TURN.lock();
    for family in Family::BOTH {
        let pipe = or_skip!(pipe(family));
        fresh(&pipe);
        let start = pipe.now();
        let before = block_on(catalog(pipe.source, pipe.target, "ps"));
        pipe.source.exec("INSERT INTO ps.a VALUES (1, 1, 1)");
        pipe.source
            .exec("ALTER TABLE ps.a ADD x VARCHAR(9) NOT NULL DEFAULT 'q', DROP w");
        pipe.source.exec("INSERT INTO ps.a VALUES (2, 2, 'two')");
        let error = pipe
            .catch_up(&start)
            .expect_err("nobody said so")
            .to_string();
        assert!(error.contains("definition"), "{family}: {error}");
        pipe.target
            .exec("ALTER TABLE ps.a ADD x VARCHAR(9) NOT NULL DEFAULT 'q', DROP w");
        let after = block_on(catalog(pipe.source, pipe.target, "ps"));
        // From the start, as a new stream: rows before and behind the change.
        let pipe = Pipe::new(pipe.source, pipe.target, "ps");
        let covers = |db: &[u8], _: &[u8]| db == b"ps";
        let followed = |catalog, definitions: Arc<dyn Definitions>| {
            let tables = CatalogTables::new(catalog, Side::Source, covers);
            let tables = Arc::new(tables.with_definitions(definitions));
            let run = pipe;
            let start = start.clone();
            let known = tables.clone();
            let ended = block_on(async move {
                let followed = run.follower(known, &start, Arc::default()).await;
                let mut follower = followed.expect("a follower");
                let stream = run.stream(&start, true).await;
                let (_, no_chunks) = mpsc::channel(1);
                follower.run(stream, no_chunks).await
            });
            (tables, ended)
        };
        // The first row has `w`, which the target has no more.
        let (_, ended) = followed(before.clone(), Arc::new(Both(after.clone())));
        let error = ended.expect_err("a column is gone").to_string();
        assert!(error.contains("ps.a"), "{family}: {error}");
        pipe.target.exec("REPLACE INTO ps.a (id, v) VALUES (1, 1)");
        // Rows that do not fit the shape of now stop it, too.
        let (_, ended) = followed(after.clone(), Arc::new(Both(after.clone())));
        let error = ended.expect_err("another shape").to_string();
        assert!(
            error.contains("another one in the log"),
            "{family}: {error}"
        );
        // A stream that starts behind that row goes over the change.
        let moved = block_on(async {
            let tables = CatalogTables::new(before, Side::Source, covers);
            assert!(
                matches!(tables.meaning(&name("ps", "a")), Meaning::Follow(f) if f.shape.column(b"w").is_some())
            );
            tables.update(after);
            matches!(tables.meaning(&name("ps", "a")), Meaning::Follow(f) if f.shape.column(b"x").is_some())
        });
        assert!(moved, "{family}");
    }
}

/// A trigger on the side that is written would run for rows that are its
/// effect.
#[test]
fn triggers_there_stop_it() {
    let _turn = TURN.lock();
    for family in Family::BOTH {
        let pipe = or_skip!(pipe(family));
        fresh(&pipe);
        pipe.exec_both("CREATE TABLE ps.log (id INT AUTO_INCREMENT PRIMARY KEY, v INT)");
        pipe.source.exec("CREATE TRIGGER ps.t AFTER INSERT ON ps.a FOR EACH ROW INSERT INTO ps.log (v) VALUES (NEW.v)");
        let start = pipe.now();
        pipe.source
            .exec("INSERT INTO ps.a VALUES (1, 1, 1), (2, 2, 2)");
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{family}: {e}"));
        assert_eq!(
            compare::assert_equal(pipe.source, pipe.target, &["ps.a", "ps.log"]),
            4
        );
        pipe.target.exec("CREATE TRIGGER ps.t AFTER INSERT ON ps.a FOR EACH ROW INSERT INTO ps.log (v) VALUES (NEW.v)");
        pipe.source.exec("INSERT INTO ps.a VALUES (3, 3, 3)");
        let error = pipe.catch_up(&start).expect_err("a trigger").to_string();
        assert!(
            error.contains("ps.a") && error.contains("trigger"),
            "{family}: {error}"
        );
        assert_eq!(pipe.target.one("SELECT COUNT(*) FROM ps.log"), "2");
    }
}
