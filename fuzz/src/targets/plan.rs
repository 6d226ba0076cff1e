//! From text to plan: whatever the statement and the session, no plan does
//! what its reasons forbid.
//!
//! Input: mode, session, phase, the text.

use std::sync::{Arc, LazyLock};

use lockstep::Side;
use lockstep::route::plan::{Parameters, Plan, SessionView, plan};
use lockstep::route::table::{
    Ack, DdlPolicy, DeferredPolicy, Phase, ReadsBy, Route, RouteTable, TableGlob,
};
use lockstep::rows::shape::{Catalog, ColumnShape, KeyShape, TableShape};
use lockstep::sql::{Class, Flags, Isolation, scan};

use crate::Input;

/// Never part of an inline write: it would not do the same on both sides, or
/// not be found by the follower.
const NEVER_INLINE: Flags = Flags::UNSAFE_FUNCTION
    .with(Flags::UNKNOWN_FUNCTION)
    .with(Flags::SEQUENCE)
    .with(Flags::SUBQUERY)
    .with(Flags::LIMIT)
    .with(Flags::IGNORE)
    .with(Flags::RETURNING)
    .with(Flags::SYSTEM_VARIABLE)
    .with(Flags::USER_VARIABLE_WRITE)
    .with(Flags::EXECUTABLE_COMMENT)
    .with(Flags::UNTERMINATED)
    .with(Flags::ODD)
    .with(Flags::OVERFLOW);

fn shape(auto_increment: bool, keys: usize) -> TableShape {
    let column = |name: &str, column_type: &str| ColumnShape {
        name: name.as_bytes().to_vec(),
        column_type: column_type.to_owned(),
        ..ColumnShape::default()
    };
    TableShape {
        engine: "InnoDB".to_owned(),
        transactional: true,
        columns: vec![
            column("id", "bigint"),
            column("a", "int"),
            column("b", "varchar(9)"),
        ],
        auto_increment: auto_increment.then_some(0),
        unique_keys: (0..keys)
            .map(|i| KeyShape {
                name: vec![b'k', i as u8],
                columns: vec![i],
                primary: i == 0,
                all_not_null: true,
            })
            .collect(),
        ..TableShape::default()
    }
}

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let mut catalog = Catalog::new(false);
    for (name, auto, keys) in [("t", true, 1), ("u", false, 2), ("v", false, 0)] {
        for side in [Side::Source, Side::Target] {
            catalog.insert(b"d", name.as_bytes(), side, shape(auto, keys));
        }
    }
    catalog
});

struct Bound(u8);

impl Parameters for Bound {
    fn is_null(&self, i: usize) -> bool {
        self.0 >> (i % 8) & 1 == 1
    }
    fn is_zero(&self, i: usize) -> bool {
        self.0 >> ((i + 3) % 8) & 1 == 1
    }
    fn is_text(&self, i: usize) -> bool {
        self.0 >> ((i + 5) % 8) & 1 == 1
    }
    fn is_integer(&self, i: usize) -> bool {
        self.0 >> ((i + 6) % 8) & 1 == 1
    }
}

fn table(bits: u8) -> RouteTable {
    const PHASES: [Phase; 6] = [
        Phase::SourceOnly,
        Phase::Syncing,
        Phase::SourceFirst,
        Phase::TargetFirst,
        Phase::TargetOnly,
        Phase::Done,
    ];
    let route = |name: &str, glob: &str, phase: Phase| Route {
        name: name.to_owned(),
        tables: TableGlob::parse(glob).into_iter().collect(),
        phase,
        epoch: 1,
        reads_percent: 50,
        reads_by: ReadsBy::default(),
        ack: Ack::default(),
        deferred: DeferredPolicy::default(),
        ddl: DdlPolicy::default(),
        follow: None,
        live: Arc::default(),
    };
    RouteTable {
        routes: vec![
            route("one", "d.t", PHASES[usize::from(bits & 7) % 6]),
            route("two", "d.u", PHASES[usize::from(bits >> 3 & 7) % 6]),
        ],
        ..RouteTable::default()
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = super::scanner::mode(input.byte(), input.byte());
    let (bits, more) = (input.byte(), input.byte());
    let table = table(input.byte());
    let bound = Bound(input.byte());
    let sql = input.0;
    let facts = scan(sql, mode);
    let view = SessionView {
        database: (bits & 1 == 0).then_some(&b"d"[..]),
        in_transaction: bits & 2 != 0,
        isolation: match bits >> 2 & 3 {
            0 => Isolation::ReadUncommitted,
            1 => Isolation::ReadCommitted,
            2 => Isolation::RepeatableRead,
            _ => Isolation::Serializable,
        },
        poisoned: bits & 16 != 0,
        locked_tables: bits & 32 != 0,
        xa: bits & 64 != 0,
        log_bin_off: bits & 128 != 0,
        no_auto_value_on_zero: more & 1 != 0,
        read_bucket: more % 100,
        statement_bucket: more % 100,
        temporary_tables: &[],
        own_timestamp: more & 8 != 0,
        one_shot: more & 16 != 0,
        oracle_mode: more & 32 != 0,
        other_leg: more & 2 == 0,
        mode,
    };
    let parameters = (more & 4 == 0).then_some(&bound as &dyn Parameters);
    let planned = plan(sql, &facts, &view, &table, &CATALOG, parameters);
    match planned.plan {
        Plan::Inline(_) => {
            assert_eq!((facts.class, facts.statements), (Class::Write, 1));
            assert!(
                !facts.flags.any(NEVER_INLINE),
                "inline with {:?}",
                facts.flags
            );
            assert!(!(view.poisoned || view.locked_tables || view.xa || view.log_bin_off));
            assert!(planned.routes != 0, "an inline write holds its route");
        }
        Plan::MirrorRead(_) => {
            assert_eq!((facts.class, facts.statements), (Class::Read, 1));
            assert!(!view.in_transaction && !facts.flags.any(Flags::LOCKING_READ));
        }
        _ => {}
    }
}
