use super::*;
use crate::testing::Bench;
use block::{Access, Extent, ExtentFlags, ExtentList};

const P: u64 = PAGE as u64;

fn bench(size: u64) -> Bench {
    Bench::open(new(MemoryConfig { size: Size(size) }).unwrap())
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
    let source = new(MemoryConfig {
        size: Size(1 << 20),
    })
    .unwrap();
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
