use super::*;
use crate::route::table::TableGlob;

fn none() -> std::iter::Empty<(std::ffi::OsString, std::ffi::OsString)> {
    std::iter::empty()
}

fn vars(list: &[(&str, &str)]) -> std::vec::IntoIter<(std::ffi::OsString, std::ffi::OsString)> {
    list.iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect::<Vec<_>>()
        .into_iter()
}

fn problems(text: &str) -> Vec<String> {
    match parse(text, none()) {
        Ok(_) => Vec::new(),
        Err(e) => e.0,
    }
}

const SHIPPED: &str = include_str!("../../proxy.yaml");

#[test]
fn the_shipped_file_says_the_defaults() {
    let config = match parse(SHIPPED, none()) {
        Ok(c) => c,
        Err(e) => panic!("{e}"),
    };
    assert!(
        config == Config::default(),
        "proxy.yaml differs from the defaults"
    );
    assert!(parse("", none()).is_ok_and(|c| c == Config::default()));
}

#[test]
fn the_shipped_file_has_every_key() {
    let tree: serde_json::Value = serde_saphyr::from_str(SHIPPED).unwrap();
    // Every path the reader asks for, and one level of the example blocks.
    for path in [
        "listen",
        "tls.cert",
        "tls.key",
        "control.http",
        "control.sql",
        "control.token",
        "users",
        "routes",
        "state",
        "limits.mirror_deadline_ms",
        "limits.drain_ms",
        "limits.gate_ms",
        "limits.mirror_errors_per_min",
        "limits.connections",
        "limits.login_timeout_ms",
        "limits.connect_timeout_ms",
        "limits.workers",
        "limits.journal_bytes",
        "limits.shutdown_ms",
        "limits.catalog_refresh_ms",
        "limits.follow_lag_ms",
        "limits.compare_age_s",
        "copy.slots",
        "copy.rows_per_s",
        "copy.max_lag_ms",
        "copy.max_threads_running",
        "copy.binlog",
        "copy.schedule",
    ] {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert!(tree.pointer(&pointer).is_some(), "{path} is missing");
    }
    for side in ["source", "target"] {
        for key in ["address", "user", "password", "tls", "ca", "replica"] {
            assert!(tree.pointer(&format!("/backends/{side}/{key}")).is_some());
        }
    }
    for key in ["tables:", "ack:", "deferred:", "ddl:", "reads_by:", "name:"] {
        assert!(SHIPPED.contains(key), "{key} is not shown");
    }
}

#[test]
fn all_problems_at_once_and_no_values() {
    let text = "
listen: hunter2
control: { http: 0.0.0.0:6080, hunter3: hunter4 }
backends: { source: { password: 9876501, tls: hunter5 }, 'password:Hunter8': ~ }
limits: { drain_ms: hunter6, gate_ms: -5 }
state: etcd://hunter7
routes:
  - { name: a, tables: ['shop.*'] }
  - { name: b, tables: ['s*.orders', 'x'] }
";
    let found = problems(text);
    let all = found.join("\n");
    for part in [
        "listen:",
        "control.hunter3: unknown key",
        "backends.…: a key that is no word",
        "control.token: required",
        "backends.source.password: must be a text",
        "backends.source.tls: must be one of",
        "limits.drain_ms",
        "limits.gate_ms",
        "state: etcd",
        "routes[1].tables[1]",
        "can name the same table",
    ] {
        assert!(all.contains(part), "{part} not in\n{all}");
    }
    assert_eq!(found.len(), 11, "{all}");
    for value in [
        "hunter2", "hunter4", "9876501", "hunter5", "hunter6", "hunter7", "Hunter8",
    ] {
        assert!(!all.contains(value), "{value} leaked");
    }
}

#[test]
fn broken_yaml_shows_a_place_and_no_text() {
    let found = problems("backends:\n  source: { password: hunter2\n  target: ]\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("line"), "{found:?}");
    assert!(!found[0].contains("hunter2"));
    assert_eq!(problems("- a\n- b\n").len(), 1);
    assert_eq!(problems("password").len(), 1);
}

#[test]
fn environment_overrides_as_text() {
    let config = parse(
        "backends: { source: { user: a, password: b } }",
        vars(&[
            ("LOCKSTEP_BACKENDS__SOURCE__PASSWORD", "0123"),
            ("LOCKSTEP_LIMITS__DRAIN_MS", "1500"),
            ("LOCKSTEP_CONTROL", "http://x"),
            ("LOCKSTEP_LOG", "debug"),
            ("LOCKSTEP_TOKEN", "t"),
            ("LOCKSTEP_CONFIG", "c"),
            ("LOCKSTEP_TEST_ANYTHING", "c"),
            ("LOCKSTEP_CACHE", "c"),
            ("LOCKSTEP_CONTROL__TOKEN", "secret"),
            ("PATH", "/bin"),
        ]),
    );
    let Ok(config) = config else {
        panic!("refused")
    };
    assert_eq!(config.backends[0].password.reveal(), "0123");
    assert_eq!(config.backends[0].user, "a");
    assert_eq!(config.limits.drain_ms, 1500);
    assert_eq!(config.control.token.reveal(), "secret");
    let Err(e) = parse(
        "",
        vars(&[("LOCKSTEP_LIMIT__X", "v"), ("LOCKSTEP_ROUTES", "v")]),
    ) else {
        panic!("accepted")
    };
    assert_eq!(e.0.len(), 2, "{e}");
}

#[test]
fn users_and_routes() {
    let text = "
users:
  - { name: app, source: { user: old, password: p }, target: { password: q } }
  - { name: other, target: { user: o, password: '' } }
routes:
  - { name: shop, tables: ['shop.*'], ack: active, deferred: continue, ddl: refuse, reads_by: statement }
";
    let Ok(config) = parse(text, none()) else {
        panic!("refused")
    };
    assert_eq!(config.users[0].sides[0].as_ref().unwrap().user, "old");
    assert_eq!(config.users[0].sides[1].as_ref().unwrap().user, "app");
    assert!(config.users[1].sides[0].is_none());
    assert_eq!(config.routes[0].ack, Ack::Active);
    assert_eq!(config.routes[0].reads_by, ReadsBy::Statement);
}

#[test]
fn overlaps() {
    let over = |a: &str, b: &str| {
        globs_overlap(&TableGlob::parse(a).unwrap(), &TableGlob::parse(b).unwrap())
    };
    assert!(over("shop.*", "shop.orders"));
    assert!(over("shop.a*", "shop.*b"));
    assert!(over("s?op.x", "S*.X"));
    assert!(over("*.*", "a.b"));
    assert!(over("a.x*y", "a.x?*"));
    assert!(!over("shop.a*", "shop.b*"));
    assert!(!over("shop.*", "shop2.*"));
    assert!(!over("shop.a?", "shop.a"));
    assert!(!over("a.*x", "a.*y"));
}

#[test]
fn addresses() {
    use super::validate::split_address;
    assert_eq!(split_address("[::1]:3306"), Some(("::1", 3306)));
    assert_eq!(split_address("db.example:1"), Some(("db.example", 1)));
    for bad in [
        "",
        ":1",
        "host",
        "host:",
        "host:99999",
        "::1:3306",
        "[::1:3306",
    ] {
        assert_eq!(split_address(bad), None, "{bad}");
    }
}

#[test]
fn the_copy_has_hours() {
    let text = "backends: { source: { user: a }, target: { user: a } }\n\
        copy: { slots: 8, binlog: no, schedule: [{ from: \"22:00\", to: \"06:00\", rows_per_s: 5 }, \
        { from: \"12:00\", to: \"13:30\", pause: true }] }";
    let config = parse(text, none()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((config.copy.slots, config.copy.binlog), (8, false));
    let hours = &config.copy.schedule;
    assert_eq!(
        (hours[0].from, hours[0].to, hours[0].rows_per_s),
        (1320, 360, 5)
    );
    assert_eq!((hours[1].to, hours[1].pause), (810, true));
    let wrong =
        problems("copy: { schedule: [{ from: 22, to: \"25:00\", x: 1 }], slots: 0, binlog: 7 }");
    for part in [
        "copy.slots",
        "copy.binlog",
        "schedule[0].from",
        "schedule[0].to",
        "schedule[0].x",
    ] {
        assert!(wrong.iter().any(|p| p.contains(part)), "{part}: {wrong:?}");
    }
}
