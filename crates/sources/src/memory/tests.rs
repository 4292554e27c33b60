use super::{
    pages::{PAGE, Pages},
    *,
};
use crate::testing::Bench;
use block::{Access, Extent, ExtentFlags, ExtentList};

const P: u64 = PAGE as u64;

fn bench(size: u64) -> Bench {
    Bench::open(new(MemoryConfig::sparse(Size(size))).unwrap())
}

/// The extents of the whole disk, in as many questions as it takes.
fn all_extents(bench: &Bench, size: u64) -> ExtentList {
    let mut all = ExtentList::new();
    while all.covered() < size {
        let next = bench.extents(all.covered(), size - all.covered()).unwrap();
        assert!(next.covered() > 0);
        all.append(&next);
    }
    all
}

#[test]
fn what_is_written_is_read() {
    let bench = bench(10 * P + 100);
    assert_eq!(bench.read(0, 3 * PAGE).unwrap(), vec![0; 3 * PAGE]);
    let bytes: Vec<u8> = (0..2 * PAGE + 7).map(|i| i as u8 | 1).collect();
    bench.write(P - 3, &bytes).unwrap();
    let read = bench.read(P - 4, 2 * PAGE + 9).unwrap();
    assert_eq!((read[0], read[2 * PAGE + 8]), (0, 0));
    assert!(read[1..2 * PAGE + 8] == bytes);
    bench.write(10 * P + 99, &[7]).unwrap();
    assert_eq!(bench.read(10 * P + 98, 2).unwrap(), [0, 7]);
}

#[test]
fn the_largest_disk_works_to_its_last_byte() {
    let size = i64::MAX as u64;
    let bench = bench(size);
    for at in [0, size / 3, 1 << 62, size - 5] {
        bench.write(at, b"hello").unwrap();
        assert_eq!(bench.read(at, 5).unwrap(), b"hello");
    }
    let list = all_extents(&bench, size);
    assert_eq!(
        list.allocation().len(),
        7,
        "data and hole four times, no hole at the end"
    );
    bench.plain(Op::Discard, 0, size).unwrap();
    assert_eq!(
        all_extents(&bench, size),
        ExtentList::one(size, ExtentFlags::HOLE_ZERO)
    );
    assert_eq!(bench.read(size - 5, 5).unwrap(), [0; 5]);
}

#[test]
fn an_empty_disk_can_be_opened() {
    let bench = bench(0);
    assert_eq!(bench.limits().size, 0);
    bench.plain(Op::Flush, 0, 0).unwrap();
    bench.plain(Op::Discard, 0, 0).unwrap();
}

#[test]
fn zeroing_gives_whole_pages_back() {
    for op in [Op::WriteZeroes, Op::Discard] {
        let bench = bench(4 * P + 10);
        bench.write(0, &vec![1; 4 * PAGE + 10]).unwrap();
        bench.plain(op, 5, 2 * P).unwrap();
        let hole = |len| Extent { len, flags: 3 };
        let data = |len| Extent { len, flags: 0 };
        let list = bench.extents(0, 4 * P + 10).unwrap();
        assert_eq!(list.allocation(), [data(P), hole(P), data(2 * P + 10)]);
        let read = bench.read(0, 3 * PAGE).unwrap();
        assert!(
            read.iter()
                .enumerate()
                .all(|(i, &b)| (b == 0) == (5..2 * PAGE + 5).contains(&i))
        );
        bench.plain(op, 4 * P, 10).unwrap();
        let list = bench.extents(3 * P, P + 10).unwrap();
        assert_eq!(
            list.allocation(),
            [data(P), hole(10)],
            "the short last page is whole"
        );
        bench.flagged(op, 3 * P, P, Flags::NO_HOLE).unwrap();
        assert_eq!(bench.extents(3 * P, P).unwrap().allocation(), [data(P)]);
        assert_eq!(bench.read(3 * P, PAGE).unwrap(), vec![0; PAGE]);
        let first = bench.extents_flagged(0, 4 * P, Flags::REQ_ONE).unwrap();
        assert_eq!(first.allocation(), [data(P)]);
    }
}

#[test]
fn clients_share_the_disk() {
    let source = new(MemoryConfig::sparse(Size(1 << 20))).unwrap();
    let (one, two) = (Bench::open(source.clone()), Bench::open(source.clone()));
    one.write(1000, b"shared").unwrap();
    assert_eq!(two.read(1000, 6).unwrap(), b"shared");
    drop((one, two));
    let reader = Bench::open_as(source, Access::ReadOnly);
    assert_eq!(
        reader.read(1000, 6).unwrap(),
        b"shared",
        "it outlives its clients"
    );
    assert_eq!(reader.plain(Op::Discard, 0, 9).unwrap_err(), Errno::ENOTSUP);
}

#[test]
fn reads_are_handed_over_without_a_copy() {
    let bench = bench(1 << 20);
    bench.write(0, &[9; 4096]).unwrap();
    bench.with(|run, queue| {
        let mut req = run.reactor().request(Op::Read, 0, 4096);
        *req.data_mut() = Data::Wanted;
        let done = run.block_on(block::QueueExt::call(queue, req));
        let given = done.data().as_given().unwrap();
        assert!(matches!(given.pieces(), [Piece::Mem(_)]));
        assert_eq!(run.reactor().counters().bytes_copied.get(), 0);
        assert_eq!(run.reactor().chunks().live(), 0);
    });
}

#[test]
fn a_page_outlives_its_discard_for_who_reads_it() {
    let pages = Pages::new(1 << 20).unwrap();
    let bench = bench(4096);
    pages.write(0, &bench.memory(b"old")).unwrap();
    let mut held = None;
    pages.read(0, 3, |page, _, _| held = page);
    pages.zero(0, P, false);
    assert_eq!(pages.allocated(), 0);
    pages.write(0, &bench.memory(b"new")).unwrap();
    let mut bytes = [0; 3];
    held.unwrap().read(0, &mut bytes);
    assert_eq!(&bytes, b"old");
}

#[test]
fn threads_may_do_all_at_once() {
    let pages = Arc::new(Pages::new(1 << 40).unwrap());
    let workers = (1..=4u8).map(|me| {
        let pages = pages.clone();
        std::thread::spawn(move || {
            let bytes = SharedMem::of_shared(block::SharedBuf::from_vec(vec![me; 512]), 0, 512);
            let iov = Iov::from(bytes);
            for i in 0..2000u64 {
                // All in the same few pages, on both sides of a table's border.
                let at = (64 << 20) - 2 * P + (i * 7919) % (4 * P);
                pages.write(at, &iov).unwrap();
                pages.read(at, 512, |page, _, _| drop(page));
                if i % 50 == 0 {
                    pages.zero((64 << 20) - 2 * P, 4 * P, false);
                }
                assert_eq!(pages.extents(at, 512, false).covered(), 512);
            }
        })
    });
    workers
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|w| w.join().unwrap());
    let mut seen = Vec::new();
    pages.read((64 << 20) - 2 * P, 4 * P, |page, at, len| {
        let mut bytes = vec![0; len as usize];
        if let Some(page) = page {
            page.read(at, &mut bytes);
        }
        seen.extend(bytes);
    });
    assert!(
        seen.iter().all(|byte| *byte <= 4),
        "only what somebody wrote"
    );
    pages.zero(0, 1 << 40, false);
    assert_eq!(pages.allocated(), 0);
}

/// A source with this allocator, ready.
fn allocated(size: u64, allocator: &str) -> Arc<dyn Source> {
    let size = Size(size);
    let allocator = Allocator::parse(allocator).unwrap();
    let source = new(MemoryConfig { size, allocator }).unwrap();
    source.ready().unwrap();
    source
}

#[test]
fn allocators_are_named() {
    let malloc = |mlock| Ok(Allocator::Malloc { mlock });
    assert_eq!(Allocator::parse("sparse"), Ok(Allocator::Sparse));
    assert_eq!(Allocator::parse("zstd"), Ok(Allocator::Zstd));
    assert_eq!(Allocator::parse("malloc"), malloc(false));
    assert_eq!(Allocator::parse("malloc,mlock=true"), malloc(true));
    assert_eq!(Allocator::parse("malloc,mlock=off"), malloc(false));
    let refused = [
        ("", "must be one of sparse, malloc, zstd"),
        ("Sparse", "must be one of sparse, malloc, zstd"),
        ("sparse,mlock=1", "sparse has no options"),
        ("zstd,level=3", "zstd has no options"),
        ("malloc,", "malloc has one option: mlock=true|false"),
        ("malloc,size=3", "malloc has one option: mlock=true|false"),
        ("malloc,mlock=maybe", "mlock: neither true nor false"),
    ];
    for (text, why) in refused {
        assert_eq!(Allocator::parse(text), Err(why.to_owned()), "{text}");
    }
}

#[test]
fn every_allocator_keeps_what_is_written() {
    let size = 1_000_003_u64;
    for allocator in ["sparse", "malloc", "zstd"] {
        let bench = Bench::open(allocated(size, allocator));
        let mut wanted = vec![0; size as usize];
        // Of every length, on pages and beside them, easy to compress and not.
        let mut state = 7u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for round in 0..60 {
            let at = next(size - 1);
            let len = next([10, 5000, 32_768, 200_000][round % 4]).min(size - at) + 1;
            let len = len.min(size - at);
            let place = at as usize..(at + len) as usize;
            match round % 5 {
                0 => {
                    bench.plain(Op::WriteZeroes, at, len).unwrap();
                    wanted[place].fill(0);
                }
                1 => {
                    bench
                        .flagged(Op::WriteZeroes, at, len, Flags::NO_HOLE)
                        .unwrap();
                    wanted[place].fill(0);
                }
                2 => {
                    wanted[place.clone()]
                        .iter_mut()
                        .for_each(|byte| *byte = next(256) as u8);
                    bench.write(at, &wanted[place]).unwrap();
                }
                _ => {
                    wanted[place.clone()].fill(round as u8);
                    bench.write(at, &wanted[place]).unwrap();
                }
            }
            let from = next(size);
            let len = next(100_000).min(size - from);
            let read = bench.read(from, len as usize).unwrap();
            assert!(
                read == wanted[from as usize..(from + len) as usize],
                "{allocator} {round}"
            );
        }
        assert!(
            bench.read(0, size as usize).unwrap() == wanted,
            "{allocator}"
        );
    }
}

#[test]
fn malloc_is_data_from_the_start_and_zstd_is_what_was_written() {
    let malloc = Bench::open(allocated(10_000, "malloc"));
    let data = Extent {
        len: 10_000,
        flags: 0,
    };
    assert_eq!(malloc.extents(0, 10_000).unwrap().allocation(), [data]);
    malloc.plain(Op::Discard, 0, 10_000).unwrap();
    assert_eq!(malloc.extents(0, 10_000).unwrap().allocation(), [data]);
    assert_eq!(Bench::open(allocated(0, "malloc")).limits().size, 0);

    let page = zstd::PAGE as u64;
    let packed = Bench::open(allocated(10 * page, "zstd"));
    packed.write(page + 5, b"x").unwrap();
    packed.write(3 * page, &vec![1; 2 * zstd::PAGE]).unwrap();
    let run = |len, flags| Extent { len, flags };
    let list = packed.extents(0, 10 * page).unwrap();
    let wanted = [
        run(page, 3),
        run(page, 0),
        run(page, 3),
        run(2 * page, 0),
        run(5 * page, 3),
    ];
    assert_eq!(list.allocation(), wanted);
    packed.plain(Op::Discard, 0, 10 * page).unwrap();
    assert_eq!(
        packed.extents(0, 10 * page).unwrap().allocation(),
        [run(10 * page, 3)]
    );
    let largest = Bench::open(allocated(i64::MAX as u64, "zstd"));
    largest.write(i64::MAX as u64 - 5, b"hello").unwrap();
    assert_eq!(largest.read(i64::MAX as u64 - 5, 5).unwrap(), b"hello");
}

#[test]
fn compressed_pages_are_small_and_others_no_larger_than_plain() {
    let pages = zstd::Zstd::new(1 << 30).unwrap();
    pages.write_bytes(0, &vec![7; 10 << 20]).unwrap();
    let easy = pages.allocated();
    assert!(
        (1..100_000).contains(&easy),
        "{easy} bytes for 10 MiB of sevens"
    );
    let hard = random(1 << 20);
    pages.write_bytes(20 << 20, &hard).unwrap();
    assert_eq!(pages.allocated() - easy, 1 << 20);
    pages.zero_bytes(0, 1 << 30).unwrap();
    assert_eq!(pages.allocated(), 0);
}

/// Bytes that do not get smaller.
fn random(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

#[test]
fn threads_may_change_one_compressed_page() {
    let pages = Arc::new(zstd::Zstd::new(1 << 20).unwrap());
    let workers: Vec<_> = (0..4usize)
        .map(|me| {
            let pages = pages.clone();
            std::thread::spawn(move || {
                for round in 0..50 {
                    // Each its own bytes of the same pages: no update may be lost.
                    for place in 0..8 {
                        let at = (place * 4 + me) * 2048;
                        pages.write_bytes(at as u64, &[round + 1; 2048]).unwrap();
                    }
                }
            })
        })
        .collect();
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    let seen = pages.to_vec(0, 65_536);
    assert!(seen.iter().all(|byte| *byte == 50));
}

#[test]
fn more_memory_than_there_is_is_refused_at_once() {
    let size = Size(1 << 60);
    for mlock in [false, true] {
        let allocator = Allocator::Malloc { mlock };
        let source = new(MemoryConfig { size, allocator }).unwrap();
        let error = source.ready().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let wanted = "memory: cannot allocate 1152921504606846976 bytes: ";
        assert!(error.chain().starts_with(wanted), "{}", error.chain());
    }
}

#[test]
fn locked_memory_does_not_leave() {
    let source = new(MemoryConfig {
        size: Size(300_000),
        allocator: Allocator::Malloc { mlock: true },
    });
    let source = source.unwrap();
    if let Err(error) = source.ready() {
        assert!(error.hint_text().unwrap().contains("ulimit -l"));
        return eprintln!("SKIP: memory cannot be locked: {}", error.chain());
    }
    let locked = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        let kib = line.unwrap().trim().strip_suffix("kB").unwrap().trim();
        kib.parse::<u64>().unwrap()
    };
    assert!(locked() >= 292, "{} KiB are locked", locked());
    let bench = Bench::open(source);
    bench.write(299_990, b"abc").unwrap();
    assert_eq!(bench.read(299_990, 3).unwrap(), b"abc");
}
