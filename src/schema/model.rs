//! A table's definition, taken apart, and printed again for a server.

use std::fmt::Write;

use super::tokens::quote_name;

/// A table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Primary, unique and other keys.
    pub keys: Vec<Key>,
    /// Foreign keys.
    pub foreign: Vec<Foreign>,
    /// CHECK constraints of the table.
    pub checks: Vec<Check>,
    /// `PERIOD FOR …` (MariaDB), verbatim.
    pub periods: Vec<String>,
    /// ENGINE, COMMENT and so on: name in upper case, value verbatim.
    pub options: Vec<(String, String)>,
    /// `WITH SYSTEM VERSIONING` (MariaDB).
    pub versioned: bool,
    /// `PARTITION BY …`, verbatim without comments around it.
    pub partition: Option<String>,
}

/// A column.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Column {
    /// Name, unquoted.
    pub name: String,
    /// `varchar(20)`, `int(11) unsigned`, `enum('a','b')`.
    pub kind: String,
    /// CHARACTER SET, where printed.
    pub charset: Option<String>,
    /// COLLATE, where printed.
    pub collation: Option<String>,
    /// GENERATED ALWAYS AS (…).
    pub generated: Option<Generated>,
    /// NOT NULL or NULL, where printed.
    pub null: Option<bool>,
    /// DEFAULT, verbatim with its parentheses.
    pub default: Option<String>,
    /// ON UPDATE, verbatim.
    pub on_update: Option<String>,
    /// AUTO_INCREMENT.
    pub auto_increment: bool,
    /// INVISIBLE.
    pub invisible: bool,
    /// COMPRESSED (MariaDB).
    pub compressed: bool,
    /// COMMENT's literal.
    pub comment: Option<String>,
    /// The column's own CHECK, with parentheses (MariaDB).
    pub check: Option<String>,
    /// SRID (MySQL).
    pub srid: Option<String>,
    /// AS ROW START or END (MariaDB).
    pub row: Option<String>,
    /// Anything else, verbatim.
    pub extra: Vec<String>,
}

/// What a generated column holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generated {
    /// The expression with its parentheses.
    pub expression: String,
    /// Kept in the row, not computed when read.
    pub stored: bool,
}

/// What a key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// PRIMARY KEY.
    Primary,
    /// UNIQUE KEY.
    Unique,
    /// KEY.
    Plain,
    /// FULLTEXT KEY.
    Fulltext,
    /// SPATIAL KEY.
    Spatial,
}

/// A key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// What it does.
    pub kind: KeyKind,
    /// Its name; empty for the primary one.
    pub name: String,
    /// Its parts in order.
    pub parts: Vec<Part>,
    /// USING, COMMENT, WITH PARSER and so on, verbatim.
    pub options: Vec<String>,
    /// INVISIBLE on MySQL, IGNORED on MariaDB.
    pub ignored: bool,
}

/// One part of a key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// The column; empty where `expression` is given.
    pub column: String,
    /// Length of the prefix.
    pub prefix: Option<String>,
    /// An expression with its parentheses (MySQL).
    pub expression: Option<String>,
    /// DESC.
    pub descending: bool,
    /// Anything else: `WITHOUT OVERLAPS`.
    pub extra: Option<String>,
}

/// A foreign key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Foreign {
    /// The constraint's name.
    pub name: String,
    /// Columns of the child.
    pub columns: Vec<String>,
    /// The parent's schema where it is another one.
    pub schema: Option<String>,
    /// The parent.
    pub table: String,
    /// Columns of the parent.
    pub parents: Vec<String>,
    /// ON DELETE and ON UPDATE, verbatim.
    pub rules: String,
}

/// A CHECK constraint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Its name.
    pub name: Option<String>,
    /// The expression with its parentheses.
    pub expression: String,
    /// False for NOT ENFORCED (MySQL).
    pub enforced: bool,
}

/// Names in backticks behind commas.
pub fn names(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|n| quote_name(n)).collect();
    quoted.join(", ")
}

impl Table {
    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut all = self.options.iter();
        all.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Sets an option, in its place or at the end.
    pub fn set_option(&mut self, name: &str, value: String) {
        match self.options.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.options.push((name.to_owned(), value)),
        }
    }

    /// Takes an option away; whether it was there.
    pub fn drop_option(&mut self, name: &str) -> bool {
        let before = self.options.len();
        self.options.retain(|(n, _)| n != name);
        self.options.len() != before
    }

    /// A column by its name, in any case.
    pub fn column(&self, name: &str) -> Option<&Column> {
        let mut all = self.columns.iter();
        all.find(|c| c.name.to_lowercase() == name.to_lowercase())
    }

    /// `CREATE TABLE` of this definition. `mariadb`: in that family's words.
    pub fn create(&self, schema: &str, name: &str, mariadb: bool) -> String {
        let mut items: Vec<String> = Vec::new();
        items.extend(self.columns.iter().map(|c| c.sql(mariadb)));
        items.extend(self.periods.iter().cloned());
        items.extend(self.keys.iter().map(|k| k.sql(mariadb)));
        items.extend(self.foreign.iter().map(Foreign::sql));
        items.extend(self.checks.iter().map(Check::sql));
        let mut out = format!(
            "CREATE TABLE {}.{} (\n  {}\n)",
            quote_name(schema),
            quote_name(name),
            items.join(",\n  ")
        );
        for (name, value) in &self.options {
            let _ = write!(out, " {name}={value}");
        }
        if self.versioned {
            out.push_str(" WITH SYSTEM VERSIONING");
        }
        if let Some(partition) = &self.partition {
            let _ = write!(out, "\n{partition}");
        }
        out
    }
}

impl Column {
    /// The column's definition.
    pub fn sql(&self, mariadb: bool) -> String {
        let mut out = format!("{} {}", quote_name(&self.name), self.kind);
        let mut put = |text: &str| {
            out.push(' ');
            out.push_str(text);
        };
        if let Some(charset) = &self.charset {
            put(&format!("CHARACTER SET {charset}"));
        }
        if let Some(collation) = &self.collation {
            put(&format!("COLLATE {collation}"));
        }
        if self.compressed {
            put("COMPRESSED");
        }
        if let Some(row) = &self.row {
            put(&format!("GENERATED ALWAYS AS ROW {row}"));
        }
        if let Some(generated) = &self.generated {
            put(&format!("GENERATED ALWAYS AS {}", generated.expression));
            put(if generated.stored {
                "STORED"
            } else {
                "VIRTUAL"
            });
        }
        match self.null {
            Some(false) => put("NOT NULL"),
            Some(true) => put("NULL"),
            None => {}
        }
        if let Some(srid) = self.srid.as_ref().filter(|_| !mariadb) {
            put(&format!("SRID {srid}"));
        }
        if self.invisible {
            put("INVISIBLE");
        }
        if let Some(default) = &self.default {
            put(&format!("DEFAULT {default}"));
        }
        if let Some(update) = &self.on_update {
            put(&format!("ON UPDATE {update}"));
        }
        if self.auto_increment {
            put("AUTO_INCREMENT");
        }
        for extra in &self.extra {
            put(extra);
        }
        if let Some(comment) = &self.comment {
            put(&format!("COMMENT {comment}"));
        }
        if let Some(check) = &self.check {
            put(&format!("CHECK {check}"));
        }
        out
    }

    /// The first word of the type, in lower case.
    pub fn base(&self) -> String {
        let end = self.kind.find(['(', ' ']).unwrap_or(self.kind.len());
        self.kind
            .get(..end)
            .unwrap_or_default()
            .to_ascii_lowercase()
    }
}

impl Key {
    /// The key as a part of CREATE TABLE, or behind `ALTER TABLE … ADD`.
    pub fn sql(&self, mariadb: bool) -> String {
        let mut out = String::from(match self.kind {
            KeyKind::Primary => "PRIMARY KEY",
            KeyKind::Unique => "UNIQUE KEY",
            KeyKind::Plain => "KEY",
            KeyKind::Fulltext => "FULLTEXT KEY",
            KeyKind::Spatial => "SPATIAL KEY",
        });
        if !self.name.is_empty() {
            let _ = write!(out, " {}", quote_name(&self.name));
        }
        let parts: Vec<String> = self.parts.iter().map(Part::sql).collect();
        let _ = write!(out, " ({})", parts.join(", "));
        for option in &self.options {
            let _ = write!(out, " {option}");
        }
        if self.ignored {
            out.push_str(if mariadb { " IGNORED" } else { " INVISIBLE" });
        }
        out
    }

    /// Whether it may be left out while rows are copied and made afterwards:
    /// it decides nothing about which rows may stand in the table.
    pub fn deferrable(&self) -> bool {
        matches!(
            self.kind,
            KeyKind::Plain | KeyKind::Fulltext | KeyKind::Spatial
        )
    }
}

impl Part {
    fn sql(&self) -> String {
        let mut out = match &self.expression {
            Some(expression) => expression.clone(),
            None => quote_name(&self.column),
        };
        if let Some(prefix) = &self.prefix {
            let _ = write!(out, "({prefix})");
        }
        if self.descending {
            out.push_str(" DESC");
        }
        if let Some(extra) = &self.extra {
            let _ = write!(out, " {extra}");
        }
        out
    }
}

impl Foreign {
    /// The constraint as a part of CREATE TABLE.
    pub fn sql(&self) -> String {
        let schema = self.schema.as_ref();
        let schema = schema.map_or(String::new(), |s| format!("{}.", quote_name(s)));
        let mut out = format!(
            "CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {schema}{} ({})",
            quote_name(&self.name),
            names(&self.columns),
            quote_name(&self.table),
            names(&self.parents)
        );
        if !self.rules.is_empty() {
            let _ = write!(out, " {}", self.rules);
        }
        out
    }
}

impl Check {
    /// The constraint as a part of CREATE TABLE.
    pub fn sql(&self) -> String {
        let mut out = String::new();
        if let Some(name) = &self.name {
            let _ = write!(out, "CONSTRAINT {} ", quote_name(name));
        }
        let _ = write!(out, "CHECK {}", self.expression);
        if !self.enforced {
            out.push_str(" NOT ENFORCED");
        }
        out
    }
}
