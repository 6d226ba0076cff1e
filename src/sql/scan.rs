//! One pass over the tokens: verb, class, flags, tables.
//!
//! Table names stand where the grammar puts them: behind FROM of a query,
//! JOIN, INTO, the comma of a FROM list, and the verb of a write. A frame per
//! parenthesis remembers whether a comma there continues a table list and
//! whether a FROM there belongs to a query (or to EXTRACT, TRIM, …). Names of
//! common table expressions are left out where they are in scope. In doubt a
//! name is taken for a table, a call for a stored function, a statement for
//! unknown.

mod calls;
mod clauses;

use super::facts::{Class, Facts, Flags, Span, TableName, Verb};
use super::lex::{Kind, Lexer, Token};
use super::mode::ScanMode;
use super::words::{Function, Keyword as K, Known, UNKNOWN, lookup};

/// Nesting the scanner keeps frames for; deeper text shares the last frame
/// and sets [`Flags::OVERFLOW`]. Servers' own stacks end in the hundreds.
const DEPTH_MAX: usize = 64;

/// Common table expressions in scope at once; more set [`Flags::OVERFLOW`].
const CTES_MAX: usize = 8;

/// Frame: a comma at this level names another table.
const IN_FROM: u8 = 1;
/// Frame: FROM at this level belongs to a query.
const QUERY: u8 = 2;
/// Frame: the body of a common table expression.
const CTE_BODY: u8 = 4;
/// Frame: … that may see itself.
const CTE_RECURSIVE: u8 = 8;

#[derive(Clone, Copy, Default)]
struct Cte {
    name: Span,
    depth: u32,
    visible: bool,
}

/// What INSERT's values look like.
#[derive(Clone, Copy, Default)]
pub(super) struct Values {
    /// First byte of the first row, or of the first assignment.
    pub at: u32,
    pub rows: u32,
    pub parameters_before: u32,
    pub set_form: bool,
    /// Something stands between the rows that we do not know.
    pub odd: bool,
    pub seen: bool,
}

pub(super) struct Scanner<'a> {
    pub(super) sql: &'a [u8],
    pub(super) lex: Lexer<'a>,
    pub(super) cur: Token,
    /// What is known of `cur` if it is a word that is not behind a dot.
    pub(super) entry: &'static Known,
    prev: Kind,
    prev_entry: &'static Known,
    before_prev: K,
    prev_table: bool,
    pub(super) facts: &'a mut Facts,
    frames: [u8; DEPTH_MAX],
    depth: u32,
    /// Depth of the statement proper.
    base: u32,
    /// The next name is a table.
    pub(super) expect: bool,
    /// That table is the written one.
    pub(super) target: bool,
    /// The statement's verb is still to come (behind WITH).
    want_verb: bool,
    /// The rest of the text belongs to this statement; no tables in it.
    pub(super) opaque: bool,
    pub(super) verb: Verb,
    pub(super) class: Class,
    pub(super) values: Values,
    in_values: bool,
    joined: bool,
    ctes: [Cte; CTES_MAX],
    cte_count: usize,
}

/// Reads a text of any number of statements into fresh `facts`.
pub(super) fn run(sql: &[u8], mode: ScanMode, facts: &mut Facts) -> Values {
    let nothing = Token {
        kind: Kind::End,
        start: 0,
        end: 0,
    };
    let mut s = Scanner {
        sql,
        lex: Lexer::new(sql, mode),
        cur: nothing,
        entry: &UNKNOWN,
        prev: Kind::End,
        prev_entry: &UNKNOWN,
        before_prev: K::None,
        prev_table: false,
        facts,
        frames: [0; DEPTH_MAX],
        depth: 0,
        base: 0,
        expect: false,
        target: false,
        want_verb: false,
        opaque: false,
        verb: Verb::Unknown,
        class: Class::Unknown,
        values: Values::default(),
        in_values: false,
        joined: false,
        ctes: [Cte::default(); CTES_MAX],
        cte_count: 0,
    };
    s.facts.statements = 0;
    s.facts.verb = Verb::Empty;
    s.facts.class = Class::Read;
    s.advance();
    let mut semicolon = None;
    while s.cur.kind != Kind::End {
        if s.cur.is(b';') {
            s.empty_statement(semicolon);
            semicolon = Some(s.cur.start);
            s.advance();
            continue;
        }
        semicolon = None;
        s.statement();
        if s.facts.statements == 0 {
            s.facts.verb = s.verb;
        }
        s.facts.class = s.facts.class.max(s.class);
        s.facts.statements = s.facts.statements.saturating_add(1);
    }
    s.empty_statement(semicolon);
    if s.lex.unterminated() {
        s.facts.flags.set(Flags::UNTERMINATED);
    }
    if s.lex.executable {
        s.facts.flags.set(Flags::EXECUTABLE_COMMENT);
    }
    if s.lex.ambiguous {
        s.facts.class = Class::Unknown;
    }
    if s.lex.hint {
        s.facts.flags.set(Flags::OPTIMIZER_HINT);
    }
    s.facts.tables.overflow |= s.facts.flags.any(Flags::OVERFLOW);
    s.values
}

impl Scanner<'_> {
    /// To servers a comment alone behind a `;` is an empty statement, which they
    /// answer with an OK of its own. `semicolon`: the last one, and nothing but
    /// comments since.
    fn empty_statement(&mut self, semicolon: Option<usize>) {
        if self.facts.statements > 0 && semicolon.is_some() && self.lex.last_comment > semicolon {
            self.facts.statements = self.facts.statements.saturating_add(1);
        }
    }

    /// Not inlined, and the lexer is in it: tokens that are handed back through
    /// memory cost more than they take to cut.
    #[inline(never)]
    pub(super) fn advance(&mut self) {
        self.before_prev = self.prev_entry.keyword;
        self.prev = self.cur.kind;
        self.prev_entry = self.entry;
        self.prev_table = false;
        self.cur = self.lex.next();
        self.entry = if self.cur.kind == Kind::Word && self.prev != Kind::Punct(b'.') {
            lookup(self.sql.get(self.cur.start..self.cur.end).unwrap_or(&[]))
        } else {
            &UNKNOWN
        };
    }

    #[inline]
    pub(super) fn keyword(&self) -> K {
        self.entry.keyword
    }

    /// Moves past a keyword if it is the current token.
    pub(super) fn eat(&mut self, keyword: K) -> bool {
        let found = self.entry.keyword == keyword;
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn ended(&self) -> bool {
        self.cur.kind == Kind::End || self.cur.is(b';')
    }

    #[inline]
    fn frame(&self) -> u8 {
        let at = (self.depth as usize).min(DEPTH_MAX - 1);
        self.frames.get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn set_frame(&mut self, value: u8) {
        let at = (self.depth as usize).min(DEPTH_MAX - 1);
        if let Some(f) = self.frames.get_mut(at) {
            *f = value;
        }
    }

    fn frame_on(&mut self, bits: u8) {
        self.set_frame(self.frame() | bits);
    }

    fn frame_off(&mut self, bits: u8) {
        self.set_frame(self.frame() & !bits);
    }

    /// The comma now continues a table list.
    pub(super) fn table_list(&mut self) {
        self.frame_on(IN_FROM);
        self.expect = true;
    }

    fn flag(&mut self, flag: Flags) {
        self.facts.flags.set(flag);
    }

    fn statement(&mut self) {
        self.depth = 0;
        self.base = 0;
        self.set_frame(0);
        self.expect = false;
        self.target = false;
        self.want_verb = false;
        self.opaque = false;
        self.in_values = false;
        self.joined = false;
        self.cte_count = 0;
        self.values = Values::default();
        while self.cur.is(b'(') {
            self.push(0);
            self.advance();
        }
        self.base = self.depth;
        self.head();
        while self.cur.kind != Kind::End {
            if self.cur.is(b';') {
                if !self.opaque {
                    return;
                }
                self.flag(Flags::ODD);
            }
            self.token();
        }
    }

    /// Verb and class from the first words.
    pub(super) fn become_verb(&mut self, verb: Verb, class: Class) {
        self.verb = verb;
        self.class = class;
    }

    /// SELECT, INSERT, … : the statements a WITH or EXPLAIN may carry.
    /// Consumes what stands before the first table.
    pub(super) fn dml(&mut self) -> bool {
        let keyword = self.keyword();
        match keyword {
            K::Select => self.become_verb(Verb::Select, Class::Read),
            K::Table => self.become_verb(Verb::Table, Class::Read),
            K::Values => self.become_verb(Verb::Values, Class::Read),
            K::Insert => self.become_verb(Verb::Insert, Class::Write),
            K::Replace => self.become_verb(Verb::Replace, Class::Write),
            K::Update => self.become_verb(Verb::Update, Class::Write),
            K::Delete => self.become_verb(Verb::Delete, Class::Write),
            _ => return false,
        }
        self.want_verb = false;
        self.base = self.depth;
        self.advance();
        match keyword {
            K::Select => self.frame_on(QUERY),
            K::Table => self.expect = true,
            K::Insert | K::Replace => {
                self.modifiers();
                self.eat(K::Into);
                self.expect = true;
                self.target = true;
            }
            K::Update => {
                self.modifiers();
                self.table_list();
                self.target = true;
            }
            K::Delete => self.delete(),
            _ => {}
        }
        true
    }

    fn modifiers(&mut self) {
        loop {
            match self.keyword() {
                K::LowPriority | K::Delayed | K::HighPriority => {}
                K::Ignore => self.flag(Flags::IGNORE),
                _ => return,
            }
            self.advance();
        }
    }

    /// Behind DELETE.
    fn delete(&mut self) {
        self.modifiers();
        if self.eat(K::Quick) {
            self.modifiers();
        }
        self.target = true;
        self.frame_on(QUERY);
        if self.eat(K::From) {
            self.table_list();
            return;
        }
        // DELETE a, b.* FROM …: targets are names or aliases of the list.
        self.flag(Flags::MULTI_TABLE);
        self.joined = true;
        while !self.ended() && self.keyword() != K::From {
            self.advance();
        }
    }

    fn push(&mut self, bits: u8) {
        self.depth = self.depth.saturating_add(1);
        self.facts.nesting = self.facts.nesting.max(self.depth);
        if self.depth as usize >= DEPTH_MAX {
            self.flag(Flags::OVERFLOW);
        }
        self.set_frame(bits);
    }

    /// At `)`: leaves it behind.
    fn pop(&mut self) {
        let closed = self.frame();
        let depth = self.depth;
        self.depth = depth.saturating_sub(1);
        self.base = self.base.min(self.depth);
        while self.cte_count > 0
            && self
                .ctes
                .get(self.cte_count - 1)
                .is_some_and(|c| c.depth >= depth)
        {
            self.cte_count -= 1;
        }
        self.expect = false;
        self.advance();
        if closed & CTE_BODY != 0 && (depth as usize) < DEPTH_MAX {
            if let Some(cte) = self.ctes.get_mut(self.cte_count.wrapping_sub(1)) {
                cte.visible = true;
            }
            if self.cur.is(b',') {
                self.advance();
                self.cte(closed & CTE_RECURSIVE != 0);
            }
        }
    }

    /// Behind WITH or the comma of its list.
    fn cte(&mut self, recursive: bool) {
        if !self.cur.is_name() {
            return;
        }
        let name = self.cur.span();
        self.advance();
        if self.cur.is(b'(') {
            while !self.ended() && !self.cur.is(b')') {
                self.advance();
            }
            // Never past a `;`: the next statement would be hidden.
            if self.cur.is(b')') {
                self.advance();
            }
        }
        if !self.eat(K::As) || !self.cur.is(b'(') {
            return;
        }
        self.flag(Flags::WITH_CTE);
        let cte = Cte {
            name,
            depth: self.depth,
            visible: recursive,
        };
        match self.ctes.get_mut(self.cte_count) {
            Some(slot) => {
                *slot = cte;
                self.cte_count += 1;
            }
            None => self.flag(Flags::OVERFLOW),
        }
        self.push(CTE_BODY | if recursive { CTE_RECURSIVE } else { 0 });
        self.advance();
    }

    pub(super) fn with(&mut self, statement: bool) {
        self.advance();
        if statement {
            self.want_verb = true;
        }
        let recursive = self.eat(K::Recursive);
        self.cte(recursive);
    }

    /// A table where one is expected; consumes its name.
    fn table(&mut self) {
        self.expect = false;
        let first = self.cur.span();
        let in_list = self.frame() & IN_FROM != 0;
        self.advance();
        let mut table = TableName {
            db: None,
            name: first,
        };
        if self.cur.is(b'.') {
            self.advance();
            if self.cur.is_name() {
                table = TableName {
                    db: Some(first),
                    name: self.cur.span(),
                };
                self.advance();
                // DELETE FROM t1.* USING …: the name was `t1`.
            } else if self.cur.is(b'*') {
                self.advance();
            }
        }
        self.prev_table = true;
        if in_list && self.cur.is(b'(') {
            // A table function: JSON_TABLE(…).
            self.prev_table = false;
            self.prev_entry = lookup(first.of(self.sql));
            self.target = false;
            return;
        }
        if table.db.is_none() && self.is_cte(table.name) {
            return;
        }
        self.facts.tables.push(self.sql, table);
        if std::mem::take(&mut self.target) {
            self.facts.tables.promote(self.sql, table);
        }
    }

    fn is_cte(&self, name: Span) -> bool {
        self.cte_count > 0 && {
            let name = super::facts::unquote(name.of(self.sql));
            self.ctes.iter().take(self.cte_count).any(|c| {
                c.visible && super::facts::unquote(c.name.of(self.sql)).eq_ignore_ascii_case(&name)
            })
        }
    }

    /// Handles the current token and leaves it behind.
    #[inline]
    fn token(&mut self) {
        if self.expect && !self.opaque && self.expected() {
            return;
        }
        match self.cur.kind {
            Kind::Word => {
                if self.entry.keyword != K::None || self.entry.function != Function::None {
                    self.known_word();
                    return;
                }
                self.stray_in_values();
            }
            Kind::Name => self.stray_in_values(),
            Kind::Punct(b'(') => return self.open(),
            Kind::Punct(b')') => return self.pop(),
            Kind::Punct(b',') => {
                self.facts.operators = self.facts.operators.saturating_add(1);
                if self.frame() & IN_FROM != 0 {
                    self.expect = true;
                    if self.class <= Class::Write {
                        self.flag(Flags::MULTI_TABLE);
                    }
                }
            }
            Kind::Punct(_) => {
                self.facts.operators = self.facts.operators.saturating_add(1);
                self.stray_in_values();
                if self.prev == Kind::UserVariable && self.verb == Verb::Set {
                    self.flag(Flags::USER_VARIABLE_WRITE);
                }
            }
            Kind::Assign => {
                if self.prev == Kind::UserVariable {
                    self.flag(Flags::USER_VARIABLE_WRITE);
                }
            }
            Kind::Parameter => {
                self.facts.parameters = self.facts.parameters.saturating_add(1);
                self.flag(Flags::PARAMETERS);
            }
            Kind::UserVariable => self.flag(Flags::USER_VARIABLE_READ),
            Kind::SystemVariable => self.system_variable(),
            _ => self.stray_in_values(),
        }
        self.advance();
    }

    /// At the level of INSERT's rows there are only parentheses and commas.
    #[inline]
    fn stray_in_values(&mut self) {
        if self.in_values && self.depth == self.base {
            self.values.odd = true;
        }
    }

    fn system_variable(&mut self) {
        self.flag(Flags::SYSTEM_VARIABLE);
        let text = self.cur.span().of(self.sql);
        let ends = |tail: &[u8]| {
            text.len() >= tail.len()
                && text
                    .get(text.len() - tail.len()..)
                    .is_some_and(|t| t.eq_ignore_ascii_case(tail))
        };
        if ends(b"warning_count") || ends(b"error_count") {
            self.flag(Flags::DIAGNOSTICS);
        }
    }

    /// A table is expected: true if the token was used for that.
    fn expected(&mut self) -> bool {
        match self.cur.kind {
            Kind::Name => {
                self.table();
                return true;
            }
            Kind::Word => match self.entry.keyword {
                K::Select | K::With | K::Values => {
                    self.expect = false;
                    return false;
                }
                K::Dual => {
                    self.expect = false;
                    self.advance();
                    return true;
                }
                K::Lateral
                | K::Table
                | K::Into
                | K::If
                | K::Not
                | K::Exists
                | K::LowPriority
                | K::Delayed
                | K::HighPriority
                | K::Ignore => {
                    self.advance();
                    return true;
                }
                _ => {
                    self.table();
                    return true;
                }
            },
            Kind::Punct(b'(') => {
                self.push(IN_FROM);
                self.advance();
                return true;
            }
            Kind::Punct(b'{') => {
                self.advance();
                self.eat(K::Oj);
                return true;
            }
            Kind::Punct(b'.') => {
                self.advance();
                return true;
            }
            _ => {}
        }
        self.expect = false;
        false
    }

    /// At `(`: a call, a row of values, or grouping.
    fn open(&mut self) {
        if self.in_values && self.depth == self.base {
            self.values.rows = self.values.rows.saturating_add(1);
            if self.values.rows == 1 {
                self.values.at = self.cur.start as u32;
                self.values.parameters_before = self.facts.parameters;
            }
            if self.prev != Kind::Punct(b',') && self.values.rows > 1 {
                self.values.odd = true;
            }
        }
        let call = match self.prev {
            _ if self.prev_table => Function::None,
            Kind::Word => self.call_of_word(),
            Kind::Name if self.before_prev != K::As => {
                self.flag(Flags::UNKNOWN_FUNCTION);
                Function::None
            }
            _ => Function::None,
        };
        if self.prev_entry.keyword == K::Partition {
            self.flag(Flags::PARTITION);
        }
        let row = self.in_values && self.depth == self.base;
        self.push(0);
        if row {
            let seen = self.lex.row_literals();
            self.facts.operators = self.facts.operators.saturating_add(seen.operators);
            self.facts.parameters = self.facts.parameters.saturating_add(seen.parameters);
            if seen.parameters > 0 {
                self.flag(Flags::PARAMETERS);
            }
        }
        self.advance();
        if call != Function::None {
            self.call(call);
        }
    }
}
