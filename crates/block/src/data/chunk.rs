//! Chunks: the buffer memory of one reactor.
//!
//! A chunk is a piece of page-aligned memory with a reference count, taken from its reactor's pool
//! and returned to it when the last reference goes. Counts are plain cells: a chunk never leaves
//! its thread. Sizes are powers of two, so a free list per size class serves every request without
//! an allocation once warm.
//!
//! *Who may touch the bytes.* The kernel may be writing into a chunk while references to it exist,
//! so bytes are reached by copying ([`super::SharedMem`]) or, as a slice, only through the one
//! reference there is ([`Chunk::as_mut_slice`]) or through a [`super::RecvBuf`], which owns the
//! bytes it shows.

use std::{
    alloc::{self, Layout},
    cell::{Cell, RefCell},
    ptr::NonNull,
    rc::Rc,
};

/// Alignment of every chunk, in bytes: enough for O_DIRECT on any block size in use.
pub const CHUNK_ALIGN: usize = 4096;

const MIN_SHIFT: u32 = 9; // 512 B
const MAX_SHIFT: u32 = 22; // 4 MiB; larger chunks are not kept
const CLASSES: usize = (MAX_SHIFT - MIN_SHIFT + 1) as usize;

/// Free memory one pool keeps, in bytes, before it gives memory back to the system.
const KEEP_BYTES: usize = 64 << 20;

/// Index of a buffer that is registered with the reactor's ring (io_uring_register(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufIndex(pub u16);

/// Memory that outlives the pool it is lent to, registered with a ring.
///
/// # Safety
/// `base..base + len` must be valid, initialised, page-aligned, used by nobody else, and stay so
/// for as long as the value exists.
pub unsafe trait Arena: 'static {
    /// First byte.
    fn base(&self) -> NonNull<u8>;
    /// Length in bytes.
    fn len(&self) -> usize;
    /// No bytes at all?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The ring's index for it.
    fn index(&self) -> BufIndex;
}

struct Header {
    refs: Cell<u32>,
    class: u8,
    from_arena: bool,
    index: Option<BufIndex>,
    ptr: NonNull<u8>,
    capacity: usize,
    pool: Cell<Option<Rc<PoolInner>>>,
}

/// A reference to a piece of one reactor's buffer memory.
pub struct Chunk(NonNull<Header>);

/// The chunks of one reactor. Cloning gives another handle to the same pool.
#[derive(Clone, Default)]
pub struct ChunkPool(Rc<PoolInner>);

#[derive(Default)]
struct PoolInner {
    #[expect(
        clippy::vec_box,
        reason = "a chunk points at its header, which must not move"
    )]
    free: [RefCell<Vec<Box<Header>>>; CLASSES],
    kept_bytes: Cell<usize>,
    live: Cell<usize>,
    /// Every arena ever lent: chunks cut from it may be out, so none is given back early.
    arenas: RefCell<Vec<ArenaState>>,
}

struct ArenaState {
    arena: Box<dyn Arena>,
    used: usize,
}

impl ChunkPool {
    /// A chunk of at least `len` bytes. Its contents are initialised but arbitrary: whoever fills
    /// it must fill all that it hands on.
    pub fn take(&self, len: usize) -> Chunk {
        let shift = len
            .max(1)
            .next_power_of_two()
            .trailing_zeros()
            .max(MIN_SHIFT);
        let class = (shift - MIN_SHIFT) as usize;
        let recycled = self
            .0
            .free
            .get(class)
            .and_then(|list| list.borrow_mut().pop());
        let header = match recycled {
            Some(header) => {
                if !header.from_arena {
                    self.0
                        .kept_bytes
                        .set(self.0.kept_bytes.get() - header.capacity);
                }
                header
            }
            None => self.make(class, len),
        };
        header.refs.set(1);
        header.pool.set(Some(self.0.clone()));
        self.0.live.set(self.0.live.get() + 1);
        Chunk(NonNull::from(Box::leak(header)))
    }

    /// Chunks are cut from `arena` (registered memory) until it is used up, then from the heap. An
    /// arena set before is cut from no more, but kept for the chunks that came from it.
    pub fn set_arena(&self, arena: Box<dyn Arena>) {
        self.0
            .arenas
            .borrow_mut()
            .push(ArenaState { arena, used: 0 });
    }

    /// Chunks that are referenced now; tests assert 0 at the end.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }

    #[cold]
    fn make(&self, class: usize, len: usize) -> Box<Header> {
        let capacity = match class {
            class if class < CLASSES => 1 << (class as u32 + MIN_SHIFT),
            _ => len.next_multiple_of(CHUNK_ALIGN),
        };
        let (ptr, index) = match self.cut(class, capacity) {
            Some((ptr, index)) => (ptr, Some(index)),
            None => (allocate(capacity), None),
        };
        Box::new(Header {
            refs: Cell::new(0),
            class: class.min(CLASSES) as u8,
            from_arena: index.is_some(),
            index,
            ptr,
            capacity,
            pool: Cell::new(None),
        })
    }

    fn cut(&self, class: usize, capacity: usize) -> Option<(NonNull<u8>, BufIndex)> {
        let mut arenas = self.0.arenas.borrow_mut();
        let state = arenas
            .last_mut()
            .filter(|_| class < CLASSES && capacity >= CHUNK_ALIGN)?;
        if state.arena.len() - state.used < capacity {
            return None;
        }
        // SAFETY: used + capacity <= len, so the pointer stays inside the arena.
        let ptr = unsafe { state.arena.base().add(state.used) };
        state.used += capacity;
        Some((ptr, state.arena.index()))
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, CHUNK_ALIGN).expect("a chunk's size fits a layout")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    let layout = layout(capacity);
    // SAFETY: the layout's size is never zero. Zeroed, so the bytes are always initialised;
    // chunks are recycled, so this is paid once.
    let ptr = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(ptr).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

impl Drop for Header {
    fn drop(&mut self) {
        if !self.from_arena {
            // SAFETY: `ptr` came from `allocate(self.capacity)` and nobody refers to it any more.
            unsafe { alloc::dealloc(self.ptr.as_ptr(), layout(self.capacity)) }
        }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        // Headers cut from an arena go before the arena itself does.
        self.free.iter_mut().for_each(|list| list.get_mut().clear());
    }
}

impl Chunk {
    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the header lives as long as any reference to it, and this is one.
        unsafe { self.0.as_ref() }
    }

    /// First byte.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.header().ptr.as_ptr()
    }

    /// Usable length in bytes: at least what was asked for.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.header().capacity
    }

    /// The ring's index, if this memory is registered.
    #[inline]
    pub fn index(&self) -> Option<BufIndex> {
        self.header().index
    }

    /// Is this the only reference?
    #[inline]
    pub fn is_unique(&self) -> bool {
        self.header().refs.get() == 1
    }

    /// The bytes, if this is the only reference to them.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        // SAFETY: the memory is initialised, valid for `capacity` bytes, and no other reference
        // (so no request, no kernel operation) can reach it while `self` is borrowed mutably.
        self.is_unique()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.capacity()) })
    }
}

impl Clone for Chunk {
    #[inline]
    fn clone(&self) -> Chunk {
        let refs = &self.header().refs;
        refs.set(
            refs.get()
                .checked_add(1)
                .expect("fewer than 2^32 references"),
        );
        Chunk(self.0)
    }
}

impl Drop for Chunk {
    #[inline]
    fn drop(&mut self) {
        let refs = self.header().refs.get() - 1;
        self.header().refs.set(refs);
        if refs == 0 {
            // SAFETY: the last reference is going; the box was leaked in `take`.
            release(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

fn release(header: Box<Header>) {
    let Some(pool) = header.pool.take() else {
        return;
    };
    pool.live.set(pool.live.get() - 1);
    let Some(list) = pool.free.get(usize::from(header.class)) else {
        return;
    };
    if header.from_arena {
        return list.borrow_mut().push(header);
    }
    let kept = pool.kept_bytes.get() + header.capacity;
    if kept <= KEEP_BYTES {
        pool.kept_bytes.set(kept);
        list.borrow_mut().push(header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_and_aligned() {
        let pool = ChunkPool::default();
        let first = pool.take(4096);
        let address = first.as_ptr();
        assert_eq!(address as usize % CHUNK_ALIGN, 0);
        assert_eq!((first.capacity(), pool.live()), (4096, 1));
        drop(first);
        let again = pool.take(4000);
        assert_eq!(again.as_ptr(), address);
        drop(again);
        assert_eq!(pool.live(), 0);
    }

    #[test]
    fn slice_only_when_unique() {
        let pool = ChunkPool::default();
        let mut chunk = pool.take(10);
        chunk.as_mut_slice().unwrap()[0] = 7;
        let other = chunk.clone();
        assert!(chunk.as_mut_slice().is_none());
        drop(other);
        assert_eq!(chunk.as_mut_slice().unwrap()[0], 7);
    }

    #[test]
    fn huge_chunks_are_not_kept_and_outlive_the_pool_handle() {
        let pool = ChunkPool::default();
        let mut huge = pool.take((8 << 20) + 1);
        assert_eq!(huge.capacity(), (8 << 20) + 4096);
        drop(pool);
        huge.as_mut_slice().unwrap()[8 << 20] = 1;
    }
}
