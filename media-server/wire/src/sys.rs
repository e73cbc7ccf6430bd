//! The system calls, each behind a function that cannot be misused. The only unsafe code there is.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Messages of one `recvmmsg` or `sendmmsg`. Above 64 a call gains nothing (3 % at 32, measured on
/// loopback), and the arrays stay small enough for the stack.
pub(crate) const BATCH: usize = 64;

/// Room for a packet-info message (40 bytes) and one of a number (24), aligned as the kernel wants it.
const CONTROL_WORDS: usize = 8;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: `fd` was just returned by a call that creates a descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Raises the number of files that the process may have open to the most that it may set itself; returns it.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to an rlimit that lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the same; the kernel only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// What a socket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Udp,
    Tcp,
}

/// A non-blocking socket, not bound yet.
pub(crate) fn socket(kind: Kind, v6: bool) -> io::Result<OwnedFd> {
    let kind = match kind {
        Kind::Udp => libc::SOCK_DGRAM,
        Kind::Tcp => libc::SOCK_STREAM,
    };
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointers are passed.
    owned(unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })
}

pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a c_int that lives through the call, and `len` is its size.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) })
        .map(drop)
}

pub(crate) fn option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that live through the call; `len` is the size of `value`.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    })?;
    Ok(value)
}

pub(crate) fn bind(fd: BorrowedFd<'_>, addr: SocketAddr) -> io::Result<()> {
    let (name, len) = to_name(addr, addr.is_ipv6());
    // SAFETY: `name` lives through the call and is at least `len` bytes long.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), len) }).map(drop)
}

pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that live through the call; `len` is the size of `name`.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut name).cast(), &raw mut len) })?;
    from_name(&name).ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// IPv4 addresses travel as mapped ones (RFC 4291 §2.5.5.2) through an IPv6 socket.
fn to_name(addr: SocketAddr, v6: bool) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    let len = match (addr.ip(), v6) {
        (IpAddr::V4(ip), false) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(ip.octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than sockaddr_in and aligned for every address type.
            unsafe { (&raw mut name).cast::<libc::sockaddr_in>().write(v4) };
            size_of::<libc::sockaddr_in>()
        }
        (ip, _) => {
            let (ip, scope, flow) = match (ip, addr) {
                (IpAddr::V4(ip), _) => (ip.to_ipv6_mapped(), 0, 0),
                (IpAddr::V6(ip), SocketAddr::V6(addr)) => (ip, addr.scope_id(), addr.flowinfo()),
                (IpAddr::V6(ip), SocketAddr::V4(_)) => (ip, 0, 0),
            };
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: flow,
                sin6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                sin6_scope_id: scope,
            };
            // SAFETY: sockaddr_storage is larger than sockaddr_in6 and aligned for every address type.
            unsafe { (&raw mut name).cast::<libc::sockaddr_in6>().write(v6) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (name, len as libc::socklen_t)
}

/// Mapped IPv4 addresses come back as IPv4.
fn from_name(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in; it is aligned and larger.
            let v4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a sockaddr_in6; it is aligned and larger.
            let v6 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddr::new(IpAddr::V4(ip), port),
                None => {
                    std::net::SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into()
                }
            })
        }
        _ => None,
    }
}

/// One received datagram.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrival {
    /// Its length in its buffer.
    pub(crate) len: usize,
    /// Where it came from; `None`: an address family that we don't know.
    pub(crate) from: Option<SocketAddr>,
    /// The address of ours that it came to, if the socket was asked to tell.
    pub(crate) to: Option<IpAddr>,
}

/// Asks that a socket tells for each datagram which address it came to. An IPv6 socket tells it of
/// IPv4 too, as a mapped address.
pub(crate) fn tell_destination(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Receives up to [`BATCH`] datagrams, each into its `size` bytes of `bytes`; longer ones are cut.
/// Returns how many, and the kernel's drop count if it sent one.
pub(crate) fn recv_batch(
    fd: BorrowedFd<'_>,
    bytes: &mut [u8],
    size: usize,
    arrivals: &mut [Arrival; BATCH],
) -> io::Result<(usize, Option<u32>)> {
    // SAFETY: all-zero bytes are valid for these plain C structs.
    let mut names: [libc::sockaddr_storage; BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut iovs: [libc::iovec; BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut msgs: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    let mut controls = [[0u64; CONTROL_WORDS]; BATCH];
    let mut count = 0;
    for (buf, (name, (iov, (msg, control)))) in bytes.chunks_exact_mut(size).zip(
        names.iter_mut().zip(
            iovs.iter_mut()
                .zip(msgs.iter_mut().zip(controls.iter_mut())),
        ),
    ) {
        *iov = libc::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: size,
        };
        msg.msg_hdr.msg_name = (&raw mut *name).cast();
        msg.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        msg.msg_hdr.msg_iov = iov;
        msg.msg_hdr.msg_iovlen = 1;
        msg.msg_hdr.msg_control = control.as_mut_ptr().cast();
        msg.msg_hdr.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
        count += 1;
    }
    // SAFETY: the first `count` headers point to a name, an iovec and a control buffer of their own,
    // all of which outlive the call; each iovec covers `size` bytes of `bytes`, which is borrowed
    // mutably, and no two overlap.
    let received = check(unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            msgs.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    })? as usize;
    let mut overflow = None;
    for (arrival, (msg, name)) in arrivals
        .iter_mut()
        .zip(msgs.iter().zip(&names))
        .take(received)
    {
        let told = read_control(&msg.msg_hdr);
        overflow = told.overflow;
        *arrival = Arrival {
            len: (msg.msg_len as usize).min(size),
            from: from_name(name),
            to: told.to,
        };
    }
    Ok((received, overflow))
}

/// What came with a datagram.
#[derive(Default)]
struct Told {
    /// SO_RXQ_OVFL: datagrams that the kernel dropped so far.
    overflow: Option<u32>,
    to: Option<IpAddr>,
}

fn read_control(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the kernel filled `msg_control` with `msg_controllen` bytes of well-formed control
    // messages, in a buffer that is still alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null, or a header that lies within the buffer.
    while let Some(control) = unsafe { next.as_ref() } {
        // SAFETY: the data lies right behind its header.
        let data = unsafe { libc::CMSG_DATA(control) };
        match (control.cmsg_level, control.cmsg_type) {
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                // SAFETY: a control message of that type carries a u32, maybe unaligned.
                told.overflow = Some(unsafe { data.cast::<u32>().read_unaligned() });
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: a control message of that type carries an in_pktinfo, maybe unaligned.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                // That of ours which stands for a broadcast address too.
                let ip = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                told.to = Some(IpAddr::V4(ip));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: a control message of that type carries an in6_pktinfo, maybe unaligned.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                told.to = Some(ip.to_canonical()).filter(|ip| !ip.is_multicast());
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR; `next` is a header of this buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    told
}

/// One message to send: bytes for one address, cut by the kernel into datagrams of `segment` bytes
/// where they are longer.
pub(crate) struct Outgoing<'a> {
    pub(crate) to: SocketAddr,
    /// The address of ours that it leaves from; `None` leaves the choice to the kernel.
    pub(crate) from: Option<IpAddr>,
    pub(crate) bytes: &'a [u8],
    pub(crate) segment: u16,
}

/// Sends up to [`BATCH`] messages; returns how many the kernel took, at least one.
///
/// # Errors
/// The error of the first message; none was sent.
pub(crate) fn send_batch(
    fd: BorrowedFd<'_>,
    v6: bool,
    messages: &[Outgoing<'_>],
) -> io::Result<usize> {
    // SAFETY: all-zero bytes are valid for these plain C structs.
    let mut names: [libc::sockaddr_storage; BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut iovs: [libc::iovec; BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut msgs: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    let mut controls = [[0u64; CONTROL_WORDS]; BATCH];
    let mut count = 0;
    for (at, message) in messages.iter().take(BATCH).enumerate() {
        let (name, len) = to_name(message.to, v6);
        names[at] = name;
        // The kernel only reads through this pointer, whatever its type says.
        iovs[at] = libc::iovec {
            iov_base: message.bytes.as_ptr().cast_mut().cast(),
            iov_len: message.bytes.len(),
        };
        let header = &mut msgs[at].msg_hdr;
        header.msg_name = (&raw mut names[at]).cast();
        header.msg_namelen = len;
        header.msg_iov = &raw mut iovs[at];
        header.msg_iovlen = 1;
        let control = &mut controls[at];
        match message.from {
            Some(ip) if v6 => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                add_control(
                    header,
                    control,
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
                    info,
                );
            }
            Some(IpAddr::V4(ip)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                add_control(header, control, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
            }
            // An IPv4 socket has no such address.
            Some(IpAddr::V6(_)) | None => {}
        }
        if usize::from(message.segment) < message.bytes.len() {
            let kind = (libc::SOL_UDP, libc::UDP_SEGMENT);
            add_control(header, control, kind, message.segment);
        }
        count += 1;
    }
    // SAFETY: the first `count` headers point to names, iovecs and control buffers that outlive the
    // call; each iovec covers a borrowed slice, which sendmmsg does not write to.
    let sent = check(unsafe {
        libc::sendmmsg(fd.as_raw_fd(), msgs.as_mut_ptr(), count, libc::MSG_DONTWAIT)
    })?;
    Ok(sent as usize)
}

/// Puts one more control message, of a level and type, behind those that the header has in `control`.
fn add_control<T: Copy>(
    header: &mut libc::msghdr,
    control: &mut [u64; CONTROL_WORDS],
    (level, kind): (libc::c_int, libc::c_int),
    value: T,
) {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: both only compute.
    let (space, len) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
    let used: usize = header.msg_controllen as _;
    assert!(
        used + space <= size_of_val(control),
        "there is room for one message of each kind"
    );
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = (used + space) as _;
    // SAFETY: `space` bytes from `used` on lie within `control`, as was checked; it is aligned for a
    // header, and so is `used`, a sum of what CMSG_SPACE gave. The value lies right behind its header
    // and within `space`.
    unsafe {
        let at = control.as_mut_ptr().cast::<u8>().add(used);
        let at = at.cast::<libc::cmsghdr>();
        (*at).cmsg_level = level;
        (*at).cmsg_type = kind;
        (*at).cmsg_len = len as _;
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
    }
}

pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    owned(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

pub(crate) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// What is done to a descriptor's place among those that are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// For input.
    Add,
    /// Watched already: from now on for input, and for room for output if `output`.
    Change {
        output: bool,
    },
    Remove,
}

/// Changes how `fd` is watched; its events carry `token`.
pub(crate) fn epoll_watch(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    token: u64,
    watch: Watch,
) -> io::Result<()> {
    let (operation, output) = match watch {
        Watch::Add => (libc::EPOLL_CTL_ADD, 0),
        Watch::Change { output: true } => (libc::EPOLL_CTL_MOD, libc::EPOLLOUT),
        Watch::Change { output: false } => (libc::EPOLL_CTL_MOD, 0),
        Watch::Remove => (libc::EPOLL_CTL_DEL, 0),
    };
    let mut event = libc::epoll_event {
        events: (libc::EPOLLIN | output) as u32,
        u64: token,
    };
    // SAFETY: `event` lives through the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })
        .map(drop)
}

/// Waits until a descriptor is ready, or for `timeout`; hands out the token of each, and whether there
/// is input (or an end, or an error) and room for output. At most [`BATCH`] at once; the next call
/// begins with others.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    timeout: Duration,
    mut ready: impl FnMut(u64, bool, bool),
) -> io::Result<()> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
    // Rounded up, or a timer due in half a millisecond would be polled for in a busy loop.
    let millis = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as libc::c_int;
    // SAFETY: `events` lives through the call and has room for as many as are asked for.
    let result = check(unsafe {
        libc::epoll_wait(
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            BATCH as libc::c_int,
            millis,
        )
    });
    let count = match result {
        Ok(count) => count as usize,
        Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
        Err(e) => return Err(e),
    };
    for event in &events[..count] {
        let (events, token) = (event.events as libc::c_int, event.u64);
        ready(
            token,
            events & !libc::EPOLLOUT != 0,
            events & libc::EPOLLOUT != 0,
        );
    }
    Ok(())
}
