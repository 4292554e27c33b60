//! Python's functions as the callbacks of a handle.
//!
//! They are called with the handle's lock held and the interpreter attached. That cannot lock up: every call that needs
//! the handle's lock detaches from the interpreter first (see [`crate::nbd`]).
//!
//! What a function returns is the callback's result if it is an `int`, else 0. An exception is printed as the
//! interpreter does, and the result is -1: there is no way to take it through the server's reply.

use std::mem;

use handle::{
    ChunkCallback, CompletionCallback, ContextCallback, DebugCallback, Extent64Callback,
    ExtentCallback, ListCallback,
};
use pyo3::{
    Borrowed,
    call::PyCallArgs,
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{PyMemoryView, PySlice, PyTuple},
};

use crate::memory::Memory;

/// An object of Python that belongs to a command. It is let go by whoever completes that, attached to the interpreter or
/// not, and at once: what it holds shall not outlive the command.
struct Held(Option<Py<PyAny>>);

impl Held {
    fn new(object: Bound<'_, PyAny>) -> Held {
        Held(Some(object.unbind()))
    }

    fn bind<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let object = self.0.as_ref().map(|object| object.bind(py));
        object.ok_or_else(|| PyRuntimeError::new_err("used after its end"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        Python::try_attach(|_| drop(self.0.take()));
        mem::forget(self.0.take()); // the interpreter is gone, and its objects with it
    }
}

/// Something that can be called.
pub struct Callable(Held);

impl<'py> FromPyObject<'_, 'py> for Callable {
    type Error = PyErr;
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Callable> {
        match object.is_callable() {
            true => Ok(Callable(Held::new(object.to_owned()))),
            false => Err(PyTypeError::new_err("callback parameter is not callable")),
        }
    }
}

impl Callable {
    /// Calls with what `arguments` makes; the error number goes in and out by its last.
    fn tell<A>(&self, error: &mut i32, arguments: A) -> i32
    where
        A: for<'py> FnOnce(Python<'py>, Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>>,
    {
        let told = Python::try_attach(|py| {
            let attempt = || {
                let number = crate::types::number(py, *error)?;
                let arguments = arguments(py, number.clone())?;
                let result = self.call(py, arguments);
                *error = number.getattr(intern!(py, "value"))?.extract()?;
                result
            };
            attempt().unwrap_or_else(|error| printed(py, &error))
        });
        told.unwrap_or(-1)
    }

    /// Calls without an error number.
    fn say<A>(&self, arguments: A) -> i32
    where
        A: for<'py> PyCallArgs<'py>,
    {
        let said = Python::try_attach(|py| {
            let result = self.call(py, arguments);
            result.unwrap_or_else(|error| printed(py, &error))
        });
        said.unwrap_or(-1)
    }

    fn call<'py, A: PyCallArgs<'py>>(&self, py: Python<'py>, arguments: A) -> PyResult<i32> {
        let result = self.0.bind(py)?.call1(arguments)?;
        Ok(result.extract().unwrap_or(0))
    }

    /// For `completion=`.
    pub fn completion(self) -> CompletionCallback {
        Box::new(move |error| self.tell(error, |py, error| (error,).into_pyobject(py)))
    }

    /// For `chunk=`. The function gets a view of the caller's buffer, which stays valid.
    pub fn chunk(self, memory: &Memory, py: Python<'_>) -> PyResult<ChunkCallback> {
        let address = memory.address();
        let view =
            PyMemoryView::from(&memory.object(py)?)?.call_method1(intern!(py, "cast"), ("B",))?;
        let view = Held::new(view.call_method0(intern!(py, "toreadonly"))?);
        Ok(Box::new(move |bytes, offset, status, error| {
            let start = bytes.as_ptr().addr().wrapping_sub(address) as isize;
            let end = start.wrapping_add_unsigned(bytes.len());
            self.tell(error, |py, error| {
                let part = view.bind(py)?.get_item(PySlice::new(py, start, end, 1))?;
                (part, offset, status, error).into_pyobject(py)
            })
        }))
    }

    /// For `extent=`.
    pub fn extent(self) -> ExtentCallback {
        Box::new(move |context, offset, entries, error| {
            self.tell(error, |py, error| {
                let entries = &*entries;
                (context, offset, entries, error).into_pyobject(py)
            })
        })
    }

    /// For `extent64=`.
    pub fn extent64(self) -> Extent64Callback {
        Box::new(move |context, offset, entries, error| {
            self.tell(error, |py, error| {
                let pairs = entries.iter().map(|extent| (extent.length, extent.flags));
                let pairs: Vec<(u64, u64)> = pairs.collect();
                (context, offset, pairs, error).into_pyobject(py)
            })
        })
    }

    /// For `list=`.
    pub fn list(self) -> ListCallback {
        Box::new(move |name, description| self.say((name, description)))
    }

    /// For `context=`.
    pub fn context(self) -> ContextCallback {
        Box::new(move |name| self.say((name,)))
    }

    /// For `debug=`.
    pub fn debug(self) -> DebugCallback {
        Box::new(move |context, message| self.say((context, message)))
    }
}

/// Not `PyErr::print`: that ends the process on a `SystemExit`, from inside the handle.
fn printed(py: Python<'_>, error: &PyErr) -> i32 {
    error.display(py);
    -1
}
