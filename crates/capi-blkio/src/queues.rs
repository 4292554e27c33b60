//! Queues: handed out by index, added, removed.

use std::{
    ffi::c_int,
    ptr::{self, NonNull},
};

use ::blkio::{Blkio, Error, Queue, Result};
use rustix::io::Errno;

use crate::{blkio, blkioq, error::call, param};

/// Queues that C has pointers to, by index. They are not the disk's any more: C may use one on one
/// thread while it asks for a property on another.
#[derive(Default)]
pub struct Handed(Vec<Option<NonNull<blkioq>>>);

impl Handed {
    /// The queue of this index; from the disk, when it is asked for first.
    fn get(&mut self, index: usize, take: impl FnOnce() -> Option<Box<Queue>>) -> *mut blkioq {
        if let Some(Some(known)) = self.0.get(index) {
            return known.as_ptr();
        }
        let Some(queue) = take() else {
            return ptr::null_mut();
        };
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        let queue = NonNull::from(Box::leak(Box::new(blkioq { queue: *queue })));
        self.0[index] = Some(queue);
        queue.as_ptr()
    }

    fn forget(&mut self, index: usize) {
        if let Some(queue) = self.0.get_mut(index).and_then(Option::take) {
            // SAFETY: leaked by `get`, and C does not use what it removes.
            drop(unsafe { Box::from_raw(queue.as_ptr()) });
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        (0..self.0.len()).for_each(|index| self.forget(index));
    }
}

/// An index of C's.
fn index(index: c_int) -> Result<usize> {
    let none = || Error::new(Errno::NOENT, format!("no queue with index {index}"));
    usize::try_from(index).map_err(|_| none())
}

/// The number of a new queue, for C.
fn answer(index: Result<usize>) -> Result<c_int> {
    // There are never so many: each of them has a descriptor.
    index.map(|index| c_int::try_from(index).unwrap_or(c_int::MAX))
}

/// # Safety
/// As [`param::instance`].
unsafe fn find(
    b: *mut blkio,
    at: c_int,
    queues: fn(&mut blkio) -> (&mut Handed, &mut Blkio),
    take: fn(&mut Blkio, usize) -> Option<Box<Queue>>,
) -> *mut blkioq {
    // SAFETY: the caller's promise.
    let (Ok(b), Ok(at)) = (unsafe { param::instance(b) }, usize::try_from(at)) else {
        return ptr::null_mut();
    };
    let (handed, disk) = queues(b);
    handed.get(at, || take(disk, at))
}

/// `blkio_get_queue` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_get_queue(b: *mut blkio, at: c_int) -> *mut blkioq {
    // SAFETY: C passes an instance or NULL.
    unsafe { find(b, at, |b| (&mut b.queues, &mut b.disk), Blkio::take_queue) }
}

/// `blkio_get_poll_queue` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_get_poll_queue(b: *mut blkio, at: c_int) -> *mut blkioq {
    // SAFETY: C passes an instance or NULL.
    unsafe {
        find(
            b,
            at,
            |b| (&mut b.poll_queues, &mut b.disk),
            Blkio::take_poll_queue,
        )
    }
}

/// `blkio_add_queue` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_add_queue(b: *mut blkio) -> c_int {
    // SAFETY: C passes an instance or NULL.
    call(|| answer(unsafe { param::disk(b) }?.add_queue()))
}

/// `blkio_add_poll_queue` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_add_poll_queue(b: *mut blkio) -> c_int {
    // SAFETY: C passes an instance or NULL.
    call(|| answer(unsafe { param::disk(b) }?.add_poll_queue()))
}

/// `blkio_remove_queue` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_remove_queue(b: *mut blkio, at: c_int) -> c_int {
    call(|| {
        // SAFETY: C passes an instance or NULL.
        let (b, at) = (unsafe { param::instance(b) }?, index(at)?);
        b.disk.remove_queue(at)?;
        b.queues.forget(at);
        Ok(0)
    })
}

/// `blkio_remove_poll_queue` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_remove_poll_queue(b: *mut blkio, at: c_int) -> c_int {
    call(|| {
        // SAFETY: C passes an instance or NULL.
        let (b, at) = (unsafe { param::instance(b) }?, index(at)?);
        b.disk.remove_poll_queue(at)?;
        b.poll_queues.forget(at);
        Ok(0)
    })
}
