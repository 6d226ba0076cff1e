//! The login packets: greeting, TLS request, login, plugin switches, and
//! COM_CHANGE_USER.
//!
//! The structs hold account material (nonce, authentication answer) and so
//! have no Debug.

use super::lenenc::{Reader, put_bytes, put_int};
use super::{Capabilities, Status, WireError};

mod login;
pub use login::{
    ChangeUser, HandshakeResponse, attribute_pairs, is_ssl_request, put_attribute, ssl_request,
};

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 20;

/// The server's first packet (protocol 10).
#[derive(Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Protocol version, 10.
    pub protocol: u8,
    /// Server version as announced.
    pub version: Vec<u8>,
    /// Connection id (its low 32 bits).
    pub thread_id: u32,
    /// The challenge.
    pub nonce: [u8; NONCE_LEN],
    /// Server capabilities, MariaDB's extended ones included.
    pub capabilities: Capabilities,
    /// Default collation id (low byte).
    pub charset: u8,
    /// Session status.
    pub status: Status,
    /// Default authentication plugin.
    pub auth_plugin: Vec<u8>,
}

impl Greeting {
    /// Reads a greeting payload.
    ///
    /// # Errors
    /// Another protocol version (an ERR packet in its place included), a
    /// server without the 4.1 challenge, or a packet cut short.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        let at = |r: &Reader<'_>| WireError::new("the greeting", r.pos());
        let protocol = r.u8().ok_or(at(&r))?;
        if protocol != 10 {
            return Err(WireError::new("the greeting's protocol version", 0));
        }
        let version = r.nul_bytes().ok_or(at(&r))?.to_vec();
        let thread_id = r.u32().ok_or(at(&r))?;
        let first = r.bytes(8).ok_or(at(&r))?;
        r.u8().ok_or(at(&r))?;
        let low = r.u16().ok_or(at(&r))?;
        let charset = r.u8().ok_or(at(&r))?;
        let status = Status(r.u16().ok_or(at(&r))?);
        let high = r.u16().ok_or(at(&r))?;
        let auth_len = usize::from(r.u8().ok_or(at(&r))?);
        r.bytes(6).ok_or(at(&r))?;
        let extended = r.u32().ok_or(at(&r))?;
        let low = u32::from(low) | u32::from(high) << 16;
        let capabilities = Capabilities::from_parts(low, extended);
        let second = r.bytes(auth_len.saturating_sub(8).max(13)).ok_or(at(&r))?;
        let mut nonce = [0; NONCE_LEN];
        for (slot, byte) in nonce.iter_mut().zip(first.iter().chain(second)) {
            *slot = *byte;
        }
        let mut auth_plugin = Vec::new();
        if capabilities.has(Capabilities::PLUGIN_AUTH) {
            // Some old servers leave out the final NUL.
            auth_plugin = match r.nul_bytes() {
                Some(name) => name.to_vec(),
                None => r.rest().to_vec(),
            };
        }
        Ok(Self {
            protocol,
            version,
            thread_id,
            nonce,
            capabilities,
            charset,
            status,
            auth_plugin,
        })
    }

    /// The payload.
    pub fn build(&self) -> Vec<u8> {
        let caps = self.capabilities;
        let plugins = caps.has(Capabilities::PLUGIN_AUTH);
        let (first, second) = self.nonce.split_at(8);
        let [c0, c1, c2, c3] = caps.low().to_le_bytes();
        let mut out = Vec::with_capacity(64 + self.version.len() + self.auth_plugin.len());
        out.push(self.protocol);
        out.extend_from_slice(&self.version);
        out.push(0);
        out.extend_from_slice(&self.thread_id.to_le_bytes());
        out.extend_from_slice(first);
        out.push(0);
        out.extend_from_slice(&[c0, c1, self.charset]);
        out.extend_from_slice(&self.status.bits().to_le_bytes());
        out.extend_from_slice(&[c2, c3]);
        out.push(if plugins { NONCE_LEN as u8 + 1 } else { 0 });
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&extended_for_wire(caps).to_le_bytes());
        out.extend_from_slice(second);
        out.push(0);
        if plugins {
            out.extend_from_slice(&self.auth_plugin);
            out.push(0);
        }
        out
    }

    /// True for MariaDB: it leaves out LONG_PASSWORD, and says so in its
    /// version (a proxy before it may have changed either).
    pub fn is_mariadb(&self) -> bool {
        !self.capabilities.has(Capabilities::LONG_PASSWORD)
            || memchr::memmem::find(&self.version, b"MariaDB").is_some()
    }
}

/// The extended half as it goes on the wire: nothing where LONG_PASSWORD is
/// set, because a peer then takes these bytes for filler.
fn extended_for_wire(caps: Capabilities) -> u32 {
    if caps.has(Capabilities::LONG_PASSWORD) {
        0
    } else {
        caps.extended()
    }
}

/// The server's next packet during a login or COM_CHANGE_USER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AuthReply<'a> {
    /// Logged in: the OK payload.
    Ok(&'a [u8]),
    /// Refused: the ERR payload.
    Err(&'a [u8]),
    /// Use this plugin with this data (a nonce, mostly with a final NUL).
    Switch {
        /// Plugin name.
        plugin: &'a [u8],
        /// Its data as sent.
        data: &'a [u8],
    },
    /// Use the pre-4.1 password hash.
    OldSwitch,
    /// Plugin data.
    More(&'a [u8]),
}

impl<'a> AuthReply<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// A first byte that is none of these, or no plugin name.
    pub fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        let bad = WireError::new("an authentication packet", 0);
        match payload {
            [0x00, ..] => Ok(Self::Ok(payload)),
            [0xFF, ..] => Ok(Self::Err(payload)),
            [0xFE] => Ok(Self::OldSwitch),
            [0xFE, ..] => {
                let mut r = Reader::at(payload, 1);
                let plugin = r.nul_bytes().unwrap_or_else(|| r.rest());
                Ok(Self::Switch {
                    plugin,
                    data: r.rest(),
                })
            }
            [0x01, data @ ..] => Ok(Self::More(data)),
            _ => Err(bad),
        }
    }
}

/// Payload of a switch to `plugin`; `nonce` gets the final NUL that clients
/// expect.
pub fn auth_switch(plugin: &[u8], nonce: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 + plugin.len() + nonce.len());
    out.push(0xFE);
    out.extend_from_slice(plugin);
    out.push(0);
    out.extend_from_slice(nonce);
    out.push(0);
    out
}

/// Payload of plugin data.
pub fn auth_more(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + data.len());
    out.push(0x01);
    out.extend_from_slice(data);
    out
}

/// Appends `bytes` and a NUL; bytes from a NUL on are left out, since they
/// would be read as the next field.
fn put_nul(out: &mut Vec<u8>, bytes: &[u8]) {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    out.extend_from_slice(bytes.get(..end).unwrap_or_default());
    out.push(0);
}

#[cfg(test)]
mod tests;
