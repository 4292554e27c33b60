//! Why the thread's last call failed: one message for each thread. Only a failure writes it.

use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// An errno and why.
pub struct Failure(c_int, String);

impl From<blkit::Error> for Failure {
    fn from(error: blkit::Error) -> Failure {
        Failure(error.errno(), error.to_string())
    }
}

/// A wrong argument.
pub fn invalid(text: &str) -> Failure {
    Failure(libc::EINVAL, text.to_owned())
}

/// Runs the inside of a call: an error, or a panic, becomes a negative errno and the message.
pub fn call(inside: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    let failed = || Failure(libc::EIO, "internal error".to_owned());
    match catch_unwind(AssertUnwindSafe(inside)).unwrap_or_else(|_| Err(failed())) {
        Ok(answer) => answer,
        Err(Failure(errno, text)) => {
            let end = text.find('\0').unwrap_or(text.len());
            let text = CString::new(&text[..end]).unwrap_or_default();
            // In a thread that is ending nobody is left who could ask.
            let _ = LAST.try_with(|last| *last.borrow_mut() = text);
            -errno
        }
    }
}

/// `blkit_get_error_msg` of blkit.h.
#[unsafe(no_mangle)]
pub extern "C" fn blkit_get_error_msg() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}
