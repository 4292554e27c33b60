//! `blkit dump`, or the program called as `nbddump`: what is on a disk, in hexadecimal.
//!
//! Options, output and exit statuses are nbddump's of libnbd 1.24, but for the units of sizes, which
//! count here. What the disk knows to be zero is not read.

mod hex;
mod options;

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
};

use block::{
    Access, Data, Device, Error, ErrorKind, ExtentFlags, Op, Piece, Queue, QueueExt, Reactor,
    Result,
};

use crate::tools::{self, Disk, Named};
use hex::Hex;
use options::Options;

/// Bytes that are read at once.
const READ: u64 = 1 << 20;

/// Runs it; `name` is what it is called.
pub fn main(name: &str, words: Vec<OsString>) -> ExitCode {
    crate::log::init(0);
    let asked = options::parse(name, words);
    let options = match tools::understood(name, options::usage, asked) {
        Ok(options) => options,
        Err(status) => return status,
    };
    match dump(&options) {
        // A reader that has seen enough (`| head`) is no error.
        Ok(()) | Err(Stopped::Output(io::ErrorKind::BrokenPipe, _)) => ExitCode::SUCCESS,
        Err(Stopped::Output(_, error) | Stopped::Disk(error)) => tools::fail(name, &error),
    }
}

/// Why a dump has no end.
enum Stopped {
    /// Standard output takes no more.
    Output(io::ErrorKind, Error),
    /// The disk says so.
    Disk(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped::Disk(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        let kind = error.kind();
        Stopped::Output(kind, Error::io("cannot write to standard output", error))
    }
}

fn dump(options: &Options) -> Result<(), Stopped> {
    let named = Named::new(&options.places, &options.filters, true)?;
    let mut dumped = Ok(());
    tools::run(async |reactor| {
        let disk = Disk::open(&reactor, named.source.clone(), "", Access::ReadOnly).await?;
        dumped = Dump::tell(&reactor, disk.device(), options).await;
        disk.close(&reactor).await
    })?;
    dumped
}

struct Dump<'a> {
    reactor: &'a Reactor,
    queue: Rc<dyn Queue>,
    extents: bool,
    end: u64,
}

impl Dump<'_> {
    /// Tells what `options` ask for.
    async fn tell(
        reactor: &Reactor,
        device: &Arc<dyn Device>,
        options: &Options,
    ) -> Result<(), Stopped> {
        let limits = device.limits();
        let (size, at) = (limits.size, options.offset);
        if at > size {
            let what = format!("offset {at} is beyond the end of the disk ({size} bytes)");
            return Err(Error::new(ErrorKind::Config, what).into());
        }
        let length = options.length.unwrap_or(size);
        let dump = Dump {
            reactor,
            queue: device.open_queue(reactor)?,
            extents: limits.offered().contains(Op::Extents),
            end: at.saturating_add(length).min(size),
        };
        let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        let hex = Hex::new(out, options.color, at, size);
        dump.run(hex, at).await
    }

    async fn run(&self, mut hex: Hex<impl Write>, mut at: u64) -> Result<(), Stopped> {
        while at < self.end {
            for (len, zero) in self.runs(at).await {
                let end = at + len;
                if zero {
                    hex.zeroes(len)?;
                    at = end;
                }
                while at < end {
                    let here = READ.min(end - at);
                    self.read(&mut hex, at, here).await?;
                    at += here;
                }
            }
        }
        Ok(hex.finish()?)
    }

    /// What is known from `at` on: so many bytes, and whether they are zeroes. Never nothing.
    async fn runs(&self, at: u64) -> Vec<(u64, bool)> {
        let asked = self.end - at;
        let data = vec![(asked, false)];
        if !self.extents {
            return data;
        }
        let request = self.reactor.request(Op::Extents, at, asked);
        let mut done = self.queue.call(request).await;
        if let Err(error) = done.take_outcome() {
            // Where it cannot say, it is read.
            tracing::debug!("no extents at offset {at}: {error}");
            return data;
        }
        let Data::Extents(list) = done.data_mut() else {
            return data;
        };
        list.truncate(asked);
        let runs = list.allocation().iter();
        let runs: Vec<_> = runs
            .map(|extent| (extent.len, ExtentFlags(extent.flags).is_zero()))
            .collect();
        if runs.is_empty() { data } else { runs }
    }

    async fn read(&self, hex: &mut Hex<impl Write>, at: u64, len: u64) -> Result<(), Stopped> {
        let mut request = self.reactor.request(Op::Read, at, len);
        *request.data_mut() = Data::Wanted;
        let mut done = self.queue.call(request).await;
        let cannot = |error| {
            Error::new(
                ErrorKind::Io,
                format!("read at offset {at} failed: {error}"),
            )
        };
        done.take_outcome().map_err(cannot)?;
        let Data::Given(found) = done.data() else {
            return Err(Error::new(ErrorKind::Format, "a read without data").into());
        };
        let mut buffer = [0; 4096];
        for piece in found.pieces() {
            match piece {
                Piece::Zero(len) => hex.zeroes(*len)?,
                Piece::Mem(mem) => {
                    let mut from = 0;
                    while from < mem.len() {
                        let bytes = &mut buffer[..(mem.len() - from).min(4096)];
                        mem.read(from, bytes);
                        hex.bytes(bytes)?;
                        from += bytes.len();
                    }
                }
            }
        }
        Ok(())
    }
}
