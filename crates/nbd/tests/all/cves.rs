//! Mistakes that other NBD servers were told of, one test each: none of them may come back here.

use nbd::{
    Violation,
    proto::*,
    server::{
        Context, Event, ExportInfo, Handshake, Negotiated, Served, ServerOptions, TlsMode,
        reply::{Extent, ReplyTo},
        transmission::{Command, RequestHeader, check},
    },
};

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPT_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// An unnamed export, and no information asked for.
const DEFAULT: [u8; 6] = [0; 6];

/// The default export's `base:allocation`.
const ALLOCATION: &[u8] = b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation";

fn started(tls: TlsMode) -> Handshake {
    let options = ServerOptions {
        tls,
        ..ServerOptions::default()
    };
    let mut machine = Handshake::new(options);
    machine.input(&3u32.to_be_bytes(), &mut Vec::new()).unwrap();
    machine
}

/// Feeds one option and answers its event as a willing server does.
fn serve(machine: &mut Handshake, bytes: &[u8]) -> Option<Negotiated> {
    let mut out = Vec::new();
    let (_, event) = machine.input(bytes, &mut out).expect("no violation");
    let contexts = [Context {
        id: 1,
        name: CONTEXT_BASE_ALLOCATION.into(),
    }];
    match event? {
        Event::List => machine.answer_list(Ok([("", "")]), &mut out),
        Event::MetaContext(_) => machine.answer_contexts(Ok(&contexts), &mut out),
        Event::StartTls => machine.answer_start_tls(Ok(()), 0, &mut out).unwrap(),
        Event::Open(_) => {
            let mut info = ExportInfo::new(1 << 40, "");
            info.flags = FLAG_SEND_DF | FLAG_BLOCK_STATUS_PAYLOAD;
            return machine.answer_open(Ok(info), &mut out).unwrap();
        }
        Event::Abort => {}
    }
    None
}

/// CVE-2019-14850: a server opened its disk for whoever connected.
#[test]
fn nothing_is_opened_before_the_client_asks() {
    for tls in [TlsMode::Off, TlsMode::Offered, TlsMode::Required] {
        let mut machine = started(tls);
        let opens = [
            OPT_INFO,
            OPT_GO,
            OPT_LIST_META_CONTEXT,
            OPT_SET_META_CONTEXT,
        ];
        for number in [OPT_STRUCTURED_REPLY, 77].into_iter().chain(opens) {
            let data = match number {
                OPT_INFO | OPT_GO => &DEFAULT[..],
                OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => ALLOCATION,
                _ => &[],
            };
            let (_, event) = machine
                .input(&option(number, data), &mut Vec::new())
                .unwrap();
            // Where TLS comes first, nothing reaches the disk without it.
            let may = opens.contains(&number) && tls != TlsMode::Required;
            assert_eq!(event.is_some(), may, "{number} {tls:?}");
            if may {
                break;
            }
        }
    }
}

/// CVE-2019-14851: options in an order that nobody had thought of ended a server.
#[test]
fn options_may_come_in_any_order() {
    let all = [
        option(OPT_INFO, &DEFAULT),
        option(OPT_LIST, b""),
        option(OPT_STRUCTURED_REPLY, b""),
        option(OPT_SET_META_CONTEXT, ALLOCATION),
        option(OPT_STARTTLS, b""),
        option(OPT_EXTENDED_HEADERS, b""),
    ];
    for first in &all {
        for second in &all {
            for third in &all {
                let mut machine = started(TlsMode::Offered);
                for bytes in [first, second, third] {
                    assert!(serve(&mut machine, bytes).is_none());
                }
                assert!(serve(&mut machine, &option(OPT_GO, &DEFAULT)).is_some());
            }
        }
    }
}

/// CVE-2021-3716: what somebody in the middle had put before STARTTLS was still in force after it.
#[test]
fn nothing_agreed_on_in_the_clear_survives_starttls() {
    let go = option(OPT_GO, &DEFAULT);
    let injected = [
        vec![option(OPT_STRUCTURED_REPLY, b"")],
        vec![option(OPT_EXTENDED_HEADERS, b"")],
        vec![
            option(OPT_STRUCTURED_REPLY, b""),
            option(OPT_SET_META_CONTEXT, ALLOCATION),
        ],
        vec![option(OPT_INFO, &DEFAULT), option(OPT_LIST, b"")],
    ];
    for before in injected {
        let mut machine = started(TlsMode::Offered);
        for bytes in &before {
            serve(&mut machine, bytes);
        }
        serve(&mut machine, &option(OPT_STARTTLS, b""));
        let negotiated = serve(&mut machine, &go).unwrap();
        assert!(negotiated.tls);
        assert_eq!(negotiated.mode, Mode::Simple);
        assert!(negotiated.contexts.is_empty());
        assert_eq!(negotiated.served.flags, FLAG_HAS_FLAGS);
        // Chunks that are agreed on again do not bring the contexts back.
        let mut machine = started(TlsMode::Offered);
        for bytes in &before {
            serve(&mut machine, bytes);
        }
        serve(&mut machine, &option(OPT_STARTTLS, b""));
        serve(&mut machine, &option(OPT_STRUCTURED_REPLY, b""));
        let negotiated = serve(&mut machine, &go).unwrap();
        assert!(negotiated.contexts.is_empty());
    }
}

/// The same from the other side (hardening of 2022): options that are sent right behind STARTTLS, in
/// the clear, would be executed as if they had come through TLS.
#[test]
fn bytes_behind_starttls_end_the_connection() {
    for behind in [&option(OPT_GO, &DEFAULT)[..], b"x"] {
        let mut machine = started(TlsMode::Required);
        let bytes = [&option(OPT_STARTTLS, b"")[..], behind].concat();
        let mut out = Vec::new();
        let (consumed, event) = machine.input(&bytes, &mut out).unwrap();
        assert_eq!(event, Some(Event::StartTls));
        let unread = bytes.len() - consumed;
        assert_eq!(unread, behind.len(), "nothing is taken in beyond it");
        let answer = machine.answer_start_tls(Ok(()), unread, &mut out);
        assert_eq!(answer, Err(Violation::PlainTextAfterStartTls));
        assert!(out.is_empty() && !machine.tls());
        assert_eq!(machine.input(behind, &mut out), Ok((0, None)));
    }
    // And STARTTLS carries nothing itself.
    let mut machine = started(TlsMode::Required);
    assert!(serve(&mut machine, &option(OPT_STARTTLS, b"x")).is_none());
    assert!(!machine.tls());
}

/// An assertion failed when a client hung up early (2022): it may do so after any byte.
#[test]
fn a_client_may_hang_up_anywhere() {
    let session = [
        option(OPT_STRUCTURED_REPLY, b""),
        option(OPT_SET_META_CONTEXT, ALLOCATION),
        option(OPT_GO, &DEFAULT),
    ]
    .concat();
    for end in 0..session.len() {
        let mut machine = started(TlsMode::Offered);
        let mut bytes = &session[..end];
        while !bytes.is_empty() {
            let (used, event) = machine.input(bytes, &mut Vec::new()).unwrap();
            bytes = &bytes[used..];
            match event {
                Some(Event::MetaContext(_)) => machine.answer_contexts(Ok(&[]), &mut Vec::new()),
                Some(other) => panic!("{other:?} of an option that is not whole"),
                None => {}
            }
        }
    }
}

fn status(served: &Served, offset: u64, length: u64) -> Option<(u64, u64)> {
    let header = RequestHeader {
        flags: 0,
        command: CMD_BLOCK_STATUS,
        cookie: 1,
        offset,
        length,
        payload: 0,
    };
    match check(&header, served) {
        Ok(Command::BlockStatus { offset, length, .. }) => Some((offset, length)),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

/// CVE-2025-47711: a block status of the greatest length ended a server, by one extent too many.
#[test]
fn block_status_of_the_greatest_length() {
    let mut machine = started(TlsMode::Off);
    serve(&mut machine, &option(OPT_STRUCTURED_REPLY, b""));
    serve(&mut machine, &option(OPT_SET_META_CONTEXT, ALLOCATION));
    let negotiated = serve(&mut machine, &option(OPT_GO, &DEFAULT)).unwrap();
    let longest = u64::from(u32::MAX);
    assert_eq!(status(&negotiated.served, 1, longest), Some((1, longest)));

    let to = ReplyTo {
        mode: Mode::Structured,
        cookie: 1,
        offset: 1,
    };
    // One extent for all of it, one beyond it, and more extents than a reply holds.
    let long = [longest, longest + 1, u64::MAX].map(|length| Extent { length, flags: 0 });
    for extent in long {
        let mut out = Vec::new();
        let told = to.block_status(1, [extent], longest, false, true, &mut out);
        assert_eq!((told, out.len()), (1, 20 + 4 + 8));
        let length = u32::from_be_bytes(out[24..28].try_into().unwrap());
        assert!(length > 0);
    }
    let many = (0..limits::MAX_DESCRIPTORS as u64 + 1).map(|n| Extent {
        length: 1,
        flags: n & 1,
    });
    let mut out = Vec::new();
    let told = to.block_status(1, many, longest, false, true, &mut out);
    assert_eq!(told, limits::MAX_DESCRIPTORS);
    assert_eq!(out.len(), 20 + 4 + 8 * limits::MAX_DESCRIPTORS);
}

/// CVE-2025-47712: a large block status that is not aligned ran over 32 bits.
#[test]
fn unaligned_block_status_never_overflows() {
    let served = Served {
        size: u64::MAX,
        flags: FLAG_HAS_FLAGS,
        min_block: 1,
        max_payload: 1 << 20,
        mode: Mode::Extended,
        contexts: 1,
    };
    let longest = u64::from(u32::MAX);
    for (offset, length, good) in [
        (longest, longest, true),
        (511, longest, true),
        (u64::MAX - 1, 1, true),
        (1, u64::MAX - 1, true),
        (1, u64::MAX, false),
        (u64::MAX, u64::MAX, false),
        (u64::MAX - 511, 512, false),
    ] {
        let found = status(&served, offset, length);
        assert_eq!(found, good.then_some((offset, length)), "{offset} {length}");
    }
    let aligned = Served {
        min_block: 65536,
        ..served
    };
    assert_eq!(status(&aligned, 1, longest), None);
    assert_eq!(status(&aligned, 65536, longest), None);
}
