//! Who waits for whom on the source, ten times a second.

use crate::support::proc::block_on;
use crate::support::servers::SERVICE;
use crate::support::{Family, Server};
use mysql_async::prelude::Queryable;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(100);

/// What was seen of the route's tables.
#[derive(Debug, Default)]
pub struct Waits {
    /// How often was looked.
    pub samples: u32,
    /// Lock waits of anybody.
    pub all: u32,
    /// Behind the service account.
    pub ours: u32,
}

impl Waits {
    pub fn assert_none_is_ours(&self) {
        assert!(self.samples > 10, "{self}");
        assert_eq!(self.ours, 0, "{self}");
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waits { samples, all, ours } = self;
        write!(
            f,
            "{all} lock waits in {samples} samples, {ours} of them behind the service account"
        )
    }
}

pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Waits>,
}

impl Sampler {
    pub fn start(server: &'static Server, prefix: &str) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let sql = sql(server.family(), prefix);
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || block_on(sample(server, sql, until)));
        Sampler { stop, thread }
    }

    pub fn stop(self) -> Waits {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler")
    }
}

/// The accounts behind which somebody waits for a row or a table of ours.
fn sql(family: Family, prefix: &str) -> String {
    match family {
        Family::MySql => format!(
            "SELECT t.PROCESSLIST_USER FROM performance_schema.data_lock_waits w \
             JOIN performance_schema.data_locks l \
             ON l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID AND l.ENGINE = w.ENGINE \
             JOIN performance_schema.threads t ON t.THREAD_ID = w.BLOCKING_THREAD_ID \
             WHERE l.OBJECT_SCHEMA = 't' AND LEFT(l.OBJECT_NAME, {}) = '{prefix}'",
            prefix.len()
        ),
        Family::MariaDb => format!(
            "SELECT p.USER FROM information_schema.INNODB_LOCK_WAITS w \
             JOIN information_schema.INNODB_LOCKS l ON l.lock_id = w.requested_lock_id \
             JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id \
             JOIN information_schema.PROCESSLIST p ON p.ID = b.trx_mysql_thread_id \
             WHERE INSTR(l.lock_table, '`{prefix}') > 0"
        ),
    }
}

async fn sample(server: &Server, sql: String, stop: Arc<AtomicBool>) -> Waits {
    let mut conn = server.conn().await;
    let mut waits = Waits::default();
    while !stop.load(Ordering::Relaxed) {
        let users: Vec<Option<String>> = conn.query(sql.as_str()).await.expect("lock waits");
        waits.samples += 1;
        for user in users.into_iter().flatten() {
            waits.all += 1;
            waits.ours += u32::from(user == SERVICE.0);
        }
        tokio::time::sleep(EVERY).await;
    }
    waits
}
