//! What a round trip costs the server: CPU time of its thread, per request, on each driver.
//!
//! `cargo run --release -p blkit-reactor --example pingpong`

extern crate blkit_reactor as reactor;

use std::{
    cell::Cell,
    io::{Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
    time::Instant,
};

use block::{Doorbell, RecvBuf, SharedBuf, SharedMem};
use reactor::{DriverKind, Io, Loop, Options, SendBatch, Stream};

struct Bell {
    stream: Stream,
    batch: Cell<SendBatch>,
}

impl Doorbell for Bell {
    fn ring(&self) {
        let batch = self.stream.try_send(self.batch.take());
        self.batch.set(batch.unwrap_or_else(|batch| batch));
    }
}

fn main() {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        measure(driver, 1, 64, 64, 300_000);
        measure(driver, 32, 28, 4096 + 16, 20_000);
    }
}

/// `rounds` times: the client writes `depth` requests of `ask` bytes and reads as many answers.
fn measure(driver: DriverKind, depth: usize, ask: usize, answer: usize, rounds: usize) {
    let mut made = match Loop::new(Options {
        driver,
        ..Options::default()
    }) {
        Ok(made) => made,
        Err(error) => return println!("SKIP: {}", error.chain()),
    };
    let reactor = made.reactor().clone();
    let (ours, mut near) = UnixStream::pair().expect("a pair of sockets");
    let stream = Io::of(&reactor).stream(ours.into()).expect("a stream");
    stream.set_buffers(2 << 20, 2 << 20);
    let client = std::thread::spawn(move || {
        let request = vec![7; ask * depth];
        let mut reply = vec![0; answer * depth];
        for _ in 0..rounds {
            near.write_all(&request).expect("the server reads");
            near.read_exact(&mut reply).expect("the server answers");
        }
    });
    let bell = Rc::new(Bell {
        stream: stream.clone(),
        batch: Cell::default(),
    });
    let payload = SharedBuf::from_vec(vec![1; answer - 16]);
    let payload = SharedMem::of_shared(payload, 0, answer - 16);
    let (began, cpu) = (Instant::now(), thread_cpu());
    made.block_on(async {
        let mut buf = RecvBuf::new(reactor.chunk(64 << 10));
        loop {
            let (back, result) = stream.recv(buf).await;
            buf = back;
            if result.expect("the client is there") == 0 {
                return;
            }
            let mut batch = bell.batch.take();
            while buf.data().len() >= ask {
                buf.consume(ask);
                batch.push_head(&[0; 16]);
                batch.push_mem(payload.clone());
            }
            bell.batch.set(batch);
            reactor.at_end_of_turn(bell.clone());
            buf.rewind();
        }
    });
    let (wall, cpu) = (began.elapsed(), thread_cpu() - cpu);
    client.join().expect("the client is done");
    let requests = (rounds * depth) as u64;
    let stats = made.stats();
    println!(
        "{:5}  depth {depth:2}  {ask:2} B in, {answer:4} B out: {:5} ns CPU, {:6} ns wall per request, \
         {:.2} calls per round",
        made.driver(),
        cpu / requests,
        wall.as_nanos() as u64 / requests,
        stats.enters as f64 / rounds as f64,
    );
}

/// CPU time of this thread, in nanoseconds.
fn thread_cpu() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
