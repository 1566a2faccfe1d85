
/// Switches one mutant on: the number is in the environment variable `MUTANT`. With the path of a file in
/// its place, notes in this file which mutants are reached, a byte for each.
#[doc(hidden)]
#[allow(unsafe_code, missing_docs)]
pub mod mutant {
    use nix::libc;
    use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

    const UNREAD: u32 = u32::MAX;
    const NOTED: u32 = u32::MAX - 1;
    static SWITCHED_ON: AtomicU32 = AtomicU32::new(UNREAD);
    static NOTES: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

    #[inline]
    pub fn is_on(number: u32) -> bool {
        let on = SWITCHED_ON.load(Relaxed);
        on == number || on >= NOTED && read_or_note(number)
    }

    #[cold]
    fn read_or_note(number: u32) -> bool {
        if SWITCHED_ON.load(Relaxed) == UNREAD {
            // SAFETY: the variable is not changed while the program runs, and the length is that of the file.
            unsafe { read() };
        }
        match SWITCHED_ON.load(Relaxed) {
            NOTED => {
                // SAFETY: the file has a byte for each number.
                unsafe { *NOTES.load(Relaxed).add(number as usize) = 1 };
                false
            }
            on => on == number,
        }
    }

    unsafe fn read() {
        let value = libc::getenv(c"MUTANT".as_ptr());
        if value.is_null() {
            SWITCHED_ON.store(0, Relaxed);
        } else if *value != b'/' as libc::c_char {
            SWITCHED_ON.store(libc::atoi(value) as u32, Relaxed);
        } else {
            let file = libc::open(value, libc::O_RDWR | libc::O_CLOEXEC);
            let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            let notes = libc::mmap(std::ptr::null_mut(), NOTES_LENGTH, read_write, shared, file, 0);
            libc::close(file);
            // A program that cannot open the file, in another root directory for instance, notes nothing.
            if notes == libc::MAP_FAILED {
                SWITCHED_ON.store(0, Relaxed);
            } else {
                NOTES.store(notes.cast(), Relaxed);
                SWITCHED_ON.store(NOTED, Relaxed);
            }
        }
    }
}
