//! What the server said of the export.

use std::ffi::CStr;

use crate::{Handle, Result, pending};

impl Handle {
    /// `nbd_is_read_only`.
    pub fn is_read_only(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_flush`.
    pub fn can_flush(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_fua`.
    pub fn can_fua(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_is_rotational`.
    pub fn is_rotational(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_trim`.
    pub fn can_trim(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_zero`.
    pub fn can_zero(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_fast_zero`.
    pub fn can_fast_zero(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_block_status_payload`.
    pub fn can_block_status_payload(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_df`.
    pub fn can_df(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_multi_conn`.
    pub fn can_multi_conn(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_cache`.
    pub fn can_cache(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_can_meta_context`.
    pub fn can_meta_context(&self, name: &str) -> Result<bool> {
        pending()
    }
    /// `nbd_get_protocol`.
    pub fn get_protocol(&self) -> Result<&'static CStr> {
        pending()
    }
    /// `nbd_get_size`, in bytes.
    pub fn get_size(&self) -> Result<i64> {
        pending()
    }
    /// `nbd_get_block_size`, in bytes; `kind` is one of [`SIZE_MINIMUM`](crate::SIZE_MINIMUM), ...
    pub fn get_block_size(&self, kind: i32) -> Result<i64> {
        pending()
    }
    /// `nbd_get_canonical_export_name`.
    pub fn get_canonical_export_name(&self) -> Result<String> {
        pending()
    }
    /// `nbd_get_export_description`.
    pub fn get_export_description(&self) -> Result<String> {
        pending()
    }
    /// `nbd_get_tls_negotiated`.
    pub fn get_tls_negotiated(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_get_structured_replies_negotiated`.
    pub fn get_structured_replies_negotiated(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_get_extended_headers_negotiated`.
    pub fn get_extended_headers_negotiated(&self) -> Result<bool> {
        pending()
    }
}
