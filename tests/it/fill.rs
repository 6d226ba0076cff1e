//! Fill under fire (issue 4, "Done when"): an empty target is filled through
//! `advance --to syncing` while 16 clients write to the source in every way that
//! moves rows under a copy's feet. At the end every row is equal by a comparison
//! that is not the project's, the follower is close behind, nobody on the source
//! has ever waited for the service account, and the route goes on to
//! `source_first` without `--force`.

use crate::or_skip;
use crate::support::proc::wait_for;
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use std::time::{Duration, Instant};

mod again;
mod dump;
mod load;
mod locks;
mod unbuilt;
mod unlogged;

/// For a copy of the quick size, on a machine that is busy with other tests.
const COPIED: Duration = Duration::from_secs(240);
/// And of the full size.
const SOAK_COPIED: Duration = Duration::from_secs(7200);

/// How large it is.
#[derive(Clone, Copy)]
pub struct Size {
    /// Rows of the sysbench-like table.
    pub rows: u32,
    /// Orders of the shop.
    pub orders: u32,
    /// Rows of one big transaction.
    pub big: u32,
    /// Between two of them.
    pub rest: Duration,
    copied: Duration,
}

const QUICK: Size = Size {
    rows: 100_000,
    orders: 6_000,
    big: 20_000,
    rest: Duration::from_secs(6),
    copied: COPIED,
};

const FULL: Size = Size {
    rows: 2_000_000,
    orders: 100_000,
    big: 100_000,
    rest: Duration::from_secs(20),
    copied: SOAK_COPIED,
};

fn fill(from: (Family, usize), to: (Family, usize), prefix: &str, size: Size) {
    let source = or_skip!(servers::shared(from.0, from.1));
    let target = or_skip!(servers::shared(to.0, to.1));
    filled(source, target, prefix, size);
}

/// Goes to `syncing` as an operator does: a transaction of 100,000 rows may
/// take longer than the drain waits, which refuses the step and names it.
fn begin(proxy: &Proxy, pair: &str, size: Size) {
    wait_for("a moment without a long transaction", size.copied, || {
        let answer = proxy.advance("fill", Some("syncing"), false);
        let open = answer.body.contains("beyond the drain limit");
        assert!(answer.ok() || open, "{pair}: {answer:?}\n{}", proxy.log());
        answer.ok()
    });
}

fn filled(source: &'static Server, target: &'static Server, prefix: &str, size: Size) {
    let pair = format!("{} to {}", source.family(), target.family());
    let tables = load::Tables::new(prefix);
    tables.drop(target);
    tables.create(source, size);
    let glob = format!("t.{prefix}*");
    let mut options = ProxyOptions::route("fill", &[&glob]);
    options.extra_yaml = crate::order::USERS.to_owned();
    let proxy = Proxy::start(source, target, options);
    let clients = load::Load::start(&proxy, &tables, size);
    let locks = locks::Sampler::start(source, prefix);
    let began = Instant::now();
    begin(&proxy, &pair, size);
    wait_for("the copy", size.copied, || {
        let route = proxy.route("fill");
        let follow = &route["follow"];
        assert_ne!(follow["state"], "stopped", "{pair}: {route:#}");
        route["copy"]["state"] == "done"
    });
    let copied = began.elapsed();
    // Changes go on once all is there.
    std::thread::sleep(Duration::from_secs(1));
    let done = clients.stop();
    let waits = locks.stop();
    let stopped = Instant::now();
    // A lag below a second, seen a second later, is one behind the last write.
    std::thread::sleep(Duration::from_secs(1));
    let mut lag = 0;
    wait_for("a follower that is close behind", size.copied, || {
        let follow = proxy.route("fill")["follow"].clone();
        lag = follow["lag_ms"].as_u64().unwrap_or(u64::MAX);
        follow["state"] == "running" && lag < 500
    });
    let caught_up = stopped.elapsed();
    let rows = dump::assert_equal(source, target, &tables.all());
    println!(
        "{pair}: {rows} rows equal; copied in {copied:?} beside {done}; lag {lag} ms \
         {caught_up:?} after the last write; {waits}"
    );
    waits.assert_none_is_ours();
    let answer = proxy.advance("fill", Some("source_first"), false);
    assert!(answer.ok(), "{pair}: {answer:?}\n{}", proxy.log());
    let clients = load::Load::start(&proxy, &tables, size);
    std::thread::sleep(Duration::from_secs(1));
    clients.stop();
    proxy.wait_followed("fill", size.copied);
    dump::assert_equal(source, target, &tables.all());
    let answer = proxy.rollback("fill", Some("source_only"), true);
    assert!(answer.ok(), "{pair}: {answer:?}");
}

#[test]
fn mariadb_to_mariadb_under_fire() {
    fill((Family::MariaDb, 0), (Family::MariaDb, 1), "fma_", QUICK);
}

#[test]
fn mysql_to_mariadb_under_fire() {
    fill((Family::MySql, 0), (Family::MariaDb, 1), "fyx_", QUICK);
}

#[test]
fn soak_fill_all_pairs_under_fire() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    use Family::{MariaDb, MySql};
    for (from, to, prefix) in [
        (MariaDb, MariaDb, "sma_"),
        (MySql, MySql, "syy_"),
        (MariaDb, MySql, "smx_"),
        (MySql, MariaDb, "syx_"),
    ] {
        fill((from, 0), (to, 1), prefix, FULL);
    }
}
