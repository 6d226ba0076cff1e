//! MariaDB's bulk EXECUTE: relayed to the active side and deferred where its
//! route is mirrored, since one command stands for many rows.
//!
//! A session that was greeted by MariaDB goes on using it after a flip to
//! MySQL, which does not know the command: there each row is executed by
//! itself, in one transaction, as MariaDB does with an INSERT.

use std::sync::Arc;

use super::client::COMMAND_MAX;
use super::execute::answering;
use super::large::{HEAD_LEN, streamed};
use super::statement::Statement;
use super::unmirrored::OnError;
use super::{End, Session};
use crate::Side;
use crate::leg::{ANSWER_MAX, Leg, Lost};
use crate::mirror::write::{COMMIT, ROLLBACK};
use crate::route::plan::{Planned, Reason, plan};
use crate::route::table::RouteTable;
use crate::sql::{Class, Facts};
use crate::wire::command::{
    Bulk, COM_STMT_BULK_EXECUTE, ResponseKind, bulk_for_leg, parse_bulk, single_executions,
};
use crate::wire::frame::put_packet;
use crate::wire::ok::{ErrPacket, OkPacket};
use crate::wire::{Capabilities, Status};

const BULK: Reason = Reason("bulk_execute");

/// ER_WRONG_ARGUMENTS: what a server says to a parameter it cannot take.
const ER_WRONG_ARGUMENTS: u16 = 1210;

/// A bulk EXECUTE of a known statement, read.
struct Call {
    id: u32,
    bulk: Bulk,
    types: Vec<u8>,
    text: Arc<[u8]>,
    facts: Arc<Facts>,
}

impl Session {
    /// Serves a COM_STMT_BULK_EXECUTE.
    pub(super) async fn bulk(&mut self, length: usize) -> Result<(), End> {
        self.diagnostics = None;
        self.expect_no_cursor();
        if !self.client.capabilities.has(Capabilities::MARIADB_BULK) {
            return self.unknown(COM_STMT_BULK_EXECUTE).await;
        }
        let whole = length <= COMMAND_MAX;
        let head = if whole { length } else { HEAD_LEN };
        self.arrived(crate::wire::frame::HEADER_LEN + head).await?;
        self.read_as_prepared(self.named_statement(head));
        let Some(call) = self.bulk_call(head) else {
            return self.unknown(COM_STMT_BULK_EXECUTE).await;
        };
        if whole && call.bulk.types.is_empty() && self.lacks_types(head) {
            return self.refuse_malformed(length).await;
        }
        let (table, planned) = self.plan_bulk(&call).await;
        let lead = self.lead();
        let side = match call.facts.tables.is_empty() {
            true => lead,
            false => answering(planned.plan, lead),
        };
        self.need_leg(side).await?;
        let own = match self.prepared.get(call.id).and_then(|s| s.ids[side.index()]) {
            Some(own) => Some(own),
            None => self.prepare_on(call.id, side).await?,
        };
        let knows = |leg: &Leg| leg.capabilities.has(Capabilities::MARIADB_BULK);
        let knows = self.legs[side.index()].as_ref().is_some_and(knows);
        let missing = self.types_missing(&call, side);
        let (Some(own), true) = (own, whole || (knows && !missing)) else {
            return self.skip_and_refuse(call.id).await;
        };
        if !knows {
            return self.unrolled(&call, side, own, length).await;
        }
        let mut commands = None;
        if whole {
            let types = missing.then_some(&call.types[..]);
            let payload = self.payload(length);
            let Ok(body) = bulk_for_leg(payload, &call.bulk, own, types) else {
                return self.unknown(COM_STMT_BULK_EXECUTE).await;
            };
            let mut both = [Vec::new(), Vec::new()];
            put_packet(&mut both[side.index()], &mut 0, &body);
            commands = Some(both);
        } else {
            self.patch_id(own);
        }
        self.keep_types(&call, side);
        let writes = call.facts.class > Class::Read;
        let planned = Planned {
            route: planned.route,
            routes: planned.routes,
            reason: BULK,
            ..streamed(planned, side, &table, writes)
        };
        let statement = Statement {
            length,
            facts: &call.facts,
            sql: &call.text,
            table: &table,
            planned,
            commands,
            sent: None,
        };
        self.act_streamed(statement).await?;
        self.ran_on(call.id, side).await;
        Ok(())
    }

    fn bulk_call(&self, length: usize) -> Option<Call> {
        let id = self.named_statement(length)?;
        let statement = self.prepared.get(id).filter(|s| s.whole)?;
        let payload = self.payload(length);
        let bulk = parse_bulk(payload, statement.parameters).ok()?;
        let types = match payload.get(bulk.types.clone())? {
            [] => statement.types.clone().unwrap_or_default(),
            own => own.to_vec(),
        };
        Some(Call {
            id,
            bulk,
            types,
            text: statement.text.clone(),
            facts: statement.facts.clone(),
        })
    }

    async fn plan_bulk(&mut self, call: &Call) -> (Arc<RouteTable>, Planned) {
        loop {
            let table = self.shared.routes.load();
            let catalog = self.shared.catalog.load();
            let view = self.view(&table);
            let planned = plan(&call.text, &call.facts, &view, &table, &catalog, None);
            drop(catalog);
            if self.held(&table, planned.routes).await {
                return (table, planned);
            }
        }
    }

    /// The command relies on types that `side` has not had.
    fn types_missing(&self, call: &Call, side: Side) -> bool {
        let statement = self.prepared.get(call.id);
        call.bulk.types.is_empty()
            && !call.types.is_empty()
            && statement.is_some_and(|s| !s.types_sent[side.index()])
    }

    fn keep_types(&mut self, call: &Call, side: Side) {
        if let Some(statement) = self.prepared.get_mut(call.id) {
            if statement.types.as_ref() != Some(&call.types) {
                statement.types = Some(call.types.clone());
                statement.types_sent = [false; 2];
            }
            statement.types_sent[side.index()] = true;
        }
    }

    /// Executes the rows one by one on a server without the command.
    async fn unrolled(
        &mut self,
        call: &Call,
        side: Side,
        own: u32,
        length: usize,
    ) -> Result<(), End> {
        let second = self.take_side(side).await?;
        self.values_for(side, &call.facts, &call.text).await?;
        let implicit = !self.state.in_transaction();
        self.unmirrored_anywhere(BULK.as_str(), OnError::Unclear);
        let payload = self.payload(length).to_vec();
        self.consume_command(length);
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.legs_broken = true;
        let executions = single_executions(&payload, &call.bulk, &call.types, own);
        let outcome = one_by_one(leg, executions, implicit).await;
        self.legs_broken = false;
        self.keep_types(call, side);
        self.ran_on(call.id, side).await;
        let mut out = Vec::new();
        let outcome = outcome?;
        let refused = matches!(outcome, Outcome::Refused(_)).then_some(false);
        match outcome {
            Outcome::Done(ok) => put_packet(&mut out, &mut 1, &ok.build(self.client.capabilities)),
            Outcome::Refused(packet) => out = packet,
        }
        self.client.send(&out).await?;
        if second {
            Box::pin(self.second_ran(side, refused)).await?;
        } else {
            if refused.is_some() {
                // A deadlock has rolled the transaction back, and the mirror's
                // part of it goes, too.
                self.refused_in_transaction(side).await?;
            }
            self.transaction.touched = true;
            self.after(side);
        }
        self.unmirrored_done();
        Ok(())
    }
}

enum Outcome {
    Done(OkPacket<'static>),
    /// The server's error, framed.
    Refused(Vec<u8>),
}

/// Runs the executions in one transaction, and adds their answers up.
async fn one_by_one(
    leg: &mut Leg,
    executions: impl Iterator<Item = Result<Vec<u8>, crate::wire::WireError>>,
    implicit: bool,
) -> Result<Outcome, Lost> {
    if implicit {
        leg.query(b"BEGIN").await?;
    }
    let mut sum = OkPacket::new(Status(0));
    let mut refused = None;
    for execution in executions {
        let Ok(body) = execution else {
            let message = b"Incorrect arguments to mysqld_stmt_bulk_execute";
            let error = ErrPacket::new(ER_WRONG_ARGUMENTS, b"HY000", message);
            let mut out = Vec::new();
            put_packet(&mut out, &mut 1, &error.build());
            refused = Some(out);
            break;
        };
        let mut out = Vec::with_capacity(body.len() + 8);
        put_packet(&mut out, &mut 0, &body);
        leg.send(&out).await?;
        let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        if answer.summary.is_error {
            refused = Some(answer.bytes);
            break;
        }
        let one = &answer.summary;
        sum.affected_rows = sum.affected_rows.saturating_add(one.affected_rows);
        sum.warnings = sum.warnings.saturating_add(one.warnings);
        if sum.insert_id == 0 {
            sum.insert_id = one.insert_id;
        }
    }
    if let Some(error) = refused {
        if implicit {
            leg.query(ROLLBACK).await?;
        }
        return Ok(Outcome::Refused(error));
    }
    if implicit {
        let commit = leg.query(COMMIT).await?;
        if commit.summary.is_error {
            // A KILL QUERY that came late, perhaps: then it is still open.
            leg.query(ROLLBACK).await?;
            return Ok(Outcome::Refused(commit.bytes));
        }
    }
    sum.status = leg.status.without(Status::SESSION_STATE_CHANGED);
    Ok(Outcome::Done(sum))
}
