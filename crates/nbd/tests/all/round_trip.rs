//! Our client against our server, every combination of what both want, over bytes in pieces.

use nbd::client::{self, ClientOptions, Connected, Goal, Pending, Replies, Reply, Request};
use nbd::proto::*;
use nbd::server::reply::Extent;
use nbd::server::transmission::{Command, check, parse_request, parse_status_payload};
use nbd::server::{
    BlockSizes, Context, Event, ExportInfo, Handshake, Negotiated, Refused, ServerOptions, TlsMode,
};

const FLAGS: u16 = FLAG_HAS_FLAGS
    | FLAG_SEND_FLUSH
    | FLAG_SEND_FUA
    | FLAG_SEND_TRIM
    | FLAG_SEND_WRITE_ZEROES
    | FLAG_SEND_DF
    | FLAG_CAN_MULTI_CONN
    | FLAG_SEND_CACHE
    | FLAG_SEND_FAST_ZERO
    | FLAG_BLOCK_STATUS_PAYLOAD;

fn export() -> ExportInfo {
    ExportInfo {
        size: 1 << 41,
        flags: FLAGS,
        block_sizes: BlockSizes::new(1, 65536, 1 << 25),
        max_payload: 1 << 25,
        name: "canonical".into(),
        description: "für alle".into(),
    }
}

fn contexts() -> [Context; 2] {
    [
        Context {
            id: 5,
            name: CONTEXT_BASE_ALLOCATION.into(),
        },
        Context {
            id: 6,
            name: "x-test:dirty".into(),
        },
    ]
}

/// A server that knows the exports `disk` and the default; true when the client has left.
fn serve(
    handshake: &mut Handshake,
    event: Event,
    unread: usize,
    out: &mut Vec<u8>,
) -> (bool, Option<Negotiated>) {
    match event {
        Event::List => handshake.answer_list(Ok([("disk", "für alle"), ("", "")]), out),
        Event::Open(request) => {
            let known = matches!(request.name.as_str(), "" | "disk");
            let refused = Refused::new(REP_ERR_UNKNOWN, "no such export");
            let answer = if known { Ok(export()) } else { Err(refused) };
            return (
                false,
                handshake
                    .answer_open(answer, out)
                    .expect("not by OPT_EXPORT_NAME"),
            );
        }
        Event::MetaContext(_) => handshake.answer_contexts(Ok(&contexts()), out),
        Event::StartTls => {
            handshake
                .answer_start_tls(Ok(()), unread, out)
                .expect("no plain text");
        }
        Event::Abort => return (true, None),
    }
    (false, None)
}

struct Outcome {
    events: Vec<client::Event>,
    failure: Option<client::Failure>,
    negotiated: Option<Negotiated>,
}

impl Outcome {
    fn connected(self) -> (Connected, Negotiated) {
        match (self.events.last(), self.negotiated) {
            (Some(client::Event::Connected(connected)), Some(negotiated)) => {
                (connected.clone(), negotiated)
            }
            _ => panic!("{:?} {:?}", self.events, self.failure),
        }
    }
}

/// Lets both talk until neither has anything to say, `piece` bytes at a time.
fn haggle(server: ServerOptions, client: ClientOptions, piece: usize) -> Outcome {
    let mut server = Handshake::new(server);
    let mut client = client::Handshake::new(client).unwrap();
    let mut to_client = server.greeting().to_vec();
    let mut to_server = Vec::new();
    let mut outcome = Outcome {
        events: Vec::new(),
        failure: None,
        negotiated: None,
    };
    while !to_client.is_empty() || !to_server.is_empty() {
        let bytes: Vec<u8> = std::mem::take(&mut to_client);
        for mut bytes in bytes.chunks(piece) {
            while outcome.failure.is_none() {
                match client.input(bytes, &mut to_server) {
                    Err(failure) => outcome.failure = Some(failure),
                    Ok((_, None)) => break,
                    Ok((consumed, Some(event))) => {
                        bytes = &bytes[consumed..];
                        if event == client::Event::StartTls {
                            client.tls_started(bytes.len(), &mut to_server).unwrap();
                        }
                        outcome.events.push(event);
                    }
                }
            }
        }
        let bytes: Vec<u8> = std::mem::take(&mut to_server);
        for mut bytes in bytes.chunks(piece) {
            while let (consumed, Some(event)) = server.input(bytes, &mut to_client).unwrap() {
                bytes = &bytes[consumed..];
                let (left, entered) = serve(&mut server, event, bytes.len(), &mut to_client);
                outcome.negotiated = outcome.negotiated.or(entered);
                if left {
                    return outcome;
                }
            }
        }
    }
    outcome
}

#[test]
fn every_combination_agrees() {
    let modes = [Mode::Simple, Mode::Structured, Mode::Extended];
    for piece in [1, 7, usize::MAX] {
        for offered in modes {
            for wanted in modes {
                for tls in [client::Tls::Off, client::Tls::Try, client::Tls::Require] {
                    let server = ServerOptions {
                        structured_replies: offered != Mode::Simple,
                        extended_headers: offered == Mode::Extended,
                        tls: TlsMode::Offered,
                        ..ServerOptions::default()
                    };
                    let client = ClientOptions {
                        export: "disk".into(),
                        mode: wanted,
                        contexts: vec![CONTEXT_BASE_ALLOCATION.into(), "x-test:none".into()],
                        full_info: true,
                        tls,
                        ..ClientOptions::default()
                    };
                    let (connected, negotiated) = haggle(server, client, piece).connected();
                    let mode = match (offered, wanted) {
                        (Mode::Extended, Mode::Extended) => Mode::Extended,
                        (Mode::Simple, _) | (_, Mode::Simple) => Mode::Simple,
                        _ => Mode::Structured,
                    };
                    assert_eq!((connected.mode, negotiated.mode), (mode, mode));
                    assert_eq!(connected.contexts, negotiated.contexts);
                    assert_eq!(connected.contexts.len(), usize::from(mode.has_chunks()));
                    assert_eq!(connected.flags, negotiated.served.flags);
                    assert_eq!(connected.size, 1 << 41);
                    assert_eq!(connected.name.as_deref(), Some("canonical"));
                    assert_eq!(connected.description.as_deref(), Some("für alle"));
                    let sizes = connected.block_sizes.unwrap();
                    assert_eq!(
                        (sizes.minimum, sizes.preferred, sizes.maximum),
                        (1, 65536, 1 << 25)
                    );
                    let tls = tls != client::Tls::Off;
                    assert_eq!((connected.tls, negotiated.tls), (tls, tls));
                }
            }
        }
    }
}

#[test]
fn required_tls() {
    let server = || ServerOptions {
        tls: TlsMode::Required,
        ..ServerOptions::default()
    };
    let client = |tls, mode| ClientOptions {
        tls,
        mode,
        ..ClientOptions::default()
    };
    for mode in [Mode::Simple, Mode::Extended] {
        let outcome = haggle(server(), client(client::Tls::Off, mode), 5);
        let Some(client::Failure::Refused { code, .. }) = outcome.failure else {
            panic!()
        };
        assert_eq!(code, REP_ERR_TLS_REQD);
        let (connected, _) = haggle(server(), client(client::Tls::Try, mode), 5).connected();
        assert!(connected.tls);
    }
    let without = ServerOptions::default();
    let outcome = haggle(without, client(client::Tls::Require, Mode::Extended), 5);
    let Some(client::Failure::Refused { code, .. }) = outcome.failure else {
        panic!()
    };
    assert_eq!(code, REP_ERR_POLICY);
}

#[test]
fn lists_info_and_refusals() {
    let client = |goal, export: &str| ClientOptions {
        goal,
        export: export.into(),
        ..ClientOptions::default()
    };
    let server = ServerOptions::default;
    let outcome = haggle(server(), client(Goal::List, ""), 3);
    let export = |name: &str, description: &str| client::Event::Export {
        name: name.into(),
        description: description.into(),
    };
    let expected = [
        export("disk", "für alle"),
        export("", ""),
        client::Event::Finished,
    ];
    assert_eq!(outcome.events, expected);

    let outcome = haggle(server(), client(Goal::ListContexts, "disk"), 3);
    let names = contexts().map(|context| client::Event::Context(context.name));
    assert_eq!(outcome.events[..2], names);
    assert_eq!(outcome.events[2..], [client::Event::Finished]);

    let outcome = haggle(server(), client(Goal::Info, "disk"), 3);
    assert!(matches!(&outcome.events[..], [client::Event::Info(info)] if info.size == 1 << 41));

    for goal in [Goal::Go, Goal::Info] {
        let outcome = haggle(server(), client(goal, "missing"), 3);
        let Some(client::Failure::Refused { code, text, .. }) = outcome.failure else {
            panic!()
        };
        assert_eq!((code, text.as_str()), (REP_ERR_UNKNOWN, "no such export"));
    }
}

/// A session past the handshake, driven over both codecs.
struct Session {
    negotiated: Negotiated,
    parser: Replies,
}

impl Session {
    fn new(mode: Mode) -> Session {
        let client = ClientOptions {
            mode,
            contexts: contexts().map(|context| context.name).to_vec(),
            ..ClientOptions::default()
        };
        let (connected, negotiated) = haggle(ServerOptions::default(), client, 11).connected();
        Session {
            negotiated,
            parser: Replies::new(connected.mode),
        }
    }

    /// Sends a request through the server's checks; gives its command, or the error.
    fn request(&self, request: &Request) -> (Command, nbd::server::reply::ReplyTo) {
        let mode = self.negotiated.mode;
        let head = client::encode_request(mode, request).unwrap();
        let (parsed, used) = parse_request(&head, mode.is_extended()).unwrap().unwrap();
        assert_eq!(used, head.len());
        assert_eq!(
            (parsed.cookie, parsed.offset),
            (request.cookie, request.offset)
        );
        (
            check(&parsed, &self.negotiated.served).unwrap(),
            parsed.reply(mode),
        )
    }

    /// Gives a reply's bytes to the client, one by one; payload of data is checked to be `fill`.
    fn events(&mut self, bytes: &[u8], pending: &mut Pending) -> Vec<String> {
        let (mut at, mut skip, mut events) = (0, 0usize, Vec::new());
        for end in 0..=bytes.len() {
            while skip != 0 && at < end {
                assert_eq!(bytes[at], b'd');
                (at, skip) = (at + 1, skip - 1);
            }
            if skip != 0 {
                continue;
            }
            let found = self.parser.input(&bytes[at..end], |_| Some(pending));
            let (consumed, reply) = found.unwrap();
            at += consumed;
            match reply {
                None => {}
                Some(Reply::Data {
                    offset,
                    length,
                    last,
                    ..
                }) => {
                    skip = length as usize;
                    events.push(format!("data {offset}+{length} {last}"));
                }
                Some(Reply::Hole {
                    offset,
                    length,
                    last,
                    ..
                }) => {
                    events.push(format!("hole {offset}+{length} {last}"));
                }
                Some(Reply::BlockStatus {
                    context,
                    extents,
                    last,
                    ..
                }) => {
                    for extent in extents {
                        let Extent { length, flags } = extent;
                        events.push(format!("{context}: {length} {flags} {last}"));
                    }
                }
                Some(Reply::Error {
                    error,
                    text,
                    offset,
                    last,
                    ..
                }) => {
                    events.push(format!("error {error} {text:?} {offset:?} {last}"));
                }
                Some(Reply::Done { .. }) => events.push("done".into()),
            }
        }
        assert_eq!((at, skip), (bytes.len(), 0));
        events
    }
}

#[test]
fn reads_and_writes() {
    for mode in [Mode::Simple, Mode::Structured, Mode::Extended] {
        let mut session = Session::new(mode);
        let read = Request {
            command: CMD_READ,
            flags: 0,
            cookie: 9,
            offset: 4096,
            length: 8,
        };
        let (command, to) = session.request(&read);
        assert_eq!(
            command,
            Command::Read {
                offset: 4096,
                length: 8,
                df: false
            }
        );
        let mut wire = to.data(4096, 8, true).to_vec();
        wire.extend_from_slice(b"dddddddd");
        let events = session.events(&wire, &mut Pending::new(&read, 0));
        assert_eq!(events, ["data 4096+8 true"]);

        if mode.has_chunks() {
            let mut wire = to.hole(4100, 4, false).to_vec();
            wire.extend_from_slice(&to.data(4096, 4, false));
            wire.extend_from_slice(b"dddd");
            wire.extend_from_slice(&to.none());
            let events = session.events(&wire, &mut Pending::new(&read, 0));
            assert_eq!(events, ["hole 4100+4 false", "data 4096+4 false", "done"]);
            let mut wire = Vec::new();
            to.failure_at(EIO, 4099, "bad block", false, &mut wire);
            to.failure_with_text(EIO, "gone", &mut wire);
            let events = session.events(&wire, &mut Pending::new(&read, 0));
            let expected = [
                "error 5 \"bad block\" Some(4099) false",
                "error 5 \"gone\" None true",
            ];
            assert_eq!(events, expected);
        }
        let write = Request {
            command: CMD_WRITE,
            flags: 1,
            cookie: 10,
            offset: 0,
            length: 512,
        };
        let (command, to) = session.request(&write);
        assert_eq!(
            command,
            Command::Write {
                offset: 0,
                length: 512,
                fua: true
            }
        );
        let events = session.events(&to.success(), &mut Pending::new(&write, 0));
        assert_eq!(events, ["done"]);
        let events = session.events(&to.failure(ENOSPC), &mut Pending::new(&write, 0));
        assert_eq!(events, ["error 28 \"\" None true"]);
    }
}

#[test]
fn block_status() {
    for mode in [Mode::Structured, Mode::Extended] {
        let mut session = Session::new(mode);
        let length = if mode.is_extended() {
            1 << 40
        } else {
            0xffff_0000
        };
        let request = Request {
            command: CMD_BLOCK_STATUS,
            flags: 0,
            cookie: 1,
            offset: 512,
            length,
        };
        let (command, to) = session.request(&request);
        assert_eq!(
            command,
            Command::BlockStatus {
                offset: 512,
                length,
                req_one: false
            }
        );
        let extents =
            [(1 << 33, 0), (4096, 3), (1 << 40, 0)].map(|(length, flags)| Extent { length, flags });
        let mut wire = Vec::new();
        assert_ne!(
            to.block_status(5, extents, length, false, false, &mut wire),
            0
        );
        assert_eq!(
            to.block_status(6, extents, length, true, true, &mut wire),
            1
        );
        let events = session.events(&wire, &mut Pending::new(&request, 2));
        if mode.is_extended() {
            let rest = length - (1 << 33) - 4096;
            let third = format!("5: {rest} 0 false");
            let expected = [
                "5: 8589934592 0 false",
                "5: 4096 3 false",
                &third,
                "6: 8589934592 0 true",
            ];
            assert_eq!(events, expected);
        } else {
            assert_eq!(events, ["5: 4294901760 0 false", "6: 4294901760 0 true"]);
        }
    }
}

#[test]
fn block_status_of_chosen_contexts() {
    let session = Session::new(Mode::Extended);
    let request = Request {
        command: CMD_BLOCK_STATUS,
        flags: 0,
        cookie: 1,
        offset: 512,
        length: 1 << 40,
    };
    let mut wire = Vec::new();
    client::encode_status_request(&request, &[6], &mut wire);
    let (parsed, used) = parse_request(&wire, true).unwrap().unwrap();
    let Negotiated {
        served, contexts, ..
    } = &session.negotiated;
    let command = check(&parsed, served).unwrap();
    let Command::BlockStatusPayload {
        offset,
        payload,
        req_one: false,
    } = command
    else {
        panic!("{command:?}")
    };
    assert_eq!(wire.len(), used + payload as usize);
    let (length, set) = parse_status_payload(&wire[used..], offset, served, contexts).unwrap();
    assert_eq!((offset, length), (512, 1 << 40));
    assert!(!set.contains(0) && set.contains(1));
}
