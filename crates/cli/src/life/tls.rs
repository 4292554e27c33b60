//! TLS, as a command line asks for it.

use std::{path::Path, sync::Arc};

use ::tls::{Acceptor, Config, Error};
use exports::nbd::Tls;

use nbd::uri::encode_path;

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Off,
    /// If the client wants it.
    On,
    Require,
}

/// Reads the files; a server that cannot use them should not start.
///
/// # Errors
/// What is wrong with them.
pub fn load(mode: TlsMode, config: &Config) -> Result<Tls, Error> {
    let acceptor = || Acceptor::new(config.clone()).map(Arc::new);
    Ok(match mode {
        TlsMode::Off => Tls::Off,
        TlsMode::On => Tls::On(acceptor()?),
        TlsMode::Require => Tls::Require(acceptor()?),
    })
}

/// What a URI says about where a client finds its credentials: the place of the server's.
pub fn queries(config: &Config) -> Vec<String> {
    let of = |key: &str, path: &Path| format!("{key}={}", encode_path(path));
    let certificates = config.certificates.as_deref();
    let psk = config.psk.as_deref();
    certificates
        .map(|path| of("tls-certificates", path))
        .into_iter()
        .chain(psk.map(|path| of("tls-psk-file", path)))
        .collect()
}
