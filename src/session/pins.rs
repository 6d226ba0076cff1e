//! What keeps a session on the server it is on: temporary tables, LOCK TABLES,
//! HANDLERs, XA transactions and open cursors. No statement brings them to
//! the other side, so a change of the active side waits for them and names
//! them (DESIGN §7).
//!
//! The interleaving this prevents:
//! 1. a session makes a temporary table on the source; 2. the route flips;
//! 3. its `INSERT INTO t SELECT … FROM temporary` runs on the target, where
//!    there is no such table.

use super::Session;
use super::prepared_xa::xid;
use crate::Side;
use crate::route::pins::Pins;
use crate::route::plan::{TemporaryTable, may_pin};
use crate::route::table::{ALL_ROUTES, RouteMask, RouteTable};
use crate::sql::{Facts, Flags, Verb, unquote};

/// Temporary tables kept track of per session.
const TEMPORARY_TABLES_MAX: usize = 1024;

/// Open HANDLERs kept track of per session.
const HANDLERS_MAX: usize = 256;

impl Session {
    /// Shows at the gate what keeps this session where it is. Called before
    /// the routes are let go, so that no drain sees neither.
    pub(super) fn repin(&mut self) {
        let pins = Pins::default()
            .with(Pins::TEMPORARY_TABLE, !self.temporary_tables.is_empty())
            .with(Pins::LOCKED_TABLES, self.locked_tables)
            .with(Pins::HANDLER, !self.handlers.is_empty())
            .with(Pins::XA, self.xa)
            .with(Pins::CURSOR, self.prepared.cursors() > 0);
        self.slot.pin(pins);
    }

    /// Every route for a statement that may keep the session where it is:
    /// 1. LOCK TABLES runs on the source; 2. a drain sees neither a held route
    ///    nor a pin, and the route flips; 3. the pin is set.
    ///
    /// And for a consistent snapshot, which has read everything.
    pub(super) fn widened(
        &mut self,
        table: &RouteTable,
        mask: RouteMask,
        facts: &Facts,
        cursor: bool,
    ) -> RouteMask {
        if facts.begin.consistent_snapshot {
            return ALL_ROUTES;
        }
        if !(cursor || may_pin(facts)) {
            return mask;
        }
        if !table.passive {
            self.narrow = Some(self.slot.holding() | mask);
        }
        ALL_ROUTES
    }

    /// Nothing keeps it any more: COM_RESET_CONNECTION, COM_CHANGE_USER.
    pub(super) fn forget_pins(&mut self) {
        self.temporary_tables.clear();
        self.handlers.clear();
        self.locked_tables = false;
        self.read_locked = false;
        self.xa = false;
        self.repin();
    }

    /// What a successful statement on `side` began or ended.
    pub(super) fn learn_pins(&mut self, facts: &Facts, sql: &[u8], side: Side) {
        match facts.verb {
            Verb::CreateTable | Verb::DropTable => self.temporary(facts, sql, side),
            Verb::AlterTable if !self.temporary_tables.is_empty() => {
                self.renamed_temporary(facts, sql)
            }
            Verb::LockTables => self.locked_tables = true,
            Verb::UnlockTables => (self.locked_tables, self.read_locked) = (false, false),
            // It frees tables, and not the lock of all.
            Verb::Begin => self.locked_tables = self.read_locked,
            Verb::Flush if facts.flags.has(Flags::FLUSH_READ_LOCK) => {
                let names = words(sql).get(2).map(|w| w.to_ascii_uppercase());
                self.read_locked |= names.as_deref() == Some(b"WITH");
                self.locked_tables = true;
            }
            Verb::Handler => self.handler(sql, side),
            Verb::Xa => self.xa(sql),
            _ => {}
        }
        self.repin();
    }

    /// Whether a statement keeps its session where it is, if it is executed.
    pub(super) fn pins_down(&self, facts: &Facts, sql: &[u8]) -> bool {
        let second = words(sql).get(1).map(|w| w.to_ascii_uppercase());
        let third = words(sql).get(2).map(|w| w.to_ascii_uppercase());
        match facts.verb {
            Verb::CreateTable => facts.flags.has(Flags::TEMPORARY),
            Verb::LockTables => true,
            Verb::Flush => facts.flags.has(Flags::FLUSH_READ_LOCK),
            Verb::Handler => third.as_deref() == Some(b"OPEN"),
            Verb::Xa => matches!(second.as_deref(), Some(b"START" | b"BEGIN")),
            _ => false,
        }
    }

    /// ALTER TABLE … RENAME of a temporary table.
    fn renamed_temporary(&mut self, facts: &Facts, sql: &[u8]) {
        let words = words(sql);
        let at = words.iter().position(|w| w.eq_ignore_ascii_case(b"RENAME"));
        let fillers = [&b"TO"[..], b"AS", b"="];
        let name = at.and_then(|at| {
            let filler = |w: &&&[u8]| !fillers.iter().any(|f| f.eq_ignore_ascii_case(w));
            words.get(at + 1..)?.iter().find(filler)
        });
        let Some((_, old)) = facts.tables.iter(sql).next() else {
            return;
        };
        if let (Some(name), Some(table)) = (
            name,
            self.temporary_tables.iter_mut().find(|t| t.name == *old),
        ) {
            let last = name.rsplit(|b| *b == b'.').next().unwrap_or(name);
            table.name = unquote(last).into_owned();
        }
    }

    fn temporary(&mut self, facts: &Facts, sql: &[u8], side: Side) {
        let default = self.database().unwrap_or_default().to_vec();
        for (index, (db, name)) in facts.tables.iter(sql).enumerate() {
            let database = db.map_or_else(|| default.clone(), |d| d.into_owned());
            let table = TemporaryTable {
                database,
                name: name.into_owned(),
                side,
            };
            let same = |t: &TemporaryTable| t.database == table.database && t.name == table.name;
            if facts.verb == Verb::DropTable {
                self.temporary_tables.retain(|t| !same(t));
            } else if index == 0
                && facts.flags.has(Flags::TEMPORARY)
                && self.temporary_tables.len() < TEMPORARY_TABLES_MAX
                && !self.temporary_tables.iter().any(same)
            {
                self.temporary_tables.push(table);
            }
        }
    }

    fn handler(&mut self, sql: &[u8], side: Side) {
        let words = words(sql);
        let is = |n: usize, word: &[u8]| words.get(n).is_some_and(|w| w.eq_ignore_ascii_case(word));
        let Some(name) = words.get(1).map(|w| bare(w)) else {
            return;
        };
        if is(2, b"CLOSE") {
            self.handlers.retain(|(open, _)| *open != name);
        } else if is(2, b"OPEN") && self.handlers.len() < HANDLERS_MAX {
            let alias = if is(3, b"AS") {
                words.get(4)
            } else {
                words.get(3)
            };
            let name = alias.map_or(name, |w| bare(w));
            self.handlers.push((name, side));
        }
    }

    /// The server has closed a HANDLER: FLUSH TABLES, DDL.
    pub(super) fn handler_gone(&mut self, sql: &[u8]) {
        if let Some(name) = words(sql).get(1).map(|w| bare(w)) {
            self.handlers.retain(|(open, _)| *open != name);
            self.repin();
        }
    }

    /// Where the HANDLER that a statement names was opened.
    pub(super) fn handler_side(&self, sql: &[u8]) -> Option<Side> {
        let name = bare(words(sql).get(1)?);
        let found = self.handlers.iter().find(|(open, _)| *open == name);
        found.map(|(_, side)| *side)
    }

    /// XA COMMIT found that it had been rolled back; after an XA PREPARE with
    /// that answer, XA ROLLBACK is still to come.
    pub(super) fn xa_rolled_back(&mut self, sql: &[u8]) {
        if words(sql)
            .get(1)
            .is_some_and(|w| w.eq_ignore_ascii_case(b"COMMIT"))
        {
            self.xa(sql);
            self.repin();
        }
    }

    fn xa(&mut self, sql: &[u8]) {
        let words = words(sql);
        let Some(verb) = words.get(1).map(|w| w.to_ascii_uppercase()) else {
            return;
        };
        let id = || xid(sql);
        match &verb[..] {
            b"START" | b"BEGIN" => self.xa = true,
            b"PREPARE" => {
                // MySQL lets go of it; on MariaDB it stays this session's.
                self.xa = self.state.mode.server.mariadb;
                if let Some(id) = id() {
                    self.shared.prepared_xa.change(id, true);
                }
            }
            b"COMMIT" | b"ROLLBACK" => {
                self.xa = false;
                if let Some(id) = id() {
                    self.shared.prepared_xa.change(id, false);
                }
            }
            _ => {}
        }
    }
}

/// A short statement's words; names with blanks in quotes are split, which
/// only makes them unlike themselves.
pub(super) fn words(sql: &[u8]) -> Vec<&[u8]> {
    let blank = |b: &u8| b.is_ascii_whitespace() || *b == b';';
    sql.split(blank).filter(|w| !w.is_empty()).take(8).collect()
}

/// The last part of a name, without quotes, folded.
fn bare(word: &[u8]) -> Vec<u8> {
    let last = word.rsplit(|b| *b == b'.').next().unwrap_or(word);
    unquote(last).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_known_by_their_last_name() {
        assert_eq!(bare(b"`Db`.`T 1`"), b"t 1");
        assert_eq!(words(b"HANDLER a.b  OPEN AS h;")[3..], [&b"AS"[..], b"h"]);
    }
}
