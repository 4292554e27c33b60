//! Methods: what the export is and can.

use pyo3::prelude::*;

use super::Connection;
use crate::convert::Text;

#[pymethods]
impl Connection {
    /// Whether the export refuses writes.
    fn is_read_only(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.is_read_only())
    }

    /// Whether the server can flush.
    fn can_flush(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_flush())
    }

    /// Whether the server knows CMD_FLAG_FUA.
    fn can_fua(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_fua())
    }

    /// Whether the server says that the disk rotates.
    fn is_rotational(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.is_rotational())
    }

    /// Whether the server can trim.
    fn can_trim(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_trim())
    }

    /// Whether the server can write zeroes.
    fn can_zero(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_zero())
    }

    /// Whether the server knows CMD_FLAG_FAST_ZERO.
    fn can_fast_zero(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_fast_zero())
    }

    /// Whether the server can filter block status by context.
    fn can_block_status_payload(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_block_status_payload())
    }

    /// Whether the server knows CMD_FLAG_DF.
    fn can_df(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_df())
    }

    /// Whether several connections may be used as one.
    fn can_multi_conn(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_multi_conn())
    }

    /// Whether the server can load into its cache.
    fn can_cache(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.can_cache())
    }

    /// Whether this metadata context was negotiated.
    fn can_meta_context(&self, py: Python<'_>, metacontext: Text) -> PyResult<bool> {
        self.call(py, move |h| h.can_meta_context(&metacontext))
    }

    /// The handshake: "oldstyle", "newstyle" or "newstyle-fixed".
    fn get_protocol(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, |h| {
            h.get_protocol()
                .map(|name| name.to_string_lossy().into_owned())
        })
    }

    /// The size of the export, in bytes.
    fn get_size(&self, py: Python<'_>) -> PyResult<i64> {
        self.call(py, move |h| h.get_size())
    }

    /// A block size of the export, in bytes: SIZE_MINIMUM, SIZE_PREFERRED, SIZE_MAXIMUM or SIZE_PAYLOAD. 0 is: not told.
    fn get_block_size(&self, py: Python<'_>, size_type: i32) -> PyResult<i64> {
        self.call(py, move |h| h.get_block_size(size_type))
    }
}
