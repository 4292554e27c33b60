//! Scratch devices: a temporary file without a name, so that nothing is left behind however the
//! process ends. Sparse; reads as zeroes where nothing was written.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use block::{Device, Error, ErrorKind, Reactor, Result};

/// Makes a scratch device of `size` bytes.
pub(super) async fn make(reactor: &Reactor, size: u64) -> Result<Arc<dyn Device>> {
    let made = reactor.blocking(move || {
        let file = open(&directory(), size)?;
        sources::file::device(file, &"scratch".into())
    });
    made.await.map_err(|lost| {
        Error::new(ErrorKind::Internal, "cannot make scratch space").caused_by(lost)
    })?
}

/// `$TMPDIR`, else `/var/tmp`: unlike `/tmp` that is seldom a file system in memory.
fn directory() -> PathBuf {
    std::env::var_os("TMPDIR")
        .filter(|name| !name.is_empty())
        .map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

fn open(directory: &Path, size: u64) -> Result<File> {
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
    Ok(file)
}
