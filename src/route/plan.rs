//! The routing decision: a pure function of the statement's facts, the
//! session's view, the route table and the catalog (DESIGN §4, §5).

use super::table::{ALL_ROUTES, RouteMask, RouteTable};
use crate::Side;
use crate::rows::shape::Catalog;
use crate::sql::{Facts, Isolation, ScanMode};

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
    /// Temporary tables of the session: schema, name.
    pub temporary_tables: &'a [(Vec<u8>, Vec<u8>)],
    /// The other leg can be opened.
    pub other_leg: bool,
    /// How the text was scanned.
    pub mode: ScanMode,
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

/// A write that is executed on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inline {
    /// The side whose answer counts.
    pub active: Side,
    /// What must be the same on both sides.
    pub context: Context,
    /// Where ids come from.
    pub ids: Ids,
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

/// Decides.
pub fn plan(
    sql: &[u8],
    facts: &Facts,
    view: &SessionView<'_>,
    table: &RouteTable,
    catalog: &Catalog,
    parameters: Option<&dyn Parameters>,
) -> Planned {
    let _ = (sql, facts, view, catalog, parameters);
    Planned {
        plan: Plan::Deferred(table.home()),
        routes: ALL_ROUTES,
        route: None,
        reason: Reason("not_understood"),
    }
}
