use super::*;
use crate::proto::*;

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";

/// An option reply as a server sends it.
fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = REP_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// A machine that has been greeted and waits for options.
fn greeted() -> Haggling {
    let mut haggling = Haggling::new();
    assert!(!haggling.is_idle());
    let (consumed, told) = haggling.input(GREETING).unwrap();
    assert_eq!((consumed, told), (18, Some(Told::Newstyle(3))));
    let mut out = Vec::new();
    haggling.answer(FLAG_C_FIXED_NEWSTYLE | FLAG_C_NO_ZEROES, &mut out);
    assert_eq!(out, [0, 0, 0, 3]);
    haggling
}

fn asked(option: u32, data: &[u8]) -> Haggling {
    let mut haggling = greeted();
    let mut out = Vec::new();
    haggling.send(option, data, &mut out);
    assert_eq!(out[..8], *b"IHAVEOPT");
    assert_eq!(out.len(), OPTION_HEADER_LEN + data.len());
    haggling
}

#[test]
fn an_option_after_the_other() {
    let mut haggling = asked(OPT_LIST, &[]);
    let replies = [
        reply(OPT_LIST, REP_SERVER, b"\0\0\0\x01aabout"),
        reply(OPT_LIST, REP_SERVER, b"\0\0\0\0"),
        reply(OPT_LIST, REP_ACK, b""),
    ]
    .concat();
    let mut rest = &replies[..];
    let mut next = || {
        let (consumed, told) = haggling.input(rest).unwrap();
        rest = &rest[consumed..];
        told
    };
    let export = |name: &str, description: &str| {
        Some(Told::Export {
            name: name.into(),
            description: description.into(),
        })
    };
    assert_eq!(next(), export("a", "about"));
    assert_eq!(next(), export("", ""));
    assert_eq!(next(), Some(Told::Acknowledged));
    assert!(rest.is_empty());
    // Refused, a further option can be tried; granted, the export ends the haggling.
    let mut out = Vec::new();
    haggling.send(OPT_GO, &info_request("x", &[INFO_NAME]), &mut out);
    assert_eq!(out[16..], *b"\0\0\0\x01x\0\x01\0\x01");
    let (_, told) = haggling
        .input(&reply(OPT_GO, REP_ERR_UNKNOWN, b"no"))
        .unwrap();
    let refused = Told::Refused {
        code: REP_ERR_UNKNOWN,
        text: "no".into(),
    };
    assert_eq!(told, Some(refused));
    haggling.send(OPT_GO, &info_request("", &[]), &mut Vec::new());
    let info = reply(OPT_GO, REP_INFO, b"\0\0\0\0\0\0\0\0\x10\0\0\x01");
    let export = Info::Export {
        size: 4096,
        flags: 1,
    };
    assert_eq!(haggling.input(&info).unwrap().1, Some(Told::Info(export)));
    let (_, told) = haggling.input(&reply(OPT_GO, REP_ACK, b"")).unwrap();
    assert_eq!(told, Some(Told::Acknowledged));
    assert!(!haggling.is_idle());
    assert_eq!(haggling.input(b"replies").unwrap(), (0, None));
}

#[test]
fn contexts() {
    assert_eq!(
        context_request("e", &["a:", "b"]),
        b"\0\0\0\x01e\0\0\0\x02\0\0\0\x02a:\0\0\0\x01b"
    );
    let mut haggling = asked(OPT_SET_META_CONTEXT, &context_request::<&str>("", &[]));
    let context = reply(
        OPT_SET_META_CONTEXT,
        REP_META_CONTEXT,
        b"\0\0\0\x07base:allocation",
    );
    let told = Told::Context {
        id: 7,
        name: "base:allocation".into(),
    };
    assert_eq!(haggling.input(&context).unwrap().1, Some(told));
}

#[test]
fn oldstyle_servers_send_all_at_once() {
    let mut greeting = b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53".to_vec();
    greeting.extend_from_slice(&(1u64 << 30).to_be_bytes());
    greeting.extend_from_slice(&[0, 0, 0, 5]);
    greeting.resize(OLDSTYLE_LEN, 0);
    greeting.extend_from_slice(b"more");
    for piece in [1, 7, 152] {
        let mut haggling = Haggling::new();
        let mut told = None;
        let mut at = 0;
        while told.is_none() {
            let end = greeting.len().min(at + piece);
            let consumed;
            (consumed, told) = haggling.input(&greeting[at..end]).unwrap();
            at += consumed;
        }
        let (size, flags) = (1 << 30, 5);
        assert_eq!(told, Some(Told::Oldstyle { size, flags }));
        assert_eq!(at, OLDSTYLE_LEN);
        assert_eq!(haggling.input(b"more").unwrap(), (0, None));
    }
}

#[test]
fn the_answer_to_export_name_has_padding_unless_agreed() {
    for (flags, padding) in [(FLAG_C_NO_ZEROES, 0), (0, EXPORT_NAME_PADDING)] {
        let mut haggling = Haggling::new();
        haggling.input(GREETING).unwrap();
        haggling.answer(flags, &mut Vec::new());
        haggling.send(OPT_EXPORT_NAME, b"name", &mut Vec::new());
        let mut answer = b"\0\0\0\0\0\0\x10\0\0\x03".to_vec();
        answer.resize(10 + padding, 0);
        let (consumed, told) = haggling.input(&answer).unwrap();
        let (size, flags) = (4096, 3);
        assert_eq!(
            (consumed, told),
            (answer.len(), Some(Told::Entered { size, flags }))
        );
    }
}

#[test]
fn lies_end_it() {
    let long = {
        let mut bytes = reply(OPT_LIST, REP_SERVER, b"");
        bytes[16..].copy_from_slice(&(limits::MAX_OPTION_DATA + 1).to_be_bytes());
        bytes
    };
    let mut magic = reply(OPT_LIST, REP_ACK, b"");
    magic[0] = 1;
    let lies = [
        (long, Violation::OptionReplyData(OPT_LIST)),
        (magic.clone(), {
            let magic = u64::from_be_bytes(*magic.first_chunk().unwrap());
            Violation::OptionReplyMagic(magic)
        }),
        (
            reply(OPT_GO, REP_ACK, b""),
            Violation::OptionReply {
                option: OPT_GO,
                reply: REP_ACK,
            },
        ),
        (
            reply(OPT_LIST, REP_INFO, b""),
            Violation::OptionReply {
                option: OPT_LIST,
                reply: REP_INFO,
            },
        ),
        (
            reply(OPT_LIST, REP_ACK, b"x"),
            Violation::OptionReplyData(OPT_LIST),
        ),
        (
            reply(OPT_LIST, REP_SERVER, b"\0\0\0\x09name"),
            Violation::OptionReplyData(OPT_LIST),
        ),
    ];
    for (bytes, violation) in lies {
        let mut haggling = asked(OPT_LIST, &[]);
        assert_eq!(haggling.input(&bytes), Err(violation));
        assert!(!haggling.is_idle());
        assert_eq!(haggling.input(b"x").unwrap(), (0, None), "it is over");
    }
}

#[test]
fn replies_without_end_end_it() {
    let mut haggling = asked(OPT_INFO, &info_request("", &[]));
    let info = reply(OPT_INFO, REP_INFO, b"\0\x63");
    let mut replies = 0;
    let violation = loop {
        match haggling.input(&info) {
            Ok((_, told)) => assert_eq!(told, Some(Told::Info(Info::Other(99)))),
            Err(violation) => break violation,
        }
        replies += 1;
    };
    assert_eq!(violation, Violation::TooManyReplies(OPT_INFO));
    assert_eq!(replies, limits::MAX_OPTIONS + 1);
}
