//! What all functions have in common, in one macro.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use handle::Error;

use crate::{answer::Answer, error};

/// Defines C functions of a handle, and the list of their signatures.
///
/// ```text
/// api! {
///     nbd_set_debug(h, debug: bool) -> () { h.set_debug(debug) }
/// }
/// ```
///
/// The types of the parameters are kinds ([`crate::param::Param`]); the body gets what they stand
/// for, and makes a `Result`. Callbacks are taken over before anything can fail, so that they are
/// freed whatever happens.
macro_rules! api {
    ($($name:ident($h:ident $(, $arg:ident: $kind:ty)*) -> $ret:ty $body:block)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of libnbd.h.")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                $h: *mut $crate::nbd_handle,
                $($arg: <$kind as $crate::param::Param>::Raw,)*
            ) -> <$ret as $crate::answer::Answer>::C {
                $(let $arg = <$kind as $crate::param::Param>::hold($arg);)*
                $crate::api::call::<$ret>(stringify!($name), move || {
                    // SAFETY: C passes what nbd_create made, and keeps it while this call lasts.
                    let $h = unsafe { $crate::param::handle($h, stringify!($name)) }?;
                    $(
                        let place = $crate::param::Place {
                            call: stringify!($name),
                            name: stringify!($arg),
                        };
                        // SAFETY: C passes what libnbd.h asks for, and keeps it as long as it says.
                        let $arg = unsafe { <$kind as $crate::param::Param>::take($arg, place) }?;
                    )*
                    $body
                })
            }
        )*

        /// What these functions look like in C.
        pub const SIGNATURES: &[$crate::Signature] = &[$($crate::Signature {
            name: stringify!($name),
            returns: <<$ret as $crate::answer::Answer>::C as $crate::CType>::NAME,
            takes: &[
                <*mut $crate::nbd_handle as $crate::CType>::NAME,
                $(<<$kind as $crate::param::Param>::Raw as $crate::CType>::NAME,)*
            ],
        },)*];
    };
}

/// Runs the inside of a function: an error is kept for the thread, and so is a panic.
pub fn call<A: Answer>(name: &'static str, inside: impl FnOnce() -> Result<A, Error>) -> A::C {
    let outcome = catch_unwind(AssertUnwindSafe(inside)).unwrap_or_else(|panic| {
        let why = format!("internal error: {}", said(&*panic));
        Err(Error::new(name, why, libc::EIO))
    });
    match outcome {
        Ok(answer) => answer.into_c(),
        Err(why) => {
            error::set(&why);
            A::FAILED
        }
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}
