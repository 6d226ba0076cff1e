//! Recorded exchanges of both families, cut everywhere; hand-made packets
//! for what servers rarely send; arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::wire::fixtures::{Exchange, exchanges};
use crate::wire::frame::put_packet;

/// An event with the stream offset it stood at, and the state packet.
type Seen = (usize, Event, Option<(usize, usize)>);

/// Feeds `stream` as a relay does: what is not consumed is presented again
/// with what comes next. `cuts` are the ends of the pieces that arrive.
fn drive(
    cursor: &mut ResponseCursor,
    kind: ResponseKind,
    stream: &[u8],
    cuts: &[usize],
) -> (Vec<Seen>, Summary) {
    cursor.begin(kind);
    let mut seen = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        loop {
            let piece = &stream[at..end.max(at)];
            let fed = cursor.feed(piece).expect("a valid response");
            assert!(fed.consumed <= piece.len());
            at += fed.consumed;
            match fed.event {
                Event::More => {
                    assert_eq!(at, end.max(at), "More consumes everything");
                    break;
                }
                Event::NeedWhole(n) => {
                    assert!(n > piece.len() - fed.consumed && n <= STATE_PACKET_MAX);
                    break;
                }
                Event::Done => {
                    if seen.last().is_none_or(|(_, e, _)| *e != Event::Done) {
                        seen.push((at, Event::Done, None));
                    }
                    break;
                }
                event => {
                    let base = at - fed.consumed;
                    let packet = cursor.summary().state_packet;
                    seen.push((at, event, packet.map(|(s, e)| (base + s, base + e))));
                    if event == Event::StateChange {
                        assert_eq!(packet.map(|p| p.1), Some(fed.consumed));
                    }
                }
            }
        }
    }
    let mut summary = *cursor.summary();
    summary.state_packet = None;
    (seen, summary)
}

fn cursor_for(exchange: &Exchange, report: bool) -> ResponseCursor {
    let mut cursor = ResponseCursor::new(exchange.caps);
    cursor.report_state(report);
    cursor
}

#[test]
fn recorded_responses_end_where_the_server_stopped() {
    let mut count = 0;
    for ex in exchanges() {
        for report in [true, false] {
            let mut cursor = cursor_for(&ex, report);
            let (seen, summary) = drive(&mut cursor, ex.kind, &ex.response, &[]);
            assert!(summary.done, "{} {seen:?}", ex.name);
            assert_eq!(
                seen.last().map(|s| (s.0, s.1)),
                Some((ex.response.len(), Event::Done)),
                "{}",
                ex.name
            );
            assert!(cursor.at_packet_border());
            if !report {
                assert!(seen.iter().all(|s| s.1 != Event::StateChange));
            }
        }
        count += 1;
    }
    assert!(count > 150, "{count} exchanges");
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    for ex in exchanges().filter(|ex| ex.response.len() < 2_000) {
        for report in [true, false] {
            let mut cursor = cursor_for(&ex, report);
            let whole = drive(&mut cursor, ex.kind, &ex.response, &[]);
            for cut in 0..ex.response.len() {
                let parts = drive(&mut cursor, ex.kind, &ex.response, &[cut]);
                assert_eq!(parts, whole, "{} cut at {cut}", ex.name);
            }
            let each: Vec<_> = (0..ex.response.len()).collect();
            let parts = drive(&mut cursor, ex.kind, &ex.response, &each);
            assert_eq!(parts, whole, "{} byte by byte", ex.name);
        }
    }
}

#[test]
fn state_packets_hold_the_block() {
    let mut blocks = 0;
    for ex in exchanges() {
        let mut cursor = cursor_for(&ex, true);
        let (seen, _) = drive(&mut cursor, ex.kind, &ex.response, &[]);
        for (at, event, packet) in seen {
            if event != Event::StateChange {
                continue;
            }
            let (start, end) = packet.expect("where it lies");
            assert_eq!(end, at);
            let (payload, used, _) =
                crate::wire::packet(&ex.response[start..end]).expect("one packet");
            assert_eq!(used, end - start);
            let ok = crate::wire::OkPacket::parse(payload, ex.caps).expect("an OK");
            let block = ok.session_state.expect("a block");
            for change in crate::wire::changes(block) {
                change.expect("well formed");
            }
            assert_eq!(ok.build(ex.caps), payload, "{}", ex.name);
            blocks += 1;
        }
    }
    assert!(blocks > 20, "{blocks} blocks");
}

fn summary_of(name: &str) -> Summary {
    let ex = exchanges()
        .find(|ex| ex.name == name)
        .unwrap_or_else(|| panic!("no {name}"));
    drive(&mut cursor_for(&ex, true), ex.kind, &ex.response, &[]).1
}

#[test]
fn summaries_tell_what_happened() {
    for family in ["mariadb", "mysql"] {
        for mode in ["eof", "ok"] {
            let of = |name: &str| summary_of(&format!("{family}.{mode}.{name}"));
            let insert = of("insert");
            assert_eq!((insert.affected_rows, insert.insert_id), (1, 4));
            assert!(insert.status.has(Status::IN_TRANS));
            assert!(of("select_in_trx").status.has(Status::IN_TRANS));
            assert_eq!((of("rows").columns, of("rows").result_sets), (3, 1));
            assert_eq!(of("multi").result_sets, 2);
            assert!(of("multi").is_error);
            assert_eq!(of("call").result_sets, 2);
            assert_eq!(of("error").error_code, 1054);
            assert_eq!(of("midrow_error").error_code, 1690);
            assert_eq!(of("midrow_error").result_sets, 1);
            let prepare = of("prepare_both").prepare.expect("prepared");
            assert_eq!((prepare.columns, prepare.params), (2, 2));
            assert!(of("execute_cursor").status.has(Status::CURSOR_EXISTS));
            assert!(of("fetch_end").status.has(Status::LAST_ROW_SENT));
            assert_eq!(of("infile").affected_rows, 2);
        }
    }
}

fn feed_all(caps: Capabilities, kind: ResponseKind, stream: &[u8], step: usize) -> Summary {
    let cuts: Vec<_> = (0..stream.len()).step_by(step).collect();
    drive(&mut ResponseCursor::new(caps), kind, stream, &cuts).1
}

/// One column, its definition, and the EOF after it where there is one.
fn result_head(caps: Capabilities, seq: &mut u8) -> Vec<u8> {
    let mut out = Vec::new();
    put_packet(&mut out, seq, &[1]);
    put_packet(&mut out, seq, b"\x03def\0\0\0\x01a\0\x0c\x3f\0");
    if !caps.has(Capabilities::DEPRECATE_EOF) {
        put_packet(&mut out, seq, &[0xFE, 0, 0, 2, 0]);
    }
    out
}

fn result_end(caps: Capabilities, seq: &mut u8, out: &mut Vec<u8>) {
    if caps.has(Capabilities::DEPRECATE_EOF) {
        put_packet(out, seq, &[0xFE, 0, 0, 2, 0, 5, 0]);
    } else {
        put_packet(out, seq, &[0xFE, 5, 0, 2, 0]);
    }
}

#[test]
fn rows_of_many_packets_may_look_like_anything() {
    for caps in [Capabilities::NONE, Capabilities::DEPRECATE_EOF] {
        // The value of a row ≥ 16 MB begins with 0xFE; where the second
        // packet starts, stands what would be an EOF or an error.
        for filler in [0xFE, 0xFF, 0x00] {
            for len in [PAYLOAD_MAX - 9, PAYLOAD_MAX, 2 * PAYLOAD_MAX + 3] {
                let mut seq = 1;
                let mut stream = result_head(caps, &mut seq);
                let mut row = vec![0xFE];
                row.extend_from_slice(&(len as u64).to_le_bytes());
                row.resize(9 + len, filler);
                put_packet(&mut stream, &mut seq, &row);
                result_end(caps, &mut seq, &mut stream);
                let s = feed_all(caps, ResponseKind::Generic, &stream, 16 << 10);
                assert!(s.done && !s.is_error, "{caps:?} {filler} {len}");
                assert_eq!(s.warnings, 5);
            }
        }
    }
}

#[test]
fn a_long_row_with_fe_is_no_eof_without_deprecate_eof() {
    let caps = Capabilities::NONE;
    let mut seq = 1;
    let mut stream = result_head(caps, &mut seq);
    put_packet(&mut stream, &mut seq, &[0xFE, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    result_end(caps, &mut seq, &mut stream);
    assert_eq!(
        feed_all(caps, ResponseKind::Generic, &stream, 3).warnings,
        5
    );
}

#[test]
fn progress_is_no_end_only_where_negotiated() {
    let progress = {
        let mut out = Vec::new();
        put_packet(&mut out, &mut 1, b"\xff\xff\xff\x01\x01\x02\0\0\0\x04copy");
        out
    };
    let mut cursor = ResponseCursor::new(Capabilities::NONE);
    cursor.begin(ResponseKind::Generic);
    let fed = cursor.feed(&progress).expect("valid");
    assert_eq!(fed.event, Event::Done);
    assert_eq!(cursor.summary().error_code, 0xFFFF, "a SIGNAL can say so");

    let mut cursor = ResponseCursor::new(Capabilities::MARIADB_PROGRESS);
    cursor.begin(ResponseKind::Generic);
    let fed = cursor.feed(&progress).expect("valid");
    assert_eq!(fed.event, Event::More);
    let fed = cursor.feed(&[7, 0, 0, 2, 0, 3, 0, 2, 0, 0, 0]).expect("ok");
    assert_eq!(
        (fed.event, cursor.summary().affected_rows),
        (Event::Done, 3)
    );
}

#[test]
fn a_state_packet_too_large_to_hold_passes() {
    let mut payload = vec![0, 0, 0, 2, 0x40, 0, 0, 0, 0xFD, 0, 0, 0x20];
    payload.resize(2 * STATE_PACKET_MAX, b'x');
    let mut stream = Vec::new();
    put_packet(&mut stream, &mut 1, &payload);
    let caps = Capabilities::SESSION_TRACK;
    let cuts: Vec<_> = (0..stream.len()).step_by(4096).collect();
    let mut cursor = ResponseCursor::new(caps);
    let (seen, summary) = drive(&mut cursor, ResponseKind::Generic, &stream, &cuts);
    assert_eq!(seen, [(stream.len(), Event::Done, None)]);
    assert!(summary.done && summary.status.has(Status::SESSION_STATE_CHANGED));
}

#[test]
fn after_the_end_nothing_is_consumed() {
    let mut cursor = ResponseCursor::new(Capabilities::NONE);
    for kind in [None, Some(ResponseKind::None)] {
        if let Some(kind) = kind {
            cursor.begin(kind);
        }
        let fed = cursor.feed(b"\x01\0\0\0x").expect("no error");
        assert_eq!((fed.consumed, fed.event), (0, Event::Done));
    }
    cursor.begin(ResponseKind::Generic);
    let two = b"\x07\0\0\x01\0\0\0\x02\0\0\0\x07\0\0\x01\0\0\0\x02\0\0\0";
    let fed = cursor.feed(two).expect("ok");
    assert_eq!((fed.consumed, fed.event), (11, Event::Done));
}

/// Events begin with 0x00; the end is an EOF, or MySQL's OK in its place.
#[test]
fn a_dump_that_does_not_block_ends_in_either_form() {
    let eof: &[u8] = &[0xFE, 0, 0, 2, 0];
    let ok: &[u8] = &[0xFE, 0, 0, 2, 0, 0, 0];
    let long: &[u8] = &[0xFE, 0, 0, 2, 0x40, 0, 0, 0, 3, 1, 1, b'x'];
    for (caps, end) in [
        (Capabilities(0), eof),
        (Capabilities::DEPRECATE_EOF, ok),
        (Capabilities::DEPRECATE_EOF, eof),
        (Capabilities::DEPRECATE_EOF, long),
    ] {
        let mut out = Vec::new();
        let mut seq = 1;
        put_packet(&mut out, &mut seq, &[0, 1, 2, 3, 0xFE, 5, 6, 7]);
        // An event of two packets, the second of which looks like an end.
        let mut event = vec![0; PAYLOAD_MAX];
        event.extend_from_slice(end);
        put_packet(&mut out, &mut seq, &event);
        put_packet(&mut out, &mut seq, end);
        for step in [1 << 20, 4099] {
            let summary = feed_all(caps, ResponseKind::BinlogDump, &out, step);
            assert!(summary.done && !summary.is_error, "{end:?}");
            assert_eq!(summary.packets, 4);
        }
    }
}

#[test]
fn the_cursor_is_small() {
    assert!(std::mem::size_of::<ResponseCursor>() < 200);
}

const KINDS: [ResponseKind; 9] = [
    ResponseKind::None,
    ResponseKind::Generic,
    ResponseKind::Prepare,
    ResponseKind::FieldList,
    ResponseKind::Fetch,
    ResponseKind::Statistics,
    ResponseKind::ChangeUser,
    ResponseKind::BinlogDump,
    ResponseKind::OneEof,
];

/// Feeds pieces until the cursor stops for good; every call must keep within
/// the bytes and get on.
fn never_breaks(caps: u64, kind: ResponseKind, stream: &[u8], step: usize) {
    let mut cursor = ResponseCursor::new(Capabilities(caps));
    cursor.begin(kind);
    let mut at = 0;
    let mut end = 0;
    let mut calls = 0;
    while at < stream.len() || end < stream.len() {
        end = (end + step).min(stream.len());
        loop {
            calls += 1;
            assert!(calls <= 4 * stream.len() + 8, "no progress");
            let Ok(fed) = cursor.feed(&stream[at..end]) else {
                return;
            };
            assert!(fed.consumed <= end - at);
            at += fed.consumed;
            match fed.event {
                Event::Done => return,
                Event::NeedWhole(_) if end == stream.len() => return,
                Event::More | Event::NeedWhole(_) => break,
                _ => {}
            }
        }
    }
}

/// Packets whose beginnings look like something.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let head = proptest::sample::select(vec![0u8, 1, 2, 0xFB, 0xFC, 0xFE, 0xFF]);
    let payload = (head, proptest::collection::vec(any::<u8>(), 0..30));
    proptest::collection::vec(payload, 0..20).prop_map(|list| {
        let mut out = Vec::new();
        let mut seq = 1;
        for (head, mut payload) in list {
            payload.insert(0, head);
            put_packet(&mut out, &mut seq, &payload);
        }
        out
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes(
        b in proptest::collection::vec(any::<u8>(), 0..400),
        caps: u64, kind in 0usize..9, step in 1usize..64,
    ) {
        never_breaks(caps, KINDS[kind], &b, step);
    }

    #[test]
    fn arbitrary_packets(b in packets(), caps: u64, kind in 0usize..9, step in 1usize..64) {
        never_breaks(caps, KINDS[kind], &b, step);
    }

    #[test]
    fn arbitrary_packets_cut_or_not_are_read_alike(
        b in packets(), caps: u64, kind in 0usize..9, cut: prop::sample::Index,
    ) {
        let run = |cuts: &[usize]| {
            let mut cursor = ResponseCursor::new(Capabilities(caps));
            cursor.report_state(false);
            cursor.begin(KINDS[kind]);
            let mut ends = Vec::new();
            let mut at = 0;
            for end in cuts.iter().copied().chain([b.len()]) {
                loop {
                    let Ok(fed) = cursor.feed(&b[at..end]) else {
                        return (ends, *cursor.summary(), true);
                    };
                    at += fed.consumed;
                    match fed.event {
                        Event::More => break,
                        event => ends.push((at, event)),
                    }
                    if fed.event == Event::Done {
                        return (ends, *cursor.summary(), false);
                    }
                }
            }
            (ends, *cursor.summary(), false)
        };
        let cut = cut.index(b.len() + 1);
        prop_assert_eq!(run(&[cut]), run(&[]));
    }

    #[test]
    fn recorded_exchanges_in_any_pieces(pick: prop::sample::Index, step in 1usize..200, off in 0usize..200) {
        let list: Vec<_> = exchanges().collect();
        let ex = &list[pick.index(list.len())];
        let mut cursor = cursor_for(ex, true);
        let whole = drive(&mut cursor, ex.kind, &ex.response, &[]);
        let cuts: Vec<_> = (off..ex.response.len()).step_by(step).collect();
        prop_assert_eq!(drive(&mut cursor, ex.kind, &ex.response, &cuts), whole);
    }
}
