use super::*;

fn memory(regions: &[(u64, usize)]) -> Memory {
    let regions = regions.iter().map(|&(guest, len)| Region::heap(guest, len));
    Memory::new(Arc::new(RegionMap::new(regions.collect()).unwrap()))
}

#[test]
fn regions_that_make_no_map() {
    let map = |regions: Vec<Region>| RegionMap::new(regions).map(|_| ());
    assert_eq!(map(vec![]), Ok(()));
    let two = |a, b| vec![Region::heap(a, 8192), Region::heap(b, 8192)];
    assert_eq!(map(two(0, 8192)), Ok(()));
    assert_eq!(map(two(8192, 0)), Ok(()));
    assert_eq!(map(two(0, 8191)), Err(MapRefused::Overlap));
    assert_eq!(map(two(0, 0)), Err(MapRefused::Overlap));
    assert_eq!(map(vec![Region::heap(u64::MAX - 4095, 4096)]), Ok(()));
    let beyond = vec![Region::heap(u64::MAX - 4094, 4096)];
    assert_eq!(map(beyond), Err(MapRefused::Overflow));
}

#[test]
fn addresses_inside_and_outside() {
    let memory = memory(&[(0x1000, 0x1000), (0x10_0000, 0x2000)]);
    let has = |guest, len| memory.segment(guest, len).is_some();
    // In both orders, so that the cache is right and wrong.
    for _ in 0..2 {
        assert!(has(0x1000, 0x1000) && has(0x1fff, 1) && has(0x10_0000, 0x2000));
        assert!(!has(0x1000, 0x1001) && !has(0xfff, 1) && !has(0x2000, 1));
        assert!(!has(0, 1) && !has(u64::MAX, 1) && !has(u64::MAX, u32::MAX));
        assert!(!has(0x10_1fff, 2) && has(0x10_1fff, 1) && !has(0x10_2000, 1));
    }
}

#[test]
fn bytes_cross_regions() {
    let memory = memory(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x4000, 0x1000)]);
    let bytes: Vec<u8> = (0..100).collect();
    for start in [0x1fff, 0x1fc0, 0x1f9c, 0x1f9d, 0x2000] {
        assert!(memory.write(start, &bytes));
        let mut back = vec![0; 100];
        assert!(memory.read(start, &mut back));
        assert_eq!(back, bytes, "{start:#x}");
    }
    let mut pieces = Vec::new();
    assert!(memory.segments(0x1800, 0x1000, |piece| {
        pieces.push((piece.guest(), piece.len()));
        true
    }));
    assert_eq!(pieces, [(0x1800, 0x800), (0x2000, 0x800)]);
    assert!(!memory.write(0x2fff, &[1, 2]), "a hole follows");
    assert!(!memory.read(0x3fff, &mut [0; 2]), "a hole precedes");
}

#[test]
fn the_last_address_of_all() {
    let memory = memory(&[(u64::MAX - 4095, 4096)]);
    assert!(memory.write(u64::MAX - 7, &[7; 8]));
    assert!(!memory.write(u64::MAX - 6, &[7; 8]));
    assert!(memory.segments(u64::MAX, 1, |_| true));
    assert!(!memory.segments(u64::MAX, 2, |_| true));
}

#[test]
fn unaligned_copies() {
    let memory = memory(&[(0, 4096)]);
    for start in 0..9 {
        for len in 0..33 {
            let bytes: Vec<u8> = (1..=len).collect();
            assert!(memory.write(start, &bytes));
            let mut back = vec![0; bytes.len()];
            assert!(memory.read(start, &mut back));
            assert_eq!(back, bytes);
        }
    }
}

#[test]
fn areas_are_bounded() {
    let region = Region::heap(0x1000, 4096);
    let map = RegionMap::new(vec![region]).unwrap();
    assert!(map.by_guest(0x1000, 4096).is_some());
    assert!(map.by_guest(0x1001, 4096).is_none());
    assert!(map.by_user(0x1fff, 2).is_none());
    let area = map.by_user(0x1100, 64).unwrap();
    assert!(area.is_aligned(256) && !area.part(2, 8).unwrap().is_aligned(4));
    assert!(area.part(64, 0).is_some() && area.part(64, 1).is_none());
    area.store64(56, 0x0102_0304_0506_0708);
    assert_eq!((area.load8(56), area.load16(56)), (8, 0x0708));
    let panics =
        |access: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err();
    assert!(panics(&|| assert_eq!(area.load16(63), 0)));
    assert!(panics(&|| assert_eq!(area.load32(2), 0)));
}

#[cfg(not(miri))]
#[test]
fn a_file_is_mapped_and_a_short_one_refused() {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(10_000).unwrap();
    let refused = Region::map(0, 0, &file, 4096, 5905).unwrap_err();
    assert_eq!(refused, MapError::Short);
    assert_eq!(
        Region::map(0, 0, &file, 0, 0).unwrap_err(),
        MapError::Length
    );
    assert_eq!(
        Region::map(0, 0, &file, u64::MAX, 2).unwrap_err(),
        MapError::Length
    );
    // An offset that is no whole page.
    let region = Region::map(0x1000, 0x7000, &file, 5000, 5000).unwrap();
    let map = Arc::new(RegionMap::new(vec![region]).unwrap());
    file.seek(SeekFrom::Start(5004)).unwrap();
    file.write_all(b"hello").unwrap();
    let memory = Memory::new(map.clone());
    let mut back = [0; 5];
    assert!(memory.read(0x1004, &mut back));
    assert_eq!(&back, b"hello");
    assert!(memory.write(0x1000 + 4999, b"x"));
    file.seek(SeekFrom::Start(9999)).unwrap();
    assert_eq!(file.read(&mut back).unwrap(), 1);
    assert_eq!(back[0], b'x');
    assert!(map.by_user(0x7000 + 4999, 1).is_some() && map.by_user(0x7000 + 5000, 1).is_none());
}

#[test]
fn written_pages_are_logged() {
    let mut memory = memory(&[(0, 0x9000), (0x9000, 0x1000)]);
    let log = RegionMap::new(vec![Region::heap(0, 2)]).unwrap();
    let log = log.by_guest(0, 2).unwrap();
    memory.set_log(Some(DirtyLog::new(log.clone())));
    assert!(memory.write(0x0fff, &[1]) && memory.write(0x2fff, &[1, 2]));
    assert_eq!((log.load8(0), log.load8(1)), (0b1101, 0));
    assert!(memory.write(0x8fff, &[1, 2]));
    assert_eq!(log.load8(1), 0b11);
    memory.mark(0x5000, 0);
    assert_eq!(log.load8(0), 0b1101);
    memory.mark(0x4fff, 0x1002);
    assert_eq!(log.load8(0), 0b111_1101);
    // Beyond the log, and beyond all.
    memory.mark(0xffff, u64::MAX);
    memory.mark(u64::MAX, u64::MAX);
    assert_eq!(log.load8(1), 0b1000_0011);
}

#[test]
fn a_queue_can_be_handed_to_another_thread() {
    fn send<T: Send>() {}
    send::<Memory>();
    send::<crate::ring::Chain>();
    send::<crate::ring::split::Device>();
    send::<crate::ring::packed::Driver>();
    send::<crate::blk::Parser>();
    send::<crate::blk::Pending>();
}
