use super::*;
use crate::proto::{EINVAL, EIO};

const SIMPLE: ReplyTo = ReplyTo {
    mode: Mode::Simple,
    cookie: 0x0102_0304_0506_0708,
    offset: 4096,
};
const STRUCTURED: ReplyTo = ReplyTo {
    mode: Mode::Structured,
    ..SIMPLE
};
const EXTENDED: ReplyTo = ReplyTo {
    mode: Mode::Extended,
    ..SIMPLE
};

const COOKIE: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08";

/// Bytes written by hand: magic, then parts.
fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn success() {
    let simple = bytes(&[b"\x67\x44\x66\x98\0\0\0\0", COOKIE]);
    assert_eq!(SIMPLE.success().as_slice(), simple);
    assert_eq!(STRUCTURED.success().as_slice(), simple);
    let none = bytes(&[
        b"\x6e\x8a\x27\x8c\0\x01\0\0",
        COOKIE,
        b"\0\0\0\0\0\0\x10\0",
        b"\0\0\0\0\0\0\0\0",
    ]);
    assert_eq!(EXTENDED.success().as_slice(), none);
    let none = bytes(&[b"\x66\x8e\x33\xef\0\x01\0\0", COOKIE, b"\0\0\0\0"]);
    assert_eq!(STRUCTURED.none().as_slice(), none);
}

#[test]
fn data() {
    let simple = bytes(&[b"\x67\x44\x66\x98\0\0\0\0", COOKIE]);
    assert_eq!(SIMPLE.data(4096, 512, true).as_slice(), simple);
    let structured = bytes(&[
        b"\x66\x8e\x33\xef\0\0\0\x01",
        COOKIE,
        b"\0\0\x02\x08",
        b"\0\0\0\0\0\0\x12\0",
    ]);
    assert_eq!(STRUCTURED.data(4608, 512, false).as_slice(), structured);
    let extended = bytes(&[
        b"\x6e\x8a\x27\x8c\0\x01\0\x01",
        COOKIE,
        b"\0\0\0\0\0\0\x10\0",
        b"\0\0\0\x01\0\0\0\x07",
        b"\0\0\0\0\0\0\x12\0",
    ]);
    assert_eq!(EXTENDED.data(4608, u32::MAX, true).as_slice(), extended);
}

#[test]
fn holes() {
    let structured = bytes(&[
        b"\x66\x8e\x33\xef\0\x01\0\x02",
        COOKIE,
        b"\0\0\0\x0c",
        b"\0\0\0\0\0\0\x12\0\0\0\x02\0",
    ]);
    assert_eq!(STRUCTURED.hole(4608, 512, true).as_slice(), structured);
    let extended = bytes(&[
        b"\x6e\x8a\x27\x8c\0\0\0\x02",
        COOKIE,
        b"\0\0\0\0\0\0\x10\0",
        b"\0\0\0\0\0\0\0\x0c",
        b"\0\0\0\0\0\0\x12\0\0\0\x02\0",
    ]);
    assert_eq!(EXTENDED.hole(4608, 512, false).as_slice(), extended);
}

#[test]
fn failures() {
    let simple = bytes(&[b"\x67\x44\x66\x98\0\0\0\x05", COOKIE]);
    assert_eq!(SIMPLE.failure(EIO).as_slice(), simple);
    let structured = bytes(&[
        b"\x66\x8e\x33\xef\0\x01\x80\x01",
        COOKIE,
        b"\0\0\0\x06\0\0\0\x05\0\0",
    ]);
    assert_eq!(STRUCTURED.failure(EIO).as_slice(), structured);

    let mut out = Vec::new();
    SIMPLE.failure_with_text(EIO, "why", &mut out);
    assert_eq!(out, simple);
    out.clear();
    STRUCTURED.failure_with_text(EIO, "", &mut out);
    assert_eq!(out, structured);
    out.clear();
    STRUCTURED.failure_with_text(EIO, "why", &mut out);
    let with_text = bytes(&[
        b"\x66\x8e\x33\xef\0\x01\x80\x01",
        COOKIE,
        b"\0\0\0\x09\0\0\0\x05\0\x03why",
    ]);
    assert_eq!(out, with_text);
    out.clear();
    EXTENDED.failure_at(EINVAL, 4097, "why", false, &mut out);
    let at = bytes(&[
        b"\x6e\x8a\x27\x8c\0\0\x80\x02",
        COOKIE,
        b"\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x11",
        b"\0\0\0\x16\0\x03why\0\0\0\0\0\0\x10\x01",
    ]);
    assert_eq!(out, at);
    out.clear();
    EXTENDED.failure_with_text(EIO, &"x".repeat(5000), &mut out);
    assert_eq!(out.len(), 32 + 6 + 4096);
}

fn extents(list: &[(u64, u64)]) -> Vec<Extent> {
    list.iter()
        .map(|&(length, flags)| Extent { length, flags })
        .collect()
}

fn status(to: ReplyTo, list: &[(u64, u64)], length: u64, req_one: bool) -> (usize, Vec<u8>) {
    let mut out = b"before".to_vec();
    let count = to.block_status(7, extents(list), length, req_one, true, &mut out);
    (count, out.split_off(6))
}

#[test]
fn block_status_in_both_widths() {
    let list = [(4096, 0), (0, 5), (512, 3), (512, 3), (8192, 0)];
    let (count, out) = status(STRUCTURED, &list, 1 << 20, false);
    let expected = bytes(&[
        b"\x66\x8e\x33\xef\0\x01\0\x05",
        COOKIE,
        b"\0\0\0\x1c\0\0\0\x07",
        b"\0\0\x10\0\0\0\0\0",
        b"\0\0\x04\0\0\0\0\x03",
        b"\0\0\x20\0\0\0\0\0",
    ]);
    assert_eq!((count, out), (3, expected));
    let (count, out) = status(EXTENDED, &[(1 << 33, 0), (4096, 1 << 40)], 1 << 40, false);
    let expected = bytes(&[
        b"\x6e\x8a\x27\x8c\0\x01\0\x06",
        COOKIE,
        b"\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x28",
        b"\0\0\0\x07\0\0\0\x02",
        b"\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\x10\0\0\0\x01\0\0\0\0\0",
    ]);
    assert_eq!((count, out), (2, expected));
}

fn lengths_32(out: &[u8]) -> Vec<u32> {
    let descriptors = out[24..].chunks(8);
    descriptors
        .map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}

#[test]
fn block_status_keeps_to_the_request() {
    let (_, out) = status(STRUCTURED, &[(100, 0), (100, 1), (100, 0)], 150, false);
    assert_eq!(lengths_32(&out), [100, 50]);
    let (_, out) = status(STRUCTURED, &[(100, 0), (100, 0), (100, 1)], 1000, true);
    assert_eq!(lengths_32(&out), [200]);
    let (_, out) = status(STRUCTURED, &[(1000, 0)], 10, true);
    assert_eq!(lengths_32(&out), [10]);
    // What follows a clamped extent would not follow on the device.
    let (_, out) = status(
        STRUCTURED,
        &[(512, 1), (1 << 32, 0), (512, 1)],
        1 << 40,
        false,
    );
    assert_eq!(lengths_32(&out), [512, 0xffff_0000]);
    let (_, out) = status(STRUCTURED, &[(u64::MAX, 0), (u64::MAX, 0)], u64::MAX, false);
    assert_eq!(lengths_32(&out), [0xffff_0000]);
}

#[test]
fn block_status_needs_an_extent() {
    for list in [&[][..], &[(0, 0)], &[(0, 1), (0, 2)]] {
        assert_eq!(status(EXTENDED, list, 4096, false), (0, Vec::new()));
    }
    assert_eq!(status(EXTENDED, &[(10, 0)], 0, false), (0, Vec::new()));
}

#[test]
fn block_status_is_bounded() {
    let endless = (0..).map(|n| Extent {
        length: 1,
        flags: n & 1,
    });
    let mut out = Vec::new();
    let count = STRUCTURED.block_status(0, endless, u64::MAX, false, false, &mut out);
    assert_eq!(count, limits::MAX_DESCRIPTORS);
    assert_eq!(out.len(), 24 + 8 * count);
}

#[test]
#[should_panic(expected = "chunks were not agreed on")]
fn simple_replies_have_no_holes() {
    SIMPLE.hole(0, 1, true);
}

#[test]
#[should_panic(expected = "not fragmented")]
fn simple_replies_are_whole() {
    SIMPLE.data(4097, 1, true);
}
