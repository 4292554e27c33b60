//! What sessions do beside serving: time-outs, limits, hostile and absent clients, stopping.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use blkit_exports::nbd::{Options, Server};
use block::{Device, Queue, Request, Source, WrapDevice};
use nbd::{client, proto};
use reactor::{DriverKind, Reactors};
use testkit::{DeviceSource, MemoryDisk, StepDevice, TestHost};

/// A server on a thread of its own.
pub struct World {
    pub served: Reactors,
    pub server: Arc<Server>,
}

impl World {
    pub fn new(device: Arc<dyn Device>, options: Options) -> World {
        World::of(DeviceSource::new(device), options)
    }

    pub fn of(source: Arc<dyn Source>, options: Options) -> World {
        let loop_options = reactor::Options {
            driver: DriverKind::Auto,
            ..Default::default()
        };
        let served = Reactors::start(1, loop_options).expect("a loop");
        let server = Server::new(source, TestHost::new(), options);
        World { served, server }
    }

    pub fn memory(options: Options) -> World {
        World::new(MemoryDisk::new(1 << 20), options)
    }

    pub fn connect(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let server = self.server.clone();
        self.served.run_on(0, move |reactor| {
            server.serve_socket(reactor, theirs.into(), "pair".into());
        });
        ours
    }

    /// Connects and haggles, without structured replies.
    fn ready(&self) -> UnixStream {
        let mut stream = self.connect();
        let options = client::ClientOptions {
            mode: nbd::Mode::Simple,
            ..Default::default()
        };
        let mut machine = client::Handshake::new(options).unwrap();
        let mut bytes = [0; 4096];
        loop {
            let n = stream.read(&mut bytes).unwrap();
            assert!(n > 0, "the server left");
            let mut out = Vec::new();
            let (_, event) = machine.input(&bytes[..n], &mut out).unwrap();
            stream.write_all(&out).unwrap();
            if let Some(client::Event::Connected(_)) = event {
                return stream;
            }
        }
    }

    /// Waits until the server says so; the tests never measure how long that takes.
    pub fn until(&self, what: &str, reached: impl Fn(&Server) -> bool) {
        let began = Instant::now();
        while !reached(&self.server) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "still waiting: {what}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn request(command: u16, cookie: u64, offset: u64, length: u64) -> Vec<u8> {
    let request = client::Request {
        command,
        flags: 0,
        cookie,
        offset,
        length,
    };
    client::encode_request(nbd::Mode::Simple, &request)
        .unwrap()
        .to_vec()
}

pub fn simple_reply(stream: &mut impl Read) -> (u32, u64) {
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[..4], proto::SIMPLE_REPLY_MAGIC.to_be_bytes());
    let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
    (error, u64::from_be_bytes(head[8..].try_into().unwrap()))
}

#[test]
fn a_slow_handshake_is_dropped() {
    let options = Options {
        handshake_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let world = World::memory(options);
    let mut silent = world.connect();
    let mut greeting = Vec::new();
    silent.read_to_end(&mut greeting).unwrap();
    assert_eq!(
        greeting.len(),
        proto::GREETING_LEN,
        "the greeting, then the end"
    );
    world.until("it is counted", |server| server.stats().timeouts == 1);
    // Whoever has haggled may be silent for ever.
    let mut ready = world.ready();
    std::thread::sleep(Duration::from_millis(200));
    ready
        .write_all(&request(proto::CMD_FLUSH, 9, 0, 0))
        .unwrap();
    assert_eq!(simple_reply(&mut ready), (0, 9));
}

#[test]
fn too_many_connections_are_turned_away() {
    let world = World::memory(Options {
        max_connections: 2,
        ..Options::default()
    });
    let _kept = [world.ready(), world.ready()];
    let mut third = world.connect();
    let mut bytes = Vec::new();
    third.read_to_end(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    assert_eq!(world.server.stats().refused, 1);
}

#[test]
fn garbage_closes_that_connection_only() {
    let world = World::memory(Options::default());
    let mut good = world.ready();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 64]] {
        let mut bad = world.connect();
        bad.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        let _ = bad.read_to_end(&mut rest);
        let mut late = world.ready();
        late.write_all(garbage).unwrap();
        let _ = late.read_to_end(&mut rest);
    }
    good.write_all(&request(proto::CMD_READ, 5, 0, 512))
        .unwrap();
    assert_eq!(simple_reply(&mut good), (0, 5));
    good.read_exact(&mut [0; 512]).unwrap();
    assert!(world.server.stats().violations >= 5);
    world.until("only the good one is left", |server| {
        server.connections() == 1
    });
}

#[test]
fn refused_requests_keep_the_stream_in_step() {
    let world = World::memory(Options::default());
    let mut stream = world.ready();
    let mut bytes = request(proto::CMD_WRITE, 1, 1 << 20, 4096); // past the end: payload skipped
    bytes.extend_from_slice(&[7; 4096]);
    bytes.extend(request(proto::CMD_READ, 2, u64::MAX, 1));
    bytes.extend(request(99, 3, 0, 0));
    bytes.extend(request(proto::CMD_FLUSH, 4, 0, 0));
    stream.write_all(&bytes).unwrap();
    let mut replies: Vec<_> = (0..4).map(|_| simple_reply(&mut stream)).collect();
    replies.sort_by_key(|(_, cookie)| *cookie);
    let wanted = [
        (proto::ENOSPC, 1),
        (proto::EINVAL, 2),
        (proto::EINVAL, 3),
        (0, 4),
    ];
    assert_eq!(replies, wanted);
}

#[test]
fn a_stop_answers_what_is_in_flight() {
    let device = StepDevice::new(1 << 20);
    let world = World::new(device.clone(), Options::default());
    let mut stream = world.ready();
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
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        world.server.connections(),
        1,
        "it waits for what is in flight"
    );
    step.done(0);
    assert_eq!(simple_reply(&mut stream), (0, 77));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "then the end");
    world.until("it is gone", |server| server.connections() == 0);
}

#[test]
fn a_client_that_does_not_read_holds_only_its_credits() {
    let options = Options {
        max_bytes: 1 << 20,
        ..Options::default()
    };
    let world = World::memory(options);
    let mut stalled = world.ready();
    // 64 MiB of reads; their replies fit neither the socket nor the credits.
    stalled
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    for cookie in 0..256 {
        if stalled
            .write_all(&request(proto::CMD_READ, cookie, 0, 256 << 10))
            .is_err()
        {
            break;
        }
    }
    let mut good = world.ready();
    for cookie in 0..100 {
        good.write_all(&request(proto::CMD_READ, cookie, 0, 512))
            .unwrap();
        assert_eq!(simple_reply(&mut good), (0, cookie));
        good.read_exact(&mut [0; 512]).unwrap();
    }
    // It may come to its senses and get everything it asked for.
    let mut left = 256u64 * (16 + (256 << 10));
    let mut bytes = vec![0; 1 << 20];
    while left > 0 {
        let n = stalled.read(&mut bytes).unwrap();
        assert!(n > 0, "{left} bytes are missing");
        left -= n as u64;
    }
}

/// Counts the bytes that are read through it.
struct Counting(Rc<dyn Queue>, Arc<AtomicU64>);

impl Queue for Counting {
    fn submit(&self, req: Request) {
        self.1.fetch_add(req.len(), Ordering::Relaxed);
        self.0.submit(req);
    }
}

/// 64 reads of 256 KiB: all that the credits allow.
fn many_reads() -> Vec<u8> {
    let request = |cookie| request(proto::CMD_READ, cookie, 0, 256 << 10);
    (0..64).flat_map(request).collect()
}

#[test]
fn what_is_there_at_once_is_read_as_it_is_sent() {
    let read = Arc::new(AtomicU64::new(0));
    let count = read.clone();
    let device = WrapDevice::new(
        MemoryDisk::new(1 << 20),
        |_| {},
        move |_, next| Ok(Rc::new(Counting(next, count.clone()))),
    );
    let options = Options {
        send_buffer: 256 << 10,
        ..Options::default()
    };
    let world = World::new(device, options);
    let mut stalled = world.ready();
    stalled.write_all(&many_reads()).unwrap();
    let before = || read.load(Ordering::Relaxed);
    world.until("it reads", |_| before() > 0);
    std::thread::sleep(Duration::from_millis(200));
    assert!(before() <= 6 << 20, "{} bytes", before());
    let mut all = vec![0; 64 * (16 + (256 << 10))];
    stalled.read_exact(&mut all).unwrap();
}

#[test]
fn a_slow_disk_is_asked_for_all_at_once() {
    let device = StepDevice::new(1 << 20);
    let world = World::new(device.clone(), Options::default());
    let mut stream = world.ready();
    stream.write_all(&many_reads()).unwrap();
    world.until("all are there", |_| device.waiting() == 64);
    while let Some(step) = device.next() {
        step.done(1);
    }
    let mut all = vec![0; 64 * (16 + (256 << 10))];
    stream.read_exact(&mut all).unwrap();
}

#[test]
fn vanished_clients_leave_nothing_behind() {
    let device = StepDevice::new(1 << 20);
    let world = World::new(device.clone(), Options::default());
    for _ in 0..20 {
        let mut stream = world.ready();
        stream
            .write_all(&request(proto::CMD_FLUSH, 1, 0, 0))
            .unwrap();
        drop(stream);
    }
    // Requests that reached the device are completed there; nobody is left to be told.
    world.until("all are gone", |server| {
        while let Some(step) = device.next() {
            step.done(0);
        }
        server.connections() == 0
    });
}

#[test]
fn a_client_that_leaves_within_a_payload_is_gone() {
    let world = World::memory(Options::default());
    // Small enough for the buffer, and so large that it is received in its own memory.
    for len in [512, 300_000] {
        let mut stream = world.ready();
        let mut bytes = request(proto::CMD_WRITE, 1, 0, len);
        bytes.extend_from_slice(&[7; 208]);
        stream.write_all(&bytes).unwrap();
        drop(stream);
        world.until("it is gone", |server| server.connections() == 0);
    }
}

#[test]
fn long_payloads_come_in_pieces_and_lie_in_order() {
    let world = World::new(MemoryDisk::new(8 << 20), Options::default());
    let mut stream = world.ready();
    // Around the length of a piece, and of several.
    for (cookie, len) in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 513]
        .into_iter()
        .enumerate()
    {
        let cookie = cookie as u64;
        let payload: Vec<u8> = (0..len).map(|n| (n / 251 + n % 251) as u8).collect();
        let mut bytes = request(proto::CMD_WRITE, cookie, 77, len as u64);
        bytes.extend_from_slice(&payload);
        // Right behind it, so that no byte of it may be taken for payload.
        bytes.extend(request(proto::CMD_FLUSH, cookie + 100, 0, 0));
        stream.write_all(&bytes).unwrap();
        let mut replies = [simple_reply(&mut stream), simple_reply(&mut stream)];
        replies.sort_by_key(|(_, cookie)| *cookie);
        assert_eq!(replies, [(0, cookie), (0, cookie + 100)]);
        stream
            .write_all(&request(proto::CMD_READ, cookie, 77, len as u64))
            .unwrap();
        assert_eq!(simple_reply(&mut stream), (0, cookie));
        let mut back = vec![0; len];
        stream.read_exact(&mut back).unwrap();
        assert!(back == payload, "{len}");
    }
}
