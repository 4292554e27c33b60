//! Guests that lie to a device, and devices that lie to a driver.

use super::super::*;
use crate::{
    memory::hook,
    rig::{DATA, DATA_LEN, Format, Packed, RING, Rig, Split},
};

fn config(size: u16) -> RingConfig {
    RingConfig {
        indirect: true,
        ..RingConfig::new(size)
    }
}

/// A descriptor of a split ring, or of its tables.
fn split(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let word = u128::from(len) | u128::from(flags) << 32 | u128::from(next) << 48;
    (u128::from(address) | word << 64).to_le_bytes()
}

/// A descriptor of a packed ring, available in its first round, or of its tables.
fn packed(address: u64, len: u32, id: u16, flags: u16) -> [u8; 16] {
    split(address, len, id, flags | 1 << 7)
}

/// A split ring with a device, whose guest writes what it likes.
struct Raw {
    rig: Rig,
    areas: RingAreas,
    device: split::Device,
    chain: Chain,
}

impl Raw {
    fn new(size: u16) -> Raw {
        let rig = Rig::new(config(size));
        Raw {
            areas: rig.areas::<Split>(),
            device: Split::device(&rig, 0),
            chain: Chain::new(),
            rig,
        }
    }

    fn describe(&self, index: u16, descriptor: [u8; 16]) {
        let at = usize::from(index) * 16;
        self.areas.descriptors.write(at, &descriptor);
    }

    /// Makes heads available and says where the index is.
    fn offer(&self, heads: &[u16], index: u16) {
        for (n, head) in heads.iter().enumerate() {
            self.areas.driver.store16(4 + 2 * n, *head);
        }
        self.areas.driver.store16(2, index);
    }

    fn pop(&mut self) -> Result<Option<Token>, RingError> {
        self.device.pop(&self.rig.memory, &mut self.chain)
    }

    /// What a chain of these descriptors, from 0 on, is refused for.
    fn fault(descriptors: &[[u8; 16]]) -> Option<Fault> {
        let mut raw = Raw::new(8);
        for (n, descriptor) in descriptors.iter().enumerate() {
            raw.describe(n as u16, *descriptor);
        }
        raw.offer(&[0], 1);
        let token = raw.pop().unwrap().unwrap();
        raw.device.push(token, 0);
        assert!(raw.device.publish());
        raw.chain.fault()
    }
}

#[test]
fn an_index_that_jumps_breaks_the_ring() {
    let mut raw = Raw::new(8);
    raw.offer(&[0; 8], 9);
    assert_eq!(raw.pop().unwrap_err(), RingError::Jump { from: 0, to: 9 });
    // It stays broken, whatever the guest does.
    raw.offer(&[0; 8], 1);
    assert!(raw.pop().is_err() && raw.device.enable_kicks().is_err());
    // Backwards is far forwards.
    let mut raw = Raw::new(8);
    raw.offer(&[0], 1);
    let token = raw.pop().unwrap().unwrap();
    raw.offer(&[0], 0);
    assert!(matches!(raw.pop(), Err(RingError::Jump { .. })));
    // What was taken may still be answered.
    raw.device.push(token, 0);
    assert!(raw.device.publish());
}

#[test]
fn heads_beyond_the_ring_or_in_use() {
    let mut raw = Raw::new(8);
    raw.offer(&[8], 1);
    assert_eq!(raw.pop().unwrap_err(), RingError::Beyond(8));
    let mut raw = Raw::new(8);
    raw.describe(3, split(DATA, 1, 0, 0));
    raw.offer(&[3, 3], 2);
    let _token = raw.pop().unwrap().unwrap();
    assert_eq!(raw.pop().unwrap_err(), RingError::InUse(3));
    let mut raw = Raw::new(8);
    raw.describe(0, split(DATA, 1, DESC_NEXT, 8));
    raw.offer(&[0], 1);
    assert_eq!(raw.pop().unwrap_err(), RingError::Beyond(8));
}

#[test]
fn loops_end() {
    for next in [0, 1] {
        let mut raw = Raw::new(8);
        raw.describe(0, split(DATA, 1, DESC_NEXT, 1));
        raw.describe(1, split(DATA, 1, DESC_NEXT, next));
        raw.offer(&[0], 1);
        assert_eq!(raw.pop().unwrap_err(), RingError::Loop);
        assert_eq!(raw.device.in_flight(), 0);
    }
}

#[test]
fn faults_of_a_chain() {
    let good = split(DATA, 4, 0, 0);
    assert_eq!(Raw::fault(&[good]), None);
    // Empty ones are passed over.
    assert_eq!(Raw::fault(&[split(0, 0, DESC_NEXT, 1), good]), None);
    let address = Some(Fault::Address);
    assert_eq!(Raw::fault(&[split(0, 1, 0, 0)]), address);
    assert_eq!(Raw::fault(&[split(DATA, u32::MAX, 0, 0)]), address);
    assert_eq!(Raw::fault(&[split(u64::MAX, 1, 0, 0)]), address);
    assert_eq!(Raw::fault(&[split(u64::MAX - 1, 8, 0, 0)]), address);
    let across = split(DATA + 2 * DATA_LEN - 1, 2, 0, 0);
    assert_eq!(Raw::fault(&[across]), address);
    let order = [split(DATA, 4, DESC_WRITE | DESC_NEXT, 1), good];
    assert_eq!(Raw::fault(&order), Some(Fault::Order));
    // More than 4 GiB, by pieces that are there: this memory would be needed for real.
    let table = |len, flags| split(DATA, len, DESC_INDIRECT | flags, 1);
    assert_eq!(
        Raw::fault(&[table(16, DESC_NEXT), good]),
        Some(Fault::Nested)
    );
    for len in [0, 8, 15, 17, 1025 * 16, u32::MAX, u32::MAX - 15] {
        let fault = Raw::fault(&[table(len, 0)]);
        assert_eq!(fault, Some(Fault::TableLength), "{len}");
    }
    let outside = split(DATA + 2 * DATA_LEN - 16, 32, DESC_INDIRECT, 0);
    assert_eq!(
        Raw::fault(&[outside]),
        None,
        "its second descriptor is not reached"
    );
    let wraps = split(u64::MAX - 15, 32, DESC_INDIRECT, 0);
    assert_eq!(Raw::fault(&[wraps]), address);
}

/// What is wrong with an indirect table of these descriptors, in both formats of ring.
fn table_fault<F: Format>(descriptors: &[[u8; 16]], at: u64) -> (Option<Fault>, u32) {
    let rig = Rig::new(config(8));
    let areas = rig.areas::<F>();
    assert!(rig.memory.write(at, &descriptors.concat()));
    let len = descriptors.len() as u32 * 16;
    let descriptor = match F::PACKED {
        true => packed(at, len, 5, DESC_INDIRECT),
        false => split(at, len, DESC_INDIRECT, 0),
    };
    areas.descriptors.write(0, &descriptor);
    if !F::PACKED {
        areas.driver.store16(2, 1);
    }
    let (mut device, mut chain) = (F::device(&rig, F::START), Chain::new());
    let token = device.pop(&rig.memory, &mut chain).unwrap().unwrap();
    assert_eq!(token.id(), if F::PACKED { 5 } else { 0 });
    (chain.fault(), chain.readable_len())
}

#[test]
fn indirect_tables() {
    let at = DATA + 0x1000;
    let one = |flags, next| split(DATA, 4, flags, next);
    let split_fault = |table: &[[u8; 16]]| table_fault::<Split>(table, at);
    assert_eq!(
        split_fault(&[one(1, 2), one(1, 9), one(1, 1)]).0,
        Some(Fault::TableChain)
    );
    assert_eq!(
        split_fault(&[one(1, 1), one(1, 0)]).0,
        Some(Fault::TableChain)
    );
    assert_eq!(split_fault(&[one(1, 3)]).0, Some(Fault::TableChain));
    assert_eq!(
        split_fault(&[one(1, 1), one(DESC_INDIRECT, 0)]).0,
        Some(Fault::Nested)
    );
    assert_eq!(split_fault(&[one(1, 2), one(1, 9), one(0, 0)]), (None, 8));
    // In a packed ring they follow one another, whatever else they say.
    let packed_fault = |table: &[[u8; 16]]| table_fault::<Packed>(table, at);
    assert_eq!(
        packed_fault(&[packed(DATA, 4, 9, 1), packed(DATA, 4, 0, 0)]),
        (None, 8)
    );
    let nested = [packed(DATA, 4, 0, DESC_INDIRECT)];
    assert_eq!(packed_fault(&nested).0, Some(Fault::Nested));
    // A table across two regions, and in odd places.
    for at in [
        DATA + DATA_LEN - 16,
        DATA + DATA_LEN - 8,
        DATA + DATA_LEN - 3,
        DATA + 1,
    ] {
        let table = [one(1, 1), one(1, 2), one(0, 0)];
        assert_eq!(table_fault::<Split>(&table, at), (None, 12));
        let table = [packed(DATA, 4, 0, 0); 3];
        assert_eq!(table_fault::<Packed>(&table, at), (None, 12));
    }
}

#[test]
fn indirect_without_the_feature() {
    let mut rig = Rig::new(config(8));
    rig.config.indirect = false;
    let areas = rig.areas::<Split>();
    areas
        .descriptors
        .write(0, &split(DATA, 16, DESC_INDIRECT, 0));
    areas.driver.store16(2, 1);
    let (mut device, mut chain) = (Split::device(&rig, 0), Chain::new());
    let _token = device.pop(&rig.memory, &mut chain).unwrap().unwrap();
    assert_eq!(chain.fault(), Some(Fault::NotAgreed));
}

#[test]
fn more_than_four_gibibytes() {
    let rig = Rig::new(config(8));
    // A table of descriptors over the same 128 KiB, as long as a table may be, twice what fits.
    let table = vec![split(DATA, 2 * DATA_LEN as u32, 0, 0); 1024];
    let map = vec![
        Region::heap(DATA, 2 * DATA_LEN as usize),
        Region::heap(RING, 0x10_0000),
    ];
    let memory = Memory::new(std::sync::Arc::new(RegionMap::new(map).unwrap()));
    assert!(memory.write(RING + 0x1_0000, &table.concat()));
    let mut chain = Chain::new();
    chain.begin(1 << 20);
    for _ in 0..31 {
        chain.add_table(
            &memory,
            RING + 0x1_0000,
            1024 * 16,
            1024,
            chain::TableKind::Packed,
        );
    }
    assert_eq!((chain.fault(), chain.readable_len()), (None, 31 << 27));
    chain.add_table(
        &memory,
        RING + 0x1_0000,
        1024 * 16,
        1024,
        chain::TableKind::Packed,
    );
    assert_eq!(chain.fault(), Some(Fault::TooLong));
    drop(rig);
}

use crate::memory::Region;

#[test]
fn packed_rings_that_never_end() {
    let rig = Rig::new(config(4));
    let areas = rig.areas::<Packed>();
    let (mut device, mut chain) = (Packed::device(&rig, packed::START), Chain::new());
    for index in 0..4 {
        areas
            .descriptors
            .write(index * 16, &packed(DATA, 1, 0, DESC_NEXT));
    }
    assert_eq!(
        device.pop(&rig.memory, &mut chain).unwrap_err(),
        RingError::Loop
    );
    // All descriptors are in flight, and the guest makes the first one available again.
    let (mut device, mut chain) = (Packed::device(&rig, packed::START), Chain::new());
    let mut tokens = Vec::new();
    for index in 0..4 {
        areas.descriptors.write(index * 16, &packed(DATA, 1, 7, 0));
        tokens.extend(device.pop(&rig.memory, &mut chain).unwrap());
    }
    assert_eq!(tokens.len(), 4);
    areas.descriptors.store16(14, 1 << 15);
    assert_eq!(
        device.pop(&rig.memory, &mut chain).unwrap_err(),
        RingError::Loop
    );
    // The four are answered all the same.
    for token in tokens {
        device.push(token, 0);
    }
    assert!(device.publish());
    assert_eq!(device.in_flight(), 0);
}

/// What was pushed and not published is still the device's: a guest cannot give it again.
#[test]
fn descriptors_given_again_before_they_are_seen_used() {
    let mut raw = Raw::new(4);
    for head in 0..4 {
        raw.describe(head, split(DATA, 1, 0, 0));
    }
    raw.offer(&[0, 1, 2, 3], 4);
    for _ in 0..4 {
        let token = raw.pop().unwrap().unwrap();
        raw.device.push(token, 0);
    }
    raw.offer(&[0, 1, 2, 3], 8);
    assert_eq!(raw.pop().unwrap_err(), RingError::InUse(0));
    let rig = Rig::new(config(4));
    let areas = rig.areas::<Packed>();
    let (mut device, mut chain) = (Packed::logged(&rig), Chain::new());
    for index in 0..4 {
        areas.descriptors.write(index * 16, &packed(DATA, 1, 7, 0));
        let token = device.pop(&rig.memory, &mut chain).unwrap().unwrap();
        device.push(token, 0);
    }
    areas.descriptors.store16(14, 1 << 15);
    let refused = device.pop(&rig.memory, &mut chain).unwrap_err();
    assert_eq!(refused, RingError::Loop);
    assert!(device.publish());
}

/// Every word is read once: a guest that changes the ring between any two reads changes nothing that
/// was checked, and nothing that is done afterwards is outside of memory.
fn flips<F: Format>() {
    // Data outside of memory, a status, a table in a table: whatever the guest flips to.
    let evil = [
        split(0, 0x1000, DESC_NEXT | DESC_WRITE, 7),
        split(u64::MAX, u32::MAX, DESC_INDIRECT, 0xffff),
        packed(DATA, 16, 0xffff, DESC_NEXT),
        split(DATA + 8, 100, DESC_NEXT, 0),
    ];
    let accesses = {
        let (rig, mut device) = filled::<F>();
        hook::set(Box::new(|_| {}));
        turn(&mut device, &rig);
        hook::clear()
    };
    assert!(accesses > 20);
    for at in 0..accesses {
        for evil in evil {
            for place in 0..8 {
                let (rig, mut device) = filled::<F>();
                let memory = rig.memory.clone();
                let areas = rig.areas::<F>();
                hook::set(Box::new(move |count| {
                    if count == at {
                        areas.descriptors.write(place * 16, &evil);
                        assert!(memory.write(DATA, &[0xff; 16]));
                        if !F::PACKED && place == 0 {
                            areas.driver.write(2, &evil[..6]);
                        }
                    }
                }));
                turn(&mut device, &rig);
                hook::clear();
            }
        }
    }
}

/// A ring with reads in three descriptors, and a device.
fn filled<F: Format>() -> (Rig, F::Device) {
    let rig = Rig::new(config(8));
    let (mut driver, device) = (F::driver(&rig), F::device(&rig, F::START));
    assert!(rig.memory.write(DATA, &[0; 16]));
    let one = |address, len, writable| Buffer {
        address,
        len,
        writable,
    };
    for cookie in 0..8 {
        let buffers = [
            one(DATA, 16, false),
            one(DATA + 4096, 512, true),
            one(DATA + 16 + cookie, 1, true),
        ];
        driver.add(&buffers, cookie).unwrap();
    }
    let _ = driver.publish();
    (rig, device)
}

/// Serves what there is; every segment has to lie in the memory of its address.
fn turn<R: DeviceRing>(device: &mut R, rig: &Rig) {
    use crate::blk::{Command, Config, Parser, Status};
    let config = Config {
        capacity: 1 << 20,
        ..Config::default()
    };
    let (mut parser, mut chain) = (Parser::new(config, 1 << 32, false), Chain::new());
    let mut count = 0;
    while let Ok(Some(token)) = device.pop(&rig.memory, &mut chain) {
        count += 1;
        assert!(
            count <= 16,
            "more chains than a ring and its change can hold"
        );
        let (pending, command) = parser.parse(&rig.memory, &mut chain);
        let (status, written) = match command {
            Ok(Command::Read { offset, len, data }) => {
                assert!(offset + u64::from(len) <= 512 << 20);
                let sum: u64 = data.iter().map(|piece| u64::from(piece.len())).sum();
                assert_eq!(sum, u64::from(len));
                for piece in data {
                    let again = rig.memory.segment(piece.guest(), piece.len()).unwrap();
                    assert_eq!(again.host(), piece.host());
                }
                (Status::Ok, len)
            }
            Ok(_) => (Status::Unsupported, 0),
            Err(status) => (status, 0),
        };
        let room = chain.writable_len() + 1;
        let told = pending.finish(&rig.memory, status, written);
        assert!(told <= room);
        device.push(token, told);
        let _ = device.publish();
    }
}

#[test]
#[cfg_attr(miri, ignore = "long")]
fn a_guest_that_writes_between_two_reads() {
    flips::<Split>();
    flips::<Packed>();
}

/// A guest on another thread, which writes to all of the ring all the time.
#[test]
#[cfg_attr(
    miri,
    ignore = "accesses of different sizes to the same bytes: Rust's model has none"
)]
fn a_guest_that_writes_at_the_same_time() {
    use std::sync::atomic::{AtomicBool, Ordering};
    fn race<F: Format>() {
        let stop = AtomicBool::new(false);
        let rig = Rig::new(config(8));
        let areas = rig.areas::<F>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = crate::rig::Random::new(7);
                while !stop.load(Ordering::Relaxed) {
                    let area = match random.below(3) {
                        0 => &areas.descriptors,
                        1 => &areas.driver,
                        _ => &areas.device,
                    };
                    let at = random.below(area.len() as u64 / 4) as usize * 4;
                    let value = match random.below(3) {
                        0 => random.below(8) as u32 * 0x1_0001,
                        1 => random.below(0x800) as u32 | 0x1000_0000,
                        _ => random.below(1 << 31) as u32,
                    };
                    area.store32(at, value);
                }
            });
            for _ in 0..3000 {
                let mut device = F::device(&rig, F::START);
                let mut chain = Chain::new();
                for _ in 0..10 {
                    match device.pop(&rig.memory, &mut chain) {
                        Ok(Some(token)) => device.push(token, 0),
                        Ok(None) => {}
                        Err(_) => break,
                    }
                    let _ = device.publish();
                    let _ = device.enable_kicks();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    race::<Split>();
    race::<Packed>();
}

/// A device that lies to a driver.
#[test]
fn devices_that_lie() {
    let add = |driver: &mut split::Driver| {
        let buffer = Buffer {
            address: DATA,
            len: 8,
            writable: true,
        };
        driver.add(&[buffer], 1).unwrap();
    };
    let world = || {
        let rig = Rig::new(RingConfig::new(8));
        let mut driver = Split::driver(&rig);
        add(&mut driver);
        let _ = driver.publish();
        let device = rig.areas::<Split>().device;
        (driver, device)
    };
    let used = |device: &Area, id: u32, len: u32, index| {
        device.store32(4, id);
        device.store32(8, len);
        device.store16(2, index);
    };
    let (mut driver, device) = world();
    used(&device, 0, 0, 2);
    assert_eq!(driver.pop(), Err(RingError::Jump { from: 0, to: 2 }));
    let (mut driver, device) = world();
    used(&device, 1, 0, 1);
    assert_eq!(driver.pop(), Err(RingError::NotAvailable(1)));
    used(&device, 8, 0, 1);
    assert_eq!(driver.pop(), Err(RingError::Beyond(8)));
    used(&device, 0x1_0000, 0, 1);
    assert!(driver.pop().is_err());
    used(&device, 0, 9, 1);
    assert_eq!(driver.pop(), Err(RingError::Length { wrote: 9, room: 8 }));
    used(&device, 0, 8, 1);
    let good = Some(Used {
        cookie: 1,
        written: 8,
    });
    assert_eq!(driver.pop(), Ok(good));
    // Before anything was published nothing can be used.
    add(&mut driver);
    used(&device, 0, 0, 2);
    assert!(driver.pop().is_err());
}

#[test]
fn packed_devices_that_lie() {
    let rig = Rig::new(RingConfig::new(8));
    let mut driver = Packed::driver(&rig);
    let buffer = Buffer {
        address: DATA,
        len: 8,
        writable: true,
    };
    driver.add(&[buffer], 1).unwrap();
    let ring = rig.areas::<Packed>().descriptors;
    let used = |id, len| ring.write(0, &split(0, len, id, 1 << 7 | 1 << 15 | DESC_WRITE));
    used(0, 1);
    assert_eq!(driver.pop(), Ok(None), "it is not published");
    assert!(!driver.enable_calls().unwrap());
    let _ = driver.publish();
    used(3, 1);
    assert_eq!(driver.pop(), Err(RingError::NotAvailable(3)));
    used(8, 1);
    assert_eq!(driver.pop(), Err(RingError::Beyond(8)));
    used(0, 9);
    assert_eq!(driver.pop(), Err(RingError::Length { wrote: 9, room: 8 }));
    used(0, 8);
    assert_eq!(driver.pop().unwrap().unwrap().written, 8);
}
