//! Handles, errors, names, and what this library is.

use std::{
    ffi::{CStr, c_char, c_int},
    sync::atomic::{AtomicUsize, Ordering},
};

use handle::Handle;

use crate::{CType, Signature, answer::Closed, api, error, nbd_handle, param::Text};

/// The interface's version, and ours: libnbd.h says that the second is free for such words.
const VERSION: &CStr = c"1.24.4";
const VERSION_EXTRA: &str = concat!("blkit ", env!("CARGO_PKG_VERSION"), "\0");

/// `nbd_create` of libnbd.h.
#[unsafe(no_mangle)]
pub extern "C" fn nbd_create() -> *mut nbd_handle {
    api::call::<Box<nbd_handle>>("nbd_create", || {
        let handle = nbd_handle {
            handle: Handle::new()?,
            private: AtomicUsize::new(0),
        };
        Ok(Box::new(handle))
    })
}

/// `nbd_close` of libnbd.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nbd_close(h: *mut nbd_handle) {
    api::call::<Closed>("nbd_close", || {
        if !h.is_null() {
            // SAFETY: C passes what nbd_create made, once, and uses it no more.
            drop(unsafe { Box::from_raw(h) });
        }
        Ok(Closed)
    });
}

/// `nbd_get_error` of libnbd.h.
#[unsafe(no_mangle)]
pub extern "C" fn nbd_get_error() -> *const c_char {
    error::message()
}

/// `nbd_get_errno` of libnbd.h.
#[unsafe(no_mangle)]
pub extern "C" fn nbd_get_errno() -> c_int {
    error::errno()
}

/// What the functions without a handle look like in C.
pub const WITHOUT_HANDLE: &[Signature] = &[
    Signature {
        name: "nbd_create",
        returns: <*mut nbd_handle as CType>::NAME,
        takes: &[],
    },
    Signature {
        name: "nbd_close",
        returns: <() as CType>::NAME,
        takes: &[<*mut nbd_handle as CType>::NAME],
    },
    Signature {
        name: "nbd_get_error",
        returns: <*const c_char as CType>::NAME,
        takes: &[],
    },
    Signature {
        name: "nbd_get_errno",
        returns: <c_int as CType>::NAME,
        takes: &[],
    },
];

api! {
    nbd_set_handle_name(h, handle_name: Text) -> () { h.set_handle_name(handle_name) }
    nbd_get_handle_name(h) -> String { h.get_handle_name() }
    nbd_set_private_data(h, private_data: usize) -> usize {
        Ok(h.private.swap(private_data, Ordering::AcqRel))
    }
    nbd_get_private_data(h) -> usize { Ok(h.private.load(Ordering::Acquire)) }
    nbd_get_handle_size(h) -> isize {
        let more = size_of::<nbd_handle>() - size_of::<Handle>();
        Ok((h.get_handle_size()? + more).cast_signed())
    }
    nbd_get_package_name(_h) -> &'static CStr { Ok(c"libnbd") }
    nbd_get_version(_h) -> &'static CStr { Ok(VERSION) }
    nbd_get_version_extra(_h) -> &'static CStr {
        Ok(CStr::from_bytes_until_nul(VERSION_EXTRA.as_bytes()).unwrap_or_default())
    }
    nbd_supports_tls(h) -> bool { Ok(h.supports_tls()) }
    nbd_supports_vsock(h) -> bool { Ok(h.supports_vsock()) }
    nbd_supports_uri(h) -> bool { Ok(h.supports_uri()) }
}
