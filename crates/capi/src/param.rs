//! C's arguments, checked once and turned into Rust's.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int, c_uint, c_void},
    marker::PhantomData,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::NonNull,
    slice,
};

use handle::{
    ChunkCallback, CompletionCallback, ContextCallback, DebugCallback, Error, Extent64Callback,
    ExtentCallback, ListCallback, ReadBuffer, WriteBuffer,
};
use rustix::{
    io::Errno,
    net::{SocketAddrAny, SocketAddrUnix, addr::SocketAddrStorage},
};

use crate::{
    callback::{
        Callback, nbd_chunk_callback, nbd_completion_callback, nbd_context_callback,
        nbd_debug_callback, nbd_extent_callback, nbd_extent64_callback, nbd_list_callback,
    },
    ctype::CType,
    nbd_handle,
};

/// A parameter, for errors.
#[derive(Clone, Copy)]
pub struct Place {
    /// The function.
    pub call: &'static str,
    /// The parameter's name.
    pub name: &'static str,
}

impl Place {
    /// What libnbd says about NULL.
    fn is_null(self) -> Error {
        Error::new(
            self.call,
            format!("{} cannot be NULL", self.name),
            libc::EFAULT,
        )
    }

    fn is_not_utf8(self) -> Error {
        Error::new(
            self.call,
            format!("{} is not UTF-8", self.name),
            libc::EILSEQ,
        )
    }
}

/// A kind of parameter: what C passes, and what the inside of a function gets.
pub trait Param {
    /// What C passes.
    type Raw: CType;
    /// The same, owned: dropped if the call goes no further.
    type Held;
    /// What the function works with.
    type Taken<'a>;
    /// Takes over what must be freed in any case.
    fn hold(raw: Self::Raw) -> Self::Held;
    /// Checks it.
    ///
    /// # Safety
    /// It is what libnbd.h asks for, and stays so while `'a` lasts.
    unsafe fn take<'a>(held: Self::Held, place: Place) -> Result<Self::Taken<'a>, Error>;
}

/// The handle.
///
/// # Safety
/// `h` is NULL or was made by `nbd_create` and not closed, and stays so while `'a` lasts.
pub unsafe fn handle<'a>(h: *mut nbd_handle, call: &'static str) -> Result<&'a nbd_handle, Error> {
    let place = Place { call, name: "h" };
    // SAFETY: the caller's promise.
    unsafe { h.as_ref() }.ok_or_else(|| place.is_null())
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Param for $number {
            type Raw = $number;
            type Held = $number;
            type Taken<'a> = $number;
            fn hold(raw: $number) -> $number {
                raw
            }
            unsafe fn take<'a>(held: $number, _: Place) -> Result<Self::Taken<'a>, Error> {
                Ok(held)
            }
        })*
    };
}

numbers!(bool, c_int, c_uint, u64, usize);

/// Text. What is not UTF-8 is refused: the protocol has no other text.
pub struct Text;

impl Param for Text {
    type Raw = *const c_char;
    type Held = *const c_char;
    type Taken<'a> = &'a str;
    fn hold(raw: *const c_char) -> *const c_char {
        raw
    }
    unsafe fn take<'a>(held: *const c_char, place: Place) -> Result<Self::Taken<'a>, Error> {
        // SAFETY: the caller's promise.
        text(unsafe { bytes(held, place) }?, place)
    }
}

/// A name of the file system: any bytes.
pub struct File;

impl Param for File {
    type Raw = *const c_char;
    type Held = *const c_char;
    type Taken<'a> = &'a Path;
    fn hold(raw: *const c_char) -> *const c_char {
        raw
    }
    unsafe fn take<'a>(held: *const c_char, place: Place) -> Result<Self::Taken<'a>, Error> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { bytes(held, place) }?;
        Ok(Path::new(OsStr::from_bytes(bytes)))
    }
}

/// A list of texts that ends with NULL.
pub struct Texts;

impl Param for Texts {
    type Raw = *mut *mut c_char;
    type Held = *mut *mut c_char;
    type Taken<'a> = Vec<String>;
    fn hold(raw: Self::Raw) -> Self::Held {
        raw
    }
    unsafe fn take<'a>(held: Self::Held, place: Place) -> Result<Self::Taken<'a>, Error> {
        // SAFETY: the caller's promise.
        let words = unsafe { words(held, place) }?;
        let texts = words.into_iter().map(|word| text(word, place));
        texts.map(|text| text.map(str::to_owned)).collect()
    }
}

/// A command line that ends with NULL: any bytes.
pub struct Argv;

impl Param for Argv {
    type Raw = *mut *mut c_char;
    type Held = *mut *mut c_char;
    type Taken<'a> = Vec<OsString>;
    fn hold(raw: Self::Raw) -> Self::Held {
        raw
    }
    unsafe fn take<'a>(held: Self::Held, place: Place) -> Result<Self::Taken<'a>, Error> {
        // SAFETY: the caller's promise.
        let words = unsafe { words(held, place) }?;
        let words = words.into_iter().map(OsStr::from_bytes);
        Ok(words.map(OsStr::to_owned).collect())
    }
}

/// # Safety
/// It is NULL or a C string, and stays so while `'a` lasts.
unsafe fn bytes<'a>(text: *const c_char, place: Place) -> Result<&'a [u8], Error> {
    if text.is_null() {
        return Err(place.is_null());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

fn text(bytes: &[u8], place: Place) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| place.is_not_utf8())
}

/// # Safety
/// It is NULL or a list of C strings that ends with NULL, and stays so while `'a` lasts.
unsafe fn words<'a>(list: *mut *mut c_char, place: Place) -> Result<Vec<&'a [u8]>, Error> {
    if list.is_null() {
        return Err(place.is_null());
    }
    let mut words = Vec::new();
    loop {
        // SAFETY: the entries before were not the last one.
        let word = unsafe { *list.add(words.len()) };
        if word.is_null() {
            return Ok(words);
        }
        // SAFETY: the caller's promise.
        words.push(unsafe { bytes(word, place) }?);
    }
}

/// Memory that a command reads into or writes from; its length is the [`Count`] behind it.
pub struct Memory<M>(PhantomData<M>);

/// Where such memory begins.
pub struct Start(NonNull<u8>);

macro_rules! memory {
    ($($raw:ty),*) => {
        $(impl Param for Memory<$raw> {
            type Raw = $raw;
            type Held = $raw;
            type Taken<'a> = Start;
            fn hold(raw: $raw) -> $raw {
                raw
            }
            unsafe fn take<'a>(held: $raw, place: Place) -> Result<Self::Taken<'a>, Error> {
                let start = NonNull::new(held as *mut u8);
                start.map(Start).ok_or_else(|| place.is_null())
            }
        })*
    };
}

memory!(*mut c_void, *const c_void);

/// How many bytes the memory has that is the parameter before it.
pub struct Count {
    bytes: usize,
    call: &'static str,
}

impl Param for Count {
    type Raw = usize;
    type Held = usize;
    type Taken<'a> = Count;
    fn hold(raw: usize) -> usize {
        raw
    }
    unsafe fn take<'a>(held: usize, place: Place) -> Result<Self::Taken<'a>, Error> {
        Ok(Count {
            bytes: held,
            call: place.call,
        })
    }
}

/// The caller's memory for one command: from the call until the command has completed.
pub struct Lent {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: libnbd.h: the memory is the command's until it has completed, whatever thread that needs.
unsafe impl Send for Lent {}

impl Start {
    /// The memory. Both come from the same call of C, which promised that they belong together.
    pub fn with(self, count: Count) -> Result<Lent, Error> {
        // No memory is longer, and no slice may be.
        if isize::try_from(count.bytes).is_err() {
            let most = handle::MAX_REQUEST;
            let why = format!("request too large: maximum request size is {most}");
            return Err(Error::new(count.call, why, libc::ERANGE));
        }
        Ok(Lent {
            start: self.0,
            bytes: count.bytes,
        })
    }
}

impl ReadBuffer for Lent {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: C promised so many bytes that nobody else uses while this is here. What they are
        // does not matter: they are written, not read.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl WriteBuffer for Lent {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: C promised so many bytes that nobody changes while this is here.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

/// The address of a socket; its length is the [`Length`] behind it.
pub struct Address;

/// Where such an address begins.
pub struct AddressStart(NonNull<SocketAddrStorage>);

/// How many bytes the address has that is the parameter before it.
pub struct Length(libc::socklen_t);

impl Param for Address {
    type Raw = *const libc::sockaddr;
    type Held = *const libc::sockaddr;
    type Taken<'a> = AddressStart;
    fn hold(raw: Self::Raw) -> Self::Held {
        raw
    }
    unsafe fn take<'a>(held: Self::Held, place: Place) -> Result<Self::Taken<'a>, Error> {
        let start = NonNull::new(held.cast_mut().cast());
        start.map(AddressStart).ok_or_else(|| place.is_null())
    }
}

impl Param for Length {
    type Raw = libc::socklen_t;
    type Held = libc::socklen_t;
    type Taken<'a> = Length;
    fn hold(raw: libc::socklen_t) -> libc::socklen_t {
        raw
    }
    unsafe fn take<'a>(held: libc::socklen_t, _: Place) -> Result<Self::Taken<'a>, Error> {
        Ok(Length(held))
    }
}

impl AddressStart {
    /// The address, if it is one. Both come from the same call of C, which promised that they
    /// belong together.
    pub fn with(self, length: Length) -> Result<SocketAddrAny, Errno> {
        let sizes = size_of::<libc::sa_family_t>()..=size_of::<SocketAddrStorage>();
        if !sizes.contains(&(length.0 as usize)) {
            return Err(Errno::INVAL);
        }
        // SAFETY: so many bytes are there.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), length.0 as usize) };
        let (family, name) = bytes.split_at(size_of::<libc::sa_family_t>());
        if family == (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes() {
            return unix(name).map(SocketAddrAny::from);
        }
        // SAFETY: so many bytes are there, and they are at least a family and at most an address.
        Ok(unsafe { SocketAddrAny::read(self.0.as_ptr(), length.0) })
    }
}

/// An address of unix(7), where a path may end with the address, or with a NUL before.
fn unix(name: &[u8]) -> Result<SocketAddrUnix, Errno> {
    match name.split_first() {
        None => Ok(SocketAddrUnix::new_unnamed()),
        Some((0, abstract_name)) => SocketAddrUnix::new_abstract_name(abstract_name),
        Some(_) => {
            let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
            SocketAddrUnix::new(path)
        }
    }
}

macro_rules! callbacks {
    ($($(#[$doc:meta])* $kind:ident = $raw:ty, $closure:ty;)*) => {
        $(
            $(#[$doc])*
            pub struct $kind;

            impl Param for $kind {
                type Raw = $raw;
                type Held = Option<$closure>;
                type Taken<'a> = $closure;
                fn hold(raw: $raw) -> Self::Held {
                    raw.into_closure()
                }
                unsafe fn take<'a>(held: Self::Held, place: Place) -> Result<Self::Taken<'a>, Error> {
                    held.ok_or_else(|| place.is_null())
                }
            }
        )*
    };
}

callbacks! {
    /// A piece of a read.
    Chunk = nbd_chunk_callback, ChunkCallback;
    /// A meta context.
    Context = nbd_context_callback, ContextCallback;
    /// A line for debugging.
    Debug = nbd_debug_callback, DebugCallback;
    /// Extents, 32 bits each.
    Extents = nbd_extent_callback, ExtentCallback;
    /// Extents, 64 bits each.
    Extents64 = nbd_extent64_callback, Extent64Callback;
    /// An export.
    Export = nbd_list_callback, ListCallback;
}

/// The end of a command: may be left out.
pub struct Completion;

impl Param for Completion {
    type Raw = nbd_completion_callback;
    type Held = Option<CompletionCallback>;
    type Taken<'a> = Option<CompletionCallback>;
    fn hold(raw: nbd_completion_callback) -> Self::Held {
        raw.into_closure()
    }
    unsafe fn take<'a>(held: Self::Held, _: Place) -> Result<Self::Taken<'a>, Error> {
        Ok(held)
    }
}
