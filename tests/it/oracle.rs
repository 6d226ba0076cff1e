//! The scanner and the plan against the servers' own judgement: what a
//! statement reads, writes and names, how texts are cut, and which writes are
//! not safe to be executed twice (warning 1592 under
//! `binlog_format=STATEMENT`). Statements of the corpus, and generated ones.
//!
//! `LOCKSTEP_SEED` repeats a run, `LOCKSTEP_STATEMENTS` makes it longer.

mod answers;
mod generate;
mod lexing;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use lockstep::Side;
use lockstep::config::{Config, Password};
use lockstep::route::plan::{Plan, SessionView, plan};
use lockstep::route::table::{
    Ack, DdlPolicy, DeferredPolicy, Phase, ReadsBy, Route, RouteTable, TableGlob,
};
use lockstep::rows::catalog::{CatalogLoader, Wanted};
use lockstep::rows::service::ServiceAccount;
use lockstep::rows::shape::Catalog;
use lockstep::sql::{Class, Facts, Flags, Isolation, ScanMode, ServerKind, Verb, scan};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::servers::SERVICE;
use crate::support::{Family, Server, ServerOptions};
use crate::transparency::raw::Raw;
use generate::Generator;

/// Generated statements per family; a run of all takes some ten seconds.
const STATEMENTS: usize = 700;

/// For one statement; then the connection is made anew.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// A statement refused for missing rights on a table, column or view.
const DENIED: [u16; 3] = [1142, 1143, 1345];

/// Which statements, and the reason.
type SafeHere = (fn(&Facts, &[u8]) -> bool, &'static str);

/// Inline writes that the server calls unsafe: which, and why they are safe
/// here. ARCHITECTURE.md has the same list.
const SAFE_HERE: &[SafeHere] = &[
    (
        |f, _| f.flags.any(Flags::RAND),
        "RAND(): the mirror gets the active side's seeds, and where the order of \
         rows is not known it is deferred",
    ),
    (
        // Functions are judged in all other statements.
        |f, sql| f.verb == Verb::Delete && names(f, sql, b"def"),
        "DELETE on a table with a volatile default, which no DELETE evaluates \
         (MariaDB warns of the table)",
    ),
];

fn names(facts: &Facts, sql: &[u8], table: &[u8]) -> bool {
    let mut named = facts.tables.iter(sql);
    named.any(|(_, name)| name.eq_ignore_ascii_case(table))
}

/// The number of `name`, or `default`.
fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |v| v.parse().expect("a number"))
}

/// A private server: its tables hold what the statements leave behind.
fn server(family: Family) -> Result<Server, crate::support::Missing> {
    let started = Server::start(family, ServerOptions::default())?;
    schema::make(&started);
    Ok(started)
}

fn mode(server: &Server) -> ScanMode {
    let digits = |part: &str| -> u32 {
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse().unwrap_or(0)
    };
    let parts: Vec<u32> = server.version().split('.').take(3).map(digits).collect();
    ScanMode {
        server: ServerKind {
            mariadb: server.family() == Family::MariaDb,
            version: parts[0] * 10_000 + parts[1] * 100 + parts[2],
        },
        ..ScanMode::default()
    }
}

struct All;

impl Wanted for All {
    fn fold(&self) -> bool {
        false
    }
    fn schema(&self, database: &[u8]) -> bool {
        database.starts_with(b"orc")
    }
    fn table(&self, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

/// The shapes as the product reads them, both sides alike.
fn catalog(server: &Server) -> Arc<Catalog> {
    let mut config = Config::default();
    for backend in &mut config.backends {
        backend.address = server.address();
        backend.user = SERVICE.0.to_owned();
        backend.password = Password::new(SERVICE.1.to_owned());
    }
    let accounts = [Side::Source, Side::Target].map(|s| ServiceAccount::of(&config, s));
    let loader = CatalogLoader::new(
        Arc::new(ArcSwap::from_pointee(Catalog::empty())),
        Arc::new(All),
        Arc::default(),
        Duration::from_secs(1),
        accounts,
    );
    for side in block_on(loader.refresh()) {
        side.unwrap_or_else(|e| panic!("shapes: {e}"));
    }
    loader.snapshot()
}

fn routes() -> RouteTable {
    RouteTable {
        routes: vec![Route {
            name: "orc".to_owned(),
            tables: vec![TableGlob::parse("orc*.*").expect("a glob")],
            phase: Phase::SourceFirst,
            epoch: 1,
            reads_percent: 100,
            reads_by: ReadsBy::default(),
            ack: Ack::default(),
            deferred: DeferredPolicy::default(),
            ddl: DdlPolicy::default(),
            follow: None,
            live: Arc::default(),
        }],
        ..RouteTable::default()
    }
}

fn view(mode: ScanMode) -> SessionView<'static> {
    SessionView {
        database: Some(b"orc"),
        in_transaction: false,
        isolation: Isolation::RepeatableRead,
        poisoned: false,
        locked_tables: false,
        xa: false,
        log_bin_off: false,
        no_auto_value_on_zero: false,
        read_bucket: 0,
        statement_bucket: 0,
        temporary_tables: &[],
        own_timestamp: false,
        one_shot: false,
        oracle_mode: false,
        other_leg: true,
        mode,
    }
}

/// What one statement did.
struct Outcome {
    /// The error, if any.
    error: Option<(u16, String)>,
}

/// A connection that survives what statements do to it.
struct Session<'a> {
    server: &'a Server,
    user: String,
    password: &'static str,
    setup: &'static str,
    conn: Option<Conn>,
}

impl<'a> Session<'a> {
    fn new(server: &'a Server, user: &str, password: &'static str, setup: &'static str) -> Self {
        Session {
            server,
            user: user.to_owned(),
            password,
            setup,
            conn: None,
        }
    }

    async fn conn(&mut self) -> &mut Conn {
        if self.conn.is_none() {
            let opts = self
                .server
                .opts(&self.user, self.password, Some(schema::DATABASE));
            let mut conn = Conn::new(opts).await.expect("connect");
            if !self.setup.is_empty() {
                conn.query_drop(self.setup).await.expect("set up");
            }
            self.conn = Some(conn);
        }
        self.conn.as_mut().expect("made above")
    }

    /// Runs a text, all its answers read.
    async fn run(&mut self, sql: &[u8]) -> Outcome {
        let conn = self.conn().await;
        let done = tokio::time::timeout(STATEMENT_LIMIT, conn.query_drop(sql)).await;
        let error = match done {
            Ok(Ok(())) => None,
            Ok(Err(Error::Server(e))) => Some((e.code, e.message)),
            Ok(Err(e)) => {
                self.conn = None;
                Some((0, e.to_string()))
            }
            Err(_) => {
                self.conn = None;
                Some((0, "took too long".to_owned()))
            }
        };
        Outcome { error }
    }

    async fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        let conn = self.conn().await;
        let rows: Vec<Row> = conn
            .query(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows.into_iter()
            .map(crate::support::servers::texts)
            .collect()
    }
}

fn inline(sql: &[u8], facts: &Facts, mode: ScanMode, catalog: &Catalog) -> bool {
    let planned = plan(sql, facts, &view(mode), &routes(), catalog, None);
    matches!(planned.plan, Plan::Inline(_))
}

/// Collects what is wrong, so that one run shows all of it.
#[derive(Default)]
struct Report {
    wrong: Vec<String>,
    counts: BTreeMap<&'static str, u32>,
}

impl Report {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn wrong(&mut self, what: &str, sql: &[u8]) {
        self.wrong.push(format!("{what}: {}", sql.escape_ascii()));
    }

    fn end(self, seed: u64, family: Family) {
        eprintln!("{family}, seed {seed}: {:?}", self.counts);
        assert!(
            self.wrong.is_empty(),
            "{family}, LOCKSTEP_SEED={seed}: {} wrong\n{}",
            self.wrong.len(),
            self.wrong
                .iter()
                .take(40)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
}

/// The statements of the corpus that only read or write rows.
fn corpus(mode: ScanMode) -> Vec<Vec<u8>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut all = Vec::new();
    for file in ["stmts.txt", "stmts2.txt"] {
        let text = std::fs::read_to_string(format!("{root}/{file}")).expect("corpus");
        for statement in text.split("\n;;\n") {
            let sql = statement.trim_end_matches('\n').as_bytes().to_vec();
            let class = scan(&sql, mode).class;
            if matches!(class, Class::Read | Class::Write) {
                all.push(sql);
            }
        }
    }
    all
}

/// The tables that the corpus names, as far as they make its statements run.
const CORPUS_TABLES: &[&str] = &[
    "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a INT, b INT, c INT, d DATETIME, j JSON, \
     KEY i (a), KEY idx (a), KEY i1 (b), KEY i2 (c))",
    "CREATE TABLE s (a INT, b INT, c INT)",
    "CREATE TABLE u (id INT, a INT, b INT)",
    "CREATE TABLE t1 (id INT PRIMARY KEY, a INT, b INT)",
    "CREATE TABLE t2 (id INT PRIMARY KEY, a INT, b INT)",
    "CREATE TABLE t3 (id INT PRIMARY KEY, a INT, b INT)",
    "CREATE TABLE x (a INT)",
    "CREATE TABLE y (a INT)",
];

struct Judge<'a> {
    mode: ScanMode,
    catalog: Arc<Catalog>,
    /// Everything is allowed; statements that are unsafe are warned about.
    all: Session<'a>,
    /// Looks on.
    admin: Session<'a>,
    denied: Vec<(&'static str, Session<'a>)>,
    raw: Raw,
    position: &'static str,
    report: Report,
    /// Texts that the server took.
    taken: Vec<Vec<u8>>,
}

impl<'a> Judge<'a> {
    fn new(server: &'a Server) -> Judge<'a> {
        Judge {
            mode: mode(server),
            catalog: catalog(server),
            all: Session::new(server, "root", "", "SET SESSION binlog_format = STATEMENT"),
            admin: Session::new(server, "root", "", ""),
            denied: schema::TABLES
                .iter()
                .map(|t| {
                    let user = schema::denied(t);
                    (
                        *t,
                        Session::new(server, &user, schema::PASSWORD, "SET autocommit = 0"),
                    )
                })
                .collect(),
            raw: answers::connect(server, schema::DATABASE),
            position: match server.family() {
                Family::MariaDb => "SHOW MASTER STATUS",
                Family::MySql => "SHOW BINARY LOG STATUS",
            },
            report: Report::default(),
            taken: Vec::new(),
        }
    }

    /// File and offset; a set of GTIDs tells the same.
    async fn position(&mut self) -> Vec<Option<String>> {
        let rows = self.admin.rows(self.position).await;
        rows.into_iter().next().expect("a binlog")
    }

    /// The session's counters of commands, those that are not zero.
    async fn commands(&mut self) -> BTreeMap<String, u64> {
        let sql = "SHOW SESSION STATUS WHERE Variable_name LIKE 'Com\\_%' AND Value > 0";
        let rows = self.all.rows(sql).await;
        rows.into_iter()
            .filter_map(|mut row| {
                let value = row.pop()??.parse().ok()?;
                Some((row.pop()??.to_lowercase(), value))
            })
            .collect()
    }

    /// Everything about one statement.
    async fn judge(&mut self, sql: &[u8], names: bool) {
        let facts = scan(sql, self.mode);
        // Definitions and administration are logged; nothing else of this.
        let read = facts.class < Class::Admin;
        let may_write = Flags::UNKNOWN_FUNCTION.with(Flags::SEQUENCE);
        let quiet = read && !facts.flags.any(may_write);
        let inline = inline(sql, &facts, self.mode, &self.catalog);
        // What the statement before left open.
        self.all.run(b"ROLLBACK").await;
        if facts.class == Class::Write {
            self.all.run(b"BEGIN").await;
        }
        let (at, commands) = (self.position().await, self.commands().await);
        let outcome = self.all.run(sql).await;
        if outcome.error.is_some() {
            // Locks of a refused write would hold the other connections up.
            self.all.run(b"ROLLBACK").await;
            self.report.count("refused");
            return;
        }
        let warnings = self.all.rows("SHOW WARNINGS").await;
        let after = self.commands().await;
        if quiet {
            self.report.count("reads");
            // A COMMIT would show what came before.
            if facts.class != Class::Transaction && self.position().await != at {
                self.report.wrong("a read that writes", sql);
            }
        }
        self.verb(sql, &facts, &commands, &after);
        self.safety(sql, &facts, inline, &warnings);
        self.all.run(b"ROLLBACK").await;
        if names {
            self.tables(sql, &facts).await;
        }
        // A procedure gives as many answers as it likes.
        if facts.class < Class::Unknown {
            self.taken.push(sql.to_vec());
        }
    }

    /// The server counts what it executed by verb.
    fn verb(
        &mut self,
        sql: &[u8],
        facts: &Facts,
        before: &BTreeMap<String, u64>,
        after: &BTreeMap<String, u64>,
    ) {
        let counted = |name: &str| after.get(name) > before.get(name);
        let inner = Flags::UNKNOWN_FUNCTION;
        // Explained writes are counted as if they were executed, and so is
        // what functions and triggers execute.
        if facts.statements > 1 || facts.verb == Verb::Explain || facts.flags.any(inner) {
            return;
        }
        for (verb, names) in [
            (Verb::Insert, &["com_insert", "com_insert_select"][..]),
            (Verb::Replace, &["com_replace", "com_replace_select"]),
            (Verb::Update, &["com_update", "com_update_multi"]),
            (Verb::Delete, &["com_delete", "com_delete_multi"]),
            (Verb::LoadData, &["com_load"]),
        ] {
            let server = names.iter().any(|n| counted(n));
            if (facts.verb == verb && !server) || (server && facts.class == Class::Read) {
                let what = format!("{:?} to us, {verb:?} by the server: {server}", facts.verb);
                self.report.wrong(&what, sql);
            }
        }
    }

    fn safety(
        &mut self,
        sql: &[u8],
        facts: &Facts,
        inline: bool,
        warnings: &[Vec<Option<String>>],
    ) {
        let said: Vec<&str> = warnings
            .iter()
            .filter(|w| w.get(1).and_then(Option::as_deref) == Some("1592"))
            .filter_map(|w| w.get(2)?.as_deref())
            .collect();
        match (inline, said.is_empty()) {
            (true, true) => self.report.count("inline"),
            (false, true) if facts.class == Class::Write => self.report.count("deferred"),
            (false, false) => self.report.count("deferred, unsafe"),
            _ => {}
        }
        if !inline {
            return;
        }
        for message in said {
            if SAFE_HERE.iter().any(|(safe, _)| safe(facts, sql)) {
                self.report.count("inline, unsafe to the server only");
            } else {
                self.report.wrong(&format!("inline, but: {message}"), sql);
            }
        }
    }

    /// A table is used if an account that may use all others is refused.
    async fn tables(&mut self, sql: &[u8], facts: &Facts) {
        // What PREPARE names is looked at when it is executed.
        if facts.tables.overflow || facts.class > Class::Write || facts.verb == Verb::Prepare {
            return;
        }
        for (table, session) in &mut self.denied {
            let outcome = session.run(sql).await;
            session.run(b"ROLLBACK").await;
            let used = match outcome.error {
                None => false,
                Some((code, _)) if DENIED.contains(&code) => true,
                // Other rights that these accounts lack.
                Some(_) => continue,
            };
            let named = facts.tables.iter(sql).any(|(db, name)| {
                let db = db.as_deref().unwrap_or(b"orc");
                &*name == table.as_bytes() && db == schema::database_of(table).as_bytes()
            });
            if used != named {
                let what = format!("{table} is used: {used}, named: {named}");
                self.report.wrong(&what, sql);
            }
        }
        self.report.count("names");
    }

    /// Several statements in one text: as many answers as we count.
    fn joined(&mut self, rng: &mut generate::Rng) {
        let mut text = Vec::new();
        let mut expected = 0;
        for _ in 0..2 + rng.below(3) {
            let one = &self.taken[rng.below(self.taken.len())];
            // One that is a comment to this server is an empty statement behind a `;`.
            let own = scan(one, self.mode).statements;
            expected += if expected > 0 { own.max(1) } else { own };
            text.extend_from_slice(one);
            text.extend_from_slice(rng.pick(&["\n;", "\n; ;", "\n;/* x */"]).as_bytes());
        }
        // A comment at the end is an empty statement to the servers.
        expected += u32::from(text.ends_with(b"*/"));
        let facts = scan(&text, self.mode);
        if facts.statements != expected {
            self.report.wrong(
                &format!("{} for {expected} statements", facts.statements),
                &text,
            );
        }
        answers::ask(&mut self.raw, b"BEGIN");
        let given = answers::ask(&mut self.raw, &text);
        answers::ask(&mut self.raw, b"ROLLBACK");
        let given_count = given.columns.len();
        // An empty statement between two is refused.
        if given.error.is_none() && given_count != facts.statements as usize {
            let what = format!("{given_count} answers for {} statements", facts.statements);
            self.report.wrong(&what, &text);
        }
        self.report.count("joined");
    }
}

fn judged(family: Family) {
    let server = or_skip!(server(family));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_secs());
    let seed = number("LOCKSTEP_SEED", now);
    let statements = number("LOCKSTEP_STATEMENTS", STATEMENTS as u64);
    eprintln!("{family}: LOCKSTEP_SEED={seed}");
    let mut judge = Judge::new(&server);
    block_on(async {
        for table in CORPUS_TABLES {
            judge
                .admin
                .conn()
                .await
                .query_drop(*table)
                .await
                .expect("corpus tables");
        }
        for sql in corpus(judge.mode) {
            judge.judge(&sql, false).await;
        }
        judge.taken.clear();
        let mut generator = Generator::new(seed, family);
        for _ in 0..statements {
            let sql = generator.statement();
            judge.judge(sql.as_bytes(), true).await;
        }
        for _ in 0..statements / 5 {
            judge.joined(&mut generator.rng);
        }
    });
    judge.report.end(seed, family);
}

#[test]
fn statements_as_mariadb_judges_them() {
    judged(Family::MariaDb);
}

#[test]
fn statements_as_mysql_judges_them() {
    judged(Family::MySql);
}
