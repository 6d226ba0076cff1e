//! Bytes that no client sends: garbage, halves, wrong sequence ids and lengths,
//! before, during and after the login.

use super::{CAPABILITIES, Outcome, Rough, SSL, fixed, login, packet};
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions};

/// The server's `connect_timeout`, and the proxy's limit beside it.
const TIMEOUTS: &str = "limits: { login_timeout_ms: 2000 }\n";

type Abuse = (&'static str, fn(u16) -> Rough);

fn after_greeting(port: u16, bytes: &[u8]) -> Rough {
    let mut rough = Rough::greeted(port);
    rough.send(bytes);
    rough
}

/// Sent before the greeting was read, which is then left out.
fn before_greeting(port: u16, bytes: &[u8]) -> Rough {
    let mut rough = Rough::connect(port);
    rough.send(bytes);
    rough.read_packet().expect("greeting");
    rough
}

fn command(port: u16, bytes: &[u8]) -> Rough {
    let mut rough = Rough::logged_in(port);
    rough.send(bytes);
    rough
}

const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: database\r\n\r\n";

const LOGINS: &[Abuse] = &[
    ("silence", |p| after_greeting(p, b"")),
    ("half a login", |p| {
        after_greeting(p, &packet(1, &login())[..20])
    }),
    ("half a header", |p| after_greeting(p, &[9, 0])),
    ("a giant that never comes", |p| {
        after_greeting(p, b"\xf0\x00\x01\x01xxxx")
    }),
    ("sequence 0", |p| after_greeting(p, &packet(0, &login()))),
    ("sequence 7", |p| after_greeting(p, &packet(7, &login()))),
    ("an empty packet", |p| after_greeting(p, &packet(1, b""))),
    ("a short one", |p| {
        after_greeting(p, &packet(1, &login()[..10]))
    }),
    ("a user without an end", |p| {
        after_greeting(p, &packet(1, &[&fixed(CAPABILITIES)[..], b"root"].concat()))
    }),
    ("HTTP", |p| after_greeting(p, HTTP)),
    ("HTTP at once", |p| before_greeting(p, HTTP)),
    ("SSH at once", |p| {
        before_greeting(p, b"SSH-2.0-OpenSSH_9.2\r\n")
    }),
    ("TLS at once", |p| {
        let hello = [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            &[b'a'; 505],
        ]
        .concat();
        before_greeting(p, &hello)
    }),
];

const COMMANDS: &[Abuse] = &[
    ("a query of sequence 1", |p| {
        command(p, &packet(1, b"\x03SELECT 1"))
    }),
    ("a ping of sequence 255", |p| {
        command(p, &packet(255, b"\x0e"))
    }),
    ("a QUIT of sequence 5", |p| command(p, &packet(5, b"\x01"))),
    ("an empty one of sequence 3", |p| {
        command(p, &packet(3, b""))
    }),
    ("HTTP", |p| command(p, HTTP)),
    ("one out of order, one in order", |p| {
        let both = [packet(1, b"\x03SELECT 1"), packet(0, b"\x0e")].concat();
        command(p, &both)
    }),
    ("half a header", |p| command(p, &[5, 0])),
    ("a header alone", |p| command(p, &[9, 0, 0, 0])),
    ("half a query", |p| {
        command(p, &packet(0, b"\x03SELECT 1")[..8])
    }),
    ("a giant that never comes", |p| {
        command(p, b"\xff\xff\xff\x00\x03SELECT 1")
    }),
    ("a second packet out of order", |p| {
        let mut bytes = b"\xff\xff\xff\x00\x03SELECT ".to_vec();
        bytes.resize(4 + 0xFF_FFFF, b' ');
        bytes.extend_from_slice(b"\x01\x00\x00\x051");
        command(p, &bytes)
    }),
    ("an EXECUTE of nothing", |p| {
        command(p, &packet(0, b"\x17\x4d\x00\x00\x00\x00\x01\x00\x00\x00"))
    }),
    ("NUL bytes", |p| command(p, &packet(0, b"\x03\0\0\0"))),
    ("no query", |p| command(p, &packet(0, b"\x03"))),
    ("every byte", |p| {
        let all: Vec<u8> = std::iter::once(3).chain(0..=255).collect();
        command(p, &packet(0, &all))
    }),
];

/// Pipelined before the greeting was read. Packets after the login may not be
/// those of a `SELECT`, whose metadata differ with the address.
const PIPELINED: &[Abuse] = &[("a login and a ping before the greeting", |p| {
    before_greeting(p, &[packet(1, &login()), packet(0, b"\x0e")].concat())
})];

fn all_at_once(port: u16, abuses: &[Abuse]) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let running: Vec<_> = abuses
            .iter()
            .map(|(_, abuse)| scope.spawn(move || abuse(port).rest()))
            .collect();
        running
            .into_iter()
            .map(|r| r.join().expect("abuse"))
            .collect()
    })
}

fn scene(family: Family) -> Result<(Server, Server, Proxy), crate::support::Missing> {
    let args = [
        "--connect-timeout=2",
        "--max-connect-errors=100000",
        "--max-allowed-packet=64M",
    ];
    let source = Server::start(family, ServerOptions::args(args))?;
    let target = Server::start(family, ServerOptions::args(args))?;
    let mut options = ProxyOptions::route("r", &["t.*"]);
    options.extra_yaml = TIMEOUTS.to_string();
    let proxy = Proxy::start(&source, &target, options);
    Ok((source, target, proxy))
}

#[test]
fn abuse_is_answered_as_the_server_answers_it() {
    for family in Family::BOTH {
        let (source, _target, proxy) = crate::or_skip!(scene(family));
        let mut wrong = Vec::new();
        for routed in [false, true] {
            let abuses: Vec<Abuse> = [LOGINS, COMMANDS, PIPELINED].concat();
            let (direct, proxied) = std::thread::scope(|scope| {
                let direct = scope.spawn(|| all_at_once(source.port(), &abuses));
                let proxied = all_at_once(proxy.port(), &abuses);
                (direct.join().expect("direct"), proxied)
            });
            for ((abuse, direct), proxied) in abuses.iter().zip(direct).zip(proxied) {
                if proxied != direct {
                    wrong.push(format!("{}: {proxied:?}, directly {direct:?}", abuse.0));
                }
            }
            if !routed {
                proxy.must_advance("r", "source_first");
            }
        }
        assert!(wrong.is_empty(), "{family}:\n{}", wrong.join("\n"));
        // Nobody else has noticed.
        let fine = Rough::logged_in(proxy.port());
        drop(fine);
    }
}

/// A login larger than any client's is refused without being read; a server
/// reads it, for whom its `max_allowed_packet` is the limit.
#[test]
fn a_giant_login_is_refused_at_its_header() {
    let (_source, _target, proxy) = crate::or_skip!(scene(Family::MariaDb));
    for bytes in [
        b"\xff\xff\xff\x01xxxx".to_vec(),
        packet(1, &[login(), vec![b'x'; 1_000_000]].concat()),
    ] {
        let outcome = after_greeting(proxy.port(), &bytes).rest();
        assert!(outcome.closed, "{outcome:?}");
        let (seq, text) = outcome.packets.first().cloned().expect("an error");
        assert_eq!(seq, 2);
        assert!(text.starts_with("\\xff\\x81\\x04#08S01"), "{text}");
    }
}

/// A client that sends a byte now and then is not waited for beyond the limit.
#[test]
fn a_slow_login_ends_at_the_limit() {
    for family in Family::BOTH {
        let (_source, _target, proxy) = crate::or_skip!(scene(family));
        let mut rough = Rough::greeted(proxy.port());
        let (outcome, took) = super::timed(|| {
            for byte in packet(1, &login()).iter().take(30) {
                rough.send(&[*byte]);
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            rough.rest()
        });
        assert!(outcome.closed, "{family}: {outcome:?}");
        println!("{family}: ended after {took:?} with {outcome:?}");
        let told = outcome
            .packets
            .iter()
            .any(|(_, p)| p.contains("08S01Got timeout"));
        assert_eq!(told, family == Family::MySql, "{outcome:?}");
    }
}

/// TLS that breaks: the same error, in the clear, behind TLS's own alert.
#[test]
fn broken_tls_is_told() {
    for family in Family::BOTH {
        let (source, _target, proxy) = crate::or_skip!(scene(family));
        let request = packet(1, &fixed(CAPABILITIES | SSL));
        let bytes = [
            request,
            b"not TLS at all, and long enough for a record".to_vec(),
        ]
        .concat();
        let direct = after_greeting(source.port(), &bytes).rest();
        let mut proxied = Rough::greeted(proxy.port());
        proxied.send(&bytes);
        let mut got = Vec::new();
        let _ = std::io::Read::read_to_end(&mut proxied.0, &mut got);
        // An alert is a record of seven bytes, of type 21.
        let behind = if got.first() == Some(&21) {
            &got[7..]
        } else {
            &got[..]
        };
        assert_eq!(super::packets(behind), direct.packets, "{family}");
    }
}
