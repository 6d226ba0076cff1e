//! Commands over 16 MiB, which come in several packets and are never kept.
//!
//! Their head is read, which names the written table or the statement; the
//! rest is streamed to the side that is active for it. What follows the head
//! may do anything, so in a mirrored route such a command is deferred.

use std::sync::Arc;

use super::execute::{Call, answering};
use super::prepared::Statement as Prepared;
use super::statement::Statement;
use super::unmirrored::OnError;
use super::{End, Session, relay};
use crate::Side;
use crate::route::plan::{Plan, Planned, Reason, plan};
use crate::route::table::{ALL_ROUTES, RouteTable};
use crate::sql::{Class, scan};
use crate::wire::command::{ResponseKind, query_text};
use crate::wire::frame::HEADER_LEN;
use crate::wire::response::PrepareOk;

/// Payload bytes of a long command that are read before it is sent on: half a
/// pooled buffer, with room for the names of any table and of many columns.
pub(super) const HEAD_LEN: usize = 8 * 1024;

/// The same for an EXECUTE with so many parameters that their types (up to
/// 65,535, two bytes each) do not fit.
const EXECUTE_HEAD_LEN: usize = 256 * 1024;

/// ER_UNKNOWN_STMT_HANDLER.
const ER_UNKNOWN_HANDLER: u16 = 1243;

const OVERSIZED: Reason = Reason("over_16_mib");

impl Session {
    /// A COM_QUERY.
    pub(super) async fn query_streamed(&mut self) -> Result<(), End> {
        self.arrived(HEADER_LEN + HEAD_LEN).await?;
        let payload = self.payload(HEAD_LEN);
        let range = query_text(payload, self.client.capabilities).unwrap_or(1..HEAD_LEN);
        let sql = payload.get(range).unwrap_or(&[]).to_vec();
        let mut facts = scan(&sql, self.state.mode);
        let (table, planned) = loop {
            let table = self.shared.routes.load();
            let catalog = self.shared.catalog.load();
            let planned = plan(&sql, &facts, &self.view(&table), &table, &catalog, None);
            drop(catalog);
            if self.held(&table, ALL_ROUTES).await {
                break (table, planned);
            }
        };
        // Nobody has read the rest of it.
        facts.class = Class::Unknown;
        let side = answering(planned.plan, self.lead());
        let statement = Statement {
            length: HEAD_LEN,
            facts: &facts,
            sql: &sql,
            table: &table,
            planned: streamed(planned, side, &table, true),
            commands: None,
            sent: None,
        };
        self.act_streamed(statement).await
    }

    /// Any other command, which has no business being so long: the lead's
    /// server says what it thinks of it.
    pub(super) async fn command_streamed(&mut self, com: u8) -> Result<(), End> {
        self.diagnostics = None;
        self.unknown(com).await
    }

    /// What is kept of a statement whose text is too long to be kept whole.
    pub(super) fn long_statement(&mut self, text: &[u8], side: Side, ok: PrepareOk) -> Prepared {
        let head = text.get(..HEAD_LEN).unwrap_or(text);
        let mut facts = scan(head, self.state.mode);
        facts.class = Class::Unknown;
        facts.diagnostics = None;
        let under = self.under_now();
        Prepared::new(head.into(), false, (Arc::new(facts), under), side, ok)
    }

    /// Where a statement is executed whose text was not kept, or whose
    /// EXECUTE cannot be read, and its id there. None: that leg does not have
    /// it.
    pub(super) fn where_unknown(&self, id: u32) -> Option<(Side, u32)> {
        let Some(statement) = self.prepared.get(id) else {
            return Some(self.nobodys(id));
        };
        let side = self.side_of(&statement.text, &statement.facts);
        let own = statement.ids[side.index()]?;
        // Sent as it is, with nothing ahead of it.
        (!statement.has_data_elsewhere(side)).then_some((side, own))
    }

    /// What a server says that does not have the statement: after a flip a leg
    /// cannot be given one that was not kept. Drivers prepare it again.
    pub(super) async fn refuse_handler(&mut self, id: u32, sequence: u8) -> Result<(), End> {
        self.let_go();
        let message =
            format!("Unknown prepared statement handler ({id}) given to mysqld_stmt_execute");
        let code = ER_UNKNOWN_HANDLER;
        self.client
            .refuse_at(sequence, code, b"HY000", &message)
            .await
    }

    /// COM_STMT_EXECUTE.
    pub(super) async fn execute_streamed(&mut self) -> Result<(), End> {
        self.diagnostics = None;
        let mut length = HEAD_LEN;
        self.arrived(HEADER_LEN + length).await?;
        let mut call = self.call(length);
        if call.is_none() {
            length = EXECUTE_HEAD_LEN;
            self.arrived(HEADER_LEN + length).await?;
            call = self.call(length);
        }
        let id = self.named_statement(length).unwrap_or_default();
        self.read_as_prepared(Some(id));
        let Some(call) = call else {
            self.hold(ALL_ROUTES).await;
            let Some((side, own)) = self.where_unknown(id) else {
                return self.skip_and_refuse(id).await;
            };
            self.patch_id(own);
            self.unmirrored_anywhere(OVERSIZED.as_str(), OnError::Unclear);
            let answered = self.plain(side, ResponseKind::Generic).await;
            if let Ok(summary) = &answered {
                self.executed(id, side, summary).await?;
            }
            self.unmirrored_done();
            return answered.map(|_| ());
        };
        let (table, planned) = self.plan_call(length, &call).await;
        let lead = self.lead();
        let side = match call.facts.tables.is_empty() {
            true => lead,
            false => answering(planned.plan, lead),
        };
        if let Plan::RefusedMixed { a, b } = planned.plan {
            // Before anything is sent ahead of it.
            self.forget_long_data(id).await;
            let sequence = relay::skip_whole_command(&mut self.client).await?;
            return self
                .refuse_mixed(&table, [a, b], sequence.wrapping_add(1))
                .await;
        }
        if !self.ready_for_stream(&call, side).await? {
            return self.skip_and_refuse(id).await;
        }
        let writes = call.facts.class > Class::Read;
        let statement = Statement {
            length,
            facts: &call.facts,
            sql: &call.sql,
            table: &table,
            planned: streamed(planned, side, &table, writes),
            commands: None,
            sent: None,
        };
        self.act_streamed(statement).await?;
        self.ran_on(id, side).await;
        Ok(())
    }

    /// Makes sure that `side` has the statement, its long data and types, and
    /// puts its id there into the command. False: it cannot have them.
    async fn ready_for_stream(&mut self, call: &Call, side: Side) -> Result<bool, End> {
        self.need_leg(side).await?;
        let index = side.index();
        let Some(statement) = self.prepared.get(call.client_id) else {
            return Ok(false);
        };
        if !statement.can_have_long_data(side) {
            return Ok(false);
        }
        let own = match statement.ids[index] {
            Some(own) => own,
            None => match self.prepare_on(call.client_id, side).await? {
                Some(own) => own,
                None => return Ok(false),
            },
        };
        let Some(statement) = self.prepared.get_mut(call.client_id) else {
            return Ok(false);
        };
        if call.execute.new_params_bound {
            if statement.types.as_ref() != Some(&call.types) {
                statement.types = Some(call.types.clone());
                statement.types_sent = [false; 2];
            }
            statement.types_sent[index] = true;
        } else if !statement.types_sent[index] && !call.types.is_empty() {
            return Ok(false);
        }
        let data = statement.missing_long_data(side, own);
        if let Some(leg) = self.legs[index].as_mut().filter(|_| !data.is_empty()) {
            leg.send(&data).await?;
        }
        self.patch_id(own);
        Ok(true)
    }

    pub(super) fn patch_id(&mut self, own: u32) {
        let pending = self.client.input.pending_mut();
        if let Some(place) = pending.get_mut(HEADER_LEN + 1..HEADER_LEN + 5) {
            place.copy_from_slice(&own.to_le_bytes());
        }
    }

    pub(super) async fn skip_and_refuse(&mut self, id: u32) -> Result<(), End> {
        let sequence = relay::skip_whole_command(&mut self.client).await?;
        self.forget_long_data(id).await;
        self.refuse_handler(id, sequence.wrapping_add(1)).await
    }

    pub(super) async fn act_streamed(&mut self, s: Statement<'_>) -> Result<(), End> {
        let Plan::RefusedMixed { a, b } = s.planned.plan else {
            return self.act(s).await;
        };
        let sequence = relay::skip_whole_command(&mut self.client).await?;
        self.refuse_mixed(s.table, [a, b], sequence.wrapping_add(1))
            .await
    }
}

/// The plan of a command that is streamed: nothing is mirrored of it, and no
/// mirror answers it.
pub(super) fn streamed(planned: Planned, side: Side, table: &RouteTable, writes: bool) -> Planned {
    let mirrored = table.routes.iter().any(|r| r.phase.mirrored());
    let plan = match planned.plan {
        refused @ Plan::RefusedMixed { .. } => refused,
        _ if writes && mirrored => Plan::Deferred(side),
        _ => Plan::Active(side),
    };
    Planned {
        plan,
        routes: ALL_ROUTES,
        route: None,
        reason: OVERSIZED,
    }
}
