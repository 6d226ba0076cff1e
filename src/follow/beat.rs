//! The heartbeat: a row of ours that changes on the side that is read, so that
//! its events tell how far the follower is.
//!
//! The follower passes a token once everything before it in the log is written
//! or healed, retries included. So the time between the two is the lag, idle
//! or busy; and a token committed now and passed later is a *barrier*: every
//! change committed before [`Beat::barrier`] was called is on the other side
//! when it returns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Status;
use super::mark::now_us;
use crate::rows::service::{ServiceAccount, ServiceConn, ServiceError, text};

/// Between two beats: the precision of the lag, and how often an idle log
/// moves.
const INTERVAL: Duration = Duration::from_millis(250);

/// For one beat to be committed; a barrier that takes longer fails.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

/// Beats whose time is known: a follower that is further behind (17 minutes) is
/// said to be that far behind.
const OUTSTANDING_MAX: usize = 4096;

/// The private schema's part on the side that is read.
pub(super) const CREATE: [&str; 2] = [
    "CREATE DATABASE IF NOT EXISTS lockstep",
    "CREATE TABLE IF NOT EXISTS lockstep.beat (\
     stream VARCHAR(80) CHARACTER SET ascii NOT NULL PRIMARY KEY, \
     token BIGINT UNSIGNED NOT NULL, sent_us BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB",
];

/// Which columns of `lockstep.beat` are unsigned.
pub(super) const UNSIGNED: [bool; 3] = [false, true, true];

/// Changes the row of a stream.
pub(super) fn sql(stream: &str, token: u64) -> Vec<u8> {
    let sent = now_us();
    // The server's sessions may begin without autocommit.
    format!("REPLACE INTO lockstep.beat VALUES ('{stream}', {token}, {sent}); COMMIT").into_bytes()
}

/// Why a barrier was not reached.
#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    /// Its token could not be committed.
    #[error("the heartbeat cannot be written: {0}")]
    Unwritten(#[from] ServiceError),
    /// The follower has not got there in time.
    #[error(
        "the follower is behind: not there within {} ms, {pending} rows to be retried",
        limit.as_millis()
    )]
    Late {
        /// The limit.
        limit: Duration,
        /// Rows in the retry set.
        pending: u64,
    },
}

/// How far a follower is.
#[derive(Clone, Copy, Default, Debug)]
pub struct Passed {
    /// The last token passed.
    pub token: u64,
    /// How long after it was sent.
    pub lag: Duration,
}

#[derive(Default)]
struct Sent {
    /// Not all of them are passed yet, by whichever follower is slowest.
    tokens: VecDeque<(u64, Instant)>,
    /// The first and the last of this process.
    first: Option<u64>,
    last: Option<u64>,
    /// The next is greater than this.
    above: u64,
}

/// Followers that listen, and the task that beats while there are any.
#[derive(Default)]
struct Listeners {
    count: usize,
    task: Option<JoinHandle<()>>,
}

/// The row of one side, which any number of followers listen to: what is
/// committed there for them does not grow with the routes.
pub struct Pulse {
    name: String,
    conn: tokio::sync::Mutex<ServiceConn>,
    sent: Mutex<Sent>,
    listeners: Mutex<Listeners>,
}

/// What one follower knows by a [`Pulse`], which beats as long as this lives.
pub struct Beat {
    pulse: Arc<Pulse>,
    status: Arc<Status>,
    /// The last token before this.
    since: Option<u64>,
}

/// The token that the table has.
async fn stored(conn: &mut ServiceConn, stream: &str) -> Result<u64, ServiceError> {
    for create in CREATE {
        conn.rows(create, COMMIT_LIMIT).await?;
    }
    let sql = format!("SELECT token FROM lockstep.beat WHERE stream='{stream}'");
    let rows = conn.rows(&sql, COMMIT_LIMIT).await?;
    let token = rows.first().and_then(|row| text(row, 0));
    Ok(token.and_then(|t| t.parse().ok()).unwrap_or_default())
}

impl Pulse {
    /// A row called `name` (up to 80 ASCII characters), not written yet.
    pub fn new(read: ServiceAccount, name: &str) -> Arc<Pulse> {
        Arc::new(Pulse {
            name: name.to_owned(),
            conn: tokio::sync::Mutex::new(ServiceConn::new(read)),
            sent: Mutex::default(),
            listeners: Mutex::default(),
        })
    }

    /// What followers know the row by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Commits the next token and returns it.
    async fn beat(&self) -> Result<u64, ServiceError> {
        // Held until committed: tokens are in the log in their order.
        let mut conn = self.conn.lock().await;
        let known = self.sent.lock().last;
        // Tokens only grow, over restarts and clocks that go back too: an older
        // one that a follower reads again must not pass for a newer.
        let before = match known {
            Some(last) => last,
            None => stored(&mut conn, &self.name).await?,
        };
        let token = {
            let mut sent = self.sent.lock();
            let token = now_us().max(before.max(sent.above).saturating_add(1));
            sent.first.get_or_insert(token);
            sent.last = Some(token);
            // Before it is sent, so that a server that hangs is a lag too.
            if sent.tokens.len() >= OUTSTANDING_MAX {
                sent.tokens.pop_front();
            }
            sent.tokens.push_back((token, Instant::now()));
            token
        };
        let sql = sql(&self.name, token);
        let sql = String::from_utf8_lossy(&sql);
        conn.rows(&sql, COMMIT_LIMIT).await?;
        Ok(token)
    }

    async fn run(self: Arc<Pulse>) {
        let mut failing = false;
        loop {
            match self.beat().await {
                Ok(_) => failing = false,
                // Said once per outage; the lag says it all the time.
                Err(e) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(pulse = self.name, "no heartbeat: {e}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Beat {
    /// Listens for the follower of `status`, which reads the pulse's side.
    pub fn listen(pulse: &Arc<Pulse>, status: Arc<Status>) -> Beat {
        let since = {
            let mut sent = pulse.sent.lock();
            sent.above = sent.above.max(status.passed.borrow().token);
            sent.last
        };
        let mut listeners = pulse.listeners.lock();
        listeners.count += 1;
        if listeners.task.is_none() {
            listeners.task = Some(tokio::spawn(pulse.clone().run()));
        }
        drop(listeners);
        Beat {
            pulse: pulse.clone(),
            status,
            since,
        }
    }

    /// Listens to a pulse of its own, called as the follower's stream.
    pub fn start(read: ServiceAccount, stream: &str, status: Arc<Status>) -> Beat {
        Beat::listen(&Pulse::new(read, stream), status)
    }

    /// Commits a token and waits until the follower has written and healed all
    /// that is before it in the log, retries included.
    ///
    /// # Errors
    /// The token cannot be written, or `limit` is over.
    pub async fn barrier(&self, limit: Duration) -> Result<(), BarrierError> {
        let status = &self.status;
        let mut passed = status.passed.subscribe();
        let reached = async {
            let token = self.pulse.beat().await?;
            // The sender lives in the status: it is never gone.
            let _ = passed.wait_for(|p| p.token >= token).await;
            Ok(())
        };
        match tokio::time::timeout(limit, reached).await {
            Ok(reached) => reached,
            Err(_) => Err(BarrierError::Late {
                limit,
                pending: status.pending(),
            }),
        }
    }

    /// How far behind the follower is: by the last beat it passed, or by the
    /// oldest it has not, whichever is more. None before the first of this:
    /// what an earlier follower passed says nothing of this one.
    pub fn lag(&self) -> Option<Duration> {
        let passed = *self.status.passed.borrow();
        let sent = self.pulse.sent.lock();
        let begun = match self.since {
            Some(before) => passed.token > before,
            None => sent.first.is_some_and(|first| passed.token >= first),
        };
        if !begun {
            return None;
        }
        let next = sent.tokens.partition_point(|(t, _)| *t <= passed.token);
        let waiting = sent.tokens.get(next).map(|(_, sent)| sent.elapsed());
        waiting.max(Some(passed.lag))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let mut listeners = self.pulse.listeners.lock();
        listeners.count = listeners.count.saturating_sub(1);
        if listeners.count == 0
            && let Some(task) = listeners.task.take()
        {
            task.abort();
        }
    }
}
