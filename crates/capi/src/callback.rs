//! C's callbacks: a function, a word of the caller's for it, and a function that frees the word.
//!
//! One becomes a `Hook` as soon as it crosses the interface, and a closure when the client takes
//! it. Dropping either calls `free`, so it is called exactly once and in every case. The client
//! promises the order: callbacks of a command, its completion callback, and then the drops in the
//! same order.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    ptr,
};

use handle::{
    ChunkCallback, CompletionCallback, ContextCallback, DebugCallback, Extent, Extent64Callback,
    ExtentCallback, ListCallback,
};

use crate::error::c_string;

/// The two fields that all callbacks have, and the function as it is declared.
struct Hook<F> {
    function: Option<F>,
    data: *mut c_void,
    free: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: libnbd.h: callbacks are called by whatever thread drives the handle; the caller's data
// must stand that. The handle's lock keeps the calls apart.
unsafe impl<F: Send> Send for Hook<F> {}

impl<F> Drop for Hook<F> {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the caller gave both together, and nobody calls `function` after this.
            unsafe { free(self.data) }
        }
    }
}

macro_rules! callbacks {
    ($($(#[$doc:meta])* $name:ident = fn($($arg:ty),*);)*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[allow(non_camel_case_types)]
            pub struct $name {
                /// What is called.
                pub callback: Option<unsafe extern "C" fn(*mut c_void, $($arg),*) -> c_int>,
                /// What it is called with.
                pub user_data: *mut c_void,
                /// What is called with `user_data` at last.
                pub free: Option<unsafe extern "C" fn(*mut c_void)>,
            }

            impl $name {
                fn into_hook(
                    self,
                ) -> Hook<unsafe extern "C" fn(*mut c_void, $($arg),*) -> c_int> {
                    Hook { function: self.callback, data: self.user_data, free: self.free }
                }
            }
        )*
    };
}

callbacks! {
    /// A piece of a read.
    nbd_chunk_callback = fn(*const c_void, usize, u64, c_uint, *mut c_int);
    /// The end of a command.
    nbd_completion_callback = fn(*mut c_int);
    /// A line for debugging.
    nbd_debug_callback = fn(*const c_char, *const c_char);
    /// Extents, 32 bits each.
    nbd_extent_callback = fn(*const c_char, u64, *mut u32, usize, *mut c_int);
    /// Extents, 64 bits each.
    nbd_extent64_callback = fn(*const c_char, u64, *mut Extent, usize, *mut c_int);
    /// An export of the server.
    nbd_list_callback = fn(*const c_char, *const c_char);
    /// A meta context of the server.
    nbd_context_callback = fn(*const c_char);
}

/// What the client calls; `None` without a function, and then it is freed at once.
pub trait Callback {
    /// The client's type for it.
    type Closure;
    /// The two made one.
    fn into_closure(self) -> Option<Self::Closure>;
}

macro_rules! closures {
    ($($name:ident => $closure:ty, |$hook:ident, $call:ident $(, $arg:ident)*| $body:expr;)*) => {
        $(impl Callback for $name {
            type Closure = $closure;
            fn into_closure(self) -> Option<$closure> {
                let $hook = self.into_hook();
                let $call = $hook.function?;
                let closure: $closure = Box::new(move |$($arg),*| {
                    // The whole of it moves in, with its drop.
                    let $hook = &$hook;
                    // SAFETY: the caller gave function and data together; the pointers are valid
                    // while it runs, which is what libnbd.h promises it.
                    unsafe { $body }
                });
                Some(closure)
            }
        })*
    };
}

closures! {
    nbd_chunk_callback => ChunkCallback, |hook, call, bytes, offset, status, error|
        call(hook.data, bytes.as_ptr().cast(), bytes.len(), offset, status, error);
    nbd_debug_callback => DebugCallback, |hook, call, context, message| {
        let (context, message) = (c_string(context), c_string(message));
        call(hook.data, context.as_ptr(), message.as_ptr())
    };
    nbd_extent_callback => ExtentCallback, |hook, call, context, offset, entries, error| {
        let context = c_string(context);
        call(hook.data, context.as_ptr(), offset, entries.as_mut_ptr(), entries.len(), error)
    };
    nbd_extent64_callback => Extent64Callback, |hook, call, context, offset, entries, error| {
        let context = c_string(context);
        call(hook.data, context.as_ptr(), offset, entries.as_mut_ptr(), entries.len(), error)
    };
    nbd_list_callback => ListCallback, |hook, call, name, description| {
        let (name, description) = (c_string(name), c_string(description));
        call(hook.data, name.as_ptr(), description.as_ptr())
    };
    nbd_context_callback => ContextCallback, |hook, call, name| {
        let name = c_string(name);
        call(hook.data, name.as_ptr())
    };
}

/// Without a function it may still have something to free, when the command is completed.
impl Callback for nbd_completion_callback {
    type Closure = CompletionCallback;
    fn into_closure(self) -> Option<CompletionCallback> {
        if self.callback.is_none() && self.free.is_none() {
            return None;
        }
        let hook = self.into_hook();
        let closure: CompletionCallback = Box::new(move |error| {
            let hook = &hook;
            match hook.function {
                // SAFETY: the caller gave function and data together; the pointer is valid while
                // it runs, which is what libnbd.h promises it.
                Some(call) => unsafe { call(hook.data, ptr::from_mut(error)) },
                None => 0,
            }
        });
        Some(closure)
    }
}
