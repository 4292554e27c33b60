//! Any bytes as a disk: files and block devices, memory, NBD servers, test patterns, and whatever else
//! blkit has a source for, with its filters in between, read and written by one API.
//!
//! ```
//! use blkit::Disk;
//!
//! # fn main() -> blkit::Result<()> {
//! // Also "nbd://HOST/EXPORT", "nbd+unix:///?socket=PATH", or a path.
//! let disk = Disk::builder("memory").arg("1G").open()?;
//! disk.write_at(b"hello", 4096)?;
//! disk.flush()?;
//! let mut bytes = [0; 5];
//! disk.read_at(&mut bytes, 4096)?;
//! assert_eq!(&bytes, b"hello");
//! disk.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! | | for |
//! | --- | --- |
//! | [`Disk`] | code that waits: any number of threads |
//! | [`AsyncDisk`] | async code, on any runtime or none |
//! | [`Queue`] | many requests at a time from one thread, without an allocation for each |
//! | [`Context`] | saying which threads the work is done on |
//! | [`serve`] | being a disk: for virtual machines, by vhost-user-blk |
//! | [`blkio`] | the devices themselves, by the drivers and the interface of libblkio |
//!
//! *Where the work is done.* A disk lives on an event loop of its [`Context`], on a thread of its own
//! (io_uring, or epoll where that is forbidden). Requests of other threads are handed over in batches;
//! the answers wake whoever waits. A blocking call so costs two changes of threads; a [`Queue`] shares
//! them among many requests.
//!
//! *After fork(2)*, a child must not use or drop what was opened before: the threads are not there.
//!
//! *Features.* `tls`: encrypted NBD (`nbds://`), by OpenSSL. Without it everything else is here.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod aio;
mod buffer;
mod builder;
mod context;
mod disk;
mod error;
mod handle;
mod home;
mod port;
mod queue;
pub mod serve;
#[cfg(test)]
mod tests;
mod types;
mod wait;

pub use ::blkio;
pub use aio::AsyncDisk;
pub use buffer::Buffer;
pub use builder::Builder;
pub use context::{Context, ContextBuilder, Driver};
pub use disk::Disk;
pub use error::{Error, ErrorKind, Result};
pub use queue::{Completion, Full, Queue};
pub use types::{Extent, Flags, Limits};
