//! The budget: no allocation per request through a stack of layers, once warm.

use blkit_block as block;
use std::{cell::Cell, rc::Rc};

use block::{Data, Device, Op, Queue, Reactor, Request};
use reactor::sim::{CountingAlloc, SimLoop, allocations};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc;

/// A layer of the hook size: looks at the request on the way down and up.
struct Hook {
    next: Rc<dyn Queue>,
    seen: Rc<Cell<u64>>,
}

impl Queue for Hook {
    fn submit(&self, mut req: Request) {
        let (seen, len) = (self.seen.clone(), req.len());
        req.on_complete(move |done| {
            assert!(done.error().is_none());
            seen.set(seen.get() + len);
        });
        self.next.submit(req);
    }
}

/// Gives a chunk to every read.
struct Null(Reactor);

impl Queue for Null {
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => {
                let len = req.len() as usize;
                let mem = block::SharedMem::of_chunk(self.0.chunk(len), len);
                req.give(mem.into());
            }
            _ => req.done(),
        }
    }
}

fn stack(r: &Reactor, layers: usize, seen: &Rc<Cell<u64>>) -> Rc<dyn Queue> {
    let mut queue: Rc<dyn Queue> = Rc::new(Null(r.clone()));
    for _ in 0..layers {
        queue = Rc::new(Hook {
            next: queue,
            seen: seen.clone(),
        });
    }
    queue
}

fn rounds(r: &Reactor, queue: &Rc<dyn Queue>, n: u64, depth: u64) {
    for _ in 0..n {
        for i in 0..depth {
            let mut req = r.request(if i % 2 == 0 { Op::Read } else { Op::Flush }, 0, 4096);
            if i % 2 == 0 {
                *req.data_mut() = Data::Wanted;
            }
            queue.submit(req);
        }
        assert_eq!(r.run_completions() as u64, depth);
    }
}

#[test]
fn five_hooks_cost_no_allocation() {
    let sim = SimLoop::new(1);
    let (r, seen) = (sim.reactor(), Rc::new(Cell::new(0)));
    let queue = stack(r, 5, &seen);
    rounds(r, &queue, 2, 32);
    let before = allocations();
    rounds(r, &queue, 1000, 32);
    assert_eq!(allocations() - before, 0);
    assert_eq!(seen.get(), 1002 * 32 * 5 * 4096);
    testkit::workload::assert_quiet(r);
}

#[test]
fn the_counter_counts() {
    // A stack deeper than the frames a request has room for moves them to the heap: each request
    // pays, so the test above could fail.
    let sim = SimLoop::new(1);
    let (r, seen) = (sim.reactor(), Rc::new(Cell::new(0)));
    let queue = stack(r, 12, &seen);
    rounds(r, &queue, 2, 32);
    let before = allocations();
    rounds(r, &queue, 10, 32);
    assert_eq!(allocations() - before, 10 * 32);
}

#[test]
fn splitting_and_parking_pay_a_known_price() {
    let sim = SimLoop::new(1);
    let r = sim.reactor();
    let disk = testkit::StepDevice::new(4096);
    assert!(disk.open_queue(r).is_ok());
    let once = || {
        let before = allocations();
        let (first, second) = r.request(Op::Flush, 0, 8).split_at(4);
        first.done();
        second.done();
        r.run_completions();
        allocations() - before
    };
    once();
    assert!(once() <= 2, "the split's state and its list");
}
