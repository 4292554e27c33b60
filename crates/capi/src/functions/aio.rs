//! Progress, and states.

use std::{
    ffi::{CStr, c_int},
    os::fd::BorrowedFd,
};

use handle::Error;

api! {
    nbd_aio_get_fd(h) -> c_int { h.aio_get_fd() }
    nbd_aio_get_direction(h) -> u32 { Ok(h.aio_get_direction()) }
    nbd_aio_notify_read(h) -> () { h.aio_notify_read() }
    nbd_aio_notify_write(h) -> () { h.aio_notify_write() }
    nbd_poll(h, timeout: c_int) -> bool { h.poll(timeout) }
    nbd_poll2(h, fd: c_int, timeout: c_int) -> bool {
        // poll(2) leaves negative descriptors alone.
        if fd < 0 {
            let renamed = |why: Error| Error::new("nbd_poll2", why.text(), why.errno());
            return h.poll(timeout).map_err(renamed);
        }
        // SAFETY: C keeps it open while this call lasts; if not, poll(2) says so.
        h.poll2(unsafe { BorrowedFd::borrow_raw(fd) }, timeout)
    }
    nbd_aio_is_created(h) -> bool { Ok(h.aio_is_created()) }
    nbd_aio_is_connecting(h) -> bool { Ok(h.aio_is_connecting()) }
    nbd_aio_is_negotiating(h) -> bool { Ok(h.aio_is_negotiating()) }
    nbd_aio_is_ready(h) -> bool { Ok(h.aio_is_ready()) }
    nbd_aio_is_processing(h) -> bool { Ok(h.aio_is_processing()) }
    nbd_aio_is_dead(h) -> bool { Ok(h.aio_is_dead()) }
    nbd_aio_is_closed(h) -> bool { Ok(h.aio_is_closed()) }
    nbd_connection_state(h) -> &'static CStr { Ok(h.connection_state()) }
}
