//! Files as clients meet them: data path and durability here, opening and its errors in [`opening`],
//! descriptors and the page cache in [`given`], other lengths in [`resized`].

mod given;
mod opening;
mod resized;

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use super::*;
use crate::testing::{Bench, start};
use block::{Data, Errno, ExtentFlags, Flags, Op, QueueExt};
use reactor::DriverKind;

/// A configuration from words of a command line.
fn config(words: &[&str]) -> FileConfig {
    let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
    FileConfig::from_args(&args).unwrap()
}

fn source(path: &Path, words: &[&str]) -> Arc<dyn Source> {
    let file = format!("file={}", path.display());
    new(config(&[&[file.as_str()], words].concat())).unwrap()
}

/// A file of these bytes, in a directory that goes with it.
fn file_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Runs a test on every driver that works here.
fn on_each_driver(path: &Path, words: &[&str], test: impl Fn(&Bench)) {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        let Some(run) = start(driver) else { continue };
        match Bench::on(run, &*source(path, words), "", Access::ReadWrite) {
            Ok(bench) => test(&bench),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                eprintln!("SKIP: {}", error.chain());
            }
            Err(error) => panic!("{}", error.chain()),
        }
    }
}

/// What the device shares with all others on its file.
fn inode_of(path: &Path) -> Arc<inode::Inode> {
    let meta = fs::metadata(path).unwrap();
    inode::Inode::of(Key::File(meta.dev(), meta.ino()))
}

#[test]
fn bytes_come_and_go_and_the_file_keeps_its_size() {
    let (_dir, path) = file_of(&vec![1; 100_001]);
    for direct in ["direct=false", "direct=true"] {
        on_each_driver(&path, &[direct], |bench| {
            let limits = bench.limits();
            assert_eq!(limits.size, 100_001);
            let block = u64::from(limits.min_block);
            let bytes: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
            bench.write(4096, &bytes).unwrap();
            assert_eq!(bench.read(4096, 8192).unwrap(), bytes);
            bench
                .write_flagged(8192, &bytes[..4096], Flags::FUA)
                .unwrap();
            assert_eq!(bench.read(8192, 4096).unwrap(), bytes[..4096]);
            // The last bytes; of a direct file the last block, as a layer that aligns asks for it.
            let last = (100_001 - 33) & !(block - 1);
            let len = (100_001 - last).next_multiple_of(block) as usize;
            let mut tail = bench.read(last, len).unwrap();
            assert_eq!(
                tail[(100_001 - last) as usize..],
                vec![0; len - (100_001 - last) as usize]
            );
            tail[0] = tail[0].wrapping_add(1);
            for flags in [Flags::NONE, Flags::FUA] {
                bench.write_flagged(last, &tail, flags).unwrap();
            }
            assert_eq!(bench.read(last, len).unwrap(), tail);
            // One request over the border of the tail.
            let from = (last - 16 * 1024) & !(block - 1);
            let len = (100_001 - from).next_multiple_of(block) as usize;
            let mut over = bench.read(from, len).unwrap();
            over.iter_mut()
                .take((100_001 - from) as usize)
                .for_each(|b| *b ^= 0x55);
            bench.write(from, &over).unwrap();
            assert_eq!(bench.read(from, len).unwrap(), over);
            bench.plain(Op::Flush, 0, 0).unwrap();
            bench.plain(Op::Cache, 0, 100_001).unwrap();
            assert_eq!(
                fs::read(&path).unwrap()[from as usize..],
                over[..(100_001 - from) as usize]
            );
        });
        assert_eq!(fs::metadata(&path).unwrap().len(), 100_001, "{direct}");
    }
}

#[test]
fn a_buffered_file_does_not_grow_either() {
    let (_dir, path) = file_of(&[1; 1000]);
    on_each_driver(&path, &[], |bench| {
        assert_eq!(bench.write(1000, &[1]).unwrap_err(), Errno::ENOSPC);
        assert_eq!(bench.write(999, &[1, 2]).unwrap_err(), Errno::ENOSPC);
        bench.plain(Op::WriteZeroes, 990, 100).unwrap();
    });
    assert_eq!(fs::metadata(&path).unwrap().len(), 1000);
}

#[test]
fn zeroing_and_discarding() {
    const MIB: u64 = 1 << 20;
    let (_dir, path) = file_of(&[]);
    for (op, flags) in [
        (Op::WriteZeroes, Flags::NONE),
        (Op::WriteZeroes, Flags::NO_HOLE),
        (Op::WriteZeroes, Flags::FUA | Flags::NO_HOLE),
        (Op::WriteZeroes, Flags::FAST_ZERO),
        (Op::Discard, Flags::FUA),
        (Op::Discard, Flags::NONE),
    ] {
        on_each_driver(&path, &[], |bench| {
            // The bench has opened an empty file, so another is looked at here.
            assert_eq!(bench.limits().size, 0);
        });
        fs::write(&path, vec![7; 4 << 20]).unwrap();
        on_each_driver(&path, &[], |bench| {
            bench.write(0, &vec![7; 4 << 20]).unwrap();
            match bench.flagged(op, MIB + 100, MIB, flags) {
                Err(error) if flags == Flags::FAST_ZERO && error == Errno::ENOTSUP => {
                    eprintln!("SKIP: no fast zero on this file system");
                }
                outcome => {
                    outcome.unwrap();
                    let read = bench.read(0, 4 << 20).unwrap();
                    let zero = MIB as usize + 100..2 * MIB as usize + 100;
                    let good = |(i, b): (usize, &u8)| *b == if zero.contains(&i) { 0 } else { 7 };
                    assert!(read.iter().enumerate().all(good), "{op} {flags:?}");
                }
            }
        });
        assert_eq!(fs::metadata(&path).unwrap().len(), 4 << 20);
        fs::write(&path, []).unwrap();
    }
}

#[test]
fn zeroes_are_written_where_nothing_else_works() {
    let (_dir, path) = file_of(&vec![7; 5 << 20]);
    on_each_driver(&path, &[], |bench| {
        let inode = inode_of(&path);
        inode.punch_hole.cannot();
        inode.zero_range.cannot();
        bench.write(0, &vec![7; 5 << 20]).unwrap();
        let refused = bench.flagged(Op::WriteZeroes, 1, 3 << 20, Flags::FAST_ZERO);
        assert_eq!(refused.unwrap_err(), Errno::ENOTSUP);
        assert_eq!(bench.read(1, 100).unwrap(), [7; 100]);
        bench
            .flagged(Op::WriteZeroes, 1, 3 << 20, Flags::FUA)
            .unwrap();
        let read = bench.read(0, 5 << 20).unwrap();
        let zeroed = 1..(3 << 20) + 1;
        assert!(
            read.iter()
                .enumerate()
                .all(|(i, b)| (*b == 0) == zeroed.contains(&i))
        );
        bench.plain(Op::Discard, 0, 5 << 20).unwrap();
        assert_eq!(bench.read(0, 1).unwrap(), [7], "a discard may do nothing");
    });
}

#[test]
fn extents_tell_holes_from_data() {
    const MIB: u64 = 1 << 20;
    let (_dir, path) = file_of(&[]);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(8 * MIB).unwrap();
    file.write_all_at(&[1; 1 << 20], 2 * MIB).unwrap();
    file.write_all_at(&[1; 1 << 20], 5 * MIB).unwrap();
    // Before this the file system may not know yet where it puts the data.
    file.sync_all().unwrap();
    on_each_driver(&path, &[], |bench| {
        let list = bench.extents(0, 8 * MIB).unwrap();
        assert_eq!(list.covered(), 8 * MIB);
        let holes: u64 = list
            .allocation()
            .iter()
            .filter(|e| e.flags == 3)
            .map(|e| e.len)
            .sum();
        if holes == 0 {
            return eprintln!("SKIP: this file system does not tell holes");
        }
        let shape: Vec<_> = list
            .allocation()
            .iter()
            .map(|e| (e.len / MIB, e.flags))
            .collect();
        assert_eq!(shape, [(2, 3), (1, 0), (2, 3), (1, 0), (2, 3)]);
        let part = bench.extents(2 * MIB + 5, 100).unwrap();
        assert_eq!((part.covered(), part.all_zero()), (100, false));
        let one = bench
            .extents_flagged(5, 8 * MIB - 5, Flags::REQ_ONE)
            .unwrap();
        assert_eq!(one.allocation().len(), 1);
        assert_eq!(one.covered(), 2 * MIB - 5);
        file.set_len(MIB).unwrap();
        assert!(
            bench.extents(0, 8 * MIB).unwrap().all_zero(),
            "it became shorter"
        );
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[1; 1 << 20], 2 * MIB).unwrap();
        file.write_all_at(&[1; 1 << 20], 5 * MIB).unwrap();
        file.sync_all().unwrap();
    });
    on_each_driver(&path, &[], |bench| {
        inode_of(&path).seek_hole.cannot();
        let list = bench.extents(0, 8 * MIB).unwrap();
        assert_eq!(list, block::ExtentList::one(8 * MIB, ExtentFlags::DATA));
    });
}

#[test]
fn a_failed_flush_stays_failed_for_everybody() {
    let (_dir, path) = file_of(&[0; 8192]);
    on_each_driver(&path, &[], |bench| {
        let other = Bench::open(source(&path, &["lock=none"]));
        bench.plain(Op::Flush, 0, 0).unwrap();
        inode_of(&path).faults.lock().unwrap().push(Errno::ENOSPC);
        assert_eq!(bench.plain(Op::Flush, 0, 0).unwrap_err(), Errno::ENOSPC);
        for bench in [bench, &other] {
            let error = bench.plain(Op::Flush, 0, 0).unwrap_err();
            assert_eq!(error, Errno::EIO);
            assert!(
                error.to_string().contains("an earlier flush failed"),
                "{error}"
            );
            let fua = bench.write_flagged(0, &[1; 512], Flags::FUA);
            assert_eq!(fua.unwrap_err(), Errno::EIO);
            for op in [Op::WriteZeroes, Op::Discard] {
                let fua = bench.flagged(op, 0, 512, Flags::FUA);
                assert_eq!(fua.unwrap_err(), Errno::EIO);
            }
            bench.write(0, &[1; 512]).unwrap();
            assert_eq!(bench.read(0, 1).unwrap(), [1]);
        }
        let third = Bench::open(source(&path, &["lock=none"]));
        assert_eq!(third.plain(Op::Flush, 0, 0).unwrap_err(), Errno::EIO);
    });
    // Everybody has closed it: a fresh start, on the second driver and here.
    let bench = Bench::open(source(&path, &[]));
    bench.plain(Op::Flush, 0, 0).unwrap();
}

#[test]
fn a_failed_fua_write_poisons_too() {
    let (_dir, path) = file_of(&[0; 8192]);
    let bench = Bench::open(source(&path, &[]));
    inode_of(&path).faults.lock().unwrap().push(Errno::EIO);
    let fua = bench.write_flagged(0, &[1; 512], Flags::FUA);
    assert_eq!(fua.unwrap_err(), Errno::EIO);
    assert_eq!(bench.plain(Op::Flush, 0, 0).unwrap_err(), Errno::EIO);
}

#[test]
fn flushes_that_come_together_all_complete() {
    let (_dir, path) = file_of(&[0; 8192]);
    on_each_driver(&path, &[], |bench| {
        for fault in [None, Some(Errno::EIO)] {
            inode_of(&path).faults.lock().unwrap().extend(fault);
            let outcomes = bench.with(|run, queue| {
                let calls: Vec<_> = (0..20)
                    .map(|_| queue.call(run.reactor().request(Op::Flush, 0, 0)))
                    .collect();
                let before = run.stats().ops;
                let outcomes: Vec<_> = calls
                    .into_iter()
                    .map(|call| run.block_on(call).take_outcome())
                    .collect();
                (outcomes, run.stats().ops - before)
            });
            assert!(
                outcomes.1 <= 4,
                "one at once, one for those who came meanwhile"
            );
            let failed = outcomes.0.iter().filter(|outcome| outcome.is_err()).count();
            assert_eq!(failed, if fault.is_some() { 20 } else { 0 });
        }
    });
}

#[test]
fn a_reader_can_only_read() {
    let (_dir, path) = file_of(b"hello");
    let bench = Bench::open_as(source(&path, &[]), Access::ReadOnly);
    assert!(bench.limits().read_only());
    assert_eq!(bench.read(0, 5).unwrap(), b"hello");
    for op in [Op::Write, Op::WriteZeroes, Op::Discard] {
        assert_eq!(bench.plain(op, 0, 1).unwrap_err(), Errno::ENOTSUP);
    }
    bench.plain(Op::Flush, 0, 0).unwrap();
    assert_eq!(bench.extents(0, 5).unwrap().covered(), 5);
}

#[test]
fn an_open_descriptor_can_be_a_device() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let node = "scratch".into();
    let device = device(file.try_clone().unwrap(), &node).unwrap();
    let bench = Bench::of(start(DriverKind::Auto).unwrap(), device).unwrap();
    bench.write(5, b"scratch").unwrap();
    bench.plain(Op::Flush, 0, 0).unwrap();
    let mut bytes = [0; 7];
    file.read_exact_at(&mut bytes, 5).unwrap();
    assert_eq!(&bytes, b"scratch");
    let pipe = File::open("/dev/null").unwrap();
    let error = super::device(pipe, &node).err().expect("not a disk");
    assert!(
        error.chain().contains("a character device"),
        "{}",
        error.chain()
    );
}

#[test]
fn many_requests_at_once() {
    let (_dir, path) = file_of(&vec![0; 4 << 20]);
    on_each_driver(&path, &[], |bench| {
        let blocks: Vec<_> = (0..256u64)
            .map(|i| bench.memory(&[i as u8; 16384]))
            .collect();
        bench.with(|run, queue| {
            let reactor = run.reactor().clone();
            let send = |op, i: u64, data: Data| {
                let mut req = reactor.request(op, i * 16384, 16384);
                *req.data_mut() = data;
                queue.call(req)
            };
            let writes: Vec<_> = (0..256)
                .map(|i| send(Op::Write, i, blocks[i as usize].clone().into()))
                .collect();
            for write in writes {
                run.block_on(write).take_outcome().unwrap();
            }
            let reads: Vec<_> = (0..256).map(|i| send(Op::Read, i, Data::Wanted)).collect();
            for (i, read) in reads.into_iter().enumerate() {
                let mut done = run.block_on(read);
                done.take_outcome().unwrap();
                let bytes = done.data().as_given().unwrap().to_vec();
                assert!(bytes.iter().all(|byte| *byte == i as u8));
            }
        });
    });
}
