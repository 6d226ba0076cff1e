//! The drivers applications use, each running a script of real use through the
//! proxy: with TLS and without, on both families, with the route in
//! `source_first`. Afterwards every row is on both sides.
//!
//! Scripts lie in `tests/drivers`; `scripts/install-drivers.sh` makes PyMySQL
//! and mysql2 available, cargo builds the Rust ones. Each script runs on the
//! source directly first: what fails there is no fault of the proxy's.

mod moving;

use crate::support::proc::cache;
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions, compare, servers, skip};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Seconds one script may take; the slowest takes about five.
const PATIENCE: &str = "240";

#[derive(Clone, Copy, PartialEq, Debug)]
enum Driver {
    PyMySql,
    NodeMysql2,
    Sqlx,
    MysqlAsync,
    Cli(Family),
}

const DRIVERS: [Driver; 6] = [
    Driver::PyMySql,
    Driver::NodeMysql2,
    Driver::Sqlx,
    Driver::MysqlAsync,
    Driver::Cli(Family::MariaDb),
    Driver::Cli(Family::MySql),
];

impl Driver {
    /// What its tables' names begin with.
    fn prefix(self) -> &'static str {
        match self {
            Driver::PyMySql => "python",
            Driver::NodeMysql2 => "node",
            Driver::Sqlx => "sqlx",
            Driver::MysqlAsync => "async",
            Driver::Cli(_) => "cli",
        }
    }

    fn tables(self) -> [String; 2] {
        ["items", "types"].map(|name| format!("shop.{}_{name}", self.prefix()))
    }

    /// The command that runs its script, or why it cannot.
    fn command(self, port: u16, source: Family, tls: bool) -> Result<Command, String> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).stdin(Stdio::null());
        match self {
            Driver::PyMySql => {
                let python = installed(cache().join("drivers/python/bin/python"))?;
                command.arg(python).arg(scripts.join("python/main.py"));
            }
            Driver::NodeMysql2 => {
                let node = cache().join("drivers/node");
                installed(node.join("node_modules/mysql2"))?;
                command.arg("node").arg(scripts.join("node/main.js"));
                command.env("DRIVERS_NODE", node);
            }
            Driver::Sqlx => drop(command.arg(rust_drivers()?).arg("sqlx")),
            Driver::MysqlAsync => drop(command.arg(rust_drivers()?).arg("mysql_async")),
            Driver::Cli(family) => cli(&mut command, family, port, tls)?,
        }
        command.env("DRIVER_PORT", port.to_string());
        command.env("DRIVER_USER", servers::APP.0);
        command.env("DRIVER_PASSWORD", servers::APP.1);
        command.env("DRIVER_TLS", if tls { "1" } else { "0" });
        command.env("DRIVER_SOURCE", source.name());
        Ok(command)
    }
}

/// The path, or that nothing is there.
fn installed(path: PathBuf) -> Result<PathBuf, String> {
    let why = format!(
        "{} is missing (run scripts/install-drivers.sh)",
        path.display()
    );
    path.exists().then_some(path).ok_or(why)
}

fn cli(command: &mut Command, family: Family, port: u16, tls: bool) -> Result<(), String> {
    command.arg(family.cli().map_err(|m| m.to_string())?);
    command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1"]);
    command.args(["--default-character-set=utf8mb4", "--table", "--force"]);
    command.arg(format!("--port={port}"));
    command.arg(format!("--user={}", servers::APP.0));
    command.arg(format!("--password={}", servers::APP.1));
    let tls: &[&str] = match (family, tls) {
        (Family::MySql, true) => &["--ssl-mode=REQUIRED"],
        (Family::MySql, false) => &["--ssl-mode=DISABLED", "--get-server-public-key"],
        (Family::MariaDb, true) => &["--ssl"],
        (Family::MariaDb, false) => &["--skip-ssl"],
    };
    command.args(tls).arg("shop");
    Ok(())
}

/// The program of `tests/drivers/rust`, built beside this test with the same
/// profile, so that most of its dependencies are there already.
fn rust_drivers() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let target = own.ancestors().nth(3).ok_or("no target folder")?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/rust/Cargo.toml");
        let built = Command::new(option_env!("CARGO").unwrap_or("cargo"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(manifest)
            .env("CARGO_TARGET_DIR", target)
            .output()
            .map_err(|e| format!("cargo: {e}"))?;
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "tests/drivers/rust: {said}");
        Ok(target.join("debug/lockstep-drivers"))
    };
    BUILT.get_or_init(build).clone()
}

/// What a script printed, or how it failed.
fn run(driver: Driver, port: u16, source: Family, tls: bool) -> Result<String, String> {
    let mut command = driver.command(port, source, tls)?;
    if let Driver::Cli(_) = driver {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/sh/main.sql");
        let script = std::fs::File::open(script).map_err(|e| e.to_string())?;
        command.stdin(script);
    }
    let out = command.output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    match driver {
        // Its errors are part of what is compared.
        Driver::Cli(_) if stdout.contains("COUNT(*)") => Ok(stdout + &stderr),
        Driver::Cli(_) => Err(stdout + &stderr),
        _ if out.status.success() && stdout.contains("passed") => Ok("passed".to_string()),
        _ => Err(format!("{}: {stdout}{stderr}", out.status)),
    }
}

/// Whether a CLI can log in at all: MySQL 9 has no native-password plugin.
fn can_log_in(driver: Driver, server: &Server, tls: bool) -> bool {
    let Driver::Cli(family) = driver else {
        return true;
    };
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).stdin(Stdio::null());
    if let Err(missing) = cli(&mut command, family, server.port(), tls) {
        skip(&missing);
        return false;
    }
    let out = command.args(["-e", "SELECT 1"]).output().expect("cli");
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        eprintln!(
            "the {family} CLI cannot log in to {} directly: {said}",
            server.family()
        );
    }
    out.status.success()
}

fn make_tables(servers: [&Server; 2]) {
    for driver in DRIVERS.iter().take(5) {
        let [items, types] = driver.tables();
        for server in servers {
            server.exec(&format!(
                "CREATE TABLE {items} (id INT AUTO_INCREMENT PRIMARY KEY, \
                 name VARCHAR(40) NOT NULL, price DECIMAL(9,2) NOT NULL, KEY (name));\n\
                 CREATE TABLE {types} (id INT PRIMARY KEY, big BIGINT UNSIGNED, d DOUBLE, \
                 at DATETIME(6), bin LONGBLOB, j JSON)"
            ));
        }
    }
}

fn drivers_work_on(family: Family) {
    let options = || ServerOptions {
        tls: true,
        ..ServerOptions::args(["--max-allowed-packet=64M"])
    };
    let source = crate::or_skip!(Server::start(family, options()));
    let target = crate::or_skip!(Server::start(family, options()));
    make_tables([&source, &target]);
    let mut options = ProxyOptions::route("shop", &["shop.*"]);
    // Blobs of 3 MB on a machine that runs other tests: lateness is no subject here.
    options.extra_yaml = "limits: { mirror_deadline_ms: 10000 }".to_string();
    let proxy = Proxy::start(&source, &target, options);
    proxy.must_advance("shop", "source_first");

    let mut failures = Vec::new();
    for driver in DRIVERS {
        for tls in [false, true] {
            if !can_log_in(driver, &source, tls) {
                continue;
            }
            if let Err(why) = driver.command(0, family, tls) {
                skip(&why);
                continue;
            }
            let empty = || {
                for server in [&source, &target] {
                    for table in driver.tables() {
                        server.exec(&format!("TRUNCATE TABLE {table}"));
                    }
                }
            };
            empty();
            let direct = run(driver, source.port(), family, tls);
            if let Err(why) = &direct {
                failures.push(format!("{driver:?}, TLS {tls}, directly: {why}"));
                continue;
            }
            empty();
            // A password cached by the server would not be shown to the proxy by
            // a client without TLS, and the session would have one leg only.
            source.exec("FLUSH PRIVILEGES");
            let proxied = run(driver, proxy.port(), family, tls);
            let tables = driver.tables();
            let tables = [tables[0].as_str(), tables[1].as_str()];
            let different: Vec<String> = compare::compare(&source, &target, &tables)
                .iter()
                .filter(|t| t.different > 0 || t.rows == 0)
                .map(ToString::to_string)
                .collect();
            println!("{family}, {driver:?}, TLS {tls}: {}", proxied == direct);
            if proxied != direct || !different.is_empty() {
                failures.push(format!(
                    "{driver:?}, TLS {tls}:\n{}\ninstead of\n{}\nrows: {different:?}",
                    proxied.unwrap_or_else(|e| e),
                    direct.unwrap_or_default(),
                ));
            }
        }
    }
    let mirror = proxy.route("shop")["mirror"].clone();
    assert!(failures.is_empty(), "{mirror}\n{}", failures.join("\n\n"));
    assert_eq!(mirror["writes_failed"], 0, "{mirror}");
}

#[test]
fn drivers_of_real_use_work_on_mariadb() {
    drivers_work_on(Family::MariaDb);
}

#[test]
fn drivers_of_real_use_work_on_mysql() {
    drivers_work_on(Family::MySql);
}
