//! A schema's life beyond its making: runs that are cut off, differences,
//! triggers and events at a change of the active side, accounts.

use super::{Stage, account, account_of, shown};
use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::{Family, Server, ServerOptions};
use lockstep::Side;
use lockstep::schema::{self, Object, Options, Outcome, Progress};
use std::time::Duration;

const TABLES: &str = "CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT=500;
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(20), KEY by_what (what));
CREATE TABLE child (id INT PRIMARY KEY, p INT, KEY kp (p), CONSTRAINT c FOREIGN KEY (p) REFERENCES parent (id));
CREATE VIEW seen AS SELECT * FROM parent;
CREATE TRIGGER first AFTER INSERT ON parent FOR EACH ROW INSERT INTO log (what) VALUES ('first');
CREATE TRIGGER second AFTER INSERT ON parent FOR EACH ROW INSERT INTO log (what) VALUES ('second');
CREATE EVENT tick ON SCHEDULE EVERY 1 YEAR STARTS '2020-01-01 00:00:00' DO DELETE FROM log WHERE id < 0;
CREATE EVENT still ON SCHEDULE EVERY 1 YEAR STARTS '2020-01-01 00:00:00' DISABLE DO DELETE FROM log WHERE id < 0;
";

fn staged(name: &str, source: Family, target: Family) -> Result<Stage, crate::support::Missing> {
    let stage = Stage::new(name, source, target)?;
    stage
        .source
        .exec(&format!("USE {};\n{TABLES}", stage.databases[0]));
    Ok(stage)
}

fn triggers(server: &Server, database: &str) -> Vec<String> {
    let sql = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = '{database}' ORDER BY ACTION_ORDER"
    );
    server.query(&sql).into_iter().flatten().flatten().collect()
}

fn events(server: &Server, database: &str) -> Vec<String> {
    let sql = format!(
        "SELECT CONCAT(EVENT_NAME, ' ', STATUS) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = '{database}' ORDER BY EVENT_NAME"
    );
    server.query(&sql).into_iter().flatten().flatten().collect()
}

fn changes_sides(source: Family, target: Family) {
    let stage = or_skip!(staged("turn", source, target));
    let database = &stage.databases[0];
    let report = stage.create(Options::default());
    assert!(report.complete(), "{}", shown(&report));
    let [source, target] = stage.accounts();
    let covers = stage.covers();
    let insert = format!("INSERT INTO {database}.parent (v) VALUES (1)");
    let logged = format!("SELECT GROUP_CONCAT(what ORDER BY id) FROM {database}.log");
    let off = ["still DISABLED", "tick DISABLED"];
    let on = ["still DISABLED", "tick ENABLED"];

    // Held back on the target, live on the source.
    assert_eq!(triggers(stage.target, database), [""; 0]);
    assert_eq!(events(stage.target, database), off);
    assert_eq!(triggers(stage.source, database), ["first", "second"]);
    assert_eq!(events(stage.source, database), on);
    stage.target.exec(&insert);
    assert_eq!(stage.target.query(&logged), [[None]]);
    let first = format!("SELECT MIN(id) FROM {database}.parent");
    assert_eq!(stage.target.one(&first), "500");

    // Over, twice, and back.
    for _ in 0..2 {
        for side in [schema_off(&source, &covers), schema_on(&target, &covers)] {
            assert_eq!(side, [""; 0]);
        }
        assert_eq!(triggers(stage.target, database), ["first", "second"]);
        assert_eq!(events(stage.target, database), on);
        assert_eq!(triggers(stage.source, database), [""; 0]);
        assert_eq!(events(stage.source, database), off);
    }
    stage.target.exec(&insert);
    assert_eq!(stage.target.one(&logged), "first,second");
    assert_eq!(schema_off(&target, &covers), [""; 0]);
    assert_eq!(schema_on(&source, &covers), [""; 0]);
    assert_eq!(triggers(stage.target, database), [""; 0]);
    assert_eq!(triggers(stage.source, database), ["first", "second"]);
    assert_eq!(events(stage.source, database), on);
    stage.source.exec(&insert);
    assert_eq!(stage.source.one(&logged), "first,second");
}

type Account = lockstep::rows::service::ServiceAccount;

/// What could not be switched.
fn schema_on(account: &Account, covers: &schema::Covers<'_>) -> Vec<String> {
    let report = block_on(schema::activate(account, covers, None)).expect("activated");
    report.notes.into_iter().map(|n| n.why).collect()
}

fn schema_off(account: &Account, covers: &schema::Covers<'_>) -> Vec<String> {
    let report = block_on(schema::deactivate(account, covers)).expect("deactivated");
    report.notes.into_iter().map(|n| n.why).collect()
}

#[test]
fn triggers_and_events_go_with_the_active_side() {
    changes_sides(Family::MariaDb, Family::MySql);
    changes_sides(Family::MySql, Family::MariaDb);
}

#[test]
fn a_run_that_is_cut_off_goes_on() {
    let stage = or_skip!(staged("cut", Family::MariaDb, Family::MySql));
    let [source, target] = stage.accounts();
    let covers = stage.covers();
    // Dropped at its awaits, later each time: as good as a kill.
    let mut whole = false;
    for n in 1..90 {
        let progress = Progress::default();
        let run = schema::create(&source, &target, &covers, Options::default(), &progress);
        let limit = Duration::from_millis(n * n);
        let ended = block_on(async { tokio::time::timeout(limit, run).await });
        // A statement of the run before may go on for a while after it was left.
        if matches!(ended, Ok(Ok(report)) if report.complete()) {
            whole = true;
            break;
        }
    }
    assert!(whole, "no run had the time it takes");
    // A trigger that was made and not yet held back when a run was cut off is
    // held in the target's own words, and made once more from the source's.
    let again = stage.create(Options::default());
    let triggers_only = again.created.iter().all(|made| made.contains("trigger"));
    assert!(
        again.complete() && triggers_only,
        "{:?}\n{}",
        again.created,
        shown(&again)
    );
    let again = stage.create(Options::default());
    assert!(
        again.complete() && again.created.is_empty(),
        "{}",
        shown(&again)
    );
    let finished = stage.finish();
    assert_eq!(finished.notes, []);
    let [source, target] = stage.accounts();
    let compared = schema::compare(&source, &target, &covers, Options::default());
    let compared = block_on(compared).expect("compared");
    assert!(compared.complete(), "{}", shown(&compared));
    assert_eq!(schema_on(&target, &covers), [""; 0]);
    assert_eq!(
        triggers(stage.target, &stage.databases[0]),
        ["first", "second"]
    );
    assert_eq!(schema_off(&target, &covers), [""; 0]);
}

#[test]
fn what_differs_is_said_and_left() {
    let stage = or_skip!(staged("differs", Family::MariaDb, Family::MariaDb));
    let database = &stage.databases[0];
    stage.target.exec(&format!(
        "CREATE DATABASE {database} CHARACTER SET latin1;\nUSE {database};
CREATE TABLE parent (id INT PRIMARY KEY, v BIGINT, extra INT);
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(20) CHARACTER SET latin1, UNIQUE KEY other (what));
CREATE VIEW child AS SELECT 1;"
    ));
    let report = stage.create(Options::default());
    let said = |name: &str, part: &str| {
        report
            .with(Outcome::Differs)
            .any(|n| n.name == name && n.part == part)
    };
    for (name, part) in [
        ("", ""),
        ("parent", "id"),
        ("parent", "v"),
        ("parent", "extra"),
        ("log", "what"),
        ("log", "key other"),
        ("child", ""),
    ] {
        assert!(said(name, part), "{name} {part}:\n{}", shown(&report));
    }
    let left = format!(
        "SELECT GROUP_CONCAT(COLUMN_TYPE ORDER BY ORDINAL_POSITION) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = 'parent'"
    );
    assert_eq!(stage.target.one(&left), "int(11),bigint(20),int(11)");
}

#[test]
fn a_parent_outside_the_route_is_named() {
    let stage = or_skip!(staged("border", Family::MySql, Family::MySql));
    let database = stage.databases[0].clone();
    let [source, target] = stage.accounts();
    let covers = move |s: &[u8], t: &[u8]| s == database.as_bytes() && t == b"child";
    let progress = Progress::default();
    let made = schema::create(&source, &target, &covers, Options::default(), &progress);
    let report = block_on(made).expect("made");
    let note = report.with(Outcome::Missing).next().expect("a note");
    assert_eq!(
        (note.name.as_str(), note.part.as_str()),
        ("child", "foreign key c")
    );
    let insert = format!("INSERT INTO {}.child VALUES (1, 77)", stage.databases[0]);
    stage.target.exec(&insert);
}

/// A server of this test alone: accounts are the whole server's.
fn own(family: Family) -> Result<&'static Server, crate::support::Missing> {
    let server = Server::start(family, ServerOptions::default())?;
    Ok(Box::leak(Box::new(server)))
}

#[test]
fn accounts_and_their_grants_go_where_they_can() {
    let maria = [
        or_skip!(own(Family::MariaDb)),
        or_skip!(own(Family::MariaDb)),
    ];
    let mysql = [or_skip!(own(Family::MySql)), or_skip!(own(Family::MySql))];
    for [source, target] in [[maria[0], mysql[0]], maria, mysql] {
        target.exec("DROP DATABASE IF EXISTS sc_accounts");
        let database = "sc_accounts";
        source.exec(&format!(
            "DROP DATABASE IF EXISTS {database};\nCREATE DATABASE {database};\nUSE {database};\n{TABLES}
DROP USER IF EXISTS 'reader'@'%';\nCREATE USER 'reader'@'%' IDENTIFIED BY 'a-secret-word';\nGRANT SELECT, INSERT ON `{database}`.* TO 'reader'@'%';"
        ));
        let options = Options {
            accounts: true,
            ..Options::default()
        };
        let accounts = [account(source, Side::Source), account(target, Side::Target)];
        let covers = |s: &[u8], _: &[u8]| s == database.as_bytes();
        let progress = Progress::default();
        let made = schema::create(&accounts[0], &accounts[1], &covers, options, &progress);
        let report = block_on(made).expect("made");
        let said = shown(&report);
        assert!(
            !said.contains("secret") && !said.contains("PASSWORD"),
            "{said}"
        );
        let missing = report
            .with(Outcome::Missing)
            .any(|n| n.object == Object::Account && n.name == "reader@%");
        assert_eq!(missing, source.family() != target.family(), "{said}");
        if !missing {
            let logged_in = account_of(target, Side::Target, ("reader", "a-secret-word"));
            block_on(async {
                use mysql_async::prelude::Queryable;
                let mut conn = logged_in.connect().await.expect("the same password");
                let sql = format!("SELECT id FROM {database}.parent");
                let rows: Vec<i64> = conn.query(sql).await.expect("granted");
                assert!(rows.is_empty());
            });
        }
    }
}

#[test]
fn without_rights_it_says_so() {
    let stage = or_skip!(staged("rights", Family::MySql, Family::MySql));
    let database = &stage.databases[0];
    let user = "sc_limited";
    stage.target.exec(&format!(
        "DROP USER IF EXISTS {user};\nCREATE USER {user} IDENTIFIED BY 'pw';\nGRANT SELECT, CREATE ON `{database}`.* TO {user};\nGRANT ALL ON lockstep.* TO {user}"
    ));
    let source = account(stage.source, Side::Source);
    let target = account_of(stage.target, Side::Target, (user, "pw"));
    let covers = stage.covers();
    let progress = Progress::default();
    let made = schema::create(&source, &target, &covers, Options::default(), &progress);
    let report = block_on(made).expect("made as far as it goes");
    let missing: Vec<Object> = report.with(Outcome::Missing).map(|n| n.object).collect();
    for object in [Object::View, Object::Trigger, Object::Event] {
        assert!(missing.contains(&object), "{}", shown(&report));
    }
    assert!(report.created.iter().any(|c| c.contains(".parent")));
}
