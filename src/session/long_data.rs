//! COM_STMT_SEND_LONG_DATA: parts of a parameter's value, ahead of its EXECUTE.
//!
//! It has no answer. All chunks of one execution go to one leg, at once; a leg
//! that executes it as well is sent its copy together with the EXECUTE
//! (protocol-review M5). Whoever had them and does not execute forgets them.
//!
//! The interleaving this prevents:
//! 1. A chunk goes to the source; 2. its leg is lost, or the route flips;
//! 3. the second chunk goes to the target, whose EXECUTE writes half a value.

use super::client::COMMAND_MAX;
use super::command::ID_LEN;
use super::large::HEAD_LEN;
use super::{End, Session, relay};
use crate::Side;
use crate::leg::ANSWER_MAX;
use crate::wire::command::{COM_STMT_CLOSE, COM_STMT_RESET, ResponseKind};
use crate::wire::frame::{HEADER_LEN, put_command};

/// Bytes of a parameter's number, behind the statement's id.
const PARAMETER_LEN: usize = 2;

impl Session {
    /// Serves one chunk.
    pub(super) async fn long_data(&mut self, length: usize) -> Result<(), End> {
        if length > COMMAND_MAX {
            return self.long_data_streamed().await;
        }
        self.whole_command(length).await?;
        if length < 1 + ID_LEN + PARAMETER_LEN && self.answers_malformed() {
            let lead = self.lead();
            return self.plain(lead, ResponseKind::Generic).await.map(drop);
        }
        let Some(id) = self.named_statement(length) else {
            self.consume_command(length);
            return Ok(());
        };
        // 1. A leg was discarded behind the client's back; 2. its ids are still
        // noted; 3. on the leg opened for it, the id is another statement's.
        if let Some((side, _)) = self.long_data_home(id) {
            self.need_leg(side).await?;
        }
        let home = self.long_data_home(id);
        // While nothing is mirrored no other leg will need it.
        let keep = home.is_none() || !self.shared.routes.peek().passive;
        let ahead = self.data_ahead(id, home);
        let payload = self
            .client
            .input
            .pending()
            .get(HEADER_LEN..HEADER_LEN + length);
        let chunk = payload
            .filter(|_| keep)
            .and_then(|p| Some((u16::from_le_bytes([*p.get(5)?, *p.get(6)?]), p.get(7..)?)));
        let side = home.map(|(side, _)| side);
        self.prepared.keep_long_data(id, side, chunk);
        let Some((side, own)) = home else {
            self.consume_command(length);
            return Ok(());
        };
        self.send_ahead(side, &ahead).await?;
        self.send_with_id(length, side, own).await
    }

    /// One of several packets, which nobody keeps: to the leg where the
    /// statement will run; no other can have it any more.
    async fn long_data_streamed(&mut self) -> Result<(), End> {
        self.arrived(HEADER_LEN + HEAD_LEN).await?;
        let id = self.named_statement(HEAD_LEN).unwrap_or_default();
        self.read_as_prepared(Some(id));
        let home = self.streamed_data_home(id).await?;
        let ahead = self.data_ahead(id, home);
        let before = self.prepared.get(id).and_then(|s| s.long_data_at);
        self.prepared
            .keep_long_data(id, home.map(|(side, _)| side), None);
        let Some((side, own)) = home else {
            relay::skip_whole_command(&mut self.client).await?;
            return Ok(());
        };
        if let Some(before) = before.filter(|before| *before != side) {
            self.forget_data_on(id, before).await;
        }
        self.send_ahead(side, &ahead).await?;
        self.patch_id(own);
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.legs_broken = true;
        relay::stream_whole_command(&mut self.client, leg, &mut self.pending).await?;
        self.legs_broken = false;
        Ok(())
    }

    /// The leg for the next chunk, and the statement's id there: where the ones
    /// before it are, else any that has the statement. None: no leg has both,
    /// so that it can only be kept.
    fn long_data_home(&self, id: u32) -> Option<(Side, u32)> {
        let Some(s) = self.prepared.get(id) else {
            return Some(self.nobodys(id));
        };
        let at = |side: Side| {
            self.legs[side.index()].as_ref()?;
            Some((side, s.ids[side.index()]?))
        };
        match s.long_data_at {
            Some(side) => at(side),
            // A part of the value is lost with its leg.
            None if s.long_data_lost => None,
            None => at(s.side).or_else(|| at(s.side.other())),
        }
    }

    /// Where a command goes that names a statement nobody knows: the lead's
    /// server says so.
    pub(super) fn nobodys(&self, id: u32) -> (Side, u32) {
        let lead = self.lead();
        let mariadb = self.state.mode.server.mariadb;
        (lead, self.prepared.unknown(id, lead, mariadb))
    }

    /// The same for a chunk that is not kept: the leg that is to execute.
    async fn streamed_data_home(&mut self, id: u32) -> Result<Option<(Side, u32)>, End> {
        let Some(s) = self.prepared.get(id) else {
            return Ok(self.long_data_home(id));
        };
        if s.long_data_lost {
            // No other leg can have what is before it.
            return Ok(self.long_data_home(id));
        }
        let side = self.side_of(&s.text, &s.facts);
        self.need_leg(side).await?;
        let own = match self.prepared.get(id).and_then(|s| s.ids[side.index()]) {
            Some(own) => Some(own),
            None => self.prepare_on(id, side).await?,
        };
        Ok(match own {
            Some(own) => Some((side, own)),
            None => self.long_data_home(id),
        })
    }

    /// The chunks that the leg has to have before the next one.
    fn data_ahead(&self, id: u32, home: Option<(Side, u32)>) -> Vec<u8> {
        match (self.prepared.get(id), home) {
            (Some(s), Some((side, own))) => s.missing_long_data(side, own),
            _ => Vec::new(),
        }
    }

    async fn send_ahead(&mut self, side: Side, ahead: &[u8]) -> Result<(), End> {
        self.need_leg(side).await?;
        if let Some(leg) = self.legs[side.index()].as_mut()
            && !ahead.is_empty()
        {
            leg.send(ahead).await?;
        }
        Ok(())
    }

    /// The statement will not be executed with the long data that was sent.
    pub(super) async fn forget_long_data(&mut self, id: u32) {
        if let Some(at) = self.prepared.drop_long_data(id) {
            self.forget_data_on(id, at).await;
        }
    }

    /// A leg that was sent long data and does not execute would add them to the
    /// next ones: it forgets the statement, or the data alone where it could
    /// not be given the statement again.
    pub(super) async fn forget_data_on(&mut self, id: u32, at: Side) {
        let index = at.index();
        let lead = self.lead();
        let Some(statement) = self.prepared.get_mut(id) else {
            return;
        };
        let (whole, open) = (statement.whole, statement.cursor == Some(index));
        let Some(own) = statement.ids[index] else {
            return;
        };
        if whole {
            statement.ids[index] = None;
            statement.types_sent[index] = false;
        }
        if open {
            self.prepared.set_open(id, false);
            self.repin();
        }
        let Some(leg) = self.legs[index].as_mut() else {
            return;
        };
        let mut out = Vec::with_capacity(16);
        if whole {
            put_command(&mut out, COM_STMT_CLOSE, &own.to_le_bytes());
            // A leg that is gone shows at its next use.
            let _ = leg.send(&out).await;
            return;
        }
        put_command(&mut out, COM_STMT_RESET, &own.to_le_bytes());
        let reset = async {
            leg.send(&out).await?;
            leg.answer(ResponseKind::Generic, ANSWER_MAX).await
        };
        if at == lead {
            // Without it the session cannot go on: no limit, and its loss
            // shows at its next use.
            let _ = reset.await;
            return;
        }
        let limit = self.shared.mirror.deadline;
        if !matches!(tokio::time::timeout(limit, reset).await, Ok(Ok(_))) {
            self.drop_leg(at);
        }
    }
}
