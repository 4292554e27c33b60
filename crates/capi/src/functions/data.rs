//! Commands, waited for and not.

use std::ffi::c_void;

use crate::param::{Chunk, Completion, Extents, Extents64, Memory, Texts, lent, lent_for_good};

/// Memory that is read into.
type Into = Memory<*mut c_void>;
/// Memory that is written from.
type From = Memory<*const c_void>;

api! {
    nbd_pread(h, buf: Into, count: usize, offset: u64, flags: u32) -> () {
        h.pread(lent(buf, count)?, offset, flags).map(drop)
    }
    nbd_pread_structured(
        h, buf: Into, count: usize, offset: u64, chunk: Chunk, flags: u32
    ) -> () {
        h.pread_structured(lent(buf, count)?, offset, chunk, flags).map(drop)
    }
}
