//! Methods: progress of what was begun, and the state.

use handle::Error;
use pyo3::prelude::*;
use rustix::io::Errno;

use super::Connection;
use crate::{convert::Wide, descriptor::lend};

#[pymethods]
impl Connection {
    /// The descriptor of the connection, to be watched by poll(2).
    fn aio_get_fd(&self, py: Python<'_>) -> PyResult<i32> {
        self.call(py, move |h| h.aio_get_fd())
    }

    /// What to wait for: AIO_DIRECTION_READ, AIO_DIRECTION_WRITE, AIO_DIRECTION_BOTH, or 0.
    fn aio_get_direction(&self, py: Python<'_>) -> PyResult<u32> {
        self.call(py, |h| Ok(h.aio_get_direction()))
    }

    /// The descriptor can be read: make progress.
    fn aio_notify_read(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.aio_notify_read())
    }

    /// The descriptor can be written: make progress.
    fn aio_notify_write(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.aio_notify_write())
    }

    /// Wait until there is progress, at most timeout milliseconds (-1: for ever). 0 if there was none.
    fn poll(&self, py: Python<'_>, timeout: i32) -> PyResult<i32> {
        self.call(py, move |h| h.poll(timeout).map(i32::from))
    }

    /// As poll(), and return also when fd can be read.
    fn poll2(&self, py: Python<'_>, fd: i32, timeout: i32) -> PyResult<i32> {
        self.call(py, move |h| {
            if fd < 0 {
                return h.poll(timeout).map(i32::from); // as with poll(2): there is no other
            }
            let polled = lend(fd, |fd| h.poll2(fd, timeout).map(i32::from));
            let closed = || Error::new("nbd_poll2", "poll", Errno::BADF.raw_os_error());
            polled.unwrap_or_else(|| Err(closed()))
        })
    }

    /// Whether the handle is new.
    fn aio_is_created(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.aio_is_created()))
    }

    /// Whether it is connecting, or in the handshake.
    fn aio_is_connecting(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.aio_is_connecting()))
    }

    /// Whether it stands in the handshake and waits for a call opt_...
    fn aio_is_negotiating(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.aio_is_negotiating()))
    }

    /// Whether it is connected and nothing is going on.
    fn aio_is_ready(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.aio_is_ready()))
    }

    /// Whether a request is half sent or a reply half received.
    fn aio_is_processing(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.aio_is_processing()))
    }

    /// Whether the connection has failed.
    fn aio_is_dead(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.aio_is_dead()))
    }

    /// Whether the connection has ended.
    fn aio_is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.aio_is_closed()))
    }

    /// The state in words.
    fn connection_state(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, |h| {
            Ok(h.connection_state().to_string_lossy().into_owned())
        })
    }

    /// Whether the command of this cookie is completed; then it is forgotten. Raises its error if it failed.
    fn aio_command_completed(&self, py: Python<'_>, cookie: Wide) -> PyResult<bool> {
        self.call(py, move |h| h.aio_command_completed(cookie.0))
    }

    /// The cookie of the first command that is completed and not forgotten, or 0.
    fn aio_peek_command_completed(&self, py: Python<'_>) -> PyResult<u64> {
        self.call(py, move |h| h.aio_peek_command_completed())
    }

    /// How many commands wait for their reply.
    fn aio_in_flight(&self, py: Python<'_>) -> PyResult<u32> {
        self.call(py, move |h| h.aio_in_flight())
    }
}
