//! The memory of the maps of bpf(2) that this process shares with the kernel.

use nix::errno::Errno;
use nix::libc::{self, c_uint, c_void};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

type Result<T, E = Errno> = std::result::Result<T, E>;

/// The memory of a map, shared with the kernel.
#[derive(Debug)]
struct Shared {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: threads may share this memory: this process accesses it by atomic operations only, and by shared
// references to finished records, which the kernel does not change.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Read,
    ReadWrite,
}

impl Shared {
    fn new(map: BorrowedFd<'_>, offset: usize, len: usize, rights: Rights) -> Result<Self> {
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let protection = match rights {
            Rights::Read => libc::PROT_READ,
            Rights::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a mapping at an address of the kernel's choosing takes nothing that is in use.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len.get(),
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start).ok_or(Errno::EFAULT)?;
        Ok(Self { start, len })
    }

    /// Returns the number of 64 bits at this offset, which the kernel only increases. Not every 32-bit
    /// processor reads 64 bits at once.
    fn load(&self, offset: usize) -> u64 {
        let (low, high) = if cfg!(target_endian = "little") {
            (offset, offset + 4)
        } else {
            (offset + 4, offset)
        };
        let half = |offset| {
            let half: &AtomicU32 = self.place(offset);
            half.load(Ordering::Acquire)
        };
        loop {
            let before = half(high);
            let number = u64::from(before) << 32 | u64::from(half(low));
            if half(high) == before {
                return number;
            }
        }
    }

    /// Returns the atomic integer of the type `T` at this offset.
    fn place<T>(&self, offset: usize) -> &T {
        assert!(offset % size_of::<T>() == 0 && offset + size_of::<T>() <= self.len.get());
        // SAFETY: the place lies within the mapping.
        let place = unsafe { self.start.byte_add(offset) }.cast();
        // SAFETY: it is aligned, lives as long as `self`, and both sides access it atomically.
        unsafe { place.as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it outlives the value.
        let _ = unsafe { libc::munmap(self.start.as_ptr(), self.len.get()) };
    }
}

/// The variables that the program and its observer share, in a [`MapKind::Value`](super::bpf::MapKind::Value) of
/// [`Control::LEN`] bytes.
#[derive(Debug)]
pub(crate) struct Control(Shared);

impl Control {
    pub(crate) const LEN: u32 = 128;
    /// The offset of the number of datagrams that did not fit into the ring.
    pub(crate) const LOST: i16 = 0;
    /// The offset of the flag by which the observer asks to be woken. It has its own cache line.
    pub(crate) const ASLEEP: i16 = 64;

    pub(crate) fn new(map: BorrowedFd<'_>) -> Result<Self> {
        Shared::new(map, 0, Self::LEN as usize, Rights::ReadWrite).map(Self)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.0.load(Self::LOST.unsigned_abs().into())
    }

    pub(crate) fn set_asleep(&self, asleep: bool) {
        let place: &AtomicU32 = self.0.place(Self::ASLEEP.unsigned_abs().into());
        place.store(asleep.into(), Ordering::SeqCst);
    }
}

/// The reading end of a [`MapKind::Ring`](super::bpf::MapKind::Ring); Documentation/bpf/ringbuf.rst in the kernel's
/// sources.
#[derive(Debug)]
pub(crate) struct Ring {
    map: OwnedFd,
    /// The position up to which records may be overwritten.
    consumer: Shared,
    /// The position up to which there are records, followed by the ring, mapped twice in a row.
    producer: Shared,
    page: usize,
    len: usize,
}

/// An entry of a ring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slot<'r> {
    /// There is no record yet.
    Empty,
    /// A record that is being written.
    Busy,
    /// A record, and the position after it.
    Record(&'r [u8], usize),
}

impl Ring {
    /// Maps a ring of `len` bytes.
    pub(crate) fn new(map: OwnedFd, len: usize) -> Result<Self> {
        // SAFETY: the call takes a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
            .map_err(|_| Errno::EINVAL)?;
        let consumer = Shared::new(map.as_fd(), 0, page, Rights::ReadWrite)?;
        let producer = Shared::new(map.as_fd(), page, page + 2 * len, Rights::Read)?;
        Ok(Self {
            map,
            consumer,
            producer,
            page,
            len,
        })
    }

    /// Returns the entry at `position`, which is not before the released position.
    pub(crate) fn slot(&self, position: usize) -> Slot<'_> {
        const HEADER: usize = 8;
        const BUSY: c_uint = 1 << 31;
        const DISCARDED: c_uint = 1 << 30;
        let end: &AtomicUsize = self.producer.place(0);
        let released: &AtomicUsize = self.consumer.place(0);
        let used = end
            .load(Ordering::Acquire)
            .wrapping_sub(released.load(Ordering::Relaxed));
        if position.wrapping_sub(released.load(Ordering::Relaxed)) >= used {
            return Slot::Empty;
        }
        let start = self.page + (position & (self.len - 1));
        let header: &AtomicU32 = self.producer.place(start);
        let header = header.load(Ordering::Acquire);
        if header & BUSY != 0 {
            return Slot::Busy;
        }
        let len = (header & !(BUSY | DISCARDED)) as usize;
        assert!(
            len <= self.len,
            "the kernel's record is longer than its ring"
        );
        // SAFETY: the record starts in the first mapping of the ring and ends within the second.
        let data = unsafe { self.producer.start.byte_add(start + HEADER) };
        // SAFETY: the record is finished: the kernel does not write to it before it is released, and
        // `release` takes `&mut self`.
        let record = unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), len) };
        let next = position.wrapping_add((HEADER + len).next_multiple_of(HEADER));
        Slot::Record(record, next)
    }

    /// Releases the space of all records before `position`.
    pub(crate) fn release(&mut self, position: usize) {
        // A position has as many bits as the kernel's `unsigned long`, which are 64 also for most 32-bit
        // programs. Its upper half follows from that of the end of the records.
        if cfg!(all(target_pointer_width = "32", target_endian = "little")) {
            let end = self.producer.load(0);
            let low = u32::try_from(end & u64::from(u32::MAX)).unwrap_or(0) as usize;
            let whole = end.wrapping_sub(low.wrapping_sub(position) as u64);
            let high: &AtomicU32 = self.consumer.place(4);
            high.store(u32::try_from(whole >> 32).unwrap_or(0), Ordering::Release);
        }
        let released: &AtomicUsize = self.consumer.place(0);
        released.store(position, Ordering::Release);
    }
}

impl AsFd for Ring {
    /// poll(2) reports it as readable while there are records, finished or not.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    use std::fs::File;
    use std::mem::ManuallyDrop;
    use std::thread;

    const PAGE: usize = 64;
    const LEN: usize = 64;
    const HEADER: usize = 8;
    const BUSY: u32 = 1 << 31;

    fn memory(len: usize) -> Shared {
        let len = NonZeroUsize::new(len).unwrap();
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping takes nothing that is in use.
        let start = unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_PRIVATE) }.unwrap();
        Shared { start, len }
    }

    /// The writing end of a ring, as the kernel has it; the test drops the ring after it.
    struct Kernel {
        consumer: ManuallyDrop<Shared>,
        producer: ManuallyDrop<Shared>,
    }

    impl Kernel {
        /// Waits for space and begins a record of `len` bytes; returns its position.
        fn reserve(&self, len: u32) -> usize {
            let end: &AtomicUsize = self.producer.place(0);
            let released: &AtomicUsize = self.consumer.place(0);
            let position = end.load(Ordering::Relaxed);
            let next = position + (HEADER + len as usize).next_multiple_of(HEADER);
            while next - released.load(Ordering::Acquire) > LEN {
                thread::yield_now();
            }
            self.header(position).store(len | BUSY, Ordering::Relaxed);
            end.store(next, Ordering::Release);
            position
        }

        /// Writes a record and ends it.
        fn write(&self, position: usize, record: &[u8]) {
            for (at, byte) in (position + HEADER..).zip(record) {
                // This memory is not mapped twice.
                for copy in [0, LEN] {
                    let offset = PAGE + at % LEN + copy;
                    assert!(offset < self.producer.len.get());
                    // SAFETY: the offset lies within the mapping.
                    let place = unsafe { self.producer.start.byte_add(offset) }.cast::<u8>();
                    // SAFETY: the reader does not access the bytes of a record that is being written.
                    unsafe { place.write(*byte) };
                }
            }
            let len = u32::try_from(record.len()).unwrap();
            self.header(position).store(len, Ordering::Release);
        }

        fn header(&self, position: usize) -> &AtomicU32 {
            self.producer.place(PAGE + position % LEN)
        }
    }

    fn ring() -> (Ring, Kernel) {
        let ring = Ring {
            map: File::open("/dev/null").unwrap().into(),
            consumer: memory(PAGE),
            producer: memory(PAGE + 2 * LEN),
            page: PAGE,
            len: LEN,
        };
        let same = |shared: &Shared| ManuallyDrop::new(Shared { ..*shared });
        let kernel = Kernel {
            consumer: same(&ring.consumer),
            producer: same(&ring.producer),
        };
        (ring, kernel)
    }

    #[test]
    fn a_record_is_read_when_it_is_finished() {
        let (ring, kernel) = ring();
        assert_eq!(ring.slot(0), Slot::Empty);
        let first = kernel.reserve(3);
        let second = kernel.reserve(0);
        kernel.write(second, b"");
        assert_eq!(ring.slot(0), Slot::Busy);
        kernel.write(first, b"abc");
        assert_eq!(ring.slot(0), Slot::Record(b"abc", second));
        assert_eq!(ring.slot(second), Slot::Record(b"", 24));
        assert_eq!(ring.slot(24), Slot::Empty);
    }

    #[test]
    fn records_are_read_while_others_are_written() {
        let (mut ring, kernel) = ring();
        // Of every length, and across the end of the ring.
        let records: Vec<Vec<u8>> = (0..40).map(|len| vec![len; len.into()]).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                for record in &records {
                    let position = kernel.reserve(u32::try_from(record.len()).unwrap());
                    kernel.write(position, record);
                }
            });
            let mut position = 0;
            for record in &records {
                position = loop {
                    match ring.slot(position) {
                        Slot::Record(read, next) => {
                            assert_eq!(read, record);
                            break next;
                        }
                        Slot::Empty | Slot::Busy => thread::yield_now(),
                    }
                };
                ring.release(position);
            }
        });
    }

    #[test]
    fn a_number_of_64_bits_is_read_whole() {
        let control = Control(memory(Control::LEN as usize));
        control.set_asleep(true);
        assert_eq!(control.lost(), 0);
        let lost = control.0.start.cast::<u64>();
        // SAFETY: the number is at the beginning of the mapping, which is aligned.
        unsafe { lost.write(1 << 40 | 3) };
        assert_eq!(control.lost(), 1 << 40 | 3);
    }
}
