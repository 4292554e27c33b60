//! Why the last call failed: one message and errno for each thread.
//!
//! Only a failure writes them. A call that succeeds leaves those of the call before, as callers of
//! libnbd know it.

use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_int},
    ptr,
};

struct Last {
    message: Option<CString>,
    errno: c_int,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { message: None, errno: 0 }) };
}

/// Keeps an error for the thread.
///
/// In a thread that is ending there is nowhere to keep it, and nobody left who could ask.
pub fn set(error: &handle::Error) {
    let text = error.to_string();
    let _ = LAST.try_with(|last| {
        *last.borrow_mut() = Last {
            message: Some(c_string(&text)),
            errno: error.errno(),
        };
    });
}

/// The message, or NULL. It stays where it is until the thread's next call that fails.
pub fn message() -> *const c_char {
    LAST.try_with(|last| match &last.borrow().message {
        Some(message) => message.as_ptr(),
        None => ptr::null(),
    })
    .unwrap_or(ptr::null())
}

/// The errno, or 0.
pub fn errno() -> c_int {
    LAST.try_with(|last| last.borrow().errno).unwrap_or(0)
}

/// Text for C, up to the first NUL: what servers say may have one.
pub fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}
