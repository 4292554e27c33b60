//! The memory of Python's objects, filled and sent in place.
//!
//! One of the two places with unsafe code. A [`Memory`] holds an export of the object's buffer (PEP 3118): while it
//! lives, the interpreter neither frees nor moves these bytes, and refuses to resize the object.
//!
//! Whoever changes the object while a command is under way gets mixed bytes, as with libnbd. The
//! handle touches them only under its lock, and only with slices that end before it lets go.
#![allow(unsafe_code)]

use std::{ffi::c_void, slice};

use handle::{ReadBuffer, WriteBuffer};
use pyo3::{
    buffer::PyUntypedBuffer,
    exceptions::{PyBufferError, PyTypeError},
    ffi,
    prelude::*,
    types::PyByteArray,
};

/// All bytes of an object, in one piece.
pub struct Memory(PyUntypedBuffer);

impl Memory {
    /// The bytes of a bytes-like object or a `nbd.Buffer`, to be read.
    pub fn readable(object: &Bound<'_, PyAny>) -> PyResult<Memory> {
        let inner = inner_of(object)?;
        let buffer = PyUntypedBuffer::get(inner.as_ref().unwrap_or(object))?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the buffer is not C-contiguous"));
        }
        Ok(Memory(buffer))
    }

    /// As [`readable`](Memory::readable), to be written.
    pub fn writable(object: &Bound<'_, PyAny>) -> PyResult<Memory> {
        let memory = Memory::readable(object)?;
        if memory.0.readonly() {
            return Err(PyBufferError::new_err("underlying buffer is not writable"));
        }
        Ok(memory)
    }

    fn bytes(&self) -> &[u8] {
        if self.0.len_bytes() == 0 {
            return &[]; // the pointer may be anything
        }
        // SAFETY: the export is C-contiguous, so `len_bytes` bytes stand behind the pointer, for as long as it lives.
        unsafe { slice::from_raw_parts(self.0.buf_ptr().cast(), self.0.len_bytes()) }
    }

    /// Address of the first byte.
    pub fn address(&self) -> usize {
        self.0.buf_ptr().addr()
    }

    /// The object that has the bytes: for a `nbd.Buffer`, the one inside.
    pub fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = self.0.obj(py).cloned();
        object.ok_or_else(|| PyBufferError::new_err("the buffer belongs to no object"))
    }
}

impl WriteBuffer for Memory {
    fn as_slice(&self) -> &[u8] {
        self.bytes()
    }
}

impl ReadBuffer for Memory {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.0.len_bytes() == 0 {
            return &mut [];
        }
        let start: *mut c_void = self.0.buf_ptr();
        // SAFETY: as in `bytes`; memory of the interpreter's allocator counts as initialised, with any bytes. The export
        // is writable: only `writable` makes a `Memory` that is given away as a
        // `ReadBuffer` (see `new_array` and the callers of `writable`).
        unsafe { slice::from_raw_parts_mut(start.cast(), self.0.len_bytes()) }
    }
}

/// What a `nbd.Buffer` wraps; None for an object that has bytes itself.
fn inner_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: the object is alive, and we are attached.
    if unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) } != 0 {
        return Ok(None);
    }
    if object.is_instance(crate::types::buffer(object.py())?)? {
        return object.getattr("_o").map(Some);
    }
    let what = object.get_type().name()?;
    let text = format!("a bytes-like object or a nbd.Buffer is required, not '{what}'");
    Err(PyTypeError::new_err(text))
}

/// A new bytearray that somebody will fill. Its bytes are whatever was in that memory, and its pages are not touched.
///
/// Not for a length that nobody has looked at: an interpreter that has not so much memory prints a `SystemError` of its
/// own before it raises `MemoryError`.
pub fn new_array(py: Python<'_>, length: isize) -> PyResult<Bound<'_, PyByteArray>> {
    // SAFETY: with NULL it makes an array of that length; NULL as a result is an error that is set.
    unsafe {
        let array = ffi::PyByteArray_FromStringAndSize(std::ptr::null(), length);
        Bound::from_owned_ptr_or_err(py, array)?
            .cast_into()
            .map_err(PyErr::from)
    }
}
