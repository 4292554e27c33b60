//! Guest memory as a request's buffer. An island of `unsafe`.
#![allow(unsafe_code)]

use std::{any::Any, rc::Rc, sync::Arc};

use block::{
    Iov,
    data::{Pin, Segment},
};
use virtio::memory::{self, Memory, RegionMap};

use super::dirty::Logging;

/// A ring's way into guest memory, and what keeps that mapped under its requests.
pub(super) struct GuestMemory {
    memory: Memory,
    /// Holds the map of `memory`. The ring's own: counting on a map that all rings share would cost
    /// each request a fight between threads.
    pin: Rc<dyn Any>,
}

impl GuestMemory {
    pub(super) fn new(memory: Memory) -> GuestMemory {
        let pin: Rc<Arc<RegionMap>> = Rc::new(memory.map().clone());
        GuestMemory { memory, pin }
    }

    /// Notes what is written where that is wanted.
    pub(super) fn log_to(&mut self, logging: Option<&Logging>) {
        self.memory
            .set_log(logging.map(|logging| logging.log.clone()));
    }

    /// The pieces as a buffer that keeps all of the guest's memory mapped. `None` if one is not in it.
    #[inline]
    pub(super) fn iov(&self, pieces: &[memory::Segment]) -> Option<Iov> {
        // Looked up once more, nearly free, so that no piece of other memory can slip in.
        let known = |piece: &memory::Segment| {
            let found = self.memory.segment(piece.guest(), piece.len());
            found.is_some_and(|found| found.host() == piece.host())
        };
        if !pieces.iter().all(known) {
            return None;
        }
        let ranges = pieces.iter().map(|piece| Segment {
            ptr: piece.host(),
            len: piece.len() as usize,
        });
        let pin = Pin::Guest(self.pin.clone());
        // SAFETY: each range was just found in the map, which the pin keeps: mapped for reading and
        // writing, and initialised, as all of a file is.
        Some(unsafe { Iov::from_raw(ranges, pin, None) })
    }
}

impl std::ops::Deref for GuestMemory {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}
