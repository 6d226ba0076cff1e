//! The files under `docker/`, checked without an engine: they parse, name files
//! that exist, and the dashboard asks only for metrics that the proxy has.

use lockstep::telemetry::METRICS;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn read(path: &str) -> String {
    fs::read_to_string(folder().join(path)).unwrap_or_else(|e| panic!("docker/{path}: {e}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|e| panic!("docker/{path}: {e}"))
}

fn dashboard() -> Value {
    let text = read("grafana/dashboards/lockstep.json");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// The variables of `docker/.env`.
fn environment() -> Vec<(String, String)> {
    let text = read(".env");
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|l| l.split_once('='))
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

#[test]
fn compose_has_all_services_and_names_only_files_and_values_that_exist() {
    let compose = yaml("compose.yaml");
    for service in ["source", "target", "proxy", "prometheus", "grafana"] {
        let entry = &compose["services"][service];
        assert!(
            entry["image"].is_string() || entry["build"].is_object(),
            "{service}: {entry}"
        );
        for mount in entry["volumes"].as_array().into_iter().flatten() {
            let host = mount
                .as_str()
                .unwrap_or_default()
                .split(':')
                .next()
                .unwrap_or_default();
            let exists = !host.starts_with("./") || folder().join(host).exists();
            assert!(exists, "{service}: {host}");
        }
    }
    assert!(
        compose["services"]["source"]["image"]
            .as_str()
            .is_some_and(|i| i.starts_with("mysql:"))
    );
    let build = &compose["services"]["proxy"]["build"];
    let context = folder().join(build["context"].as_str().expect("context"));
    assert!(
        context
            .join(build["dockerfile"].as_str().expect("dockerfile"))
            .is_file()
    );

    let values = environment();
    for (at, _) in compose.to_string().match_indices("${") {
        let text = &compose.to_string()[at + 2..];
        let name = text.split('}').next().unwrap_or_default();
        assert!(
            values.iter().any(|(k, _)| k == name),
            "{name} is not in docker/.env"
        );
    }
}

#[test]
fn the_image_copies_only_what_is_there() {
    let root = folder().join("..");
    let text = read("Dockerfile");
    let copies = text
        .lines()
        .filter_map(|l| l.strip_prefix("COPY "))
        .filter(|l| !l.starts_with('-'));
    for line in copies {
        let mut names: Vec<&str> = line.split_whitespace().collect();
        names.pop();
        for name in names {
            assert!(root.join(name).exists(), "COPY {name}");
            let ignored = !read("Dockerfile.dockerignore")
                .lines()
                .any(|l| l == format!("!{name}"));
            assert!(
                !ignored,
                "{name} is not let through by Dockerfile.dockerignore"
            );
        }
    }
}

#[test]
fn the_proxy_accepts_its_settings_there() {
    let compose = yaml("compose.yaml");
    let values = environment();
    let variables = compose["services"]["proxy"]["environment"]
        .as_object()
        .expect("environment");
    let variables = variables.iter().map(|(key, value)| {
        let name = value
            .as_str()
            .unwrap_or_default()
            .trim_matches(['$', '{', '}']);
        let value = values
            .iter()
            .find(|(k, _)| k == name)
            .map_or("", |(_, v)| v);
        (key.into(), value.into())
    });
    let parsed = lockstep::config::parse(&read("proxy.yaml"), variables);
    assert!(parsed.is_ok(), "{:?}", parsed.err());
    let shipped = fs::read_to_string(folder().join("../proxy.yaml")).expect("proxy.yaml");
    let parsed = lockstep::config::parse(&shipped, std::iter::empty());
    assert!(parsed.is_ok(), "{:?}", parsed.err());
}

#[test]
fn grafana_finds_its_data_source_and_dashboard() {
    let sources = yaml("grafana/provisioning/datasources/prometheus.yaml");
    let uid = &sources["datasources"][0]["uid"];
    let board = dashboard();
    let panels = board["panels"].as_array().expect("panels");
    assert!(panels.len() >= 10);
    assert!(
        panels.iter().all(|p| p["datasource"]["uid"] == *uid),
        "{uid}"
    );
    let provider = yaml("grafana/provisioning/dashboards/lockstep.yaml");
    let path = provider["providers"][0]["options"]["path"]
        .as_str()
        .expect("path");
    let grafana = yaml("compose.yaml")["services"]["grafana"].clone();
    let mounts = grafana["volumes"].as_array().expect("volumes");
    assert!(mounts.iter().any(|m| {
        m.as_str()
            .is_some_and(|m| m.split(':').nth(1) == Some(path))
    }));
    let jobs = yaml("prometheus.yml");
    assert_eq!(
        jobs["scrape_configs"][0]["static_configs"][0]["targets"][0],
        "proxy:6080"
    );
}

/// Each metric that a panel names exists, with the labels used on it; and each
/// that exists is on some panel.
#[test]
fn the_dashboard_and_the_list_of_metrics_agree() {
    let mut queries: Vec<String> = Vec::new();
    let board = dashboard();
    for panel in board["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(target["expr"].as_str().expect("expr").to_string());
        }
    }
    for variable in board["templating"]["list"].as_array().into_iter().flatten() {
        queries.push(
            variable["query"]["query"]
                .as_str()
                .expect("query")
                .to_string(),
        );
    }
    let mut seen = Vec::new();
    for query in &queries {
        for (at, _) in query.match_indices("lockstep_") {
            let text = &query[at..];
            let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let (name, rest) = text.split_at(end.unwrap_or(text.len()));
            let plain = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|s| name.strip_suffix(s));
            let metric = METRICS
                .iter()
                .find(|m| m.name == name || Some(m.name) == plain);
            let metric = metric.unwrap_or_else(|| panic!("no metric {name}, used in {query}"));
            for label in labels(query, rest) {
                let known = metric.labels.contains(&label.as_str()) || label == "le";
                assert!(known, "{name} has no label {label}, used in {query}");
            }
            seen.push(metric.name);
        }
    }
    let unseen: Vec<&str> = METRICS
        .iter()
        .map(|m| m.name)
        .filter(|n| !seen.contains(n))
        .collect();
    // The epoch is a number to look up, not to watch.
    assert_eq!(unseen, ["lockstep_route_epoch"]);
}

/// The labels selected right behind a metric's name, and those grouped by.
fn labels(query: &str, behind: &str) -> Vec<String> {
    let selected = behind
        .strip_prefix('{')
        .and_then(|b| b.split('}').next())
        .unwrap_or_default();
    let selected = selected
        .split(',')
        .filter_map(|s| s.split(['=', '!']).next());
    let grouped = query
        .split(" by (")
        .nth(1)
        .and_then(|g| g.split(')').next())
        .unwrap_or_default();
    let all = selected.chain(grouped.split(','));
    all.map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::to_string)
        .collect()
}
