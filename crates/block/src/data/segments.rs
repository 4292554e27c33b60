//! What a read found: pieces of shared memory, and holes.

use smallvec::SmallVec;

use super::mem::{Iov, SharedMem};

/// One piece of a read's result.
#[derive(Clone)]
pub enum Piece {
    /// Bytes. They are immutable for whoever gets them.
    Mem(SharedMem),
    /// So many zero bytes, known without looking: a hole.
    Zero(u64),
}

impl Piece {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Mem(mem) => mem.len() as u64,
            Piece::Zero(len) => *len,
        }
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A read's result, in order.
#[derive(Clone, Default)]
pub struct Segments {
    pieces: SmallVec<[Piece; 2]>,
    len: u64,
}

impl Segments {
    /// Nothing yet.
    pub fn new() -> Segments {
        Segments::default()
    }

    /// One hole.
    #[inline]
    pub fn zero(len: u64) -> Segments {
        let mut segments = Segments::new();
        segments.push(Piece::Zero(len));
        segments
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in order.
    #[inline]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The pieces, in order, by value.
    #[inline]
    pub fn into_pieces(self) -> impl Iterator<Item = Piece> {
        self.pieces.into_iter()
    }

    /// Adds a piece behind; adjacent holes become one, empty pieces vanish.
    #[inline]
    pub fn push(&mut self, piece: Piece) {
        self.len += piece.len();
        match (self.pieces.last_mut(), &piece) {
            (_, piece) if piece.is_empty() => {}
            (Some(Piece::Zero(last)), Piece::Zero(more)) => *last += more,
            _ => self.pieces.push(piece),
        }
    }

    /// Adds all pieces of `other` behind.
    pub fn append(&mut self, other: Segments) {
        other.pieces.into_iter().for_each(|piece| self.push(piece));
    }

    /// A part of it, sharing the memory. Panics if the range is outside.
    pub fn slice(&self, at: u64, len: u64) -> Segments {
        assert!(
            at <= self.len && len <= self.len - at,
            "outside the segments"
        );
        let mut part = Segments::new();
        self.each(at, len, |piece, skip, take| match piece {
            Piece::Mem(mem) => part.push(Piece::Mem(mem.slice(skip as usize, take as usize))),
            Piece::Zero(_) => part.push(Piece::Zero(take)),
        });
        part
    }

    /// Copies bytes out, starting at `at`. Panics if the range is outside.
    pub fn read(&self, at: u64, bytes: &mut [u8]) {
        assert!(
            at <= self.len && bytes.len() as u64 <= self.len - at,
            "outside the segments"
        );
        let mut done = 0;
        self.each(at, bytes.len() as u64, |piece, skip, take| {
            let target = &mut bytes[done..done + take as usize];
            match piece {
                Piece::Mem(mem) => mem.read(skip as usize, target),
                Piece::Zero(_) => target.fill(0),
            }
            done += take as usize;
        });
    }

    /// Copies everything into a buffer of at least this length, at its front.
    pub fn copy_to(&self, iov: &Iov) {
        let mut done = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Mem(mem) => iov.write_mem(done, mem, 0, mem.len()),
                Piece::Zero(len) => iov.zero(done, *len as usize),
            }
            done += piece.len() as usize;
        }
    }

    /// The bytes as a new vector: for tests and slow paths.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    fn each(&self, at: u64, len: u64, mut f: impl FnMut(&Piece, u64, u64)) {
        let (mut skip, mut left) = (at, len);
        for piece in &self.pieces {
            let here = skip.min(piece.len());
            skip -= here;
            let take = left.min(piece.len() - here);
            left -= take;
            if take > 0 {
                f(piece, here, take);
            }
        }
    }
}

impl From<SharedMem> for Segments {
    #[inline]
    fn from(mem: SharedMem) -> Segments {
        let mut segments = Segments::new();
        segments.push(Piece::Mem(mem));
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ChunkPool, SharedBuf};

    #[test]
    fn pieces_and_holes_read_as_one() {
        let mut segments = Segments::zero(2);
        segments.push(Piece::Zero(1));
        let mem = SharedMem::of_shared(SharedBuf::from_vec(b"hello".to_vec()), 1, 4);
        segments.push(Piece::Mem(mem));
        segments.append(Segments::zero(1));
        assert_eq!((segments.len(), segments.pieces().len()), (8, 3));
        assert_eq!(segments.to_vec(), b"\0\0\0ello\0");
        assert_eq!(segments.slice(2, 4).to_vec(), b"\0ell");
        let iov = Iov::of_chunk(ChunkPool::default().take(8), 8);
        segments.copy_to(&iov);
        assert_eq!(iov.to_vec(), segments.to_vec());
    }
}
