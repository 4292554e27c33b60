//! A ring from where its session is: it may run on another reactor.
//!
//! Whatever is wanted of a ring goes there as mail, in order, and is awaited, also where session and
//! ring share a reactor: there is one way only.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use block::{Error, ErrorKind, Inbox, Job, Limits, Op, Queue, Reactor, Result};
use reactor::FdRemote;
use virtio::blk::ID_LEN;

use super::{
    Export,
    vring::{End, Parts, Vring},
};

/// What a session and its rings know together.
pub(super) struct Shared {
    pub(super) export: Arc<Export>,
    pub(super) id: [u8; ID_LEN],
    /// The front-end's connection.
    pub(super) socket: FdRemote,
    /// The disk's size in sectors.
    pub(super) capacity: AtomicU64,
    /// Writes must be durable before they are answered.
    pub(super) write_through: AtomicBool,
    pub(super) durability: Durability,
}

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// It says so itself.
    Fua,
    /// By a flush behind it.
    Flush,
    /// It is: there is no cache.
    Always,
}

impl Durability {
    pub(super) fn of(limits: &Limits) -> Durability {
        match (
            limits.fua.is_offered(),
            limits.support(Op::Flush).is_offered(),
        ) {
            (true, _) => Durability::Fua,
            (false, true) => Durability::Flush,
            (false, false) => Durability::Always,
        }
    }
}

impl Shared {
    /// The disk on this reactor: one queue for all rings that a session has there.
    ///
    /// # Errors
    /// As [`block::Device::open_queue`].
    pub(super) fn queue(self: &Arc<Shared>, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let key = Arc::as_ptr(self) as usize;
        if let Some(kept) = reactor.kept::<Rc<dyn Queue>>(key) {
            return Ok((*kept).clone());
        }
        let queue = self.export.device.open_queue(reactor)?;
        reactor.keep(key, Rc::new(queue.clone()));
        Ok(queue)
    }

    /// Forgets the queues, when no ring runs any more.
    pub(super) async fn close(self: &Arc<Shared>, homes: &[Arc<Inbox>]) {
        let closing: Vec<Job<()>> = homes
            .iter()
            .map(|home| {
                let (reply, job) = Job::new();
                let own = self.clone();
                home.run(move |reactor| {
                    reactor.forget(Arc::as_ptr(&own) as usize);
                    reply.set(());
                });
                job
            })
            .collect();
        for job in closing {
            // A reactor that is gone keeps nothing.
            let _ = job.await;
        }
    }

    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn write_through(&self) -> bool {
        self.write_through.load(Ordering::Acquire)
    }
}

/// A ring that runs.
pub(super) struct Remote {
    home: Arc<Inbox>,
    /// Its address names the ring on its reactor.
    key: Arc<()>,
    ended: bool,
}

impl Remote {
    /// Runs a ring on that reactor.
    ///
    /// # Errors
    /// What is missing there; a reactor that is gone.
    pub(super) async fn start(home: &Arc<Inbox>, parts: Parts) -> Result<Remote> {
        let remote = Remote {
            home: home.clone(),
            key: Arc::new(()),
            ended: false,
        };
        let (reply, started) = Job::new();
        let key = remote.key.clone();
        home.run(move |reactor| {
            let made = Vring::start(reactor, parts);
            reply.set(made.map(|vring| reactor.keep(Arc::as_ptr(&key) as usize, vring)));
        });
        let lost = |_| Error::new(ErrorKind::Gone, "a ring's event loop is gone");
        started.await.map_err(lost)??;
        Ok(remote)
    }

    /// Does something with the ring, where it is. The job is lost if its reactor is gone.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Rc<Vring>) -> T + Send + 'static,
    ) -> Job<T> {
        let (reply, job) = Job::new();
        let key = self.key.clone();
        self.home.run(move |reactor| {
            if let Some(vring) = reactor.kept::<Vring>(Arc::as_ptr(&key) as usize) {
                reply.set(ask(&vring));
            }
        });
        job
    }

    /// Ends the ring; the job's result is where it would go on.
    pub(super) fn end(mut self, how: End) -> Job<u32> {
        self.send_end(how)
    }

    fn send_end(&mut self, how: End) -> Job<u32> {
        self.ended = true;
        let (reply, job) = Job::new();
        let key = self.key.clone();
        self.home.run(move |reactor| {
            let place = Arc::as_ptr(&key) as usize;
            let Some(vring) = reactor.kept::<Vring>(place) else {
                return;
            };
            reactor.forget(place);
            reactor.spawn(async move { reply.set(vring.end(how).await) });
        });
        job
    }
}

impl Drop for Remote {
    /// Its session was dropped with its event loop.
    fn drop(&mut self) {
        if !self.ended {
            drop(self.send_end(End::Abandon));
        }
    }
}
