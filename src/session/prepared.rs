//! Prepared statements of a session and their ids on each leg.
//!
//! The client knows the id its statement got on the leg where it was prepared
//! first; other legs are given the statement when it first runs there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::under::Under;
use crate::Side;
use crate::route::plan::{Parameters, is_integer};
use crate::sql::Facts;
use crate::wire::command::{COM_STMT_SEND_LONG_DATA, Execute, ParamValue, parameter};
use crate::wire::frame::put_command;
use crate::wire::response::PrepareOk;

/// Prepared statements of one session: a server's default for the whole
/// server (max_prepared_stmt_count is 16,382).
pub const STATEMENTS_MAX: usize = 16_382;

/// Statement text kept to prepare it on another leg, in bytes per session:
/// two kilobytes for each statement a server allows. Beyond it a statement
/// runs on its first leg only, deferred.
const TEXT_MAX: usize = 32 << 20;

/// Long data kept for the other leg, in bytes per session; more than this and
/// the write is deferred.
pub const LONG_DATA_MAX: usize = 16 << 20;

/// What a chunk of long data takes besides its bytes: a client may send any
/// number of empty ones.
const CHUNK_COST: usize = 64;

/// MariaDB: the statement prepared last, whatever its id.
const LAST_STATEMENT: u32 = u32::MAX;

/// No server gives it out.
const NOBODYS: u32 = 0;

/// Ids given out when a leg's own id is taken by another leg's statement.
const OWN_IDS_FROM: u32 = 0x4000_0000;

/// One prepared statement.
pub struct Statement {
    /// Its text, or the head of one that is too long to keep.
    pub text: Arc<[u8]>,
    /// All of its text is there: it can be prepared on another leg.
    pub whole: bool,
    /// What the scanner found in `text`.
    pub facts: Arc<Facts>,
    /// What was in force when it was prepared.
    pub under: Arc<Under>,
    /// Parameters, from the PREPARE answer.
    pub parameters: u16,
    /// The id on each leg.
    pub ids: [Option<u32>; 2],
    /// The types bound last, to be repeated on a leg that has not had them.
    pub types: Option<Vec<u8>>,
    /// Whether a leg has had the types that are in force.
    pub types_sent: [bool; 2],
    /// The leg that has got all SEND_LONG_DATA since the last execution. Never
    /// two: each would have a part of a value, and execute with it.
    pub long_data_at: Option<Side>,
    /// The same data in order, for another leg.
    pub long_data: Vec<(u16, Vec<u8>)>,
    /// Some of it was not kept: another leg cannot have it.
    pub long_data_lost: bool,
    /// The leg it was prepared on or executed on last.
    pub side: Side,
    /// The leg it ran on last, where FETCH goes.
    pub cursor: Option<usize>,
    /// It has a cursor open there.
    pub open: bool,
}

/// All of a session's.
#[derive(Default)]
pub struct Prepared {
    /// Most sessions have few: what is near the root is found sooner than a hash
    /// is made.
    statements: BTreeMap<u32, Statement>,
    /// What MariaDB's clients mean by the id -1.
    last: Option<u32>,
    next_own: u32,
    /// Long data kept now, in bytes.
    long_data_bytes: usize,
    /// Text kept now, in bytes.
    text_bytes: usize,
    /// Cursors open now.
    cursors: usize,
}

impl Prepared {
    /// The id the client is given for a statement a leg calls `id`.
    pub fn client_id(&mut self, id: u32) -> u32 {
        if !self.statements.contains_key(&id) {
            return id;
        }
        loop {
            self.next_own = self.next_own.wrapping_add(1);
            let own = OWN_IDS_FROM.wrapping_add(self.next_own);
            if !self.statements.contains_key(&own) {
                return own;
            }
        }
    }

    /// Adds a statement. False when there are too many to keep track of.
    pub fn insert(&mut self, client_id: u32, statement: Statement) -> bool {
        if self.statements.len() >= STATEMENTS_MAX {
            return false;
        }
        self.text_bytes += statement.text.len();
        self.statements.insert(client_id, statement);
        self.last = Some(client_id);
        true
    }

    /// Whether a text of this length may be kept.
    pub fn has_room(&self, text: usize) -> bool {
        self.text_bytes + text <= TEXT_MAX
    }

    /// A PREPARE was refused: there is no last statement any more.
    pub fn refused(&mut self) {
        self.last = None;
    }

    /// The statement a command names, -1 resolved as MariaDB does.
    pub fn named(&self, id: u32, mariadb: bool) -> u32 {
        match self.last {
            Some(last) if mariadb && id == LAST_STATEMENT => last,
            _ => id,
        }
    }

    /// What a statement that nobody knows is called on the leg on `side`: as its
    /// client does, unless that is another statement's id there.
    ///
    /// 1. A client's statement 7 is 5 on the target, where 7 is another; 2. the
    ///    client closes that one's namesake, and executes an id it never had;
    /// 3. sent on as it is, it executes whatever has the id there.
    pub fn unknown(&self, id: u32, side: Side, mariadb: bool) -> u32 {
        let last = mariadb && id == LAST_STATEMENT && !self.statements.is_empty();
        let is_taken = |s: &Statement| s.ids[side.index()] == Some(id);
        if last || self.statements.values().any(is_taken) {
            return NOBODYS;
        }
        id
    }

    /// By the client's id.
    pub fn get(&self, id: u32) -> Option<&Statement> {
        self.statements.get(&id)
    }

    /// By the client's id.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Statement> {
        self.statements.get_mut(&id)
    }

    /// Forgets a statement.
    pub fn remove(&mut self, id: u32) -> Option<Statement> {
        self.drop_long_data(id);
        self.set_open(id, false);
        if self.last == Some(id) {
            self.last = None;
        }
        let removed = self.statements.remove(&id);
        let text = removed.as_ref().map_or(0, |s| s.text.len());
        self.text_bytes = self.text_bytes.saturating_sub(text);
        removed
    }

    /// Notes whether a statement's cursor is open.
    pub fn set_open(&mut self, id: u32, open: bool) {
        if let Some(s) = self.statements.get_mut(&id)
            && s.open != open
        {
            s.open = open;
            self.cursors = if open {
                self.cursors + 1
            } else {
                self.cursors.saturating_sub(1)
            };
        }
    }

    /// How many cursors are open.
    pub fn cursors(&self) -> usize {
        self.cursors
    }

    /// Forgets all: COM_RESET_CONNECTION, COM_CHANGE_USER.
    pub fn clear(&mut self) {
        *self = Prepared::default();
    }

    /// A leg is gone, and its ids with it.
    pub fn leg_gone(&mut self, side: usize) {
        for s in self.statements.values_mut() {
            s.ids[side] = None;
            if s.open && s.cursor == Some(side) {
                s.open = false;
                self.cursors = self.cursors.saturating_sub(1);
            }
            s.types_sent[side] = false;
            if s.long_data_at.is_some_and(|at| at.index() == side) {
                s.long_data_at = None;
            }
        }
    }

    /// One SEND_LONG_DATA chunk goes to the leg on `side`, with all before it,
    /// or to none; kept for another if there is a copy and room for it.
    pub fn keep_long_data(&mut self, id: u32, side: Option<Side>, chunk: Option<(u16, &[u8])>) {
        let Some(s) = self.statements.get_mut(&id) else {
            return;
        };
        s.long_data_at = side;
        let room = LONG_DATA_MAX.saturating_sub(self.long_data_bytes);
        match chunk {
            Some((parameter, data)) if data.len() + CHUNK_COST <= room => {
                self.long_data_bytes += data.len() + CHUNK_COST;
                s.long_data.push((parameter, data.to_vec()));
            }
            _ => s.long_data_lost = true,
        }
    }

    /// Whether the next execution of a statement takes long data.
    pub fn has_long_data(&self, id: u32) -> bool {
        (self.statements.get(&id)).is_some_and(Statement::has_long_data)
    }

    /// The execution consumed a statement's long data. Returns the leg that
    /// had it.
    pub fn drop_long_data(&mut self, id: u32) -> Option<Side> {
        let s = self.statements.get_mut(&id)?;
        let chunks = std::mem::take(&mut s.long_data);
        let kept: usize = chunks.iter().map(|(_, d)| d.len() + CHUNK_COST).sum();
        self.long_data_bytes = self.long_data_bytes.saturating_sub(kept);
        s.long_data_lost = false;
        s.long_data_at.take()
    }
}

impl Statement {
    /// A statement that `side` has just prepared as `own`.
    pub fn new(
        text: Arc<[u8]>,
        whole: bool,
        (facts, under): (Arc<Facts>, Arc<Under>),
        side: Side,
        own: PrepareOk,
    ) -> Self {
        let mut ids = [None; 2];
        ids[side.index()] = Some(own.statement_id);
        Statement {
            text,
            whole,
            facts,
            under,
            parameters: own.params,
            ids,
            types: None,
            types_sent: [false; 2],
            long_data_at: None,
            long_data: Vec::new(),
            long_data_lost: false,
            side,
            cursor: None,
            open: false,
        }
    }

    fn has_long_data(&self) -> bool {
        self.long_data_at.is_some() || !self.long_data.is_empty() || self.long_data_lost
    }

    /// Whether the next execution takes long data that `side` has not had.
    pub fn has_data_elsewhere(&self, side: Side) -> bool {
        self.has_long_data() && self.long_data_at != Some(side)
    }

    /// Whether the next execution can have its long data on `side`.
    pub fn can_have_long_data(&self, side: Side) -> bool {
        !self.long_data_lost || self.long_data_at == Some(side)
    }

    /// The long data that must go to `side` ahead of the next execution, as
    /// commands for the statement `own` there.
    pub fn missing_long_data(&self, side: Side, own: u32) -> Vec<u8> {
        let mut out = Vec::new();
        if self.long_data_at == Some(side) {
            return out;
        }
        for (parameter, bytes) in &self.long_data {
            let body = [&own.to_le_bytes()[..], &parameter.to_le_bytes(), bytes].concat();
            put_command(&mut out, COM_STMT_SEND_LONG_DATA, &body);
        }
        out
    }
}

/// The bound values of one execution, for the plan.
pub struct Bound<'a> {
    /// The command's payload.
    pub payload: &'a [u8],
    /// Its parts.
    pub execute: &'a Execute,
    /// The types in force.
    pub types: &'a [u8],
    /// The statement's long data.
    pub long_data: &'a [(u16, Vec<u8>)],
}

impl Bound<'_> {
    /// The chunks of a parameter, which is a text to the server.
    fn long_value(&self, i: usize) -> Vec<u8> {
        let own = self.long_data.iter().filter(|(p, _)| usize::from(*p) == i);
        own.flat_map(|(_, chunk)| chunk).copied().collect()
    }

    fn value(&self, i: usize) -> Option<ParamValue<'_>> {
        let long = |i: usize| self.long_data.iter().any(|(p, _)| usize::from(*p) == i);
        parameter(self.payload, self.execute, self.types, i, &long).ok()
    }
}

impl Parameters for Bound<'_> {
    fn is_null(&self, i: usize) -> bool {
        matches!(self.value(i), Some(ParamValue::Null))
    }

    fn is_zero(&self, i: usize) -> bool {
        match self.value(i) {
            Some(ParamValue::Int(n)) => n == 0,
            Some(ParamValue::UInt(n)) => n == 0,
            Some(ParamValue::Double(n)) => rounds_to_zero(n),
            // DECIMAL is sent as text.
            Some(ParamValue::Text(text) | ParamValue::Other(text)) => reads_as_zero(text),
            Some(ParamValue::LongData) => reads_as_zero(&self.long_value(i)),
            _ => false,
        }
    }

    fn is_text(&self, i: usize) -> bool {
        matches!(
            self.value(i),
            Some(ParamValue::Text(_) | ParamValue::LongData)
        )
    }

    fn is_integer(&self, i: usize) -> bool {
        match self.value(i) {
            Some(ParamValue::Int(_) | ParamValue::UInt(_)) => true,
            Some(ParamValue::Text(text)) => is_integer(text),
            _ => false,
        }
    }
}

fn rounds_to_zero(n: f64) -> bool {
    n.abs() < 0.5
}

/// Whether an integer column takes the text for 0: "", "0", "-0.0", "none".
fn reads_as_zero(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let number = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    match number {
        Some(number) => rounds_to_zero(number),
        // The digits it begins with count.
        None => !text
            .iter()
            .take_while(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
            .any(|b| matches!(b, b'1'..=b'9')),
    }
}

#[cfg(test)]
mod tests {
    use super::reads_as_zero;

    #[test]
    fn what_generates_an_id() {
        for zero in ["", "0", " 0 ", "-0.0", "0.4", "0x5", "none", "00"] {
            assert!(reads_as_zero(zero.as_bytes()), "{zero}");
        }
        for other in ["1", "-1", "0.5", "12abc", "1e3", "007"] {
            assert!(!reads_as_zero(other.as_bytes()), "{other}");
        }
    }
}
