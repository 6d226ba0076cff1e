//! The product as its users run it: the binary with a proxy.yaml, driven
//! through its control port and its command line.

use super::http::{self, Answer};
use super::proc::{Guarded, TempDir, free_port, is_over, tail, wait_for};
use super::servers::{APP, SERVICE, Server, opts};
use mysql_async::{Conn, OptsBuilder};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(30);
/// A little more than the proxy waits between a heartbeat and the next.
const BEAT: Duration = Duration::from_millis(350);
/// A lag that is close behind.
const CLOSE: Duration = Duration::from_millis(500);
/// The proxy drains its sessions before it ends.
const STOP_LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Default)]
pub struct ProxyOptions {
    /// Name and `db.table` globs of each route.
    pub routes: Vec<(String, Vec<String>)>,
    /// Lines added to each route, such as `ack: active`.
    pub route_yaml: String,
    /// Top-level keys added to the file: `users`, `limits`, `tls`.
    pub extra_yaml: String,
    /// Where to reach the source instead of its own address (a relay's, say).
    pub source_address: Option<String>,
    pub target_address: Option<String>,
    /// Further keys of both backends, as `, key: value`.
    pub backend_yaml: String,
    /// `tls` of both backends; empty means `preferred`.
    pub backend_tls: String,
    /// Environment of the process, for switches that exist for tests only.
    pub env: Vec<(String, String)>,
    /// A command that ends by executing its further arguments: the proxy.
    pub wrapper: Vec<String>,
}

impl ProxyOptions {
    /// One route over `tables`.
    pub fn route(name: &str, tables: &[&str]) -> ProxyOptions {
        ProxyOptions::default().and_route(name, tables)
    }

    pub fn and_route(mut self, name: &str, tables: &[&str]) -> ProxyOptions {
        self.routes.push((
            name.to_string(),
            tables.iter().map(|t| t.to_string()).collect(),
        ));
        self
    }
}

/// `yaml` with a deadline for the mirror that a busy machine keeps, unless it
/// sets limits of its own: for tests that want every write on both sides.
pub fn patient(yaml: &str) -> String {
    if yaml.contains("limits:") {
        return yaml.to_owned();
    }
    format!("limits: {{ mirror_deadline_ms: 20000 }}\n{yaml}")
}

/// A running proxy. Dropping it kills it; after a failed test the end of its
/// log is printed.
pub struct Proxy {
    port: u16,
    control: String,
    sql_port: u16,
    folder: TempDir,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    running: Mutex<Option<Guarded>>,
}

impl Proxy {
    /// Starts a proxy between two servers and waits until it is ready.
    pub fn start(source: &Server, target: &Server, options: ProxyOptions) -> Proxy {
        let folder = TempDir::new("proxy");
        let (port, http_port, sql_port) = (free_port(), free_port(), free_port());
        let ports = [port, http_port, sql_port];
        let yaml = yaml(
            &options,
            ports,
            [&source.address(), &target.address()],
            folder.path(),
        );
        std::fs::write(folder.path().join("proxy.yaml"), yaml).expect("proxy.yaml");
        let proxy = Proxy {
            port,
            control: format!("127.0.0.1:{http_port}"),
            sql_port,
            folder,
            env: options.env,
            wrapper: options.wrapper,
            running: Mutex::new(None),
        };
        proxy.launch();
        proxy
    }

    /// The port applications connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port` of the HTTP control port.
    pub fn control(&self) -> &str {
        &self.control
    }

    /// The port of the SQL console.
    pub fn sql_port(&self) -> u16 {
        self.sql_port
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("proxy.yaml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn pid(&self) -> u32 {
        self.running
            .lock()
            .as_ref()
            .expect("proxy is stopped")
            .pid()
    }

    /// Options for an application's connection through the proxy.
    pub fn opts(&self, database: Option<&str>) -> OptsBuilder {
        opts(self.port, APP.0, APP.1, database)
    }

    /// An application's connection through the proxy. Panics when refused.
    pub async fn conn(&self, database: Option<&str>) -> Conn {
        let connected = Conn::new(self.opts(database)).await;
        connected.unwrap_or_else(|e| panic!("proxy refused: {e}\n{}", self.log()))
    }

    // --- control -------------------------------------------------------------

    pub fn get(&self, path: &str) -> Answer {
        http::get(&self.control, path).unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log()))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        http::post(&self.control, path, body)
            .unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.log()))
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        http::put(&self.control, path, body)
            .unwrap_or_else(|e| panic!("PUT {path}: {e}\n{}", self.log()))
    }

    pub fn status(&self) -> Value {
        let answer = self.get("/v1/status");
        assert!(answer.ok(), "status: {answer:?}");
        answer.json()
    }

    /// The part of the status about one route; null when there is none.
    pub fn route(&self, name: &str) -> Value {
        let status = self.status();
        let routes = status["routes"].as_array().cloned().unwrap_or_default();
        routes
            .into_iter()
            .find(|r| r["name"] == name)
            .unwrap_or(Value::Null)
    }

    pub fn phase(&self, route: &str) -> String {
        self.route(route)["phase"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    }

    pub fn advance(&self, route: &str, to: Option<&str>, force: bool) -> Answer {
        self.step("advance", route, to, force)
    }

    pub fn rollback(&self, route: &str, to: Option<&str>, force: bool) -> Answer {
        self.step("rollback", route, to, force)
    }

    fn step(&self, step: &str, route: &str, to: Option<&str>, force: bool) -> Answer {
        let mut body = json!({ "force": force, "wait": true });
        if let Some(phase) = to {
            body["to"] = json!(phase);
        }
        self.post(&format!("/v1/routes/{route}/{step}"), &body)
    }

    /// Advances or panics with the answer and the log.
    pub fn must_advance(&self, route: &str, to: &str) {
        let answer = self.advance(route, Some(to), true);
        assert!(
            answer.ok(),
            "advance {route} to {to}: {answer:?}\n{}",
            self.log()
        );
        assert_eq!(self.phase(route), to);
    }

    pub fn must_rollback(&self, route: &str, to: &str) {
        let answer = self.rollback(route, Some(to), true);
        assert!(
            answer.ok(),
            "rollback {route} to {to}: {answer:?}\n{}",
            self.log()
        );
        assert_eq!(self.phase(route), to);
    }

    /// Sets the target's share of the reads, in percent.
    pub fn reads(&self, route: &str, percent: u8) -> Answer {
        self.put(
            &format!("/v1/routes/{route}/reads"),
            &json!({ "percent": percent }),
        )
    }

    /// From now on only the application's statements change the route's rows:
    /// nothing is followed or healed.
    pub fn pause(&self, route: &str) {
        let answer = self.post(&format!("/v1/routes/{route}/pause"), &json!({}));
        assert!(answer.ok(), "pause {route}: {answer:?}");
    }

    /// Waits until a route's follower runs, is close behind, and has written or
    /// healed all that was committed before this was called.
    ///
    /// A lag of L says that every beat sent more than L ago is passed. To be
    /// sure that one of them was sent after the call: the last one before it
    /// was committed within L, else it would be a longer lag; the next follows
    /// [`BEAT`] later.
    pub fn wait_followed(&self, route: &str, limit: Duration) {
        let began = Instant::now();
        loop {
            let asked = began.elapsed();
            let follow = self.route(route)["follow"].clone();
            let lag = follow["lag_ms"].as_u64().map(Duration::from_millis);
            if follow["state"] == "running"
                && lag.is_some_and(|l| l < CLOSE && asked > BEAT + 2 * l)
            {
                return;
            }
            assert!(
                !is_over(began, limit),
                "{route}: not close behind within {limit:?}: {follow:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was paused goes on.
    pub fn resume(&self, route: &str) {
        let answer = self.post(&format!("/v1/routes/{route}/resume"), &json!({}));
        assert!(answer.ok(), "resume {route}: {answer:?}");
    }

    /// Rows of a route that were found different and repaired: where every
    /// write is mirrored, none.
    pub fn healed(&self, route: &str) -> u64 {
        // The metrics are a second old.
        std::thread::sleep(Duration::from_millis(1200));
        let series =
            |kind| format!("lockstep_healed_rows_total{{route=\"{route}\",kind=\"{kind}\"}}");
        let kinds = ["changed", "missing", "extra"].into_iter();
        kinds.filter_map(|k| self.metric(&series(k))).sum::<f64>() as u64
    }

    pub fn explain(&self, sql: &str, database: Option<&str>) -> Value {
        self.post("/v1/explain", &json!({ "sql": sql, "database": database }))
            .json()
    }

    /// The value of one series on `/metrics`, named with its labels as printed.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(series)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Runs a command of the CLI against this proxy.
    pub fn cli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("LOCKSTEP_CONTROL", format!("http://{}", self.control));
        command.output().expect("run lockstep")
    }

    // --- life and death ------------------------------------------------------

    pub fn kill9(&self) {
        if let Some(process) = self.running.lock().take() {
            process.kill9();
        }
    }

    /// An orderly end (SIGTERM).
    pub fn stop(&self) {
        if let Some(process) = self.running.lock().take() {
            process.stop(STOP_LIMIT);
        }
    }

    /// Starts again on the same ports and state, after a stop if it runs.
    pub fn restart(&self) {
        self.stop();
        self.launch();
    }

    /// The end of everything it has logged, over all restarts.
    pub fn log(&self) -> String {
        tail(&self.folder.path().join("log"), 60)
    }

    fn launch(&self) {
        let mut running = self.running.lock();
        let log = self.folder.path().join("log");
        let out = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("log");
        let mut command = match self.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.arg("--config").arg(self.config_path()).arg("serve");
        command.env("TEST_FOLDER", self.folder.path());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
            .stdout(out.try_clone().map_or(Stdio::null(), Stdio::from))
            .stderr(out);
        let mut process = Guarded::spawn(&mut command, self.folder.path()).expect("start lockstep");
        let until = Instant::now() + START_LIMIT;
        while !http::get(&self.control, "/readyz").is_ok_and(|a| a.ok()) {
            let ended = process.ended();
            assert!(
                ended.is_none() && Instant::now() < until,
                "the proxy is not ready (ended: {ended:?}):\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        *running = Some(process);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the proxy's log ---\n{}\n-----------------------",
                self.log()
            );
        }
    }
}

/// The product's binary: the one cargo built for this test, or, for an example,
/// the one beside it in the target folder.
pub fn binary() -> PathBuf {
    if let Some(path) = option_env!("CARGO_BIN_EXE_lockstep") {
        return PathBuf::from(path);
    }
    let own = std::env::current_exe().expect("own path");
    let built = own
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("target/debug"))
        .join("lockstep");
    assert!(
        built.is_file(),
        "{} is not built: cargo build --bin lockstep",
        built.display()
    );
    built
}

/// The settings file: ports of the proxy, the control port and the SQL console;
/// addresses of source and target.
pub fn yaml(
    options: &ProxyOptions,
    ports: [u16; 3],
    addresses: [&str; 2],
    folder: &Path,
) -> String {
    let [port, http_port, sql_port] = ports;
    let source = options.source_address.as_deref().unwrap_or(addresses[0]);
    let target = options.target_address.as_deref().unwrap_or(addresses[1]);
    let tls = if options.backend_tls.is_empty() {
        "preferred"
    } else {
        &options.backend_tls
    };
    let (user, password) = SERVICE;
    let more = &options.backend_yaml;
    let mut yaml = format!(
        "listen: 127.0.0.1:{port}\n\
         control: {{ http: \"127.0.0.1:{http_port}\", sql: \"127.0.0.1:{sql_port}\" }}\n\
         backends:\n  \
           source: {{ address: \"{source}\", user: {user}, password: {password}, tls: \"{tls}\"{more} }}\n  \
           target: {{ address: \"{target}\", user: {user}, password: {password}, tls: \"{tls}\"{more} }}\n\
         state: \"{}\"\n",
        folder.join("state").display()
    );
    yaml.push_str(if options.routes.is_empty() {
        "routes: []\n"
    } else {
        "routes:\n"
    });
    for (name, tables) in &options.routes {
        yaml.push_str(&format!(
            "  - name: {name}\n    tables: {}\n",
            json!(tables)
        ));
        for line in options.route_yaml.lines() {
            yaml.push_str(&format!("    {}\n", line.trim()));
        }
    }
    yaml.push_str(&options.extra_yaml);
    if !yaml.ends_with('\n') {
        yaml.push('\n');
    }
    yaml
}
