//! Bytes in and out: the handshake's, requests and replies.

use std::{io::IoSlice, sync::atomic::Ordering::Relaxed};

use nbd::{Head, client::Reply, errno::linux_errno};
use rustix::io::Errno;

use crate::{
    error::Fault, flight::Flight, inner::Inner, negotiation::Negotiation, state::State, wire::Came,
};

/// Pieces sent by one system call.
const PIECES: usize = 32;

/// From this length on, in bytes, payload is expected to go past the buffer.
const LONG: usize = 32 << 10;

/// Something to be sent: bytes, and behind them the payload of a command.
pub(crate) struct Outgoing {
    bytes: Bytes,
    /// The command, or 0 for none.
    pub cookie: u64,
    /// How much of both is sent.
    at: usize,
}

enum Bytes {
    Head(Head),
    Vec(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Head(head) => head.as_slice(),
            Bytes::Vec(bytes) => bytes,
        }
    }
}

impl Outgoing {
    pub fn is_begun(&self) -> bool {
        self.at != 0
    }
}

/// Payload of a read: the next bytes of the stream.
#[derive(Clone, Copy)]
pub(crate) struct Payload {
    cookie: u64,
    offset: u64,
    length: u64,
    /// Bytes in their place.
    at: u64,
    last: bool,
}

impl Inner {
    /// Queues bytes of the handshake. `chunk`: they count as one.
    pub fn queue_raw(&mut self, bytes: Vec<u8>, chunk: bool) {
        if chunk {
            self.shared.chunks_sent.fetch_add(1, Relaxed);
        }
        self.queue.push_back(Outgoing {
            bytes: Bytes::Vec(bytes),
            cookie: 0,
            at: 0,
        });
    }

    /// Queues a request. The payload is that of the command.
    pub fn queue_request(&mut self, cookie: u64, head: Head) {
        self.shared.chunks_sent.fetch_add(1, Relaxed);
        self.queue.push_back(Outgoing {
            bytes: Bytes::Head(head),
            cookie,
            at: 0,
        });
    }

    /// Queues a request that is longer than a head.
    pub fn queue_long_request(&mut self, cookie: u64, bytes: Vec<u8>) {
        self.shared.chunks_sent.fetch_add(1, Relaxed);
        self.queue.push_back(Outgoing {
            bytes: Bytes::Vec(bytes),
            cookie,
            at: 0,
        });
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), Fault> {
        loop {
            let Inner {
                wire: Some(wire),
                queue,
                flight,
                ..
            } = self
            else {
                return Ok(());
            };
            let mut pieces = std::array::from_fn::<_, PIECES, _>(|_| IoSlice::new(&[]));
            let mut count = 0;
            for out in queue.iter() {
                if count + 2 > PIECES {
                    break;
                }
                let bytes = out.bytes.as_slice();
                let payload = flight
                    .peek(out.cookie)
                    .and_then(|command| command.write.as_ref());
                let payload = payload.map_or(&[][..], |write| write.as_slice());
                let (at, past) = (out.at.min(bytes.len()), out.at.saturating_sub(bytes.len()));
                for piece in [&bytes[at..], &payload[past..]] {
                    if !piece.is_empty() {
                        pieces[count] = IoSlice::new(piece);
                        count += 1;
                    }
                }
            }
            if wire.blocked || (count == 0 && wire.is_flushed()) {
                break;
            }
            let was_flushed = wire.is_flushed();
            let taken = wire.send(&pieces[..count])?;
            let stuck = taken == 0 && (was_flushed || !wire.is_flushed());
            self.sent(taken);
            if stuck {
                break;
            }
        }
        if !self.is_sending() {
            self.all_sent();
        }
        Ok(())
    }

    /// So many bytes of the queue are sent.
    fn sent(&mut self, mut n: usize) {
        self.shared.bytes_sent.fetch_add(n as u64, Relaxed);
        while let Some(out) = self.queue.front_mut().filter(|_| n != 0) {
            let command = self.flight.get(out.cookie);
            let payload = command.as_ref().and_then(|command| command.write.as_ref());
            let payload = payload.map_or(0, |write| write.as_slice().len());
            let left = out.bytes.as_slice().len() + payload - out.at;
            let now = left.min(n);
            out.at += now;
            n -= now;
            let answered = command.is_some_and(|command| {
                command.begun = true;
                command.sent = now == left;
                command.sent && command.answered
            });
            if now == left {
                let cookie = out.cookie;
                self.queue.pop_front();
                if answered {
                    self.flight.complete(cookie);
                }
            }
        }
    }

    /// The queue is empty.
    fn all_sent(&mut self) {
        if self.state == State::OptAbort {
            if let Some(wire) = &mut self.wire {
                wire.finish();
            }
            self.end(State::Closed);
        } else if self.leaving
            && let Some(wire) = &mut self.wire
        {
            wire.finish();
        }
    }

    /// Receives until nothing more comes.
    pub fn read(&mut self) -> Result<(), Fault> {
        loop {
            self.take()?;
            let long = self.flight.next_read() >= LONG;
            let Inner {
                wire: Some(wire),
                flight,
                payload,
                ..
            } = self
            else {
                return Ok(());
            };
            if self.state == State::Negotiating {
                return Ok(());
            }
            let place = payload.as_ref().and_then(|payload| {
                let command = flight.get(payload.cookie)?;
                Some(&mut command.place(payload.offset, payload.length)[payload.at as usize..])
            });
            match wire.receive(place, long) {
                Ok(Came::Nothing) => return Ok(()),
                Ok(Came::End) => return self.ended(),
                // A server that we have said goodbye to may close in any way.
                Err(fault) if self.leaving && fault.errno == Errno::CONNRESET.raw_os_error() => {
                    self.end(State::Closed);
                    return Ok(());
                }
                Err(fault) => return Err(fault),
                Ok(Came::Some { direct, full }) => {
                    self.shared.received(direct);
                    self.arrived(direct);
                    if !full {
                        self.take()?;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes what was received, as far as it goes.
    fn take(&mut self) -> Result<(), Fault> {
        if self.state == State::TlsHandshake {
            self.go_on_with_tls()?;
        }
        if self.state.is_connecting() {
            self.haggle()?;
        }
        if self.state.is_connected() {
            self.take_replies()?;
        }
        match &self.wire {
            Some(wire) if wire.is_closed() => self.ended(),
            _ => Ok(()),
        }
    }

    /// Payload has come to its place.
    fn arrived(&mut self, bytes: usize) {
        let Some(payload) = self.payload.as_mut().filter(|_| bytes != 0) else {
            return;
        };
        payload.at += bytes as u64;
        if payload.at < payload.length {
            return;
        }
        let payload = *payload;
        self.payload = None;
        if let Some(command) = self.flight.get(payload.cookie) {
            command.data(payload.offset, payload.length);
        }
        if payload.last {
            self.answered(payload.cookie);
        }
    }

    /// The last of a reply has come.
    fn answered(&mut self, cookie: u64) {
        let Some(command) = self.flight.get(cookie) else {
            return;
        };
        command.answered = true;
        // The payload of a write is the caller's memory: he gets it back when it is sent.
        if command.sent {
            self.flight.complete(cookie);
        }
    }

    /// Payload out of the buffer. False if it is not complete.
    fn take_payload(&mut self) -> bool {
        let Inner {
            wire: Some(wire),
            flight,
            payload: Some(payload),
            ..
        } = self
        else {
            return true;
        };
        let received = wire.received();
        let left = (payload.length - payload.at) as usize;
        let n = received.len().min(left);
        if let Some(command) = flight.get(payload.cookie) {
            let place = command.place(payload.offset + payload.at, n as u64);
            place.copy_from_slice(&received[..n]);
        }
        wire.consume(n);
        self.shared.received(n);
        self.arrived(n);
        self.payload.is_none()
    }

    fn take_replies(&mut self) -> Result<(), Fault> {
        while self.take_payload() {
            let Inner {
                wire: Some(wire),
                flight,
                replies,
                negotiation,
                shared,
                payload,
                ..
            } = self
            else {
                break;
            };
            let commands = &mut *flight;
            let (consumed, reply) = replies
                .input(wire.received(), move |cookie| {
                    let command = commands.get(cookie)?;
                    let awaited = command.begun && !command.answered;
                    awaited.then_some(&mut command.pending)
                })
                .map_err(|violation| Fault::of(violation.to_string(), Errno::PROTO))?;
            if consumed == 0 && reply.is_none() {
                break;
            }
            let mut after = After::default();
            if let Some(reply) = reply {
                after = take_reply(reply, flight, negotiation, payload)?;
            }
            wire.consume(consumed);
            shared.received(consumed);
            if after.chunk {
                shared.chunk_received();
            }
            if let Some(text) = after.text {
                self.debug(format_args!("structured error server message: {text}"));
            }
            if let Some(cookie) = after.over {
                self.answered(cookie);
            }
        }
        Ok(())
    }
}

/// What is left to do after a piece of a reply.
#[derive(Default)]
struct After {
    /// It completes a chunk.
    chunk: bool,
    /// The server's words about an error.
    text: Option<String>,
    /// The reply to this command is complete.
    over: Option<u64>,
}

fn take_reply(
    reply: Reply<'_>,
    flight: &mut Flight,
    negotiation: &Negotiation,
    payload: &mut Option<Payload>,
) -> Result<After, Fault> {
    let mut after = After {
        chunk: true,
        ..After::default()
    };
    match reply {
        Reply::Data {
            cookie,
            offset,
            length,
            last,
        } => {
            *payload = Some(Payload {
                cookie,
                offset,
                length,
                at: 0,
                last,
            });
        }
        Reply::Hole {
            cookie,
            offset,
            length,
            last,
        } => {
            if let Some(command) = flight.get(cookie) {
                command.hole(offset, length);
            }
            after.over = last.then_some(cookie);
        }
        Reply::BlockStatus {
            cookie,
            context,
            extents,
            end,
            last,
        } => {
            let name = selected(negotiation, context)?;
            if let Some(command) = flight.get(cookie) {
                command.take_extents(extents);
                if end {
                    command.status(name);
                }
            }
            after.chunk = end;
            after.over = last.then_some(cookie);
        }
        Reply::Error {
            cookie,
            error,
            text,
            offset,
            last,
        } => {
            if let Some(command) = flight.get(cookie) {
                command.refused(linux_errno(error), offset);
            }
            after.over = last.then_some(cookie);
            after.text = Some(text.into_owned()).filter(|text| !text.is_empty());
        }
        Reply::Done { cookie } => after.over = Some(cookie),
    }
    Ok(after)
}

/// The name of a metadata context that was selected.
fn selected(negotiation: &Negotiation, id: u32) -> Result<&str, Fault> {
    let mut contexts = negotiation.contexts.iter();
    let known = contexts.find(|context| context.id == id);
    known.map(|context| &*context.name).ok_or_else(|| {
        let text = format!("block status of context {id}, which was not selected");
        Fault::of(text, Errno::PROTO)
    })
}
