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

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::stream::{Stream, read_packet, write_packet};
use crate::Side;
use crate::auth::{
    Account, CACHING_SHA2, CLEAR, NATIVE, NONCE_LEN, SHA256, Secret, caching_sha2, rsa,
};
use crate::wire::capability::Capabilities;
use crate::wire::greeting::{AuthReply, Greeting, HandshakeResponse, ssl_request};
use crate::wire::ok::{ErrPacket, OkPacket};
use crate::wire::status::Status;

pub use crate::auth::tls::TlsMode;

/// Most packets a server may send in one authentication. The longest known
/// exchange (switch, full authentication, key, verdict) takes four; PAM
/// conversations ask one question a round.
pub const AUTH_ROUNDS_MAX: usize = 16;

/// Time for one login with credentials we hold, from the greeting to the
/// verdict: MySQL's own `connect_timeout`.
pub const BACKEND_LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// From [`crate::auth::tls::client_config`]; None with [`TlsMode::Off`].
    pub tls_config: Option<Arc<ClientConfig>>,
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

/// Why a leg could not be opened. The backend is at fault unless the kind says
/// otherwise.
#[derive(Debug, thiserror::Error)]
pub enum LegError {
    /// TCP could not be connected.
    #[error("{side}: cannot connect: {source}")]
    Connect {
        /// Which backend.
        side: Side,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{side}: timed out {what}")]
    Timeout {
        /// Which backend.
        side: Side,
        /// What we were waiting for.
        what: &'static str,
    },
    /// The server said no.
    #[error("{side}: refused with error {code}")]
    Refused {
        /// Which backend.
        side: Side,
        /// The server's error number.
        code: u16,
        /// The ERR packet's payload as it came.
        packet: Vec<u8>,
        /// True if it came instead of the greeting.
        at_greeting: bool,
    },
    /// The server's bytes are not the protocol.
    #[error("{side}: {what}")]
    Protocol {
        /// Which backend.
        side: Side,
        /// What was wrong.
        what: &'static str,
    },
    /// TLS is required and not offered, or its handshake failed.
    #[error("{side}: TLS: {reason}")]
    Tls {
        /// Which backend.
        side: Side,
        /// Why.
        reason: String,
    },
    /// The connection broke.
    #[error("{side}: connection lost during login: {source}")]
    Io {
        /// Which backend.
        side: Side,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy does not hold what this server's plugin asks for.
    #[error("{side}: cannot log in: {why}")]
    Credentials {
        /// Which backend.
        side: Side,
        /// What is missing.
        why: &'static str,
    },
}

impl LegError {
    /// Which backend it was.
    pub fn side(&self) -> Side {
        match self {
            LegError::Connect { side, .. }
            | LegError::Timeout { side, .. }
            | LegError::Refused { side, .. }
            | LegError::Protocol { side, .. }
            | LegError::Tls { side, .. }
            | LegError::Io { side, .. }
            | LegError::Credentials { side, .. } => *side,
        }
    }

    /// A metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            LegError::Connect { .. } => "connect",
            LegError::Timeout { .. } => "timeout",
            LegError::Refused { .. } => "refused",
            LegError::Protocol { .. } => "protocol",
            LegError::Tls { .. } => "tls",
            LegError::Io { .. } => "io",
            LegError::Credentials { .. } => "credentials",
        }
    }

    /// The refusal in an ERR payload that came after the greeting.
    pub(crate) fn refused(side: Side, packet: Vec<u8>) -> LegError {
        let code = err_code(&packet);
        LegError::Refused {
            side,
            code,
            packet,
            at_greeting: false,
        }
    }
}

/// The error number of an ERR payload; 0 if it is cut short.
pub(crate) fn err_code(packet: &[u8]) -> u16 {
    match packet {
        [0xff, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    }
}

/// Maps a broken connection to this side's error.
pub(crate) fn lost(side: Side) -> impl Fn(io::Error) -> LegError {
    move |source| LegError::Io { side, source }
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
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
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

/// The session parameters of a login with credentials we hold.
#[derive(Clone, Default)]
pub struct LoginParams {
    /// Wanted capabilities; what the server lacks is left out, what the
    /// protocol needs is added.
    pub capabilities: Capabilities,
    /// Collation id. A login can carry one byte of it: with a larger id the
    /// server's default is asked for, and the session sets its own afterwards.
    pub charset: u16,
    /// Largest packet, in bytes, as the client announced it.
    pub max_packet: u32,
    /// Initial database.
    pub database: Option<Vec<u8>>,
    /// Raw content of the attribute block.
    pub connect_attrs: Vec<u8>,
}

/// Connects and reads the greeting, within `limit` in all.
///
/// Errors: [`LegError::Refused`] with `at_greeting` when the server answers
/// with an ERR (too many connections, host blocked), otherwise `Connect`,
/// `Timeout`, `Protocol`, `Io`, or `Tls` when TLS is required and not offered.
pub async fn open(backend: &BackendConfig, limit: Duration) -> Result<Opened, LegError> {
    let side = backend.side;
    match tokio::time::timeout(limit, open_now(backend)).await {
        Ok(result) => result,
        Err(_) => Err(LegError::Timeout {
            side,
            what: "connecting",
        }),
    }
}

async fn open_now(backend: &BackendConfig) -> Result<Opened, LegError> {
    let side = backend.side;
    let connected = TcpStream::connect(backend.address.as_str()).await;
    let mut stream = connected
        .and_then(Stream::plain)
        .map_err(|source| LegError::Connect { side, source })?;
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
    let tls = tls_choice(backend, &greeting)?;
    Ok(Opened {
        side,
        greeting,
        stream,
        seq,
        tls,
    })
}

/// Whether this connection is to use TLS.
fn tls_choice(
    backend: &BackendConfig,
    greeting: &Greeting,
) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, LegError> {
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
    Ok(Some((config.clone(), name)))
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

    /// True if [`Opened::secure`] will encrypt, or has.
    pub(crate) fn uses_tls(&self) -> bool {
        self.tls.is_some() || self.stream.is_tls()
    }

    /// Switches to TLS if the backend's settings and greeting say so. Must be
    /// called once, before the handshake response, whose capabilities,
    /// largest packet and collation the request repeats.
    pub(crate) async fn secure(
        mut self,
        capabilities: Capabilities,
        max_packet: u32,
        charset: u16,
    ) -> Result<Opened, LegError> {
        let Some((config, name)) = self.tls.take() else {
            return Ok(self);
        };
        let side = self.side;
        let request = ssl_request(
            capabilities.with(Capabilities::SSL),
            max_packet,
            login_charset(charset, &self.greeting),
        );
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

/// Capabilities for a leg on which we log in ourselves.
fn own_capabilities(server: Capabilities, params: &LoginParams, tls: bool) -> Capabilities {
    let needed = Capabilities::PROTOCOL_41
        | Capabilities::SECURE_CONNECTION
        | Capabilities::PLUGIN_AUTH
        | Capabilities::PLUGIN_AUTH_LENENC
        | Capabilities::TRANSACTIONS
        | Capabilities::CONNECT_ATTRS
        | Capabilities::SESSION_TRACK;
    let mut caps = (params.capabilities | needed) & server;
    caps = caps.without(Capabilities::SSL | Capabilities::CONNECT_WITH_DB);
    if params.database.is_some() {
        caps = caps.with(Capabilities::CONNECT_WITH_DB);
    }
    if tls {
        caps = caps.with(Capabilities::SSL);
    }
    caps
}

/// Logs in as a client that holds `account`.
///
/// Implements `mysql_native_password`, `caching_sha2_password` (fast; full
/// over TLS or with the server's RSA key), `sha256_password`, and
/// `mysql_clear_password` over TLS only.
///
/// Errors: [`LegError::Refused`] with the server's ERR,
/// [`LegError::Credentials`] when the plugin needs what `account` lacks or is
/// unknown, `Timeout` after [`BACKEND_LOGIN_TIMEOUT`], and the connection's.
pub async fn login(
    opened: Opened,
    account: &Account,
    params: &LoginParams,
) -> Result<Authenticated, LegError> {
    let side = opened.side;
    let run = login_now(opened, account, params);
    match tokio::time::timeout(BACKEND_LOGIN_TIMEOUT, run).await {
        Ok(result) => result,
        Err(_) => Err(LegError::Timeout {
            side,
            what: "logging in",
        }),
    }
}

async fn login_now(
    opened: Opened,
    account: &Account,
    params: &LoginParams,
) -> Result<Authenticated, LegError> {
    let side = opened.side;
    let tls = opened.uses_tls();
    let caps = own_capabilities(opened.greeting.capabilities, params, tls);
    let mut opened = opened
        .secure(caps, params.max_packet, params.charset)
        .await?;
    let mut plugin = first_plugin(account, &opened.greeting.auth_plugin).to_vec();
    let mut nonce = opened.greeting.nonce;
    let response = HandshakeResponse {
        capabilities: caps,
        max_packet: params.max_packet,
        charset: login_charset(params.charset, &opened.greeting),
        user: account.user().to_vec(),
        auth_response: account.answer(&plugin, &nonce).unwrap_or_default(),
        database: params.database.clone(),
        auth_plugin: Some(plugin.clone()),
        connect_attrs: Some(params.connect_attrs.clone()),
        zstd_level: None,
    };
    write_packet(&mut opened.stream, &mut opened.seq, &response.build())
        .await
        .map_err(lost(side))?;
    for _ in 0..AUTH_ROUNDS_MAX {
        let packet = opened.read().await?;
        match AuthReply::parse(&packet).map_err(|e| LegError::Protocol { side, what: e.what })? {
            AuthReply::Ok(_) => return opened.authenticated(caps, params.max_packet, packet),
            AuthReply::Err(_) => return Err(LegError::refused(side, packet)),
            AuthReply::OldSwitch => {
                return Err(LegError::Credentials {
                    side,
                    why: "the account uses the pre-4.1 password hash",
                });
            }
            AuthReply::Switch { plugin: to, data } => {
                plugin = to.to_vec();
                nonce = nonce_of(data).unwrap_or(nonce);
                let answer = own_answer(side, account, &plugin, &nonce, tls)?;
                opened.write(&answer).await?;
            }
            AuthReply::More(data) => {
                opened.more(data, account, &plugin, &nonce).await?;
            }
        }
    }
    Err(LegError::Protocol {
        side,
        what: "the authentication does not end",
    })
}

/// The collation byte of a login.
pub(crate) fn login_charset(charset: u16, greeting: &Greeting) -> u8 {
    u8::try_from(charset).unwrap_or(greeting.charset)
}

/// The plugin to answer the greeting with: the server's default if we can.
fn first_plugin<'a>(account: &Account, offered: &'a [u8]) -> &'a [u8] {
    match account {
        Account::NativeStage1 { .. } => NATIVE,
        _ if offered == NATIVE || offered == CACHING_SHA2 => offered,
        _ => CACHING_SHA2,
    }
}

/// The nonce in a switch request or a plugin's first data; None if it is
/// shorter than one.
pub(crate) fn nonce_of(data: &[u8]) -> Option<[u8; NONCE_LEN]> {
    data.get(..NONCE_LEN)?.try_into().ok()
}

/// Our answer to a switch request.
fn own_answer(
    side: Side,
    account: &Account,
    plugin: &[u8],
    nonce: &[u8; NONCE_LEN],
    tls: bool,
) -> Result<Zeroizing<Vec<u8>>, LegError> {
    let missing = |why| LegError::Credentials { side, why };
    if let Some(answer) = account.answer(plugin, nonce) {
        return Ok(Zeroizing::new(answer));
    }
    let password = account
        .password()
        .ok_or_else(|| missing("its plugin needs the password, and only a hash is known"))?;
    let clear = caching_sha2::to_clear(&password).expose().to_vec();
    match plugin {
        p if p == SHA256 && tls => Ok(Zeroizing::new(clear)),
        p if p == SHA256 => Ok(Zeroizing::new(vec![caching_sha2::REQUEST_KEY_SHA256])),
        p if p == CLEAR && tls => Ok(Zeroizing::new(clear)),
        p if p == CLEAR => Err(missing("it asks for the clear password without TLS")),
        _ => Err(missing("its authentication plugin is not supported")),
    }
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

    /// A plugin's "more" data, answered with credentials we hold.
    async fn more(
        &mut self,
        data: &[u8],
        account: &Account,
        plugin: &[u8],
        nonce: &[u8; NONCE_LEN],
    ) -> Result<(), LegError> {
        let side = self.side;
        if plugin == CACHING_SHA2 && data == [caching_sha2::FAST_OK] {
            return Ok(());
        }
        let password = account.password().ok_or(LegError::Credentials {
            side,
            why: "it asks for the password, and only a hash is known",
        })?;
        if plugin == CACHING_SHA2 && data == [caching_sha2::FULL] {
            return send_password(&mut self.stream, &mut self.seq, side, &password, nonce).await;
        }
        if plugin == SHA256 {
            let cipher = encrypted(side, data, &password, nonce)?;
            return self.write(&cipher).await;
        }
        Err(LegError::Protocol {
            side,
            what: "unexpected data from an authentication plugin",
        })
    }
}

/// Sends the password for a full `caching_sha2_password` authentication: as it
/// is over TLS, otherwise encrypted with the server's RSA key, asked for here.
pub(crate) async fn send_password(
    stream: &mut Stream,
    seq: &mut u8,
    side: Side,
    password: &Secret,
    nonce: &[u8; NONCE_LEN],
) -> Result<(), LegError> {
    if stream.is_tls() {
        let clear = caching_sha2::to_clear(password);
        return write_packet(stream, seq, clear.expose())
            .await
            .map_err(lost(side));
    }
    write_packet(stream, seq, &[caching_sha2::REQUEST_KEY])
        .await
        .map_err(lost(side))?;
    let packet = read_packet(stream, seq).await.map_err(lost(side))?;
    let key = match AuthReply::parse(&packet) {
        Ok(AuthReply::More(key)) => key,
        Ok(AuthReply::Err(_)) => return Err(LegError::refused(side, packet)),
        _ => {
            return Err(LegError::Protocol {
                side,
                what: "no public key in answer to our request",
            });
        }
    };
    let cipher = encrypted(side, key, password, nonce)?;
    write_packet(stream, seq, &cipher).await.map_err(lost(side))
}

fn encrypted(
    side: Side,
    public_pem: &[u8],
    password: &Secret,
    nonce: &[u8; NONCE_LEN],
) -> Result<Vec<u8>, LegError> {
    rsa::encrypt(public_pem, password, nonce).map_err(|e| match e {
        rsa::RsaError::PublicKey => LegError::Protocol {
            side,
            what: "unreadable RSA public key",
        },
        _ => LegError::Credentials {
            side,
            why: "the password is too long for the server's RSA key",
        },
    })
}

/// The parsed ERR of a refusal, for logs and status pages.
pub fn err_message(packet: &[u8]) -> Option<String> {
    let parsed = ErrPacket::parse(packet).ok()?;
    Some(String::from_utf8_lossy(parsed.message).into_owned())
}
