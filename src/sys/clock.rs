//! The clocks of the kernel; clock_gettime(2).

use super::Result;
use nix::errno::Errno;
use nix::libc;

/// Returns the time of a clock in nanoseconds. The C library of a 32-bit target may have times of 32 bits, which end
/// in 2038: its clock_gettime(2) then fails with EOVERFLOW.
fn read(clock: libc::clockid_t) -> Result<i128> {
    #[cfg(target_pointer_width = "32")]
    match read_64(clock) {
        // ENOSYS: Linux before 5.1. EPERM: an old sandbox refuses unknown calls.
        Err(Errno::ENOSYS | Errno::EPERM) => {}
        read => return read,
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live `timespec`.
    Errno::result(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(nanoseconds(time.tv_sec, time.tv_nsec))
}

/// Returns the time of a clock in nanoseconds, which the kernel gives in 64 bits; clock_gettime64(2).
#[cfg(target_pointer_width = "32")]
fn read_64(clock: libc::clockid_t) -> Result<i128> {
    // asm-generic/unistd.h; libc has it for some targets only. On MIPS, which has other numbers, it is a call that
    // does not exist: ENOSYS.
    const CLOCK_GETTIME64: libc::c_long = 403;
    // `struct __kernel_timespec`.
    let mut time = [0_i64; 2];
    // SAFETY: the pointer is to live memory of the size and the alignment of that structure.
    let done = unsafe { libc::syscall(CLOCK_GETTIME64, clock, time.as_mut_ptr()) };
    Errno::result(done)?;
    let [seconds, rest] = time;
    Ok(nanoseconds(seconds, rest))
}

fn nanoseconds(seconds: impl Into<i128>, rest: impl Into<i128>) -> i128 {
    seconds.into() * 1_000_000_000 + rest.into()
}

/// Returns the nanoseconds from another clock to `CLOCK_REALTIME`; negative if that is behind.
pub(crate) fn realtime_offset(clock: libc::clockid_t) -> Result<i128> {
    let other = read(clock)?;
    Ok(read(libc::CLOCK_REALTIME)? - other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn the_clock_is_that_of_the_standard_library() {
        let hour = 3_600_000_000_000;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let expected = i128::try_from(since_epoch.unwrap().as_nanos()).unwrap();
        let now = read(libc::CLOCK_REALTIME).unwrap();
        assert!((expected - hour..expected + hour).contains(&now), "{now}");
    }

    #[test]
    fn a_time_after_2038_is_a_number_of_nanoseconds() {
        assert_eq!(nanoseconds(1_i64 << 31, 5_i64), 2_147_483_648_000_000_005);
    }

    #[test]
    fn the_offset_of_a_clock_added_to_its_time_is_the_real_time() {
        let hour = 3_600_000_000_000;
        let offset = realtime_offset(libc::CLOCK_MONOTONIC).unwrap();
        let real = offset + read(libc::CLOCK_MONOTONIC).unwrap();
        let now = read(libc::CLOCK_REALTIME).unwrap();
        assert!(
            (now - hour..now + hour).contains(&real),
            "{real}, not {now}"
        );
    }
}
