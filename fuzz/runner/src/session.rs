//! `nbd_server_session`: the whole NBD server, from the socket to a disk in memory and back.
//!
//! The first two bytes choose the server's bounds and in which pieces the stream comes; the rest is
//! what the client sends before it hangs up. One thread plays both ends of a socket pair with the
//! poll driver, so a session depends on the input only. Promised are: the connection ends, no request
//! is lost or dropped, no task panics, no buffer is kept.

use std::{
    cell::RefCell,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use block::Source;
use config::Size;
use exports::nbd::{Options, Server};
use reactor::{DriverKind, Loop, Wait};
use testkit::TestHost;

/// Size of the disk in bytes; that of the recorded sessions.
const SIZE: u64 = 64 << 10;

/// A connection whose client has hung up ends sooner than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The target.
pub fn run(data: &[u8]) {
    let Some((setup, stream)) = data.split_first_chunk::<2>() else {
        return;
    };
    WORLD.with_borrow_mut(|world| world.session(*setup, stream));
}

thread_local! {
    // Leaked: a loop is not to be taken down among other thread-locals' ends.
    static WORLD: RefCell<&'static mut World> = RefCell::new(Box::leak(Box::new(World::new())));
}

struct World {
    turns: Loop,
    source: Arc<dyn Source>,
    host: Arc<TestHost>,
    sink: Vec<u8>,
}

impl World {
    fn new() -> World {
        let options = reactor::Options {
            driver: DriverKind::Poll,
            ..reactor::Options::default()
        };
        let config = sources::memory::MemoryConfig::sparse(Size(SIZE));
        World {
            turns: Loop::new(options).expect("epoll is always there"),
            source: sources::memory::new(config).expect("64 KiB fit"),
            host: TestHost::new(),
            sink: vec![0; 64 << 10],
        }
    }

    fn session(&mut self, setup: [u8; 2], stream: &[u8]) {
        let options = Options {
            read_only: setup[0] & 1 != 0,
            max_requests: [1024, 1, 3, 64][usize::from(setup[0] >> 1 & 3)],
            max_bytes: [16 << 20, 4096, 1, 100_000][usize::from(setup[0] >> 3 & 3)],
            send_buffer: 0,
            ..Options::default()
        };
        let server = Server::new(self.source.clone(), self.host.clone(), options);
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true)
            .expect("a socket can be non-blocking");
        server.serve_socket(self.turns.reactor(), theirs.into(), "fuzz".into());
        let piece = (usize::from(setup[1]) * 8).max(1);
        for piece in stream.chunks(piece) {
            if !self.send(&ours, piece) {
                break;
            }
        }
        // The server may have closed already.
        let _ = ours.shutdown(Shutdown::Write);
        let end = Instant::now() + PATIENCE;
        while server.connections() > 0 {
            self.turn(&ours);
            assert!(Instant::now() < end, "the connection does not end");
        }
        self.turn(&ours);
        let reactor = self.turns.reactor();
        assert_eq!(reactor.requests_live(), 0, "a request was lost");
        assert_eq!(reactor.counters().dropped.get(), 0, "a request was dropped");
        assert_eq!(reactor.counters().panics.get(), 0, "a task panicked");
        assert_eq!(reactor.chunks().live(), 0, "a buffer was kept");
    }

    /// Sends a piece; false if the server has closed.
    fn send(&mut self, mut ours: &UnixStream, piece: &[u8]) -> bool {
        let mut rest = piece;
        while !rest.is_empty() {
            match ours.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
            self.turn(ours);
        }
        true
    }

    /// A turn of the server, then everything it sent is taken.
    fn turn(&mut self, mut ours: &UnixStream) {
        self.turns.turn(Wait::Poll);
        while matches!(ours.read(&mut self.sink), Ok(n) if n > 0) {}
    }
}
