//! Completions: waited for, or told by a descriptor.

use std::{ffi::c_int, mem::MaybeUninit, slice, time::Duration};

use ::blkio::{Completion, Result};
use libc::{sigset_t, timespec};

use crate::{
    blkioq,
    error::{call, invalid},
    param,
};

const NANOSECONDS: i64 = 1_000_000_000;

/// `blkioq_do_io` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_do_io(
    q: *mut blkioq,
    completions: *mut MaybeUninit<Completion>,
    min: c_int,
    max: c_int,
    timeout: *mut timespec,
) -> c_int {
    let none = std::ptr::null();
    // SAFETY: C passes what blkio.h asks for.
    unsafe { blkioq_do_io_interruptible(q, completions, min, max, timeout, none) }
}

/// `blkioq_do_io_interruptible` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_do_io_interruptible(
    q: *mut blkioq,
    completions: *mut MaybeUninit<Completion>,
    min: c_int,
    max: c_int,
    timeout: *mut timespec,
    signals: *const sigset_t,
) -> c_int {
    call(|| {
        // SAFETY: C passes a queue or NULL.
        let queue = unsafe { param::queue(q) };
        let queue = queue.ok_or_else(|| invalid("q must be non-NULL"))?;
        // SAFETY: C passes times and signals, or NULL.
        let (timeout, signals) = unsafe { (timeout.as_mut(), signals.as_ref()) };
        let left = timeout.as_deref().map(duration).transpose()?;
        // SAFETY: C passes room for so many, or NULL.
        let (min, into) = unsafe { room(completions, min, max) }?;
        let (Some(mut left), Some(timeout)) = (left, timeout) else {
            let count = queue.do_io_uninit(into, min, None, signals)?;
            return Ok(count as c_int);
        };
        let count = queue.do_io_uninit(into, min, Some(&mut left), signals);
        // No more than C had said: it fits.
        timeout.tv_sec = left.as_secs() as libc::time_t;
        timeout.tv_nsec = left.subsec_nanos().into();
        Ok(count? as c_int)
    })
}

fn duration(time: &timespec) -> Result<Duration> {
    if time.tv_sec < 0 {
        return Err(invalid("tv_sec cannot be negative"));
    }
    if !(0..NANOSECONDS).contains(&time.tv_nsec) {
        return Err(invalid("tv_nsec must be less than one second"));
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// How many completions are wanted, and where they go.
///
/// # Safety
/// `completions` is NULL or has room for `max`, while `'a` lasts.
unsafe fn room<'a>(
    completions: *mut MaybeUninit<Completion>,
    min: c_int,
    max: c_int,
) -> Result<(usize, &'a mut [MaybeUninit<Completion>])> {
    let Ok(least) = usize::try_from(min) else {
        return Err(invalid("min_completions cannot be negative"));
    };
    let Ok(most) = usize::try_from(max) else {
        return Err(invalid("max_completions cannot be negative"));
    };
    if least > most {
        return Err(invalid(
            "min_completions must be less than or equal to max_completions",
        ));
    }
    match (completions.is_null(), most) {
        (true, 0) => Ok((least, &mut [])),
        (true, _) => Err(invalid(
            "max_completions must be 0 when completions is NULL",
        )),
        // SAFETY: the caller's promise; they need no values.
        (false, most) => Ok((least, unsafe {
            slice::from_raw_parts_mut(completions, most)
        })),
    }
}

/// `blkioq_get_completion_fd` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_get_completion_fd(q: *mut blkioq) -> c_int {
    // SAFETY: C passes a queue or NULL.
    unsafe { param::queue(q) }.map_or(-1, |q| q.completion_fd())
}

/// `blkioq_set_completion_fd_enabled` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_set_completion_fd_enabled(q: *mut blkioq, enable: bool) {
    // SAFETY: C passes a queue or NULL.
    if let Some(q) = unsafe { param::queue(q) } {
        q.set_completion_fd_enabled(enable);
    }
}
