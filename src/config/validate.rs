//! What only shows across keys: addresses, names, overlaps, the token rule.

use std::collections::HashSet;

use super::{Config, RouteConfig};
use crate::route::table::{ROUTES_MAX, TableGlob};

/// Longest route name, in characters: it is a metric label and a URL part.
const ROUTE_NAME_MAX: usize = 64;

/// Most globs of one route: every statement on an unrouted table tries them.
const GLOBS_MAX: usize = 1_024;

/// Longest glob in bytes: two names of 64 characters of up to 4 bytes, a dot.
const GLOB_BYTES_MAX: usize = 513;

/// Adds every problem of the settings as a whole.
pub fn check(config: &Config, problems: &mut Vec<String>) {
    for (name, address) in [
        ("listen", &config.listen),
        ("control.http", &config.control.http),
        ("control.sql", &config.control.sql),
        ("backends.source.address", &config.backends[0].address),
        ("backends.target.address", &config.backends[1].address),
    ] {
        if split_address(address).is_none() {
            problems.push(format!("{name}: must be host:port"));
        }
    }
    token_rule(config, problems);
    if config.tls.cert.is_empty() != config.tls.key.is_empty() {
        problems.push("tls: cert and key go together: set both or neither".to_owned());
    }
    client_certificates(config, problems);
    for (name, b) in [
        ("source", &config.backends[0]),
        ("target", &config.backends[1]),
    ] {
        if b.user.is_empty() {
            problems.push(format!("backends.{name}.user: a service account is needed"));
        }
        if b.tls == super::TlsMode::Verify && b.ca.is_empty() {
            problems.push(format!("backends.{name}.ca: `tls: verify` needs it"));
        }
        let pair = (b.cert.as_str(), b.key.as_str());
        certificate_pair(&format!("backends.{name}"), pair, b.tls, problems);
        if !b.replica.is_empty() && split_address(&b.replica).is_none() {
            problems.push(format!(
                "backends.{name}.replica: must be host:port, or empty"
            ));
        }
    }
    if config.backends[0].address == config.backends[1].address {
        problems.push("backends: source and target have the same address".to_owned());
    }
    users(config, problems);
    let routes: Vec<&RouteConfig> = config.routes.iter().collect();
    check_routes(&routes, problems);
    if config.limits.gate_ms < config.limits.drain_ms {
        problems.push(
            "limits.gate_ms: must not be below limits.drain_ms, which is part of it".to_owned(),
        );
    }
    state(config, problems);
}

/// Host and port of `host:port`; brackets around IPv6 are taken off.
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty()).then_some((host, port))
}

fn loopback(address: &str) -> bool {
    match split_address(address) {
        Some(("localhost", _)) => true,
        Some((host, _)) => host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        // Reported already as not being an address.
        None => true,
    }
}

fn client_certificates(config: &Config, problems: &mut Vec<String>) {
    let required = config.tls.client_certs == super::ClientCerts::Required;
    if required && config.tls.ca.is_empty() {
        problems.push("tls.ca: `client_certs: required` needs it".to_owned());
    }
}

/// A certificate that legs show.
fn certificate_pair(
    name: &str,
    (cert, key): (&str, &str),
    tls: super::TlsMode,
    problems: &mut Vec<String>,
) {
    if cert.is_empty() != key.is_empty() {
        problems.push(format!(
            "{name}: cert and key go together: set both or neither"
        ));
    }
    if !cert.is_empty() && tls == super::TlsMode::Off {
        problems.push(format!("{name}.cert: not used with `tls: off`"));
    }
}

fn token_rule(config: &Config, problems: &mut Vec<String>) {
    let open = !loopback(&config.control.http) || !loopback(&config.control.sql);
    if open && config.control.token.is_empty() {
        problems.push(
            "control.token: required, as the control port does not listen on loopback".to_owned(),
        );
    }
    // A header cannot carry others.
    let printable = config
        .control
        .token
        .reveal()
        .bytes()
        .all(|b| b.is_ascii_graphic());
    if !printable {
        problems.push("control.token: must be printable ASCII without spaces".to_owned());
    }
}

fn users(config: &Config, problems: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (i, user) in config.users.iter().enumerate() {
        if user.name.is_empty() {
            problems.push(format!("users[{i}].name: missing"));
        } else if !seen.insert(user.name.as_str()) {
            problems.push(format!("users[{i}].name: named twice"));
        }
        for (b, side) in config.backends.iter().zip(&user.sides) {
            if let Some(side) = side {
                let pair = (side.cert.as_str(), side.key.as_str());
                certificate_pair(&format!("users[{i}]"), pair, b.tls, problems);
            }
        }
        if user.sides.iter().all(Option::is_none) {
            problems.push(format!("users[{i}]: needs source, target, or both"));
        }
    }
}

fn state(config: &Config, problems: &mut Vec<String>) {
    match config.state.to_str() {
        Some(s) if s.starts_with("etcd://") => {
            problems.push("state: etcd is not in this version; name a directory".to_owned())
        }
        Some(s) if s.contains("://") => {
            problems.push("state: must be a directory".to_owned());
        }
        Some("") => problems.push("state: must not be empty".to_owned()),
        _ => {}
    }
}

/// Adds every problem of a set of routes: names, globs, overlaps, number.
pub fn check_routes(routes: &[&RouteConfig], problems: &mut Vec<String>) {
    if routes.len() > ROUTES_MAX {
        problems.push(format!(
            "routes: {} are more than {ROUTES_MAX}",
            routes.len()
        ));
        return;
    }
    let mut parsed: Vec<Vec<TableGlob>> = Vec::new();
    for (i, route) in routes.iter().enumerate() {
        parsed.push(one_route(i, route, problems));
    }
    let mut names = HashSet::new();
    for (i, route) in routes.iter().enumerate() {
        if !names.insert(route.name.as_str()) {
            problems.push(format!("routes[{i}].name: named twice"));
        }
        for (j, (other, globs)) in routes.iter().zip(&parsed).enumerate().skip(i + 1) {
            let own = parsed.get(i).map_or(&[][..], Vec::as_slice);
            let pair = own
                .iter()
                .find_map(|a| globs.iter().find(|b| globs_overlap(a, b)).map(|b| (a, b)));
            if let Some((a, b)) = pair {
                problems.push(format!(
                    "routes[{i}] ({}) and routes[{j}] ({}): {a} and {b} can name the same table",
                    route.name, other.name
                ));
            }
        }
    }
}

fn one_route(i: usize, route: &RouteConfig, problems: &mut Vec<String>) -> Vec<TableGlob> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if route.name.is_empty() || route.name.len() > ROUTE_NAME_MAX || !route.name.chars().all(fits) {
        problems.push(format!(
            "routes[{i}].name: 1 to {ROUTE_NAME_MAX} letters, digits, '_', '-' or '.'"
        ));
    }
    // The label of statements that touch no route.
    if route.name == crate::telemetry::UNROUTED {
        problems.push(format!("routes[{i}].name: this name is taken"));
    }
    if route.tables.is_empty() {
        problems.push(format!("routes[{i}].tables: name at least one db.table"));
    }
    if route.tables.len() > GLOBS_MAX {
        problems.push(format!("routes[{i}].tables: more than {GLOBS_MAX}"));
        return Vec::new();
    }
    let mut globs = Vec::new();
    for (t, text) in route.tables.iter().enumerate() {
        match TableGlob::parse(text) {
            Some(glob) if text.len() <= GLOB_BYTES_MAX => globs.push(glob),
            _ => problems.push(format!(
                "routes[{i}].tables[{t}]: must be db.table, each part a name or a glob of * and ?"
            )),
        }
    }
    globs
}

/// Whether some table can match both globs. Names that differ only in case
/// count as the same: whether they are is the servers' setting.
pub fn globs_overlap(a: &TableGlob, b: &TableGlob) -> bool {
    intersect(&a.database, &b.database) && intersect(&a.table, &b.table)
}

/// Whether two patterns of `*` and `?` have a common text: cell j of the row
/// for i says that the rests from i and from j have one.
fn intersect(a: &[u8], b: &[u8]) -> bool {
    let rest_is_stars = |p: &[u8]| p.iter().all(|&c| c == b'*');
    // One row for i = a.len(): only stars left in b match nothing.
    let mut below: Vec<bool> = (0..=b.len())
        .map(|j| b.get(j..).is_some_and(rest_is_stars))
        .collect();
    for (i, &x) in a.iter().enumerate().rev() {
        let mut row = vec![false; b.len() + 1];
        if let Some(last) = row.last_mut() {
            *last = a.get(i..).is_some_and(rest_is_stars);
        }
        for (j, &y) in b.iter().enumerate().rev() {
            let at = |row: &[bool], j: usize| row.get(j).copied().unwrap_or(false);
            let common = if x == b'*' || y == b'*' {
                at(&below, j) || at(&row, j + 1)
            } else {
                (x == b'?' || y == b'?' || x.eq_ignore_ascii_case(&y)) && at(&below, j + 1)
            };
            if let Some(cell) = row.get_mut(j) {
                *cell = common;
            }
        }
        below = row;
    }
    below.first().copied().unwrap_or(false)
}
