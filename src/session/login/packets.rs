//! A client's packets before it is logged in, judged as a server judges them.
//!
//! Whoever can reach the port gets this far, so nothing is kept for a client
//! that it has not sent, and every wait has an end.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::LoginEnd;
use crate::leg::stream::{LOGIN_PACKET_MAX, Stream, write_packet};
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::ok::ErrPacket;

/// ER_NET_PACKET_TOO_LARGE.
const ER_TOO_LARGE: u16 = 1153;
/// ER_NET_PACKETS_OUT_OF_ORDER.
const ER_OUT_OF_ORDER: u16 = 1156;
/// ER_NET_READ_INTERRUPTED.
const ER_TIMEOUT: u16 = 1159;

/// Memory taken for a packet before its bytes are here, in bytes: more than a
/// login without attributes needs, so that a password is not copied about by a
/// growing buffer.
const AT_ONCE: usize = 1024;

/// A refused client's bytes still on their way, read and dropped: closed with
/// bytes unread, a connection is reset, and the error may never be seen.
const LINGER: Duration = Duration::from_millis(100);
const LINGER_BYTES: usize = 256 * 1024;

/// How long a client may take over its packets.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// The end of it.
    pub until: Instant,
    /// Whether home says so when a client is too slow: MySQL answers 1159,
    /// MariaDB just closes.
    pub told: bool,
}

enum Fault {
    Io(io::Error),
    OutOfOrder,
    TooLarge,
}

/// Reads one packet and sets `seq` to the id the answer to it must carry.
///
/// Errors: the client's; it has been told by then what a server tells it. Not
/// cancel safe: a login that is cancelled is dropped whole.
pub(crate) async fn read_client(
    client: &mut Stream,
    seq: &mut u8,
    patience: Patience,
) -> Result<Vec<u8>, LoginEnd> {
    let (code, message, end): (u16, &[u8], _) =
        match timeout_at(patience.until, read(client, seq)).await {
            Ok(Ok(packet)) => return Ok(packet),
            Ok(Err(Fault::Io(e))) => return Err(LoginEnd::Client(e)),
            Ok(Err(Fault::OutOfOrder)) => (
                ER_OUT_OF_ORDER,
                b"Got packets out of order",
                LoginEnd::Protocol("a packet out of order"),
            ),
            Ok(Err(Fault::TooLarge)) => (
                ER_TOO_LARGE,
                b"Got a packet bigger than 'max_allowed_packet' bytes",
                LoginEnd::Protocol("a packet larger than a login can need"),
            ),
            Err(_) if !patience.told => return Err(LoginEnd::Timeout),
            Err(_) => (
                ER_TIMEOUT,
                b"Got timeout reading communication packets",
                LoginEnd::Timeout,
            ),
        };
    refuse(client, seq, ErrPacket::new(code, b"08S01", message)).await;
    Err(end)
}

/// Sends an error and the end of the connection, and gives them time to be
/// read.
pub(crate) async fn refuse(client: &mut Stream, seq: &mut u8, error: ErrPacket<'_>) {
    let farewell = async {
        write_packet(client, seq, &error.build()).await?;
        client.shutdown().await?;
        let mut dropped = [0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match client.read(&mut dropped).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, farewell).await;
}

/// `seq` counts on as soon as a header has been read, as servers do.
async fn read(client: &mut Stream, seq: &mut u8) -> Result<Vec<u8>, Fault> {
    let mut head = [0u8; HEADER_LEN];
    client.read_exact(&mut head).await.map_err(Fault::Io)?;
    let invalid = || Fault::Io(io::ErrorKind::InvalidData.into());
    let head = header(&head).ok_or_else(invalid)?;
    if head.seq != *seq {
        return Err(Fault::OutOfOrder);
    }
    *seq = seq.wrapping_add(1);
    if head.len > LOGIN_PACKET_MAX {
        return Err(Fault::TooLarge);
    }
    let mut payload = Vec::with_capacity(head.len.min(AT_ONCE));
    let mut rest = client.take(head.len as u64);
    rest.read_to_end(&mut payload).await.map_err(Fault::Io)?;
    if payload.len() < head.len {
        return Err(Fault::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(payload)
}
