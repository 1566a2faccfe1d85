//! Finds out whether wpa_supplicant runs on this kernel.

use std::path::Path;

/// Returns whether wpa_supplicant, which has printed this with `-v`, runs here. From 2.11 on, it ends on a kernel
/// without nl80211, whatever the driver that it is to use.
pub(crate) fn runs(version: &str) -> bool {
    let numbers = version
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v')?.split_once('.'));
    let (major, rest) = numbers.unwrap();
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    let number = |digits: &str| digits.parse::<u32>().unwrap();
    // The class of the devices of nl80211.
    (number(major), number(minor)) < (2, 11) || Path::new("/sys/class/ieee80211").exists()
}
