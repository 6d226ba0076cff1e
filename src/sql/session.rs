//! Details of single statements that steer the session: COMMIT, SET, KILL,
//! SHOW WARNINGS and their like. Runs over short texts only.

use super::facts::{DiagnosticsForm, Facts, Flags, Kill, Scope, SetVariable, Span, Verb, unquote};
use super::lex::{Kind, Lexer, Token};
use super::mode::{Isolation, ScanMode};
use super::words::{Keyword as K, lookup};

/// Assignments of one SET that are kept; more set [`Flags::OVERFLOW`].
const SET_VARIABLES_MAX: usize = 256;

pub(super) struct Cursor<'a> {
    pub sql: &'a [u8],
    lex: Lexer<'a>,
    pub cur: Token,
    after_dot: bool,
    parameters: u32,
}

impl<'a> Cursor<'a> {
    pub fn new(sql: &'a [u8], mode: ScanMode) -> Cursor<'a> {
        Cursor::at(sql, mode, 0)
    }

    pub fn at(sql: &'a [u8], mode: ScanMode, pos: usize) -> Cursor<'a> {
        let mut lex = Lexer::at(sql, mode, pos);
        let cur = lex.next();
        Cursor {
            sql,
            lex,
            cur,
            after_dot: false,
            parameters: 0,
        }
    }

    pub fn advance(&mut self) {
        self.after_dot = self.cur.is(b'.');
        self.parameters += u32::from(self.cur.kind == Kind::Parameter);
        self.cur = self.lex.next();
    }

    /// Markers that were left behind.
    pub fn parameters(&self) -> u32 {
        self.parameters
    }

    pub fn text(&self) -> &'a [u8] {
        self.sql.get(self.cur.start..self.cur.end).unwrap_or(&[])
    }

    pub fn keyword(&self) -> K {
        if self.cur.kind == Kind::Word && !self.after_dot {
            lookup(self.text()).keyword
        } else {
            K::None
        }
    }

    pub fn eat(&mut self, keyword: K) -> bool {
        let found = self.keyword() == keyword;
        if found {
            self.advance();
        }
        found
    }

    pub fn eat_punct(&mut self, punct: u8) -> bool {
        let found = self.cur.is(punct);
        if found {
            self.advance();
        }
        found
    }

    pub fn ended(&self) -> bool {
        self.cur.kind == Kind::End || self.cur.is(b';')
    }

    fn integer(&mut self) -> Option<u64> {
        if self.cur.kind != Kind::Number {
            return None;
        }
        let n = std::str::from_utf8(self.text()).ok()?.parse().ok()?;
        self.advance();
        Some(n)
    }
}

/// Fills in what the verb calls for.
pub(super) fn detail(facts: &mut Facts, sql: &[u8], mode: ScanMode) {
    let asks = Flags::DIAGNOSTICS.with(Flags::LAST_INSERT_ID);
    if facts.verb == Verb::Select && !facts.flags.any(asks) {
        return;
    }
    let mut c = Cursor::new(sql, mode);
    match facts.verb {
        Verb::Begin => begin(facts, &mut c),
        Verb::Commit | Verb::Rollback => completion(facts, &mut c),
        Verb::Savepoint | Verb::RollbackTo | Verb::ReleaseSavepoint => {
            while !c.ended() {
                if c.cur.is_name() {
                    facts.savepoint = Some(c.cur.span());
                }
                c.advance();
            }
        }
        Verb::Set | Verb::SetTransaction => set(facts, &mut c),
        Verb::Kill => facts.kill = kill(&mut c),
        Verb::Show if facts.flags.any(Flags::DIAGNOSTICS) => {
            facts.diagnostics = show_diagnostics(&mut c);
        }
        Verb::Select => facts.diagnostics = select_diagnostics(&mut c),
        _ => {}
    }
}

fn begin(facts: &mut Facts, c: &mut Cursor<'_>) {
    let begin = &mut facts.begin;
    while !c.ended() {
        match c.keyword() {
            K::Snapshot => begin.consistent_snapshot = true,
            K::Read => {
                c.advance();
                if c.keyword() == K::Write {
                    begin.read_write = true;
                } else {
                    begin.read_only = true;
                }
            }
            _ => {}
        }
        c.advance();
    }
    begin.plain = !(begin.read_only || begin.read_write || begin.consistent_snapshot);
}

fn completion(facts: &mut Facts, c: &mut Cursor<'_>) {
    let mut no = false;
    while !c.ended() {
        match c.keyword() {
            K::Chain => facts.chain = Some(!no),
            K::Release => facts.release = Some(!no),
            _ => {}
        }
        no = c.keyword() == K::No;
        c.advance();
    }
    if facts.chain.is_some() || facts.release.is_some() {
        facts.flags.set(Flags::COMPLETION);
    }
}

fn scope_word(c: &Cursor<'_>) -> Option<Scope> {
    match c.keyword() {
        K::Session | K::Local => Some(Scope::Session),
        K::Global | K::Persist | K::PersistOnly => Some(Scope::Global),
        _ => None,
    }
}

fn set(facts: &mut Facts, c: &mut Cursor<'_>) {
    c.eat(K::Set);
    let mut scope = None;
    while !c.ended() {
        if let Some(s) = scope_word(c) {
            scope = Some(s);
            c.advance();
            continue;
        }
        if c.keyword() == K::Transaction {
            return set_transaction(facts, c, scope.unwrap_or(Scope::NextOnly));
        }
        assignment(facts, c, scope);
        // A scope word reaches its own assignment and, on MySQL, those after
        // it until the next one; naming the wider reach is the safe side only
        // for session values, so each assignment starts anew.
        scope = None;
        if !c.eat_punct(b',') {
            break;
        }
    }
}

/// `x = value`, `@@scope.x = value`, `@u = value`; stops at the comma.
fn assignment(facts: &mut Facts, c: &mut Cursor<'_>, scope: Option<Scope>) {
    let target = match c.cur.kind {
        Kind::SystemVariable => Some(split_scope(c)),
        Kind::Word | Kind::Name => Some((c.cur.span(), scope.unwrap_or(Scope::Session), false)),
        _ => None,
    };
    c.advance();
    // sql_mode may be written `x.y` for structured variables: keep the last.
    while c.cur.is(b'.') {
        c.advance();
        c.advance();
    }
    if !(c.cur.is(b'=') || c.cur.kind == Kind::Assign) {
        skip_value(c);
        return;
    }
    c.advance();
    let value = skip_value(c);
    let Some((name, scope, bare_system)) = target else {
        return;
    };
    if facts.set_variables.len() >= SET_VARIABLES_MAX {
        facts.flags.set(Flags::OVERFLOW);
        return;
    }
    let plain = name.of(c.sql);
    let plain = unquote(plain);
    let read_only = plain.eq_ignore_ascii_case(b"tx_read_only")
        || plain.eq_ignore_ascii_case(b"transaction_read_only");
    if read_only && bare_system {
        let written = unquote(value.of(c.sql));
        let on = [&b"1"[..], b"ON", b"TRUE"];
        let on = on.iter().any(|on| written.eq_ignore_ascii_case(on));
        facts.transaction_read_only = Some((Scope::NextOnly, on));
    }
    let isolation = plain.eq_ignore_ascii_case(b"tx_isolation")
        || plain.eq_ignore_ascii_case(b"transaction_isolation");
    if isolation {
        // `SET @@transaction_isolation = …` without a scope is for the next
        // transaction only.
        let scope = if bare_system { Scope::NextOnly } else { scope };
        facts.transaction_isolation =
            Isolation::parse(&unquote(value.of(c.sql))).map(|level| (scope, level));
    }
    facts.set_variables.push(SetVariable { name, scope, value });
}

/// `@@[scope.]name` → name, scope, whether no scope was written.
fn split_scope(c: &Cursor<'_>) -> (Span, Scope, bool) {
    let (start, end) = (c.cur.start + 2, c.cur.end);
    let text = c.sql.get(start..end).unwrap_or(&[]);
    if let Some(dot) = memchr::memchr(b'.', text) {
        let scope = match lookup(text.get(..dot).unwrap_or(&[])).keyword {
            K::Session | K::Local => Some(Scope::Session),
            K::Global | K::Persist | K::PersistOnly => Some(Scope::Global),
            _ => None,
        };
        if let Some(scope) = scope {
            return (Span::new(start + dot + 1, end), scope, false);
        }
    }
    (Span::new(start, end), Scope::Session, true)
}

/// Moves to the comma or end of an expression; the span of what it skipped.
fn skip_value(c: &mut Cursor<'_>) -> Span {
    let start = c.cur.start;
    let mut end = start;
    let mut depth = 0u32;
    while !(c.ended() || depth == 0 && c.cur.is(b',')) {
        if c.cur.is(b'(') {
            depth += 1;
        } else if c.cur.is(b')') {
            depth = depth.saturating_sub(1);
        }
        end = c.cur.end;
        c.advance();
    }
    Span::new(start, end)
}

/// At TRANSACTION.
fn set_transaction(facts: &mut Facts, c: &mut Cursor<'_>, scope: Scope) {
    c.advance();
    while !c.ended() {
        let level = match c.keyword() {
            K::Serializable => Some(Isolation::Serializable),
            K::Repeatable => Some(Isolation::RepeatableRead),
            K::Committed => Some(Isolation::ReadCommitted),
            K::Uncommitted => Some(Isolation::ReadUncommitted),
            K::Only => {
                facts.transaction_read_only = Some((scope, true));
                None
            }
            K::Write => {
                facts.transaction_read_only = Some((scope, false));
                None
            }
            _ => None,
        };
        if let Some(level) = level {
            facts.transaction_isolation = Some((scope, level));
        }
        c.advance();
    }
}

fn kill(c: &mut Cursor<'_>) -> Option<Kill> {
    c.eat(K::Kill);
    let query_only = c.eat(K::Query);
    if !query_only {
        c.eat(K::Connection);
    }
    let id_range = c.cur.span();
    let id = c.integer()?;
    c.ended().then_some(Kill {
        query_only,
        id,
        id_range,
    })
}

/// `[LIMIT [offset,] count | LIMIT count OFFSET offset]` to the end.
fn limit(c: &mut Cursor<'_>) -> Option<(u64, u64)> {
    if c.ended() {
        return Some((0, u64::MAX));
    }
    if !c.eat(K::Limit) {
        return None;
    }
    let first = c.integer()?;
    let both = if c.eat_punct(b',') {
        (first, c.integer()?)
    } else if c.eat(K::Offset) {
        (c.integer()?, first)
    } else {
        (0, first)
    };
    c.ended().then_some(both)
}

fn show_diagnostics(c: &mut Cursor<'_>) -> Option<DiagnosticsForm> {
    c.eat(K::Show);
    if c.eat(K::Warnings) {
        let (offset, count) = limit(c)?;
        return Some(DiagnosticsForm::ShowWarnings { offset, count });
    }
    if c.eat(K::Errors) {
        let (offset, count) = limit(c)?;
        return Some(DiagnosticsForm::ShowErrors { offset, count });
    }
    if !(c.eat(K::Count) && c.eat_punct(b'(') && c.eat_punct(b'*') && c.eat_punct(b')')) {
        return None;
    }
    let form = match c.keyword() {
        K::Warnings => DiagnosticsForm::CountWarnings,
        K::Errors => DiagnosticsForm::CountErrors,
        _ => return None,
    };
    c.advance();
    c.ended().then_some(form)
}

/// `SELECT <one of four> [[AS] alias]` and nothing else.
fn select_diagnostics(c: &mut Cursor<'_>) -> Option<DiagnosticsForm> {
    c.eat(K::Select);
    let start = c.cur.start;
    let mut end = c.cur.end;
    let text = c.text();
    let is = |name: &[u8]| text.eq_ignore_ascii_case(name);
    let make: fn(Span) -> DiagnosticsForm = match c.cur.kind {
        Kind::SystemVariable if is(b"@@warning_count") || is(b"@@session.warning_count") => {
            |label| DiagnosticsForm::WarningCount { label }
        }
        Kind::SystemVariable if is(b"@@error_count") || is(b"@@session.error_count") => {
            |label| DiagnosticsForm::ErrorCount { label }
        }
        Kind::Word if is(b"ROW_COUNT") => |label| DiagnosticsForm::RowCount { label },
        Kind::Word if is(b"LAST_INSERT_ID") => |label| DiagnosticsForm::LastInsertId { label },
        _ => return None,
    };
    let call = c.cur.kind == Kind::Word;
    c.advance();
    if call {
        if !c.eat_punct(b'(') {
            return None;
        }
        end = c.cur.end;
        if !c.eat_punct(b')') {
            return None;
        }
    }
    let mut label = Span::new(start, end);
    if !c.ended() {
        c.eat(K::As);
        let alias = c.cur.is_name() || c.cur.kind == Kind::Text;
        if !alias || c.keyword() == K::From {
            return None;
        }
        label = c.cur.span();
        c.advance();
    }
    c.ended().then(|| make(label))
}
