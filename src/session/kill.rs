//! KILL: the client knows the thread ids sessions were greeted with.
//!
//! Such an id belongs to the backend that greeted, so it is looked up in the
//! registry and replaced by the id of the leg that session uses now; an id
//! nobody was greeted with goes to the lead as it is.

use std::sync::Arc;

use super::registry::Entry;
use super::statement::Statement;
use super::{End, Session};
use crate::Side;
use crate::leg::put_query;
use crate::sql::Kill;
use crate::wire::command::ResponseKind;

/// Who is meant by a thread id.
struct Victim {
    entry: Arc<Entry>,
    /// The leg to kill, and its id there.
    side: Side,
    id: u32,
}

impl Session {
    /// KILL [QUERY|CONNECTION] n.
    pub(super) async fn kill(&mut self, s: Statement<'_>) -> Result<(), End> {
        let lead = self.lead();
        let meant = s.facts.kill.and_then(|kill| {
            let id = u32::try_from(kill.id).ok()?;
            Some((kill, self.meant_by(id, kill.query_only)?))
        });
        let Some((kill, victim)) = meant else {
            return self.run(lead, &s).await;
        };
        if victim.side == lead && u64::from(victim.id) == kill.id {
            self.run(lead, &s).await?;
        } else {
            self.diagnostics = None;
            self.consume_command(s.length);
            self.kill_leg(&victim, kill.query_only).await?;
        }
        if !kill.query_only {
            self.kill_other_leg(&victim);
        }
        Ok(())
    }

    /// A KILL that was prepared with the id in its text, as drivers do that
    /// prepare everything.
    pub(super) async fn execute_kill(&mut self, length: usize, kill: Kill) -> Result<(), End> {
        let id = u32::try_from(kill.id).ok();
        let Some(victim) = id.and_then(|id| self.meant_by(id, kill.query_only)) else {
            return self.execute_classified(length).await;
        };
        if victim.side == self.lead() && u64::from(victim.id) == kill.id {
            self.execute_classified(length).await?;
        } else {
            self.diagnostics = None;
            self.consume_command(length);
            self.kill_leg(&victim, kill.query_only).await?;
        }
        if !kill.query_only {
            self.kill_other_leg(&victim);
        }
        Ok(())
    }

    /// COM_PROCESS_KILL.
    pub(super) async fn process_kill(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        let lead = self.lead();
        let asked = super::command::statement_id(self.payload(length));
        let Some(victim) = asked.and_then(|id| self.meant_by(id, false)) else {
            self.plain(lead, ResponseKind::Generic).await?;
            return Ok(());
        };
        if victim.side == lead && Some(victim.id) == asked {
            self.plain(lead, ResponseKind::Generic).await?;
        } else {
            self.consume_command(length);
            self.kill_leg(&victim, false).await?;
        }
        self.kill_other_leg(&victim);
        Ok(())
    }

    /// The session greeted with this id, and its leg to kill: of a query the
    /// one it runs on (a read may be on the mirror), of the connection the one
    /// whose end is the session's.
    fn meant_by(&self, id: u32, query_only: bool) -> Option<Victim> {
        let registry = &self.shared.registry;
        let entry = registry.by_client_id(id, self.entry.greeted_by)?;
        let lead = entry.lead().unwrap_or(self.shared.routes.peek().home());
        let first = entry.running().filter(|_| query_only).unwrap_or(lead);
        let (side, id) = [first, lead, lead.other()]
            .into_iter()
            .find_map(|side| Some((side, entry.leg(side)?)))?;
        Some(Victim { entry, side, id })
    }

    /// Sends the KILL with the client's own rights.
    async fn kill_leg(&mut self, victim: &Victim, query_only: bool) -> Result<(), End> {
        let Victim { side, id, .. } = *victim;
        self.need_leg(side).await?;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        let what = if query_only { "QUERY" } else { "CONNECTION" };
        let mut out = Vec::new();
        put_query(
            &mut out,
            leg.capabilities,
            format!("KILL {what} {id}").as_bytes(),
        );
        leg.send(&out).await?;
        self.relay_answer(side, ResponseKind::Generic).await?;
        Ok(())
    }

    /// The connection that the server has just let this client end had a read
    /// running on its other leg: the session would notice only after it.
    fn kill_other_leg(&self, victim: &Victim) {
        let Some(leg) = self.legs[victim.side.index()].as_ref() else {
            return;
        };
        let other = victim.side.other();
        if !leg.cursor.summary().is_error
            && victim.entry.running() == Some(other)
            && let Some(id) = victim.entry.leg(other)
        {
            self.shared.mirror.reaper.kill(other, id);
        }
    }
}
