//! Where temporary disks lie, and how programs make them.
//!
//! A temporary disk begins as a file in a directory of its own, which nobody else may look into; once
//! it is made and open, the name is removed. So nothing stays behind when the last one closes it,
//! however the process ends.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use block::{Error, ErrorKind, Reactor, Result};
use tempfile::TempDir;

/// A directory of our own in `$TMPDIR`, else in `/var/tmp`: unlike `/tmp` that is seldom a file system
/// in memory. Blocks.
pub(crate) fn directory(prefix: &str) -> Result<TempDir> {
    let place = std::env::var_os("TMPDIR").filter(|name| !name.is_empty());
    let place = place.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    directory_in(&place, prefix).map_err(|error| error.hint("TMPDIR says where temporary files go"))
}

/// A directory of our own in this one. Blocks.
pub(crate) fn directory_in(place: &Path, prefix: &str) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(place);
    made.map_err(|error| {
        let what = format!("cannot make a temporary directory in '{}'", place.display());
        Error::io(what, error)
    })
}

/// Opens a file that a program has just made, for writing. Blocks.
pub(crate) fn open_made(path: &Path) -> Result<File> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map_err(|error| {
        let what = format!("cannot open the disk that was made at '{}'", path.display());
        Error::io(what, error)
    })
}

/// `$PATH`, and where programs for administrators are: users do not have those in it.
pub(crate) fn path_variable() -> String {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
    format!("{path}:/usr/sbin:/sbin")
}

/// Runs a job that may wait on the reactor's pool.
pub(crate) async fn blocking<T: Send + 'static>(
    reactor: &Reactor,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = reactor.blocking(job).await;
    done.map_err(|lost| Error::new(ErrorKind::Internal, "cannot make a disk").caused_by(lost))?
}

/// Runs a program to its end, here and now: before any client comes.
pub(crate) fn run(program: &mut Command) -> Result<Output> {
    let name = program.get_program().to_string_lossy().into_owned();
    program.env("PATH", path_variable());
    reactor::process::with_clean_signals(program)
        .output()
        .map_err(|error| Error::io(format!("cannot run '{name}'"), error))
}

/// The error of a program that failed: with what it wrote about it.
pub(crate) fn failed(what: &str, code: Option<i32>, stderr: &[u8]) -> Error {
    /// Of what a program wrote, the end says why it failed.
    const MOST: usize = 1000;
    let from = stderr.len().saturating_sub(MOST);
    let text = String::from_utf8_lossy(&stderr[from..]);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let ended = match code {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
    };
    let text = match &lines[..] {
        [] => format!("{what} failed ({ended})"),
        lines => format!("{what} failed ({ended}): {}", lines.join("; ")),
    };
    Error::new(ErrorKind::Io, text)
}
