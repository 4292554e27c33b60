//! The corpus: sessions between our client and our server, recorded, and texts: URIs, programs of the data
//! source.
//!
//! For every kind of client and server the bytes of both directions are kept, each as input for the
//! side that would receive them. Made anew by `cargo xtask fuzz --write-corpus`; inputs that a fuzzer
//! found are added to the folders by hand and stay.

use std::collections::BTreeSet;

use nbd::{
    Mode,
    client::{self, Connected, encode_request},
    proto,
    server::{
        self, BlockSizes, Context, ExportInfo, Negotiated, Refused, ServerOptions, TlsMode,
        reply::Extent,
        transmission::{Command, check, parse_request},
    },
};

use crate::client::{options, requests};

/// Bytes of the export of the sessions: small, so that seeds are.
const SIZE: u64 = 64 << 10;

/// A recorded session: what each side received.
#[derive(Default)]
struct Session {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// Where in both the transmission phase begins, and its framing.
    transmission: Option<(usize, usize, Mode)>,
}

/// Seeds of a target, by its name. Without a doubt different from one another, and in a fixed order.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let texts = match target {
        "fuse_machine" => return exports::fuse::fuzzing::seeds(),
        "vhost_user_backend" => return virtio::vhost_user::fuzzing::seeds(),
        "virtio_ring" => return virtio::fuzzing::ring_seeds(),
        "virtio_blk_request" => return virtio::fuzzing::blk_seeds(),
        "data_program" => PROGRAMS,
        "nbd_uri" => URIS,
        _ => return sessions(target),
    };
    let mut texts = texts.to_vec();
    texts.sort_unstable();
    texts.into_iter().map(|text| text.into()).collect()
}

/// What went over the wire, as the target wants it.
fn sessions(target: &str) -> Vec<Vec<u8>> {
    let mut seeds = BTreeSet::new();
    for setup in setups() {
        for server in servers() {
            let session = record(&setup, server);
            match target {
                "nbd_handshake" => {
                    // 2: a server with all options; the client's choice is in the other bits.
                    seeds.insert([&[2, 0, setup[2]], &*session.to_server].concat());
                    // A server with TLS, offered and required; what comes behind STARTTLS comes
                    // through TLS, or (8) in the clear.
                    if setup[0] >> 4 & 3 != 0 {
                        for (tls, choice) in [(1, 0), (2, 0), (2, 8)] {
                            let setup = [2 | tls << 6, choice, setup[2]];
                            seeds.insert([&setup[..], &*session.to_server].concat());
                        }
                    }
                    seeds.insert([&setup[..], &session.to_client].concat());
                }
                "nbd_client" => {
                    seeds.insert([&setup[..], &session.to_client].concat());
                }
                "nbd_transmission" => seeds.extend(transmission(&session)),
                _ => {
                    seeds.insert([&[0, setup[2]], &*session.to_server].concat());
                }
            }
        }
    }
    seeds.into_iter().collect()
}

/// URIs with every scheme and every query.
const URIS: &[&str] = &[
    "nbd://localhost",
    "nbd://example.com:10810/disk%201?unknown=x;nbd-port=5",
    "nbd://[2001:db8::1]:10809//a/b",
    "nbds://alice@h/?tls-psk-file=/k&tls-verify-peer=false&tls-hostname=n&tls-priority=NORMAL",
    "nbds+unix://bob@/x?socket=/tmp/a%20b&tls-certificates=/c&tls-username=eve",
    "NBD+vsock://3:4294967295/e",
    "nbd+ssh://me@host:2222/e?socket=/s&compress",
    "nbd+ssh://host/?nbd-port=7",
];

/// Programs that use the whole language of the data source.
const PROGRAMS: &[&str] = &[
    "0 1 2 3 @0x1fe 0x55 0xaa # a boot sector\n",
    "( 0x55 0xAA )*2048 07*3 255",
    "@0x1be 0 0 2 0 0x83 0x20 0x20 0 le32:1 le32:0x7ff @0x1fe le16:0xaa55 @^512",
    "<file1 @^512 <file2[3:] @^512 <file3[:2]*16",
    "<( i=0; while (:); do echo $i; done )[2:40]*3",
    r#""Hello\n\x41\"\\" be16:1 be32:2 be64:3 le64:0xffffffffffffffff"#,
    r"( 0x55 0xAA ) -> \boot ( @0x1fe \boot ) -> \sector \sector \sector[1:]*2",
    "base64:aGVsbG8= ($c)*3 @+5 @-2 1",
    r"1 2->\a $a*2 (\a @0 \a)->\a (\a @1 \a)[1:2]",
    "$b",
    "(1*7E)[1E:2E][:3] ((1 @^1G)*1000)[5:9]",
    "(0 @+1M)*1M 0*1T",
];

/// Both directions of the transmission phase. The first 8 bytes choose mode, size, flags and limits.
fn transmission(session: &Session) -> Vec<Vec<u8>> {
    let Some((requests, replies, mode)) = session.transmission else {
        return Vec::new();
    };
    let mode = match mode {
        Mode::Simple => 0,
        Mode::Structured => 1,
        Mode::Extended => 2,
    };
    let for_server = [mode, 0, 1, 0x7f, 0xfd, 0x80, 24, 5];
    let for_client = [mode, 0, 255, 0, 0, 0, 0, 5];
    vec![
        [&for_server[..], &session.to_server[requests..]].concat(),
        [&for_client[..], &session.to_client[replies..]].concat(),
    ]
}

fn setups() -> Vec<[u8; 3]> {
    let mut all = Vec::new();
    for goal in 0..4u8 {
        for mode in 0..3u8 {
            for (tls, contexts) in [(0u8, 4u8), (0, 0), (1, 4)] {
                let wants = if goal == 1 { 0xc0 } else { 0x80 };
                all.push([
                    goal | mode << 2 | tls << 4 | wants,
                    1 | contexts,
                    3 + goal * 5 + mode,
                ]);
            }
        }
    }
    all
}

fn servers() -> [ServerOptions; 3] {
    let all = ServerOptions::default();
    [
        ServerOptions {
            tls: TlsMode::Offered,
            ..all.clone()
        },
        ServerOptions {
            extended_headers: false,
            ..all.clone()
        },
        ServerOptions {
            extended_headers: false,
            structured_replies: false,
            list: false,
            no_zeroes: false,
            fixed_newstyle: true,
            ..all
        },
    ]
}

/// Plays a session through.
fn record(setup: &[u8; 3], server: ServerOptions) -> Session {
    let mut session = Session::default();
    let mut client = client::Handshake::new(options(setup)).expect("names are short");
    let mut server = server::Handshake::new(server);
    let (mut to_client, mut negotiated) = (server.greeting().to_vec(), None);
    while !to_client.is_empty() {
        session.to_client.extend_from_slice(&to_client);
        let (to_server, connected) = client_turn(&mut client, &to_client);
        if let (Some(connected), Some(negotiated)) = (connected, &negotiated) {
            transmit(&mut session, &connected, negotiated);
            break;
        }
        session.to_server.extend_from_slice(&to_server);
        to_client = Vec::new();
        negotiated = server_turn(&mut server, &to_server, &mut to_client).or(negotiated);
    }
    session
}

/// What the client says to `bytes`, and where it is, once it is connected.
fn client_turn(client: &mut client::Handshake, bytes: &[u8]) -> (Vec<u8>, Option<Connected>) {
    let (mut bytes, mut out) = (bytes, Vec::new());
    while let Ok((used, event)) = client.input(bytes, &mut out) {
        bytes = &bytes[used..];
        match event {
            None => break,
            // Recorded as if TLS changed nothing: the bytes inside of it are the same.
            Some(client::Event::StartTls) => {
                client
                    .tls_started(bytes.len(), &mut out)
                    .expect("nothing was unread");
            }
            Some(client::Event::Connected(connected)) => return (out, Some(connected)),
            Some(client::Event::Info(_) | client::Event::Finished) => break,
            Some(client::Event::Export { .. } | client::Event::Context(_)) => {}
        }
    }
    (out, None)
}

fn server_turn(
    server: &mut server::Handshake,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Option<Negotiated> {
    let mut bytes = bytes;
    while let Ok((used, Some(event))) = server.input(bytes, out) {
        bytes = &bytes[used..];
        match event {
            server::Event::List => {
                server.answer_list(Ok([("disk", "a disk"), ("", "")]), out);
            }
            server::Event::MetaContext(_) => server.answer_contexts(Ok(&contexts()), out),
            server::Event::StartTls => server.answer_start_tls(Ok(()), bytes.len(), out).ok()?,
            server::Event::Abort => return None,
            server::Event::Open(request) => {
                let known = matches!(request.name.as_str(), "" | "disk");
                let answer = match known {
                    true => Ok(export()),
                    false => Err(Refused::new(proto::REP_ERR_UNKNOWN, "no such export")),
                };
                if let Some(negotiated) = server.answer_open(answer, out).ok()? {
                    return Some(negotiated);
                }
            }
        }
    }
    None
}

fn export() -> ExportInfo {
    let mut info = ExportInfo::new(SIZE, "disk");
    info.flags = proto::FLAG_SEND_FLUSH
        | proto::FLAG_SEND_FUA
        | proto::FLAG_SEND_TRIM
        | proto::FLAG_SEND_WRITE_ZEROES
        | proto::FLAG_SEND_DF
        | proto::FLAG_SEND_CACHE
        | proto::FLAG_CAN_MULTI_CONN;
    info.block_sizes = BlockSizes::new(1, 4096, 1 << 20);
    info.description = "a disk".into();
    info
}

fn contexts() -> [Context; 2] {
    let context = |id, name: &str| Context {
        id,
        name: name.into(),
    };
    [
        context(1, proto::CONTEXT_BASE_ALLOCATION),
        context(2, "x-test:dirty"),
    ]
}

/// The transmission phase: the requests of [`requests`], and an answer to each.
fn transmit(session: &mut Session, connected: &Connected, negotiated: &Negotiated) {
    let mode = negotiated.mode;
    session.transmission = Some((session.to_server.len(), session.to_client.len(), mode));
    for request in requests(connected.size) {
        // A good client asks for a status only if there are contexts.
        if request.command == proto::CMD_BLOCK_STATUS && connected.contexts.is_empty() {
            continue;
        }
        let head = encode_request(mode, &request).expect("lengths are small");
        session.to_server.extend_from_slice(&head);
        if request.command == proto::CMD_WRITE {
            session
                .to_server
                .resize(session.to_server.len() + request.length as usize, 0x77);
        }
        answer(&head, negotiated, &mut session.to_client);
    }
    let bye = client::Request {
        command: proto::CMD_DISC,
        flags: 0,
        cookie: 99,
        offset: 0,
        length: 0,
    };
    session
        .to_server
        .extend_from_slice(&encode_request(mode, &bye).expect("a length of 0 fits"));
}

/// Answers a request as a server of a disk with a hole in it would.
fn answer(head: &[u8], negotiated: &Negotiated, out: &mut Vec<u8>) {
    let mode = negotiated.mode;
    let (header, _) = parse_request(head, mode.is_extended())
        .expect("it is ours")
        .expect("whole");
    let to = header.reply(mode);
    match check(&header, &negotiated.served) {
        Ok(Command::Read { offset, length, .. }) if length > 2000 && mode.has_chunks() => {
            out.extend_from_slice(&to.hole(offset + 1000, length - 1000, false));
            out.extend_from_slice(&to.data(offset, 1000, true));
            out.resize(out.len() + 1000, 0x55);
        }
        Ok(Command::Read { offset, length, .. }) => {
            out.extend_from_slice(&to.data(offset, length, true));
            out.resize(out.len() + length as usize, 0x55);
        }
        Ok(Command::BlockStatus {
            length, req_one, ..
        }) => {
            let last = negotiated.contexts.len() - 1;
            for (n, context) in negotiated.contexts.iter().enumerate() {
                let extents = [(1000, 0), (length - 1000, 3)];
                let extents = extents.map(|(length, flags)| Extent { length, flags });
                let told = to.block_status(context.id, extents, length, req_one, n == last, out);
                assert_ne!(told, 0, "there are extents");
            }
        }
        Ok(Command::WriteZeroes { .. }) => {
            to.failure_with_text(proto::ENOSPC, "the disk is full", out);
        }
        Ok(_) => out.extend_from_slice(&to.success()),
        Err(refusal) => to.failure_with_text(refusal.error, refusal.text, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TARGETS;

    #[test]
    fn every_target_has_seeds_that_differ_and_are_small() {
        for target in TARGETS {
            let seeds = of(target.name);
            assert!(seeds.len() >= 8, "{} has {}", target.name, seeds.len());
            let bytes: usize = seeds.iter().map(Vec::len).sum();
            assert!(bytes < 400 << 10, "{} has {bytes} bytes", target.name);
        }
    }

    #[test]
    fn sessions_reach_the_transmission_phase_in_every_mode() {
        let mut seen = BTreeSet::new();
        for setup in setups() {
            for server in servers() {
                let session = record(&setup, server);
                if let Some((requests, replies, mode)) = session.transmission {
                    seen.insert(format!("{mode:?}"));
                    assert!(session.to_server.len() > requests + 8 * 28);
                    assert!(session.to_client.len() > replies + 1500);
                }
            }
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
