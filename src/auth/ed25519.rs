//! MariaDB's `client_ed25519`.
//!
//! ```text
//! SHA512(password) = scalar (32 bytes, clamped) + prefix (32 bytes)
//! answer = Ed25519 signature of the server's 32-byte nonce
//! ```
//!
//! The ordinary algorithm hashes a 32-byte seed to get scalar and prefix; here
//! the password takes the seed's place, whatever its length. That is why a
//! library's usual signing key, which is made of a seed, does not do.

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{SIGNATURE_LENGTH, VerifyingKey};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::Secret;

/// Length of the server's nonce, in bytes.
pub const ED25519_NONCE_LEN: usize = 32;

/// The answer to `nonce`. The empty password has one too: this plugin does not
/// know accounts without a password.
pub fn sign(password: &Secret, nonce: &[u8; ED25519_NONCE_LEN]) -> [u8; SIGNATURE_LENGTH] {
    let mut hashed = Zeroizing::new([0u8; 64]);
    for (to, from) in hashed.iter_mut().zip(Sha512::digest(password.expose())) {
        *to = from;
    }
    let key = ExpandedSecretKey::from_bytes(&hashed);
    let public = VerifyingKey::from(&key);
    raw_sign::<Sha512>(&key, nonce, &public).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server checks: the signature fits the public key it stores.
    /// The stored keys are MariaDB 10.11's own, from
    /// `SELECT authentication_string` after `… VIA ed25519 USING PASSWORD('…')`.
    #[test]
    fn a_server_would_accept_the_signature() {
        for (password, stored) in [
            ("secret", "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY"),
            ("foo", "vubFBzIrapbfHct1/J72dnUryz5VS7lA6XHH8sIx4TI"),
        ] {
            let nonce: [u8; 32] = std::array::from_fn(|i| i as u8);
            let signature = sign(&Secret::new(password.as_bytes().to_vec()), &nonce);
            let key = VerifyingKey::from_bytes(&unbase64(stored)).expect("a point of the curve");
            let signature = ed25519_dalek::Signature::from_bytes(&signature);
            assert!(key.verify_strict(&nonce, &signature).is_ok(), "{password}");
            assert!(key.verify_strict(&[1; 32], &signature).is_err());
        }
    }

    fn unbase64(text: &str) -> [u8; 32] {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = Vec::new();
        let (mut bits, mut held) = (0u32, 0);
        for c in text.bytes() {
            let value = digits.iter().position(|d| *d == c).expect("base64");
            bits = (bits << 6 | value as u32) & 0xFFFF;
            held += 6;
            if held >= 8 {
                held -= 8;
                out.push((bits >> held) as u8);
            }
        }
        out.try_into().expect("32 bytes")
    }
}
