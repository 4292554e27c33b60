//! The job that copies one disk to another.
//!
//! Many pieces are on their way at a time, each from its read to its write. What the source knows to
//! be zero is not read, and what turns out to be zero is not written as data. Nothing is copied in
//! memory: the bytes go out from where they came in.
//!
//! | module | what |
//! | --- | --- |
//! | `plan` | which piece comes next |
//! | `job` | what is done with a piece |
//! | `pace` | how much is on its way at a time |
//! | `rate` | how much goes in a second |
//! | `scan` | which blocks of a piece are zero; where bytes differ |
//! | `blkhash` | the checksum of what was read |
//! | `prefix` | what is done, and how far the destination is complete |

mod blkhash;
mod job;
mod pace;
mod plan;
mod prefix;
mod rate;
mod scan;

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use block::{Device, Error, ErrorKind, Op, QueueExt, Reactor, Result};

pub use blkhash::{BlkHash, Digest, Hasher};
use job::Job;
use pace::{Bounds, Pace};
use plan::Plan;
use prefix::Prefix;
pub use rate::Rate;
pub use scan::{Run, runs as zero_runs};

/// How to copy. All sizes are bytes.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// One read, at first; a power of two.
    pub request_size: u64,
    /// One read from or for a far disk; a power of two.
    pub largest_request: u64,
    /// Pieces on their way at a time, at most. One: they are copied in order.
    pub requests: usize,
    /// On their way at a time, at first.
    pub ahead: u64,
    /// On their way at a time, when more turns out to be faster.
    pub queue_size: u64,
    /// A disk may be on another machine: one that is slow to answer gets all of the queue at once.
    pub may_be_far: bool,
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
    /// Try what has failed so many times more, a second apart.
    pub retries: u32,
    /// Data in a second, at most.
    pub rate: Option<u64>,
    /// Hash what is read. Requests are not smaller than its blocks, nor is anything left out.
    pub blkhash: Option<BlkHash>,
    /// What is on the destination already, and is not copied again: ranges in order, which neither
    /// touch nor overlap.
    pub done: Vec<Range<u64>>,
}

impl Default for CopyOptions {
    /// Requests of 256 KiB, 64 of them at a time; zeroes of 4 KiB and more become holes.
    fn default() -> CopyOptions {
        CopyOptions {
            request_size: 256 << 10,
            largest_request: 256 << 10,
            requests: 64,
            ahead: 16 << 20,
            queue_size: 16 << 20,
            may_be_far: true,
            sparse: Some(4096),
            allocated: false,
            destination_is_zero: false,
            extents: true,
            flush: false,
            retries: 0,
            rate: None,
            blkhash: None,
            done: Vec::new(),
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

/// The disks of a copy.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// What is copied.
    pub source: &'a Arc<dyn Device>,
    /// What it is copied to; `None`: the bytes are read and forgotten.
    pub destination: Option<&'a Arc<dyn Device>>,
    /// The destination once more, where all that was written is read back and compared; `None`: it
    /// is not.
    pub check: Option<&'a Arc<dyn Device>>,
}

/// A copy that goes on. Dropping it stops it as [`Copy::stop`] does.
pub struct Copy(Rc<Job>);

impl Copy {
    /// Starts to copy all of the source to the beginning of the destination.
    ///
    /// # Errors
    /// The destination is too small, or cannot be written.
    pub fn start(reactor: &Reactor, ends: Ends<'_>, mut options: CopyOptions) -> Result<Copy> {
        let limits = ends.source.limits();
        let size = limits.size;
        if let Some(hash) = options.blkhash {
            whole_blocks(hash, &mut options)?;
        }
        if let Some(destination) = ends.destination {
            check(size, destination)?;
        }
        let queue = ends.source.open_queue(reactor)?;
        let open = |disk: &Arc<dyn Device>| disk.open_queue(reactor);
        let mut prefix = Prefix::default();
        for done in &options.done {
            prefix.add(done.start, done.end - done.start);
        }
        let missing = prefix.missing(size);
        let disks = [Some(ends.source), ends.destination, ends.check];
        let job = Rc::new(Job {
            reactor: reactor.clone(),
            plan: Plan::new(
                reactor,
                queue.clone(),
                &limits,
                ends.destination,
                missing,
                &options,
            ),
            source: queue,
            destination: ends.destination.map(open).transpose()?,
            check: ends.check.map(open).transpose()?,
            check_tells: ends.check.is_some_and(|disk| offers(disk, Op::Extents)),
            _disks: disks.into_iter().flatten().cloned().collect(),
            pace: Pace::new(Bounds {
                first: options.ahead,
                most: options.queue_size,
                piece: options.request_size,
                largest: options.largest_request,
                may_be_far: options.may_be_far,
            }),
            rate: options.rate.map(Rate::new),
            hasher: options.blkhash.map(|hash| Hasher::new(reactor, hash)),
            size,
            stopped: Cell::new(false),
            running: Cell::new(options.requests),
            failed: RefCell::default(),
            differs: Cell::default(),
            waiting: RefCell::default(),
            copied: Cell::default(),
            prefix: RefCell::new(prefix),
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

    /// What is done, flushed: it is on the destination whatever happens now. In order, for
    /// [`CopyOptions::done`].
    ///
    /// # Errors
    /// The flush failed.
    pub async fn settle(&self) -> Result<Vec<Range<u64>>> {
        let done = self.0.prefix.borrow().done();
        self.flush().await?;
        Ok(done)
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
        if let Some(offset) = job.differs.get() {
            return Err(job::different(offset));
        }
        if let Some(error) = job.failed.take() {
            return Err(error);
        }
        if job.prefix.borrow().end() < job.size {
            return Err(Error::new(ErrorKind::Gone, "the copy was stopped"));
        }
        if job.options.flush {
            self.flush().await?;
        }
        Ok(job.copied.get())
    }

    /// The hash of what was read, once it has finished; `None` if it was not asked for.
    ///
    /// # Errors
    /// Not all of the disk was read.
    pub fn blkhash(&self) -> Result<Option<String>> {
        let job = &*self.0;
        job.hasher
            .as_ref()
            .map(|hasher| hasher.finish(job.size))
            .transpose()
    }

    async fn flush(&self) -> Result<()> {
        let job = &*self.0;
        let Some(destination) = &job.destination else {
            return Ok(());
        };
        let flush = job.reactor.request(Op::Flush, 0, 0);
        let mut done = destination.call(flush).await;
        let cannot = |error| Error::new(ErrorKind::Io, format!("flush failed: {error}"));
        done.take_outcome().map_err(cannot)
    }
}

fn offers(disk: &Arc<dyn Device>, op: Op) -> bool {
    disk.limits().offered().contains(op)
}

/// Blocks that are hashed are read as a whole, or in order.
fn whole_blocks(hash: BlkHash, options: &mut CopyOptions) -> Result<()> {
    if !options.done.is_empty() {
        let what = "what was copied before cannot be hashed";
        return Err(Error::new(ErrorKind::Config, what));
    }
    if hash.block > block::MAX_TRANSFER.into() {
        options.requests = 1;
        return Ok(());
    }
    options.request_size = options.request_size.max(hash.block);
    options.largest_request = options.largest_request.max(hash.block);
    Ok(())
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

#[cfg(test)]
mod tests;
