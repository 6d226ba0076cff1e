//! Writes of the less usual kinds, all through the proxy: LOAD DATA, several
//! statements in one, prepared ones, a statement of every deferred sort, and
//! definitions.

use crate::support::proc::{block_on, runtime};
use crate::support::{Proxy, Server};
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Between two writes: comparisons and flips run beside them on two cores.
const PAUSE: Duration = Duration::from_millis(5);

pub struct More {
    lines: String,
    many: String,
    rows: String,
}

pub struct Running {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<u64>>,
}

impl Running {
    /// How many writes there were.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        clients
            .map(|c| block_on(c).expect("a client panicked"))
            .sum()
    }
}

impl More {
    pub fn new(prefix: &str) -> More {
        let name = |name: &str| format!("t.{prefix}m_{name}");
        More {
            lines: name("lines"),
            many: name("many"),
            rows: name("rows"),
        }
    }

    pub fn all(&self) -> Vec<&str> {
        vec![&self.lines, &self.many, &self.rows]
    }

    pub fn create(&self, server: &Server) {
        for table in self.all() {
            server.exec(&format!(
                "DROP TABLE IF EXISTS {table}; \
                 CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, v BIGINT NOT NULL, t TEXT); \
                 INSERT INTO {table} (v) VALUES (1), (2), (3), (4), (5), (6), (7), (8)"
            ));
        }
    }

    pub fn start(&self, proxy: &Proxy) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let opts = || proxy.opts(Some("t"));
        let flag = || Arc::clone(&stop);
        let clients = vec![
            runtime().spawn(lines(opts(), self.lines.clone(), flag())),
            runtime().spawn(many(opts(), self.many.clone(), flag())),
            runtime().spawn(many(opts(), self.many.clone(), flag())),
            runtime().spawn(rows(opts(), self.rows.clone(), flag())),
            runtime().spawn(rows(opts(), self.rows.clone(), flag())),
        ];
        Running { stop, clients }
    }
}

/// A file of one piece.
struct File(Option<Bytes>);

impl futures_core::Stream for File {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

async fn lines(opts: OptsBuilder, table: String, stop: Arc<AtomicBool>) -> u64 {
    let mut conn = Conn::new(opts).await.expect("a connection");
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let data = format!("{done}\tone\n{done}\ttwo\n");
        conn.set_infile_handler(async move { Ok(Box::pin(File(Some(data.into()))) as _) });
        let sql = format!("LOAD DATA LOCAL INFILE 'x' INTO TABLE {table} (v, t)");
        conn.query_drop(sql).await.expect("LOAD DATA");
        done += 1;
        tokio::time::sleep(4 * PAUSE).await;
    }
    done
}

async fn many(opts: OptsBuilder, table: String, stop: Arc<AtomicBool>) -> u64 {
    let mut conn = Conn::new(opts).await.expect("a connection");
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = 1 + done % 8;
        let sql = format!(
            "UPDATE {table} SET v = v + 1 WHERE id = {id}; \
             INSERT INTO {table} (v, t) VALUES ({done}, UUID())"
        );
        // Two such clients can deadlock; then the first has committed alone.
        let _ = conn.query_drop(sql).await;
        done += 1;
        tokio::time::sleep(PAUSE).await;
    }
    done
}

async fn rows(opts: OptsBuilder, table: String, stop: Arc<AtomicBool>) -> u64 {
    let mut conn = Conn::new(opts).await.expect("a connection");
    let mut done = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let id = 1 + done % 8;
        let written = match done % 7 {
            0 => {
                let sql = format!("UPDATE {table} SET v = v + ? WHERE id = ?");
                conn.exec_drop(sql, (done, id)).await
            }
            1 => {
                let sql = format!("INSERT INTO {table} (v, t) VALUES (?, REPEAT('x', ?))");
                conn.exec_drop(sql, (done, done % 3000)).await
            }
            2 => {
                let sql = format!("UPDATE {table} SET v = v + 1 ORDER BY id LIMIT 2");
                conn.query_drop(sql).await
            }
            3 => {
                let sql = format!(
                    "INSERT INTO {table} (v, t) SELECT v, 's' FROM {table} WHERE id = {id}"
                );
                conn.query_drop(sql).await
            }
            4 => {
                let sql = format!(
                    "DELETE FROM {table} WHERE id > 1000 AND id % 5 = {}",
                    id % 5
                );
                conn.query_drop(sql).await
            }
            5 => {
                let sql = format!("REPLACE INTO {table} VALUES ({id}, {done}, NULL)");
                conn.query_drop(sql).await
            }
            _ => {
                let _ = conn.query_drop("BEGIN").await;
                let sql = format!("UPDATE {table} SET t = NOW(6) WHERE id = {id}");
                let first = conn.query_drop(sql).await;
                let sql = format!("UPDATE {table} SET v = ? WHERE id = ?");
                let _ = conn.exec_drop(sql, (done, id)).await;
                let end = if done.is_multiple_of(2) {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                };
                first.and(conn.query_drop(end).await)
            }
        };
        // Deadlocks are the application's own.
        if written.is_err() {
            let _ = conn.query_drop("ROLLBACK").await;
        }
        done += 1;
        tokio::time::sleep(PAUSE).await;
    }
    done
}
