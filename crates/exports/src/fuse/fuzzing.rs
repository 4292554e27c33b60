//! The entry point for the fuzz target, also run by this crate's own tests.
//!
//! Packets of the fuzzer's choice go to the machine, as the kernel's side would send them. Promised
//! are: no panic, an answer of the right form to whatever wants one, and commands that the disk can
//! do.

use super::{
    machine::{Command, MAX_READ, MAX_WRITE, Machine, Step},
    proto::{Header, IN_HEADER, OUT_HEADER, Opcode, Put, WRITE_HEAD},
    view::{Cache, Disk, Shape, View},
};

/// The first three bytes choose file and disk; then packets follow, each with its length in 2 bytes
/// before it. The length in a packet's header is set right, unless the length before is odd.
pub fn fuzz_machine(data: &[u8]) {
    let Some((setup, mut stream)) = data.split_first_chunk::<3>() else {
        return;
    };
    let (view, disk) = world(setup);
    let mut machine = Machine::new(view, disk, None);
    if setup[0] & 1 != 0 {
        let mut out = Vec::new();
        let init = init(7, 39, u64::MAX);
        assert_eq!(machine.input(&init, &mut out), Ok(Step::Answer));
    }
    while let Some((len, rest)) = stream.split_first_chunk::<2>() {
        let told = usize::from(u16::from_le_bytes(*len));
        let (packet, rest) = rest.split_at(told.min(rest.len()));
        stream = rest;
        let mut packet = packet.to_vec();
        if told & 1 == 0 && packet.len() >= 4 {
            let len = (packet.len() as u32).to_ne_bytes();
            packet[..4].copy_from_slice(&len);
        }
        if !one(&mut machine, &packet, &disk) {
            return;
        }
    }
}

/// The file and the disk of setup bytes.
fn world(setup: &[u8; 3]) -> (View, Disk) {
    let flag = |bit: u8| setup[0] >> bit & 1 != 0;
    let view = View {
        shape: match flag(1) {
            true => Shape::File,
            false => Shape::Directory {
                name: "disk".repeat(usize::from(setup[1] & 3)),
            },
        },
        read_only: flag(2),
        cache: [Cache::WhileOpen, Cache::Keep, Cache::Auto, Cache::Nothing]
            [usize::from(setup[1] >> 2 & 3)],
        ..View::default()
    };
    let disk = Disk {
        size: [0, 1, 1 << 20, u64::MAX][usize::from(setup[2] & 3)],
        block: 4096,
        writes: !flag(3),
        flushes: flag(4),
        zeroes: flag(5),
        extents: flag(6),
    };
    (view, disk)
}

/// Gives the machine a packet; false if it was none.
fn one(machine: &mut Machine, packet: &[u8], disk: &Disk) -> bool {
    let before = b"before".to_vec();
    let mut out = before.clone();
    let step = match machine.input(packet, &mut out) {
        Ok(step) => step,
        Err(_) => {
            assert_eq!(out, before, "an answer to what is no packet");
            return false;
        }
    };
    let header = Header::parse(packet).expect("it was understood");
    let answer = &out[before.len()..];
    match step {
        Step::Answer | Step::Destroy => well_formed(answer, &header),
        Step::Nothing | Step::Interrupt { .. } => assert!(answer.is_empty()),
        Step::Serve { unique, command } => {
            assert!(answer.is_empty(), "two answers");
            assert_eq!(unique, header.unique);
            fits(&command, packet, disk);
        }
    }
    true
}

fn well_formed(answer: &[u8], header: &Header) {
    let word = |at: usize| -> [u8; 4] { answer[at..at + 4].try_into().expect("4 bytes") };
    assert!(answer.len() >= OUT_HEADER);
    assert_eq!(u32::from_ne_bytes(word(0)) as usize, answer.len());
    let error = i32::from_ne_bytes(word(4));
    assert!((-511..=0).contains(&error), "{error}");
    assert!(error == 0 || answer.len() == OUT_HEADER);
    assert_eq!(answer[8..16], header.unique.to_ne_bytes());
    assert!(
        answer.len() <= OUT_HEADER + MAX_WRITE as usize,
        "more than anybody asked for"
    );
}

fn fits(command: &Command, packet: &[u8], disk: &Disk) {
    let inside = |offset: u64, len: u64| {
        assert!(len != 0 && offset.checked_add(len).is_some_and(|end| end <= disk.size));
    };
    match *command {
        Command::Read { offset, len } => {
            inside(offset, len.into());
            assert!(len <= MAX_READ);
        }
        Command::Write { offset, len } => {
            inside(offset, len.into());
            assert!(len <= MAX_WRITE && disk.writes);
            assert!(packet.len() >= WRITE_HEAD + len as usize);
        }
        Command::Zero { offset, len, .. } => {
            inside(offset, len);
            assert!(disk.writes && disk.zeroes);
        }
        Command::Flush { .. } => assert!(disk.writes && disk.flushes),
        Command::Seek { offset, .. } => inside(offset, 1),
    }
}

/// A packet, for tests and seeds.
pub fn packet(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.u32((IN_HEADER + body.len()) as u32).u32(opcode);
    packet.u64(unique).u64(node).zeroes(16);
    packet.extend_from_slice(body);
    packet
}

/// An INIT.
pub fn init(major: u32, minor: u32, flags: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.u32(major).u32(minor).u32(128 << 10).u32(flags as u32);
    body.u32((flags >> 32) as u32).zeroes(44);
    packet(Opcode::Init.number(), 1, 0, &body)
}

/// A READ, or with bytes behind it a WRITE, or a READDIR: they begin alike.
pub fn transfer(opcode: Opcode, unique: u64, node: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.u64(0).u64(offset).u32(len).zeroes(20);
    packet(opcode.number(), unique, node, &body)
}

/// A WRITE.
pub fn write(unique: u64, node: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut head = transfer(Opcode::Write, unique, node, offset, bytes.len() as u32);
    head.extend_from_slice(bytes);
    let len = (head.len() as u32).to_ne_bytes();
    head[..4].copy_from_slice(&len);
    head
}

/// A FALLOCATE.
pub fn fallocate(unique: u64, node: u64, offset: u64, len: u64, mode: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.u64(0).u64(offset).u64(len).u32(mode).u32(0);
    packet(Opcode::Fallocate.number(), unique, node, &body)
}

/// An LSEEK.
pub fn lseek(unique: u64, node: u64, offset: u64, whence: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.u64(0).u64(offset).u32(whence).u32(0);
    packet(Opcode::Lseek.number(), unique, node, &body)
}

/// Seeds for the corpus: whole sessions, for every kind of setup.
pub fn seeds() -> Vec<Vec<u8>> {
    let setups = [
        [1, 1, 2],
        [0b111_0011, 4, 2],
        [0b111_0001, 8, 3],
        [0, 13, 1],
        [0b000_0011, 1, 1],
        [0b001_0010, 2, 3],
        [0b010_0001, 31, 2],
        [0b100_0011, 8, 1],
    ];
    let mut seeds = Vec::new();
    for setup in setups {
        let node = if setup[0] & 2 != 0 { 1 } else { 2 };
        let mut seed = setup.to_vec();
        for packet in session(node) {
            seed.extend((packet.len() as u16).to_le_bytes());
            seed.extend(packet);
        }
        seeds.push(seed);
    }
    seeds
}

/// One packet of each kind.
fn session(node: u64) -> Vec<Vec<u8>> {
    let plain = |opcode: Opcode, node, body: &[u8]| packet(opcode.number(), 9, node, body);
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_ne_bytes()).collect() };
    vec![
        init(8, 1, 0),
        init(7, 31, u64::MAX),
        plain(Opcode::Lookup, 1, b"disk\0"),
        plain(Opcode::GetAttr, node, &words(&[0, 0])),
        plain(
            Opcode::SetAttr,
            node,
            &words(&[8, 0, 1 << 20, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        plain(Opcode::OpenDir, 1, &words(&[0])),
        transfer(Opcode::ReadDir, 3, 1, 0, 4096),
        transfer(Opcode::ReadDirPlus, 4, 1, 1, 4096),
        plain(Opcode::Access, node, &words(&[2])),
        plain(Opcode::Open, node, &words(&[2])),
        transfer(Opcode::Read, 5, node, 4096, 8192),
        write(6, node, (1 << 20) - 2, b"bytes"),
        fallocate(7, node, 0, 4096, 3),
        fallocate(7, node, 0, 4096, 16),
        lseek(8, node, 0, 3),
        lseek(8, node, 0, 4),
        plain(Opcode::Fsync, node, &words(&[0, 0])),
        plain(Opcode::Flush, node, &words(&[1, 0, 0])),
        plain(Opcode::SyncFs, 1, &words(&[0])),
        plain(Opcode::StatFs, 1, &[]),
        plain(Opcode::Interrupt, 0, &words(&[5])),
        plain(Opcode::Release, node, &words(&[0, 0, 0])),
        plain(Opcode::ReleaseDir, 1, &words(&[0, 0, 0])),
        plain(Opcode::Forget, node, &words(&[1])),
        plain(Opcode::BatchForget, 0, &words(&[1, node, 1])),
        plain(Opcode::Destroy, 0, &[]),
    ]
}
