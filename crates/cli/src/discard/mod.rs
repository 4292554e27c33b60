//! `blkit discard` and `blkit zero`, or the program called as `nbddiscard` and `nbdzero`: a disk, or a
//! part of it, is no longer needed, or shall read as zeroes.
//!
//! Options, output and exit statuses are nbddiscard's of libnbd 1.24. The last step is a flush: what
//! was done is on the medium when it says so.

mod options;

use std::{
    ffi::OsString,
    io::{self, BufRead, Read, Write},
    process::ExitCode,
};

use block::{
    Access, Data, Error, ErrorKind, ExtentFlags, Flags, Limits, Op, Queue, QueueExt, Reactor,
    Result,
};

use crate::tools::{self, Asked, Disk, Named, Place};
use options::Options;

/// Bytes of one request: what a server takes less of at once is cut into as many as fit.
const STEP: u64 = 1 << 40;

/// Discards; `name` is what it is called.
pub fn discard(name: &str, words: Vec<OsString>) -> ExitCode {
    main(name, words, false)
}

/// Zeroes; `name` is what it is called.
pub fn zero(name: &str, words: Vec<OsString>) -> ExitCode {
    main(name, words, true)
}

fn main(name: &str, words: Vec<OsString>, zero: bool) -> ExitCode {
    let mut options = match options::parse(name, words) {
        Ok(Asked::Options(options)) => options,
        Ok(Asked::Text(text)) => return tools::print(name, &text),
        Err(wrong) => {
            eprintln!("{}", wrong.text);
            return ExitCode::from(wrong.status);
        }
    };
    crate::log::init(u8::from(options.verbose));
    options.zero |= zero;
    if options.fast_zero && !options.zero {
        if options.verbose {
            println!("--fast-zero implies --zero");
        }
        options.zero = true;
    }
    match run(&options) {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Not(why)) => {
            if let Some(why) = why {
                eprintln!("{why}");
            }
            ExitCode::FAILURE
        }
        Err(error) => tools::fail(name, &error),
    }
}

/// How it ended.
enum End {
    Done,
    /// Nothing was changed; why, if that is to be told.
    Not(Option<String>),
}

fn run(options: &Options) -> Result<End> {
    let named = Named::new(&options.places, &options.filters, options.check)?;
    let access = match options.check {
        true => Access::ReadOnly,
        false => Access::ReadWrite,
    };
    tools::run(async |reactor| {
        let disk = Disk::open(&reactor, named.source.clone(), "", access).await?;
        let end = erase(&reactor, &disk, options).await;
        disk.close(&reactor).await?;
        end
    })
}

async fn erase(reactor: &Reactor, disk: &Disk, options: &Options) -> Result<End> {
    let limits = disk.device().limits();
    if options.verbose {
        let python = |yes| if yes { "True" } else { "False" };
        println!(
            "block status = {}",
            python(limits.offered().contains(Op::Extents))
        );
    }
    if !options.check
        && let Some(why) = refusal(&limits, options)
    {
        return Ok(End::Not(Some(why.into())));
    }
    let Some((start, end)) = range(limits.size, options) else {
        return Ok(End::Done);
    };
    let queue = disk.device().open_queue(reactor)?;
    if options.check {
        return check(reactor, &*queue, &limits, (start, end), options).await;
    }
    if !options.yes && !is_wanted(&shown(&options.places), start, end)? {
        return Ok(End::Not(Some("operation cancelled".into())));
    }
    change(reactor, &*queue, (start, end), options).await?;
    if limits.offered().contains(Op::Flush) {
        let outcome = queue
            .call(reactor.request(Op::Flush, 0, 0))
            .await
            .take_outcome();
        outcome.map_err(|error| Error::new(ErrorKind::Io, format!("flush failed: {error}")))?;
    }
    Ok(End::Done)
}

/// What the disk lacks.
fn refusal(limits: &Limits, options: &Options) -> Option<&'static str> {
    let offered = limits.offered();
    if !options.zero {
        let what = "this server does not support the trim/discard operation";
        return (!offered.contains(Op::Discard)).then_some(what);
    }
    if !offered.contains(Op::WriteZeroes) {
        return Some("this server does not support the zero operation");
    }
    (options.fast_zero && !limits.fast_zero)
        .then_some("fast zeroing is not supported by this server")
}

/// From which byte to which; `None` if that is none.
fn range(size: u64, options: &Options) -> Option<(u64, u64)> {
    let warn = |what: &str| {
        if !options.quiet {
            println!("warning: {what}");
        }
    };
    let start = options.offset;
    if start >= size {
        if start > 0 {
            warn("offset at or beyond the end of the disk");
        }
        return None;
    }
    let end = options.length.map_or(size, |len| start.saturating_add(len));
    if end > size {
        warn("offset + length is beyond the end of the disk");
    }
    let end = end.min(size);
    (start < end).then_some((start, end))
}

/// Looks for what is not discarded, or not zero.
async fn check(
    reactor: &Reactor,
    queue: &dyn Queue,
    limits: &Limits,
    (start, end): (u64, u64),
    options: &Options,
) -> Result<End> {
    let found = |at| {
        if !options.quiet {
            println!("image has data at offset {at}");
        }
        Ok(End::Not(None))
    };
    if !limits.offered().contains(Op::Extents) {
        return found(start);
    }
    let mut at = start;
    while at < end {
        let request = reactor.request(Op::Extents, at, end - at);
        let mut done = queue.call(request).await;
        let cannot = |error| {
            let what = format!("block status at offset {at} failed: {error}");
            Error::new(ErrorKind::Io, what)
        };
        done.take_outcome().map_err(cannot)?;
        let runs = match done.data() {
            Data::Extents(list) => list.allocation(),
            _ => &[],
        };
        if runs.is_empty() {
            return Err(Error::new(ErrorKind::Format, "no extents in the answer"));
        }
        for run in runs {
            let flags = ExtentFlags(run.flags);
            let clean = match options.zero {
                true => flags.is_zero(),
                false => flags.is_hole(),
            };
            if !clean && at < end {
                return found(at);
            }
            at = at.saturating_add(run.len);
        }
    }
    if options.verbose {
        println!("image is already sparse");
    }
    Ok(End::Done)
}

/// Asks whoever sits there.
fn is_wanted(place: &str, start: u64, end: u64) -> Result<bool> {
    /// In bytes: more than any answer needs.
    const LONGEST: u64 = 4096;
    let cannot = |error| Error::io("cannot ask", error);
    let mut out = io::stdout().lock();
    let last = end - 1;
    write!(
        out,
        "PERMANENTLY ERASE everything on {place} bytes {start} - {last} (y/N)? "
    )
    .and_then(|()| out.flush())
    .map_err(cannot)?;
    let mut answer = String::new();
    let mut input = io::stdin().lock().take(LONGEST);
    input.read_line(&mut answer).map_err(cannot)?;
    Ok(answer.starts_with(['y', 'Y']))
}

/// The words that name the disk.
fn shown(places: &[Place]) -> String {
    let words = places.iter().map(|place| match place {
        Place::Word(word) => word.to_string_lossy().into_owned(),
        Place::Command(words) => {
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            format!("[ {} ]", words.join(" "))
        }
    });
    crate::report::one_line(&words.collect::<Vec<_>>().join(" "))
}

async fn change(
    reactor: &Reactor,
    queue: &dyn Queue,
    (start, end): (u64, u64),
    options: &Options,
) -> Result<()> {
    let (op, what) = match options.zero {
        true => (Op::WriteZeroes, "write zeroes"),
        false => (Op::Discard, "discard"),
    };
    let mut at = start;
    while at < end {
        let len = STEP.min(end - at);
        let mut request = reactor.request(op, at, len);
        if options.fast_zero {
            request.set_flags(Flags::FAST_ZERO);
        }
        let outcome = queue.call(request).await.take_outcome();
        outcome.map_err(|error| {
            let what = format!("{what} at offset {at} failed: {error}");
            Error::new(ErrorKind::Io, what)
        })?;
        at += len;
    }
    Ok(())
}
