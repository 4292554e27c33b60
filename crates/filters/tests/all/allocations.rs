//! What a request costs once everything is warm: no allocation, in stacks that only pass on.

use std::{rc::Rc, sync::Arc};

use crate::common::{Bench, Nothing};
use allocation_counter::measure;
use block::{Data, Device, Iov, Op, Queue};
use testkit::TestHost;

const WARM_UP: usize = 1000;
const COUNTED: u64 = 1000;

/// Allocations of this many requests of 4 KiB, all in flight at once, after as many before them.
fn allocations(bench: &Bench, op: Op) -> u64 {
    let reactor = bench.sim.reactor();
    let round = |n: u64| {
        for i in 0..n {
            let mut req = reactor.request(op, i * 4096, 4096);
            *req.data_mut() = match op {
                Op::Read => Data::Wanted,
                _ => Iov::of_chunk(reactor.chunk(4096), 4096).into(),
            };
            bench.queue.submit(req);
        }
        reactor.begin_turn();
        assert_eq!(reactor.run_completions() as u64, n);
    };
    (0..WARM_UP / COUNTED as usize + 1).for_each(|_| round(COUNTED));
    measure(|| round(COUNTED)).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(Box::new(5))).count_total, 1);
}

#[test]
fn map_and_hook_filters_allocate_nothing() {
    let stack = ["stats", "offset offset=4096", "readonly", "stats", "error"];
    let bench = Bench::new(&stack, Nothing::new(1 << 30));
    assert_eq!(allocations(&bench, Op::Read), 0);
    let bench = Bench::new(
        &["stats", "offset offset=512", "delay"],
        Nothing::new(1 << 30),
    );
    assert_eq!(allocations(&bench, Op::Write), 0);
}

#[test]
fn copy_on_write_allocates_nothing_where_blocks_are_in_one_place() {
    let host = TestHost::with_scratch(|size| Nothing::new(size));
    let bench = Bench::with(host, &["cow"], Nothing::new(1 << 30));
    assert_eq!(allocations(&bench, Op::Read), 0, "reads of the base");
    // First writes of whole blocks take the lock, but no task.
    bench.plain(Op::WriteZeroes, 0, 1 << 29).unwrap();
    assert_eq!(allocations(&bench, Op::Read), 0, "reads of zeroes");
    bench
        .flagged(Op::WriteZeroes, 0, 1 << 29, block::Flags::NO_HOLE)
        .unwrap();
    assert_eq!(allocations(&bench, Op::Read), 0, "reads of the overlay");
    assert_eq!(allocations(&bench, Op::Write), 0, "writes to the overlay");
}

#[test]
fn queues_share_nothing_that_a_request_counts_references_of() {
    // A device's Arc is cloned when a queue is opened, never when a request passes.
    let below: Arc<dyn Device> = Nothing::new(1 << 30);
    let bench = Bench::new(&["stats", "offset", "readonly"], below.clone());
    let before = Arc::strong_count(&below);
    let queue: Rc<dyn Queue> = bench.queue.clone();
    let mut req = bench.sim.reactor().request(Op::Read, 0, 512);
    *req.data_mut() = Data::Wanted;
    queue.submit(req);
    assert_eq!(Arc::strong_count(&below), before);
}
