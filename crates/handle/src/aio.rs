//! Making the connection progress, and asking how far it is.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::{Handle, Result, error::Fault, inner::Inner, state::Permitted, state::State};

impl Handle {
    /// `nbd_poll`: waits up to `timeout` milliseconds (-1: for ever), then does what can be done. False if
    /// nothing happened in time. The lock is not held while it waits.
    ///
    /// # Errors
    ///
    /// There is nothing to wait for, or the connection has failed.
    pub fn poll(&self, timeout: i32) -> Result<bool> {
        self.poll_once("nbd_poll", None, timeout)
    }

    /// `nbd_poll2`: as [`poll`](Handle::poll), and also returns when `fd` can be read.
    ///
    /// # Errors
    ///
    /// As with [`poll`](Handle::poll).
    pub fn poll2(&self, fd: BorrowedFd<'_>, timeout: i32) -> Result<bool> {
        self.poll_once("nbd_poll2", Some(fd), timeout)
    }

    /// `nbd_aio_get_fd`: valid until the connection ends.
    ///
    /// # Errors
    ///
    /// There is no connection.
    pub fn aio_get_fd(&self) -> Result<RawFd> {
        let none = format_args!("");
        self.call("nbd_aio_get_fd", Permitted::ALWAYS, none, |inner| {
            let missing = || Fault::invalid("connection is not in a connected state");
            inner.socket().map(|fd| fd.as_raw_fd()).ok_or_else(missing)
        })
    }

    /// `nbd_aio_get_direction`: [`AIO_DIRECTION_READ`](crate::AIO_DIRECTION_READ), ..., or 0. Needs no lock.
    pub fn aio_get_direction(&self) -> u32 {
        self.shared.direction()
    }

    /// `nbd_aio_notify_read`: the descriptor can be read.
    ///
    /// # Errors
    ///
    /// The connection has failed, or is not one that could be read.
    pub fn aio_notify_read(&self) -> Result<()> {
        self.notified("nbd_aio_notify_read", |inner| inner.notify(true, false))
    }

    /// `nbd_aio_notify_write`: the descriptor can be written.
    ///
    /// # Errors
    ///
    /// The connection has failed, or is not one that could be written.
    pub fn aio_notify_write(&self) -> Result<()> {
        self.notified("nbd_aio_notify_write", |inner| inner.notify(false, true))
    }

    fn notified(
        &self,
        call: &'static str,
        work: impl FnOnce(&mut Inner) -> std::result::Result<(), Fault>,
    ) -> Result<()> {
        self.call(call, Permitted::ALWAYS, format_args!(""), |inner| {
            inner.waiting.changed = true;
            work(inner)
        })
    }

    /// `nbd_aio_command_completed`: whether it was, and so is retired.
    ///
    /// # Errors
    ///
    /// The command failed; it is retired too.
    pub fn aio_command_completed(&self, cookie: u64) -> Result<bool> {
        let call = "nbd_aio_command_completed";
        let shown = format_args!("cookie={cookie}");
        self.call(call, Permitted::ALWAYS, shown, |inner| {
            if cookie == 0 {
                return Err(Fault::invalid("invalid aio cookie 0"));
            }
            inner.flight.retire(cookie)
        })
    }

    /// `nbd_aio_peek_command_completed`: the cookie of the first command that is completed and not retired, or 0 if all are in
    /// flight.
    ///
    /// # Errors
    ///
    /// There are no commands.
    pub fn aio_peek_command_completed(&self) -> Result<u64> {
        let call = "nbd_aio_peek_command_completed";
        self.call(
            call,
            Permitted::ALWAYS,
            format_args!(""),
            |inner| match inner.flight.first_done() {
                Some(cookie) => Ok(cookie),
                None if inner.flight.in_flight() != 0 => Ok(0),
                None => Err(Fault::invalid("no commands are in flight")),
            },
        )
    }

    /// `nbd_aio_in_flight`: how many commands wait for their reply.
    ///
    /// # Errors
    ///
    /// There was no connection yet.
    pub fn aio_in_flight(&self) -> Result<u32> {
        let none = format_args!("");
        self.call(
            "nbd_aio_in_flight",
            Permitted::WAS_CONNECTED,
            none,
            |inner| Ok(u32::try_from(inner.flight.in_flight()).unwrap_or(u32::MAX)),
        )
    }
}

/// The state. None of these needs the lock, so they can be used in callbacks too.
impl Handle {
    /// `nbd_aio_is_created`.
    pub fn aio_is_created(&self) -> bool {
        self.shared.state() == State::Created
    }

    /// `nbd_aio_is_connecting`.
    pub fn aio_is_connecting(&self) -> bool {
        self.shared.state().is_connecting()
    }

    /// `nbd_aio_is_negotiating`.
    pub fn aio_is_negotiating(&self) -> bool {
        self.shared.state() == State::Negotiating
    }

    /// `nbd_aio_is_ready`.
    pub fn aio_is_ready(&self) -> bool {
        self.shared.state() == State::Ready
    }

    /// `nbd_aio_is_processing`: connected, and a request is sent in part or a reply has come in part.
    pub fn aio_is_processing(&self) -> bool {
        matches!(self.shared.state(), State::Sending | State::Receiving)
    }

    /// `nbd_aio_is_dead`.
    pub fn aio_is_dead(&self) -> bool {
        self.shared.state() == State::Dead
    }

    /// `nbd_aio_is_closed`.
    pub fn aio_is_closed(&self) -> bool {
        self.shared.state() == State::Closed
    }
}
