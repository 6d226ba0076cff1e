//! What a prepared statement was prepared under.
//!
//! A server keeps the default schema of PREPARE with the statement and goes
//! back to it for each EXECUTE; and it reads the text once, in the SQL mode and
//! the character set of that time. What the session has set since is in force
//! for the rest: strictness, time zone, what parameters and results come in.
//!
//! The interleaving this prevents:
//! 1. `USE a`; `UPDATE t SET …` is prepared on the source; 2. `USE b`; 3. the
//!    statement first runs on the target, is prepared there in `b`, and
//!    changes another table.

use std::sync::Arc;

use super::Session;
use super::modes::{set_statement, translate_sql_mode};
use super::state::State;
use crate::leg::{ANSWER_MAX, Answer, Leg, Lost, put_query};
use crate::sql::{Facts, ScanMode, Verb};
use crate::wire::command::{COM_INIT_DB, ResponseKind};
use crate::wire::frame::put_command;

/// What the literals of a text are read with, in the order they are set: the
/// collation follows from the character set before it.
const CHARSETS: [&[u8]; 3] = [
    b"character_set_client",
    b"character_set_connection",
    b"collation_connection",
];

/// What was in force at one PREPARE.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Under {
    /// The default schema.
    pub database: Option<Vec<u8>>,
    /// How the text is read.
    pub mode: ScanMode,
    /// MariaDB's sql_mode=ORACLE.
    pub oracle_mode: bool,
    /// None: not known.
    sql_mode: Option<Vec<u8>>,
    charsets: [Option<Vec<u8>>; 3],
}

impl Under {
    /// What is in force now.
    pub fn now(state: &State) -> Under {
        let known = |name: &[u8]| state.known(name).map(<[u8]>::to_vec);
        Under {
            database: state.database.clone(),
            mode: state.mode,
            oracle_mode: state.oracle_mode,
            sql_mode: known(b"sql_mode"),
            charsets: CHARSETS.map(known),
        }
    }

    /// `before`, if it is the same: most statements share one.
    pub fn shared(self, before: Option<&Arc<Under>>) -> Arc<Under> {
        match before {
            Some(before) if **before == self => before.clone(),
            _ => Arc::new(self),
        }
    }

    /// The settings in which the two differ, as a leg of either family takes
    /// them, and whether it must.
    fn settings(&self, other: &Under, mariadb: bool) -> Vec<(Vec<u8>, bool)> {
        let mut statements = Vec::new();
        if let (Some(own), Some(others)) = (&self.sql_mode, &other.sql_mode)
            && own != others
        {
            let value = match mariadb == self.mode.server.mariadb {
                true => own.clone(),
                false => translate_sql_mode(own, mariadb),
            };
            statements.push((set_statement(b"sql_mode", &value), true));
        }
        let differs = |(own, others): (&Option<Vec<u8>>, &Option<Vec<u8>>)| {
            own.is_some() && others.is_some() && own != others
        };
        if self.charsets.iter().zip(&other.charsets).any(differs) {
            for (name, value) in CHARSETS.iter().zip(&self.charsets) {
                if let Some(value) = value {
                    // The other family may not know the collation.
                    let needed = *name != CHARSETS[2];
                    statements.push((set_statement(name, value), needed));
                }
            }
        }
        statements
    }
}

/// Commands of ours that change how a leg reads texts.
#[derive(Default)]
pub(super) struct Steps {
    /// All of them, framed.
    pub out: Vec<u8>,
    /// Whether each must succeed.
    needed: Vec<bool>,
}

impl Steps {
    fn put(&mut self, leg: &Leg, settings: Vec<(Vec<u8>, bool)>) {
        for (sql, needed) in settings {
            put_query(&mut self.out, leg.capabilities, &sql);
            self.needed.push(needed);
        }
    }

    fn database(&mut self, name: &[u8]) {
        put_command(&mut self.out, COM_INIT_DB, name);
        self.needed.push(true);
    }

    /// Reads the answers. False: what must succeed was refused.
    pub async fn answered(&self, leg: &mut Leg) -> Result<bool, Lost> {
        let mut done = true;
        for needed in &self.needed {
            let answer = leg.answer(ResponseKind::OneEof, ANSWER_MAX).await?;
            done &= !(*needed && answer.summary.is_error);
        }
        Ok(done)
    }
}

/// A leg's way to what was in force at a PREPARE, and back to the session's
/// state. Both ways are empty for most statements.
#[derive(Default)]
pub(super) struct Journey {
    /// To be said before.
    pub there: Steps,
    back: Steps,
}

impl Journey {
    /// From a leg in the session's state. None: there is no way back, or none
    /// there.
    pub fn new(leg: &Leg, under: &Under, state: &State) -> Option<Journey> {
        let mut journey = Journey::default();
        let now = Under::now(state);
        let mariadb = leg.info.mariadb;
        journey.there.put(leg, under.settings(&now, mariadb));
        journey.back.put(leg, now.settings(under, mariadb));
        // Prepared without a default schema, all its names have their own.
        if under.database.is_some() && under.database != leg.database {
            // A leg cannot be told to have none again.
            let back = leg.database.as_deref()?;
            journey.there.database(under.database.as_deref()?);
            journey.back.database(back);
        }
        Some(journey)
    }

    /// To be said after.
    pub fn back(&self) -> &[u8] {
        &self.back.out
    }

    /// Has a command executed there, one whose answer is a single packet. None:
    /// the leg could not go there, and was sent nothing.
    pub async fn run(&self, leg: &mut Leg, command: &[u8]) -> Result<Option<Answer>, Lost> {
        leg.send(&self.there.out).await?;
        let answer = if self.there.answered(leg).await? {
            leg.send(command).await?;
            Some(leg.answer(ResponseKind::Generic, ANSWER_MAX).await?)
        } else {
            None
        };
        leg.send(&self.back.out).await?;
        self.came_back(leg).await?;
        Ok(answer)
    }

    /// Reads the answers to [`Journey::back`]. A leg that does not come back
    /// would read the next texts as other ones:
    /// 1. an operator drops the schema the session is in; 2. a statement is
    ///    prepared in another one, and COM_INIT_DB back is refused; 3. the next
    ///    name without a schema is a table of the wrong one.
    pub async fn came_back(&self, leg: &mut Leg) -> Result<(), Lost> {
        match self.back.answered(leg).await? {
            true => Ok(()),
            false => Err(leg.lost("it did not return to the session's state")),
        }
    }
}

impl Session {
    /// What is in force now, for a statement that is prepared now.
    pub(super) fn under_now(&mut self) -> Arc<Under> {
        let under = Under::now(&self.state).shared(self.last_under.as_ref());
        self.last_under = Some(under.clone());
        under
    }

    /// The pending command is about this prepared statement: its text is read
    /// as it was at PREPARE.
    pub(super) fn read_as_prepared(&mut self, id: Option<u32>) {
        let statement = id.and_then(|id| self.prepared.get(id));
        self.under = statement.map(|s| s.under.clone());
    }

    /// The same of a text that may be an EXECUTE of a statement prepared by SQL.
    pub(super) fn read_as_named(&mut self, facts: &Facts, sql: &[u8]) {
        let name = facts.prepared_name.map(|name| name.of(sql));
        self.under = match name.filter(|_| facts.verb == Verb::ExecutePrepared) {
            Some(name) => self.values.prepared_under(name),
            None => None,
        };
    }

    /// The default schema for names in the statement under way.
    pub(super) fn database(&self) -> Option<&[u8]> {
        match &self.under {
            Some(under) => under.database.as_deref(),
            None => self.state.database.as_deref(),
        }
    }

    /// How the text of the statement under way is read.
    pub(super) fn mode(&self) -> ScanMode {
        self.under.as_ref().map_or(self.state.mode, |u| u.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::ServerKind;
    use crate::wire::Status;

    fn state(sql_mode: &[u8], charset: &[u8]) -> State {
        let mut state = State::new(None, Status::AUTOCOMMIT, ServerKind::default());
        state.set_defaults(b"sql_mode", sql_mode);
        for name in &CHARSETS[..2] {
            state.set_defaults(name, charset);
        }
        state.set_defaults(CHARSETS[2], &[charset, b"_general_ci"].concat());
        state
    }

    #[test]
    fn only_what_differs_is_set() {
        let ansi = Under::now(&state(b"ANSI_QUOTES", b"utf8mb4"));
        let none = Under::now(&state(b"", b"utf8mb4"));
        let gbk = Under::now(&state(b"", b"gbk"));
        assert!(ansi.settings(&ansi, false).is_empty());
        assert!(none.shared(None) == Arc::new(Under::now(&state(b"", b"utf8mb4"))));
        let none = Under::now(&state(b"", b"utf8mb4"));
        let there = ansi.settings(&none, false);
        assert_eq!(there.len(), 1);
        let hex = "414e53495f51554f544553";
        let sql = format!("SET @@session.`sql_mode`=_utf8mb4 0x{hex}");
        assert_eq!(there[0], (sql.into_bytes(), true));
        assert_eq!(
            none.settings(&ansi, false)[0].0,
            b"SET @@session.`sql_mode`=''"
        );
        let there = gbk.settings(&none, false);
        assert_eq!(
            there.iter().map(|s| s.1).collect::<Vec<_>>(),
            [true, true, false]
        );
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        let mut unsure = state(b"", b"gbk");
        unsure.unsure_of(b"collation_connection");
        let unsure = Under::now(&unsure);
        let known = Under::now(&state(b"", b"gbk"));
        assert!(unsure.settings(&known, false).is_empty());
        assert!(known.settings(&unsure, false).is_empty());
        let other = Under::now(&state(b"", b"latin1"));
        // The character set brings its own collation.
        assert_eq!(unsure.settings(&other, false).len(), 2);
    }
}
