//! `mysql_native_password`.
//!
//! ```text
//! stage1 = SHA1(password)          kept by no one
//! stage2 = SHA1(stage1)            what the server stores ("*" + hex)
//! answer = stage1 XOR SHA1(nonce + stage2)
//! ```
//!
//! Whoever knows stage2 and sees one answer knows stage1, and stage1 answers
//! every server's challenge. That is how the other leg of a session is opened
//! without having been told the password.

use aws_lc_rs::digest;

use super::{NONCE_LEN, Stage1};

/// Length of an answer and of both stages, in bytes.
pub const HASH_LEN: usize = 20;

/// SHA1(password).
pub fn stage1(password: &[u8]) -> Stage1 {
    Stage1(sha1(&[password]))
}

/// SHA1(stage1): what servers store.
pub fn stage2(stage1: &Stage1) -> [u8; HASH_LEN] {
    sha1(&[&stage1.0])
}

/// The answer to `nonce`. The empty password's answer is empty, which is the
/// caller's case: it has no stage 1.
pub fn scramble(stage1: &Stage1, nonce: &[u8; NONCE_LEN]) -> [u8; HASH_LEN] {
    xor(&stage1.0, &sha1(&[nonce, &stage2(stage1)]))
}

/// Recovers SHA1(password) from a client's answer and the server's stored
/// double hash. None if the answer was not made with that password.
pub fn recover(answer: &[u8], nonce: &[u8; NONCE_LEN], stored: &[u8; HASH_LEN]) -> Option<Stage1> {
    let answer: &[u8; HASH_LEN] = answer.try_into().ok()?;
    let candidate = Stage1(xor(answer, &sha1(&[nonce, stored])));
    let same = aws_lc_rs::constant_time::verify_slices_are_equal(&stage2(&candidate), stored);
    same.is_ok().then_some(candidate)
}

/// True if `answer` to `nonce` was made with this password's stage 1.
pub fn verify(answer: &[u8], nonce: &[u8; NONCE_LEN], stage1: &Stage1) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(answer, &scramble(stage1, nonce)).is_ok()
}

/// Reads an `authentication_string` of the grant tables: `*` and 40 hex
/// digits. None for an empty one (no password), a locked or invalid one, or
/// another plugin's.
pub fn parse_stored(text: &[u8]) -> Option<[u8; HASH_LEN]> {
    let hex = text.strip_prefix(b"*")?;
    if hex.len() != 2 * HASH_LEN {
        return None;
    }
    let mut out = [0u8; HASH_LEN];
    for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(out)
}

fn hex_digit(c: u8) -> Option<u8> {
    (c as char).to_digit(16).map(|d| d as u8)
}

fn sha1(parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut out = [0u8; HASH_LEN];
    for (o, d) in out.iter_mut().zip(context.finish().as_ref()) {
        *o = *d;
    }
    out
}

fn xor(a: &[u8; HASH_LEN], b: &[u8; HASH_LEN]) -> [u8; HASH_LEN] {
    let mut out = *a;
    for (o, d) in out.iter_mut().zip(b) {
        *o ^= d;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce() -> [u8; NONCE_LEN] {
        std::array::from_fn(|i| i as u8 + 1)
    }

    /// Stored hashes made by a MariaDB 10.11 server.
    #[test]
    fn stored_hashes_match_a_servers() {
        for (password, stored) in [
            ("svc", "*6C534AEDC3186B6EA979416154DC385F6DDF314D"),
            ("natpw", "*1374EDB489482E02B373F1E4764607ADEACA73BB"),
        ] {
            let parsed = parse_stored(stored.as_bytes());
            assert_eq!(parsed, Some(stage2(&stage1(password.as_bytes()))));
        }
    }

    /// Made with another implementation of SHA-1.
    #[test]
    fn scramble_matches_a_known_vector() {
        let answer = scramble(&stage1(b"secret"), &nonce());
        let hex: String = answer.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "b32bb3a583e1340c0a1108d58b1be49781ad8c2f");
    }

    #[test]
    fn an_answer_and_the_stored_hash_give_stage1() {
        let secret = stage1(b"secret");
        let answer = scramble(&secret, &nonce());
        assert!(verify(&answer, &nonce(), &secret));
        assert!(recover(&answer, &nonce(), &stage2(&secret)) == Some(secret));
    }

    #[test]
    fn what_does_not_fit_gives_nothing() {
        let stored = stage2(&stage1(b"secret"));
        let answer = scramble(&stage1(b"other"), &nonce());
        assert!(recover(&answer, &nonce(), &stored).is_none());
        assert!(recover(&answer[..19], &nonce(), &stored).is_none());
        assert!(recover(&[], &nonce(), &stored).is_none());
        assert!(!verify(&answer, &nonce(), &stage1(b"secret")));
        let right = scramble(&stage1(b"secret"), &nonce());
        assert!(recover(&right, &[9; NONCE_LEN], &stored).is_none());
    }

    #[test]
    fn other_plugins_strings_are_no_hashes() {
        for text in [
            "",
            "*",
            "*6C534AEDC3186B6EA979416154DC385F6DDF314",
            "*6C534AEDC3186B6EA979416154DC385F6DDF314G",
            "6C534AEDC3186B6EA979416154DC385F6DDF314D1",
            "$A$005$abcdefghijklmnopqrstuvwxyzabcdefghi",
            "*THISISNOTAVALIDPASSWORDTHATCANBEUSEDHERE",
        ] {
            assert_eq!(parse_stored(text.as_bytes()), None, "{text}");
        }
    }
}
