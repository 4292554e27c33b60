//! The contract of requests, sentence by sentence.

use blkit_block as block;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use block::{
    Completed, Data, Device, Errno, ExtentFlags, ExtentList, Flags, Iov, Op, Piece, Queue,
    QueueExt, Reactor, Request, Segments, SharedBuf, SharedMem,
};
use testkit::{SimLoop, SimWorld, StepDevice, workload::assert_quiet};

type Log<T> = Rc<RefCell<Vec<T>>>;

fn log<T>() -> Log<T> {
    Rc::default()
}

fn flush(r: &Reactor) -> Request {
    r.request(Op::Flush, 0, 0)
}

fn read(r: &Reactor, at: u64, len: u64) -> Request {
    let mut req = r.request(Op::Read, at, len);
    *req.data_mut() = Data::Wanted;
    req
}

fn bytes(text: &'static [u8]) -> Segments {
    SharedMem::of_static(text).into()
}

/// Notes how the request ended.
fn watch(req: &mut Request, ended: &Log<Option<Errno>>) {
    let ended = ended.clone();
    req.on_complete(move |done| ended.borrow_mut().push(done.error().map(|e| e.errno())));
}

/// A request's outcome, after the loop has run.
fn outcome_of(sim: &SimLoop, act: impl FnOnce(Request)) -> Vec<Option<Errno>> {
    let ended = log();
    let mut req = flush(sim.reactor());
    watch(&mut req, &ended);
    act(req);
    assert!(
        ended.borrow().is_empty(),
        "completions run later, from the loop"
    );
    sim.run_until_idle();
    ended.take()
}

#[test]
fn completes_exactly_once_and_never_at_once() {
    let sim = SimLoop::new(1);
    assert_eq!(outcome_of(&sim, Request::done), [None]);
    assert_eq!(
        outcome_of(&sim, |req| req.fail(Errno::ENOSPC)),
        [Some(Errno::ENOSPC)]
    );
    assert_eq!(
        outcome_of(&sim, |req| req.complete(Err(Errno::EROFS.into()))),
        [Some(Errno::EROFS)]
    );
    assert_quiet(sim.reactor());
}

#[test]
fn a_dropped_request_completes_with_eio_and_is_counted() {
    let sim = SimLoop::new(1);
    assert_eq!(outcome_of(&sim, drop), [Some(Errno::EIO)]);
    assert_eq!(sim.reactor().counters().dropped.get(), 1);
    // What a layer noted before it was lost says more.
    let noted = outcome_of(&sim, |mut req| {
        req.note(Err(Errno::ENOSPC.into()));
        req.note(Err(Errno::EROFS.into()));
    });
    assert_eq!(noted, [Some(Errno::ENOSPC)]);
    assert_eq!(sim.reactor().requests_live(), 0);
}

#[test]
fn a_completion_dropped_by_a_frame_is_that_layers_loss() {
    let sim = SimLoop::new(1);
    let ended = outcome_of(&sim, |mut req| {
        req.intercept(drop);
        req.done();
    });
    assert_eq!(ended, [Some(Errno::EIO)]);
    assert_eq!(sim.reactor().counters().dropped.get(), 1);
    // With nobody above there is no loss.
    let mut req = flush(sim.reactor());
    req.intercept(drop);
    req.done();
    sim.run_until_idle();
    assert_eq!(
        (
            sim.reactor().counters().dropped.get(),
            sim.reactor().requests_live()
        ),
        (1, 0)
    );
}

#[test]
fn frames_run_last_first_however_many_and_however_big() {
    let sim = SimLoop::new(1);
    let order = log();
    let alive = Rc::new(());
    let mut req = flush(sim.reactor());
    for i in 0..40u64 {
        let (order, hold) = (order.clone(), alive.clone());
        // Nothing at all, small, as large as fits, too large, and with a strict alignment.
        match i % 4 {
            0 => req.on_complete(move |_| {
                order.borrow_mut().push(i);
                drop(hold);
            }),
            1 => {
                let filler = [i; 6];
                req.on_complete(move |_| order.borrow_mut().push(filler[5]));
            }
            2 => {
                let filler = [i; 50];
                req.on_complete(move |_| {
                    order.borrow_mut().push(filler[49]);
                    drop(hold);
                });
            }
            _ => {
                #[repr(align(64))]
                struct Strict(u64);
                let strict = Strict(i);
                req.on_complete(move |_| {
                    let strict = strict;
                    assert_eq!(std::ptr::from_ref(&strict).addr() % 64, 0);
                    order.borrow_mut().push(strict.0);
                });
            }
        }
    }
    req.done();
    sim.run_until_idle();
    assert_eq!(*order.borrow(), (0..40).rev().collect::<Vec<_>>());
    assert_eq!((Rc::strong_count(&alive), Rc::strong_count(&order)), (1, 1));
    assert_quiet(sim.reactor());
}

#[test]
fn a_completion_that_is_kept_keeps_its_frames() {
    let alive = Rc::new(());
    let sim = SimLoop::new(1);
    let mut req = flush(sim.reactor());
    for _ in 0..20 {
        let hold = alive.clone();
        req.on_complete(move |_| drop(hold));
    }
    // A frame that keeps the completion for ever, with frames above it.
    let kept: Rc<RefCell<Option<Completed>>> = Rc::default();
    let keep = kept.clone();
    req.intercept(move |done| *keep.borrow_mut() = Some(done));
    req.done();
    sim.run_until_idle();
    assert_eq!(Rc::strong_count(&alive), 21);
    kept.take();
    sim.run_until_idle();
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn a_frame_may_push_frames_and_send_the_request_again() {
    let sim = SimLoop::new(1);
    let order = log();
    let mut req = flush(sim.reactor());
    watch(&mut req, &log());
    let seen = order.clone();
    req.on_complete(move |_| seen.borrow_mut().push("top"));
    let seen = order.clone();
    req.intercept(move |done| {
        assert_eq!(done.error().map(|e| e.errno()), Some(Errno::EAGAIN));
        seen.borrow_mut().push("retry");
        let mut again = done.again();
        let seen = seen.clone();
        again.on_complete(move |done| {
            assert!(done.error().is_none());
            seen.borrow_mut().push("second");
        });
        again.done();
    });
    req.fail(Errno::EAGAIN);
    sim.run_until_idle();
    assert_eq!(*order.borrow(), ["retry", "second", "top"]);
    assert_quiet(sim.reactor());
}

#[test]
fn a_panic_in_a_frame_ends_one_request_only() {
    let sim = SimLoop::new(1);
    let r = sim.reactor();
    let ended = log();
    let alive = Rc::new(());
    for i in 0..3 {
        let mut req = flush(r);
        watch(&mut req, &ended);
        let hold = alive.clone();
        req.on_complete(move |_| {
            let _hold = hold;
            assert_ne!(i, 1, "a frame panics on purpose");
        });
        req.done();
    }
    sim.run_until_idle();
    let mut ended = ended.take();
    ended.sort_by_key(|e| e.map(Errno::get));
    assert_eq!(ended, [None, None, Some(Errno::EIO)]);
    assert_eq!(
        (r.counters().panics.get(), r.counters().dropped.get()),
        (1, 1)
    );
    assert_eq!((r.requests_live(), Rc::strong_count(&alive)), (0, 1));
}

#[test]
fn a_child_keeps_its_parent_from_completing_however_it_ends() {
    for way in 0..4 {
        let sim = SimLoop::new(1);
        let r = sim.reactor();
        let ended = log();
        let mut parent = read(r, 100, 50);
        watch(&mut parent, &ended);
        let (first, second) = (
            parent.child(Op::Read, 0, 20),
            parent.child(Op::Read, 20, 30),
        );
        assert_eq!((second.offset(), second.len()), (120, 30));
        match way {
            0 => parent.give_zeroes(),
            1 => parent.fail(Errno::ENOSPC),
            2 => drop(parent),
            // A task that owned it is dropped with its executor.
            _ => sim.reactor().spawn(async move {
                let _parent = parent;
                panic!("a task panics on purpose");
            }),
        }
        sim.run_until_idle();
        assert!(ended.borrow().is_empty(), "way {way}: children are out");
        first.done();
        sim.run_until_idle();
        assert!(ended.borrow().is_empty(), "way {way}: a child is out");
        drop(second);
        sim.run_until_idle();
        let expected = [
            None,
            Some(Errno::ENOSPC),
            Some(Errno::EIO),
            Some(Errno::EIO),
        ][way];
        assert_eq!(*ended.borrow(), [expected]);
        assert_eq!(r.requests_live(), 0);
    }
}

#[test]
fn grandchildren_count_too() {
    let sim = SimLoop::new(1);
    let ended = log();
    let mut parent = read(sim.reactor(), 0, 4);
    watch(&mut parent, &ended);
    let mut child = parent.child(Op::Read, 0, 4);
    let grandchild = child.child(Op::Read, 0, 2);
    parent.give_zeroes();
    child.give_zeroes();
    sim.run_until_idle();
    assert!(ended.borrow().is_empty());
    grandchild.give_zeroes();
    sim.run_until_idle();
    assert_eq!(*ended.borrow(), [None]);
    assert_quiet(sim.reactor());
}

#[test]
#[should_panic(expected = "inside its parent")]
fn a_child_outside_its_parent_is_refused() {
    let sim = SimLoop::new(1);
    let mut parent = read(sim.reactor(), 0, 4);
    drop(parent.child(Op::Read, 1, u64::MAX));
}

#[test]
fn a_split_puts_given_bytes_together_in_order() {
    let sim = SimLoop::new(1);
    let result: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
    let mut req = read(sim.reactor(), 0, 9);
    let found = result.clone();
    req.on_complete(move |done| *found.borrow_mut() = done.data().as_given().map(Segments::to_vec));
    let split = req.split();
    let parts = [split.part(0, 3), split.part(3, 4), split.part(7, 2)];
    drop(split);
    let [first, second, third] = parts;
    third.give(bytes(b"hi"));
    sim.run_until_idle();
    second.give_zeroes();
    first.give(bytes(b"abc"));
    sim.run_until_idle();
    assert_eq!(result.take().unwrap(), b"abc\0\0\0\0hi");
    assert_quiet(sim.reactor());
}

#[test]
fn a_split_shares_the_buffer_it_was_given() {
    let sim = SimLoop::new(1);
    let r = sim.reactor();
    let buffer = Iov::of_chunk(r.chunk(6), 6);
    let mut req = r.request(Op::Read, 0, 6);
    *req.data_mut() = buffer.clone().into();
    let (first, second) = req.split_at(2);
    second.give(bytes(b"cdef"));
    first.give(bytes(b"ab"));
    sim.run_until_idle();
    assert_eq!(buffer.to_vec(), b"abcdef");
    assert_eq!(r.counters().bytes_copied.get(), 6);
    drop(buffer);
    assert_quiet(r);
}

fn extents_of_parts(parts: [(u64, ExtentList); 2]) -> ExtentList {
    let sim = SimLoop::new(1);
    let result: Rc<RefCell<Option<ExtentList>>> = Rc::default();
    let len = parts.iter().map(|p| p.0).sum();
    let mut req = sim.reactor().request(Op::Extents, 0, len);
    let found = result.clone();
    req.on_complete(move |done| *found.borrow_mut() = done.data().as_extents().cloned());
    let (mut at, split) = (0, req.split());
    for (len, list) in parts {
        let mut part = split.part(at, len);
        *part.data_mut() = Data::Extents(list);
        part.done();
        at += len;
    }
    drop(split);
    sim.run_until_idle();
    assert_quiet(sim.reactor());
    result.take().expect("extents came back")
}

#[test]
fn a_split_puts_extents_together_as_far_as_there_is_no_gap() {
    let (data, hole) = (ExtentFlags::DATA, ExtentFlags::HOLE_ZERO);
    let all = extents_of_parts([
        (10, ExtentList::one(10, data)),
        (5, ExtentList::one(5, hole)),
    ]);
    assert_eq!((all.allocation().len(), all.covered()), (2, 15));
    // The first part's answer is short: what the second found has no place.
    let cut = extents_of_parts([
        (10, ExtentList::one(4, data)),
        (5, ExtentList::one(5, hole)),
    ]);
    assert_eq!(cut, ExtentList::one(4, data));
    // An answer that reaches beyond its part is cut.
    let long = extents_of_parts([
        (10, ExtentList::one(99, data)),
        (5, ExtentList::one(5, hole)),
    ]);
    assert_eq!((long.allocation()[0].len, long.covered()), (10, 15));
}

#[test]
fn the_first_error_of_a_split_wins() {
    let sim = SimLoop::new(1);
    let ended = log();
    let mut req = read(sim.reactor(), 0, 30);
    watch(&mut req, &ended);
    let split = req.split();
    let parts = [split.part(0, 10), split.part(10, 10), split.part(20, 10)];
    drop(split);
    let [first, second, third] = parts;
    first.give_zeroes();
    third.fail(Errno::ENOSPC);
    sim.run_until_idle();
    assert!(ended.borrow().is_empty(), "it waits for all parts");
    second.fail(Errno::EROFS);
    sim.run_until_idle();
    assert_eq!(*ended.borrow(), [Some(Errno::ENOSPC)]);
    assert_quiet(sim.reactor());
}

#[test]
fn a_split_without_parts_completes() {
    let sim = SimLoop::new(1);
    assert_eq!(outcome_of(&sim, |req| drop(req.split())), [None]);
    let mixed = outcome_of(&sim, |req| {
        let split = req.split();
        drop(split.part(0, 0));
    });
    assert_eq!(mixed, [Some(Errno::EIO)], "a part was dropped");
}

#[test]
fn a_parked_request_is_taken_or_cancelled_whichever_is_first() {
    let sim = SimLoop::new(1);
    let cancel = |req: Request| req.fail(Errno::ECANCELED);
    // Taken, then cancelled: a hint and no more.
    let ended = outcome_of(&sim, |mut req| {
        let ticket = req.ticket();
        let parked = req.park(cancel);
        let req = parked.take().expect("it is there");
        ticket.cancel();
        assert!(req.is_cancelled());
        req.done();
    });
    assert_eq!(ended, [None]);
    // Cancelled, then taken.
    let ended = outcome_of(&sim, |mut req| {
        let ticket = req.ticket();
        let parked = req.park(cancel);
        assert!(!parked.is_cancelled());
        ticket.cancel();
        ticket.cancel();
        assert!(parked.is_cancelled() && parked.take().is_none());
    });
    assert_eq!(ended, [Some(Errno::ECANCELED)]);
    // Cancelled before it was parked.
    let ended = outcome_of(&sim, |mut req| {
        req.ticket().cancel();
        assert!(req.park(cancel).take().is_none());
    });
    assert_eq!(ended, [Some(Errno::ECANCELED)]);
    // Parked again after it was taken: the old hook is gone, the new one works.
    let ended = outcome_of(&sim, |mut req| {
        let ticket = req.ticket();
        let req = req
            .park(|_| panic!("the old hook"))
            .take()
            .expect("it is there");
        let parked = req.park(cancel);
        ticket.cancel();
        assert!(parked.take().is_none());
    });
    assert_eq!(ended, [Some(Errno::ECANCELED)]);
    assert_quiet(sim.reactor());
    // Lost by its layer.
    let ended = outcome_of(&sim, |mut req| {
        let _ticket = req.ticket();
        drop(req.park(cancel));
    });
    assert_eq!(ended, [Some(Errno::EIO)]);
    assert_eq!(sim.reactor().counters().dropped.get(), 1);
}

#[test]
fn a_ticket_of_an_old_request_does_nothing() {
    let sim = SimLoop::new(1);
    let mut old = flush(sim.reactor());
    let ticket = old.ticket();
    old.done();
    sim.run_until_idle();
    let mut fresh = flush(sim.reactor());
    let other = fresh.ticket();
    ticket.cancel();
    assert!(!fresh.is_cancelled(), "the slot is another's now");
    other.cancel();
    assert!(fresh.is_cancelled());
    fresh.done();
    sim.run_until_idle();
    drop(sim);
    ticket.cancel();
}

#[test]
fn cancelling_reaches_parts_that_are_parked() {
    let sim = SimLoop::new(1);
    let ended = log();
    let mut req = read(sim.reactor(), 0, 30);
    watch(&mut req, &ended);
    let ticket = req.ticket();
    let split = req.split();
    let [first, second, mut third] = [split.part(0, 10), split.part(10, 10), split.part(20, 10)];
    drop(split);
    let own = third.ticket();
    let parked = [first, second, third].map(|part| part.park(|part| part.fail(Errno::ECANCELED)));
    own.cancel();
    assert_eq!(
        parked.each_ref().map(|p| p.is_cancelled()),
        [false, false, true]
    );
    ticket.cancel();
    assert!(parked.iter().all(|p| p.is_cancelled()));
    drop(parked);
    sim.run_until_idle();
    assert_eq!(*ended.borrow(), [Some(Errno::ECANCELED)]);
    assert_quiet(sim.reactor());
}

#[test]
fn a_remote_comes_home_with_what_it_found() {
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let device = StepDevice::new(1 << 20);
    let queue = device.open_queue(&r).unwrap();
    sim.block_on(async {
        let call = queue.call(read(&r, 10, 5));
        std::thread::spawn({
            let step = device.expect(Op::Read, 10, 5);
            move || step.done(7)
        })
        .join()
        .unwrap();
        let done = call.await;
        assert_eq!(done.data().as_given().unwrap().to_vec(), [7; 5]);
        done.finish();

        // Into the caller's own memory, counted as a copy.
        let buffer = Iov::of_chunk(r.chunk(5), 5);
        let mut req = r.request(Op::Read, 0, 5);
        *req.data_mut() = buffer.clone().into();
        let call = queue.call(req);
        device.next().unwrap().done(9);
        assert!(call.await.error().is_none());
        assert_eq!(
            (buffer.to_vec(), r.counters().bytes_copied.get()),
            (vec![9; 5], 5)
        );

        // Extents.
        let call = queue.call(r.request(Op::Extents, 0, 8));
        let mut step = device.next().unwrap();
        step.remote
            .give_extents(ExtentList::one(8, ExtentFlags::ZERO));
        step.remote.complete(Ok(()));
        assert!(call.await.data().as_extents().unwrap().all_zero());

        // A write's bytes go along.
        let mut req = r.request(Op::Write, 3, 5);
        req.set_flags(Flags::FUA);
        *req.data_mut() = buffer.into();
        let call = queue.call(req);
        let step = device.expect(Op::Write, 3, 5);
        let mut bytes = [0; 2];
        step.remote.read_data(3, &mut bytes);
        assert_eq!((bytes, step.remote.flags()), ([9, 9], Flags::FUA));
        step.fail(Errno::ENOSPC);
        assert_eq!(call.await.error().map(|e| e.errno()), Some(Errno::ENOSPC));
    });
    assert_quiet(&r);
}

#[test]
fn a_remote_that_is_dropped_completes_with_eio() {
    let sim = SimLoop::new(1);
    let ended = outcome_of(&sim, |req| {
        let remote = req.into_remote(sim.reactor().inbox());
        let thread = std::thread::spawn(move || {
            let _remote = remote;
            panic!("a worker panics on purpose");
        });
        assert!(thread.join().is_err());
    });
    assert_eq!(ended, [Some(Errno::EIO)]);
    assert_eq!(sim.reactor().requests_live(), 0);
}

#[test]
fn what_is_sent_to_a_dead_reactor_ends() {
    let world = SimWorld::new(1, 2);
    let (home, away) = (world.reactor(0).clone(), world.reactor(1).clone());
    let inbox = away.inbox().clone();
    // On its way when the other dies, and sent after it died: both come home.
    let ended = log();
    for late in [false, true] {
        let mut req = flush(&home);
        watch(&mut req, &ended);
        let remote = req.into_remote(home.inbox());
        if late {
            world.kill(1);
        }
        let taken = inbox.run(move |_| remote.complete(Ok(())));
        assert_eq!(taken, !late);
    }
    world.run_until_idle();
    assert_eq!(*ended.borrow(), [Some(Errno::EIO), Some(Errno::EIO)]);
    assert_eq!(home.requests_live(), 0);
    // A completion for the dead one is given up, and nothing touches its memory.
    let world = SimWorld::new(1, 1);
    let remote = flush(world.reactor(0)).into_remote(world.reactor(0).inbox());
    world.kill(0);
    std::thread::spawn(move || remote.complete(Ok(())))
        .join()
        .unwrap();
}

#[test]
#[should_panic(expected = "children are out")]
fn a_request_does_not_leave_its_children() {
    let sim = SimLoop::new(1);
    let mut req = read(sim.reactor(), 0, 4);
    let _child = req.child(Op::Read, 0, 4);
    drop(req.into_remote(sim.reactor().inbox()));
}

#[test]
fn a_call_dropped_early_lets_the_request_go_on() {
    let sim = SimLoop::new(1);
    let r = sim.reactor();
    let device = StepDevice::new(4096);
    let queue = device.open_queue(r).unwrap();
    drop(queue.call(read(r, 0, 4096)));
    assert_eq!((device.waiting(), r.requests_live()), (1, 1));
    device.next().unwrap().done(1);
    sim.run_until_idle();
    assert_quiet(r);
    // Polled once, then dropped.
    {
        let mut call = pin!(queue.call(flush(r)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(call.as_mut().poll(&mut cx), Poll::Pending));
    }
    device.next().unwrap().done(0);
    sim.run_until_idle();
    assert_quiet(r);
}

#[test]
fn given_bytes_are_copied_only_into_a_callers_buffer() {
    let sim = SimLoop::new(1);
    let r = sim.reactor();
    let page = SharedBuf::from_vec((0..64).collect());
    let seen: Log<usize> = log();
    let mut req = read(r, 0, 16);
    let addresses = seen.clone();
    req.on_complete(move |done| match done.data().as_given().unwrap().pieces() {
        [Piece::Mem(mem)] => addresses.borrow_mut().push(mem.as_ptr().addr()),
        _ => panic!("one piece was given"),
    });
    let mem = SharedMem::of_shared(page, 8, 16);
    let address = mem.as_ptr().addr();
    req.give(mem.into());
    sim.run_until_idle();
    assert_eq!(
        (seen.take(), r.counters().bytes_copied.get()),
        (vec![address], 0)
    );
    assert_quiet(r);
}

#[test]
#[should_panic(expected = "as many bytes")]
fn a_short_gift_is_refused() {
    let sim = SimLoop::new(1);
    read(sim.reactor(), 0, 16).give(bytes(b"short"));
}

#[test]
#[should_panic(expected = "static bytes")]
fn static_memory_is_never_written() {
    Iov::from(SharedMem::of_static(b"read only")).write(0, b"x");
}

#[test]
fn bodies_are_reused_and_forget_what_they_carried() {
    let sim = SimLoop::new(1);
    let r = sim.reactor();
    let mut req = r.request(Op::Write, 5, 8);
    req.set_flags(Flags::FUA);
    *req.data_mut() = Iov::of_chunk(r.chunk(8), 8).into();
    let ticket = req.ticket();
    ticket.cancel();
    req.fail(Errno::EIO);
    sim.run_until_idle();
    assert_eq!(r.chunks().live(), 0, "the buffer went with the completion");
    let req = flush(r);
    assert!(matches!(req.data(), Data::None) && !req.is_cancelled());
    assert_eq!(
        (req.op(), req.offset(), req.len(), req.flags()),
        (Op::Flush, 0, 0, Flags::NONE)
    );
    req.done();
    sim.run_until_idle();
    assert_quiet(r);
}

#[test]
fn requests_outlive_their_loop() {
    let kept = Rc::new(Cell::new(None));
    {
        let sim = SimLoop::new(1);
        kept.set(Some(read(sim.reactor(), 0, 8)));
    }
    // Nobody runs its frames any more, and nothing breaks.
    drop(kept.take());
}

/// A layer for the tests of queues: passes on.
struct Pass(Rc<dyn Queue>);

impl Queue for Pass {
    fn submit(&self, req: Request) {
        self.0.submit(req);
    }
}

#[test]
fn a_queue_is_used_through_layers_of_itself() {
    let sim = SimLoop::new(1);
    let device = StepDevice::new(4096);
    let bottom = device.open_queue(sim.reactor()).unwrap();
    let top: Rc<dyn Queue> = Rc::new(Pass(Rc::new(Pass(bottom))));
    let call = top.call(flush(sim.reactor()));
    device.expect(Op::Flush, 0, 0).done(0);
    assert!(sim.block_on(call).error().is_none());
    assert_quiet(sim.reactor());
}
