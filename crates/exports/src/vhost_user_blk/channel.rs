//! What we tell a front-end unasked, on a channel it gave us (SET_BACKEND_REQ_FD): that configuration
//! space has changed, which is how a guest learns that its disk has another size.
//!
//! The other end need not read, nor answer. A task of its own waits for that, so the session never
//! does; and changes that come meanwhile are one change. Whatever goes wrong ends the channel alone.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use block::Reactor;
use reactor::{FdStream, Io};
use virtio::vhost_user::{BackChannel, Outgoing, Refused};

/// A channel to a front-end. Closed when dropped.
pub(super) struct Channel(Rc<Inner>);

struct Inner {
    stream: FdStream,
    /// Configuration has changed and nobody was told.
    changed: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

/// What there is to do.
enum Next {
    Tell,
    Received(usize),
}

impl Channel {
    /// Takes over the descriptor; `acks` if the front-end acknowledges.
    ///
    /// # Errors
    /// It is no Unix socket.
    pub(super) fn open(reactor: &Reactor, fd: OwnedFd, acks: bool) -> Result<Channel, Refused> {
        let stream = Io::of(reactor).fd_stream(fd).map_err(|_| Refused::Failed)?;
        let inner = Rc::new(Inner {
            stream,
            changed: Cell::new(false),
            task: RefCell::default(),
        });
        let running = inner.clone();
        reactor.spawn(async move {
            if let Err(error) = running.run(BackChannel::new(acks)).await {
                tracing::debug!("the channel to a front-end is closed: {error}");
            }
            running.stream.shutdown();
        });
        Ok(Channel(inner))
    }

    /// Tells the front-end, soon.
    pub(super) fn config_changed(&self) {
        self.0.changed.set(true);
        if let Some(task) = self.0.task.take() {
            task.wake();
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.0.stream.shutdown();
    }
}

impl Inner {
    async fn run(&self, mut machine: BackChannel<OwnedFd>) -> std::io::Result<()> {
        let mut out: Vec<Outgoing<OwnedFd>> = Vec::new();
        let mut buf = [0; 64];
        loop {
            let wanted = machine.wanted().min(buf.len());
            match self.next(&mut buf[..wanted]).await? {
                Next::Tell => machine.config_changed(&mut out),
                Next::Received(0) => return Ok(()),
                Next::Received(n) => {
                    let got = machine.input(&buf[..n], &mut out);
                    got.map_err(std::io::Error::other)?;
                }
            }
            for message in out.drain(..) {
                let fds: Vec<BorrowedFd<'_>> = message.fds.iter().map(AsFd::as_fd).collect();
                self.stream.send(&message.bytes, &fds).await?;
            }
        }
    }

    async fn next(&self, buf: &mut [u8]) -> std::io::Result<Next> {
        // Descriptors that come with an answer are closed.
        let mut fds = Vec::new();
        let mut received = pin!(self.stream.recv(buf, &mut fds));
        poll_fn(|cx| {
            if self.changed.replace(false) {
                return Poll::Ready(Ok(Next::Tell));
            }
            *self.task.borrow_mut() = Some(cx.waker().clone());
            received.as_mut().poll(cx).map_ok(Next::Received)
        })
        .await
    }
}
