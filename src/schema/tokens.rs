//! Cuts a server's own DDL text into tokens.
//!
//! Not `sql::lex`: that one stays within a statement as an application wrote
//! it, in its sql_mode. This one reads what `SHOW CREATE` prints for a session
//! whose sql_mode we set, and *unwraps* executable comments (`/*!80023 … */`):
//! what stands in them is part of the definition, and the other family would
//! take them for comments.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An unquoted word or a number.
    Word,
    /// A name in backticks.
    Name,
    /// A string in single or double quotes.
    Text,
    /// One other character.
    Punct,
}

/// A token, and whether white space stood before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// As written, quotes included.
    pub text: &'a str,
    /// White space before it.
    pub gap: bool,
}

impl Token<'_> {
    /// Whether it is this word, in any case.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this character.
    pub fn punct(&self, c: char) -> bool {
        self.kind == Kind::Punct && self.text.starts_with(c)
    }

    /// A name without its quotes.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_owned()),
            Kind::Name => {
                let inner = self.text.strip_prefix('`')?.strip_suffix('`')?;
                Some(inner.replace("``", "`"))
            }
            _ => None,
        }
    }
}

/// All tokens of a text. Total: whatever is left open ends with the text.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut gap = false;
    let mut open_comments = 0_u32;
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            gap = true;
            rest = &rest[c.len_utf8()..];
        } else if let Some(inner) = executable(rest) {
            open_comments += 1;
            gap = true;
            rest = inner;
        } else if let Some(after) = comment(rest) {
            gap = true;
            rest = after;
        } else if open_comments > 0 && rest.starts_with("*/") {
            open_comments -= 1;
            gap = true;
            rest = &rest[2..];
        } else {
            let (kind, len) = one(rest, c);
            let (text, after) = rest.split_at(len);
            out.push(Token { kind, text, gap });
            gap = false;
            rest = after;
        }
    }
    out
}

/// The text behind `/*!12345` or `/*M!123456`.
fn executable(text: &str) -> Option<&str> {
    let inner = text
        .strip_prefix("/*!")
        .or_else(|| text.strip_prefix("/*M!"))?;
    Some(inner.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// The text behind a comment that is one for every server; bodies of routines
/// have them.
fn comment(text: &str) -> Option<&str> {
    let line = text.starts_with('#')
        || text
            .strip_prefix("--")
            .is_some_and(|t| t.starts_with(char::is_whitespace));
    if line {
        return Some(text.split_once('\n').map_or("", |(_, after)| after));
    }
    let inner = text.strip_prefix("/*")?;
    Some(inner.split_once("*/").map_or("", |(_, after)| after))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

/// The kind and length of the first token of a text that begins with `c`.
fn one(text: &str, c: char) -> (Kind, usize) {
    match c {
        '`' => (Kind::Name, quoted(text, '`', false)),
        '\'' | '"' => (Kind::Text, quoted(text, c, true)),
        c if is_word(c) => {
            let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
            // 1.5 is one number; `a`.`b` is three tokens.
            let digits = text[..end].bytes().all(|b| b.is_ascii_digit());
            let fraction = text[end..].strip_prefix('.').filter(|_| digits);
            let more = fraction.map_or(0, |f| {
                1 + f.find(|c: char| !c.is_ascii_digit()).unwrap_or(f.len())
            });
            (Kind::Word, end + more)
        }
        c => (Kind::Punct, c.len_utf8()),
    }
}

/// The length of a quoted text, its quotes included.
fn quoted(text: &str, quote: char, backslash: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslash {
            chars.next();
        } else if c == quote {
            // Doubled: part of the text.
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return at + 1;
            }
        }
    }
    text.len()
}

/// The tokens as text again, with white space where it was.
pub fn join(tokens: &[Token<'_>]) -> String {
    let mut out = String::new();
    for token in tokens {
        if token.gap && !out.is_empty() {
            out.push(' ');
        }
        out.push_str(token.text);
    }
    out
}

/// The index of the `)` that closes the `(` at `open`.
pub fn closing(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.punct('(') {
            depth += 1;
        } else if token.punct(')') {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

/// The parts between commas that stand in no parentheses.
pub fn split<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_i64, 0);
    for (at, token) in tokens.iter().enumerate() {
        if token.punct('(') {
            depth += 1;
        } else if token.punct(')') {
            depth -= 1;
        } else if token.punct(',') && depth == 0 {
            parts.push(&tokens[from..at]);
            from = at + 1;
        }
    }
    if from < tokens.len() {
        parts.push(&tokens[from..]);
    }
    parts
}

/// A string literal's value, as a session without NO_BACKSLASH_ESCAPES means it.
pub fn literal_value(text: &str) -> String {
    let Some(quote) = text.chars().next() else {
        return String::new();
    };
    let inner = text.strip_prefix(quote).unwrap_or(text);
    let inner = inner.strip_suffix(quote).unwrap_or(inner);
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('0') => '\0',
                Some('b') => '\u{8}',
                Some('Z') => '\u{1a}',
                Some(other) => other,
                None => '\\',
            }),
            c if c == quote => {
                chars.next();
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// A name in backticks.
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string literal for a session without NO_BACKSLASH_ESCAPES.
pub fn quote_text(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    format!("'{}'", escaped.replace('\0', "\\0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|t| t.text).collect()
    }

    #[test]
    fn names_strings_and_comments() {
        assert_eq!(
            texts("`a``b`.`c` int DEFAULT 'it''s \\' (' /*!80023 INVISIBLE */, 1.50"),
            [
                "`a``b`",
                ".",
                "`c`",
                "int",
                "DEFAULT",
                "'it''s \\' ('",
                "INVISIBLE",
                ",",
                "1.50"
            ]
        );
        assert_eq!(texts("varchar(9) /*M!100301 COMPRESSED*/ x").len(), 6);
        assert_eq!(texts("a -- it's\nb # '\nc /* ' */ d"), ["a", "b", "c", "d"]);
        // Not ours to unwrap: no comment is open.
        assert_eq!(texts("a */ b"), ["a", "*", "/", "b"]);
        for open in ["'abc", "`abc", "/*!80000 x", "'a\\"] {
            assert!(!tokens(open).is_empty());
        }
    }

    #[test]
    fn parentheses_and_commas() {
        let all = tokens("(a(1,2), `x,(`, ')') rest");
        let end = closing(&all, 0).unwrap();
        assert_eq!(all[end + 1].text, "rest");
        let parts: Vec<String> = split(&all[1..end]).iter().map(|p| join(p)).collect();
        assert_eq!(parts, ["a(1,2)", "`x,(`", "')'"]);
        assert_eq!(closing(&tokens("(("), 0), None);
    }

    #[test]
    fn quoting_goes_both_ways() {
        for text in ["", "a'b", "a\\b", "x\0y", "`"] {
            assert_eq!(literal_value(&quote_text(text)), text);
        }
        assert_eq!(literal_value("'a\\nb''c'"), "a\nb'c");
        assert_eq!(tokens(&quote_name("a`b"))[0].name().as_deref(), Some("a`b"));
    }
}
