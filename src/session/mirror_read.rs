//! Reads on the mirror.

use super::legs::Role;
use super::statement::Statement;
use super::{End, Session, relay};
use crate::Side;
use crate::leg::ANSWER_MAX;
use crate::mirror::debts::Settled;
use crate::wire::command::ResponseKind;
use crate::wire::frame::HEADER_LEN;

impl Session {
    /// A plain read on the mirror. False: it could not be had there, and the
    /// command is still pending.
    pub(super) async fn mirrored_read(
        &mut self,
        side: Side,
        s: &Statement<'_>,
    ) -> Result<bool, End> {
        if !self.has_own_writes(s).await {
            return Ok(false);
        }
        if !self
            .try_leg(side, Role::Read, self.shared.mirror.deadline)
            .await
        {
            return Ok(false);
        }
        let route = s.planned.route.and_then(|r| s.table.routes.get(r));
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Ok(false);
        };
        let client = &mut self.client;
        self.entry.set_running(side);
        let first = async {
            let command = match &s.commands {
                Some(commands) => &commands[side.index()][..],
                None => &client.input.pending()[..HEADER_LEN + s.length],
            };
            leg.send(command).await?;
            relay::fill(client, leg, true).await
        };
        let answered = match route {
            Some(route) => {
                // A suspension sends reads back to the active side at once.
                let suspension = route.live.suspension.notified();
                tokio::pin!(suspension);
                suspension.as_mut().enable();
                if route.suspended() {
                    return Ok(false);
                }
                tokio::select! {
                    biased;
                    done = first => done,
                    () = suspension => Err(End::Protocol("suspended")),
                }
            }
            None => first.await,
        };
        self.pending.abandon = true;
        match answered {
            Ok(()) => {}
            Err(End::Abandoned) => {
                self.legs_broken = true;
                return Err(End::Abandoned);
            }
            Err(_) => {
                self.drop_leg(side);
                return Ok(false);
            }
        }
        if self.refused_there(side).await? {
            return Ok(false);
        }
        self.diagnostics = None;
        self.values.last = Some(side);
        self.consume_command(s.length);
        let summary = self.relay_answer(side, ResponseKind::Generic).await?;
        self.read_warnings = summary.warnings;
        self.pending.abandon = false;
        Ok(true)
    }

    /// Whether the mirror answers a read with an error: a privilege, a function or
    /// a rule that only the active side has. That one is asked then; an error of
    /// the application's is an error there, too. Not what somebody interrupted.
    async fn refused_there(&mut self, side: Side) -> Result<bool, End> {
        const INTERRUPTED: [u16; 3] = [1317, 1969, 3024];
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Ok(false);
        };
        let code = match leg.input.pending().get(HEADER_LEN..) {
            Some([0xFF, low, high, ..]) => u16::from_le_bytes([*low, *high]),
            _ => return Ok(false),
        };
        if INTERRUPTED.contains(&code) {
            return Ok(false);
        }
        crate::telemetry::error(side.as_str(), "read_refused");
        if leg.answer(ResponseKind::Generic, ANSWER_MAX).await.is_err() {
            self.drop_leg(side);
        }
        self.pending.abandon = false;
        Ok(true)
    }

    /// Whether the mirror has what this session wrote, once it has waited for it.
    async fn has_own_writes(&self, s: &Statement<'_>) -> bool {
        if !self.debts.any() {
            return true;
        }
        let limit = self.shared.mirror.deadline;
        // Boxed: every session would carry its room for ever.
        let settled = Box::pin(self.debts.settle(limit)).await;
        // A phase that changed meanwhile may have made another side the mirror.
        let peeked = self.shared.routes.peek().generation;
        settled == Settled::Yes && peeked == s.table.generation
    }
}
