//! A session's own values: user variables, LAST_INSERT_ID() and statements
//! prepared by SQL PREPARE.
//!
//! They live on the leg that last changed them. Before a statement that may
//! read or change them runs on the other leg, they are copied there, so a
//! session keeps them across a change of the active side, and between tables
//! whose active sides differ.
//!
//! The interleaving this prevents:
//! 1. `SET @x = 1` runs on the source; 2. the route flips; 3. `UPDATE … WHERE
//!    id = @x` runs on the target, where @x is NULL, and changes no row.
//!
//! What changed is told by the scanner; what routines and triggers set is
//! asked from the server (`information_schema.user_variables` on MariaDB,
//! `performance_schema` by the service account on MySQL, which shows other
//! accounts nothing).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::named::Kept;
use super::{End, Session};
use crate::Side;
use crate::leg::{Leg, Lost, put_query};
use crate::sql::{Class, Facts, Flags, ScanMode, Verb};
use crate::telemetry;
use crate::wire::command::ResponseKind;
use crate::wire::text_rows::{QueryAnswer, TextResult, parse_text_result};

/// User variables kept track of per session; beyond it the server is asked.
const NAMES_MAX: usize = 1024;

/// User variables one session carries over.
const CARRIED_MAX: usize = 4096;

/// The largest value carried, in bytes: its hexadecimal form still fits into a
/// packet of MariaDB's default max_allowed_packet (16 MiB).
const VALUE_MAX: usize = 4 << 20;

/// Variables asked for at once, so that the answer fits [`ANSWER_LIMIT`].
const CHUNK: usize = 4;

/// The largest answer of one such question, in bytes: [`CHUNK`] values, each
/// as text and as hexadecimal.
const ANSWER_LIMIT: usize = 64 << 20;

/// How long the old leg may take to give the values.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Which leg has the newest of something, and which lacks it.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    side: Side,
    stale: [bool; 2],
    ever: bool,
}

impl Seat {
    fn new(side: Side) -> Seat {
        Seat {
            side,
            stale: [false; 2],
            ever: false,
        }
    }

    pub fn changed(&mut self, side: Side) {
        self.side = side;
        self.stale[side.index()] = false;
        self.stale[side.other().index()] = true;
        self.ever = true;
    }

    pub fn moved(&mut self, to: Side) {
        self.side = to;
        self.stale[to.index()] = false;
    }

    /// A leg is gone. True: it alone had the newest.
    fn leg_gone(&mut self, side: Side) -> bool {
        let other = side.other();
        if !self.ever {
            return false;
        }
        let alone = self.side == side && self.stale[other.index()];
        if self.side == side {
            // Or the leg opened in its place would be taken to have them.
            self.side = other;
        }
        self.stale[side.index()] = true;
        alone
    }
}

/// What went with a leg that alone had it. Who asks for it must not be told
/// NULL, or an older value: the session ends there, as it would with its
/// server.
#[derive(Default)]
struct Gone {
    /// User variables that texts showed, as `` @`x` ``: of others nobody knows
    /// that they were there.
    names: BTreeSet<Vec<u8>>,
    /// LAST_INSERT_ID().
    id: bool,
}

/// The session's values.
pub(super) struct Values {
    variables: Seat,
    ids: Seat,
    pub(super) prepared_on: Seat,
    /// Names assigned in texts, as `` @`x` ``.
    names: BTreeSet<Vec<u8>>,
    /// Others may have been assigned where no text shows it.
    unseen: bool,
    /// Statements by name; None: deallocated.
    pub(super) prepared: BTreeMap<Vec<u8>, Option<Kept>>,
    /// What nobody has any more.
    gone: Option<Box<Gone>>,
    /// The leg that the last statement ran on: the one that knows its
    /// warnings, ROW_COUNT() and FOUND_ROWS().
    pub last: Option<Side>,
}

impl Values {
    /// None yet; the session runs on `side`.
    pub fn new(side: Side) -> Values {
        Values {
            variables: Seat::new(side),
            ids: Seat::new(side),
            prepared_on: Seat::new(side),
            names: BTreeSet::new(),
            unseen: false,
            prepared: BTreeMap::new(),
            gone: None,
            last: None,
        }
    }

    /// Whether a statement that is not looked at may run on `side`.
    #[inline]
    pub fn settled_on(&self, side: Side) -> bool {
        let at = side.index();
        let stale = self.variables.stale[at] || self.ids.stale[at] || self.prepared_on.stale[at];
        !stale && self.gone.is_none() && self.last != Some(side.other())
    }

    /// Whether `side` has the newest LAST_INSERT_ID().
    pub fn has_id(&self, side: Side) -> bool {
        !self.ids.stale[side.index()] && !self.gone.as_ref().is_some_and(|gone| gone.id)
    }

    /// A statement that was not looked at ran on `side`.
    #[inline]
    pub fn unclassified(&mut self, side: Side) {
        self.unseen = true;
        self.variables.changed(side);
        self.ids.changed(side);
        self.last = Some(side);
    }

    /// A leg is new: it has nothing.
    pub fn leg_opened(&mut self, side: Side) {
        for seat in [&mut self.variables, &mut self.ids, &mut self.prepared_on] {
            seat.stale[side.index()] = seat.ever;
        }
    }

    /// A leg is gone. True: values went with it that the client knows of.
    ///
    /// 1. @x is set on the target, for a table that is active there; 2. as the
    ///    mirror of another table its leg misses a deadline, and is discarded;
    /// 3. the next statement reads @x on the source, where it is NULL.
    pub fn leg_gone(&mut self, side: Side) -> bool {
        if self.last == Some(side) {
            self.last = None;
        }
        let other = side.other().index();
        let mut known = false;
        if self.variables.leg_gone(side) {
            self.variables.stale[other] = false;
            known = !self.names.is_empty();
            self.unseen = false;
            if known {
                let gone = self.gone.get_or_insert_default();
                gone.names.append(&mut self.names);
            }
        }
        if self.ids.leg_gone(side) {
            self.ids.stale[other] = false;
            self.gone.get_or_insert_default().id = true;
        }
        // Their texts are here: they are prepared again wherever they run next.
        self.prepared_on.leg_gone(side);
        known
    }

    /// Whether a statement may read what is gone. `hidden`: its text does not
    /// show what it reads.
    fn misses(&mut self, facts: &Facts, sql: &[u8], mode: ScanMode, hidden: bool) -> bool {
        let Some(gone) = &mut self.gone else {
            return false;
        };
        if gone.id && facts.flags.has(Flags::LAST_INSERT_ID) {
            return true;
        }
        let named = crate::sql::user_variables(sql, mode);
        let named: Vec<Vec<u8>> = named.iter().map(|name| quoted(name)).collect();
        if facts.flags.has(Flags::USER_VARIABLE_READ) && !only_sets(sql, facts) {
            let known = |name: &Vec<u8>| self.names.contains(name);
            let is_gone = |name: &Vec<u8>| gone.names.contains(name) && !known(name);
            // Too many to be listed: any of them.
            let unlisted = named.is_empty() && !gone.names.is_empty();
            return unlisted || named.iter().any(is_gone);
        }
        if facts.flags.any(ASSIGNS) || only_sets(sql, facts) {
            for name in &named {
                gone.names.remove(name);
            }
        }
        hidden && !gone.names.is_empty()
    }

    /// There is a LAST_INSERT_ID() again.
    fn id_again(&mut self) {
        if let Some(gone) = &mut self.gone {
            gone.id = false;
            if gone.names.is_empty() {
                self.gone = None;
            }
        }
    }

    fn remember_names(&mut self, sql: &[u8], mode: ScanMode) {
        let written = crate::sql::user_variables(sql, mode);
        if written.is_empty() || self.names.len() + written.len() > NAMES_MAX {
            self.unseen = true;
            return;
        }
        self.names.extend(written.iter().map(|name| quoted(name)));
    }
}

/// A SET in which each user variable stands before its `=`: the scanner does not
/// tell which of a SET's variables are read. What it cannot tell is a read.
fn only_sets(sql: &[u8], facts: &Facts) -> bool {
    if facts.verb != Verb::Set || facts.statements != 1 {
        return false;
    }
    let mut rest = sql;
    while let Some(at) = rest.iter().position(|b| *b == b'@') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if let Some(system) = rest.strip_prefix(b"@") {
            rest = system;
            continue;
        }
        let part = |b: &u8| b.is_ascii_alphanumeric() || b"_$.".contains(b) || !b.is_ascii();
        let end = rest.iter().position(|b| !part(b)).unwrap_or(rest.len());
        let behind = rest.get(end..).unwrap_or_default().trim_ascii_start();
        if end == 0 || !(behind.starts_with(b"=") || behind.starts_with(b":=")) {
            return false;
        }
        rest = behind;
    }
    true
}

/// `` @`x` `` of any spelling of `@x`.
fn quoted(written: &[u8]) -> Vec<u8> {
    let name = written.strip_prefix(b"@").unwrap_or(written);
    put_name(&crate::sql::unquote(name))
}

pub(super) fn put_name(name: &[u8]) -> Vec<u8> {
    let mut out = b"@`".to_vec();
    for &b in name {
        out.push(b.to_ascii_lowercase());
        if b == b'`' {
            out.push(b);
        }
    }
    out.push(b'`');
    out
}

/// Asks what only the leg of the statement before knows.
pub(super) fn asks_previous(facts: &Facts) -> bool {
    let asks = Flags::FOUND_ROWS
        .with(Flags::ROW_COUNT)
        .with(Flags::DIAGNOSTICS);
    facts.statements == 1
        && facts.tables.is_empty()
        && (facts.class == Class::Read || facts.verb == Verb::GetDiagnostics)
        && facts.flags.any(asks)
        && !facts
            .flags
            .any(Flags::GET_LOCK.with(Flags::UNKNOWN_FUNCTION))
}

/// May do what its text does not show: set variables, insert.
pub(super) fn opaque(facts: &Facts) -> bool {
    facts.statements > 1
        || facts.class == Class::Unknown
        || facts.flags.any(
            Flags::UNKNOWN_FUNCTION
                .with(Flags::OVERFLOW)
                .with(Flags::UNTERMINATED),
        )
}

/// What is known to change user variables.
const ASSIGNS: Flags = Flags::USER_VARIABLE_WRITE.with(Flags::SELECT_INTO);

impl Session {
    /// Before a statement runs on `side`: what it may read is brought there.
    /// Then notes what it may change.
    pub(super) async fn values_for(
        &mut self,
        side: Side,
        facts: &Facts,
        sql: &[u8],
    ) -> Result<(), End> {
        let other = side.other();
        if self.legs[other.index()].is_none() {
            // Discarded behind the client's back (`ack: active`).
            self.values.leg_gone(other);
        }
        let opaque = opaque(facts);
        // Triggers read variables, set them and insert.
        let writes = facts.class >= Class::Write && !self.without_triggers(facts, sql);
        let inserts = matches!(facts.verb, Verb::Insert | Verb::Replace | Verb::LoadData);
        let variables = facts.flags.any(ASSIGNS.with(Flags::USER_VARIABLE_READ))
            || matches!(facts.verb, Verb::Prepare | Verb::GetDiagnostics);
        if (opaque || writes || variables) && self.values.variables.stale[side.index()] {
            self.move_variables(side).await?;
        }
        let ids = facts
            .flags
            .any(Flags::LAST_INSERT_ID.with(Flags::SYSTEM_VARIABLE));
        if (opaque || writes || inserts || ids) && self.values.ids.stale[side.index()] {
            self.move_ids(side).await?;
        }
        if (opaque || facts.prepared_name.is_some()) && self.values.prepared_on.stale[side.index()]
        {
            self.move_prepared(side).await?;
        }
        let mode = self.mode();
        if self.values.misses(facts, sql, mode, opaque || writes) {
            telemetry::error(other.as_str(), "values_lost");
            return Err(End::Leg(Lost {
                side: other,
                what: "the session's values went with its other leg".to_owned(),
            }));
        }
        if opaque || writes {
            self.values.unseen = true;
            self.values.variables.changed(side);
        }
        if facts.flags.any(ASSIGNS) || facts.verb == Verb::GetDiagnostics {
            self.values.remember_names(sql, mode);
            self.values.variables.changed(side);
        }
        // `SET insert_id`, `SET last_insert_id` among them.
        let sets = !facts.set_variables.is_empty();
        let sets_id = facts.flags.has(Flags::LAST_INSERT_ID_SET);
        if opaque || writes || inserts || sets || sets_id {
            self.values.ids.changed(side);
        }
        if inserts || sets_id {
            self.values.id_again();
        }
        self.values.last = Some(side);
        Ok(())
    }

    /// Before a leg is used as the mirror, which may be discarded for whatever
    /// it does wrong: the variables that it alone has are brought to the active
    /// side. Of those that no text showed and of LAST_INSERT_ID() most sessions
    /// ask for none: they stay, and are missed if they go; see
    /// [`Values::leg_gone`].
    pub(super) async fn values_off_mirror(&mut self, active: Side) -> Result<(), End> {
        if self.values.variables.stale[active.index()] && !self.values.names.is_empty() {
            self.move_variables(active).await?;
        }
        Ok(())
    }

    /// Whether the tables a statement names are known to call nothing.
    fn without_triggers(&self, facts: &Facts, sql: &[u8]) -> bool {
        let catalog = self.shared.catalog.load();
        facts.class == Class::Write
            && !facts.tables.is_empty()
            && facts.tables.iter(sql).all(|(db, name)| {
                let db = db.as_deref().or(self.database());
                let pair = db.and_then(|db| catalog.get(db, &name));
                pair.is_some_and(|pair| {
                    let quiet = |side| pair.on(side).is_some_and(|t| t.triggers == 0 && !t.is_view);
                    [Side::Source, Side::Target].into_iter().all(quiet)
                })
            })
    }

    /// GET DIAGNOSTICS set variables on a leg that is not theirs: they are
    /// brought to where the others are.
    pub(super) async fn variables_set_aside(&mut self, on: Side, sql: &[u8]) -> Result<(), End> {
        let mode = self.mode();
        self.values.remember_names(sql, mode);
        let seat = self.values.variables.side;
        if seat != on {
            let names = crate::sql::user_variables(sql, mode);
            let names: Vec<Vec<u8>> = names.iter().map(|name| quoted(name)).collect();
            self.copy_variables(on, seat, &names).await?;
        }
        self.values.variables.changed(seat);
        Ok(())
    }

    async fn move_ids(&mut self, to: Side) -> Result<(), End> {
        let from = self.values.ids.side;
        let read = self
            .read_values(
                from,
                vec![b"SELECT LAST_INSERT_ID(), @@session.insert_id LIMIT 1".to_vec()],
            )
            .await?;
        let numbers: Vec<Vec<u8>> = read
            .first()
            .map(|rows| (0..2).filter_map(|i| ascii(rows, i)).collect())
            .unwrap_or_default();
        if let [last, next] = &numbers[..] {
            let mut set = [b"SET LAST_INSERT_ID=", &last[..]].concat();
            if next != b"0" {
                set.extend_from_slice(&[b", INSERT_ID=", &next[..]].concat());
            }
            self.tell(to, &[set]).await?;
        }
        self.values.ids.moved(to);
        Ok(())
    }

    async fn move_variables(&mut self, to: Side) -> Result<(), End> {
        let from = self.values.variables.side;
        if self.values.unseen {
            self.ask_names(from).await;
        }
        let names: Vec<Vec<u8>> = self.values.names.iter().cloned().collect();
        self.copy_variables(from, to, &names).await?;
        self.values.variables.moved(to);
        self.values.unseen = false;
        Ok(())
    }

    async fn copy_variables(&mut self, from: Side, to: Side, names: &[Vec<u8>]) -> Result<(), End> {
        let questions = names.chunks(CHUNK).flat_map(questions).collect();
        let answers = self.read_values(from, questions).await?;
        let mut sets = Vec::new();
        for (names, answers) in names.chunks(CHUNK).zip(answers.chunks(2)) {
            let [types, values] = answers else { break };
            for (i, name) in names.iter().enumerate() {
                match assignment(name, i, types, values) {
                    Some(set) => sets.push(set),
                    None => telemetry::error("client", "variable_not_carried"),
                }
            }
        }
        for refused in self.tell(to, &sets).await? {
            // A collation that the other family does not know.
            let set = sets.get(refused).map_or(&[][..], Vec::as_slice);
            if let Some(at) = memchr::memmem::rfind(set, b" COLLATE ") {
                self.tell(to, &[set[..at].to_vec()]).await?;
            }
        }
        Ok(())
    }

    /// Adds the names that the server knows of.
    async fn ask_names(&mut self, from: Side) {
        let Some(leg) = self.legs[from.index()].as_ref() else {
            return;
        };
        let found = if leg.info.mariadb {
            let sql = b"SELECT variable_name FROM information_schema.user_variables LIMIT 4096";
            match self.read_values(from, vec![sql.to_vec()]).await {
                Ok(mut read) => read.pop().map_or_else(Vec::new, first_column),
                Err(_) => Vec::new(),
            }
        } else {
            let id = leg.info.thread_id;
            self.shared.variables.names(from, id).await
        };
        for name in found.into_iter().take(CARRIED_MAX) {
            self.values.names.insert(put_name(&name));
        }
    }

    /// Asks the leg that has the values. What the server refuses is left out
    /// of the answers; a leg that is lost with known values ends the session.
    async fn read_values(
        &mut self,
        from: Side,
        questions: Vec<Vec<u8>>,
    ) -> Result<Vec<TextResult>, End> {
        let Some(leg) = self.legs[from.index()].as_mut() else {
            return Ok(Vec::new());
        };
        match tokio::time::timeout(READ_LIMIT, ask(leg, &questions)).await {
            Ok(Ok(rows)) => Ok(rows),
            failed => {
                let lost = match failed {
                    Ok(Err(lost)) => lost,
                    _ => leg.lost("the session's values were not told in time"),
                };
                telemetry::error(from.as_str(), "values_lost");
                let known = self.values.leg_gone(from);
                self.drop_leg(from);
                if known {
                    Err(End::Leg(lost))
                } else {
                    Ok(Vec::new())
                }
            }
        }
    }

    /// Runs statements of ours on a leg; the places of the refused ones.
    async fn tell(&mut self, to: Side, statements: &[Vec<u8>]) -> Result<Vec<usize>, End> {
        let mut refused = Vec::new();
        let Some(leg) = self.legs[to.index()].as_mut() else {
            return Ok(refused);
        };
        for (i, statement) in statements.iter().enumerate() {
            // One by one: a value may be as large as the socket's buffers.
            if leg.query(statement).await?.summary.is_error {
                refused.push(i);
                telemetry::error(to.as_str(), "value_refused");
            }
        }
        Ok(refused)
    }
}

/// The column flag of unsigned numbers.
const UNSIGNED: u16 = 32;

async fn ask(leg: &mut Leg, questions: &[Vec<u8>]) -> Result<Vec<TextResult>, Lost> {
    let mut found = Vec::with_capacity(questions.len());
    for question in questions {
        let mut out = Vec::with_capacity(question.len() + 8);
        put_query(&mut out, leg.capabilities, question);
        leg.send(&out).await?;
        let answer = leg.answer(ResponseKind::Generic, ANSWER_LIMIT).await?;
        // A refused question is one without rows.
        found.push(match parse_text_result(&answer.bytes, leg.capabilities) {
            Ok(QueryAnswer::Rows(rows)) => rows,
            _ => TextResult::default(),
        });
    }
    Ok(found)
}

/// Two questions about some variables: their types, without values, and per
/// variable its text, its bytes and its collation.
///
/// `LIMIT` overrides the session's own sql_select_limit.
fn questions(names: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let types = [b"SELECT ", &names.join(&b", "[..])[..], b" LIMIT 0"].concat();
    let values: Vec<Vec<u8>> = names
        .iter()
        .map(|name| {
            let name = String::from_utf8_lossy(name);
            format!(
                "IF(LENGTH({name})>{VALUE_MAX},'',{name}), \
                 IF(LENGTH({name})>{VALUE_MAX},NULL,HEX({name})), COLLATION({name}), \
                 {name} IS NULL"
            )
            .into_bytes()
        })
        .collect();
    let values = [b"SELECT ", &values.join(&b", "[..])[..], b" LIMIT 1"].concat();
    [types, values]
}

fn first_column(rows: TextResult) -> Vec<Vec<u8>> {
    let firsts = rows.rows.into_iter().map(|row| row.into_iter().next());
    firsts.flatten().flatten().collect()
}

/// A value of ASCII text, whatever character set results come in.
fn ascii(rows: &TextResult, column: usize) -> Option<Vec<u8>> {
    let value = rows.value(0, column)??;
    Some(value.iter().copied().filter(|b| *b != 0).collect())
}

/// `SET @x=…` with a value of the same type, character set and collation.
/// None when it cannot be had.
fn assignment(
    name: &[u8],
    index: usize,
    types: &TextResult,
    values: &TextResult,
) -> Option<Vec<u8>> {
    let column = types.columns.get(index)?;
    let (kind, unsigned) = (column.column_type, column.flags & UNSIGNED != 0);
    let at = index * 4;
    let null = ascii(values, at + 3)? == b"1";
    let collation = ascii(values, at + 2).unwrap_or_default();
    let value = || ascii(values, at);
    let typed = match kind {
        // LONGLONG
        8 => {
            let cast = if unsigned { "UNSIGNED" } else { "SIGNED" };
            format!("CAST({} AS {cast})", number(null, value)?)
        }
        // DOUBLE: an exponent makes the literal a double.
        5 if null => "0e0+NULL".to_owned(),
        5 => {
            let text = number(false, value)?;
            let exponent = if text.contains(['e', 'E']) { "" } else { "e0" };
            format!("{text}{exponent}")
        }
        // NEWDECIMAL
        246 if null => "CAST(NULL AS DECIMAL)".to_owned(),
        246 => {
            let text = number(false, value)?;
            let point = if text.contains('.') { "" } else { "." };
            format!("{text}{point}")
        }
        _ if null => "NULL".to_owned(),
        _ => {
            let hex = String::from_utf8(ascii(values, at + 1)?).ok()?;
            let collation = String::from_utf8(collation).ok()?;
            let charset = collation.split('_').next().unwrap_or_default();
            if charset.is_empty() || charset == "binary" {
                format!("_binary X'{hex}'")
            } else {
                format!("_{charset} X'{hex}' COLLATE {collation}")
            }
        }
    };
    Some([b"SET ", name, b"=", typed.as_bytes()].concat())
}

fn number(null: bool, value: impl Fn() -> Option<Vec<u8>>) -> Option<String> {
    if null {
        return Some("NULL".to_owned());
    }
    let text = String::from_utf8(value()?).ok()?;
    let digits = |b: u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
    (!text.is_empty() && text.bytes().all(digits)).then_some(text)
}

#[cfg(test)]
mod tests;
