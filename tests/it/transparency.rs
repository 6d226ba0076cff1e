//! An application cannot tell the proxy from the server it talks to.
//!
//! Every kind of statement runs on a server directly and then, on the same
//! tables, through the proxy: with all routes in `source_only` and again in
//! `source_first`, where writes go through the mirror. All packets are kept and
//! compared byte by byte, sequence ids included: rows, column metadata, errors,
//! affected rows, insert ids, warning counts, info texts, status flags and
//! session tracking. So are the rows that are left in the source's tables.
//!
//! What is made equal before the comparison is in `run::comparable`; what the
//! greeting does not offer is in `lockstep::wire::capability::MASKED`.

mod cases;
pub mod raw;
pub mod run;
mod schema;
pub mod special;

use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions};
use cases::{CASES, Needs};
use lockstep::wire::Capabilities;
use lockstep::wire::capability::MASKED;
use lockstep::wire::greeting::Greeting;
use raw::{Login, MODERN, ORDINARY, Raw};
use run::{Exchange, Mode, Run, broken, comparable};
use schema::{DATABASE, EACH, ONCE, OTHER, Tables};
use special::{SPECIALS, Special};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many differences a failure prints.
const SHOWN: usize = 150;

/// Every combination of text and prepared with the old and the modern form of
/// results; the last is what the families' own newest clients ask for.
fn modes(family: Family) -> Vec<Mode> {
    let mode = |name, capabilities| Mode {
        name,
        capabilities,
        prepared: false,
        diagnostics: false,
    };
    let newest = match family {
        Family::MySql => MODERN.with(Capabilities::QUERY_ATTRIBUTES),
        Family::MariaDb => MODERN.with(Capabilities::MARIADB_EXTENDED_METADATA),
    };
    vec![
        mode("text", MODERN),
        Mode {
            prepared: true,
            ..mode("prepared", MODERN)
        },
        Mode {
            diagnostics: true,
            ..mode(
                "text, old results, found rows",
                ORDINARY.with(Capabilities::FOUND_ROWS),
            )
        },
        Mode {
            prepared: true,
            ..mode(
                "prepared, old results",
                ORDINARY.with(Capabilities::INTERACTIVE),
            )
        },
        mode("text, newest", newest),
    ]
}

/// The modes that are compared in `source_only`.
const RELAYED: [&str; 2] = ["text", "prepared, old results"];

/// One thing to run in one mode.
#[derive(Clone, Copy)]
pub enum What {
    List(usize),
    Special(&'static Special),
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::List(i) => CASES[i].name,
            What::Special(special) => special.name,
        }
    }

    fn writes(self) -> bool {
        match self {
            What::List(i) => CASES[i].needs == Needs::Tables,
            What::Special(_) => true,
        }
    }
}

/// Cases that take a second or more on a server: in one mode only.
const SLOW: [&str; 6] = [
    "change_user",
    "change_user_refused",
    "killed_by_another",
    "large_packets",
    "large_parameters",
    "lock_wait",
];

/// The cases of a family in a mode. The environment variable
/// `LOCKSTEP_TEST_CASE` picks those whose name contains it.
fn plan(family: Family, mode: Mode) -> Vec<What> {
    // Without the flag a client has nothing to track with; that MariaDB lets
    // the status bit show even then is not imitated.
    let tracking = mode.capabilities.has(Capabilities::SESSION_TRACK);
    let lists = (0..CASES.len()).filter(|i| {
        CASES[*i].only.is_none_or(|f| f == family)
            && (tracking || !CASES[*i].name.starts_with("session tracking"))
    });
    // They choose between text and prepared themselves.
    let specials = SPECIALS.iter().filter(|special| {
        let slow = SLOW.contains(&special.name);
        !mode.prepared && (!slow || mode.name == "text")
    });
    lists
        .map(What::List)
        .chain(specials.map(What::Special))
        .collect()
}

/// Whether the environment asks for this case.
fn wanted(what: &What) -> bool {
    let wanted = std::env::var("LOCKSTEP_TEST_CASE").unwrap_or_default();
    what.name().contains(&wanted)
}

/// Root connections to both servers, to make tables and look at rows.
struct Admins {
    source: Raw,
    target: Option<Raw>,
    /// What cases may have changed since it was made.
    dirty: Vec<&'static str>,
}

impl Admins {
    fn connect(source: &Server, target: Option<&Server>) -> Admins {
        let admin = |server: &Server| {
            let mut login = Login::root("", MODERN);
            login.database = None;
            Raw::connect(server.port(), &login).expect("admin connection")
        };
        let mut admins = Admins {
            source: admin(source),
            target: target.map(admin),
            dirty: Vec::new(),
        };
        for name in [DATABASE, OTHER] {
            admins.both(&format!(
                "CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4"
            ));
        }
        admins.fresh_tables(EACH.iter());
        ONCE.iter().for_each(|sql| admins.both(sql));
        admins
    }

    fn both(&mut self, sql: &str) {
        for raw in [Some(&mut self.source), self.target.as_mut()]
            .into_iter()
            .flatten()
        {
            let packets = raw.query(sql).expect("admin statement");
            let failed = packets.iter().find(|p| p.payload.first() == Some(&0xFF));
            let failed = failed.map(|p| p.payload.escape_ascii().to_string());
            assert!(failed.is_none(), "{sql}: {failed:?}");
        }
    }

    fn fresh_tables(&mut self, tables: impl Iterator<Item = &'static Tables>) {
        let tables: Vec<&'static Tables> = tables.collect();
        self.dirty
            .retain(|dirty| tables.iter().all(|t| t.words[0] != *dirty));
        let all: Vec<&str> = tables.iter().flat_map(|t| t.make).copied().collect();
        if !all.is_empty() {
            self.both(&all.join("; "));
        }
    }

    /// What the tables on the source hold.
    fn state(&mut self, tables: &[&'static Tables]) -> Vec<Exchange> {
        let names = tables.iter().flat_map(|t| t.rows);
        let exchanges = names.map(|name| Exchange {
            what: format!("afterwards {name}"),
            packets: self
                .source
                .query(&format!("SELECT * FROM {name} ORDER BY id"))
                .expect("rows"),
        });
        exchanges.collect()
    }
}

/// Runs one case on a port. A broken connection is part of the record.
fn record(admins: &mut Admins, port: u16, family: Family, what: What, mode: Mode) -> Vec<Exchange> {
    let named: Vec<&'static Tables> = match what {
        What::List(i) => schema::named_in(CASES[i].sql.iter().copied()).collect(),
        What::Special(_) => schema::named_in(["a b o"].into_iter()).collect(),
    };
    let stale = named.iter().filter(|t| admins.dirty.contains(&t.words[0]));
    let stale: Vec<&'static Tables> = stale.copied().collect();
    admins.fresh_tables(stale.into_iter());
    if what.writes() {
        admins.dirty.extend(named.iter().map(|t| t.words[0]));
    }
    let mut run = Run::start(port, DATABASE, mode).expect("connect");
    let said = match what {
        What::List(i) => CASES[i].sql.iter().try_for_each(|sql| run.q(sql)),
        What::Special(special) => (special.run)(&mut run, family),
    };
    if let Err(error) = said.and_then(|()| run.finish()) {
        run.fact("the connection broke", broken(&error));
    }
    let mut record = std::mem::take(&mut run.record);
    drop(run);
    if what.writes() {
        record.extend(admins.state(&named));
    }
    record
}

/// Differences between two records of one case, described.
fn differences(direct: &[Exchange], proxied: &[Exchange], mode: Mode) -> Vec<String> {
    let mut found = Vec::new();
    for (d, p) in direct.iter().zip(proxied) {
        if d.what != p.what {
            found.push(format!("{}\n      instead: {}", d.what, p.what));
            break;
        }
        let flat = |e: &Exchange| -> Vec<(u8, Vec<u8>)> {
            let packets = e.packets.iter();
            packets
                .map(|x| (x.seq, comparable(&x.payload, mode.capabilities)))
                .collect()
        };
        let (dd, pp) = (flat(d), flat(p));
        let at = dd.iter().zip(&pp).position(|(a, b)| a != b);
        let at = at.or((dd.len() != pp.len()).then_some(dd.len().min(pp.len())));
        if let Some(at) = at {
            found.push(format!(
                "{}\n      packet {at} direct: {}\n      packet {at} proxy:  {}",
                d.what,
                packet(dd.get(at), pp.get(at)),
                packet(pp.get(at), dd.get(at)),
            ));
        }
    }
    if direct.len() != proxied.len() && found.is_empty() {
        found.push(format!(
            "{} exchanges instead of {}",
            proxied.len(),
            direct.len()
        ));
    }
    found
}

/// A packet for people: from a little before the first byte that differs.
fn packet(packet: Option<&(u8, Vec<u8>)>, other: Option<&(u8, Vec<u8>)>) -> String {
    let Some((seq, payload)) = packet else {
        return "none".to_string();
    };
    let other = other.map_or(&[][..], |(_, p)| p);
    let same = payload
        .iter()
        .zip(other)
        .take_while(|(a, b)| a == b)
        .count();
    let from = if payload.len() < 160 {
        0
    } else {
        same.saturating_sub(40).min(payload.len())
    };
    let part = &payload[from..payload.len().min(from + 160)];
    format!(
        "#{seq} {} bytes, from {from}: {}",
        payload.len(),
        part.escape_ascii()
    )
}

/// What the proxy may and must greet as: home's greeting without the masked
/// flags and those the other backend lacks.
fn greeting_faults(source: &Greeting, target: &Greeting, proxy: &Greeting) -> Vec<String> {
    let masked = MASKED
        .iter()
        .fold(Capabilities::NONE, |all, (flag, ..)| all | *flag);
    // TLS is the proxy's own; verifying is the client's.
    let own =
        Capabilities::SSL | Capabilities::SSL_VERIFY_SERVER_CERT | Capabilities::LONG_PASSWORD;
    // What only MariaDB knows is executed row by row on another server.
    let alone = source.capabilities & Capabilities::MARIADB_BULK;
    let both = source.capabilities & target.capabilities;
    let expected = (both | alone).without(masked | own);
    let offered = proxy.capabilities.without(own);
    let mut faults = Vec::new();
    if expected != offered {
        let names = |c: Capabilities| c.names().collect::<Vec<_>>();
        let (less, more) = (expected.without(offered), offered.without(expected));
        faults.push(format!(
            "capabilities: missing {:?}, extra {:?}",
            names(less),
            names(more)
        ));
    }
    let long = Capabilities::LONG_PASSWORD;
    if proxy.capabilities.has(long) != source.capabilities.has(long) {
        faults.push("the flag that tells the families apart".to_string());
    }
    let rest = |g: &Greeting| {
        (
            g.protocol,
            g.version.clone(),
            g.charset,
            g.status,
            g.auth_plugin.clone(),
        )
    };
    if rest(source) != rest(proxy) {
        faults.push("version, charset, status or plugin".to_string());
    }
    faults
}

/// Packets above 16 MiB, files of the client's, and, for the many tables made
/// here, no fsync for each.
pub fn options(family: Family) -> ServerOptions {
    let mut options = ServerOptions::args(["--max-allowed-packet=64M", "--local-infile=1"]);
    if family == Family::MariaDb {
        options.args.push("--sync-frm=0".to_string());
    }
    options
}

/// Runs everything on a pair of servers and panics with what differs.
fn compare_all(source: Family, target: Family, phases: &[&str], modes: &[Mode]) {
    let source = crate::or_skip!(Server::start(source, options(source)));
    let target = crate::or_skip!(Server::start(target, options(target)));
    let mirrored = compare_cases(&source, &target, phases, modes, &plan);
    if phases.contains(&"source_first") && std::env::var("LOCKSTEP_TEST_CASE").is_err() {
        let written = mirrored["writes_ok"].as_u64().unwrap_or_default();
        assert!(written > 100, "hardly a write was mirrored: {mirrored}");
    }
}

/// The phase in which all reads go to the mirror.
pub const READS: &str = "source_first, reads on the target";

/// Moves the route to a phase, with fresh tables on both sides.
fn enter(phase: &str, admins: &mut Admins, proxy: &Proxy) {
    if phase != "source_only" {
        admins.fresh_tables(EACH.iter());
        if proxy.phase("tr") == "source_only" {
            proxy.must_advance("tr", "source_first");
        }
    }
    if phase == READS {
        assert!(proxy.reads("tr", 100).ok());
    }
}

/// What the proxy greets as and should not.
fn greeted_otherwise(admins: &Admins, proxy: &Proxy, target: &Server) -> Vec<String> {
    let login = Login::root(DATABASE, MODERN);
    let greeted = Raw::connect(proxy.port(), &login).expect("proxy");
    let on_target = Raw::connect(target.port(), &login).expect("target");
    let source = &admins.source.greeting;
    greeting_faults(source, &on_target.greeting, &greeted.greeting)
}

/// Runs `cases` directly and through the proxy in each phase, and panics with
/// what differs. Returns what the mirror counted.
pub fn compare_cases(
    source: &Server,
    target: &Server,
    phases: &[&str],
    modes: &[Mode],
    cases: &dyn Fn(Family, Mode) -> Vec<What>,
) -> serde_json::Value {
    let mut admins = Admins::connect(source, Some(target));
    let mut options = ProxyOptions::route("tr", &["tr.*"]);
    if phases.contains(&READS) {
        // A mirror that is late once does not have what is read from it next.
        options.extra_yaml = crate::order::PATIENT.to_string();
    }
    // Everything is offered, what is not by default too.
    options.extra_yaml += "\nmariadb_bulk: relay\n";
    let proxy = Proxy::start(source, target, options);
    // Each difference with the phases and modes it was seen in.
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut runs = 0;

    let mut direct = Vec::new();
    for &mode in modes {
        for what in cases(source.family(), mode).into_iter().filter(wanted) {
            let expected = record(&mut admins, source.port(), source.family(), what, mode);
            direct.push((mode, what, expected));
        }
    }
    for phase in phases {
        enter(phase, &mut admins, &proxy);
        for fault in greeted_otherwise(&admins, &proxy, target) {
            let seen_in = found.entry(format!("greeting: {fault}")).or_default();
            seen_in.push(phase.to_string());
        }
        for (mode, what, expected) in &direct {
            // The relay alone has fewer ways to go wrong than the mirror.
            if *phase == "source_only" && !RELAYED.contains(&mode.name) {
                continue;
            }
            let seen = record(&mut admins, proxy.port(), source.family(), *what, *mode);
            runs += 1;
            for difference in differences(expected, &seen, *mode) {
                let difference = format!("{}: {difference}", what.name());
                let seen_in = format!("{phase}, {}", mode.name);
                found.entry(difference).or_default().push(seen_in);
            }
        }
    }
    let mirrored = proxy.route("tr")["mirror"].clone();
    println!(
        "{} to {}: {runs} runs compared, mirror: {mirrored}",
        source.family(),
        target.family()
    );
    let mut report = String::new();
    for (difference, seen_in) in found.iter().take(SHOWN) {
        let _ = writeln!(report, "- {difference}\n      in {}", seen_in.join("; "));
    }
    assert!(
        found.is_empty(),
        "{} kinds of differences in {runs} runs\n{report}",
        found.len()
    );
    mirrored
}

const PHASES: &[&str] = &["source_only", "source_first"];

#[test]
fn mariadb_answers_the_same_through_the_proxy() {
    let family = Family::MariaDb;
    compare_all(family, family, PHASES, &modes(family));
}

#[test]
fn mysql_answers_the_same_through_the_proxy() {
    let family = Family::MySql;
    compare_all(family, family, PHASES, &modes(family));
}

/// What the target is must not show either.
#[test]
fn mariadb_in_front_of_mysql_answers_the_same() {
    let modes = modes(Family::MariaDb);
    compare_all(
        Family::MariaDb,
        Family::MySql,
        &["source_first"],
        &modes[..3],
    );
}

/// The cases themselves: a server compared with itself shows no difference.
/// What fails here is a case that is not repeatable.
#[test]
fn every_case_is_repeatable() {
    assert!(CASES.len() + SPECIALS.len() >= 40);
    let mut report = String::new();
    for family in Family::BOTH {
        let server = crate::or_skip!(Server::start(family, options(family)));
        let mut admins = Admins::connect(&server, None);
        for mode in modes(family).into_iter().take(2) {
            for what in plan(family, mode).into_iter().filter(wanted) {
                let [one, two] =
                    [0, 1].map(|_| record(&mut admins, server.port(), family, what, mode));
                for difference in differences(&one, &two, mode) {
                    let (mode, name) = (mode.name, what.name());
                    let _ = writeln!(report, "- {family}, {mode}, {name}: {difference}");
                }
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}
