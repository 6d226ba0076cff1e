//! Connections come and go, in order and otherwise, thousands of times: files
//! and tasks are where they were, and memory stands still.

use crate::order::USERS;
use crate::support::census::{self, memory};
use crate::support::servers::{APP, tls_opts};
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Beside each other.
const CLIENTS: usize = 8;
/// Cycles after which memory is looked at first.
const WARM: usize = 1000;
/// By how much it may have grown at the end, in percent.
const GROWTH_MAX: u64 = 5;

/// One client's life; which one is told by its number.
async fn cycle(proxy: &Proxy, n: usize) -> Result<(), Error> {
    let insert = "INSERT INTO leaks (v) VALUES (1)";
    let opts = proxy.opts(Some("t"));
    match n % 8 {
        0 | 1 => {
            let mut conn = Conn::new(opts).await?;
            conn.query_drop("SELECT 1").await?;
            conn.disconnect().await
        }
        2 => {
            // Both legs, prepared, in order.
            let mut conn = Conn::new(opts).await?;
            conn.exec_drop("INSERT INTO leaks (v) VALUES (?)", (n,))
                .await?;
            conn.disconnect().await
        }
        3 => {
            // Away in the middle of a transaction on both legs.
            let mut conn = Conn::new(opts).await?;
            conn.query_drop("BEGIN").await?;
            conn.query_drop(insert).await?;
            drop(conn);
            Ok(())
        }
        4 => {
            let tls = tls_opts(proxy.port(), APP.0, APP.1, Some("t"));
            let mut conn = Conn::new(tls).await?;
            conn.query_drop(insert).await?;
            conn.disconnect().await
        }
        5 => {
            // Killed by itself.
            let mut conn = Conn::new(opts).await?;
            let id = conn.id();
            let _ = conn.query_drop(format!("KILL {id}")).await;
            Ok(())
        }
        6 => {
            // Away while its statement runs.
            let mut conn = Conn::new(opts).await?;
            let sleeping = conn.query_drop("SELECT SLEEP(0.02)");
            let limit = std::time::Duration::from_millis(5);
            let _ = tokio::time::timeout(limit, sleeping).await;
            drop(conn);
            Ok(())
        }
        _ => {
            half_a_login(proxy.port(), n / 8);
            Ok(())
        }
    }
}

/// Greeted, and away at once, or after some bytes, or in the middle of TLS.
fn half_a_login(port: u16, n: usize) {
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    let mut greeting = [0; 200];
    if !n.is_multiple_of(4) {
        let _ = stream.read(&mut greeting);
    }
    let bytes: &[u8] = match n % 4 {
        2 => &[0x20, 0, 0, 1, 0x85, 0xa6],
        3 => b"GET / HTTP/1.1\r\n\r\n",
        _ => &[],
    };
    let _ = stream.write_all(bytes);
}

fn cycles(proxy: &Proxy, from: usize, to: usize) {
    let next = AtomicUsize::new(from);
    let failed = AtomicUsize::new(0);
    crate::support::proc::block_on(async {
        let client = || async {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= to {
                    return;
                }
                if let Err(e) = cycle(proxy, n).await {
                    failed.fetch_add(1, Ordering::Relaxed);
                    eprintln!("cycle {n}: {e}");
                }
            }
        };
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Box::pin(client())).collect();
        std::future::poll_fn(|cx| {
            clients.retain_mut(|c| c.as_mut().poll(cx).is_pending());
            match clients.is_empty() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    });
    assert_eq!(failed.into_inner(), 0, "clients failed");
}

/// Memory in KiB once everybody is gone: what they used is given back within
/// seconds.
fn level(proxy: &Proxy) -> u64 {
    std::thread::sleep(std::time::Duration::from_secs(4));
    memory(proxy.pid())
}

fn run(family: Family, total: usize) {
    let source = crate::or_skip!(servers::shared(family, 0));
    let target = crate::or_skip!(servers::shared(family, 1));
    for server in [source, target] {
        server.exec(
            "DROP TABLE IF EXISTS t.leaks;\n\
             CREATE TABLE t.leaks (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
        );
    }
    let mut options = ProxyOptions::route("r", &["t.leaks"]);
    options.extra_yaml = USERS.to_string();
    let proxy = Proxy::start(source, target, options);
    proxy.must_advance("r", "source_first");
    let servers: [&Server; 2] = [source, target];
    let rest = census::at_rest(&proxy);
    cycles(&proxy, 0, WARM);
    census::assert_nothing_left(&proxy, rest, &servers);
    let warm = level(&proxy);
    cycles(&proxy, WARM, total);
    census::assert_nothing_left(&proxy, rest, &servers);
    let end = level(&proxy);
    println!("{family}: {total} cycles, {warm} KiB after {WARM}, {end} KiB at the end, {rest:?}");
    assert!(
        end <= warm + warm * GROWTH_MAX / 100,
        "{family}: memory grew from {warm} to {end} KiB"
    );
}

#[test]
fn two_thousand_clients_leave_nothing_on_mariadb() {
    run(Family::MariaDb, 2_000);
}

#[test]
fn two_thousand_clients_leave_nothing_on_mysql() {
    run(Family::MySql, 2_000);
}

#[test]
fn soak_ten_thousand_clients_leave_nothing() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    for family in Family::BOTH {
        run(family, 10_000);
    }
}
