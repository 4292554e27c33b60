//! The driver's side against the device's over both kinds of ring.

mod duties;

use super::*;
use crate::{
    memory::Segment,
    rig::{DATA, DATA_LEN, Format, Packed, RING, Rig, Split},
    ring::{Buffer, Chain, DeviceRing, DriverRing, RingConfig},
};

const SECTORS: u64 = 64;

fn all_features() -> u64 {
    (0..64)
        .filter(|bit| *bit != feature::RO)
        .map(|bit| 1 << bit)
        .sum()
}

fn config() -> Config {
    Config {
        capacity: SECTORS,
        max_discard_sectors: 32,
        max_discard_seg: 4,
        max_write_zeroes_sectors: 32,
        max_write_zeroes_seg: 4,
        write_zeroes_may_unmap: 1,
        max_secure_erase_sectors: 32,
        max_secure_erase_seg: 4,
        zoned: Zoned {
            zone_sectors: 16,
            max_append_sectors: 8,
            write_granularity: 512,
            model: 1,
            ..Zoned::default()
        },
        ..Config::default()
    }
}

/// A guest, its ring and a device.
struct Guest<F: Format> {
    rig: Rig,
    driver: F::Driver,
    device: F::Device,
    parser: Parser,
    chain: Chain,
    disk: Vec<u8>,
    /// What the last request was understood as.
    seen: String,
}

fn gather(memory: &crate::memory::Memory, data: &[Segment]) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in data {
        let mut bytes = vec![0; piece.len() as usize];
        assert!(memory.read(piece.guest(), &mut bytes));
        all.extend(bytes);
    }
    all
}

fn scatter(memory: &crate::memory::Memory, data: &[Segment], mut bytes: &[u8]) -> u32 {
    let mut written = 0;
    for piece in data {
        let now = bytes.len().min(piece.len() as usize);
        assert!(memory.write(piece.guest(), &bytes[..now]));
        bytes = &bytes[now..];
        written += now as u32;
    }
    written
}

impl<F: Format> Guest<F> {
    fn new() -> Guest<F> {
        let config = RingConfig {
            indirect: true,
            ..RingConfig::new(64)
        };
        let rig = Rig::new(config);
        Guest {
            driver: F::driver(&rig),
            device: F::device(&rig, F::START),
            rig,
            parser: Parser::new(self::config(), all_features(), false),
            chain: Chain::new(),
            disk: vec![0; (SECTORS * SECTOR) as usize],
            seen: String::new(),
        }
    }

    /// The device does one request.
    fn serve(&mut self) {
        let memory = &self.rig.memory;
        let token = self.device.pop(memory, &mut self.chain).unwrap().unwrap();
        let (pending, command) = self.parser.parse(memory, &mut self.chain);
        self.seen = match &command {
            Ok(command) => format!("{command:?}")
                .split([' ', '('])
                .next()
                .unwrap()
                .into(),
            Err(status) => format!("{status:?}"),
        };
        let disk = &mut self.disk;
        let mut status = Status::Ok;
        let written = match command {
            Err(refused) => {
                status = refused;
                0
            }
            Ok(Command::Read { offset, len, data }) => {
                scatter(memory, data, &disk[offset as usize..][..len as usize])
            }
            Ok(Command::Write { offset, len, data }) => {
                disk[offset as usize..][..len as usize].copy_from_slice(&gather(memory, data));
                0
            }
            Ok(Command::Flush | Command::ZoneManage { .. }) => 0,
            Ok(Command::GetId { data }) => {
                scatter(memory, data, b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
            }
            Ok(Command::GetLifetime { data }) => {
                let lifetime = Lifetime {
                    pre_eol_info: 1,
                    estimate_a: 2,
                    estimate_b: 3,
                };
                scatter(memory, data, &lifetime.encode())
            }
            Ok(
                Command::Discard(ranges)
                | Command::WriteZeroes(ranges)
                | Command::SecureErase(ranges),
            ) => {
                for range in ranges {
                    disk[range.offset as usize..][..range.len as usize].fill(0);
                }
                0
            }
            Ok(Command::ZoneAppend { offset, data, .. }) => {
                let bytes = gather(memory, data);
                disk[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                let len = pending.finish_append(memory, offset / SECTOR);
                self.device.push(token, len);
                let _ = self.device.publish();
                return;
            }
            Ok(Command::ZoneReport { offset, data, .. }) => {
                let zone = Zone {
                    capacity: 16,
                    start: offset / SECTOR,
                    write_pointer: 3,
                    kind: ZoneType::SequentialRequired,
                    state: ZoneState::Closed,
                };
                let report = [zone_header(1), zone.encode()].concat();
                scatter(memory, data, &report)
            }
        };
        let len = pending.finish(memory, status, written);
        self.device.push(token, len);
        let _ = self.device.publish();
    }

    /// Sends any chain; gives the length the device told.
    fn raw(&mut self, buffers: &[Buffer]) -> u32 {
        self.driver.add(buffers, 7).unwrap();
        let _ = self.driver.publish();
        self.serve();
        let used = self.driver.pop().unwrap().unwrap();
        assert_eq!(used.cookie, 7);
        used.written
    }

    /// Sends readable bytes, cut into such pieces, and writable room in such pieces; gives the status
    /// byte, which was 0xee before, and the length.
    fn cut(&mut self, bytes: &[u8], pieces: &[usize], room: &[u32]) -> (u8, u32) {
        let memory = self.rig.memory.clone();
        let (mut at, mut buffers) = (DATA, Vec::new());
        assert!(memory.write(DATA, bytes));
        for len in pieces {
            buffers.push(readable(at, *len as u32));
            at += *len as u64;
        }
        assert_eq!(pieces.iter().sum::<usize>(), bytes.len());
        at += 4096;
        for len in room {
            buffers.push(writable(at, *len));
            at += u64::from(*len);
        }
        let status = at - 1;
        assert!(memory.write(status, &[0xee]));
        let len = self.raw(&buffers);
        let mut byte = [0];
        assert!(memory.read(status, &mut byte));
        (byte[0], len)
    }

    /// As [`Guest::cut`], header and payload in one piece, room for a status alone.
    fn ask(&mut self, kind: u32, sector: u64, payload: &[u8]) -> (u8, u32) {
        let bytes = [&header(kind, sector), payload].concat();
        self.cut(&bytes, &[bytes.len()], &[1])
    }
}

fn readable(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        writable: false,
    }
}

fn writable(address: u64, len: u32) -> Buffer {
    Buffer {
        writable: true,
        ..readable(address, len)
    }
}

fn header(kind: u32, sector: u64) -> [u8; HEADER_LEN] {
    (u128::from(kind) | u128::from(sector) << 64).to_le_bytes()
}

fn range(sector: u64, sectors: u32, flags: u32) -> [u8; RANGE_LEN] {
    (u128::from(sector) | u128::from(sectors) << 64 | u128::from(flags) << 96).to_le_bytes()
}

const OK: u8 = Status::Ok as u8;
const IOERR: u8 = Status::IoError as u8;
const UNSUPP: u8 = Status::Unsupported as u8;
const INVALID: u8 = Status::ZoneInvalidCommand as u8;

/// Every request, from the driver's side to the device's and back.
fn both_sides<F: Format>() {
    let mut guest = Guest::<F>::new();
    let memory = guest.rig.memory.clone();
    // Slots and tables are apart; slots lie in the data's second region.
    let area = memory.map().by_guest(DATA + DATA_LEN, 4096).unwrap();
    let requests = Requests::new(area, DATA + DATA_LEN, 4);
    assert!(requests.slots() >= 16);
    let mut out = Vec::new();
    let mut run = |guest: &mut Guest<F>, operation: Operation<'_>, data: &[Buffer]| {
        requests.make(9, &operation, data, &mut out).unwrap();
        let written = guest.raw(&out);
        (requests.reply(9), written)
    };
    let bytes: Vec<u8> = (0..1024u32).map(|n| n as u8 ^ 0x5a).collect();
    assert!(memory.write(DATA, &bytes));
    let data = [readable(DATA, 100), readable(DATA + 100, 924)];
    let (reply, written) = run(&mut guest, Operation::Write(1024), &data);
    assert_eq!((reply.status, written), (Status::Ok, 1));
    assert_eq!(guest.disk[1024..2048], bytes);
    let data = [writable(DATA + 8192, 1000), writable(DATA + 9192, 24)];
    let (reply, written) = run(&mut guest, Operation::Read(1024), &data);
    assert_eq!((reply.status, written), (Status::Ok, 1025));
    let mut back = vec![0; 1024];
    assert!(memory.read(DATA + 8192, &mut back));
    assert_eq!(back, bytes);
    assert_eq!(run(&mut guest, Operation::Flush, &[]).0.status, Status::Ok);
    let ranges = |unmap| {
        [1024, 1536].map(|offset| Range {
            offset,
            len: 512,
            unmap,
        })
    };
    for operation in [
        Operation::Discard(&ranges(false)),
        Operation::WriteZeroes(&ranges(true)),
        Operation::SecureErase(&ranges(false)),
    ] {
        guest.disk.fill(1);
        assert_eq!(run(&mut guest, operation, &[]).0.status, Status::Ok);
        assert_eq!(guest.disk.iter().filter(|b| **b == 0).count(), 1024);
    }
    let (reply, written) = run(&mut guest, Operation::GetId, &[]);
    assert_eq!((reply.status, written), (Status::Ok, 21));
    assert_eq!(&requests.id(9)[..7], b"serial\0");
    let (reply, written) = run(&mut guest, Operation::GetLifetime, &[]);
    assert_eq!((reply.status, written), (Status::Ok, 7));
    assert_eq!(requests.lifetime(9).estimate_b, 3);
    let data = [readable(DATA, 512)];
    let (reply, written) = run(&mut guest, Operation::ZoneAppend(16 * 512), &data);
    assert_eq!((reply.status, reply.append_sector), (Status::Ok, 16));
    assert_eq!(written, 9);
    let data = [writable(DATA, 256)];
    let (reply, written) = run(&mut guest, Operation::ZoneReport(32 * 512), &data);
    assert_eq!((reply.status, written), (Status::Ok, 128));
    let mut report = [0; 128];
    assert!(memory.read(DATA, &mut report));
    assert_eq!(zone_count(&report), 1);
    let zone = Zone::decode(report[64..].try_into().unwrap()).unwrap();
    assert_eq!((zone.start, zone.state), (32, ZoneState::Closed));
    for action in [
        ZoneAction::Open,
        ZoneAction::Close,
        ZoneAction::Finish,
        ZoneAction::Reset,
        ZoneAction::ResetAll,
    ] {
        let (reply, _) = run(&mut guest, Operation::ZoneManage(action, 16 * 512), &[]);
        assert_eq!((reply.status, &*guest.seen), (Status::Ok, "ZoneManage"));
    }
}

#[test]
fn both_sides_of_every_request() {
    both_sides::<Split>();
    both_sides::<Packed>();
}

#[test]
fn requests_that_cannot_be_made() {
    let rig = Rig::new(RingConfig::new(2));
    let area = rig.memory.map().by_guest(RING, 4096).unwrap();
    let requests = Requests::new(area, RING, 2);
    let make = |operation: Operation<'_>, data: &[Buffer]| {
        requests.make(0, &operation, data, &mut Vec::new())
    };
    let whole = |offset, len| Range {
        offset,
        len,
        unmap: false,
    };
    assert_eq!(
        make(Operation::Read(1), &[writable(0, 512)]),
        Err(RequestError::Unaligned)
    );
    assert_eq!(
        make(Operation::Read(0), &[writable(0, 511)]),
        Err(RequestError::Unaligned)
    );
    assert_eq!(
        make(Operation::Read(0), &[readable(0, 512)]),
        Err(RequestError::Data)
    );
    assert_eq!(make(Operation::Write(0), &[]), Err(RequestError::Data));
    assert_eq!(
        make(Operation::Flush, &[readable(0, 512)]),
        Err(RequestError::Data)
    );
    assert_eq!(
        make(Operation::Discard(&[]), &[]),
        Err(RequestError::Ranges(0))
    );
    assert_eq!(
        make(Operation::Discard(&[whole(0, 512); 3]), &[]),
        Err(RequestError::Ranges(3))
    );
    assert_eq!(
        make(Operation::Discard(&[whole(0, 5)]), &[]),
        Err(RequestError::Unaligned)
    );
    // The 4 TiB discard of which libblkio never hears again.
    let huge = 1 << 42;
    let refused = make(Operation::Discard(&[whole(0, huge)]), &[]);
    assert_eq!(refused, Err(RequestError::RangeLength(huge)));
}

#[test]
fn a_status_that_was_not_written_is_an_error() {
    let rig = Rig::new(RingConfig::new(2));
    let area = rig.memory.map().by_guest(RING, 4096).unwrap();
    let requests = Requests::new(area, RING, 2);
    let mut out = Vec::new();
    requests.make(0, &Operation::Flush, &[], &mut out).unwrap();
    assert_eq!(requests.reply(0).status, Status::IoError);
    assert!(rig.memory.write(out[1].address, &[0]));
    assert_eq!(requests.reply(0).status, Status::Ok);
    assert!(rig.memory.write(out[1].address, &[77]));
    assert_eq!(requests.reply(0).status, Status::IoError);
}

#[test]
fn configuration_space() {
    let mut config = Config {
        capacity: 0x0102_0304_0506_0708,
        writeback: 1,
        num_queues: 0x0a0b,
        ..config()
    };
    config.zoned.model = 2;
    let bytes = config.encode();
    assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(
        (bytes[32], &bytes[34..36], bytes[92]),
        (1, &[0x0b, 0x0a][..], 2)
    );
    assert_eq!(Config::decode(&bytes), config);
    // libblkio asks for 60 bytes; the next field ends behind them.
    let short = Config::decode(&bytes[..60]);
    assert_eq!(
        (short.write_zeroes_may_unmap, short.max_secure_erase_seg),
        (1, 0)
    );
    assert_eq!(Config::decode(&bytes[..62]).max_secure_erase_sectors, 0);
    let mut part = [0; 4];
    assert_eq!(config.read(34, &mut part[..2]), Some(()));
    assert_eq!(part, [0x0b, 0x0a, 0, 0]);
    assert_eq!(config.read(252, &mut part), Some(()));
    assert_eq!(config.read(253, &mut part), None);
    assert_eq!(config.read(u32::MAX, &mut part), None);
    let wce = 1 << feature::CONFIG_WCE;
    assert!(config.write(wce, 32, &[0]) && config.writeback == 0);
    for (features, offset, bytes) in [
        (0, 32, &[1][..]),
        (wce, 31, &[1]),
        (wce, 32, &[2]),
        (wce, 32, &[1, 0]),
        (wce, 0, &[0; 8]),
        (wce, 32, &[]),
    ] {
        assert!(!config.write(features, offset, bytes));
    }
    assert_eq!(
        (config.writeback, config.capacity),
        (0, 0x0102_0304_0506_0708)
    );
}
