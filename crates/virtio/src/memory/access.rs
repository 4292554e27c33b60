//! Loads and stores in memory that others write. An island of `unsafe`.
//!
//! Every access is atomic and relaxed unless its name says otherwise, so a hostile or racing writer
//! can change values, and nothing else. Numbers are little-endian, as all of virtio 1.x.
#![allow(unsafe_code)]

use std::{
    any::Any,
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
};

/// A piece of guest memory: checked and translated.
///
/// It is an address and no permission to use it: the memory stays mapped for as long as the
/// [`super::RegionMap`] it came from lives.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    guest: u64,
    host: NonNull<u8>,
    len: u32,
}

// SAFETY: an address; whoever uses it answers for that.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    #[inline]
    pub(super) fn new(guest: u64, host: NonNull<u8>, len: u32) -> Segment {
        Segment { guest, host, len }
    }

    /// The guest's address of the first byte.
    #[inline]
    pub fn guest(&self) -> u64 {
        self.guest
    }

    /// Our address of the first byte. Others write there at any time: never make a reference of it.
    #[inline]
    pub fn host(&self) -> *mut u8 {
        self.host.as_ptr()
    }

    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.host
    }

    /// Length in bytes, not 0.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Without the first `n` bytes, which are fewer than all.
    #[inline]
    pub(crate) fn skip(self, n: u32) -> Segment {
        debug_assert!(n < self.len);
        Segment {
            guest: self.guest + u64::from(n),
            host: offset(self.host, u64::from(n)),
            len: self.len - n,
        }
    }

    /// The first `n` bytes, which are not more than all.
    #[inline]
    pub(crate) fn first(self, n: u32) -> Segment {
        debug_assert!(n <= self.len && n != 0);
        Segment { len: n, ..self }
    }
}

/// A region that was hit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub guest: u64,
    pub len: u64,
    pub host: NonNull<u8>,
}

// SAFETY: an address; whoever uses it answers for that.
unsafe impl Send for Hit {}

impl Hit {
    /// No region: nothing lies in it.
    pub const NONE: Hit = Hit {
        guest: 0,
        len: 0,
        host: NonNull::dangling(),
    };

    /// Where `len` bytes from `guest` on are, if they lie in this region.
    #[inline]
    pub fn find(&self, guest: u64, len: u64) -> Option<NonNull<u8>> {
        let at = guest.wrapping_sub(self.guest);
        (at < self.len && len <= self.len - at).then(|| offset(self.host, at))
    }
}

/// The address `n` bytes on. An address only: no access happens here.
#[inline]
pub(super) fn offset(host: NonNull<u8>, n: u64) -> NonNull<u8> {
    // Offsets come from checked lengths of mappings, which fit the address space.
    let address = host.as_ptr().wrapping_add(n as usize);
    debug_assert!(!address.is_null());
    // SAFETY: inside a mapping (all callers checked `n` against its length), so not null.
    unsafe { NonNull::new_unchecked(address) }
}

/// Copies `into.len()` bytes from `host` on, each read once.
///
/// Only for callers in this folder, who checked the range against a live mapping.
#[inline]
pub(super) fn read(host: NonNull<u8>, into: &mut [u8]) {
    touched();
    let from = host.as_ptr();
    let mut at = 0;
    if from.addr().is_multiple_of(8) {
        while at + 8 <= into.len() {
            // SAFETY: inside the mapping the caller checked, and aligned.
            let word = unsafe { AtomicU64::from_ptr(from.add(at).cast()) }.load(Ordering::Relaxed);
            into[at..at + 8].copy_from_slice(&word.to_ne_bytes());
            at += 8;
        }
    }
    for (n, byte) in into.iter_mut().enumerate().skip(at) {
        // SAFETY: inside the mapping the caller checked.
        *byte = unsafe { AtomicU8::from_ptr(from.add(n)) }.load(Ordering::Relaxed);
    }
}

/// Copies bytes to `host` and on. As [`read`].
#[inline]
pub(super) fn write(host: NonNull<u8>, from: &[u8]) {
    touched();
    let into = host.as_ptr();
    let mut at = 0;
    if into.addr().is_multiple_of(8) {
        while let Some(word) = from[at..].first_chunk() {
            // SAFETY: inside the mapping the caller checked, and aligned.
            unsafe { AtomicU64::from_ptr(into.add(at).cast()) }
                .store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            at += 8;
        }
    }
    for (n, byte) in from.iter().enumerate().skip(at) {
        // SAFETY: inside the mapping the caller checked.
        unsafe { AtomicU8::from_ptr(into.add(n)) }.store(*byte, Ordering::Relaxed);
    }
}

/// Memory that is used for long and that others write: a ring, an in-flight log. Keeps it mapped.
#[derive(Clone)]
pub struct Area {
    base: NonNull<u8>,
    len: usize,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: bytes are only reached by atomic loads and stores; the owner is Send and Sync.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Area({:p}, {} bytes)", self.base, self.len)
    }
}

macro_rules! cell {
    ($load:ident $load_acquire:ident $store:ident $store_release:ident $int:ty, $atomic:ty) => {
        #[doc = concat!("Reads the number (`", stringify!($int), "`) at `offset`.")]
        #[inline]
        pub fn $load(&self, offset: usize) -> $int {
            touched();
            <$int>::from_le(self.cell::<$atomic>(offset).load(Ordering::Relaxed))
        }
        #[doc = concat!("Reads the number (`", stringify!($int), "`) at `offset`, before all that follows.")]
        #[inline]
        pub fn $load_acquire(&self, offset: usize) -> $int {
            touched();
            <$int>::from_le(self.cell::<$atomic>(offset).load(Ordering::Acquire))
        }
        #[doc = concat!("Writes the number (`", stringify!($int), "`) at `offset`.")]
        #[inline]
        pub fn $store(&self, offset: usize, value: $int) {
            touched();
            self.cell::<$atomic>(offset).store(value.to_le(), Ordering::Relaxed);
        }
        #[doc = concat!("Writes the number (`", stringify!($int), "`) at `offset`, after all before.")]
        #[inline]
        pub fn $store_release(&self, offset: usize, value: $int) {
            touched();
            self.cell::<$atomic>(offset).store(value.to_le(), Ordering::Release);
        }
    };
}

/// Offsets are in bytes. All panic beyond the end and where alignment is missing: rings check both
/// when they are set up.
impl Area {
    /// `len` bytes from `base` on.
    ///
    /// # Safety
    ///
    /// They are mapped, writable and initialised for as long as `owner` lives, and no Rust reference
    /// to them exists meanwhile.
    pub unsafe fn new(base: NonNull<u8>, len: usize, owner: Arc<dyn Any + Send + Sync>) -> Area {
        Area { base, len, owner }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it begins at a multiple of `alignment`, a power of two.
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.base.addr().get() & (alignment - 1) == 0
    }

    /// A part of it.
    pub fn part(&self, offset: usize, len: usize) -> Option<Area> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        Some(Area {
            base: self::offset(self.base, offset as u64),
            len,
            owner: self.owner.clone(),
        })
    }

    #[inline]
    fn cell<T>(&self, offset: usize) -> &T {
        let size = size_of::<T>();
        assert!(
            self.len >= size && offset <= self.len - size,
            "beyond the area"
        );
        let address = self.base.as_ptr().wrapping_add(offset);
        assert!(address.addr().is_multiple_of(size), "not aligned");
        // SAFETY: inside the area, aligned, and only used with atomic types, whose value may change
        // under a shared reference.
        unsafe { &*address.cast() }
    }

    /// The byte at `offset`.
    #[inline]
    pub fn load8(&self, offset: usize) -> u8 {
        touched();
        self.cell::<AtomicU8>(offset).load(Ordering::Relaxed)
    }

    /// Writes the byte at `offset`.
    #[inline]
    pub fn store8(&self, offset: usize, value: u8) {
        touched();
        self.cell::<AtomicU8>(offset)
            .store(value, Ordering::Relaxed);
    }

    /// Sets bits of the byte at `offset`, after all before.
    pub fn or8(&self, offset: usize, bits: u8) {
        touched();
        self.cell::<AtomicU8>(offset)
            .fetch_or(bits, Ordering::SeqCst);
    }

    /// Writes the byte at `offset`, after all before.
    #[inline]
    pub fn store8_release(&self, offset: usize, value: u8) {
        touched();
        self.cell::<AtomicU8>(offset)
            .store(value, Ordering::Release);
    }

    cell!(load16 load16_acquire store16 store16_release u16, AtomicU16);
    cell!(load32 load32_acquire store32 store32_release u32, AtomicU32);
    cell!(load64 load64_acquire store64 store64_release u64, AtomicU64);

    /// Copies bytes out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= self.len && into.len() <= self.len - offset);
        read(self::offset(self.base, offset as u64), into);
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset <= self.len && from.len() <= self.len - offset);
        write(self::offset(self.base, offset as u64), from);
    }
}

#[cfg(not(any(test, feature = "fuzzing")))]
#[inline(always)]
fn touched() {}

#[cfg(any(test, feature = "fuzzing"))]
use hook::touched;

/// Somebody who strikes before any access: writes to the memory, or ends it all. For tests and fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub mod hook {
    use std::cell::{Cell, RefCell};

    /// Called with the number of the access that comes next.
    pub type Hook = Box<dyn FnMut(u64)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }

    /// Calls `hook` before every access to shared memory by this thread until [`clear`].
    pub fn set(hook: Hook) {
        COUNT.set(0);
        HOOK.set(Some(hook));
    }

    /// No hook any more. Tells how many accesses there were.
    pub fn clear() -> u64 {
        HOOK.set(None);
        COUNT.get()
    }

    /// An access comes.
    pub(super) fn touched() {
        // A hook's own accesses do not call it.
        HOOK.with(|slot| {
            if let Ok(mut hook) = slot.try_borrow_mut()
                && let Some(hook) = hook.as_mut()
            {
                let count = COUNT.get();
                COUNT.set(count + 1);
                hook(count);
            }
        });
    }
}
