//! A client that logs in and keeps every packet it is sent, with what differs
//! from login to login (nonces, keys) made alike.

use lockstep::auth::tls::{LegTls, Pair, TlsMode};
use lockstep::auth::{
    CACHING_SHA2, CLEAR, ED25519, NATIVE, NONCE_LEN, SHA256, Secret, caching_sha2, ed25519, native,
    rsa,
};
use lockstep::wire::capability::Capabilities;
use lockstep::wire::command::COM_QUERY;
use lockstep::wire::frame;
use lockstep::wire::greeting::{AuthReply, ChangeUser, Greeting, HandshakeResponse, ssl_request};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any login takes on a busy machine, shorter than a test.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// utf8mb4_general_ci, which both families know.
const CHARSET: u8 = 45;
/// Packets of one exchange; the longest known has five.
const ROUNDS: usize = 16;

trait Bytes: Read + Write + Send {}
impl<T: Read + Write + Send> Bytes for T {}

/// Who logs in, and how.
#[derive(Clone, Debug)]
pub struct Client {
    pub user: &'static str,
    pub password: &'static str,
    pub database: Option<&'static str>,
    pub tls: bool,
    /// The certificate it shows.
    pub certificate: Option<Pair>,
    /// The plugin it answers the greeting with; None: the greeting's.
    pub plugin: Option<&'static [u8]>,
    /// It understands that its password has expired.
    pub expired: bool,
    /// It asks for the server's RSA key where it has no TLS.
    pub asks_key: bool,
    /// A PROXY header to begin with.
    pub header: Vec<u8>,
    /// The local address it connects from.
    pub from: Ipv4Addr,
}

impl Client {
    pub const fn new(user: &'static str, password: &'static str, tls: bool) -> Client {
        Client {
            user,
            password,
            database: Some("shop"),
            tls,
            certificate: None,
            plugin: None,
            expired: false,
            asks_key: true,
            header: Vec::new(),
            from: Ipv4Addr::LOCALHOST,
        }
    }

    fn secret(&self) -> Secret {
        Secret::new(self.password.as_bytes().to_vec())
    }

    /// Logs in; a refusal is part of what is returned.
    pub fn log_in(&self, port: u16) -> io::Result<Dialogue> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((self.from, 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut dialogue = Dialogue {
            stream: Box::new(socket.try_clone()?),
            tls: false,
            seq: 0,
            packets: Vec::new(),
            greeting: None,
            certificate: None,
            capabilities: Capabilities::NONE,
        };
        dialogue.stream.write_all(&self.header)?;
        let first = match dialogue.read() {
            Ok(first) => first,
            Err(_) => {
                dialogue.packets.push(b"<closed>".to_vec());
                return Ok(dialogue);
            }
        };
        if first.first() == Some(&0xFF) {
            dialogue.packets.push(first);
            return Ok(dialogue);
        }
        let greeting = Greeting::parse(&first).map_err(io::Error::other)?;
        dialogue.greet(self, greeting, socket)?;
        Ok(dialogue)
    }

    /// COM_CHANGE_USER to this account on a connection that is logged in. A
    /// client answers at once, with the nonce it was greeted with.
    pub fn change(&self, dialogue: &mut Dialogue) -> io::Result<()> {
        let greeting = dialogue.greeting.clone();
        let greeting = greeting.ok_or_else(|| io::Error::other("not greeted"))?;
        let plugin = self.plugin.unwrap_or(&greeting.auth_plugin).to_vec();
        let answer = self.answer(&plugin, &greeting.nonce, dialogue.tls);
        let request = ChangeUser {
            user: self.user.as_bytes().to_vec(),
            auth_response: answer.unwrap_or_default(),
            database: self.database.unwrap_or_default().as_bytes().to_vec(),
            charset: Some(u16::from(CHARSET)),
            auth_plugin: Some(plugin.clone()),
            connect_attrs: None,
        };
        dialogue.packets.clear();
        dialogue.seq = 0;
        dialogue.write(&request.build(dialogue.capabilities))?;
        dialogue.finish(self, plugin, greeting.nonce)
    }

    /// The answer to a nonce; None: this client does not know the plugin.
    fn answer(&self, plugin: &[u8], data: &[u8], tls: bool) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().zip(data) {
            *to = *from;
        }
        let secret = self.secret();
        if plugin == ED25519 {
            return Some(ed25519::sign(&secret, data.get(..32)?.try_into().ok()?).to_vec());
        }
        if self.password.is_empty() {
            return Some(if plugin == CLEAR { vec![0] } else { Vec::new() });
        }
        match plugin {
            p if p == NATIVE => {
                let stage1 = native::stage1(self.password.as_bytes());
                Some(native::scramble(&stage1, &nonce).to_vec())
            }
            p if p == CACHING_SHA2 => Some(caching_sha2::scramble(&secret, &nonce)),
            p if p == CLEAR || (p == SHA256 && tls) => Some(self.clear()),
            p if p == SHA256 => Some(vec![1]),
            _ => None,
        }
    }

    fn clear(&self) -> Vec<u8> {
        caching_sha2::to_clear(&self.secret()).expose().to_vec()
    }
}

/// A connection and what its server has said since it was greeted.
pub struct Dialogue {
    stream: Box<dyn Bytes>,
    tls: bool,
    seq: u8,
    pub packets: Vec<Vec<u8>>,
    pub greeting: Option<Greeting>,
    /// What the server has shown.
    pub certificate: Option<Vec<u8>>,
    capabilities: Capabilities,
}

impl Dialogue {
    /// True if the last packet is an OK.
    pub fn let_in(&self) -> bool {
        self.packets.last().is_some_and(|p| p.first() == Some(&0))
    }

    /// The last packet in words.
    pub fn verdict(&self) -> String {
        shown(self.packets.last().map_or(&[], Vec::as_slice))
    }

    /// All packets in words.
    pub fn shown(&self) -> Vec<String> {
        self.packets.iter().map(|p| shown(p)).collect()
    }

    /// The first packet of the answer to a statement.
    pub fn ask(&mut self, sql: &str) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        frame::put_command(&mut out, COM_QUERY, sql.as_bytes());
        self.stream.write_all(&out)?;
        self.stream.flush()?;
        self.seq = 1;
        self.read()
    }

    fn greet(&mut self, client: &Client, greeting: Greeting, socket: TcpStream) -> io::Result<()> {
        let mut wanted = Capabilities::PROTOCOL_41
            | Capabilities::TRANSACTIONS
            | Capabilities::SECURE_CONNECTION
            | Capabilities::MULTI_RESULTS
            | Capabilities::PLUGIN_AUTH;
        if client.expired {
            wanted = wanted.with(Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS);
        }
        let mut caps = (wanted & greeting.capabilities).with(Capabilities::LONG_PASSWORD);
        if client.database.is_some() {
            caps = caps.with(Capabilities::CONNECT_WITH_DB);
        }
        self.capabilities = caps;
        if client.tls {
            caps = caps.with(Capabilities::SSL);
            self.write(&ssl_request(caps, 1 << 30, CHARSET))?;
            if let Err(e) = self.encrypt(client, socket) {
                self.packets.push(format!("<TLS: {e}>").into_bytes());
                return Ok(());
            }
        }
        let plugin = client.plugin.unwrap_or(&greeting.auth_plugin).to_vec();
        let answer = client.answer(&plugin, &greeting.nonce, client.tls);
        let response = HandshakeResponse {
            capabilities: caps,
            max_packet: 1 << 30,
            charset: CHARSET,
            user: client.user.as_bytes().to_vec(),
            auth_response: answer.unwrap_or_default(),
            database: client.database.map(|d| d.as_bytes().to_vec()),
            auth_plugin: Some(plugin.clone()),
            connect_attrs: None,
            zstd_level: None,
        };
        let nonce = greeting.nonce;
        self.greeting = Some(greeting);
        if self.write(&response.build()).is_err() {
            self.packets.push(b"<closed>".to_vec());
            return Ok(());
        }
        self.finish(client, plugin, nonce)
    }

    fn encrypt(&mut self, client: &Client, socket: TcpStream) -> io::Result<()> {
        let tls = LegTls::load(TlsMode::Required, None, client.certificate.clone());
        let tls = tls.map_err(io::Error::other)?.expect("TLS is not off");
        let name = "localhost".try_into().expect("a name");
        let connection =
            rustls::ClientConnection::new(tls.config(true), name).map_err(io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let shown = stream.conn.peer_certificates().and_then(|c| c.first());
        self.certificate = shown.map(|c| c.to_vec());
        self.tls = true;
        self.stream = Box::new(stream);
        Ok(())
    }

    /// Answers up to the server's verdict.
    fn finish(
        &mut self,
        client: &Client,
        mut plugin: Vec<u8>,
        mut nonce: [u8; NONCE_LEN],
    ) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let Ok(packet) = self.read() else {
                self.packets.push(b"<closed>".to_vec());
                return Ok(());
            };
            self.packets.push(self.alike(&packet));
            let answer = match AuthReply::parse(&packet) {
                Ok(AuthReply::Ok(_) | AuthReply::Err(_)) => return Ok(()),
                Ok(AuthReply::Switch { plugin: to, data }) => {
                    plugin = to.to_vec();
                    if let Some(new) = data.get(..NONCE_LEN) {
                        nonce.copy_from_slice(new);
                    }
                    client.answer(&plugin, data, self.tls)
                }
                Ok(AuthReply::More([3])) => continue,
                Ok(AuthReply::More([4])) if self.tls => Some(client.clear()),
                Ok(AuthReply::More([4])) => client.asks_key.then(|| vec![2]),
                Ok(AuthReply::More(key)) if plugin == SHA256 || plugin == CACHING_SHA2 => {
                    Some(rsa::encrypt(key, &client.secret(), &nonce).map_err(io::Error::other)?)
                }
                _ => return Err(io::Error::other("not a packet of a login")),
            };
            let Some(answer) = answer else {
                self.packets.push(b"<the client gives up>".to_vec());
                return Ok(());
            };
            self.write(&answer)?;
        }
        Err(io::Error::other("the login does not end"))
    }

    /// A packet without what is new in each login. A full `caching_sha2`
    /// exchange over TLS stands for a fast one: the proxy asks for it once,
    /// which to a client is a server that has just been started.
    fn alike(&self, packet: &[u8]) -> Vec<u8> {
        match AuthReply::parse(packet) {
            Ok(AuthReply::Switch { plugin, data }) => {
                [b"switch ", plugin, format!(" + {}", data.len()).as_bytes()].concat()
            }
            Ok(AuthReply::More([3 | 4])) if self.tls => b"fast or full".to_vec(),
            Ok(AuthReply::More(data)) if data.starts_with(b"-----BEGIN") => b"key".to_vec(),
            _ => packet.to_vec(),
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; frame::HEADER_LEN];
        self.stream.read_exact(&mut head)?;
        let header = frame::header(&head).ok_or_else(|| io::Error::other("header"))?;
        if header.seq != self.seq {
            return Err(io::Error::other("wrong sequence id"));
        }
        self.seq = header.seq.wrapping_add(1);
        let mut payload = vec![0; header.len];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }

    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        frame::put_packet(&mut out, &mut self.seq, payload);
        self.stream.write_all(&out)?;
        self.stream.flush()
    }
}

fn shown(packet: &[u8]) -> String {
    packet.escape_ascii().to_string()
}
