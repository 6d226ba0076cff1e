//! The response cursor: however the bytes arrive, it sees the same answer.
//!
//! Input: answer's kind, capabilities, a seed for the cuts, the stream.

use lockstep::wire::response::STATE_PACKET_MAX;
use lockstep::wire::{Capabilities, Event, OkPacket, ResponseCursor, ResponseKind, Summary};

use crate::Input;

const KINDS: [ResponseKind; 9] = [
    ResponseKind::Generic,
    ResponseKind::Prepare,
    ResponseKind::FieldList,
    ResponseKind::Fetch,
    ResponseKind::Statistics,
    ResponseKind::ChangeUser,
    ResponseKind::BinlogDump,
    ResponseKind::OneEof,
    ResponseKind::None,
];

/// Where an event came, its name, and the packet it is about.
type Noted = (usize, &'static str, Option<(usize, usize)>);

/// What was seen: events with the offset where they came, and how it ended.
#[derive(PartialEq, Debug)]
struct Seen {
    events: Vec<Noted>,
    summary: Summary,
    failed: bool,
    consumed: usize,
}

/// Feeds the stream in pieces that `cut` chooses; bytes that the cursor asks
/// to see whole are fed again with more behind them.
fn follow(
    stream: &[u8],
    caps: Capabilities,
    kind: ResponseKind,
    cut: &mut dyn FnMut() -> usize,
) -> Seen {
    let mut cursor = ResponseCursor::new(caps);
    cursor.begin(kind);
    let mut seen = Seen {
        events: Vec::new(),
        summary: Summary::default(),
        failed: false,
        consumed: 0,
    };
    let mut at = 0;
    let mut fed_to = 0;
    while fed_to < stream.len() || at < fed_to {
        if at >= fed_to {
            fed_to = (at + cut().max(1)).min(stream.len());
        }
        let fed = match cursor.feed(&stream[at..fed_to]) {
            Ok(fed) => fed,
            Err(_) => {
                seen.failed = true;
                break;
            }
        };
        assert!(fed.consumed <= fed_to - at, "consumed more than was fed");
        let state = cursor
            .summary()
            .state_packet
            .map(|(from, to)| (at + from, at + to));
        at += fed.consumed;
        match fed.event {
            Event::More => assert_eq!(at, fed_to, "More leaves nothing behind"),
            Event::NeedWhole(n) => {
                assert!((4..=STATE_PACKET_MAX).contains(&n), "asks for {n}");
                assert!(n > fed_to - at, "asks for what it has");
                if at + n > stream.len() {
                    break;
                }
                fed_to = (at + n + cut()).min(stream.len());
            }
            Event::Done => {
                seen.events.push((at, "done", None));
                break;
            }
            Event::InfileRequest => seen.events.push((at, "infile", None)),
            Event::AuthContinue => seen.events.push((at, "auth", None)),
            Event::StateChange => {
                let (from, to) = state.expect("a state packet");
                assert_eq!(to, at, "the state packet ends where it stopped");
                let ok = OkPacket::parse(&stream[from + 4..to], caps);
                assert!(ok.is_ok_and(|ok| ok.session_state.is_some()) || to - from > 4);
                seen.events.push((at, "state", Some((from, to))));
                if cursor.is_done() {
                    break;
                }
            }
        }
    }
    seen.summary = Summary {
        state_packet: None,
        ..*cursor.summary()
    };
    seen.consumed = at;
    if seen.failed {
        // Where in the pieces it failed is not the same; that it failed is.
        seen.summary = Summary::default();
        seen.consumed = 0;
    }
    seen
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let kind = KINDS[usize::from(input.byte()) % KINDS.len()];
    let flags = input.byte();
    let mut caps = Capabilities::from_parts(0, 0);
    for (bit, cap) in [
        Capabilities::DEPRECATE_EOF,
        Capabilities::SESSION_TRACK,
        Capabilities::PROTOCOL_41,
        Capabilities::MARIADB_PROGRESS,
        Capabilities::TRANSACTIONS,
        Capabilities::PS_MULTI_RESULTS,
    ]
    .into_iter()
    .enumerate()
    {
        if flags >> bit & 1 == 1 {
            caps = caps.with(cap);
        }
    }
    let mut seed = u64::from(input.byte()) | 1;
    let stream = input.0;
    let whole = follow(stream, caps, kind, &mut || stream.len());
    let single = follow(stream, caps, kind, &mut || 1);
    assert_eq!(whole, single, "byte by byte");
    let pieces = follow(stream, caps, kind, &mut || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 40) as usize % 37
    });
    assert_eq!(whole, pieces, "in pieces");
}
