//! The client's transactions on both legs.
//!
//! The lead leg's status flags are the truth: after every answer they tell
//! whether a transaction is open. An error packet carries none, so after an
//! error inside a transaction the leg is asked (protocol-review C2): a
//! deadlock has rolled everything back, a duplicate key has not, and no error
//! number tells which.

use std::sync::Arc;
use std::time::Duration;

use super::state::Opened;
use super::statement::Statement;
use super::{End, Session, Transaction, relay};
use crate::Side;
use crate::leg::ANSWER_MAX;
use crate::mirror::debts::Debts;
use crate::mirror::journal::Kind;
use crate::mirror::write::{Diagnostics, insist};
use crate::mirror::{Env, Failure, MirrorLeg, Part, transaction as ends, write};
use crate::route::table::RouteTable;
use crate::sql::{Facts, Verb};
use crate::wire::Status;
use crate::wire::command::ResponseKind;
use crate::wire::frame::HEADER_LEN;

/// Savepoints remembered in one transaction; beyond it the rest of the
/// transaction is deferred.
const SAVEPOINTS_MAX: usize = 256;

impl Session {
    /// Makes `side` the leg that a statement runs on. True: the transaction
    /// has its lead elsewhere and has work there, so this leg has a second
    /// part of it, which is committed after the lead's.
    pub(super) async fn take_side(&mut self, side: Side) -> Result<bool, End> {
        let Some(lead) = self.transaction.lead else {
            if self.state.one_shot_side == Some(side.other()) {
                self.move_one_shots(side).await?;
            }
            return Ok(false);
        };
        if lead == side {
            return Ok(false);
        }
        self.need_leg(side).await?;
        if !self.transaction.touched {
            self.move_transaction(lead, side).await?;
            return Ok(false);
        }
        self.begin_second(side).await?;
        Ok(true)
    }

    /// Nothing has happened in the transaction yet: it moves, its savepoints
    /// and characteristics too, with its client none the wiser.
    async fn move_transaction(&mut self, from: Side, to: Side) -> Result<(), End> {
        let begin = self.beginning();
        if let Some(leg) = self.legs[to.index()].as_mut() {
            for statement in &begin {
                insist(leg, statement).await?;
            }
        }
        self.end_on(from, write::ROLLBACK).await;
        if self.state.one_shot_side.is_some() {
            self.state.one_shot_side = Some(to);
        }
        self.transaction.lead = Some(to);
        Ok(())
    }

    /// SET TRANSACTION was said on the other leg, and the transaction it is
    /// for begins on this one.
    async fn move_one_shots(&mut self, to: Side) -> Result<(), End> {
        self.need_leg(to).await?;
        let statements = self.one_shots();
        if let Some(leg) = self.legs[to.index()].as_mut() {
            for statement in &statements {
                insist(leg, statement).await?;
            }
        }
        // There it is used up by a transaction without anything in it.
        self.end_on(to.other(), b"BEGIN").await;
        self.end_on(to.other(), write::ROLLBACK).await;
        self.state.one_shot_side = Some(to);
        Ok(())
    }

    /// Ends what a leg has that holds nothing of the client's. A leg that
    /// cannot is not needed either.
    async fn end_on(&mut self, side: Side, sql: &[u8]) {
        let limit = self.shared.mirror.deadline;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return;
        };
        if !matches!(
            tokio::time::timeout(limit, insist(leg, sql)).await,
            Ok(Ok(()))
        ) {
            self.drop_leg(side);
        }
    }

    /// The statements that SET TRANSACTION is repeated with.
    pub(super) fn one_shots(&self) -> Vec<Vec<u8>> {
        let isolation = self.state.next_isolation.map(|level| {
            format!("SET TRANSACTION ISOLATION LEVEL {}", level.as_sql()).into_bytes()
        });
        let access = self.state.next_read_only.map(|read_only| {
            let access = if read_only { "ONLY" } else { "WRITE" };
            format!("SET TRANSACTION READ {access}").into_bytes()
        });
        isolation.into_iter().chain(access).collect()
    }

    /// After every answer: takes over the flags of the leg, and gives the
    /// routes up when no transaction is left.
    pub(super) fn after(&mut self, side: Side) {
        if let Some(leg) = self.legs[side.index()].as_ref() {
            self.state.take_flags(leg.status);
        }
        self.values.last = Some(side);
        let open = self.state.status.has(Status::IN_TRANS);
        self.entry.set_transaction(open.then_some(side));
        if open {
            self.transaction.lead = Some(side);
            return;
        }
        // Without autocommit a savepoint counts before MariaDB's flags say that
        // there is a transaction (protocol-review M1).
        let savepoints = if self.state.in_transaction() {
            std::mem::take(&mut self.transaction.savepoints)
        } else {
            Vec::new()
        };
        self.transaction = Transaction {
            savepoints,
            ..Transaction::default()
        };
        if !self.xa {
            self.debts.committed();
        }
        if !self.locked_tables && !self.xa {
            self.shared.routes.leave(&self.slot);
        }
    }

    /// An error has no flags; what was refused may have begun a transaction
    /// before.
    pub(super) async fn ask_flags(&mut self, side: Side) -> Result<(), End> {
        self.ping_leg(side).await.map(drop)
    }

    /// Whether a transaction is open on a leg, after an error. The answer tells
    /// what the refused statement has set, too: no other one will.
    async fn ping_leg(&mut self, side: Side) -> Result<bool, End> {
        let version = self.state.version;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Ok(false);
        };
        let in_step = leg.applied == version;
        let answer = leg.ping().await?;
        let (caps, open) = (leg.capabilities, leg.status.has(Status::IN_TRANS));
        self.diagnostics.get_or_insert_with(Diagnostics::pinged);
        if let Some(block) = answer.ok(caps).and_then(|ok| ok.session_state) {
            self.state.learn(block, false, &mut Vec::new());
            if in_step && self.state.version != version {
                self.synced(side);
            }
        }
        Ok(open)
    }

    /// An error was answered: inside a transaction, ask whether it is still
    /// there; if not, M's part is rolled back too.
    pub(super) async fn refused_in_transaction(&mut self, side: Side) -> Result<(), End> {
        self.ask_after_error(side, false).await
    }

    /// As [`Session::refused_in_transaction`]. `commits`: the statement commits
    /// before it runs, so that a transaction that has ended is on A.
    pub(super) async fn ask_after_error(&mut self, side: Side, commits: bool) -> Result<(), End> {
        if !self.state.in_transaction() {
            self.state.doubt_one_shots();
            return Ok(());
        }
        if self.parts[side.index()] == Part::Own {
            return Box::pin(self.second_ran(side, Some(commits))).await;
        }
        if self.legs[side.index()].is_none() {
            return Ok(());
        }
        let still = self.ping_leg(side).await?;
        let other = side.other();
        let part = self.parts[other.index()];
        if !still && commits && part == Part::Own {
            Box::pin(self.must_commit_second(side)).await?;
        } else if !still && part != Part::None {
            let table = self.shared.routes.load();
            if commits {
                let route = self.transaction.route.unwrap_or(0);
                self.note(&table, route, Kind::Failed, "implicit_commit");
            }
            self.rollback_part(side, &table).await;
        }
        Ok(())
    }

    pub(super) fn with_env<'e>(
        &self,
        (shared, debts): &'e (Arc<super::Shared>, Arc<Debts>),
        table: &'e RouteTable,
        active: Side,
    ) -> Env<'e> {
        Env {
            shared: &shared.mirror,
            table,
            route: self.transaction.route.unwrap_or(0),
            active,
            since: self.since(active),
            debts,
        }
    }

    /// What an [`Env`] is made of, so that it does not borrow the session.
    pub(super) fn surroundings(&self) -> (Arc<super::Shared>, Arc<Debts>) {
        (self.shared.clone(), self.debts.clone())
    }

    /// Rolls M's part back; nothing of it is to be healed.
    pub(super) async fn rollback_part(&mut self, active: Side, table: &RouteTable) {
        let shared = self.surroundings();
        let env = self.with_env(&shared, table, active);
        let other = active.other();
        let mut m = MirrorLeg {
            leg: &mut self.legs[other.index()],
            part: &mut self.parts[other.index()],
            timer: &mut self.timer,
        };
        write::rollback(&mut m, &env).await;
        if self.legs[other.index()].is_none() {
            self.note_leg_gone(other);
        }
    }

    /// M's part is given up while A's goes on: its writes are healed later.
    pub(super) async fn give_up_part(
        &mut self,
        active: Side,
        table: &RouteTable,
        reason: &'static str,
    ) {
        if let Some(route) = self.transaction.route {
            self.note(table, route, Kind::Failed, reason);
        }
        self.transaction.poisoned = true;
        self.rollback_part(active, table).await;
    }

    /// M's leg closed with a part of the transaction in it.
    pub(super) fn poison_lost_part(&mut self) {
        let table = self.shared.routes.load();
        let route = self.transaction.route.unwrap_or(0);
        self.note(&table, route, Kind::Failed, Failure::Lost.as_str());
        self.transaction.poisoned = true;
    }

    /// Commits M's part after A's transaction was committed. True: the answer
    /// is still to be read.
    async fn commit_part(&mut self, active: Side, table: &RouteTable) -> bool {
        let shared = self.surroundings();
        let env = self.with_env(&shared, table, active);
        let other = active.other();
        let mut m = MirrorLeg {
            leg: &mut self.legs[other.index()],
            part: &mut self.parts[other.index()],
            timer: &mut self.timer,
        };
        let pending = ends::commit_mirror(&mut m, &env).await;
        if self.legs[other.index()].is_none() {
            self.note_leg_gone(other);
        }
        pending
    }

    /// A statement other than COMMIT or ROLLBACK succeeded: did it end the
    /// transaction by itself (DDL, BEGIN, SET autocommit=1)? Then it committed.
    pub(super) async fn settle_part(
        &mut self,
        side: Side,
        facts: &Facts,
        table: &RouteTable,
    ) -> Result<(), End> {
        // Of several statements others may have run in the chained transaction.
        if facts.statements == 1 && self.chains(side, facts) {
            self.chained(side);
        }
        let begins = matches!(facts.verb, Verb::Begin | Verb::LockTables);
        let ended = self.legs[side.index()]
            .as_ref()
            .is_some_and(|l| !l.status.has(Status::IN_TRANS))
            || begins;
        if !ended {
            return Ok(());
        }
        if begins {
            self.transaction.savepoints.clear();
            self.transaction.poisoned = false;
            self.transaction.touched = false;
        }
        match self.parts[side.other().index()] {
            Part::None => {}
            Part::Own => Box::pin(self.must_commit_second(side)).await?,
            Part::Open => {
                if self.commit_part(side, table).await {
                    self.await_part(side, table).await;
                }
            }
        }
        Ok(())
    }

    /// Whether a COMMIT or ROLLBACK that was just answered has begun the next
    /// transaction: AND CHAIN, or `completion_type=CHAIN`.
    pub(super) fn chains(&self, side: Side, facts: &Facts) -> bool {
        let leg = self.legs[side.index()].as_ref();
        matches!(facts.verb, Verb::Commit | Verb::Rollback)
            && leg.is_some_and(|l| l.status.has(Status::IN_TRANS))
    }

    /// COMMIT AND CHAIN: the next transaction has begun, and nothing is in it.
    /// The routes are given up, or a client that only chains would hold up
    /// every change of phase.
    fn chained(&mut self, side: Side) {
        self.transaction = Transaction {
            lead: Some(side),
            ..Transaction::default()
        };
        self.state.opened.snapshot = false;
        if !self.locked_tables && !self.xa {
            self.shared.routes.leave(&self.slot);
        }
    }

    async fn await_part(&mut self, active: Side, table: &RouteTable) {
        let shared = self.surroundings();
        let env = self.with_env(&shared, table, active);
        let other = active.other();
        let mut m = MirrorLeg {
            leg: &mut self.legs[other.index()],
            part: &mut self.parts[other.index()],
            timer: &mut self.timer,
        };
        ends::await_commit(&mut m, &env).await;
        if self.legs[other.index()].is_none() {
            self.note_leg_gone(other);
        }
    }

    /// COMMIT and ROLLBACK. Without a part on M they are relayed as they are.
    pub(super) async fn end_transaction(&mut self, s: Statement<'_>) -> Result<(), End> {
        let lead = self.lead();
        if self.parts[lead.other().index()] == Part::None {
            self.run(lead, &s).await?;
            self.transaction.savepoints.clear();
            return Ok(());
        }
        self.diagnostics = None;
        self.need_leg(lead).await?;
        if s.facts.verb == Verb::Commit {
            self.second_stands(lead.other()).await?;
        }
        let shared = self.surroundings();
        let env = self.with_env(&shared, s.table, lead);
        let in_flight = env.in_flight();
        let command = match &s.commands {
            Some(commands) => commands[lead.index()].clone(),
            None => self.client.input.pending()[..HEADER_LEN + s.length].to_vec(),
        };
        self.consume_command(s.length);
        let Some(leg) = self.legs[lead.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        self.legs_broken = true;
        let answered = async {
            leg.send(&command).await?;
            leg.answer(ResponseKind::Generic, ANSWER_MAX).await
        };
        let answered = answered.await;
        in_flight.settled();
        let answer = match answered {
            Ok(answer) => answer,
            Err(lost) => {
                // A is lost during COMMIT: M is rolled back, always; A's log
                // decides, and the journal says where to look (M9).
                self.give_up_part(lead, s.table, "active_lost").await;
                return Err(End::Leg(lost));
            }
        };
        self.legs_broken = false;
        let mut pending = false;
        let mut out = Vec::new();
        if answer.summary.is_error {
            out.extend_from_slice(&answer.bytes);
            self.refused_in_transaction(lead).await?;
            let still = self.legs[lead.index()]
                .as_ref()
                .is_some_and(|l| l.status.has(Status::IN_TRANS));
            if s.facts.verb == Verb::Commit
                && !still
                && let Some(route) = self.transaction.route
            {
                // Whether it took is known to A's log alone.
                self.note(s.table, route, Kind::Failed, "commit_refused");
            }
        } else {
            pending = self.part_ends(&s, lead, &answer.bytes, &mut out).await?;
        }
        let told = self.client.send(&out).await;
        if pending {
            self.await_part(lead, s.table).await;
        }
        told?;
        if !answer.summary.is_error {
            self.transaction = Transaction::default();
        }
        if !answer.summary.is_error && self.chains(lead, s.facts) {
            self.chained(lead);
        }
        self.after(lead);
        Ok(())
    }

    /// A has ended its part, and answered so: M ends its own. Whether its answer
    /// is still to come.
    async fn part_ends(
        &mut self,
        s: &Statement<'_>,
        lead: Side,
        answer: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, End> {
        let caps = self.legs[lead.index()]
            .as_ref()
            .map_or(self.client.capabilities, |l| l.capabilities);
        let client = self.client.capabilities;
        relay::shown(answer, caps, client, &mut self.state, out);
        let mut pending = false;
        if s.facts.verb != Verb::Commit {
            self.rollback_part(lead, s.table).await;
        } else if self.parts[lead.other().index()] != Part::Own {
            pending = self.commit_part(lead, s.table).await;
        } else if let Some(refused) = Box::pin(self.commit_second(lead)).await? {
            *out = refused.bytes;
        }
        if !self.chains(lead, s.facts) {
            self.state.use_up_one_shots();
            self.state.opened = Opened::default();
        }
        Ok(pending)
    }

    /// SAVEPOINT, ROLLBACK TO, RELEASE: on A, and on M where it has a part;
    /// else they are remembered and set there when its part begins (M1).
    pub(super) async fn savepoint(&mut self, s: Statement<'_>) -> Result<(), End> {
        let lead = self.lead();
        self.diagnostics = None;
        let (verb, sql) = (s.facts.verb, s.sql);
        let name = s.facts.savepoint.map(|n| n.of(sql).to_vec());
        let summary = self.run_alone(lead, &s).await?;
        if summary.is_error {
            self.refused_in_transaction(lead).await?;
            self.after(lead);
            return Ok(());
        }
        let other = lead.other();
        match self.parts[other.index()] {
            Part::None => {}
            Part::Open => self.savepoint_on_mirror(lead, &s).await,
            Part::Own => self.savepoint_in_second(other, s.sql).await?,
        }
        if let Some(name) = name {
            self.remember_savepoint(verb, name);
        }
        self.after(lead);
        Ok(())
    }

    fn remember_savepoint(&mut self, verb: Verb, name: Vec<u8>) {
        let list = &mut self.transaction.savepoints;
        let place = list.iter().rposition(|n| n.eq_ignore_ascii_case(&name));
        match (verb, place) {
            (Verb::Savepoint, place) => {
                // The same name again replaces the older one.
                if let Some(i) = place {
                    list.remove(i);
                }
                if list.len() >= SAVEPOINTS_MAX {
                    self.transaction.poisoned = true;
                    return;
                }
                list.push(name);
            }
            (Verb::RollbackTo, Some(i)) => list.truncate(i + 1),
            (Verb::ReleaseSavepoint, Some(i)) => list.truncate(i),
            _ => {}
        }
    }

    async fn savepoint_on_mirror(&mut self, lead: Side, s: &Statement<'_>) {
        let limit: Duration = self.shared.mirror.deadline;
        let other = lead.other();
        let Some(leg) = self.legs[other.index()].as_mut() else {
            return;
        };
        let failure = match tokio::time::timeout(limit, leg.query(s.sql)).await {
            Ok(Ok(answer)) if !answer.summary.is_error => return,
            Ok(Ok(answer)) => (Failure::Refused, answer.error_text()),
            Ok(Err(lost)) => (Failure::Lost, lost.what),
            Err(_) => (Failure::Deadline, "a savepoint was not answered".into()),
        };
        let shared = self.surroundings();
        let env = self.with_env(&shared, s.table, lead);
        let mut m = MirrorLeg {
            leg: &mut self.legs[other.index()],
            part: &mut self.parts[other.index()],
            timer: &mut self.timer,
        };
        env.fail(&mut m, failure.0, &failure.1);
        self.note_leg_gone(other);
        self.transaction.poisoned = true;
    }
}
