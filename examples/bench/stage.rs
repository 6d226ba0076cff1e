//! What stands on the machine during the measurements.

use super::Plan;
use super::crowd::Endpoint;
use super::support::proc::{Guarded, TempDir, free_port, wait_for};
use super::support::{Family, Missing, Proxy, ProxyOptions, Server, ServerOptions};
use super::work::{self, Tables};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

pub const ROUTE: &str = "bench";

/// Two servers; HAProxy before the source; one proxy that mirrors nothing and
/// one in `source_first`.
pub struct Stage {
    pub source: Server,
    pub target: Server,
    haproxy: HaProxy,
    plain: Proxy,
    pub mirroring: Proxy,
}

impl Stage {
    pub fn start(plan: &Plan) -> Result<Stage, Missing> {
        // 500 idle sessions, and what has not quite ended yet.
        let options = ServerOptions::args(["--max-connections=1500"]);
        let source = Server::start(Family::MariaDb, options.clone())?;
        let target = Server::start(Family::MariaDb, options)?;
        for server in [&source, &target] {
            work::create(server);
        }
        let proxy = |tables: &[&str]| Proxy::start(&source, &target, options_of(plan, tables));
        // What one side alone is asked for is no work of the mirroring proxy:
        // a route with those tables would heal them beside every round.
        let (plain, mirroring) = (proxy(&["test.*"]), proxy(&work::BOTH));
        mirroring.must_advance(ROUTE, "source_first");
        Ok(Stage {
            haproxy: HaProxy::start(&source, plan.threads)?,
            plain,
            mirroring,
            source,
            target,
        })
    }

    /// A proxy that mirrors in the place of the first, and answers as soon as
    /// the active side has committed. Nobody else heals beside it.
    pub fn early(&self, plan: &Plan) -> Proxy {
        self.mirroring.stop();
        let options = ProxyOptions {
            route_yaml: "ack: active".to_owned(),
            ..options_of(plan, &work::BOTH)
        };
        let proxy = Proxy::start(&self.source, &self.target, options);
        proxy.must_advance(ROUTE, "source_first");
        proxy
    }

    pub fn direct(&self) -> Endpoint {
        endpoint("direct", self.source.port(), None, Tables::Alone)
    }

    pub fn target_alone(&self) -> Endpoint {
        endpoint("target alone", self.target.port(), None, Tables::Alone)
    }

    pub fn source_alone(&self) -> Endpoint {
        endpoint("source alone", self.source.port(), None, Tables::Alone)
    }

    /// No proxy: the client executes on the source, then on the target, and
    /// commits on the source, then on the target. Whoever keeps the order of
    /// conflicting writes has these four round trips.
    pub fn by_hand(&self) -> Endpoint {
        Endpoint {
            other: Some(self.target.port()),
            ..endpoint("both, by hand", self.source.port(), None, Tables::Alone)
        }
    }

    pub fn haproxy(&self) -> Endpoint {
        let pid = Some(self.haproxy.process.pid());
        endpoint("HAProxy", self.haproxy.port, pid, Tables::Alone)
    }

    /// All routes in `source_only`.
    pub fn plain(&self) -> Endpoint {
        let pid = Some(self.plain.pid());
        endpoint("lockstep", self.plain.port(), pid, Tables::Alone)
    }

    /// The route in `source_first`.
    pub fn mirroring(&self) -> Endpoint {
        mirrored_by(&self.mirroring, "lockstep, mirroring")
    }

    /// Each server on its half of the cores, as on a machine of its own; or all on
    /// all of them. Where there are two, the kernel wakes both servers on one, and
    /// leaves the other idle: what a proxy has both do at once takes turns. False
    /// where it cannot be had.
    pub fn apart(&self, apart: bool) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        if cores < 2 {
            return false;
        }
        let (half, last) = (cores / 2, cores - 1);
        let halves = [(0, half - 1), (half, last)];
        let place = |(server, (from, to)): (&Server, (usize, usize))| {
            let (from, to) = if apart { (from, to) } else { (0, last) };
            Command::new("taskset")
                .args(["-a", "-c", "-p", &format!("{from}-{to}")])
                .arg(server.pid().to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        };
        let servers = [&self.source, &self.target];
        servers.into_iter().zip(halves).all(place)
    }

    /// How commits go from now on: synced to disk each, or not.
    pub fn commits(&self, durable: bool) {
        let n = u8::from(durable);
        for server in [&self.source, &self.target] {
            server.exec(&format!(
                "SET GLOBAL innodb_flush_log_at_trx_commit = {n};\nSET GLOBAL sync_binlog = {n};\n"
            ));
        }
    }
}

/// A proxy in `source_first`.
pub fn mirrored_by(proxy: &Proxy, name: &str) -> Endpoint {
    endpoint(name, proxy.port(), Some(proxy.pid()), Tables::Both)
}

/// Writes that the mirror got, and those that it did not.
pub fn mirrored(proxy: &Proxy) -> (u64, u64) {
    let route = proxy.route(ROUTE);
    let count = |name: &str| route["mirror"][name].as_u64().unwrap_or_default();
    (
        count("writes_ok"),
        count("writes_failed") + count("writes_deferred"),
    )
}

fn options_of(plan: &Plan, tables: &[&str]) -> ProxyOptions {
    ProxyOptions {
        extra_yaml: format!("limits: {{ workers: {} }}\n", plan.threads),
        ..ProxyOptions::route(ROUTE, tables)
    }
}

fn endpoint(name: &str, port: u16, pid: Option<u32>, tables: Tables) -> Endpoint {
    Endpoint {
        name: name.to_string(),
        port,
        pid,
        tables,
        other: None,
    }
}

/// HAProxy as a TCP relay.
struct HaProxy {
    port: u16,
    process: Guarded,
    _folder: TempDir,
}

impl HaProxy {
    fn start(server: &Server, threads: u32) -> Result<HaProxy, Missing> {
        let folder = TempDir::new("haproxy");
        let port = free_port();
        let settings = format!(
            "global\n  nbthread {threads}\n  maxconn 4000\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen database\n  bind 127.0.0.1:{port}\n  server source {}\n",
            server.address()
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, settings).expect("haproxy.cfg");
        let mut command = Command::new(program()?);
        command.args(["-db", "-q", "-f"]).arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Guarded::spawn(&mut command, folder.path()).expect("start haproxy");
        wait_for("HAProxy listens", Duration::from_secs(10), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Ok(HaProxy {
            port,
            process,
            _folder: folder,
        })
    }
}

/// Found where MariaDB's own programs are looked for.
fn program() -> Result<PathBuf, Missing> {
    Family::MariaDb.program("haproxy")
}
