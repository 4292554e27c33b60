//! `nbd_client`: a whole client, from the greeting to the replies, against a server that says
//! anything.
//!
//! The first three bytes choose what the client wants and in which pieces the stream comes; the rest
//! is what the server sends. After the handshake a fixed set of requests is in flight. Promised are:
//! no panic, no byte outside of a request's range, one end for each request, and the same outcome
//! whatever the pieces.

use nbd::{
    Mode,
    client::{
        ClientOptions, Connected, Event, Goal, Handshake, Pending, Replies, Reply, Request, Tls,
    },
    proto,
};

/// The target.
pub fn run(data: &[u8]) {
    let Some((setup, stream)) = data.split_first_chunk::<3>() else {
        return;
    };
    let whole = session(setup, stream, stream.len().max(1));
    let pieces = session(setup, stream, usize::from(setup[2]).max(1));
    assert_eq!(whole, pieces, "the outcome depends on how bytes are cut");
}

/// What the client wants, for setup bytes.
pub fn options(setup: &[u8; 3]) -> ClientOptions {
    let pick = |n: u8| usize::from(setup[0] >> n & 3);
    ClientOptions {
        export: ["", "disk", "a", "é"][usize::from(setup[1] & 3)].into(),
        goal: [Goal::Go, Goal::Info, Goal::List, Goal::ListContexts][pick(0)],
        mode: [
            Mode::Simple,
            Mode::Structured,
            Mode::Extended,
            Mode::Extended,
        ][pick(2)],
        tls: [Tls::Off, Tls::Try, Tls::Require, Tls::Off][pick(4)],
        full_info: setup[0] & 64 != 0,
        block_size: setup[0] & 128 != 0,
        contexts: match setup[1] & 4 {
            0 => Vec::new(),
            _ => vec![proto::CONTEXT_BASE_ALLOCATION.into(), "x-test:dirty".into()],
        },
    }
}

/// The requests in flight after the handshake. Their cookies are their places.
pub fn requests(size: u64) -> Vec<Request> {
    let request = |cookie, command, flags, length: u64| Request {
        command,
        flags,
        cookie,
        offset: (cookie * 512).min(size),
        length: length.min(size.saturating_sub(cookie * 512)),
    };
    vec![
        request(0, proto::CMD_READ, 0, 4096),
        request(1, proto::CMD_READ, proto::CMD_FLAG_DF, 1000),
        request(2, proto::CMD_WRITE, proto::CMD_FLAG_FUA, 512),
        request(3, proto::CMD_FLUSH, 0, 0),
        request(4, proto::CMD_BLOCK_STATUS, 0, 1 << 20),
        request(5, proto::CMD_BLOCK_STATUS, proto::CMD_FLAG_REQ_ONE, 8192),
        request(6, proto::CMD_WRITE_ZEROES, 0, 65536),
        request(7, proto::CMD_READ, 0, 1),
    ]
}

/// The bytes after the handshake, as they come.
struct Transmission {
    requests: Vec<Request>,
    pending: Vec<Option<Pending>>,
    replies: Replies,
    held: Vec<u8>,
    skip: u64,
    finishing: Option<u64>,
}

fn session(setup: &[u8; 3], stream: &[u8], piece: usize) -> Vec<String> {
    let mut handshake = Handshake::new(options(setup)).expect("names are short");
    let (mut trace, mut out) = (Vec::new(), Vec::new());
    let mut transmission: Option<Transmission> = None;
    for mut bytes in stream.chunks(piece) {
        while transmission.is_none() && !bytes.is_empty() {
            let (used, event) = match handshake.input(bytes, &mut out) {
                Ok(step) => step,
                Err(failure) => {
                    trace.push(format!("{failure} {out:?}"));
                    return trace;
                }
            };
            bytes = &bytes[used..];
            let Some(event) = event else {
                assert!(bytes.is_empty(), "bytes were left without an event");
                break;
            };
            trace.push(format!("{event:?}"));
            match event {
                Event::StartTls => handshake.tls_started(0, &mut out).expect("TLS was due"),
                Event::Export { .. } | Event::Context(_) => {}
                Event::Info(_) | Event::Finished => return trace,
                Event::Connected(connected) => transmission = Some(Transmission::new(&connected)),
            }
        }
        if let Some(transmission) = &mut transmission
            && !transmission.received(bytes, &mut trace)
        {
            return trace;
        }
    }
    trace.push(format!("{out:?}"));
    trace
}

impl Transmission {
    fn new(connected: &Connected) -> Transmission {
        let requests = requests(connected.size);
        let contexts = connected.contexts.len() as u32;
        Transmission {
            pending: requests
                .iter()
                .map(|r| Some(Pending::new(r, contexts)))
                .collect(),
            requests,
            replies: Replies::new(connected.mode),
            held: Vec::new(),
            skip: 0,
            finishing: None,
        }
    }

    /// Takes bytes; false at the end of the connection.
    fn received(&mut self, bytes: &[u8], trace: &mut Vec<String>) -> bool {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let now = self.skip.min((self.held.len() - at) as u64);
            (at, self.skip) = (at + now as usize, self.skip - now);
            if self.skip != 0 {
                break;
            }
            if let Some(cookie) = self.finishing.take() {
                self.pending[cookie as usize] = None;
            }
            let pending = &mut self.pending;
            let found = self.replies.input(&self.held[at..], |cookie| {
                pending.get_mut(usize::try_from(cookie).ok()?)?.as_mut()
            });
            let (used, reply) = match found {
                Ok((used, Some(reply))) => (used, reply),
                Ok((used, None)) => {
                    at += used;
                    break;
                }
                Err(violation) => {
                    trace.push(violation.to_string());
                    return false;
                }
            };
            assert!(used != 0, "an event without progress");
            let seen = look(&reply, &self.requests, trace);
            at += used;
            if let Some((cookie, length)) = seen.data {
                self.skip = length;
                self.finishing = seen.last.then_some(cookie);
            } else if seen.last {
                self.pending[seen.cookie as usize] = None;
            }
        }
        self.held.drain(..at);
        assert!(
            self.held.len() <= 16 << 10,
            "16 KiB are promised to be enough to get on"
        );
        true
    }
}

struct Seen {
    cookie: u64,
    data: Option<(u64, u64)>,
    last: bool,
}

/// Checks a reply against its request, and writes down what it says.
fn look(reply: &Reply<'_>, requests: &[Request], trace: &mut Vec<String>) -> Seen {
    let inside = |cookie: u64, offset: u64, length: u64| {
        let request = &requests[cookie as usize];
        assert_eq!(request.command, proto::CMD_READ, "only reads have content");
        assert!(length != 0 && offset >= request.offset);
        assert!(
            offset - request.offset + length <= request.length,
            "outside of the request"
        );
    };
    if !matches!(reply, Reply::BlockStatus { .. }) {
        trace.push(format!("{reply:?}"));
    }
    match *reply {
        Reply::Data {
            cookie,
            offset,
            length,
            last,
        } => {
            inside(cookie, offset, length);
            Seen {
                cookie,
                data: Some((cookie, length)),
                last,
            }
        }
        Reply::Hole {
            cookie,
            offset,
            length,
            last,
        } => {
            inside(cookie, offset, length);
            Seen {
                cookie,
                data: None,
                last,
            }
        }
        Reply::Error {
            cookie,
            error,
            last,
            ..
        } => {
            assert_ne!(error, 0, "an error is not 0");
            Seen {
                cookie,
                data: None,
                last,
            }
        }
        Reply::Done { cookie } => Seen {
            cookie,
            data: None,
            last: true,
        },
        Reply::BlockStatus {
            cookie,
            context,
            ref extents,
            end,
            last,
        } => {
            // However the pieces lie, the extents are the same.
            for extent in extents.clone() {
                assert_ne!(extent.length, 0, "an extent is not empty");
                trace.push(format!("{cookie} {context} {extent:?}"));
            }
            if end {
                trace.push(format!("end {last}"));
            }
            Seen {
                cookie,
                data: None,
                last,
            }
        }
    }
}
