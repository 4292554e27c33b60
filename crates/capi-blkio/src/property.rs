//! Properties, by name.

use std::ffi::{CString, c_char, c_int};

use ::blkio::Value;
use rustix::io::Errno;

use crate::{blkio, error::call, param};

macro_rules! properties {
    ($($get:ident, $set:ident, $method:ident, $kind:ident, $type:ty;)*) => {
        $(
            #[doc = concat!("`", stringify!($get), "` of blkio.h.")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $get(
                b: *mut blkio,
                name: *const c_char,
                value: *mut $type,
            ) -> c_int {
                call(|| {
                    // SAFETY: C passes an instance and a string, or NULL.
                    let (disk, name) = unsafe { (param::disk(b)?, param::name(name)?) };
                    let found = disk.$method(name)?;
                    // SAFETY: C passes a place for it, or NULL.
                    unsafe { param::put(value, found) }.map(|()| 0)
                })
            }

            #[doc = concat!("`", stringify!($set), "` of blkio.h.")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $set(
                b: *mut blkio,
                name: *const c_char,
                value: $type,
            ) -> c_int {
                call(|| {
                    // SAFETY: C passes an instance and a string, or NULL.
                    let (disk, name) = unsafe { (param::disk(b)?, param::name(name)?) };
                    disk.set(name, Value::$kind(value)).map(|()| 0)
                })
            }
        )*
    };
}

properties! {
    blkio_get_bool, blkio_set_bool, get_bool, Bool, bool;
    blkio_get_int, blkio_set_int, get_int, Int, c_int;
    blkio_get_uint64, blkio_set_uint64, get_u64, U64, u64;
}

/// `blkio_get_str` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_get_str(
    b: *mut blkio,
    name: *const c_char,
    value: *mut *mut c_char,
) -> c_int {
    call(|| {
        // SAFETY: C passes an instance and a string, or NULL.
        let (disk, name) = unsafe { (param::disk(b)?, param::name(name)?) };
        let text = disk.get_str(name)?;
        let end = text.find('\0').unwrap_or(text.len());
        let text = CString::new(&text[..end]).unwrap_or_default();
        // The caller frees it: it must be from malloc.
        // SAFETY: a C string.
        let copy = unsafe { libc::strdup(text.as_ptr()) };
        if copy.is_null() {
            return Err(Errno::NOMEM.into());
        }
        // SAFETY: C passes a place for it, or NULL.
        let put = unsafe { param::put(value, copy) };
        if put.is_err() {
            // SAFETY: from malloc, just now, and nobody else has it.
            unsafe { libc::free(copy.cast()) };
        }
        put.map(|()| 0)
    })
}

/// `blkio_set_str` of blkio.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkio_set_str(
    b: *mut blkio,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    call(|| {
        // SAFETY: C passes an instance and a string, or NULL.
        let (disk, name) = unsafe { (param::disk(b)?, param::name(name)?) };
        let (null, wrong) = ("value must be non-NULL", "Invalid value string");
        // SAFETY: C passes a string or NULL.
        let value = unsafe { param::text(value, null, wrong) }?;
        disk.set_str(name, value).map(|()| 0)
    })
}
