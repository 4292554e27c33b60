//! Files: requests read and write what they should, to the last byte and beyond, on both drivers.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    rc::Rc,
    sync::Arc,
};

use crate::common::{Random, assert_clean};
use crate::on_both;
use block::{
    Completed, Data, Errno, Iov, Op, Queue, QueueExt, Reactor, Request, Segment, data::KernelBuf,
};
use reactor::{FileOptions, FileVerb, Io, IoFile, Loop, Mapping};

on_both! {
    read_back_what_was_written
    end_of_file_reads_as_zeroes
    many_at_once
    errors_arrive
    fallocate_punches_and_zeroes
    direct
    vectored_beyond_one_call
    registered_memory
    empty_requests
    a_pipe_is_no_disk
    mapping
}

/// A file as a queue: the verb is fixed by the operation, FUA is dsync.
struct FileQueue(Rc<IoFile>);

impl Queue for FileQueue {
    fn submit(&self, req: Request) {
        let verb = match req.op() {
            Op::Read => FileVerb::Read,
            Op::Write => FileVerb::Write {
                dsync: req.flags() == block::Flags::FUA,
            },
            Op::Flush => FileVerb::DataSync,
            Op::Discard => FileVerb::Fallocate {
                mode: libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            },
            _ => FileVerb::Fallocate { mode: 0 },
        };
        let at = req.offset();
        self.0.submit(verb, at, req);
    }
}

const KINDS: [FileOptions; 4] = [
    FileOptions {
        registered: false,
        inline: false,
        direct: false,
    },
    FileOptions {
        registered: true,
        inline: false,
        direct: false,
    },
    FileOptions {
        registered: false,
        inline: true,
        direct: false,
    },
    FileOptions {
        registered: true,
        inline: true,
        direct: false,
    },
];

fn scratch() -> Arc<File> {
    // Beside the target folder, not on tmpfs: both kinds of filesystem are met elsewhere.
    Arc::new(tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
}

fn queue(reactor: &Reactor, file: &Arc<File>, options: FileOptions) -> FileQueue {
    FileQueue(Io::of(reactor).file(file.clone(), options))
}

fn write(reactor: &Reactor, at: u64, bytes: &[u8]) -> Request {
    let mut req = reactor.request(Op::Write, at, bytes.len() as u64);
    let iov = Iov::of_chunk(reactor.chunk(bytes.len()), bytes.len());
    iov.write(0, bytes);
    *req.data_mut() = iov.into();
    req
}

/// A read into memory of the caller, in two segments, or of the callee.
fn read(reactor: &Reactor, at: u64, len: usize, wanted: bool) -> Request {
    let mut req = reactor.request(Op::Read, at, len as u64);
    *req.data_mut() = if wanted {
        Data::Wanted
    } else {
        let chunk = reactor.chunk(len);
        let (base, half) = (chunk.as_ptr(), len / 3);
        // SAFETY: two disjoint ranges of one chunk, which the pin keeps.
        let iov = unsafe {
            let parts = [
                Segment {
                    ptr: base.add(len - half),
                    len: half,
                },
                Segment {
                    ptr: base,
                    len: len - half,
                },
            ];
            Iov::from_raw(parts, block::Pin::Chunk(chunk), None)
        };
        iov.write(0, &vec![0xee; len]);
        iov.into()
    };
    req
}

fn bytes_of(done: &Completed) -> Vec<u8> {
    assert!(done.error().is_none(), "{:?}", done.error());
    let mut bytes = vec![0; done.len() as usize];
    done.data().read(&mut bytes);
    bytes
}

fn read_back_what_was_written(mut made: Loop) {
    let reactor = made.reactor().clone();
    for options in KINDS {
        let file = scratch();
        let queue = queue(&reactor, &file, options);
        let mut random = Random(1);
        let mut model = vec![0; 300_000];
        made.block_on(async {
            for i in 0..60 {
                let at = random.below(200_000) as usize;
                let n = 1 + random.below(90_000) as usize;
                let bytes = random.bytes(n);
                model[at..at + n].copy_from_slice(&bytes);
                let mut req = write(&reactor, at as u64, &bytes);
                if i % 4 == 0 {
                    req.set_flags(block::Flags::FUA);
                }
                assert!(queue.call(req).await.error().is_none());
                let at = random.below(200_000);
                let n = 1 + random.below(90_000) as usize;
                let done = queue.call(read(&reactor, at, n, i % 2 == 0)).await;
                assert!(
                    bytes_of(&done) == model[at as usize..at as usize + n],
                    "{options:?} {i}"
                );
            }
            let flush = reactor.request(Op::Flush, 0, 0);
            assert!(queue.call(flush).await.error().is_none());
        });
        let mut all = Vec::new();
        let mut again = &*file;
        std::io::Seek::rewind(&mut again).unwrap();
        again.read_to_end(&mut all).unwrap();
        assert!(model.starts_with(&all));
        drop(queue);
        assert_clean(&made);
        assert_eq!(Arc::strong_count(&file), 1);
    }
}

fn end_of_file_reads_as_zeroes(mut made: Loop) {
    let reactor = made.reactor().clone();
    for options in KINDS {
        let file = scratch();
        file.write_all_at(&[7; 1000], 0).unwrap();
        let queue = queue(&reactor, &file, options);
        for wanted in [false, true] {
            made.block_on(async {
                let bytes = bytes_of(&queue.call(read(&reactor, 900, 300, wanted)).await);
                assert_eq!(bytes[..100], [7; 100]);
                assert_eq!(bytes[100..], [0; 200]);
                let done = queue.call(read(&reactor, 5000, 300, wanted)).await;
                assert_eq!(bytes_of(&done), [0; 300]);
            });
        }
        assert_clean(&made);
    }
}

fn many_at_once(mut made: Loop) {
    let reactor = made.reactor().clone();
    for options in KINDS {
        let file = scratch();
        let image = Random(4).bytes(1 << 20);
        file.write_all_at(&image, 0).unwrap();
        let queue = Rc::new(queue(&reactor, &file, options));
        let mut random = Random(8);
        // More than the ring has entries.
        let calls: Vec<_> = (0..2000)
            .map(|i| {
                let at = random.below((1 << 20) - 5000);
                let n = 1 + random.below(5000) as usize;
                (
                    at as usize,
                    n,
                    queue.call(read(&reactor, at, n, i % 2 == 0)),
                )
            })
            .collect();
        made.block_on(async {
            for (at, n, call) in calls {
                assert!(bytes_of(&call.await) == image[at..at + n]);
            }
        });
        assert_clean(&made);
    }
}

fn errors_arrive(mut made: Loop) {
    let reactor = made.reactor().clone();
    let path = std::env::current_exe().unwrap();
    for options in KINDS {
        let queue = queue(&reactor, &Arc::new(File::open(&path).unwrap()), options);
        made.block_on(async {
            let done = queue.call(write(&reactor, 0, b"read-only")).await;
            assert_eq!(done.error().unwrap().errno(), Errno::EBADF);
            let mut req = write(&reactor, 0, b"read-only");
            req.set_flags(block::Flags::FUA);
            assert_eq!(queue.call(req).await.error().unwrap().errno(), Errno::EBADF);
            let punch = reactor.request(Op::Discard, 0, 4096);
            assert_eq!(
                queue.call(punch).await.error().unwrap().errno(),
                Errno::EBADF
            );
            let far = read(&reactor, u64::MAX - 10, 5, true);
            assert_eq!(queue.call(far).await.error().unwrap().errno(), Errno::EFBIG);
            // The wrong kind of data is refused, not guessed at.
            let none = reactor.request(Op::Write, 0, 5);
            assert_eq!(
                queue.call(none).await.error().unwrap().errno(),
                Errno::EINVAL
            );
            let mut kernel = reactor.request(Op::Read, 0, 4096);
            let index = block::data::BufIndex(9);
            *kernel.data_mut() = Data::Kernel(KernelBuf { index, len: 4096 });
            assert!(queue.call(kernel).await.error().is_some(), "no such buffer");
        });
        assert_clean(&made);
    }
    let write_only = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let queue = queue(&reactor, &Arc::new(write_only), KINDS[0]);
    let done = made.block_on(async { queue.call(read(&reactor, 0, 10, true)).await });
    assert_eq!(done.error().unwrap().errno(), Errno::EBADF);
    drop(done);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    for options in KINDS {
        let queue = FileQueue(Io::of(&reactor).file(Arc::new(full.try_clone().unwrap()), options));
        let done = made.block_on(async { queue.call(write(&reactor, 0, b"no room")).await });
        assert_eq!(done.error().unwrap().errno(), Errno::ENOSPC);
    }
    drop(queue);
    assert_clean(&made);
}

fn fallocate_punches_and_zeroes(mut made: Loop) {
    let reactor = made.reactor().clone();
    for options in KINDS {
        let file = scratch();
        file.write_all_at(&[9; 16384], 0).unwrap();
        let queue = queue(&reactor, &file, options);
        made.block_on(async {
            let punch = reactor.request(Op::Discard, 4096, 8192);
            assert!(queue.call(punch).await.error().is_none());
            let bytes = bytes_of(&queue.call(read(&reactor, 0, 16384, true)).await);
            assert_eq!(bytes[..4096], [9; 4096]);
            assert_eq!(bytes[4096..12288], [0; 8192]);
            assert_eq!(bytes[12288..], [9; 4096]);
            let grow = reactor.request(Op::WriteZeroes, 16384, 4096);
            assert!(queue.call(grow).await.error().is_none());
        });
        assert_eq!(file.metadata().unwrap().len(), 20480);
        assert_clean(&made);
    }
}

fn direct(mut made: Loop) {
    let reactor = made.reactor().clone();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, vec![5; 8192 + 100]).unwrap();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    let file = match opened {
        Ok(file) => Arc::new(file),
        Err(error) => return println!("SKIP: O_DIRECT refused: {error}"),
    };
    let options = FileOptions {
        registered: true,
        inline: true,
        direct: true,
    };
    if let Err(error) = Io::of(&reactor).register_memory(1 << 20) {
        println!("without registered memory: {error}");
    }
    let queue = queue(&reactor, &file, options);
    made.block_on(async {
        let done = queue.call(read(&reactor, 4096, 8192, true)).await;
        let bytes = bytes_of(&done);
        assert_eq!(bytes[..4196], [5; 4196]);
        assert_eq!(bytes[4196..], [0; 3996]);
        drop(done);
        let done = queue.call(write(&reactor, 0, &[6; 4096])).await;
        assert!(done.error().is_none(), "{:?}", done.error());
        let done = queue.call(read(&reactor, 0, 4096, true)).await;
        assert_eq!(bytes_of(&done), [6; 4096]);
    });
    assert_clean(&made);
}

fn vectored_beyond_one_call(mut made: Loop) {
    let reactor = made.reactor().clone();
    let file = scratch();
    let n = 3000;
    let chunk = reactor.chunk(n * 8);
    let base = chunk.as_ptr();
    // Eight bytes of every sixteen would do as well; order is what matters.
    let parts = (0..n).rev().map(|i| Segment {
        // SAFETY: inside the chunk.
        ptr: unsafe { base.add(i * 8) },
        len: 8,
    });
    // SAFETY: disjoint ranges of a chunk, which the pin keeps.
    let iov = unsafe { Iov::from_raw(parts, block::Pin::Chunk(chunk), None) };
    let bytes = Random(6).bytes(n * 8);
    iov.write(0, &bytes);
    for options in KINDS {
        let queue = queue(&reactor, &file, options);
        made.block_on(async {
            let mut req = reactor.request(Op::Write, 10, bytes.len() as u64);
            *req.data_mut() = iov.clone().into();
            assert!(queue.call(req).await.error().is_none());
            iov.zero(0, bytes.len());
            let mut req = reactor.request(Op::Read, 10, bytes.len() as u64);
            *req.data_mut() = iov.clone().into();
            assert!(bytes_of(&queue.call(req).await) == bytes);
        });
    }
    drop(iov);
    assert_clean(&made);
}

fn registered_memory(mut made: Loop) {
    let reactor = made.reactor().clone();
    let io = Io::of(&reactor);
    if let Err(error) = io.register_memory(256 << 10) {
        // The poll driver has no such thing; a ring may be refused it by RLIMIT_MEMLOCK.
        let known = made.driver() == "poll" || error.raw_os_error() == Some(libc::ENOMEM);
        assert!(known, "{error}");
        return;
    }
    let chunk = reactor.chunk(4096);
    assert!(chunk.index().is_some());
    drop(chunk);
    let file = scratch();
    let image = Random(4).bytes(65536);
    file.write_all_at(&image, 0).unwrap();
    for options in KINDS {
        let queue = queue(&reactor, &file, options);
        made.block_on(async {
            for at in [0, 4096, 5000] {
                let done = queue.call(read(&reactor, at, 20_000, true)).await;
                assert!(bytes_of(&done) == image[at as usize..at as usize + 20_000]);
            }
            assert!(
                queue
                    .call(write(&reactor, 100, &image[..5000]))
                    .await
                    .error()
                    .is_none()
            );
            let done = queue.call(read(&reactor, 100, 5000, true)).await;
            assert!(bytes_of(&done) == image[..5000]);
            assert!(
                queue
                    .call(write(&reactor, 0, &image[..8192]))
                    .await
                    .error()
                    .is_none()
            );
        });
    }
    assert!(io.register_memory(4096).is_err(), "once per ring");
    assert_clean(&made);
}

fn empty_requests(mut made: Loop) {
    let reactor = made.reactor().clone();
    let queue = queue(&reactor, &scratch(), KINDS[0]);
    made.block_on(async {
        assert!(queue.call(write(&reactor, 5, b"")).await.error().is_none());
        assert_eq!(bytes_of(&queue.call(read(&reactor, 5, 0, true)).await), b"");
    });
    assert_clean(&made);
}

fn a_pipe_is_no_disk(mut made: Loop) {
    let reactor = made.reactor().clone();
    let (end, _other) = std::io::pipe().unwrap();
    for options in KINDS {
        let file = Arc::new(File::from(OwnedFd::from(end.try_clone().unwrap())));
        let queue = queue(&reactor, &file, options);
        let done = made.block_on(async { queue.call(read(&reactor, 0, 10, true)).await });
        assert!(done.error().is_some());
    }
    assert_clean(&made);
}

fn mapping(_: Loop) {
    let file = scratch();
    file.write_all_at(b"mapped bytes", 0).unwrap();
    let map = Mapping::of_file(&file, 12).unwrap();
    let mut bytes = [0; 5];
    map.read(7, &mut bytes);
    assert_eq!(&bytes, b"bytes");
    file.write_all_at(b"BYTES", 7).unwrap();
    map.read(7, &mut bytes);
    assert_eq!(&bytes, b"BYTES");
    assert!(Mapping::of_file(&file, 13).is_err());
    assert!(Mapping::of_file(&file, 0).unwrap().is_empty());
}
