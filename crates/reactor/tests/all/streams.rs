//! Streams: everything arrives, in order, on both drivers; and what happens when it cannot.

use std::{
    cell::{Cell, RefCell},
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use crate::common::{Random, assert_clean, batch_of, both_ends, recv_buf, unix_pair};
use crate::on_both;
use block::{Iov, Piece, Segments, SharedBuf, SharedMem};
use reactor::{Io, ListenAddress, Listener, Loop, SendBatch, Stream};

on_both! {
    echo_unix
    echo_tcp
    echo_pipes
    many_parts
    slow_reader
    two_sends_in_one_turn
    try_send_refuses_while_in_flight
    send_reaches_the_peer_before_block_on_returns
    recv_exact_fills_across_segments
    recv_exact_ends_early
    dropped_recv_gives_its_memory_back
    peer_reset
    shutdown_ends_a_recv_and_keeps_what_was_sent
    dropping_the_stream_still_sends
    dropping_the_stream_closes_it_on_an_idle_loop
    greedy_task_does_not_starve_the_others
    accept_many
    listener_errors
    readable_twice_on_one_descriptor
}

/// Sends back whatever comes, until the end.
async fn echo(stream: Stream, reactor: block::Reactor) {
    let mut buf = recv_buf(&reactor, 16 << 10);
    let mut batch = SendBatch::new();
    loop {
        let (back, result) = stream.recv(buf).await;
        buf = back;
        let n = result.unwrap();
        if n == 0 {
            break;
        }
        let mem = buf.take(n);
        let (head, rest) = (mem.len().min(7), mem.len() - mem.len().min(7));
        let mut bytes = [0; 7];
        mem.read(0, &mut bytes[..head]);
        batch.push_head(&bytes[..head]);
        batch.push_mem(mem.slice(head, rest));
        drop(mem);
        let (empty, result) = stream.send(batch).await;
        batch = empty;
        result.unwrap();
        if !buf.rewind() && buf.room() == 0 {
            buf = recv_buf(&reactor, 16 << 10);
        }
    }
    stream.flush().await.unwrap();
    stream.shutdown();
}

/// Writes random bytes in random pieces, and reads them back in others.
fn exchange(mut near: impl Read + Write, seed: u64, total: usize) {
    let mut random = Random(seed);
    let mut sent = 0;
    let bytes = random.bytes(total);
    let mut back = vec![0; total];
    let mut got = 0;
    while got < total {
        // Never more under way than the buffers on the way hold.
        while sent < total && sent - got < 32 << 10 {
            let n = 1 + random.below(9000) as usize;
            let n = n.min(total - sent);
            near.write_all(&bytes[sent..sent + n]).unwrap();
            sent += n;
        }
        let most = 1 + random.below(9000) as usize;
        let end = (got + most).min(total);
        let n = near.read(&mut back[got..end]).unwrap();
        assert!(n > 0, "the echo ended early");
        got += n;
    }
    assert!(back == bytes, "other bytes came back");
}

fn run_echo(
    mut made: Loop,
    ours: impl FnOnce(&Io) -> Stream,
    near: impl Read + Write + Send + 'static,
) {
    let reactor = made.reactor().clone();
    let stream = ours(&Io::of(&reactor));
    let test = std::thread::spawn(move || exchange(near, 1, 600_000));
    made.block_on(echo(stream, reactor));
    test.join().unwrap();
    assert_clean(&made);
}

fn echo_unix(made: Loop) {
    let (ours, near) = UnixStream::pair().unwrap();
    run_echo(made, |io| io.stream(ours.into()).unwrap(), near);
}

fn echo_tcp(made: Loop) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    let address = near.local_addr().unwrap();
    run_echo(
        made,
        |io| {
            let stream = io.stream(ours.into()).unwrap();
            stream.set_nodelay(true);
            stream.set_buffers(64 << 10, 64 << 10);
            assert_eq!(stream.peer(), address.to_string());
            assert!(!stream.is_unix());
            stream
        },
        near,
    );
}

struct Pipes(std::io::PipeReader, Option<std::io::PipeWriter>);

impl Read for Pipes {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Pipes {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.1.as_mut().unwrap().write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn echo_pipes(made: Loop) {
    let (in_read, in_write) = std::io::pipe().unwrap();
    let (out_read, out_write) = std::io::pipe().unwrap();
    run_echo(
        made,
        |io| {
            let stream = io.stream_pair(in_read.into(), out_write.into()).unwrap();
            assert_eq!(
                (stream.peer(), stream.is_unix()),
                ("pipe".to_string(), false)
            );
            stream
        },
        Pipes(out_read, Some(in_write)),
    );
}

/// More parts than one call takes, holes longer than the page of zeroes, all kinds mixed.
fn many_parts(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    assert!(stream.is_unix());
    let mut random = Random(5);
    let shared = SharedBuf::from_vec(random.bytes(8192));
    let mut batch = SendBatch::new();
    for i in 0..3000u32 {
        match random.below(4) {
            0 => batch.push_head(&i.to_be_bytes()),
            1 => {
                let (at, len) = (random.below(4096) as usize, random.below(4096) as usize);
                batch.push_mem(SharedMem::of_shared(shared.clone(), at, len));
            }
            2 => batch.push_zeroes(random.below(600)),
            _ => {
                let mut segments = Segments::zero(random.below(100));
                segments.push(Piece::Mem(SharedMem::of_shared(shared.clone(), 0, 10)));
                batch.push_segments(segments);
            }
        }
    }
    batch.push_zeroes(3 << 20);
    batch.push_head(b"end");
    assert!(batch.parts() > 2048);
    let expected = batch.to_vec();
    let length = expected.len();
    let test = std::thread::spawn(move || {
        let mut got = vec![1; length];
        near.read_exact(&mut got).unwrap();
        assert!(got == expected, "other bytes arrived");
    });
    made.block_on(async {
        let (empty, result) = stream.send(batch).await;
        result.unwrap();
        assert!(empty.is_empty());
        stream.flush().await.unwrap();
    });
    test.join().unwrap();
    assert_eq!(Arc::strong_count(&shared), 1, "sent memory is let go");
}

/// The peer reads a little, late: sends are cut anywhere and go on.
fn slow_reader(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    stream.set_buffers(4096, 4096);
    let total = 40 * 50_000;
    let test = std::thread::spawn(move || {
        let mut got = Vec::new();
        let mut piece = [0; 37_000];
        loop {
            if got.len() < 300_000 {
                std::thread::sleep(Duration::from_millis(2));
            }
            match near.read(&mut piece).unwrap() {
                0 => return got,
                n => got.extend_from_slice(&piece[..n]),
            }
        }
    });
    let mut all = Vec::new();
    made.block_on(async {
        let mut random = Random(9);
        let mut batch = SendBatch::new();
        for _ in 0..40 {
            let bytes = random.bytes(50_000);
            all.extend_from_slice(&bytes);
            batch.push_head(&bytes[..20]);
            let shared = SharedBuf::from_vec(bytes);
            batch.push_mem(SharedMem::of_shared(shared, 20, 49_980));
            let (empty, result) = stream.send(batch).await;
            result.unwrap();
            batch = empty;
        }
        stream.flush().await.unwrap();
        stream.shutdown();
    });
    let got = test.join().unwrap();
    assert_eq!(got.len(), total);
    assert!(got == all, "other bytes arrived");
}

fn two_sends_in_one_turn(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (a, b) = both_ends(&reactor);
    let got = made.block_on(async {
        for i in 0..10u8 {
            a.send(batch_of(&[i; 3])).await.1.unwrap();
        }
        a.flush().await.unwrap();
        let iov = Iov::of_chunk(reactor.chunk(30), 30);
        let (iov, result) = b.recv_exact(iov, 0).await;
        result.unwrap();
        iov.to_vec()
    });
    let expected: Vec<u8> = (0..10u8).flat_map(|i| [i; 3]).collect();
    assert_eq!(got, expected);
    drop((a, b));
    assert_clean(&made);
}

fn try_send_refuses_while_in_flight(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let big = SharedBuf::from_vec(vec![7; 4 << 20]);
    let mut batch = SendBatch::new();
    batch.push_mem(SharedMem::of_shared(big, 0, 4 << 20));
    let empty = stream.try_send(batch).ok().expect("nothing is in flight");
    assert!(empty.is_empty());
    let refused = stream
        .try_send(batch_of(b"later"))
        .err()
        .expect("the first is in flight");
    assert_eq!(refused.len(), 5);
    let test = std::thread::spawn(move || {
        let mut got = vec![0; (4 << 20) + 5];
        near.read_exact(&mut got).unwrap();
        got
    });
    made.block_on(async {
        stream.send(refused).await.1.unwrap();
        stream.flush().await.unwrap();
    });
    let got = test.join().unwrap();
    assert!(got[..4 << 20].iter().all(|b| *b == 7));
    assert_eq!(&got[4 << 20..], b"later");
}

fn send_reaches_the_peer_before_block_on_returns(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    made.block_on(async { stream.send(batch_of(b"now")).await.1.unwrap() });
    let mut got = [0; 3];
    near.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"now");
}

fn recv_exact_fills_across_segments(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let bytes = Random(3).bytes(200_000);
    let sent = bytes.clone();
    let test = std::thread::spawn(move || {
        for piece in sent.chunks(3777) {
            near.write_all(piece).unwrap();
            std::thread::yield_now();
        }
        near
    });
    made.block_on(async {
        let whole = Iov::of_chunk(reactor.chunk(200_000), 200_000);
        // Three pieces of one buffer, in another order than they lie.
        let mut segments: Vec<_> = whole.segments().to_vec();
        let base = segments.remove(0);
        let part = |at: usize, len: usize| block::Segment {
            // SAFETY: inside the chunk.
            ptr: unsafe { base.ptr.add(at) },
            len,
        };
        let parts = [
            part(100_000, 50_000),
            part(0, 100_000),
            part(150_000, 50_000),
        ];
        // SAFETY: disjoint ranges of a chunk that the pin keeps.
        let iov = unsafe { Iov::from_raw(parts, whole.pin().clone(), None) };
        iov.write(0, &bytes[..0]);
        let (iov, result) = stream.recv_exact(iov, 0).await;
        result.unwrap();
        assert!(iov.to_vec() == bytes, "other bytes arrived");
        assert_eq!(whole.slice(0, 4).to_vec(), bytes[50_000..50_004]);
    });
    test.join().unwrap();
    drop(stream);
    assert_clean(&made);
}

fn recv_exact_ends_early(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    near.write_all(b"abc").unwrap();
    drop(near);
    made.block_on(async {
        let iov = Iov::of_chunk(reactor.chunk(10), 10);
        iov.zero(0, 10);
        let (iov, result) = stream.recv_exact(iov, 2).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(iov.to_vec(), b"\0\0abc\0\0\0\0\0");
        let (buf, result) = stream.recv(recv_buf(&reactor, 10)).await;
        assert_eq!((result.unwrap(), buf.data().len()), (0, 0));
    });
}

fn dropped_recv_gives_its_memory_back(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let polled = Cell::new(false);
    made.block_on(async {
        let mut recv = pin!(stream.recv(recv_buf(&reactor, 4096)));
        std::future::poll_fn(|cx| {
            assert!(recv.as_mut().poll(cx).is_pending());
            polled.set(true);
            Poll::Ready(())
        })
        .await;
        assert_eq!(reactor.chunks().live(), 1);
    });
    // The future is gone; the kernel is told so, and gives the memory back.
    let begin = Instant::now();
    while reactor.chunks().live() > 0 {
        made.block_on(reactor.sleep(Duration::from_millis(1)));
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "the buffer never came back"
        );
    }
    // The stream still works.
    near.write_all(b"x").unwrap();
    made.block_on(async {
        let (buf, result) = stream.recv(recv_buf(&reactor, 4096)).await;
        assert_eq!((result.unwrap(), buf.data()), (1, &b"x"[..]));
    });
    assert!(polled.get());
    drop(stream);
    assert_clean(&made);
}

fn peer_reset(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, near) = unix_pair(&reactor);
    // Closed with bytes unread: a reset.
    made.block_on(async {
        stream.send(batch_of(b"unread")).await.1.unwrap();
        stream.flush().await.unwrap();
        drop(near);
        let (_, result) = stream.recv(recv_buf(&reactor, 64)).await;
        let ended = match result {
            Ok(n) => n == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(ended);
        // This or the next call tells of it, and from then on every call does.
        let mut error = stream.send(batch_of(b"more")).await.1.err();
        if error.is_none() {
            error = stream.flush().await.err();
        }
        assert_eq!(error.unwrap().kind(), ErrorKind::BrokenPipe);
        assert_eq!(
            stream.send(batch_of(b"!")).await.1.unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
        let empty = stream.try_send(batch_of(b"!")).ok().unwrap();
        assert!(empty.is_empty());
    });
}

fn shutdown_ends_a_recv_and_keeps_what_was_sent(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let ended = Rc::new(Cell::new(false));
    let (flag, handle, ours) = (ended.clone(), reactor.clone(), stream.clone());
    reactor.spawn(async move {
        let (_, result) = ours.recv(recv_buf(&handle, 64)).await;
        assert_eq!(result.unwrap(), 0);
        flag.set(true);
    });
    made.block_on(async {
        reactor.sleep(Duration::from_millis(1)).await;
        stream.send(batch_of(b"last words")).await.1.unwrap();
        stream.shutdown();
        let begin = Instant::now();
        while !ended.get() {
            reactor.sleep(Duration::from_millis(1)).await;
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "the receive goes on"
            );
        }
    });
    let mut got = String::new();
    near.read_to_string(&mut got).unwrap();
    assert_eq!(got, "last words");
}

fn dropping_the_stream_still_sends(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let test = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        got
    });
    let big = SharedBuf::from_vec(vec![3; 3 << 20]);
    made.block_on(async {
        let mut batch = SendBatch::new();
        batch.push_mem(SharedMem::of_shared(big.clone(), 0, 3 << 20));
        stream.send(batch).await.1.unwrap();
    });
    drop(stream);
    made.close(Duration::from_secs(10));
    assert_eq!(
        test.join().unwrap().len(),
        3 << 20,
        "and the end came, so it was closed"
    );
    assert_eq!(Arc::strong_count(&big), 1);
}

/// Nothing else wakes this loop, no timer either: the send's own end must.
fn dropping_the_stream_closes_it_on_an_idle_loop(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    reactor.spawn(async move {
        stream.send(batch_of(b"the last word")).await.1.unwrap();
    });
    let got = made.block_on(reactor.blocking(move || {
        let mut got = Vec::new();
        near.read_to_end(&mut got).map(|_| got)
    }));
    let got = got.expect("no panic").expect("the end, within its time");
    assert_eq!(got, b"the last word");
    assert_clean(&made);
}

fn greedy_task_does_not_starve_the_others(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let test = std::thread::spawn(move || {
        let bytes = vec![0; 64 << 10];
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            if near.write(&bytes).is_err() {
                break;
            }
        }
    });
    let (handle, ours) = (reactor.clone(), stream.clone());
    reactor.spawn(async move {
        let mut buf = recv_buf(&handle, 512);
        loop {
            let (back, result) = ours.recv(buf).await;
            buf = back;
            match result {
                Ok(0) | Err(_) => break,
                Ok(n) => buf.consume(n),
            }
            assert!(buf.rewind());
        }
    });
    let begin = Instant::now();
    made.block_on(async {
        for _ in 0..5 {
            reactor.sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "timers are not starved"
    );
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    stream.shutdown();
    test.join().unwrap();
}

fn accept_many(mut made: Loop) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Rc::new(Listener::bind_unix(&path).unwrap());
    assert_eq!(listener.local_addr(), ListenAddress::Unix(path.clone()));
    let connect = path.clone();
    let test = std::thread::spawn(move || {
        for i in 0..50u8 {
            let mut near = UnixStream::connect(&connect).unwrap();
            near.write_all(&[i]).unwrap();
            let mut back = [0];
            near.read_exact(&mut back).unwrap();
            assert_eq!(back, [i]);
        }
    });
    let reactor = made.reactor().clone();
    let served = Rc::new(RefCell::new(0));
    made.block_on(async {
        for _ in 0..50 {
            let accepted = listener.accept(&reactor).await.unwrap();
            assert_eq!(accepted.peer, "unix");
            let stream = Io::of(&reactor).stream(accepted.fd).unwrap();
            let (handle, count) = (reactor.clone(), served.clone());
            reactor.spawn(async move {
                echo(stream, handle).await;
                *count.borrow_mut() += 1;
            });
        }
        while *served.borrow() < 50 {
            reactor.sleep(Duration::from_millis(1)).await;
        }
    });
    test.join().unwrap();
    assert!(path.exists());
    drop(listener);
    assert!(!path.exists(), "the socket's file is removed");
    assert_clean(&made);
}

fn listener_errors(_: Loop) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let first = Listener::bind_unix(&path).unwrap();
    let error = Listener::bind_unix(&path).err().unwrap();
    assert_eq!(error.kind(), block::ErrorKind::Busy);
    assert!(error.chain().contains("in use"), "{}", error.chain());
    assert!(error.hint_text().is_some());
    first.keep_path();
    drop(first);
    assert!(path.exists(), "kept");
    let long = dir.path().join("x".repeat(108));
    let error = Listener::bind_unix(&long).err().unwrap();
    assert_eq!(error.kind(), block::ErrorKind::Config);
    let tcp = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let ListenAddress::Tcp(address) = tcp.local_addr() else {
        panic!()
    };
    assert!(address.port() > 0);
    assert!(Listener::bind_tcp(address).is_err());
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    assert!(Listener::from_fd(file).is_err());
}

fn readable_twice_on_one_descriptor(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (read, mut write) = std::io::pipe().unwrap();
    let read = Arc::new(OwnedFd::from(read));
    let io = Io::of(&reactor);
    let test = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        write.write_all(b"hello").unwrap();
        write
    });
    made.block_on(async {
        let other = (io.clone(), read.clone());
        let seen = Rc::new(Cell::new(false));
        let flag = seen.clone();
        reactor.spawn(async move {
            other.0.readable(&other.1).await.unwrap();
            flag.set(true);
        });
        let mut bytes = [0; 8];
        io.readable(&read).await.unwrap();
        while !seen.get() {
            reactor.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(io.read_fd(&read, &mut bytes).await.unwrap(), 5);
        assert_eq!(&bytes[..5], b"hello");
    });
    test.join().unwrap();
}

#[test]
fn a_simulated_reactor_has_no_io() {
    // The text is for whoever wires things wrongly.
    let text = std::panic::catch_unwind(|| {
        let sim = reactor::sim::SimLoop::new(1);
        let _ = Io::of(sim.reactor());
    });
    assert!(text.is_err());
}
