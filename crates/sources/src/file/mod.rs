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
mod extents;
mod inode;
mod open;
mod queue;
mod zero;

use std::{
    collections::HashMap,
    fs::File,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use block::{
    Access, Device, Error, ErrorKind, Export, Exports, Local, OpenContext, Result, Source,
};
use config::{Arg, Choice, Config};
use device::{FileDevice, OpenFile};
use inode::Key;
use open::{Options, Place};

use crate::registry;

/// A local file or block device, or all files of a directory.
///
/// The file is opened for writing if that is allowed, else for reading only.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
#[config(check = FileConfig::one_of)]
pub struct FileConfig {
    /// The file or block device to serve.
    #[config(magic)]
    pub file: Option<PathBuf>,
    /// Serve every regular file and block device in this directory, each as an export of its name.
    ///
    /// Symbolic links are followed if they stay inside the directory.
    #[config(value = "DIR")]
    pub dir: Option<PathBuf>,
    /// Bypass the page cache (O_DIRECT).
    #[config(default = "false")]
    pub direct: bool,
    /// How the file will be read, for the kernel's read-ahead.
    #[config(default = "normal")]
    pub fadvise: Fadvise,
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
    fn one_of(&self) -> Result<(), String> {
        match (&self.file, &self.dir) {
            (Some(_), Some(_)) => Err("file and dir cannot both be given".into()),
            (None, None) => Err("file=<FILE> or dir=<DIR> is required".into()),
            _ => Ok(()),
        }
    }
}

/// The source. Opens nothing yet.
///
/// # Errors
/// `Config`, if both or neither of `file` and `dir` are given; `Io`, if a relative path cannot be
/// made absolute because the current directory is gone.
pub fn new(config: FileConfig) -> Result<Arc<dyn Source>> {
    let name: Arc<str> = "file".into();
    config
        .one_of()
        .map_err(|why| Error::new(ErrorKind::Config, why).in_node(&name))?;
    // The process may change its directory before the file is opened.
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .map_err(|e| Error::io(format!("cannot locate '{}'", path.display()), e))
            .map_err(|e| e.in_node(&name))
    };
    let what = match (&config.file, &config.dir) {
        (Some(file), _) => What::File(absolute(file)?),
        (_, dir) => What::Dir {
            path: absolute(dir.as_ref().expect("one of the two is given"))?,
            fd: OnceLock::new(),
        },
    };
    let shared = Shared {
        name: name.clone(),
        what,
        options: Options {
            direct: config.direct,
            fadvise: config.fadvise,
            lock: config.lock,
        },
        opened: Mutex::default(),
    };
    Ok(Arc::new(FileSource {
        name,
        shared: Arc::new(shared),
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
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

struct FileSource {
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
        };
        found.map_err(|e| e.in_node(&self.name))
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async move {
            if let What::File(_) = self.shared.what {
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
    fn lost(&self, panicked: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::new(ErrorKind::Internal, "cannot open")
            .caused_by(panicked)
            .in_node(&self.name)
    }
}

impl Shared {
    /// The directory that is served. Opened once, so that what it is called later does not matter.
    fn dir(&self) -> Result<&OwnedFd> {
        let What::Dir { path, fd } = &self.what else {
            unreachable!("asked only where a directory is served");
        };
        match fd.get() {
            Some(fd) => Ok(fd),
            None => {
                let opened = open::directory(path)?;
                Ok(fd.get_or_init(|| opened))
            }
        }
    }

    /// The file for a client. Blocks.
    fn open(&self, export: &str, write: bool) -> Result<Arc<OpenFile>> {
        let place = match &self.what {
            What::File(path) => Place::Path(path),
            What::Dir { path, .. } => {
                open::check_name(export)?;
                Place::In(self.dir()?, export, path)
            }
        };
        let slot = (open::probe(&place)?, write);
        if let Some(file) = self.table().get(&slot).and_then(Weak::upgrade) {
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
        let file = Arc::new(OpenFile::new(opened, &self.name));
        table.retain(|_, file| file.strong_count() > 0);
        table.insert(slot, Arc::downgrade(&file));
        Ok(file)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<(Key, bool), Weak<OpenFile>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
