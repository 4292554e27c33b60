//! From words to a running graph of sources and filters.
//!
//! [`Registry`] knows all kinds of nodes. [`Registry::resolve`] sorts the words of a command line
//! into a [`GraphSpec`]; [`Registry::build`] makes the nodes. Both only parse: files, sockets and
//! threads come with [`block::Source::ready`] and `start`, so that a process can fork and drop
//! privileges in between.
//!
//! [`Disk`] opens one for a program that uses it by itself; [`struct@Copy`] copies one to another.
//!
//! [`HostServices`] is what sources and filters get from the process they live in.
//!
//! The graph adds to every node what no node should have to do itself: its name on errors, and a
//! [`block::Gate`] where its thread model asks for one.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod build;
mod copy;
mod disk;
mod host;
mod node;
mod registry;
mod spec;
#[cfg(test)]
mod testing;

pub use build::Built;
pub use copy::{Copied, Copy, CopyOptions};
pub use disk::Disk;
pub use host::HostServices;
pub use registry::{
    Entry, FilterEntry, MakeFilter, MakeSource, Registry, SourceEntry, nearest, unknown,
};
pub use spec::{GraphSpec, NodeSpec, config_error};
