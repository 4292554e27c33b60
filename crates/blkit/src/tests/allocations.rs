//! The budget: in the steady state a request allocates nothing, on the caller's thread and on the
//! disk's.

use reactor::sim::{CountingAlloc, allocations};

use super::{context, on_thread};
use crate::{Buffer, Completion, Context, Disk, Flags, Queue};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc;

const LEN: usize = 4096;

/// Allocations on both threads while `f` runs, once it has run before.
fn allocated(context: &Context, mut f: impl FnMut()) -> (u64, u64) {
    (0..300).for_each(|_| f());
    let theirs = on_thread(context, allocations);
    let ours = allocations();
    (0..1000).for_each(|_| f());
    let ours = allocations() - ours;
    // Asking costs a few itself.
    (ours, on_thread(context, allocations) - theirs)
}

fn memory(context: &Context) -> Disk {
    let memory = Disk::builder("memory").arg("1M").context(context);
    memory.open().expect("opens")
}

#[test]
fn blocking_requests_allocate_nothing() {
    let context = context();
    let disk = memory(&context);
    let mut bytes = [7; LEN];
    let (ours, theirs) = allocated(&context, || {
        disk.write_at(&bytes, 8192).expect("writes");
        disk.read_at(&mut bytes, 8192).expect("reads");
    });
    // A slot that is handed back while its other holder is still on the way out is not kept.
    assert!(
        ours < 200 && theirs < 200,
        "{ours} and {theirs} allocations in 2000 requests"
    );
    assert_eq!(bytes, [7; LEN]);
}

fn round(queue: &mut Queue, free: &mut Vec<Buffer>, done: &mut Vec<Completion>) {
    while let Some(buffer) = free.pop() {
        let block = free.len() as u64;
        let at = block * LEN as u64;
        let staged = match block % 2 {
            0 => queue.write(block, buffer, at, Flags::NONE),
            _ => queue.read(block, buffer, at),
        };
        staged.expect("there is room");
    }
    while queue.in_flight() > 0 {
        queue.wait(8, done);
        for completion in done.drain(..) {
            completion.result.expect("it is done");
            free.push(completion.buffer);
        }
    }
}

fn queued(context: &Context, disk: &Disk) -> (u64, u64) {
    let mut queue = disk.queue(32);
    let mut free: Vec<_> = (0..32).map(|_| Buffer::new(LEN)).collect();
    let mut done = Vec::new();
    allocated(context, || round(&mut queue, &mut free, &mut done))
}

#[test]
fn queues_allocate_nothing() {
    let context = context();
    let disk = memory(&context);
    let (ours, theirs) = queued(&context, &disk);
    // 32000 requests; a few are for asking.
    assert!(ours < 50 && theirs < 50, "{ours} and {theirs} allocations");
}
