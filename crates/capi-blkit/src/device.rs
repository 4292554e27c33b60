//! A disk that is made of C functions.

use std::{
    ffi::{c_int, c_void},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use blkit::serve::{Abilities, Device};

use crate::error::{Failure, invalid};

/// `struct blkit_device` of blkit.h.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct blkit_device {
    struct_size: usize,
    opaque: *mut c_void,
    size: u64,
    block_size: u32,
    pread: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, usize, u64) -> c_int>,
    pwrite: Option<unsafe extern "C" fn(*mut c_void, *const c_void, usize, u64) -> c_int>,
    flush: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    write_zeroes: Option<unsafe extern "C" fn(*mut c_void, u64, u64, bool) -> c_int>,
    discard: Option<unsafe extern "C" fn(*mut c_void, u64, u64) -> c_int>,
    free: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// The same, owned: freed when the last call is over.
pub struct CDevice {
    table: blkit_device,
    size: AtomicU64,
}

// SAFETY: blkit.h: the functions are called by any thread, several at a time.
unsafe impl Send for CDevice {}
// SAFETY: as above.
unsafe impl Sync for CDevice {}

impl CDevice {
    /// # Safety
    /// The functions may be called as blkit.h says, until `free` has been.
    pub unsafe fn new(table: &blkit_device) -> Result<CDevice, Failure> {
        if table.struct_size != size_of::<blkit_device>() {
            return Err(invalid("struct_size is not that of struct blkit_device"));
        }
        let device = CDevice {
            table: *table,
            size: AtomicU64::new(table.size),
        };
        match table.pread {
            Some(_) => Ok(device),
            None => Err(invalid("pread must be non-NULL")),
        }
    }

    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }
}

impl Drop for CDevice {
    fn drop(&mut self) {
        if let Some(free) = self.table.free {
            // SAFETY: nobody has it any more, so no call is under way and none will come.
            unsafe { free(self.table.opaque) }
        }
    }
}

/// What a function of C answered.
fn answer(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.saturating_abs())),
    }
}

/// Without it nothing of the kind is asked for.
fn absent() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The server's part of it.
pub struct Shared(pub Arc<CDevice>);

impl Device for Shared {
    fn size(&self) -> u64 {
        self.0.size.load(Ordering::Acquire)
    }

    fn block_size(&self) -> u32 {
        match self.0.table.block_size {
            0 => 512,
            size => size,
        }
    }

    fn abilities(&self) -> Abilities {
        let table = &self.0.table;
        Abilities {
            write: table.pwrite.is_some(),
            flush: table.flush.is_some(),
            write_zeroes: table.write_zeroes.is_some(),
            discard: table.discard.is_some(),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let table = &self.0.table;
        table.pread.map_or_else(absent, |pread| {
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: as blkit.h says: room for so many bytes while the call lasts.
            answer(unsafe { pread(table.opaque, to, bytes.len(), offset) })
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let table = &self.0.table;
        table.pwrite.map_or_else(absent, |pwrite| {
            let from = bytes.as_ptr().cast();
            // SAFETY: as blkit.h says: so many bytes while the call lasts.
            answer(unsafe { pwrite(table.opaque, from, bytes.len(), offset) })
        })
    }

    fn flush(&self) -> io::Result<()> {
        let table = &self.0.table;
        table.flush.map_or_else(absent, |flush| {
            // SAFETY: as blkit.h says.
            answer(unsafe { flush(table.opaque) })
        })
    }

    fn write_zeroes(&self, len: u64, offset: u64, unmap: bool) -> io::Result<()> {
        let table = &self.0.table;
        table.write_zeroes.map_or_else(absent, |zero| {
            // SAFETY: as blkit.h says.
            answer(unsafe { zero(table.opaque, len, offset, unmap) })
        })
    }

    fn discard(&self, len: u64, offset: u64) -> io::Result<()> {
        let table = &self.0.table;
        table.discard.map_or_else(absent, |discard| {
            // SAFETY: as blkit.h says.
            answer(unsafe { discard(table.opaque, len, offset) })
        })
    }
}
