//! One script of mixed requests, good and bad, for nbdkit and for us: the same bytes, the same errors,
//! the same extents.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command},
};

use crate::bench::{Place, eventually, have, run};

const SIZE: u64 = 1 << 20;

/// Commands of the protocol; the last is none.
const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const UNKNOWN: u16 = 77;

/// Flags of requests.
const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const UNKNOWN_FLAG: u16 = 1 << 9;

#[derive(Clone, Debug)]
struct Step {
    command: u16,
    flags: u16,
    offset: u64,
    length: u32,
}

/// A step's answer: the protocol's error number, and the bytes of a good read.
type Answer = (u32, Vec<u8>);

/// A client with simple replies, one request at a time.
struct Client {
    stream: UnixStream,
    size: u64,
    flags: u16,
}

impl Client {
    fn connect(path: &Path) -> Client {
        let mut stream = UnixStream::connect(path).expect("connects");
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).expect("a greeting");
        let mut hello = 3u32.to_be_bytes().to_vec();
        hello.extend_from_slice(b"IHAVEOPT\0\0\0\x01\0\0\0\0");
        stream.write_all(&hello).expect("sends");
        let mut export = [0; 10];
        stream.read_exact(&mut export).expect("an export");
        Client {
            stream,
            size: u64::from_be_bytes(export[..8].try_into().expect("8 bytes")),
            flags: u16::from_be_bytes(export[8..].try_into().expect("2 bytes")),
        }
    }

    fn play(&mut self, cookie: u64, step: &Step) -> Answer {
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&step.flags.to_be_bytes());
        bytes.extend_from_slice(&step.command.to_be_bytes());
        bytes.extend_from_slice(&cookie.to_be_bytes());
        bytes.extend_from_slice(&step.offset.to_be_bytes());
        bytes.extend_from_slice(&step.length.to_be_bytes());
        if step.command == WRITE {
            bytes.extend((0..step.length).map(|i| (u64::from(i) * 31 + cookie) as u8));
        }
        self.stream.write_all(&bytes).expect("sends");
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).expect("a reply");
        assert_eq!(head[..4], *b"gDf\x98");
        assert_eq!(head[8..], cookie.to_be_bytes());
        let error = u32::from_be_bytes(head[4..8].try_into().expect("4 bytes"));
        let mut data = Vec::new();
        if step.command == READ && error == 0 {
            data.resize(step.length as usize, 0);
            self.stream.read_exact(&mut data).expect("data");
        }
        (error, data)
    }
}

/// The steps of a seed: most are good, some break a rule each.
fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let one = |random: &mut dyn FnMut(u64) -> u64| {
        let commands = [
            READ,
            READ,
            READ,
            WRITE,
            WRITE,
            TRIM,
            WRITE_ZEROES,
            WRITE_ZEROES,
            FLUSH,
        ];
        let command = commands[random(commands.len() as u64) as usize];
        let length = 1 + random(70_000);
        let offset = random(SIZE - length + 1);
        let mut step = Step {
            command,
            flags: 0,
            offset,
            length: length as u32,
        };
        if command == FLUSH {
            (step.offset, step.length) = (0, 0);
        }
        let changes = matches!(command, WRITE | TRIM | WRITE_ZEROES);
        if changes && random(4) == 0 {
            step.flags |= FUA;
        }
        if command == WRITE_ZEROES && random(2) == 0 {
            step.flags |= NO_HOLE;
        }
        match random(12) {
            0 => step.offset = SIZE - random(u64::from(step.length).max(1)),
            1 => step.offset = u64::MAX - random(100),
            2 => step.flags |= UNKNOWN_FLAG,
            3 if command != WRITE => step.command = UNKNOWN,
            // Of the length 0, nbdkit says ENOSPC to writes and zeroes; we say EINVAL to all.
            4 if matches!(command, READ | TRIM) => step.length = 0,
            5 if command == READ => step.flags |= NO_HOLE,
            _ => {}
        }
        step
    };
    (0..steps).map(|_| one(&mut random)).collect()
}

/// A server in the foreground, killed when dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, socket: &Path) -> Running {
        let child = command.spawn().expect("starts");
        eventually("it listens", || UnixStream::connect(socket).is_ok());
        Running(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both servers of the same words; `{}` in a word is `theirs` or `ours`.
fn both(place: &Place, words: &[&str], check: impl Fn(&mut [Client; 2])) {
    let names = ["theirs", "ours"];
    let sockets = names.map(|name| place.path(name));
    let servers = [0, 1].map(|n| {
        let mut command = match n {
            0 => place.command("nbdkit"),
            _ => place.blkit(&["nbdkit"]),
        };
        command.arg("-f").arg("-U").arg(&sockets[n]);
        command.args(words.iter().map(|word| word.replace("{}", names[n])));
        Running::start(&mut command, &sockets[n])
    });
    check(&mut [0, 1].map(|n| Client::connect(&sockets[n])));
    drop(servers);
    sockets
        .iter()
        .for_each(|socket| fs::remove_file(socket).expect("it stays"));
}

#[test]
fn the_same_script_has_the_same_answers() {
    if !have(&["nbdkit"]) {
        return;
    }
    let place = Place::new();
    for name in ["theirs", "ours"] {
        place.sparse(&format!("{name}.img"), SIZE);
    }
    for words in [
        &["memory", "1M"][..],
        &["file", "{}.img"],
        &["-r", "file", "{}.img"],
        &["null", "1M"],
        &["memory", "1M", "allocator=malloc"],
        &["memory", "1M", "allocator=zstd"],
        &["data", "(1 2 3 @^4096)*200 \"end\"", "size=1M"],
        &["full", "1M"],
        &["-r", "pattern", "1M"],
    ] {
        both(&place, words, |clients| {
            assert_eq!(clients[0].size, clients[1].size, "{words:?}");
            for seed in 1..=4 {
                for (cookie, mut step) in script(seed, 250).into_iter().enumerate() {
                    if ["-r", "full"].contains(&words[0]) {
                        // They offer no flags for writes: one of them would break two rules.
                        step.flags = 0;
                    }
                    let (step, [theirs, ours]) = (&step, &mut *clients);
                    let expected = theirs.play(cookie as u64, step);
                    let answer = ours.play(cookie as u64, step);
                    assert_eq!(answer.0, expected.0, "{words:?}, seed {seed}: {step:?}");
                    assert!(
                        answer.1 == expected.1,
                        "{words:?}, seed {seed}: bytes of {step:?}"
                    );
                }
            }
            let whole = Step {
                command: READ,
                flags: 0,
                offset: 0,
                length: SIZE as u32,
            };
            let [theirs, ours] = clients;
            assert!(
                theirs.play(0, &whole) == ours.play(0, &whole),
                "{words:?}: the whole disk"
            );
        });
    }
}

#[test]
fn the_same_file_has_the_same_extents() {
    if !have(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let path = place.sparse("disk.img", SIZE);
    let mut file = fs::File::options().write(true).open(&path).expect("opens");
    file.write_all(&[1; 100_000]).expect("writes");
    drop(file);
    let map = |mut command: Command| {
        let words = [
            "file",
            "disk.img",
            "-U",
            "-",
            "--run",
            "nbdinfo --map --json \"$uri\"",
        ];
        run(command.args(words))
    };
    assert_eq!(map(place.blkit(&["nbdkit"])), map(place.command("nbdkit")));
}

#[test]
fn the_same_flags_are_offered() {
    if !have(&["nbdkit"]) {
        return;
    }
    let place = Place::new();
    for name in ["theirs", "ours"] {
        place.sparse(&format!("{name}.img"), SIZE);
    }
    for words in [
        &["memory", "1M"][..],
        &["-r", "memory", "1M"],
        &["file", "{}.img"],
        &["-r", "file", "{}.img"],
        &["null", "1M"],
    ] {
        both(&place, words, |clients| {
            // What the older nbdkit does not offer yet is ours to offer.
            let (theirs, ours) = (clients[0].flags, clients[1].flags);
            assert_eq!(
                ours & theirs,
                theirs,
                "{words:?}: {theirs:#x}, ours {ours:#x}"
            );
        });
    }
}
