//! `libnbd.so.0`: the C interface of libnbd 1.24 over [`handle::Handle`].
//!
//! Why a layer of its own: C's rules (pointers, callbacks with a function that frees, errors kept
//! for each thread, memory from malloc) and the client's are different matters. The client is safe
//! code in the crate `handle`; what the compiler cannot check is here. Nearly all of it stands in
//! two files: [`param`] turns C's arguments into Rust's, once, at the edge, and [`callback`] calls
//! back. `functions` is then a list.
//!
//! Contract: what `include/libnbd.h` says. No panic gets out: it becomes an error of the call. A
//! NULL where there must be something is an error with EFAULT. The symbols and their versions are
//! those of `libnbd.map`; [`signatures`] lists them with their types.

#![allow(clippy::missing_safety_doc)] // what C must keep to stands in libnbd.h

mod answer;
#[macro_use]
mod api;
pub mod callback;
mod ctype;
mod error;
mod functions;
pub mod param;

use std::{ops::Deref, sync::atomic::AtomicUsize};

pub use ctype::{CType, Signature};
pub use functions::signatures;

/// What C sees of a handle: nothing.
#[allow(non_camel_case_types)]
pub struct nbd_handle {
    handle: handle::Handle,
    /// `nbd_set_private_data`: the program's own, never looked at.
    private: AtomicUsize,
}

/// Any thread may call with it, several at a time: libnbd.h promises that.
const fn any_thread<T: Send + Sync>() {}
const _: () = any_thread::<nbd_handle>();

impl Deref for nbd_handle {
    type Target = handle::Handle;
    fn deref(&self) -> &handle::Handle {
        &self.handle
    }
}
