//! Regions: memory of ours or of a file, with its guest address. An island of `unsafe`.
#![allow(unsafe_code)]

use std::{
    alloc::{self, Layout},
    any::Any,
    fmt,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::{Arc, Weak},
};

use rustix::{
    fs::fstat,
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{Area, access};
use crate::sigbus::{Guard, GuardError};

/// Alignment of memory on the heap, in bytes: a page.
const ALIGN: usize = 4096;

/// Why a file cannot be a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The length is 0, or more than addresses can say.
    #[error("a memory region of this length cannot be mapped")]
    Length,
    /// The file is shorter: touching the memory beyond would raise SIGBUS.
    #[error("the file of a memory region is shorter than the region")]
    Short,
    /// The system said no.
    #[error("a memory region cannot be mapped: {0}")]
    System(Errno),
    /// It cannot be guarded.
    #[error(transparent)]
    Guard(GuardError),
}

/// A stretch of guest memory. Keeps it mapped.
#[derive(Clone)]
pub struct Region {
    guest: u64,
    user: u64,
    len: u64,
    host: NonNull<u8>,
    owner: Arc<dyn Any + Send + Sync>,
    guard: Weak<Guard>,
}

// SAFETY: bytes are only reached by atomic loads and stores; the owner is Send and Sync.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Region {
            guest, user, len, ..
        } = self;
        write!(f, "Region(guest {guest:#x}, user {user:#x}, {len} bytes)")
    }
}

/// Memory on the heap.
struct Heap(NonNull<u8>, Layout);

// SAFETY: it only holds the memory until it is freed.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and this is the only owner.
        unsafe { alloc::dealloc(self.0.as_ptr(), self.1) }
    }
}

/// A mapping of a file.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Dropped before the mapping is: it is taken out first.
    guard: Option<Arc<Guard>>,
}

// SAFETY: it only holds the mapping until it is unmapped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // What was put in a place of the mapping later must not be taken for it.
        drop(self.guard.take());
        // SAFETY: mapped with this length; all who use it hold this owner.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Guest addresses are the guest's physical ones; user addresses are those of the front-end's own
/// address space, which vhost-user uses for rings.
impl Region {
    /// Memory of somebody else.
    ///
    /// # Safety
    ///
    /// `host .. host + len` is mapped, writable and initialised for as long as `owner` lives, and no
    /// Rust reference to it exists meanwhile.
    pub unsafe fn new(
        guest: u64,
        user: u64,
        host: NonNull<u8>,
        len: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Region {
        Region {
            guest,
            user,
            len: len as u64,
            host,
            owner,
            guard: Weak::new(),
        }
    }

    /// Zeroed memory of our own, aligned to a page. User addresses are the guest's.
    ///
    /// # Panics
    ///
    /// If `len` is 0 or there is no memory.
    pub fn heap(guest: u64, len: usize) -> Region {
        assert!(len != 0, "a region has bytes");
        let layout = Layout::from_size_align(len, ALIGN).expect("a length that can exist");
        // SAFETY: the length is not 0.
        let host = NonNull::new(unsafe { alloc::alloc_zeroed(layout) });
        let host = host.unwrap_or_else(|| alloc::handle_alloc_error(layout));
        // SAFETY: allocated just now; only the owner frees it.
        unsafe { Region::new(guest, guest, host, len, Arc::new(Heap(host, layout))) }
    }

    /// `len` bytes of a file from `offset` on, shared with everybody who maps it.
    ///
    /// A file that is made shorter later makes accesses raise SIGBUS: a [guard](crate::sigbus) stands
    /// over the mapping, and [`Region::was_cut`] tells.
    ///
    /// # Errors
    ///
    /// As [`MapError`] says.
    pub fn map(
        guest: u64,
        user: u64,
        file: impl AsFd,
        offset: u64,
        len: u64,
    ) -> Result<Region, MapError> {
        let size = fstat(&file).map_err(MapError::System)?.st_size;
        let end = offset.checked_add(len).ok_or(MapError::Length)?;
        if u64::try_from(size).unwrap_or(0) < end {
            return Err(MapError::Short);
        }
        // The kernel wants offsets of whole pages.
        let before = offset % ALIGN as u64;
        let whole = usize::try_from(len.checked_add(before).ok_or(MapError::Length)?);
        let whole = whole.map_err(|_| MapError::Length)?;
        if len == 0 {
            return Err(MapError::Length);
        }
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                whole,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                file,
                offset - before,
            )
        };
        let base = NonNull::new(base.map_err(MapError::System)?.cast()).ok_or(MapError::Length)?;
        let mut mapping = Mapping {
            base,
            len: whole,
            guard: None,
        };
        // SAFETY: the whole of a mapping, which its owner unmaps after the guard has gone. Nobody has
        // references to it.
        let guard = unsafe { Guard::new(base, whole) }.map_err(MapError::Guard)?;
        let guard = mapping.guard.insert(Arc::new(guard));
        let guard = Arc::downgrade(guard);
        let host = access::offset(base, before);
        // SAFETY: mapped just now; only the owner unmaps it.
        let region = unsafe { Region::new(guest, user, host, len as usize, Arc::new(mapping)) };
        Ok(Region { guard, ..region })
    }

    /// Whether the file has become shorter than the region, and an access has found out: what was
    /// behind its end are zeroes now, and whoever has the file cannot be trusted.
    pub fn was_cut(&self) -> bool {
        self.guard.upgrade().is_some_and(|guard| guard.was_cut())
    }

    /// The first guest address.
    pub fn guest(&self) -> u64 {
        self.guest
    }

    /// The first user address.
    pub fn user(&self) -> u64 {
        self.user
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn host(&self) -> NonNull<u8> {
        self.host
    }

    /// A part of it, to be used for long.
    pub fn area(&self, offset: u64, len: usize) -> Option<Area> {
        if offset > self.len || len as u64 > self.len - offset {
            return None;
        }
        let base = access::offset(self.host, offset);
        // SAFETY: inside the region, and the owner goes with it.
        Some(unsafe { Area::new(base, len, self.owner.clone()) })
    }
}
