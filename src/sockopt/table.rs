//! The table of socket options.

use super::TIMESTAMPNS;
use super::option::{Access, Kind, SocketOption};
use nix::libc::{self, c_int};

// asm-generic/socket.h; libc lacks them. SPARC, which has other numbers, is not supported.
const SO_RCVPRIORITY: c_int = 82;
const SO_PASSRIGHTS: c_int = 83;

const RW: Access = Access::ReadWrite;
const R: Access = Access::Read;
const ADMIN: &str = "needs CAP_NET_ADMIN";
const ADMIN_OR_RAW: &str = "needs CAP_NET_ADMIN or CAP_NET_RAW";
const RAW: &str = "needs CAP_NET_RAW once it is set";

/// The options of Unix datagram sockets, sorted by name. Older kernels lack some of them. The table
/// omits options that take pointers or descriptors (filters), those of other protocols, and old names
/// of options that it has.
#[rustfmt::skip]
pub static OPTIONS: &[SocketOption] = &[
    SocketOption::new("SO_ACCEPTCONN", libc::SO_ACCEPTCONN, Kind::Flag, R, "whether it listens for connections; a datagram socket never does"),
    SocketOption::new("SO_BINDTODEVICE", libc::SO_BINDTODEVICE, Kind::Text, RW, "network interface; no effect on Unix sockets").denied(RAW),
    SocketOption::new("SO_BINDTOIFINDEX", libc::SO_BINDTOIFINDEX, Kind::Integer, RW, "network interface by its index; no effect on Unix sockets").denied(RAW),
    SocketOption::new("SO_BPF_EXTENSIONS", libc::SO_BPF_EXTENSIONS, Kind::Integer, R, "BPF extensions that filters may use"),
    SocketOption::new("SO_BROADCAST", libc::SO_BROADCAST, Kind::Flag, RW, "may send to broadcast addresses; no effect on Unix sockets"),
    SocketOption::new("SO_BUF_LOCK", libc::SO_BUF_LOCK, Kind::Integer, RW, "buffer sizes set explicitly: 1 send, 2 receive, 3 both"),
    SocketOption::new("SO_BUSY_POLL", libc::SO_BUSY_POLL, Kind::Integer, RW, "microseconds to poll the network device; no effect on Unix sockets").denied(ADMIN),
    SocketOption::new("SO_COOKIE", libc::SO_COOKIE, Kind::Unsigned64, R, "number unique to this socket until the next boot"),
    SocketOption::new("SO_DEBUG", libc::SO_DEBUG, Kind::Flag, RW, "kernel debugging").denied(ADMIN),
    SocketOption::new("SO_DOMAIN", libc::SO_DOMAIN, Kind::Integer, R, "address family: 1, AF_UNIX"),
    SocketOption::new("SO_DONTROUTE", libc::SO_DONTROUTE, Kind::Flag, RW, "bypass routing; no effect on Unix sockets"),
    SocketOption::new("SO_ERROR", libc::SO_ERROR, Kind::Integer, R, "errno of the pending error; reading it clears it"),
    SocketOption::new("SO_GET_FILTER", libc::SO_GET_FILTER, Kind::Bytes, R, "classic BPF program that arriving datagrams must pass"),
    SocketOption::new("SO_INCOMING_CPU", libc::SO_INCOMING_CPU, Kind::Integer, RW, "processor that handles arriving packets; no effect on Unix sockets"),
    SocketOption::new("SO_INCOMING_NAPI_ID", libc::SO_INCOMING_NAPI_ID, Kind::Unsigned, R, "receive queue of the last packet; 0 for Unix sockets"),
    SocketOption::new("SO_KEEPALIVE", libc::SO_KEEPALIVE, Kind::Flag, RW, "keep-alive messages; no effect on datagram sockets"),
    SocketOption::new("SO_LINGER", libc::SO_LINGER, Kind::Linger, RW, "longest wait of close(2) for unsent data; no effect on datagram sockets"),
    SocketOption::new("SO_LOCK_FILTER", libc::SO_LOCK_FILTER, Kind::Flag, RW, "filters can no longer be attached, changed or detached").denied("a lock lasts as long as the socket"),
    SocketOption::new("SO_MARK", libc::SO_MARK, Kind::Unsigned, RW, "mark of sent packets for filters and routing").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_MAX_PACING_RATE", libc::SO_MAX_PACING_RATE, Kind::Unsigned64, RW, "largest number of bytes a second; no effect on Unix sockets"),
    SocketOption::new("SO_MEMINFO", libc::SO_MEMINFO, Kind::Memory, R, "memory that the socket uses, and datagrams dropped"),
    SocketOption::new("SO_NETNS_COOKIE", libc::SO_NETNS_COOKIE, Kind::Unsigned64, R, "number of its network namespace, to which abstract names belong"),
    SocketOption::new("SO_NOFCS", libc::SO_NOFCS, Kind::Flag, RW, "no frame check sequence; no effect on Unix sockets"),
    SocketOption::new("SO_NO_CHECK", libc::SO_NO_CHECK, Kind::Flag, RW, "no checksums; no effect on Unix sockets"),
    SocketOption::new("SO_OOBINLINE", libc::SO_OOBINLINE, Kind::Flag, RW, "urgent data inline; no effect on datagram sockets"),
    SocketOption::new("SO_PASSCRED", libc::SO_PASSCRED, Kind::Flag, RW, "credentials of the sender with each datagram"),
    SocketOption::new("SO_PASSPIDFD", libc::SO_PASSPIDFD, Kind::Flag, RW, "pidfd of the sender with each datagram"),
    SocketOption::new("SO_PASSRIGHTS", SO_PASSRIGHTS, Kind::Flag, RW, "descriptors may come with datagrams; if off, sending them to this socket fails"),
    SocketOption::new("SO_PASSSEC", libc::SO_PASSSEC, Kind::Flag, RW, "security label of the sender with each datagram"),
    SocketOption::new("SO_PEEK_OFF", libc::SO_PEEK_OFF, Kind::Integer, RW, "offset at which MSG_PEEK reads, and which it advances; -1: always the start"),
    SocketOption::new("SO_PEERCRED", libc::SO_PEERCRED, Kind::Credentials, R, "credentials of the peer at the time of socketpair(2)"),
    SocketOption::new("SO_PEERGROUPS", libc::SO_PEERGROUPS, Kind::Groups, R, "supplementary groups of the peer at the time of socketpair(2)"),
    SocketOption::new("SO_PEERPIDFD", libc::SO_PEERPIDFD, Kind::Process, R, "process that made the pair of sockets, while it lives"),
    SocketOption::new("SO_PEERSEC", libc::SO_PEERSEC, Kind::Text, R, "security label of the peer, if a security module provides one"),
    SocketOption::new("SO_PREFER_BUSY_POLL", libc::SO_PREFER_BUSY_POLL, Kind::Flag, RW, "busy polling before interrupts; no effect on Unix sockets").denied(ADMIN),
    SocketOption::new("SO_PRIORITY", libc::SO_PRIORITY, Kind::Integer, RW, "priority of sent packets, 0 to 6, or more with CAP_NET_ADMIN").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_PROTOCOL", libc::SO_PROTOCOL, Kind::Integer, R, "protocol within the family: 0"),
    SocketOption::new("SO_RCVBUF", libc::SO_RCVBUF, Kind::Size, RW, "receive buffer; the kernel doubles what is set, up to net.core.rmem_max. It does not bound the queue of a Unix datagram socket"),
    SocketOption::new("SO_RCVBUFFORCE", libc::SO_RCVBUFFORCE, Kind::Size, Access::Set { reads: libc::SO_RCVBUF }, "SO_RCVBUF past net.core.rmem_max").denied(ADMIN),
    SocketOption::new("SO_RCVLOWAT", libc::SO_RCVLOWAT, Kind::Integer, RW, "smallest number of bytes to receive at once; no effect on datagram sockets"),
    SocketOption::new("SO_RCVMARK", libc::SO_RCVMARK, Kind::Flag, RW, "mark of the packet with each datagram").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_RCVPRIORITY", SO_RCVPRIORITY, Kind::Flag, RW, "priority of the packet with each datagram").denied(ADMIN_OR_RAW),
    SocketOption::new("SO_RCVTIMEO", libc::SO_RCVTIMEO, Kind::Duration, RW, "longest wait of a blocking receive; zero: no limit"),
    SocketOption::new("SO_RESERVE_MEM", libc::SO_RESERVE_MEM, Kind::Size, RW, "reserved memory; usually for TCP only"),
    SocketOption::new("SO_REUSEADDR", libc::SO_REUSEADDR, Kind::Flag, RW, "bind an address still in use; no effect on Unix sockets"),
    SocketOption::new("SO_REUSEPORT", libc::SO_REUSEPORT, Kind::Flag, RW, "several sockets on one port; no effect on Unix sockets"),
    SocketOption::new("SO_RXQ_OVFL", libc::SO_RXQ_OVFL, Kind::Flag, RW, "count of dropped datagrams with each datagram"),
    SocketOption::new("SO_SELECT_ERR_QUEUE", libc::SO_SELECT_ERR_QUEUE, Kind::Flag, RW, "poll(2) reports POLLPRI when the error queue is not empty"),
    SocketOption::new("SO_SNDBUF", libc::SO_SNDBUF, Kind::Size, RW, "send buffer, which bounds the size of a datagram; the kernel doubles what is set, up to net.core.wmem_max"),
    SocketOption::new("SO_SNDBUFFORCE", libc::SO_SNDBUFFORCE, Kind::Size, Access::Set { reads: libc::SO_SNDBUF }, "SO_SNDBUF past net.core.wmem_max").denied(ADMIN),
    SocketOption::new("SO_SNDLOWAT", libc::SO_SNDLOWAT, Kind::Integer, R, "smallest number of bytes to send at once: 1"),
    SocketOption::new("SO_SNDTIMEO", libc::SO_SNDTIMEO, Kind::Duration, RW, "longest wait of a blocking send; zero: no limit"),
    SocketOption::new("SO_TIMESTAMP", libc::SO_TIMESTAMP, Kind::Flag, RW, "time of arrival with each datagram, in microseconds"),
    SocketOption::new("SO_TIMESTAMPING", libc::SO_TIMESTAMPING, Kind::Unsigned, RW, "timestamps to take, as SOF_TIMESTAMPING_ flags"),
    SocketOption::new("SO_TIMESTAMPNS", TIMESTAMPNS, Kind::Flag, RW, "time of arrival with each datagram, in nanoseconds"),
    SocketOption::new("SO_TYPE", libc::SO_TYPE, Kind::Integer, R, "type: 2, SOCK_DGRAM"),
    SocketOption::new("SO_WIFI_STATUS", libc::SO_WIFI_STATUS, Kind::Flag, RW, "whether wireless packets were acknowledged; no effect on Unix sockets"),
    SocketOption::new("SO_ZEROCOPY", libc::SO_ZEROCOPY, Kind::Flag, RW, "send without copying; not for Unix sockets"),
];

/// Returns the option with these numbers: the one in the table, or else one whose value is an `int`
/// or bytes, named `LEVEL:NUMBER`.
#[must_use]
pub fn numbered(level: c_int, number: c_int) -> SocketOption {
    let known = OPTIONS
        .iter()
        .find(|option| (option.level, option.number) == (level, number));
    known
        .cloned()
        .unwrap_or_else(|| SocketOption::unlisted(level, number))
}
