use super::*;
use crate::Violation;
use crate::proto::*;

const ALL: u16 = FLAG_HAS_FLAGS
    | FLAG_SEND_FLUSH
    | FLAG_SEND_FUA
    | FLAG_SEND_TRIM
    | FLAG_SEND_WRITE_ZEROES
    | FLAG_SEND_DF
    | FLAG_SEND_CACHE
    | FLAG_SEND_FAST_ZERO
    | FLAG_BLOCK_STATUS_PAYLOAD;

const SIZE: u64 = 1 << 40;

fn served(mode: Mode) -> Served {
    Served {
        size: SIZE,
        flags: ALL,
        min_block: 1,
        max_payload: 32 << 20,
        mode,
        contexts: 2,
    }
}

fn request(command: u16, flags: u16, offset: u64, length: u64) -> RequestHeader {
    let payload = if command == CMD_WRITE || flags & CMD_FLAG_PAYLOAD_LEN != 0 {
        length as u32
    } else {
        0
    };
    RequestHeader {
        flags,
        command,
        cookie: 1,
        offset,
        length,
        payload,
    }
}

fn error(request: &RequestHeader, served: &Served) -> u32 {
    let refusal = check(request, served).expect_err("must be refused");
    assert_eq!(
        refusal.payload,
        u64::from(request.payload),
        "the payload must be skipped"
    );
    assert!(!refusal.text.is_empty());
    refusal.error
}

#[test]
fn parses_a_compact_header() {
    let bytes = b"\x25\x60\x95\x13\0\x01\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\
        \x11\x12\x13\x14\x15\x16\x17\x18\0\0\x02\0rest";
    let expected = RequestHeader {
        flags: CMD_FLAG_FUA,
        command: CMD_WRITE,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1112_1314_1516_1718,
        length: 512,
        payload: 512,
    };
    assert_eq!(parse_request(bytes, false), Ok(Some((expected, 28))));
    for short in 0..28 {
        assert_eq!(
            parse_request(&bytes[..short], false),
            Ok(None),
            "{short} bytes"
        );
    }
    assert_eq!(
        parse_request(bytes, true),
        Err(Violation::RequestMagic(REQUEST_MAGIC))
    );
    assert_eq!(
        parse_request(&bytes[..4], true),
        Err(Violation::RequestMagic(REQUEST_MAGIC))
    );
    assert_eq!(
        parse_request(b"GET / HTTP/1.1", false)
            .unwrap_err()
            .to_string()
            .len(),
        33
    );
}

#[test]
fn parses_an_extended_header() {
    let bytes = b"\x21\xe4\x1c\x71\0\x20\0\x07\0\0\0\0\0\0\0\x09\
        \0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x0c";
    let expected = RequestHeader {
        flags: CMD_FLAG_PAYLOAD_LEN,
        command: CMD_BLOCK_STATUS,
        cookie: 9,
        offset: 4096,
        length: 12,
        payload: 12,
    };
    assert_eq!(parse_request(bytes, true), Ok(Some((expected, 32))));
    assert_eq!(parse_request(&bytes[..31], true), Ok(None));
    // A write has a payload even if the client forgot to say so.
    let write = b"\x21\xe4\x1c\x71\0\0\0\x01\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x02\0";
    let (parsed, _) = parse_request(write, true).unwrap().unwrap();
    assert_eq!((parsed.length, parsed.payload), (512, 512));
    // Without the flag, the length is an effect length: 64 bits, and no payload.
    let zeroes =
        b"\x21\xe4\x1c\x71\0\0\0\x06\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\x10\0\0\0\0\x01\0\0\0\0";
    let (parsed, _) = parse_request(zeroes, true).unwrap().unwrap();
    assert_eq!((parsed.length, parsed.payload), (1 << 32, 0));
}

#[test]
fn absurd_payloads_end_the_connection() {
    let mut write = *b"\x25\x60\x95\x13\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0";
    let (parsed, _) = parse_request(&write, false).unwrap().unwrap();
    assert_eq!(u64::from(parsed.payload), limits::MAX_PAYLOAD_SKIP);
    write[27] = 1;
    assert_eq!(
        parse_request(&write, false),
        Err(Violation::PayloadTooLong((128 << 20) + 1))
    );
    // A read of that length has no payload, so it is only refused.
    write[7] = 0;
    assert!(parse_request(&write, false).is_ok());
    let flagged = b"\x21\xe4\x1c\x71\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
    assert_eq!(
        parse_request(flagged, true),
        Err(Violation::PayloadTooLong(u64::MAX))
    );
}

#[test]
fn every_command_passes() {
    let extended = served(Mode::Extended);
    let payload_fua = CMD_FLAG_PAYLOAD_LEN | CMD_FLAG_FUA;
    let table = [
        (
            request(CMD_READ, 0, 1, 2),
            Command::Read {
                offset: 1,
                length: 2,
                df: false,
            },
        ),
        (
            request(CMD_READ, CMD_FLAG_DF, 1, 2),
            Command::Read {
                offset: 1,
                length: 2,
                df: true,
            },
        ),
        (
            request(CMD_WRITE, payload_fua, SIZE - 1, 1),
            Command::Write {
                offset: SIZE - 1,
                length: 1,
                fua: true,
            },
        ),
        (request(CMD_DISC, 0, 0, 0), Command::Disconnect),
        (request(CMD_FLUSH, CMD_FLAG_FUA, 0, 0), Command::Flush),
        (
            request(CMD_TRIM, 0, 0, SIZE),
            Command::Trim {
                offset: 0,
                length: SIZE,
                fua: false,
            },
        ),
        (
            request(CMD_CACHE, 0, 5, 6),
            Command::Cache {
                offset: 5,
                length: 6,
            },
        ),
        (
            request(
                CMD_WRITE_ZEROES,
                CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
                0,
                1 << 33,
            ),
            Command::WriteZeroes {
                offset: 0,
                length: 1 << 33,
                fua: false,
                no_hole: true,
                fast: true,
            },
        ),
        (
            request(CMD_BLOCK_STATUS, CMD_FLAG_REQ_ONE, 0, SIZE),
            Command::BlockStatus {
                offset: 0,
                length: SIZE,
                req_one: true,
            },
        ),
        (
            request(CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN, 9, 12),
            Command::BlockStatusPayload {
                offset: 9,
                payload: 12,
                req_one: false,
            },
        ),
    ];
    for (request, expected) in table {
        assert_eq!(check(&request, &extended), Ok(expected));
    }
    // There is no way to refuse a disconnect.
    let odd = request(CMD_DISC, u16::MAX, 7, 7);
    assert_eq!(check(&odd, &extended), Ok(Command::Disconnect));
}

#[test]
fn writes_and_the_payload_flag() {
    let extended = served(Mode::Extended);
    // The flag is for extended headers only; a compact write is without.
    let write = Command::Write {
        offset: 0,
        length: 1,
        fua: false,
    };
    assert_eq!(
        check(&request(CMD_WRITE, 0, 0, 1), &served(Mode::Simple)),
        Ok(write)
    );
    // Clients that forget the flag are common, and there is nothing else a write could mean.
    assert_eq!(check(&request(CMD_WRITE, 0, 0, 1), &extended), Ok(write));
    let flagged = request(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 0, 1);
    assert_eq!(error(&flagged, &served(Mode::Structured)), EINVAL);
}

#[test]
fn flags_count_only_where_they_belong() {
    let valid = [
        (CMD_READ, CMD_FLAG_FUA | CMD_FLAG_DF),
        (CMD_WRITE, CMD_FLAG_FUA | CMD_FLAG_PAYLOAD_LEN),
        (CMD_FLUSH, CMD_FLAG_FUA),
        (CMD_TRIM, CMD_FLAG_FUA),
        (CMD_CACHE, CMD_FLAG_FUA),
        (
            CMD_WRITE_ZEROES,
            CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
        ),
        (
            CMD_BLOCK_STATUS,
            CMD_FLAG_FUA | CMD_FLAG_REQ_ONE | CMD_FLAG_PAYLOAD_LEN,
        ),
    ];
    for (command, valid) in valid {
        let length = if command == CMD_FLUSH { 0 } else { 16 };
        let needed = if command == CMD_WRITE {
            CMD_FLAG_PAYLOAD_LEN
        } else {
            0
        };
        for bit in 0..16 {
            let flag = 1 << bit;
            let answer = check(
                &request(command, flag | needed, 0, length),
                &served(Mode::Extended),
            );
            assert_eq!(
                answer.is_ok(),
                valid & flag != 0,
                "command {command} flag {flag:#x}"
            );
            if let Err(refusal) = answer {
                assert_eq!(refusal.error, EINVAL);
            }
        }
    }
}

#[test]
fn what_was_not_advertised_is_refused() {
    let table = [
        (FLAG_SEND_FUA, request(CMD_WRITE_ZEROES, CMD_FLAG_FUA, 0, 1)),
        (FLAG_SEND_DF, request(CMD_READ, CMD_FLAG_DF, 0, 1)),
        (FLAG_SEND_FLUSH, request(CMD_FLUSH, 0, 0, 0)),
        (FLAG_SEND_TRIM, request(CMD_TRIM, 0, 0, 1)),
        (FLAG_SEND_CACHE, request(CMD_CACHE, 0, 0, 1)),
        (FLAG_SEND_WRITE_ZEROES, request(CMD_WRITE_ZEROES, 0, 0, 1)),
        (
            FLAG_SEND_FAST_ZERO,
            request(CMD_WRITE_ZEROES, CMD_FLAG_FAST_ZERO, 0, 1),
        ),
        (
            FLAG_BLOCK_STATUS_PAYLOAD,
            request(CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN, 0, 12),
        ),
    ];
    for (flag, request) in table {
        let mut served = served(Mode::Extended);
        assert!(check(&request, &served).is_ok(), "{request:?}");
        served.flags &= !flag;
        assert_eq!(error(&request, &served), EINVAL, "{request:?}");
    }
    let mut bare = served(Mode::Structured);
    bare.contexts = 0;
    assert_eq!(error(&request(CMD_BLOCK_STATUS, 0, 0, 1), &bare), EINVAL);
    for command in [8, 9, 0x7fff, u16::MAX] {
        assert_eq!(
            error(&request(command, 0, 0, 1), &served(Mode::Structured)),
            EINVAL
        );
    }
}

#[test]
fn read_only_comes_first() {
    let mut served = served(Mode::Structured);
    served.flags = FLAG_HAS_FLAGS | FLAG_READ_ONLY;
    for command in [CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES] {
        assert_eq!(error(&request(command, 0, SIZE, 1), &served), EPERM);
    }
    assert!(check(&request(CMD_READ, 0, 0, 1), &served).is_ok());
}

#[test]
fn ranges() {
    let data = [
        (CMD_READ, EINVAL),
        (CMD_WRITE, ENOSPC),
        (CMD_TRIM, EINVAL),
        (CMD_CACHE, EINVAL),
        (CMD_WRITE_ZEROES, ENOSPC),
        (CMD_BLOCK_STATUS, EINVAL),
    ];
    let mut served = served(Mode::Structured);
    for (command, past_end) in data {
        served.size = SIZE;
        let outside = [
            (SIZE, 1),
            (SIZE - 1, 2),
            (u64::MAX, 1),
            (u64::MAX, u64::from(u32::MAX)),
        ];
        for (offset, length) in outside {
            assert_eq!(
                error(&request(command, 0, offset, length), &served),
                past_end
            );
        }
        assert_eq!(error(&request(command, 0, 0, 0), &served), EINVAL);
        assert_eq!(error(&request(command, 0, SIZE, 0), &served), EINVAL);
        assert!(check(&request(command, 0, SIZE - 1, 1), &served).is_ok());
        served.size = u64::MAX;
        assert!(check(&request(command, 0, u64::MAX - 1, 1), &served).is_ok());
        assert_eq!(error(&request(command, 0, u64::MAX, 1), &served), past_end);
        served.size = 0;
        assert_eq!(error(&request(command, 0, 0, 1), &served), past_end);
    }
    assert_eq!(error(&request(CMD_FLUSH, 0, 1, 0), &served), EINVAL);
    assert_eq!(error(&request(CMD_FLUSH, 0, 0, 1), &served), EINVAL);
}

#[test]
fn alignment() {
    let mut served = served(Mode::Structured);
    served.min_block = 512;
    let commands = [
        CMD_READ,
        CMD_WRITE,
        CMD_TRIM,
        CMD_CACHE,
        CMD_WRITE_ZEROES,
        CMD_BLOCK_STATUS,
    ];
    for command in commands {
        assert!(check(&request(command, 0, 512, 1024), &served).is_ok());
        for (offset, length) in [(1, 512), (512, 1), (256, 256), (0, 513)] {
            assert_eq!(error(&request(command, 0, offset, length), &served), EINVAL);
        }
    }
}

#[test]
fn lengths() {
    let served = served(Mode::Extended);
    let most = 32 << 20;
    assert!(check(&request(CMD_READ, 0, 0, most), &served).is_ok());
    assert_eq!(error(&request(CMD_READ, 0, 0, most + 1), &served), EINVAL);
    assert_eq!(error(&request(CMD_READ, 0, 0, 1 << 33), &served), EINVAL);
    assert_eq!(
        error(&request(CMD_READ, CMD_FLAG_DF, 0, most + 1), &served),
        EOVERFLOW
    );
    let write = request(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 0, most);
    assert!(check(&write, &served).is_ok());
    let write = request(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 0, most + 1);
    assert_eq!(error(&write, &served), EINVAL);
    for length in [0, 4, 8, 13, 14, 8 + 4 * 65, 1 << 20] {
        let status = request(CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN, 0, length);
        assert_eq!(error(&status, &served), EINVAL, "payload of {length}");
    }
    let status = request(CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN, 0, 8 + 4 * 64);
    assert!(check(&status, &served).is_ok());
}

#[test]
fn status_payloads() {
    let contexts = [4, 9].map(|id| Context {
        id,
        name: format!("x:{id}"),
    });
    let parse =
        |payload: &[u8]| parse_status_payload(payload, 4096, &served(Mode::Extended), &contexts);
    let (length, set) = parse(b"\0\0\0\x01\0\0\0\0\0\0\0\x09").unwrap();
    assert_eq!(length, 1 << 32);
    assert!(!set.contains(0) && set.contains(1) && set.len() == 1 && !set.contains(64));
    let (_, set) = parse(b"\0\0\0\0\0\0\0\x01\0\0\0\x09\0\0\0\x04").unwrap();
    assert_eq!(set, ContextSet::all(2));
    let bad: [&[u8]; 8] = [
        b"",
        b"\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\x01",
        b"\0\0\0\0\0\0\0\x01\0\0\0\x05",
        b"\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\x04",
        b"\0\0\0\0\0\0\0\x01\0\0\0\x04\0",
        b"\0\0\0\0\0\0\0\0\0\0\0\x04",
        b"\0\0\x01\0\0\0\0\0\0\0\0\x04",
    ];
    for payload in bad {
        let refusal = parse(payload).expect_err("must be refused");
        assert_eq!((refusal.error, refusal.payload), (EINVAL, 0), "{payload:?}");
    }
    assert_eq!(ContextSet::all(64).len(), 64);
    assert!(ContextSet::all(0).is_empty());
}
