//! Bytes from a leg to the client, and large commands the other way.
//!
//! Rows are never decoded: the cursor jumps from packet head to packet head
//! and everything read is written on at once. Only OK packets that carry
//! session state are looked into, because the client may see less of it than
//! the leg reports.

use std::task::{Context, Poll};
use std::time::Duration;

use super::End;
use super::client::{Client, Leaving};
use super::state::State;
use super::unmirrored::Pending;
use crate::leg::Leg;
use crate::leg::buffer::BUFFER_LEN;
use crate::wire::command::ResponseKind;
use crate::wire::frame::{self, HEADER_LEN, Header, PAYLOAD_MAX, header};
use crate::wire::ok::OkPacket;
use crate::wire::response::{Event, Fed, Summary};
use crate::wire::{Capabilities, Status};

/// Begins to follow a response of `kind`.
pub fn begin(leg: &mut Leg, kind: ResponseKind) {
    leg.cursor.report_state(true);
    leg.cursor.begin(kind);
}

/// What the short way has come to.
pub enum Short {
    /// The response's end: the client has all of it.
    Done,
    /// What the long way goes on from: bytes that were fed and not sent on, if
    /// there are any.
    Rest(Option<Fed>),
}

/// Relays a response that was begun as long as nothing of it has to be looked
/// into, its client takes it at once, and stays: most are over then, without a
/// future for each step.
///
/// # Errors
/// The leg is lost.
pub fn poll_short(
    client: &mut Client,
    leg: &mut Leg,
    pending: &mut Pending,
    cx: &mut Context<'_>,
) -> Poll<Result<Short, End>> {
    if leg.cursor.summary().done {
        // Of a command without an answer.
        return Poll::Ready(Ok(Short::Done));
    }
    loop {
        if leg.input.pending().is_empty() {
            let Poll::Ready(read) = leg.poll_fill(cx) else {
                if !pending.abandon {
                    return Poll::Pending;
                }
                // The long way looks again, and sees the same.
                return client.poll_leaving(cx).map(|_| Ok(Short::Rest(None)));
            };
            arrived(leg, read)?;
        }
        let bytes = leg.input.pending();
        let fed = leg.cursor.feed(bytes);
        let fed = fed.map_err(|e| leg.lost(e.to_string()))?;
        let over = fed.event == Event::Done;
        if !(over || fed.event == Event::More) || pending.renamed.is_some() {
            return Poll::Ready(Ok(Short::Rest(Some(fed))));
        }
        if over {
            pending.answered(leg.cursor.summary());
        }
        let sent = client.send_now(&bytes[..fed.consumed]);
        leg.input.consume(sent);
        if sent < fed.consumed {
            let consumed = fed.consumed - sent;
            return Poll::Ready(Ok(Short::Rest(Some(Fed { consumed, ..fed }))));
        }
        if over {
            return Poll::Ready(Ok(Short::Done));
        }
    }
}

/// Relays what is left of a response that was begun, and returns what was seen
/// of all of it. `fed`: what of it was fed to the cursor, and not sent on.
///
/// # Errors
/// Either end is gone. Not cancel safe: both ends must be closed.
pub async fn response(
    client: &mut Client,
    leg: &mut Leg,
    mut fed: Option<Fed>,
    state: &mut State,
    pending: &mut Pending,
) -> Result<Summary, End> {
    if leg.cursor.summary().done && fed.is_none() {
        return Ok(*leg.cursor.summary());
    }
    loop {
        if fed.is_none() && leg.input.pending().is_empty() {
            fill(client, leg, pending.abandon).await?;
        }
        loop {
            let arrived = leg.input.pending();
            if fed.is_none() && arrived.is_empty() {
                break;
            }
            let fed = match fed.take() {
                Some(fed) => fed,
                None => (leg.cursor.feed(arrived)).map_err(|e| leg.lost(e.to_string()))?,
            };
            let summary = leg.cursor.summary();
            if summary.done {
                pending.answered(summary);
                if let Some(ids) = pending.renamed.take().filter(|_| summary.is_error)
                    && summary.packets == 1
                {
                    let packet = with_clients_id(&arrived[..fed.consumed], ids);
                    client.send(&packet).await?;
                    leg.input.consume(fed.consumed);
                    return Ok(done(leg));
                }
            }
            match fed.event {
                Event::StateChange => {
                    rewrite(client, leg, fed.consumed, state).await?;
                    leg.input.consume(fed.consumed);
                    if leg.cursor.summary().done {
                        return Ok(done(leg));
                    }
                    continue;
                }
                Event::NeedWhole(total) => {
                    forward(client, leg, fed.consumed).await?;
                    need(leg, total).await?;
                    continue;
                }
                _ => forward(client, leg, fed.consumed).await?,
            }
            match fed.event {
                Event::Done => return Ok(done(leg)),
                Event::InfileRequest => {
                    Box::pin(infile(client, leg, pending)).await?;
                    break;
                }
                Event::AuthContinue => return Err(End::Protocol("an unexpected login packet")),
                _ => {}
            }
        }
    }
}

/// An error packet that names a statement, `(id)`, by the id the client knows.
fn with_clients_id(packet: &[u8], (own, clients): (u32, u32)) -> Vec<u8> {
    let own = format!("({own})");
    let found = packet
        .windows(own.len())
        .position(|bytes| bytes == own.as_bytes());
    let at = found.and_then(|at| at.checked_sub(HEADER_LEN));
    let (Some(at), Some((payload, _, mut sequence))) = (at, frame::packet(packet)) else {
        return packet.to_vec();
    };
    let clients = format!("({clients})");
    let payload = [
        &payload[..at],
        clients.as_bytes(),
        &payload[at + own.len()..],
    ]
    .concat();
    let mut out = Vec::new();
    frame::put_packet(&mut out, &mut sequence, &payload);
    out
}

/// Takes what a response that is over says of its leg; returns what was seen.
pub fn done(leg: &mut Leg) -> Summary {
    let summary = *leg.cursor.summary();
    if !summary.is_error && summary.prepare.is_none() && summary.packets > 0 {
        leg.answered(summary.status);
    }
    summary
}

async fn forward(client: &mut Client, leg: &mut Leg, bytes: usize) -> Result<(), End> {
    if bytes > 0 {
        let arrived = &leg.input.pending()[..bytes];
        let rest = &arrived[client.send_now(arrived)..];
        if !rest.is_empty() {
            client.send_beside(rest, leg.stream.socket()).await?;
        }
        leg.input.consume(bytes);
    }
    Ok(())
}

/// Reads until `total` bytes are pending (bounded by the cursor).
async fn need(leg: &mut Leg, total: usize) -> Result<(), End> {
    leg.input.reserve(total);
    while leg.input.pending().len() < total {
        leg.fill().await?;
    }
    Ok(())
}

/// Forwards what precedes the OK packet, and the packet with the state block
/// the client is to see.
async fn rewrite(
    client: &mut Client,
    leg: &Leg,
    consumed: usize,
    state: &mut State,
) -> Result<(), End> {
    let pending = &leg.input.pending()[..consumed];
    let Some((start, end)) = leg.cursor.summary().state_packet else {
        return client.send_beside(pending, leg.stream.socket()).await;
    };
    let mut out = Vec::with_capacity(consumed);
    out.extend_from_slice(&pending[..start]);
    shown(
        &pending[start..end],
        leg.capabilities,
        client.capabilities,
        state,
        &mut out,
    );
    client.send(&out).await
}

/// Appends an OK packet (framed) as the client is to see it, learning from its
/// state block.
pub fn shown(
    packet: &[u8],
    leg: Capabilities,
    client: Capabilities,
    state: &mut State,
    out: &mut Vec<u8>,
) {
    let Some((payload, _, sequence)) = frame::packet(packet) else {
        out.extend_from_slice(packet);
        return;
    };
    let Ok(ok) = OkPacket::parse(payload, leg) else {
        out.extend_from_slice(packet);
        return;
    };
    let tracks = client.has(Capabilities::SESSION_TRACK);
    let mut block = Vec::with_capacity(ok.session_state.map_or(0, <[u8]>::len));
    state.learn(ok.session_state.unwrap_or(&[]), tracks, &mut block);
    let status = if block.is_empty() {
        ok.status.without(Status::SESSION_STATE_CHANGED)
    } else {
        ok.status
    };
    let rebuilt = OkPacket {
        status,
        session_state: (!block.is_empty()).then_some(&block[..]),
        has_info: ok.has_info && (!ok.info.is_empty() || !block.is_empty()),
        ..ok
    };
    let mut sequence = sequence;
    frame::put_packet(out, &mut sequence, &rebuilt.build(client));
}

/// How long the last words of a leg that takes no more bytes are waited for.
/// They were sent before it closed.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// How often a client is looked at that has sent more than the command under
/// way: its bytes hide the end of its stream from the reactor.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Reads more of an answer. With `abandon`, a client that closes its
/// connection meanwhile ends the wait.
///
/// Watching costs no system call: the reactor tells when the client's socket
/// becomes readable, and only then is it looked at.
///
/// # Errors
/// The leg is lost, or the client has left.
pub async fn fill(client: &mut Client, leg: &mut Leg, abandon: bool) -> Result<(), End> {
    if !abandon {
        return Ok(leg.fill().await?);
    }
    let woken = std::future::poll_fn(|cx| {
        if let Poll::Ready(read) = leg.poll_fill(cx) {
            return Poll::Ready(Ok(read));
        }
        client.poll_leaving(cx).map(Err)
    })
    .await;
    match woken {
        Ok(read) => arrived(leg, read),
        Err(Leaving::Gone) => Err(End::Abandoned),
        Err(Leaving::Unclear) => Box::pin(fill_looking(client, leg)).await,
    }
}

/// What a leg's read has come to.
fn arrived(leg: &Leg, read: std::io::Result<usize>) -> Result<(), End> {
    match read {
        Ok(0) => Err(End::Leg(leg.lost("closed by the server"))),
        Ok(_) => Ok(()),
        Err(e) => Err(End::Leg(leg.lost(format!("read: {e}")))),
    }
}

/// [`fill`] with a client that has sent its next commands already.
async fn fill_looking(client: &mut Client, leg: &mut Leg) -> Result<(), End> {
    loop {
        if client.has_closed() {
            return Err(End::Abandoned);
        }
        if let Ok(filled) = tokio::time::timeout(LOOK_AGAIN, leg.fill()).await {
            return Ok(filled?);
        }
    }
}

/// The client sends a file: packets up to an empty one.
async fn infile(client: &mut Client, leg: &mut Leg, pending: &mut Pending) -> Result<(), End> {
    let abandon = std::mem::replace(&mut pending.abandon, true);
    loop {
        let head = next_header(client, leg).await?;
        stream_command(client, leg, HEADER_LEN + head.len).await?;
        if head.len == 0 {
            pending.abandon = abandon;
            return Ok(());
        }
    }
}

async fn next_header(client: &mut Client, leg: &mut Leg) -> Result<Header, End> {
    while client.input.pending().len() < HEADER_LEN {
        client.fill_beside(leg).await?;
    }
    header(client.input.pending()).ok_or(End::Protocol("a broken packet header"))
}

/// Streams `total` bytes of the client's to a leg without keeping them.
async fn stream_command(client: &mut Client, leg: &mut Leg, total: usize) -> Result<(), End> {
    let mut left = total;
    while left > 0 {
        if client.input.pending().is_empty() {
            client.fill_beside(leg).await?;
        }
        let n = client.input.pending().len().min(left);
        if let Err(lost) = leg.send(&client.input.pending()[..n]).await {
            last_words(client, leg).await;
            return Err(End::Leg(lost));
        }
        client.input.consume(n);
        left -= n;
    }
    Ok(())
}

/// A server that refuses a command before it has read all of it answers and
/// closes: the client is to see that answer.
async fn last_words(client: &mut Client, leg: &mut Leg) {
    let heard =
        async { while leg.input.pending().len() < BUFFER_LEN && leg.fill().await.is_ok() {} };
    let _ = tokio::time::timeout(LAST_WORDS_LIMIT, heard).await;
    let _ = client.send(leg.input.pending()).await;
}

/// Sends the pending packet, if it is all here and the command's last, as far as
/// the kernel takes it at once: how many bytes of it are left.
fn send_now(client: &mut Client, leg: &Leg) -> Option<usize> {
    let arrived = client.input.pending();
    let head = header(arrived).filter(|head| head.len < PAYLOAD_MAX)?;
    let sent = leg.stream.write_now(arrived.get(..head.total())?);
    client.input.consume(sent);
    Some(head.total() - sent)
}

/// Streams one command of any length, continuation packets included. A client
/// that leaves in the middle of it has asked for nothing.
///
/// # Errors
/// Either end is gone.
pub async fn stream_whole_command(
    client: &mut Client,
    leg: &mut Leg,
    pending: &mut Pending,
) -> Result<(), End> {
    match send_now(client, leg) {
        Some(0) => Ok(()),
        // Boxed, for it is rare: a client's requests are small.
        left => Box::pin(stream_rest(client, leg, left, pending)).await,
    }
}

/// [`stream_whole_command`] after [`send_now`].
async fn stream_rest(
    client: &mut Client,
    leg: &mut Leg,
    left: Option<usize>,
    pending: &mut Pending,
) -> Result<(), End> {
    if let Some(left) = left {
        return stream_command(client, leg, left).await;
    }
    let abandon = pending.abandon;
    loop {
        let head = next_header(client, leg).await?;
        if client.input.pending().len() < head.total() {
            pending.abandon = true;
        }
        stream_command(client, leg, head.total()).await?;
        if head.len < PAYLOAD_MAX {
            pending.abandon = abandon;
            return Ok(());
        }
    }
}

/// Relays a binlog dump. Replicas acknowledge events while it goes on
/// (semi-synchronous replication), so bytes pass both ways until it ends.
///
/// # Errors
/// Either end is gone.
pub async fn dump(client: &mut Client, leg: &mut Leg) -> Result<(), End> {
    leg.cursor.report_state(false);
    leg.cursor.begin(ResponseKind::BinlogDump);
    loop {
        tokio::select! {
            biased;
            filled = leg.fill() => filled?,
            filled = client.fill() => {
                filled?;
                let n = client.input.pending().len();
                leg.send(&client.input.pending()[..n]).await?;
                client.input.consume(n);
            }
        }
        while !leg.input.pending().is_empty() {
            let fed = leg.cursor.feed(leg.input.pending());
            let fed = fed.map_err(|e| leg.lost(e.to_string()))?;
            forward(client, leg, fed.consumed).await?;
            if fed.event == Event::Done {
                return Ok(());
            }
        }
    }
}

/// Reads one command of any length and forgets it; returns the sequence id of
/// its last packet.
///
/// # Errors
/// The client is gone.
pub async fn skip_whole_command(client: &mut Client) -> Result<u8, End> {
    loop {
        while client.input.pending().len() < HEADER_LEN {
            client.fill().await?;
        }
        let head = header(client.input.pending()).ok_or(End::Protocol("a broken packet header"))?;
        let mut left = head.total();
        while left > 0 {
            if client.input.pending().is_empty() {
                client.fill().await?;
            }
            let n = client.input.pending().len().min(left);
            client.input.consume(n);
            left -= n;
        }
        if head.len < PAYLOAD_MAX {
            return Ok(head.seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_statements_as_their_clients_do() {
        let framed = |text: &str| {
            let mut out = Vec::new();
            let payload = [b"\xFF\x8D\x05#HY000", text.as_bytes()].concat();
            frame::put_packet(&mut out, &mut 1, &payload);
            out
        };
        let told = with_clients_id(&framed("The statement (11) has no open cursor"), (11, 5));
        assert_eq!(told, framed("The statement (5) has no open cursor"));
        let other = framed("Lost connection (1)");
        assert_eq!(with_clients_id(&other, (11, 5)), other);
        assert_eq!(with_clients_id(&[1, 0], (11, 5)), [1, 0]);
    }
}
