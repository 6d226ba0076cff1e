//! `lockstep check`: each finding appears where it should, and nothing that
//! stands in the way is found where nothing does.

use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::servers::{SERVICE, shared};
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions};
use lockstep::Side;
use lockstep::check::{self, Context, Finding, Scope, Severity};
use lockstep::config::{Password, TlsMode};
use lockstep::route::table::TableGlob;
use lockstep::rows::service::ServiceAccount;
use std::time::Duration;

fn account(address: String, side: Side, (user, password): (&str, &str)) -> ServiceAccount {
    ServiceAccount {
        certificate: None,
        side,
        address,
        user: user.to_string(),
        password: Password::new(password.to_string()),
        tls: TlsMode::Off,
        ca: String::new(),
        connect_timeout: Duration::from_secs(5),
    }
}

fn context(source: &Server, target: &Server, tables: &[&str]) -> Context {
    let globs = tables.iter().map(|t| TableGlob::parse(t).expect("a glob"));
    Context {
        accounts: [
            account(source.address(), Side::Source, SERVICE),
            account(target.address(), Side::Target, SERVICE),
        ],
        scopes: vec![Scope {
            name: "r".to_string(),
            globs: globs.collect(),
            fold: false,
            active: Side::Source,
        }],
        users: Vec::new(),
        connections: 100,
        copy_logged: true,
    }
}

fn run(context: &Context) -> Vec<Finding> {
    block_on(check::run(context))
}

fn lines(findings: &[Finding]) -> String {
    let line = |f: &Finding| {
        format!(
            "{} {} {:?} {:?}: {}",
            f.severity.as_str(),
            f.name,
            f.side,
            f.table,
            f.why
        )
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Severity, name, side (empty: both), and the end of the table's name.
type Wanted<'a> = (Severity, &'a str, &'a str, &'a str);

fn assert_found(findings: &[Finding], wanted: &[Wanted<'_>]) {
    for (severity, name, side, table) in wanted {
        let found = findings.iter().any(|f| {
            f.severity == *severity
                && f.name == *name
                && f.side.map_or("", Side::as_str) == *side
                && f.table.as_deref().unwrap_or_default().ends_with(table)
        });
        assert!(found, "no {name} {side} {table} in:\n{}", lines(findings));
    }
    for finding in findings {
        assert!(!finding.why.is_empty() && !finding.remedy.is_empty());
    }
}

use Severity::{Error, Info, Warning};

/// A database of the same name on both sides, with these tables.
fn filled(servers: &[&Server], database: &str, sql: &str) {
    for server in servers {
        server.exec(&format!(
            "DROP DATABASE IF EXISTS {database};\nCREATE DATABASE {database} CHARACTER SET utf8mb4;\nUSE {database};\n{sql}"
        ));
    }
}

#[test]
fn nothing_stands_in_the_way_of_clean_pairs() {
    for family in Family::BOTH {
        let source = or_skip!(shared(family, 0));
        let target = or_skip!(shared(family, 1));
        let database = format!("ck_clean_{family}");
        let tables = "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20));\nCREATE TABLE b (id INT AUTO_INCREMENT PRIMARY KEY, u TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, KEY ku (u));";
        filled(&[source, target], &database, tables);
        let findings = run(&context(source, target, &[&format!("{database}.*")]));
        let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Error).collect();
        assert!(errors.is_empty(), "{family}:\n{}", lines(&findings));
        let wanted: [Wanted<'_>; 2] = [
            (Info, "compare_modes", "", ".b"),
            (Info, "free_space", "target", ""),
        ];
        assert_found(&findings, &wanted);
        // The same with an empty target.
        target.exec(&format!("DROP DATABASE {database}"));
        let findings = run(&context(source, target, &[&format!("{database}.*")]));
        assert!(
            findings.iter().all(|f| f.severity != Error),
            "{}",
            lines(&findings)
        );
        assert_found(&findings, &[(Info, "not_on_target", "target", "")]);
    }
}

#[test]
fn settings_of_a_bad_mariadb_target() {
    let source = or_skip!(shared(Family::MariaDb, 0));
    let id = source.one("SELECT @@server_id");
    let target = or_skip!(Server::start(
        Family::MariaDb,
        ServerOptions::args([
            "--binlog-format=MIXED",
            "--binlog-row-image=MINIMAL",
            "--binlog-expire-logs-seconds=3600",
            "--lower-case-table-names=1",
            "--max-allowed-packet=1M",
            "--default-time-zone=+05:00",
            "--sql-mode=ANSI",
            "--auto-increment-increment=2",
            "--max-connections=20",
            "--innodb-autoinc-lock-mode=2",
            "--local-infile=0",
            "--collation-server=latin1_german2_ci",
            &format!("--server-id={id}"),
            "--read-only=1",
        ])
    ));
    target.exec("SET GLOBAL unique_checks=0");
    let findings = run(&context(source, &target, &["ck_nothing.*"]));
    assert_found(
        &findings,
        &[
            (Error, "binlog_format", "target", ""),
            (Error, "binlog_row_image", "target", ""),
            (Warning, "binlog_retention", "target", ""),
            (Error, "lower_case_table_names", "", ""),
            (Error, "max_allowed_packet", "target", ""),
            (Error, "time_zone", "", ""),
            (Warning, "sql_mode", "", ""),
            (Warning, "auto_increment_increment", "", ""),
            (Warning, "max_connections", "target", ""),
            (Info, "autoinc_lock_mode", "target", ""),
            (Info, "local_infile", "target", ""),
            (Warning, "checks_off", "target", ""),
            (Info, "collation_server", "", ""),
            (Error, "server_id", "", ""),
            (Error, "read_only", "target", ""),
            (Warning, "not_durable", "source", ""),
            (Info, "binlog_row_metadata", "source", ""),
            (Warning, "no_tables", "source", ""),
        ],
    );
}

#[test]
fn settings_of_a_bad_mysql_source() {
    let source = or_skip!(Server::start(
        Family::MySql,
        ServerOptions::args([
            "--binlog-order-commits=OFF",
            "--binlog-row-value-options=PARTIAL_JSON",
            "--gtid-mode=OFF",
            "--enforce-gtid-consistency=OFF",
            "--super-read-only=1",
        ])
    ));
    let target = or_skip!(Server::start(
        Family::MariaDb,
        ServerOptions::args(["--skip-log-bin"])
    ));
    let findings = run(&context(&source, &target, &["ck_nothing.*"]));
    assert_found(
        &findings,
        &[
            (Error, "binlog_order_commits", "source", ""),
            (Error, "partial_json", "source", ""),
            (Warning, "gtid_mode", "source", ""),
            (Error, "read_only", "source", ""),
            (Error, "binlog_off", "target", ""),
            (Info, "account_plugin", "target", "app@%"),
        ],
    );
}

#[test]
fn tables_and_what_weakens() {
    let source = or_skip!(shared(Family::MariaDb, 0));
    let target = or_skip!(shared(Family::MariaDb, 1));
    let tables = "CREATE TABLE no_key (a INT, b INT);
CREATE TABLE old (id INT PRIMARY KEY, v INT) ENGINE=MyISAM;
CREATE TABLE triggered (id INT PRIMARY KEY, v INT, u TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP);
CREATE TRIGGER t BEFORE INSERT ON triggered FOR EACH ROW SET NEW.v = 1;
CREATE TABLE parent (id INT PRIMARY KEY);
CREATE TABLE child (id INT PRIMARY KEY, p INT, CONSTRAINT fk FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE);
CREATE TABLE outside (id INT PRIMARY KEY, p INT, CONSTRAINT fk_out FOREIGN KEY (p) REFERENCES parent (id));
CREATE TABLE made (id INT PRIMARY KEY, g INT AS (id + 1) STORED, u VARCHAR(40) DEFAULT (UUID()));
CREATE TABLE collated (id VARCHAR(10) COLLATE utf8mb4_general_ci PRIMARY KEY);
CREATE TABLE changed (id INT PRIMARY KEY, v INT, KEY kv (v));
CREATE EVENT e ON SCHEDULE EVERY 1 YEAR DO SELECT 1;";
    filled(&[source, target], "ck_tables", tables);
    target.exec(
        "USE ck_tables;\nALTER TABLE collated MODIFY id VARCHAR(10) COLLATE utf8mb4_bin;
ALTER TABLE changed MODIFY v BIGINT, DROP KEY kv;\nCREATE TABLE only_here (id INT PRIMARY KEY)",
    );
    let globs = [
        "no_key",
        "old",
        "triggered",
        "parent",
        "child",
        "made",
        "collated",
        "changed",
        "e",
        "only_here",
    ];
    let globs: Vec<String> = globs.iter().map(|t| format!("ck_tables.{t}")).collect();
    let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
    let findings = run(&context(source, target, &globs));
    assert_found(
        &findings,
        &[
            (Warning, "no_key", "", ".no_key"),
            (Warning, "engine", "", ".old"),
            (Info, "triggers", "", ".triggered"),
            (Error, "triggers_on_mirror", "target", ".triggered"),
            (Info, "compare_modes", "", ".triggered"),
            (Warning, "cascades", "", ".parent"),
            (Warning, "foreign_key_border", "", ".outside"),
            (Info, "generated_columns", "", ".made"),
            (Info, "volatile_defaults", "", ".made"),
            (Warning, "key_collation", "", ".collated"),
            (Error, "schema_differs", "target", ".changed"),
            (Warning, "key_not_there", "target", ".changed"),
            (Info, "events", "source", ".e"),
            (Error, "events_on_mirror", "target", ".e"),
            (Warning, "only_on_target", "target", ".only_here"),
            (Info, "adapted", "target", ".old"),
        ],
    );
}

#[test]
fn what_families_cannot_share_is_named() {
    let source = or_skip!(shared(Family::MariaDb, 0));
    let target = or_skip!(shared(Family::MySql, 0));
    let tables = "CREATE TABLE kinds (id UUID PRIMARY KEY, p POINT, j JSON);
CREATE TABLE versioned (id INT PRIMARY KEY, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME(s, e)) WITH SYSTEM VERSIONING;
CREATE SEQUENCE numbers;
CREATE TABLE uca (id VARCHAR(10) COLLATE utf8mb4_uca1400_as_cs PRIMARY KEY);";
    filled(&[source], "ck_kinds", tables);
    target.exec("DROP DATABASE IF EXISTS ck_kinds");
    let findings = run(&context(source, target, &["ck_kinds.*"]));
    assert_found(
        &findings,
        &[
            (Warning, "types", "", ".kinds"),
            (Info, "adapted", "target", ".kinds"),
            (Error, "cannot_carry", "target", ".versioned"),
            (Warning, "cannot_carry", "target", ".numbers"),
            (Info, "adapted", "target", ".uca"),
            (Warning, "account_plugin", "target", "app@%"),
        ],
    );
    // Named in the settings, the account is no finding any more.
    let mut with_users = context(source, target, &["ck_kinds.*"]);
    with_users.users.push("app".to_string());
    let findings = run(&with_users);
    assert!(!findings.iter().any(|f| f.table.as_deref() == Some("app@%")));
}

#[test]
fn one_server_twice_and_none_at_all() {
    for family in Family::BOTH {
        let server = or_skip!(shared(family, 0));
        let findings = run(&context(server, server, &["ck_nothing.*"]));
        assert_found(&findings, &[(Error, "same_server", "", "")]);
    }
    let server = or_skip!(shared(Family::MariaDb, 0));
    let mut nobody = context(server, server, &["ck_nothing.*"]);
    nobody.accounts[1].address = format!("127.0.0.1:{}", crate::support::proc::free_port());
    assert_found(&run(&nobody), &[(Error, "unreachable", "target", "")]);
}

#[test]
fn rights_the_service_account_lacks() {
    for family in Family::BOTH {
        let source = or_skip!(shared(family, 0));
        let target = or_skip!(shared(family, 1));
        filled(
            &[source, target],
            "ck_rights",
            "CREATE TABLE a (id INT PRIMARY KEY);",
        );
        target.exec(
            "DROP USER IF EXISTS ck_limited, ck_enough;\nCREATE USER ck_limited IDENTIFIED BY 'pw';\nGRANT SELECT ON ck_rights.* TO ck_limited;\nCREATE USER ck_enough IDENTIFIED BY 'pw'",
        );
        let mut limited = context(source, target, &["ck_rights.*"]);
        limited.accounts[1] = account(target.address(), Side::Target, ("ck_limited", "pw"));
        let findings = run(&limited);
        assert_found(
            &findings,
            &[
                (Error, "grant_missing", "target", ""),
                (Error, "own_schema", "target", ""),
            ],
        );
        for right in [
            "REPLICATION SLAVE",
            "INSERT",
            "LOCK TABLES",
            "CREATE",
            "mysql.user",
        ] {
            assert!(
                findings
                    .iter()
                    .any(|f| f.name == "grant_missing" && f.why.contains(right)),
                "{family} {right}:\n{}",
                lines(&findings)
            );
        }
        // What the remedies and the README grant is enough.
        for grant in grants(family) {
            target.exec(
                &grant
                    .replace("shop.*", "ck_rights.*")
                    .replace("lockstep@'%'", "ck_enough@'%'"),
            );
        }
        let mut enough = context(source, target, &["ck_rights.*"]);
        enough.accounts[1] = account(target.address(), Side::Target, ("ck_enough", "pw"));
        let findings = run(&enough);
        let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Error).collect();
        assert!(errors.is_empty(), "{family}:\n{}", lines(&findings));
        // To copy past the log takes one more, and what that costs is said.
        enough.copy_logged = false;
        let findings = run(&enough);
        let right = match family {
            Family::MariaDb => "BINLOG ADMIN",
            Family::MySql => "SESSION_VARIABLES_ADMIN",
        };
        let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Error).collect();
        assert!(
            matches!(&errors[..], [e] if e.name == "grant_missing" && e.remedy.contains(right)),
            "{family}:\n{}",
            lines(&findings)
        );
        target.exec(&errors[0].remedy);
        let findings = run(&enough);
        assert!(findings.iter().all(|f| f.severity != Error));
        assert_found(&findings, &[(Warning, "copy_unlogged", "target", "")]);
        target.exec("DROP USER ck_limited, ck_enough");
    }
}

/// The GRANT statements of the README for a family.
fn grants(family: Family) -> Vec<String> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let readme = readme.expect("README");
    let section = readme
        .split("## Accounts and grants")
        .nth(1)
        .expect("section");
    let mark = match family {
        Family::MariaDb => "-- MariaDB",
        Family::MySql => "-- MySQL",
    };
    let block = section.split(mark).nth(1).expect("a block of grants");
    let block = block.split("```").next().unwrap_or_default();
    let block = block.split("\n--").next().unwrap_or_default();
    let lines = block.lines().filter(|l| l.starts_with("GRANT"));
    lines.map(|l| l.trim_end_matches(';').to_string()).collect()
}

#[test]
fn the_command_line_and_the_control_port_say_the_same() {
    let source = or_skip!(shared(Family::MariaDb, 0));
    let target = or_skip!(shared(Family::MariaDb, 1));
    filled(
        &[source, target],
        "ck_cli",
        "CREATE TABLE a (id INT PRIMARY KEY);",
    );
    let options = ProxyOptions::route("good", &["ck_cli.*"]).and_route("bare", &["ck_bare.*"]);
    let proxy = Proxy::start(source, target, options);
    // By HTTP.
    let out = proxy.cli(&["check", "good", "--json"]);
    let by_http: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(out.status.success(), "{by_http:#}");
    assert_eq!(by_http["errors"], 0);
    let names = |v: &serde_json::Value| -> Vec<String> {
        let all = v["findings"].as_array().expect("findings");
        all.iter().map(|f| f["name"].to_string()).collect()
    };
    assert!(!names(&by_http).contains(&"\"no_tables\"".to_string()));
    let all = proxy.get("/v1/check").json();
    assert!(names(&all).contains(&"\"no_tables\"".to_string()));
    assert_eq!(proxy.get("/v1/routes/nowhere/check").status, 404);
    // With the settings file, as before the first start.
    let config = proxy.config_path();
    let direct = |args: &[&str]| {
        let mut command = std::process::Command::new(crate::support::proxy::binary());
        command.arg("check").arg("--config").arg(&config).args(args);
        command.env_remove("LOCKSTEP_CONTROL");
        command.output().expect("the binary runs")
    };
    let out = direct(&["good", "--json"]);
    let by_file: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(names(&by_file), names(&by_http));
    let out = direct(&[]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}");
    assert!(text.contains("no_tables") && text.contains("→"), "{text}");
    let out = direct(&["nowhere"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("no route named nowhere"));
    // An error is a failure.
    target.exec("ALTER TABLE ck_cli.a MODIFY id BIGINT");
    let out = direct(&["good"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("1 error stands in the way"));
}
