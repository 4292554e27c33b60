//! The thread that learns when a server goes away, and looks for the next one.

use std::{
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{Server, session::Session};
use crate::drivers::virtio_blk::{Link, Reason};

/// Between two attempts to find a server.
const PAUSE: Duration = Duration::from_millis(20);

/// Watches until it is stopped, or the server is gone for good.
pub(super) fn run(server: &Weak<Mutex<Server>>, link: &Link, socket: OwnedFd, stop: &OwnedFd) {
    let mut socket = socket;
    loop {
        let mut fds = [
            PollFd::new(&socket, PollFlags::RDHUP),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) if fds[0].revents().is_empty() => continue,
            Err(Errno::INTR) => continue,
            _ => {}
        }
        link.away();
        match again(server, stop) {
            Some(next) => socket = next,
            None => {
                let (errno, text) = (Errno::NOTCONN, c"the vhost-user server is gone");
                return link.gone(Reason { errno, text });
            }
        }
        link.back();
    }
}

/// Finds the next server in time.
fn again(server: &Weak<Mutex<Server>>, stop: &OwnedFd) -> Option<OwnedFd> {
    let begin = Instant::now();
    loop {
        {
            let server = server.upgrade()?;
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            server.session = None;
            if begin.elapsed() >= server.reconnect {
                return None;
            }
            let session = Session::connect(&server.path, server.patience);
            if let Ok(session) = session
                && let Ok(socket) = session.socket().try_clone_to_owned()
                && server.restore(session).is_ok()
            {
                return Some(socket);
            }
        }
        let pause = Timespec::try_from(PAUSE).ok();
        let mut fds = [PollFd::new(stop, PollFlags::IN)];
        if poll(&mut fds, pause.as_ref()).is_ok_and(|ready| ready > 0) {
            return None;
        }
    }
}
