use super::*;
use crate::proto::*;
use crate::server::BlockSizes;

/// An option as a client sends it.
fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPT_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Data of `OPT_INFO` and `OPT_GO`.
fn open_data(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&(infos.len() as u16).to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    data
}

/// Data of the metadata options.
fn context_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&(query.len() as u32).to_be_bytes());
        data.extend_from_slice(query.as_bytes());
    }
    data
}

/// Option replies: (option, type, data).
type Replies = Vec<(u32, u32, Vec<u8>)>;

/// Takes a stream of option replies apart.
fn replies(mut out: &[u8]) -> Replies {
    let mut found = Vec::new();
    while !out.is_empty() {
        let mut reader = Reader(out);
        assert_eq!(reader.u64(), Some(REP_MAGIC));
        let (option, kind) = (reader.u32().unwrap(), reader.u32().unwrap());
        let length = reader.u32().unwrap() as usize;
        found.push((option, kind, reader.bytes(length).unwrap().to_vec()));
        out = reader.0;
    }
    found
}

/// A machine that has had the client's flags.
fn started(options: ServerOptions) -> Handshake {
    let mut handshake = Handshake::new(options);
    let flags = u32::from(handshake.handshake_flags());
    let mut out = Vec::new();
    assert_eq!(
        handshake.input(&flags.to_be_bytes(), &mut out),
        Ok((4, None))
    );
    assert!(out.is_empty());
    handshake
}

fn new() -> Handshake {
    started(ServerOptions::default())
}

/// Sends one option; gives the event, and the replies so far.
fn send(handshake: &mut Handshake, bytes: &[u8]) -> (Option<Event>, Replies) {
    let mut out = Vec::new();
    let (consumed, event) = handshake.input(bytes, &mut out).expect("no violation");
    assert_eq!(consumed, bytes.len());
    (event, replies(&out))
}

/// Sends one option that is answered at once, and gives the type of the reply.
fn code(handshake: &mut Handshake, number: u32, data: &[u8]) -> u32 {
    let (event, replies) = send(handshake, &option(number, data));
    assert_eq!(event, None);
    let [(told, kind, text)] = &replies[..] else {
        panic!("one reply, not {replies:?}")
    };
    assert_eq!(*told, number);
    // Acknowledgements are bare; refusals say why.
    assert_eq!(*kind == REP_ACK, text.is_empty());
    *kind
}

fn violation(handshake: &mut Handshake, bytes: &[u8]) -> Violation {
    let mut out = Vec::new();
    let violation = handshake.input(bytes, &mut out).expect_err("a violation");
    assert_eq!(
        handshake.input(b"more", &mut out),
        Ok((0, None)),
        "nothing after a violation"
    );
    violation
}

fn contexts() -> Vec<Context> {
    [
        "base:allocation",
        "qemu:dirty-bitmap:a",
        "qemu:dirty-bitmap:b",
    ]
    .iter()
    .enumerate()
    .map(|(n, name)| Context {
        id: n as u32 + 1,
        name: name.to_string(),
    })
    .collect()
}

/// Selects contexts; gives the ids that were granted.
fn select(handshake: &mut Handshake, name: &str, queries: &[&str]) -> Vec<u32> {
    let data = context_data(name, queries);
    let (event, _) = send(handshake, &option(OPT_SET_META_CONTEXT, &data));
    assert!(matches!(event, Some(Event::MetaContext(_))));
    let mut out = Vec::new();
    handshake.answer_contexts(Ok(&contexts()), &mut out);
    let replies = replies(&out);
    let (last, rest) = replies.split_last().unwrap();
    assert_eq!((last.1, last.2.len()), (REP_ACK, 0));
    let id = |data: &[u8]| u32::from_be_bytes([data[0], data[1], data[2], data[3]]);
    rest.iter()
        .map(|(_, kind, data)| (assert_eq!(*kind, REP_META_CONTEXT), id(data)).1)
        .collect()
}

type Opened = (Result<Option<Negotiated>, Violation>, Replies);

/// Sends `OPT_GO` or `OPT_INFO` and answers it.
fn open(
    handshake: &mut Handshake,
    number: u32,
    name: &str,
    infos: &[u16],
    answer: Result<ExportInfo, Refused>,
) -> Opened {
    let (event, early) = send(handshake, &option(number, &open_data(name, infos)));
    assert!(matches!(event, Some(Event::Open(_))) && early.is_empty());
    let mut out = Vec::new();
    let opened = handshake.answer_open(answer, &mut out);
    (opened, replies(&out))
}

fn go(handshake: &mut Handshake, name: &str, flags: u16) -> Negotiated {
    let info = ExportInfo {
        flags,
        ..ExportInfo::new(1 << 20, name)
    };
    open(handshake, OPT_GO, name, &[], Ok(info))
        .0
        .unwrap()
        .unwrap()
}

#[test]
fn greeting() {
    let greeting = Handshake::new(ServerOptions::default()).greeting();
    assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
    let bare = ServerOptions {
        fixed_newstyle: false,
        no_zeroes: false,
        ..ServerOptions::default()
    };
    assert_eq!(&Handshake::new(bare).greeting()[16..], [0, 0]);
}

#[test]
fn client_flags_must_have_been_offered() {
    for flags in [4u32, 1 << 31, 7] {
        let mut handshake = Handshake::new(ServerOptions::default());
        assert_eq!(
            violation(&mut handshake, &flags.to_be_bytes()),
            Violation::ClientFlags(flags)
        );
    }
    let table = [(false, true, 1u32), (true, false, 2)];
    for (fixed_newstyle, no_zeroes, flags) in table {
        let options = ServerOptions {
            fixed_newstyle,
            no_zeroes,
            ..ServerOptions::default()
        };
        let mut handshake = Handshake::new(options);
        assert_eq!(
            violation(&mut handshake, &flags.to_be_bytes()),
            Violation::ClientFlags(flags)
        );
    }
}

#[test]
fn clients_without_fixed_newstyle_know_one_option() {
    for number in [OPT_ABORT, OPT_LIST, OPT_GO, OPT_STARTTLS, 99] {
        let mut handshake = new();
        handshake.fixed = false;
        let bytes = option(number, b"");
        assert_eq!(
            violation(&mut handshake, &bytes),
            Violation::NotFixed(number)
        );
    }
    let mut handshake = new();
    handshake.fixed = false;
    let (event, _) = send(&mut handshake, &option(OPT_EXPORT_NAME, b"x"));
    assert!(matches!(event, Some(Event::Open(_))));
}

#[test]
fn export_name() {
    for padding in [false, true] {
        let mut handshake = new();
        handshake.no_zeroes = !padding;
        let (event, _) = send(&mut handshake, &option(OPT_EXPORT_NAME, b"disk"));
        let Some(Event::Open(request)) = event else {
            panic!("{event:?}")
        };
        assert_eq!(
            (request.name.as_str(), request.purpose),
            ("disk", Purpose::ExportName)
        );
        let mut out = Vec::new();
        let info = ExportInfo {
            flags: FLAG_SEND_DF,
            ..ExportInfo::new(0x1234, "disk")
        };
        let negotiated = handshake.answer_open(Ok(info), &mut out).unwrap().unwrap();
        assert_eq!(negotiated.mode, Mode::Simple);
        // No structured replies, so no DF.
        let mut expected = b"\0\0\0\0\0\0\x12\x34\0\x01".to_vec();
        expected.resize(if padding { 134 } else { 10 }, 0);
        assert_eq!(out, expected);
        // Requests are not the handshake's.
        assert_eq!(
            handshake.input(b"\x25\x60\x95\x13", &mut out),
            Ok((0, None))
        );
    }
}

#[test]
fn export_name_cannot_be_refused_with_a_reply() {
    let mut handshake = new();
    send(&mut handshake, &option(OPT_EXPORT_NAME, b"no"));
    let mut out = Vec::new();
    let refused = Refused::new(REP_ERR_UNKNOWN, "no such export");
    let answer = handshake.answer_open(Err(refused), &mut out);
    assert_eq!(answer.unwrap_err(), Violation::ExportRefused);
    assert!(out.is_empty());

    for name in [&[0xff][..], b"a\0b"] {
        let bytes = option(OPT_EXPORT_NAME, name);
        assert_eq!(violation(&mut new(), &bytes), Violation::BadExportName);
    }
    // Known from the header alone.
    let long = &option(OPT_EXPORT_NAME, &[b'x'; 4097])[..16];
    assert_eq!(violation(&mut new(), long), Violation::BadExportName);

    let mut handshake = new();
    assert_eq!(code(&mut handshake, OPT_EXTENDED_HEADERS, b""), REP_ACK);
    let bytes = option(OPT_EXPORT_NAME, b"x");
    assert_eq!(
        violation(&mut handshake, &bytes),
        Violation::ExportNameWithExtendedHeaders
    );
    let options = ServerOptions {
        require_extended_headers: true,
        ..ServerOptions::default()
    };
    let mut handshake = started(options);
    assert_eq!(
        violation(&mut handshake, &bytes),
        Violation::ExportNameWithExtendedHeaders
    );
    let mut handshake = new();
    handshake.shut_down();
    assert_eq!(violation(&mut handshake, &bytes), Violation::ExportRefused);
}

#[test]
fn abort() {
    for data in [&b""[..], b"ignored", &[0; 70_000]] {
        let mut handshake = new();
        handshake.shut_down();
        let (event, replies) = send(&mut handshake, &option(OPT_ABORT, data));
        assert_eq!(event, Some(Event::Abort));
        assert_eq!(replies, [(OPT_ABORT, REP_ACK, vec![])]);
        assert_eq!(handshake.input(b"more", &mut Vec::new()), Ok((0, None)));
    }
}

#[test]
fn list() {
    let mut handshake = new();
    let (event, _) = send(&mut handshake, &option(OPT_LIST, b""));
    assert_eq!(event, Some(Event::List));
    let mut out = Vec::new();
    let long = "x".repeat(4097);
    let exports = [
        ("", "the default"),
        ("a", ""),
        (&long, "cannot be asked for"),
    ];
    handshake.answer_list(Ok(exports), &mut out);
    let expected = [
        (OPT_LIST, REP_SERVER, b"\0\0\0\0the default".to_vec()),
        (OPT_LIST, REP_SERVER, b"\0\0\0\x01a".to_vec()),
        (OPT_LIST, REP_ACK, vec![]),
    ];
    assert_eq!(replies(&out), expected);

    send(&mut handshake, &option(OPT_LIST, b""));
    out.clear();
    let refused = Refused::new(REP_ERR_PLATFORM, "no");
    handshake.answer_list::<&str, &str>(Err::<[(&str, &str); 0], _>(refused), &mut out);
    assert_eq!(
        replies(&out),
        [(OPT_LIST, REP_ERR_PLATFORM, b"no".to_vec())]
    );

    let mut handshake = started(ServerOptions {
        list: false,
        ..ServerOptions::default()
    });
    assert_eq!(code(&mut handshake, OPT_LIST, b""), REP_ERR_POLICY);
}

#[test]
fn options_without_data_and_unknown_ones() {
    let bare = [
        OPT_LIST,
        OPT_STARTTLS,
        OPT_STRUCTURED_REPLY,
        OPT_EXTENDED_HEADERS,
    ];
    for number in bare {
        assert_eq!(code(&mut new(), number, b"x"), REP_ERR_INVALID, "{number}");
        assert_eq!(
            code(&mut new(), number, &[0; 70_000]),
            REP_ERR_INVALID,
            "{number}"
        );
    }
    for number in [0, OPT_PEEK_EXPORT, 12, u32::MAX] {
        assert_eq!(code(&mut new(), number, b""), REP_ERR_UNSUP);
        assert_eq!(code(&mut new(), number, b"anything"), REP_ERR_UNSUP);
        assert_eq!(code(&mut new(), number, &[0; 70_000]), REP_ERR_UNSUP);
    }
}

#[test]
fn oversized_options_are_skipped_up_to_a_bound() {
    for number in [
        OPT_INFO,
        OPT_GO,
        OPT_LIST_META_CONTEXT,
        OPT_SET_META_CONTEXT,
    ] {
        let mut handshake = new();
        assert_eq!(code(&mut handshake, number, &[0; 65_537]), REP_ERR_TOO_BIG);
        // And the stream goes on where it should.
        assert_eq!(code(&mut handshake, OPT_STRUCTURED_REPLY, b""), REP_ACK);
    }
    let mut handshake = new();
    let mut header = option(OPT_GO, b"");
    header[12..].copy_from_slice(&(64u32 << 20).to_be_bytes());
    let mut out = Vec::new();
    assert_eq!(handshake.input(&header, &mut out), Ok((16, None)));
    let zeroes = vec![0; 1 << 20];
    for _ in 0..64 {
        assert!(out.is_empty());
        assert_eq!(handshake.input(&zeroes, &mut out), Ok((1 << 20, None)));
        assert_eq!(handshake.buffered(), 0);
    }
    assert_eq!(replies(&out)[0].1, REP_ERR_TOO_BIG);
    header[15] = 1;
    let length = (64 << 20) + 1;
    let expected = Violation::OptionTooLong {
        option: OPT_GO,
        length,
    };
    assert_eq!(violation(&mut handshake, &header), expected);
}

#[test]
fn bad_magic_and_too_many_options() {
    let mut bytes = option(OPT_LIST, b"");
    bytes[0] = b'X';
    assert!(matches!(
        violation(&mut new(), &bytes),
        Violation::OptionMagic(_)
    ));

    let mut handshake = new();
    for _ in 0..limits::MAX_OPTIONS {
        assert_eq!(code(&mut handshake, 99, b""), REP_ERR_UNSUP);
    }
    assert_eq!(
        violation(&mut handshake, &option(99, b"")),
        Violation::TooManyOptions
    );
}

#[test]
fn structured_replies_and_extended_headers() {
    let mut handshake = new();
    assert_eq!(code(&mut handshake, OPT_STRUCTURED_REPLY, b""), REP_ACK);
    assert_eq!(
        code(&mut handshake, OPT_STRUCTURED_REPLY, b""),
        REP_ERR_INVALID
    );
    assert_eq!(handshake.mode, Mode::Structured);
    assert_eq!(code(&mut handshake, OPT_EXTENDED_HEADERS, b""), REP_ACK);
    assert_eq!(handshake.mode, Mode::Extended);
    assert_eq!(
        code(&mut handshake, OPT_EXTENDED_HEADERS, b""),
        REP_ERR_INVALID
    );
    assert_eq!(
        code(&mut handshake, OPT_STRUCTURED_REPLY, b""),
        REP_ERR_EXT_HEADER_REQD
    );
    assert_eq!(handshake.mode, Mode::Extended);

    let options = ServerOptions {
        structured_replies: false,
        extended_headers: false,
        ..ServerOptions::default()
    };
    let mut handshake = started(options);
    assert_eq!(
        code(&mut handshake, OPT_STRUCTURED_REPLY, b""),
        REP_ERR_UNSUP
    );
    assert_eq!(
        code(&mut handshake, OPT_EXTENDED_HEADERS, b""),
        REP_ERR_UNSUP
    );
    assert_eq!(handshake.mode, Mode::Simple);

    let options = ServerOptions {
        require_extended_headers: true,
        ..ServerOptions::default()
    };
    let mut handshake = started(options);
    let data = open_data("", &[]);
    assert_eq!(code(&mut handshake, OPT_GO, &data), REP_ERR_EXT_HEADER_REQD);
    let data = context_data("", &[]);
    assert_eq!(
        code(&mut handshake, OPT_SET_META_CONTEXT, &data),
        REP_ERR_EXT_HEADER_REQD
    );
    assert_eq!(code(&mut handshake, OPT_EXTENDED_HEADERS, b""), REP_ACK);
    assert_eq!(go(&mut handshake, "", 0).mode, Mode::Extended);
}

#[test]
fn info_and_go_tell_what_was_asked() {
    let sizes = BlockSizes::new(512, 4096, 1 << 20).unwrap();
    let info = ExportInfo {
        description: "a disk".into(),
        block_sizes: Some(sizes),
        ..ExportInfo::new(0x0102_0304, "canonical")
    };
    let export = b"\0\0\0\0\0\0\x01\x02\x03\x04\0\x01".to_vec();
    let name = b"\0\x01canonical".to_vec();
    let description = b"\0\x02a disk".to_vec();
    let block_size = b"\0\x03\0\0\x02\0\0\0\x10\0\0\x10\0\0".to_vec();
    let table: [(&[u16], Vec<&Vec<u8>>); 6] = [
        (&[], vec![&export]),
        (&[INFO_EXPORT, 77], vec![&export]),
        (&[INFO_NAME], vec![&export, &name]),
        (
            &[INFO_DESCRIPTION, INFO_DESCRIPTION],
            vec![&export, &description],
        ),
        (&[INFO_BLOCK_SIZE], vec![&export, &block_size]),
        (&[3, 2, 1], vec![&export, &name, &description, &block_size]),
    ];
    for (infos, expected) in table {
        let mut handshake = new();
        for number in [OPT_INFO, OPT_GO] {
            let (opened, replies) = open(&mut handshake, number, "x", infos, Ok(info.clone()));
            let (last, facts) = replies.split_last().unwrap();
            assert_eq!(last, &(number, REP_ACK, vec![]));
            assert!(
                facts
                    .iter()
                    .all(|(option, kind, _)| (*option, *kind) == (number, REP_INFO))
            );
            assert_eq!(
                facts.iter().map(|fact| &fact.2).collect::<Vec<_>>(),
                expected
            );
            let negotiated = opened.unwrap();
            assert_eq!(negotiated.is_some(), number == OPT_GO);
            if let Some(negotiated) = negotiated {
                assert_eq!(
                    negotiated.block_sizes_known,
                    infos.contains(&INFO_BLOCK_SIZE)
                );
                assert_eq!(negotiated.served.max_payload, 1 << 20);
            }
        }
    }
    // What there is not is not told.
    let plain = ExportInfo {
        block_sizes: None,
        ..ExportInfo::new(0x0102_0304, "canonical")
    };
    let (_, replies) = open(&mut new(), OPT_GO, "", &[3, 2], Ok(plain));
    assert_eq!(replies.len(), 2);
}

#[test]
fn a_refused_export_can_be_followed_by_another() {
    let mut handshake = new();
    for code in [REP_ERR_UNKNOWN, REP_ERR_TLS_REQD, REP_ERR_SHUTDOWN] {
        for number in [OPT_INFO, OPT_GO] {
            let refused = Refused::new(code, "no such export");
            let (opened, replies) = open(&mut handshake, number, "no", &[], Err(refused));
            assert!(matches!(opened, Ok(None)));
            assert_eq!(replies, [(number, code, b"no such export".to_vec())]);
        }
    }
    assert_eq!(go(&mut handshake, "yes", 0).name, "yes");
}

#[test]
fn malformed_data_is_invalid() {
    let mut handshake = new();
    assert_eq!(code(&mut handshake, OPT_STRUCTURED_REPLY, b""), REP_ACK);
    let long = open_data(&"x".repeat(4097), &[]);
    for data in [&b""[..], b"\0\0\0\x05ab\0\0", b"\0\0\0\x01\xff\0\0", &long] {
        assert_eq!(code(&mut handshake, OPT_GO, data), REP_ERR_INVALID);
        assert_eq!(code(&mut handshake, OPT_INFO, data), REP_ERR_INVALID);
        assert_eq!(
            code(&mut handshake, OPT_LIST_META_CONTEXT, data),
            REP_ERR_INVALID
        );
        assert_eq!(
            code(&mut handshake, OPT_SET_META_CONTEXT, data),
            REP_ERR_INVALID
        );
    }
    let many = context_data("", &["a:"; 1025]);
    assert_eq!(
        code(&mut handshake, OPT_LIST_META_CONTEXT, &many),
        REP_ERR_TOO_BIG
    );
}

#[test]
fn block_size_policy() {
    let sizes = BlockSizes::new(512, 4096, 1 << 20);
    let info = ExportInfo {
        block_sizes: sizes,
        ..ExportInfo::new(1 << 20, "")
    };
    let table = [
        (BlockSizePolicy::Relax, &[][..], Some(1)),
        (BlockSizePolicy::Relax, &[3], Some(512)),
        (BlockSizePolicy::Enforce, &[], Some(512)),
        (BlockSizePolicy::Enforce, &[3], Some(512)),
        (BlockSizePolicy::Refuse, &[], None),
        (BlockSizePolicy::Refuse, &[3], Some(512)),
    ];
    for (block_size_policy, infos, expected) in table {
        let options = ServerOptions {
            block_size_policy,
            ..ServerOptions::default()
        };
        let mut handshake = started(options);
        let (opened, replies) = open(&mut handshake, OPT_GO, "", infos, Ok(info.clone()));
        let served = opened
            .unwrap()
            .map(|negotiated| negotiated.served.min_block);
        assert_eq!(served, expected, "{block_size_policy:?} {infos:?}");
        if expected.is_none() {
            assert_eq!(replies[0].2[..2], [0, 3], "sizes are told first");
            assert_eq!(replies[1].1, REP_ERR_BLOCK_SIZE_REQD);
        }
    }
    // A minimum of 1 is the default, which nobody needs to ask for.
    let options = ServerOptions {
        block_size_policy: BlockSizePolicy::Refuse,
        ..ServerOptions::default()
    };
    assert_eq!(go(&mut started(options.clone()), "", 0).served.min_block, 1);
    let mut handshake = started(options);
    send(&mut handshake, &option(OPT_EXPORT_NAME, b""));
    let mut out = Vec::new();
    let answer = handshake.answer_open(Ok(info), &mut out);
    assert_eq!(
        (answer.unwrap_err(), out.len()),
        (Violation::ExportRefused, 0)
    );
}

#[test]
fn flags_follow_what_was_agreed_on() {
    let all = FLAG_SEND_DF | FLAG_BLOCK_STATUS_PAYLOAD | FLAG_SEND_FAST_ZERO | FLAG_ROTATIONAL;
    let base = FLAG_HAS_FLAGS | FLAG_ROTATIONAL;
    assert_eq!(go(&mut new(), "", all).served.flags, base);
    let mut handshake = new();
    code(&mut handshake, OPT_STRUCTURED_REPLY, b"");
    select(&mut handshake, "", &["base:allocation"]);
    assert_eq!(
        go(&mut handshake, "", all).served.flags,
        base | FLAG_SEND_DF
    );
    let mut handshake = new();
    code(&mut handshake, OPT_EXTENDED_HEADERS, b"");
    assert_eq!(
        go(&mut handshake, "", all).served.flags,
        base | FLAG_SEND_DF
    );
    let mut handshake = new();
    code(&mut handshake, OPT_EXTENDED_HEADERS, b"");
    select(&mut handshake, "", &["base:allocation"]);
    let flags = go(&mut handshake, "", all | FLAG_SEND_WRITE_ZEROES)
        .served
        .flags;
    assert_eq!(flags, all | FLAG_SEND_WRITE_ZEROES | FLAG_HAS_FLAGS);
}

#[test]
fn payload_limits() {
    let table = [
        (None, u32::MAX, 128 << 20),
        (None, 1 << 20, 1 << 20),
        (BlockSizes::new(1, 4096, 8192), 1 << 20, 8192),
        (BlockSizes::new(1, 4096, u32::MAX), 1 << 20, 1 << 20),
    ];
    for (block_sizes, max_payload, expected) in table {
        let info = ExportInfo {
            block_sizes,
            max_payload,
            ..ExportInfo::new(1, "")
        };
        let (opened, _) = open(&mut new(), OPT_GO, "", &[], Ok(info));
        assert_eq!(opened.unwrap().unwrap().served.max_payload, expected);
    }
}

#[test]
fn contexts_need_chunks() {
    let data = context_data("", &["base:allocation"]);
    for number in [OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT] {
        assert_eq!(code(&mut new(), number, &data), REP_ERR_INVALID);
    }
}

#[test]
fn contexts_can_be_off() {
    let mut handshake = started(ServerOptions {
        meta_contexts: false,
        ..ServerOptions::default()
    });
    code(&mut handshake, OPT_STRUCTURED_REPLY, b"");
    let data = context_data("", &["base:allocation"]);
    for number in [OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT] {
        assert_eq!(code(&mut handshake, number, &data), REP_ERR_UNSUP);
    }
    let negotiated = go(&mut handshake, "", FLAG_BLOCK_STATUS_PAYLOAD);
    assert_eq!(
        (negotiated.mode, negotiated.served.contexts),
        (Mode::Structured, 0)
    );
}

#[test]
fn without_chunks_there_is_no_df_and_no_block_status() {
    let mut handshake = started(ServerOptions {
        structured_replies: false,
        extended_headers: false,
        ..ServerOptions::default()
    });
    for number in [OPT_STRUCTURED_REPLY, OPT_EXTENDED_HEADERS] {
        assert_eq!(code(&mut handshake, number, b""), REP_ERR_UNSUP);
    }
    let data = context_data("", &["base:allocation"]);
    assert_eq!(
        code(&mut handshake, OPT_SET_META_CONTEXT, &data),
        REP_ERR_INVALID
    );
    let negotiated = go(&mut handshake, "", FLAG_SEND_DF);
    assert_eq!(
        (negotiated.mode, negotiated.served.flags),
        (Mode::Simple, FLAG_HAS_FLAGS)
    );
}

#[test]
fn listing_contexts() {
    let table: [(&[&str], &[usize]); 6] = [
        (&[], &[0, 1, 2]),
        (&["base:"], &[0]),
        (&["qemu:dirty-bitmap:", "x-other:"], &[1, 2]),
        (&["base:allocation", "qemu:dirty-bitmap:b"], &[0, 2]),
        (&["base:unknown"], &[]),
        (&["x-other:thing"], &[]),
    ];
    let mut handshake = new();
    code(&mut handshake, OPT_STRUCTURED_REPLY, b"");
    assert_eq!(select(&mut handshake, "", &["base:allocation"]), [1]);
    for (queries, expected) in table {
        let data = context_data("", queries);
        let (event, _) = send(&mut handshake, &option(OPT_LIST_META_CONTEXT, &data));
        let Some(Event::MetaContext(request)) = event else {
            panic!("{event:?}")
        };
        assert!(request.list && request.queries == queries);
        let mut out = Vec::new();
        handshake.answer_contexts(Ok(&contexts()), &mut out);
        let names = expected.iter().map(|n| {
            let data = [b"\0\0\0\0", contexts()[*n].name.as_bytes()].concat();
            (OPT_LIST_META_CONTEXT, REP_META_CONTEXT, data)
        });
        let ack = (OPT_LIST_META_CONTEXT, REP_ACK, vec![]);
        assert_eq!(replies(&out), names.chain([ack]).collect::<Vec<_>>());
    }
    // Listing selects nothing and takes nothing away.
    assert_eq!(go(&mut handshake, "", 0).contexts.len(), 1);
}

#[test]
fn selecting_contexts() {
    let table: [(&[&str], &[u32]); 6] = [
        (&[], &[]),
        (&["base:"], &[]),
        (&["base:allocation"], &[1]),
        (&["base:allocation", "base:allocation"], &[1]),
        (&["qemu:dirty-bitmap:b", "base:allocation", "x:y"], &[1, 3]),
        (&["qemu:dirty-bitmap:"], &[]),
    ];
    for (queries, expected) in table {
        let mut handshake = new();
        code(&mut handshake, OPT_STRUCTURED_REPLY, b"");
        assert_eq!(select(&mut handshake, "a", queries), expected);
        let negotiated = go(&mut handshake, "a", 0);
        let ids: Vec<u32> = negotiated
            .contexts
            .iter()
            .map(|context| context.id)
            .collect();
        assert_eq!(ids, expected);
        assert_eq!(negotiated.served.contexts as usize, expected.len());
    }
}

#[test]
fn what_voids_contexts() {
    fn chosen() -> Handshake {
        let options = ServerOptions {
            tls: TlsMode::Offered,
            ..ServerOptions::default()
        };
        let mut handshake = started(options);
        code(&mut handshake, OPT_STRUCTURED_REPLY, b"");
        assert_eq!(select(&mut handshake, "a", &["base:allocation"]), [1]);
        handshake
    }
    assert_eq!(go(&mut chosen(), "a", 0).contexts.len(), 1);
    // Another export.
    assert_eq!(go(&mut chosen(), "b", 0).contexts.len(), 0);
    // A failed attempt at another export does not.
    let mut handshake = chosen();
    let refused = Refused::new(REP_ERR_UNKNOWN, "");
    open(&mut handshake, OPT_GO, "b", &[], Err(refused))
        .0
        .unwrap();
    assert_eq!(go(&mut handshake, "a", 0).contexts.len(), 1);
    // A selection that failed, in each of the ways it can.
    for data in [&b"bad"[..], &[0; 70_000]] {
        let mut handshake = chosen();
        assert_ne!(code(&mut handshake, OPT_SET_META_CONTEXT, data), REP_ACK);
        assert_eq!(go(&mut handshake, "a", 0).contexts.len(), 0);
    }
    let mut handshake = chosen();
    send(
        &mut handshake,
        &option(
            OPT_SET_META_CONTEXT,
            &context_data("a", &["base:allocation"]),
        ),
    );
    let mut out = Vec::new();
    handshake.answer_contexts(Err(Refused::new(REP_ERR_UNKNOWN, "gone")), &mut out);
    assert_eq!(
        replies(&out),
        [(OPT_SET_META_CONTEXT, REP_ERR_UNKNOWN, b"gone".to_vec())]
    );
    assert_eq!(go(&mut handshake, "a", 0).contexts.len(), 0);
    // TLS.
    let mut handshake = chosen();
    send(&mut handshake, &option(OPT_STARTTLS, b""));
    handshake
        .answer_start_tls(Ok(()), 0, &mut Vec::new())
        .unwrap();
    let negotiated = go(&mut handshake, "a", 0);
    assert_eq!(
        (negotiated.contexts.len(), negotiated.mode),
        (0, Mode::Simple)
    );
}

#[test]
fn too_many_contexts() {
    let many: Vec<Context> = (0..65)
        .map(|id| Context {
            id,
            name: format!("x:{id}"),
        })
        .collect();
    let names: Vec<&str> = many.iter().map(|context| context.name.as_str()).collect();
    for (count, expected) in [(65, REP_ERR_TOO_BIG), (64, REP_ACK)] {
        let mut handshake = new();
        code(&mut handshake, OPT_STRUCTURED_REPLY, b"");
        let data = context_data("", &names[..count]);
        send(&mut handshake, &option(OPT_SET_META_CONTEXT, &data));
        let mut out = Vec::new();
        handshake.answer_contexts(Ok(&many), &mut out);
        assert_eq!(replies(&out).last().unwrap().1, expected);
        let selected = if count == 65 { 0 } else { 64 };
        assert_eq!(go(&mut handshake, "", 0).contexts.len(), selected);
    }
}

#[test]
fn tls_off() {
    assert_eq!(code(&mut new(), OPT_STARTTLS, b""), REP_ERR_POLICY);
}

#[test]
fn tls_offered() {
    let options = ServerOptions {
        tls: TlsMode::Offered,
        ..ServerOptions::default()
    };
    let mut handshake = started(options);
    code(&mut handshake, OPT_STRUCTURED_REPLY, b"");
    let (event, _) = send(&mut handshake, &option(OPT_STARTTLS, b""));
    assert_eq!(event, Some(Event::StartTls));
    let mut out = Vec::new();
    let refused = Refused::new(REP_ERR_POLICY, "not from there");
    handshake
        .answer_start_tls(Err(refused), 0, &mut out)
        .unwrap();
    assert_eq!(replies(&out)[0].1, REP_ERR_POLICY);
    assert!(!handshake.tls() && handshake.mode == Mode::Structured);

    send(&mut handshake, &option(OPT_STARTTLS, b""));
    out.clear();
    handshake.answer_start_tls(Ok(()), 0, &mut out).unwrap();
    assert_eq!(replies(&out), [(OPT_STARTTLS, REP_ACK, vec![])]);
    assert!(handshake.tls() && handshake.mode == Mode::Simple);
    assert_eq!(code(&mut handshake, OPT_STARTTLS, b""), REP_ERR_INVALID);
    assert!(go(&mut handshake, "", 0).tls);
}

#[test]
fn plain_text_after_start_tls_is_an_attack() {
    let options = ServerOptions {
        tls: TlsMode::Offered,
        ..ServerOptions::default()
    };
    let mut handshake = started(options);
    let mut bytes = option(OPT_STARTTLS, b"");
    let length = bytes.len();
    bytes.extend_from_slice(&option(OPT_GO, &open_data("", &[])));
    let mut out = Vec::new();
    let (consumed, event) = handshake.input(&bytes, &mut out).unwrap();
    assert_eq!((consumed, event), (length, Some(Event::StartTls)));
    let unread = bytes.len() - consumed;
    let answer = handshake.answer_start_tls(Ok(()), unread, &mut out);
    assert_eq!(answer, Err(Violation::PlainTextAfterStartTls));
    assert!(out.is_empty() && !handshake.tls());
    assert_eq!(handshake.input(b"x", &mut out), Ok((0, None)));
}

#[test]
fn tls_required() {
    let options = ServerOptions {
        tls: TlsMode::Required,
        ..ServerOptions::default()
    };
    let mut handshake = started(options.clone());
    let all = [
        OPT_LIST,
        OPT_INFO,
        OPT_GO,
        OPT_STRUCTURED_REPLY,
        OPT_LIST_META_CONTEXT,
    ];
    for number in all
        .into_iter()
        .chain([OPT_SET_META_CONTEXT, OPT_EXTENDED_HEADERS, 99])
    {
        assert_eq!(code(&mut handshake, number, b""), REP_ERR_TLS_REQD);
        assert_eq!(code(&mut handshake, number, &[0; 70_000]), REP_ERR_TLS_REQD);
    }
    let bytes = option(OPT_EXPORT_NAME, b"");
    assert_eq!(violation(&mut handshake, &bytes), Violation::TlsRequired);
    let mut handshake = started(options.clone());
    assert_eq!(
        send(&mut handshake, &option(OPT_ABORT, b"")).0,
        Some(Event::Abort)
    );

    let mut handshake = started(options);
    assert_eq!(
        send(&mut handshake, &option(OPT_STARTTLS, b"")).0,
        Some(Event::StartTls)
    );
    handshake
        .answer_start_tls(Ok(()), 0, &mut Vec::new())
        .unwrap();
    assert_eq!(code(&mut handshake, OPT_STRUCTURED_REPLY, b""), REP_ACK);
    assert_eq!(go(&mut handshake, "", 0).mode, Mode::Structured);
}

#[test]
fn shutting_down() {
    let mut handshake = new();
    handshake.shut_down();
    for number in [OPT_LIST, OPT_GO, OPT_STRUCTURED_REPLY, 99] {
        assert_eq!(code(&mut handshake, number, b""), REP_ERR_SHUTDOWN);
    }
}

#[test]
fn nothing_is_consumed_while_an_answer_is_due() {
    let mut handshake = new();
    let mut bytes = option(OPT_LIST, b"");
    bytes.extend_from_slice(&option(99, b""));
    let mut out = Vec::new();
    assert_eq!(
        handshake.input(&bytes, &mut out),
        Ok((16, Some(Event::List)))
    );
    assert_eq!(handshake.input(&bytes[16..], &mut out), Ok((0, None)));
    assert!(out.is_empty());
    handshake.answer_list(Ok([("a", "")]), &mut out);
    assert_eq!(handshake.input(&bytes[16..], &mut out), Ok((16, None)));
    assert_eq!(replies(&out).last().unwrap().1, REP_ERR_UNSUP);
}

#[test]
fn texts_are_cut() {
    let mut handshake = new();
    let refused = Refused::new(REP_ERR_UNKNOWN, "x".repeat(10_000));
    let (_, replies) = open(&mut handshake, OPT_GO, "", &[], Err(refused));
    assert_eq!(replies[0].2.len(), 4096);
}

#[test]
#[should_panic(expected = "no list is due")]
fn answers_must_be_due() {
    new().answer_list(Ok([("a", "")]), &mut Vec::new());
}
