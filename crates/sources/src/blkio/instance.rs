//! One connected disk: its limits, the queues that reactors take, and its memory.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread,
};

use ::blkio::{Blkio, Completion, MemoryRegion, Queue, Value};
use block::{
    Access, Errno, Error, ErrorKind, IoError, Limits, Op, OpSet, Outcome, Result, Support,
};

use super::BlkioConfig;

/// A disk that was connected and started. It ends when the last who has a piece of its memory has gone.
pub(super) struct Instance {
    disk: Mutex<Blkio>,
    pub limits: Limits,
    pub name: Arc<str>,
    /// It can be asked for more queues.
    grows: bool,
    /// Requests may only use memory that the disk knows.
    pub needs_regions: bool,
    /// Queues that nobody has: of the number of them, those from here on.
    free: Mutex<Vec<usize>>,
    /// A file that may have holes, opened once more to ask for them.
    pub file: Option<Arc<File>>,
    /// The number of the error that a flush failed with, or 0.
    poison: AtomicI32,
    /// Whoever is at the other end has gone.
    gone: AtomicBool,
}

/// No disk takes more of them: that many reactors would have no work.
const MOST_QUEUES: i32 = 64;

impl Instance {
    /// Connects and starts. Waits for what the driver waits for.
    ///
    /// # Errors
    /// What the driver says.
    pub fn open(config: &BlkioConfig, access: Access) -> Result<Instance> {
        let reads_only = set_by_user(config, "read-only");
        if access == Access::ReadOnly && !reads_only {
            return Instance::open_as(config, Some(true));
        }
        match Instance::open_as(config, None) {
            // What may only be read is served for reading.
            Err(error) if !reads_only && is_refusal(&error) => {
                Instance::open_as(config, Some(true)).map_err(|_| error)
            }
            opened => opened,
        }
    }

    fn open_as(config: &BlkioConfig, read_only: Option<bool>) -> Result<Instance> {
        let cannot = |what: &str, error: ::blkio::Error| {
            Error::io(what, io::Error::from_raw_os_error(error.errno())).caused_by(error)
        };
        let mut disk = Blkio::new(&config.driver).map_err(|e| cannot("cannot begin", e))?;
        if let Some(read_only) = read_only {
            let set = disk.set("read-only", Value::Bool(read_only));
            set.map_err(|e| cannot("read-only", e))?;
        }
        set_properties(config, &mut disk, ::blkio::State::Created)?;
        disk.connect().map_err(|e| cannot("cannot connect", e))?;
        let grows = disk.get_bool("can-add-queues").unwrap_or(false);
        if !set_by_user(config, "num-queues") {
            let queues = queues(&mut disk, grows);
            let set = disk.set("num-queues", Value::Int(queues));
            set.map_err(|e| cannot("num-queues", e))?;
        }
        set_properties(config, &mut disk, ::blkio::State::Connected)?;
        tell(config, &mut disk);
        disk.start().map_err(|e| cannot("cannot start", e))?;
        let queues = disk.get_int("num-queues").unwrap_or(0).max(0);
        let limits = limits(&mut disk).map_err(|e| cannot("cannot use the disk", e))?;
        if !limits.min_block.is_power_of_two() || !limits.memory_align.is_power_of_two() {
            let text = "the disk's blocks have no power of two as their size";
            return Err(Error::new(ErrorKind::Io, text));
        }
        Ok(Instance {
            needs_regions: disk.get_bool("needs-mem-regions").unwrap_or(true),
            file: file(&mut disk),
            disk: Mutex::new(disk),
            limits,
            name: "blkio".into(),
            grows,
            free: Mutex::new((0..queues as usize).rev().collect()),
            poison: AtomicI32::new(0),
            gone: AtomicBool::new(false),
        })
    }

    /// A queue for one reactor, if there is one left, and its index.
    pub fn take_queue(&self) -> Option<(usize, Box<Queue>)> {
        let free = lock(&self.free).pop();
        let mut disk = self.disk();
        let index = match free {
            Some(index) => index,
            None if self.grows => match disk.add_queue() {
                Ok(index) => index,
                Err(error) => {
                    tracing::warn!("no more queues: {error}");
                    return None;
                }
            },
            None => return None,
        };
        disk.take_queue(index).map(|queue| (index, queue))
    }

    /// A queue has ended, and is not used again.
    pub fn queue_ended(&self, index: usize) {
        // Taken before: it was there.
        let _ = self.disk().remove_queue(index);
    }

    /// Memory that requests may use.
    ///
    /// # Errors
    /// There is none, or the disk has room for no more.
    pub fn memory(&self, len: usize) -> Result<MemoryRegion, ::blkio::Error> {
        let mut disk = self.disk();
        let region = disk.alloc_region(len)?;
        match disk.map_region(&region) {
            Ok(()) => Ok(region),
            Err(error) => {
                disk.free_region(&region);
                Err(error)
            }
        }
    }

    /// What a completion says of a request.
    pub fn judge(&self, op: Op, fua: bool, completion: &Completion) -> Outcome {
        let durable = op == Op::Flush || fua;
        let poison = self.poison.load(Ordering::Acquire);
        if completion.ret() >= 0 {
            return match poison {
                0 => Ok(()),
                _ if !durable => Ok(()),
                errno => Err(self.because(errno, "a flush before this one has failed")),
            };
        }
        let errno = completion.ret();
        if op == Op::Discard && Errno::new(errno) == Errno::ENOTSUP {
            // Advice, which may be ignored.
            return Ok(());
        }
        if op == Op::Flush {
            // The first one stays.
            let _ = self
                .poison
                .compare_exchange(0, -errno, Ordering::AcqRel, Ordering::Relaxed);
        }
        if [
            ENOTCONN,
            Errno::ECONNRESET,
            Errno::EPIPE,
            Errno::ESHUTDOWN,
            Errno::ENODEV,
        ]
        .contains(&Errno::new(errno))
        {
            self.gone.store(true, Ordering::Relaxed);
        }
        match completion.message() {
            Some(why) => Err(self.because(errno, &why.to_string_lossy())),
            None => Err(Errno::new(errno).into()),
        }
    }

    fn because(&self, errno: i32, why: &str) -> IoError {
        IoError::because(Errno::new(errno), &self.name, why)
    }

    /// Requests fail from now on.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn disk(&self) -> MutexGuard<'_, Blkio> {
        lock(&self.disk)
    }
}

const ENOTCONN: Errno = Errno::new(107);

/// Locks what no panic can leave half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_by_user(config: &BlkioConfig, name: &str) -> bool {
    config.properties.iter().any(|(key, _)| key == name)
}

/// The system or the disk says that it may not be written.
fn is_refusal(error: &Error) -> bool {
    [Errno::EACCES, Errno::EPERM, Errno::EROFS].contains(&error.errno())
}

/// As many queues as can be of use.
fn queues(disk: &mut Blkio, grows: bool) -> i32 {
    if grows {
        // Made when a reactor asks for one.
        return 0;
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let most = disk.get_int("max-queues").unwrap_or(1);
    most.min(processors as i32).clamp(1, MOST_QUEUES)
}

/// Sets those that are set in this state.
fn set_properties(config: &BlkioConfig, disk: &mut Blkio, state: ::blkio::State) -> Result<()> {
    for (key, value) in &config.properties {
        let found = disk.properties().find(|it| it.name == key);
        if found.is_none_or(|it| it.writable != Some(state)) {
            continue;
        }
        disk.set_str(key, value)
            .map_err(|error| Error::new(ErrorKind::Config, format!("{key}={value}: {error}")))?;
    }
    Ok(())
}

/// The properties that the user wants to know, in nbdkit's words.
fn tell(config: &BlkioConfig, disk: &mut Blkio) {
    for name in &config.get {
        match disk.get_str(name) {
            Ok(value) => tracing::debug!("get {name} = {value}"),
            Err(error) => tracing::debug!("could not get property {name}: {error}"),
        }
    }
}

/// The file of the driver io_uring. That it cannot be opened once more only means that holes are not
/// known.
fn file(disk: &mut Blkio) -> Option<Arc<File>> {
    let is_file = disk
        .get_str("driver")
        .is_ok_and(|driver| driver == "io_uring");
    let fd = disk.get_int("fd").ok().filter(|_| is_file)?;
    let file = File::open(format!("/proc/self/fd/{fd}")).ok()?;
    let is_regular = file.metadata().is_ok_and(|is| is.is_file());
    is_regular.then(|| Arc::new(file))
}

/// What the disk can do.
fn limits(disk: &mut Blkio) -> ::blkio::Result<Limits> {
    let int = |disk: &mut Blkio, name| disk.get_int(name).map(|value| value.max(1) as u32);
    let block = int(disk, "request-alignment")?;
    let size = disk.get_u64("capacity")?;
    let mut limits = Limits::new(size - size % u64::from(block), OpSet::NONE);
    limits.min_block = block;
    let preferred = int(disk, "optimal-io-alignment")?.next_power_of_two();
    limits.preferred_block = preferred.max(block).max(4096);
    if !disk.get_bool("needs-mem-regions")? {
        limits.memory_align = int(disk, "buf-alignment")?;
    }
    limits.multi_conn = true;
    limits.set(Op::Read, Support::Native);
    limits.set(Op::Extents, Support::Native);
    limits.set(Op::Flush, Support::Native);
    if !disk.get_bool("read-only")? {
        limits.set(Op::Write, Support::Native);
        // The driver flushes by itself where the disk cannot do it.
        limits.fua = Support::Native;
        let is_virtio = disk.get_str("driver")?.starts_with("virtio-blk-");
        let offers = |disk: &mut Blkio, most| -> ::blkio::Result<bool> {
            Ok(!is_virtio || disk.get_u64(most)? > 0)
        };
        let zeroes = match offers(disk, "max-write-zeroes-len")? {
            true => Support::Native,
            false => Support::Emulated,
        };
        limits.set(Op::WriteZeroes, zeroes);
        if offers(disk, "max-discard-len")? {
            limits.set(Op::Discard, Support::Native);
        }
    }
    Ok(limits)
}
