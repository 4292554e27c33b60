//! Many commands at once, checked against a model.

mod common;

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    os::fd::AsFd,
    sync::{Arc, Mutex},
    thread,
};

use common::*;
use handle::*;

/// Size of the disk in bytes.
const DISK: usize = 1 << 20;

/// Numbers that look like chance (xorshift64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}

/// A disk that answers in any order, in any pieces, and breaks what it sends anywhere.
fn disk(peer: &mut Peer, seed: u64) -> io::Result<()> {
    peer.enter(DISK as u64, 0xfff & !2)?;
    let mut dice = Dice(seed);
    let mut data = vec![0u8; DISK];
    let mut answers: Vec<Vec<u8>> = Vec::new();
    let mut leaving = false;
    while !leaving || !answers.is_empty() {
        // Take in what is there, or answer.
        peer.0.set_nonblocking(true)?;
        let mut probe = [0];
        let more = !leaving
            && rustix::net::recv(&peer.0, &mut probe, rustix::net::RecvFlags::PEEK).is_ok();
        peer.0.set_nonblocking(false)?;
        if !leaving && (more || answers.is_empty()) {
            let asked = match peer.request() {
                Ok(asked) => asked,
                Err(_) => return Ok(()),
            };
            let start = asked.offset as usize;
            match asked.command {
                0 => answers.push(pieces(&mut dice, asked, &data)),
                1 => {
                    let payload = peer.payload(asked.length)?;
                    data[start..start + payload.len()].copy_from_slice(&payload);
                    answers.push(simple(0, asked.cookie));
                }
                2 => leaving = true,
                6 => {
                    data[start..start + asked.length as usize].fill(0);
                    answers.push(simple(0, asked.cookie));
                }
                _ => answers.push(simple(0, asked.cookie)),
            }
        } else {
            let answer = answers.swap_remove(dice.below(answers.len()));
            let mut rest = &answer[..];
            while !rest.is_empty() {
                let most = if dice.below(4) == 0 { 9 } else { rest.len() };
                let n = 1 + dice.below(most.min(rest.len()));
                peer.send(&rest[..n])?;
                rest = &rest[n..];
            }
        }
    }
    Ok(())
}

/// A read in chunks: some of data, some holes, in any order.
fn pieces(dice: &mut Dice, asked: Asked, data: &[u8]) -> Vec<u8> {
    let (start, length) = (asked.offset as usize, asked.length as usize);
    let mut cuts = vec![0, length];
    for _ in 0..dice.below(4) {
        cuts.push(dice.below(length));
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut ranges: Vec<(usize, usize)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
    let mut bytes = Vec::new();
    while !ranges.is_empty() {
        let (from, to) = ranges.swap_remove(dice.below(ranges.len()));
        let offset = (start + from) as u64;
        let part = &data[start + from..start + to];
        let last = u16::from(ranges.is_empty() && dice.below(2) == 0);
        let done = last == 1;
        if part.iter().all(|byte| *byte == 0) {
            let hole = [
                &offset.to_be_bytes()[..],
                &(part.len() as u32).to_be_bytes(),
            ]
            .concat();
            bytes.extend(chunk(last, 2, asked.cookie, &hole));
        } else {
            bytes.extend(data_chunk(last, asked.cookie, offset, part));
        }
        if ranges.is_empty() && !done {
            bytes.extend(chunk(1, 0, asked.cookie, &[]));
        }
    }
    bytes
}

/// Hands its memory over when the command is done.
struct Handover(Vec<u8>, Arc<Mutex<Option<Vec<u8>>>>);

impl ReadBuffer for Handover {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        *self.1.lock().unwrap() = Some(std::mem::take(&mut self.0));
    }
}

enum Flying {
    Read {
        expected: Vec<u8>,
        found: Arc<Mutex<Option<Vec<u8>>>>,
    },
    Write,
}

/// Blocks of 512 bytes, of which each is in at most one command.
const BLOCK: usize = 512;

fn run(seed: u64, commands: usize) {
    let handle = connected(move |peer| disk(peer, seed));
    let mut dice = Dice(seed ^ 0x9e37_79b9);
    let mut model = vec![0u8; DISK];
    let mut busy = vec![false; DISK / BLOCK];
    let mut flying: HashMap<u64, (usize, usize, Flying)> = HashMap::new();
    let mut submitted = 0;
    while submitted < commands || !flying.is_empty() {
        let first = dice.below(busy.len());
        let most = (busy.len() - first).min(if dice.below(8) == 0 { 400 } else { 16 });
        let count = 1 + dice.below(most);
        let free = !busy[first..first + count].iter().any(|busy| *busy);
        if submitted < commands && free && flying.len() < 64 {
            busy[first..first + count].fill(true);
            let (start, end) = (first * BLOCK, (first + count) * BLOCK);
            let offset = start as u64;
            let kind;
            let cookie = match dice.below(5) {
                0 | 1 => {
                    let found = Arc::new(Mutex::new(None));
                    let buffer = Handover(vec![9; end - start], found.clone());
                    let expected = model[start..end].to_vec();
                    kind = Flying::Read { expected, found };
                    handle.aio_pread(buffer, offset, None, 0)
                }
                2 | 3 => {
                    let value = dice.next() as u8;
                    model[start..end].fill(value);
                    kind = Flying::Write;
                    handle.aio_pwrite(vec![value; end - start], offset, None, 0)
                }
                _ => {
                    model[start..end].fill(0);
                    kind = Flying::Write;
                    handle.aio_zero((end - start) as u64, offset, None, 0)
                }
            };
            flying.insert(cookie.unwrap(), (first, count, kind));
            submitted += 1;
            continue;
        }
        handle.poll(-1).unwrap();
        while let Ok(cookie @ 1..) = handle.aio_peek_command_completed() {
            assert_eq!(handle.aio_command_completed(cookie), Ok(true));
            let (first, count, kind) = flying.remove(&cookie).expect("ours");
            busy[first..first + count].fill(false);
            if let Flying::Read { expected, found } = kind {
                let found = found.lock().unwrap().take().expect("handed over");
                assert!(
                    found == expected,
                    "seed {seed}: wrong bytes at block {first}"
                );
            }
        }
    }
    assert_eq!(handle.aio_in_flight(), Ok(0));
    handle.shutdown(0).unwrap();
}

#[test]
fn answers_in_any_order_and_any_pieces() {
    for seed in [1, 77, 0xdead_beef, 0x1234_5678_9abc] {
        run(seed, 1500);
    }
}

#[test]
fn threads_share_a_handle() {
    let handle = connected(|peer| disk(peer, 42));
    thread::scope(|scope| {
        for n in 0..8usize {
            let handle = &handle;
            scope.spawn(move || {
                // Each has a part of the disk to itself.
                let start = n * DISK / 8;
                let mut dice = Dice(n as u64 + 1);
                for round in 0..300usize {
                    let length = 1 + dice.below(40_000);
                    let value = (round * 8 + n) as u8;
                    let offset = (start + dice.below(DISK / 8 - length)) as u64;
                    handle.pwrite(vec![value; length], offset, 0).unwrap();
                    let read = handle.pread(vec![0; length], offset, 0).unwrap();
                    assert!(
                        read.iter().all(|byte| *byte == value),
                        "thread {n} round {round}"
                    );
                }
            });
        }
    });
    handle.shutdown(0).unwrap();
}

#[test]
fn one_thread_polls_and_others_submit() {
    let handle = connected(|peer| disk(peer, 5));
    let (wake, woken) = std::os::unix::net::UnixStream::pair().unwrap();
    thread::scope(|scope| {
        let handle = &handle;
        scope.spawn(move || {
            while handle.aio_is_ready() || handle.aio_is_processing() {
                // It ends with the connection.
                if handle.poll2(woken.as_fd(), -1).is_err() {
                    break;
                }
                woken.set_nonblocking(true).unwrap();
                let _ = (&woken).read(&mut [0; 64]);
            }
        });
        let writers = [0, 1, 2].map(|n: u64| {
            let mut wake = wake.try_clone().unwrap();
            scope.spawn(move || {
                for round in 0..200u64 {
                    let offset = n * 300_000 + round * 512;
                    let done = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
                    let told = done.clone();
                    let completion = move |error: &mut i32| {
                        assert_eq!(*error, 0);
                        *told.0.lock().unwrap() = true;
                        told.1.notify_all();
                        1
                    };
                    let data = vec![round as u8; 512];
                    handle
                        .aio_pwrite(data, offset, Some(Box::new(completion)), 0)
                        .unwrap();
                    wake.write_all(b"x").unwrap();
                    let is_done = done.0.lock().unwrap();
                    drop(done.1.wait_while(is_done, |done| !*done).unwrap());
                    // A call that waits, while another thread polls.
                    let read = handle.pread(vec![1; 512], offset, 0).unwrap();
                    assert_eq!(read, vec![round as u8; 512]);
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        // The poller ends with the connection.
        handle.shutdown(0).unwrap();
        // It may have ended already.
        let _ = (&wake).write_all(b"x");
    });
}
