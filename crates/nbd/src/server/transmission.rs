//! Requests: from bytes to a header, from a header to a command that may be executed as it is.
//!
//! Both steps are pure functions, so that a driver can run them over a receive buffer with many
//! requests in it. [`parse_request`] trusts nothing but the length of the slice; [`check`] is the
//! one place where a request meets the export's limits: after it, offset + length never overflows
//! and never passes the end, and the command was advertised. What the command's layers below get
//! needs no second check.

use super::export::{Context, ExportInfo};
use crate::proto::{self, Mode, limits};
use crate::wire::Reader;

pub use super::request::{RequestHeader, parse_request};

/// What requests of one connection are checked against. `size` may be changed when the export is
/// resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Size of the export in bytes.
    pub size: u64,
    /// Transmission flags as sent to the client.
    pub flags: u16,
    /// Alignment that requests must have: a power of 2, 1 for none.
    pub min_block: u32,
    /// Longest read or write in bytes.
    pub max_payload: u32,
    /// Framing.
    pub mode: Mode,
    /// Number of selected metadata contexts.
    pub contexts: u32,
}

impl Served {
    /// Puts together what the driver offers and what was agreed on. `aligned` says whether the
    /// client is held to the minimum block size.
    pub(super) fn new(info: &ExportInfo, mode: Mode, contexts: usize, aligned: bool) -> Served {
        let mut flags = info.flags | proto::FLAG_HAS_FLAGS;
        if !mode.has_chunks() {
            flags &= !proto::FLAG_SEND_DF;
        }
        if flags & proto::FLAG_SEND_WRITE_ZEROES == 0 {
            flags &= !proto::FLAG_SEND_FAST_ZERO;
        }
        if !mode.is_extended() || contexts == 0 {
            flags &= !proto::FLAG_BLOCK_STATUS_PAYLOAD;
        }
        let sizes = info.block_sizes;
        Served {
            size: info.size,
            flags,
            min_block: sizes.filter(|_| aligned).map_or(1, |sizes| sizes.minimum()),
            max_payload: sizes
                .map_or(u32::MAX, |sizes| sizes.maximum())
                .min(info.max_payload)
                .min(limits::MAX_PAYLOAD_SKIP as u32),
            mode,
            contexts: contexts as u32,
        }
    }
}

/// A request that may be executed as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read.
    Read {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u32,
        /// At most one content chunk may be sent.
        df: bool,
    },
    /// Write the payload that follows.
    Write {
        /// Offset in bytes.
        offset: u64,
        /// Length of the range and of the payload in bytes.
        length: u32,
        /// Stable before the reply.
        fua: bool,
    },
    /// End the connection once all requests in flight are done. There is no reply.
    Disconnect,
    /// Make all completed writes stable.
    Flush,
    /// Discard.
    Trim {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Stable before the reply.
        fua: bool,
    },
    /// Prefetch.
    Cache {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Write zeroes.
    WriteZeroes {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Stable before the reply.
        fua: bool,
        /// Allocate; do not make a hole.
        no_hole: bool,
        /// Fail with `ENOTSUP` rather than be as slow as writing.
        fast: bool,
    },
    /// Block status of all selected contexts.
    BlockStatus {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// One extent per context.
        req_one: bool,
    },
    /// Block status of the contexts named in a payload that follows, to be given to
    /// [`parse_status_payload`].
    BlockStatusPayload {
        /// Offset in bytes.
        offset: u64,
        /// Length of the payload in bytes.
        payload: u32,
        /// One extent per context.
        req_one: bool,
    },
}

/// A request that is answered with an error; the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Error value for the reply.
    pub error: u32,
    /// Text for people, sent where chunks can carry it.
    pub text: &'static str,
    /// Bytes of payload that follow the header and must be read and dropped.
    pub payload: u64,
}

/// Checks a request against everything that was agreed on (spec: Request types, Command flags,
/// Block size constraints, Error values).
///
/// # Errors
///
/// A [`Refusal`], to be sent with an error reply after its payload was dropped.
#[inline]
pub fn check(request: &RequestHeader, served: &Served) -> Result<Command, Refusal> {
    // Everything that runs often is here and in `in_range`; the texts live in `refuse`.
    match classify(request, served) {
        Ok(command) => Ok(command),
        Err(why) => Err(refuse(why, request)),
    }
}

/// A set of selected contexts: bit *n* stands for the *n*-th of
/// [`Negotiated::contexts`](super::Negotiated::contexts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextSet(u64);

impl ContextSet {
    /// The first `count` contexts; `count` is at most [`limits::MAX_CONTEXTS`].
    pub const fn all(count: usize) -> ContextSet {
        assert!(count <= limits::MAX_CONTEXTS);
        ContextSet(if count == 64 {
            u64::MAX
        } else {
            (1 << count) - 1
        })
    }

    /// Whether the *n*-th context is in the set.
    pub const fn contains(self, n: usize) -> bool {
        n < limits::MAX_CONTEXTS && self.0 >> n & 1 != 0
    }

    /// Number of contexts in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Takes the payload of [`Command::BlockStatusPayload`] apart: the length of the range, and the
/// contexts to answer for.
///
/// # Errors
///
/// A [`Refusal`] if a context is unknown or named twice, none is named, or the range is not valid.
/// The payload counts as read.
pub fn parse_status_payload(
    payload: &[u8],
    offset: u64,
    served: &Served,
    contexts: &[Context],
) -> Result<(u64, ContextSet), Refusal> {
    let refuse = |text| Refusal {
        error: proto::EINVAL,
        text,
        payload: 0,
    };
    let mut reader = Reader(payload);
    let length = reader.u64().ok_or(refuse(Why::StatusPayload.text()))?;
    in_range(offset, length, served).map_err(|why| refuse(why.text()))?;
    let mut set = 0u64;
    while !reader.is_empty() {
        let id = reader.u32().ok_or(refuse(Why::StatusPayload.text()))?;
        let known = contexts
            .iter()
            .take(limits::MAX_CONTEXTS)
            .position(|context| context.id == id);
        let bit = 1 << known.ok_or(refuse("the payload names a context that was not selected"))?;
        if set & bit != 0 {
            return Err(refuse("the payload names a context twice"));
        }
        set |= bit;
    }
    if set == 0 {
        return Err(refuse("the payload names no context"));
    }
    Ok((length, ContextSet(set)))
}

/// Reasons for a refusal.
#[derive(Clone, Copy)]
enum Why {
    UnknownCommand,
    Flags,
    ReadOnly,
    NotAdvertised,
    NoContexts,
    ZeroLength,
    FlushRange,
    PastEnd,
    Unaligned,
    TooLong,
    StatusPayload,
}

impl Why {
    const fn text(self) -> &'static str {
        match self {
            Why::UnknownCommand => "unknown command",
            Why::Flags => "a command flag is unknown or not valid for this command",
            Why::ReadOnly => "the export is read-only",
            Why::NotAdvertised => "the export does not support this command",
            Why::NoContexts => "no metadata context was selected",
            Why::ZeroLength => "the length is zero",
            Why::FlushRange => "a flush must have an offset and a length of zero",
            Why::PastEnd => "the range passes the end of the export",
            Why::Unaligned => "the range is not aligned to the minimum block size",
            Why::TooLong => "the length is above the maximum",
            Why::StatusPayload => "malformed payload of a block status request",
        }
    }
}

#[inline]
fn classify(request: &RequestHeader, served: &Served) -> Result<Command, Why> {
    let RequestHeader {
        flags,
        command,
        offset,
        length,
        ..
    } = *request;
    let advertised = |flag: u16| served.flags & flag != 0;
    let fua = flags & proto::CMD_FLAG_FUA != 0;
    if command == proto::CMD_DISC {
        // There is no reply to it, so there is no way to refuse it.
        return Ok(Command::Disconnect);
    }
    let rest = allowed_flags(flags, served)?;
    match command {
        proto::CMD_READ => {
            let df = when(advertised(proto::FLAG_SEND_DF), proto::CMD_FLAG_DF);
            only(rest, df)?;
            in_range(offset, length, served)?;
            let length = payload(length, served)?;
            let df = flags & proto::CMD_FLAG_DF != 0;
            Ok(Command::Read { offset, length, df })
        }
        proto::CMD_WRITE => {
            let extended = served.mode.is_extended();
            only(rest, when(extended, proto::CMD_FLAG_PAYLOAD_LEN))?;
            writable(served)?;
            in_range(offset, length, served)?;
            let length = payload(length, served)?;
            Ok(Command::Write {
                offset,
                length,
                fua,
            })
        }
        proto::CMD_FLUSH => {
            only(rest, 0)?;
            supported(advertised(proto::FLAG_SEND_FLUSH))?;
            if (offset, length) != (0, 0) {
                return Err(Why::FlushRange);
            }
            Ok(Command::Flush)
        }
        proto::CMD_TRIM => {
            only(rest, 0)?;
            writable(served)?;
            supported(advertised(proto::FLAG_SEND_TRIM))?;
            in_range(offset, length, served)?;
            Ok(Command::Trim {
                offset,
                length,
                fua,
            })
        }
        proto::CMD_CACHE => {
            only(rest, 0)?;
            supported(advertised(proto::FLAG_SEND_CACHE))?;
            in_range(offset, length, served)?;
            Ok(Command::Cache { offset, length })
        }
        proto::CMD_WRITE_ZEROES => write_zeroes(request, rest, served),
        proto::CMD_BLOCK_STATUS => block_status(request, rest, served),
        _ => Err(Why::UnknownCommand),
    }
}

fn write_zeroes(request: &RequestHeader, rest: u16, served: &Served) -> Result<Command, Why> {
    let RequestHeader {
        flags,
        offset,
        length,
        ..
    } = *request;
    let fast = when(
        served.flags & proto::FLAG_SEND_FAST_ZERO != 0,
        proto::CMD_FLAG_FAST_ZERO,
    );
    only(rest, proto::CMD_FLAG_NO_HOLE | fast)?;
    writable(served)?;
    supported(served.flags & proto::FLAG_SEND_WRITE_ZEROES != 0)?;
    in_range(offset, length, served)?;
    Ok(Command::WriteZeroes {
        offset,
        length,
        fua: flags & proto::CMD_FLAG_FUA != 0,
        no_hole: flags & proto::CMD_FLAG_NO_HOLE != 0,
        fast: flags & proto::CMD_FLAG_FAST_ZERO != 0,
    })
}

fn block_status(request: &RequestHeader, rest: u16, served: &Served) -> Result<Command, Why> {
    /// Length, and at least one context.
    const SHORTEST: u32 = 12;
    const LONGEST: u32 = 8 + 4 * limits::MAX_CONTEXTS as u32;

    let RequestHeader {
        flags,
        offset,
        length,
        payload,
        ..
    } = *request;
    let with_payload = when(
        served.flags & proto::FLAG_BLOCK_STATUS_PAYLOAD != 0,
        proto::CMD_FLAG_PAYLOAD_LEN,
    );
    only(rest, proto::CMD_FLAG_REQ_ONE | with_payload)?;
    if served.contexts == 0 || !served.mode.has_chunks() {
        return Err(Why::NoContexts);
    }
    let req_one = flags & proto::CMD_FLAG_REQ_ONE != 0;
    if flags & proto::CMD_FLAG_PAYLOAD_LEN == 0 {
        in_range(offset, length, served)?;
        return Ok(Command::BlockStatus {
            offset,
            length,
            req_one,
        });
    }
    if !(SHORTEST..=LONGEST).contains(&payload) || !payload.is_multiple_of(4) {
        return Err(Why::StatusPayload);
    }
    Ok(Command::BlockStatusPayload {
        offset,
        payload,
        req_one,
    })
}

/// FUA is valid with every command once it is advertised, even with those that write nothing
/// (spec: Command flags). Returns the flags that are left to judge.
#[inline]
fn allowed_flags(flags: u16, served: &Served) -> Result<u16, Why> {
    if flags & proto::CMD_FLAG_FUA != 0 && served.flags & proto::FLAG_SEND_FUA == 0 {
        return Err(Why::Flags);
    }
    Ok(flags & !proto::CMD_FLAG_FUA)
}

/// A flag, if it may be used at all.
#[inline]
const fn when(allowed: bool, flag: u16) -> u16 {
    if allowed { flag } else { 0 }
}

#[inline]
fn only(flags: u16, allowed: u16) -> Result<(), Why> {
    if flags & !allowed == 0 {
        Ok(())
    } else {
        Err(Why::Flags)
    }
}

#[inline]
fn writable(served: &Served) -> Result<(), Why> {
    if served.flags & proto::FLAG_READ_ONLY == 0 {
        Ok(())
    } else {
        Err(Why::ReadOnly)
    }
}

#[inline]
fn supported(advertised: bool) -> Result<(), Why> {
    if advertised {
        Ok(())
    } else {
        Err(Why::NotAdvertised)
    }
}

#[inline]
fn in_range(offset: u64, length: u64, served: &Served) -> Result<(), Why> {
    if length == 0 {
        return Err(Why::ZeroLength);
    }
    if offset > served.size || length > served.size - offset {
        return Err(Why::PastEnd);
    }
    if (offset | length) & (u64::from(served.min_block) - 1) != 0 {
        return Err(Why::Unaligned);
    }
    Ok(())
}

#[inline]
fn payload(length: u64, served: &Served) -> Result<u32, Why> {
    match u32::try_from(length) {
        Ok(length) if length <= served.max_payload => Ok(length),
        _ => Err(Why::TooLong),
    }
}

#[cold]
fn refuse(why: Why, request: &RequestHeader) -> Refusal {
    let writes = matches!(request.command, proto::CMD_WRITE | proto::CMD_WRITE_ZEROES);
    let error = match why {
        Why::ReadOnly => proto::EPERM,
        Why::PastEnd if writes => proto::ENOSPC,
        // The only use of this error that the spec knows: it cannot be sent in one piece.
        Why::TooLong if request.flags & proto::CMD_FLAG_DF != 0 => proto::EOVERFLOW,
        _ => proto::EINVAL,
    };
    Refusal {
        error,
        text: why.text(),
        payload: u64::from(request.payload),
    }
}

#[cfg(test)]
#[path = "transmission_tests.rs"]
mod tests;
