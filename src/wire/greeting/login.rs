//! The client's packets of a login.

use super::{Capabilities, Reader, WireError};
use super::{extended_for_wire, put_bytes, put_int, put_nul};

/// Bytes of a TLS request, and of the fixed part of a login.
const FIXED_LEN: usize = 32;
/// Most bytes of an authentication answer with a one-byte length.
const SHORT_AUTH_MAX: usize = 255;

/// The client's login packet (4.1 protocol). No Debug: it holds an
/// authentication answer.
#[derive(Clone, PartialEq, Eq)]
pub struct HandshakeResponse {
    /// What the client wants to use.
    pub capabilities: Capabilities,
    /// Largest packet it takes, bytes.
    pub max_packet: u32,
    /// Collation id (low byte).
    pub charset: u8,
    /// Account name.
    pub user: Vec<u8>,
    /// Answer to the challenge.
    pub auth_response: Vec<u8>,
    /// Default database (CONNECT_WITH_DB).
    pub database: Option<Vec<u8>>,
    /// Plugin the answer was made for (PLUGIN_AUTH).
    pub auth_plugin: Option<Vec<u8>>,
    /// Connection attributes: the block without its length (CONNECT_ATTRS).
    pub connect_attrs: Option<Vec<u8>>,
    /// zstd level (ZSTD).
    pub zstd_level: Option<u8>,
}

impl HandshakeResponse {
    /// Reads a login payload. Fields at the end that a client left out
    /// although its flags promise them are `None`.
    ///
    /// # Errors
    /// A login of the pre-4.1 protocol, or a packet cut short.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        let at = |r: &Reader<'_>| WireError::new("the login packet", r.pos());
        let low = r.u32().ok_or(at(&r))?;
        if !Capabilities(u64::from(low)).has(Capabilities::PROTOCOL_41) {
            return Err(WireError::new("a login of the pre-4.1 protocol", 0));
        }
        let max_packet = r.u32().ok_or(at(&r))?;
        let charset = r.u8().ok_or(at(&r))?;
        r.bytes(19).ok_or(at(&r))?;
        let caps = Capabilities::from_parts(low, r.u32().ok_or(at(&r))?);
        let user = r.nul_bytes().ok_or(at(&r))?.to_vec();
        let auth_response = if caps.has(Capabilities::PLUGIN_AUTH_LENENC) {
            r.lenenc_bytes()
        } else if caps.has(Capabilities::SECURE_CONNECTION) {
            r.u8().and_then(|n| r.bytes(usize::from(n)))
        } else {
            Some(text(&mut r))
        }
        .ok_or(at(&r))?
        .to_vec();
        let optional =
            |flag, r: &mut Reader<'_>| (caps.has(flag) && !r.is_empty()).then(|| text(r).to_vec());
        let database = optional(Capabilities::CONNECT_WITH_DB, &mut r);
        let auth_plugin = optional(Capabilities::PLUGIN_AUTH, &mut r);
        let connect_attrs = attributes(caps, &mut r)?;
        let zstd_level = if caps.has(Capabilities::ZSTD) {
            r.u8()
        } else {
            None
        };
        Ok(Self {
            capabilities: caps,
            max_packet,
            charset,
            user,
            auth_response,
            database,
            auth_plugin,
            connect_attrs,
            zstd_level,
        })
    }

    /// The payload. The flags CONNECT_WITH_DB, PLUGIN_AUTH, CONNECT_ATTRS
    /// and ZSTD follow the fields that are there, and PLUGIN_AUTH_LENENC is
    /// set for an answer above 255 bytes.
    pub fn build(&self) -> Vec<u8> {
        let caps = self.flags();
        let mut out = ssl_request(caps, self.max_packet, self.charset);
        put_nul(&mut out, &self.user);
        if caps.has(Capabilities::PLUGIN_AUTH_LENENC) {
            put_bytes(&mut out, &self.auth_response);
        } else if caps.has(Capabilities::SECURE_CONNECTION) {
            out.push(self.auth_response.len() as u8);
            out.extend_from_slice(&self.auth_response);
        } else {
            put_nul(&mut out, &self.auth_response);
        }
        if let Some(database) = &self.database {
            put_nul(&mut out, database);
        }
        if let Some(plugin) = &self.auth_plugin {
            put_nul(&mut out, plugin);
        }
        if let Some(attrs) = &self.connect_attrs {
            put_bytes(&mut out, attrs);
        }
        out.extend(self.zstd_level);
        out
    }

    /// The flags as they will stand in the packet.
    fn flags(&self) -> Capabilities {
        let pairs = [
            (Capabilities::CONNECT_WITH_DB, self.database.is_some()),
            (Capabilities::PLUGIN_AUTH, self.auth_plugin.is_some()),
            (Capabilities::CONNECT_ATTRS, self.connect_attrs.is_some()),
            (Capabilities::ZSTD, self.zstd_level.is_some()),
        ];
        let mut caps = self.capabilities;
        for (flag, present) in pairs {
            caps = if present {
                caps.with(flag)
            } else {
                caps.without(flag)
            };
        }
        if self.auth_response.len() > SHORT_AUTH_MAX {
            caps = caps.with(Capabilities::PLUGIN_AUTH_LENENC);
        }
        caps
    }
}

/// A NUL-terminated field, or what is left where the NUL is missing.
fn text<'a>(r: &mut Reader<'a>) -> &'a [u8] {
    r.nul_bytes().unwrap_or_else(|| r.rest())
}

/// The attribute block, without its length.
fn attributes(caps: Capabilities, r: &mut Reader<'_>) -> Result<Option<Vec<u8>>, WireError> {
    if !caps.has(Capabilities::CONNECT_ATTRS) || r.is_empty() {
        return Ok(None);
    }
    let block = r
        .lenenc_bytes()
        .ok_or(WireError::new("connection attributes", r.pos()))?;
    Ok(Some(block.to_vec()))
}

/// Name and value of each connection attribute in a block; stops at the
/// first malformed one.
pub fn attribute_pairs(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut r = Reader::new(block);
    std::iter::from_fn(move || Some((r.lenenc_bytes()?, r.lenenc_bytes()?)))
}

/// Appends one connection attribute to a block.
pub fn put_attribute(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_bytes(block, name);
    put_bytes(block, value);
}

/// True for the packet that asks for TLS instead of logging in.
pub fn is_ssl_request(payload: &[u8]) -> bool {
    let flags = Reader::new(payload).u32().unwrap_or(0);
    payload.len() == FIXED_LEN && Capabilities(u64::from(flags)).has(Capabilities::SSL)
}

/// Payload of a TLS request; a login starts with the same bytes.
pub fn ssl_request(caps: Capabilities, max_packet: u32, charset: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&caps.low().to_le_bytes());
    out.extend_from_slice(&max_packet.to_le_bytes());
    out.push(charset);
    out.extend_from_slice(&[0; 19]);
    out.extend_from_slice(&extended_for_wire(caps).to_le_bytes());
    out
}

/// A COM_CHANGE_USER. No Debug: it holds an authentication answer.
#[derive(Clone, PartialEq, Eq)]
pub struct ChangeUser {
    /// Account name.
    pub user: Vec<u8>,
    /// Answer to the connection's nonce (may be empty: the server then
    /// switches).
    pub auth_response: Vec<u8>,
    /// Default database, empty for none.
    pub database: Vec<u8>,
    /// Collation id.
    pub charset: Option<u16>,
    /// Plugin the answer was made for (PLUGIN_AUTH).
    pub auth_plugin: Option<Vec<u8>>,
    /// Connection attributes: the block without its length (CONNECT_ATTRS).
    pub connect_attrs: Option<Vec<u8>>,
}

impl ChangeUser {
    /// Reads a payload, its command byte included, sent under `caps`.
    ///
    /// # Errors
    /// Another command, or a packet cut short.
    pub fn parse(payload: &[u8], caps: Capabilities) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        let at = |r: &Reader<'_>| WireError::new("CHANGE_USER", r.pos());
        if r.u8() != Some(crate::wire::command::COM_CHANGE_USER) {
            return Err(WireError::new("CHANGE_USER's command byte", 0));
        }
        let user = r.nul_bytes().ok_or(at(&r))?.to_vec();
        let auth_response = if caps.has(Capabilities::SECURE_CONNECTION) {
            r.u8().and_then(|n| r.bytes(usize::from(n)))
        } else {
            r.nul_bytes()
        }
        .ok_or(at(&r))?
        .to_vec();
        let database = text(&mut r).to_vec();
        let charset = r.u16();
        let plugin = caps.has(Capabilities::PLUGIN_AUTH) && !r.is_empty();
        let auth_plugin = plugin.then(|| text(&mut r).to_vec());
        let connect_attrs = attributes(caps, &mut r)?;
        Ok(Self {
            user,
            auth_response,
            database,
            charset,
            auth_plugin,
            connect_attrs,
        })
    }

    /// The payload for a peer with `caps`, command byte included. A field
    /// that `caps` do not allow, or whose predecessor is missing, is left
    /// out; an answer above 255 bytes is sent empty (the server then
    /// switches and asks again).
    pub fn build(&self, caps: Capabilities) -> Vec<u8> {
        let mut out = vec![crate::wire::command::COM_CHANGE_USER];
        put_nul(&mut out, &self.user);
        if !caps.has(Capabilities::SECURE_CONNECTION) {
            put_nul(&mut out, &self.auth_response);
        } else if self.auth_response.len() <= SHORT_AUTH_MAX {
            put_int_byte(&mut out, self.auth_response.len());
            out.extend_from_slice(&self.auth_response);
        } else {
            out.push(0);
        }
        put_nul(&mut out, &self.database);
        let Some(charset) = self.charset else {
            return out;
        };
        out.extend_from_slice(&charset.to_le_bytes());
        if caps.has(Capabilities::PLUGIN_AUTH) {
            let Some(plugin) = &self.auth_plugin else {
                return out;
            };
            put_nul(&mut out, plugin);
        }
        if caps.has(Capabilities::CONNECT_ATTRS)
            && let Some(attrs) = &self.connect_attrs
        {
            put_int(&mut out, attrs.len() as u64);
            out.extend_from_slice(attrs);
        }
        out
    }
}

/// A one-byte length, already known to fit.
fn put_int_byte(out: &mut Vec<u8>, n: usize) {
    out.push(n.min(SHORT_AUTH_MAX) as u8);
}
