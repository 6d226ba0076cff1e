//! Opening a session's legs and bringing them to its state.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::login::open_other;
use super::trackers::TRACK;
use super::{End, Session};
use crate::Side;
use crate::leg::connect::{LegError, LoginParams};
use crate::leg::{ANSWER_MAX, Leg, put_query};
use crate::mirror::{Part, circuit};
use crate::telemetry;
use crate::wire::Capabilities;
use crate::wire::command::ResponseKind;
use crate::wire::text_rows::QueryAnswer;

/// Pause before a leg that could not be opened is tried again: a refused
/// login costs the backend as much as a good one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest a session waits for a leg it cannot do without.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Errors of a login that only the default schema is the reason of: access to
/// it denied, not there.
const NO_DATABASE: [u16; 2] = [1044, 1049];

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

/// The names to read at login. `differing` are those that new sessions of the
/// other server have another value of: asked for later, in a transaction, they
/// would show in what the server tells of its state.
fn names_to_read(leg: &Leg, differing: &[Vec<u8>]) -> Vec<String> {
    let isolation = if leg.info.mariadb {
        "tx_isolation"
    } else {
        "transaction_isolation"
    };
    let own = DEFAULT_NAMES.iter().chain(std::iter::once(&isolation));
    let own = own.map(|n| (*n).to_owned());
    let differing = differing.iter().map(|n| String::from_utf8_lossy(n).into());
    own.chain(differing).collect()
}

fn defaults_query(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("@@session.`{n}`")).collect();
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
        let differing = self.shared.variables.known().unwrap_or_default();
        let names = names_to_read(leg, &differing);
        let mut out = Vec::with_capacity(256);
        put_query(
            &mut out,
            leg.capabilities,
            defaults_query(&names).as_bytes(),
        );
        put_query(&mut out, leg.capabilities, TRACK);
        leg.send(&out).await?;
        let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        let parsed = crate::wire::text_rows::parse_text_result(&answer.bytes, leg.capabilities);
        self.sandboxed = matches!(parsed, Ok(QueryAnswer::Err(..)));
        if let Ok(QueryAnswer::Rows(rows)) = parsed {
            for (i, name) in names.iter().enumerate() {
                // NULL is a value of those that differ, too.
                let own = i <= DEFAULT_NAMES.len();
                match rows.value(0, i) {
                    Some(Some(value)) => self.state.set_defaults(name.as_bytes(), value),
                    Some(None) if !own => self.state.set_defaults(name.as_bytes(), b""),
                    _ => {}
                }
            }
        }
        leg.applied = self.state.version;
        leg.isolation = Some(self.state.isolation);
        Ok(())
    }

    /// Makes sure of a leg on `side`, in whatever state.
    pub(super) async fn need_open(&mut self, side: Side) -> Result<(), End> {
        if self.legs[side.index()].is_some() {
            return Ok(());
        }
        if self.parts[side.index()] == Part::Own {
            // 1. It is opened anew, without BEGIN; 2. what is written on it is
            // committed at once, and what was written on it is lost.
            return Err(End::Protocol("a second part's leg is gone"));
        }
        self.retry_other = None;
        // Boxed: every session would carry its room for ever.
        match Box::pin(self.open(side, OPEN_LIMIT)).await {
            Ok(()) => Ok(()),
            Err(what) => Err(End::NoLeg { side, what }),
        }
    }

    /// Makes sure of a leg on `side` for the mirror's part or a mirrored
    /// read, each step of that server's within `limit`. False: there is none
    /// now.
    pub(super) async fn try_leg(&mut self, side: Side, role: Role, limit: Duration) -> bool {
        let opened = self.legs[side.index()].is_some() || {
            let opening = Box::pin(self.open(side, limit));
            matches!(tokio::time::timeout(limit, opening).await, Ok(Ok(())))
        };
        // Not within the limit: 1. the active leg is asked; 2. the limit
        // expires, and the question is forgotten; 3. its answer is taken for
        // that of the client's next statement.
        if opened && self.ask_for(side, role).await.is_ok() {
            let told = tokio::time::timeout(limit, self.tell_leg(side, role)).await;
            if matches!(told, Ok(Ok(()))) {
                return true;
            }
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
        if self.parts[side.index()] == Part::Open {
            self.parts[side.index()] = Part::None;
            self.poison_lost_part();
        }
        self.note_leg_gone(side);
    }

    /// A leg is gone: so are its statements.
    pub(super) fn note_leg_gone(&mut self, side: Side) {
        self.prepared.leg_gone(side.index());
        self.values.leg_gone(side);
        self.entry.set_leg(side, None);
        // Its cursors hold nothing up any more.
        self.repin();
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
        let mut database = self.state.database.clone();
        let mut opened = self.log_in(side, limit, &params).await;
        if matches!(&opened, Err(LegError::Refused { code, .. }) if NO_DATABASE.contains(code)) {
            // A schema of the other side's own: statements that name tables
            // of it do not come here.
            database = None;
            let params = LoginParams {
                database: None,
                ..params
            };
            opened = self.log_in(side, limit, &params).await;
        }
        let authenticated = match opened {
            Ok(authenticated) => authenticated,
            Err(e) => {
                telemetry::error(side.as_str(), e.kind());
                self.suspend_unreachable(side, &e);
                self.warn_of_login(side, &e);
                return Err(e.to_string());
            }
        };
        let mut leg = Leg::new(side, authenticated, database);
        leg.cursor.report_state(false);
        switch_on(&mut leg).await?;
        // 0: everything the client has set so far is told.
        leg.applied = 0;
        self.unsure_of_defaults(side).await;
        self.entry.set_leg(side, Some(leg.info.thread_id));
        self.entry.without_other_leg.store(false, Ordering::Relaxed);
        // A leg discarded behind the client's back (`ack: active`) is noted here
        // at the latest: the server counts the new one's statements from 1 again.
        self.prepared.leg_gone(side.index());
        self.values.leg_gone(side);
        self.legs[side.index()] = Some(leg);
        self.values.leg_opened(side);
        Ok(())
    }

    /// What new sessions have another value of on this server, a session that
    /// began on the other one keeps.
    async fn unsure_of_defaults(&mut self, side: Side) {
        if self.legs[side.other().index()].is_none() {
            return;
        }
        for name in self.shared.variables.differing().await.iter() {
            if !self.state.knows(name) {
                self.state.unsure_of(name);
            }
        }
    }

    async fn log_in(
        &self,
        side: Side,
        limit: Duration,
        params: &LoginParams,
    ) -> Result<crate::leg::connect::Authenticated, LegError> {
        let opening = open_other(&self.shared.login, side, &self.login.user, params);
        match tokio::time::timeout(limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(LegError::Timeout {
                side,
                what: "for a login",
            }),
        }
    }

    /// An account that this side does not let in costs nothing that a client
    /// sees, but all its writes are deferred: whoever operates the proxy must
    /// hear of it.
    fn warn_of_login(&self, side: Side, error: &LegError) {
        static SAID: telemetry::Seldom = telemetry::Seldom::new();
        let remedy = match error {
            LegError::Credentials { .. } => {
                "let its clients connect over TLS, or name the user under `users:`"
            }
            LegError::Refused { .. } => "give the account on that side the same password",
            _ => return,
        };
        if SAID.now() {
            tracing::warn!(
                kind = "other_leg",
                "sessions of {} are without their {side} leg, their writes to mirrored routes \
                 are deferred: {error}; {remedy}",
                self.login.user.escape_ascii()
            );
        }
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
}
