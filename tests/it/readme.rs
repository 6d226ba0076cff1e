//! The README is what operators go by: its grants are enough, and its table of
//! settings knows every key.

use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::proxy::patient;
use crate::support::servers::{APP, Server, opts, shared, tls_opts};
use crate::support::{Family, Proxy, ProxyOptions};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use std::path::Path;
use std::time::Duration;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The account of this test instead of the README's, which is everywhere here
/// and may do everything.
const ACCOUNT: (&str, &str) = ("readme", "readme-pw");

/// The statements that the README gives for a family, for [`ACCOUNT`].
fn grants(family: Family) -> Vec<String> {
    let (own, other) = match family {
        Family::MariaDb => ("-- MariaDB\n", "-- MySQL\n"),
        Family::MySql => ("-- MySQL\n", "```"),
    };
    let readme = file("README.md");
    let (_, block) = readme.split_once(own).expect("the family's grants");
    let (block, _) = block.split_once(other).expect("the end of them");
    let (user, password) = ACCOUNT;
    block
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let line = line.trim().trim_end_matches(';');
            line.replace("lockstep@", &format!("{user}@"))
                .replace("CREATE USER", "CREATE OR REPLACE USER")
                .replace("'…'", &format!("'{password}'"))
        })
        .collect()
}

fn prepare(server: &Server) {
    for statement in grants(server.family()) {
        // MySQL has no CREATE OR REPLACE USER.
        let statement = match server.family() {
            Family::MariaDb => statement,
            Family::MySql => {
                statement.replace("CREATE OR REPLACE USER", "CREATE USER IF NOT EXISTS")
            }
        };
        server.exec(&statement);
    }
    server.exec(
        "USE shop;\n\
         DROP TABLE IF EXISTS readme_child, readme_plain, readme_log, readme_triggered;\n\
         CREATE TABLE readme_plain (id INT AUTO_INCREMENT PRIMARY KEY, v INT);\n\
         CREATE TABLE readme_child (id INT AUTO_INCREMENT PRIMARY KEY, plain INT, \
         FOREIGN KEY (plain) REFERENCES readme_plain (id) ON DELETE CASCADE);\n\
         CREATE TABLE readme_log (id INT AUTO_INCREMENT PRIMARY KEY, v INT);\n\
         CREATE TABLE readme_triggered (id INT AUTO_INCREMENT PRIMARY KEY, v INT);\n\
         CREATE TRIGGER readme_trigger AFTER INSERT ON readme_triggered FOR EACH ROW \
         INSERT INTO readme_log (v) VALUES (NEW.v);\n",
    );
}

/// With the README's grants and no more the proxy logs in to both sides for a
/// client, knows the triggers, samples positions, and could end a connection.
fn grants_are_enough(family: Family) {
    let source = or_skip!(shared(family, 0));
    let target = or_skip!(shared(family, 1));
    prepare(source);
    prepare(target);
    let mut options = ProxyOptions::route("readme", &["shop.readme_*"]);
    for side in ["SOURCE", "TARGET"] {
        for (name, value) in [("USER", ACCOUNT.0), ("PASSWORD", ACCOUNT.1)] {
            let variable = format!("LOCKSTEP_BACKENDS__{side}__{name}");
            options.env.push((variable, value.to_string()));
        }
    }
    options.extra_yaml = patient("");
    let proxy = Proxy::start(source, target, options);
    proxy.must_advance("readme", "source_first");
    // The follower would bring the deferred write over.
    proxy.pause("readme");
    // Positions are sampled each second.
    std::thread::sleep(Duration::from_millis(1_500));
    block_on(async {
        let through = tls_opts(proxy.port(), APP.0, APP.1, Some("shop"));
        let mut conn = Conn::new(through).await.expect("login through the proxy");
        for table in ["readme_plain", "readme_triggered"] {
            let sql = format!("INSERT INTO {table} (v) VALUES (1)");
            conn.query_drop(sql).await.expect("insert");
        }
        let _ = conn.disconnect().await;
    });
    let status = proxy.status();
    let route = proxy.route("readme");
    let mirror = &route["mirror"];
    let counts = ["writes_ok", "writes_failed", "writes_deferred"].map(|n| mirror[n].as_u64());
    assert_eq!(
        counts,
        [Some(1), Some(0), Some(1)],
        "{status}\n{}",
        proxy.log()
    );
    assert_eq!(target.one("SELECT COUNT(*) FROM shop.readme_plain"), "1");
    assert_eq!(target.one("SELECT COUNT(*) FROM shop.readme_log"), "0");
    let since = &status["journal"]["since"][0];
    assert!(
        since[1].is_string(),
        "no position: {since}\n{}",
        proxy.log()
    );
    sees_cascades(target);
    ends_connections(target);
}

/// Foreign keys that change rows of other tables weaken a parent's writes.
fn sees_cascades(server: &Server) {
    block_on(async {
        let own = opts(server.port(), ACCOUNT.0, ACCOUNT.1, None);
        let mut conn = Conn::new(own).await.expect("the service account");
        let sql = "SELECT 1 FROM information_schema.REFERENTIAL_CONSTRAINTS \
                   WHERE CONSTRAINT_SCHEMA = 'shop' AND TABLE_NAME = 'readme_child'";
        let rows: Vec<Row> = conn.query(sql).await.expect("foreign keys");
        assert_eq!(rows.len(), 1, "foreign keys are not seen");
        let _ = conn.disconnect().await;
    });
}

/// What the proxy does to a mirror's connection that does not answer.
fn ends_connections(server: &Server) {
    block_on(async {
        let victim = Conn::new(server.opts(APP.0, APP.1, None))
            .await
            .expect("victim");
        let own = opts(server.port(), ACCOUNT.0, ACCOUNT.1, None);
        let mut conn = Conn::new(own).await.expect("the service account");
        let seen = "SELECT 1 FROM information_schema.processlist WHERE id = ?";
        let rows: Vec<Row> = conn.exec(seen, (victim.id(),)).await.expect("processlist");
        assert_eq!(rows.len(), 1, "others' connections are not seen");
        let kill = format!("KILL CONNECTION {}", victim.id());
        conn.query_drop(kill).await.expect("KILL");
        let _ = conn.disconnect().await;
    });
}

#[test]
fn the_grants_are_enough_on_mariadb() {
    grants_are_enough(Family::MariaDb);
}

#[test]
fn the_grants_are_enough_on_mysql() {
    grants_are_enough(Family::MySql);
}

#[test]
fn the_table_of_settings_knows_every_key() {
    let readme = file("README.md");
    let (_, settings) = readme.split_once("## Settings").expect("settings");
    let (settings, _) = settings.split_once("\n## ").expect("the end of settings");
    let mut missing = Vec::new();
    for line in file("proxy.yaml").lines() {
        // Keys of the routes stand in comments there, for the list is empty;
        // other comments hold colons in the middle of a sentence.
        let route = line.strip_prefix("#   - ").or(line.strip_prefix("#     "));
        let line = route.unwrap_or(line).trim_start();
        let Some((key, _)) = line.split_once(':') else {
            continue;
        };
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let named = ["`", "."].iter().any(|before| {
            ["`", "."]
                .iter()
                .any(|after| settings.contains(&format!("{before}{key}{after}")))
        });
        let section = ["backends", "routes"].contains(&key) && settings.contains(key);
        if is_key && !named && !section {
            missing.push(key.to_string());
        }
    }
    assert!(missing.is_empty(), "not in the README: {missing:?}");
}
