//! Standard input and output as one end of a copy: bytes in order, of unknown number.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
};

use block::{
    Completed, Data, Error, ErrorKind, Iov, Op, QueueExt, Reactor, Result, SharedBuf, SharedMem,
};

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

/// The next bytes of standard input, as many as asked for unless it ends.
fn read_in(len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Standard input to the beginning of a disk.
///
/// # Errors
/// It is longer than the disk, or cannot be read or written.
pub async fn to_disk(reactor: &Reactor, disk: &Disk, piece: u64, flush: bool) -> Result<()> {
    let queue = disk.device().open_queue(reactor)?;
    let size = disk.device().limits().size;
    let read = || waiting(reactor, "standard input", move || read_in(piece));
    let mut offset = 0;
    let mut bytes = read().await?;
    while !bytes.is_empty() {
        let len = bytes.len() as u64;
        if len > size - offset {
            let what = format!("error: standard input is longer than the destination ({size})");
            return Err(Error::new(ErrorKind::Config, what));
        }
        let mem = SharedMem::of_shared(SharedBuf::from_vec(bytes), 0, len as usize);
        let mut write = reactor.request(Op::Write, offset, len);
        *write.data_mut() = Iov::from(mem).into();
        // The next piece is read while this one is written.
        let written = queue.call(write);
        bytes = read().await?;
        outcome(written.await, "write", offset)?;
        offset += len;
    }
    if flush {
        let done = queue.call(reactor.request(Op::Flush, 0, 0)).await;
        outcome(done, "flush", 0)?;
    }
    Ok(())
}

/// Standard input to a file, which gets its length.
///
/// # Errors
/// What the system says.
pub async fn to_file(reactor: &Reactor, path: PathBuf, flush: bool) -> Result<()> {
    let shown = path.display().to_string();
    let job = move || {
        let mut file = File::create(path)?;
        io::copy(&mut io::stdin().lock(), &mut file)?;
        if flush { file.sync_data() } else { Ok(()) }
    };
    waiting(reactor, &shown, job).await
}

/// Standard input to standard output, or to nowhere.
///
/// # Errors
/// What the system says.
pub async fn through(reactor: &Reactor, output: bool) -> Result<()> {
    let job = move || {
        let mut input = io::stdin().lock();
        match output {
            true => io::copy(&mut input, &mut io::stdout().lock())?,
            false => io::copy(&mut input, &mut io::sink())?,
        };
        Ok(())
    };
    waiting(reactor, "standard input or output", job).await
}

/// A disk to standard output. So many reads are on their way at a time.
///
/// # Errors
/// What cannot be read, or written.
pub async fn from_disk(reactor: &Reactor, disk: &Disk, piece: u64, reads: usize) -> Result<()> {
    let queue = disk.device().open_queue(reactor)?;
    let size = disk.device().limits().size;
    let mut ahead = VecDeque::new();
    let (mut asked, mut offset) = (0, 0);
    while offset < size {
        while asked < size && ahead.len() < reads {
            let len = piece.min(size - asked);
            let mut read = reactor.request(Op::Read, asked, len);
            *read.data_mut() = Data::Wanted;
            ahead.push_back(queue.call(read));
            asked += len;
        }
        let call = ahead.pop_front().expect("something was asked for");
        let mut done = outcome(call.await, "read", offset)?;
        let Data::Given(segments) = std::mem::take(done.data_mut()) else {
            return Err(Error::new(ErrorKind::Format, "a read without data"));
        };
        offset += segments.len();
        let bytes = segments.to_vec();
        let job = move || {
            let mut out = io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush())
        };
        waiting(reactor, "standard output", job).await?;
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
