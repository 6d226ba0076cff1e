//! Plain reads: the short way of most statements.
//!
//! A SELECT that neither reads nor changes anything of its session, outside a
//! transaction, on the active side: no route is held for it, nothing has to be
//! brought to its leg, and its text teaches nothing. The general way
//! ([`Session::act`]) comes to the same in more steps.

use super::state::Opened;
use super::{End, Session};
use crate::Side;
use crate::mirror::Part;
use crate::route::plan::{Plan, plan};
use crate::sql::{Facts, scan};
use crate::telemetry;
use crate::wire::command::{ResponseKind, query_text};
use crate::wire::frame::HEADER_LEN;

impl Session {
    /// The side that answers the pending COM_QUERY, if that is a plain read.
    /// Else what its text was found to be, if it was scanned.
    pub(super) fn plain_read(&mut self, length: usize) -> Result<Side, Option<Box<Facts>>> {
        if self.client.input.pending().len() < HEADER_LEN + length || !self.is_at_ease() {
            return Err(None);
        }
        let payload = self.payload(length);
        let sql = query_text(payload, self.client.capabilities)
            .ok()
            .and_then(|range| payload.get(range))
            .filter(|sql| (sql.get(..6)).is_some_and(|verb| verb.eq_ignore_ascii_case(b"select")))
            .ok_or(None)?;
        let facts = scan(sql, self.state.mode);
        match self.answers_plainly(sql, &facts, Some) {
            Some(side) => {
                self.pending.abandon = true;
                Ok(side)
            }
            // A box: an idle session would keep room for it.
            None => Err(Some(Box::new(facts))),
        }
    }

    /// The side that answers an EXECUTE of a plain read, and the statement's id
    /// there, if it can run there as it was sent.
    pub(super) fn plain_execute(&mut self, id: u32) -> Option<(Side, u32)> {
        let statement = self.prepared.get(id)?;
        if !statement.whole || !statement.facts.is_plain_read() || !self.is_at_ease() {
            return None;
        }
        self.under = Some(statement.under.clone());
        // 1. The leg does not take the session's schema, and is opened anew; 2. its
        // id of the statement is the old leg's.
        let ready = |side| self.ready_on(id, side).filter(|_| self.is_in_step(side));
        self.answers_plainly(&statement.text, &statement.facts, |side| {
            Some((side, ready(side)?))
        })
    }

    /// Nothing is under way in the session that a read would be part of.
    fn is_at_ease(&self) -> bool {
        self.transaction.lead.is_none()
            && !self.state.in_transaction()
            && self.state.one_shot_side.is_none()
            && self.parts == [Part::None; 2]
    }

    /// What `ready` says to the side, if that is the active one and no route has
    /// to be held. The statement is counted then.
    fn answers_plainly<T>(
        &self,
        sql: &[u8],
        facts: &Facts,
        ready: impl FnOnce(Side) -> Option<T>,
    ) -> Option<T> {
        if !facts.is_plain_read() {
            return None;
        }
        let table = self.shared.routes.peek();
        let catalog = self.shared.catalog.load();
        let planned = plan(sql, facts, &self.view(&table), &table, &catalog, None);
        let Plan::Active(side) = planned.plan else {
            return None;
        };
        // In the passive mode every statement holds every route.
        if table.passive || planned.routes != 0 {
            return None;
        }
        let ready = ready(side)?;
        let route = planned.route.and_then(|r| table.routes.get(r));
        let label = route.map_or(telemetry::UNROUTED, |r| r.name.as_str());
        telemetry::statements(label, "active");
        Some(ready)
    }

    /// Has `side` answer the pending COM_QUERY, which teaches nothing.
    pub(super) async fn answer_plainly(&mut self, side: Side) -> Result<(), End> {
        self.diagnostics = None;
        let summary = self.plain(side, ResponseKind::Generic).await?;
        self.pending.abandon = false;
        if summary.results > u32::from(!summary.is_error) {
            // Several statements in a text that was too long to be looked at.
            self.doubt_settings(side);
        }
        if summary.is_error {
            Box::pin(self.refused_in_transaction(side)).await?;
        }
        self.after_any(side);
        Ok(())
    }

    /// After the answer to what was not looked at closely.
    ///
    /// 1. `CALL p()` begins a transaction, writes, and ends with an error, which
    ///    has no flags; 2. the next read's answer is the first to show that one is
    ///    open; 3. nothing has happened in it, we think: a write on the other side
    ///    moves it there, and what the routine wrote is rolled back.
    pub(super) fn after_any(&mut self, side: Side) {
        self.transaction.touched = true;
        self.after(side);
        if self.transaction.lead.is_none() {
            self.state.opened = Opened::default();
        }
    }
}
