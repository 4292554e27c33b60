//! `blkit copy`, or the program called as `nbdcopy`: from one disk to another.
//!
//! Options, messages and exit statuses are nbdcopy's of libnbd 1.24. The work is `graph::Copy`; here
//! are the two ends of it (`ends`), standard input and output (`stream`), progress (`meter`), what is
//! kept for a copy that is cut short (`resume`), and signals.

mod ends;
mod meter;
mod options;
mod resume;
mod stream;

use std::{
    cell::RefCell,
    ffi::OsString,
    fs::File,
    future::Future,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use block::{Access, Error, ErrorKind, Op, Reactor, Result, Source, Tick};
use graph::{Copied, Copy, CopyOptions, Ends};
use reactor::process::{self, Signals};

use crate::tools::{self, Disk, Place, either, human};
use ends::{From, Into, Servers};
use meter::Meter;
use options::Options;
use resume::Ledger;
use stream::{Sink, Stream};

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
    fits(options)?;
    ends::differ(&options.source, &options.destination)?;
    let ledger = resume::place(&options.resume, &options.destination)?;
    let servers = Servers {
        connections: options.connections,
        retries: options.retries,
        reconnect: options.reconnect,
    };
    let from = From::new(&options.source, servers)?;
    let into = Into::new(&options.destination, servers)?;
    let meter = Meter::new(options.progress)?;
    let sum = SumFile::new(options)?;
    let hash = tools::run(async |reactor| {
        let mut run = Run {
            name,
            options,
            reactor: &reactor,
            near: false,
            ahead: 0,
            far: false,
            current: RefCell::default(),
            ledger,
            meter,
        };
        let stop = tools::signal(&reactor, &signals);
        run.unless_stopped(from, into, stop).await
    })?;
    sum.print(hash)
}

/// Refuses what the ends cannot do.
fn fits(options: &Options) -> Result<()> {
    let is = |place: &Place, what: &str| matches!(place, Place::Word(word) if word == what);
    let stream = is(&options.source, "-") || is(&options.destination, "-");
    let nothing = is(&options.destination, "null:");
    let wants = [
        (options.resume != options::Resume::Off, "--resume"),
        (options.verify, "--verify"),
    ];
    for (wanted, option) in wants {
        if wanted && (stream || nothing) {
            let what = format!(
                "{option} needs disks at both ends: \
                 neither standard input or output nor null: is one"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
    }
    Ok(())
}

/// Where the hash is printed.
enum SumFile {
    Output,
    File(PathBuf, File),
}

impl SumFile {
    /// Finds out early whether it can be.
    fn new(options: &Options) -> Result<SumFile> {
        match (&options.blkhash_file, options.blkhash) {
            (Some(path), Some(_)) => {
                let made = File::create(path);
                let file = made.map_err(|error| Error::io(path.display().to_string(), error))?;
                Ok(SumFile::File(path.clone(), file))
            }
            _ => Ok(SumFile::Output),
        }
    }

    fn print(self, hash: Option<String>) -> Result<()> {
        let Some(hash) = hash else {
            return Ok(());
        };
        let line = format!("{hash}\n");
        let (name, printed) = match self {
            SumFile::Output => {
                let mut out = std::io::stdout().lock();
                let printed = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                ("standard output".to_owned(), printed)
            }
            SumFile::File(path, mut file) => {
                (path.display().to_string(), file.write_all(line.as_bytes()))
            }
        };
        printed.map_err(|error| Error::io(name, error))
    }
}

struct Run<'a> {
    name: &'a str,
    options: &'a Options,
    reactor: &'a Reactor,
    /// Both ends are on this machine.
    near: bool,
    /// Bytes on their way at first.
    ahead: u64,
    /// A server took its time to answer.
    far: bool,
    /// For whoever stops it.
    current: RefCell<Option<(Rc<Copy>, Option<Ledger>)>>,
    /// Where it is kept what is done.
    ledger: Option<PathBuf>,
    meter: Meter,
}

/// How long what is on its way gets when the copy is told to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Between two times that it is kept what is done, at most: each needs a flush.
const KEEP: Duration = Duration::from_secs(5);

/// Bytes of a request at first, unless told.
const REQUEST: u64 = 256 << 10;

/// Bytes of a request to far servers, unless told.
const FAR_REQUEST: u64 = 1 << 20;

/// Bytes on their way at most, unless told.
const QUEUE: u64 = 64 << 20;

/// A server that is connected to only after this is far: that takes it some five answers.
const FAR: Duration = Duration::from_millis(50);

/// Bytes on their way at first. What has been read from a near disk before it can be written only
/// falls out of the processor's cache; a server works on several requests at a time, and the more it
/// finds, the less often either side has to be woken.
fn ahead(source_is_near: bool, into_is_near: bool) -> u64 {
    match (source_is_near, into_is_near) {
        (true, true) => 1 << 20,
        (true, false) => 2 << 20,
        (false, _) => 32 << 20,
    }
}

/// Reads ahead of standard output.
const READS: u64 = 64;

impl Run<'_> {
    async fn unless_stopped(
        &mut self,
        from: From,
        into: Into,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<String>> {
        if let Some(done) = either(self.copy(from, into), stop).await {
            return done;
        }
        self.meter.end_line();
        let current = self.current.take();
        if let Some((copy, ledger)) = current {
            copy.stop();
            // That it did not reach the end is what it says.
            let _ = either(copy.finish(), self.reactor.sleep(PATIENCE)).await;
            self.tell_incomplete(&copy, ledger.as_ref()).await;
        }
        Err(Error::new(ErrorKind::Gone, "the copy was stopped"))
    }

    async fn copy(&mut self, from: From, into: Into) -> Result<Option<String>> {
        match (from, into) {
            (From::Disk(source), into) => {
                self.near = source.is_near() && into.is_near();
                self.ahead = ahead(source.is_near(), into.is_near());
                let (started, source) = source.into_parts();
                let disk = self
                    .open(source, started.is_none(), Access::ReadOnly)
                    .await?;
                let copied = self.disk_into(&disk, into).await;
                disk.close(self.reactor).await?;
                drop(started);
                copied
            }
            (From::Stream, Into::Disk(destination)) => {
                let (started, source) = destination.into_parts();
                let disk = Disk::open(self.reactor, source, "", Access::ReadWrite).await?;
                let copied = self.stream().take_input(Sink::Disk(&disk)).await;
                disk.close(self.reactor).await?;
                drop(started);
                copied
            }
            (From::Stream, Into::File(path)) => self.stream().take_input(Sink::File(path)).await,
            (From::Stream, Into::Stream) => self.stream().take_input(Sink::Stream).await,
            (From::Stream, Into::Nothing) => self.stream().take_input(Sink::Nothing).await,
        }
    }

    /// Opens an end, and finds out whether it is far if its server was `running` already.
    async fn open(
        &mut self,
        source: Arc<dyn Source>,
        running: bool,
        access: Access,
    ) -> Result<Disk> {
        let begin = self.reactor.now();
        let disk = Disk::open(self.reactor, source, "", access).await?;
        self.far |= running && self.since(begin) >= FAR;
        Ok(disk)
    }

    fn stream(&self) -> Stream<'_> {
        Stream::new(
            self.reactor,
            self.options,
            self.options.request_size.unwrap_or(REQUEST),
        )
    }

    async fn disk_into(&mut self, source: &Disk, into: Into) -> Result<Option<String>> {
        let size = source.device().limits().size;
        self.tell("src", size, source.device().limits().preferred_block);
        let goes_on = self.ledger.as_ref().is_some_and(|path| path.exists());
        let (started, disk, fresh) = match into {
            Into::Stream => {
                let reads = if self.options.synchronous { 1 } else { READS };
                return self.stream().fill_output(source, reads as usize).await;
            }
            Into::Nothing => return self.run(source, None, None, false).await,
            Into::File(path) if goes_on => (None, ends::existing(&path)?, false),
            Into::File(path) => {
                // What was kept of another copy to this file is true no more.
                resume::forget(&resume::beside(&path))?;
                (None, ends::create(&path, size)?, true)
            }
            Into::Disk(destination) => {
                let (started, source) = destination.into_parts();
                (started, source, false)
            }
        };
        let ledger = self
            .ledger
            .take()
            .map(|path| Ledger::new(path, &self.options.source, &self.options.destination, size));
        let ledger = ledger.transpose()?;
        let disk = self
            .open(disk, started.is_none(), Access::ReadWrite)
            .await?;
        let limits = disk.device().limits();
        self.tell("dst", limits.size, limits.preferred_block);
        let copied = self.run(source, Some(&disk), ledger, fresh).await;
        disk.close(self.reactor).await?;
        drop(started);
        copied
    }

    /// Copies, and shows how far it is.
    async fn run(
        &mut self,
        source: &Disk,
        into: Option<&Disk>,
        ledger: Option<Ledger>,
        fresh: bool,
    ) -> Result<Option<String>> {
        let mut options = self.copy_options(source, into, fresh);
        if let Some(ledger) = &ledger {
            options.flush = true;
            options.done = ledger.load()?.unwrap_or_default();
            let can = into.is_some_and(|disk| disk.device().limits().offered().contains(Op::Flush));
            if !can {
                let what = "--resume: the destination cannot flush, so nobody knows what is done";
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        }
        let medium = self.medium().await?;
        let ends = Ends {
            source: source.device(),
            destination: into.map(Disk::device),
            check: match &medium {
                Some(medium) => Some(medium.device()),
                None => into.filter(|_| self.options.verify).map(Disk::device),
            },
        };
        let what = |error: Error| match error.kind() {
            ErrorKind::Config => Error::new(ErrorKind::Config, format!("error: {error}")),
            _ => error,
        };
        let copy = Rc::new(Copy::start(self.reactor, ends, options).map_err(what)?);
        *self.current.borrow_mut() = into.is_some().then(|| (copy.clone(), ledger.clone()));
        let copied = self.watch(&copy, ledger.as_ref()).await;
        if copied.is_err() && into.is_some() {
            self.tell_incomplete(&copy, ledger.as_ref()).await;
        }
        if let Some(medium) = medium {
            medium.close(self.reactor).await?;
        }
        self.told(copied?);
        if let Some(ledger) = ledger {
            ledger.remove()?;
        }
        copy.blkhash()
    }

    /// The destination once more for verifying, if it is local: past the page cache if that can be.
    async fn medium(&self) -> Result<Option<Disk>> {
        let Place::Word(word) = &self.options.destination else {
            return Ok(None);
        };
        if !self.options.verify || ends::uri_of(word).is_some() {
            return Ok(None);
        }
        for direct in [true, false] {
            let source = ends::medium(Path::new(word), direct)?;
            match Disk::open(self.reactor, source, "", Access::ReadOnly).await {
                Ok(disk) => return Ok(Some(disk)),
                Err(error) if direct => tracing::debug!("{}", error.chain()),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Waits for the end of a copy, tells meanwhile, and keeps what is done.
    async fn watch(&mut self, copy: &Copy, ledger: Option<&Ledger>) -> Result<Copied> {
        if !self.meter.shows() && ledger.is_none() {
            return copy.finish().await;
        }
        let copied = {
            let mut finished = std::pin::pin!(copy.finish());
            // At first often: what is done grows fastest in proportion.
            let mut pause = LOOK;
            let mut kept = self.reactor.now();
            loop {
                let (done, size) = copy.progress();
                self.meter.tell(done, size);
                if let Some(ledger) = ledger.filter(|_| self.since(kept) >= pause) {
                    if let Err(error) = self.keep(copy, ledger).await {
                        copy.stop();
                        // It did not reach the end; why is known.
                        let _ = finished.await;
                        break Err(error);
                    }
                    (pause, kept) = ((pause * 2).min(KEEP), self.reactor.now());
                }
                if let Some(copied) = either(finished.as_mut(), self.reactor.sleep(LOOK)).await {
                    break copied;
                }
            }
        };
        if copied.is_ok() {
            self.meter.tell(1, 1);
        }
        self.meter.end_line();
        copied
    }

    fn since(&self, then: Tick) -> Duration {
        self.reactor.now().since(then)
    }

    /// Writes down what is done.
    async fn keep(&self, copy: &Copy, ledger: &Ledger) -> Result<()> {
        let done = copy.settle().await?;
        let ledger = ledger.clone();
        let saved = self.reactor.blocking(move || ledger.save(&done)).await;
        saved.unwrap_or_else(|panicked| Err(Error::new(ErrorKind::Internal, panicked.to_string())))
    }

    async fn tell_incomplete(&self, copy: &Copy, ledger: Option<&Ledger>) {
        let name = self.name;
        let (done, size) = copy.progress();
        eprintln!(
            "{name}: {done} of {size} bytes were copied; the destination is complete up to byte {}",
            copy.complete_up_to()
        );
        if let Some(ledger) = ledger {
            match self.keep(copy, ledger).await {
                Ok(()) => eprintln!("{name}: the same command goes on from there"),
                Err(error) => eprintln!("{name}: this was not written down: {}", error.chain()),
            }
        }
    }

    fn copy_options(&self, source: &Disk, into: Option<&Disk>, fresh: bool) -> CopyOptions {
        let options = self.options;
        let preferred = |disk: &Disk| u64::from(disk.device().limits().preferred_block);
        let block = into.map_or(0, preferred);
        let request_size = options
            .request_size
            .unwrap_or(if self.far { FAR_REQUEST } else { REQUEST })
            .max(preferred(source))
            .max(block)
            .min(block::MAX_TRANSFER.into());
        let largest_request = match options.request_size {
            None => request_size.max(FAR_REQUEST),
            Some(_) => request_size,
        };
        // A server may want them much larger than we do.
        let queue_size = options.queue_size.unwrap_or(QUEUE).max(request_size);
        let requests = self.requests().min(queue_size / request_size);
        CopyOptions {
            request_size,
            largest_request,
            requests: requests as usize,
            ahead: match options.requests {
                None if !self.far => self.ahead.min(queue_size),
                _ => queue_size,
            },
            queue_size,
            may_be_far: !self.near,
            sparse: options.sparse.map(|size| size.unwrap_or(block.max(4096))),
            allocated: options.allocated,
            destination_is_zero: options.destination_is_zero || (fresh && !options.allocated),
            extents: options.extents,
            flush: options.flush,
            retries: options.retries,
            rate: options.rate_limit,
            blkhash: options.blkhash,
            done: Vec::new(),
        }
    }

    /// Requests on their way at most.
    fn requests(&self) -> u64 {
        match (self.options.synchronous, self.options.requests) {
            (true, _) => 1,
            (false, Some(each)) => u64::from(each) * u64::from(self.options.connections),
            (false, None) => u64::MAX,
        }
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
