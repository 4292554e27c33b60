//! The async face.

use std::{fmt, future::Future, sync::Arc};

use block::Op;

use crate::{
    buffer::Buffer,
    builder::Builder,
    disk::Disk,
    error::Result,
    handle::{Call, Handle},
    port::Payload,
    queue::Queue,
    types::{Extent, Flags, Limits},
};

/// An open disk for async code, on any runtime, or none: its futures need nothing of whoever polls
/// them, and may move between threads.
///
/// *Buffers go along.* A request owns its memory until it is over, so reads and writes take a
/// [`Buffer`] and give it back, also when they fail.
///
/// *A request begins when the method is called*, not when its future is first polled. So several are
/// under way at a time if their futures are made before the first is awaited.
///
/// *A future that is dropped* leaves its request to itself: the memory stays until the request is over,
/// and a write is done or not, as if nobody had looked. It may even be done after a later write to the
/// same place. [`AsyncDisk::flush`] waits for it, and fails, once, if it has failed; so a flush after
/// a dropped write tells whether the disk is as it should be.
///
/// See [`Disk`] for order and closing.
///
/// ```
/// use blkit::{AsyncDisk, Buffer};
///
/// async fn swap(disk: &AsyncDisk, a: u64, b: u64) -> blkit::Result<()> {
///     // Both at a time.
///     let (first, second) = (disk.read(a, 4096), disk.read(b, 4096));
///     let (first, second) = (first.await?, second.await?);
///     let (one, other) = (disk.write_at(second, a), disk.write_at(first, b));
///     one.await.0?;
///     other.await.0?;
///     disk.flush().await
/// }
///
/// # fn main() -> blkit::Result<()> {
/// # smol::block_on(async {
/// let disk = blkit::Disk::builder("memory").arg("1M").open_async().await?;
/// let (written, _buffer) = disk.write_at(vec![7; 4096], 0).await;
/// written?;
/// swap(&disk, 0, 65536).await?;
/// assert_eq!(&disk.read(65536, 4096).await?[..], [7; 4096]);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct AsyncDisk(Arc<Handle>);

impl AsyncDisk {
    /// As [`Disk::open`].
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub async fn open(source: &str) -> Result<AsyncDisk> {
        Builder::new(source).open_async().await
    }

    pub(crate) fn of(handle: Arc<Handle>) -> AsyncDisk {
        AsyncDisk(handle)
    }

    /// Size in bytes, as the disk last said.
    pub fn size(&self) -> u64 {
        self.0.port.limits().size
    }

    /// What the disk can do, as it last said.
    pub fn limits(&self) -> Limits {
        Limits::clone(&self.0.port.limits())
    }

    /// Reads `len` bytes into a new buffer.
    ///
    /// # Errors
    /// As [`Disk::read_at`].
    pub fn read(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = Result<Buffer>> + Send + use<> {
        let call = Buffer::try_new(len).map(|buffer| self.read_at(buffer, offset));
        async {
            let (result, buffer) = call?.await;
            result.map(|()| buffer)
        }
    }

    /// Fills a buffer with what is on the disk from `offset` on.
    pub fn read_at(
        &self,
        buffer: Buffer,
        offset: u64,
    ) -> impl Future<Output = (Result<()>, Buffer)> + Send + use<> {
        one(self
            .0
            .transfer(Op::Read, block::Flags::NONE, buffer, offset))
    }

    /// Writes a buffer to the disk from `offset` on.
    pub fn write_at<B: Into<Buffer>>(
        &self,
        buffer: B,
        offset: u64,
    ) -> impl Future<Output = (Result<()>, Buffer)> + Send + use<B> {
        self.write_at_with(buffer.into(), offset, Flags::NONE)
    }

    /// As [`AsyncDisk::write_at`], with [`Flags::FUA`].
    pub fn write_at_with(
        &self,
        buffer: Buffer,
        offset: u64,
        flags: Flags,
    ) -> impl Future<Output = (Result<()>, Buffer)> + Send + use<> {
        one(self.0.transfer(Op::Write, flags.0, buffer, offset))
    }

    /// Fills buffers with what lies one behind the other on the disk, in one request.
    pub fn read_vectored_at(
        &self,
        buffers: Vec<Buffer>,
        offset: u64,
    ) -> impl Future<Output = (Result<()>, Vec<Buffer>)> + Send + use<> {
        self.vectored(Op::Read, buffers, offset)
    }

    /// Writes buffers one behind the other, in one request.
    pub fn write_vectored_at(
        &self,
        buffers: Vec<Buffer>,
        offset: u64,
    ) -> impl Future<Output = (Result<()>, Vec<Buffer>)> + Send + use<> {
        self.vectored(Op::Write, buffers, offset)
    }

    fn vectored(
        &self,
        op: Op,
        buffers: Vec<Buffer>,
        offset: u64,
    ) -> impl Future<Output = (Result<()>, Vec<Buffer>)> + Send + use<> {
        let len = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        let payload = Payload::Many(buffers);
        let call = self.0.call(op, block::Flags::NONE, offset, len, payload);
        async {
            let answer = call.await;
            (answer.result, answer.payload.into_many())
        }
    }

    /// See [`Disk::flush`].
    ///
    /// # Errors
    /// As [`Disk::flush`].
    pub fn flush(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        simple(self.0.simple(Op::Flush, block::Flags::NONE, 0, 0))
    }

    /// See [`Disk::write_zeroes`].
    ///
    /// # Errors
    /// As [`Disk::write_zeroes`].
    pub fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: Flags,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        simple(self.0.simple(Op::WriteZeroes, flags.0, offset, len))
    }

    /// See [`Disk::discard`].
    ///
    /// # Errors
    /// As [`Disk::discard`].
    pub fn discard(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        simple(self.0.simple(Op::Discard, block::Flags::NONE, offset, len))
    }

    /// See [`Disk::extents`].
    ///
    /// # Errors
    /// As [`Disk::extents`].
    pub fn extents(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = Result<Vec<Extent>>> + Send + use<> {
        self.0.extents(offset, len)
    }

    /// A way in for many requests at a time: at most `depth`.
    pub fn queue(&self, depth: usize) -> Queue {
        Queue::new(self.0.clone(), depth)
    }

    /// The same disk, for blocking code.
    pub fn to_blocking(&self) -> Disk {
        Disk::of(self.0.clone())
    }

    /// See [`Disk::close`].
    ///
    /// # Errors
    /// As [`Disk::close`].
    pub fn close(self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.0.close()
    }
}

async fn one(call: Call) -> (Result<()>, Buffer) {
    let answer = call.await;
    (answer.result, answer.payload.into_one())
}

async fn simple(call: Call) -> Result<()> {
    call.await.result
}

impl fmt::Debug for AsyncDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsyncDisk({} bytes)", self.size())
    }
}
