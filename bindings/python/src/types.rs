//! What is written in Python (`blkit/_nbd.py`) and used here: the errors, `nbd.Buffer` and ctypes' int.

use pyo3::{prelude::*, sync::PyOnceLock};

static ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static CLOSED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static BUFFER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static NUMBER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn known<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    cell.import(py, module, name)
}

/// `nbd.Error` of an error of the handle.
pub fn error(py: Python<'_>, error: &handle::Error) -> PyErr {
    raised(py, &ERROR, "Error", (error.to_string(), error.errno()))
}

/// `nbd.ClosedHandle`.
pub fn closed(py: Python<'_>) -> PyErr {
    let text = "libnbd: method called on closed handle";
    raised(py, &CLOSED, "ClosedHandle", (text,))
}

fn raised<'py, A>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
    arguments: A,
) -> PyErr
where
    A: pyo3::call::PyCallArgs<'py>,
{
    match known(py, cell, "blkit._nbd", name).and_then(|class| class.call1(arguments)) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// `nbd.Buffer`.
pub fn buffer(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    known(py, &BUFFER, "blkit._nbd", "Buffer")
}

/// The `error` of a callback, which has a `value`.
pub fn number(py: Python<'_>, value: i32) -> PyResult<Bound<'_, PyAny>> {
    known(py, &NUMBER, "ctypes", "c_int")?.call1((value,))
}
