//! Taking a URI apart. Positions are bytes of the whole text.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use super::{PORT, Remote, TlsParts, Transport, Uri, VSOCK_HOST, escape};
use crate::proto::limits;

pub(super) struct Wrong {
    pub at: usize,
    pub why: String,
}

fn wrong<T>(at: usize, why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        at,
        why: why.into(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Unix,
    Vsock,
    Ssh,
}

/// What a scheme means: the transport, and whether TLS is required.
pub(super) fn scheme(scheme: &str) -> Option<(Kind, bool)> {
    let scheme = scheme.to_ascii_lowercase();
    let (base, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
    let kind = match kind {
        "" if scheme.contains('+') => return None,
        "" => Kind::Tcp,
        "unix" => Kind::Unix,
        "vsock" => Kind::Vsock,
        "ssh" => Kind::Ssh,
        _ => return None,
    };
    match base {
        "nbd" => Some((kind, false)),
        "nbds" => Some((kind, true)),
        _ => None,
    }
}

/// A piece of the text, and where it is.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Part<'a> {
    /// What stands before and behind the first of these characters.
    fn cut(self, by: &[char]) -> (Part<'a>, Option<Part<'a>>) {
        let Some(place) = self.text.find(by) else {
            return (self, None);
        };
        let head = Part {
            text: &self.text[..place],
            at: self.at,
        };
        let tail = Part {
            // All that is ever cut by is one byte long.
            text: &self.text[place + 1..],
            at: self.at + place + 1,
        };
        (head, Some(tail))
    }

    fn bytes(self) -> Result<Vec<u8>, Wrong> {
        escape::decode(self.text).or_else(|(at, why)| wrong(self.at + at, why))
    }

    fn string(self) -> Result<String, Wrong> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes).or_else(|_| wrong(self.at, "this is not UTF-8"))
    }

    fn path(self) -> Result<PathBuf, Wrong> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return wrong(self.at, "a path is needed here");
        }
        Ok(OsString::from_vec(bytes).into())
    }

    fn number<N: std::str::FromStr>(self, what: &str) -> Result<N, Wrong> {
        let digits = !self.text.is_empty() && self.text.bytes().all(|byte| byte.is_ascii_digit());
        match self.text.parse() {
            Ok(number) if digits => Ok(number),
            _ => wrong(self.at, format!("'{}' is not {what}", self.text)),
        }
    }

    fn flag(self) -> Result<bool, Wrong> {
        match self.text.to_ascii_lowercase().as_str() {
            "" | "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => wrong(
                self.at,
                format!("'{}' is neither true nor false", self.text),
            ),
        }
    }
}

/// All that queries can say.
#[derive(Default)]
struct Queries<'a> {
    socket: Option<Part<'a>>,
    nbd_port: Option<Part<'a>>,
    compress: bool,
    tls: TlsParts,
    /// Where TLS was spoken of.
    tls_at: Option<usize>,
}

struct Authority<'a> {
    user: Option<Part<'a>>,
    host: Part<'a>,
    port: Option<Part<'a>>,
}

pub(super) fn uri(text: &str) -> Result<Uri, Wrong> {
    if let Some(at) = text.find(|c: char| c.is_control() || c == ' ') {
        return wrong(at, "spaces and control characters must be escaped (%20)");
    }
    let Some((word, rest)) = text.split_once("://") else {
        return wrong(
            0,
            "it must start with nbd://, nbds://, nbd+unix:// or the like",
        );
    };
    let Some((kind, secure)) = scheme(word) else {
        let why = "the scheme must be nbd or nbds, and +unix, +vsock or +ssh may follow";
        return wrong(0, why);
    };
    let rest = Part {
        text: rest,
        at: word.len() + 3,
    };
    let (rest, fragment) = rest.cut(&['#']);
    if let Some(fragment) = fragment {
        return wrong(fragment.at - 1, "a '#' must be escaped (%23)");
    }
    let (rest, query) = rest.cut(&['?']);
    let (front, export) = rest.cut(&['/']);
    let authority = split(front)?;
    let mut queries = Queries::default();
    if let Some(query) = query {
        queries.read(query)?;
    }
    if let (Some(at), false) = (queries.tls_at, secure) {
        return wrong(at, "this is about TLS, for which the scheme must be nbds");
    }
    let export = match export {
        None => String::new(),
        Some(name) => {
            let decoded = name.string()?;
            if decoded.len() > limits::MAX_STRING {
                return wrong(name.at, "the export name is longer than 4096 bytes");
            }
            decoded
        }
    };
    let user = authority.user.map(Part::string).transpose()?;
    if kind != Kind::Ssh && queries.tls.username.is_none() {
        queries.tls.username.clone_from(&user);
    }
    let transport = match kind {
        Kind::Tcp => tcp(&authority, &queries)?,
        Kind::Unix => unix(&authority, &queries)?,
        Kind::Vsock => vsock(&authority, &queries)?,
        Kind::Ssh => ssh(user, &authority, &queries)?,
    };
    Ok(Uri {
        transport,
        export,
        tls: secure.then_some(queries.tls),
    })
}

/// An IPv6 address, and the zone behind it if there is one.
pub(super) fn ipv6(host: &str) -> Option<(&str, &str)> {
    let (address, zone) = match host.split_once('%') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (host, ""),
    };
    address.parse::<std::net::Ipv6Addr>().ok()?;
    Some((address, zone))
}

fn split(front: Part<'_>) -> Result<Authority<'_>, Wrong> {
    let (user, place) = match front.cut(&['@']) {
        (user, Some(place)) => (Some(user), place),
        (place, None) => (None, place),
    };
    if place.text.starts_with('[') {
        let inner = Part {
            text: &place.text[1..],
            at: place.at + 1,
        };
        let (host, Some(rest)) = inner.cut(&[']']) else {
            return wrong(place.at, "this '[' is not closed");
        };
        if ipv6(host.text).is_none() {
            return wrong(host.at, "brackets must contain an IPv6 address");
        }
        let port = match rest.cut(&[':']) {
            (Part { text: "", .. }, port) => port,
            (other, _) => return wrong(other.at, "only a port may follow ']'"),
        };
        return Ok(Authority { user, host, port });
    }
    let (host, port) = place.cut(&[':']);
    if let Some(second) = port.and_then(|port| port.cut(&[':']).1) {
        return wrong(second.at - 1, "an IPv6 address must stand in brackets");
    }
    Ok(Authority { user, host, port })
}

impl<'a> Queries<'a> {
    fn read(&mut self, query: Part<'a>) -> Result<(), Wrong> {
        let mut rest = Some(query);
        while let Some(part) = rest {
            let (one, next) = part.cut(&['&', ';']);
            rest = next;
            let (name, value) = one.cut(&['=']);
            let value = value.unwrap_or(Part {
                text: "",
                at: one.at + one.text.len(),
            });
            let known = name.string()?;
            if known.starts_with("tls-") && known != "tls-type" {
                self.tls_at.get_or_insert(name.at);
            }
            match known.as_str() {
                "socket" => self.socket = Some(value),
                "nbd-port" => self.nbd_port = Some(value),
                "compress" => self.compress = value.flag()?,
                "tls-certificates" => self.tls.certificates = Some(value.path()?),
                "tls-psk-file" => self.tls.psk_file = Some(value.path()?),
                "tls-hostname" => self.tls.hostname = Some(value.string()?),
                "tls-username" => self.tls.username = Some(value.string()?),
                "tls-priority" => self.tls.priority = Some(value.string()?),
                "tls-verify-peer" => self.tls.verify_peer = Some(value.flag()?),
                _ => {}
            }
        }
        Ok(())
    }

    fn no_socket(&self) -> Result<(), Wrong> {
        match self.socket {
            None => Ok(()),
            Some(socket) => wrong(socket.at, "socket= needs the scheme nbd+unix or nbd+ssh"),
        }
    }

    /// The NBD server's port.
    fn port(&self, port: Option<Part<'a>>) -> Result<u16, Wrong> {
        match self.nbd_port.or(port) {
            None => Ok(PORT),
            Some(port) => port.number("a TCP port"),
        }
    }
}

fn tcp(authority: &Authority<'_>, queries: &Queries<'_>) -> Result<Transport, Wrong> {
    queries.no_socket()?;
    let host = match authority.host.string()? {
        host if host.is_empty() => "localhost".into(),
        host => host,
    };
    let port = queries.port(authority.port)?;
    Ok(Transport::Tcp { host, port })
}

fn unix(authority: &Authority<'_>, queries: &Queries<'_>) -> Result<Transport, Wrong> {
    if !authority.host.text.is_empty() || authority.port.is_some() {
        let why = "a Unix socket has no host: write nbd+unix:///EXPORT?socket=PATH";
        return wrong(authority.host.at, why);
    }
    match queries.socket {
        Some(socket) => Ok(Transport::Unix {
            path: socket.path()?,
        }),
        None => wrong(authority.host.at, "?socket=PATH is missing"),
    }
}

fn vsock(authority: &Authority<'_>, queries: &Queries<'_>) -> Result<Transport, Wrong> {
    queries.no_socket()?;
    let cid = match authority.host {
        Part { text: "", .. } => VSOCK_HOST,
        host => host.number("a context identifier (CID)")?,
    };
    let port = match queries.nbd_port.or(authority.port) {
        None => PORT.into(),
        Some(port) => port.number("a vsock port")?,
    };
    Ok(Transport::Vsock { cid, port })
}

fn ssh(
    user: Option<String>,
    authority: &Authority<'_>,
    queries: &Queries<'_>,
) -> Result<Transport, Wrong> {
    let host = authority.host.string()?;
    // Both become arguments of ssh(1), and neither may be taken for an option of it.
    if host.is_empty() || host.starts_with('-') {
        return wrong(authority.host.at, "a host to log in to is needed");
    }
    if let (Some(part), Some(user)) = (authority.user, &user)
        && (user.is_empty() || user.starts_with('-'))
    {
        return wrong(part.at, "a user name cannot be empty or start with '-'");
    }
    let port = authority.port.map(|port| port.number("a TCP port"));
    let to = match queries.socket {
        Some(socket) => Remote::Unix(socket.path()?),
        None => Remote::Port(queries.port(None)?),
    };
    Ok(Transport::Ssh {
        user,
        host,
        port: port.transpose()?,
        to,
        compress: queries.compress,
    })
}
