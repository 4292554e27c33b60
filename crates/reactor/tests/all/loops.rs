//! Loops: turns, timers, waking, pools, moving, closing.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, AsRawFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::common::{assert_clean, batch_of, make, recv_buf, unix_pair};
use crate::on_both;
use block::{Data, Doorbell, Op, Tick};
use reactor::{
    DriverKind, FileOptions, FileVerb, Io, Island, Loop, Options, Pools, Reactors, RingMode, Wait,
};

on_both! {
    timers_in_order
    turn_until_a_moment
    mail_wakes
    a_flood_of_mail_is_handled
    jobs_come_back
    a_waker_from_another_thread
    a_panicking_task_harms_nobody
    a_panicking_job_is_told
    doorbells_ring_at_the_end
    idle_costs_nothing
    slow_turns_are_counted
    a_future_that_never_waits_sees_the_time
    close_with_everything_outstanding
    close_waits_for_jobs_of_requests
    remotes_come_home
}

fn timers_in_order(mut made: Loop) {
    let reactor = made.reactor().clone();
    let order = Rc::new(RefCell::new(Vec::new()));
    for ms in [30, 10, 20, 10, 0] {
        let (handle, order) = (reactor.clone(), order.clone());
        reactor.spawn(async move {
            handle.sleep(Duration::from_millis(ms)).await;
            order.borrow_mut().push(ms);
        });
    }
    let begin = Instant::now();
    made.block_on(async { reactor.sleep(Duration::from_millis(40)).await });
    assert!(begin.elapsed() >= Duration::from_millis(40));
    assert_eq!(*order.borrow(), [0, 10, 10, 20, 30]);
}

fn turn_until_a_moment(mut made: Loop) {
    let at = made.reactor().now().after(Duration::from_millis(20));
    let begin = Instant::now();
    while made.reactor().now() < at {
        made.turn(Wait::Until(at));
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(19), "{took:?}");
    assert!(made.stats().turns < 20, "it waited, it did not spin");
    let begin = Instant::now();
    for _ in 0..100 {
        made.turn(Wait::Poll);
    }
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(Tick(0) < at);
}

fn mail_wakes(mut made: Loop) {
    let inbox = made.reactor().inbox().clone();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let test = std::thread::spawn(move || {
        for _ in 0..200 {
            let count = count.clone();
            assert!(inbox.run(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            }));
            if inbox.has_mail() {
                std::thread::yield_now();
            }
        }
    });
    let begin = Instant::now();
    while seen.load(Ordering::Relaxed) < 200 {
        made.turn(Wait::Forever);
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    test.join().unwrap();
}

/// Every post arrives although the loop goes to sleep all the time.
fn a_flood_of_mail_is_handled(mut made: Loop) {
    let (tell, told) = mpsc::channel();
    let inbox = made.reactor().inbox().clone();
    let test = std::thread::spawn(move || {
        for i in 0..5000 {
            let tell = tell.clone();
            assert!(inbox.run(move |_| tell.send(i).unwrap()));
            // Waits for the answer, so that the loop sleeps before the next one.
            if i % 2 == 0 {
                let got: i32 = told.recv_timeout(Duration::from_secs(20)).unwrap();
                assert!(got <= i);
            }
        }
        inbox.run(|_| ());
    });
    while !test.is_finished() {
        let soon = made.reactor().now().after(Duration::from_millis(200));
        made.turn(Wait::Until(soon));
    }
    test.join().unwrap();
}

fn jobs_come_back(mut made: Loop) {
    let reactor = made.reactor().clone();
    made.block_on(async {
        let names: Vec<_> = (0..40)
            .map(|i| {
                let name = || std::thread::current().name().map(str::to_string);
                (i, reactor.blocking(move || (i, name())), reactor.cpu(name))
            })
            .collect();
        for (i, blocking, cpu) in names {
            let (number, name) = blocking.await.unwrap();
            assert_eq!(number, i);
            assert!(name.unwrap().starts_with("blkit-block-"));
            assert!(cpu.await.unwrap().unwrap().starts_with("blkit-cpu-"));
        }
    });
}

fn a_waker_from_another_thread(mut made: Loop) {
    let mut left = 200;
    made.block_on(std::future::poll_fn(|cx| {
        left -= 1;
        if left == 0 {
            return std::task::Poll::Ready(());
        }
        let waker = cx.waker().clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(100));
            waker.wake();
        });
        std::task::Poll::Pending
    }));
}

fn a_panicking_task_harms_nobody(mut made: Loop) {
    let reactor = made.reactor().clone();
    let ran = Rc::new(Cell::new(0));
    for i in 0..3 {
        let ran = ran.clone();
        reactor.spawn(async move {
            assert!(i != 1, "one task panics on purpose");
            ran.set(ran.get() + 1);
        });
    }
    assert!(reactor.inbox().run(|_| panic!("mail panics on purpose")));
    let counted = || (ran.get(), reactor.counters().panics.get());
    made.block_on(async {
        while counted() != (2, 2) {
            reactor.sleep(Duration::from_millis(1)).await;
        }
    });
    // The loop still turns.
    made.block_on(reactor.sleep(Duration::from_millis(1)));
    assert_eq!(counted(), (2, 2));
}

fn a_panicking_job_is_told(mut made: Loop) {
    let reactor = made.reactor().clone();
    let result = made.block_on(reactor.blocking(|| panic!("a job panics on purpose")));
    let _: block::reactor::JobPanicked = result.map(|(): ()| ()).unwrap_err();
    assert_eq!(made.block_on(reactor.cpu(|| 5)).unwrap(), 5);
}

struct Bell(RefCell<Vec<usize>>, Rc<Cell<usize>>);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.borrow_mut().push(self.1.get());
    }
}

fn doorbells_ring_at_the_end(mut made: Loop) {
    let reactor = made.reactor().clone();
    let done = Rc::new(Cell::new(0));
    let bell = Rc::new(Bell(RefCell::default(), done.clone()));
    for _ in 0..5 {
        let (done, bell, handle) = (done.clone(), bell.clone(), reactor.clone());
        reactor.spawn(async move {
            if done.get() == 0 {
                handle.at_end_of_turn(bell);
            }
            done.set(done.get() + 1);
        });
    }
    made.turn(Wait::Poll);
    assert_eq!(*bell.0.borrow(), [5], "once, after all that was ready");
}

fn idle_costs_nothing(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, _near) = unix_pair(&reactor);
    let handle = reactor.clone();
    reactor.spawn(async move {
        let buf = recv_buf(&handle, 4096);
        stream.recv(buf).await.1.unwrap();
    });
    let sleeps = || -> i64 {
        // SAFETY: an all-zero rusage is valid, and the call fills it.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
            usage
        };
        usage.ru_nvcsw
    };
    made.turn(Wait::Poll);
    // Counted, for on a busy virtual machine even a sleeper seems to use its CPU: a loop that spins
    // never gives the CPU away, and one that looks again and again does so often.
    let (turns, began) = (made.stats().turns, sleeps());
    made.block_on(async { reactor.sleep(Duration::from_millis(300)).await });
    let (turns, sleeps) = (made.stats().turns - turns, sleeps() - began);
    assert!(turns < 10, "{:?}", made.stats());
    assert!(
        (1..20).contains(&sleeps),
        "the thread gave the CPU away {sleeps} times"
    );
}

/// poll(2) on the loop's descriptor tells of everything a turn would find.
#[test]
fn a_foreign_program_drives_it() {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        if let Some(made) = make(driver, RingMode::Foreign) {
            drive(made);
        }
    }
}

#[test]
fn an_owned_ring_has_no_descriptor_to_watch() {
    if let Some(made) = make(DriverKind::Uring, RingMode::Owned) {
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            made.fd();
        }));
        assert!(refused.is_err());
    }
}

fn drive(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (stream, mut near) = unix_pair(&reactor);
    let got = Rc::new(RefCell::new(Vec::new()));
    let (handle, seen, ours) = (reactor.clone(), got.clone(), stream.clone());
    reactor.spawn(async move {
        let mut buf = recv_buf(&handle, 4096);
        for _ in 0..3 {
            let (back, result) = ours.recv(buf).await;
            buf = back;
            let n = result.unwrap();
            seen.borrow_mut()
                .extend_from_slice(buf.take(n).to_vec().as_slice());
            ours.send(batch_of(b"ok")).await.1.unwrap();
        }
        handle.sleep(Duration::from_millis(10)).await;
        seen.borrow_mut().push(b'!');
        handle.blocking(|| ()).await.unwrap();
        seen.borrow_mut().push(b'?');
    });
    let fd = made.fd().as_fd().as_raw_fd();
    let test = std::thread::spawn(move || {
        use std::io::{Read, Write};
        for byte in b"abc" {
            std::thread::sleep(Duration::from_millis(5));
            near.write_all(&[*byte]).unwrap();
            near.read_exact(&mut [0; 2]).unwrap();
        }
    });
    made.turn(Wait::Poll);
    let begin = Instant::now();
    let mut waits = 0;
    while !got.borrow().ends_with(b"?") {
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        let n = unsafe { libc::poll(&mut poll, 1, 10_000) };
        assert_eq!(n, 1, "the descriptor was silent: {:?}", got.borrow());
        made.turn(Wait::Poll);
        waits += 1;
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    test.join().unwrap();
    assert_eq!(*got.borrow(), b"abc!?");
    assert!(
        waits < 200,
        "{waits} waits: the descriptor is readable for nothing"
    );
}

fn slow_turns_are_counted(mut made: Loop) {
    let reactor = made.reactor().clone();
    reactor.spawn(async { std::thread::sleep(Duration::from_millis(130)) });
    made.block_on(reactor.sleep(Duration::from_millis(1)));
    // On a busy machine others may have been slow too.
    assert!(made.stats().slow_turns >= 1);
}

fn a_future_that_never_waits_sees_the_time(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (rung, root) = (
        Rc::new(Cell::new(false)),
        Rc::new(RefCell::new(None::<Waker>)),
    );
    let (handle, seen) = (reactor.clone(), rung.clone());
    reactor.spawn(async move {
        handle.sleep(Duration::from_millis(5)).await;
        seen.set(true);
    });
    // It wakes the other at every turn, and is woken by it.
    let (waker, seen) = (root.clone(), rung.clone());
    reactor.spawn(std::future::poll_fn(move |cx| {
        if let Some(root) = waker.borrow_mut().take() {
            root.wake();
        }
        cx.waker().wake_by_ref();
        if seen.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    let begin = Instant::now();
    made.block_on(std::future::poll_fn(|cx| {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "no timer went off"
        );
        *root.borrow_mut() = Some(cx.waker().clone());
        if rung.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    // One that wakes itself.
    let mut sleep = std::pin::pin!(reactor.sleep(Duration::from_millis(5)));
    made.block_on(std::future::poll_fn(|cx| {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "no timer went off"
        );
        cx.waker().wake_by_ref();
        sleep.as_mut().poll(cx)
    }));
}

fn close_with_everything_outstanding(made: Loop) {
    let reactor = made.reactor().clone();
    let inbox = reactor.inbox().clone();
    let (stream, near) = unix_pair(&reactor);
    let dropped = Rc::new(());
    let (handle, ours, held) = (reactor.clone(), stream.clone(), dropped.clone());
    reactor.spawn(async move {
        let buf = recv_buf(&handle, 4096);
        ours.recv(buf).await.1.unwrap();
        drop(held);
    });
    let (handle, held) = (reactor.clone(), dropped.clone());
    reactor.spawn(async move {
        handle.sleep(Duration::from_secs(3600)).await;
        drop(held);
    });
    let mut made = made;
    made.turn(Wait::Poll);
    let begin = Instant::now();
    let stats = made.close(Duration::from_millis(50));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(stats.leaked, 0, "a receive is cancelled");
    assert_eq!(Rc::strong_count(&dropped), 1, "tasks are dropped");
    assert!(!inbox.run(|_| ()), "mail is refused");
    assert_eq!(reactor.chunks().live(), 0);
    drop((stream, near));
}

fn close_waits_for_jobs_of_requests(made: Loop) {
    let reactor = made.reactor().clone();
    let mut req = reactor.request(Op::Read, 0, 3);
    *req.data_mut() = Data::Wanted;
    let outcome = Rc::new(RefCell::new(None));
    let seen = outcome.clone();
    req.on_complete(move |done| {
        let mut bytes = [0; 3];
        done.data().read(&mut bytes);
        *seen.borrow_mut() = Some(bytes);
    });
    let mut remote = req.into_remote(reactor.inbox());
    reactor.offload(block::Pool::Blocking, move || {
        std::thread::sleep(Duration::from_millis(30));
        remote.give(b"abc".to_vec());
        remote.complete(Ok(()));
    });
    made.close(Duration::from_secs(10));
    assert_eq!(*outcome.borrow(), Some(*b"abc"));
    assert_eq!(reactor.requests_live(), 0);
}

fn remotes_come_home(mut made: Loop) {
    let reactor = made.reactor().clone();
    let done = Rc::new(Cell::new(0));
    for i in 0..100u64 {
        let mut req = reactor.request(Op::Read, i, 8);
        *req.data_mut() = Data::Wanted;
        let count = done.clone();
        req.on_complete(move |req| {
            let mut bytes = [0; 8];
            req.data().read(&mut bytes);
            assert_eq!(u64::from_ne_bytes(bytes), i);
            count.set(count.get() + 1);
        });
        let mut remote = req.into_remote(reactor.inbox());
        reactor.offload(block::Pool::Blocking, move || {
            remote.give(remote.offset().to_ne_bytes().to_vec());
            remote.complete(Ok(()));
        });
    }
    while done.get() < 100 {
        made.turn(Wait::Forever);
    }
    assert_clean(&made);
}

/// A loop, its stream and a task on it go from thread to thread.
#[test]
fn an_island_moves() {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        let Some(mut made) = make(driver, RingMode::Foreign) else {
            continue;
        };
        let reactor = made.reactor().clone();
        let (stream, mut near) = unix_pair(&reactor);
        made.turn(Wait::Poll);
        // SAFETY: the reactor handle and the stream go along, and nothing else is left here.
        let mut island = unsafe { Island::new(made, (reactor, stream)) };
        for round in 0..5u8 {
            island = std::thread::spawn(move || {
                let (mut made, (reactor, stream)) = island.into_parts();
                made.block_on(async {
                    let buf = recv_buf(&reactor, 4096);
                    stream.send(batch_of(&[round])).await.1.unwrap();
                    stream.flush().await.unwrap();
                    drop(buf);
                });
                // SAFETY: as above.
                unsafe { Island::new(made, (reactor, stream)) }
            })
            .join()
            .unwrap();
            let mut got = [0];
            std::io::Read::read_exact(&mut near, &mut got).unwrap();
            assert_eq!(got, [round]);
        }
        let (made, (reactor, stream)) = island.into_parts();
        drop(stream);
        assert_eq!(made.close(Duration::from_secs(1)).leaked, 0);
        drop(reactor);
    }
}

#[test]
#[should_panic(expected = "cannot move")]
fn an_owned_ring_does_not_move() {
    let made = make(DriverKind::Poll, RingMode::Owned).unwrap();
    // SAFETY: it panics.
    let _ = unsafe { Island::new(made, ()) };
}

#[test]
fn reactors_on_threads() {
    for driver in [DriverKind::Auto, DriverKind::Poll] {
        let options = Options {
            driver,
            pools: Pools::new(2, 2),
            ..Options::default()
        };
        let main = Loop::new(Options {
            index: 0,
            ..options.clone()
        })
        .unwrap();
        let reactors = Reactors::start_beside(Some(&main), 3, options).unwrap();
        assert_eq!(reactors.len(), 4);
        let (tell, told) = mpsc::channel();
        for i in 1..4 {
            let tell = tell.clone();
            assert!(reactors.run_on(i, move |reactor| {
                let handle = reactor.clone();
                reactor.spawn(async move {
                    handle.sleep(Duration::from_millis(1)).await;
                    let name = std::thread::current().name().unwrap().to_string();
                    tell.send((handle.index(), name)).unwrap();
                });
            }));
        }
        let mut seen: Vec<_> = (0..3)
            .map(|_| told.recv_timeout(Duration::from_secs(20)).unwrap())
            .collect();
        seen.sort();
        let expected = [1, 2, 3].map(|i| (i, format!("blkit-r-{i}")));
        assert_eq!(seen, expected);
        let stats = reactors.stop(Duration::from_secs(1));
        assert_eq!(stats.len(), 3);
        assert!(
            stats
                .iter()
                .all(|stats| stats.turns > 0 && stats.leaked == 0)
        );
        drop(main);
    }
}

#[test]
fn drivers_have_names() {
    assert_eq!("auto".parse::<DriverKind>().unwrap(), DriverKind::Auto);
    assert_eq!("uring".parse::<DriverKind>().unwrap(), DriverKind::Uring);
    assert_eq!("poll".parse::<DriverKind>().unwrap(), DriverKind::Poll);
    assert!(
        "epoll"
            .parse::<DriverKind>()
            .unwrap_err()
            .hint_text()
            .unwrap()
            .contains("poll")
    );
}

/// A file operation that the pool is at when the loop goes: its memory outlives the loop.
#[test]
fn what_cannot_be_cancelled_is_leaked_and_counted() {
    let made = make(DriverKind::Poll, RingMode::Owned).unwrap();
    let reactor = made.reactor().clone();
    // All threads of the pool are busy, so the read cannot even begin.
    let gate = Arc::new(std::sync::Barrier::new(5));
    for _ in 0..4 {
        let gate = gate.clone();
        reactor.offload(block::Pool::Blocking, move || {
            gate.wait();
        });
    }
    let file = Arc::new(tempfile::tempfile().unwrap());
    let io_file = Io::of(&reactor).file(file, FileOptions::default());
    let mut req = reactor.request(Op::Read, 0, 512);
    *req.data_mut() = Data::Wanted;
    io_file.submit(FileVerb::Read, 0, req);
    let stats = made.close(Duration::from_millis(20));
    assert_eq!(stats.leaked, 1);
    assert_eq!(reactor.requests_live(), 1, "its memory is still there");
    gate.wait();
    std::thread::sleep(Duration::from_millis(50));
}
