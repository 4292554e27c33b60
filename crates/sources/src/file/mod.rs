//! Local files and block devices.
//!
//! | module | what |
//! | --- | --- |
//! | `open` | finding, checking, opening and locking a file; every error a user can meet |
//! | `inode` | what all devices of one file share: failed flushes, group commit, learned abilities |
//! | `device` | an opened file: its limits |
//! | `queue` | the data path |
//! | `zero` | write zeroes and discard |
//! | `extents` | where the holes are |
//! | `evict` | keeping out of the page cache |
//! | `watch` | seeing that somebody has resized the file |
//!
//! *Opened when a client comes*, as that client may be served: for writing if the client may write
//! and the file lets us, else for reading. Clients of one source share what is open.
//!
//! *Durability.* A flush is fdatasync(2), FUA is RWF_DSYNC. When an fdatasync fails, the kernel may
//! already have thrown the dirty pages away, and the next fdatasync reports success. So the failure
//! stays with the file, for every device on it in this process, until all of them are closed. Flushes
//! go through a file description of their own, because the kernel reports each failure once per
//! description: an FUA write must not swallow what a flush has to report.
//!
//! *Directories.* With `dir`, a client's export name is looked up in one directory. A name with a
//! slash, or `.` or `..`, does not exist. Symbolic links are followed as long as they stay inside the
//! directory (openat2(2), RESOLVE_BENEATH), so neither a client nor somebody who can make links in
//! the directory can reach a file outside it. On kernels without openat2 no link is followed.

mod device;
mod evict;
pub(crate) mod extents;
mod inode;
mod open;
mod queue;
mod watch;
mod zero;

use std::{
    collections::HashMap,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use block::{
    Access, Device, Error, ErrorKind, Export, Exports, Local, OpenContext, Result, Source,
};
use config::{Arg, Choice, Config};
use device::{FileDevice, OpenFile};
use evict::Evict;
use inode::Key;
use open::{Options, Place};

use crate::registry;

/// A local file or block device, or all files of a directory.
///
/// The file is opened for writing if that is allowed, else for reading only. One of file, dir, fd and
/// dirfd is needed.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
#[config(check = FileConfig::consistent)]
pub struct FileConfig {
    /// The file or block device to serve.
    #[config(magic)]
    pub file: Option<PathBuf>,
    /// Serve every regular file and block device in this directory, each as an export of its name.
    ///
    /// Symbolic links are followed if they stay inside the directory.
    #[config(value = "DIR")]
    pub dir: Option<PathBuf>,
    /// The descriptor of a file or block device that this process got from its parent.
    ///
    /// Clients may write if it is open for reading and writing. It is not locked unless lock= is given.
    pub fd: Option<u32>,
    /// The descriptor of a directory that this process got from its parent, to serve as with dir=.
    pub dirfd: Option<u32>,
    /// Bypass the page cache (O_DIRECT).
    #[config(default = "false")]
    pub direct: bool,
    /// How the file will be read, for the kernel's read-ahead.
    #[config(default = "normal")]
    pub fadvise: Fadvise,
    /// Keep what is read and written out of the page cache as far as possible.
    ///
    /// For large files that are copied once: other programs keep their cache.
    #[config(default = "false")]
    pub reduce_memory_pressure: bool,
    /// The old spelling of reduce-memory-pressure.
    pub cache: Option<Caching>,
    /// Which lock to hold while the file is open.
    ///
    /// The locks are those of open file descriptions over the whole file, which QEMU sees too.
    #[config(default = "auto")]
    pub lock: Lock,
}

/// How a file will be read (posix_fadvise).
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fadvise {
    /// No particular way.
    Normal,
    /// In random order: no read-ahead.
    Random,
    /// From front to back: more read-ahead.
    Sequential,
}

/// What stays in the page cache.
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// What the kernel likes to keep.
    Default,
    /// As little as possible: the same as reduce-memory-pressure=true.
    None,
}

/// Which lock to hold on an open file.
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Exclusive when writing, shared when only reading; none where there are no locks.
    Auto,
    /// No lock: whoever else writes is your problem.
    None,
    /// Shared, even when writing: for writers that agree among themselves.
    Shared,
    /// Exclusive, and the file must be writable.
    Exclusive,
}

impl FileConfig {
    /// One file, with nothing special.
    pub fn of(path: &Path) -> FileConfig {
        FileConfig {
            file: Some(path.to_owned()),
            dir: None,
            fd: None,
            dirfd: None,
            direct: false,
            fadvise: Fadvise::Normal,
            reduce_memory_pressure: false,
            cache: None,
            lock: Lock::Auto,
        }
    }

    fn consistent(&self) -> Result<(), String> {
        let given = [
            ("file", self.file.is_some()),
            ("dir", self.dir.is_some()),
            ("fd", self.fd.is_some()),
            ("dirfd", self.dirfd.is_some()),
        ];
        let given: Vec<_> = given
            .iter()
            .filter(|(_, is)| *is)
            .map(|(n, _)| *n)
            .collect();
        match given[..] {
            [] => return Err("file=<FILE>, dir=<DIR>, fd=<N> or dirfd=<N> is required".into()),
            [_] => {}
            [one, other, ..] => return Err(format!("{one} and {other} cannot both be given")),
        }
        for (key, fd) in [("fd", self.fd), ("dirfd", self.dirfd)] {
            if fd.is_some_and(|fd| fd <= 2) {
                return Err(format!(
                    "{key} cannot be standard input, output or error (0, 1, 2)"
                ));
            }
        }
        if self.fd.is_some() && self.direct {
            return Err("direct cannot be given with fd: the descriptor is open already".into());
        }
        if self.cache == Some(Caching::Default) && self.reduce_memory_pressure {
            return Err("cache=default contradicts reduce-memory-pressure=true".into());
        }
        Ok(())
    }

    fn evicts(&self) -> bool {
        self.reduce_memory_pressure || self.cache == Some(Caching::None)
    }
}

/// The source. Opens nothing yet.
///
/// # Errors
/// `Config`, if not exactly one of `file`, `dir`, `fd` and `dirfd` is given, or parameters contradict
/// each other; `Io`, if a relative path cannot be made absolute because the current directory is gone.
pub fn new(config: FileConfig) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(FileSource::new(config, &"file".into())?))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// The path, whatever directory this process changes to.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|e| Error::io(format!("cannot locate '{}'", path.display()), e))
}

/// A device over a file that is open already, for temporary files and descriptors from elsewhere.
/// Writable; no lock is taken. `name` is for error messages.
///
/// # Errors
/// Not a regular file or block device; or its size cannot be found out.
pub fn device(file: File, name: &Arc<str>) -> Result<Arc<dyn Device>> {
    let opened = open::adopt(file).map_err(|e| e.in_node(name))?;
    Ok(Arc::new(FileDevice(Arc::new(OpenFile::new(opened, name)))))
}

/// A device for reading the file at `path`, without a lock. Blocks.
///
/// # Errors
/// As those of opening a [`FileConfig::file`].
pub(crate) fn reader(path: &Path, name: &Arc<str>) -> Result<Arc<dyn Device>> {
    let options = Options {
        direct: false,
        fadvise: Fadvise::Normal,
        lock: Lock::None,
        evict: false,
    };
    let opened = open::open(&Place::Path(path), false, &options).map_err(|e| e.in_node(name))?;
    Ok(Arc::new(FileDevice(Arc::new(OpenFile::new(opened, name)))))
}

/// See [`new`]. Other sources that are made of files have these inside.
pub(crate) struct FileSource {
    name: Arc<str>,
    shared: Arc<Shared>,
}

/// What the pool's threads need too.
struct Shared {
    name: Arc<str>,
    what: What,
    options: Options,
    /// What is open now, by file and by what its clients may do.
    opened: Mutex<HashMap<(Key, bool), Weak<OpenFile>>>,
}

enum What {
    File(PathBuf),
    Dir {
        path: PathBuf,
        /// It is this descriptor of the parent's, and the path is for messages only.
        number: Option<u32>,
        fd: OnceLock<OwnedFd>,
    },
    /// A descriptor from the parent, which is taken over once.
    Fd {
        number: u32,
        fd: OnceLock<OwnedFd>,
    },
}

impl Source for FileSource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Finds out early what would fail for every client.
    fn ready(&self) -> Result<()> {
        let found = match &self.shared.what {
            // Reading is the least a client wants: permissions, O_DIRECT and locks are tried out.
            What::File(path) => {
                let (place, options) = (Place::Path(path), &self.shared.options);
                open::open(&place, false, options)
                    .and_then(|opened| open::probe_lock(&opened, &place, options.lock))
            }
            What::Dir { .. } => self.shared.dir().map(drop),
            What::Fd { number, fd } => open::inherited(*number, fd)
                .and_then(|fd| open::probe(&Place::Fd(fd, *number)).map(drop)),
        };
        found.map_err(|e| e.in_node(&self.name))
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async move {
            if let What::File(_) | What::Fd { .. } = self.shared.what {
                return Ok(Exports::single());
            }
            let shared = self.shared.clone();
            let names = cx.reactor.blocking(move || open::list(shared.dir()?)).await;
            let names = names.map_err(|e| self.lost(e))?;
            let list = names.map_err(|e| e.in_node(&self.name))?.into_iter();
            let list = list.map(|name| Export {
                name,
                description: None,
            });
            Ok(Exports {
                list: list.collect(),
                default: None,
            })
        })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        let (shared, export) = (self.shared.clone(), cx.export.clone());
        let write = cx.access == Access::ReadWrite;
        Box::pin(async move {
            let job = cx.reactor.blocking(move || shared.open(&export, write));
            let opened = job.await.map_err(|e| self.lost(e))?;
            let file = opened.map_err(|e| e.in_node(&self.name))?;
            Ok(Arc::new(FileDevice(file)) as Arc<dyn Device>)
        })
    }
}

impl FileSource {
    /// The source of the node called `name`.
    pub fn new(config: FileConfig, name: &Arc<str>) -> Result<FileSource> {
        let consistent = config.consistent();
        consistent.map_err(|why| Error::new(ErrorKind::Config, why).in_node(name))?;
        // The process may change its directory before the file is opened.
        let absolute = |path: &PathBuf| absolute(path).map_err(|e| e.in_node(name));
        let empty = OnceLock::new;
        let what = match &config {
            FileConfig {
                file: Some(file), ..
            } => What::File(absolute(file)?),
            FileConfig { dir: Some(dir), .. } => What::Dir {
                path: absolute(dir)?,
                number: None,
                fd: empty(),
            },
            FileConfig { fd: Some(fd), .. } => What::Fd {
                number: *fd,
                fd: empty(),
            },
            _ => {
                let number = config.dirfd.expect("one of the four is given");
                What::Dir {
                    path: format!("/dev/fd/{number}").into(),
                    number: Some(number),
                    fd: empty(),
                }
            }
        };
        let shared = Shared {
            name: name.clone(),
            what,
            options: Options {
                direct: config.direct,
                fadvise: config.fadvise,
                lock: config.lock,
                evict: config.evicts(),
            },
            opened: Mutex::default(),
        };
        Ok(FileSource {
            name: name.clone(),
            shared: Arc::new(shared),
        })
    }

    /// How long the one file is now, in bytes. Blocks.
    pub fn length(&self) -> Result<u64> {
        let found = self.shared.place("").and_then(|place| {
            open::open(&place, false, &self.shared.options).map(|opened| opened.size)
        });
        found.map_err(|e| e.in_node(&self.name))
    }

    fn lost(&self, panicked: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::new(ErrorKind::Internal, "cannot open")
            .caused_by(panicked)
            .in_node(&self.name)
    }
}

impl Shared {
    /// The directory that is served. Opened once, so that what it is called later does not matter.
    fn dir(&self) -> Result<&OwnedFd> {
        let What::Dir { path, number, fd } = &self.what else {
            unreachable!("asked only where a directory is served");
        };
        match (fd.get(), number) {
            (Some(fd), _) => Ok(fd),
            (None, Some(number)) => open::inherited_directory(*number, fd),
            (None, None) => {
                let opened = open::directory(path)?;
                Ok(fd.get_or_init(|| opened))
            }
        }
    }

    /// Where the file of an export is.
    fn place<'a>(&'a self, export: &'a str) -> Result<Place<'a>> {
        match &self.what {
            What::File(path) => Ok(Place::Path(path)),
            What::Fd { number, fd } => Ok(Place::Fd(open::inherited(*number, fd)?, *number)),
            What::Dir { path, .. } => {
                open::check_name(export)?;
                Ok(Place::In(self.dir()?, export, path))
            }
        }
    }

    /// The file for a client. Blocks.
    fn open(&self, export: &str, write: bool) -> Result<Arc<OpenFile>> {
        let place = self.place(export)?;
        let slot = (open::probe(&place)?, write);
        let known = self.table().get(&slot).and_then(Weak::upgrade);
        if let Some(file) = known {
            // Nobody may be watching it.
            file.length.look();
            return Ok(file);
        }
        // Not under the table's lock: a slow file must not hold up the others.
        let opened = open::open(&place, write, &self.options)?;
        let mut table = self.table();
        let slot = (opened.key, write);
        if let Some(file) = table.get(&slot).and_then(Weak::upgrade) {
            return Ok(file);
        }
        open::lock(&opened, &place, self.options.lock)?;
        let mut file = OpenFile::new(opened, &self.name);
        file.evict = self.options.evict.then(Evict::default);
        let file = Arc::new(file);
        table.retain(|_, file| file.strong_count() > 0);
        table.insert(slot, Arc::downgrade(&file));
        Ok(file)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<(Key, bool), Weak<OpenFile>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next fdatasync of this file, which is open, fails.
#[cfg(test)]
pub(crate) fn fail_next_flush(path: &Path, errno: block::Errno) {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).unwrap();
    let inode = inode::Inode::of(Key::File(meta.dev(), meta.ino()));
    inode.faults.lock().unwrap().push(errno);
}

#[cfg(test)]
mod tests;
