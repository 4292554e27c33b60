//! Servers of others that tests run against.

use std::{fs, path::Path};

/// Whether somebody listens on the Unix socket of this path. Its file is there a moment earlier,
/// and who connects then is refused. Nobody is connected with: a server may serve one client only.
pub fn listens(path: impl AsRef<Path>) -> bool {
    /// A socket that accepts connections (`__SO_ACCEPTCON` of the kernel).
    const LISTENS: &str = "00010000";
    let path = path.as_ref().to_string_lossy();
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut words = line.split_ascii_whitespace();
        words.nth(3) == Some(LISTENS) && words.nth(3) == Some(&path)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::listens;

    #[test]
    fn a_socket_listens_from_then_on_and_until_it_is_closed() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("socket");
        assert!(!listens(&path));
        let socket = UnixListener::bind(&path).expect("binds");
        assert!(listens(&path));
        drop(socket);
        assert!(path.exists() && !listens(&path));
    }
}
