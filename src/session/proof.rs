//! Verifies a client's password here instead of at home: for users whose
//! credentials `users:` maps, since an answer made for one user name and
//! password cannot be handed to home as another's.

use zeroize::Zeroizing;

use super::auth_relay::gone;
use super::login::{LoginEnd, Patience, read_client};
use crate::auth::{Account, CACHING_SHA2, NATIVE, NONCE_LEN, caching_sha2};
use crate::leg::stream::{Stream, write_packet};
use crate::wire::greeting::{auth_more, auth_switch};

/// A client that has answered a nonce.
pub(crate) struct Proof<'a> {
    pub client: &'a mut Stream,
    /// Sequence id of the next packet to the client.
    pub seq: u8,
    /// For the client's answers.
    pub patience: Patience,
    pub plugin: Vec<u8>,
    pub nonce: [u8; NONCE_LEN],
    pub answer: Zeroizing<Vec<u8>>,
}

impl Proof<'_> {
    /// True if the client knows the account's password. The verdict itself is
    /// not sent.
    ///
    /// A client is asked again, once, when its plugin is not one we can verify
    /// (then under `default` or, if that is none of ours,
    /// `caching_sha2_password`), or when its answer is empty: that is how a
    /// client answers a greeting whose plugin it does not have.
    ///
    /// Errors: the client's connection.
    pub async fn run(&mut self, account: &Account, default: &[u8]) -> Result<bool, LoginEnd> {
        let verifiable = |plugin: &[u8]| plugin == NATIVE || plugin == CACHING_SHA2;
        let again = if verifiable(&self.plugin) {
            let needs_password = !matches!(account, Account::Empty { .. });
            (self.answer.is_empty() && needs_password).then(|| self.plugin.clone())
        } else if verifiable(default) {
            Some(default.to_vec())
        } else {
            Some(CACHING_SHA2.to_vec())
        };
        if let Some(plugin) = again
            && !self.switch(&plugin).await?
        {
            return Ok(false);
        }
        if !account.verify(&self.plugin, &self.nonce, &self.answer) {
            return Ok(false);
        }
        if self.plugin == CACHING_SHA2 && !self.answer.is_empty() {
            self.write(&auth_more(&[caching_sha2::FAST_OK])).await?;
        }
        Ok(true)
    }

    /// Asks for an answer under `plugin` to a nonce of our own. False if no
    /// nonce could be made.
    pub async fn switch(&mut self, plugin: &[u8]) -> Result<bool, LoginEnd> {
        let Some(nonce) = fresh_nonce() else {
            return Ok(false);
        };
        self.plugin = plugin.to_vec();
        self.nonce = nonce;
        self.write(&auth_switch(plugin, &nonce)).await?;
        let answer = read_client(self.client, &mut self.seq, self.patience).await;
        self.answer = Zeroizing::new(answer?);
        Ok(true)
    }

    async fn write(&mut self, payload: &[u8]) -> Result<(), LoginEnd> {
        write_packet(self.client, &mut self.seq, payload)
            .await
            .map_err(gone)
    }
}

/// 20 random bytes such as servers make them: 1 to 127, no `$`.
fn fresh_nonce() -> Option<[u8; NONCE_LEN]> {
    let mut nonce = [0u8; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).ok()?;
    for byte in &mut nonce {
        *byte &= 0x7f;
        if *byte == 0 || *byte == b'$' {
            *byte += 1;
        }
    }
    Some(nonce)
}
