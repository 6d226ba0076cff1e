//! A byte stream to a client or a backend, with or without TLS, and the
//! packet reads and writes of the phases that are not on the data path.
//!
//! The relay reads and writes [`Stream`] directly. Login and COM_CHANGE_USER
//! use [`read_packet`] and [`write_packet`], which read *exactly* one packet:
//! nothing is ever read ahead, so a stream can be handed over (to TLS, to the
//! relay) between any two packets without a leftover buffer.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::wire::frame;

/// Largest packet accepted while logging in, in bytes. Connection attributes
/// are the largest part of one and servers cap them at 64 KiB.
pub const LOGIN_PACKET_MAX: usize = 64 * 1024 + 4096;

/// Idle time after which the kernel probes a silent peer. Shorter than the
/// usual 350 s to 900 s after which firewalls and load balancers drop a flow.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between two keepalive probes; the kernel's default count (9) applies,
/// so a vanished peer is noticed within about three minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// One connection's bytes, in the clear or through TLS.
///
/// TLS states are boxed: they are over a kilobyte, and most sessions of a
/// plain listener should not pay for them.
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS in which we are the server: a client's connection.
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS in which we are the client: a leg.
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Takes a connected socket: switches Nagle's algorithm off (every flush
    /// of ours is a complete request or answer) and keepalive on.
    ///
    /// Errors are the kernel's; a socket closed by its peer meanwhile is the
    /// usual one.
    pub fn plain(socket: TcpStream) -> io::Result<Stream> {
        socket.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL);
        socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        Ok(Stream::Plain(socket))
    }

    /// True if the bytes on the network are encrypted.
    #[inline]
    pub fn is_tls(&self) -> bool {
        !matches!(self, Stream::Plain(_))
    }

    /// Has the kernel hold back the news of readable bytes until there are
    /// `bytes` of them, or the stream's end. 1 is the usual state. Reading
    /// itself is as ever. False where it cannot be had: over TLS bytes are not
    /// packets.
    #[allow(unsafe_code)]
    pub fn low_water(&self, bytes: u16) -> bool {
        let Stream::Plain(socket) = self else {
            return false;
        };
        let value = libc::c_int::from(bytes);
        // SAFETY: the descriptor is open for as long as `socket` is borrowed,
        // and the kernel copies one int from `value`.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                std::ptr::from_ref(&value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        set == 0
    }

    /// Writes what the kernel takes at once: the number of bytes. 0 over TLS, and
    /// where the stream is broken, which whoever writes the rest finds out. Most
    /// packets are done with then, without a future for it.
    #[inline]
    pub fn write_now(&self, bytes: &[u8]) -> usize {
        match self {
            Stream::Plain(s) => s.try_write(bytes).unwrap_or(0),
            Stream::TlsServer(_) | Stream::TlsClient(_) => 0,
        }
    }

    /// The TCP socket below, for its addresses and for readiness.
    #[inline]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(s) => s,
            Stream::TlsServer(s) => s.get_ref().0,
            Stream::TlsClient(s) => s.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::TlsServer(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
            Stream::TlsClient(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Stream::TlsServer(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
            Stream::TlsClient(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_flush(cx),
            Stream::TlsServer(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Stream::TlsClient(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Stream::TlsServer(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Stream::TlsClient(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stream::TlsServer(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
            Stream::TlsClient(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(s) => s.is_write_vectored(),
            Stream::TlsServer(s) => s.is_write_vectored(),
            Stream::TlsClient(s) => s.is_write_vectored(),
        }
    }
}

/// Reads exactly one packet of at most [`LOGIN_PACKET_MAX`] bytes and sets
/// `seq` to the id the answer to it must carry.
///
/// Errors: `UnexpectedEof` when the peer closed, `InvalidData` when the packet
/// is too large, and whatever the socket says. Not cancel-safe: a login that
/// is cancelled is dropped whole.
pub async fn read_packet<S>(stream: &mut S, seq: &mut u8) -> io::Result<Vec<u8>>
where
    S: AsyncRead + Unpin,
{
    let mut head = [0u8; frame::HEADER_LEN];
    stream.read_exact(&mut head).await?;
    let Some(header) = frame::header(&head) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if header.len > LOGIN_PACKET_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "packet larger than a login can need",
        ));
    }
    let mut payload = vec![0u8; header.len];
    stream.read_exact(&mut payload).await?;
    *seq = header.seq.wrapping_add(1);
    Ok(payload)
}

/// Writes one packet with id `seq`, advances `seq`, and flushes.
///
/// Errors are the socket's.
pub async fn write_packet<S>(stream: &mut S, seq: &mut u8, payload: &[u8]) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let mut out = zeroize::Zeroizing::new(Vec::with_capacity(payload.len() + frame::HEADER_LEN));
    frame::put_packet(&mut out, seq, payload);
    stream.write_all(&out).await?;
    stream.flush().await
}
