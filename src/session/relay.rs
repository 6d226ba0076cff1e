//! Bytes from a leg to the client, and large commands the other way.
//!
//! Rows are never decoded: the cursor jumps from packet head to packet head
//! and everything read is written on at once. Only OK packets that carry
//! session state are looked into, because the client may see less of it than
//! the leg reports.

use super::End;
use super::client::Client;
use super::state::State;
use crate::leg::Leg;
use crate::wire::command::ResponseKind;
use crate::wire::frame::{self, HEADER_LEN, PAYLOAD_MAX, header};
use crate::wire::ok::OkPacket;
use crate::wire::response::{Event, Summary};
use crate::wire::{Capabilities, Status};

/// Relays one response of `kind` to the client and returns what was seen.
///
/// # Errors
/// Either end is gone. Not cancel safe: both ends must be closed.
pub async fn response(
    client: &mut Client,
    leg: &mut Leg,
    kind: ResponseKind,
    state: &mut State,
) -> Result<Summary, End> {
    leg.cursor.report_state(true);
    leg.cursor.begin(kind);
    if kind == ResponseKind::None {
        return Ok(*leg.cursor.summary());
    }
    loop {
        if leg.input.pending().is_empty() {
            leg.fill().await?;
        }
        loop {
            let pending = leg.input.pending();
            if pending.is_empty() {
                break;
            }
            let fed = leg
                .cursor
                .feed(pending)
                .map_err(|e| leg.lost(e.to_string()))?;
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
                    infile(client, leg).await?;
                    break;
                }
                Event::AuthContinue => return Err(End::Protocol("an unexpected login packet")),
                _ => {}
            }
        }
    }
}

fn done(leg: &mut Leg) -> Summary {
    let summary = *leg.cursor.summary();
    if !summary.is_error && summary.prepare.is_none() && summary.packets > 0 {
        leg.status = summary.status;
    }
    summary
}

async fn forward(client: &mut Client, leg: &mut Leg, bytes: usize) -> Result<(), End> {
    if bytes > 0 {
        client.send(&leg.input.pending()[..bytes]).await?;
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
        return client.send(pending).await;
    };
    let mut out = pending[..start].to_vec();
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
    let mut block = Vec::new();
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

/// The client sends a file: packets up to an empty one.
async fn infile(client: &mut Client, leg: &mut Leg) -> Result<(), End> {
    loop {
        while client.input.pending().len() < HEADER_LEN {
            client.fill().await?;
        }
        let Some(head) = header(client.input.pending()) else {
            return Err(End::Protocol("a broken packet header"));
        };
        stream_command(client, leg, HEADER_LEN + head.len).await?;
        if head.len == 0 {
            return Ok(());
        }
    }
}

/// Streams `total` bytes of the client's to a leg without keeping them.
///
/// # Errors
/// Either end is gone.
pub async fn stream_command(client: &mut Client, leg: &mut Leg, total: usize) -> Result<(), End> {
    let mut left = total;
    while left > 0 {
        if client.input.pending().is_empty() {
            client.fill().await?;
        }
        let n = client.input.pending().len().min(left);
        leg.send(&client.input.pending()[..n]).await?;
        client.input.consume(n);
        left -= n;
    }
    Ok(())
}

/// Streams one command of any length, continuation packets included.
///
/// # Errors
/// Either end is gone.
pub async fn stream_whole_command(client: &mut Client, leg: &mut Leg) -> Result<(), End> {
    loop {
        while client.input.pending().len() < HEADER_LEN {
            client.fill().await?;
        }
        let Some(head) = header(client.input.pending()) else {
            return Err(End::Protocol("a broken packet header"));
        };
        stream_command(client, leg, HEADER_LEN + head.len).await?;
        if head.len < PAYLOAD_MAX {
            return Ok(());
        }
    }
}
