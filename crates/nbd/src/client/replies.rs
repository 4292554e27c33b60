//! Replies, client's side: where in the incoming stream which data lies.
//!
//! [`Replies::input`] looks at what has come and says what is next; payload of reads is never
//! touched, so the driver can receive it straight to where it belongs. Every chunk is checked
//! against the request it answers, which the driver looks up by cookie: a server cannot write
//! outside of a request's range, cannot end a read before all of it came, and cannot make the
//! client hold more than one error chunk (8 KiB) in memory.

use std::borrow::Cow;

use crate::Violation;
use crate::proto::{self, Mode, limits};
use crate::server::reply::Extent;
use crate::wire::Reader;

use super::pending::Pending;

/// The next thing in the stream. `last` ends the reply: the cookie is free again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The next `length` bytes of the stream belong at `offset`. The driver takes them itself and
    /// then calls [`Replies::input`] with what follows.
    Data {
        /// Cookie of the request.
        cookie: u64,
        /// Offset on the export, in the range of the request.
        offset: u64,
        /// Length in bytes, not 0.
        length: u64,
        /// Ends the reply, once the bytes have come.
        last: bool,
    },
    /// Zeroes.
    Hole {
        /// Cookie of the request.
        cookie: u64,
        /// Offset on the export, in the range of the request.
        offset: u64,
        /// Length in bytes, not 0.
        length: u64,
        /// Ends the reply.
        last: bool,
    },
    /// Extents of one context, as many as have come. More of the same chunk follow unless `end`.
    BlockStatus {
        /// Cookie of the request.
        cookie: u64,
        /// Number of the context, not checked against those selected.
        context: u32,
        /// The extents; each has a length that is not 0.
        extents: Descriptors<'a>,
        /// No more extents of this context.
        end: bool,
        /// Ends the reply.
        last: bool,
    },
    /// The request failed, at least in part.
    Error {
        /// Cookie of the request.
        cookie: u64,
        /// The server's error value; see [`linux_errno`](crate::errno::linux_errno).
        error: u32,
        /// The server's text for people; may be empty.
        text: Cow<'a, str>,
        /// Where it failed, if told; in the range of the request.
        offset: Option<u64>,
        /// Ends the reply.
        last: bool,
    },
    /// Ends the reply; without an earlier [`Reply::Error`] the request succeeded.
    Done {
        /// Cookie of the request.
        cookie: u64,
    },
}

/// Extents in a piece of a block status chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptors<'a> {
    bytes: &'a [u8],
    wide: bool,
}

impl Iterator for Descriptors<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let mut reader = Reader(self.bytes);
        let extent = if self.wide {
            Extent {
                length: reader.u64()?,
                flags: reader.u64()?,
            }
        } else {
            Extent {
                length: reader.u32()?.into(),
                flags: reader.u32()?.into(),
            }
        };
        self.bytes = reader.0;
        Some(extent)
    }
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Replies {
    mode: Mode,
    /// A block status chunk that has come in part.
    status: Option<Status>,
}

#[derive(Clone, Copy, Debug)]
struct Status {
    cookie: u64,
    context: u32,
    wide: bool,
    /// Descriptors still to come.
    left: u64,
    last: bool,
}

/// A chunk's header, or what a simple reply amounts to.
struct Chunk {
    flags: u16,
    kind: u16,
    cookie: u64,
    offset: Option<u64>,
    length: u64,
    head_len: usize,
}

impl Replies {
    /// A parser for a connection with this framing.
    pub fn new(mode: Mode) -> Replies {
        Replies { mode, status: None }
    }

    /// Looks at the front of the stream. Returns how many bytes were consumed and what they mean;
    /// `None` means that more must come before there is anything to tell. Bytes that were not
    /// consumed must be shown again, with more after them. A buffer of 16 KiB is always enough to
    /// get on. `lookup` finds the request in flight with a cookie.
    ///
    /// # Errors
    ///
    /// A [`Violation`]: the stream can no longer be followed, close the connection.
    pub fn input<'a, 'p>(
        &mut self,
        bytes: &'a [u8],
        lookup: impl FnOnce(u64) -> Option<&'p mut Pending>,
    ) -> Result<(usize, Option<Reply<'a>>), Violation> {
        if let Some(status) = self.status {
            return self.descriptors(status, bytes, 0);
        }
        let Some(magic) = bytes
            .first_chunk::<4>()
            .map(|magic| u32::from_be_bytes(*magic))
        else {
            return Ok((0, None));
        };
        let allowed = match magic {
            proto::SIMPLE_REPLY_MAGIC => !self.mode.is_extended(),
            proto::STRUCTURED_REPLY_MAGIC => self.mode == Mode::Structured,
            proto::EXTENDED_REPLY_MAGIC => self.mode.is_extended(),
            _ => false,
        };
        if !allowed {
            return Err(Violation::ReplyMagic(magic));
        }
        if magic == proto::SIMPLE_REPLY_MAGIC {
            return self.simple(bytes, lookup);
        }
        match chunk_header(bytes, self.mode.is_extended()) {
            None => Ok((0, None)),
            Some(chunk) => {
                let pending = lookup(chunk.cookie).ok_or(Violation::Cookie(chunk.cookie))?;
                if chunk.offset.is_some_and(|offset| offset != pending.offset) {
                    return Err(Violation::ChunkRange);
                }
                self.chunk(bytes, chunk, pending)
            }
        }
    }

    fn simple<'a, 'p>(
        &self,
        bytes: &'a [u8],
        lookup: impl FnOnce(u64) -> Option<&'p mut Pending>,
    ) -> Result<(usize, Option<Reply<'a>>), Violation> {
        let Some(head) = bytes.get(..proto::SIMPLE_REPLY_LEN) else {
            return Ok((0, None));
        };
        let mut reader = Reader(&head[4..]);
        let error = reader.u32().expect("16 bytes");
        let cookie = reader.u64().expect("16 bytes");
        let pending = lookup(cookie).ok_or(Violation::Cookie(cookie))?;
        if self.mode.has_chunks() && pending.command == proto::CMD_READ {
            return Err(Violation::SimpleReplyToRead);
        }
        if error != 0 {
            pending.errors += 1;
        }
        let reply = if error != 0 {
            Reply::Error {
                cookie,
                error,
                text: Cow::Borrowed(""),
                offset: None,
                last: true,
            }
        } else if pending.left != 0 {
            let Pending { offset, length, .. } = *pending;
            pending.content(proto::REPLY_TYPE_OFFSET_DATA, offset, length)?;
            Reply::Data {
                cookie,
                offset,
                length,
                last: true,
            }
        } else {
            Reply::Done { cookie }
        };
        if matches!(reply, Reply::Done { .. }) {
            pending.end()?;
        }
        Ok((proto::SIMPLE_REPLY_LEN, Some(reply)))
    }

    fn chunk<'a>(
        &mut self,
        bytes: &'a [u8],
        chunk: Chunk,
        pending: &mut Pending,
    ) -> Result<(usize, Option<Reply<'a>>), Violation> {
        let Chunk {
            cookie,
            kind,
            length,
            head_len,
            ..
        } = chunk;
        let last = chunk.flags & proto::REPLY_FLAG_DONE != 0;
        let bad_length = Err(Violation::ChunkLength {
            chunk: kind,
            length,
        });
        let reader = Reader(&bytes[head_len..]);
        let (consumed, reply) = match kind {
            proto::REPLY_TYPE_NONE if length != 0 => return bad_length,
            proto::REPLY_TYPE_NONE if !last => return Err(Violation::BadError),
            proto::REPLY_TYPE_NONE => (head_len, Reply::Done { cookie }),
            proto::REPLY_TYPE_OFFSET_DATA | proto::REPLY_TYPE_OFFSET_HOLE => {
                let Some(content) = content_chunk(&chunk, reader, pending)? else {
                    return Ok((0, None));
                };
                content
            }
            proto::REPLY_TYPE_BLOCK_STATUS | proto::REPLY_TYPE_BLOCK_STATUS_EXT => {
                let Some((consumed, status)) = self.status_head(&chunk, reader, pending)? else {
                    return Ok((0, None));
                };
                if last {
                    pending.end()?;
                }
                return self.descriptors(status, bytes, consumed);
            }
            _ if kind & proto::REPLY_TYPE_FLAG_ERROR != 0 => {
                let Some(parsed) = error_chunk(&chunk, reader, pending)? else {
                    return Ok((0, None));
                };
                parsed
            }
            _ => return Err(Violation::ChunkType(kind)),
        };
        if last {
            pending.end()?;
        }
        Ok((consumed, Some(reply)))
    }

    /// The fixed part of a block status chunk: how long it is with the header, and what follows.
    fn status_head(
        &mut self,
        chunk: &Chunk,
        mut reader: Reader<'_>,
        pending: &mut Pending,
    ) -> Result<Option<(usize, Status)>, Violation> {
        let wide = chunk.kind == proto::REPLY_TYPE_BLOCK_STATUS_EXT;
        if pending.command != proto::CMD_BLOCK_STATUS || (wide && !self.mode.is_extended()) {
            return Err(Violation::ChunkType(chunk.kind));
        }
        let (fixed, each) = if wide { (8, 16) } else { (4, 8) };
        let count = chunk
            .length
            .checked_sub(fixed)
            .filter(|rest| rest.is_multiple_of(each))
            .map(|rest| rest / each)
            .ok_or(Violation::ChunkLength {
                chunk: chunk.kind,
                length: chunk.length,
            })?;
        let most = if pending.req_one {
            1
        } else {
            limits::MAX_DESCRIPTORS as u64
        };
        if count == 0 || count > most || pending.statuses == 0 {
            return Err(Violation::BadStatus);
        }
        let Some(context) = reader.u32() else {
            return Ok(None);
        };
        if wide {
            match reader.u32() {
                None => return Ok(None),
                // 0 leaves it to the length of the chunk.
                Some(told) if told != 0 && u64::from(told) != count => {
                    return Err(Violation::BadStatus);
                }
                Some(_) => {}
            }
        }
        pending.statuses -= 1;
        pending.answered = true;
        let last = chunk.flags & proto::REPLY_FLAG_DONE != 0;
        let status = Status {
            cookie: chunk.cookie,
            context,
            wide,
            left: count,
            last,
        };
        self.status = Some(status);
        Ok(Some((chunk.head_len + fixed as usize, status)))
    }

    /// As many descriptors as have come, from `bytes[start..]`.
    fn descriptors<'a>(
        &mut self,
        status: Status,
        bytes: &'a [u8],
        start: usize,
    ) -> Result<(usize, Option<Reply<'a>>), Violation> {
        let Status {
            cookie,
            context,
            wide,
            left,
            last,
        } = status;
        let each = if wide { 16 } else { 8 };
        let here = ((bytes.len() - start) / each).min(usize::try_from(left).unwrap_or(usize::MAX));
        if here == 0 {
            // The chunk's head is consumed and remembered, even if nothing else has come.
            return Ok((start, None));
        }
        let whole = Descriptors {
            bytes: &bytes[start..start + here * each],
            wide,
        };
        // Good extents before a bad one are told first, in whatever pieces they came.
        let here = match whole.clone().position(|extent| extent.length == 0) {
            Some(0) => return Err(Violation::BadStatus),
            Some(good) => good,
            None => here,
        };
        let end = start + here * each;
        let extents = Descriptors {
            bytes: &bytes[start..end],
            wide,
        };
        let left = left - here as u64;
        self.status = (left != 0).then_some(Status { left, ..status });
        let (end_of_chunk, last) = (left == 0, last && left == 0);
        let reply = Reply::BlockStatus {
            cookie,
            context,
            extents,
            end: end_of_chunk,
            last,
        };
        Ok((end, Some(reply)))
    }
}

fn chunk_header(bytes: &[u8], extended: bool) -> Option<Chunk> {
    let mut reader = Reader(bytes.get(4..)?);
    let (flags, kind, cookie) = (reader.u16()?, reader.u16()?, reader.u64()?);
    let (offset, length, head_len) = if extended {
        (
            Some(reader.u64()?),
            reader.u64()?,
            proto::EXTENDED_REPLY_LEN,
        )
    } else {
        (None, reader.u32()?.into(), proto::STRUCTURED_REPLY_LEN)
    };
    Some(Chunk {
        flags,
        kind,
        cookie,
        offset,
        length,
        head_len,
    })
}

/// The fixed part of a chunk of data, or a hole.
fn content_chunk<'a>(
    chunk: &Chunk,
    mut reader: Reader<'_>,
    pending: &mut Pending,
) -> Result<Option<(usize, Reply<'a>)>, Violation> {
    let Chunk {
        cookie,
        kind,
        length,
        head_len,
        ..
    } = *chunk;
    let last = chunk.flags & proto::REPLY_FLAG_DONE != 0;
    let hole = kind == proto::REPLY_TYPE_OFFSET_HOLE;
    if (hole && length != 12) || (!hole && length < 9) {
        return Err(Violation::ChunkLength {
            chunk: kind,
            length,
        });
    }
    let Some(offset) = reader.u64() else {
        return Ok(None);
    };
    if !hole {
        let length = length - 8;
        pending.content(kind, offset, length)?;
        return Ok(Some((
            head_len + 8,
            Reply::Data {
                cookie,
                offset,
                length,
                last,
            },
        )));
    }
    let Some(length) = reader.u32().map(u64::from) else {
        return Ok(None);
    };
    pending.content(kind, offset, length)?;
    Ok(Some((
        head_len + 12,
        Reply::Hole {
            cookie,
            offset,
            length,
            last,
        },
    )))
}

/// An error chunk of a known or unknown type; all start with error, length of text, and text.
fn error_chunk<'a>(
    chunk: &Chunk,
    mut reader: Reader<'a>,
    pending: &mut Pending,
) -> Result<Option<(usize, Reply<'a>)>, Violation> {
    let Chunk {
        cookie,
        kind,
        length,
        head_len,
        ..
    } = *chunk;
    let with_offset = kind == proto::REPLY_TYPE_ERROR_OFFSET;
    let fixed = if with_offset { 14 } else { 6 };
    let bad_length = Violation::ChunkLength {
        chunk: kind,
        length,
    };
    if !(fixed..=limits::MAX_ERROR_CHUNK).contains(&length) {
        return Err(bad_length);
    }
    let Some(payload) = reader.bytes(length as usize) else {
        return Ok(None);
    };
    let mut reader = Reader(payload);
    let (Some(error), Some(text_len)) = (reader.u32(), reader.u16()) else {
        return Err(bad_length);
    };
    if u64::from(text_len) > length - fixed || usize::from(text_len) > limits::MAX_STRING {
        return Err(bad_length);
    }
    let text = String::from_utf8_lossy(reader.bytes(text_len.into()).unwrap_or_default());
    let offset = if with_offset { reader.u64() } else { None };
    let outside =
        |offset: u64| offset < pending.offset || offset - pending.offset >= pending.length;
    if offset.is_some_and(outside) {
        return Err(Violation::ChunkRange);
    }
    if error == 0 {
        return Err(Violation::BadError);
    }
    pending.errors += 1;
    if pending.errors > limits::MAX_ERROR_CHUNKS {
        return Err(Violation::TooManyErrors);
    }
    let last = chunk.flags & proto::REPLY_FLAG_DONE != 0;
    let reply = Reply::Error {
        cookie,
        error,
        text,
        offset,
        last,
    };
    Ok(Some((head_len + length as usize, reply)))
}

#[cfg(test)]
#[path = "replies_tests.rs"]
mod tests;
