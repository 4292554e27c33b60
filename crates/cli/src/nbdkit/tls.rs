//! Whether this server speaks TLS, decided before it starts.
//!
//! Without `--tls` there is TLS if there are certificates where they are looked for. What was named
//! (files, a priority, `--tls=require`) has to work: a server that is asked to encrypt and quietly
//! does not is worse than none. Only `--tls=on` without a word about the files goes on with a
//! warning, as in nbdkit.

use ::tls::{Config, Error};
use exports::nbd::Tls;

use super::{
    messages,
    options::{Mistake, Options},
};
use crate::life::tls::{TlsMode, load};

const HINT: &str = "Try setting ‘--tls-certificates=/path/to/certificates’ or read\n\
                    the \"TLS\" section in nbdkit(1).";

/// What the options come to.
///
/// # Errors
/// What was asked for cannot be had.
pub fn mode(options: &Options) -> Result<Tls, Mistake> {
    if options.tls == Some(TlsMode::Off) || (options.oldstyle && options.tls.is_none()) {
        return Ok(Tls::Off);
    }
    let named = options.tls_certificates.is_some()
        || options.tls_psk.is_some()
        || options.tls_priority.is_some()
        || options.tls_verify_peer;
    let error = match load(options.tls.unwrap_or(TlsMode::On), &config(options)) {
        Ok(tls) => return Ok(tls),
        Err(error) => error,
    };
    match (options.tls, &error) {
        // The words that scripts know, and behind them what is wrong.
        (Some(TlsMode::Require), Error::NoCertificates(_)) => Err(Mistake::Plain(format!(
            "--tls=require but could not load TLS certificates.\n{HINT}"
        ))),
        (_, error) if named || options.tls == Some(TlsMode::Require) => {
            Err(Mistake::Error(error.to_string()))
        }
        (Some(TlsMode::On), error) => {
            messages::warning(&format!(
                "--tls=on but could not load TLS certificates.\n\
                 TLS will be disabled and TLS connections will be rejected.\n{HINT}"
            ));
            messages::debug(&error.to_string());
            Ok(Tls::Off)
        }
        (_, error) => {
            messages::debug("TLS disabled: could not load TLS certificates");
            messages::debug(&error.to_string());
            Ok(Tls::Off)
        }
    }
}

/// Where the files are and what is expected of clients.
pub fn config(options: &Options) -> Config {
    Config {
        certificates: options.tls_certificates.clone(),
        psk: options.tls_psk.clone(),
        verify_peer: options.tls_verify_peer,
        priority: options.tls_priority.clone(),
    }
}
