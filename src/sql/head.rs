//! A statement's first words: which verb, which class, what follows.

use super::facts::{Class, Flags, Verb};
use super::lex::Kind;
use super::scan::Scanner;
use super::words::Keyword as K;

impl Scanner<'_> {
    /// Reads the first words of a statement.
    pub(super) fn head(&mut self) {
        if self.dml() {
            return;
        }
        let keyword = self.keyword();
        self.become_verb(Verb::Unknown, Class::Unknown);
        match keyword {
            K::With => return self.with(true),
            K::Set => return self.head_set(),
            K::Show => return self.head_show(),
            K::Explain | K::Describe | K::Desc => return self.head_explain(),
            K::Create | K::Alter | K::Drop => return self.head_ddl(keyword),
            K::Analyze => return self.head_analyze(),
            _ => {}
        }
        if self.cur.kind != Kind::Word {
            self.opaque = true;
            return;
        }
        self.advance();
        if !self.head_simple(keyword) {
            self.head_admin(keyword);
        }
    }

    /// Statements told by their first word or two.
    fn head_simple(&mut self, keyword: K) -> bool {
        let next = self.keyword();
        let (verb, class) = match keyword {
            K::Begin => {
                if !(self.ended() || next == K::Work) {
                    // BEGIN NOT ATOMIC: a compound statement to the end.
                    self.opaque = true;
                    return true;
                }
                (Verb::Begin, Class::Transaction)
            }
            K::Start if next == K::Transaction => (Verb::Begin, Class::Transaction),
            K::Commit => (Verb::Commit, Class::Transaction),
            K::Rollback => {
                self.eat(K::Work);
                if self.keyword() == K::To {
                    (Verb::RollbackTo, Class::Transaction)
                } else {
                    (Verb::Rollback, Class::Transaction)
                }
            }
            K::Savepoint => (Verb::Savepoint, Class::Transaction),
            K::Release => (Verb::ReleaseSavepoint, Class::Transaction),
            K::Xa => (Verb::Xa, Class::Transaction),
            K::Use => (Verb::Use, Class::Session),
            K::Prepare => (Verb::Prepare, Class::Session),
            K::Deallocate => (Verb::DeallocatePrepare, Class::Session),
            K::Execute => (Verb::ExecutePrepared, Class::Unknown),
            K::Get => {
                self.facts
                    .flags
                    .set(Flags::DIAGNOSTICS.with(Flags::USER_VARIABLE_WRITE));
                (Verb::GetDiagnostics, Class::Session)
            }
            K::Signal | K::Resignal => (Verb::Signal, Class::Session),
            K::Do => {
                self.become_verb(Verb::Do, Class::Read);
                return true;
            }
            K::Handler => {
                self.become_verb(Verb::Handler, Class::Session);
                self.expect = true;
                return true;
            }
            K::Call => {
                // The procedure's name is no table; its arguments are scanned.
                self.become_verb(Verb::Call, Class::Unknown);
                return true;
            }
            K::Load if matches!(next, K::Data | K::Xml) => {
                self.become_verb(Verb::LoadData, Class::Write);
                return true;
            }
            K::Lock if matches!(next, K::Tables | K::Table) => {
                self.advance();
                self.become_verb(Verb::LockTables, Class::Session);
                self.table_list();
                return true;
            }
            K::Unlock if matches!(next, K::Tables | K::Table) => {
                (Verb::UnlockTables, Class::Session)
            }
            _ => return false,
        };
        self.become_verb(verb, class);
        self.tail_without_tables(verb);
        true
    }

    /// `USE x`, `PREPARE x …`: names that are no tables.
    fn tail_without_tables(&mut self, verb: Verb) {
        match verb {
            Verb::Use if self.cur.is_name() => self.facts.database = Some(self.cur.span()),
            Verb::Prepare if self.cur.is_name() => {
                self.facts.prepared_name = Some(self.cur.span());
            }
            Verb::ExecutePrepared if self.cur.is_name() && self.keyword() != K::Immediate => {
                self.facts.prepared_name = Some(self.cur.span());
            }
            Verb::DeallocatePrepare => {
                self.eat(K::Prepare);
                if self.cur.is_name() {
                    self.facts.prepared_name = Some(self.cur.span());
                }
            }
            _ => {}
        }
    }

    /// Administration, and what is left.
    fn head_admin(&mut self, keyword: K) {
        let next = self.keyword();
        let (verb, class) = match keyword {
            K::Kill => (Verb::Kill, Class::Admin),
            K::Help => (Verb::Help, Class::Read),
            K::Flush => return self.head_flush(),
            K::Truncate => {
                self.eat(K::Table);
                self.become_verb(Verb::Truncate, Class::Ddl);
                self.expect = true;
                return;
            }
            K::Rename if matches!(next, K::Table | K::Tables) => {
                self.advance();
                self.become_verb(Verb::RenameTable, Class::Ddl);
                self.table_list();
                return;
            }
            K::Rename => (Verb::OtherDdl, Class::Ddl),
            K::Grant => (Verb::Grant, Class::Ddl),
            K::Revoke => (Verb::Revoke, Class::Ddl),
            K::Optimize | K::Check | K::Checksum | K::Repair => return self.head_maintenance(),
            K::Reset
            | K::Purge
            | K::Change
            | K::Start
            | K::Stop
            | K::Install
            | K::Uninstall
            | K::Cache
            | K::Clone
            | K::Import
            | K::Shutdown
            | K::Restart
            | K::Lock
            | K::Unlock
            | K::Load
            | K::Backup => (Verb::Admin, Class::Admin),
            _ => {
                self.opaque = true;
                return;
            }
        };
        self.become_verb(verb, class);
    }

    fn head_flush(&mut self) {
        self.become_verb(Verb::Flush, Class::Admin);
        while !self.ended() {
            let (keyword, before) = (self.keyword(), self.cur);
            self.advance();
            let next = self.keyword();
            if (keyword == K::With && next == K::Read) || (keyword == K::For && next == K::Export) {
                self.facts.flags.set(Flags::FLUSH_READ_LOCK);
            }
            if before.is(b'(') {
                return;
            }
        }
    }

    /// Behind OPTIMIZE, CHECK, …
    fn head_maintenance(&mut self) {
        self.become_verb(Verb::TableMaintenance, Class::Admin);
        while !self.ended() && !matches!(self.keyword(), K::Table | K::Tables) {
            self.advance();
        }
        self.advance_unless_ended();
        self.table_list();
    }

    fn advance_unless_ended(&mut self) {
        if !self.ended() {
            self.advance();
        }
    }

    /// ANALYZE TABLE, or MariaDB's ANALYZE <statement>.
    fn head_analyze(&mut self) {
        self.advance();
        if self.cur.kind == Kind::Word {
            let word = self.cur.span().of(self.sql);
            if self.keyword() == K::Table
                || self.keyword() == K::Local
                || word.eq_ignore_ascii_case(b"NO_WRITE_TO_BINLOG")
            {
                return self.head_maintenance();
            }
        }
        self.explained(true);
    }

    fn head_explain(&mut self) {
        self.advance();
        let analyze = self.eat(K::Analyze);
        self.explained(analyze);
    }

    /// Behind EXPLAIN [ANALYZE]: options, then a statement or a table.
    fn explained(&mut self, analyze: bool) {
        self.facts.explain = true;
        let mut analyze = analyze;
        loop {
            match self.keyword() {
                K::Extended | K::Partitions => self.advance(),
                K::Analyze => {
                    analyze = true;
                    self.advance();
                }
                K::Format => {
                    self.advance();
                    if self.cur.is(b'=') {
                        self.advance();
                        self.advance_unless_ended();
                    }
                }
                K::For => {
                    // FOR CONNECTION n, FOR SCHEMA s …
                    self.become_verb(Verb::Explain, Class::Admin);
                    return;
                }
                _ => break,
            }
        }
        while self.cur.is(b'(') {
            self.advance();
        }
        if self.dml() {
            let class = match self.class {
                Class::Write if !analyze => Class::Read,
                other => other,
            };
            self.become_verb(Verb::Explain, class);
        } else if self.keyword() == K::With {
            // What runs behind the WITH is told too late to be trusted.
            let class = if analyze { Class::Write } else { Class::Read };
            self.with(false);
            self.become_verb(Verb::Explain, class);
        } else {
            self.become_verb(Verb::Explain, Class::Read);
            self.expect = self.cur.is_name();
        }
    }

    fn head_set(&mut self) {
        self.advance();
        self.become_verb(Verb::Set, Class::Session);
        match self.keyword() {
            K::Statement => {
                self.facts.flags.set(Flags::SET_STATEMENT);
                while !self.ended() && self.keyword() != K::For {
                    self.advance();
                }
                self.advance_unless_ended();
                self.head();
            }
            K::Names | K::Charset | K::Character => {
                self.become_verb(Verb::SetNames, Class::Session);
            }
            K::Role => self.facts.flags.set(Flags::SET_ROLE),
            K::Password | K::Resource => {}
            K::Transaction => self.become_verb(Verb::SetTransaction, Class::Session),
            K::Default => {
                // SET DEFAULT ROLE changes the grant tables.
                self.become_verb(Verb::OtherDdl, Class::Ddl);
            }
            K::Session | K::Global | K::Local => {
                self.advance();
                if self.keyword() == K::Transaction {
                    self.become_verb(Verb::SetTransaction, Class::Session);
                }
            }
            _ => {}
        }
    }

    fn head_show(&mut self) {
        self.advance();
        self.become_verb(Verb::Show, Class::Read);
        while matches!(
            self.keyword(),
            K::Full | K::Extended | K::Global | K::Session
        ) {
            self.advance();
        }
        match self.keyword() {
            K::Warnings | K::Errors => self.facts.flags.set(Flags::DIAGNOSTICS),
            K::Count => {
                while !self.ended() {
                    if matches!(self.keyword(), K::Warnings | K::Errors) {
                        self.facts.flags.set(Flags::DIAGNOSTICS);
                    }
                    self.advance();
                }
            }
            K::Create => {
                self.advance();
                if matches!(self.keyword(), K::Table | K::View) {
                    self.advance();
                    self.expect = true;
                }
            }
            K::Columns | K::Fields | K::Index | K::Indexes | K::Keys => {
                self.advance();
                if matches!(self.keyword(), K::From | K::In) {
                    self.advance();
                    self.shown_table();
                }
            }
            _ => {}
        }
    }

    /// `t [FROM db]` or `db.t`.
    fn shown_table(&mut self) {
        if !self.cur.is_name() {
            return;
        }
        let mut table = super::facts::TableName {
            db: None,
            name: self.cur.span(),
        };
        self.advance();
        let dot = self.cur.is(b'.');
        if dot || matches!(self.keyword(), K::From | K::In) {
            self.advance();
            if self.cur.is_name() {
                table = if dot {
                    super::facts::TableName {
                        db: Some(table.name),
                        name: self.cur.span(),
                    }
                } else {
                    super::facts::TableName {
                        db: Some(self.cur.span()),
                        name: table.name,
                    }
                };
                self.advance();
            }
        }
        self.facts.tables.push(self.sql, table);
    }

    /// At CREATE, ALTER or DROP: up to the word that names the object.
    fn head_ddl(&mut self, action: K) {
        self.become_verb(Verb::OtherDdl, Class::Ddl);
        self.advance();
        while !self.ended() {
            let object = self.keyword();
            match object {
                K::Table | K::Tables => return self.ddl_table(action),
                K::Index => return self.ddl_index(action),
                K::View => {
                    self.advance();
                    self.become_verb(
                        if action == K::Drop {
                            Verb::DropView
                        } else {
                            Verb::CreateView
                        },
                        Class::Ddl,
                    );
                    if action == K::Drop {
                        return self.table_list();
                    }
                    self.expect = true;
                    self.target = true;
                    return;
                }
                K::Trigger => return self.ddl_trigger(action),
                K::Database | K::Schema => return self.ddl_database(action),
                K::Sequence => {
                    self.advance();
                    self.expect = true;
                    return;
                }
                K::Prepare if action == K::Drop => {
                    self.advance();
                    self.become_verb(Verb::DeallocatePrepare, Class::Session);
                    if self.cur.is_name() {
                        self.facts.prepared_name = Some(self.cur.span());
                    }
                    return;
                }
                K::Procedure
                | K::Function
                | K::Event
                | K::User
                | K::Role
                | K::Server
                | K::Tablespace
                | K::Resource => {
                    self.opaque = true;
                    return;
                }
                K::Temporary => self.facts.flags.set(Flags::TEMPORARY),
                K::Definer => {
                    self.advance();
                    if self.cur.is(b'=') {
                        self.advance();
                    }
                }
                _ => {}
            }
            self.advance_unless_ended();
        }
    }

    fn ddl_table(&mut self, action: K) {
        self.advance();
        self.target = true;
        match action {
            K::Create => {
                self.become_verb(Verb::CreateTable, Class::Ddl);
                self.expect = true;
            }
            K::Alter => {
                self.become_verb(Verb::AlterTable, Class::Ddl);
                self.expect = true;
            }
            _ => {
                self.become_verb(Verb::DropTable, Class::Ddl);
                self.table_list();
            }
        }
    }

    fn ddl_index(&mut self, action: K) {
        self.advance();
        self.become_verb(
            if action == K::Drop {
                Verb::DropIndex
            } else {
                Verb::CreateIndex
            },
            Class::Ddl,
        );
    }

    fn ddl_trigger(&mut self, action: K) {
        self.advance();
        if action != K::Drop {
            self.become_verb(Verb::CreateTrigger, Class::Ddl);
            return;
        }
        self.become_verb(Verb::DropTrigger, Class::Ddl);
        self.skip_exists();
        if self.cur.is_name() {
            let schema = self.cur.span();
            self.advance();
            if self.cur.is(b'.') {
                self.facts.database = Some(schema);
            }
        }
    }

    fn ddl_database(&mut self, action: K) {
        self.advance();
        self.become_verb(
            match action {
                K::Create => Verb::CreateDatabase,
                K::Alter => Verb::AlterDatabase,
                _ => Verb::DropDatabase,
            },
            Class::Ddl,
        );
        self.skip_exists();
        if self.cur.is_name() {
            self.facts.database = Some(self.cur.span());
        }
    }

    fn skip_exists(&mut self) {
        while matches!(self.keyword(), K::If | K::Not | K::Exists) {
            self.advance();
        }
    }
}
