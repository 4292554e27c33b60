//! Replies in: one receive for as many as have come, and a read's bytes to where they belong.
//!
//! What is in the receive buffer already is shared with the reader, or copied to its memory if it
//! brought some; the rest of a long reply is received there directly.

use std::{future::Future, io, pin::pin};

use block::{Counters, Errno, IoError, Iov, Piece, RecvBuf, Segments, SharedMem};
use nbd::{
    Mode,
    client::{Replies, Reply},
    errno::linux_errno,
};
use transport::Transport;

use super::{
    flight::{Found, Room},
    lane::{Lane, State},
    within,
};

/// Memory for one receive, in bytes, while replies are small: many come at once.
const BUFFER: usize = 128 << 10;

/// The same while replies are large: little more than a head, as what comes behind it is copied.
const HEADS: usize = 16 << 10;

/// From so many bytes on, a reply is large.
const LARGE: usize = 64 << 10;

/// With less room than this a buffer is replaced. A reply's head with its error text must fit.
const LEAST_ROOM: usize = 8 << 10;

/// Serves replies until the connection ends; says why it did.
pub(super) async fn run(lane: &Lane, transport: &Transport, mode: Mode) -> String {
    let mut receiver = Receiver {
        lane,
        transport,
        replies: Replies::new(mode),
        buf: RecvBuf::new(lane.reactor.chunk(BUFFER)),
        size: BUFFER,
    };
    match receiver.run().await {
        Err(why) => why,
        Ok(never) => match never {},
    }
}

struct Receiver<'a> {
    lane: &'a Lane,
    transport: &'a Transport,
    replies: Replies,
    buf: RecvBuf,
    /// How much is received at once.
    size: usize,
}

enum Never {}

/// What to do next.
enum Step {
    /// There is more in the buffer.
    Next,
    /// More must come.
    Receive,
    /// Bytes of a read must come: the first `have` are there.
    Fill {
        iov: Iov,
        have: usize,
        /// The reply that ends with them.
        ends: Option<u64>,
    },
}

impl Receiver<'_> {
    async fn run(&mut self) -> Result<Never, String> {
        loop {
            match self.step()? {
                Step::Next => {}
                Step::Receive => self.receive().await?,
                Step::Fill { iov, have, ends } => {
                    let filling = self.transport.recv_exact(iov, have);
                    let filled = self.in_time(filling).await?.1;
                    filled.map_err(|error| lost(&error))?;
                    if let Some(cookie) = ends {
                        self.lane.finish(cookie);
                    }
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<(), String> {
        let other = self.buf.rewind() && self.buf.capacity() != self.size;
        if other || self.buf.room() < LEAST_ROOM {
            let size = self.size.max(self.buf.data().len() + LEAST_ROOM);
            let copied = self.buf.move_to(self.lane.reactor.chunk(size));
            self.count(copied);
        }
        let small = RecvBuf::new(self.lane.reactor.chunk(0));
        let buf = std::mem::replace(&mut self.buf, small);
        let (buf, received) = self.in_time(self.transport.recv(buf)).await?;
        self.buf = buf;
        match received {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(lost(&error)),
        }
    }

    /// Gives up when the server owes an answer and says nothing for too long.
    async fn in_time<T>(&self, receiving: impl Future<Output = T>) -> Result<T, String> {
        let limit = self.lane.settings.timeout;
        let mut receiving = pin!(receiving);
        if limit.is_zero() {
            return Ok(receiving.await);
        }
        loop {
            let busy = self.lane.in_flight() > 0;
            match within(&self.lane.reactor, limit, receiving.as_mut()).await {
                Some(value) => return Ok(value),
                None if busy => {
                    // What is being received belongs to a request, until the kernel lets go of it.
                    self.transport.stream().shutdown();
                    receiving.await;
                    let limit = limit.as_secs_f64();
                    return Err(format!("the server has not answered for {limit} s"));
                }
                None => {}
            }
        }
    }

    /// Handles the next thing in the buffer.
    fn step(&mut self) -> Result<Step, String> {
        let heard = {
            let state = &mut *self.lane.state();
            let looked = self.replies.input(self.buf.data(), |cookie| {
                state.sent(cookie).map(|sent| &mut sent.pending)
            });
            let (consumed, reply) = looked.map_err(|violation| violation.to_string())?;
            let heard = match reply {
                None if consumed > 0 => Heard::Part,
                None => Heard::Nothing,
                Some(reply) => hear(self.lane, state, reply)?,
            };
            self.buf.consume(consumed);
            heard
        };
        Ok(match heard {
            Heard::Nothing => Step::Receive,
            Heard::Part => Step::Next,
            Heard::All(cookie) => {
                self.lane.finish(cookie);
                Step::Next
            }
            Heard::Content(content) => self.content(&content),
        })
    }

    /// The next bytes of the stream are those of a read.
    fn content(&mut self, content: &Content) -> Step {
        let Content {
            cookie,
            offset,
            length,
            last,
        } = *content;
        let len = length as usize;
        self.size = if len < LARGE { BUFFER } else { HEADS };
        let here = self.buf.data().len().min(len);
        let ends = last.then_some(cookie);
        let iov = {
            let mut state = self.lane.state();
            let sent = state.sent(cookie).expect("the parser found it");
            match sent.room(&self.lane.reactor, offset, length) {
                Room::Theirs(iov) => Some(iov),
                Room::Ours if here == len => {
                    sent.found = Found::Whole(one(self.buf.take(len)));
                    None
                }
                Room::Ours => {
                    let mem = SharedMem::of_chunk(self.lane.reactor.chunk(len), len);
                    sent.found = Found::Whole(one(mem.clone()));
                    Some(mem.into())
                }
            }
        };
        if let Some(iov) = iov {
            iov.write(0, &self.buf.data()[..here]);
            self.buf.consume(here);
            self.count(here);
            if here < len {
                return Step::Fill {
                    iov,
                    have: here,
                    ends,
                };
            }
        }
        if let Some(cookie) = ends {
            self.lane.finish(cookie);
        }
        Step::Next
    }

    fn count(&self, copied: usize) {
        Counters::add(&self.lane.reactor.counters().bytes_copied, copied as u64);
    }
}

/// What a reply was about.
enum Heard {
    /// Nothing: more must come.
    Nothing,
    /// A request, which expects more.
    Part,
    /// The request with this cookie, which has all.
    All(u64),
    /// Bytes of a read, which are next in the stream.
    Content(Content),
}

/// The next `length` bytes of the stream belong at `offset`.
struct Content {
    cookie: u64,
    offset: u64,
    length: u64,
    last: bool,
}

/// Notes what a reply says.
fn hear(lane: &Lane, state: &mut State, reply: Reply<'_>) -> Result<Heard, String> {
    let (cookie, last) = match reply {
        Reply::Data {
            cookie,
            offset,
            length,
            last,
        } => {
            return Ok(Heard::Content(Content {
                cookie,
                offset,
                length,
                last,
            }));
        }
        Reply::Hole {
            cookie,
            offset,
            length,
            last,
        } => {
            let sent = state.sent(cookie).expect("the parser found it");
            sent.hole(&lane.reactor, offset, length);
            (cookie, last)
        }
        Reply::BlockStatus {
            cookie,
            context,
            extents,
            last,
            ..
        } => {
            let Some(name) = state.context(context) else {
                return Err(format!(
                    "the server tells the status of context {context}, which was not selected"
                ));
            };
            let sent = state.sent(cookie).expect("the parser found it");
            sent.extents(name.as_ref(), extents);
            (cookie, last)
        }
        Reply::Error {
            cookie,
            error,
            text,
            last,
            ..
        } => {
            let errno = Errno::new(linux_errno(error));
            let sent = state.sent(cookie).expect("the parser found it");
            sent.outcome = Err(match text.is_empty() {
                true => errno.into(),
                false => IoError::because(errno, &lane.target.name, text),
            });
            (cookie, last)
        }
        Reply::Done { cookie } => (cookie, true),
    };
    Ok(match last {
        true => Heard::All(cookie),
        false => Heard::Part,
    })
}

fn one(mem: SharedMem) -> Segments {
    let mut segments = Segments::new();
    segments.push(Piece::Mem(mem));
    segments
}

fn lost(error: &io::Error) -> String {
    format!("the connection is lost: {error}")
}
