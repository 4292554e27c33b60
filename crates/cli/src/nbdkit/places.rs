//! Where clients connect, and the URI that says so.
//!
//! Unlike `blkit serve`, nbdkit listens on all interfaces, and leaves the file of a named Unix socket
//! behind: those who start it rely on both.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs},
    os::fd::OwnedFd,
    path::Path,
};

use block::{Error, ErrorKind};
use nbd::uri::{PORT, encode_path};

use super::{
    messages,
    options::{Family, Mistake, Options},
    tls,
};
use crate::life::{
    activation::{self, Activation},
    listen::{self, Endpoints, UNIX_PATH_MAX},
    tls::{TlsMode, queries as tls_queries},
};

/// Bound sockets, and what clients are told.
pub struct Places {
    pub endpoints: Endpoints,
    /// `None` if nobody can know: standard input, socket activation.
    pub uri: Option<String>,
    /// The port, of TCP or vsock.
    pub port: Option<u32>,
}

impl Places {
    /// One client on standard input and output.
    pub fn standard_streams() -> Places {
        Places::unknown(Vec::new())
    }

    /// Sockets by socket activation.
    pub fn inherited(sockets: Vec<OwnedFd>) -> Places {
        Places::unknown(sockets)
    }

    fn unknown(sockets: Vec<OwnedFd>) -> Places {
        Places {
            endpoints: Endpoints::of_sockets(sockets),
            uri: None,
            port: None,
        }
    }

    /// Binds what the options ask for.
    ///
    /// # Errors
    /// An address or path that cannot be used, or is in use.
    pub fn bind(options: &Options) -> Result<Places, Mistake> {
        if options.vsock {
            return bind_vsock(options);
        }
        match &options.unix {
            Some(path) if path.as_os_str() == "-" => bind_private(options),
            Some(path) => bind_unix(path, options),
            None if options.run.is_some() && options.port.is_none() => bind_private(options),
            None => bind_tcp(options),
        }
    }
}

fn bind_private(options: &Options) -> Result<Places, Mistake> {
    let bound = listen::bind_private("/tmp".into(), "nbdkit");
    let endpoints = bound.map_err(|error| Mistake::Plain(error.chain()))?;
    Ok(of_unix(endpoints, options))
}

fn bind_unix(path: &Path, options: &Options) -> Result<Places, Mistake> {
    let length = path.as_os_str().len();
    if length > UNIX_PATH_MAX {
        let text = format!("-U: path too long: length {length} > max {UNIX_PATH_MAX} bytes");
        return Err(Mistake::Plain(text));
    }
    let bound = listen::bind_unix(path);
    let mut endpoints =
        bound.map_err(|error| Mistake::Plain(format!("{}: {}", path.display(), reason(&error))))?;
    endpoints.keep_file();
    Ok(of_unix(endpoints, options))
}

fn of_unix(endpoints: Endpoints, options: &Options) -> Places {
    let path = endpoints.unix_socket().unwrap_or(Path::new(""));
    messages::debug(&format!("bound to unix socket {}", path.display()));
    let socket = format!("socket={}", encode_path(path));
    let uri = uri(options, "+unix", "", &socket);
    Places {
        endpoints,
        uri: Some(uri),
        port: None,
    }
}

fn bind_vsock(options: &Options) -> Result<Places, Mistake> {
    let port = match &options.port {
        None => u32::from(PORT),
        Some(port) => port
            .to_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
                Mistake::Error(format!(
                    "port: could not parse number: \"{}\"",
                    port.display()
                ))
            })?,
    };
    let bound = listen::bind_vsock(port);
    let endpoints = bound.map_err(|error| Mistake::Plain(error.chain()))?;
    messages::debug(&format!("bound to vsock any:{port}"));
    let host = match options.port {
        Some(_) => format!("1:{port}"),
        None => "1".to_owned(),
    };
    let uri = uri(options, "+vsock", &host, "");
    Ok(Places {
        endpoints,
        uri: Some(uri),
        port: Some(port),
    })
}

fn bind_tcp(options: &Options) -> Result<Places, Mistake> {
    let wanted = options.port.as_deref();
    let port = wanted.map_or(Ok(PORT), port_of)?;
    let (addresses, lenient) = match &options.ip_addr {
        Some(name) => (addresses_of(name, port, options.family)?, false),
        None => (any_address(options.family), options.family == Family::Both),
    };
    let endpoints = listen::bind_tcp(&addresses, port, lenient).map_err(|error| {
        let why = reason(&error);
        let told = match error.kind() {
            ErrorKind::Busy => "unable to bind to any TCP/IP sockets\nnbdkit: socket error: ",
            _ => "bind: ",
        };
        Mistake::Plain(format!("{told}{why}"))
    })?;
    let port = endpoints.port().unwrap_or(port);
    messages::debug(&format!(
        "bound to IP address <any>:{port} ({} sockets)",
        addresses.len()
    ));
    let host = match wanted {
        Some(_) => format!("localhost:{port}"),
        None => "localhost".to_owned(),
    };
    let uri = uri(options, "", &host, "");
    Ok(Places {
        endpoints,
        uri: Some(uri),
        port: Some(port.into()),
    })
}

fn any_address(family: Family) -> Vec<IpAddr> {
    let (v6, v4) = (
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    );
    match family {
        Family::Both => vec![v6, v4],
        Family::V4 => vec![v4],
        Family::V6 => vec![v6],
    }
}

fn addresses_of(name: &OsStr, port: u16, family: Family) -> Result<Vec<IpAddr>, Mistake> {
    let shown = name.display();
    let wrong = |why: &str| Mistake::Plain(format!("getaddrinfo: {shown}: {port}: {why}"));
    let text = name
        .to_str()
        .ok_or_else(|| wrong("Name or service not known"))?;
    let found = (text, port)
        .to_socket_addrs()
        .map_err(|_| wrong("Name or service not known"))?;
    let mut addresses: Vec<IpAddr> = found
        .map(|address| address.ip())
        .filter(|address| match family {
            Family::Both => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        })
        .collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(wrong("Address family for hostname not supported"));
    }
    Ok(addresses)
}

/// A port by its number, or by its name in services(5).
fn port_of(text: &OsStr) -> Result<u16, Mistake> {
    let unknown = || {
        let shown = text.display();
        Mistake::Plain(format!(
            "getaddrinfo: <any>: {shown}: Servname not supported for ai_socktype"
        ))
    };
    let text = text.to_str().ok_or_else(unknown)?;
    if let Ok(port) = text.parse() {
        return Ok(port);
    }
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let mut lines = services
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let named = lines.find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, place) = (words.next()?, words.next()?);
        let port = place.strip_suffix("/tcp")?;
        (name == text || words.any(|alias| alias == text)).then(|| port.parse().ok())?
    });
    // The one name that must work everywhere.
    named
        .or((text == "nbd").then_some(PORT))
        .ok_or_else(unknown)
}

/// Why something could not be bound: the last word of the story.
fn reason(error: &Error) -> String {
    if error.kind() == ErrorKind::Busy {
        return "Address already in use".into();
    }
    let chain = error.chain();
    let last = chain.rsplit(": ").next().unwrap_or(&chain);
    // Without Rust's "(os error 2)".
    last.split(" (os error").next().unwrap_or(last).to_owned()
}

/// The NBD URI of the export named by `-e`.
fn uri(options: &Options, transport: &str, host: &str, query: &str) -> String {
    let scheme = if options.tls == Some(TlsMode::Require) {
        "nbds"
    } else {
        "nbd"
    };
    let mut uri = format!("{scheme}{transport}://{host}");
    if !options.export_name.is_empty() {
        uri.push('/');
        uri.push_str(&encode_path(Path::new(&options.export_name)));
    }
    let mut queries = vec![query.to_owned()];
    if options.tls == Some(TlsMode::Require) {
        queries.extend(tls_queries(&tls::config(options)));
    }
    queries.retain(|query| !query.is_empty());
    if !queries.is_empty() {
        uri.push('?');
        uri.push_str(&queries.join("&"));
    }
    uri
}

/// `text` in double quotes, as a word of the shell.
pub fn shell_quoted(text: &str) -> String {
    let mut word = String::from("\"");
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            word.push('\\');
        }
        word.push(character);
    }
    word.push('"');
    word
}

/// What socket activation hands over, if it was for us.
///
/// # Errors
/// A number that makes no sense.
pub fn activation() -> Result<Option<Vec<String>>, Mistake> {
    match activation::look() {
        Activation::None => Ok(None),
        Activation::NotOurs(why) => {
            messages::plain(&why);
            Ok(None)
        }
        Activation::Sockets(names) => Ok(Some(names)),
        Activation::TooMany(count) => Err(Mistake::Plain(format!(
            "LISTEN_FDS: {count} sockets are too many"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn options(words: &[&str]) -> Options {
        let parsed = super::super::options::parse(words.iter().map(OsString::from));
        parsed.unwrap_or_else(|mistake| panic!("{mistake:?}"))
    }

    #[test]
    fn uris_are_nbdkit_s() {
        for (words, transport, host, query, expected) in [
            (&[][..], "+unix", "", "socket=/s", "nbd+unix://?socket=/s"),
            (
                &["-e", "a b/c"],
                "+unix",
                "",
                "socket=/s",
                "nbd+unix:///a%20b/c?socket=/s",
            ),
            (&["-e", "x"], "", "localhost:1", "", "nbd://localhost:1/x"),
            (&[], "+vsock", "1", "", "nbd+vsock://1"),
            (
                &["--tls=require", "--tls-psk=/k"],
                "+unix",
                "",
                "socket=/s",
                "nbds+unix://?socket=/s&tls-psk-file=/k",
            ),
            (
                &["--tls=require", "--tls-certificates=/c"],
                "",
                "localhost",
                "",
                "nbds://localhost?tls-certificates=/c",
            ),
            (
                &["--tls=on", "--tls-psk=/k"],
                "",
                "localhost",
                "",
                "nbd://localhost",
            ),
        ] {
            assert_eq!(uri(&options(words), transport, host, query), expected);
        }
        assert_eq!(shell_quoted("a$`\"\\b"), "\"a\\$\\`\\\"\\\\b\"");
    }

    #[test]
    fn ports_have_numbers_and_names() {
        assert_eq!(port_of(OsStr::new("0")), Ok(0));
        assert_eq!(port_of(OsStr::new("nbd")), Ok(PORT));
        for wrong in ["", "xx", "-1", "65536"] {
            let Err(Mistake::Plain(text)) = port_of(OsStr::new(wrong)) else {
                panic!("{wrong} is no port")
            };
            assert!(
                text.ends_with("Servname not supported for ai_socktype"),
                "{text}"
            );
        }
    }
}
