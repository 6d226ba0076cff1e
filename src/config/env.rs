//! Settings from the environment: `LOCKSTEP_` + path, `__` between the parts.

use std::ffi::OsString;

use figment::providers::Serialized;
use figment::value::{Dict, Value};

/// What every variable of ours begins with.
const PREFIX: &str = "LOCKSTEP_";

/// Variables of the command line and the log, not settings.
const NOT_SETTINGS: [&str; 4] = ["CONTROL", "CONFIG", "TOKEN", "LOG"];

/// Names beginning so belong to tests.
const TEST_PREFIX: &str = "TEST_";

/// The settings and lists at the root. Any other name without `__` is not
/// ours: scripts around the proxy have variables of their own.
const ROOT: [&str; 4] = ["LISTEN", "STATE", "ROUTES", "USERS"];

/// Longest path: `backends.source.password`.
const DEPTH_MAX: usize = 4;

/// The overrides as a tree of texts. Lists (`users`, `routes`) come from the
/// file only.
pub fn overrides(
    variables: impl Iterator<Item = (OsString, OsString)>,
    problems: &mut Vec<String>,
) -> Serialized<Dict> {
    let mut tree = Dict::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if NOT_SETTINGS.contains(&path) || path.starts_with(TEST_PREFIX) {
            continue;
        }
        let Some(value) = value.to_str() else {
            problems.push(format!("{name}: not UTF-8"));
            continue;
        };
        if !path.contains("__") && !ROOT.contains(&path) {
            continue;
        }
        let lower = path.to_lowercase();
        let parts: Vec<&str> = lower.split("__").collect();
        if parts.len() > DEPTH_MAX || parts.iter().any(|p| p.is_empty()) {
            problems.push(format!("{name}: no such setting"));
        } else if matches!(parts.first(), Some(&("routes" | "users"))) {
            problems.push(format!("{name}: lists are read from the file only"));
        } else if !insert(&mut tree, &parts, value) {
            problems.push(format!("{name}: contradicts another variable"));
        }
    }
    Serialized::defaults(tree)
}

/// False when a part of the path already is a text.
fn insert(tree: &mut Dict, parts: &[&str], value: &str) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return tree
            .insert((*first).to_owned(), Value::from(value))
            .is_none();
    }
    let below = tree
        .entry((*first).to_owned())
        .or_insert_with(|| Value::from(Dict::new()));
    match below {
        Value::Dict(_, inner) => insert(inner, rest, value),
        _ => false,
    }
}
