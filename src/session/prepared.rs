//! Prepared statements of a session and their ids on each leg.
//!
//! The client knows the id its statement got on the leg where it was prepared
//! first; other legs are given the statement when it first runs there.

use std::collections::HashMap;
use std::sync::Arc;

use crate::route::plan::Parameters;
use crate::sql::Facts;
use crate::wire::command::{Execute, ParamValue, parameter};

/// Prepared statements of one session: a server's default for the whole
/// server (max_prepared_stmt_count is 16,382).
pub const STATEMENTS_MAX: usize = 16_382;

/// Statement text kept to prepare it on another leg, in bytes; a longer one
/// runs on its first leg only, deferred.
pub const TEXT_MAX: usize = 1 << 20;

/// Long data kept for the other leg, in bytes per session.
pub const LONG_DATA_MAX: usize = 16 << 20;

/// Ids given out when a leg's own id is taken by another leg's statement.
const OWN_IDS_FROM: u32 = 0x4000_0000;

/// One prepared statement.
pub struct Statement {
    /// Its text; None when it was too long to keep.
    pub sql: Option<Arc<[u8]>>,
    /// What the scanner found.
    pub facts: Arc<Facts>,
    /// Parameters, from the PREPARE answer.
    pub parameters: u16,
    /// The id on each leg.
    pub ids: [Option<u32>; 2],
    /// The types bound last, to be repeated on a leg that has not had them.
    pub types: Option<Vec<u8>>,
    /// Whether a leg has had the types that are in force.
    pub types_sent: [bool; 2],
    /// Parameters sent by SEND_LONG_DATA since the last execution, in order.
    pub long_data: Vec<(u16, Vec<u8>)>,
    /// Long data was too large to keep: the other leg cannot have it.
    pub long_data_lost: bool,
    /// The leg whose cursor is open for FETCH.
    pub cursor: Option<usize>,
}

/// All of a session's.
#[derive(Default)]
pub struct Prepared {
    statements: HashMap<u32, Statement>,
    next_own: u32,
    /// Long data kept now, in bytes.
    pub long_data_bytes: usize,
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
        self.statements.insert(client_id, statement);
        true
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
        let removed = self.statements.remove(&id);
        if let Some(s) = &removed {
            let kept: usize = s.long_data.iter().map(|(_, d)| d.len()).sum();
            self.long_data_bytes = self.long_data_bytes.saturating_sub(kept);
        }
        removed
    }

    /// Forgets all: COM_RESET_CONNECTION, COM_CHANGE_USER.
    pub fn clear(&mut self) {
        *self = Prepared::default();
    }

    /// A leg is gone, and its ids with it.
    pub fn leg_gone(&mut self, side: usize) {
        for s in self.statements.values_mut() {
            s.ids[side] = None;
            s.types_sent[side] = false;
        }
    }

    /// Keeps one SEND_LONG_DATA chunk for the leg that has not had it.
    pub fn keep_long_data(&mut self, id: u32, parameter: u16, data: &[u8]) {
        let Some(s) = self.statements.get_mut(&id) else {
            return;
        };
        if self.long_data_bytes + data.len() > LONG_DATA_MAX {
            s.long_data_lost = true;
            return;
        }
        self.long_data_bytes += data.len();
        s.long_data.push((parameter, data.to_vec()));
    }

    /// The execution consumed a statement's long data.
    pub fn drop_long_data(&mut self, id: u32) {
        if let Some(s) = self.statements.get_mut(&id) {
            let kept: usize = s.long_data.iter().map(|(_, d)| d.len()).sum();
            self.long_data_bytes = self.long_data_bytes.saturating_sub(kept);
            s.long_data.clear();
            s.long_data_lost = false;
        }
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
        matches!(
            self.value(i),
            Some(ParamValue::Int(0) | ParamValue::UInt(0))
        )
    }

    fn is_text(&self, i: usize) -> bool {
        // A value that cannot be read counts as text: its number is unknown.
        !matches!(
            self.value(i),
            Some(ParamValue::Null | ParamValue::Int(_) | ParamValue::UInt(_))
        )
    }
}
