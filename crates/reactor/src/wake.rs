//! How other threads end a loop's wait: an eventfd, written only while the loop sleeps.
//!
//! The loop says that it is about to sleep, then looks once more for mail. Whoever posts mail puts
//! it down first and then looks whether the loop sleeps. With a fence between the two steps on
//! both sides one of them sees the other (Dekker's pattern), so no wake is lost, and a loop that is
//! awake costs its callers no system call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use block::Unpark;
use rustix::event::{EventfdFlags, eventfd};

/// The loop's side of its eventfd.
pub(crate) struct Parker {
    asleep: AtomicBool,
    fd: OwnedFd,
}

/// Everybody else's side of it.
pub(crate) struct Unparker(pub(crate) Arc<Parker>);

impl Parker {
    /// `nonblocking`: reads of the eventfd do not wait (they must, on a ring).
    pub(crate) fn new(nonblocking: bool) -> io::Result<Arc<Parker>> {
        let mut flags = EventfdFlags::CLOEXEC;
        flags.set(EventfdFlags::NONBLOCK, nonblocking);
        Ok(Arc::new(Parker {
            asleep: AtomicBool::new(false),
            fd: eventfd(0, flags)?,
        }))
    }

    /// Announces sleep. The caller must look for mail after it.
    pub(crate) fn sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The loop runs again.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Ends the loop's own next wait.
    pub(crate) fn ring(&self) {
        // Fails only when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Takes the wakes off a nonblocking eventfd.
    pub(crate) fn drain(&self) {
        let mut count = [0; 8];
        // Nothing to read is as good as something.
        let _ = rustix::io::read(&self.fd, &mut count);
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Unpark for Unparker {
    fn unpark(&self) {
        fence(Ordering::SeqCst);
        if self.0.asleep.swap(false, Ordering::AcqRel) {
            self.0.ring();
        }
    }
}
