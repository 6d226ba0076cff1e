//! The client's end: reading commands, writing answers.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncWriteExt, Interest, ReadBuf};

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

/// The client's connection.
pub struct Client {
    /// The stream.
    pub stream: Stream,
    /// Bytes read and not consumed.
    pub input: Buffer,
    /// Negotiated with the client.
    pub capabilities: Capabilities,
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
        if self.stream.is_tls() {
            self.stream.flush().await.map_err(End::client)?;
        }
        Ok(())
    }

    /// Reads more bytes.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn fill(&mut self) -> Result<(), End> {
        match self.input.fill(&mut self.stream).await {
            Ok(0) => Err(End::ClientGone),
            Ok(_) => Ok(()),
            Err(e) => Err(End::client(e)),
        }
    }

    /// Waits until a command's first bytes are here, watching the legs
    /// meanwhile so that a KILL or a timeout of a server is seen at once.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn wait(&mut self, legs: &mut [Option<Leg>; 2]) -> Result<Woken, End> {
        std::future::poll_fn(|cx| {
            if self.input.pending().len() > HEADER_LEN {
                return Poll::Ready(Ok(Woken::Client));
            }
            match self.input.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::ClientGone)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Woken::Client)),
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
        let ready = pin!(self.stream.socket().ready(Interest::READABLE));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Reads until the first physical packet's header and command byte are
    /// here; returns the payload's length, 0 for an empty command.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn command_head(&mut self) -> Result<usize, End> {
        loop {
            if let Some(head) = header(self.input.pending()) {
                if head.seq != 0 {
                    return Err(End::OutOfOrder);
                }
                if head.len == 0 {
                    return Ok(0);
                }
                if self.input.pending().len() > HEADER_LEN {
                    return Ok(head.len);
                }
            }
            self.fill().await?;
        }
    }

    /// Reads until `total` bytes are pending; the caller bounds `total`.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn whole(&mut self, total: usize) -> Result<(), End> {
        if self.input.pending().len() >= total {
            return Ok(());
        }
        self.input.reserve(total);
        while self.input.pending().len() < total {
            self.fill().await?;
        }
        Ok(())
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
