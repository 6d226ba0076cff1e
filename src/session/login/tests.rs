//! Logins against a scripted home, over loopback TCP.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::auth::rsa::RsaKey;
use crate::auth::tls::{self, LegTls, TlsMode};
use crate::auth::{
    Account, AccountStore, CACHING_SHA2, Mapped, NATIVE, Secret, UserMap, caching_sha2,
};
use crate::leg::connect::{AUTH_ROUNDS_MAX, BackendConfig};
use crate::leg::grants::GrantReader;
use crate::leg::stream::read_packet;
use crate::wire::greeting::{Greeting, attribute_pairs, auth_more, auth_switch};
use crate::wire::status::Status;

const NONCE: [u8; NONCE_LEN] = *b"abcdefghijklmnopqrst";

type Any = Box<dyn std::error::Error + Send + Sync>;

/// One scripted connection of home.
struct Home {
    stream: Stream,
    seq: u8,
}

impl Home {
    async fn send(&mut self, payload: &[u8]) -> Result<(), Any> {
        Ok(write_packet(&mut self.stream, &mut self.seq, payload).await?)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Any> {
        Ok(read_packet(&mut self.stream, &mut self.seq).await?)
    }

    async fn greet(&mut self, plugin: &[u8]) -> Result<HandshakeResponse, Any> {
        self.send(&greeting(plugin).build()).await?;
        Ok(HandshakeResponse::parse(&self.receive().await?)?)
    }
}

fn greeting(plugin: &[u8]) -> Greeting {
    Greeting {
        protocol: 10,
        version: b"9.7.0-scripted".to_vec(),
        thread_id: 4711,
        nonce: NONCE,
        capabilities: Capabilities(0xffff_ffff).without(Capabilities::SSL),
        charset: 45,
        status: Status::AUTOCOMMIT,
        auth_plugin: plugin.to_vec(),
    }
}

async fn home() -> Result<(TcpListener, String), Any> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    Ok((listener, address))
}

async fn accept(listener: &TcpListener) -> Result<Home, Any> {
    let (socket, _) = listener.accept().await?;
    Ok(Home {
        stream: Stream::plain(socket)?,
        seq: 0,
    })
}

fn context(
    home: &str,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
) -> Result<Arc<LoginContext>, Any> {
    let backend = |side| BackendConfig {
        side,
        address: home.to_owned(),
        tls: TlsMode::Off,
        tls_config: None,
        announce: Announce::No,
    };
    let account = |user: &str| Account::new(user.into(), Secret::new(b"pw".to_vec()));
    let reader = |side| GrantReader::new(backend(side), account("service"));
    let mut users = UserMap::new();
    let mapped = Mapped {
        account: account("inner"),
        certificate: None,
    };
    users.insert(b"mapped".to_vec(), Side::Source, mapped);
    Ok(Arc::new(LoginContext {
        mariadb_bulk: false,
        backends: [backend(Side::Source), backend(Side::Target)],
        tls,
        client_certs: ClientCertificates::Ignored,
        proxied_by: Vec::new(),
        accounts: Arc::new(AccountStore::new()),
        users: Arc::new(users),
        rsa: Arc::new(RsaKey::generate()?),
        grants: [reader(Side::Source), reader(Side::Target)],
        seen: SeenCapabilities::default(),
        login_timeout: Duration::from_secs(2),
        registry: Arc::default(),
        instance: "instance-1".to_owned(),
    }))
}

type Outcome = JoinHandle<Result<LoggedIn, LoginEnd>>;

/// A client connected to a proxy that is logging it in.
async fn client(ctx: &Arc<LoginContext>) -> Result<(Stream, Outcome), Any> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    let (accepted, peer) = listener.accept().await?;
    let ctx = ctx.clone();
    let outcome = tokio::spawn(async move { login(accepted, peer, &ctx, Side::Source).await });
    Ok((Stream::plain(socket)?, outcome))
}

fn response(user: &str, plugin: &[u8], answer: &[u8]) -> HandshakeResponse {
    let capabilities = Capabilities::PROTOCOL_41
        | Capabilities::LONG_PASSWORD
        | Capabilities::SECURE_CONNECTION
        | Capabilities::PLUGIN_AUTH
        | Capabilities::TRANSACTIONS;
    HandshakeResponse {
        capabilities,
        max_packet: 1 << 24,
        charset: 45,
        user: user.into(),
        auth_response: answer.to_vec(),
        database: Some(b"app".to_vec()),
        auth_plugin: Some(plugin.to_vec()),
        connect_attrs: None,
        zstd_level: None,
    }
}

/// An OK with a session state block.
fn ok_with_state() -> Vec<u8> {
    let mut packet = OkPacket::new(Status::AUTOCOMMIT);
    packet.session_state = Some(b"\x01\x04\x03app");
    packet.build(Capabilities::SESSION_TRACK | Capabilities::PROTOCOL_41)
}

fn kind(outcome: Result<LoggedIn, LoginEnd>) -> &'static str {
    match outcome {
        Ok(_) => "logged in",
        Err(end) => end.kind(),
    }
}

#[tokio::test]
async fn homes_refusal_instead_of_a_greeting_is_passed_on() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let ctx = context(&address, None)?;
    let (mut client, outcome) = client(&ctx).await?;
    let refusal = b"\xff\x10\x04Too many connections";
    accept(&listener).await?.send(refusal).await?;
    let mut seq = 9;
    assert_eq!(read_packet(&mut client, &mut seq).await?, refusal);
    assert_eq!(seq, 1);
    assert_eq!(kind(outcome.await?), "refused");
    Ok(())
}

#[tokio::test]
async fn an_unreachable_home_looks_like_a_server_that_shuts_down() -> Result<(), Any> {
    let (listener, address) = home().await?;
    drop(listener);
    let ctx = context(&address, None)?;
    let (mut client, outcome) = client(&ctx).await?;
    let told = read_packet(&mut client, &mut 0).await?;
    assert_eq!(ErrPacket::parse(&told)?.code, ER_SERVER_SHUTDOWN);
    assert_eq!(kind(outcome.await?), "connect");
    Ok(())
}

#[tokio::test]
async fn a_login_is_relayed_and_the_answers_fitted_to_each_side() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let ctx = context(&address, None)?;
    let (mut client, outcome) = client(&ctx).await?;
    let script = tokio::spawn(async move {
        let mut home = accept(&listener).await?;
        let got = home.greet(CACHING_SHA2).await?;
        home.send(&auth_switch(b"strange_plugin", b"question"))
            .await?;
        assert_eq!(home.receive().await?, b"answer");
        assert_eq!(home.seq, 4);
        home.send(&ok_with_state()).await?;
        Ok::<_, Any>(got)
    });
    let mut seq = 0;
    let greeted = Greeting::parse(&read_packet(&mut client, &mut seq).await?)?;
    assert_eq!(greeted.version, b"9.7.0-scripted");
    assert_eq!((greeted.thread_id, greeted.nonce), (4711, NONCE));
    assert!(!greeted.capabilities.has(Capabilities::COMPRESS));
    assert!(!greeted.capabilities.has(Capabilities::SSL));
    let mine = response("app", CACHING_SHA2, &[7; 32]);
    write_packet(&mut client, &mut seq, &mine.build()).await?;
    let switch = read_packet(&mut client, &mut seq).await?;
    assert_eq!(switch, auth_switch(b"strange_plugin", b"question"));
    write_packet(&mut client, &mut seq, b"answer").await?;
    let ok = read_packet(&mut client, &mut seq).await?;
    assert_eq!(
        ok,
        OkPacket::new(Status::AUTOCOMMIT).build(mine.capabilities)
    );
    assert_eq!(seq, 5);

    let got = script.await??;
    assert_eq!(got.user, mine.user);
    assert_eq!(got.auth_response, mine.auth_response);
    assert_eq!(got.database, mine.database);
    assert!(got.capabilities.has(Capabilities::SESSION_TRACK));
    let attrs = got.connect_attrs.unwrap_or_default();
    let pair = attribute_pairs(&attrs).next();
    assert_eq!(pair, Some((INSTANCE_ATTRIBUTE, &b"instance-1"[..])));

    let session = outcome.await??;
    assert!(!session.capabilities.has(Capabilities::SESSION_TRACK));
    assert!(session.home.capabilities.has(Capabilities::SESSION_TRACK));
    assert_eq!(session.greeted_id, 4711);
    assert!(ctx.accounts.is_empty(), "nothing to learn from it");
    Ok(())
}

#[tokio::test]
async fn homes_error_is_passed_on_as_it_is() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let ctx = context(&address, None)?;
    let (mut client, outcome) = client(&ctx).await?;
    let denied = b"\xff\x15\x04#28000Access denied, in home's own words";
    let script = tokio::spawn(async move {
        let mut home = accept(&listener).await?;
        home.greet(NATIVE).await?;
        home.send(denied).await
    });
    let mut seq = 0;
    read_packet(&mut client, &mut seq).await?;
    let mine = response("app", NATIVE, &[7; 20]);
    write_packet(&mut client, &mut seq, &mine.build()).await?;
    assert_eq!(read_packet(&mut client, &mut seq).await?, denied);
    assert_eq!(kind(outcome.await?), "refused");
    assert!(ctx.accounts.is_empty());
    script.await?
}

#[tokio::test]
async fn an_endless_conversation_ends() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let ctx = context(&address, None)?;
    let (mut client, outcome) = client(&ctx).await?;
    let script = tokio::spawn(async move {
        let mut home = accept(&listener).await?;
        home.greet(NATIVE).await?;
        for _ in 0..AUTH_ROUNDS_MAX {
            home.send(&auth_switch(b"strange_plugin", b"again")).await?;
            home.receive().await?;
        }
        Ok::<_, Any>(())
    });
    let mut seq = 0;
    read_packet(&mut client, &mut seq).await?;
    let mine = response("app", NATIVE, &[7; 20]);
    write_packet(&mut client, &mut seq, &mine.build()).await?;
    loop {
        let packet = read_packet(&mut client, &mut seq).await?;
        if packet.first() == Some(&0xff) {
            assert_eq!(ErrPacket::parse(&packet)?.code, ER_SERVER_SHUTDOWN);
            break;
        }
        write_packet(&mut client, &mut seq, b"answer").await?;
    }
    assert_eq!(kind(outcome.await?), "protocol");
    script.await?
}

/// A client that never answers (a health check, a port scan).
#[tokio::test]
async fn home_is_left_in_good_order() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let ctx = context(&address, None)?;
    let (silent, outcome) = client(&ctx).await?;
    let script = tokio::spawn(async move {
        let mut home = accept(&listener).await?;
        let got = home.greet(CACHING_SHA2).await?;
        home.send(&auth_more(&[caching_sha2::FAST_OK])).await?;
        home.send(&ok_with_state()).await?;
        assert_eq!(home.receive().await?, [COM_QUIT]);
        Ok::<_, Any>(got)
    });
    drop(silent);
    assert_eq!(kind(outcome.await?), "gone");
    assert_eq!(script.await??.user, b"service");
    Ok(())
}

#[tokio::test]
async fn a_client_of_the_old_protocol_is_told_so() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let ctx = context(&address, None)?;
    let (mut client, outcome) = client(&ctx).await?;
    let mut home = accept(&listener).await?;
    home.send(&greeting(NATIVE).build()).await?;
    let mut seq = 0;
    read_packet(&mut client, &mut seq).await?;
    write_packet(&mut client, &mut seq, b"\x05\x00\x00\x00\x00app\0").await?;
    let told = read_packet(&mut client, &mut seq).await?;
    assert_eq!(ErrPacket::parse(&told)?.code, ER_HANDSHAKE);
    drop(home);
    assert_eq!(kind(outcome.await?), "protocol");
    Ok(())
}

/// Home knows the account and would not ask for the password; we do, because
/// over TLS we may, and the other leg needs it.
#[tokio::test]
async fn over_tls_the_first_login_teaches_the_password() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let dir = std::env::temp_dir().join(format!("lockstep-login-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let shown = tls::server_config(&tls::self_signed(&dir)?, None)?;
    let ctx = context(&address, Some(Arc::new(ArcSwap::new(shown))))?;
    std::fs::remove_dir_all(&dir)?;
    let (client, outcome) = client(&ctx).await?;
    let script = tokio::spawn(async move {
        let mut home = accept(&listener).await?;
        home.greet(CACHING_SHA2).await?;
        home.send(&auth_more(&[caching_sha2::FAST_OK])).await?;
        home.send(&ok_with_state()).await
    });
    let mut seq = 0;
    let mut client = client;
    read_packet(&mut client, &mut seq).await?;
    let secret = Secret::new(b"secret".to_vec());
    let mut mine = response(
        "app",
        CACHING_SHA2,
        &caching_sha2::scramble(&secret, &NONCE),
    );
    mine.capabilities = mine.capabilities.with(Capabilities::SSL);
    let request = crate::wire::greeting::ssl_request(mine.capabilities, 1 << 24, 45);
    write_packet(&mut client, &mut seq, &request).await?;
    let Stream::Plain(socket) = client else {
        return Err("not plain".into());
    };
    let config = LegTls::load(TlsMode::Required, None, None)?.ok_or("no TLS")?;
    let config = config.config(false);
    let connector = tokio_rustls::TlsConnector::from(config);
    let mut client = connector.connect("localhost".try_into()?, socket).await?;
    write_packet(&mut client, &mut seq, &mine.build()).await?;
    let asked = read_packet(&mut client, &mut seq).await?;
    assert_eq!(asked, auth_more(&[caching_sha2::FULL]));
    write_packet(&mut client, &mut seq, b"secret\0").await?;
    let ok = read_packet(&mut client, &mut seq).await?;
    assert_eq!(ok.first(), Some(&0));
    script.await??;
    assert!(outcome.await??.client.is_tls());
    let learned = ctx.accounts.get(b"app");
    assert!(learned == Some(Account::new(b"app".to_vec(), secret)));
    Ok(())
}

#[tokio::test]
async fn a_mapped_user_is_judged_here() -> Result<(), Any> {
    let (listener, address) = home().await?;
    let ctx = context(&address, None)?;
    for (password, expected) in [("wrong", "denied"), ("pw", "logged in")] {
        let (mut client, outcome) = client(&ctx).await?;
        let mut home = accept(&listener).await?;
        let script = tokio::spawn(async move {
            let got = home.greet(CACHING_SHA2).await?;
            home.send(&ok_with_state()).await?;
            Ok::<_, Any>(got.user)
        });
        let mut seq = 0;
        read_packet(&mut client, &mut seq).await?;
        let secret = Secret::new(password.into());
        let mine = response(
            "mapped",
            CACHING_SHA2,
            &caching_sha2::scramble(&secret, &NONCE),
        );
        write_packet(&mut client, &mut seq, &mine.build()).await?;
        let first = read_packet(&mut client, &mut seq).await?;
        if expected == "denied" {
            let told = ErrPacket::parse(&first)?;
            assert_eq!(told.code, ER_ACCESS_DENIED);
            let text = b"Access denied for user 'mapped'@'127.0.0.1' (using password: YES)";
            assert_eq!(told.message, text);
            assert_eq!(script.await??, b"service", "left in good order");
        } else {
            assert_eq!(first, auth_more(&[caching_sha2::FAST_OK]));
            let ok = read_packet(&mut client, &mut seq).await?;
            assert_eq!(ok.first(), Some(&0));
            assert_eq!(script.await??, b"inner");
        }
        assert_eq!(kind(outcome.await?), expected);
    }
    Ok(())
}
