//! NBD URIs: where a server is, which of its exports is meant, and how to reach it.
//!
//! ```text
//! uri       = scheme "://" [ authority ] [ "/" export ] [ "?" query ]
//! scheme    = ( "nbd" | "nbds" ) [ "+unix" | "+vsock" | "+ssh" ]    (case does not matter)
//! authority = [ user "@" ] [ host ] [ ":" port ]
//! query     = name [ "=" value ] *( ( "&" | ";" ) name [ "=" value ] )
//! ```
//!
//! The text followed is the NBD URI specification (`doc/uri.md` of the NetworkBlockDevice project),
//! with the queries that libnbd 1.24 adds. Names of queries that are not known are ignored, as it
//! asks for. Parsing opens and resolves nothing; what a program allows of it is the program's choice.

mod escape;
mod parse;
mod ssh;

use std::{fmt, path::PathBuf, str::FromStr};

pub use escape::{encode, encode_path};
pub use ssh::ssh_command;

/// The port of NBD (IANA).
pub const PORT: u16 = 10809;

/// The context identifier of the host, as a virtual machine sees it (vsock(7), `VMADDR_CID_HOST`).
pub const VSOCK_HOST: u32 = 2;

/// A parsed URI.
///
/// ```
/// use nbd::uri::{Transport, Uri};
/// let uri: Uri = "nbd://example.com/disk%201".parse().unwrap();
/// assert_eq!(uri.export, "disk 1");
/// let tcp = Transport::Tcp { host: "example.com".into(), port: 10809 };
/// assert_eq!(uri.transport, tcp);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// How the server is reached.
    pub transport: Transport,
    /// Name of the export; empty for the default one.
    pub export: String,
    /// TLS, which is required, if the scheme says so.
    pub tls: Option<TlsParts>,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
    },
    /// A socket to a virtual machine, or to its host (vsock(7)).
    Vsock {
        /// Context identifier.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// Through a remote shell (ssh(1)).
    Ssh {
        /// User on that host.
        user: Option<String>,
        /// The host to log in to.
        host: String,
        /// Port of its SSH server.
        port: Option<u16>,
        /// Where the NBD server is, as seen from there.
        to: Remote,
        /// Ask SSH to compress.
        compress: bool,
    },
}

/// An NBD server as seen from the host at the other end of SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// This port of its loopback address.
    Port(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What a URI says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsParts {
    /// User name, for pre-shared keys.
    pub username: Option<String>,
    /// Directory with certificates.
    pub certificates: Option<PathBuf>,
    /// File with pre-shared keys.
    pub psk_file: Option<PathBuf>,
    /// The name that the server's certificate must bear, if it is not the host's.
    pub hostname: Option<String>,
    /// Whether the server's certificate is checked; unless told, it is.
    pub verify_peer: Option<bool>,
    /// Versions and ciphers, as a GnuTLS priority string.
    pub priority: Option<String>,
}

/// Why a text is not an NBD URI, and at which byte of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{uri}' is not an NBD URI: {why}, at character {at}")]
pub struct UriError {
    /// The text.
    pub uri: String,
    /// Where, in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub why: String,
}

impl Uri {
    /// Whether a word is meant as an NBD URI: it has one of the schemes. It may still be wrong.
    pub fn is_meant(word: &str) -> bool {
        let scheme = word.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| parse::scheme(scheme).is_some())
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Uri, UriError> {
        parse::uri(text).map_err(|wrong| UriError {
            uri: text.to_owned(),
            at: text[..wrong.at].chars().count() + 1,
            why: wrong.why,
        })
    }
}

/// The canonical form: ports are told only where they are not the usual ones.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls.is_some() { "s" } else { "" };
        let mut queries: Vec<(&str, String)> = Vec::new();
        let mut path = |path: &PathBuf| queries.push(("socket", encode_path(path)));
        let tls_user = || self.tls.as_ref().and_then(|tls| tls.username.as_deref());
        let (kind, authority) = match &self.transport {
            Transport::Tcp { host, port } => {
                let port = (*port != PORT).then(|| port.to_string());
                ("", authority(tls_user(), host, port))
            }
            Transport::Unix { path: socket } => {
                path(socket);
                ("+unix", authority(tls_user(), "", None))
            }
            Transport::Vsock { cid, port } => {
                let port = (*port != u32::from(PORT)).then(|| port.to_string());
                ("+vsock", authority(tls_user(), &cid.to_string(), port))
            }
            Transport::Ssh {
                user,
                host,
                port,
                to,
                compress,
            } => {
                match to {
                    Remote::Unix(socket) => path(socket),
                    Remote::Port(PORT) => {}
                    Remote::Port(port) => queries.push(("nbd-port", port.to_string())),
                }
                if *compress {
                    queries.push(("compress", "true".into()));
                }
                if let Some(user) = tls_user() {
                    queries.push(("tls-username", encode(user.as_bytes())));
                }
                let port = port.map(|port| port.to_string());
                ("+ssh", authority(user.as_deref(), host, port))
            }
        };
        if let Some(tls) = &self.tls {
            tls.queries(&mut queries);
        }
        let export = encode(self.export.as_bytes());
        write!(f, "nbd{secure}{kind}://{authority}/{export}")?;
        for (n, (name, value)) in queries.iter().enumerate() {
            let before = if n == 0 { '?' } else { '&' };
            write!(f, "{before}{name}={value}")?;
        }
        Ok(())
    }
}

impl TlsParts {
    fn queries(&self, queries: &mut Vec<(&str, String)>) {
        let path = |path: &Option<PathBuf>| path.as_deref().map(encode_path);
        let text = |text: &Option<String>| text.as_deref().map(|text| encode(text.as_bytes()));
        let all = [
            ("tls-certificates", path(&self.certificates)),
            ("tls-psk-file", path(&self.psk_file)),
            ("tls-hostname", text(&self.hostname)),
            ("tls-verify-peer", self.verify_peer.map(|on| on.to_string())),
            ("tls-priority", text(&self.priority)),
        ];
        let given = all
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        queries.extend(given);
    }
}

/// Slashes too.
fn encode_all(text: &str) -> String {
    encode(text.as_bytes()).replace('/', "%2F")
}

fn authority(user: Option<&str>, host: &str, port: Option<String>) -> String {
    let mut text = String::new();
    if let Some(user) = user {
        text.push_str(&encode_all(user));
        text.push('@');
    }
    match parse::ipv6(host) {
        Some((address, "")) => text.push_str(&format!("[{address}]")),
        Some((address, zone)) => text.push_str(&format!("[{address}%25{}]", encode_all(zone))),
        None => text.push_str(&encode_all(host)),
    }
    if let Some(port) = port {
        text.push(':');
        text.push_str(&port);
    }
    text
}

#[cfg(test)]
mod tests;
