//! Whole sessions as bytes written by hand from the protocol document, one for each form of reply,
//! so that our server and our client are held to the document and not only to each other.

use nbd::client::{self, Pending, Replies, Reply, Request};
use nbd::proto::*;
use nbd::server::reply::Extent;
use nbd::server::transmission::{Command, check, parse_request};
use nbd::server::{Context, Event, ExportInfo, Handshake, Negotiated, ServerOptions};

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\x00\x03";
const CLIENT_FLAGS: &[u8] = b"\x00\x00\x00\x03";

/// 16 MiB that can be written, flushed, trimmed, and read without fragments.
fn export() -> ExportInfo {
    let flags = FLAG_SEND_FLUSH | FLAG_SEND_TRIM | FLAG_SEND_DF | FLAG_SEND_FUA;
    ExportInfo {
        flags,
        ..ExportInfo::new(16 << 20, "disk")
    }
}

/// Runs our server's handshake over what the client sends; checks every byte it answers.
fn server_handshake(from_client: &[u8], to_client: &[u8]) -> Negotiated {
    let mut handshake = Handshake::new(ServerOptions::default());
    let mut out = handshake.greeting().to_vec();
    let mut rest = from_client;
    let negotiated = loop {
        let (consumed, event) = handshake.input(rest, &mut out).unwrap();
        rest = &rest[consumed..];
        match event.expect("the session ends in the transmission phase") {
            Event::Open(request) => {
                assert_eq!(request.name, "disk");
                if let Some(entered) = handshake.answer_open(Ok(export()), &mut out).unwrap() {
                    break entered;
                }
            }
            Event::MetaContext(_) => {
                let contexts = [Context {
                    id: 1,
                    name: "base:allocation".into(),
                }];
                handshake.answer_contexts(Ok(&contexts), &mut out);
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(out, to_client);
    assert!(rest.is_empty());
    negotiated
}

/// Runs our client's handshake over what the server sends; checks every byte it says.
fn client_handshake(
    options: client::ClientOptions,
    from_server: &[u8],
    to_server: &[u8],
) -> client::Connected {
    let mut handshake = client::Handshake::new(options).unwrap();
    let mut out = Vec::new();
    let (consumed, event) = handshake.input(from_server, &mut out).unwrap();
    assert_eq!(consumed, from_server.len());
    assert_eq!(out, to_server);
    match event {
        Some(client::Event::Connected(connected)) => connected,
        other => panic!("{other:?}"),
    }
}

fn command(bytes: &[u8], negotiated: &Negotiated) -> Command {
    let (request, _) = parse_request(bytes, negotiated.mode.is_extended())
        .unwrap()
        .unwrap();
    check(&request, &negotiated.served).unwrap()
}

#[test]
fn simple_replies() {
    // C: OPT_EXPORT_NAME, "disk".
    let client = [
        CLIENT_FLAGS,
        b"IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x04disk",
    ]
    .concat();
    // S: 16 MiB; HAS_FLAGS, FLUSH, FUA and TRIM, but not DF; no zeroes.
    let server = [GREETING, b"\x00\x00\x00\x00\x01\x00\x00\x00\x00\x2d"].concat();
    let negotiated = server_handshake(&client, &server);
    assert_eq!(negotiated.mode, Mode::Simple);

    let read = b"\x25\x60\x95\x13\x00\x00\x00\x00ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x04";
    assert_eq!(
        command(read, &negotiated),
        Command::Read {
            offset: 512,
            length: 4,
            df: false
        }
    );
    let (request, _) = parse_request(read, false).unwrap().unwrap();
    let reply = request.reply(negotiated.mode);
    assert_eq!(
        reply.data(512, 4, true).as_slice(),
        b"\x67\x44\x66\x98\x00\x00\x00\x00ABCDEFGH"
    );
    assert_eq!(
        reply.failure(EIO).as_slice(),
        b"\x67\x44\x66\x98\x00\x00\x00\x05ABCDEFGH"
    );

    let write = b"\x25\x60\x95\x13\x00\x01\x00\x01ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02hi";
    assert_eq!(
        command(write, &negotiated),
        Command::Write {
            offset: 0,
            length: 2,
            fua: true
        }
    );
    let flush = b"\x25\x60\x95\x13\x00\x00\x00\x03ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    assert_eq!(command(flush, &negotiated), Command::Flush);
    let disconnect = b"\x25\x60\x95\x13\x00\x00\x00\x02ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    assert_eq!(command(disconnect, &negotiated), Command::Disconnect);

    // The client's side: OPT_GO is unknown to this server, so it takes the old way.
    let refused =
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x80\x00\x00\x01\x00\x00\x00\x00";
    let from_server = [GREETING, refused, &server[18..]].concat();
    let to_server = [
        CLIENT_FLAGS,
        b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0a\x00\x00\x00\x04disk\x00\x00",
        &client[4..],
    ]
    .concat();
    let options = client::ClientOptions {
        export: "disk".into(),
        mode: Mode::Simple,
        block_size: false,
        ..client::ClientOptions::default()
    };
    let connected = client_handshake(options, &from_server, &to_server);
    assert_eq!((connected.size, connected.flags), (16 << 20, 0x2d));
    let cookie = u64::from_be_bytes(*b"ABCDEFGH");
    let ask = Request {
        command: CMD_READ,
        flags: 0,
        cookie,
        offset: 512,
        length: 4,
    };
    assert_eq!(
        client::encode_request(connected.mode, &ask)
            .unwrap()
            .as_slice(),
        read
    );
    let mut pending = Pending::new(&ask, 0);
    let (consumed, reply) = Replies::new(connected.mode)
        .input(b"\x67\x44\x66\x98\x00\x00\x00\x00ABCDEFGHdata", |found| {
            (found == cookie).then_some(&mut pending)
        })
        .unwrap();
    assert_eq!(consumed, 16);
    assert_eq!(
        reply,
        Some(Reply::Data {
            cookie,
            offset: 512,
            length: 4,
            last: true
        })
    );
}

#[test]
fn structured_replies() {
    let client = [
        CLIENT_FLAGS,
        // OPT_STRUCTURED_REPLY.
        b"IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00",
        // OPT_SET_META_CONTEXT, "disk", one query.
        b"IHAVEOPT\x00\x00\x00\x0a\x00\x00\x00\x1f\x00\x00\x00\x04disk\
          \x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation",
        // OPT_GO, "disk", INFO_BLOCK_SIZE.
        b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0c\x00\x00\x00\x04disk\x00\x01\x00\x03",
    ]
    .concat();
    let server = [
        GREETING,
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00",
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x0a\x00\x00\x00\x04\x00\x00\x00\x13\
          \x00\x00\x00\x01base:allocation",
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00",
        // INFO_EXPORT: 16 MiB, flags with DF.
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0c\
          \x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\xad",
        // INFO_BLOCK_SIZE: 1, 4096, 32 MiB.
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0e\
          \x00\x03\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00",
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00",
    ]
    .concat();
    let negotiated = server_handshake(&client, &server);
    assert_eq!(negotiated.mode, Mode::Structured);
    let options = client::ClientOptions {
        export: "disk".into(),
        mode: Mode::Structured,
        contexts: vec!["base:allocation".into()],
        ..client::ClientOptions::default()
    };
    let connected = client_handshake(options, &server, &client);
    assert_eq!((connected.mode, connected.flags), (Mode::Structured, 0xad));
    assert_eq!(connected.contexts, negotiated.contexts);

    let read = b"\x25\x60\x95\x13\x00\x00\x00\x00ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x08";
    let (request, _) = parse_request(read, false).unwrap().unwrap();
    let to = request.reply(negotiated.mode);
    let mut wire = to.data(512, 4, false).to_vec();
    wire.extend_from_slice(b"data");
    wire.extend_from_slice(&to.hole(516, 4, false));
    wire.extend_from_slice(&to.none());
    let expected = [
        &b"\x66\x8e\x33\xef\x00\x00\x00\x01ABCDEFGH\x00\x00\x00\x0c\
           \x00\x00\x00\x00\x00\x00\x02\x00data"[..],
        b"\x66\x8e\x33\xef\x00\x00\x00\x02ABCDEFGH\x00\x00\x00\x0c\
          \x00\x00\x00\x00\x00\x00\x02\x04\x00\x00\x00\x04",
        b"\x66\x8e\x33\xef\x00\x01\x00\x00ABCDEFGH\x00\x00\x00\x00",
    ]
    .concat();
    assert_eq!(wire, expected);

    let status = b"\x25\x60\x95\x13\x00\x08\x00\x07ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00";
    let length = 16 << 20;
    let expected = Command::BlockStatus {
        offset: 0,
        length,
        req_one: true,
    };
    assert_eq!(command(status, &negotiated), expected);
    let mut wire = Vec::new();
    let extents = [
        Extent {
            length: 4096,
            flags: 3,
        },
        Extent {
            length: 4096,
            flags: 0,
        },
    ];
    let count = to.block_status(1, extents, length, true, true, &mut wire);
    let expected = b"\x66\x8e\x33\xef\x00\x01\x00\x05ABCDEFGH\x00\x00\x00\x0c\
        \x00\x00\x00\x01\x00\x00\x10\x00\x00\x00\x00\x03";
    assert_eq!((count, &wire[..]), (1, &expected[..]));
}

#[test]
fn extended_replies() {
    let client = [
        CLIENT_FLAGS,
        // OPT_EXTENDED_HEADERS.
        b"IHAVEOPT\x00\x00\x00\x0b\x00\x00\x00\x00",
        // OPT_GO, "disk", nothing asked.
        b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0a\x00\x00\x00\x04disk\x00\x00",
    ]
    .concat();
    let server = [
        GREETING,
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x0b\x00\x00\x00\x01\x00\x00\x00\x00",
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0c\
          \x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\xad",
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00",
    ]
    .concat();
    let negotiated = server_handshake(&client, &server);
    assert_eq!(negotiated.mode, Mode::Extended);
    let options = client::ClientOptions {
        export: "disk".into(),
        block_size: false,
        ..client::ClientOptions::default()
    };
    let connected = client_handshake(options, &server, &client);
    assert_eq!(connected.mode, Mode::Extended);

    // A write needs the flag that says its length is that of a payload.
    let write = b"\x21\xe4\x1c\x71\x00\x20\x00\x01ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x04";
    assert_eq!(
        command(write, &negotiated),
        Command::Write {
            offset: 512,
            length: 4,
            fua: false
        }
    );
    let cookie = u64::from_be_bytes(*b"ABCDEFGH");
    let ask = Request {
        command: CMD_WRITE,
        flags: 0,
        cookie,
        offset: 512,
        length: 4,
    };
    assert_eq!(
        client::encode_request(connected.mode, &ask)
            .unwrap()
            .as_slice(),
        write
    );
    let (request, _) = parse_request(write, true).unwrap().unwrap();
    let to = request.reply(negotiated.mode);
    let done = b"\x6e\x8a\x27\x8c\x00\x01\x00\x00ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    assert_eq!(to.success().as_slice(), done);
    let mut error = Vec::new();
    to.failure_with_text(ENOSPC, "full", &mut error);
    let expected = b"\x6e\x8a\x27\x8c\x00\x01\x80\x01ABCDEFGH\
        \x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x0a\
        \x00\x00\x00\x1c\x00\x04full";
    assert_eq!(error, expected);
    let mut parser = Replies::new(connected.mode);
    let mut pending = Pending::new(&ask, 0);
    let (consumed, reply) = parser.input(done, |_| Some(&mut pending)).unwrap();
    assert_eq!((consumed, reply), (32, Some(Reply::Done { cookie })));
    let (consumed, reply) = parser.input(expected, |_| Some(&mut pending)).unwrap();
    let failed = Reply::Error {
        cookie,
        error: ENOSPC,
        text: "full".into(),
        offset: None,
        last: true,
    };
    assert_eq!((consumed, reply), (expected.len(), Some(failed)));
}
