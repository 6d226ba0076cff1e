//! Clauses: SELECT, JOIN, and the words that change what a statement is.

use super::*;

impl Scanner<'_> {
    pub(super) fn select(&mut self) {
        if matches!(self.verb, Verb::Grant | Verb::Revoke) {
            return; // a privilege
        }
        self.flag(Flags::SUBQUERY);
        if matches!(self.verb, Verb::Insert | Verb::Replace) && !self.values.seen {
            self.flag(Flags::SELECT_SOURCE);
        }
        self.frame_off(IN_FROM);
        self.frame_on(QUERY);
        self.expect = false;
    }

    pub(super) fn join(&mut self) {
        if self.prev_entry.keyword == K::For || self.opaque {
            return; // USE INDEX FOR JOIN
        }
        if self.frame() & IN_FROM != 0 {
            self.expect = true;
            self.joined = true;
            self.flag(Flags::MULTI_TABLE);
        } else if self.entry.keyword == K::Join {
            self.expect = true;
            self.flag(Flags::ODD);
        }
    }

    /// A word that ends a table list.
    pub(super) fn clause(&mut self, keyword: K) {
        if self.prev_entry.keyword == K::For {
            return; // USE INDEX FOR ORDER BY | GROUP BY
        }
        self.frame_off(IN_FROM);
        match keyword {
            K::Order if self.depth == self.base => self.flag(Flags::ORDER_BY),
            K::Limit => self.flag(Flags::LIMIT),
            _ => {}
        }
    }

    pub(super) fn other_word(&mut self, keyword: K) {
        let prev = self.prev_entry.keyword;
        let insert = matches!(self.verb, Verb::Insert | Verb::Replace);
        let at_base = self.depth == self.base;
        match keyword {
            K::Values | K::Value if insert && at_base && !self.values.seen => {
                self.values.seen = true;
                self.in_values = true;
                self.flag(Flags::VALUES_FORM);
            }
            K::Value if matches!(prev, K::Next | K::Previous) => {
                self.flag(Flags::SEQUENCE.with(Flags::UNSAFE_FUNCTION));
            }
            K::Set if insert && at_base && !self.values.seen => {
                self.values = Values {
                    seen: true,
                    set_form: true,
                    rows: 1,
                    at: self.cur.end as u32,
                    parameters_before: self.facts.parameters,
                    odd: false,
                };
            }
            K::Set => self.frame_off(IN_FROM),
            K::Table if !self.opaque => self.table_word(),
            K::Into => self.word_into(),
            K::Update if prev == K::For => {
                self.flag(Flags::LOCKING_READ);
                self.frame_off(IN_FROM);
            }
            K::Share if matches!(prev, K::For | K::In) => {
                self.flag(Flags::LOCKING_READ);
                self.frame_off(IN_FROM);
            }
            K::SystemTime if prev == K::For => self.flag(Flags::SYSTEM_TIME),
            K::Of if prev == K::As => self.flag(Flags::SYSTEM_TIME),
            K::Duplicate if prev == K::On => self.flag(Flags::ON_DUPLICATE),
            K::Returning if at_base => self.flag(Flags::RETURNING),
            K::SqlCalcFoundRows => self.flag(Flags::CALC_FOUND_ROWS),
            K::Index | K::Key if matches!(prev, K::Use | K::Force | K::Ignore) => {
                self.flag(Flags::INDEX_HINT);
            }
            K::Using if self.verb == Verb::Delete && at_base && !self.joined => {
                self.facts.tables.clear();
                self.flag(Flags::MULTI_TABLE);
                self.joined = true;
                self.target = true;
                self.table_list();
            }
            K::Local if self.verb == Verb::LoadData => self.flag(Flags::LOCAL_INFILE),
            K::Lock => self.frame_off(IN_FROM),
            K::And | K::Or | K::Xor | K::Div | K::Mod | K::Regexp | K::Rlike => {
                self.facts.operators = self.facts.operators.saturating_add(1);
            }
            _ => self.ddl_word(keyword),
        }
    }

    /// TABLE inside a statement: `INSERT … TABLE s`, `EXCHANGE … WITH TABLE u`.
    pub(super) fn table_word(&mut self) {
        if matches!(
            self.verb,
            Verb::Show | Verb::Admin | Verb::Help | Verb::Grant | Verb::Revoke
        ) {
            return; // SHOW TABLE STATUS, IMPORT TABLE FROM
        }
        self.expect = true;
        self.frame_off(IN_FROM);
        if self.class <= Class::Write && self.verb != Verb::LoadData {
            self.flag(Flags::SUBQUERY);
            if matches!(self.verb, Verb::Insert | Verb::Replace) && !self.values.seen {
                self.flag(Flags::SELECT_SOURCE);
            }
        }
    }

    pub(super) fn word_into(&mut self) {
        if self.verb == Verb::LoadData {
            self.expect = true;
            self.target = true;
        } else if self.class == Class::Read {
            self.flag(Flags::SELECT_INTO);
            self.frame_off(IN_FROM);
        }
    }

    /// Words that name another table in a definition.
    pub(super) fn ddl_word(&mut self, keyword: K) {
        if self.class != Class::Ddl || self.opaque {
            return;
        }
        match (self.verb, keyword) {
            (Verb::CreateTable, K::Like) if self.prev_table || (self.prev == Kind::Punct(b'(')) => {
                self.expect = true;
            }
            (Verb::CreateTable | Verb::AlterTable, K::References) => self.expect = true,
            (Verb::CreateIndex | Verb::DropIndex | Verb::CreateTrigger, K::On)
                if self.facts.tables.is_empty() =>
            {
                self.expect = true;
            }
            // The body is no concern of routing.
            (Verb::CreateTrigger, K::For) => self.opaque = true,
            (Verb::RenameTable, K::To) => self.expect = true,
            (Verb::AlterTable, K::To | K::As) if self.prev_entry.keyword == K::Rename => {
                self.expect = true;
            }
            _ => {}
        }
    }
}
