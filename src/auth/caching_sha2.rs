//! `caching_sha2_password`.
//!
//! ```text
//! answer = SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce)
//! ```
//!
//! A server that has the account cached judges by the answer (`FAST_OK`); one
//! that has not asks for the password itself (`FULL`): in the clear over TLS,
//! otherwise XORed with the nonce and encrypted with the server's RSA key.
//! SHA256(password) alone therefore never opens a leg for certain; only the
//! clear password does.

use aws_lc_rs::digest;

use super::{NONCE_LEN, Secret};

/// Length of an answer, in bytes.
pub const HASH_LEN: usize = 32;
/// "More" data: the answer was right; OK follows.
pub const FAST_OK: u8 = 3;
/// "More" data: send the password.
pub const FULL: u8 = 4;
/// A client's request for the server's RSA public key.
pub const REQUEST_KEY: u8 = 2;
/// `sha256_password`'s request for the server's RSA public key.
pub const REQUEST_KEY_SHA256: u8 = 1;

/// The answer to `nonce`; empty for the empty password.
pub fn scramble(password: &Secret, nonce: &[u8; NONCE_LEN]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = sha256(&[password.expose()]);
    let twice = sha256(&[once.as_ref()]);
    let mask = sha256(&[twice.as_ref(), nonce]);
    let pairs = once.as_ref().iter().zip(mask.as_ref());
    pairs.map(|(a, b)| a ^ b).collect()
}

/// True if `answer` to `nonce` was made with this password.
pub fn verify(answer: &[u8], nonce: &[u8; NONCE_LEN], password: &Secret) -> bool {
    let expected = scramble(password, nonce);
    aws_lc_rs::constant_time::verify_slices_are_equal(answer, &expected).is_ok()
}

/// The password of a full authentication as it is sent: NUL-terminated.
/// Bytes after the first NUL are the client's mistake and dropped, as the
/// server drops them.
pub fn from_clear(mut sent: Vec<u8>) -> Secret {
    if let Some(end) = sent.iter().position(|b| *b == 0) {
        zeroize::Zeroize::zeroize(sent.get_mut(end..).unwrap_or_default());
        sent.truncate(end);
    }
    Secret::new(sent)
}

/// The bytes to send for a full authentication over TLS: NUL-terminated.
pub fn to_clear(password: &Secret) -> Secret {
    let mut out = Vec::with_capacity(password.expose().len() + 1);
    out.extend_from_slice(password.expose());
    out.push(0);
    Secret::new(out)
}

/// XORs the NUL-terminated password with the repeated nonce: what is
/// encrypted for a full authentication in the clear. Its own inverse.
pub fn mask(text: &Secret, nonce: &[u8; NONCE_LEN]) -> Secret {
    let pairs = text.expose().iter().zip(nonce.iter().cycle());
    Secret::new(pairs.map(|(a, b)| a ^ b).collect())
}

fn sha256(parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce() -> [u8; NONCE_LEN] {
        std::array::from_fn(|i| i as u8 + 1)
    }

    fn secret(text: &[u8]) -> Secret {
        Secret::new(text.to_vec())
    }

    /// Made with another implementation of SHA-256.
    #[test]
    fn scramble_matches_a_known_vector() {
        let answer = scramble(&secret(b"secret"), &nonce());
        let hex: String = answer.iter().map(|b| format!("{b:02x}")).collect();
        let known = "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9";
        assert_eq!(hex, known);
    }

    #[test]
    fn only_the_right_password_fits() {
        let answer = scramble(&secret(b"secret"), &nonce());
        assert!(verify(&answer, &nonce(), &secret(b"secret")));
        assert!(!verify(&answer, &nonce(), &secret(b"Secret")));
        assert!(!verify(&answer, &[9; NONCE_LEN], &secret(b"secret")));
        assert!(!verify(&answer[1..], &nonce(), &secret(b"secret")));
        assert!(scramble(&secret(b""), &nonce()).is_empty());
    }

    #[test]
    fn a_sent_password_ends_at_its_first_nul() {
        for (sent, password) in [
            (&b"pw\0"[..], &b"pw"[..]),
            (b"pw", b"pw"),
            (b"\0", b""),
            (b"", b""),
            (b"p\0w\0", b"p"),
        ] {
            assert!(from_clear(sent.to_vec()).expose() == password);
        }
        assert!(to_clear(&secret(b"pw")).expose() == b"pw\0");
    }

    #[test]
    fn masking_twice_changes_nothing() {
        let long = secret(&[b'x'; 50]);
        let masked = mask(&long, &nonce());
        assert!(masked != long);
        assert!(mask(&masked, &nonce()) == long);
    }
}
