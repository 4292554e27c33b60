//! "Registered" memory of a simulated ring: ordinary memory with an index.

use std::{
    alloc::{self, Layout},
    ptr::NonNull,
};

use block::data::{Arena, BufIndex, CHUNK_ALIGN};

/// Page-aligned zeroed memory, freed when dropped.
pub(super) struct SimArena {
    base: NonNull<u8>,
    layout: Layout,
}

impl SimArena {
    /// `len` bytes. Panics if `len` is 0 or memory is exhausted: this is for tests.
    pub(super) fn new(len: usize) -> SimArena {
        assert!(len > 0, "an arena has bytes");
        let layout = Layout::from_size_align(len, CHUNK_ALIGN).expect("a sensible length");
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc::alloc_zeroed(layout) });
        SimArena {
            base: base.unwrap_or_else(|| alloc::handle_alloc_error(layout)),
            layout,
        }
    }
}

// SAFETY: the memory is zeroed, page-aligned, ours alone, and freed only when the value goes.
unsafe impl Arena for SimArena {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.layout.size()
    }

    fn index(&self) -> BufIndex {
        BufIndex(0)
    }
}

impl Drop for SimArena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; whoever used it is gone (see `Arena`).
        unsafe { alloc::dealloc(self.base.as_ptr(), self.layout) }
    }
}
