//! Commands on data, blocking and not.
//!
//! Offsets and lengths are in bytes, flags those of `CMD_FLAG_`. Buffers are given by value: a
//! blocking read gives them back, and so is the way to have the data. Of
//! [`aio_pread`](Handle::aio_pread) the caller keeps access in his own way: the C layer by the
//! caller's pointer, others by a [`ReadBuffer`] that hands its memory over when it is dropped, which is
//! after the completion callback.

use std::fmt;

use nbd::proto;

use crate::{
    ChunkCallback, CompletionCallback, Error, Extent64Callback, ExtentCallback, Handle,
    MAX_REQUEST, ReadBuffer, Result, WriteBuffer,
    flight::{Middle, give_back},
    inner::Inner,
    state::Permitted,
    submit::Wanted,
};

impl Handle {
    fn submit(&self, call: &'static str, shown: fmt::Arguments<'_>, wanted: Wanted) -> Result<u64> {
        self.call(call, Permitted::CONNECTED, shown, |inner| {
            inner.submit(wanted)
        })
    }

    /// Submits, and waits until it is retired.
    fn run(
        &self,
        call: &'static str,
        shown: fmt::Arguments<'_>,
        mut wanted: Wanted,
    ) -> Result<Option<Box<dyn ReadBuffer>>> {
        wanted.waited_for = true;
        let cookie = self.submit(call, shown, wanted)?;
        let retire = |inner: &mut Inner| inner.flight.collect(cookie);
        self.wait(call, retire).inspect_err(|_| {
            // Where the connection failed, that is told, and not what it made of the command.
            if let Ok(mut inner) = self.lock(call) {
                let _ = inner.flight.collect(cookie);
            }
        })
    }

    fn run_read<B: ReadBuffer>(
        &self,
        call: &'static str,
        shown: fmt::Arguments<'_>,
        wanted: Wanted,
    ) -> Result<B> {
        let buffer = self.run(call, shown, wanted)?;
        give_back(buffer).ok_or_else(|| Error::new(call, "the buffer was lost", 0))
    }

    /// The buffer of a read, cleared unless that is switched off: nothing old is ever taken for data, whatever goes
    /// wrong. Of one that is too long for any request only so much: the rest is not touched, so that a wrong length
    /// costs no memory.
    fn wanted_read<B: ReadBuffer>(&self, mut buffer: B, offset: u64, flags: u32) -> Wanted {
        let memory = buffer.as_mut_slice();
        if self.shared.settings().pread_initialize {
            let most = memory.len().min(MAX_REQUEST as usize);
            memory[..most].fill(0);
        }
        let mut wanted = Wanted::new(proto::CMD_READ, memory.len() as u64, offset, flags);
        wanted.read = Some(Box::new(buffer));
        wanted
    }

    /// `nbd_pread`: gives the buffer back, filled.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn pread<B: ReadBuffer>(&self, buffer: B, offset: u64, flags: u32) -> Result<B> {
        let call = "nbd_pread";
        let shown = format_args!("buf=<buf> offset={offset} flags={flags:#x}");
        let wanted = self.wanted_read(buffer, offset, flags);
        self.run_read(call, shown, wanted)
    }

    /// `nbd_pread_structured`: gives the buffer back, filled. The callback hears of every chunk.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn pread_structured<B: ReadBuffer>(
        &self,
        buffer: B,
        offset: u64,
        chunk: ChunkCallback,
        flags: u32,
    ) -> Result<B> {
        let call = "nbd_pread_structured";
        let shown = format_args!("buf=<buf> offset={offset} flags={flags:#x}");
        let mut wanted = self.wanted_read(buffer, offset, flags);
        wanted.middle = Middle::Chunk(chunk);
        self.run_read(call, shown, wanted)
    }

    /// `nbd_pwrite`.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn pwrite<B: WriteBuffer>(&self, buffer: B, offset: u64, flags: u32) -> Result<()> {
        let call = "nbd_pwrite";
        let count = buffer.as_slice().len();
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_WRITE, count as u64, offset, flags);
        wanted.write = Some(Box::new(buffer));
        self.run(call, shown, wanted).map(drop)
    }

    /// `nbd_flush`.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn flush(&self, flags: u32) -> Result<()> {
        let call = "nbd_flush";
        let shown = format_args!("flags={flags:#x}");
        let wanted = Wanted::new(proto::CMD_FLUSH, 0, 0, flags);
        self.run(call, shown, wanted).map(drop)
    }

    /// `nbd_trim`.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn trim(&self, count: u64, offset: u64, flags: u32) -> Result<()> {
        let call = "nbd_trim";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let wanted = Wanted::new(proto::CMD_TRIM, count, offset, flags);
        self.run(call, shown, wanted).map(drop)
    }

    /// `nbd_cache`.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn cache(&self, count: u64, offset: u64, flags: u32) -> Result<()> {
        let call = "nbd_cache";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let wanted = Wanted::new(proto::CMD_CACHE, count, offset, flags);
        self.run(call, shown, wanted).map(drop)
    }

    /// `nbd_zero`.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn zero(&self, count: u64, offset: u64, flags: u32) -> Result<()> {
        let call = "nbd_zero";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let wanted = Wanted::new(proto::CMD_WRITE_ZEROES, count, offset, flags);
        self.run(call, shown, wanted).map(drop)
    }

    /// `nbd_block_status`.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn block_status(
        &self,
        count: u64,
        offset: u64,
        extent: ExtentCallback,
        flags: u32,
    ) -> Result<()> {
        let call = "nbd_block_status";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_BLOCK_STATUS, count, offset, flags);
        wanted.middle = Middle::Extent(extent);
        self.run(call, shown, wanted).map(drop)
    }

    /// `nbd_block_status_64`.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn block_status_64(
        &self,
        count: u64,
        offset: u64,
        extent: Extent64Callback,
        flags: u32,
    ) -> Result<()> {
        let call = "nbd_block_status_64";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_BLOCK_STATUS, count, offset, flags);
        wanted.middle = Middle::Extent64(extent);
        self.run(call, shown, wanted).map(drop)
    }

    /// `nbd_block_status_filter`: of these contexts only.
    ///
    /// # Errors
    ///
    /// The command was refused or failed, or the connection did.
    pub fn block_status_filter(
        &self,
        count: u64,
        offset: u64,
        contexts: &[String],
        extent: Extent64Callback,
        flags: u32,
    ) -> Result<()> {
        let call = "nbd_block_status_filter";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_BLOCK_STATUS, count, offset, flags);
        wanted.middle = Middle::Extent64(extent);
        wanted.filter = Some(contexts.to_vec());
        self.run(call, shown, wanted).map(drop)
    }
}

/// The calls that only submit. The callbacks may be called before they return.
impl Handle {
    /// `nbd_aio_pread`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_pread<B: ReadBuffer>(
        &self,
        buffer: B,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_pread";
        let shown = format_args!("buf=<buf> offset={offset} flags={flags:#x}");
        let mut wanted = self.wanted_read(buffer, offset, flags);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_pread_structured`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_pread_structured<B: ReadBuffer>(
        &self,
        buffer: B,
        offset: u64,
        chunk: ChunkCallback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_pread_structured";
        let shown = format_args!("buf=<buf> offset={offset} flags={flags:#x}");
        let mut wanted = self.wanted_read(buffer, offset, flags);
        wanted.middle = Middle::Chunk(chunk);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_pwrite`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_pwrite<B: WriteBuffer>(
        &self,
        buffer: B,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_pwrite";
        let count = buffer.as_slice().len();
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_WRITE, count as u64, offset, flags);
        wanted.write = Some(Box::new(buffer));
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_flush`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_flush(&self, completion: Option<CompletionCallback>, flags: u32) -> Result<u64> {
        let call = "nbd_aio_flush";
        let shown = format_args!("flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_FLUSH, 0, 0, flags);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_trim`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_trim(
        &self,
        count: u64,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_trim";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_TRIM, count, offset, flags);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_cache`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_cache(
        &self,
        count: u64,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_cache";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_CACHE, count, offset, flags);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_zero`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_zero(
        &self,
        count: u64,
        offset: u64,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_zero";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_WRITE_ZEROES, count, offset, flags);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_block_status`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_block_status(
        &self,
        count: u64,
        offset: u64,
        extent: ExtentCallback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_block_status";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_BLOCK_STATUS, count, offset, flags);
        wanted.middle = Middle::Extent(extent);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_block_status_64`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_block_status_64(
        &self,
        count: u64,
        offset: u64,
        extent: Extent64Callback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_block_status_64";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_BLOCK_STATUS, count, offset, flags);
        wanted.middle = Middle::Extent64(extent);
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }

    /// `nbd_aio_block_status_filter`: the cookie of the command.
    ///
    /// # Errors
    ///
    /// The command was refused; then nothing was sent, and the callbacks are dropped.
    pub fn aio_block_status_filter(
        &self,
        count: u64,
        offset: u64,
        contexts: &[String],
        extent: Extent64Callback,
        completion: Option<CompletionCallback>,
        flags: u32,
    ) -> Result<u64> {
        let call = "nbd_aio_block_status_filter";
        let shown = format_args!("count={count} offset={offset} flags={flags:#x}");
        let mut wanted = Wanted::new(proto::CMD_BLOCK_STATUS, count, offset, flags);
        wanted.middle = Middle::Extent64(extent);
        wanted.filter = Some(contexts.to_vec());
        wanted.completion = completion;
        self.submit(call, shown, wanted)
    }
}
