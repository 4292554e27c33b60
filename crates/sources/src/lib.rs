//! The sources of blocks that are built in: one module each.
//!
//! | module | what a client sees |
//! | --- | --- |
//! | [`mod@file`] | a file or block device, or all files of a directory |
//! | [`split`] | files, one after the other |
//! | [`partitioning`] | files as the partitions of one disk |
//! | [`tmpdisk`] | a fresh file system for every client |
//! | [`ondemand`] | a file system for every export name, made when it is asked for |
//! | [`linuxdisk`], [`iso`], [`floppy`] | a directory as a disk: ext2, ISO 9660, FAT32 |
//! | [`data`] | what a short program on the command line says |
//! | [`memory`] | a sparse disk in memory, shared by all clients |
//! | [`null`] | reads zeroes, forgets writes |
//! | [`ones`] | reads 0xff or another byte, forgets writes |
//! | [`zero`] | a disk of no bytes at all |
//! | [`nbd`] | the export of another NBD server |
//! | [`mod@blkio`] | a disk by io_uring, NVMe, vhost-user, vhost-vdpa or VFIO |
//! | [`full`] | reads zeroes, every write fails: no space left |
//! | [`pattern`] | each 8 bytes hold their own offset |
//! | [`random`] | bytes that look random and are the same every time |
//! | [`sparse_random`] | the same in runs, with holes between |
//! | [`info`] | bytes that tell about the client and the server |
//! | [`example1`] to [`example4`] | small disks to learn from, those of nbdkit |
//!
//! Each module has a configuration struct, whose doc comments are the user's help, and `new`, which
//! makes the source and opens nothing. [`registry`] lists them for whoever builds a graph.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod base64;
pub mod blkio;
mod blob;
pub mod data;
pub mod example1;
pub mod example2;
pub mod example3;
pub mod example4;
pub mod file;
pub mod floppy;
pub mod full;
mod generated;
mod image;
pub mod info;
pub mod iso;
pub mod linuxdisk;
pub mod memory;
mod mkfs;
pub mod nbd;
pub mod null;
pub mod ondemand;
pub mod ones;
mod partition_table;
pub mod partitioning;
pub mod pattern;
mod prepared;
pub mod random;
mod regions;
mod registry;
mod relay;
mod scratch;
mod single;
pub mod sparse_random;
pub mod split;
#[cfg(test)]
mod testing;
pub mod tmpdisk;
pub mod zero;

pub use registry::{Entry, registry};
