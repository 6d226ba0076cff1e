//! Binlog events: whatever a server's log holds, reading it ends, and says so
//! when it does not understand.
//!
//! Input: events, each a kind, two bytes of length, and its body. A kind of 255
//! is a JSON column's value.

use bytes::Bytes;
use lockstep::binlog::event::Header;
use lockstep::binlog::{Body, Decoded, Decoder, Event, json};

use crate::Input;

/// Events of one payload that are read.
const INNER_MAX: usize = 100;

/// An event as a server sends it, without a checksum.
fn event(kind: u8, body: &[u8]) -> Bytes {
    const HEADER: usize = 19;
    let mut out = vec![0; 4];
    out.push(kind);
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(body);
    assert!(Header::read(&out).is_some_and(|h| h.length as usize == out.len()));
    out.into()
}

fn rows(event: &Event) {
    if let Body::Rows(rows) = &event.body {
        let signed = vec![false; rows.table.columns.len()];
        let count = rows.images(Some(&signed)).count();
        assert!(count <= rows.size() + 1, "more rows than bytes");
        assert!(rows.images(Some(&signed)).take(1).all(|_| true));
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut decoder = Decoder::new();
    while !input.0.is_empty() {
        let kind = input.byte();
        let len = usize::from(u16::from_le_bytes([input.byte(), input.byte()]));
        let body = input.bytes(len);
        if kind == 255 {
            let _ = json::text(body);
            continue;
        }
        match decoder.decode(&event(kind, body)) {
            Ok(Decoded::Event(event)) => rows(&event),
            Ok(Decoded::Payload(_, mut payload)) => {
                for _ in 0..INNER_MAX {
                    let Ok(Some(bytes)) = payload.next_event() else {
                        break;
                    };
                    if let Ok(event) = decoder.decode_inner(&bytes) {
                        rows(&event);
                    }
                }
            }
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    }
}
