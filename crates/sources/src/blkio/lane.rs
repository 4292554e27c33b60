//! One reactor's queue of the disk: requests out, completions in. An island of `unsafe`: addresses of a
//! request's memory go to the driver, and the table holds the request until its completion has come.
//!
//! What a turn gathered is submitted at its end, by one call. The queue's descriptor is readable when
//! there are completions; they are fetched in batches.
#![allow(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use ::blkio::{Completion, Queue, flags};
use block::{
    Data, Doorbell, Errno, Error, ExtentFlags, Flags, Op, Pool, Reactor, Request, Result,
    SharedMem, data::Chunk,
};
use reactor::Io;

use super::{
    arena::{self, Arena, Piece},
    instance::Instance,
};
use crate::{file::extents, null};

/// See the [module](self).
pub(super) struct Lane {
    reactor: Reactor,
    instance: Arc<Instance>,
    /// Its index.
    index: usize,
    // Before what its requests use.
    inner: RefCell<Inner>,
    /// The bell will ring at the end of this turn.
    rung: Cell<bool>,
    /// Somebody looks after the backlog.
    patient: Cell<bool>,
}

struct Inner {
    // Before the table: dropped, it waits until nothing uses the memory of requests.
    queue: Box<Queue>,
    table: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// Requests that wait for memory, in order.
    backlog: VecDeque<Request>,
    arena: Arena,
    completions: Vec<Completion>,
}

/// A request on its way, and the memory that it uses there.
struct Flight {
    request: Request,
    memory: Memory,
}

enum Memory {
    /// None, or the request's own.
    Own,
    /// A chunk of the reactor, for a read whose bytes may be anywhere.
    Chunk(Chunk),
    /// A piece that the disk can reach.
    Piece(Piece),
}

/// Completions that are fetched at once.
const BATCH: usize = 128;

/// How long memory is waited for before it is looked for again.
const PAUSE: Duration = Duration::from_millis(1);

impl Lane {
    /// The queue, on this reactor from now on.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn start(
        reactor: &Reactor,
        instance: Arc<Instance>,
        index: usize,
        mut queue: Box<Queue>,
    ) -> Result<Rc<Lane>> {
        // SAFETY: the queue's, which is here; only copied.
        let fd = unsafe { BorrowedFd::borrow_raw(queue.completion_fd()) };
        let cannot = |error| Error::io("cannot wait for the disk", error);
        let fd = Arc::new(fd.try_clone_to_owned().map_err(cannot)?);
        queue.set_completion_fd_enabled(true);
        let lane = Rc::new(Lane {
            reactor: reactor.clone(),
            inner: RefCell::new(Inner {
                queue,
                table: Vec::new(),
                free: Vec::new(),
                backlog: VecDeque::new(),
                arena: Arena::new(instance.clone()),
                completions: vec![Completion::default(); BATCH],
            }),
            instance,
            index,
            rung: Cell::new(false),
            patient: Cell::new(false),
        });
        reactor.spawn(listen(reactor.clone(), fd, Rc::downgrade(&lane)));
        Ok(lane)
    }

    /// Takes a request.
    pub fn submit(self: &Rc<Self>, request: Request) {
        let op = request.op();
        if !self.instance.limits.offered().contains(op) {
            return request.fail(Errno::ENOTSUP);
        }
        if op.has_range() && request.len() == 0 {
            return request.done();
        }
        if op == Op::Extents {
            return self.extents(request);
        }
        let mut inner = self.inner.borrow_mut();
        if inner.backlog.is_empty() {
            if let Err(request) = inner.begin(&self.reactor, &self.instance, request) {
                inner.backlog.push_back(request);
            }
        } else {
            inner.backlog.push_back(request);
        }
        let waits = !inner.backlog.is_empty();
        drop(inner);
        if waits {
            self.be_patient();
        }
        if !self.rung.replace(true) {
            self.reactor.at_end_of_turn(self.clone());
        }
    }

    /// Where the holes are: of a file; another disk has none that we know of.
    fn extents(&self, request: Request) {
        let Some(file) = self.instance.file.clone() else {
            return null::give_extents(request, ExtentFlags::DATA);
        };
        let block = u64::from(self.instance.limits.min_block);
        let mut remote = request.into_remote(self.reactor.inbox());
        self.reactor.offload(Pool::Blocking, move || {
            let one = remote.flags().contains(Flags::REQ_ONE);
            let range = (remote.offset(), remote.len());
            let found = extents::find(file.as_fd(), block, range, one, &|| ());
            let outcome = found.map(|list| remote.give_extents(list));
            remote.complete(outcome);
        });
    }

    /// Submits what is there, and answers what has completed.
    fn turn(&self) {
        loop {
            let mut inner = self.inner.borrow_mut();
            let Inner {
                queue, completions, ..
            } = &mut *inner;
            let count = match queue.do_io(completions, 0, None, None) {
                Ok(count) => count,
                Err(error) => {
                    tracing::warn!("the disk's queue: {error}");
                    return;
                }
            };
            for at in 0..count {
                let completion = inner.completions[at];
                if let Some(flight) = inner.land(completion.user_data()) {
                    flight.end(&self.instance, &completion);
                }
            }
            let begun = inner.catch_up(&self.reactor, &self.instance);
            if count < BATCH && !begun {
                return;
            }
        }
    }

    /// Looks for memory from time to time, as long as requests wait for it.
    fn be_patient(self: &Rc<Self>) {
        if self.patient.replace(true) {
            return;
        }
        let weak = Rc::downgrade(self);
        let reactor = self.reactor.clone();
        self.reactor.spawn(async move {
            loop {
                reactor.sleep(PAUSE).await;
                let Some(lane) = weak.upgrade() else { return };
                lane.turn();
                if lane.inner.borrow().backlog.is_empty() {
                    lane.patient.set(false);
                    return;
                }
            }
        });
    }
}

impl Doorbell for Lane {
    fn ring(&self) {
        self.rung.set(false);
        self.turn();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.instance.queue_ended(self.index);
    }
}

/// Wakes with the queue's descriptor, until the lane has gone.
async fn listen(reactor: Reactor, fd: Arc<OwnedFd>, lane: Weak<Lane>) {
    let io = Io::of(&reactor);
    loop {
        if let Err(error) = io.readable(&fd).await {
            if error.raw_os_error() != Some(Errno::ECANCELED.get()) {
                tracing::warn!("the disk's queue cannot be waited for: {error}");
            }
            return;
        }
        let Some(lane) = lane.upgrade() else { return };
        // Somebody else may have been faster: there is no harm in that.
        let _ = rustix::io::read(&*fd, &mut [0; 8]);
        lane.turn();
    }
}

impl Inner {
    /// Hands a request to the driver. It comes back if there is no memory now.
    fn begin(
        &mut self,
        reactor: &Reactor,
        instance: &Arc<Instance>,
        request: Request,
    ) -> std::result::Result<(), Request> {
        let len = request.len() as usize;
        let transfers = matches!(request.op(), Op::Read | Op::Write);
        let memory = match request.data() {
            _ if !transfers => Memory::Own,
            _ if instance.needs_regions => match self.arena.take(len) {
                Some(piece) => Memory::Piece(piece),
                None => return Err(request),
            },
            Data::Iov(_) => Memory::Own,
            _ => Memory::Chunk(reactor.chunk(len)),
        };
        if let (Memory::Piece(piece), Op::Write, Data::Iov(iov)) =
            (&memory, request.op(), request.data())
        {
            arena::fill(piece, iov);
            let counter = &request.counters().bytes_copied;
            counter.set(counter.get() + len as u64);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.table.push(None);
            self.table.len() - 1
        });
        let flight = self.table[at].insert(Flight { request, memory });
        flight.submit(&mut self.queue, at);
        Ok(())
    }

    /// Begins what waited for memory. Whether any did.
    fn catch_up(&mut self, reactor: &Reactor, instance: &Arc<Instance>) -> bool {
        let mut begun = false;
        while let Some(request) = self.backlog.pop_front() {
            if let Err(request) = self.begin(reactor, instance, request) {
                self.backlog.push_front(request);
                break;
            }
            begun = true;
        }
        begun
    }

    fn land(&mut self, at: usize) -> Option<Flight> {
        let flight = self.table.get_mut(at)?.take()?;
        self.free.push(at);
        Some(flight)
    }
}

impl Flight {
    fn submit(&self, queue: &mut Queue, at: usize) {
        let (start, len) = (self.request.offset(), self.request.len());
        let has = |flag| self.request.flags().contains(flag);
        let fua = if has(Flags::FUA) { flags::FUA } else { 0 };
        match self.request.op() {
            Op::Read | Op::Write => self.transfer(queue, at, fua),
            Op::WriteZeroes => {
                let keep = if has(Flags::NO_HOLE) {
                    flags::NO_UNMAP
                } else {
                    0
                };
                queue.write_zeroes(start, len, at, fua | keep);
            }
            Op::Discard => queue.discard(start, len, at, 0),
            _ => queue.flush(at, 0),
        }
    }

    fn transfer(&self, queue: &mut Queue, at: usize, fua: u32) {
        let (start, len) = (self.request.offset(), self.request.len() as usize);
        let reads = self.request.op() == Op::Read;
        let iov = match (&self.memory, self.request.data()) {
            (Memory::Piece(piece), _) => {
                let address = arena::address(piece);
                return match reads {
                    // SAFETY: the piece is long enough, and this flight has it until the completion.
                    true => unsafe { queue.read(start, address, len, at, 0) },
                    // SAFETY: as above.
                    false => unsafe { queue.write(start, address, len, at, fua) },
                };
            }
            (Memory::Chunk(chunk), _) => {
                let address = SharedMem::of_chunk(chunk.clone(), len).as_ptr().cast_mut();
                // SAFETY: the chunk is long enough, and this flight has it until the completion.
                return unsafe { queue.read(start, address, len, at, 0) };
            }
            (Memory::Own, Data::Iov(iov)) => iov,
            (Memory::Own, _) => unreachable!("a write has bytes, and a read has a chunk"),
        };
        match iov.segments() {
            // SAFETY: the pin keeps the memory, and the table keeps the pin until the completion.
            [only] if reads => unsafe { queue.read(start, only.ptr, only.len, at, 0) },
            // SAFETY: as above.
            [only] => unsafe { queue.write(start, only.ptr, only.len, at, fua) },
            many => {
                let vector = many.as_ptr().cast();
                match reads {
                    // SAFETY: as above; `Segment` has the layout of an iovec, and the array is part of
                    // the request's body, which does not move.
                    true => unsafe { queue.readv(start, vector, many.len() as i32, at, 0) },
                    // SAFETY: as above.
                    false => unsafe { queue.writev(start, vector, many.len() as i32, at, fua) },
                }
            }
        }
    }

    /// Ends the request as the completion says.
    fn end(self, instance: &Instance, completion: &Completion) {
        let Flight { request, memory } = self;
        let (op, len) = (request.op(), request.len() as usize);
        let fua = request.flags().contains(Flags::FUA);
        let outcome = instance.judge(op, fua, completion);
        if outcome.is_err() || op != Op::Read {
            return request.complete(outcome);
        }
        match memory {
            Memory::Own => request.done(),
            Memory::Piece(piece) => request.give(arena::found(&piece, len)),
            Memory::Chunk(chunk) => request.give(SharedMem::of_chunk(chunk, len).into()),
        }
    }
}
