//! Why the thread's last call failed: one message for each thread.
//!
//! Only a failure writes it. A call that succeeds leaves that of the call before.

use std::{
    any::Any,
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};

use ::blkio::{Error, Result};
use rustix::io::Errno;

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs the inside of a call: an error, or a panic, becomes a negative errno and the message.
pub fn call(inside: impl FnOnce() -> Result<c_int>) -> c_int {
    match catch_unwind(AssertUnwindSafe(inside)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            set(error.message());
            -error.errno()
        }
        Err(panic) => {
            set(&format!("internal error: {}", said(&*panic)));
            -libc::EIO
        }
    }
}

/// A wrong argument.
pub fn invalid(text: &'static str) -> Error {
    Error::new(Errno::INVAL, text)
}

fn set(text: &str) {
    let end = text.find('\0').unwrap_or(text.len());
    let text = CString::new(&text[..end]).unwrap_or_default();
    // In a thread that is ending there is nowhere to keep it, and nobody left who could ask.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

/// `blkio_get_error_msg` of blkio.h.
#[unsafe(no_mangle)]
pub extern "C" fn blkio_get_error_msg() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// libblkio's own way to the message, which it exports.
#[unsafe(no_mangle)]
pub extern "C" fn blkio_get_error_msg_() -> *const c_char {
    blkio_get_error_msg()
}

/// libblkio's own way to set the message, which it exports. The text is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_set_error_msg_(text: *const c_char) {
    if text.is_null() {
        return set("");
    }
    // SAFETY: C passes a string.
    let text = unsafe { CStr::from_ptr(text) };
    set(&text.to_string_lossy());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: this thread's, and no call comes between.
        let text = unsafe { CStr::from_ptr(blkio_get_error_msg()) };
        text.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(last(), "");
        assert_eq!(call(|| panic!("what {}", 1)), -libc::EIO);
        assert_eq!(last(), "internal error: what 1");
        // And the next call works, and leaves the message.
        assert_eq!(call(|| Ok(5)), 5);
        assert_eq!(last(), "internal error: what 1");
    }

    #[test]
    fn errors_are_each_threads_own() {
        assert_eq!(call(|| Err(invalid("here"))), -libc::EINVAL);
        std::thread::spawn(|| assert_eq!(last(), ""))
            .join()
            .expect("no error there");
        assert_eq!(last(), "here");
    }

    #[test]
    fn text_ends_at_a_nul() {
        set("a\0b");
        assert_eq!(last(), "a");
    }
}
