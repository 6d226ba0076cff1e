//! A second part of a transaction: work on the leg that does not lead.
//!
//! Routes may be active on different sides. A transaction that has written on
//! one side and then names a table that is active on the other has work on
//! both legs that the client was answered for. What is there is no copy: unlike
//! the mirror's part ([`Part::Open`]) it may never be given up alone.
//!
//! ```text
//! lead:   BEGIN, writes ───────────────────────── COMMIT ─ ok ┐
//! second: BEGIN, savepoints ─ statement ─ answer ─────────────┴─ COMMIT ─ ok ─ answer
//! ```
//!
//! Its leg lost is the session's end, which rolls both back; its server's
//! refusal to commit is the client's answer. Between the two commits there is
//! no help: this is two databases (the README says so).

use super::pins::words;
use super::state::Opened;
use super::{End, Session};
use crate::Side;
use crate::leg::{ANSWER_MAX, Answer, put_query};
use crate::mirror::Part;
use crate::mirror::journal::Kind;
use crate::mirror::write::{COMMIT, INSIST_MAX, ROLLBACK, insist};
use crate::sql::{Class, Facts, Flags, Verb, scan, unquote};
use crate::wire::Status;
use crate::wire::command::ResponseKind;
use crate::wire::response::Summary;

/// Whether the transaction is the same as before a routine ran: a savepoint of
/// ours is gone with it, and with a ROLLBACK TO an older one.
const GUARD: &[u8] = b"SAVEPOINT lockstep_guard";
const UNGUARD: &[u8] = b"RELEASE SAVEPOINT lockstep_guard";

/// ER_LOCK_DEADLOCK: the whole transaction was rolled back.
const ER_LOCK_DEADLOCK: u16 = 1213;

/// SET PASSWORD, which commits.
fn names_password(set: &[u8]) -> bool {
    (words(set).get(1)).is_some_and(|w| w.to_ascii_lowercase().starts_with(b"password"))
}

impl Session {
    /// Begins the transaction on a leg as it was begun on the lead, so far as
    /// it has not begun there: where it holds copies, they become a part of
    /// what is not to be given up.
    pub(super) async fn begin_second(&mut self, side: Side) -> Result<(), End> {
        if self.parts[side.index()] == Part::None {
            let begin = self.beginning();
            if let Some(leg) = self.legs[side.index()].as_mut() {
                for statement in &begin {
                    insist(leg, statement).await?;
                }
            }
        }
        self.parts[side.index()] = Part::Own;
        self.transaction.poisoned = true;
        Ok(())
    }

    /// What begins the open transaction on another leg: its characteristics,
    /// its BEGIN and its savepoints.
    pub(super) fn beginning(&self) -> Vec<Vec<u8>> {
        let mut begin = self.one_shots();
        begin.push(self.state.opened.begin());
        for name in &self.transaction.savepoints {
            begin.push([b"SAVEPOINT ", &name[..]].concat());
        }
        begin
    }

    /// A statement has run in the second part. If that ended it, the lead's
    /// ends in the same way, or:
    /// 1. it is a deadlock's victim on the second leg, and its client is told
    ///    that its transaction was rolled back; 2. the client begins it again;
    /// 3. that BEGIN commits what the lead still has: written twice.
    ///
    /// `refused`: with an error, and whether the statement would have committed
    /// before it ran.
    pub(super) async fn second_ran(
        &mut self,
        side: Side,
        refused: Option<bool>,
    ) -> Result<(), End> {
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Ok(());
        };
        let still = match refused {
            // An error tells no flags.
            Some(_) => leg.ping_in_transaction().await?,
            None => leg.status.has(Status::IN_TRANS),
        };
        if still {
            return Ok(());
        }
        self.parts[side.index()] = Part::None;
        let lead = side.other();
        if let Some(leg) = self.legs[lead.index()].as_mut() {
            let committed = refused.unwrap_or(true);
            insist(leg, if committed { COMMIT } else { ROLLBACK }).await?;
        }
        self.state.use_up_one_shots();
        self.state.opened = Opened::default();
        self.after(lead);
        Ok(())
    }

    /// Makes sure that a second part is still there, before the lead commits:
    /// the time in which one part alone is committed shall be short.
    pub(super) async fn second_stands(&mut self, side: Side) -> Result<(), End> {
        if self.parts[side.index()] != Part::Own {
            return Ok(());
        }
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        if leg.ping_in_transaction().await? {
            return Ok(());
        }
        Err(End::Leg(leg.lost("its part of the transaction is gone")))
    }

    /// Commits the second part, behind the lead's commit. Some: the server's
    /// refusal, which the client is to hear of.
    pub(super) async fn commit_second(&mut self, lead: Side) -> Result<Option<Answer>, End> {
        let side = lead.other();
        self.parts[side.index()] = Part::None;
        // Copies may be in it: whoever is cut off here is counted.
        let copies = self.transaction.route;
        let (shared, table) = (self.surroundings(), self.shared.routes.load());
        let env = self.with_env(&shared, &table, lead);
        let in_flight = copies.map(|_| env.in_flight());
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        let mut commit = Vec::with_capacity(48);
        put_query(&mut commit, leg.capabilities, COMMIT);
        let mut refused = None;
        for _ in 0..INSIST_MAX {
            self.legs_broken = true;
            leg.send(&commit).await?;
            let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
            self.legs_broken = false;
            if !answer.summary.is_error {
                if let Some(in_flight) = in_flight {
                    in_flight.settled();
                }
                return Ok(None);
            }
            refused = Some(answer);
            // A KILL QUERY that came late, perhaps: then it is still there.
            if !leg.ping_in_transaction().await? {
                break;
            }
        }
        insist(leg, ROLLBACK).await?;
        if let Some(in_flight) = in_flight {
            in_flight.settled();
        }
        if let Some(route) = copies {
            self.note(&table, route, Kind::Failed, "commit_refused");
        }
        Ok(refused)
    }

    /// [`Session::commit_second`] where the client has its answer already: a
    /// refusal can only end the session.
    pub(super) async fn must_commit_second(&mut self, lead: Side) -> Result<(), End> {
        let Some(refused) = self.commit_second(lead).await? else {
            return Ok(());
        };
        let what = refused.error_text();
        match self.legs[lead.other().index()].as_ref() {
            Some(leg) => Err(End::Leg(leg.lost(what))),
            None => Err(End::Protocol("no leg")),
        }
    }

    /// Several statements in one text, of which one may end the transaction, or
    /// go back in it: beside a second part they are refused before they run.
    ///
    /// 1. `COMMIT; SELECT nope` commits the lead; 2. the answer is an error;
    /// 3. the second part is rolled back as if all were.
    pub(super) fn may_end_second(&self, facts: &Facts, sql: &[u8]) -> bool {
        let harmless = |one: &[u8]| {
            let facts = scan(one, self.mode());
            let ends = |name: &[u8]| unquote(name).eq_ignore_ascii_case(b"autocommit");
            let session = match facts.verb {
                Verb::SetNames | Verb::Use | Verb::Prepare | Verb::DeallocatePrepare => true,
                Verb::Set if names_password(one) => false,
                Verb::Set if facts.set_variables.is_empty() => {
                    facts.flags.has(Flags::USER_VARIABLE_WRITE)
                }
                Verb::Set => !(facts.set_variables.iter()).any(|set| ends(set.name.of(one))),
                _ => matches!(facts.class, Class::Read | Class::Write),
            };
            facts.statements <= 1 && session
        };
        facts.statements > 1
            && self.parts.contains(&Part::Own)
            && !crate::sql::statements(sql, self.mode())
                .into_iter()
                .all(harmless)
    }

    /// Beside a second part, before a routine or whatever nobody has read.
    pub(super) async fn guard_second(&mut self, side: Side) -> Result<(), End> {
        match self.legs[side.index()].as_mut() {
            Some(leg) => Ok(insist(leg, GUARD).await?),
            None => Err(End::Protocol("no leg")),
        }
    }

    /// After it: if the savepoint is gone, the transaction was ended, or went
    /// back, and nobody can tell how. The second part goes, and its client with
    /// it, or it would be committed behind a ROLLBACK.
    pub(super) async fn guard_stands(&mut self, side: Side, ran: &Summary) -> Result<(), End> {
        self.keep_warnings(side, ran).await;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        let released = leg.query(UNGUARD).await?;
        // A deadlock has rolled all of it back, and so says its error.
        if !released.summary.is_error || ran.error_code == ER_LOCK_DEADLOCK {
            return Ok(());
        }
        Err(End::Leg(leg.lost("a routine ended its transaction")))
    }

    /// A savepoint's statement, which the lead has executed.
    pub(super) async fn savepoint_in_second(&mut self, side: Side, sql: &[u8]) -> Result<(), End> {
        match self.legs[side.index()].as_mut() {
            // Known to both: the part was begun with all of them.
            Some(leg) => Ok(insist(leg, sql).await?),
            None => Err(End::Protocol("no leg")),
        }
    }
}
