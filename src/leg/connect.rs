//! Opening a leg: TCP, the server's greeting, TLS, and a login with
//! credentials we hold.
//!
//! [`open`] stops after the greeting, because a client's login hands the
//! greeting's nonce to the client before anything is sent to the backend
//! (`session::login`). [`login`] goes on from there as an ordinary client
//! would: the other leg, and the proxy's own service connections.
//!
//! ```text
//! open ─ greeting ─┬─ session::login: the client answers, we relay
//!                  └─ login: we answer: TLS, response, switch, full auth
//! ```

mod error;
mod login;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stream::{Stream, read_packet, write_packet};
use crate::Side;
use crate::auth::NONCE_LEN;
use crate::auth::tls::LegTls;
use crate::wire::capability::Capabilities;
use crate::wire::greeting::{Greeting, ssl_request};
use crate::wire::ok::OkPacket;
use crate::wire::proxy_header;
use crate::wire::status::Status;

pub use crate::auth::tls::TlsMode;
pub use error::{LegError, err_message};
pub(crate) use error::{err_code, lost};
pub use login::{BACKEND_LOGIN_TIMEOUT, LoginParams, login};
pub(crate) use login::{encrypted, send_password};

/// Most packets a server may send in one authentication. The longest known
/// exchange (switch, full authentication, key, verdict) takes four; PAM
/// conversations ask one question a round.
pub const AUTH_ROUNDS_MAX: usize = 16;

/// Collation id known to all servers of both families.
pub(crate) const UTF8MB4_GENERAL_CI: u8 = 45;
/// MySQL 8's default collation, which MariaDB (before 11.4) does not have.
const UTF8MB4_0900_AI_CI: u8 = 255;

/// ER_ACCESS_DENIED_ERROR: the credentials are wrong for this server.
pub const ER_ACCESS_DENIED: u16 = 1045;

/// Where a backend is and how to reach it.
#[derive(Clone)]
pub struct BackendConfig {
    /// Which of the two it is.
    pub side: Side,
    /// `host:port`.
    pub address: String,
    /// How its connections use TLS.
    pub tls: TlsMode,
    /// None with [`TlsMode::Off`].
    pub tls_config: Option<Arc<LegTls>>,
    /// Whether it is told who the client is.
    pub announce: Announce,
}

/// How a backend is told a client's address, which accounts can depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Announce {
    /// Not: it sees ours.
    #[default]
    No,
    /// By a PROXY header of version 1.
    V1,
    /// By a PROXY header of version 2.
    V2,
}

/// The client that a leg is for, as far as the leg's connection shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visitor {
    /// Its address; behind a load balancer, what that says.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Its connection is encrypted.
    pub tls: bool,
    /// Its legs may show our certificate: it has shown one itself, or none is
    /// asked for.
    pub certified: bool,
}

/// What a backend's greeting said about it.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// As greeted, e.g. `9.7.0` or `5.5.5-10.11.19-MariaDB-log`.
    pub version: Vec<u8>,
    /// This connection's id, for KILL.
    pub thread_id: u32,
    /// Everything the server offered, not masked.
    pub capabilities: Capabilities,
    /// Default collation's id (low byte).
    pub charset: u8,
    /// MariaDB rather than MySQL.
    pub mariadb: bool,
    /// Major × 10000 + minor × 100 + patch: 101119, 90704; 0 if unreadable.
    pub version_number: u32,
}

impl ServerInfo {
    fn of(greeting: &Greeting) -> ServerInfo {
        ServerInfo {
            version: greeting.version.clone(),
            thread_id: greeting.thread_id,
            capabilities: greeting.capabilities,
            charset: greeting.charset,
            mariadb: greeting.is_mariadb(),
            version_number: version_number(&greeting.version),
        }
    }
}

/// Major × 10000 + minor × 100 + patch of a version string; MariaDB's
/// replication prefix `5.5.5-` is skipped. 0 if there is no number.
pub fn version_number(version: &[u8]) -> u32 {
    let text = version.strip_prefix(b"5.5.5-").unwrap_or(version);
    let mut parts = [0u32; 3];
    let numbers = text.split(|b| !b.is_ascii_digit());
    for (part, digits) in parts.iter_mut().zip(numbers) {
        for d in digits.iter().take(4) {
            *part = *part * 10 + u32::from(d - b'0');
        }
    }
    let [major, minor, patch] = parts;
    major * 10_000 + minor * 100 + patch
}

/// A connection whose greeting has been read and to which nothing has been
/// sent yet.
pub struct Opened {
    /// Which backend.
    pub side: Side,
    /// The greeting as it was parsed.
    pub greeting: Greeting,
    pub(crate) stream: Stream,
    /// Sequence id of the next packet to send.
    pub(crate) seq: u8,
    /// TLS that may be used here; which, [`Opened::protect`] decides.
    possible: Option<Possible>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

struct Possible {
    tls: Arc<LegTls>,
    name: ServerName<'static>,
    mode: TlsMode,
}

/// A leg that is logged in and idle.
pub struct Authenticated {
    /// Which backend.
    pub side: Side,
    /// Its bytes. Nothing has been read past the login's OK.
    pub stream: Stream,
    /// What it said about itself.
    pub info: ServerInfo,
    /// The greeting's nonce; a later COM_CHANGE_USER may be answered with it.
    pub nonce: [u8; NONCE_LEN],
    /// Negotiated on this leg.
    pub capabilities: Capabilities,
    /// Largest packet announced to the server, in bytes.
    pub max_packet: u32,
    /// From the login's OK.
    pub status: Status,
    /// The login's OK payload as it came.
    pub ok: Vec<u8>,
}

/// Connects and reads the greeting, within `limit` in all. `visitor` is the
/// client it is for; None: the proxy itself.
///
/// Errors: [`LegError::Refused`] with `at_greeting` when the server answers
/// with an ERR (too many connections, host blocked), otherwise `Connect`,
/// `Timeout`, `Protocol`, `Io`, or `Tls` when TLS is required and not offered.
pub async fn open(
    backend: &BackendConfig,
    limit: Duration,
    visitor: Option<&Visitor>,
) -> Result<Opened, LegError> {
    let side = backend.side;
    match tokio::time::timeout(limit, open_now(backend, visitor)).await {
        Ok(result) => result,
        Err(_) => Err(LegError::Timeout {
            side,
            what: "connecting",
        }),
    }
}

async fn open_now(backend: &BackendConfig, visitor: Option<&Visitor>) -> Result<Opened, LegError> {
    let side = backend.side;
    let connected = TcpStream::connect(backend.address.as_str()).await;
    let mut stream = connected
        .and_then(Stream::plain)
        .map_err(|source| LegError::Connect { side, source })?;
    if let Some(header) = visitor.and_then(|v| header(backend.announce, v)) {
        stream.write_all(&header).await.map_err(lost(side))?;
    }
    let mut seq = 0;
    let payload = read_packet(&mut stream, &mut seq)
        .await
        .map_err(lost(side))?;
    if payload.first() == Some(&0xff) {
        return Err(LegError::Refused {
            side,
            code: err_code(&payload),
            packet: payload,
            at_greeting: true,
        });
    }
    let greeting =
        Greeting::parse(&payload).map_err(|e| LegError::Protocol { side, what: e.what })?;
    let possible = tls_possible(backend, &greeting)?;
    Ok(Opened {
        side,
        greeting,
        stream,
        seq,
        possible,
        tls: None,
    })
}

/// The PROXY header for a client.
fn header(announce: Announce, visitor: &Visitor) -> Option<Vec<u8>> {
    match announce {
        Announce::No => None,
        Announce::V1 => Some(proxy_header::build_v1(visitor.peer, visitor.local)),
        Announce::V2 => Some(proxy_header::build_v2(visitor.peer, visitor.local)),
    }
}

/// The TLS this connection can or must use.
fn tls_possible(
    backend: &BackendConfig,
    greeting: &Greeting,
) -> Result<Option<Possible>, LegError> {
    let failed = |reason: &str| LegError::Tls {
        side: backend.side,
        reason: reason.to_owned(),
    };
    let offered = greeting.capabilities.has(Capabilities::SSL);
    match backend.tls {
        TlsMode::Off => return Ok(None),
        TlsMode::Preferred if !offered => return Ok(None),
        TlsMode::Required | TlsMode::Verify if !offered => {
            return Err(failed("required, and the server does not offer it"));
        }
        _ => {}
    }
    let Some(config) = &backend.tls_config else {
        return Err(failed("no TLS configuration for this backend"));
    };
    let host = host_of(&backend.address);
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_) if backend.tls == TlsMode::Verify => {
            return Err(failed("the address is not a valid host name to verify"));
        }
        // Not looked at without verification, but rustls wants one.
        Err(_) => {
            ServerName::try_from("backend.invalid").map_err(|_| failed("no usable server name"))?
        }
    };
    Ok(Some(Possible {
        tls: config.clone(),
        name,
        mode: backend.tls,
    }))
}

/// The host of `host:port` or `[v6]:port`.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
}

impl Opened {
    /// What the greeting says about the server.
    pub fn info(&self) -> ServerInfo {
        ServerInfo::of(&self.greeting)
    }

    /// Settles whether [`Opened::secure`] encrypts and with which certificate.
    /// Call it first.
    ///
    /// Under `preferred` a leg is as its client's own connection, so that the
    /// server judges accounts that REQUIRE SSL as it would without the proxy.
    /// The certificate that stands for clients with one (REQUIRE X509) is not
    /// lent to others. `own` is that of one `users:` entry.
    pub(crate) fn protect(&mut self, visitor: Option<&Visitor>, own: Option<&Arc<LegTls>>) {
        let Some(possible) = self.possible.take() else {
            return;
        };
        let wanted = visitor.is_none_or(|v| v.tls);
        if possible.mode == TlsMode::Preferred && !wanted {
            return;
        }
        let config = match own {
            Some(own) => own.config(true),
            None => possible.tls.config(visitor.is_none_or(|v| v.certified)),
        };
        self.tls = Some((config, possible.name));
    }

    /// True if [`Opened::secure`] will encrypt, or has.
    pub(crate) fn uses_tls(&self) -> bool {
        self.tls.is_some() || self.stream.is_tls()
    }

    /// Switches to TLS if [`Opened::protect`] said so. Must be called once, before the handshake response, whose capabilities,
    /// largest packet and collation it must carry as they are: a server may
    /// take them from either packet.
    pub(crate) async fn secure(
        mut self,
        capabilities: Capabilities,
        max_packet: u32,
        charset: u8,
    ) -> Result<Opened, LegError> {
        let Some((config, name)) = self.tls.take() else {
            return Ok(self);
        };
        let side = self.side;
        let request = ssl_request(capabilities.with(Capabilities::SSL), max_packet, charset);
        write_packet(&mut self.stream, &mut self.seq, &request)
            .await
            .map_err(lost(side))?;
        let Stream::Plain(socket) = self.stream else {
            return Err(LegError::Protocol {
                side,
                what: "TLS was negotiated twice",
            });
        };
        let secured = TlsConnector::from(config).connect(name, socket).await;
        self.stream = match secured {
            Ok(stream) => Stream::TlsClient(Box::new(stream)),
            Err(e) => {
                return Err(LegError::Tls {
                    side,
                    reason: e.to_string(),
                });
            }
        };
        Ok(self)
    }

    /// The finished leg, once the server has said OK.
    pub(crate) fn authenticated(
        self,
        capabilities: Capabilities,
        max_packet: u32,
        ok: Vec<u8>,
    ) -> Result<Authenticated, LegError> {
        let status = match OkPacket::parse(&ok, capabilities) {
            Ok(packet) => packet.status,
            Err(e) => {
                return Err(LegError::Protocol {
                    side: self.side,
                    what: e.what,
                });
            }
        };
        Ok(Authenticated {
            side: self.side,
            info: self.info(),
            nonce: self.greeting.nonce,
            stream: self.stream,
            capabilities,
            max_packet,
            status,
            ok,
        })
    }
}

/// The collation byte of a login of ours.
///
/// A server that does not know the collation silently takes its own default
/// character set, latin1 on many, and would misread every literal. So ids that
/// it cannot know, or that do not fit the byte, become `utf8mb4_general_ci`:
/// another collation of the same character set. The session sets the exact
/// one afterwards where the server has it.
pub(crate) fn login_charset(charset: u16, greeting: &Greeting) -> u8 {
    match u8::try_from(charset) {
        Ok(UTF8MB4_0900_AI_CI) if greeting.is_mariadb() => UTF8MB4_GENERAL_CI,
        Ok(charset) => charset,
        Err(_) => UTF8MB4_GENERAL_CI,
    }
}

/// The nonce in a switch request or a plugin's first data; None if it is
/// shorter than one.
pub(crate) fn nonce_of(data: &[u8]) -> Option<[u8; NONCE_LEN]> {
    data.get(..NONCE_LEN)?.try_into().ok()
}

impl Opened {
    pub(crate) async fn read(&mut self) -> Result<Vec<u8>, LegError> {
        read_packet(&mut self.stream, &mut self.seq)
            .await
            .map_err(lost(self.side))
    }

    pub(crate) async fn write(&mut self, payload: &[u8]) -> Result<(), LegError> {
        write_packet(&mut self.stream, &mut self.seq, payload)
            .await
            .map_err(lost(self.side))
    }
}
