//! MariaDB's `parsec` (11.6 and later).
//!
//! ```text
//! server: 32-byte nonce                     client: empty packet
//! server: 'P', factor, 18-byte salt         client: 32 random bytes + signature
//!
//! seed = PBKDF2-HMAC-SHA512(password, salt, 1024 << factor rounds, 32 bytes)
//! signature = Ed25519(seed) over the server's nonce + the client's
//! ```

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use aws_lc_rs::rand;
use aws_lc_rs::signature::Ed25519KeyPair;
use zeroize::Zeroizing;

use super::Secret;

/// Length of both nonces, in bytes.
pub const PARSEC_NONCE_LEN: usize = 32;
/// Length of a signature, in bytes.
const SIGNATURE_LEN: usize = 64;
/// Length of an account's salt, in bytes.
const SALT_LEN: usize = 18;
/// Largest exponent of the rounds: 262,144, about 0.2 s of CPU. MariaDB makes
/// accounts with 0; a hostile server must not make us hash for minutes.
const FACTOR_MAX: u8 = 8;

/// How the server derives the account's key: its ext-salt packet.
pub struct ExtSalt<'a> {
    rounds: NonZeroU32,
    salt: &'a [u8],
}

impl<'a> ExtSalt<'a> {
    /// Reads the packet's data. The first servers sent it without the byte
    /// that marks plugin data; the caller has taken that off where it is.
    pub fn parse(data: &'a [u8]) -> Option<ExtSalt<'a>> {
        let [b'P', factor, salt @ ..] = data else {
            return None;
        };
        if salt.len() != SALT_LEN || *factor > FACTOR_MAX {
            return None;
        }
        let rounds = NonZeroU32::new(1024 << factor)?;
        Some(ExtSalt { rounds, salt })
    }
}

/// The answer: our nonce and the signature. None if the library has no random
/// bytes for us. Takes milliseconds of CPU: not for a thread that relays.
pub fn answer(
    password: &Secret,
    ext: &ExtSalt<'_>,
    server: &[u8; PARSEC_NONCE_LEN],
) -> Option<Vec<u8>> {
    let mut client = [0u8; PARSEC_NONCE_LEN];
    rand::fill(&mut client).ok()?;
    sign(password, ext, server, &client)
}

fn sign(
    password: &Secret,
    ext: &ExtSalt<'_>,
    server: &[u8; PARSEC_NONCE_LEN],
    client: &[u8; PARSEC_NONCE_LEN],
) -> Option<Vec<u8>> {
    let mut seed = Zeroizing::new([0u8; 32]);
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
    pbkdf2::derive(
        algorithm,
        ext.rounds,
        ext.salt,
        password.expose(),
        seed.as_mut_slice(),
    );
    let key = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).ok()?;
    let message = [server.as_slice(), client.as_slice()].concat();
    let signature = key.sign(&message);
    let mut out = Vec::with_capacity(PARSEC_NONCE_LEN + SIGNATURE_LEN);
    out.extend_from_slice(client);
    out.extend_from_slice(signature.as_ref());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature;

    fn ext() -> Vec<u8> {
        let mut data = vec![b'P', 0];
        data.extend_from_slice(b"0123456789abcdefgh");
        data
    }

    /// Made with another implementation of PBKDF2 and Ed25519 (Python's hashlib
    /// and OpenSSL's command line).
    #[test]
    fn the_answer_matches_a_known_vector() {
        let (data, server, client) = (ext(), [7; 32], [9; 32]);
        let parsed = ExtSalt::parse(&data).expect("an ext-salt");
        let secret = Secret::new(b"secret".to_vec());
        let out = sign(&secret, &parsed, &server, &client).expect("an answer");
        let hex: String = out[32..].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(&out[..32], &client);
        assert_eq!(
            hex,
            "5654f74b35918a914f03880ccd2de37b55580828d897b4f84c3131b0db23775e07cbb7dea4dd91f3d1a671bd74cc97fd1f426e4a06f9d8179c888aac0a1c530a"
        );
    }

    /// An account as a MariaDB 11.8 server stored it (`P0:salt:public key`, here
    /// in hex) after `… VIA parsec USING PASSWORD('secret')`.
    #[test]
    fn a_server_would_accept_the_answer() {
        let mut data = vec![b'P', 0];
        data.extend(hex("767aeb0c24e4371abcfea62f0650a8fb320d"));
        let public = hex("876aebfb5cc417ba6e92c969afa427cd45735541e30036f0233ef133294e41a6");
        let ext = ExtSalt::parse(&data).expect("an ext-salt");
        let server = [5; PARSEC_NONCE_LEN];
        let out = answer(&Secret::new(b"secret".to_vec()), &ext, &server).expect("an answer");
        let (client, signature) = out.split_at(PARSEC_NONCE_LEN);
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, public);
        let message = [&server[..], client].concat();
        assert!(key.verify(&message, signature).is_ok());
    }

    fn hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|p| u8::from_str_radix(std::str::from_utf8(p).expect("ASCII"), 16).expect("hex"))
            .collect()
    }

    #[test]
    fn malformed_salts_are_refused() {
        let good = ext();
        assert!(ExtSalt::parse(&good).is_some());
        assert!(ExtSalt::parse(&good[..19]).is_none());
        assert!(ExtSalt::parse(&[]).is_none());
        let mut costly = good.clone();
        costly[1] = FACTOR_MAX + 1;
        assert!(ExtSalt::parse(&costly).is_none());
        costly[0] = b'Q';
        assert!(ExtSalt::parse(&costly).is_none());
    }
}
