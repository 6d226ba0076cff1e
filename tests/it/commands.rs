//! Every command of the protocol, on every pair of servers.
//!
//! What can be compared byte by byte is: `cases` run directly and then through
//! the proxy, with the route in `source_only`, in `source_first`, and with all
//! reads on the target. What cannot (who is killed, what is counted, how much
//! memory it takes) has a test of its own.

mod bulk;
mod cases;
mod counted;
mod kill;
mod large;
mod long_data;
mod rare;
mod replication;
mod vanish;

use crate::support::{Family, Server, skip};
use crate::transparency::run::Mode;
use crate::transparency::special::{SPECIALS, Special};
use crate::transparency::{READS, What, compare_cases, options, raw::MODERN, raw::ORDINARY};
use cases::CASES;
use lockstep::wire::Capabilities;
use parking_lot::{Mutex, MutexGuard};
use std::sync::OnceLock;

/// Two servers that these tests have for themselves one after the other: large
/// packets are allowed on them, and files of the client's. Those of one family,
/// those of the other and those of both are different servers, so that their
/// tests can run at the same time.
pub struct Pair {
    pub source: &'static Server,
    pub target: &'static Server,
    _turn: MutexGuard<'static, ()>,
}

/// The pair of these families, when it is this test's turn.
fn pair(source: Family, target: Family) -> Option<Pair> {
    static SERVERS: [OnceLock<Result<Server, String>>; 6] = [const { OnceLock::new() }; 6];
    static TURNS: [Mutex<()>; 3] = [const { Mutex::new(()) }; 3];
    let kind = match (source, target) {
        (Family::MariaDb, Family::MariaDb) => 0,
        (Family::MySql, Family::MySql) => 1,
        _ => 2,
    };
    let turn = TURNS[kind].lock();
    let start = |family: Family, second: bool| {
        let own = usize::from(kind == 2 && family == Family::MySql);
        let index = 2 * kind + own + usize::from(second);
        let make = || Server::start(family, options(family)).map_err(|m| m.to_string());
        SERVERS[index].get_or_init(make).as_ref()
    };
    match (start(source, false), start(target, source == target)) {
        (Ok(source), Ok(target)) => Some(Pair {
            source,
            target,
            _turn: turn,
        }),
        (Err(why), _) | (_, Err(why)) => {
            skip(why);
            None
        }
    }
}

const PAIRS: [(Family, Family); 4] = [
    (Family::MariaDb, Family::MariaDb),
    (Family::MySql, Family::MySql),
    (Family::MariaDb, Family::MySql),
    (Family::MySql, Family::MariaDb),
];

/// What a family's newest clients ask for, and what older ones do. What only
/// one of two families knows is not offered, save for bulk.
fn modes(source: Family, target: Family) -> [Mode; 2] {
    let newest = match (source, source == target) {
        (Family::MySql, true) => MODERN.with(Capabilities::QUERY_ATTRIBUTES),
        (Family::MySql, false) => MODERN,
        (Family::MariaDb, same) => {
            let metadata = Capabilities::MARIADB_EXTENDED_METADATA;
            let own = if same { metadata } else { Capabilities::NONE };
            MODERN.with(Capabilities::MARIADB_BULK).with(own)
        }
    };
    let mode = |name, capabilities| Mode {
        name,
        capabilities,
        prepared: false,
        diagnostics: false,
    };
    // The first one's name is the one that slow cases run in.
    [mode("text", newest), mode("old", ORDINARY)]
}

/// Cases of `transparency` that are not compared in all these places there.
fn elsewhere(special: &Special) -> bool {
    const QUICK: [&str; 9] = [
        "cursor",
        "long_data",
        "reset_connection",
        "change_user",
        "multi_statements",
        "multi_statements_failing",
        "set_option",
        "field_list",
        "load_data_local",
    ];
    QUICK.contains(&special.name)
}

/// Cases that read again what they wrote by a deferred write: until a follower
/// has brought it over, the mirror does not have it.
const BEHIND: [&str; 9] = [
    "bulk",
    "load_data_local",
    "local_files",
    "multi_statements_failing",
    "procedures_in_text",
    "procedures_prepared",
    "query_attributes",
    "reset_connection",
    "xa_over_two_connections",
];

fn compare(source: Family, target: Family) {
    let Some(pair) = pair(source, target) else {
        return;
    };
    let chosen = |family: Family, slow: bool| -> Vec<What> {
        let own = CASES.iter().filter(|c| c.slow == slow);
        let own = own.filter(|c| c.only.is_none_or(|f| f == family));
        let moved = SPECIALS.iter().filter(|s| !slow && elsewhere(s));
        let own = own.map(|c| &c.special);
        own.chain(moved).map(What::Special).collect()
    };
    let modes = modes(source, target);
    let (source, target) = (pair.source, pair.target);
    let phases = ["source_only", "source_first"];
    let quick = |family: Family, _: Mode| chosen(family, false);
    compare_cases(source, target, &phases, &modes, &quick);
    let settled = |family: Family, _: Mode| -> Vec<What> {
        let all = chosen(family, false).into_iter();
        all.filter(|c| !BEHIND.contains(&c.name())).collect()
    };
    // What another family answers to a read is its own: column metadata, flags.
    // Neither are tens of megabytes sent through every pair.
    if source.family() == target.family() {
        compare_cases(source, target, &[READS], &modes, &settled);
        compare_cases(source, target, &phases, &modes[..1], &|f, _| {
            chosen(f, true)
        });
    }
}

#[test]
fn mariadb_to_mariadb() {
    compare(PAIRS[0].0, PAIRS[0].1);
}

#[test]
fn mysql_to_mysql() {
    compare(PAIRS[1].0, PAIRS[1].1);
}

#[test]
fn mariadb_to_mysql() {
    compare(PAIRS[2].0, PAIRS[2].1);
}

#[test]
fn mysql_to_mariadb() {
    compare(PAIRS[3].0, PAIRS[3].1);
}
