//! A library of libblkio's C interface, loaded at run time: theirs, or ours. An island of `unsafe`.
//!
//! Declared from the manual, blkio(3).
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    os::fd::BorrowedFd,
    ptr,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use libloading::Library;
use serde_json::json;

use super::{Disk, Lane, Shape, readable};
use crate::args::Args;

/// `struct blkio` and `struct blkioq`: only their addresses matter.
type Blkio = c_void;
type Blkioq = c_void;

/// `struct blkio_mem_region`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemRegion {
    addr: *mut c_void,
    len: usize,
    iova: u64,
    fd_offset: i64,
    fd: c_int,
    flags: u32,
}

/// `struct blkio_completion`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    user_data: *mut c_void,
    error_msg: *const c_char,
    ret: c_int,
    reserved: [u8; 12],
}

/// The functions that are used here.
macro_rules! functions {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Api {
            $($field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            fn load(path: &str) -> Result<Api> {
                // SAFETY: the user names a library; loading it runs its initialisers, as linking
                // with it would.
                let library = unsafe { Library::new(path) }.with_context(|| path.to_owned())?;
                // It may have threads: it is never unloaded.
                let library: &'static Library = Box::leak(Box::new(library));
                Ok(Api {
                    // SAFETY: the types are those of the interface that the library claims to have.
                    $($field: unsafe { *library.get(concat!($symbol, "\0").as_bytes())? },)*
                })
            }
        }
    };
}

functions! {
    message = "blkio_get_error_msg": fn() -> *const c_char;
    create = "blkio_create": fn(*const c_char, *mut *mut Blkio) -> c_int;
    connect = "blkio_connect": fn(*mut Blkio) -> c_int;
    start = "blkio_start": fn(*mut Blkio) -> c_int;
    destroy = "blkio_destroy": fn(*mut *mut Blkio);
    get_uint64 = "blkio_get_uint64": fn(*mut Blkio, *const c_char, *mut u64) -> c_int;
    set_int = "blkio_set_int": fn(*mut Blkio, *const c_char, c_int) -> c_int;
    set_bool = "blkio_set_bool": fn(*mut Blkio, *const c_char, bool) -> c_int;
    set_str = "blkio_set_str": fn(*mut Blkio, *const c_char, *const c_char) -> c_int;
    alloc_region = "blkio_alloc_mem_region": fn(*mut Blkio, *mut MemRegion, usize) -> c_int;
    map_region = "blkio_map_mem_region": fn(*mut Blkio, *const MemRegion) -> c_int;
    get_queue = "blkio_get_queue": fn(*mut Blkio, c_int) -> *mut Blkioq;
    get_poll_queue = "blkio_get_poll_queue": fn(*mut Blkio, c_int) -> *mut Blkioq;
    read = "blkioq_read": fn(*mut Blkioq, u64, *mut c_void, usize, *mut c_void, u32);
    write = "blkioq_write": fn(*mut Blkioq, u64, *const c_void, usize, *mut c_void, u32);
    do_io = "blkioq_do_io": fn(*mut Blkioq, *mut Completion, c_int, c_int, *mut libc::timespec) -> c_int;
    completion_fd = "blkioq_get_completion_fd": fn(*mut Blkioq) -> c_int;
    enable_fd = "blkioq_set_completion_fd_enabled": fn(*mut Blkioq, bool);
}

/// How to wait for completions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Inside `do_io`.
    DoIo,
    /// By poll(2) on the completion descriptor.
    Fd,
    /// On a poll queue, inside `do_io`.
    Poll,
}

/// An instance. Destroyed with the last of its lanes.
struct Instance {
    api: Api,
    blkio: *mut Blkio,
}

// SAFETY: an instance may be used by any thread, one at a time: after it was set up only the last
// lane, which destroys it, touches it.
unsafe impl Send for Instance {}
// SAFETY: as above; `api` is only read.
unsafe impl Sync for Instance {}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: created by this library, and no queue is in use any more.
        unsafe { (self.api.destroy)(&raw mut self.blkio) };
    }
}

impl Instance {
    fn check(&self, what: &str, result: c_int) -> Result<()> {
        if result >= 0 {
            return Ok(());
        }
        // SAFETY: a string of this thread's, which stays until the next call.
        let text = unsafe { CStr::from_ptr((self.api.message)()) };
        let errno = std::io::Error::from_raw_os_error(-result);
        bail!("{what}: {}: {errno}", text.to_string_lossy())
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let (key, text) = (CString::new(name)?, CString::new(value)?);
        // SAFETY: strings with an end, copied by the library.
        let result = unsafe { (self.api.set_str)(self.blkio, key.as_ptr(), text.as_ptr()) };
        self.check(&format!("{name}={value}"), result)
    }

    fn number(&self, name: &CStr) -> Result<u64> {
        let mut value = 0;
        // SAFETY: a string with an end, and a place for the value.
        let result = unsafe { (self.api.get_uint64)(self.blkio, name.as_ptr(), &raw mut value) };
        self.check(&name.to_string_lossy(), result)?;
        Ok(value)
    }

    fn set_int(&self, name: &CStr, value: c_int) -> Result<()> {
        // SAFETY: a string with an end.
        let result = unsafe { (self.api.set_int)(self.blkio, name.as_ptr(), value) };
        self.check(&name.to_string_lossy(), result)
    }
}

/// Connects and starts.
pub(super) fn open(args: &mut Args, shape: &Shape) -> Result<Disk> {
    let library = args.or("library", "libblkio.so.1".to_owned())?;
    let driver = args.or("driver", "virtio-blk-vhost-user".to_owned())?;
    let path: Option<String> = args.take("path")?;
    let before = args.or("properties", String::new())?;
    let after = args.or("start-properties", String::new())?;
    let waits = [
        ("do-io", Wait::DoIo),
        ("fd", Wait::Fd),
        ("poll", Wait::Poll),
    ];
    let wait = args.word("wait", &waits)?;
    let api = Api::load(&library)?;
    let mut blkio = ptr::null_mut();
    let name = CString::new(driver.as_str())?;
    // SAFETY: a string with an end, and a place for the instance.
    let result = unsafe { (api.create)(name.as_ptr(), &raw mut blkio) };
    let instance = Instance { api, blkio };
    instance.check(&driver, result)?;
    if let Some(path) = path {
        instance.set("path", &path)?;
    }
    if !shape.write {
        // A server may have its disk for reading only; libblkio wants to be told.
        // SAFETY: a string with an end.
        let result = unsafe { (instance.api.set_bool)(blkio, c"read-only".as_ptr(), true) };
        instance.check("read-only", result)?;
    }
    set_all(&instance, &before)?;
    // SAFETY: an instance that was created.
    instance.check("connect", unsafe { (instance.api.connect)(blkio) })?;
    set_all(&instance, &after)?;
    let queues = c_int::from(shape.queues);
    let (plain, polled) = if wait == Wait::Poll {
        (0, queues)
    } else {
        (queues, 0)
    };
    instance.set_int(c"num-queues", plain)?;
    instance.set_int(c"num-poll-queues", polled)?;
    // SAFETY: an instance that was connected.
    instance.check("start", unsafe { (instance.api.start)(blkio) })?;
    let size = instance.number(c"capacity")?;
    let lanes = lanes(instance, shape, wait)?;
    let client = json!({ "way": "blkio", "library": library, "driver": driver });
    Ok(Disk {
        size,
        lanes,
        client,
        session: None,
    })
}

/// `NAME=VALUE,NAME=VALUE`.
fn set_all(instance: &Instance, properties: &str) -> Result<()> {
    for property in properties.split(',').filter(|text| !text.is_empty()) {
        let (name, value) = property
            .split_once('=')
            .with_context(|| format!("'{property}' is not NAME=VALUE"))?;
        instance.set(name, value)?;
    }
    Ok(())
}

/// The queues, each with a part of one memory region.
fn lanes(instance: Instance, shape: &Shape, wait: Wait) -> Result<Vec<Box<dyn Lane>>> {
    let share = shape.depth as usize * shape.block as usize;
    let mut region = MemRegion {
        addr: ptr::null_mut(),
        len: 0,
        iova: 0,
        fd_offset: 0,
        fd: -1,
        flags: 0,
    };
    let len = (share * usize::from(shape.queues)).next_multiple_of(2 << 20);
    // SAFETY: a started instance, and a place for the region.
    let result = unsafe { (instance.api.alloc_region)(instance.blkio, &raw mut region, len) };
    instance.check("memory", result)?;
    // SAFETY: the region the library has made.
    let result = unsafe { (instance.api.map_region)(instance.blkio, &raw const region) };
    instance.check("memory region", result)?;
    // Page faults are not what is to be measured.
    // SAFETY: `len` bytes of the library's, in nobody's use yet.
    unsafe { ptr::write_bytes(region.addr.cast::<u8>(), 0x5a, len) };
    let instance = Arc::new(instance);
    let mut lanes: Vec<Box<dyn Lane>> = Vec::new();
    for n in 0..usize::from(shape.queues) {
        let get = match wait {
            Wait::Poll => instance.api.get_poll_queue,
            _ => instance.api.get_queue,
        };
        // SAFETY: a started instance with so many queues.
        let queue = unsafe { get(instance.blkio, n as c_int) };
        ensure!(!queue.is_null(), "there is no queue {n}");
        let fd = match wait {
            // SAFETY: a queue of the instance; the descriptor is its own and lives with it.
            Wait::Fd => unsafe {
                (instance.api.enable_fd)(queue, true);
                Some((instance.api.completion_fd)(queue))
            },
            _ => None,
        };
        lanes.push(Box::new(Queue {
            instance: instance.clone(),
            queue,
            // SAFETY: inside the region.
            memory: unsafe { region.addr.cast::<u8>().add(n * share) },
            block: shape.block as usize,
            depth: shape.depth as usize,
            fd,
            completions: Vec::with_capacity(shape.depth as usize),
        }));
    }
    Ok(lanes)
}

/// A queue of the library's.
struct Queue {
    instance: Arc<Instance>,
    queue: *mut Blkioq,
    memory: *mut u8,
    block: usize,
    depth: usize,
    /// The completion descriptor, if that is waited for.
    fd: Option<c_int>,
    completions: Vec<Completion>,
}

// SAFETY: a queue and its part of the region belong to whoever has this; libblkio lets queues go from
// thread to thread.
unsafe impl Send for Queue {}

impl Queue {
    fn buffer(&self, slot: u32) -> *mut u8 {
        let slot = slot as usize;
        assert!(slot < self.depth, "there is no slot {slot}");
        // SAFETY: inside this lane's part of the region.
        unsafe { self.memory.add(slot * self.block) }
    }

    /// Submits what was begun, and reaps. At least `least`.
    fn reap(&mut self, least: c_int) -> Result<c_int> {
        let most = self.depth as c_int;
        let into = self.completions.as_mut_ptr();
        let no_limit = ptr::null_mut();
        // SAFETY: room for `most` completions.
        let count = unsafe { (self.instance.api.do_io)(self.queue, into, least, most, no_limit) };
        self.instance.check("do_io", count)?;
        // SAFETY: the library has filled in so many.
        unsafe { self.completions.set_len(count as usize) };
        Ok(count)
    }
}

impl Lane for Queue {
    fn submit(&mut self, slot: u32, write: bool, offset: u64) -> Result<()> {
        let (buffer, user) = (self.buffer(slot).cast(), slot as usize as *mut c_void);
        let api = &self.instance.api;
        // SAFETY: the buffer lies in a mapped region, and is not touched until the request is done.
        unsafe {
            if write {
                (api.write)(self.queue, offset, buffer, self.block, user, 0);
            } else {
                (api.read)(self.queue, offset, buffer, self.block, user, 0);
            }
        }
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<(u32, bool)>) -> Result<()> {
        match self.fd {
            None => drop(self.reap(1)?),
            Some(fd) => {
                while self.reap(0)? == 0 {
                    // SAFETY: the queue's descriptor, open while the queue is.
                    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                    readable(fd)?;
                    let mut count = [0; 8];
                    match rustix::io::read(fd, &mut count) {
                        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                        Err(error) => return Err(error).context("the completion descriptor"),
                    }
                }
            }
        }
        let all = self.completions.iter();
        done.extend(all.map(|one| (one.user_data as usize as u32, one.ret == 0)));
        Ok(())
    }

    fn fill(&mut self, slot: u32, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.block);
        // SAFETY: a buffer that is not in flight, of this length.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.buffer(slot), bytes.len()) }
    }

    fn copy(&mut self, slot: u32, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.block);
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(self.buffer(slot), bytes.as_mut_ptr(), bytes.len()) }
    }
}
