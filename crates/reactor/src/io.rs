//! What a loop can do with the kernel, behind one handle.
//!
//! [`Io`] begins operations in the loop's table and hands them to the driver; the driver reports
//! results; futures and requests are told. The two drivers differ in nothing that shows here.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::Future,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use block::{ChunkPool, Reactor};

use crate::{
    event_loop::LoopOps,
    mapping::Registered,
    poll::Poller,
    stream::{Sock, Stream},
    sys,
    table::{Key, Op, State, Table},
    uring::Uring,
};

/// A loop's way to the kernel. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Io(pub(crate) Rc<IoInner>);

pub(crate) struct IoInner {
    pub(crate) driver: Driver,
    pub(crate) table: RefCell<Table>,
    pub(crate) chunks: OnceCell<ChunkPool>,
    pub(crate) ops: Cell<u64>,
    /// Somebody waits for a send that may report nothing when it succeeds, or for the end of its stream.
    pub(crate) hurry: Cell<bool>,
    /// Writes to files may stall the loop.
    pub(crate) patient: bool,
    /// Nothing is begun any more.
    closed: Cell<bool>,
    /// Operations that ended at once in this turn: bounded, so that nobody starves the others.
    instant: Cell<u32>,
}

pub(crate) enum Driver {
    Uring(Uring),
    Poll(Poller),
}

/// Operations of one turn that may end at once before their tasks have to step back.
const INSTANT_PER_TURN: u32 = 64;

impl Io {
    /// The handle of the loop behind `reactor`. Panics if it has none, as the simulated one.
    pub fn of(reactor: &Reactor) -> Io {
        let ops = reactor.ops().as_any().downcast_ref::<LoopOps>();
        ops.expect("this reactor has no kernel I/O: it is a simulated one")
            .io()
            .clone()
    }

    /// Takes over a connected stream socket.
    pub fn stream(&self, fd: OwnedFd) -> io::Result<Stream> {
        Stream::new(&self.0, fd, None)
    }

    /// Takes over two descriptors, one to receive from and one to send to: pipes, terminals,
    /// files. A socket may stand on both sides.
    pub fn stream_pair(&self, recv: OwnedFd, send: OwnedFd) -> io::Result<Stream> {
        Stream::new(&self.0, recv, Some(send))
    }

    /// Waits until a descriptor is readable: signalfd, pidfd, inotify, a listening socket.
    pub async fn readable(&self, fd: &Arc<OwnedFd>) -> io::Result<()> {
        let (_, result) = self.begin(Op::Readable(fd.clone())).await;
        sys::check(result).map(drop)
    }

    /// Waits until a descriptor is writable.
    ///
    /// # Errors
    /// What the system says.
    pub async fn writable(&self, fd: &Arc<OwnedFd>) -> io::Result<()> {
        let (_, result) = self.begin(Op::Writable(fd.clone())).await;
        sys::check(result).map(drop)
    }

    /// Waits until the descriptor is readable, then reads once. For small things: a signalfd,
    /// inotify, a pipe with a line in it.
    pub async fn read_fd(&self, fd: &Arc<OwnedFd>, buf: &mut [u8]) -> io::Result<usize> {
        self.readable(fd).await?;
        Ok(rustix::io::read(fd.as_fd(), buf)?)
    }

    /// Cuts the loop's chunks from `bytes` of memory registered with its ring, which makes
    /// O_DIRECT cheaper. Takes effect for chunks that are made from now on. Fails, and changes
    /// nothing, on the poll driver and where RLIMIT_MEMLOCK is too low.
    pub fn register_memory(&self, bytes: usize) -> io::Result<()> {
        let Driver::Uring(uring) = &self.0.driver else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let memory = Registered::new(bytes)?;
        uring.register(&memory)?;
        self.0.chunks().set_arena(Box::new(memory));
        Ok(())
    }

    /// Watches a descriptor, from now on.
    pub(crate) fn watch(&self, fd: Arc<OwnedFd>) -> Watch {
        Watch {
            key: self.0.begin(Op::Watch(fd)),
            io: self.0.clone(),
        }
    }

    pub(crate) fn begin(&self, op: Op) -> OpFuture {
        OpFuture {
            key: self.0.begin(op),
            io: self.0.clone(),
            fresh: true,
        }
    }
}

impl IoInner {
    pub(crate) fn new(driver: Driver, patient: bool) -> IoInner {
        IoInner {
            patient,
            driver,
            table: RefCell::default(),
            chunks: OnceCell::new(),
            ops: Cell::new(0),
            hurry: Cell::new(false),
            closed: Cell::new(false),
            instant: Cell::new(0),
        }
    }

    pub(crate) fn chunks(&self) -> &ChunkPool {
        self.chunks.get().expect("set when the loop was made")
    }

    /// Begins an operation: from now on the table owns it.
    pub(crate) fn begin(&self, op: Op) -> Key {
        self.ops.set(self.ops.get() + 1);
        let key = self.table.borrow_mut().insert(op).0;
        self.start(key);
        key
    }

    /// A stream is ready: what waited for it is tried again.
    pub(crate) fn retry(&self, key: Key) {
        self.start(key);
    }

    /// Hands an operation to the driver, for the first time or for what is left of it.
    fn start(&self, key: Key) {
        let instant = {
            let mut table = self.table.borrow_mut();
            let Some(slot) = table.get(key) else { return };
            match &self.driver {
                _ if self.closed.get() => Some(-libc::ECANCELED),
                Driver::Uring(uring) => uring.start(key, slot),
                Driver::Poll(poller) => poller.start(key, slot),
            }
        };
        if let Some(result) = instant {
            self.complete(key, result);
        }
    }

    /// A watch that goes on has something to tell. False if this is no watch.
    pub(crate) fn fired(&self, key: Key) -> bool {
        let waker = {
            let mut table = self.table.borrow_mut();
            let Some(slot) = table.get(key) else {
                return false;
            };
            if !matches!(slot.op, Some(Op::Watch(_))) {
                return false;
            }
            slot.fired = true;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// The driver is done with an operation.
    pub(crate) fn complete(&self, key: Key, result: i32) {
        let next = {
            let mut table = self.table.borrow_mut();
            let Some(slot) = table.get(key) else { return };
            let orphan = slot.state == State::Orphan;
            let next = match slot.op.as_mut() {
                Some(Op::Send(sock, batch)) => sock.sent(batch, &mut slot.silent, result),
                Some(Op::Fill(_, iov, at)) if !orphan => Sock::filled(iov, at, result),
                Some(Op::File(file)) => file.advance(result),
                Some(_) if !orphan && (result == -libc::EINTR || result == -libc::EAGAIN) => {
                    Step::Again
                }
                _ => Step::Done(result),
            };
            match next {
                Step::Again => None,
                Step::Done(result) if matches!(slot.op, Some(Op::Send(..) | Op::File(_))) => {
                    Some((table.remove(key), result))
                }
                Step::Done(_) if orphan => Some((table.remove(key), 0)),
                Step::Done(result) => {
                    slot.result = result;
                    slot.state = State::Done;
                    let waker = slot.waker.take();
                    drop(table);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    return;
                }
            }
        };
        match next {
            None => self.start(key),
            Some((Some(Op::Send(sock, batch)), result)) => sock.sent_all(batch, result),
            Some((Some(Op::File(file)), result)) => file.finish(result),
            // Whatever an orphan owned is dropped here, with the table free.
            Some((op, _)) => drop(op),
        }
    }

    /// A future is gone: its operation goes on alone, or is ended.
    fn abandon(&self, key: Key) {
        let mut table = self.table.borrow_mut();
        let Some(slot) = table.get(key) else { return };
        let gone = match &self.driver {
            _ if slot.state == State::Done => true,
            Driver::Uring(uring) => {
                uring.cancel(key);
                false
            }
            Driver::Poll(poller) => poller.cancel(key, slot),
        };
        let op = if gone {
            table.remove(key)
        } else {
            slot.state = State::Orphan;
            slot.waker = None;
            None
        };
        drop(table);
        drop(op);
    }

    /// Operations the kernel or a pool has, and how many of them are not cancelled by wishing.
    pub(crate) fn pending(&self) -> (usize, usize) {
        let table = self.table.borrow();
        table.pending().fold((0, 0), |(all, work), (_, slot)| {
            let works = matches!(slot.op, Some(Op::Send(..) | Op::File(_)));
            (all + 1, work + usize::from(works))
        })
    }

    /// Nothing is begun any more, and what waits is cancelled.
    pub(crate) fn cancel_all(&self) {
        self.closed.set(true);
        let keys: Vec<Key> = self.table.borrow().pending().map(|(key, _)| key).collect();
        for key in keys {
            let mut table = self.table.borrow_mut();
            let Some(slot) = table.get(key) else { continue };
            let gone = match &self.driver {
                Driver::Uring(uring) => {
                    uring.cancel(key);
                    false
                }
                Driver::Poll(poller) => poller.cancel(key, slot),
            };
            drop(table);
            if gone {
                self.complete(key, -libc::ECANCELED);
            }
        }
    }

    /// Takes what the driver has to tell. Returns how many operations it ended.
    pub(crate) fn reap(&self) -> usize {
        self.instant.set(0);
        match &self.driver {
            Driver::Uring(uring) => uring.reap(self),
            Driver::Poll(poller) => poller.reap(self),
        }
    }
}

/// What follows a result.
pub(crate) enum Step {
    /// It is not finished: it goes to the driver once more.
    Again,
    /// It is finished, with this result.
    Done(i32),
}

/// Tells each time a descriptor becomes readable. Dropped, it ends.
pub(crate) struct Watch {
    key: Key,
    io: Rc<IoInner>,
}

impl Watch {
    /// Ready if that has happened since this was ready last. `Ok(false)` if the watch has ended with
    /// it: there are files that nobody can watch for long.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut table = self.io.table.borrow_mut();
        let slot = table.get(self.key).expect("a watch that has not ended");
        if slot.state == State::Done {
            return Poll::Ready(sys::check(slot.result).map(|_| false));
        }
        if std::mem::take(&mut slot.fired) {
            return Poll::Ready(Ok(true));
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.io.abandon(self.key);
    }
}

/// Waits for an operation. Dropped, it cancels the operation, whose result nobody gets.
pub(crate) struct OpFuture {
    key: Key,
    io: Rc<IoInner>,
    fresh: bool,
}

impl Future for OpFuture {
    type Output = (Op, i32);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Op, i32)> {
        let fresh = std::mem::take(&mut self.fresh);
        let mut table = self.io.table.borrow_mut();
        let slot = table.get(self.key);
        let slot = slot.expect("an operation's future is polled until it is ready");
        if slot.state != State::Done {
            match &mut slot.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => slot.waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        if fresh {
            let instant = self.io.instant.get() + 1;
            self.io.instant.set(instant);
            if instant > INSTANT_PER_TURN {
                drop(table);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let result = slot.result;
        let op = table.remove(self.key).expect("it holds its operation");
        drop(table);
        Poll::Ready((op, result))
    }
}

impl Drop for OpFuture {
    fn drop(&mut self) {
        // Without effect once it was ready: the slot's generation, or its state, is another.
        self.io.abandon(self.key);
    }
}
