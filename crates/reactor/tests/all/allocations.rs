//! The budget: no allocation per round trip in steady state, and one call into the kernel.

use std::{
    cell::Cell,
    io::{Read, Write},
    rc::Rc,
};

use crate::common::{make, recv_buf, unix_pair};
use block::Doorbell;
use reactor::{
    DriverKind, RingMode, SendBatch, Stream,
    sim::{CountingAlloc, allocations},
};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc;

struct Bell {
    stream: Stream,
    batch: Cell<SendBatch>,
}

impl Doorbell for Bell {
    fn ring(&self) {
        let batch = self.stream.try_send(self.batch.take());
        self.batch.set(batch.ok().expect("one send at a time"));
    }
}

/// A server as the exports are: receive in a task, reply by doorbell.
fn round_trips(driver: DriverKind) {
    const WARM: usize = 300;
    const ROUNDS: usize = 2000;
    let Some(mut made) = make(driver, RingMode::Owned) else {
        return;
    };
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let test = std::thread::spawn(move || {
        let mut bytes = [7; 64];
        for _ in 0..WARM + ROUNDS {
            near.write_all(&bytes).unwrap();
            near.read_exact(&mut bytes).unwrap();
        }
    });
    let bell = Rc::new(Bell {
        stream: stream.clone(),
        batch: Cell::default(),
    });
    let handle = reactor.clone();
    let counted = Rc::new(Cell::new((0, 0)));
    let shown = counted.clone();
    reactor.spawn(async move {
        let mut buf = recv_buf(&handle, 4096);
        let mut rounds = 0;
        loop {
            let (back, result) = stream.recv(buf).await;
            buf = back;
            if result.unwrap() == 0 {
                return;
            }
            while buf.data().len() >= 64 {
                let mut batch = bell.batch.take();
                batch.push_head(&buf.data()[..60]);
                let mem = buf.take(64);
                batch.push_mem(mem.slice(60, 4));
                bell.batch.set(batch);
                rounds += 1;
                handle.at_end_of_turn(bell.clone());
            }
            if rounds == WARM {
                shown.set((allocations(), 0));
            }
            if rounds == WARM + ROUNDS {
                shown.set((shown.get().0, allocations()));
            }
            if !buf.rewind() && buf.room() < 64 {
                buf = recv_buf(&handle, 4096);
            }
        }
    });
    let before = made.stats();
    made.block_on(async {
        while counted.get().1 == 0 {
            reactor.sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    test.join().unwrap();
    let (began, ended) = counted.get();
    assert_eq!(ended - began, 0, "allocations in {ROUNDS} round trips");
    let stats = made.stats();
    let enters = stats.enters - before.enters;
    let most = (WARM + ROUNDS + 400) as u64 * 11 / 10;
    assert!(
        enters < most,
        "{enters} calls for {} round trips",
        WARM + ROUNDS
    );
}

#[test]
fn uring() {
    round_trips(DriverKind::Uring);
}

#[test]
fn poll() {
    round_trips(DriverKind::Poll);
}
