//! The blocking face.

use std::{
    fmt,
    io::{IoSlice, IoSliceMut},
    path::Path,
    sync::Arc,
};

use block::Op;

use crate::{
    aio::AsyncDisk,
    builder::Builder,
    error::Result,
    handle::Handle,
    queue::Queue,
    types::{Extent, Flags, Limits},
    wait::block_on,
};

/// An open disk: a file, memory, an NBD server's export, or any other source of blkit.
///
/// Calls wait until they are done; any number of threads may make them at a time, on one disk or on
/// clones of it, which are the same disk. For async code there is [`AsyncDisk`], for many requests from
/// one thread [`Queue`]; all three can be used together.
///
/// *Order.* There is none between requests that are out at a time: one that has to come after another
/// waits for it. A flush covers all changes that were asked for before it, on this disk or a clone.
///
/// *Closing.* The disk is closed when the last clone is dropped: in the background, with a flush if it
/// was changed. [`Disk::close`] waits for that and tells how it went. What is still open when the
/// process ends was not flushed.
///
/// Do not wait on a disk from inside a [`Waker`](std::task::Waker): it runs on the disk's own thread.
///
/// ```
/// use blkit::Disk;
///
/// # fn main() -> blkit::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("disk.img");
/// # std::fs::write(&path, [0; 4096]).unwrap();
/// let disk = Disk::open_path(&path)?;
/// disk.write_at(b"hello", 512)?;
/// disk.flush()?;
/// let mut bytes = [0; 5];
/// disk.read_at(&mut bytes, 512)?;
/// assert_eq!(&bytes, b"hello");
/// disk.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Disk(Arc<Handle>);

impl Disk {
    /// Opens a source for reading and, if it can be, writing: `nbd://HOST/EXPORT` or another NBD URI, a
    /// path with a `/` or a `.` in it, or a source that needs no parameters.
    ///
    /// ```no_run
    /// # fn main() -> blkit::Result<()> {
    /// let disk = blkit::Disk::open("nbd://localhost")?;
    /// println!("{} bytes", disk.size());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(source: &str) -> Result<Disk> {
        Disk::builder(source).open()
    }

    /// Opens a file or a block device.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Disk> {
        Builder::of_path(path.as_ref())?.open()
    }

    /// Says what to open in more words.
    pub fn builder(source: impl Into<String>) -> Builder {
        Builder::new(source)
    }

    pub(crate) fn of(handle: Arc<Handle>) -> Disk {
        Disk(handle)
    }

    /// Size in bytes, as the disk last said.
    pub fn size(&self) -> u64 {
        self.0.port.limits().size
    }

    /// What the disk can do, as it last said.
    pub fn limits(&self) -> Limits {
        Limits::clone(&self.0.port.limits())
    }

    /// Fills `bytes` with what is on the disk from `offset` on.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput): some of it lies outside the disk. Or what the
    /// disk says. What `bytes` holds then is not defined.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        block_on(self.0.read(bytes, offset))
    }

    /// Writes `bytes` to the disk from `offset` on.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput): some of it lies outside the disk.
    /// [`Permission`](crate::ErrorKind::Permission): the disk is read-only. Or what the disk says; some
    /// of it may have been written then.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write_at_with(bytes, offset, Flags::NONE)
    }

    /// As [`Disk::write_at`], with [`Flags::FUA`].
    ///
    /// # Errors
    /// As [`Disk::write_at`]. [`Unsupported`](crate::ErrorKind::Unsupported): the disk cannot do what
    /// the flags ask for.
    pub fn write_at_with(&self, bytes: &[u8], offset: u64, flags: Flags) -> Result<()> {
        block_on(self.0.write(bytes, offset, flags.0))
    }

    /// Fills several pieces of memory with what lies one behind the other on the disk.
    ///
    /// # Errors
    /// As [`Disk::read_at`].
    pub fn read_vectored_at(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        block_on(self.0.read_vectored(parts, offset))
    }

    /// Writes several pieces of memory one behind the other.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    pub fn write_vectored_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<()> {
        block_on(self.0.write_vectored(parts, offset))
    }

    /// Makes everything durable that was changed before: when this returns, it is on the medium. Also
    /// fails, once, if a change has failed that nobody waited for.
    ///
    /// # Errors
    /// What was written may be lost. A disk that could not flush does not claim later that it could.
    pub fn flush(&self) -> Result<()> {
        block_on(self.0.simple(Op::Flush, block::Flags::NONE, 0, 0)).result
    }

    /// Makes a range read as zeroes, without space for it where the disk can ([`Flags::NO_HOLE`]: with
    /// it).
    ///
    /// # Errors
    /// As [`Disk::write_at_with`].
    pub fn write_zeroes(&self, offset: u64, len: u64, flags: Flags) -> Result<()> {
        block_on(self.0.simple(Op::WriteZeroes, flags.0, offset, len)).result
    }

    /// Says that a range is no longer needed: it may read as anything from now on.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        block_on(self.0.simple(Op::Discard, block::Flags::NONE, offset, len)).result
    }

    /// What is allocated, and what reads as zeroes, from `offset` on: at least one extent, and perhaps
    /// fewer than reach to the end of the range. Ask again from where they end.
    ///
    /// ```
    /// # fn main() -> blkit::Result<()> {
    /// let disk = blkit::Disk::builder("memory").arg("1G").open()?;
    /// disk.write_at(b"x", 512 << 20)?;
    /// let (mut at, mut data) = (0, 0);
    /// while at < disk.size() {
    ///     for extent in disk.extents(at, disk.size() - at)? {
    ///         data += if extent.zero { 0 } else { extent.len };
    ///         at = extent.offset + extent.len;
    ///     }
    /// }
    /// assert!((1..1 << 20).contains(&data));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported): the disk does not know. Or what it says.
    pub fn extents(&self, offset: u64, len: u64) -> Result<Vec<Extent>> {
        block_on(self.0.extents(offset, len))
    }

    /// A way in for many requests at a time: at most `depth`.
    pub fn queue(&self, depth: usize) -> Queue {
        Queue::new(self.0.clone(), depth)
    }

    /// The same disk, for async code.
    pub fn to_async(&self) -> AsyncDisk {
        AsyncDisk::of(self.0.clone())
    }

    /// Closes the disk, for all clones of it: waits for what is under way, flushes if it was changed,
    /// and gives back what it holds. Requests that come later fail
    /// ([`Gone`](crate::ErrorKind::Gone)). It takes as long as the source does:
    /// [`Context::close`](crate::Context::close) has a limit.
    ///
    /// # Errors
    /// What was written may be lost.
    pub fn close(self) -> Result<()> {
        block_on(self.0.close())
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({} bytes)", self.size())
    }
}
