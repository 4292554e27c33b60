//! Instances: made, connected, started, ended.

use std::{
    ffi::{c_char, c_int},
    ptr,
};

use ::blkio::Blkio;

use crate::{
    blkio,
    error::{call, invalid},
    param,
};

/// `blkio_create` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_create(driver: *const c_char, bp: *mut *mut blkio) -> c_int {
    call(|| {
        if bp.is_null() {
            return Err(invalid("bp must be non-NULL"));
        }
        // SAFETY: C passes a place for a pointer.
        unsafe { bp.write(ptr::null_mut()) };
        let (null, wrong) = ("driver must be non-NULL", "Invalid driver name");
        // SAFETY: C passes a string or NULL.
        let driver = unsafe { param::text(driver, null, wrong) }?;
        let made = Box::new(blkio {
            queues: Default::default(),
            poll_queues: Default::default(),
            disk: Blkio::new(driver)?,
        });
        // SAFETY: as above.
        unsafe { bp.write(Box::into_raw(made)) };
        Ok(0)
    })
}

/// `blkio_connect` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_connect(b: *mut blkio) -> c_int {
    // SAFETY: C passes an instance or NULL.
    call(|| unsafe { param::disk(b) }?.connect().map(|()| 0))
}

/// `blkio_start` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_start(b: *mut blkio) -> c_int {
    // SAFETY: C passes an instance or NULL.
    call(|| unsafe { param::disk(b) }?.start().map(|()| 0))
}

/// `blkio_destroy` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_destroy(bp: *mut *mut blkio) {
    if bp.is_null() {
        return;
    }
    // SAFETY: C passes the place of an instance or of NULL.
    let b = unsafe { bp.replace(ptr::null_mut()) };
    if !b.is_null() {
        // SAFETY: `blkio_create` made it of a box, and this is its end.
        drop(unsafe { Box::from_raw(b) });
    }
}
