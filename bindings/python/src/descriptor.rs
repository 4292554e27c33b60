//! File descriptors, which are plain numbers in Python.
//!
//! The other place with unsafe code: only the caller can know whose a number is.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use handle::{Error, SocketError};

/// Gives a socket to a handle, by `connect`. It stays the caller's if it was not taken.
pub fn give(
    call: &'static str,
    socket: RawFd,
    connect: impl FnOnce(OwnedFd) -> Result<(), SocketError>,
) -> handle::Result<()> {
    if !is_open(socket) {
        let errno = rustix::io::Errno::BADF.raw_os_error();
        return Err(Error::new(call, "fcntl: set O_NONBLOCK", errno));
    }
    // SAFETY: it is open, and by calling this the program says that it gives it away.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    connect(socket).map_err(|failed| {
        let _stays_open = failed.socket.map(IntoRawFd::into_raw_fd);
        failed.error
    })
}

/// Does something with a descriptor of the caller; None if it is not open.
pub fn lend<T>(number: RawFd, work: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    // SAFETY: it is open, and the caller keeps it so during the call. If he does not, poll(2) tells of another one.
    is_open(number).then(|| work(unsafe { BorrowedFd::borrow_raw(number) }))
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: fcntl(F_GETFD) does nothing to a descriptor, whosever it is. -1 may not be borrowed.
    number >= 0 && rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
}
