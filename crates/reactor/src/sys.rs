//! System calls on raw memory: the ones that the safe wrappers of the ecosystem cannot express,
//! because a guest or a peer may be changing the bytes meanwhile.
//!
//! Every function returns what the kernel does on a ring: a count, or a negative error number.

use std::os::fd::RawFd;

/// Most ranges one vectored call takes (UIO_MAXIOV, readv(2)).
pub(crate) const IOV_MAX: usize = 1024;

/// Most bytes one call moves (MAX_RW_COUNT, read(2)).
pub(crate) const MAX_RW: usize = 0x7fff_f000;

fn result(n: isize) -> i32 {
    match i32::try_from(n) {
        Ok(n) if n >= 0 => n,
        _ => -last_error(),
    }
}

fn last_error() -> i32 {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// Turns a result into an I/O result.
pub(crate) fn check(res: i32) -> std::io::Result<usize> {
    usize::try_from(res).map_err(|_| std::io::Error::from_raw_os_error(-res))
}

/// An empty message header over `iov`.
pub(crate) fn header(iov: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = iov.len() as _;
    msg
}

/// recv(2).
///
/// # Safety
/// `ptr..ptr + len` is valid for writes.
pub(crate) unsafe fn recv(fd: RawFd, ptr: *mut u8, len: usize, flags: i32) -> i32 {
    // SAFETY: by this function's contract.
    result(unsafe { libc::recv(fd, ptr.cast(), len.min(MAX_RW), flags) })
}

/// recvmsg(2).
///
/// # Safety
/// Every range of `iov` is valid for writes.
pub(crate) unsafe fn recvmsg(fd: RawFd, iov: &mut [libc::iovec], flags: i32) -> i32 {
    let mut msg = header(iov);
    // SAFETY: by this function's contract.
    result(unsafe { libc::recvmsg(fd, &mut msg, flags) })
}

/// sendmsg(2), never with a signal.
///
/// # Safety
/// Every range of `iov` is valid for reads.
pub(crate) unsafe fn sendmsg(fd: RawFd, iov: &mut [libc::iovec], flags: i32) -> i32 {
    let msg = header(iov);
    // SAFETY: by this function's contract.
    result(unsafe { libc::sendmsg(fd, &msg, flags | libc::MSG_NOSIGNAL) })
}

/// readv(2), or preadv2(2) if there is an offset.
///
/// # Safety
/// Every range of `iov` is valid for writes.
pub(crate) unsafe fn readv(fd: RawFd, iov: &[libc::iovec], at: Option<u64>, flags: i32) -> i32 {
    let (ptr, n) = (iov.as_ptr(), iov.len().min(IOV_MAX) as i32);
    // SAFETY: by this function's contract.
    result(unsafe {
        match at {
            None => libc::readv(fd, ptr, n),
            Some(at) if flags == 0 => libc::preadv(fd, ptr, n, at as libc::off_t),
            Some(at) => libc::preadv2(fd, ptr, n, at as libc::off_t, flags),
        }
    })
}

/// writev(2), or pwritev2(2) if there is an offset.
///
/// # Safety
/// Every range of `iov` is valid for reads.
pub(crate) unsafe fn writev(fd: RawFd, iov: &[libc::iovec], at: Option<u64>, flags: i32) -> i32 {
    let (ptr, n) = (iov.as_ptr(), iov.len().min(IOV_MAX) as i32);
    // SAFETY: by this function's contract.
    result(unsafe {
        match at {
            None => libc::writev(fd, ptr, n),
            Some(at) if flags == 0 => libc::pwritev(fd, ptr, n, at as libc::off_t),
            Some(at) => libc::pwritev2(fd, ptr, n, at as libc::off_t, flags),
        }
    })
}

/// fdatasync(2).
pub(crate) fn fdatasync(fd: RawFd) -> i32 {
    // SAFETY: touches no memory.
    result(unsafe { libc::fdatasync(fd) } as isize)
}

/// fallocate(2).
pub(crate) fn fallocate(fd: RawFd, mode: i32, at: u64, len: u64) -> i32 {
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else {
        return -libc::EFBIG;
    };
    // SAFETY: touches no memory.
    result(unsafe { libc::fallocate(fd, mode, at, len) } as isize)
}

/// Nanoseconds of the coarse monotonic clock: a few milliseconds exact, and nearly free.
pub(crate) fn coarse_clock() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for writes. The call cannot fail on this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Runs `f` (which starts a thread) with all signals blocked, so that the thread never takes one, but
/// for those that it raises itself by an access to memory or an instruction: they end a process that
/// has them blocked, even if it handles them.
pub(crate) fn without_signals<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are valid, and restored as they were.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        for own in [libc::SIGBUS, libc::SIGSEGV, libc::SIGFPE, libc::SIGILL] {
            libc::sigdelset(&mut all, own);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let value = f();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        value
    }
}
