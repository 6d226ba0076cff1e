//! DDL on a routed table while its route is mirrored.
//!
//! It runs on both sides, beside no phase change and no other DDL of its
//! routes, and behind their closed gate. The race this prevents: 1. A alters
//! the table; 2. a write with the new column runs on A and fails on M, which
//! has not been altered.
//!
//! The gate is not kept closed for long: where a transaction does not end in
//! time, or the DDL takes longer than an edge may, other statements go on and
//! their writes are deferred until both sides have the same tables again. One
//! side failed: the route is suspended and says so, and will not advance.

mod halfway;
mod texts;

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use super::legs::Role;
use super::statement::Statement;
use super::under::Journey;
use super::{End, Session};
use crate::Side;
use crate::leg::{ANSWER_MAX, Answer, put_query};
use crate::route::gate::Exclusive;
use crate::route::plan::{Plan, plan};
use crate::sql::{Facts, Verb};
use crate::telemetry;
use crate::wire::command::{COM_STMT_CLOSE, COM_STMT_PREPARE, ResponseKind};
use crate::wire::frame::{self, HEADER_LEN, put_command};
use crate::wire::ok::OkPacket;
use crate::wire::session_track::{Change, changes, put_change};
use crate::wire::{Capabilities, Status};
use halfway::Halfway;

/// The longest the mirror's DDL may take: an ALTER that copies the table.
const MIRROR_DDL_LIMIT: Duration = Duration::from_secs(3600);

/// The longest a mirror's leg may take to open for DDL.
const OPEN_LIMIT: Duration = Duration::from_secs(2);

/// The longest DDL waits for the followers to come close, the gate being open:
/// an application's migration waits for nothing else of ours.
const APPROACH_LIMIT: Duration = Duration::from_secs(3);

/// The longest the gate stays closed for the catalog to be read anew.
const CATALOG_LIMIT: Duration = Duration::from_secs(3);

/// Attempts on the mirror while it answers that somebody's locks are in the
/// way.
const ATTEMPTS: u32 = 3;

/// ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK: nothing was done.
const LOCKED: [u16; 2] = [1205, 1213];

/// ER_PARSE_ERROR.
const ER_PARSE: u16 = 1064;
/// ER_BAD_TABLE_ERROR.
const ER_BAD_TABLE: u16 = 1051;
/// ER_DB_CREATE_EXISTS.
const ER_DB_EXISTS: u16 = 1007;
/// ER_DB_DROP_EXISTS.
const ER_NO_DB: u16 = 1008;

/// What MariaDB and MySQL say to a statement that an option forbids.
const REFUSED: &str = "The MySQL server is running with the ddl=refuse option \
                       so it cannot execute this statement";

impl Session {
    pub(super) async fn ddl(
        &mut self,
        active: Side,
        both: bool,
        s: Statement<'_>,
    ) -> Result<(), End> {
        self.diagnostics = None;
        self.values.last = Some(active);
        if !both {
            return self.refuse_ddl(s.length).await;
        }
        let mut ended = Vec::new();
        if self.transaction.lead.is_some() {
            if !self.readable(&s).await? {
                // It ends no transaction, and the server says what is wrong.
                return self.run(active, &s).await;
            }
            // DDL commits implicitly; here it does so on both legs.
            ended = self.commit_before_ddl(&s).await?;
        }
        let held = self.slot.holding();
        let shared = self.shared.clone();
        shared.routes.leave(&self.slot);
        let exclusive = shared.routes.exclusive(s.planned.routes).await;
        // An edge that was waited for may have changed everything.
        let table = shared.routes.load();
        let planned = {
            let catalog = shared.catalog.load();
            plan(s.sql, s.facts, &self.view(&table), &table, &catalog, None)
        };
        let active = match planned.plan {
            Plan::Ddl { active, both: true } if exclusive.covers(planned.routes) => active,
            _ => {
                drop(exclusive);
                return self.not_on_both(s).await;
            }
        };
        let s = Statement {
            table: &table,
            planned,
            ..s
        };
        let answer = self.ddl_alone(active, &s, &ended, &exclusive).await?;
        drop(exclusive);
        if self.holds_on() {
            self.hold(held).await;
        }
        self.after(active);
        self.client.send(&answer).await
    }

    async fn refuse_ddl(&mut self, length: usize) -> Result<(), End> {
        self.consume_command(length);
        self.let_go();
        self.client.refuse(1290, b"HY000", REFUSED).await
    }

    /// The route left its mirrored phase meanwhile, or lies elsewhere: planned
    /// from the start.
    async fn not_on_both(&mut self, s: Statement<'_>) -> Result<(), End> {
        if s.commands.is_some() {
            return self.execute_again(s.length).await;
        }
        let (facts, sql) = s.sent.unwrap_or((s.facts, s.sql));
        let (table, planned) = self.plan_and_hold(sql, facts).await;
        let s = Statement {
            length: s.length,
            facts,
            sql,
            table: &table,
            planned,
            commands: None,
            sent: None,
        };
        self.act_boxed(s).await
    }

    /// [`Session::execute_classified`] from within itself.
    fn execute_again(
        &mut self,
        length: usize,
    ) -> Pin<Box<dyn Future<Output = Result<(), End>> + Send + '_>> {
        Box::pin(self.execute_classified(length))
    }

    /// [`Session::act`] from within itself.
    fn act_boxed<'a>(
        &'a mut self,
        s: Statement<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<(), End>> + Send + 'a>> {
        Box::pin(self.act(s))
    }

    /// Whether the active side can parse it: DDL that cannot be parsed ends no
    /// transaction. What cannot be prepared at all has been parsed.
    async fn readable(&mut self, s: &Statement<'_>) -> Result<bool, End> {
        let lead = self.lead();
        self.need_leg(lead).await?;
        let Some(leg) = self.legs[lead.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        let mut out = Vec::with_capacity(s.sql.len() + HEADER_LEN + 1);
        put_command(&mut out, COM_STMT_PREPARE, s.sql);
        leg.send(&out).await?;
        let answer = leg.answer(ResponseKind::Prepare, ANSWER_MAX).await?;
        if let Some(ok) = answer.summary.prepare {
            out.clear();
            put_command(&mut out, COM_STMT_CLOSE, &ok.statement_id.to_le_bytes());
            leg.send(&out).await?;
        }
        Ok(answer.summary.error_code != ER_PARSE)
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
        self.settle_part(lead, s.facts, s.table).await?;
        self.after(lead);
        Ok(ended)
    }

    /// Runs it with the routes to itself, the gate closed for as long as an
    /// edge may take. Gives the client's answer, to be sent when others can go
    /// on: it may tell them.
    async fn ddl_alone(
        &mut self,
        active: Side,
        s: &Statement<'_>,
        ended: &[u8],
        exclusive: &Exclusive<'_>,
    ) -> Result<Vec<u8>, End> {
        let limits = self.shared.gate;
        let makes_new = self.makes_new(s);
        if !makes_new {
            // So that the wait behind the gate is short.
            self.rows_first(s, APPROACH_LIMIT).await;
        }
        let mut closed = Some(exclusive.close());
        let mut deferring = None;
        if !makes_new && !exclusive.drained(limits.drain).await {
            // A transaction that is still open writes to A alone from now on.
            deferring = Some(exclusive.defer(s.table));
            closed = None;
        } else if !makes_new && !self.rows_first(s, limits.drain).await {
            telemetry::error(active.other().as_str(), "ddl_before_rows");
            tracing::warn!("DDL runs on both sides before all earlier rows are on both");
        }
        let mut work = pin!(self.ddl_on_both(active, s, ended));
        if closed.is_some() {
            if let Ok(done) = tokio::time::timeout(limits.total, &mut work).await {
                return done;
            }
            deferring = Some(exclusive.defer(s.table));
            drop(closed);
        }
        let done = work.await;
        drop(deferring);
        done
    }

    /// Waits until both sides have the rows written before the DDL. The race
    /// this prevents: 1. a row that the mirror lacks is in A's log; 2. both
    /// sides are altered; 3. the row is met in its old shape, and the columns it
    /// is to be compared by are gone.
    ///
    /// False: not in time. The DDL runs nevertheless, for an application shall
    /// not see that the other side is behind; such rows stop the follower, which
    /// says so.
    async fn rows_first(&self, s: &Statement<'_>, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        for route in halfway::mirrored(s.table, s.planned.routes) {
            let left = until.saturating_duration_since(Instant::now());
            if !self.shared.followers.caught_up(&route, left).await {
                return false;
            }
        }
        true
    }

    /// Whether all it does is to make a table, or a schema, that nobody can
    /// have planned a write to: open transactions are not in its way.
    fn makes_new(&self, s: &Statement<'_>) -> bool {
        if s.facts.verb == Verb::CreateDatabase {
            return true;
        }
        let catalog = self.shared.catalog.load();
        s.facts.verb == Verb::CreateTable
            && s.facts.tables.len() == 1
            && s.facts.tables.iter(s.sql).all(|(db, name)| {
                let db = db.as_deref().or(self.database());
                db.is_some_and(|db| catalog.get(db, &name).is_none())
            })
    }

    async fn ddl_on_both(
        &mut self,
        active: Side,
        s: &Statement<'_>,
        ended: &[u8],
    ) -> Result<Vec<u8>, End> {
        self.need_leg(active).await?;
        let (facts, sql) = s.sent.unwrap_or((s.facts, s.sql));
        self.values_for(active, facts, sql).await?;
        let command = self.command_for_active(active, s).await?;
        let halfway = Halfway::new(self, active, s.table, &s.planned);
        let said = {
            let one = (s.sql, s.facts, self.database());
            self.shared.followers.ddl(&halfway.routes(), &[one])
        };
        let Some(leg) = self.legs[active.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.entry.set_running(active);
        self.legs_broken = true;
        leg.send(&command).await?;
        let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        let caps = leg.capabilities;
        self.legs_broken = false;
        if !answer.summary.is_error || done_in_part(s.facts, &answer) {
            if self.ddl_on_mirror(s, &answer, halfway).await {
                self.refresh_catalog().await;
                said();
            } else {
                // The routes are suspended: nothing is mirrored by old shapes.
                self.shared.catalog_refresh.notify_one();
            }
        } else {
            halfway.settled();
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
        Ok(out)
    }

    /// What the active side is sent.
    async fn command_for_active(
        &mut self,
        active: Side,
        s: &Statement<'_>,
    ) -> Result<Vec<u8>, End> {
        let Some(commands) = &s.commands else {
            return Ok(self.client.input.pending()[..HEADER_LEN + s.length].to_vec());
        };
        match &commands[active.index()][..] {
            // Planned for the side that was active before.
            [] => {
                let made = self.execute_for(active, s.length, true).await?;
                made.ok_or(End::Protocol("DDL that the new active side cannot prepare"))
            }
            command => Ok(command.to_vec()),
        }
    }

    /// Whether both sides have it now.
    async fn ddl_on_mirror(
        &mut self,
        s: &Statement<'_>,
        on_active: &Answer,
        halfway: Halfway,
    ) -> bool {
        if s.facts.verb.is_of_triggers() {
            // On the active side alone: their effects are rows of the log.
            halfway.settled();
            return true;
        }
        let mirror = halfway.mirror();
        if !self.try_leg(mirror, Role::Mirror, OPEN_LIMIT).await {
            halfway.failed("no leg");
            return false;
        }
        let ran = match self.command_for_mirror(mirror, s).await {
            Ok((command, journey)) => self.run_on_mirror(mirror, &command, &journey).await,
            Err(what) => Err(what),
        };
        match ran {
            Ok(answer) if as_wanted(s.facts, Some(on_active), &answer) => {
                halfway.settled();
                return true;
            }
            Ok(answer) => halfway.failed(&answer.error_text()),
            Err(what) => {
                // Its answer may still come.
                self.drop_leg(mirror);
                halfway.failed(&what);
            }
        }
        false
    }

    /// What the mirror is sent, and under what it is read there: of what was
    /// prepared by SQL the text, as at its PREPARE; of an EXECUTE the same.
    ///
    /// 1. `CREATE TABLE t SELECT ? AS a` is executed with 5; 2. its text goes to
    ///    the mirror, which has no value; 3. the table is on one side only.
    async fn command_for_mirror(
        &mut self,
        mirror: Side,
        s: &Statement<'_>,
    ) -> Result<(Vec<u8>, Journey), String> {
        if s.commands.is_some() && s.sent.is_none() {
            let made = self.execute_for(mirror, s.length, false);
            match tokio::time::timeout(OPEN_LIMIT, made).await {
                Ok(Ok(Some(command))) => return Ok((command, Journey::default())),
                // What one family prepares, the other may take as text only.
                Ok(Ok(None)) if s.facts.parameters == 0 => {}
                Ok(Ok(None)) => return Err("it cannot be prepared there".to_owned()),
                Ok(Err(end)) => return Err(end.to_string()),
                Err(_) => return Err("it was not prepared in time".to_owned()),
            }
        }
        let Some(leg) = self.legs[mirror.index()].as_ref() else {
            return Err("no leg".to_owned());
        };
        let journey = match &self.under {
            Some(under) => Journey::new(leg, under, &self.state),
            None => Some(Journey::default()),
        };
        let journey = journey.ok_or("it has no default schema")?;
        let mut command = Vec::new();
        put_query(&mut command, leg.capabilities, s.sql);
        Ok((command, journey))
    }

    /// The pending EXECUTE as the leg on `side` takes it. None: it cannot.
    async fn execute_for(
        &mut self,
        side: Side,
        length: usize,
        is_sent: bool,
    ) -> Result<Option<Vec<u8>>, End> {
        match self.call(length) {
            Some(call) => self.command_for(length, &call, side, is_sent).await,
            None => Ok(None),
        }
    }

    /// Runs one statement on the mirror's open leg, in the session's state.
    async fn on_mirror(&mut self, mirror: Side, sql: &[u8]) -> Result<Answer, String> {
        let Some(leg) = self.legs[mirror.index()].as_ref() else {
            return Err("no leg".to_owned());
        };
        let mut command = Vec::new();
        put_query(&mut command, leg.capabilities, sql);
        self.run_on_mirror(mirror, &command, &Journey::default())
            .await
    }

    /// Runs a command there, again where locks of others were in the way.
    async fn run_on_mirror(
        &mut self,
        mirror: Side,
        command: &[u8],
        journey: &Journey,
    ) -> Result<Answer, String> {
        let Some(leg) = self.legs[mirror.index()].as_mut() else {
            return Err("no leg".to_owned());
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let run = journey.run(leg, command);
            let answer = match tokio::time::timeout(MIRROR_DDL_LIMIT, run).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Err("its schema is not there".to_owned()),
                Ok(Err(lost)) => return Err(lost.what),
                Err(_) => return Err("not answered within the limit".to_owned()),
            };
            if attempt == ATTEMPTS || !LOCKED.contains(&answer.summary.error_code) {
                return Ok(answer);
            }
            telemetry::error(mirror.as_str(), "ddl_locked");
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

/// MariaDB drops the tables that are there and says which were not.
fn done_in_part(facts: &Facts, answer: &Answer) -> bool {
    matches!(facts.verb, Verb::DropTable | Verb::DropView)
        && facts.tables.len() > 1
        && answer.summary.error_code == ER_BAD_TABLE
}

/// Whether the mirror's answer leaves it as the active side is.
fn as_wanted(facts: &Facts, on_active: Option<&Answer>, answer: &Answer) -> bool {
    if !answer.summary.is_error {
        return true;
    }
    let code = answer.summary.error_code;
    let same = on_active.is_some_and(|a| a.summary.is_error && a.summary.error_code == code);
    same || matches!(
        (facts.verb, code),
        (Verb::DropTable | Verb::DropView, ER_BAD_TABLE)
            | (Verb::DropDatabase, ER_NO_DB)
            | (Verb::CreateDatabase, ER_DB_EXISTS)
    )
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
