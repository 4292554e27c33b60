//! The one error of this crate.

use std::{error, fmt, io};

/// What kind of failure it is: programs decide by this, people read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is impossible or unknown: a wrong parameter, a range outside the disk.
    InvalidInput,
    /// There is no such file, host or export.
    NotFound,
    /// Not allowed: permissions, a read-only disk.
    Permission,
    /// Somebody else holds it.
    Busy,
    /// This disk or this host cannot do it.
    Unsupported,
    /// The other side, or a file, says something that makes no sense.
    Format,
    /// Out of memory, space or descriptors.
    Exhausted,
    /// The disk was closed, or is gone for good.
    Gone,
    /// Input or output failed.
    Io,
    /// A bug that was caught.
    Internal,
}

/// Why something failed.
///
/// The message is one line with the whole story, such as
/// `nbd: cannot connect to 127.0.0.1:10809: Connection refused`.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    errno: i32,
    message: String,
    hint: Option<String>,
}

/// What operations return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The number that the system, or the server, has for it (errno(3)); never 0.
    pub fn errno(&self) -> i32 {
        self.0.errno
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    #[cold]
    pub(crate) fn new(errno: block::Errno, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind: kind_of(errno),
            errno: errno.get(),
            message: message.into(),
            hint: None,
        }))
    }

    #[cold]
    pub(crate) fn closed() -> Error {
        Error::new(block::Errno::ESHUTDOWN, "the disk is closed")
    }

    /// A request's failure, with what was being done.
    #[cold]
    pub(crate) fn of_request(error: &block::IoError, doing: fmt::Arguments<'_>) -> Error {
        Error::new(error.errno(), format!("{doing} failed: {error}"))
    }
}

fn kind_of(errno: block::Errno) -> ErrorKind {
    use block::Errno;
    match errno {
        Errno::EINVAL | Errno::EISDIR | Errno::EOVERFLOW | Errno::EMSGSIZE => {
            ErrorKind::InvalidInput
        }
        Errno::ENOENT | Errno::ENXIO | Errno::ENODEV | Errno::ENOTDIR => ErrorKind::NotFound,
        Errno::EPERM | Errno::EACCES | Errno::EROFS => ErrorKind::Permission,
        Errno::EBUSY | Errno::EAGAIN | Errno::EADDRINUSE => ErrorKind::Busy,
        Errno::ENOTSUP | Errno::ENOSYS => ErrorKind::Unsupported,
        Errno::ENOMEM | Errno::ENOSPC | Errno::EDQUOT => ErrorKind::Exhausted,
        Errno::ESHUTDOWN => ErrorKind::Gone,
        _ => ErrorKind::Io,
    }
}

impl From<block::Error> for Error {
    fn from(error: block::Error) -> Error {
        use block::ErrorKind as Kind;
        let kind = match error.kind() {
            Kind::Config => ErrorKind::InvalidInput,
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Permission => ErrorKind::Permission,
            Kind::Busy => ErrorKind::Busy,
            Kind::Unsupported => ErrorKind::Unsupported,
            Kind::Format => ErrorKind::Format,
            Kind::Exhausted => ErrorKind::Exhausted,
            Kind::Gone => ErrorKind::Gone,
            Kind::Internal => ErrorKind::Internal,
            _ => ErrorKind::Io,
        };
        Error(Box::new(Inner {
            kind,
            errno: error.errno().get(),
            message: error.chain(),
            hint: error.hint_text().map(str::to_owned),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} (errno {}): {}",
            self.0.kind, self.0.errno, self.0.message
        )?;
        match &self.0.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        // The system's own kind, with our message.
        let kind = io::Error::from_raw_os_error(error.errno()).kind();
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_kind_number_and_story() {
        let system = io::Error::from_raw_os_error(2);
        let error = block::Error::io("cannot open 'x'", system).in_node(&"file".into());
        let error = Error::from(error.hint("make it"));
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NotFound, 2));
        assert!(
            error
                .to_string()
                .starts_with("file: cannot open 'x': No such file")
        );
        assert_eq!(error.hint(), Some("make it"));
        assert!(format!("{error:?}").contains("hint: make it"));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
        assert_eq!(Error::closed().kind(), ErrorKind::Gone);
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
