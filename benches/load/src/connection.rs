//! One connection: a fixed number of requests, each issued again as soon as it is answered.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nbd::{
    Mode,
    client::{Pending, Replies, Reply, Request, encode_request},
    proto,
};

use crate::{latency::Histogram, net::Socket, outbox::Outbox};

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// One write for each read, by chance.
    Mixed,
}

/// What requests to make. The same for all connections, save `start` and `seed`.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// What to ask for.
    pub mix: Mix,
    /// Choose blocks at random; else one after the other.
    pub random: bool,
    /// Bytes of a request.
    pub block: u64,
    /// Blocks of the range that is used.
    pub blocks: u64,
    /// First block of a sequential run.
    pub start: u64,
    /// For offsets and the mix; not 0.
    pub seed: u64,
    /// Add up the bytes of reads.
    pub checksum: bool,
    /// Take the time of one request in so many.
    pub sample: u64,
}

/// What was done.
#[derive(Default)]
pub struct Totals {
    /// Requests answered.
    pub requests: u64,
    /// Bytes read or written by them.
    pub bytes: u64,
    /// Bytes of reads that came as holes.
    pub hole_bytes: u64,
    /// Error replies.
    pub errors: u64,
    /// Receiving system calls.
    pub receives: u64,
    /// Sending system calls.
    pub sends: u64,
    /// Sum of the 64-bit words of reads, if wanted.
    pub checksum: u64,
    /// Latencies of the sampled requests.
    pub latency: Histogram,
}

/// See the [module](self).
pub struct Connection {
    pub socket: Socket,
    mode: Mode,
    pattern: Pattern,
    replies: Replies,
    slots: Vec<Slot>,
    free: Vec<u32>,
    outbox: Outbox,
    /// Bytes of a reply's head that came without the rest.
    carry: Vec<u8>,
    /// Payload bytes still to come, and whose reply ends with them.
    skip: u64,
    finishing: Option<u64>,
    /// Requests that may still be made.
    quota: u64,
    next: u64,
    random: u64,
    pub totals: Totals,
}

struct Slot {
    pending: Option<Pending>,
    length: u64,
    start: Option<Instant>,
    failed: bool,
}

impl Connection {
    /// Over a connection in the transmission phase.
    pub fn new(socket: Socket, mode: Mode, pattern: Pattern, depth: u32, quota: u64) -> Connection {
        let empty = || Slot {
            pending: None,
            length: 0,
            start: None,
            failed: false,
        };
        Connection {
            socket,
            mode,
            replies: Replies::new(mode),
            slots: (0..depth).map(|_| empty()).collect(),
            free: (0..depth).rev().collect(),
            outbox: Outbox::default(),
            carry: Vec::new(),
            skip: 0,
            finishing: None,
            quota,
            next: pattern.start,
            random: pattern.seed,
            pattern,
            totals: Totals::default(),
        }
    }

    /// Makes as many requests as may be in flight.
    pub fn issue(&mut self) -> Result<()> {
        while self.quota != 0
            && let Some(slot) = self.free.pop()
        {
            self.quota -= 1;
            self.request(slot)?;
        }
        Ok(())
    }

    /// Makes no more requests.
    pub fn stop(&mut self) {
        self.quota = 0;
    }

    /// Everything was answered, and nothing more will be asked.
    pub fn is_done(&self) -> bool {
        self.quota == 0 && self.free.len() == self.slots.len()
    }

    /// Sends what the socket takes. Returns whether nothing is left to send.
    pub fn flush(&mut self, payload: &[u8]) -> Result<bool> {
        let done = self.outbox.flush(&self.socket, payload).context("send")?;
        self.totals.sends = self.outbox.calls;
        Ok(done)
    }

    /// How many bytes of an earlier receive have to stand before those of the next one.
    pub fn carried(&self) -> &[u8] {
        &self.carry
    }

    /// Takes what was received; `bytes` begins with what was [carried](Connection::carried).
    pub fn received(&mut self, bytes: &[u8]) -> Result<()> {
        self.carry.clear();
        let mut at = 0;
        loop {
            if self.skip != 0 {
                let now = self.skip.min((bytes.len() - at) as u64) as usize;
                if self.pattern.checksum {
                    self.totals.checksum =
                        self.totals.checksum.wrapping_add(sum(&bytes[at..at + now]));
                }
                (at, self.skip) = (at + now, self.skip - now as u64);
                if self.skip != 0 {
                    return Ok(());
                }
                if let Some(cookie) = self.finishing.take() {
                    self.finish(cookie);
                }
            }
            let slots = &mut self.slots;
            let (used, reply) = self.replies.input(&bytes[at..], |cookie| {
                slots
                    .get_mut(usize::try_from(cookie).ok()?)?
                    .pending
                    .as_mut()
            })?;
            at += used;
            let Some(reply) = reply else { break };
            self.reply(reply)?;
        }
        self.carry.extend_from_slice(&bytes[at..]);
        Ok(())
    }

    #[inline]
    fn reply(&mut self, reply: Reply<'_>) -> Result<()> {
        let (cookie, last) = match reply {
            Reply::Data {
                cookie,
                length,
                last,
                ..
            } => {
                self.skip = length;
                self.finishing = last.then_some(cookie);
                return Ok(());
            }
            Reply::Hole {
                cookie,
                length,
                last,
                ..
            } => {
                self.totals.hole_bytes += length;
                (cookie, last)
            }
            Reply::Error { cookie, last, .. } => {
                self.totals.errors += 1;
                self.slots[cookie as usize].failed = true;
                (cookie, last)
            }
            Reply::Done { cookie } => (cookie, true),
            Reply::BlockStatus { .. } => bail!("block status was not asked for"),
        };
        if last {
            self.finish(cookie);
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, cookie: u64) {
        let slot = &mut self.slots[cookie as usize];
        slot.pending = None;
        if let Some(start) = slot.start.take() {
            self.totals.latency.add(start.elapsed());
        }
        if !std::mem::take(&mut slot.failed) {
            self.totals.requests += 1;
            self.totals.bytes += slot.length;
        }
        self.free.push(cookie as u32);
    }

    #[inline]
    fn request(&mut self, slot: u32) -> Result<()> {
        let Pattern {
            mix,
            random,
            block,
            blocks,
            sample,
            ..
        } = self.pattern;
        let number = self.next;
        self.next += 1;
        // xorshift64: cheap, and good enough to leave no trace of order.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let place = if random { self.random >> 8 } else { number } % blocks;
        let write = match mix {
            Mix::Read => false,
            Mix::Write => true,
            Mix::Mixed => self.random & 1 != 0,
        };
        let request = Request {
            command: if write {
                proto::CMD_WRITE
            } else {
                proto::CMD_READ
            },
            flags: 0,
            cookie: slot.into(),
            offset: place * block,
            length: block,
        };
        let head = encode_request(self.mode, &request).context("the block size is too large")?;
        self.outbox
            .push(&head, if write { block as usize } else { 0 });
        let slot = &mut self.slots[slot as usize];
        slot.pending = Some(Pending::new(&request, 0));
        slot.length = block;
        slot.start = number.is_multiple_of(sample).then(Instant::now);
        Ok(())
    }
}

/// Checks that a pattern can be asked of an export.
pub fn check(pattern: &Pattern, connected: &nbd::client::Connected) -> Result<()> {
    let Pattern {
        mix, block, blocks, ..
    } = *pattern;
    ensure!(
        blocks != 0,
        "the export, or --range, is smaller than a block"
    );
    ensure!(
        block * blocks <= connected.size,
        "--range is larger than the export"
    );
    let read_only = connected.flags & proto::FLAG_READ_ONLY != 0;
    ensure!(mix == Mix::Read || !read_only, "the export is read-only");
    Ok(())
}

fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0u64, |sum, word| {
        sum.wrapping_add(u64::from_le_bytes(*word))
    });
    rest.iter()
        .fold(words, |sum, byte| sum.wrapping_add((*byte).into()))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    use nbd::server::transmission::{RequestHeader, parse_request};

    use super::*;

    fn pair(mode: Mode, mix: Mix, depth: u32, quota: u64) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let pattern = Pattern {
            mix,
            random: true,
            block: 512,
            blocks: 100,
            start: 0,
            seed: 1,
            checksum: true,
            sample: 1,
        };
        let socket = Socket::from(OwnedFd::from(ours));
        (Connection::new(socket, mode, pattern, depth, quota), theirs)
    }

    fn requests(theirs: &mut UnixStream, count: usize) -> Vec<RequestHeader> {
        let mut all = Vec::new();
        while all.len() < count {
            let mut head = [0; 28];
            theirs.read_exact(&mut head).unwrap();
            let (request, _) = parse_request(&head, false).unwrap().unwrap();
            let mut payload = vec![0; request.payload as usize];
            theirs.read_exact(&mut payload).unwrap();
            all.push(request);
        }
        all
    }

    fn receive(client: &mut Connection, bytes: &[u8], piece: usize) -> Result<()> {
        for piece in bytes.chunks(piece) {
            let mut buf = client.carried().to_vec();
            buf.extend_from_slice(piece);
            client.received(&buf)?;
        }
        Ok(())
    }

    #[test]
    fn replies_in_any_pieces_and_order() {
        for piece in [1, 7, 100, 100_000] {
            let (mut client, mut server) = pair(Mode::Structured, Mix::Mixed, 8, 12);
            let payload = [7; 512];
            client.issue().unwrap();
            assert!(client.flush(&payload).unwrap());
            let mut replies = Vec::new();
            for (n, request) in requests(&mut server, 8).iter().rev().enumerate() {
                let to = request.reply(Mode::Structured);
                match request.command {
                    proto::CMD_WRITE => replies.extend_from_slice(&to.success()),
                    _ if n % 2 == 0 => {
                        replies.extend_from_slice(&to.data(request.offset, 512, true));
                        replies.extend_from_slice(&[1; 512]);
                    }
                    _ => replies.extend_from_slice(&to.hole(request.offset, 512, true)),
                }
            }
            receive(&mut client, &replies, piece).unwrap();
            assert_eq!((client.totals.requests, client.totals.bytes), (8, 8 * 512));
            assert!(!client.is_done());
            client.issue().unwrap();
            assert!(client.flush(&payload).unwrap());
            let mut replies = Vec::new();
            for request in requests(&mut server, 4) {
                let head = request.reply(Mode::Structured).failure(proto::EIO);
                replies.extend_from_slice(&head);
            }
            receive(&mut client, &replies, piece).unwrap();
            assert_eq!((client.totals.requests, client.totals.errors), (8, 4));
            assert!(client.is_done());
        }
    }

    #[test]
    fn a_reply_to_nothing_is_an_error() {
        let (mut client, mut server) = pair(Mode::Simple, Mix::Read, 2, 2);
        client.issue().unwrap();
        client.flush(&[]).unwrap();
        let mut request = requests(&mut server, 1)[0];
        request.cookie = 77;
        server
            .write_all(&request.reply(Mode::Simple).failure(proto::EIO))
            .unwrap();
        let mut buf = [0; 100];
        let n = (&client.socket).read(&mut buf).unwrap();
        assert!(client.received(&buf[..n]).is_err());
    }

    #[test]
    fn sums_do_not_depend_on_alignment_of_pieces() {
        let bytes: Vec<u8> = (0..64).collect();
        assert_eq!(
            sum(&bytes),
            sum(&bytes[..16]).wrapping_add(sum(&bytes[16..]))
        );
        assert_eq!(sum(&[1, 0, 0, 0, 0, 0, 0, 0, 2]), 3);
    }
}
