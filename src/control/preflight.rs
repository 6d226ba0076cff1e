//! `lockstep check`: on the running proxy over HTTP, or from the settings file
//! before there is one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use super::page::text;
use crate::check::{self, Context, Finding, Scope, Severity};
use crate::config::{self, Config};
use crate::migration::Migration;

/// Width of the text behind the margin, in characters.
const WIDTH: usize = 96;

/// What the running proxy checks with; one check at a time, for each asks both
/// servers about all routed tables.
#[derive(Default)]
pub struct Preflight {
    context: OnceLock<Context>,
    running: tokio::sync::Mutex<()>,
}

impl Preflight {
    /// Says once which backends are checked.
    pub fn set(&self, config: &Config) {
        let _ = self.context.set(Context::of(config, Vec::new()));
    }

    /// All routes, or one of them, which exists.
    pub(super) async fn answer(&self, migration: &Migration, only: Option<&str>) -> Response {
        let Some(context) = self.context.get() else {
            return super::http::error(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                "the proxy is starting",
            );
        };
        let _one_at_a_time = self.running.lock().await;
        let table = migration.routes().load();
        let routes = table.routes.iter();
        let scopes = routes.filter(|r| only.is_none_or(|o| o == r.name));
        let scopes = scopes.map(|r| Scope {
            name: r.name.clone(),
            globs: r.tables.clone(),
            fold: table.fold_names,
            active: r.phase.active(),
        });
        let context = Context {
            scopes: scopes.collect(),
            ..context.clone()
        };
        Json(answer(&check::run(&context).await)).into_response()
    }
}

/// Findings as JSON, counted.
fn answer(findings: &[Finding]) -> Value {
    let count = |s: Severity| findings.iter().filter(|f| f.severity == s).count();
    json!({
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
        "infos": count(Severity::Info),
        "findings": findings,
    })
}

/// Checks with the settings of a file. The answer as over HTTP.
///
/// # Errors
/// The settings, or a route that they do not have.
pub(super) fn from_settings(path: &Path, only: Option<&str>) -> Result<Value, String> {
    let config = config::load(path).map_err(|e| e.to_string())?;
    let routes = config.routes.iter();
    let routes = routes.filter(|r| only.is_none_or(|o| o == r.name));
    let scopes: Vec<Scope> = routes
        .map(|r| Scope {
            name: r.name.clone(),
            globs: r
                .tables
                .iter()
                .filter_map(|t| crate::route::table::TableGlob::parse(t))
                .collect(),
            // Not known before the servers are asked; names that differ in
            // case alone are rare, and only widen what is looked at.
            fold: false,
            active: crate::Side::Source,
        })
        .collect();
    if let Some(name) = only.filter(|_| scopes.is_empty()) {
        return Err(format!("no route named {name} in {}", path.display()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let context = Context::of(&config, scopes);
    Ok(answer(&runtime.block_on(check::run(&context))))
}

/// The answer as people read it: one paragraph for all findings that say the
/// same.
pub(super) fn human(answer: &Value) -> String {
    let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut places: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for finding in answer["findings"].as_array().into_iter().flatten() {
        let key: Vec<String> = ["severity", "name", "why", "remedy"]
            .iter()
            .map(|k| text(&finding[*k]))
            .collect();
        let at = *places.entry(key.clone()).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        if let (Some((_, list)), Some(place)) = (groups.get_mut(at), place(finding)) {
            list.push(place);
        }
    }
    let mut out = String::new();
    for (key, places) in &groups {
        let [severity, name, why, remedy] = key.as_slice() else {
            continue;
        };
        out.push_str(&format!("{:8} {name}", severity.to_uppercase()));
        if let [one] = places.as_slice() {
            out.push_str(&format!("  {one}"));
        }
        out.push('\n');
        if places.len() > 1 {
            out.push_str(&wrapped("         ", &places.join(", ")));
        }
        out.push_str(&wrapped("         ", why));
        if remedy != "nothing" {
            out.push_str(&wrapped("         → ", remedy));
        }
    }
    let counted = |key: &str, word: &str| match answer[key].as_u64().unwrap_or(0) {
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    };
    let counts = [
        counted("errors", "error"),
        counted("warnings", "warning"),
        counted("infos", "note"),
    ];
    out.push_str(&counts.join(", "));
    out.push('\n');
    out
}

/// Where a finding is: `target shop.orders (route shop)`.
fn place(finding: &Value) -> Option<String> {
    let known = |k: &str| finding[k].as_str().map(str::to_owned);
    let mut parts: Vec<String> = [known("side"), known("table")]
        .into_iter()
        .flatten()
        .collect();
    if let Some(route) = known("route") {
        parts.push(match parts.is_empty() {
            true => format!("route {route}"),
            false => format!("(route {route})"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Text in lines behind a margin; the first line has the margin as it is.
fn wrapped(margin: &str, text: &str) -> String {
    let mut out = String::from(margin);
    let mut used = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if used > 0 && used + 1 + len > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(margin.chars().count()));
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += len;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_the_same_is_said_once() {
        let finding = |table: &str| {
            json!({"severity": "warning", "name": "no_key", "side": null, "route": "r",
                   "table": table, "why": "because of it", "remedy": "give it one"})
        };
        let answer = json!({"errors": 0, "warnings": 2, "infos": 0,
            "findings": [finding("a.b"), finding("a.c")]});
        assert_eq!(
            human(&answer),
            "WARNING  no_key\n         a.b (route r), a.c (route r)\n         because of it\n         → give it one\n0 errors, 2 warnings, 0 notes\n"
        );
    }
}
