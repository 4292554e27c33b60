//! Where clients connect: sockets are bound before any thread exists, and leave nothing behind.
//!
//! Loopback unless told otherwise. The file of a Unix socket is removed when the server ends, if
//! it is still the one that was made; a stale file of another server is never touched, because
//! nobody can tell it from one whose server is just starting.

use std::{
    fs::Permissions,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use block::{Error, ErrorKind, Result};
use tempfile::TempDir;

use crate::args::ServeArgs;

/// The port of NBD (IANA).
const NBD_PORT: u16 = 10809;

/// The longest name of a Unix socket, in bytes (`sun_path` without its final NUL).
const UNIX_PATH_MAX: usize = 107;

/// Bound sockets, and how clients name them.
pub struct Endpoints {
    sockets: Vec<OwnedFd>,
    uri: String,
    port: Option<u16>,
    /// Removed when dropped; before the directory it may be in.
    file: Option<SocketFile>,
    _directory: Option<TempDir>,
}

impl Endpoints {
    /// Binds what the options ask for.
    ///
    /// # Errors
    /// An address or path that cannot be used, or is in use.
    pub fn bind(options: &ServeArgs) -> Result<Endpoints> {
        let tcp = options.port.is_some() || !options.ip_addr.is_empty();
        match &options.unix {
            Some(path) if path.as_os_str() == "-" => bind_private(),
            Some(path) => bind_unix(path, None),
            None if options.run.is_some() && !tcp => bind_private(),
            None => bind_tcp(&options.ip_addr, options.port.unwrap_or(NBD_PORT)),
        }
    }

    /// The URI of the default export.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The TCP port, if there is one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The absolute path of the Unix socket, if there is one.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| &*file.path)
    }

    /// The listening sockets; whoever drops them closes them.
    pub fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }
}

/// The file of a Unix socket; removed when dropped.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: which file it was when it was made.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = self.path.symlink_metadata();
        if now.is_ok_and(|now| (now.dev(), now.ino()) == self.id) {
            // Nothing can be done about a failure while leaving.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind_unix(path: &Path, directory: Option<TempDir>) -> Result<Endpoints> {
    let cannot = |error| Error::io(format!("cannot listen on '{}'", path.display()), error);
    let length = path.as_os_str().len();
    if length > UNIX_PATH_MAX {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "the path of the Unix socket is {length} bytes long, but at most \
                 {UNIX_PATH_MAX} are possible"
            ),
        )
        .hint("use a shorter path, or one relative to the current directory"));
    }
    let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => in_the_way(path),
        _ => cannot(error),
    })?;
    let made = path.symlink_metadata().map_err(cannot)?;
    let file = SocketFile {
        path: std::path::absolute(path).map_err(cannot)?,
        id: (made.dev(), made.ino()),
    };
    Ok(Endpoints {
        sockets: vec![listener.into()],
        uri: format!("nbd+unix:///?socket={}", percent_encode(&file.path)),
        port: None,
        file: Some(file),
        _directory: directory,
    })
}

/// Why a path cannot be bound: something is there already.
fn in_the_way(path: &Path) -> Error {
    let what = format!(
        "cannot listen on '{}': address already in use",
        path.display()
    );
    let error = Error::new(ErrorKind::Busy, what);
    let is_socket = path
        .symlink_metadata()
        .is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return error.hint("a file that is no socket has this name; choose another name");
    }
    match UnixStream::connect(path) {
        Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
            error.hint("no server answers there: the file may be removed")
        }
        _ => error.hint("another server listens there; stop it or choose another path"),
    }
}

/// Binds a socket in a directory that only this user can enter.
fn bind_private() -> Result<Endpoints> {
    let mut parent = std::env::temp_dir();
    // The directory and the socket add at most this much to the name.
    if parent.as_os_str().len() + "/blkit-XXXXXX/socket".len() > UNIX_PATH_MAX {
        parent = "/tmp".into();
    }
    let directory = tempfile::Builder::new()
        .prefix("blkit-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(|error| {
            let what = format!("cannot make a directory in '{}'", parent.display());
            Error::io(what, error).hint("TMPDIR says where private sockets go")
        })?;
    let path = directory.path().join("socket");
    bind_unix(&path, Some(directory))
}

fn bind_tcp(addresses: &[IpAddr], port: u16) -> Result<Endpoints> {
    const LOOPBACK: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let by_default = addresses.is_empty();
    let addresses = if by_default { &LOOPBACK } else { addresses };
    // A port that is free on one address may be taken on the next: then the system picks another.
    let mut tries = if port == 0 { 16 } else { 1 };
    let (listeners, port) = loop {
        tries -= 1;
        match bind_all(addresses, port, by_default) {
            Err(error) if tries > 0 && error.kind() == ErrorKind::Busy => {}
            done => break done?,
        }
    };
    let host = match addresses.first() {
        Some(address) if !by_default && !address.is_unspecified() => *address,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let host = match host {
        IpAddr::V4(address) if address.is_loopback() && address == Ipv4Addr::LOCALHOST => {
            "localhost".to_owned()
        }
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let uri = match port {
        NBD_PORT => format!("nbd://{host}"),
        port => format!("nbd://{host}:{port}"),
    };
    Ok(Endpoints {
        sockets: listeners.into_iter().map(OwnedFd::from).collect(),
        uri,
        port: Some(port),
        file: None,
        _directory: None,
    })
}

/// Binds all addresses to one port, the first one's if it is 0. With `lenient`, addresses this
/// host does not have are left out, as long as one is there.
fn bind_all(addresses: &[IpAddr], port: u16, lenient: bool) -> Result<(Vec<TcpListener>, u16)> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut port = port;
    let mut missing = None;
    for &address in addresses {
        let address = SocketAddr::new(address, port);
        match TcpListener::bind(address) {
            Ok(listener) => {
                let bound = listener.local_addr();
                port = bound
                    .map_err(|error| Error::io(format!("cannot listen on {address}"), error))?
                    .port();
                listeners.push(listener);
            }
            Err(error) if lenient && is_missing(&error) => missing = Some((address, error)),
            Err(error) => return Err(tcp_error(address, error)),
        }
    }
    match missing {
        Some((address, error)) if listeners.is_empty() => Err(tcp_error(address, error)),
        _ => Ok((listeners, port)),
    }
}

/// This host has no such address: no IPv6, or no loopback in a container.
fn is_missing(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

fn tcp_error(address: SocketAddr, error: io::Error) -> Error {
    let kind = error.kind();
    let error = Error::io(format!("cannot listen on {address}"), error);
    match kind {
        io::ErrorKind::AddrInUse => {
            error.hint("another program listens there; '-p 0' lets the system pick a free port")
        }
        io::ErrorKind::PermissionDenied => error.hint("ports below 1024 need privileges"),
        io::ErrorKind::AddrNotAvailable => error.hint("this host has no such address"),
        _ => error,
    }
}

/// The path as the value of a URI's query (RFC 3986, section 3.4).
fn percent_encode(path: &Path) -> String {
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_goes_with_its_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a b%");
        let endpoints = bind_unix(&path, None).expect("binds");
        assert!(path.exists());
        assert!(
            endpoints.uri().ends_with("/a%20b%25"),
            "{}",
            endpoints.uri()
        );
        let error = bind_unix(&path, None).err().expect("in use");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("another server"))
        );
        drop(endpoints);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_or_foreign_file_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).expect("binds"));
        let error = bind_unix(&path, None).err().expect("stale");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("may be removed"))
        );
        assert!(path.exists());
        std::fs::remove_file(&path).expect("removes");

        std::fs::write(&path, "x").expect("writes");
        let error = bind_unix(&path, None).err().expect("a file");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("no socket"))
        );
        assert!(path.exists());
        std::fs::remove_file(&path).expect("removes");

        // Replaced while the server ran: not ours any more.
        let endpoints = bind_unix(&path, None).expect("binds");
        std::fs::rename(directory.path().join("s"), directory.path().join("t")).expect("renames");
        std::fs::write(&path, "x").expect("writes");
        drop(endpoints);
        assert!(path.exists());
    }

    #[test]
    fn a_private_socket_goes_with_its_directory() {
        let endpoints = bind_private().expect("binds");
        let socket = endpoints.unix_socket().expect("a path").to_owned();
        let directory = socket.parent().expect("a parent");
        let mode = directory.metadata().expect("exists").mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(endpoints);
        assert!(!directory.exists());
    }

    #[test]
    fn long_paths_are_refused_with_numbers() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let error = bind_unix(&path, None).err().expect("too long");
        assert!(error.chain().contains("125 bytes"), "{error:?}");
        assert!(error.chain().contains("107"), "{error:?}");
    }

    #[test]
    fn port_zero_is_one_port_on_all_addresses() {
        let mut endpoints = bind_tcp(&[], 0).expect("binds");
        let port = endpoints.port().expect("a port");
        assert_ne!(port, 0);
        assert_eq!(endpoints.uri(), format!("nbd://localhost:{port}"));
        let sockets = endpoints.take_sockets();
        assert!((1..=2).contains(&sockets.len()));
        let error = bind_tcp(&[], port).err().expect("in use");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("-p 0")));
        drop(sockets);
        bind_tcp(&["127.0.0.1".parse().expect("an address")], port).expect("free again");
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        // TEST-NET-1 (RFC 5737): nobody has it.
        let elsewhere = ["192.0.2.1".parse().expect("an address")];
        let error = bind_tcp(&elsewhere, 0).err().expect("not ours");
        assert!(error.chain().contains("192.0.2.1"), "{error:?}");
    }
}
