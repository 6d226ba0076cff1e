//! Challenge and response, both ways, and the types that hold secrets.
//!
//! Nothing here touches a socket. [`native`] and [`caching_sha2`] compute and
//! check answers to a server's nonce, [`ed25519`] and [`parsec`] compute them;
//! [`rsa`] carries a clear password over
//! plain TCP; [`account`] keeps what logins have taught us; [`tls`] builds the
//! TLS configurations of both sides.
//!
//! Secrets live in [`Secret`]: zeroed on drop, without `Debug`, `Display` or
//! serialisation, so that no log line or trace can carry one by accident.

pub mod account;
pub mod caching_sha2;
pub mod ed25519;
pub mod native;
pub mod parsec;
pub mod rsa;
pub mod tls;

use zeroize::Zeroize;

pub use account::{Account, AccountStore, Mapped, UserMap};

/// Length of a server's nonce, in bytes (the trailing NUL not counted).
pub const NONCE_LEN: usize = 20;

/// The plugin of MariaDB's and old MySQL's ordinary accounts.
pub const NATIVE: &[u8] = b"mysql_native_password";
/// The plugin of MySQL 8's and 9's ordinary accounts.
pub const CACHING_SHA2: &[u8] = b"caching_sha2_password";
/// MySQL 5.7's and 8's uncached SHA-256 plugin.
pub const SHA256: &[u8] = b"sha256_password";
/// Sends the password as it is.
pub const CLEAR: &[u8] = b"mysql_clear_password";
/// MariaDB's `ed25519` accounts.
pub const ED25519: &[u8] = b"client_ed25519";
/// The accounts of MariaDB 11.6 and later that were made with `VIA parsec`.
pub const PARSEC: &[u8] = b"parsec";
/// MariaDB's question-and-answer plugin (PAM); sends the password as it is.
pub const DIALOG: &[u8] = b"dialog";

/// Bytes that must not be printed, logged or kept after use: a password.
///
/// Zeroed on drop. Has no `Debug` and no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// The bytes themselves. Callers must not copy them into anything that
    /// outlives the exchange.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// True for the empty password.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// SHA1(password): answers any server's native challenge, so as secret as the
/// password. Zeroed on drop; no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Stage1(pub(crate) [u8; 20]);

impl Drop for Stage1 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
