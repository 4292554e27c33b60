//! A buffer that has one owner at a time: it is lent to a request, and comes back.
//!
//! While it is lent it is a [`SharedBuf`] like any other, which a device fills or reads; only once
//! nobody else holds it is it a plain slice of bytes again. So programs get at bytes without a copy,
//! and nobody has to trust the layers below to have let go.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::mem::SharedBuf;

/// A buffer that has one owner at a time: it is lent to a request, and comes back. Always the only
/// reference to its memory, which is on the heap.
pub struct OwnedBuf(Arc<SharedBuf>);

impl OwnedBuf {
    /// `len` zero bytes, page-aligned. `None` when memory is exhausted.
    pub fn zeroed(len: usize) -> Option<OwnedBuf> {
        SharedBuf::zeroed(len).map(OwnedBuf)
    }

    /// Takes over a vector's bytes, as they lie.
    pub fn from_vec(bytes: Vec<u8>) -> OwnedBuf {
        OwnedBuf(SharedBuf::from_vec(bytes))
    }

    /// The bytes as a vector: without a copy if it was made of one.
    pub fn into_vec(mut self) -> Vec<u8> {
        let taken = Arc::get_mut(&mut self.0).and_then(SharedBuf::take_vec);
        taken.unwrap_or_else(|| self.to_vec())
    }

    /// For a request, or several.
    pub fn lend(self) -> Arc<SharedBuf> {
        self.0
    }

    /// Takes back what was lent.
    ///
    /// # Errors
    /// Somebody else still holds it, or it is memory that others change.
    pub fn reclaim(mut lent: Arc<SharedBuf>) -> Result<OwnedBuf, Arc<SharedBuf>> {
        match Arc::get_mut(&mut lent).is_some_and(|buf| buf.is_heap()) {
            true => Ok(OwnedBuf(lent)),
            false => Err(lent),
        }
    }
}

impl Deref for OwnedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: heap memory of this length, initialised when it was made. This is the only
        // reference to it (every other address of it is kept with a reference), so nothing writes
        // there while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

impl DerefMut for OwnedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.0.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SharedMem;

    #[test]
    fn lent_memory_comes_back_when_nobody_holds_it() {
        let mut buf = OwnedBuf::zeroed(8).unwrap();
        buf[2] = 7;
        let lent = buf.lend();
        let held = SharedMem::of_shared(lent.clone(), 0, 8);
        let lent = OwnedBuf::reclaim(lent).err().expect("it is held");
        lent.write(0, b"ab");
        drop(held);
        let buf = OwnedBuf::reclaim(lent)
            .ok()
            .expect("it is not held any more");
        assert_eq!(&buf[..], b"ab\x07\0\0\0\0\0");
        assert_eq!(buf.into_vec(), b"ab\x07\0\0\0\0\0");
    }

    #[test]
    fn vectors_are_the_same_memory_all_along() {
        let vec = vec![5; 4096];
        let address = vec.as_ptr();
        let mut buf = OwnedBuf::from_vec(vec);
        buf[0] = 6;
        let lent = buf.lend();
        lent.write(1, &[7]);
        let vec = OwnedBuf::reclaim(lent).ok().expect("free").into_vec();
        assert_eq!((vec.as_ptr(), &vec[..3]), (address, &[6, 7, 5][..]));
        assert!(OwnedBuf::from_vec(Vec::new()).into_vec().is_empty());
    }

    #[test]
    fn memory_of_others_is_not_taken() {
        let mut bytes: Box<[u8; 4]> = Box::new(*b"abcd");
        let ptr = std::ptr::NonNull::new(bytes.as_mut_ptr()).unwrap();
        // SAFETY: the box goes along as the owner.
        let mapped = unsafe { SharedBuf::from_owner(ptr, 4, bytes) };
        assert!(OwnedBuf::reclaim(mapped).is_err());
    }
}
