//! A text that is never shown.

use zeroize::Zeroize;

/// A password or token from the settings. It has no Debug and no Display, and
/// is wiped when dropped.
#[derive(Clone, Default)]
pub struct Password(String);

impl Password {
    /// Takes the text over.
    pub fn new(text: String) -> Password {
        Password(text)
    }

    /// The text itself: for handing to an authentication, nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in time that depends on the lengths only.
    pub fn same_as(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if own.len() != other.len() {
            return false;
        }
        let differing = own.iter().zip(other).fold(0u8, |d, (a, b)| d | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Password) -> bool {
        self.same_as(other.0.as_bytes())
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
