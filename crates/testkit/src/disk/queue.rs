//! One reactor's way into a simulated disk.

use std::{rc::Rc, sync::Arc, time::Duration};

use block::{
    Data, Errno, Flags, Iov, Limits, Op, Outcome, Piece, Queue, Reactor, Request, Segments,
    SharedMem, Support,
};

use super::{
    FlushFault, Shared,
    state::{Change, Fact, FlushPoint, WriteId},
};

pub(super) struct DiskQueue(Rc<Inner>);

struct Inner {
    disk: Arc<Shared>,
    reactor: Reactor,
    life: u64,
}

/// Holes in what a read gives begin and end at multiples of this.
const STEP: usize = 64;
const ZEROES: [u8; STEP] = [0; STEP];

/// What will happen to one request.
struct Plan {
    /// How many bytes are done before the error, if it fails.
    fault: Option<(Errno, u64)>,
    /// Until the first part is done, until the second is, until it completes.
    pauses: [Duration; 3],
    /// Where the first part ends.
    cut: u64,
    discard: Discard,
    /// Reads give holes as holes.
    holes: bool,
}

#[derive(Clone, Copy)]
enum Discard {
    Nothing,
    Zeroes,
    Garbage,
}

/// A request being served.
struct Served {
    req: Request,
    plan: Plan,
    write: Option<WriteId>,
    flush: Option<FlushPoint>,
    /// Memory for a read that left the choice to us.
    memory: Option<Iov>,
}

impl DiskQueue {
    pub fn new(disk: Arc<Shared>, reactor: Reactor, life: u64) -> DiskQueue {
        DiskQueue(Rc::new(Inner {
            disk,
            reactor,
            life,
        }))
    }
}

impl Queue for DiskQueue {
    fn submit(&self, req: Request) {
        let disk = &self.0.disk;
        let support = disk.limits.support(req.op());
        let fast = req.flags().contains(Flags::FAST_ZERO);
        if support == Support::None || (fast && !disk.limits.fast_zero) {
            return req.fail(Errno::ENOTSUP);
        }
        if let Err(why) = check(&disk.limits, &req) {
            disk.lock().violations += 1;
            panic!("the simulated disk got {req:?}: {why}");
        }
        let mut served = self.0.begin(req);
        if served.plan.pauses.iter().all(Duration::is_zero) {
            let (cut, len) = (served.plan.cut, served.req.len());
            self.0.part(&mut served, 0, cut);
            self.0.part(&mut served, cut, len);
            return self.0.finish(served);
        }
        let inner = self.0.clone();
        self.0.reactor.spawn(async move {
            let (cut, len) = (served.plan.cut, served.req.len());
            let [first, second, last] = served.plan.pauses;
            inner.reactor.sleep(first).await;
            inner.part(&mut served, 0, cut);
            inner.reactor.sleep(second).await;
            inner.part(&mut served, cut, len);
            inner.reactor.sleep(last).await;
            inner.finish(served);
        });
    }
}

/// Does the request keep to the limits?
fn check(limits: &Limits, req: &Request) -> Result<(), String> {
    let (op, len) = (req.op(), req.len());
    let fail = |why: &str| Err(why.to_owned());
    if limits.support(op) == Support::Emulated {
        return fail("the operation is to be emulated");
    }
    if req.flags().contains(Flags::FUA) && limits.fua != Support::Native && op.modifies() {
        return fail("FUA is not done by the device");
    }
    if op.has_range() {
        if !limits.contains(req.offset(), len) {
            return fail("it lies outside");
        }
        if (req.offset() | len) & u64::from(limits.min_block - 1) != 0 {
            return fail("it is not made of blocks");
        }
    }
    let bytes = matches!(op, Op::Read | Op::Write);
    let most = if bytes {
        u64::from(limits.max_transfer)
    } else {
        limits.max_range
    };
    if len > most {
        return fail("it is too long");
    }
    match (op, req.data()) {
        (Op::Read | Op::Write, Data::Iov(iov)) => check_memory(limits, iov, len),
        (Op::Read, Data::Wanted) => Ok(()),
        (Op::Read | Op::Write, _) => fail("it has no bytes"),
        _ => Ok(()),
    }
}

fn check_memory(limits: &Limits, iov: &Iov, len: u64) -> Result<(), String> {
    if iov.len() as u64 != len {
        return Err("the buffer has another length".into());
    }
    if limits.memory_align == 1 {
        return Ok(());
    }
    let (align, block) = (limits.memory_align as usize, limits.min_block as usize);
    let bad = iov
        .segments()
        .iter()
        .find(|s| !(s.ptr as usize).is_multiple_of(align) || !s.len.is_multiple_of(block));
    bad.map_or(Ok(()), |s| Err(format!("memory {s:?} is not aligned")))
}

impl Inner {
    fn begin(&self, req: Request) -> Served {
        let mut state = self.disk.lock();
        let op = req.op();
        state.arrived(op);
        let (len, delay, faults) = (req.len(), self.disk.delay, &self.disk.faults);
        let rng = &mut state.rng;
        let now = delay.is_zero() || rng.chance(1, 4);
        let mut pause = || match now || rng.chance(1, 3) {
            true => Duration::ZERO,
            false => rng.delay(delay),
        };
        let pauses = [pause(), pause(), pause()];
        // Flushes fail by their own rule: a flush that failed once must go on failing.
        let mut one_in = |n: u64| n > 0 && op != Op::Flush && rng.chance(1, n);
        let modifies = matches!(op, Op::Write | Op::WriteZeroes);
        let fault = match () {
            () if one_in(faults.errors) => Some((Errno::EIO, 0)),
            () if modifies && one_in(faults.no_space) => Some((Errno::ENOSPC, 0)),
            () if one_in(faults.short) => Some((Errno::EIO, rng.below(len.max(1)))),
            () => None,
        };
        let plan = Plan {
            fault,
            pauses,
            cut: rng.below(len + 1),
            discard: *rng.pick(&[Discard::Nothing, Discard::Zeroes, Discard::Garbage]),
            holes: rng.chance(1, 2),
        };
        let memory = match (op, req.data()) {
            (Op::Read, Data::Wanted) => Some(Iov::of_chunk(
                self.reactor.chunk(len as usize),
                len as usize,
            )),
            _ => None,
        };
        Served {
            write: op.modifies().then(|| state.open_write()),
            flush: (op == Op::Flush).then(|| state.flush_point()),
            memory,
            req,
            plan,
        }
    }

    /// Does the part from `from` to `to` (relative to the request), as far as the plan lets it.
    fn part(&self, served: &mut Served, from: u64, to: u64) {
        let mut state = self.disk.lock();
        let to = served.plan.fault.map_or(to, |(_, done)| to.min(done));
        if from >= to || state.life != self.life {
            return;
        }
        let (at, len) = (served.req.offset() + from, to - from);
        let id = served.write.unwrap_or_default();
        match served.req.op() {
            Op::Read => {
                let mut bytes = vec![0; len as usize];
                state.read(at, &mut bytes);
                let iov = served.memory.as_ref().or(served.req.data().as_iov());
                iov.expect("checked").write(from as usize, &bytes);
            }
            Op::Write => {
                let mut bytes = vec![0; len as usize];
                let iov = served.req.data().as_iov().expect("checked");
                iov.read(from as usize, &mut bytes);
                state.apply(id, at, len, Change::Bytes(&bytes));
            }
            Op::WriteZeroes => {
                let fact = match served.req.flags().contains(Flags::NO_HOLE) {
                    true => Fact::ZERO,
                    false => Fact::HOLE_ZERO,
                };
                state.apply(id, at, len, Change::Zeroes(fact));
            }
            Op::Discard | Op::SecureErase => match served.plan.discard {
                Discard::Nothing if served.req.op() == Op::Discard => {}
                Discard::Garbage => state.apply(id, at, len, Change::Garbage),
                _ => state.apply(id, at, len, Change::Zeroes(Fact::HOLE_ZERO)),
            },
            _ => {}
        }
    }

    fn finish(&self, mut served: Served) {
        let outcome = self.outcome(&mut served);
        let Served {
            mut req,
            memory,
            plan,
            ..
        } = served;
        match (memory, outcome.is_ok()) {
            (Some(memory), true) => req.give(self.give(&memory, plan.holes)),
            _ => {
                if req.op() == Op::GetId && outcome.is_ok() {
                    *req.data_mut() = Data::Id(*b"simulated disk\0\0\0\0\0\0");
                }
                req.complete(outcome);
            }
        }
    }

    fn outcome(&self, served: &mut Served) -> Outcome {
        let mut state = self.disk.lock();
        state.left();
        if state.life != self.life {
            return Err(Errno::ENXIO.into());
        }
        let req = &mut served.req;
        let fua = req.flags().contains(Flags::FUA);
        let failed = served.plan.fault.is_some() || (fua && state.poisoned);
        if let Some(id) = served.write {
            state.close_write(id, req.offset(), req.len(), fua && !failed);
        }
        if let Some((errno, _)) = served.plan.fault {
            return Err(errno.into());
        }
        if failed {
            return Err(Errno::EIO.into());
        }
        if req.op() == Op::Extents {
            *req.data_mut() = Data::Extents(state.extents(req.offset(), req.len()));
        }
        if let Some(point) = &served.flush {
            state.flushes += 1;
            state.poisoned |= match self.disk.faults.flush {
                FlushFault::None => false,
                FlushFault::OneIn(n) => state.rng.chance(1, n),
                FlushFault::After(n) => state.flushes > n,
            };
            if state.poisoned {
                return Err(Errno::EIO.into());
            }
            state.flush(point);
        }
        Ok(())
    }

    /// A read's result: one piece, or, with `holes`, zeroes at the ends as holes.
    fn give(&self, memory: &Iov, holes: bool) -> Segments {
        let bytes = memory.to_vec();
        let chunk = match memory.pin() {
            block::Pin::Chunk(chunk) => chunk.clone(),
            _ => unreachable!("our own memory is a chunk"),
        };
        let mem = SharedMem::of_chunk(chunk, bytes.len());
        if !holes {
            return mem.into();
        }
        // In steps, so that an unoptimised build compares memory and not bytes.
        let mut steps = bytes.chunks(STEP);
        let first = steps.position(|part| part != &ZEROES[..part.len()]);
        let first = first.map_or(bytes.len(), |n| n * STEP);
        let mut steps = bytes.chunks(STEP);
        let last = steps.rposition(|part| part != &ZEROES[..part.len()]);
        let last = last.map_or(first, |n| ((n + 1) * STEP).min(bytes.len()));
        let mut segments = Segments::zero(first as u64);
        // In two pieces, so that whoever assumes one is found out.
        let middle = first + (last - first) / 2;
        segments.push(Piece::Mem(mem.slice(first, middle - first)));
        segments.push(Piece::Mem(mem.slice(middle, last - middle)));
        segments.push(Piece::Zero((bytes.len() - last) as u64));
        segments
    }
}
