//! Event descriptors (eventfd(2)) of a peer: a guest's kicks, and the calls to it.
//!
//! The peer has the same open file, so it can read what we wait for, fill what we write to, and hand
//! over something that is no eventfd at all. A loop must never wait in such a call: reads say that
//! they do not (RWF_NOWAIT), and writes go to a descriptor that was made not to (O_NONBLOCK). A peer
//! that takes that flag back and fills the counter in the same moment is the one thing that is left;
//! Linux has no write to an eventfd that cannot wait.
//!
//! *Why it is not read.* A guest kicks many thousand times a second, and each time it is the loop's
//! wait that costs. So the descriptor is watched, and tells of each signal when it comes; the
//! counter is left alone. It counts to 2^64.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSliceMut},
    os::fd::OwnedFd,
    sync::Arc,
    task::Poll,
};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::io::{Io, Watch};

/// An event descriptor of a peer. Stays on its loop's thread.
pub struct PeerEvent {
    fd: Arc<OwnedFd>,
    io: Io,
    /// Since the first wait.
    watch: RefCell<Option<Watch>>,
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
            watch: RefCell::default(),
        })
    }
}

impl PeerEvent {
    /// Signals it. A counter that is full is a signal nobody has seen yet, and what cannot be
    /// signalled is the peer's loss.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Takes the signals that are there, by the counter. False if there were none.
    fn take(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        let mut room = [IoSliceMut::new(&mut count)];
        match preadv2(&self.fd, &mut room, u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a signal that came since the last one that was waited for. Dropped while it waits, it
    /// has taken none. One task may wait at a time.
    ///
    /// # Errors
    /// It is nothing that can be waited for.
    pub async fn wait(&self) -> io::Result<()> {
        if self.watch.borrow().is_none() {
            if self.take()? {
                return Ok(());
            }
            *self.watch.borrow_mut() = Some(self.io.watch(self.fd.clone()));
        }
        poll_fn(|cx| {
            let mut watch = self.watch.borrow_mut();
            let told = watch.as_ref().map(|watch| watch.poll(cx));
            match told {
                Some(Poll::Ready(Ok(true))) => Poll::Ready(Ok(())),
                Some(Poll::Pending) => Poll::Pending,
                // The next wait begins anew.
                Some(Poll::Ready(ended)) => {
                    *watch = None;
                    Poll::Ready(ended.map(drop))
                }
                None => Poll::Ready(Ok(())),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DriverKind, Loop, Options};
    use rustix::event::{EventfdFlags, eventfd};
    use std::future::Future;

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
    fn every_signal_ends_a_wait_once() {
        for driver in [DriverKind::Auto, DriverKind::Poll] {
            let options = Options {
                driver,
                ..Options::default()
            };
            let mut turns = Loop::new(options).expect("a loop");
            let fd = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
            let theirs = Arc::new(fd.try_clone().expect("a second"));
            let event = Io::of(turns.reactor()).peer_event(fd).expect("taken");
            let signal = |count: u64| {
                rustix::io::write(&theirs, &count.to_ne_bytes()).expect("signalled");
            };
            // Before the first wait, and between two of them.
            for _ in 0..3 {
                signal(1);
                turns.block_on(event.wait()).expect("a signal");
            }
            for _ in 0..3 {
                let (later, theirs) = (turns.reactor().clone(), theirs.clone());
                turns.reactor().spawn(async move {
                    later.sleep(std::time::Duration::from_millis(2)).await;
                    rustix::io::write(&theirs, &1u64.to_ne_bytes()).expect("signalled");
                });
                turns.block_on(event.wait()).expect("a signal");
            }
            // One that was waited for is gone, whatever the counter says.
            let reactor = turns.reactor().clone();
            let silence = std::time::Duration::from_millis(20);
            let heard = turns.block_on(async {
                let mut sleep = std::pin::pin!(reactor.sleep(silence));
                let mut wait = std::pin::pin!(event.wait());
                poll_fn(|cx| match wait.as_mut().poll(cx) {
                    Poll::Ready(told) => Poll::Ready(Some(told)),
                    Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
                })
                .await
            });
            assert!(heard.is_none(), "{heard:?}");
            signal(1);
            turns.block_on(event.wait()).expect("a signal");
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
