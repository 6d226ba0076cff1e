//! One fault at each packet of a login, a mirrored write, a transaction and a
//! prepared execution, in each direction, on each leg.

use super::{connect, connection_lost, insert, lacking};
use crate::order::{USERS, counts, journal};
use crate::support::breaker::{Breaker, Fault, Way};
use crate::support::census::{self, Census};
use crate::support::proc::{block_on, wait_for};
use crate::support::{Family, Missing, Proxy, ProxyOptions, Server, servers};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, TxOpts};
use std::time::Duration;

/// A broken mirror suspends its route for a second or two: each fault is given
/// the next of so many routes, so that none has to wait for that.
const ROUTES: usize = 40;
/// More than the packets of any of the scenarios.
const PACKETS_MAX: usize = 60;
/// A client that waits longer than this hangs: on a stalled active leg it does,
/// as on a stalled server.
const PATIENCE: Duration = Duration::from_secs(12);
const STALL: Duration = Duration::from_millis(400);
const RESUME_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Scenario {
    Login,
    Write,
    Transaction,
    Prepared,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario::Login,
    Scenario::Write,
    Scenario::Transaction,
    Scenario::Prepared,
];

struct Scene {
    source: &'static Server,
    target: &'static Server,
    /// Before the source, which is active, and before the mirror.
    breakers: [Breaker; 2],
    proxy: Proxy,
    prefix: String,
    rest: Census,
    /// Faults so far; picks the route.
    faults: std::cell::Cell<usize>,
}

impl Scene {
    fn start(family: Family) -> Result<Scene, Missing> {
        let (source, target) = (servers::shared(family, 0)?, servers::shared(family, 1)?);
        let prefix = format!("cut_{}", family.name());
        let mut options = ProxyOptions::default();
        for n in 0..ROUTES {
            let table = format!("{prefix}_{n}");
            for server in [source, target] {
                server.exec(&format!(
                    "DROP TABLE IF EXISTS t.{table};\nCREATE TABLE t.{table} (id INT PRIMARY KEY, v INT)"
                ));
            }
            options = options.and_route(&format!("r{n}"), &[&format!("t.{table}")]);
        }
        let breakers = [source, target].map(|s| Breaker::start(&s.address()));
        options.source_address = Some(breakers[0].address());
        options.target_address = Some(breakers[1].address());
        options.backend_tls = "off".to_string();
        options.extra_yaml = USERS.to_string();
        let proxy = Proxy::start(source, target, options);
        for n in 0..ROUTES {
            proxy.must_advance(&format!("r{n}"), "source_first");
        }
        let rest = census::at_rest(&proxy);
        Ok(Scene {
            source,
            target,
            breakers,
            proxy,
            prefix,
            rest,
            faults: std::cell::Cell::new(0),
        })
    }

    /// Every packet of a scenario, until one fault is not reached any more.
    fn every_packet(&self, scenario: Scenario, leg: usize, way: Way, fault: Fault) -> usize {
        for at in 0..PACKETS_MAX {
            if !self.one(scenario, leg, way, at, fault) {
                return at;
            }
        }
        panic!("{scenario:?}: more than {PACKETS_MAX} packets");
    }

    /// One fault. False when the scenario was over before it.
    fn one(&self, scenario: Scenario, leg: usize, way: Way, at: usize, fault: Fault) -> bool {
        let n = self.faults.replace(self.faults.get() + 1);
        let (route, table) = (n % ROUTES, format!("{}_{}", self.prefix, n % ROUTES));
        let name = format!("r{route}");
        wait_for("mirroring", RESUME_LIMIT, || {
            self.proxy.route(&name)["mirror"]["suspended"] == false
        });
        let before = counts(&self.proxy, &name);
        let differing = self.differing(&table);
        let id = n * 10;
        let breaker = &self.breakers[leg];
        let mut conn = None;
        if scenario != Scenario::Login {
            let mut warm = connect(&self.proxy).expect("login");
            insert(&mut warm, &table, id).expect("both legs open");
            conn = Some(warm);
        }
        breaker.arm(way, at, fault);
        let outcome = self.act(scenario, conn, &table, id + 1, breaker);
        let fired = breaker.disarm();
        breaker.release();
        let what = format!("{scenario:?}, leg {leg}, {way:?}, packet {at}, {fault:?}");
        match &outcome {
            Ok(()) => {}
            Err(Some(e)) if leg == 0 => assert!(connection_lost(e), "{what}: {e}"),
            Err(None) if leg == 0 => {}
            Err(Some(e)) => panic!("{what}: the client saw the mirror's fault: {e}"),
            Err(None) => panic!("{what}: the mirror's fault held the client up"),
        }
        self.judge(&what, &table, &name, before, differing, outcome.is_ok());
        fired
    }

    /// A client's part; Err(None) when it gave up waiting.
    fn act(
        &self,
        scenario: Scenario,
        conn: Option<Conn>,
        table: &str,
        id: usize,
        breaker: &Breaker,
    ) -> Result<(), Option<Error>> {
        let opts = self.proxy.opts(Some("t"));
        block_on(async {
            let releasing = async {
                while !breaker.fired() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(STALL).await;
                breaker.release();
                std::future::pending::<()>().await;
            };
            let acting = async {
                let mut conn = match conn {
                    Some(conn) => conn,
                    None => Conn::new(opts).await?,
                };
                statements(&mut conn, scenario, table, id).await?;
                conn.disconnect().await
            };
            tokio::select! {
                done = tokio::time::timeout(PATIENCE, acting) => match done {
                    Ok(done) => done.map_err(Some),
                    Err(_) => Err(None),
                },
                () = releasing => Ok(()),
            }
        })
    }

    fn differing(&self, table: &str) -> [usize; 2] {
        let table = format!("t.{table}");
        [
            lacking(self.source, self.target, &table),
            lacking(self.target, self.source, &table),
        ]
    }

    /// Rows are equal or counted; the journal has a line of the route.
    fn judge(
        &self,
        what: &str,
        table: &str,
        route: &str,
        before: crate::order::Counts,
        differing: [usize; 2],
        acknowledged: bool,
    ) {
        let explained = || {
            let now = self.differing(table);
            let after = counts(&self.proxy, route);
            let counted = after.failed + after.deferred - before.failed - before.deferred;
            // What was reported before stands in the journal already.
            let new = now[0].abs_diff(differing[0]) + now[1].abs_diff(differing[1]);
            (new == 0 || counted > 0, now, counted)
        };
        // The server may still be at the write of a client that is gone.
        let until = std::time::Instant::now() + RESUME_LIMIT;
        let mut seen = explained();
        while !seen.0 && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            seen = explained();
        }
        assert!(
            seen.0,
            "{what}: rows differ ({differing:?}, then {:?}), {} writes counted, acknowledged {acknowledged}\n{}",
            seen.1,
            seen.2,
            journal(&self.proxy)
        );
        if seen.2 > 0 {
            let lines = journal(&self.proxy);
            assert!(lines.contains(&format!("\"{route}\"")), "{what}: {lines}");
        }
    }

    fn nothing_left(&self) {
        census::assert_nothing_left(&self.proxy, self.rest, &[self.source, self.target]);
    }
}

async fn statements(
    conn: &mut Conn,
    scenario: Scenario,
    table: &str,
    id: usize,
) -> Result<(), Error> {
    let insert = format!("INSERT INTO {table} VALUES ({id}, 1)");
    match scenario {
        Scenario::Login | Scenario::Write => conn.query_drop(insert).await,
        Scenario::Transaction => {
            let mut tx = conn.start_transaction(TxOpts::default()).await?;
            tx.query_drop(insert).await?;
            let update = format!("UPDATE {table} SET v=v+1 WHERE id={id}");
            tx.query_drop(update).await?;
            tx.commit().await
        }
        Scenario::Prepared => {
            let sql = format!("INSERT INTO {table} VALUES (?, ?)");
            conn.exec_drop(sql.as_str(), (id, 1)).await?;
            let sql = format!("UPDATE {table} SET v=? WHERE id=?");
            conn.exec_drop(sql.as_str(), (7, id)).await
        }
    }
}

fn cuts(family: Family, faults: &[[&[Fault]; 2]]) {
    let scene = crate::or_skip!(Scene::start(family));
    for legs in faults {
        for (leg, faults) in legs.iter().enumerate() {
            for fault in *faults {
                for scenario in SCENARIOS {
                    for way in [Way::Asks, Way::Answers] {
                        let packets = scene.every_packet(scenario, leg, way, *fault);
                        println!(
                            "{family}: {scenario:?}, leg {leg}, {way:?}, {fault:?}: {packets} packets"
                        );
                        assert!(packets > 0, "the fault was never reached");
                    }
                }
            }
        }
    }
    scene.nothing_left();
    println!("{family}: {} faults", scene.faults.get());
}

#[test]
fn a_cut_at_every_packet_between_mariadbs() {
    cuts(Family::MariaDb, &[[&[Fault::Close], &[Fault::Reset]]]);
}

#[test]
fn a_cut_at_every_packet_between_mysqls() {
    cuts(Family::MySql, &[[&[Fault::Reset], &[Fault::Close]]]);
}

/// All faults. One that swallows what goes to or comes from the active side
/// makes the client wait for ever, as it would on the server.
#[test]
fn soak_every_fault_at_every_packet() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    let active = [Fault::Close, Fault::Reset, Fault::Half, Fault::Stall];
    for family in Family::BOTH {
        cuts(family, &[[&active, &Fault::ALL]]);
    }
}
