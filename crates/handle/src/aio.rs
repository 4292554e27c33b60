//! Making the connection progress, and asking how far it is.

use std::os::fd::{BorrowedFd, RawFd};

use crate::{Handle, Result, pending};

impl Handle {
    /// `nbd_poll`: waits up to `timeout` milliseconds (-1: for ever), then does what can be done. False if nothing
    /// happened in time.
    pub fn poll(&self, timeout: i32) -> Result<bool> {
        pending()
    }
    /// `nbd_poll2`: as [`poll`](Handle::poll), and also returns when `fd` can be read.
    pub fn poll2(&self, fd: BorrowedFd<'_>, timeout: i32) -> Result<bool> {
        pending()
    }
    /// `nbd_aio_get_fd`.
    pub fn aio_get_fd(&self) -> Result<RawFd> {
        pending()
    }
    /// `nbd_aio_get_direction`: [`AIO_DIRECTION_READ`](crate::AIO_DIRECTION_READ), ..., or 0.
    pub fn aio_get_direction(&self) -> u32 {
        pending()
    }
    /// `nbd_aio_notify_read`.
    pub fn aio_notify_read(&self) -> Result<()> {
        pending()
    }
    /// `nbd_aio_notify_write`.
    pub fn aio_notify_write(&self) -> Result<()> {
        pending()
    }
    /// `nbd_aio_is_created`.
    pub fn aio_is_created(&self) -> bool {
        pending()
    }
    /// `nbd_aio_is_connecting`.
    pub fn aio_is_connecting(&self) -> bool {
        pending()
    }
    /// `nbd_aio_is_negotiating`.
    pub fn aio_is_negotiating(&self) -> bool {
        pending()
    }
    /// `nbd_aio_is_ready`.
    pub fn aio_is_ready(&self) -> bool {
        pending()
    }
    /// `nbd_aio_is_processing`.
    pub fn aio_is_processing(&self) -> bool {
        pending()
    }
    /// `nbd_aio_is_dead`.
    pub fn aio_is_dead(&self) -> bool {
        pending()
    }
    /// `nbd_aio_is_closed`.
    pub fn aio_is_closed(&self) -> bool {
        pending()
    }
    /// `nbd_aio_command_completed`: whether it was, and so is retired. An error if the command failed; it is retired too.
    pub fn aio_command_completed(&self, cookie: u64) -> Result<bool> {
        pending()
    }
    /// `nbd_aio_peek_command_completed`: the cookie of a completed command, or 0.
    pub fn aio_peek_command_completed(&self) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_in_flight`.
    pub fn aio_in_flight(&self) -> Result<u32> {
        pending()
    }
}
