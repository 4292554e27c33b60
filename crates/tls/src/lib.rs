//! TLS for NBD, both sides, as a machine over bytes.
//!
//! **What.** [`Acceptor`] holds what a server proves itself by and whom it lets in: an X.509
//! directory or a file of pre-shared keys, laid out as nbdkit-tls(1) says. [`Connector`] holds what a
//! client trusts and who it is, in the files that nbd_set_tls_certificates(3) describes. Each
//! connection gets a [`Session`] from one of them: ciphertext goes in and comes out, plaintext comes
//! out and goes in.
//!
//! **Why so.** The library is OpenSSL, the one at hand that speaks both kinds of authentication with
//! GnuTLS peers, which all other NBD programs are. It sees memory, never a socket: so the same session runs
//! on an io_uring loop, on epoll and in a simulation, and its work can be done on any thread.
//!
//! **Contract.**
//! * TLS 1.2 and 1.3 and nothing older. Suites without forward secrecy only if they are named in the
//!   priority string.
//! * Nothing outlives a connection: no tickets, no session cache, no renegotiation. So who is
//!   removed from the files cannot come in again by what an older connection left.
//! * A client talks to nobody but who it means: the server's certificate is checked, and bears the
//!   host's name, unless that is switched off by name.
//! * A server's files that change are read again for the next connection. Files that were changed to something
//!   that cannot be used let nobody in until they are mended; sessions that exist go on.
//! * A server that gives up the right to read its files goes on with what it has read.
//! * With pre-shared keys, a client cannot tell an unknown user from a wrong key, and no key is ever
//!   compared by this crate.
//! * An error is one line for people. What a peer sends is bounded by what was fed, and never
//!   panics.
//!
//! * Without the feature `openssl` the crate needs nothing to be installed, and no [`Acceptor`] can
//!   be made: [`Error::NotBuilt`].
//!
//! Kernel TLS needs a socket under OpenSSL, and so is not for a machine over bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "openssl")]
mod acceptor;
#[cfg(feature = "openssl")]
mod connector;
#[cfg(feature = "openssl")]
mod context;
#[cfg(feature = "openssl")]
mod files;
#[cfg(feature = "openssl")]
mod name;
#[cfg(feature = "openssl")]
mod priority;
#[cfg(feature = "openssl")]
mod psk;
#[cfg(feature = "openssl")]
mod session;
#[cfg(not(feature = "openssl"))]
mod without;

use std::path::PathBuf;

#[cfg(not(feature = "openssl"))]
pub use without::{Acceptor, Connector, Session};
#[cfg(feature = "openssl")]
pub use {acceptor::Acceptor, connector::Connector, session::Session};

/// There is TLS in this program.
pub const BUILT: bool = cfg!(feature = "openssl");

/// Who the other end proved to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// User of the pre-shared key, or distinguished name of the client's certificate (RFC 4514);
    /// `None` if the client was not asked to prove itself.
    pub identity: Option<String>,
    /// Distinguished name of who issued the certificate.
    pub issuer: Option<String>,
}

/// What a server is configured with. The default is X.509 from the default directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Directory with `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, and, if wanted,
    /// `ca-crl.pem` and further pairs `server-cert-N.pem` and `server-key-N.pem` (N from 0 to 9) of
    /// other kinds of keys. `None`: the first of the default directories that has a
    /// `server-cert.pem`: `/etc/pki/nbdkit` for root, `~/.pki/nbdkit` and `~/.config/pki/nbdkit`
    /// for others.
    pub certificates: Option<PathBuf>,
    /// File of lines `user:key`, the key in hexadecimal digits. Takes the place of certificates.
    pub psk: Option<PathBuf>,
    /// Only clients with a certificate by our CA, that is not revoked, may come in. The certificate's
    /// name is not compared with anything. Without effect on pre-shared keys, which prove both ends.
    pub verify_peer: bool,
    /// GnuTLS priority string; `None` is `NORMAL`. These parts of the language are understood, in
    /// any case of letters; all others are errors:
    ///
    /// * first one of `NORMAL`, `PERFORMANCE`, `PFS`, `SECURE128` (all the same here), `SECURE192`,
    ///   `SECURE256` (only ciphers with 256 bits), `NONE`, or `@SYSTEM` (OpenSSL's own configuration;
    ///   also as the last of a list, `@NBDKIT,SYSTEM`);
    /// * then, after colons, `+NAME` to add and `-NAME` or `!NAME` to take away:
    ///   `VERS-TLS1.2`, `VERS-TLS1.3`, `VERS-ALL`; `AES-128-GCM`, `AES-256-GCM`,
    ///   `CHACHA20-POLY1305`, `AES-128-CBC`, `AES-256-CBC` (TLS 1.2 only), `CIPHER-ALL`; `ECDHE-RSA`,
    ///   `ECDHE-ECDSA`, `ECDHE-PSK`, `RSA`, `PSK` (the key exchanges of TLS 1.2), `KX-ALL`;
    /// * older versions may be taken away, and `DHE-RSA` and `DHE-PSK` named, without effect: they
    ///   are never offered. `+AEAD`, `+MAC-ALL`, `+SIGN-ALL`, `+GROUP-ALL`, `+COMP-NULL`,
    ///   `+CTYPE-X509`, `%SERVER_PRECEDENCE` and `%NO_TICKETS` say what is so anyhow.
    pub priority: Option<String>,
}

/// What a client is configured with. The default is X.509 with the default directories, and a server
/// that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Directory with `ca-cert.pem`, and, if wanted, `ca-crl.pem`, and `client-cert.pem` with
    /// `client-key.pem` to prove ourselves by. `None`: the first of the default directories that has
    /// a `ca-cert.pem`: `/etc/pki/libnbd` for root, `~/.pki/libnbd` and `~/.config/pki/libnbd` for
    /// others; if there is none, whom the system trusts.
    pub certificates: Option<PathBuf>,
    /// File of lines `user:key`, the key in hexadecimal digits. Takes the place of certificates.
    pub psk: Option<PathBuf>,
    /// Who we are in that file. `None`: the user that runs this program.
    pub username: Option<String>,
    /// The name or address that the server's certificate must bear. `None`: any certificate by
    /// somebody we trust will do, for servers that are reached by no name.
    pub hostname: Option<String>,
    /// Whether the server's certificate is checked. Without effect on pre-shared keys, which prove
    /// both ends.
    pub verify_peer: bool,
    /// GnuTLS priority string, as in [`Config::priority`].
    pub priority: Option<String>,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            certificates: None,
            psk: None,
            username: None,
            hostname: None,
            verify_peer: true,
            priority: None,
        }
    }
}

/// The name of whoever runs this program, as the environment tells it.
pub fn running_user() -> Option<String> {
    ["LOGNAME", "USER"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|name| !name.is_empty())
}

/// Why there is no TLS: each a single line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No directory was named, and no default directory has certificates.
    #[error("no TLS certificates were found in {0}")]
    NoCertificates(String),
    /// A file cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The priority string is not understood, or leaves nothing to offer.
    #[error("TLS priority {priority:?}: {why}")]
    Priority {
        /// The whole string.
        priority: String,
        /// What is wrong with it.
        why: String,
    },
    /// The handshake failed: one side does not trust the other, or they have nothing in common.
    #[error("TLS handshake: {0}")]
    Handshake(String),
    /// The peer broke a session, or somebody in between did.
    #[error("TLS session: {0}")]
    Session(String),
    /// This program was built without OpenSSL.
    #[error("this program was built without TLS (the feature \"tls\")")]
    NotBuilt,
    /// OpenSSL refuses something that it should not.
    #[error("OpenSSL: {0}")]
    Library(String),
}

#[cfg(feature = "openssl")]
impl From<openssl::error::ErrorStack> for Error {
    fn from(stack: openssl::error::ErrorStack) -> Error {
        Error::Library(reason(&stack))
    }
}

#[cfg(feature = "openssl")]
/// What OpenSSL has to say, in short: the first of its errors is the cause of the others.
fn reason(stack: &openssl::error::ErrorStack) -> String {
    let first = stack.errors().first();
    let reason = first.and_then(|error| error.reason());
    reason.unwrap_or("unknown error").to_owned()
}
