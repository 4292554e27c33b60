//! Entry points for the fuzz targets, also run by this crate's own tests.
//!
//! Both drive the machines as a real driver does, over bytes of the fuzzer's choice, and panic if a
//! promise is broken: bounds of memory, ranges of commands, and that it makes no difference in which
//! pieces the bytes come.

use crate::Violation;
use crate::client::{self, Pending, Replies, Reply, Request};
use crate::proto::{self, Mode, limits};
use crate::server::transmission::{Command, check, parse_request, parse_status_payload};
use crate::server::{
    BlockSizePolicy, BlockSizes, Context, Event, ExportInfo, Handshake, Negotiated, Refused,
    Served, ServerOptions, TlsMode,
};
use crate::uri::Uri;

/// Option haggling, both sides: the first bytes choose options, the rest is what the peer sends.
pub fn fuzz_handshake(data: &[u8]) {
    let Some((setup, stream)) = data.split_first_chunk::<3>() else {
        return;
    };
    let piece = usize::from(setup[2]).max(1);
    let whole = server_run(setup, stream, stream.len().max(1));
    let pieces = server_run(setup, stream, piece);
    assert_eq!(
        whole, pieces,
        "the server's answers depend on how bytes are cut"
    );
    let whole = client_run(setup, stream, stream.len().max(1));
    let pieces = client_run(setup, stream, piece);
    assert_eq!(
        whole, pieces,
        "the client's answers depend on how bytes are cut"
    );
    let whole = haggling_run(setup, stream, stream.len().max(1));
    let pieces = haggling_run(setup, stream, piece);
    assert_eq!(
        whole, pieces,
        "what single options are told depends on how bytes are cut"
    );
}

/// URIs: what is understood means the same in its canonical form, and what is not is told with a
/// place in the text.
pub fn fuzz_uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<Uri>() {
        Ok(uri) => {
            assert!(Uri::is_meant(text), "{text}");
            let canonical = uri.to_string();
            assert_eq!(canonical.parse(), Ok(uri), "{text} as {canonical}");
        }
        Err(error) => {
            assert_eq!(error.uri, text);
            assert!(
                (1..=text.chars().count() + 1).contains(&error.at),
                "{error:?}"
            );
        }
    }
}

/// A client that chooses its options one by one: what it is told, up to the end or a violation.
fn haggling_run(setup: &[u8; 3], stream: &[u8], piece: usize) -> Vec<String> {
    const OPTIONS: [u32; 8] = [
        proto::OPT_LIST,
        proto::OPT_STARTTLS,
        proto::OPT_INFO,
        proto::OPT_STRUCTURED_REPLY,
        proto::OPT_LIST_META_CONTEXT,
        proto::OPT_SET_META_CONTEXT,
        proto::OPT_EXPORT_NAME,
        proto::OPT_GO,
    ];
    let mut haggling = client::Haggling::new();
    let mut log = Vec::new();
    let mut next = usize::from(setup[0]);
    let mut greeted = false;
    let (mut at, mut seen) = (0, 0);
    while at < stream.len() || seen < at {
        if haggling.is_idle() {
            let mut out = Vec::new();
            if !std::mem::replace(&mut greeted, true) {
                haggling.answer(u32::from(setup[1] & 3), &mut out);
            }
            haggling.send(OPTIONS[next % OPTIONS.len()], &[], &mut out);
            next = next * 5 + 1;
        }
        at = stream.len().min(at.max(seen + piece));
        match haggling.input(&stream[seen..at]) {
            Ok((consumed, told)) => {
                assert!(told.is_some() || consumed == at - seen || haggling.buffered() == 0);
                assert!(haggling.buffered() <= limits::MAX_OPTION_DATA as usize + 20);
                seen += consumed;
                match told {
                    Some(told) => log.push(format!("{told:?}")),
                    // Over: nothing more is taken.
                    None if consumed == 0 && !haggling.is_idle() => break,
                    None => {}
                }
            }
            Err(violation) => {
                log.push(violation.to_string());
                break;
            }
        }
        if at == stream.len() && seen == at {
            break;
        }
    }
    log
}

/// Transmission phase, both sides: the first bytes choose the export, the rest is what the peer
/// sends.
pub fn fuzz_transmission(data: &[u8]) {
    let Some((setup, stream)) = data.split_first_chunk::<8>() else {
        return;
    };
    requests_run(setup, stream);
    let whole = replies_run(setup, stream, stream.len().max(1));
    let pieces = replies_run(setup, stream, usize::from(setup[7]).max(1));
    assert_eq!(whole, pieces, "replies depend on how bytes are cut");
}

const MODES: [Mode; 4] = [
    Mode::Simple,
    Mode::Structured,
    Mode::Extended,
    Mode::Extended,
];

fn server_run(setup: &[u8; 3], stream: &[u8], piece: usize) -> Vec<String> {
    let bit = |n: u8| setup[0] >> n & 1 != 0;
    let options = ServerOptions {
        fixed_newstyle: !bit(0) || !bit(1),
        no_zeroes: bit(1),
        structured_replies: !bit(2) || !bit(3),
        meta_contexts: setup[2] < 0xc0,
        extended_headers: !bit(3),
        require_extended_headers: bit(4) && bit(5),
        list: !bit(5) || bit(4),
        tls: [
            TlsMode::Off,
            TlsMode::Offered,
            TlsMode::Required,
            TlsMode::Off,
        ][usize::from(setup[0] >> 6)],
        block_size_policy: [
            BlockSizePolicy::Relax,
            BlockSizePolicy::Enforce,
            BlockSizePolicy::Refuse,
            BlockSizePolicy::Relax,
        ][usize::from(setup[1] & 3)],
    };
    let mut handshake = Handshake::new(options);
    let mut left = stream.len();
    let (mut trace, mut out) = (vec![format!("{:?}", handshake.greeting())], Vec::new());
    for mut bytes in stream.chunks(piece) {
        loop {
            let step = handshake.input(bytes, &mut out);
            let (consumed, event) = match step {
                Ok(step) => step,
                Err(violation) => {
                    trace.push(format!("{violation} {out:?}"));
                    return trace;
                }
            };
            assert!(handshake.buffered() <= limits::MAX_OPTION_DATA as usize);
            bytes = &bytes[consumed..];
            left -= consumed;
            let Some(event) = event else {
                assert!(bytes.is_empty(), "bytes were left without an event");
                break;
            };
            trace.push(format!("{event:?}"));
            match answer(&mut handshake, event, setup[1], left, &mut out) {
                Ok(false) => {}
                end => {
                    trace.push(format!("{end:?} {out:?}"));
                    return trace;
                }
            }
        }
        assert!(
            out.len() <= 4 << 20,
            "replies grow beyond what options asked for"
        );
    }
    trace.push(format!("{out:?}"));
    trace
}

/// Answers as a driver would; true at the end. `left` is how much of the stream is still to come.
fn answer(
    handshake: &mut Handshake,
    event: Event,
    choice: u8,
    left: usize,
    out: &mut Vec<u8>,
) -> Result<bool, Violation> {
    let no = || Refused::new(proto::REP_ERR_UNKNOWN, "no such export");
    match event {
        Event::List => handshake.answer_list(Ok([("", "default"), ("a", "")]), out),
        Event::Open(request) => {
            let mut info = ExportInfo::new(u64::from(choice) << 20, "canonical");
            info.block_sizes = BlockSizes::new(1 << (choice >> 4), 65536, u32::MAX);
            info.flags = u16::MAX;
            let found = request.name.len() < 3;
            let entered = handshake.answer_open(if found { Ok(info) } else { Err(no()) }, out)?;
            return Ok(entered.is_some_and(|negotiated| consistent(&negotiated)));
        }
        Event::MetaContext(request) => {
            let contexts = [
                Context {
                    id: 3,
                    name: proto::CONTEXT_BASE_ALLOCATION.into(),
                },
                Context {
                    id: 9,
                    name: "x-test:a".into(),
                },
            ];
            let found = request.name.len() < 3;
            handshake.answer_contexts(if found { Ok(&contexts) } else { Err(no()) }, out);
        }
        Event::StartTls => {
            let granted = choice & 4 == 0;
            // What follows comes through TLS, or in the clear.
            let unread = if choice & 8 == 0 { 0 } else { left };
            let answer = if granted { Ok(()) } else { Err(no()) };
            let answered = handshake.answer_start_tls(answer, unread, out);
            assert_eq!(answered.is_err(), granted && unread != 0);
            answered?;
            assert_eq!(handshake.tls(), granted);
            assert!(
                !granted || handshake.is_fresh(),
                "something survived STARTTLS"
            );
        }
        Event::Abort => return Ok(true),
    }
    Ok(false)
}

fn consistent(negotiated: &Negotiated) -> bool {
    let Negotiated {
        mode,
        served,
        contexts,
        ..
    } = negotiated;
    assert_eq!(served.contexts as usize, contexts.len());
    assert!(contexts.is_empty() || mode.has_chunks());
    assert!(mode.has_chunks() || served.flags & proto::FLAG_SEND_DF == 0);
    assert!(mode.is_extended() || served.flags & proto::FLAG_BLOCK_STATUS_PAYLOAD == 0);
    assert!(served.min_block.is_power_of_two());
    true
}

fn client_run(setup: &[u8; 3], stream: &[u8], piece: usize) -> Vec<String> {
    let options = client::ClientOptions {
        export: "a".into(),
        goal: [
            client::Goal::Go,
            client::Goal::Info,
            client::Goal::List,
            client::Goal::ListContexts,
        ][usize::from(setup[0] & 3)],
        mode: MODES[usize::from(setup[0] >> 2 & 3)],
        contexts: vec![proto::CONTEXT_BASE_ALLOCATION.into()],
        tls: [
            client::Tls::Off,
            client::Tls::Try,
            client::Tls::Require,
            client::Tls::Off,
        ][usize::from(setup[0] >> 4 & 3)],
        full_info: setup[0] & 64 != 0,
        block_size: setup[0] & 128 != 0,
    };
    let mut handshake = client::Handshake::new(options).expect("names are short");
    let (mut trace, mut out) = (Vec::new(), Vec::new());
    for mut bytes in stream.chunks(piece) {
        loop {
            let (consumed, event) = match handshake.input(bytes, &mut out) {
                Ok(step) => step,
                Err(failure) => {
                    trace.push(format!("{failure} {out:?}"));
                    return trace;
                }
            };
            let most = limits::MAX_OPTION_DATA as usize + proto::OPTION_REPLY_HEADER_LEN;
            assert!(handshake.buffered() <= most);
            bytes = &bytes[consumed..];
            let Some(event) = event else {
                assert!(bytes.is_empty(), "bytes were left without an event");
                break;
            };
            trace.push(format!("{event:?}"));
            match event {
                client::Event::StartTls => {
                    handshake
                        .tls_started(0, &mut out)
                        .expect("nothing was unread");
                }
                client::Event::Export { .. } | client::Event::Context(_) => {}
                client::Event::Info(_) | client::Event::Connected(_) | client::Event::Finished => {
                    trace.push(format!("{out:?}"));
                    return trace;
                }
            }
        }
    }
    trace.push(format!("{out:?}"));
    trace
}

fn requests_run(setup: &[u8; 8], stream: &[u8]) {
    let mode = MODES[usize::from(setup[0] & 3)];
    let contexts = [7, 8, 0].map(|id| Context {
        id,
        name: format!("x:{id}"),
    });
    let served = Served {
        size: u64::from_be_bytes([0, setup[1], 0, 0, 0, setup[2], 0, 0]),
        flags: u16::from_be_bytes([setup[3], setup[4]]) | proto::FLAG_HAS_FLAGS,
        min_block: 1 << (setup[5] & 15),
        max_payload: 1 << (setup[6] & 31),
        mode,
        contexts: u32::from(setup[5] >> 6),
    };
    let mut bytes = stream;
    while let Ok(Some((request, used))) = parse_request(bytes, mode.is_extended()) {
        assert!(u64::from(request.payload) <= limits::MAX_PAYLOAD_SKIP);
        let payload = bytes.get(used..).unwrap_or_default();
        let command = check(&request, &served);
        match command {
            Ok(Command::BlockStatusPayload {
                offset,
                payload: length,
                ..
            }) => {
                let count = served.contexts as usize;
                let payload = payload.get(..length as usize).unwrap_or(payload);
                let parsed =
                    parse_status_payload(payload, offset, &served, &contexts[..count.min(3)]);
                if let Ok((length, set)) = parsed {
                    assert_range(offset, length, &served);
                    assert!(!set.is_empty() && set.len() <= count);
                }
            }
            Ok(command) => assert_command(command, &served),
            Err(refusal) => {
                assert_ne!(refusal.error, 0);
                assert_eq!(refusal.payload, u64::from(request.payload));
            }
        }
        let next = used.saturating_add(request.payload as usize);
        bytes = bytes.get(next..).unwrap_or_default();
    }
}

fn assert_command(command: Command, served: &Served) {
    let writes = served.flags & proto::FLAG_READ_ONLY == 0;
    match command {
        Command::Read { offset, length, .. } => {
            assert!(length <= served.max_payload);
            assert_range(offset, length.into(), served);
        }
        Command::Write { offset, length, .. } => {
            assert!(writes && length <= served.max_payload);
            assert_range(offset, length.into(), served);
        }
        Command::Trim { offset, length, .. } | Command::WriteZeroes { offset, length, .. } => {
            assert!(writes);
            assert_range(offset, length, served);
        }
        Command::Cache { offset, length } => assert_range(offset, length, served),
        Command::BlockStatus { offset, length, .. } => {
            assert!(served.contexts != 0);
            assert_range(offset, length, served);
        }
        Command::Disconnect | Command::Flush | Command::BlockStatusPayload { .. } => {}
    }
}

fn assert_range(offset: u64, length: u64, served: &Served) {
    assert!(length != 0);
    assert!(
        offset
            .checked_add(length)
            .is_some_and(|end| end <= served.size)
    );
    assert!((offset | length).is_multiple_of(u64::from(served.min_block)));
}

fn replies_run(setup: &[u8; 8], stream: &[u8], piece: usize) -> Vec<String> {
    let mode = MODES[usize::from(setup[0] & 3)];
    let mut pending = [proto::CMD_READ, proto::CMD_BLOCK_STATUS, proto::CMD_WRITE].map(|command| {
        let offset = u64::from(setup[1]) << 8;
        let length = u64::from(setup[2]) << 4;
        let flags = u16::from(setup[3]) & (proto::CMD_FLAG_DF | proto::CMD_FLAG_REQ_ONE);
        Pending::new(
            &Request {
                command,
                flags,
                cookie: 0,
                offset,
                length,
            },
            4,
        )
    });
    let (mut parser, mut trace, mut held, mut skip) = (Replies::new(mode), vec![], vec![], 0u64);
    for bytes in stream.chunks(piece) {
        held.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            // Payload is the driver's to take.
            let now = skip.min((held.len() - at) as u64);
            (at, skip) = (at + now as usize, skip - now);
            if skip != 0 {
                break;
            }
            let found = parser.input(&held[at..], |cookie| {
                usize::try_from(cookie)
                    .ok()
                    .and_then(|n| pending.get_mut(n))
            });
            let (consumed, reply) = match found {
                Ok(found) => found,
                Err(violation) => {
                    trace.push(violation.to_string());
                    return trace;
                }
            };
            at += consumed;
            let Some(reply) = reply else { break };
            assert!(consumed != 0, "an event without progress");
            if let Reply::Data { length, .. } = reply {
                skip = length;
            }
            note(reply, &mut trace);
        }
        held.drain(..at);
    }
    trace
}

/// Writes down what a reply says, the same whether or not a block status came in pieces.
fn note(reply: Reply<'_>, trace: &mut Vec<String>) {
    match reply {
        Reply::BlockStatus {
            cookie,
            context,
            extents,
            end,
            last,
        } => {
            trace.extend(extents.map(|extent| format!("{cookie} {context} {extent:?}")));
            if end {
                trace.push(format!("end {last}"));
            }
        }
        reply => trace.push(format!("{reply:?}")),
    }
}
