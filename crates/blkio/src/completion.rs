//! Completions.

use std::ffi::{CStr, c_char};

/// How a request ended. Its layout is that of `struct blkio_completion` in C.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Completion {
    user_data: usize,
    /// The first byte of a static text that ends with 0: one word, as C has it.
    message: Option<&'static c_char>,
    ret: i32,
    reserved: [u8; 12],
}

impl Completion {
    pub(crate) fn new(user_data: usize, ret: i32, message: Option<&'static CStr>) -> Completion {
        Completion {
            user_data,
            // SAFETY: a C string has one byte at least, and this one lives for ever.
            message: message.map(|text| unsafe { &*text.as_ptr() }),
            ret,
            reserved: [0; 12],
        }
    }

    /// What was given with the request.
    pub fn user_data(&self) -> usize {
        self.user_data
    }

    /// 0, or for a report of zones their number; a negative number of `errno.h` if the request failed.
    pub fn ret(&self) -> i32 {
        self.ret
    }

    /// Why it failed, for some errors.
    pub fn message(&self) -> Option<&'static CStr> {
        // SAFETY: made from a static C string in `new`, the only place that makes one.
        self.message.map(|first| unsafe { CStr::from_ptr(first) })
    }
}

/// A completion of nothing, to make room.
impl Default for Completion {
    fn default() -> Completion {
        Completion::new(0, 0, None)
    }
}

const _: () = assert!(size_of::<Completion>() == 32, "as in C");
