//! The Python extension `blkit._native`: what the modules `nbd` and `blkit` are made of.
//!
//! **What.** `nbd::Connection` is the class under `nbd.NBD`: a `handle::Handle` with the names, the defaults and the
//! manners of libnbd's module. The rest of `nbd` (errors, `Buffer`, the constructor as a context manager) is a page
//! of Python, `python/blkit/_nbd.py`. `disk::Disk` is `blkit.Disk`: the Rust API's disk, for any source of blkit.
//!
//! **Why so.** The calls are Rust methods and not Python around C functions, so a call costs one dispatch. Nothing is copied:
//! reads fill the caller's object, writes send from it (`memory`).
//!
//! **Contract.** The interpreter is never held while a call waits or takes the handle's lock. An object given to a command
//! is held until its completion, and not longer. `unsafe` stands in `memory` and `descriptor` only.
#![deny(unsafe_code)]

mod callback;
mod constants;
mod convert;
mod descriptor;
mod disk;
mod memory;
mod nbd;
mod types;

use handle::WriteBuffer;
use pyo3::{exceptions::PyIndexError, prelude::*};

/// Whether `size` bytes of a buffer, or all with -1, are zero from `offset` on.
#[pyfunction]
fn is_zero(buffer: &Bound<'_, PyAny>, offset: isize, size: isize) -> PyResult<bool> {
    let memory = memory::Memory::readable(buffer)?;
    let bytes = memory.as_slice();
    let wrong = |text| Err(PyIndexError::new_err(text));
    let Ok(offset) = usize::try_from(offset) else {
        return wrong("offset out of range");
    };
    let part = match size {
        -1 if offset > bytes.len() => return wrong("offset out of range"),
        -1 => bytes.get(offset..),
        0 => return Ok(true),
        1.. => bytes.get(offset..offset.saturating_add_signed(size)),
        _ => return wrong("size cannot be negative, but -1 is all there is"),
    };
    match part {
        Some(part) => Ok(part.iter().all(|byte| *byte == 0)),
        None => wrong("size out of range"),
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<nbd::Connection>()?;
    module.add_class::<disk::Disk>()?;
    module.add_function(wrap_pyfunction!(disk::open, module)?)?;
    module.add_function(wrap_pyfunction!(is_zero, module)?)?;
    constants::add(module)
}
