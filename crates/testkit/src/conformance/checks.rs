//! The checks of the suite, each with the limits it applies to.

use std::{cell::Cell, cell::RefCell, rc::Rc, sync::Arc};

use block::{Data, Errno, ExtentFlags, Flags, Limits, Local, Op, QueueExt, Support};
use reactor::sim::Rng;

use super::{Bench, Form};
use crate::{
    model::Model,
    workload::{Workload, read_all},
};

type Applies = fn(&Limits) -> bool;
type Check = fn(Bench) -> Local<'static, ()>;

/// Name, when it applies, what it does.
pub(super) const ALL: &[(&str, Applies, Check)] = &[
    ("read edges", always, |b| Box::pin(read_edges(b))),
    ("zero length", always, |b| Box::pin(zero_length(b))),
    ("completion after submit", always, |b| {
        Box::pin(completion_after_submit(b))
    }),
    ("not offered", always, |b| Box::pin(not_offered(b))),
    ("offered", always, |b| Box::pin(offered(b))),
    ("write edges", writable, |b| Box::pin(write_edges(b))),
    ("big transfer", writable, |b| Box::pin(big_transfer(b))),
    ("fua", fua, |b| Box::pin(with_fua(b))),
    ("write zeroes", zeroes, |b| Box::pin(write_zeroes(b))),
    ("discard", discard, |b| Box::pin(discards(b))),
    ("extents", extents, |b| Box::pin(extents_cover(b))),
    ("two queues", writable, |b| Box::pin(two_queues(b))),
    ("many in flight", always, |b| Box::pin(many_in_flight(b))),
];

/// How much of a large device the model looks at, in bytes.
const WINDOW: u64 = 8 << 20;

const FORMS: [Form; 3] = [Form::Wanted, Form::One, Form::Many];

fn always(_: &Limits) -> bool {
    true
}

fn native(limits: &Limits, op: Op) -> bool {
    limits.support(op) == Support::Native
}

fn writable(limits: &Limits) -> bool {
    native(limits, Op::Write) && limits.size > 0
}

fn fua(limits: &Limits) -> bool {
    limits.fua == Support::Native && writable(limits)
}

fn zeroes(limits: &Limits) -> bool {
    native(limits, Op::WriteZeroes) && writable(limits)
}

fn discard(limits: &Limits) -> bool {
    native(limits, Op::Discard) && writable(limits)
}

fn extents(limits: &Limits) -> bool {
    native(limits, Op::Extents) && limits.size > 0
}

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

/// Places at the front, the middle and the end, of one block.
fn places(b: &Bench) -> Vec<u64> {
    let (size, block) = (b.limits.size, b.block());
    let mut at = vec![
        0,
        size / 2 / block * block,
        size.saturating_sub(block) / block * block,
    ];
    at.dedup();
    at.retain(|at| at + block <= size);
    at
}

async fn read_edges(b: Bench) {
    for at in places(&b) {
        let first = b.read(Form::Wanted, at, b.block()).await;
        for form in FORMS {
            assert_eq!(
                b.read(form, at, b.block()).await,
                first,
                "at {at}, {form:?}"
            );
        }
    }
    if b.limits.min_block == 1 && b.limits.size > 1 {
        let size = b.limits.size;
        let pair = b.read(Form::One, size - 2, 2).await;
        assert_eq!(b.read(Form::Wanted, size - 1, 1).await, pair[1..]);
    }
}

async fn zero_length(b: Bench) {
    for op in [Op::Read, Op::Write, Op::WriteZeroes, Op::Discard, Op::Cache] {
        if !b.native(op) {
            continue;
        }
        for at in [0, b.limits.size & !(u64::from(b.limits.min_block) - 1)] {
            let mut req = b.request(op, at, 0, Flags::NONE);
            if matches!(op, Op::Read | Op::Write) {
                *req.data_mut() = Data::Iov(b.memory(Form::One, 0).expect("memory"));
            }
            let done = b.queue.call(req).await;
            let errno = done.error().map(|e| e.errno());
            assert!(
                matches!(errno, None | Some(Errno::EINVAL)),
                "{op} of nothing: {errno:?}"
            );
        }
    }
}

/// Completions never run inside `submit`.
async fn completion_after_submit(b: Bench) {
    for op in [Op::Read, Op::ZoneManage, Op::Flush] {
        let len = if op == Op::Read { b.block() } else { 0 };
        let mut req = b.request(op, 0, len, Flags::NONE);
        if op == Op::Read {
            *req.data_mut() = Data::Wanted;
        }
        let completed = Rc::new(Cell::new(false));
        let seen = completed.clone();
        req.on_complete(move |_| seen.set(true));
        let call = b.queue.call(req);
        assert!(!completed.get(), "{op} completed inside submit");
        call.await.finish();
        assert!(completed.get());
    }
}

async fn not_offered(b: Bench) {
    let offered = b.limits.offered();
    for op in Op::ALL.into_iter().filter(|&op| !offered.contains(op)) {
        let len = if op.has_range() { b.block() } else { 0 };
        let mut req = b.request(op, 0, len, Flags::NONE);
        if op == Op::Write {
            let memory = b.memory(Form::One, len as usize).expect("memory");
            memory.zero(0, len as usize);
            *req.data_mut() = memory.into();
        }
        let done = b.queue.call(req).await;
        let errno = done.error().map(|e| e.errno());
        assert_eq!(errno, Some(Errno::ENOTSUP), "{op} is not offered");
    }
}

async fn offered(b: Bench) {
    let len = b.block();
    for op in [Op::Read, Op::Flush, Op::Cache, Op::Extents, Op::GetId] {
        if !b.native(op) {
            continue;
        }
        let range = if op.has_range() { len } else { 0 };
        let mut req = b.request(op, 0, range, Flags::NONE);
        if op == Op::Read {
            *req.data_mut() = Data::Wanted;
        }
        let done = b.queue.call(req).await;
        assert!(done.error().is_none(), "{op}: {:?}", done.error());
        match op {
            Op::Read => assert!(matches!(done.data(), Data::Given(g) if g.len() == len)),
            Op::Extents => assert!(done.data().as_extents().is_some_and(|l| l.covered() > 0)),
            Op::GetId => assert!(matches!(done.data(), Data::Id(_))),
            _ => {}
        }
    }
}

async fn write_edges(b: Bench) {
    let block = b.block();
    for (i, at) in places(&b).into_iter().enumerate() {
        for form in FORMS {
            let bytes = noise(i as u64 * 8 + form as u64, block);
            b.write(form, at, &bytes, Flags::NONE).await;
            for back in FORMS {
                assert_eq!(
                    b.read(back, at, block).await,
                    bytes,
                    "at {at}, {form:?}, {back:?}"
                );
            }
        }
    }
    if b.limits.min_block == 1 && b.limits.size >= 4 * block {
        // Bytes beside a small write stay.
        let bytes = noise(99, 3 * block);
        b.write(Form::One, 0, &bytes, Flags::NONE).await;
        b.write(Form::Many, block - 3, &[7; 6], Flags::NONE).await;
        let mut expected = bytes;
        expected[block as usize - 3..block as usize + 3].fill(7);
        assert_eq!(b.read(Form::Many, 0, 3 * block).await, expected);
    }
}

async fn big_transfer(b: Bench) {
    let len = b.most();
    for form in FORMS {
        let bytes = noise(form as u64, len);
        let at = (b.limits.size - len) & !(u64::from(b.limits.min_block) - 1);
        b.write(form, at, &bytes, Flags::NONE).await;
        assert!(
            b.read(form, at, len).await == bytes,
            "{len} bytes, {form:?}"
        );
    }
}

async fn with_fua(b: Bench) {
    let bytes = noise(1, b.block());
    b.write(Form::One, 0, &bytes, Flags::FUA).await;
    assert_eq!(b.read(Form::One, 0, b.block()).await, bytes);
    if b.native(Op::WriteZeroes) {
        b.must(Op::WriteZeroes, 0, b.block(), Flags::FUA).await;
        assert!(
            b.read(Form::One, 0, b.block())
                .await
                .iter()
                .all(|&x| x == 0)
        );
    }
    if b.native(Op::Discard) {
        b.must(Op::Discard, 0, b.block(), Flags::FUA).await;
    }
}

async fn write_zeroes(b: Bench) {
    let (block, size) = (b.block(), b.limits.size);
    let len = (4 * block).min(size) / block * block;
    for flags in [
        Flags::NONE,
        Flags::NO_HOLE,
        Flags::FAST_ZERO,
        Flags::FAST_ZERO | Flags::NO_HOLE,
    ] {
        let mut expected = noise(5, len);
        b.write(Form::One, 0, &expected, Flags::NONE).await;
        let (at, n) = if len > 2 * block {
            (block, len - 2 * block)
        } else {
            (0, len)
        };
        let done = b.call(Op::WriteZeroes, at, n, flags).await;
        match done.error() {
            None => {
                expected[at as usize..(at + n) as usize].fill(0);
                assert_eq!(b.read(Form::Wanted, 0, len).await, expected, "{flags:?}");
            }
            Some(error) => {
                let fast = flags.contains(Flags::FAST_ZERO);
                assert!(
                    fast && *error == Errno::ENOTSUP,
                    "write zeroes {flags:?}: {error:?}"
                );
                let ends = b.read(Form::Wanted, 0, at).await;
                assert_eq!(ends, expected[..at as usize], "beside a refused one");
            }
        }
    }
}

async fn discards(b: Bench) {
    let block = b.block();
    let len = (4 * block).min(b.limits.size) / block * block;
    let expected = noise(6, len);
    b.write(Form::One, 0, &expected, Flags::NONE).await;
    b.must(Op::Discard, len - block, block, Flags::NONE).await;
    let kept = (len - block) as usize;
    assert_eq!(
        b.read(Form::One, 0, len).await[..kept],
        expected[..kept],
        "beside it"
    );
    let again = noise(7, block);
    b.write(Form::One, len - block, &again, Flags::NONE).await;
    assert_eq!(
        b.read(Form::One, len - block, block).await,
        again,
        "written again"
    );
}

/// Extents lead from one end of the device to the other, and what they call zero is zero.
async fn extents_cover(b: Bench) {
    let block = u64::from(b.limits.min_block);
    let end = b.limits.size & !(block - 1);
    if b.native(Op::Write) {
        b.write(Form::One, 0, &noise(8, b.block()), Flags::NONE)
            .await;
    }
    let (mut at, mut looked) = (0, 0);
    while at < end && at < 64 * WINDOW {
        let ask = (end - at).min(b.limits.max_range & !(block - 1));
        let done = b.must(Op::Extents, at, ask, Flags::NONE).await;
        let list = done
            .data()
            .as_extents()
            .expect("extents are reported")
            .clone();
        let covered = list.covered();
        assert!(
            covered > 0 && covered <= ask,
            "{covered} of {ask} bytes at {at} are covered"
        );
        let mut from = at;
        for extent in list.allocation() {
            let look = extent.len.min(b.most()) & !(block - 1);
            if ExtentFlags(extent.flags).is_zero() && looked < WINDOW && from % block == 0 {
                let bytes = b.read(Form::Wanted, from, look).await;
                assert!(
                    bytes.iter().all(|&x| x == 0),
                    "zero extent at {from} is not"
                );
                looked += look;
            }
            from += extent.len;
        }
        // The next question begins where a block does.
        at = (at + covered).next_multiple_of(block);
    }
}

async fn two_queues(b: Bench) {
    let other = Bench {
        reactor: b.reactor.clone(),
        device: b.device.clone(),
        queue: b
            .device
            .open_queue(&b.reactor)
            .expect("a second queue opens"),
        limits: b.limits.clone(),
    };
    let block = b.block();
    let bytes = noise(9, block);
    b.write(Form::One, 0, &bytes, Flags::NONE).await;
    assert_eq!(other.read(Form::One, 0, block).await, bytes);
    if b.native(Op::Flush) {
        other.must(Op::Flush, 0, 0, Flags::NONE).await;
    }
    let bytes = noise(10, block);
    other.write(Form::Many, 0, &bytes, Flags::NONE).await;
    drop(other);
    assert_eq!(
        b.read(Form::Wanted, 0, block).await,
        bytes,
        "the other is gone"
    );
}

/// Random traffic on two queues, checked by the model.
async fn many_in_flight(b: Bench) {
    let mut limits = (*b.limits).clone();
    limits.size = limits.size.min(WINDOW) & !(u64::from(limits.min_block) - 1);
    if limits.size == 0 {
        return;
    }
    // Only what the device does itself: the rest is Normalize's to do.
    for op in Op::ALL {
        if limits.support(op) == Support::Emulated {
            limits.set(op, Support::None);
        }
    }
    let limits = Arc::new(limits);
    let image = read_all(&b.reactor, &b.queue, &limits)
        .await
        .expect("the device reads");
    let model = Rc::new(RefCell::new(Model::of(&image)));
    let second = b
        .device
        .open_queue(&b.reactor)
        .expect("a second queue opens");
    let queues = vec![
        (b.reactor.clone(), b.queue.clone()),
        (b.reactor.clone(), second),
    ];
    let mut workload = Workload::new(1);
    workload.requests = 300;
    workload.depth = 32;
    let verdict = workload.run(queues, &limits, &model).await;
    assert_eq!(verdict, Ok(()));
    assert_eq!(model.borrow().checked(), 600);
}
