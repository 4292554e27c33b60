//! What calls say when they fail.

use std::fmt;

use rustix::io::Errno;

/// Result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
///
/// Shown, it is the whole message of libnbd: the name of the C function, what is wrong, and the
/// system's words for the error number if there is one. So every binding shows the same:
///
/// ```
/// let error = handle::Handle::new().unwrap().flush(0).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "nbd_flush: invalid state: START: the handle must be connected with the server: \
///      Transport endpoint is not connected"
/// );
/// assert_eq!(error.errno(), 107);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    call: &'static str,
    text: String,
    errno: i32,
}

impl Error {
    /// An error of the C function `call` (`nbd_pread`). `errno` is a number of errno(3), or 0 if
    /// none fits.
    pub fn new(call: &'static str, text: impl Into<String>, errno: i32) -> Error {
        Error {
            call,
            text: text.into(),
            errno,
        }
    }

    /// The C function.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What is wrong, without the name of the function and the words for the error number.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of errno(3), or 0.
    pub fn errno(&self) -> i32 {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.text)?;
        match self.errno {
            0 => Ok(()),
            number => write!(f, ": {}", words(number)),
        }
    }
}

impl std::error::Error for Error {}

/// The system's words for an error number (strerror(3)).
pub(crate) fn words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.rsplit_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// An error on the inside, which does not know yet by which call it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub text: String,
    pub errno: i32,
}

impl Fault {
    pub fn new(text: impl Into<String>, errno: i32) -> Fault {
        Fault {
            text: text.into(),
            errno,
        }
    }

    /// An error number that the library has a name for.
    pub fn of(text: impl Into<String>, errno: Errno) -> Fault {
        Fault::new(text, errno.raw_os_error())
    }

    /// A wrong parameter.
    pub fn invalid(text: impl Into<String>) -> Fault {
        Fault::of(text, Errno::INVAL)
    }

    /// An error without a number.
    pub fn plain(text: impl Into<String>) -> Fault {
        Fault::new(text, 0)
    }

    pub fn in_call(self, call: &'static str) -> Error {
        Error::new(call, self.text, self.errno)
    }
}
