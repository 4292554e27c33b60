//! Requests: as they come, into the queue. What is wrong with one is told by its completion.

use std::ffi::{c_int, c_void};

use ::blkio::Zone;
use libc::iovec;

use crate::{blkioq, param};

/// `blkioq_read` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_read(
    q: *mut blkioq,
    start: u64,
    buf: *mut c_void,
    len: usize,
    user_data: *mut c_void,
    flags: u32,
) {
    // SAFETY: C passes a queue or NULL.
    if let Some(q) = unsafe { param::queue(q) } {
        // SAFETY: the buffer is the request's until it completes (blkio.h).
        unsafe { q.read(start, buf.cast(), len, user_data.addr(), flags) }
    }
}

/// `blkioq_write` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_write(
    q: *mut blkioq,
    start: u64,
    buf: *const c_void,
    len: usize,
    user_data: *mut c_void,
    flags: u32,
) {
    // SAFETY: C passes a queue or NULL.
    if let Some(q) = unsafe { param::queue(q) } {
        // SAFETY: the buffer is the request's until it completes (blkio.h).
        unsafe { q.write(start, buf.cast(), len, user_data.addr(), flags) }
    }
}

/// `blkioq_readv` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_readv(
    q: *mut blkioq,
    start: u64,
    vector: *const iovec,
    count: c_int,
    user_data: *mut c_void,
    flags: u32,
) {
    // SAFETY: C passes a queue or NULL.
    if let Some(q) = unsafe { param::queue(q) } {
        // SAFETY: array and buffers are the request's until it completes (blkio.h).
        unsafe { q.readv(start, vector, count, user_data.addr(), flags) }
    }
}

/// `blkioq_writev` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_writev(
    q: *mut blkioq,
    start: u64,
    vector: *mut iovec,
    count: c_int,
    user_data: *mut c_void,
    flags: u32,
) {
    // SAFETY: C passes a queue or NULL.
    if let Some(q) = unsafe { param::queue(q) } {
        // SAFETY: array and buffers are the request's until it completes (blkio.h).
        unsafe { q.writev(start, vector, count, user_data.addr(), flags) }
    }
}

/// `blkioq_report_zones` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkioq_report_zones(
    q: *mut blkioq,
    offset: u64,
    zones: *mut Zone,
    count: u32,
    user_data: *mut c_void,
    flags: u32,
) {
    // SAFETY: C passes a queue or NULL.
    if let Some(q) = unsafe { param::queue(q) } {
        // SAFETY: the array is the request's until it completes (blkio.h).
        unsafe { q.report_zones(offset, zones, count, user_data.addr(), flags) }
    }
}

macro_rules! requests {
    ($($name:ident, $method:ident $(, $arg:ident)*;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of blkio.h.")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                q: *mut blkioq,
                $($arg: u64,)*
                user_data: *mut c_void,
                flags: u32,
            ) {
                // SAFETY: C passes a queue or NULL.
                if let Some(q) = unsafe { param::queue(q) } {
                    q.$method($($arg,)* user_data.addr(), flags);
                }
            }
        )*
    };
}

requests! {
    blkioq_write_zeroes, write_zeroes, start, len;
    blkioq_discard, discard, start, len;
    blkioq_flush, flush;
    blkioq_close_zone, close_zone, offset;
    blkioq_finish_zone, finish_zone, offset;
    blkioq_open_zone, open_zone, offset;
    blkioq_reset_zone, reset_zone, offset;
    blkioq_close_all_zones, close_all_zones;
    blkioq_finish_all_zones, finish_all_zones;
    blkioq_open_all_zones, open_all_zones;
    blkioq_reset_all_zones, reset_all_zones;
}
