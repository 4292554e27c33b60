//! What a caller gets told while a command is under way.
//!
//! Dropping a callback is what libnbd calls to free it. It happens in every case, also when the call
//! fails: for a command, after its completion callback was called, first the callback of the command and
//! then the completion callback are dropped.
//!
//! Callbacks are called with the handle's lock held. Inside of one, every call on the same handle
//! that needs the lock fails with `EDEADLK` (libnbd hangs). `aio_is_*` and `connection_state` need no
//! lock. Other handles can be used. A callback must not panic; where one does, the panic goes on through the call
//! that met it, and the handle can only be closed.

/// A range of one kind, as told by block status. Has the layout of C's `nbd_extent`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes.
    pub length: u64,
    /// Flags, whose meaning depends on the metadata context.
    pub flags: u64,
}

/// A command is completed; the parameter is its error number, or 0. 1 retires the command, so that
/// [`aio_command_completed`](crate::Handle::aio_command_completed) is not needed; -1 makes it fail with the error that was
/// put into the parameter, if it is not 0. Options of the handshake are retired in every case.
pub type CompletionCallback = Box<dyn FnMut(&mut i32) -> i32 + Send>;

/// A part of a read has come: its bytes (in the caller's buffer), its offset on the export, what it is
/// ([`READ_DATA`](crate::READ_DATA), ...), and the error number so far. -1 makes the command fail with the error put
/// there, or with `EPROTO`.
pub type ChunkCallback = Box<dyn FnMut(&mut [u8], u64, u32, &mut i32) -> i32 + Send>;

/// Extents of a metadata context have come: name of the context, offset of the first, pairs of length and flags, and
/// the error number so far. -1 as with [`ChunkCallback`].
pub type ExtentCallback = Box<dyn FnMut(&str, u64, &mut [u32], &mut i32) -> i32 + Send>;

/// As [`ExtentCallback`], with 64 bits.
pub type Extent64Callback = Box<dyn FnMut(&str, u64, &mut [Extent], &mut i32) -> i32 + Send>;

/// An export of a list: name and description. The result is ignored.
pub type ListCallback = Box<dyn FnMut(&str, &str) -> i32 + Send>;

/// Name of a metadata context. The result is ignored.
pub type ContextCallback = Box<dyn FnMut(&str) -> i32 + Send>;

/// A line for debugging: the name of the C function in which it arose, and the text. The result is
/// ignored.
pub type DebugCallback = Box<dyn FnMut(&str, &str) -> i32 + Send>;
