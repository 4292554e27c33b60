//! What the suites share: every test runs on both drivers.

use std::{os::fd::OwnedFd, os::unix::net::UnixStream, time::Duration};

use block::{Reactor, RecvBuf};
use reactor::{DriverKind, Io, Loop, Options, Pools, RingMode, SendBatch, Stream};

/// A loop of this kind, or `None` (and a line that says so) where the host refuses io_uring.
pub fn make(driver: DriverKind, mode: RingMode) -> Option<Loop> {
    let options = Options {
        driver,
        mode,
        pools: Pools::new(4, 2),
        ..Options::default()
    };
    match Loop::new(options) {
        Ok(made) => Some(made),
        Err(error) if driver == DriverKind::Uring => {
            println!("SKIP: io_uring refused: {}", error.chain());
            None
        }
        Err(error) => panic!("{}", error.chain()),
    }
}

/// Runs each test on both drivers.
#[macro_export]
macro_rules! on_both {
    ($($test:ident)*) => {
        mod uring {
            $(#[test] fn $test() {
                if let Some(made) = $crate::common::make(reactor::DriverKind::Uring, reactor::RingMode::Owned) {
                    super::$test(made);
                }
            })*
        }
        mod uring_foreign {
            $(#[test] fn $test() {
                if let Some(made) = $crate::common::make(reactor::DriverKind::Uring, reactor::RingMode::Foreign) {
                    super::$test(made);
                }
            })*
        }
        mod poll {
            $(#[test] fn $test() {
                let made = $crate::common::make(reactor::DriverKind::Poll, reactor::RingMode::Owned);
                super::$test(made.expect("epoll is always there"));
            })*
        }
    };
}

/// Small, repeatable random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// A connected pair of Unix sockets: one on the loop, one blocking in the test's hands.
pub fn unix_pair(reactor: &Reactor) -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    theirs
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    (Io::of(reactor).stream(OwnedFd::from(ours)).unwrap(), theirs)
}

/// A connected pair of streams on one loop.
pub fn both_ends(reactor: &Reactor) -> (Stream, Stream) {
    let (a, b) = UnixStream::pair().unwrap();
    let io = Io::of(reactor);
    (io.stream(a.into()).unwrap(), io.stream(b.into()).unwrap())
}

pub fn recv_buf(reactor: &Reactor, len: usize) -> RecvBuf {
    RecvBuf::new(reactor.chunk(len))
}

pub fn batch_of(bytes: &[u8]) -> SendBatch {
    let mut batch = SendBatch::new();
    batch.push_head(bytes);
    batch
}

/// Nothing is left behind.
pub fn assert_clean(made: &Loop) {
    let reactor = made.reactor();
    assert_eq!(reactor.requests_live(), 0, "requests");
    assert_eq!(reactor.counters().dropped.get(), 0, "requests dropped");
    assert_eq!(reactor.counters().panics.get(), 0, "panics");
    assert_eq!(reactor.chunks().live(), 0, "chunks");
}
