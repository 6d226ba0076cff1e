//! Real MariaDB and MySQL servers on throw-away data folders.
//!
//! A folder prepared once per family (system tables, accounts) lies in the
//! cache; each server starts on a copy of it, on a free port, and ends with the
//! test process however that ends.

use super::proc::{Guarded, TempDir, block_on, cache, free_port, runtime, tail};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A cold start with a cold disk cache on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// A shutdown that writes its pages back.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The service account the proxy uses, and its password.
pub const SERVICE: (&str, &str) = ("lockstep", "lockstep-pw");
/// An ordinary application account: all rights on `shop`, `test` and `t`.
pub const APP: (&str, &str) = ("app", "app-pw");
/// Databases that exist on every server from the start.
pub const DATABASES: [&str; 3] = ["shop", "test", "t"];

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Family {
    MariaDb,
    MySql,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::MariaDb, Family::MySql];

    pub const fn name(self) -> &'static str {
        match self {
            Family::MariaDb => "mariadb",
            Family::MySql => "mysql",
        }
    }

    /// The path of one of this family's programs (`mysqld`, `mysqlbinlog`,
    /// `mysql` for MySQL; `mariadbd`, `mariadb-binlog`, `mariadb` for MariaDB).
    pub fn program(self, name: &str) -> Result<PathBuf, Missing> {
        let mut folders = Vec::new();
        if self == Family::MySql {
            folders.push(cache().join("mysql97/bin"));
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            folders.extend(std::env::split_paths(&path));
            folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        }
        let found = folders.iter().map(|f| f.join(name)).find(|p| p.is_file());
        found.ok_or_else(|| Missing(format!("{name} is not installed")))
    }

    /// This family's command-line client.
    pub fn cli(self) -> Result<PathBuf, Missing> {
        self.program(match self {
            Family::MariaDb => "mariadb",
            Family::MySql => "mysql",
        })
    }

    fn server_program(self) -> Result<PathBuf, Missing> {
        self.program(match self {
            Family::MariaDb => "mariadbd",
            Family::MySql => "mysqld",
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A program that is not installed; see [`super::skip`].
#[derive(Debug)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (run scripts/install-servers.sh)", self.0)
    }
}

#[derive(Clone, Default)]
pub struct ServerOptions {
    /// Redo and binlog synced at each commit; otherwise neither.
    pub durable: bool,
    /// TLS on MariaDB too. MySQL ships with it on and always has it here.
    pub tls: bool,
    /// Further arguments, after ours: they win.
    pub args: Vec<String>,
}

impl ServerOptions {
    pub fn args<const N: usize>(args: [&str; N]) -> ServerOptions {
        let args = args.map(str::to_string).to_vec();
        ServerOptions {
            args,
            ..Default::default()
        }
    }
}

/// A running server. Dropping it stops it and removes its data.
pub struct Server {
    family: Family,
    options: ServerOptions,
    program: PathBuf,
    port: u16,
    id: u32,
    folder: TempDir,
    running: parking_lot::Mutex<Option<Guarded>>,
    version: OnceLock<String>,
}

impl Server {
    /// Starts a private server and waits until it answers. Panics with the end
    /// of the error log if it does not.
    pub fn start(family: Family, options: ServerOptions) -> Result<Server, Missing> {
        static ID: AtomicU32 = AtomicU32::new(1);
        let program = family.server_program()?;
        let template = template(family, &program)?;
        let folder = TempDir::new(family.name());
        let copied = Command::new("cp")
            .arg("-a")
            .arg(template)
            .arg(folder.path().join("data"))
            .status();
        assert!(
            copied.is_ok_and(|s| s.success()),
            "cannot copy the {family} template"
        );
        if options.tls && family == Family::MariaDb {
            write_certificate(folder.path());
        }
        let server = Server {
            family,
            options,
            program,
            port: free_port(),
            // Distinct within the process and, near enough, among processes.
            id: (std::process::id() % 40_000) * 100 + ID.fetch_add(1, Ordering::Relaxed),
            folder,
            running: parking_lot::Mutex::new(None),
            version: OnceLock::new(),
        };
        server.launch();
        Ok(server)
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn datadir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn socket_path(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    /// What `SELECT VERSION()` answers.
    pub fn version(&self) -> &str {
        self.version.get_or_init(|| self.one("SELECT VERSION()"))
    }

    /// The process id; panics while the server is stopped.
    pub fn pid(&self) -> u32 {
        self.running
            .lock()
            .as_ref()
            .expect("server is stopped")
            .pid()
    }

    /// The authority that signed the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        match self.family {
            Family::MariaDb => self.folder.path().join("cert.pem"),
            Family::MySql => self.datadir().join("ca.pem"),
        }
    }

    pub fn error_log(&self) -> String {
        tail(&self.folder.path().join("error.log"), 40)
    }

    // --- connections ---------------------------------------------------------

    /// Options for a connection of `user` over TCP, `database` optional.
    pub fn opts(&self, user: &str, password: &str, database: Option<&str>) -> OptsBuilder {
        opts(self.port, user, password, database)
    }

    /// A connection as root, without a database.
    pub async fn conn(&self) -> Conn {
        let opts = self.opts("root", "", None);
        let connected = Conn::new(opts).await;
        connected.unwrap_or_else(|e| {
            panic!(
                "{} at {}: {e}\n{}",
                self.family,
                self.port,
                self.error_log()
            )
        })
    }

    /// Runs statements as root, separated by a `;` at a line's end. Panics on an
    /// error.
    pub fn exec(&self, sql: &str) {
        block_on(async {
            let mut conn = self.conn().await;
            for statement in statements(sql) {
                let done = conn.query_drop(statement).await;
                done.unwrap_or_else(|e| panic!("{} said {e} to {statement}", self.family));
            }
            let _ = conn.disconnect().await;
        });
    }

    /// The rows of one statement as root, as text; `None` is NULL.
    pub fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        block_on(async {
            let mut conn = self.conn().await;
            let rows: Result<Vec<Row>, _> = conn.query(sql).await;
            let rows = rows.unwrap_or_else(|e| panic!("{} said {e} to {sql}", self.family));
            let _ = conn.disconnect().await;
            rows.into_iter().map(texts).collect()
        })
    }

    /// The first column of the first row; panics when there is none or it is NULL.
    pub fn one(&self, sql: &str) -> String {
        let first = self
            .query(sql)
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        first
            .flatten()
            .unwrap_or_else(|| panic!("no value from {sql}"))
    }

    // --- life and death ------------------------------------------------------

    /// An orderly shutdown; the port and the data stay for [`Server::restart`].
    pub fn stop(&self) {
        if let Some(process) = self.running.lock().take() {
            process.stop(STOP_LIMIT);
        }
    }

    pub fn kill9(&self) {
        if let Some(process) = self.running.lock().take() {
            process.kill9();
        }
    }

    /// Starts again on the same port and data, after a stop if it runs.
    pub fn restart(&self) {
        self.stop();
        self.launch();
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.running
            .lock()
            .as_ref()
            .expect("server is stopped")
            .signal(name);
    }

    fn launch(&self) {
        let mut running = self.running.lock();
        let log = self.folder.path().join("error.log");
        let out = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("error log");
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments())
            .stdout(Stdio::null())
            .stderr(out);
        let mut process = Guarded::spawn(&mut command, self.folder.path()).expect("start server");
        let until = Instant::now() + START_LIMIT;
        loop {
            let opts = self.opts("root", "", None);
            let ready = block_on(async {
                match Conn::new(opts).await {
                    Ok(conn) => conn.disconnect().await.is_ok(),
                    Err(_) => false,
                }
            });
            if ready {
                break;
            }
            let ended = process.ended();
            let state = ended.map_or("still starting".to_string(), |s| s.to_string());
            assert!(
                ended.is_none() && Instant::now() < until,
                "{} did not start ({state}):\n{}",
                self.family,
                self.error_log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        *running = Some(process);
    }

    fn arguments(&self) -> Vec<String> {
        let folder = self.folder.path().display();
        let mut args = common_arguments(self.family, &self.datadir());
        args.extend([
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_string(),
            format!("--socket={}", self.socket_path().display()),
            format!("--pid-file={folder}/pid"),
            // A server that starts removes `#sql` files from its tmpdir: in a
            // common one they would be those of the others.
            format!("--tmpdir={folder}"),
            format!("--server-id={}", self.id),
            format!("--log-bin={}", self.datadir().join("binlog").display()),
        ]);
        args.extend(
            [
                "--binlog-format=ROW",
                "--binlog-row-image=FULL",
                "--skip-name-resolve",
            ]
            .map(String::from),
        );
        args.extend(["--max-connections=600", "--innodb-buffer-pool-size=64M"].map(String::from));
        let commit = if self.options.durable { 1 } else { 0 };
        args.push(format!("--innodb-flush-log-at-trx-commit={commit}"));
        args.push(format!("--sync-binlog={commit}"));
        if !self.options.durable {
            // Its files outlive the process anyway; each DDL would wait for the
            // disk several times.
            args.push("--innodb-flush-method=nosync".to_string());
        }
        if self.family == Family::MySql {
            args.extend(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"].map(String::from));
        } else if self.options.tls {
            args.push(format!("--ssl-cert={folder}/cert.pem"));
            args.push(format!("--ssl-key={folder}/key.pem"));
        }
        args.extend(self.options.args.iter().cloned());
        args
    }
}

/// A server of the whole test binary, started by the first test that asks.
/// Indices 0 and 1 make pairs of one family possible. Tests that share one use
/// tables of their own and change no global setting.
pub fn shared(family: Family, index: usize) -> Result<&'static Server, Missing> {
    static SERVERS: [OnceLock<Result<Server, String>>; 4] = [const { OnceLock::new() }; 4];
    let first = if family == Family::MariaDb { 0 } else { 2 };
    // So that copies go both ways: MySQL's own default is off.
    let options = match index {
        1 => ServerOptions::args(["--local-infile=1"]),
        _ => ServerOptions::default(),
    };
    let start = || Server::start(family, options.clone()).map_err(|m| m.0);
    let server = SERVERS[first + index].get_or_init(start);
    server.as_ref().map_err(|why| Missing(why.clone()))
}

/// Options for a TCP connection to a local port.
pub fn opts(port: u16, user: &str, password: &str, database: Option<&str>) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .prefer_socket(false)
        .user(Some(user))
        .pass(Some(password))
        .db_name(database)
}

/// The same over TLS, the certificate not verified.
pub fn tls_opts(port: u16, user: &str, password: &str, database: Option<&str>) -> Opts {
    let tls = SslOpts::default()
        .with_danger_accept_invalid_certs(true)
        .with_danger_skip_domain_validation(true);
    opts(port, user, password, database)
        .ssl_opts(Some(tls))
        .into()
}

/// One value as text; bytes that are not UTF-8 are shown escaped.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_string(),
            Err(_) => bytes.escape_ascii().to_string(),
        }),
        other => Some(other.as_sql(true).trim_matches('\'').to_string()),
    }
}

/// A row's values as text.
pub fn texts(row: Row) -> Vec<Option<String>> {
    row.unwrap().iter().map(text).collect()
}

/// Splits a script at semicolons that end a line.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n")
        .map(|s| s.trim().trim_end_matches(';'))
        .filter(|s| !s.is_empty())
}

// --- preparing data folders --------------------------------------------------

/// Arguments that both the preparation and every start need.
fn common_arguments(family: Family, datadir: &Path) -> Vec<String> {
    let mut args = vec![
        "--no-defaults".to_string(),
        format!("--datadir={}", datadir.display()),
    ];
    if runs_as_root() {
        args.push("--user=root".to_string());
    }
    if family == Family::MySql {
        args.extend(["--secure-file-priv=NULL", "--mysqlx=OFF"].map(String::from));
        args.push("--innodb-redo-log-capacity=64M".to_string());
    } else {
        args.push("--innodb-log-file-size=64M".to_string());
    }
    args
}

fn runs_as_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

/// Changes whenever the preparation below does.
const TEMPLATE: u32 = 1;

/// The prepared data folder of a family, made on first use.
fn template(family: Family, program: &Path) -> Result<PathBuf, Missing> {
    static MAKING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one_at_a_time = MAKING.lock();
    let version = Command::new(program)
        .arg("--version")
        .output()
        .expect("server's version");
    let version = String::from_utf8_lossy(&version.stdout);
    let word = version
        .split_whitespace()
        .skip_while(|w| *w != "Ver")
        .nth(1)
        .unwrap_or("unknown");
    let done = cache().join(format!("template{TEMPLATE}-{}-{word}", family.name()));
    if done.is_dir() {
        return Ok(done);
    }
    std::fs::create_dir_all(cache()).expect("cache folder");
    // Made beside its place and moved there whole: another process that
    // prepares the same at the same time merely loses the race.
    let making = done.with_extension(format!("making-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&making);
    initialise(family, program, &making)?;
    create_accounts(family, program, &making);
    for generated in ["auto.cnf", "error.log", "s.sock"] {
        let _ = std::fs::remove_file(making.join(generated));
    }
    if std::fs::rename(&making, &done).is_err() {
        let _ = std::fs::remove_dir_all(&making);
    }
    Ok(done)
}

fn initialise(family: Family, program: &Path, datadir: &Path) -> Result<(), Missing> {
    let mut command = match family {
        Family::MySql => {
            let mut command = Command::new(program);
            command
                .args(common_arguments(family, datadir))
                .arg("--initialize-insecure");
            command
        }
        Family::MariaDb => {
            let mut command = Command::new(family.program("mariadb-install-db")?);
            command.args(common_arguments(family, datadir));
            command.args(["--skip-test-db", "--auth-root-authentication-method=normal"]);
            command
        }
    };
    let out = command.output().expect("prepare data folder");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "cannot prepare a data folder for {family}: {said}"
    );
    Ok(())
}

/// Runs the server once on the new folder, without a binlog, to write the
/// accounts and databases every test expects.
fn create_accounts(family: Family, program: &Path, datadir: &Path) {
    let folder = TempDir::new("prepare");
    let script = folder.path().join("accounts.sql");
    std::fs::write(&script, accounts(family)).expect("accounts script");
    let port = free_port();
    let log = folder.path().join("error.log");
    let mut command = Command::new(program);
    command.args(common_arguments(family, datadir));
    command.args([
        format!("--port={port}"),
        "--bind-address=127.0.0.1".to_string(),
        format!("--socket={}/s.sock", folder.path().display()),
        format!("--pid-file={}/pid", folder.path().display()),
        format!("--init-file={}", script.display()),
        "--skip-log-bin".to_string(),
        "--skip-name-resolve".to_string(),
    ]);
    command
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("error log"));
    let process = Guarded::spawn(&mut command, folder.path()).expect("start server");
    let login = || {
        let opts = opts(port, APP.0, APP.1, Some("shop"));
        block_on(async {
            match Conn::new(opts).await {
                Ok(conn) => conn.disconnect().await.is_ok(),
                Err(_) => false,
            }
        })
    };
    let until = Instant::now() + START_LIMIT;
    while !login() {
        assert!(
            Instant::now() < until,
            "accounts of {family} not made:\n{}",
            tail(&log, 40)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    process.stop(STOP_LIMIT);
}

/// One statement per line, as an init file wants them.
fn accounts(family: Family) -> String {
    let plugin = match family {
        Family::MariaDb => "mysql_native_password",
        Family::MySql => "caching_sha2_password",
    };
    let with = |password: &str| match family {
        Family::MariaDb => format!("IDENTIFIED VIA {plugin} USING PASSWORD('{password}')"),
        Family::MySql => format!("IDENTIFIED WITH {plugin} BY '{password}'"),
    };
    let mut sql = vec![
        format!("CREATE USER IF NOT EXISTS 'root'@'%' {}", with("")),
        "GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION".to_string(),
        format!("CREATE USER '{}'@'%' {}", SERVICE.0, with(SERVICE.1)),
        format!(
            "GRANT ALL PRIVILEGES ON *.* TO '{}'@'%' WITH GRANT OPTION",
            SERVICE.0
        ),
        format!("CREATE USER '{}'@'%' {}", APP.0, with(APP.1)),
        format!("GRANT PROCESS ON *.* TO '{}'@'%'", APP.0),
    ];
    for database in DATABASES {
        sql.push(format!("CREATE DATABASE {database} CHARACTER SET utf8mb4"));
        sql.push(format!(
            "GRANT ALL PRIVILEGES ON {database}.* TO '{}'@'%'",
            APP.0
        ));
    }
    sql.push("FLUSH PRIVILEGES".to_string());
    sql.iter().map(|line| format!("{line};\n")).collect()
}

/// A self-signed pair for `localhost` and `127.0.0.1`.
fn write_certificate(folder: &Path) {
    let names = vec!["localhost".to_string(), "127.0.0.1".to_string()];
    let pair = rcgen::generate_simple_self_signed(names).expect("certificate");
    std::fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("certificate");
    std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).expect("key");
}
