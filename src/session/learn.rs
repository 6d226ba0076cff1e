//! What a successful statement changed in the session, beyond what the
//! server reports by itself.

use super::Session;
use super::state::Opened;
use super::statement::Statement;
use crate::Side;
use crate::mirror::write::Diagnostics;
use crate::sql::{Class, Facts, Flags, Scope, Verb, unquote};
use crate::wire::Status;

/// Variables that the next statement's text cannot be read without.
const AT_ONCE: [&[u8]; 4] = [
    b"sql_mode",
    b"character_set_client",
    b"sql_log_bin",
    b"timestamp",
];

impl Session {
    /// What a successful statement changed in the session, beyond what the
    /// server reports by itself.
    pub(super) async fn learn(&mut self, s: &Statement<'_>, side: Side) {
        let facts = s.facts;
        let before = self.legs[side.index()].as_ref().map(|l| l.applied);
        if before != Some(self.state.version) {
            self.synced(side);
        }
        self.learn_transaction(s, side);
        if facts.class == Class::Ddl {
            self.shared.catalog_refresh.notify_one();
        }
        for set in &facts.set_variables {
            if set.name.of(s.sql).eq_ignore_ascii_case(b"timestamp") {
                let value = set.value.of(s.sql).trim_ascii();
                self.state.client_timestamp =
                    !(value.eq_ignore_ascii_case(b"default") || value == b"0");
            }
        }
        if self.state.mode.server.mariadb {
            self.learn_unreported(s, side).await;
        }
        if facts.flags.has(Flags::SET_ROLE) || facts.class == Class::Unknown {
            self.state.role_changed_on = Some(side);
        }
        self.learn_pins(s, side);
    }

    /// MariaDB reports `SET x = …` and `SET @@session.x = …`, not `SET @@x = …`.
    async fn learn_unreported(&mut self, s: &Statement<'_>, side: Side) {
        self.state.unsure_of_all |= s.facts.class == Class::Unknown;
        if memchr::memmem::find(s.sql, b"@@").is_none() {
            return;
        }
        let mut at_once = Vec::new();
        for set in s
            .facts
            .set_variables
            .iter()
            .filter(|s| s.scope != Scope::Global)
        {
            let name = unquote(set.name.of(s.sql)).to_ascii_lowercase();
            self.state.unsure_of(&name);
            if AT_ONCE.contains(&&name[..]) {
                at_once.push(name);
            }
        }
        if !at_once.is_empty() {
            self.keep_warnings(side).await;
            if let Err(lost) = self.ask_variables(side, &at_once).await {
                // Its next use says so too.
                tracing::debug!(%side, what = lost.what, "a variable could not be asked for");
            }
        }
    }

    /// A question of ours would wipe what the client may ask for next.
    async fn keep_warnings(&mut self, side: Side) {
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return;
        };
        let Ok(answer) = leg.query(b"SHOW WARNINGS").await else {
            return;
        };
        let caps = leg.capabilities;
        let warnings = crate::mirror::write::count_rows(&answer, caps);
        self.diagnostics = Some(Diagnostics {
            row_count: 0,
            warnings,
            errors: 0,
            list: (warnings > 0).then_some(answer.bytes),
        });
    }

    /// SET TRANSACTION waits for the next transaction, a BEGIN makes it part
    /// of its own, and the end of the transaction uses it up.
    fn learn_transaction(&mut self, s: &Statement<'_>, side: Side) {
        let facts = s.facts;
        let open = self.legs[side.index()]
            .as_ref()
            .is_some_and(|l| l.status.has(Status::IN_TRANS));
        let chained = facts.chain == Some(true);
        match facts.verb {
            Verb::Begin => {
                // Before this one's: BEGIN committed a transaction.
                if self.state.status.has(Status::IN_TRANS) {
                    self.state.use_up_one_shots();
                }
                self.state.opened = Opened {
                    read_only: match facts.begin {
                        b if b.read_only => Some(true),
                        b if b.read_write => Some(false),
                        _ => None,
                    },
                    snapshot: facts.begin.consistent_snapshot,
                };
            }
            Verb::Commit | Verb::Rollback if !chained => self.state.use_up_one_shots(),
            _ if open || self.state.one_shot_side.is_none() => {}
            _ => match facts.class {
                Class::Write | Class::Ddl => self.state.use_up_one_shots(),
                Class::Read if !facts.tables.is_empty() => self.state.use_up_one_shots(),
                Class::Unknown => self.state.doubt_one_shots(),
                _ => {}
            },
        }
        if !open && facts.verb != Verb::Begin {
            self.state.opened = Opened::default();
        }
        self.learn_one_shots(facts, side);
    }

    fn learn_one_shots(&mut self, facts: &Facts, side: Side) {
        if let Some((Scope::NextOnly, level)) = facts.transaction_isolation {
            self.state.next_isolation = Some(level);
            self.state.one_shot_side = Some(side);
        }
        if let Some((Scope::NextOnly, read_only)) = facts.transaction_read_only {
            self.state.next_read_only = Some(read_only);
            self.state.one_shot_side = Some(side);
        }
    }
}
