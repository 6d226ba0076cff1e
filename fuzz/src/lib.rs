//! What the fuzzers run: each target takes bytes and panics when something
//! that must hold does not. See README.md.

mod targets;

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("binlog", targets::binlog::run),
    ("command", targets::command::run),
    ("config", targets::config::run),
    ("control", targets::control::run),
    ("login", targets::login::run),
    ("plan", targets::plan::run),
    ("response", targets::response::run),
    ("scanner", targets::scanner::run),
    ("trackers", targets::trackers::run),
];

/// Takes what decides how a target runs from the front of its input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// One byte; 0 when there is none.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Eight bytes as a number.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// `n` bytes, or what there is.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }
}
