//! The C types of the interface, each with its name in `libnbd.h`.
//!
//! The names are for the test that proves that header and library agree: it writes a C file which
//! takes the address of every function with the type that stands here, and compiles it against the
//! header. The compiler picks the name by the type, so nobody can forget to change one of them.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::callback::{
    nbd_chunk_callback, nbd_completion_callback, nbd_context_callback, nbd_debug_callback,
    nbd_extent_callback, nbd_extent64_callback, nbd_list_callback,
};
use crate::nbd_handle;

/// A type that crosses the interface.
pub trait CType {
    /// How C writes it.
    const NAME: &'static str;
}

macro_rules! c_types {
    ($($rust:ty = $c:literal;)*) => {
        $(impl CType for $rust {
            const NAME: &'static str = $c;
        })*
    };
}

c_types! {
    () = "void";
    bool = "bool";
    c_int = "int";
    c_uint = "uint32_t";
    i64 = "int64_t";
    u64 = "uint64_t";
    isize = "ssize_t";
    usize = "size_t";
    *mut c_void = "void *";
    *const c_void = "const void *";
    *mut c_char = "char *";
    *const c_char = "const char *";
    *mut *mut c_char = "char **";
    *const libc::sockaddr = "const struct sockaddr *";
    *mut nbd_handle = "struct nbd_handle *";
    nbd_chunk_callback = "nbd_chunk_callback";
    nbd_completion_callback = "nbd_completion_callback";
    nbd_context_callback = "nbd_context_callback";
    nbd_debug_callback = "nbd_debug_callback";
    nbd_extent_callback = "nbd_extent_callback";
    nbd_extent64_callback = "nbd_extent64_callback";
    nbd_list_callback = "nbd_list_callback";
}

/// What a function of the library looks like in C.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// Its name.
    pub name: &'static str,
    /// What it returns.
    pub returns: &'static str,
    /// What it takes.
    pub takes: &'static [&'static str],
}
