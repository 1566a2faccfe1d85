//! Packets that travel in a memfd: an empty datagram carries it; memfd_create(2).

use crate::descriptor::describe_descriptor;
use crate::error::strerror;
use crate::protocol::{MAX_PACKET_LEN, ParseError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Makes a memfd with these bytes that cannot be changed any more, which is what systemd-journald accepts.
pub(crate) fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // With the sysctl vm.memfd_noexec=2, every memfd must have this flag; before Linux 6.3 it is EINVAL.
    let noexec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let memfd = match memfd_create(c"packet", flags | noexec) {
        Err(Errno::EINVAL) => memfd_create(c"packet", flags)?,
        memfd => memfd?,
    };
    let mut file = File::from(memfd);
    file.write_all(bytes)?;
    let seals = [
        SealFlag::F_SEAL_SHRINK,
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_WRITE,
        SealFlag::F_SEAL_SEAL,
    ];
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals.into_iter().collect()))?;
    Ok(file.into())
}

/// Returns the packet of an empty datagram with these descriptors: the contents of the memfd that it carries.
/// `None` if it has no descriptors.
pub(crate) fn packet(descriptors: &[OwnedFd]) -> Result<Option<Vec<u8>>, ParseError> {
    match descriptors {
        [] => Ok(None),
        [memfd] => contents(memfd.as_fd()).map(Some),
        _ => {
            let count = descriptors.len();
            let message = format!("expected one memfd, not {count} descriptors");
            Err(ParseError::new(0, message))
        }
    }
}

/// Returns a copy of the contents of a memfd. Another process may change it meanwhile, if it is not sealed, but
/// never the copy.
fn contents(memfd: BorrowedFd<'_>) -> Result<Vec<u8>, ParseError> {
    let refuse = |message: String| ParseError::new(0, message);
    // Only files in memory have seals (`memfd_file_seals_ptr`). Reading any other file, such as a pipe or a file
    // of FUSE, could block.
    if fcntl(memfd, FcntlArg::F_GET_SEALS).is_err() {
        let kind = describe_descriptor(memfd).kind;
        return Err(refuse(format!(
            "expected a memfd, not a descriptor of the kind {kind}"
        )));
    }
    let unreadable = |error: io::Error| {
        let why = strerror(error.raw_os_error().unwrap_or(libc::EIO));
        refuse(format!("cannot read the memfd: {why}"))
    };
    let file = File::from(memfd.try_clone_to_owned().map_err(unreadable)?);
    let len = file.metadata().map_err(unreadable)?.len();
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= MAX_PACKET_LEN)
        .ok_or_else(|| {
            let limit = MAX_PACKET_LEN >> 20;
            refuse(format!(
                "expected at most {limit} MiB, the memfd has {len} bytes"
            ))
        })?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| refuse(format!("no memory for the {len} bytes of the memfd")))?;
    bytes.resize(len, 0);
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], read as u64) {
            // It has shrunk.
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe;

    #[test]
    fn a_sealed_memfd_is_read_whole_and_cannot_be_written() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let memfd = sealed(&bytes).unwrap();
        assert_eq!(
            packet(&[memfd.try_clone().unwrap()]).unwrap().unwrap(),
            bytes
        );
        assert_eq!(fcntl(&memfd, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
        let mut file = File::from(memfd);
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(1).is_err());
    }

    #[test]
    fn what_is_no_memfd_or_too_long_is_refused_at_once() {
        let refusal = |descriptor: OwnedFd| packet(&[descriptor]).unwrap_err().message().to_owned();
        let (reader, _writer) = pipe().unwrap();
        assert!(refusal(reader).ends_with("kind pipe"));
        let zero = File::open("/dev/zero").unwrap();
        assert!(refusal(zero.into()).ends_with("kind char"));
        let proc = File::open("/proc/self/status").unwrap();
        assert!(refusal(proc.into()).ends_with("kind file"));
        let memfd = File::from(memfd_create(c"huge", MFdFlags::MFD_CLOEXEC).unwrap());
        memfd.set_len(1 << 40).unwrap();
        assert_eq!(
            refusal(memfd.into()),
            "expected at most 64 MiB, the memfd has 1099511627776 bytes"
        );
        let two = [sealed(b"").unwrap(), sealed(b"").unwrap()];
        assert_eq!(
            packet(&two).unwrap_err().message(),
            "expected one memfd, not 2 descriptors"
        );
        assert_eq!(packet(&[]).unwrap(), None);
    }
}
