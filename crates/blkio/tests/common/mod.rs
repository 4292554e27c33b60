//! Small words for tests of all drivers.
#![allow(dead_code, reason = "not each test file uses all")]

use std::{os::fd::RawFd, time::Duration};

use blkio::{Blkio, Completion, Queue};

/// A disk with these properties.
pub fn created(driver: &str, properties: &[(&str, &str)]) -> Blkio {
    let mut disk = Blkio::new(driver).unwrap();
    for (name, value) in properties {
        disk.set_str(name, value).unwrap();
    }
    disk
}

/// A disk with these properties, connected and started.
pub fn started(driver: &str, properties: &[(&str, &str)]) -> Blkio {
    let mut disk = created(driver, properties);
    disk.connect().unwrap();
    disk.start().unwrap();
    disk
}

/// Bytes that are different for each seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Waits for the next completion, ten seconds at most.
pub fn one(queue: &mut Queue) -> Completion {
    let mut room = [Completion::default()];
    let mut left = Duration::from_secs(10);
    assert_eq!(queue.do_io(&mut room, 1, Some(&mut left), None).unwrap(), 1);
    room[0]
}

/// The completion that is there, if there is one.
pub fn one_now(queue: &mut Queue) -> Option<(usize, i32)> {
    let mut room = [Completion::default()];
    let count = queue.do_io(&mut room, 0, None, None).unwrap();
    (count == 1).then(|| (room[0].user_data(), room[0].ret()))
}

/// So many completions.
pub fn drain(queue: &mut Queue, count: usize) -> Vec<(usize, i32)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let completion = one(queue);
        seen.push((completion.user_data(), completion.ret()));
    }
    seen
}

pub fn read(queue: &mut Queue, start: u64, into: &mut [u8]) -> i32 {
    // SAFETY: the buffer is not used until the completion has come.
    unsafe { queue.read(start, into.as_mut_ptr(), into.len(), 1, 0) };
    one(queue).ret()
}

pub fn write(queue: &mut Queue, start: u64, from: &[u8], flags: u32) -> i32 {
    // SAFETY: the buffer is not changed until the completion has come.
    unsafe { queue.write(start, from.as_ptr(), from.len(), 1, flags) };
    one(queue).ret()
}

pub fn iovec(part: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: part.as_mut_ptr().cast(),
        iov_len: part.len(),
    }
}

pub fn iovec_of(part: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    }
}

/// Whether a descriptor is readable within so many milliseconds.
pub fn readable(fd: RawFd, milliseconds: i32) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&mut poll, 1, milliseconds) == 1 }
}

/// Reads the eight bytes.
pub fn clear(fd: RawFd) {
    let mut bytes = [0u8; 8];
    // SAFETY: eight bytes of ours.
    let count = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), 8) };
    assert_eq!(count, 8);
}
