//! Block I/O for programs: files, NVMe namespaces and virtio-blk devices, with queues, memory regions
//! and completions.
//!
//! **What.** A [`Blkio`] is one disk, reached by a driver that is chosen by name. It is created,
//! connected and started, in this order and once; its properties (by name, as text if one likes) say
//! how to reach the disk, and then what it is. Then requests go into [`Queue`]s, and completions come
//! out: by blocking, by a file descriptor that becomes readable, or by polling. The names, errors and
//! semantics are those of libblkio 1.5, whose C interface is a thin layer over this crate.
//!
//! **Why so.** A queue belongs to one thread at a time and shares nothing that is written with
//! others: no lock and no allocation for each request. What the device cannot take at once is split
//! here, so that a request of any size ends: well, or with an error, and never by blocking its queue.
//!
//! **Contract.** A request completes exactly once. A device, a server or a file that dies fails the
//! requests that wait for it; nothing waits for ever. What a device writes into shared memory is read
//! once, checked, and can end its own connection only.
//!
//! ```
//! # fn main() -> Result<(), blkio::Error> {
//! # let file = tempfile::NamedTempFile::new().unwrap();
//! # file.as_file().set_len(1 << 20).unwrap();
//! # let path = file.path().to_str().unwrap();
//! use blkio::{Blkio, Completion};
//!
//! let mut disk = Blkio::new("io_uring")?;
//! disk.set_str("path", path)?;
//! disk.connect()?;
//! disk.start()?;
//! let mut buffer = vec![1u8; 4096];
//! let queue = disk.queue(0).expect("there is one by default");
//! // SAFETY: the buffer lives and is not used until the request has completed.
//! unsafe { queue.read(0x10000, buffer.as_mut_ptr(), buffer.len(), 7, 0) };
//! let mut completions = [Completion::default()];
//! let count = queue.do_io(&mut completions, 1, None, None)?;
//! assert_eq!((count, completions[0].ret(), completions[0].user_data()), (1, 0, 7));
//! assert_eq!(buffer, vec![0; 4096]);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod completion;
mod drivers;
mod error;
mod instance;
mod property;
mod queue;
mod region;
mod request;
mod wait;
mod zone;

pub use completion::Completion;
pub use error::{Error, Result};
pub use instance::Blkio;
pub use property::{Kind, Property, State, Value};
pub use queue::Queue;
pub use region::MemoryRegion;
pub use request::flags;
pub use zone::Zone;

/// The drivers, by name.
pub const DRIVERS: &[&str] = drivers::NAMES;
