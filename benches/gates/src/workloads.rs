//! The workloads. To add one, write a function that makes it and a line in [`WORKLOADS`].

use std::{cell::Cell, hint::black_box, rc::Rc, sync::Arc};

use block::{Data, Device, Iov, Op, Queue, Source};
use config::Size;
use nbd::{
    Mode,
    client::{Pending, Replies, Reply, Request, encode_request},
    proto,
    server::{
        Served,
        transmission::{Command, check, parse_request},
    },
};

use crate::{
    layers::{Layer, Null, count, shift, wait},
    session::Session,
    turn::Turn,
};

/// Does so many requests, rounded up to whole batches of [`BATCH`].
type Run = Box<dyn FnMut(u64)>;

/// Requests of a turn: a busy connection at depth 32.
const BATCH: u64 = 32;

/// One thing to measure.
pub struct Workload {
    /// Name in the baseline.
    pub name: &'static str,
    /// Requests may allocate in steady state.
    pub may_allocate: bool,
    /// Sets it up.
    pub make: fn() -> Run,
}

const fn lean(name: &'static str, make: fn() -> Run) -> Workload {
    Workload {
        name,
        may_allocate: false,
        make,
    }
}

/// All of them.
pub const WORKLOADS: &[Workload] = &[
    lean("null", || layers(&[])),
    lean("map-1", || layers(&[shift])),
    lean("map-5", || layers(&[shift as Layer; 5])),
    lean("hook-1", || layers(&[count])),
    lean("hook-5", || layers(&[count as Layer; 5])),
    // A task of its own for each request is a boxed future.
    Workload {
        name: "async-1",
        may_allocate: true,
        make: || layers(&[wait]),
    },
    lean("nbd-read-structured", || nbd_server(Mode::Structured)),
    lean("nbd-read-extended", || nbd_server(Mode::Extended)),
    lean("nbd-client-structured", || nbd_client(Mode::Structured)),
    lean("memory-read-4k", memory_reads),
    lean("session-read-4k", || {
        Session::new(memory(), Mode::Structured).reads(BATCH)
    }),
    lean("session-write-4k", || {
        Session::new(memory(), Mode::Structured).writes(BATCH)
    }),
];

/// A RAM disk.
fn memory() -> Arc<dyn Source> {
    let size = Size(1 << 24);
    sources::memory::new(sources::memory::MemoryConfig::sparse(size)).expect("16 MiB fit")
}

/// 4 KiB reads of data from the RAM disk.
fn memory_reads() -> Run {
    let turn = Turn::new();
    let host = testkit::TestHost::new();
    let source = memory();
    let device = turn
        .block_on(source.open(&host.context(turn.reactor())))
        .expect("it opens");
    let queue = device.open_queue(turn.reactor()).expect("a queue");
    for block in 0..device.limits().size / 4096 {
        let mut req = turn.reactor().request(Op::Write, block * 4096, 4096);
        let chunk = turn.reactor().chunk(4096);
        *req.data_mut() = Data::Iov(Iov::of_chunk(chunk, 4096));
        queue.submit(req);
        turn.run();
    }
    reads(device, 4096)
}

/// 512-byte reads through layers over the null device.
fn layers(stack: &[Layer]) -> Run {
    let device = stack
        .iter()
        .fold(Arc::new(Null) as Arc<dyn Device>, |below, layer| {
            layer(below)
        });
    reads(device, 512)
}

/// Reads of `len` bytes, as an export makes them: wanted data, and a look at the completion.
fn reads(device: Arc<dyn Device>, len: u64) -> Run {
    let turn = Turn::new();
    let queue: Rc<dyn Queue> = device.open_queue(turn.reactor()).expect("a queue");
    let (blocks, seen) = (
        device.limits().size.min(1 << 24) / len,
        Rc::new(Cell::new(0u64)),
    );
    Box::new(move |requests| {
        let (from, batches) = (seen.get(), requests.div_ceil(BATCH));
        for batch in 0..batches {
            for n in 0..BATCH {
                let place = (batch * BATCH + n).wrapping_mul(7919) % blocks;
                let mut req = turn.reactor().request(Op::Read, place * len, len);
                *req.data_mut() = Data::Wanted;
                let seen = seen.clone();
                req.on_complete(move |done| {
                    let good = done.error().is_none() && matches!(done.data(), Data::Given(_));
                    seen.set(seen.get() + u64::from(good));
                });
                queue.submit(req);
            }
            turn.run();
        }
        assert_eq!(
            seen.get() - from,
            batches * BATCH,
            "all reads come back well"
        );
    })
}

fn request(cookie: u64) -> Request {
    let offset = cookie.wrapping_mul(7919) % 1000 * 4096;
    Request {
        command: proto::CMD_READ,
        flags: 0,
        cookie,
        offset,
        length: 4096,
    }
}

/// A read's way through the server's codec: parse, check, head of the reply.
fn nbd_server(mode: Mode) -> Run {
    let served = Served {
        size: 1 << 30,
        flags: proto::FLAG_HAS_FLAGS,
        min_block: 1,
        max_payload: 32 << 20,
        mode,
        contexts: 0,
    };
    let mut stream = Vec::new();
    for cookie in 0..BATCH {
        stream.extend_from_slice(&encode_request(mode, &request(cookie)).expect("it fits"));
    }
    let mut out = Vec::with_capacity(BATCH as usize * nbd::Head::CAPACITY);
    Box::new(move |requests| {
        for _ in 0..requests.div_ceil(BATCH) {
            let mut bytes = black_box(stream.as_slice());
            out.clear();
            while let Ok(Some((header, len))) = parse_request(bytes, mode.is_extended()) {
                bytes = &bytes[len..];
                let Ok(Command::Read { offset, length, .. }) = check(&header, &served) else {
                    panic!("a good read was refused");
                };
                let head = header.reply(mode).data(offset, length, true);
                out.extend_from_slice(black_box(&head));
            }
            assert!(bytes.is_empty());
        }
    })
}

/// A read's way through the client's codec: encode, parse the reply.
fn nbd_client(mode: Mode) -> Run {
    let mut parser = Replies::new(mode);
    let mut heads = Vec::new();
    for cookie in (0..BATCH).rev() {
        let to = nbd::server::reply::ReplyTo {
            mode,
            cookie,
            offset: request(cookie).offset,
        };
        heads.push(to.data(to.offset, 4096, true));
    }
    let mut pending: Vec<Option<Pending>> = vec![None; BATCH as usize];
    Box::new(move |requests| {
        for _ in 0..requests.div_ceil(BATCH) {
            for cookie in 0..BATCH {
                let request = request(cookie);
                black_box(encode_request(mode, &request));
                pending[cookie as usize] = Some(Pending::new(&request, 0));
            }
            for head in &heads {
                let found = parser.input(black_box(head), |cookie| {
                    pending.get_mut(cookie as usize)?.as_mut()
                });
                let Ok((
                    _,
                    Some(Reply::Data {
                        cookie, last: true, ..
                    }),
                )) = found
                else {
                    panic!("a good reply was refused");
                };
                pending[cookie as usize] = None;
            }
        }
    })
}
