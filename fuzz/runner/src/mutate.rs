//! Damage: a small, seeded mutator.
//!
//! No coverage guides it, so it begins with real sessions and keeps most of them: a few changes to
//! one input, in the places and with the values where protocol code breaks.

/// xorshift64*: the same everywhere for a seed.
pub struct Random(u64);

impl Random {
    /// From a seed; all are good.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.any() >> 33) as usize % end
    }
}

/// Inputs grow no longer than this.
pub const LONGEST: usize = 16 << 10;

/// Values at which comparisons and sums change their mind.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    12,
    0x7f,
    0xff,
    0x1ff,
    0xfff,
    4096,
    4097,
    0xffff,
    0x1_0000,
    (64 << 10) + 1,
    32 << 20,
    (32 << 20) + 1,
    128 << 20,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

/// A damaged copy of `input`; `other` lends parts.
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(5) {
        change(random, &mut bytes, other);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.any() as u8,
        2 => bytes.truncate(at),
        3 => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        5 if !other.is_empty() => {
            let from = random.below(other.len());
            let end = (from + 1 + random.below(256)).min(other.len());
            bytes.splice(at..at, other[from..end].iter().copied());
        }
        _ => {
            let value = NUMBERS[random.below(NUMBERS.len())].to_be_bytes();
            let width = [1, 2, 4, 8][random.below(4)];
            let (value, rest) = (&value[8 - width..], bytes.len() - at);
            let fits = width.min(rest);
            bytes[at..at + fits].copy_from_slice(&value[..fits]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_damage() {
        let (a, b) = (vec![1; 300], vec![2; 300]);
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..100)
                .map(|_| mutate(&mut random, &a, &b))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
        assert!(run(7).iter().filter(|bytes| **bytes != a).count() > 80);
    }

    #[test]
    fn anything_can_be_damaged() {
        let mut random = Random::new(1);
        let mut bytes = Vec::new();
        for _ in 0..20_000 {
            bytes = mutate(&mut random, &bytes, &[3; 40]);
            assert!(bytes.len() <= LONGEST);
        }
    }
}
