//! Simulated connections: bytes arrive in pieces, late, or never.
//!
//! [`SimNet::pair`] makes two connected [`Stream`]s between two simulated reactors (or one). A real
//! network promises only that bytes arrive in order, and so does this one: what was sent in one
//! batch arrives in pieces of any size, each after its delay, some after a stall; a slow reader
//! makes the sender wait; and the connection may be reset in the middle of anything.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use block::{Iov, Reactor, RecvBuf, Tick};

use super::Rng;
use crate::{
    batch::SendBatch,
    stream::{Endpoint, Stream},
};

/// How a simulated connection behaves.
#[derive(Clone, Debug)]
pub struct SimNet {
    /// Seed of its choices.
    pub seed: u64,
    /// The longest piece that arrives at once, in bytes; 0 for no limit.
    pub fragment: usize,
    /// A piece takes up to this long.
    pub delay: Duration,
    /// One piece in so many takes ten times `delay` more; 0 for none.
    pub stall_one_in: u64,
    /// The connection is reset when about so many bytes have been sent one way; 0 for never.
    pub reset_after: u64,
    /// Bytes that may be under way one way before the sender has to wait.
    pub window: usize,
}

impl SimNet {
    /// Pieces of up to 4 KiB, up to 50 us each, 256 KiB under way; no stalls, no resets.
    pub fn new(seed: u64) -> SimNet {
        SimNet {
            seed,
            fragment: 4096,
            delay: Duration::from_micros(50),
            stall_one_in: 0,
            reset_after: 0,
            window: 256 << 10,
        }
    }

    /// Two streams, each the other's peer, on these reactors of one simulated world.
    pub fn pair(&self, a: &Reactor, b: &Reactor) -> (Stream, Stream) {
        let mut rng = Rng::new(self.seed);
        let mut way = || Way {
            left: match self.reset_after {
                0 => u64::MAX,
                n => rng.range(n / 2..n + n / 2 + 1),
            },
            ..Way::default()
        };
        let ways = [way(), way()];
        let connection = Rc::new(RefCell::new(Connection {
            net: self.clone(),
            rng,
            ways,
            reset: false,
        }));
        let end = |side: usize, reactor: &Reactor| {
            Stream::of_endpoint(Rc::new(End {
                connection: connection.clone(),
                side,
                reactor: reactor.clone(),
            }))
        };
        (end(0, a), end(1, b))
    }
}

struct Connection {
    net: SimNet,
    rng: Rng,
    /// By the side that sends.
    ways: [Way; 2],
    reset: bool,
}

/// One direction.
#[derive(Default)]
struct Way {
    pieces: VecDeque<Piece>,
    under_way: usize,
    last: Tick,
    /// Bytes until the connection is reset.
    left: u64,
    /// The sender sends no more.
    ended: bool,
    /// The receiver takes no more.
    closed: bool,
    receiver: Option<Waker>,
    senders: Vec<Waker>,
}

struct Piece {
    at: Tick,
    bytes: Vec<u8>,
    taken: usize,
}

/// One end of a connection.
struct End {
    connection: Rc<RefCell<Connection>>,
    side: usize,
    reactor: Reactor,
}

impl Connection {
    fn wake_all(&mut self) -> Vec<Waker> {
        let wakers = self.ways.iter_mut().flat_map(|way| {
            let receiver = way.receiver.take();
            receiver.into_iter().chain(way.senders.drain(..))
        });
        wakers.collect()
    }

    fn send(&mut self, side: usize, now: Tick, bytes: &[u8]) {
        let (net, way) = (&self.net, &mut self.ways[side]);
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = match net.fragment {
                0 => rest.len(),
                n => 1 + self.rng.index(n.min(rest.len())),
            };
            let most = most.min(usize::try_from(way.left).unwrap_or(usize::MAX));
            let (piece, later) = rest.split_at(most);
            rest = later;
            way.left = way.left.saturating_sub(piece.len() as u64);
            let mut delay = self.rng.delay(net.delay);
            if net.stall_one_in > 0 && self.rng.chance(1, net.stall_one_in) {
                delay += net.delay * 10;
            }
            way.last = way.last.max(now.after(delay));
            way.under_way += piece.len();
            way.pieces.push_back(Piece {
                at: way.last,
                bytes: piece.into(),
                taken: 0,
            });
            if way.left == 0 {
                self.reset = true;
                return;
            }
        }
    }
}

impl End {
    fn clock(&self) -> Tick {
        self.reactor.ops().clock()
    }

    /// Takes what has arrived: `copy` is shown bytes and says how many it took.
    fn poll_take(
        &self,
        cx: &mut Context<'_>,
        copy: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        let mut connection = self.connection.borrow_mut();
        if connection.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let way = &mut connection.ways[1 - self.side];
        if way.closed {
            return Poll::Ready(Ok(0));
        }
        let Some(piece) = way.pieces.front_mut() else {
            if way.ended {
                return Poll::Ready(Ok(0));
            }
            way.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if piece.at > self.clock() {
            let at = piece.at;
            way.receiver = Some(cx.waker().clone());
            drop(connection);
            self.reactor.ops().timer(at, cx.waker().clone());
            return Poll::Pending;
        }
        let n = copy(&piece.bytes[piece.taken..]);
        piece.taken += n;
        if piece.taken == piece.bytes.len() {
            way.pieces.pop_front();
        }
        way.under_way -= n;
        let senders = std::mem::take(&mut way.senders);
        drop(connection);
        senders.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(n))
    }

    /// Ends both directions.
    fn end(&self) {
        let mut connection = self.connection.borrow_mut();
        connection.ways[self.side].ended = true;
        let back = &mut connection.ways[1 - self.side];
        back.closed = true;
        back.under_way = 0;
        back.pieces.clear();
        let wakers = connection.wake_all();
        drop(connection);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Endpoint for End {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut RecvBuf) -> Poll<io::Result<usize>> {
        self.poll_take(cx, &mut |bytes| {
            let n = bytes.len().min(buf.room());
            // SAFETY: the spare room has at least `n` bytes, is the buffer's own (so it cannot
            // overlap the piece), and the buffer is lent to us.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.spare_ptr(), n) }
            buf.filled(n);
            n
        })
    }

    fn poll_fill(&self, cx: &mut Context<'_>, iov: &Iov, at: usize) -> Poll<io::Result<usize>> {
        self.poll_take(cx, &mut |bytes| {
            let n = bytes.len().min(iov.len() - at);
            iov.write(at, &bytes[..n]);
            n
        })
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = self.connection.borrow_mut();
        if connection.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let window = connection.net.window;
        let way = &mut connection.ways[self.side];
        if way.ended || way.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if way.under_way > window {
            way.senders.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn take(&self, mut batch: SendBatch) -> SendBatch {
        let mut connection = self.connection.borrow_mut();
        connection.send(self.side, self.clock(), &batch.to_vec());
        let wakers = match connection.reset {
            true => connection.wake_all(),
            false => connection.ways[self.side]
                .receiver
                .take()
                .into_iter()
                .collect(),
        };
        drop(connection);
        batch.clear();
        wakers.into_iter().for_each(Waker::wake);
        batch
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(cx)
    }

    fn shutdown(&self) {
        self.end();
    }

    fn peer(&self) -> String {
        "simulated".into()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimWorld;

    fn batch(bytes: &[u8]) -> SendBatch {
        let mut batch = SendBatch::new();
        batch.push_head(bytes);
        batch
    }

    async fn recv_all(r: &Reactor, stream: &Stream) -> (Vec<u8>, io::Result<usize>) {
        let mut all = Vec::new();
        loop {
            let (buf, result) = stream.recv(RecvBuf::new(r.chunk(512))).await;
            all.extend_from_slice(buf.data());
            match result {
                Ok(n) if n > 0 => {}
                end => return (all, end),
            }
        }
    }

    /// Sends `bytes` from reactor 0 to reactor 1, which receives until the end.
    fn send(net: SimNet, bytes: &[u8]) -> (Vec<u8>, io::Result<usize>, u64) {
        let world = SimWorld::new(net.seed, 2);
        let (near, far) = net.pair(world.reactor(0), world.reactor(1));
        let data = bytes.to_vec();
        world.reactor(0).spawn(async move {
            for part in data.chunks(700) {
                if near.send(batch(part)).await.1.is_err() {
                    return;
                }
            }
        });
        let r = world.reactor(1).clone();
        let (all, end) = world.block_on(1, recv_all(&r, &far));
        (all, end, world.digest())
    }

    #[test]
    fn bytes_arrive_in_order_in_pieces() {
        let mut bytes = vec![0; 20_000];
        Rng::new(1).fill(&mut bytes);
        for seed in 0..10 {
            let mut net = SimNet::new(seed);
            net.fragment = 1 + seed as usize * 100;
            net.stall_one_in = 5;
            net.window = 1000;
            let (all, end, digest) = send(net.clone(), &bytes);
            assert!(all == bytes, "seed {seed}");
            assert_eq!(end.unwrap(), 0, "the other end is gone");
            assert_eq!(digest, send(net, &bytes).2, "same seed, same digest");
        }
    }

    #[test]
    fn a_reset_ends_both_sides() {
        let mut net = SimNet::new(3);
        net.reset_after = 5000;
        let (all, end, _) = send(net, &[7; 20_000]);
        assert!(all.len() < 8000);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_slow_reader_makes_the_sender_wait_and_shutdown_ends_it() {
        let world = SimWorld::new(1, 1);
        let r = world.reactor(0).clone();
        let mut net = SimNet::new(1);
        net.window = 10;
        let (near, far) = net.pair(&r, &r);
        assert!(near.try_send(batch(&[1; 100])).is_ok());
        assert!(
            near.try_send(batch(&[2; 100])).is_err(),
            "the window is full"
        );
        let waiting = near.clone();
        r.spawn(async move {
            let error = waiting.send(batch(b"x")).await.1.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
        world.advance(Duration::from_secs(1));
        assert_eq!(world.tasks(0), 1);
        far.shutdown();
        world.run_until_idle();
        assert_eq!((world.tasks(0), r.counters().panics.get()), (0, 0));
        let (_, end) = world.block_on(0, far.recv(RecvBuf::new(r.chunk(1))));
        assert_eq!(end.unwrap(), 0);
    }

    #[test]
    fn exact_receives_fill_and_notice_the_end() {
        let world = SimWorld::new(1, 1);
        let r = world.reactor(0).clone();
        let (near, far) = SimNet::new(1).pair(&r, &r);
        let iov = Iov::of_chunk(r.chunk(8), 8);
        world.block_on(0, async {
            near.send(batch(b"abcdefgh")).await.1.unwrap();
            let (iov, result) = far.recv_exact(iov, 0).await;
            result.unwrap();
            assert_eq!(iov.to_vec(), b"abcdefgh");
            near.send(batch(b"abc")).await.1.unwrap();
            drop(near);
            let (_, result) = far.recv_exact(iov, 0).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        });
    }
}
