//! The Python extension `blkit._native`: what the modules `nbd` and `blkit` are made of.
//!
//! **What.** [`nbd::Connection`] is the class under `nbd.NBD`: a [`handle::Handle`] with the names, the defaults and the
//! manners of libnbd's module. The rest of `nbd` (errors, `Buffer`, the constructor as a context manager) is a page
//! of Python, `python/blkit/_nbd.py`.
//!
//! **Why so.** The calls are Rust methods and not Python around C functions, so a call costs one dispatch. Nothing is copied:
//! reads fill the caller's object, writes send from it ([`memory`]).
//!
//! **Contract.** The interpreter is never held while a call waits or takes the handle's lock. An object given to a command
//! is held until its completion, and not longer. `unsafe` stands in [`memory`] and [`descriptor`] only.
#![deny(unsafe_code)]

mod callback;
mod constants;
mod convert;
mod descriptor;
mod memory;
mod nbd;
mod types;

use pyo3::prelude::*;

/// Whether bytes of a buffer are all zero.
#[pyfunction]
fn is_zero(buffer: &Bound<'_, PyAny>, offset: usize, end: usize) -> PyResult<bool> {
    Ok(memory::Memory::readable(buffer)?.is_zero(offset, end))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<nbd::Connection>()?;
    module.add_function(wrap_pyfunction!(is_zero, module)?)?;
    constants::add(module)
}
