//! What is around the proxy changes: the clock, the servers, their names.

use super::disk::may_mount;
use super::{connect, connection_lost, insert, lacking};
use crate::order::{USERS, counts};
use crate::support::census;
use crate::support::proc::{TempDir, block_on, free_port, runtime, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions, servers};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
/// The mirror's deadline is 200 ms; the rest is a busy machine's.
const HELD_MAX: Duration = Duration::from_millis(1500);

fn table(server: &Server, name: &str) {
    server.exec(&format!(
        "DROP TABLE IF EXISTS t.{name};\nCREATE TABLE t.{name} (id INT PRIMARY KEY, v INT)"
    ));
}

/// Where Debian puts the library that fakes the time of day.
fn faketime() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders
        .flatten()
        .map(|f| f.path().join("faketime/libfaketimeMT.so.1"))
        .find(|p| p.is_file())
        .map(|p| p.display().to_string())
}

/// The wall clock jumps by years, either way, under load. Deadlines are of the
/// monotonic clock: nothing stalls, nothing expires, a frozen mirror still
/// costs its deadline and no more.
#[test]
fn a_clock_that_jumps_is_not_noticed() {
    let Some(library) = faketime() else {
        return crate::support::skip(&"faketime is not installed");
    };
    for family in Family::BOTH {
        let source = crate::or_skip!(servers::shared(family, 0));
        let target = crate::or_skip!(Server::start(family, ServerOptions::default()));
        table(source, "clock");
        table(&target, "clock");
        let folder = TempDir::new("clock");
        let clock = folder.path().join("offset");
        let set = |offset: &str| std::fs::write(&clock, format!("{offset}\n")).expect("offset");
        set("+0");
        let mut options = ProxyOptions::route("r", &["t.clock"]);
        options.extra_yaml = USERS.to_string();
        options.env = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .to_vec();
        let proxy = Proxy::start(source, &target, options);
        proxy.must_advance("r", "source_first");
        let mut old = connect(&proxy).expect("login");
        let mut id = 0;
        for offset in ["+0", "+3600", "-86400", "+315360000", "-315360000", "+1"] {
            set(offset);
            let mut new = connect(&proxy).expect("login after the jump");
            for _ in 0..20 {
                id += 2;
                let began = Instant::now();
                insert(&mut old, "clock", id).expect("write of an old session");
                insert(&mut new, "clock", id + 1).expect("write of a new session");
                assert!(began.elapsed() < HELD_MAX, "{family}, {offset}");
            }
            let _ = block_on(new.disconnect());
            let mirror = proxy.route("r")["mirror"].clone();
            assert_eq!(mirror["suspended"], false, "{family}, {offset}: {mirror}");
        }
        let now = counts(&proxy, "r");
        assert_eq!((now.failed, now.deferred), (0, 0), "{family}");
        set("+7200");
        target.freeze();
        set("-7200");
        let began = Instant::now();
        insert(&mut old, "clock", 1).expect("write beside a frozen mirror");
        let held = began.elapsed();
        target.thaw();
        assert!(held < HELD_MAX, "{family}: held for {held:?}");
        assert!(counts(&proxy, "r").failed > 0, "{family}");
        wait_for("mirroring to resume", LIMIT, || {
            proxy.route("r")["mirror"]["suspended"] == false
        });
        // An edge's limits are of the same clock.
        set("+315360000");
        proxy.must_advance("r", "target_first");
    }
}

/// Inserts until told to stop, over new connections where the old one broke;
/// returns the ids that were acknowledged.
async fn writer(proxy: &Proxy, ids: &AtomicU32, stop: &AtomicBool) -> Vec<u32> {
    let mut conn: Option<Conn> = None;
    let mut told = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let open = match conn.take() {
            Some(open) => Ok(open),
            None => Conn::new(proxy.opts(Some("t"))).await,
        };
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let done: Result<Conn, Error> = match open {
            Ok(mut open) => {
                let sql = format!("INSERT INTO bounce VALUES ({id}, 1)");
                open.query_drop(sql).await.map(|()| open)
            }
            Err(e) => Err(e),
        };
        match done {
            Ok(open) => {
                told.push(id);
                conn = Some(open);
            }
            Err(e) => {
                assert!(connection_lost(&e), "a client saw {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    if let Some(conn) = conn {
        let _ = conn.disconnect().await;
    }
    told
}

/// Both servers restart under load, one after the other and then together.
#[test]
fn both_servers_restart_under_load() {
    for family in Family::BOTH {
        let kept = ServerOptions::args(["--innodb-flush-log-at-trx-commit=1"]);
        let source = crate::or_skip!(Server::start(family, kept.clone()));
        let target = crate::or_skip!(Server::start(family, kept));
        table(&source, "bounce");
        table(&target, "bounce");
        let mut options = ProxyOptions::route("r", &["t.bounce"]);
        options.extra_yaml = USERS.to_string();
        let proxy = Proxy::start(&source, &target, options);
        proxy.must_advance("r", "source_first");
        let rest = census::at_rest(&proxy);
        let (ids, stop) = (AtomicU32::new(1), AtomicBool::new(false));
        let told: Vec<u32> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| block_on(writer(&proxy, &ids, &stop))))
                .collect();
            std::thread::sleep(Duration::from_millis(500));
            target.restart();
            std::thread::sleep(Duration::from_millis(500));
            source.restart();
            std::thread::sleep(Duration::from_millis(500));
            std::thread::scope(|both| {
                both.spawn(|| source.restart());
                both.spawn(|| target.restart());
            });
            wait_for("mirroring to resume", LIMIT, || {
                proxy.route("r")["mirror"]["suspended"] == false
            });
            std::thread::sleep(Duration::from_millis(500));
            stop.store(true, Ordering::Relaxed);
            let told = writers.into_iter().map(|w| w.join().expect("writer"));
            told.flatten().collect()
        });
        census::assert_nothing_left(&proxy, rest, &[&source, &target]);
        let rows = source.query("SELECT id FROM t.bounce");
        let stored: std::collections::HashSet<String> =
            rows.into_iter().flatten().flatten().collect();
        let lost = told.iter().filter(|id| !stored.contains(&id.to_string()));
        assert_eq!(lost.count(), 0, "{family}: acknowledged and lost");
        let counted = counts(&proxy, "r");
        let behind = lacking(&source, &target, "t.bounce") as u64;
        let ahead = lacking(&target, &source, "t.bounce");
        println!(
            "{family}: {} acknowledged, {behind} not on the mirror, {counted:?}",
            told.len()
        );
        assert!(behind <= counted.failed + counted.deferred, "{family}");
        assert_eq!(ahead, 0, "{family}: rows that only the mirror has");
        let mut conn = connect(&proxy).expect("login");
        insert(&mut conn, "bounce", 0).expect("write");
        assert_eq!(target.one("SELECT COUNT(*) FROM t.bounce WHERE id=0"), "1");
    }
}

/// Passes bytes from `ip:port` on, until dropped.
struct Forward(tokio::task::JoinHandle<()>);

impl Forward {
    fn start(ip: &str, port: u16, to: String) -> Forward {
        let listener = block_on(tokio::net::TcpListener::bind((ip.to_string(), port)));
        let listener = listener.expect("forward's port");
        Forward(runtime().spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let to = to.clone();
                connections.spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        }))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A backend's name moves to another address: sessions opened from then on,
/// and the service account, are there; nothing keeps the old address.
#[test]
fn a_name_that_moves_is_followed() {
    if !may_mount() {
        return;
    }
    const HOSTS: &str = "mount --bind \"$HOSTS_FILE\" /etc/hosts && exec \"$0\" \"$@\"";
    for family in Family::BOTH {
        let (old, new) = (
            crate::or_skip!(servers::shared(family, 0)),
            crate::or_skip!(servers::shared(family, 1)),
        );
        let folder = TempDir::new("names");
        let hosts = folder.path().join("hosts");
        let name = |ip: &str| {
            std::fs::write(&hosts, format!("127.0.0.1 localhost\n{ip} database.test\n"))
                .expect("hosts");
        };
        name("127.0.0.2");
        let port = free_port();
        let first = Forward::start("127.0.0.2", port, old.address());
        let _second = Forward::start("127.0.0.3", port, new.address());
        let mut options = ProxyOptions::route("r", &["t.names"]);
        options.source_address = Some(format!("database.test:{port}"));
        options.extra_yaml = USERS.to_string();
        options.wrapper = ["unshare", "-m", "sh", "-c", HOSTS]
            .map(str::to_string)
            .to_vec();
        options.env = vec![("HOSTS_FILE".to_string(), hosts.display().to_string())];
        let proxy = Proxy::start(old, new, options);
        let asked = || -> Result<String, Error> {
            let mut conn = connect(&proxy)?;
            let port: Option<u32> = block_on(conn.query_first("SELECT @@port"))?;
            let _ = block_on(conn.disconnect());
            Ok(port.unwrap_or_default().to_string())
        };
        assert_eq!(asked().expect("by name"), old.port().to_string());
        name("127.0.0.3");
        assert_eq!(asked().expect("moved"), new.port().to_string());
        drop(first);
        wait_for("the service account at the new address", LIMIT, || {
            let backend = proxy.status()["backends"]["source"].clone();
            backend["up"] == true && asked().is_ok_and(|p| p == new.port().to_string())
        });
        // Nowhere: the client is told what a server says, and soon.
        std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("hosts");
        let began = Instant::now();
        let refused = asked().expect_err("a name that is gone");
        assert!(connection_lost(&refused), "{family}: {refused}");
        assert!(began.elapsed() < LIMIT, "{family}");
    }
}
