//! Logs that are new, used, damaged. What a crash does is tested with the rings.

use super::*;
use crate::{
    memory::{Region, RegionMap},
    rig::{Format, Packed as PackedFormat, Rig, Split as SplitFormat},
    ring::{Chain, DeviceRing, RingConfig},
};

fn area(len: usize) -> Area {
    let map = RegionMap::new(vec![Region::heap(0, len)]).unwrap();
    map.by_guest(0, len).unwrap()
}

#[test]
fn lengths_are_those_of_the_protocol() {
    // 16 bytes of head and 16 for each descriptor; 32 and 32; whole cache lines.
    assert_eq!((length(false, 128), length(false, 3)), (2112, 64));
    assert_eq!((length(true, 128), length(true, 3)), (4160, 128));
    assert_eq!(length(true, 32768), 32 + 32 + 32 * 32768);
}

fn refused<F: Format>(damage: impl Fn(&Area)) -> Option<SetupError> {
    let rig = Rig::new(RingConfig::new(8));
    drop(F::logged(&rig));
    damage(&rig.log());
    F::open_log(&rig).err()
}

#[test]
fn heads_of_logs() {
    fn check<F: Format>() {
        assert_eq!(refused::<F>(|_| {}), None);
        assert!(refused::<F>(|log| log.store16(AT_VERSION, 2)).is_some());
        for count in [0, 7, 9, u16::MAX] {
            assert!(refused::<F>(|log| log.store16(AT_COUNT, count)).is_some());
        }
    }
    check::<SplitFormat>();
    check::<PackedFormat>();
    let short = Split::open(area(length(false, 8) - 1).part(0, 143).unwrap(), 8, 0);
    assert!(short.is_err());
    let moved = Split::open(area(4096).part(4, 1000).unwrap(), 8, 0);
    assert!(moved.is_err());
}

#[test]
fn logs_that_lead_nowhere() {
    // Split: a used index far away; a batch that leaves the log.
    assert!(refused::<SplitFormat>(|log| log.store16(14, 100)).is_some());
    let batch = |log: &Area| {
        log.store16(14, u16::MAX);
        log.store16(12, 8);
    };
    assert!(refused::<SplitFormat>(batch).is_some());
    // Packed: used index and wrap counter; free lists with a loop, or too short; chains.
    let packed = |damage: &dyn Fn(&Area)| refused::<PackedFormat>(damage).is_some();
    assert!(packed(&|log| log.store16(18, 8)) && packed(&|log| log.store8(21, 2)));
    assert!(packed(&|log| log.store16(32 + 2, 0)));
    assert!(packed(&|log| log.store16(14, 8)));
    let chain = |num: u16, last: u16, next: u16| {
        packed(&|log| {
            // Entry 0 is in flight, the free list begins at 1.
            log.store16(12, 1);
            log.store16(14, 1);
            log.store8(32, 1);
            log.store16(32 + 6, num);
            log.store16(32 + 4, last);
            log.store16(32 + 2, next);
        })
    };
    assert!(!chain(1, 0, 1), "a good one");
    assert!(chain(0, 0, 1) && chain(2, 0, 1) && chain(2, 1, 1) && chain(1, 1, 1));
    assert!(chain(2, 9, 9) && chain(u16::MAX, 0, 0));
}

/// The layout itself, byte by byte: a front-end hands it to another program's back-end.
#[test]
fn a_split_log_in_bytes() {
    let (rig, mut device, memory) = three::<SplitFormat>();
    let (mut chain, log) = (Chain::new(), rig.log());
    let first = device.pop(&memory, &mut chain).unwrap().unwrap();
    let second = device.pop(&memory, &mut chain).unwrap().unwrap();
    assert_eq!((log.load16(8), log.load16(10)), (1, 8));
    for (head, counter) in [(0, 0), (1, 1)] {
        assert_eq!(log.load8(16 + 16 * head), 1);
        assert_eq!(log.load64(16 + 16 * head + 8), counter);
    }
    assert_eq!(log.load8(16 + 32), 0);
    device.push(second, 0);
    let _ = device.publish();
    assert_eq!((log.load8(16), log.load8(32)), (1, 0));
    assert_eq!((log.load16(12), log.load16(14)), (1, 1));
    drop(first);
}

#[test]
fn a_packed_log_in_bytes() {
    let (rig, mut device, memory) = three::<PackedFormat>();
    let (mut chain, log) = (Chain::new(), rig.log());
    let first = device.pop(&memory, &mut chain).unwrap().unwrap();
    let second = device.pop(&memory, &mut chain).unwrap().unwrap();
    assert_eq!((log.load16(8), log.load16(10)), (1, 8));
    assert_eq!((log.load16(12), log.load16(14)), (2, 2));
    for entry in 0..2 {
        let at = 32 + 32 * entry as usize;
        assert_eq!(
            (log.load8(at), log.load16(at + 4), log.load16(at + 6)),
            (1, entry, 1)
        );
        assert_eq!(log.load64(at + 8), entry.into());
        assert_eq!(log.load16(at + 16), entry);
        assert_eq!(log.load32(at + 20), 1);
        assert_eq!(log.load64(at + 24), crate::rig::DATA);
    }
    device.push(second, 0);
    let _ = device.publish();
    assert_eq!((log.load8(32), log.load8(64)), (1, 0));
    // Entry 1 is the free list's head again, 2 follows.
    assert_eq!((log.load16(12), log.load16(14), log.load16(66)), (1, 1, 2));
    assert_eq!((log.load16(16), log.load16(18)), (1, 1));
    assert_eq!((log.load8(20), log.load8(21)), (1, 1));
    drop(first);
}

/// A queue of three chains of one byte.
fn three<F: Format>() -> (Rig, F::Device, crate::memory::Memory) {
    use crate::ring::{Buffer, DriverRing};
    let rig = Rig::new(RingConfig::new(8));
    let mut driver = F::driver(&rig);
    let buffer = Buffer {
        address: crate::rig::DATA,
        len: 1,
        writable: true,
    };
    for cookie in 0..3 {
        driver.add(&[buffer], cookie).unwrap();
    }
    let _ = driver.publish();
    let (device, memory) = (F::logged(&rig), rig.memory.clone());
    (rig, device, memory)
}
