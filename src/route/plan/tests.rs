//! The decision as tables of cases: DESIGN §5's inline and deferred rows, at
//! both sorts of isolation, reads, mixed sides, DDL and session state.

mod ahead;

use super::*;
use crate::route::table::{Ack, DeferredPolicy, Phase};
use crate::rows::shape::{ColumnShape, KeyShape};
use crate::sql::{self, ServerKind};

fn route(name: &str, tables: &[&str], phase: Phase) -> Route {
    Route {
        name: name.into(),
        tables: tables
            .iter()
            .map(|t| TableGlob::parse(t).unwrap())
            .collect(),
        phase,
        epoch: 1,
        reads_percent: 0,
        reads_by: ReadsBy::Session,
        ack: Ack::Both,
        deferred: DeferredPolicy::Wait,
        ddl: DdlPolicy::Both,
        follow: None,
        live: Default::default(),
    }
}

fn table_of(routes: Vec<Route>) -> RouteTable {
    RouteTable {
        routes,
        ..RouteTable::default()
    }
}

fn column(name: &str, kind: &str) -> ColumnShape {
    ColumnShape {
        name: name.into(),
        column_type: kind.into(),
        ..ColumnShape::default()
    }
}

fn key(columns: &[usize], primary: bool) -> KeyShape {
    KeyShape {
        columns: columns.to_vec(),
        primary,
        all_not_null: true,
        ..KeyShape::default()
    }
}

/// id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR
fn auto() -> TableShape {
    TableShape {
        engine: "InnoDB".into(),
        transactional: true,
        columns: vec![
            column("id", "bigint"),
            column("a", "int"),
            column("b", "varchar(20)"),
        ],
        auto_increment: Some(0),
        unique_keys: vec![key(&[0], true)],
        indexed: vec![0],
        ..TableShape::default()
    }
}

fn with(change: impl Fn(&mut TableShape)) -> TableShape {
    let mut shape = auto();
    change(&mut shape);
    shape
}

fn catalog() -> Catalog {
    let mut c = Catalog::new(false);
    let mut both = |name: &str, shape: TableShape| {
        c.insert(b"s", name.as_bytes(), Side::Source, shape.clone());
        c.insert(b"s", name.as_bytes(), Side::Target, shape);
    };
    both("t", auto());
    both("u", auto());
    both("plain", with(|s| s.auto_increment = None));
    both("two", with(|s| s.unique_keys.push(key(&[1], false))));
    both("trig", with(|s| s.triggers = 1));
    both("myisam", with(|s| s.transactional = false));
    both("v", with(|s| s.is_view = true));
    both("vol", with(|s| s.volatile_defaults = true));
    both("stamped", with(|s| s.time_defaults = true));
    both(
        "pair",
        with(|s| {
            s.auto_increment = None;
            s.unique_keys = vec![key(&[0, 1], true)];
        }),
    );
    both(
        "textkey",
        with(|s| {
            s.auto_increment = None;
            s.unique_keys = vec![key(&[2], true)];
        }),
    );
    c.insert(b"s", b"half", Side::Source, auto());
    c
}

fn view() -> SessionView<'static> {
    SessionView {
        database: Some(b"s"),
        in_transaction: false,
        isolation: Isolation::RepeatableRead,
        poisoned: false,
        locked_tables: false,
        xa: false,
        log_bin_off: false,
        no_auto_value_on_zero: false,
        read_bucket: 50,
        statement_bucket: 50,
        temporary_tables: &[],
        own_timestamp: false,
        one_shot: false,
        oracle_mode: false,
        other_leg: true,
        mode: ScanMode {
            ansi_quotes: false,
            no_backslash_escapes: false,
            charset: sql::CharsetClass::Safe,
            server: ServerKind {
                mariadb: false,
                version: 90_704,
            },
        },
    }
}

fn decide(text: &str, view: &SessionView<'_>, table: &RouteTable) -> Planned {
    let facts = sql::scan(text.as_bytes(), view.mode);
    plan(text.as_bytes(), &facts, view, table, &catalog(), None)
}

fn mirrored() -> RouteTable {
    table_of(vec![route("r", &["s.*"], Phase::SourceFirst)])
}

fn inline_of(text: &str, view: &SessionView<'_>) -> Inline {
    match decide(text, view, &mirrored()) {
        Planned {
            plan: Plan::Inline(inline),
            routes: 1,
            route: Some(0),
            ..
        } => inline,
        other => panic!("{text}: {other:?}"),
    }
}

fn deferred_of(text: &str, view: &SessionView<'_>) -> &'static str {
    match decide(text, view, &mirrored()) {
        Planned {
            plan: Plan::Deferred(Side::Source),
            reason,
            routes,
            ..
        } if routes != 0 => reason.as_str(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn inline_at_repeatable_read() {
    for (text, ids) in [
        ("INSERT INTO t (a) VALUES (1), (2)", Ids::Generated),
        (
            "INSERT INTO t VALUES (NULL, 1, 'x'), (0, 2, 'y')",
            Ids::Generated,
        ),
        ("INSERT INTO t (id, a) VALUES (5, 1), (6, 2)", Ids::Given),
        ("INSERT INTO t SET a = 1", Ids::Generated),
        ("INSERT INTO t VALUES ()", Ids::Generated),
        ("INSERT INTO plain (id, a) VALUES (5, 1)", Ids::None),
        ("REPLACE INTO t (id, a) VALUES (5, 1)", Ids::Given),
        (
            "INSERT INTO t (id, a) VALUES (5, 1) ON DUPLICATE KEY UPDATE a = VALUES(a)",
            Ids::Given,
        ),
        ("UPDATE t SET a = a + 1 WHERE b LIKE 'x%'", Ids::None),
        ("UPDATE t SET a = a + 1", Ids::None),
        (
            "UPDATE t SET a = IF(b = 'x', CONCAT(b, 1), COALESCE(b, 2)) ORDER BY id",
            Ids::None,
        ),
        ("DELETE FROM t WHERE a BETWEEN 1 AND 2", Ids::None),
        ("DELETE FROM `s`.`t` WHERE id = 1", Ids::None),
    ] {
        let inline = inline_of(text, &view());
        assert_eq!((inline.ids, inline.matched_rows), (ids, None), "{text}");
        assert_eq!(inline.context, Context::default(), "{text}");
        assert_eq!(inline.active, Side::Source);
    }
}

#[test]
fn context_of_inline_writes() {
    let of = |text| inline_of(text, &view()).context;
    assert!(of("UPDATE t SET b = NOW()").time);
    assert!(of("UPDATE t SET b = CURRENT_TIMESTAMP WHERE id = 1").time);
    assert!(of("INSERT INTO stamped (a) VALUES (1)").time);
    assert!(of("UPDATE stamped SET a = 1").time);
    assert!(!of("DELETE FROM stamped WHERE a = 1").time);
    assert!(of("INSERT INTO t (a) VALUES (LAST_INSERT_ID())").last_insert_id);
    assert!(!of("UPDATE t SET a = LAST_INSERT_ID(a + 1)").last_insert_id);
    assert!(of("INSERT INTO t (a) VALUES (RAND())").rand);
    assert!(of("UPDATE t SET a = RAND() WHERE id = 1").rand);
    assert!(of("UPDATE t SET a = @x").user_variables);
}

#[test]
fn deferred_whatever_the_isolation() {
    for isolation in [Isolation::RepeatableRead, Isolation::ReadCommitted] {
        let view = SessionView {
            isolation,
            ..view()
        };
        for (text, reason) in [
            (
                "INSERT INTO t (id, a) VALUES (NULL, 1), (7, 2)",
                "mixed_ids",
            ),
            ("INSERT INTO t (id) VALUES (1 + 1)", "mixed_ids"),
            ("INSERT INTO t (id) VALUES (?)", "mixed_ids"),
            ("INSERT INTO t (a) VALUES (1) RETURNING id", "returning"),
            ("DELETE FROM t WHERE id = 1 RETURNING a", "returning"),
            ("INSERT INTO t SELECT * FROM u", "not_row_local"),
            ("REPLACE INTO t SELECT * FROM u", "not_row_local"),
            ("INSERT INTO t TABLE u", "not_row_local"),
            ("LOAD DATA INFILE 'x' INTO TABLE t", "not_row_local"),
            ("UPDATE t SET a = (SELECT MAX(a) FROM u)", "not_row_local"),
            (
                "DELETE FROM t WHERE id IN (SELECT id FROM u)",
                "not_row_local",
            ),
            ("UPDATE t JOIN u USING (id) SET t.a = u.a", "not_row_local"),
            ("DELETE t FROM t WHERE id = 1", "not_row_local"),
            (
                "WITH c AS (SELECT 1) DELETE FROM t WHERE a = 1",
                "not_row_local",
            ),
            ("DELETE FROM t WHERE id = 1 LIMIT 1", "limit"),
            ("UPDATE t SET a = 1 ORDER BY id LIMIT 5", "limit"),
            ("INSERT IGNORE INTO t (a) VALUES (1)", "ignore"),
            ("UPDATE IGNORE t SET a = 1", "ignore"),
            ("INSERT INTO t (a) VALUES (UUID())", "unsafe_function"),
            ("UPDATE t SET b = SYSDATE()", "unsafe_function"),
            ("UPDATE t SET a = SLEEP(1)", "unsafe_function"),
            ("UPDATE t SET b = USER()", "unsafe_function"),
            ("UPDATE t SET b = CURRENT_USER", "unsafe_function"),
            ("UPDATE t SET b = LOAD_FILE('x')", "unsafe_function"),
            ("INSERT INTO t (a) VALUES (NEXTVAL(q))", "unsafe_function"),
            (
                "INSERT INTO t (a) VALUES (NEXT VALUE FOR q)",
                "unsafe_function",
            ),
            ("UPDATE t SET a = @@server_id", "system_variable"),
            ("UPDATE t SET a = ROW_COUNT()", "diagnostics"),
            ("UPDATE t SET a = (@n := @n + 1)", "user_variable_write"),
            ("UPDATE t SET a = f(1)", "unknown_function"),
            ("UPDATE t SET a = RAND()", "rand_row_order"),
            ("CALL p()", "not_understood"),
            ("EXECUTE x", "not_understood"),
            ("FROBNICATE t", "not_understood"),
            (
                "INSERT INTO t (a) VALUES (1); DELETE FROM u",
                "multi_statement",
            ),
            (
                "INSERT /*+ SET_VAR(foreign_key_checks=OFF) */ INTO t (a) VALUES (1)",
                "executable_comment",
            ),
            (
                "INSERT INTO t (a) VALUES (1) /*!50000 , (2) */",
                "executable_comment",
            ),
            ("UPDATE t SET a = 'x", "not_understood"),
            ("INSERT INTO trig (a) VALUES (1)", "trigger"),
            ("DELETE FROM myisam WHERE id = 1", "not_transactional"),
            ("DELETE FROM v WHERE id = 1", "view"),
            ("INSERT INTO vol (a) VALUES (1)", "volatile_default"),
            ("DELETE FROM half WHERE id = 1", "table_shape_unknown"),
            ("DELETE FROM nowhere WHERE id = 1", "table_shape_unknown"),
            ("EXPLAIN ANALYZE DELETE FROM t", "not_understood"),
        ] {
            assert_eq!(deferred_of(text, &view), reason, "{text}");
        }
    }
    for (text, reason) in [
        (
            "REPLACE INTO two (id, a) VALUES (1, 1)",
            "several_unique_keys",
        ),
        (
            "INSERT INTO two (id, a) VALUES (1, 1) ON DUPLICATE KEY UPDATE a = 2",
            "several_unique_keys",
        ),
        ("REPLACE INTO t (a) VALUES (1)", "upsert_generated_ids"),
        (
            "INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = 2",
            "upsert_generated_ids",
        ),
    ] {
        assert_eq!(deferred_of(text, &view()), reason, "{text}");
    }
}

#[test]
fn below_repeatable_read() {
    let rc = SessionView {
        isolation: Isolation::ReadCommitted,
        ..view()
    };
    for (text, rows) in [
        ("INSERT INTO t (a) VALUES (1)", None),
        ("UPDATE t SET a = 1 WHERE id = 5", Some(1)),
        ("DELETE FROM t WHERE id IN (1, 2, 3)", Some(3)),
        (
            "UPDATE pair SET b = 'x' WHERE id = 1 AND a IN (1, 2)",
            Some(2),
        ),
        ("DELETE FROM textkey WHERE b = 'x'", Some(1)),
    ] {
        assert_eq!(inline_of(text, &rc).matched_rows, rows, "{text}");
    }
    for text in [
        "REPLACE INTO t (id, a) VALUES (5, 1)",
        "INSERT INTO t (id, a) VALUES (5, 1) ON DUPLICATE KEY UPDATE a = 1",
        "UPDATE t SET a = 1",
        "UPDATE t SET a = 1 WHERE a = 5",
        "UPDATE t SET a = 1 WHERE id = 5 AND a = 2",
        "UPDATE t SET a = 1 WHERE id > 5",
        "UPDATE t SET a = 1 WHERE id = 5 OR id = 6",
        "DELETE FROM pair WHERE id = 1",
        "DELETE FROM textkey WHERE b = 5",
    ] {
        assert_eq!(deferred_of(text, &rc), "isolation", "{text}");
    }
}

struct Bound(&'static [&'static str]);

impl Parameters for Bound {
    fn is_null(&self, i: usize) -> bool {
        self.0.get(i) == Some(&"null")
    }
    fn is_zero(&self, i: usize) -> bool {
        self.0.get(i) == Some(&"0")
    }
    fn is_text(&self, i: usize) -> bool {
        self.0.get(i).is_some_and(|v| v.starts_with('\''))
    }
    fn is_integer(&self, i: usize) -> bool {
        self.0.get(i).is_some_and(|v| v.parse::<i64>().is_ok())
    }
}

#[test]
fn ids_of_bound_values() {
    let text = "INSERT INTO t (a, id) VALUES (?, ?), (?, ?)";
    let facts = sql::scan(text.as_bytes(), view().mode);
    let with = |bound: &Bound, zero_is_zero| {
        let view = SessionView {
            no_auto_value_on_zero: zero_is_zero,
            ..view()
        };
        plan(
            text.as_bytes(),
            &facts,
            &view,
            &mirrored(),
            &catalog(),
            Some(bound),
        )
        .plan
    };
    let ids = |bound, zero| match with(bound, zero) {
        Plan::Inline(i) => Some(i.ids),
        _ => None,
    };
    assert_eq!(
        ids(&Bound(&["1", "null", "1", "0"]), false),
        Some(Ids::Generated)
    );
    assert_eq!(ids(&Bound(&["1", "7", "1", "8"]), false), Some(Ids::Given));
    assert_eq!(ids(&Bound(&["1", "7", "1", "null"]), false), None);
    assert_eq!(ids(&Bound(&["1", "7", "1", "0"]), true), Some(Ids::Given));
}

#[test]
fn session_state_defers() {
    let temporary = [TemporaryTable {
        database: b"s".to_vec(),
        name: b"u".to_vec(),
        side: Side::Source,
    }];
    for (view, reason) in [
        (
            SessionView {
                poisoned: true,
                ..view()
            },
            "transaction_deferred",
        ),
        (
            SessionView {
                locked_tables: true,
                ..view()
            },
            "locked_tables",
        ),
        (SessionView { xa: true, ..view() }, "xa"),
        (
            SessionView {
                log_bin_off: true,
                ..view()
            },
            "log_bin_off",
        ),
        (
            SessionView {
                other_leg: false,
                ..view()
            },
            "no_other_leg",
        ),
    ] {
        assert_eq!(deferred_of("UPDATE t SET a = 1", &view), reason);
    }
    let view = SessionView {
        temporary_tables: &temporary,
        ..view()
    };
    let own = decide("UPDATE u SET a = 1", &view, &mirrored());
    assert_eq!(own.plan, Plan::Active(Side::Source));
    let table = mirrored();
    table.routes[0]
        .live
        .suspended
        .store(true, std::sync::atomic::Ordering::Release);
    let p = decide("UPDATE t SET a = 1", &view, &table);
    assert_eq!(
        (p.plan, p.reason),
        (Plan::Deferred(Side::Source), Reason::SUSPENDED)
    );
}

#[test]
fn phases_without_mirroring() {
    for (phase, side) in [
        (Phase::SourceOnly, Side::Source),
        (Phase::Syncing, Side::Source),
        (Phase::TargetOnly, Side::Target),
        (Phase::Done, Side::Target),
    ] {
        let table = table_of(vec![route("r", &["s.*"], phase)]);
        for text in [
            "INSERT INTO t SELECT * FROM u",
            "UPDATE t SET a = 1",
            "CALL p()",
        ] {
            let p = decide(text, &view(), &table);
            assert_eq!(p.plan, Plan::Active(side), "{text} {phase}");
            assert_ne!(p.routes, 0);
        }
        let p = decide("SELECT * FROM t", &view(), &table);
        assert_eq!((p.plan, p.routes), (Plan::Active(side), 0));
    }
}

#[test]
fn reads_by_split() {
    let table = |percent, by, phase| {
        let mut r = route("r", &["s.*"], phase);
        r.reads_percent = percent;
        r.reads_by = by;
        table_of(vec![r])
    };
    let view = SessionView {
        read_bucket: 30,
        statement_bucket: 70,
        ..view()
    };
    let target = Plan::MirrorRead(Side::Target);
    let first = Phase::SourceFirst;
    let read = |t: &RouteTable| decide("SELECT COUNT(*) FROM t JOIN u USING (id)", &view, t).plan;
    assert_eq!(
        read(&table(30, ReadsBy::Session, first)),
        Plan::Active(Side::Source)
    );
    assert_eq!(read(&table(31, ReadsBy::Session, first)), target);
    assert_eq!(
        read(&table(31, ReadsBy::Statement, first)),
        Plan::Active(Side::Source)
    );
    assert_eq!(read(&table(100, ReadsBy::Statement, first)), target);
    assert_eq!(
        read(&table(0, ReadsBy::Session, Phase::TargetFirst)),
        Plan::MirrorRead(Side::Source)
    );
    let all = table(100, ReadsBy::Session, first);
    for text in [
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t LOCK IN SHARE MODE",
        "SELECT @x FROM t",
        "SELECT LAST_INSERT_ID() FROM t",
        "SELECT GET_LOCK('a', 1) FROM t",
        "SELECT f(a) FROM t",
        "SELECT * FROM v",
        "SELECT * FROM half",
        "SELECT * FROM other.x, t",
        "SELECT * FROM t INTO OUTFILE '/x'",
        "SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1",
        "SHOW CREATE TABLE t",
        "SELECT 1",
        "SELECT * FROM t; SELECT * FROM u",
    ] {
        assert_eq!(
            decide(text, &view, &all).plan,
            Plan::Active(Side::Source),
            "{text}"
        );
    }
    let within = SessionView {
        in_transaction: true,
        ..view
    };
    let p = decide("SELECT * FROM t", &within, &all);
    assert_eq!((p.plan, p.routes), (Plan::Active(Side::Source), 1));
    assert_eq!(decide("SELECT * FROM t FOR UPDATE", &view, &all).routes, 1);
    assert_eq!(decide("SELECT f(a) FROM t", &view, &all).routes, ALL_ROUTES);
    all.routes[0]
        .live
        .suspended
        .store(true, std::sync::atomic::Ordering::Release);
    let p = decide("SELECT * FROM t", &view, &all);
    assert_eq!(
        (p.plan, p.reason),
        (Plan::Active(Side::Source), Reason::SUSPENDED)
    );
}

#[test]
fn several_routes() {
    let table = table_of(vec![
        route("a", &["s.t"], Phase::SourceFirst),
        route("b", &["s.u"], Phase::TargetFirst),
    ]);
    let mixed = |a, b| Plan::RefusedMixed { a, b };
    let plan = |text| decide(text, &view(), &table).plan;
    assert_eq!(plan("SELECT * FROM t, u"), mixed(Some(0), Some(1)));
    assert_eq!(
        plan("INSERT INTO u SELECT * FROM other.x"),
        mixed(Some(1), None)
    );
    assert_eq!(
        plan("SELECT * FROM u, information_schema.tables"),
        Plan::Active(Side::Target)
    );
    assert_eq!(plan("SELECT * FROM other.x, t"), Plan::Active(Side::Source));
    assert_eq!(plan("SELECT 1"), Plan::Active(Side::Source));
    assert_eq!(plan("UPDATE other.x SET a = 1"), Plan::Active(Side::Source));
    assert_eq!(
        decide("UPDATE other.x SET a = 1", &view(), &table).routes,
        0
    );
    assert!(matches!(
        plan("UPDATE u SET a = 1"),
        Plan::Inline(Inline {
            active: Side::Target,
            ..
        })
    ));
    assert_eq!(
        plan("SET @x = (SELECT MAX(a) FROM u)"),
        Plan::Active(Side::Target)
    );
}

#[test]
fn definitions() {
    let mut table = mirrored();
    let plan = |text, table: &RouteTable| decide(text, &view(), table).plan;
    let both = Plan::Ddl {
        active: Side::Source,
        both: true,
    };
    for text in [
        "ALTER TABLE t ADD COLUMN c INT",
        "CREATE TABLE new (id INT)",
        "DROP TABLE t",
        "TRUNCATE t",
        "CREATE INDEX i ON t (a)",
        "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
        "RENAME TABLE t TO t2",
        "DROP DATABASE s",
        "DROP TRIGGER x",
    ] {
        assert_eq!(plan(text, &table), both, "{text}");
        assert_eq!(decide(text, &view(), &table).routes, 1);
    }
    for text in [
        "CREATE TEMPORARY TABLE tmp (id INT)",
        "CREATE TABLE other.x (id INT)",
        "DROP DATABASE other",
        "CREATE USER 'a'@'%'",
        "GRANT SELECT ON s.* TO u",
    ] {
        assert_eq!(plan(text, &table), Plan::Active(Side::Source), "{text}");
    }
    table.routes[0].ddl = DdlPolicy::Refuse;
    assert_eq!(
        plan("DROP TABLE t", &table),
        Plan::Ddl {
            active: Side::Source,
            both: false
        }
    );
}
