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
//!   back are cancelled. The end of a connection waits alike, so that nothing of it comes later; what
//!   was in flight then is left to the in-flight log, for the next connection.
//! * Where the guest does not know of a cache, every write is durable before it is answered.

mod config;
mod guest;
mod session;
mod vring;

pub use config::Options;

use std::sync::Arc;

use block::{Device, Normalize, Reactor, Result};
use reactor::FdStream;

/// A device that virtual machines may have as a disk.
pub struct Export {
    device: Arc<dyn Device>,
    options: Options,
}

impl Export {
    /// Of this device.
    pub fn new(device: Arc<dyn Device>, options: Options) -> Arc<Export> {
        Arc::new(Export {
            device: Normalize::wrap(device),
            options,
        })
    }

    /// Serves one front-end, until it goes. Everything it had in flight is over then.
    ///
    /// # Errors
    /// The front-end broke the protocol, or the device opens no queue.
    pub async fn serve(self: &Arc<Export>, reactor: &Reactor, stream: FdStream) -> Result<()> {
        session::serve(self, reactor, stream).await
    }
}
