//! The dirty log: which pages of the guest's memory were written, for a guest that is moved while it
//! runs (vhost-user: SET_LOG_BASE, VHOST_F_LOG_ALL).
//!
//! A page is marked after it was written and before the guest can learn of it. Too much may be marked,
//! never too little: of a ring all that the device writes, whatever it wrote just now.

use std::sync::Arc;

use block::{Data, Pin};
use reactor::PeerEvent;
use virtio::memory::{DirtyLog, RegionMap};

/// What a ring needs in order to log.
pub(super) struct Logging {
    pub(super) log: DirtyLog,
    /// The parts of the ring that the device writes: guest addresses and lengths.
    pub(super) written: Vec<(u64, u64)>,
    /// Signalled when something was logged.
    pub(super) told: Option<PeerEvent>,
}

impl Logging {
    /// Something of the ring may have been written.
    pub(super) fn ring_written(&self) {
        for (guest, len) in &self.written {
            self.log.mark(*guest, *len);
        }
    }

    /// The data of a read that has ended, well or not. It may have begun before there was a log, and
    /// on memory that has been replaced since.
    pub(super) fn data_written(&self, data: &Data, now: &RegionMap) {
        let Data::Iov(iov) = data else {
            return self.mark_all(now);
        };
        let map = match iov.pin() {
            Pin::Guest(pin) => pin.downcast_ref::<Arc<RegionMap>>(),
            _ => None,
        };
        for piece in iov.segments() {
            match map.and_then(|map| map.guest_of(piece.ptr, piece.len as u64)) {
                Some(guest) => self.log.mark(guest, piece.len as u64),
                None => self.mark_all(now),
            }
        }
    }

    fn mark_all(&self, map: &RegionMap) {
        for region in map.regions() {
            self.log.mark(region.guest(), region.len());
        }
    }

    /// Tells the front-end, if it wants to know.
    pub(super) fn tell(&self) {
        if let Some(told) = &self.told {
            told.signal();
        }
    }
}
