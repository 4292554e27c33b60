//! Connections: made, waited for or not, and ended.

use std::{
    ffi::c_int,
    os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
};

use handle::{Error, SocketError};
use rustix::io::{Errno, fcntl_getfd};

use crate::param::{Address, Argv, File, Length, Text};

/// Takes over a descriptor of C's, if it is one.
fn own(socket: c_int, call: &'static str) -> Result<OwnedFd, Error> {
    let wrong = |why: Errno| Error::new(call, "fcntl: set O_NONBLOCK", why.raw_os_error());
    if socket < 0 {
        return Err(wrong(Errno::BADF));
    }
    // SAFETY: it is only asked whether it is open.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(socket) }).map_err(wrong)?;
    // SAFETY: it is open, and libnbd.h: it is the library's from now on.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// What was not taken is C's again, and stays open.
fn give_back(failed: SocketError) -> Error {
    if let Some(socket) = failed.socket {
        let _ = socket.into_raw_fd();
    }
    failed.error
}

api! {
    nbd_connect_uri(h, uri: Text) -> () { h.connect_uri(uri) }
    nbd_connect_unix(h, unixsocket: File) -> () { h.connect_unix(unixsocket) }
    nbd_connect_vsock(h, cid: u32, port: u32) -> () { h.connect_vsock(cid, port) }
    nbd_connect_tcp(h, hostname: Text, port: Text) -> () { h.connect_tcp(hostname, port) }
    nbd_connect_socket(h, sock: c_int) -> () {
        h.connect_socket(own(sock, "nbd_connect_socket")?).map_err(give_back)
    }
    nbd_connect_command(h, argv: Argv) -> () { h.connect_command(&argv) }
    nbd_connect_systemd_socket_activation(h, argv: Argv) -> () {
        h.connect_systemd_socket_activation(&argv)
    }
    nbd_set_socket_activation_name(h, socket_name: Text) -> () {
        h.set_socket_activation_name(socket_name)
    }
    nbd_get_socket_activation_name(h) -> String { h.get_socket_activation_name() }
    nbd_kill_subprocess(h, signum: c_int) -> () { h.kill_subprocess(signum) }
    nbd_get_subprocess_pid(h) -> i64 { h.get_subprocess_pid() }
    nbd_shutdown(h, flags: u32) -> () { h.shutdown(flags) }
    nbd_aio_connect(h, addr: Address, addrlen: Length) -> () {
        let address = addr.with(addrlen).map_err(|why| {
            Error::new("nbd_aio_connect", "addr", why.raw_os_error())
        })?;
        h.aio_connect(&address)
    }
    nbd_aio_connect_uri(h, uri: Text) -> () { h.aio_connect_uri(uri) }
    nbd_aio_connect_unix(h, unixsocket: File) -> () { h.aio_connect_unix(unixsocket) }
    nbd_aio_connect_vsock(h, cid: u32, port: u32) -> () { h.aio_connect_vsock(cid, port) }
    nbd_aio_connect_tcp(h, hostname: Text, port: Text) -> () {
        h.aio_connect_tcp(hostname, port)
    }
    nbd_aio_connect_socket(h, sock: c_int) -> () {
        h.aio_connect_socket(own(sock, "nbd_aio_connect_socket")?).map_err(give_back)
    }
    nbd_aio_connect_command(h, argv: Argv) -> () { h.aio_connect_command(&argv) }
    nbd_aio_connect_systemd_socket_activation(h, argv: Argv) -> () {
        h.aio_connect_systemd_socket_activation(&argv)
    }
    nbd_aio_disconnect(h, flags: u32) -> () { h.aio_disconnect(flags) }
}
