//! NBD URIs: what they set, where they lead, and the way back.

use std::{ffi::OsString, path::PathBuf};

use nbd::uri::{Transport, Uri, encode, encode_path, ssh_command};
use rustix::io::Errno;

use crate::{
    ALLOW_TRANSPORT_SSH, ALLOW_TRANSPORT_TCP, ALLOW_TRANSPORT_UNIX, ALLOW_TRANSPORT_VSOCK,
    TLS_ALLOW, TLS_DISABLE, TLS_REQUIRE, error::Fault, settings::Settings,
};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp { host: String, port: String },
    Unix(PathBuf),
    Vsock { cid: u32, port: u32 },
}

/// How a URI wants the server to be reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Place(Place),
    Command(Vec<OsString>),
}

impl Place {
    /// The URI that leads back here, with the settings of the handle.
    pub fn uri(&self, settings: &Settings) -> String {
        let secure = if settings.tls == TLS_REQUIRE { "s" } else { "" };
        let user = settings.tls_username.as_deref();
        let user = user.map_or(String::new(), |user| {
            format!("{}@", encode(user.as_bytes()).replace('/', "%2F"))
        });
        let mut queries = Vec::new();
        let (kind, place) = match self {
            Place::Tcp { host, port } if host.contains(':') => ("", format!("[{host}]:{port}")),
            Place::Tcp { host, port } => ("", format!("{host}:{port}")),
            Place::Unix(path) => {
                queries.push(("socket", encode_path(path)));
                ("+unix", String::new())
            }
            Place::Vsock { cid, port } => ("+vsock", format!("{cid}:{port}")),
        };
        if let Some(path) = &settings.tls_certificates {
            queries.push(("tls-certificates", encode_path(path)));
        }
        if let Some(path) = &settings.tls_psk_file {
            queries.push(("tls-psk-file", encode_path(path)));
        }
        if let Some(name) = &settings.tls_hostname {
            queries.push(("tls-hostname", encode(name.as_bytes())));
        }
        if let Some(priority) = &settings.tls_priority {
            queries.push(("tls-priority", encode(priority.as_bytes())));
        }
        if !settings.tls_verify_peer {
            queries.push(("tls-verify-peer", "false".into()));
        }
        let export = encode(settings.export.as_bytes());
        let mut uri = format!("nbd{secure}{kind}://{user}{place}/{export}");
        for (n, (name, value)) in queries.iter().enumerate() {
            uri.push(if n == 0 { '?' } else { '&' });
            uri.push_str(&format!("{name}={value}"));
        }
        uri
    }
}

/// Checks a URI against what is allowed, sets what it says, and tells the way.
pub(crate) fn follow(text: &str, settings: &mut Settings) -> Result<Way, Fault> {
    let scheme = scheme(text)?;
    let uri: Uri = text
        .parse()
        .map_err(|error: nbd::uri::UriError| Fault::invalid(error.to_string()))?;
    let transport = match &uri.transport {
        Transport::Tcp { .. } => ALLOW_TRANSPORT_TCP,
        Transport::Unix { .. } => ALLOW_TRANSPORT_UNIX,
        Transport::Vsock { .. } => ALLOW_TRANSPORT_VSOCK,
        Transport::Ssh { .. } => ALLOW_TRANSPORT_SSH,
    };
    let forbidden = |text: String| Err(Fault::of(text, Errno::PERM));
    if settings.uri_transports & transport == 0 {
        return forbidden(format!("URI transport {scheme} is not permitted"));
    }
    let secure = uri.tls.is_some();
    let tls_fits = match settings.uri_tls {
        TLS_DISABLE => !secure,
        TLS_REQUIRE => secure,
        _ => true,
    };
    if !tls_fits {
        return forbidden(format!("URI TLS setting {scheme} is not permitted"));
    }
    if let Some(tls) = &uri.tls {
        let files = [
            ("tls-certificates", tls.certificates.is_some()),
            ("tls-psk-file", tls.psk_file.is_some()),
        ];
        for (name, given) in files {
            if given && !settings.uri_local_file {
                return forbidden(format!(
                    "local file access ({name}) is not allowed, call \
                     nbd_set_uri_allow_local_file to enable this"
                ));
            }
        }
        if tls.priority.is_some() && !settings.uri_tls_priority {
            return forbidden(
                "overriding TLS priority (tls-priority) is not allowed, call \
                 nbd_set_uri_allow_tls_priority to enable this"
                    .into(),
            );
        }
    }
    if secure && !tls::BUILT {
        return Err(Fault::of(tls::Error::NotBuilt.to_string(), Errno::NOTSUP));
    }
    set(uri, settings)
}

fn set(uri: Uri, settings: &mut Settings) -> Result<Way, Fault> {
    settings.export = uri.export;
    if let Some(tls) = uri.tls {
        settings.tls = TLS_REQUIRE;
        let keep = |new: Option<_>, old: &mut Option<_>| {
            if new.is_some() {
                *old = new;
            }
        };
        keep(tls.certificates, &mut settings.tls_certificates);
        keep(tls.psk_file, &mut settings.tls_psk_file);
        let keep = |new: Option<_>, old: &mut Option<_>| {
            if new.is_some() {
                *old = new;
            }
        };
        keep(tls.username, &mut settings.tls_username);
        keep(tls.hostname, &mut settings.tls_hostname);
        keep(tls.priority, &mut settings.tls_priority);
        if let Some(verify) = tls.verify_peer {
            settings.tls_verify_peer = verify;
        }
    }
    Ok(match uri.transport {
        Transport::Tcp { host, port } => Way::Place(Place::Tcp {
            host,
            port: port.to_string(),
        }),
        Transport::Unix { path } => Way::Place(Place::Unix(path)),
        Transport::Vsock { cid, port } => Way::Place(Place::Vsock { cid, port }),
        Transport::Ssh {
            user,
            host,
            port,
            to,
            compress,
        } => {
            // The certificate must bear the name of the far host, as with the other ways.
            if settings.tls != TLS_DISABLE && settings.tls_hostname.is_none() {
                settings.tls_hostname = Some(host.clone());
            }
            Way::Command(ssh_command(user, host, port, &to, compress))
        }
    })
}

/// The scheme of a text that is meant as an NBD URI; what else it may be is told in libnbd's words.
fn scheme(text: &str) -> Result<String, Fault> {
    let is_scheme = |word: &str| {
        let mut bytes = word.bytes();
        let letter = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
        letter && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let Some((scheme, rest)) = text.split_once(':').filter(|(word, _)| is_scheme(word)) else {
        let mut text_of_fault = String::from(
            "NBD URI does not have a scheme: valid NBD URIs should start with a scheme like \
             nbd://, nbds:// or nbd+unix://",
        );
        if text.starts_with('/') {
            text_of_fault += ": to open a local socket use \"nbd+unix://?socket=PATH\"";
        }
        return Err(Fault::invalid(text_of_fault));
    };
    if !Uri::is_meant(&format!("{scheme}://")) {
        return Err(Fault::invalid(format!("unknown NBD URI scheme: {scheme}")));
    }
    if !rest.starts_with("//") {
        return Err(Fault::invalid(format!("URI must begin with '{scheme}://'")));
    }
    Ok(scheme.to_owned())
}

/// The default of [`Settings::uri_tls`].
pub(crate) const ANY_TLS: i32 = TLS_ALLOW;
