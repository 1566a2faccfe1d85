//! Socket addresses as users write them: a pathname, an abstract name `@name`, or none.

use crate::quoted::Quoted;
use nix::libc;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The length of `sun_path` in bytes: 108, on every Linux.
pub const SUN_PATH_LEN: usize = 108;

/// The address of a Unix socket; unix(7).
///
/// [`parse`](Self::parse) and `Display` round-trip: `/run/app.sock` and `./s` are pathnames, `@name` is
/// abstract (with `\\`, `\0` and `\xHH` for a backslash, a NUL, a byte), `./@name` is the pathname
/// `@name`, and the empty string is the unnamed address. [`FromStr`] and `TryFrom<&str>` do the same as
/// [`parse`](Self::parse). A [`Path`] is always a pathname.
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
    /// The address of a socket that was never bound. Nothing can be sent to it.
    Unnamed,
    /// A file: any bytes but NUL, of any length.
    Pathname(Cow<'a, [u8]>),
    /// A name outside the file system: at most 107 bytes of any value. It belongs to the network
    /// namespace and has no permissions.
    Abstract(Cow<'a, [u8]>),
}

impl<'a> Address<'a> {
    /// Parses an address as users write it.
    ///
    /// Fails on a NUL in a pathname, an unknown escape in an abstract name, and an abstract name of
    /// more than 107 bytes.
    pub fn parse(written: &'a [u8]) -> Result<Self, AddressError> {
        let refuse = |cause| Err(AddressError::unusable(OsStr::from_bytes(written), cause));
        let address = match written {
            [] => Self::Unnamed,
            [b'@', name @ ..] if !name.contains(&b'\\') => Self::Abstract(name.into()),
            [b'@', name @ ..] => match unescape(name) {
                Some(name) => Self::Abstract(name.into()),
                None => return refuse(r"a backslash in it must begin \\, \0 or \xHH"),
            },
            path if path.contains(&0) => return refuse(NUL_IN_PATHNAME),
            path => Self::Pathname(path.into()),
        };
        match &address {
            Self::Abstract(name) if name.len() >= SUN_PATH_LEN => {
                refuse("an abstract name has at most 107 bytes")
            }
            _ => Ok(address),
        }
    }

    /// Decodes an address from the kernel: `sun_path` and the length of the whole `sockaddr_un`, which
    /// may be more than its size.
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

    /// Decodes the bytes of a `sun_path`, which may be fewer than it has room for.
    pub(crate) fn from_sun_path(bytes: &[u8]) -> Address<'static> {
        let mut sun_path = [0; SUN_PATH_LEN];
        let used = bytes.len().min(SUN_PATH_LEN);
        sun_path[..used].copy_from_slice(&bytes[..used]);
        let len = size_of::<libc::sa_family_t>() + used;
        Address::from_raw(&sun_path, len).into_owned()
    }

    /// Returns the same address, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Address<'static> {
        match self {
            Self::Unnamed => Address::Unnamed,
            Self::Pathname(path) => Address::Pathname(path.into_owned().into()),
            Self::Abstract(name) => Address::Abstract(name.into_owned().into()),
        }
    }

    /// Returns the path of a pathname; `None` for other addresses.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Pathname(path) => Some(Path::new(OsStr::from_bytes(path))),
            _ => None,
        }
    }

    /// Returns the address as users write it, in its exact bytes: the text of `Display`, except for a
    /// pathname that is not UTF-8.
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

    /// Returns the address for a message: in quotes, on one line; `an unnamed socket` for an unnamed one.
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

/// Shows the address as users write it; the unnamed address is the empty string. A pathname that is not
/// UTF-8 shows replacement characters.
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
                            control if Quoted::escapes(control) => {
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

impl FromStr for Address<'static> {
    type Err = AddressError;

    fn from_str(written: &str) -> Result<Self, AddressError> {
        Address::parse(written.as_bytes()).map(Address::into_owned)
    }
}

impl<'a> TryFrom<&'a str> for Address<'a> {
    type Error = AddressError;

    fn try_from(written: &'a str) -> Result<Self, AddressError> {
        Address::parse(written.as_bytes())
    }
}

/// Makes a pathname, whatever it begins with; the empty path makes the unnamed address.
impl<'a> From<&'a Path> for Address<'a> {
    fn from(path: &'a Path) -> Self {
        match path.as_os_str().as_bytes() {
            [] => Self::Unnamed,
            path => Self::Pathname(path.into()),
        }
    }
}

/// Makes a pathname, whatever it begins with; the empty path makes the unnamed address.
impl From<PathBuf> for Address<'static> {
    fn from(path: PathBuf) -> Self {
        Address::from(path.as_path()).into_owned()
    }
}

impl<'a> From<&'a SocketAddr> for Address<'a> {
    fn from(address: &'a SocketAddr) -> Self {
        match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => path.into(),
            (None, Some(name)) => Self::Abstract(name.into()),
            (None, None) => Self::Unnamed,
        }
    }
}

impl From<SocketAddr> for Address<'static> {
    fn from(address: SocketAddr) -> Self {
        Address::from(&address).into_owned()
    }
}

/// Fails on a pathname of more than 107 bytes, which that type cannot hold.
impl TryFrom<&Address<'_>> for SocketAddr {
    type Error = AddressError;

    fn try_from(address: &Address<'_>) -> Result<Self, AddressError> {
        let converted = match address {
            Address::Unnamed => Self::from_pathname(""),
            Address::Pathname(path) => Self::from_pathname(OsStr::from_bytes(path)),
            Address::Abstract(name) => Self::from_abstract_name(name),
        };
        converted.map_err(|error| AddressError {
            operation: "convert the address",
            written: address.to_os_string(),
            cause: error.to_string().into(),
        })
    }
}

/// Names a socket: an [`Address`] or something that can be made one.
///
/// A `str` or `String` is parsed as [`Address::parse`] does: one that begins with `@` is an abstract
/// name. A [`Path`] or [`PathBuf`] is always a pathname.
///
/// ```
/// use std::path::Path;
/// use udgram::{Address, ToAddress};
///
/// assert_eq!("@app".to_address()?, Address::Abstract(b"app".into()));
/// assert_eq!(Path::new("@app").to_address()?, Address::Pathname(b"@app".into()));
/// # Ok::<(), udgram::Error>(())
/// ```
pub trait ToAddress {
    /// Returns the address.
    ///
    /// Fails if there is none, as [`Address::parse`] does.
    fn to_address(&self) -> Result<Address<'_>, AddressError>;
}

impl<T: ToAddress + ?Sized> ToAddress for &T {
    fn to_address(&self) -> Result<Address<'_>, AddressError> {
        (**self).to_address()
    }
}

impl ToAddress for Address<'_> {
    fn to_address(&self) -> Result<Address<'_>, AddressError> {
        Ok(match self {
            Self::Unnamed => Address::Unnamed,
            Self::Pathname(path) => Address::Pathname((&**path).into()),
            Self::Abstract(name) => Address::Abstract((&**name).into()),
        })
    }
}

impl ToAddress for str {
    fn to_address(&self) -> Result<Address<'_>, AddressError> {
        self.try_into()
    }
}

impl ToAddress for String {
    fn to_address(&self) -> Result<Address<'_>, AddressError> {
        self.as_str().to_address()
    }
}

impl ToAddress for Path {
    fn to_address(&self) -> Result<Address<'_>, AddressError> {
        if self.as_os_str().as_bytes().contains(&0) {
            return Err(AddressError::unusable(self.as_os_str(), NUL_IN_PATHNAME));
        }
        Ok(self.into())
    }
}

impl ToAddress for PathBuf {
    fn to_address(&self) -> Result<Address<'_>, AddressError> {
        self.as_path().to_address()
    }
}

impl ToAddress for SocketAddr {
    fn to_address(&self) -> Result<Address<'_>, AddressError> {
        Ok(self.into())
    }
}

const NUL_IN_PATHNAME: &str = "a pathname cannot contain a NUL";

/// Text that is not an address, or an address that a type cannot hold, and the cause.
///
/// It converts into [`Error`](crate::Error), with the kind
/// [`ErrorKind::Unusable`](crate::ErrorKind::Unusable) and the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    operation: &'static str,
    written: OsString,
    cause: Cow<'static, str>,
}

impl AddressError {
    fn unusable(written: &OsStr, cause: &'static str) -> Self {
        Self {
            operation: "use the address",
            written: written.to_owned(),
            cause: cause.into(),
        }
    }

    /// Returns the address as it was written.
    #[must_use]
    pub fn written(&self) -> &OsStr {
        &self.written
    }

    /// Returns the cause, without the operation and the address.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Returns the operation, the written address and the cause.
    pub(crate) fn into_parts(self) -> (&'static str, OsString, Cow<'static, str>) {
        (self.operation, self.written, self.cause)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, written, cause) = (self.operation, Quoted(&self.written), &self.cause);
        write!(f, "cannot {operation} {written}: {cause}")
    }
}

impl std::error::Error for AddressError {}

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
    use crate::sys::SockAddr;

    fn raw(name: &[u8], len: usize) -> Address<'static> {
        let mut sun_path = [0; SUN_PATH_LEN];
        sun_path[..name.len()].copy_from_slice(name);
        Address::from_raw(&sun_path, len).into_owned()
    }

    #[test]
    fn the_kernels_forms_are_distinguished() {
        assert_eq!(raw(b"", 0), Address::Unnamed);
        assert_eq!(raw(b"", 2), Address::Unnamed);
        assert_eq!(raw(b"", 3), Address::Abstract(b"".into()));
        assert_eq!(raw(b"\0a\0", 5), Address::Abstract(b"a\0".into()));
        assert_eq!(raw(b"/s\0", 5), Address::Pathname(b"/s".into()));
    }

    #[test]
    fn a_name_without_its_structure_has_exactly_its_bytes() {
        let decode = Address::from_sun_path;
        assert_eq!(decode(b""), Address::Unnamed);
        assert_eq!(decode(b"\0ab"), Address::Abstract(b"ab".into()));
        assert_eq!(decode(b"/s\0\0"), Address::Pathname(b"/s".into()));
        let name = [b'p'; SUN_PATH_LEN + 1];
        let cut = name[..SUN_PATH_LEN].into();
        assert_eq!(decode(&name), Address::Pathname(cut));
    }

    #[test]
    fn a_pathname_shows_replacement_characters_and_keeps_its_bytes() {
        let written = b"@a\xff/\xc3\xa4";
        let address = Address::Pathname(written.as_slice().into());
        assert_eq!(address.to_string(), "./@a\u{fffd}/\u{e4}");
        assert_eq!(
            address.to_os_string().as_bytes(),
            [&b"./"[..], written].concat()
        );
        assert_eq!(
            address.as_path(),
            Some(Path::new(OsStr::from_bytes(written)))
        );
        assert_eq!(Address::Abstract(b"a".into()).as_path(), None);
        assert_eq!(Address::Unnamed.as_path(), None);
    }

    #[test]
    fn a_name_of_108_bytes_without_nul_is_read_no_further() {
        let name = [b'p'; SUN_PATH_LEN];
        assert_eq!(raw(&name, 110), Address::Pathname(name.as_slice().into()));
        assert_eq!(raw(&name, 111), Address::Pathname(name.as_slice().into()));
    }

    #[test]
    fn every_abstract_name_can_be_pasted_back() {
        // These include NUL, the backslash, letters, control characters and bytes from 0x80 up.
        let step = if cfg!(miri) { 23 } else { 1 };
        for byte in (0..=u8::MAX).step_by(step) {
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
    fn an_invalid_address_is_refused() {
        for written in [&b"@a\\"[..], b"@\\x1", b"@\\xg0", b"@\\n", b"a\0b"] {
            assert_eq!(
                Address::parse(written).unwrap_err().written(),
                OsStr::from_bytes(written)
            );
        }
        let name = [b'@'; 109];
        assert!(Address::parse(&name[..108]).is_ok());
        assert!(Address::parse(&name).is_err());
    }

    #[test]
    fn an_address_converts_to_and_from_that_of_the_standard_library() {
        for written in ["", "/run/app.sock", "dir/s", "@app", r"@\0x\xff"] {
            let address: Address<'_> = written.parse().unwrap();
            let standard = SocketAddr::try_from(&address).unwrap();
            assert_eq!(Address::from(standard), address, "{written}");
        }
        let long = Address::from(PathBuf::from("p".repeat(200)));
        let error = SocketAddr::try_from(&long).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot convert the address 'ppp")
        );
    }

    #[test]
    fn a_string_may_be_abstract_and_a_path_is_a_pathname() {
        let abstract_name = Address::Abstract(b"name".into());
        assert_eq!("@name".to_address().unwrap(), abstract_name);
        assert_eq!("@name".to_owned().to_address().unwrap(), abstract_name);
        assert_eq!(abstract_name.to_address().unwrap(), abstract_name);
        let pathname = Address::Pathname(b"@name".into());
        assert_eq!(Path::new("@name").to_address().unwrap(), pathname);
        assert_eq!(PathBuf::from("@name").to_address().unwrap(), pathname);
        assert_eq!(Path::new("").to_address().unwrap(), Address::Unnamed);
        for refused in [
            "a\0b".to_address(),
            Path::new("a\0b").to_address(),
            r"@\x".to_address(),
        ] {
            assert!(refused.is_err());
        }
    }

    #[test]
    fn a_pathname_that_the_kernel_would_take_for_another_is_not_encoded() {
        for path in [&b""[..], b"\0abstract", b"/run/app\0.sock"] {
            assert!(SockAddr::new(&Address::Pathname(path.into())).is_none());
        }
    }
}
