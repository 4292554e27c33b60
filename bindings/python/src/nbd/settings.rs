//! Methods: the handle itself, and what is wished before it connects.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;

use super::{Connection, LIBNBD_VERSION};
use crate::{
    callback::Callable,
    convert::{Name, Text, Truth, Wide, bits},
};

#[pymethods]
impl Connection {
    /// Turn debugging messages on or off. They go to the debug callback, or to stderr.
    fn set_debug(&self, py: Python<'_>, debug: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_debug(debug.0))
    }

    /// Whether debugging messages are on.
    fn get_debug(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_debug()))
    }

    /// Have debug(context, message) called for each debugging message: the name of a call, and a line of text.
    fn set_debug_callback(&self, py: Python<'_>, debug: Callable) -> PyResult<()> {
        let debug = debug.debug();
        self.call(py, move |h| h.set_debug_callback(debug))
    }

    /// Forget the debug callback.
    fn clear_debug_callback(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.clear_debug_callback())
    }

    /// How many bytes were sent to the server, TLS not counted.
    fn stats_bytes_sent(&self, py: Python<'_>) -> PyResult<u64> {
        self.call(py, |h| Ok(h.stats_bytes_sent()))
    }

    /// How many chunks were sent: handshake options, requests.
    fn stats_chunks_sent(&self, py: Python<'_>) -> PyResult<u64> {
        self.call(py, |h| Ok(h.stats_chunks_sent()))
    }

    /// How many bytes came from the server, TLS not counted.
    fn stats_bytes_received(&self, py: Python<'_>) -> PyResult<u64> {
        self.call(py, |h| Ok(h.stats_bytes_received()))
    }

    /// How many chunks came: handshake replies, chunks of replies.
    fn stats_chunks_received(&self, py: Python<'_>) -> PyResult<u64> {
        self.call(py, |h| Ok(h.stats_chunks_received()))
    }

    /// Name the handle, for debugging messages.
    fn set_handle_name(&self, py: Python<'_>, handle_name: Text) -> PyResult<()> {
        self.call(py, move |h| h.set_handle_name(&handle_name))
    }

    /// The name of the handle, as "nbd1" if it was given none.
    fn get_handle_name(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_handle_name())
    }

    /// Keep a number with the handle; returns the one before.
    fn set_private_data(&self, py: Python<'_>, private_data: Wide) -> PyResult<u64> {
        self.open(py)?;
        Ok(self.private.swap(private_data.0, Ordering::AcqRel))
    }

    /// The number kept by set_private_data(), at first 0.
    fn get_private_data(&self, py: Python<'_>) -> PyResult<u64> {
        self.open(py)?;
        Ok(self.private.load(Ordering::Acquire))
    }

    /// About how much memory the handle takes, in bytes.
    fn get_handle_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.call(py, move |h| h.get_handle_size())
    }

    /// Choose the export of the server ("": its default).
    fn set_export_name(&self, py: Python<'_>, export_name: Text) -> PyResult<()> {
        self.call(py, move |h| h.set_export_name(&export_name))
    }

    /// The name of the export, as chosen.
    fn get_export_name(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_export_name())
    }

    /// Whether to ask for the block sizes of the export (default: yes).
    fn set_request_block_size(&self, py: Python<'_>, request: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_request_block_size(request.0))
    }

    /// Whether block sizes will be asked for.
    fn get_request_block_size(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_request_block_size()))
    }

    /// Whether to ask for the export's canonical name and description (default: no).
    fn set_full_info(&self, py: Python<'_>, request: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_full_info(request.0))
    }

    /// Whether canonical name and description will be asked for.
    fn get_full_info(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_full_info()))
    }

    /// The server's own name of the export; needs set_full_info(True).
    fn get_canonical_export_name(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_canonical_export_name())
    }

    /// The server's description of the export; needs set_full_info(True).
    fn get_export_description(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_export_description())
    }

    /// TLS: TLS_DISABLE, TLS_ALLOW (if the server can) or TLS_REQUIRE.
    fn set_tls(&self, py: Python<'_>, tls: i32) -> PyResult<()> {
        self.call(py, move |h| h.set_tls(tls))
    }

    /// What was chosen by set_tls().
    fn get_tls(&self, py: Python<'_>) -> PyResult<i32> {
        self.call(py, |h| Ok(h.get_tls()))
    }

    /// Whether the connection uses TLS.
    fn get_tls_negotiated(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.get_tls_negotiated())
    }

    /// The directory with ca-cert.pem and, for a client certificate, client-cert.pem and client-key.pem.
    fn set_tls_certificates(&self, py: Python<'_>, dir: Name) -> PyResult<()> {
        self.call(py, move |h| h.set_tls_certificates(&dir))
    }

    /// Whether the server's certificate must be good (default: yes).
    fn set_tls_verify_peer(&self, py: Python<'_>, verify: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_tls_verify_peer(verify.0))
    }

    /// Whether the server's certificate must be good.
    fn get_tls_verify_peer(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_tls_verify_peer()))
    }

    /// The user's name, for TLS with a pre-shared key.
    fn set_tls_username(&self, py: Python<'_>, username: Text) -> PyResult<()> {
        self.call(py, move |h| h.set_tls_username(&username))
    }

    /// The user's name for TLS: as set, or the login name.
    fn get_tls_username(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_tls_username())
    }

    /// The name that the server's certificate must have, if not that of the connection.
    fn set_tls_hostname(&self, py: Python<'_>, hostname: Text) -> PyResult<()> {
        self.call(py, move |h| h.set_tls_hostname(&hostname))
    }

    /// The name that the server's certificate must have.
    fn get_tls_hostname(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_tls_hostname())
    }

    /// Which versions and ciphers TLS may use.
    fn set_tls_priority(&self, py: Python<'_>, priority: Text) -> PyResult<()> {
        self.call(py, move |h| h.set_tls_priority(&priority))
    }

    /// Which versions and ciphers TLS may use.
    fn get_tls_priority(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_tls_priority())
    }

    /// The file with pre-shared keys, lines of name:key.
    fn set_tls_psk_file(&self, py: Python<'_>, filename: Name) -> PyResult<()> {
        self.call(py, move |h| h.set_tls_psk_file(&filename))
    }

    /// Whether to ask for extended headers, with lengths of 64 bits (default: yes).
    fn set_request_extended_headers(&self, py: Python<'_>, request: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_request_extended_headers(request.0))
    }

    /// Whether extended headers will be asked for.
    fn get_request_extended_headers(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_request_extended_headers()))
    }

    /// Whether the connection has extended headers.
    fn get_extended_headers_negotiated(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.get_extended_headers_negotiated())
    }

    /// Whether to ask for structured replies (default: yes).
    fn set_request_structured_replies(&self, py: Python<'_>, request: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_request_structured_replies(request.0))
    }

    /// Whether structured replies will be asked for.
    fn get_request_structured_replies(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_request_structured_replies()))
    }

    /// Whether the connection has structured replies.
    fn get_structured_replies_negotiated(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.get_structured_replies_negotiated())
    }

    /// Whether opt_go() and opt_info() ask for the meta contexts themselves (default: yes).
    fn set_request_meta_context(&self, py: Python<'_>, request: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_request_meta_context(request.0))
    }

    /// Whether opt_go() and opt_info() ask for the meta contexts.
    fn get_request_meta_context(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_request_meta_context()))
    }

    /// Which HANDSHAKE_FLAG_... the client offers (default: all).
    fn set_handshake_flags(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.set_handshake_flags(flags))
    }

    /// Which HANDSHAKE_FLAG_... the client offers.
    fn get_handshake_flags(&self, py: Python<'_>) -> PyResult<u32> {
        self.call(py, |h| Ok(h.get_handshake_flags()))
    }

    /// Whether buffers are set to zero before a read (default: yes).
    fn set_pread_initialize(&self, py: Python<'_>, request: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_pread_initialize(request.0))
    }

    /// Whether buffers are set to zero before a read.
    fn get_pread_initialize(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_pread_initialize()))
    }

    /// Which wrong requests the client refuses itself: STRICT_... (default: all).
    fn set_strict_mode(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.set_strict_mode(flags))
    }

    /// Which wrong requests the client refuses itself.
    fn get_strict_mode(&self, py: Python<'_>) -> PyResult<u32> {
        self.call(py, |h| Ok(h.get_strict_mode()))
    }

    /// Stop in the middle of the handshake, for the calls opt_... (default: no).
    fn set_opt_mode(&self, py: Python<'_>, enable: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_opt_mode(enable.0))
    }

    /// Whether to stop in the middle of the handshake.
    fn get_opt_mode(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.get_opt_mode()))
    }

    /// Ask for this metadata context when connecting, such as CONTEXT_BASE_ALLOCATION.
    fn add_meta_context(&self, py: Python<'_>, name: Text) -> PyResult<()> {
        self.call(py, move |h| h.add_meta_context(&name))
    }

    /// How many metadata contexts will be asked for.
    fn get_nr_meta_contexts(&self, py: Python<'_>) -> PyResult<usize> {
        self.call(py, move |h| h.get_nr_meta_contexts())
    }

    /// The name of the i-th of them, from 0.
    fn get_meta_context(&self, py: Python<'_>, i: Wide) -> PyResult<String> {
        self.call(py, move |h| {
            h.get_meta_context(usize::try_from(i.0).unwrap_or(usize::MAX))
        })
    }

    /// Ask for no metadata context.
    fn clear_meta_contexts(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.clear_meta_contexts())
    }

    /// Which kinds of connection a URI may name: ALLOW_TRANSPORT_... (default: all).
    fn set_uri_allow_transports(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = bits)] mask: u32,
    ) -> PyResult<()> {
        self.call(py, move |h| h.set_uri_allow_transports(mask))
    }

    /// Whether a URI may or must use TLS: TLS_DISABLE, TLS_ALLOW, TLS_REQUIRE.
    fn set_uri_allow_tls(&self, py: Python<'_>, tls: i32) -> PyResult<()> {
        self.call(py, move |h| h.set_uri_allow_tls(tls))
    }

    /// Whether a URI may set TLS's versions and ciphers (default: no).
    fn set_uri_allow_tls_priority(&self, py: Python<'_>, allow: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_uri_allow_tls_priority(allow.0))
    }

    /// Whether a URI may name local files, as tls-psk-file does (default: no).
    fn set_uri_allow_local_file(&self, py: Python<'_>, allow: Truth) -> PyResult<()> {
        self.call(py, move |h| h.set_uri_allow_local_file(allow.0))
    }

    /// The name of the socket in LISTEN_FDNAMES, for socket activation.
    fn set_socket_activation_name(&self, py: Python<'_>, socket_name: Text) -> PyResult<()> {
        self.call(py, move |h| h.set_socket_activation_name(&socket_name))
    }

    /// The name of the socket for socket activation.
    fn get_socket_activation_name(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, move |h| h.get_socket_activation_name())
    }

    /// "libnbd": the library whose calls these are.
    fn get_package_name(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.open(py)?;
        Ok("libnbd")
    }

    /// The version of libnbd whose calls these are.
    fn get_version(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.open(py)?;
        Ok(LIBNBD_VERSION)
    }

    /// "blkit" and its version.
    fn get_version_extra(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.open(py)?;
        Ok(concat!("blkit ", env!("CARGO_PKG_VERSION")))
    }

    /// Whether this build can do TLS.
    fn supports_tls(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.supports_tls()))
    }

    /// Whether this build can do vsock.
    fn supports_vsock(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.supports_vsock()))
    }

    /// Whether this build understands URIs: always.
    fn supports_uri(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |h| Ok(h.supports_uri()))
    }

    /// Whether the word looks like an NBD URI.
    fn is_uri(&self, py: Python<'_>, uri: Text) -> PyResult<bool> {
        self.call(py, move |h| h.is_uri(&uri))
    }
}
