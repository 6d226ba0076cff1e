//! A definition of one server in the words of another.
//!
//! Whatever changes on the way is noted; what the other server cannot hold is
//! left out and noted as missing. What this does not know is left as it is:
//! the server then refuses it by itself, with its own words.

mod columns;
mod keys;
mod options;

use super::collations;
use super::model::Table;
use super::notes::{Note, Outcome, Subject};
use super::session::Server;
use super::tokens::{Kind, Token, join, tokens};

/// How definitions are carried over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// MariaDB's JSON (text with a CHECK) becomes MySQL's JSON. Off: it stays
    /// the text it is, byte for byte, which is what applications read back and
    /// what both sides can be compared by. MySQL's type sorts keys, drops
    /// duplicates and rounds numbers.
    pub native_json: bool,
    /// Leaves keys that are not unique out of CREATE TABLE; `finish` makes them
    /// once the rows are there, which is faster than keeping them up to date.
    pub defer_keys: bool,
    /// Accounts and their grants too.
    pub accounts: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            native_json: false,
            defer_keys: true,
            accounts: false,
        }
    }
}

/// From which server to which, and for which object.
pub struct Way<'a> {
    /// The server that printed the definition.
    pub from: &'a Server,
    /// The server it is for.
    pub to: &'a Server,
    /// How.
    pub options: Options,
    /// The object notes are about.
    pub subject: Subject,
    /// The notes.
    pub notes: Vec<Note>,
}

impl<'a> Way<'a> {
    /// A way for one object.
    pub fn new(from: &'a Server, to: &'a Server, options: Options, subject: Subject) -> Way<'a> {
        Way {
            from,
            to,
            options,
            subject,
            notes: Vec::new(),
        }
    }

    /// Between families?
    pub fn crosses(&self) -> bool {
        !self.from.same_family(self.to)
    }

    pub(crate) fn adapted(&mut self, part: impl Into<String>, why: impl Into<String>) {
        let note = self.subject.note(Outcome::Adapted, part, why);
        self.notes.push(note);
    }

    pub(crate) fn missing(&mut self, part: impl Into<String>, why: impl Into<String>) {
        let note = self.subject.note(Outcome::Missing, part, why);
        self.notes.push(note);
    }

    /// The collation on the other server, noted where it is another.
    pub(crate) fn collation(&mut self, part: &str, name: &str) -> Option<String> {
        let near = collations::nearest(name, &self.to.collations);
        match &near {
            Some(near) if near == name => {}
            Some(near) => {
                let why = format!(
                    "{} has no collation {name}: {near}, which may order and equate some text differently",
                    self.to.family()
                );
                self.adapted(part, why);
            }
            None => {
                let why = format!("{} has nothing like the collation {name}", self.to.family());
                self.missing(part, why);
            }
        }
        near
    }

    /// An expression or a whole statement: collations by their other names.
    pub fn text(&mut self, part: &str, text: &str) -> String {
        let all = tokens(text);
        let (from, to) = (self.from, self.to);
        let foreign = |t: &Token<'_>| {
            t.kind == Kind::Word
                && t.text.contains('_')
                && from.collations.contains(&t.text.to_lowercase())
                && !to.collations.contains(&t.text.to_lowercase())
        };
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for token in all.iter().filter(|t| foreign(t)) {
            let name = token.text.to_lowercase();
            // Tokens are parts of `text`; comments and spaces stay as they are.
            let at = token.text.as_ptr() as usize - text.as_ptr() as usize;
            out.push_str(text.get(done..at).unwrap_or_default());
            out.push_str(&self.collation(part, &name).unwrap_or(name));
            done = at + token.text.len();
        }
        out.push_str(text.get(done..).unwrap_or_default());
        out
    }
}

impl Way<'_> {
    /// An expression of a column or a check. MySQL prints every string with its
    /// character set in front; MariaDB loses its way in one that holds a quote
    /// then, and the session's own is the same.
    pub(crate) fn expression(&mut self, part: &str, text: &str) -> String {
        let text = self.text(part, text);
        if !(self.crosses() && self.to.mariadb) {
            return text;
        }
        let all = tokens(&text);
        let mut out: Vec<Token<'_>> = Vec::with_capacity(all.len());
        for (n, token) in all.iter().enumerate() {
            let string = all.get(n + 1).filter(|t| t.kind == Kind::Text && !t.gap);
            if !(token.is("_utf8mb4") && string.is_some()) {
                out.push(*token);
            }
        }
        join(&out)
    }
}

/// The table for the other server; None where it cannot hold it, and the notes
/// say why.
pub fn table(way: &mut Way<'_>, mut table: Table) -> Option<Table> {
    if way.crosses() && way.from.mariadb && !versioning(way, &mut table) {
        return None;
    }
    options::table(way, &mut table)?;
    columns::all(way, &mut table)?;
    keys::all(way, &mut table);
    checks(way, &mut table);
    options::partition(way, &mut table);
    Some(table)
}

/// MySQL knows no periods. False: the table cannot be there.
fn versioning(way: &mut Way<'_>, table: &mut Table) -> bool {
    if table.columns.iter().any(|c| c.row.is_some()) {
        let why = "MySQL has no system-versioned tables, and the columns of the row's period would have to be left out";
        way.missing("", why);
        return false;
    }
    if std::mem::take(&mut table.versioned) {
        let why = "MySQL has no system versioning: only the current rows are there";
        way.missing("system versioning", why);
    }
    for period in std::mem::take(&mut table.periods) {
        way.missing(period, "MySQL has no periods");
    }
    true
}

fn checks(way: &mut Way<'_>, table: &mut Table) {
    if !way.crosses() {
        return;
    }
    let mut kept = Vec::new();
    for mut check in std::mem::take(&mut table.checks) {
        let name = check.name.clone().unwrap_or_default();
        if !check.enforced && way.to.mariadb {
            way.adapted(name, "MariaDB has no CHECK that is not enforced: left out");
            continue;
        }
        // Unnamed ones all have such names on MariaDB, where they belong to
        // the table; on MySQL a name is taken once per schema.
        if !way.to.mariadb && name.starts_with("CONSTRAINT_") {
            check.name = None;
        }
        check.expression = way.expression(&name, &check.expression);
        kept.push(check);
    }
    table.checks = kept;
}
