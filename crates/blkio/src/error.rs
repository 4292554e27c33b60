//! Errors of the control path, and of waiting.

use std::{borrow::Cow, fmt, io};

use rustix::io::Errno;

/// What a call of this crate answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed: a number of `errno.h` and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    message: Cow<'static, str>,
}

impl Error {
    /// An error.
    pub fn new(errno: Errno, message: impl Into<Cow<'static, str>>) -> Error {
        let message = message.into();
        Error { errno, message }
    }

    /// What the system said of something.
    pub fn system(what: impl fmt::Display, errno: Errno) -> Error {
        let text = io::Error::from(errno);
        Error::new(errno, format!("{what}: {text}"))
    }

    /// The number, positive.
    pub fn errno(&self) -> i32 {
        self.errno.raw_os_error()
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// With the system's own text.
impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::new(errno, io::Error::from(errno).to_string())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::new(errno, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// [`Errno::INVAL`] with a text.
pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Errno::INVAL, message)
}
