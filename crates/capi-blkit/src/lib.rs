//! `libblkit.so.0`: programs in C serve disks of their own, over [`blkit::serve`].
//!
//! Contract: what `include/blkit.h` says. A NULL where there must be something is an error with EINVAL.
//! No panic gets out: it is an error of the call. The symbols are those of `libblkit.map`.

#![allow(clippy::missing_safety_doc)] // what C must keep to stands in blkit.h

mod device;
mod error;

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_uint},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
    sync::Arc,
    time::Duration,
};

use blkit::serve::{self, Server, Sharing, VhostUser};

pub use device::blkit_device;
use device::{CDevice, Shared};
pub use error::blkit_get_error_msg;
use error::{Failure, call, invalid};

/// What C sees of a server: nothing.
#[allow(non_camel_case_types)]
pub struct blkit_server {
    server: Server,
    device: Arc<CDevice>,
}

/// `struct blkit_serve_options` of blkit.h.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct blkit_serve_options {
    struct_size: usize,
    queues: u32,
    threads: u32,
    sharing: u32,
    read_only: bool,
    serial: *const c_char,
}

impl blkit_serve_options {
    /// # Safety
    /// What it points to is as blkit.h says.
    unsafe fn apply(&self, mut to: VhostUser) -> Result<VhostUser, Failure> {
        if self.struct_size != size_of::<blkit_serve_options>() {
            return Err(invalid(
                "struct_size is not that of struct blkit_serve_options",
            ));
        }
        if self.queues != 0 {
            let queues = u16::try_from(self.queues).map_err(|_| invalid("too many queues"))?;
            to = to.queues(queues);
        }
        if self.threads != 0 {
            to = to.threads(self.threads.min(256) as usize);
        }
        to = to.sharing(match self.sharing {
            0 => Sharing::Exclusive,
            1 => Sharing::OneWriter,
            2 => Sharing::Shared,
            _ => return Err(invalid("sharing is none of BLKIT_SHARING_...")),
        });
        if !self.serial.is_null() {
            // SAFETY: the caller's promise.
            let serial = unsafe { CStr::from_ptr(self.serial) };
            to = to.serial(serial.to_string_lossy());
        }
        Ok(to.read_only(self.read_only))
    }
}

/// `blkit_serve_vhost_user` of blkit.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkit_serve_vhost_user(
    path: *const c_char,
    device: *const blkit_device,
    options: *const blkit_serve_options,
    server: *mut *mut blkit_server,
) -> c_int {
    call(|| {
        // SAFETY: C passes a device or NULL.
        let device =
            unsafe { device.as_ref() }.ok_or_else(|| invalid("device must be non-NULL"))?;
        // From here on it is freed whatever happens.
        // SAFETY: its functions may be called as blkit.h says.
        let device = unsafe { CDevice::new(device) }?;
        if path.is_null() || server.is_null() {
            return Err(invalid("path and server must be non-NULL"));
        }
        // SAFETY: C passes a place for a pointer, and a string.
        let path = unsafe {
            server.write(ptr::null_mut());
            CStr::from_ptr(path)
        };
        let mut how = serve::vhost_user(Path::new(OsStr::from_bytes(path.to_bytes())));
        // SAFETY: C passes options or NULL.
        if let Some(options) = unsafe { options.as_ref() } {
            // SAFETY: C says that they are as blkit.h wants them.
            how = unsafe { options.apply(how) }?;
        }
        let device = Arc::new(device);
        let made = Box::new(blkit_server {
            server: how.device(Shared(device.clone()))?,
            device,
        });
        // SAFETY: as above.
        unsafe { server.write(Box::into_raw(made)) };
        Ok(0)
    })
}

/// `blkit_server_connections` of blkit.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkit_server_connections(server: *mut blkit_server) -> c_int {
    call(|| {
        // SAFETY: C passes a server or NULL.
        let server = unsafe { server.as_ref() };
        let server = server.ok_or_else(|| invalid("server must be non-NULL"))?;
        Ok(server.server.connections() as c_int)
    })
}

/// `blkit_server_resize` of blkit.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkit_server_resize(server: *mut blkit_server, size: u64) -> c_int {
    call(|| {
        // SAFETY: C passes a server or NULL.
        let server = unsafe { server.as_ref() };
        let server = server.ok_or_else(|| invalid("server must be non-NULL"))?;
        server.device.set_size(size);
        server.server.resized();
        Ok(0)
    })
}

/// `blkit_server_close` of blkit.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkit_server_close(server: *mut blkit_server, patience: c_uint) -> c_int {
    call(|| {
        if server.is_null() {
            return Ok(0);
        }
        // SAFETY: `blkit_serve_vhost_user` made it of a box, and this is its end.
        let server = unsafe { Box::from_raw(server) };
        server
            .server
            .close(Duration::from_millis(patience.into()))?;
        Ok(0)
    })
}
