//! COM_QUERY: classify, plan, hold the routes, execute.

use std::sync::Arc;

use super::client::COMMAND_MAX;
use super::legs::Role;
use super::trackers::{asks_for_trackers, mentions_trackers};
use super::values;
use super::{End, Session, relay};
use crate::Side;
use crate::leg::put_query;
use crate::mirror::write::{Request, Written, write};
use crate::mirror::{Env, MirrorLeg, Part, transaction as ends};
use crate::route::plan::{Inline, Plan, Planned, Reason, SessionView, plan};
use crate::route::table::{ALL_ROUTES, RouteMask, RouteTable};
use crate::sql::{Agreement, Class, DiagnosticsForm, Facts, Flags, Verb, cross_check, scan};
use crate::telemetry;
use crate::wire::command::{COM_QUERY, ResponseKind, query_text};
use crate::wire::frame::HEADER_LEN;
use crate::wire::response::Summary;
use crate::wire::{Capabilities, Status};

/// A statement to execute, in the client's buffer, with all that is known.
pub(super) struct Statement<'a> {
    /// Payload bytes of the pending command.
    pub length: usize,
    /// What the scanner found.
    pub facts: &'a Facts,
    /// Its text.
    pub sql: &'a [u8],
    /// The snapshot the plan was made from.
    pub table: &'a Arc<RouteTable>,
    /// The plan.
    pub planned: Planned,
    /// The command for each leg, where it differs from the client's: prepared
    /// statements have other ids there.
    pub commands: Option<[Vec<u8>; 2]>,
    /// What the client sent in place of `sql`: an EXECUTE of it.
    pub sent: Option<(&'a Facts, &'a [u8])>,
}

/// ER_UNKNOWN_TABLE: to HANDLER, one that is not open (any more).
const ER_UNKNOWN_TABLE: u16 = 1109;

impl Session {
    /// Holds routes at the gate; waits while one of them changes its phase.
    /// True: it had to wait.
    pub(super) async fn hold(&mut self, mask: RouteMask) -> bool {
        if mask == 0 || self.shared.routes.try_enter(&self.slot, mask) {
            return false;
        }
        self.shared.routes.enter(&self.slot, mask).await;
        true
    }

    /// Serves a COM_QUERY.
    pub(super) async fn query(&mut self, length: usize) -> Result<(), End> {
        let answers = match self.passes_unread(length).await {
            Some(home) => Ok(home),
            None => self.plain_read(length),
        };
        match answers {
            Ok(side) => self.answer_plainly(side).await,
            Err(facts) => Box::pin(self.classified(length, facts)).await,
        }
    }

    /// Home, in the passive mode, for what need not be known of there.
    async fn passes_unread(&mut self, length: usize) -> Option<Side> {
        let home = self.passive_home().await?;
        if !self.is_plain_dml(length) || self.may_be_several(length) {
            return None;
        }
        self.values.unclassified(home);
        Some(home)
    }

    /// Home, with every route held, if all are passive and the session needs
    /// nothing brought there, and nothing answered from memory.
    pub(super) async fn passive_home(&mut self) -> Option<Side> {
        let (passive, generation, home) = {
            let table = self.shared.routes.peek();
            (table.passive, table.generation, table.home())
        };
        if !passive
            || self.transaction.lead.is_some_and(|l| l != home)
            || !self.values.settled_on(home)
            || self.diagnostics.is_some()
        {
            return None;
        }
        self.hold(ALL_ROUTES).await;
        // The gate may have changed the table while it held us up.
        if self.shared.routes.peek().generation != generation {
            self.let_go();
            return None;
        }
        Some(home)
    }

    /// In the passive mode: SELECT, INSERT, UPDATE and DELETE change nothing
    /// that has to be known later. A SELECT is ended when its client vanishes.
    fn is_plain_dml(&mut self, length: usize) -> bool {
        let mut text = self.payload(length.min(64)).get(1..).unwrap_or(&[]);
        if self.client.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            match text.strip_prefix(&[0, 1]) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
        let mut folded = [0u8; 8];
        for (to, from) in folded.iter_mut().zip(text) {
            *to = from.to_ascii_lowercase();
        }
        match &folded {
            b"select @" => false,
            f if f.starts_with(b"select ") => {
                self.pending.abandon = true;
                true
            }
            f => {
                f.starts_with(b"insert ") || f.starts_with(b"update ") || f.starts_with(b"delete ")
            }
        }
    }

    /// 1. `INSERT …; CREATE TEMPORARY TABLE x` passes for an INSERT; 2. nobody
    ///    knows of the table, and a flip takes its session away from it.
    fn may_be_several(&self, length: usize) -> bool {
        let allowed = self.client.capabilities.has(Capabilities::MULTI_STATEMENTS);
        if !self.state.multi_statements.unwrap_or(allowed) {
            return false;
        }
        // Of a long one that is not all here [`Session::answer_plainly`] sees
        // whether it was several.
        let text = self.payload(length);
        memchr::memchr(b';', text).is_some_and(|at| {
            !text[at..]
                .iter()
                .all(|b| *b == b';' || b.is_ascii_whitespace())
        })
    }

    /// `facts`: of its text, where it was scanned already.
    async fn classified(&mut self, length: usize, facts: Option<Box<Facts>>) -> Result<(), End> {
        if length > COMMAND_MAX {
            return Box::pin(self.query_streamed()).await;
        }
        self.whole_command(length).await?;
        let Ok(range) = query_text(self.payload(length), self.client.capabilities) else {
            // Query attributes cut short: the server says so.
            return self.unknown(COM_QUERY).await;
        };
        let sql = self.payload(length).get(range).unwrap_or(&[]).to_vec();
        let facts = facts.map_or_else(|| scan(&sql, self.state.mode), |facts| *facts);
        // 1. A row is inserted on the target, where its table is active; 2. the
        // lead, without a transaction, is the source: the id is not there.
        let elsewhere = |form| {
            matches!(form, DiagnosticsForm::LastInsertId { .. }) && !self.values.has_id(self.lead())
        };
        if let Some(form) = facts.diagnostics.filter(|form| !elsewhere(*form))
            && self.is_kept(form)
        {
            return Box::pin(self.answer_diagnostics(length, form)).await;
        }
        if self.may_end_second(&facts, &sql) {
            return Box::pin(self.refuse_several()).await;
        }
        let (table, planned) = self.plan_and_hold(&sql, &facts).await;
        let statement = Statement {
            length,
            facts: &facts,
            sql: &sql,
            table: &table,
            planned,
            commands: None,
            sent: None,
        };
        if facts.verb == Verb::ExecutePrepared && facts.statements == 1 {
            return Box::pin(self.execute_text(statement)).await;
        }
        if matches!(planned.plan, Plan::Deferred(_))
            && planned.reason == Reason::MULTI_STATEMENT
            && let Some(pieces) = self.ddl_pieces(&sql, &table)
        {
            return Box::pin(self.ddl_text(length, &sql, &facts, pieces)).await;
        }
        self.act(statement).await
    }

    /// EXECUTE, and EXECUTE IMMEDIATE: of DDL, both sides are to have it.
    async fn execute_text(&mut self, s: Statement<'_>) -> Result<(), End> {
        self.read_as_named(s.facts, s.sql);
        let text = self.executed_text(s.facts, s.sql).unwrap_or_default();
        let facts = scan(&text, self.mode());
        if facts.class != Class::Ddl || facts.statements != 1 {
            return self.act(s).await;
        }
        let catalog = self.shared.catalog.load_full();
        let planned = plan(&text, &facts, &self.view(s.table), s.table, &catalog, None);
        if !matches!(planned.plan, Plan::Ddl { .. }) {
            return self.act(s).await;
        }
        let sent = Some((s.facts, s.sql));
        let inner = Statement {
            facts: &facts,
            sql: &text,
            planned,
            sent,
            ..s
        };
        self.act(inner).await
    }

    /// Plans, holds the routes, and plans again if the table changed before
    /// they were held.
    pub(super) async fn plan_and_hold(
        &mut self,
        sql: &[u8],
        facts: &Facts,
    ) -> (Arc<RouteTable>, Planned) {
        loop {
            let table = self.shared.routes.load();
            let catalog = self.shared.catalog.load();
            let view = self.view(&table);
            let planned = plan(sql, facts, &view, &table, &catalog, None);
            drop(catalog);
            let mask = self.widened(&table, planned.routes, facts, false);
            if self.held(&table, mask).await {
                return (table, planned);
            }
        }
    }

    /// Holds `mask`. False: the table is not the one that was planned from.
    pub(super) async fn held(&mut self, table: &RouteTable, mask: RouteMask) -> bool {
        // A passive table's statements hold every route: an edge out of it
        // waits for those that were not classified.
        let mask = if table.passive { ALL_ROUTES } else { mask };
        if mask == 0 {
            return true;
        }
        let waited = self.hold(mask).await;
        if self.shared.routes.peek().generation != table.generation {
            self.let_go();
            return false;
        }
        // 1. a write is planned from a table's shape; 2. it waits for DDL at
        // the gate; 3. the shape is another one. Planned again, while held.
        !waited
    }

    /// Gives the routes up, unless an open transaction still holds them.
    pub(super) fn let_go(&self) {
        if !self.holds_on() {
            self.shared.routes.leave(&self.slot);
        }
    }

    pub(super) fn holds_on(&self) -> bool {
        self.state.status.has(Status::IN_TRANS) || self.locked_tables || self.xa
    }

    /// What the plan by this table may know of the session.
    pub(super) fn view(&self, table: &RouteTable) -> SessionView<'_> {
        let lead = self.transaction.lead.unwrap_or_else(|| table.home());
        let other = lead.other();
        let bucket = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % 100;
        SessionView {
            database: self.database(),
            in_transaction: self.state.in_transaction(),
            isolation: self.state.effective_isolation(),
            poisoned: self.transaction.poisoned,
            locked_tables: self.locked_tables,
            xa: self.xa,
            log_bin_off: self.state.log_bin_off,
            no_auto_value_on_zero: self.state.no_auto_value_on_zero,
            read_bucket: bucket(self.slot.id) as u8,
            statement_bucket: bucket(self.statement_count) as u8,
            temporary_tables: &self.temporary_tables,
            own_timestamp: self.state.client_timestamp,
            one_shot: self.state.one_shot_side.is_some(),
            oracle_mode: (self.under.as_ref()).map_or(self.state.oracle_mode, |u| u.oracle_mode),
            other_leg: self.other_leg_possible(other),
            mode: self.mode(),
        }
    }

    /// Carries out a plan.
    pub(super) async fn act(&mut self, s: Statement<'_>) -> Result<(), End> {
        if self.may_end_second(s.facts, s.sql) {
            return Box::pin(self.refuse_several()).await;
        }
        let route = s.planned.route.and_then(|r| s.table.routes.get(r));
        let label = route.map_or(telemetry::UNROUTED, |r| r.name.as_str());
        if let Some(route) = route
            && self.transaction.since.is_none()
            && !matches!(s.planned.plan, Plan::MirrorRead(_))
        {
            // Kept until the transaction, or the autocommit statement, ends.
            let active = route.phase.active();
            self.transaction.since = Some((active, self.shared.mirror.positions.take(active)));
        }
        let may_run = matches!(s.planned.plan, Plan::Active(_) | Plan::Deferred(_));
        if may_run && s.facts.statements == 1 && marks_or_ends(s.facts.verb) {
            // Whatever the plan: 1. sql_mode=ORACLE defers all but reads; 2. a
            // ROLLBACK so deferred would be taken for a COMMIT.
            telemetry::statements(label, "active");
            return match s.facts.verb {
                Verb::Commit | Verb::Rollback => Box::pin(self.end_transaction(s)).await,
                _ => Box::pin(self.savepoint(s)).await,
            };
        }
        match s.planned.plan {
            Plan::Active(side) => {
                telemetry::statements(label, "active");
                let side = self.side_for(side, s.facts, s.sql);
                if side != self.lead() && s.facts.tables.is_empty() && self.is_whole(s.length) {
                    return self.aside(side, s).await;
                }
                if s.facts.statements == 1 {
                    let text = s.commands.is_none();
                    match s.facts.verb {
                        Verb::Begin if text && self.state.shows_transactions => {
                            self.ask_before_transaction(side).await?;
                        }
                        Verb::Kill if text && s.facts.kill.is_some() => {
                            return Box::pin(self.kill(s)).await;
                        }
                        _ => {}
                    }
                }
                self.run(side, &s).await
            }
            Plan::MirrorRead(side) => {
                if self.mirrored_read(side, &s).await? {
                    telemetry::statements(label, "mirror_read");
                    return Ok(());
                }
                telemetry::statements(label, "active");
                self.run(side.other(), &s).await
            }
            Plan::Inline(inline) => self.mirrored(inline, s, label).await,
            Plan::Deferred(side) => {
                let side = if s.facts.tables.is_empty() {
                    self.lead()
                } else {
                    side
                };
                let reason = s.planned.reason.as_str();
                self.run_unmirrored(side, &s, label, reason).await
            }
            Plan::Ddl { active, both } => {
                telemetry::statements(label, "ddl");
                Box::pin(self.ddl(active, both, s)).await
            }
            Plan::RefusedMixed { a, b } => {
                self.consume_command(s.length);
                self.refuse_mixed(s.table, [a, b], 1).await
            }
        }
    }

    /// What may end a transaction somewhere in a text, where two servers would
    /// have to end theirs.
    async fn refuse_several(&mut self) -> Result<(), End> {
        telemetry::statements(telemetry::UNROUTED, "refused");
        let sequence = relay::skip_whole_command(&mut self.client).await?;
        self.let_go();
        let message = "The transaction has work on both sides: what ends it, or goes back in it, \
                       must be sent by itself, and not among other statements";
        let sequence = sequence.wrapping_add(1);
        self.client
            .refuse_at(sequence, 1235, b"42000", message)
            .await
    }

    /// The statement's tables are active on different sides.
    pub(super) async fn refuse_mixed(
        &mut self,
        table: &RouteTable,
        routes: [Option<usize>; 2],
        sequence: u8,
    ) -> Result<(), End> {
        let name = |i: Option<usize>| i.and_then(|i| table.routes.get(i)).map(|r| &r.name[..]);
        let [a, b] = routes.map(name);
        telemetry::statements(a.unwrap_or(telemetry::UNROUTED), "refused");
        let message = format!(
            "This statement names tables of {} and {}, whose active sides differ",
            a.unwrap_or("(no route)"),
            b.unwrap_or("(no route)")
        );
        self.let_go();
        self.client
            .refuse_at(sequence, 1235, b"42000", &message)
            .await
    }

    /// Runs a statement on one leg only, as it is.
    pub(super) async fn run(&mut self, side: Side, s: &Statement<'_>) -> Result<(), End> {
        self.diagnostics = None;
        let second = self.take_side(side).await?;
        // Whatever it does to the transaction, M's part cannot follow.
        let opaque = self.parts[side.other().index()] == Part::Open && is_opaque(s.facts);
        let unread = is_opaque(s.facts) || !self.is_whole(s.length);
        let guarded = self.parts.contains(&Part::Own) && unread;
        if guarded {
            self.need_leg(side).await?;
            Box::pin(self.guard_second(side)).await?;
        }
        self.pending.abandon = s.facts.class == Class::Read;
        let ran = self.run_alone(side, s).await;
        let refused = matches!(&ran, Ok(summary) if summary.is_error && !self.pending.counted());
        if opaque && !refused {
            self.give_up_part(side, s.table, "unclear_transaction")
                .await;
        }
        let summary = ran?;
        self.pending.abandon = false;
        if guarded {
            Box::pin(self.guard_stands(side, &summary)).await?;
        }
        if summary.is_error {
            let code = summary.error_code;
            Box::pin(self.doubt_after_error(side, s.facts, s.sql, code)).await?;
            let commits = if self.parts.contains(&Part::Own) {
                // A deadlock, or a handler, has rolled a routine's caller back,
                // too: the second part goes with it.
                s.facts.class == Class::Ddl
                    || matches!(s.facts.verb, Verb::Begin | Verb::LockTables)
            } else {
                !matches!(s.facts.class, Class::Read | Class::Write)
            };
            self.ask_after_error(side, commits).await?;
            if s.facts.verb == Verb::Handler && summary.error_code == ER_UNKNOWN_TABLE {
                self.handler_gone(s.sql);
            }
            if s.facts.statements > 1 {
                self.learn_executed(s.sql, side);
            }
        } else {
            self.learn(s, side).await;
        }
        if second {
            self.state.for_one_statement = false;
            if !summary.is_error {
                Box::pin(self.second_ran(side, None)).await?;
            }
            return Ok(());
        }
        if !summary.is_error {
            self.settle_part(side, s.facts, s.table).await?;
        }
        if !s.facts.tables.is_empty() || values::opaque(s.facts) {
            self.transaction.touched = true;
        }
        self.after(side);
        self.state.for_one_statement = false;
        Ok(())
    }

    /// Sends a statement to one leg and relays the answer.
    pub(super) async fn run_alone(
        &mut self,
        side: Side,
        s: &Statement<'_>,
    ) -> Result<Summary, End> {
        self.need_leg(side).await?;
        self.values_for(side, s.facts, s.sql).await?;
        let prepares = self.prepare_text(side, s.facts, s.sql).await?;
        let sets = s.facts.verb == Verb::Set && mentions_trackers(s.sql);
        let masked = sets || asks_for_trackers(s.sql, s.facts);
        if masked {
            self.show_own_trackers(side).await?;
        }
        self.state.for_one_statement =
            s.facts.flags.has(Flags::SET_STATEMENT) && s.facts.statements == 1;
        let summary = match &s.commands {
            None => self.plain(side, ResponseKind::Generic).await?,
            Some(commands) => {
                self.consume_command(s.length);
                self.need_leg(side).await?;
                match self.legs[side.index()].as_mut() {
                    Some(leg) => leg.send(&commands[side.index()]).await?,
                    None => return Err(End::Protocol("no leg")),
                }
                self.relay_answer(side, ResponseKind::Generic).await?
            }
        };
        if sets {
            self.client_trackers(side).await?;
        } else if masked {
            self.own_trackers(side).await?;
        }
        self.learn_named(side, (s.facts, s.sql), prepares, &summary);
        Ok(summary)
    }

    /// An inline write.
    async fn mirrored(&mut self, inline: Inline, s: Statement<'_>, label: &str) -> Result<(), End> {
        let (active, mirror) = (inline.active, inline.active.other());
        let second = self.take_side(active).await?;
        let reason = if second {
            Some("another_route_in_the_transaction")
        } else if disagree(&s, self.mode()) {
            telemetry::parse_disagreement();
            Some("parsers_disagree")
        } else if inline.context.user_variables
            && crate::sql::user_variables(s.sql, self.mode()).is_empty()
        {
            Some("user_variables")
        } else if !self
            .try_leg(mirror, Role::Mirror, self.shared.mirror.deadline)
            .await
        {
            Some("no_mirror_leg")
        } else {
            None
        };
        if let Some(reason) = reason {
            return self.run_unmirrored(active, &s, label, reason).await;
        }
        telemetry::statements(label, "inline");
        self.need_leg(active).await?;
        self.entry.set_running(active);
        self.values_off_mirror(active).await?;
        self.values_for(active, s.facts, s.sql).await?;
        let written = self.write_both(inline, &s).await?;
        self.answer_written(active, s, written).await
    }

    /// A position of the active side from before the open transaction, or from
    /// before the statement that is to run now.
    pub(super) fn since(&self, active: Side) -> Option<Arc<String>> {
        match &self.transaction.since {
            Some((side, position)) if *side == active => position.clone(),
            _ => self.shared.mirror.positions.take(active),
        }
    }

    async fn write_both(&mut self, inline: Inline, s: &Statement<'_>) -> Result<Written, End> {
        let (active, mirror) = (inline.active, inline.active.other());
        let seed = self.next_seed();
        let isolation = self.state.effective_isolation();
        let implicit = !self.state.in_transaction();
        let user_variables = if inline.context.user_variables {
            crate::sql::user_variables(s.sql, self.mode())
        } else {
            Vec::new()
        };
        let (shared, debts) = (self.shared.clone(), self.debts.clone());
        let env = Env {
            shared: &shared.mirror,
            table: s.table,
            route: s.planned.route.unwrap_or(0),
            active,
            since: self.since(active),
            debts: &debts,
        };
        let [source, target] = &mut self.legs;
        let (a, m) = match active {
            Side::Source => (source, target),
            Side::Target => (target, source),
        };
        let (Some(a), Some(other)) = (a.as_mut(), m.as_ref()) else {
            return Err(End::Protocol("no leg"));
        };
        let mut mirror_command = Vec::new();
        let (active_command, mirror_command) = match &s.commands {
            Some(commands) => (&commands[active.index()][..], &commands[mirror.index()][..]),
            None => {
                put_query(&mut mirror_command, other.capabilities, s.sql);
                let own = &self.client.input.pending()[..HEADER_LEN + s.length];
                (own, &mirror_command[..])
            }
        };
        let request = Request {
            active_command,
            mirror_command,
            inline,
            implicit,
            isolation,
            savepoints: &self.transaction.savepoints,
            user_variables: &user_variables,
            seed,
            client_timestamp: self.state.client_timestamp,
        };
        self.legs_broken = true;
        let m = MirrorLeg {
            leg: m,
            part: &mut self.parts[mirror.index()],
            timer: &mut self.timer,
        };
        let written = write(a, m, &request, &env).await?;
        self.legs_broken = false;
        Ok(written)
    }

    /// Answers a mirrored write and settles what follows from it.
    async fn answer_written(
        &mut self,
        active: Side,
        s: Statement<'_>,
        written: Written,
    ) -> Result<(), End> {
        let mirror = active.other();
        self.consume_command(s.length);
        if self.legs[mirror.index()].is_none() {
            self.note_leg_gone(mirror);
        }
        let implicit = !self.state.in_transaction();
        let caps = self.legs[active.index()]
            .as_ref()
            .map_or(self.client.capabilities, |l| l.capabilities);
        let mut out = Vec::with_capacity(written.answer.len());
        if written.is_error {
            out.extend_from_slice(&written.answer);
        } else {
            let client = self.client.capabilities;
            relay::shown(&written.answer, caps, client, &mut self.state, &mut out);
        }
        let told = self.client.send(&out).await;
        if written.commit_pending {
            self.finish_commit(active, s.table, s.planned.route).await;
        }
        told?;
        self.diagnostics = written.diagnostics;
        if !implicit {
            self.transaction.poisoned |= written.poisoned;
            self.transaction.touched = true;
            if self.parts[mirror.index()] == Part::Open {
                self.transaction.route = s.planned.route;
            }
        }
        if written.is_error && !implicit {
            // The flags were learnt by a ping where M had a part; ask anyway.
            self.refused_in_transaction(active).await?;
        } else if let Some(leg) = self.legs[active.index()].as_mut() {
            leg.status = written.status;
        }
        self.after(active);
        Ok(())
    }

    async fn finish_commit(&mut self, active: Side, table: &RouteTable, route: Option<usize>) {
        let (shared, debts) = (self.shared.clone(), self.debts.clone());
        let env = Env {
            shared: &shared.mirror,
            table,
            route: route.unwrap_or(0),
            active,
            since: self.since(active),
            debts: &debts,
        };
        let index = active.other().index();
        let mut m = MirrorLeg {
            leg: &mut self.legs[index],
            part: &mut self.parts[index],
            timer: &mut self.timer,
        };
        ends::await_commit(&mut m, &env).await;
        if self.legs[index].is_none() {
            self.note_leg_gone(active.other());
        }
    }
}

/// COMMIT, ROLLBACK and what is about savepoints.
fn marks_or_ends(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Commit | Verb::Rollback | Verb::Savepoint | Verb::RollbackTo | Verb::ReleaseSavepoint
    )
}

/// A statement after which nobody can tell whether the transaction is still
/// the same one.
pub(super) fn is_opaque(facts: &Facts) -> bool {
    (facts.statements > 1 && facts.class > Class::Read)
        || facts.class == Class::Unknown
        || matches!(
            facts.verb,
            Verb::Call | Verb::ExecutePrepared | Verb::Unknown
        )
}

/// Whether sqlparser reads another statement than the scanner; text that is
/// not UTF-8 stands as scanned.
fn disagree(s: &Statement<'_>, mode: crate::sql::ScanMode) -> bool {
    std::str::from_utf8(s.sql)
        .is_ok_and(|text| cross_check(text, s.facts, mode) == Agreement::Disagree)
}
