//! Where clients connect: sockets are bound before any thread exists, and leave nothing behind.
//!
//! Loopback unless told otherwise. The file of a Unix socket is removed when the server ends, if
//! it is still the one that was made. A stale file of another server is not touched for NBD, because
//! it may be anybody's. It is replaced for vhost-user, where front-ends wait for a server that comes
//! back to go on with what was in flight; our sockets listen before they have their name, so one that
//! is just starting is not taken for a stale one.

use std::{
    fs::Permissions,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use block::{Error, ErrorKind, Result};
use nbd::uri::{PORT, encode_path};
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};
use tempfile::TempDir;

/// The longest name of a Unix socket, in bytes (`sun_path` without its final NUL).
pub const UNIX_PATH_MAX: usize = 107;

/// Bound sockets, and how clients name them.
#[derive(Default)]
pub struct Endpoints {
    sockets: Vec<OwnedFd>,
    uri: String,
    port: Option<u16>,
    path: Option<PathBuf>,
    /// Removed when dropped; before the directory it may be in.
    file: Option<SocketFile>,
    _directory: Option<TempDir>,
}

impl Endpoints {
    /// Sockets that are listening, made by somebody else or here; nobody knows their URI.
    pub fn of_sockets(sockets: Vec<OwnedFd>) -> Endpoints {
        Endpoints {
            sockets,
            ..Endpoints::default()
        }
    }

    /// The file of the Unix socket stays when the server ends.
    pub fn keep_file(&mut self) {
        if let Some(mut file) = self.file.take() {
            file.keep = true;
        }
    }

    /// The URI of the default export.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Says in the URI that clients have to use TLS, and by these queries, with what.
    pub fn require_tls(&mut self, queries: &[String]) {
        let Some((scheme, rest)) = self.uri.split_once("://") else {
            return;
        };
        let secure = scheme.replacen("nbd", "nbds", 1);
        let mut uri = format!("{secure}://{rest}");
        for query in queries {
            uri.push_str(if uri.contains('?') { "&" } else { "/?" });
            uri.push_str(query);
        }
        self.uri = uri;
    }

    /// The TCP port, if there is one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The absolute path of the Unix socket, if there is one.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.path.as_deref()
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
    /// Not to be removed.
    keep: bool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let now = self.path.symlink_metadata();
        if now.is_ok_and(|now| (now.dev(), now.ino()) == self.id) {
            // Nothing can be done about a failure while leaving.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds a Unix socket; its file goes with the result.
///
/// # Errors
/// A path that cannot be used, or is in use.
pub fn bind_unix(path: &Path) -> Result<Endpoints> {
    bind_unix_in(path, None)
}

fn bind_unix_in(path: &Path, directory: Option<TempDir>) -> Result<Endpoints> {
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
        keep: false,
    };
    Ok(Endpoints {
        sockets: vec![listener.into()],
        uri: unix_uri(&file.path),
        port: None,
        path: Some(file.path.clone()),
        file: Some(file),
        _directory: directory,
    })
}

/// Binds a Unix socket as [`bind_unix`] does, in the place of a file that no server listens on any
/// more if there is one.
///
/// # Errors
/// A path that cannot be used, or is in use.
pub fn bind_unix_anew(path: &Path) -> Result<Endpoints> {
    let bound = bind_unix(path);
    let Err(busy) = bound else { return bound };
    let patience = Instant::now() + LINGERING;
    while is_lingering(path) && Instant::now() < patience {
        thread::sleep(Duration::from_millis(10));
    }
    match stale(path) {
        Some(stale) if busy.kind() == ErrorKind::Busy => replace(path, stale)?.ok_or(busy),
        _ => Err(busy),
    }
}

/// The kernel takes a killed server's ring apart some time after the process is gone, and keeps its
/// socket until then.
const LINGERING: Duration = Duration::from_secs(2);

/// Something listens there, but the process that made it listen is gone.
fn is_lingering(path: &Path) -> bool {
    let Ok(stream) = UnixStream::connect(path) else {
        return false;
    };
    sockopt::socket_peercred(&stream)
        .is_ok_and(|peer| rustix::process::test_kill_process(peer.pid) == Err(Errno::SRCH))
}

/// Which socket file has this name, if nobody listens on it.
fn stale(path: &Path) -> Option<(u64, u64)> {
    let file = path.symlink_metadata().ok()?;
    let refused = UnixStream::connect(path).err()?.kind() == io::ErrorKind::ConnectionRefused;
    (file.file_type().is_socket() && refused).then(|| (file.dev(), file.ino()))
}

/// Puts a socket in the place of the stale one, at once. `None` if another has come there meanwhile.
fn replace(path: &Path, stale: (u64, u64)) -> Result<Option<Endpoints>> {
    let name = path.file_name().unwrap_or_default().display();
    let beside = path.with_file_name(format!("{name}.{}", std::process::id()));
    let mut endpoints = bind_unix(&beside)?;
    let cannot = |error| Error::io(format!("cannot replace '{}'", path.display()), error);
    let swap = || rustix::fs::renameat_with(CWD, &beside, CWD, path, RenameFlags::EXCHANGE);
    swap().map_err(|error| cannot(error.into()))?;
    let displaced = beside.symlink_metadata().map_err(cannot)?;
    if (displaced.dev(), displaced.ino()) != stale {
        // It is removed under the other name when this is dropped.
        swap().map_err(|error| cannot(error.into()))?;
        return Ok(None);
    }
    std::fs::remove_file(&beside).map_err(cannot)?;
    let path = std::path::absolute(path).map_err(cannot)?;
    endpoints.uri = unix_uri(&path);
    if let Some(file) = &mut endpoints.file {
        file.path = path.clone();
    }
    endpoints.path = Some(path);
    Ok(Some(endpoints))
}

/// The URI of NBD on a Unix socket.
fn unix_uri(path: &Path) -> String {
    format!("nbd+unix:///?socket={}", encode_path(path))
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

/// Binds a socket in a directory of its own in `parent`, called `prefix` and six letters, that only
/// this user can enter.
///
/// # Errors
/// The directory cannot be made.
pub fn bind_private(parent: PathBuf, prefix: &str) -> Result<Endpoints> {
    let mut parent = parent;
    // The directory and the socket add at most this much to the name.
    if parent.as_os_str().len() + prefix.len() + "/XXXXXX/socket".len() > UNIX_PATH_MAX {
        parent = "/tmp".into();
    }
    let directory = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(|error| {
            let what = format!("cannot make a directory in '{}'", parent.display());
            Error::io(what, error).hint("TMPDIR says where private sockets go")
        })?;
    let path = directory.path().join("socket");
    bind_unix_in(&path, Some(directory))
}

/// The addresses that only this host reaches.
pub const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Binds one TCP port of all these addresses. With `lenient`, those that this host does not have are
/// left out, as long as one is there.
///
/// # Errors
/// An address that cannot be used, or is in use.
pub fn bind_tcp(addresses: &[IpAddr], port: u16, lenient: bool) -> Result<Endpoints> {
    // A port that is free on one address may be taken on the next: then the system picks another.
    let mut tries = if port == 0 { 16 } else { 1 };
    let (listeners, port) = loop {
        tries -= 1;
        match bind_all(addresses, port, lenient) {
            Err(error) if tries > 0 && error.kind() == ErrorKind::Busy => {}
            done => break done?,
        }
    };
    let host = match addresses.first() {
        Some(address) if !address.is_unspecified() => *address,
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
        PORT => format!("nbd://{host}"),
        port => format!("nbd://{host}:{port}"),
    };
    Ok(Endpoints {
        sockets: listeners.into_iter().map(OwnedFd::from).collect(),
        uri,
        port: Some(port),
        path: None,
        file: None,
        _directory: None,
    })
}

/// Binds all addresses to one port, the first one's if it is 0. With `lenient`, addresses this
/// host does not have are left out, as long as one is there.
fn bind_all(addresses: &[IpAddr], port: u16, lenient: bool) -> Result<(Vec<TcpListener>, u16)> {
    let mut listeners = Vec::with_capacity(addresses.len());
    // Alone, the unspecified address of IPv6 stands for both families.
    let v6_only = addresses.iter().any(IpAddr::is_ipv4);
    let mut port = port;
    let mut missing = None;
    for &address in addresses {
        let address = SocketAddr::new(address, port);
        match bind_one(address, v6_only) {
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

fn bind_one(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    if !v6_only || address.is_ipv4() {
        return TcpListener::bind(address);
    }
    let (family, flags) = (AddressFamily::INET6, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket.into())
}

/// Listens on a port of AF_VSOCK, for the virtual machines of this host and this host itself.
///
/// # Errors
/// The kernel has no vsock, or the port is in use.
pub fn bind_vsock(port: u32) -> Result<Endpoints> {
    let socket = reactor::daemon::listen_vsock(port)
        .map_err(|error| Error::io(format!("cannot listen on vsock port {port}"), error))?;
    Ok(Endpoints::of_sockets(vec![socket]))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_goes_with_its_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a b%");
        let endpoints = bind_unix(&path).expect("binds");
        assert!(path.exists());
        assert!(
            endpoints.uri().ends_with("/a%20b%25"),
            "{}",
            endpoints.uri()
        );
        let error = bind_unix(&path).err().expect("in use");
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
        let error = bind_unix(&path).err().expect("stale");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("may be removed"))
        );
        assert!(path.exists());
        std::fs::remove_file(&path).expect("removes");

        std::fs::write(&path, "x").expect("writes");
        let error = bind_unix(&path).err().expect("a file");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("no socket"))
        );
        assert!(path.exists());
        std::fs::remove_file(&path).expect("removes");

        // Replaced while the server ran: not ours any more.
        let endpoints = bind_unix(&path).expect("binds");
        std::fs::rename(directory.path().join("s"), directory.path().join("t")).expect("renames");
        std::fs::write(&path, "x").expect("writes");
        drop(endpoints);
        assert!(path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_where_that_is_wanted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let names = || std::fs::read_dir(directory.path()).expect("lists").count();
        drop(UnixListener::bind(&path).expect("binds"));
        let endpoints = bind_unix_anew(&path).expect("replaces");
        assert_eq!(endpoints.unix_socket(), Some(&*path));
        assert_eq!(names(), 1);
        UnixStream::connect(&path).expect("somebody listens");
        let error = bind_unix_anew(&path).err().expect("in use");
        assert_eq!(error.kind(), ErrorKind::Busy);
        drop(endpoints);
        assert_eq!(names(), 0);

        std::fs::write(&path, "x").expect("writes");
        bind_unix_anew(&path).err().expect("a file");
        assert_eq!(std::fs::read(&path).expect("reads"), b"x");
    }

    #[test]
    fn a_socket_that_came_meanwhile_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let _other = UnixListener::bind(&path).expect("binds");
        let gone = (0, 0);
        assert!(replace(&path, gone).expect("looks").is_none());
        UnixStream::connect(&path).expect("the other listens");
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("lists").count(),
            1
        );
    }

    #[test]
    fn a_private_socket_goes_with_its_directory() {
        let endpoints = bind_private(std::env::temp_dir(), "blkit-").expect("binds");
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
        let error = bind_unix(&path).err().expect("too long");
        assert!(error.chain().contains("125 bytes"), "{error:?}");
        assert!(error.chain().contains("107"), "{error:?}");
    }

    #[test]
    fn port_zero_is_one_port_on_all_addresses() {
        let mut endpoints = bind_tcp(&LOOPBACK, 0, true).expect("binds");
        let port = endpoints.port().expect("a port");
        assert_ne!(port, 0);
        assert_eq!(endpoints.uri(), format!("nbd://localhost:{port}"));
        endpoints.require_tls(&["tls-psk-file=/k".to_owned()]);
        assert_eq!(
            endpoints.uri(),
            format!("nbds://localhost:{port}/?tls-psk-file=/k")
        );
        let sockets = endpoints.take_sockets();
        assert!((1..=2).contains(&sockets.len()));
        let error = bind_tcp(&LOOPBACK, port, true).err().expect("in use");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("-p 0")));
        drop(sockets);
        bind_tcp(&LOOPBACK[..1], port, false).expect("free again");
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        // TEST-NET-1 (RFC 5737): nobody has it.
        let elsewhere = ["192.0.2.1".parse().expect("an address")];
        let error = bind_tcp(&elsewhere, 0, false).err().expect("not ours");
        assert!(error.chain().contains("192.0.2.1"), "{error:?}");
    }
}
