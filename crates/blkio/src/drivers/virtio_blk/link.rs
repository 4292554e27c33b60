//! Whether the device is there: what tells all queues, on their own threads.
//!
//! A number says all, so that a queue looks at it with each call: it is even while the device is
//! there, and odd while it is away; it grows with each change. [`GONE`] is the last.

use std::{
    os::fd::OwnedFd,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::io::Errno;

/// The device will not come back.
pub(crate) const GONE: u64 = u64::MAX;

/// Why a device is gone for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason {
    pub errno: Errno,
    pub text: &'static std::ffi::CStr,
}

/// The device's state, shared by its transport and its queues.
#[derive(Debug, Default)]
pub(crate) struct Link {
    epoch: AtomicU64,
    reason: OnceLock<Reason>,
    /// Eventfds on which queues wait.
    wakers: Mutex<Vec<OwnedFd>>,
}

impl Link {
    /// The number now.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Why it is gone, once it is.
    pub fn reason(&self) -> Reason {
        *self.reason.get().unwrap_or(&Reason {
            errno: Errno::NOTCONN,
            text: c"the device is gone",
        })
    }

    /// This eventfd is signalled with each change.
    pub fn wake(&self, event: OwnedFd) {
        self.wakers().push(event);
    }

    /// The device is away, and may come back.
    pub fn away(&self) {
        self.change(|epoch| (epoch & 1 == 0).then_some(epoch + 1));
    }

    /// It is back: a new one, which knows of no ring.
    pub fn back(&self) {
        self.change(|epoch| (epoch != GONE && epoch & 1 == 1).then_some(epoch + 1));
    }

    /// It will not come back.
    pub fn gone(&self, reason: Reason) {
        let _ = self.reason.set(reason);
        self.change(|epoch| (epoch != GONE).then_some(GONE));
    }

    fn change(&self, next: impl Fn(u64) -> Option<u64>) {
        let changed = self
            .epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if changed.is_ok() {
            for event in self.wakers().iter() {
                let _ = rustix::io::write(event, &1u64.to_ne_bytes());
            }
        }
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<OwnedFd>> {
        // A list of descriptors is right whatever happened.
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
