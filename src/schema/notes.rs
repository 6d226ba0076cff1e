//! What became of the source's objects.

use std::collections::HashMap;

use serde::Serialize;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// A database.
    Schema,
    /// A sequence.
    Sequence,
    /// A table.
    Table,
    /// A view.
    View,
    /// A procedure.
    Procedure,
    /// A function.
    Function,
    /// A trigger.
    Trigger,
    /// An event.
    Event,
    /// An account.
    Account,
}

impl Object {
    /// As operators read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Object::Schema => "schema",
            Object::Sequence => "sequence",
            Object::Table => "table",
            Object::View => "view",
            Object::Procedure => "procedure",
            Object::Function => "function",
            Object::Trigger => "trigger",
            Object::Event => "event",
            Object::Account => "account",
        }
    }
}

/// How much of an object is on the target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Not on the target, in whole or in the part that `why` names.
    Missing,
    /// It was there and differs; it was left.
    Differs,
    /// On the target in another form.
    Adapted,
    /// Nothing to do, worth knowing.
    Noted,
}

/// One thing to know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Note {
    /// How much of it is there.
    pub outcome: Outcome,
    /// What it is.
    pub object: Object,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Which part of it: a column, a key, an option; empty: all of it.
    pub part: String,
    /// Why.
    pub why: String,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// Objects made by this run: `table shop.orders`.
    pub created: Vec<String>,
    /// Objects that were there already and equal.
    pub existing: usize,
    /// What to know.
    pub notes: Vec<Note>,
}

/// Names an object while notes about it are taken.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it is.
    pub object: Object,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl Subject {
    /// One object.
    pub fn new(object: Object, schema: &str, name: &str) -> Subject {
        Subject {
            object,
            schema: schema.to_owned(),
            name: name.to_owned(),
        }
    }

    /// `table shop.orders`.
    pub fn title(&self) -> String {
        let kind = self.object.as_str();
        match (self.schema.is_empty(), self.name.is_empty()) {
            (false, false) => format!("{kind} {}.{}", self.schema, self.name),
            (false, true) => format!("{kind} {}", self.schema),
            _ => format!("{kind} {}", self.name),
        }
    }

    /// A note about it.
    pub fn note(&self, outcome: Outcome, part: impl Into<String>, why: impl Into<String>) -> Note {
        Note {
            outcome,
            object: self.object,
            schema: self.schema.clone(),
            name: self.name.clone(),
            part: part.into(),
            why: why.into(),
        }
    }
}

impl Report {
    /// Makes one note of those that say the same of one object.
    pub(super) fn gather(&mut self) {
        let mut kept: Vec<Note> = Vec::with_capacity(self.notes.len());
        let mut places: HashMap<(Outcome, Object, String, String, String), usize> = HashMap::new();
        for note in self.notes.drain(..) {
            let key = (
                note.outcome,
                note.object,
                note.schema.clone(),
                note.name.clone(),
                note.why.clone(),
            );
            match places.get(&key).and_then(|at| kept.get_mut(*at)) {
                Some(first) if first.part != note.part => {
                    first.part.push_str(", ");
                    first.part.push_str(&note.part);
                }
                Some(_) => {}
                None => {
                    places.insert(key, kept.len());
                    kept.push(note);
                }
            }
        }
        self.notes = kept;
    }

    /// Notes of one kind.
    pub fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Note> {
        self.notes.iter().filter(move |n| n.outcome == outcome)
    }

    /// Keys and foreign keys of tables that are not on the target although they
    /// can stand there, each with why.
    pub fn unbuilt(&self) -> impl Iterator<Item = String> {
        let keys = self.with(Outcome::Missing).filter(|n| {
            let key = ["key ", "foreign key ", "primary key"];
            let named = key.iter().any(|k| n.part.starts_with(k));
            n.object == Object::Table && named && n.why != super::diff::OTHER
        });
        keys.map(|n| format!("{} of {}.{}: {}", n.part, n.schema, n.name, n.why))
    }

    /// Whether every object of the source is on the target, adapted or not.
    pub fn complete(&self) -> bool {
        self.with(Outcome::Missing).next().is_none() && self.with(Outcome::Differs).next().is_none()
    }
}
