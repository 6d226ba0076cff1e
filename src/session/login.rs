//! A client's login, judged by home.
//!
//! ```text
//! client                    proxy                          home
//!   | TCP                     | TCP                          |
//!   |------------------------>|----------------------------->|
//!   |                         |                     greeting |
//!   | greeting (home's nonce) |<-----------------------------|
//!   |<------------------------|                              |
//!   | [SSLRequest, TLS]       |                              |
//!   | response                | [SSLRequest, TLS], response  |
//!   |------------------------>|----------------------------->|
//!   |      switch, more, ... relayed by session::auth_relay  |
//!   | OK or ERR               |                    OK or ERR |
//!   |<------------------------|<-----------------------------|
//! ```
//!
//! The client answers home's nonce, so its answer can be handed on whatever
//! the plugin; the server is the judge. What the exchange teaches about the
//! account (`auth::account`) opens the session's other leg later, in
//! [`open_other`].
//!
//! A client sees only errors a server sends: home's own ERR as it came, or,
//! when home cannot be reached, 1053 "Server shutdown in progress": drivers
//! know it as "connect again later".

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::Side;
use crate::auth::rsa::RsaKey;
use crate::auth::{AccountStore, NONCE_LEN, UserMap};
use crate::leg::connect::{Authenticated, BackendConfig, LegError, LoginParams};
use crate::leg::grants::GrantReader;
use crate::leg::stream::Stream;
use crate::wire::capability::Capabilities;

/// Everything logins share. One per process.
pub struct LoginContext {
    /// Indexed by [`Side::index`].
    pub backends: [BackendConfig; 2],
    /// The certificate for clients; None: TLS is not offered.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What logins have taught.
    pub accounts: Arc<AccountStore>,
    /// `users:` of proxy.yaml.
    pub users: Arc<UserMap>,
    /// Our key pair for full authentications in the clear.
    pub rsa: Arc<RsaKey>,
    /// Grant table readers, each holding its side's service account; indexed
    /// by [`Side::index`].
    pub grants: [GrantReader; 2],
    /// Capabilities last greeted by each side.
    pub seen: SeenCapabilities,
    /// Time a client has for its whole login: MySQL's `connect_timeout`, 10 s.
    pub login_timeout: Duration,
    /// Our instance id, sent to backends as attribute `_lockstep_instance`.
    pub instance: String,
}

impl LoginContext {
    /// The configuration of one side.
    pub fn backend(&self, side: Side) -> &BackendConfig {
        let [source, target] = &self.backends;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }

    /// The grant table reader of one side.
    pub fn grant_reader(&self, side: Side) -> &GrantReader {
        let [source, target] = &self.grants;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }
}

/// Capabilities last seen in each side's greeting. What the other backend
/// lacks must not be promised to a client.
#[derive(Default)]
pub struct SeenCapabilities {
    /// 0: not seen yet (no server offers nothing).
    bits: [AtomicU64; 2],
}

impl SeenCapabilities {
    /// Remembers a greeting's capabilities.
    pub fn note(&self, side: Side, capabilities: Capabilities) {
        self.slot(side)
            .store(capabilities.bits(), Ordering::Relaxed);
    }

    /// The last ones; None before the first connection to that side.
    pub fn get(&self, side: Side) -> Option<Capabilities> {
        match self.slot(side).load(Ordering::Relaxed) {
            0 => None,
            bits => Some(Capabilities(bits)),
        }
    }

    fn slot(&self, side: Side) -> &AtomicU64 {
        let [source, target] = &self.bits;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }
}

/// A client that is logged in, idle, and has been told so.
pub struct LoggedIn {
    /// The client's bytes; nothing has been read past its login.
    pub client: Stream,
    /// Negotiated with the client. Has SESSION_TRACK only if the client asked
    /// for it; the home leg has it whenever the server can.
    pub capabilities: Capabilities,
    /// Collation id the client asked for.
    pub charset: u16,
    /// Largest packet the client accepts, in bytes.
    pub max_packet: u32,
    /// User name as the client sent it.
    pub user: Vec<u8>,
    /// Initial database.
    pub database: Option<Vec<u8>>,
    /// The client's attributes as it sent them (ours not added).
    pub connect_attrs: Vec<u8>,
    /// The nonce the client was greeted with.
    pub nonce: [u8; NONCE_LEN],
    /// The home leg.
    pub home: Authenticated,
    /// Which side it is on.
    pub home_side: Side,
    /// The thread id the client was greeted with: home's.
    pub greeted_id: u32,
}

/// Why a login ended without a session. The client has been told what a
/// server would have told it, and its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum LoginEnd {
    /// The client went away or its connection broke.
    #[error("client: gone during login: {0}")]
    Client(#[source] io::Error),
    /// The client's bytes are not the protocol.
    #[error("client: {0}")]
    Protocol(&'static str),
    /// TLS with the client failed.
    #[error("client: TLS: {0}")]
    Tls(#[source] io::Error),
    /// Home refused the account; its own ERR was passed on.
    #[error("{side}: login refused with error {code}")]
    Refused {
        /// Home.
        side: Side,
        /// Its error number.
        code: u16,
    },
    /// A mapped user's password was wrong; judged here.
    #[error("proxy: wrong password for a mapped user")]
    Denied,
    /// Home could not be reached or broke off.
    #[error(transparent)]
    Home(#[from] LegError),
    /// The client took longer than the login timeout.
    #[error("client: login timed out")]
    Timeout,
}

impl LoginEnd {
    /// A metric label: whose side it was.
    pub fn side(&self) -> &'static str {
        match self {
            LoginEnd::Client(_) | LoginEnd::Protocol(_) | LoginEnd::Tls(_) | LoginEnd::Timeout => {
                "client"
            }
            LoginEnd::Refused { side, .. } => side.as_str(),
            LoginEnd::Denied => "proxy",
            LoginEnd::Home(e) => e.side().as_str(),
        }
    }

    /// A metric label: what happened.
    pub fn kind(&self) -> &'static str {
        match self {
            LoginEnd::Client(_) => "gone",
            LoginEnd::Protocol(_) => "protocol",
            LoginEnd::Tls(_) => "tls",
            LoginEnd::Refused { .. } => "refused",
            LoginEnd::Denied => "denied",
            LoginEnd::Home(e) => e.kind(),
            LoginEnd::Timeout => "timeout",
        }
    }
}

/// Logs a new connection in against `home`.
pub async fn login(
    _socket: TcpStream,
    _peer: SocketAddr,
    _ctx: &LoginContext,
    _home: Side,
) -> Result<LoggedIn, LoginEnd> {
    Err(LoginEnd::Protocol("not written yet"))
}

/// Opens a leg on `side` for a client user that is already logged in, with
/// what its login taught or `users:` says.
pub async fn open_other(
    _ctx: &LoginContext,
    side: Side,
    _user: &[u8],
    _params: &LoginParams,
) -> Result<Authenticated, LegError> {
    Err(LegError::Credentials {
        side,
        why: "not written yet",
    })
}
