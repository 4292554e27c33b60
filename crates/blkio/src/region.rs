//! Memory regions: memory for data that drivers share with devices.

use std::{
    os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd},
    ptr,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::{Result, error::invalid};

/// A stretch of the program's memory, with the file it is a mapping of. Its layout is that of
/// `struct blkio_mem_region` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryRegion {
    /// Its first byte, a multiple of `mem-region-alignment`.
    pub addr: *mut u8,
    /// Its length in bytes, a multiple of `mem-region-alignment`.
    pub len: usize,
    /// Reserved, 0.
    pub iova: u64,
    /// Where it begins in its file, in bytes.
    pub fd_offset: i64,
    /// Its file, or -1 if it has none and the driver needs none. Remains the caller's.
    pub fd: RawFd,
    /// Reserved, 0.
    pub flags: u32,
}

// SAFETY: a description; using the memory is the business of whoever submits requests.
unsafe impl Send for MemoryRegion {}

impl MemoryRegion {
    /// New memory of a file that has no name, which nobody can make shorter.
    pub(crate) fn alloc(len: usize) -> Result<MemoryRegion> {
        if len == 0 {
            return Err(Errno::INVAL.into());
        }
        let (fd, addr) = shared_memory(c"blkio-region", len)?;
        Ok(MemoryRegion {
            addr,
            len,
            iova: 0,
            fd_offset: 0,
            fd: fd.into_raw_fd(),
            flags: 0,
        })
    }

    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// It is from [`MemoryRegion::alloc`], and nobody uses it any more.
    pub(crate) unsafe fn free(self) {
        // SAFETY: mapped with this length, opened for it, and never used again, as the caller says.
        unsafe {
            let _ = munmap(self.addr.cast(), self.len);
            rustix::io::close(self.fd);
        }
    }

    /// Its file, if it has one.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: a number that is no open descriptor makes calls with it fail, and no more; the
        // caller of `map` keeps it open.
        (self.fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(self.fd) })
    }

    /// Behind its last byte.
    pub(crate) fn end(&self) -> Result<u64> {
        let end = (self.addr.addr() as u64).checked_add(self.len as u64);
        end.ok_or_else(|| invalid("the memory region wraps around"))
    }
}

/// `len` bytes of a new memfd that cannot be made shorter, mapped.
pub(crate) fn shared_memory(name: &std::ffi::CStr, len: usize) -> Result<(OwnedFd, *mut u8)> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, len as u64)?;
    // A peer that could make it shorter could end this process by SIGBUS.
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let addr = unsafe {
        mmap(
            ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &fd,
            0,
        )
    }?;
    debug_assert!(fd.as_raw_fd() >= 0);
    Ok((fd, addr.cast()))
}

/// Bytes of a page. By the C library: what rustix does instead ends a program below valgrind.
pub(crate) fn page_size() -> usize {
    // SAFETY: it takes a number and answers with one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
