//! Opening a session's legs and bringing them to its state.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::login::open_other;
use super::trackers::TRACK;
use super::{End, Session};
use crate::Side;
use crate::leg::connect::{LegError, LoginParams};
use crate::leg::{ANSWER_MAX, Leg, Lost, put_query};
use crate::mirror::circuit;
use crate::telemetry;
use crate::wire::command::{COM_INIT_DB, COM_SET_OPTION, ResponseKind};
use crate::wire::text_rows::QueryAnswer;
use crate::wire::{Capabilities, frame};

/// Pause before a leg that could not be opened is tried again: a refused
/// login costs the backend as much as a good one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest a session waits for a leg it cannot do without.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Values read once at login: what the client tracks by itself, what the
/// scanner and the mirror have to know before the first change is reported,
/// and what a leg on a server with other defaults must be told.
pub(super) const DEFAULT_NAMES: &[&str] = &[
    "session_track_system_variables",
    "session_track_schema",
    "sql_log_bin",
    "sql_mode",
    "character_set_client",
    "character_set_connection",
    "character_set_results",
    "collation_connection",
    "time_zone",
    "foreign_key_checks",
    "unique_checks",
    "auto_increment_increment",
    "auto_increment_offset",
];

fn defaults_query(leg: &Leg) -> String {
    let isolation = if leg.info.mariadb {
        "tx_isolation"
    } else {
        "transaction_isolation"
    };
    let names: Vec<String> = DEFAULT_NAMES
        .iter()
        .chain(std::iter::once(&isolation))
        .map(|n| format!("@@session.{n}"))
        .collect();
    format!("SELECT {}", names.join(","))
}

/// Switches our trackers on. On MariaDB also makes sure that the leg can be
/// used: it lets an account in whose password has expired, takes its SETs, and
/// refuses everything else. Every mirrored write would fail and count against
/// the route.
async fn switch_on(leg: &mut Leg) -> Result<(), String> {
    let mut out = Vec::with_capacity(128);
    put_query(&mut out, leg.capabilities, TRACK);
    let asked = if leg.info.mariadb {
        put_query(&mut out, leg.capabilities, b"DO 1");
        2
    } else {
        1
    };
    leg.send(&out).await.map_err(|lost| lost.what)?;
    let mut refused = None;
    for _ in 0..asked {
        let answer = leg.answer(ResponseKind::OneEof, ANSWER_MAX).await;
        let answer = answer.map_err(|lost| lost.what)?;
        if answer.summary.is_error {
            refused.get_or_insert_with(|| answer.error_text());
        }
    }
    refused.map_or(Ok(()), Err)
}

/// What a leg is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Statements whose answer counts.
    Active,
    /// The copies of writes; `mirror` keeps its `autocommit` off.
    Mirror,
    /// Plain reads, outside of transactions.
    Read,
}

impl Session {
    /// Switches our trackers on and reads the session's starting values, in
    /// one round trip.
    pub(super) async fn begin(&mut self) -> Result<(), End> {
        let Some(leg) = self.legs.iter_mut().flatten().next() else {
            return Err(End::Protocol("no home leg"));
        };
        if !leg.capabilities.has(Capabilities::SESSION_TRACK) {
            return Ok(());
        }
        let mut out = Vec::with_capacity(256);
        put_query(&mut out, leg.capabilities, defaults_query(leg).as_bytes());
        put_query(&mut out, leg.capabilities, TRACK);
        leg.send(&out).await?;
        let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        let parsed = crate::wire::text_rows::parse_text_result(&answer.bytes, leg.capabilities);
        self.sandboxed = matches!(parsed, Ok(QueryAnswer::Err(..)));
        if let Ok(QueryAnswer::Rows(rows)) = parsed {
            for (i, name) in DEFAULT_NAMES
                .iter()
                .chain(std::iter::once(&"tx_isolation"))
                .enumerate()
            {
                if let Some(Some(value)) = rows.value(0, i) {
                    self.state.set_defaults(name.as_bytes(), value);
                }
            }
        }
        leg.applied = self.state.version;
        leg.isolation = Some(self.state.isolation);
        Ok(())
    }

    /// Makes sure of a leg on `side` in the session's state, for a statement
    /// whose answer counts.
    pub(super) async fn need_leg(&mut self, side: Side) -> Result<(), End> {
        if self.legs[side.index()].is_none() {
            self.retry_other = None;
            // Boxed: every session would carry its room for ever.
            if let Err(what) = Box::pin(self.open(side, OPEN_LIMIT)).await {
                return Err(End::NoLeg { side, what });
            }
        }
        match self.sync(side, Role::Active).await {
            Ok(()) => Ok(()),
            Err(lost) => Err(End::Leg(lost)),
        }
    }

    /// Makes sure of a leg on `side` for the mirror's part or a mirrored
    /// read, within `limit`. False: there is none now.
    pub(super) async fn try_leg(&mut self, side: Side, role: Role, limit: Duration) -> bool {
        let index = side.index();
        let ready = async {
            if self.legs[index].is_none() && Box::pin(self.open(side, limit)).await.is_err() {
                return false;
            }
            self.sync(side, role).await.is_ok()
        };
        let outcome = tokio::time::timeout(limit, ready).await;
        if matches!(outcome, Ok(true)) {
            return true;
        }
        // Half an answer may be on its way: the leg is not to be used again.
        self.drop_leg(side);
        self.retry_other = Some(Instant::now() + RETRY_PAUSE);
        self.entry.without_other_leg.store(true, Ordering::Relaxed);
        false
    }

    /// Discards a leg and ends it on its server.
    pub(super) fn drop_leg(&mut self, side: Side) {
        if let Some(leg) = self.legs[side.index()].take() {
            self.shared.mirror.reaper.kill(side, leg.info.thread_id);
        }
        self.note_leg_gone(side);
    }

    /// A leg is gone: so are its statements.
    pub(super) fn note_leg_gone(&mut self, side: Side) {
        self.prepared.leg_gone(side.index());
        self.entry.legs[side.index()].store(0, Ordering::Relaxed);
    }

    /// Whether the other leg is there or may be tried.
    pub(super) fn other_leg_possible(&self, side: Side) -> bool {
        self.legs[side.index()].is_some() || self.retry_other.is_none_or(|at| Instant::now() >= at)
    }

    async fn open(&mut self, side: Side, limit: Duration) -> Result<(), String> {
        if self.retry_other.is_some_and(|at| Instant::now() < at) {
            return Err("tried a moment ago".into());
        }
        let params = LoginParams {
            capabilities: self.client.capabilities.with(Capabilities::SESSION_TRACK),
            charset: self.login.charset,
            max_packet: self.login.max_packet,
            database: self.state.database.clone(),
            connect_attrs: self.login.connect_attrs.clone(),
            visitor: Some(self.login.visitor),
            certificate: None,
        };
        let opening = open_other(&self.shared.login, side, &self.login.user, &params);
        let opened = match tokio::time::timeout(limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(LegError::Timeout {
                side,
                what: "for a login",
            }),
        };
        let authenticated = match opened {
            Ok(authenticated) => authenticated,
            Err(e) => {
                telemetry::error(side.as_str(), e.kind());
                self.suspend_unreachable(side, &e);
                return Err(e.to_string());
            }
        };
        let mut leg = Leg::new(side, authenticated, self.state.database.clone());
        leg.cursor.report_state(false);
        switch_on(&mut leg).await?;
        // 0: everything the client has set so far is told.
        leg.applied = 0;
        self.entry.legs[side.index()].store(leg.info.thread_id, Ordering::Relaxed);
        self.entry.without_other_leg.store(false, Ordering::Relaxed);
        self.legs[side.index()] = Some(leg);
        Ok(())
    }

    /// A backend that cannot be reached is nobody's fault but its own: every
    /// route it mirrors is suspended, so that not each statement tries.
    fn suspend_unreachable(&self, side: Side, error: &LegError) {
        let unreachable = matches!(
            error,
            LegError::Connect { .. } | LegError::Timeout { .. } | LegError::Io { .. }
        );
        if !unreachable {
            return;
        }
        let table = self.shared.routes.load();
        for route in &table.routes {
            if route.phase.mirrored() && route.phase.active() != side {
                circuit::suspend(route, &error.to_string());
            }
        }
    }

    /// Tells a leg what the client has set since it was last used.
    async fn sync(&mut self, side: Side, role: Role) -> Result<(), Lost> {
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Ok(());
        };
        let active = role == Role::Active;
        let wanted = self.state.status.has(crate::wire::Status::AUTOCOMMIT);
        let autocommit =
            role != Role::Mirror && leg.status.has(crate::wire::Status::AUTOCOMMIT) != wanted;
        let current = leg.applied == self.state.version
            && leg.database == self.state.database
            && !(active && leg.timestamp_set)
            && !autocommit
            && !(active && leg.isolation != Some(self.state.isolation));
        if current {
            return Ok(());
        }
        let mut out = Vec::with_capacity(128);
        let mut answers = 0;
        if leg.applied != self.state.version {
            for statement in self.state.replay(leg.applied, leg.info.mariadb) {
                put_query(&mut out, leg.capabilities, &statement);
                answers += 1;
            }
            if let Some(on) = self.state.multi_statements {
                let option: &[u8] = if on { &[0, 0] } else { &[1, 0] };
                frame::put_command(&mut out, COM_SET_OPTION, option);
                answers += 1;
            }
        }
        if leg.database != self.state.database
            && let Some(database) = &self.state.database
        {
            frame::put_command(&mut out, COM_INIT_DB, database);
            answers += 1;
        }
        if active && leg.timestamp_set {
            put_query(&mut out, leg.capabilities, b"SET timestamp=DEFAULT");
            answers += 1;
        }
        if active && leg.isolation != Some(self.state.isolation) {
            let level = self.state.isolation.as_sql();
            let sql = format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}");
            put_query(&mut out, leg.capabilities, sql.as_bytes());
            answers += 1;
        }
        if autocommit {
            let sql: &[u8] = if wanted {
                b"SET autocommit=1"
            } else {
                b"SET autocommit=0"
            };
            put_query(&mut out, leg.capabilities, sql);
            answers += 1;
        }
        leg.send(&out).await?;
        for _ in 0..answers {
            // A variable this family does not know is an error of no
            // consequence but to statements that depend on it; it is counted.
            let answer = leg.answer(ResponseKind::OneEof, ANSWER_MAX).await?;
            if answer.summary.is_error {
                telemetry::error(side.as_str(), "state_not_replayed");
                tracing::debug!(%side, error = answer.error_text(), "state not replayed");
            }
        }
        leg.applied = self.state.version;
        leg.database = self.state.database.clone();
        if active {
            leg.timestamp_set = false;
            leg.isolation = Some(self.state.isolation);
        }
        Ok(())
    }
}
