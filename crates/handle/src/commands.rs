//! Commands on data, blocking and not.
//!
//! Offsets and lengths are in bytes, flags those of `CMD_FLAG_`. Buffers are given by value: a blocking
//! read gives them back, and so is the way to have the data. Of [`aio_pread`](Handle::aio_pread) the caller keeps
//! access in his own way: the C layer by the caller's pointer, others by a [`ReadBuffer`] that hands its memory
//! over when it is dropped, which is after the completion callback.

use crate::{
    ChunkCallback, CompletionCallback, Extent64Callback, ExtentCallback, Handle, ReadBuffer,
    Result, WriteBuffer, pending,
};

impl Handle {
    /// `nbd_pread`. Gives the buffer back, filled.
    pub fn pread<B: ReadBuffer>(&self, buffer: B, offset: u64, flags: u32) -> Result<B> {
        pending()
    }
    /// `nbd_pread_structured`.
    pub fn pread_structured<B: ReadBuffer>(
        &self,
        buffer: B,
        offset: u64,
        chunk: ChunkCallback,
        flags: u32,
    ) -> Result<B> {
        pending()
    }
    /// `nbd_pwrite`.
    pub fn pwrite<B: WriteBuffer>(&self, buffer: B, offset: u64, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_flush`.
    pub fn flush(&self, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_trim`.
    pub fn trim(&self, count: u64, offset: u64, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_cache`.
    pub fn cache(&self, count: u64, offset: u64, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_zero`.
    pub fn zero(&self, count: u64, offset: u64, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_block_status`.
    pub fn block_status(
        &self,
        count: u64,
        offset: u64,
        extent: ExtentCallback,
        flags: u32,
    ) -> Result<()> {
        pending()
    }
    /// `nbd_block_status_64`.
    pub fn block_status_64(
        &self,
        count: u64,
        offset: u64,
        extent: Extent64Callback,
        flags: u32,
    ) -> Result<()> {
        pending()
    }
    /// `nbd_block_status_filter`.
    pub fn block_status_filter(
        &self,
        count: u64,
        offset: u64,
        contexts: &[String],
        extent: Extent64Callback,
        flags: u32,
    ) -> Result<()> {
        pending()
    }
    /// `nbd_aio_pread`: the command's cookie.
    pub fn aio_pread<B: ReadBuffer>(
        &self,
        buffer: B,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_pread_structured`.
    pub fn aio_pread_structured<B: ReadBuffer>(
        &self,
        buffer: B,
        offset: u64,
        chunk: ChunkCallback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_pwrite`.
    pub fn aio_pwrite<B: WriteBuffer>(
        &self,
        buffer: B,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_flush`.
    pub fn aio_flush(&self, completion: Option<CompletionCallback>, flags: u32) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_trim`.
    pub fn aio_trim(
        &self,
        count: u64,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_cache`.
    pub fn aio_cache(
        &self,
        count: u64,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_zero`.
    pub fn aio_zero(
        &self,
        count: u64,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_block_status`.
    pub fn aio_block_status(
        &self,
        count: u64,
        offset: u64,
        extent: ExtentCallback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_block_status_64`.
    pub fn aio_block_status_64(
        &self,
        count: u64,
        offset: u64,
        extent: Extent64Callback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
    /// `nbd_aio_block_status_filter`.
    pub fn aio_block_status_filter(
        &self,
        count: u64,
        offset: u64,
        contexts: &[String],
        extent: Extent64Callback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        pending()
    }
}
