//! What a write wrote, without keeping its bytes.

use std::rc::Rc;

use reactor::sim::mix;

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
    Seen(u64, Rc<[u8]>),
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
                let (mut at, mut rest) = (offset, bytes);
                while !rest.is_empty() {
                    let word = mix(seed.rotate_left(32) ^ (at >> 3)).to_le_bytes();
                    let skip = (at & 7) as usize;
                    let n = rest.len().min(8 - skip);
                    let (now, later) = rest.split_at_mut(n);
                    now.copy_from_slice(&word[skip..skip + n]);
                    (at, rest) = (at + n as u64, later);
                }
            }
        }
    }
}
