//! The driver `io_uring` on files.

mod common;

use blkio::flags;
use common::*;
use std::{
    fs::File,
    io::Read,
    os::unix::fs::{FileExt, MetadataExt},
    time::{Duration, Instant},
};

/// Files of two kinds of file system: with a page cache, and in memory.
fn places() -> Vec<tempfile::NamedTempFile> {
    let mut places = vec![tempfile::NamedTempFile::new().unwrap()];
    match tempfile::NamedTempFile::new_in("/dev/shm") {
        Ok(file) => places.push(file),
        Err(_) => println!("SKIP: no tmpfs at /dev/shm"),
    }
    places
}

fn disk(file: &File, path: &std::path::Path, size: u64) -> blkio::Blkio {
    file.set_len(size).unwrap();
    started("io_uring", &[("path", path.to_str().unwrap())])
}

#[test]
fn what_is_written_is_read() {
    for file in places() {
        let mut disk = disk(file.as_file(), file.path(), 1 << 20);
        assert_eq!(disk.get_u64("capacity").unwrap(), 1 << 20);
        let queue = disk.queue(0).unwrap();
        let data = pattern(1, 64 << 10);
        let mut back = vec![0; 64 << 10];
        assert_eq!(write(queue, 4096, &data, 0), 0);
        assert_eq!(read(queue, 4096, &mut back), 0);
        assert_eq!(data, back);
        assert_eq!(write(queue, 0, &data, flags::FUA), 0);
        queue.flush(1, 0);
        assert_eq!(one(queue).ret(), 0);
        let mut bytes = vec![0; 64 << 10];
        file.as_file().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, data);
    }
}

#[test]
fn discard_makes_holes_in_regular_files() {
    for file in places() {
        let mut disk = disk(file.as_file(), file.path(), 1 << 20);
        let queue = disk.queue(0).unwrap();
        assert_eq!(write(queue, 0, &pattern(2, 1 << 20), flags::FUA), 0);
        let full = file.as_file().metadata().unwrap().blocks();
        queue.discard(0, 512 << 10, 5, 0);
        assert_eq!(one(queue).ret(), 0);
        let now = file.as_file().metadata().unwrap().blocks();
        assert!(now <= full - 1024, "{full} blocks before, {now} after");
        assert_eq!(file.as_file().metadata().unwrap().len(), 1 << 20);
    }
}

#[test]
fn write_zeroes_with_all_flags() {
    for file in places() {
        let mut disk = disk(file.as_file(), file.path(), 1 << 20);
        let in_memory = file.path().starts_with("/dev/shm");
        let queue = disk.queue(0).unwrap();
        for flags in 0..8 {
            assert_eq!(write(queue, 0, &pattern(3, 600 << 10), 0), 0);
            queue.write_zeroes(100, 599 << 10, 9, flags);
            let ret = one(queue).ret();
            // tmpfs can only make holes.
            if in_memory && flags & (flags::NO_UNMAP | flags::NO_FALLBACK) == 6 {
                assert_eq!(ret, -libc::EOPNOTSUPP);
                continue;
            }
            assert_eq!(ret, 0, "flags {flags}");
            let mut bytes = vec![1; 600 << 10];
            file.as_file().read_exact_at(&mut bytes, 0).unwrap();
            let mut expected = pattern(3, 600 << 10);
            expected[100..100 + (599 << 10)].fill(0);
            assert!(bytes == expected, "flags {flags}");
        }
    }
}

#[test]
fn reads_beyond_the_end_are_zeroes_and_writes_grow() {
    for file in places() {
        let mut disk = disk(file.as_file(), file.path(), 1000);
        assert!(disk.get_bool("can-grow").unwrap());
        let queue = disk.queue(0).unwrap();
        assert_eq!(write(queue, 0, &[7; 1000], 0), 0);
        let mut back = vec![9; 4096];
        assert_eq!(read(queue, 500, &mut back), 0);
        assert_eq!(back[..500], [7; 500]);
        assert!(back[500..].iter().all(|byte| *byte == 0));
        let mut parts = [[9u8; 300]; 4];
        let vector: Vec<_> = parts.iter_mut().map(|part| iovec(part)).collect();
        // SAFETY: both outlive the request.
        unsafe { queue.readv(400, vector.as_ptr(), 4, 3, 0) };
        assert_eq!(one(queue).ret(), 0);
        assert_eq!(parts, [[7; 300], [7; 300], [0; 300], [0; 300]]);
        assert_eq!(write(queue, 10_000, &[1; 10], 0), 0);
        assert_eq!(disk.get_u64("capacity").unwrap(), 10_010);
    }
}

#[test]
fn vectors_of_any_length() {
    for file in places() {
        let mut disk = disk(file.as_file(), file.path(), 4 << 20);
        let queue = disk.queue(0).unwrap();
        let data = pattern(4, 3000 * 700);
        let vector: Vec<_> = data.chunks(700).map(iovec_of).collect();
        // SAFETY: both outlive the request.
        unsafe { queue.writev(11, vector.as_ptr(), 3000, 3, 0) };
        assert_eq!(one(queue).ret(), 0);
        let mut back = vec![0; 3000 * 700];
        let vector: Vec<_> = back.chunks_mut(700).map(iovec).collect();
        // SAFETY: as above.
        unsafe { queue.readv(11, vector.as_ptr(), 3000, 3, 0) };
        assert_eq!(one(queue).ret(), 0);
        assert!(data == back);
    }
}

#[test]
fn many_more_requests_than_entries() {
    for file in places() {
        file.as_file().set_len(1 << 20).unwrap();
        let path = file.path().to_str().unwrap();
        let mut disk = created("io_uring", &[("path", path)]);
        disk.connect().unwrap();
        disk.set_str("num-entries", "4").unwrap();
        disk.start().unwrap();
        let queue = disk.queue(0).unwrap();
        for n in 0..1000 {
            queue.write_zeroes(n * 512, 512, n as usize, 0);
        }
        assert_eq!(queue.outstanding(), 1000);
        let mut seen = drain(queue, 1000);
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).map(|n| (n, 0)).collect::<Vec<_>>());
    }
}

#[test]
fn direct_io_reads_what_is_there() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(100_000).unwrap();
    let data = pattern(5, 100_000);
    file.as_file().write_all_at(&data, 0).unwrap();
    let path = file.path().to_str().unwrap();
    let mut disk = created("io_uring", &[("path", path), ("direct", "true")]);
    if let Err(error) = disk.connect() {
        println!("SKIP: no direct I/O in the temporary directory: {error}");
        return;
    }
    disk.start().unwrap();
    let alignment = disk.get_int("request-alignment").unwrap();
    assert!(alignment >= 512 && disk.get_int("buf-alignment").unwrap() >= 1);
    let region = disk.alloc_region(128 << 10).unwrap();
    let queue = disk.queue(0).unwrap();
    // The file's end is in the middle of a block.
    // SAFETY: the region lives until the disk is dropped.
    unsafe { queue.read(0, region.addr, region.len, 1, 0) };
    assert_eq!(one(queue).ret(), 0);
    // SAFETY: as above, and the request is over.
    let bytes = unsafe { std::slice::from_raw_parts(region.addr, region.len) };
    assert!(bytes[..100_000] == data[..]);
    assert!(bytes[100_000..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_disk_by_descriptor_is_owned_when_connected() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let fd = std::os::fd::IntoRawFd::into_raw_fd(File::open(file.path()).unwrap());
    let mut disk = created("io_uring", &[("fd", &fd.to_string())]);
    disk.connect().unwrap();
    assert!(disk.get_bool("read-only").unwrap(), "as it was opened");
    disk.start().unwrap();
    let queue = disk.queue(0).unwrap();
    assert_eq!(write(queue, 0, &[0; 512], 0), -libc::EBADF);
    queue.discard(0, 512, 1, 0);
    assert_eq!(one(queue).ret(), -libc::EBADF);
    queue.flush(1, 0);
    assert_eq!(one(queue).ret(), 0);
    drop(disk);
    let mut text = String::new();
    let gone =
        File::open(format!("/proc/self/fd/{fd}")).and_then(|mut f| f.read_to_string(&mut text));
    assert!(gone.is_err(), "closed with its disk");
}

#[test]
fn completion_events() {
    for file in places() {
        let mut disk = disk(file.as_file(), file.path(), 1 << 20);
        let queue = disk.queue(0).unwrap();
        assert!(!readable(queue.completion_fd(), 0));
        queue.set_completion_fd_enabled(true);
        let mut buffer = vec![0; 4096];
        for _ in 0..3 {
            // SAFETY: it outlives the request.
            unsafe { queue.read(0, buffer.as_mut_ptr(), buffer.len(), 8, 0) };
            assert_eq!(queue.do_io(&mut [], 0, None, None).unwrap(), 0);
            assert!(readable(queue.completion_fd(), 5000));
            clear(queue.completion_fd());
            assert_eq!(one_now(queue), Some((8, 0)));
        }
        // What is enabled late tells of what has come before.
        queue.set_completion_fd_enabled(false);
        queue.flush(9, 0);
        queue.do_io(&mut [], 0, None, None).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        queue.set_completion_fd_enabled(true);
        assert!(readable(queue.completion_fd(), 5000));
        clear(queue.completion_fd());
        assert_eq!(one_now(queue), Some((9, 0)));
    }
}

#[test]
fn waiting_ends() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut disk = disk(file.as_file(), file.path(), 1 << 20);
    let queue = disk.queue(0).unwrap();
    let mut room = [blkio::Completion::default(); 2];
    let error = queue.do_io(&mut room, 1, None, None).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    assert_eq!(
        error.message(),
        "min_completions is larger than total outstanding requests"
    );
    let error = queue.do_io(&mut room, 3, None, None).unwrap_err();
    assert_eq!(
        error.message(),
        "min_completions must be less than or equal to max_completions"
    );
    let mut left = Duration::from_secs(5);
    queue.flush(0, 0);
    assert_eq!(queue.do_io(&mut room, 1, Some(&mut left), None).unwrap(), 1);
    assert!(left > Duration::ZERO && left < Duration::from_secs(5));
}

#[test]
fn queues_are_handed_between_threads() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut disk = disk(file.as_file(), file.path(), 1 << 20);
    assert_eq!(disk.add_queue().unwrap(), 1);
    assert_eq!(disk.add_queue().unwrap(), 2);
    disk.remove_queue(1).unwrap();
    assert_eq!(
        disk.remove_queue(1).unwrap_err().message(),
        "no queue with index 1"
    );
    assert_eq!(disk.add_queue().unwrap(), 1, "the lowest free index");
    let queues: Vec<_> = (0..3).map(|n| disk.take_queue(n).unwrap()).collect();
    assert!(disk.queue(0).is_none());
    let mut queues: Vec<_> = queues
        .into_iter()
        .enumerate()
        .map(|(n, mut queue)| {
            std::thread::spawn(move || {
                let data = pattern(n as u64, 8192);
                assert_eq!(write(&mut queue, n as u64 * 8192, &data, 0), 0);
                queue
            })
        })
        .map(|thread| thread.join().unwrap())
        .collect();
    for n in 0..3 {
        let mut back = vec![0; 8192];
        assert_eq!(
            read(&mut queues[(n + 1) % 3], n as u64 * 8192, &mut back),
            0
        );
        assert_eq!(back, pattern(n as u64, 8192));
    }
    let begin = Instant::now();
    drop(queues);
    assert!(begin.elapsed() < Duration::from_secs(5));
}
