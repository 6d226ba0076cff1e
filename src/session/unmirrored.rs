//! Writes that only the active side gets.
//!
//! Such a write is counted and journalled between its answer and its client's
//! knowledge of it: not before, because a statement that the server refuses has
//! written nothing, and not after, because a client that was told must find it
//! counted. Its position is sampled before it runs (see
//! [`crate::mirror::Env::note`]).

use std::sync::Arc;

use super::statement::Statement;
use super::{Session, Shared};
use crate::Side;
use crate::mirror::Env;
use crate::mirror::debts::Debts;
use crate::mirror::journal::Kind;
use crate::route::table::RouteTable;
use crate::sql::{Class, Facts, Flags, Verb};
use crate::telemetry;
use crate::wire::Status;
use crate::wire::response::Summary;

/// ER_PARSE_ERROR: said before anything is executed.
const ER_PARSE: u16 = 1064;
/// ER_NET_PACKET_TOO_LARGE: said before anything is read.
const ER_TOO_LARGE: u16 = 1153;

/// What an error in answer to the write says about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    /// Nothing: a part of it may have been done.
    Unclear,
    /// A syntax error says that nothing was executed.
    SyntaxOnly,
    /// The statement is undone as a whole.
    Nothing,
}

/// One such write, on its way.
pub(super) struct Unmirrored {
    shared: Arc<Shared>,
    table: Arc<RouteTable>,
    /// None: any mirrored route's tables.
    route: Option<usize>,
    reason: &'static str,
    since: [Option<Arc<String>>; 2],
    on_error: OnError,
    debts: Arc<Debts>,
}

/// What the relay has to know of the command whose answer it carries.
#[derive(Default)]
pub(super) struct Pending {
    /// A write to be counted when its answer is here.
    pub unmirrored: Option<Box<Unmirrored>>,
    /// It was counted.
    counted: bool,
    /// Results of the last answer that ended well, and whether an error
    /// followed them.
    last: (u32, bool),
    /// The statement's id on the leg and the client's, where they differ: an
    /// error may name it.
    pub renamed: Option<(u32, u32)>,
    /// The command is ended on its server when the client vanishes. Writes
    /// are not: they finish, as they would without us.
    pub abandon: bool,
}

impl Pending {
    /// Whether the write that was on its way has been counted.
    pub fn counted(&self) -> bool {
        self.counted
    }

    /// Results of the last answer that ended well, and whether an error
    /// followed them.
    pub fn last(&self) -> (u32, bool) {
        self.last
    }

    /// The whole answer is here; its client has not seen the end of it.
    pub fn answered(&mut self, summary: &Summary) {
        self.last = (summary.results, summary.is_error);
        if let Some(write) = self.unmirrored.take() {
            let refused = summary.is_error && summary.result_sets == 0;
            let nothing = match write.on_error {
                _ if refused && summary.error_code == ER_TOO_LARGE => true,
                OnError::Unclear => false,
                OnError::SyntaxOnly => refused && summary.error_code == ER_PARSE,
                OnError::Nothing => refused,
            };
            if !nothing {
                write.count();
                self.counted = true;
            }
        }
    }
}

impl Unmirrored {
    fn count(&self) {
        for (index, route) in self.table.routes.iter().enumerate() {
            if !route.phase.mirrored() || self.route.is_some_and(|r| r != index) {
                continue;
            }
            let active = route.phase.active();
            let env = Env {
                shared: &self.shared.mirror,
                table: &self.table,
                route: index,
                active,
                since: self.since[active.index()].clone(),
                debts: &self.debts,
            };
            env.deferred(self.reason);
        }
    }
}

impl Session {
    /// The statement about to run is a write that the mirror does not get.
    pub(super) fn unmirrored(&mut self, s: &Statement<'_>, reason: &'static str) {
        let on_error = self.on_error(s);
        self.unmirrored_on(s.table.clone(), s.planned.route, reason, on_error);
    }

    /// The command about to run may write to any table.
    pub(super) fn unmirrored_anywhere(&mut self, reason: &'static str, on_error: OnError) {
        let table = self.shared.routes.load();
        self.unmirrored_on(table, None, reason, on_error);
    }

    fn unmirrored_on(
        &mut self,
        table: Arc<RouteTable>,
        route: Option<usize>,
        reason: &'static str,
        on_error: OnError,
    ) {
        let mirrored = table.routes.iter().any(|r| r.phase.mirrored());
        self.pending.unmirrored = mirrored.then(|| {
            Box::new(Unmirrored {
                shared: self.shared.clone(),
                route,
                reason,
                since: [self.since(Side::Source), self.since(Side::Target)],
                on_error,
                debts: self.debts.clone(),
                table,
            })
        });
    }

    /// The command has ended, well or not: one that was cut off is counted,
    /// and the rest of the transaction follows what was.
    pub(super) fn unmirrored_done(&mut self) {
        if let Some(write) = self.pending.unmirrored.take() {
            write.count();
            self.pending.counted = true;
        }
        if std::mem::take(&mut self.pending.counted) && self.state.status.has(Status::IN_TRANS) {
            self.transaction.poisoned = true;
        }
    }

    fn on_error(&self, s: &Statement<'_>) -> OnError {
        let facts = s.facts;
        if facts.statements > 1 {
            return OnError::Unclear;
        }
        match (facts.class, facts.verb) {
            (Class::Unknown, Verb::Unknown) => OnError::SyntaxOnly,
            (Class::Write, _) if self.undone_as_a_whole(s.sql, facts) => OnError::Nothing,
            (Class::Write, _) => OnError::SyntaxOnly,
            _ => OnError::Unclear,
        }
    }

    /// Whether an error undoes all that the write has done: each table of it is
    /// transactional, and nothing else is called on the way.
    fn undone_as_a_whole(&self, sql: &[u8], facts: &Facts) -> bool {
        if facts
            .flags
            .any(Flags::UNKNOWN_FUNCTION.with(Flags::OVERFLOW))
        {
            return false;
        }
        let catalog = self.shared.catalog.load();
        facts.tables.iter(sql).all(|(db, name)| {
            let db = db.as_deref().or(self.database());
            let Some(pair) = db.and_then(|db| catalog.get(db, &name)) else {
                return false;
            };
            [Side::Source, Side::Target].into_iter().all(|side| {
                pair.on(side)
                    .is_some_and(|t| t.transactional && t.triggers == 0 && !t.is_view)
            })
        })
    }

    /// Counts and journals at once.
    pub(super) fn note(&self, table: &RouteTable, route: usize, kind: Kind, reason: &'static str) {
        let Some(r) = table.routes.get(route) else {
            return;
        };
        if !r.phase.mirrored() {
            return;
        }
        let env = Env {
            shared: &self.shared.mirror,
            table,
            route,
            active: r.phase.active(),
            since: self.since(r.phase.active()),
            debts: &self.debts,
        };
        match kind {
            Kind::Deferred => env.deferred(reason),
            Kind::Failed => env.failed(reason),
            kind => env.note(kind, reason),
        }
    }

    /// Runs a write on one side only.
    pub(super) async fn run_unmirrored(
        &mut self,
        side: Side,
        s: &Statement<'_>,
        label: &str,
        reason: &'static str,
    ) -> Result<(), super::End> {
        telemetry::statements(label, "deferred");
        self.unmirrored(s, reason);
        let ran = self.run(side, s).await;
        self.unmirrored_done();
        ran
    }
}
