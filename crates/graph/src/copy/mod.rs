//! The job that copies one disk to another.
//!
//! Many pieces are on their way at a time, each from its read to its write. What the source knows to
//! be zero is not read, and what turns out to be zero is not written as data. Nothing is copied in
//! memory: the bytes go out from where they came in.
//!
//! | module | what |
//! | --- | --- |
//! | `plan` | which piece comes next |
//! | `scan` | which blocks of a piece are zero |
//! | `prefix` | how far the destination is complete |

mod plan;
mod prefix;
mod scan;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use block::{
    Completed, Data, Device, Error, ErrorKind, Flags, IoError, Iov, Op, Piece, Queue, QueueExt,
    Reactor, Request, Result, Segments, SharedMem,
};

use plan::{Next, Plan};
use prefix::Prefix;

/// How to copy.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Bytes of one read; a power of two.
    pub request_size: u64,
    /// Pieces on their way at a time.
    pub requests: usize,
    /// Zeroes become holes where they fill so many bytes, aligned; a power of two. `None`: only what
    /// the source knows to be zero.
    pub sparse: Option<u64>,
    /// Zeroes are allocated on the destination too.
    pub allocated: bool,
    /// The destination reads as zeroes already: zeroes are not written.
    pub destination_is_zero: bool,
    /// Ask the source what is zero.
    pub extents: bool,
    /// Flush the destination at the end.
    pub flush: bool,
}

impl Default for CopyOptions {
    /// Requests of 256 KiB, 64 of them at a time; zeroes of 4 KiB and more become holes.
    fn default() -> CopyOptions {
        CopyOptions {
            request_size: 256 << 10,
            requests: 64,
            sparse: Some(4096),
            allocated: false,
            destination_is_zero: false,
            extents: true,
            flush: false,
        }
    }
}

/// What a copy has done, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Read from the source.
    pub read: u64,
    /// Written as data.
    pub written: u64,
    /// Made zero on the destination.
    pub zeroed: u64,
    /// Zero on both sides without anything being done.
    pub skipped: u64,
}

/// A copy that goes on. Dropping it stops it as [`Copy::stop`] does.
pub struct Copy(Rc<Job>);

struct Job {
    reactor: Reactor,
    source: Rc<dyn Queue>,
    /// `None`: the bytes are read and forgotten.
    destination: Option<Rc<dyn Queue>>,
    /// The disks stay open as long as their queues.
    _disks: (Arc<dyn Device>, Option<Arc<dyn Device>>),
    options: CopyOptions,
    plan: Plan,
    size: u64,
    stopped: Cell<bool>,
    running: Cell<usize>,
    failed: RefCell<Option<Error>>,
    waiting: RefCell<Option<Waker>>,
    copied: Cell<Copied>,
    prefix: RefCell<Prefix>,
}

impl Copy {
    /// Starts to copy all of `source` to the beginning of `destination`.
    ///
    /// # Errors
    /// The destination is too small, or cannot be written.
    pub fn start(
        reactor: &Reactor,
        source: &Arc<dyn Device>,
        destination: Option<&Arc<dyn Device>>,
        options: CopyOptions,
    ) -> Result<Copy> {
        let size = source.limits().size;
        if let Some(destination) = destination {
            check(size, destination)?;
        }
        let queue = source.open_queue(reactor)?;
        let job = Rc::new(Job {
            reactor: reactor.clone(),
            plan: Plan::new(&source.limits(), destination, &options),
            source: queue,
            destination: destination
                .map(|disk| disk.open_queue(reactor))
                .transpose()?,
            _disks: (source.clone(), destination.cloned()),
            size,
            stopped: Cell::new(false),
            running: Cell::new(options.requests),
            failed: RefCell::default(),
            waiting: RefCell::default(),
            copied: Cell::default(),
            prefix: RefCell::default(),
            options,
        });
        for _ in 0..job.options.requests {
            reactor.spawn(job.clone().work());
        }
        Ok(Copy(job))
    }

    /// Begins nothing new: what is on its way is finished.
    pub fn stop(&self) {
        self.0.stopped.set(true);
    }

    /// Bytes that are done, and of how many.
    pub fn progress(&self) -> (u64, u64) {
        (self.0.prefix.borrow().total(), self.0.size)
    }

    /// So many bytes from the start of the destination are what they should be.
    pub fn complete_up_to(&self) -> u64 {
        self.0.prefix.borrow().end()
    }

    /// Waits for the end, and flushes the destination if that was asked for.
    ///
    /// # Errors
    /// The first read or write that failed; `Gone`, if it was stopped before the end.
    pub async fn finish(&self) -> Result<Copied> {
        let job = &*self.0;
        std::future::poll_fn(|cx| {
            if job.running.get() == 0 {
                return Poll::Ready(());
            }
            *job.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        if let Some(error) = job.failed.take() {
            return Err(error);
        }
        if job.prefix.borrow().end() < job.size {
            return Err(Error::new(ErrorKind::Gone, "the copy was stopped"));
        }
        if let Some(destination) = job.destination.as_ref().filter(|_| job.options.flush) {
            let flush = job.reactor.request(Op::Flush, 0, 0);
            let mut done = destination.call(flush).await;
            let cannot = |error| Error::new(ErrorKind::Io, format!("flush failed: {error}"));
            done.take_outcome().map_err(cannot)?;
        }
        Ok(job.copied.get())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check(size: u64, destination: &Arc<dyn Device>) -> Result<()> {
    let limits = destination.limits();
    if limits.size < size {
        let what = format!(
            "destination size ({}) is smaller than source size ({size})",
            limits.size
        );
        return Err(Error::new(ErrorKind::Config, what));
    }
    if limits.read_only() {
        let what = "the destination is read-only";
        return Err(Error::new(ErrorKind::Permission, what));
    }
    Ok(())
}

impl Job {
    /// Takes one piece after the other.
    async fn work(self: Rc<Self>) {
        if let Err(error) = self.pieces().await {
            self.stopped.set(true);
            self.failed.borrow_mut().get_or_insert(error);
        }
        self.running.set(self.running.get() - 1);
        if self.running.get() == 0
            && let Some(waiting) = self.waiting.take()
        {
            waiting.wake();
        }
    }

    async fn pieces(&self) -> Result<()> {
        while !self.stopped.get() {
            let Some(next) = self.plan.next(&self.reactor, &*self.source).await else {
                break;
            };
            match next.zero {
                true => self.zero(next.offset, next.len).await?,
                false => self.copy(&next).await?,
            }
            self.prefix.borrow_mut().add(next.offset, next.len);
        }
        Ok(())
    }

    async fn copy(&self, piece: &Next) -> Result<()> {
        let mut read = self.reactor.request(Op::Read, piece.offset, piece.len);
        *read.data_mut() = Data::Wanted;
        let mut done = self.call(&self.source, read, "read", piece.offset).await?;
        self.count(|copied| copied.read += piece.len);
        let Data::Given(bytes) = std::mem::take(done.data_mut()) else {
            return Err(Error::new(ErrorKind::Format, "a read without data"));
        };
        drop(done);
        let Some(block) = self.options.sparse.filter(|_| self.destination.is_some()) else {
            return self.write(piece.offset, bytes).await;
        };
        let mut at = 0;
        for run in scan::runs(&bytes, piece.offset, block) {
            match run.zero {
                true => self.zero(piece.offset + at, run.len).await?,
                false => {
                    let bytes = bytes.slice(at, run.len);
                    self.write(piece.offset + at, bytes).await?;
                }
            }
            at += run.len;
        }
        Ok(())
    }

    async fn write(&self, offset: u64, bytes: Segments) -> Result<()> {
        let Some(destination) = &self.destination else {
            return Ok(());
        };
        let len = bytes.len();
        let mut write = self.reactor.request(Op::Write, offset, len);
        *write.data_mut() = iov(bytes).into();
        self.call(destination, write, "write", offset).await?;
        self.count(|copied| copied.written += len);
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let destination = self.destination.as_ref();
        let Some(destination) = destination.filter(|_| !self.options.destination_is_zero) else {
            self.count(|copied| copied.skipped += len);
            return Ok(());
        };
        let mut zero = self.reactor.request(Op::WriteZeroes, offset, len);
        if self.options.allocated {
            zero.set_flags(Flags::NO_HOLE);
        }
        self.call(destination, zero, "write zeroes", offset).await?;
        self.count(|copied| copied.zeroed += len);
        Ok(())
    }

    async fn call(
        &self,
        queue: &Rc<dyn Queue>,
        request: Request,
        what: &str,
        offset: u64,
    ) -> Result<Completed> {
        let mut done = queue.call(request).await;
        match done.take_outcome() {
            Ok(()) => Ok(done),
            Err(error) => Err(failed(what, offset, &error)),
        }
    }

    fn count(&self, add: impl FnOnce(&mut Copied)) {
        let mut copied = self.copied.get();
        add(&mut copied);
        self.copied.set(copied);
    }
}

#[cold]
fn failed(what: &str, offset: u64, error: &IoError) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("{what} at offset {offset} failed: {error}"),
    )
}

/// Zeroes that are written, because they are less than a block.
static ZEROES: [u8; 4096] = [0; 4096];

/// What was read, as what is written.
fn iov(bytes: Segments) -> Iov {
    let mut parts: Vec<Iov> = Vec::new();
    for piece in bytes.into_pieces() {
        match piece {
            Piece::Mem(mem) => parts.push(mem.into()),
            Piece::Zero(mut len) => {
                while len > 0 {
                    let part = len.min(ZEROES.len() as u64);
                    parts.push(SharedMem::of_static(&ZEROES[..part as usize]).into());
                    len -= part;
                }
            }
        }
    }
    match <[Iov; 1]>::try_from(parts) {
        Ok([one]) => one,
        Err(many) => Iov::gather(&many),
    }
}

#[cfg(test)]
mod tests;
