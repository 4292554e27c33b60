//! Read-only disks of a few bytes that never change, then nothing: the common part of `info` and
//! `example1`.

use std::{rc::Rc, sync::Arc};

use block::{
    Data, Errno, ExtentFlags, ExtentList, Limits, Op, OpSet, Piece, Queue, Request, Segments,
    SharedBuf, SharedMem,
};

/// What such a disk of `size` bytes can do.
pub(crate) fn limits(size: u64) -> Limits {
    Limits::new(size, OpSet::of(&[Op::Read, Op::Cache, Op::Extents]))
}

/// A queue of a disk that starts with `bytes`; what follows is a hole.
pub(crate) fn queue(bytes: Arc<SharedBuf>) -> Rc<dyn Queue> {
    Rc::new(BlobQueue(bytes))
}

struct BlobQueue(Arc<SharedBuf>);

impl Queue for BlobQueue {
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => self.read(req),
            Op::Cache => req.done(),
            Op::Extents => self.extents(req),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

impl BlobQueue {
    /// How much of a request is bytes.
    fn bytes_of(&self, req: &Request) -> u64 {
        let rest = (self.0.len() as u64).saturating_sub(req.offset());
        rest.min(req.len())
    }

    fn read(&self, req: Request) {
        let n = self.bytes_of(&req);
        let mut found = Segments::new();
        if n > 0 {
            let mem = SharedMem::of_shared(self.0.clone(), req.offset() as usize, n as usize);
            found.push(Piece::Mem(mem));
        }
        found.push(Piece::Zero(req.len() - n));
        req.give(found);
    }

    fn extents(&self, mut req: Request) {
        let n = self.bytes_of(&req);
        let mut list = ExtentList::one(n, ExtentFlags::DATA);
        list.push(req.len() - n, ExtentFlags::HOLE_ZERO);
        *req.data_mut() = Data::Extents(list);
        req.done();
    }
}
