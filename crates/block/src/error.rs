//! Errors: a small one for the data path, a speaking one for the control path.
//!
//! On the data path an error is an [`Errno`] and, if somebody knew more, a boxed [`Detail`]: success
//! costs nothing, failure may allocate. On the control path (open, configure, close) an [`Error`]
//! says what kind of failure it is, which node it happened in, what was being done, and why.

use std::{error, fmt, num::NonZeroI32, sync::Arc};

/// A Linux error number. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(NonZeroI32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Errno = Errno(NonZeroI32::new($value).unwrap());)*

            /// The symbolic name (`"EIO"`), or `"errno"` for a number without one here.
            pub const fn name(self) -> &'static str {
                match self.get() { $($value => stringify!($name),)* _ => "errno" }
            }
            /// What the number means, in the words of the C library.
            pub const fn text(self) -> &'static str {
                match self.get() { $($value => $text,)* _ => "unknown error" }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted";
    ENOENT = 2, "No such file or directory";
    EINTR = 4, "Interrupted system call";
    EIO = 5, "Input/output error";
    ENXIO = 6, "No such device or address";
    EBADF = 9, "Bad file descriptor";
    EAGAIN = 11, "Resource temporarily unavailable";
    ENOMEM = 12, "Cannot allocate memory";
    EACCES = 13, "Permission denied";
    EFAULT = 14, "Bad address";
    EBUSY = 16, "Device or resource busy";
    EEXIST = 17, "File exists";
    ENODEV = 19, "No such device";
    ENOTDIR = 20, "Not a directory";
    EISDIR = 21, "Is a directory";
    EINVAL = 22, "Invalid argument";
    EFBIG = 27, "File too large";
    ENOSPC = 28, "No space left on device";
    EROFS = 30, "Read-only file system";
    EPIPE = 32, "Broken pipe";
    ENOSYS = 38, "Function not implemented";
    EOVERFLOW = 75, "Value too large for defined data type";
    EMSGSIZE = 90, "Message too long";
    ENOTSUP = 95, "Operation not supported";
    EADDRINUSE = 98, "Address already in use";
    ECONNRESET = 104, "Connection reset by peer";
    ESHUTDOWN = 108, "Cannot send after transport endpoint shutdown";
    ETIMEDOUT = 110, "Connection timed out";
    ECONNREFUSED = 111, "Connection refused";
    EDQUOT = 122, "Disk quota exceeded";
    ECANCELED = 125, "Operation canceled";
}

impl Errno {
    /// From a raw number; a negative one (a kernel return value) is negated, zero becomes `EIO`.
    pub const fn new(raw: i32) -> Errno {
        match NonZeroI32::new(raw.wrapping_abs()) {
            Some(n) => Errno(n),
            None => Errno::EIO,
        }
    }

    /// The positive number.
    pub const fn get(self) -> i32 {
        self.0.get()
    }

    /// The error number inside an I/O error, `EIO` if it has none.
    pub fn of(error: &std::io::Error) -> Errno {
        error.raw_os_error().map_or(Errno::EIO, Errno::new)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "errno" => write!(f, "errno {}", self.get()),
            name => f.write_str(name),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self:?})", self.text())
    }
}

/// Why a request failed, for people: which node, what it was doing.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The node that failed the request.
    pub node: Arc<str>,
    /// One clause, lower case, no full stop.
    pub why: String,
}

/// The failure of one request: two words.
#[derive(Clone)]
pub struct IoError {
    errno: Errno,
    detail: Option<Box<Detail>>,
}

/// How a request ended.
pub type Outcome = Result<(), IoError>;

impl IoError {
    /// An error with an explanation that may reach the client as text.
    #[cold]
    pub fn because(errno: Errno, node: &Arc<str>, why: impl Into<String>) -> IoError {
        let detail = Detail {
            node: node.clone(),
            why: why.into(),
        };
        IoError {
            errno,
            detail: Some(Box::new(detail)),
        }
    }

    /// The number.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The explanation, if there is one.
    pub fn detail(&self) -> Option<&Detail> {
        self.detail.as_deref()
    }
}

impl From<Errno> for IoError {
    #[inline]
    fn from(errno: Errno) -> IoError {
        IoError {
            errno,
            detail: None,
        }
    }
}

impl From<std::io::Error> for IoError {
    fn from(error: std::io::Error) -> IoError {
        Errno::of(&error).into()
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(d) => write!(f, "{}: {}: {}", d.node, d.why, self.errno),
            None => self.errno.fmt(f),
        }
    }
}

impl fmt::Debug for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(d) => write!(f, "{:?} ({}: {})", self.errno, d.node, d.why),
            None => write!(f, "{:?}", self.errno),
        }
    }
}

impl error::Error for IoError {}

impl PartialEq<Errno> for IoError {
    fn eq(&self, other: &Errno) -> bool {
        self.errno == *other
    }
}

/// What kind of failure a control-path error is; policy (retry, exit code) looks only at this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration asks for something impossible or unknown.
    Config,
    /// The thing named does not exist.
    NotFound,
    /// Not allowed: permissions, policy, read-only.
    Permission,
    /// Somebody else holds it (a lock, an address).
    Busy,
    /// This host or this device cannot do it.
    Unsupported,
    /// The bytes are not what they should be.
    Format,
    /// A resource is exhausted: memory, descriptors, space.
    Exhausted,
    /// Shutting down, or taken away.
    Gone,
    /// Anything the system reported that fits none of the above.
    Io,
    /// A bug of ours that was caught.
    Internal,
}

/// A control-path error: kind, node, context, cause, and a hint where the cure is known.
///
/// `Display` prints the context only; [`Error::chain`] prints the whole story.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    node: Option<Arc<str>>,
    context: String,
    hint: Option<String>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

/// The control path's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A new error. `context` says what failed, lower case, no full stop.
    #[cold]
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Error {
        let context = context.into();
        Error(Box::new(Inner {
            kind,
            node: None,
            context,
            hint: None,
            source: None,
        }))
    }

    /// From a system error: the kind follows from its number.
    #[cold]
    pub fn io(context: impl Into<String>, error: std::io::Error) -> Error {
        let kind = kind_of(Errno::of(&error), error.kind());
        Error::new(kind, context).caused_by(error)
    }

    /// Adds the cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// Adds the cure.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says which node it happened in, unless an inner layer already did.
    pub fn in_node(mut self, node: &Arc<str>) -> Error {
        self.0.node.get_or_insert_with(|| node.clone());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The node, if one is to blame.
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// The cure, if known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Trying again later may help, without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Busy | ErrorKind::Exhausted)
    }

    /// The error number a client should see.
    pub fn errno(&self) -> Errno {
        let mut source = self
            .0
            .source
            .as_deref()
            .map(|s| s as &(dyn error::Error + 'static));
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return Errno::of(io);
            }
            if let Some(io) = error.downcast_ref::<IoError>() {
                return io.errno();
            }
            source = error.source();
        }
        match self.0.kind {
            ErrorKind::Config | ErrorKind::Format => Errno::EINVAL,
            ErrorKind::NotFound => Errno::ENOENT,
            ErrorKind::Permission => Errno::EACCES,
            ErrorKind::Busy => Errno::EBUSY,
            ErrorKind::Unsupported => Errno::ENOTSUP,
            ErrorKind::Exhausted => Errno::ENOMEM,
            ErrorKind::Gone => Errno::ESHUTDOWN,
            ErrorKind::Io | ErrorKind::Internal => Errno::EIO,
        }
    }

    /// The whole story in one line: node, context, causes, joined by colons.
    pub fn chain(&self) -> String {
        let mut text = String::new();
        if let Some(node) = &self.0.node {
            text.push_str(node);
            text.push_str(": ");
        }
        text.push_str(&self.0.context);
        let mut source = error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

fn kind_of(errno: Errno, kind: std::io::ErrorKind) -> ErrorKind {
    match errno {
        Errno::ENOENT | Errno::ENXIO | Errno::ENODEV | Errno::ENOTDIR => ErrorKind::NotFound,
        Errno::EACCES | Errno::EPERM | Errno::EROFS => ErrorKind::Permission,
        Errno::EBUSY | Errno::EADDRINUSE | Errno::EAGAIN => ErrorKind::Busy,
        Errno::ENOTSUP | Errno::ENOSYS => ErrorKind::Unsupported,
        Errno::ENOMEM | Errno::ENOSPC | Errno::EDQUOT => ErrorKind::Exhausted,
        Errno::ESHUTDOWN => ErrorKind::Gone,
        Errno::EINVAL | Errno::EISDIR => ErrorKind::Config,
        _ if kind == std::io::ErrorKind::InvalidInput => ErrorKind::Config,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.node {
            Some(node) => write!(f, "{node}: {}", self.0.context),
            None => f.write_str(&self.0.context),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_tells_node_context_and_cause() {
        let node: Arc<str> = "file".into();
        let error =
            Error::io("cannot open 'x'", std::io::Error::from_raw_os_error(2)).in_node(&node);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error
                .chain()
                .starts_with("file: cannot open 'x': No such file"),
            "{}",
            error.chain()
        );
        assert_eq!(error.errno(), Errno::ENOENT);
        let outer: Arc<str> = "cow".into();
        assert_eq!(error.in_node(&outer).node(), Some("file"));
    }

    #[test]
    fn io_error_is_two_words() {
        assert_eq!(size_of::<IoError>(), 16);
        assert_eq!(size_of::<Outcome>(), 16);
        assert_eq!(Errno::new(-5), Errno::EIO);
        assert_eq!(Errno::new(i32::MIN).get(), i32::MIN);
        assert_eq!(Errno::new(0), Errno::EIO);
        assert_eq!(format!("{}", Errno::EROFS), "Read-only file system (EROFS)");
    }
}
