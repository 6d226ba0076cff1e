//! DECIMAL as it stands in a row image: groups of nine digits in four bytes,
//! big endian, the sign in the first bit, negative values complemented.

use std::fmt::Write;

use super::DecodeError;
use crate::wire::Reader;

/// Bytes that 0 to 9 leftover digits take.
const LEFTOVER: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// The largest precision a server accepts.
const PRECISION_MAX: usize = 65;

/// Length in bytes of a value of DECIMAL(precision, scale).
pub(crate) fn length(precision: u8, scale: u8) -> Option<usize> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    if precision == 0 || precision > PRECISION_MAX || scale > precision {
        return None;
    }
    let whole = precision - scale;
    let part = |digits: usize| (digits / 9) * 4 + LEFTOVER.get(digits % 9).copied().unwrap_or(0);
    Some(part(whole) + part(scale))
}

/// Reads a value as text: `-12.340`. All digits of the scale are printed.
pub(crate) fn read(r: &mut Reader<'_>, precision: u8, scale: u8) -> Result<String, DecodeError> {
    let at = r.pos();
    let bad = DecodeError::new("DECIMAL", at);
    let length = length(precision, scale).ok_or(bad.clone())?;
    let raw = r.bytes(length).ok_or(bad.clone())?;
    let mut bytes = raw.to_vec();
    let negative = bytes.first().is_none_or(|b| b & 0x80 == 0);
    if let Some(first) = bytes.first_mut() {
        *first ^= 0x80;
    }
    if negative {
        for b in &mut bytes {
            *b = !*b;
        }
    }
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    let whole = precision - scale;
    let mut at = 0;
    let mut take = |digits: usize| -> Option<u32> {
        let n = if digits == 9 {
            4
        } else {
            LEFTOVER.get(digits).copied()?
        };
        let part = bytes.get(at..at + n)?;
        at += n;
        let value = part.iter().fold(0u64, |v, b| v << 8 | u64::from(*b));
        let value = u32::try_from(value).ok()?;
        (value < 10u32.pow(u32::try_from(digits).ok()?)).then_some(value)
    };
    let mut digits = String::with_capacity(precision + 3);
    for group in std::iter::once(whole % 9).chain(std::iter::repeat_n(9, whole / 9)) {
        if group > 0 {
            let value = take(group).ok_or(bad.clone())?;
            let _ = write!(digits, "{value:0group$}");
        }
    }
    let trimmed = digits.trim_start_matches('0');
    let mut text = String::with_capacity(precision + 3);
    if negative {
        text.push('-');
    }
    text.push_str(if trimmed.is_empty() { "0" } else { trimmed });
    if scale > 0 {
        text.push('.');
        for group in std::iter::repeat_n(9, scale / 9).chain(std::iter::once(scale % 9)) {
            if group > 0 {
                let value = take(group).ok_or(bad.clone())?;
                let _ = write!(text, "{value:0group$}");
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], precision: u8, scale: u8) -> Option<String> {
        read(&mut Reader::new(bytes), precision, scale).ok()
    }

    #[test]
    fn known_values() {
        // The manual's example: 1234567890.1234 in DECIMAL(14,4).
        let positive = [0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        assert_eq!(decode(&positive, 14, 4).as_deref(), Some("1234567890.1234"));
        let negative: Vec<u8> = positive.iter().map(|b| !b).collect();
        assert_eq!(
            decode(&negative, 14, 4).as_deref(),
            Some("-1234567890.1234")
        );
        assert_eq!(decode(&[0x80], 1, 0).as_deref(), Some("0"));
        assert_eq!(decode(&[0x85], 2, 2).as_deref(), Some("0.05"));
        assert_eq!(decode(&[0x7A], 2, 2).as_deref(), Some("-0.05"));
    }

    #[test]
    fn bad_input_is_refused() {
        assert_eq!(decode(&[], 5, 2), None);
        assert_eq!(decode(&[0x80], 0, 0), None);
        assert_eq!(decode(&[0x80; 40], 66, 0), None);
        assert_eq!(decode(&[0x80; 40], 5, 6), None);
        // Ten in a place for one digit.
        assert_eq!(decode(&[0x8A], 1, 0), None);
        for p in 1..=65 {
            for s in 0..=p.min(38) {
                let n = length(p, s).unwrap();
                assert!(decode(&vec![0x80; n], p, s).is_some() || n > 1);
                assert_eq!(decode(&vec![0x80; n - 1], p, s), None);
            }
        }
    }
}
