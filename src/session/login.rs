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
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::auth_relay::{Relay, Verdict, sends_password};
use super::proof::Proof;
use crate::Side;
use crate::auth::rsa::RsaKey;
use crate::auth::{Account, AccountStore, NATIVE, NONCE_LEN, UserMap};
use crate::leg::connect::{
    Authenticated, BackendConfig, ER_ACCESS_DENIED, LegError, LoginParams, Opened, err_code,
    login as leg_login, lost, open,
};
use crate::leg::grants::{GrantReader, service_params};
use crate::leg::stream::{Stream, read_packet, write_packet};
use crate::wire::capability::{Capabilities, offered};
use crate::wire::command::COM_QUIT;
use crate::wire::greeting::{HandshakeResponse, is_ssl_request, put_attribute};
use crate::wire::ok::{ErrPacket, OkPacket};

/// ER_HANDSHAKE_ERROR.
const ER_HANDSHAKE: u16 = 1043;
/// ER_SERVER_SHUTDOWN: what a client is told when home cannot be reached.
const ER_SERVER_SHUTDOWN: u16 = 1053;

/// Connection attribute by which an instance's connections are found on a
/// backend (performance_schema.session_connect_attrs).
pub const INSTANCE_ATTRIBUTE: &[u8] = b"_lockstep_instance";

/// Time to end an unused home connection in good order. Its client has gone
/// already, so nobody waits.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

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
///
/// The whole login, TLS and home's part included, takes at most
/// [`LoginContext::login_timeout`]. Dropping the future at any point closes
/// both connections and leaves nothing behind.
///
/// Errors: see [`LoginEnd`]; the client has been told by then.
pub async fn login(
    socket: TcpStream,
    peer: SocketAddr,
    ctx: &LoginContext,
    home: Side,
) -> Result<LoggedIn, LoginEnd> {
    let run = login_now(socket, peer, ctx, home);
    match tokio::time::timeout(ctx.login_timeout, run).await {
        Ok(result) => result,
        Err(_) => Err(LoginEnd::Timeout),
    }
}

async fn login_now(
    socket: TcpStream,
    peer: SocketAddr,
    ctx: &LoginContext,
    home: Side,
) -> Result<LoggedIn, LoginEnd> {
    let mut client = Stream::plain(socket).map_err(LoginEnd::Client)?;
    let opened = match open(ctx.backend(home), ctx.login_timeout).await {
        Ok(opened) => opened,
        Err(error) => return Err(tell_before_greeting(&mut client, error).await),
    };
    let greeted = opened.greeting.capabilities;
    ctx.seen.note(home, greeted);
    let mut offered = offered(greeted, ctx.seen.get(home.other()));
    if ctx.tls.is_some() {
        offered = offered.with(Capabilities::SSL);
    }
    let mut greeting = opened.greeting.clone();
    greeting.capabilities = offered;
    let mut seq = 0;
    write_packet(&mut client, &mut seq, &greeting.build())
        .await
        .map_err(LoginEnd::Client)?;
    match answer_of(client, seq, ctx).await {
        Ok(mut answered) => {
            answered.peer = Some(peer);
            answered.capabilities = negotiated(answered.response.capabilities, offered);
            finish(ctx, home, opened, answered).await
        }
        Err(end) => {
            leave_politely(ctx, opened).await;
            Err(end)
        }
    }
}

/// The client's capabilities that count. LONG_PASSWORD is what tells MySQL
/// and MariaDB clients apart, so the client's own is kept.
fn negotiated(client: Capabilities, offered: Capabilities) -> Capabilities {
    (client & offered) | (client & Capabilities::LONG_PASSWORD)
}

/// A client that has answered the greeting.
struct Answered {
    client: Stream,
    /// Sequence id of the next packet to the client.
    seq: u8,
    response: HandshakeResponse,
    capabilities: Capabilities,
    peer: Option<SocketAddr>,
}

/// Reads the client's answer to the greeting, through TLS if it asks for it.
async fn answer_of(
    mut client: Stream,
    mut seq: u8,
    ctx: &LoginContext,
) -> Result<Answered, LoginEnd> {
    let mut packet = read_packet(&mut client, &mut seq)
        .await
        .map_err(LoginEnd::Client)?;
    if is_ssl_request(&packet) {
        let (Some(config), Stream::Plain(socket)) = (&ctx.tls, client) else {
            return Err(LoginEnd::Protocol("TLS asked for and not offered"));
        };
        let accepted = TlsAcceptor::from(config.clone()).accept(socket).await;
        client = Stream::TlsServer(Box::new(accepted.map_err(LoginEnd::Tls)?));
        packet = read_packet(&mut client, &mut seq)
            .await
            .map_err(LoginEnd::Client)?;
    }
    let packet = Zeroizing::new(packet);
    match HandshakeResponse::parse(&packet) {
        Ok(response) => Ok(Answered {
            client,
            seq,
            capabilities: response.capabilities,
            response,
            peer: None,
        }),
        Err(e) => {
            let bad = ErrPacket::new(ER_HANDSHAKE, b"08S01", b"Bad handshake");
            let told = write_packet(&mut client, &mut seq, &bad.build()).await;
            told.map_err(LoginEnd::Client)?;
            Err(LoginEnd::Protocol(e.what))
        }
    }
}

/// The rest of a login: by relaying, or by judging a mapped user ourselves.
async fn finish(
    ctx: &LoginContext,
    home: Side,
    opened: Opened,
    mut answered: Answered,
) -> Result<LoggedIn, LoginEnd> {
    let nonce = opened.greeting.nonce;
    let greeted_id = opened.greeting.thread_id;
    let mapped = ctx.users.get(&answered.response.user, home);
    let leg = match mapped {
        Some(account) => mapped_login(ctx, opened, &mut answered, account).await?,
        None => relayed_login(ctx, opened, &mut answered).await?,
    };
    let Answered {
        client,
        response,
        capabilities,
        ..
    } = answered;
    Ok(LoggedIn {
        client,
        capabilities,
        charset: u16::from(response.charset),
        max_packet: response.max_packet,
        user: response.user.clone(),
        database: response.database.clone().filter(|db| !db.is_empty()),
        connect_attrs: response.connect_attrs.clone().unwrap_or_default(),
        nonce,
        home: leg,
        home_side: home,
        greeted_id,
    })
}

/// Hands the client's answer to home and relays the rest.
async fn relayed_login(
    ctx: &LoginContext,
    opened: Opened,
    answered: &mut Answered,
) -> Result<Authenticated, LoginEnd> {
    let side = opened.side;
    let (tls, greeting) = (opened.uses_tls(), &opened.greeting);
    let response = for_home(ctx, answered, greeting.capabilities, tls);
    let caps = response.capabilities;
    let (max_packet, charset) = (response.max_packet, u16::from(response.charset));
    let nonce = greeting.nonce;
    let begun = async {
        let mut opened = opened.secure(caps, max_packet, charset).await?;
        opened.write(&Zeroizing::new(response.build())).await?;
        Ok(opened)
    };
    let mut opened = match begun.await {
        Ok(opened) => opened,
        Err(error) => return Err(tell_unreachable(answered, error).await),
    };
    let mut relay = Relay {
        ctx,
        side,
        client: &mut answered.client,
        client_seq: answered.seq,
        leg: &mut opened.stream,
        leg_seq: opened.seq,
        user: &answered.response.user,
        plugin: response
            .auth_plugin
            .clone()
            .unwrap_or_else(|| NATIVE.to_vec()),
        nonce,
        answer: Zeroizing::new(answered.response.auth_response.clone()),
        password: None,
    };
    let verdict = relay.run().await;
    let result = match verdict {
        Ok(Verdict::Ok(ok)) => {
            let told = ok_for_client(&ok, caps, answered.capabilities);
            relay.write_client(&told).await?;
            relay.learn().await;
            Ok(ok)
        }
        Ok(Verdict::Err(packet)) => {
            relay.write_client(&packet).await?;
            let code = err_code(&packet);
            return Err(LoginEnd::Refused { side, code });
        }
        Err(end) => {
            answered.seq = relay.client_seq;
            Err(end)
        }
    };
    match result {
        Ok(ok) => Ok(opened.authenticated(caps, max_packet, ok)?),
        Err(LoginEnd::Home(error)) => Err(tell_unreachable(answered, error).await),
        Err(end) => Err(end),
    }
}

/// Our response to home on behalf of the client.
fn for_home(
    ctx: &LoginContext,
    answered: &Answered,
    server: Capabilities,
    tls: bool,
) -> HandshakeResponse {
    let mut response = answered.response.clone();
    let mut caps = answered.capabilities.without(Capabilities::SSL);
    // Session tracking is how the proxy follows the session, whether or not
    // the client wants it.
    caps = caps | (server & Capabilities::SESSION_TRACK);
    if tls {
        caps = caps.with(Capabilities::SSL);
    }
    if server.has(Capabilities::CONNECT_ATTRS) {
        caps = caps.with(Capabilities::CONNECT_ATTRS);
        let client = response.connect_attrs.unwrap_or_default();
        response.connect_attrs = Some(with_instance(ctx, client));
    } else {
        response.connect_attrs = None;
    }
    // The flags must say what the packet holds: TLS and the OK depend on them.
    for (flag, present) in [
        (Capabilities::CONNECT_WITH_DB, response.database.is_some()),
        (Capabilities::PLUGIN_AUTH, response.auth_plugin.is_some()),
    ] {
        if !present {
            caps = caps.without(flag);
        }
    }
    let plugin = response.auth_plugin.as_deref().unwrap_or(NATIVE);
    if sends_password(plugin) && answered.client.is_tls() && !tls {
        response.auth_response.clear();
    }
    response.zstd_level = None;
    response.capabilities = caps;
    response
}

/// The client's attributes and ours.
pub(crate) fn with_instance(ctx: &LoginContext, mut attrs: Vec<u8>) -> Vec<u8> {
    put_attribute(&mut attrs, INSTANCE_ATTRIBUTE, ctx.instance.as_bytes());
    attrs
}

/// The login's OK as this client may see it: without session state unless it
/// asked for that.
pub(crate) fn ok_for_client(ok: &[u8], leg: Capabilities, client: Capabilities) -> Vec<u8> {
    if client.has(Capabilities::SESSION_TRACK) {
        return ok.to_vec();
    }
    match OkPacket::parse(ok, leg) {
        Ok(packet) => packet.build(client),
        Err(_) => ok.to_vec(),
    }
}

/// Verifies a mapped user's password here and logs in to home as the user it
/// is mapped to.
async fn mapped_login(
    ctx: &LoginContext,
    opened: Opened,
    answered: &mut Answered,
    account: &Account,
) -> Result<Authenticated, LoginEnd> {
    let mut proof = Proof {
        client: &mut answered.client,
        seq: answered.seq,
        plugin: answered
            .response
            .auth_plugin
            .clone()
            .unwrap_or_else(|| NATIVE.to_vec()),
        nonce: opened.greeting.nonce,
        answer: Zeroizing::new(answered.response.auth_response.clone()),
    };
    let proven = proof.run(account, &opened.greeting.auth_plugin).await;
    let no_password = proof.answer.is_empty();
    answered.seq = proof.seq;
    if !proven? {
        let message = denied_message(&answered.response.user, no_password, answered.peer);
        let denied = ErrPacket::new(ER_ACCESS_DENIED, b"28000", message.as_bytes()).build();
        let told = write_packet(&mut answered.client, &mut answered.seq, &denied).await;
        told.map_err(LoginEnd::Client)?;
        leave_politely(ctx, opened).await;
        return Err(LoginEnd::Denied);
    }
    // On a side without a mapping the user has this name and this password.
    if let Some(password) = account.password() {
        let user = answered.response.user.clone();
        ctx.accounts.learn(Account::new(user, password));
    }
    let params = LoginParams {
        capabilities: answered.capabilities,
        charset: u16::from(answered.response.charset),
        max_packet: answered.response.max_packet,
        database: answered
            .response
            .database
            .clone()
            .filter(|db| !db.is_empty()),
        connect_attrs: with_instance(
            ctx,
            answered.response.connect_attrs.clone().unwrap_or_default(),
        ),
    };
    match leg_login(opened, account, &params).await {
        Ok(leg) => {
            let ok = ok_for_client(&leg.ok, leg.capabilities, answered.capabilities);
            let told = write_packet(&mut answered.client, &mut answered.seq, &ok).await;
            told.map_err(LoginEnd::Client)?;
            Ok(leg)
        }
        Err(LegError::Refused {
            side, code, packet, ..
        }) => {
            let told = write_packet(&mut answered.client, &mut answered.seq, &packet).await;
            told.map_err(LoginEnd::Client)?;
            Err(LoginEnd::Refused { side, code })
        }
        Err(error) => Err(tell_unreachable(answered, error).await),
    }
}

/// What a server says to a wrong password.
pub(crate) fn denied_message(user: &[u8], no_password: bool, peer: Option<SocketAddr>) -> String {
    let user = String::from_utf8_lossy(user);
    let host = peer.map(|p| p.ip().to_canonical().to_string());
    let host = host.unwrap_or_default();
    let using = if no_password { "NO" } else { "YES" };
    format!("Access denied for user '{user}'@'{host}' (using password: {using})")
}

/// Home refused or could not be reached before there was a greeting.
async fn tell_before_greeting(client: &mut Stream, error: LegError) -> LoginEnd {
    let (packet, end) = match error {
        LegError::Refused {
            side, code, packet, ..
        } => (packet, LoginEnd::Refused { side, code }),
        error => (
            shutdown_error().build_before_greeting(),
            LoginEnd::Home(error),
        ),
    };
    let mut seq = 0;
    match write_packet(client, &mut seq, &packet).await {
        Ok(()) => end,
        Err(e) => LoginEnd::Client(e),
    }
}

/// Home broke off after the greeting.
async fn tell_unreachable(answered: &mut Answered, error: LegError) -> LoginEnd {
    let packet = shutdown_error().build();
    match write_packet(&mut answered.client, &mut answered.seq, &packet).await {
        Ok(()) => LoginEnd::Home(error),
        Err(e) => LoginEnd::Client(e),
    }
}

pub(crate) fn shutdown_error() -> ErrPacket<'static> {
    ErrPacket::new(ER_SERVER_SHUTDOWN, b"08S01", b"Server shutdown in progress")
}

/// Ends a home connection that no client will use.
///
/// A server counts connections that end before their login and blocks the host
/// after `max_connect_errors` of them. A load balancer's health checks, each a
/// TCP connection and no more, would get the proxy itself blocked; a completed
/// login resets the count. Failures are the server's affair.
async fn leave_politely(ctx: &LoginContext, opened: Opened) {
    let service = ctx.grant_reader(opened.side).service();
    let leave = async {
        let mut leg = leg_login(opened, service, &service_params()).await?;
        let mut seq = 0;
        let quit = write_packet(&mut leg.stream, &mut seq, &[COM_QUIT]).await;
        quit.map_err(lost(leg.side))
    };
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, leave).await;
}

/// Opens a leg on `side` for a client user that is already logged in, with
/// what its login taught or `users:` says. `params.connect_attrs` are the
/// client's; ours is added.
///
/// Errors: [`LegError::Credentials`] when nothing usable is known of the user;
/// [`LegError::Refused`] with the server's ERR, after which a learned account
/// is forgotten if the server called it wrong; and the connection's.
pub async fn open_other(
    ctx: &LoginContext,
    side: Side,
    user: &[u8],
    params: &LoginParams,
) -> Result<Authenticated, LegError> {
    let mapped = ctx.users.get(user, side).cloned();
    let learned = mapped.is_none();
    let Some(account) = mapped.or_else(|| ctx.accounts.get(user)) else {
        return Err(LegError::Credentials {
            side,
            why: "no login has taught this user's password yet",
        });
    };
    let mut params = params.clone();
    params.connect_attrs = with_instance(ctx, params.connect_attrs);
    let opened = open(ctx.backend(side), ctx.login_timeout).await?;
    ctx.seen.note(side, opened.greeting.capabilities);
    let result = leg_login(opened, &account, &params).await;
    if learned
        && let Err(LegError::Refused { code, .. }) = &result
        && *code == ER_ACCESS_DENIED
    {
        ctx.accounts.forget(&account);
    }
    result
}
