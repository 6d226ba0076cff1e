//! KILL: the client knows the thread ids sessions were greeted with.
//!
//! Such an id belongs to the backend that greeted, so it is looked up in the
//! registry and replaced by the id of the leg that session uses now; an id
//! nobody was greeted with goes to the lead as it is.

use std::sync::atomic::Ordering;

use super::statement::Statement;
use super::{End, Session};
use crate::Side;
use crate::leg::put_query;
use crate::wire::command::ResponseKind;

impl Session {
    /// KILL [QUERY|CONNECTION] n.
    pub(super) async fn kill(&mut self, s: Statement<'_>) -> Result<(), End> {
        let lead = self.lead();
        let Some(kill) = s.facts.kill else {
            return self.run(lead, &s).await;
        };
        let Some((side, id)) = self.meant_by(kill.id, lead) else {
            return self.run(lead, &s).await;
        };
        if side == lead && u64::from(id) == kill.id {
            return self.run(lead, &s).await;
        }
        self.diagnostics = None;
        self.consume_command(s.length);
        let verb: &str = if kill.query_only {
            "KILL QUERY"
        } else {
            "KILL CONNECTION"
        };
        self.kill_leg(side, &format!("{verb} {id}")).await
    }

    /// COM_PROCESS_KILL.
    pub(super) async fn process_kill(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        let lead = self.lead();
        let id = super::command::statement_id(self.payload(length));
        match id.and_then(|id| self.meant_by(u64::from(id), lead).map(|m| (id, m))) {
            Some((asked, (side, id))) if side != lead || id != asked => {
                self.consume_command(length);
                self.kill_leg(side, &format!("KILL CONNECTION {id}")).await
            }
            _ => {
                self.plain(lead, ResponseKind::Generic).await?;
                Ok(())
            }
        }
    }

    /// The leg a client means: of the session greeted with this id, the one on
    /// the lead side if there is one, else the other.
    fn meant_by(&self, id: u64, lead: Side) -> Option<(Side, u32)> {
        let id = u32::try_from(id).ok()?;
        let entry = self
            .shared
            .registry
            .by_client_id(id, self.entry.greeted_by)?;
        [lead, lead.other()].into_iter().find_map(|side| {
            match entry.legs[side.index()].load(Ordering::Relaxed) {
                0 => None,
                leg => Some((side, leg)),
            }
        })
    }

    /// Sends the KILL with the client's own rights.
    async fn kill_leg(&mut self, side: Side, sql: &str) -> Result<(), End> {
        self.need_leg(side).await?;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        let mut out = Vec::new();
        put_query(&mut out, leg.capabilities, sql.as_bytes());
        leg.send(&out).await?;
        self.relay_answer(side, ResponseKind::Generic).await?;
        Ok(())
    }
}
