//! Clients whose writes are mirrored as DESIGN §5 says: A executes, M executes,
//! A commits, M commits. A tenth of M's part is lost, for the follower to heal.

use crate::support::Server;
use crate::support::proc::runtime;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const CLIENTS: u64 = 16;

/// Rows that the clients write; what is planted comes behind.
pub const BUSY: u64 = 4_000;

/// Numbers from 1 to `n` as `q.n`, for INSERT … SELECT.
pub fn numbers(n: u64) -> String {
    format!(
        "(SELECT x.n * 1000 + y.n + 1 n FROM \
         (WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s) x, \
         (WITH RECURSIVE s AS (SELECT 0 n UNION ALL SELECT n + 1 FROM s WHERE n < 999) SELECT n FROM s) y) q \
         WHERE q.n <= {n}",
        n / 1000
    )
}

#[derive(Default)]
pub struct Load {
    stop: AtomicBool,
    running: AtomicU64,
    /// Transactions committed on the active side.
    pub done: AtomicU64,
}

/// Stops the clients, a failed assertion included.
pub struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Load {
    pub fn start<'s>(
        &'s self,
        scope: &'s std::thread::Scope<'s, '_>,
        active: &'s Server,
        mirror: &'s Server,
    ) {
        self.running.store(CLIENTS, Ordering::Relaxed);
        for seed in 0..CLIENTS {
            scope.spawn(move || {
                runtime().block_on(self.client(active, mirror, seed));
                self.running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    pub fn stop_on_drop(&self) -> StopOnDrop<'_> {
        StopOnDrop(&self.stop)
    }

    /// Stops the clients and waits for them.
    pub async fn stopped(&self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.running.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn client(&self, active: &Server, mirror: &Server, seed: u64) {
        let (mut a, mut m) = (active.conn().await, mirror.conn().await);
        for conn in [&mut a, &mut m] {
            let waits = conn.query_drop("SET SESSION innodb_lock_wait_timeout = 1");
            waits.await.expect("lock wait");
        }
        let mut state = seed * 7919 + 1;
        let mut dice = move |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        while !self.stop.load(Ordering::Relaxed) {
            let sql = statement(&mut dice);
            if mirrored(&mut a, &mut m, &sql, dice(10) == 0).await {
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn statement(dice: &mut impl FnMut(u64) -> u64) -> String {
    let (x, y) = (dice(BUSY - 1) + 1, dice(1000));
    let id = x * 3;
    match dice(12) {
        0 => format!("UPDATE cp.orders SET c = 'c{y}', n = n + 1 WHERE id = {id}"),
        1 => format!(
            "UPDATE cp.orders SET d = {y} / 7e0, dt = dt + INTERVAL 1 SECOND WHERE id = {id}"
        ),
        2 => format!("DELETE FROM cp.orders WHERE id = {id}"),
        3 => format!(
            "INSERT INTO cp.orders (id, c, price, dt) VALUES ({id}, 'new', {y}, '2026-02-02')"
        ),
        4 => format!("UPDATE cp.words SET w = UPPER(w) WHERE w = 'w{x}'"),
        5 => format!("UPDATE cp.words SET w = LOWER(w) WHERE w = 'w{x}'"),
        6 => format!(
            "UPDATE cp.pairs SET b = 'k{x}a' WHERE a = {} AND b = 'k{x}'",
            x % 700
        ),
        7 => format!(
            "UPDATE cp.pairs SET b = 'k{x}' WHERE a = {} AND b = 'k{x}a'",
            x % 700
        ),
        8 => format!("DELETE FROM cp.bytes WHERE k = 'key{x:08}'"),
        9 => format!("INSERT INTO cp.bytes VALUES ('key{x:08}', {x})"),
        // To and fro between two states.
        10 => "UPDATE cp.hot SET v = 1 - v WHERE id = 1".to_string(),
        _ => "UPDATE cp.hot SET v = v + 1 WHERE id = 2".to_string(),
    }
}

async fn mirrored(a: &mut Conn, m: &mut Conn, sql: &str, lost: bool) -> bool {
    a.query_drop("BEGIN").await.expect("BEGIN");
    if a.query_drop(sql).await.is_err() || a.affected_rows() == 0 {
        a.query_drop("ROLLBACK").await.expect("ROLLBACK");
        return false;
    }
    m.query_drop("BEGIN").await.expect("BEGIN");
    let copied = !lost && m.query_drop(sql).await.is_ok();
    let committed = a.query_drop("COMMIT").await.is_ok();
    let end = if copied && committed {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    m.query_drop(end).await.expect("the mirror's end");
    committed
}
