//! A persistent disk for every export name, made when it is first asked for.
//!
//! *Names.* The disk of an export is the file of that name in one directory; the empty name means
//! `default`. A name that begins with a dot, has a slash or is longer than a file's name can be is
//! refused, so a client reaches nothing outside the directory, and nothing in it that is not a disk.
//!
//! *Locks.* A client's disk is locked (by its open file description) until the client is gone, against
//! other clients and other servers; with `share`, only against servers that do not share it.
//!
//! *Contract.* A disk appears under its name when it is complete: it is made in a directory beside it,
//! whose name no client can ask for, and then moved. So a server that dies while mkfs runs leaves
//! no half a file system to the next client.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use block::{
    Access, Device, Error, ErrorKind, Export, Exports, Local, OpenContext, Result, Source,
};
use config::{Arg, Config, Size};
use reactor::blkdev::{self, FileLock};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    file, mkfs::Recipe, regions::as_allowed, registry, scratch, scratch::blocking, single,
};

/// How often a client that waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The name of the export without a name.
const DEFAULT: &str = "default";

/// The longest name of a file (NAME_MAX).
const NAME_MAX: usize = 255;

/// A disk for every export name, made when a client first asks for it, and kept.
///
/// Clients can make as many disks as they like: let only those in whom you trust.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
#[config(name = "ondemand", check = OndemandConfig::check)]
pub struct OndemandConfig {
    /// The directory where the disks are kept.
    #[config(value = "DIR")]
    pub dir: PathBuf,
    /// Size of each disk; a command may make another.
    #[config(magic)]
    pub size: Size,
    /// Type of the file system, as mkfs -t takes it.
    #[config(name = "type", default = "ext4")]
    pub kind: String,
    /// Label of the file system.
    pub label: Option<String>,
    /// Let several clients use one disk at the same time.
    ///
    /// Only for clients that agree among themselves: ordinary file systems do not survive it.
    #[config(default = "false")]
    pub share: bool,
    /// Let a client wait until the disk it wants is free, and do not refuse it.
    #[config(default = "false")]
    pub wait: bool,
    /// A shell script that makes the disk, instead of mkfs.
    ///
    /// It makes the file $disk, of $size bytes if it likes. All parameters are shell variables.
    pub command: Option<String>,
    /// Variables for the command.
    #[config(rest)]
    pub variables: Vec<(String, String)>,
}

impl OndemandConfig {
    fn check(&self) -> Result<(), String> {
        self.recipe().check()
    }

    fn recipe(&self) -> Recipe {
        Recipe {
            size: self.size.0,
            kind: self.kind.clone(),
            label: self.label.clone(),
            command: self.command.clone(),
            variables: self.variables.clone(),
        }
    }
}

/// The source. Makes and opens nothing yet.
///
/// # Errors
/// `Io`, if a relative path cannot be made absolute because the current directory is gone.
pub fn new(config: OndemandConfig) -> Result<Arc<dyn Source>> {
    let name: Arc<str> = "ondemand".into();
    let dir = file::absolute(&config.dir).map_err(|e| e.in_node(&name))?;
    Ok(Arc::new(Ondemand {
        dir: dir.into(),
        recipe: config.recipe(),
        share: config.share,
        wait: config.wait,
        making: Making::default(),
        name,
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Ondemand {
    name: Arc<str>,
    dir: Arc<Path>,
    recipe: Recipe,
    share: bool,
    wait: bool,
    making: Making,
}

impl Source for Ondemand {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ready(&self) -> Result<()> {
        list(&self.dir).map(drop).map_err(|e| e.in_node(&self.name))
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        let dir = self.dir.clone();
        Box::pin(async move {
            let names = blocking(&cx.reactor, move || list(&dir)).await;
            let names = names.map_err(|e| e.in_node(&self.name))?;
            let export = |name| Export {
                name,
                description: None,
            };
            Ok(Exports {
                list: names.into_iter().map(export).collect(),
                default: Some(DEFAULT.into()),
            })
        })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move { self.disk(cx).await.map_err(|e| e.in_node(&self.name)) })
    }
}

impl Ondemand {
    async fn disk(&self, cx: &OpenContext) -> Result<Arc<dyn Device>> {
        let name = disk_name(&cx.export)?;
        let file = loop {
            match self.try_open(cx, name).await? {
                Attempt::Open(file) => break file,
                Attempt::Missing => match self.making.begin(name) {
                    Some(begun) => {
                        let made = self.make(cx, name).await?;
                        drop(begun);
                        if let Some(file) = made {
                            break file;
                        }
                    }
                    // It will be free for us when it is made.
                    None if self.share || self.wait => cx.reactor.sleep(LOOK_AGAIN).await,
                    None => return Err(locked()),
                },
                Attempt::Locked if self.wait => cx.reactor.sleep(LOOK_AGAIN).await,
                Attempt::Locked => return Err(locked()),
            }
        };
        let node = self.name.clone();
        let device = blocking(&cx.reactor, move || file::device(file, &node)).await?;
        let device = match self.share {
            true => device,
            // There is no second client to whom a flush could matter.
            false => single::one_connection(device),
        };
        Ok(as_allowed(device, cx.access))
    }

    async fn try_open(&self, cx: &OpenContext, name: &str) -> Result<Attempt> {
        let path = self.dir.join(name);
        let (kind, access) = (self.lock_kind(), cx.access);
        blocking(&cx.reactor, move || attempt(&path, kind, access)).await
    }

    /// Makes the disk, locked already. `None`, if somebody else was faster.
    async fn make(&self, cx: &OpenContext, name: &str) -> Result<Option<File>> {
        let dir = self.dir.clone();
        let place = blocking(&cx.reactor, move || scratch::directory_in(&dir, ".making-")).await?;
        let (fresh, path) = (place.path().join(name), self.dir.join(name));
        self.recipe.make(cx, &fresh).await?;
        let kind = self.lock_kind();
        blocking(&cx.reactor, move || {
            let file = scratch::open_made(&fresh)?;
            lock(&file, kind, &path)?;
            let moved = file.sync_all().and_then(|()| move_to(&fresh, &path));
            drop(place);
            match moved {
                Ok(()) => Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                Err(error) => {
                    let what = format!("cannot put the new disk at '{}'", path.display());
                    Err(Error::io(what, error))
                }
            }
        })
        .await
    }

    fn lock_kind(&self) -> FileLock {
        match self.share {
            true => FileLock::Shared,
            false => FileLock::Exclusive,
        }
    }
}

enum Attempt {
    Open(File),
    Missing,
    Locked,
}

/// Opens and locks a disk that is there. Blocks.
fn attempt(path: &Path, kind: FileLock, access: Access) -> Result<Attempt> {
    let cannot = |error| Error::io(format!("cannot open '{}'", path.display()), error);
    let opened = File::options().read(true).write(true).open(path);
    let (file, kind) = match opened {
        Ok(file) => (file, kind),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Missing),
        // Whoever only reads may read what nobody may write.
        Err(error) if access == Access::ReadOnly && is_refusal(&error) => {
            (File::open(path).map_err(cannot)?, FileLock::Shared)
        }
        Err(error) => return Err(cannot(error)),
    };
    if !lock(&file, kind, path)? {
        return Ok(Attempt::Locked);
    }
    // The name may mean another file by now, or none: then the lock is worth nothing.
    let same = |now: Metadata| {
        let locked = file.metadata()?;
        Ok::<_, io::Error>((now.dev(), now.ino()) == (locked.dev(), locked.ino()))
    };
    match fs::metadata(path).and_then(same) {
        Ok(true) => Ok(Attempt::Open(file)),
        Ok(false) => Ok(Attempt::Locked),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Attempt::Missing),
        Err(error) => Err(cannot(error)),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// Locks a disk. False, if somebody else has a lock on it.
fn lock(file: &File, kind: FileLock, path: &Path) -> Result<bool> {
    match blkdev::lock(file, kind) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => {
            let what = format!("cannot lock '{}'", path.display());
            Err(Error::io(what, error).hint("keep the disks on a file system that has locks"))
        }
    }
}

/// Moves a disk to its name, if that is free.
fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without that call. Nobody else in this process makes the same disk.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match to.try_exists()? {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => fs::rename(from, to),
        },
        other => Ok(other?),
    }
}

fn locked() -> Error {
    Error::new(ErrorKind::Busy, "filesystem is locked by another client")
        .hint("wait=true lets a client wait until the other is gone")
}

/// The name of the disk of an export.
fn disk_name(export: &str) -> Result<&str> {
    let why = match export {
        "" => return Ok(DEFAULT),
        _ if export.starts_with('.') => "an export's name does not begin with '.'",
        _ if export.contains('/') => "an export's name has no '/'",
        _ if export.contains('\0') => "an export's name has no NUL",
        _ if export.len() > NAME_MAX => "an export's name has 255 bytes at the most",
        _ => return Ok(export),
    };
    Err(Error::new(ErrorKind::NotFound, why))
}

/// The disks there are, sorted. Blocks.
fn list(dir: &Path) -> Result<Vec<String>> {
    let failed = |error| {
        Error::io(
            format!("cannot read the directory '{}'", dir.display()),
            error,
        )
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_file = fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file());
        if is_file && disk_name(&name).is_ok() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The disks that are being made: two clients must not make the same one.
#[derive(Clone, Default)]
struct Making(Arc<Mutex<HashSet<String>>>);

/// The right to make one disk, until dropped.
struct Begun(Making, String);

impl Making {
    fn begin(&self, name: &str) -> Option<Begun> {
        let fresh = self.names().insert(name.to_owned());
        fresh.then(|| Begun(self.clone(), name.to_owned()))
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.names().remove(&self.1);
    }
}

#[cfg(test)]
mod tests;
