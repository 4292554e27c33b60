//! Disks whose bytes are computed from their place: the common part of `pattern`, `random` and
//! `sparse_random`.
//!
//! Reads compute, writes compare: a write that differs fails with `EIO` and says where. Zeroing is a
//! write of zeroes, and so is a discard: it would lose bytes that belong there. Short requests are
//! served in place; a long one would hold up every other client of the reactor, so it goes to the
//! pool for computing.

use std::{rc::Rc, sync::Arc};

use block::{
    Data, Errno, ExtentFlags, ExtentList, Flags, IoError, Iov, Limits, Op, OpSet, Outcome, Pool,
    Queue, Reactor, Request, Segments, SharedMem, Source,
};

use crate::single;

/// What a disk holds.
pub(crate) trait Content: Send + Sync + 'static {
    /// Computes the bytes from `offset` on.
    fn fill(&self, offset: u64, bytes: &mut [u8]);

    /// How many of the `len` bytes from `offset` on are known to be zero without computing them.
    fn zeroes(&self, _offset: u64, _len: u64) -> u64 {
        0
    }

    /// The extents of the `len` bytes from `offset` on; only the first if `one`.
    fn extents(&self, _offset: u64, len: u64, _one: bool) -> ExtentList {
        ExtentList::one(len, ExtentFlags::DATA)
    }
}

/// Requests longer than this, in bytes, are computed on the pool: about 100 us of work.
const INLINE: u64 = 1 << 20;

/// Bytes compared or copied per step.
const STEP: usize = 4096;

/// A source of one disk with this content.
pub(crate) fn source(
    name: &'static str,
    mut limits: Limits,
    content: impl Content,
) -> Arc<dyn Source> {
    limits.multi_conn = true;
    let (node, content) = (Arc::<str>::from(name), Arc::new(content));
    let ops = limits.offered();
    single::source(name, limits, move |reactor| {
        Rc::new(GeneratedQueue {
            ops,
            node: node.clone(),
            content: content.clone(),
            reactor: reactor.clone(),
        })
    })
}

struct GeneratedQueue<C> {
    ops: OpSet,
    node: Arc<str>,
    content: Arc<C>,
    reactor: Reactor,
}

impl<C: Content> Queue for GeneratedQueue<C> {
    fn submit(&self, req: Request) {
        match req.op() {
            op if !self.ops.contains(op) => req.fail(Errno::ENOTSUP),
            Op::Read => self.read(req),
            Op::Write => self.write(req),
            Op::WriteZeroes | Op::Discard => self.write_zeroes(req),
            Op::Flush | Op::Cache => req.done(),
            Op::Extents => self.extents(req),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

impl<C: Content> GeneratedQueue<C> {
    fn read(&self, mut req: Request) {
        let (offset, len) = (req.offset(), req.len() as usize);
        if self.content.zeroes(offset, req.len()) == req.len() {
            return req.give_zeroes();
        }
        if req.len() > INLINE {
            let (content, mut remote) =
                (self.content.clone(), req.into_remote(self.reactor.inbox()));
            return self.reactor.offload(Pool::Cpu, move || {
                let mut bytes = vec![0; len];
                content.fill(offset, &mut bytes);
                remote.give(bytes);
                remote.complete(Ok(()));
            });
        }
        if let Data::Iov(iov) = req.data() {
            self.read_into(iov, offset);
            return req.done();
        }
        let mut chunk = self.reactor.chunk(len);
        let bytes = chunk.as_mut_slice().expect("a fresh chunk has one owner");
        self.content.fill(offset, &mut bytes[..len]);
        *req.data_mut() = Data::Given(Segments::from(SharedMem::of_chunk(chunk, len)));
        req.done();
    }

    fn read_into(&self, iov: &Iov, offset: u64) {
        let mut step = [0; STEP];
        let mut at = 0;
        while at < iov.len() {
            let n = STEP.min(iov.len() - at);
            self.content.fill(offset + at as u64, &mut step[..n]);
            iov.write(at, &step[..n]);
            at += n;
        }
    }

    fn write(&self, req: Request) {
        let (offset, len) = (req.offset(), req.len());
        let Data::Iov(iov) = req.data() else {
            return req.fail(Errno::ENOTSUP);
        };
        if len <= INLINE {
            let place = difference(&*self.content, offset, len, |at, step| iov.read(at, step));
            return req.complete(verdict(place, &self.node));
        }
        let (content, node) = (self.content.clone(), self.node.clone());
        let remote = req.into_remote(self.reactor.inbox());
        self.reactor.offload(Pool::Cpu, move || {
            let place = difference(&*content, offset, len, |at, step| {
                remote.read_data(at, step)
            });
            remote.complete(verdict(place, &node));
        });
    }

    /// Zeroes are compared like any other bytes. Quick, whatever the length: behind what is known to
    /// be zero, the content differs from zero soon.
    fn write_zeroes(&self, req: Request) {
        if req.flags().contains(Flags::FAST_ZERO) {
            return req.fail(Errno::ENOTSUP);
        }
        let known = self.content.zeroes(req.offset(), req.len());
        let (offset, len) = (req.offset() + known, req.len() - known);
        let zeroes = |_: usize, step: &mut [u8]| step.fill(0);
        let place = difference(&*self.content, offset, len, zeroes);
        req.complete(verdict(place, &self.node));
    }

    fn extents(&self, mut req: Request) {
        let one = req.flags().contains(Flags::REQ_ONE);
        *req.data_mut() = Data::Extents(self.content.extents(req.offset(), req.len(), one));
        req.done();
    }
}

fn verdict(place: Option<u64>, node: &Arc<str>) -> Outcome {
    match place {
        None => Ok(()),
        Some(offset) => Err(IoError::because(
            Errno::EIO,
            node,
            format!("the byte written at offset {offset} is not the one that belongs there"),
        )),
    }
}

/// The bytes from `offset` on of a disk whose word at offset `8 * index` is `word(index)`.
#[inline]
pub(crate) fn fill_words(offset: u64, bytes: &mut [u8], word: impl Fn(u64) -> [u8; 8]) {
    let (index, skip) = (offset / 8, (offset % 8) as usize);
    let head = ((8 - skip) % 8).min(bytes.len());
    let (first, rest) = bytes.split_at_mut(head);
    if head > 0 {
        first.copy_from_slice(&word(index)[skip..skip + head]);
    }
    let mut index = index + u64::from(skip > 0);
    let mut words = rest.chunks_exact_mut(8);
    for place in &mut words {
        place.copy_from_slice(&word(index));
        index += 1;
    }
    let last = words.into_remainder();
    if !last.is_empty() {
        last.copy_from_slice(&word(index)[..last.len()]);
    }
}

/// The first offset in `offset..offset + len` where what `read` gives differs from the content.
fn difference<C: Content>(
    content: &C,
    offset: u64,
    len: u64,
    read: impl Fn(usize, &mut [u8]),
) -> Option<u64> {
    let (mut wanted, mut found) = ([0; STEP], [0; STEP]);
    let mut at = 0;
    while at < len {
        let n = (len - at).min(STEP as u64) as usize;
        content.fill(offset + at, &mut wanted[..n]);
        read(at as usize, &mut found[..n]);
        if wanted[..n] != found[..n] {
            let place = wanted.iter().zip(&found).position(|(a, b)| a != b);
            return place.map(|place| offset + at + place as u64);
        }
        at += n as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count;
    impl Content for Count {
        fn fill(&self, offset: u64, bytes: &mut [u8]) {
            fill_words(offset, bytes, |index| {
                std::array::from_fn(|i| (index as u8).wrapping_mul(8).wrapping_add(i as u8))
            });
        }
    }

    #[test]
    fn any_place_and_length_can_be_computed() {
        for offset in 0..20 {
            for len in 0..30 {
                let mut bytes = vec![0xff; len];
                Count.fill(offset, &mut bytes);
                let wanted: Vec<u8> = (offset as u8..).take(len).collect();
                assert_eq!(bytes, wanted, "{offset}+{len}");
            }
        }
    }

    #[test]
    fn the_first_difference_is_found() {
        for wrong in [0, 1, 4095, 4096, 9999] {
            let place = difference(&Count, 3, 10_000, |at, step| {
                Count.fill(3 + at as u64, step);
                if (at..at + step.len()).contains(&wrong) {
                    step[wrong - at] ^= 0xff;
                }
            });
            assert_eq!(place, Some(3 + wrong as u64));
        }
        let same = |at: usize, step: &mut [u8]| Count.fill(3 + at as u64, step);
        assert_eq!(difference(&Count, 3, 10_000, same), None);
    }
}
