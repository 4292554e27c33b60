//! Set-up, stop, base, and what a driver may not add.

use super::super::*;
use crate::rig::{DATA, Format, Packed, RING, Rig, Split};

#[test]
fn event_indices() {
    assert!(passed(0, 1, 0) && !passed(1, 1, 0) && passed(4, 8, 0));
    assert!(!passed(8, 8, 0) && !passed(9, 8, 0) && !passed(0xffff, 8, 0));
    assert!(passed(0xffff, 3, 0xfff0) && passed(2, 3, 0xfff0) && !passed(3, 3, 0xfff0));
}

#[test]
fn sizes_and_places_of_rings() {
    let rig = Rig::new(RingConfig::new(8));
    let size = |size| RingConfig::new(size);
    let areas = rig.areas::<Split>();
    let split_size = |n| split::Device::new(areas.clone(), size(n), 0).map(|_| ());
    for n in [0, 3, 7, 32769, u16::MAX] {
        assert_eq!(split_size(n), Err(SetupError::Size(n)));
    }
    for n in [1, 2, 4, 8] {
        assert_eq!(split_size(n), Ok(()));
    }
    assert_eq!(split_size(16), Err(SetupError::Short));
    let packed_size = |n, base| packed::Device::new(areas.clone(), size(n), base).map(|_| ());
    for n in [0, 32769] {
        assert_eq!(packed_size(n, 0), Err(SetupError::Size(n)));
    }
    assert_eq!(packed_size(7, packed::START), Ok(()));
    for base in [7, 7 << 16 | 1, 0x8007_8000, u32::MAX] {
        assert_eq!(packed_size(7, base), Err(SetupError::Base), "{base:#x}");
    }
    let base = split::Device::new(areas.clone(), size(8), 0x1_0000);
    assert_eq!(base.map(|_| ()), Err(SetupError::Base));
    // Alignment: 16, 2 and 4 bytes; 16, 4 and 4.
    let moved = |part: usize, by: usize| {
        let mut areas = areas.clone();
        let area = match part {
            0 => &mut areas.descriptors,
            1 => &mut areas.driver,
            _ => &mut areas.device,
        };
        *area = area.part(by, area.len() - by).unwrap();
        areas
    };
    let split = |part, by| split::Device::new(moved(part, by), size(2), 0).map(|_| ());
    let packed = |part, by| packed::Device::new(moved(part, by), size(2), 0).map(|_| ());
    let bad = Err(SetupError::Alignment);
    assert_eq!((split(0, 8), split(1, 1), split(2, 2)), (bad, bad, bad));
    assert_eq!(
        (split(0, 16), split(1, 2), split(2, 4)),
        (Ok(()), Ok(()), Ok(()))
    );
    assert_eq!((packed(0, 8), packed(1, 2), packed(2, 2)), (bad, bad, bad));
    let find = |address| {
        let addresses = [address, RING, RING];
        let lengths = split::lengths(8);
        RingAreas::find(rig.memory.map(), AddressKind::Guest, addresses, lengths).map(|_| ())
    };
    assert_eq!(find(RING), Ok(()));
    for address in [0, DATA - 1, u64::MAX, u64::MAX - 63] {
        assert_eq!(find(address), Err(SetupError::Address(address)));
    }
}

fn one(len: u32, writable: bool) -> Buffer {
    Buffer {
        address: DATA,
        len,
        writable,
    }
}

#[test]
fn chains_that_cannot_be_added() {
    fn check<F: Format>(indirect: bool) {
        let rig = Rig::new(RingConfig {
            indirect,
            ..RingConfig::new(4)
        });
        let mut driver = F::driver(&rig);
        assert_eq!(driver.add(&[], 0), Err(AddError::Malformed));
        assert_eq!(driver.add(&[one(0, true)], 0), Err(AddError::Malformed));
        let order = [one(1, true), one(1, false)];
        assert_eq!(driver.add(&order, 0), Err(AddError::Malformed));
        let huge = [one(u32::MAX, true), one(1, true)];
        assert_eq!(driver.add(&huge, 0), Err(AddError::Malformed));
        // Too long for ever is not the same as too long for now.
        let long = vec![one(1, true); 17];
        assert_eq!(driver.add(&long, 0), Err(AddError::TooLong(17)));
        let five = driver.add(&long[..5], 0);
        assert_eq!(
            five,
            if indirect {
                Ok(())
            } else {
                Err(AddError::TooLong(5))
            }
        );
        while driver.add(&long[..1], 0).is_ok() {}
        assert_eq!(driver.add(&long[..1], 0), Err(AddError::Full));
        assert_eq!(driver.in_flight(), 4);
        let _ = driver.publish();
        let (mut device, mut chain) = (F::device(&rig, F::START), Chain::new());
        let token = device.pop(&rig.memory, &mut chain).unwrap().unwrap();
        device.push(token, 0);
        let _ = device.publish();
        assert_eq!(driver.pop().unwrap().map(|used| used.written), Some(0));
        assert_eq!(driver.add(&long[..1], 0), Ok(()));
    }
    for indirect in [false, true] {
        check::<Split>(indirect);
        check::<Packed>(indirect);
    }
}

#[test]
fn tokens_of_a_stopped_queue_do_nothing() {
    fn check<F: Format>() {
        let rig = Rig::new(RingConfig::new(4));
        let mut driver = F::driver(&rig);
        for cookie in 0..3 {
            driver.add(&[one(1, true)], cookie).unwrap();
        }
        let _ = driver.publish();
        let (mut device, mut chain) = (F::device(&rig, F::START), Chain::new());
        let mut pop = |device: &mut F::Device| device.pop(&rig.memory, &mut chain);
        let old = pop(&mut device).unwrap().unwrap();
        let other = pop(&mut device).unwrap().unwrap();
        device.push(other, 1);
        let _ = device.publish();
        device.stop();
        assert_eq!(pop(&mut device).unwrap_err(), RingError::Stopped);
        device.push(old, 1);
        assert!(!device.publish(), "a stopped queue says nothing");
        assert_eq!(driver.pop().unwrap().unwrap().cookie, 1);
        assert_eq!(driver.pop().unwrap(), None);
    }
    check::<Split>();
    check::<Packed>();
}

#[test]
fn a_base_says_where_to_go_on() {
    let rig = Rig::new(RingConfig::new(3));
    let mut driver = Packed::driver(&rig);
    let (mut device, mut chain) = (Packed::device(&rig, packed::START), Chain::new());
    for cookie in 0..4 {
        driver.add(&[one(1, true)], cookie).unwrap();
        let _ = driver.publish();
        let token = device.pop(&rig.memory, &mut chain).unwrap().unwrap();
        device.push(token, 0);
        let _ = device.publish();
        assert!(driver.pop().unwrap().is_some());
    }
    // The second round, descriptor 1, on both sides.
    assert_eq!(device.stop(), 0x0001_0001);
    // The second front-end keeps the lower half alone.
    for base in [0x0001_0001, 0x0002] {
        driver.add(&[one(1, true)], 9).unwrap();
        let _ = driver.publish();
        let mut device = Packed::device(&rig, base);
        let token = device.pop(&rig.memory, &mut chain).unwrap().unwrap();
        device.push(token, 0);
        let _ = device.publish();
        assert_eq!(driver.pop().unwrap().unwrap().cookie, 9);
    }
}
