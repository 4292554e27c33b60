//! What a request costs the device: take, parse, finish, push, and one publication for 32.
//!
//! `cargo bench -p blkit-virtio` prints nanoseconds of each kind of ring. For instructions:
//! `valgrind --tool=callgrind --toggle-collect='*device_turn*' ring-... KIND REQUESTS`.

use std::{hint::black_box, sync::Arc, time::Instant};

use virtio::{
    blk::{Command, Config, Operation, Parser, Requests, Status},
    inflight,
    memory::{Memory, Region, RegionMap},
    ring::{
        AddressKind, Buffer, Chain, DeviceRing, DriverRing, RingAreas, RingConfig, Tables, packed,
        split,
    },
};

const SIZE: u16 = 256;
const DEPTH: u16 = 32;

/// Memory as a guest has it: a small region and a large one.
struct Guest {
    memory: Memory,
    config: RingConfig,
}

const RING: u64 = 0x1000;
const TABLES: u64 = 0x4_0000;
const SLOTS: u64 = 0x8_0000;
const LOG: u64 = 0xc_0000;
const DATA: u64 = 0x10_0000;

impl Guest {
    fn new() -> Guest {
        let regions = vec![Region::heap(0, 0xa_0000), Region::heap(0xa_0000, 8 << 20)];
        let map = Arc::new(RegionMap::new(regions).expect("good regions"));
        Guest {
            memory: Memory::new(map),
            config: RingConfig {
                event_index: true,
                indirect: true,
                ..RingConfig::new(SIZE)
            },
        }
    }

    fn areas(&self, lengths: [usize; 3]) -> RingAreas {
        let addresses = [RING, RING + 0x8000, RING + 0x1_0000];
        RingAreas::find(self.memory.map(), AddressKind::Guest, addresses, lengths).expect("there")
    }

    fn tables(&self) -> Tables {
        let len = Tables::length(SIZE, 4);
        Tables {
            area: self.memory.map().by_guest(TABLES, len).expect("there"),
            guest: TABLES,
            entries: 4,
        }
    }

    fn log(&self, packed: bool) -> virtio::memory::Area {
        let len = inflight::length(packed, SIZE);
        self.memory.map().by_guest(LOG, len).expect("there")
    }
}

/// What is measured: all that a null device does for a batch.
#[inline(never)]
fn device_turn<R: DeviceRing>(
    ring: &mut R,
    memory: &Memory,
    parser: &mut Parser,
    chain: &mut Chain,
) -> bool {
    ring.disable_kicks();
    while let Some(token) = ring.pop(memory, chain).expect("a good ring") {
        let (pending, command) = parser.parse(memory, chain);
        let (status, written) = match command {
            Ok(Command::Read { len, data, .. }) => {
                black_box(data);
                (Status::Ok, len)
            }
            Ok(_) => (Status::Unsupported, 0),
            Err(status) => (status, 0),
        };
        ring.push(token, pending.finish(memory, status, written));
    }
    ring.publish()
}

fn run<D: DriverRing, V: DeviceRing>(
    guest: &Guest,
    driver: &mut D,
    device: &mut V,
    requests: u64,
) -> f64 {
    let mut parser = Parser::new(
        Config {
            capacity: 1 << 30,
            ..Config::default()
        },
        1 << 32,
        false,
    );
    let area = guest.memory.map().by_guest(SLOTS, 0x1_0000).expect("there");
    let slots = Requests::new(area, SLOTS, 1);
    let (mut chain, mut out) = (Chain::new(), Vec::new());
    let (mut best, mut done) = (f64::MAX, 0);
    while done < requests {
        let mut nanos = 0;
        // The best of rounds of 100 batches: others use the machine too.
        for _ in 0..100 {
            for slot in 0..DEPTH {
                let data = [Buffer {
                    address: DATA + u64::from(slot) * 4096,
                    len: 4096,
                    writable: true,
                }];
                let place = Operation::Read(4096 * u64::from(slot));
                slots.make(slot, &place, &data, &mut out).expect("good");
                driver.add(&out, slot.into()).expect("room");
            }
            let _ = driver.publish();
            let start = Instant::now();
            let call = device_turn(device, &guest.memory, &mut parser, &mut chain);
            nanos += start.elapsed().as_nanos();
            black_box(call);
            for _ in 0..DEPTH {
                let used = driver.pop().expect("a good ring").expect("all are done");
                assert_eq!(used.written, 4097);
            }
            done += u64::from(DEPTH);
        }
        best = best.min(nanos as f64 / (100.0 * f64::from(DEPTH)));
    }
    best
}

fn one(kind: &str, requests: u64) -> Option<f64> {
    let guest = Guest::new();
    let tables = kind.contains("indirect").then(|| guest.tables());
    let (packed, logged) = (kind.starts_with("packed"), kind.ends_with("log"));
    if packed {
        let areas = || guest.areas(packed::lengths(SIZE));
        let mut driver = packed::Driver::new(areas(), guest.config, tables).ok()?;
        let mut device = match logged {
            true => {
                let log = guest.log(true);
                packed::Device::with_log(areas(), guest.config, packed::START, log)
            }
            false => packed::Device::new(areas(), guest.config, packed::START),
        }
        .ok()?;
        return Some(run(&guest, &mut driver, &mut device, requests));
    }
    let areas = || guest.areas(split::lengths(SIZE));
    let mut driver = split::Driver::new(areas(), guest.config, tables).ok()?;
    let mut device = match logged {
        true => split::Device::with_log(areas(), guest.config, 0, guest.log(false)),
        false => split::Device::new(areas(), guest.config, 0),
    }
    .ok()?;
    Some(run(&guest, &mut driver, &mut device, requests))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|w| *w != "--bench")
        .collect();
    if let [kind, requests] = words[..] {
        let requests = requests.parse().expect("a number of requests");
        one(kind, requests).expect("a good ring");
        return;
    }
    for ring in ["split", "packed"] {
        for kind in ["", "-log", "-indirect", "-indirect-log"] {
            let kind = format!("{ring}{kind}");
            let nanos = one(&kind, 3_200_000).expect("a good ring");
            println!("{kind:<22} {nanos:6.1} ns per request of 3 descriptors, depth {DEPTH}");
        }
    }
}
