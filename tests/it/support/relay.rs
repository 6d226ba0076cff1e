//! A TCP relay in front of a server that can be made slow, silent or absent,
//! for faults that stopping the server does not show.

use super::proc::{block_on, free_port, runtime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// Bytes pass as they come.
    Pass,
    /// What the server sends is held back this long.
    Slow(Duration),
    /// Connections stay open and no byte passes, until another mode is set.
    Silent,
    /// Open connections are cut and new ones refused.
    Refuse,
}

/// One relay, on a port of its own; ends when dropped.
pub struct Relay {
    port: u16,
    mode: watch::Sender<Mode>,
    asked: Arc<AtomicU64>,
}

impl Relay {
    /// Relays to `to` (`127.0.0.1:port`), passing at first.
    pub fn start(to: &str) -> Relay {
        let port = free_port();
        let (mode, seen) = watch::channel(Mode::Pass);
        let to: Arc<str> = to.into();
        let listener = block_on(TcpListener::bind(("127.0.0.1", port))).expect("relay's port");
        let asked: Arc<AtomicU64> = Arc::default();
        runtime().spawn(serve(port, Some(listener), (to, asked.clone()), seen));
        Relay { port, mode, asked }
    }

    /// How often something was sent to the server; what waits in
    /// [`Mode::Silent`] counts.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        // The listener's task closes or opens the port a moment later.
        let refused = || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err();
        let wanted = mode == Mode::Refuse;
        super::proc::wait_for("relay's port", Duration::from_secs(5), || {
            refused() == wanted
        });
    }
}

async fn serve(
    port: u16,
    mut listener: Option<TcpListener>,
    (to, asked): (Arc<str>, Arc<AtomicU64>),
    mut mode: watch::Receiver<Mode>,
) {
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            drop(listener.take());
            if mode.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(open) => open,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        tokio::select! {
            accepted = open.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(connection(client, Arc::clone(&to), mode.clone(), asked.clone()));
                }
            }
            changed = mode.changed() => if changed.is_err() { return },
        }
        listener = Some(open);
    }
}

async fn connection(
    client: TcpStream,
    to: Arc<str>,
    mut mode: watch::Receiver<Mode>,
    asked: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(to.as_ref()).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    tokio::select! {
        () = pump(client_in, server_out, mode.clone(), Some(asked)) => {}
        () = pump(server_in, client_out, mode.clone(), None) => {}
        _ = mode.wait_for(|m| *m == Mode::Refuse) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    asked: Option<Arc<AtomicU64>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let count = || {
        asked
            .iter()
            .for_each(|a| _ = a.fetch_add(1, Ordering::SeqCst))
    };
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let waits = *mode.borrow() == Mode::Silent;
        if waits {
            count();
        }
        let Ok(now) = mode.wait_for(|m| *m != Mode::Silent).await.map(|m| *m) else {
            return;
        };
        if let (Mode::Slow(delay), None) = (now, &asked) {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        if !waits {
            count();
        }
    }
}
