//! The target's schema made from the source's, on all four pairs of servers:
//! everything the source has is on the target in the same shape, or named.

mod defs;
mod life;

use crate::binlog::types;
use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::servers::{SERVICE, shared};
use crate::support::{Family, Server};
use lockstep::Side;
use lockstep::config::{Password, TlsMode};
use lockstep::rows::service::ServiceAccount;
use lockstep::schema::{self, Object, Options, Outcome, Progress, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn account(server: &Server, side: Side) -> ServiceAccount {
    account_of(server, side, SERVICE)
}

fn account_of(server: &Server, side: Side, (user, password): (&str, &str)) -> ServiceAccount {
    ServiceAccount {
        certificate: None,
        side,
        address: server.address(),
        user: user.to_string(),
        password: Password::new(password.to_string()),
        tls: TlsMode::Off,
        ca: String::new(),
        connect_timeout: Duration::from_secs(5),
    }
}

/// The servers of a pair, and the databases only this pair uses.
struct Stage {
    source: &'static Server,
    target: &'static Server,
    databases: [String; 2],
}

impl Stage {
    fn new(name: &str, source: Family, target: Family) -> Result<Stage, crate::support::Missing> {
        let second = usize::from(source == target);
        let tag = |f: Family| &f.name()[..2];
        let first = format!("sc_{name}_{}{}", tag(source), tag(target));
        let stage = Stage {
            source: shared(source, 0)?,
            target: shared(target, second)?,
            databases: [first.clone(), format!("{first}`.2")],
        };
        for server in [stage.source, stage.target] {
            for database in &stage.databases {
                let name = database.replace('`', "``");
                server.exec(&format!("DROP DATABASE IF EXISTS `{name}`"));
            }
        }
        for database in &stage.databases {
            let name = database.replace('`', "``");
            stage
                .source
                .exec(&format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4"));
        }
        Ok(stage)
    }

    fn covers(&self) -> impl Fn(&[u8], &[u8]) -> bool + Send + Sync + use<> {
        let databases = self.databases.clone();
        move |schema: &[u8], _: &[u8]| databases.iter().any(|d| d.as_bytes() == schema)
    }

    fn accounts(&self) -> [ServiceAccount; 2] {
        [
            account(self.source, Side::Source),
            account(self.target, Side::Target),
        ]
    }

    fn create(&self, options: Options) -> Report {
        let [source, target] = self.accounts();
        let progress = Progress::default();
        let covers = self.covers();
        let done = schema::create(&source, &target, &covers, options, &progress);
        let report = block_on(done).expect("the schema is made");
        let (done, total) = progress.counts();
        assert!(done <= total && total > 0);
        report
    }

    fn finish(&self) -> Report {
        let [source, target] = self.accounts();
        let progress = Progress::default();
        let covers = self.covers();
        let done = schema::finish(&source, &target, &covers, Options::default(), &progress);
        block_on(done).expect("the keys are made")
    }
}

fn shown(report: &Report) -> String {
    let lines = report.notes.iter().map(|n| {
        format!(
            "{:?} {} {}.{} [{}]: {}",
            n.outcome,
            n.object.as_str(),
            n.schema,
            n.name,
            n.part,
            n.why
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Tables of the source that are missing on the target, wholly.
fn absent(report: &Report) -> BTreeSet<String> {
    report
        .with(Outcome::Missing)
        .filter(|n| n.object == Object::Table && n.part.is_empty())
        .map(|n| n.name.clone())
        .collect()
}

/// A column's type in words of both families, by our own reckoning.
fn plain(kind: &str, mapped: &BTreeMap<&str, &str>) -> String {
    let kind = kind.replace(" /*M!100301 COMPRESSED*/", "");
    let kind = mapped
        .get(kind.as_str())
        .copied()
        .unwrap_or(&kind)
        .to_string();
    let (head, rest) = kind.split_once('(').unwrap_or((&kind, ""));
    let integer = ["tinyint", "smallint", "mediumint", "int", "bigint", "year"];
    if integer.contains(&head) && !kind.contains("zerofill") {
        let after = rest.split_once(')').map_or("", |(_, r)| r);
        return format!("{head}{after}");
    }
    kind
}

/// Columns and keys of a database as information_schema has them.
fn shapes(
    server: &Server,
    database: &str,
    mapped: &BTreeMap<&str, &str>,
) -> BTreeMap<String, Vec<String>> {
    let name = database.replace('\'', "''");
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let columns = format!(
        "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.COLUMN_TYPE, c.IS_NULLABLE, \
         CONCAT(c.EXTRA LIKE '%auto_increment%', c.EXTRA LIKE '%INVISIBLE%', \
                c.EXTRA LIKE '%STORED%' OR c.EXTRA LIKE '%PERSISTENT%', c.EXTRA LIKE '%VIRTUAL%'), \
         c.COLUMN_COMMENT, c.COLUMN_DEFAULT IS NULL OR c.COLUMN_DEFAULT = 'NULL' AND VERSION() LIKE '%MariaDB%' \
         FROM information_schema.COLUMNS c JOIN information_schema.TABLES t \
         ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME \
         WHERE c.TABLE_SCHEMA = '{name}' AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') \
         ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION"
    );
    for row in server.query(&columns) {
        let row: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        let generated = row[4].ends_with("10") || row[4].ends_with("01");
        // MariaDB has no NOT NULL on generated columns.
        let null = if generated { "" } else { &row[3] };
        let line = format!(
            "column {} {} {null} {} {} {}",
            row[1],
            plain(&row[2], mapped),
            row[4],
            row[5],
            row[6]
        );
        all.entry(row[0].clone()).or_default().push(line);
    }
    let keys = format!(
        "SELECT TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, NON_UNIQUE, SUB_PART, \
         IF(INDEX_TYPE = 'BTREE', COLLATION, ''), INDEX_TYPE FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = '{name}' ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    for row in server.query(&keys) {
        let row: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        let mut row = row;
        // A spatial part has a length on one family only.
        if row[7] == "SPATIAL" {
            row[5].clear();
        }
        let line = format!("key {}", row[1..].join(" "));
        all.entry(row[0].clone()).or_default().push(line);
    }
    let foreign = format!(
        "SELECT k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_NAME, \
         k.REFERENCED_COLUMN_NAME, r.UPDATE_RULE, r.DELETE_RULE \
         FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
         ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME \
         AND r.TABLE_NAME = k.TABLE_NAME \
         WHERE k.TABLE_SCHEMA = '{name}' ORDER BY k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION"
    );
    for row in server.query(&foreign) {
        let row: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        let mut rules = row[5..].join(" ");
        // One and the same, named differently.
        rules = rules.replace("RESTRICT", "NO ACTION");
        let line = format!("foreign {} {rules}", row[1..5].join(" "));
        all.entry(row[0].clone()).or_default().push(line);
    }
    all
}

/// Type names of the source that are others on the target.
fn mapped(source: Family, target: Family) -> BTreeMap<&'static str, &'static str> {
    match (source, target) {
        (Family::MariaDb, Family::MySql) => BTreeMap::from([
            ("uuid", "char(36)"),
            ("inet6", "varchar(39)"),
            ("inet4", "varchar(15)"),
            ("geometrycollection", "geomcollection"),
        ]),
        (Family::MySql, Family::MariaDb) => BTreeMap::from([
            ("json", "longtext"),
            ("vector(3)", "varbinary(12)"),
            ("geomcollection", "geometrycollection"),
        ]),
        _ => BTreeMap::new(),
    }
}

fn everything(source: Family, target: Family) {
    let stage = or_skip!(Stage::new("all", source, target));
    let database = &stage.databases[0];
    let mut script = format!(
        "{} USE {database};\n",
        types::SESSION.replace("USE bt;", "SET foreign_key_checks=0;")
    );
    script = script.replace("; ", ";\n");
    script += defs::before(source);
    let types = types::tables(source);
    for table in &types {
        script += &format!("{}\n", table.create);
    }
    for (_, create) in defs::tables(source) {
        script += &format!("{create};\n");
    }
    script += &defs::objects(source);
    let odd = stage.databases[1].replace('`', "``");
    script += &format!(
        "USE `{odd}`;\nCREATE TABLE `t.``1` (id INT PRIMARY KEY, v INT, KEY kv (v));\nCREATE TRIGGER `tr ``1` BEFORE INSERT ON `t.``1` FOR EACH ROW SET NEW.v = 1;\nCREATE VIEW `v ``1` AS SELECT * FROM `t.``1`;\n"
    );
    stage.source.exec(&script);
    let made = types.len() + defs::tables(source).len();
    assert!(made >= 60, "{made} tables");

    let report = stage.create(Options::default());
    let said = shown(&report);
    let absent = absent(&report);
    assert_eq!(absent, defs::absent(source, target), "{said}");
    for note in report.with(Outcome::Missing) {
        assert!(
            defs::known_missing(source, target, note),
            "{note:?}\nall:\n{said}"
        );
    }
    for name in ["t.``1", "v ``1"] {
        stage
            .target
            .query(&format!("SELECT id, v FROM `{odd}`.`{name}`"));
    }
    // Rows go in before the keys are there.
    let mut rows = format!(
        "SET NAMES utf8mb4;\nSET sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00';\nUSE {database};\n"
    );
    // What the other family has no functions for.
    let known = |t: &&types::Table| source == target || !t.definition.starts_with("VECTOR");
    for table in types.iter().filter(known) {
        rows += &table
            .rows
            .replace("; ", ";\n")
            .replace(";INSERT", ";\nINSERT");
        rows += "\n";
    }
    stage.source.exec(&rows);
    stage.target.exec(&rows);
    let finished = stage.finish();
    for note in &finished.notes {
        assert!(defs::known_missing(source, target, note), "{note:?}");
    }
    assert!(
        finished.created.len() > 10,
        "keys were deferred and made: {:?}",
        finished.created
    );
    compare_shapes(&stage, source, target, &absent);

    // Again: nothing is made, nothing differs.
    let again = stage.create(Options::default());
    assert_eq!(again.created, Vec::<String>::new(), "{}", shown(&again));
    let differs: Vec<_> = again.with(Outcome::Differs).collect();
    assert!(differs.is_empty(), "{differs:?}");
}

fn compare_shapes(stage: &Stage, source: Family, target: Family, absent: &BTreeSet<String>) {
    let none = BTreeMap::new();
    let mapped = mapped(source, target);
    let mut theirs = shapes(stage.source, &stage.databases[0], &mapped);
    let mut ours = shapes(stage.target, &stage.databases[0], &none);
    theirs.retain(|name, _| !absent.contains(name));
    let skipped = defs::keys_missing(source, target);
    for (table, lines) in theirs.iter_mut().chain(ours.iter_mut()) {
        lines.retain(|l| !skipped.iter().any(|(t, k)| t == table && l.starts_with(k)));
    }
    for (table, lines) in &theirs {
        assert_eq!(ours.get(table), Some(lines), "{source}→{target} {table}");
    }
    assert_eq!(theirs.len(), ours.len());
    if source == target {
        // The servers' own texts.
        for table in theirs.keys() {
            let text = |server: &Server| {
                let sql = format!(
                    "SHOW CREATE TABLE `{}`.`{}`",
                    stage.databases[0],
                    table.replace('`', "``")
                );
                let text = server.query(&sql)[0][1].clone().expect("a definition");
                let words = text
                    .split(' ')
                    .filter(|w| !w.starts_with("AUTO_INCREMENT="));
                let text = words.collect::<Vec<_>>().join(" ");
                text.replace("ENGINE=MyISAM", "ENGINE=InnoDB")
                    .replace("ENGINE=Aria", "ENGINE=InnoDB")
                    .replace(" PAGE_CHECKSUM=1", "")
                    .replace(" TRANSACTIONAL=1", "")
            };
            let sorted = |text: String| {
                let mut lines: Vec<String> = text
                    .lines()
                    .map(|l| l.trim_end_matches(',').to_string())
                    .collect();
                // Keys that were made later stand behind the others.
                lines.sort();
                lines
            };
            assert_eq!(
                sorted(text(stage.target)),
                sorted(text(stage.source)),
                "{source} {table}"
            );
        }
    }
}

#[test]
fn mariadb_to_mariadb() {
    everything(Family::MariaDb, Family::MariaDb);
}

#[test]
fn mysql_to_mysql() {
    everything(Family::MySql, Family::MySql);
}

#[test]
fn mariadb_to_mysql() {
    everything(Family::MariaDb, Family::MySql);
}

#[test]
fn mysql_to_mariadb() {
    everything(Family::MySql, Family::MariaDb);
}
