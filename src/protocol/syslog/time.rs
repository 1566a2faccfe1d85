//! The times of log messages.

use std::ops::RangeInclusive;

/// Returns the number of two digits at a place, if it is in the range.
fn two_digits(bytes: &[u8], at: usize, range: RangeInclusive<u8>) -> Option<u8> {
    let digits = bytes.get(at..at + 2)?;
    let digit = |byte: u8| byte.is_ascii_digit().then(|| byte - b'0');
    let number = digit(digits[0])? * 10 + digit(digits[1])?;
    range.contains(&number).then_some(number)
}

/// Returns whether `HH:MM:SS` is at a place.
fn has_clock_time(bytes: &[u8], at: usize) -> bool {
    two_digits(bytes, at, 0..=23).is_some()
        && bytes.get(at + 2) == Some(&b':')
        && two_digits(bytes, at + 3, 0..=59).is_some()
        && bytes.get(at + 5) == Some(&b':')
        && two_digits(bytes, at + 6, 0..=59).is_some()
}

/// Returns the length of a time of RFC 3164 at the start, such as `Nov  2 08:41:00`. Some programs write the day with
/// a zero in place of the space.
pub(super) fn bsd_time_len(bytes: &[u8]) -> Option<usize> {
    const MONTHS: [&[u8]; 12] = [
        b"Jan ", b"Feb ", b"Mar ", b"Apr ", b"May ", b"Jun ", b"Jul ", b"Aug ", b"Sep ", b"Oct ",
        b"Nov ", b"Dec ",
    ];
    MONTHS.iter().find(|month| bytes.starts_with(month))?;
    match bytes.get(4..6)? {
        [b' ', b'1'..=b'9'] => {}
        _ => {
            two_digits(bytes, 4, 1..=31)?;
        }
    }
    (bytes.get(6) == Some(&b' ') && has_clock_time(bytes, 7)).then_some(15)
}

/// Returns the length of a time of RFC 3339 at the start, with up to six digits of a second, as RFC 5424 permits it.
pub(super) fn rfc3339_len(bytes: &[u8]) -> Option<usize> {
    let year = bytes.get(..4)?;
    if !year.iter().all(u8::is_ascii_digit) || bytes.get(4) != Some(&b'-') {
        return None;
    }
    let month = two_digits(bytes, 5, 1..=12)?;
    let days = match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    two_digits(bytes, 8, 1..=days)?;
    if bytes.get(7) != Some(&b'-') || bytes.get(10) != Some(&b'T') || !has_clock_time(bytes, 11) {
        return None;
    }
    let mut at = 19;
    if bytes.get(at) == Some(&b'.') {
        let digits = bytes[at + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let count = digits.count();
        if !(1..=6).contains(&count) {
            return None;
        }
        at += 1 + count;
    }
    match bytes.get(at)? {
        b'Z' => Some(at + 1),
        b'+' | b'-' => {
            two_digits(bytes, at + 1, 0..=23)?;
            two_digits(bytes, at + 4, 0..=59)?;
            (bytes[at + 3] == b':').then_some(at + 6)
        }
        _ => None,
    }
}

/// Returns whether this is a time of RFC 5424.
pub(super) fn is_rfc5424_time(time: &[u8]) -> bool {
    rfc3339_len(time) == Some(time.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_rfc_5424_has_a_date_a_time_of_day_and_a_zone() {
        for time in [
            "2026-01-31T00:00:00Z",
            "2026-02-29T23:59:59Z",
            "2026-04-30T08:41:00.1Z",
            "2026-12-31T08:41:00.123456Z",
            "2026-11-02T08:41:00+00:00",
            "2026-11-02T08:41:00.5-23:59",
        ] {
            assert!(is_rfc5424_time(time.as_bytes()), "{time}");
            // It is found before other text, and no part of it is a time.
            let longer = format!("{time} x");
            assert_eq!(rfc3339_len(longer.as_bytes()), Some(time.len()), "{time}");
            for len in 0..time.len() {
                assert_eq!(rfc3339_len(&time.as_bytes()[..len]), None, "{time} {len}");
            }
        }
        for time in [
            "x026-01-31T00:00:00Z",
            "2026x01-31T00:00:00Z",
            "2026-01x31T00:00:00Z",
            "2026-00-31T00:00:00Z",
            "2026-13-31T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-06-31T00:00:00Z",
            "2026-09-31T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-01-31 00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T00:60:00Z",
            "2026-01-31T00:00:60Z",
            "2026-01-31T00x00:00Z",
            "2026-01-31T00:00x00Z",
            "2026-01-31T00:00:00.Z",
            "2026-01-31T00:00:00.1234567Z",
            "2026-01-31T00:00:00z",
            "2026-01-31T00:00:00+24:00",
            "2026-01-31T00:00:00+00:60",
            "2026-01-31T00:00:00+00x00",
            "2026-01-31T00:00:00Z ",
        ] {
            assert!(!is_rfc5424_time(time.as_bytes()), "{time}");
        }
    }

    #[test]
    fn a_time_of_rfc_3164_has_a_month_a_day_and_a_time_of_day() {
        for time in [
            "Jan  1 00:00:00 x",
            "Feb 01 23:59:59 x",
            "Nov 30 08:41:00 x",
            "Dec 31 08:41:00",
        ] {
            assert_eq!(bsd_time_len(time.as_bytes()), Some(15), "{time}");
            for len in 0..15 {
                assert_eq!(bsd_time_len(&time.as_bytes()[..len]), None, "{time} {len}");
            }
        }
        for time in [
            "jan  1 00:00:00",
            "Jan   1 00:00:00",
            "Jan  0 00:00:00",
            "Jan 00 00:00:00",
            "Jan 32 00:00:00",
            "Jan  1x00:00:00",
            "Jan  1 24:00:00",
            "Jan  1 00:60:00",
            "Jan  1 00:00:60",
            "Jan  1 00.00:00",
            "Jan  1 00:00.00",
        ] {
            assert_eq!(bsd_time_len(time.as_bytes()), None, "{time}");
        }
    }
}
