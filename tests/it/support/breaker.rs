//! A relay that knows where MySQL's packets begin and end, and breaks clients'
//! connections at exactly the one it was told. Unencrypted connections only.
//! Those of the service account pass always: they are not what is tested.

use super::proc::{block_on, free_port, runtime};
use super::servers::SERVICE;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the proxy to the server.
    Asks,
    /// From the server to the proxy.
    Answers,
}

/// What happens at the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Both ends are closed in order.
    Close,
    /// Both ends are reset.
    Reset,
    /// Half of the packet passes, then both ends are closed.
    Half,
    /// The packet and all after it, both ways, wait for [`Breaker::release`].
    Stall,
    /// The packet and all after it, this way only, are lost.
    Swallow,
}

impl Fault {
    pub const ALL: [Fault; 5] = [
        Fault::Close,
        Fault::Reset,
        Fault::Half,
        Fault::Stall,
        Fault::Swallow,
    ];
}

/// Break at the packet number `at`, from 0, of those that pass from now on.
#[derive(Clone, Copy, Debug)]
struct Order {
    way: Way,
    at: usize,
    fault: Fault,
}

struct Shared {
    to: String,
    order: Mutex<Option<Order>>,
    /// Counts the releases.
    released: watch::Sender<u64>,
    fired: AtomicBool,
}

/// One relay, on a port of its own.
pub struct Breaker {
    port: u16,
    shared: Arc<Shared>,
}

impl Breaker {
    /// Relays to `to` (`127.0.0.1:port`).
    pub fn start(to: &str) -> Breaker {
        let port = free_port();
        let listener = block_on(TcpListener::bind(("127.0.0.1", port))).expect("breaker's port");
        let shared = Arc::new(Shared {
            to: to.to_string(),
            order: Mutex::new(None),
            released: watch::channel(0).0,
            fired: AtomicBool::new(false),
        });
        let served = shared.clone();
        runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, served.clone()));
            }
        });
        Breaker { port, shared }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Orders one fault, at the packet number `at` of this way.
    pub fn arm(&self, way: Way, at: usize, fault: Fault) {
        self.shared.fired.store(false, Ordering::SeqCst);
        *self.shared.order.lock() = Some(Order { way, at, fault });
    }

    /// Takes the order back; whether it was carried out.
    pub fn disarm(&self) -> bool {
        *self.shared.order.lock() = None;
        self.fired()
    }

    pub fn fired(&self) -> bool {
        self.shared.fired.load(Ordering::SeqCst)
    }

    /// Lets stalled connections go on.
    pub fn release(&self) {
        self.shared.released.send_modify(|n| *n += 1);
    }
}

impl Shared {
    /// Whether the packet that is here now is the one.
    fn due(&self, way: Way) -> Option<Fault> {
        let mut order = self.order.lock();
        let wanted = order.as_mut().filter(|o| o.way == way)?;
        if wanted.at > 0 {
            wanted.at -= 1;
            return None;
        }
        let fault = wanted.fault;
        *order = None;
        self.fired.store(true, Ordering::SeqCst);
        Some(fault)
    }
}

/// What a connection has become, for both of its pumps.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Passing,
    Stalled,
    Ended { reset: bool },
}

async fn connection(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&shared.to).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (fate, mut seen) = watch::channel(Fate::Passing);
    let service = Arc::new(AtomicBool::new(false));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let pump = |from, to, way| Pump {
        from,
        to,
        way,
        shared: shared.clone(),
        fate: fate.clone(),
        service: service.clone(),
    };
    let mut asks = pump(client_in, server_out, Way::Asks);
    let mut answers = pump(server_in, client_out, Way::Answers);
    let ended = async {
        let ended = seen.wait_for(|f| matches!(f, Fate::Ended { .. })).await;
        ended.is_ok_and(|f| *f == Fate::Ended { reset: true })
    };
    let reset = tokio::select! {
        () = asks.run() => false,
        () = answers.run() => false,
        reset = ended => reset,
    };
    if reset {
        for half in [&asks.to, &answers.to] {
            let socket: &TcpStream = half.as_ref();
            let _ = socket.set_zero_linger();
        }
    }
}

struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: Way,
    shared: Arc<Shared>,
    fate: watch::Sender<Fate>,
    service: Arc<AtomicBool>,
}

impl Pump {
    async fn run(&mut self) {
        let mut pending = Vec::new();
        let mut first = true;
        let mut swallowing = false;
        loop {
            while let Some(packet) = take_packet(&mut pending) {
                if std::mem::take(&mut first) && self.way == Way::Asks {
                    let ours = user_of(&packet).is_some_and(|u| u == SERVICE.0.as_bytes());
                    self.service.store(ours, Ordering::SeqCst);
                }
                swallowing |= !self.pass(&packet, swallowing).await;
            }
            if self.from.read_buf(&mut pending).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    /// Passes a packet on, or does to it what is due. False: it and what
    /// follows is lost.
    async fn pass(&mut self, packet: &[u8], swallowing: bool) -> bool {
        let mut fate = self.fate.subscribe();
        let _ = fate.wait_for(|f| *f == Fate::Passing).await;
        if swallowing {
            return false;
        }
        let due = match self.service.load(Ordering::SeqCst) {
            true => None,
            false => self.shared.due(self.way),
        };
        match due {
            None => {}
            Some(Fault::Swallow) => return false,
            Some(Fault::Stall) => {
                let mut released = self.shared.released.subscribe();
                released.mark_unchanged();
                self.fate.send_replace(Fate::Stalled);
                let _ = released.changed().await;
                self.fate.send_replace(Fate::Passing);
            }
            Some(fault) => {
                if fault == Fault::Half {
                    let _ = self.to.write_all(&packet[..packet.len() / 2]).await;
                }
                let reset = fault == Fault::Reset;
                self.fate.send_replace(Fate::Ended { reset });
                // The connection's task ends this one.
                std::future::pending::<()>().await;
            }
        }
        self.to.write_all(packet).await.is_ok()
    }
}

/// The first whole packet, its header included.
fn take_packet(pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = pending.get(..4)?;
    let length =
        4 + usize::from(head[0]) + (usize::from(head[1]) << 8) + (usize::from(head[2]) << 16);
    (pending.len() >= length).then(|| pending.drain(..length).collect())
}

/// The user name in an answer to a greeting.
fn user_of(packet: &[u8]) -> Option<&[u8]> {
    packet.get(36..)?.split(|b| *b == 0).next()
}
