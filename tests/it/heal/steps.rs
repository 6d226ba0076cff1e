//! Held transactions: the healer between the steps of a mirrored write, and a
//! mirrored write between the steps of the healer. Nothing here is left to
//! chance; every case is one interleaving.

use super::{Pair, told};
use crate::binlog::now;
use crate::follow::{account, catalog};
use crate::or_skip;
use crate::support::proc::{block_on, runtime};
use crate::support::relay::{Mode, Relay};
use crate::support::servers::{APP, ServerOptions, shared};
use crate::support::{Family, Server, compare};
use lockstep::Side;
use lockstep::copy::select::Bound;
use lockstep::follow::Status;
use lockstep::follow::batch::TableName;
use lockstep::follow::heal::{Healed, Healer, Kind};
use lockstep::follow::tables::{CatalogTables, Followed, Meaning, Tables};
use lockstep::follow::writer::Worker;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A pair with one table, sessions of the application on both sides, and a
/// healer.
struct Scene {
    active: &'static Server,
    mirror: &'static Server,
    relay: Relay,
    table: Arc<Followed>,
    name: TableName,
    healer: Healer,
    a: Conn,
    m: Conn,
}

const TABLE: &str = "hs.t";
const STREAM: &str = "steps/forward";

async fn app(server: &Server) -> Conn {
    let mut conn = Conn::new(server.opts(APP.0, APP.1, None))
        .await
        .expect("login");
    run(&mut conn, "SET SESSION innodb_lock_wait_timeout = 5").await;
    conn
}

async fn run(conn: &mut Conn, sql: &str) {
    conn.query_drop(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
}

impl Scene {
    async fn new(family: Family) -> Option<Scene> {
        let (active, mirror) = (shared(family, 0).ok()?, shared(family, 1).ok()?);
        for server in [active, mirror] {
            let mut conn = server.conn().await;
            for sql in [
                "DROP DATABASE IF EXISTS hs",
                "CREATE DATABASE hs",
                "CREATE TABLE hs.t (id INT PRIMARY KEY, u INT UNIQUE, v INT NOT NULL)",
                &format!("GRANT ALL ON hs.* TO '{}'@'%'", APP.0),
            ] {
                run(&mut conn, sql).await;
            }
        }
        let tables = CatalogTables::new(
            catalog(active, mirror, "hs").await,
            Side::Source,
            |db: &[u8], _: &[u8]| db == b"hs",
        );
        let name = TableName {
            schema: b"hs".to_vec(),
            table: b"t".to_vec(),
        };
        let Meaning::Follow(table) = tables.meaning(&name) else {
            panic!("the table is not followed");
        };
        Worker::new(account(mirror, Side::Target), STREAM, 0)
            .prepare()
            .await
            .expect("schema");
        let to = active.address();
        let relay = tokio::task::spawn_blocking(move || Relay::start(&to));
        let relay = relay.await.expect("a relay");
        let mut through = account(active, Side::Source);
        through.address = relay.address();
        let healer = Healer::new(through, account(mirror, Side::Target), STREAM, 7)
            .holding(Duration::from_secs(4));
        let (a, m) = (app(active).await, app(mirror).await);
        Some(Scene {
            active,
            mirror,
            relay,
            table,
            name,
            healer,
            a,
            m,
        })
    }

    /// The table's only rows, `(id, u, v)` lists.
    async fn rows(&mut self, active: &str, mirror: &str) {
        for (server, rows) in [(self.active, active), (self.mirror, mirror)] {
            let mut conn = server.conn().await;
            run(&mut conn, "DELETE FROM hs.t").await;
            if !rows.is_empty() {
                run(&mut conn, &format!("INSERT INTO hs.t VALUES {rows}")).await;
            }
        }
    }

    async fn heal(&mut self, id: i32) -> Healed {
        let key = Bound(vec![id.to_string().into_bytes()]);
        let healed = self.healer.heal(&self.name, &self.table, &[key]).await;
        healed.expect("healed").pop().expect("one")
    }

    async fn differs(&self) -> Option<String> {
        let (active, mirror) = (self.active, self.mirror);
        let diffs = tokio::task::spawn_blocking(move || compare::compare(active, mirror, &[TABLE]));
        let diff = diffs.await.expect("compared").pop().expect("one table");
        (diff.different > 0).then(|| diff.to_string())
    }

    async fn assert_equal(&self, what: &str) {
        if let Some(diff) = self.differs().await {
            panic!("{}: {what}: {diff}", self.active.family());
        }
    }
}

fn each_family(test: impl AsyncFn(&mut Scene)) {
    // The scene is one for all.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for family in Family::BOTH {
        or_skip!(shared(family, 0));
        runtime().block_on(async {
            let mut scene = Scene::new(family).await.expect("servers");
            test(&mut scene).await;
        });
    }
}

/// What the mirror has, where the active side has (1, 1, 10) or nothing.
const STATES: [(&str, &str, &str); 5] = [
    ("equal", "(1,1,10)", "(1,1,10)"),
    ("changed", "(1,1,10)", "(1,1,7)"),
    ("missing", "(1,1,10)", ""),
    ("extra", "", "(1,1,7)"),
    ("none", "", ""),
];

const WRITES: [&str; 4] = [
    "UPDATE hs.t SET v = v + 1 WHERE id = 1",
    "DELETE FROM hs.t WHERE id = 1",
    "INSERT INTO hs.t VALUES (1, 1, 1) ON DUPLICATE KEY UPDATE v = v + 1",
    "REPLACE INTO hs.t VALUES (1, 2, 3)",
];

/// The healer comes before, after, and between the four steps of a mirrored
/// write, whatever the mirror had.
#[test]
fn the_healer_between_the_steps_of_a_write() {
    each_family(async |scene| {
        for (state, active, mirror) in STATES {
            for write in WRITES {
                for point in 0..=4 {
                    scene.rows(active, mirror).await;
                    between(
                        scene,
                        write,
                        point,
                        &format!("{state}, {write}, at {point}"),
                    )
                    .await;
                }
            }
        }
    });
}

async fn between(scene: &mut Scene, write: &str, point: usize, what: &str) {
    run(&mut scene.a, "BEGIN").await;
    run(&mut scene.m, "BEGIN").await;
    // At 2 and 3 the mirror's part is open.
    let (mut healed, mut mirrored, mut hit) = (None, true, false);
    for step in 0..4 {
        if point == step {
            healed = Some(scene.heal(1).await);
        }
        match step {
            0 => {
                run(&mut scene.a, write).await;
                mirrored = scene.a.affected_rows() > 0;
            }
            1 if mirrored => {
                run(&mut scene.m, write).await;
                hit = scene.m.affected_rows() > 0;
            }
            2 => run(&mut scene.a, "COMMIT").await,
            3 => run(&mut scene.m, "COMMIT").await,
            _ => {}
        }
    }
    let healed = match healed {
        Some(healed) => healed,
        None => scene.heal(1).await,
    };
    if hit && matches!(point, 2 | 3) {
        assert_eq!(healed, Healed::Busy, "{what}");
    }
    if matches!(point, 0 | 1 | 4) {
        // On top of what was healed the write makes both equal by itself.
        assert_ne!(healed, Healed::Busy, "{what}");
        scene.assert_equal(what).await;
    }
    // Its event: nothing of it is left open.
    let healed = scene.heal(1).await;
    assert!(
        matches!(healed, Healed::Equal | Healed::Repaired(_)),
        "{what}: {healed:?}"
    );
    scene.assert_equal(what).await;
}

/// Rows that are met locked can be waited for.
#[test]
fn a_lock_is_waited_for() {
    each_family(async |scene| {
        let key = Bound(vec![b"1".to_vec()]);
        for (state, active, mirror) in STATES {
            scene.rows(active, mirror).await;
            run(&mut scene.m, "BEGIN").await;
            run(
                &mut scene.m,
                "SELECT * FROM hs.t WHERE id <= 1 FOR UPDATE; SELECT 1",
            )
            .await;
            let table = scene.table.clone();
            let waits = scene.healer.wait(&scene.name, &table, &key);
            let release = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                run(&mut scene.m, "COMMIT").await;
            };
            let (healed, ()) = tokio::join!(waits, release);
            let mut healed = healed.expect("healed");
            if healed == Healed::Busy && mirror.is_empty() {
                // The gap of another is not waited for.
                healed = scene.heal(1).await;
            }
            assert!(
                matches!(healed, Healed::Equal | Healed::Repaired(_)),
                "{state}: {healed:?}"
            );
            scene.assert_equal(state).await;
        }
        // Not for ever; and then nothing is held.
        scene.rows("(1,1,10)", "(1,1,7)").await;
        run(&mut scene.m, "BEGIN").await;
        run(&mut scene.m, "UPDATE hs.t SET v = 8 WHERE id = 1").await;
        let table = scene.table.clone();
        let healed = scene.healer.wait(&scene.name, &table, &key).await;
        assert_eq!(healed.expect("healed"), Healed::Busy);
        run(&mut scene.m, "COMMIT").await;
        run(&mut scene.m, "UPDATE hs.t SET v = 9 WHERE id = 1").await;
        assert_eq!(scene.heal(1).await, Healed::Repaired(Kind::Changed));
        // It does not wait where it was not told to.
        run(&mut scene.m, "BEGIN").await;
        run(&mut scene.m, "UPDATE hs.t SET v = 8 WHERE id = 1").await;
        assert_eq!(scene.heal(1).await, Healed::Busy);
        run(&mut scene.m, "ROLLBACK").await;
        scene.assert_equal("at the end").await;
    });
}

/// Equal as plain reads see it, while a commit is on its way to the mirror.
#[test]
fn a_commit_on_its_way_is_not_equal() {
    each_family(async |scene| {
        scene.rows("(1,1,10)", "(1,1,10)").await;
        run(&mut scene.m, "BEGIN").await;
        for conn in [&mut scene.a, &mut scene.m] {
            run(conn, "UPDATE hs.t SET v = 11 WHERE id = 1").await;
        }
        // The active side has committed; now a write that the mirror misses.
        run(&mut scene.a, "UPDATE hs.t SET v = 10 WHERE id = 1").await;
        scene.assert_equal("before the mirror's commit").await;
        assert_eq!(scene.heal(1).await, Healed::Busy);
        run(&mut scene.m, "COMMIT").await;
        assert_eq!(scene.heal(1).await, Healed::Repaired(Kind::Changed));
        scene.assert_equal("after it").await;

        // The same with a row that comes and goes.
        run(&mut scene.m, "BEGIN").await;
        for conn in [&mut scene.a, &mut scene.m] {
            run(conn, "INSERT INTO hs.t VALUES (2, 2, 2)").await;
        }
        run(&mut scene.a, "DELETE FROM hs.t WHERE id = 2").await;
        assert_eq!(scene.heal(2).await, Healed::Busy);
        run(&mut scene.m, "COMMIT").await;
        assert_eq!(scene.heal(2).await, Healed::Repaired(Kind::Extra));
        scene.assert_equal("after it").await;
    });
}

/// Steps of a write while the healer has the mirror's row locked. `late`: it
/// reads the active side after them, else before.
async fn while_held(scene: &mut Scene, mirror: &str, write: &str, (mirrored, late): (bool, bool)) {
    let what = format!("{mirror}, {write}, mirrored {mirrored}, late {late}");
    let what = what.as_str();
    eprintln!("{}: {what}", scene.active.family());
    scene.heal(1000).await;
    scene.relay.set(if late {
        Mode::Silent
    } else {
        Mode::Slow(Duration::from_millis(250))
    });
    let key = Bound(vec![b"1".to_vec()]);
    let keys = [&key];
    let ended = Cell::new(false);
    let healing = async {
        let healed = scene.healer.repair(&scene.name, &scene.table, &keys).await;
        ended.set(true);
        healed
    };
    let (relay, a, m) = (&scene.relay, &mut scene.a, &mut scene.m);
    let asked = relay.asked();
    let writing = async {
        // It asks the active side once it has locked the mirror's row. To try
        // the lock instead would make a healer that comes then find it busy. A
        // slow machine may miss the moment: then the healer comes first.
        while !ended.get() && relay.asked() == asked {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        run(a, "BEGIN").await;
        run(m, "BEGIN").await;
        run(a, write).await;
        if !mirrored {
            run(a, "COMMIT").await;
        }
        let thaw = async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            if late {
                relay.set(Mode::Pass);
            }
        };
        let part = async {
            if mirrored {
                // Never the victim of a deadlock with the healer.
                run(m, write).await;
            }
        };
        tokio::join!(thaw, part);
        if mirrored {
            run(a, "COMMIT").await;
        }
        run(m, "COMMIT").await;
    };
    let (healed, ()) = tokio::join!(healing, writing);
    relay.set(Mode::Pass);
    let healed = healed.expect("healed").pop().expect("one");
    // The healer gives way to another that inserts the row that the mirror has
    // not, and to one that changes it on the active side before it is committed.
    let victim = healed == Healed::Busy;
    assert!(!victim || mirror.is_empty(), "{what}");
    // A statement that finds nothing there does not wait: its event is what
    // heals it.
    let found = !mirror.is_empty() || write.contains("INTO");
    if found && (mirrored || late) && !victim {
        scene.assert_equal(what).await;
    }
    scene.heal(1).await;
    scene.assert_equal(what).await;
}

#[test]
fn a_write_between_the_steps_of_the_healer() {
    each_family(async |scene| {
        for (_, active, mirror) in STATES {
            for write in &WRITES[..3] {
                if active.is_empty() && !write.contains("INTO") {
                    continue;
                }
                for how in [(true, true), (true, false), (false, true), (false, false)] {
                    scene.rows(active, mirror).await;
                    while_held(scene, mirror, write, how).await;
                }
            }
        }
    });
}

/// Unique values that moved among rows, some of which the healer is not asked
/// for.
#[test]
fn unique_values_in_other_rows() {
    each_family(async |scene| {
        let cases = [
            ("(1,1,0),(2,2,0)", "(1,2,0),(2,1,0)"),
            ("(1,1,0),(2,2,0),(3,3,0)", "(1,2,0),(2,3,0),(3,1,0)"),
            ("(1,1,0)", "(2,1,0)"),
            ("(2,1,0)", "(1,1,0),(2,5,0)"),
            ("(1,3,0),(2,NULL,0)", "(1,NULL,0),(2,1,0),(3,3,0)"),
        ];
        for (active, mirror) in cases {
            scene.rows(active, mirror).await;
            // Whichever comes first.
            for id in [1, 2, 3] {
                let healed = scene.heal(id).await;
                assert!(
                    matches!(healed, Healed::Equal | Healed::Repaired(_)),
                    "{healed:?}"
                );
            }
            scene.assert_equal(active).await;
        }
        // One of them is in a transaction: nothing is taken away from it.
        scene.rows("(1,1,0),(2,2,0)", "(1,2,0),(2,1,0)").await;
        run(&mut scene.m, "BEGIN").await;
        run(&mut scene.m, "UPDATE hs.t SET v = v WHERE id = 2").await;
        assert_eq!(scene.heal(1).await, Healed::Busy);
        run(&mut scene.m, "ROLLBACK").await;
        assert_eq!(scene.heal(1).await, Healed::Repaired(Kind::Changed));
        scene.assert_equal("after it").await;
    });
}

/// An event comes before its row can be read (semi-sync): the mirror still gets
/// it.
#[test]
fn an_event_that_is_not_readable_yet() {
    for family in Family::BOTH {
        let active = or_skip!(Server::start(family, ServerOptions::default()));
        let mirror = or_skip!(Server::start(family, ServerOptions::default()));
        for server in [&active, &mirror] {
            server.exec("CREATE DATABASE hv; CREATE TABLE hv.t (id INT PRIMARY KEY, v INT)");
            server.exec("INSERT INTO hv.t VALUES (1, 1), (2, 2)");
        }
        let pair = Pair {
            active: &active,
            mirror: &mirror,
            schema: "hv",
            stream: "semi/forward",
            start: now(&active, false),
        };
        // Each commit waits for a replica that is not there, its events being
        // in the log already.
        match family {
            Family::MariaDb => active.exec(
                "SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC, GLOBAL rpl_semi_sync_master_timeout = 5000, GLOBAL rpl_semi_sync_master_enabled = 1",
            ),
            Family::MySql => {
                active.exec("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'");
                active.exec(
                    "SET GLOBAL rpl_semi_sync_source_wait_point = AFTER_SYNC, GLOBAL rpl_semi_sync_source_timeout = 5000, GLOBAL rpl_semi_sync_source_enabled = 1",
                );
            }
        }
        let status: Arc<Status> = Arc::default();
        block_on(async {
            let write = async {
                let mut conn = active.conn().await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                run(&mut conn, "UPDATE hv.t SET v = 9").await;
            };
            let beaten = async {
                write.await;
                let beat = pair.beat(&status);
                beat.barrier(Duration::from_secs(30))
                    .await
                    .expect("a barrier");
            };
            tokio::select! {
                ended = pair.heal(false, status.clone()) => panic!("{family}: {ended:?}"),
                () = beaten => {}
            }
        });
        compare::assert_equal(&active, &mirror, &["hv.t"]);
        eprintln!("{family}: {}", told(&status));
        assert!(
            status
                .heal
                .watermarks
                .load(std::sync::atomic::Ordering::Relaxed)
                > 0
        );
    }
}
