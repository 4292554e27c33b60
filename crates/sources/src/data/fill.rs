//! From the evaluator to the disk: gathers small writes, so that each page is written once, and leaves
//! out what is zero.

use block::Errno;

use super::eval::Sink;
use crate::memory::Fill;

/// Bytes gathered at most; a multiple of every store's page.
const GATHER: u64 = 64 << 10;

/// Writes to a disk.
pub(super) struct Filler<'a> {
    store: &'a dyn Fill,
    /// Bytes of the disk.
    size: u64,
    /// What has not been written yet, and where it belongs. It never crosses a multiple of `GATHER`.
    gathered: Vec<u8>,
    at: u64,
    /// Bytes of memory that may still be taken.
    memory: u64,
}

impl<'a> Filler<'a> {
    /// Writes to a disk of `size` bytes, at most so many bytes that are not zero.
    pub fn new(store: &'a dyn Fill, size: u64, memory: u64) -> Filler<'a> {
        Filler {
            store,
            size,
            gathered: Vec::with_capacity(GATHER as usize),
            at: 0,
            memory,
        }
    }

    /// Makes `at` the place behind what is gathered, and tells how much still fits.
    fn room(&mut self, at: u64) -> Result<u64, Errno> {
        let end = self.at + self.gathered.len() as u64;
        if at != end || at.is_multiple_of(GATHER) {
            self.finish()?;
        }
        if self.gathered.is_empty() {
            self.at = at;
        }
        Ok(GATHER - at % GATHER)
    }
}

impl Sink for Filler<'_> {
    fn write(&mut self, mut at: u64, mut bytes: &[u8]) -> Result<(), Errno> {
        debug_assert!(at + bytes.len() as u64 <= self.size);
        while !bytes.is_empty() {
            let n = self.room(at)?.min(bytes.len() as u64) as usize;
            self.gathered.extend_from_slice(&bytes[..n]);
            (at, bytes) = (at + n as u64, &bytes[n..]);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Errno> {
        let len = self.gathered.len() as u64;
        if len == 0 {
            return Ok(());
        }
        if self.gathered.iter().all(|byte| *byte == 0) {
            self.store.zero_bytes(self.at, len)?;
        } else {
            self.memory = self.memory.checked_sub(len).ok_or(Errno::ENOMEM)?;
            self.store.write_bytes(self.at, &self.gathered)?;
        }
        self.gathered.clear();
        Ok(())
    }

    fn zero(&mut self, at: u64, len: u64) -> Result<(), Errno> {
        debug_assert!(len <= self.size - at);
        if len < self.room(at)? {
            self.gathered.resize(self.gathered.len() + len as usize, 0);
            return Ok(());
        }
        self.finish()?;
        self.store.zero_bytes(at, len)
    }
}
