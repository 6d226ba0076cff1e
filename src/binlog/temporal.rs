//! Dates and times as they stand in a row image, read into the text that
//! a server with `time_zone='+00:00'` prints, with all digits of the fraction.

use super::DecodeError;
use crate::wire::Reader;

/// Reads `n` bytes, big endian.
fn big(r: &mut Reader<'_>, n: usize) -> Result<u64, DecodeError> {
    let at = r.pos();
    let bytes = r.bytes(n).ok_or(DecodeError::new("date or time", at))?;
    Ok(bytes.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
}

/// Bytes of a fraction of `digits` (0 to 6) digits: two digits a byte.
pub(crate) fn fraction_length(digits: u8) -> Option<usize> {
    (digits <= 6).then(|| usize::from(digits).div_ceil(2))
}

/// `.123` of `value` hundred-units (as stored: always an even number of
/// digits).
fn fraction(value: u64, digits: u8) -> String {
    if digits == 0 {
        return String::new();
    }
    let stored = usize::from(digits).div_ceil(2) * 2;
    let text = format!("{value:0stored$}");
    let shown = text.get(..usize::from(digits)).unwrap_or(&text);
    format!(".{shown}")
}

/// Whether a stored fraction has no more digits than its bytes can show.
fn fraction_fits(value: u64, digits: u8) -> bool {
    let stored = u32::from(digits).div_ceil(2) * 2;
    value < 10u64.pow(stored)
}

fn checked(fits: bool, at: usize) -> Result<(), DecodeError> {
    if fits {
        Ok(())
    } else {
        Err(DecodeError::new("fraction of a second", at))
    }
}

/// DATE: three bytes, little endian.
pub(crate) fn date(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let at = r.pos();
    let v = r.u24().ok_or(DecodeError::new("DATE", at))?;
    Ok(format!("{:04}-{:02}-{:02}", v >> 9, v >> 5 & 15, v & 31))
}

/// DATETIME of MySQL 5.6 and later: 40 bits, big endian, and a fraction.
pub(crate) fn datetime2(r: &mut Reader<'_>, digits: u8) -> Result<String, DecodeError> {
    let at = r.pos();
    let bad = DecodeError::new("DATETIME", at);
    let packed = big(r, 5)?;
    let micros = big(r, fraction_length(digits).ok_or(bad.clone())?)?;
    checked(fraction_fits(micros, digits), at)?;
    // The first bit is the sign, always set.
    let value = packed.checked_sub(0x80_0000_0000).ok_or(bad)?;
    let (date, time) = (value >> 17, value & 0x1_FFFF);
    let (month, day) = (date >> 5, date & 31);
    Ok(format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}",
        month / 13,
        month % 13,
        day,
        time >> 12,
        time >> 6 & 63,
        time & 63,
        fraction(micros, digits)
    ))
}

/// TIMESTAMP of MySQL 5.6 and later, in UTC: seconds, big endian, and a
/// fraction. 0 is the zero date.
pub(crate) fn timestamp2(r: &mut Reader<'_>, digits: u8) -> Result<String, DecodeError> {
    let at = r.pos();
    let seconds = big(r, 4)?;
    let width = fraction_length(digits).ok_or(DecodeError::new("TIMESTAMP", at))?;
    let micros = big(r, width)?;
    checked(fraction_fits(micros, digits), at)?;
    Ok(format!("{}{}", utc(seconds), fraction(micros, digits)))
}

/// `1970-01-01 00:00:01` of seconds since 1970; 0 is the zero date.
pub(crate) fn utc(seconds: u64) -> String {
    if seconds == 0 {
        return "0000-00-00 00:00:00".to_owned();
    }
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The Gregorian date of a day counted from 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last of a year;
    // 400 years are 146,097 days. 719,468 days lie between 0000-03-01 and 1970.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// TIME of MySQL 5.6 and later: a 24-bit value with its fraction behind it,
/// offset so that it sorts as unsigned bytes.
pub(crate) fn time2(r: &mut Reader<'_>, digits: u8) -> Result<String, DecodeError> {
    let at = r.pos();
    let bad = DecodeError::new("TIME", at);
    let width = fraction_length(digits).ok_or(bad)?;
    let packed = big(r, 3 + width)?;
    let bits = 8 * width as u32;
    // The whole number, fraction included, is stored plus 0x800000 << bits.
    let signed = i128::from(packed) - (0x80_0000_i128 << bits);
    let negative = signed < 0;
    let magnitude = u64::try_from(signed.unsigned_abs()).unwrap_or_default();
    let (time, micros) = (magnitude >> bits, magnitude & ((1u64 << bits) - 1));
    checked(fraction_fits(micros, digits), at)?;
    Ok(format!(
        "{}{:02}:{:02}:{:02}{}",
        if negative { "-" } else { "" },
        time >> 12 & 0x3FF,
        time >> 6 & 63,
        time & 63,
        fraction(micros, digits)
    ))
}

/// TIME before MySQL 5.6, and of MariaDB without `mysql56_temporal_format`,
/// without a fraction: a decimal number, three bytes.
pub(crate) fn old_time(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let at = r.pos();
    let raw = r.u24().ok_or(DecodeError::new("TIME", at))?;
    let negative = raw & 0x80_0000 != 0;
    let v = if negative { 0x100_0000 - raw } else { raw };
    let sign = if negative { "-" } else { "" };
    Ok(format!(
        "{sign}{:02}:{:02}:{:02}",
        v / 10_000,
        v / 100 % 100,
        v % 100
    ))
}

/// DATETIME of the same age: a decimal number, eight bytes.
pub(crate) fn old_datetime(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let at = r.pos();
    let v = r.u64().ok_or(DecodeError::new("DATETIME", at))?;
    let (date, time) = (v / 1_000_000, v % 1_000_000);
    Ok(format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date / 10_000,
        date / 100 % 100,
        date % 100,
        time / 10_000,
        time / 100 % 100,
        time % 100
    ))
}

/// TIMESTAMP of the same age: seconds, four bytes, little endian.
pub(crate) fn old_timestamp(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let at = r.pos();
    let seconds = r.u32().ok_or(DecodeError::new("TIMESTAMP", at))?;
    Ok(utc(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(utc(1), "1970-01-01 00:00:01");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(4_294_967_295), "2106-02-07 06:28:15");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(utc(0), "0000-00-00 00:00:00");
    }

    #[test]
    fn packed_times() {
        // -00:00:00.5 in TIME(1): 0x800000 shifted, minus 50.
        let stored = ((0x80_0000u32 << 8) - 50).to_be_bytes();
        let mut r = Reader::new(&stored);
        assert_eq!(time2(&mut r, 1).unwrap(), "-00:00:00.5");
        let mut r = Reader::new(&[0x80, 0, 0]);
        assert_eq!(time2(&mut r, 0).unwrap(), "00:00:00");
        assert!(time2(&mut Reader::new(&[0x80, 0]), 0).is_err());
        assert!(time2(&mut Reader::new(&[0x80; 9]), 7).is_err());
        let mut r = Reader::new(&[0x80, 0, 0, 0xFF]);
        assert!(time2(&mut r, 1).is_err(), "255 hundredths");
    }

    #[test]
    fn short_input_is_refused() {
        for n in 0..5 {
            assert!(datetime2(&mut Reader::new(&vec![0x80; n]), 0).is_err());
        }
        assert!(
            datetime2(&mut Reader::new(&[0; 5]), 0).is_err(),
            "no sign bit"
        );
        assert!(date(&mut Reader::new(&[1, 2])).is_err());
        assert!(old_datetime(&mut Reader::new(&[0; 7])).is_err());
    }
}
