//! Commands, waited for and not.

use std::ffi::c_void;

use crate::param::{Chunk, Completion, Count, Extents, Extents64, Memory, Texts};

/// Memory that a read fills.
type Fills = Memory<*mut c_void>;
/// Memory that a write sends.
type Sends = Memory<*const c_void>;

api! {
    nbd_pread(h, buf: Fills, count: Count, offset: u64, flags: u32) -> () {
        h.pread(buf.with(count)?, offset, flags).map(drop)
    }
    nbd_pread_structured(
        h, buf: Fills, count: Count, offset: u64, chunk: Chunk, flags: u32
    ) -> () {
        h.pread_structured(buf.with(count)?, offset, chunk, flags).map(drop)
    }
    nbd_pwrite(h, buf: Sends, count: Count, offset: u64, flags: u32) -> () {
        h.pwrite(buf.with(count)?, offset, flags)
    }
    nbd_flush(h, flags: u32) -> () { h.flush(flags) }
    nbd_trim(h, count: u64, offset: u64, flags: u32) -> () { h.trim(count, offset, flags) }
    nbd_cache(h, count: u64, offset: u64, flags: u32) -> () { h.cache(count, offset, flags) }
    nbd_zero(h, count: u64, offset: u64, flags: u32) -> () { h.zero(count, offset, flags) }
    nbd_block_status(h, count: u64, offset: u64, extent: Extents, flags: u32) -> () {
        h.block_status(count, offset, extent, flags)
    }
    nbd_block_status_64(h, count: u64, offset: u64, extent64: Extents64, flags: u32) -> () {
        h.block_status_64(count, offset, extent64, flags)
    }
    nbd_block_status_filter(
        h, count: u64, offset: u64, contexts: Texts, extent64: Extents64, flags: u32
    ) -> () {
        h.block_status_filter(count, offset, &contexts, extent64, flags)
    }
    nbd_aio_pread(
        h, buf: Fills, count: Count, offset: u64, completion: Completion, flags: u32
    ) -> i64 {
        h.aio_pread(buf.with(count)?, offset, completion, flags).map(u64::cast_signed)
    }
    nbd_aio_pread_structured(
        h, buf: Fills, count: Count, offset: u64, chunk: Chunk, completion: Completion, flags: u32
    ) -> i64 {
        h.aio_pread_structured(buf.with(count)?, offset, chunk, completion, flags)
            .map(u64::cast_signed)
    }
    nbd_aio_pwrite(
        h, buf: Sends, count: Count, offset: u64, completion: Completion, flags: u32
    ) -> i64 {
        h.aio_pwrite(buf.with(count)?, offset, completion, flags).map(u64::cast_signed)
    }
    nbd_aio_flush(h, completion: Completion, flags: u32) -> i64 {
        h.aio_flush(completion, flags).map(u64::cast_signed)
    }
    nbd_aio_trim(h, count: u64, offset: u64, completion: Completion, flags: u32) -> i64 {
        h.aio_trim(count, offset, completion, flags).map(u64::cast_signed)
    }
    nbd_aio_cache(h, count: u64, offset: u64, completion: Completion, flags: u32) -> i64 {
        h.aio_cache(count, offset, completion, flags).map(u64::cast_signed)
    }
    nbd_aio_zero(h, count: u64, offset: u64, completion: Completion, flags: u32) -> i64 {
        h.aio_zero(count, offset, completion, flags).map(u64::cast_signed)
    }
    nbd_aio_block_status(
        h, count: u64, offset: u64, extent: Extents, completion: Completion, flags: u32
    ) -> i64 {
        h.aio_block_status(count, offset, extent, completion, flags).map(u64::cast_signed)
    }
    nbd_aio_block_status_64(
        h, count: u64, offset: u64, extent64: Extents64, completion: Completion, flags: u32
    ) -> i64 {
        h.aio_block_status_64(count, offset, extent64, completion, flags).map(u64::cast_signed)
    }
    nbd_aio_block_status_filter(
        h, count: u64, offset: u64, contexts: Texts, extent64: Extents64,
        completion: Completion, flags: u32
    ) -> i64 {
        h.aio_block_status_filter(count, offset, &contexts, extent64, completion, flags)
            .map(u64::cast_signed)
    }
    nbd_aio_command_completed(h, cookie: u64) -> bool { h.aio_command_completed(cookie) }
    nbd_aio_peek_command_completed(h) -> i64 {
        h.aio_peek_command_completed().map(u64::cast_signed)
    }
    nbd_aio_in_flight(h) -> i32 {
        // Memory ends long before this number does.
        Ok(i32::try_from(h.aio_in_flight()?).unwrap_or(i32::MAX))
    }
}
