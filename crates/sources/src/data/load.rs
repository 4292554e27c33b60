//! What comes from outside: files, and the output of scripts.
//!
//! *Contract.* Each is read once, as much of it as is needed and no more, however often it is used. It
//! is kept in pieces, and pieces of zeroes take no memory, so a large empty file costs only the time
//! to read it. What has no end and no slice is refused after a bound, not after all memory is gone.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileTypeExt,
    path::Path,
    process::{Command, Stdio},
};

use block::{Errno, ErrorKind};

use super::{
    ast::{At, External, Fault, What},
    optimise::bad_slice,
};
use crate::memory;

/// Bytes per piece.
const PIECE: u64 = 64 << 10;

/// The most bytes taken from what may be endless, if no slice says how many.
const ENDLESS: u64 = 64 << 30;

/// Bytes from outside.
#[derive(Debug, Default)]
pub(super) struct Blob {
    len: u64,
    /// By place; what is not there is zero.
    pieces: BTreeMap<u64, Box<[u8]>>,
}

/// Where files and scripts are.
pub(super) trait Outside {
    /// Reads what an expression asks for.
    fn read(&self, at: At, external: &External) -> Result<Blob, Fault>;
}

/// This machine.
pub(super) struct Machine;

impl Blob {
    /// These bytes; nothing, if there is no memory for them.
    pub fn of(bytes: &[u8]) -> Blob {
        let taken = take(&mut &*bytes, bytes.len() as u64, u64::MAX);
        taken.map(|(blob, _)| blob).unwrap_or_default()
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Hands the range over in order: bytes, or the length of zeroes.
    pub fn each<E>(
        &self,
        from: u64,
        to: u64,
        mut f: impl FnMut(Result<&[u8], u64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = from;
        for (number, piece) in self.pieces.range(from / PIECE..) {
            let start = number * PIECE;
            if start >= to {
                break;
            }
            if start > at {
                f(Err(start - at))?;
                at = start;
            }
            let end = to.min(start + piece.len() as u64);
            f(Ok(&piece[(at - start) as usize..(end - start) as usize]))?;
            at = end;
        }
        match at < to {
            true => f(Err(to - at)),
            false => Ok(()),
        }
    }
}

impl Outside for Machine {
    fn read(&self, at: At, external: &External) -> Result<Blob, Fault> {
        let (from, to) = (external.from, external.to);
        match &external.what {
            What::File(path) => read_file(path, from, to).map_err(|error| match error {
                Failure::Io(cause) => fault(at, format!("<{}", path.display()), cause),
                Failure::Endless => endless(at, &external.what),
            }),
            What::Script(script) => read_script(at, script, from, to),
        }
    }
}

enum Failure {
    Io(io::Error),
    Endless,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// As much of the range as the file has.
fn read_file(path: &Path, from: u64, to: Option<u64>) -> Result<Blob, Failure> {
    let mut file = File::open(path)?;
    let kind = file.metadata()?.file_type();
    let ends = kind.is_file() || kind.is_block_device();
    if ends {
        file.seek(SeekFrom::Start(from))?;
    } else {
        io::copy(&mut file.by_ref().take(from), &mut io::sink())?;
    }
    let most = match to {
        Some(to) => to - from,
        None if ends => u64::MAX,
        None => ENDLESS,
    };
    let (blob, end) = take(&mut file, most, half_of_memory())?;
    match end || to.is_some() {
        true => Ok(blob),
        false => Err(Failure::Endless),
    }
}

/// The range of what a shell prints. A script that is cut short ends by a broken pipe, which is no
/// failure.
fn read_script(at: At, script: &str, from: u64, to: Option<u64>) -> Result<Blob, Fault> {
    let what = || "<(script)".to_owned();
    let failed = |cause| fault(at, what(), cause);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command.stdout(Stdio::piped());
    let mut child = reactor::process::with_clean_signals(&mut command)
        .spawn()
        .map_err(failed)?;
    let mut output = child.stdout.take().expect("it was asked for");
    let most = to.map_or(ENDLESS, |to| to - from);
    let read = io::copy(&mut output.by_ref().take(from), &mut io::sink())
        .map_err(Failure::from)
        .and_then(|skipped| {
            let (blob, end) = take(&mut output, most, half_of_memory())?;
            Ok((skipped, blob, end))
        });
    drop(output);
    let status = child.wait().map_err(failed)?;
    let (skipped, blob, end) = read.map_err(|failure| match failure {
        Failure::Io(cause) => failed(cause),
        Failure::Endless => endless(at, &What::Script(script.to_owned())),
    })?;
    if end && !status.success() {
        let why = format!("{}: the script failed: {status}", what());
        return Err(Fault {
            kind: ErrorKind::Io,
            ..Fault::new(at, why)
        });
    }
    if skipped < from || to.is_some() && blob.len < most {
        return Err(bad_slice(at, from, to, Some(skipped + blob.len)));
    }
    match to {
        None if !end => Err(endless(at, &What::Script(script.to_owned()))),
        _ => Ok(blob),
    }
}

/// At most `most` bytes, of which at most `memory` are kept; and whether the end was seen.
fn take(source: &mut impl Read, most: u64, memory: u64) -> Result<(Blob, bool), Failure> {
    let (mut blob, mut kept) = (Blob::default(), 0);
    let mut piece = Vec::with_capacity(PIECE as usize);
    loop {
        piece.clear();
        let wanted = (most - blob.len).min(PIECE);
        if wanted == 0 {
            return Ok((blob, false));
        }
        source.by_ref().take(wanted).read_to_end(&mut piece)?;
        if piece.iter().any(|byte| *byte != 0) {
            kept += piece.len() as u64;
            if kept > memory {
                return Err(no_memory().into());
            }
            let mut copy = Vec::new();
            copy.try_reserve_exact(piece.len())
                .map_err(|_| no_memory())?;
            copy.extend_from_slice(&piece);
            blob.pieces.insert(blob.len / PIECE, copy.into());
        }
        blob.len += piece.len() as u64;
        if (piece.len() as u64) < wanted {
            return Ok((blob, true));
        }
    }
}

/// What is read is copied to the disk before it is forgotten.
fn half_of_memory() -> u64 {
    memory::available().map_or(u64::MAX, |free| free / 2)
}

fn endless(at: At, what: &What) -> Fault {
    let gib = ENDLESS >> 30;
    let why = format!("{what} gives more than {gib} GiB; say how much of it with [:LENGTH]");
    Fault::new(at, why)
}

fn no_memory() -> io::Error {
    io::Error::from_raw_os_error(Errno::ENOMEM.get())
}

fn fault(at: At, why: String, cause: io::Error) -> Fault {
    Fault {
        cause: Some(cause),
        ..Fault::new(at, why)
    }
}
