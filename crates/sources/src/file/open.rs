//! Finding, checking, opening and locking a file: the control path, which may block, and every error
//! a user can meet.
//!
//! A file is first looked at (O_PATH, which has no side effects: opening a FIFO or a tape drive has),
//! then opened, and then looked at again, because a name may mean another file by now.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use block::{Error, ErrorKind, Result};
use reactor::blkdev::{self, FileLock};
use rustix::{
    fs::{
        self, Advice, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat,
        StatxFlags,
    },
    io::Errno,
};

use super::{Fadvise, Lock, inode::Key};

/// How to open.
pub(super) struct Options {
    pub direct: bool,
    pub fadvise: Fadvise,
    pub lock: Lock,
    /// Keep it out of the page cache.
    pub evict: bool,
}

/// Where a file is.
pub(super) enum Place<'a> {
    /// At a path.
    Path(&'a Path),
    /// A name in a directory, with the directory's path for messages.
    In(&'a OwnedFd, &'a str, &'a Path),
    /// Open already, with the number that the parent gave it.
    Fd(&'a OwnedFd, u32),
}

/// An opened file.
pub(super) struct Opened {
    pub key: Key,
    /// For reads and writes; with O_DIRECT if that was asked for.
    pub data: File,
    /// For flushes, always buffered.
    pub sync: File,
    pub writable: bool,
    pub direct: bool,
    /// A block device, not a regular file.
    pub block_device: bool,
    /// In bytes.
    pub size: u64,
    /// Offsets and lengths of direct requests, and of zeroing and discarding on a block device.
    pub block: u32,
    /// Memory addresses of direct requests.
    pub memory_align: u32,
    /// What the file system or the device likes best.
    pub preferred: u64,
    pub rotational: bool,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Path(path) => write!(f, "'{}'", path.display()),
            Place::In(_, name, dir) => write!(f, "'{}'", dir.join(name).display()),
            Place::Fd(_, number) => write!(f, "descriptor {number}"),
        }
    }
}

impl Place<'_> {
    fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let mut flags = flags | OFlags::CLOEXEC;
        // openat2 is strict: nothing is opened with O_PATH, so there is no terminal to refuse.
        if !flags.contains(OFlags::PATH) {
            flags |= OFlags::NOCTTY;
        }
        match self {
            Place::Path(path) => Ok(fs::open(*path, flags, Mode::empty())?),
            Place::In(dir, name, _) => open_beneath(dir, name, flags),
            // For looking at it; `open` does not come here.
            Place::Fd(fd, _) => fd.try_clone(),
        }
    }
}

/// Which file it is. The file is there and of a kind that can be served.
pub(super) fn probe(place: &Place<'_>) -> Result<Key> {
    let found = place.open(OFlags::PATH).and_then(|fd| Ok(fs::fstat(fd)?));
    check_kind(place, &found.map_err(|e| cannot_open(place, "", e))?)
}

/// Opens for writing if `write` and if that is allowed, else for reading. Takes no lock.
pub(super) fn open(place: &Place<'_>, write: bool, options: &Options) -> Result<Opened> {
    let key = probe(place)?;
    if let Place::Fd(fd, _) = place {
        return take_over(place, fd, key, write, options);
    }
    // So that open(2) does not wait, whatever the file turns out to be. `IoFile` clears it again.
    let mut flags = OFlags::NONBLOCK;
    if options.direct {
        flags |= OFlags::DIRECT;
    }
    let claims = write && matches!(options.lock, Lock::Auto | Lock::Exclusive);
    // On a block device: not while it is mounted, or part of a RAID, or claimed by another.
    let claim = match key {
        Key::Device(_) if claims => OFlags::EXCL,
        _ => OFlags::empty(),
    };
    let mut writable = write;
    let mut fd = match write {
        true => place.open(flags | claim | OFlags::RDWR),
        false => place.open(flags | OFlags::RDONLY),
    };
    if write && fd.as_ref().is_err_and(is_refusal) {
        writable = false;
        fd = place.open(flags | OFlags::RDONLY);
    }
    let fd = fd.map_err(|e| explain(place, writable, options, e))?;
    let access = match writable {
        true => OFlags::RDWR,
        false => OFlags::RDONLY,
    };
    let sync = place
        .open(access | OFlags::NONBLOCK)
        .map_err(|e| cannot_open(place, "", e))?;
    for fd in [&fd, &sync] {
        let stat = fs::fstat(fd).map_err(|e| cannot_open(place, "", e.into()))?;
        if check_kind(place, &stat)? != key {
            let what = format!("{place} was replaced while it was being opened");
            return Err(Error::new(ErrorKind::Busy, what));
        }
    }
    advise(&fd, options);
    measure(key, fd.into(), sync.into(), writable, options.direct)
        .map_err(|e| Error::io(format!("cannot find out the size of {place}"), e))
        .and_then(|opened| match opened {
            Some(opened) => Ok(opened),
            None => Err(no_direct(place)),
        })
}

fn advise(fd: &OwnedFd, options: &Options) {
    let advice = match options.fadvise {
        Fadvise::Normal => Advice::Normal,
        Fadvise::Random => Advice::Random,
        Fadvise::Sequential => Advice::Sequential,
    };
    // Advice that is not taken is no error.
    let _ = fs::fadvise(fd, 0, None, advice);
}

/// Takes over a descriptor of the parent's, for writing if `write` and if it is open for that.
fn take_over(
    place: &Place<'_>,
    fd: &OwnedFd,
    key: Key,
    write: bool,
    options: &Options,
) -> Result<Opened> {
    let failed = |e: io::Error| Error::io(format!("cannot use {place}"), e);
    let refused = |how: &str| {
        let text = format!("{place} is open for {how}, and must be for reading and writing");
        Error::new(ErrorKind::Config, text)
    };
    let flags = fs::fcntl_getfl(fd).map_err(|e| failed(e.into()))?;
    let mode = flags & OFlags::RWMODE;
    if mode == OFlags::WRONLY {
        return Err(refused("writing only"));
    }
    // Writes would go to the end of the file, wherever they should.
    if flags.contains(OFlags::APPEND) {
        return Err(refused("appending"));
    }
    let data = fd.try_clone().map_err(failed)?;
    // A description of its own for flushes, if we may open the file too.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let again = fs::open(
        path,
        mode | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let same = |again: &OwnedFd| fs::fstat(again).is_ok_and(|stat| self::key(&stat) == Some(key));
    let sync = match again.ok().filter(same) {
        Some(again) => again,
        None => fd.try_clone().map_err(failed)?,
    };
    advise(&data, options);
    let writable = write && mode == OFlags::RDWR;
    let opened = measure(key, data.into(), sync.into(), writable, false).map_err(failed)?;
    Ok(opened.expect("nothing is direct here"))
}

/// A descriptor that this process got from its parent, as a copy of ours that is kept in `slot`.
pub(super) fn inherited(number: u32, slot: &OnceLock<OwnedFd>) -> Result<&OwnedFd> {
    if let Some(fd) = slot.get() {
        return Ok(fd);
    }
    let copy = reactor::process::inherited_descriptor(number)
        .map_err(|e| Error::io(format!("cannot use descriptor {number}"), e))?;
    Ok(slot.get_or_init(|| copy))
}

/// The same, and it is a directory.
pub(super) fn inherited_directory(number: u32, slot: &OnceLock<OwnedFd>) -> Result<&OwnedFd> {
    let fd = inherited(number, slot)?;
    let failed = |e: Errno| Error::io(format!("cannot use descriptor {number}"), e.into());
    let stat = fs::fstat(fd).map_err(failed)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(fd),
        _ => {
            let text = format!("descriptor {number} is not a directory");
            Err(Error::new(ErrorKind::Config, text).hint("serve a single file with fd="))
        }
    }
}

/// Takes over a file that is open already, for writing.
pub(super) fn adopt(file: File) -> Result<Opened> {
    let place = Place::Path(Path::new("the given descriptor"));
    let failed = |e: io::Error| Error::io("cannot use the given descriptor", e);
    let stat = fs::fstat(&file).map_err(|e| failed(e.into()))?;
    let key = check_kind(&place, &stat)?;
    let sync = file.try_clone().map_err(failed)?;
    let opened = measure(key, file, sync, true, false).map_err(failed)?;
    Ok(opened.expect("nothing is direct here"))
}

/// Locks an opened file as `lock` asks.
pub(super) fn lock(opened: &Opened, place: &Place<'_>, lock: Lock) -> Result<()> {
    let kind = match lock {
        Lock::None => return Ok(()),
        // Whoever opened it knows who else has.
        Lock::Auto if matches!(place, Place::Fd(..)) => return Ok(()),
        Lock::Auto if opened.writable => FileLock::Exclusive,
        Lock::Auto | Lock::Shared => FileLock::Shared,
        Lock::Exclusive if opened.writable => FileLock::Exclusive,
        Lock::Exclusive => {
            let what = format!("cannot lock {place} exclusively: it is open for reading only");
            return Err(Error::new(ErrorKind::Permission, what)
                .hint("pass lock=shared, or let this user write to the file"));
        }
    };
    let Err(error) = blkdev::lock(&opened.data, kind) else {
        return Ok(());
    };
    if error.kind() != io::ErrorKind::WouldBlock {
        // The file system has no such locks.
        return match lock {
            Lock::Auto => Ok(()),
            _ => Err(Error::io(format!("cannot lock {place}"), error)
                .hint("pass lock=none if nobody else writes to the file")),
        };
    }
    let conflict = blkdev::lock_conflict(&opened.data, kind);
    Err(busy(place, kind, conflict.and_then(|found| found.holder)))
}

/// How long a lock may outlive its holder: when a server is killed, the kernel takes its ring apart,
/// and closes what is registered there, a moment after the process is gone.
const LINGER: Duration = Duration::from_secs(1);

/// Fails if somebody holds, and keeps, a lock that no client of ours could stand. Takes none: a lock that is
/// held for a moment only would get in another's way.
pub(super) fn probe_lock(opened: &Opened, place: &Place<'_>, lock: Lock) -> Result<()> {
    if lock == Lock::None {
        return Ok(());
    }
    let began = Instant::now();
    loop {
        match blkdev::lock_conflict(&opened.data, FileLock::Shared) {
            None => return Ok(()),
            Some(_) if began.elapsed() < LINGER => std::thread::sleep(Duration::from_millis(20)),
            Some(found) => return Err(busy(place, FileLock::Shared, found.holder)),
        }
    }
}

fn busy(place: &Place<'_>, kind: FileLock, holder: Option<u32>) -> Error {
    let holder = match holder {
        Some(pid) => format!("process {pid}"),
        None => "another program".to_owned(),
    };
    let (verb, what) = match kind {
        FileLock::Exclusive => ("write to", "has it open"),
        FileLock::Shared => ("read", "has it open for writing"),
    };
    let text = format!("cannot {verb} {place}: {holder} {what}");
    Error::new(ErrorKind::Busy, text).hint(match kind {
        FileLock::Exclusive => "stop the other program, or serve the file read-only",
        FileLock::Shared => "stop the other program, or pass lock=none to read while it writes",
    })
}

/// Opens a directory to serve files from.
pub(super) fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map_err(|e| {
        let place = Place::Path(path);
        let error = cannot_open(&place, " as a directory", e.into());
        match e {
            Errno::NOTDIR => error.hint("serve a single file with file="),
            _ => error,
        }
    })
}

/// The files in a directory that can be opened as exports, sorted.
pub(super) fn list(dir: &OwnedFd) -> Result<Vec<String>> {
    let failed = |e: Errno| Error::io("cannot list the directory", e.into());
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // NBD names are UTF-8; what is not has no name there.
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let served = match entry.file_type() {
            FileType::RegularFile | FileType::BlockDevice => true,
            FileType::Symlink | FileType::Unknown => {
                check_name(name).is_ok() && {
                    let fd = open_beneath(dir, name, OFlags::PATH | OFlags::CLOEXEC);
                    fd.is_ok_and(|fd| fs::fstat(fd).is_ok_and(|stat| key(&stat).is_some()))
                }
            }
            _ => false,
        };
        if served {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A client's export name can be the name of a file in a directory.
pub(super) fn check_name(name: &str) -> Result<()> {
    let why = match name {
        "" => "a name is needed: each export is a file of a directory",
        "." | ".." => "'.' and '..' are not exports",
        _ if name.contains('/') => "an export's name has no '/'",
        _ if name.contains('\0') => "an export's name has no NUL",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::NotFound, why))
}

/// Opens a name in a directory; symbolic links may not lead out of it.
fn open_beneath(dir: &OwnedFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, or forbidden by a seccomp filter that does not know it.
        Err(Errno::NOSYS) => {
            let flags = flags | OFlags::NOFOLLOW;
            Ok(fs::openat(dir, name, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// The key of a file that can be served.
fn key(stat: &Stat) -> Option<Key> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Key::File(stat.st_dev, stat.st_ino)),
        FileType::BlockDevice => Some(Key::Device(stat.st_rdev)),
        _ => None,
    }
}

fn check_kind(place: &Place<'_>, stat: &Stat) -> Result<Key> {
    if let Some(key) = key(stat) {
        return Ok(key);
    }
    let refused = |what: &str| {
        let text = format!("{place} is {what}, not a regular file or block device");
        Error::new(ErrorKind::Config, text)
    };
    Err(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => refused("a directory").hint("serve the files in it with dir="),
        FileType::CharacterDevice => refused("a character device"),
        FileType::Fifo => refused("a FIFO"),
        FileType::Socket => refused("a socket"),
        FileType::Symlink => refused("a symbolic link that may not be followed"),
        _ => refused("something else"),
    })
}

/// Not writable, but perhaps readable.
fn is_refusal(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY)
    )
}

fn cannot_open(place: &Place<'_>, how: &str, error: io::Error) -> Error {
    let errno = Errno::from_io_error(&error);
    let text = format!("cannot open {place}{how}");
    if errno == Some(Errno::XDEV) {
        let text = format!("{text}: it is a symbolic link out of the directory");
        return Error::new(ErrorKind::Permission, text).caused_by(error);
    }
    let shown = Error::io(text, error);
    match (errno, place) {
        (Some(Errno::NOENT), Place::Path(path)) if how.is_empty() => shown.hint(format!(
            "to make an empty disk: truncate -s SIZE '{}'",
            path.display()
        )),
        _ => shown,
    }
}

fn explain(place: &Place<'_>, writable: bool, options: &Options, error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::BUSY) if writable => {
            let text = format!("cannot write to {place}: it is mounted or otherwise in use");
            Error::new(ErrorKind::Busy, text)
                .caused_by(error)
                .hint("unmount it, serve it read-only, or pass lock=none")
        }
        Some(Errno::INVAL) if options.direct => no_direct(place).caused_by(error),
        _ => cannot_open(place, "", error),
    }
}

fn no_direct(place: &Place<'_>) -> Error {
    let text = format!("the file system of {place} does not support O_DIRECT");
    Error::new(ErrorKind::Unsupported, text).hint("leave out direct=true")
}

/// Size, alignment and preferences. `None` if it has to be direct and cannot.
fn measure(
    key: Key,
    data: File,
    sync: File,
    writable: bool,
    direct: bool,
) -> io::Result<Option<Opened>> {
    let stat = fs::fstat(&data)?;
    let mut opened = Opened {
        key,
        writable,
        direct,
        block_device: matches!(key, Key::Device(_)),
        size: 0,
        block: 1,
        memory_align: 1,
        preferred: u64::try_from(stat.st_blksize).unwrap_or(4096),
        rotational: false,
        data,
        sync,
    };
    opened.size = size(&opened.data, opened.block_device)?;
    if let Key::Device(device) = key {
        opened.block = fs::ioctl_blksszget(&opened.data)?;
        opened.memory_align = opened.block;
        opened.preferred = blkdev::optimal_io_size(&opened.data)
            .map_or(0, u64::from)
            .max(4096);
        opened.rotational = rotational(device);
    }
    if direct {
        let Some((memory, offset)) = dio_align(opened.data.as_fd())? else {
            return Ok(None);
        };
        opened.memory_align = memory;
        opened.block = opened.block.max(offset);
    }
    // A kernel that reports nonsense must not become a panic later.
    for align in [&mut opened.block, &mut opened.memory_align] {
        *align = (*align).clamp(1, 1 << 20).next_power_of_two();
    }
    Ok(Some(opened))
}

/// Bytes of a file or block device.
pub(super) fn size(file: &File, block_device: bool) -> io::Result<u64> {
    match block_device {
        true => Ok(fs::seek(file, SeekFrom::End(0))?),
        false => Ok(u64::try_from(fs::fstat(file)?.st_size).unwrap_or(0)),
    }
}

/// Alignment of memory and of offsets for direct requests. `None` if the file system says that it
/// has no such thing.
fn dio_align(fd: impl AsFd) -> io::Result<Option<(u32, u32)>> {
    /// Good for every disk in use, where the kernel (before 6.1) does not say.
    const SAFE: (u32, u32) = (4096, 4096);
    let mask = StatxFlags::DIOALIGN;
    let stat = match fs::statx(fd, "", AtFlags::EMPTY_PATH, mask) {
        Ok(stat) => stat,
        Err(Errno::NOSYS) => return Ok(Some(SAFE)),
        Err(error) => return Err(error.into()),
    };
    if stat.stx_mask & mask.bits() == 0 {
        return Ok(Some(SAFE));
    }
    let align = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    Ok((align.0 > 0 && align.1 > 0).then_some(align))
}

/// The disk turns. For a partition the answer is in the directory of its disk.
fn rotational(device: u64) -> bool {
    let (major, minor) = (fs::major(device), fs::minor(device));
    let base = format!("/sys/dev/block/{major}:{minor}");
    ["queue/rotational", "../queue/rotational"]
        .iter()
        .find_map(|path| std::fs::read_to_string(format!("{base}/{path}")).ok())
        .is_some_and(|text| text.trim() == "1")
}
