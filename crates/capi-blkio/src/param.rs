//! C's arguments, checked once and turned into Rust's.

use std::ffi::{CStr, c_char};

use ::blkio::{Blkio, Queue, Result};

use crate::{blkio, blkioq, error::invalid};

/// The instance.
///
/// # Safety
/// `b` is NULL or was made by `blkio_create` and not destroyed, and no other thread uses it while
/// `'a` lasts, but its queues.
pub unsafe fn instance<'a>(b: *mut blkio) -> Result<&'a mut blkio> {
    // SAFETY: the caller's promise.
    unsafe { b.as_mut() }.ok_or_else(|| invalid("b must be non-NULL"))
}

/// The instance's disk.
///
/// # Safety
/// As [`instance`].
pub unsafe fn disk<'a>(b: *mut blkio) -> Result<&'a mut Blkio> {
    // SAFETY: the caller's promise.
    unsafe { instance(b) }.map(|b| &mut b.disk)
}

/// The queue.
///
/// # Safety
/// `q` is NULL or one of an instance that lives, not removed, and no other thread uses it while `'a`
/// lasts.
pub unsafe fn queue<'a>(q: *mut blkioq) -> Option<&'a mut Queue> {
    // SAFETY: the caller's promise.
    unsafe { q.as_mut() }.map(|q| &mut q.queue)
}

/// Text.
///
/// # Safety
/// It is NULL or a C string, and stays so while `'a` lasts.
pub unsafe fn text<'a>(
    text: *const c_char,
    null: &'static str,
    wrong: &'static str,
) -> Result<&'a str> {
    if text.is_null() {
        return Err(invalid(null));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| invalid(wrong))
}

/// The name of a property.
///
/// # Safety
/// As [`text`].
pub unsafe fn name<'a>(name: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    unsafe { text(name, "name must be non-NULL", "Invalid property name") }
}

/// Where something is written to.
///
/// # Safety
/// It is NULL, or may be written to.
pub unsafe fn put<T>(place: *mut T, value: T) -> Result<()> {
    if place.is_null() {
        return Err(invalid("value must be non-NULL"));
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}
