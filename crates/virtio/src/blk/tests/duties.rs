//! The duties of a device towards a guest that lies, one by one.

use super::*;

#[test]
fn any_framing_is_accepted() {
    fn check<F: Format>() {
        let mut guest = Guest::<F>::new();
        let bytes = [&header(kind::OUT, 3)[..], &[9; 512]].concat();
        for pieces in [
            vec![528],
            vec![16, 512],
            vec![1; 16].into_iter().chain([512]).collect(),
            vec![7, 13, 508],
            vec![15, 1, 511, 1],
        ] {
            guest.disk.fill(0);
            assert_eq!(guest.cut(&bytes, &pieces, &[1]), (OK, 1));
            assert_eq!(guest.disk[1536..2048], [9; 512]);
        }
        let bytes = header(kind::IN, 3);
        for room in [
            vec![513],
            vec![512, 1],
            vec![1; 13].into_iter().chain([500]).collect(),
        ] {
            assert_eq!(guest.cut(&bytes, &[16], &room), (OK, 513));
        }
        // An append's answer in nine pieces.
        let bytes = [&header(kind::ZONE_APPEND, 16)[..], &[9; 512]].concat();
        assert_eq!(guest.cut(&bytes, &[528], &[1; 9]), (OK, 9));
        assert_eq!(guest.cut(&bytes, &[528], &[4, 5]), (OK, 9));
    }
    check::<Split>();
    check::<Packed>();
}

#[test]
fn too_little_of_everything() {
    let mut guest = Guest::<Split>::new();
    // A header that is too short; no room for a status; nothing but a status.
    assert_eq!(guest.cut(&[0; 15], &[15], &[1]), (IOERR, 1));
    assert_eq!(guest.cut(&header(kind::FLUSH, 0), &[16], &[]).1, 0);
    assert_eq!(guest.seen, "IoError");
    assert_eq!(guest.cut(&[], &[], &[1]), (IOERR, 1));
    // No data, half a sector, room for less than a serial number, lifetime, report, append.
    assert_eq!(guest.ask(kind::IN, 0, &[]), (IOERR, 1));
    assert_eq!(guest.ask(kind::OUT, 0, &[]), (IOERR, 1));
    assert_eq!(guest.ask(kind::OUT, 0, &[0; 100]), (IOERR, 1));
    let short =
        |guest: &mut Guest<Split>, kind, room: u32| guest.cut(&header(kind, 0), &[16], &[room, 1]);
    assert_eq!(short(&mut guest, kind::IN, 511), (IOERR, 0));
    assert_eq!(short(&mut guest, kind::GET_ID, 19), (IOERR, 0));
    assert_eq!(short(&mut guest, kind::GET_LIFETIME, 5), (IOERR, 0));
    assert_eq!(short(&mut guest, kind::ZONE_REPORT, 63), (INVALID, 0));
    let bytes = [&header(kind::ZONE_APPEND, 0)[..], &[9; 512]].concat();
    assert_eq!(guest.cut(&bytes, &[528], &[7, 1]), (IOERR, 0));
}

#[test]
fn places_outside_of_the_disk() {
    let mut guest = Guest::<Packed>::new();
    for sector in [
        SECTORS,
        SECTORS + 1,
        u64::MAX,
        u64::MAX / 512,
        1 << 55,
        1 << 63,
    ] {
        assert_eq!(
            guest.ask(kind::OUT, sector, &[0; 512]),
            (IOERR, 1),
            "{sector}"
        );
        assert_eq!(
            guest.cut(&header(kind::IN, sector), &[16], &[513]),
            (IOERR, 0)
        );
    }
    assert_eq!(guest.ask(kind::OUT, SECTORS - 1, &[0; 512]), (OK, 1));
    assert_eq!(guest.ask(kind::OUT, SECTORS - 1, &[0; 1024]), (IOERR, 1));
    // A disk of all there could be: no sum wraps.
    guest.parser.config.capacity = u64::MAX;
    assert_eq!(guest.ask(kind::OUT, u64::MAX, &[0; 512]), (IOERR, 1));
    assert_eq!(guest.ask(kind::OUT, u64::MAX / 512, &[0; 512]), (IOERR, 1));
    // The disk shrank.
    guest.parser.config.capacity = 1;
    assert_eq!(guest.ask(kind::OUT, 1, &[0; 512]), (IOERR, 1));
}

#[test]
fn blocks_larger_than_sectors() {
    let mut guest = Guest::<Split>::new();
    guest.parser.config.blk_size = 4096;
    assert_eq!(guest.ask(kind::OUT, 8, &[0; 4096]), (OK, 1));
    assert_eq!(guest.ask(kind::OUT, 8, &[0; 512]), (IOERR, 1));
    assert_eq!(guest.ask(kind::OUT, 7, &[0; 4096]), (IOERR, 1));
    assert_eq!(guest.ask(kind::DISCARD, 0, &range(8, 4, 0)), (IOERR, 1));
    assert_eq!(guest.ask(kind::DISCARD, 0, &range(8, 8, 0)), (OK, 1));
    // Without the feature the driver does not know.
    guest.parser.features &= !(1 << feature::BLK_SIZE);
    assert_eq!(guest.ask(kind::OUT, 7, &[0; 512]), (OK, 1));
}

#[test]
fn ranges() {
    let mut guest = Guest::<Split>::new();
    for kind in [kind::DISCARD, kind::WRITE_ZEROES, kind::SECURE_ERASE] {
        let mut ask = |payload: &[u8]| guest.ask(kind, 0, payload).0;
        assert_eq!(ask(&range(0, 32, 0)), OK);
        assert_eq!(ask(&range(0, 0, 0)), OK);
        assert_eq!(ask(&[range(0, 8, 0); 4].concat()), OK);
        // Too many, none, half a one; too long, outside, wrapping.
        assert_eq!(ask(&[range(0, 8, 0); 5].concat()), IOERR);
        assert_eq!(ask(&[]), IOERR);
        assert_eq!(ask(&range(0, 8, 0)[..15]), IOERR);
        assert_eq!(ask(&range(0, 33, 0)), IOERR);
        assert_eq!(ask(&range(0, u32::MAX, 0)), IOERR);
        assert_eq!(ask(&range(60, 5, 0)), IOERR);
        assert_eq!(ask(&range(u64::MAX, 1, 0)), IOERR);
        assert_eq!(ask(&range(u64::MAX - 3, 8, 0)), IOERR);
        // One bad one spoils all.
        assert_eq!(ask(&[range(0, 8, 0), range(64, 1, 0)].concat()), IOERR);
        // Flags.
        let unmap = if kind == kind::WRITE_ZEROES {
            OK
        } else {
            UNSUPP
        };
        assert_eq!(ask(&range(0, 8, 1)), unmap);
        assert_eq!(ask(&range(0, 8, 2)), UNSUPP);
        assert_eq!(ask(&range(0, 8, 1 << 31)), UNSUPP);
    }
}

#[test]
fn what_was_not_agreed_upon() {
    let mut guest = Guest::<Split>::new();
    guest.parser.features = 0;
    for kind in [kind::DISCARD, kind::WRITE_ZEROES, kind::SECURE_ERASE] {
        assert_eq!(guest.ask(kind, 0, &range(0, 8, 0)), (UNSUPP, 1));
    }
    for kind in (15..27).chain([1, 2, 3, 5, 6, 7, 9, 12, 27, 100, u32::MAX]) {
        if kind != kind::OUT {
            assert_eq!(guest.ask(kind, 0, &[]), (UNSUPP, 1), "{kind}");
        }
    }
    assert_eq!(
        guest.cut(&header(kind::GET_LIFETIME, 0), &[16], &[7]),
        (UNSUPP, 0)
    );
    assert_eq!(guest.cut(&header(kind::GET_ID, 0), &[16], &[21]), (OK, 21));
    assert_eq!(guest.ask(kind::FLUSH, 0, &[]), (OK, 1));
}

#[test]
fn a_read_only_disk_is_not_written() {
    for features in [all_features(), all_features() | 1 << feature::RO] {
        let mut guest = Guest::<Split>::new();
        guest.parser = Parser::new(config(), features, features == all_features());
        assert_eq!(guest.ask(kind::OUT, 0, &[1; 512]), (IOERR, 1));
        for kind in [kind::DISCARD, kind::WRITE_ZEROES, kind::SECURE_ERASE] {
            assert_eq!(guest.ask(kind, 0, &range(0, 8, 0)), (IOERR, 1));
        }
        for kind in [15, 18, 20, 22, 24, 26] {
            assert_eq!(guest.ask(kind, 0, &[]), (IOERR, 1));
        }
        assert_eq!(guest.cut(&header(kind::IN, 0), &[16], &[513]), (OK, 513));
        assert_eq!(guest.ask(kind::FLUSH, 0, &[]), (OK, 1));
    }
}

#[test]
fn zones_that_are_none() {
    let mut guest = Guest::<Split>::new();
    for kind in [18, 20, 22, 24] {
        assert_eq!(guest.ask(kind, 5, &[]), (INVALID, 1));
        assert_eq!(guest.ask(kind, SECTORS, &[]), (INVALID, 1));
        assert_eq!(guest.ask(kind, 16, &[]), (OK, 1));
    }
    let mut append = |sector, len: usize| {
        let bytes = [&header(kind::ZONE_APPEND, sector)[..], &vec![1; len]].concat();
        guest.cut(&bytes, &[16 + len], &[9]).0
    };
    assert_eq!((append(5, 512), append(SECTORS, 512)), (INVALID, INVALID));
    assert_eq!((append(16, 4096), append(16, 4608)), (OK, INVALID));
    assert_eq!((append(16, 0), append(16, 100)), (IOERR, IOERR));
}

#[test]
fn the_length_is_never_more_than_was_written() {
    let mut guest = Guest::<Split>::new();
    let memory = guest.rig.memory.clone();
    let buffers = [
        readable(DATA, 16),
        writable(DATA + 4096, 512),
        writable(DATA, 1),
    ];
    let mut length = |status, written| {
        assert!(memory.write(DATA, &header(kind::IN, 0)));
        guest.driver.add(&buffers, 0).unwrap();
        let _ = guest.driver.publish();
        let token = guest
            .device
            .pop(&memory, &mut guest.chain)
            .unwrap()
            .unwrap();
        let (pending, command) = guest.parser.parse(&memory, &mut guest.chain);
        assert!(command.is_ok());
        let len = pending.finish(&memory, status, written);
        guest.device.push(token, len);
        let _ = guest.device.publish();
        guest.driver.pop().unwrap().unwrap().written
    };
    assert_eq!(length(Status::Ok, 512), 513);
    assert_eq!(length(Status::IoError, 0), 0);
    assert_eq!(length(Status::IoError, 100), 100);
    assert_eq!(length(Status::Ok, u32::MAX), 513);
}

#[test]
fn faults_fail_the_request_alone() {
    let mut guest = Guest::<Split>::new();
    let memory = guest.rig.memory.clone();
    assert!(memory.write(DATA, &header(kind::IN, 0)));
    let status = DATA + 100;
    // Data outside of memory, in a hole, wrapping around: the status says so, nothing is written.
    for address in [0, DATA + 2 * DATA_LEN - 511, u64::MAX - 3] {
        assert!(memory.write(status, &[0xee]));
        let buffers = [
            readable(DATA, 16),
            writable(address, 512),
            writable(status, 1),
        ];
        guest.raw(&buffers);
        let mut byte = [0];
        assert!(memory.read(status, &mut byte));
        assert_eq!((byte[0], &*guest.seen), (IOERR, "IoError"));
    }
    // A status outside of memory: told to nobody.
    let buffers = [
        readable(DATA, 16),
        writable(DATA + 512, 512),
        writable(0, 1),
    ];
    assert_eq!(guest.raw(&buffers), 0);
    // And the queue goes on.
    assert_eq!(guest.ask(kind::FLUSH, 0, &[]), (OK, 1));
}
