//! `blkit.open` and `blkit.Disk`: the blocking face of the Rust API.
//!
//! A disk lives on a thread of blkit's own, which never wants the interpreter; calls detach from it while they wait. What
//! fails raises `OSError`, with the number and the whole message.

use std::sync::{Mutex, PoisonError};

use blkit::Flags;
use handle::{ReadBuffer, WriteBuffer};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    intern,
    prelude::*,
    types::{PyByteArray, PyDict, PyTuple},
};
use rustix::io::Errno;

use crate::memory::{Memory, new_array};

/// Open a disk: a URI such as nbd://host/export, a path, or the name of a source with its parameters.
///
///     blkit.open("disk.img")
///     blkit.open("memory", "1G")
///     blkit.open("nbd://localhost", read_only=True, filters=["cow"])
///     blkit.open("pattern", size="1M")
///
/// Words and named parameters are those of blkit's command line (blkit help NAME). The first filter is the outermost.
/// Paths need a '/' or a '.' in them.
#[pyfunction]
#[pyo3(signature = (source, *words, filters=None, export="", read_only=false, **parameters))]
pub fn open(
    py: Python<'_>,
    source: String,
    words: Vec<String>,
    filters: Option<Vec<String>>,
    export: &str,
    read_only: bool,
    parameters: Option<&Bound<'_, PyDict>>,
) -> PyResult<Disk> {
    let mut builder = blkit::Disk::builder(source)
        .export(export)
        .read_only(read_only);
    for filter in filters.into_iter().flatten() {
        builder = builder.filter(filter);
    }
    for word in words {
        builder = builder.arg(word);
    }
    for (key, value) in parameters.into_iter().flatten() {
        let key: String = key.extract()?;
        builder = builder.param(&key, value.str()?.to_cow()?);
    }
    let opened = py.detach(move || builder.open());
    let disk = opened.map_err(|error| raised(&error))?;
    Ok(Disk(Mutex::new(Some(disk))))
}

/// An open disk. Any number of threads may use it. It is closed by close(), at the end of a with statement, or in the
/// background when it is forgotten. Not to be used after a fork().
#[pyclass(frozen, module = "blkit")]
pub struct Disk(Mutex<Option<blkit::Disk>>);

impl Disk {
    fn disk(&self) -> PyResult<blkit::Disk> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
            .ok_or_else(|| PyValueError::new_err("the disk is closed"))
    }

    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&blkit::Disk) -> blkit::Result<T> + Send,
    ) -> PyResult<T> {
        let disk = self.disk()?;
        let result = py.detach(move || work(&disk));
        result.map_err(|error| raised(&error))
    }
}

#[pymethods]
impl Disk {
    /// Size in bytes.
    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.disk()?.size())
    }

    /// Whether it cannot be changed.
    #[getter]
    fn read_only(&self) -> PyResult<bool> {
        Ok(self.disk()?.limits().read_only)
    }

    /// Read count bytes from offset. Returns a bytearray.
    fn read(&self, py: Python<'_>, count: u64, offset: u64) -> PyResult<Py<PyByteArray>> {
        let size = self.disk()?.size();
        let fits = offset.checked_add(count).is_some_and(|end| end <= size);
        let length = isize::try_from(count).ok().filter(|_| fits);
        let length = length.ok_or_else(|| outside(count, offset, size))?;
        let array = new_array(py, length)?;
        self.read_into(py, &array, offset)?;
        Ok(array.unbind())
    }

    /// Fill a writable bytes-like object from offset.
    fn read_into(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, offset: u64) -> PyResult<()> {
        let mut memory = Memory::writable(buffer)?;
        self.call(py, move |disk| disk.read_at(memory.as_mut_slice(), offset))
    }

    /// Write a bytes-like object at offset. With fua it is on the medium when this returns.
    #[pyo3(signature = (data, offset, *, fua=false))]
    fn write(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        offset: u64,
        fua: bool,
    ) -> PyResult<()> {
        let memory = Memory::readable(data)?;
        let flags = flag(fua, Flags::FUA);
        self.call(py, move |disk| {
            disk.write_at_with(memory.as_slice(), offset, flags)
        })
    }

    /// Return when everything that was written before is on the medium.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, blkit::Disk::flush)
    }

    /// Make count bytes at offset zero, with space for them if no_hole.
    #[pyo3(signature = (count, offset, *, no_hole=false))]
    fn zero(&self, py: Python<'_>, count: u64, offset: u64, no_hole: bool) -> PyResult<()> {
        let flags = flag(no_hole, Flags::NO_HOLE);
        self.call(py, move |disk| disk.write_zeroes(offset, count, flags))
    }

    /// Say that count bytes at offset are not needed any more: they may read as anything.
    fn discard(&self, py: Python<'_>, count: u64, offset: u64) -> PyResult<()> {
        self.call(py, move |disk| disk.discard(offset, count))
    }

    /// What is in count bytes (None: all there are) from offset on: a list of tuples (offset, length, hole, zero).
    #[pyo3(signature = (count=None, offset=0))]
    fn extents(
        &self,
        py: Python<'_>,
        count: Option<u64>,
        offset: u64,
    ) -> PyResult<Vec<(u64, u64, bool, bool)>> {
        let size = self.disk()?.size();
        let count = count.unwrap_or(size.saturating_sub(offset));
        let end = offset.checked_add(count).filter(|end| *end <= size);
        let end = end.ok_or_else(|| outside(count, offset, size))?;
        self.call(py, move |disk| {
            let (mut at, mut found) = (offset, Vec::new());
            while at < end {
                for extent in disk.extents(at, end - at)? {
                    let len = extent.len.min(end - extent.offset);
                    found.push((extent.offset, len, extent.hole, extent.zero));
                    at = extent.offset + len;
                }
            }
            Ok(found)
        })
    }

    /// Flush if it was changed, and close. Calls under way in other threads are waited for.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(disk) = held else { return Ok(()) };
        let result = py.detach(move || disk.close());
        result.map_err(|error| raised(&error))
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_what))]
    fn __exit__(&self, py: Python<'_>, _what: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        match self.disk() {
            Ok(disk) => format!("<blkit.Disk of {} bytes>", disk.size()),
            Err(_) => "<blkit.Disk, closed>".into(),
        }
    }
}

fn flag(wanted: bool, flag: Flags) -> Flags {
    match wanted {
        true => flag,
        false => Flags::NONE,
    }
}

/// Checked before memory is asked for, or a loop is begun.
fn outside(count: u64, offset: u64, size: u64) -> PyErr {
    let text = format!("{count} bytes at {offset} are not on a disk of {size}");
    PyOSError::new_err((Errno::INVAL.raw_os_error(), text))
}

/// An `OSError`, of the class that Python has for the number; the hint, where there is one, as a note.
fn raised(error: &blkit::Error) -> PyErr {
    let told = PyOSError::new_err((error.errno(), error.to_string()));
    if let Some(hint) = error.hint() {
        // A note that cannot be added is no reason to lose the error.
        Python::attach(|py| {
            let _ = told
                .value(py)
                .call_method1(intern!(py, "add_note"), (hint,));
        });
    }
    told
}
