//! Replies out: from a completion to bytes.

use std::rc::Rc;

use block::{Completed, Data, Extent, IoError, Op, Piece, Segments};
use nbd::{
    errno::{Asked, nbd_errno},
    proto::{self, Mode},
    server::{
        reply::{self, ReplyTo},
        transmission::{ContextSet, RequestHeader},
    },
};
use reactor::SendBatch;

use super::{connection::Connection, reader::dont_fragment, server::Counters};

/// A hole of at least so many bytes is told, not sent, where the client understands it.
const LEAST_HOLE: u64 = 4096;

/// What is needed to answer one request; travels with it as a completion frame.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    cookie: u64,
    offset: u64,
    /// What the request took from the credits.
    bytes: u64,
    /// Length of the range a block status is asked for.
    length: u64,
    contexts: ContextSet,
    df: bool,
    fast_zero: bool,
    req_one: bool,
}

impl Answer {
    #[inline]
    pub fn new(header: &RequestHeader, bytes: u64) -> Answer {
        Answer {
            cookie: header.cookie,
            offset: header.offset,
            bytes,
            length: 0,
            contexts: ContextSet::all(0),
            df: dont_fragment(header),
            fast_zero: header.flags & proto::CMD_FLAG_FAST_ZERO != 0,
            req_one: header.flags & proto::CMD_FLAG_REQ_ONE != 0,
        }
    }

    /// For a block status of `length` bytes.
    pub fn for_contexts(self, contexts: ContextSet, length: u64) -> Answer {
        Answer {
            contexts,
            length,
            ..self
        }
    }

    #[inline]
    fn to(&self, mode: Mode) -> ReplyTo {
        ReplyTo {
            mode,
            cookie: self.cookie,
            offset: self.offset,
        }
    }

    /// Answers with the outcome of the request.
    #[inline]
    pub fn complete(self, conn: &Rc<Connection>, done: &mut Completed) {
        if let Some(error) = done.error() {
            return self.fail(conn, error);
        }
        let to = self.to(conn.mode());
        match done.op() {
            Op::Read => match std::mem::take(done.data_mut()) {
                Data::Given(found) => conn.reply(self.bytes, |out| self.read(to, found, out)),
                other => unreachable!("a wanted read was completed with {other:?}"),
            },
            Op::Extents => self.status(conn, to, done.data()),
            _ => conn.reply(self.bytes, |out| out.push_head(&to.success())),
        }
    }

    #[inline]
    fn read(&self, to: ReplyTo, found: Segments, out: &mut SendBatch) {
        if to.mode.has_chunks() && has_hole(&found) && (!self.df || found.pieces().len() == 1) {
            return self.read_with_holes(to, found, out);
        }
        out.push_head(&to.data(self.offset, found.len() as u32, true));
        out.push_segments(found);
    }

    /// Chunks: the data between holes, and the holes.
    fn read_with_holes(&self, to: ReplyTo, found: Segments, out: &mut SendBatch) {
        let (mut at, end) = (self.offset, self.offset + found.len());
        let mut pieces = found.into_pieces().peekable();
        while let Some(piece) = pieces.next() {
            if is_hole(&piece) {
                let len = piece.len();
                out.push_head(&to.hole(at, len as u32, at + len == end));
                at += len;
                continue;
            }
            let mut data = Segments::new();
            data.push(piece);
            while let Some(more) = pieces.next_if(|piece| !is_hole(piece)) {
                data.push(more);
            }
            let len = data.len();
            out.push_head(&to.data(at, len as u32, at + len == end));
            out.push_segments(data);
            at += len;
        }
    }

    fn status(&self, conn: &Rc<Connection>, to: ReplyTo, data: &Data) {
        let list = data.as_extents();
        let mut bytes = Vec::new();
        let mut left = self.contexts.len();
        for (n, context) in conn.contexts.iter().enumerate() {
            if !self.contexts.contains(n) {
                continue;
            }
            left -= 1;
            let run = list
                .and_then(|list| list.context(&context.name))
                .unwrap_or_default();
            let run = run
                .iter()
                .map(|&Extent { len, flags }| reply::Extent { length: len, flags });
            let (length, done) = (self.length, left == 0);
            if to.block_status(context.id, run, length, self.req_one, done, &mut bytes) == 0 {
                return self.refuse(conn, proto::EIO, "the device reported no extents");
            }
        }
        conn.reply(self.bytes, |out| out.push_head(&bytes));
    }

    #[cold]
    fn fail(&self, conn: &Rc<Connection>, error: &IoError) {
        let asked = Asked {
            fast_zero: self.fast_zero,
            df: self.df,
        };
        let code = nbd_errno(error.errno().get(), asked);
        match error.detail() {
            Some(detail) => self.refuse(conn, code, &format!("{}: {}", detail.node, detail.why)),
            None => self.refuse(conn, code, error.errno().text()),
        }
    }

    /// Answers with an error.
    #[cold]
    pub fn refuse(&self, conn: &Rc<Connection>, code: u32, text: &str) {
        Counters::add(&conn.counters().request_errors);
        let mut bytes = Vec::new();
        self.to(conn.mode())
            .failure_with_text(code, text, &mut bytes);
        conn.reply(self.bytes, |out| out.push_head(&bytes));
    }
}

#[inline]
fn has_hole(found: &Segments) -> bool {
    found.pieces().iter().any(is_hole)
}

#[inline]
fn is_hole(piece: &Piece) -> bool {
    matches!(piece, Piece::Zero(len) if *len >= LEAST_HOLE)
}
