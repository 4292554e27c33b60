//! Requests in: bulk receive, parse, check, submit.
//!
//! One receive takes as many requests as the socket holds. The buffer grows while it is filled to
//! the brim and shrinks when it is not, so an idle connection holds a small one. A write's payload
//! goes down from where it was received; only a payload that was cut in two by the end of the
//! buffer is put together elsewhere, and the missing part is received right into its place.

use std::{future::Future, pin::pin, rc::Rc, task::Poll};

use block::{Counters as Copies, Data, Flags, Iov, Op, RecvBuf};
use nbd::{
    proto,
    server::transmission::{
        Command, ContextSet, RequestHeader, check, parse_request, parse_status_payload,
    },
};
use transport::{SMALL_BUFFER, Sizing};

use super::{
    connection::{Connection, Credits},
    reply::Answer,
    server::{Ask, Counters},
};

/// Room that is worth a receive, in bytes; with less the buffer is replaced.
const LEAST_ROOM: usize = 2 << 10;

/// Bytes that reads may ask for in one go, and that may wait to be sent when the next ones ask.
/// What is in the page cache is read at once: without this bound, all that a client asks for would
/// be read before any of it is sent, through memory that no cache holds. Slower disks have as much
/// in flight as the credits allow.
const READ_WINDOW: u64 = 1 << 20;

/// Bytes of a payload that are received in one go, into memory of that size. So what a client only
/// announces takes no memory, a long payload lets others have their turn, and the memory is of a
/// size that is used again.
const PIECE: usize = 1 << 20;

/// Requests of fewer bytes may be cut in two: to put them together costs nothing.
const LEAST_UNIT: usize = 1 << 10;

/// Payloads of more bytes are received in memory of their own, shorter ones with what else comes.
const BULK_PAYLOAD: usize = 128 << 10;

/// The client is gone, or broke the rules: nothing it sent can be trusted.
struct Lost;

/// Reads requests until the client leaves, breaks the rules, or we are asked to stop.
pub(super) async fn run(conn: &Rc<Connection>, buf: RecvBuf) {
    let mut reader = Reader {
        conn,
        buf,
        large_payloads: false,
        unit: 0,
        sizing: Sizing::default(),
        burst: 0,
    };
    if reader.run().await.is_err() {
        conn.break_off();
    }
}

struct Reader<'a> {
    conn: &'a Rc<Connection>,
    buf: RecvBuf,
    /// The last write had a large payload, so a large buffer would only add a copy.
    large_payloads: bool,
    /// Bytes of the last request, payload and all: the next ones often have as many.
    unit: usize,
    sizing: Sizing,
    /// Bytes of reads since completions had their chance.
    burst: u64,
}

impl Reader<'_> {
    async fn run(&mut self) -> Result<(), Lost> {
        let extended = self.conn.mode().is_extended();
        loop {
            loop {
                let parsed = parse_request(self.buf.data(), extended);
                let Some((header, len)) = parsed.map_err(|v| self.violation(&v))? else {
                    break;
                };
                if self.conn.asked() != Ask::Nothing {
                    return Ok(());
                }
                self.buf.consume(len);
                self.unit = len + header.payload as usize;
                if self.one(&header).await? {
                    return Ok(());
                }
            }
            self.make_room();
            match self.receive().await {
                None => return Ok(()),
                Some(0) => {
                    tracing::debug!("client closed input socket, closing connection");
                    return Err(Lost);
                }
                Some(_) => {}
            }
        }
    }

    /// Serves one request. Returns true if it was the client's goodbye.
    async fn one(&mut self, header: &RequestHeader) -> Result<bool, Lost> {
        let command = match check(header, &self.conn.served.get()) {
            Ok(command) => command,
            Err(refusal) => {
                self.skip(refusal.payload).await?;
                let bytes = self.charge(0).await;
                Answer::new(header, bytes).refuse(self.conn, refusal.error, refusal.text);
                return Ok(false);
            }
        };
        match command {
            Command::Disconnect => {
                tracing::debug!("client sent NBD_CMD_DISC, closing connection");
                return Ok(true);
            }
            Command::Write {
                offset,
                length,
                fua,
            } => {
                self.write(header, offset, length, fua).await?;
            }
            Command::BlockStatus {
                offset,
                length,
                req_one,
            } => {
                let all = ContextSet::all(self.conn.contexts.len());
                self.status(header, offset, length, req_one, all).await;
            }
            Command::BlockStatusPayload {
                offset,
                payload,
                req_one,
            } => {
                self.status_payload(header, offset, payload, req_one)
                    .await?;
            }
            plain => self.plain(header, plain).await,
        }
        Ok(false)
    }

    /// Serves a request without a payload, other than a block status.
    #[inline]
    async fn plain(&mut self, header: &RequestHeader, command: Command) {
        let (op, offset, len, flags) = match command {
            Command::Read { offset, length, .. } => {
                (Op::Read, offset, u64::from(length), Flags::NONE)
            }
            Command::Trim {
                offset,
                length,
                fua,
            } => (Op::Discard, offset, length, fua_flag(fua)),
            Command::Cache { offset, length } => (Op::Cache, offset, length, Flags::NONE),
            Command::WriteZeroes {
                offset,
                length,
                fua,
                no_hole,
                fast,
            } => {
                let no_hole = if no_hole { Flags::NO_HOLE } else { Flags::NONE };
                let fast = if fast { Flags::FAST_ZERO } else { Flags::NONE };
                (
                    Op::WriteZeroes,
                    offset,
                    length,
                    fua_flag(fua) | no_hole | fast,
                )
            }
            // The others have gone their own ways.
            _ => (Op::Flush, 0, 0, Flags::NONE),
        };
        let (data, bytes) = match op {
            Op::Read => {
                self.read_window(len).await;
                (Data::Wanted, len)
            }
            _ => (Data::None, 0),
        };
        let bytes = self.charge(bytes).await;
        self.submit(Answer::new(header, bytes), (op, offset, len), flags, data);
    }

    #[inline]
    fn submit(&self, answer: Answer, (op, offset, len): (Op, u64, u64), flags: Flags, data: Data) {
        let mut req = self.conn.reactor.request(op, offset, len);
        req.set_flags(flags);
        *req.data_mut() = data;
        let conn = self.conn.clone();
        req.on_complete(move |done| answer.complete(&conn, done));
        self.conn.queue.submit(req);
    }

    async fn write(
        &mut self,
        header: &RequestHeader,
        offset: u64,
        length: u32,
        fua: bool,
    ) -> Result<(), Lost> {
        let bytes = self.charge(u64::from(length)).await;
        let data = match self.payload(length as usize).await {
            Ok(data) => data,
            Err(lost) => {
                // There will be no reply to give them back.
                self.conn.release(Credits { requests: 1, bytes });
                return Err(lost);
            }
        };
        let answer = Answer::new(header, bytes);
        let range = (Op::Write, offset, u64::from(length));
        self.submit(answer, range, fua_flag(fua), data.into());
        Ok(())
    }

    async fn status(
        &mut self,
        header: &RequestHeader,
        offset: u64,
        length: u64,
        req_one: bool,
        contexts: ContextSet,
    ) {
        let bytes = self.charge(0).await;
        let answer = Answer::new(header, bytes).for_contexts(contexts, length);
        let flags = if req_one { Flags::REQ_ONE } else { Flags::NONE };
        self.submit(answer, (Op::Extents, offset, length), flags, Data::None);
    }

    async fn status_payload(
        &mut self,
        header: &RequestHeader,
        offset: u64,
        payload: u32,
        req_one: bool,
    ) -> Result<(), Lost> {
        let payload = self.payload(payload as usize).await?.to_vec();
        let (served, contexts) = (self.conn.served.get(), &self.conn.contexts);
        match parse_status_payload(&payload, offset, &served, contexts) {
            Ok((length, set)) => self.status(header, offset, length, req_one, set).await,
            Err(refusal) => {
                let bytes = self.charge(0).await;
                Answer::new(header, bytes).refuse(self.conn, refusal.error, refusal.text);
            }
        }
        Ok(())
    }

    /// Waits until a read of so many bytes fits the window.
    #[inline]
    async fn read_window(&mut self, len: u64) {
        if self.burst > 0 && self.burst + len > READ_WINDOW {
            let mut given = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut given, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            self.burst = 0;
            self.conn.unsent(READ_WINDOW.saturating_sub(len)).await;
        }
        self.burst += len;
    }

    /// Takes credits for a request with so many bytes of data, waiting for them if need be.
    #[inline]
    async fn charge(&self, bytes: u64) -> u64 {
        if !self.conn.has_credit(bytes) {
            self.conn.credit(bytes).await;
        }
        self.conn.take_credit(bytes);
        bytes
    }

    /// The payload of the request just parsed.
    #[inline]
    async fn payload(&mut self, len: usize) -> Result<Iov, Lost> {
        if self.buf.data().len() >= len {
            self.large_payloads = false;
            return Ok(self.buf.take(len).into());
        }
        self.large_payloads = len > BULK_PAYLOAD;
        let first = self.piece(len.min(PIECE)).await?;
        if len <= PIECE {
            return Ok(first);
        }
        let mut pieces = vec![first];
        let mut received = PIECE;
        while received < len {
            let next = (len - received).min(PIECE);
            pieces.push(self.piece(next).await?);
            received += next;
        }
        Ok(Iov::gather(&pieces))
    }

    /// The next `len` bytes of a payload, in their own memory.
    #[inline]
    async fn piece(&mut self, len: usize) -> Result<Iov, Lost> {
        let iov = Iov::of_chunk(self.conn.reactor.chunk(len), len);
        let here = self.buf.data();
        let have = here.len().min(len);
        iov.write(0, &here[..have]);
        Copies::add(&self.conn.reactor.counters().bytes_copied, have as u64);
        self.buf.consume(have);
        let (iov, received) = self.conn.transport.recv_exact(iov, have).await;
        received.map(|()| iov).map_err(|_| Lost)
    }

    /// Reads and drops the payload of a request that is refused.
    async fn skip(&mut self, len: u64) -> Result<(), Lost> {
        let mut left = len;
        loop {
            let here = left.min(self.buf.data().len() as u64);
            self.buf.consume(here as usize);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.make_room();
            if self.receive().await.is_none_or(|n| n == 0) {
                return Err(Lost);
            }
        }
    }

    /// Makes the buffer ready for the next receive: rewound, or replaced by one of the right size.
    fn make_room(&mut self) {
        let capacity = self.buf.capacity();
        let wanted = match self.large_payloads {
            true => SMALL_BUFFER,
            false => self.sizing.wanted(capacity),
        };
        let rewound = self.buf.rewind();
        self.buf.limit_to(usize::MAX);
        if wanted != capacity || (!rewound && self.buf.room() < LEAST_ROOM) {
            let left = self.buf.data().len();
            let copied = self
                .buf
                .move_to(self.conn.reactor.chunk(wanted.max(left + LEAST_ROOM)));
            Copies::add(&self.conn.reactor.counters().bytes_copied, copied as u64);
            self.sizing.replaced();
        }
        self.end_with_a_request();
    }

    /// Lets the receive end where a request does, if they are all of one size: a payload that is
    /// cut in two has to be put together.
    fn end_with_a_request(&mut self) {
        let most = self.buf.data().len() + self.buf.room();
        if (LEAST_UNIT..=most).contains(&self.unit) {
            self.buf.limit_to(most - most % self.unit);
        }
    }

    /// Receives behind what is there. `None` when we are asked to stop.
    async fn receive(&mut self) -> Option<usize> {
        let conn = self.conn;
        let small = RecvBuf::new(conn.reactor.chunk(0));
        let buf = std::mem::replace(&mut self.buf, small);
        let room = buf.room();
        let received = {
            let mut receiving = pin!(conn.transport.recv(buf));
            std::future::poll_fn(|cx| {
                if conn.asked() != Ask::Nothing {
                    return Poll::Ready(None);
                }
                receiving.as_mut().poll(cx).map(Some)
            })
            .await
        };
        let (buf, received) = received?;
        self.buf = buf;
        self.burst = 0;
        let n = received.unwrap_or(0);
        self.sizing.received(n, room);
        Some(n)
    }

    #[cold]
    fn violation(&self, violation: &nbd::Violation) -> Lost {
        Counters::add(&self.conn.counters().violations);
        tracing::debug!("{}: {violation}", self.conn.transport.stream().peer());
        Lost
    }
}

const fn fua_flag(fua: bool) -> Flags {
    if fua { Flags::FUA } else { Flags::NONE }
}

/// The read commands' flag, for [`Answer`].
pub(super) const fn dont_fragment(header: &RequestHeader) -> bool {
    header.flags & proto::CMD_FLAG_DF != 0
}
