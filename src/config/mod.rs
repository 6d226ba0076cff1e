//! Settings: `proxy.yaml`, overridden by `LOCKSTEP_…` variables.
//!
//! The way of a setting: file and environment are merged (figment) into one
//! tree of values; [`read`] takes every key out of it by name, so that a key
//! left over is unknown and every problem is found in one pass; [`validate`]
//! then looks at what only shows across keys. Problems name the key and what
//! is wrong with it, never the value: a value may be a password typed into the
//! wrong line.

mod copy;
mod env;
mod network;
pub(crate) mod read;
mod secret;
pub(crate) mod validate;

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::Format;
use serde_saphyr::figment::Yaml;

use crate::Side;
use crate::route::table::{Ack, DdlPolicy, DeferredPolicy, ReadsBy};

pub use copy::{CopySettings, Hours};
pub use network::Network;
pub use secret::Password;
pub use validate::globs_overlap;

/// All settings. No Debug: it holds passwords.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Where applications connect: `host:port`.
    pub listen: String,
    /// The certificate shown to applications.
    pub tls: ClientTls,
    /// From whom the PROXY protocol's header is expected: load balancers.
    pub proxy_protocol_from: Vec<Network>,
    /// MariaDB clients may send bulk executions, which a mirrored route defers;
    /// otherwise they send single ones, which are mirrored.
    pub mariadb_bulk: bool,
    /// The control port.
    pub control: Control,
    /// The source and the target, by [`Side::index`].
    pub backends: [Backend; 2],
    /// Client users whose credentials differ between the backends.
    pub users: Vec<UserEntry>,
    /// The routes a new store starts with.
    pub routes: Vec<RouteConfig>,
    /// Bounds on time, memory and numbers.
    pub limits: Limits,
    /// How hard the copy of existing rows may work.
    pub copy: CopySettings,
    /// Where durable state lives: a directory.
    pub state: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:6033".to_owned(),
            tls: ClientTls::default(),
            proxy_protocol_from: Vec::new(),
            mariadb_bulk: false,
            control: Control::default(),
            backends: [Backend::at("127.0.0.1:3306"), Backend::at("127.0.0.1:3307")],
            users: Vec::new(),
            routes: Vec::new(),
            limits: Limits::default(),
            copy: CopySettings::default(),
            state: PathBuf::from("./state"),
        }
    }
}

impl Config {
    /// One side's backend.
    pub fn backend(&self, side: Side) -> &Backend {
        let [source, target] = &self.backends;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }
}

/// The certificate shown to applications; both empty: a self-signed pair made
/// in the state directory at the first start.
#[derive(Clone, PartialEq, Default)]
pub struct ClientTls {
    /// PEM file of the certificate chain, or empty.
    pub cert: String,
    /// PEM file of the private key, or empty.
    pub key: String,
    /// PEM file of the authorities that sign clients' certificates; empty:
    /// none is asked for.
    pub ca: String,
    /// Whether a client must show a certificate.
    pub client_certs: ClientCerts,
}

/// What is asked of clients' certificates where `tls.ca` is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientCerts {
    /// One that is shown must be valid.
    #[default]
    Optional,
    /// Every client must show a valid one.
    Required,
}

/// How a backend is told who the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProxyProtocol {
    /// Not at all: it sees the proxy's address.
    #[default]
    Off,
    /// By a header of version 1 (text).
    V1,
    /// By a header of version 2 (binary).
    V2,
}

/// The control port.
#[derive(Clone, PartialEq)]
pub struct Control {
    /// Where HTTP listens: `host:port`.
    pub http: String,
    /// Where the SQL console will listen; nothing listens there yet.
    pub sql: String,
    /// The bearer token; required when `http` or `sql` is not on loopback.
    pub token: Password,
}

impl Default for Control {
    fn default() -> Self {
        Control {
            http: "127.0.0.1:6080".to_owned(),
            sql: "127.0.0.1:6032".to_owned(),
            token: Password::default(),
        }
    }
}

/// How a connection to a backend is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsMode {
    /// Never.
    Off,
    /// Where the server offers it; its certificate is not verified.
    #[default]
    Preferred,
    /// Always; its certificate is not verified.
    Required,
    /// Always, with its certificate and name verified.
    Verify,
}

/// One database.
#[derive(Clone, PartialEq)]
pub struct Backend {
    /// `host:port`.
    pub address: String,
    /// The service account: reads grant tables, shapes and positions.
    pub user: String,
    /// Its password.
    pub password: Password,
    /// Encryption of all connections to this backend.
    pub tls: TlsMode,
    /// PEM file of the authorities `verify` trusts; required by it.
    pub ca: String,
    /// PEM file of the certificate shown to this backend, or empty.
    pub cert: String,
    /// PEM file of its private key, or empty.
    pub key: String,
    /// Whether this backend is told clients' addresses.
    pub proxy_protocol: ProxyProtocol,
    /// A replica to compare on first, or empty.
    pub replica: String,
}

impl Backend {
    fn at(address: &str) -> Backend {
        Backend {
            address: address.to_owned(),
            user: "lockstep".to_owned(),
            password: Password::default(),
            tls: TlsMode::default(),
            ca: String::new(),
            cert: String::new(),
            key: String::new(),
            proxy_protocol: ProxyProtocol::default(),
            replica: String::new(),
        }
    }
}

/// One side's credentials of a mapped client user.
#[derive(Clone, PartialEq)]
pub struct Credentials {
    /// The account's user name on that backend.
    pub user: String,
    /// Its password there.
    pub password: Password,
    /// PEM file of the certificate shown in its name, or empty.
    pub cert: String,
    /// PEM file of that certificate's private key, or empty.
    pub key: String,
}

/// A client user whose credentials differ between the backends.
#[derive(Clone, PartialEq)]
pub struct UserEntry {
    /// The name the client sends.
    pub name: String,
    /// What it is on the source and the target, by [`Side::index`]; None: the
    /// client's own credentials.
    pub sides: [Option<Credentials>; 2],
}

/// A route as the file describes it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct RouteConfig {
    /// Its name: letters, digits, `_`, `-`, `.`; at most 64.
    pub name: String,
    /// `db.table` globs.
    pub tables: Vec<String>,
    /// When clients are answered for mirrored writes.
    pub ack: Ack,
    /// What a session does after its own deferred write.
    pub deferred: DeferredPolicy,
    /// What happens to DDL on its tables.
    pub ddl: DdlPolicy,
    /// What the read percentage is of.
    pub reads_by: ReadsBy,
}

/// Bounds on time, memory and numbers. The reasons for the defaults stand in
/// `proxy.yaml`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How long a write waits for the mirror after the active side answered.
    pub mirror_deadline_ms: u64,
    /// How long a phase change waits for open transactions.
    pub drain_ms: u64,
    /// How long a phase change may hold writes in all.
    pub gate_ms: u64,
    /// Single mirror errors per minute and route beyond which it is suspended.
    pub mirror_errors_per_min: u64,
    /// Client connections at once.
    pub connections: u64,
    /// From accept to the end of the login.
    pub login_timeout_ms: u64,
    /// To open a TCP connection to a backend and read its greeting.
    pub connect_timeout_ms: u64,
    /// Threads that relay; 0: one per core.
    pub workers: u64,
    /// Bytes of the journal of failed and deferred writes before it says
    /// "everything since P".
    pub journal_bytes: u64,
    /// How long sessions may go on after a stop was asked for.
    pub shutdown_ms: u64,
    /// How old table shapes may get without a known DDL.
    pub catalog_refresh_ms: u64,
    /// How far behind a follower may be when a phase changes.
    pub follow_lag_ms: u64,
    /// How old a comparison may be that the flip rests on.
    pub compare_age_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            mirror_deadline_ms: 200,
            drain_ms: 1_000,
            gate_ms: 3_000,
            mirror_errors_per_min: 30,
            connections: 4_096,
            login_timeout_ms: 10_000,
            connect_timeout_ms: 3_000,
            workers: 0,
            journal_bytes: 64 * 1024 * 1024,
            shutdown_ms: 10_000,
            catalog_refresh_ms: 10_000,
            follow_lag_ms: 1_000,
            compare_age_s: 3_600,
        }
    }
}

impl Limits {
    /// [`Limits::mirror_deadline_ms`].
    pub const fn mirror_deadline(&self) -> Duration {
        Duration::from_millis(self.mirror_deadline_ms)
    }
    /// [`Limits::compare_age_s`].
    pub const fn compare_age(&self) -> Duration {
        Duration::from_secs(self.compare_age_s)
    }
    /// [`Limits::drain_ms`].
    pub const fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
    /// [`Limits::gate_ms`].
    pub const fn gate(&self) -> Duration {
        Duration::from_millis(self.gate_ms)
    }
    /// [`Limits::login_timeout_ms`].
    pub const fn login_timeout(&self) -> Duration {
        Duration::from_millis(self.login_timeout_ms)
    }
    /// [`Limits::connect_timeout_ms`].
    pub const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
    /// [`Limits::shutdown_ms`].
    pub const fn shutdown(&self) -> Duration {
        Duration::from_millis(self.shutdown_ms)
    }
    /// [`Limits::catalog_refresh_ms`].
    pub const fn catalog_refresh(&self) -> Duration {
        Duration::from_millis(self.catalog_refresh_ms)
    }
}

/// Everything wrong with the settings, at once.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
#[error("{} problem(s) in the settings:\n{}", .0.len(), .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// The largest settings file read, in bytes: far beyond 64 routes and a
/// thousand users; keeps a wrong path (a dump, a device) out of memory.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Reads a settings file and this process's environment.
///
/// # Errors
/// Every problem found, without values.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let name = path.display();
    let size = std::fs::metadata(path)
        .map_err(|e| ConfigError(vec![format!("{name}: {e}")]))?
        .len();
    if size > FILE_MAX {
        return Err(ConfigError(vec![format!(
            "{name}: {size} bytes is more than a settings file may have ({FILE_MAX})"
        )]));
    }
    let text =
        std::fs::read_to_string(path).map_err(|e| ConfigError(vec![format!("{name}: {e}")]))?;
    parse(&text, std::env::vars_os())
}

/// Reads settings from the text of a file and a set of variables.
///
/// # Errors
/// Every problem found, without values.
pub fn parse(
    text: &str,
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let overrides = env::overrides(variables, &mut problems);
    // The parser's own message may quote the file: only its place is shown.
    if let Err(e) = serde_saphyr::from_str::<serde_json::Value>(text) {
        let at = e
            .location()
            .map(|l| format!(" at line {}, column {}", l.line(), l.column()))
            .unwrap_or_default();
        problems.push(format!("the file is not valid YAML{at}"));
        return Err(ConfigError(problems));
    }
    let merged = Figment::new()
        .merge(Yaml::string(text))
        .merge(overrides)
        .extract::<serde_json::Value>();
    let Ok(tree) = merged else {
        problems.push("the file is not a mapping of keys to values".to_owned());
        return Err(ConfigError(problems));
    };
    let config = read::config(tree, &mut problems);
    validate::check(&config, &mut problems);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError(problems))
    }
}

#[cfg(test)]
mod tests;
