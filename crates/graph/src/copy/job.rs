//! What is done with each piece: read, hashed, written, read back.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use block::{
    Completed, Data, Device, Error, ErrorKind, Flags, IoError, Iov, Op, Piece, Queue, QueueExt,
    Reactor, Request, Result, Segments, SharedMem, Tick,
};

use super::{
    Copied, CopyOptions,
    blkhash::Hasher,
    pace::Pace,
    plan::{Next, Plan},
    prefix::Prefix,
    rate::Rate,
    scan,
};

/// Between two attempts at what has failed.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Job {
    pub reactor: Reactor,
    pub source: Rc<dyn Queue>,
    /// `None`: the bytes are read and forgotten.
    pub destination: Option<Rc<dyn Queue>>,
    /// What was written is read here again.
    pub check: Option<Rc<dyn Queue>>,
    /// It can be asked what is zero there.
    pub check_tells: bool,
    /// The disks stay open as long as their queues.
    pub _disks: Vec<Arc<dyn Device>>,
    pub options: CopyOptions,
    pub plan: Rc<Plan>,
    pub pace: Pace,
    pub rate: Option<Rate>,
    pub hasher: Option<Hasher>,
    pub size: u64,
    pub stopped: Cell<bool>,
    pub running: Cell<usize>,
    pub failed: RefCell<Option<Error>>,
    /// The first byte that was not found again.
    pub differs: Cell<Option<u64>>,
    pub waiting: RefCell<Option<Waker>>,
    pub copied: Cell<Copied>,
    pub prefix: RefCell<Prefix>,
}

/// What became of a piece.
enum Went {
    /// It was data, of so many bytes, and begun then.
    Data {
        bytes: u64,
        since: Tick,
    },
    Zeroes,
    /// There was none, or it was not begun.
    Nowhere,
}

impl Job {
    /// Takes one piece after the other.
    pub async fn work(self: Rc<Self>) {
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
        loop {
            // The room comes first: pieces are as long as they should be when they are begun.
            let room = self.pace.start().await;
            let went = self.piece(room).await;
            let came = match went {
                Ok(Went::Data { bytes, since }) => Some((bytes, since)),
                _ => None,
            };
            self.pace.done(room, came, self.reactor.now());
            if let Went::Nowhere = went? {
                return Ok(());
            }
        }
    }

    async fn piece(&self, room: u64) -> Result<Went> {
        let next = match self.stopped.get() {
            true => None,
            false => self.plan.next(room).await,
        };
        let Some(next) = next else {
            return Ok(Went::Nowhere);
        };
        if self.plan.is_far() {
            self.pace.far();
        }
        if let Some(rate) = self.rate.as_ref().filter(|_| !next.zero) {
            let stopped = || self.stopped.get();
            rate.take(&self.reactor, next.len, stopped).await;
        }
        if self.stopped.get() {
            return Ok(Went::Nowhere);
        }
        let since = self.reactor.now();
        let went = match next.zero {
            true => {
                self.zero_piece(&next).await?;
                Went::Zeroes
            }
            false => {
                self.copy(&next).await?;
                let bytes = next.len;
                Went::Data { bytes, since }
            }
        };
        self.prefix.borrow_mut().add(next.offset, next.len);
        Ok(went)
    }

    async fn zero_piece(&self, piece: &Next) -> Result<()> {
        if let Some(hasher) = &self.hasher {
            hasher.zeroes(piece.offset, piece.len).await?;
        }
        self.zero(piece.offset, piece.len).await
    }

    async fn copy(&self, piece: &Next) -> Result<()> {
        let mut done = self
            .call(&self.source, "read", piece.offset, || {
                let mut read = self.reactor.request(Op::Read, piece.offset, piece.len);
                *read.data_mut() = Data::Wanted;
                read
            })
            .await?;
        self.count(|copied| copied.read += piece.len);
        let Data::Given(bytes) = std::mem::take(done.data_mut()) else {
            return Err(Error::new(ErrorKind::Format, "a read without data"));
        };
        drop(done);
        let hashing = self.hasher.as_ref().map(|hasher| {
            // It begins now, and goes on while the bytes are written.
            hasher.data(piece.offset, iov(bytes.clone()))
        });
        self.store(piece.offset, bytes).await?;
        match hashing {
            Some(hashing) => hashing.await,
            None => Ok(()),
        }
    }

    /// Brings what was read to the destination.
    async fn store(&self, offset: u64, bytes: Segments) -> Result<()> {
        let Some(block) = self.options.sparse.filter(|_| self.destination.is_some()) else {
            return self.write(offset, bytes).await;
        };
        let mut at = 0;
        for run in scan::runs(&bytes, offset, block) {
            match run.zero {
                true => self.zero(offset + at, run.len).await?,
                false => {
                    let bytes = bytes.slice(at, run.len);
                    self.write(offset + at, bytes).await?;
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
        let wanted = self.check.as_ref().map(|_| bytes.clone());
        let iov = iov(bytes);
        self.call(destination, "write", offset, || {
            let mut write = self.reactor.request(Op::Write, offset, len);
            *write.data_mut() = iov.clone().into();
            write
        })
        .await?;
        self.count(|copied| copied.written += len);
        match wanted {
            Some(wanted) => self.verify(offset, &wanted).await,
            None => Ok(()),
        }
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let destination = self.destination.as_ref();
        let Some(destination) = destination.filter(|_| !self.options.destination_is_zero) else {
            self.count(|copied| copied.skipped += len);
            return self.verify_zeroes(offset, len).await;
        };
        self.call(destination, "write zeroes", offset, || {
            let mut zero = self.reactor.request(Op::WriteZeroes, offset, len);
            if self.options.allocated {
                zero.set_flags(Flags::NO_HOLE);
            }
            zero
        })
        .await?;
        self.count(|copied| copied.zeroed += len);
        self.verify_zeroes(offset, len).await
    }

    /// Looks whether these bytes are on the destination.
    async fn verify(&self, offset: u64, wanted: &Segments) -> Result<()> {
        let Some(check) = &self.check else {
            return Ok(());
        };
        let mut done = self
            .call(check, "verifying read", offset, || {
                let mut read = self.reactor.request(Op::Read, offset, wanted.len());
                *read.data_mut() = Data::Wanted;
                read
            })
            .await?;
        let Data::Given(found) = std::mem::take(done.data_mut()) else {
            return Err(Error::new(ErrorKind::Format, "a read without data"));
        };
        match scan::difference(wanted, &found) {
            None => Ok(()),
            Some(at) => {
                let at = offset + at;
                let first = self.differs.get().map_or(at, |known| known.min(at));
                self.differs.set(Some(first));
                Err(different(first))
            }
        }
    }

    /// The same for zeroes. What the destination says it knows to be zero is believed.
    async fn verify_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        let Some(check) = &self.check else {
            return Ok(());
        };
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let (known, zero) = self.known(check, at, end - at).await;
            let next = at + known;
            while at < next && !zero {
                let step = self.options.request_size.min(next - at);
                self.verify(at, &Segments::zero(step)).await?;
                at += step;
            }
            at = next;
        }
        Ok(())
    }

    /// What the destination says about itself: so many bytes, all of them zero or perhaps not.
    async fn known(&self, check: &Rc<dyn Queue>, offset: u64, len: u64) -> (u64, bool) {
        if !self.check_tells {
            return (len, false);
        }
        let question = self.reactor.request(Op::Extents, offset, len);
        let mut done = check.call(question).await;
        let told = match (done.take_outcome(), done.data()) {
            (Ok(()), Data::Extents(list)) => list.allocation().first().copied(),
            // It cannot tell after all.
            _ => None,
        };
        match told.filter(|told| told.len > 0) {
            Some(told) => {
                let zero = block::ExtentFlags(told.flags).is_zero();
                (told.len.min(len), zero)
            }
            None => (len, false),
        }
    }

    /// Makes a request, and another one if it fails, as often as the user wants it tried.
    async fn call(
        &self,
        queue: &Rc<dyn Queue>,
        what: &str,
        offset: u64,
        request: impl Fn() -> Request,
    ) -> Result<Completed> {
        let mut left = self.options.retries;
        loop {
            let mut done = queue.call(request()).await;
            match done.take_outcome() {
                Ok(()) => return Ok(done),
                Err(error) if left == 0 || self.stopped.get() => {
                    return Err(failed(what, offset, &error));
                }
                Err(error) => tracing::warn!("{}, trying again", failed(what, offset, &error)),
            }
            drop(done);
            left -= 1;
            self.reactor.sleep(PAUSE).await;
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

/// The destination is not what it should be.
#[cold]
pub fn different(offset: u64) -> Error {
    let what = format!("verification failed: the destination differs at offset {offset}");
    Error::new(ErrorKind::Io, what)
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
