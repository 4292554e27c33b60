//! Memory that several parties may look at: pins, shared pieces, raw segments, receive buffers.
//!
//! A [`Pin`] keeps memory alive; it says nothing about who writes there. [`SharedMem`] and [`Iov`]
//! are addresses with a pin. They may name memory that a guest, another thread or the kernel is
//! changing at this moment, so they never become a `&[u8]`: bytes go in and out by copying.

use std::{
    alloc::{self, Layout},
    any::Any,
    ptr::NonNull,
    rc::Rc,
    sync::Arc,
};

use smallvec::SmallVec;

use super::chunk::{BufIndex, CHUNK_ALIGN, Chunk};

/// What keeps a piece of memory alive.
#[derive(Clone)]
pub enum Pin {
    /// Nothing: the memory is there for ever.
    Static,
    /// A chunk of this reactor.
    Chunk(Chunk),
    /// Memory shared between reactors (a RAM disk's page, a cache page, an HTTP body).
    Shared(Arc<SharedBuf>),
    /// A map of guest memory. Requests on it may not be completed early (DESIGN: cancellation).
    /// Counted on one thread, so that rings on several do not fight for one counter.
    Guest(Rc<dyn Any>),
    /// Several pieces of memory of one buffer, each kept alive by its own pin.
    Many(Rc<[Pin]>),
}

impl Pin {
    fn has_static(&self) -> bool {
        match self {
            Pin::Static => true,
            Pin::Many(pins) => pins.iter().any(Pin::has_static),
            Pin::Chunk(_) | Pin::Shared(_) | Pin::Guest(_) => false,
        }
    }
}

/// A piece of memory on the heap that threads may share, freed with its last reference.
///
/// Reads and writes through [`SharedMem`] from different threads are not ordered: like two hosts
/// on one disk, overlapping access gives a mix of old and new bytes, never anything else.
pub struct SharedBuf {
    ptr: NonNull<u8>,
    len: usize,
    owner: Option<Box<dyn Any + Send + Sync>>,
}

// SAFETY: the bytes are only ever reached through raw copies, for which any thread may ask; the
// owner, if there is one, is Send and Sync itself.
unsafe impl Send for SharedBuf {}
// SAFETY: as above.
unsafe impl Sync for SharedBuf {}

impl SharedBuf {
    /// `len` zero bytes, page-aligned. `None` when memory is exhausted.
    pub fn zeroed(len: usize) -> Option<Arc<SharedBuf>> {
        let layout = Layout::from_size_align(len.max(1), CHUNK_ALIGN).ok()?;
        // SAFETY: the layout's size is at least 1.
        let ptr = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        Some(Arc::new(SharedBuf {
            ptr,
            len,
            owner: None,
        }))
    }

    /// Takes over bytes that somebody else allocated.
    pub fn from_vec(bytes: Vec<u8>) -> Arc<SharedBuf> {
        let mut owner = Box::new(bytes);
        let ptr = NonNull::new(owner.as_mut_ptr()).expect("a vector's pointer is never null");
        Arc::new(SharedBuf {
            ptr,
            len: owner.len(),
            owner: Some(owner),
        })
    }

    /// Takes over memory that `owner` keeps valid, for example a mapped file.
    ///
    /// # Safety
    /// `ptr..ptr + len` must stay valid for reads (and, if anybody copies into it, writes) for as
    /// long as `owner` lives.
    pub unsafe fn from_owner(
        ptr: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Arc<SharedBuf> {
        Arc::new(SharedBuf {
            ptr,
            len,
            owner: Some(owner),
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// First byte.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Nobody reaches the bytes but through this value: they are on the heap, and no other program's.
    pub(super) fn is_heap(&self) -> bool {
        let owner = self.owner.as_ref();
        owner.is_none_or(|owner| owner.is::<Vec<u8>>())
    }

    /// The vector that it was made of, if it was; it has no bytes any more then.
    pub(super) fn take_vec(&mut self) -> Option<Vec<u8>> {
        if !self.owner.as_ref()?.is::<Vec<u8>>() {
            return None;
        }
        let owner = self.owner.replace(Box::new(()))?;
        (self.ptr, self.len) = (NonNull::dangling(), 0);
        owner.downcast().ok().map(|vec| *vec)
    }

    /// Copies bytes in. Panics if they do not fit.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(
            at <= self.len && bytes.len() <= self.len - at,
            "write outside the buffer"
        );
        // SAFETY: in bounds by the assertion; `bytes` is a Rust slice and cannot overlap memory
        // that only this buffer owns.
        unsafe {
            copy(bytes.as_ptr(), self.ptr.as_ptr().add(at), bytes.len());
        }
    }

    /// Copies bytes out. Panics if the range is outside.
    #[inline]
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(
            at <= self.len && bytes.len() <= self.len - at,
            "read outside the buffer"
        );
        // SAFETY: as in `write`.
        unsafe {
            copy(self.ptr.as_ptr().add(at), bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Sets `len` bytes from `at` to zero. Panics if the range is outside.
    pub fn zero(&self, at: usize, len: usize) {
        assert!(
            at <= self.len && len <= self.len - at,
            "zeroing outside the buffer"
        );
        // SAFETY: in bounds by the assertion.
        unsafe { self.ptr.as_ptr().add(at).write_bytes(0, len) }
    }
}

impl Drop for SharedBuf {
    fn drop(&mut self) {
        if self.owner.is_none() {
            let layout = Layout::from_size_align(self.len.max(1), CHUNK_ALIGN)
                .expect("the layout was valid when it was allocated");
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { alloc::dealloc(self.ptr.as_ptr(), layout) }
        }
    }
}

/// The one place where bytes move between pieces of memory. `memcpy` semantics over memory that
/// others may be changing: no value read here is trusted, only moved.
///
/// # Safety
/// Both ranges must be valid for `len` bytes and not overlap.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: by this function's contract.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
}

/// Some bytes and what keeps them alive.
#[derive(Clone)]
pub struct SharedMem {
    ptr: NonNull<u8>,
    len: usize,
    pin: Pin,
}

impl SharedMem {
    /// The first `len` bytes of a chunk.
    #[inline]
    pub fn of_chunk(chunk: Chunk, len: usize) -> SharedMem {
        assert!(len <= chunk.capacity(), "longer than the chunk");
        let ptr = NonNull::new(chunk.as_ptr()).expect("a chunk's address is never null");
        SharedMem {
            ptr,
            len,
            pin: Pin::Chunk(chunk),
        }
    }

    /// A range of a shared buffer.
    #[inline]
    pub fn of_shared(buf: Arc<SharedBuf>, at: usize, len: usize) -> SharedMem {
        assert!(at <= buf.len && len <= buf.len - at, "outside the buffer");
        // SAFETY: in bounds by the assertion.
        let ptr = unsafe { buf.ptr.add(at) };
        SharedMem {
            ptr,
            len,
            pin: Pin::Shared(buf),
        }
    }

    /// Bytes that live for ever.
    pub fn of_static(bytes: &'static [u8]) -> SharedMem {
        let ptr = NonNull::from(bytes).cast();
        SharedMem {
            ptr,
            len: bytes.len(),
            pin: Pin::Static,
        }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address, for whoever hands it to the kernel while holding the pin.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// What keeps the bytes alive.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// A part of the same memory. Panics if the range is outside.
    pub fn slice(&self, at: usize, len: usize) -> SharedMem {
        assert!(at <= self.len && len <= self.len - at, "outside the memory");
        SharedMem {
            // SAFETY: in bounds by the assertion.
            ptr: unsafe { self.ptr.add(at) },
            len,
            pin: self.pin.clone(),
        }
    }

    /// Copies bytes out, starting at `at`. Panics if the range is outside.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(
            at <= self.len && bytes.len() <= self.len - at,
            "outside the memory"
        );
        // SAFETY: in bounds; `bytes` is exclusively borrowed, so it cannot overlap.
        unsafe { copy(self.ptr.as_ptr().add(at), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// The bytes as a new vector: for tests and slow paths.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }
}

/// One address range.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Segment {
    /// First byte.
    pub ptr: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

/// Addresses and the pin that keeps them alive: the buffer of one request.
///
/// For a write the bytes are immutable below the export; for a read the device fills them.
#[derive(Clone)]
pub struct Iov {
    segments: SmallVec<[Segment; 2]>,
    len: usize,
    pin: Pin,
    index: Option<BufIndex>,
}

impl Iov {
    /// Builds from raw ranges.
    ///
    /// # Safety
    /// `pin` must keep every range valid for reads and writes, and every byte initialised.
    pub unsafe fn from_raw(
        segments: impl IntoIterator<Item = Segment>,
        pin: Pin,
        index: Option<BufIndex>,
    ) -> Iov {
        let segments: SmallVec<[Segment; 2]> = segments.into_iter().collect();
        let len = segments.iter().map(|s| s.len).sum();
        Iov {
            segments,
            len,
            pin,
            index,
        }
    }

    /// The first `len` bytes of a chunk.
    #[inline]
    pub fn of_chunk(chunk: Chunk, len: usize) -> Iov {
        let index = chunk.index();
        Iov {
            index,
            ..Iov::from(SharedMem::of_chunk(chunk, len))
        }
    }

    /// Length in bytes, all segments together.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address ranges, in order.
    #[inline]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What keeps the ranges alive.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// The same bytes as shared memory, one piece for each range: to send a write's bytes on.
    pub fn shared(&self) -> impl Iterator<Item = SharedMem> {
        self.segments.iter().map(|segment| SharedMem {
            ptr: NonNull::new(segment.ptr).unwrap_or(NonNull::dangling()),
            len: segment.len,
            pin: self.pin.clone(),
        })
    }

    /// The ring's index, if all of it is one registered buffer.
    pub fn index(&self) -> Option<BufIndex> {
        self.index
    }

    /// Every segment's address and length is a multiple of `align` (a power of two).
    pub fn is_aligned(&self, align: usize) -> bool {
        self.segments
            .iter()
            .all(|s| (s.ptr as usize | s.len) & (align - 1) == 0)
    }

    /// A part of the same memory. Panics if the range is outside.
    pub fn slice(&self, at: usize, len: usize) -> Iov {
        assert!(at <= self.len && len <= self.len - at, "outside the buffer");
        let segments = self.ranges(at, len).collect();
        Iov {
            segments,
            len,
            pin: self.pin.clone(),
            index: self.index,
        }
    }

    /// A part of the same memory, cut into pieces: the given (start, length) ranges, one segment
    /// each. Panics if a range is outside.
    pub fn pieces(&self, ranges: impl IntoIterator<Item = (usize, usize)>) -> Iov {
        let mut segments = SmallVec::new();
        for (at, len) in ranges {
            assert!(at <= self.len && len <= self.len - at, "outside the buffer");
            segments.extend(self.ranges(at, len));
        }
        let len = segments.iter().map(|s: &Segment| s.len).sum();
        Iov {
            segments,
            len,
            pin: self.pin.clone(),
            index: self.index,
        }
    }

    /// One buffer made of several, in order, without a copy: a write with something before and
    /// behind it.
    pub fn gather(parts: &[Iov]) -> Iov {
        let pins: Rc<[Pin]> = parts.iter().map(|part| part.pin.clone()).collect();
        Iov {
            segments: parts
                .iter()
                .flat_map(|part| &part.segments)
                .copied()
                .collect(),
            len: parts.iter().map(|part| part.len).sum(),
            pin: Pin::Many(pins),
            index: None,
        }
    }

    /// Memory that lives for ever may lie in a read-only page: nothing is copied there.
    #[inline]
    fn assert_writable(&self) {
        assert!(!self.pin.has_static(), "static bytes cannot be changed");
    }

    /// Copies bytes in, starting at `at`. Panics if they do not fit, or if the memory is static.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(
            at <= self.len && bytes.len() <= self.len - at,
            "outside the buffer"
        );
        self.assert_writable();
        let mut from = bytes.as_ptr();
        for segment in self.ranges(at, bytes.len()) {
            // SAFETY: the ranges are valid by the type's invariant and add up to `bytes.len()`.
            unsafe {
                copy(from, segment.ptr, segment.len);
                from = from.add(segment.len);
            }
        }
    }

    /// Copies bytes out, starting at `at`. Panics if the range is outside.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(
            at <= self.len && bytes.len() <= self.len - at,
            "outside the buffer"
        );
        let mut to = bytes.as_mut_ptr();
        for segment in self.ranges(at, bytes.len()) {
            // SAFETY: as in `write`.
            unsafe {
                copy(segment.ptr, to, segment.len);
                to = to.add(segment.len);
            }
        }
    }

    /// Sets a range to zero. Panics if it is outside.
    pub fn zero(&self, at: usize, len: usize) {
        assert!(at <= self.len && len <= self.len - at, "outside the buffer");
        self.assert_writable();
        for segment in self.ranges(at, len) {
            // SAFETY: the ranges are valid by the type's invariant.
            unsafe { segment.ptr.write_bytes(0, segment.len) }
        }
    }

    /// Copies `len` bytes from `mem` (at `from`) into this buffer at `at`.
    pub fn write_mem(&self, at: usize, mem: &SharedMem, from: usize, len: usize) {
        assert!(
            from <= mem.len && len <= mem.len - from,
            "outside the memory"
        );
        assert!(at <= self.len && len <= self.len - at, "outside the buffer");
        self.assert_writable();
        // SAFETY: in bounds by the assertions.
        let mut source = unsafe { mem.ptr.as_ptr().add(from) } as *const u8;
        for segment in self.ranges(at, len) {
            // SAFETY: valid ranges that add up to `len`; both sides are raw memory, which a caller
            // may make overlap, so this is a move.
            unsafe {
                std::ptr::copy(source, segment.ptr, segment.len);
                source = source.add(segment.len);
            }
        }
    }

    /// Copies `len` bytes of this buffer (from `at`) into a shared buffer at `to`.
    #[inline]
    pub fn read_shared(&self, at: usize, buf: &SharedBuf, to: usize, len: usize) {
        assert!(
            to <= buf.len && len <= buf.len - to,
            "outside the shared buffer"
        );
        assert!(at <= self.len && len <= self.len - at, "outside the buffer");
        // SAFETY: in bounds by the assertions; a move, as in `write_mem`.
        unsafe {
            let mut target = buf.ptr.as_ptr().add(to);
            for segment in self.ranges(at, len) {
                std::ptr::copy(segment.ptr, target, segment.len);
                target = target.add(segment.len);
            }
        }
    }

    /// Copies the bytes of `other` in. Panics unless both have the same length.
    pub fn copy_iov(&self, other: &Iov) {
        assert_eq!(self.len, other.len, "buffers of one length");
        self.assert_writable();
        let mut at = 0;
        for segment in other.segments() {
            let mut from = segment.ptr.cast_const();
            for target in self.ranges(at, segment.len) {
                // SAFETY: valid ranges by the type's invariant that add up to the segment's
                // length; both sides are raw memory that may overlap, so this is a move.
                unsafe {
                    std::ptr::copy(from, target.ptr, target.len);
                    from = from.add(target.len);
                }
            }
            at += segment.len;
        }
    }

    /// The bytes as a new vector: for tests and slow paths.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    fn ranges(&self, at: usize, len: usize) -> impl Iterator<Item = Segment> + '_ {
        let (mut skip, mut left) = (at, len);
        self.segments.iter().filter_map(move |segment| {
            let here = skip.min(segment.len);
            skip -= here;
            let take = left.min(segment.len - here);
            left -= take;
            (take > 0).then(|| Segment {
                // SAFETY: here <= segment.len: the pointer stays in the segment or one past it.
                ptr: unsafe { segment.ptr.add(here) },
                len: take,
            })
        })
    }
}

impl From<SharedMem> for Iov {
    #[inline]
    fn from(mem: SharedMem) -> Iov {
        let mut segments = SmallVec::new();
        segments.push(Segment {
            ptr: mem.ptr.as_ptr(),
            len: mem.len,
        });
        Iov {
            segments,
            len: mem.len,
            pin: mem.pin,
            index: None,
        }
    }
}

/// A receive buffer: bytes are received behind, parsed in front, and cut off as [`SharedMem`].
///
/// It owns `start..` of its chunk: what lies before has been handed out and is read-only, what
/// lies behind `end` is written by the driver only while the buffer is lent to it. So the middle
/// may be shown as a slice.
pub struct RecvBuf {
    chunk: Chunk,
    start: usize,
    end: usize,
    /// Where the room ends: at the chunk's end, or before.
    limit: usize,
}

impl RecvBuf {
    /// An empty buffer over a chunk of its own. Panics if the chunk is shared.
    pub fn new(chunk: Chunk) -> RecvBuf {
        assert!(chunk.is_unique(), "a receive buffer owns its chunk");
        RecvBuf {
            limit: chunk.capacity(),
            chunk,
            start: 0,
            end: 0,
        }
    }

    /// Received and not yet consumed.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: start <= end <= capacity; the bytes are initialised; nobody writes to
        // start..end while the buffer is in our hands (type contract).
        unsafe {
            let ptr = self.chunk.as_ptr().add(self.start);
            std::slice::from_raw_parts(ptr, self.end - self.start)
        }
    }

    /// Forgets `n` bytes in front. Panics if there are fewer.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        assert!(
            n <= self.end - self.start,
            "consuming more than was received"
        );
        self.start += n;
    }

    /// Cuts `n` bytes off the front and shares them, without a copy.
    #[inline]
    pub fn take(&mut self, n: usize) -> SharedMem {
        let at = self.start;
        self.consume(n);
        // SAFETY: at + n <= end <= capacity.
        let ptr = unsafe { NonNull::new_unchecked(self.chunk.as_ptr().add(at)) };
        SharedMem {
            ptr,
            len: n,
            pin: Pin::Chunk(self.chunk.clone()),
        }
    }

    /// Room behind the received bytes, in bytes.
    #[inline]
    pub fn room(&self) -> usize {
        self.limit - self.end
    }

    /// Leaves so much room that the unconsumed bytes and what is received become `bytes` in all, or
    /// as much as the chunk has. At least those that are there.
    #[inline]
    pub fn limit_to(&mut self, bytes: usize) {
        let limit = self.start.saturating_add(bytes);
        self.limit = limit.min(self.chunk.capacity()).max(self.end);
    }

    /// All the room the chunk has, used or not, in bytes.
    pub fn capacity(&self) -> usize {
        self.chunk.capacity()
    }

    /// Where the driver writes next.
    #[inline]
    pub fn spare_ptr(&self) -> *mut u8 {
        // SAFETY: end <= capacity.
        unsafe { self.chunk.as_ptr().add(self.end) }
    }

    /// The driver has written `n` bytes behind the received ones. Panics if there was less room.
    #[inline]
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.room(), "more bytes than room");
        self.end += n;
    }

    /// Copies bytes behind the received ones, as many as there is room for. Returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        // SAFETY: n bytes of room lie behind `end`, which nobody but us writes or reads (type
        // contract), so they cannot overlap with what the caller borrows.
        unsafe { copy(bytes.as_ptr(), self.spare_ptr(), n) }
        self.filled(n);
        n
    }

    /// Starts again at the front of the chunk when everything was consumed and nothing handed out
    /// is still referenced. Says whether it could.
    pub fn rewind(&mut self) -> bool {
        let can = self.start == self.end && self.chunk.is_unique();
        if can {
            (self.start, self.end, self.limit) = (0, 0, self.chunk.capacity());
        }
        can
    }

    /// Moves the unconsumed bytes to a fresh chunk, with all its room behind them. Returns the
    /// bytes copied.
    pub fn move_to(&mut self, chunk: Chunk) -> usize {
        let mut fresh = RecvBuf::new(chunk);
        let data = self.data();
        assert!(data.len() <= fresh.room(), "the fresh chunk is too small");
        // SAFETY: the target is a unique chunk with enough room, so the ranges cannot overlap.
        unsafe { copy(data.as_ptr(), fresh.spare_ptr(), data.len()) }
        let n = data.len();
        fresh.filled(n);
        *self = fresh;
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ChunkPool;

    #[test]
    fn receive_buffers_take_what_fits() {
        let pool = ChunkPool::default();
        let mut buf = RecvBuf::new(pool.take(512));
        let room = buf.room();
        assert_eq!(buf.write(b"ab"), 2);
        let handed_out = buf.take(1);
        assert_eq!(buf.write(&vec![b'c'; room]), room - 2);
        assert_eq!((buf.room(), buf.write(b"d")), (0, 0));
        assert_eq!((&buf.data()[..2], buf.data().len()), (&b"bc"[..], room - 1));
        assert_eq!(handed_out.to_vec(), b"a");
    }

    #[test]
    fn iov_copies_across_segments() {
        let pool = ChunkPool::default();
        let chunk = pool.take(512);
        let base = chunk.as_ptr();
        // SAFETY: two disjoint ranges of one live chunk.
        let iov = unsafe {
            let parts = [
                Segment { ptr: base, len: 3 },
                Segment {
                    ptr: base.add(10),
                    len: 5,
                },
            ];
            Iov::from_raw(parts, Pin::Chunk(chunk), None)
        };
        iov.write(1, b"abcdef");
        assert_eq!(iov.slice(2, 4).to_vec(), b"bcde");
        iov.zero(2, 2);
        assert_eq!(&iov.to_vec()[1..7], b"a\0\0def");
        let shared = SharedBuf::zeroed(8).unwrap();
        iov.read_shared(4, &shared, 1, 3);
        let mem = SharedMem::of_shared(shared, 0, 8);
        assert_eq!(mem.slice(1, 3).to_vec(), b"def");
        iov.write_mem(0, &mem, 1, 3);
        assert_eq!(&iov.to_vec()[..3], b"def");
    }

    #[test]
    fn gathered_buffers_keep_their_memory() {
        let pool = ChunkPool::default();
        let (head, tail) = (
            Iov::of_chunk(pool.take(8), 3),
            Iov::from(SharedMem::of_static(b"xyz")),
        );
        head.write(0, b"abc");
        let all = Iov::gather(&[head, tail.slice(1, 2)]);
        drop(tail);
        assert_eq!((all.to_vec(), pool.live()), (b"abcyz".to_vec(), 1));
        drop(all);
        assert_eq!(pool.live(), 0);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn iov_refuses_what_does_not_fit() {
        let iov = Iov::of_chunk(ChunkPool::default().take(16), 16);
        iov.write(usize::MAX, b"x");
    }

    #[test]
    fn receive_buffer_hands_out_without_copying() {
        let pool = ChunkPool::default();
        let mut buf = RecvBuf::new(pool.take(512));
        // SAFETY: the spare room belongs to the buffer.
        unsafe {
            buf.spare_ptr()
                .copy_from_nonoverlapping(b"headpayloadrest".as_ptr(), 15)
        };
        buf.filled(15);
        buf.consume(4);
        let payload = buf.take(7);
        assert_eq!(
            (payload.to_vec().as_slice(), buf.data()),
            (&b"payload"[..], &b"rest"[..])
        );
        assert!(!buf.rewind(), "bytes are left");
        assert_eq!(buf.move_to(pool.take(1024)), 4);
        assert_eq!((buf.data(), buf.room()), (&b"rest"[..], 1020));
        buf.consume(4);
        assert!(buf.rewind());
        assert_eq!(payload.to_vec(), b"payload");
    }
}
