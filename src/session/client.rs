//! The client's end: reading commands, writing answers.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::End;
use crate::leg::Leg;
use crate::leg::buffer::Buffer;
use crate::leg::stream::Stream;
use crate::wire::Capabilities;
use crate::wire::frame::{HEADER_LEN, PAYLOAD_MAX, header};
use crate::wire::ok::ErrPacket;

/// The largest command kept whole, in payload bytes: one full packet. A
/// longer one is streamed to the active side, and deferred if it is a write.
pub const COMMAND_MAX: usize = PAYLOAD_MAX - 1;

/// How often a leg is looked at while its client takes no bytes: those that
/// wait to be read hide the end of its stream from the reactor.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a leg had sent before it was closed is offered to a client that takes
/// none of it for this long. Without us the kernel would keep it a while, too.
const OFFER_LIMIT: Duration = Duration::from_secs(10);

/// Ready some time after a socket was closed at its other end.
async fn closed(socket: &TcpStream) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if read_closed(socket) {
            return tokio::time::sleep(OFFER_LIMIT).await;
        }
    }
}

/// Whether the other end has closed, be it behind bytes not read yet.
fn read_closed(socket: &TcpStream) -> bool {
    let ready = pin!(socket.ready(Interest::READABLE));
    match ready.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// The client's connection.
pub struct Client {
    /// The stream.
    pub stream: Stream,
    /// Bytes read and not consumed.
    pub input: Buffer,
    /// Negotiated with the client.
    pub capabilities: Capabilities,
    /// What went through.
    pub traffic: Traffic,
}

/// Bytes after which traffic is told: a session's statements do not each touch
/// the counters that all share.
const TELL_BYTES: u64 = 64 << 10;

/// Bytes read from and written to a client and not told yet.
#[derive(Default)]
pub struct Traffic {
    from: u64,
    to: u64,
}

impl Traffic {
    fn read(&mut self, bytes: usize) {
        self.from += bytes as u64;
    }

    fn written(&mut self, bytes: usize) {
        self.to += bytes as u64;
        if self.from + self.to >= TELL_BYTES {
            self.tell();
        }
    }

    fn tell(&mut self) {
        crate::telemetry::bytes(self.from, self.to);
        (self.from, self.to) = (0, 0);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        crate::telemetry::bytes(self.from, self.to);
    }
}

/// What can be told of a client while the answer to its command is awaited.
pub enum Leaving {
    /// It has closed its connection.
    Gone,
    /// It has sent more, which may be its next command or its farewell.
    Unclear,
}

/// What woke an idle session.
pub enum Woken {
    /// Bytes from the client.
    Client,
    /// A leg closed or said something by itself.
    Leg(usize),
}

impl Client {
    /// Writes bytes to the client.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.stream.write_all(bytes).await.map_err(End::client)?;
        self.traffic.written(bytes.len());
        if self.stream.is_tls() {
            self.stream.flush().await.map_err(End::client)?;
        }
        Ok(())
    }

    /// [`Stream::write_now`].
    pub fn send_now(&mut self, bytes: &[u8]) -> usize {
        let sent = self.stream.write_now(bytes);
        self.traffic.written(sent);
        sent
    }

    /// Reads more bytes.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn fill(&mut self) -> Result<(), End> {
        match self.input.fill(&mut self.stream).await {
            Ok(0) => Err(End::ClientGone),
            Ok(n) => {
                self.traffic.read(n);
                Ok(())
            }
            Err(e) => Err(End::client(e)),
        }
    }

    /// [`Client::send`], given up when the leg the bytes are from has been
    /// closed and the client does not take them: its server has given it up.
    ///
    /// # Errors
    /// The client is gone, or was given up.
    pub async fn send_beside(&mut self, bytes: &[u8], leg: &TcpStream) -> Result<(), End> {
        tokio::select! {
            biased;
            sent = self.send(bytes) => sent,
            () = closed(leg) => Err(End::Protocol("an answer that is not read")),
        }
    }

    /// Waits until `total` bytes of a command are here, or some of them,
    /// watching the legs meanwhile so that a KILL or a timeout of a server is
    /// seen at once.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn wait(&mut self, legs: &mut [Option<Leg>; 2], total: usize) -> Result<Woken, End> {
        std::future::poll_fn(|cx| {
            if self.input.pending().len() >= total {
                return Poll::Ready(Ok(Woken::Client));
            }
            match self.input.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::ClientGone)),
                Poll::Ready(Ok(n)) => {
                    self.traffic.read(n);
                    return Poll::Ready(Ok(Woken::Client));
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(End::client(e))),
                Poll::Pending => {}
            }
            for (i, leg) in legs.iter_mut().enumerate() {
                if let Some(leg) = leg
                    && leg.poll_fill(cx).is_ready()
                {
                    return Poll::Ready(Ok(Woken::Leg(i)));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Ready when the client's socket has something to say. Asks the reactor
    /// first, which costs no system call.
    pub fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Leaving> {
        let socket = self.stream.socket();
        let Poll::Ready(ready) = socket.poll_read_ready(cx) else {
            return Poll::Pending;
        };
        if ready.is_err() {
            return Poll::Ready(Leaving::Gone);
        }
        let mut byte = [0; 1];
        match socket.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Leaving::Gone),
            Poll::Ready(Ok(_)) => Poll::Ready(Leaving::Unclear),
        }
    }

    /// Whether the client has closed its end behind bytes not read yet.
    pub fn has_closed(&self) -> bool {
        read_closed(self.stream.socket())
    }

    /// The payload length of the pending command, 0 for an empty one; None
    /// while its header or its command byte is not here.
    ///
    /// # Errors
    /// Its sequence id is not a command's.
    pub fn command_head(&self) -> Result<Option<usize>, End> {
        let Some(head) = header(self.input.pending()) else {
            return Ok(None);
        };
        if head.seq != 0 {
            return Err(End::OutOfOrder);
        }
        let here = head.len == 0 || self.input.pending().len() > HEADER_LEN;
        Ok(here.then_some(head.len))
    }

    /// Reads more of a command that is being streamed to `leg`. A leg that is
    /// closed meanwhile ends the wait; one that has something to say already
    /// is heard when the command is through.
    ///
    /// # Errors
    /// The client is gone, or the leg lost.
    pub async fn fill_beside(&mut self, leg: &mut Leg) -> Result<(), End> {
        let filled = std::future::poll_fn(|cx| {
            if let Poll::Ready(read) = self.input.poll_fill(&mut self.stream, cx) {
                return Poll::Ready(Ok(read));
            }
            if leg.input.pending().is_empty()
                && let Poll::Ready(Ok(0) | Err(_)) = leg.input.poll_fill(&mut leg.stream, cx)
            {
                return Poll::Ready(Err(leg.lost("closed by the server")));
            }
            Poll::Pending
        });
        match filled.await {
            Ok(Ok(0)) => Err(End::ClientGone),
            Ok(Ok(n)) => {
                self.traffic.read(n);
                Ok(())
            }
            Ok(Err(e)) => Err(End::client(e)),
            Err(lost) => Err(End::Leg(lost)),
        }
    }

    /// Answers with an error of ours, at sequence id 1.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn refuse(&mut self, code: u16, state: &[u8; 5], message: &str) -> Result<(), End> {
        self.refuse_at(1, code, state, message).await
    }

    /// Answers with an error of ours, after a command whose last packet was
    /// the one before `sequence`.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn refuse_at(
        &mut self,
        mut sequence: u8,
        code: u16,
        state: &[u8; 5],
        message: &str,
    ) -> Result<(), End> {
        let packet = ErrPacket {
            code,
            sqlstate: *state,
            message: message.as_bytes(),
        };
        let mut out = Vec::new();
        crate::wire::frame::put_packet(&mut out, &mut sequence, &packet.build());
        self.send(&out).await
    }
}
