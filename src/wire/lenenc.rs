//! Length-encoded integers and strings, and a reader over one payload.

use core::ops::Range;

/// A cursor over a payload. Every method answers `None` when the payload is
/// too short, and then leaves the position where it was.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[inline]
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Starts at byte `at` (past the end: everything answers `None`).
    #[inline]
    pub const fn at(data: &'a [u8], at: usize) -> Self {
        Self { data, at }
    }

    /// Offset of the next byte.
    #[inline]
    pub const fn pos(&self) -> usize {
        self.at
    }

    /// Bytes left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }

    /// True at the end.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next byte, not taken.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let part = self.data.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*part)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes, little endian.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Three bytes, little endian.
    #[inline]
    pub fn u24(&mut self) -> Option<u32> {
        self.array::<3>()
            .map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    /// Four bytes, little endian.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little endian.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(n)?;
        let part = self.data.get(self.at..end)?;
        self.at = end;
        Some(part)
    }

    /// Skips `n` bytes and says where they lie.
    #[inline]
    pub fn range(&mut self, n: usize) -> Option<Range<usize>> {
        let start = self.at;
        self.bytes(n)?;
        Some(start..self.at)
    }

    /// Everything that is left.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        let part = self.data.get(self.at..).unwrap_or_default();
        self.at = self.at.max(self.data.len());
        part
    }

    /// A length-encoded integer. `None` for NULL (0xFB) and 0xFF too.
    #[inline]
    pub fn lenenc_int(&mut self) -> Option<u64> {
        let start = self.at;
        let value = match self.u8()? {
            n @ 0..=0xFA => Some(u64::from(n)),
            0xFC => self.u16().map(u64::from),
            0xFD => self.u24().map(u64::from),
            0xFE => self.u64(),
            _ => None,
        };
        if value.is_none() {
            self.at = start;
        }
        value
    }

    /// A length-encoded string.
    #[inline]
    pub fn lenenc_bytes(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let bytes = self
            .lenenc_int()
            .and_then(|n| usize::try_from(n).ok())
            .and_then(|n| self.bytes(n));
        if bytes.is_none() {
            self.at = start;
        }
        bytes
    }

    /// A text-protocol value: `Some(None)` is NULL.
    #[inline]
    pub fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        if self.peek()? == NULL {
            self.at += 1;
            return Some(None);
        }
        self.lenenc_bytes().map(Some)
    }

    /// Bytes up to a NUL, which is taken and not returned.
    #[inline]
    pub fn nul_bytes(&mut self) -> Option<&'a [u8]> {
        let rest = self.data.get(self.at..)?;
        let end = memchr::memchr(0, rest)?;
        self.at += end + 1;
        rest.get(..end)
    }
}

/// The byte that stands for NULL in a text row.
pub const NULL: u8 = 0xFB;

/// Appends a length-encoded integer.
pub fn put_int(out: &mut Vec<u8>, n: u64) {
    let b = n.to_le_bytes();
    match n {
        0..=0xFA => out.push(b[0]),
        0xFB..=0xFFFF => out.extend_from_slice(&[0xFC, b[0], b[1]]),
        0x1_0000..=0xFF_FFFF => out.extend_from_slice(&[0xFD, b[0], b[1], b[2]]),
        _ => {
            out.push(0xFE);
            out.extend_from_slice(&b);
        }
    }
}

/// Bytes that [`put_int`] appends.
pub const fn int_size(n: u64) -> usize {
    match n {
        0..=0xFA => 1,
        0xFB..=0xFFFF => 3,
        0x1_0000..=0xFF_FFFF => 4,
        _ => 9,
    }
}

/// Appends a length-encoded string.
pub fn put_bytes(out: &mut Vec<u8>, b: &[u8]) {
    put_int(out, b.len() as u64);
    out.extend_from_slice(b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn borders_have_the_right_width() {
        for (n, width) in [
            (0, 1),
            (0xFA, 1),
            (0xFB, 3),
            (0xFFFF, 3),
            (0x1_0000, 4),
            (0xFF_FFFF, 4),
            (0x100_0000, 9),
            (u64::MAX, 9),
        ] {
            let mut out = Vec::new();
            put_int(&mut out, n);
            assert_eq!((out.len(), int_size(n)), (width, width));
            let mut r = Reader::new(&out);
            assert_eq!(r.lenenc_int(), Some(n));
            assert!(r.is_empty());
            for cut in 0..width {
                let mut r = Reader::new(&out[..cut]);
                assert_eq!(r.lenenc_int(), None);
                assert_eq!(r.pos(), 0, "a short read leaves the position");
            }
        }
        assert_eq!(Reader::new(&[0xFB]).lenenc_int(), None);
        assert_eq!(Reader::new(&[0xFF]).lenenc_int(), None);
        assert_eq!(Reader::new(&[0xFB]).nullable_bytes(), Some(None));
    }

    #[test]
    fn nul_strings() {
        let mut r = Reader::new(b"ab\0\0c");
        assert_eq!(r.nul_bytes(), Some(&b"ab"[..]));
        assert_eq!(r.nul_bytes(), Some(&b""[..]));
        assert_eq!(r.nul_bytes(), None);
        assert_eq!(r.rest(), b"c");
        assert_eq!(r.rest(), b"");
    }

    proptest! {
        #[test]
        fn strings_round_trip(b in proptest::collection::vec(any::<u8>(), 0..700)) {
            let mut out = Vec::new();
            put_bytes(&mut out, &b);
            prop_assert_eq!(Reader::new(&out).lenenc_bytes(), Some(&b[..]));
        }

        #[test]
        fn never_past_the_end(b in proptest::collection::vec(any::<u8>(), 0..40), at in 0usize..50) {
            let mut r = Reader::at(&b, at);
            while r.lenenc_bytes().is_some() || r.u24().is_some() || r.nul_bytes().is_some() {}
            prop_assert!(r.pos() <= b.len().max(at));
        }
    }
}
