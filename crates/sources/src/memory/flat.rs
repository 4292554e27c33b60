//! `allocator=malloc`: all memory taken at the start, in one piece.
//!
//! *Why.* No write can fail for want of memory later, none pays for a first touch, and with `mlock`
//! none of it is ever swapped out. The price is that the memory is gone whether it is used or not, and
//! that there are no holes: the whole disk is always data.

use std::sync::Arc;

use block::{Errno, Error, ErrorKind, ExtentFlags, ExtentList, Iov, Result, SharedBuf};
use reactor::Mapping;

use super::{Fill, Store, available};

/// The disk.
pub(super) struct Flat {
    bytes: Arc<SharedBuf>,
    mlock: bool,
}

impl Flat {
    /// Takes and touches `size` zero bytes; with `mlock`, locks them.
    pub fn new(size: u64, mlock: bool) -> Result<Flat> {
        let what = || format!("cannot allocate {size} bytes");
        // The kernel promises more memory than there is and kills whoever uses it: ask first.
        if available().is_some_and(|free| size > free) {
            let why =
                "more than the memory that is free; allocator=sparse takes only what is written";
            return Err(Error::new(ErrorKind::Exhausted, what()).caused_by(why));
        }
        let too_large = |_| Error::new(ErrorKind::Exhausted, what());
        let len = usize::try_from(size).map_err(too_large)?;
        let bytes = Mapping::anonymous(len).map_err(|error| Error::io(what(), error))?;
        let flat = Flat { bytes, mlock };
        flat.started()?;
        Ok(flat)
    }
}

impl Store for Flat {
    /// Clearing memory runs at some GB a second.
    const ZERO_INLINE: u64 = 1 << 20;

    #[inline]
    fn read(&self, offset: u64, len: u64, mut f: impl FnMut(Option<Arc<SharedBuf>>, usize, u64)) {
        if len > 0 {
            f(Some(self.bytes.clone()), offset as usize, len);
        }
    }

    #[inline]
    fn write(&self, offset: u64, iov: &Iov) -> Result<(), Errno> {
        iov.read_shared(0, &self.bytes, offset as usize, iov.len());
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _keep: bool) {
        self.bytes.zero(offset as usize, len as usize);
    }

    fn extents(&self, _offset: u64, len: u64, _one: bool) -> ExtentList {
        ExtentList::one(len, ExtentFlags::DATA)
    }
}

impl Fill for Flat {
    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.bytes.write(offset as usize, bytes);
        Ok(())
    }

    fn zero_bytes(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.zero(offset, len, false);
        Ok(())
    }

    /// Locks do not pass to the child of a fork, so a server locks again when it starts.
    fn started(&self) -> Result<()> {
        if !self.mlock {
            return Ok(());
        }
        reactor::lock_in_memory(&self.bytes).map_err(|error| {
            let what = format!("cannot lock {} bytes in memory", self.bytes.len());
            Error::io(what, error)
                .hint("raise the limit of locked memory: ulimit -l, or LimitMEMLOCK= of systemd")
        })
    }
}
