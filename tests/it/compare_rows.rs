//! Comparing on real servers: rows that are equal are called equal, every
//! planted difference is found, and repair makes them equal. What is right is
//! decided by `support::compare`, which shares no code with the product.

use crate::binlog::{UTC, now, types};
use crate::follow::{PAIRS, account, catalog, copy};
use crate::support::proc::block_on;
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server, compare};
use arc_swap::ArcSwap;
use lockstep::Side;
use lockstep::compare::divergences::{Divergences, State};
use lockstep::compare::{Barrier, Comparer, Healers, Kind, Parts, Report, Verdict};
use lockstep::follow::batch::TableName;
use lockstep::follow::heal::Healer;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

mod load;
mod odd;
mod planted;
mod speed;
mod watch;

/// The stream's name in these tests.
pub const STREAM: &str = "compare/forward";

/// A comparer of `schema`, the tables' names, and its list.
pub struct Rig {
    pub comparer: Comparer,
    pub tables: Vec<TableName>,
    pub list: Arc<Divergences>,
}

/// Healers' numbers, each its own.
fn healers(active: &Server, mirror: &Server) -> Healers {
    let accounts = (account(active, Side::Source), account(mirror, Side::Target));
    let next = AtomicUsize::new(50);
    Arc::new(move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let (active, mirror) = accounts.clone();
        Box::new(Healer::new(active, mirror, STREAM, number))
    })
}

impl Rig {
    pub fn new(
        active: &Server,
        mirror: &Server,
        schema: &'static str,
        barrier: Option<Barrier>,
    ) -> Rig {
        Rig::with(active, mirror, schema, barrier, [None, None])
    }

    /// Walks on replicas first.
    pub fn with(
        active: &Server,
        mirror: &Server,
        schema: &'static str,
        barrier: Option<Barrier>,
        replicas: [Option<String>; 2],
    ) -> Rig {
        let catalog = block_on(catalog(active, mirror, schema));
        let mut tables: Vec<TableName> = catalog
            .iter()
            .map(|(schema, table, _)| TableName {
                schema: schema.to_vec(),
                table: table.to_vec(),
            })
            .collect();
        tables.sort();
        let list: Arc<Divergences> = Arc::default();
        let parts = Parts {
            accounts: [account(active, Side::Source), account(mirror, Side::Target)],
            replicas,
            catalog: Arc::new(ArcSwap::new(catalog)),
            barrier,
            healers: Some(healers(active, mirror)),
            divergences: list.clone(),
            status: Arc::default(),
            slots: 2,
            proven: None,
        };
        Rig {
            comparer: Comparer::new(parts),
            tables,
            list,
        }
    }

    pub fn run(&self, kind: Kind, repair: bool) -> Report {
        let run = self.comparer.run(&self.tables, kind, repair);
        block_on(run).unwrap_or_else(|e| panic!("compare: {e}"))
    }

    /// What is open: table, key, kind.
    pub fn open(&self) -> BTreeSet<(String, String, String)> {
        let all = self.list.list().into_iter();
        all.filter(|d| d.state == State::Open)
            .map(|d| (d.table, d.key, format!("{:?}", d.kind)))
            .collect()
    }
}

/// A barrier for tests in which nobody writes.
pub fn quiet() -> Option<Barrier> {
    Some(Arc::new(|| Box::pin(async { Ok(()) })))
}

/// Two servers of each family, for all four pairs.
pub fn servers(options: &ServerOptions) -> Option<[[Server; 2]; 2]> {
    let start = |family| Server::start(family, options.clone());
    let pair = |family| Ok([start(family)?, start(family)?]);
    let both = || Ok::<_, crate::support::Missing>([pair(Family::MariaDb)?, pair(Family::MySql)?]);
    match both() {
        Ok(servers) => Some(servers),
        Err(missing) => {
            crate::support::skip(&missing);
            None
        }
    }
}

/// The active side and the mirror of each pair of families.
pub fn pairs(servers: &[[Server; 2]; 2]) -> [(&Server, &Server); 4] {
    let at = |family: Family| usize::from(family == Family::MySql);
    PAIRS.map(|(from, to)| {
        let [first, _] = &servers[at(from)];
        let [other, second] = &servers[at(to)];
        (first, if from == to { second } else { other })
    })
}

/// Every type on every pair: equal after a copy, and each difference planted
/// in it found and repaired.
#[test]
fn every_type_is_compared() {
    let Some(servers) = servers(&ServerOptions::args([UTC])) else {
        return;
    };
    for (active, mirror) in pairs(&servers) {
        types_compared(active, mirror);
    }
}

fn types_compared(active: &Server, mirror: &Server) {
    let (from, to) = (active.family(), mirror.family());
    let only_one = ["INET6", "UUID", "VECTOR"];
    let tables: Vec<_> = types::tables(from)
        .into_iter()
        .filter(|t| from == to || !only_one.iter().any(|d| t.definition.starts_with(d)))
        .collect();
    for server in [active, mirror] {
        server.exec(
            "DROP DATABASE IF EXISTS bt;\nDROP DATABASE IF EXISTS lockstep;\nCREATE DATABASE bt",
        );
        let mut script = types::SESSION.to_string();
        script.extend(tables.iter().map(|t| t.create.as_str()));
        server.exec(&script);
    }
    let mut script = types::SESSION.to_string();
    script.extend(tables.iter().map(|t| t.rows.as_str()));
    active.exec(&script);
    let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
    let copied = copy(
        active,
        mirror,
        "bt",
        &names,
        now(active, false),
        Arc::default(),
    );
    block_on(copied).unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
    let names: Vec<String> = names.iter().map(|n| format!("bt.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rows = compare::assert_equal(active, mirror, &names) as u64;

    let rig = Rig::new(active, mirror, "bt", quiet());
    let definition = |table: &str| {
        let mut all = tables.iter();
        all.find(|t| format!("bt.{}", t.name) == table)
            .map_or("?", |t| t.definition)
    };
    for kind in [Kind::Full, Kind::Strong] {
        let report = rig.run(kind, false);
        let found: Vec<_> = rig
            .open()
            .into_iter()
            .map(|(t, k, d)| (definition(&t).to_string(), k, d))
            .collect();
        assert!(report.is_clean(), "{from} → {to}: {found:?} {report:?}");
        assert_eq!(report.rows, rows, "{from} → {to}");
    }

    let mut wrong = types::SESSION.to_string();
    for table in &tables {
        let name = &table.name;
        wrong += &format!(
            "UPDATE {name} SET v = w, w = NULL WHERE id = 3; UPDATE {name} SET w = NULL WHERE id = 1003; UPDATE {name} SET v = NULL, w = v WHERE id = 1006; DELETE FROM {name} WHERE id = 1001; INSERT INTO {name} (id, v) VALUES (2, NULL);"
        );
    }
    mirror.exec(&wrong);
    let planted: usize = compare::compare(active, mirror, &names)
        .iter()
        .map(|d| d.different)
        .sum();
    for kind in [Kind::Full, Kind::Strong] {
        let report = rig.run(kind, false);
        assert_eq!(report.open, planted as u64, "{from} → {to}: {report:?}");
    }
    let report = rig.run(Kind::Full, true);
    let why = rig.comparer.status().repair_error.lock().clone();
    assert_eq!(why, None, "{from} → {to}");
    assert_eq!(
        report.repaired,
        planted as u64,
        "{from} → {to}: {:?}",
        rig.open()
    );
    assert_eq!(report.open, 0, "{from} → {to}: {:?}", rig.open());
    compare::assert_equal(active, mirror, &names);
    assert!(rig.run(Kind::Strong, false).is_clean(), "{from} → {to}");
    eprintln!("{from} → {to}: {rows} rows equal, {planted} planted, found and repaired");
}

/// What the sides' verdicts are about.
pub fn verdict(report: &Report, table: &str) -> Verdict {
    let mut all = report.tables.iter();
    let found = all.find(|t| t.table == table);
    found
        .unwrap_or_else(|| panic!("{table} is not in the report"))
        .verdict
        .clone()
}
