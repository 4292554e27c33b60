//! Mapped memory: files seen as memory, and memory registered with a ring.

use std::{fs::File, io, os::fd::OwnedFd, ptr::NonNull, sync::Arc};

use block::{
    SharedBuf, SharedMem,
    data::{Arena, BufIndex, CHUNK_ALIGN},
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap, mmap_anonymous, munmap};

/// A file's bytes, or memory of our own, as shared memory.
pub struct Mapping(Area);

struct Area {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range; what lies there is reached by raw copies only.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Mapping {
    /// Maps the first `len` bytes of a file, for reading, shared with whoever writes to it.
    ///
    /// Fails if the file is shorter. A file that is cut shorter later ends the process with SIGBUS
    /// when the bytes behind its end are touched: map only what is under our own control.
    pub fn of_file(file: &File, len: usize) -> io::Result<Arc<SharedBuf>> {
        if len == 0 {
            return Ok(SharedBuf::from_vec(Vec::new()));
        }
        if file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: a fresh mapping, where the kernel likes it, touches nobody's memory.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let mapping = Mapping(Area::new(base, len));
        let base = mapping.0.base;
        // SAFETY: the owner unmaps the range when it is dropped, and not before. It is read-only,
        // and nothing copies into a buffer that a device hands out.
        Ok(unsafe { SharedBuf::from_owner(base, len, Box::new(mapping)) })
    }

    /// `len` zero bytes. All of them are touched, so that no later use has to wait for one, or finds
    /// that there is none.
    pub fn anonymous(len: usize) -> io::Result<Arc<SharedBuf>> {
        if len == 0 {
            return Ok(SharedBuf::from_vec(Vec::new()));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a fresh private mapping touches nobody's memory.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, flags) }?;
        let mapping = Mapping(Area::new(base, len));
        let base = mapping.0.base;
        // SAFETY: the owner unmaps the range when it is dropped, and not before; it is mapped for
        // reading and writing.
        Ok(unsafe { SharedBuf::from_owner(base, len, Box::new(mapping)) })
    }
}

/// Memory without a file's name that can be handed to others: `len` zero bytes, never fewer and never
/// more (memfd_create(2), sealed).
///
/// # Errors
/// What the system says.
pub fn sealed_memory(name: &str, len: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, len)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Keeps memory from being swapped out, as long as it is mapped. A child of a fork starts without.
///
/// # Errors
/// More than the limit of locked memory (`RLIMIT_MEMLOCK`), or than there is.
pub fn lock_in_memory(memory: &Arc<SharedBuf>) -> io::Result<()> {
    let whole = SharedMem::of_shared(memory.clone(), 0, memory.len());
    if whole.is_empty() {
        return Ok(());
    }
    // SAFETY: the range is mapped while `whole` holds it. Whether its pages may be swapped out
    // changes nothing that a program can see.
    unsafe { mlock(whole.as_ptr().cast_mut().cast(), whole.len()) }?;
    Ok(())
}

/// Memory for a loop's chunks, registered with its ring as buffer 0.
pub(crate) struct Registered(Area);

impl Registered {
    pub(crate) fn new(bytes: usize) -> io::Result<Registered> {
        let len = bytes
            .max(1)
            .checked_next_multiple_of(CHUNK_ALIGN)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping touches nobody's memory.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }?;
        Ok(Registered(Area::new(base, len)))
    }

    pub(crate) fn range(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.0.base.as_ptr().cast(),
            iov_len: self.0.len,
        }
    }
}

// SAFETY: mapped zeroed, page-aligned, by us alone, until dropped.
unsafe impl Arena for Registered {
    fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    fn len(&self) -> usize {
        self.0.len
    }

    fn index(&self) -> BufIndex {
        BufIndex(0)
    }
}

impl Area {
    fn new(base: *mut std::ffi::c_void, len: usize) -> Area {
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at address 0");
        Area { base, len }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and nobody refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
