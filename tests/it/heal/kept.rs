//! What a follower leaves behind for the next one, and what a barrier means.

use super::{Pair, told};
use crate::binlog::now;
use crate::or_skip;
use crate::support::proc::{block_on, runtime};
use crate::support::servers::shared;
use crate::support::{Family, compare};
use lockstep::follow::Status;
use lockstep::follow::beat::{BarrierError, Beat};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn prepared(family: Family, schema: &'static str) -> Option<Pair<'static>> {
    let (active, mirror) = (shared(family, 0).ok()?, shared(family, 1).ok()?);
    for server in [active, mirror] {
        server.exec(&format!(
            "DROP DATABASE IF EXISTS {schema}; CREATE DATABASE {schema}"
        ));
        server.exec(&format!(
            "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT)"
        ));
        server.exec(&format!(
            "INSERT INTO {schema}.t VALUES (1, 1), (2, 2), (3, 3)"
        ));
    }
    Some(Pair {
        active,
        mirror,
        schema,
        stream: schema,
        start: now(active, false),
    })
}

/// Runs a follower while `test` goes on.
async fn beside<T>(pair: &Pair<'_>, status: &Arc<Status>, test: impl Future<Output = T>) -> T {
    tokio::select! {
        ended = pair.heal(false, status.clone()) => panic!("{ended:?}"),
        done = test => done,
    }
}

fn retried(pair: &Pair<'_>) -> String {
    let sql = format!(
        "SELECT COUNT(*) FROM lockstep.retry WHERE stream = '{}'",
        pair.stream
    );
    pair.mirror.one(&sql)
}

/// A row that is locked on the mirror outlives the follower that met it, and no
/// barrier is passed before it is healed.
#[test]
fn busy_rows_are_kept() {
    for family in Family::BOTH {
        let pair = or_skip!(prepared(family, "hk").ok_or("no servers"));
        let mut holder = block_on(pair.mirror.conn());
        runtime().block_on(async {
            let sql = "BEGIN; UPDATE hk.t SET v = 0 WHERE id = 2";
            holder.query_drop(sql).await.expect("locked");
        });
        pair.active.exec("UPDATE hk.t SET v = 20 + id");
        let status: Arc<Status> = Arc::default();
        let late = |reached: Result<(), BarrierError>| match reached {
            Err(BarrierError::Late { pending, .. }) => pending,
            other => panic!("{family}: {other:?}: {}", told(&status)),
        };
        runtime().block_on(async {
            let beat = pair.beat(&status);
            beside(&pair, &status, async {
                assert_eq!(late(beat.barrier(4 * SECOND).await), 1);
                assert!(
                    beat.lag().is_none_or(|lag| lag > SECOND),
                    "{:?}",
                    beat.lag()
                );
            })
            .await;
        });
        assert_eq!(retried(&pair), "1");
        let checkpoint = pair
            .mirror
            .one("SELECT position FROM lockstep.checkpoint WHERE stream = 'hk'");
        assert_ne!(checkpoint, pair.start.to_string(), "{family}");

        // The next one begins behind the event.
        let status: Arc<Status> = Arc::default();
        let next = Pair {
            start: now(pair.active, false),
            ..pair
        };
        runtime().block_on(async {
            let beat = next.beat(&status);
            beside(&next, &status, async {
                let reached = beat.barrier(2 * SECOND).await;
                assert!(
                    matches!(reached, Err(BarrierError::Late { pending: 1, .. })),
                    "{reached:?}"
                );
                holder.query_drop("ROLLBACK").await.expect("released");
                let reached = beat.barrier(20 * SECOND).await;
                reached.unwrap_or_else(|e| panic!("{family}: {e}: {}", told(&status)));
                // An idle checkpoint later it is kept no more. The follower
                // needs this task to get there.
                let until = Instant::now() + 20 * SECOND;
                while tokio::task::block_in_place(|| retried(&next)) != "0" {
                    assert!(Instant::now() < until, "{family}: still kept");
                    tokio::time::sleep(SECOND / 4).await;
                }
            })
            .await;
        });
        compare::assert_equal(next.active, next.mirror, &["hk.t"]);
        assert_eq!(retried(&next), "0");
        assert_eq!(status.pending(), 0);
    }
}

/// One client that changes row 2 as the proxy does, its part on the mirror open
/// for a while.
async fn holder(pair: &Pair<'_>, stop: &AtomicBool) {
    let (mut a, mut m) = (pair.active.conn().await, pair.mirror.conn().await);
    while !stop.load(Ordering::Relaxed) {
        for sql in ["BEGIN", "UPDATE hw.t SET v = v + 1 WHERE id = 2"] {
            a.query_drop(sql).await.expect("active");
            m.query_drop(sql).await.expect("mirror");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        a.query_drop("COMMIT").await.expect("active");
        m.query_drop("COMMIT").await.expect("mirror");
    }
}

/// A row that is always locked by one of many holds no barrier up, and nobody
/// deadlocks with the healer.
#[test]
fn a_row_that_is_always_locked_is_waited_for() {
    for family in Family::BOTH {
        let pair = or_skip!(prepared(family, "hw").ok_or("no servers"));
        let (status, stop) = (Arc::<Status>::default(), AtomicBool::new(false));
        runtime().block_on(async {
            let beat = pair.beat(&status);
            let barriers = async {
                tokio::time::sleep(SECOND).await;
                let began = Instant::now();
                for _ in 0..3 {
                    let reached = beat.barrier(30 * SECOND).await;
                    reached.unwrap_or_else(|e| panic!("{family}: {e}: {}", told(&status)));
                }
                // One that the mirror never got, between theirs.
                let mut a = pair.active.conn().await;
                let lost = "UPDATE hw.t SET v = v + 1000 WHERE id = 2";
                a.query_drop(lost).await.expect("active");
                let reached = beat.barrier(30 * SECOND).await;
                reached.unwrap_or_else(|e| panic!("{family}: {e}: {}", told(&status)));
                stop.store(true, Ordering::Relaxed);
                eprintln!("{family}: four barriers in {:?}", began.elapsed());
            };
            beside(&pair, &status, async {
                let hold = || holder(&pair, &stop);
                tokio::join!(barriers, hold(), hold(), hold(), hold(), hold(), hold());
                let reached = beat.barrier(30 * SECOND).await;
                reached.unwrap_or_else(|e| panic!("{family}: {e}: {}", told(&status)));
            })
            .await;
        });
        compare::assert_equal(pair.active, pair.mirror, &["hw.t"]);
        eprintln!("{family}: {}", told(&status));
        assert!(status.heal.busy.load(Ordering::Relaxed) > 0, "{family}");
    }
}

/// A row that the mirror does not take stops neither the others nor the
/// checkpoint, and is healed once the mirror does.
#[test]
fn refused_rows_are_kept() {
    for family in Family::BOTH {
        let pair = or_skip!(prepared(family, "hr").ok_or("no servers"));
        pair.mirror
            .exec("ALTER TABLE hr.t ADD CONSTRAINT small CHECK (v < 100)");
        pair.active.exec("UPDATE hr.t SET v = 200 WHERE id = 2");
        pair.active.exec("UPDATE hr.t SET v = 7 WHERE id = 3");
        let status: Arc<Status> = Arc::default();
        runtime().block_on(async {
            let beat = pair.beat(&status);
            beside(&pair, &status, async {
                let reached = beat.barrier(3 * SECOND).await;
                assert!(
                    matches!(reached, Err(BarrierError::Late { pending: 1, .. })),
                    "{reached:?}"
                );
                let why = status.heal.refusal.lock().clone().unwrap_or_default();
                assert!(why.contains("hr.t") && why.contains("small"), "{why}");
                tokio::task::block_in_place(|| {
                    assert_eq!(pair.mirror.one("SELECT v FROM hr.t WHERE id = 3"), "7");
                    let drop = match family {
                        Family::MariaDb => "ALTER TABLE hr.t DROP CONSTRAINT small",
                        Family::MySql => "ALTER TABLE hr.t DROP CHECK small",
                    };
                    pair.mirror.exec(drop);
                });
                let reached = beat.barrier(20 * SECOND).await;
                reached.unwrap_or_else(|e| panic!("{family}: {e}: {}", told(&status)));
            })
            .await;
        });
        compare::assert_equal(pair.active, pair.mirror, &["hr.t"]);
    }
}

/// After each barrier every row changed before it is equal, however many
/// follow; and the lag is measured while nothing happens.
#[test]
fn a_barrier_means_healed() {
    for family in Family::BOTH {
        let pair = or_skip!(prepared(family, "hb").ok_or("no servers"));
        let status: Arc<Status> = Arc::default();
        runtime().block_on(async {
            let beat: Beat = pair.beat(&status);
            let (mut a, mut m) = (pair.active.conn().await, pair.mirror.conn().await);
            beside(&pair, &status, async {
                let until = Instant::now() + 3 * SECOND;
                let mut n = 0;
                while Instant::now() < until {
                    n += 1;
                    let sql = format!("REPLACE INTO hb.t VALUES ({n}, 1), (2, {n})");
                    a.query_drop(sql).await.expect("written");
                    beat.barrier(20 * SECOND).await.expect("a barrier");
                    let sql = format!("SELECT COUNT(*) FROM hb.t WHERE id = 2 AND v = {n}");
                    let seen: Option<u32> = m.query_first(sql).await.expect("read");
                    assert_eq!(seen, Some(1), "{family}: round {n}");
                }
                tokio::time::sleep(SECOND).await;
                let lag = beat.lag().expect("a lag");
                eprintln!("{family}: {n} barriers, lag {lag:?}");
                assert!(lag < 10 * SECOND);
            })
            .await;
        });
        compare::assert_equal(pair.active, pair.mirror, &["hb.t"]);
    }
}

/// Children that follow their parents without an event of their own.
#[test]
fn children_without_events() {
    const CREATE: &str = "
CREATE TABLE hc.p (id INT PRIMARY KEY, v INT);
CREATE TABLE hc.c (id INT PRIMARY KEY, p INT, v INT, FOREIGN KEY (p) REFERENCES hc.p (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE hc.g (p INT, n INT, PRIMARY KEY (p, n), FOREIGN KEY (p) REFERENCES hc.c (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE hc.s (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES hc.p (id) ON DELETE SET NULL ON UPDATE CASCADE);
INSERT INTO hc.p WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 9) SELECT n, n FROM s;
INSERT INTO hc.c WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT r.id * 1000 + s.n, r.id, 0 FROM s, hc.p r WHERE r.id IN (1, 2) OR s.n < 5;
INSERT INTO hc.g SELECT id, 1 FROM hc.c;
INSERT INTO hc.g SELECT id, 2 FROM hc.c;
INSERT INTO hc.s SELECT id, p FROM hc.c
";
    for family in Family::BOTH {
        let pair = or_skip!(prepared(family, "hc").ok_or("no servers"));
        for server in [pair.active, pair.mirror] {
            for create in CREATE.split(';') {
                server.exec(create);
            }
        }
        let pair = Pair {
            start: now(pair.active, false),
            ..pair
        };
        for write in [
            "DELETE FROM hc.p WHERE id IN (1, 5)",
            "UPDATE hc.p SET id = id + 50 WHERE id IN (2, 6)",
            "DELETE FROM hc.c WHERE id = 7001",
            "UPDATE hc.c SET id = 99 WHERE id = 7002",
            // A parent that comes back without its children.
            "DELETE FROM hc.p WHERE id = 8",
            "INSERT INTO hc.p VALUES (8, 80)",
        ] {
            pair.active.exec(write);
        }
        // The mirror has executed one of them.
        pair.mirror.exec("DELETE FROM hc.p WHERE id = 5");
        let status: Arc<Status> = Arc::default();
        block_on(pair.heal(true, status.clone())).unwrap_or_else(|e| panic!("{family}: {e}"));
        let tables = ["hc.p", "hc.c", "hc.g", "hc.s"];
        let rows = compare::assert_equal(pair.active, pair.mirror, &tables);
        eprintln!("{family}: {}; {rows} rows equal", told(&status));
        assert!(status.heal.extra.load(std::sync::atomic::Ordering::Relaxed) > 2000);
    }
}
