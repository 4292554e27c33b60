//! An opened file as a device: its limits, and what its queues share.

use std::{
    fs::File,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use block::{
    Device, Event, EventHub, Limits, Op, OpSet, Queue, Reactor, Result, Subscription, Support,
};

use super::{
    evict::Evict,
    inode::Inode,
    open::{self, Opened},
    queue::FileQueue,
    watch::{self, End},
};
use crate::single::READ_ONLY;

/// A client's device.
pub(super) struct FileDevice(pub Arc<OpenFile>);

/// How long an open file is, which somebody else may change. Apart from the rest, because whoever
/// watches it must not keep the file open.
pub(super) struct Length {
    /// The node's name, for logs.
    pub node: Arc<str>,
    /// Another description than the one that may be locked.
    pub file: Arc<File>,
    pub block_device: bool,
    /// Held while somebody looks, so that the last to look has the last word.
    looking: Mutex<()>,
    /// In bytes.
    size: AtomicU64,
    limits: Mutex<Arc<Limits>>,
    events: EventHub,
}

/// An opened file: shared by the devices of all clients of a source, and by their queues. As long as
/// it lives, the file is open and locked.
pub(super) struct OpenFile {
    /// The node's name, for errors.
    pub node: Arc<str>,
    pub inode: Arc<Inode>,
    /// For reads and writes.
    pub data: Arc<File>,
    /// For flushes and for the tail; buffered.
    pub sync: Arc<File>,
    pub direct: bool,
    pub writable: bool,
    pub block_device: bool,
    /// Zeroing and discarding on a block device is done in multiples of this.
    pub block: u32,
    /// Requests are multiples of this.
    pub min_block: u32,
    /// Direct and buffered requests must not meet in one of these: a block of the file system, and at
    /// least a page.
    page: u64,
    pub length: Arc<Length>,
    /// Of the task that watches the length, once there is one.
    watching: Mutex<Option<End>>,
    /// Keeps it out of the page cache, if that is wanted.
    pub evict: Option<Evict>,
}

impl OpenFile {
    /// What was opened, for the node called `node`.
    pub fn new(opened: Opened, node: &Arc<str>) -> OpenFile {
        let limits = limits(&opened);
        let sync = Arc::new(opened.sync);
        OpenFile {
            node: node.clone(),
            inode: Inode::of(opened.key),
            min_block: limits.min_block,
            page: page(opened.preferred, opened.block),
            direct: opened.direct,
            writable: opened.writable,
            block_device: opened.block_device,
            block: opened.block,
            data: Arc::new(opened.data),
            length: Arc::new(Length {
                node: node.clone(),
                file: sync.clone(),
                block_device: opened.block_device,
                looking: Mutex::default(),
                size: AtomicU64::new(opened.size),
                limits: Mutex::new(Arc::new(limits)),
                events: EventHub::default(),
            }),
            sync,
            watching: Mutex::default(),
            evict: None,
        }
    }

    /// Bytes of the file, as far as is known.
    #[inline]
    pub fn size(&self) -> u64 {
        self.length.size.load(Ordering::Relaxed)
    }

    /// Where the tail begins: what lies behind cannot be reached by direct requests, because the
    /// file ends inside a block. The size, if there is no such tail.
    ///
    /// Direct and buffered requests must not meet in one page: the kernel may write a whole page back
    /// over what a direct request has just written. So the tail begins at a page of the cache, and at
    /// a block of the file system.
    #[inline]
    pub fn tail(&self) -> u64 {
        let size = self.size();
        if !self.direct || size & (u64::from(self.block) - 1) == 0 {
            return size;
        }
        size & !(self.page - 1)
    }

    /// Has the length watched from now on, on this reactor.
    fn watch(&self, reactor: &Reactor) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if watching.is_none() {
            *watching = Some(watch::start(&self.length, reactor));
        }
    }
}

impl Length {
    /// Looks how long the file is now, and tells those who want to know if that is news. Blocks.
    pub fn look(&self) {
        let _one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match open::size(&self.file, self.block_device) {
            Ok(found) => found,
            Err(error) => return tracing::debug!("{}: its size is not known: {error}", self.node),
        };
        if self.size.swap(found, Ordering::Relaxed) == found {
            return;
        }
        Arc::make_mut(&mut self.limits()).size = found;
        tracing::debug!("{}: it has {found} bytes now", self.node);
        self.events.emit(Event::Resized);
    }

    fn limits(&self) -> MutexGuard<'_, Arc<Limits>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for FileDevice {
    fn limits(&self) -> Arc<Limits> {
        self.0.length.limits().clone()
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.0.watch(reactor);
        self.0.length.events.subscribe(reactor, f)
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        Ok(Rc::new(FileQueue::new(&self.0, reactor)))
    }
}

fn limits(opened: &Opened) -> Limits {
    let ops = match opened.writable {
        true => OpSet::DISK,
        false => READ_ONLY,
    };
    let mut limits = Limits::new(opened.size, ops.without(Op::GetId));
    if opened.direct {
        limits.min_block = opened.block;
        limits.memory_align = opened.memory_align;
    }
    // Some file systems like requests of many megabytes best; nobody else does.
    let preferred = opened.preferred.clamp(512, 1 << 22).next_power_of_two();
    limits.preferred_block = (preferred as u32).max(limits.min_block);
    if opened.writable {
        limits.fua = Support::Native;
        limits.fast_zero = true;
    }
    limits.multi_conn = true;
    limits.rotational = opened.rotational;
    limits
}

fn page(preferred: u64, block: u32) -> u64 {
    let page = preferred.clamp(4096, 1 << 20).next_power_of_two();
    page.max(u64::from(block))
}
