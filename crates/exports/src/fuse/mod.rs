//! FUSE: a disk as a file.
//!
//! The way of a request, as a story: the kernel's side puts it on `/dev/fuse`; `server` reads it, one
//! packet with one system call, into memory where a write's payload is aligned; `machine` checks it
//! and says what it is; `session` answers what the machine knows (`view`: names, sizes, times) and
//! submits the rest; the layers below complete; the answer goes out at once, head and bytes with one
//! system call, from where the bytes lie.
//!
//! *Why our own.* The libraries serve whole file systems, from threads of their own, with a copy of
//! each payload. A disk is one file, and the loop is there.
//!
//! *Contract.* A request is answered once, or its mount is gone. What fsync(2) has promised is on the
//! medium; after a flush that failed, none succeeds. The size of the file is that of the disk.
//!
//! *What the kernel keeps.* Reads go through its page cache unless the file is opened with O_DIRECT;
//! writes go through at once (no write-back cache), so an error is told to whoever wrote.

mod machine;
mod proto;
mod server;
mod session;
mod view;

#[cfg(test)]
mod machine_tests;

pub mod fuzzing;

pub use machine::{Agreed, Command, MAX_READ, MAX_WRITE, Machine, Step, found, written};
pub use proto::{Header, Opcode, Violation};
pub use server::{Bounds, End, Fuse, Seat};
pub use session::{Answers, Session};
pub use view::{Cache, Disk, Shape, View};
