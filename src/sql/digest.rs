//! A statement's shape as a number: literals folded away.

use std::hash::Hasher;

use super::lex::{Kind, Lexer};
use super::mode::ScanMode;

/// Hash of the tokens with literals and markers folded into one, words
/// without case, blanks and comments (but not live executable comments) left
/// out. Stable within one build only.
pub fn digest(sql: &[u8], mode: ScanMode) -> u64 {
    let mut lexer = Lexer::new(sql, mode);
    let mut hasher = std::hash::DefaultHasher::new();
    loop {
        let token = lexer.next();
        let text = sql.get(token.start..token.end).unwrap_or(&[]);
        match token.kind {
            Kind::End => return hasher.finish(),
            Kind::Text | Kind::Number | Kind::Parameter | Kind::Null => hasher.write_u8(b'?'),
            Kind::Word => {
                let mut folded = [0u8; 64];
                for chunk in text.chunks(folded.len()) {
                    for (to, from) in folded.iter_mut().zip(chunk) {
                        *to = from.to_ascii_lowercase();
                    }
                    hasher.write(folded.get(..chunk.len()).unwrap_or(&[]));
                }
            }
            _ => hasher.write(text),
        }
        // Keeps `ab` apart from `a b`.
        hasher.write_u8(0xFF);
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
