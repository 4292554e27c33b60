//! Python's arguments as Rust's, checked once.
//!
//! What libnbd's module takes is taken: any object where it wants a truth, negative numbers where C has
//! unsigned ones (they wrap, and the handle refuses them with an error of its own). What it cuts
//! silently, a number of more bits than C's, is an `OverflowError` here.

use std::{
    ffi::{OsStr, OsString},
    ops::Deref,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use pyo3::{
    Borrowed,
    exceptions::{PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBytes, PyList, PyString},
};

/// A `str` for a C string.
pub struct Text(String);

impl<'py> FromPyObject<'_, 'py> for Text {
    type Error = PyErr;
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Text> {
        let Ok(text) = object.cast::<PyString>() else {
            let what = object.get_type().name()?;
            return Err(PyTypeError::new_err(format!("must be str, not {what}")));
        };
        let text = text.to_cow()?.into_owned();
        match text.contains('\0') {
            true => Err(PyValueError::new_err("embedded null character")),
            false => Ok(Text(text)),
        }
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// The name of a file: `str`, `bytes` or an `os.PathLike`.
pub struct Name(PathBuf);

impl<'py> FromPyObject<'_, 'py> for Name {
    type Error = PyErr;
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Name> {
        let os = object.py().import(intern!(object.py(), "os"))?;
        let encoded = os.call_method1(intern!(object.py(), "fsencode"), (object,))?;
        let bytes = encoded.cast::<PyBytes>()?.as_bytes();
        match bytes.contains(&0) {
            true => Err(PyValueError::new_err("embedded null byte")),
            false => Ok(Name(PathBuf::from(OsStr::from_bytes(bytes)))),
        }
    }
}

impl Deref for Name {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

/// A list of words of a command line.
pub struct Words(pub Vec<OsString>);

impl<'py> FromPyObject<'_, 'py> for Words {
    type Error = PyErr;
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Words> {
        list(object, |item| {
            let word: OsString = item.cast::<PyString>()?.extract()?;
            match word.as_bytes().contains(&0) {
                true => Err(PyValueError::new_err("embedded null character")),
                false => Ok(word),
            }
        })
        .map(Words)
    }
}

/// A list of names.
pub struct Names(pub Vec<String>);

impl<'py> FromPyObject<'_, 'py> for Names {
    type Error = PyErr;
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Names> {
        list(object, |item| Ok(item.extract::<Text>()?.0)).map(Names)
    }
}

/// Only a real list: a `str` is a sequence of `str` too, and never what was meant.
fn list<T>(
    object: Borrowed<'_, '_, PyAny>,
    item: impl Fn(Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    let list = object
        .cast::<PyList>()
        .map_err(|_| PyTypeError::new_err("expecting a list parameter"))?;
    list.iter().map(item).collect()
}

/// Anything, by its truth.
pub struct Truth(pub bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Truth> {
        object.is_truthy().map(Truth)
    }
}

/// A number of 64 bits; negative ones wrap.
#[derive(Clone, Copy)]
pub struct Wide(pub u64);

impl<'py> FromPyObject<'_, 'py> for Wide {
    type Error = PyErr;
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Wide> {
        match object.extract::<u64>() {
            Ok(number) => Ok(Wide(number)),
            Err(error) => match object.extract::<i64>() {
                Ok(number) => Ok(Wide(number.cast_unsigned())),
                Err(_) => Err(error),
            },
        }
    }
}

/// For `from_py_with`: a number of 32 bits; negative ones wrap.
pub fn bits(object: &Bound<'_, PyAny>) -> PyResult<u32> {
    match object.extract::<u32>() {
        Ok(number) => Ok(number),
        Err(error) => match object.extract::<i32>() {
            Ok(number) => Ok(number.cast_unsigned()),
            Err(_) => Err(error),
        },
    }
}
