//! What a successful statement changed in the session, beyond what the
//! server reports by itself.

use super::Session;
use super::statement::Statement;
use crate::Side;
use crate::sql::{Class, Flags, Verb};
use crate::wire::Status;

impl Session {
    /// What a successful statement changed in the session, beyond what the
    /// server reports by itself.
    pub(super) async fn learn(&mut self, s: &Statement<'_>, side: Side) {
        let facts = s.facts;
        let before = self.legs[side.index()].as_ref().map(|l| l.applied);
        if before != Some(self.state.version) {
            self.synced(side);
        }
        match facts.class {
            Class::Read | Class::Write | Class::Transaction
                if facts.verb != Verb::SetTransaction
                    && facts.verb != Verb::Begin
                    && !self.state.status.has(Status::IN_TRANS) =>
            {
                self.state.next_isolation = None;
            }
            Class::Ddl => self.shared.catalog_refresh.notify_one(),
            _ => {}
        }
        if let Some((crate::sql::Scope::NextOnly, level)) = facts.transaction_isolation {
            self.state.next_isolation = Some(level);
        }
        for set in &facts.set_variables {
            if set.name.of(s.sql).eq_ignore_ascii_case(b"timestamp") {
                let value = set.value.of(s.sql).trim_ascii();
                self.state.client_timestamp =
                    !(value.eq_ignore_ascii_case(b"default") || value == b"0");
            }
        }
        match facts.verb {
            Verb::CreateTable | Verb::DropTable => self.temporary(s),
            Verb::LockTables => self.locked_tables = true,
            Verb::UnlockTables | Verb::Begin => self.locked_tables = false,
            Verb::Flush if facts.flags.has(Flags::FLUSH_READ_LOCK) => self.locked_tables = true,
            Verb::Xa => {
                let mut words = s
                    .sql
                    .split(u8::is_ascii_whitespace)
                    .filter(|w| !w.is_empty());
                let verb = words.nth(1).unwrap_or(&[]).to_ascii_uppercase();
                self.xa = !matches!(&verb[..], b"COMMIT" | b"ROLLBACK" | b"PREPARE" | b"RECOVER");
            }
            _ => {}
        }
    }

    fn temporary(&mut self, s: &Statement<'_>) {
        let default = self.state.database.clone().unwrap_or_default();
        for (db, name) in s.facts.tables.iter(s.sql) {
            let key = (
                db.map_or_else(|| default.clone(), |d| d.into_owned()),
                name.into_owned(),
            );
            if s.facts.verb == Verb::DropTable {
                self.temporary_tables.retain(|t| *t != key);
            } else if s.facts.flags.has(Flags::TEMPORARY)
                && self.temporary_tables.len() < super::TEMPORARY_TABLES_MAX
                && !self.temporary_tables.contains(&key)
            {
                self.temporary_tables.push(key);
            }
        }
    }
}
