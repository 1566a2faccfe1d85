//! Makes the errors of a kernel that refuses an observer: which capability or feature is missing.

use crate::error::{Error, Subject};
use nix::errno::Errno;
use std::fs;

/// The capability that an observer needs besides the right to trace the process; capabilities(7).
const CAP_BPF: u32 = 39;
/// It includes CAP_BPF.
const CAP_SYS_ADMIN: u32 = 21;

/// The step that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Map,
    Ring,
    Program,
    Attach,
}

/// Makes the error of a step that failed with `errno`.
pub(super) fn refused(step: Step, subject: Subject, errno: Errno) -> Error {
    let error = |cause: String| Error::system("observe", subject.clone(), errno).with_cause(cause);
    match (step, errno) {
        (_, Errno::ENOSYS) => error("this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)".to_owned()),
        (Step::Attach, Errno::EPERM) => {
            error("its filter is locked (SO_LOCK_FILTER)".to_owned())
        }
        (Step::Attach, Errno::ENOMEM) => error("there is not enough memory for a filter".to_owned())
            .with_hint("net.core.optmem_max limits the memory of a socket's filter"),
        (_, Errno::EPERM | Errno::EACCES) if lacks_capability() => {
            let error = error("CAP_BPF is missing".to_owned());
            match unprivileged_bpf_disabled() {
                Some(value @ 1..) => {
                    error.with_hint(format!("kernel.unprivileged_bpf_disabled is {value}"))
                }
                _ => error,
            }
        }
        (_, Errno::EPERM) if in_user_namespace() => {
            error("bpf(2) needs capabilities of the initial user namespace".to_owned())
        }
        (_, Errno::EPERM) => Error::system("observe", subject, errno).with_hint(
            "a seccomp filter may forbid bpf(2), or RLIMIT_MEMLOCK be too small (before Linux 5.11)",
        ),
        (Step::Ring, Errno::EINVAL) => {
            error("this kernel has no BPF ring buffers (Linux 5.8)".to_owned())
        }
        (Step::Program, Errno::EINVAL | Errno::EACCES) => {
            error(format!("this kernel refuses the BPF program ({})", crate::error::describe(errno)))
        }
        (_, errno) => Error::system("observe", subject, errno),
    }
}

/// Returns whether this thread lacks CAP_BPF.
fn lacks_capability() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    effective & (1 << CAP_BPF | 1 << CAP_SYS_ADMIN) == 0
}

fn unprivileged_bpf_disabled() -> Option<u32> {
    let value = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").ok()?;
    value.trim().parse().ok()
}

/// Returns whether this process is outside the initial user namespace, which maps every id to itself.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && map.split_whitespace().ne(["0", "0", "4294967295"])
}
