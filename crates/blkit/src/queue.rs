//! Requests by the many: submitted in bulk, waited for in bulk.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use block::{Errno, Op};

use crate::{
    buffer::Buffer,
    error::{Error, Result},
    handle::Handle,
    port::{Answer, Asked, Payload, Reply},
    types::Flags,
    wait::{block_on, lock},
};

/// A way into a disk for many requests at a time, from one thread.
///
/// Requests are staged, then submitted together: one lock and at most one wake of the disk's thread,
/// however many there are. Answers come in any order, each with the token that was given along, and
/// with its buffer. Once lists and buffers have their sizes, nothing on the way allocates.
///
/// A disk can have any number of queues, each for its own thread.
///
/// *Dropped*, it leaves what is under way to itself, as a dropped future does (see
/// [`AsyncDisk`](crate::AsyncDisk)).
///
/// ```
/// use blkit::{Buffer, Disk, Flags};
///
/// # fn main() -> blkit::Result<()> {
/// let disk = Disk::builder("memory").arg("1M").open()?;
/// let mut queue = disk.queue(8);
/// for block in 0..8 {
///     let mut buffer = Buffer::new(4096);
///     buffer.fill(block as u8);
///     queue.write(block, buffer, block * 4096, Flags::NONE).expect("there is room for 8");
/// }
/// let mut done = Vec::new();
/// while queue.in_flight() > 0 {
///     queue.wait(1, &mut done);
///     for completion in done.drain(..) {
///         completion.result?;
///     }
/// }
/// # let mut byte = [0];
/// # disk.read_at(&mut byte, 7 * 4096)?;
/// # assert_eq!(byte, [7]);
/// # Ok(())
/// # }
/// ```
pub struct Queue {
    handle: Arc<Handle>,
    ring: Arc<Ring>,
    staged: Vec<Asked>,
    depth: usize,
    in_flight: usize,
}

/// How a queue's request ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion {
    /// What it was given along.
    pub token: u64,
    /// How it ended.
    pub result: Result<()>,
    /// The buffer that it took along; an empty one for requests without bytes, and if the disk's
    /// thread is gone.
    pub buffer: Buffer,
}

/// There is no room for another request: take completions first.
pub struct Full(
    /// The buffer of the request, if it had one.
    pub Buffer,
);

impl std::fmt::Debug for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Full")
    }
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the queue is full")
    }
}

impl std::error::Error for Full {}

impl From<Full> for Error {
    fn from(full: Full) -> Error {
        Error::new(Errno::EAGAIN, full.to_string())
    }
}

impl Queue {
    pub(crate) fn new(handle: Arc<Handle>, depth: usize) -> Queue {
        let depth = depth.max(1);
        Queue {
            handle,
            ring: Arc::new(Ring::new(depth)),
            staged: Vec::with_capacity(depth),
            depth,
            in_flight: 0,
        }
    }

    /// So many requests can be out at a time.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Requests that were staged or submitted, and whose completions were not taken.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Stages a read that fills the whole buffer.
    ///
    /// # Errors
    /// As many requests are out as can be.
    pub fn read(&mut self, token: u64, buffer: Buffer, offset: u64) -> Result<(), Full> {
        let len = buffer.len() as u64;
        self.stage(token, Op::Read, Flags::NONE, offset, len, Some(buffer))
    }

    /// Stages a write of the whole buffer.
    ///
    /// # Errors
    /// As [`Queue::read`].
    pub fn write(
        &mut self,
        token: u64,
        buffer: Buffer,
        offset: u64,
        flags: Flags,
    ) -> Result<(), Full> {
        let len = buffer.len() as u64;
        self.stage(token, Op::Write, flags, offset, len, Some(buffer))
    }

    /// Stages a flush (see [`Disk::flush`](crate::Disk::flush)).
    ///
    /// # Errors
    /// As [`Queue::read`].
    pub fn flush(&mut self, token: u64) -> Result<(), Full> {
        self.stage(token, Op::Flush, Flags::NONE, 0, 0, None)
    }

    /// Stages writing zeroes.
    ///
    /// # Errors
    /// As [`Queue::read`].
    pub fn write_zeroes(
        &mut self,
        token: u64,
        offset: u64,
        len: u64,
        flags: Flags,
    ) -> Result<(), Full> {
        self.stage(token, Op::WriteZeroes, flags, offset, len, None)
    }

    /// Stages a discard.
    ///
    /// # Errors
    /// As [`Queue::read`].
    pub fn discard(&mut self, token: u64, offset: u64, len: u64) -> Result<(), Full> {
        self.stage(token, Op::Discard, Flags::NONE, offset, len, None)
    }

    fn stage(
        &mut self,
        token: u64,
        op: Op,
        flags: Flags,
        offset: u64,
        len: u64,
        buffer: Option<Buffer>,
    ) -> Result<(), Full> {
        if self.in_flight == self.depth {
            return Err(Full(buffer.unwrap_or_default()));
        }
        self.in_flight += 1;
        self.staged.push(Asked {
            op,
            flags: flags.0,
            offset,
            len,
            payload: buffer.map_or(Payload::None, Payload::One),
            reply: Reply::ring(self.ring.clone(), token),
        });
        Ok(())
    }

    /// Hands over what was staged.
    pub fn submit(&mut self) {
        if !self.staged.is_empty() {
            self.handle.port.ask_all(&mut self.staged);
        }
    }

    /// Takes the completions that are there, and submits what was staged. Returns how many.
    pub fn poll(&mut self, into: &mut Vec<Completion>) -> usize {
        self.submit();
        self.took(self.ring.take(into))
    }

    /// Submits what was staged, and sleeps until there are `least` completions, or as many as are out.
    /// Takes all there are, and returns how many.
    pub fn wait(&mut self, least: usize, into: &mut Vec<Completion>) -> usize {
        block_on(poll_fn(|cx| self.poll_wait(least, into, cx)))
    }

    /// As [`Queue::wait`], as a future. Dropped, it has taken nothing.
    pub async fn completions(&mut self, least: usize, into: &mut Vec<Completion>) -> usize {
        poll_fn(|cx| self.poll_wait(least, into, cx)).await
    }

    /// As [`Queue::completions`], for futures that are written by hand.
    pub fn poll_wait(
        &mut self,
        least: usize,
        into: &mut Vec<Completion>,
        cx: &mut Context<'_>,
    ) -> Poll<usize> {
        self.submit();
        let least = least.min(self.in_flight);
        self.ring.poll(least, into, cx).map(|n| self.took(n))
    }

    fn took(&mut self, completions: usize) -> usize {
        self.in_flight -= completions;
        completions
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.submit();
        let changes = self.ring.leave().into_iter().filter_map(|c| c.result.err());
        changes.for_each(|error| self.handle.port.note(error));
    }
}

/// Where the answers to a queue's requests come together.
pub(crate) struct Ring(Mutex<Gathered>);

struct Gathered {
    done: Vec<Completion>,
    /// So many are waited for.
    least: usize,
    waker: Option<Waker>,
    /// Nobody will look again.
    left: bool,
}

impl Ring {
    fn new(depth: usize) -> Ring {
        Ring(Mutex::new(Gathered {
            done: Vec::with_capacity(depth),
            least: 0,
            waker: None,
            left: false,
        }))
    }

    /// Adds an answer.
    ///
    /// # Errors
    /// Nobody waits for it: it is given back.
    pub fn push(&self, token: u64, answer: Answer) -> Result<(), Answer> {
        let mut gathered = lock(&self.0);
        if gathered.left {
            return Err(answer);
        }
        gathered.done.push(Completion {
            token,
            result: answer.result,
            buffer: answer.payload.into_one(),
        });
        let waker = match gathered.done.len() >= gathered.least {
            true => gathered.waker.take(),
            false => None,
        };
        drop(gathered);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn take(&self, into: &mut Vec<Completion>) -> usize {
        let mut gathered = lock(&self.0);
        let n = gathered.done.len();
        into.append(&mut gathered.done);
        n
    }

    fn poll(&self, least: usize, into: &mut Vec<Completion>, cx: &mut Context<'_>) -> Poll<usize> {
        let mut gathered = lock(&self.0);
        let n = gathered.done.len();
        if n >= least {
            into.append(&mut gathered.done);
            return Poll::Ready(n);
        }
        gathered.least = least;
        gathered.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn leave(&self) -> Vec<Completion> {
        let mut gathered = lock(&self.0);
        gathered.left = true;
        gathered.waker = None;
        std::mem::take(&mut gathered.done)
    }
}
