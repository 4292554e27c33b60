//! virtio-blk devices, whatever the way to them.
//!
//! **What.** A [`Transport`] is that way: vhost-user, vhost-vdpa, VFIO. Everything else stands here
//! once: features, properties, memory regions and addresses, rings, requests.
//!
//! **Why so.** The three differ in how bytes of configuration are read and a ring is announced, and
//! in nothing that happens for each request.

mod transport;

#[expect(unused_imports, reason = "the drivers come next")]
pub(crate) use transport::{Kick, QueueSetup, RegionRules, Transport};
