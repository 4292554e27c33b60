//! Many threads on one disk, watched by the model checker.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use blkit::{Buffer, Disk, Flags};
use block::{Errno, ExtentFlags, ExtentList, Op};
use testkit::{
    Model, Rng, Seeds,
    model::{Found, Token},
};

use crate::common::World;

/// Small, so that requests overlap.
const SIZE: u64 = 256 << 10;
const LONGEST: u64 = 20 << 10;

struct Checked(Mutex<Model>);

impl Checked {
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, token: Token, result: blkit::Result<()>, found: Found) {
        let outcome = result.map_err(|error| Errno::new(error.errno()));
        if let Err(violation) = self.lock().end(token, outcome, found) {
            panic!("{violation}");
        }
    }
}

/// A request of any kind, by blocking calls.
fn one(disk: &Disk, model: &Checked, rng: &mut Rng) {
    let offset = rng.below(SIZE);
    let len = 1 + rng.below((SIZE - offset).min(LONGEST));
    let begin = |op| model.lock().begin(op, offset, len, block::Flags::NONE);
    match rng.below(10) {
        0..4 => {
            let token = begin(Op::Read);
            let mut bytes = vec![0; len as usize];
            let result = disk.read_at(&mut bytes, offset);
            model.end(token, result, Found::Bytes(&bytes));
        }
        4..7 => {
            let mut bytes = vec![0; len as usize];
            let token = {
                let mut model = model.lock();
                let token = model.begin(Op::Write, offset, len, block::Flags::NONE);
                model.fill(token, offset, &mut bytes);
                token
            };
            model.end(token, disk.write_at(&bytes, offset), Found::Nothing);
        }
        7 => {
            let token = begin(Op::WriteZeroes);
            let result = disk.write_zeroes(offset, len, Flags::NONE);
            model.end(token, result, Found::Nothing);
        }
        8 => {
            let token = model.lock().begin(Op::Flush, 0, 0, block::Flags::NONE);
            model.end(token, disk.flush(), Found::Nothing);
        }
        _ => {
            let token = begin(Op::Extents);
            let mut list = ExtentList::new();
            let result = disk.extents(offset, len).map(|found| {
                for extent in found {
                    let flags = u64::from(extent.hole) | u64::from(extent.zero) << 1;
                    list.push(extent.len, ExtentFlags(flags));
                }
            });
            model.end(token, result, Found::Extents(&list));
        }
    }
}

/// Reads and writes by a queue.
fn queued(disk: &Disk, model: &Checked, rng: &mut Rng, requests: u64) {
    let mut queue = disk.queue(16);
    let mut tokens: Vec<Option<(Op, Token)>> = vec![None; requests as usize];
    let mut done = Vec::new();
    let mut next = 0;
    while next < requests || queue.in_flight() > 0 {
        while next < requests && queue.in_flight() < queue.depth() {
            let offset = rng.below(SIZE);
            let len = 1 + rng.below((SIZE - offset).min(LONGEST));
            let op = [Op::Read, Op::Write][rng.below(2) as usize];
            let mut buffer = Buffer::new(len as usize);
            let mut model = model.lock();
            let token = model.begin(op, offset, len, block::Flags::NONE);
            tokens[next as usize] = Some((op, token));
            let staged = match op {
                Op::Write => {
                    model.fill(token, offset, &mut buffer);
                    queue.write(next, buffer, offset, Flags::NONE)
                }
                _ => queue.read(next, buffer, offset),
            };
            staged.expect("there is room");
            next += 1;
        }
        queue.wait(1 + rng.below(8) as usize, &mut done);
        for completion in done.drain(..) {
            let (op, token) = tokens[completion.token as usize]
                .take()
                .expect("answered once");
            let found = match op {
                Op::Read => Found::Bytes(&completion.buffer),
                _ => Found::Nothing,
            };
            model.end(token, completion.result, found);
        }
    }
}

#[test]
fn many_threads_see_one_disk() {
    let world = World::new();
    for (name, builder) in world.builders() {
        Seeds::of("many_threads_see_one_disk", 2).run(|seed| {
            let disk = builder.clone().open().expect(name);
            disk.write_zeroes(0, SIZE, Flags::NONE).expect(name);
            threads(&disk, name, seed);
            disk.close().expect(name);
        });
    }
}

fn threads(disk: &Disk, name: &str, seed: u64) {
    const THREADS: u64 = 4;
    const REQUESTS: u64 = 300;
    let model = Checked(Mutex::new(Model::zeroed(SIZE)));
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (disk, model) = (disk.clone(), &model);
            scope.spawn(move || {
                let mut rng = Rng::new(seed.wrapping_mul(31).wrapping_add(i));
                match i {
                    0 => queued(&disk, model, &mut rng, REQUESTS),
                    _ => (0..REQUESTS).for_each(|_| one(&disk, model, &mut rng)),
                }
            });
        }
    });
    assert_eq!(model.lock().checked(), THREADS * REQUESTS, "{name}");
}
