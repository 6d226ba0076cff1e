//! Limits: connections, idle legs, large and many things in one session.

use super::{Rough, packet};
use crate::order::{USERS, counts};
use crate::support::census::{self, memory};
use crate::support::proc::{block_on, wait_for};
use crate::support::servers::{APP, opts};
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions, compare};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// What one session's thousands of things may cost the proxy, in KiB.
const SESSION_MAX: u64 = 48 * 1024;

struct Scene {
    source: Server,
    target: Server,
    proxy: Proxy,
}

impl Scene {
    fn start(
        family: Family,
        args: &[&str],
        limits: &str,
    ) -> Result<Scene, crate::support::Missing> {
        let options = || ServerOptions {
            args: args.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let source = Server::start(family, options())?;
        let target = Server::start(family, options())?;
        for server in [&source, &target] {
            server.exec(
                "CREATE TABLE t.big (id INT AUTO_INCREMENT PRIMARY KEY, v BIGINT, s LONGTEXT)",
            );
        }
        let mut options = ProxyOptions::route("r", &["t.*"]);
        options.extra_yaml = format!("{limits}{USERS}\n");
        let proxy = Proxy::start(&source, &target, options);
        proxy.must_advance("r", "source_first");
        Ok(Scene {
            source,
            target,
            proxy,
        })
    }

    fn conn(&self) -> Conn {
        block_on(self.proxy.conn(Some("t")))
    }

    fn equal(&self) {
        compare::assert_equal(&self.source, &self.target, &["t.big"]);
    }
}

/// Connections of the application until the server has no more.
fn fill(port: u16) -> Vec<Conn> {
    let mut held = Vec::new();
    loop {
        match block_on(Conn::new(opts(port, APP.0, APP.1, None))) {
            Ok(conn) => held.push(conn),
            Err(Error::Server(e)) if e.code == 1040 => break,
            Err(e) => panic!("neither let in nor one too many: {e}"),
        }
    }
    // The one more that both families keep for administrators.
    held.extend(block_on(Conn::new(opts(port, "root", "", None))).ok());
    held
}

#[test]
fn one_too_many_is_told_in_the_servers_words() {
    for family in Family::BOTH {
        let limits = "limits: { connections: 5 }\n";
        let scene = crate::or_skip!(Scene::start(family, &["--max-connections=40"], limits));
        let mut held = Vec::new();
        let mut servers = None;
        // The service account's connections come and go meanwhile.
        wait_for("the server's limit through the proxy", LIMIT, || {
            held.extend(fill(scene.source.port()));
            let direct = Rough::connect(scene.source.port()).rest();
            if !direct.closed {
                return false;
            }
            let passed = Rough::connect(scene.proxy.port()).rest();
            let same = passed == direct;
            servers = Some(direct);
            same
        });
        let servers = servers.expect("refused");
        assert_eq!(servers.packets.len(), 1, "{servers:?}");
        drop(held);
        wait_for("room to ask", LIMIT, || {
            block_on(Conn::new(opts(scene.source.port(), "root", "", None))).is_ok()
        });
        wait_for("room on the server", LIMIT, || {
            census::clients_on(&scene.source) == 0
        });
        let mut held: Vec<Conn> = Vec::new();
        wait_for("five clients", LIMIT, || {
            held.extend(block_on(Conn::new(scene.proxy.opts(Some("t")))).ok());
            held.len() == 5
        });
        let ours = Rough::connect(scene.proxy.port()).rest();
        assert_eq!(ours, servers, "{family}: the proxy's limit");
        let refused = scene
            .proxy
            .metric("lockstep_connections_total{outcome=\"refused_limit\"}");
        assert_eq!(refused, Some(1.0));
        block_on(held.pop().expect("five").disconnect()).expect("quit");
        wait_for("room again", LIMIT, || {
            block_on(Conn::new(scene.proxy.opts(Some("t")))).is_ok()
        });
    }
}

/// The mirror's leg dies of idleness and is opened again, unnoticed; the active
/// one's death is the session's, as on the server, to the last byte.
#[test]
fn idle_legs_die_as_servers_say() {
    for family in Family::BOTH {
        let patient = "limits: { mirror_deadline_ms: 10000 }\n";
        let scene = crate::or_skip!(Scene::start(family, &[], patient));
        let mut conn = scene.conn();
        let insert = "INSERT INTO big (v) VALUES (1)";
        for round in 0..3 {
            block_on(conn.query_drop(insert)).expect("insert");
            // Legs have home's `wait_timeout` on both sides.
            census::end_clients_on(&scene.target);
            wait_for("the mirror's leg to die", LIMIT, || {
                census::clients_on(&scene.target) == 0
            });
            let now = counts(&scene.proxy, "r");
            assert_eq!(
                (now.ok, now.failed, now.deferred),
                (round + 1, 0, 0),
                "{family}"
            );
        }
        let suspended = scene.proxy.route("r")["mirror"]["suspended"].clone();
        assert_eq!(suspended, false, "{family}");
        scene.equal();
        let end = |port: u16| {
            let mut rough = Rough::logged_in(port);
            rough.send(&packet(0, b"\x03SET SESSION wait_timeout=1"));
            rough.read_packet().expect("set");
            let (outcome, took) = super::timed(|| rough.rest());
            assert!(took < super::ANSWER_LIMIT, "{took:?}");
            outcome
        };
        let direct = end(scene.source.port());
        assert_eq!(end(scene.proxy.port()), direct, "{family}");
    }
}

/// A client that stalls in the middle of a command is given up when the
/// server gives its leg up.
#[test]
fn stalled_clients_are_given_up_with_their_legs() {
    for family in Family::BOTH {
        let args = ["--max-allowed-packet=64M"];
        let scene = crate::or_skip!(Scene::start(family, &args, ""));
        let rest = census::at_rest(&scene.proxy);
        let mut stalled = Vec::new();
        for bytes in [
            &b"\x05\x00"[..],
            b"\x09\x00\x00\x00\x03SEL",
            b"\xff\xff\xff\x00\x03SELECT 1",
        ] {
            let mut rough = Rough::logged_in(scene.proxy.port());
            rough.send(&packet(0, b"\x03SET SESSION wait_timeout=1"));
            rough.read_packet().expect("set");
            rough.send(bytes);
            stalled.push(rough);
        }
        for rough in stalled {
            let outcome = rough.rest();
            assert!(outcome.closed, "{family}: {outcome:?}");
        }
        census::assert_nothing_left(&scene.proxy, rest, &[&scene.source, &scene.target]);
    }
}

/// What the parser cannot take is never given to it, and the server judges.
#[test]
fn huge_statements_are_served() {
    for family in Family::BOTH {
        let args = ["--max-allowed-packet=64M", "--thread-stack=1M"];
        let patient = "limits: { mirror_deadline_ms: 10000 }\n";
        let scene = crate::or_skip!(Scene::start(family, &args, patient));
        let mut conn = scene.conn();
        let mut direct = block_on(Conn::new(opts(
            scene.source.port(),
            APP.0,
            APP.1,
            Some("t"),
        )))
        .expect("direct");
        let flat = vec!["1"; 1_000].join("+");
        let sql = format!("INSERT INTO big (v) VALUES ({flat})");
        block_on(conn.query_drop(&sql)).expect("a flat expression");
        let texts = [
            format!("SELECT {}", vec!["1"; 500_000].join("+")),
            format!("SELECT 1 WHERE {}", vec!["1=1"; 250_000].join(" OR ")),
            format!("SELECT {}1{}", "(".repeat(300_000), ")".repeat(300_000)),
            format!("SELECT {}1", "-".repeat(1_000_000)),
            format!(
                "UPDATE big SET v=1 WHERE id IN ({})",
                vec!["1"; 500_000].join(",")
            ),
            format!(
                "UPDATE big SET v={} WHERE id=1",
                vec!["1"; 500_000].join("*")
            ),
            format!(
                "INSERT INTO big (v) VALUES {}",
                vec!["(1)"; 250_000].join(",")
            ),
            format!("SELECT '{}", "x".repeat(1_000_000)),
            format!("SELECT /*{}", "*".repeat(1_000_000)),
            format!("SELECT `{}`", "x".repeat(1_000_000)),
        ];
        for sql in texts {
            let code = |done: Result<(), Error>| match done {
                Ok(()) => 0,
                Err(Error::Server(e)) => e.code,
                Err(e) => panic!("{family}: {e} at {}", &sql[..40]),
            };
            // The writes run on the direct side as well, and are undone there.
            block_on(direct.query_drop("BEGIN")).expect("begin");
            let expected = code(block_on(direct.query_drop(&sql)));
            block_on(direct.query_drop("ROLLBACK")).expect("rollback");
            let got = code(block_on(conn.query_drop(&sql)));
            assert_eq!(got, expected, "{family}: {}", &sql[..40]);
        }
        for length in [(1 << 24) - 64, (1 << 24) + 64, 40 << 20] {
            let head = "INSERT INTO big (s) VALUES ('";
            let sql = format!("{head}{}')", "y".repeat(length - head.len() - 2));
            block_on(conn.query_drop(sql)).expect("a large statement");
        }
        let counted = counts(&scene.proxy, "r");
        println!("{family}: {counted:?}");
        let sql = "SELECT COUNT(*) FROM t.big";
        let (a, b) = (scene.source.one(sql), scene.target.one(sql));
        let behind = a.parse::<u64>().unwrap() - b.parse::<u64>().unwrap();
        assert!(
            behind <= counted.failed + counted.deferred + 250_000,
            "{family}"
        );
        assert!(counted.ok >= 2, "{family}: {counted:?}");
    }
}

/// Thousands of prepared statements, savepoints and variables in one session:
/// bounded memory, and right to the end.
#[test]
fn thousands_of_everything_in_one_session() {
    const MANY: usize = 3_000;
    for family in Family::BOTH {
        let scene = crate::or_skip!(Scene::start(family, &[], ""));
        let mut conn = block_on(Conn::new(
            scene.proxy.opts(Some("t")).stmt_cache_size(Some(0)),
        ))
        .expect("login");
        let before = memory(scene.proxy.pid());
        block_on(async {
            let mut prepared = Vec::new();
            for n in 0..MANY {
                let sql = format!("INSERT INTO big (v) VALUES (?+{n})");
                prepared.push(conn.prep(sql).await.expect("prepare"));
            }
            for statement in prepared.iter().step_by(50) {
                conn.exec_drop(statement, (1,)).await.expect("execute");
            }
            conn.query_drop("BEGIN").await.expect("begin");
            for n in 0..MANY {
                conn.query_drop(format!("SAVEPOINT s{n}"))
                    .await
                    .expect("savepoint");
            }
            conn.query_drop("INSERT INTO big (v) VALUES (5)")
                .await
                .expect("insert");
            conn.query_drop(format!("ROLLBACK TO s{}", MANY - 1))
                .await
                .expect("rollback to");
            conn.query_drop("INSERT INTO big (v) VALUES (6)")
                .await
                .expect("insert");
            conn.query_drop("COMMIT").await.expect("commit");
            for n in 0..MANY {
                conn.query_drop(format!("SET @v{n}={n}, @w{n}=REPEAT('x', 1000)"))
                    .await
                    .expect("set");
                if n % 10 == 0 {
                    let sql = format!("SET SESSION sort_buffer_size={}", 40_000 + n);
                    conn.query_drop(sql).await.expect("set session");
                }
            }
            let sql = format!("INSERT INTO big (v) VALUES (@v{})", MANY - 1);
            conn.query_drop(sql).await.expect("insert");
            for statement in prepared {
                conn.close(statement).await.expect("close");
            }
        });
        let grown = memory(scene.proxy.pid()).saturating_sub(before);
        println!("{family}: {grown} KiB for {MANY} of each");
        assert!(grown < SESSION_MAX, "{family}: {grown} KiB");
        let last: u64 = scene
            .source
            .one("SELECT MAX(v) FROM t.big")
            .parse()
            .unwrap();
        assert_eq!(last, MANY as u64 - 1);
        let counted = counts(&scene.proxy, "r");
        if counted.failed + counted.deferred == 0 {
            scene.equal();
        }
        println!("{family}: {counted:?}");
    }
}

/// A client that does not take its answer: the server gives its leg up, and
/// the session ends soon after. MySQL's farewell waits behind the bytes that
/// are not taken, so there it is the kernel that ends it, minutes later.
#[test]
fn soak_deaf_clients_are_given_up_with_their_legs() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    let args = ["--net-write-timeout=1", "--max-allowed-packet=64M"];
    let scene = crate::or_skip!(Scene::start(Family::MariaDb, &args, ""));
    let rest = census::at_rest(&scene.proxy);
    let mut deaf = Rough::logged_in(scene.proxy.port());
    deaf.send(&packet(0, b"\x03SELECT REPEAT('x', 60000000)"));
    std::thread::sleep(Duration::from_secs(1));
    let (_, took) = super::timed(|| {
        census::assert_nothing_left(&scene.proxy, rest, &[&scene.source, &scene.target]);
    });
    println!("given up after {took:?}");
    drop(deaf);
}
