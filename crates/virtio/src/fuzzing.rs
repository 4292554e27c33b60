//! Fuzz targets: rings and requests whose memory somebody else writes.
//!
//! **Contract.** They panic if a promise is broken: a panic inside, a segment outside of memory, more
//! work than the queue is long, a length beyond the room.

use crate::{
    blk::{Command, Config, HEADER_LEN, Parser, Status, Zoned},
    memory::{Memory, Segment, hook},
    rig::{DATA, DATA_LEN, Format, Packed, RING, Rig, Split},
    ring::{AddError, Buffer, Chain, DeviceRing, DriverRing, RingConfig, Token},
};

/// Reads numbers off the input; 0 behind its end.
struct Input<'i>(&'i [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let now = N.min(self.0.len());
        bytes[..now].copy_from_slice(&self.0[..now]);
        self.0 = &self.0[now..];
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
}

/// A queue of both halves, and what is in flight.
struct World<F: Format> {
    rig: Rig,
    driver: F::Driver,
    device: F::Device,
    parser: Parser,
    chain: Chain,
    held: Vec<Token>,
}

/// What the operations of [`fuzz_ring`] are; the numbers are the input's.
const POKE: u8 = 0;
const SERVE: u8 = 1;
const HOLD: u8 = 2;
const PUSH: u8 = 3;
const PUBLISH: u8 = 4;
const ADD: u8 = 5;
const SHOW: u8 = 6;
const REAP: u8 = 7;
const CRASH: u8 = 8;
const STOP: u8 = 9;
const OPERATIONS: u8 = 10;

/// `virtio_ring`: 3 bytes of setup, then operations on a queue whose memory is also poked; by the
/// third byte, pokes come in between the accesses of an operation too.
pub fn fuzz_ring(data: &[u8]) {
    let Some((&[setup, size, every], rest)) = data.split_first_chunk() else {
        return;
    };
    let config = |size| RingConfig {
        event_index: setup & 2 != 0,
        indirect: setup & 4 != 0,
        table_max: 16,
        ..RingConfig::new(size)
    };
    let logged = setup & 8 != 0;
    if setup & 1 == 0 {
        ring::<Split>(config(1 << (size % 7)), logged, every, rest);
    } else {
        ring::<Packed>(config(1 + u16::from(size) % 100), logged, every, rest);
    }
}

/// Pokes every so many accesses, with what the input ends with.
fn arm(rig: &Rig, every: u8, rest: &[u8]) {
    if every == 0 {
        return;
    }
    let (rig, tail) = (rig.clone(), rest[rest.len() / 2..].to_vec());
    let mut at = 0;
    hook::set(Box::new(move |count| {
        if count % u64::from(every) == 0 && at < tail.len() {
            poke(&rig, &mut Input(&tail[at..]));
            at += 7;
        }
    }));
}

/// Writes four bytes somewhere into the ring's parts or the data. Takes seven bytes.
fn poke(rig: &Rig, input: &mut Input<'_>) {
    let (part, at) = (input.byte(), u64::from(input.half()));
    let size = rig.config.size;
    // An address of data, often: others are nearly always outside.
    let value = input.take::<4>();
    let start = match part % 6 {
        5 => DATA,
        part => RING + Rig::at(size, part.into()) as u64,
    };
    let len = match part % 6 {
        5 => DATA_LEN,
        part => (Rig::at(size, usize::from(part) + 1) - Rig::at(size, part.into())) as u64,
    };
    let at = if part & 0x80 == 0 { at % 64 } else { at };
    assert!(rig.memory.write(start + (at & !3) % len, &value));
}

fn ring<F: Format>(config: RingConfig, logged: bool, every: u8, rest: &[u8]) {
    let rig = Rig::new(config);
    let disk = Config {
        capacity: 1 << 20,
        ..Config::default()
    };
    let mut world = World::<F> {
        driver: F::driver(&rig),
        device: if logged {
            F::logged(&rig)
        } else {
            F::device(&rig, F::START)
        },
        parser: Parser::new(disk, 1 << 32, false),
        chain: Chain::new(),
        held: Vec::new(),
        rig,
    };
    arm(&world.rig, every, rest);
    let mut input = Input(rest);
    while !input.0.is_empty() {
        world.step(logged, &mut input);
        assert!(world.held.len() <= usize::from(world.rig.config.size));
    }
    hook::clear();
}

impl<F: Format> World<F> {
    fn step(&mut self, logged: bool, input: &mut Input<'_>) {
        match input.byte() % OPERATIONS {
            POKE => poke(&self.rig, input),
            SERVE => self.serve(false),
            HOLD => self.serve(true),
            PUSH => {
                if !self.held.is_empty() {
                    let at = usize::from(input.byte()) % self.held.len();
                    self.device.push(self.held.swap_remove(at), 1);
                }
            }
            PUBLISH => {
                let _ = self.device.publish();
                self.device.disable_kicks();
                let _ = self.device.enable_kicks();
            }
            ADD => self.add(input),
            SHOW => {
                let _ = self.driver.publish();
                self.driver.disable_calls();
                let _ = self.driver.enable_calls();
            }
            REAP => match self.driver.pop() {
                Ok(_) => {}
                Err(_) => self.driver = F::driver(&self.rig),
            },
            CRASH if logged => {
                // A damaged log is refused; then the queue starts with none.
                self.held.clear();
                self.device = match F::open_log(&self.rig) {
                    Ok(device) => device,
                    Err(_) => F::device(&self.rig, F::START),
                };
                self.resume();
            }
            _ => {
                // A base the ring itself told is always good.
                let base = self.device.stop();
                assert_eq!(self.device.in_flight(), 0);
                self.device = F::device(&self.rig, base);
                // Tokens of the old one do nothing.
                for token in self.held.drain(..) {
                    self.device.push(token, 1);
                }
                assert!(!self.device.publish());
            }
        }
    }

    fn resume(&mut self) {
        for _ in 0..=self.rig.config.size {
            match F::resume(&mut self.device, &self.rig.memory, &mut self.chain) {
                Ok(Some(token)) => self.held.push(token),
                Ok(None) | Err(_) => return,
            }
        }
        panic!("more chains in the log than in the queue");
    }

    fn serve(&mut self, hold: bool) {
        let memory = &self.rig.memory;
        let Ok(Some(token)) = self.device.pop(memory, &mut self.chain) else {
            return;
        };
        let most = 2 * usize::from(self.rig.config.size.max(self.rig.config.table_max));
        assert!(self.chain.readable().len() + self.chain.writable().len() <= most);
        if hold {
            return self.held.push(token);
        }
        let told = request(memory, &mut self.parser, &mut self.chain);
        self.device.push(token, told);
    }

    fn add(&mut self, input: &mut Input<'_>) {
        let (readable, writable) = (input.byte() % 5, input.byte() % 5);
        let buffer = |n: u8, writable| Buffer {
            address: DATA + u64::from(n) * 64,
            len: 16,
            writable,
        };
        let buffers: Vec<_> = (0..readable)
            .map(|n| buffer(n, false))
            .chain((0..writable).map(|n| buffer(8 + n, true)))
            .collect();
        match self.driver.add(&buffers, 1) {
            Ok(()) | Err(AddError::Full) => {}
            Err(AddError::Malformed) => assert!(buffers.is_empty()),
            Err(AddError::TooLong(len)) => assert!(len > usize::from(self.rig.config.size)),
        }
    }
}

/// All segments are what the map says of their addresses; gives their bytes.
fn check(memory: &Memory, data: &[Segment]) -> u64 {
    for piece in data {
        let again = memory.segment(piece.guest(), piece.len());
        assert_eq!(again.expect("inside").host(), piece.host());
    }
    data.iter().map(|piece| u64::from(piece.len())).sum()
}

/// Parses a chain, checks what comes out, answers. What to tell the ring.
fn request(memory: &Memory, parser: &mut Parser, chain: &mut Chain) -> u32 {
    let disk = parser.config.capacity.saturating_mul(512);
    let block = parser.config.block(parser.features);
    let read_only = parser.read_only;
    let room = chain.writable_len();
    let (pending, command) = parser.parse(memory, chain);
    let inside = |offset: u64, len: u64| {
        assert!(offset.checked_add(len).is_some_and(|end| end <= disk));
        assert_eq!((offset | len) % block, 0, "not in whole blocks");
    };
    let (mut status, mut written) = (Status::Ok, 0);
    match command {
        Err(refused) => status = refused,
        Ok(Command::Read { offset, len, data }) => {
            inside(offset, len.into());
            assert_eq!(check(memory, data), u64::from(len));
            assert_ne!(len, 0);
            written = len;
        }
        Ok(Command::Write { offset, len, data }) => {
            inside(offset, len.into());
            assert_eq!(check(memory, data), u64::from(len));
            assert!(len != 0 && !read_only);
        }
        Ok(Command::ZoneAppend { offset, len, data }) => {
            inside(offset, len.into());
            assert_eq!(check(memory, data), u64::from(len));
            assert!(len != 0 && !read_only);
            let told = pending.finish_append(memory, offset / 512);
            assert!(told <= room);
            return told;
        }
        Ok(
            Command::Discard(ranges) | Command::WriteZeroes(ranges) | Command::SecureErase(ranges),
        ) => {
            assert!(!read_only);
            for range in ranges {
                inside(range.offset, range.len);
                assert_ne!(range.len, 0);
            }
        }
        Ok(Command::GetId { data }) => assert!(check(memory, data) >= 20),
        Ok(Command::GetLifetime { data }) => assert!(check(memory, data) >= 6),
        Ok(Command::ZoneReport { offset, len, data }) => {
            assert!(offset < disk && len >= 64);
            assert_eq!(check(memory, data), u64::from(len));
        }
        Ok(Command::ZoneManage { offset, .. }) => assert!(offset < disk && !read_only),
        Ok(Command::Flush) => {}
    }
    let told = pending.finish(memory, status, written);
    assert!(told <= room, "more than there is room for");
    told
}

/// `virtio_blk_request`: 16 bytes of setup, then the readable bytes of a request, header first.
pub fn fuzz_blk_request(data: &[u8]) {
    let Some((setup, bytes)) = data.split_first_chunk::<16>() else {
        return;
    };
    let mut input = Input(setup);
    let (flags, capacity) = (input.half(), u32::from_le_bytes(input.take()));
    let parser = Parser::new(
        Config {
            capacity: match flags & 3 {
                0 => u64::MAX,
                1 => 64,
                _ => capacity.into(),
            },
            blk_size: if flags & 4 == 0 { 512 } else { 4096 },
            max_discard_sectors: 1 << 16,
            max_discard_seg: 16,
            max_write_zeroes_sectors: u32::MAX,
            max_write_zeroes_seg: 16,
            max_secure_erase_sectors: 1 << 16,
            max_secure_erase_seg: 1,
            zoned: Zoned {
                zone_sectors: 16 * u32::from(flags >> 8 & 3),
                max_append_sectors: 8,
                write_granularity: 512,
                ..Zoned::default()
            },
            ..Config::default()
        },
        if flags & 8 == 0 { !(1 << 5) } else { 1 << 32 },
        flags & 16 != 0,
    );
    let (piece, room, room_piece) = (input.half(), input.half(), input.half());
    match flags & 32 {
        0 => blk::<Split>(parser, bytes, piece, room, room_piece),
        _ => blk::<Packed>(parser, bytes, piece, room, room_piece),
    }
}

fn blk<F: Format>(mut parser: Parser, bytes: &[u8], piece: u16, room: u16, room_piece: u16) {
    let rig = Rig::new(RingConfig {
        indirect: false,
        ..RingConfig::new(64)
    });
    let (mut driver, mut device) = (F::driver(&rig), F::device(&rig, F::START));
    let bytes = &bytes[..bytes.len().min(DATA_LEN as usize)];
    assert!(rig.memory.write(DATA, bytes));
    let mut buffers = Vec::new();
    let mut cut = |start: u64, len: usize, piece: u16, writable| {
        // No more pieces than fit, the last one long.
        let piece = usize::from(piece).max(len / 30).max(1);
        for at in (0..len).step_by(piece) {
            buffers.push(Buffer {
                address: start + at as u64,
                len: piece.min(len - at) as u32,
                writable,
            });
        }
    };
    cut(DATA, bytes.len(), piece, false);
    cut(DATA + DATA_LEN - 1, room.into(), room_piece, true);
    if driver.add(&buffers, 0).is_err() {
        assert!(buffers.is_empty() || buffers.len() > 64);
        return;
    }
    let _ = driver.publish();
    let mut chain = Chain::new();
    let token = device.pop(&rig.memory, &mut chain);
    let token = token.expect("a good ring").expect("a chain");
    let told = request(&rig.memory, &mut parser, &mut chain);
    device.push(token, told);
    let _ = device.publish();
    let used = driver.pop().expect("a good ring").expect("it was used");
    assert_eq!(used.written, told);
}

/// Inputs of `virtio_ring` to begin with: rings that work, and small damage.
pub fn ring_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for setup in 0..16 {
        for size in [0, 3, 6] {
            let mut seed = vec![setup, size, if size == 3 { 5 } else { 0 }];
            for n in 0..6u8 {
                seed.extend([
                    ADD,
                    n % 3,
                    1 + n % 2,
                    SHOW,
                    SERVE,
                    HOLD,
                    PUSH,
                    n,
                    PUBLISH,
                    REAP,
                ]);
                if n == 4 {
                    seed.extend([CRASH, STOP]);
                }
                // Flags and index of a part, and an address.
                seed.extend([POKE, n, 4 * n, 0, n, 0, n, 0]);
            }
            seeds.push(seed);
        }
    }
    seeds.sort();
    seeds
}

/// Inputs of `virtio_blk_request` to begin with: each kind of request, in one piece and in many.
pub fn blk_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in [0u8, 1, 4, 8, 10, 11, 13, 14, 15, 16, 18, 20, 22, 24, 26, 99] {
        for (flags, piece, room) in [(0x0101u16, 1000u16, 513u16), (0x0121, 7, 600)] {
            let mut seed = vec![0; 16];
            seed[..2].copy_from_slice(&flags.to_le_bytes());
            seed[6..8].copy_from_slice(&piece.to_le_bytes());
            let room = if kind % 2 == 0 { room } else { 9 };
            seed[8..10].copy_from_slice(&room.to_le_bytes());
            seed[10..12].copy_from_slice(&piece.to_le_bytes());
            let mut header = [0; HEADER_LEN];
            header[0] = kind;
            seed.extend(header);
            match kind {
                1 | 15 => seed.extend([7; 512]),
                11 | 13 | 14 => seed.extend((8u128 << 64).to_le_bytes()),
                _ => {}
            }
            seeds.push(seed);
        }
    }
    seeds.sort();
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Random;

    /// Seeds and damage to them; the long runs are the fuzzer's.
    fn hammer(seeds: &[Vec<u8>], target: fn(&[u8]), rounds: u64) {
        seeds.iter().for_each(|seed| target(seed));
        let mut random = Random::new(3);
        for _ in 0..rounds {
            let mut seed = seeds[random.below(seeds.len() as u64) as usize].clone();
            for _ in 0..1 + random.below(6) {
                let at = random.below(seed.len() as u64) as usize;
                seed[at] = match random.below(3) {
                    0 => seed[at] ^ 1 << random.below(8),
                    1 => random.below(12) as u8,
                    _ => random.below(256) as u8,
                };
            }
            target(&seed);
        }
    }

    #[test]
    fn damaged_rings() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        hammer(&ring_seeds(), fuzz_ring, 2 * rounds);
    }

    #[test]
    fn damaged_requests() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        hammer(&blk_seeds(), fuzz_blk_request, rounds);
    }
}
