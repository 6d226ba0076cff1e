//! Packet frames: 3 bytes of length (little endian), 1 byte of sequence id.
//!
//! A payload of [`PAYLOAD_MAX`] bytes says that the logical packet goes on
//! in the next one; a logical packet whose length is a multiple of it ends
//! with an empty packet.

/// Bytes of a packet header.
pub const HEADER_LEN: usize = 4;
/// Largest payload of one physical packet, bytes: what 3 bytes can say.
pub const PAYLOAD_MAX: usize = 0xFF_FFFF;

/// A physical packet's header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload length, bytes, at most [`PAYLOAD_MAX`].
    pub len: usize,
    /// Sequence id; starts at 0 with each command and wraps.
    pub seq: u8,
}

impl Header {
    /// Header and payload together, bytes.
    pub const fn total(self) -> usize {
        HEADER_LEN + self.len
    }
}

/// Reads the header at the start of `buf`; `None` below 4 bytes.
#[inline]
pub fn header(buf: &[u8]) -> Option<Header> {
    let [a, b, c, seq, ..] = *buf else {
        return None;
    };
    Some(Header {
        len: (u32::from_le_bytes([a, b, c, 0])) as usize,
        seq,
    })
}

/// The physical packet at the start of `buf`, if it is complete:
/// payload, bytes consumed (header included), sequence id.
#[inline]
pub fn packet(buf: &[u8]) -> Option<(&[u8], usize, u8)> {
    let head = header(buf)?;
    let payload = buf.get(HEADER_LEN..head.total())?;
    Some((payload, head.total(), head.seq))
}

/// Appends `payload` as one logical packet: split at [`PAYLOAD_MAX`], with
/// the empty trailer where the length asks for one. `seq` is the first
/// packet's id and is left at the next free one.
pub fn put_packet(out: &mut Vec<u8>, seq: &mut u8, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let len = rest.len().min(PAYLOAD_MAX);
        let (part, tail) = rest.split_at(len);
        put_header(out, *seq, len);
        out.extend_from_slice(part);
        *seq = seq.wrapping_add(1);
        rest = tail;
        if len < PAYLOAD_MAX {
            return;
        }
    }
}

/// Appends a whole command: `com`, then `body`, numbered from 0.
pub fn put_command(out: &mut Vec<u8>, com: u8, body: &[u8]) {
    if body.len() + 1 < PAYLOAD_MAX {
        put_header(out, 0, body.len() + 1);
        out.push(com);
        out.extend_from_slice(body);
        return;
    }
    let mut payload = Vec::with_capacity(body.len() + 1);
    payload.push(com);
    payload.extend_from_slice(body);
    put_packet(out, &mut 0, &payload);
}

/// Appends one header; `len` must not exceed [`PAYLOAD_MAX`] (its low 24
/// bits are written).
pub fn put_header(out: &mut Vec<u8>, seq: u8, len: usize) {
    let [a, b, c, ..] = (len as u32).to_le_bytes();
    out.extend_from_slice(&[a, b, c, seq]);
}

/// Joins the physical packets of the logical packet at the start of `buf`.
/// Returns the payload, the bytes consumed and the last sequence id, or
/// `None` while it is incomplete. Borrows unless there is more than one.
pub fn logical(buf: &[u8]) -> Option<(std::borrow::Cow<'_, [u8]>, usize, u8)> {
    let (first, mut at, mut seq) = packet(buf)?;
    if first.len() < PAYLOAD_MAX {
        return Some((first.into(), at, seq));
    }
    let mut joined = first.to_vec();
    loop {
        let (part, used, id) = packet(buf.get(at..)?)?;
        joined.extend_from_slice(part);
        at += used;
        seq = id;
        if part.len() < PAYLOAD_MAX {
            return Some((joined.into(), at, seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_packets_round_trip() {
        let mut out = Vec::new();
        let mut seq = 255;
        put_packet(&mut out, &mut seq, b"abc");
        put_packet(&mut out, &mut seq, b"");
        assert_eq!(seq, 1);
        assert_eq!(packet(&out), Some((&b"abc"[..], 7, 255)));
        assert_eq!(packet(&out[7..]), Some((&b""[..], 4, 0)));
        for cut in 0..7 {
            assert_eq!(packet(&out[..cut]), None);
        }
    }

    #[test]
    fn a_full_payload_gets_its_empty_trailer() {
        for (len, packets) in [
            (PAYLOAD_MAX - 1, 1),
            (PAYLOAD_MAX, 2),
            (PAYLOAD_MAX + 1, 2),
            (2 * PAYLOAD_MAX, 3),
        ] {
            let mut out = Vec::new();
            let mut seq = 0;
            put_packet(&mut out, &mut seq, &vec![7; len]);
            assert_eq!(seq, packets);
            assert_eq!(out.len(), len + HEADER_LEN * packets as usize);
            let (joined, used, last) = logical(&out).expect("whole");
            assert_eq!((joined.len(), used, last), (len, out.len(), packets - 1));
            assert_eq!(logical(&out[..out.len() - 1]), None);
        }
    }

    #[test]
    fn commands_start_at_zero() {
        let mut out = Vec::new();
        put_command(&mut out, 3, b"SELECT 1");
        assert_eq!(packet(&out), Some((&b"\x03SELECT 1"[..], 13, 0)));
        let mut long = Vec::new();
        put_command(&mut long, 3, &vec![b'x'; PAYLOAD_MAX - 1]);
        assert_eq!(long.len(), PAYLOAD_MAX + 2 * HEADER_LEN);
    }
}
