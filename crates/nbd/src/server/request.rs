//! Request headers: from bytes to fields (spec: Request message).
//!
//! Nothing is known here of the export; see [`check`](super::transmission::check) for that.

use super::reply::ReplyTo;
use crate::Violation;
use crate::proto::{self, Mode, limits};

/// A request as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Command flags.
    pub flags: u16,
    /// Command.
    pub command: u16,
    /// The client's mark for this request, to be repeated in its replies.
    pub cookie: u64,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes; with `CMD_FLAG_PAYLOAD_LEN` that of the payload.
    pub length: u64,
    /// Bytes of payload that follow the header; at most [`limits::MAX_PAYLOAD_SKIP`].
    pub payload: u32,
}

impl RequestHeader {
    /// What replies to this request are written with.
    #[inline]
    pub const fn reply(&self, mode: Mode) -> ReplyTo {
        ReplyTo {
            mode,
            cookie: self.cookie,
            offset: self.offset,
        }
    }
}

/// Takes one request header off the front of `bytes`: the header and its length (28 or 32).
/// `None` means that it has not all come yet. A payload, if any, comes next in the stream.
///
/// # Errors
///
/// [`Violation::RequestMagic`], [`Violation::PayloadTooLong`].
#[inline]
pub fn parse_request(
    bytes: &[u8],
    extended: bool,
) -> Result<Option<(RequestHeader, usize)>, Violation> {
    if extended {
        let Some(head) = bytes.first_chunk::<{ proto::EXTENDED_REQUEST_LEN }>() else {
            return partial(bytes, proto::EXTENDED_REQUEST_MAGIC);
        };
        let request = decode(head, u64_at(head, 24), proto::EXTENDED_REQUEST_MAGIC)?;
        // Writes should have the flag, but QEMU 10.0 sends them without it, data and all.
        let has_payload =
            request.flags & proto::CMD_FLAG_PAYLOAD_LEN != 0 || request.command == proto::CMD_WRITE;
        Ok(Some((with_payload(request, has_payload)?, head.len())))
    } else {
        let Some(head) = bytes.first_chunk::<{ proto::REQUEST_LEN }>() else {
            return partial(bytes, proto::REQUEST_MAGIC);
        };
        let request = decode(head, u64::from(u32_at(head, 24)), proto::REQUEST_MAGIC)?;
        let has_payload = request.command == proto::CMD_WRITE;
        Ok(Some((with_payload(request, has_payload)?, head.len())))
    }
}

#[inline]
fn decode<const N: usize>(
    head: &[u8; N],
    length: u64,
    magic: u32,
) -> Result<RequestHeader, Violation> {
    let found = u32_at(head, 0);
    if found != magic {
        return Err(Violation::RequestMagic(found));
    }
    Ok(RequestHeader {
        flags: (u32_at(head, 4) >> 16) as u16,
        command: u32_at(head, 4) as u16,
        cookie: u64_at(head, 8),
        offset: u64_at(head, 16),
        length,
        payload: 0,
    })
}

#[inline]
fn with_payload(request: RequestHeader, has_payload: bool) -> Result<RequestHeader, Violation> {
    if !has_payload {
        return Ok(request);
    }
    if request.length > limits::MAX_PAYLOAD_SKIP {
        return Err(Violation::PayloadTooLong(request.length));
    }
    Ok(RequestHeader {
        payload: request.length as u32,
        ..request
    })
}

/// Garbage is told apart by its first four bytes, before a whole header has come.
#[cold]
fn partial(bytes: &[u8], magic: u32) -> Result<Option<(RequestHeader, usize)>, Violation> {
    match bytes
        .first_chunk::<4>()
        .map(|found| u32::from_be_bytes(*found))
    {
        Some(found) if found != magic => Err(Violation::RequestMagic(found)),
        _ => Ok(None),
    }
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}
