//! Scratch devices: a temporary file without a name, so that nothing is left behind however the
//! process ends.
//!
//! Sparse; reads as zeroes where nothing was written. What it holds is as short-lived as the
//! process, so a flush has nothing to make durable and is done at once.

use std::{fs::File, io, path::PathBuf, rc::Rc, sync::Arc};

use block::{
    Device, Error, ErrorKind, Limits, Op, OpSet, Queue, Reactor, Request, Result, Support,
};
use reactor::{FileOptions, FileVerb, Io, IoFile};
use rustix::fs::{FallocateFlags, fallocate};

/// Makes a scratch device of `size` bytes.
pub(super) async fn make(reactor: &Reactor, size: u64) -> Result<Arc<dyn Device>> {
    let made = reactor.blocking(move || open(&directory(), size)).await;
    let scratch = made.map_err(|lost| {
        Error::new(ErrorKind::Internal, "cannot make scratch space").caused_by(lost)
    })??;
    Ok(Arc::new(scratch))
}

/// `$TMPDIR`, else `/var/tmp`: unlike `/tmp` that is seldom a file system in memory.
fn directory() -> PathBuf {
    std::env::var_os("TMPDIR")
        .filter(|name| !name.is_empty())
        .map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

fn open(directory: &PathBuf, size: u64) -> Result<Scratch> {
    let what = || format!("cannot make a temporary file in '{}'", directory.display());
    let file = tempfile::tempfile_in(directory)
        .map_err(|error| Error::io(what(), error).hint("TMPDIR says where temporary files go"))?;
    file.set_len(size).map_err(|error| {
        let error = match error.kind() {
            // A file system has a largest file, and a size beyond that is not ours to mend.
            io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput => {
                Error::new(ErrorKind::Exhausted, what()).caused_by(error)
            }
            _ => Error::io(what(), error),
        };
        error.hint(format!(
            "it has to be {size} bytes long, most of them holes; TMPDIR can name a directory on \
             a file system that allows this"
        ))
    })?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punches = size > 0 && fallocate(&file, punch, 0, size.min(4096)).is_ok();
    Ok(Scratch {
        limits: Arc::new(limits(size, punches)),
        file: Arc::new(file),
    })
}

fn limits(size: u64, punches: bool) -> Limits {
    let ops = OpSet::of(&[Op::Read, Op::Write, Op::Flush]);
    let mut limits = Limits::new(size, ops);
    limits.fua = Support::Native;
    limits.multi_conn = true;
    limits.fast_zero = punches;
    let holes = if punches {
        Support::Native
    } else {
        Support::Emulated
    };
    limits.set(Op::WriteZeroes, holes);
    if punches {
        limits.set(Op::Discard, Support::Native);
    }
    limits
}

/// A temporary file as a device.
struct Scratch {
    file: Arc<File>,
    limits: Arc<Limits>,
}

impl Device for Scratch {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let options = FileOptions {
            inline: true,
            ..FileOptions::default()
        };
        let file = Io::of(reactor).file(self.file.clone(), options);
        Ok(Rc::new(ScratchQueue { file }))
    }
}

struct ScratchQueue {
    file: Rc<IoFile>,
}

impl Queue for ScratchQueue {
    fn submit(&self, req: Request) {
        let verb = match req.op() {
            Op::Read => FileVerb::Read,
            Op::Write => FileVerb::Write { dsync: false },
            Op::WriteZeroes | Op::Discard if req.len() == 0 => return req.done(),
            // Also with NO_HOLE: scratch space is never promised, so none is kept reserved.
            Op::WriteZeroes | Op::Discard => FileVerb::Fallocate {
                mode: (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE).bits() as i32,
            },
            Op::Flush => return req.done(),
            _ => return req.fail(block::Errno::ENOTSUP),
        };
        let at = req.offset();
        self.file.submit(verb, at, req);
    }
}
