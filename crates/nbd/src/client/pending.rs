//! A request in flight: what its replies are checked against.

use crate::Violation;
use crate::proto;

/// A request in flight, kept by the driver until a reply event with `last` set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub(super) command: u16,
    df: bool,
    pub(super) req_one: bool,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Bytes of a read that no chunk has covered yet.
    pub(super) left: u64,
    content_chunks: u32,
    pub(super) errors: u32,
    /// Block status chunks that may still come.
    pub(super) statuses: u32,
    pub(super) answered: bool,
}

impl Pending {
    /// For a request that is about to be sent. `contexts` is the number of metadata contexts it
    /// will be answered for; only block status looks at it.
    pub fn new(request: &super::Request, contexts: u32) -> Pending {
        let read = request.command == proto::CMD_READ;
        Pending {
            command: request.command,
            df: request.flags & proto::CMD_FLAG_DF != 0,
            req_one: request.flags & proto::CMD_FLAG_REQ_ONE != 0,
            offset: request.offset,
            length: request.length,
            left: if read { request.length } else { 0 },
            content_chunks: 0,
            errors: 0,
            statuses: contexts,
            answered: false,
        }
    }

    /// Takes note of a content chunk. Overlapping chunks are only noticed when their sum is too
    /// large; then, as ever, no byte outside of the request's range is touched.
    pub(super) fn content(
        &mut self,
        chunk: u16,
        offset: u64,
        length: u64,
    ) -> Result<(), Violation> {
        if self.command != proto::CMD_READ {
            return Err(Violation::ChunkType(chunk));
        }
        let inside = offset
            .checked_sub(self.offset)
            .and_then(|start| start.checked_add(length))
            .is_some_and(|end| end <= self.length);
        if length == 0 || !inside || length > self.left {
            return Err(Violation::ChunkRange);
        }
        self.left -= length;
        self.content_chunks += 1;
        if self.df && self.content_chunks > 1 {
            return Err(Violation::Fragmented);
        }
        Ok(())
    }

    /// Takes note of the end of a reply.
    pub(super) fn end(&self) -> Result<(), Violation> {
        if self.errors != 0 {
            return Ok(());
        }
        match self.command {
            proto::CMD_READ if self.left != 0 => Err(Violation::ShortRead(self.left)),
            proto::CMD_BLOCK_STATUS if !self.answered => Err(Violation::BadStatus),
            _ => Ok(()),
        }
    }
}
