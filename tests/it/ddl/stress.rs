//! DDL from several clients beside flip after flip.

use super::{FAMILIES, Pair, ROUTE, has, run};
use crate::support::Family;
use crate::support::proc::block_on;
use mysql_async::prelude::Queryable;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CLIENTS: usize = 4;
const FLIPS: usize = 40;
/// Fewer than this were no test.
const STATEMENTS_MIN: usize = 60;
/// Between two flips.
const BETWEEN: Duration = Duration::from_millis(20);

/// What one client's statements were answered: text, and the error if any.
type Verdicts = Vec<(String, Option<u16>)>;

/// A client that makes, alters and drops tables of its own and one that all
/// share, and writes between.
async fn client(pair: &Pair, number: usize, stop: &AtomicBool) -> Verdicts {
    let mut conn = pair.conn().await;
    let mut seen = Verdicts::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let own = format!("own_{number}_{}", round % 3);
        let shared = format!("shared_{}", round % 2);
        let statements = [
            format!("CREATE TABLE {own} (id INT AUTO_INCREMENT PRIMARY KEY, v INT)"),
            format!("INSERT INTO {own} (v) VALUES (1), (2)"),
            format!("CREATE TABLE {shared} (id INT PRIMARY KEY, c{number}_{round} INT)"),
            format!("ALTER TABLE {own} ADD COLUMN w{round} INT"),
            format!("UPDATE {own} SET w{round} = v WHERE id = 1"),
            format!("ALTER TABLE {shared} ADD COLUMN d{number}_{round} INT"),
            format!("DROP TABLE {shared}"),
            if round % 3 == 2 {
                format!("DROP TABLE own_{number}_0, own_{number}_1, own_{number}_2")
            } else {
                format!("TRUNCATE TABLE {own}")
            },
        ];
        for sql in statements {
            let code = match conn.query_drop(&sql).await {
                Ok(()) => None,
                Err(mysql_async::Error::Server(e)) => Some(e.code),
                Err(other) => panic!("{sql}: {other}\n{}", pair.proxy.log()),
            };
            seen.push((sql, code));
        }
    }
    seen
}

/// What only the others' statements on the shared tables may bring about:
/// exists already, does not exist.
const EXPECTED: [u16; 3] = [1050, 1051, 1146];

fn flips(family: Family) {
    let limits = "drain_ms: 5000, gate_ms: 15000";
    let Some(pair) = Pair::start(family, "ddl_stress", limits) else {
        return;
    };
    let stop = AtomicBool::new(false);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (pair, stop, all) = (&pair, &stop, &all);
            scope.spawn(move || {
                let seen = block_on(client(pair, number, stop));
                all.lock().push(seen);
            });
        }
        for n in 0..FLIPS {
            std::thread::sleep(BETWEEN);
            let answer = if n % 2 == 0 {
                pair.proxy.advance(ROUTE, Some("target_first"), true)
            } else {
                pair.proxy.rollback(ROUTE, Some("source_first"), true)
            };
            if !answer.ok() {
                stop.store(true, Ordering::Relaxed);
                panic!("flip {n}: {answer:?}\n{}", pair.proxy.log());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let now = pair.assert_same();
    let (mut ran, mut refused) = (0, 0);
    for seen in all.into_inner() {
        verdicts_hold(&seen, &now);
        ran += seen.len();
        refused += seen.iter().filter(|(_, code)| code.is_some()).count();
    }
    println!("{family}: {FLIPS} flips, {ran} statements, {refused} refused by the active side");
    assert!(ran >= STATEMENTS_MIN);
    pair.assert_all_mirrored();
    rows_are_equal(&pair, &now);
}

/// A client's own tables are as its statements' answers say, and no statement
/// on them was refused.
fn verdicts_hold(seen: &Verdicts, now: &[String]) {
    let mut tables = std::collections::BTreeMap::new();
    for (sql, code) in seen {
        let Some(code) = code else {
            let words: Vec<&str> = sql.split([' ', ',']).filter(|w| !w.is_empty()).collect();
            match words[..] {
                ["CREATE", "TABLE", name, ..] => drop(tables.insert(name, Vec::new())),
                ["ALTER", "TABLE", name, "ADD", "COLUMN", column, ..] => {
                    tables.entry(name).or_insert_with(Vec::new).push(column);
                }
                ["DROP", "TABLE", ref names @ ..] => names.iter().for_each(|n| {
                    tables.remove(n);
                }),
                _ => {}
            }
            continue;
        };
        assert!(
            sql.contains("shared_") && EXPECTED.contains(code),
            "{sql}: {code}"
        );
    }
    for (name, columns) in tables.iter().filter(|(name, _)| name.starts_with("own_")) {
        for column in columns {
            assert!(
                has(now, &format!("{name} {column} ")),
                "{name}.{column}: {now:?}"
            );
        }
    }
}

fn rows_are_equal(pair: &Pair, definitions: &[String]) {
    let mut tables: Vec<&str> = definitions
        .iter()
        .filter_map(|d| d.split(' ').nth(1))
        .collect();
    tables.dedup();
    for table in tables {
        let sql = format!("SELECT * FROM {}.`{table}` ORDER BY id", pair.database);
        assert_eq!(pair.source.query(&sql), pair.target.query(&sql), "{table}");
    }
}

#[test]
fn ddl_beside_flips_leaves_the_same_tables_on_both_sides() {
    FAMILIES.into_iter().for_each(flips);
}

/// The same between DDL and the sessions that use its tables: no write fails.
#[test]
fn writes_beside_ddl_reach_both_sides() {
    for family in FAMILIES {
        let limits = "drain_ms: 5000, gate_ms: 15000";
        let Some(pair) = Pair::start(family, "ddl_writes", limits) else {
            return;
        };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (pair, stop) = (&pair, &stop);
                scope.spawn(move || {
                    block_on(async {
                        let mut conn = pair.conn().await;
                        while !stop.load(Ordering::Relaxed) {
                            let id = number % 2 + 1;
                            let sql = format!("UPDATE t SET v = v + 1 WHERE id = {id}");
                            run(&mut conn, &sql).await;
                        }
                    });
                });
            }
            block_on(async {
                let mut conn = pair.conn().await;
                for n in 0..10 {
                    run(
                        &mut conn,
                        &format!("ALTER TABLE t ADD COLUMN c{n} INT DEFAULT {n}"),
                    )
                    .await;
                }
            });
            stop.store(true, Ordering::Relaxed);
        });
        let now = pair.assert_same();
        pair.assert_all_mirrored();
        rows_are_equal(&pair, &now);
    }
}
