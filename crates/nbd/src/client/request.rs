//! Requests, client's side.

use crate::proto::{self, Mode};
use crate::wire::Head;

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// One of the `CMD_` values.
    pub command: u16,
    /// `CMD_FLAG_` bits. `CMD_FLAG_PAYLOAD_LEN` is added to writes where headers are extended.
    pub flags: u16,
    /// Mark of the request, to be found again in its replies; must differ from all in flight.
    pub cookie: u64,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The header of a request; the data of a write follows it on the wire.
///
/// `None` if the length does not fit: above `u32::MAX` without extended headers. Nothing else is
/// checked, so that servers can be tested with wrong requests.
#[inline]
pub fn encode_request(mode: Mode, request: &Request) -> Option<Head> {
    let payload = if mode.is_extended() && request.command == proto::CMD_WRITE {
        proto::CMD_FLAG_PAYLOAD_LEN
    } else {
        0
    };
    let flags = request.flags | payload;
    encode_raw_request(mode, &Request { flags, ..*request })
}

/// The header of a request with just the flags it has.
///
/// `None` as with [`encode_request`].
#[inline]
pub fn encode_raw_request(mode: Mode, request: &Request) -> Option<Head> {
    let Request {
        command,
        flags,
        cookie,
        offset,
        length,
    } = *request;
    Some(match mode {
        Mode::Simple | Mode::Structured => {
            let length = u32::try_from(length).ok()?;
            let head = Head::new()
                .u32(proto::REQUEST_MAGIC)
                .u16(flags)
                .u16(command);
            head.u64(cookie).u64(offset).u32(length)
        }
        Mode::Extended => {
            let head = Head::new().u32(proto::EXTENDED_REQUEST_MAGIC).u16(flags);
            head.u16(command).u64(cookie).u64(offset).u64(length)
        }
    })
}

/// A whole block status request that names the contexts to answer for. Only with extended headers,
/// and if the server sent `FLAG_BLOCK_STATUS_PAYLOAD`.
pub fn encode_status_request(request: &Request, contexts: &[u32], out: &mut Vec<u8>) {
    let header = Request {
        command: proto::CMD_BLOCK_STATUS,
        flags: request.flags | proto::CMD_FLAG_PAYLOAD_LEN,
        length: 8 + 4 * contexts.len() as u64,
        ..*request
    };
    let head = encode_request(Mode::Extended, &header).expect("extended lengths always fit");
    out.extend_from_slice(&head);
    out.extend_from_slice(&request.length.to_be_bytes());
    for id in contexts {
        out.extend_from_slice(&id.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Request = Request {
        command: proto::CMD_WRITE,
        flags: proto::CMD_FLAG_FUA,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1112_1314_1516_1718,
        length: 0x2122_2324,
    };

    #[test]
    fn compact_header() {
        let expected = b"\x25\x60\x95\x13\0\x01\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\
            \x11\x12\x13\x14\x15\x16\x17\x18\x21\x22\x23\x24";
        assert_eq!(
            encode_request(Mode::Simple, &WRITE).unwrap().as_slice(),
            expected
        );
        assert_eq!(
            encode_request(Mode::Structured, &WRITE).unwrap().as_slice(),
            expected
        );
        let long = Request {
            length: 1 << 32,
            ..WRITE
        };
        assert!(encode_request(Mode::Structured, &long).is_none());
    }

    #[test]
    fn extended_header() {
        let expected = b"\x21\xe4\x1c\x71\0\x21\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\
            \x11\x12\x13\x14\x15\x16\x17\x18\0\0\0\0\x21\x22\x23\x24";
        assert_eq!(
            encode_request(Mode::Extended, &WRITE).unwrap().as_slice(),
            expected
        );
    }

    #[test]
    fn status_request_with_contexts() {
        let request = Request {
            command: 0,
            flags: 8,
            cookie: 1,
            offset: 2,
            length: 1 << 33,
        };
        let mut out = Vec::new();
        encode_status_request(&request, &[5, 7], &mut out);
        let expected = b"\x21\xe4\x1c\x71\0\x28\0\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\
            \0\0\0\0\0\0\0\x10\0\0\0\x02\0\0\0\0\0\0\0\x05\0\0\0\x07";
        assert_eq!(out, expected);
    }
}
