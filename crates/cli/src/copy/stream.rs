//! Standard input and output as one end of a copy: bytes in order, of unknown number.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use block::{
    Completed, Data, Error, ErrorKind, Iov, Op, Queue, QueueExt, Reactor, Result, SharedBuf,
    SharedMem,
};
use graph::{Hasher, Rate, Run, zero_runs};

use super::options::Options;
use crate::tools::Disk;

/// Runs this on a thread that may wait.
async fn waiting<T: Send + 'static>(
    reactor: &Reactor,
    what: &str,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = reactor.blocking(job).await;
    let done = done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    done.map_err(|error| Error::io(what, error))
}

/// Where a stream goes.
pub enum Sink<'a> {
    /// To the beginning of a disk.
    Disk(&'a Disk),
    /// To a file, which gets its length.
    File(PathBuf),
    /// To standard output.
    Stream,
    Nothing,
}

/// A stream on its way.
pub struct Stream<'a> {
    reactor: &'a Reactor,
    options: &'a Options,
    rate: Option<Rate>,
    hasher: Option<Hasher>,
    /// Bytes that are moved at a time.
    piece: u64,
}

/// A sink that is open.
enum Open {
    Disk(Rc<dyn Queue>, u64),
    File(Arc<File>, String),
    Stream,
    Nothing,
}

impl Stream<'_> {
    /// With pieces of so many bytes.
    pub fn new<'a>(reactor: &'a Reactor, options: &'a Options, piece: u64) -> Stream<'a> {
        let block = options.blkhash.map_or(1, |hash| hash.block);
        Stream {
            reactor,
            options,
            rate: options.rate_limit.map(Rate::new),
            hasher: options.blkhash.map(|hash| Hasher::new(reactor, hash)),
            // Blocks are hashed as a whole, or in order.
            piece: piece.max(block.min(block::MAX_TRANSFER.into())),
        }
    }

    /// Standard input to somewhere. Returns its hash, if that is wanted.
    ///
    /// # Errors
    /// It is longer than the disk, or cannot be read or written.
    pub async fn take_input(&self, sink: Sink<'_>) -> Result<Option<String>> {
        let open = self.open(sink).await?;
        let piece = self.piece;
        let mut offset = 0;
        let mut bytes = reading(self.reactor, piece).await?;
        while !bytes.is_empty() {
            let len = bytes.len() as u64;
            // The next piece is read while this one is written.
            let next = reading(self.reactor, piece);
            self.put(&open, offset, bytes).await?;
            bytes = next.await?;
            offset += len;
        }
        match open {
            Open::Disk(queue, _) if self.options.flush => {
                let done = queue.call(self.reactor.request(Op::Flush, 0, 0)).await;
                outcome(done, "flush", 0)?;
            }
            Open::File(file, shown) => {
                let flush = self.options.flush;
                let job = move || {
                    // Zeroes at the end were not written.
                    file.set_len(offset)?;
                    if flush { file.sync_data() } else { Ok(()) }
                };
                waiting(self.reactor, &shown, job).await?;
            }
            _ => {}
        }
        self.hash(offset)
    }

    /// A disk to standard output. So many reads are on their way at a time.
    ///
    /// # Errors
    /// What cannot be read, or written.
    pub async fn fill_output(&self, disk: &Disk, reads: usize) -> Result<Option<String>> {
        let queue = disk.device().open_queue(self.reactor)?;
        let size = disk.device().limits().size;
        let mut ahead = VecDeque::new();
        let (mut asked, mut offset) = (0, 0);
        while offset < size {
            while asked < size && ahead.len() < reads {
                let len = self.piece.min(size - asked);
                let mut read = self.reactor.request(Op::Read, asked, len);
                *read.data_mut() = Data::Wanted;
                ahead.push_back(queue.call(read));
                asked += len;
            }
            let call = ahead.pop_front().expect("something was asked for");
            let mut done = outcome(call.await, "read", offset)?;
            let Data::Given(segments) = std::mem::take(done.data_mut()) else {
                return Err(Error::new(ErrorKind::Format, "a read without data"));
            };
            self.put(&Open::Stream, offset, segments.to_vec()).await?;
            offset += segments.len();
        }
        self.hash(size)
    }

    async fn open(&self, sink: Sink<'_>) -> Result<Open> {
        Ok(match sink {
            Sink::Disk(disk) => {
                let queue = disk.device().open_queue(self.reactor)?;
                Open::Disk(queue, disk.device().limits().size)
            }
            Sink::File(path) => {
                let shown = path.display().to_string();
                let file = waiting(self.reactor, &shown, move || File::create(path)).await?;
                Open::File(Arc::new(file), shown)
            }
            Sink::Stream => Open::Stream,
            Sink::Nothing => Open::Nothing,
        })
    }

    /// Writes a piece, and hashes it.
    async fn put(&self, open: &Open, offset: u64, bytes: Vec<u8>) -> Result<()> {
        if let Some(rate) = &self.rate {
            rate.take(self.reactor, bytes.len() as u64, || false).await;
        }
        if let Some(hasher) = &self.hasher {
            hasher.data(offset, memory(bytes.clone()).into()).await?;
        }
        match open {
            Open::Disk(queue, size) => self.put_on_disk(queue, *size, offset, bytes).await,
            Open::File(file, shown) => {
                let (file, block) = (file.clone(), self.block());
                let job = move || put_in_file(&file, offset, bytes, block);
                waiting(self.reactor, shown, job).await
            }
            Open::Stream => {
                let job = move || {
                    let mut out = io::stdout().lock();
                    out.write_all(&bytes).and_then(|()| out.flush())
                };
                waiting(self.reactor, "standard output", job).await
            }
            Open::Nothing => Ok(()),
        }
    }

    async fn put_on_disk(
        &self,
        queue: &Rc<dyn Queue>,
        size: u64,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<()> {
        if bytes.len() as u64 > size - offset {
            let what = format!("error: standard input is longer than the destination ({size})");
            return Err(Error::new(ErrorKind::Config, what));
        }
        let mem = memory(bytes);
        for (at, run) in runs(&mem, offset, self.block()) {
            let place = offset + at as u64;
            let request = match run.zero {
                true if self.options.destination_is_zero => continue,
                true => self.reactor.request(Op::WriteZeroes, place, run.len),
                false => {
                    let mut write = self.reactor.request(Op::Write, place, run.len);
                    *write.data_mut() = Iov::from(mem.slice(at, run.len as usize)).into();
                    write
                }
            };
            outcome(queue.call(request).await, "write", place)?;
        }
        Ok(())
    }

    /// From so many zero bytes on, aligned, nothing is written; `None`: all is.
    fn block(&self) -> Option<u64> {
        self.options.sparse.map(|block| block.unwrap_or(4096))
    }

    fn hash(&self, size: u64) -> Result<Option<String>> {
        let hasher = self.hasher.as_ref();
        hasher.map(|hasher| hasher.finish(size)).transpose()
    }
}

/// Reads the next bytes of standard input, as many as asked for unless it ends. It begins at once;
/// the future waits for the end.
fn reading(reactor: &Reactor, len: u64) -> impl Future<Output = Result<Vec<u8>>> + use<> {
    let job = reactor.blocking(move || {
        let mut bytes = Vec::with_capacity(len as usize);
        io::stdin().lock().take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    async {
        let read = job.await;
        let read = read.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        read.map_err(|error| Error::io("standard input", error))
    }
}

fn memory(bytes: Vec<u8>) -> SharedMem {
    let len = bytes.len();
    SharedMem::of_shared(SharedBuf::from_vec(bytes), 0, len)
}

/// What is data and what is zero, and where each begins in the bytes.
fn runs(mem: &SharedMem, offset: u64, block: Option<u64>) -> Vec<(usize, Run)> {
    let all = Run {
        len: mem.len() as u64,
        zero: false,
    };
    let runs = match block {
        Some(block) => zero_runs(&mem.clone().into(), offset, block),
        None => vec![all],
    };
    let mut at = 0;
    runs.into_iter()
        .map(|run| {
            at += run.len as usize;
            (at - run.len as usize, run)
        })
        .collect()
}

/// Writes what is not zero: the file is new.
fn put_in_file(file: &File, offset: u64, bytes: Vec<u8>, block: Option<u64>) -> io::Result<()> {
    let mem = memory(bytes);
    for (at, run) in runs(&mem, offset, block) {
        if !run.zero {
            let bytes = mem.slice(at, run.len as usize).to_vec();
            file.write_all_at(&bytes, offset + at as u64)?;
        }
    }
    Ok(())
}

fn outcome(mut done: Completed, what: &str, offset: u64) -> Result<Completed> {
    match done.take_outcome() {
        Ok(()) => Ok(done),
        Err(error) => {
            let what = format!("{what} at offset {offset} failed: {error}");
            Err(Error::new(ErrorKind::Io, what))
        }
    }
}
