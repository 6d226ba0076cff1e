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

mod context;
mod mapped;
mod packets;
mod proxied;
mod relayed;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::Side;
use crate::auth::NONCE_LEN;
use crate::leg::connect::{
    Announce, Authenticated, ER_ACCESS_DENIED, LegError, LoginParams, Opened, Visitor,
    login as leg_login, lost, open,
};
use crate::leg::grants::service_params;
use crate::leg::stream::{Stream, write_packet};
use crate::wire::capability::{Capabilities, offered};
use crate::wire::command::COM_QUIT;
use crate::wire::greeting::{HandshakeResponse, is_ssl_request, put_attribute};
use crate::wire::ok::{ErrPacket, OkPacket};

pub use context::{ClientCertificates, LoginContext, SeenCapabilities};
pub(crate) use mapped::learn_mapped;
use mapped::mapped_login;
pub(crate) use packets::{Patience, read_client, refuse};
use relayed::relayed_login;

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
    /// The client as its legs show it.
    pub visitor: Visitor,
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
    /// A mapped user's password was wrong, or a client certificate is missing;
    /// judged here.
    #[error("proxy: wrong password of a mapped user, or no client certificate")]
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
    mut socket: TcpStream,
    peer: SocketAddr,
    ctx: &LoginContext,
    home: Side,
) -> Result<LoggedIn, LoginEnd> {
    let begun = Instant::now();
    let deadline = begun + ctx.login_timeout;
    let visitor = match timeout_at(deadline, visitor(&mut socket, peer, ctx)).await {
        Ok(visitor) => visitor?,
        Err(_) => return Err(LoginEnd::Timeout),
    };
    let mut client = Stream::plain(socket).map_err(LoginEnd::Client)?;
    let opened = match open_unambiguous(ctx, home, &visitor).await {
        Ok(opened) => opened,
        Err(error) => return Err(tell_before_greeting(&mut client, error).await),
    };
    ctx.seen.note(home, opened.greeting.capabilities);
    // The client may use most of the time. The last tenth is kept for leaving
    // home in good order, before home's own timeout counts the connection as an
    // aborted one.
    let patience = Patience {
        until: begun + ctx.login_timeout * 8 / 10,
        told: !opened.info().mariadb,
    };
    let answer_by = begun + ctx.login_timeout * 9 / 10;
    let answering = greet(ctx, client, &opened, visitor, patience);
    let answered = match timeout_at(answer_by, answering).await {
        Ok(answered) => answered,
        Err(_) => Err(LoginEnd::Timeout),
    };
    match answered {
        Ok(answered) => match timeout_at(deadline, finish(ctx, home, opened, answered)).await {
            Ok(result) => result,
            Err(_) => Err(LoginEnd::Timeout),
        },
        Err(end) => {
            leave_politely(ctx, opened).await;
            Err(end)
        }
    }
}

/// Connections opened to get a thread id that no other client knows as its
/// session's. The next id is the next number, so this many sessions of before
/// the flip with numbers in a row are stepped over by one login.
const OPEN_ATTEMPTS: usize = 64;

/// Opens home. After a flip, sessions greeted by the other side live on, and
/// KILL names a session by the id it was greeted with.
async fn open_unambiguous(
    ctx: &LoginContext,
    home: Side,
    visitor: &Visitor,
) -> Result<Opened, LegError> {
    let mut opened = open(ctx.backend(home), ctx.login_timeout, Some(visitor)).await?;
    for _ in 1..OPEN_ATTEMPTS {
        if !ctx.registry.is_ambiguous(opened.greeting.thread_id, home) {
            break;
        }
        let next = open(ctx.backend(home), ctx.login_timeout, Some(visitor)).await?;
        leave_politely(ctx, std::mem::replace(&mut opened, next)).await;
    }
    Ok(opened)
}

/// Who the client is, before it has said anything.
async fn visitor(
    socket: &mut TcpStream,
    peer: SocketAddr,
    ctx: &LoginContext,
) -> Result<Visitor, LoginEnd> {
    match proxied::addresses(socket, peer, &ctx.proxied_by).await {
        Ok((peer, local)) => Ok(Visitor {
            peer,
            local,
            tls: false,
            certified: ctx.client_certs == ClientCertificates::Ignored,
        }),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%peer, "refused, as its PROXY header is missing or malformed");
            Err(LoginEnd::Protocol("no PROXY header from a load balancer"))
        }
        Err(e) => Err(LoginEnd::Client(e)),
    }
}

/// Greets the client as home and reads its answer.
async fn greet(
    ctx: &LoginContext,
    mut client: Stream,
    opened: &Opened,
    visitor: Visitor,
    patience: Patience,
) -> Result<Answered, LoginEnd> {
    let mut greeting = opened.greeting.clone();
    let other = ctx.seen.get(opened.side.other());
    greeting.capabilities = offered(greeting.capabilities, other);
    if !ctx.mariadb_bulk {
        greeting.capabilities = greeting.capabilities.without(Capabilities::MARIADB_BULK);
    }
    if ctx.tls.is_some() {
        greeting.capabilities = greeting.capabilities.with(Capabilities::SSL);
    }
    let mut seq = 0;
    write_packet(&mut client, &mut seq, &greeting.build())
        .await
        .map_err(LoginEnd::Client)?;
    answer_of(client, seq, ctx, greeting.capabilities, visitor, patience).await
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
    /// What it sent, without its answer to the nonce.
    response: HandshakeResponse,
    /// Its answer to the nonce.
    answer: Zeroizing<Vec<u8>>,
    /// Negotiated.
    capabilities: Capabilities,
    visitor: Visitor,
    /// For what it is still to send.
    patience: Patience,
}

impl Answered {
    /// The initial database, if it names one.
    fn database(&self) -> Option<Vec<u8>> {
        self.response.database.clone().filter(|db| !db.is_empty())
    }

    /// Its attributes as it sent them.
    fn attributes(&self) -> Vec<u8> {
        self.response.connect_attrs.clone().unwrap_or_default()
    }
}

/// Reads the client's answer to the greeting, through TLS if it asks for it.
async fn answer_of(
    mut client: Stream,
    mut seq: u8,
    ctx: &LoginContext,
    offered: Capabilities,
    mut visitor: Visitor,
    patience: Patience,
) -> Result<Answered, LoginEnd> {
    let mut packet = read_client(&mut client, &mut seq, patience).await?;
    if is_ssl_request(&packet) {
        let (Some(config), Stream::Plain(socket)) = (&ctx.tls, client) else {
            return Err(LoginEnd::Protocol("TLS asked for and not offered"));
        };
        let accepting = TlsAcceptor::from(config.load_full()).accept(socket);
        client = match accepting.into_fallible().await {
            Ok(accepted) => {
                visitor.tls = true;
                visitor.certified |= accepted.get_ref().1.peer_certificates().is_some();
                Stream::TlsServer(Box::new(accepted))
            }
            Err((error, socket)) => {
                // In the clear, after the alert: so do servers.
                refuse(&mut Stream::Plain(socket), &mut seq, bad_handshake()).await;
                return Err(LoginEnd::Tls(error));
            }
        };
        packet = read_client(&mut client, &mut seq, patience).await?;
    }
    let packet = Zeroizing::new(packet);
    match HandshakeResponse::parse(&packet) {
        Ok(mut response) => Ok(Answered {
            client,
            seq,
            capabilities: negotiated(response.capabilities, offered),
            answer: Zeroizing::new(std::mem::take(&mut response.auth_response)),
            response,
            visitor,
            patience,
        }),
        Err(e) => {
            refuse(&mut client, &mut seq, bad_handshake()).await;
            Err(LoginEnd::Protocol(e.what))
        }
    }
}

fn bad_handshake() -> ErrPacket<'static> {
    ErrPacket::new(ER_HANDSHAKE, b"08S01", b"Bad handshake")
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
    if ctx.client_certs == ClientCertificates::Required && !answered.visitor.certified {
        return Err(deny(ctx, opened, &mut answered).await);
    }
    let mapped = ctx.users.get(&answered.response.user, home);
    let leg = match mapped {
        Some(mapped) => mapped_login(ctx, opened, &mut answered, mapped).await?,
        None => relayed_login(ctx, opened, &mut answered).await?,
    };
    Ok(LoggedIn {
        database: answered.database(),
        connect_attrs: answered.attributes(),
        capabilities: answered.capabilities,
        charset: u16::from(answered.response.charset),
        max_packet: answered.response.max_packet,
        client: answered.client,
        user: answered.response.user,
        nonce,
        home: leg,
        home_side: home,
        greeted_id,
        visitor: answered.visitor,
    })
}

/// Refuses a client as a server does, for reasons of our own.
async fn deny(ctx: &LoginContext, opened: Opened, answered: &mut Answered) -> LoginEnd {
    let (user, peer) = (&answered.response.user, answered.visitor.peer);
    let message = denied_message(user, answered.answer.is_empty(), peer);
    let denied = ErrPacket::new(ER_ACCESS_DENIED, b"28000", message.as_bytes()).build();
    let told = write_packet(&mut answered.client, &mut answered.seq, &denied).await;
    leave_politely(ctx, opened).await;
    match told {
        Ok(()) => LoginEnd::Denied,
        Err(e) => LoginEnd::Client(e),
    }
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
        Ok(mut packet) => {
            // An empty info stood there only because the state came after it.
            packet.has_info = !packet.info.is_empty();
            packet.build(client)
        }
        Err(_) => ok.to_vec(),
    }
}

/// What a server says to a wrong password.
pub(crate) fn denied_message(user: &[u8], no_password: bool, peer: SocketAddr) -> String {
    let user = String::from_utf8_lossy(user);
    let host = peer.ip().to_canonical();
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
///
/// Not so where the server was told the client's address: it is the client's
/// count then, as without the proxy.
async fn leave_politely(ctx: &LoginContext, opened: Opened) {
    if ctx.backend(opened.side).announce != Announce::No {
        return;
    }
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
    let unknown = || LegError::Credentials {
        side,
        why: "no login has taught this user's password yet",
    };
    let peer = params.visitor.map(|v| v.peer.ip());
    let known = || peer.and_then(|peer| ctx.known(user, peer));
    let (account, certificate) = match mapped {
        Some(mapped) => (mapped.account, mapped.certificate),
        None => (known().ok_or_else(unknown)?, None),
    };
    let mut params = params.clone();
    params.connect_attrs = with_instance(ctx, params.connect_attrs);
    params.certificate = certificate;
    let visitor = params.visitor.as_ref();
    let opened = open(ctx.backend(side), ctx.login_timeout, visitor).await?;
    ctx.seen.note(side, opened.greeting.capabilities);
    let result = leg_login(opened, &account, &params).await;
    if learned
        && let Err(LegError::Refused { code, .. }) = &result
        && *code == ER_ACCESS_DENIED
        && let Some(peer) = peer
    {
        ctx.forget(user, peer, &account);
    }
    result
}
