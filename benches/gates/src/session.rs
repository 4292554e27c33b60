//! A whole NBD session in one thread: our codec at one end of a socket pair, the server at the other.
//!
//! The poll driver makes plain system calls, whose inside callgrind does not see: what is counted is
//! all that our own code does for a request, from the received bytes to the vectored send.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
};

use block::Source;
use exports::nbd::{Options, Server};
use nbd::{
    Mode,
    client::{ClientOptions, Event, Handshake, Request, encode_request},
    proto,
};
use reactor::{DriverKind, Loop, Wait};
use testkit::TestHost;

/// Bytes of a request.
const BLOCK: u64 = 4096;

/// A connection to a server of our own, both turned by hand.
pub struct Session {
    turns: Loop,
    socket: UnixStream,
    buf: Vec<u8>,
    /// Kept so that its connection lives.
    _server: Arc<Server>,
}

impl Session {
    /// Connects to a server of `source` and shakes hands.
    pub fn new(source: Arc<dyn Source>, mode: Mode) -> Session {
        let options = reactor::Options {
            driver: DriverKind::Poll,
            ..reactor::Options::default()
        };
        let turns = Loop::new(options).expect("epoll is always there");
        let server = Server::new(source, TestHost::new(), Options::default());
        let (socket, theirs) = UnixStream::pair().expect("a socket pair");
        socket
            .set_nonblocking(true)
            .expect("a socket can be non-blocking");
        // A whole batch of writes fits.
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, 1 << 20).expect("SO_SNDBUF");
        server.serve_socket(turns.reactor(), theirs.into(), "gate".into());
        let mut session = Session {
            turns,
            socket,
            buf: vec![0; 256 << 10],
            _server: server,
        };
        session.handshake(mode);
        session
    }

    fn handshake(&mut self, mode: Mode) {
        let wanted = ClientOptions {
            mode,
            ..ClientOptions::default()
        };
        let mut machine = Handshake::new(wanted).expect("no names");
        let mut out = Vec::new();
        loop {
            self.turns.turn(Wait::Poll);
            let n = self.take();
            let (_, event) = machine
                .input(&self.buf[..n], &mut out)
                .expect("our own server");
            if let Some(Event::Connected(connected)) = event {
                assert_eq!(connected.mode, mode, "our server grants it");
                return;
            }
            self.socket.write_all(&out).expect("options are short");
            out.clear();
        }
    }

    /// Receives what there is.
    fn take(&mut self) -> usize {
        match self.socket.read(&mut self.buf) {
            Ok(0) => panic!("the server hung up"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends `stream` and turns until `expected` bytes have come.
    fn exchange(&mut self, stream: &[u8], expected: usize) {
        self.socket
            .write_all(stream)
            .expect("a batch fits the socket");
        let mut got = 0;
        while got < expected {
            self.turns.turn(Wait::Poll);
            got += self.take();
        }
        assert_eq!(got, expected, "as many bytes as good replies have");
    }

    /// Writes the first blocks of the disk, so that reads of them have data.
    pub fn fill(&mut self, blocks: u64) {
        for place in 0..blocks {
            let mut stream = head(Mode::Structured, proto::CMD_WRITE, place);
            stream.resize(stream.len() + BLOCK as usize, 0x5a);
            self.exchange(&stream, proto::SIMPLE_REPLY_LEN);
        }
    }

    /// A run of batches of structured reads of data.
    pub fn reads(mut self, batch: u64) -> Box<dyn FnMut(u64)> {
        self.fill(batch);
        let reads = (0..batch).flat_map(|place| head(Mode::Structured, proto::CMD_READ, place));
        let stream: Vec<u8> = reads.collect();
        let reply = proto::STRUCTURED_REPLY_LEN + 8 + BLOCK as usize;
        Box::new(move |requests| {
            for _ in 0..requests.div_ceil(batch) {
                self.exchange(&stream, batch as usize * reply);
            }
        })
    }

    /// A run of batches of writes.
    pub fn writes(mut self, batch: u64) -> Box<dyn FnMut(u64)> {
        let mut stream = Vec::new();
        for place in 0..batch {
            stream.extend(head(Mode::Structured, proto::CMD_WRITE, place));
            stream.resize(stream.len() + BLOCK as usize, 0x5a);
        }
        Box::new(move |requests| {
            for _ in 0..requests.div_ceil(batch) {
                self.exchange(&stream, batch as usize * proto::SIMPLE_REPLY_LEN);
            }
        })
    }
}

fn head(mode: Mode, command: u16, place: u64) -> Vec<u8> {
    let (offset, length) = (place * BLOCK, BLOCK);
    let request = Request {
        command,
        flags: 0,
        cookie: place,
        offset,
        length,
    };
    encode_request(mode, &request).expect("it fits").to_vec()
}
