//! bpf(2): maps and socket filters.

use nix::errno::Errno;
use nix::libc::{self, c_long};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

type Result<T, E = Errno> = std::result::Result<T, E>;

const MAP_CREATE: c_long = 0;
const MAP_LOOKUP_ELEM: c_long = 1;
const MAP_UPDATE_ELEM: c_long = 2;
const PROG_LOAD: c_long = 5;
const PROG_GET_NEXT_ID: c_long = 11;
const PROG_GET_FD_BY_ID: c_long = 13;
const MAP_GET_FD_BY_ID: c_long = 14;
const OBJ_GET_INFO_BY_FD: c_long = 15;

const PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// The number of times that a program is loaded again. EAGAIN: a signal came, such as SIGCONT, while the kernel
/// verified the program (`do_check`).
const LOADS: u32 = 5;
/// `BPF_OBJ_NAME_LEN`.
const NAME_LEN: usize = 16;

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    registers: u8,
    pub(crate) offset: i16,
    immediate: i32,
}

impl Instruction {
    pub(crate) const fn new(
        code: u8,
        destination: u8,
        source: u8,
        offset: i16,
        immediate: i32,
    ) -> Self {
        Self {
            code,
            // Two bit-fields of a C struct; their order depends on the byte order of the machine.
            registers: if cfg!(target_endian = "big") {
                destination << 4 | source
            } else {
                source << 4 | destination
            },
            offset,
            immediate,
        }
    }
}

/// The kind of a map, with its parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapKind {
    /// `BPF_MAP_TYPE_ARRAY` with one value of this size in bytes. It can be mapped.
    Value(u32),
    /// `BPF_MAP_TYPE_PROG_ARRAY` with one entry.
    Program,
    /// `BPF_MAP_TYPE_RINGBUF` of this size in bytes.
    Ring(u32),
}

#[derive(Default)]
#[repr(C, align(8))]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME_LEN],
    padding: u32,
}

#[derive(Default)]
#[repr(C, align(8))]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Default)]
#[repr(C, align(8))]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LEN],
}

#[derive(Default)]
#[repr(C, align(8))]
struct ById {
    id: u32,
    next: u32,
    open_flags: u32,
    padding: u32,
}

#[derive(Default)]
#[repr(C, align(8))]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_LEN],
}

/// The beginning of `struct bpf_map_info`.
#[derive(Default)]
#[repr(C)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; NAME_LEN],
}

/// Calls bpf(2).
///
/// # Safety
///
/// `T` must begin as the member of `union bpf_attr` that the command takes, without uninitialized padding. The
/// memory that its pointers refer to must be live and have the lengths that it states.
unsafe fn bpf<T>(command: c_long, attribute: &mut T) -> Result<c_long> {
    // SAFETY: the pointer and the length describe a live attribute; the caller guarantees its contents.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_mut(attribute),
            size_of::<T>(),
        )
    })
}

/// Calls bpf(2) with a command that makes a descriptor.
///
/// # Safety
///
/// As for [`bpf`]; the command returns a new descriptor.
unsafe fn make<T>(command: c_long, attribute: &mut T) -> Result<OwnedFd> {
    // SAFETY: the caller guarantees the same.
    let made = unsafe { bpf(command, attribute) }?;
    let number = super::descriptor_number(made)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { super::own(number) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

/// Encodes the name of a map or a program, which has letters, digits, `_` and `.`; truncates it to 15 bytes.
fn name(text: &str) -> [u8; NAME_LEN] {
    let mut name = [0; NAME_LEN];
    for (to, from) in name[..NAME_LEN - 1].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

fn text(name: [u8; NAME_LEN]) -> String {
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Creates a map; `BPF_MAP_CREATE`.
pub(crate) fn create_map(kind: MapKind, title: &str) -> Result<OwnedFd> {
    const ARRAY: u32 = 2;
    const PROG_ARRAY: u32 = 3;
    const RINGBUF: u32 = 27;
    const MMAPABLE: u32 = 1 << 10;
    let (map_type, key_size, value_size, max_entries, map_flags) = match kind {
        MapKind::Value(len) => (ARRAY, 4, len, 1, MMAPABLE),
        MapKind::Program => (PROG_ARRAY, 4, 4, 1, 0),
        MapKind::Ring(len) => (RINGBUF, 0, 0, len, 0),
    };
    let mut attribute = MapCreate {
        map_type,
        key_size,
        value_size,
        max_entries,
        map_flags,
        map_name: name(title),
        ..MapCreate::default()
    };
    // SAFETY: the attribute is that of the command and has no pointers.
    unsafe { make(MAP_CREATE, &mut attribute) }
}

/// Stores a program in the entry of a [`MapKind::Program`].
pub(crate) fn set_program(map: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let (key, value) = (0_u32, number(program));
    let mut attribute = Element {
        map_fd: number(map),
        key: address(&raw const key),
        value: address(&raw const value),
        ..Element::default()
    };
    // SAFETY: the key and the value have four bytes each, as the map was made.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attribute) }.map(drop)
}

/// Returns whether a [`MapKind::Program`] has a program.
pub(crate) fn has_program(map: BorrowedFd<'_>) -> Result<bool> {
    let (key, mut value) = (0_u32, 0_u32);
    let mut attribute = Element {
        map_fd: number(map),
        key: address(&raw const key),
        value: address(&raw mut value),
        ..Element::default()
    };
    // SAFETY: the key and the value have four bytes, as in every map of this kind.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attribute) } {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Loads a program of the type `SOCKET_FILTER`; `BPF_PROG_LOAD`.
pub(crate) fn load_filter(program: &[Instruction], title: &str) -> Result<OwnedFd> {
    const LICENSE: &CStr = c"Dual MIT/GPL";
    let mut attribute = ProgLoad {
        prog_type: PROG_TYPE_SOCKET_FILTER,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: address(program.as_ptr()),
        license: address(LICENSE.as_ptr()),
        prog_name: name(title),
        ..ProgLoad::default()
    };
    let mut load = || {
        // SAFETY: the attribute points to `program` with its length, and to a C string.
        unsafe { make(PROG_LOAD, &mut attribute) }
    };
    for _ in 0..LOADS {
        match load() {
            Err(Errno::EAGAIN) => {}
            loaded => return loaded,
        }
    }
    load()
}

/// Returns the id of the first program after this one; `BPF_PROG_GET_NEXT_ID`.
pub(crate) fn next_program(after: u32) -> Result<Option<u32>> {
    let mut attribute = ById {
        id: after,
        ..ById::default()
    };
    // SAFETY: the attribute is that of the command and has no pointers.
    match unsafe { bpf(PROG_GET_NEXT_ID, &mut attribute) } {
        Ok(_) => Ok(Some(attribute.next)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens the program with this id. ENOENT if nothing uses it any more, EPERM without CAP_SYS_ADMIN.
pub(crate) fn program(id: u32) -> Result<OwnedFd> {
    by_id(PROG_GET_FD_BY_ID, id)
}

/// Opens the map with this id.
pub(crate) fn map(id: u32) -> Result<OwnedFd> {
    by_id(MAP_GET_FD_BY_ID, id)
}

fn by_id(command: c_long, id: u32) -> Result<OwnedFd> {
    let mut attribute = ById {
        id,
        ..ById::default()
    };
    // SAFETY: the attribute is that of the command and has no pointers.
    unsafe { make(command, &mut attribute) }
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// The first map that it uses.
    pub(crate) map: Option<u32>,
}

/// Describes a program; `BPF_OBJ_GET_INFO_BY_FD`.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> Result<Program> {
    let mut map = 0_u32;
    let mut info = ProgInfo {
        nr_map_ids: 1,
        map_ids: address(&raw mut map),
        ..ProgInfo::default()
    };
    // SAFETY: `map` has space for the one map id that `info` asks for.
    unsafe { info_by_fd(program, &mut info) }?;
    Ok(Program {
        id: info.id,
        name: text(info.name),
        map: (info.nr_map_ids > 0).then_some(map),
    })
}

/// Returns the name of a map; `BPF_OBJ_GET_INFO_BY_FD`.
pub(crate) fn map_name(map: BorrowedFd<'_>) -> Result<String> {
    let mut info = MapInfo::default();
    // SAFETY: `info` has no pointers.
    unsafe { info_by_fd(map, &mut info) }?;
    Ok(text(info.name))
}

/// Describes an open program or map.
///
/// # Safety
///
/// `T` must begin as the kernel's structure for the type of `fd`, and its pointers must be live.
unsafe fn info_by_fd<T>(fd: BorrowedFd<'_>, info: &mut T) -> Result<()> {
    let mut attribute = InfoByFd {
        bpf_fd: number(fd),
        info_len: u32::try_from(size_of::<T>()).unwrap_or(0),
        info: address(ptr::from_mut(info)),
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attribute) }.map(drop)
}

/// Attaches a loaded program as the filter of a socket, in place of an earlier one; `SO_ATTACH_BPF`.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let number = program.as_raw_fd().to_ne_bytes();
    super::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &number)
}

/// Removes the filter of a socket; `SO_DETACH_FILTER`.
pub(crate) fn detach_filter(socket: BorrowedFd<'_>) -> Result<()> {
    super::setsockopt(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &[0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_truncated_to_15_bytes() {
        assert_eq!(text(name("0123456789abcdefg")), "0123456789abcde");
    }
}
