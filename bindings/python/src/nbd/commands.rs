//! Methods: commands, with and without waiting.

use handle::{Error, Handle, MAX_REQUEST};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyByteArray};
use rustix::io::Errno;

use super::Connection;
use crate::{
    callback::Callable,
    convert::{Names, Wide, bits},
    memory::{Memory, new_array},
};

#[pymethods]
impl Connection {
    /// Read count bytes from offset. Returns a bytearray.
    #[pyo3(signature = (count, offset, flags=0))]
    fn pread(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<Py<PyByteArray>> {
        let array = array_for(py, "nbd_pread", count)?;
        let memory = Memory::writable(&array)?;
        self.call(py, move |h| h.pread(memory, offset.0, flags).map(drop))?;
        Ok(array.unbind())
    }

    /// Read count bytes from offset. chunk(part, offset, status, error) is called for each part as it comes;
    /// status is READ_DATA, READ_HOLE or READ_ERROR. Returns a bytearray.
    #[pyo3(signature = (count, offset, chunk, flags=0))]
    fn pread_structured(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        chunk: Callable,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<Py<PyByteArray>> {
        let array = array_for(py, "nbd_pread_structured", count)?;
        let memory = Memory::writable(&array)?;
        let chunk = chunk.chunk(&memory, py)?;
        let work = move |h: &Handle| h.pread_structured(memory, offset.0, chunk, flags).map(drop);
        self.call(py, work)?;
        Ok(array.unbind())
    }

    /// Write a bytes-like object at offset.
    #[pyo3(signature = (buf, offset, flags=0))]
    fn pwrite(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Wide,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        let memory = Memory::readable(buf)?;
        self.call(py, move |h| h.pwrite(memory, offset.0, flags))
    }

    /// Return when all completed writes are on stable storage.
    #[pyo3(signature = (flags=0))]
    fn flush(&self, py: Python<'_>, #[pyo3(from_py_with = bits)] flags: u32) -> PyResult<()> {
        self.call(py, move |h| h.flush(flags))
    }

    /// Tell the server that this range is not needed any more.
    #[pyo3(signature = (count, offset, flags=0))]
    fn trim(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.trim(count.0, offset.0, flags))
    }

    /// Ask the server to load this range into its cache.
    #[pyo3(signature = (count, offset, flags=0))]
    fn cache(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.cache(count.0, offset.0, flags))
    }

    /// Write zeroes.
    #[pyo3(signature = (count, offset, flags=0))]
    fn zero(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.zero(count.0, offset.0, flags))
    }

    /// Ask what is in a range: extent(context, offset, entries, error) is called for each metadata context;
    /// entries is a flat list of length and flags. See block_status_64().
    #[pyo3(signature = (count, offset, extent, flags=0))]
    fn block_status(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        extent: Callable,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        let extent = extent.extent();
        self.call(py, move |h| {
            h.block_status(count.0, offset.0, extent, flags)
        })
    }

    /// Ask what is in a range: extent64(context, offset, entries, error) is called for each metadata context;
    /// entries is a list of pairs of length and flags.
    #[pyo3(signature = (count, offset, extent64, flags=0))]
    fn block_status_64(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        extent64: Callable,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        let extent64 = extent64.extent64();
        self.call(py, move |h| {
            h.block_status_64(count.0, offset.0, extent64, flags)
        })
    }

    /// As block_status_64(), for some of the metadata contexts only.
    #[pyo3(signature = (count, offset, contexts, extent64, flags=0))]
    fn block_status_filter(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        contexts: Names,
        extent64: Callable,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        let extent64 = extent64.extent64();
        self.call(py, move |h| {
            h.block_status_filter(count.0, offset.0, &contexts.0, extent64, flags)
        })
    }

    /// Read into buf, without waiting. Returns a cookie; completion(error) is called at the end.
    #[pyo3(signature = (buf, offset, completion=None, flags=0))]
    fn aio_pread(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Wide,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let completion = completion.map(Callable::completion);
        let memory = Memory::writable(buf)?;
        self.call(py, move |h| {
            h.aio_pread(memory, offset.0, completion, flags)
        })
    }

    /// As pread_structured(), into buf and without waiting. Returns a cookie.
    #[pyo3(signature = (buf, offset, chunk, completion=None, flags=0))]
    fn aio_pread_structured(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Wide,
        chunk: Callable,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let completion = completion.map(Callable::completion);
        let memory = Memory::writable(buf)?;
        let chunk = chunk.chunk(&memory, py)?;
        let work =
            move |h: &Handle| h.aio_pread_structured(memory, offset.0, chunk, completion, flags);
        self.call(py, work)
    }

    /// Write buf, without waiting. Returns a cookie. buf must stay unchanged until the end.
    #[pyo3(signature = (buf, offset, completion=None, flags=0))]
    fn aio_pwrite(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Wide,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let completion = completion.map(Callable::completion);
        let memory = Memory::readable(buf)?;
        self.call(py, move |h| {
            h.aio_pwrite(memory, offset.0, completion, flags)
        })
    }

    /// As flush(), without waiting. Returns a cookie.
    #[pyo3(signature = (completion=None, flags=0))]
    fn aio_flush(
        &self,
        py: Python<'_>,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_flush(completion, flags))
    }

    /// As trim(), without waiting. Returns a cookie.
    #[pyo3(signature = (count, offset, completion=None, flags=0))]
    fn aio_trim(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_trim(count.0, offset.0, completion, flags)
        })
    }

    /// As cache(), without waiting. Returns a cookie.
    #[pyo3(signature = (count, offset, completion=None, flags=0))]
    fn aio_cache(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_cache(count.0, offset.0, completion, flags)
        })
    }

    /// As zero(), without waiting. Returns a cookie.
    #[pyo3(signature = (count, offset, completion=None, flags=0))]
    fn aio_zero(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_zero(count.0, offset.0, completion, flags)
        })
    }

    /// As block_status(), without waiting. Returns a cookie.
    #[pyo3(signature = (count, offset, extent, completion=None, flags=0))]
    fn aio_block_status(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        extent: Callable,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let extent = extent.extent();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_block_status(count.0, offset.0, extent, completion, flags)
        })
    }

    /// As block_status_64(), without waiting. Returns a cookie.
    #[pyo3(signature = (count, offset, extent64, completion=None, flags=0))]
    fn aio_block_status_64(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        extent64: Callable,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let extent64 = extent64.extent64();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_block_status_64(count.0, offset.0, extent64, completion, flags)
        })
    }

    /// As block_status_filter(), without waiting. Returns a cookie.
    #[expect(clippy::too_many_arguments, reason = "these are the call's parameters")]
    #[pyo3(signature = (count, offset, contexts, extent64, completion=None, flags=0))]
    fn aio_block_status_filter(
        &self,
        py: Python<'_>,
        count: Wide,
        offset: Wide,
        contexts: Names,
        extent64: Callable,
        completion: Option<Callable>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let extent64 = extent64.extent64();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_block_status_filter(count.0, offset.0, &contexts.0, extent64, completion, flags)
        })
    }
}

/// Memory for a read. What is longer than any request is refused here, before memory is asked for.
fn array_for<'py>(
    py: Python<'py>,
    call: &'static str,
    count: Wide,
) -> PyResult<Bound<'py, PyByteArray>> {
    if count.0.cast_signed() < 0 {
        return Err(PyValueError::new_err("the length is negative"));
    }
    match u32::try_from(count.0) {
        Ok(count) => new_array(py, count as isize),
        Err(_) => {
            let text = format!("request too large: maximum request size is {MAX_REQUEST}");
            let error = Error::new(call, text, Errno::RANGE.raw_os_error());
            Err(crate::types::error(py, &error))
        }
    }
}
