//! The io_uring driver (io_uring(7)).
//!
//! One io_uring_enter(2) per turn submits what the turn gathered and, when there is nothing left to
//! do, waits.
//!
//! *Silent sends.* A send to a socket is tried once, while it is submitted (MSG_DONTWAIT), and
//! reports only if not all of it went (IOSQE_CQE_SKIP_SUCCESS, Linux 5.17). When the enter returns,
//! every silent send that reported nothing has been done. So a reply does not end the wait for the
//! next request, and a round trip costs one system call. One that reports goes on as an ordinary
//! send, which waits in the kernel for room.
//!
//! *Flags.* A ring of a server's thread defers all work to the enter that asks for it
//! (SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN). One that may change threads has plain flags. What
//! an older kernel refuses is left out.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use io_uring::{
    IoUring, Parameters, cqueue, opcode,
    squeue::{self, Flags},
    types,
};

use crate::{
    file::{self, FileOp, FileVerb},
    io::IoInner,
    mapping::Registered,
    stream::Sock,
    sys,
    table::{Key, Op, Slot},
    wake::Parker,
};

pub(crate) struct Uring {
    // In this order: the ring goes first, because the kernel writes to what follows.
    ring: RefCell<IoUring>,
    parker: Arc<Parker>,
    /// Where the kernel puts the eventfd's count, and where a timer's time is.
    count: Box<Cell<u64>>,
    timer: Box<Cell<types::Timespec>>,
    /// When the armed timer goes off, on the reactor's clock.
    armed: Cell<u64>,
    silent: bool,
    /// Silent sends that the kernel has not seen, and that it has.
    queued: RefCell<Vec<Key>>,
    tried: RefCell<Vec<Key>>,
    files: RefCell<Files>,
    pub(crate) enters: Cell<u64>,
}

/// The ring's table of registered files.
#[derive(Default)]
struct Files {
    state: FilesState,
    free: Vec<u32>,
}

#[derive(Default, PartialEq, Eq)]
enum FilesState {
    #[default]
    Unknown,
    Ready,
    Refused,
}

const FILES: u32 = 256;

/// `user_data` of operations that are not in the table.
const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
const IGNORE: u64 = u64::MAX - 2;

/// IORING_RECVSEND_POLL_FIRST (io_uring_enter(2)).
const POLL_FIRST: u16 = 1;

/// IORING_ENTER_GETEVENTS and IORING_ENTER_EXT_ARG (io_uring_enter(2)).
const GETEVENTS: u32 = 1;
const EXT_ARG: u32 = 8;

/// How long an enter may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Nothing,
    For(Duration),
    Forever,
}

impl Uring {
    /// Sets a ring up. `owned`: only this thread will ever use it.
    pub(crate) fn new(entries: u32, owned: bool, parker: Arc<Parker>) -> io::Result<Uring> {
        let ring = set_up(entries, owned)?;
        let parameters: &Parameters = ring.params();
        if !(parameters.is_feature_ext_arg()
            && parameters.is_feature_nodrop()
            && parameters.is_feature_submit_stable()
            && parameters.is_feature_fast_poll())
        {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let uring = Uring {
            silent: parameters.is_feature_skip_cqe_on_success(),
            ring: RefCell::new(ring),
            parker,
            count: Box::default(),
            timer: Box::new(Cell::new(types::Timespec::new())),
            armed: Cell::new(u64::MAX),
            queued: RefCell::default(),
            tried: RefCell::default(),
            files: RefCell::default(),
            enters: Cell::new(0),
        };
        uring.listen();
        Ok(uring)
    }

    /// The ring's descriptor: readable when completions wait.
    pub(crate) fn raw(&self) -> RawFd {
        self.ring.borrow().as_raw_fd()
    }

    /// Puts an operation on the ring.
    pub(crate) fn start(&self, key: Key, slot: &mut Slot) -> Option<i32> {
        let op = slot.op.as_ref().expect("an operation that is started");
        let entry = match op {
            Op::Recv(sock, buf) => {
                let (fd, len) = (
                    types::Fd(sock.recv_raw()),
                    buf.room().min(sys::MAX_RW) as u32,
                );
                if sock.recv_is_socket() {
                    let first = if sock.drained.get() { POLL_FIRST } else { 0 };
                    opcode::Recv::new(fd, buf.spare_ptr(), len)
                        .ioprio(first)
                        .build()
                } else {
                    opcode::Read::new(fd, buf.spare_ptr(), len)
                        .offset(u64::MAX)
                        .build()
                }
            }
            Op::Fill(sock, iov, at) => {
                file::ranges(iov, *at, &mut slot.iov);
                fill(sock, &mut slot.iov, &mut slot.msg)
            }
            Op::Send(sock, batch) => {
                let bytes = batch.window(&mut slot.iov);
                let whole = bytes as u64 == batch.len();
                slot.silent = self.may_be_silent(sock, whole);
                send(sock, &mut slot.iov, &mut slot.msg, slot.silent)
            }
            Op::Readable(fd) => {
                opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32).build()
            }
            Op::Writable(fd) => {
                opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLOUT as u32).build()
            }
            // One entry for many completions, one at each edge.
            Op::Watch(fd) => opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32)
                .multi(true)
                .build(),
            Op::File(op) => file_entry(op, &mut slot.iov),
        };
        self.push(entry.user_data(key.0));
        if slot.silent {
            // Only now: a full queue was submitted just before, without this one.
            self.queued.borrow_mut().push(key);
        }
        None
    }

    /// Asks the kernel to give an operation up. It reports in any case.
    pub(crate) fn cancel(&self, key: Key) {
        self.push(opcode::AsyncCancel::new(key.0).build().user_data(IGNORE));
    }

    /// Makes the ring readable when `at` comes, on the reactor's clock, where it is `now`.
    pub(crate) fn arm(&self, now: u64, at: u64) {
        if self.armed.get() <= at {
            return;
        }
        self.armed.set(at);
        let wait = Duration::from_nanos(at.saturating_sub(now));
        self.timer.set(wait.into());
        // The kernel reads the time when it takes the entry, so one place is enough.
        self.submit();
        let timer = opcode::Timeout::new(self.timer.as_ptr()).build();
        self.push(timer.user_data(TIMER));
        self.submit();
    }

    /// Registers memory as buffer 0.
    pub(crate) fn register(&self, memory: &Registered) -> io::Result<()> {
        // SAFETY: the kernel pins the pages itself; the range is valid now.
        unsafe {
            self.ring
                .borrow()
                .submitter()
                .register_buffers(&[memory.range()])
        }
    }

    /// Registers a file; `None` where that is not to be had.
    pub(crate) fn register_file(&self, fd: RawFd) -> Option<u32> {
        let mut files = self.files.borrow_mut();
        let ring = self.ring.borrow();
        if files.state == FilesState::Unknown {
            let made = ring.submitter().register_files_sparse(FILES).is_ok();
            files.state = if made {
                FilesState::Ready
            } else {
                FilesState::Refused
            };
            files.free = if made {
                (0..FILES).rev().collect()
            } else {
                Vec::new()
            };
        }
        let index = files.free.pop()?;
        if ring.submitter().register_files_update(index, &[fd]).is_ok() {
            return Some(index);
        }
        files.free.push(index);
        None
    }

    pub(crate) fn unregister_file(&self, index: u32) {
        let ring = self.ring.borrow();
        if ring.submitter().register_files_update(index, &[-1]).is_ok() {
            self.files.borrow_mut().free.push(index);
        }
    }

    /// Gives what is queued to the kernel, without waiting.
    pub(crate) fn submit(&self) {
        self.enter(Limit::Nothing);
    }

    /// Gives what is queued to the kernel, and waits for a completion.
    pub(crate) fn enter(&self, limit: Limit) {
        let mut ring = self.ring.borrow_mut();
        let submission = ring.submission();
        let (queued, owed) = (
            submission.len(),
            submission.taskrun() || submission.cq_overflow(),
        );
        drop(submission);
        if limit == Limit::Nothing && queued == 0 && !owed {
            return;
        }
        self.enters.set(self.enters.get() + 1);
        let waits = u32::from(limit != Limit::Nothing);
        let flags = if waits == 1 || owed { GETEVENTS } else { 0 };
        let result = match limit {
            Limit::For(time) => {
                let time = types::Timespec::from(time);
                let args = types::SubmitArgs::new().timespec(&time);
                // SAFETY: EXT_ARG says what the argument is, and it lives until the call returns.
                unsafe {
                    let submitter = ring.submitter();
                    submitter.enter(queued as u32, waits, flags | EXT_ARG, Some(&args))
                }
            }
            // SAFETY: without an argument.
            _ => unsafe {
                let submitter = ring.submitter();
                submitter.enter::<libc::sigset_t>(queued as u32, waits, flags, None)
            },
        };
        // A timeout, a signal, or too many completions: each is a reason to begin a turn. What was
        // not taken stays queued for the next.
        drop(result);
        if ring.submission().is_empty() {
            self.tried
                .borrow_mut()
                .append(&mut self.queued.borrow_mut());
        }
    }

    /// Takes completions off the ring.
    pub(crate) fn reap(&self, io: &IoInner) -> usize {
        // Those the kernel saw before this look; what they have to report is there by now.
        let tried = std::mem::take(&mut *self.tried.borrow_mut());
        let mut ended = 0;
        loop {
            let mut batch = [const { std::mem::MaybeUninit::<cqueue::Entry>::uninit() }; 64];
            let (n, overflow) = {
                let mut ring = self.ring.borrow_mut();
                let overflow = ring.submission().cq_overflow();
                let n = ring.completion().fill(&mut batch).len();
                (n, overflow)
            };
            for entry in &batch[..n] {
                // SAFETY: `fill` has initialised that many.
                let entry = unsafe { entry.assume_init_ref() };
                ended += 1;
                match entry.user_data() {
                    WAKE => self.listen(),
                    TIMER => self.armed.set(u64::MAX),
                    IGNORE => {}
                    key if cqueue::more(entry.flags()) => drop(io.fired(Key(key))),
                    key => io.complete(Key(key), entry.result()),
                }
            }
            if n < batch.len() {
                if !overflow {
                    break;
                }
                self.submit();
            }
        }
        ended + self.settle(io, tried)
    }

    /// Completions are on the ring, which makes its descriptor readable.
    pub(crate) fn is_readable(&self) -> bool {
        !self.ring.borrow_mut().completion().is_empty()
    }

    /// Would a turn find something? In a hurry, a silent send that is still to be tried counts: it
    /// will not end a wait.
    pub(crate) fn has_completions(&self, hurry: bool) -> bool {
        self.is_readable()
            || !self.tried.borrow().is_empty()
            || (hurry && !self.queued.borrow().is_empty())
    }

    /// Silent sends that have not reported are done.
    fn settle(&self, io: &IoInner, mut tried: Vec<Key>) -> usize {
        let n = tried.len();
        if n > 0 {
            io.hurry.set(false);
        }
        for key in tried.drain(..) {
            let silent = io
                .table
                .borrow_mut()
                .get(key)
                .is_some_and(|slot| slot.silent);
            if silent {
                io.complete(key, i32::MAX);
            }
        }
        // Completing may have submitted more; the room goes round.
        let mut place = self.tried.borrow_mut();
        tried.append(&mut place);
        *place = tried;
        n
    }

    fn may_be_silent(&self, sock: &Sock, whole: bool) -> bool {
        let slow = sock.slow.get();
        sock.slow.set(slow.saturating_sub(1));
        self.silent && whole && slow == 0 && sock.send_is_socket()
    }

    /// Waits for the eventfd.
    fn listen(&self) {
        let fd = types::Fd(self.parker.raw());
        let read = opcode::Read::new(fd, self.count.as_ptr().cast(), 8).build();
        self.push(read.user_data(WAKE));
    }

    fn push(&self, entry: squeue::Entry) {
        loop {
            {
                let mut ring = self.ring.borrow_mut();
                // SAFETY: what the entry points to is in the operation table, or in `self`, and
                // stays there until the kernel reports.
                if unsafe { ring.submission().push(&entry) }.is_ok() {
                    return;
                }
            }
            self.submit();
        }
    }
}

/// Sets up a ring with the best flags the kernel takes.
fn set_up(entries: u32, owned: bool) -> io::Result<IoUring> {
    let mut last = io::Error::from_raw_os_error(libc::ENOSYS);
    for level in 0..3 {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_clamp()
            .setup_cqsize(entries.saturating_mul(4));
        if level < 2 {
            builder.setup_submit_all();
        }
        match level {
            0 if owned => {
                builder.setup_single_issuer().setup_defer_taskrun();
                builder.setup_taskrun_flag();
            }
            0 | 1 if owned => {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            _ => {}
        }
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn fill(sock: &Sock, iov: &mut [libc::iovec], msg: &mut libc::msghdr) -> squeue::Entry {
    let fd = types::Fd(sock.recv_raw());
    if !sock.recv_is_socket() {
        let read = opcode::Readv::new(fd, iov.as_ptr(), iov.len() as u32);
        return read.offset(u64::MAX).build();
    }
    if let [one] = iov {
        let recv = opcode::Recv::new(fd, one.iov_base.cast(), one.iov_len as u32);
        return recv.flags(libc::MSG_WAITALL).build();
    }
    *msg = sys::header(iov);
    opcode::RecvMsg::new(fd, msg)
        .flags(libc::MSG_WAITALL as u32)
        .build()
}

fn send(
    sock: &Sock,
    iov: &mut [libc::iovec],
    msg: &mut libc::msghdr,
    silent: bool,
) -> squeue::Entry {
    let fd = types::Fd(sock.send_raw());
    if !sock.send_is_socket() {
        let write = opcode::Writev::new(fd, iov.as_ptr(), iov.len() as u32);
        return write.offset(u64::MAX).build();
    }
    let mut flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    if silent {
        flags |= libc::MSG_DONTWAIT;
    }
    let entry = match iov {
        [one] => {
            let send = opcode::Send::new(fd, one.iov_base.cast_const().cast(), one.iov_len as u32);
            send.flags(flags).build()
        }
        _ => {
            *msg = sys::header(iov);
            opcode::SendMsg::new(fd, msg).flags(flags as u32).build()
        }
    };
    if silent {
        entry.flags(Flags::SKIP_SUCCESS)
    } else {
        entry
    }
}

fn file_entry(op: &FileOp, iov: &mut Vec<libc::iovec>) -> squeue::Entry {
    match op.registered() {
        Some(index) => file_entry_on(types::Fixed(index), op, iov),
        None => file_entry_on(types::Fd(op.fd()), op, iov),
    }
}

/// The crate's two kinds of descriptor have no common public type.
trait Descriptor {
    fn readv(self, iov: &[libc::iovec], at: u64) -> squeue::Entry;
    fn read(self, to: (*mut u8, u32), index: Option<u16>, at: u64) -> squeue::Entry;
    fn writev(self, iov: &[libc::iovec], at: u64, flags: i32) -> squeue::Entry;
    fn write(self, from: (*mut u8, u32), index: Option<u16>, at: u64, flags: i32) -> squeue::Entry;
    fn datasync(self) -> squeue::Entry;
    fn fallocate(self, mode: i32, at: u64, len: u64) -> squeue::Entry;
}

macro_rules! descriptor {
    ($($kind:ty),*) => {$(
        impl Descriptor for $kind {
            fn readv(self, iov: &[libc::iovec], at: u64) -> squeue::Entry {
                opcode::Readv::new(self, iov.as_ptr(), iov.len() as u32).offset(at).build()
            }

            fn read(self, to: (*mut u8, u32), index: Option<u16>, at: u64) -> squeue::Entry {
                match index {
                    Some(i) => opcode::ReadFixed::new(self, to.0, to.1, i).offset(at).build(),
                    None => opcode::Read::new(self, to.0, to.1).offset(at).build(),
                }
            }

            fn writev(self, iov: &[libc::iovec], at: u64, flags: i32) -> squeue::Entry {
                let write = opcode::Writev::new(self, iov.as_ptr(), iov.len() as u32);
                write.offset(at).rw_flags(flags).build()
            }

            fn write(
                self,
                from: (*mut u8, u32),
                index: Option<u16>,
                at: u64,
                flags: i32,
            ) -> squeue::Entry {
                match index {
                    Some(i) => {
                        let write = opcode::WriteFixed::new(self, from.0, from.1, i);
                        write.offset(at).rw_flags(flags).build()
                    }
                    None => {
                        let write = opcode::Write::new(self, from.0, from.1);
                        write.offset(at).rw_flags(flags).build()
                    }
                }
            }

            fn datasync(self) -> squeue::Entry {
                opcode::Fsync::new(self).flags(types::FsyncFlags::DATASYNC).build()
            }

            fn fallocate(self, mode: i32, at: u64, len: u64) -> squeue::Entry {
                opcode::Fallocate::new(self, len).offset(at).mode(mode).build()
            }
        }
    )*};
}

descriptor!(types::Fd, types::Fixed);

fn file_entry_on(fd: impl Descriptor, op: &FileOp, iov: &mut Vec<libc::iovec>) -> squeue::Entry {
    let (at, len) = op.rest();
    match op.verb() {
        FileVerb::Read => match op.single() {
            Some((ptr, len, index)) => fd.read((ptr, len as u32), index, at),
            None => {
                op.ranges(iov);
                fd.readv(iov, at)
            }
        },
        FileVerb::Write { dsync } => {
            let flags = if dsync { libc::RWF_DSYNC } else { 0 };
            match op.single() {
                Some((ptr, len, index)) => fd.write((ptr, len as u32), index, at, flags),
                None => {
                    op.ranges(iov);
                    fd.writev(iov, at, flags)
                }
            }
        }
        FileVerb::DataSync => fd.datasync(),
        FileVerb::Fallocate { mode } => fd.fallocate(mode, at, len),
    }
}
