//! Socket addresses as people write them: a pathname, `@abstract`, or none at all.

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::quoted::Quoted;
use nix::libc;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// How many bytes of name `sun_path` holds: 108, on every Linux.
pub const SUN_PATH_LEN: usize = 108;

/// The address of a Unix socket, unix(7).
///
/// [`parse`](Self::parse) and `Display` round-trip: `/run/app.sock` and `./s` are pathnames,
/// `@name` is abstract (with `\\`, `\0` and `\xHH` for a backslash, a NUL, a byte), `./@name` is
/// the pathname `@name`, and the empty string is no name at all.
///
/// ```
/// use udgram::Address;
///
/// let address = Address::parse(b"@tool\\0\\xff")?;
/// assert_eq!(address, Address::Abstract(b"tool\0\xff".into()));
/// assert_eq!(address.to_string(), "@tool\\0\\xff");
/// assert_eq!(Address::parse(b"./@name")?.to_string(), "./@name");
/// # Ok::<(), udgram::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(alias = "sockaddr_un")]
pub enum Address<'a> {
    /// No name: what a socket has that was never bound. Nobody can send to it.
    Unnamed,
    /// A file; any bytes but NUL, of any length.
    Pathname(Cow<'a, [u8]>),
    /// A name outside the file system, any bytes, at most 107 of them; it belongs to the network
    /// namespace and has no permissions.
    Abstract(Cow<'a, [u8]>),
}

impl<'a> Address<'a> {
    /// Reads an address as it is written on a command line.
    ///
    /// Fails with [`ErrorKind::Unusable`] on a NUL in a pathname, an unknown escape in an
    /// abstract name, and an abstract name of more than 107 bytes.
    pub fn parse(written: &'a [u8]) -> Result<Self> {
        let refuse = |cause: &'static str| {
            let subject = Subject::File(OsStr::from_bytes(written).into());
            Err(Error::new(
                ErrorKind::Unusable,
                "use the address",
                subject,
                cause,
            ))
        };
        let address = match written {
            [] => Self::Unnamed,
            [b'@', name @ ..] if !name.contains(&b'\\') => Self::Abstract(name.into()),
            [b'@', name @ ..] => match unescape(name) {
                Some(name) => Self::Abstract(name.into()),
                None => return refuse(r"a backslash in it must begin \\, \0 or \xHH"),
            },
            path if path.contains(&0) => return refuse("a pathname cannot contain a NUL"),
            path => Self::Pathname(path.into()),
        };
        match &address {
            Self::Abstract(name) if name.len() >= SUN_PATH_LEN => {
                refuse("an abstract name has at most 107 bytes")
            }
            _ => Ok(address),
        }
    }

    /// Decodes what the kernel wrote: `sun_path` and the length it gave for the whole
    /// `sockaddr_un`, which may be more than there is room for.
    pub(crate) fn from_raw(sun_path: &'a [u8; SUN_PATH_LEN], len: usize) -> Self {
        let used = len
            .saturating_sub(size_of::<libc::sa_family_t>())
            .min(SUN_PATH_LEN);
        match &sun_path[..used] {
            [] => Self::Unnamed,
            [0, name @ ..] => Self::Abstract(name.into()),
            path => {
                // A name of 108 bytes has no NUL at its end.
                let end = memchr::memchr(0, path).unwrap_or(path.len());
                Self::Pathname(path[..end].into())
            }
        }
    }

    /// The same address, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Address<'static> {
        match self {
            Self::Unnamed => Address::Unnamed,
            Self::Pathname(path) => Address::Pathname(path.into_owned().into()),
            Self::Abstract(name) => Address::Abstract(name.into_owned().into()),
        }
    }

    /// The pathname, if it is one.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Pathname(path) => Some(Path::new(OsStr::from_bytes(path))),
            _ => None,
        }
    }

    /// The address as it is written on a command line, in its exact bytes: what `Display` shows,
    /// but for a pathname that is not UTF-8.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        match self {
            Self::Pathname(path) if path.first() == Some(&b'@') => {
                OsString::from_vec([b"./", path.as_ref()].concat())
            }
            Self::Pathname(path) => OsStr::from_bytes(path).to_owned(),
            named => named.to_string().into(),
        }
    }

    /// The address for a message: in quotes, on one line; an unnamed one as `an unnamed socket`.
    #[must_use]
    pub fn quoted(&self) -> impl fmt::Display + '_ {
        struct Message<'m>(&'m Address<'m>);
        impl fmt::Display for Message<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Address::Unnamed => f.write_str("an unnamed socket"),
                    named => Quoted(&named.to_os_string()).fmt(f),
                }
            }
        }
        Message(self)
    }
}

/// As it is written on a command line; the unnamed address is the empty string. A pathname that
/// is not UTF-8 shows replacement characters: only its bytes name it.
impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => Ok(()),
            Self::Pathname(path) => {
                if path.first() == Some(&b'@') {
                    f.write_str("./")?;
                }
                for chunk in path.utf8_chunks() {
                    f.write_str(chunk.valid())?;
                    if !chunk.invalid().is_empty() {
                        f.write_str("\u{fffd}")?;
                    }
                }
                Ok(())
            }
            Self::Abstract(name) => {
                f.write_str("@")?;
                for chunk in name.utf8_chunks() {
                    for character in chunk.valid().chars() {
                        match character {
                            '\\' => f.write_str(r"\\")?,
                            '\0' => f.write_str(r"\0")?,
                            control if control.is_control() => {
                                for byte in control.encode_utf8(&mut [0; 4]).bytes() {
                                    write!(f, "\\x{byte:02x}")?;
                                }
                            }
                            other => fmt::Write::write_char(f, other)?,
                        }
                    }
                    for byte in chunk.invalid() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', b'0', rest @ ..] => {
                bytes.push(0);
                rest
            }
            [b'\\', b'x', high, low, rest @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(name: &[u8], len: usize) -> Address<'static> {
        let mut sun_path = [0; SUN_PATH_LEN];
        sun_path[..name.len()].copy_from_slice(name);
        Address::from_raw(&sun_path, len).into_owned()
    }

    #[test]
    fn the_kernels_forms_are_told_apart() {
        assert_eq!(raw(b"", 0), Address::Unnamed);
        assert_eq!(raw(b"", 2), Address::Unnamed);
        assert_eq!(raw(b"", 3), Address::Abstract(b"".into()));
        assert_eq!(raw(b"\0a\0", 5), Address::Abstract(b"a\0".into()));
        assert_eq!(raw(b"/s\0", 5), Address::Pathname(b"/s".into()));
    }

    #[test]
    fn a_name_of_108_bytes_without_nul_is_read_no_further() {
        let name = [b'p'; SUN_PATH_LEN];
        assert_eq!(raw(&name, 110), Address::Pathname(name.as_slice().into()));
        assert_eq!(raw(&name, 111), Address::Pathname(name.as_slice().into()));
    }

    #[test]
    fn every_abstract_name_can_be_pasted_back() {
        for byte in 0..=u8::MAX {
            for name in [
                vec![byte],
                vec![byte, b'0'],
                vec![b'\\', byte],
                vec![b'x', byte, byte],
            ] {
                let address = Address::Abstract(name.into());
                assert_eq!(
                    Address::parse(address.to_string().as_bytes()).unwrap(),
                    address
                );
            }
        }
    }

    #[test]
    fn what_no_address_is_is_refused() {
        for written in [&b"@a\\"[..], b"@\\x1", b"@\\xg0", b"@\\n", b"a\0b"] {
            assert_eq!(
                Address::parse(written).unwrap_err().kind(),
                ErrorKind::Unusable
            );
        }
        let name = [b'@'; 109];
        assert!(Address::parse(&name[..108]).is_ok());
        assert!(Address::parse(&name).is_err());
    }
}
