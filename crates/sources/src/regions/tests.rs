use super::*;
use crate::testing::{Bench, start};
use block::QueueExt;
use reactor::DriverKind;
use testkit::MemoryDisk;

const TABLE: &[u8] = b"a table of partitions";

/// A disk of a child (1000 bytes), a table, padding up to 1500, and another child (700 bytes, from
/// its byte 300 on).
fn parts() -> (Arc<MemoryDisk>, Arc<MemoryDisk>, Bench) {
    let (one, two) = (MemoryDisk::new(1000), MemoryDisk::new(1000));
    one.fill(0, &[1; 1000]);
    two.fill(0, &[2; 1000]);
    let mut layout = Layout::default();
    layout.child(0, 0, 1000);
    layout.table(TABLE.to_vec());
    layout.pad_to(1500);
    layout.pad_to(1400);
    layout.child(1, 300, 700);
    let children: Vec<Arc<dyn Device>> = vec![one.clone(), two.clone()];
    (one, two, bench(layout, children))
}

fn bench(layout: Layout, children: Vec<Arc<dyn Device>>) -> Bench {
    let device = glue(&"glued".into(), layout, children).unwrap();
    device.limits().assert_valid();
    Bench::of(start(DriverKind::Auto).unwrap(), device).unwrap()
}

fn whole() -> Vec<u8> {
    let mut bytes = vec![1; 1000];
    bytes.extend_from_slice(TABLE);
    bytes.resize(1500, 0);
    bytes.resize(2200, 2);
    bytes
}

#[test]
fn any_range_reads_as_one_disk() {
    let (_, _, bench) = parts();
    assert_eq!(bench.limits().size, 2200);
    let whole = whole();
    for (at, len) in [
        (0, 2200),
        (999, 2),
        (999, 1),
        (1000, 21),
        (1010, 500),
        (1499, 2),
        (1500, 700),
        (2199, 1),
    ] {
        assert_eq!(
            bench.read(at, len).unwrap(),
            whole[at as usize..][..len],
            "{at}+{len}"
        );
    }
}

#[test]
fn a_table_is_handed_out_without_a_copy() {
    let (_, _, bench) = parts();
    bench.with(|run, queue| {
        let mut req = run.reactor().request(Op::Read, 1000, 500);
        *req.data_mut() = Data::Wanted;
        let done = run.block_on(queue.call(req));
        assert_eq!(
            done.data().as_given().unwrap().to_vec(),
            whole()[1000..1500]
        );
        assert_eq!(run.reactor().counters().bytes_copied.get(), 0);
    });
}

#[test]
fn writes_reach_the_children_and_leave_the_rest() {
    let (one, two, bench) = parts();
    let mut bytes = whole();
    bytes[..1000].fill(3);
    bytes[1500..].fill(4);
    // What is not a child's is as it was.
    bench.write_flagged(0, &bytes, Flags::FUA).unwrap();
    assert_eq!(one.to_vec(), [3; 1000]);
    assert_eq!(two.to_vec(), [vec![2; 300], vec![4; 700]].concat());
    for place in [1000, 1020, 1021, 1499] {
        let mut wrong = bytes.clone();
        wrong.fill(9);
        wrong[1000..1500].copy_from_slice(&whole()[1000..1500]);
        wrong[place] ^= 1;
        let error = bench.write(0, &wrong).unwrap_err();
        assert_eq!(error, Errno::EIO);
        let why = &error.detail().unwrap().why;
        assert!(why.ends_with(&format!("offset {place}")), "{why}");
    }
    assert_eq!(
        bench.read(0, 2200).unwrap(),
        bytes,
        "a refused write changes nothing"
    );
    bench.write(1010, &bytes[1010..1020]).unwrap();
    assert_eq!(bench.write(1010, b"x").unwrap_err(), Errno::EIO);
    assert_eq!(
        bench.plain(Op::WriteZeroes, 990, 20).unwrap_err(),
        Errno::EIO
    );
    bench.plain(Op::WriteZeroes, 1021, 1000).unwrap();
    bench.plain(Op::Discard, 900, 700).unwrap();
    bench.plain(Op::Cache, 0, 2200).unwrap();
    bench.plain(Op::Flush, 0, 0).unwrap();
    bytes[1500..2021].fill(0);
    bytes[900..1000].fill(0);
    assert_eq!(bench.read(0, 2200).unwrap(), bytes);
}

#[test]
fn extents_are_put_together() {
    let (_, _, bench) = parts();
    let lens = |at, len, flags| {
        let list = bench.extents_flagged(at, len, flags).unwrap();
        list.allocation()
            .iter()
            .map(|e| (e.len, e.flags))
            .collect::<Vec<_>>()
    };
    let table = 1000 + TABLE.len() as u64;
    // A child's data and the table behind it are one extent.
    let all = [(table, 0), (1500 - table, 3), (700, 0)];
    assert_eq!(lens(0, 2200, Flags::NONE), all);
    assert_eq!(lens(10, 2000, Flags::REQ_ONE), [(990, 0)]);
    assert_eq!(lens(1490, 11, Flags::NONE), [(10, 3), (1, 0)]);
}

#[test]
fn a_long_answer_about_extents_ends_early() {
    let mut layout = Layout::default();
    for i in 0..1000 {
        layout.table(vec![1; 10]);
        layout.pad_to(20 * (i + 1));
    }
    let bench = bench(layout, Vec::new());
    let list = bench.extents(0, 20_000).unwrap();
    assert_eq!(list.covered(), 10 * MOST as u64);
    assert_eq!(list.allocation().len(), MOST);
    bench.plain(Op::Flush, 0, 0).unwrap();
}

#[test]
fn the_disk_can_do_what_all_children_can() {
    let mut weak = Limits::new(512, OpSet::READ_ONLY.with(Op::Flush));
    weak.rotational = true;
    let mut strong = Limits::new(512, OpSet::DISK);
    strong.fua = Support::Native;
    strong.fast_zero = true;
    strong.multi_conn = true;
    let strong: Arc<dyn Device> = MemoryDisk::with(strong);
    let both = limits(1024, &[strong.clone(), MemoryDisk::with(weak)]);
    assert!(both.read_only() && both.rotational && !both.multi_conn && !both.fast_zero);
    assert_eq!(both.fua, Support::None);
    let same = limits(512, &[strong]);
    assert!(same.multi_conn && same.fast_zero && same.fua == Support::Native);
}

#[test]
fn what_is_too_large_for_a_disk_is_refused() {
    let mut layout = Layout::default();
    for _ in 0..3 {
        layout.pad_to(layout.size + (1 << 62));
    }
    let error = glue(&"glued".into(), layout, Vec::new()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn a_failed_flush_of_one_file_is_never_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
    paths
        .iter()
        .for_each(|path| std::fs::write(path, [0; 600]).unwrap());
    let config = crate::split::SplitConfig {
        file: paths.to_vec(),
    };
    let source = crate::split::new(config).unwrap();
    let bench = Bench::open(source);
    bench.plain(Op::Flush, 0, 0).unwrap();
    crate::file::fail_next_flush(&paths[1], Errno::EIO);
    bench.write(550, &[1; 100]).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.plain(Op::Flush, 0, 0).unwrap_err(), Errno::EIO);
    }
    // FUA on the poisoned file fails, on the others it does not.
    assert_eq!(
        bench.write_flagged(700, &[1], Flags::FUA).unwrap_err(),
        Errno::EIO
    );
    bench.write_flagged(0, &[1], Flags::FUA).unwrap();
}
