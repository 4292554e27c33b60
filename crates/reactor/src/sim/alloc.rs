//! An allocator that counts, for tests that sign a budget of allocations.
//!
//! Counts are kept by thread, so tests of one process do not disturb one another:
//!
//! ```
//! use blkit_reactor::sim::{CountingAlloc, allocations};
//!
//! #[global_allocator]
//! static ALLOC: CountingAlloc = CountingAlloc;
//!
//! let before = allocations();
//! drop(Box::new([0u8; 100]));
//! assert_eq!(allocations() - before, 1);
//! ```

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting.
pub struct CountingAlloc;

/// Allocations (and reallocations) this thread has made so far; 0 unless [`CountingAlloc`] is the
/// global allocator.
pub fn allocations() -> u64 {
    COUNT.with(Cell::get)
}

fn count() {
    // A thread that is ending has no counter any more, and nobody who would ask.
    let _ = COUNT.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator as it came; counting touches no memory
// but a plain thread-local cell, which allocates nothing.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by our caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by our caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: by our caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: by our caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}
