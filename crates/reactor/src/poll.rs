//! The epoll driver (epoll(7)): for hosts that forbid io_uring, as many containers do.
//!
//! Sockets are tried at once and waited for when they refuse; a stream is registered once, edge
//! triggered, for both directions. What is known of its readiness is kept, so that a receive on an
//! empty socket costs no call before its wait. Files that are not in memory go to the blocking
//! pool; results come back in a batch and are treated as the ring's are.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::{Rc, Weak},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use block::{Inbox, Pool};
use rustix::{
    event::{Timespec, epoll},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    },
};

use crate::{
    file::{self, FileOp, FileVerb},
    io::IoInner,
    pools::Pools,
    stream::Sock,
    sys,
    table::{Key, Op, Slot},
    uring::Limit,
    wake::Parker,
};

pub(crate) struct Poller {
    epoll: OwnedFd,
    parker: Arc<Parker>,
    pools: Pools,
    inbox: Arc<Inbox>,
    streams: RefCell<Streams>,
    /// Descriptors that are waited for once: our own duplicates, so that one may be waited for
    /// more than once at a time.
    waited: RefCell<HashMap<u64, OwnedFd>>,
    events: RefCell<Vec<epoll::Event>>,
    results: Arc<Mutex<Vec<(u64, i32)>>>,
    batch: RefCell<Vec<(u64, i32)>>,
    timer: RefCell<Option<OwnedFd>>,
    armed: Cell<u64>,
    pub(crate) enters: Cell<u64>,
}

#[derive(Default)]
struct Streams {
    list: Vec<Option<Weak<Sock>>>,
    free: Vec<usize>,
}

/// What an event's data says beside a key: the top two bits of a key are clear.
const STREAM: u64 = 1 << 62;
const WAKE: u64 = 2 << 62;
const TIMER: u64 = WAKE + 1;

/// Events taken per turn.
const EVENTS: usize = 256;

impl Poller {
    pub(crate) fn new(pools: Pools, inbox: Arc<Inbox>, parker: Arc<Parker>) -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, parker.fd(), epoll::EventData::new_u64(WAKE), flags)?;
        Ok(Poller {
            epoll,
            parker,
            pools,
            inbox,
            streams: RefCell::default(),
            waited: RefCell::default(),
            events: RefCell::new(Vec::with_capacity(EVENTS)),
            results: Arc::default(),
            batch: RefCell::default(),
            timer: RefCell::default(),
            armed: Cell::new(u64::MAX),
            enters: Cell::new(0),
        })
    }

    pub(crate) fn raw(&self) -> std::os::fd::RawFd {
        self.epoll.as_raw_fd()
    }

    /// Watches a stream from now until [`Poller::remove`].
    pub(crate) fn add(&self, sock: &Rc<Sock>) -> io::Result<()> {
        let ready = &sock.ready;
        ready.readable.set(true);
        ready.writable.set(true);
        let token = {
            let mut streams = self.streams.borrow_mut();
            let token = streams.free.pop().unwrap_or(streams.list.len());
            if token == streams.list.len() {
                streams.list.push(None);
            }
            streams.list[token] = Some(Rc::downgrade(sock));
            token
        };
        ready.token.set(Some(token));
        let data = || epoll::EventData::new_u64(STREAM | token as u64);
        use epoll::EventFlags as Flags;
        let both = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        for fd in sock.descriptors() {
            match epoll::add(&self.epoll, fd, data(), both) {
                // A file never makes anybody wait. A descriptor that stands on both sides is
                // watched already.
                Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn remove(&self, sock: &Sock) {
        let Some(token) = sock.ready.token.take() else {
            return;
        };
        for fd in sock.descriptors() {
            // A file was never watched.
            let _ = epoll::delete(&self.epoll, fd);
        }
        let mut streams = self.streams.borrow_mut();
        streams.list[token] = None;
        streams.free.push(token);
    }

    /// Tries an operation. A result, if there is one at once.
    pub(crate) fn start(&self, key: Key, slot: &mut Slot) -> Option<i32> {
        use epoll::EventFlags as Flags;
        match slot.op.as_mut().expect("an operation that is started") {
            Op::Recv(sock, buf) => {
                let (ptr, len) = (buf.spare_ptr(), buf.room());
                receive(key, sock, len, |sock| {
                    if sock.recv_is_socket() {
                        // SAFETY: the buffer's spare room, which the operation owns.
                        return unsafe { sys::recv(sock.recv_raw(), ptr, len, libc::MSG_DONTWAIT) };
                    }
                    let range = libc::iovec {
                        iov_base: ptr.cast(),
                        iov_len: len,
                    };
                    // SAFETY: as above.
                    unsafe { sys::readv(sock.recv_raw(), &[range], None, 0) }
                })
            }
            Op::Fill(sock, iov, at) => {
                file::ranges(iov, *at, &mut slot.iov);
                let ranges = &mut slot.iov;
                receive(key, sock, iov.len() - *at, |sock| {
                    // SAFETY: ranges of the buffer, which the operation owns.
                    unsafe {
                        if sock.recv_is_socket() {
                            sys::recvmsg(sock.recv_raw(), ranges, libc::MSG_DONTWAIT)
                        } else {
                            sys::readv(sock.recv_raw(), ranges, None, 0)
                        }
                    }
                })
            }
            Op::Send(sock, batch) => {
                batch.window(&mut slot.iov);
                transmit(key, sock, &mut slot.iov)
            }
            Op::Readable(fd) => self.wait_for(key, fd, Flags::IN | Flags::ONESHOT),
            Op::Writable(fd) => self.wait_for(key, fd, Flags::OUT | Flags::ONESHOT),
            Op::Watch(fd) => self.wait_for(key, fd, Flags::IN | Flags::ET),
            Op::File(op) => self.offload(key, op),
        }
    }

    /// Gives an operation up. Says whether it is gone; a pool's thread does not give up.
    pub(crate) fn cancel(&self, key: Key, slot: &mut Slot) -> bool {
        match slot.op.as_ref() {
            Some(Op::Recv(sock, _) | Op::Fill(sock, ..)) => {
                sock.ready.recv.set(None);
                true
            }
            Some(Op::Send(sock, _)) => {
                sock.ready.send.set(None);
                true
            }
            Some(Op::Readable(_) | Op::Writable(_) | Op::Watch(_)) => {
                self.forget(key);
                true
            }
            Some(Op::File(_)) | None => false,
        }
    }

    /// Makes the epoll descriptor readable when `at` comes, on the reactor's clock, now `now`.
    pub(crate) fn arm(&self, now: u64, at: u64) {
        if self.armed.get() <= at {
            return;
        }
        let mut timer = self.timer.borrow_mut();
        if timer.is_none() {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let made = timerfd_create(TimerfdClockId::Monotonic, flags).and_then(|fd| {
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(TIMER), flags)?;
                Ok(fd)
            });
            // Out of descriptors: the next turn tries again.
            *timer = made.ok();
        }
        let Some(fd) = timer.as_ref() else { return };
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = Itimerspec {
            it_interval: zero,
            // All zero would disarm it.
            it_value: timespec(Duration::from_nanos(at.saturating_sub(now).max(1))),
        };
        if timerfd_settime(fd, TimerfdTimerFlags::empty(), &time).is_ok() {
            self.armed.set(at);
        }
    }

    /// Waits for events, and notes them.
    pub(crate) fn enter(&self, limit: Limit) {
        let timeout = match limit {
            Limit::Nothing => Some(timespec(Duration::ZERO)),
            Limit::For(time) => Some(timespec(time)),
            Limit::Forever => None,
        };
        self.enters.set(self.enters.get() + 1);
        let mut events = self.events.borrow_mut();
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        // A signal is as good a reason to begin a turn as an event.
        let _ = epoll::wait(&self.epoll, spare, timeout.as_ref());
    }

    /// Handles events and what the pool has done.
    pub(crate) fn reap(&self, io: &IoInner) -> usize {
        let mut events = std::mem::take(&mut *self.events.borrow_mut());
        let n = events.len();
        for event in events.drain(..) {
            match event.data.u64() {
                WAKE => self.parker.drain(),
                TIMER => self.armed.set(u64::MAX),
                stream if stream & STREAM != 0 => {
                    self.stream_event(io, (stream & !STREAM) as usize, event.flags);
                }
                key if io.fired(Key(key)) => {}
                key => {
                    self.forget(Key(key));
                    io.complete(Key(key), 0);
                }
            }
        }
        *self.events.borrow_mut() = events;
        n + self.take_results(io)
    }

    /// Is there something to reap without waiting?
    pub(crate) fn has_completions(&self) -> bool {
        !self.events.borrow().is_empty() || !self.results().is_empty()
    }

    fn stream_event(&self, io: &IoInner, token: usize, flags: epoll::EventFlags) {
        let sock = self.streams.borrow().list.get(token).cloned().flatten();
        let Some(sock) = sock.and_then(|weak| weak.upgrade()) else {
            return;
        };
        use epoll::EventFlags as Flags;
        let ready = &sock.ready;
        if flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR) {
            ready.hung_up.set(true);
        }
        if flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR) {
            ready.readable.set(true);
            if let Some(key) = ready.recv.take() {
                io.retry(key);
            }
        }
        if flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR) {
            ready.writable.set(true);
            if let Some(key) = ready.send.take() {
                io.retry(key);
            }
        }
    }

    fn take_results(&self, io: &IoInner) -> usize {
        let mut batch = std::mem::take(&mut *self.batch.borrow_mut());
        std::mem::swap(&mut batch, &mut *self.results());
        let n = batch.len();
        for (key, result) in batch.drain(..) {
            io.complete(Key(key), result);
        }
        *self.batch.borrow_mut() = batch;
        n
    }

    fn results(&self) -> std::sync::MutexGuard<'_, Vec<(u64, i32)>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the descriptor is ready; the result, if that failed at once.
    fn wait_for(&self, key: Key, fd: &OwnedFd, flags: epoll::EventFlags) -> Option<i32> {
        let add = || -> io::Result<()> {
            let own = fd.try_clone()?;
            let data = epoll::EventData::new_u64(key.0);
            epoll::add(&self.epoll, own.as_fd(), data, flags)?;
            self.waited.borrow_mut().insert(key.0, own);
            Ok(())
        };
        add()
            .err()
            .map(|error| -error.raw_os_error().unwrap_or(libc::EIO))
    }

    fn forget(&self, key: Key) {
        if let Some(fd) = self.waited.borrow_mut().remove(&key.0) {
            let _ = epoll::delete(&self.epoll, &fd);
        }
    }

    /// Gives file I/O to a thread of the pool.
    fn offload(&self, key: Key, op: &FileOp) -> Option<i32> {
        if !op.addressable() {
            return Some(-libc::ENOTSUP);
        }
        let mut ranges = Vec::new();
        op.ranges(&mut ranges);
        let call = Call {
            fd: op.fd(),
            verb: op.verb(),
            rest: op.rest(),
            ranges,
        };
        let (results, inbox) = (self.results.clone(), self.inbox.clone());
        self.pools.run(Pool::Blocking, move || {
            let result = call.run();
            let mut list = results.lock().unwrap_or_else(PoisonError::into_inner);
            list.push((key.0, result));
            drop(list);
            inbox.wake();
        });
        None
    }
}

/// Tries to receive, unless the stream is known to be empty; if it has nothing, waits for it.
fn receive(key: Key, sock: &Rc<Sock>, len: usize, call: impl FnOnce(&Sock) -> i32) -> Option<i32> {
    let ready = &sock.ready;
    if ready.readable.get() {
        let result = call(sock);
        let short = usize::try_from(result).is_ok_and(|n| n < len) && sock.recv_is_socket();
        if result == -libc::EAGAIN || (short && !ready.hung_up.get()) {
            // Emptied: the next bytes make a new edge.
            ready.readable.set(false);
        }
        if result != -libc::EAGAIN {
            return Some(result);
        }
    }
    ready.recv.set(Some(key));
    None
}

fn transmit(key: Key, sock: &Rc<Sock>, iov: &mut [libc::iovec]) -> Option<i32> {
    let ready = &sock.ready;
    if ready.writable.get() {
        // SAFETY: ranges of the batch, which the operation owns.
        let result = unsafe {
            if sock.send_is_socket() {
                sys::sendmsg(sock.send_raw(), iov, libc::MSG_DONTWAIT)
            } else {
                sys::writev(sock.send_raw(), iov, None, 0)
            }
        };
        if result != -libc::EAGAIN {
            return Some(result);
        }
        ready.writable.set(false);
    }
    ready.send.set(Some(key));
    None
}

/// One system call on a pool's thread.
struct Call {
    fd: std::os::fd::RawFd,
    verb: FileVerb,
    rest: (u64, u64),
    ranges: Vec<libc::iovec>,
}

// SAFETY: the ranges are raw memory of a request that the operation table keeps until this call has
// reported, and leaks if the loop ends before; nobody else works on them meanwhile.
unsafe impl Send for Call {}

impl Call {
    fn run(self) -> i32 {
        let (fd, (at, len)) = (self.fd, self.rest);
        match self.verb {
            // SAFETY: see `Send`.
            FileVerb::Read => unsafe { sys::readv(fd, &self.ranges, Some(at), 0) },
            FileVerb::Write { dsync } => {
                let flags = if dsync { libc::RWF_DSYNC } else { 0 };
                // SAFETY: see `Send`.
                unsafe { sys::writev(fd, &self.ranges, Some(at), flags) }
            }
            FileVerb::DataSync => sys::fdatasync(fd),
            FileVerb::Fallocate { mode } => sys::fallocate(fd, mode, at, len),
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}
