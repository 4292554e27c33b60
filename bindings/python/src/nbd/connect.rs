//! Methods: connecting, and the end of a connection.

use pyo3::{exceptions::PyValueError, prelude::*};
use rustix::net::{SocketAddrAny, SocketAddrUnix};

use super::Connection;
use crate::{
    convert::{Name, Text, Words, bits},
    descriptor::give,
};

#[pymethods]
impl Connection {
    /// Connect to a server by its URI, such as nbd://host/export.
    fn connect_uri(&self, py: Python<'_>, uri: Text) -> PyResult<()> {
        self.call(py, move |h| h.connect_uri(&uri))
    }

    /// Connect to a Unix domain socket.
    fn connect_unix(&self, py: Python<'_>, unixsocket: Name) -> PyResult<()> {
        self.call(py, move |h| h.connect_unix(&unixsocket))
    }

    /// Connect over vsock.
    fn connect_vsock(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = bits)] cid: u32,
        #[pyo3(from_py_with = bits)] port: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.connect_vsock(cid, port))
    }

    /// Connect over TCP. The port is a string, a number or a name of services(5).
    fn connect_tcp(&self, py: Python<'_>, hostname: Text, port: Text) -> PyResult<()> {
        self.call(py, move |h| h.connect_tcp(&hostname, &port))
    }

    /// Use a connected socket, by its descriptor. It is the handle's from then on.
    fn connect_socket(&self, py: Python<'_>, sock: i32) -> PyResult<()> {
        self.call(py, move |h| {
            give("nbd_connect_socket", sock, |fd| h.connect_socket(fd))
        })
    }

    /// Start a server that speaks on its stdin and stdout, such as nbdkit -s. It ends with the handle.
    fn connect_command(&self, py: Python<'_>, argv: Words) -> PyResult<()> {
        self.call(py, move |h| h.connect_command(&argv.0))
    }

    /// Start a server by systemd's socket activation. It ends with the handle.
    fn connect_systemd_socket_activation(&self, py: Python<'_>, argv: Words) -> PyResult<()> {
        self.call(py, move |h| h.connect_systemd_socket_activation(&argv.0))
    }

    /// Connect to a Unix domain socket, without waiting.
    fn aio_connect(&self, py: Python<'_>, addr: Text) -> PyResult<()> {
        let address = path_of(&addr)?;
        self.call(py, move |h| h.aio_connect(&address))
    }

    /// As connect_uri(), without waiting.
    fn aio_connect_uri(&self, py: Python<'_>, uri: Text) -> PyResult<()> {
        self.call(py, move |h| h.aio_connect_uri(&uri))
    }

    /// As connect_unix(), without waiting.
    fn aio_connect_unix(&self, py: Python<'_>, unixsocket: Name) -> PyResult<()> {
        self.call(py, move |h| h.aio_connect_unix(&unixsocket))
    }

    /// As connect_vsock(), without waiting.
    fn aio_connect_vsock(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = bits)] cid: u32,
        #[pyo3(from_py_with = bits)] port: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.aio_connect_vsock(cid, port))
    }

    /// As connect_tcp(), without waiting (but for the look-up of the name).
    fn aio_connect_tcp(&self, py: Python<'_>, hostname: Text, port: Text) -> PyResult<()> {
        self.call(py, move |h| h.aio_connect_tcp(&hostname, &port))
    }

    /// As connect_socket(), without waiting.
    fn aio_connect_socket(&self, py: Python<'_>, sock: i32) -> PyResult<()> {
        self.call(py, move |h| {
            give("nbd_aio_connect_socket", sock, |fd| {
                h.aio_connect_socket(fd)
            })
        })
    }

    /// As connect_command(), without waiting.
    fn aio_connect_command(&self, py: Python<'_>, argv: Words) -> PyResult<()> {
        self.call(py, move |h| h.aio_connect_command(&argv.0))
    }

    /// As connect_systemd_socket_activation(), without waiting.
    fn aio_connect_systemd_socket_activation(&self, py: Python<'_>, argv: Words) -> PyResult<()> {
        self.call(py, move |h| {
            h.aio_connect_systemd_socket_activation(&argv.0)
        })
    }

    /// A URI by which this server can be connected to again.
    fn get_uri(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_uri())
    }

    /// The process of the server that was started for this handle.
    fn get_subprocess_pid(&self, py: Python<'_>) -> PyResult<i64> {
        self.call(py, move |h| h.get_subprocess_pid())
    }

    /// Send a signal to the server that was started for this handle; 0 is SIGTERM.
    fn kill_subprocess(&self, py: Python<'_>, signum: i32) -> PyResult<()> {
        self.call(py, move |h| h.kill_subprocess(signum))
    }

    /// End the connection when all commands are completed (with SHUTDOWN_ABANDON_PENDING: those that were sent).
    #[pyo3(signature = (flags=0))]
    fn shutdown(&self, py: Python<'_>, #[pyo3(from_py_with = bits)] flags: u32) -> PyResult<()> {
        self.call(py, move |h| h.shutdown(flags))
    }

    /// Tell the server that this connection ends, without waiting.
    #[pyo3(signature = (flags=0))]
    fn aio_disconnect(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.aio_disconnect(flags))
    }
}

/// The address of a Unix domain socket.
fn path_of(path: &str) -> PyResult<SocketAddrAny> {
    let address = SocketAddrUnix::new(path);
    let address =
        address.map_err(|_| PyValueError::new_err("the path is too long for a socket"))?;
    Ok(address.into())
}
