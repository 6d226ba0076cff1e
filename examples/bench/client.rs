//! A client that costs as little as possible: raw packets, one buffer, rows
//! skipped and not read. What is measured should be the proxy, not this.

use super::support::servers::APP;
use lockstep::auth::native;
use lockstep::wire::command::{COM_QUERY, COM_QUIT, COM_STMT_EXECUTE, COM_STMT_PREPARE};
use lockstep::wire::{
    AuthReply, Capabilities, Greeting, HandshakeResponse, ResponseCursor, ResponseKind, Summary,
    packet, put_command, put_packet,
};
use std::io::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes read at once: a wide result in a few reads.
const BUFFER: usize = 64 * 1024;
/// Largest answer the client takes, as it tells the server.
const MAX_PACKET: u32 = 1 << 24;
/// utf8mb4_general_ci.
const CHARSET: u8 = 45;
/// Parameter types of COM_STMT_EXECUTE.
const TYPE_LONGLONG: u8 = 8;
const TYPE_VAR_STRING: u8 = 253;

/// A bound value.
pub enum Param<'a> {
    Int(u64),
    Text(&'a [u8]),
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    out: Vec<u8>,
    body: Vec<u8>,
    cursor: ResponseCursor,
}

fn capabilities() -> Capabilities {
    [
        Capabilities::LONG_FLAG,
        Capabilities::PROTOCOL_41,
        Capabilities::TRANSACTIONS,
        Capabilities::SECURE_CONNECTION,
        Capabilities::MULTI_RESULTS,
        Capabilities::PS_MULTI_RESULTS,
        Capabilities::PLUGIN_AUTH,
    ]
    .into_iter()
    .fold(Capabilities::LONG_PASSWORD, Capabilities::with)
}

fn other(what: impl Into<String>) -> Error {
    Error::other(what.into())
}

impl Client {
    /// Logs in as the application account, without TLS, in `database`.
    pub async fn connect(port: u16, database: &str) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            buffer: vec![0; BUFFER],
            out: Vec::new(),
            body: Vec::new(),
            cursor: ResponseCursor::new(capabilities()),
        };
        client.login(database).await?;
        Ok(client)
    }

    async fn login(&mut self, database: &str) -> Result<()> {
        let (payload, _) = self.packet().await?;
        let greeting = Greeting::parse(&payload).map_err(|e| other(e.to_string()))?;
        let stage1 = native::stage1(APP.1.as_bytes());
        let response = HandshakeResponse {
            capabilities: capabilities(),
            max_packet: MAX_PACKET,
            charset: CHARSET,
            user: APP.0.as_bytes().to_vec(),
            auth_response: native::scramble(&stage1, &greeting.nonce).to_vec(),
            database: Some(database.as_bytes().to_vec()),
            auth_plugin: Some(lockstep::auth::NATIVE.to_vec()),
            connect_attrs: None,
            zstd_level: None,
        };
        self.send(1, &response.build()).await?;
        loop {
            let (payload, seq) = self.packet().await?;
            match AuthReply::parse(&payload).map_err(|e| other(e.to_string()))? {
                AuthReply::Ok(_) => return Ok(()),
                AuthReply::Switch { plugin, data } if plugin == lockstep::auth::NATIVE => {
                    let nonce = data.first_chunk().ok_or_else(|| other("a short nonce"))?;
                    let answer = native::scramble(&stage1, nonce);
                    self.send(seq.wrapping_add(1), &answer).await?;
                }
                AuthReply::Err(err) => {
                    return Err(other(String::from_utf8_lossy(err).into_owned()));
                }
                _ => return Err(other("another login than mysql_native_password")),
            }
        }
    }

    async fn send(&mut self, mut seq: u8, payload: &[u8]) -> Result<()> {
        self.out.clear();
        put_packet(&mut self.out, &mut seq, payload);
        self.stream.write_all(&self.out).await
    }

    /// One packet of the login, where never more than one is under way.
    async fn packet(&mut self) -> Result<(Vec<u8>, u8)> {
        let mut filled = 0;
        loop {
            let n = self.stream.read(&mut self.buffer[filled..]).await?;
            if n == 0 {
                return Err(other("connection closed during login"));
            }
            filled += n;
            if let Some((payload, _, seq)) = packet(&self.buffer[..filled]) {
                return Ok((payload.to_vec(), seq));
            }
        }
    }

    /// COM_QUERY; the answer is skipped to its end.
    pub async fn query(&mut self, sql: &[u8]) -> Result<Summary> {
        self.out.clear();
        put_command(&mut self.out, COM_QUERY, sql);
        self.exchange(ResponseKind::Generic).await
    }

    /// COM_STMT_PREPARE; the statement's id.
    pub async fn prepare(&mut self, sql: &[u8]) -> Result<u32> {
        self.out.clear();
        put_command(&mut self.out, COM_STMT_PREPARE, sql);
        let answer = self.exchange(ResponseKind::Prepare).await?;
        match answer.prepare {
            Some(prepared) => Ok(prepared.statement_id),
            None => Err(other(format!("not prepared: error {}", answer.error_code))),
        }
    }

    /// COM_STMT_EXECUTE, none of the parameters NULL.
    pub async fn execute(&mut self, statement: u32, params: &[Param<'_>]) -> Result<Summary> {
        self.body.clear();
        self.body.extend_from_slice(&statement.to_le_bytes());
        self.body.extend_from_slice(&[0, 1, 0, 0, 0]);
        if !params.is_empty() {
            let bitmap = self.body.len() + params.len().div_ceil(8);
            self.body.resize(bitmap, 0);
            self.body.push(1);
            for param in params {
                let kind = match param {
                    Param::Int(_) => TYPE_LONGLONG,
                    Param::Text(_) => TYPE_VAR_STRING,
                };
                self.body.extend_from_slice(&[kind, 0]);
            }
        }
        for param in params {
            match param {
                Param::Int(n) => self.body.extend_from_slice(&n.to_le_bytes()),
                Param::Text(text) => lockstep::wire::lenenc::put_bytes(&mut self.body, text),
            }
        }
        self.out.clear();
        put_command(&mut self.out, COM_STMT_EXECUTE, &self.body);
        self.exchange(ResponseKind::Generic).await
    }

    /// COM_QUIT, and the end of the connection.
    pub async fn quit(mut self) -> Result<()> {
        self.out.clear();
        put_command(&mut self.out, COM_QUIT, &[]);
        self.stream.write_all(&self.out).await?;
        while self.stream.read(&mut self.buffer).await? > 0 {}
        Ok(())
    }

    async fn exchange(&mut self, kind: ResponseKind) -> Result<Summary> {
        self.stream.write_all(&self.out).await?;
        self.cursor.begin(kind);
        while !self.cursor.is_done() {
            let n = self.stream.read(&mut self.buffer).await?;
            if n == 0 {
                return Err(other("connection closed"));
            }
            let fed = self.cursor.feed(&self.buffer[..n]);
            let fed = fed.map_err(|e| other(e.to_string()))?;
            if fed.consumed != n {
                return Err(other("more than one answer"));
            }
        }
        Ok(*self.cursor.summary())
    }
}
