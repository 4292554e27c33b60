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

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_int};

    use super::*;

    fn last() -> (String, c_int) {
        // SAFETY: this thread's, and no call comes between.
        let text = unsafe { CStr::from_ptr(error::message()) };
        (text.to_str().expect("UTF-8").to_owned(), error::errno())
    }

    #[test]
    fn a_panic_is_an_error() {
        assert!(error::message().is_null());
        let answer = call::<i64>("nbd_x", || panic!("what {}", 1));
        assert_eq!(answer, -1);
        let text = "nbd_x: internal error: what 1: Input/output error".to_owned();
        assert_eq!(last(), (text, libc::EIO));
        // And the next call works, and leaves the error.
        assert_eq!(call::<bool>("nbd_y", || Ok(true)), 1);
        assert_eq!(last().1, libc::EIO);
    }

    #[test]
    fn text_ends_at_a_nul() {
        let failed = || Err(Error::new("nbd_x", "a\0b", 0));
        assert_eq!(call::<()>("nbd_x", failed), -1);
        assert_eq!(last(), ("nbd_x: a".to_owned(), 0));
    }

    #[test]
    fn errors_are_each_threads_own() {
        let failed = || Err(Error::new("nbd_x", "here", libc::EPERM));
        assert_eq!(call::<()>("nbd_x", failed), -1);
        std::thread::spawn(|| assert!(error::message().is_null()))
            .join()
            .expect("no error there");
        assert_eq!(last().1, libc::EPERM);
    }
}
