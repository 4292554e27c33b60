//! An opened file as a device: its limits, and what its queues share.

use std::{fs::File, rc::Rc, sync::Arc};

use block::{Device, Limits, Op, OpSet, Queue, Reactor, Result, Support};

use super::{evict::Evict, inode::Inode, open::Opened, queue::FileQueue};
use crate::single::READ_ONLY;

/// A client's device.
pub(super) struct FileDevice(pub Arc<OpenFile>);

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
    pub size: u64,
    /// Zeroing and discarding on a block device is done in multiples of this.
    pub block: u32,
    /// Where the tail begins: what lies behind cannot be reached by direct requests, because the
    /// file ends inside a block. The size, if there is no such tail.
    pub tail: u64,
    pub limits: Arc<Limits>,
    /// Keeps it out of the page cache, if that is wanted.
    pub evict: Option<Evict>,
}

impl OpenFile {
    /// What was opened, for the node called `node`.
    pub fn new(opened: Opened, node: &Arc<str>) -> OpenFile {
        OpenFile {
            node: node.clone(),
            inode: Inode::of(opened.key),
            limits: Arc::new(limits(&opened)),
            tail: tail(&opened),
            direct: opened.direct,
            writable: opened.writable,
            block_device: opened.block_device,
            size: opened.size,
            block: opened.block,
            data: Arc::new(opened.data),
            sync: Arc::new(opened.sync),
            evict: None,
        }
    }
}

impl Device for FileDevice {
    fn limits(&self) -> Arc<Limits> {
        self.0.limits.clone()
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

/// Direct and buffered requests must not meet in one page: the kernel may write a whole page back
/// over what a direct request has just written. So the tail begins at a page of the cache, and at a
/// block of the file system.
fn tail(opened: &Opened) -> u64 {
    if !opened.direct || opened.size.is_multiple_of(u64::from(opened.block)) {
        return opened.size;
    }
    let page = opened
        .preferred
        .clamp(4096, 1 << 20)
        .next_power_of_two()
        .max(u64::from(opened.block));
    opened.size & !(page - 1)
}
