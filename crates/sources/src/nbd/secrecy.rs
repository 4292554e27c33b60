//! Whether and how connections are encrypted: what parameters and a URI say together.

use std::sync::Arc;

use block::{Error, ErrorKind, Result};
use nbd::{
    client::Tls,
    uri::{TlsParts, Transport, Uri},
};
use tls::{ClientConfig, Connector};

use super::{NbdConfig, UseTls};

/// See the [module](self).
pub(super) struct Secrecy {
    /// What is asked of the server.
    pub wanted: Tls,
    /// Our credentials, if it may come to that.
    pub connector: Option<Arc<Connector>>,
}

impl Secrecy {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// `Config`, if something is said twice or in vain, or a file cannot be used.
    pub fn of(config: &NbdConfig, uri: Option<&Uri>) -> Result<Secrecy> {
        let wrong = |why: String| Error::new(ErrorKind::Config, why);
        let parts = uri.and_then(|uri| uri.tls.as_ref());
        let wanted = wanted(config, parts.is_some()).map_err(wrong)?;
        if wanted == Tls::Off {
            return Ok(Secrecy {
                wanted,
                connector: None,
            });
        }
        let files = files(config, parts, uri).map_err(wrong)?;
        let connector = Connector::new(files).map_err(|error| wrong(error.to_string()))?;
        Ok(Secrecy {
            wanted,
            connector: Some(Arc::new(connector)),
        })
    }
}

/// A scheme with TLS requires it.
fn wanted(config: &NbdConfig, by_scheme: bool) -> Result<Tls, String> {
    let details = [
        ("tls-certificates", config.tls_certificates.is_some()),
        ("tls-verify", config.tls_verify.is_some()),
        ("tls-hostname", config.tls_hostname.is_some()),
        ("tls-psk", config.tls_psk.is_some()),
        ("tls-username", config.tls_username.is_some()),
        ("tls-priority", config.tls_priority.is_some()),
    ];
    let detail = details.iter().find(|detail| detail.1);
    match (config.tls, by_scheme, detail) {
        (Some(UseTls::Off | UseTls::On), true, _) => {
            Err("the URI's scheme requires TLS, and tls= says something else".into())
        }
        (Some(UseTls::Off), false, Some((name, _))) => {
            Err(format!("{name} is in vain with tls=off"))
        }
        (Some(UseTls::Require), ..) | (None, true, _) => Ok(Tls::Require),
        (Some(UseTls::On), ..) | (None, false, Some(_)) => Ok(Tls::Try),
        (Some(UseTls::Off), ..) | (None, false, None) => Ok(Tls::Off),
    }
}

fn files(
    config: &NbdConfig,
    parts: Option<&TlsParts>,
    uri: Option<&Uri>,
) -> Result<ClientConfig, String> {
    let none = TlsParts::default();
    let parts = parts.unwrap_or(&none);
    let host = match uri.map(|uri| &uri.transport) {
        Some(Transport::Tcp { host, .. } | Transport::Ssh { host, .. }) => Some(host.clone()),
        _ => config.hostname.clone(),
    };
    let files = ClientConfig {
        certificates: once(
            "tls-certificates",
            &config.tls_certificates,
            &parts.certificates,
        )?,
        psk: once("tls-psk", &config.tls_psk, &parts.psk_file)?,
        username: once("tls-username", &config.tls_username, &parts.username)?,
        hostname: once("tls-hostname", &config.tls_hostname, &parts.hostname)?.or(host),
        verify_peer: once("tls-verify", &config.tls_verify, &parts.verify_peer)?.unwrap_or(true),
        priority: once("tls-priority", &config.tls_priority, &parts.priority)?,
    };
    if files.username.is_some() && files.psk.is_none() {
        tracing::debug!("a user name is of no use to certificates");
    }
    Ok(files)
}

/// What was said in one of two places.
fn once<T: Clone>(name: &str, here: &Option<T>, there: &Option<T>) -> Result<Option<T>, String> {
    match (here, there) {
        (Some(_), Some(_)) => Err(format!("{name} is given twice: in the URI, and by {name}=")),
        (said, None) | (None, said) => Ok(said.clone()),
    }
}

#[cfg(test)]
mod tests {
    use config::{Arg, Config};

    use super::*;

    const SOCKET: &str = "nbd+unix:///?socket=s";

    /// What these parameters come to, with a URI.
    fn wants(uri: &str, words: &[&str]) -> Result<Tls, String> {
        let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
        let uri_arg = [Arg::parse(&format!("uri={uri}"))];
        let config = NbdConfig::from_args(&[&uri_arg[..], &args].concat()).unwrap();
        let parsed: Uri = uri.parse().unwrap();
        wanted(&config, parsed.tls.is_some()).and_then(|wanted| {
            files(&config, parsed.tls.as_ref(), Some(&parsed))?;
            Ok(wanted)
        })
    }

    #[test]
    fn the_scheme_and_the_parameters_say_whether() {
        let secure = "nbds://host";
        assert_eq!(wants(SOCKET, &[]), Ok(Tls::Off));
        assert_eq!(wants(SOCKET, &["tls=on"]), Ok(Tls::Try));
        assert_eq!(wants(SOCKET, &["tls-psk=f"]), Ok(Tls::Try));
        assert_eq!(
            wants(SOCKET, &["tls-psk=f", "tls=require"]),
            Ok(Tls::Require)
        );
        assert_eq!(wants(secure, &[]), Ok(Tls::Require));
        assert_eq!(wants(secure, &["tls=require"]), Ok(Tls::Require));
        let table = [
            (secure, "tls=off", "requires TLS"),
            (secure, "tls=on", "requires TLS"),
            (
                "nbds://host?tls-hostname=a",
                "tls-hostname=b",
                "given twice",
            ),
        ];
        for (uri, word, why) in table {
            let error = wants(uri, &[word]).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let error = wants(SOCKET, &["tls=off", "tls-verify=false"]).unwrap_err();
        assert_eq!(error, "tls-verify is in vain with tls=off");
    }

    #[test]
    fn the_name_to_check_is_the_hosts() {
        let name = |uri: &str, words: &[&str]| {
            let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
            let config = NbdConfig::from_args(&args).unwrap();
            let uri: Option<Uri> = (!uri.is_empty()).then(|| uri.parse().unwrap());
            let parts = uri.as_ref().and_then(|uri| uri.tls.as_ref());
            files(&config, parts, uri.as_ref()).unwrap().hostname
        };
        assert_eq!(name("nbds://h", &["uri=x"]).as_deref(), Some("h"));
        let other = "nbds://h?tls-hostname=o";
        assert_eq!(name(other, &["uri=x"]).as_deref(), Some("o"));
        assert_eq!(name("", &["hostname=h"]).as_deref(), Some("h"));
        assert_eq!(name(SOCKET, &["uri=x"]), None);
        assert_eq!(
            name("", &["socket=s", "tls-hostname=o"]).as_deref(),
            Some("o")
        );
    }
}
