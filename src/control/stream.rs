//! `GET /v1/events`: server-sent events, those kept first, then live ones.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::migration::Migration;

/// Events buffered for one watcher beyond the broadcast itself.
const BUFFERED: usize = 16;

/// Events as a stream.
pub struct Watch(mpsc::Receiver<Sent>);

impl futures_core::Stream for Watch {
    type Item = Result<Sent, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|event| event.map(Ok))
    }
}

/// The answer to a watcher that has seen events up to `after`.
pub fn watch(
    migration: &Migration,
    after: u64,
) -> Sse<axum::response::sse::KeepAliveStream<Watch>> {
    let (kept, mut live) = migration.events().watch(after);
    let (send, receive) = mpsc::channel(BUFFERED);
    // Ends with the watcher: `send` fails once the receiver is gone, and
    // `closed` tells so while nothing happens.
    tokio::spawn(async move {
        for event in kept {
            if send.send(frame(&event)).await.is_err() {
                return;
            }
        }
        loop {
            let next = tokio::select! {
                next = live.recv() => next,
                () = send.closed() => return,
            };
            let frame = match next {
                Ok(event) => frame(&event),
                Err(RecvError::Lagged(n)) => Sent::default().event("missed").data(n.to_string()),
                Err(RecvError::Closed) => return,
            };
            if send.send(frame).await.is_err() {
                return;
            }
        }
    });
    Sse::new(Watch(receive)).keep_alive(KeepAlive::default())
}

fn frame(event: &Arc<crate::migration::events::Event>) -> Sent {
    let data = serde_json::to_string(event.as_ref()).unwrap_or_default();
    Sent::default()
        .id(event.id.to_string())
        .event(event.kind)
        .data(data)
}
