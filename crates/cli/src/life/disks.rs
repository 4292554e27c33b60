//! Disks for virtual machines: opened once, when the server starts, and served to the front-ends
//! that connect.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use block::{
    Access, Client, Device, Error, ErrorKind, Host, Inbox, OpenContext, Reactor, Result, Source,
};
use exports::vhost_user_blk::{Export, Options};
use reactor::{Io, Listener};

use super::listen::Endpoints;

/// A disk that is to be served.
pub struct Plan {
    /// Which export of the source.
    pub export: String,
    /// What guests are told of it.
    pub options: Options,
    /// Where front-ends connect.
    pub endpoints: Endpoints,
    /// A front-end that is connected already.
    pub connected: Option<OwnedFd>,
}

/// A disk that is served.
pub struct Disk {
    device: Arc<dyn Device>,
    export: Arc<Export>,
    read_only: bool,
    front_ends: Mutex<FrontEnds>,
}

/// Whoever is connected.
#[derive(Default)]
struct FrontEnds {
    next: u64,
    stopping: bool,
    /// Copies of their sockets, to end the connections by.
    open: HashMap<u64, OwnedFd>,
    watchers: Vec<Waker>,
}

impl Disk {
    /// Opens the disk, for as long as the server lives.
    ///
    /// # Errors
    /// What the source says.
    pub async fn open(
        reactor: &Reactor,
        source: &Arc<dyn Source>,
        host: Arc<dyn Host>,
        plan: &Plan,
    ) -> Result<Arc<Disk>> {
        let access = match plan.options.read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        let client = Client {
            peer: "vhost-user".to_owned(),
            ..Client::default()
        };
        let context = OpenContext {
            client: Arc::new(client),
            export: plan.export.as_str().into(),
            access,
            reactor: reactor.clone(),
            host,
        };
        let device = source.open(&context).await?;
        let writes = device.limits().support(block::Op::Write).is_offered();
        Ok(Arc::new(Disk {
            export: Export::new(device.clone(), plan.options.clone()),
            device,
            read_only: plan.options.read_only || !writes,
            front_ends: Mutex::default(),
        }))
    }

    /// Accepts on `listener` until the server stops, and sends the connections round robin to the
    /// reactors behind `homes`.
    pub async fn accept_loop(
        self: &Arc<Disk>,
        reactor: &Reactor,
        listener: Listener,
        homes: &[Arc<Inbox>],
    ) {
        let mut next = homes.iter().cycle();
        loop {
            let accepted = {
                let mut accept = pin!(listener.accept(reactor));
                std::future::poll_fn(|cx| {
                    if self.watch(cx.waker()).stopping {
                        return Poll::Ready(None);
                    }
                    accept.as_mut().poll(cx).map(Some)
                })
                .await
            };
            match accepted {
                None => return,
                Some(Ok(accepted)) => match self.admit(&accepted.fd) {
                    Ok(member) => {
                        let home = next.next().expect("there is a loop");
                        home.run(move |reactor| member.start(reactor, accepted.fd));
                    }
                    Err(error) => tracing::warn!("{}", error.chain()),
                },
                Some(Err(error)) => {
                    tracing::warn!("cannot accept a vhost-user connection: {error}");
                    reactor.sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves one connected socket on this reactor, to its end.
    ///
    /// # Errors
    /// It cannot be served.
    pub async fn serve_socket(self: &Arc<Disk>, reactor: &Reactor, fd: OwnedFd) -> Result<()> {
        let member = self.admit(&fd)?;
        member.serve(reactor, fd).await
    }

    fn admit(self: &Arc<Disk>, fd: &OwnedFd) -> Result<Member> {
        let copy = fd
            .try_clone()
            .map_err(|error| Error::io("cannot serve a vhost-user front-end", error))?;
        let mut front_ends = self.lock();
        if !self.read_only && !front_ends.open.is_empty() {
            let what = "a second vhost-user front-end is turned away: the disk can be written";
            return Err(Error::new(ErrorKind::Busy, what));
        }
        front_ends.next += 1;
        let id = front_ends.next;
        front_ends.open.insert(id, copy);
        drop(front_ends);
        Ok(Member {
            disk: self.clone(),
            id,
        })
    }

    /// Nothing more is accepted, and connections end.
    pub fn stop(&self) {
        let mut front_ends = self.lock();
        front_ends.stopping = true;
        for fd in front_ends.open.values() {
            // It may have ended by itself.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
        front_ends.watchers.drain(..).for_each(Waker::wake);
    }

    /// Waits until no front-end is connected.
    pub async fn drained(&self) {
        std::future::poll_fn(|cx| match self.watch(cx.waker()).open.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Releases the device.
    ///
    /// # Errors
    /// What was written may not have reached the disk.
    pub async fn close(&self, reactor: &Reactor) -> Result<()> {
        self.device.close(reactor).await
    }

    /// Has `waker` woken when a front-end goes or the server stops.
    fn watch(&self, waker: &Waker) -> MutexGuard<'_, FrontEnds> {
        let mut front_ends = self.lock();
        if !front_ends
            .watchers
            .iter()
            .any(|known| known.will_wake(waker))
        {
            front_ends.watchers.push(waker.clone());
        }
        front_ends
    }

    fn lock(&self) -> MutexGuard<'_, FrontEnds> {
        self.front_ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A front-end's place in the list; gives it up when dropped.
struct Member {
    disk: Arc<Disk>,
    id: u64,
}

impl Member {
    fn start(self, reactor: &Reactor, fd: OwnedFd) {
        let home = reactor.clone();
        reactor.spawn(async move {
            if let Err(error) = self.serve(&home, fd).await {
                tracing::debug!("front-end {}: {}", self.id, error.chain());
            }
        });
    }

    async fn serve(&self, reactor: &Reactor, fd: OwnedFd) -> Result<()> {
        let stream = Io::of(reactor)
            .fd_stream(fd)
            .map_err(|error| Error::io("this is no Unix socket", error))?;
        self.disk.export.serve(reactor, stream).await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut front_ends = self.disk.lock();
        front_ends.open.remove(&self.id);
        let watchers = std::mem::take(&mut front_ends.watchers);
        drop(front_ends);
        watchers.into_iter().for_each(Waker::wake);
    }
}
