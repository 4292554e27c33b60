//! Files that somebody else makes longer or shorter while they are served.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use block::Event;
use reactor::Loop;

use super::*;
use crate::testing::context;

/// A device on a loop, and how often it was said to have another size.
struct Watched {
    run: Loop,
    device: Arc<dyn Device>,
    told: Rc<Cell<usize>>,
    _events: block::Subscription,
}

impl Watched {
    fn new(path: &Path, driver: DriverKind, words: &[&str]) -> Option<Watched> {
        let mut run = start(driver)?;
        let cx = context(&run, "", Access::ReadWrite);
        let device = run.block_on(source(path, words).open(&cx));
        let device = match device {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                eprintln!("SKIP: {}", error.chain());
                return None;
            }
            device => device.unwrap(),
        };
        let told = Rc::new(Cell::new(0));
        let count = told.clone();
        let f = move |event| {
            assert_eq!(event, Event::Resized);
            count.set(count.get() + 1);
        };
        Some(Watched {
            _events: device.subscribe(run.reactor(), Box::new(f)),
            run,
            device,
            told,
        })
    }

    fn turn(&mut self, time: Duration) {
        let reactor = self.run.reactor().clone();
        self.run.block_on(reactor.sleep(time));
    }

    fn wait_for(&mut self, size: u64) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.device.limits().size != size {
            assert!(Instant::now() < end, "{size} is not seen");
            self.turn(Duration::from_millis(5));
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Option<Errno> {
        let reactor = self.run.reactor().clone();
        let queue = self.device.open_queue(&reactor).unwrap();
        let mut req = reactor.request(Op::Write, offset, bytes.len() as u64);
        let chunk = block::Iov::of_chunk(reactor.chunk(bytes.len()), bytes.len());
        chunk.write(0, bytes);
        *req.data_mut() = Data::from(chunk);
        let done = self.run.block_on(queue.call(req));
        done.error().map(block::IoError::errno)
    }
}

fn set_len(path: &Path, len: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

#[test]
fn another_length_is_seen_and_used() {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        for words in [&[][..], &["direct=true"]] {
            let (_dir, path) = file_of(&[1; 8192]);
            let Some(mut watched) = Watched::new(&path, driver, words) else {
                continue;
            };
            assert_eq!(watched.write(8192, &[2; 4096]), Some(Errno::ENOSPC));
            set_len(&path, 16384);
            watched.wait_for(16384);
            assert_eq!(watched.write(8192, &[2; 4096]), None);
            assert_eq!(fs::read(&path).unwrap()[8192..12288], [2; 4096]);
            set_len(&path, 4096);
            watched.wait_for(4096);
            assert_eq!(watched.write(4096, &[2; 4096]), Some(Errno::ENOSPC));
            assert_eq!(path.metadata().unwrap().len(), 4096, "it does not grow");
            // News travel by the loop's inbox.
            watched.turn(Duration::from_millis(20));
            assert_eq!(watched.told.get(), 2);
            drop(watched);
        }
    }
}

#[test]
fn what_is_written_is_no_news() {
    let (_dir, path) = file_of(&[1; 8192]);
    let Some(mut watched) = Watched::new(&path, DriverKind::Auto, &[]) else {
        return;
    };
    for _ in 0..10 {
        assert_eq!(watched.write(0, &[2; 4096]), None);
        watched.turn(Duration::from_millis(2));
    }
    assert_eq!(watched.told.get(), 0);
}

#[test]
fn a_client_that_comes_later_sees_the_length_of_now() {
    let (_dir, path) = file_of(&[1; 8192]);
    let source = source(&path, &[]);
    let first = Bench::open(source.clone());
    set_len(&path, 4096);
    let second = Bench::open(source);
    assert_eq!(second.limits().size, 4096);
    assert_eq!(first.limits().size, 4096, "they share it");
}

#[test]
fn a_file_is_closed_with_its_last_client() {
    let (_dir, path) = file_of(&[1; 8192]);
    for _ in 0..20 {
        let watched = Watched::new(&path, DriverKind::Poll, &["lock=exclusive"]);
        let mut watched = watched.expect("a file can be locked at once");
        watched.turn(Duration::from_millis(1));
    }
}
