//! The budget: in steady state a request allocates nothing, on its way into a source and back.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use block::{Data, Flags, Iov, Op, Source};
use config::{Arg, Config};
use reactor::{
    DriverKind, Loop, Options, Wait,
    sim::{CountingAlloc, allocations},
};
use sources::{
    file::{self, FileConfig},
    memory::{self, MemoryConfig},
    null::{self, NullConfig},
};
use testkit::TestHost;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc;

const LEN: u64 = 4096;
const ROUNDS: u64 = 200;

/// Reads of both kinds and writes, with and without FUA, on one thread: allocations per request
/// once warm.
///
/// `pooled`: each of a round's writes may be a job for the pool where there is no io_uring, and the
/// poll driver pays two allocations for a job.
fn budget(source: Arc<dyn Source>, pooled: bool) {
    let mut run = Loop::new(Options {
        driver: DriverKind::Auto,
        ..Options::default()
    })
    .unwrap();
    let cx = TestHost::new().context(run.reactor());
    let device = run.block_on(source.open(&cx)).unwrap();
    drop(cx);
    let queue = device.open_queue(run.reactor()).unwrap();
    let memory = Iov::of_chunk(run.reactor().chunk(LEN as usize), LEN as usize);
    memory.zero(0, LEN as usize);
    let done = Rc::new(Cell::new(0));
    let mut round = |count: u64, forced: bool| {
        let target = done.get() + 4 * count;
        let plain = if forced { Flags::FUA } else { Flags::NONE };
        for i in 0..count {
            for (op, data, flags) in [
                (Op::Write, Data::Iov(memory.clone()), plain),
                (Op::Write, Data::Iov(memory.clone()), Flags::FUA),
                (Op::Read, Data::Wanted, Flags::NONE),
                (Op::Read, Data::Iov(memory.clone()), Flags::NONE),
            ] {
                let mut req = run.reactor().request(op, i % 8 * LEN, LEN);
                req.set_flags(flags);
                *req.data_mut() = data;
                let done = done.clone();
                req.on_complete(move |completed| {
                    assert!(completed.error().is_none(), "{:?}", completed.error());
                    done.set(done.get() + 1);
                });
                queue.submit(req);
            }
            while i + 1 == count && done.get() < target {
                // Without waiting: what is wanted may come true within the turn.
                run.turn(Wait::Poll);
            }
        }
    };
    // A disk that stalls has plain writes go the way of those with FUA: the tables must have room.
    round(8, true);
    round(8, false);
    let before = allocations();
    (0..ROUNDS).for_each(|_| round(8, false));
    let allocated = allocations() - before;
    let most = if pooled && run.driver() == "poll" {
        ROUNDS * 16 * 2
    } else {
        0
    };
    assert!(allocated <= most, "{allocated} in {} requests", ROUNDS * 32);
    drop((queue, device, memory));
    run.close(Duration::from_secs(5));
}

#[test]
fn null_allocates_nothing() {
    budget(
        null::new(NullConfig::from_pairs([("size", "1M")]).unwrap()).unwrap(),
        false,
    );
}

#[test]
fn memory_allocates_nothing() {
    budget(
        memory::new(MemoryConfig::from_pairs([("size", "1M")]).unwrap()).unwrap(),
        false,
    );
}

#[test]
fn a_file_allocates_nothing() {
    // In memory, so that FUA costs no disk.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("SKIP: no /dev/shm to write to");
    };
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let args = [Arg::Bare(path.to_string_lossy().into_owned())];
    budget(
        file::new(FileConfig::from_args(&args).unwrap()).unwrap(),
        true,
    );
}
