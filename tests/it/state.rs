//! A session keeps its state on whichever server it is served (DESIGN §4, §7).
//!
//! Each scenario is said to the source directly and then through the proxy:
//! with the source active, with all reads on the mirror, with a flip at the
//! marked places, and with a flip there and back. All answers are compared:
//! byte by byte where both servers are of one family, else rows, counts and
//! error numbers.

mod pins;
mod prepared;
mod scenarios;
mod texts;

use crate::order::patient;
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use crate::transparency::raw::{Login, MODERN, Packet, Raw};
use crate::transparency::run::comparable;
use lockstep::wire::Capabilities;
use lockstep::wire::ok::{ErrPacket, OkPacket};
use parking_lot::{Mutex, MutexGuard};
use scenarios::{FLIP, SCENARIOS, Scenario};
use std::sync::OnceLock;

/// The account of the scenarios: without rights on `performance_schema`.
const USER: &str = "stu";
const ROUTE: &str = "st";

/// Schemas, tables and routines, on both servers.
const SCHEMA: &str = "CREATE DATABASE st CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;\n\
CREATE DATABASE st_other CHARACTER SET latin1;\n\
USE st;\n\
CREATE TABLE r (id INT PRIMARY KEY, v INT);\n\
CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY, v INT, s VARCHAR(60));\n\
CREATE TABLE w (id INT AUTO_INCREMENT PRIMARY KEY, v INT);\n\
CREATE TABLE at (id INT PRIMARY KEY, t DATETIME(6), d DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6));\n\
CREATE TABLE only_role (id INT PRIMARY KEY);\n\
INSERT INTO only_role VALUES (1);\n\
CREATE TRIGGER w_sets BEFORE INSERT ON w FOR EACH ROW SET @by_trigger = NEW.v;\n\
CREATE PROCEDURE p_set(n INT) SET @by_procedure = n, @@session.sort_buffer_size = 262144;\n\
CREATE FUNCTION f_set(n INT) RETURNS INT NO SQL BEGIN SET @by_function = n; RETURN n + 1; END";

/// Rows are as at the start before every run.
const RESET: &str = "TRUNCATE TABLE st.a;\nTRUNCATE TABLE st.w;\nDELETE FROM st.at;\n\
DELETE FROM st.r;\nINSERT INTO st.r VALUES (1,1),(2,2),(3,3),(4,4),(5,5)";

/// Two servers with a proxy of their own.
pub struct Pair {
    pub source: &'static Server,
    pub target: &'static Server,
    pub proxy: Proxy,
}

/// Source and target of each pair. Every server is in pairs of one schema
/// each, so pairs that share one take turns.
const PAIRS: [[(Family, usize); 2]; 4] = [
    [(Family::MariaDb, 0), (Family::MariaDb, 1)],
    [(Family::MySql, 0), (Family::MySql, 1)],
    [(Family::MariaDb, 0), (Family::MySql, 0)],
    [(Family::MySql, 1), (Family::MariaDb, 1)],
];

/// The pairs' tables are the same ones: one test at a time changes them.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
}

fn prepare(server: &'static Server) {
    static PREPARED: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut prepared = PREPARED.lock();
    if prepared.contains(&server.port()) {
        return;
    }
    prepared.push(server.port());
    if server.family() == Family::MySql {
        server.exec("SET GLOBAL log_bin_trust_function_creators = 1");
    }
    // No two servers give their sessions the same.
    let own = 1500 + prepared.len();
    server.exec(&format!("SET GLOBAL max_sort_length = {own}"));
    server.exec(SCHEMA);
    server.exec(&format!(
        "CREATE USER {USER}@'%';\nGRANT PROCESS ON *.* TO {USER}@'%';\n\
         GRANT ALL ON st_other.* TO {USER}@'%';\n\
         GRANT EXECUTE, CREATE TEMPORARY TABLES, LOCK TABLES, TRIGGER ON st.* TO {USER}@'%';\n\
         CREATE ROLE st_reader;\nGRANT SELECT ON st.only_role TO st_reader;\nGRANT st_reader TO {USER}@'%'"
    ));
    // The last two are only ever temporary.
    for table in ["r", "a", "w", "at", "tmp4", "tmp5"] {
        server.exec(&format!("GRANT ALL ON st.{table} TO {USER}@'%'"));
    }
}

impl Pair {
    /// A pair with its route in `source_first`, and the turn to use it.
    pub fn get(index: usize) -> Option<(&'static Pair, MutexGuard<'static, ()>)> {
        Pair::made(index, &patient())
    }

    /// The same with a flip that soon gives up.
    pub fn get_impatient(index: usize) -> Option<(&'static Pair, MutexGuard<'static, ()>)> {
        let limits = "limits: { mirror_deadline_ms: 20000, drain_ms: 500, gate_ms: 3000 }";
        Pair::made(PAIRS.len() + index, limits)
    }

    fn made(index: usize, settings: &str) -> Option<(&'static Pair, MutexGuard<'static, ()>)> {
        static MADE: [OnceLock<Option<Pair>>; 8] = [const { OnceLock::new() }; 8];
        let turn = turn();
        let start = || Pair::start(PAIRS[index % PAIRS.len()], settings);
        let pair = MADE[index].get_or_init(start).as_ref()?;
        pair.to("source_first");
        Some((pair, turn))
    }

    fn start(sides: [(Family, usize); 2], settings: &str) -> Option<Pair> {
        let [source, target] = sides.map(|(family, index)| {
            servers::shared(family, index)
                .map_err(|missing| crate::support::skip(&missing))
                .ok()
        });
        let (source, target) = (source?, target?);
        prepare(source);
        prepare(target);
        let mut options = ProxyOptions::route(ROUTE, &["st.*"]);
        options.extra_yaml = settings.to_string();
        let proxy = Proxy::start(source, target, options);
        proxy.must_advance(ROUTE, "source_first");
        // Several of these proxies live at the same time, some of them with the
        // sides the other way round: they must not heal each other's tables.
        proxy.pause(ROUTE);
        Some(Pair {
            source,
            target,
            proxy,
        })
    }

    /// Brings the route to a mirrored phase.
    pub fn to(&self, phase: &str) {
        let now = self.proxy.phase(ROUTE);
        if now == phase {
            return;
        }
        if phase > now.as_str() {
            self.proxy.must_advance(ROUTE, phase);
        } else {
            self.proxy.must_rollback(ROUTE, phase);
        }
    }

    fn same_family(&self) -> bool {
        self.source.family() == self.target.family()
    }

    fn name(&self) -> String {
        format!("{} to {}", self.source.family(), self.target.family())
    }

    fn reset(&self) {
        self.source.exec(RESET);
        self.target.exec(RESET);
    }

    /// A session of the scenarios' account.
    pub fn session(&self, port: u16) -> Raw {
        let mut login = Login::root("st", MODERN);
        login.user = USER.to_string();
        Raw::connect(port, &login).expect("login")
    }
}

/// What happens at the marked places, and where reads go.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Active,
    MirrorReads,
    Flip,
    ThereAndBack,
    FromTarget,
}

/// Says the scenario on a port; the answers, with what was said.
fn say(
    pair: &Pair,
    port: u16,
    scenario: &Scenario,
    way: Option<Way>,
) -> Vec<(String, Vec<Packet>)> {
    let mut raw = pair.session(port);
    let mut said = Vec::new();
    for sql in scenario.sql {
        if *sql == FLIP {
            match way {
                Some(Way::Flip) => pair.to("target_first"),
                Some(Way::ThereAndBack) => {
                    pair.to("target_first");
                    pair.to("source_first");
                }
                Some(Way::FromTarget) => pair.to("source_first"),
                _ => {}
            }
            continue;
        }
        let answer = match sql.strip_prefix("bin: ") {
            Some(sql) => binary(&mut raw, sql),
            None => raw.query(sql),
        };
        let packets = answer.unwrap_or_else(|e| {
            let payload = format!("the connection broke: {e}").into_bytes();
            vec![Packet { seq: 0, payload }]
        });
        said.push((sql.to_string(), packets));
    }
    said
}

/// A statement by PREPARE and EXECUTE.
fn binary(raw: &mut Raw, sql: &str) -> std::io::Result<Vec<Packet>> {
    use lockstep::wire::command::{COM_STMT_CLOSE, COM_STMT_EXECUTE, COM_STMT_PREPARE};
    let mut packets = raw.ask(COM_STMT_PREPARE, sql.as_bytes())?;
    let Some([0, a, b, c, d, ..]) = packets.first_mut().map(|p| &mut p.payload[..]) else {
        return Ok(packets);
    };
    let id = [*a, *b, *c, *d];
    (*a, *b, *c, *d) = (0, 0, 0, 0);
    packets.extend(raw.ask(COM_STMT_EXECUTE, &[&id[..], &[0, 1, 0, 0, 0]].concat())?);
    raw.ask(COM_STMT_CLOSE, &id)?;
    Ok(packets)
}

/// An answer as it is compared.
fn judged(packets: &[Packet], exact: bool) -> Vec<String> {
    let text = |b: &[u8]| b.escape_ascii().to_string();
    if exact {
        let shown = packets.iter();
        return shown
            .map(|p| text(&comparable(&p.payload, MODERN)))
            .collect();
    }
    values(packets, MODERN)
}

/// Counts of an OK, number of an error, rows: what both families say alike.
fn values(packets: &[Packet], capabilities: Capabilities) -> Vec<String> {
    let text = |b: &[u8]| b.escape_ascii().to_string();
    let Some(first) = packets.first() else {
        return Vec::new();
    };
    match first.payload.first() {
        Some(0) => match OkPacket::parse(&first.payload, capabilities) {
            Ok(ok) => vec![format!("OK {} {}", ok.affected_rows, ok.insert_id)],
            Err(_) => vec!["PREPARED".to_string()],
        },
        Some(0xFF) => {
            let number = ErrPacket::parse(&first.payload).map(|e| e.code);
            vec![format!("ERR {number:?}")]
        }
        Some(columns) => {
            let rows = packets.iter().skip(1 + usize::from(*columns));
            let rows = rows.filter(|p| p.payload.first() != Some(&0xFE));
            rows.map(|p| text(&p.payload)).collect()
        }
        None => Vec::new(),
    }
}

fn compare(pair: &Pair, scenario: &Scenario, found: &mut Vec<String>) {
    if scenario.only.is_some_and(|f| f != pair.source.family())
        || (scenario.only.is_some() && !pair.same_family())
    {
        return;
    }
    let writes = scenario.writes();
    if writes {
        pair.reset();
    }
    let direct = say(pair, pair.source.port(), scenario, None);
    for way in [
        Way::Active,
        Way::MirrorReads,
        Way::Flip,
        Way::ThereAndBack,
        Way::FromTarget,
    ] {
        pair.to(if way == Way::FromTarget {
            "target_first"
        } else {
            "source_first"
        });
        let exact = pair.same_family();
        let percent = if way == Way::MirrorReads { 100 } else { 0 };
        assert!(pair.proxy.reads(ROUTE, percent).ok());
        if writes {
            pair.reset();
        }
        let proxied = say(pair, pair.proxy.port(), scenario, Some(way));
        for ((sql, d), (_, p)) in direct.iter().zip(&proxied) {
            let (d, p) = (judged(d, exact), judged(p, exact));
            if d != p {
                found.push(format!(
                    "{}, {}, {way:?}: {sql}\n    direct: {d:?}\n    proxy:  {p:?}",
                    pair.name(),
                    scenario.name
                ));
            }
        }
    }
}

/// `LOCKSTEP_TEST_CASE` picks the scenarios whose name contains it.
fn all_scenarios(index: usize) {
    let Some((pair, _turn)) = Pair::get(index) else {
        return;
    };
    let wanted = std::env::var("LOCKSTEP_TEST_CASE").unwrap_or_default();
    let mut found = Vec::new();
    let mut runs = 0;
    pair.reset();
    for scenario in SCENARIOS.iter().filter(|s| s.name.contains(&wanted)) {
        compare(pair, scenario, &mut found);
        runs += 1;
    }
    println!("{}: {runs} scenarios, 5 ways each", pair.name());
    assert!(
        found.is_empty(),
        "{} differences:\n{}\n{}",
        found.len(),
        found.join("\n"),
        pair.proxy.status()["routes"]
    );
}

#[test]
fn state_follows_mariadb_to_mariadb() {
    all_scenarios(0);
}

#[test]
fn state_follows_mysql_to_mysql() {
    all_scenarios(1);
}

#[test]
fn state_follows_mariadb_to_mysql() {
    all_scenarios(2);
}

#[test]
fn state_follows_mysql_to_mariadb() {
    all_scenarios(3);
}
