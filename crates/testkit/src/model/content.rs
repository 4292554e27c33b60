//! What a write wrote, without keeping its bytes.

use std::sync::{Arc, OnceLock};

use reactor::sim::{Rng, mix};

/// Length of the table that patterns are taken from: a seed says where in it position 0 stands. So
/// making and comparing bytes is copying memory, and two seeds differ almost everywhere.
const TABLE: usize = 64 << 10;

fn table() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut bytes = vec![0; TABLE];
        Rng::new(0x7061_7474_6572_6e73).fill(&mut bytes);
        bytes
    })
}

/// The bytes of one write, as a function of the position.
#[derive(Clone, Debug)]
pub enum Content {
    /// Zeroes.
    Zero,
    /// Bytes that only this seed gives.
    Pattern(u64),
    /// Anything: the range was discarded.
    Any,
    /// These bytes, from this position on.
    Seen(u64, Arc<[u8]>),
}

impl Content {
    /// These bytes, from `offset` on.
    pub fn seen(offset: u64, bytes: &[u8]) -> Content {
        Content::Seen(offset, bytes.into())
    }

    /// Writes what stands at `offset..` into `bytes`. [`Content::Any`] leaves them.
    pub fn fill(&self, offset: u64, bytes: &mut [u8]) {
        match self {
            Content::Zero => bytes.fill(0),
            Content::Any => {}
            Content::Seen(base, seen) => {
                let from = (offset - base) as usize;
                bytes.copy_from_slice(&seen[from..from + bytes.len()]);
            }
            Content::Pattern(seed) => {
                let table = table();
                let mut at = offset.wrapping_add(mix(*seed)) as usize % TABLE;
                let mut rest = bytes;
                while !rest.is_empty() {
                    let n = rest.len().min(TABLE - at);
                    let (now, later) = rest.split_at_mut(n);
                    now.copy_from_slice(&table[at..at + n]);
                    (at, rest) = (0, later);
                }
            }
        }
    }
}
