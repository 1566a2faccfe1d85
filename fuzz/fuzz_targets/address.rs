//! Fuzzes addresses: a printed address parses as itself, and an address from the kernel can be printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use udgram::{Address, SUN_PATH_LEN, fuzzing};

/// Checks that a printed address parses as itself.
fn check_printed(address: &Address<'_>) {
    let written = address.to_os_string();
    let again = Address::parse(written.as_encoded_bytes()).expect("a printed address parses");
    match (&again, address) {
        // A pathname that begins with '@' is written with './' before it.
        (Address::Pathname(again), Address::Pathname(path)) if path.starts_with(b"@") => {
            assert_eq!(again.strip_prefix(b"./"), Some(&path[..]));
        }
        _ => assert_eq!(&again, address),
    }
    let shown = address.to_string();
    if !shown.contains('\u{fffd}') {
        assert_eq!(shown.as_bytes(), written.as_encoded_bytes());
    }
    assert!(!address.quoted().to_string().chars().any(char::is_control));
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(address) = Address::parse(bytes) {
        check_printed(&address);
    }
    let Some((len, name)) = bytes.split_first() else {
        return;
    };
    let mut sun_path = [0; SUN_PATH_LEN];
    let used = name.len().min(SUN_PATH_LEN);
    sun_path[..used].copy_from_slice(&name[..used]);
    check_printed(&fuzzing::address(&sun_path, usize::from(*len)));
});
