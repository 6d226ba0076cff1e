//! Crowds: hundreds of clients, or thousands, idle and active, half of them
//! hostile.

use super::{Rough, login, packet};
use crate::order::{USERS, counts};
use crate::support::census::{self, files, memory};
use crate::support::proc::block_on;
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
/// This process holds as many sockets as there are clients.
fn raise_files(needed: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|soft| soft < needed) {
        let current = Some(maximum.map_or(needed, |hard| hard.min(needed)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("open files");
    }
}

fn crowd(family: Family, clients: usize) {
    raise_files(clients as u64 + 1000);
    let args: [String; 3] = [
        format!("--max-connections={}", clients + 200),
        "--back-log=4000".to_string(),
        "--thread-cache-size=0".to_string(),
    ];
    let options = || ServerOptions {
        args: args.to_vec(),
        ..Default::default()
    };
    let source = crate::or_skip!(Server::start(family, options()));
    let target = crate::or_skip!(Server::start(family, options()));
    for server in [&source, &target] {
        server.exec("CREATE TABLE t.crowd (id INT PRIMARY KEY, v INT)");
    }
    let mut options = ProxyOptions::route("r", &["t.crowd"]);
    options.extra_yaml = format!(
        "limits: {{ connections: {}, login_timeout_ms: 60000 }}\n{USERS}\n",
        clients + 100
    );
    let proxy = Proxy::start(&source, &target, options);
    proxy.must_advance("r", "source_first");
    let rest = census::at_rest(&proxy);
    let (pid, before) = (proxy.pid(), memory(proxy.pid()));
    // Half a login each, for as long as the others are at work.
    let half: Vec<Rough> = (0..90)
        .map(|_| {
            let mut rough = Rough::connect(proxy.port());
            rough.send(&packet(1, &login())[..20]);
            rough
        })
        .collect();
    let held = block_on(async {
        let mut held: Vec<Conn> = Vec::new();
        while held.len() < clients {
            let opts = (0..32.min(clients - held.len())).map(|_| proxy.opts(Some("t")));
            let connecting: Vec<_> = opts.map(|o| tokio::spawn(Conn::new(o))).collect();
            for conn in connecting {
                held.push(conn.await.expect("task").expect("login"));
            }
        }
        // Every tenth is active, and has its other leg too.
        for (id, conn) in held.iter_mut().enumerate().step_by(10) {
            let sql = format!("INSERT INTO crowd VALUES ({id}, 1)");
            conn.query_drop(sql).await.expect("insert");
        }
        held
    });
    let (all, per) = (memory(pid), (memory(pid) - before) / clients as u64);
    println!(
        "{family}: {clients} clients, {} files, {all} KiB, {per} KiB each, {:?}",
        files(pid),
        census::census(&proxy)
    );
    // Each has its leg, every tenth both, and a half login its leg at the most.
    let sockets = 2 * clients + clients / 10 + 2 * half.len();
    assert!(files(pid) < rest.files + sockets + 100);
    // One more is served as if it were alone.
    let (_, took) = super::timed(|| {
        let mut conn = block_on(proxy.conn(Some("t")));
        block_on(conn.query_drop("INSERT INTO crowd VALUES (-1, 1)")).expect("insert");
    });
    println!("{family}: one more client was served in {took:?}");
    drop((half, held));
    census::assert_nothing_left(&proxy, rest, &[&source, &target]);
    let rows = |server: &Server| -> u64 {
        let rows = server.one("SELECT COUNT(*) FROM t.crowd");
        rows.parse().expect("a number")
    };
    // A busy machine lets deadlines pass.
    let counted = counts(&proxy, "r");
    let behind = rows(&source) - rows(&target);
    assert!(
        behind <= counted.failed + counted.deferred,
        "{family}: {behind} rows, {counted:?}"
    );
}

#[test]
fn a_crowd_is_served() {
    for family in Family::BOTH {
        crowd(family, 300);
    }
}

/// As many as one proxy is asked to hold.
#[test]
fn soak_five_thousand_clients() {
    if std::env::var_os("LOCKSTEP_SOAK").is_none() {
        return;
    }
    for family in Family::BOTH {
        crowd(family, 5_000);
    }
}
