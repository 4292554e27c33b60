//! A disk for virtual machines: vhost-user-blk (virtio 1.3, 5.2; QEMU's vhost-user specification).
//!
//! **What.** [`Export`] is a device as a front-end sees it; [`Export::serve`] serves one connection.
//! The protocol is `virtio::vhost_user`, the rings are `virtio::ring`; here they meet the event loop
//! and the block layer.
//!
//! **Why so.** Reads land in the guest's memory and writes come from there: a request carries the
//! guest's own addresses and a pin that keeps them mapped. A ring takes its requests in batches,
//! completions of a turn are published by one store, and the guest is called at most once.
//!
//! **Contract.**
//! * What is in flight is bounded by the rings' sizes: nothing is allocated for a guest's sake beyond.
//! * A broken ring stops, alone, and its error descriptor is signalled. What breaks the protocol, and
//!   memory that is cut off, ends the connection and nothing else.
//! * A ring that is stopped answers when the last of its requests is done; those that a layer holds
//!   back are cancelled, and the next life of the ring takes them again if its base can say so. The
//!   end of a connection waits alike, so that nothing of it comes later; what was in flight then is
//!   left to the in-flight log, for the next connection.
//! * A front-end that may not attach ([`Sharing`]) is turned away at once.
//! * Where the guest does not know of a cache, every write is durable before it is answered.

mod channel;
mod config;
mod dirty;
mod guest;
mod memory;
mod remote;
mod requests;
mod session;
mod sharing;
mod vring;

pub use config::Options;
pub use sharing::Sharing;

use std::{future::poll_fn, os::fd::OwnedFd, pin::pin, sync::Arc, task::Poll, time::Duration};

use block::{Device, Error, Inbox, Normalize, Reactor, Result};
use reactor::{FdStream, Io, Listener};
use sharing::Seats;

/// A device that virtual machines may have as a disk.
pub struct Export {
    device: Arc<dyn Device>,
    options: Options,
    seats: Arc<Seats>,
}

/// How long nothing is accepted after an error: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Export {
    /// Of this device.
    pub fn new(device: Arc<dyn Device>, options: Options) -> Arc<Export> {
        Arc::new(Export {
            device: Normalize::wrap(device),
            options,
            seats: Arc::default(),
        })
    }

    /// Serves one front-end, until it goes. Everything it had in flight is over then. What it says is
    /// handled on this reactor, its ring `i` runs on reactor `i` modulo their number of `homes`, which
    /// may be this one alone.
    ///
    /// # Errors
    /// It may not attach now, or it broke the protocol.
    ///
    /// # Panics
    /// If there are no `homes`.
    pub async fn serve(
        self: &Arc<Export>,
        reactor: &Reactor,
        stream: FdStream,
        homes: &[Arc<Inbox>],
    ) -> Result<()> {
        assert!(!homes.is_empty(), "rings run somewhere");
        let sharing = match self.options.is_read_only(&self.device.limits()) {
            true => Sharing::Shared,
            false => self.options.sharing,
        };
        let (most, socket) = (self.options.max_front_ends, stream.remote());
        let seat = self.seats.take(reactor, &socket, sharing, most).await?;
        session::serve(self, reactor, stream, homes, seat).await
    }

    /// Accepts front-ends on `listener` until the export stops, and spreads them and their rings over
    /// the reactors behind `homes`.
    pub async fn accept_loop(
        self: &Arc<Export>,
        reactor: &Reactor,
        listener: Listener,
        homes: &[Arc<Inbox>],
    ) {
        let mut homes = homes.to_vec();
        loop {
            let accepted = {
                let mut stopped = pin!(self.seats.stopped());
                let mut accept = pin!(listener.accept(reactor));
                poll_fn(|cx| match stopped.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => accept.as_mut().poll(cx).map(Some),
                })
                .await
            };
            match accepted {
                None => return,
                Some(Ok(accepted)) => {
                    self.serve_socket(accepted.fd, &homes);
                    homes.rotate_left(1);
                }
                Some(Err(error)) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    reactor.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one connected socket on the first of these reactors, and its rings on all of them.
    pub fn serve_socket(self: &Arc<Export>, fd: OwnedFd, homes: &[Arc<Inbox>]) {
        let (export, all) = (self.clone(), homes.to_vec());
        homes[0].run(move |reactor| {
            let own = reactor.clone();
            reactor.spawn(async move {
                let served = match Io::of(&own).fd_stream(fd) {
                    Ok(stream) => export.serve(&own, stream, &all).await,
                    Err(error) => Err(Error::io("a front-end's socket is none", error)),
                };
                if let Err(error) = served {
                    tracing::debug!("{}", error.chain());
                }
            });
        });
    }

    /// Stops: nobody attaches any more; rings take nothing more, answer what is in flight, and the
    /// connections end.
    pub fn stop(&self) {
        self.seats.stop();
    }

    /// Waits until no front-end is there.
    pub async fn drained(&self) {
        self.seats.empty().await;
    }

    /// Front-ends that are attached.
    pub fn connections(&self) -> usize {
        self.seats.len()
    }
}
