//! The routing decision: a pure function of the statement's facts, the
//! session's view, the route table and the catalog (DESIGN §4, §5).

use super::table::{
    ALL_ROUTES, DdlPolicy, ReadsBy, Route, RouteMask, RouteTable, TableGlob, route_bit,
};
use crate::Side;
use crate::rows::shape::{Catalog, TableShape};
use crate::sql::{
    Class, EqValue, Facts, Flags, InsertShape, Isolation, KeyedShape, ScanMode, ValueKind, Verb,
    WriteShape, unquote,
};

/// What the plan needs to know about the session.
#[derive(Clone, Copy)]
pub struct SessionView<'a> {
    /// Current schema.
    pub database: Option<&'a [u8]>,
    /// A transaction is open, or autocommit is off.
    pub in_transaction: bool,
    /// Isolation of the transaction the statement runs in.
    pub isolation: Isolation,
    /// The rest of this transaction is deferred.
    pub poisoned: bool,
    /// LOCK TABLES or FLUSH TABLES WITH READ LOCK is in force.
    pub locked_tables: bool,
    /// An XA transaction is open.
    pub xa: bool,
    /// `sql_log_bin=0`.
    pub log_bin_off: bool,
    /// sql_mode has NO_AUTO_VALUE_ON_ZERO.
    pub no_auto_value_on_zero: bool,
    /// The session's place for reads by session, 0 to 99.
    pub read_bucket: u8,
    /// The statement's place for reads by statement, 0 to 99.
    pub statement_bucket: u8,
    /// Temporary tables of the session.
    pub temporary_tables: &'a [TemporaryTable],
    /// `timestamp` is the client's own.
    pub own_timestamp: bool,
    /// SET TRANSACTION waits for the next transaction.
    pub one_shot: bool,
    /// MariaDB's sql_mode=ORACLE, whose grammar the scanner does not know.
    pub oracle_mode: bool,
    /// The other leg can be opened.
    pub other_leg: bool,
    /// How the text was scanned.
    pub mode: ScanMode,
}

/// A temporary table of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemporaryTable {
    /// Its schema.
    pub database: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// The side it is on.
    pub side: Side,
}

/// Values bound to a prepared statement.
pub trait Parameters {
    /// The i-th value is NULL.
    fn is_null(&self, i: usize) -> bool;
    /// An AUTO_INCREMENT column would take the i-th value for "generate"
    /// (0, '0', '', what converts to 0). When in doubt, true.
    fn is_zero(&self, i: usize) -> bool;
    /// The i-th value was sent as a string type (CHAR, VARCHAR, BLOB, …).
    fn is_text(&self, i: usize) -> bool;
    /// The i-th value is an integer, or a text that is one, digit by digit.
    fn is_integer(&self, i: usize) -> bool;
}

/// Whether a text is an integer, digit by digit.
pub fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Values a mirrored statement needs besides its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// `timestamp`.
    pub time: bool,
    /// RAND_SEED1/2.
    pub rand: bool,
    /// LAST_INSERT_ID() is read.
    pub last_insert_id: bool,
    /// User variables are read.
    pub user_variables: bool,
}

/// Where the AUTO_INCREMENT values of a mirrored statement come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ids {
    /// The statement makes none.
    #[default]
    None,
    /// The server generates all: INSERT_ID from the active side's OK.
    Generated,
    /// The statement gives all.
    Given,
}

/// Whether a write may be executed on both sides at once, or on the active side
/// first like all others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ahead {
    /// Never.
    No,
    /// While no write that searches is open on the mirror: it changes one row, by
    /// its primary key, and entries of indexes that only those lock.
    Unsearched,
    /// It locks one record of one index at most, on either side.
    Yes,
}

/// A write that is executed on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inline {
    /// The side whose answer counts.
    pub active: Side,
    /// What must be the same on both sides.
    pub context: Context,
    /// Where ids come from.
    pub ids: Ids,
    /// Whether the mirror need not wait for the active side's answer. Never if
    /// there is a context: it would be of that answer.
    pub ahead: Ahead,
    /// It finds its rows by something else than the primary key: on its way it may
    /// lock any part of any index.
    pub searches: bool,
    /// Below REPEATABLE READ: mirror only if exactly so many rows matched.
    pub matched_rows: Option<u64>,
}

/// What to do with a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Execute on this side, which is active for it.
    Active(Side),
    /// A read on the side that is not active.
    MirrorRead(Side),
    /// A write on both sides.
    Inline(Inline),
    /// A write on the active side that the follower brings over.
    Deferred(Side),
    /// Its tables' active sides differ: refuse. Indexes of two routes; None
    /// is an unrouted table.
    RefusedMixed {
        /// first route
        a: Option<usize>,
        /// second route
        b: Option<usize>,
    },
    /// DDL on a table of a route in a mirrored phase.
    Ddl {
        /// the active side
        active: Side,
        /// run on both sides; else refuse
        both: bool,
    },
}

/// Why, as a label for metrics and `explain`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reason(pub(crate) &'static str);

impl Reason {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// A plan with what it needs of the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// What to do.
    pub plan: Plan,
    /// Routes whose gate the statement must hold; 0 for autocommit plain reads.
    pub routes: RouteMask,
    /// The first route it touches (of a write: the written table's).
    pub route: Option<usize>,
    /// Why.
    pub reason: Reason,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        impl Reason { $($(#[$doc])* pub const $name: Reason = Reason($text);)* }
    };
}

reasons! {
    /// Every route is source_only.
    PASSIVE = "passive";
    /// Names no table.
    NO_TABLE = "no_table";
    /// Its tables are not routed.
    UNROUTED = "unrouted";
    /// Changes the session or the transaction only.
    SESSION = "session";
    /// The route is not mirrored in this phase.
    PHASE = "phase";
    /// A read by the route's split.
    SPLIT = "split";
    /// A read in a transaction.
    IN_TRANSACTION = "in_transaction";
    /// A read that needs the active side's session or locks.
    NEEDS_ACTIVE = "needs_active";
    /// May call a stored function.
    UNKNOWN_FUNCTION = "unknown_function";
    /// The mirror is suspended.
    SUSPENDED = "suspended";
    /// DDL changes the route's tables at this moment.
    BEING_ALTERED = "being_altered";
    /// Tables' active sides differ.
    MIXED = "mixed_sides";
    /// A definition of a routed table.
    DDL = "ddl";
    /// CALL, EXECUTE, compound or unknown.
    UNKNOWN = "not_understood";
    /// Several statements in one text.
    MULTI_STATEMENT = "multi_statement";
    /// A temporary table.
    TEMPORARY = "temporary_table";
    /// A write on both sides.
    MIRRORED = "mirrored";
    /// An earlier statement of the transaction was deferred.
    POISONED = "transaction_deferred";
    /// LOCK TABLES, FTWRL.
    LOCKED = "locked_tables";
    /// An XA transaction.
    XA = "xa";
    /// GET_LOCK and its like.
    USER_LOCK = "user_level_lock";
    /// A grammar the scanner does not know.
    SQL_MODE = "sql_mode";
    /// The session's `timestamp`, or a pending SET TRANSACTION.
    ONE_SHOT = "session_value";
    /// sql_log_bin=0.
    LOG_BIN_OFF = "log_bin_off";
    /// No other leg.
    NO_OTHER_LEG = "no_other_leg";
    /// Subquery, join, multi-table form.
    NOT_ROW_LOCAL = "not_row_local";
    /// LIMIT.
    LIMIT = "limit";
    /// IGNORE.
    IGNORE = "ignore";
    /// RETURNING.
    RETURNING = "returning";
    /// A function that differs between servers.
    UNSAFE_FUNCTION = "unsafe_function";
    /// `@x := …`.
    USER_VARIABLE_WRITE = "user_variable_write";
    /// `@@x`.
    SYSTEM_VARIABLE = "system_variable";
    /// Reads diagnostics.
    DIAGNOSTICS = "diagnostics";
    /// An executable comment or a hint.
    COMMENT = "executable_comment";
    /// RAND() over an unknown order of rows.
    RAND = "rand_row_order";
    /// The catalog lacks the table on a side.
    NO_SHAPE = "table_shape_unknown";
    /// Not InnoDB.
    ENGINE = "not_transactional";
    /// A trigger.
    TRIGGER = "trigger";
    /// A view.
    VIEW = "view";
    /// A default that differs between servers.
    VOLATILE_DEFAULT = "volatile_default";
    /// REPLACE or upsert with several unique keys.
    SEVERAL_KEYS = "several_unique_keys";
    /// REPLACE or upsert that generates ids.
    UPSERT_IDS = "upsert_generated_ids";
    /// Some ids given, some generated, or not known.
    MIXED_IDS = "mixed_ids";
    /// Below REPEATABLE READ, not by a full unique key.
    ISOLATION = "isolation";
}

/// What the statement's tables say together.
struct Touched {
    /// Bits of the routes.
    mask: RouteMask,
    /// The first routed table's route.
    first: Option<usize>,
    /// Any table outside all routes.
    unrouted: bool,
    /// Any temporary table.
    temporary: bool,
    /// The first table, which a write writes, is one.
    temporary_first: bool,
    /// Routes of both active sides, or a routed table active on the target
    /// beside an unrouted one.
    mixed: Option<(Option<usize>, Option<usize>)>,
    /// Where it goes.
    side: Side,
    /// Any route in a mirrored phase.
    mirrored: bool,
}

/// Schemas every server has of its own: they go along with anything.
fn is_system_schema(db: &[u8]) -> bool {
    [
        &b"information_schema"[..],
        b"performance_schema",
        b"sys",
        b"mysql",
    ]
    .iter()
    .any(|s| s.eq_ignore_ascii_case(db))
}

fn touched(sql: &[u8], facts: &Facts, view: &SessionView<'_>, table: &RouteTable) -> Touched {
    let mut t = Touched {
        mask: 0,
        first: None,
        unrouted: false,
        temporary: false,
        temporary_first: false,
        mixed: None,
        side: table.home(),
        mirrored: false,
    };
    let mut temporary_side = None;
    for (index, (db, name)) in facts.tables.iter(sql).enumerate() {
        let Some(db) = db.as_deref().or(view.database) else {
            t.unrouted = true;
            continue;
        };
        // Neither routed nor unrouted, whatever hides behind it: it lives on
        // one server, and joins what is there.
        let own = view
            .temporary_tables
            .iter()
            .find(|own| same(&own.database, db, table) && same(&own.name, &name, table));
        let made =
            facts.flags.has(Flags::TEMPORARY) && (index == 0 || facts.verb == Verb::DropTable);
        if own.is_some() || made {
            t.temporary = true;
            t.temporary_first |= index == 0;
            let side = own.map_or_else(|| side_of_schema(table, db), |own| Some(own.side));
            temporary_side = temporary_side.or(side);
            continue;
        }
        match table.route_of(db, &name) {
            Some(route) => add_route(&mut t, table, route),
            None if is_system_schema(db) => {}
            None => t.unrouted = true,
        }
    }
    if schema_wide(facts.verb) {
        let db = facts.database.map(|d| unquote(d.of(sql)));
        let db = db.as_deref().or(view.database);
        for (index, route) in table.routes.iter().enumerate() {
            if db.is_none_or(|db| schema_matches(route, db, table.fold_names)) {
                add_route(&mut t, table, index);
            }
        }
    }
    if t.unrouted {
        if t.first.is_some() && t.side == Side::Target {
            t.mixed = t.mixed.or(Some((t.first, None)));
        }
        t.side = Side::Source;
    } else if t.first.is_none()
        && let Some(side) = temporary_side
    {
        t.side = side;
    }
    t
}

/// Where a new temporary table can be joined with the schema's routed tables.
fn side_of_schema(table: &RouteTable, db: &[u8]) -> Option<Side> {
    let mut routes = table
        .routes
        .iter()
        .filter(|r| schema_matches(r, db, table.fold_names));
    let side = routes.next()?.phase.active();
    routes.all(|r| r.phase.active() == side).then_some(side)
}

/// Statements after which a session may have what cannot be moved: while they
/// run, every route is held, so that no drain misses it.
pub fn may_pin(facts: &Facts) -> bool {
    matches!(facts.verb, Verb::LockTables | Verb::Handler | Verb::Xa)
        || facts
            .flags
            .any(Flags::TEMPORARY.with(Flags::FLUSH_READ_LOCK))
}

/// The side of user-level locks: the source until it may be retired, so that
/// all sessions agree on who holds which.
pub fn lock_side(table: &RouteTable) -> Side {
    let done = |r: &Route| r.phase == super::table::Phase::Done;
    if !table.routes.is_empty() && table.routes.iter().all(done) {
        Side::Target
    } else {
        Side::Source
    }
}

fn same(a: &[u8], b: &[u8], table: &RouteTable) -> bool {
    a == b || (table.fold_names && a.eq_ignore_ascii_case(b))
}

/// Statements that reach tables of a schema without naming them.
fn schema_wide(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::CreateDatabase | Verb::DropDatabase | Verb::AlterDatabase | Verb::DropTrigger
    )
}

fn schema_matches(route: &Route, db: &[u8], fold: bool) -> bool {
    route.tables.iter().any(|glob| {
        let any = TableGlob {
            database: glob.database.clone(),
            table: b"*".to_vec(),
        };
        any.matches(db, b"x", fold)
    })
}

fn add_route(t: &mut Touched, table: &RouteTable, index: usize) {
    let Some(route) = table.routes.get(index) else {
        return;
    };
    let side = route.phase.active();
    t.mask |= route_bit(index);
    t.mirrored |= route.phase.mirrored();
    match t.first {
        None => {
            t.first = Some(index);
            t.side = side;
        }
        Some(first) if side != t.side => t.mixed = t.mixed.or(Some((Some(first), Some(index)))),
        Some(_) => {}
    }
}

/// Decides.
pub fn plan(
    sql: &[u8],
    facts: &Facts,
    view: &SessionView<'_>,
    table: &RouteTable,
    catalog: &Catalog,
    parameters: Option<&dyn Parameters>,
) -> Planned {
    if table.passive {
        return Planned {
            plan: Plan::Active(table.home()),
            routes: 0,
            route: None,
            reason: Reason::PASSIVE,
        };
    }
    let t = touched(sql, facts, view, table);
    if facts.flags.has(Flags::GET_LOCK) && facts.tables.is_empty() && facts.class < Class::Write {
        return Planned {
            plan: Plan::Active(lock_side(table)),
            routes: 0,
            route: None,
            reason: Reason::USER_LOCK,
        };
    }
    if let Some((a, b)) = t.mixed {
        return Planned {
            plan: Plan::RefusedMixed { a, b },
            routes: 0,
            route: t.first,
            reason: Reason::MIXED,
        };
    }
    let may_write_anything = facts
        .flags
        .any(Flags::UNKNOWN_FUNCTION.with(Flags::OVERFLOW));
    if view.oracle_mode && facts.class > Class::Read {
        return anything(table, &t, Reason::SQL_MODE);
    }
    if facts.statements > 1 && facts.class > Class::Read {
        return anything(table, &t, Reason::MULTI_STATEMENT);
    }
    match facts.class {
        Class::Unknown => anything(table, &t, Reason::UNKNOWN),
        Class::Read if facts.verb == Verb::Do && may_write_anything => {
            anything(table, &t, Reason::UNKNOWN_FUNCTION)
        }
        Class::Read => read(sql, facts, view, table, catalog, &t),
        Class::Session | Class::Transaction | Class::Admin => Planned {
            plan: Plan::Active(t.side),
            routes: if may_write_anything {
                ALL_ROUTES
            } else {
                t.mask
            },
            route: t.first,
            reason: Reason::SESSION,
        },
        Class::Ddl => writes::ddl(facts, table, &t),
        Class::Write if may_write_anything => anything(table, &t, Reason::UNKNOWN_FUNCTION),
        Class::Write => writes::write(sql, facts, view, table, catalog, parameters, &t),
    }
}

/// May write any table: on the active side, all gates held, deferred if any
/// route is mirrored.
fn anything(table: &RouteTable, t: &Touched, reason: Reason) -> Planned {
    let mirrored = table.routes.iter().any(|r| r.phase.mirrored());
    Planned {
        plan: if mirrored {
            Plan::Deferred(t.side)
        } else {
            Plan::Active(t.side)
        },
        routes: ALL_ROUTES,
        route: t.first,
        reason,
    }
}

/// Reads that only the active side answers as the application expects.
const ACTIVE_READ: Flags = Flags::LOCKING_READ
    .with(Flags::USER_VARIABLE_READ)
    .with(Flags::USER_VARIABLE_WRITE)
    .with(Flags::UNSAFE_FUNCTION)
    .with(Flags::LAST_INSERT_ID)
    .with(Flags::LAST_INSERT_ID_SET)
    .with(Flags::FOUND_ROWS)
    .with(Flags::ROW_COUNT)
    .with(Flags::SYSTEM_VARIABLE)
    .with(Flags::GET_LOCK)
    .with(Flags::SELECT_INTO)
    .with(Flags::EXECUTABLE_COMMENT)
    .with(Flags::CALC_FOUND_ROWS)
    .with(Flags::DIAGNOSTICS)
    .with(Flags::UNTERMINATED)
    .with(Flags::OVERFLOW)
    .with(Flags::SEQUENCE)
    .with(Flags::SYSTEM_TIME)
    .with(Flags::INDEX_HINT)
    .with(Flags::PARTITION)
    .with(Flags::SET_STATEMENT)
    .with(Flags::ODD);

fn read(
    sql: &[u8],
    facts: &Facts,
    view: &SessionView<'_>,
    table: &RouteTable,
    catalog: &Catalog,
    t: &Touched,
) -> Planned {
    let mut out = Planned {
        plan: Plan::Active(t.side),
        routes: 0,
        route: t.first,
        reason: Reason::SPLIT,
    };
    if view.in_transaction || facts.flags.any(Flags::LOCKING_READ) {
        out.routes = t.mask;
    }
    // Both may write.
    if facts
        .flags
        .any(Flags::UNKNOWN_FUNCTION.with(Flags::SEQUENCE))
    {
        out.routes = ALL_ROUTES;
        out.reason = Reason::UNKNOWN_FUNCTION;
        return out;
    }
    let settled = if facts.tables.is_empty() {
        Some(Reason::NO_TABLE)
    } else if t.unrouted || t.first.is_none() {
        Some(Reason::UNROUTED)
    } else if t.temporary {
        Some(Reason::TEMPORARY)
    } else if view.in_transaction {
        Some(Reason::IN_TRANSACTION)
    } else if view.locked_tables
        || view.xa
        || view.oracle_mode
        || view.poisoned
        || facts.flags.any(ACTIVE_READ)
        || facts.statements > 1
        || !matches!(facts.verb, Verb::Select | Verb::Table)
    {
        Some(Reason::NEEDS_ACTIVE)
    } else if view.one_shot || (view.own_timestamp && facts.flags.any(Flags::TIME_FUNCTION)) {
        Some(Reason::ONE_SHOT)
    } else if !view.other_leg {
        Some(Reason::NO_OTHER_LEG)
    } else {
        None
    };
    if let Some(reason) = settled {
        out.reason = reason;
        return out;
    }
    let mut wanted = None;
    for (index, route) in table.routes.iter().enumerate() {
        if t.mask & route_bit(index) == 0 {
            continue;
        }
        let (side, reason) = read_side(route, view);
        if side == t.side || wanted.is_some_and(|w| w != side) {
            out.reason = reason;
            return out;
        }
        wanted = Some(side);
    }
    match wanted {
        Some(_) if !readable_on_both(sql, facts, view, catalog) => out.reason = Reason::NO_SHAPE,
        Some(side) => out.plan = Plan::MirrorRead(side),
        None => {}
    }
    out
}

/// Where this route's split sends a read.
fn read_side(route: &Route, view: &SessionView<'_>) -> (Side, Reason) {
    let active = route.phase.active();
    if !route.phase.mirrored() {
        return (active, Reason::PHASE);
    }
    let bucket = match route.reads_by {
        ReadsBy::Session => view.read_bucket,
        ReadsBy::Statement => view.statement_bucket,
    };
    let wanted = if bucket < route.reads_percent {
        Side::Target
    } else {
        Side::Source
    };
    if wanted != active && route.suspended() {
        return (active, Reason::SUSPENDED);
    }
    if wanted != active && route.being_altered() {
        return (active, Reason::BEING_ALTERED);
    }
    (wanted, Reason::SPLIT)
}

/// Each table is a base table on both sides.
fn readable_on_both(sql: &[u8], facts: &Facts, view: &SessionView<'_>, catalog: &Catalog) -> bool {
    facts.tables.iter(sql).all(|(db, name)| {
        let Some(db) = db.as_deref().or(view.database) else {
            return false;
        };
        let Some(pair) = catalog.get(db, &name) else {
            return false;
        };
        [Side::Source, Side::Target]
            .into_iter()
            .all(|side| pair.on(side).is_some_and(|shape| !shape.is_view))
    })
}

mod writes;

#[cfg(test)]
mod tests;
