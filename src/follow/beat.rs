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

/// Beats that were sent and not passed yet whose time is known: with more, the
/// oldest is what the lag is measured by.
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

struct Outstanding {
    sent: VecDeque<(u64, Instant)>,
    /// None before the first: what the table has is not known.
    last: Option<u64>,
    /// The first token of ours.
    first: u64,
}

struct Shared {
    stream: String,
    status: Arc<Status>,
    conn: tokio::sync::Mutex<ServiceConn>,
    outstanding: Mutex<Outstanding>,
}

/// Beats as long as it lives.
pub struct Beat {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
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

impl Shared {
    /// Commits the next token and returns it.
    async fn beat(&self) -> Result<u64, ServiceError> {
        // Held until committed: tokens are in the log in their order.
        let mut conn = self.conn.lock().await;
        let known = self.outstanding.lock().last;
        // Tokens only grow, over restarts and clocks that go back too: an older
        // one that the follower reads again must not pass for a newer.
        let before = match known {
            Some(last) => last,
            None => stored(&mut conn, &self.stream).await?,
        };
        let token = {
            let mut outstanding = self.outstanding.lock();
            let before = before.max(self.status.passed.borrow().token);
            let token = now_us().max(before.saturating_add(1));
            if outstanding.last.replace(token).is_none() {
                outstanding.first = token;
            }
            // Before it is sent, so that a server that hangs is a lag too.
            if outstanding.sent.len() < OUTSTANDING_MAX {
                outstanding.sent.push_back((token, Instant::now()));
            }
            token
        };
        let sql = sql(&self.stream, token);
        let sql = String::from_utf8_lossy(&sql);
        conn.rows(&sql, COMMIT_LIMIT).await?;
        Ok(token)
    }
}

impl Beat {
    /// Starts to beat on the side that `status`'s follower reads.
    pub fn start(read: ServiceAccount, stream: &str, status: Arc<Status>) -> Beat {
        let shared = Arc::new(Shared {
            stream: stream.to_owned(),
            status,
            conn: tokio::sync::Mutex::new(ServiceConn::new(read)),
            outstanding: Mutex::new(Outstanding {
                sent: VecDeque::new(),
                last: None,
                first: u64::MAX,
            }),
        });
        let beating = shared.clone();
        let task = tokio::spawn(async move {
            let mut failing = false;
            loop {
                match beating.beat().await {
                    Ok(_) => failing = false,
                    // Said once per outage; the lag says it all the time.
                    Err(e) if !std::mem::replace(&mut failing, true) => {
                        tracing::warn!(stream = beating.stream, "no heartbeat: {e}");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Beat { shared, task }
    }

    /// Commits a token and waits until the follower has written and healed all
    /// that is before it in the log, retries included.
    ///
    /// # Errors
    /// The token cannot be written, or `limit` is over.
    pub async fn barrier(&self, limit: Duration) -> Result<(), BarrierError> {
        let status = &self.shared.status;
        let mut passed = status.passed.subscribe();
        let reached = async {
            let token = self.shared.beat().await?;
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
        let passed = *self.shared.status.passed.borrow();
        let mut outstanding = self.shared.outstanding.lock();
        while outstanding
            .sent
            .front()
            .is_some_and(|(token, _)| *token <= passed.token)
        {
            outstanding.sent.pop_front();
        }
        if passed.token < outstanding.first {
            return None;
        }
        let waiting = outstanding.sent.front().map(|(_, sent)| sent.elapsed());
        waiting.max(Some(passed.lag))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.task.abort();
    }
}
