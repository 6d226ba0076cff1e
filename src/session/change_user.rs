//! COM_CHANGE_USER: a second login on a connection that has one.
//!
//! The payload goes to the home leg and the exchange is relayed as at login
//! (`session::auth_relay`), with one difference. The client may answer at once
//! with the nonce it was greeted with, which is another than the home leg's
//! once home has moved. So the leg is always told of a plugin that no server
//! has, and answers with a switch request that carries a nonce of its own. The
//! client sees an ordinary switch, which is what servers send for most clients
//! anyway.

use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::auth_relay::{Relay, Verdict};
use super::login::{
    LoginContext, LoginEnd, Patience, denied_message, learn_mapped, ok_for_client, open_other,
    refuse, shutdown_error, with_instance,
};
use super::proof::Proof;
use crate::auth::{Account, CACHING_SHA2, NATIVE, NONCE_LEN};
use crate::leg::connect::{
    Authenticated, ER_ACCESS_DENIED, LegError, LoginParams, Visitor, err_code, lost,
};
use crate::leg::stream::{Stream, write_packet};
use crate::wire::capability::Capabilities;
use crate::wire::greeting::ChangeUser;
use crate::wire::ok::{ErrPacket, OkPacket};

/// How long MariaDB lets a client wait for its refusal.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// ER_UNKNOWN_COM_ERROR.
const ER_UNKNOWN_COMMAND: u16 = 1047;

/// The plugin no server has; makes every server answer with a switch.
pub(crate) const NO_PLUGIN: &[u8] = b"lockstep_none";

/// How a COM_CHANGE_USER ended. The client has its answer.
pub enum ChangeUserEnd {
    /// The session now belongs to another user; all its state is gone and its
    /// other leg must be closed.
    Changed(Changed),
    /// Refused with this error number. The session goes on as MariaDB's do:
    /// as the user it was, with nothing else left of it.
    Refused {
        /// The error number.
        code: u16,
        /// The leg has not heard of it.
        judged_here: bool,
    },
}

/// The new user's session parameters.
pub struct Changed {
    /// User name as the client sent it.
    pub user: Vec<u8>,
    /// Initial database.
    pub database: Option<Vec<u8>>,
    /// Collation id the client asked for; None: the server's default.
    pub charset: Option<u16>,
    /// The client's attributes as it sent them.
    pub connect_attrs: Vec<u8>,
    /// True if the home leg is a new connection with another thread id: the
    /// user is mapped, so its password was judged here.
    pub reconnected: bool,
}

/// Runs a COM_CHANGE_USER whose payload has been read from the client, against
/// the home leg, which must be idle. For a user mapped by `users:` the leg is
/// replaced by a new connection. `capabilities` are the client's, `visitor` says
/// where it comes from and `greeted` with which nonce it was greeted. Bounded by [`LoginContext::login_timeout`].
///
/// Errors: a broken connection, after which the session is over.
pub async fn change_user(
    ctx: &LoginContext,
    client: &mut Stream,
    capabilities: Capabilities,
    leg: &mut Authenticated,
    payload: &[u8],
    (visitor, greeted): (Visitor, [u8; NONCE_LEN]),
) -> Result<ChangeUserEnd, LoginEnd> {
    let run = async {
        let request = match ChangeUser::parse(payload, capabilities) {
            Ok(request) => request,
            Err(e) => {
                // What a server makes of one that it cannot read.
                let unknown = ErrPacket::new(ER_UNKNOWN_COMMAND, b"08S01", b"Unknown command");
                refuse(client, &mut 1, unknown).await;
                return Err(LoginEnd::Protocol(e.what));
            }
        };
        let conversation = Conversation {
            patience: Patience {
                until: Instant::now() + ctx.login_timeout * 9 / 10,
                told: !leg.info.mariadb,
            },
            ctx,
            client,
            capabilities,
            leg,
            request,
            visitor,
            greeted,
        };
        conversation.run().await
    };
    match tokio::time::timeout(ctx.login_timeout, run).await {
        Ok(result) => result,
        Err(_) => Err(LoginEnd::Timeout),
    }
}

struct Conversation<'a> {
    patience: Patience,
    ctx: &'a LoginContext,
    client: &'a mut Stream,
    capabilities: Capabilities,
    leg: &'a mut Authenticated,
    request: ChangeUser,
    visitor: Visitor,
    greeted: [u8; NONCE_LEN],
}

impl Conversation<'_> {
    async fn run(mut self) -> Result<ChangeUserEnd, LoginEnd> {
        let side = self.leg.side;
        let mapped = self.ctx.users.get(&self.request.user, side).cloned();
        let reconnected = mapped.is_some();
        let refused = match mapped {
            Some(mapped) => self.judge(&mapped.account).await?,
            None => self.relay().await?,
        };
        if let Some(code) = refused {
            if reconnected && !self.leg.info.mariadb {
                // MySQL closes the connection of a client it refuses. One that
                // was let go on could try passwords for ever, in the other
                // user's session.
                return Err(LoginEnd::Denied);
            }
            return Ok(ChangeUserEnd::Refused {
                code,
                judged_here: reconnected,
            });
        }
        let database = self.database();
        Ok(ChangeUserEnd::Changed(Changed {
            user: self.request.user,
            database,
            charset: self.request.charset,
            connect_attrs: self.request.connect_attrs.unwrap_or_default(),
            reconnected,
        }))
    }

    fn database(&self) -> Option<Vec<u8>> {
        Some(self.request.database.clone()).filter(|db| !db.is_empty())
    }

    /// The request as the leg gets it.
    fn for_leg(&self) -> ChangeUser {
        let mut request = self.request.clone();
        let plugins = self.capabilities.has(Capabilities::PLUGIN_AUTH)
            && self.leg.capabilities.has(Capabilities::PLUGIN_AUTH);
        if plugins && request.charset.is_some() {
            request.auth_response.clear();
            request.auth_plugin = Some(NO_PLUGIN.to_vec());
            let attrs = request.connect_attrs.unwrap_or_default();
            request.connect_attrs = Some(with_instance(self.ctx, attrs));
        } else {
            request.connect_attrs = None;
        }
        request
    }

    /// Home judges. Some(error number) if it refused.
    async fn relay(&mut self) -> Result<Option<u16>, LoginEnd> {
        let side = self.leg.side;
        let request = self.for_leg();
        let payload = Zeroizing::new(request.build(self.leg.capabilities));
        let mut leg_seq = 0;
        write_packet(&mut self.leg.stream, &mut leg_seq, &payload)
            .await
            .map_err(lost(side))?;
        let mut relay = Relay {
            ctx: self.ctx,
            side,
            client: self.client,
            client_seq: 1,
            patience: self.patience,
            leg: &mut self.leg.stream,
            leg_seq,
            user: &self.request.user,
            peer: self.visitor.peer.ip(),
            plugin: request.auth_plugin.unwrap_or_else(|| NATIVE.to_vec()),
            nonce: self.leg.nonce,
            answer: Zeroizing::new(request.auth_response),
            greeted: Some(self.greeted),
            password: None,
        };
        match relay.run().await? {
            Verdict::Ok(ok) => {
                let lent = !self.visitor.tls && relay.leg.is_tls();
                if lent && relay.needs_tls(self.leg.capabilities).await {
                    let seq = relay.client_seq;
                    return self.refuse(seq).await;
                }
                let told = ok_for_client(&ok, self.leg.capabilities, self.capabilities);
                relay.write_client(&told).await?;
                relay.learn().await;
                self.leg.nonce = relay.nonce;
                if let Ok(parsed) = OkPacket::parse(&ok, self.leg.capabilities) {
                    self.leg.status = parsed.status;
                }
                self.leg.ok = ok;
                Ok(None)
            }
            Verdict::Err(packet) => {
                relay.write_client(&packet).await?;
                Ok(Some(err_code(&packet)))
            }
        }
    }

    /// Refuses an account that home has let in. The leg is that account's now,
    /// so the session ends with it.
    async fn refuse(&mut self, mut seq: u8) -> Result<Option<u16>, LoginEnd> {
        let message = denied_message(&self.request.user, false, self.visitor.peer);
        let error = ErrPacket::new(ER_ACCESS_DENIED, b"28000", message.as_bytes());
        write_packet(self.client, &mut seq, &error.build())
            .await
            .map_err(LoginEnd::Client)?;
        Err(LoginEnd::Denied)
    }

    /// We judge, then connect anew as the user it is mapped to.
    async fn judge(&mut self, account: &Account) -> Result<Option<u16>, LoginEnd> {
        let default = if self.leg.info.mariadb {
            NATIVE
        } else {
            CACHING_SHA2
        };
        let mut proof = Proof {
            client: self.client,
            seq: 1,
            patience: self.patience,
            plugin: default.to_vec(),
            nonce: [0; NONCE_LEN],
            answer: Zeroizing::default(),
        };
        let proven = proof.switch(default).await? && proof.run(account, default).await?;
        let (mut seq, empty) = (proof.seq, proof.answer.is_empty());
        let (packet, code) = if proven {
            match self.reconnect().await {
                Ok(ok) => {
                    let peer = self.visitor.peer;
                    learn_mapped(self.ctx, &self.request.user, peer, account);
                    (ok, None)
                }
                Err(LegError::Refused { code, packet, .. }) => (packet, Some(code)),
                Err(_) => {
                    let error = shutdown_error();
                    (error.build(), Some(error.code))
                }
            }
        } else {
            let message = denied_message(&self.request.user, empty, self.visitor.peer);
            let error = ErrPacket::new(ER_ACCESS_DENIED, b"28000", message.as_bytes());
            if self.leg.info.mariadb {
                tokio::time::sleep(REFUSAL_PAUSE).await;
            }
            (error.build(), Some(ER_ACCESS_DENIED))
        };
        write_packet(self.client, &mut seq, &packet)
            .await
            .map_err(LoginEnd::Client)?;
        Ok(code)
    }

    /// Replaces the leg; gives the OK for the client.
    async fn reconnect(&mut self) -> Result<Vec<u8>, LegError> {
        let params = LoginParams {
            capabilities: self.leg.capabilities,
            charset: self
                .request
                .charset
                .unwrap_or(u16::from(self.leg.info.charset)),
            max_packet: self.leg.max_packet,
            database: self.database(),
            connect_attrs: self.request.connect_attrs.clone().unwrap_or_default(),
            visitor: Some(self.visitor),
            certificate: None,
        };
        let side = self.leg.side;
        *self.leg = open_other(self.ctx, side, &self.request.user, &params).await?;
        Ok(ok_for_client(
            &self.leg.ok,
            self.leg.capabilities,
            self.capabilities,
        ))
    }
}
