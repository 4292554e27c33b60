//! NBD URIs: what they set, where they lead, and the way back.

use std::{ffi::OsString, net::SocketAddr, os::unix::ffi::OsStringExt, path::PathBuf};

use nbd::uri::{Transport, Uri, encode, encode_path, ssh_command};
use rustix::{
    io::Errno,
    net::{SocketAddrAny, SocketAddrUnix},
};

use crate::{
    ALLOW_TRANSPORT_SSH, ALLOW_TRANSPORT_TCP, ALLOW_TRANSPORT_UNIX, ALLOW_TRANSPORT_VSOCK,
    TLS_ALLOW, TLS_DISABLE, TLS_REQUIRE, error::Fault, settings::Settings,
};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp {
        host: String,
        port: String,
    },
    /// TCP to an address, without a name that a certificate could bear.
    Address(SocketAddr),
    Unix(PathBuf),
    Vsock {
        cid: u32,
        port: u32,
    },
}

/// How a URI wants the server to be reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Place(Place),
    Command(Vec<OsString>),
}

impl Place {
    /// The place of an address, if a URI can tell it.
    pub fn of(address: &SocketAddrAny) -> Option<Place> {
        if let Ok(address) = SocketAddr::try_from(address.clone()) {
            return Some(Place::Address(address));
        }
        let address = SocketAddrUnix::try_from(address.clone()).ok()?;
        let path = OsString::from_vec(address.path_bytes()?.to_vec());
        Some(Place::Unix(path.into()))
    }

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
            Place::Address(address) => ("", address.to_string()),
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
        keep(tls.certificates, &mut settings.tls_certificates);
        keep(tls.psk_file, &mut settings.tls_psk_file);
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

/// What the URI says comes before what was set.
fn keep<T>(new: Option<T>, old: &mut Option<T>) {
    if new.is_some() {
        *old = new;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uri: &str, change: impl FnOnce(&mut Settings)) -> (String, i32) {
        let mut settings = Settings::default();
        change(&mut settings);
        let fault = follow(uri, &mut settings).unwrap_err();
        assert_eq!(settings.export, "", "nothing is set");
        (fault.text, fault.errno)
    }

    #[test]
    fn what_is_no_uri_is_told_in_libnbds_words() {
        let scheme = "NBD URI does not have a scheme: valid NBD URIs should start with a scheme \
                      like nbd://, nbds:// or nbd+unix://";
        let table = [
            ("", scheme.to_owned()),
            ("foo", scheme.to_owned()),
            (
                "/dev/null",
                format!("{scheme}: to open a local socket use \"nbd+unix://?socket=PATH\""),
            ),
            ("localhost:", "unknown NBD URI scheme: localhost".into()),
            ("http://x", "unknown NBD URI scheme: http".into()),
            ("nbd+foo://x", "unknown NBD URI scheme: nbd+foo".into()),
            ("nbd:localhost", "URI must begin with 'nbd://'".into()),
            ("nbd+unix:x", "URI must begin with 'nbd+unix://'".into()),
        ];
        for (uri, expected) in table {
            assert_eq!(refusal(uri, |_| {}), (expected, 22), "{uri}");
        }
        // All else says where it is wrong.
        let (text, _) = refusal("nbd://localhost/%zz", |_| {});
        assert!(text.contains("at character 17"), "{text}");
    }

    #[test]
    fn what_is_not_allowed() {
        const EPERM: i32 = 1;
        let only = |transports| move |settings: &mut Settings| settings.uri_transports = transports;
        let tls = |tls| move |settings: &mut Settings| settings.uri_tls = tls;
        let table = [
            (
                refusal("nbd://x", only(ALLOW_TRANSPORT_UNIX)),
                "URI transport nbd is not permitted",
            ),
            (
                refusal("nbd+vsock://2", only(ALLOW_TRANSPORT_TCP)),
                "URI transport nbd+vsock is not permitted",
            ),
            (
                refusal("nbd+ssh://x", only(ALLOW_TRANSPORT_TCP)),
                "URI transport nbd+ssh is not permitted",
            ),
            (
                refusal("nbd://x", tls(TLS_REQUIRE)),
                "URI TLS setting nbd is not permitted",
            ),
            (
                refusal("nbds://x", tls(TLS_DISABLE)),
                "URI TLS setting nbds is not permitted",
            ),
            (
                refusal("nbds://x/?tls-psk-file=/f", |_| {}),
                "local file access (tls-psk-file) is not allowed, call \
                 nbd_set_uri_allow_local_file to enable this",
            ),
            (
                refusal("nbds://x/?tls-certificates=/f", |_| {}),
                "local file access (tls-certificates) is not allowed, call \
                 nbd_set_uri_allow_local_file to enable this",
            ),
            (
                refusal("nbds://x/?tls-priority=NORMAL", |_| {}),
                "overriding TLS priority (tls-priority) is not allowed, call \
                 nbd_set_uri_allow_tls_priority to enable this",
            ),
        ];
        for ((text, errno), expected) in table {
            assert_eq!((&*text, errno), (expected, EPERM));
        }
    }

    #[test]
    fn uris_set_what_they_say() {
        let mut settings = Settings {
            uri_local_file: true,
            ..Settings::default()
        };
        let uri = "nbds+unix://alice@/disk%201?socket=/s&tls-psk-file=/k&tls-verify-peer=false";
        let way = follow(uri, &mut settings).unwrap();
        assert_eq!(way, Way::Place(Place::Unix("/s".into())));
        assert_eq!(settings.export, "disk 1");
        assert_eq!(settings.tls, TLS_REQUIRE);
        assert_eq!(settings.tls_username.as_deref(), Some("alice"));
        assert_eq!(settings.tls_psk_file, Some("/k".into()));
        assert!(!settings.tls_verify_peer);
        let back = Place::Unix("/s".into()).uri(&settings);
        assert_eq!(
            back,
            "nbds+unix://alice@/disk%201?socket=/s&tls-psk-file=/k&tls-verify-peer=false"
        );
    }

    #[test]
    fn ssh_gets_words_and_never_a_line() {
        let mut settings = Settings::default();
        let way = follow("nbd+ssh://me@h:22/?socket=/a%20%3Bls", &mut settings).unwrap();
        let words = ["ssh", "-p", "22", "-l", "me", "-W", "/a ;ls", "--", "h"];
        assert_eq!(way, Way::Command(words.map(OsString::from).to_vec()));
        // CVE-2025-14946: a host that is an option.
        assert!(follow("nbd+ssh://-oProxyCommand=x/", &mut settings).is_err());
        assert!(follow("nbd+ssh://-l@h/", &mut settings).is_err());
    }

    #[test]
    fn the_way_back_names_the_port() {
        let settings = Settings::default();
        let tcp = |host: &str| Place::Tcp {
            host: host.into(),
            port: "10809".into(),
        };
        assert_eq!(tcp("h").uri(&settings), "nbd://h:10809/");
        assert_eq!(tcp("::1").uri(&settings), "nbd://[::1]:10809/");
        let address: SocketAddr = "[::1]:9".parse().unwrap();
        let place = Place::of(&address.into()).unwrap();
        assert_eq!(place.uri(&settings), "nbd://[::1]:9/");
        let path = SocketAddrUnix::new("/a b").unwrap();
        let place = Place::of(&path.into()).unwrap();
        assert_eq!(place.uri(&settings), "nbd+unix:///?socket=/a%20b");
        let vsock = Place::Vsock { cid: 2, port: 9 };
        assert_eq!(vsock.uri(&settings), "nbd+vsock://2:9/");
    }
}
