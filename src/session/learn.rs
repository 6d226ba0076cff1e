//! What a successful statement changed in the session, beyond what the
//! server reports by itself.

use super::state::Opened;
use super::statement::{Statement, is_opaque};
use super::{End, Session};
use crate::Side;
use crate::mirror::write::Diagnostics;
use crate::sql::{Class, Facts, Flags, Scope, Verb, scan, unquote};
use crate::wire::Status;
use crate::wire::response::Summary;

/// Variables that the next statement's text cannot be read without.
const AT_ONCE: [&[u8]; 4] = [
    b"sql_mode",
    b"character_set_client",
    b"sql_log_bin",
    b"timestamp",
];

/// What LOCK TABLES is refused with after the tables before it were freed:
/// ER_TABLEACCESS_DENIED_ERROR, ER_NO_SUCH_TABLE, ER_LOCK_WAIT_TIMEOUT.
const LOCKS_FREED: [u16; 3] = [1142, 1146, 1205];
/// ER_BAD_TABLE_ERROR: DROP TABLE knows none of that name.
const ER_BAD_TABLE: u16 = 1051;
/// ER_XA_RBROLLBACK, ER_XA_RBTIMEOUT, ER_XA_RBDEADLOCK.
const XA_ROLLED_BACK: [u16; 3] = [1402, 1613, 1614];

impl Session {
    /// What a successful statement changed in the session, beyond what the
    /// server reports by itself.
    pub(super) async fn learn(&mut self, s: &Statement<'_>, side: Side) {
        let facts = s.facts;
        let before = self.legs[side.index()].as_ref().map(|l| l.applied);
        if before != Some(self.state.version) {
            self.synced(side);
        }
        self.learn_text(facts, s.sql, side);
        if facts.class == Class::Ddl {
            self.shared.catalog_refresh.notify_one();
        }
        if self.is_mariadb(side) {
            self.learn_unreported(s, side).await;
        }
        if facts.flags.has(Flags::SET_ROLE) || facts.class == Class::Unknown {
            self.state.role_changed_on = Some(side);
        }
    }

    /// A text of several statements was refused in the middle: those before the
    /// refused one were executed, and none behind it.
    ///
    /// 1. `SELECT nope; SET timestamp=1000` is refused; 2. believed to have set
    ///    the clock, a write's `NOW()` stands still from then on.
    pub(super) fn learn_executed(&mut self, sql: &[u8], side: Side) {
        let (results, _) = self.pending.last();
        let mut clear = true;
        for (i, one) in crate::sql::statements(sql, self.state.mode)
            .into_iter()
            .enumerate()
        {
            let facts = scan(one, self.state.mode);
            // Nobody can tell how many results were its own.
            let several = matches!(facts.verb, Verb::Call | Verb::ExecutePrepared);
            clear &= !several && facts.class != Class::Unknown;
            if i >= results as usize {
                return;
            }
            if clear && facts.statements == 1 {
                self.learn_piece(&facts, one, side);
            } else if facts.statements == 1 && self.pins_down(&facts, one) {
                // Better to be held here without need than to be taken away.
                self.learn_pins(&facts, one, side);
            }
        }
    }

    fn is_mariadb(&self, side: Side) -> bool {
        let leg = self.legs[side.index()].as_ref();
        leg.is_some_and(|leg| leg.info.mariadb)
    }

    /// Anything may have been set on `side`.
    pub(super) fn doubt_settings(&mut self, side: Side) {
        self.state.role_changed_on = Some(side);
        if self.is_mariadb(side) {
            self.state.unsure_of_everything(side);
        }
    }

    /// What an error leaves in doubt.
    pub(super) async fn doubt_after_error(
        &mut self,
        side: Side,
        facts: &Facts,
        sql: &[u8],
        code: u16,
    ) -> Result<(), End> {
        if facts.class == Class::Unknown || is_opaque(facts) {
            self.doubt_settings(side);
        }
        if facts.verb == Verb::LockTables && facts.statements == 1 && LOCKS_FREED.contains(&code) {
            self.locked_tables = self.read_locked;
            self.repin();
        }
        match facts.verb {
            _ if facts.statements > 1 => {}
            // MariaDB has dropped those that it knows.
            Verb::DropTable if code == ER_BAD_TABLE && self.is_mariadb(side) => {
                self.learn_pins(facts, sql, side);
            }
            Verb::Xa if XA_ROLLED_BACK.contains(&code) => self.xa_rolled_back(sql),
            _ => {}
        }
        if is_opaque(facts) && !self.state.in_transaction() {
            // 1. `CALL p()` begins a transaction, writes, and fails; 2. an inline
            // write's BEGIN commits it; 3. the client rolls back.
            self.ask_flags(side).await?;
        }
        Ok(())
    }

    /// What only the text tells. Of several statements each is looked at, and
    /// of an EXECUTE what was prepared.
    pub(super) fn learn_text(&mut self, facts: &Facts, sql: &[u8], side: Side) {
        if facts.statements > 1 {
            for one in crate::sql::statements(sql, self.state.mode) {
                let facts = scan(one, self.state.mode);
                if facts.statements == 1 {
                    self.learn_piece(&facts, one, side);
                }
            }
            return;
        }
        let chained = self.chains(side, facts);
        self.learn_one(facts, sql, side, chained);
    }

    /// One of several statements. The flags are those of the last one.
    fn learn_piece(&mut self, facts: &Facts, sql: &[u8], side: Side) {
        self.learn_one(facts, sql, side, facts.chain == Some(true));
    }

    fn learn_one(&mut self, facts: &Facts, sql: &[u8], side: Side, chained: bool) {
        if facts.verb == Verb::ExecutePrepared {
            let before = self.under.take();
            self.read_as_named(facts, sql);
            if let Some(text) = self.executed_text(facts, sql) {
                let facts = scan(&text, self.mode());
                // Not an EXECUTE again: no server prepares one.
                if facts.verb != Verb::ExecutePrepared && facts.statements == 1 {
                    self.learn_one(&facts, &text, side, chained);
                }
            }
            self.under = before;
            return;
        }
        self.learn_transaction(facts, side, chained);
        for set in &facts.set_variables {
            if set.name.of(sql).eq_ignore_ascii_case(b"timestamp") {
                let value = set.value.of(sql).trim_ascii();
                self.state.client_timestamp =
                    !(value.eq_ignore_ascii_case(b"default") || value == b"0");
            }
        }
        self.learn_pins(facts, sql, side);
    }

    /// What an EXECUTE executes, as far as its PREPARE told: a literal. To be
    /// read as at PREPARE ([`Session::read_as_named`]).
    pub(super) fn executed_text(&self, facts: &Facts, sql: &[u8]) -> Option<Vec<u8>> {
        let prepare = match facts.prepared_name {
            Some(name) => self.values.prepared_text(name.of(sql))?,
            // EXECUTE IMMEDIATE '…'
            None => sql,
        };
        let quote = |b: &u8| matches!(b, b'\'' | b'"');
        let from = prepare.iter().position(quote)?;
        let to = prepare.iter().rposition(quote)?;
        let text = unquote(prepare.get(from..=to)?);
        if self.mode().no_backslash_escapes {
            return Some(text.into_owned());
        }
        Some(unescape(&text))
    }

    /// MariaDB reports `SET x = …` and `SET @@session.x = …`, not `SET @@x = …`.
    async fn learn_unreported(&mut self, s: &Statement<'_>, side: Side) {
        if s.facts.class == Class::Unknown {
            self.state.unsure_of_everything(side);
        }
        if memchr::memmem::find(s.sql, b"@@").is_none() {
            return;
        }
        if is_opaque(s.facts) {
            self.state.unsure_of_everything(side);
        }
        let mut at_once = Vec::new();
        for set in s
            .facts
            .set_variables
            .iter()
            .filter(|s| s.scope != Scope::Global)
        {
            let name = unquote(set.name.of(s.sql)).to_ascii_lowercase();
            self.state.unsure_of_one(&name, side);
            if AT_ONCE.contains(&&name[..]) {
                at_once.push(name);
            }
        }
        if !at_once.is_empty() {
            let quiet = Summary::default();
            self.keep_warnings(side, &quiet).await;
            if let Err(lost) = self.ask_variables(side, &at_once).await {
                // Its next use says so too.
                tracing::debug!(%side, what = lost.what, "a variable could not be asked for");
            }
        }
    }

    /// A question of ours would wipe what the client may ask for next.
    pub(super) async fn keep_warnings(&mut self, side: Side, ran: &Summary) {
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return;
        };
        let Ok(answer) = leg.warnings().await else {
            return;
        };
        let caps = leg.capabilities;
        let warnings = crate::mirror::write::count_rows(&answer, caps);
        self.diagnostics = Some(Diagnostics {
            row_count: row_count(ran),
            warnings,
            errors: u16::from(ran.is_error),
            list: (warnings > 0).then_some(answer.bytes),
            only_count: false,
        });
    }

    /// SET TRANSACTION waits for the next transaction, a BEGIN makes it part
    /// of its own, and the end of the transaction uses it up.
    fn learn_transaction(&mut self, facts: &Facts, side: Side, chained: bool) {
        let open = self.legs[side.index()]
            .as_ref()
            .is_some_and(|l| l.status.has(Status::IN_TRANS));
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

/// ROW_COUNT() after an answer.
fn row_count(ran: &Summary) -> i64 {
    let rows_last = ran.result_sets > 0 && ran.results == ran.result_sets;
    if ran.is_error || rows_last {
        return -1;
    }
    i64::try_from(ran.affected_rows).unwrap_or(-1)
}

/// What a literal's backslashes stand for.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&b) = bytes.next() {
        let after = if b == b'\\' { bytes.next() } else { None };
        match after {
            None => out.push(b),
            Some(b'0') => out.push(0),
            Some(b'b') => out.push(8),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'Z') => out.push(26),
            // Those two stay as they are, for LIKE.
            Some(&c @ (b'%' | b'_')) => out.extend_from_slice(&[b'\\', c]),
            Some(&c) => out.push(c),
        }
    }
    out
}
