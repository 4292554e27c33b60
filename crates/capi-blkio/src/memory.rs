//! Memory regions.

use std::{ffi::c_int, mem::MaybeUninit};

use ::blkio::{MemoryRegion, Result};

use crate::{
    blkio,
    error::{call, invalid},
    param,
};

/// What C tells of a region.
///
/// # Safety
/// `region` is NULL or one, with values.
unsafe fn read(region: *const MemoryRegion) -> Result<MemoryRegion> {
    // SAFETY: the caller's promise.
    let region = unsafe { region.as_ref() };
    region
        .copied()
        .ok_or_else(|| invalid("region must be non-NULL"))
}

/// `blkio_alloc_mem_region` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_alloc_mem_region(
    b: *mut blkio,
    region: *mut MaybeUninit<MemoryRegion>,
    len: usize,
) -> c_int {
    call(|| {
        // SAFETY: C passes an instance or NULL.
        let disk = unsafe { param::disk(b) }?;
        if region.is_null() {
            return Err(invalid("region must be non-NULL"));
        }
        let made = MaybeUninit::new(disk.alloc_region(len)?);
        // SAFETY: C passes a place for it.
        unsafe { region.write(made) };
        Ok(0)
    })
}

/// `blkio_free_mem_region` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_free_mem_region(b: *mut blkio, region: *const MemoryRegion) {
    // There is nobody to tell what is wrong.
    let _ = call(|| {
        // SAFETY: C passes an instance and a region, or NULL.
        let (disk, region) = unsafe { (param::disk(b)?, read(region)?) };
        disk.free_region(&region);
        Ok(0)
    });
}

/// `blkio_map_mem_region` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_map_mem_region(b: *mut blkio, region: *const MemoryRegion) -> c_int {
    call(|| {
        // SAFETY: C passes an instance and a region, or NULL.
        let (disk, region) = unsafe { (param::disk(b)?, read(region)?) };
        disk.map_region(&region).map(|()| 0)
    })
}

/// `blkio_unmap_mem_region` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_unmap_mem_region(b: *mut blkio, region: *const MemoryRegion) {
    // There is nobody to tell what is wrong.
    let _ = call(|| {
        // SAFETY: C passes an instance and a region, or NULL.
        let (disk, region) = unsafe { (param::disk(b)?, read(region)?) };
        disk.unmap_region(&region);
        Ok(0)
    });
}
