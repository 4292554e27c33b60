//! Guest memory as a request's buffer. An island of `unsafe`.
#![allow(unsafe_code)]

use block::{
    Iov,
    data::{Pin, Segment},
};
use virtio::memory::{self, Memory};

/// The pieces as a buffer that keeps all of the guest's memory mapped. `None` if one is not in it.
pub(super) fn iov(memory: &Memory, pieces: &[memory::Segment]) -> Option<Iov> {
    // Looked up once more, nearly free, so that no piece of other memory can slip in.
    let known = |piece: &memory::Segment| {
        let found = memory.segment(piece.guest(), piece.len());
        found.is_some_and(|found| found.host() == piece.host())
    };
    if !pieces.iter().all(known) {
        return None;
    }
    let ranges = pieces.iter().map(|piece| Segment {
        ptr: piece.host(),
        len: piece.len() as usize,
    });
    let pin = Pin::Guest(memory.map().clone());
    // SAFETY: each range was just found in the map, which the pin keeps: mapped for reading and
    // writing, and initialised, as all of a file is.
    Some(unsafe { Iov::from_raw(ranges, pin, None) })
}
