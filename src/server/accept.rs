//! Accepts clients and hands them to the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::session::{self, Shared};
use crate::telemetry;

/// Sockets on their way to one worker. A worker takes one in microseconds; a
/// full queue makes the acceptor wait, and the kernel's backlog after it.
const QUEUE: usize = 1_024;

/// After accept failed, usually for want of file descriptors: retrying at once
/// would only burn a core until a session ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// For the farewell to a client that is one too many.
const REFUSE_LIMIT: Duration = Duration::from_secs(1);

/// Farewells being written at once; beyond it the socket is just closed.
const REFUSALS_MAX: usize = 256;

/// The packet a server answers when it has too many connections: error 1040,
/// no SQLSTATE, as nothing was negotiated yet.
const TOO_MANY: &[u8] = b"\x17\x00\x00\x00\xff\x10\x04Too many connections";

/// Threads of one worker that look host names up (backends given by name are
/// looked up at each connect, so that a name may move): a resolver that hangs
/// must not grow a thread for each client.
const RESOLVERS_MAX: usize = 8;

/// File descriptors of one session: its client and two legs.
const DESCRIPTORS_PER_SESSION: u64 = 3;

/// File descriptors of everything else.
const DESCRIPTORS_ELSE: u64 = 128;

type Handed = (std::net::TcpStream, SocketAddr, Counted);

/// Counts a connection down when its session has ended.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The threads that relay.
pub struct Workers {
    queues: Vec<mpsc::Sender<Handed>>,
    runtimes: Vec<tokio::runtime::Handle>,
    connections: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
    connections_max: usize,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start(config: &Config, shared: Arc<Shared>) -> Result<Workers, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = usize::try_from(config.limits.workers).unwrap_or(cores);
        let threads = if wanted == 0 { cores } else { wanted };
        let mut queues = Vec::with_capacity(threads);
        let mut runtimes = Vec::with_capacity(threads);
        for i in 0..threads {
            let (send, receive) = mpsc::channel(QUEUE);
            let shared = shared.clone();
            let failed = |e: std::io::Error| format!("worker {i} cannot start: {e}");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(RESOLVERS_MAX)
                .build()
                .map_err(failed)?;
            runtimes.push(runtime.handle().clone());
            std::thread::Builder::new()
                .name(format!("lockstep-{i}"))
                .spawn(move || runtime.block_on(work(receive, shared)))
                .map_err(failed)?;
            queues.push(send);
        }
        Ok(Workers {
            queues,
            runtimes,
            connections: Arc::new(AtomicUsize::new(0)),
            refusals: Arc::new(AtomicUsize::new(0)),
            connections_max: usize::try_from(config.limits.connections).unwrap_or(usize::MAX),
        })
    }

    /// Clients connected now, those still logging in included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Tasks alive on the workers.
    pub fn tasks(&self) -> usize {
        let alive = |r: &tokio::runtime::Handle| r.metrics().num_alive_tasks();
        self.runtimes.iter().map(alive).sum()
    }

    /// Accepts for ever.
    pub async fn accept(&self, listener: TcpListener) {
        let mut failing = false;
        for queue in self.queues.iter().cycle() {
            let (socket, peer) = loop {
                match listener.accept().await {
                    Ok(accepted) => break accepted,
                    Err(e) => {
                        telemetry::error("proxy", "accept");
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!("a connection cannot be accepted: {e}");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            };
            failing = false;
            self.hand(queue, socket, peer).await;
        }
    }

    async fn hand(&self, queue: &mpsc::Sender<Handed>, socket: TcpStream, peer: SocketAddr) {
        let counted = Counted(self.connections.clone());
        if self.connections.fetch_add(1, Ordering::AcqRel) >= self.connections_max {
            drop(counted);
            self.refuse(socket);
            return;
        }
        // Registered anew with the worker's runtime.
        match socket.into_std() {
            Ok(socket) => {
                let _ = queue.send((socket, peer, counted)).await;
            }
            Err(e) => tracing::error!("a socket cannot be handed over: {e}"),
        }
    }

    fn refuse(&self, mut socket: TcpStream) {
        telemetry::connection("refused_limit");
        let counted = Counted(self.refusals.clone());
        if self.refusals.fetch_add(1, Ordering::AcqRel) >= REFUSALS_MAX {
            return;
        }
        tokio::spawn(async move {
            let farewell = async {
                socket.write_all(TOO_MANY).await?;
                socket.shutdown().await
            };
            let _ = tokio::time::timeout(REFUSE_LIMIT, farewell).await;
            drop(counted);
        });
    }
}

async fn work(mut sockets: mpsc::Receiver<Handed>, shared: Arc<Shared>) {
    while let Some((socket, peer, counted)) = sockets.recv().await {
        let shared = shared.clone();
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                tokio::spawn(async move {
                    session::run(socket, peer, shared).await;
                    drop(counted);
                });
            }
            Err(e) => tracing::error!("a socket cannot be taken over: {e}"),
        }
    }
}

/// Lets the process open as many files as its limit of connections can need,
/// as far as the hard limit goes, and says so where that is not far enough.
pub fn check_descriptors(connections: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = connections * DESCRIPTORS_PER_SESSION + DESCRIPTORS_ELSE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|soft| soft >= needed) {
        return;
    }
    let wanted = Rlimit {
        current: Some(maximum.map_or(needed, |hard| hard.min(needed))),
        maximum,
    };
    if let Err(e) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!("the number of open files cannot be raised: {e}");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < needed {
        tracing::warn!(
            "limits.connections = {connections} can need {needed} open files, \
             and the process may open {allowed}: raise its hard limit (`ulimit -Hn`)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farewell_is_one_packet() {
        assert_eq!(TOO_MANY.len(), 4 + usize::from(TOO_MANY[0]));
        assert_eq!(u16::from_le_bytes([TOO_MANY[5], TOO_MANY[6]]), 1040);
    }
}
