//! What can be set before connecting, and what can be asked at any time.

mod basics;
mod tls;
mod wishes;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use nbd::proto::limits;
use rustix::io::Errno;

use crate::{
    ALLOW_TRANSPORT_MASK, HANDSHAKE_FLAG_MASK, STRICT_MASK, TLS_DISABLE, TLS_REQUIRE,
    error::Fault,
    uri::{ANY_TLS, Place},
};

/// All that a caller can set.
pub(crate) struct Settings {
    pub name: String,
    pub export: String,
    pub block_size: bool,
    pub full_info: bool,
    pub tls: i32,
    pub tls_certificates: Option<PathBuf>,
    pub tls_psk_file: Option<PathBuf>,
    pub tls_username: Option<String>,
    pub tls_hostname: Option<String>,
    pub tls_priority: Option<String>,
    pub tls_verify_peer: bool,
    pub extended_headers: bool,
    pub structured_replies: bool,
    pub request_meta_context: bool,
    pub handshake_flags: u32,
    pub pread_initialize: bool,
    pub strict: u32,
    pub opt_mode: bool,
    pub contexts: Vec<String>,
    pub uri_transports: u32,
    pub uri_tls: i32,
    pub uri_tls_priority: bool,
    pub uri_local_file: bool,
    pub socket_activation_name: String,
}

/// The next handle's number.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name: format!("nbd{}", NUMBER.fetch_add(1, Relaxed)),
            export: String::new(),
            block_size: true,
            full_info: false,
            tls: TLS_DISABLE,
            tls_certificates: None,
            tls_psk_file: None,
            tls_username: None,
            tls_hostname: None,
            tls_priority: None,
            tls_verify_peer: true,
            extended_headers: true,
            structured_replies: true,
            request_meta_context: true,
            handshake_flags: HANDSHAKE_FLAG_MASK,
            pread_initialize: true,
            strict: STRICT_MASK,
            opt_mode: false,
            contexts: Vec::new(),
            uri_transports: ALLOW_TRANSPORT_MASK,
            uri_tls: ANY_TLS,
            uri_tls_priority: false,
            uri_local_file: false,
            socket_activation_name: String::new(),
        }
    }
}

impl Settings {
    /// What TLS to a server is configured with.
    pub fn tls_config(&self, place: Option<&Place>) -> ::tls::ClientConfig {
        let host = place.and_then(|place| match place {
            Place::Tcp { host, .. } => Some(host.clone()),
            Place::Address(_) | Place::Unix(_) | Place::Vsock { .. } => None,
        });
        ::tls::ClientConfig {
            certificates: self.tls_certificates.clone(),
            psk: self.tls_psk_file.clone(),
            username: self.tls_username.clone(),
            hostname: self.tls_hostname.clone().or(host),
            verify_peer: self.tls_verify_peer,
            priority: self.tls_priority.clone(),
        }
    }
}

fn check_tls(tls: i32) -> std::result::Result<(), Fault> {
    match tls {
        TLS_DISABLE..=TLS_REQUIRE => Ok(()),
        other => Err(Fault::invalid(format!(
            "tls: invalid value for parameter: {other}"
        ))),
    }
}

pub(crate) fn check_flags(name: &str, flags: u32, mask: u32) -> std::result::Result<(), Fault> {
    match flags & !mask {
        0 => Ok(()),
        _ => Err(Fault::invalid(format!(
            "{name}: invalid value for flag: {flags:#x}"
        ))),
    }
}

fn check_name(what: &str, name: &str) -> std::result::Result<(), Fault> {
    match name.len() {
        0..=limits::MAX_STRING => Ok(()),
        _ => Err(Fault::of(
            format!("{what} name too long for NBD protocol"),
            Errno::NAMETOOLONG,
        )),
    }
}
