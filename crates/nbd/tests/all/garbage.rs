//! Hostile bytes: random ones, and valid sessions with random damage. Nothing may panic, and the
//! fuzz entry points check bounds and that pieces make no difference.

use nbd::fuzzing::{fuzz_handshake, fuzz_transmission};
use nbd::proto::*;

/// xorshift64*: good enough to choose bytes, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Flips, cuts, repeats or overwrites parts.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                4 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0),
                _ => {
                    let copy = bytes[at..].to_vec();
                    bytes.extend_from_slice(&copy[..copy.len().min(64)]);
                }
            }
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

/// A random option with mostly valid data.
fn option(random: &mut Random) -> Vec<u8> {
    let number = 1 + random.below(12) as u32;
    let name = ["", "a", "missing"][random.below(3)];
    let data = match number {
        OPT_EXPORT_NAME if random.below(4) != 0 => return option(random),
        OPT_EXPORT_NAME => name.as_bytes().to_vec(),
        OPT_INFO | OPT_GO => [&string(name)[..], b"\0\x03\0\x01\0\x02\0\x03"].concat(),
        OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => {
            let query = ["base:", "base:allocation", "x-test:a"][random.below(3)];
            [&string(name)[..], b"\0\0\0\x01", &string(query)].concat()
        }
        _ => Vec::new(),
    };
    let length = (data.len() as u32).to_be_bytes();
    [
        &OPT_MAGIC.to_be_bytes()[..],
        &number.to_be_bytes(),
        &length,
        &data,
    ]
    .concat()
}

/// A random option reply with mostly valid data.
fn option_reply(random: &mut Random, number: u32) -> Vec<u8> {
    let (kind, data) = match random.below(7) {
        0 | 1 => (REP_ACK, Vec::new()),
        2 => (REP_SERVER, [&string("name")[..], b"text"].concat()),
        3 => (REP_INFO, b"\0\0\0\0\0\0\0\0\x10\0\0\x01".to_vec()),
        4 => (REP_INFO, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0".to_vec()),
        5 => (REP_META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec()),
        _ => (REP_ERR_UNSUP + random.below(4) as u32, b"why".to_vec()),
    };
    let length = (data.len() as u32).to_be_bytes();
    let head = [
        REP_MAGIC.to_be_bytes(),
        (u64::from(number) << 32 | u64::from(kind)).to_be_bytes(),
    ];
    [&head.concat()[..], &length, &data].concat()
}

fn request(random: &mut Random, extended: bool) -> Vec<u8> {
    let command = random.below(9) as u16;
    let flags = if random.below(2) == 0 {
        0
    } else {
        random.below(64) as u16
    };
    let length = [0, 1, 12, 512, 4096, 1 << 20][random.below(6)] as u64;
    let offset = [0, 1, 512, 4096, u64::MAX - 511][random.below(5)];
    let magic = if extended {
        EXTENDED_REQUEST_MAGIC
    } else {
        REQUEST_MAGIC
    };
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&random.next().to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    if extended {
        bytes.extend_from_slice(&length.to_be_bytes());
    } else {
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
    }
    if flags & CMD_FLAG_PAYLOAD_LEN != 0 && length == 12 {
        bytes.extend_from_slice(b"\0\0\0\0\0\0\x10\0\0\0\0\x07");
    }
    bytes
}

fn reply(random: &mut Random, mode: usize, setup: &[u8; 8]) -> Vec<u8> {
    let cookie = random.below(4) as u64;
    if mode == 0 || (mode == 1 && random.below(4) == 0) {
        let error = [0, 0, 5][random.below(3)];
        let head = u64::from(SIMPLE_REPLY_MAGIC) << 32 | error;
        return [head.to_be_bytes(), cookie.to_be_bytes()].concat();
    }
    let offset = u64::from(setup[1]) << 8;
    let at = offset + random.below(64) as u64;
    let (kind, payload) = match random.below(6) {
        0 => (REPLY_TYPE_NONE, Vec::new()),
        1 => (
            REPLY_TYPE_OFFSET_DATA,
            [&at.to_be_bytes()[..], &random.bytes(99)].concat(),
        ),
        2 => (
            REPLY_TYPE_OFFSET_HOLE,
            [&at.to_be_bytes()[..], b"\0\0\0\x10"].concat(),
        ),
        3 => {
            let count = 1 + random.below(4);
            (
                REPLY_TYPE_BLOCK_STATUS,
                [&b"\0\0\0\x07"[..], &[1; 8].repeat(count)].concat(),
            )
        }
        4 => {
            let count = 1 + random.below(4);
            let head = b"\0\0\0\x07\0\0\0\0";
            (
                REPLY_TYPE_BLOCK_STATUS_EXT,
                [&head[..], &[1; 16].repeat(count)].concat(),
            )
        }
        _ => (REPLY_TYPE_ERROR, b"\0\0\0\x05\0\x03why".to_vec()),
    };
    let magic = if mode == 1 {
        STRUCTURED_REPLY_MAGIC
    } else {
        EXTENDED_REPLY_MAGIC
    };
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(random.below(2) as u16).to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    if mode != 1 {
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
    }
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

#[test]
fn random_bytes() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..100_000 {
        let bytes = random.bytes(200);
        fuzz_handshake(&bytes);
        fuzz_transmission(&bytes);
    }
}

#[test]
fn damaged_server_handshakes() {
    let mut random = Random(1);
    for _ in 0..60_000 {
        let mut bytes = b"\0\0\0\x03".to_vec();
        for _ in 0..random.below(8) {
            bytes.extend(option(&mut random));
        }
        if random.below(4) != 0 {
            random.damage(&mut bytes);
        }
        let setup = [
            random.next() as u8,
            random.next() as u8,
            random.next() as u8,
        ];
        fuzz_handshake(&[&setup[..], &bytes].concat());
    }
}

#[test]
fn damaged_client_handshakes() {
    let mut random = Random(2);
    let numbers = [
        OPT_STARTTLS,
        OPT_EXTENDED_HEADERS,
        OPT_STRUCTURED_REPLY,
        OPT_LIST,
    ];
    for _ in 0..60_000 {
        let mut bytes = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
        // Most walks go off the rails; the machine must notice. The last option repeats.
        let mut plan: Vec<u32> = (0..random.below(3)).map(|n| numbers[n + 1]).collect();
        plan.extend([OPT_SET_META_CONTEXT, OPT_GO, OPT_INFO, OPT_LIST][random.below(4)..].first());
        plan.extend([OPT_GO; 4]);
        for number in plan {
            bytes.extend(option_reply(&mut random, number));
        }
        if random.below(4) != 0 {
            random.damage(&mut bytes);
        }
        let setup = [
            random.next() as u8,
            random.next() as u8,
            random.next() as u8,
        ];
        fuzz_handshake(&[&setup[..], &bytes].concat());
    }
}

#[test]
fn damaged_transmissions() {
    let mut random = Random(3);
    for turn in 0..120_000 {
        let setup: [u8; 8] = std::array::from_fn(|_| random.next() as u8);
        let mode = usize::from(setup[0] & 3);
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(6) {
            bytes.extend(if turn % 2 == 0 {
                request(&mut random, mode >= 2)
            } else {
                reply(&mut random, mode, &setup)
            });
        }
        if random.below(4) != 0 {
            random.damage(&mut bytes);
        }
        fuzz_transmission(&[&setup[..], &bytes].concat());
    }
}
