//! The routing table: an immutable snapshot of all routes, swapped as a whole.
//!
//! A session loads the snapshot once per statement; `gate` swaps it. Nothing
//! in here does I/O, and nothing in here changes after it was published,
//! save the counters and the suspension of [`RouteLive`], which are shared by
//! all snapshots of the same route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::Side;

mod healed;
mod searches;
mod turns;

pub use healed::Healed;
pub use searches::{Copying, Searches};
pub use turns::Turns;

/// One bit per route index; bit 63 and above share a bit (safe: a shared bit
/// only makes the gate wait for more).
pub type RouteMask = u64;

/// Every route: held by statements that may write to unknown tables.
pub const ALL_ROUTES: RouteMask = u64::MAX;

/// The largest number of routes a table may hold: one bit each in a
/// [`RouteMask`].
pub const ROUTES_MAX: usize = 64;

/// The mask bit of a route.
pub const fn route_bit(index: usize) -> RouteMask {
    1 << (index % ROUTES_MAX)
}

/// Where a route stands (DESIGN §3), in order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reads and writes go to the source.
    SourceOnly,
    /// As `source_only`, while the target is filled.
    Syncing,
    /// Writes go to the source, then the target.
    SourceFirst,
    /// Writes go to the target, then the source.
    TargetFirst,
    /// Reads and writes go to the target; the source is kept current.
    TargetOnly,
    /// As `target_only`; the source may be retired.
    Done,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 6] = [
        Phase::SourceOnly,
        Phase::Syncing,
        Phase::SourceFirst,
        Phase::TargetFirst,
        Phase::TargetOnly,
        Phase::Done,
    ];

    /// The side whose answer counts.
    pub const fn active(self) -> Side {
        match self {
            Phase::SourceOnly | Phase::Syncing | Phase::SourceFirst => Side::Source,
            Phase::TargetFirst | Phase::TargetOnly | Phase::Done => Side::Target,
        }
    }

    /// Whether writes reach both sides.
    pub const fn mirrored(self) -> bool {
        matches!(self, Phase::SourceFirst | Phase::TargetFirst)
    }

    /// The name operators, the store and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::SourceOnly => "source_only",
            Phase::Syncing => "syncing",
            Phase::SourceFirst => "source_first",
            Phase::TargetFirst => "target_first",
            Phase::TargetOnly => "target_only",
            Phase::Done => "done",
        }
    }

    /// Reads [`Phase::as_str`] back.
    pub fn parse(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|p| p.as_str() == name)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When the client is answered for a mirrored write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// After the mirror's commit.
    #[default]
    Both,
    /// After the active side's commit; the mirror's is on its way.
    Active,
}

/// What a session does after its own deferred write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeferredPolicy {
    /// Wait for the follower where reads of the route go to the mirror.
    #[default]
    Wait,
    /// Go on at once.
    Continue,
}

/// What happens to DDL on a routed table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DdlPolicy {
    /// Run on both sides behind the gate.
    #[default]
    Both,
    /// Refuse while the route is mirrored.
    Refuse,
}

/// What a percentage of reads is a percentage of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadsBy {
    /// Sessions: one session sees one side.
    #[default]
    Session,
    /// Single statements.
    Statement,
}

/// `db.table` with `*` and `?` wildcards in either part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableGlob {
    /// The pattern of the schema.
    pub database: Vec<u8>,
    /// The pattern of the table.
    pub table: Vec<u8>,
}

impl TableGlob {
    /// Reads `db.table`. None when there is no dot or a part is empty.
    pub fn parse(text: &str) -> Option<TableGlob> {
        let (database, table) = text.split_once('.')?;
        if database.is_empty() || table.is_empty() {
            return None;
        }
        Some(TableGlob {
            database: database.as_bytes().to_vec(),
            table: table.as_bytes().to_vec(),
        })
    }

    /// Whether the glob covers this table. `fold` compares without case, as a
    /// server with `lower_case_table_names` above 0 does.
    pub fn matches(&self, database: &[u8], table: &[u8], fold: bool) -> bool {
        glob(&self.database, database, fold) && glob(&self.table, table, fold)
    }
}

impl std::fmt::Display for TableGlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{}",
            String::from_utf8_lossy(&self.database),
            String::from_utf8_lossy(&self.table)
        )
    }
}

/// Matches `*` (any run) and `?` (any byte) in linear space and at worst
/// pattern × text time, without recursion.
fn glob(pattern: &[u8], text: &[u8], fold: bool) -> bool {
    // Most are one of these.
    if pattern == b"*" || pattern == text {
        return true;
    }
    let same = |a: u8, b: u8| a == b || (fold && a.eq_ignore_ascii_case(&b));
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || same(c, text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((sp, st)) => {
                    p = sp + 1;
                    t = st + 1;
                    star = Some((sp, st + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// The part of a route that lives on across snapshots: counters and the
/// mirror's circuit.
#[derive(Default)]
pub struct RouteLive {
    /// Mirrored writes that committed on both sides.
    pub writes_ok: AtomicU64,
    /// Writes whose mirror part failed.
    pub writes_failed: AtomicU64,
    /// Writes executed on the active side only, by plan.
    pub writes_deferred: AtomicU64,
    /// Whether inline mirroring is suspended (the circuit is open).
    pub suspended: AtomicBool,
    /// Why, for `status`; empty when not suspended.
    pub suspended_reason: parking_lot::Mutex<String>,
    /// What stands in the way of its end, for `status`.
    pub resumes_after: parking_lot::Mutex<String>,
    /// How often DDL failed on one side since both had the same tables: not to
    /// be mirrored to before they have again.
    pub tables_differ: AtomicU64,
    /// DDL that runs while statements of the route go on: their writes are
    /// deferred until both sides have the same tables again.
    pub ddl_beside: AtomicU32,
    /// Single mirror errors in the current minute, and when it began.
    pub errors: parking_lot::Mutex<(Option<std::time::Instant>, u32)>,
    /// Whether writes of one row may be executed on both sides at once.
    pub turns: Turns,
    /// Who searches on the mirror, and who must not meet that.
    pub searches: Searches,
    /// Woken at every suspension: mirrored writes wait on it, for they hold
    /// row locks that others queue on.
    pub suspension: tokio::sync::Notify,
    /// For sessions that wait for their own writes.
    pub healed: Healed,
    /// Mirror reads that waited for the session's own writes to be healed.
    pub reads_waited: AtomicU64,
    /// Those that went to the active side instead.
    pub reads_kept: AtomicU64,
}

/// Where the following of a side's log began, at the edge that began it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct FollowStart {
    /// Names the checkpoint in the side that is written; another for each
    /// beginning, so that none goes on from what an earlier one left.
    pub stream: String,
    /// Everything of the log before this position was on both sides, or is
    /// copied later.
    pub from: String,
    /// Nothing was followed or mirrored before: rows that the other side has are
    /// of some other time. Files of earlier versions do not say.
    #[serde(default)]
    pub fresh: bool,
}

/// One route as a statement sees it.
#[derive(Clone)]
pub struct Route {
    /// The name operators use.
    pub name: String,
    /// The tables it covers.
    pub tables: Vec<TableGlob>,
    /// Where it stands.
    pub phase: Phase,
    /// Counter of its phase changes.
    pub epoch: u64,
    /// The target's share of reads, 0 to 100.
    pub reads_percent: u8,
    /// What the percentage is of.
    pub reads_by: ReadsBy,
    /// When clients are answered.
    pub ack: Ack,
    /// What a session does after a deferred write.
    pub deferred: DeferredPolicy,
    /// What happens to DDL.
    pub ddl: DdlPolicy,
    /// What is followed; None where nothing is.
    pub follow: Option<FollowStart>,
    /// Counters and circuit.
    pub live: Arc<RouteLive>,
}

impl Route {
    /// Whether this route covers a table.
    pub fn covers(&self, database: &[u8], table: &[u8], fold: bool) -> bool {
        self.tables.iter().any(|g| g.matches(database, table, fold))
    }

    /// Whether inline mirroring is suspended at this moment.
    pub fn suspended(&self) -> bool {
        self.live.suspended.load(Ordering::Acquire)
    }

    /// Whether DDL is changing its tables beside other statements.
    pub fn being_altered(&self) -> bool {
        self.live.ddl_beside.load(Ordering::SeqCst) > 0
    }
}

/// The immutable snapshot.
#[derive(Clone, Default)]
pub struct RouteTable {
    /// Counter of snapshots: a plan made from another generation is made anew.
    pub generation: u64,
    /// The routes; their index is their bit in a [`RouteMask`].
    pub routes: Vec<Route>,
    /// Whether table names compare without case.
    pub fold_names: bool,
    /// True when statements need no classification for routing: every route
    /// is `source_only`, with no edge under way.
    pub passive: bool,
}

impl RouteTable {
    /// The side unrouted statements go to: the source, until every route's
    /// active side is the target.
    pub fn home(&self) -> Side {
        if !self.routes.is_empty() && self.routes.iter().all(|r| r.phase.active() == Side::Target) {
            Side::Target
        } else {
            Side::Source
        }
    }

    /// The index of the route that covers a table.
    pub fn route_of(&self, database: &[u8], table: &[u8]) -> Option<usize> {
        self.routes
            .iter()
            .position(|r| r.covers(database, table, self.fold_names))
    }

    /// The index of the route of this name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.routes.iter().position(|r| r.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let g = TableGlob::parse("shop.*").unwrap();
        assert!(g.matches(b"shop", b"orders", false));
        assert!(!g.matches(b"Shop", b"orders", false));
        assert!(g.matches(b"Shop", b"orders", true));
        let g = TableGlob::parse("a*c.t?_*x").unwrap();
        assert!(g.matches(b"abbc", b"t1_yyx", false));
        assert!(!g.matches(b"abb", b"t1_yyx", false));
        assert!(TableGlob::parse("shop").is_none());
        assert!(TableGlob::parse(".x").is_none());
    }

    #[test]
    fn phases_read_back() {
        for p in Phase::ALL {
            assert_eq!(Phase::parse(p.as_str()), Some(p));
        }
    }
}
