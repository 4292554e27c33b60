//! Waiting: until when, and with which signals.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use crate::{Error, Result};

/// How long a call may wait, and what may interrupt it.
pub(crate) struct Wait<'w> {
    deadline: Option<Instant>,
    /// The mask of signals while waiting; a signal ends the wait then.
    pub signals: Option<&'w libc::sigset_t>,
}

impl<'w> Wait<'w> {
    pub fn new(timeout: Option<Duration>, signals: Option<&'w libc::sigset_t>) -> Wait<'w> {
        Wait {
            // What is beyond the clock's range is for ever.
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            signals,
        }
    }

    /// What is left of the time; `None` if it is endless.
    ///
    /// # Errors
    ///
    /// ETIME once there is none.
    pub fn left(&self) -> Result<Option<Duration>> {
        let Some(deadline) = self.deadline else {
            return Ok(None);
        };
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(timed_out()),
            left => Ok(Some(left)),
        }
    }

    /// Waits until `fd` is readable. A signal ends it early, with EINTR if that was asked for.
    pub fn readable(&self, fd: &impl AsRawFd) -> Result<()> {
        let left = self.left()?;
        let timeout = left.map(|left| libc::timespec {
            tv_sec: left.as_secs() as libc::time_t,
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let pointer = |time: &libc::timespec| std::ptr::from_ref(time);
        // SAFETY: one pollfd, and pointers that are null or to values that live through the call.
        let ready = unsafe {
            libc::ppoll(
                &mut poll,
                1,
                timeout.as_ref().map_or(std::ptr::null(), pointer),
                self.signals.map_or(std::ptr::null(), std::ptr::from_ref),
            )
        };
        match ready {
            0 => Err(timed_out()),
            1.. => Ok(()),
            _ => self.interrupted(Errno::from_io_error(&std::io::Error::last_os_error())),
        }
    }

    /// What an interrupted call means: once more, or the end.
    pub fn interrupted(&self, errno: Option<Errno>) -> Result<()> {
        match errno {
            Some(Errno::INTR) if self.signals.is_none() => Ok(()),
            Some(errno) => Err(errno.into()),
            None => Err(Errno::IO.into()),
        }
    }
}

pub(crate) fn timed_out() -> Error {
    Error::new(Errno::TIME, "Timed out")
}
