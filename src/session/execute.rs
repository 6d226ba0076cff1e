//! COM_STMT_PREPARE and COM_STMT_EXECUTE.
//!
//! A statement is prepared where it would run now; the other leg is given it
//! when it first runs there. An EXECUTE is rewritten per leg: the id, and the
//! parameter types where this leg has not had them (clients send types only
//! with the first execution, protocol-review M5).

use std::sync::Arc;

use super::client::COMMAND_MAX;
use super::command::{NOTHING_DONE, statement_id};
use super::large::HEAD_LEN;
use super::legs::Role;
use super::prepared::{Bound, Statement as Prepared};
use super::statement::Statement;
use super::trackers::asks_for_trackers;
use super::under::Journey;
use super::unmirrored::OnError;
use super::values::asks_previous;
use super::{End, Session, relay};
use crate::Side;
use crate::leg::Answer;
use crate::leg::ours::{MARK, is_marked};
use crate::route::plan::{Ahead, Plan, Planned, plan};
use crate::route::table::{ALL_ROUTES, RouteTable};
use crate::sql::{Class, DiagnosticsForm, Facts, Flags, Verb, scan};
use crate::wire::command::{
    COM_STMT_CLOSE, COM_STMT_PREPARE, Execute, ResponseKind, execute_for_leg, parse_execute,
};
use crate::wire::frame::{HEADER_LEN, header, put_command, put_packet};
use crate::wire::response::Summary;
use crate::wire::{Capabilities, Status};

/// The largest answer to PREPARE: 4,096 columns and 65,535 parameters with
/// long names.
const PREPARE_ANSWER_MAX: usize = 32 << 20;

/// ER_MALFORMED_PACKET.
const ER_MALFORMED: u16 = 1835;

/// EXECUTE's flags that ask for a cursor: read only, for update, scrollable.
const CURSORS: u8 = 1 | 2 | 4;

/// One EXECUTE, read.
pub(super) struct Call {
    pub client_id: u32,
    pub execute: Execute,
    pub types: Vec<u8>,
    pub sql: Arc<[u8]>,
    pub facts: Arc<Facts>,
}

/// The side a plan's answer comes from.
pub(super) fn answering(plan: Plan, lead: Side) -> Side {
    match plan {
        Plan::Active(side) | Plan::Deferred(side) => side,
        Plan::Inline(inline) => inline.active,
        Plan::Ddl { active, .. } => active,
        Plan::MirrorRead(side) => side.other(),
        Plan::RefusedMixed { .. } => lead,
    }
}

/// MariaDB says in the EOF packets of a PREPARE's answer that session state
/// has changed; only our own trackers saw it.
fn hide_state_flag(answer: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = answer.get(at..).and_then(header) {
        let packet = answer.get_mut(at + HEADER_LEN..at + head.total());
        if let Some([0xFE, _, _, _, flags]) = packet {
            *flags &= !((Status::SESSION_STATE_CHANGED.0 >> 8) as u8);
        }
        at += head.total();
    }
}

impl Session {
    /// Serves a COM_STMT_PREPARE.
    pub(super) async fn prepare(&mut self, length: usize) -> Result<(), End> {
        let before = self.diagnostics.take();
        let streamed = length > COMMAND_MAX;
        let kept = if streamed { HEAD_LEN } else { length };
        self.arrived(HEADER_LEN + kept).await?;
        let sql: Arc<[u8]> = self.payload(kept).get(1..).unwrap_or(&[]).into();
        let facts = Arc::new(scan(&sql, self.state.mode));
        // PREPARE leaves ROW_COUNT() as it was, and nothing else.
        if matches!(facts.diagnostics, Some(DiagnosticsForm::RowCount { .. })) {
            self.diagnostics = before;
        }
        let side = self.side_of(&sql, &facts);
        self.need_leg(side).await?;
        // A variable's metadata tells the length of its value.
        let masked = asks_for_trackers(&sql, &facts);
        if masked {
            self.show_own_trackers(side).await?;
        }
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.legs_broken = true;
        if streamed {
            relay::stream_whole_command(&mut self.client, leg, &mut self.pending).await?;
        } else {
            let command = &self.client.input.pending()[..HEADER_LEN + length];
            leg.send(command).await?;
        }
        let mut answer = leg
            .answer(ResponseKind::Prepare, PREPARE_ANSWER_MAX)
            .await?;
        self.legs_broken = false;
        if masked {
            self.own_trackers(side).await?;
        }
        if !streamed {
            self.consume_command(length);
        }
        // PREPARE is what MySQL's next COM_PING counts the warnings of.
        self.read_warnings = answer.summary.warnings;
        if let Some(ok) = answer.summary.prepare {
            let client_id = self.prepared.client_id(ok.statement_id);
            if let Some(place) = answer.bytes.get_mut(HEADER_LEN + 1..HEADER_LEN + 5) {
                place.copy_from_slice(&client_id.to_le_bytes());
            }
            let statement = if !streamed && self.prepared.has_room(sql.len()) {
                let under = self.under_now();
                Prepared::new(sql, true, (facts, under), side, ok)
            } else {
                self.long_statement(&sql, side, ok)
            };
            if !self.prepared.insert(client_id, statement) {
                return self.too_many_statements(side, ok.statement_id).await;
            }
        } else {
            self.prepared.refused();
            self.refused_in_transaction(side).await?;
        }
        if !self.client.capabilities.has(Capabilities::DEPRECATE_EOF) {
            hide_state_flag(&mut answer.bytes);
        }
        self.client.send(&answer.bytes).await
    }

    /// As a server at its own limit answers.
    async fn too_many_statements(&mut self, side: Side, id: u32) -> Result<(), End> {
        let mut out = Vec::new();
        put_command(&mut out, COM_STMT_CLOSE, &id.to_le_bytes());
        if let Some(leg) = self.legs[side.index()].as_mut() {
            leg.send(&out).await?;
        }
        let message = format!(
            "Can't create more than max_prepared_stmt_count statements (current value: {})",
            super::prepared::STATEMENTS_MAX
        );
        self.client.refuse(1461, b"42000", &message).await
    }

    /// Where a statement would run now.
    pub(super) fn side_of(&self, sql: &[u8], facts: &Facts) -> Side {
        let table = self.shared.routes.load();
        let lead = self.lead();
        if table.passive || facts.tables.is_empty() {
            return lead;
        }
        let catalog = self.shared.catalog.load();
        let planned = plan(sql, facts, &self.view(&table), &table, &catalog, None);
        answering(planned.plan, lead)
    }

    /// Serves a COM_STMT_EXECUTE.
    pub(super) async fn execute(&mut self, length: usize) -> Result<(), End> {
        self.expect_no_cursor();
        if length > COMMAND_MAX {
            return Box::pin(self.execute_streamed()).await;
        }
        self.whole_command(length).await?;
        let id = self.named_statement(length);
        if self.lacks_types(length) {
            return Box::pin(self.refuse_malformed(length)).await;
        }
        if let Some(kill) = id.and_then(|id| self.prepared.get(id)?.facts.kill) {
            return Box::pin(self.execute_kill(length, kill)).await;
        }
        // A cursor has to be known of.
        let cursor = self
            .payload(length)
            .get(5)
            .is_some_and(|f| f & CURSORS != 0);
        let mut ready = None;
        if let Some(id) = id.filter(|_| !cursor) {
            ready = match self.executes_unread(id).await {
                Some(ready) => Some(ready),
                None => self.plain_execute(id),
            };
        }
        match ready {
            Some((side, own)) => self.execute_as_sent(length, side, own).await,
            None => Box::pin(self.execute_classified(length)).await,
        }
    }

    /// In the passive mode: home, and the statement's id there.
    async fn executes_unread(&mut self, id: u32) -> Option<(Side, u32)> {
        let home = self.passive_home().await?;
        let own = self.ready_on(id, home)?;
        self.values.unclassified(home);
        Some((home, own))
    }

    /// An error has no flags: those of the answer before it would say that an
    /// EXECUTE that was refused has opened a cursor, for a flip to wait for.
    pub(super) fn expect_no_cursor(&mut self) {
        for leg in self.legs.iter_mut().flatten() {
            leg.status = leg.status.without(Status::CURSOR_EXISTS);
        }
    }

    /// MariaDB takes the id -1 only with the parameters' types beside it: the
    /// statement prepared last on a leg need not be the client's.
    pub(super) fn lacks_types(&self, length: usize) -> bool {
        let payload = self.payload(length);
        let named = self.named_statement(length);
        let (Some(sent), Some(id)) = (statement_id(payload), named) else {
            return false;
        };
        if sent == id {
            return false;
        }
        let Some(statement) = self.prepared.get(id) else {
            return false;
        };
        let caps = self.client.capabilities;
        let bound =
            parse_execute(payload, statement.parameters, caps).map(|call| call.new_params_bound);
        statement.parameters > 0 && bound != Ok(true)
    }

    /// What a server says to that.
    pub(super) async fn refuse_malformed(&mut self, length: usize) -> Result<(), End> {
        self.diagnostics = None;
        self.consume_command(length);
        let message = "Malformed communication packet";
        self.client.refuse(ER_MALFORMED, b"HY000", message).await
    }

    /// The id on `side`, if the statement can run there as the client sent it.
    ///
    /// SET may change our trackers, and SHOW would show them: both go the
    /// longer way.
    pub(super) fn ready_on(&self, id: u32, side: Side) -> Option<u32> {
        let statement = self.prepared.get(id)?;
        let dml = matches!(
            statement.facts.verb,
            Verb::Select | Verb::Insert | Verb::Replace | Verb::Update | Verb::Delete
        );
        if !dml
            || statement.facts.flags.has(Flags::SYSTEM_VARIABLE)
            || statement.has_data_elsewhere(side)
            || (statement.types.is_some() && !statement.types_sent[side.index()])
        {
            return None;
        }
        statement.ids[side.index()]
    }

    /// The command goes to `side`, where the statement is `own`.
    async fn execute_as_sent(&mut self, length: usize, side: Side, own: u32) -> Result<(), End> {
        self.diagnostics = None;
        let sent = statement_id(self.payload(length));
        let id = self.named_statement(length).unwrap_or_default();
        self.remember_types(length, id, side);
        self.pending.abandon = self.reads(id);
        let summary = if sent == Some(own) {
            self.plain(side, ResponseKind::Generic).await?
        } else {
            self.send_with_id(length, side, own).await?;
            self.relay_answer(side, ResponseKind::Generic).await?
        };
        self.executed(id, side, &summary).await
    }

    /// What follows any execution on one leg.
    pub(super) async fn executed(
        &mut self,
        id: u32,
        side: Side,
        summary: &Summary,
    ) -> Result<(), End> {
        self.ran_on(id, side).await;
        if summary.is_error {
            let statement = self.prepared.get(id).filter(|s| s.whole);
            let known = statement.map(|s| (s.facts.clone(), s.text.clone()));
            let (facts, text) = known.unwrap_or_else(|| (Facts::unknown().into(), [].into()));
            let code = summary.error_code;
            if facts.verb != Verb::Unknown || !NOTHING_DONE.contains(&code) {
                Box::pin(self.doubt_after_error(side, &facts, &text, code)).await?;
            }
            Box::pin(self.refused_in_transaction(side)).await?;
        }
        self.after_any(side);
        Ok(())
    }

    /// Whether an execution of the statement only reads.
    fn reads(&self, id: u32) -> bool {
        let statement = self.prepared.get(id);
        statement.is_some_and(|s| s.whole && s.facts.class == Class::Read)
    }

    /// Notes where a statement was executed, and whether a cursor is open
    /// there. Another leg forgets the long data that it was sent.
    pub(super) async fn ran_on(&mut self, id: u32, side: Side) {
        let open = self.legs[side.index()]
            .as_ref()
            .is_some_and(|l| l.status.has(Status::CURSOR_EXISTS));
        self.prepared.set_open(id, open);
        self.repin();
        let had_data = self.prepared.drop_long_data(id);
        let Some(statement) = self.prepared.get_mut(id) else {
            return;
        };
        statement.cursor = Some(side.index());
        statement.side = side;
        if let Some(stale) = had_data.filter(|at| *at != side) {
            self.forget_data_on(id, stale).await;
        }
    }

    /// Keeps the types a client binds, for executions that rely on them.
    fn remember_types(&mut self, length: usize, id: u32, side: Side) {
        let caps = self.client.capabilities;
        let Some(statement) = self.prepared.get(id) else {
            return;
        };
        let payload = self.payload(length);
        let Ok(call) = parse_execute(payload, statement.parameters, caps) else {
            return;
        };
        if !call.new_params_bound {
            return;
        }
        let types = payload.get(call.types);
        let changed = (statement.types.as_deref() != types).then(|| types.map(<[u8]>::to_vec));
        let Some(statement) = self.prepared.get_mut(id) else {
            return;
        };
        if let Some(types) = changed {
            statement.types = types;
            statement.types_sent = [false; 2];
        }
        statement.types_sent[side.index()] = true;
    }

    /// Reads the pending EXECUTE. None: its statement or its form is unknown,
    /// so the lead may answer what a server answers.
    pub(super) fn call(&self, length: usize) -> Option<Call> {
        let payload = self.payload(length);
        let client_id = self.named_statement(length)?;
        let statement = self.prepared.get(client_id).filter(|s| s.whole)?;
        let execute =
            parse_execute(payload, statement.parameters, self.client.capabilities).ok()?;
        let types = if execute.new_params_bound {
            payload.get(execute.types.clone())?.to_vec()
        } else {
            statement.types.clone().unwrap_or_default()
        };
        Some(Call {
            client_id,
            execute,
            types,
            sql: statement.text.clone(),
            facts: statement.facts.clone(),
        })
    }

    pub(super) async fn execute_classified(&mut self, length: usize) -> Result<(), End> {
        self.read_as_prepared(self.named_statement(length));
        let Some(call) = self.call(length) else {
            return self.execute_unknown(length).await;
        };
        let lead = self.lead();
        if let Some(form @ DiagnosticsForm::RowCount { .. }) = call.facts.diagnostics
            && let Some(kept) = self.diagnostics.clone().filter(|_| self.is_kept(form))
        {
            self.need_leg(lead).await?;
            if let Some(command) = self.command_for(length, &call, lead, true).await? {
                return self.answer_row_count(length, &command, kept).await;
            }
        }
        let (table, planned) = self.plan_call(length, &call).await;
        let mut planned = planned;
        if call.execute.flags & CURSORS != 0
            && let Plan::MirrorRead(side) = planned.plan
        {
            // What is fetched later must not depend on the mirror.
            planned.plan = Plan::Active(side.other());
        }
        let mut commands = [Vec::new(), Vec::new()];
        if let Plan::MirrorRead(side) = planned.plan
            && !self.read_command(length, &call, side, &mut commands).await
        {
            planned.plan = Plan::Active(side.other());
        }
        let planned_side = answering(planned.plan, lead);
        let active = self.side_for(planned_side, &call.facts, &call.sql);
        self.need_leg(active).await?;
        // 1. The mirror answers a read, with types; 2. the next EXECUTE relies on
        // them, and is for the active side, which never had them.
        let is_sent = !matches!(
            planned.plan,
            Plan::MirrorRead(_) | Plan::RefusedMixed { .. }
        );
        let command = self.command_for(length, &call, active, is_sent).await?;
        commands[active.index()] = match command {
            Some(command) => command,
            None => return self.execute_unknown(length).await,
        };
        if let Some(own) = self
            .prepared
            .get(call.client_id)
            .and_then(|s| s.ids[active.index()])
        {
            self.renamed(length, own);
        }
        if let Plan::Inline(inline) = planned.plan {
            let mirror = inline.active.other();
            planned.plan = self
                .inline_for_mirror(length, &call, planned.plan, mirror, &mut commands)
                .await;
        }
        let plan = planned.plan;
        let statement = Statement {
            length,
            facts: &call.facts,
            sql: &call.sql,
            table: &table,
            planned,
            commands: Some(commands),
            sent: None,
        };
        self.act(statement).await?;
        self.carried_out(call.client_id, plan, active).await;
        Ok(())
    }

    /// What follows an EXECUTE that went the way of `plan`.
    async fn carried_out(&mut self, id: u32, plan: Plan, active: Side) {
        // 1. Long data is sent; 2. the EXECUTE is refused by us; 3. the next
        // one on that leg has both values in one.
        let refused = matches!(plan, Plan::RefusedMixed { .. });
        if refused || matches!(plan, Plan::Ddl { .. }) {
            self.forget_long_data(id).await;
        }
        if refused {
            return;
        }
        let answers = match plan {
            // Or the active side has answered in its place.
            Plan::MirrorRead(side) if self.values.last == Some(side) => side,
            _ => active,
        };
        self.ran_on(id, answers).await;
    }

    pub(super) async fn plan_call(
        &mut self,
        length: usize,
        call: &Call,
    ) -> (Arc<RouteTable>, Planned) {
        loop {
            let table = self.shared.routes.load();
            let catalog = self.shared.catalog.load();
            let view = self.view(&table);
            let long_data = self
                .prepared
                .get(call.client_id)
                .map_or(&[][..], |s| &s.long_data);
            let bound = Bound {
                payload: self.payload(length),
                execute: &call.execute,
                types: &call.types,
                long_data,
            };
            let planned = plan(
                &call.sql,
                &call.facts,
                &view,
                &table,
                &catalog,
                Some(&bound),
            );
            drop(catalog);
            let cursor = call.execute.flags & CURSORS != 0;
            let mask = self.widened(&table, planned.routes, &call.facts, cursor);
            if self.held(&table, mask).await {
                return (table, planned);
            }
        }
    }

    /// The command for a read on the mirror. False: it cannot be had there
    /// within the deadline.
    async fn read_command(
        &mut self,
        length: usize,
        call: &Call,
        side: Side,
        commands: &mut [Vec<u8>; 2],
    ) -> bool {
        let limit = self.shared.mirror.deadline;
        if !self.try_leg(side, Role::Read, limit).await {
            return false;
        }
        match tokio::time::timeout(limit, self.command_for(length, call, side, false)).await {
            Ok(Ok(Some(command))) => {
                commands[side.index()] = command;
                true
            }
            Ok(Ok(None)) => false,
            _ => {
                self.drop_leg(side);
                false
            }
        }
    }

    /// The mirror's copy of the command; without one the write is deferred.
    async fn inline_for_mirror(
        &mut self,
        length: usize,
        call: &Call,
        mut plan: Plan,
        mirror: Side,
        commands: &mut [Vec<u8>; 2],
    ) -> Plan {
        let limit = self.shared.mirror.deadline;
        if self.try_leg(mirror, Role::Mirror, limit).await {
            let made =
                tokio::time::timeout(limit, self.command_for(length, call, mirror, false)).await;
            match made {
                Ok(Ok(Some(command))) => {
                    commands[mirror.index()] = command;
                    if let Plan::Inline(inline) = &mut plan {
                        // It takes them with its first execution.
                        if self.prepared.has_long_data(call.client_id) {
                            inline.ahead = Ahead::No;
                        }
                    }
                    return plan;
                }
                Ok(Ok(None)) => {}
                _ => self.drop_leg(mirror),
            }
        }
        Plan::Deferred(mirror.other())
    }

    /// The framed command for one leg, which gets the statement and its long
    /// data first if it has not had them. None: that server refuses to
    /// prepare it. Without `is_sent` it may stay unsent, and has the types in it
    /// for that reason:
    /// 1. An EXECUTE brings types; A refuses it, so that M does not get it.
    /// 2. The next relies on them, as the C library's do: M would read NULLs.
    pub(super) async fn command_for(
        &mut self,
        length: usize,
        call: &Call,
        side: Side,
        is_sent: bool,
    ) -> Result<Option<Vec<u8>>, End> {
        let index = side.index();
        let Some(statement) = self.prepared.get(call.client_id) else {
            return Ok(None);
        };
        if !statement.can_have_long_data(side) {
            return Ok(None);
        }
        let own = match statement.ids[index] {
            Some(own) => own,
            None => match self.prepare_on(call.client_id, side).await? {
                Some(own) => own,
                None => return Ok(None),
            },
        };
        let Some(statement) = self.prepared.get(call.client_id) else {
            return Ok(None);
        };
        let known = is_sent && statement.types_sent[index];
        let types = (!known && !call.types.is_empty()).then_some(&call.types[..]);
        let payload = self.payload(length);
        let mut body = Vec::with_capacity(payload.len() + call.types.len() + 8);
        if execute_for_leg(payload, &call.execute, own, types, &mut body).is_err() {
            return Ok(None);
        }
        let mut out = statement.missing_long_data(side, own);
        out.reserve(body.len() + HEADER_LEN);
        let mut sequence = 0;
        put_packet(&mut out, &mut sequence, &body);
        if let Some(statement) = self.prepared.get_mut(call.client_id) {
            if call.execute.new_params_bound && statement.types.as_ref() != Some(&call.types) {
                statement.types = Some(call.types.clone());
                statement.types_sent = [false; 2];
            }
            statement.types_sent[index] |= is_sent;
        }
        Ok(Some(out))
    }

    /// Prepares a statement on a leg that has not had it, under what was in
    /// force when its client prepared it. None: that server refuses it, or its
    /// text was not kept.
    pub(super) async fn prepare_on(&mut self, id: u32, side: Side) -> Result<Option<u32>, End> {
        let index = side.index();
        let Some(statement) = self.prepared.get(id).filter(|s| s.whole) else {
            return Ok(None);
        };
        let Some(leg) = self.legs[index].as_mut() else {
            return Ok(None);
        };
        let journey = if asks_previous(&statement.facts) {
            // Anything more said to the leg would be what it is asked about.
            Some(Journey::default())
        } else {
            Journey::new(leg, &statement.under, &self.state)
        };
        let Some(mut journey) = journey else {
            return Ok(None);
        };
        let mut out = std::mem::take(&mut journey.there.out);
        out.reserve(statement.text.len() + journey.back().len() + 32);
        if is_marked(leg, statement.text.len()) {
            let marked = [MARK, &statement.text[..]].concat();
            put_command(&mut out, COM_STMT_PREPARE, &marked);
        } else {
            put_command(&mut out, COM_STMT_PREPARE, &statement.text);
        }
        out.extend_from_slice(journey.back());
        leg.send(&out).await?;
        let there = journey.there.answered(leg).await?;
        let answer: Answer = leg
            .answer(ResponseKind::Prepare, PREPARE_ANSWER_MAX)
            .await?;
        journey.came_back(leg).await?;
        let Some(ok) = answer.summary.prepare else {
            return Ok(None);
        };
        let Some(statement) = self.prepared.get_mut(id) else {
            return Ok(None);
        };
        // 1. COM_INIT_DB to the schema of PREPARE is refused; 2. the text is
        // prepared in another schema; 3. its EXECUTE writes to another table.
        if !there || ok.params != statement.parameters {
            let mut close = Vec::with_capacity(16);
            put_command(&mut close, COM_STMT_CLOSE, &ok.statement_id.to_le_bytes());
            leg.send(&close).await?;
            return Ok(None);
        }
        statement.ids[index] = Some(ok.statement_id);
        statement.types_sent[index] = false;
        Ok(Some(ok.statement_id))
    }

    /// An EXECUTE that cannot be read, or whose text was too long to keep: it
    /// runs where its statement is, and may have written to anything.
    async fn execute_unknown(&mut self, length: usize) -> Result<(), End> {
        self.hold(ALL_ROUTES).await;
        self.diagnostics = None;
        let id = self.named_statement(length).unwrap_or_default();
        let Some((side, own)) = self.where_unknown(id) else {
            self.consume_command(length);
            self.forget_long_data(id).await;
            return self.refuse_handler(id, 1).await;
        };
        self.unmirrored_anywhere("prepared_text_not_kept", OnError::SyntaxOnly);
        self.values.unclassified(side);
        self.send_with_id(length, side, own).await?;
        let answered = self.relay_answer(side, ResponseKind::Generic).await;
        if let Ok(summary) = &answered {
            self.executed(id, side, summary).await?;
        }
        self.unmirrored_done();
        answered.map(|_| ())
    }
}
