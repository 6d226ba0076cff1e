//! A login with credentials we hold, as an ordinary client does it.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{
    AUTH_ROUNDS_MAX, Authenticated, LegError, Opened, Visitor, login_charset, lost, nonce_of,
};
use crate::Side;
use crate::auth::tls::LegTls;
use crate::auth::{
    Account, CACHING_SHA2, CLEAR, ED25519, NATIVE, NONCE_LEN, PARSEC, SHA256, Secret, caching_sha2,
    ed25519, parsec, rsa,
};
use crate::leg::stream::{Stream, read_packet, write_packet};
use crate::wire::capability::Capabilities;
use crate::wire::greeting::{AuthReply, HandshakeResponse};

/// Time for one login with credentials we hold, from the greeting to the
/// verdict: MySQL's own `connect_timeout`.
pub const BACKEND_LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The session parameters of a login with credentials we hold.
#[derive(Clone, Default)]
pub struct LoginParams {
    /// Wanted capabilities; what the server lacks is left out, what the
    /// protocol needs is added.
    pub capabilities: Capabilities,
    /// Collation id. A login can carry one byte of it, and each family has
    /// collations of its own: where the server cannot take it, it is replaced
    /// by another of utf8mb4, and the session sets its own afterwards.
    pub charset: u16,
    /// Largest packet, in bytes, as the client announced it.
    pub max_packet: u32,
    /// Initial database.
    pub database: Option<Vec<u8>>,
    /// Raw content of the attribute block.
    pub connect_attrs: Vec<u8>,
    /// The client it is for; None: the proxy itself.
    pub visitor: Option<Visitor>,
    /// Certificate of its own that the account's `users:` entry names.
    pub certificate: Option<Arc<LegTls>>,
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
/// over TLS or with the server's RSA key), `sha256_password`, MariaDB's
/// `client_ed25519` and `parsec`, and `mysql_clear_password` over TLS only.
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
    mut opened: Opened,
    account: &Account,
    params: &LoginParams,
) -> Result<Authenticated, LegError> {
    let side = opened.side;
    opened.protect(params.visitor.as_ref(), params.certificate.as_ref());
    let tls = opened.uses_tls();
    let caps = own_capabilities(opened.greeting.capabilities, params, tls);
    let charset = login_charset(params.charset, &opened.greeting);
    let mut opened = opened.secure(caps, params.max_packet, charset).await?;
    let mut plugin = first_plugin(account, &opened.greeting.auth_plugin).to_vec();
    let mut challenge = Challenge::of(&opened.greeting.nonce);
    let nonce = challenge.nonce;
    let response = HandshakeResponse {
        capabilities: caps,
        max_packet: params.max_packet,
        charset,
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
        let reply = match AuthReply::parse(&packet) {
            // The first servers with this plugin left the marking byte out.
            Err(_) if plugin == PARSEC => AuthReply::More(&packet),
            reply => reply.map_err(|e| LegError::Protocol { side, what: e.what })?,
        };
        match reply {
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
                challenge = challenge.next(data);
                let answer = own_answer(side, account, &plugin, &challenge, tls)?;
                opened.write(&answer).await?;
            }
            AuthReply::More(data) => {
                opened.more(data, account, &plugin, &challenge).await?;
            }
        }
    }
    Err(LegError::Protocol {
        side,
        what: "the authentication does not end",
    })
}

/// The plugin to answer the greeting with: the server's default if we can.
fn first_plugin<'a>(account: &Account, offered: &'a [u8]) -> &'a [u8] {
    match account {
        Account::NativeStage1 { .. } => NATIVE,
        _ if offered == NATIVE || offered == CACHING_SHA2 => offered,
        _ => CACHING_SHA2,
    }
}

/// What a server wants answered: the nonce of the greeting or of its last
/// switch request.
struct Challenge {
    /// As most plugins use it.
    nonce: [u8; NONCE_LEN],
    /// As the newer ones use it; zeroes where the server sent fewer bytes.
    long: [u8; LONG_NONCE],
}

/// Bytes of the nonces of `client_ed25519` and `parsec`.
const LONG_NONCE: usize = 32;
const _: () = assert!(LONG_NONCE == ed25519::ED25519_NONCE_LEN);
const _: () = assert!(LONG_NONCE == parsec::PARSEC_NONCE_LEN);

impl Challenge {
    fn of(nonce: &[u8; NONCE_LEN]) -> Challenge {
        Challenge {
            nonce: *nonce,
            long: [0; LONG_NONCE],
        }
    }

    /// That of a switch request, whose data may be empty: the nonce then stays.
    fn next(&self, data: &[u8]) -> Challenge {
        let mut long = [0; LONG_NONCE];
        for (to, from) in long.iter_mut().zip(data) {
            *to = *from;
        }
        Challenge {
            nonce: nonce_of(data).unwrap_or(self.nonce),
            long,
        }
    }
}

/// Our answer to a switch request.
fn own_answer(
    side: Side,
    account: &Account,
    plugin: &[u8],
    challenge: &Challenge,
    tls: bool,
) -> Result<Zeroizing<Vec<u8>>, LegError> {
    let missing = |why| LegError::Credentials { side, why };
    if let Some(answer) = account.answer(plugin, &challenge.nonce) {
        return Ok(Zeroizing::new(answer));
    }
    let password = account
        .password()
        .ok_or_else(|| missing("its plugin needs the password, and only a hash is known"))?;
    let clear = caching_sha2::to_clear(&password).expose().to_vec();
    match plugin {
        p if p == SHA256 && tls => Ok(Zeroizing::new(clear)),
        p if p == SHA256 => Ok(Zeroizing::new(vec![caching_sha2::REQUEST_KEY_SHA256])),
        p if p == ED25519 => Ok(Zeroizing::new(
            ed25519::sign(&password, &challenge.long).to_vec(),
        )),
        // Asks for the account's salt.
        p if p == PARSEC => Ok(Zeroizing::new(Vec::new())),
        p if p == CLEAR && tls => Ok(Zeroizing::new(clear)),
        p if p == CLEAR => Err(missing("it asks for the clear password without TLS")),
        _ => Err(missing("its authentication plugin is not supported")),
    }
}

impl Opened {
    /// A plugin's "more" data, answered with credentials we hold.
    async fn more(
        &mut self,
        data: &[u8],
        account: &Account,
        plugin: &[u8],
        challenge: &Challenge,
    ) -> Result<(), LegError> {
        let side = self.side;
        let nonce = &challenge.nonce;
        if plugin == CACHING_SHA2 && data == [caching_sha2::FAST_OK] {
            return Ok(());
        }
        let password = account.password().ok_or(LegError::Credentials {
            side,
            why: "it asks for the password, and only a hash is known",
        })?;
        if plugin == CACHING_SHA2 && data == [caching_sha2::FULL] {
            return send_password(
                &mut self.stream,
                &mut self.seq,
                side,
                &password,
                nonce,
                caching_sha2::REQUEST_KEY,
            )
            .await;
        }
        if plugin == PARSEC {
            let answer = parsec_answer(side, data, password, challenge.long).await?;
            return self.write(&answer).await;
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

/// The answer to an ext-salt, worked out off the thread that relays.
async fn parsec_answer(
    side: Side,
    data: &[u8],
    password: Secret,
    nonce: [u8; LONG_NONCE],
) -> Result<Vec<u8>, LegError> {
    let data = data.to_vec();
    let work = move || {
        let ext = parsec::ExtSalt::parse(&data)?;
        parsec::answer(&password, &ext, &nonce)
    };
    let answer = tokio::task::spawn_blocking(work).await;
    answer.ok().flatten().ok_or(LegError::Protocol {
        side,
        what: "unusable salt of the parsec plugin",
    })
}

/// Sends the password for a full `caching_sha2_password` authentication, or for
/// `sha256_password`: as it is over TLS, otherwise encrypted with the server's
/// RSA key, asked for here by the plugin's own request.
pub(crate) async fn send_password(
    stream: &mut Stream,
    seq: &mut u8,
    side: Side,
    password: &Secret,
    nonce: &[u8; NONCE_LEN],
    request_key: u8,
) -> Result<(), LegError> {
    if stream.is_tls() {
        let clear = caching_sha2::to_clear(password);
        return write_packet(stream, seq, clear.expose())
            .await
            .map_err(lost(side));
    }
    write_packet(stream, seq, &[request_key])
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

/// A password under a server's RSA key.
pub(crate) fn encrypted(
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
