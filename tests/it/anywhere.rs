//! `kill -9` of the proxy, the source and the target at random instants while
//! rows are copied, followed and written to both sides under load (DESIGN §2,
//! promise 3). Servers commit durably.
//!
//! Afterwards every row is equal, each counter stands where its client's
//! acknowledged increments say (nothing lost, nothing applied twice), and the
//! copy went on where it was.

use crate::or_skip;
use crate::support::proc::{block_on, connect, is_over, runtime};
use crate::support::servers::ServerOptions;
use crate::support::{Family, Proxy, ProxyOptions, Server, compare};
use crate::workload::Random;
use mysql_async::OptsBuilder;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: u32 = 8;
const ROWS: u32 = 45_000;
const TABLES: [&str; 4] = ["t.any_counter", "t.any_hot", "t.any_log", "t.any_big"];
/// For a backend or the proxy to be of use again after its death.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a client knows of its counter: increments it was told of, and those
/// whose fate it does not know.
#[derive(Default)]
struct Told {
    done: u64,
    unknown: u64,
}

fn statement(random: &mut Random, number: u32) -> String {
    let (a, b) = (random.below(20), random.below(20));
    match random.below(10) {
        0..=2 => format!("UPDATE t.any_hot SET v = (v * 2 + {b}) % 1000003 WHERE id = {a}"),
        3 => {
            format!("INSERT INTO t.any_log (client, t) VALUES ({number}, 'one'), ({number}, 'two')")
        }
        4 => format!(
            "DELETE FROM t.any_log WHERE client = {number} AND id % 7 = {}",
            a % 7
        ),
        5 => format!(
            "UPDATE t.any_big SET n = n + 1 WHERE id = {}",
            1 + random.below(ROWS)
        ),
        // Deferred: only the follower brings these over.
        6 => {
            format!(
                "INSERT INTO t.any_log (client, t) SELECT {number}, v FROM t.any_hot WHERE id < 3"
            )
        }
        7 => format!(
            "UPDATE t.any_hot SET v = v + 1 ORDER BY id LIMIT {}",
            1 + a % 3
        ),
        8 => format!(
            "DELETE FROM t.any_big WHERE id = {}",
            1 + random.below(ROWS)
        ),
        _ => format!(
            "INSERT INTO t.any_big (n, t) VALUES ({a}, REPEAT('y', {}))",
            1 + b
        ),
    }
}

async fn client(opts: OptsBuilder, number: u32, seed: u64, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut random = Random::new(seed * 1000 + u64::from(number) + 1);
    let count = format!("UPDATE t.any_counter SET v = v + 1 WHERE id = {number}");
    while !stop.load(Ordering::Relaxed) {
        let Some(mut conn) = connect(opts.clone()).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let in_transaction = random.below(3) == 0;
            let sql = statement(&mut random, number);
            let done = if in_transaction {
                // Errors before COMMIT leave nothing of it.
                let open = async {
                    conn.query_drop("BEGIN").await?;
                    conn.query_drop(&sql).await?;
                    conn.query_drop(&count).await
                };
                if open.await.is_err() {
                    if conn.query_drop("ROLLBACK").await.is_err() {
                        break;
                    }
                    continue;
                }
                conn.query_drop("COMMIT").await
            } else {
                if conn.query_drop(&sql).await.is_err() {
                    if conn.query_drop("ROLLBACK").await.is_err() {
                        break;
                    }
                    continue;
                }
                conn.query_drop(&count).await
            };
            match done {
                Ok(()) => told.done += 1,
                Err(mysql_async::Error::Server(_)) => {}
                Err(_) => {
                    told.unknown += 1;
                    break;
                }
            }
        }
    }
    told
}

struct Storm {
    source: Server,
    target: Server,
    proxy: Proxy,
    random: Random,
    deaths: [u32; 3],
}

impl Storm {
    /// Kills one of the three and brings it back.
    fn kill(&mut self) {
        let after = 20 + u64::from(self.random.below(400));
        std::thread::sleep(Duration::from_millis(after));
        let down = Duration::from_millis(u64::from(self.random.below(300)));
        let which = self.random.below(3) as usize;
        self.deaths[which] += 1;
        match which {
            0 => {
                self.proxy.kill9();
                std::thread::sleep(down);
                self.proxy.restart();
            }
            n => {
                let server = [&self.source, &self.target][n - 1];
                server.kill9();
                std::thread::sleep(down);
                server.restart();
            }
        }
    }

    /// Tries an edge until it is taken.
    fn advance(&self, to: &str) {
        let began = Instant::now();
        loop {
            let answer = self.proxy.advance("any", Some(to), false);
            if answer.ok() {
                return;
            }
            assert!(
                !is_over(began, PATIENCE),
                "advance to {to}: {answer:?}\n{}",
                self.proxy.log()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&serde_json::Value) -> bool) {
        let began = Instant::now();
        loop {
            let route = self.proxy.route("any");
            if done(&route) {
                return;
            }
            assert!(
                !is_over(began, PATIENCE),
                "{what}: {route:#}\n{}",
                self.proxy.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn fill(server: &Server) {
    for sql in [
        "CREATE TABLE t.any_counter (id INT PRIMARY KEY, v BIGINT NOT NULL)",
        "CREATE TABLE t.any_hot (id INT PRIMARY KEY, v BIGINT NOT NULL)",
        "CREATE TABLE t.any_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, client INT, t VARCHAR(40))",
        "CREATE TABLE t.any_big (id INT AUTO_INCREMENT PRIMARY KEY, n INT, t VARCHAR(300))",
    ] {
        server.exec(sql);
    }
}

fn seed() -> u64 {
    let set = std::env::var("LOCKSTEP_SEED").ok();
    set.and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed();
        since.map(|d| d.as_secs()).unwrap_or(1)
    })
}

/// `kills` while copying, and as many while both sides are written.
fn storm(from: Family, to: Family, kills: u32) {
    let seed = seed();
    println!("{from} to {to}: LOCKSTEP_SEED={seed}");
    let durable = ServerOptions {
        durable: true,
        ..Default::default()
    };
    let source = or_skip!(Server::start(from, durable.clone()));
    let target = or_skip!(Server::start(to, durable));
    fill(&source);
    let values = |n: u32| {
        let all: Vec<String> = (0..n).map(|i| format!("({i}, 0)")).collect();
        all.join(",")
    };
    source.exec(&format!(
        "INSERT INTO t.any_counter VALUES {}",
        values(CLIENTS)
    ));
    source.exec(&format!("INSERT INTO t.any_hot VALUES {}", values(20)));
    source.exec(&format!(
        "INSERT INTO t.any_big (n, t) WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) \
         SELECT s.n, REPEAT('x', r.n * 4) FROM s, s r WHERE r.n <= {}",
        ROWS / 900
    ));
    source.exec("ANALYZE TABLE t.any_big");
    let mut options = ProxyOptions::route("any", &["t.any_*"]);
    options.extra_yaml = crate::order::USERS.to_owned();
    let proxy = Proxy::start(&source, &target, options);
    let mut storm = Storm {
        source,
        target,
        proxy,
        random: Random::new(seed),
        deaths: [0; 3],
    };
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let opts = storm.proxy.opts(Some("t"));
            runtime().spawn(client(opts, n, seed, Arc::clone(&stop)))
        })
        .collect();
    storm.advance("syncing");
    for _ in 0..kills {
        storm.kill();
    }
    storm.wait("the copy", |r| r["copy"]["state"] == "done");
    storm.advance("source_first");
    for _ in 0..kills {
        storm.kill();
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let told: Vec<Told> = clients
        .into_iter()
        .map(|c| block_on(c).expect("a client panicked"))
        .collect();
    storm.proxy.wait_followed("any", PATIENCE);
    let rows = compare::assert_equal(&storm.source, &storm.target, &TABLES);
    let mut increments = 0;
    for (n, told) in told.iter().enumerate() {
        let sql = format!("SELECT v FROM t.any_counter WHERE id = {n}");
        let v: u64 = storm.source.one(&sql).parse().expect("a number");
        increments += v;
        assert!(
            (told.done..=told.done + told.unknown).contains(&v),
            "counter {n} is {v}; {} acknowledged, {} unknown; seed {seed}",
            told.done,
            told.unknown
        );
    }
    println!(
        "{from} to {to}: deaths of proxy, source, target {:?}, {increments} increments, {rows} rows \
         equal, mirror {}",
        storm.deaths,
        storm.proxy.route("any")["mirror"]
    );
    assert!(increments > u64::from(CLIENTS));
}

#[test]
fn mariadb_survives_ten_deaths() {
    storm(Family::MariaDb, Family::MariaDb, 5);
}

#[test]
fn soak_anywhere_two_hundred_deaths() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    use Family::{MariaDb, MySql};
    for (from, to) in [
        (MariaDb, MariaDb),
        (MySql, MySql),
        (MariaDb, MySql),
        (MySql, MariaDb),
    ] {
        storm(from, to, 25);
    }
}
