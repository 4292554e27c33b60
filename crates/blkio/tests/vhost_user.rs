//! The driver `virtio-blk-vhost-user` with qemu-storage-daemon as server.

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use blkio::{Blkio, flags};
use common::*;

/// A server of a file, which is killed in the end.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(directory: &Path, options: &str) -> Option<Server> {
        let (file, socket) = (directory.join("disk"), directory.join("socket"));
        let _ = std::fs::remove_file(&socket);
        let export = format!(
            "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={}{options}",
            socket.display()
        );
        let node = format!(
            "driver=file,filename={},node-name=f,discard=unmap",
            file.display()
        );
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node, "--export", &export])
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("SKIP: qemu-storage-daemon is not here");
            return None;
        };
        let begin = Instant::now();
        while !testkit::listens(&socket) {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "the server listens"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Server { child, socket })
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn directory(size: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join("disk")).unwrap();
    file.set_len(size).unwrap();
    directory
}

fn connected(server: &Server, properties: &[(&str, &str)]) -> Blkio {
    let mut disk = created("virtio-blk-vhost-user", properties);
    disk.set_str("path", server.socket.to_str().unwrap())
        .unwrap();
    disk.connect().unwrap();
    disk
}

/// A started disk, and memory that it can use.
fn disk(server: &Server, properties: &[(&str, &str)]) -> (Blkio, &'static mut [u8]) {
    let mut disk = connected(server, properties);
    disk.start().unwrap();
    let region = disk.alloc_region(4 << 20).unwrap();
    disk.map_region(&region).unwrap();
    // SAFETY: it lives as long as the disk, which the tests keep until they have done with it.
    let memory = unsafe { std::slice::from_raw_parts_mut(region.addr, region.len) };
    (disk, memory)
}

#[test]
fn what_is_written_is_read() {
    let directory = directory(64 << 20);
    let Some(server) = Server::start(directory.path(), ",writable=on,num-queues=2") else {
        return;
    };
    let (mut disk, memory) = disk(&server, &[]);
    assert_eq!(disk.get_u64("capacity").unwrap(), 64 << 20);
    assert!(
        disk.get_bool("flush-needed").unwrap(),
        "whatever mode it claims"
    );
    let queue = disk.queue(0).unwrap();
    let (from, to) = memory.split_at_mut(2 << 20);
    from.copy_from_slice(&pattern(1, 2 << 20));
    for flags in [0, flags::FUA] {
        assert_eq!(write(queue, 4096, from, flags), 0);
        to.fill(0);
        assert_eq!(read(queue, 4096, to), 0);
        assert!(from == to);
    }
    queue.write_zeroes(0, 64 << 20, 1, 0);
    assert_eq!(
        one(queue).ret(),
        0,
        "split: the server takes 16 MiB at once"
    );
    assert_eq!(read(queue, 4096, to), 0);
    assert!(to.iter().all(|byte| *byte == 0));
    queue.flush(2, 0);
    assert_eq!(one(queue).ret(), 0);
    assert_eq!(read(queue, 1 << 40, to), -libc::EIO, "beyond the end");
    assert_eq!(read(queue, 0, to), 0, "and the queue goes on");
}

#[test]
fn impossible_requests_block_nothing() {
    let directory = directory(64 << 20);
    let Some(server) = Server::start(directory.path(), ",writable=on") else {
        return;
    };
    let (mut disk, memory) = disk(&server, &[]);
    let queue = disk.queue(0).unwrap();
    memory[..300 * 1024].copy_from_slice(&pattern(2, 300 * 1024));
    let vector: Vec<_> = memory[..300 * 1024].chunks(1024).map(iovec_of).collect();
    // SAFETY: both outlive the request.
    unsafe { queue.writev(512, vector.as_ptr(), 300, 1, 0) };
    assert_eq!(one(queue).ret(), 0);
    let (first, rest) = memory.split_at_mut(1 << 20);
    // Elements that are no whole blocks, so that chains end in the middle of some.
    let vector: Vec<_> = rest[..300 * 1024].chunks_mut(700).map(iovec).collect();
    // SAFETY: both outlive the request.
    unsafe { queue.readv(512, vector.as_ptr(), vector.len() as i32, 2, 0) };
    assert_eq!(one(queue).ret(), 0);
    assert!(first[..300 * 1024] == rest[..300 * 1024]);
    queue.discard(0, 4 << 40, 3, 0);
    let ended = one(queue);
    assert_eq!((ended.user_data(), ended.ret()), (3, -libc::EIO));
    let mut outside = vec![0; 4096];
    assert_eq!(read(queue, 0, &mut outside), -libc::EFAULT);
    assert_eq!(read(queue, 0, &mut first[..0]), 0);
    assert_eq!(read(queue, 1, &mut first[..511]), -libc::EINVAL);
    for n in 0..2000 {
        // SAFETY: the memory outlives the request.
        unsafe { queue.read(n * 512, first.as_mut_ptr(), 512, n as usize, 0) };
    }
    assert_eq!(
        drain(queue, 2000).len(),
        2000,
        "more than the ring has room for"
    );
}

#[test]
fn a_server_that_dies_fails_its_requests() {
    let directory = directory(16 << 20);
    for event in [false, true] {
        let options = ",writable=on,num-queues=2";
        let Some(mut server) = Server::start(directory.path(), options) else {
            return;
        };
        let mut disk = connected(&server, &[]);
        disk.set_str("num-poll-queues", "1").unwrap();
        disk.start().unwrap();
        let region = disk.alloc_region(1 << 20).unwrap();
        disk.map_region(&region).unwrap();
        for poll in [false, true] {
            let queue = if poll {
                disk.poll_queue(0)
            } else {
                disk.queue(0)
            };
            let queue = queue.unwrap();
            queue.set_completion_fd_enabled(event);
            if !poll {
                // SAFETY: stopped and not yet dead: what is asked now is never answered.
                unsafe { libc::kill(server.child.id() as i32, libc::SIGSTOP) };
                for n in 0..100 {
                    // SAFETY: the region lives as long as the disk.
                    unsafe { queue.read(0, region.addr, 4096, n, 0) };
                }
                queue.do_io(&mut [], 0, None, None).unwrap();
                server.kill();
                if event {
                    assert!(readable(queue.completion_fd(), 5000), "it is told");
                }
                let seen = drain(queue, 100);
                assert!(
                    seen.iter().all(|(_, ret)| *ret == -libc::ENOTCONN),
                    "{seen:?}"
                );
            }
            // SAFETY: as above.
            unsafe { queue.read(0, region.addr, 4096, 1, 0) };
            assert_eq!(one(queue).ret(), -libc::ENOTCONN);
        }
    }
}

#[test]
fn a_server_that_comes_back_gets_its_requests_again() {
    let directory = directory(16 << 20);
    let Some(mut server) = Server::start(directory.path(), ",writable=on") else {
        return;
    };
    let (mut disk, memory) = disk(&server, &[("reconnect", "30")]);
    let mut expected = vec![0u8; 16 << 20];
    for round in 0..20 {
        let queue = disk.queue(0).unwrap();
        memory[..1 << 20].copy_from_slice(&pattern(round, 1 << 20));
        for n in 0..200usize {
            let at = (n * 7919 + round as usize * 31) % 4096 * 4096;
            let from = n * 4096;
            expected[at..at + 4096].copy_from_slice(&memory[from..from + 4096]);
            // SAFETY: the memory lives as long as the disk, and is not changed until the end.
            unsafe { queue.write(at as u64, memory[from..].as_ptr(), 4096, n, 0) };
            if n == (round as usize * 37) % 200 {
                queue.do_io(&mut [], 0, None, None).unwrap();
                server.kill();
                server = Server::start(directory.path(), ",writable=on").unwrap();
            }
        }
        let mut seen = drain(queue, 200);
        seen.sort_unstable();
        assert_eq!(
            seen,
            (0..200).map(|n| (n, 0)).collect::<Vec<_>>(),
            "each once"
        );
    }
    let bytes = std::fs::read(directory.path().join("disk")).unwrap();
    assert!(bytes == expected, "what was answered is there");
}

#[test]
fn properties_before_and_after() {
    let mut disk = created("virtio-blk-vhost-user", &[]);
    let error = disk.set_str("fd", "5").unwrap_err();
    assert_eq!(
        (error.errno(), error.message()),
        (libc::ENOENT, "fd property not supported")
    );
    assert_eq!(disk.get_str("max-segments").unwrap(), "1");
    let directory = directory(1 << 20);
    let Some(server) = Server::start(directory.path(), "") else {
        return;
    };
    let mut disk = connected(&server, &[]);
    let error = disk.start().unwrap_err();
    assert_eq!(
        (error.errno(), error.message()),
        (libc::EROFS, "Device is read-only")
    );
    disk.set_str("num-queues", "9").unwrap();
    let error = disk.start().unwrap_err();
    assert_eq!(
        error.message(),
        "num_queues + num_poll_queues must not be greater than 1"
    );
}
