//! Fifty changes of the active side under load (DESIGN §7): no client notices,
//! no row differs, and the order of writes holds across them.
//!
//! The race that the gate excludes (protocol-review C7): a session of the older
//! phase and one of the newer both write, each to its own active side; both get
//! the same insert id there, and each side keeps its own row.

use crate::order::{counts, journal, patient};
use crate::support::{Family, Proxy, ProxyOptions, binlog_order, compare, servers};
use crate::workload::{Isolation, Load, Mix, Tables};
use serde_json::Value;
use std::time::Duration;

const FLIPS: usize = 50;
/// Flips with the row plane at work. Each waits until the follower is close
/// behind, which takes seconds while 32 clients want all of the machine.
const FOLLOWED: usize = 4;
/// Load between two flips.
const BETWEEN: Duration = Duration::from_millis(60);

fn flips(source: (Family, usize), target: (Family, usize), prefix: &str) {
    let source = crate::or_skip!(servers::shared(source.0, source.1));
    let target = crate::or_skip!(servers::shared(target.0, target.1));
    let tables = Tables::new(prefix, Isolation::RepeatableRead);
    tables.create(source);
    tables.create(target);
    let mut options = ProxyOptions::route("flip", &[&format!("t.{prefix}*")]);
    options.extra_yaml = patient();
    let proxy = Proxy::start(source, target, options);
    proxy.must_advance("flip", "source_first");
    let marks = [source, target].map(binlog_order::mark);
    let mix = Mix {
        hot: 10,
        others: true,
        inserts: 10,
        ..Mix::NONE
    };
    let load = Load::start(&proxy.opts(Some("t")), &tables, mix);
    let mut pauses = Vec::new();
    for n in 0..FLIPS {
        if n == FOLLOWED {
            // Nothing is healed from here on: what differs is seen at the end.
            proxy.pause("flip");
        }
        std::thread::sleep(BETWEEN);
        let answer = if n % 2 == 0 {
            proxy.advance("flip", Some("target_first"), true)
        } else {
            proxy.rollback("flip", Some("source_first"), true)
        };
        assert!(answer.ok(), "flip {n}: {answer:?}\n{}", proxy.log());
        pauses.extend(pause_ms(&answer.json()));
    }
    let report = load.stop();
    let longest = pauses.iter().copied().fold(0.0, f64::max);
    println!(
        "{} to {}: {FLIPS} flips under 32 clients, {} statements, longest pause {longest:.1} ms, \
         longest statement {:?}, the active's own errors {:?}, mirrored {:?}",
        source.family(),
        target.family(),
        report.statements,
        report.longest,
        report.expected,
        counts(&proxy, "flip")
    );
    report.assert_no_errors();
    assert_eq!(pauses.len(), FLIPS, "an answer without its pause");
    let counted = counts(&proxy, "flip");
    assert_eq!(
        (counted.failed, counted.deferred),
        (0, 0),
        "{}",
        journal(&proxy)
    );
    assert_eq!(proxy.healed("flip"), 0, "rows differed and were healed");
    compare::assert_equal(source, target, &tables.all());
    let all = tables.all();
    binlog_order::check((source, &marks[0]), (target, &marks[1]), &all).assert_same(200);
    assert!(
        longest < 3_000.0,
        "writes were held for {longest} ms at a flip"
    );
}

/// The longest pause that a step's answer names, wherever in it.
fn pause_ms(answer: &Value) -> Option<f64> {
    match answer {
        Value::Object(fields) => {
            let own = fields.get("pause_ms").and_then(Value::as_f64);
            own.or_else(|| fields.values().find_map(pause_ms))
        }
        Value::Array(items) => items.iter().filter_map(pause_ms).reduce(f64::max),
        _ => None,
    }
}

#[test]
fn fifty_flips_mariadb_to_mariadb() {
    flips((Family::MariaDb, 0), (Family::MariaDb, 1), "flipmm");
}

#[test]
fn fifty_flips_mysql_to_mysql() {
    flips((Family::MySql, 0), (Family::MySql, 1), "flipyy");
}

#[test]
fn fifty_flips_mariadb_to_mysql() {
    flips((Family::MariaDb, 0), (Family::MySql, 0), "flipmy");
}
