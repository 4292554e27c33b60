//! Debugging, names, and facts about the library.

use std::{ffi::CStr, sync::atomic::Ordering::Relaxed};

use nbd::uri::Uri;

use super::Settings;
use crate::{DebugCallback, Handle, Result, inner::Inner, state::Permitted};

impl Handle {
    /// `nbd_create`: a handle that is not connected. `LIBNBD_DEBUG=1` in the environment switches
    /// debugging on.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn new() -> Result<Handle> {
        let debug = std::env::var_os("LIBNBD_DEBUG").is_some_and(|value| value == "1");
        Ok(Handle::with(Settings::default(), debug))
    }

    /// `nbd_set_debug`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn set_debug(&self, debug: bool) -> Result<()> {
        self.shared.debug.store(debug, Relaxed);
        Ok(())
    }

    /// `nbd_get_debug`.
    pub fn get_debug(&self) -> bool {
        self.shared.debug.load(Relaxed)
    }

    /// `nbd_set_debug_callback`. Replaces, and drops, an earlier one.
    ///
    /// # Errors
    ///
    /// None but inside of a callback.
    pub fn set_debug_callback(&self, callback: DebugCallback) -> Result<()> {
        self.replace_debug_callback("nbd_set_debug_callback", Some(callback))
    }

    /// `nbd_clear_debug_callback`.
    ///
    /// # Errors
    ///
    /// None but inside of a callback.
    pub fn clear_debug_callback(&self) -> Result<()> {
        self.replace_debug_callback("nbd_clear_debug_callback", None)
    }

    fn replace_debug_callback(
        &self,
        call: &'static str,
        callback: Option<DebugCallback>,
    ) -> Result<()> {
        let none = format_args!("");
        let old = self.call(call, Permitted::ALWAYS, none, |inner| {
            Ok(std::mem::replace(&mut inner.debug_callback, callback))
        })?;
        // Freed without the lock.
        drop(old);
        Ok(())
    }

    /// `nbd_set_handle_name`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn set_handle_name(&self, name: &str) -> Result<()> {
        self.shared.settings().name = name.to_owned();
        Ok(())
    }

    /// `nbd_get_handle_name`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn get_handle_name(&self) -> Result<String> {
        Ok(self.shared.settings().name.clone())
    }

    /// `nbd_get_handle_size`: about how many bytes of memory the handle takes.
    ///
    /// # Errors
    ///
    /// None but inside of a callback.
    pub fn get_handle_size(&self) -> Result<usize> {
        let none = format_args!("");
        self.call("nbd_get_handle_size", Permitted::ALWAYS, none, |inner| {
            let buffer = inner.wire.as_ref().map_or(0, |wire| wire.memory());
            Ok(size_of::<Handle>() + size_of::<Settings>() + size_of::<Inner>() + buffer)
        })
    }

    /// `nbd_stats_bytes_sent`.
    pub fn stats_bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Relaxed)
    }

    /// `nbd_stats_chunks_sent`.
    pub fn stats_chunks_sent(&self) -> u64 {
        self.shared.chunks_sent.load(Relaxed)
    }

    /// `nbd_stats_bytes_received`.
    pub fn stats_bytes_received(&self) -> u64 {
        self.shared.bytes_received.load(Relaxed)
    }

    /// `nbd_stats_chunks_received`.
    pub fn stats_chunks_received(&self) -> u64 {
        self.shared.chunks_received.load(Relaxed)
    }

    /// `nbd_supports_tls`.
    pub fn supports_tls(&self) -> bool {
        ::tls::BUILT
    }

    /// `nbd_supports_vsock`.
    pub fn supports_vsock(&self) -> bool {
        true
    }

    /// `nbd_supports_uri`.
    pub fn supports_uri(&self) -> bool {
        true
    }

    /// `nbd_is_uri`: whether a word looks like an NBD URI.
    ///
    /// # Errors
    ///
    /// None.
    pub fn is_uri(&self, word: &str) -> Result<bool> {
        Ok(Uri::is_meant(word))
    }

    /// `nbd_connection_state`: the state, for people. Needs no lock.
    pub fn connection_state(&self) -> &'static CStr {
        self.shared.state().words()
    }
}
