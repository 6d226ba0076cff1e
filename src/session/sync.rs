//! Telling a leg what the client has set since the leg was last used.

use super::legs::Role;
use super::modes::translate_sql_mode;
use super::state::State;
use super::{End, Session};
use crate::Side;
use crate::leg::{ANSWER_MAX, Leg, Lost, put_query};
use crate::mirror::Part;
use crate::telemetry;
use crate::wire::Status;
use crate::wire::command::{COM_INIT_DB, COM_SET_OPTION, ResponseKind};
use crate::wire::frame;
use crate::wire::text_rows::QueryAnswer;

/// MariaDB's variables that this session has set. `SET @@x = …` in a routine
/// is not reported.
const OWN_SETTINGS: &str = "SELECT LOWER(variable_name) FROM information_schema.system_variables \
    WHERE read_only = 'NO' AND (session_value <> global_value";

/// What a mirror's copies and reads depend on, on MariaDB: cheaper to ask for
/// than which of all variables were set.
const COPIED_UNDER: [&[u8]; 16] = [
    b"sql_mode",
    b"time_zone",
    b"foreign_key_checks",
    b"unique_checks",
    b"character_set_client",
    b"character_set_connection",
    b"character_set_results",
    b"collation_connection",
    b"auto_increment_increment",
    b"auto_increment_offset",
    b"lc_time_names",
    b"div_precision_increment",
    b"default_week_format",
    b"group_concat_max_len",
    b"max_sort_length",
    b"sql_auto_is_null",
];

/// Variables asked for in one SELECT.
const ASKED_AT_ONCE: usize = 64;

/// Why a leg is not as the session needs it.
pub(super) enum Unfit {
    /// The connection is lost.
    Lost(Lost),
    /// It has another default schema and will not take the session's, so that
    /// names without a schema would mean other tables.
    WrongDatabase,
    /// The server refused what statements' effects depend on.
    Refused,
}

impl From<Lost> for Unfit {
    fn from(lost: Lost) -> Unfit {
        Unfit::Lost(lost)
    }
}

/// What a step of the synchronisation is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Of no consequence but to statements that depend on it.
    Variable,
    /// Not to be without: a copy of a write would have another effect.
    Critical,
    /// The default schema.
    Database,
}

/// Commands to send in one write.
#[derive(Default)]
struct Script {
    out: Vec<u8>,
    steps: Vec<Step>,
}

impl Script {
    fn put(&mut self, leg: &Leg, step: Step, sql: &[u8]) {
        put_query(&mut self.out, leg.capabilities, sql);
        self.steps.push(step);
    }
}

/// What a leg lacks of its session's state.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Lacks {
    variables: bool,
    database: bool,
    timestamp: bool,
    isolation: bool,
    read_only: bool,
    autocommit: bool,
}

impl Lacks {
    /// `own`: it runs the client's own statements; `free`: no copies of an open
    /// transaction are on it either.
    #[inline]
    fn of(leg: &Leg, state: &State, own: bool, free: bool) -> Lacks {
        let wanted = state.status.has(Status::AUTOCOMMIT);
        Lacks {
            variables: leg.applied != state.version,
            database: leg.database != state.database,
            timestamp: own
                && (leg.timestamp_set || leg.own_timestamp.as_deref() != state.own_timestamp()),
            isolation: free && leg.isolation != Some(state.isolation),
            read_only: leg.read_only != state.read_only,
            autocommit: free && leg.status.has(Status::AUTOCOMMIT) != wanted,
        }
    }
}

impl Session {
    /// The leg is there, and nothing has to be asked or told before it runs a
    /// statement whose answer counts.
    #[inline]
    pub(super) fn is_in_step(&self, side: Side) -> bool {
        let free = self.parts[side.index()] == Part::None;
        let nothing = |leg: &Leg| Lacks::of(leg, &self.state, true, free) == Lacks::default();
        self.legs[side.index()].as_ref().is_some_and(nothing)
            && self.state.role_changed_on.is_none_or(|on| on == side)
            && self.state.unsure_on.is_none_or(|on| on == side)
    }

    /// Brings a leg to the session's state.
    async fn sync(&mut self, side: Side, role: Role) -> Result<(), Unfit> {
        self.ask_for(side, role).await?;
        self.tell_leg(side, role).await
    }

    /// Asks the other leg for what `side` is to be told and nobody knows.
    pub(super) async fn ask_for(&mut self, side: Side, role: Role) -> Result<(), Lost> {
        if self.state.role_changed_on.is_some_and(|on| on != side) {
            self.ask_role().await?;
        }
        let state = &self.state;
        let all = match role {
            Role::Active => state.unsure_of_all,
            Role::Mirror | Role::Read => state.unsure_of_copied,
        };
        if all || !state.unsure.is_empty() {
            return Box::pin(self.ask_unsure(side, role)).await;
        }
        Ok(())
    }

    /// Tells a leg what the client has set since it was last used.
    pub(super) async fn tell_leg(&mut self, side: Side, role: Role) -> Result<(), Unfit> {
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Ok(());
        };
        let state = &self.state;
        // What a mirror's copy runs under is set with each of them.
        let own = role != Role::Mirror;
        // 1. the mirror's leg, with autocommit off, has copies of an open
        // transaction; 2. it is told autocommit=1, and commits them; 3. the
        // active side rolls back.
        let free = own && self.parts[side.index()] == Part::None;
        let lacks = Lacks::of(leg, state, own, free);
        if lacks == Lacks::default() {
            return Ok(());
        }
        let mut script = Script::default();
        if lacks.variables {
            for (statement, critical) in state.replay(leg.applied, leg.info.mariadb) {
                let step = if critical {
                    Step::Critical
                } else {
                    Step::Variable
                };
                script.put(leg, step, &statement);
            }
            if let Some(on) = state.multi_statements {
                let option: &[u8] = if on { &[0, 0] } else { &[1, 0] };
                frame::put_command(&mut script.out, COM_SET_OPTION, option);
                script.steps.push(Step::Variable);
            }
        }
        if lacks.database
            && let Some(database) = &state.database
        {
            frame::put_command(&mut script.out, COM_INIT_DB, database);
            script.steps.push(Step::Database);
        }
        if lacks.timestamp {
            let value = state.own_timestamp().unwrap_or(b"DEFAULT");
            script.put(leg, Step::Critical, &[b"SET timestamp=", value].concat());
        }
        if lacks.isolation {
            let level = state.isolation.as_sql();
            let sql = format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}");
            script.put(leg, Step::Critical, sql.as_bytes());
        }
        if lacks.read_only {
            let access = if state.read_only { "ONLY" } else { "WRITE" };
            let sql = format!("SET SESSION TRANSACTION READ {access}");
            script.put(leg, Step::Critical, sql.as_bytes());
        }
        if lacks.autocommit {
            let wanted = state.status.has(Status::AUTOCOMMIT);
            let sql = format!("SET autocommit={}", u8::from(wanted));
            script.put(leg, Step::Critical, sql.as_bytes());
        }
        let database_set = carry_out(leg, side, &script, role).await?;
        leg.applied = state.version;
        leg.read_only = state.read_only;
        if own {
            leg.timestamp_set = false;
            leg.own_timestamp = state.own_timestamp().map(<[u8]>::to_vec);
        }
        if free {
            leg.isolation = Some(state.isolation);
        }
        if database_set {
            leg.database = state.database.clone();
        } else if leg.database.is_some() || role != Role::Active {
            return Err(Unfit::WrongDatabase);
        }
        Ok(())
    }

    /// What a later leg would have to be told and this one did not report: in
    /// the transaction that is about to begin, our question would show.
    pub(super) async fn ask_before_transaction(&mut self, side: Side) -> Result<(), End> {
        if self.state.unsure.is_empty() || self.state.status.has(Status::IN_TRANS) {
            return Ok(());
        }
        Box::pin(self.ask_unsure(side.other(), Role::Active)).await?;
        Ok(())
    }

    /// Whether the leg beside `other` can tell what nobody is sure of. Where no
    /// statement is known to have set it: the one leg that is in step.
    ///
    /// 1. Both legs are in step; 2. `SET @@time_zone` on MariaDB's, unreported;
    /// 3. a mirrored write's copy runs in the old time zone.
    fn can_tell(&self, other: Side) -> bool {
        let in_step = |side: Side| {
            let leg = self.legs[side.index()].as_ref();
            leg.is_some_and(|leg| leg.applied == self.state.version)
        };
        match self.state.unsure_on {
            Some(on) => on != other,
            None => !in_step(other) && in_step(other.other()),
        }
    }

    /// Asks the leg that knows for what it did not report, before `other` is
    /// told.
    async fn ask_unsure(&mut self, other: Side, role: Role) -> Result<(), Lost> {
        if !self.can_tell(other) {
            return Ok(());
        }
        let from = other.other();
        let Some(leg) = self.legs[from.index()].as_mut() else {
            // What it had is gone with it.
            self.state.unsure.clear();
            (self.state.unsure_of_all, self.state.unsure_of_copied) = (false, false);
            self.state.unsure_on = None;
            return Ok(());
        };
        let copied = std::mem::take(&mut self.state.unsure_of_copied);
        if copied && leg.info.mariadb {
            // Its character sets have no names in common with another family's.
            let alike = self.state.mode.server.mariadb;
            for name in COPIED_UNDER.iter().take(if alike { 16 } else { 4 }) {
                self.state.unsure_of(name);
            }
        }
        if role == Role::Active && std::mem::take(&mut self.state.unsure_of_all) {
            let asked = leg.rows(own_settings(&self.state).as_bytes()).await?;
            if let QueryAnswer::Rows(rows) = asked {
                for row in 0..rows.rows.len() {
                    if let Some(Some(name)) = rows.value(row, 0) {
                        self.state.unsure_of(name);
                    }
                }
            }
        }
        let applied = leg.applied;
        let names = std::mem::take(&mut self.state.unsure);
        // Reported by the other leg since, those are known.
        let unknown = |name: &Vec<u8>| !self.state.newer(name, applied);
        let names: Vec<Vec<u8>> = names.into_iter().filter(unknown).collect();
        if !self.state.unsure_of_all {
            self.state.unsure_on = None;
        }
        self.ask_variables(from, &names).await
    }

    /// Learns the values of variables from a leg, as home would say them.
    pub(super) async fn ask_variables(
        &mut self,
        side: Side,
        names: &[Vec<u8>],
    ) -> Result<(), Lost> {
        for names in names.chunks(ASKED_AT_ONCE) {
            let Some(leg) = self.legs[side.index()].as_mut() else {
                return Ok(());
            };
            let in_step = leg.applied == self.state.version;
            let list: Vec<String> = names
                .iter()
                .map(|n| format!("@@session.`{}`", String::from_utf8_lossy(n)))
                .collect();
            let sql = format!("SELECT {} LIMIT 1", list.join(","));
            if let QueryAnswer::Rows(rows) = leg.rows(sql.as_bytes()).await? {
                let home = self.state.mode.server.mariadb;
                let other_family = leg.info.mariadb != home;
                for (i, name) in names.iter().enumerate() {
                    let Some(value) = rows.value(0, i) else {
                        continue;
                    };
                    let value = value.unwrap_or_default();
                    if other_family && name == b"sql_mode" {
                        // 1. MySQL's own session is told a mode that only MariaDB
                        // has; 2. it refuses, and the leg is given up.
                        self.state.told(name, &translate_sql_mode(value, home));
                    } else {
                        self.state.told(name, value);
                    }
                }
            }
            if in_step {
                self.synced(side);
            }
        }
        Ok(())
    }

    /// Takes over the role that a statement may have set: what it may do, the
    /// other leg must be able to do.
    async fn ask_role(&mut self) -> Result<(), Lost> {
        let Some(on) = self.state.role_changed_on.take() else {
            return Ok(());
        };
        let Some(leg) = self.legs[on.index()].as_mut() else {
            return Ok(());
        };
        let in_step = leg.applied == self.state.version;
        if let QueryAnswer::Rows(rows) = leg.rows(b"SELECT CURRENT_ROLE() LIMIT 1").await?
            && let Some(role) = rows.value(0, 0)
        {
            self.state.set_role(role.unwrap_or(b"NONE"));
            if in_step {
                self.synced(on);
            }
        }
        Ok(())
    }

    /// Makes sure of a leg on `side` in the session's state, for a statement
    /// whose answer counts.
    pub(super) async fn need_leg(&mut self, side: Side) -> Result<(), End> {
        if self.is_in_step(side) {
            return Ok(());
        }
        Box::pin(self.bring_leg(side)).await
    }

    async fn bring_leg(&mut self, side: Side) -> Result<(), End> {
        self.need_open(side).await?;
        match self.sync(side, Role::Active).await {
            Ok(()) => Ok(()),
            Err(Unfit::Lost(lost)) => Err(End::Leg(lost)),
            // Active: nothing else is refused there.
            Err(Unfit::WrongDatabase | Unfit::Refused) => {
                if self.parts[side.index()] == Part::Own {
                    return Err(End::Protocol("a second part's leg has no such schema"));
                }
                self.drop_leg(side);
                self.need_open(side).await?;
                match self.sync(side, Role::Active).await {
                    Err(Unfit::Lost(lost)) => Err(End::Leg(lost)),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Which variables to ask MariaDB for: those that the session has set, and
/// those that another leg was told; they may be set back.
fn own_settings(state: &State) -> String {
    let mut sql = String::from(OWN_SETTINGS);
    for name in state.names() {
        let name = String::from_utf8_lossy(name);
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            sql.push_str(&format!(" OR variable_name='{name}'"));
        }
    }
    sql.push_str(") LIMIT 1000");
    sql
}

/// Runs the script. False: the default schema was refused.
async fn carry_out(leg: &mut Leg, side: Side, script: &Script, role: Role) -> Result<bool, Unfit> {
    leg.send(&script.out).await?;
    let mut database = true;
    let mut refused = false;
    for step in &script.steps {
        let answer = leg.answer(ResponseKind::OneEof, ANSWER_MAX).await?;
        if !answer.summary.is_error {
            continue;
        }
        telemetry::error(side.as_str(), "state_not_replayed");
        tracing::debug!(%side, error = answer.error_text(), "state not replayed");
        database &= *step != Step::Database;
        refused |= *step == Step::Critical;
    }
    if refused && role != Role::Active {
        return Err(Unfit::Refused);
    }
    Ok(database)
}
