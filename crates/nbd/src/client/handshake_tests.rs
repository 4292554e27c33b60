use super::*;
use crate::proto::*;
use crate::wire::Reader;

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

/// The options that a client has sent: (option, data).
fn options(mut out: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut found = Vec::new();
    while !out.is_empty() {
        let mut reader = Reader(out);
        assert_eq!(reader.u64(), Some(OPT_MAGIC));
        let (option, length) = (reader.u32().unwrap(), reader.u32().unwrap());
        found.push((option, reader.bytes(length as usize).unwrap().to_vec()));
        out = reader.0;
    }
    found
}

/// Plays a server's bytes; gives the event or failure, and the numbers of the options sent.
fn play(
    client: ClientOptions,
    greeting: &[u8],
    replies: &[Vec<u8>],
) -> (Result<Option<Event>, Failure>, Vec<u32>) {
    let mut handshake = Handshake::new(client).unwrap();
    let (mut sent, mut out) = (Vec::new(), Vec::new());
    let mut last = handshake.input(greeting, &mut out).map(|(_, event)| event);
    let options_from = 4.min(out.len());
    sent.extend(
        options(&out[options_from..])
            .into_iter()
            .map(|(option, _)| option),
    );
    for reply in replies {
        assert!(matches!(last, Ok(None)), "{last:?} before {reply:?}");
        out.clear();
        last = handshake.input(reply, &mut out).map(|(consumed, event)| {
            assert_eq!(consumed, reply.len());
            event
        });
        sent.extend(options(&out).into_iter().map(|(option, _)| option));
    }
    (last, sent)
}

fn unsup(option: u32) -> Vec<u8> {
    reply(option, REP_ERR_UNSUP, b"")
}

fn ack(option: u32) -> Vec<u8> {
    reply(option, REP_ACK, b"")
}

fn export_info(option: u32) -> Vec<u8> {
    reply(option, REP_INFO, b"\0\0\0\0\0\0\0\0\x10\0\0\x01")
}

fn client() -> ClientOptions {
    ClientOptions::default()
}

#[test]
fn greetings() {
    let mut old = b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53".to_vec();
    old.resize(OLDSTYLE_LEN, 0);
    assert_eq!(play(client(), &old, &[]).0, Err(Failure::Oldstyle));
    let http = b"HTTP/1.1 400 Bad R";
    assert!(matches!(
        play(client(), http, &[]).0,
        Err(Failure::Violation(Violation::GreetingMagic(_)))
    ));
    let odd = b"NBDMAGICIHAVENOT\0\0";
    assert!(matches!(
        play(client(), odd, &[]).0,
        Err(Failure::Violation(Violation::GreetingMagic(_)))
    ));
    // Flags of the future are not answered.
    let mut out = Vec::new();
    let mut handshake = Handshake::new(client()).unwrap();
    handshake
        .input(b"NBDMAGICIHAVEOPT\xff\xff", &mut out)
        .unwrap();
    assert_eq!(&out[..4], [0, 0, 0, 3]);
}

#[test]
fn best_framing_that_is_granted() {
    let (ext, structured) = (OPT_EXTENDED_HEADERS, OPT_STRUCTURED_REPLY);
    let go = [export_info(OPT_GO), ack(OPT_GO)];
    let table = [
        (
            Mode::Extended,
            vec![ack(ext)],
            vec![ext, OPT_GO],
            Mode::Extended,
        ),
        (
            Mode::Extended,
            vec![unsup(ext), ack(structured)],
            vec![ext, structured, OPT_GO],
            Mode::Structured,
        ),
        (
            Mode::Extended,
            vec![unsup(ext), unsup(structured)],
            vec![ext, structured, OPT_GO],
            Mode::Simple,
        ),
        (
            Mode::Structured,
            vec![ack(structured)],
            vec![structured, OPT_GO],
            Mode::Structured,
        ),
        (Mode::Simple, vec![], vec![OPT_GO], Mode::Simple),
    ];
    for (mode, mut replies, options, expected) in table {
        replies.extend(go.clone());
        let (event, sent) = play(ClientOptions { mode, ..client() }, GREETING, &replies);
        let Ok(Some(Event::Connected(connected))) = event else {
            panic!("{event:?}")
        };
        assert_eq!((connected.mode, sent), (expected, options));
        assert_eq!((connected.size, connected.flags), (4096, FLAG_HAS_FLAGS));
    }
}

#[test]
fn facts_about_the_export() {
    let options = ClientOptions {
        mode: Mode::Simple,
        full_info: true,
        ..client()
    };
    let replies = [
        export_info(OPT_GO),
        reply(OPT_GO, REP_INFO, b"\0\x01name"),
        reply(OPT_GO, REP_INFO, b"\0\x02text"),
        reply(OPT_GO, REP_INFO, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0"),
        reply(OPT_GO, REP_INFO, b"\0\x09ignored"),
        ack(OPT_GO),
    ];
    let (event, _) = play(options.clone(), GREETING, &replies);
    let Ok(Some(Event::Connected(connected))) = event else {
        panic!("{event:?}")
    };
    assert_eq!(connected.name.as_deref(), Some("name"));
    assert_eq!(connected.description.as_deref(), Some("text"));
    let sizes = BlockSizeInfo {
        minimum: 1,
        preferred: 4096,
        maximum: 32 << 20,
    };
    assert_eq!(connected.block_sizes, Some(sizes));

    let malformed = Err(Failure::Violation(Violation::OptionReplyData(OPT_GO)));
    let bad: [&[u8]; 5] = [
        b"",
        b"\0",
        b"\0\0\0\0\0",
        b"\0\x01\xff",
        b"\0\x03\0\0\0\x01",
    ];
    for data in bad {
        let replies = [reply(OPT_GO, REP_INFO, data)];
        assert_eq!(
            play(options.clone(), GREETING, &replies).0,
            malformed,
            "{data:?}"
        );
    }
    let nothing = Err(Failure::Violation(Violation::NoExportInfo));
    assert_eq!(play(options.clone(), GREETING, &[ack(OPT_GO)]).0, nothing);
    let replies = [reply(OPT_GO, REP_ACK, b"x")];
    assert_eq!(play(options, GREETING, &replies).0, malformed);
}

#[test]
fn old_servers_get_the_export_name() {
    let options = ClientOptions {
        mode: Mode::Simple,
        export: "disk".into(),
        ..client()
    };
    let mut answer = b"\0\0\0\0\0\0\x10\0\0\x01".to_vec();
    let (event, sent) = play(options.clone(), GREETING, &[unsup(OPT_GO), answer.clone()]);
    let Ok(Some(Event::Connected(connected))) = event else {
        panic!("{event:?}")
    };
    assert_eq!(
        (connected.size, sent),
        (4096, vec![OPT_GO, OPT_EXPORT_NAME])
    );
    // Without fixed newstyle, at once, and with 124 zero bytes.
    answer.resize(134, 0);
    let (event, sent) = play(options.clone(), b"NBDMAGICIHAVEOPT\0\0", &[answer]);
    assert!(matches!(event, Ok(Some(Event::Connected(_)))));
    assert_eq!(sent, [OPT_EXPORT_NAME]);
    for goal in [Goal::Info, Goal::List, Goal::ListContexts] {
        let (event, _) = play(
            ClientOptions { goal, ..client() },
            b"NBDMAGICIHAVEOPT\0\0",
            &[],
        );
        assert_eq!(event, Err(Failure::NotFixed));
    }
    let tls = ClientOptions {
        tls: Tls::Require,
        ..client()
    };
    assert_eq!(
        play(tls, b"NBDMAGICIHAVEOPT\0\0", &[]).0,
        Err(Failure::NotFixed)
    );
    // Extended headers leave no such way.
    let replies = [ack(OPT_EXTENDED_HEADERS), unsup(OPT_GO)];
    let (event, sent) = play(client(), GREETING, &replies);
    assert!(matches!(
        event,
        Err(Failure::Refused { option: OPT_GO, .. })
    ));
    assert_eq!(sent, [OPT_EXTENDED_HEADERS, OPT_GO, OPT_ABORT]);
}

#[test]
fn refusals_carry_the_text() {
    let options = ClientOptions {
        mode: Mode::Simple,
        ..client()
    };
    let replies = [reply(OPT_GO, REP_ERR_UNKNOWN, b"no such export")];
    let (event, sent) = play(options, GREETING, &replies);
    let failure = event.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the server refused NBD_OPT_GO with NBD_REP_ERR_UNKNOWN: no such export"
    );
    assert_eq!(sent, [OPT_GO, OPT_ABORT]);
}

#[test]
fn contexts() {
    let options = ClientOptions {
        contexts: vec!["base:allocation".into()],
        ..client()
    };
    let structured = ClientOptions {
        mode: Mode::Structured,
        export: "x".into(),
        ..options.clone()
    };
    let context = reply(
        OPT_SET_META_CONTEXT,
        REP_META_CONTEXT,
        b"\0\0\0\x07base:allocation",
    );
    let replies = [
        ack(OPT_STRUCTURED_REPLY),
        context.clone(),
        ack(OPT_SET_META_CONTEXT),
        export_info(OPT_GO),
        ack(OPT_GO),
    ];
    let (event, sent) = play(structured.clone(), GREETING, &replies);
    let Ok(Some(Event::Connected(connected))) = event else {
        panic!("{event:?}")
    };
    assert_eq!(
        connected.contexts,
        [Context {
            id: 7,
            name: "base:allocation".into()
        }]
    );
    assert_eq!(sent, [OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT, OPT_GO]);
    // Contexts before an error do not count.
    let replies = [
        ack(OPT_STRUCTURED_REPLY),
        context.clone(),
        reply(OPT_SET_META_CONTEXT, REP_ERR_UNKNOWN, b""),
        export_info(OPT_GO),
        ack(OPT_GO),
    ];
    let (event, _) = play(structured.clone(), GREETING, &replies);
    let Ok(Some(Event::Connected(connected))) = event else {
        panic!("{event:?}")
    };
    assert_eq!(connected.contexts, []);
    // Without chunks there is nothing to ask for.
    let simple = ClientOptions {
        mode: Mode::Simple,
        ..options
    };
    assert_eq!(play(simple, GREETING, &[]).1, [OPT_GO]);
    // And there is an end to patience.
    let mut replies = vec![context; 65];
    replies.insert(0, ack(OPT_STRUCTURED_REPLY));
    let (event, _) = play(structured, GREETING, &replies);
    let expected = Violation::TooManyReplies(OPT_SET_META_CONTEXT);
    assert_eq!(event, Err(Failure::Violation(expected)));
}

#[test]
fn lists() {
    let mut handshake = Handshake::new(ClientOptions {
        goal: Goal::List,
        ..client()
    })
    .unwrap();
    let mut out = Vec::new();
    handshake.input(GREETING, &mut out).unwrap();
    assert_eq!(options(&out[4..]), [(OPT_LIST, vec![])]);
    let stream = [
        reply(OPT_LIST, REP_SERVER, b"\0\0\0\x01adescription"),
        reply(OPT_LIST, REP_SERVER, b"\0\0\0\0"),
        ack(OPT_LIST),
    ]
    .concat();
    let mut rest = &stream[..];
    let mut events = Vec::new();
    out.clear();
    while let (consumed, Some(event)) = handshake.input(rest, &mut out).unwrap() {
        rest = &rest[consumed..];
        events.push(event);
    }
    let export = |name: &str, description: &str| Event::Export {
        name: name.into(),
        description: description.into(),
    };
    assert_eq!(
        events,
        [export("a", "description"), export("", ""), Event::Finished]
    );
    assert_eq!(options(&out), [(OPT_ABORT, vec![])]);

    let bad = [reply(OPT_LIST, REP_SERVER, b"\0\0\0\x02a")];
    let (event, _) = play(
        ClientOptions {
            goal: Goal::List,
            ..client()
        },
        GREETING,
        &bad,
    );
    assert_eq!(
        event,
        Err(Failure::Violation(Violation::OptionReplyData(OPT_LIST)))
    );
}

#[test]
fn listing_contexts_and_info() {
    let options = ClientOptions {
        goal: Goal::ListContexts,
        mode: Mode::Structured,
        contexts: vec!["base:".into()],
        ..client()
    };
    let replies = [
        ack(OPT_STRUCTURED_REPLY),
        reply(
            OPT_LIST_META_CONTEXT,
            REP_META_CONTEXT,
            b"\0\0\0\0base:allocation",
        ),
    ];
    let (event, sent) = play(options.clone(), GREETING, &replies);
    assert_eq!(event, Ok(Some(Event::Context("base:allocation".into()))));
    assert_eq!(sent, [OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT]);
    let replies = [ack(OPT_STRUCTURED_REPLY), ack(OPT_LIST_META_CONTEXT)];
    assert_eq!(
        play(options, GREETING, &replies).0,
        Ok(Some(Event::Finished))
    );

    let options = ClientOptions {
        goal: Goal::Info,
        mode: Mode::Simple,
        ..client()
    };
    let (event, sent) = play(options, GREETING, &[export_info(OPT_INFO), ack(OPT_INFO)]);
    assert!(matches!(event, Ok(Some(Event::Info(_)))));
    assert_eq!(sent, [OPT_INFO, OPT_ABORT]);
}

#[test]
fn tls() {
    for (tls, refused) in [(Tls::Try, false), (Tls::Try, true), (Tls::Require, false)] {
        let options = ClientOptions {
            mode: Mode::Simple,
            tls,
            ..client()
        };
        let mut handshake = Handshake::new(options).unwrap();
        let mut out = Vec::new();
        handshake.input(GREETING, &mut out).unwrap();
        assert_eq!(options_sent(&out[4..]), [OPT_STARTTLS]);
        out.clear();
        let answer = if refused {
            unsup(OPT_STARTTLS)
        } else {
            ack(OPT_STARTTLS)
        };
        let (_, event) = handshake.input(&answer, &mut out).unwrap();
        if !refused {
            assert_eq!((event, out.len()), (Some(Event::StartTls), 0));
            assert_eq!(handshake.input(b"secret", &mut out), Ok((0, None)));
            handshake.tls_started(0, &mut out).unwrap();
        }
        assert_eq!(options_sent(&out), [OPT_GO]);
        let stream = [export_info(OPT_GO), ack(OPT_GO)].concat();
        let (_, event) = handshake.input(&stream, &mut out).unwrap();
        let Some(Event::Connected(connected)) = event else {
            panic!("{event:?}")
        };
        assert_eq!(connected.tls, !refused);
    }
    let options = ClientOptions {
        tls: Tls::Require,
        ..client()
    };
    let (event, sent) = play(options.clone(), GREETING, &[unsup(OPT_STARTTLS)]);
    assert!(matches!(
        event,
        Err(Failure::Refused {
            option: OPT_STARTTLS,
            ..
        })
    ));
    assert_eq!(sent, [OPT_STARTTLS, OPT_ABORT]);

    let mut handshake = Handshake::new(options).unwrap();
    let stream = [GREETING, &ack(OPT_STARTTLS), b"injected"].concat();
    let mut out = Vec::new();
    let (consumed, event) = handshake.input(&stream, &mut out).unwrap();
    assert_eq!(event, Some(Event::StartTls));
    let answer = handshake.tls_started(stream.len() - consumed, &mut out);
    assert_eq!(
        answer,
        Err(Failure::Violation(Violation::PlainTextAfterStartTls))
    );
}

fn options_sent(out: &[u8]) -> Vec<u32> {
    options(out).into_iter().map(|(option, _)| option).collect()
}

#[test]
fn replies_must_fit_the_option() {
    let options = ClientOptions {
        mode: Mode::Simple,
        ..client()
    };
    let mut bad_magic = ack(OPT_GO);
    bad_magic[0] = 1;
    let mut long = ack(OPT_GO);
    long[16..].copy_from_slice(&65_537u32.to_be_bytes());
    let table = [
        (
            ack(OPT_INFO),
            Violation::OptionReply {
                option: OPT_INFO,
                reply: REP_ACK,
            },
        ),
        (
            reply(OPT_GO, REP_SERVER, b"\0\0\0\0"),
            Violation::OptionReply {
                option: OPT_GO,
                reply: REP_SERVER,
            },
        ),
        (
            reply(OPT_GO, 9, b""),
            Violation::OptionReply {
                option: OPT_GO,
                reply: 9,
            },
        ),
        (
            bad_magic,
            Violation::OptionReplyMagic(0x0103_e889_0455_65a9),
        ),
        (long, Violation::OptionReplyData(OPT_GO)),
    ];
    for (bytes, expected) in table {
        let (event, _) = play(options.clone(), GREETING, &[bytes]);
        assert_eq!(event, Err(Failure::Violation(expected)));
    }
    let endless = vec![export_info(OPT_GO); limits::MAX_OPTIONS as usize + 2];
    let (event, _) = play(options, GREETING, &endless);
    assert_eq!(
        event,
        Err(Failure::Violation(Violation::TooManyReplies(OPT_GO)))
    );
}

#[test]
fn names_must_fit_the_protocol() {
    for name in ["x".repeat(4097), "a\0b".into()] {
        let options = ClientOptions {
            export: name.clone(),
            ..client()
        };
        assert_eq!(Handshake::new(options).unwrap_err(), Failure::BadName);
        let options = ClientOptions {
            contexts: vec![name],
            ..client()
        };
        assert_eq!(Handshake::new(options).unwrap_err(), Failure::BadName);
    }
}
