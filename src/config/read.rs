//! Takes the settings out of a tree of values: what is missing keeps its
//! default, what is left over is unknown, and every problem is collected.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::copy::minute_of_day;
use super::{
    Backend, ClientCerts, ClientTls, Config, Control, CopySettings, Credentials, Hours, Limits,
    Network, Password, ProxyProtocol, RouteConfig, TlsMode, UserEntry,
};
use crate::route::table::{Ack, DdlPolicy, DeferredPolicy, ReadsBy};

/// Most ranges of load balancers: every new connection is looked up in them.
const NETWORKS_MAX: usize = 64;

/// One mapping of the tree with its path, for messages.
struct Section<'p> {
    path: String,
    values: Map<String, Value>,
    problems: &'p mut Vec<String>,
}

impl<'p> Section<'p> {
    fn new(path: String, value: Value, problems: &'p mut Vec<String>) -> Section<'p> {
        let values = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            _ => {
                problems.push(format!("{path}: must be a mapping of keys to values"));
                Map::new()
            }
        };
        Section {
            path,
            values,
            problems,
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn problem(&mut self, key: &str, what: &str) {
        let name = self.name(key);
        self.problems.push(format!("{name}: {what}"));
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key).filter(|v| !v.is_null())
    }

    fn text(&mut self, key: &str, slot: &mut String) {
        match self.take(key) {
            None => {}
            Some(Value::String(text)) => *slot = text,
            Some(_) => self.problem(key, "must be a text (put it in quotes)"),
        }
    }

    fn secret(&mut self, key: &str, slot: &mut Password) {
        let mut text = String::new();
        self.text(key, &mut text);
        if !text.is_empty() {
            *slot = Password::new(text);
        }
    }

    /// A whole number; from the environment it comes as a text.
    fn number(&mut self, key: &str, slot: &mut u64, min: u64, max: u64) {
        let read = match self.take(key) {
            None => return,
            Some(Value::Number(n)) => n.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        match read {
            Some(n) if (min..=max).contains(&n) => *slot = n,
            _ => self.problem(key, &format!("must be a whole number from {min} to {max}")),
        }
    }

    fn flag(&mut self, key: &str, slot: &mut bool) {
        match self.take(key) {
            None => {}
            Some(Value::Bool(set)) => *slot = set,
            Some(other) => {
                self.values.insert(key.to_owned(), other);
                self.choice(key, slot, &[("no", false), ("yes", true)]);
            }
        }
    }

    fn choice<T: Copy>(&mut self, key: &str, slot: &mut T, choices: &[(&str, T)]) {
        let found = match self.take(key) {
            None => return,
            // YAML 1.1 readers make a boolean of a bare `off`.
            Some(Value::Bool(false)) => choices.iter().find(|(n, _)| *n == "off"),
            Some(Value::String(text)) => choices.iter().find(|(n, _)| *n == text),
            Some(_) => None,
        };
        match found {
            Some((_, value)) => *slot = *value,
            None => {
                let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
                self.problem(key, &format!("must be one of {}", names.join(", ")));
            }
        }
    }

    fn list(&mut self, key: &str) -> Vec<Value> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.problem(key, "must be a list");
                Vec::new()
            }
        }
    }

    /// A list of address ranges; from the environment it comes as one text
    /// with commas.
    fn networks(&mut self, key: &str) -> Vec<Network> {
        let texts: Vec<Value> = match self.values.get(key) {
            Some(Value::String(text)) => {
                let parts = text.split(',').map(str::trim).filter(|t| !t.is_empty());
                let parts = parts.map(Value::from).collect();
                self.values.remove(key);
                parts
            }
            _ => self.list(key),
        };
        if texts.len() > NETWORKS_MAX {
            self.problem(key, &format!("more than {NETWORKS_MAX}"));
            return Vec::new();
        }
        let parsed = |v: &Value| v.as_str().and_then(Network::parse);
        let networks: Vec<Network> = texts.iter().filter_map(parsed).collect();
        if networks.len() < texts.len() {
            self.problem(key, "must be addresses or ranges like 10.0.0.0/8");
        }
        networks
    }

    fn section(&mut self, key: &str) -> Section<'_> {
        let value = self.take(key).unwrap_or(Value::Null);
        Section::new(self.name(key), value, self.problems)
    }

    /// Names what nobody took.
    fn finish(mut self) {
        let left: Vec<String> = std::mem::take(&mut self.values)
            .into_iter()
            .map(|(k, _)| k)
            .collect();
        for key in left {
            if looks_like_a_key(&key) {
                self.problem(&key, "unknown key");
            } else {
                // `{password:secret}`, a blank forgotten, makes one key of both.
                self.problem("…", "a key that is no word, so not shown");
            }
        }
    }
}

/// Longest key that is shown when it is unknown; ours are shorter.
const KEY_SHOWN_MAX: usize = 40;

/// Whether a key is spelled as keys are, and so is no value gone astray.
fn looks_like_a_key(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    key.len() <= KEY_SHOWN_MAX && key.bytes().all(plain)
}

/// Reads the whole tree.
pub fn config(tree: Value, problems: &mut Vec<String>) -> Config {
    let mut out = Config::default();
    let mut root = Section::new(String::new(), tree, problems);
    root.text("listen", &mut out.listen);
    tls(root.section("tls"), &mut out.tls);
    out.proxy_protocol_from = root.networks("proxy_protocol_from");
    let bulk = [("single", false), ("relay", true)];
    root.choice("mariadb_bulk", &mut out.mariadb_bulk, &bulk);
    control(root.section("control"), &mut out.control);
    let mut backends = root.section("backends");
    let [source, target] = &mut out.backends;
    backend(backends.section("source"), source);
    backend(backends.section("target"), target);
    backends.finish();
    for (i, value) in root.list("users").into_iter().enumerate() {
        let section = Section::new(format!("users[{i}]"), value, root.problems);
        out.users.push(user(section));
    }
    for (i, value) in root.list("routes").into_iter().enumerate() {
        let section = Section::new(format!("routes[{i}]"), value, root.problems);
        out.routes.push(route_section(section, String::new()));
    }
    limits(root.section("limits"), &mut out.limits);
    copy(root.section("copy"), &mut out.copy);
    let mut state = "./state".to_owned();
    root.text("state", &mut state);
    out.state = PathBuf::from(state);
    root.finish();
    out
}

fn tls(mut s: Section<'_>, out: &mut ClientTls) {
    s.text("cert", &mut out.cert);
    s.text("key", &mut out.key);
    s.text("ca", &mut out.ca);
    let choices = [
        ("optional", ClientCerts::Optional),
        ("required", ClientCerts::Required),
    ];
    s.choice("client_certs", &mut out.client_certs, &choices);
    s.finish();
}

fn control(mut s: Section<'_>, out: &mut Control) {
    s.text("http", &mut out.http);
    s.text("sql", &mut out.sql);
    s.secret("token", &mut out.token);
    s.finish();
}

fn backend(mut s: Section<'_>, out: &mut Backend) {
    s.text("address", &mut out.address);
    s.text("user", &mut out.user);
    s.secret("password", &mut out.password);
    let modes = [
        ("off", TlsMode::Off),
        ("preferred", TlsMode::Preferred),
        ("required", TlsMode::Required),
        ("verify", TlsMode::Verify),
    ];
    s.choice("tls", &mut out.tls, &modes);
    s.text("ca", &mut out.ca);
    s.text("cert", &mut out.cert);
    s.text("key", &mut out.key);
    let headers = [
        ("off", ProxyProtocol::Off),
        ("v1", ProxyProtocol::V1),
        ("v2", ProxyProtocol::V2),
    ];
    s.choice("proxy_protocol", &mut out.proxy_protocol, &headers);
    s.text("replica", &mut out.replica);
    s.finish();
}

fn user(mut s: Section<'_>) -> UserEntry {
    let mut name = String::new();
    s.text("name", &mut name);
    let sides = ["source", "target"].map(|side| {
        if !s.values.contains_key(side) {
            return None;
        }
        let mut below = s.section(side);
        let mut out = Credentials {
            user: name.clone(),
            password: Password::default(),
            cert: String::new(),
            key: String::new(),
        };
        below.text("user", &mut out.user);
        below.secret("password", &mut out.password);
        below.text("cert", &mut out.cert);
        below.text("key", &mut out.key);
        below.finish();
        Some(out)
    });
    s.finish();
    UserEntry { name, sides }
}

/// Reads one route's settings, as the body of a `PUT /v1/routes/{name}` sends
/// them.
pub fn route(value: Value, name: &str, problems: &mut Vec<String>) -> RouteConfig {
    route_section(
        Section::new("route".to_owned(), value, problems),
        name.to_owned(),
    )
}

fn route_section(mut s: Section<'_>, name: String) -> RouteConfig {
    let mut out = RouteConfig {
        name,
        tables: Vec::new(),
        ack: Ack::default(),
        deferred: DeferredPolicy::default(),
        ddl: DdlPolicy::default(),
        reads_by: ReadsBy::default(),
    };
    s.text("name", &mut out.name);
    for value in s.list("tables") {
        match value {
            Value::String(glob) => out.tables.push(glob),
            _ => s.problem("tables", "must be a list of db.table texts"),
        }
    }
    s.choice(
        "ack",
        &mut out.ack,
        &[("both", Ack::Both), ("active", Ack::Active)],
    );
    let deferred = [
        ("wait", DeferredPolicy::Wait),
        ("continue", DeferredPolicy::Continue),
    ];
    s.choice("deferred", &mut out.deferred, &deferred);
    s.choice(
        "ddl",
        &mut out.ddl,
        &[("both", DdlPolicy::Both), ("refuse", DdlPolicy::Refuse)],
    );
    let by = [
        ("session", ReadsBy::Session),
        ("statement", ReadsBy::Statement),
    ];
    s.choice("reads_by", &mut out.reads_by, &by);
    s.finish();
    out
}

/// Most entries of a day's schedule.
const SCHEDULE_MAX: usize = 48;

/// Rows a second that no server reaches.
const RATE_MAX: u64 = 1_000_000_000;

fn copy(mut s: Section<'_>, out: &mut CopySettings) {
    s.number("slots", &mut out.slots, 1, 64);
    s.number("rows_per_s", &mut out.rows_per_s, 0, RATE_MAX);
    s.number("max_lag_ms", &mut out.max_lag_ms, 0, HOUR_MS);
    s.number(
        "max_threads_running",
        &mut out.max_threads_running,
        0,
        1_000_000,
    );
    s.flag("binlog", &mut out.binlog);
    let list = s.list("schedule");
    if list.len() > SCHEDULE_MAX {
        s.problem("schedule", &format!("more than {SCHEDULE_MAX} entries"));
    }
    for (i, value) in list.into_iter().take(SCHEDULE_MAX).enumerate() {
        let mut below = Section::new(format!("{}.schedule[{i}]", s.path), value, s.problems);
        let mut minute = |key: &str| {
            let mut text = String::new();
            below.text(key, &mut text);
            let minute = minute_of_day(&text);
            if minute.is_none() {
                below.problem(
                    key,
                    "must be a time of day in UTC like \"22:30\", in quotes",
                );
            }
            minute.unwrap_or(0)
        };
        let mut hours = Hours {
            from: minute("from"),
            to: minute("to"),
            rows_per_s: 0,
            pause: false,
        };
        below.number("rows_per_s", &mut hours.rows_per_s, 0, RATE_MAX);
        below.flag("pause", &mut hours.pause);
        below.finish();
        out.schedule.push(hours);
    }
    s.finish();
}

/// An hour in milliseconds: longer waits than this are a typing error.
const HOUR_MS: u64 = 3_600_000;

fn limits(mut s: Section<'_>, out: &mut Limits) {
    s.number("mirror_deadline_ms", &mut out.mirror_deadline_ms, 1, 60_000);
    s.number("drain_ms", &mut out.drain_ms, 1, HOUR_MS);
    s.number("gate_ms", &mut out.gate_ms, 1, HOUR_MS);
    s.number(
        "mirror_errors_per_min",
        &mut out.mirror_errors_per_min,
        0,
        1_000_000,
    );
    s.number("connections", &mut out.connections, 1, 1_000_000);
    s.number("login_timeout_ms", &mut out.login_timeout_ms, 100, HOUR_MS);
    s.number(
        "connect_timeout_ms",
        &mut out.connect_timeout_ms,
        10,
        HOUR_MS,
    );
    s.number("workers", &mut out.workers, 0, 1_024);
    s.number("journal_bytes", &mut out.journal_bytes, 65_536, 1 << 40);
    s.number("shutdown_ms", &mut out.shutdown_ms, 0, HOUR_MS);
    s.number(
        "catalog_refresh_ms",
        &mut out.catalog_refresh_ms,
        100,
        HOUR_MS,
    );
    s.number("follow_lag_ms", &mut out.follow_lag_ms, 1, HOUR_MS);
    s.number("compare_age_s", &mut out.compare_age_s, 1, 7 * 86_400);
    s.finish();
}
