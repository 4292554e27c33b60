//! C's arguments, checked once and turned into Rust's.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int, c_uint, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::NonNull,
};

use handle::{
    ChunkCallback, CompletionCallback, ContextCallback, DebugCallback, Error, Extent64Callback,
    ExtentCallback, ListCallback, ReadBuffer, WriteBuffer,
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
        Error::new(self.call, format!("{} cannot be NULL", self.name), libc::EFAULT)
    }

    fn is_not_utf8(self) -> Error {
        Error::new(self.call, format!("{} is not UTF-8", self.name), libc::EILSEQ)
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
pub unsafe fn handle<'a>(
    h: *mut nbd_handle,
    call: &'static str,
) -> Result<&'a nbd_handle, Error> {
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
            unsafe fn take<'a>(held: $number, _: Place) -> Result<$number, Error> {
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
    unsafe fn take<'a>(held: *const c_char, place: Place) -> Result<&'a str, Error> {
        // SAFETY: the caller's promise.
        unsafe { text(held, place) }
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
    unsafe fn take<'a>(held: *const c_char, place: Place) -> Result<&'a Path, Error> {
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
        words
            // SAFETY: the same.
            .map(|word| unsafe { text(word, place) }.map(str::to_owned))
            .collect()
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
        words
            // SAFETY: the same.
            .map(|word| unsafe { bytes(word, place) }.map(|word| OsStr::from_bytes(word).to_owned()))
            .collect()
    }
}

unsafe fn bytes<'a>(text: *const c_char, place: Place) -> Result<&'a [u8], Error> {
    if text.is_null() {
        return Err(place.is_null());
    }
    // SAFETY: not NULL, and so a C string by the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

unsafe fn text<'a>(text: *const c_char, place: Place) -> Result<&'a str, Error> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(text, place) }?;
    std::str::from_utf8(bytes).map_err(|_| place.is_not_utf8())
}

unsafe fn words(
    list: *mut *mut c_char,
    place: Place,
) -> Result<impl Iterator<Item = *const c_char>, Error> {
    if list.is_null() {
        return Err(place.is_null());
    }
    let mut next = list;
    Ok(std::iter::from_fn(move || {
        // SAFETY: by the caller's promise there is an entry up to the NULL, and this is not behind it.
        let word = unsafe { *next };
        if word.is_null() {
            return None;
        }
        // SAFETY: the entry before was not the last.
        next = unsafe { next.add(1) };
        Some(word.cast_const())
    }))
}

/// Memory to read into or to write from, without its length.
pub struct Memory<M>(M);

impl Param for Memory<*mut c_void> {
    type Raw = *mut c_void;
    type Held = *mut c_void;
    type Taken<'a> = NonNull<u8>;
    fn hold(raw: *mut c_void) -> *mut c_void {
        raw
    }
    unsafe fn take<'a>(held: *mut c_void, place: Place) -> Result<NonNull<u8>, Error> {
        NonNull::new(held.cast()).ok_or_else(|| place.is_null())
    }
}

impl Param for Memory<*const c_void> {
    type Raw = *const c_void;
    type Held = *const c_void;
    type Taken<'a> = NonNull<u8>;
    fn hold(raw: *const c_void) -> *const c_void {
        raw
    }
    unsafe fn take<'a>(held: *const c_void, place: Place) -> Result<NonNull<u8>, Error> {
        NonNull::new(held.cast_mut().cast()).ok_or_else(|| place.is_null())
    }
}

/// The caller's memory for one command.
pub struct Lent {
    start: NonNull<u8>,
    count: usize,
}

// SAFETY: libnbd.h: the memory is the command's until it has completed, whatever thread that needs.
unsafe impl Send for Lent {}

impl Lent {
    /// # Safety
    /// Until this is dropped, `count` bytes from `start` on are there and nobody else uses them;
    /// for a read, they may be written.
    pub unsafe fn new(start: NonNull<u8>, count: usize) -> Lent {
        Lent { start, count }
    }
}

impl ReadBuffer for Lent {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the promise of `new`. Whatever the bytes are, they are bytes.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count) }
    }
}

impl WriteBuffer for Lent {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: the promise of `new`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

/// The address of a socket, without its length.
pub struct Address;

impl Param for Address {
    type Raw = *const libc::sockaddr;
    type Held = *const libc::sockaddr;
    type Taken<'a> = NonNull<libc::sockaddr>;
    fn hold(raw: Self::Raw) -> Self::Held {
        raw
    }
    unsafe fn take<'a>(held: Self::Held, place: Place) -> Result<Self::Taken<'a>, Error> {
        NonNull::new(held.cast_mut()).ok_or_else(|| place.is_null())
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
                unsafe fn take<'a>(held: Self::Held, place: Place) -> Result<$closure, Error> {
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
    unsafe fn take<'a>(held: Self::Held, _: Place) -> Result<Self::Held, Error> {
        Ok(held)
    }
}
