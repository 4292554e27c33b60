use super::*;
use crate::client::Request;
use crate::proto::*;

fn pending(command: u16, flags: u16) -> Pending {
    Pending::new(
        &Request {
            command,
            flags,
            cookie: 1,
            offset: 4096,
            length: 1024,
        },
        2,
    )
}

/// A structured chunk for cookie 1.
fn chunk(done: bool, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u16::from(done).to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1u64.to_be_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a data chunk for cookie 1.
fn data_head(done: bool, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = chunk(done, REPLY_TYPE_OFFSET_DATA, &offset.to_be_bytes());
    bytes[16..20].copy_from_slice(&(length + 8).to_be_bytes());
    bytes
}

fn hole(done: bool, offset: u64, length: u32) -> Vec<u8> {
    let payload = [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
    chunk(done, REPLY_TYPE_OFFSET_HOLE, &payload)
}

fn next<'a>(
    parser: &mut Replies,
    bytes: &'a [u8],
    pending: &mut Pending,
) -> Result<Option<Reply<'a>>, Violation> {
    let (consumed, reply) = parser.input(bytes, |cookie| (cookie == 1).then_some(pending))?;
    if reply.is_some() {
        assert_eq!(consumed, bytes.len());
    }
    Ok(reply)
}

fn one(bytes: &[u8], pending: &mut Pending) -> Result<(), Violation> {
    next(&mut Replies::new(Mode::Structured), bytes, pending).map(|reply| {
        assert!(reply.is_some(), "more bytes were wanted");
    })
}

#[test]
fn magics_must_be_those_agreed_on() {
    let table = [
        (SIMPLE_REPLY_MAGIC, [true, true, false]),
        (STRUCTURED_REPLY_MAGIC, [false, true, false]),
        (EXTENDED_REPLY_MAGIC, [false, false, true]),
        (REQUEST_MAGIC, [false, false, false]),
        (0, [false, false, false]),
    ];
    for (magic, allowed) in table {
        for (mode, allowed) in [Mode::Simple, Mode::Structured, Mode::Extended]
            .into_iter()
            .zip(allowed)
        {
            let bytes = magic.to_be_bytes();
            let found = Replies::new(mode).input(&bytes, |_| None);
            let expected = if allowed {
                Ok((0, None))
            } else {
                Err(Violation::ReplyMagic(magic))
            };
            assert_eq!(found, expected, "{magic:#x} {mode:?}");
        }
    }
}

#[test]
fn simple_replies() {
    let mut parser = Replies::new(Mode::Simple);
    let good = b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x01";
    let bad = b"\x67\x44\x66\x98\0\0\0\x1c\0\0\0\0\0\0\0\x01";
    let data = Reply::Data {
        cookie: 1,
        offset: 4096,
        length: 1024,
        last: true,
    };
    assert_eq!(
        next(&mut parser, good, &mut pending(CMD_READ, 0)),
        Ok(Some(data))
    );
    let done = Reply::Done { cookie: 1 };
    assert_eq!(
        next(&mut parser, good, &mut pending(CMD_WRITE, 0)),
        Ok(Some(done.clone()))
    );
    for command in [CMD_READ, CMD_WRITE] {
        let text = Cow::Borrowed("");
        let error = Reply::Error {
            cookie: 1,
            error: ENOSPC,
            text,
            offset: None,
            last: true,
        };
        assert_eq!(
            next(&mut parser, bad, &mut pending(command, 0)),
            Ok(Some(error))
        );
    }
    // A read of nothing brings nothing.
    let request = Request {
        command: CMD_READ,
        flags: 0,
        cookie: 1,
        offset: 0,
        length: 0,
    };
    let mut empty = Pending::new(&request, 0);
    assert_eq!(next(&mut parser, good, &mut empty), Ok(Some(done)));
    for short in 0..16 {
        assert_eq!(parser.input(&good[..short], |_| None), Ok((0, None)));
    }
    assert_eq!(parser.input(good, |_| None), Err(Violation::Cookie(1)));
    let mut read = pending(CMD_READ, 0);
    assert_eq!(one(good, &mut read), Err(Violation::SimpleReplyToRead));
    assert_eq!(one(bad, &mut read), Err(Violation::SimpleReplyToRead));
    assert_eq!(one(good, &mut pending(CMD_TRIM, 0)), Ok(()));
    // A status cannot be empty.
    assert_eq!(
        one(good, &mut pending(CMD_BLOCK_STATUS, 0)),
        Err(Violation::BadStatus)
    );
}

#[test]
fn content_chunks_stay_in_range() {
    let range = Err(Violation::ChunkRange);
    let outside = [
        (4095, 2),
        (4095, 1),
        (5120, 1),
        (5119, 2),
        (4096, 1025),
        (u64::MAX, 2),
        (0, 9),
    ];
    for (offset, length) in outside {
        assert_eq!(
            one(&data_head(false, offset, length), &mut pending(CMD_READ, 0)),
            range
        );
        assert_eq!(
            one(&hole(false, offset, length), &mut pending(CMD_READ, 0)),
            range
        );
    }
    assert_eq!(one(&hole(false, 4096, 0), &mut pending(CMD_READ, 0)), range);
    let empty = data_head(false, 4096, 0);
    assert!(matches!(
        one(&empty, &mut pending(CMD_READ, 0)),
        Err(Violation::ChunkLength { .. })
    ));
    let not_read = Err(Violation::ChunkType(REPLY_TYPE_OFFSET_DATA));
    assert_eq!(
        one(&data_head(false, 4096, 1), &mut pending(CMD_WRITE, 0)),
        not_read
    );
}

#[test]
fn reads_must_be_complete() {
    let none = chunk(true, REPLY_TYPE_NONE, b"");
    let mut read = pending(CMD_READ, 0);
    assert_eq!(one(&none, &mut read), Err(Violation::ShortRead(1024)));
    assert_eq!(one(&data_head(false, 4608, 512), &mut read), Ok(()));
    assert_eq!(one(&none, &mut read), Err(Violation::ShortRead(512)));
    let mut early = read;
    assert_eq!(
        one(&hole(true, 4096, 511), &mut early),
        Err(Violation::ShortRead(1))
    );
    // More than was asked for cannot hide in overlaps.
    let mut over = read;
    assert_eq!(
        one(&hole(false, 4096, 513), &mut over),
        Err(Violation::ChunkRange)
    );
    assert_eq!(one(&hole(false, 4096, 512), &mut read), Ok(()));
    assert_eq!(one(&none, &mut read), Ok(()));
    // After an error, data may be missing.
    let mut failed = pending(CMD_READ, 0);
    let error = chunk(false, REPLY_TYPE_ERROR, b"\0\0\0\x05\0\0");
    assert_eq!(one(&error, &mut failed), Ok(()));
    assert_eq!(one(&none, &mut failed), Ok(()));
}

#[test]
fn unfragmented_reads() {
    let mut read = pending(CMD_READ, CMD_FLAG_DF);
    assert_eq!(one(&hole(false, 4096, 512), &mut read), Ok(()));
    assert_eq!(
        one(&hole(false, 4608, 512), &mut read),
        Err(Violation::Fragmented)
    );
}

#[test]
fn errors() {
    let parse = |kind: u16, payload: &[u8]| {
        let bytes = chunk(true, kind, payload);
        let found = next(
            &mut Replies::new(Mode::Structured),
            &bytes,
            &mut pending(CMD_READ, 0),
        );
        found.map(|reply| match reply {
            Some(Reply::Error {
                error,
                text,
                offset,
                last: true,
                cookie: 1,
            }) => (error, text.into_owned(), offset),
            other => panic!("{other:?}"),
        })
    };
    let at = REPLY_TYPE_ERROR_OFFSET;
    assert_eq!(
        parse(REPLY_TYPE_ERROR, b"\0\0\0\x05\0\0"),
        Ok((5, String::new(), None))
    );
    assert_eq!(
        parse(REPLY_TYPE_ERROR, b"\0\0\0\x05\0\x03why"),
        Ok((5, "why".into(), None))
    );
    // Trailing fields and unknown kinds of errors are for later versions.
    assert_eq!(
        parse(REPLY_TYPE_ERROR, b"\0\0\0\x05\0\x01whatever"),
        Ok((5, "w".into(), None))
    );
    assert_eq!(
        parse(0x8077, b"\0\0\0\x09\0\x02hmxyz"),
        Ok((9, "hm".into(), None))
    );
    assert_eq!(
        parse(0x8077, b"\0\0\0\x09\0\x01\xff"),
        Ok((9, "\u{fffd}".into(), None))
    );
    let located = parse(at, b"\0\0\0\x05\0\x01x\0\0\0\0\0\0\x10\x01");
    assert_eq!(located, Ok((5, "x".into(), Some(4097))));
    for offset in [0u64, 4095, 5120, u64::MAX] {
        let payload = [b"\0\0\0\x05\0\0", &offset.to_be_bytes()[..]].concat();
        assert_eq!(parse(at, &payload), Err(Violation::ChunkRange));
    }
    assert_eq!(
        parse(REPLY_TYPE_ERROR, b"\0\0\0\0\0\0"),
        Err(Violation::BadError)
    );
    let long = [&b"\0\0\0\x05\x10\x01"[..], &[b'x'; 4097]].concat();
    let huge = vec![0; 8193];
    let bad: [(u16, &[u8]); 6] = [
        (REPLY_TYPE_ERROR, b"\0\0\0\x05\0"),
        (REPLY_TYPE_ERROR, b"\0\0\0\x05\0\x04why"),
        (at, b"\0\0\0\x05\0\0"),
        (at, b"\0\0\0\x05\0\x01\0\0\0\0\0\0\x10\x01"),
        (REPLY_TYPE_ERROR, &long),
        (REPLY_TYPE_ERROR, &huge),
    ];
    for (kind, payload) in bad {
        assert!(
            matches!(parse(kind, payload), Err(Violation::ChunkLength { .. })),
            "{kind:#x} {payload:?}"
        );
    }
}

#[test]
fn endless_errors_are_noticed() {
    let mut read = pending(CMD_READ, 0);
    let error = chunk(false, REPLY_TYPE_ERROR, b"\0\0\0\x05\0\0");
    for _ in 0..limits::MAX_ERROR_CHUNKS {
        assert_eq!(one(&error, &mut read), Ok(()));
    }
    assert_eq!(one(&error, &mut read), Err(Violation::TooManyErrors));
}

#[test]
fn malformed_chunks() {
    let bad: [(Vec<u8>, Violation); 5] = [
        (chunk(false, REPLY_TYPE_NONE, b""), Violation::BadError),
        (
            chunk(true, REPLY_TYPE_NONE, b"x"),
            Violation::ChunkLength {
                chunk: REPLY_TYPE_NONE,
                length: 1,
            },
        ),
        (chunk(true, 3, b""), Violation::ChunkType(3)),
        (chunk(true, 0x7fff, b"x"), Violation::ChunkType(0x7fff)),
        (
            chunk(true, REPLY_TYPE_OFFSET_HOLE, &[0; 13]),
            Violation::ChunkLength {
                chunk: REPLY_TYPE_OFFSET_HOLE,
                length: 13,
            },
        ),
    ];
    for (bytes, expected) in bad {
        assert_eq!(one(&bytes, &mut pending(CMD_READ, 0)), Err(expected));
    }
}

#[test]
fn extended_replies_repeat_the_offset() {
    let mut bytes =
        *b"\x6e\x8a\x27\x8c\0\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0";
    let mut parser = Replies::new(Mode::Extended);
    let mut write = pending(CMD_WRITE, 0);
    assert_eq!(
        next(&mut parser, &bytes, &mut write),
        Ok(Some(Reply::Done { cookie: 1 }))
    );
    bytes[23] = 1;
    assert_eq!(
        next(&mut parser, &bytes, &mut write),
        Err(Violation::ChunkRange)
    );
    // A length of 64 bits is not believed.
    bytes[23] = 0;
    bytes[7] = 1;
    bytes[24..].fill(0xff);
    let mut long = bytes.to_vec();
    long.extend_from_slice(&4096u64.to_be_bytes());
    let mut read = pending(CMD_READ, 0);
    assert_eq!(
        next(&mut parser, &long, &mut read),
        Err(Violation::ChunkRange)
    );
}

#[test]
fn block_status() {
    let payload = b"\0\0\0\x07\0\0\x02\0\0\0\0\x03\0\0\x04\0\0\0\0\0";
    let bytes = chunk(true, REPLY_TYPE_BLOCK_STATUS, payload);
    let mut parser = Replies::new(Mode::Structured);
    let mut status = pending(CMD_BLOCK_STATUS, 0);
    let Ok(Some(reply)) = next(&mut parser, &bytes, &mut status) else {
        panic!("no reply")
    };
    let Reply::BlockStatus {
        cookie: 1,
        context: 7,
        extents,
        end: true,
        last: true,
    } = reply
    else {
        panic!("{reply:?}")
    };
    let expected = [
        Extent {
            length: 512,
            flags: 3,
        },
        Extent {
            length: 1024,
            flags: 0,
        },
    ];
    assert!(extents.eq(expected));

    let status = |flags, payload: &[u8]| {
        let bytes = chunk(true, REPLY_TYPE_BLOCK_STATUS, payload);
        one(&bytes, &mut pending(CMD_BLOCK_STATUS, flags))
    };
    assert_eq!(status(CMD_FLAG_REQ_ONE, payload), Err(Violation::BadStatus));
    assert_eq!(status(0, &payload[..4]), Err(Violation::BadStatus));
    assert_eq!(
        status(0, b"\0\0\0\x07\0\0\0\0\0\0\0\0"),
        Err(Violation::BadStatus)
    );
    for length in [0, 3, 5, 11] {
        let answer = status(0, &payload[..length]);
        assert!(
            matches!(answer, Err(Violation::ChunkLength { .. })),
            "{length}"
        );
    }
    let not_status = one(&bytes, &mut pending(CMD_READ, 0));
    assert_eq!(
        not_status,
        Err(Violation::ChunkType(REPLY_TYPE_BLOCK_STATUS))
    );
    // 64-bit lengths are for extended headers.
    let wide = chunk(true, REPLY_TYPE_BLOCK_STATUS_EXT, &[0; 24]);
    let expected = Err(Violation::ChunkType(REPLY_TYPE_BLOCK_STATUS_EXT));
    assert_eq!(one(&wide, &mut pending(CMD_BLOCK_STATUS, 0)), expected);
    let none = chunk(true, REPLY_TYPE_NONE, b"");
    assert_eq!(
        one(&none, &mut pending(CMD_BLOCK_STATUS, 0)),
        Err(Violation::BadStatus)
    );
    // One chunk for each context, and there are two.
    let bytes = chunk(false, REPLY_TYPE_BLOCK_STATUS, payload);
    let mut status = pending(CMD_BLOCK_STATUS, 0);
    assert_eq!(one(&bytes, &mut status), Ok(()));
    assert_eq!(one(&bytes, &mut status), Ok(()));
    assert_eq!(one(&bytes, &mut status), Err(Violation::BadStatus));
}

#[test]
fn wide_block_status_comes_in_pieces() {
    let mut bytes =
        b"\x6e\x8a\x27\x8c\0\x01\0\x06\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x28\
        \0\0\0\x07\0\0\0\x02\
        \0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x03\
        \0\0\0\0\0\0\x02\0\x80\0\0\0\0\0\0\0"
            .to_vec();
    let mut parser = Replies::new(Mode::Extended);
    let mut status = pending(CMD_BLOCK_STATUS, 0);
    let (mut at, mut seen) = (0, Vec::new());
    for end in 0..=bytes.len() {
        let (consumed, reply) = parser
            .input(&bytes[at..end], |_| Some(&mut status))
            .unwrap();
        at += consumed;
        if let Some(Reply::BlockStatus {
            extents, end, last, ..
        }) = reply
        {
            seen.extend(extents.map(|extent| (extent.length, extent.flags, end && last)));
        }
    }
    assert_eq!(at, bytes.len());
    assert_eq!(seen, [(1 << 32, 3, false), (512, 1 << 63, true)]);
    // The count must fit the length, or be 0.
    bytes[39] = 0;
    let mut parser = Replies::new(Mode::Extended);
    assert!(
        next(&mut parser, &bytes, &mut pending(CMD_BLOCK_STATUS, 0))
            .unwrap()
            .is_some()
    );
    bytes[39] = 3;
    let answer = next(&mut parser, &bytes, &mut pending(CMD_BLOCK_STATUS, 0));
    assert_eq!(answer, Err(Violation::BadStatus));
}
