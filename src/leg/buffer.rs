//! Read buffers that cost nothing while a session is idle.
//!
//! A buffer borrows its memory from a per-thread pool when bytes arrive and
//! hands it back when they have been consumed: an idle session holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of a pooled buffer: a server's own net_buffer_length; larger ones
/// gained nothing when measured (datapath-cost §6).
pub const BUFFER_LEN: usize = 16 * 1024;

/// Buffers a thread keeps for reuse: 1 MiB.
const POOL_MAX: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take() -> Box<[u8]> {
    POOL.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice())
}

fn give(memory: Box<[u8]>) {
    if memory.len() == BUFFER_LEN {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOL_MAX {
                pool.push(memory);
            }
        });
    }
}

/// Bytes read from a stream and not consumed yet.
#[derive(Default)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer that begins with bytes read earlier.
    pub fn with(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::default();
        if !bytes.is_empty() {
            buffer.memory = if bytes.len() <= BUFFER_LEN {
                take()
            } else {
                vec![0; bytes.len()].into_boxed_slice()
            };
            buffer.memory[..bytes.len()].copy_from_slice(bytes);
            buffer.end = bytes.len();
        }
        buffer
    }

    /// What has been read and not consumed.
    pub fn pending(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or(&[])
    }

    /// The same, to patch an id in place.
    pub fn pending_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.end).unwrap_or(&mut [])
    }

    /// Drops `n` bytes from the front; the memory goes back to the pool when
    /// none are left.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.release();
        }
    }

    fn release(&mut self) {
        self.start = 0;
        self.end = 0;
        if !self.memory.is_empty() {
            give(std::mem::take(&mut self.memory));
        }
    }

    /// Makes room so that `total` pending bytes fit; the caller bounds
    /// `total`.
    pub fn reserve(&mut self, total: usize) {
        if self.memory.is_empty() && total <= BUFFER_LEN {
            self.memory = take();
        }
        if self.start + total <= self.memory.len() {
            return;
        }
        if total <= self.memory.len() {
            self.memory.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = vec![0; total].into_boxed_slice();
            larger[..self.end - self.start].copy_from_slice(self.pending());
            give(std::mem::replace(&mut self.memory, larger));
        }
        self.end -= self.start;
        self.start = 0;
    }

    /// Reads once into the free space. Ready(0) is the end of the stream. A
    /// pending read leaves no memory behind when nothing is buffered.
    pub fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let pending = self.end - self.start;
        if self.end == self.memory.len() {
            // Full up to the end: compact, and grow only when truly full (the
            // caller that wants a larger whole calls `reserve` first).
            self.reserve((pending + 1).max(BUFFER_LEN.min(pending + BUFFER_LEN)));
        }
        let mut space = ReadBuf::new(&mut self.memory[self.end..]);
        match Pin::new(stream).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) => {
                let n = space.filled().len();
                self.end += n;
                if self.start == self.end {
                    self.release();
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                if pending == 0 {
                    self.release();
                }
                Poll::Pending
            }
        }
    }

    /// [`Buffer::poll_fill`] as a future. Cancel safe.
    pub async fn fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(stream, cx)).await
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fills_compacts_and_lets_go() {
        let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut stream = &data[..];
        let mut buffer = Buffer::default();
        let mut seen = Vec::new();
        while buffer.fill(&mut stream).await.unwrap() > 0 {
            let n = buffer.pending().len() / 2 + 1;
            seen.extend_from_slice(&buffer.pending()[..n]);
            buffer.consume(n);
        }
        seen.extend_from_slice(buffer.pending());
        buffer.consume(usize::MAX - BUFFER_LEN * 8);
        assert_eq!(seen, data);
        assert!(buffer.memory.is_empty());
    }

    #[tokio::test]
    async fn reserve_keeps_what_is_pending() {
        let mut buffer = Buffer::with(b"abcdef");
        buffer.consume(2);
        buffer.reserve(100_000);
        assert_eq!(buffer.pending(), b"cdef");
        let mut stream: &[u8] = b"gh";
        buffer.fill(&mut stream).await.unwrap();
        assert_eq!(buffer.pending(), b"cdefgh");
    }
}
