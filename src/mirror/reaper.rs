//! Ends discarded legs, off the path.
//!
//! A leg whose answer was late is never used again: after KILL QUERY the next
//! statement on it could commit by itself (protocol-review C3). Its server may
//! be frozen and accept nothing now, so a task of its own tries until the
//! server takes the KILL CONNECTION or says that the thread is gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::{mpsc, oneshot};

use crate::Side;

/// Legs waiting to be ended, per side: one for each client connection a
/// server usually allows. Beyond it the server's own detection of the closed
/// socket has to do.
const QUEUE_MAX: usize = 1024;

/// One attempt's limit.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Pause between attempts, and how many there are: an hour in all.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const ATTEMPTS_MAX: u32 = 600;

/// How long a wait for a killed thread to be gone polls the process list.
const GONE_POLL: Duration = Duration::from_millis(20);

/// Opens a connection of the service account; None if there is none to be had.
pub type Connect =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Conn>> + Send>> + Send + Sync>;

struct Job {
    thread_id: u32,
    gone: Option<oneshot::Sender<()>>,
}

/// Handle of the two tasks.
#[derive(Clone)]
pub struct Reaper {
    queues: [mpsc::Sender<Job>; 2],
}

impl Reaper {
    /// Starts a task per side (source, target) on the current runtime.
    pub fn start(connect: [Connect; 2]) -> Reaper {
        Reaper {
            queues: connect.map(|connect| {
                let (queue, jobs) = mpsc::channel(QUEUE_MAX);
                tokio::spawn(work(connect, jobs));
                queue
            }),
        }
    }

    /// Ends a backend connection some time soon.
    pub fn kill(&self, side: Side, thread_id: u32) {
        let job = Job {
            thread_id,
            gone: None,
        };
        if self.queues[side.index()].try_send(job).is_err() {
            tracing::warn!(%side, thread_id, "too many legs to end; this one is left to its server");
        }
    }

    /// Ends a backend connection and waits, at most `limit`, until it is out
    /// of the process list: its transaction is then over. False on expiry.
    pub async fn kill_and_wait(&self, side: Side, thread_id: u32, limit: Duration) -> bool {
        let (gone, wait) = oneshot::channel();
        let job = Job {
            thread_id,
            gone: Some(gone),
        };
        if self.queues[side.index()].try_send(job).is_err() {
            return false;
        }
        matches!(tokio::time::timeout(limit, wait).await, Ok(Ok(())))
    }
}

async fn work(connect: Connect, mut jobs: mpsc::Receiver<Job>) {
    let mut connection: Option<Conn> = None;
    'jobs: while let Some(job) = jobs.recv().await {
        for _ in 0..ATTEMPTS_MAX {
            let attempt = tokio::time::timeout(ATTEMPT, end(&connect, &mut connection, &job)).await;
            match attempt {
                Ok(Ok(())) => break,
                Ok(Err(mysql_async::Error::Server(e))) if is_final(e.code) => {
                    let thread = job.thread_id;
                    tracing::warn!(
                        thread,
                        "a connection cannot be ended: {} {}",
                        e.code,
                        e.message
                    );
                    // Whoever waits for its end is not told of one.
                    continue 'jobs;
                }
                _ => {}
            }
            // Dropped, not disconnected: a frozen server would hold us here.
            connection = None;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        if let Some(gone) = job.gone {
            let _ = gone.send(());
        }
    }
}

/// Whether the server would answer the same the next time: the account may not
/// end this one. The others behind it do not wait for that.
fn is_final(code: u16) -> bool {
    const DENIED: [u16; 4] = [1044, 1045, 1095, 1227];
    DENIED.contains(&code)
}

async fn end(
    connect: &Connect,
    connection: &mut Option<Conn>,
    job: &Job,
) -> Result<(), mysql_async::Error> {
    if connection.is_none() {
        *connection = connect().await;
    }
    let Some(conn) = connection else {
        return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
    };
    match conn
        .query_drop(format!("KILL CONNECTION {}", job.thread_id))
        .await
    {
        Ok(()) => {}
        // 1094: no such thread, which is what was wanted.
        Err(mysql_async::Error::Server(e)) if e.code == 1094 => return Ok(()),
        Err(e) => return Err(e),
    }
    while job.gone.is_some() {
        let left: Option<u64> = conn
            .query_first(format!(
                "SELECT 1 FROM information_schema.processlist WHERE id = {}",
                job.thread_id
            ))
            .await?;
        if left.is_none() {
            break;
        }
        tokio::time::sleep(GONE_POLL).await;
    }
    Ok(())
}
