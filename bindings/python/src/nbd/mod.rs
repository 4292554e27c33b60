//! The class under `nbd.NBD`: a handle with libnbd's methods, one file for each subject.
//!
//! Every method goes through [`Connection::call`], which detaches from the interpreter. So a thread that waits for the
//! handle's lock never holds the interpreter, and callbacks, which are called under that lock, can have it.

mod commands;
mod connect;
mod export;
mod options;
mod progress;
mod settings;

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use handle::Handle;
use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};

/// Programs compare it, to know which calls there are.
const LIBNBD_VERSION: &str = "1.24.4";

/// One connection to an NBD server.
#[pyclass(name = "NBD", subclass, frozen, module = "blkit._native")]
pub struct Connection {
    /// None after `close`. A call under way in another thread keeps the handle until its end.
    handle: Mutex<Option<Arc<Handle>>>,
    private: AtomicU64,
}

impl Connection {
    /// The handle, unless it is closed.
    fn open(&self, py: Python<'_>) -> PyResult<Arc<Handle>> {
        let held = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().ok_or_else(|| crate::types::closed(py))
    }

    /// Does something with the handle, detached from the interpreter.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Handle) -> handle::Result<T> + Send,
    ) -> PyResult<T> {
        let handle = self.open(py)?;
        // The handle goes in, and may end there: closing one can call back, and waits for its child.
        let result = py.detach(move || work(&handle));
        result.map_err(|error| crate::types::error(py, &error))
    }

    fn take(&self) -> Option<Arc<Handle>> {
        let mut held = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        held.take()
    }
}

#[pymethods]
impl Connection {
    /// Classes made from this one may have parameters of their own.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        py: Python<'_>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Connection> {
        let handle = py.detach(Handle::new);
        let handle = handle.map_err(|error| crate::types::error(py, &error))?;
        Ok(Connection {
            handle: Mutex::new(Some(Arc::new(handle))),
            private: AtomicU64::new(0),
        })
    }

    fn __init__(&self) {}

    /// End the connection at once and free the handle. Commands under way fail with ENOTCONN.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.take().ok_or_else(|| crate::types::closed(py))?;
        py.detach(move || drop(handle));
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(handle) = self.take() else {
            return;
        };
        let mut held = Some(handle);
        Python::try_attach(|py| {
            let handle = held.take();
            py.detach(move || drop(handle));
        });
        mem::drop(held); // not attached: nobody waits for us with the interpreter
    }
}
