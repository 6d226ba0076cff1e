//! DDL on a routed table while its route is mirrored.
//!
//! It runs on both sides behind the route's closed gate. The race this
//! prevents: 1. A alters the table; 2. a write with the new column runs on A
//! and fails on M, which has not been altered. One side failed: the route is
//! suspended and says so, and will not advance.

use std::time::{Duration, Instant};

use super::legs::Role;
use super::statement::Statement;
use super::{End, Session};
use crate::Side;
use crate::leg::{ANSWER_MAX, Answer, put_query};
use crate::mirror::circuit;
use crate::mirror::journal::Kind;
use crate::telemetry;
use crate::wire::command::ResponseKind;
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::ok::OkPacket;
use crate::wire::session_track::{Change, changes, put_change};
use crate::wire::{Capabilities, Status};

/// The longest the mirror's DDL may take: an ALTER that copies the table.
const MIRROR_DDL_LIMIT: Duration = Duration::from_secs(3600);

/// The longest a mirror's leg may take to open for DDL.
const OPEN_LIMIT: Duration = Duration::from_secs(2);

/// The longest the gate stays closed for the catalog to be read anew.
const CATALOG_LIMIT: Duration = Duration::from_secs(3);

/// Attempts to drain the route before the DDL runs on the active side alone.
const ATTEMPTS: u32 = 3;

impl Session {
    pub(super) async fn ddl(
        &mut self,
        active: Side,
        both: bool,
        s: Statement<'_>,
    ) -> Result<(), End> {
        self.diagnostics = None;
        self.values.last = Some(active);
        let Some(index) = s.planned.route.filter(|_| both) else {
            self.consume_command(s.length);
            self.let_go();
            let message = "The MySQL server is running with the ddl=refuse option \
                           so it cannot execute this statement";
            return self.client.refuse(1290, b"HY000", message).await;
        };
        let mut ended = Vec::new();
        if self.transaction.lead.is_some() {
            // DDL commits implicitly; here it does so on both legs.
            ended = self.commit_before_ddl(&s).await?;
        }
        let shared = self.shared.clone();
        let slot = self.slot.clone();
        for _ in 0..ATTEMPTS {
            let work = self.ddl_on_both(active, &s, index, &ended);
            // Boxed: the future of a rare statement must not make every
            // session's task larger.
            let ran = Box::pin(shared.routes.exclusively(&slot, index, shared.gate, work)).await;
            if let Ok(result) = ran {
                self.after(active);
                return result;
            }
        }
        if let Some(route) = s.table.routes.get(index) {
            circuit::suspend(
                route,
                "DDL ran on the active side only: the route did not drain",
            );
        }
        self.note(s.table, index, Kind::Deferred, "ddl_not_drained");
        self.run(active, &s).await
    }

    /// Gives what the server reported of the transaction's end.
    async fn commit_before_ddl(&mut self, s: &Statement<'_>) -> Result<Vec<u8>, End> {
        let lead = self.lead();
        self.need_leg(lead).await?;
        let mut ended = Vec::new();
        if let Some(leg) = self.legs[lead.index()].as_mut() {
            let answer = leg.query(crate::mirror::write::COMMIT).await?;
            if answer.summary.is_error {
                // The DDL itself will meet the same error.
                self.refused_in_transaction(lead).await?;
            } else if let Some(leg) = self.legs[lead.index()].as_ref()
                && let Some(ok) = answer.ok(leg.capabilities)
            {
                ended = transaction_changes(ok.session_state.unwrap_or(&[]));
            }
        }
        self.settle_part(lead, s.facts, s.table).await;
        self.after(lead);
        Ok(ended)
    }

    async fn ddl_on_both(
        &mut self,
        active: Side,
        s: &Statement<'_>,
        index: usize,
        ended: &[u8],
    ) -> Result<(), End> {
        self.need_leg(active).await?;
        let Some(leg) = self.legs[active.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        match &s.commands {
            Some(commands) => leg.send(&commands[active.index()]).await?,
            None => {
                let pending = self.client.input.pending();
                leg.send(&pending[..HEADER_LEN + s.length]).await?;
            }
        }
        let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        let caps = leg.capabilities;
        if !answer.summary.is_error {
            self.ddl_on_mirror(active.other(), s, index).await;
            self.refresh_catalog().await;
        }
        self.consume_command(s.length);
        let mut out = Vec::new();
        if answer.summary.is_error {
            out.extend_from_slice(&answer.bytes);
        } else {
            let client = self.client.capabilities;
            let answer = with_changes(&answer, caps, ended);
            super::relay::shown(&answer, caps, client, &mut self.state, &mut out);
        }
        self.client.send(&out).await
    }

    async fn ddl_on_mirror(&mut self, mirror: Side, s: &Statement<'_>, index: usize) {
        let outcome = if self.try_leg(mirror, Role::Mirror, OPEN_LIMIT).await {
            match self.legs[mirror.index()].as_mut() {
                Some(leg) => {
                    let mut out = Vec::new();
                    put_query(&mut out, leg.capabilities, s.sql);
                    let run = async {
                        leg.send(&out).await?;
                        leg.answer(ResponseKind::Generic, ANSWER_MAX).await
                    };
                    match tokio::time::timeout(MIRROR_DDL_LIMIT, run).await {
                        Ok(Ok(answer)) if !answer.summary.is_error => return,
                        Ok(Ok(answer)) => answer.error_text(),
                        Ok(Err(lost)) => lost.what,
                        Err(_) => "not answered within the limit".to_string(),
                    }
                }
                None => "no leg".to_string(),
            }
        } else {
            "no leg".to_string()
        };
        telemetry::error(mirror.as_str(), "ddl");
        self.note(s.table, index, Kind::Failed, "ddl");
        if let Some(route) = s.table.routes.get(index) {
            circuit::suspend(route, &format!("DDL failed on the {mirror}: {outcome}"));
        }
    }

    /// Waits, with the gate still closed, for the catalog to show the change:
    /// a write planned from the old shape could be mirrored wrongly.
    ///
    /// The next snapshot may have been read before the DDL:
    /// 1. the loader reads the tables (as they were),
    /// 2. the DDL runs,
    /// 3. the loader publishes.
    ///
    /// The one after it began when that one was published, so after the DDL.
    async fn refresh_catalog(&self) {
        let until = Instant::now() + CATALOG_LIMIT;
        for _ in 0..2 {
            let before = self.shared.catalog.load().generation;
            self.shared.catalog_refresh.notify_one();
            while self.shared.catalog.load().generation == before && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// What a block says of the transaction.
fn transaction_changes(block: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (change, _) in changes(block).flatten() {
        if matches!(
            change,
            Change::TransactionState(_) | Change::TransactionCharacteristics(_)
        ) {
            put_change(&mut out, &change);
        }
    }
    out
}

/// The DDL's OK with the end of the transaction in it, which the DDL itself
/// would have reported had we not ended it before.
fn with_changes(answer: &Answer, caps: Capabilities, ended: &[u8]) -> Vec<u8> {
    let Some(ok) = answer.ok(caps).filter(|_| !ended.is_empty()) else {
        return answer.bytes.clone();
    };
    let block = [ok.session_state.unwrap_or(&[]), ended].concat();
    let ok = OkPacket {
        session_state: Some(&block),
        status: ok.status.with(Status::SESSION_STATE_CHANGED),
        ..ok
    };
    let mut out = Vec::new();
    let mut sequence = frame::packet(&answer.bytes).map_or(1, |(_, _, sequence)| sequence);
    frame::put_packet(&mut out, &mut sequence, &ok.build(caps));
    out
}
