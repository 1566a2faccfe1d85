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
