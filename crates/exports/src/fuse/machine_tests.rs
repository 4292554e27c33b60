//! The machine by scripted requests.

use super::{
    fuzzing::{fallocate, fuzz_machine, init, lseek, packet, seeds, transfer, write},
    machine::{Command, MAX_READ, MAX_WRITE, Machine, Step},
    proto::{Opcode, Put, errno, fopen, init as flags},
    view::{Cache, Disk, Shape, View},
};

const SIZE: u64 = 1 << 20;

const DISK: Disk = Disk {
    size: SIZE,
    block: 65536,
    writes: true,
    flushes: true,
    zeroes: true,
    extents: true,
};

fn directory() -> View {
    View {
        shape: Shape::Directory {
            name: "disk.raw".into(),
        },
        uid: 10,
        gid: 20,
        ..View::default()
    }
}

/// A machine after INIT.
fn agreed(view: View, disk: Disk) -> Machine {
    let mut machine = Machine::new(view, disk, None);
    assert_eq!(
        said(&mut machine, &init(7, 39, u64::MAX)).map(|a| a.len()),
        Ok(64)
    );
    machine
}

/// The body of an answer, or its error.
fn said(machine: &mut Machine, packet: &[u8]) -> Result<Vec<u8>, i32> {
    let mut out = Vec::new();
    let step = machine.input(packet, &mut out).expect("a packet");
    assert!(matches!(step, Step::Answer | Step::Destroy), "{step:?}");
    match i32::from_ne_bytes(out[4..8].try_into().unwrap()) {
        0 => Ok(out[16..].to_vec()),
        error => Err(-error),
    }
}

fn served(machine: &mut Machine, packet: &[u8]) -> Command {
    let mut out = Vec::new();
    match machine.input(packet, &mut out).expect("a packet") {
        Step::Serve { command, .. } => {
            assert!(out.is_empty());
            command
        }
        other => panic!("{other:?} {out:?}"),
    }
}

fn plain(opcode: Opcode, node: u64, words: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    packet(opcode.number(), 77, node, &body)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn the_version_is_agreed_on_once() {
    let mut machine = Machine::new(View::default(), DISK, None);
    let early = said(&mut machine, &plain(Opcode::GetAttr, 1, &[0, 0]));
    assert_eq!(early, Err(errno::EPROTO));
    for (major, minor) in [(6, 40), (7, 22)] {
        assert_eq!(
            said(&mut machine, &init(major, minor, 0)),
            Err(errno::EPROTO)
        );
    }
    let newer = said(&mut machine, &init(8, 0, 0)).unwrap();
    assert_eq!((u32_at(&newer, 0), machine.agreed()), (7, None));
    let answer = said(&mut machine, &init(7, 31, u64::MAX)).unwrap();
    assert_eq!(answer.len(), 64);
    assert_eq!((u32_at(&answer, 0), u32_at(&answer, 20)), (7, MAX_WRITE));
    let agreed = machine.agreed().expect("agreed");
    assert_eq!(agreed.minor, 31);
    assert_eq!(u64::from(u32_at(&answer, 12)), agreed.flags);
    for flag in [flags::ASYNC_READ, flags::MAX_PAGES, flags::ATOMIC_O_TRUNC] {
        assert_ne!(agreed.flags & flag, 0);
    }
    // The kernel's write-back cache (bit 16) would tell nobody that a write has failed.
    assert_eq!(agreed.flags & (1 << 16 | flags::AUTO_INVAL_DATA), 0);
    assert_eq!(said(&mut machine, &init(7, 31, 0)), Err(errno::EPROTO));
    // What the kernel does not offer is not asked for.
    let mut machine = Machine::new(View::default(), DISK, None);
    let answer = said(&mut machine, &init(7, 23, 0)).unwrap();
    assert_eq!(u32_at(&answer, 12), 0);
}

#[test]
fn the_directory_has_one_file() {
    let mut machine = agreed(directory(), DISK);
    let lookup = |name: &[u8]| packet(Opcode::Lookup.number(), 3, 1, name);
    let entry = said(&mut machine, &lookup(b"disk.raw\0")).unwrap();
    assert_eq!((entry.len(), u64_at(&entry, 0)), (128, 2));
    assert_eq!((u64_at(&entry, 40), u64_at(&entry, 48)), (2, SIZE));
    for other in [&b"disk.ra\0"[..], b"disk.raww\0", b"\0"] {
        assert_eq!(said(&mut machine, &lookup(other)), Err(errno::ENOENT));
    }
    assert_eq!(said(&mut machine, &lookup(b"disk.raw")), Err(errno::EINVAL));
    let attr = |node| plain(Opcode::GetAttr, node, &[0, 0]);
    let root = said(&mut machine, &attr(1)).unwrap();
    let file = said(&mut machine, &attr(2)).unwrap();
    assert_eq!((root.len(), file.len()), (104, 104));
    assert_eq!(
        (u32_at(&root, 76), u32_at(&file, 76)),
        (0o040_555, 0o100_666)
    );
    assert_eq!((u32_at(&file, 84), u32_at(&file, 88)), (10, 20));
    assert_eq!(u32_at(&file, 96), 65536);
    assert_eq!(said(&mut machine, &attr(3)), Err(errno::ENOENT));
    assert!(said(&mut machine, &plain(Opcode::OpenDir, 1, &[0])).is_ok());
    assert!(said(&mut machine, &plain(Opcode::OpenDir, 2, &[0])).is_err());
    assert!(said(&mut machine, &plain(Opcode::Open, 1, &[0])).is_err());
}

/// Names in a directory's listing, read with so much room at a time.
fn listing(machine: &mut Machine, opcode: Opcode, room: u32) -> Vec<String> {
    let head = if opcode == Opcode::ReadDirPlus {
        128
    } else {
        0
    };
    let (mut names, mut at) = (Vec::new(), 0);
    loop {
        let answer = said(machine, &transfer(opcode, 5, 1, at, room)).unwrap();
        assert!(answer.len() <= room as usize);
        if answer.is_empty() {
            return names;
        }
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let len = u32_at(rest, head + 16) as usize;
            at = u64_at(rest, head + 8);
            let name = &rest[head + 24..head + 24 + len];
            names.push(String::from_utf8(name.to_vec()).unwrap());
            rest = &rest[(head + 24 + len).next_multiple_of(8)..];
        }
    }
}

#[test]
fn the_directory_is_listed_in_any_pieces() {
    let mut machine = agreed(directory(), DISK);
    for (opcode, rooms) in [
        (Opcode::ReadDir, [32, 64, 4096]),
        (Opcode::ReadDirPlus, [160, 330, 4096]),
    ] {
        for room in rooms {
            let names = listing(&mut machine, opcode, room);
            assert_eq!(names, [".", "..", "disk.raw"], "{opcode:?} {room}");
        }
        let none = said(&mut machine, &transfer(opcode, 5, 1, u64::MAX, 4096));
        assert_eq!(none, Ok(Vec::new()));
    }
}

#[test]
fn a_file_may_be_the_mount_point() {
    let mut machine = agreed(View::default(), DISK);
    let file = said(&mut machine, &plain(Opcode::GetAttr, 1, &[0, 0])).unwrap();
    assert_eq!((u32_at(&file, 76), u64_at(&file, 24)), (0o100_666, SIZE));
    assert_eq!(
        served(&mut machine, &transfer(Opcode::Read, 1, 1, 0, 4096)),
        Command::Read {
            offset: 0,
            len: 4096
        }
    );
    assert!(said(&mut machine, &plain(Opcode::GetAttr, 2, &[0, 0])).is_err());
}

#[test]
fn transfers_stay_inside_of_the_disk() {
    let mut machine = agreed(directory(), DISK);
    let read = |offset, len| transfer(Opcode::Read, 1, 2, offset, len);
    assert_eq!(
        served(&mut machine, &read(SIZE - 10, 4096)),
        Command::Read {
            offset: SIZE - 10,
            len: 10
        }
    );
    for offset in [SIZE, SIZE + 1, u64::MAX] {
        assert_eq!(said(&mut machine, &read(offset, 4096)), Ok(Vec::new()));
        let past = write(1, 2, offset, b"x");
        assert_eq!(said(&mut machine, &past), Err(errno::ENOSPC));
    }
    assert_eq!(
        said(&mut machine, &read(0, MAX_READ + 1)),
        Err(errno::EINVAL)
    );
    assert_eq!(
        served(&mut machine, &write(1, 2, SIZE - 3, b"bytes")),
        Command::Write {
            offset: SIZE - 3,
            len: 3
        }
    );
    assert_eq!(said(&mut machine, &write(1, 2, 0, b"")), Ok(vec![0; 8]));
    // More or fewer bytes than are told.
    for delta in [-1_i32, 1] {
        let mut packet = write(1, 2, 0, b"bytes");
        let len = (5 + delta) as u32;
        packet[56..60].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(said(&mut machine, &packet), Err(errno::EINVAL));
    }
    machine.resize(SIZE * 2);
    assert_eq!(
        served(&mut machine, &read(SIZE, 4096)),
        Command::Read {
            offset: SIZE,
            len: 4096
        }
    );
}

#[test]
fn a_hole_is_punched_and_a_range_is_zeroed() {
    let mut machine = agreed(directory(), DISK);
    for (mode, keep) in [(2, false), (3, false), (16, true), (17, true)] {
        assert_eq!(
            served(&mut machine, &fallocate(1, 2, 4096, SIZE - 4096, mode)),
            Command::Zero {
                offset: 4096,
                len: SIZE - 4096,
                keep
            }
        );
    }
    for (offset, len) in [(4096, SIZE), (SIZE + 1, 1), (1, u64::MAX)] {
        let beyond = said(&mut machine, &fallocate(1, 2, offset, len, 3));
        assert_eq!(beyond, Err(errno::ENOSPC));
    }
    for mode in [0, 1, 8, 18, 32] {
        let other = said(&mut machine, &fallocate(1, 2, 0, 4096, mode));
        assert_eq!(other, Err(errno::EOPNOTSUPP), "{mode}");
    }
    let mut poor = agreed(
        directory(),
        Disk {
            zeroes: false,
            ..DISK
        },
    );
    let none = said(&mut poor, &fallocate(1, 2, 0, 4096, 3));
    assert_eq!(none, Err(errno::EOPNOTSUPP));
}

#[test]
fn nothing_writes_to_what_is_read_only() {
    let views = [
        (
            View {
                read_only: true,
                ..directory()
            },
            DISK,
        ),
        (
            directory(),
            Disk {
                writes: false,
                ..DISK
            },
        ),
    ];
    for (view, disk) in views {
        let mut machine = agreed(view, disk);
        let file = said(&mut machine, &plain(Opcode::GetAttr, 2, &[0, 0])).unwrap();
        assert_eq!(u32_at(&file, 76), 0o100_444);
        for flags in [1, 2] {
            let refused = said(&mut machine, &plain(Opcode::Open, 2, &[flags]));
            assert_eq!(refused, Err(errno::EACCES));
        }
        assert!(said(&mut machine, &plain(Opcode::Open, 2, &[0])).is_ok());
        let access = |mask| plain(Opcode::Access, 2, &[mask]);
        assert_eq!(said(&mut machine, &access(2)), Err(errno::EACCES));
        assert!(said(&mut machine, &access(4)).is_ok());
        assert_eq!(said(&mut machine, &write(1, 2, 0, b"x")), Err(errno::EBADF));
        let hole = said(&mut machine, &fallocate(1, 2, 0, 1, 3));
        assert_eq!(hole, Err(errno::EBADF));
        // There is nothing to make durable.
        assert!(said(&mut machine, &plain(Opcode::Fsync, 2, &[0, 0])).is_ok());
    }
}

#[test]
fn fsync_and_close_flush() {
    let mut machine = agreed(directory(), DISK);
    for (packet, closing) in [
        (plain(Opcode::Fsync, 2, &[0, 0]), false),
        (plain(Opcode::SyncFs, 1, &[0]), false),
        (plain(Opcode::Flush, 2, &[1, 0, 0]), true),
    ] {
        assert_eq!(served(&mut machine, &packet), Command::Flush { closing });
    }
    // The handle says who has opened the file for writing; who has not, has nothing to flush.
    for (flags, writer) in [(0, false), (1, true), (2, true)] {
        let opened = said(&mut machine, &plain(Opcode::Open, 2, &[flags])).unwrap();
        assert_eq!(u32_at(&opened, 8) & fopen::NOFLUSH == 0, writer);
        let close = plain(Opcode::Flush, 2, &[u64_at(&opened, 0), 0, 0]);
        let mut out = Vec::new();
        let step = machine.input(&close, &mut out).unwrap();
        assert_eq!(step != Step::Answer, writer);
    }
    let mut cannot = agreed(
        directory(),
        Disk {
            flushes: false,
            ..DISK
        },
    );
    assert!(said(&mut cannot, &plain(Opcode::Fsync, 2, &[0, 0])).is_ok());
}

#[test]
fn seeking_begins_inside() {
    let mut machine = agreed(directory(), DISK);
    for (whence, data) in [(3, true), (4, false)] {
        let offset = SIZE - 1;
        assert_eq!(
            served(&mut machine, &lseek(1, 2, offset, whence)),
            Command::Seek { offset, data }
        );
        let end = said(&mut machine, &lseek(1, 2, SIZE, whence));
        assert_eq!(end, Err(errno::ENXIO));
    }
    assert_eq!(said(&mut machine, &lseek(1, 2, 0, 2)), Err(errno::EINVAL));
}

#[test]
fn the_size_cannot_be_changed() {
    let mut machine = agreed(directory(), DISK);
    let set = |valid: u32, size: u64| {
        let mut body = Vec::new();
        body.u32(valid).u32(0).u64(0).u64(size).zeroes(64);
        packet(Opcode::SetAttr.number(), 1, 2, &body)
    };
    // ftruncate(2) tells times too.
    assert_eq!(
        said(&mut machine, &set(8 | 0x460, SIZE)).map(|a| a.len()),
        Ok(104)
    );
    for (valid, size) in [(8, 0), (8, SIZE + 1), (9, SIZE), (1, 0), (6, 0), (0x30, 0)] {
        assert_eq!(said(&mut machine, &set(valid, size)), Err(errno::EPERM));
    }
}

#[test]
fn what_is_kept_is_told_when_the_file_is_opened() {
    for (cache, expected) in [
        (Cache::WhileOpen, 0),
        (Cache::Keep, fopen::KEEP_CACHE),
        (Cache::Auto, fopen::KEEP_CACHE),
        (Cache::Nothing, fopen::DIRECT_IO),
    ] {
        let mut machine = agreed(
            View {
                cache,
                ..directory()
            },
            DISK,
        );
        let answer = said(&mut machine, &plain(Opcode::Open, 2, &[2])).unwrap();
        let told = u32_at(&answer, 8) & (fopen::KEEP_CACHE | fopen::DIRECT_IO);
        assert_eq!(told, expected, "{cache:?}");
        let auto = machine.agreed().unwrap().flags & flags::AUTO_INVAL_DATA != 0;
        assert_eq!(auto, cache == Cache::Auto);
    }
}

#[test]
fn what_is_not_a_disks_is_refused_once_and_for_all() {
    let mut machine = agreed(directory(), DISK);
    // SYMLINK, MKNOD, MKDIR, UNLINK, RENAME, GETXATTR, CREATE, IOCTL, COPY_FILE_RANGE, unknown.
    for opcode in [6, 8, 9, 10, 12, 22, 35, 39, 47, 999] {
        let refused = said(&mut machine, &packet(opcode, 1, 1, b"name\0"));
        assert_eq!(refused, Err(errno::ENOSYS), "{opcode}");
    }
    let mut out = Vec::new();
    for opcode in [Opcode::Forget, Opcode::BatchForget] {
        let step = machine.input(&plain(opcode, 2, &[1, 2]), &mut out);
        assert_eq!((step, out.len()), (Ok(Step::Nothing), 0));
    }
    let step = machine.input(&plain(Opcode::Interrupt, 0, &[9]), &mut out);
    assert_eq!((step, out.len()), (Ok(Step::Interrupt { unique: 9 }), 0));
    let step = machine.input(&plain(Opcode::Destroy, 0, &[]), &mut out);
    assert_eq!(step, Ok(Step::Destroy));
}

#[test]
fn damaged_sessions_are_survived() {
    for seed in seeds() {
        fuzz_machine(&seed);
        for at in 0..seed.len() {
            fuzz_machine(&seed[..at]);
            for value in [0, 0xff, seed[at] ^ 0x10] {
                let mut damaged = seed.clone();
                damaged[at] = value;
                fuzz_machine(&damaged);
            }
        }
    }
}
