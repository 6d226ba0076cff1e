//! OK, ERR and EOF packets.

use super::lenenc::{Reader, put_bytes, put_int};
use super::{Capabilities, Status, WireError};

/// An OK packet, or the OK (0xFE) that ends rows under DEPRECATE_EOF, or an
/// EOF packet read as one (then rows, id, info and state are empty).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OkPacket<'a> {
    /// First byte: 0x00, or 0xFE at the end of rows.
    pub header: u8,
    /// Rows changed (matched, under FOUND_ROWS).
    pub affected_rows: u64,
    /// The first generated id, or 0.
    pub insert_id: u64,
    /// Session status.
    pub status: Status,
    /// Warnings of the statement.
    pub warnings: u16,
    /// Text for people (`Rows matched: 1 …`), or empty.
    pub info: &'a [u8],
    /// True when the packet had an info field, an empty one included.
    pub has_info: bool,
    /// The session state block without its outer length, if there was one.
    pub session_state: Option<&'a [u8]>,
}

impl<'a> OkPacket<'a> {
    /// An OK with nothing but `status`.
    pub const fn new(status: Status) -> Self {
        Self {
            header: 0,
            affected_rows: 0,
            insert_id: 0,
            status,
            warnings: 0,
            info: &[],
            has_info: false,
            session_state: None,
        }
    }

    /// Reads an OK packet's payload. `caps` are the leg's: without
    /// DEPRECATE_EOF a 0xFE packet is an EOF. Both families write the info
    /// as a length-encoded string whatever the flags; one that is not is
    /// taken to the packet's end.
    ///
    /// # Errors
    /// A first byte other than 0x00/0xFE, or a packet cut short.
    pub fn parse(payload: &'a [u8], caps: Capabilities) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        let short = |r: &Reader<'_>| WireError::new("OK packet", r.pos());
        let header = r.u8().ok_or(short(&r))?;
        let mut ok = OkPacket::new(Status(0));
        ok.header = header;
        match header {
            0x00 => {}
            0xFE if caps.has(Capabilities::DEPRECATE_EOF) => {}
            0xFE => {
                ok.warnings = r.u16().ok_or(short(&r))?;
                ok.status = Status(r.u16().ok_or(short(&r))?);
                return Ok(ok);
            }
            _ => return Err(WireError::new("OK packet's first byte", 0)),
        }
        ok.affected_rows = r.lenenc_int().ok_or(short(&r))?;
        ok.insert_id = r.lenenc_int().ok_or(short(&r))?;
        ok.status = Status(r.u16().ok_or(short(&r))?);
        ok.warnings = r.u16().ok_or(short(&r))?;
        if r.is_empty() {
            return Ok(ok);
        }
        ok.has_info = true;
        ok.info = match r.lenenc_bytes() {
            Some(info) => info,
            None => r.rest(),
        };
        let tracked =
            caps.has(Capabilities::SESSION_TRACK) && ok.status.has(Status::SESSION_STATE_CHANGED);
        if tracked && !r.is_empty() {
            ok.session_state = Some(r.lenenc_bytes().ok_or(short(&r))?);
        }
        Ok(ok)
    }

    /// The payload for a peer with `caps`. Without SESSION_TRACK the state
    /// block and its status flag are dropped; the flag follows the block
    /// otherwise. The info is left out when it is empty, not asked for
    /// (`has_info`) and no block follows, as the servers do.
    pub fn build(&self, caps: Capabilities) -> Vec<u8> {
        let state = self
            .session_state
            .filter(|_| caps.has(Capabilities::SESSION_TRACK));
        let status = match state {
            Some(_) => self.status.with(Status::SESSION_STATE_CHANGED),
            None => self.status.without(Status::SESSION_STATE_CHANGED),
        };
        if self.header == 0xFE && !caps.has(Capabilities::DEPRECATE_EOF) {
            return eof_packet(status, self.warnings).to_vec();
        }
        let room = 40 + self.info.len() + state.map_or(0, <[u8]>::len);
        let mut out = Vec::with_capacity(room);
        out.push(self.header);
        put_int(&mut out, self.affected_rows);
        put_int(&mut out, self.insert_id);
        out.extend_from_slice(&status.bits().to_le_bytes());
        out.extend_from_slice(&self.warnings.to_le_bytes());
        if !self.info.is_empty() || state.is_some() || self.has_info {
            put_bytes(&mut out, self.info);
        }
        if let Some(block) = state {
            put_bytes(&mut out, block);
        }
        out
    }
}

/// An ERR packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrPacket<'a> {
    /// Server error number.
    pub code: u16,
    /// SQLSTATE; `HY000` where the packet had none (before the greeting).
    pub sqlstate: [u8; 5],
    /// Text for people, in the session's charset.
    pub message: &'a [u8],
}

impl<'a> ErrPacket<'a> {
    /// An error with a five-letter SQLSTATE.
    pub const fn new(code: u16, sqlstate: &[u8; 5], message: &'a [u8]) -> Self {
        Self {
            code,
            sqlstate: *sqlstate,
            message,
        }
    }

    /// Reads an ERR payload, with or without `#` and SQLSTATE.
    ///
    /// # Errors
    /// A first byte other than 0xFF, or no error number.
    pub fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        if r.u8() != Some(0xFF) {
            return Err(WireError::new("ERR packet's first byte", 0));
        }
        let code = r.u16().ok_or(WireError::new("ERR packet", r.pos()))?;
        let rest = r.rest();
        if let [b'#', a, b, c, d, e, message @ ..] = rest {
            return Ok(Self::new(code, &[*a, *b, *c, *d, *e], message));
        }
        Ok(Self::new(code, b"HY000", rest))
    }

    /// The payload of an error after the greeting, with SQLSTATE.
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + self.message.len());
        out.push(0xFF);
        out.extend_from_slice(&self.code.to_le_bytes());
        out.push(b'#');
        out.extend_from_slice(&self.sqlstate);
        out.extend_from_slice(self.message);
        out
    }

    /// The payload of an error *instead of* the greeting: no SQLSTATE.
    pub fn build_before_greeting(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(3 + self.message.len());
        out.push(0xFF);
        out.extend_from_slice(&self.code.to_le_bytes());
        out.extend_from_slice(self.message);
        out
    }
}

/// An EOF packet's payload.
pub fn eof_packet(status: Status, warnings: u16) -> [u8; 5] {
    let [w0, w1] = warnings.to_le_bytes();
    let [s0, s1] = status.bits().to_le_bytes();
    [0xFE, w0, w1, s0, s1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACK: Capabilities = Capabilities::SESSION_TRACK;

    #[test]
    fn plain_ok_is_seven_bytes() {
        let payload = [0, 1, 0, 2, 0, 0, 0];
        let ok = OkPacket::parse(&payload, TRACK).expect("ok");
        assert_eq!((ok.affected_rows, ok.status), (1, Status::AUTOCOMMIT));
        assert!(!ok.has_info && ok.session_state.is_none());
        assert_eq!(ok.build(TRACK), payload);
    }

    #[test]
    fn the_block_is_dropped_for_a_peer_that_cannot_read_it() {
        let ok = OkPacket {
            session_state: Some(&[1, 5, 4, b's', b'h', b'o', b'p']),
            ..OkPacket::new(Status::AUTOCOMMIT)
        };
        let with = ok.build(TRACK);
        let again = OkPacket::parse(&with, TRACK).expect("ok");
        assert!(again.status.has(Status::SESSION_STATE_CHANGED));
        assert_eq!(again.session_state, ok.session_state);
        assert_eq!(
            ok.build(Capabilities::NONE),
            OkPacket::new(Status::AUTOCOMMIT).build(Capabilities::NONE)
        );
    }

    #[test]
    fn eof_reads_as_ok() {
        let eof = eof_packet(Status::IN_TRANS, 3);
        let ok = OkPacket::parse(&eof, Capabilities::NONE).expect("eof");
        assert_eq!((ok.status, ok.warnings), (Status::IN_TRANS, 3));
        assert_eq!(ok.build(Capabilities::NONE), eof);
    }

    #[test]
    fn errors_with_and_without_sqlstate() {
        let e = ErrPacket::new(1062, b"23000", b"Duplicate entry");
        let built = e.build();
        assert_eq!(ErrPacket::parse(&built), Ok(e));
        let early = ErrPacket::new(1040, b"HY000", b"Too many connections");
        let built = early.build_before_greeting();
        assert_eq!(&built[3..6], b"Too");
        assert_eq!(ErrPacket::parse(&built), Ok(early));
        assert!(ErrPacket::parse(b"\xff\x01").is_err());
    }

    proptest! {
        #[test]
        fn any_ok_round_trips(
            rows: u64, id: u64, status: u16, warnings: u16,
            info in proptest::collection::vec(any::<u8>(), 0..300),
            block in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..300)),
            end: bool,
        ) {
            let caps = TRACK | Capabilities::DEPRECATE_EOF;
            let mut ok = OkPacket::new(Status(status).without(Status::SESSION_STATE_CHANGED));
            ok.header = if end { 0xFE } else { 0 };
            (ok.affected_rows, ok.insert_id, ok.warnings) = (rows, id, warnings);
            ok.info = &info;
            ok.has_info = !info.is_empty() || block.is_some();
            ok.session_state = block.as_deref();
            if block.is_some() {
                ok.status = ok.status.with(Status::SESSION_STATE_CHANGED);
            }
            let built = ok.build(caps);
            prop_assert_eq!(OkPacket::parse(&built, caps), Ok(ok));
        }

        #[test]
        fn no_bytes_panic(b in proptest::collection::vec(any::<u8>(), 0..60), caps: u64) {
            let _ = OkPacket::parse(&b, Capabilities(caps));
            let _ = ErrPacket::parse(&b);
        }
    }
}
