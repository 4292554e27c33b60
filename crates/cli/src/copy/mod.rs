//! `blkit copy`, or the program called as `nbdcopy`: from one disk to another.
//!
//! Options, messages and exit statuses are nbdcopy's of libnbd 1.24. The work is `graph::Copy`; here
//! are the two ends of it (`ends`), standard input and output (`stream`), progress, and signals.

mod ends;
mod options;
mod stream;

use std::{
    cell::RefCell, ffi::OsString, future::Future, io::Write, os::fd::OwnedFd, process::ExitCode,
    rc::Rc, time::Duration,
};

use block::{Access, Error, ErrorKind, Reactor, Result};
use graph::{Copied, Copy, CopyOptions};
use reactor::process::{self, Signals};

use crate::tools::{self, Disk, human};
use ends::{From, Into};
use options::{Options, Progress};

/// Runs it; `name` is what it is called.
pub fn main(name: &str, words: Vec<OsString>) -> ExitCode {
    crate::log::init(0);
    let asked = options::parse(name, words);
    let options = match tools::understood(name, options::usage, asked) {
        Ok(options) => options,
        Err(status) => return status,
    };
    match copy(name, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tools::fail(name, &error),
    }
}

fn copy(name: &str, options: &Options) -> Result<()> {
    let cannot = |error| Error::io("cannot watch for signals", error);
    process::block_signals(process::TERMINATION).map_err(cannot)?;
    let signals = Signals::new(process::TERMINATION).map_err(cannot)?;
    ends::differ(&options.source, &options.destination)?;
    let from = From::new(&options.source, options.connections)?;
    let into = Into::new(&options.destination, options.connections)?;
    let lines = match options.progress {
        Progress::Lines(number) => Some(
            process::inherited_descriptor(number)
                .map_err(|error| Error::io(format!("--progress={number}"), error))?,
        ),
        Progress::Off | Progress::Bar => None,
    };
    tools::run(async |reactor| {
        let mut run = Run {
            name,
            options,
            reactor: &reactor,
            ahead: 1,
            current: RefCell::default(),
            meter: Meter {
                bar: options.progress == Progress::Bar,
                lines,
                told: None,
            },
        };
        let stop = tools::signal(&reactor, &signals);
        run.unless_stopped(from, into, stop).await
    })
}

struct Run<'a> {
    name: &'a str,
    options: &'a Options,
    reactor: &'a Reactor,
    /// Pieces on their way at a time, unless told.
    ahead: u64,
    /// For whoever stops it.
    current: RefCell<Option<Rc<Copy>>>,
    meter: Meter,
}

/// How long what is on its way gets when the copy is told to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many pieces are worth having on their way. Those that have been read from a near disk before
/// they can be written only fall out of the processor's cache; a far disk takes its time.
fn ahead(near_source: bool, near_destination: bool) -> u64 {
    match (near_source, near_destination) {
        (true, true) => 4,
        (true, false) => 16,
        (false, _) => 64,
    }
}

impl Run<'_> {
    async fn unless_stopped(
        &mut self,
        from: From,
        into: Into,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        if let Some(done) = tools::either(self.copy(from, into), stop).await {
            return done;
        }
        if self.meter.bar {
            eprintln!();
        }
        if let Some(copy) = self.current.take() {
            copy.stop();
            // That it did not reach the end is what it says.
            let _ = tools::either(copy.finish(), self.reactor.sleep(PATIENCE)).await;
            self.tell_incomplete(&copy);
        }
        Err(Error::new(ErrorKind::Gone, "the copy was stopped"))
    }

    async fn copy(&mut self, from: From, into: Into) -> Result<()> {
        match (from, into) {
            (From::Disk(source), into) => {
                self.ahead = ahead(source.is_near(), into.is_near());
                let (started, source) = source.into_parts();
                let disk = Disk::open(self.reactor, source, "", Access::ReadOnly).await?;
                let copied = self.disk_into(&disk, into).await;
                disk.close(self.reactor).await?;
                drop(started);
                copied
            }
            (From::Stream, Into::Disk(destination)) => {
                let (started, source) = destination.into_parts();
                let disk = Disk::open(self.reactor, source, "", Access::ReadWrite).await?;
                let size = self.options.request_size;
                let copied = stream::to_disk(self.reactor, &disk, size, self.options.flush).await;
                disk.close(self.reactor).await?;
                drop(started);
                copied
            }
            (From::Stream, Into::File(path)) => {
                stream::to_file(self.reactor, path, self.options.flush).await
            }
            (From::Stream, Into::Stream) => stream::through(self.reactor, true).await,
            (From::Stream, Into::Nothing) => stream::through(self.reactor, false).await,
        }
    }

    async fn disk_into(&mut self, source: &Disk, into: Into) -> Result<()> {
        let size = source.device().limits().size;
        self.tell("src", size, source.device().limits().preferred_block);
        let (started, disk, fresh) = match into {
            Into::Stream => {
                let request = self.options.request_size;
                let requests = self.requests(request);
                return stream::from_disk(self.reactor, source, request, requests).await;
            }
            Into::Nothing => return self.run(source, None, false).await,
            Into::File(path) => (None, ends::create(&path, size)?, true),
            Into::Disk(destination) => {
                let (started, source) = destination.into_parts();
                (started, source, false)
            }
        };
        let disk = Disk::open(self.reactor, disk, "", Access::ReadWrite).await?;
        let limits = disk.device().limits();
        self.tell("dst", limits.size, limits.preferred_block);
        let copied = self.run(source, Some(&disk), fresh).await;
        disk.close(self.reactor).await?;
        drop(started);
        copied
    }

    /// Copies, and shows how far it is.
    async fn run(&mut self, source: &Disk, into: Option<&Disk>, fresh: bool) -> Result<()> {
        let options = self.copy_options(source, into, fresh);
        let destination = into.map(Disk::device);
        let what = |error: Error| match error.kind() {
            ErrorKind::Config => Error::new(ErrorKind::Config, format!("error: {error}")),
            _ => error,
        };
        let copy =
            Copy::start(self.reactor, source.device(), destination, options).map_err(what)?;
        let copy = Rc::new(copy);
        *self.current.borrow_mut() = into.is_some().then(|| copy.clone());
        match self.meter.watch(self.reactor, &copy).await {
            Ok(copied) => {
                self.told(copied);
                Ok(())
            }
            Err(error) => {
                if into.is_some() {
                    self.tell_incomplete(&copy);
                }
                Err(error)
            }
        }
    }

    fn tell_incomplete(&self, copy: &Copy) {
        let (done, size) = copy.progress();
        eprintln!(
            "{}: {done} of {size} bytes were copied; the destination is complete up to byte {}",
            self.name,
            copy.complete_up_to()
        );
    }

    fn copy_options(&self, source: &Disk, into: Option<&Disk>, fresh: bool) -> CopyOptions {
        let preferred = |disk: &Disk| u64::from(disk.device().limits().preferred_block);
        let block = into.map_or(0, preferred);
        let request_size = self
            .options
            .request_size
            .max(preferred(source))
            .max(block)
            .min(block::MAX_TRANSFER.into());
        CopyOptions {
            request_size,
            requests: self.requests(request_size),
            sparse: self
                .options
                .sparse
                .map(|size| size.unwrap_or(block.max(4096))),
            allocated: self.options.allocated,
            destination_is_zero: self.options.destination_is_zero
                || (fresh && !self.options.allocated),
            extents: self.options.extents,
            flush: self.options.flush,
        }
    }

    /// As many as fit the queue: a server may want them much larger than we do.
    fn requests(&self, request_size: u64) -> usize {
        if self.options.synchronous {
            return 1;
        }
        let by_size = (self.options.queue_size / request_size).max(1);
        let by_number = match self.options.requests {
            Some(each) => u64::from(each) * u64::from(self.options.connections),
            None => self.ahead,
        };
        by_number.min(by_size) as usize
    }

    fn tell(&self, end: &str, size: u64, preferred: u32) {
        if self.options.verbose {
            let (name, short) = (self.name, human(size));
            eprintln!("{name}: {end}: size={size} ({short}), preferred block size={preferred}");
        }
    }

    fn told(&self, copied: Copied) {
        if self.options.verbose {
            let Copied {
                read,
                written,
                zeroed,
                skipped,
            } = copied;
            let name = self.name;
            eprintln!("{name}: read {read}, written {written}, zeroed {zeroed}, skipped {skipped}");
        }
    }
}

/// Shows how far a copy is.
struct Meter {
    bar: bool,
    lines: Option<OwnedFd>,
    told: Option<u64>,
}

/// Cells of the bar.
const BAR: usize = 64;

impl Meter {
    /// Waits for the end of a copy, and tells meanwhile.
    async fn watch(&mut self, reactor: &Reactor, copy: &Copy) -> Result<Copied> {
        if !self.bar && self.lines.is_none() {
            return copy.finish().await;
        }
        let copied = {
            let mut finished = std::pin::pin!(copy.finish());
            loop {
                let (done, size) = copy.progress();
                self.tell(done, size);
                let pause = reactor.sleep(Duration::from_millis(100));
                if let Some(copied) = tools::either(finished.as_mut(), pause).await {
                    break copied;
                }
            }
        };
        if copied.is_ok() {
            self.tell(1, 1);
        }
        if self.bar {
            eprintln!();
        }
        copied
    }

    fn tell(&mut self, done: u64, size: u64) {
        let percent = match size {
            0 => 100,
            size => (u128::from(done) * 100 / u128::from(size)) as u64,
        };
        if self.told.replace(percent) == Some(percent) {
            return;
        }
        if let Some(lines) = &self.lines {
            let line = format!("{percent}/100\n");
            // Whoever read it may be gone; the copy goes on.
            let _ = rustix::io::write(lines, line.as_bytes());
        }
        if self.bar {
            let full = BAR * percent as usize / 100;
            let bar = format!("{}{}", "*".repeat(full), "-".repeat(BAR - full));
            let _ = write!(std::io::stderr(), "\r{percent:>3}% [{bar}]");
        }
    }
}
