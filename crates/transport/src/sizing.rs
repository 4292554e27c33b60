//! How large a receive buffer should be.

/// Receive buffer of a connection that is idle or in negotiation, in bytes.
pub const SMALL_BUFFER: usize = 8 << 10;

/// Receive buffer of a busy connection, in bytes.
const LARGE_BUFFER: usize = 512 << 10;

/// What receives tell of the right size: a buffer grows while it is filled to the brim and shrinks
/// when it is not, so an idle connection holds a small one.
#[derive(Clone, Copy, Default)]
pub struct Sizing {
    /// Receives in a row that filled the buffer, or (negative) left most of it empty.
    full: i32,
}

impl Sizing {
    /// `n` bytes were received where there was room for `room`.
    #[inline]
    pub fn received(&mut self, n: usize, room: usize) {
        self.full = match self.full {
            full if n == room => full.max(0) + 1,
            full if n < room / 8 => full.min(0).saturating_sub(1),
            _ => 0,
        };
    }

    /// The size to go on with, for a buffer of `capacity` bytes.
    #[inline]
    pub fn wanted(&self, capacity: usize) -> usize {
        match self.full {
            2.. => (capacity * 4).min(LARGE_BUFFER),
            ..=-16 => (capacity / 4).max(SMALL_BUFFER),
            _ => capacity,
        }
    }

    /// The buffer was replaced.
    pub fn replaced(&mut self) {
        self.full = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_follow_the_load() {
        let mut sizing = Sizing::default();
        let mut capacity = SMALL_BUFFER;
        for _ in 0..10 {
            sizing.received(capacity, capacity);
            capacity = sizing.wanted(capacity);
        }
        assert_eq!(capacity, LARGE_BUFFER);
        sizing.received(capacity / 2, capacity);
        assert_eq!(sizing.wanted(capacity), capacity);
        for _ in 0..100 {
            sizing.received(28, capacity);
            capacity = sizing.wanted(capacity);
        }
        assert_eq!(capacity, SMALL_BUFFER);
    }
}
