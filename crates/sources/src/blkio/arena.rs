//! Memory that a disk can reach: for disks that only know what they were told of. An island of `unsafe`.
//!
//! Pieces of fixed sizes (powers of two) are cut from regions, and used again when nobody has them any
//! more. A read's bytes go on to the client in the piece they came in; a write's bytes are copied into
//! one. What was once needed at the same time stays allocated, as long as the disk is connected.
#![allow(unsafe_code)]

use std::{ptr::NonNull, sync::Arc};

use block::{Iov, Segments, SharedBuf, SharedMem};

use super::instance::Instance;

/// The smallest piece.
const SMALLEST: usize = 4096;

/// Memory is asked for in amounts of at least this, in bytes.
const STEP: usize = 1 << 20;

/// Bytes at most, for one queue.
const MOST: usize = 256 << 20;

/// The memory of one queue.
pub(super) struct Arena {
    instance: Arc<Instance>,
    /// All pieces, by the power of two that is their size, in units of the smallest.
    classes: Vec<Vec<Piece>>,
    /// Where to look first, for each of these.
    hands: Vec<usize>,
    bytes: usize,
}

/// A piece of memory: whoever has it alone may use it anew.
pub(super) type Piece = Arc<SharedBuf>;

impl Arena {
    pub fn new(instance: Arc<Instance>) -> Arena {
        Arena {
            instance,
            classes: Vec::new(),
            hands: Vec::new(),
            bytes: 0,
        }
    }

    /// A piece of at least `len` bytes. `None` if there is no memory now.
    pub fn take(&mut self, len: usize) -> Option<Piece> {
        let size = len.next_power_of_two().max(SMALLEST);
        let class = (size / SMALLEST).trailing_zeros() as usize;
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Vec::new);
            self.hands.resize(class + 1, 0);
        }
        self.unused(class).or_else(|| {
            self.grow(class, size)?;
            self.unused(class)
        })
    }

    fn unused(&mut self, class: usize) -> Option<Piece> {
        let pieces = &self.classes[class];
        let start = self.hands[class];
        let order = (start..pieces.len()).chain(0..start.min(pieces.len()));
        // Another thread may give a piece back, and none can take one from here.
        let found = order
            .into_iter()
            .find(|at| Arc::strong_count(&pieces[*at]) == 1)?;
        self.hands[class] = found + 1;
        // What that thread did with it is over before it is used again.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        Some(pieces[found].clone())
    }

    fn grow(&mut self, class: usize, size: usize) -> Option<()> {
        let len = size.max(STEP);
        if self.bytes + len > MOST {
            return None;
        }
        let region = match self.instance.memory(len) {
            Ok(region) => region,
            Err(error) => {
                tracing::debug!("no memory for the disk: {error}");
                return None;
            }
        };
        self.bytes += len;
        let start = NonNull::new(region.addr)?;
        for at in (0..len).step_by(size) {
            // SAFETY: inside the region, which is `len` bytes.
            let ptr = unsafe { start.add(at) };
            let owner = Box::new(self.instance.clone());
            // SAFETY: the instance keeps its regions mapped for as long as it lives; the memory is new,
            // and so zeroed.
            let piece = unsafe { SharedBuf::from_owner(ptr, size, owner) };
            self.classes[class].push(piece);
        }
        Some(())
    }
}

/// A piece with a write's bytes.
pub(super) fn fill(piece: &Piece, from: &Iov) {
    let mut at = 0;
    for part in from.segments() {
        assert!(part.len <= piece.len() - at, "the piece is long enough");
        // SAFETY: the pin of `from` keeps its ranges valid; the piece is ours alone, and long enough.
        unsafe {
            std::ptr::copy_nonoverlapping(part.ptr, address(piece).add(at), part.len);
        }
        at += part.len;
    }
}

/// The bytes of a read, for the client.
pub(super) fn found(piece: &Piece, len: usize) -> Segments {
    SharedMem::of_shared(piece.clone(), 0, len).into()
}

/// The first byte of a piece.
pub(super) fn address(piece: &Piece) -> *mut u8 {
    SharedMem::of_shared(piece.clone(), 0, 0)
        .as_ptr()
        .cast_mut()
}
