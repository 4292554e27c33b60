//! The log of a split ring.

use super::{AT_COUNT, AT_VERSION, VERSION};
use crate::{memory::Area, ring::SetupError};

const AT_LAST_BATCH_HEAD: usize = 12;
const AT_USED: usize = 14;
const HEAD: usize = 16;
/// One descriptor: inflight u8, 5 bytes of padding, next u16, counter u64.
const STATE: usize = 16;
const NEXT: usize = 6;
const COUNTER: usize = 8;

/// Bytes of the log.
pub(super) fn length(size: u16) -> usize {
    HEAD + usize::from(size) * STATE
}

/// The log of a split ring.
#[derive(Debug)]
pub(crate) struct Split {
    area: Area,
    was_used: bool,
    counter: u64,
    last_batch_head: u16,
    /// Pushed and not yet published.
    batch: Vec<u16>,
    /// To be done again, the first one last.
    resume: Vec<u16>,
}

fn state(head: u16) -> usize {
    HEAD + usize::from(head) * STATE
}

impl Split {
    /// Opens a log for a queue whose used index is `used`. Also gives how many are in flight.
    pub fn open(area: Area, size: u16, used: u16) -> Result<(Split, u16), SetupError> {
        let was_used = super::check_head(&area, size, length(size))?;
        let mut log = Split {
            area,
            was_used,
            counter: 0,
            last_batch_head: 0,
            batch: Vec::with_capacity(size.into()),
            resume: Vec::new(),
        };
        if !was_used {
            log.area.store16(AT_COUNT, size);
            log.area.store16(AT_USED, used);
            log.area.store16_release(AT_VERSION, VERSION);
            return Ok((log, 0));
        }
        log.last_batch_head = log.area.load16(AT_LAST_BATCH_HEAD);
        log.finish_batch(size, used)?;
        let found = log.find(size);
        Ok((log, found))
    }

    /// Whether somebody used it before.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    /// A batch was shown to the guest, and the end came before the log knew.
    fn finish_batch(&mut self, size: u16, used: u16) -> Result<(), SetupError> {
        let count = used.wrapping_sub(self.area.load16(AT_USED));
        if count > size {
            return Err(SetupError::Inflight("its used index is not the ring's"));
        }
        let mut head = self.last_batch_head;
        for _ in 0..count {
            if head >= size {
                return Err(SetupError::Inflight("its last batch leads out of it"));
            }
            self.area.store8(state(head), 0);
            head = self.area.load16(state(head) + NEXT);
        }
        self.area.store16_release(AT_USED, used);
        Ok(())
    }

    /// Reads what is in flight.
    fn find(&mut self, size: u16) -> u16 {
        let mut found = Vec::new();
        for head in 0..size {
            if self.area.load8(state(head)) == 1 {
                found.push((self.area.load64(state(head) + COUNTER), head));
            }
        }
        found.sort_unstable();
        let newest = found.last().map_or(0, |last| last.0);
        self.counter = newest.wrapping_add(1);
        self.resume = found.iter().rev().map(|&(_, head)| head).collect();
        // At most the queue's size.
        found.len() as u16
    }

    /// The next head to be done again.
    pub fn resume(&mut self) -> Option<u16> {
        self.resume.pop()
    }

    /// A chain was taken.
    #[inline]
    pub fn take(&mut self, head: u16) {
        self.area.store64(state(head) + COUNTER, self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.area.store8_release(state(head), 1);
    }

    /// A chain was pushed.
    #[inline]
    pub fn push(&mut self, head: u16) {
        self.area.store16(state(head) + NEXT, self.last_batch_head);
        self.last_batch_head = head;
        self.batch.push(head);
        self.area.store16_release(AT_LAST_BATCH_HEAD, head);
    }

    /// The guest can see all that was pushed.
    #[inline]
    pub fn publish(&mut self, used: u16) {
        for head in self.batch.drain(..) {
            self.area.store8_release(state(head), 0);
        }
        self.area.store16_release(AT_USED, used);
    }
}
