//! A statement's shape as a number: literals folded away.

use std::hash::Hasher;

use super::lex::{Kind, Lexer};
use super::mode::ScanMode;

/// Hash of the tokens with literals and markers folded into one, words
/// without case, blanks and comments (but not live executable comments) left
/// out. Stable within one build only.
pub fn digest(sql: &[u8], mode: ScanMode) -> u64 {
    let mut lexer = Lexer::new(sql, mode);
    let mut hasher = Blocks::default();
    loop {
        let token = lexer.next();
        let text = sql.get(token.start..token.end).unwrap_or(&[]);
        match token.kind {
            Kind::End => return hasher.finish(),
            Kind::Text | Kind::Number | Kind::Parameter | Kind::Null => hasher.write(b"?"),
            Kind::Word => hasher.write_folded(text),
            _ => hasher.write(text),
        }
        // Keeps `ab` apart from `a b`.
        hasher.write(&[0xFF]);
    }
}

/// Hashes in blocks: a hasher's own work per call is more than a token's.
struct Blocks {
    hasher: std::hash::DefaultHasher,
    block: [u8; 128],
    filled: usize,
}

impl Default for Blocks {
    fn default() -> Blocks {
        Blocks {
            hasher: std::hash::DefaultHasher::new(),
            block: [0; 128],
            filled: 0,
        }
    }
}

impl Blocks {
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = self.take(bytes, false);
        }
    }

    fn write_folded(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = self.take(bytes, true);
        }
    }

    /// As much as has room; the rest is returned.
    fn take<'a>(&mut self, bytes: &'a [u8], fold: bool) -> &'a [u8] {
        if self.filled == self.block.len() {
            self.hasher.write(&self.block);
            self.filled = 0;
        }
        let free = self.block.get_mut(self.filled..).unwrap_or_default();
        let n = free.len().min(bytes.len());
        let (now, later) = bytes.split_at(n);
        let room = &mut free[..n];
        room.copy_from_slice(now);
        if fold {
            room.make_ascii_lowercase();
        }
        self.filled += n;
        later
    }

    fn finish(mut self) -> u64 {
        let rest = self.block.get(..self.filled).unwrap_or_default();
        self.hasher.write(rest);
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_what_does_not_matter() {
        let d = |sql: &str| digest(sql.as_bytes(), ScanMode::default());
        assert_eq!(
            d("select a from T where x = 5 and y='q' -- c"),
            d("SELECT  a FROM t WHERE x=? AND /* c */ y = 'other'")
        );
        assert_ne!(d("SELECT a b"), d("SELECT ab"));
        assert_ne!(d("SELECT `A`"), d("SELECT `a`"));
    }
}
