//! Event descriptors (eventfd(2)) of a peer: a guest's kicks, and the calls to it.
//!
//! The peer has the same open file, so it can read what we wait for, fill what we write to, and hand
//! over something that is no eventfd at all. A loop must never wait in such a call: reads say that
//! they do not (RWF_NOWAIT), and writes go to a descriptor that was made not to (O_NONBLOCK). A peer
//! that takes that flag back and fills the counter in the same moment is the one thing that is left;
//! Linux has no write to an eventfd that cannot wait.

use std::{
    io::{self, IoSliceMut},
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::io::Io;

/// An event descriptor of a peer. Stays on its loop's thread.
pub struct PeerEvent {
    fd: Arc<OwnedFd>,
    io: Io,
}

impl Io {
    /// Takes over a descriptor that a peer gave.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn peer_event(&self, fd: OwnedFd) -> io::Result<PeerEvent> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(PeerEvent {
            fd: Arc::new(fd),
            io: self.clone(),
        })
    }
}

impl PeerEvent {
    /// Signals it. A counter that is full is a signal nobody has seen yet, and what cannot be
    /// signalled is the peer's loss.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Takes the signals there are. False if there were none.
    ///
    /// # Errors
    /// It is nothing that can be waited for.
    pub fn take(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        let mut room = [IoSliceMut::new(&mut count)];
        match preadv2(&self.fd, &mut room, u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a signal, and takes it. Dropped while it waits, it has taken none.
    ///
    /// # Errors
    /// As [`PeerEvent::take`].
    pub async fn wait(&self) -> io::Result<()> {
        while !self.take()? {
            self.io.readable(&self.fd).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DriverKind, Loop, Options};
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn signals_come_and_nobody_waits_for_a_full_counter() {
        for driver in [DriverKind::Auto, DriverKind::Poll] {
            let options = Options {
                driver,
                ..Options::default()
            };
            let mut turns = Loop::new(options).expect("a loop");
            let io = Io::of(turns.reactor());
            let fd = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
            let theirs = fd.try_clone().expect("a second");
            let event = io.peer_event(fd).expect("taken");
            assert!(!event.take().expect("nothing yet"));
            let reactor = turns.reactor().clone();
            turns.reactor().spawn(async move {
                reactor.sleep(std::time::Duration::from_millis(2)).await;
                rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()).expect("full");
            });
            turns.block_on(event.wait()).expect("a signal");
            // Full, and made to wait by the peer: a read does not.
            event.signal();
            assert!(event.take().expect("ours"));
            let flags = rustix::fs::fcntl_getfl(&event.fd).expect("flags");
            let blocking = flags - rustix::fs::OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(&event.fd, blocking).expect("set");
            assert!(!event.take().expect("nothing, at once"));
        }
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let mut turns = Loop::new(Options::default()).expect("a loop");
        let null = std::fs::File::open("/dev/null").expect("the system's");
        let event = Io::of(turns.reactor())
            .peer_event(null.into())
            .expect("taken");
        assert!(turns.block_on(event.wait()).is_err());
    }
}
