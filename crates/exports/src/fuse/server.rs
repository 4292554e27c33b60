//! A mount: what all its descriptors share, and how one of them is served.

use std::{
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

use block::data::CHUNK_ALIGN;
use block::{Device, Errno, Error, ErrorKind, Normalize, Op, QueueExt, Reactor, RecvBuf, Result};
use reactor::{Packets, SendBatch};

use super::{
    machine::{Agreed, Machine},
    proto::WRITE_HEAD,
    session::{Answers, Session},
    view::{Disk, View},
};

/// Bounds of what one descriptor has in flight; what is beyond waits in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests.
    pub requests: u32,
    /// Bytes that are read or written.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            requests: 256,
            bytes: 32 << 20,
        }
    }
}

/// A mount of one device. Shared by all reactors.
pub struct Fuse {
    device: Arc<dyn Device>,
    view: View,
    bounds: Bounds,
    counters: Counters,
    /// Writes that were done, and how many of them a flush has covered.
    written: AtomicU64,
    durable: AtomicU64,
    /// The error of the first flush that failed.
    failed: AtomicI32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    agreed: Option<Agreed>,
    stopping: bool,
    seats: usize,
    waiting: Vec<Waker>,
}

/// Events counted since the start.
#[derive(Default)]
pub(super) struct Counters {
    pub answers: AtomicU64,
    pub errors: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a descriptor is served no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The file system was unmounted.
    Unmounted,
    /// [`Fuse::stop`] was called.
    Stopped,
}

impl Fuse {
    /// A mount of `device`, which takes any request its size allows from here on.
    pub fn new(device: Arc<dyn Device>, view: View, bounds: Bounds) -> Arc<Fuse> {
        Arc::new(Fuse {
            device: Normalize::wrap(device),
            view,
            bounds,
            counters: Counters::default(),
            written: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            failed: AtomicI32::new(0),
            state: Mutex::default(),
        })
    }

    /// A place for one more descriptor: [`Fuse::drained`] waits for it.
    pub fn join(self: &Arc<Fuse>) -> Seat {
        self.lock().seats += 1;
        Seat(self.clone())
    }
}

/// The right to serve one descriptor of a mount; counted.
pub struct Seat(Arc<Fuse>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.change(|state| state.seats -= 1);
    }
}

impl Seat {
    /// Serves one descriptor on this loop, until the file system is unmounted or [`Fuse::stop`] is
    /// called; what is in flight is answered then. Further descriptors of the mount are served once
    /// the first is [`Fuse::ready`].
    ///
    /// # Errors
    /// The descriptor cannot be read, or gives what is no FUSE packet.
    pub async fn serve(self, reactor: &Reactor, packets: Packets) -> Result<End> {
        let fuse = &self.0;
        let answers = Rc::new(Kernel(packets.clone()));
        let agreed = fuse.lock().agreed;
        let session = Session::new(fuse, reactor, answers, agreed)?;
        let end = {
            let mut stopped = pin!(fuse.wait_for(|state| state.stopping));
            let mut served = pin!(fuse.read(reactor, &session, &packets));
            std::future::poll_fn(|cx| {
                if stopped.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(End::Stopped));
                }
                served.as_mut().poll(cx)
            })
            .await
        };
        session.idle().await;
        end
    }
}

impl Fuse {
    async fn read(
        &self,
        reactor: &Reactor,
        session: &Rc<Session>,
        packets: &Packets,
    ) -> Result<End> {
        let mut buf = RecvBuf::new(reactor.chunk(BUFFER));
        let mut burst = Burst::default();
        loop {
            session.room().await;
            burst.step_back().await;
            make_room(reactor, &mut buf);
            match packets.try_recv(&mut buf) {
                Ok(0) => return Ok(End::Unmounted),
                Ok(_) => {}
                Err(error) => match Errno::of(&error) {
                    Errno::ENODEV => return Ok(End::Unmounted),
                    // When there is one again, what was written may be done, and its memory free.
                    Errno::EAGAIN => {
                        let cannot = |error| Error::io("cannot wait for FUSE requests", error);
                        packets.readable().await.map_err(cannot)?;
                        continue;
                    }
                    // A request was taken back while it was read.
                    Errno::ENOENT => continue,
                    _ => return Err(Error::io("cannot read FUSE requests", error)),
                },
            }
            let (bytes, last) = session.packet(&mut buf).map_err(|violation| {
                Error::new(ErrorKind::Format, "FUSE requests are not understood")
                    .caused_by(violation)
            })?;
            if last {
                return Ok(End::Unmounted);
            }
            burst.took(bytes);
        }
    }

    /// Waits until the kernel's side has agreed, so that the file is there for everybody.
    pub async fn ready(&self) {
        self.wait_for(|state| state.agreed.is_some()).await;
    }

    /// Stops serving: what is in flight is answered, and nothing more is read.
    pub fn stop(&self) {
        self.change(|state| state.stopping = true);
    }

    /// Waits until no descriptor is served any more.
    pub async fn drained(&self) {
        self.wait_for(|state| state.seats == 0).await;
    }

    /// Makes durable what was written, when no descriptor is served any more.
    ///
    /// # Errors
    /// This flush failed, or an earlier one: something that was written may be lost.
    pub async fn flush(&self, reactor: &Reactor) -> Result<()> {
        tracing::debug!(
            "served: {} answers, {} errors",
            self.counters.answers.load(Ordering::Relaxed),
            self.counters.errors.load(Ordering::Relaxed)
        );
        if self.failed_flush().is_none()
            && self.device.limits().support(Op::Flush).is_offered()
            && let Some(covered) = self.to_flush(true)
        {
            let queue = self.device.open_queue(reactor)?;
            let done = queue.call(reactor.request(Op::Flush, 0, 0)).await;
            self.flushed(covered, done.error().map(block::IoError::errno));
        }
        match self.failed_flush() {
            None => Ok(()),
            Some(error) => Err(Error::new(
                ErrorKind::Io,
                format!("a flush failed, and what was written may be lost: {error}"),
            )),
        }
    }

    fn wait_for(&self, ready: impl Fn(&State) -> bool) -> impl Future<Output = ()> {
        std::future::poll_fn(move |cx| {
            let mut state = self.lock();
            if ready(&state) {
                return Poll::Ready(());
            }
            if !state
                .waiting
                .iter()
                .any(|known| known.will_wake(cx.waker()))
            {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the sessions.
impl Fuse {
    pub(super) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The protocol's machine for one descriptor.
    pub(super) fn machine(&self, agreed: Option<Agreed>) -> Machine {
        let limits = self.device.limits();
        let offers = |op| limits.support(op).is_offered();
        let disk = Disk {
            size: limits.size,
            block: limits.preferred_block,
            writes: offers(Op::Write),
            flushes: offers(Op::Flush),
            zeroes: offers(Op::WriteZeroes),
            extents: offers(Op::Extents),
        };
        Machine::new(self.view.clone(), disk, agreed)
    }

    /// The kernel's side has agreed.
    pub(super) fn agree(&self, agreed: Agreed) {
        self.change(|state| state.agreed = Some(agreed));
    }

    /// Something was written; told before the answer that says so.
    pub(super) fn wrote(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// How many writes a flush that begins now covers; `None` if it is for the sake of a file that
    /// is closed, and all of them are durable.
    pub(super) fn to_flush(&self, closing: bool) -> Option<u64> {
        let written = self.written.load(Ordering::SeqCst);
        let needed = !closing || self.durable.load(Ordering::SeqCst) < written;
        needed.then_some(written)
    }

    /// A flush that covers so many writes has ended.
    pub(super) fn flushed(&self, covered: u64, error: Option<Errno>) {
        match error {
            None => {
                self.durable.fetch_max(covered, Ordering::SeqCst);
            }
            Some(error) => {
                let order = Ordering::SeqCst;
                // The first error is the one to tell.
                let _ = self.failed.compare_exchange(0, error.get(), order, order);
            }
        }
    }

    /// The error of the first flush that failed.
    pub(super) fn failed_flush(&self) -> Option<Errno> {
        match self.failed.load(Ordering::SeqCst) {
            0 => None,
            error => Some(Errno::new(error)),
        }
    }
}

/// The kernel's side.
struct Kernel(Packets);

impl Answers for Kernel {
    fn answer(&self, batch: &SendBatch) {
        if let Err(error) = self.0.send(batch) {
            // Unmounted, or nobody waits for the answer any more.
            tracing::debug!("an answer was not taken: {error}");
        }
    }
}

/// Memory that requests are read into, in bytes: room for three of the longest writes.
const BUFFER: usize = 4 << 20;

/// Makes the buffer ready for the next packet, such that the payload of a write is aligned: it goes
/// down to the disk from where it lies.
fn make_room(reactor: &Reactor, buf: &mut RecvBuf) {
    let gap = |buf: &RecvBuf| {
        let payload = buf.spare_ptr() as usize + WRITE_HEAD;
        payload.next_multiple_of(CHUNK_ALIGN) - payload
    };
    buf.rewind();
    if buf.room() < gap(buf) + Machine::room() {
        *buf = RecvBuf::new(reactor.chunk(BUFFER));
    }
    let gap = gap(buf);
    buf.filled(gap);
    buf.consume(gap);
}

/// What was taken in since others had their chance.
#[derive(Default)]
struct Burst {
    packets: u32,
    bytes: u64,
}

impl Burst {
    /// Packets, and bytes of reads and writes, that are taken in one go. What is in memory is read
    /// at once: more of it than this falls out of the processor's cache before it is sent.
    const PACKETS: u32 = 32;
    const BYTES: u64 = 256 << 10;

    fn took(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }

    /// Lets completions run, if enough was taken.
    async fn step_back(&mut self) {
        if self.packets < Self::PACKETS && self.bytes < Self::BYTES {
            return;
        }
        *self = Burst::default();
        let mut given = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut given, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
