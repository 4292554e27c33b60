//! What can be set before connecting, and what can be asked at any time.

use std::ffi::CStr;
use std::path::Path;

use crate::{DebugCallback, Handle, Result, pending};

impl Handle {
    /// `nbd_create`: a handle that is not connected. `LIBNBD_DEBUG=1` in the environment switches
    /// debugging on.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn new() -> Result<Handle> {
        pending()
    }
    /// `nbd_set_debug`.
    pub fn set_debug(&self, debug: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_debug`.
    pub fn get_debug(&self) -> bool {
        pending()
    }
    /// `nbd_set_debug_callback`. Replaces, and drops, an earlier one.
    pub fn set_debug_callback(&self, callback: DebugCallback) -> Result<()> {
        pending()
    }
    /// `nbd_clear_debug_callback`.
    pub fn clear_debug_callback(&self) -> Result<()> {
        pending()
    }
    /// `nbd_set_handle_name`.
    pub fn set_handle_name(&self, name: &str) -> Result<()> {
        pending()
    }
    /// `nbd_get_handle_name`.
    pub fn get_handle_name(&self) -> Result<String> {
        pending()
    }
    /// `nbd_get_handle_size`: about how many bytes of memory the handle takes.
    pub fn get_handle_size(&self) -> Result<usize> {
        pending()
    }
    /// `nbd_stats_bytes_sent`.
    pub fn stats_bytes_sent(&self) -> u64 {
        pending()
    }
    /// `nbd_stats_chunks_sent`.
    pub fn stats_chunks_sent(&self) -> u64 {
        pending()
    }
    /// `nbd_stats_bytes_received`.
    pub fn stats_bytes_received(&self) -> u64 {
        pending()
    }
    /// `nbd_stats_chunks_received`.
    pub fn stats_chunks_received(&self) -> u64 {
        pending()
    }
    /// `nbd_set_export_name`.
    pub fn set_export_name(&self, name: &str) -> Result<()> {
        pending()
    }
    /// `nbd_get_export_name`.
    pub fn get_export_name(&self) -> Result<String> {
        pending()
    }
    /// `nbd_set_request_block_size`.
    pub fn set_request_block_size(&self, request: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_request_block_size`.
    pub fn get_request_block_size(&self) -> bool {
        pending()
    }
    /// `nbd_set_full_info`.
    pub fn set_full_info(&self, request: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_full_info`.
    pub fn get_full_info(&self) -> bool {
        pending()
    }
    /// `nbd_set_tls`: one of [`TLS_DISABLE`](crate::TLS_DISABLE), ...
    pub fn set_tls(&self, tls: i32) -> Result<()> {
        pending()
    }
    /// `nbd_get_tls`.
    pub fn get_tls(&self) -> i32 {
        pending()
    }
    /// `nbd_set_tls_certificates`.
    pub fn set_tls_certificates(&self, directory: &Path) -> Result<()> {
        pending()
    }
    /// `nbd_set_tls_verify_peer`.
    pub fn set_tls_verify_peer(&self, verify: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_tls_verify_peer`.
    pub fn get_tls_verify_peer(&self) -> bool {
        pending()
    }
    /// `nbd_set_tls_username`.
    pub fn set_tls_username(&self, username: &str) -> Result<()> {
        pending()
    }
    /// `nbd_get_tls_username`.
    pub fn get_tls_username(&self) -> Result<String> {
        pending()
    }
    /// `nbd_set_tls_hostname`.
    pub fn set_tls_hostname(&self, hostname: &str) -> Result<()> {
        pending()
    }
    /// `nbd_get_tls_hostname`.
    pub fn get_tls_hostname(&self) -> Result<String> {
        pending()
    }
    /// `nbd_set_tls_psk_file`.
    pub fn set_tls_psk_file(&self, file: &Path) -> Result<()> {
        pending()
    }
    /// `nbd_set_tls_priority`.
    pub fn set_tls_priority(&self, priority: &str) -> Result<()> {
        pending()
    }
    /// `nbd_get_tls_priority`.
    pub fn get_tls_priority(&self) -> Result<String> {
        pending()
    }
    /// `nbd_set_request_extended_headers`.
    pub fn set_request_extended_headers(&self, request: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_request_extended_headers`.
    pub fn get_request_extended_headers(&self) -> bool {
        pending()
    }
    /// `nbd_set_request_structured_replies`.
    pub fn set_request_structured_replies(&self, request: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_request_structured_replies`.
    pub fn get_request_structured_replies(&self) -> bool {
        pending()
    }
    /// `nbd_set_request_meta_context`.
    pub fn set_request_meta_context(&self, request: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_request_meta_context`.
    pub fn get_request_meta_context(&self) -> bool {
        pending()
    }
    /// `nbd_set_handshake_flags`.
    pub fn set_handshake_flags(&self, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_get_handshake_flags`.
    pub fn get_handshake_flags(&self) -> u32 {
        pending()
    }
    /// `nbd_set_pread_initialize`.
    pub fn set_pread_initialize(&self, request: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_pread_initialize`.
    pub fn get_pread_initialize(&self) -> bool {
        pending()
    }
    /// `nbd_set_strict_mode`.
    pub fn set_strict_mode(&self, flags: u32) -> Result<()> {
        pending()
    }
    /// `nbd_get_strict_mode`.
    pub fn get_strict_mode(&self) -> u32 {
        pending()
    }
    /// `nbd_set_opt_mode`.
    pub fn set_opt_mode(&self, enable: bool) -> Result<()> {
        pending()
    }
    /// `nbd_get_opt_mode`.
    pub fn get_opt_mode(&self) -> bool {
        pending()
    }
    /// `nbd_add_meta_context`.
    pub fn add_meta_context(&self, name: &str) -> Result<()> {
        pending()
    }
    /// `nbd_get_nr_meta_contexts`.
    pub fn get_nr_meta_contexts(&self) -> Result<usize> {
        pending()
    }
    /// `nbd_get_meta_context`.
    pub fn get_meta_context(&self, i: usize) -> Result<String> {
        pending()
    }
    /// `nbd_clear_meta_contexts`.
    pub fn clear_meta_contexts(&self) -> Result<()> {
        pending()
    }
    /// `nbd_set_uri_allow_transports`.
    pub fn set_uri_allow_transports(&self, mask: u32) -> Result<()> {
        pending()
    }
    /// `nbd_set_uri_allow_tls`.
    pub fn set_uri_allow_tls(&self, tls: i32) -> Result<()> {
        pending()
    }
    /// `nbd_set_uri_allow_tls_priority`.
    pub fn set_uri_allow_tls_priority(&self, allow: bool) -> Result<()> {
        pending()
    }
    /// `nbd_set_uri_allow_local_file`.
    pub fn set_uri_allow_local_file(&self, allow: bool) -> Result<()> {
        pending()
    }
    /// `nbd_set_socket_activation_name`.
    pub fn set_socket_activation_name(&self, name: &str) -> Result<()> {
        pending()
    }
    /// `nbd_get_socket_activation_name`.
    pub fn get_socket_activation_name(&self) -> Result<String> {
        pending()
    }
    /// `nbd_supports_tls`.
    pub fn supports_tls(&self) -> bool {
        pending()
    }
    /// `nbd_supports_vsock`.
    pub fn supports_vsock(&self) -> bool {
        pending()
    }
    /// `nbd_supports_uri`.
    pub fn supports_uri(&self) -> bool {
        pending()
    }
    /// `nbd_is_uri`: whether a word looks like an NBD URI.
    pub fn is_uri(&self, word: &str) -> Result<bool> {
        pending()
    }
    /// `nbd_connection_state`: the state, for people. Needs no lock.
    pub fn connection_state(&self) -> &'static CStr {
        pending()
    }
}
