//! Memory for requests.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use block::{Errno, OwnedBuf, SharedBuf, SharedMem};

use crate::error::{Error, Result};

/// Bytes that a request takes along and brings back.
///
/// A request must own its memory: a server or the kernel may be filling it at any moment until it
/// completes, also when nobody waits for it any more. So async and queue-level requests take a buffer
/// by value and return it. It can be used again and again without an allocation, and reads as a slice.
///
/// ```
/// use blkit::Buffer;
///
/// let mut buffer = Buffer::new(4096);
/// buffer[..5].copy_from_slice(b"hello");
/// let bytes: Vec<u8> = Buffer::from(vec![1, 2, 3]).into_vec();
/// # assert_eq!((buffer.len(), &bytes[..]), (4096, &[1, 2, 3][..]));
/// ```
pub struct Buffer {
    memory: OwnedBuf,
    len: usize,
}

impl Buffer {
    /// `len` zero bytes, aligned for direct I/O.
    ///
    /// # Panics
    /// Memory is exhausted.
    pub fn new(len: usize) -> Buffer {
        let memory = OwnedBuf::zeroed(len).expect("memory for a buffer");
        Buffer { memory, len }
    }

    /// As [`Buffer::new`], for a length that nobody has looked at.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted): there is not so much memory.
    pub fn try_new(len: usize) -> Result<Buffer> {
        let what = || Error::new(Errno::ENOMEM, format!("no memory for {len} bytes"));
        let memory = OwnedBuf::zeroed(len).ok_or_else(what)?;
        Ok(Buffer { memory, len })
    }

    /// So many bytes it can have.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Makes it shorter, or longer again up to its capacity; what it holds stays.
    ///
    /// # Panics
    /// `len` is more than the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "longer than the buffer's capacity");
        self.len = len;
    }

    /// The bytes as a vector, without a copy if it was made of one.
    pub fn into_vec(self) -> Vec<u8> {
        let mut bytes = self.memory.into_vec();
        bytes.truncate(self.len);
        bytes
    }

    pub(crate) fn lend(self) -> Lent {
        Lent {
            memory: self.memory.lend(),
            len: self.len,
        }
    }
}

impl Default for Buffer {
    /// No bytes.
    fn default() -> Buffer {
        Vec::new().into()
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        let memory = OwnedBuf::from_vec(bytes);
        let len = memory.len();
        Buffer { memory, len }
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::new(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// A buffer that is under way.
pub(crate) struct Lent {
    memory: Arc<SharedBuf>,
    len: usize,
}

impl Lent {
    /// For the request: what it does to these bytes, it does to the buffer's.
    pub fn memory(&self) -> SharedMem {
        SharedMem::of_shared(self.memory.clone(), 0, self.len)
    }

    /// The request is over. A layer that has not let go yet (a send that the kernel has not reported)
    /// costs a copy.
    pub fn reclaim(self) -> Buffer {
        let len = self.len;
        match OwnedBuf::reclaim(self.memory) {
            Ok(memory) => Buffer { memory, len },
            Err(held) => {
                let mut bytes = vec![0; held.len()];
                held.read(0, &mut bytes);
                let memory = OwnedBuf::from_vec(bytes);
                Buffer { memory, len }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_can_be_shortened_and_lengthened() {
        let mut buffer = Buffer::from(b"hello".to_vec());
        buffer.set_len(2);
        assert_eq!((&buffer[..], buffer.capacity()), (&b"he"[..], 5));
        buffer.set_len(5);
        assert_eq!(buffer.as_ref(), b"hello");
        buffer.set_len(1);
        assert_eq!(buffer.into_vec(), b"h");
        assert!(Buffer::default().is_empty());
    }

    #[test]
    fn too_much_memory_is_an_error() {
        let error = Buffer::try_new(usize::MAX).expect_err("more than there is");
        assert_eq!(error.kind(), crate::ErrorKind::Exhausted);
        assert_eq!(Buffer::try_new(512).expect("little").len(), 512);
    }

    #[test]
    #[should_panic(expected = "capacity")]
    fn no_longer_than_it_is() {
        Buffer::new(8).set_len(9);
    }

    #[test]
    fn memory_that_is_still_held_is_copied() {
        let lent = Buffer::from(&b"abc"[..]).lend();
        let held = lent.memory();
        assert_eq!(&lent.reclaim()[..], b"abc");
        assert_eq!(held.to_vec(), b"abc");
    }
}
