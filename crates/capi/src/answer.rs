//! What functions return, and what they return when they fail.

use std::{
    ffi::{CStr, c_char, c_int, c_uint},
    ptr,
};

use crate::{ctype::CType, error::c_string, nbd_handle};

/// What the inside of a function makes, as C gets it.
pub trait Answer {
    /// The type C sees.
    type C: CType;
    /// What says that it failed.
    const FAILED: Self::C;
    /// Hands it over.
    fn into_c(self) -> Self::C;
}

macro_rules! numbers {
    ($($rust:ty => $c:ty, $failed:expr;)*) => {
        $(impl Answer for $rust {
            type C = $c;
            const FAILED: $c = $failed;
            fn into_c(self) -> $c {
                self as $c
            }
        })*
    };
}

// Those which cannot be negative fail only without a handle.
numbers! {
    bool => c_int, -1;
    c_int => c_int, -1;
    c_uint => c_uint, c_uint::MAX;
    i64 => i64, -1;
    u64 => u64, u64::MAX;
    isize => isize, -1;
    usize => usize, usize::MAX;
}

impl Answer for () {
    type C = c_int;
    const FAILED: c_int = -1;
    fn into_c(self) -> c_int {
        0
    }
}

/// What `nbd_close` answers: nothing.
pub struct Closed;

impl Answer for Closed {
    type C = ();
    const FAILED: () = ();
    fn into_c(self) {}
}

/// What `nbd_create` makes.
impl Answer for Box<nbd_handle> {
    type C = *mut nbd_handle;
    const FAILED: *mut nbd_handle = ptr::null_mut();
    fn into_c(self) -> *mut nbd_handle {
        Box::into_raw(self)
    }
}

/// Text that the caller frees.
impl Answer for String {
    type C = *mut c_char;
    const FAILED: *mut c_char = ptr::null_mut();
    fn into_c(self) -> *mut c_char {
        let text = c_string(&self);
        // SAFETY: a valid C string; the copy is malloc's, which is what the caller frees it with.
        unsafe { libc::strdup(text.as_ptr()) }
    }
}

/// Text that is there for ever.
impl Answer for &'static CStr {
    type C = *const c_char;
    const FAILED: *const c_char = ptr::null();
    fn into_c(self) -> *const c_char {
        self.as_ptr()
    }
}
