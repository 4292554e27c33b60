//! A request in flight: how it is put to the server, and what it has found so far.

use std::sync::Arc;

use block::{
    Data, ExtentFlags, ExtentList, Flags, Iov, Op, Outcome, Piece, Reactor, Request, Segments,
};
use nbd::{
    client::{Descriptors, Pending, Request as Wire},
    proto,
};

/// A request in flight.
pub(super) struct Sent {
    pub pending: Pending,
    pub request: Request,
    /// Its place among all.
    pub number: u64,
    pub found: Found,
    pub outcome: Outcome,
}

/// What a request has found so far.
pub(super) enum Found {
    Nothing,
    /// All of a read, in memory of our choice.
    Whole(Segments),
    /// A read's bytes gather here, as its chunks come.
    Gathering(Iov),
    Extents(ExtentList),
}

/// Where a read's bytes go.
pub(super) enum Room {
    /// To memory that is there.
    Theirs(Iov),
    /// It is all of the read, and the memory is ours to choose.
    Ours,
}

impl Sent {
    /// For a request that is put to the server as `wire`.
    pub fn new(request: Request, wire: &Wire, contexts: u32, number: u64) -> Sent {
        Sent {
            pending: Pending::new(wire, contexts),
            found: match request.op() {
                Op::Extents => Found::Extents(ExtentList::new()),
                _ => Found::Nothing,
            },
            request,
            number,
            outcome: Ok(()),
        }
    }

    /// The whole reply has come.
    pub fn complete(self) {
        let mut request = self.request;
        if self.outcome.is_err() {
            return request.complete(self.outcome);
        }
        match self.found {
            Found::Nothing => request.done(),
            Found::Whole(segments) => request.give(segments),
            Found::Gathering(iov) => {
                let mut segments = Segments::new();
                iov.shared().for_each(|mem| segments.push(Piece::Mem(mem)));
                request.give(segments);
            }
            Found::Extents(mut extents) => {
                extents.truncate(request.len());
                *request.data_mut() = Data::Extents(extents);
                request.done();
            }
        }
    }

    /// Room for these bytes of a read.
    pub fn room(&mut self, reactor: &Reactor, offset: u64, length: u64) -> Room {
        let at = (offset - self.request.offset()) as usize;
        if let Data::Iov(iov) = self.request.data() {
            return Room::Theirs(iov.slice(at, length as usize));
        }
        if length == self.request.len() {
            return Room::Ours;
        }
        Room::Theirs(self.gathering(reactor).slice(at, length as usize))
    }

    /// These bytes of a read are zeroes.
    pub fn hole(&mut self, reactor: &Reactor, offset: u64, length: u64) {
        match self.room(reactor, offset, length) {
            Room::Theirs(iov) => iov.zero(0, length as usize),
            Room::Ours => self.found = Found::Whole(Segments::zero(length)),
        }
    }

    /// Memory for a read that comes in pieces. Cleared, since a hostile server could send one piece
    /// twice and another never.
    fn gathering(&mut self, reactor: &Reactor) -> Iov {
        if let Found::Gathering(iov) = &self.found {
            return iov.clone();
        }
        let len = self.request.len() as usize;
        let iov = Iov::of_chunk(reactor.chunk(len), len);
        iov.zero(0, len);
        self.found = Found::Gathering(iov.clone());
        iov
    }

    /// Extents that the server told of.
    pub fn extents(&mut self, context: Option<&Arc<str>>, told: Descriptors<'_>) {
        if let Found::Extents(list) = &mut self.found {
            for extent in told {
                // A list that is full is a shorter answer, which is allowed.
                match context {
                    None => list.push(extent.length, ExtentFlags(extent.flags)),
                    Some(name) => list.push_in(name, extent.length, extent.flags),
                };
            }
        }
    }
}

/// A request as the protocol has it; `None` for what it does not know.
pub(super) fn wire(request: &Request, cookie: u64) -> Option<Wire> {
    Some(Wire {
        command: command(request.op())?,
        flags: flags(request.flags()),
        cookie,
        offset: request.offset(),
        length: request.len(),
    })
}

const fn command(op: Op) -> Option<u16> {
    Some(match op {
        Op::Read => proto::CMD_READ,
        Op::Write => proto::CMD_WRITE,
        Op::Flush => proto::CMD_FLUSH,
        Op::Discard => proto::CMD_TRIM,
        Op::WriteZeroes => proto::CMD_WRITE_ZEROES,
        Op::Cache => proto::CMD_CACHE,
        Op::Extents => proto::CMD_BLOCK_STATUS,
        _ => return None,
    })
}

fn flags(flags: Flags) -> u16 {
    [
        (Flags::FUA, proto::CMD_FLAG_FUA),
        (Flags::NO_HOLE, proto::CMD_FLAG_NO_HOLE),
        (Flags::FAST_ZERO, proto::CMD_FLAG_FAST_ZERO),
        (Flags::REQ_ONE, proto::CMD_FLAG_REQ_ONE),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(0, |all, (_, wire)| all | wire)
}
