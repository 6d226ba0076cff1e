//! Passes the packets of an authentication on between a client and home, until
//! home's verdict, and learns the account on the way.
//!
//! Most packets pass as they are, with each side's own sequence ids: the two
//! count differently when only one of them uses TLS. The exceptions:
//!
//! - `caching_sha2_password`, full: the password crosses two connections that
//!   are protected differently, so it is taken from the client (over TLS, or
//!   encrypted for *our* RSA key) and sent to home as home's leg demands.
//! - `caching_sha2_password`, fast, over TLS, password unknown here: the client
//!   is asked for full authentication although home did not, and home's "fast
//!   OK" is not passed on. To the client this is a server with a cold cache.
//!   Without the password the other leg could not be opened.
//! - `sha256_password`: always as the full exchange above.
//! - Plugins that send the password as it is: never onto a leg less protected
//!   than the client's connection.

use std::io;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::login::{LoginContext, LoginEnd, Patience, read_client};
use crate::Side;
use crate::auth::{
    Account, CACHING_SHA2, CLEAR, DIALOG, NATIVE, NONCE_LEN, SHA256, Secret, caching_sha2, native,
};
use crate::leg::connect::{AUTH_ROUNDS_MAX, LegError, encrypted, lost, nonce_of, send_password};
use crate::leg::grants::query_cells;
use crate::leg::stream::{Stream, read_packet, write_packet};
use crate::wire::capability::Capabilities;
use crate::wire::greeting::{AuthReply, auth_more};

/// Shortest RSA cipher text, in bytes: a 1024-bit key's.
const CIPHER_MIN: usize = 128;

/// Home's verdict: its OK or ERR payload, not yet passed on.
pub(crate) enum Verdict {
    Ok(Vec<u8>),
    Err(Vec<u8>),
}

/// One exchange under way. The client's first answer has been sent to home.
pub(crate) struct Relay<'a> {
    pub ctx: &'a LoginContext,
    pub side: Side,
    pub client: &'a mut Stream,
    /// Sequence id of the next packet to the client.
    pub client_seq: u8,
    /// For the client's answers.
    pub patience: Patience,
    pub leg: &'a mut Stream,
    /// Sequence id of the next packet to home.
    pub leg_seq: u8,
    pub user: &'a [u8],
    /// The client's address.
    pub peer: IpAddr,
    /// The plugin the client's last answer was made with.
    pub plugin: Vec<u8>,
    /// The nonce it answers.
    pub nonce: [u8; NONCE_LEN],
    pub answer: Zeroizing<Vec<u8>>,
    /// Of a COM_CHANGE_USER: the nonce the client was greeted with.
    pub greeted: Option<[u8; NONCE_LEN]>,
    /// Seen in this exchange; worth keeping once home says OK.
    pub password: Option<Secret>,
}

/// The client's side broke.
pub(crate) fn gone(e: io::Error) -> LoginEnd {
    LoginEnd::Client(e)
}

/// True for plugins whose answer is the password itself (over TLS).
pub(crate) fn sends_password(plugin: &[u8]) -> bool {
    plugin == CLEAR || plugin == DIALOG || plugin == SHA256
}

impl Relay<'_> {
    /// Runs the exchange to home's verdict.
    ///
    /// Errors: whichever connection broke, or a server that never ends.
    pub async fn run(&mut self) -> Result<Verdict, LoginEnd> {
        for _ in 0..AUTH_ROUNDS_MAX {
            let packet = self.read_leg().await?;
            let protocol = |what| LegError::Protocol {
                side: self.side,
                what,
            };
            match AuthReply::parse(&packet) {
                Ok(AuthReply::Ok(_)) => return Ok(Verdict::Ok(packet)),
                Ok(AuthReply::Err(_)) => return Ok(Verdict::Err(packet)),
                Ok(AuthReply::Switch { plugin, data }) => {
                    self.password = None;
                    self.plugin = plugin.to_vec();
                    self.nonce = nonce_of(data).unwrap_or(self.nonce);
                    self.pass_and_answer(&packet).await?;
                }
                Ok(AuthReply::More(data)) if self.plugin == CACHING_SHA2 => match data {
                    [caching_sha2::FAST_OK] => self.fast().await?,
                    [caching_sha2::FULL] => self.full().await?,
                    _ => self.pass_and_answer(&packet).await?,
                },
                Ok(AuthReply::More(key)) if self.plugin == SHA256 => self.rekey(key).await?,
                // Questions of plugins that we do not know have any first byte.
                Ok(AuthReply::More(_) | AuthReply::OldSwitch) => {
                    self.pass_and_answer(&packet).await?;
                }
                Err(_) if known(&self.plugin) => {
                    return Err(protocol("unexpected packet during authentication").into());
                }
                Err(_) => self.pass_and_answer(&packet).await?,
            }
        }
        Err(LegError::Protocol {
            side: self.side,
            what: "the authentication does not end",
        }
        .into())
    }

    /// Home's packet to the client, the client's answer to home.
    async fn pass_and_answer(&mut self, packet: &[u8]) -> Result<(), LoginEnd> {
        self.write_client(packet).await?;
        self.answer = Zeroizing::new(self.read_client().await?);
        if self.plugin == SHA256 {
            return self.sha256().await;
        }
        if sends_password(&self.plugin) {
            return self.pass_password().await;
        }
        self.answer_to_greeting().await;
        write_packet(self.leg, &mut self.leg_seq, &self.answer)
            .await
            .map_err(lost(self.side))?;
        Ok(())
    }

    /// MariaDB's client library answers a switch during COM_CHANGE_USER with the
    /// nonce it was greeted with, which no leg but the one that greeted has
    /// given. An answer that proves the password that way is made anew for this
    /// leg's nonce; any other stays, for the leg to refuse.
    async fn answer_to_greeting(&mut self) {
        let Some(greeted) = self.greeted.filter(|g| *g != self.nonce) else {
            return;
        };
        if self.plugin != NATIVE || self.answer.len() != native::HASH_LEN {
            return;
        }
        let known = self.ctx.known(self.user, self.peer);
        if known
            .as_ref()
            .is_some_and(|a| a.verify(NATIVE, &self.nonce, &self.answer))
        {
            return;
        }
        let proven = known.filter(|a| a.verify(NATIVE, &greeted, &self.answer));
        if let Some(account) = proven {
            if let Some(answer) = account.answer(NATIVE, &self.nonce) {
                self.answer = Zeroizing::new(answer);
            }
            return;
        }
        let fits = |hash: &_| native::recover(&self.answer, &greeted, hash);
        let reader = self.ctx.grant_reader(self.side);
        if let Ok(Some(stage1)) = reader.find(self.user, fits).await {
            self.answer = Zeroizing::new(native::scramble(&stage1, &self.nonce).to_vec());
        }
    }

    /// An answer that may be the clear password. Where it must not go, home
    /// gets an empty one, and refuses with its own error.
    async fn pass_password(&mut self) -> Result<(), LoginEnd> {
        let protected = self.leg.is_tls() || !self.client.is_tls();
        let allowed = if self.plugin == CLEAR {
            self.leg.is_tls() && self.client.is_tls()
        } else {
            protected
        };
        let reply: &[u8] = if allowed { &self.answer } else { &[] };
        write_packet(self.leg, &mut self.leg_seq, reply)
            .await
            .map_err(lost(self.side))?;
        if allowed && self.client.is_tls() && self.plugin != DIALOG {
            self.password = Some(caching_sha2::from_clear(self.answer.to_vec()));
        }
        Ok(())
    }

    /// Home has the account cached and the answer was right.
    async fn fast(&mut self) -> Result<(), LoginEnd> {
        let known = self.ctx.known(self.user, self.peer);
        let fits = |a: &Account| a.verify(CACHING_SHA2, &self.nonce, &self.answer);
        if known.as_ref().is_some_and(fits) || !self.client.is_tls() {
            if let Some(stale) = known.filter(|a| !fits(a)) {
                self.ctx.forget(self.user, self.peer, &stale);
            }
            return self
                .write_client(&auth_more(&[caching_sha2::FAST_OK]))
                .await;
        }
        self.write_client(&auth_more(&[caching_sha2::FULL])).await?;
        let password = caching_sha2::from_clear(self.read_client().await?);
        // Home has already accepted the answer. A password that does not fit
        // it is not worth keeping, and no reason to refuse what home accepts.
        if caching_sha2::verify(&self.answer, &self.nonce, &password) {
            self.password = Some(password);
        }
        Ok(())
    }

    /// Home asks for the password.
    async fn full(&mut self) -> Result<(), LoginEnd> {
        self.write_client(&auth_more(&[caching_sha2::FULL])).await?;
        let sent = Zeroizing::new(self.read_client().await?);
        self.password_of(sent, caching_sha2::REQUEST_KEY).await
    }

    /// The client's answer to a `sha256_password` switch.
    async fn sha256(&mut self) -> Result<(), LoginEnd> {
        let sent = self.answer.clone();
        if sent.is_empty() || sent.as_slice() == [0] {
            // No password, which needs no protection.
            write_packet(self.leg, &mut self.leg_seq, &sent)
                .await
                .map_err(lost(self.side))?;
            return Ok(());
        }
        self.password_of(sent, caching_sha2::REQUEST_KEY_SHA256)
            .await
    }

    /// Home's key in answer to a request that was the client's first answer:
    /// the client gets ours, and home the password under its own.
    async fn rekey(&mut self, home_key: &[u8]) -> Result<(), LoginEnd> {
        let ours = auth_more(self.ctx.rsa.public_pem());
        self.write_client(&ours).await?;
        let sent = Zeroizing::new(self.read_client().await?);
        let cipher = match self.ctx.rsa.decrypt(&sent, &self.nonce) {
            Ok(password) => {
                let cipher = encrypted(self.side, home_key, &password, &self.nonce)?;
                self.password = Some(password);
                cipher
            }
            Err(_) => sent.to_vec(),
        };
        write_packet(self.leg, &mut self.leg_seq, &cipher)
            .await
            .map_err(lost(self.side))?;
        Ok(())
    }

    /// Takes the password from what a client has sent, and sends it to home.
    async fn password_of(
        &mut self,
        mut sent: Zeroizing<Vec<u8>>,
        request_key: u8,
    ) -> Result<(), LoginEnd> {
        if self.client.is_tls() {
            let password = caching_sha2::from_clear(sent.to_vec());
            return self.hand_over(password, request_key).await;
        }
        if sent.as_slice() == [request_key] {
            let key = auth_more(self.ctx.rsa.public_pem());
            self.write_client(&key).await?;
            sent = Zeroizing::new(self.read_client().await?);
        }
        match self.ctx.rsa.decrypt(&sent, &self.nonce) {
            Ok(password) => self.hand_over(password, request_key).await,
            // Encrypted for home's own key, which this client was given
            // beforehand: passed on if home expects cipher text on this leg.
            // Anything shorter is a password sent in the clear by mistake
            // (MariaDB's client does that when it would have liked TLS);
            // servers refuse it, and so will home refuse the empty answer.
            Err(_) => {
                let cipher = !self.leg.is_tls() && sent.len() >= CIPHER_MIN;
                let reply: &[u8] = if cipher { &sent } else { &[] };
                write_packet(self.leg, &mut self.leg_seq, reply)
                    .await
                    .map_err(lost(self.side))?;
                Ok(())
            }
        }
    }

    /// The password to home, the way home's leg demands.
    async fn hand_over(&mut self, password: Secret, request_key: u8) -> Result<(), LoginEnd> {
        let (leg, seq) = (&mut *self.leg, &mut self.leg_seq);
        send_password(leg, seq, self.side, &password, &self.nonce, request_key).await?;
        self.password = Some(password);
        Ok(())
    }

    /// Whether the account that home has let in demands TLS; asked where the
    /// leg has it and the client has not, as `backends.*.tls` orders more than
    /// the client offers. A client whose home leg cannot be asked (its password
    /// has expired) or whose account cannot be looked up is let in, as home has
    /// decided.
    pub async fn needs_tls(&mut self, caps: Capabilities) -> bool {
        let side = self.side;
        let needed = async {
            let cells = query_cells(self.leg, caps, side, b"SELECT CURRENT_USER()").await?;
            let Some(account) = cells.into_iter().flatten().next() else {
                return Ok(false);
            };
            self.ctx.grant_reader(side).needs_tls(&account).await
        };
        needed.await.unwrap_or_else(|error: LegError| {
            tracing::warn!(%side, %error, "whether an account demands TLS is not known");
            false
        })
    }

    async fn read_leg(&mut self) -> Result<Vec<u8>, LoginEnd> {
        let packet = read_packet(self.leg, &mut self.leg_seq).await;
        Ok(packet.map_err(lost(self.side))?)
    }

    async fn read_client(&mut self) -> Result<Vec<u8>, LoginEnd> {
        read_client(self.client, &mut self.client_seq, self.patience).await
    }

    /// Sends a packet to the client.
    pub async fn write_client(&mut self, payload: &[u8]) -> Result<(), LoginEnd> {
        write_packet(self.client, &mut self.client_seq, payload)
            .await
            .map_err(gone)
    }

    /// Keeps what the exchange taught; called once home has said OK and the
    /// client knows it, because reading the grant tables takes a round trip.
    pub async fn learn(&mut self) {
        let (ctx, user) = (self.ctx, self.user.to_vec());
        if let Some(password) = self.password.take() {
            return ctx.learn(self.user, self.peer, Account::new(user, password));
        }
        let hashes = self.plugin == NATIVE || self.plugin == CACHING_SHA2;
        if hashes && self.answer.is_empty() {
            return ctx.learn(self.user, self.peer, Account::Empty { user });
        }
        if self.plugin == NATIVE {
            self.learn_native().await;
        }
    }

    /// Recovers SHA1(password) from an accepted native answer, with the hashes
    /// in the grant tables. Without a readable grant table nothing is learned,
    /// and the session goes on without its other leg.
    async fn learn_native(&self) {
        let (ctx, side, user) = (self.ctx, self.side, self.user);
        if let Some(known) = ctx.known(user, self.peer)
            && known.verify(NATIVE, &self.nonce, &self.answer)
        {
            return;
        }
        let fits = |hash: &_| native::recover(&self.answer, &self.nonce, hash);
        let stage1 = match ctx.grant_reader(side).find(user, fits).await {
            Ok(stage1) => stage1,
            Err(error) => {
                tracing::warn!(%side, %error, "cannot learn an account");
                None
            }
        };
        if let Some(stage1) = stage1 {
            let account = Account::NativeStage1 {
                user: user.to_vec(),
                stage1,
            };
            ctx.learn(user, self.peer, account);
        }
    }
}

/// True for plugins whose packets we know.
fn known(plugin: &[u8]) -> bool {
    [NATIVE, CACHING_SHA2, SHA256, CLEAR].contains(&plugin)
}
