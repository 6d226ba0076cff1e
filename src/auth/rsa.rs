//! A clear password over plain TCP: RSA with OAEP-SHA1, as MySQL does it.
//!
//! Two uses. As a server, [`RsaKey`]: our own key pair, made at start, whose
//! public half a client gets when a full authentication is asked for. As a
//! client, [`encrypt`]: with the public key a backend sent us.
//!
//! Like MySQL's own exchange this guards against listeners, not against
//! someone who answers in the server's place; TLS does.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::{NONCE_LEN, Secret, caching_sha2};

/// Why an RSA step failed. Carries no key material.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RsaError {
    /// The library could not make a key pair.
    #[error("cannot generate an RSA key pair")]
    Generate,
    /// The peer's public key is not one we can read.
    #[error("unreadable RSA public key")]
    PublicKey,
    /// The text does not fit the key, or the cipher text is not ours.
    #[error("RSA encryption or decryption failed")]
    Cipher,
}

/// Our key pair.
pub struct RsaKey {
    private: OaepPrivateDecryptingKey,
    public_pem: Vec<u8>,
}

impl RsaKey {
    /// Makes a 2048-bit pair, MySQL's own size. Takes 50 to 500 ms of CPU.
    pub fn generate() -> Result<RsaKey, RsaError> {
        let private =
            PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| RsaError::Generate)?;
        let der: PublicKeyX509Der<'_> = private
            .public_key()
            .as_der()
            .map_err(|_| RsaError::Generate)?;
        let public_pem = pem("PUBLIC KEY", der.as_ref());
        let private = OaepPrivateDecryptingKey::new(private).map_err(|_| RsaError::Generate)?;
        Ok(RsaKey {
            private,
            public_pem,
        })
    }

    /// The public key as a client expects it: PEM, "PUBLIC KEY".
    pub fn public_pem(&self) -> &[u8] {
        &self.public_pem
    }

    /// The password in a client's answer to a full-authentication request.
    pub fn decrypt(&self, cipher: &[u8], nonce: &[u8; NONCE_LEN]) -> Result<Secret, RsaError> {
        let mut out = zeroize::Zeroizing::new(vec![0u8; self.private.min_output_size()]);
        let text = self
            .private
            .decrypt(&OAEP_SHA1_MGF1SHA1, cipher, &mut out, None)
            .map_err(|_| RsaError::Cipher)?;
        let masked = Secret::new(text.to_vec());
        let clear = caching_sha2::mask(&masked, nonce);
        Ok(caching_sha2::from_clear(clear.expose().to_vec()))
    }
}

/// Encrypts a password for the backend whose PEM public key this is.
///
/// Errors: [`RsaError::PublicKey`] for a key we cannot read,
/// [`RsaError::Cipher`] for a password longer than the key allows (the server
/// has the same limit).
pub fn encrypt(
    public_pem: &[u8],
    password: &Secret,
    nonce: &[u8; NONCE_LEN],
) -> Result<Vec<u8>, RsaError> {
    let der =
        SubjectPublicKeyInfoDer::from_pem_slice(public_pem).map_err(|_| RsaError::PublicKey)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| RsaError::PublicKey)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| RsaError::PublicKey)?;
    let text = caching_sha2::mask(&caching_sha2::to_clear(password), nonce);
    let mut out = vec![0u8; key.ciphertext_size()];
    let used = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, text.expose(), &mut out, None)
        .map_err(|_| RsaError::Cipher)?
        .len();
    out.truncate(used);
    Ok(out)
}

/// PEM with 64-character lines, as OpenSSL writes and clients parse it.
fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let mut out = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in base64(der).chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    out
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    let digit = |bits: u32| match bits & 63 {
        n @ 0..26 => b'A' + n as u8,
        n @ 26..52 => b'a' + (n as u8 - 26),
        n @ 52..62 => b'0' + (n as u8 - 52),
        62 => b'+',
        _ => b'/',
    };
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        out.push(digit(bits >> 18));
        out.push(digit(bits >> 12));
        out.push(if group.len() > 1 {
            digit(bits >> 6)
        } else {
            b'='
        });
        out.push(if group.len() > 2 { digit(bits) } else { b'=' });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_LEN] = *b"abcdefghijklmnopqrst";

    #[test]
    fn a_password_survives_the_round_trip() -> Result<(), RsaError> {
        let key = RsaKey::generate()?;
        for password in ["", "s", "a longer password than the nonce is"] {
            let secret = Secret::new(password.as_bytes().to_vec());
            let cipher = encrypt(key.public_pem(), &secret, &NONCE)?;
            assert_eq!(cipher.len(), 256);
            assert!(key.decrypt(&cipher, &NONCE)? == secret);
        }
        Ok(())
    }

    #[test]
    fn what_is_not_ours_is_refused() -> Result<(), RsaError> {
        let key = RsaKey::generate()?;
        for cipher in [&[][..], &[0; 256], b"clear password\0", &[0xff; 300]] {
            assert!(key.decrypt(cipher, &NONCE).err() == Some(RsaError::Cipher));
        }
        let long = Secret::new(vec![b'x'; 300]);
        let refused = encrypt(key.public_pem(), &long, &NONCE);
        assert_eq!(refused, Err(RsaError::Cipher));
        let secret = Secret::new(b"pw".to_vec());
        for pem in [
            &b""[..],
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert_eq!(encrypt(pem, &secret, &NONCE), Err(RsaError::PublicKey));
        }
        Ok(())
    }

    #[test]
    fn base64_pads() {
        for (bytes, text) in [
            (&b""[..], &b""[..]),
            (b"f", b"Zg=="),
            (b"fo", b"Zm8="),
            (b"foo", b"Zm9v"),
            (b"\xfb\xff\xfe", b"+//+"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }
}
