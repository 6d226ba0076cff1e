//! Every command byte but the statements': who gets it, what it changes.

use std::future::poll_fn;

use super::change_user::{self, ChangeUserEnd};
use super::client::{COMMAND_MAX, Woken};
use super::relay::{self, Short};
use super::unmirrored::OnError;
use super::values::Values;
use super::{End, LoginParts, Session};
use crate::Side;
use crate::leg::{ANSWER_MAX, Leg};
use crate::mirror::Part;
use crate::route::table::ALL_ROUTES;
use crate::sql::Facts;
use crate::telemetry;
use crate::wire::Status;
use crate::wire::command::*;
use crate::wire::frame::{HEADER_LEN, put_command};
use crate::wire::response::{Fed, Summary};

/// What says of a command that nothing was done: ER_UNKNOWN_COM_ERROR,
/// ER_UNKNOWN_STMT_HANDLER, ER_MALFORMED_PACKET. MariaDB reads what is missing
/// of the next one from its last answer, which shall not be our ping's.
pub(super) const NOTHING_DONE: [u16; 3] = [1047, 1243, 1835];

/// Bytes of a statement's id.
pub(super) const ID_LEN: usize = 4;

impl Session {
    /// Serves the command whose first bytes are pending.
    pub(super) async fn command(&mut self) -> Result<(), End> {
        let served = match self.dispatch().await {
            Err(End::OutOfOrder) => Err(Box::pin(self.out_of_order()).await),
            served => served,
        };
        if self.sandboxed && served.is_ok() {
            // The server may let it go on by now.
            Box::pin(self.begin()).await?;
        }
        if let Some(mask) = self.narrow.take()
            && self.holds_on()
        {
            self.shared.routes.keep(&self.slot, mask);
        }
        if self.slot.holding() != 0 {
            self.let_go();
        }
        served
    }

    async fn dispatch(&mut self) -> Result<(), End> {
        let length = self.command_head().await?;
        let first = self.client.input.pending().get(HEADER_LEN);
        // To a server an empty packet is COM_SLEEP, which it does not know.
        let com = first.copied().filter(|_| length > 0).unwrap_or(COM_SLEEP);
        self.pending.abandon = false;
        self.pending.renamed = None;
        self.under = None;
        self.statement_count += 1;
        self.entry.set_statements(self.statement_count);
        match com {
            COM_QUERY if self.sandboxed => Box::pin(self.sandboxed_query(length)).await,
            COM_QUERY => self.query(length).await,
            COM_STMT_EXECUTE => self.execute(length).await,
            COM_STMT_PREPARE => Box::pin(self.prepare(length)).await,
            COM_STMT_SEND_LONG_DATA => Box::pin(self.long_data(length)).await,
            COM_STMT_BULK_EXECUTE => Box::pin(self.bulk(length)).await,
            _ if length > COMMAND_MAX => Box::pin(self.command_streamed(com)).await,
            COM_STMT_CLOSE => Box::pin(self.close_statement(length)).await,
            COM_STMT_RESET => Box::pin(self.reset_statement(length)).await,
            COM_STMT_FETCH => Box::pin(self.fetch(length)).await,
            COM_QUIT => Err(End::Quit),
            COM_PING => self.ping(length).await,
            COM_STATISTICS => {
                let side = self.lead();
                self.plain(side, response_kind(com)).await.map(|_| ())
            }
            _ => Box::pin(self.rare(com, length)).await,
        }
    }

    async fn rare(&mut self, com: u8, length: usize) -> Result<(), End> {
        self.diagnostics = None;
        match com {
            COM_INIT_DB => self.init_db(length).await,
            COM_RESET_CONNECTION => self.reset_connection().await,
            COM_CHANGE_USER => self.change_user(length).await,
            COM_SET_OPTION => self.set_option(length).await,
            COM_PROCESS_KILL => self.process_kill(length).await,
            COM_FIELD_LIST | COM_DEBUG | COM_PROCESS_INFO => {
                let side = self.lead();
                self.plain(side, response_kind(com)).await.map(|_| ())
            }
            COM_BINLOG_DUMP | COM_BINLOG_DUMP_GTID | COM_REGISTER_SLAVE => {
                self.replication(com).await
            }
            _ => self.unknown(com).await,
        }
    }

    /// Unknown, or one that may write: the active side gets it untouched,
    /// every route is held meanwhile, and it is counted unless it is refused.
    pub(super) async fn unknown(&mut self, com: u8) -> Result<(), End> {
        telemetry::error("client", "unknown_command");
        self.hold(ALL_ROUTES).await;
        self.unmirrored_anywhere("unknown_command", OnError::Nothing);
        let side = self.lead();
        self.values.unclassified(side);
        let answered = self.plain(side, response_kind(com)).await;
        if let Ok(summary) = &answered
            && summary.is_error
            && !NOTHING_DONE.contains(&summary.error_code)
        {
            let code = summary.error_code;
            self.doubt_after_error(side, &Facts::unknown(), &[], code)
                .await?;
            self.refused_in_transaction(side).await?;
        }
        self.after_any(side);
        self.unmirrored_done();
        answered.map(|_| ())
    }

    /// What replicas ask: home answers, and nothing is written. Nothing of the
    /// routes is held, because a dump goes on for ever.
    async fn replication(&mut self, com: u8) -> Result<(), End> {
        let side = self.shared.routes.peek().home();
        if com == COM_REGISTER_SLAVE {
            self.plain(side, response_kind(com)).await?;
            return Ok(());
        }
        self.need_leg(side).await?;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.pending.abandon = true;
        self.legs_broken = true;
        relay::stream_whole_command(&mut self.client, leg, &mut self.pending).await?;
        relay::dump(&mut self.client, leg).await?;
        self.legs_broken = false;
        Ok(())
    }

    /// Sends the pending command as it is and relays the answer.
    pub(super) async fn plain(&mut self, side: Side, kind: ResponseKind) -> Result<Summary, End> {
        self.need_leg(side).await?;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.entry.set_running(side);
        self.legs_broken = true;
        relay::stream_whole_command(&mut self.client, leg, &mut self.pending).await?;
        relay::begin(leg, kind);
        let (client, pending) = (&mut self.client, &mut self.pending);
        let short = poll_fn(|cx| relay::poll_short(client, leg, pending, cx));
        match short.await? {
            Short::Done => {
                let summary = relay::done(leg);
                self.legs_broken = false;
                self.take_trackers_back(side).await?;
                Ok(summary)
            }
            Short::Rest(fed) => Box::pin(self.relay_rest(side, fed)).await,
        }
    }

    /// The whole pending command, kept in the buffer; its payload length is
    /// bounded by [`COMMAND_MAX`].
    pub(super) async fn whole_command(&mut self, length: usize) -> Result<(), End> {
        if length > COMMAND_MAX {
            return Err(End::Protocol(
                "a command of several packets where none may be",
            ));
        }
        self.arrived(HEADER_LEN + length).await
    }

    /// Waits until the first packet's header and command byte are here;
    /// returns the payload's length, 0 for an empty command.
    async fn command_head(&mut self) -> Result<usize, End> {
        loop {
            if let Some(length) = self.client.command_head()? {
                return Ok(length);
            }
            let more = self.client.input.pending().len() + 1;
            self.arrived(more).await?;
        }
    }

    /// Reads until `total` bytes are pending; the caller bounds `total`. A
    /// client may take for ever, until the server has had enough of its leg.
    pub(super) async fn arrived(&mut self, total: usize) -> Result<(), End> {
        if self.client.input.pending().len() >= total {
            return Ok(());
        }
        self.client.input.reserve(total);
        while self.client.input.pending().len() < total {
            if let Woken::Leg(i) = self.client.wait(&mut self.legs, total).await?
                && let Some(end) = self.leg_spoke(i).await
            {
                return Err(end);
            }
        }
        Ok(())
    }

    /// The payload of the whole pending command.
    pub(super) fn payload(&self, length: usize) -> &[u8] {
        self.client
            .input
            .pending()
            .get(HEADER_LEN..HEADER_LEN + length)
            .unwrap_or(&[])
    }

    /// Drops the whole pending command.
    pub(super) fn consume_command(&mut self, length: usize) {
        self.client.input.consume(HEADER_LEN + length);
    }

    async fn init_db(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        let database = self.payload(length).get(1..).unwrap_or(&[]).to_vec();
        let side = self.lead();
        let summary = self.plain(side, ResponseKind::Generic).await?;
        if !summary.is_error {
            // The tracker says it too, where there is one.
            self.state.set_database(&database);
            self.synced(side);
        }
        Ok(())
    }

    /// A leg that knew everything before its answer knows what the answer
    /// taught us: told again, `SET` by `SET`, it would lose ROW_COUNT() and a
    /// collation that came with SET NAMES.
    fn kept_step(&mut self, side: Side, in_step: bool) {
        let behind = |leg: &Leg| leg.applied != self.state.version;
        if in_step && self.legs[side.index()].as_ref().is_some_and(behind) {
            self.synced(side);
        }
    }

    /// The leg itself made the change that was just learnt from it.
    pub(super) fn synced(&mut self, side: Side) {
        let (version, database) = (self.state.version, self.state.database.clone());
        let (isolation, read_only) = (self.state.isolation, self.state.read_only);
        if let Some(leg) = self.legs[side.index()].as_mut() {
            leg.applied = version;
            leg.database = database;
            leg.isolation = Some(isolation);
            leg.read_only = read_only;
        }
        *self.entry.database.lock() =
            String::from_utf8_lossy(self.state.database.as_deref().unwrap_or(&[])).into_owned();
    }

    async fn reset_connection(&mut self) -> Result<(), End> {
        let side = self.lead();
        let summary = self.plain(side, ResponseKind::Generic).await?;
        if !summary.is_error {
            let database = self.state.database.clone();
            self.forget_session(side, database).await?;
        }
        Ok(())
    }

    /// The server forgot everything this session had: so do we, and the other
    /// leg is opened anew when it is needed.
    async fn forget_session(&mut self, side: Side, database: Option<Vec<u8>>) -> Result<(), End> {
        let other = side.other();
        // A rolled back; so does M, with its connection.
        self.parts[other.index()] = Part::None;
        if let Some(mut leg) = self.legs[other.index()].take() {
            let mut quit = Vec::new();
            put_command(&mut quit, COM_QUIT, &[]);
            let _ = leg.send(&quit).await;
        }
        self.note_leg_gone(other);
        self.prepared.clear();
        self.transaction = Default::default();
        self.values = Values::new(side);
        self.forget_pins();
        if let Some(leg) = self.legs[side.index()].as_ref() {
            self.state.status = leg.status.without(Status::SESSION_STATE_CHANGED);
        }
        self.state.reset(database);
        self.shared.routes.leave(&self.slot);
        self.begin().await?;
        self.synced(side);
        Ok(())
    }

    async fn change_user(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        let payload = self.payload(length).to_vec();
        self.consume_command(length);
        let side = self.lead();
        self.need_leg(side).await?;
        let Some(leg) = self.legs[side.index()].take() else {
            return Err(End::Protocol("no leg"));
        };
        let lost = leg.lost("bytes of an answer were left");
        let mut login = leg.into_login().ok_or(lost)?;
        let outcome = change_user::change_user(
            &self.shared.login,
            &mut self.client.stream,
            self.client.capabilities,
            &mut login,
            &payload,
            (self.login.visitor, self.login.nonce),
        )
        .await?;
        let (mut forgets, mut reconnected) = (false, false);
        let database = match outcome {
            ChangeUserEnd::Refused { code, judged_here } => {
                tracing::debug!(code, "COM_CHANGE_USER refused");
                forgets = judged_here;
                self.state.database.clone()
            }
            ChangeUserEnd::Changed(changed) => {
                reconnected = changed.reconnected;
                self.login = LoginParts {
                    user: changed.user,
                    charset: changed.charset.unwrap_or(self.login.charset),
                    max_packet: self.login.max_packet,
                    connect_attrs: changed.connect_attrs,
                    visitor: self.login.visitor,
                    nonce: self.login.nonce,
                };
                changed.database
            }
        };
        let mut leg = Leg::new(side, login, database.clone());
        if reconnected {
            // 1. The leg is another connection; 2. whoever reads the log does
            // not know its writes for ours, and KILL ends somebody else's.
            self.entry.set_leg(side, Some(leg.info.thread_id));
        }
        if forgets {
            self.forget_on_leg(&mut leg).await?;
        }
        self.legs[side.index()] = Some(leg);
        self.forget_session(side, database).await
    }

    /// The leg forgets what a refused COM_CHANGE_USER makes MariaDB forget: all
    /// but the default schema and the character sets.
    async fn forget_on_leg(&self, leg: &mut Leg) -> Result<(), End> {
        let mut reset = Vec::new();
        put_command(&mut reset, COM_RESET_CONNECTION, &[]);
        leg.send(&reset).await?;
        let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        if answer.summary.is_error {
            return Err(End::Leg(leg.lost("it keeps the state of the session")));
        }
        for (statement, _) in self.state.replay(0, leg.info.mariadb) {
            let charset = statement.starts_with(b"SET NAMES")
                || statement.starts_with(b"SET @@session.`character_set")
                || statement.starts_with(b"SET @@session.`collation_connection");
            if charset {
                leg.query(&statement).await?;
            }
        }
        Ok(())
    }

    async fn set_option(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        let option = self
            .payload(length)
            .get(1..3)
            .map(|b| u16::from_le_bytes([b[0], b[1]]));
        let side = self.lead();
        let summary = self.plain(side, ResponseKind::OneEof).await?;
        if !summary.is_error
            && let Some(option @ (0 | 1)) = option
        {
            self.state.multi_statements = Some(option == 0);
            self.state.version += 1;
            self.synced(side);
        }
        Ok(())
    }

    /// COM_STMT_CLOSE: no answer, on every leg that has the statement.
    async fn close_statement(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        if length < 1 + ID_LEN && self.answers_malformed() {
            let lead = self.lead();
            return self.plain(lead, ResponseKind::Generic).await.map(drop);
        }
        let id = self.named_statement(length);
        self.consume_command(length);
        let ids = match id.and_then(|id| self.prepared.remove(id)) {
            Some(statement) => statement.ids,
            None => return Ok(()),
        };
        self.repin();
        for (leg, id) in self.legs.iter_mut().zip(ids) {
            if let (Some(leg), Some(id)) = (leg.as_mut(), id) {
                let mut out = Vec::with_capacity(16);
                put_command(&mut out, COM_STMT_CLOSE, &id.to_le_bytes());
                // A leg that is gone shows at its next use.
                let _ = leg.send(&out).await;
            }
        }
        Ok(())
    }

    /// COM_STMT_RESET: long data is dropped and cursors are closed on every
    /// leg; the lead's answer counts.
    async fn reset_statement(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        let id = self.named_statement(length).unwrap_or_default();
        self.prepared.drop_long_data(id);
        self.prepared.set_open(id, false);
        let lead = self.lead();
        self.need_leg(lead).await?;
        let known = self.prepared.get(id).map(|s| s.ids);
        if known == Some([None; 2]) {
            // Its leg is gone, or has forgotten it with long data of an EXECUTE
            // that was refused: to its client it is there.
            self.prepare_on(id, lead).await?;
        }
        let ids = self.prepared.get(id).map(|s| s.ids).unwrap_or_default();
        let first = if ids[lead.index()].is_some() || ids[lead.other().index()].is_none() {
            lead
        } else {
            lead.other()
        };
        let other = first.other();
        if let (Some(leg), Some(own)) = (self.legs[other.index()].as_mut(), ids[other.index()]) {
            let mut out = Vec::with_capacity(16);
            put_command(&mut out, COM_STMT_RESET, &own.to_le_bytes());
            let reset = async {
                leg.send(&out).await?;
                leg.answer(ResponseKind::Generic, ANSWER_MAX).await
            };
            let limit = self.shared.mirror.deadline;
            if !matches!(tokio::time::timeout(limit, reset).await, Ok(Ok(_))) {
                self.drop_leg(other);
            }
        }
        let (first, own) = match ids[first.index()] {
            Some(own) => (first, own),
            None => self.nobodys(id),
        };
        self.send_with_id(length, first, own).await?;
        self.relay_answer(first, ResponseKind::Generic).await?;
        self.repin();
        Ok(())
    }

    /// Sends the pending (whole) statement command with another id in it.
    pub(super) async fn send_with_id(
        &mut self,
        length: usize,
        side: Side,
        id: u32,
    ) -> Result<(), End> {
        self.need_leg(side).await?;
        self.renamed(length, id);
        let mut out = self.client.input.pending()[..HEADER_LEN + length].to_vec();
        self.consume_command(length);
        if let Some(place) = out.get_mut(HEADER_LEN + 1..HEADER_LEN + 5) {
            place.copy_from_slice(&id.to_le_bytes());
        }
        match self.legs[side.index()].as_mut() {
            Some(leg) => Ok(leg.send(&out).await?),
            None => Err(End::Protocol("no leg")),
        }
    }

    /// Relays the answer to a command that was sent already.
    pub(super) async fn relay_answer(
        &mut self,
        side: Side,
        kind: ResponseKind,
    ) -> Result<Summary, End> {
        if let Some(leg) = self.legs[side.index()].as_mut() {
            relay::begin(leg, kind);
        }
        self.entry.set_running(side);
        self.legs_broken = true;
        self.relay_rest(side, None).await
    }

    /// Relays what is left of an answer that was begun, and learns from it.
    async fn relay_rest(&mut self, side: Side, fed: Option<Fed>) -> Result<Summary, End> {
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        let in_step = leg.applied == self.state.version;
        let (client, pending) = (&mut self.client, &mut self.pending);
        let summary = relay::response(client, leg, fed, &mut self.state, pending).await?;
        self.legs_broken = false;
        self.kept_step(side, in_step);
        self.take_trackers_back(side).await?;
        Ok(summary)
    }

    /// Our own trackers again, where the client has set its.
    #[inline]
    async fn take_trackers_back(&mut self, side: Side) -> Result<(), End> {
        if self.state.trackers_changed && !self.state.own_trackers_shown {
            return Box::pin(self.own_trackers(side)).await;
        }
        Ok(())
    }

    async fn fetch(&mut self, length: usize) -> Result<(), End> {
        self.whole_command(length).await?;
        let id = self.named_statement(length).unwrap_or_default();
        let lead = self.lead();
        let (side, own) = match self.prepared.get(id) {
            Some(s) => {
                let side = match s.cursor {
                    Some(1) => Side::Target,
                    Some(_) => Side::Source,
                    None => lead,
                };
                match s.ids[side.index()] {
                    Some(own) => (side, own),
                    None => self.nobodys(id),
                }
            }
            None => self.nobodys(id),
        };
        self.send_with_id(length, side, own).await?;
        let summary = self.relay_answer(side, ResponseKind::Fetch).await?;
        if summary.is_error || summary.status.has(Status::LAST_ROW_SENT) {
            self.prepared.set_open(id, false);
            self.repin();
        }
        // A cursor opened before a flip: its leg knows nothing of the
        // transaction on the other.
        if side == lead {
            self.after(side);
        }
        Ok(())
    }
}

impl Session {
    /// MySQL answers a command that has no answer with an error if it is too
    /// short; MariaDB keeps silent.
    pub(super) fn answers_malformed(&self) -> bool {
        !self.state.mode.server.mariadb
    }

    /// The client's id of the statement that the pending command names.
    pub(super) fn named_statement(&self, length: usize) -> Option<u32> {
        let id = statement_id(self.payload(length))?;
        Some(self.prepared.named(id, self.state.mode.server.mariadb))
    }

    /// The statement that the pending command names goes by `own` on its leg.
    pub(super) fn renamed(&mut self, length: usize, own: u32) {
        let sent = statement_id(self.payload(length));
        self.pending.renamed = sent.filter(|id| *id != own).map(|id| (own, id));
    }
}

/// The id in a statement command's payload.
pub(super) fn statement_id(payload: &[u8]) -> Option<u32> {
    let bytes = payload.get(1..5)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
