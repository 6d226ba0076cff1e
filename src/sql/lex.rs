//! Bytes to tokens, as the servers' lexers cut them. Total: every byte is
//! consumed once, what never ends runs to the end of the text and is noted.
//!
//! Executable comments (`/*! … */`, `/*!50700 … */`, `/*M!100100 … */`) are
//! entered when the server would execute them and skipped when not.

use memchr::{memchr, memchr2, memchr3, memmem};

use super::facts::Span;
use super::mode::ScanMode;

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Unquoted word: keyword, name or function.
    Word,
    /// Quoted name.
    Name,
    /// String, hex or bit literal in quotes.
    Text,
    /// Number.
    Number,
    /// `?`
    Parameter,
    /// `@x`
    UserVariable,
    /// `@@x`; the span covers all that belongs to it (`@@session.x`).
    SystemVariable,
    /// `\N`
    Null,
    /// `:=`
    Assign,
    /// Any other byte.
    Punct(u8),
    /// End of the text.
    End,
}

/// A token and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    pub fn span(&self) -> Span {
        Span::new(self.start, self.end)
    }

    pub fn is(&self, punct: u8) -> bool {
        self.kind == Kind::Punct(punct)
    }

    /// A name as far as grammar goes: quoted, or a word.
    pub fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::Name)
    }
}

const SPACE: u8 = 1;
const IDENT: u8 = 2;
const DIGIT: u8 = 4;

/// Class of each byte: what the lexers' state maps say.
static CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut b = 0usize;
    while b < 256 {
        table[b] = match b as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => SPACE,
            b'0'..=b'9' => IDENT | DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | 0x80..=0xFF => IDENT,
            _ => 0,
        };
        b += 1;
    }
    table
};

#[inline]
fn class(b: u8) -> u8 {
    CLASS[b as usize]
}

/// What [`Lexer::row_literals`] skipped.
#[derive(Clone, Copy, Default)]
pub(crate) struct RowLiterals {
    pub operators: u32,
    pub parameters: u32,
}

/// Cuts a text into tokens.
#[derive(Clone)]
pub(crate) struct Lexer<'a> {
    sql: &'a [u8],
    pos: usize,
    mode: ScanMode,
    /// Inside a live executable comment: its `*/` is blank.
    in_executable: bool,
    /// The previous token was a dot that follows a name: digits begin a name.
    after_dot: bool,
    /// The previous token was a name: a dot belongs to it.
    after_name: bool,
    /// Something never ended.
    unterminated: bool,
    /// An executable comment was met, live or not.
    pub executable: bool,
    /// An optimizer hint was met.
    pub hint: bool,
    /// Something was met that the server may cut otherwise.
    pub ambiguous: bool,
    /// Where the last comment began.
    pub last_comment: Option<usize>,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8], mode: ScanMode) -> Lexer<'a> {
        Lexer::at(sql, mode, 0)
    }

    pub fn at(sql: &'a [u8], mode: ScanMode, pos: usize) -> Lexer<'a> {
        Lexer {
            sql,
            pos,
            mode,
            in_executable: false,
            after_dot: false,
            after_name: false,
            unterminated: false,
            executable: false,
            hint: false,
            ambiguous: false,
            last_comment: None,
        }
    }

    /// Something never ended.
    pub fn unterminated(&self) -> bool {
        self.unterminated || self.in_executable
    }

    #[inline]
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.pos + ahead).copied()
    }

    /// The next token; `End` for ever once the text is used up.
    #[inline(always)]
    pub fn next(&mut self) -> Token {
        self.skip_blank();
        let start = self.pos;
        let after_dot = std::mem::take(&mut self.after_dot);
        let after_name = std::mem::take(&mut self.after_name);
        let Some(b) = self.peek(0) else {
            return Token {
                kind: Kind::End,
                start,
                end: start,
            };
        };
        let kind = if class(b) & IDENT != 0 {
            if class(b) & DIGIT != 0 && !after_dot {
                self.number_or_word(start)
            } else {
                self.word(b)
            }
        } else {
            self.other(b, after_name)
        };
        if kind == Kind::Word || kind == Kind::Name {
            self.after_name = true;
        }
        Token {
            kind,
            start,
            end: self.pos,
        }
    }

    /// Everything that does not begin with a word byte.
    fn other(&mut self, b: u8, after_name: bool) -> Kind {
        match b {
            b'\'' => self.quoted(b, !self.mode.no_backslash_escapes, Kind::Text),
            b'"' if self.mode.ansi_quotes => self.quoted(b, false, Kind::Name),
            b'"' => self.quoted(b, !self.mode.no_backslash_escapes, Kind::Text),
            b'`' => self.quoted(b, false, Kind::Name),
            b'@' => self.variable(),
            b'?' => self.one(Kind::Parameter),
            b':' if self.peek(1) == Some(b'=') => {
                self.pos += 2;
                Kind::Assign
            }
            b'\\' if matches!(self.peek(1), Some(b'N')) => {
                self.pos += 2;
                Kind::Null
            }
            b'.' if !after_name && self.peek(1).is_some_and(|d| d.is_ascii_digit()) => {
                self.pos += 1;
                self.digits();
                self.exponent();
                Kind::Number
            }
            b'.' => {
                self.after_dot = after_name;
                self.one(Kind::Punct(b))
            }
            _ => self.one(Kind::Punct(b)),
        }
    }

    /// Skips literals, markers and commas, which is what rows of values are
    /// made of, without making tokens of them. Stops before anything else.
    pub fn row_literals(&mut self) -> RowLiterals {
        let mut seen = RowLiterals::default();
        loop {
            match self.peek(0) {
                Some(b',') => {
                    seen.operators = seen.operators.saturating_add(1);
                    self.pos += 1;
                }
                Some(b'?') => {
                    seen.parameters = seen.parameters.saturating_add(1);
                    self.pos += 1;
                }
                Some(b'\'') => {
                    self.quoted(b'\'', !self.mode.no_backslash_escapes, Kind::Text);
                }
                Some(b) if class(b) & SPACE != 0 => self.pos += 1,
                Some(b) if class(b) & DIGIT != 0 => {
                    let start = self.pos;
                    self.digits();
                    if self.peek(0) == Some(b'.') {
                        self.pos += 1;
                        self.digits();
                    }
                    // `1e5`, `2a`, `0x1F`: cut with care.
                    if self.peek(0).is_some_and(|b| class(b) & IDENT != 0) {
                        self.pos = start;
                        return seen;
                    }
                }
                Some(b'N' | b'n') if self.null_word() => self.pos += 4,
                _ => return seen,
            }
        }
    }

    /// At NULL, the word to its end.
    fn null_word(&self) -> bool {
        let word = self.sql.get(self.pos..).and_then(|s| s.first_chunk::<4>());
        word.is_some_and(|w| w.eq_ignore_ascii_case(b"NULL"))
            && self
                .peek(4)
                .is_none_or(|b| class(b) & IDENT == 0 && b != b'.')
    }

    #[inline]
    fn one(&mut self, kind: Kind) -> Kind {
        self.pos += 1;
        kind
    }

    /// Blanks and comments.
    #[inline]
    fn skip_blank(&mut self) {
        while let Some(b) = self.peek(0) {
            if class(b) & SPACE != 0 {
                self.pos += 1;
                continue;
            }
            let comment = match b {
                b'#' => true,
                b'-' => {
                    self.peek(1) == Some(b'-')
                        && self
                            .peek(2)
                            .is_none_or(|c| class(c) & SPACE != 0 || c.is_ascii_control())
                }
                b'/' => self.peek(1) == Some(b'*'),
                b'*' => self.in_executable && self.peek(1) == Some(b'/'),
                _ => false,
            };
            if !comment {
                return;
            }
            self.after_name = false;
            self.comment(b);
        }
    }

    #[cold]
    fn comment(&mut self, b: u8) {
        self.last_comment = Some(self.pos);
        match b {
            b'/' => self.block_comment(),
            b'*' => {
                self.in_executable = false;
                self.pos += 2;
            }
            _ => {
                let rest = self.sql.get(self.pos..).unwrap_or(&[]);
                self.pos += memchr(b'\n', rest).map_or(rest.len(), |n| n + 1);
            }
        }
    }

    /// At `/*`.
    fn block_comment(&mut self) {
        let after = self.pos + 2;
        let marker = match (self.sql.get(after), self.sql.get(after + 1)) {
            (Some(b'!'), _) => 1,
            (Some(b'M'), Some(b'!')) => 2,
            (Some(b'+'), _) => return self.hint_comment(),
            _ => 0,
        };
        self.executable |= marker != 0;
        // `/*M!` is a plain comment to MySQL.
        if marker == 0 || (marker == 2 && !self.mode.server.mariadb) {
            self.pos = after;
            return self.skip_to_comment_end();
        }
        let digits_at = after + marker;
        let digits = self
            .sql
            .get(digits_at..)
            .unwrap_or(&[])
            .iter()
            .take(6)
            .take_while(|b| b.is_ascii_digit())
            .count();
        // Five or six digits are a version; fewer belong to the text.
        let version = if digits >= 5 {
            self.sql
                .get(digits_at..digits_at + digits)
                .unwrap_or(&[])
                .iter()
                .fold(0u32, |v, d| v * 10 + u32::from(d - b'0'))
        } else {
            0
        };
        if self.live(marker == 2, version) {
            // Within a live one too: the servers keep one flag, and the first
            // `*/` ends them all.
            self.in_executable = true;
            self.pos = digits_at + if digits >= 5 { digits } else { 0 };
        } else {
            self.pos = digits_at;
            self.skip_dead_comment();
        }
    }

    /// At `/*+`. MySQL reads strings in hints, and does not end them at a
    /// `*/` in one.
    fn hint_comment(&mut self) {
        self.hint = true;
        self.pos += 3;
        let start = self.pos;
        self.skip_to_comment_end();
        let text = self.sql.get(start..self.pos).unwrap_or(&[]);
        self.ambiguous |= !self.mode.server.mariadb && quote_open(text);
    }

    /// Whether the server executes a comment of this version (0: none).
    fn live(&self, maria_only: bool, version: u32) -> bool {
        let server = self.mode.server;
        if version == 0 || maria_only {
            return version <= server.version;
        }
        // MariaDB ignores what MySQL 5.7 and later put in such comments.
        version <= server.version && !(server.mariadb && (50_700..=99_999).contains(&version))
    }

    /// Skips to behind `*/`.
    fn skip_to_comment_end(&mut self) {
        let rest = self.sql.get(self.pos..).unwrap_or(&[]);
        match memmem::find(rest, b"*/") {
            Some(end) => self.pos += end + 2,
            None => {
                self.pos = self.sql.len();
                self.unterminated = true;
            }
        }
    }

    /// Skips to behind the `*/` of an executable comment that is not executed:
    /// it may hold plain comments, one level of them.
    fn skip_dead_comment(&mut self) {
        loop {
            let rest = self.sql.get(self.pos..).unwrap_or(&[]);
            let Some(at) = memchr2(b'/', b'*', rest) else {
                return self.skip_to_comment_end();
            };
            match (rest.get(at), rest.get(at + 1)) {
                (Some(b'/'), Some(b'*')) => {
                    self.pos += at + 2;
                    self.skip_to_comment_end();
                }
                (Some(b'*'), Some(b'/')) => {
                    self.pos += at + 2;
                    return;
                }
                _ => self.pos += at + 1,
            }
        }
    }

    /// A quoted run; the quote doubled stands for itself.
    fn quoted(&mut self, quote: u8, escapes: bool, kind: Kind) -> Kind {
        self.pos += 1;
        if self.mode.charset != super::mode::CharsetClass::Safe {
            return self.quoted_pairs(quote, escapes, kind);
        }
        loop {
            let rest = self.sql.get(self.pos..).unwrap_or(&[]);
            let found = if escapes {
                find_quote(rest, quote)
            } else {
                memchr(quote, rest)
            };
            let Some(n) = found else {
                return self.runs_out(kind);
            };
            self.pos += n + 1;
            if rest.get(n) != Some(&quote) {
                // A backslash takes the next byte with it.
                self.pos += 1;
            } else if self.peek(0) == Some(quote) {
                self.pos += 1;
            } else {
                return kind;
            }
        }
    }

    /// The same where a character's second byte may look like a quote.
    fn quoted_pairs(&mut self, quote: u8, escapes: bool, kind: Kind) -> Kind {
        while let Some(b) = self.peek(0) {
            let next = self.peek(1);
            if b >= 0x80 && next.is_some_and(|t| self.mode.charset.pair(b, t)) {
                self.pos += 2;
            } else if b == b'\\' && escapes {
                // What a backslash escapes is a character, maybe of two bytes.
                let pair = match (next, self.peek(2)) {
                    (Some(l), Some(t)) => self.mode.charset.pair(l, t),
                    _ => false,
                };
                self.pos += if pair { 3 } else { 2 };
            } else if b == quote && next == Some(quote) {
                self.pos += 2;
            } else if b == quote {
                self.pos += 1;
                return kind;
            } else {
                self.pos += 1;
            }
        }
        self.runs_out(kind)
    }

    fn runs_out(&mut self, kind: Kind) -> Kind {
        self.pos = self.sql.len();
        self.unterminated = true;
        kind
    }

    /// At an identifier byte.
    #[inline]
    fn word(&mut self, first: u8) -> Kind {
        if self.peek(1) == Some(b'\'') && matches!(first | 0x20, b'x' | b'b' | b'n') {
            self.pos += 1;
            let escapes = first | 0x20 == b'n' && !self.mode.no_backslash_escapes;
            return self.quoted(b'\'', escapes, Kind::Text);
        }
        self.word_rest();
        Kind::Word
    }

    #[inline]
    fn word_rest(&mut self) {
        if self.mode.charset != super::mode::CharsetClass::Safe {
            return self.word_of_pairs();
        }
        let start = self.pos;
        let mut seen = 0;
        while let Some(&b) = self.sql.get(self.pos)
            && class(b) & IDENT != 0
        {
            seen |= b;
            self.pos += 1;
        }
        if seen >= 0x80 {
            self.high_word(start);
        }
    }

    /// The same where a character's second byte may look like anything.
    fn word_of_pairs(&mut self) {
        while let Some(&b) = self.sql.get(self.pos) {
            if b >= 0x80 {
                let two = self.peek(1).is_some_and(|t| self.mode.charset.pair(b, t));
                self.pos += if two { 2 } else { 1 };
            } else if class(b) & IDENT != 0 {
                self.pos += 1;
            } else {
                return;
            }
        }
    }

    /// 0xA0 is a blank in latin1 and most sets of one byte a character, and
    /// part of a letter in UTF-8: a text that is not the latter may have ended
    /// the word there.
    #[cold]
    fn high_word(&mut self, start: usize) {
        let word = self.sql.get(start..self.pos).unwrap_or(&[]);
        self.ambiguous |= memchr(0xA0, word).is_some() && std::str::from_utf8(word).is_err();
    }

    /// At a digit: `12`, `1.5`, `1e5`, `0xAB`, `0b01`, or a name like `2a`.
    fn number_or_word(&mut self, start: usize) -> Kind {
        self.digits();
        match self.peek(0) {
            Some(b'.') => {
                self.pos += 1;
                self.digits();
                self.exponent();
                Kind::Number
            }
            Some(b) if class(b) & IDENT != 0 => {
                if b | 0x20 == b'e' && self.exponent() {
                    return Kind::Number;
                }
                self.word_rest();
                let text = self.sql.get(start..self.pos).unwrap_or(&[]);
                let all = |head: &[u8], test: fn(&u8) -> bool| {
                    text.strip_prefix(head)
                        .is_some_and(|t| !t.is_empty() && t.iter().all(test))
                };
                if all(b"0x", u8::is_ascii_hexdigit) || all(b"0b", |b| matches!(b, b'0' | b'1')) {
                    Kind::Number
                } else {
                    Kind::Word
                }
            }
            _ => Kind::Number,
        }
    }

    fn digits(&mut self) {
        while self.peek(0).is_some_and(|b| b.is_ascii_digit()) {
            self.pos += 1;
        }
    }

    /// `e5`, `e-5`: consumed if it is one.
    fn exponent(&mut self) -> bool {
        if self.peek(0).is_none_or(|b| b | 0x20 != b'e') {
            return false;
        }
        let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
        if !self.peek(1 + sign).is_some_and(|b| b.is_ascii_digit()) {
            return false;
        }
        let mut end = self.pos + 1 + sign;
        while self.sql.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        // `1e5x` is a name.
        if sign == 0 && self.sql.get(end).is_some_and(|&b| class(b) & IDENT != 0) {
            return false;
        }
        self.pos = end;
        true
    }

    /// At `@`.
    fn variable(&mut self) -> Kind {
        if self.peek(1) != Some(b'@') {
            self.pos += 1;
            self.variable_name();
            return Kind::UserVariable;
        }
        self.pos += 2;
        // @@x, @@session.x, @@`x`, @@global.`x`: parts joined by dots.
        loop {
            match self.peek(0) {
                Some(b'`') => {
                    self.quoted(b'`', false, Kind::Name);
                }
                Some(b) if class(b) & IDENT != 0 => self.word_rest(),
                _ => return Kind::SystemVariable,
            }
            if self.peek(0) != Some(b'.') {
                return Kind::SystemVariable;
            }
            self.pos += 1;
        }
    }

    /// Behind the `@` of a user variable.
    fn variable_name(&mut self) {
        match self.peek(0) {
            Some(q @ (b'\'' | b'"')) => {
                let name = q == b'"' && self.mode.ansi_quotes;
                let escapes = !(name || self.mode.no_backslash_escapes);
                self.quoted(q, escapes, Kind::UserVariable);
            }
            Some(b'`') => {
                self.quoted(b'`', false, Kind::UserVariable);
            }
            _ => {
                while self
                    .peek(0)
                    .is_some_and(|b| class(b) & IDENT != 0 || b == b'.')
                {
                    self.pos += 1;
                }
            }
        }
    }
}

/// Whether a quote of any kind is left open at the end of `text`.
fn quote_open(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr3(b'\'', b'"', b'`', rest) {
        let (quote, inner) = (rest.get(at), rest.get(at + 1..).unwrap_or(&[]));
        match quote.and_then(|q| memchr(*q, inner)) {
            Some(end) => rest = inner.get(end + 1..).unwrap_or(&[]),
            None => return true,
        }
    }
    false
}

/// The first quote or backslash. Short strings are the rule: a few bytes by
/// hand before memchr's set-up pays.
#[inline]
fn find_quote(rest: &[u8], quote: u8) -> Option<usize> {
    const BY_HAND: usize = 16;
    for (i, &b) in rest.iter().take(BY_HAND).enumerate() {
        if b == quote || b == b'\\' {
            return Some(i);
        }
    }
    let tail = rest.get(BY_HAND..)?;
    memchr2(quote, b'\\', tail).map(|n| n + BY_HAND)
}

/// The user variables a statement names, each once, as written (`@x`,
/// `` @`a b` ``). Empty when there are more than [`USER_VARIABLES_MAX`].
pub fn user_variables(sql: &[u8], mode: ScanMode) -> Vec<Vec<u8>> {
    let mut lexer = Lexer::new(sql, mode);
    let mut names: Vec<Vec<u8>> = Vec::new();
    loop {
        let token = lexer.next();
        match token.kind {
            Kind::End => return names,
            Kind::UserVariable => {
                let name = token.span().of(sql);
                if !names.iter().any(|n| n.eq_ignore_ascii_case(name)) {
                    names.push(name.to_vec());
                }
                if names.len() > USER_VARIABLES_MAX {
                    return Vec::new();
                }
            }
            _ => {}
        }
    }
}

/// The single statements of a text, in order; at most [`STATEMENTS_MAX`], the
/// last of which is then the rest. A compound statement comes in pieces.
pub fn statements(sql: &[u8], mode: ScanMode) -> Vec<&[u8]> {
    let mut lexer = Lexer::new(sql, mode);
    let mut list = Vec::new();
    let mut from = 0;
    loop {
        let token = lexer.next();
        let ends = token.is(b';') && list.len() + 1 < STATEMENTS_MAX;
        if ends || token.kind == Kind::End {
            list.extend(sql.get(from..token.start.min(sql.len())));
            from = token.end;
        }
        if token.kind == Kind::End {
            return list;
        }
    }
}

/// Statements of one text that are looked at one by one: a dump's settings and
/// tables, many times over.
const STATEMENTS_MAX: usize = 4096;

/// User variables whose values one statement may carry to the mirror.
const USER_VARIABLES_MAX: usize = 64;
