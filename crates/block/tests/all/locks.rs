//! Who may run at the same time: range locks, gates and events, within and across reactors.

use blkit_block as block;
use std::{cell::RefCell, future::Future, rc::Rc, sync::Arc, time::Duration};

use block::{Device, Event, EventHub, Gate, Op, QueueExt, RangeLock, Reactor};
use testkit::{SimDisk, SimDiskOptions, SimLoop, SimWorld, StepDevice, workload::assert_quiet};

#[test]
fn range_locks_exclude_across_reactors_and_starve_nobody() {
    for seed in 0..30 {
        let world = SimWorld::new(seed, 3);
        let lock = RangeLock::new();
        // Who holds which bytes now: readers count up, a writer is -1.
        let held = Rc::new(RefCell::new([0i32; 16]));
        let finished = Rc::new(RefCell::new(0));
        for i in 0..60u64 {
            let r = world.reactor(i as usize % 3).clone();
            let (lock, held, finished) = (lock.clone(), held.clone(), finished.clone());
            let mut rng = world.fork_rng();
            world.reactor(i as usize % 3).spawn(async move {
                r.sleep(rng.delay(Duration::from_micros(50))).await;
                let start = rng.below(15);
                let range = start..start + 1 + rng.below(16 - start);
                let exclusive = rng.chance(1, 2);
                let turn = match exclusive {
                    true => lock.exclusive(range.clone()),
                    false => lock.shared(range.clone()),
                };
                if rng.chance(1, 8) {
                    return drop(turn); // gives up
                }
                let guard = turn.await;
                for byte in range.clone() {
                    let state = &mut held.borrow_mut()[byte as usize];
                    assert!(if exclusive { *state == 0 } else { *state >= 0 });
                    *state += if exclusive { -1 } else { 1 };
                }
                r.sleep(rng.delay(Duration::from_micros(20))).await;
                for byte in range {
                    held.borrow_mut()[byte as usize] += if exclusive { 1 } else { -1 };
                }
                drop(guard);
                *finished.borrow_mut() += 1;
            });
        }
        world.run_until_idle();
        assert!((30..=60).contains(&*finished.borrow()), "seed {seed}");
        assert_eq!(*held.borrow(), [0; 16]);
        for r in world.reactors() {
            assert_eq!(
                world.tasks(r.index()),
                0,
                "nobody waits for ever (seed {seed})"
            );
            assert_eq!(r.counters().panics.get(), 0, "seed {seed}");
        }
        assert!(lock.try_exclusive(0..16).is_some());
    }
}

fn many_requests(world: &SimWorld, device: &Arc<dyn Device>) {
    for r in world.reactors() {
        let queue = device.open_queue(r).unwrap();
        for i in 0..20 {
            let req = r.request(Op::Cache, i * 512, 512);
            let call = queue.call(req);
            r.spawn(async move { call.await.finish() });
        }
    }
    world.run_until_idle();
    world.reactors().for_each(assert_quiet);
}

#[test]
fn a_gate_lets_one_request_through_at_a_time() {
    for seed in 0..10 {
        let world = SimWorld::new(seed, 3);
        let disk = SimDisk::new(SimDiskOptions::new(1 << 20, seed));
        many_requests(&world, &(disk.clone() as Arc<dyn Device>));
        assert!(
            disk.most_in_flight() > 1,
            "without a gate they run together"
        );
        let disk = SimDisk::new(SimDiskOptions::new(1 << 20, seed));
        many_requests(&world, &Gate::wrap(disk.clone(), RangeLock::new()));
        assert_eq!((disk.most_in_flight(), disk.requests()), (1, 60));
    }
}

#[test]
fn gates_that_share_a_lock_take_turns() {
    let world = SimWorld::new(4, 1);
    let (lock, r) = (RangeLock::new(), world.reactor(0).clone());
    let devices = [StepDevice::new(4096), StepDevice::new(4096)];
    let calls = devices.each_ref().map(|device| {
        let gated = Gate::wrap(device.clone(), lock.clone());
        gated
            .open_queue(&r)
            .unwrap()
            .call(r.request(Op::Flush, 0, 0))
    });
    world.run_until_idle();
    assert_eq!(devices.each_ref().map(|d| d.waiting()), [1, 0]);
    devices[0].next().unwrap().done(0);
    world.run_until_idle();
    devices[1].next().unwrap().done(0);
    for call in calls {
        assert!(world.block_on(0, call).error().is_none());
    }
    assert_quiet(&r);
}

#[test]
fn a_request_that_waits_at_a_gate_can_be_cancelled() {
    let sim = SimLoop::new(1);
    let r = sim.reactor();
    let device = StepDevice::new(4096);
    let queue = Gate::wrap(device.clone(), RangeLock::new())
        .open_queue(r)
        .unwrap();
    let first = queue.call(r.request(Op::Flush, 0, 0));
    let mut second = r.request(Op::Flush, 0, 0);
    let ticket = second.ticket();
    let second = queue.call(second);
    sim.run_until_idle();
    ticket.cancel();
    let done = sim.block_on(second);
    assert!(*done.error().unwrap() == block::Errno::ECANCELED);
    drop(done);
    device.next().unwrap().done(0);
    sim.block_on(first).finish();
    sim.run_until_idle();
    assert_eq!((device.waiting(), sim.tasks()), (0, 0));
    assert_quiet(r);
}

#[test]
fn events_reach_every_subscriber_on_its_own_reactor() {
    let world = SimWorld::new(2, 2);
    let hub = EventHub::default();
    let seen: Rc<RefCell<Vec<(usize, Event)>>> = Rc::default();
    let subscribe = |index: usize| {
        let seen = seen.clone();
        let f = Box::new(move |event| seen.borrow_mut().push((index, event)));
        hub.subscribe(world.reactor(index), f)
    };
    let (first, second) = (subscribe(0), subscribe(1));
    let far = hub.clone();
    std::thread::spawn(move || far.emit(Event::Resized))
        .join()
        .unwrap();
    assert!(
        seen.borrow().is_empty(),
        "listeners run on their own reactor"
    );
    world.run_until_idle();
    let mut got = seen.take();
    got.sort_by_key(|(index, _)| *index);
    assert_eq!(got, [(0, Event::Resized), (1, Event::Resized)]);
    // Told, but unsubscribed before the mail was read.
    hub.emit(Event::Gone);
    drop(first);
    world.run_until_idle();
    assert_eq!(seen.take(), [(1, Event::Gone)]);
    drop(second);
    hub.emit(Event::LimitsChanged);
    world.run_until_idle();
    assert!(seen.borrow().is_empty());
    assert_eq!(
        Rc::strong_count(&seen),
        1,
        "callbacks went with their subscriptions"
    );
}

#[test]
fn a_listener_may_own_subscriptions_and_end_its_own() {
    let sim = SimLoop::new(1);
    let (outer, inner) = (EventHub::default(), EventHub::default());
    let nested = inner.subscribe(sim.reactor(), Box::new(|_| {}));
    let hold = RefCell::new(Some(nested));
    let keep = outer.subscribe(
        sim.reactor(),
        Box::new(move |_| drop(hold.borrow_mut().take())),
    );
    drop(keep);
    // A listener that drops its own subscription while it is called.
    let slot = Rc::new(RefCell::new(None));
    let own = slot.clone();
    let subscription = outer.subscribe(
        sim.reactor(),
        Box::new(move |_| drop(own.borrow_mut().take())),
    );
    *slot.borrow_mut() = Some(subscription);
    outer.emit(Event::Resized);
    outer.emit(Event::Resized);
    sim.run_until_idle();
    assert!(slot.borrow().is_none());
    assert_eq!(sim.reactor().counters().panics.get(), 0);
}

#[test]
fn a_sleep_wakes_whoever_polled_it_last() {
    // Moved from the task that polled it first to another.
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let slot = Rc::new(RefCell::new(Some(Box::pin(
        r.sleep(Duration::from_millis(5)),
    ))));
    let from = slot.clone();
    sim.reactor().spawn(async move {
        let mut sleep = from.borrow_mut().take().unwrap();
        let first =
            std::future::poll_fn(|cx| std::task::Poll::Ready(sleep.as_mut().poll(cx))).await;
        assert!(first.is_pending());
        *from.borrow_mut() = Some(sleep);
    });
    sim.advance(Duration::from_millis(1));
    let sleep = slot.borrow_mut().take().unwrap();
    sim.block_on(sleep);
    assert!(sim.now() >= block::Tick(5_000_000));
}

/// A doorbell that asks for itself a few times more.
struct Bell(Reactor, RefCell<u32>, std::rc::Weak<Bell>);

impl block::Doorbell for Bell {
    fn ring(&self) {
        *self.1.borrow_mut() += 1;
        if *self.1.borrow() < 5 {
            self.0.at_end_of_turn(self.2.upgrade().unwrap());
        }
    }
}

#[test]
fn doorbells_ring_once_for_each_time_they_were_asked_for() {
    let sim = SimLoop::new(1);
    let bell = Rc::new_cyclic(|weak| Bell(sim.reactor().clone(), RefCell::new(0), weak.clone()));
    sim.reactor().at_end_of_turn(bell.clone());
    sim.run_until_idle();
    assert_eq!(*bell.1.borrow(), 5);
}

#[test]
fn mail_is_handled_in_order_and_in_bounded_batches() {
    let world = SimWorld::new(1, 1);
    let seen: Arc<std::sync::Mutex<Vec<u32>>> = Arc::default();
    for i in 0..3000 {
        let seen = seen.clone();
        assert!(
            world
                .reactor(0)
                .inbox()
                .run(move |_| seen.lock().unwrap().push(i))
        );
    }
    assert!(world.reactor(0).run_inbox(), "more is waiting");
    assert!(seen.lock().unwrap().len() < 3000);
    world.run_until_idle();
    assert_eq!(*seen.lock().unwrap(), (0..3000).collect::<Vec<_>>());
}
