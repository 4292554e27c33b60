//! The data path of a file: requests go to the ring as they are, with their memory.
//!
//! Reads and writes become one operation each. A flush joins the file's group commit (see
//! [`super::inode`]); FUA is a write with RWF_DSYNC. What takes several steps is a task (zeroing, see
//! [`super::zero`]) or a job on the pool (extents, cache).
//!
//! *The tail.* A direct file that ends inside a block has bytes that direct requests cannot reach
//! without making the file longer. They are read and written through the page cache, and a write
//! that was rounded up to a block is cut at the end of the file.

use std::{num::NonZeroU64, os::fd::AsFd, rc::Rc, sync::Arc};

use block::{
    Data, Errno, ExtentFlags, ExtentList, Flags, IoError, Op, Outcome, Pool, Queue, Reactor,
    Remote, Request,
};
use reactor::{FileOptions, FileVerb, Io, IoFile};
use rustix::fs::{Advice, fadvise};

use super::{device::OpenFile, evict, extents, inode::Turn};

/// One reactor's way into a file.
pub(super) struct FileQueue(Rc<Shared>);

/// What tasks of the queue need when `submit` has returned.
pub(super) struct Shared {
    pub file: Arc<OpenFile>,
    pub reactor: Reactor,
    pub data: Rc<IoFile>,
    /// Buffered, and a file description of its own.
    sync: Rc<IoFile>,
}

impl FileQueue {
    /// A way into `file` for one reactor.
    pub fn new(file: &Arc<OpenFile>, reactor: &Reactor) -> FileQueue {
        let io = Io::of(reactor);
        let options = FileOptions {
            registered: true,
            inline: !file.direct,
            direct: file.direct,
        };
        let buffered = FileOptions {
            inline: true,
            direct: false,
            ..options
        };
        FileQueue(Rc::new(Shared {
            file: file.clone(),
            reactor: reactor.clone(),
            data: io.file(file.data.clone(), options),
            sync: io.file(file.sync.clone(), buffered),
        }))
    }
}

impl Queue for FileQueue {
    #[inline]
    fn submit(&self, req: Request) {
        self.0.submit(req);
    }
}

impl Shared {
    /// The queue, for a task to call.
    pub fn queue(self: &Rc<Self>) -> FileQueue {
        FileQueue(self.clone())
    }

    fn submit(self: &Rc<Self>, mut req: Request) {
        let op = req.op();
        if op.modifies() && !self.file.writable {
            return req.fail(Errno::ENOTSUP);
        }
        if self.file.evict.is_some() {
            evict::watch(&self.file, &self.reactor, &mut req);
        }
        match op {
            Op::Read => self.read(req),
            Op::Write => self.write(req),
            Op::Flush => self.flush(req),
            Op::WriteZeroes | Op::Discard => self.zero_or_discard(req),
            Op::Extents => self.extents(req),
            Op::Cache => self.cache(req),
            _ => req.fail(Errno::ENOTSUP),
        }
    }

    #[inline]
    fn read(&self, req: Request) {
        let (start, end, tail) = (req.offset(), req.end(), self.file.tail());
        if !self.file.direct || end <= tail {
            return self.data.submit(FileVerb::Read, start, req);
        }
        if start >= tail {
            return self.sync.submit(FileVerb::Read, start, req);
        }
        let (front, rest) = req.split_at(tail - start);
        self.data.submit(FileVerb::Read, start, front);
        self.sync.submit(FileVerb::Read, tail, rest);
    }

    #[inline]
    fn write(self: &Rc<Self>, req: Request) {
        let fua = req.flags().contains(Flags::FUA);
        match fua {
            true => self.write_durably(req),
            false => self.write_to(req, false),
        }
    }

    /// A write that completes when its bytes are on the disk.
    fn write_durably(self: &Rc<Self>, mut req: Request) {
        if let Err(poisoned) = self.file.inode.poison(&self.file.node) {
            return req.complete(Err(poisoned));
        }
        let file = self.file.clone();
        req.on_complete(move |done| {
            let outcome = file.inode.judge_write(done.take_outcome(), &file.node);
            done.set_outcome(outcome);
        });
        self.write_to(req, true);
    }

    fn write_to(&self, req: Request, dsync: bool) {
        let verb = FileVerb::Write { dsync };
        let (start, end, tail) = (req.offset(), req.end(), self.file.tail());
        // The file must not grow, whatever the layers above believe its size to be.
        let size = self.file.size();
        if end <= tail {
            return self.data.submit(verb, start, req);
        }
        if start >= size || !self.file.direct {
            return req.fail(Errno::ENOSPC);
        }
        let split = req.split();
        if start < tail {
            let front = split.part(0, tail - start);
            self.data.submit(verb, start, front);
        }
        let at = start.max(tail);
        let rest = split.part(at - start, end.min(size) - at);
        self.sync.submit(verb, at, rest);
    }

    /// Flushes, as one of the file's group.
    pub fn flush(self: &Rc<Self>, req: Request) {
        if !self.file.writable {
            return req.done();
        }
        if let Err(poisoned) = self.file.inode.poison(&self.file.node) {
            return req.complete(Err(poisoned));
        }
        if let Some((req, turn)) = self.file.inode.enter(req, self.reactor.inbox()) {
            self.data_sync(req, turn, Vec::new());
        }
    }

    /// One fdatasync, for `req` and those who waited for it; then the next one, if anybody has come
    /// meanwhile.
    fn data_sync(self: &Rc<Self>, mut req: Request, turn: Turn, waited: Vec<Remote>) {
        let this = self.clone();
        req.on_complete(move |done| {
            let file = &this.file;
            let outcome = file.inode.judge(done.take_outcome(), &file.node);
            for remote in waited {
                remote.complete(outcome.clone());
            }
            done.set_outcome(outcome);
            if let Some((turn, waiting)) = turn.end() {
                let next = this.reactor.request(Op::Flush, 0, 0);
                this.data_sync(next, turn, waiting);
            }
        });
        self.sync.submit(FileVerb::DataSync, 0, req);
    }

    fn extents(&self, mut req: Request) {
        let file = &self.file;
        if file.block_device || !file.inode.seek_hole.may() {
            *req.data_mut() = Data::Extents(ExtentList::one(req.len(), ExtentFlags::DATA));
            return req.done();
        }
        let file = file.clone();
        self.offload(req, move |remote| {
            let one = remote.flags().contains(Flags::REQ_ONE);
            let block = u64::from(file.min_block);
            let range = (remote.offset(), remote.len());
            let cannot = || file.inode.seek_hole.cannot();
            let list = extents::find(file.data.as_fd(), block, range, one, &cannot)?;
            remote.give_extents(list);
            Ok(())
        });
    }

    /// Asks the kernel to read ahead. There is nothing to bring nearer for a direct file.
    fn cache(&self, req: Request) {
        let Some(len) = NonZeroU64::new(req.len()).filter(|_| !self.file.direct) else {
            return req.done();
        };
        let file = self.file.clone();
        self.offload(req, move |remote| {
            let advised = fadvise(&file.data, remote.offset(), Some(len), Advice::WillNeed);
            advised.map_err(|e| IoError::from(Errno::new(e.raw_os_error())))
        });
    }

    /// Serves a request on the pool.
    fn offload(&self, req: Request, job: impl FnOnce(&mut Remote) -> Outcome + Send + 'static) {
        let mut remote = req.into_remote(self.reactor.inbox());
        self.reactor.offload(Pool::Blocking, move || {
            let outcome = job(&mut remote);
            remote.complete(outcome);
        });
    }
}
