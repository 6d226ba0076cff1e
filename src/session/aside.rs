//! Statements that only one leg can answer, whichever leads: user-level locks,
//! which live on the source, and questions about the previous statement.

use super::statement::Statement;
use super::values::asks_previous;
use super::{End, Session, diagnostics};
use crate::Side;
use crate::leg::WARNINGS_MAX;
use crate::sql::{Class, Facts, Flags, Verb};
use crate::wire::command::ResponseKind;
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::{Capabilities, Status};

impl Session {
    /// The side of a statement that is planned for `side`: what names no table
    /// follows the session, save for what one leg alone can answer.
    pub(super) fn side_for(&self, side: Side, facts: &Facts, sql: &[u8]) -> Side {
        if facts.verb == Verb::Handler {
            return self.handler_side(sql).unwrap_or(side);
        }
        if !facts.tables.is_empty()
            || facts.flags.has(Flags::GET_LOCK) && facts.class < Class::Write
        {
            return side;
        }
        let lead = self.lead();
        match self.values.last {
            Some(last) if asks_previous(facts) && self.legs[last.index()].is_some() => last,
            _ => lead,
        }
    }

    /// Whether the pending command is kept whole: of one that is streamed only
    /// the head is there.
    pub(super) fn is_whole(&self, length: usize) -> bool {
        frame::header(self.client.input.pending()).is_some_and(|head| head.len == length)
    }

    /// Runs a statement on a leg beside the one that leads, whose transaction
    /// is none of its business.
    pub(super) async fn aside(&mut self, side: Side, s: Statement<'_>) -> Result<(), End> {
        self.diagnostics = None;
        if asks_previous(s.facts) {
            // In step since that statement: anything told to the leg now would
            // wipe what is asked for.
            self.values.last = Some(side);
        } else {
            self.need_leg(side).await?;
            self.values_for(side, s.facts, s.sql).await?;
        }
        let own = &self.client.input.pending()[..HEADER_LEN + s.length];
        let command = match &s.commands {
            Some(commands) => commands[side.index()].clone(),
            None => own.to_vec(),
        };
        self.consume_command(s.length);
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.entry.set_running(side);
        leg.send(&command).await?;
        if self.transaction.lead.is_none() {
            // A client that vanishes waits for no lock.
            self.pending.abandon = true;
            let summary = self.relay_answer(side, ResponseKind::Generic).await?;
            self.pending.abandon = false;
            if !summary.is_error {
                if !asks_previous(s.facts) {
                    // One that does was asked of a leg that nobody brought in
                    // step, and changes nothing.
                    self.learn(&s, side).await;
                }
                if s.facts.verb == Verb::GetDiagnostics {
                    self.variables_set_aside(side, s.sql).await?;
                }
            }
            return Ok(());
        }
        let answer = leg.answer(ResponseKind::Generic, WARNINGS_MAX).await?;
        let caps = leg.capabilities;
        let out = with_flags(&answer.bytes, caps, self.state.status);
        self.client.send(&out).await?;
        if s.facts.verb == Verb::GetDiagnostics {
            self.variables_set_aside(side, s.sql).await?;
        }
        Ok(())
    }
}

/// An answer with the open transaction's flags in its last packets.
fn with_flags(bytes: &[u8], caps: Capabilities, status: Status) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    let mut first = true;
    while let Some((payload, used, sequence)) = frame::packet(rest) {
        let end = match payload.first() {
            Some(0) => first,
            Some(0xFE) => payload.len() < 4096,
            _ => false,
        };
        if end {
            let mut sequence = sequence;
            let packet = diagnostics::with_status(payload, caps, status);
            frame::put_packet(&mut out, &mut sequence, &packet);
        } else {
            out.extend_from_slice(&rest[..used]);
        }
        first = false;
        rest = &rest[used..];
    }
    out
}
