//! Sessions over TLS, with OpenSSL as the client; and the handshakes without options.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use blkit_exports::nbd::{Options, Tls};
use block::{Client, Device, Exports, Local, OpenContext, Result, Source};
use nbd::{client, proto, server::ServerOptions};
use openssl::ssl::{ErrorCode, Ssl, SslContextBuilder, SslMethod, SslStream, SslVersion};
use testkit::{MemoryDisk, StepDevice};

use crate::sessions::{World, request, simple_reply};

const KEY: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];

/// An acceptor for alice, and the file it reads.
fn keys() -> (tempfile::NamedTempFile, Arc<tls::Acceptor>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "alice:0102030405060708\n").unwrap();
    let acceptor = acceptor(file.path());
    (file, acceptor)
}

fn acceptor(psk: &Path) -> Arc<tls::Acceptor> {
    let config = tls::Config {
        psk: Some(psk.to_owned()),
        ..tls::Config::default()
    };
    Arc::new(tls::Acceptor::new(config).unwrap())
}

fn with(tls: Tls) -> Options {
    Options {
        tls,
        ..Options::default()
    }
}

/// Who was where.
type Seen = Arc<Mutex<Vec<(&'static str, Client)>>>;

/// A disk that remembers who was where.
struct Recorder {
    name: Arc<str>,
    device: Arc<dyn Device>,
    seen: Seen,
}

impl Recorder {
    fn new() -> (Arc<Recorder>, Seen) {
        let seen = Seen::default();
        let recorder = Recorder {
            name: "recorder".into(),
            device: MemoryDisk::new(4 << 20),
            seen: seen.clone(),
        };
        (Arc::new(recorder), seen)
    }

    fn note(&self, what: &'static str, cx: &OpenContext) {
        let client = Client::clone(&cx.client);
        self.seen.lock().unwrap().push((what, client));
    }
}

impl Source for Recorder {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn preconnect<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<()>> {
        self.note("preconnect", cx);
        Box::pin(async { Ok(()) })
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        self.note("exports", cx);
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        self.note("open", cx);
        Box::pin(async { Ok(self.device.clone()) })
    }
}

/// What was called, and whether the client was known by then.
fn calls(seen: &Mutex<Vec<(&'static str, Client)>>) -> Vec<(&'static str, bool)> {
    let seen = seen.lock().unwrap();
    seen.iter()
        .map(|(what, client)| (*what, client.tls))
        .collect()
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = proto::OPT_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The default export, no information asked for.
const DEFAULT: [u8; 6] = [0; 6];

/// Reads one reply to an option: its type and data.
fn reply(stream: &mut impl Read) -> (u32, Vec<u8>) {
    let mut head = [0; proto::OPTION_REPLY_HEADER_LEN];
    stream.read_exact(&mut head).unwrap();
    let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
    let mut data = vec![0; word(16) as usize];
    stream.read_exact(&mut data).unwrap();
    (word(12), data)
}

/// Takes the greeting, and says that fixed newstyle is understood.
fn greeted(world: &World) -> UnixStream {
    let mut stream = world.connect();
    stream.read_exact(&mut [0; proto::GREETING_LEN]).unwrap();
    stream.write_all(&3u32.to_be_bytes()).unwrap();
    stream
}

fn secure(
    stream: UnixStream,
    key: &'static [u8],
    version: SslVersion,
) -> io::Result<SslStream<UnixStream>> {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    builder.set_cipher_list("PSK").unwrap();
    builder.set_psk_client_callback(move |_, _, identity, room| {
        identity[..6].copy_from_slice(b"alice\0");
        room[..key.len()].copy_from_slice(key);
        Ok(key.len())
    });
    let mut secured = SslStream::new(Ssl::new(&builder.build()).unwrap(), stream).unwrap();
    secured
        .connect()
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(secured)
}

/// Starts TLS as alice.
fn started(mut stream: UnixStream, version: SslVersion) -> SslStream<UnixStream> {
    stream.write_all(&option(proto::OPT_STARTTLS, b"")).unwrap();
    assert_eq!(reply(&mut stream), (proto::REP_ACK, vec![]));
    secure(stream, KEY, version).unwrap()
}

/// Goes for the default export.
fn go(stream: &mut (impl Read + Write)) {
    stream.write_all(&option(proto::OPT_GO, &DEFAULT)).unwrap();
    while reply(stream).0 != proto::REP_ACK {}
}

#[test]
fn nothing_is_opened_before_tls_and_handshake() {
    let (_file, acceptor) = keys();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (source, seen) = Recorder::new();
        let world = World::of(source, with(Tls::Require(acceptor.clone())));
        let mut stream = greeted(&world);
        for (number, data) in [
            (proto::OPT_LIST, &b""[..]),
            (proto::OPT_INFO, &DEFAULT),
            (proto::OPT_GO, &DEFAULT),
            (proto::OPT_STRUCTURED_REPLY, b""),
        ] {
            stream.write_all(&option(number, data)).unwrap();
            assert_eq!(reply(&mut stream).0, proto::REP_ERR_TLS_REQD);
        }
        assert_eq!(calls(&seen), [("preconnect", false)]);
        let mut stream = started(stream, version);
        assert_eq!(calls(&seen), [("preconnect", false)]);
        go(&mut stream);
        assert_eq!(calls(&seen), [("preconnect", false), ("open", true)]);
        let client = seen.lock().unwrap()[1].1.clone();
        assert_eq!(client.identity.as_deref(), Some("alice"));
    }
}

#[test]
fn what_was_agreed_on_in_the_clear_is_forgotten() {
    let (_file, acceptor) = keys();
    let (source, seen) = Recorder::new();
    let world = World::of(source, with(Tls::On(acceptor)));
    let mut stream = greeted(&world);
    for (number, data) in [
        (proto::OPT_STRUCTURED_REPLY, &b""[..]),
        (proto::OPT_INFO, &DEFAULT),
    ] {
        stream.write_all(&option(number, data)).unwrap();
        while reply(&mut stream).0 != proto::REP_ACK {}
    }
    let mut stream = started(stream, SslVersion::TLS1_3);
    go(&mut stream);
    // What was opened for somebody in the clear is not what the client gets.
    let opens = [("preconnect", false), ("open", false), ("open", true)];
    assert_eq!(calls(&seen), opens);
    stream
        .write_all(&request(proto::CMD_READ, 5, 0, 512))
        .unwrap();
    assert_eq!(simple_reply(&mut stream), (0, 5));
    stream.read_exact(&mut [0; 512]).unwrap();
    // Without TLS one is served as well here.
    let mut plain = greeted(&world);
    go(&mut plain);
    plain
        .write_all(&request(proto::CMD_READ, 6, 0, 512))
        .unwrap();
    assert_eq!(simple_reply(&mut plain), (0, 6));
}

#[test]
fn plain_text_behind_starttls_ends_the_connection() {
    let (_file, acceptor) = keys();
    let (source, seen) = Recorder::new();
    let world = World::of(source, with(Tls::Require(acceptor)));
    let mut stream = greeted(&world);
    let mut bytes = option(proto::OPT_STARTTLS, b"");
    bytes.extend(option(proto::OPT_GO, &DEFAULT));
    stream.write_all(&bytes).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "not even an answer");
    world.until("it is counted", |server| server.stats().violations == 1);
    assert_eq!(calls(&seen), [("preconnect", false)]);
    // The same a little later: it is no TLS record.
    let mut stream = greeted(&world);
    stream.write_all(&option(proto::OPT_STARTTLS, b"")).unwrap();
    assert_eq!(reply(&mut stream), (proto::REP_ACK, vec![]));
    stream.write_all(&option(proto::OPT_GO, &DEFAULT)).unwrap();
    let _ = stream.read_to_end(&mut rest);
    world.until("it is counted", |server| server.stats().tls_failures == 1);
    assert_eq!(calls(&seen).len(), 2);
}

#[test]
fn tls_that_is_off_or_broken_is_refused_politely() {
    let world = World::memory(Options::default());
    let mut stream = greeted(&world);
    stream.write_all(&option(proto::OPT_STARTTLS, b"")).unwrap();
    assert_eq!(reply(&mut stream).0, proto::REP_ERR_POLICY);
    go(&mut stream);

    let (file, acceptor) = keys();
    let world = World::memory(with(Tls::Require(acceptor)));
    std::fs::write(&file, "oops").unwrap();
    let mut stream = greeted(&world);
    stream.write_all(&option(proto::OPT_STARTTLS, b"")).unwrap();
    let (kind, text) = reply(&mut stream);
    assert_eq!(kind, proto::REP_ERR_POLICY);
    assert!(
        !String::from_utf8(text).unwrap().contains("oops"),
        "paths are ours"
    );
    std::fs::write(&file, "alice:0102030405060708\n").unwrap();
    go(&mut started(stream, SslVersion::TLS1_3));
}

#[test]
fn who_fails_or_is_silent_does_not_stay() {
    let (_file, acceptor) = keys();
    let (source, seen) = Recorder::new();
    let options = Options {
        // Long enough for the clients that are not silent, on any machine.
        handshake_timeout: Duration::from_secs(5),
        ..with(Tls::Require(acceptor))
    };
    let world = World::of(source, options);
    let ready = |world: &World| {
        let mut stream = greeted(world);
        stream.write_all(&option(proto::OPT_STARTTLS, b"")).unwrap();
        assert_eq!(reply(&mut stream), (proto::REP_ACK, vec![]));
        stream
    };
    let mut silent = ready(&world);
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    world.until("it is counted", |server| server.stats().timeouts == 1);
    drop(ready(&world));
    world.until("it is counted", |server| server.stats().tls_failures == 1);
    let wrong = secure(ready(&world), &[9; 8], SslVersion::TLS1_3).and_then(|mut stream| {
        stream.write_all(&option(proto::OPT_GO, &DEFAULT))?;
        stream.read_exact(&mut [0; 1])
    });
    let told = wrong.unwrap_err().to_string();
    assert!(told.contains("alert"), "{told}");
    world.until("it is counted", |server| server.stats().tls_failures == 2);
    world.until("all are gone", |server| server.connections() == 0);
    assert!(calls(&seen).iter().all(|(what, _)| *what == "preconnect"));
}

/// Bytes that differ from offset to offset.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .flat_map(|n| n.to_le_bytes())
        .take(len)
        .collect()
}

#[test]
fn data_of_all_sizes_goes_both_ways() {
    let (_file, acceptor) = keys();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let world = World::memory(with(Tls::Require(acceptor.clone())));
        let mut stream = started(greeted(&world), version);
        go(&mut stream);
        let data = pattern(1 << 20);
        let mut at = 0;
        for (cookie, len) in [1, 511, 16384, 16385, 40_000, 100_001, 300_000]
            .into_iter()
            .enumerate()
        {
            let cookie = cookie as u64;
            let mut bytes = request(proto::CMD_WRITE, cookie, at as u64, len as u64);
            bytes.extend_from_slice(&data[at..at + len]);
            stream.write_all(&bytes).unwrap();
            assert_eq!(simple_reply(&mut stream), (0, cookie));
            let mut found = vec![0; len];
            stream
                .write_all(&request(proto::CMD_READ, cookie, at as u64, len as u64))
                .unwrap();
            assert_eq!(simple_reply(&mut stream), (0, cookie));
            stream.read_exact(&mut found).unwrap();
            assert!(found == data[at..at + len], "{len} bytes at {at}");
            at += len;
        }
        // Many at once: small ones, and more than goes in a piece.
        for len in [512u64, 200_000] {
            let burst: Vec<u8> = (0..64)
                .flat_map(|cookie| request(proto::CMD_READ, cookie, cookie, len))
                .collect();
            stream.write_all(&burst).unwrap();
            let mut seen = [false; 64];
            let mut found = vec![0; len as usize];
            for _ in 0..64 {
                let (error, cookie) = simple_reply(&mut stream);
                assert_eq!((error, seen[cookie as usize]), (0, false));
                seen[cookie as usize] = true;
                stream.read_exact(&mut found).unwrap();
                let from = cookie as usize;
                assert!(found == data[from..from + len as usize], "{cookie}");
            }
        }
        // A clean end, told by both protocols.
        stream
            .write_all(&request(proto::CMD_DISC, 0, 0, 0))
            .unwrap();
        let end = stream.ssl_read(&mut [0; 1]).unwrap_err();
        assert_eq!(end.code(), ErrorCode::ZERO_RETURN, "{end}");
        world.until("it is gone", |server| server.connections() == 0);
    }
}

#[test]
fn a_client_that_does_not_read_holds_only_its_credits() {
    let (_file, acceptor) = keys();
    let options = Options {
        max_bytes: 1 << 20,
        ..with(Tls::Require(acceptor))
    };
    let world = World::memory(options);
    let mut stalled = started(greeted(&world), SslVersion::TLS1_3);
    go(&mut stalled);
    // 32 MiB of reads; their replies fit neither the socket nor the credits.
    for cookie in 0..128 {
        let ask = request(proto::CMD_READ, cookie, 0, 256 << 10);
        stalled.write_all(&ask).unwrap();
    }
    let mut good = started(greeted(&world), SslVersion::TLS1_3);
    go(&mut good);
    for cookie in 0..100 {
        good.write_all(&request(proto::CMD_READ, cookie, 0, 512))
            .unwrap();
        assert_eq!(simple_reply(&mut good), (0, cookie));
        good.read_exact(&mut [0; 512]).unwrap();
    }
    let mut left = 128u64 * (16 + (256 << 10));
    let mut bytes = vec![0; 1 << 20];
    while left > 0 {
        let n = stalled.read(&mut bytes).unwrap();
        assert!(n > 0, "{left} bytes are missing");
        left -= n as u64;
    }
}

#[test]
fn a_stop_answers_what_is_in_flight_and_ends_cleanly() {
    let (_file, acceptor) = keys();
    let device = StepDevice::new(1 << 20);
    let world = World::new(device.clone(), with(Tls::Require(acceptor)));
    let mut stream = started(greeted(&world), SslVersion::TLS1_3);
    go(&mut stream);
    stream
        .write_all(&request(proto::CMD_FLUSH, 77, 0, 0))
        .unwrap();
    let step = loop {
        match device.next() {
            Some(step) => break step,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    world.server.stop();
    step.done(0);
    assert_eq!(simple_reply(&mut stream), (0, 77));
    let end = stream.ssl_read(&mut [0; 1]).unwrap_err();
    assert_eq!(end.code(), ErrorCode::ZERO_RETURN, "{end}");
    world.until("it is gone", |server| server.connections() == 0);
}

#[test]
fn vanished_and_lying_clients_leave_nothing_behind() {
    let (_file, acceptor) = keys();
    let world = World::memory(with(Tls::Require(acceptor)));
    for turn in 0..10 {
        let mut stream = started(greeted(&world), SslVersion::TLS1_3);
        go(&mut stream);
        for cookie in 0..if turn % 3 == 2 { 0 } else { 8 } {
            let ask = request(proto::CMD_READ, cookie, 0, 1 << 20);
            stream.write_all(&ask).unwrap();
        }
        match turn % 3 {
            0 => drop(stream),
            1 => stream
                .get_mut()
                .write_all(&[0xff; 100_000])
                .unwrap_or_default(),
            _ => {
                let _ = stream.write_all(&[0xff; 100_000]);
            }
        }
    }
    world.until("all are gone", |server| server.connections() == 0);
    assert_eq!(world.server.stats().violations, 3);
}

#[test]
fn oldstyle_serves_at_once() {
    let (source, seen) = Recorder::new();
    let options = Options {
        oldstyle: true,
        ..Options::default()
    };
    options.check().unwrap();
    let world = World::of(source, options);
    let mut stream = world.connect();
    let mut greeting = [0; proto::OLDSTYLE_LEN];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting[8..16], proto::OLDSTYLE_MAGIC.to_be_bytes());
    assert_eq!(greeting[16..24], (4u64 << 20).to_be_bytes());
    assert_eq!(calls(&seen), [("preconnect", false), ("open", false)]);
    let mut bytes = request(proto::CMD_WRITE, 1, 4096, 3);
    bytes.extend_from_slice(b"abc");
    stream.write_all(&bytes).unwrap();
    assert_eq!(simple_reply(&mut stream), (0, 1));
    stream
        .write_all(&request(proto::CMD_READ, 2, 4095, 5))
        .unwrap();
    assert_eq!(simple_reply(&mut stream), (0, 2));
    let mut found = [9; 5];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"\0abc\0");
    // There is nobody to tell that TLS was wanted.
    let (_file, acceptor) = keys();
    let (source, seen) = Recorder::new();
    let options = Options {
        oldstyle: true,
        ..with(Tls::Require(acceptor))
    };
    let wrong = options.check().unwrap_err().to_string();
    assert_eq!(wrong, "cannot use oldstyle protocol (-o) and require TLS");
    let world = World::of(source, options);
    let mut rest = Vec::new();
    world.connect().read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!(calls(&seen), [("preconnect", false)]);
}

#[test]
fn masked_handshakes_offer_less() {
    for flags in 0..4_u8 {
        let world = World::memory(Options {
            protocol: ServerOptions {
                fixed_newstyle: flags & 1 != 0,
                no_zeroes: flags & 2 != 0,
                ..ServerOptions::default()
            },
            ..Options::default()
        });
        let mut stream = world.connect();
        let mut greeting = [0; proto::GREETING_LEN];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting[16..], [0, flags]);
        stream.write_all(&u32::from(flags).to_be_bytes()).unwrap();
        // The one option that every server knows.
        stream
            .write_all(&option(proto::OPT_EXPORT_NAME, b""))
            .unwrap();
        let padding = if flags & 2 == 0 {
            proto::EXPORT_NAME_PADDING
        } else {
            0
        };
        stream.read_exact(&mut vec![0; 10 + padding]).unwrap();
        stream
            .write_all(&request(proto::CMD_FLUSH, 3, 0, 0))
            .unwrap();
        assert_eq!(simple_reply(&mut stream), (0, 3));
    }
}

#[test]
fn structured_replies_and_contexts_can_be_off() {
    let connected = |protocol: ServerOptions| {
        let world = World::memory(Options {
            protocol,
            ..Options::default()
        });
        let mut stream = world.connect();
        let wants = client::ClientOptions {
            mode: nbd::Mode::Extended,
            contexts: vec![proto::CONTEXT_BASE_ALLOCATION.into()],
            ..Default::default()
        };
        let mut machine = client::Handshake::new(wants).unwrap();
        let mut bytes = [0; 4096];
        loop {
            let n = stream.read(&mut bytes).unwrap();
            assert!(n > 0, "the server left");
            let mut out = Vec::new();
            let mut here = &bytes[..n];
            while let (used, Some(event)) = machine.input(here, &mut out).unwrap() {
                here = &here[used..];
                if let client::Event::Connected(connected) = event {
                    return connected;
                }
            }
            stream.write_all(&out).unwrap();
        }
    };
    let all = connected(ServerOptions::default());
    assert_eq!((all.mode, all.contexts.len()), (nbd::Mode::Extended, 1));
    let few = connected(ServerOptions {
        structured_replies: false,
        extended_headers: false,
        ..ServerOptions::default()
    });
    assert_eq!((few.mode, few.contexts.len()), (nbd::Mode::Simple, 0));
    assert_eq!(few.flags & proto::FLAG_SEND_DF, 0);
    let few = connected(ServerOptions {
        meta_contexts: false,
        ..ServerOptions::default()
    });
    assert_eq!((few.mode, few.contexts.len()), (nbd::Mode::Extended, 0));
}
