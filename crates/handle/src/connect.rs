//! Getting a connection, and ending it.

use std::{ffi::OsString, os::fd::OwnedFd, path::Path};

use rustix::net::SocketAddrAny;

use crate::{Error, Handle, Result, pending};

/// Why a socket that was handed over leads to no connection.
#[derive(Debug)]
pub struct SocketError {
    /// What is wrong.
    pub error: Error,
    /// The socket, if the handle did not take it. It is the caller's again.
    pub socket: Option<OwnedFd>,
}

impl Handle {
    /// `nbd_connect_uri`.
    pub fn connect_uri(&self, uri: &str) -> Result<()> {
        pending()
    }
    /// `nbd_aio_connect_uri`.
    pub fn aio_connect_uri(&self, uri: &str) -> Result<()> {
        pending()
    }
    /// `nbd_connect_unix`.
    pub fn connect_unix(&self, path: &Path) -> Result<()> {
        pending()
    }
    /// `nbd_aio_connect_unix`.
    pub fn aio_connect_unix(&self, path: &Path) -> Result<()> {
        pending()
    }
    /// `nbd_connect_vsock`.
    pub fn connect_vsock(&self, cid: u32, port: u32) -> Result<()> {
        pending()
    }
    /// `nbd_aio_connect_vsock`.
    pub fn aio_connect_vsock(&self, cid: u32, port: u32) -> Result<()> {
        pending()
    }
    /// `nbd_connect_tcp`. `port` is a number or the name of a service.
    pub fn connect_tcp(&self, host: &str, port: &str) -> Result<()> {
        pending()
    }
    /// `nbd_aio_connect_tcp`. The name of the host is looked up before it returns.
    pub fn aio_connect_tcp(&self, host: &str, port: &str) -> Result<()> {
        pending()
    }
    /// `nbd_aio_connect`.
    pub fn aio_connect(&self, address: &SocketAddrAny) -> Result<()> {
        pending()
    }
    /// `nbd_connect_socket`.
    ///
    /// # Errors
    ///
    /// The socket is given back if it was not taken.
    pub fn connect_socket(&self, socket: OwnedFd) -> std::result::Result<(), SocketError> {
        pending()
    }
    /// `nbd_aio_connect_socket`.
    ///
    /// # Errors
    ///
    /// The socket is given back if it was not taken.
    pub fn aio_connect_socket(&self, socket: OwnedFd) -> std::result::Result<(), SocketError> {
        pending()
    }
    /// `nbd_connect_command`.
    pub fn connect_command(&self, argv: &[OsString]) -> Result<()> {
        pending()
    }
    /// `nbd_aio_connect_command`.
    pub fn aio_connect_command(&self, argv: &[OsString]) -> Result<()> {
        pending()
    }
    /// `nbd_connect_systemd_socket_activation`.
    pub fn connect_systemd_socket_activation(&self, argv: &[OsString]) -> Result<()> {
        pending()
    }
    /// `nbd_aio_connect_systemd_socket_activation`.
    pub fn aio_connect_systemd_socket_activation(&self, argv: &[OsString]) -> Result<()> {
        pending()
    }
    /// `nbd_kill_subprocess`.
    pub fn kill_subprocess(&self, signal: i32) -> Result<()> {
        pending()
    }
    /// `nbd_get_subprocess_pid`.
    pub fn get_subprocess_pid(&self) -> Result<i64> {
        pending()
    }
    /// `nbd_shutdown`.
    pub fn shutdown(&self, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_aio_disconnect`.
    pub fn aio_disconnect(&self, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_get_uri`.
    pub fn get_uri(&self) -> Result<String> {
        pending()
    }
}
